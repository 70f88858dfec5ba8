//! `[docker]` in `rusuban.toml`, and the engine that it names.
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::client::{Engine, EngineError};
use crate::config::mistake::Problem;

/// Where the engine listens when nothing says otherwise.
const SOCKET: &str = "/var/run/docker.sock";

/// Which Docker engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DockerSettings {
    /// Its address: `unix:///var/run/docker.sock`, or `tcp://proxy:2375` for a proxy before its socket
    /// [default: `DOCKER_HOST`, else the socket that is there].
    pub host: Option<String>,
    /// Containers may say in labels of theirs, `rusuban.…`, how jobs that the files have treat them [default: false].
    pub labels: bool,
}

/// How an engine is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket on this host.
    Socket(PathBuf),
    /// Plain HTTP: `host:port`. For a proxy that lets through only what is needed; whoever reaches an engine owns its host.
    Http(String),
}

/// An engine that nobody has spoken to yet.
#[derive(Clone, Debug)]
pub struct Docker {
    address: Address,
    labels: bool,
}

impl DockerSettings {
    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Option<Problem> {
        let host = self.host.as_deref()?;
        let why = Address::read(host).err()?;
        let hint = "write `unix:///var/run/docker.sock`, or `tcp://proxy:2375` for a proxy before it";
        Some(Problem::new("docker.host", why).hint(hint))
    }

    /// Where the engine is: what was written, else `DOCKER_HOST`, else the system's socket, else that of this user's own engine.
    /// `variable` reads the environment.
    #[must_use]
    pub fn docker(&self, variable: impl Fn(&str) -> Option<String>) -> Docker {
        let said = self.host.clone().or_else(|| variable("DOCKER_HOST").filter(|host| !host.is_empty()));
        // One that cannot be read is a mistake of the settings, which are not used then.
        if let Some(address) = said.and_then(|host| Address::read(&host).ok()) {
            return Docker { address, labels: self.labels };
        }
        let rootless = variable("XDG_RUNTIME_DIR").map(|folder| Path::new(&folder).join("docker.sock"));
        let socket = match rootless {
            Some(own) if !Path::new(SOCKET).exists() && own.exists() => own,
            _ => SOCKET.into(),
        };
        Docker { address: Address::Socket(socket), labels: self.labels }
    }
}

impl Address {
    fn read(host: &str) -> Result<Self, String> {
        if let Some(path) = host.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Socket(path.into()))
            } else {
                Err(format!("`{host}` has no absolute path after `unix://`"))
            };
        }
        if let Some(at) = host.strip_prefix("tcp://").or_else(|| host.strip_prefix("http://")) {
            let at = at.trim_end_matches('/');
            let port = at.rsplit_once(':').map(|(name, port)| (!name.is_empty(), port.parse::<u16>()));
            return match port {
                Some((true, Ok(_))) => Ok(Self::Http(at.to_owned())),
                _ => Err(format!("`{host}` names no host and port")),
            };
        }
        Err(format!("`{host}` is no address of a Docker engine"))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
            Self::Http(at) => write!(f, "tcp://{at}"),
        }
    }
}

impl Docker {
    /// The engine at `address`.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self { address, labels: false }
    }

    /// The same, and what its containers say in labels counts or not.
    #[must_use]
    pub fn with_labels(self, labels: bool) -> Self {
        Self { labels, ..self }
    }

    /// Whether what its containers say in labels counts.
    #[must_use]
    pub fn heeds_labels(&self) -> bool {
        self.labels
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Knocks, and agrees on a version of the API.
    ///
    /// # Errors
    /// When nobody answers, or too old an engine.
    pub async fn connect(&self) -> Result<Engine, EngineError> {
        Engine::connect(&self.address).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_a_reason() {
        for (host, expected) in [
            ("unix:///run/d.sock", Some(Address::Socket("/run/d.sock".into()))),
            ("tcp://proxy:2375", Some(Address::Http("proxy:2375".into()))),
            ("tcp://[::1]:2375/", Some(Address::Http("[::1]:2375".into()))),
            ("unix://run/d.sock", None),
            ("tcp://proxy", None),
            ("tcp://:2375", None),
            ("/var/run/docker.sock", None),
        ] {
            assert_eq!(Address::read(host).ok(), expected, "{host}");
            let settings = DockerSettings { host: Some(host.into()), ..DockerSettings::default() };
            assert_eq!(settings.check().is_none(), expected.is_some(), "{host}");
        }
    }

    #[test]
    fn what_is_written_comes_before_the_environment() {
        let variable = |name: &str| (name == "DOCKER_HOST").then(|| "tcp://a:1".to_owned());
        let written = DockerSettings { host: Some("unix:///b".into()), ..DockerSettings::default() };
        assert_eq!(written.docker(variable).address(), &Address::Socket("/b".into()));
        assert_eq!(DockerSettings::default().docker(variable).address(), &Address::Http("a:1".into()));
        let none = DockerSettings::default().docker(|_| None);
        assert_eq!(none.address(), &Address::Socket(SOCKET.into()));
    }
}
