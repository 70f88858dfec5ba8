//! Anybody else who takes a request: its address, headers and body are written in the job file, with `{ipv4}`, `{ipv6}` and `{host}`.
use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use regex::{Regex, RegexBuilder};
use reqwest::{
    Method, Request, Url,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Answer, End, Line, Provider, Refresh, Wanted, header, said};
use crate::{
    config::{
        mistake::Problem,
        secret::{Secret, SecretSource, TextOrSecret},
    },
    dyndns::{Addresses, Family, ask},
};

/// A request for each host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generic {
    /// Where to, with `{ipv4}`, `{ipv6}` and `{host}`; a secret if a token is part of it. Where neither it nor the body has an address,
    /// the one that the request comes from counts: it is then sent over each family.
    pub url: TextOrSecret,
    /// How [default: GET].
    #[serde(default)]
    pub method: Verb,
    /// Headers by name: texts, or secrets such as `{ env = "API_KEY" }`.
    #[serde(default)]
    pub headers: BTreeMap<String, TextOrSecret>,
    /// What to send, with `{ipv4}`, `{ipv6}` and `{host}`.
    #[serde(default)]
    pub body: Option<TextOrSecret>,
    /// What the answer must have to be a success, as a regular expression [default: a status of 2xx is one].
    #[serde(default)]
    pub success: Option<String>,
    /// An answer that has this must not come again before something is changed, as a regular expression.
    #[serde(default)]
    pub fatal: Option<String>,
}

/// How to ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    /// Only asks.
    #[default]
    Get,
    /// Sends something.
    Post,
    /// Puts something in its place.
    Put,
    /// Changes a part.
    Patch,
}

impl Verb {
    fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
        }
    }
}

#[async_trait]
impl Provider for Generic {
    fn name(&self) -> String {
        match &self.url {
            TextOrSecret::Text(url) => Url::parse(&filled(url, "host", Addresses::default()))
                .ok()
                .and_then(|url| url.host_str().map(str::to_owned))
                .unwrap_or_else(|| "the provider".to_owned()),
            TextOrSecret::Secret(_) => "the provider".to_owned(),
        }
    }

    fn check(&self, key: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let TextOrSecret::Text(url) = &self.url {
            if let Err(why) = ask::address(&filled(url, "host", Addresses::default())) {
                problems.push(crate::dyndns::own::problem(format!("{key}.url"), &why));
            }
            problems.extend(unknown_words(url).map(|word| {
                Problem::new(format!("{key}.url"), format!("`{word}` is not filled in here"))
                    .hint("what is filled in is `{ipv4}`, `{ipv6}` and `{host}`")
            }));
        }
        for (name, value) in &self.headers {
            let place = format!("{key}.headers.{name}");
            if HeaderName::try_from(name).is_err() {
                problems.push(Problem::new(&place, format!("`{name}` cannot be a header's name")));
            }
            if let TextOrSecret::Text(value) = value
                && HeaderValue::try_from(value).is_err()
            {
                problems.push(Problem::new(&place, "a header's value is one line without control characters"));
            }
        }
        if self.body.is_some() && self.method == Verb::Get {
            problems.push(Problem::new(format!("{key}.body"), "a GET sends nothing").hint("add `method = \"POST\"`"));
        }
        for (name, text) in [("success", &self.success), ("fatal", &self.fatal)] {
            if let Some(Err(error)) = text.as_deref().map(pattern) {
                // It draws the pattern, which is shown anyway; the last line says what is wrong.
                let why = error.to_string();
                let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
                problems.push(Problem::new(format!("{key}.{name}"), format!("this is no regular expression: {why}")));
            } else if text.as_ref().is_some_and(String::is_empty) {
                problems.push(Problem::new(format!("{key}.{name}"), "every answer has this: it is empty"));
            }
        }
        problems
    }

    fn takes_any(&self) -> bool {
        !self.counts_source()
    }

    fn secrets(&self) -> Vec<SecretSource> {
        let values = self.headers.values().chain([&self.url]).chain(&self.body);
        values.filter_map(TextOrSecret::secret).cloned().collect()
    }

    fn refresh(&self) -> Refresh {
        Refresh { usual: Duration::from_secs(7 * 86_400), most: None }
    }

