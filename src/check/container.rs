//! A container: that it runs, is healthy, and does not begin again and again. What it was killed for is said as well.
use std::{collections::VecDeque, time::Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{Looking, reach::Fail, verdict};
use crate::{
    docker::Container,
    model::watch::{State, Trouble, Verdict},
    text,
};

/// So often within [`WINDOW`] and it begins again and again.
const RESTARTS: u64 = 3;
/// How far back restarts are counted.
const WINDOW: TimeDelta = TimeDelta::minutes(10);
/// So many counts are remembered.
const MOST: usize = 30;

/// A container that is to run.
#[derive(Clone, Debug)]
pub struct Contained {
    /// Its name.
    pub name: String,
}

/// What earlier looks saw of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// The container then: another with its name begins anew.
    id: String,
    /// How often the engine had started it again, and when that was seen.
    restarts: VecDeque<(DateTime<Utc>, u64)>,
}

impl Contained {
    /// Asks the engine once.
    pub async fn look(&self, looking: &Looking) -> Verdict {
        let begun = Instant::now();
        let engine = match &looking.docker {
            Some(Ok(engine)) => engine,
            Some(Err(why)) => return verdict::failed(Fail::new(Trouble::NotAllowed, why.clone())),
            None => return verdict::failed(Fail::new(Trouble::NotAllowed, "there is no Docker engine to ask")),
        };
        let inspected = match engine.container(&self.name).await {
            Ok(inspected) => inspected,
            Err(error) if error.is_not_found() => {
                looking.past().containers.remove(&self.name);
                return verdict::failed(Fail::new(Trouble::Container, "there is no such container"));
            }
            Err(error) => return verdict::failed(Fail::new(Trouble::NotAllowed, error.to_string())),
        };
        let mut past = looking.past();
        let seen = past.containers.entry(self.name.clone()).or_default();
        let verdict = judge(&inspected, seen, looking.clock.now());
        Verdict { took: Some(begun.elapsed()), ..verdict }
    }
}

/// How it is, by what the engine says now and what earlier looks saw.
fn judge(container: &Container, seen: &mut Seen, now: DateTime<Utc>) -> Verdict {
    let state = &container.raw()["State"];
    let word = state["Status"].as_str().unwrap_or_default();
    let is = |key: &str| state[key].as_bool().unwrap_or_default();
    let restarts = seen.count(container, now);
    let time = |key: &str| {
        state[key].as_str().and_then(|time| DateTime::parse_from_rfc3339(time).ok()).map(|time| time.to_utc())
    };
    let ago = |key: &str| {
        time(key).filter(|at| at.timestamp() > 0).map_or_else(String::new, |at| format!(" {}", text::ago(at, now)))
    };
    let code = state["ExitCode"].as_i64().unwrap_or_default();
    let ending = || {
        let killed = is("OOMKilled").then_some(", killed for want of memory").or((code == 137).then_some(", killed"));
        let error = state["Error"].as_str().filter(|error| !error.is_empty());
        let error = error.map_or_else(String::new, |error| format!(": {}", super::condition::quoted(error)));
        format!("exit code {code}{}{error}", killed.unwrap_or_default())
    };
    let down = |told: String| verdict::failed(Fail::new(Trouble::Container, told));
    let loops = restarts >= RESTARTS;
    let again = || {
        format!(
            "it begins again and again: {restarts} times in {}",
            super::condition::long(WINDOW.to_std().unwrap_or_default())
        )
    };
    match word {
        "running" if loops => down(again()),
        "running" => match state["Health"]["Status"].as_str() {
            Some("unhealthy") => {
                let streak = state["Health"]["FailingStreak"].as_u64().unwrap_or_default();
                let last = state["Health"]["Log"].as_array().and_then(|log| log.last());
                let said = last.and_then(|last| last["Output"].as_str()).map(str::trim).filter(|said| !said.is_empty());
                let said = said.map_or_else(String::new, |said| format!(": {}", super::condition::quoted(said)));
                down(format!(
                    "it is unhealthy, {} failed{said}",
                    text::count(usize::try_from(streak).unwrap_or(usize::MAX), "health check")
                ))
            }
            health => {
                let health = match health {
                    Some("healthy") => ", healthy",
                    Some("starting") => ", its health is not known yet",
                    _ => "",
                };
                let oom = if is("OOMKilled") { "; a process in it was killed for want of memory" } else { "" };
                let what = format!("runs, started{}{health}{oom}", ago("StartedAt"));
                Verdict { state: State::Up, what, took: None, trouble: None, certificate: None, address: None }
            }
        },
        "restarting" if loops => down(format!("{} ({})", again(), ending())),
        "restarting" => down(format!("it has ended and is being started again ({})", ending())),
        "paused" => down("it is paused".to_owned()),
        "created" => down("it was never started".to_owned()),
        "exited" | "dead" | "stopped" => down(format!("it ended{} ({})", ago("FinishedAt"), ending())),
        word => down(format!("it is {}", super::condition::quoted(word))),
    }
}

