//! What was known of containers when Rusuban last looked, so that what happened while it was away is found at the next start.
use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use super::House;
use crate::{
    docker::Following,
    job::Job,
    kinds::{RAN, Ran},
    model::{self, JobName},
};

/// The name under which it stands in the ledger, and its key there: no job has such a fact.
const NAME: &str = "rusuban";
const KEY: &str = "containers-followed";

/// What is kept of the past.
#[derive(Debug, Default)]
pub(super) struct Past {
    known: Known,
    /// What each job that remembers is told.
    ran: BTreeMap<JobName, Ran>,
    boot: String,
    /// What was written last.
    written: Option<Known>,
}

/// What was known of an engine's containers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    /// Where the engine is.
    engine: String,
    /// How far its events had been heard.
    newest: Option<i64>,
    /// Those that ran: their ids and names.
    ran: BTreeMap<String, String>,
    /// Who wanted to know.
    jobs: Vec<JobName>,
}

/// Nobody wants to know what happens from now on.
pub(super) async fn forget(house: &House) {
    if let Ok(name) = NAME.parse()
        && let Ok(Some(known)) = house.store.fact(&name, KEY).await
        && !known.is_null()
    {
        say(house.store.set_fact(&name, KEY, &serde_json::Value::Null).await);
    }
}

impl Past {
    /// What was written by whoever was here before.
    pub(super) async fn read(house: &Arc<House>, jobs: &[Arc<Job>]) -> Self {
        let mut past = Self { boot: model::boot_id(), ..Self::default() };
        let fact = match NAME.parse() {
            Ok(name) => house.store.fact(&name, KEY).await.ok().flatten(),
            Err(_) => None,
        };
        let known: Option<Known> = fact.and_then(|fact| serde_json::from_value(fact).ok());
        let engine = house.runner.services().docker.address().to_string();
        past.known = known.filter(|known| known.engine == engine).unwrap_or_default();
        past.take_jobs(house, jobs).await;
        past
    }

    /// Where it goes on.
    pub(super) fn following(&self) -> Following {
        if self.known.engine.is_empty() {
            return Following::default();
        }
        Following::from(self.known.ran.clone(), self.known.newest)
    }

    /// Whether a job was there already when it was written.
    pub(super) fn knew(&self, job: &JobName) -> bool {
        self.known.jobs.contains(job)
    }

    /// Reads what jobs have been told that are new here.
    pub(super) async fn take_jobs(&mut self, house: &House, jobs: &[Arc<Job>]) {
        for job in jobs.iter().filter(|job| job.kind.remembers()) {
            if !self.ran.contains_key(&job.name) {
                let fact = house.store.fact(&job.name, RAN).await.ok().flatten();
                let ran = fact.and_then(|fact| serde_json::from_value(fact).ok()).unwrap_or_default();
                self.ran.insert(job.name.clone(), ran);
            }
        }
    }

    /// Writes what is known now, as far as it is new.
    pub(super) async fn write(&mut self, house: &House, engine: String, following: &Following, jobs: &[Arc<Job>]) {
        let jobs_by_name: Vec<JobName> = jobs.iter().map(|job| job.name.clone()).collect();
        let known = Known { engine, newest: following.newest(), ran: following.running(), jobs: jobs_by_name };
        let names: Vec<String> = known.ran.values().cloned().collect();
        for job in jobs.iter().filter(|job| job.kind.remembers()) {
            let before = self.ran.get(&job.name).cloned().unwrap_or_default();
            let now = before.clone().now(&self.boot, names.clone());
            if now != before {
                if let Ok(value) = serde_json::to_value(&now) {
                    say(house.store.set_fact(&job.name, RAN, &value).await);
                }
                self.ran.insert(job.name.clone(), now);
            }
        }
        if self.written.as_ref() == Some(&known) {
            return;
        }
        if let (Ok(name), Ok(value)) = (NAME.parse(), serde_json::to_value(&known)) {
            say(house.store.set_fact(&name, KEY, &value).await);
        }
        self.written = Some(known);
    }
}

fn say(written: anyhow::Result<()>) {
    if let Err(error) = written {
        tracing::warn!("write down which containers run: {error:#}");
    }
}
