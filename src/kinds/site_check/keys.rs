//! The keys of a `site-check` job. They are the same above `[[site]]`, where they count for all sites, and below it.
use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::wanted::{Texts, Wanted};
use crate::{
    check::reach::Family,
    config::{
        secret::TextOrSecret,
        units::{Size, Span},
    },
    kinds::request::{Basic, ExpectedStatus, Method},
};

/// A site, or all of them: what stands above the first `[[site]]` counts for each that does not say otherwise.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct SiteKeys {
    /// What it is called, here and in messages; each name once in a job [default: its host].
    pub name: Option<String>,
    /// A web page: `https://…` or `http://…`; a secret if a token is part of it.
    pub url: Option<TextOrSecret>,
    /// A port: `"db:5432"`.
    pub tcp: Option<String>,
    /// A name that a name server is asked for.
    pub dns: Option<String>,
    /// A host that is to answer an echo request.
    pub ping: Option<String>,
    /// A port whose certificate is looked at: `"mail.example.org:993"`.
    pub tls: Option<String>,
    /// A domain that is to stay registered.
    pub domain: Option<String>,
    /// The container that serves the site; alone, the container itself is looked at.
    pub container: Option<String>,

    /// How to ask for a page [default: GET].
    pub method: Option<Method>,
    /// Headers to send: texts, or secrets such as `{ env = "API_KEY" }`.
    pub headers: Option<BTreeMap<String, TextOrSecret>>,
    /// A token, sent as `Authorization: Bearer …`.
    pub bearer: Option<TextOrSecret>,
    /// A user and a password, sent as `Authorization: Basic …`.
    pub basic: Option<Basic>,
    /// What to send with the request.
    pub body: Option<TextOrSecret>,
    /// What to say to a port first.
    pub send: Option<TextOrSecret>,
    /// At a port TLS is spoken from the first byte on.
    pub encrypted: Option<bool>,
    /// The kind of record: A, AAAA, CNAME, MX, NS, TXT, SRV, SOA, PTR or CAA [default: A].
    pub record: Option<String>,
    /// The name server to ask: `"192.0.2.1"` or `"192.0.2.1:5353"` [default: the machine's first].
    pub resolver: Option<String>,
    /// Where RDAP is spoken [default: https://rdap.org/, which knows all registries].
    pub rdap: Option<String>,

    /// The status that is fine: `200`, `"2xx"`, `"200-204"`, or a list [default: 2xx].
    pub status: Option<ExpectedStatus>,
    /// Texts that must be there: one, a list, or `{ text = "…", at_least = 3 }`.
    pub contains: Option<Wanted>,
    /// Texts that must not be there.
    pub lacks: Option<Texts>,
    /// Regular expressions that must match.
    pub matches: Option<Texts>,
    /// Elements that must be there, by CSS selectors.
    pub css: Option<Vec<Element>>,
    /// Values in JSON, by their paths: `{ "$.status" = "ok" }`.
    #[schemars(with = "Option<BTreeMap<String, serde_json::Value>>")]
    pub json: Option<BTreeMap<String, toml::Value>>,
    /// Headers of the answer, and what they must contain.
    pub header: Option<BTreeMap<String, String>>,
    /// `"follow"`, `"no"`, or the address to which the answer must point [default: follow].
    pub redirect: Option<String>,
    /// Records that must be answered: one or a list.
    pub answer: Option<Texts>,
    /// A slower answer is a failure.
    pub max_time: Option<Span>,
    /// A smaller answer is a failure.
    pub min_size: Option<Size>,
    /// A larger answer is a failure.
    pub max_size: Option<Size>,
    /// HTTP/2 must be spoken.
    pub http2: Option<bool>,
    /// So long the certificate must last [default: 14d, or a quarter of its life].
    pub certificate_left: Option<Span>,
    /// So long the registration must last [default: 30d].
    pub domain_left: Option<Span>,
    /// All that must be so, in one line: `status == 200 and time < 800ms`.
    pub expect: Option<String>,

    /// Any certificate will do; is shown.
    pub insecure: Option<bool>,
    /// Authorities that are trusted beside the machine's: a file of PEM, relative to the home folder.
    pub ca: Option<PathBuf>,
    /// `"any"`, `"ipv4"`, `"ipv6"` or `"both"` [default: any].
    pub family: Option<Family>,
    /// The address, or the name, that is connected to instead of the host.
    pub resolve: Option<String>,
    /// Addresses and networks that may be reached though nothing would lead there otherwise.
    pub allow: Option<Vec<String>>,
    /// How long a look may take [default: 10s].
    pub patience: Option<Span>,
    /// So much of an answer is looked at [default: 1 MiB].
    pub read: Option<Size>,

    /// So many failures in a row make it down [default: 2].
    pub failures: Option<u32>,
    /// So many successes in a row make it up again [default: 1].
    pub successes: Option<u32>,
    /// A reminder after each such time while it is down [default: none].
    pub remind: Option<Span>,
    /// The site of this job without which this one cannot be well.
    pub parent: Option<String>,

    /// Over which time the looks of a run are spread [default: 5 ms for each site].
    pub spread: Option<Span>,
    /// The sites.
    pub site: Vec<SiteKeys>,
}

