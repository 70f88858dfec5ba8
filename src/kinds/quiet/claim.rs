//! Containers that somebody makes quiet, or lets run again, at this moment: two runs that read two volumes of one container would
//! otherwise start it under each other's hands.
use std::{collections::BTreeSet, sync::LazyLock};

use tokio::sync::watch;

/// Ids of containers. One server has a home, and all that it runs is in this process.
static CLAIMED: LazyLock<watch::Sender<BTreeSet<String>>> = LazyLock::new(|| watch::channel(BTreeSet::new()).0);

/// Containers that are ours until this is dropped.
pub(in crate::kinds) struct Claim(BTreeSet<String>);

impl Claim {
    /// Waits until nobody has any of them, and takes all of them at once.
    pub(in crate::kinds) async fn take(ids: BTreeSet<String>) -> Self {
        let mut changes = CLAIMED.subscribe();
        loop {
            let is_ours = CLAIMED.send_if_modified(|claimed| {
                let is_free = claimed.is_disjoint(&ids);
                if is_free {
                    claimed.extend(ids.iter().cloned());
                }
                is_free
            });
            if is_ours {
                return Self(ids);
            }
            // The sender lives as long as the process.
            let _ = changes.changed().await;
        }
    }
}

/// Whether somebody makes it quiet, or lets it run again, at this moment.
pub(crate) fn is_claimed(id: &str) -> bool {
    CLAIMED.borrow().contains(id)
}

impl Drop for Claim {
    fn drop(&mut self) {
        CLAIMED.send_modify(|claimed| claimed.retain(|id| !self.0.contains(id)));
    }
}
