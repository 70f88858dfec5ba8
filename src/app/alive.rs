//! The call outwards while all is well: when it stops, somebody outside notices, even that this whole host is dead.
use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::{App, deliver::is_blocked};
use crate::{http, notify::delivery::Alive, text};

/// Whoever has not looked for so long does not work.
const STILL: TimeDelta = TimeDelta::seconds(60);
/// A ledger that takes longer to be written is not well.
const WRITE: Duration = Duration::from_secs(10);
/// Every notifier has been failing for so long: people hear nothing, so the call stops.
const DEAF: TimeDelta = TimeDelta::minutes(30);
/// How long the call may take.
const CALL: Duration = Duration::from_secs(15);

impl App {
    /// Calls as often as the settings say, until `stop`.
    pub(super) async fn stay_alive(self: Arc<Self>, stop: CancellationToken) {
        let mut trouble: Option<String> = None;
        loop {
            let alive = self.config().settings.notify.alive.clone();
            let wait = match &alive {
                None => Duration::from_secs(5),
                Some(alive) => {
                    let came = match self.is_well().await {
                        Err(error) => Err(error.context("not called, since not all is well")),
                        Ok(()) => self.call(alive).await,
                    };
                    let told = came.err().map(|error| format!("{error:#}"));
                    if let Some(why) = told.as_ref().filter(|why| trouble.as_ref() != Some(why)) {
                        tracing::warn!("the call that says that all is well: {why}");
                    }
                    trouble = told;
                    // One that did not get through is tried again soon.
                    if trouble.is_some() { alive.every.0.min(Duration::from_secs(30)) } else { alive.every.0 }
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(wait) => {}
            }
        }
    }

    /// Whether the scheduler looks, the ledger can be written, and people can be told.
    ///
    /// # Errors
    /// What is not well.
    pub async fn is_well(&self) -> anyhow::Result<()> {
        let now = self.clock.now();
        if let Some(trouble) = self.store.trouble() {
            bail!(trouble);
        }
        match tokio::time::timeout(WRITE, self.store.can_be_written()).await {
            Ok(written) => written.context("write the ledger")?,
            Err(_) => bail!("the ledger could not be written within {}", text::duration(WRITE)),
        }
        for (who, looked) in [("the scheduler", self.scheduler.looked()), ("the delivery", self.delivery.looked())] {
            if now - looked > STILL {
                bail!("{who} has not looked for {}", text::duration((now - looked).to_std().unwrap_or_default()));
            }
        }
        let setup = self.delivery.setup();
        let lines = self.store.lines_of_notifiers().await?;
        let is_deaf = |name: &String| {
            is_blocked(&setup, &lines, name)
                || lines.get(name).and_then(|line| line.failing).is_some_and(|since| now - since > DEAF)
        };
        if !setup.notifiers.is_empty() && setup.notifiers.keys().all(is_deaf) {
            bail!("no notifier gets through; `rusuban notify` shows why");
        }
        Ok(())
    }

    async fn call(&self, alive: &Alive) -> anyhow::Result<()> {
        let setup = self.delivery.setup();
        let services = &setup.services;
        let url = alive.url.read(&services.secrets).await.context("read `notify.alive.url`")?;
        let request =
            services.http.get(url.reveal()).timeout(CALL).build().map_err(|error| anyhow::anyhow!(http::why(error)))?;
        let response = http::send(&services.http, request).await.map_err(|error| anyhow::anyhow!(http::why(error)))?;
        let status = response.status();
        if !status.is_success() {
            bail!("it was answered with {status}");
        }
        Ok(())
    }
}
