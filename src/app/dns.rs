//! What keeps a job from telling its dynamic DNS provider, lifted by a person.
use anyhow::Context as _;

use super::{App, Refusal, no_such_job};
use crate::{
    kinds::dynamic_dns::{
        memory::{KEY, LIFTED, Memory},
        stops,
    },
    model::JobName,
    store::Store,
};

/// So many lifted stops are remembered; a run takes note of them at its beginning.
const REMEMBERED: usize = 100;

impl App {
    /// Lifts the stops of a job: see [`unblock`].
    ///
    /// # Errors
    /// When there is no such job or host, nothing is stopped, or the ledger cannot be written.
    pub async fn unblock(&self, job: &JobName, host: Option<&str>, forget: bool) -> Result<String, Refusal> {
        let config = self.config();
        if !config.jobs.contains_key(job) {
            return Err(no_such_job(job, &config.jobs));
        }
        unblock(&self.store, job, host, forget).await
    }
}

/// Lifts the stops of a job, or of one of its hosts; its next run tells the provider again. With `forget`, all that was told is
/// forgotten too, and the next run begins anew. It is a sentence for a person that comes back.
///
/// A run that goes on meanwhile loses nothing: the stops are named in a fact of their own, which only the next run reads.
///
/// # Errors
/// When nothing is stopped, or the ledger cannot be written.
pub async fn unblock(store: &Store, job: &JobName, host: Option<&str>, forget: bool) -> Result<String, Refusal> {
    if forget {
        let nothing = serde_json::to_value(Memory::default()).map_err(anyhow::Error::from)?;
        store.set_fact(job, KEY, &nothing).await?;
        return Ok(format!("{job} has forgotten what it told; its next run begins anew"));
    }
    let missing = |what: &str| Refusal::Missing(format!("{what}; `rusuban dns status {job}` shows how it stands"));
    let Some(value) = store.fact(job, KEY).await? else {
        return Err(missing(&format!("{job} has told nobody of anything yet")));
    };
    let memory: Memory =
        serde_json::from_value(value).context("what earlier runs remembered cannot be read; `--forget` begins anew")?;
    if let Some(host) = host
        && !memory.hosts.contains_key(host)
    {
        return Err(missing(&format!("{job} has no host `{host}`")));
    }
    let mut lifted: Vec<String> = match store.fact(job, LIFTED).await? {
        Some(value) => serde_json::from_value(value).context("read which stops were lifted before")?,
        None => Vec::new(),
    };
    let before = lifted.len();
    // What stops all of them stops this one too.
    let meant = stops(&memory).into_iter().filter(|(name, _)| host.is_none() || name.is_none() || *name == host);
    let found: Vec<String> = meant.map(|(_, stop)| stop.id.clone()).collect();
    lifted.extend(found.iter().filter(|id| !lifted[..before].contains(id)).cloned().collect::<Vec<_>>());
    if found.is_empty() {
        return Ok(format!("nothing of {} is stopped, so there is nothing to lift", host.unwrap_or(job.as_str())));
    }
    let surplus = lifted.len().saturating_sub(REMEMBERED);
    lifted.drain(..surplus);
    store.set_fact(job, LIFTED, &serde_json::to_value(&lifted).map_err(anyhow::Error::from)?).await?;
    let what = crate::text::count(found.len(), "stop");
    Ok(format!("{what} of {job} lifted; the next run tells the provider again: `rusuban run {job}` does so now"))
}
