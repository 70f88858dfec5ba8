//! Calls of heartbeats.
use std::sync::Arc;

use super::App;
use crate::{
    config::{Config, secret::Secret},
    model::{
        JobName,
        heartbeat::{Call, HEARD, Heard},
    },
};

/// The keys of jobs that are called, and the files that they were read from.
pub(super) type Keys = tokio::sync::Mutex<Option<(Arc<Config>, Arc<Vec<(Secret, JobName)>>)>>;

impl App {
    /// The jobs that are called, each with its key; read anew when the files were.
    pub async fn ping_keys(&self) -> Arc<Vec<(Secret, JobName)>> {
        let config = self.config();
        let mut kept = self.keys.lock().await;
        if let Some((_, keys)) = kept.as_ref().filter(|(of, _)| Arc::ptr_eq(of, &config)) {
            return Arc::clone(keys);
        }
        let mut keys = Vec::new();
        for job in config.jobs.values().filter(|job| job.enabled) {
            let Some(key) = job.kind.ping_key() else { continue };
            match key.read(&config.secrets).await {
                Ok(key) if !key.reveal().trim().is_empty() => keys.push((key, job.name.clone())),
                Ok(_) => tracing::warn!(job = %job.name, "its `ping_key` is empty, so nobody can call it"),
                Err(error) => tracing::warn!(job = %job.name, "read its `ping_key`: {error:#}; nobody can call it"),
            }
        }
        let keys = Arc::new(keys);
        *kept = Some((config, Arc::clone(&keys)));
        keys
    }

    /// Writes down that a job was called, so that its next run knows of it.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn called(&self, job: &JobName, call: Call) -> anyhow::Result<()> {
        let change = move |before: Option<serde_json::Value>| {
            // What cannot be read was written by nobody we know, and a call is worth more.
            let mut heard: Heard = before.and_then(|before| serde_json::from_value(before).ok()).unwrap_or_default();
            heard.hear(call.clone());
            serde_json::to_value(heard).unwrap_or_default()
        };
        self.store().change_fact(job, HEARD, change).await
    }
}
