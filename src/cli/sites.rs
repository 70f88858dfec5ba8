//! `rusuban sites`, `rusuban incidents`, `rusuban maintenance`: how sites are, how they were, and that they are being worked on.
use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::{Context, Exit, Told, paint};
use crate::{
    config::{Config, mistake::suggest, units::Span},
    model::watch::State,
    store::{CheckRow, Incident, Store},
    text,
    watch::{ALL, Look, Summary, percent},
};

/// Checks that nobody has looked at for so long are not shown unless they are asked for.
const FORGOTTEN: TimeDelta = TimeDelta::days(30);
/// The spans that are shown of one check.
const SPANS: [(&str, i64); 5] = [("hour", 1), ("day", 24), ("week", 7 * 24), ("30 days", 30 * 24), ("year", 365 * 24)];

/// How a check is now: what nobody has looked at for long is not known.
fn now_is(check: &CheckRow, last: Option<&Look>, now: DateTime<Utc>) -> (State, DateTime<Utc>) {
    let known = &check.known;
    let seen = last.map_or(known.last, |look| look.at.max(known.last));
    match known.unseen_after() {
        Some(unseen) if now > unseen.max(seen + (unseen - known.last)) => (State::Unknown, seen),
        _ => (known.state, known.since),
    }
}

/// All checks, one a line; of one, its history.
pub(super) async fn list(context: &mut Context<'_>, name: Option<&str>) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let Some(store) = context.ledger(&config).await? else { return nothing(context) };
    let (now, all) = (context.clock.now(), store.checks().await?);
    if let Some(name) = name {
        let chosen: Vec<&CheckRow> = all.iter().filter(|check| check.check == name || check.job == name).collect();
        return match chosen.as_slice() {
            [] => context
                .missing(&format!("there is no site `{name}`; {}", suggest(name, &labels(&all), "the sites are"))),
            [only] => show(context, &config, &store, only).await,
            several => rows(context, &store, several, now).await,
        };
    }
    let recent: Vec<&CheckRow> = all.iter().filter(|check| now - check.known.last < FORGOTTEN).collect();
    if recent.is_empty() {
        return nothing(context);
    }
    rows(context, &store, &recent, now).await
}

fn nothing(context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let none = "no site has been looked at yet; `rusuban kinds site-check` shows how";
    writeln!(context.out, "{}", if context.json { "[]" } else { none })?;
    Ok(Exit::Fine)
}

