//! Retries of steps that met a scarcity, such as a full disk.
//!
//! The intervals grow until there is room. Flushes and the log wait between two attempts;
//! compactions also skip looks for work.
use super::state::Background;
use crate::planted;
use sapwood_base::Error;
use sapwood_storage::env::Env;
use std::time::Duration;

/// The kind of work that writers wait for when all memtables are full.
pub(crate) const FLUSH: &str = "flush";
/// The kind of work that an idle database waits for.
pub(super) const COMPACTION: &str = "compaction";
/// Delay before a step that met a scarcity is retried: initial, and longest.
const RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// Limit of looks for work skipped after a compaction that met a scarcity.
const COMPACTION_LOOKS_MAX: u32 = 32;

impl Background {
    /// Retries steps that met a scarcity at once, because a call waits for them or space was freed.
    pub(crate) fn retry_now(&self) {
        self.state.lock().compaction_retry = None;
        self.wake_rest.notify_all();
    }

    /// Waits before a step of the kind `what` that met a scarcity is retried: longer each time, to
    /// limit useless writes.
    pub(super) fn rest(&self, env: &Env, what: &'static str) {
        let mut state = self.state.lock();
        let failures = state.failures.entry(what).or_default();
        // Compactions skip looks for work.
        let doublings = if what == COMPACTION { 0 } else { (*failures).min(8) };
        let nap = LONGEST_RETRY.min(RETRY * (1 << doublings));
        *failures += 1;
        if !env.starts_threads() {
            drop(state);
            return env.sleep(RETRY);
        }
        // A wait that ends early costs an attempt, no more.
        if !state.shutdown {
            self.wake_rest.wait_for(&mut state, nap);
        }
    }

    /// Whether to skip this look for compactions. A slice that does not fit on the disk is written
    /// and removed again, so each failure skips twice as many looks as the one before. They are
    /// counted, not timed: the thread looks four times a second.
    pub(super) fn puts_compaction_off(&self) -> bool {
        match &mut self.state.lock().compaction_retry {
            Some((_, left)) if *left > 0 && planted::failed_compaction_waits() => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    /// Records the outcome of a step of compaction.
    pub(super) fn note_compaction(&self, error: Option<&Error>) {
        let mut state = self.state.lock();
        let looks = match (error, state.compaction_retry) {
            (Some(error), None) if error.is_scarcity() => Some(1),
            (Some(error), Some((looks, _))) if error.is_scarcity() => {
                Some((looks * 2).min(COMPACTION_LOOKS_MAX))
            }
            _ => None,
        };
        state.compaction_retry = looks.map(|looks| (looks, looks));
    }
}
