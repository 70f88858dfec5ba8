//! How a job is run: the common keys of a job file as values, each with its default.
use std::{fmt, num::NonZeroU32};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{SeqAccess, Visitor, value::SeqAccessDeserializer},
};

use crate::config::units::Span;

/// How a job is run: the common keys of a job file, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Policies {
    /// Each start is put off by a random time up to this, drawn anew for each slot from the slot itself.
    pub jitter: Span,
    /// What becomes of slots that went by unseen.
    pub missed: MissedPolicy,
    /// Slots older than this are never made up for.
    pub missed_window: Span,
    /// What becomes of a slot that comes while an earlier run goes on.
    pub overlap: Overlap,
    /// A failed run is tried again.
    pub retry: Retry,
    /// Asked to stop after this long (each attempt).
    pub timeout: Option<Span>,
    /// Killed when it has not stopped this long after it was asked to.
    pub grace: Span,
    /// What becomes of a run that a crash of Rusuban cut off.
    pub on_crash: OnCrash,
    /// Names of things that no two runs touch at once, beside those the kind knows of.
    pub locks: Vec<String>,
    /// The class whose limit it counts against.
    pub class: String,
    /// Commands before and after.
    pub hooks: Hooks,
    /// How much of its history is kept.
    pub history: History,
}

/// What becomes of slots that went by unseen: while Rusuban was off, the machine slept, the clock was set, or the job was paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissedPolicy {
    /// One run, for the newest of them.
    Latest,
    /// None.
    Skip,
    /// A run for each of the newest so many, one after the other.
    All(NonZeroU32),
}

/// What becomes of a slot that comes while an earlier run of the job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It is skipped, and says so.
    Skip,
    /// It waits its turn; at most ten wait.
    Queue,
    /// The earlier run is asked to stop, then this one starts.
    CancelPrevious,
    /// Both run.
    Allow,
}

/// A failed run is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Tries in all; 1: none again.
    pub attempts: NonZeroU32,
    /// The wait before the second try; doubled for each further one, give or take a tenth.
    pub delay: Span,
    /// The longest wait.
    pub max_delay: Span,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: NonZeroU32::MIN, delay: Span::seconds(30), max_delay: Span::seconds(15 * 60) }
    }
}

/// What becomes of a run that a crash of Rusuban cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnCrash {
    /// It is `interrupted`.
    Fail,
    /// It is `interrupted`, and run again at the next start.
    Rerun,
}

/// Commands before and after the work. The run's outcome is in their environment: RUSUBAN_JOB, RUSUBAN_RUN,
/// and after it RUSUBAN_OUTCOME and RUSUBAN_MESSAGE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Run before the work; when it fails, the run fails without beginning. Then `after` is still run.
    pub before: Option<CommandLine>,
    /// Run after the work, whatever came of it, even at the next start after a crash.
    pub after: Option<CommandLine>,
}

/// A command: a line for the shell, or a list of arguments for no shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandLine {
    /// `sh -c` gets it.
    Shell(String),
    /// The program and its arguments.
    Arguments(Vec<String>),
}

/// How much of a job's history is kept: runs beyond either limit go, but never the newest success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct History {
    /// At most so many runs.
    pub runs: NonZeroU32,
    /// At most so old.
    pub age: Span,
}

impl Default for History {
    fn default() -> Self {
        Self { runs: NonZeroU32::new(1000).unwrap_or(NonZeroU32::MAX), age: Span::hours(400 * 24) }
    }
}

impl CommandLine {
    /// The program and its arguments.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        match self {
            Self::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
            Self::Arguments(arguments) => arguments.clone(),
        }
    }
}

impl Serialize for CommandLine {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Shell(line) => line.serialize(serializer),
            Self::Arguments(arguments) => arguments.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LineOrList;

        impl<'de> Visitor<'de> for LineOrList {
            type Value = CommandLine;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a command line in quotes, or a list of arguments")
            }

            fn visit_str<E: serde::de::Error>(self, line: &str) -> Result<CommandLine, E> {
                if line.trim().is_empty() {
                    return Err(E::custom("the command is empty"));
                }
                Ok(CommandLine::Shell(line.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<CommandLine, A::Error> {
                let arguments = Vec::<String>::deserialize(SeqAccessDeserializer::new(list))?;
                if arguments.first().is_none_or(|program| program.is_empty()) {
                    return Err(serde::de::Error::custom("the command is empty"));
                }
                Ok(CommandLine::Arguments(arguments))
            }
        }

        deserializer.deserialize_any(LineOrList)
    }
}

impl JsonSchema for CommandLine {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "CommandLine".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [{ "type": "string", "minLength": 1 }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }]
        })
    }
}
