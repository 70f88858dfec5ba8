//! What time it is, and sleeping until later. The only door to the clock.
//!
//! A [`Clock`] follows Tokio's paused time, so a simulated year of schedules takes seconds in tests. Trap: sockets time
//! out falsely under paused time; tests with sockets run on real time.
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::Instant;

/// The longest uninterrupted sleep. The monotonic clock stands still while a machine is suspended and knows nothing of
/// a wall clock that is set, so nobody sleeps longer than this without looking at the time again.
pub const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Tells the time.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Simulated { base: DateTime<Utc>, since: Instant, step_ms: Arc<AtomicI64> },
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that shows `start` now and goes on with Tokio's time, paused or not.
    #[must_use]
    pub fn simulated(start: DateTime<Utc>) -> Self {
        Self(Source::Simulated { base: start, since: Instant::now(), step_ms: Arc::default() })
    }

    /// Sets a simulated clock forward or back, as an administrator or NTP would; the machine's own clock is left alone.
    pub fn step(&self, by: TimeDelta) {
        if let Source::Simulated { step_ms, .. } = &self.0 {
            step_ms.fetch_add(by.num_milliseconds(), Ordering::SeqCst);
        }
    }

    /// The time now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one door to the machine's clock")]
    pub fn now(&self) -> DateTime<Utc> {
        match &self.0 {
            Source::System => Utc::now(),
            Source::Simulated { base, since, step_ms } => {
                *base
                    + TimeDelta::from_std(since.elapsed()).unwrap_or(TimeDelta::MAX)
                    + TimeDelta::milliseconds(step_ms.load(Ordering::SeqCst))
            }
        }
    }

    /// Waits for `duration`, by the monotonic clock.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits until the wall clock shows `when` or later, looking at it at least once a second.
    pub async fn sleep_until(&self, when: DateTime<Utc>) {
        while let Ok(left) = (when - self.now()).to_std() {
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
        }
    }
}
