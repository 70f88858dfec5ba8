//! Requests to an engine, and its answers.
use std::{sync::Arc, time::Duration};

use reqwest::{Body, Client, ClientBuilder, Method, Response, StatusCode, Upgraded, Url, header};
use serde_json::Value;

use super::{
    address::Address,
    settings::Docker,
    ssh::{Complaint, Relay},
    tls,
};
use crate::{config::units::Span, http};

/// The newest version of the API that we have read about; an older engine is spoken to in its own.
const NEWEST: Version = Version(1, 47);
/// Older engines lack what we need.
const OLDEST: Version = Version(1, 24);
/// What an engine under load may take for a small answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);

/// A version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

/// An engine that has answered.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    docker: Docker,
    base: Url,
    version: Version,
    is_podman: bool,
    /// What stands between us and an engine that is reached by `ssh`.
    relay: Option<Relay>,
}

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It is in use, or its name is taken.
    #[error("{0}")]
    Conflict(String),
    /// Anything else that the engine says.
    #[error("{message} (status {status})")]
    Refused {
        /// Its HTTP status.
        status: u16,
        /// Its words.
        message: String,
    },
    /// Nobody answers.
    #[error("no Docker engine answers at {address}: {why}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// What the system said.
        why: String,
    },
    /// The connection ended before the answer did; what was asked for may be done, or still under way.
    #[error("the connection to Docker broke before its answer came: {0}")]
    Broken(String),
    /// No answer in time; what was asked for may still be under way.
    #[error("Docker has not answered within {}", Span(*.0))]
    Silent(Duration),
}

impl EngineError {
    /// Whether what was asked for may have been done all the same.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Broken(_) | Self::Silent(_))
    }

    /// Whether the thing is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

/// Names and values behind the `?`.
pub(super) type Query<'a> = &'a [(&'a str, &'a str)];

impl Engine {
    pub(super) async fn connect(docker: &Docker) -> Result<Self, EngineError> {
        let address = docker.address();
        let unreachable = |why: String| EngineError::Unreachable { address: address.to_string(), why };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = Client::builder().no_proxy().connect_timeout(Duration::from_secs(10));
        let plain = |builder: ClientBuilder| builder.tls_certs_only([]);
        let mut relay = None;
        let (builder, base) = match address {
            Address::Socket(path) => (plain(builder).unix_socket(path.clone()), "http://docker/".to_owned()),
            Address::Http(at) => (plain(builder), format!("http://{at}/")),
            Address::Tls(at) => {
                let certificates = docker.certificates().cloned();
                // A secret may come from a command that takes its time.
                let dressing = tokio::task::spawn_blocking(move || match certificates {
                    Some(certificates) => certificates.dress(builder),
                    None => Ok(builder),
                });
                let dressed = dressing.await.map_err(|error| unreachable(error.to_string()))?;
                // Some answers are streams that last, which two versions of HTTP do not end in the same way.
                (dressed.map_err(|error| unreachable(format!("{error:#}")))?.http1_only(), format!("https://{at}/"))
            }
            Address::Ssh(to) => {
                let opened = Relay::open(to).map_err(|error| unreachable(error.to_string()))?;
                let builder = plain(builder).unix_socket(opened.path());
                relay = Some(opened);
                (builder, "http://docker/".to_owned())
            }
        };
        let client = builder.build().map_err(|error| unreachable(http::why(error)))?;
        let base = Url::parse(&base).map_err(|error| unreachable(error.to_string()))?;
        let inner = Inner { client, docker: docker.clone(), base, version: OLDEST, is_podman: false, relay };
        let unversioned =
            Request { path: "/version", query: &[], body: None, limit: Some(PATIENCE), version: None, upgrade: false };
        let said = inner.json(Method::GET, unversioned).await.map_err(|error| match error {
            EngineError::Broken(why) => unreachable(why),
            error => error,
        })?;
        let version = said["ApiVersion"].as_str().and_then(Version::read);
        let Some(version) = version.filter(|version| *version >= OLDEST) else {
            return Err(unreachable(format!("it speaks version {} of the API, which is too old", said["ApiVersion"])));
        };
        let components = said["Components"].as_array().into_iter().flatten();
        let is_podman =
            components.into_iter().any(|part| part["Name"].as_str().is_some_and(|name| name.contains("Podman")));
        Ok(Self(Arc::new(Inner { version: version.min(NEWEST), is_podman, ..inner })))
    }

    /// Whether it is Podman behind Docker's API.
    #[must_use]
    pub fn is_podman(&self) -> bool {
        self.0.is_podman
    }

