//! What is asked of an engine, for whoever lets through no more than that: each request that a job makes, and why.
use serde::Serialize;

/// A request that a job makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Access {
    /// Its method.
    pub method: &'static str,
    /// Its path after the version of the API. `{…}` stands for a name; that of an image may have slashes in it.
    pub path: &'static str,
    /// What it is for.
    pub why: &'static str,
    /// Only made when something went wrong or has come to its limit.
    pub rare: bool,
}

const fn of(method: &'static str, path: &'static str, why: &'static str) -> Access {
    Access { method, path, why, rare: false }
}

/// Every job that uses an engine begins with it.
pub const VERSION: Access = of("GET", "/version", "agree on a version of the API");
/// See [`Engine::info`](super::Engine::info).
pub const INFO: Access = of("GET", "/info", "know on which disk images are kept");
/// See [`Engine::containers`](super::Engine::containers).
pub const CONTAINERS: Access = of("GET", "/containers/json", "list the containers");
/// See [`Engine::container`](super::Engine::container).
pub const CONTAINER: Access =
    of("GET", "/containers/{container}/json", "look at a container; shows the passwords in its environment");
/// See [`Engine::processes`](super::Engine::processes).
pub const TOP: Access = of("GET", "/containers/{container}/top", "know which databases run in a container");
/// See [`Engine::start`](super::Engine::start).
pub const START: Access = of("POST", "/containers/{container}/start", "start a container");
/// See [`Engine::stop`](super::Engine::stop).
pub const STOP: Access = of("POST", "/containers/{container}/stop", "stop a container");
/// See [`Engine::pause`](super::Engine::pause).
pub const PAUSE: Access = of("POST", "/containers/{container}/pause", "freeze a container while it is read");
/// See [`Engine::unpause`](super::Engine::unpause).
pub const UNPAUSE: Access = of("POST", "/containers/{container}/unpause", "thaw it again");
/// See [`Engine::export`](super::Engine::export).
pub const EXPORT: Access = of("GET", "/containers/{container}/export", "read all files of a container");
/// See [`Engine::create_once`](super::Engine::create_once).
pub const CREATE: Access = of("POST", "/containers/create", "make a container");
/// See [`Engine::create_once`](super::Engine::create_once).
pub const ATTACH: Access = of("POST", "/containers/{container}/attach", "hear what it prints (an upgraded connection)");
/// See [`Working::ended`](super::Working::ended).
pub const WAIT: Access = of("POST", "/containers/{container}/wait", "wait for its end");
/// See [`Engine::remove_once`](super::Engine::remove_once).
pub const REMOVE: Access = of("DELETE", "/containers/{container}", "remove the container that was made");
/// See [`Engine::prepare`](super::Engine::prepare).
pub const EXEC: Access = of("POST", "/containers/{container}/exec", "prepare a command in a container");
/// See [`Prepared::start`](super::Prepared::start).
pub const EXEC_START: Access = of("POST", "/exec/{process}/start", "start and hear it (an upgraded connection)");
/// See [`Process::ended`](super::Process::ended).
pub const EXEC_LOOK: Access = of("GET", "/exec/{process}/json", "know how it ended");
/// See [`Engine::images_labelled`](super::Engine::images_labelled).
pub const IMAGES: Access = of("GET", "/images/json", "list the snapshots");
/// See [`Engine::image`](super::Engine::image).
pub const IMAGE: Access = of("GET", "/images/{image}/json", "look at an image");
/// See [`Engine::tag`](super::Engine::tag).
pub const TAG: Access = of("POST", "/images/{image}/tag", "name a snapshot");
/// See [`Engine::remove_image`](super::Engine::remove_image).
pub const REMOVE_IMAGE: Access = of("DELETE", "/images/{image}", "remove snapshots that are too old");
/// See [`Engine::save`](super::Engine::save).
pub const SAVE: Access = of("GET", "/images/{image}/get", "read a snapshot, to store it off the host");
/// See [`Engine::load_layers`](super::Engine::load_layers).
pub const LOAD: Access = of("POST", "/images/load", "give the engine an image");
/// See [`Engine::commit`](super::Engine::commit).
pub const COMMIT: Access = of("POST", "/commit", "make a snapshot of a container");
/// See [`Engine::events`](super::Engine::events).
pub const EVENTS: Access = of("GET", "/events", "know how long a container stood still");
/// See [`Engine::volumes`](super::Engine::volumes).
pub const VOLUMES: Access = of("GET", "/volumes", "list the volumes");
/// See [`Engine::volume`](super::Engine::volume).
pub const VOLUME: Access = of("GET", "/volumes/{volume}", "know where a volume's files are");

