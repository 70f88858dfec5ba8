//! A web page, or whatever else answers by HTTP.
//!
//! Each look makes a connection of its own. One that is kept open would be cheaper and would go on answering while nobody else can
//! connect any more: a full backlog, a changed address, an expired certificate, a proxy that is down would not be seen.
use std::{
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use reqwest::Url;

use super::{
    Looking,
    body::Taking,
    condition::{self, Condition, Failing, Found, Subject},
    exchange::{self, Head},
    guard,
    reach::{self, Fail, Phase, Way},
    tls::{Shown, Within},
    verdict,
};
use crate::{
    config::secret::{Redactor, Secret, TextOrSecret},
    model::watch::{Certificate, Trouble, Verdict},
    text,
};

/// How we name ourselves to servers.
const NAME: &str = concat!("rusuban/", env!("CARGO_PKG_VERSION"));
/// So many redirects are followed.
const MOST_REDIRECTS: u64 = 5;
/// A longer body is looked into in a thread for such work.
const LONG: usize = 128 << 10;

/// What a condition about a page can ask.
pub const SUBJECT: Subject = Subject {
    name: "a web page",
    words: &[
        "status",
        "time",
        "size",
        "body",
        "header",
        "json",
        "css",
        "count",
        "certificate",
        "http",
        "redirect",
        "redirects",
        "url",
        "address",
    ],
};

/// How to ask for a page, and what must be so of the answer.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where: `https://…` or `http://…`.
    pub url: TextOrSecret,
    /// GET, HEAD, POST …
    pub method: Method,
    /// Headers that are sent, their names in any case.
    pub headers: Vec<(HeaderName, TextOrSecret)>,
    /// Sent as `Authorization: Bearer …`.
    pub bearer: Option<TextOrSecret>,
    /// Sent as `Authorization: Basic …`.
    pub basic: Option<(String, TextOrSecret)>,
    /// What is sent.
    pub body: Option<TextOrSecret>,
    /// Whether it is followed to where it points.
    pub follow: bool,
    /// How to get there.
    pub way: Way,
    /// Any certificate will do.
    pub insecure: bool,
    /// Authorities that are trusted beside the machine's: a file of PEM.
    pub ca: Option<PathBuf>,
    /// HTTP/2 is offered.
    pub http2: bool,
    /// How long all of it may take.
    pub patience: Duration,
    /// So much of the body is read, as it is after decompression.
    pub read: usize,
    /// What must be so.
    pub condition: Condition,
}

/// What is asked, with its secrets: made for each look.
struct Asked {
    url: Url,
    headers: HeaderMap,
    /// What may go to the first server only.
    private: HeaderMap,
    body: Bytes,
    hidden: Redactor,
    is_secret: bool,
}

/// What came back, as far as it is kept.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    http: f64,
    body: String,
    size: u64,
    is_cut: bool,
    url: String,
    redirect: Option<String>,
    redirects: u64,
    address: IpAddr,
    took: Duration,
    certificate: Option<Shown>,
    /// Seconds that the certificate is left.
    left: Option<i64>,
}

