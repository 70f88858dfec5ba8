//! `heartbeat`: somebody else must call us in time, and is silent when he is dead. A run looks at the calls that came.
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cx, Kind, KindEntry, Site, Summary};
use crate::{
    config::{
        mistake::Problem,
        secret::{SecretSource, TextOrSecret},
        units::Span,
    },
    model::{
        JobName,
        heartbeat::{Call, HEARD, Heard, Signal},
        watch::{Checked, Rules, State, Trouble, Verdict},
    },
    policy::MissedPolicy,
    schedule::Schedule,
    text,
};

/// This kind's line in the table.
pub const ENTRY: KindEntry = KindEntry {
    name: "heartbeat",
    summary: "Waits for something elsewhere to call in time, and tells when it is silent",
    example: include_str!("../../jobs/heartbeat.toml"),
    parse: super::read::<Heartbeat>,
    schema: Heartbeat::json_schema,
    missed: MissedPolicy::Skip,
    class: "watch",
    timeout: Some(Span::seconds(60)),
};

/// The fact that tells since when calls are waited for.
const SINCE: &str = "since";
/// A key that is shorter can be guessed.
const SHORTEST_KEY: usize = 16;

/// Something that calls.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    /// The secret part of the address that is called: `/ping/KEY`, or `/ping/KEY/JOB` where several jobs have one key.
    pub ping_key: TextOrSecret,
    /// It calls at least this often.
    #[serde(default)]
    pub every: Option<Span>,
    /// Or at these times, as in `15 3 * * *`, in the settings' time zone.
    #[serde(default)]
    pub expected: Option<String>,
    /// It may be so late, and take so long from its `/start` to its end [default: 5m].
    #[serde(default)]
    pub patience: Option<Span>,
    /// What it is called [default: the job's name].
    #[serde(default)]
    pub label: Option<String>,
    /// A reminder after each such time while it is silent [default: never].
    #[serde(default)]
    pub remind: Option<Span>,
}

#[async_trait]
impl Kind for Heartbeat {
    fn check(&self, site: &Site) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let TextOrSecret::Text(key) = &self.ping_key
            && key.len() < SHORTEST_KEY
        {
            let message = format!("a key of {} letters can be guessed", key.len());
            problems.push(Problem::new("ping_key", message).hint("make one with `uuidgen` or `openssl rand -hex 16`"));
        }
        match (self.every, &self.expected) {
            (None, None) => problems.push(
                Problem::new("", "it is not said when the calls come")
                    .hint("add `every = \"1h\"`, or `expected = \"15 3 * * *\"`"),
            ),
            (Some(_), Some(_)) => {
                let message = "`every` and `expected` are both given";
                problems.push(Problem::new("expected", message).hint("keep one of the two"));
            }
            (Some(every), None) if every.0 < Duration::from_secs(1) => {
                problems.push(Problem::new("every", "nobody calls that often").hint("such as `1h`"));
            }
            _ => {}
        }
        if let (Some(line), Some(job)) = (&self.expected, &site.job)
            && let Err(wrong) = Schedule::parse(line, chrono_tz::UTC, job)
        {
            problems.push(Problem { hint: wrong.hint, ..Problem::new("expected", wrong.message) });
        }
        problems
    }

    fn secrets(&self) -> Vec<SecretSource> {
        self.ping_key.secret().cloned().into_iter().collect()
    }

    fn ping_key(&self) -> Option<&TextOrSecret> {
        Some(&self.ping_key)
    }

    fn watches(&self) -> Vec<(String, Rules)> {
        // Its label may be the job's name, which it does not know here; nobody looks at it again for a container's sake.
        self.label.iter().map(|label| (label.clone(), self.rules())).collect()
    }

    async fn run(&self, cx: &Cx) -> anyhow::Result<Summary> {
        let now = cx.clock.now();
        let mut heard: Heard = match cx.record.fact(HEARD).await? {
            Some(heard) => serde_json::from_value(heard).context("read the calls so far")?,
            None => Heard::default(),
        };
        // Beside the calls, which others write.
        let since = match cx.record.fact(SINCE).await? {
            Some(since) => serde_json::from_value(since).context("read since when it waits")?,
            None => {
                cx.record.remember(SINCE, serde_json::to_value(now)?).await?;
                now
            }
        };
        heard.since = Some(heard.since.map_or(since, |heard| heard.min(since)));
        let verdict = self.verdict(&heard, cx.services.time_zone, &cx.job, now)?;
        let said = format!("{}: {}", self.label(&cx.job), verdict.what);
        let checked = Checked { check: self.label(&cx.job), at: now, verdict, rules: self.rules() };
        for line in cx.record.checked(vec![checked]).await? {
            cx.info(line);
        }
        Ok(said)
    }
}

impl Heartbeat {
    fn label(&self, job: &JobName) -> String {
        self.label.clone().unwrap_or_else(|| job.to_string())
    }

    fn rules(&self) -> Rules {
        let remind = self.remind.map(|remind| remind.0);
        Rules { failures: 1, successes: 1, remind, parent: None, container: None, host: None }
    }

    /// When the next call is due after this one.
    fn due(&self, after: DateTime<Utc>, zone: chrono_tz::Tz, job: &JobName) -> anyhow::Result<Option<DateTime<Utc>>> {
        if let Some(every) = self.every {
            return Ok(TimeDelta::from_std(every.0).ok().and_then(|every| after.checked_add_signed(every)));
        }
        let line = self.expected.as_deref().unwrap_or_default();
        let schedule = Schedule::parse(line, zone, job).map_err(|wrong| anyhow::anyhow!(wrong.message))?;
        Ok(schedule.next_after(after))
    }

