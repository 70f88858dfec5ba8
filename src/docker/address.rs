//! Where an engine is.
use std::{fmt, path::PathBuf};

use super::ssh::Destination;

/// How an engine is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket on this host.
    Socket(PathBuf),
    /// Plain HTTP: `host:port`. For a proxy that lets through only what is needed; whoever reaches an engine owns its host.
    Http(String),
    /// The same through TLS, where both show certificates.
    Tls(String),
    /// The `docker` program on another machine, over the `ssh` of this one.
    Ssh(Destination),
}

impl Address {
    /// From what people write. `tls`: a network address is one of TLS.
    pub(super) fn read(host: &str, tls: bool) -> Result<Self, String> {
        if let Some(path) = host.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Socket(path.into()))
            } else {
                Err(format!("`{host}` has no absolute path after `unix://`"))
            };
        }
        if let Some(at) = host.strip_prefix("ssh://") {
            return Destination::read(at).map(Self::Ssh).map_err(|why| format!("`{host}` {why}"));
        }
        let is_https = host.starts_with("https://");
        let at = ["tcp://", "http://", "https://"].into_iter().find_map(|scheme| host.strip_prefix(scheme));
        let Some(at) = at else { return Err(format!("`{host}` is no address of a Docker engine")) };
        let at = at.trim_end_matches('/');
        let port = at.rsplit_once(':').map(|(name, port)| (is_host(name), port.parse::<u16>()));
        match port {
            Some((true, Ok(_))) if tls || is_https => Ok(Self::Tls(at.to_owned())),
            Some((true, Ok(_))) => Ok(Self::Http(at.to_owned())),
            _ => Err(format!("`{host}` names no host and port")),
        }
    }

    /// The host and port that are reached, unless it is a socket.
    #[must_use]
    pub fn host_and_port(&self) -> Option<String> {
        match self {
            Self::Socket(_) => None,
            Self::Http(at) | Self::Tls(at) => Some(at.clone()),
            Self::Ssh(to) => Some(to.host_and_port()),
        }
    }

    /// Whether what lies on the engine's host may be looked for on this one.
    #[must_use]
    pub fn may_be_here(&self) -> bool {
        let is_local = |at: &str| ["127.0.0.1:", "localhost:", "[::1]:"].iter().any(|local| at.starts_with(local));
        match self {
            Self::Socket(_) => true,
            Self::Http(at) => is_local(at),
            // A tunnel ends here as well: whoever takes this trouble means another machine.
            Self::Tls(_) | Self::Ssh(_) => false,
        }
    }
}

/// A name or an address, with nothing around it that would make it something else.
pub(super) fn is_host(name: &str) -> bool {
    let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    !inner.is_empty() && !inner.starts_with('-') && inner.bytes().all(fine)
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
            Self::Http(at) => write!(f, "tcp://{at}"),
            Self::Tls(at) => write!(f, "tcp://{at} (TLS)"),
            Self::Ssh(to) => write!(f, "ssh://{to}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_or_refused_with_a_reason() {
        for (host, expected) in [
            ("unix:///run/d.sock", Some("unix:///run/d.sock")),
            ("tcp://proxy:2375", Some("tcp://proxy:2375")),
            ("tcp://[::1]:2375/", Some("tcp://[::1]:2375")),
            ("https://host:2376", Some("tcp://host:2376 (TLS)")),
            ("ssh://me@nas", Some("ssh://me@nas")),
            ("ssh://nas:2222", Some("ssh://nas:2222")),
            (
                "ssh://me@[fe80::1]:22/run/user/1000/docker.sock",
                Some("ssh://me@[fe80::1]:22/run/user/1000/docker.sock"),
            ),
            ("unix://run/d.sock", None),
            ("tcp://proxy", None),
            ("tcp://:2375", None),
            ("tcp://a b:2375", None),
            ("ssh://", None),
            ("ssh://me@", None),
            // To `ssh` these would be options.
            ("ssh://-oProxyCommand=x", None),
            ("ssh://-x@nas", None),
            ("ssh://me:word@nas", None),
            ("ssh://nas:port", None),
            ("ssh://nas/a;b", None),
            ("/var/run/docker.sock", None),
        ] {
            let read = Address::read(host, false);
            assert_eq!(read.as_ref().ok().map(ToString::to_string).as_deref(), expected, "{host}: {read:?}");
        }
        assert_eq!(Address::read("tcp://nas:2376", true), Ok(Address::Tls("nas:2376".into())));
    }
}
