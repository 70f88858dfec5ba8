//! How long texts may be where each server decides that: asked once a day, and remembered.
use std::{future::Future, time::Duration};

use serde_json::{Value, json};

use super::Sending;

/// Where it is remembered.
const LIMIT: &str = "limit";
/// For how many seconds.
const REMEMBERED: i64 = 24 * 3600;
/// The server is asked beside the message, which matters more: no longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// What `ask` says, or what was known before, or what `all` servers take.
pub(super) async fn of_server(cx: &Sending, all: usize, ask: impl Future<Output = Option<u64>>) -> usize {
    let now = cx.clock.now().timestamp();
    let known = cx.state(LIMIT).await.unwrap_or_default();
    let read = |name: &str| known.get(name).and_then(Value::as_i64);
    let limit = read("most").and_then(|most| usize::try_from(most).ok());
    if let Some(limit) = limit
        && read("at").is_some_and(|at| (0..REMEMBERED).contains(&(now - at)))
    {
        return limit;
    }
    let asked = tokio::time::timeout(PATIENCE, ask).await.ok().flatten();
    // A server that takes less than this has said something else.
    match asked.and_then(|most| usize::try_from(most).ok()).filter(|most| (100..=1_000_000).contains(most)) {
        Some(most) => {
            cx.remember(LIMIT, json!({ "most": most, "at": now })).await;
            most
        }
        None => limit.unwrap_or(all),
    }
}
