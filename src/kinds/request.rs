//! What is said of a request and its answer in more than one kind: the method, who is let in, the statuses that are fine.
use std::fmt;

use anyhow::bail;
use reqwest::Url;
use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use crate::config::secret::TextOrSecret;

/// How to call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

/// A user and a password.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: TextOrSecret,
}

/// The status codes that mean success, as ranges with both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedStatus(Vec<(u16, u16)>);

/// The address, if it is one that can be called.
pub(super) fn address(text: &str) -> anyhow::Result<Url> {
    if !text.contains("://") {
        bail!("this is no web address: it does not begin with `https://` or `http://`");
    }
    let url = Url::parse(text).map_err(|error| anyhow::anyhow!("this is no web address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        bail!("only http and https are spoken here, not `{}`", url.scheme());
    }
    if !url.username().is_empty() || url.password().is_some() {
        bail!(
            "a password in an address ends up in logs: use `basic = {{ user = \"…\", password = {{ env = \"…\" }} }}`"
        );
    }
    Ok(url)
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(reqwest::Method::from(*self).as_str())
    }
}

impl From<Method> for reqwest::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Head => Self::HEAD,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
            Method::Options => Self::OPTIONS,
        }
    }
}

impl Default for ExpectedStatus {
    fn default() -> Self {
        Self(vec![(200, 299)])
    }
}

impl ExpectedStatus {
    pub(super) fn has(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }

    /// The codes, as ranges with both ends.
    pub(super) fn ranges(&self) -> &[(u16, u16)] {
        &self.0
    }

    fn one(text: &str) -> Result<(u16, u16), String> {
        let code = |text: &str| text.trim().parse().ok().filter(|code| (100..=599).contains(code));
        let range = match text.split_once('-') {
            Some((first, last)) => code(first).zip(code(last)).filter(|(first, last)| first <= last),
            None => match text.strip_suffix("xx") {
                Some(hundreds) => code(&format!("{hundreds}00")).map(|first: u16| (first, first + 99)),
                None => code(text).map(|code| (code, code)),
            },
        };
        range.ok_or_else(|| {
            format!("`{text}` is no HTTP status: write a number from 100 to 599, `\"2xx\"` or `\"200-204\"`")
        })
    }
}

impl fmt::Display for ExpectedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |(first, last): &(u16, u16)| match (first, last) {
            (first, last) if first == last => first.to_string(),
            (first, last) if first % 100 == 0 && *last == first + 99 => format!("{}xx", first / 100),
            (first, last) => format!("{first}-{last}"),
        };
        f.write_str(&self.0.iter().map(one).collect::<Vec<_>>().join(" or "))
    }
}

impl<'de> Deserialize<'de> for ExpectedStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// One status or range; in a list each is read by this too.
        #[derive(Clone, Copy)]
        struct Statuses;

        impl<'de> Visitor<'de> for Statuses {
            type Value = ExpectedStatus;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as `204` or `\"2xx\"`, or a list of them")
            }

            fn visit_i64<E: serde::de::Error>(self, code: i64) -> Result<ExpectedStatus, E> {
                self.visit_str(&code.to_string())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ExpectedStatus, E> {
                ExpectedStatus::one(text).map(|range| ExpectedStatus(vec![range])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ExpectedStatus, A::Error> {
                let mut all = Vec::new();
                while let Some(ExpectedStatus(ranges)) = list.next_element()? {
                    all.extend(ranges);
                }
                if all.is_empty() {
                    return Err(serde::de::Error::custom("no status would mean success: write `\"2xx\"`"));
                }
                Ok(ExpectedStatus(all))
            }
        }

        deserializer.deserialize_any(Statuses)
    }
}

impl JsonSchema for ExpectedStatus {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ExpectedStatus".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = serde_json::json!([
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": r"^([1-5]xx|[1-5]\d\d(\s*-\s*[1-5]\d\d)?)$" },
        ]);
        schemars::json_schema!({
            "anyOf": [one[0], one[1], { "type": "array", "items": { "anyOf": one }, "minItems": 1 }]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> Result<ExpectedStatus, toml::de::Error> {
        #[derive(Deserialize)]
        struct File {
            status: ExpectedStatus,
        }
        toml::from_str(&format!("status = {toml}")).map(|file: File| file.status)
    }

    #[test]
    fn expected_statuses_are_numbers_classes_ranges_and_lists() {
        for (toml, shown) in [
            ("204", "204"),
            ("'2xx'", "2xx"),
            ("'200-204'", "200-204"),
            ("[200, '3xx', '400-404']", "200 or 3xx or 400-404"),
        ] {
            assert_eq!(read(toml).unwrap().to_string(), shown);
        }
        assert!(ExpectedStatus::default().has(299) && !ExpectedStatus::default().has(300));
        for wrong in ["99", "600", "'6xx'", "'2x'", "[]", "'204-200'", "true", "'-'", "-200"] {
            read(wrong).unwrap_err();
        }
    }
}
