//! Commands as another user, by the name in `/etc/passwd`.
use std::io;

use anyhow::{Context, bail};
use rustix::{
    process::Gid,
    thread::{CapabilitySet, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid},
};
use tokio::process::{Child, Command};

/// Another user than our own.
pub(super) struct Other {
    name: String,
    user: User,
    groups: Vec<Gid>,
}

/// A line of `/etc/passwd`.
struct User {
    id: u32,
    group: u32,
    home: String,
    shell: String,
}

/// The user of that name; none when that is who we are.
pub(super) fn other(name: &str) -> anyhow::Result<Option<Other>> {
    let table = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    let user = find(&table, name).with_context(|| format!("/etc/passwd has no user `{name}`"))?;
    let ours = rustix::process::geteuid();
    if ours.as_raw() == user.id {
        return Ok(None);
    }
    if !ours.is_root() {
        bail!("only root can start commands as another user, and Rusuban runs as user {}", ours.as_raw());
    }
    let table = match std::fs::read_to_string("/etc/group") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read.context("read /etc/group")?,
    };
    let groups = groups(&table, name, user.group).into_iter().map(Gid::from_raw).collect();
    Ok(Some(Other { name: name.to_owned(), user, groups }))
}

impl Other {
    /// Gives `child` the user's numbers and a fresh environment: ours may hold secrets.
    pub(super) fn dress(&self, child: &mut Command) {
        child
            .uid(self.user.id)
            .gid(self.user.group)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("USER", &self.name)
            .env("LOGNAME", &self.name)
            .env("HOME", &self.user.home)
            .env("SHELL", &self.user.shell);
    }

    /// Starts `child` with the user's groups, from a thread that has them: on Linux they are each thread's own, and a child
    /// has those of the thread that starts it.
    pub(super) fn spawn(&self, child: &mut Command) -> io::Result<Child> {
        let runtime = tokio::runtime::Handle::current();
        let with_groups = || {
            let _runtime = runtime.enter();
            let group = Gid::from_raw(self.user.group);
            set_thread_groups(&self.groups)?;
            set_thread_res_gid(group, None, group)?;
            // The standard library drops all groups where it changes the user, if it may: so the thread gives that right up.
            let mut rights = capabilities(None)?;
            rights.effective.remove(CapabilitySet::SETGID);
            set_capabilities(None, rights)?;
            child.spawn()
        };
        std::thread::scope(|scope| scope.spawn(with_groups).join())
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")))
    }
}

fn find(table: &str, name: &str) -> Option<User> {
    table.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let (id, group) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        let home = fields.nth(1)?.to_owned();
        let shell = fields.next().filter(|shell| !shell.is_empty()).unwrap_or("/bin/sh").to_owned();
        Some(User { id, group, home, shell })
    })
}

/// The user's own group, and those of `/etc/group` that name the user.
fn groups(table: &str, name: &str, own: u32) -> Vec<u32> {
    let named = table.lines().filter_map(|line| {
        let [_, _, id, members] = line.split(':').collect::<Vec<_>>()[..] else { return None };
        members.split(',').any(|member| member.trim() == name).then(|| id.parse().ok())?
    });
    let mut groups: Vec<u32> = std::iter::once(own).chain(named).collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let table = "root:x:0:0:root:/root:/bin/bash\nwww-data:x:33:34:web,,,:/var/www:\nbroken:x\n";
        let user = find(table, "www-data").unwrap();
        assert_eq!((user.id, user.group, &*user.home, &*user.shell), (33, 34, "/var/www", "/bin/sh"));
        assert!(find(table, "www").is_none());
        assert!(find(table, "broken").is_none());
    }

    #[test]
    fn groups_are_those_that_name_the_user() {
        let table = "root:x:0:\nweb:x:34:www-data\nmedia:x:50:ann,www-data\nnone:x:51:www-data2\nbroken:x:52\n";
        assert_eq!(groups(table, "www-data", 34), [34, 50]);
        assert_eq!(groups(table, "nobody", 65534), [65534]);
    }
}
