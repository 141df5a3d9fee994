//! The state that the threads of background work share with callers, and their condition variables.
//!
//! `pause.rs`, `turns.rs`, `retries.rs` and `periodic.rs` add their methods to [`Background`]. Its
//! mutex is held only to read or note state: no step runs under it.
use crate::refusal::closed;
use sapwood_base::{KeyspaceId, Result};
use sapwood_compaction::picker::Interrupted;
use sapwood_storage::env::JoinHandle;
use sapwood_storage::sync::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::ThreadId;
use std::time::Duration;

/// Interval at which an idle thread checks for work.
pub(crate) const LOOK_UP: Duration = Duration::from_millis(250);
/// Interval at which a call that waits for a step looks again.
const STEP_LOOK: Duration = Duration::from_millis(20);
/// No commit waits for a sync by the clock.
pub(super) const UNARMED: u64 = u64::MAX;

/// The threads, and the state and the signals that drive them.
pub(crate) struct Background {
    pub(super) state: Mutex<State>,
    pub(super) wake_flush: Condvar,
    pub(super) wake_compaction: Condvar,
    pub(super) wake_log: Condvar,
    pub(super) wake_sync: Condvar,
    pub(super) wake_rest: Condvar,
    /// Notified after every step.
    pub(crate) changed: Condvar,
    /// Ends a compaction step early.
    pub(crate) stop: AtomicBool,
    /// The shortest interval, in nanoseconds, of the commits that wait for a sync by the clock:
    /// from now on `State::sync_due` covers any commit with this interval or a longer one.
    /// [`UNARMED`] if there are none.
    pub(super) armed: AtomicU64,
    pub(super) threads: Mutex<Vec<JoinHandle>>,
}

/// The state guarded by the mutex of [`Background`].
#[derive(Default)]
pub(super) struct State {
    pub(super) shutdown: bool,
    /// A close is under way: nothing may be paused.
    pub(super) closing: bool,
    /// The threads that paused background work, one entry for each pause.
    pub(super) paused: Vec<ThreadId>,
    pub(super) flush_wanted: bool,
    pub(super) compaction_wanted: bool,
    pub(super) log_wanted: bool,
    /// While compactions meet a scarcity: number of looks for work skipped between two attempts,
    /// and number left.
    pub(super) compaction_retry: Option<(u32, u32)>,
    /// Keyspaces with a compaction under way.
    pub(super) busy: HashSet<KeyspaceId>,
    /// Number of compaction steps of other keyspaces since the last one of a keyspace.
    pub(super) waiting: HashMap<KeyspaceId, u32>,
    /// The compactions of a keyspace that have not reached their end, oldest first.
    pub(super) merges: HashMap<KeyspaceId, Vec<Arc<Interrupted>>>,
    /// The threads of flushes and compactions under way.
    pub(super) workers: Vec<ThreadId>,
    /// The threads of calls that work on the database, see [`Background::enter`].
    pub(super) callers: Vec<ThreadId>,
    /// Number of consecutive steps that met a scarcity, by kind.
    pub(super) failures: HashMap<&'static str, u32>,
    /// When a write first met the present pause.
    pub(super) writes_paused_since: Option<Duration>,
    /// Calls that wait for the work of an idle database, see [`Background::idle_now`].
    pub(super) settling: usize,
    /// Published position when the database was last seen busy, and the time of that.
    pub(super) last_write: (u64, Duration),
    /// When the log is to be synced by the clock; `None` if no commit waits for it.
    pub(super) sync_due: Option<Duration>,
    /// Whether the thread that syncs by the clock runs. Until then the log thread does that.
    pub(super) has_sync_thread: bool,
    /// Whether it is being started: `shut_down` waits until its handle is recorded.
    pub(super) starts_sync_thread: bool,
}

impl Default for Background {
    fn default() -> Background {
        Background {
            state: Mutex::default(),
            wake_flush: Condvar::new(),
            wake_compaction: Condvar::new(),
            wake_log: Condvar::new(),
            wake_sync: Condvar::new(),
            wake_rest: Condvar::new(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            armed: AtomicU64::new(UNARMED),
            threads: Mutex::default(),
        }
    }
}

impl Background {
    pub(super) fn notify_all(&self) {
        self.wake_flush.notify_all();
        self.wake_compaction.notify_all();
        self.wake_log.notify_all();
        self.wake_sync.notify_all();
        self.wake_rest.notify_all();
        self.changed.notify_all();
    }

    /// Requests a look at immutable memtables.
    pub(crate) fn wake_flush(&self) {
        self.state.lock().flush_wanted = true;
        self.wake_flush.notify_one();
    }

    /// Requests a look at the shape of the tree.
    pub(crate) fn wake_compaction(&self) {
        self.state.lock().compaction_wanted = true;
        self.wake_compaction.notify_all();
    }

    /// Requests log segments ahead of need.
    pub(crate) fn wake_log(&self) {
        self.state.lock().log_wanted = true;
        self.wake_log.notify_one();
    }

    /// Makes background work treat the database as idle until the guard is dropped.
    pub(crate) fn idle_now(&self) -> IdleNow<'_> {
        self.state.lock().settling += 1;
        IdleNow { background: self }
    }

    /// Waits for the end of a step. Errors: `Closed` once no step will come.
    pub(crate) fn wait_for_step(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.shutdown {
            return Err(closed());
        }
        // A step may end between the caller's look and this wait, so the wait is bounded.
        self.changed.wait_for(&mut state, STEP_LOOK);
        Ok(())
    }

    pub(super) fn is_shut_down(&self) -> bool {
        self.state.lock().shutdown
    }
}

/// See [`Background::idle_now`].
pub(crate) struct IdleNow<'a> {
    background: &'a Background,
}

impl Drop for IdleNow<'_> {
    fn drop(&mut self) {
        self.background.state.lock().settling -= 1;
    }
}
