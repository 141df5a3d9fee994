//! Syncs of the log by the clock, for commits with `Durability::Periodic`.
//!
//! A published commit checks whether a sync will begin within its interval, and otherwise sets the
//! time for one. The syncing thread clears that time before it reads the published position. Only
//! databases with such commits have the thread; until it runs, and on a machine without threads,
//! the step of the log does its work.
use super::attempt::guarded;
use super::state::{Background, LOOK_UP, UNARMED};
use crate::planted;
use crate::runtime::Core;
use sapwood_base::Result;
use sapwood_storage::env::ThreadClass;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

/// The longest sleep of the syncing thread, however long its interval is.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

impl Core {
    /// Ensures that a sync begins within `every` from now, for a published commit that ends at
    /// `end`.
    #[inline]
    pub(crate) fn sync_within(&self, every: Duration, end: u64) {
        let every = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX - 1);
        // Pairs with the fence in `take_due_sync`: either the next sync sees the data that this
        // commit has published, or this sees that no sync is scheduled.
        fence(Ordering::SeqCst);
        if self.background.armed.load(Ordering::Relaxed) > every {
            self.arm(every, end);
        }
    }

    #[cold]
    fn arm(&self, every: u64, end: u64) {
        if self.wal.durable() >= end {
            return;
        }
        let due = self.options.env.now().saturating_add(Duration::from_nanos(every));
        let has_thread = {
            let mut state = self.background.state.lock();
            if state.sync_due.is_none_or(|known| due < known) {
                state.sync_due = Some(due);
            }
            // If an earlier commit armed it, its time also counts for this one: it lies in the
            // past.
            self.background.armed.fetch_min(every, Ordering::Relaxed);
            state.has_sync_thread
        };
        if has_thread || self.start_sync_thread() {
            self.background.wake_sync.notify_one();
        } else {
            // No thread can be started for now: the log thread syncs meanwhile, between its other
            // work.
            self.background.wake_log();
        }
    }

    /// Starts the thread that syncs by the clock, which only databases with such commits have.
    /// Provisioning, on the log thread, may take longer than the interval. False if it cannot be
    /// started.
    fn start_sync_thread(&self) -> bool {
        let (env, background) = (&self.options.env, &self.background);
        let Some(core) = self.this.upgrade().filter(|_| env.starts_threads()) else {
            return false;
        };
        {
            let mut state = background.state.lock();
            if state.shutdown || state.has_sync_thread || state.starts_sync_thread {
                return state.has_sync_thread;
            }
            state.starts_sync_thread = true;
        }
        let spawned = env.spawn("sapwood-sync", ThreadClass::Latency, move || sync_loop(&core));
        let has_thread = spawned.is_ok();
        background.threads.lock().extend(spawned);
        let mut state = background.state.lock();
        state.has_sync_thread = has_thread;
        state.starts_sync_thread = false;
        drop(state);
        background.changed.notify_all();
        has_thread
    }
}

impl Background {
    /// Whether a sync by the clock is due. The caller then syncs everything published from now on.
    fn take_due_sync(&self, now: Duration) -> bool {
        let mut state = self.state.lock();
        if state.sync_due.is_none_or(|due| now < due) {
            return false;
        }
        state.sync_due = None;
        self.armed.store(UNARMED, Ordering::Relaxed);
        drop(state);
        // Pairs with the fence in `sync_within`.
        fence(Ordering::SeqCst);
        true
    }
}

fn sync_loop(core: &Core) {
    let background = &core.background;
    loop {
        guarded(core, "sync of the log", || sync_step(core));
        let now = core.options.env.now();
        let mut state = background.state.lock();
        if state.shutdown {
            return;
        }
        let wait = state.sync_due.map_or(LONGEST_SLEEP, |due| due.saturating_sub(now).min(LONGEST_SLEEP));
        if !wait.is_zero() {
            background.wake_sync.wait_for(&mut state, planted::sleep_until(wait, LOOK_UP));
        }
    }
}

/// Syncs the log if that is due by the clock. True if it did.
pub(super) fn sync_step(core: &Core) -> Result<bool> {
    // A poisoned log takes no sync, and a sync that was due is not due again.
    if !core.background.take_due_sync(core.options.env.now()) || core.check_not_poisoned().is_err() {
        return Ok(false);
    }
    planted::not_before_periodic_sync(|| core.wal.provision_ahead())?;
    core.sync_by_the_clock()?;
    planted::not_after_periodic_sync(|| core.background.take_due_sync(Duration::MAX));
    Ok(true)
}
