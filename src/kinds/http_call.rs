//! `http-call`: one HTTP request, and what its answer must be.
use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{
    Request, Response, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Cx, Kind, KindEntry, Site, Summary,
    request::{Basic, ExpectedStatus, Method, address},
};
use crate::{
    config::{
        mistake::Problem,
        secret::{Redactor, Secret, SecretReader, SecretSource, TextOrSecret},
        units::Span,
    },
    http,
    model::Level,
    policy::MissedPolicy,
    text,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "http-call",
    summary: "Calls a web address and looks at the answer",
    example: include_str!("../../jobs/http-call.toml"),
    parse: super::read::<HttpCall>,
    schema: HttpCall::json_schema,
    missed: MissedPolicy::Latest,
    class: "network",
    timeout: Some(Span::seconds(60)),
};

/// What is read of an answer, to find `expect_contains` in it.
const READ: usize = 1 << 20;
/// What of it is written into the log.
const LOGGED: usize = 64 << 10;

/// A request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCall {
    /// Where to: `https://…` or `http://…`; a secret if a token is part of it.
    pub url: TextOrSecret,
    /// How.
    #[serde(default)]
    pub method: Method,
    /// Headers by name: texts, or secrets such as `{ env = "API_KEY" }`.
    #[serde(default)]
    pub headers: BTreeMap<String, TextOrSecret>,
    /// A token, sent as `Authorization: Bearer …`.
    #[serde(default)]
    pub bearer: Option<TextOrSecret>,
    /// A user and a password, sent as `Authorization: Basic …`.
    #[serde(default)]
    pub basic: Option<Basic>,
    /// What to send, as it stands.
    #[serde(default)]
    pub body: Option<TextOrSecret>,
    /// What to send, written as a TOML table or list and sent as JSON.
    #[serde(default)]
    #[schemars(with = "Option<serde_json::Value>")]
    pub json: Option<toml::Value>,
    /// The status that means success: a number such as `204`, a class such as `"2xx"`, a range such as `"200-204"`, or a list of these.
    #[serde(default)]
    pub expect_status: ExpectedStatus,
    /// Words that the answer must have in its first MiB.
    #[serde(default)]
    pub expect_contains: Option<String>,
}

#[async_trait]
impl Kind for HttpCall {
    fn check(&self, _: &Site) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let TextOrSecret::Text(url) = &self.url
            && let Err(why) = address(url)
        {
            let why = why.to_string();
            problems.push(match why.split_once(": use ") {
                Some((wrong, mend)) => Problem::new("url", wrong).hint(format!("use {mend}")),
                None => Problem::new("url", why).hint("write it as in `https://example.org/path`"),
            });
        }
        for (name, value) in &self.headers {
            if HeaderName::try_from(name).is_err() {
                problems.push(Problem::new(format!("headers.{name}"), format!("`{name}` cannot be a header's name")));
            }
            if let TextOrSecret::Text(value) = value
                && HeaderValue::try_from(value).is_err()
            {
                let message = "a header's value is one line without control characters";
                problems.push(Problem::new(format!("headers.{name}"), message));
            }
        }
        let own_authorization = self.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"));
        for (key, twice) in [
            ("basic", self.basic.is_some() && (self.bearer.is_some() || own_authorization)),
            ("bearer", self.bearer.is_some() && own_authorization),
        ] {
            if twice {
                let hint = "keep one of `bearer`, `basic` and the header `Authorization`";
                problems.push(Problem::new(key, "the request would be authorised in two ways").hint(hint));
            }
        }
        if self.body.is_some() && self.json.is_some() {
            problems.push(Problem::new("json", "`body` and `json` are both given").hint("keep one of the two"));
        } else if matches!(self.method, Method::Get | Method::Head) && (self.body.is_some() || self.json.is_some()) {
            let key = if self.body.is_some() { "body" } else { "json" };
            let message = format!("a {} sends nothing", self.method);
            problems.push(Problem::new(key, message).hint("add `method = \"POST\"`"));
        }
        if self.method == Method::Head && self.expect_contains.is_some() {
            problems.push(Problem::new("expect_contains", "the answer to a HEAD has no text"));
        }
        if self.expect_contains.as_ref().is_some_and(String::is_empty) {
            problems.push(Problem::new("expect_contains", "every answer has this: it is empty"));
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        let values = self.headers.values().chain([&self.url]).chain(&self.bearer).chain(&self.body);
        let values = values.chain(self.basic.as_ref().map(|basic| &basic.password));
        values.filter_map(TextOrSecret::secret).cloned().collect()
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let url = self.url.read(&cx.services.secrets).await.context("read the address")?;
        let url = address(url.reveal())?;
        let what = format!("{} {}", self.method, shown(&url, self.url.secret().is_some()));
        let (request, hidden) = self.request(url, &cx.services.secrets).await.with_context(|| what.clone())?;
        let started = Instant::now();
        let answer = async {
            let response = http::send(&cx.services.http, request).await.map_err(|error| self.unanswered(error))?;
            Answer::read(response).await.map_err(|error| self.unanswered(error))
        };
        let answer = tokio::select! {
            answer = answer => answer.with_context(|| what.clone())?,
            () = cx.cancelled.cancelled() => bail!("{what}: asked to stop before the answer came{}", self.unknown()),
        };
        // Cleaned as a whole and then cut: half a secret is one too.
        let body = answer.text().map(|text| hidden.clean(&cx.services.redactor.clean(&text)));
        if let Some(body) = &body {
            let end = body.floor_char_boundary(LOGGED.min(body.len()));
            cx.record.line(Level::Output, &body[..end]);
            if end < body.len() || answer.cut {
                cx.info(format!("… the answer goes on; a log keeps {}", text::size(LOGGED as u64)));
            }
        }
        let length = if answer.cut { "more than 1 MiB".to_owned() } else { text::size(answer.body.len() as u64) };
        let told = format!(
            "{what}: {}, {length}{} in {}",
            answer.status,
            answer.kind.as_deref().map_or_else(String::new, |kind| format!(" of {kind}")),
            text::duration(started.elapsed())
        );
        if !self.expect_status.has(answer.status.as_u16()) {
            let mut why = format!("{what}: the server answered {}, expected {}", answer.status, self.expect_status);
            if let Some(location) = &answer.location {
                why = format!(
                    "{why}: it points to {}, which is followed only to the same server",
                    hidden.clean(location)
                );
            } else if let Some(line) =
                body.as_deref().and_then(|body| body.lines().find(|line| !line.trim().is_empty()))
            {
                why = format!("{why}: {}", &line[..line.floor_char_boundary(200.min(line.len()))]);
            }
            bail!(why);
        }
        if let Some(words) = &self.expect_contains
            && !String::from_utf8_lossy(&answer.body).contains(words.as_str())
        {
            let within = if answer.cut { " in its first MiB" } else { "" };
            bail!("{what}: the answer ({}) does not have `{words}`{within}", answer.status);
        }
        Ok(told)
    }
}