    /// What the calls so far say at this moment.
    fn verdict(
        &self,
        heard: &Heard,
        zone: chrono_tz::Tz,
        job: &JobName,
        now: DateTime<Utc>,
    ) -> anyhow::Result<Verdict> {
        let patience = TimeDelta::from_std(self.patience.unwrap_or(Span::seconds(300)).0).unwrap_or(TimeDelta::MAX);
        let last_ended = heard.success.iter().chain(&heard.failure).max_by_key(|call| call.at);
        let since = last_ended.map(|call| call.at).or(heard.since).unwrap_or(now);
        let due = self.due(since, zone, job)?;
        let is_late = |due: DateTime<Utc>| due.checked_add_signed(patience).is_some_and(|latest| now > latest);
        let took = heard.took.map(Duration::from_millis);
        let down = |what: String| verdict(State::Down, what, took, Some(Trouble::Silent));
        if let Some(begun) = &heard.begun
            && now - begun.at > patience
            && last_ended.is_none_or(|ended| ended.at < begun.at)
        {
            return Ok(down(format!("it began {} and has not ended", text::ago(begun.at, now))));
        }
        if let Some(due) = due.filter(|due| is_late(*due)) {
            let last = match last_ended {
                Some(call) => format!("the last call came {}", text::ago(call.at, now)),
                None => "it has never called".to_owned(),
            };
            return Ok(down(format!("silent: a call was due {}, {last}", text::ago(due, now))));
        }
        Ok(match last_ended {
            None => {
                let what = match &heard.begun {
                    Some(begun) => format!("it began {}, for the first time", text::ago(begun.at, now)),
                    None => "it has not called yet".to_owned(),
                };
                verdict(State::Unknown, what, None, None)
            }
            Some(call) if !call.signal.is_success() => down(failed(call, now)),
            Some(call) => verdict(State::Up, format!("called {}", text::ago(call.at, now)), took, None),
        })
    }
}

fn verdict(state: State, what: String, took: Option<Duration>, trouble: Option<Trouble>) -> Verdict {
    Verdict { state, what, took, trouble, certificate: None, address: None }
}

fn failed(call: &Call, now: DateTime<Utc>) -> String {
    let how = match call.signal {
        Signal::Exit(status) => format!("it ended with status {status}"),
        _ => "it said that it failed".to_owned(),
    };
    let last = call.said.lines().map(str::trim).rfind(|line| !line.is_empty());
    let last = last.map(|line| format!(": {}", line.chars().take(200).collect::<String>())).unwrap_or_default();
    format!("{how}, {}{last}", text::ago(call.at, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_046_400 + 60 * minute, 0).unwrap()
    }

    /// What is said at each of these minutes, after these calls.
    fn said(keys: &str, calls: &[(i64, Signal, Option<&str>)], minute: i64) -> String {
        let keys = format!("ping_key = \"0123456789abcdef\"\n{keys}");
        let heartbeat = Heartbeat::deserialize(toml::Deserializer::parse(&keys).unwrap()).unwrap();
        let mut heard = Heard { since: Some(at(0)), ..Heard::default() };
        for (minute, signal, run) in calls {
            heard.hear(Call::new(at(*minute), *signal, *run, b"disk full\n"));
        }
        let verdict = heartbeat.verdict(&heard, chrono_tz::UTC, &"backup".parse().unwrap(), at(minute)).unwrap();
        format!("{}: {}", verdict.state, verdict.what)
    }

    #[test]
    fn who_does_not_call_in_time_is_down_and_who_never_called_is_not_well() {
        let hourly = "every = \"1h\"\npatience = \"10m\"";
        use Signal::{Exit, Fail, Log, Start, Success};
        for (calls, minute, expected) in [
            (vec![], 1, "unknown: it has not called yet"),
            (vec![], 71, "down: silent: a call was due 11 min ago, it has never called"),
            (vec![(5, Success, None)], 74, "up: called 69 min ago"),
            (vec![(5, Success, None)], 76, "down: silent: a call was due 11 min ago, the last call came 71 min ago"),
            (vec![(5, Success, None), (6, Fail, None)], 8, "down: it said that it failed, 2 min ago: disk full"),
            (vec![(5, Exit(3), None)], 8, "down: it ended with status 3, 3 min ago: disk full"),
            (vec![(5, Exit(3), None), (6, Exit(0), None)], 8, "up: called 2 min ago"),
            (vec![(5, Success, None), (6, Log, None)], 8, "up: called 3 min ago"),
            (vec![(5, Success, None), (20, Start, Some("a"))], 29, "up: called 24 min ago"),
            (vec![(5, Success, None), (20, Start, Some("a"))], 31, "down: it began 11 min ago and has not ended"),
            (vec![(20, Start, Some("a")), (25, Success, Some("a"))], 31, "up: called 6 min ago"),
        ] {
            assert_eq!(said(hourly, &calls, minute), expected, "{calls:?}");
        }
        // At 10:00 each day; the test begins at 00:00.
        let daily = "expected = \"0 10 * * *\"";
        assert_eq!(said(daily, &[(590, Success, None)], 604), "up: called 14 min ago");
        assert!(said(daily, &[(590, Success, None)], 606).starts_with("down: silent: a call was due 6 min ago"));
    }

    #[test]
    fn the_end_of_one_run_says_nothing_of_another_that_goes_on() {
        let mut heard = Heard::default();
        heard.hear(Call::new(at(0), Signal::Start, Some("a"), b""));
        heard.hear(Call::new(at(1), Signal::Success, Some("b"), b""));
        assert!(heard.begun.is_some() && heard.took.is_none());
        heard.hear(Call::new(at(2), Signal::Success, Some("a"), b""));
        assert!(heard.begun.is_none());
        assert_eq!(heard.took, Some(120_000));
    }
}
