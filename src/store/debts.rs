//! Debts: what must be undone even if we die half way.
use std::sync::atomic::Ordering;

use super::{Store, WhenFull, from_json, job_name, to_json};
use crate::model::{Debt, DebtId, JobName, RunId};

impl Store {
    /// Writes a debt down; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it could not be written: then the deed must not be done.
    pub async fn owe(&self, run: RunId, job: &JobName, debt: &Debt) -> anyhow::Result<DebtId> {
        let id = self.0.next_debt.fetch_add(1, Ordering::SeqCst);
        let (job, debt) = (job.clone(), to_json(debt)?);
        self.write(WhenFull::Fail, move |connection| {
            connection.prepare_cached("INSERT INTO debts (id, run, job, debt) VALUES (?1, ?2, ?3, ?4)")?.execute((
                id,
                run.0,
                job.as_str(),
                &debt,
            ))?;
            Ok(())
        })
        .await?;
        Ok(DebtId(id))
    }

    /// Strikes a debt out.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn paid(&self, debt: DebtId) -> anyhow::Result<()> {
        self.write(WhenFull::Hold, move |connection| {
            connection.prepare_cached("DELETE FROM debts WHERE id = ?1")?.execute([debt.0])?;
            Ok(())
        })
        .await
    }

    /// All debts, oldest first.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn debts(&self) -> anyhow::Result<Vec<(DebtId, RunId, JobName, Debt)>> {
        self.read(|connection| {
            let mut rows = connection.prepare_cached("SELECT id, run, job, debt FROM debts ORDER BY id")?;
            let rows = rows.query_map((), |row| {
                let (job, debt): (String, String) = (row.get(2)?, row.get(3)?);
                Ok((DebtId(row.get(0)?), RunId(row.get(1)?), job_name(&job)?, from_json(&debt)?))
            })?;
            rows.collect()
        })
        .await
    }
}
