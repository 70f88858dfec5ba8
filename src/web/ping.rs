//! The paths that heartbeats call, as at healthchecks.io: `/ping/KEY`, `/ping/KEY/start`, `/fail`, `/log`, `/EXIT-STATUS`, and with the
//! job's name after the key where several jobs have one key.
use std::{net::IpAddr, sync::Arc};

use axum::{
    body::{Body, HttpBody as _},
    extract::{Path, RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::pace::Pace;
use crate::{
    app::App,
    model::{
        JobName,
        heartbeat::{Call, Signal},
    },
};

/// Bytes that are kept in memory of what is sent along.
const BODY: usize = 100_000;
/// So many are heard out, since a caller that is cut off would take it for a failure.
const HEARD_OUT: usize = 16 << 20;
/// Calls a minute from one address, whatever they are about; others may share an address behind a proxy.
const FROM_ADDRESS: u32 = 600;
/// Calls a minute about one job.
const ABOUT_JOB: u32 = 60;

/// What is behind the paths.
#[derive(Debug)]
pub(super) struct Door {
    app: Arc<App>,
    addresses: Pace<IpAddr>,
    jobs: Pace<JobName>,
}

impl Door {
    pub(super) fn new(app: Arc<App>) -> Self {
        Self { app, addresses: Pace::new(FROM_ADDRESS), jobs: Pace::new(ABOUT_JOB) }
    }

    /// The job that a path is about, and what it says; none where there is nothing.
    async fn find(&self, path: &str) -> Option<(JobName, Signal)> {
        let mut parts = path.trim_end_matches('/').split('/');
        let key = digest(parts.next()?);
        let rest: Vec<&str> = parts.collect();
        let keys = self.app.ping_keys().await;
        // All of them are compared, so that the time tells nothing.
        let mut of_key: Vec<&JobName> = Vec::new();
        for (known, job) in keys.iter() {
            if bool::from(digest(known.reveal()).ct_eq(&key)) {
                of_key.push(job);
            }
        }
        let named = |name: &str| of_key.iter().copied().find(|job| job.as_str() == name);
        let (job, signal) = match (rest.as_slice(), of_key.as_slice()) {
            ([], [only]) => (*only, Signal::Success),
            ([word], [only]) if signal(word).is_some() => (*only, signal(word)?),
            ([name], _) => (named(name)?, Signal::Success),
            ([name, word], _) => (named(name)?, signal(word)?),
            _ => return None,
        };
        Some((job.clone(), signal))
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.trim().as_bytes()).into()
}

fn signal(word: &str) -> Option<Signal> {
    Some(match word {
        "start" => Signal::Start,
        "fail" => Signal::Fail,
        "log" => Signal::Log,
        status => Signal::Exit(status.parse().ok()?),
    })
}

/// The run that a query names: `rid=…`.
fn run_in(query: Option<&str>) -> Option<String> {
    let pairs = reqwest::Url::parse(&format!("http://x/?{}", query?)).ok()?;
    pairs.query_pairs().find(|(name, _)| name == "rid").map(|(_, run)| run.into_owned())
}

/// Answers a call.
pub(super) async fn answer(
    State((door, from)): State<(Arc<Door>, IpAddr)>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    if !door.addresses.may(from) {
        return say(StatusCode::TOO_MANY_REQUESTS, "too many calls");
    }
    let Some((job, signal)) = door.find(&path).await else { return say(StatusCode::NOT_FOUND, "not found") };
    if !door.jobs.may(job.clone()) {
        return say(StatusCode::TOO_MANY_REQUESTS, "too many calls");
    }
    let body = read(body).await;
    let call = Call::new(door.app.clock().now(), signal, run_in(query.as_deref()).as_deref(), &body);
    match door.app.called(&job, call).await {
        Ok(()) => say(StatusCode::OK, "OK"),
        Err(error) => {
            tracing::error!(%job, "write down that it was called: {error:#}");
            say(StatusCode::SERVICE_UNAVAILABLE, "try again")
        }
    }
}

/// The beginning of what was sent along; what breaks off is what it is.
async fn read(body: Body) -> Vec<u8> {
    let mut body = std::pin::pin!(body);
    let (mut bytes, mut all) = (Vec::new(), 0);
    while all < HEARD_OUT {
        let frame = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await;
        let Some(Ok(frame)) = frame else { break };
        if let Ok(data) = frame.into_data() {
            all += data.len();
            bytes.extend_from_slice(&data[..data.len().min(BODY - bytes.len())]);
        }
    }
    bytes
}

fn say(status: StatusCode, text: &'static str) -> Response {
    let mut response = (status, text).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("ping-body-limit", HeaderValue::from_static("100000"));
    if status == StatusCode::TOO_MANY_REQUESTS {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
    }
    response
}
