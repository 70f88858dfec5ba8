//! One way to call a service: a time limit over all of it, a bounded answer, redirects to the same server only, and errors in which
//! no address and no secret is.
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use reqwest::{
    Method, Request, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
};
use serde_json::Value;

use super::{Refusal, Sending, clean};
use crate::{
    config::{
        mistake::Problem,
        secret::{Redactor, Secret, SecretSource, TextOrSecret},
    },
    http,
};

/// What is read of an answer, after decompression.
const MOST: usize = 64 << 10;
/// What of a server's reason is told.
const REASON: usize = 200;
/// Parts of a secret address that are so long are likely what is secret of it.
const TELLING: usize = 8;
/// No server's word keeps a message back for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A request on its way to a service, and what must not be seen of it.
pub(super) struct Call<'a> {
    cx: &'a Sending,
    /// The service, as people know it: the first word of each error.
    service: &'static str,
    request: Request,
    hidden: Vec<Secret>,
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    service: &'static str,
    /// Removes this call's secrets.
    redactor: Redactor,
    /// And this one those of the settings.
    settings: Redactor,
    now: DateTime<Utc>,
}

/// Reads a value of the settings.
pub(super) async fn read(cx: &Sending, key: &str, value: &TextOrSecret) -> Result<Secret, Refusal> {
    let secret = value.read(&cx.secrets).await.with_context(|| format!("read `{key}`"));
    secret.map_err(|error| Refusal::Never { why: cx.redactor.clean(&format!("{error:#}")) })
}

/// The address in a value of the settings.
pub(super) fn address(key: &str, text: &str) -> Result<Url, Refusal> {
    let never = |why: &str| Refusal::Never { why: format!("`{key}` is no web address: {why}") };
    if !text.contains("://") {
        return Err(never("it begins with neither https:// nor http://"));
    }
    let url = Url::parse(text).map_err(|error| never(&error.to_string()))?;
    if matches!(url.scheme(), "http" | "https") {
        Ok(url)
    } else {
        Err(never("it begins with neither https:// nor http://"))
    }
}

/// What `check` can say of an address that is written as it stands.
pub(super) fn check_address(key: &str, value: &TextOrSecret) -> Option<Problem> {
    let TextOrSecret::Text(text) = value else { return None };
    let Err(refusal) = address(key, text) else { return None };
    let why = refusal.to_string().replace(&format!("`{key}`"), "this");
    Some(Problem::new(key, why).hint("write it as in `https://example.org`"))
}

/// What lies below a server's address, whether or not that ends with a slash.
pub(super) fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    // An address of http has segments.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

/// Those of these values that are secrets.
pub(super) fn secrets<'a>(values: impl IntoIterator<Item = &'a TextOrSecret>) -> Vec<SecretSource> {
    values.into_iter().filter_map(TextOrSecret::secret).cloned().collect()
}

impl<'a> Call<'a> {
    pub(super) fn new(cx: &'a Sending, service: &'static str, method: Method, url: Url) -> Self {
        Self { cx, service, request: Request::new(method, url), hidden: Vec::new() }
    }

    /// What must not be seen, beside the secrets of the settings.
    pub(super) fn hide(mut self, secret: &Secret) -> Self {
        self.hidden.push(secret.clone());
        self
    }

