//! Commands as another user, by the name in `/etc/passwd`.
use anyhow::{Context, bail};

/// A line of `/etc/passwd`.
struct User {
    id: u32,
    group: u32,
    home: String,
    shell: String,
}

/// Makes `child` start as the user of that name. Another user gets a fresh environment: ours may hold secrets.
pub(super) fn become_user(child: &mut tokio::process::Command, name: &str) -> anyhow::Result<()> {
    let table = std::fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    let user = find(&table, name).with_context(|| format!("/etc/passwd has no user `{name}`"))?;
    let ours = rustix::process::geteuid();
    if ours.as_raw() == user.id {
        return Ok(());
    }
    if !ours.is_root() {
        bail!("only root can start commands as another user, and Rusuban runs as user {}", ours.as_raw());
    }
    child
        .uid(user.id)
        .gid(user.group)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("USER", name)
        .env("LOGNAME", name)
        .env("HOME", user.home)
        .env("SHELL", user.shell);
    Ok(())
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
}
