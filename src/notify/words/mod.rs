//! News in words for people, in their language. Pure: the same news at the same time are the same words.
pub mod digest;
mod en;
mod ja;
pub mod reports;
mod template;

use std::time::Duration;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use chrono_tz::Tz;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Delay, Message, clean, count};
use crate::model::news::{About, Cause, Event, IncidentId, News, Offer, Severity};
pub use template::Template;

/// A language in which things are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Japanese.
    Ja,
}

impl Language {
    fn tongue(self) -> &'static dyn Tongue {
        match self {
            Self::En => &en::English,
            Self::Ja => &ja::Japanese,
        }
    }

    /// Its code, as services want it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Ja => "ja",
        }
    }
}

/// Whether it is good to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Something is well again, or for the first time.
    Good,
    /// Something is not as it should be.
    Bad,
    /// Neither.
    Neutral,
}

/// A message in words. All of it is clean of control characters; nothing is escaped yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// A few words: `blog is down`.
    pub title: String,
    /// All that matters in one line: `blog is down since 02:14 (3 min): the page lacks "Welcome"`.
    pub line: String,
    /// The same without what the title says.
    pub rest: String,
    /// Further lines, the most important first: causes, offers, what was seen, a report's lines.
    pub details: Vec<String>,
    /// Who tells it, and whose times these are: for letters, which are read far from where they come from.
    pub foot: String,
    /// How it is to hear.
    pub mood: Mood,
    /// The gravest of the news.
    pub severity: Severity,
}

/// A head and what may follow it, as far as there is room.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    head: &'a str,
    details: &'a [String],
}

impl Told {
    /// Everything, for services that show one text.
    #[must_use]
    pub fn whole(&self) -> Body<'_> {
        Body { head: &self.line, details: &self.details }
    }

    /// What stands below the title, for services that show one.
    #[must_use]
    pub fn below_title(&self) -> Body<'_> {
        let (head, details) = match self.details.split_first() {
            Some((first, more)) if self.rest.is_empty() => (first, more),
            _ if self.rest.is_empty() => (&self.title, self.details.as_slice()),
            _ => (&self.rest, self.details.as_slice()),
        };
        Body { head, details }
    }
}

/// A line that is cut is shown only if so much of it is left.
const WORTH_SHOWING: usize = 12;

impl Body<'_> {
    /// As many lines as fit; the first that does not is cut.
    #[must_use]
    pub fn fit(&self, fits: impl Fn(&str) -> bool) -> String {
        let mut text = count::cut(self.head, &fits);
        if text != self.head {
            return text;
        }
        for line in self.details {
            let longer = format!("{text}\n{line}");
            if fits(&longer) {
                text = longer;
                continue;
            }
            let cut = count::cut(line, |line| fits(&format!("{text}\n{line}")));
            if count::graphemes(&cut) >= WORTH_SHOWING {
                text = format!("{text}\n{cut}");
            }
            break;
        }
        text
    }
}

/// One thing to tell: news, or the beginning and the end of one incident together.
struct Fact<'a> {
    about: &'a About,
    event: Event,
    severity: Severity,
    at: DateTime<Utc>,
    since: Option<DateTime<Utc>>,
    incident: Option<IncidentId>,
    /// Its beginning had not been told either.
    is_whole: bool,
    what: String,
    causes: Vec<Cause>,
    offers: Vec<Offer>,
    lines: Vec<String>,
}

/// How and when it is told.
struct Telling<'a> {
    host: &'a str,
    time_zone: Tz,
    now: DateTime<Utc>,
    delay: Option<Delay>,
}