impl Page {
    /// Looks once, over the family that its way names.
    pub async fn look(&self, looking: &Looking) -> Verdict {
        let asked = match self.asked(looking).await {
            Ok(asked) => asked,
            Err(error) => return verdict::unasked(&error),
        };
        let phase = Phase::default();
        let answer = match tokio::time::timeout(self.patience, self.fetch(looking, &asked, &phase)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(failed)) => return failed.verdict(&asked.hidden),
            Err(_) => return Failed::from(phase.late(self.patience)).verdict(&asked.hidden),
        };
        self.judge(looking, answer, &asked.hidden).await
    }

    /// The status and the body of the answer, unjudged.
    pub(super) async fn get(&self, looking: &Looking) -> Result<(u16, String), Fail> {
        let asked = self.asked(looking).await.map_err(|error| Fail::new(Trouble::NotAllowed, format!("{error:#}")))?;
        let phase = Phase::default();
        match tokio::time::timeout(self.patience, self.fetch(looking, &asked, &phase)).await {
            Ok(Ok(answer)) => Ok((answer.status.as_u16(), answer.body)),
            Ok(Err(failed)) => Err(failed.fail),
            Err(_) => Err(phase.late(self.patience)),
        }
    }

    async fn asked(&self, looking: &Looking) -> anyhow::Result<Asked> {
        use anyhow::Context as _;
        let mut hidden = Vec::new();
        let mut read = async |value: &TextOrSecret| {
            let secret = value.read(&looking.secrets).await?;
            if value.secret().is_some() {
                hidden.push(secret.clone());
            }
            anyhow::Ok(secret)
        };
        let url = read(&self.url).await.context("read `url`")?;
        let url = Url::parse(url.reveal()).context("read `url`")?;
        let (mut headers, mut private) = (HeaderMap::new(), HeaderMap::new());
        headers.insert(header::USER_AGENT, HeaderValue::from_static(NAME));
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        for (name, value) in &self.headers {
            let text = read(value).await.with_context(|| format!("read the header `{name}`"))?;
            let text = HeaderValue::try_from(text.reveal()).with_context(|| format!("write the header `{name}`"))?;
            let is_private = value.secret().is_some() || *name == header::AUTHORIZATION || *name == header::COOKIE;
            if is_private { &mut private } else { &mut headers }.insert(name.clone(), text);
        }
        if let Some(token) = &self.bearer {
            let text = format!("Bearer {}", read(token).await.context("read `bearer`")?.reveal());
            private.insert(header::AUTHORIZATION, HeaderValue::try_from(text).context("write `bearer`")?);
        }
        let mut encoded = None;
        if let Some((user, password)) = &self.basic {
            let password = read(password).await.context("read `basic.password`")?;
            let text = BASE64_STANDARD.encode(format!("{user}:{}", password.reveal()));
            private.insert(
                header::AUTHORIZATION,
                HeaderValue::try_from(format!("Basic {text}")).context("write `basic`")?,
            );
            encoded = Some(Secret::new(text));
        }
        let mut body = Bytes::new();
        if let Some(text) = &self.body {
            body = Bytes::copy_from_slice(read(text).await.context("read `body`")?.reveal().as_bytes());
        }
        let is_secret = !hidden.is_empty() || !private.is_empty();
        Ok(Asked { url, headers, private, body, hidden: Redactor::new(hidden.into_iter().chain(encoded)), is_secret })
    }

    /// Asks, follows where the answers point to, and reads the last one.
    async fn fetch(&self, looking: &Looking, asked: &Asked, phase: &Phase) -> Result<Answer, Failed> {
        let begun = Instant::now();
        let (mut url, mut method, mut body) = (asked.url.clone(), self.method.clone(), asked.body.clone());
        let (mut redirects, mut only_public) = (0, false);
        let mut certificates: Option<Shown> = None;
        loop {
            let is_first = same_server(&url, &asked.url);
            let host = url.host_str().unwrap_or_default().to_owned();
            let port = url.port_or_known_default().unwrap_or(80);
            let goal = if is_first { self.way.host(&host) } else { &host };
            phase.set(Phase::NAME);
            let addresses = reach::addresses(looking, goal, port, &self.way, only_public).await?;
            phase.set(Phase::KNOCK);
            let stream = reach::connect(&addresses).await?;
            let address = stream.peer_addr().map_err(|error| reach::unreachable(&error))?.ip();
            let _ = stream.set_nodelay(true);
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.headers_mut() = asked.headers.clone();
            if is_first {
                request.headers_mut().extend(asked.private.clone());
            }
            if !body.is_empty() && !request.headers().contains_key(header::CONTENT_TYPE) {
                request
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            }
            let response = if url.scheme() == "https" {
                phase.set(Phase::TLS);
                let within = if self.http2 { Within::Http2 } else { Within::Http1 };
                let (stream, shown) = looking
                    .tls
                    .begin(stream, &host, within, &looking.clock, looking.authorities(self.ca.as_deref()).as_deref())
                    .await?;
                let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let is_bad = shown.certificate.distrust.is_some() && !self.insecure;
                // Whoever this is, it is not shown what was meant for another.
                if is_bad && is_first && (asked.is_secret || !body.is_empty()) {
                    let why = shown.certificate.distrust.clone().unwrap_or_default();
                    let told = format!(
                        "the certificate {why}; it was asked nothing, since that would show secrets to whoever answers there"
                    );
                    let fail = Fail::new(Trouble::Certificate, told);
                    return Err(Failed { fail, certificate: Some(shown.certificate), address: Some(address) });
                }
                // The worst on the way counts.
                let is_worse = certificates.as_ref().is_none_or(|known| {
                    known.certificate.distrust.is_none()
                        && (shown.certificate.distrust.is_some() || shown.certificate.ends < known.certificate.ends)
                });
                if is_worse {
                    certificates = Some(shown);
                }
                phase.set(Phase::ANSWER);
                if is_h2 {
                    exchange::over_http2(stream, request, &url, self.read, phase).await
                } else {
                    exchange::over_http1(stream, request, &url, self.read, phase).await
                }
            } else {
                phase.set(Phase::ANSWER);
                exchange::over_http1(stream, request, &url, self.read, phase).await
            };
            let (head, mut taking) = response.map_err(|fail| Failed {
                fail,
                certificate: certificates.as_ref().map(|shown| shown.certificate.clone()),
                address: Some(address),
            })?;
            let target = target(&head, &url);
            if let (true, Some(to)) = (self.follow, &target) {
                if redirects == MOST_REDIRECTS {
                    return Err(
                        Fail::new(Trouble::Content, format!("it redirects more than {MOST_REDIRECTS} times")).into()
                    );
                }
                if url.scheme() == "https" && to.scheme() == "http" {
                    let told = format!("it redirects from https to http: {}", shown_url(to));
                    return Err(Fail::new(Trouble::Content, told).into());
                }
                let keeps = matches!(head.status, StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
                if keeps && !body.is_empty() && !same_server(to, &asked.url) {
                    let told = format!(
                        "it points to {}, which is not sent what was meant for the first server",
                        shown_url(to)
                    );
                    return Err(Fail::new(Trouble::Content, told).into());
                }
                if !keeps {
                    body = Bytes::new();
                    if method != Method::HEAD {
                        method = Method::GET;
                    }
                }
                if redirects == 0 {
                    only_public = guard::is_public(address);
                }
                redirects += 1;
                url = to.clone();
                continue;
            }
            let (bytes, is_cut, is_whole) = std::mem::replace(&mut taking, Taking::new(false, 0, 0)).end();
            if !is_whole {
                return Err(Fail::new(Trouble::Broken, "the answer is not compressed as it says, or broke off").into());
            }
            let size = bytes.len() as u64;
            let body = if self.condition.reads_body() || self.condition.is_nothing() {
                decoded(bytes, &head.headers)
            } else {
                String::new()
            };
            let left = certificates.as_ref().map(|shown| shown.left(looking.clock.now()));
            return Ok(Answer {
                status: head.status,
                http: head.http,
                headers: head.headers,
                body,
                size,
                is_cut,
                url: url.to_string(),
                redirect: target.map(|url| url.to_string()),
                redirects,
                address,
                took: begun.elapsed(),
                certificate: certificates,
                left,
            });
        }
    }

    /// What its owner wants to hear of the answer.
    async fn judge(&self, looking: &Looking, answer: Answer, hidden: &Redactor) -> Verdict {
        let answer = Arc::new(answer);
        let is_work = answer.body.len() > LONG || self.condition.reads_page();
        let mut failing = if is_work {
            let _turn = looking.heavy.acquire().await;
            let (condition, answer) = (self.condition.clone(), Arc::clone(&answer));
            let work = tokio::task::spawn_blocking(move || answer.failing(&condition)).await;
            work.unwrap_or_else(|_| {
                vec![Failing { trouble: Trouble::Content, told: "the answer cannot be looked into".into() }]
            })
        } else {
            answer.failing(&self.condition)
        };
        if let Some(shown) = &answer.certificate
            && !self.insecure
        {
            failing.extend(super::certificate::worry(
                shown,
                looking.clock.now(),
                self.condition.is_about_certificate(),
            ));
        }
        let short = answer.summary(self.condition.reads_body());
        let certificate = answer.certificate.as_ref().map(|shown| shown.certificate.clone());
        let mut verdict =
            verdict::of(failing, &short, answer.certificate_in_words(), Some(answer.took), certificate, self.insecure);
        verdict.what = hidden.clean(&verdict.what);
        verdict.address = Some(answer.address);
        verdict
    }
}

