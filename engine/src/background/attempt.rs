//! One attempt at a step, and its outcome.
//!
//! An error or a panic of a step is not lost: it closes the write path, and the next write and
//! `health` report it. A scarcity, such as a full disk, is the exception: it is reported, and the
//! step is retried at growing intervals until there is room. Flushes and the log wait between two
//! attempts; compactions also skip looks for work.
use super::state::Background;
use crate::db::Core;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Error, ErrorKind, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    fn rest(&self, core: &Core, what: &'static str) {
        let env = &core.options.env;
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
            Some((_, left)) if *left > 0 && !planted::is(Bug::CompactionRetriedAtOnce) => {
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

/// Runs a step unless background work is paused.
pub(super) fn run_unpaused(core: &Core, what: &'static str, step: impl FnOnce() -> Result<bool>) -> bool {
    if !core.background.begin() {
        return false;
    }
    let more = guarded(core, what, step);
    core.background.end();
    more
}

/// Runs one step; reports its error or panic. Returns whether there may be more to do.
pub(super) fn guarded(core: &Core, what: &'static str, step: impl FnOnce() -> Result<bool>) -> bool {
    let error = match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(more)) => {
            if core.clear_no_space(what) {
                core.background.state.lock().failures.remove(what);
                core.background.retry_now();
            }
            return more;
        }
        Ok(Err(error)) => error,
        Err(panic) => {
            let message = panic
                .downcast_ref::<&str>()
                .map(|text| text.to_string())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "unknown".to_string());
            Error::new(ErrorKind::Poisoned, format!("background thread panicked: {message}"))
        }
    };
    match error.kind() {
        ErrorKind::Closed => {}
        ErrorKind::NoSpace | ErrorKind::OutOfResources if !planted::is(Bug::FullDiskIsFinal) => {
            core.report_no_space(what, error.context(what));
            core.background.rest(core, what);
        }
        _ if planted::is(Bug::ErrorSwallowed) => {}
        _ => core.poison(&error.context(what)),
    }
    false
}
