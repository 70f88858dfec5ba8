//! Web services that answer with the caller's address and nothing else.
use std::net::IpAddr;

use reqwest::{Method, Request, Url};

use crate::dyndns::{
    Family, Lines,
    ask::{self, said},
};

/// Of different owners; each answers over both families, or over one with silence on the other.
pub(super) const DEFAULT: [&str; 4] =
    ["https://api64.ipify.org", "https://icanhazip.com", "https://ident.me", "https://ifconfig.co/ip"];

/// An address takes no more.
const MOST: usize = 64;

/// Asks one of them over this family.
pub(super) async fn ask(url: &str, family: Family, lines: &Lines) -> Result<IpAddr, String> {
    let request = Request::new(Method::GET, ask::address(url)?);
    let reply = lines.ask(Some(family), request, MOST).await.map_err(ask::NoAnswer::why)?;
    if reply.status != 200 {
        return Err(format!("it answered {}", reply.status));
    }
    if reply.cut {
        return Err(format!("it answers with a page, not with an address: {}", said(&reply.body)));
    }
    read(&reply.body).ok_or_else(|| format!("it answered {}, which is no address", said(&reply.body)))
}

/// The address, if there is nothing else.
#[must_use]
pub fn read(body: &str) -> Option<IpAddr> {
    (body.len() <= MOST).then(|| body.trim().parse().ok()).flatten()
}

/// What it is called.
pub(super) fn name(url: &str) -> String {
    let server = Url::parse(url).ok().and_then(|url| {
        let host = url.host_str()?.to_owned();
        Some(url.port().map_or(host.clone(), |port| format!("{host}:{port}")))
    });
    format!("web {}", server.as_deref().unwrap_or(url))
}
