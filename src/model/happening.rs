//! What happens to containers, as what a run was started by.
use std::fmt;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What may happen to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Happens {
    /// It ended by itself, with a status other than 0. One that somebody stopped did not die.
    #[serde(alias = "container-died")]
    Died,
    /// Its health check says that it is not well.
    #[serde(alias = "container-unhealthy")]
    Unhealthy,
    /// It asked for more memory than it may have, and a process of it was killed for that.
    #[serde(alias = "container-oom")]
    Oom,
    /// It was started.
    #[serde(alias = "container-started")]
    Started,
}

impl Happens {
    /// The word used in TOML and JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Died => "died",
            Self::Unhealthy => "unhealthy",
            Self::Oom => "oom",
            Self::Started => "started",
        }
    }
}

/// Something that happened to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// What.
    pub event: Happens,
    /// The container's name.
    pub container: String,
    /// Its 64 hexadecimal digits.
    pub id: String,
    /// With which status it ended, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<i64>,
    /// It had no memory left when it ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out_of_memory: bool,
    /// Nobody looked when it happened: it was found afterwards, so how is known only as far as the container still shows it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
    /// When it happened or, of a late one, when it was found.
    pub at: DateTime<Utc>,
}

/// Why a run was started by containers: one thing that happened, and what came with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Because {
    /// What happened; of several, the first.
    #[serde(flatten)]
    pub happening: Happening,
    /// Containers to which something of the kind happened at the same time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// So many more times it has happened to the container since the last run that it started.
    #[serde(default, skip_serializing_if = "is_none")]
    pub held_back: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

impl fmt::Display for Happening {
    /// As the end of "started because …".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container, .. } = self;
        match self.event {
            Happens::Died => {
                write!(f, "the container {container} died")?;
                let memory = if self.out_of_memory { "out of memory" } else { "" };
                match (self.status, memory) {
                    (Some(status), "") => write!(f, " (status {status})")?,
                    (Some(status), memory) => write!(f, " (status {status}, {memory})")?,
                    (None, "") => {}
                    (None, memory) => write!(f, " ({memory})")?,
                }
            }
            Happens::Unhealthy => write!(f, "the container {container} is unhealthy")?,
            Happens::Oom => write!(f, "the container {container} was out of memory")?,
            Happens::Started => write!(f, "the container {container} was started")?,
        }
        f.write_str(if self.late { ", while nobody looked" } else { "" })
    }
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.happening)?;
        if !self.others.is_empty() {
            write!(f, "; so for {}", self.others.join(", "))?;
        }
        match self.held_back {
            0 => Ok(()),
            1 => f.write_str("; once more since the last run that it started"),
            more => write!(f, "; {more} more times since the last run that it started"),
        }
    }
}

impl Because {
    /// The same for a command of the owner's: variables and their values.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let Happening { event, container, id, status, out_of_memory, late, .. } = &self.happening;
        let all: Vec<&str> = std::iter::once(container).chain(&self.others).map(String::as_str).collect();
        let mut variables = vec![
            ("RUSUBAN_EVENT", event.word().to_owned()),
            ("RUSUBAN_CONTAINER", container.clone()),
            ("RUSUBAN_CONTAINER_ID", id.clone()),
            ("RUSUBAN_CONTAINERS", all.join(" ")),
            ("RUSUBAN_REASON", self.to_string()),
            ("RUSUBAN_OUT_OF_MEMORY", (*out_of_memory || *event == Happens::Oom).to_string()),
            ("RUSUBAN_LATE", late.to_string()),
        ];
        variables.extend(status.map(|status| ("RUSUBAN_EXIT_CODE", status.to_string())));
        variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_said_so_that_a_person_knows_what_to_look_at() {
        let died = Happening {
            event: Happens::Died,
            container: "blog".into(),
            id: "1".into(),
            status: Some(137),
            out_of_memory: true,
            late: false,
            at: DateTime::UNIX_EPOCH,
        };
        let mut because = Because { happening: died, others: Vec::new(), held_back: 0 };
        assert_eq!(because.to_string(), "the container blog died (status 137, out of memory)");
        because.others = vec!["db".into(), "web".into()];
        because.held_back = 3;
        because.happening.late = true;
        let said = "the container blog died (status 137, out of memory), while nobody looked; so for db, web; \
                    3 more times since the last run that it started";
        assert_eq!(because.to_string(), said);
        let back: Because = serde_json::from_str(&serde_json::to_string(&because).unwrap()).unwrap();
        assert_eq!(back, because);
        let variables = because.environment();
        for expected in [("RUSUBAN_CONTAINERS", "blog db web"), ("RUSUBAN_EXIT_CODE", "137"), ("RUSUBAN_EVENT", "died")]
        {
            assert!(variables.iter().any(|(name, value)| (name.as_str(), value.as_str()) == expected), "{expected:?}");
        }
    }
}
