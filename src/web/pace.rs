//! How often somebody may call.
use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// What is counted is forgotten after this.
const MINUTE: Duration = Duration::from_secs(60);
/// So many callers are told apart; those beyond are one.
const MOST: usize = 10_000;

/// Calls of this minute, by caller.
#[derive(Debug)]
pub(super) struct Pace<K> {
    most: u32,
    counts: Mutex<(Instant, HashMap<Option<K>, u32>)>,
}

impl<K: Hash + Eq> Pace<K> {
    /// So many a minute.
    pub(super) fn new(most: u32) -> Self {
        Self { most, counts: Mutex::new((Instant::now(), HashMap::new())) }
    }

    /// Counts a call; whether it may be.
    pub(super) fn may(&self, caller: K) -> bool {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.0.elapsed() >= MINUTE {
            *counts = (Instant::now(), HashMap::new());
        }
        let caller = Some(caller);
        let key = if counts.1.len() < MOST || counts.1.contains_key(&caller) { caller } else { None };
        let count = counts.1.entry(key).or_default();
        *count = count.saturating_add(1);
        *count <= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_calls_too_often_waits_for_the_next_minute() {
        let pace = Pace::new(2);
        assert_eq!([1, 1, 1, 2].map(|caller| pace.may(caller)), [true, true, false, true]);
        tokio::time::advance(MINUTE).await;
        assert!(pace.may(1));
        for other in 0..2 * MOST {
            pace.may(other + 10);
        }
        assert!(pace.counts.lock().unwrap().1.len() <= MOST + 1);
    }
}
