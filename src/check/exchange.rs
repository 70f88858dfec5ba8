//! One request and one answer over a connection of its own, in HTTP/1.1 or HTTP/2, bounded in all.
use std::{io::ErrorKind, pin::Pin};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode, Uri,
    body::Incoming,
    client::conn::{http1, http2},
    header::{self, HeaderValue},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use reqwest::Url;

use super::{
    body::{Taking, Took},
    condition,
    reach::{Fail, Phase},
};
use crate::{model::watch::Trouble, text};

/// More headers than this are not taken.
const MOST_HEADERS: usize = 100;
/// Nor more bytes of them.
const HEADER_ROOM: usize = 64 << 10;
/// What is said of an answer that ends too early.
const BROKEN: &str = "the connection broke before the answer was whole";
/// So much room is made beforehand for a body that tells its length.
const ROOM: usize = 128 << 10;

/// The head of an answer.
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) http: f64,
}

/// Asks in HTTP/1.1 and reads up to `limit` bytes of the answer.
pub(super) async fn over_http1<S>(
    stream: S,
    mut request: Request<Full<Bytes>>,
    url: &Url,
    limit: usize,
    phase: &Phase,
) -> Result<(Head, Taking), Fail>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let query = url.query().map_or_else(String::new, |query| format!("?{query}"));
    *request.uri_mut() = Uri::try_from(format!("{}{query}", url.path()))
        .map_err(|error| Fail::new(Trouble::NotAllowed, format!("this cannot be asked for: {error}")))?;
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    let host = format!("{}{port}", url.host_str().unwrap_or_default());
    let host = HeaderValue::try_from(host).map_err(|error| Fail::new(Trouble::NotAllowed, error.to_string()))?;
    let headers = request.headers_mut();
    headers.entry(header::HOST).or_insert(host);
    // The server closes: it is the one that then remembers the connection for a minute.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(MOST_HEADERS)
        .max_buf_size(HEADER_ROOM)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| spoken(&error))?;
    let mut driven = Driven { connection: std::pin::pin!(connection), is_done: false };
    let response = driven.meanwhile(sender.send_request(request)).await.map_err(|error| spoken(&error))?;
    read(response, &mut driven, limit, phase).await
}

/// The same in HTTP/2.
pub(super) async fn over_http2<S>(
    stream: S,
    mut request: Request<Full<Bytes>>,
    url: &Url,
    limit: usize,
    phase: &Phase,
) -> Result<(Head, Taking), Fail>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let mut whole = url.clone();
    whole.set_fragment(None);
    *request.uri_mut() = Uri::try_from(whole.as_str())
        .map_err(|error| Fail::new(Trouble::NotAllowed, format!("this cannot be asked for: {error}")))?;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(u32::try_from(HEADER_ROOM).unwrap_or(u32::MAX))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| spoken(&error))?;
    let mut driven = Driven { connection: std::pin::pin!(connection), is_done: false };
    let response = driven.meanwhile(sender.send_request(request)).await.map_err(|error| spoken(&error))?;
    read(response, &mut driven, limit, phase).await
}

async fn read<C: Future>(
    response: Response<Incoming>,
    driven: &mut Driven<'_, C>,
    limit: usize,
    phase: &Phase,
) -> Result<(Head, Taking), Fail> {
    phase.set(Phase::BODY);
    let (parts, mut body) = response.into_parts();
    let http = match parts.version {
        hyper::Version::HTTP_10 => 1.0,
        hyper::Version::HTTP_2 => 2.0,
        _ => 1.1,
    };
    let encoding =
        parts.headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("identity");
    let gzip = match encoding.trim().to_ascii_lowercase().as_str() {
        "identity" | "" => false,
        "gzip" | "x-gzip" => true,
        other => {
            let told = format!("the answer is compressed as {}, which was not asked for", condition::quoted(other));
            return Err(Fail::new(Trouble::Content, told));
        }
    };
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let mut taking = Taking::new(gzip, limit, length.unwrap_or(0).min(ROOM));
    let head = Head { status: parts.status, headers: parts.headers, http };
    while let Some(frame) = driven.meanwhile(body.frame()).await {
        let frame = frame.map_err(|error| spoken(&error))?;
        let Ok(piece) = frame.into_data() else { continue };
        match taking.take(&piece) {
            Took::All => {}
            Took::Enough => break,
            Took::Wrong => return Err(Fail::new(Trouble::Content, "the answer is not compressed as it says")),
        }
    }
    Ok((head, taking))
}

/// A connection that moves on while its request is waited for.
struct Driven<'c, C> {
    connection: Pin<&'c mut C>,
    is_done: bool,
}

impl<C: Future> Driven<'_, C> {
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => return result,
                _ = self.connection.as_mut(), if !self.is_done => self.is_done = true,
            }
        }
    }
}

/// What went wrong in what the two say to each other.
fn spoken(error: &hyper::Error) -> Fail {
    if error.is_parse() {
        let told = if error.to_string().contains("too large") {
            format!(
                "the answer's headers are longer than {} or more than {MOST_HEADERS}",
                text::size(HEADER_ROOM as u64)
            )
        } else {
            "what answers there does not speak HTTP".to_owned()
        };
        return Fail::new(Trouble::Broken, told);
    }
    if error.is_incomplete_message() {
        return Fail::new(Trouble::Broken, BROKEN);
    }
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    let mut inner = String::new();
    while let Some(error) = cause {
        match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(ErrorKind::UnexpectedEof) => return Fail::new(Trouble::Broken, BROKEN),
            Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                return Fail::new(Trouble::Broken, "the connection was reset before the answer was whole");
            }
            _ => inner = format!(": {error}"),
        }
        cause = error.source();
    }
    Fail::new(Trouble::Broken, format!("the connection broke{inner}"))
}
