//! Whom a job tells what: its keys `notify` and `target`.
use std::{fmt, num::NonZeroU32};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use crate::{
    config::units::Span,
    model::news::{Event, News, Severity},
};

/// Whom a job tells what. A list of notifiers hears of everything; a table has a list for each thing that can happen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notify(pub Routes);

/// A table of routes: notifiers by their names in `rusuban.toml`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Routes {
    /// Those who hear of everything that has no list of its own here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<String>>,
    /// It failed: the first time, or the `after`th in a row; and reminders of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<Vec<String>>,
    /// It is well again; whoever heard that it was not, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Vec<String>>,
    /// A run takes longer than `target.time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late: Option<Vec<String>>,
    /// Slots went by unseen, and no run made up for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed: Option<Vec<String>>,
    /// It succeeded for the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_success: Option<Vec<String>>,
    /// A backup is suspiciously small.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub too_small: Option<Vec<String>>,
    /// Its last success is older than `target.age`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_missed: Option<Vec<String>>,
    /// Something changed, such as the host's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Vec<String>>,
    /// A report, of a job that makes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report: Option<Vec<String>>,
    /// These hear of what is good to know, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Vec<String>>,
    /// These hear of what is to be looked at in the morning, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<Vec<String>>,
    /// These hear of what a person must act on, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub critical: Option<Vec<String>>,
    /// So many runs in a row fail before it is told [default: 1]. Checks have `failures` of their own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<NonZeroU32>,
    /// A reminder each time so long has gone by, while it fails [default: none].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remind: Option<Span>,
    /// How much it matters when it fails [default: warning].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
}

/// What is expected of a job; what is missed is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Target {
    /// Its newest success is never older than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age: Option<Span>,
    /// No run takes longer than this, its waiting included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Span>,
}

impl Routes {
    /// The lists, each with its key.
    fn lists(&self) -> [(&'static str, &Option<Vec<String>>); 13] {
        [
            ("to", &self.to),
            ("failed", &self.failed),
            ("recovered", &self.recovered),
            ("late", &self.late),
            ("missed", &self.missed),
            ("first_success", &self.first_success),
            ("too_small", &self.too_small),
            ("target_missed", &self.target_missed),
            ("changed", &self.changed),
            ("report", &self.report),
            ("info", &self.info),
            ("warning", &self.warning),
            ("critical", &self.critical),
        ]
    }

    fn of(&self, event: Event) -> Option<&Vec<String>> {
        match event {
            Event::Failed | Event::StillFailing => self.failed.as_ref(),
            Event::Recovered => self.recovered.as_ref(),
            Event::Late => self.late.as_ref(),
            Event::Missed => self.missed.as_ref(),
            Event::FirstSuccess => self.first_success.as_ref(),
            Event::TooSmall => self.too_small.as_ref(),
            Event::TargetMissed => self.target_missed.as_ref(),
            Event::Changed => self.changed.as_ref(),
            Event::Report => self.report.as_ref(),
            Event::Test | Event::NotifierBroken => None,
        }
    }
}

impl Notify {
    /// All of it to these.
    #[must_use]
    pub fn all(to: impl IntoIterator<Item = String>) -> Self {
        Self(Routes { to: Some(to.into_iter().collect()), ..Routes::default() })
    }

    /// With what the settings say where it says nothing. A job that names anybody names all who hear of it.
    #[must_use]
    pub fn or(self, defaults: Option<&Self>) -> Self {
        let Some(Self(defaults)) = defaults else { return self };
        let Self(own) = self;
        let names_any = own.lists().iter().any(|(_, list)| list.is_some());
        let routes = if names_any { own.clone() } else { defaults.clone() };
        Self(Routes {
            after: own.after.or(defaults.after),
            remind: own.remind.or(defaults.remind),
            severity: own.severity.or(defaults.severity),
            ..routes
        })
    }

    /// Those who may hear of it, each once.
    #[must_use]
    pub fn who(&self, news: &News) -> Vec<&str> {
        let Self(routes) = self;
        let lists: Vec<&Vec<String>> = if self.ends_for_those_told(news.event) {
            let all =
                [&routes.failed, &routes.target_missed, &routes.to, &routes.info, &routes.warning, &routes.critical];
            all.into_iter().flatten().collect()
        } else {
            let of_severity = match news.severity {
                Severity::Info => &routes.info,
                Severity::Warning => &routes.warning,
                Severity::Critical => &routes.critical,
            };
            routes.of(news.event).or(routes.to.as_ref()).into_iter().chain(of_severity).collect()
        };
        let mut who: Vec<&str> = Vec::new();
        for name in lists.into_iter().flatten() {
            if !who.contains(&name.as_str()) {
                who.push(name);
            }
        }
        who
    }

    /// Whether this goes to those among them who have heard that it began.
    #[must_use]
    pub fn ends_for_those_told(&self, event: Event) -> bool {
        event == Event::Recovered && self.0.recovered.is_none()
    }

    /// Whether anybody would hear of this.
    #[must_use]
    pub fn anybody_hears_of(&self, event: Event) -> bool {
        let Self(routes) = self;
        let some = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|names| !names.is_empty());
        routes.of(event).or(routes.to.as_ref()).is_some_and(|names| !names.is_empty())
            || [&routes.info, &routes.warning, &routes.critical].into_iter().any(some)
    }

    /// Whether it says that nobody is to hear of it.
    #[must_use]
    pub fn is_silent_by_choice(&self) -> bool {
        self.0.lists().iter().any(|(_, list)| list.is_some()) && !self.anybody_hears_of(Event::Failed)
    }

    /// The names in it, each with the key where it stands, such as `.failed[1]`.
    pub fn names(&self) -> impl Iterator<Item = (String, &str)> {
        self.0.lists().into_iter().flat_map(|(key, list)| {
            let names = list.iter().flatten().enumerate();
            names.map(move |(index, name)| (format!(".{key}[{index}]"), name.as_str()))
        })
    }

    /// So many runs in a row fail before it is told.
    #[must_use]
    pub fn after(&self) -> u32 {
        self.0.after.map_or(1, NonZeroU32::get)
    }

    /// How much it matters when it fails.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.0.severity.unwrap_or(Severity::Warning)
    }
}

impl Serialize for Notify {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Notify {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrTable;

        impl<'de> Visitor<'de> for ListOrTable {
            type Value = Notify;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of notifiers, or a table such as `{ failed = [\"mail\"] }`")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Notify, A::Error> {
                let mut to = Vec::new();
                while let Some(name) = list.next_element()? {
                    to.push(name);
                }
                Ok(Notify::all(to))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Notify, A::Error> {
                Routes::deserialize(MapAccessDeserializer::new(map)).map(Notify)
            }
        }

        deserializer.deserialize_any(ListOrTable)
    }
}

impl JsonSchema for Notify {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Notify".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let routes = generator.subschema_for::<Routes>();
        schemars::json_schema!({ "anyOf": [{ "type": "array", "items": { "type": "string" } }, routes] })
    }
}
