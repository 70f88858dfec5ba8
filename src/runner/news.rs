//! What is to be told, as rows of the outbox.
use chrono::{DateTime, Utc};

use crate::{
    job::Job,
    model::news::{News, Outgoing},
};

/// The rows of these news of a job: one for each notifier that hears of them.
#[must_use]
pub fn outgoing(job: &Job, news: &News, now: DateTime<Utc>) -> Vec<Outgoing> {
    let row = |notifier: &str| Outgoing {
        key: format!("{}:{notifier}", news.key()),
        notifier: notifier.to_owned(),
        news: news.clone(),
        not_before: now,
    };
    job.policies.locks.iter().filter_map(|lock| lock.strip_prefix("tell:")).map(row).collect()
}
