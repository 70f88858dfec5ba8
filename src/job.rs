//! A job as the scheduler and the runner see it: its kind ready to run, its schedule, its policies.
use std::sync::Arc;

use crate::{
    docker::{Access, On, access},
    kinds::Kind,
    model::JobName,
    notify::routes::{Notify, Target},
    policy::Policies,
    schedule::Schedule,
};

/// One job file, read and found right.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its file's name without `.toml`.
    pub name: JobName,
    /// The `kind` it names.
    pub kind_name: &'static str,
    /// What it does.
    pub kind: Arc<dyn Kind>,
    /// What its owner says of it.
    pub description: Option<String>,
    /// A job that is not enabled has no slots; it can be run by hand.
    pub enabled: bool,
    /// When it is due; absent: by hand, or after other jobs.
    pub schedule: Option<Schedule>,
    /// It runs when all of these have succeeded since it last ran.
    pub after: Vec<JobName>,
    /// It runs when this happens to containers.
    pub on: Option<On>,
    /// How it is run.
    pub policies: Policies,
    /// Whom it tells what.
    pub notify: Notify,
    /// What is expected of it.
    pub target: Target,
    /// The file's bytes: two jobs with equal bytes are the same job, for a reload.
    pub source: Arc<str>,
}

impl Job {
    /// Whether the server follows containers for it.
    #[must_use]
    pub fn follows_containers(&self) -> bool {
        self.on.is_some() || self.kind.follows().is_some() || self.kind.remembers()
    }

    /// What it asks of a Docker engine, its kind's work and the hearing of what starts it. `labels`: what containers say counts.
    #[must_use]
    pub fn engine(&self, labels: bool) -> Vec<Access> {
        let mut needs = self.kind.engine();
        if self.follows_containers() {
            let heard = Access { why: "hear what happens to containers", ..access::EVENTS };
            needs.extend([access::VERSION, access::CONTAINERS, heard]);
        }
        if self.on.is_some() {
            needs.push(access::CONTAINER.rarely("know how a container ended that died while nobody looked"));
        }
        if labels {
            needs.extend(self.kind.engine_by_label());
        }
        needs
    }

    /// When it runs, as a person would say it; nothing for one that is started by hand alone.
    #[must_use]
    pub fn starts_in_words(&self) -> Option<String> {
        let after: Vec<&str> = self.after.iter().map(JobName::as_str).collect();
        let parts = [
            self.schedule.as_ref().map(Schedule::in_words),
            (!after.is_empty()).then(|| format!("after {}", after.join(", "))),
            self.on.as_ref().map(On::in_words),
            self.kind.follows().map(|_| "when its containers change".to_owned()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", and "))
    }
}