impl Answer {
    fn failing(&self, condition: &Condition) -> Vec<Failing> {
        let header = |name: &str| {
            let all: Vec<String> = self
                .headers
                .get_all(name)
                .iter()
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                .collect();
            (!all.is_empty()).then(|| all.join(", "))
        };
        condition.failing(&Found {
            status: Some(self.status.as_u16()),
            time: self.took,
            size: Some(self.size),
            certificate: self.left,
            http: Some(self.http),
            redirects: Some(self.redirects),
            redirect: self.redirect.as_deref(),
            url: Some(&self.url),
            address: Some(self.address),
            body: Some(&self.body),
            is_cut: self.is_cut,
            header: &header,
            ..Found::default()
        })
    }

    /// `200 in 84 ms`, `200, 5.2 KiB in 84 ms`.
    fn summary(&self, with_size: bool) -> String {
        let status = self.status.as_u16();
        let more = if self.is_cut { "more than " } else { "" };
        let size = if with_size { format!(", {more}{}", text::size(self.size)) } else { String::new() };
        format!("{status}{size} in {}", text::duration(self.took))
    }

    fn certificate_in_words(&self) -> Option<String> {
        self.left.map(super::certificate::words)
    }
}

/// A look that came to nothing, with what was seen on the way.
struct Failed {
    fail: Fail,
    certificate: Option<Certificate>,
    address: Option<IpAddr>,
}