    /// An address that is a secret as a whole, and so are the longer parts of its path, which a server may repeat.
    pub(super) fn hide_address(mut self, secret: &Secret) -> Self {
        let url = self.request.url();
        let parts = url.path_segments().into_iter().flatten().map(str::to_owned);
        let values = url.query_pairs().map(|(_, value)| value.into_owned());
        let long: Vec<Secret> = parts.chain(values).filter(|part| part.len() >= TELLING).map(Secret::new).collect();
        self.hidden.extend(long);
        self.hide(secret)
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Result<Self, Refusal> {
        let mut value = HeaderValue::try_from(value).map_err(|_| Refusal::Never {
            why: format!("the header `{name}` would have control characters: is a secret more than one line?"),
        })?;
        value.set_sensitive(true);
        self.request.headers_mut().insert(HeaderName::from_static(name), value);
        Ok(self)
    }

    /// A header of the owner's own.
    pub(super) fn named_header(mut self, name: &str, secret: &Secret) -> Result<Self, Refusal> {
        let never = || Refusal::Never {
            why: format!("`headers.{name}` cannot be a header: it is one line without control characters"),
        };
        let name = HeaderName::try_from(name).map_err(|_| never())?;
        let mut value = HeaderValue::try_from(secret.reveal()).map_err(|_| never())?;
        value.set_sensitive(true);
        self.request.headers_mut().insert(name, value);
        Ok(self.hide(secret))
    }

    pub(super) fn bearer(self, token: &Secret) -> Result<Self, Refusal> {
        self.hide(token).header(AUTHORIZATION_NAME, &format!("Bearer {}", token.reveal()))
    }

    pub(super) fn json(mut self, value: &Value) -> Self {
        self.request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *self.request.body_mut() = Some(value.to_string().into());
        self
    }

    pub(super) fn body(mut self, kind: &'static str, body: Vec<u8>) -> Self {
        self.request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        *self.request.body_mut() = Some(body.into());
        self
    }

    /// Sends it and reads the answer, whatever it says.
    pub(super) async fn answer(self) -> Result<Answer, Refusal> {
        let Self { cx, service, request, hidden } = self;
        let redactor = Redactor::new(hidden);
        let now = cx.clock.now();
        let later = |why: String| Refusal::Later {
            after: None,
            why: format!("{service}: {}", redactor.clean(&cx.redactor.clean(&why))),
        };
        let work = async {
            let mut response = http::send(&cx.http, request).await?;
            let mut body = Vec::new();
            while body.len() < MOST {
                let Some(chunk) = response.chunk().await? else { break };
                body.extend_from_slice(&chunk[..chunk.len().min(MOST - body.len())]);
            }
            Ok((response.status(), response.headers().clone(), body))
        };
        let answered = tokio::select! {
            answered = tokio::time::timeout(cx.time_limit, work) => answered,
            () = cx.cancelled.cancelled() => return Err(later("Rusuban ended before the answer came".to_owned())),
        };
        match answered {
            Ok(Ok((status, headers, body))) => {
                Ok(Answer { status, headers, body, service, redactor, settings: cx.redactor.clone(), now })
            }
            Ok(Err(error)) => Err(later(no_answer(error))),
            Err(_) => Err(later(format!(
                "no whole answer within {}: it may have been told all the same",
                crate::text::duration(cx.time_limit)
            ))),
        }
    }

    /// Sends it; an answer other than 2xx is a refusal of the usual kind.
    pub(super) async fn done(self) -> Result<Answer, Refusal> {
        let answer = self.answer().await?;
        if answer.status.is_success() { Ok(answer) } else { Err(answer.refusal()) }
    }
}

const AUTHORIZATION_NAME: &str = "authorization";

fn no_answer(error: reqwest::Error) -> String {
    let connected = !error.is_connect();
    let why = http::why(error);
    if connected { format!("{why}: it may have been told all the same") } else { why }
}

impl Answer {
    pub(super) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// It answers well, but not as that service does: what became of the message is not known.
    pub(super) fn not_understood(&self) -> Refusal {
        let reason = self.reason().map_or_else(String::new, |reason| format!(": {reason}"));
        let what = format!("{} answered {}, but not in its own words{reason}", self.service, self.status);
        Refusal::Later { after: None, why: format!("{what}; is there another server at this address?") }
    }