/// An element of a page that must be there.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Element {
    /// Which: a CSS selector.
    pub selector: String,
    /// The text of the first one.
    #[serde(default)]
    pub text: Option<String>,
    /// How many there must be at least.
    #[serde(default)]
    pub at_least: Option<u32>,
}

/// For which checks a key is.
pub(super) const PAGE: &[&str] = &["url"];
pub(super) const TALK: &[&str] = &["url", "tcp"];
pub(super) const SECURE: &[&str] = &["url", "tcp", "tls"];
pub(super) const NET: &[&str] = &["url", "tcp", "ping", "tls", "domain"];
pub(super) const TIMED: &[&str] = &["url", "tcp", "dns", "ping", "tls"];
pub(super) const TOLD: &[&str] = &["url", "tcp", "dns", "ping", "tls", "domain"];

/// The keys that are for some checks only, each with those; and whether what stands above `[[site]]` counts below it. What lets us in
/// does not: it would be shown to all of them.
macro_rules! keys {
    ($($key:ident: $checks:expr, $inherited:literal;)*) => {
        impl SiteKeys {
            /// The keys that are there, each with the checks that it is for.
            pub(super) fn set(&self) -> Vec<(&'static str, &'static [&'static str])> {
                let mut set: Vec<(&'static str, &'static [&'static str])> = Vec::new();
                $(if self.$key.is_some() {
                    set.push((stringify!($key), $checks));
                })*
                set
            }

            /// This site with what all of them have in common.
            pub(super) fn or(mut self, all: &Self, check: &str) -> Self {
                $(if $inherited && self.$key.is_none() && $checks.contains(&check) {
                    self.$key.clone_from(&all.$key);
                })*
                self.failures = self.failures.or(all.failures);
                self.successes = self.successes.or(all.successes);
                self.remind = self.remind.or(all.remind);
                self.patience = self.patience.or(all.patience);
                self.parent = self.parent.take().or_else(|| all.parent.clone());
                self.container = self.container.take().or_else(|| all.container.clone());
                self
            }
        }
    };
}

keys! {
    method: PAGE, true;
    headers: PAGE, true;
    bearer: PAGE, false;
    basic: PAGE, false;
    body: PAGE, false;
    send: &["tcp"], false;
    encrypted: &["tcp"], true;
    record: &["dns"], true;
    resolver: &["dns"], true;
    rdap: &["domain"], true;
    status: PAGE, true;
    contains: TALK, true;
    lacks: TALK, true;
    matches: TALK, true;
    css: PAGE, true;
    json: TALK, true;
    header: PAGE, true;
    redirect: PAGE, true;
    answer: &["dns"], true;
    max_time: TIMED, true;
    min_size: TALK, true;
    max_size: TALK, true;
    http2: PAGE, true;
    certificate_left: SECURE, true;
    domain_left: &["domain"], true;
    expect: TOLD, true;
    insecure: TALK, true;
    ca: SECURE, true;
    family: &["url", "tcp", "ping", "tls"], true;
    resolve: &["url", "tcp", "ping", "tls"], false;
    allow: NET, true;
    read: PAGE, true;
}