    async fn tell(&self, line: &Line<'_>, hosts: &[Wanted]) -> Vec<Answer> {
        let mut answers: Vec<Answer> = Vec::new();
        for wanted in hosts {
            if let Some(end @ (End::Stop { all: true, .. } | End::Later { .. })) = answers.last().map(|last| &last.end)
            {
                answers.push(Answer::end(end.clone()));
                continue;
            }
            let requests: Vec<(Option<Family>, Addresses)> = if self.counts_source() {
                wanted.due.each().map(|one| (Some(Family::of(one)), [one].into_iter().collect())).collect()
            } else {
                vec![(None, wanted.addresses)]
            };
            let mut parts = Vec::new();
            for (family, addresses) in requests {
                let end = self.send(line, &wanted.host, family, addresses).await.unwrap_or_else(|end| end);
                let taken = if matches!(end, End::Taken { .. }) { addresses } else { Addresses::default() };
                parts.push(Answer { taken, end });
            }
            answers.push(Answer::together(parts));
        }
        answers
    }
}

impl Generic {
    /// Whether the address that the request comes from counts: nothing names another. A secret may.
    fn counts_source(&self) -> bool {
        let names_none = |value: &TextOrSecret| match value {
            TextOrSecret::Text(text) => !text.contains("{ipv4}") && !text.contains("{ipv6}"),
            TextOrSecret::Secret(_) => false,
        };
        names_none(&self.url) && self.body.as_ref().is_none_or(names_none)
    }

    async fn send(
        &self,
        line: &Line<'_>,
        host: &str,
        family: Option<Family>,
        addresses: Addresses,
    ) -> Result<End, End> {
        let mut hidden = Vec::new();
        let mut read = async |value: &TextOrSecret| {
            let text = value.read(line.secrets).await;
            let text = text.map_err(|error| End::NotSent { why: format!("read the secret: {error:#}") })?;
            if value.secret().is_some() {
                hidden.push(text.clone());
            }
            Ok::<Secret, End>(text)
        };
        let url = filled(read(&self.url).await?.reveal(), host, addresses);
        // What is wrong is not said with the address, which may be secret.
        let url =
            ask::address(&url).map_err(|_| End::NotSent { why: "`url` is no address that can be asked".to_owned() })?;
        let mut request = Request::new(self.method.method(), url);
        if let Some(body) = &self.body {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            *request.body_mut() = Some(filled(read(body).await?.reveal(), host, addresses).into());
        }
        for (name, value) in &self.headers {
            let value = read(value).await?;
            let name = HeaderName::try_from(name).map_err(|error| End::NotSent { why: error.to_string() })?;
            header(&mut request, name, value.reveal())?;
        }
        let reply = line.ask(family, request).await?;
        let what = format!("{} answered {}: {}", self.name(), reply.status, said(&reply.body, hidden));
        let fits = |text: &Option<String>| match text {
            Some(text) => pattern(text).map(|pattern| Some(pattern.is_match(&reply.body))),
            None => Ok(None),
        };
        let wrong = |error: regex::Error| End::NotSent { why: format!("read the pattern: {error}") };
        if fits(&self.fatal).map_err(wrong)? == Some(true) {
            return Err(End::Stop {
                all: true,
                why: format!("{what}, which `fatal` means"),
                mend: "look at what the provider says, and mend the settings".to_owned(),
            });
        }
        let good = fits(&self.success).map_err(wrong)?.unwrap_or(true) && reply.status.is_success();
        if good { Ok(End::Taken { had_it: false, proven: false }) } else { Err(End::Unknown { why: what }) }
    }
}

/// A pattern of bounded size; it looks at any answer in linear time.
fn pattern(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(1 << 20).multi_line(true).build()
}

/// Addresses and names have no letter that means something in an address or in JSON.
fn filled(text: &str, host: &str, addresses: Addresses) -> String {
    let word = |family| addresses.get(family).map_or_else(String::new, |address| address.to_string());
    text.replace("{ipv4}", &word(Family::Ipv4)).replace("{ipv6}", &word(Family::Ipv6)).replace("{host}", host)
}

/// Words in braces that nobody fills in.
fn unknown_words(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices('{')
        .filter_map(|(at, _)| text[at..].find('}').map(|end| &text[at..=at + end]))
        .filter(|word| !["{ipv4}", "{ipv6}", "{host}"].contains(word))
}
