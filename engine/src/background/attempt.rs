//! One attempt at a step, and its outcome.
//!
//! An error or a panic of a step is not lost: it closes the write path, and the next write and
//! `health` report it. A scarcity, such as a full disk, is the exception: it is reported, and the
//! step is retried at growing intervals (`retries.rs`).
use crate::planted;
use crate::runtime::Core;
use sapwood_base::{Error, ErrorKind, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};

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
        ErrorKind::NoSpace | ErrorKind::OutOfResources if planted::full_disk_can_pass() => {
            core.report_no_space(what, error.context(what));
            core.background.rest(&core.options.env, what);
        }
        _ => {
            if planted::errors_close_the_write_path() {
                core.poison(&error.context(what));
            }
        }
    }
    false
}
