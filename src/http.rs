//! The one HTTP client, for everything but S3, and going where a server points to.
use std::{net::IpAddr, time::Duration};

use anyhow::Context as _;
use reqwest::{
    Client, Method, Request, Response, StatusCode, Url,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, TRANSFER_ENCODING},
};

/// How Rusuban names itself to servers.
const NAME: &str = concat!("rusuban/", env!("CARGO_PKG_VERSION"));
/// How often one request lets itself be sent on.
const MOST_REDIRECTS: u32 = 5;

/// A client with time limits that follows no redirect by itself: see [`send`]. On a machine without certificates it speaks plain
/// http only; https then fails with a message that says so.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client() -> anyhow::Result<Client> {
    client_from(None)
}

/// The same, whose connections leave from this address: `0.0.0.0` stands for any of IPv4, `::` for any of IPv6, and the client then
/// speaks over that family alone.
///
/// # Errors
/// When TLS cannot be set up.
pub fn client_from(from: Option<IpAddr>) -> anyhow::Result<Client> {
    // A second call finds it installed, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        Client::builder()
            .user_agent(NAME)
            .local_address(from)
            .connect_timeout(Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .pool_idle_timeout(Duration::from_secs(30))
    };
    match builder().build() {
        Ok(client) => Ok(client),
        Err(error) => {
            tracing::warn!(%error, "no certificates on this machine (Debian: apt install ca-certificates): https will fail");
            builder().tls_certs_only([]).build().context("make the HTTP client")
        }
    }
}

/// Sends `request` and follows redirects as far as that is safe: to the same server (or from its http to its https), five times
/// at most, and never so that a change turns into a mere look, as clients do with a redirected POST. A redirect that is not
/// followed is the answer.
///
/// # Errors
/// When no answer came.
pub async fn send(client: &Client, mut request: Request) -> reqwest::Result<Response> {
    let mut followed = 0;
    loop {
        // A body that is a stream cannot be sent twice.
        let again = request.try_clone();
        let url = request.url().clone();
        let response = client.execute(request).await?;
        let Some(mut next) = again.filter(|_| followed < MOST_REDIRECTS) else { return Ok(response) };
        let Some(target) = target(&response, &url) else { return Ok(response) };
        let only_looks = matches!(*next.method(), Method::GET | Method::HEAD);
        match response.status() {
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => {}
            StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND if only_looks => {}
            // "It is done; look there."
            StatusCode::SEE_OTHER => {
                if *next.method() != Method::HEAD {
                    *next.method_mut() = Method::GET;
                }
                *next.body_mut() = None;
                for name in [CONTENT_TYPE, CONTENT_LENGTH, CONTENT_ENCODING, TRANSFER_ENCODING] {
                    next.headers_mut().remove(name);
                }
            }
            _ => return Ok(response),
        }
        *next.url_mut() = target;
        request = next;
        followed += 1;
    }
}

/// Why there is no answer, for a person. The address is left out: it may be a secret.
#[must_use]
pub fn why(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut causes = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        causes.push(error.to_string());
        cause = error.source();
    }
    // The outer ones only say that there was a request; the inner ones what became of it.
    let empty = |cause: &String| cause.starts_with("error sending request") || cause.starts_with("client error (");
    let inner = causes.iter().position(|cause| !empty(cause)).unwrap_or(0);
    causes.drain(..inner);
    causes.dedup();
    causes.join(": ")
}

/// Where the response points to, if that is the same server: headers may hold secrets that were meant for it alone.
fn target(response: &Response, from: &Url) -> Option<Url> {
    let to = from.join(response.headers().get(LOCATION)?.to_str().ok()?).ok()?;
    let same_host = to.host_str() == from.host_str();
    let same_server = to.scheme() == from.scheme() && to.port_or_known_default() == from.port_or_known_default();
    let to_its_https =
        from.scheme() == "http" && to.scheme() == "https" && from.port().is_none() && to.port().is_none();
    (same_host && (same_server || to_its_https)).then_some(to)
}
