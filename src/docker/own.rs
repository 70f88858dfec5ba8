//! The container that this process runs in, if it runs in one, and what it sees there of the engine's host.
use std::path::{Path, PathBuf};

use super::{
    client::{Engine, EngineError},
    container::{Container, Mount},
};

/// What an engine puts into each container, as files of its own.
const BESIDE: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// The id of the container that this process runs in. A host's own name and cgroups tell less: both can be chosen.
#[must_use]
pub fn own_id() -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    id_in(&mounts).map(str::to_owned)
}

fn id_in(mountinfo: &str) -> Option<&str> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, target) = (fields.next()?, fields.next()?);
        let file = BESIDE.into_iter().find(|file| target.strip_prefix("/etc/") == Some(*file))?;
        let folder = root.strip_suffix(file)?.strip_suffix('/')?;
        // Docker: …/containers/ID/hosts; Podman: …/overlay-containers/ID/userdata/hosts.
        let id = folder.strip_suffix("/userdata").unwrap_or(folder).rsplit('/').next()?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
    })
}

/// Why a container must go on, whatever is done to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// We run in it.
    Itself,
    /// The engine is reached through it.
    Way,
    /// What is kept goes to a server in it.
    Server,
}

/// Containers that must go on.
#[derive(Clone, Debug, Default)]
pub struct Ours {
    pub(crate) own: Option<String>,
    pub(crate) way: Option<String>,
    pub(crate) servers: Vec<String>,
}

impl Ours {
    /// Why this one must, if it must.
    #[must_use]
    pub fn need(&self, container: &Container) -> Option<Need> {
        if self.is_itself(container.id()) {
            return Some(Need::Itself);
        }
        if self.way.iter().any(|at| container.answers_at(at)) {
            return Some(Need::Way);
        }
        self.servers.iter().any(|at| container.answers_at(at)).then_some(Need::Server)
    }

    /// Whether this id is that of the container that we run in.
    #[must_use]
    pub fn is_itself(&self, id: &str) -> bool {
        self.own.as_deref() == Some(id)
    }

    /// Whether a container's id tells all.
    #[must_use]
    pub fn is_known_by_id(&self) -> bool {
        self.way.is_none() && self.servers.is_empty()
    }
}

impl Engine {
    /// Who must go on. `servers`: where what is kept goes, as `host:port`.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn ours(&self, servers: impl IntoIterator<Item = String>) -> Result<Ours, EngineError> {
        let own = self.own_container().await?.map(|own| own.id().to_owned());
        Ok(Ours { own, way: self.address().host_and_port(), servers: servers.into_iter().collect() })
    }

    /// Whether what lies on the engine's host is not to be looked for here: another machine has the same paths. `own`: the container that we
    /// run in, as this engine knows it.
    #[must_use]
    pub fn is_elsewhere(&self, own: Option<&Container>) -> bool {
        own.is_none() && (own_id().is_some() || !self.address().may_be_here())
    }

    /// The container of this engine that this process runs in, if it runs in one.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn own_container(&self) -> Result<Option<Container>, EngineError> {
        let Some(id) = own_id() else { return Ok(None) };
        match self.container(&id).await {
            Ok(container) => Ok(Some(container)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where a container with these mounts sees what lies at `path` on the host, if it sees it.
#[must_use]
pub fn seen_in(mounts: &[Mount], path: &Path) -> Option<PathBuf> {
    let mut seen: Vec<(&Mount, PathBuf)> = (mounts.iter())
        .filter(|mount| !mount.source.is_empty())
        .filter_map(|mount| {
            let within = path.strip_prefix(&mount.source).ok()?;
            let target = PathBuf::from(&mount.target);
            Some((mount, if within.as_os_str().is_empty() { target } else { target.join(within) }))
        })
        // What is mounted over it hides it.
        .filter(|(through, here)| {
            !mounts.iter().any(|other| {
                let over = Path::new(&other.target);
                over != Path::new(&through.target) && here.starts_with(over) && over.starts_with(&through.target)
            })
        })
        .collect();
    // The nearest mount above it: that one was meant for it.
    seen.sort_by_key(|(mount, _)| mount.source.len());
    seen.pop().map(|(_, here)| here)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn the_own_container_is_known_by_the_files_that_its_engine_gave_it() {
        let docker = format!(
            "700 699 0:50 / / rw - overlay overlay rw\n\
             712 700 8:1 /var/lib/docker/containers/{ID}/resolv.conf /etc/resolv.conf rw - ext4 /dev/sda1 rw"
        );
        let podman =
            format!("9 8 0:2 /containers/overlay-containers/{ID}/userdata/hosts /etc/hosts rw - tmpfs tmpfs rw");
        for (mounts, expected) in [
            (docker.as_str(), Some(ID)),
            (&podman, Some(ID)),
            // A host that looks at its engine's files.
            (&format!("1 2 8:1 /containers/{ID}/hosts /mnt/hosts rw - ext4 /dev/sda1 rw"), None),
            ("1 2 8:1 /etc/hosts /etc/hosts rw - ext4 /dev/sda1 rw", None),
            ("", None),
        ] {
            assert_eq!(id_in(mounts), expected, "{mounts}");
        }
    }

    #[test]
    fn a_place_on_the_host_is_found_through_the_nearest_mount_that_shows_it() {
        let mount = |source: &str, target: &str| Mount {
            kind: "bind".into(),
            volume: None,
            source: source.into(),
            target: target.into(),
            is_writable: false,
        };
        let volumes = "/var/lib/docker/volumes";
        let data = format!("{volumes}/data/_data");
        for (mounts, expected) in [
            (vec![], None),
            (vec![mount("/srv", "/srv")], None),
            (vec![mount(volumes, volumes)], Some(data.as_str())),
            (vec![mount(volumes, "/volumes")], Some("/volumes/data/_data")),
            (vec![mount(&data, "/data")], Some("/data")),
            (vec![mount("/", "/host"), mount(&data, "/data")], Some("/data")),
            (vec![mount("/", "/host")], Some("/host/var/lib/docker/volumes/data/_data")),
            // A beginning of letters is no beginning of folders.
            (vec![mount("/var/lib/docker/vol", "/x")], None),
            (vec![mount(volumes, "/volumes"), mount("/srv/other", "/volumes/data")], None),
            (vec![mount("", "/tmp")], None),
        ] {
            assert_eq!(seen_in(&mounts, Path::new(&data)).as_deref(), expected.map(Path::new), "{mounts:?}");
        }
    }
}
