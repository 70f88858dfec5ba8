//! `on`: what happens to which containers, as a job's file says it.
use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{
        MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer},
    },
};

use super::choose::Choice;
use crate::{
    config::{mistake::Problem, units::Span},
    model::happening::Happens,
};

/// A container that does it again is heard again after so long.
const REST: Duration = Duration::from_secs(60);

/// What happens to which containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct On {
    /// What.
    pub events: Vec<Happens>,
    /// To which; none chosen: to any.
    pub choice: Choice,
    /// A container that does it again and again is heard at most once in this time, which doubles each time up to an hour.
    pub rest: Span,
}

/// The long form.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Table {
    /// What happens: `died`, `unhealthy`, `oom`, `started`, or a list of these.
    event: Events,
    /// Names of containers, and patterns of names: `wiki-*` [default: any container].
    #[serde(default)]
    containers: Vec<String>,
    /// All containers of these compose projects.
    #[serde(default)]
    compose: Vec<String>,
    /// All containers with one of these labels: `name` or `name=value`.
    #[serde(default)]
    label: Vec<String>,
    /// Names and patterns of containers that are left out, whatever chose them.
    #[serde(default)]
    exclude: Vec<String>,
    /// A container that does it again and again is heard at most once in this time, which doubles each time up to an hour [default: 1m].
    #[serde(default)]
    rest: Option<Span>,
}

/// One word or several.
#[derive(Debug, Default)]
struct Events(Vec<Happens>);

impl On {
    fn of(events: Vec<Happens>) -> Self {
        Self { events, choice: Choice::default(), rest: Span(REST) }
    }

    /// What is wrong with it.
    #[must_use]
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.events.is_empty() {
            problems.push(
                Problem::new("on", "nothing would ever start the job")
                    .hint("name what happens: `on = \"container-died\"`, or leave `on` out"),
            );
        }
        if self.rest.0.is_zero() {
            problems.push(
                Problem::new("on.rest", "a container that dies again and again would start runs without end")
                    .hint("give it a time such as `1m`"),
            );
        }
        // Without a choice any container is meant.
        let any = Choice { all: self.choice.is_empty(), ..self.choice.clone() };
        let within = |problem: Problem| Problem { key: format!("on.{}", problem.key), ..problem };
        problems.extend(any.check().into_iter().map(within));
        problems
    }

    /// Whether it means a container of this name and with these labels.
    #[must_use]
    pub fn is_meant(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        Choice { all: self.choice.is_empty(), ..self.choice.clone() }.is_meant(name, labels)
    }

    /// It in words, as the end of "…, and ".
    #[must_use]
    pub fn in_words(&self) -> String {
        let events: Vec<&str> = self
            .events
            .iter()
            .map(|event| match event {
                Happens::Died => "dies",
                Happens::Unhealthy => "is unhealthy",
                Happens::Oom => "is out of memory",
                Happens::Started => "is started",
            })
            .collect();
        let choice = &self.choice;
        let mut which: Vec<String> = choice.containers.clone();
        which.extend(choice.compose.iter().map(|project| format!("one of compose project {project}")));
        which.extend(choice.label.iter().map(|label| format!("one with label {label}")));
        let which = if which.is_empty() { "a container".to_owned() } else { which.join(" or ") };
        format!("when {which} {}", events.join(" or "))
    }
}

impl<'de> Deserialize<'de> for On {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = On;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("what happens to containers, such as `\"container-died\"` or `{ event = \"died\", containers = [\"blog\"] }`")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<On, E> {
                Words.visit_str(word).map(|Events(events)| On::of(events))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<On, A::Error> {
                Words.visit_seq(list).map(|Events(events)| On::of(events))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<On, A::Error> {
                let Table { event, containers, compose, label, exclude, rest } =
                    Table::deserialize(MapAccessDeserializer::new(map))?;
                let choice = Choice { containers, all: false, compose, label, exclude };
                Ok(On { events: event.0, choice, rest: rest.unwrap_or(Span(REST)) })
            }
        }

        deserializer.deserialize_any(Any)
    }
}

/// Reads [`Events`].
struct Words;

impl<'de> Visitor<'de> for Words {
    type Value = Events;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("what happens to a container, such as `\"died\"`, or a list of these")
    }

    fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Events, E> {
        Happens::deserialize(StrDeserializer::new(word)).map(|event| Events(vec![event]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Events, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(list)).map(Events)
    }
}

impl<'de> Deserialize<'de> for Events {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words)
    }
}

impl JsonSchema for Events {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ContainerEvents".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let word = generator.subschema_for::<Happens>();
        schemars::json_schema!({ "anyOf": [word, { "type": "array", "items": word, "minItems": 1 }] })
    }
}

impl JsonSchema for On {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "On".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let (words, table) = (generator.subschema_for::<Events>(), generator.subschema_for::<Table>());
        schemars::json_schema!({ "anyOf": [words, table] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str) -> On {
        #[derive(Deserialize)]
        struct File {
            on: On,
        }
        toml::from_str::<File>(toml).unwrap().on
    }

    #[test]
    fn a_word_a_list_and_a_table_say_what_happens_to_which() {
        let none = BTreeMap::new();
        let any = read("on = 'container-died'");
        assert_eq!((&any.events[..], any.is_meant("x", &none)), (&[Happens::Died][..], true));
        assert_eq!(read("on = ['oom', 'container-unhealthy']").events, [Happens::Oom, Happens::Unhealthy]);
        let some = read("on = { event = ['died', 'oom'], containers = ['wiki-*'], exclude = ['wiki-b'], rest = '5m' }");
        let meant = ["wiki-a", "wiki-b", "blog"].map(|name| some.is_meant(name, &none));
        assert_eq!((meant, some.rest), ([true, false, false], Span::seconds(300)));
        assert_eq!(some.in_words(), "when wiki-* dies or is out of memory");
        let all_but = read("on = { event = 'started', exclude = ['db'] }");
        assert_eq!(["blog", "db"].map(|name| all_but.is_meant(name, &none)), [true, false]);
        assert_eq!(all_but.in_words(), "when a container is started");
    }

    #[test]
    fn what_could_never_start_it_is_refused_at_its_key() {
        for (toml, key) in [
            ("on = []", "on"),
            ("on = { event = 'died', containers = ['a b'] }", "on.containers[0]"),
            ("on = { event = 'died', label = ['=x'] }", "on.label[0]"),
            ("on = { event = 'died', rest = '0s' }", "on.rest"),
        ] {
            let keys: Vec<String> = read(toml).check().into_iter().map(|problem| problem.key).collect();
            assert_eq!(keys, [key], "{toml}");
        }
    }
}