    /// The refusal that the status means on most services.
    pub(super) fn refusal(&self) -> Refusal {
        let why = self.why();
        match self.status.as_u16() {
            408 | 425 | 429 | 500..=599 => Refusal::Later { after: self.after(), why },
            400 | 413 | 414 | 422 | 431 => Refusal::NotThis { why },
            300..=399 => {
                Refusal::Never { why: format!("{why}: it points elsewhere, which is followed only to the same server") }
            }
            _ => Refusal::Never { why },
        }
    }

    pub(super) fn never(&self, mend: &str) -> Refusal {
        Refusal::Never { why: format!("{}; {mend}", self.why()) }
    }

    pub(super) fn later(&self, after: Option<Duration>) -> Refusal {
        Refusal::Later { after: after.map(|after| after.min(LONGEST_WAIT)).or_else(|| self.after()), why: self.why() }
    }

    pub(super) fn not_this(&self) -> Refusal {
        Refusal::NotThis { why: self.why() }
    }

    /// `Slack answered 403 Forbidden: invalid_token`.
    pub(super) fn why(&self) -> String {
        let reason = self.reason().map_or_else(String::new, |reason| format!(": {reason}"));
        format!("{} answered {}{reason}", self.service, self.status)
    }

    /// The server's reason: short, one line, without secrets.
    pub(super) fn reason(&self) -> Option<String> {
        let text = match self.json() {
            Some(json) => reason_in(&json)?,
            None => {
                let text = std::str::from_utf8(&self.body).ok()?;
                if text.trim_start().starts_with('<') {
                    return None;
                }
                text.lines().find(|line| !line.trim().is_empty())?.to_owned()
            }
        };
        let text = clean::line(&self.redactor.clean(&self.settings.clean(&text)));
        let end = text.floor_char_boundary(REASON.min(text.len()));
        (!text.is_empty()).then(|| text[..end].to_owned())
    }

    /// How long to wait by the service's own header, such as `x-limit-reset`, if nothing is left by its `x-limit-remaining`.
    pub(super) fn after_header(&self, prefix: &str) -> Option<Duration> {
        let header = |name: &str| self.header(&format!("{prefix}-{name}"));
        let is_spent = header("remaining").is_none_or(|left| left.parse::<f64>().is_ok_and(|left| left <= 0.0));
        header("reset").filter(|_| is_spent).and_then(|text| self.until(text))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
    }

    /// How far off a moment is that is written as seconds since 1970, or as a date of mail or of ISO 8601.
    fn until(&self, text: &str) -> Option<Duration> {
        let unix = text.parse::<i64>().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        let date = || DateTime::parse_from_rfc2822(text).or_else(|_| DateTime::parse_from_rfc3339(text)).ok();
        let moment = unix.or_else(|| date().map(|date| date.to_utc()))?;
        Some((moment - self.now).to_std().unwrap_or_default())
    }

    /// How long to wait, by `Retry-After` in seconds or as a date, or by one of the headers that say when a limit ends.
    pub(super) fn after(&self) -> Option<Duration> {
        let retry = self.header(RETRY_AFTER.as_str()).and_then(|text| match text.parse::<f64>() {
            Ok(seconds) => Duration::try_from_secs_f64(seconds.ceil()).ok(),
            Err(_) => self.until(text),
        });
        let reset =
            || ["x-rate-limit", "x-ratelimit", "ratelimit"].into_iter().find_map(|prefix| self.after_header(prefix));
        retry.or_else(reset).map(|after| after.min(LONGEST_WAIT))
    }
}

/// Where services put their reasons.
fn reason_in(json: &Value) -> Option<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    if let Some(text) = json.as_str() {
        return Some(text.to_owned());
    }
    for key in ["detail", "errorDescription", "error_description", "description", "message", "error", "title"] {
        match json.get(key) {
            Some(Value::String(text)) if !text.is_empty() => return Some(text.clone()),
            Some(inner @ Value::Object(_)) => return reason_in(inner),
            _ => {}
        }
    }
    let errors = json.get("errors")?;
    errors.get(0).and_then(|first| text(first).or_else(|| reason_in(first)))
}
