//! Whether what a run held came back: the sites of containers that it stopped, paused or replaced are looked at again before the run
//! may be called a success.
use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Watch;
use crate::{
    job::Job,
    kinds::Cx,
    model::watch::{Checked, State},
    text,
};

/// How often they are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The sites of a job that look at containers which the run held.
pub(in crate::runner) struct Sites {
    pub(in crate::runner) job: Arc<Job>,
    labels: Vec<String>,
}

impl Watch {
    /// Of all jobs that look at these containers: those checks that were well before. One that was down anyway says nothing of the run.
    pub(in crate::runner) async fn sites(&self, jobs: &[Arc<Job>], containers: &BTreeSet<String>) -> Vec<Sites> {
        let mut all = Vec::new();
        for job in jobs {
            let watched = job.kind.watches();
            if watched.is_empty() {
                continue;
            }
            let Ok(known) = self.store.known(job.name.as_str()).await else { continue };
            let labels: Vec<String> = watched
                .into_iter()
                .filter(|(label, rules)| {
                    rules.container.as_ref().is_some_and(|container| containers.contains(container))
                        && known.get(label).is_some_and(|known| known.settled == State::Up && known.incident.is_none())
                })
                .map(|(label, _)| label)
                .collect();
            if !labels.is_empty() {
                all.push(Sites { job: Arc::clone(job), labels });
            }
        }
        all
    }

    /// Looks until all of them are well, or they have had long enough. Returns what those say that are not.
    pub(in crate::runner) async fn until_back(&self, cx: &Cx, sites: Vec<Sites>) -> Vec<String> {
        let limit = self.settings().back_within;
        if limit.is_zero() {
            return Vec::new();
        }
        let (began, mut sites) = (Instant::now(), sites);
        loop {
            let mut complaints = Vec::new();
            for one in &mut sites {
                let cx = Cx { job: one.job.name.clone(), ..cx.clone() };
                let looking = one.job.kind.look(&cx, &one.labels);
                match tokio::time::timeout(limit, looking).await {
                    Ok(Ok(found)) => {
                        let bad = |one: &&Checked| matches!(one.verdict.state, State::Down | State::CertificateBad);
                        one.labels.retain(|label| found.iter().filter(bad).any(|checked| checked.check == *label));
                        let said = found.iter().filter(bad).map(|one| format!("{}: {}", one.check, one.verdict.what));
                        complaints.extend(said);
                    }
                    // It could not be looked at, which is no verdict.
                    Ok(Err(error)) => {
                        cx.warn(format!("look whether {} came back: {error:#}", one.labels.join(", ")));
                        one.labels.clear();
                    }
                    Err(_) => complaints.push(format!(
                        "{}: no answer within {}",
                        one.labels.join(", "),
                        text::duration(limit)
                    )),
                }
            }
            sites.retain(|one| !one.labels.is_empty());
            if complaints.is_empty() || began.elapsed() >= limit || cx.cancelled.is_cancelled() {
                return complaints;
            }
            tokio::time::sleep(LOOK.min(limit.saturating_sub(began.elapsed()))).await;
        }
    }
}