    /// Whether the engine's own files may be looked at: its socket is on this host.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.0.docker.address(), Address::Socket(_))
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.0.docker.address()
    }

    /// As the settings have it.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.0.docker
    }

    /// The version of the API in which it is spoken to, in words.
    #[must_use]
    pub fn api(&self) -> String {
        let Version(major, minor) = self.0.version;
        format!("{major}.{minor}")
    }

    /// The version of the API in which it is spoken to.
    pub(super) fn version(&self) -> Version {
        self.0.version
    }

    /// What the engine says of itself: `/info`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn info(&self) -> Result<Value, EngineError> {
        self.get("/info", &[]).await
    }

    pub(super) async fn get(&self, path: &str, query: Query<'_>) -> Result<Value, EngineError> {
        self.json(Method::GET, path, query, None, Some(PATIENCE)).await
    }

    /// Posts, and waits for the answer for `limit`, or for as long as it takes.
    pub(super) async fn post(
        &self,
        path: &str,
        query: Query<'_>,
        body: Option<&Value>,
        limit: Option<Duration>,
    ) -> Result<Value, EngineError> {
        let body = body.map(|body| (Body::from(body.to_string()), "application/json"));
        self.json(Method::POST, path, query, body, limit).await
    }

    /// Posts what takes a moment.
    pub(super) async fn post_quick(&self, path: &str, query: Query<'_>) -> Result<Value, EngineError> {
        self.json(Method::POST, path, query, None, Some(PATIENCE)).await
    }

    pub(super) async fn delete(&self, path: &str, query: Query<'_>) -> Result<Value, EngineError> {
        self.json(Method::DELETE, path, query, None, Some(PATIENCE)).await
    }

    async fn json(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Option<(Body, &'static str)>,
        limit: Option<Duration>,
    ) -> Result<Value, EngineError> {
        let version = Some(self.0.version);
        self.0.json(method, Request { path, query, body, limit, version, upgrade: false }).await
    }

    /// The response, once its head is there.
    pub(super) async fn open(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        body: Option<(Body, &'static str)>,
    ) -> Result<Response, EngineError> {
        let version = Some(self.0.version);
        self.0.send(method, Request { path, query, body, limit: None, version, upgrade: false }).await
    }

    /// Posts, and has the connection to itself from then on.
    pub(super) async fn upgrade(
        &self,
        path: &str,
        query: Query<'_>,
        body: Option<&Value>,
    ) -> Result<Upgraded, EngineError> {
        let body = body.map(|body| (Body::from(body.to_string()), "application/json"));
        let version = Some(self.0.version);
        let asking = self.0.send(Method::POST, Request { path, query, body, limit: None, version, upgrade: true });
        let response = tokio::time::timeout(PATIENCE, asking).await.map_err(|_| EngineError::Silent(PATIENCE))??;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(EngineError::Refused {
                status: response.status().as_u16(),
                message: "the connection was not handed over; a proxy before Docker must let `Upgrade: tcp` through"
                    .into(),
            });
        }
        response.upgrade().await.map_err(|error| EngineError::Broken(http::why(error)))
    }
}

struct Request<'a> {
    path: &'a str,
    query: Query<'a>,
    body: Option<(Body, &'static str)>,
    limit: Option<Duration>,
    version: Option<Version>,
    upgrade: bool,
}

impl Inner {
    async fn json(&self, method: Method, request: Request<'_>) -> Result<Value, EngineError> {
        let limit = request.limit;
        let answering = async {
            let response = self.send(method, request).await?;
            let body = response.bytes().await.map_err(|error| EngineError::Broken(http::why(error)))?;
            // Some answers are a word, some are empty.
            Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
        };
        match limit {
            Some(limit) => tokio::time::timeout(limit, answering).await.map_err(|_| EngineError::Silent(limit))?,
            None => answering.await,
        }
    }

    async fn send(&self, method: Method, request: Request<'_>) -> Result<Response, EngineError> {
        let mut url = self.base.clone();
        match request.version {
            Some(Version(major, minor)) => url.set_path(&format!("/v{major}.{minor}{}", request.path)),
            None => url.set_path(request.path),
        }
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(request.query);
        }
        let mut sending = self.client.request(method, url);
        if let Some((body, kind)) = request.body {
            sending = sending.header("content-type", kind).body(body);
        }
        if request.upgrade {
            sending = sending.header(header::CONNECTION, "Upgrade").header(header::UPGRADE, "tcp");
        }
        let response = sending.send().await.map_err(|error| self.lost(error))?;
        let status = response.status();
        // "It is so already" is an answer, and so is "now speak the other protocol".
        if status.is_success() || status == StatusCode::NOT_MODIFIED || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let said = response.text().await.unwrap_or_default();
        let message =
            serde_json::from_str::<Value>(&said).ok().and_then(|said| Some(said["message"].as_str()?.to_owned()));
        let message = message.unwrap_or(said).trim().to_owned();
        Err(match status {
            StatusCode::NOT_FOUND => EngineError::NotFound(message),
            StatusCode::CONFLICT => EngineError::Conflict(message),
            _ => EngineError::Refused { status: status.as_u16(), message },
        })
    }
}

impl Inner {
    /// Why there is no answer. Before the first one an engine that hangs up is one that was not reached.
    fn lost(&self, error: reqwest::Error) -> EngineError {
        let address = self.docker.address();
        let (is_connect, why) = (error.is_connect(), http::why(error));
        match self.relay.as_ref().and_then(Relay::complaint) {
            Some(Complaint { why, is_unreached: true }) => {
                return EngineError::Unreachable { address: address.to_string(), why };
            }
            Some(Complaint { why, .. }) => return EngineError::Broken(why),
            None => {}
        }
        let of_tls =
            matches!(address, Address::Tls(_)).then(|| tls::explain(&why, self.docker.certificates())).flatten();
        match of_tls {
            Some(why) => EngineError::Unreachable { address: address.to_string(), why },
            None if is_connect => EngineError::Unreachable { address: address.to_string(), why },
            None => EngineError::Broken(why),
        }
    }
}

impl Version {
    fn read(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}