impl From<Fail> for Failed {
    fn from(fail: Fail) -> Self {
        Self { fail, certificate: None, address: None }
    }
}

impl Failed {
    fn verdict(self, hidden: &Redactor) -> Verdict {
        let mut verdict = verdict::failed(self.fail);
        verdict.what = hidden.clean(&verdict.what);
        Verdict { certificate: self.certificate, address: self.address, ..verdict }
    }
}

/// Where an answer points to.
fn target(head: &Head, from: &Url) -> Option<Url> {
    let to = head.headers.get(header::LOCATION).filter(|_| head.status.is_redirection())?;
    let to = from.join(std::str::from_utf8(to.as_bytes()).ok()?).ok()?;
    matches!(to.scheme(), "http" | "https").then_some(to)
}

/// Whether it is the same server, or the https of the same one.
fn same_server(one: &Url, first: &Url) -> bool {
    let same_port = one.scheme() == first.scheme() && one.port_or_known_default() == first.port_or_known_default();
    let its_https =
        first.scheme() == "http" && one.scheme() == "https" && first.port().is_none() && one.port().is_none();
    one.host_str() == first.host_str() && (same_port || its_https)
}

/// An address as it may be told: without what follows `?`, where tokens are.
fn shown_url(url: &Url) -> String {
    let mut url = url.clone();
    let more = if url.query().is_some() { "…" } else { "" };
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_password(None);
    condition::quoted(&format!("{url}{more}"))
}

/// The body as text, in the encoding that it says it has.
fn decoded(bytes: Vec<u8>, headers: &HeaderMap) -> String {
    let bytes = match String::from_utf8(bytes) {
        Ok(text) => return text,
        Err(error) => error.into_bytes(),
    };
    let said =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).and_then(charset).or_else(|| {
            // As pages said it before servers did.
            charset(&String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]))
        });
    let encoding =
        said.and_then(|name| encoding_rs::Encoding::for_label(name.as_bytes())).unwrap_or(encoding_rs::UTF_8);
    encoding.decode(&bytes).0.into_owned()
}

/// The encoding in `…charset=shift_jis…`.
fn charset(text: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let name = lower.split_once("charset=")?.1.trim_start_matches(['"', '\'']);
    Some(name.chars().take_while(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_')).collect())
}
