//! A job as the scheduler and the runner see it: its kind ready to run, its schedule, its policies.
use std::sync::Arc;

use crate::{
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
    /// How it is run.
    pub policies: Policies,
    /// Whom it tells what.
    pub notify: Notify,
    /// What is expected of it.
    pub target: Target,
    /// The file's bytes: two jobs with equal bytes are the same job, for a reload.
    pub source: Arc<str>,
}
