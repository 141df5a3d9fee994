//! The step of the log: segments ahead of need, and syncs that are due by the clock or since the
//! opening.
use super::periodic::sync_step;
use super::state::{LOOK_UP, State};
use crate::planted;
use crate::runtime::Core;
use sapwood_base::Result;
use std::time::Duration;

/// Provisions log segments ahead of need, and syncs the log: the records that recovery has
/// replayed, and the rest if that is due by the clock. True if it synced.
pub(super) fn log_step(core: &Core) -> Result<bool> {
    // If a thread of its own does that, the sync is done, or about to be.
    let by_the_clock = sync_step(core)?;
    // Reported already.
    if core.check_not_poisoned().is_err() {
        return Ok(by_the_clock);
    }
    // Provisioning first, since writers would wait for it; but a full disk is no reason not to
    // sync.
    let provisioned = core.rotate_long_log().and_then(|()| core.wal.provision_ahead());
    let has_synced = core.sync_replayed()?;
    provisioned?;
    Ok(by_the_clock || has_synced)
}

/// How long the log thread may sleep, if it is not woken before.
pub(super) fn log_sleep(state: &State, now: Duration) -> Duration {
    let due = state.sync_due.filter(|_| !state.has_sync_thread);
    due.map_or(LOOK_UP, |due| planted::sleep_until(due.saturating_sub(now).min(LOOK_UP), LOOK_UP))
}

/// How long the log thread would sleep now, on a machine without threads.
#[cfg(feature = "sim")]
pub(crate) fn log_sleeps(core: &Core) -> Duration {
    let now = core.options.env.now();
    let mut state = core.background.state.lock();
    if std::mem::take(&mut state.log_wanted) { Duration::ZERO } else { log_sleep(&state, now) }
}
