//! `[watch]`, `[[maintenance]]` and `[web]` of `rusuban.toml`.
use std::{net::SocketAddr, time::Duration};

use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{mistake::Problem, settings::zone, units::Span};
use crate::{
    schedule::Schedule,
    watch::{WatchSettings, Window},
};

/// What stands for the router of the house.
const GATEWAY: &str = "gateway";

/// How checks are looked at.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WatchKeys {
    /// What is asked before anything far away is called down: when none of them answers, our own line is [default: ["gateway",
    /// "1.1.1.1:53", "9.9.9.9:53"]]. Empty: nothing is asked.
    pub line: Option<Vec<String>>,
    /// What a site has to come back after a job stopped or paused its container; later, that job has failed [default: 60s].
    pub back_within: Option<Span>,
}

/// What others reach through the network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct WebKeys {
    /// The address and port at which heartbeats call, such as `127.0.0.1:8420`; nobody can call while it is absent.
    pub listen: Option<String>,
}

/// Where others may call; tells what is wrong.
pub(super) fn listen(keys: &WebKeys, problems: &mut Vec<Problem>) -> Option<SocketAddr> {
    let listen = keys.listen.as_deref()?;
    let parsed = listen.parse();
    if parsed.is_err() {
        problems.push(Problem::new("web.listen", format!("`{listen}` is no address to listen at")).hint(
            "write an address and a port such as `127.0.0.1:8420`, or `0.0.0.0:8420` for all who can reach this host",
        ));
    }
    parsed.ok()
}

/// A time that comes again, in which checks are worked on and not told of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// When it begins, as in `0 3 * * 0`.
    pub schedule: String,
    /// How long it lasts.
    pub lasts: Span,
    /// The schedule's time zone [default: the settings'].
    #[serde(default)]
    pub time_zone: Option<String>,
    /// Labels of checks, names of jobs or of containers [default: all].
    #[serde(default)]
    pub checks: Vec<String>,
}

/// Fills in the defaults; tells what is wrong.
pub(super) fn settings(
    keys: WatchKeys,
    windows: Vec<Maintenance>,
    time_zone: Tz,
    problems: &mut Vec<Problem>,
) -> WatchSettings {
    let line = keys.line.unwrap_or_else(|| [GATEWAY, "1.1.1.1:53", "9.9.9.9:53"].map(str::to_owned).to_vec());
    for (index, one) in line.iter().enumerate() {
        if one != GATEWAY && one.parse::<SocketAddr>().is_err() {
            let message = format!("`{one}` is no address that can be asked");
            problems.push(
                Problem::new(format!("watch.line[{index}]"), message)
                    .hint("write `gateway`, or an address and a port such as `1.1.1.1:53`"),
            );
        }
    }
    let windows = windows.iter().enumerate().filter_map(|(index, one)| window(index, one, time_zone, problems));
    let windows = windows.collect();
    WatchSettings { line, back_within: keys.back_within.map_or(Duration::from_secs(60), |span| span.0), windows }
}

fn window(index: usize, one: &Maintenance, time_zone: Tz, problems: &mut Vec<Problem>) -> Option<Window> {
    let key = |name: &str| format!("maintenance[{index}].{name}");
    let zone = match one.time_zone.as_deref().map(zone) {
        None => time_zone,
        Some(Ok(zone)) => zone,
        Some(Err(problem)) => {
            problems.push(Problem { key: key("time_zone"), ..problem });
            return None;
        }
    };
    if one.lasts.0.is_zero() {
        problems.push(Problem::new(key("lasts"), "nothing is done in no time").hint("such as `2h`"));
    }
    // No window has a job's name, so `H` is drawn from none.
    let job = GATEWAY.parse().ok()?;
    match Schedule::parse(&one.schedule, zone, &job) {
        Ok(schedule) if schedule.is_startup() => {
            let message = "a window comes at a time, not when Rusuban starts";
            problems.push(Problem::new(key("schedule"), message).hint("such as `0 3 * * 0`"));
            None
        }
        Ok(schedule) => Some(Window { schedule, lasts: one.lasts.0, checks: one.checks.clone() }),
        Err(wrong) => {
            problems.push(Problem { hint: wrong.hint, ..Problem::new(key("schedule"), wrong.message) });
            None
        }
    }
}