fn labels(all: &[CheckRow]) -> Vec<&str> {
    all.iter().map(|check| check.check.as_str()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// What a span came to, by hours back.
async fn summary(store: &Store, check: &CheckRow, hours: i64, now: DateTime<Utc>) -> anyhow::Result<Summary> {
    store.summary(check.id, now - TimeDelta::hours(hours)..now).await
}

async fn rows(
    context: &mut Context<'_>,
    store: &Store,
    checks: &[&CheckRow],
    now: DateTime<Utc>,
) -> anyhow::Result<Exit> {
    let last = store.last_looks().await?;
    let mut found = Vec::new();
    for check in checks {
        let (day, month) = (summary(store, check, 24, now).await?, summary(store, check, 30 * 24, now).await?);
        let look = last.get(&check.id);
        let (state, since) = now_is(check, look, now);
        found.push((check, state, since, look, day, month));
    }
    if context.json {
        let rows: Vec<_> = found
            .iter()
            .map(|(check, state, since, look, day, month)| {
                json!({
                    "job": check.job, "check": check.check, "state": state, "since": since, "what": check.known.what,
                    "incident": check.known.incident.map(|open| open.id),
                    "last_look": look.map(|look| look.at), "milliseconds": look.and_then(|look| look.took).map(millis),
                    "availability_24h": day.availability(), "availability_30d": month.availability(),
                    "p95_milliseconds_24h": day.answers.quantile(0.95).map(millis),
                    "certificate_ends": check.known.certificate_ends,
                })
            })
            .collect();
        writeln!(context.out, "{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(Exit::Fine);
    }
    let mut table = text::Table::new(["site", "state", "since", "last answer", "24 h", "30 d", "p95"]);
    for (check, state, since, look, day, month) in &found {
        let answer = match (state, look.and_then(|look| look.took)) {
            (State::Up, Some(took)) => answer_time(took),
            (State::Up, None) => String::new(),
            (State::Unknown, _) if *state != check.known.state => format!("not looked at {}", text::ago(*since, now)),
            _ => short(&check.known.what),
        };
        table.row([
            check.check.clone(),
            painted(*state),
            text::ago(*since, now),
            answer,
            share(day.availability()),
            share(month.availability()),
            day.answers.quantile(0.95).map_or_else(String::new, answer_time),
        ]);
    }
    write!(context.out, "{table}")?;
    Ok(Exit::Fine)
}

/// One check: how it is, how it was, its incidents, its last looks.
async fn show(context: &mut Context<'_>, config: &Config, store: &Store, check: &CheckRow) -> anyhow::Result<Exit> {
    let now = context.clock.now();
    let looks = store.looks(check.id, 10).await?;
    let (state, since) = now_is(check, looks.first(), now);
    let incidents = store.incidents(Some(check.id), false, 10).await?;
    let mut spans = Vec::new();
    for (name, hours) in SPANS {
        spans.push((name, summary(store, check, hours, now).await?));
    }
    if context.json {
        let of = |(name, summary): &(&str, Summary)| {
            json!({
                "span": name, "availability": summary.availability(), "success": summary.success(),
                "looks": summary.looks(State::Up) + summary.looks(State::CertificateBad) + summary.looks(State::Down),
                "seconds": json!({
                    "up": summary.time(State::Up).as_secs(), "certificate_bad": summary.time(State::CertificateBad).as_secs(),
                    "down": summary.time(State::Down).as_secs(), "unknown": summary.time(State::Unknown).as_secs(),
                    "maintenance": summary.time(State::Maintenance).as_secs(),
                }),
                "p50": quantile(summary, 0.5), "p90": quantile(summary, 0.9),
                "p95": quantile(summary, 0.95), "p99": quantile(summary, 0.99),
            })
        };
        let all = json!({
            "job": check.job, "check": check.check, "state": state, "since": since, "what": check.known.what,
            "history": spans.iter().map(of).collect::<Vec<_>>(), "incidents": incidents, "looks": looks,
        });
        writeln!(context.out, "{}", serde_json::to_string_pretty(&all)?)?;
        return Ok(Exit::Fine);
    }
    let zone = config.settings.time_zone;
    writeln!(context.out, "{} of the job {}", check.check, check.job)?;
    writeln!(context.out, "{} since {} ({})", painted(state), text::moment(since, zone), text::ago(since, now))?;
    if !check.known.what.is_empty() {
        writeln!(context.out, "{}", check.known.what)?;
    }
    if let Some(ends) = check.known.certificate_ends {
        writeln!(context.out, "its certificate ends {} ({})", text::moment(ends, zone), text::ago(ends, now))?;
    }
    let mut table = text::Table::new([
        "the last",
        "available",
        "looks well",
        "down",
        "unknown",
        "worked on",
        "p50",
        "p90",
        "p95",
        "p99",
    ]);
    let time = |time: std::time::Duration| if time.is_zero() { "-".to_owned() } else { text::duration(time) };
    for (name, summary) in &spans {
        let p = |share| summary.answers.quantile(share).map_or_else(|| "-".to_owned(), answer_time);
        table.row([
            (*name).to_owned(),
            share(summary.availability()),
            share(summary.success()),
            time(summary.time(State::Down)),
            time(summary.time(State::Unknown)),
            time(summary.time(State::Maintenance)),
            p(0.5),
            p(0.9),
            p(0.95),
            p(0.99),
        ]);
    }
    writeln!(context.out)?;
    write!(context.out, "{table}")?;
    if !incidents.is_empty() {
        writeln!(context.out, "\nincidents")?;
        write_incidents(context, config, &incidents, false)?;
    }
    let mut table = text::Table::new(["last looks", "", "took"]);
    for look in &looks {
        let took = look.took.map_or_else(String::new, answer_time);
        table.row([text::moment(look.at, zone), painted(look.state), took]);
    }
    writeln!(context.out)?;
    write!(context.out, "{table}")?;
    Ok(Exit::Fine)
}

/// Incidents, the newest first.
pub(super) async fn incidents(context: &mut Context<'_>, open: bool, count: u32) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let found = match context.ledger(&config).await? {
        Some(store) => store.incidents(None, open, count).await?,
        None => Vec::new(),
    };
    if context.json {
        writeln!(context.out, "{}", serde_json::to_string_pretty(&found)?)?;
        return Ok(Exit::Fine);
    }
    if found.is_empty() {
        writeln!(context.out, "{}", if open { "no incident goes on" } else { "there has been no incident yet" })?;
        return Ok(Exit::Fine);
    }
    write_incidents(context, &config, &found, true)?;
    Ok(Exit::Fine)
}

fn write_incidents(
    context: &mut Context<'_>,
    config: &Config,
    incidents: &[Incident],
    with_site: bool,
) -> anyhow::Result<()> {
    let (zone, now) = (config.settings.time_zone, context.clock.now());
    for one in incidents {
        let site = if with_site { format!("{}  ", one.check) } else { String::new() };
        let how = match one.ended {
            Some(ended) => format!("for {}", text::duration((ended - one.began).to_std().unwrap_or_default())),
            None => paint::bad(&format!("since {}", text::ago(one.began, now))),
        };
        let flaps = if one.flaps { ", came and went" } else { "" };
        let told = if one.told.is_none() { paint::faint(", not told") } else { String::new() };
        writeln!(
            context.out,
            "{} {}  {site}{} {how}{flaps}{told}: {}",
            paint::faint(&format!("#{}", one.id.0)),
            text::moment(one.began, zone),
            painted(one.state),
            one.what
        )?;
        for cause in &one.causes {
            let word = if cause.is_certain { "because" } else { "likely because" };
            let evidence =
                if cause.evidence.is_empty() { String::new() } else { format!(" ({})", cause.evidence.join("; ")) };
            writeln!(context.out, "     {word} {}{evidence}", cause.what)?;
        }
        if one.ended.is_none() {
            for offer in &one.offers {
                writeln!(context.out, "     {}: {}", offer.what, paint::good(&offer.command))?;
            }
        }
    }
    Ok(())
}

/// Says that sites are being worked on, for how long, or no longer; without a site, lists what is.
pub(super) async fn maintenance(
    context: &mut Context<'_>,
    target: Option<&str>,
    how: Option<&str>,
) -> anyhow::Result<Exit> {
    let Some(config) = context.load_to_look()? else { return Ok(Exit::Configuration) };
    let Some(target) = target else { return pauses(context, &config).await };
    std::fs::create_dir_all(&config.settings.data)?;
    let store = Store::open(&crate::app::ledger(&config.settings.data), context.clock.clone()).await?;
    let known = targets(&config, &store.checks().await?);
    if target != ALL && !known.contains(target) {
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        return context.missing(&format!(
            "there is no site, job or container `{target}`; {}",
            suggest(target, &names, "there are")
        ));
    }
    let done = match how {
        Some("end") => {
            store.end_pause(target).await?;
            format!("{target} is looked at again as always")
        }
        Some(time) => {
            let Span(time) = time
                .parse()
                .map_err(|_| Told::usage(format!("`{time}` is neither a length of time, such as `2h`, nor `end`")))?;
            let until = context.clock.now() + TimeDelta::from_std(time)?;
            store.begin_pause(target, Some(until)).await?;
            let until = text::moment(until, config.settings.time_zone);
            format!(
                "{target} is in maintenance until {until}: failures are not told and do not count. `rusuban maintenance {target} end` ends it"
            )
        }
        None => {
            return Err(Told::usage(format!(
                "how long is {target} worked on? `rusuban maintenance {target} 2h`, and `end` when it is done before that"
            )));
        }
    };
    if context.json {
        writeln!(context.out, "{}", json!({ "done": done }))?;
    } else {
        writeln!(context.out, "{done}")?;
    }
    Ok(Exit::Fine)
}

async fn pauses(context: &mut Context<'_>, config: &Config) -> anyhow::Result<Exit> {
    let pauses = match context.ledger(config).await? {
        Some(store) => store.pauses().await?,
        None => Vec::new(),
    };
    if context.json {
        writeln!(context.out, "{}", serde_json::to_string_pretty(&pauses)?)?;
        return Ok(Exit::Fine);
    }
    let now = context.clock.now();
    let open: Vec<_> = config.settings.watch.windows.iter().filter(|window| window.is_open(now)).collect();
    if pauses.is_empty() && open.is_empty() {
        writeln!(context.out, "nothing is being worked on; `rusuban maintenance SITE 2h` says that something is")?;
    }
    for pause in pauses {
        let until = pause.until.map_or_else(
            || "until it is ended".to_owned(),
            |until| format!("until {} ({})", text::moment(until, config.settings.time_zone), text::ago(until, now)),
        );
        writeln!(context.out, "{} {until}", pause.target)?;
    }
    for window in open {
        let of = if window.checks.is_empty() { ALL.to_owned() } else { window.checks.join(", ") };
        writeln!(context.out, "{of} by the window `{}` of rusuban.toml", window.schedule.line())?;
    }
    Ok(Exit::Fine)
}

/// All that can be worked on.
fn targets(config: &Config, checks: &[CheckRow]) -> BTreeSet<String> {
    let watched = config.jobs.values().flat_map(|job| job.kind.watches());
    let of_files = watched.flat_map(|(label, rules)| [Some(label), rules.container]).flatten();
    let jobs = config.jobs.keys().map(ToString::to_string);
    of_files.chain(jobs).chain(checks.iter().map(|check| check.check.clone())).collect()
}

fn painted(state: State) -> String {
    let word = state.to_string();
    match state {
        State::Up => paint::good(&word),
        State::Down => paint::bad(&word),
        State::CertificateBad | State::Maintenance => paint::warning(&word),
        State::Unknown => paint::faint(&word),
    }
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), percent)
}

fn answer_time(took: std::time::Duration) -> String {
    let millis = took.as_millis();
    if millis < 10_000 { format!("{millis} ms") } else { text::duration(took) }
}

fn millis(took: std::time::Duration) -> f64 {
    (took.as_secs_f64() * 10_000.0).round() / 10.0
}

fn quantile(summary: &Summary, share: f64) -> Option<f64> {
    summary.answers.quantile(share).map(millis)
}

fn short(what: &str) -> String {
    if what.chars().count() <= 60 { what.to_owned() } else { what.chars().take(59).chain(['…']).collect() }
}
