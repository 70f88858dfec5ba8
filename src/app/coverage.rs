//! Who keeps what is on the host: a verb of both faces. It needs no home of its own, only what is configured and what the ledger knows.
use chrono::{DateTime, Utc};

use crate::{
    clock::Clock,
    config::Config,
    coverage::{
        Coverage, Host,
        host::Ours,
        judge::{self, Past},
    },
    store::Store,
};

/// Looks at the host of the settings' engine.
///
/// # Errors
/// When the engine does not answer.
pub async fn look(config: &Config, clock: &Clock) -> anyhow::Result<Host> {
    let engine = config.settings.docker.connect().await?;
    let mut ours = Ours { home: config.home.path().to_owned(), ..Ours::default() };
    for (name, bucket) in &config.settings.buckets {
        // One that does not open is told by whoever uses it.
        let Ok(bucket) = bucket.open(config.home.path(), &config.secrets, clock).await else { continue };
        ours.buckets.extend(bucket.local_folder().map(|folder| (name.clone(), folder.to_owned())));
        ours.servers.extend(bucket.server().map(|server| (name.clone(), server)));
    }
    Host::look(&engine, ours).await
}

/// Compares it with the jobs and with what they have done.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn compare(
    config: &Config,
    host: &Host,
    store: Option<&Store>,
    now: DateTime<Utc>,
) -> anyhow::Result<Coverage> {
    let mut past = Past::default();
    if let Some(store) = store {
        let cursors = store.cursors().await?;
        past.paused = cursors.into_iter().filter(|(_, cursor)| cursor.paused.is_some()).map(|(job, _)| job).collect();
        for (job, step) in judge::steps(host, &config.jobs) {
            if let Some(at) = store.last_done(&job, &step).await? {
                past.done.insert((job, step), at);
            }
        }
    }
    Ok(judge::judge(host, &config.jobs, &past, &config.settings.coverage, now))
}