/// See [`Engine::vessel`](super::Engine::vessel).
pub const CREATE_VOLUME: Access = of("POST", "/volumes/create", "make a volume that is to be filled");
/// See [`Engine::remove_volume`](super::Engine::remove_volume).
pub const REMOVE_VOLUME: Access = of("DELETE", "/volumes/{volume}", "remove a volume");
/// See [`Spec::create`](super::Spec::create).
pub const CREATE_NETWORK: Access = of("POST", "/networks/create", "make a network");

/// See [`Spec::of`](super::Spec::of).
pub const NETWORK: Access = of("GET", "/networks/{network}", "know how a network of a container was made");
/// See [`Engine::pull`](super::Engine::pull).
pub const PULL: Access = of("POST", "/images/create", "fetch an image from its registry");
/// See [`Engine::helper`](super::Engine::helper).
pub const IMPORT: Access = of("POST", "/images/create", "give the engine an image of this program");
/// See [`Engine::digest_at_registry`](super::Engine::digest_at_registry).
pub const REGISTRY: Access = of("GET", "/distribution/{image}/json", "know what an image is at its registry");
/// See [`Engine::rename`](super::Engine::rename).
pub const RENAME: Access = of("POST", "/containers/{container}/rename", "put a container in the place of another");
/// See [`Engine::set_restart`](super::Engine::set_restart).
pub const UPDATE: Access = of("POST", "/containers/{container}/update", "keep the engine from starting it meanwhile");
/// See [`Spec::create`](super::Spec::create).
pub const CONNECT: Access = of("POST", "/networks/{network}/connect", "put a container into a network");
/// See [`Spec::create`](super::Spec::create).
pub const DISCONNECT: Access = of("POST", "/networks/{network}/disconnect", "take a container out of a network");

impl Access {
    /// The same, made only in rare cases: `why` says in which.
    #[must_use]
    pub const fn rarely(self, why: &'static str) -> Self {
        Self { why, rare: true, ..self }
    }

    /// Whether whoever may do this has the engine's host: a container may be made with all of its disk in it, and there may be one
    /// already in which a command does what it likes.
    #[must_use]
    pub fn amounts_to_root(&self) -> bool {
        (self.method, self.path) == (CREATE.method, CREATE.path) || (self.method, self.path) == (EXEC.method, EXEC.path)
    }

    /// A regular expression for all of its path but the version.
    #[must_use]
    pub fn pattern(&self) -> String {
        let mut pattern = String::new();
        for (index, part) in self.path.split(['{', '}']).enumerate() {
            pattern.push_str(match (index % 2, part) {
                (0, text) => text,
                (_, "image") => ".+",
                _ => "[^/]+",
            });
        }
        pattern
    }
}

/// Each request once, the usual before the rare; one that is usual anywhere is usual.
#[must_use]
pub fn union(of: impl IntoIterator<Item = Access>) -> Vec<Access> {
    let mut all: Vec<Access> = Vec::new();
    for one in of {
        match all.iter_mut().find(|known| (known.method, known.path) == (one.method, one.path)) {
            Some(known) if known.rare && !one.rare => *known = one,
            Some(_) => {}
            None => all.push(one),
        }
    }
    all.sort_by_key(|one| (one.rare, std::cmp::Reverse(one.method == "GET"), one.path));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_have_slashes_and_those_of_containers_have_none() {
        assert_eq!(IMAGE.pattern(), "/images/.+/json");
        assert_eq!(EXEC.pattern(), "/containers/[^/]+/exec");
        assert_eq!(VERSION.pattern(), "/version");
    }

    #[test]
    fn what_is_usual_anywhere_is_usual() {
        let all = union([UNPAUSE.rarely("x"), COMMIT, VERSION, UNPAUSE, CREATE.rarely("y"), VERSION]);
        assert_eq!(all, [VERSION, COMMIT, UNPAUSE, CREATE.rarely("y")]);
        assert!(CREATE.rarely("y").amounts_to_root() && EXEC.amounts_to_root() && !COMMIT.amounts_to_root());
    }
}
