//! What a job has to tell, as rows of the outbox: of a run's end, of slots that went by, of what is expected of it. Pure.
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    job::Job,
    kinds::Told,
    model::{
        Missed, Outcome, RunId,
        news::{About, Event, News, Offer, Outgoing, Severity},
    },
    notify::plan::{self, Rules},
    policy::OnCrash,
    store::{Past, Standing, Store},
};

/// The rows of these news of a job: one for each notifier that hears of them. They are written in the transaction of what they are about.
#[must_use]
pub fn outgoing(job: &Job, rules: &Rules, news: &News, now: DateTime<Utc>) -> Vec<Outgoing> {
    plan::outgoing(&job.notify, rules, news, now)
}

/// Writes a run's end and, in the same transaction, what is to be told of it.
pub(super) async fn close(
    store: &Store,
    job: &Arc<Job>,
    rules: Arc<Rules>,
    run: RunId,
    outcome: Outcome,
    message: &str,
    told: Vec<Told>,
) -> anyhow::Result<()> {
    let (job, text) = (Arc::clone(job), message.to_owned());
    let failures = failures(&job);
    let tell = move |past: &Past, at| {
        let ended = Ended { run, outcome, message: text.clone(), at, told: told.clone() };
        at_end(&job, &rules, &ended, past)
    };
    store.run_finished_with_news(run, outcome, message, failures, tell).await
}

/// A run that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Which one.
    pub(super) run: RunId,
    /// How.
    pub(super) outcome: Outcome,
    /// Its message, without secrets.
    pub(super) message: String,
    /// When.
    pub(super) at: DateTime<Utc>,
    /// What its kind has to tell.
    pub(super) told: Vec<Told>,
}

/// The ends that are failures of the job. A run that is run again after a crash tells itself how that went.
#[must_use]
pub fn failures(job: &Job) -> &'static [Outcome] {
    match job.policies.on_crash {
        OnCrash::Fail => &[Outcome::Failed, Outcome::TimedOut, Outcome::Interrupted],
        OnCrash::Rerun => &[Outcome::Failed, Outcome::TimedOut],
    }
}

/// What is told of a run's end. It follows from the ledger alone, so it is the same after a crash.
pub(super) fn at_end(job: &Job, rules: &Rules, ended: &Ended, past: &Past) -> Vec<Outgoing> {
    let news = |event, severity, since, what: &str| News {
        about: About::Job { job: job.name.clone(), run: Some(ended.run) },
        event,
        severity,
        at: ended.at,
        since,
        incident: None,
        what: what.to_owned(),
        causes: Vec::new(),
        offers: Vec::new(),
        lines: Vec::new(),
    };
    let (severity, message) = (job.notify.severity(), ended.message.as_str());
    let mut all = Vec::new();
    if failures(job).contains(&ended.outcome) {
        // Of one time of failing the first is written; the others have its key.
        if past.failures >= job.notify.after() {
            all.push(news(Event::Failed, severity, past.failing, message));
        }
    } else if ended.outcome == Outcome::Succeeded {
        if past.failures > 0 && past.failures >= job.notify.after() {
            all.push(news(Event::Recovered, severity, past.failing, message));
        } else if !past.has_succeeded && !ended.told.iter().any(|told| told.event == Event::Report) {
            all.push(news(Event::FirstSuccess, Severity::Info, None, message));
        }
        if past.target_missed.is_some() {
            all.push(news(Event::Recovered, Severity::Critical, past.target_missed, message));
        }
    }
    for told in &ended.told {
        let same = all.iter_mut().find(|news| news.event == told.event && news.since.is_none());
        match same {
            // One run has one of each.
            Some(news) => {
                news.severity = news.severity.max(told.severity);
                news.lines.push(told.what.clone());
                news.lines.extend(told.lines.iter().cloned());
            }
            None => all.push(News { lines: told.lines.clone(), ..news(told.event, told.severity, None, &told.what) }),
        }
    }
    all.iter().flat_map(|news| outgoing(job, rules, news, ended.at)).collect()
}

/// What is told of slots that went by and that no run makes up for.
#[must_use]
pub fn missed(
    job: &Job,
    rules: &Rules,
    (first, last, count): (DateTime<Utc>, DateTime<Utc>, u64),
    why: Missed,
    now: DateTime<Utc>,
) -> Vec<Outgoing> {
    let what = match count {
        1 => format!("was due and did not run: {why}"),
        _ => format!("was due {count} times and did not run: {why}"),
    };
    let news = News {
        about: About::Job { job: job.name.clone(), run: None },
        event: Event::Missed,
        severity: Severity::Warning,
        // The slot's own time: settled again after a crash, it is the same.
        at: last,
        since: Some(first),
        incident: None,
        what,
        causes: Vec::new(),
        offers: vec![Offer { what: "run it now".to_owned(), command: format!("rusuban run {}", job.name) }],
        lines: Vec::new(),
    };
    outgoing(job, rules, &news, now)
}

/// What time alone brings: reminders of a job that fails, a run that takes too long, a success that is too long ago. To be asked now and
/// then; what was told before has the same key.
#[must_use]
pub fn due(job: &Job, rules: &Rules, standing: &Standing, now: DateTime<Utc>) -> Vec<Outgoing> {
    let news = |event, severity, at, since, run, what: String| News {
        about: About::Job { job: job.name.clone(), run },
        event,
        severity,
        at,
        since: Some(since),
        incident: None,
        what,
        causes: Vec::new(),
        offers: Vec::new(),
        lines: Vec::new(),
    };
    let mut all = Vec::new();
    let remind = job.notify.0.remind.and_then(|remind| TimeDelta::from_std(remind.0).ok());
    if let (Some(since), Some(at)) =
        (standing.failing, remind.and_then(|remind| newest_reminder(standing.failing?, remind, now)))
        && standing.failures >= job.notify.after()
    {
        let what = standing.message.clone();
        all.push(news(Event::StillFailing, job.notify.severity(), at, since, None, what));
    }
    if let Some(age) = job.target.age
        && let Ok(delta) = TimeDelta::from_std(age.0)
        && standing.success + delta < now
    {
        let what = if standing.has_succeeded {
            format!("the newest success is older than {age}")
        } else {
            format!("it has not succeeded within {age}")
        };
        all.push(news(Event::TargetMissed, Severity::Critical, standing.success + delta, standing.success, None, what));
        if let Some(at) = remind.and_then(|remind| newest_reminder(standing.success + delta, remind, now)) {
            let what = format!("the newest success is still older than {age}");
            all.push(news(Event::StillFailing, Severity::Critical, at, standing.success, None, what));
        }
    }
    if let Some(time) = job.target.time
        && let Ok(delta) = TimeDelta::from_std(time.0)
    {
        for (run, since, state) in &standing.open {
            if *since + delta < now {
                let what = format!("{state} for longer than {time}");
                all.push(news(Event::Late, Severity::Warning, *since + delta, *since, Some(*run), what));
            }
        }
    }
    all.iter().flat_map(|news| outgoing(job, rules, news, now)).collect()
}

/// The newest moment at which a reminder was due. Older ones that nobody was there for are not made up for.
fn newest_reminder(since: DateTime<Utc>, each: TimeDelta, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let each = each.num_seconds().max(60);
    let times = (now - since).num_seconds() / each;
    (times >= 1).then(|| since + TimeDelta::seconds(times * each))
}