/// What differs between languages. Lines of time and duration are given where they are needed, so that word order is the language's own.
trait Tongue: Sync {
    /// What the fact is about: `blog`, `the notifier feed`.
    fn subject(&self, about: &About, host: &str) -> String;
    /// `blog is down`.
    fn title(&self, fact: &Fact<'_>, host: &str) -> String;
    /// `blog, wiki and 3 more are down`: all of one event, about the same sort of thing.
    fn title_of_several(&self, facts: &[Fact<'_>], host: &str) -> String;
    /// `5 news from attic`.
    fn title_of_mixed(&self, facts: &[Fact<'_>], host: &str) -> String;
    /// `since 02:14 (3 min)`.
    fn when(&self, fact: &Fact<'_>, telling: &Telling<'_>) -> String;
    /// The title, the time and what was found, as one line.
    fn line(&self, title: &str, when: &str, what: &str) -> String;
    /// The same without the title.
    fn rest(&self, when: &str, what: &str) -> String;
    /// Why it is told late.
    fn late(&self, delay: Option<Delay>) -> &'static str;
    fn cause(&self, cause: &Cause) -> String;
    fn offer(&self, offer: &Offer) -> String;
    /// `3 min`, `1 h 20 min`, `2 days`.
    fn duration(&self, length: Duration) -> String;
    /// The weekday of a moment within the last days, such as `Thu`.
    fn weekday(&self, day: chrono::Weekday) -> &'static str;
    /// The last line: whose times these are.
    fn foot(&self, host: &str, time_zone: Tz) -> String;
    fn event(&self, event: Event) -> &'static str;
    fn severity(&self, severity: Severity) -> &'static str;
}

/// What is told so long after it happened is told late.
const LATE: TimeDelta = TimeDelta::minutes(10);
/// So many of a merged message's things have a line.
const MOST_ITEMS: usize = 50;

impl Telling<'_> {
    /// A moment as short as it can be told: `02:14`, `Thu 02:14`, `2026-11-20 02:14`.
    fn moment(&self, at: DateTime<Utc>, tongue: &dyn Tongue) -> String {
        let (at, now) = (at.with_timezone(&self.time_zone), self.now.with_timezone(&self.time_zone));
        let days = (now.date_naive() - at.date_naive()).num_days();
        match days {
            0 => at.format("%H:%M").to_string(),
            1..=6 => format!("{} {}", tongue.weekday(at.weekday()), at.format("%H:%M")),
            _ => at.format("%Y-%m-%d %H:%M").to_string(),
        }
    }

    /// From one moment to another; what both have in common is said once.
    fn span(&self, from: DateTime<Utc>, to: DateTime<Utc>, tongue: &dyn Tongue) -> String {
        let day = |at: DateTime<Utc>| at.with_timezone(&self.time_zone).date_naive();
        let end = if day(from) == day(to) {
            to.with_timezone(&self.time_zone).format("%H:%M").to_string()
        } else {
            self.moment(to, tongue)
        };
        format!("{}–{end}", self.moment(from, tongue))
    }
}

impl Fact<'_> {
    fn mood(&self) -> Mood {
        match self.event {
            Event::Recovered | Event::FirstSuccess => Mood::Good,
            Event::Changed | Event::Report | Event::Test => Mood::Neutral,
            Event::Failed
            | Event::StillFailing
            | Event::Late
            | Event::Missed
            | Event::TooSmall
            | Event::TargetMissed
            | Event::NotifierBroken => Mood::Bad,
        }
    }

    /// Whether what it is about is down, or only not as it should be.
    fn is_grave(&self) -> bool {
        self.severity == Severity::Critical
    }

    fn is_like(&self, other: &Self) -> bool {
        let same_sort = std::mem::discriminant(self.about) == std::mem::discriminant(other.about);
        same_sort && self.event == other.event && self.is_whole == other.is_whole && self.is_grave() == other.is_grave()
    }
}

/// Two lengths of time that people tell apart: under a minute is none.
fn lasted(from: DateTime<Utc>, to: DateTime<Utc>) -> Option<Duration> {
    (to - from).to_std().ok().filter(|length| length.as_secs() >= 60)
}

/// The message in words.
#[must_use]
pub fn write(message: &Message) -> Told {
    let tongue = message.language.tongue();
    let host = clean::line(&message.host);
    let telling = Telling { host: &host, time_zone: message.time_zone, now: message.now, delay: message.delay };
    let facts = facts(&message.news);
    let severity = facts.iter().map(|fact| fact.severity).max().unwrap_or(Severity::Info);
    let mood = facts.iter().map(Fact::mood).reduce(|one, other| match (one, other) {
        (Mood::Bad, _) | (_, Mood::Bad) => Mood::Bad,
        (one, other) if one == other => one,
        _ => Mood::Neutral,
    });
    let mood = mood.unwrap_or(Mood::Neutral);
    let mut told = match facts.as_slice() {
        [fact] => of_one(fact, tongue, &telling),
        facts => of_several(facts, tongue, &telling),
    };
    if let Some(template) = &message.template {
        let lines: Vec<String> =
            facts.iter().map(|fact| template.write(|name| value(name, fact, tongue, &telling))).collect();
        let text = lines.join("\n");
        (told.line, told.rest, told.details) = (text.clone(), text, Vec::new());
    }
    Told { mood, severity, ..told }
}

fn of_one(fact: &Fact<'_>, tongue: &dyn Tongue, telling: &Telling<'_>) -> Told {
    let title = tongue.title(fact, telling.host);
    let when = when(fact, tongue, telling);
    let line = tongue.line(&title, &when, &fact.what);
    let rest = tongue.rest(&when, &fact.what);
    let mut details: Vec<String> = fact.causes.iter().map(|cause| tongue.cause(cause)).collect();
    details.extend(fact.offers.iter().map(|offer| tongue.offer(offer)));
    details.extend(fact.causes.iter().flat_map(|cause| &cause.evidence).map(|seen| format!("• {seen}")));
    details.extend(fact.lines.iter().cloned());
    let foot = tongue.foot(telling.host, telling.time_zone);
    Told { title, line, rest, details, foot, mood: Mood::Neutral, severity: fact.severity }
}

fn of_several(facts: &[Fact<'_>], tongue: &dyn Tongue, telling: &Telling<'_>) -> Told {
    let alike = facts.first().is_some_and(|first| facts.iter().all(|fact| fact.is_like(first)));
    let title =
        if alike { tongue.title_of_several(facts, telling.host) } else { tongue.title_of_mixed(facts, telling.host) };
    let mut details: Vec<String> = facts
        .iter()
        .take(MOST_ITEMS)
        .map(|fact| {
            let line = tongue.line(&tongue.title(fact, telling.host), &when(fact, tongue, telling), &fact.what);
            let cause = fact.causes.first().map_or_else(String::new, |cause| format!("; {}", tongue.cause(cause)));
            format!("• {line}{cause}")
        })
        .collect();
    if facts.len() > MOST_ITEMS {
        details.push(format!("• … +{}", facts.len() - MOST_ITEMS));
    }
    let mut offers: Vec<String> =
        facts.iter().filter_map(|fact| fact.offers.first()).map(|offer| tongue.offer(offer)).collect();
    offers.dedup();
    details.extend(offers.into_iter().take(MOST_ITEMS));
    let foot = tongue.foot(telling.host, telling.time_zone);
    Told {
        line: title.clone(),
        rest: String::new(),
        title,
        details,
        foot,
        mood: Mood::Neutral,
        severity: Severity::Info,
    }
}

/// When it was, and why it is told only now.
fn when(fact: &Fact<'_>, tongue: &dyn Tongue, telling: &Telling<'_>) -> String {
    let when = tongue.when(fact, telling);
    let is_late = telling.delay.is_some() || telling.now - fact.at > LATE;
    // A report is of the time that it says it is.
    if !is_late || matches!(fact.event, Event::Report | Event::Test) {
        return when;
    }
    let late = tongue.late(telling.delay);
    if when.is_empty() { late.to_owned() } else { format!("{when}; {late}") }
}

/// The value of a name in a template.
fn value(name: &str, fact: &Fact<'_>, tongue: &dyn Tongue, telling: &Telling<'_>) -> String {
    let title = || tongue.title(fact, telling.host);
    match name {
        "title" => title(),
        "line" => tongue.line(&title(), &when(fact, tongue, telling), &fact.what),
        "what" => fact.what.clone(),
        "name" => tongue.subject(fact.about, telling.host),
        "job" => match fact.about {
            About::Job { job, .. } | About::Check { job, .. } => job.to_string(),
            _ => String::new(),
        },
        "host" => telling.host.to_owned(),
        "event" => tongue.event(fact.event).to_owned(),
        "severity" => tongue.severity(fact.severity).to_owned(),
        "since" => telling.moment(fact.since.unwrap_or(fact.at), tongue),
        "at" => telling.moment(fact.at, tongue),
        "when" => when(fact, tongue, telling),
        "lasted" => {
            let end = if fact.event == Event::Recovered { fact.at } else { telling.now };
            fact.since.and_then(|since| lasted(since, end)).map_or_else(String::new, |length| tongue.duration(length))
        }
        "cause" => fact.causes.first().map_or_else(String::new, |cause| tongue.cause(cause)),
        "offer" => fact.offers.first().map_or_else(String::new, |offer| tongue.offer(offer)),
        "command" => fact.offers.first().map_or_else(String::new, |offer| offer.command.clone()),
        "lines" => fact.lines.join("\n"),
        // A template has known names only.
        _ => String::new(),
    }
}

/// What there is to tell: an incident that began and ended is one thing, and so is one that began and goes on.
fn facts(news: &[News]) -> Vec<Fact<'_>> {
    let mut facts: Vec<Fact<'_>> = Vec::new();
    for news in news {
        let fact = fact(news);
        let is_open = |fact: &&mut Fact<'_>| matches!(fact.event, Event::Failed | Event::StillFailing);
        let earlier = facts
            .iter_mut()
            .filter(is_open)
            .rfind(|earlier| earlier.about == fact.about && earlier.incident == fact.incident);
        match (earlier, fact.event) {
            (Some(earlier), Event::Recovered) => {
                earlier.is_whole = earlier.event == Event::Failed;
                earlier.event = Event::Recovered;
                earlier.since = earlier.since.or(fact.since).or(Some(earlier.at));
                earlier.at = fact.at;
            }
            (Some(earlier), Event::StillFailing) => {
                (earlier.what, earlier.causes, earlier.offers) = (fact.what, fact.causes, fact.offers);
            }
            _ => facts.push(fact),
        }
    }
    facts
}

fn fact(news: &News) -> Fact<'_> {
    let causes = news.causes.iter().map(|cause| Cause {
        what: clean::line(&cause.what),
        is_certain: cause.is_certain,
        evidence: cause.evidence.iter().map(|seen| clean::line(seen)).collect(),
    });
    let offers = news.offers.iter();
    Fact {
        about: &news.about,
        event: news.event,
        severity: news.severity,
        at: news.at,
        since: news.since,
        incident: news.incident,
        is_whole: false,
        what: clean::line(&news.what),
        causes: causes.collect(),
        offers: offers
            .map(|offer| Offer { what: clean::line(&offer.what), command: clean::line(&offer.command) })
            .collect(),
        lines: news.lines.iter().map(|line| clean::line(line)).collect(),
    }
}
