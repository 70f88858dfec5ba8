//! Who is told what, and when: pure functions of the news, the job's routes, the notifiers' rules, what waits, and the time.
use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, NaiveTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;

use super::{Delay, routes::Notify, settings::Quiet};
use crate::model::news::{About, Event, News, Outgoing, Severity};

/// News that come within this time of each other are told together.
pub const GROUP: Duration = Duration::from_secs(30);
/// News in one message at most.
pub const MOST_TOGETHER: usize = 50;
/// What waited for longer than this beyond its time is told with the reason.
const LATE: TimeDelta = TimeDelta::minutes(2);
/// For so long a message that was not taken is tried again as it is, since it may have arrived all the same; then all that waits is told
/// together.
const SAME: TimeDelta = TimeDelta::minutes(5);
/// The wait after the first failure of a line; doubled for each further one.
const FIRST_WAIT: Duration = Duration::from_secs(10);
/// The longest wait that we choose ourselves: so long after a line is well again, at most, all is told.
const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);
/// The longest wait that a service may ask for.
const MOST_ASKED: Duration = Duration::from_secs(24 * 3600);

/// What all notifiers are told by.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Each notifier's own rules, by its name.
    pub ears: BTreeMap<String, Ear>,
    /// News that come within this time of each other are told together.
    pub group: Duration,
    /// Quiet hours are of this zone.
    pub time_zone: Tz,
}

impl Default for Rules {
    fn default() -> Self {
        Self { ears: BTreeMap::new(), group: GROUP, time_zone: Tz::UTC }
    }
}

/// What one notifier wants to hear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ear {
    /// Nothing that matters less.
    pub min_severity: Option<Severity>,
    /// Only what is critical in these hours.
    pub quiet: Option<Quiet>,
}

/// The rows of these news: one for each notifier that hears of them.
#[must_use]
pub fn outgoing(notify: &Notify, rules: &Rules, news: &News, now: DateTime<Utc>) -> Vec<Outgoing> {
    let only_if_begun = notify.ends_for_those_told(news.event);
    let wants = |name: &&str| {
        let ear = rules.ears.get(*name).copied().unwrap_or_default();
        only_if_begun || ear.min_severity.is_none_or(|least| news.severity >= least)
    };
    let not_before = now + TimeDelta::from_std(rules.group).unwrap_or_default();
    let row = |name| Outgoing { only_if_begun, ..row(news, name, not_before) };
    notify.who(news).into_iter().filter(wants).map(row).collect()
}

/// The row of these news for one notifier. Its key is the same whoever makes it.
#[must_use]
pub fn row(news: &News, notifier: &str, not_before: DateTime<Utc>) -> Outgoing {
    let key = format!("{}:{notifier}", news.key());
    Outgoing { key, notifier: notifier.to_owned(), news: news.clone(), not_before, only_if_begun: false }
}

/// A row of the outbox that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    /// Its number: rows are told in this order.
    pub id: i64,
    /// Its key.
    pub key: String,
    /// What is to be told.
    pub news: News,
    /// Not told before this, unless it joins others that are.
    pub not_before: DateTime<Utc>,
}

/// A message that a notifier was given, and that it did not take: nobody may know whether it has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Its rows.
    pub parts: Parts,
    /// The notifier has said that it may go better later; else we died before it said anything.
    pub is_put_off: bool,
}

/// The rows of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Parts {
    /// These are told.
    pub told: Vec<i64>,
    /// These are in what is told of the others.
    pub merged: Vec<i64>,
}

/// What to do for a notifier now.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing waits.
    Nothing,
    /// Nothing until then.
    Wait(DateTime<Utc>),
    /// This message.
    Send(Parcel),
}

/// A message to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Parcel {
    /// Its key: the same rows have the same.
    pub key: String,
    /// What is told, the oldest first.
    pub news: Vec<News>,
    /// Its rows.
    pub parts: Parts,
    /// Why it is told late, if it is.
    pub delay: Option<Delay>,
}

impl Parcel {
    /// The story that all of it belongs to.
    #[must_use]
    pub fn story(&self) -> Option<String> {
        let story = self.news.first()?.story()?;
        self.news.iter().all(|news| news.story().as_deref() == Some(&story)).then_some(story)
    }
}