impl Seen {
    /// How often it was started again within the window, as far as that was seen.
    fn count(&mut self, container: &Container, now: DateTime<Utc>) -> u64 {
        let count = container.raw()["RestartCount"].as_u64().unwrap_or_default();
        // The engine begins to count anew when somebody starts it.
        if self.id != container.id() || self.restarts.back().is_some_and(|(_, before)| *before > count) {
            *self = Self { id: container.id().to_owned(), restarts: VecDeque::new() };
        }
        // The last count from before the window is where it begins.
        while self.restarts.get(1).is_some_and(|(at, _)| now - *at >= WINDOW) || self.restarts.len() >= MOST {
            self.restarts.pop_front();
        }
        self.restarts.retain(|(at, _)| *at <= now);
        // Seen for the first time: what it did before is not known to be of late, unless it was created just now.
        if self.restarts.is_empty() {
            let created = container.raw()["Created"].as_str().and_then(|time| DateTime::parse_from_rfc3339(time).ok());
            let is_new = created.is_some_and(|created| now - created.to_utc() < WINDOW);
            self.restarts.push_back((now, if is_new { 0 } else { count }));
        }
        if self.restarts.back().is_none_or(|(_, before)| *before != count) {
            self.restarts.push_back((now, count));
        }
        count - self.restarts.front().map_or(count, |(_, first)| *first).min(count)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn container(state: serde_json::Value, restarts: u64) -> Container {
        let created = (now() - TimeDelta::days(30)).to_rfc3339();
        Container::of(json!({ "Id": "abc", "Created": created, "RestartCount": restarts, "State": state }))
    }

    #[test]
    fn each_state_is_told_with_what_it_died_of() {
        let started = (now() - TimeDelta::hours(3)).to_rfc3339();
        let ended = (now() - TimeDelta::minutes(5)).to_rfc3339();
        for (state, up, told) in [
            (json!({ "Status": "running", "StartedAt": started }), true, "runs, started 3 h ago"),
            (
                json!({ "Status": "running", "StartedAt": started, "Health": { "Status": "healthy" } }),
                true,
                "runs, started 3 h ago, healthy",
            ),
            (
                json!({ "Status": "running", "StartedAt": started, "OOMKilled": true }),
                true,
                "runs, started 3 h ago; a process in it was killed for want of memory",
            ),
            (
                json!({ "Status": "running", "Health": { "Status": "unhealthy", "FailingStreak": 4, "Log": [{ "Output": "no\n" }, { "Output": "curl: (7)\n" }] } }),
                false,
                "it is unhealthy, 4 health checks failed: \"curl: (7)\"",
            ),
            (
                json!({ "Status": "exited", "ExitCode": 137, "OOMKilled": true, "FinishedAt": ended }),
                false,
                "it ended 5 min ago (exit code 137, killed for want of memory)",
            ),
            (
                json!({ "Status": "exited", "ExitCode": 137, "FinishedAt": ended }),
                false,
                "it ended 5 min ago (exit code 137, killed)",
            ),
            (
                json!({ "Status": "exited", "ExitCode": 1, "FinishedAt": ended }),
                false,
                "it ended 5 min ago (exit code 1)",
            ),
            (
                json!({ "Status": "restarting", "ExitCode": 2 }),
                false,
                "it has ended and is being started again (exit code 2)",
            ),
            (json!({ "Status": "paused" }), false, "it is paused"),
            (json!({ "Status": "created" }), false, "it was never started"),
        ] {
            let verdict = judge(&container(state, 0), &mut Seen::default(), now());
            assert_eq!((verdict.state == State::Up, verdict.what.as_str()), (up, told));
            assert_eq!(verdict.trouble.is_none(), up);
        }
    }

    #[test]
    fn a_container_that_begins_again_and_again_is_not_up_though_it_runs() {
        let running = |restarts| container(json!({ "Status": "running" }), restarts);
        let mut seen = Seen::default();
        let at = |minutes| now() + TimeDelta::minutes(minutes);
        // It may have had its troubles long ago.
        assert_eq!(judge(&running(40), &mut seen, at(0)).state, State::Up);
        assert_eq!(judge(&running(42), &mut seen, at(1)).state, State::Up);
        let verdict = judge(&running(43), &mut seen, at(2));
        assert_eq!(
            (verdict.state, verdict.what.as_str()),
            (State::Down, "it begins again and again: 3 times in 10m 00s")
        );
        // When it has been quiet for long enough it is well again.
        assert_eq!(judge(&running(43), &mut seen, at(9)).state, State::Down);
        assert_eq!(judge(&running(43), &mut seen, at(13)).state, State::Up);
        // Somebody started it by hand: the engine counts anew.
        assert_eq!(judge(&running(0), &mut seen, at(14)).state, State::Up);
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Seen>(&text).unwrap(), seen);
    }
}
