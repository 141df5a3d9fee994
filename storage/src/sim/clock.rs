//! The clock of a simulated machine, which files share with it: a slow device makes time pass.
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// When the simulated time begins: 2025-01-01 UTC.
const BEGINNING_NS: i64 = 1_735_689_600_000_000_000;

/// Moves only when asked. Outlives crashes: it belongs to the machine, not to the process.
#[derive(Default)]
pub(crate) struct SimClock {
    now_ns: AtomicU64,
    /// How far the time of day has been set forward, or back.
    shift_ns: AtomicI64,
}

impl SimClock {
    /// Moves on, and says what the time is then.
    pub(crate) fn advance(&self, nanoseconds: u64) -> Duration {
        // Relaxed: the clock orders nothing.
        Duration::from_nanos(self.now_ns.fetch_add(nanoseconds, Ordering::Relaxed).wrapping_add(nanoseconds))
    }

    /// Sets the time of day forward or back; the time that passes is not touched.
    pub(crate) fn jump(&self, nanoseconds: i64) {
        self.shift_ns.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// The time of day when this much time has passed. A clock set before 1970 reads as 1970.
    pub(crate) fn unix_time(&self, now: Duration) -> Duration {
        let beginning = BEGINNING_NS.saturating_add(self.shift_ns.load(Ordering::Relaxed));
        match u64::try_from(beginning) {
            Ok(beginning) => now + Duration::from_nanos(beginning),
            Err(_) => now.saturating_sub(Duration::from_nanos(beginning.unsigned_abs())),
        }
    }
}
