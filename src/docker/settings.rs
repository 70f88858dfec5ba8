//! `[docker]` in `rusuban.toml`, and the engine that it names.
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    address::Address,
    client::{Engine, EngineError},
    tls::{Certificates, TlsSettings},
};
use crate::config::{
    mistake::Problem,
    secret::{SecretReader, SecretSource},
};

/// Where the engine listens when nothing says otherwise.
const SOCKET: &str = "/var/run/docker.sock";

/// Which Docker engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DockerSettings {
    /// Its address: `unix:///var/run/docker.sock`, `ssh://user@host` for an engine on another machine, `tcp://host:2376` with `tls`, or
    /// `tcp://proxy:2375` for a proxy before its socket [default: `DOCKER_HOST`, else the socket that is there].
    pub host: Option<String>,
    /// Certificates, where a `tcp://` address is one of TLS [default: as `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH` say].
    pub tls: Option<TlsSettings>,
    /// The image of the container that reads volumes which cannot be read from here. It needs nothing but a `rusuban` program
    /// [default: made of this program when it is linked statically, else the image that Rusuban itself runs in].
    pub helper: Option<String>,
    /// Containers may say in labels of theirs, `rusuban.…`, how jobs that the files have treat them [default: false].
    pub labels: bool,
}

/// An engine that nobody has spoken to yet.
#[derive(Clone, Debug)]
pub struct Docker {
    address: Address,
    certificates: Option<Certificates>,
    helper: Option<String>,
    labels: bool,
}

impl DockerSettings {
    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Option<Problem> {
        if let Some(problem) = self.tls.as_ref().and_then(TlsSettings::check) {
            return Some(problem);
        }
        if self.helper.as_ref().is_some_and(|image| image.is_empty() || image.contains(char::is_whitespace)) {
            return Some(
                Problem::new("docker.helper", "this is not the name of an image")
                    .hint("write `rusuban:1` for instance"),
            );
        }
        let host = self.host.as_deref()?;
        let hint = "write `unix:///var/run/docker.sock`, `ssh://user@host` for another machine, `tcp://host:2376` with `tls`, or `tcp://proxy:2375` \
             for a proxy before the socket";
        match Address::read(host, self.tls.is_some()) {
            Err(why) => Some(Problem::new("docker.host", why).hint(hint)),
            Ok(Address::Tls(_)) => None,
            Ok(_) if self.tls.is_some() => Some(
                Problem::new("docker.tls", format!("`{host}` is reached without TLS"))
                    .hint("it is for addresses such as `tcp://host:2376`; leave it out here"),
            ),
            Ok(_) => None,
        }
    }

    /// Where the engine is: what was written, else `DOCKER_HOST`, else the system's socket, else that of this user's own engine.
    /// `variable` reads the environment, and `reader` certificates.
    #[must_use]
    pub fn docker(&self, variable: impl Fn(&str) -> Option<String>, reader: &SecretReader) -> Docker {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let said = self.host.clone().or_else(|| variable("DOCKER_HOST"));
        // As the `docker` program takes them.
        let folder = variable("DOCKER_TLS_VERIFY").and_then(|_| {
            let own = || Some(Path::new(&variable("HOME")?).join(".docker"));
            variable("DOCKER_CERT_PATH").map(Into::into).or_else(own)
        });
        // One that cannot be read is a mistake of the settings, which are not used then.
        let address = said.and_then(|host| Address::read(&host, self.tls.is_some() || folder.is_some()).ok());
        let address = address.unwrap_or_else(|| Address::Socket(usual_socket(&variable)));
        let certificates = match (&address, &self.tls, folder) {
            (Address::Tls(_), Some(tls), _) => Some(tls.certificates(reader.clone())),
            (Address::Tls(_), None, Some(folder)) => Some(Certificates::of_folder(&folder, reader.clone())),
            _ => None,
        };
        Docker { address, certificates, helper: self.helper.clone(), labels: self.labels }
    }
}

fn usual_socket(variable: &dyn Fn(&str) -> Option<String>) -> std::path::PathBuf {
    let own = variable("XDG_RUNTIME_DIR").map(std::path::PathBuf::from);
    let of_user = own.iter().flat_map(|folder| [folder.join("docker.sock"), folder.join("podman/podman.sock")]);
    let all = [Path::new(SOCKET).to_owned()].into_iter().chain(of_user);
    all.into_iter().find(|socket| socket.exists()).unwrap_or_else(|| SOCKET.into())
}

impl Docker {
    /// The engine at `address`.
    #[must_use]
    pub fn at(address: Address) -> Self {
        Self { address, certificates: None, helper: None, labels: false }
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

    /// Whether containers must be made to read volumes, or somebody has made ready for that.
    #[must_use]
    pub fn is_afar(&self) -> bool {
        self.helper.is_some() || matches!(self.address, Address::Tls(_) | Address::Ssh(_))
    }

    /// The image that reads volumes, if one was named.
    #[must_use]
    pub fn helper(&self) -> Option<&str> {
        self.helper.as_deref()
    }

    /// The secrets that are needed to reach it.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        self.certificates.iter().flat_map(Certificates::secrets)
    }

    pub(super) fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// Knocks, and agrees on a version of the API.
    ///
    /// # Errors
    /// When nobody answers, or too old an engine.
    pub async fn connect(&self) -> Result<Engine, EngineError> {
        Engine::connect(self).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn reader() -> SecretReader {
        SecretReader(Arc::new(|source| anyhow::bail!("{source:?}")))
    }

    #[test]
    fn what_is_written_comes_before_the_environment() {
        let variable = |name: &str| (name == "DOCKER_HOST").then(|| "tcp://a:1".to_owned());
        let written = DockerSettings { host: Some("unix:///b".into()), ..DockerSettings::default() };
        assert_eq!(written.docker(variable, &reader()).address(), &Address::Socket("/b".into()));
        assert_eq!(DockerSettings::default().docker(variable, &reader()).address(), &Address::Http("a:1".into()));
        let none = DockerSettings::default().docker(|_| None, &reader());
        assert_eq!(none.address(), &Address::Socket(SOCKET.into()));
    }

    #[test]
    fn tls_is_as_the_settings_say_or_else_as_the_docker_program_takes_it() {
        let variable = |name: &str| match name {
            "DOCKER_TLS_VERIFY" => Some("1".to_owned()),
            "DOCKER_CERT_PATH" => Some("/certificates".to_owned()),
            "DOCKER_HOST" => Some("tcp://a:1".to_owned()),
            _ => None,
        };
        let found = DockerSettings::default().docker(variable, &reader());
        assert_eq!(found.address(), &Address::Tls("a:1".into()));
        assert!(found.certificates().is_some());
        let socket = DockerSettings { host: Some("unix:///b".into()), ..DockerSettings::default() };
        assert!(socket.docker(variable, &reader()).certificates().is_none());
        let own = DockerSettings {
            host: Some("tcp://b:1".into()),
            tls: Some(TlsSettings::default()),
            ..DockerSettings::default()
        };
        assert_eq!(own.docker(|_| None, &reader()).address(), &Address::Tls("b:1".into()));
    }
}