impl HttpCall {
    /// The request, and what must not be seen of it beside the secrets themselves.
    async fn request(&self, url: Url, reader: &SecretReader) -> anyhow::Result<(Request, Redactor)> {
        let mut hidden = Vec::new();
        let mut read = async |value: &TextOrSecret| {
            let secret = value.read(reader).await?;
            if value.secret().is_some() {
                hidden.push(secret.clone());
            }
            anyhow::Ok(secret)
        };
        let mut request = Request::new(self.method.into(), url);
        let mut authorization = None;
        if let Some(token) = &self.bearer {
            authorization = Some(format!("Bearer {}", read(token).await.context("read `bearer`")?.reveal()));
        }
        let mut encoded = None;
        if let Some(basic) = &self.basic {
            let password = read(&basic.password).await.context("read `basic.password`")?;
            let text = BASE64_STANDARD.encode(format!("{}:{}", basic.user, password.reveal()));
            authorization = Some(format!("Basic {text}"));
            encoded = Some(Secret::new(text));
        }
        if let Some(text) = authorization {
            request.headers_mut().insert(AUTHORIZATION, header_value(&text).context("write the authorisation")?);
        }
        let body = match (&self.json, &self.body) {
            (Some(json), _) => {
                request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                Some(json_of(json).to_string())
            }
            (None, Some(body)) => {
                request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
                Some(read(body).await.context("read `body`")?.reveal().to_owned())
            }
            (None, None) => None,
        };
        for (name, value) in &self.headers {
            let what = || format!("write the header `{name}`");
            let value = header_value(read(value).await.with_context(what)?.reveal()).with_context(what)?;
            request.headers_mut().insert(HeaderName::try_from(name).with_context(what)?, value);
        }
        *request.body_mut() = body.map(Into::into);
        Ok((request, Redactor::new(hidden.into_iter().chain(encoded))))
    }

    /// Why there is no answer, and what is known of the request.
    fn unanswered(&self, error: reqwest::Error) -> anyhow::Error {
        let connected = !error.is_connect();
        anyhow::anyhow!("{}{}", http::why(error), if connected { self.unknown() } else { "" })
    }

    /// Only what is known is said: a lost answer is not an undone deed.
    fn unknown(&self) -> &'static str {
        match self.method {
            Method::Get | Method::Head | Method::Options => "",
            _ => " (whether the server did what it was asked is not known)",
        }
    }
}

