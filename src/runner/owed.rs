//! Debts that cannot wait for the next start: containers that should run again, and could not be started because their engine was away.
use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{Runner, debts, recover::add_lines};
use crate::model::{Debt, DebtId, JobName, Level, RunId};

/// How often it is tried.
const EVERY: Duration = Duration::from_secs(10);

impl Runner {
    /// Pays what ended runs owe to containers, until it is asked to stop.
    pub async fn keep_paying(self: Arc<Self>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.pay_for_ever() => {}
        }
    }

    async fn pay_for_ever(&self) {
        loop {
            self.clock.sleep(EVERY).await;
            // A ledger that cannot be read now is read the next time.
            for (id, run, job, debt) in self.store.debts().await.unwrap_or_default().into_iter().rev() {
                if debts::is_urgent(&debt) && !self.runs().active.contains_key(&run) {
                    self.try_to_pay(id, run, &job, &debt).await;
                }
            }
        }
    }

    async fn try_to_pay(&self, id: DebtId, run: RunId, job: &JobName, debt: &Debt) {
        let services = self.services();
        let what = debts::in_words(debt);
        let paid = match debts::pay(debt, &services, &self.clock, Duration::ZERO).await {
            Ok(known) => {
                tracing::info!(%job, %run, what, "what a run left behind was undone");
                let said = std::iter::once((Level::Info, format!("later: {what}")));
                let said = said.chain(known.map(|known| (Level::Warning, known))).collect();
                self.watch.paid(id);
                let added = add_lines(&self.store, &self.clock, &services, run, said).await;
                self.store.paid(id).await.and(added)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = paid {
            tracing::debug!(%job, %run, what, error = format!("{error:#}"), "it is tried again");
        }
    }
}
