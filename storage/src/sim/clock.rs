//! The clock of a simulated machine, shared with its files: a slow device makes time pass.
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Start of the simulated time: 2025-01-01 UTC.
const BEGINNING_NS: i64 = 1_735_689_600_000_000_000;

/// Moves only on request. Outlives crashes: it belongs to the machine, not to the process.
#[derive(Default)]
pub(crate) struct SimClock {
    now_ns: AtomicU64,
    /// Offset of the time of day, forward or back.
    shift_ns: AtomicI64,
}

impl SimClock {
    /// Advances the clock, and returns the new time.
    pub(crate) fn advance(&self, nanoseconds: u64) -> Duration {
        // Relaxed: the clock orders nothing.
        Duration::from_nanos(self.now_ns.fetch_add(nanoseconds, Ordering::Relaxed).wrapping_add(nanoseconds))
    }

    /// Sets the time of day forward or back, without affecting elapsed time.
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