/// What came back.
struct Answer {
    status: reqwest::StatusCode,
    location: Option<String>,
    /// Its media type.
    kind: Option<String>,
    body: Vec<u8>,
    /// There was more.
    cut: bool,
}

impl Answer {
    async fn read(mut response: Response) -> reqwest::Result<Self> {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut answer = Self {
            status: response.status(),
            location: header(LOCATION).filter(|_| response.status().is_redirection()),
            kind: header(CONTENT_TYPE)
                .and_then(|kind| kind.split(';').next().map(|kind| kind.trim().to_ascii_lowercase())),
            body: Vec::new(),
            cut: false,
        };
        while let Some(chunk) = response.chunk().await? {
            answer.body.extend_from_slice(&chunk);
            if answer.body.len() > READ {
                answer.body.truncate(READ);
                answer.cut = true;
                break;
            }
        }
        Ok(answer)
    }

    /// The body, if it is for people.
    fn text(&self) -> Option<String> {
        let is_binary = self.body.contains(&0);
        (!self.body.is_empty() && !is_binary).then(|| String::from_utf8_lossy(&self.body).into_owned())
    }
}

/// The address as it may be seen: of a secret one only the server, of others all but what follows `?`, where tokens often are.
fn shown(url: &Url, secret: bool) -> String {
    let mut url = url.clone();
    if secret {
        url.set_path("");
    }
    let more = if url.query().is_some() || secret { "…" } else { "" };
    url.set_query(None);
    url.set_fragment(None);
    format!("{url}{more}")
}

fn header_value(text: &str) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::try_from(text)
        .map_err(|_| anyhow::anyhow!("a header's value is one line without control characters"))?;
    // It is then left out of what libraries print.
    value.set_sensitive(true);
    Ok(value)
}

/// TOML's values in JSON; dates as texts.
fn json_of(value: &toml::Value) -> serde_json::Value {
    match value {
        toml::Value::String(text) => text.as_str().into(),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(is) => (*is).into(),
        toml::Value::Datetime(at) => at.to_string().into(),
        toml::Value::Array(items) => items.iter().map(json_of).collect(),
        toml::Value::Table(table) => table.iter().map(|(key, value)| (key.clone(), json_of(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<HttpCall, toml::de::Error> {
        toml::from_str(toml)
    }

    fn problems(toml: &str) -> Vec<String> {
        let problems = read(toml).unwrap().check(&Site::default());
        problems.into_iter().map(|problem| format!("{}: {}", problem.key, problem.message)).collect()
    }

    #[test]
    fn requests_that_cannot_work_are_found_before_they_are_sent() {
        for (toml, expected) in [
            ("url = 'example.org/x'", "url: this is no web address: it does not begin with `https://` or `http://`"),
            ("url = 'ftp://example.org'", "url: only http and https are spoken here, not `ftp`"),
            ("url = 'http://me:pw@h/'", "url: a password in an address ends up in logs"),
            ("url = 'http://h'\nheaders = { 'a b' = '1' }", "headers.a b: `a b` cannot be a header's name"),
            (
                "url = 'http://h'\nheaders = { a = \"1\\n2\" }",
                "headers.a: a header's value is one line without control characters",
            ),
            (
                "url = 'http://h'\nbearer = 'abc'\nheaders = { authorization = 'x' }",
                "bearer: the request would be authorised in two ways",
            ),
            (
                "url = 'http://h'\nmethod = 'PUT'\nbody = 'a'\njson = { b = 1 }",
                "json: `body` and `json` are both given",
            ),
            ("url = 'http://h'\njson = { b = 1 }", "json: a GET sends nothing"),
            (
                "url = 'http://h'\nmethod = 'HEAD'\nexpect_contains = 'x'",
                "expect_contains: the answer to a HEAD has no text",
            ),
            ("url = 'http://h'\nexpect_contains = ''", "expect_contains: every answer has this: it is empty"),
        ] {
            assert_eq!(problems(toml), [expected], "{toml}");
        }
    }

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        let url = Url::parse("https://h.example:8443/a/b?token=x#y").unwrap();
        assert_eq!(shown(&url, false), "https://h.example:8443/a/b…");
        assert_eq!(shown(&url, true), "https://h.example:8443/…");
    }

    #[test]
    fn all_its_secrets_are_named_for_removal() {
        let call = read(
            "url = { env = 'A' }\nmethod = 'POST'\nbody = { env = 'B' }\nheaders = { x = { env = 'C' }, y = 'no' }\nbasic = { user = 'u', password = { env = 'D' } }",
        );
        let mut names: Vec<_> = call.unwrap().secrets().into_iter().map(|source| format!("{source:?}")).collect();
        names.sort();
        assert_eq!(names, ["Env(\"A\")", "Env(\"B\")", "Env(\"C\")", "Env(\"D\")"]);
    }
}
