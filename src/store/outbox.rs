//! The outbox: what is to be told, from the moment that it happens until it was told.
use rusqlite::Connection;

use super::to_json;
use crate::model::news::Outgoing;

/// Writes what is to be told, in the transaction of what it is about. What was written before is not written again.
pub(super) fn put(connection: &Connection, rows: &[Outgoing]) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO outbox (key, notifier, story, news, not_before) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (key) DO NOTHING",
    )?;
    for row in rows {
        let not_before = row.not_before.timestamp_millis();
        insert.execute((&row.key, &row.notifier, row.news.story(), to_json(&row.news)?, not_before))?;
    }
    Ok(())
}
