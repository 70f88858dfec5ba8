//! One HTTP request to somebody who may answer anything: bounded in bytes, counted after decompression, and in time.
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::OnceLock,
    time::Duration,
};

use reqwest::{Client, Request, StatusCode, Url, header::RETRY_AFTER};

use super::Family;
use crate::http;

/// What a provider's answer may have.
pub const MOST: usize = 256 << 10;

/// The ways out: one client that takes any address, and one for each family.
#[derive(Debug)]
pub struct Lines {
    /// A request and its answer have this long in all.
    patience: Duration,
    any: OnceLock<Client>,
    ipv4: OnceLock<Client>,
    ipv6: OnceLock<Client>,
}

impl Lines {
    /// With the client that others have made already.
    #[must_use]
    pub fn new(any: Client, patience: Duration) -> Self {
        Self { patience, any: any.into(), ipv4: OnceLock::new(), ipv6: OnceLock::new() }
    }

    /// Sends the request over this family alone, over any without one, and reads at most `most` bytes of the answer. It is sent on
    /// only to the same server.
    ///
    /// # Errors
    /// When there is no answer, or it breaks off.
    pub async fn ask(&self, family: Option<Family>, request: Request, most: usize) -> Result<Reply, NoAnswer> {
        let client = self.client(family).map_err(|error| NoAnswer::NotSent(format!("{error:#}")))?;
        let server = request.url().host_str().unwrap_or("the server").to_owned();
        let late = || NoAnswer::Lost(format!("{server}: no whole answer within {} s", self.patience.as_secs()));
        tokio::time::timeout(self.patience, talk(&client, request, most)).await.map_err(|_| late())?
    }

    fn client(&self, family: Option<Family>) -> anyhow::Result<Client> {
        let (place, from) = match family {
            None => (&self.any, None),
            Some(Family::Ipv4) => (&self.ipv4, Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED))),
            Some(Family::Ipv6) => (&self.ipv6, Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED))),
        };
        if let Some(client) = place.get() {
            return Ok(client.clone());
        }
        let client = http::client_from(from)?;
        Ok(place.get_or_init(|| client).clone())
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// What it says; what is no text is shown as such.
    pub body: String,
    /// There was more.
    pub cut: bool,
    /// When to come again, if it says so in seconds.
    pub retry_after: Option<Duration>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// Nothing was sent: nobody was reached.
    NotSent(String),
    /// It was sent, or a part of it: whether it was done is not known.
    Lost(String),
}

impl NoAnswer {
    /// Why.
    #[must_use]
    pub fn why(self) -> String {
        match self {
            Self::NotSent(why) | Self::Lost(why) => why,
        }
    }
}

async fn talk(client: &Client, request: Request, most: usize) -> Result<Reply, NoAnswer> {
    let server = request.url().host_str().unwrap_or("the server").to_owned();
    let failed = |error: reqwest::Error| {
        let reached = !error.is_connect();
        let why = format!("{server}: {}", http::why(error));
        if reached { NoAnswer::Lost(why) } else { NoAnswer::NotSent(why) }
    };
    let mut response = http::send(client, request).await.map_err(failed)?;
    let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let mut reply = Reply {
        status: response.status(),
        body: String::new(),
        cut: false,
        retry_after: retry_after.map(Duration::from_secs),
    };
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk[..chunk.len().min(most + 1 - body.len())]);
        if body.len() > most {
            body.truncate(most);
            reply.cut = true;
            break;
        }
    }
    reply.body = String::from_utf8_lossy(&body).into_owned();
    Ok(reply)
}

/// An address that may be asked: https, or plain http within this machine and the networks at home.
///
/// # Errors
/// A sentence that says what is wrong with it.
pub fn address(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("`{text}` is no web address: {error}"))?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_near(&url) => Ok(url),
        "http" => Err("what goes over plain http can be read and changed on its way: use `https://…`".to_owned()),
        other => Err(format!("only https is spoken here, not `{other}`")),
    }
}

/// Within this machine or a network at home.
fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
        Err(_) => host == "localhost" || (!host.is_empty() && !host.contains('.')),
    }
}

/// What somebody said, as one short line for a person.
#[must_use]
pub fn said(text: &str) -> String {
    const LONGEST: usize = 160;
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.retain(|letter| !letter.is_control());
    if line.is_empty() {
        return "nothing".to_owned();
    }
    if line.len() > LONGEST {
        line.truncate(line.floor_char_boundary(LONGEST));
        line.push('…');
    }
    format!("\"{line}\"")
}
