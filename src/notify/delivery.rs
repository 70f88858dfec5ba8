//! `[notify]` in `rusuban.toml`: how news reach people, whatever the line does.
use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plan;
use crate::config::{
    mistake::Problem,
    secret::{SecretSource, TextOrSecret},
    units::Span,
};

/// How news reach people.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DeliverySettings {
    /// News that come within this time of each other are told together, and none earlier than that [default: 30s].
    pub group: Span,
    /// Who is told when a notifier refuses, the best first [default: all others, by name].
    pub instead: Option<Vec<String>>,
    /// What could not be told for so long is given up, and that is told [default: 14d].
    pub expire: Span,
    /// Where it is written what could not be told; relative to the home folder [default: untold.log in the data folder].
    pub last_resort: Option<PathBuf>,
    /// It is written there after so long, or at once when every notifier refuses [default: 6h].
    pub last_resort_after: Span,
    /// Somebody outside who is called while all is well, and who tells you when the calls stop.
    #[serde(skip_serializing)]
    pub alive: Option<Alive>,
    /// A trial message to every notifier, on Mondays at nine [default: never].
    pub self_test: Option<SelfTest>,
}

/// A call to somebody outside, while the scheduler, the ledger and the delivery are well.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alive {
    /// Where to: the address of a check at healthchecks.io or your own, of a push monitor, and the like.
    pub url: TextOrSecret,
    /// How often [default: 5m].
    #[serde(default = "five_minutes")]
    pub every: Span,
}

/// How often every notifier is tried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SelfTest {
    /// Once a week.
    Weekly,
}

fn five_minutes() -> Span {
    Span::seconds(300)
}

impl Default for DeliverySettings {
    fn default() -> Self {
        Self {
            group: Span(plan::GROUP),
            instead: None,
            expire: Span::hours(14 * 24),
            last_resort: None,
            last_resort_after: Span::hours(6),
            alive: None,
            self_test: None,
        }
    }
}

impl DeliverySettings {
    /// What is wrong with these settings, by their keys.
    #[must_use]
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.group > Span::seconds(600) {
            let hint = "news wait for this long: write a time such as `30s`";
            problems.push(Problem::new("notify.group", "whoever is to be told would hear too late").hint(hint));
        }
        if self.expire < Span::hours(1) {
            let hint = "write a time such as `14d`: news that wait cost nothing";
            problems.push(Problem::new("notify.expire", "a line is down for longer than that").hint(hint));
        }
        if let Some(alive) = &self.alive {
            if alive.every < Span::seconds(10) {
                let hint = "write a time such as `5m`";
                problems.push(Problem::new("notify.alive.every", "no service wants to be called so often").hint(hint));
            }
            if let TextOrSecret::Text(url) = &alive.url
                && !url.starts_with("https://")
                && !url.starts_with("http://")
            {
                let hint = "write it as in `https://hc-ping.com/UUID`";
                problems.push(Problem::new("notify.alive.url", "this is no web address").hint(hint));
            }
        }
        problems
    }

    /// The secrets in it.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        self.alive.iter().filter_map(|alive| alive.url.secret())
    }

    /// So long after its time a row is written to the last-resort file.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.last_resort_after.0
    }
}
