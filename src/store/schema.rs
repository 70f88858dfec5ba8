//! The ledger's tables, as numbered migrations: never change one that has been released, add the next.
use anyhow::{Context as _, bail};
use rusqlite::{Connection, TransactionBehavior};

/// The migrations; `user_version` says how many have been done.
const MIGRATIONS: &[&str] = &[include_str!("v1.sql"), include_str!("v2.sql"), include_str!("v3.sql")];

/// Brings the ledger to the newest form.
pub(super) fn migrate(connection: &mut Connection) -> anyhow::Result<()> {
    let have = version(connection)?;
    if have > MIGRATIONS.len() {
        bail!(
            "this ledger is of form {have}, and this rusuban knows forms up to {}: use the newer rusuban that wrote it",
            MIGRATIONS.len()
        );
    }
    if have == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    // Again inside the transaction: another process may have been faster.
    let have = version(&transaction)?;
    for (number, migration) in MIGRATIONS.iter().enumerate().skip(have) {
        transaction.execute_batch(migration).with_context(|| format!("bring the ledger to form {}", number + 1))?;
    }
    transaction.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len())?)?;
    Ok(transaction.commit()?)
}

fn version(connection: &Connection) -> anyhow::Result<usize> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?.try_into()?)
}