/// What to do for a notifier whose line is free. `waiting` are its rows in order; `failing` since when it did not get through.
#[must_use]
pub fn next(
    waiting: &[Waiting],
    tried: Option<&Tried>,
    ear: Ear,
    rules: &Rules,
    failing: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Next {
    let until = |row: &Waiting| match ear.quiet {
        Some(quiet) if row.news.severity < Severity::Critical && row.news.event != Event::Test => {
            row.not_before.max(quiet_until(quiet, rules.time_zone, now))
        }
        _ => row.not_before,
    };
    // One whose rows have an end by now is over, whatever the ledger can say of it yet.
    let tried = tried.filter(|tried| waiting.iter().any(|row| tried.parts.told.contains(&row.id)));
    if let Some(tried) = tried.filter(|tried| !tried.is_put_off) {
        // It may have arrived: the same again, whatever has come since.
        return again(waiting, &tried.parts, ear, rules, failing, now);
    }
    let Some(first) = waiting.iter().map(&until).min() else { return Next::Nothing };
    if first > now {
        return Next::Wait(first);
    }
    let together = now + TimeDelta::from_std(rules.group).unwrap_or_default();
    let due: Vec<&Waiting> = waiting.iter().filter(|row| until(row) <= together).collect();
    let parts = merge(&due);
    if let Some(tried) = tried
        && failing.is_some_and(|since| now - since < SAME)
        && !tried.parts.told.is_empty()
        && tried.parts.told.iter().all(|id| parts.told.contains(id))
        && !goes_on(&due, &tried.parts)
    {
        // What has come since does not change what it says: the same again, under the same key.
        return again(waiting, &tried.parts, ear, rules, failing, now);
    }
    again(waiting, &parts, ear, rules, failing, now)
}

/// Whether something has come since that belongs to what these rows tell.
fn goes_on(due: &[&Waiting], parts: &Parts) -> bool {
    let is_part = |row: &Waiting| parts.told.contains(&row.id) || parts.merged.contains(&row.id);
    let stories: Vec<_> = due.iter().filter(|row| is_part(row)).filter_map(|row| row.news.story()).collect();
    due.iter().any(|row| !is_part(row) && row.news.story().is_some_and(|story| stories.contains(&story)))
}

fn again(
    waiting: &[Waiting],
    parts: &Parts,
    ear: Ear,
    rules: &Rules,
    failing: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Next {
    let told: Vec<&Waiting> = waiting.iter().filter(|row| parts.told.contains(&row.id)).collect();
    let Some(oldest) = waiting
        .iter()
        .filter(|row| parts.told.contains(&row.id) || parts.merged.contains(&row.id))
        .map(|row| row.not_before)
        .min()
    else {
        return Next::Nothing;
    };
    let was_quiet = ear.quiet.is_some_and(|quiet| quiet.covers(oldest.with_timezone(&rules.time_zone).time()));
    let delay = match now - oldest > LATE {
        false => None,
        true if failing.is_none() && was_quiet => Some(Delay::Quiet),
        true => Some(Delay::Line),
    };
    let key = match told.as_slice() {
        [] => return Next::Nothing,
        [one] => one.key.clone(),
        [first, ..] => format!("{}+{:016x}", first.key, digest(told.iter().map(|row| row.key.as_str()))),
    };
    let mut news: Vec<News> = told.iter().map(|row| row.news.clone()).collect();
    about_the_same(&mut news);
    let of_these = |ids: &[i64]| waiting.iter().map(|row| row.id).filter(|id| ids.contains(id)).collect();
    let parts = Parts { told: of_these(&parts.told), merged: of_these(&parts.merged) };
    Next::Send(Parcel { key, news, parts, delay })
}

/// Of each story what is worth telling: that it began and how it ended, if that was not told; of its reminders the newest, and none once it
/// has ended. Of reports of one job the newest, and each report in a message of its own.
fn merge(due: &[&Waiting]) -> Parts {
    let mut parts = Parts::default();
    let mut of_reports = None;
    for (index, row) in due.iter().enumerate() {
        let later = &due[index + 1..];
        let story = row.news.story();
        let follows = |event| {
            later.iter().any(|other| other.news.event == event && story.is_some() && other.news.story() == story)
        };
        let is_told_better = match row.news.event {
            Event::StillFailing => follows(Event::StillFailing) || follows(Event::Recovered),
            Event::Late => follows(Event::Recovered),
            Event::Report => {
                later.iter().any(|other| other.news.event == Event::Report && same_job(&other.news, &row.news))
            }
            _ => false,
        };
        let is_report = row.news.event == Event::Report;
        if is_told_better {
            parts.merged.push(row.id);
        } else if is_report != *of_reports.get_or_insert(is_report) || (is_report && !parts.told.is_empty()) {
            // A letter goes by itself: in a list its lines would be lost.
        } else if parts.told.len() < MOST_TOGETHER {
            parts.told.push(row.id);
        }
    }
    // What is told in a later message keeps what is in it.
    if !parts.merged.is_empty() {
        let told: Vec<&&Waiting> = due.iter().filter(|row| parts.told.contains(&row.id)).collect();
        parts.merged.retain(|id| {
            let row = due.iter().find(|row| row.id == *id);
            row.is_some_and(|row| {
                told.iter().any(|other| {
                    other.id > row.id
                        && if row.news.event == Event::Report {
                            other.news.event == Event::Report && same_job(&other.news, &row.news)
                        } else {
                            other.news.story() == row.news.story()
                        }
                })
            })
        });
    }
    parts
}

/// News of one story are about the same thing: the words then make one sentence of its beginning and its end.
fn about_the_same(news: &mut [News]) {
    for index in 1..news.len() {
        let (before, rest) = news.split_at_mut(index);
        let Some(one) = rest.first_mut() else { return };
        let story = one.story();
        if let Some(earlier) = before.iter().find(|earlier| story.is_some() && earlier.story() == story) {
            one.about = earlier.about.clone();
        }
    }
}

fn same_job(one: &News, other: &News) -> bool {
    match (&one.about, &other.about) {
        (About::Job { job, .. }, About::Job { job: same, .. }) => job == same,
        _ => false,
    }
}

fn digest<'a>(keys: impl Iterator<Item = &'a str>) -> u64 {
    // FNV: the same on every machine and in every version.
    keys.flat_map(|key| key.bytes().chain([0]))
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// When it is no longer quiet; `now` when it is not.
#[must_use]
pub fn quiet_until(quiet: Quiet, zone: Tz, now: DateTime<Utc>) -> DateTime<Utc> {
    let local = now.with_timezone(&zone);
    if !quiet.covers(local.time()) {
        return now;
    }
    let today = local.date_naive();
    let day = if quiet.until > local.time() { today } else { today.succ_opt().unwrap_or(today) };
    at(zone, day.and_time(quiet.until)).max(now)
}

/// A local time that the clock skips is taken an hour later.
fn at(zone: Tz, local: chrono::NaiveDateTime) -> DateTime<Utc> {
    let found = zone.from_local_datetime(&local).earliest();
    let later = || zone.from_local_datetime(&(local + TimeDelta::hours(1))).earliest();
    found.or_else(later).map_or_else(|| local.and_utc(), |at| at.to_utc())
}

/// How long a line waits after so many failures in a row, give or take a tenth; `random` is from 0 to 1. Never less than the service asked for.
#[must_use]
pub fn wait_after(failures: u32, asked: Option<Duration>, random: f64) -> Duration {
    let doubled = 2_u32.checked_pow(failures.saturating_sub(1)).and_then(|times| FIRST_WAIT.checked_mul(times));
    let own = doubled.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT).mul_f64(0.9 + 0.2 * random);
    own.max(asked.unwrap_or_default().min(MOST_ASKED))
}

/// Who is told in place of a notifier that refuses: the first of these that is another one and not blocked.
#[must_use]
pub fn instead<'a>(of: &str, order: &'a [String], is_blocked: impl Fn(&str) -> bool) -> Option<&'a str> {
    order.iter().map(String::as_str).find(|name| *name != of && !is_blocked(name))
}

/// The time of the weekly self-test that has come last: Monday at nine, by the house's clock.
#[must_use]
pub fn last_monday(zone: Tz, now: DateTime<Utc>) -> DateTime<Utc> {
    use chrono::Datelike as _;
    let nine = NaiveTime::from_hms_opt(9, 0, 0).unwrap_or_default();
    let today = now.with_timezone(&zone).date_naive();
    let monday = today - TimeDelta::days(i64::from(today.weekday().num_days_from_monday()));
    let this = at(zone, monday.and_time(nine));
    if this <= now { this } else { at(zone, (monday - TimeDelta::days(7)).and_time(nine)) }
}

#[cfg(test)]
mod tests;
