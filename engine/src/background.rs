//! Background work: flush, compaction, log provisioning, removal of files.
//!
//! Each kind of work is a function that does one step and says whether there was something to do; the threads here
//! only call them in loops. A flush never waits behind a compaction: it has its own thread. An error or a panic of a
//! step is not lost: it closes the write path, and the next write and `health` report it. A full disk is the
//! exception: the step is tried again until there is room.
//!
//! On a machine without threads the same functions are called by whoever drives the database, one step at a time, and
//! by those who would otherwise wait: see [`give_way`].
use crate::db::{Core, closed};
use crate::index::{apply, clean};
use crate::read::super_version::{CoveringView, KeyspaceView, SuperVersion};
use crate::write::stall::STEP;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::manifest::Edit;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Error, ErrorKind, FileNumber, KeyspaceId, Result};
use sapwood_compaction::flush::flush;
use sapwood_compaction::garbage::Survey;
use sapwood_compaction::job::{Job, Step};
use sapwood_compaction::picker::{self, Compaction, Moment, Work};
use sapwood_compaction::{Run, TableHandle, Version};
use sapwood_storage::env::{JoinHandle, ThreadClass};
use sapwood_storage::sync::{Condvar, Mutex, receive};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::ThreadId;
use std::time::Duration;

/// The kind of work that writers wait for when all memtables are full.
pub(crate) const FLUSH: &str = "flush";
/// The kind of work that an idle database waits for.
const COMPACTION: &str = "compaction";
/// Ends the thread that removes files.
const SWEEP_ENDS: FileName = FileName::Lock;
/// How long a step that met a scarcity waits before it is tried again: at first, and at most.
const RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// How long writes, and calls that need background work, wait for the end of a pause.
const PAUSE_BORNE: Duration = Duration::from_millis(500);
/// How often such a call looks whether the pause is over.
const PAUSE_LOOK: Duration = Duration::from_millis(1);
/// How often an idle compaction thread looks up.
const LOOK_UP: Duration = Duration::from_millis(250);
/// The longest sleep of the thread that syncs, however long its interval is.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// No commit waits for a sync by the clock.
const UNARMED: u64 = u64::MAX;
/// A compaction's output is brought into the cache if this share of its input was there.
const WARM_SHARE: f64 = 0.25;
/// How often, and how long each time, a merge that was asked for waits for files to be removed.
const FILES_LOOKS: usize = 100;
const FILES_LOOK: Duration = Duration::from_millis(1);
/// Turns of the collector of replaced versions between two looks for work.
const RELEASE_TURNS: usize = 4;
/// What each step for another keyspace adds to the urgency of one that waits, in units of its [`picker::pressure`].
const WAITING_WEIGHT: f64 = 1.0 / 8.0;
/// The memtable of an idle database is written out if what it hides in tables comes to this many bytes,
const IDLE_FLUSH_BYTES: u64 = 256 << 10;
/// and to one part in so many of the keyspace: less would not be merged away.
const IDLE_FLUSH_SHARE: u64 = 10;
/// No write for this long makes a database idle.
const IDLE: Duration = Duration::from_secs(1);
/// After a compaction that met a scarcity, at most this many looks for work go by before it is tried again.
const COMPACTION_LOOKS_MAX: u32 = 32;
/// On a machine without threads: how many turns in a row may find nothing to do before a wait is hopeless. A step that
/// meets a full disk counts as nothing.
const FRUITLESS_MAX: u32 = 1000;

/// How many small compactions of a keyspace a close does at most.
const CLOSING_MERGES: u32 = 8;
/// How often a close looks whether another thread has done one, and how often it does so at most.
const CLOSING_LOOK: Duration = Duration::from_millis(1);
const CLOSING_WAITS: u32 = 200;

#[derive(Default)]
struct State {
    shutdown: bool,
    /// A close is under way: nothing may be paused.
    closing: bool,
    /// The threads that paused background work, one entry for each pause.
    paused: Vec<ThreadId>,
    flush_wanted: bool,
    compaction_wanted: bool,
    log_wanted: bool,
    /// Since compactions meet a scarcity: how many looks for work go by between two tries, and how many are still to.
    compaction_retry: Option<(u32, u32)>,
    /// Keyspaces with a compaction under way.
    busy: HashSet<KeyspaceId>,
    /// How many steps of compaction went to others since a keyspace had its last one.
    waiting: HashMap<KeyspaceId, u32>,
    /// The threads of flushes and compactions under way.
    workers: Vec<ThreadId>,
    /// The threads of calls that work on the database, see [`Background::enter`].
    callers: Vec<ThreadId>,
    /// Steps that met a scarcity, by kind: how often in a row.
    failures: HashMap<&'static str, u32>,
    /// When a write first met the present pause.
    writes_paused_since: Option<Duration>,
    /// Who waits for what an idle database does, see [`Background::idle_now`].
    settling: usize,
    /// Published position when the database was last seen busy, and when that was.
    last_write: (u64, Duration),
    /// When the log is to be synced by the clock; `None` if no commit waits for it.
    sync_due: Option<Duration>,
    /// Whether the thread that syncs by the clock runs. Until then the log thread does that.
    has_sync_thread: bool,
    /// It is being started: `shut_down` waits until it knows of it.
    starts_sync_thread: bool,
}

/// Takes one piece of work of a thread off a list.
fn remove_one(threads: &mut Vec<ThreadId>, thread: ThreadId) {
    let place = threads.iter().position(|other| *other == thread);
    threads.swap_remove(place.expect("what ends has begun"));
}

/// A kind of background work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackgroundStep {
    /// Writes the oldest immutable memtable into level 0.
    Flush,
    /// Runs the most urgent compaction, or the next part of it.
    Compaction,
    /// Syncs the log if that is due by the clock, or an opening has left it to do; makes log segments ahead of need.
    Log,
    /// Removes the files of tables that nobody reads any more.
    Sweep,
}

impl BackgroundStep {
    /// All kinds.
    pub const ALL: [BackgroundStep; 4] =
        [BackgroundStep::Flush, BackgroundStep::Compaction, BackgroundStep::Log, BackgroundStep::Sweep];
}

/// The threads, and what wakes them.
pub(crate) struct Background {
    state: Mutex<State>,
    wake_flush: Condvar,
    wake_compaction: Condvar,
    wake_log: Condvar,
    wake_sync: Condvar,
    wake_rest: Condvar,
    /// Notified after every step.
    pub(crate) changed: Condvar,
    /// Ends a compaction step early.
    pub(crate) stop: AtomicBool,
    /// The shortest interval, in nanoseconds, of the commits that wait for a sync by the clock: whoever commits from now on
    /// with this interval or a longer one is covered by `State::sync_due`. [`UNARMED`] if there are none.
    armed: AtomicU64,
    /// What a thread that is started later works on.
    core: OnceLock<Weak<Core>>,
    threads: Mutex<Vec<JoinHandle>>,
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
            core: OnceLock::new(),
            threads: Mutex::default(),
        }
    }
}

impl Background {
    /// Starts the threads.
    pub(crate) fn start(core: &Arc<Core>) -> Result<()> {
        let env = core.options.env.clone();
        let _ = core.background.core.set(Arc::downgrade(core));
        if !env.starts_threads() {
            return Ok(());
        }
        // Each is noted at once: if a later one cannot be started, those before are still ended.
        let spawn = |name, class, body: Box<dyn FnOnce() + Send>| -> Result<()> {
            let thread = env.spawn(name, class, body)?;
            core.background.threads.lock().push(thread);
            Ok(())
        };
        let shared = core.clone();
        spawn("sapwood-flush", ThreadClass::Latency, Box::new(move || flush_loop(&shared)))?;
        let shared = core.clone();
        spawn("sapwood-log", ThreadClass::Latency, Box::new(move || log_loop(&shared)))?;
        let (shared, files) = (core.clone(), core.obsolete_files.clone());
        let sweep = move || {
            // Ends when the core drops its sender at shutdown.
            while let Some(file) = receive(&files) {
                if file == SWEEP_ENDS {
                    break;
                }
                shared.background.begin_removal();
                // What cannot be removed now is removed as an orphan at the next opening.
                let _ = shared.context.fs.remove_file(&shared.context.path(file));
                shared.background.end();
            }
        };
        spawn("sapwood-sweep", ThreadClass::Background, Box::new(sweep))?;
        for _ in 0..core.options.advanced.background_threads {
            let shared = core.clone();
            let body = move || compaction_loop(&shared);
            spawn("sapwood-compact", ThreadClass::Background, Box::new(body))?;
        }
        Ok(())
    }

    /// Ends all threads. Unfinished compactions are dropped: their inputs are still there.
    pub(crate) fn shut_down(&self, core: &Core) {
        self.stop.store(true, Ordering::Relaxed);
        {
            let mut state = self.state.lock();
            state.shutdown = true;
            self.notify_all();
            while state.starts_sync_thread {
                self.changed.wait(&mut state);
            }
        }
        let _ = core.context.obsolete.send(SWEEP_ENDS);
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A panic was caught inside the thread and reported already.
            let _ = thread.join();
        }
    }

    fn notify_all(&self) {
        self.wake_flush.notify_all();
        self.wake_compaction.notify_all();
        self.wake_log.notify_all();
        self.wake_sync.notify_all();
        self.wake_rest.notify_all();
        self.changed.notify_all();
    }

    /// Asks for a look at immutable memtables.
    pub(crate) fn wake_flush(&self) {
        self.state.lock().flush_wanted = true;
        self.wake_flush.notify_one();
    }

    /// Asks for a look at the shape of the tree.
    pub(crate) fn wake_compaction(&self) {
        self.state.lock().compaction_wanted = true;
        self.wake_compaction.notify_all();
    }

    /// Has steps tried again at once that met a scarcity: somebody waits for them, or something was given back.
    pub(crate) fn retry_now(&self) {
        self.state.lock().compaction_retry = None;
        self.wake_rest.notify_all();
    }

    /// Waits before a step of the kind `what` is tried again that has met a scarcity: longer each time, so that little is
    /// written in vain.
    fn rest(&self, core: &Core, what: &'static str) {
        let env = &core.options.env;
        let mut state = self.state.lock();
        let failures = state.failures.entry(what).or_default();
        // Compactions let looks for work go by.
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

    /// Errors: `Paused` while flushes and compactions are stopped, for a write that waits for one. A short pause makes it
    /// wait; one that lasts may be its own caller's.
    pub(crate) fn check_not_paused(&self, core: &Core) -> Result<()> {
        let now = core.options.env.now();
        let mut state = self.state.lock();
        if state.paused.is_empty() || planted::is(Bug::PausedWritesWait) {
            return Ok(());
        }
        let since = *state.writes_paused_since.get_or_insert(now);
        if now.saturating_sub(since) < PAUSE_BORNE {
            return Ok(());
        }
        let message = "background work is paused and every memtable is full; resume_background makes room for the write";
        Err(Error::new(ErrorKind::Paused, message))
    }

    /// Asks for log segments ahead of need.
    pub(crate) fn wake_log(&self) {
        self.state.lock().log_wanted = true;
        self.wake_log.notify_one();
    }

    /// Makes a sync begin within `every` from now, for a commit that ends at `end` and is published.
    #[inline]
    pub(crate) fn sync_within(&self, core: &Core, every: Duration, end: u64) {
        let every = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX - 1);
        // Pairs with the fence in `take_due_sync`: either the sync to come sees what this commit has published, or this
        // sees that no sync is to come.
        fence(Ordering::SeqCst);
        if self.armed.load(Ordering::Relaxed) > every {
            self.arm(core, every, end);
        }
    }

    #[cold]
    fn arm(&self, core: &Core, every: u64, end: u64) {
        if core.wal.durable() >= end {
            return;
        }
        let due = core.options.env.now().saturating_add(Duration::from_nanos(every));
        let has_thread = {
            let mut state = self.state.lock();
            if state.sync_due.is_none_or(|known| due < known) {
                state.sync_due = Some(due);
            }
            // The time of a commit that armed it before counts for this one: it lies in the past.
            self.armed.fetch_min(every, Ordering::Relaxed);
            state.has_sync_thread
        };
        if has_thread || self.start_sync_thread(core) {
            self.wake_sync.notify_one();
        } else {
            // Scarcity of threads that passes: the log thread syncs meanwhile, between its other work.
            self.wake_log();
        }
    }

    /// Starts the thread that syncs by the clock, which only databases with such commits have. Making segments, on the log
    /// thread, may take longer than the interval. False if it cannot be started.
    fn start_sync_thread(&self, core: &Core) -> bool {
        let env = &core.options.env;
        let Some(core) = self.core.get().and_then(Weak::upgrade).filter(|_| env.starts_threads()) else {
            return false;
        };
        {
            let mut state = self.state.lock();
            if state.shutdown || state.has_sync_thread || state.starts_sync_thread {
                return state.has_sync_thread;
            }
            state.starts_sync_thread = true;
        }
        let spawned = env.spawn("sapwood-sync", ThreadClass::Latency, move || sync_loop(&core));
        let has_thread = spawned.is_ok();
        self.threads.lock().extend(spawned);
        let mut state = self.state.lock();
        state.has_sync_thread = has_thread;
        state.starts_sync_thread = false;
        drop(state);
        self.changed.notify_all();
        has_thread
    }

    /// Whether a sync by the clock is due. The caller then syncs all that is published from now on.
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

    /// Begins a call that works on the database from a user's thread: that writes files, or waits for others to. A close
    /// waits until no such call is left. With `needs_work` it is one that flushes and compactions have to serve.
    ///
    /// A call that needs work waits for the end of a short pause of another thread. One that lasts may be its own
    /// caller's, on whatever thread.
    ///
    /// Errors: `Closed` once a close has begun; `Paused` where a pause would make the call wait for long.
    pub(crate) fn enter(&self, core: &Core, needs_work: bool) -> Result<Call<'_>> {
        let env = &core.options.env;
        let thread = std::thread::current().id();
        let mut since = None;
        let mut state = self.state.lock();
        while needs_work && !state.closing && !state.paused.is_empty() {
            let now = env.now();
            let has_waited = now.saturating_sub(*since.get_or_insert(now));
            if !env.starts_threads() || state.paused.contains(&thread) || has_waited >= PAUSE_BORNE {
                return Err(paused());
            }
            drop(state);
            env.sleep(PAUSE_LOOK);
            state = self.state.lock();
        }
        if state.closing {
            return Err(closed());
        }
        state.callers.push(thread);
        Ok(Call { background: self, thread })
    }

    /// Refuses what would wait for its own caller: a call from code of the user that the database runs, such as the
    /// extractor of an index, within work that the call has to wait for.
    pub(crate) fn refuse_inside(&self, what: &str) -> Result<()> {
        let this = std::thread::current().id();
        let state = self.state.lock();
        let is_thread = || self.threads.lock().iter().any(|thread| thread.thread().id() == this);
        if state.callers.contains(&this) || state.workers.contains(&this) || is_thread() {
            let message =
                format!("{what} waits for the call that runs this code; call it after that has returned");
            return Err(Error::invalid_argument(message));
        }
        Ok(())
    }

    /// Waits until no call of [`Background::enter`] is left. REQUIRES: the database is shut down, so that they end.
    pub(crate) fn wait_for_calls(&self) {
        if planted::is(Bug::CloseLeavesCalls) {
            return;
        }
        let mut state = self.state.lock();
        while !state.callers.is_empty() {
            self.changed.wait(&mut state);
        }
    }

    /// Stops new flushes and compactions, and waits for those under way, up to the end of their present slice.
    pub(crate) fn pause(&self) -> Result<()> {
        self.refuse_inside("pause_background")?;
        let mut state = self.state.lock();
        if state.closing {
            return Err(closed());
        }
        state.paused.push(std::thread::current().id());
        while !state.workers.is_empty() && !state.shutdown {
            self.changed.wait(&mut state);
        }
        Ok(())
    }

    /// [`Background::begin`] for a call that does such work itself: it waits for the end of a pause that began after the
    /// call. Errors: `Closed`, where nothing has begun.
    fn begin_call_work(&self) -> Result<()> {
        let mut state = self.state.lock();
        while !state.paused.is_empty() && !state.shutdown {
            self.changed.wait(&mut state);
        }
        if state.shutdown {
            return Err(closed());
        }
        state.workers.push(std::thread::current().id());
        Ok(())
    }

    /// Between two slices of such work: lets a pause happen, and goes on after it.
    pub(crate) fn wait_while_paused(&self) -> Result<()> {
        if !self.should_yield() {
            return Ok(());
        }
        self.end();
        let begun = self.begin_call_work();
        if begun.is_err() {
            // The caller ends what it has begun all the same.
            self.state.lock().workers.push(std::thread::current().id());
        }
        begun
    }

    /// Takes one `pause` back.
    pub(crate) fn resume(&self) {
        let mut state = self.state.lock();
        let this = std::thread::current().id();
        let own = state.paused.iter().rposition(|thread| *thread == this);
        if let Some(place) = own.or(state.paused.len().checked_sub(1)) {
            state.paused.swap_remove(place);
        }
        if state.paused.is_empty() {
            state.writes_paused_since = None;
        }
        self.notify_all();
    }

    /// Takes every `pause` back, those to come as well: the database is closing.
    pub(crate) fn resume_for_good(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        state.paused.clear();
        self.notify_all();
    }

    /// Makes background work take the database for idle until the guard is dropped.
    pub(crate) fn idle_now(&self) -> IdleNow<'_> {
        self.state.lock().settling += 1;
        IdleNow { background: self }
    }

    /// Whether a flush or a compaction is under way.
    pub(crate) fn is_running(&self) -> bool {
        !self.state.lock().workers.is_empty()
    }

    /// Begins a flush or a compaction; false while there must be none.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        if state.shutdown || !state.paused.is_empty() {
            return false;
        }
        state.workers.push(std::thread::current().id());
        true
    }

    /// Begins the removal of a file, after the end of a pause.
    fn begin_removal(&self) {
        let mut state = self.state.lock();
        while !state.paused.is_empty() {
            self.changed.wait(&mut state);
        }
        state.workers.push(std::thread::current().id());
    }

    /// The end of what [`Background::begin`] began on this thread.
    pub(crate) fn end(&self) {
        remove_one(&mut self.state.lock().workers, std::thread::current().id());
        self.changed.notify_all();
    }

    fn claim(&self, keyspace: KeyspaceId) -> bool {
        self.state.lock().busy.insert(keyspace)
    }

    fn release(&self, keyspace: KeyspaceId) {
        self.state.lock().busy.remove(&keyspace);
        self.changed.notify_all();
    }

    /// Whether this look for compactions goes by without a try. A slice that does not fit on the disk is written and taken
    /// back, so each failure lets twice as many looks go by as the one before. They are counted, not timed: the thread
    /// looks four times a second.
    fn puts_compaction_off(&self) -> bool {
        match &mut self.state.lock().compaction_retry {
            Some((_, left)) if *left > 0 && !planted::is(Bug::CompactionRetriedAtOnce) => {
                *left -= 1;
                true
            }
            _ => false,
        }
    }

    /// Takes down how a step of compaction ended.
    fn note_compaction(&self, error: Option<&Error>) {
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

    /// Keyspaces in the order in which a compaction is to be looked for: by urgency, and by how long they have waited. So
    /// one that always has work cannot keep the others from theirs.
    fn queue(&self, keyspaces: impl Iterator<Item = (KeyspaceId, f64)>) -> Vec<KeyspaceId> {
        let mut state = self.state.lock();
        let mut queue: Vec<(KeyspaceId, f64)> = keyspaces
            .map(|(id, pressure)| {
                let waited = state.waiting.get(&id).copied().unwrap_or(0);
                (id, pressure + f64::from(waited) * WAITING_WEIGHT)
            })
            .collect();
        if state.waiting.len() > queue.len() {
            // Some were dropped.
            let ids: HashSet<KeyspaceId> = queue.iter().map(|(id, _)| *id).collect();
            state.waiting.retain(|id, _| ids.contains(id));
        }
        if !planted::is(Bug::FirstKeyspaceFirst) {
            queue.sort_by(|a, b| b.1.total_cmp(&a.1));
        }
        queue.into_iter().map(|(id, _)| id).collect()
    }

    /// Takes down that a keyspace was looked at. If it had work, those `behind` it wait once more.
    fn note_turn(&self, keyspace: KeyspaceId, behind: Option<&[KeyspaceId]>) {
        let mut state = self.state.lock();
        state.waiting.remove(&keyspace);
        for id in behind.unwrap_or_default() {
            *state.waiting.entry(*id).or_insert(0) += 1;
        }
    }

    fn is_paused(&self) -> bool {
        !self.state.lock().paused.is_empty()
    }

    fn is_shut_down(&self) -> bool {
        self.state.lock().shutdown
    }

    /// Whether work must stop between two slices.
    pub(crate) fn should_yield(&self) -> bool {
        let state = self.state.lock();
        state.shutdown || !state.paused.is_empty()
    }
}

/// A call that is under way, see [`Background::enter`].
pub(crate) struct Call<'a> {
    background: &'a Background,
    /// The one that began it, whichever ends it.
    thread: ThreadId,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        remove_one(&mut self.background.state.lock().callers, self.thread);
        self.background.changed.notify_all();
    }
}

#[cold]
fn paused() -> Error {
    let message = "background work is paused, and this call would wait for it; resume_background first";
    Error::new(ErrorKind::Paused, message)
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

/// Waits until all memtables but the active one are in tables and no compaction is due or under way; with `idle`, also
/// none of those that wait for a database without writes.
pub(crate) fn wait_for_work(core: &Core, idle: bool) -> Result<()> {
    // Only a scarcity that is met from now on counts.
    core.clear_no_space(FLUSH);
    core.clear_no_space(COMPACTION);
    core.background.retry_now();
    core.background.wake_flush();
    core.background.wake_compaction();
    wait_until(core, || {
        core.check_not_poisoned()?;
        core.check_has_space(&[FLUSH, COMPACTION])?;
        let flushed = core.view.reference().generations.len() <= 1;
        Ok(flushed && !core.background.is_running() && !compaction_due(core, idle))
    })
}

/// Waits until `done`, which is asked again after every step.
pub(crate) fn wait_until(core: &Core, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let background = &core.background;
    let mut fruitless = 0;
    loop {
        if done()? {
            return Ok(());
        }
        if !core.options.env.starts_threads() {
            fruitless = if any_step(core) { 0 } else { fruitless + 1 };
            assert!(fruitless < FRUITLESS_MAX, "waits for background work that there is not");
            core.options.env.sleep(LOOK_UP);
            continue;
        }
        let mut state = background.state.lock();
        if state.shutdown {
            return Err(closed());
        }
        // A step may end between the question and the wait, so the wait is bounded.
        background.changed.wait_for(&mut state, Duration::from_millis(20));
    }
}

/// Lets background work happen: a short sleep, or one step of it on a machine without threads.
pub(crate) fn give_way(core: &Core) {
    if !core.options.env.starts_threads() {
        any_step(core);
    }
    core.options.env.sleep(STEP);
}

/// One step of any kind that has something to do; the machine's random numbers say where to look first. False if
/// nothing is due.
fn any_step(core: &Core) -> bool {
    let first = core.options.env.random_u64() as usize;
    let kinds = BackgroundStep::ALL;
    (0..kinds.len()).any(|i| run_step(core, kinds[(first % kinds.len() + i) % kinds.len()]))
}

/// One step of a kind, as its thread would do it. False if there was nothing to do.
pub(crate) fn run_step(core: &Core, step: BackgroundStep) -> bool {
    match step {
        BackgroundStep::Flush => run_unpaused(core, FLUSH, || flush_step(core)),
        BackgroundStep::Compaction => {
            let idle = is_idle(core);
            !core.options.advanced.disable_auto_compactions
                && !core.background.puts_compaction_off()
                && run_unpaused(core, COMPACTION, || {
                    let result = compaction_step(core, idle);
                    core.background.note_compaction(result.as_ref().err());
                    result
                })
        }
        BackgroundStep::Log => guarded(core, "log", || log_step(core)),
        BackgroundStep::Sweep => sweep_step(core),
    }
}

/// Runs a step that a pause stops.
fn run_unpaused(core: &Core, what: &'static str, step: impl FnOnce() -> Result<bool>) -> bool {
    if !core.background.begin() {
        return false;
    }
    let more = guarded(core, what, step);
    core.background.end();
    more
}

/// Runs one step; reports its error or panic. Returns whether there may be more to do.
fn guarded(core: &Core, what: &'static str, step: impl FnOnce() -> Result<bool>) -> bool {
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

fn flush_loop(core: &Core) {
    let background = &core.background;
    loop {
        if run_step(core, BackgroundStep::Flush) {
            background.wake_compaction();
            continue;
        }
        let mut state = background.state.lock();
        if state.shutdown {
            return;
        }
        if state.flush_wanted && state.paused.is_empty() {
            state.flush_wanted = false;
            continue;
        }
        // Bounded, so that a flush that met a full disk is tried again.
        background.wake_flush.wait_for(&mut state, LOOK_UP);
    }
}

/// Writes the oldest immutable memtable into level 0. False if there is none.
///
/// On a full disk, the flush removes spare segments of the log first: it frees more log than it
/// writes tables.
pub(crate) fn flush_step(core: &Core) -> Result<bool> {
    match flush_oldest(core) {
        Err(error)
            if error.kind() == ErrorKind::NoSpace
                && !planted::is(Bug::SparesOnFullDisk)
                && core.wal.give_back_spares() =>
        {
            flush_oldest(core)
        }
        result => result,
    }
}

fn flush_oldest(core: &Core) -> Result<bool> {
    let _flushing = core.flushing.lock();
    let view = core.view.reference();
    let [.., next, oldest] = view.generations.as_slice() else { return Ok(false) };
    core.check_not_poisoned()?;
    core.options.env.check_memory(0)?;
    let end = next.start();
    if planted::is(Bug::RecycledBeforeEdit) {
        core.wal.recycle(end);
    }
    if planted::is(Bug::LogStartBeforeFlush) {
        core.install(vec![Edit::LogStart(end)], HashMap::new(), None)?;
    }
    // From here on the memtable takes no inserts: every writer that belongs to it has published.
    let covering = match planted::is(Bug::FlushViewBeforeRotation) {
        true => {
            core.wal.wait_published(end);
            CoveringView::new(view.clone())
        }
        false => core.view_covering(end),
    };
    let snapshots = core.snapshots.numbers();
    let memtable = &oldest.memtable;
    let mut edits = Vec::new();
    let mut tables = NewTables::default();
    let mut cleaned = clean::deletions(&covering, memtable)?;
    edits.extend(cleaned.outdated.iter().map(|id| Edit::IndexOutdated(*id)));
    let indexes = cleaned.lists.keys().filter_map(|id| covering.keyspace(*id));
    let mut spaces: Vec<_> = covering.keyspaces_in(memtable).chain(indexes).cloned().collect();
    spaces.sort_unstable_by_key(|space| space.state.id);
    spaces.dedup_by_key(|space| space.state.id);
    for space in &spaces {
        let id = space.state.id;
        let options = core.compaction_options(space);
        let is_bottom = space.version.runs.is_empty() && !options.has_base;
        let (context, rows) = (&core.context, memtable.iter(id));
        let outputs = match cleaned.lists.remove(&id) {
            None => flush(context, &options, rows, id, is_bottom, snapshots.clone())?,
            Some(deletions) => {
                let entries = clean::with_deletions(rows, deletions);
                flush(context, &options, entries, id, is_bottom, snapshots.clone())?
            }
        };
        for output in outputs {
            tables.add(output.handle);
            edits.push(Edit::TableAdded(output.record));
        }
    }
    if !edits.is_empty() {
        core.context.sync_directory()?;
    }
    // What was read from the memtable until now should not be read from the file next.
    if core.reads_since_last_flush() {
        warm(&tables.handles)?;
    }
    let written: u64 = tables.handles.values().map(|handle| handle.file_bytes()).sum();
    edits.push(Edit::LogStart(end));
    core.counters.flush_bytes.fetch_add(written, Ordering::Relaxed);
    core.counters.flushes.fetch_add(1, Ordering::Relaxed);
    let flushed = oldest.clone();
    drop((view, covering, spaces));
    core.install(edits, tables.into_handles(), Some(&flushed))?;
    core.wal.recycle(end);
    Ok(true)
}

/// Tables of a flush that the MANIFEST does not list yet. If the flush fails before it does, their files go: it is
/// tried again under new numbers, and each failed attempt would keep a full disk full.
#[derive(Default)]
struct NewTables {
    handles: HashMap<FileNumber, Arc<TableHandle>>,
}

impl NewTables {
    fn add(&mut self, handle: Arc<TableHandle>) {
        self.handles.insert(handle.file(), handle);
    }

    /// Hands them over to whoever lists them.
    fn into_handles(mut self) -> HashMap<FileNumber, Arc<TableHandle>> {
        std::mem::take(&mut self.handles)
    }
}

impl Drop for NewTables {
    fn drop(&mut self) {
        if !planted::is(Bug::FailedFlushKeepsTables) {
            self.handles.values().for_each(|handle| handle.mark_obsolete());
        }
    }
}

fn log_loop(core: &Core) {
    let background = &core.background;
    loop {
        run_step(core, BackgroundStep::Log);
        let now = core.options.env.now();
        let mut state = background.state.lock();
        if state.shutdown {
            return;
        }
        if std::mem::take(&mut state.log_wanted) {
            continue;
        }
        let wait = log_sleep(&state, now);
        background.wake_log.wait_for(&mut state, wait);
    }
}

/// How long the log thread may sleep, if it is not woken before.
fn log_sleep(state: &State, now: Duration) -> Duration {
    let due = state.sync_due.filter(|_| !state.has_sync_thread && !planted::is(Bug::PeriodicRounded));
    due.map_or(LOOK_UP, |due| due.saturating_sub(now).min(LOOK_UP))
}

/// How long the log thread would sleep now, on a machine without threads.
#[cfg(feature = "sim")]
pub(crate) fn log_sleeps(core: &Core) -> Duration {
    let now = core.options.env.now();
    let mut state = core.background.state.lock();
    if std::mem::take(&mut state.log_wanted) { Duration::ZERO } else { log_sleep(&state, now) }
}

/// Makes log segments ahead of need, and syncs the log: what the opening has replayed, and the rest if that is due by the
/// clock. True if it synced.
fn log_step(core: &Core) -> Result<bool> {
    // Where a thread of its own does that, it has, or is about to.
    let by_the_clock = sync_step(core)?;
    // Reported already.
    if core.check_not_poisoned().is_err() {
        return Ok(by_the_clock);
    }
    // First, as writers would wait for it; but a full disk is no reason not to sync.
    let provisioned = core.rotate_long_log().and_then(|()| core.wal.provision_ahead());
    let has_synced = core.sync_replayed()?;
    provisioned?;
    Ok(by_the_clock || has_synced)
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
            let wait = if planted::is(Bug::PeriodicRounded) { LOOK_UP } else { wait };
            background.wake_sync.wait_for(&mut state, wait);
        }
    }
}

/// Syncs the log if that is due by the clock. True if it did.
fn sync_step(core: &Core) -> Result<bool> {
    // A poisoned log takes no sync, and what was due is not due again.
    if !core.background.take_due_sync(core.options.env.now()) || core.check_not_poisoned().is_err() {
        return Ok(false);
    }
    if planted::is(Bug::PeriodicAfterSegments) {
        core.wal.provision_ahead()?;
    }
    core.sync_by_the_clock()?;
    if planted::is(Bug::PeriodicForgotten) {
        core.background.take_due_sync(Duration::MAX);
    }
    Ok(true)
}

/// Removes the files of tables that nobody reads any more. False if there was none, or background work is paused.
fn sweep_step(core: &Core) -> bool {
    !core.background.is_paused() && remove_obsolete(core)
}

/// A step of that. What cannot be removed now is removed as an orphan at the next opening. REQUIRES: no pause.
pub(crate) fn remove_obsolete(core: &Core) -> bool {
    // Versions that were replaced are dropped, and let their tables go, once nobody can be reading them. Where a run
    // must repeat itself, none may be left for later, and the order in which they went must not matter.
    core.view.release_retired(if core.options.env.starts_threads() { RELEASE_TURNS } else { 4096 });
    let mut files: Vec<FileName> =
        core.obsolete_files.try_iter().filter(|file| *file != SWEEP_ENDS).collect();
    files.sort_unstable_by_key(|file| file.number());
    for file in &files {
        let _ = core.context.fs.remove_file(&core.context.path(*file));
    }
    !files.is_empty()
}

fn compaction_loop(core: &Core) {
    let background = &core.background;
    loop {
        if run_step(core, BackgroundStep::Compaction) {
            continue;
        }
        // Replaced versions hold files on the disk, and where nobody reads nothing else turns the collector. It serves
        // the whole process, so where a schedule is to repeat itself it must not decide when files go.
        if core.options.env.allows_pools() {
            core.view.release_retired(RELEASE_TURNS);
        }
        let mut state = background.state.lock();
        if state.shutdown {
            return;
        }
        if state.compaction_wanted && state.paused.is_empty() {
            state.compaction_wanted = false;
            continue;
        }
        background.wake_compaction.wait_for(&mut state, LOOK_UP);
    }
}

/// Whether no write came for a while, or somebody wants it to look so.
fn is_idle(core: &Core) -> bool {
    let (published, now) = (core.wal.published(), core.options.env.now());
    let mut state = core.background.state.lock();
    if state.settling > 0 {
        return true;
    }
    if state.last_write.0 != published {
        state.last_write = (published, now);
    }
    core.options.advanced.idle_compaction && now.saturating_sub(state.last_write.1) >= IDLE
}

/// Runs the most urgent compaction of any keyspace to its end, or up to something more urgent. When nothing else is to be
/// done in an idle database, has the memtable flushed if that lets space come back. False if there is nothing to do.
pub(crate) fn compaction_step(core: &Core, idle: bool) -> Result<bool> {
    core.check_not_poisoned()?;
    let view = core.view.reference();
    core.update_debt(&view);
    let queue =
        core.background.queue(view.keyspaces.iter().map(|space| {
            (space.state.id, picker::pressure(&space.version, &core.compaction_options(space)))
        }));
    for (place, id) in queue.iter().enumerate() {
        let id = *id;
        if !core.background.claim(id) {
            continue;
        }
        // The version may have changed since the view was taken; while the keyspace is claimed only flushes do that.
        let current = core.view.reference();
        let work = current.keyspace(id).and_then(|space| Some((space, due(core, space, idle)?)));
        core.background.note_turn(id, work.is_some().then_some(&queue[place + 1..]));
        let result = match work {
            Some((space, due)) => due.run(core, space).map(|()| true),
            None => Ok(false),
        };
        core.background.release(id);
        if result? {
            return Ok(true);
        }
    }
    match idle && is_flush_worth(&view) {
        true => core.begin_flush(),
        false => Ok(false),
    }
}

/// Ends the compactions that are due and read no more than one flush writes, before a close stops the threads.
///
/// A program that opens the database, writes a little and closes it again gives the threads no time for them: each of its
/// lives would leave one more run, and each opening would take longer than the one before.
pub(crate) fn finish_small_compactions(core: &Core) {
    if core.options.advanced.disable_auto_compactions {
        return;
    }
    let view = core.view.reference();
    for space in view.keyspaces.iter() {
        let (mut merges, mut waits) = (0, 0);
        while merges < CLOSING_MERGES && waits < CLOSING_WAITS && core.check_writable().is_ok() {
            if core.check_has_space(&[COMPACTION]).is_err() || !is_small_work_due(core, space.state.id) {
                break;
            }
            if core.background.claim(space.state.id) {
                merges += 1;
                run_unpaused(core, COMPACTION, || {
                    let current = core.view.reference();
                    let Some(space) = current.keyspace(space.state.id) else { return Ok(false) };
                    small_work(core, space).map_or(Ok(()), |due| due.run(core, space)).map(|()| false)
                });
                core.background.release(space.state.id);
            } else {
                // A thread is at it.
                waits += 1;
                core.options.env.sleep(CLOSING_LOOK);
            }
        }
    }
}

fn is_small_work_due(core: &Core, keyspace: KeyspaceId) -> bool {
    core.view.reference().keyspace(keyspace).is_some_and(|space| small_work(core, space).is_some())
}

/// The merge that is due, if it reads no more than a flush writes.
fn small_work(core: &Core, space: &KeyspaceView) -> Option<Due> {
    let due = due(core, space, false)?;
    let bytes = |runs: &[Arc<Run>]| runs.iter().map(|run| run.file_bytes()).sum::<u64>();
    let bytes = match &due {
        Due::Compaction(compaction) => {
            let target = space.version.runs.iter().find(|run| compaction.is_target(run));
            bytes(&compaction.inputs) + target.map_or(0, |run| run.file_bytes())
        }
        Due::Apply(runs) => bytes(runs),
        Due::Survey(_) => return None,
    };
    (bytes <= core.options.memtable_bytes as u64).then_some(due)
}

/// Whether the active memtable of an idle database may hide so much in tables that it should not wait until it is full.
fn is_flush_worth(view: &SuperVersion) -> bool {
    let Ok(active) = view.active() else { return false };
    let memtable = &active.memtable;
    view.keyspaces.iter().filter(|space| space.index.is_none()).any(|space| {
        let (bytes, entries) = (space.version.file_bytes(), space.version.entries());
        let hidden = memtable.entries_of(space.state.id).min(entries);
        let hidden_bytes = u128::from(bytes) * u128::from(hidden) / u128::from(entries.max(1));
        hidden_bytes >= u128::from(IDLE_FLUSH_BYTES.max(bytes / IDLE_FLUSH_SHARE))
    })
}

/// Whether a compaction of `keyspace`, between two slices, should let the thread go on with another keyspace, whose writers
/// begin to wait.
pub(crate) fn gives_way_to_others(core: &Core, keyspace: KeyspaceId) -> bool {
    let view = core.view.reference();
    let pressure =
        |space: &Arc<KeyspaceView>| picker::pressure(&space.version, &core.compaction_options(space));
    let own = view.keyspace(keyspace).map_or(0.0, pressure);
    let is_urgent = |space: &&Arc<KeyspaceView>| {
        space.state.id != keyspace
            && pressure(space) >= own.max(1.0)
            && !core.background.state.lock().busy.contains(&space.state.id)
    };
    view.keyspaces.iter().any(|space| is_urgent(&space))
}

/// Whether a compaction is due; with `idle`, also one that only helps reads and space.
fn compaction_due(core: &Core, idle: bool) -> bool {
    if core.options.advanced.disable_auto_compactions {
        return false;
    }
    let view = core.view.reference();
    view.keyspaces.iter().any(|space| due(core, space, idle).is_some())
}

/// Work on a keyspace.
enum Due {
    Compaction(Compaction),
    /// More must be known of some tables.
    Survey(Survey),
    /// Delta runs of an index are to go into its tree.
    Apply(Vec<Arc<Run>>),
}

impl Due {
    /// Does the work. REQUIRES: the keyspace is claimed.
    fn run(self, core: &Core, space: &KeyspaceView) -> Result<()> {
        match self {
            Due::Compaction(compaction) => run_compaction(core, &space.version, compaction, false),
            Due::Survey(survey) => survey.run(&space.version, || core.background.should_yield()),
            Due::Apply(runs) => apply::apply(core, space, runs, false),
        }
    }
}

/// The most urgent work on a keyspace.
fn due(core: &Core, space: &KeyspaceView, idle: bool) -> Option<Due> {
    let is_index = space.index.is_some();
    if is_index && let Some(runs) = apply::pick(core, space, idle) {
        return Some(Due::Apply(runs));
    }
    let options = core.compaction_options(space);
    // Idle delta runs wait for the tree, or for the snapshot that keeps them from it.
    let snapshots = core.snapshots.numbers();
    let moment = Moment { idle: idle && !is_index, snapshots: &snapshots };
    picker::pick(space.state.id, &space.version, &options, &moment).map(|work| match work {
        Work::Merge(compaction) => Due::Compaction(compaction),
        Work::Survey(survey) => Due::Survey(survey),
    })
}

/// Runs a compaction slice by slice. REQUIRES: the keyspace is claimed.
pub(crate) fn run_compaction(
    core: &Core,
    version: &Version,
    mut compaction: Compaction,
    manual: bool,
) -> Result<()> {
    if compaction.target_run == 0 {
        compaction.target_run = core.context.allocate_file().0;
    }
    let keyspace = compaction.keyspace;
    core.options.env.check_memory(0)?;
    let Some(options) = core.keyspace_compaction_options(keyspace) else { return Ok(()) };
    let mut job = Job::new(&core.context, &options, version, compaction, &core.snapshots.numbers())?;
    core.counters.compactions.fetch_add(1, Ordering::Relaxed);
    loop {
        // Asked anew for each slice: what a snapshot taken meanwhile sees is newer than all inputs.
        let snapshots = core.snapshots.numbers();
        let Some(step) = job.step(&snapshots, core.pool.as_ref(), &core.background.stop)? else {
            return Ok(());
        };
        if let Err(error) = ready(core, version, &step) {
            // After a failed sync nothing is written any more, and no file removed.
            if error.is_scarcity() {
                step.discard();
            }
            return Err(error);
        }
        core.counters.compaction_read_bytes.fetch_add(step.read_bytes, Ordering::Relaxed);
        core.counters.compaction_written_bytes.fetch_add(step.written_bytes, Ordering::Relaxed);
        core.counters.compaction_moved_bytes.fetch_add(step.moved_bytes, Ordering::Relaxed);
        core.install(step.edits, step.handles, None)?;
        core.update_debt(&core.view.reference());
        core.background.changed.notify_all();
        let view = core.view.reference();
        let gives_way = view
            .keyspace(keyspace)
            .is_some_and(|space| picker::gives_way(job.compaction(), &space.version, &options));
        let driven = !core.options.env.starts_threads() && core.options.env.random_u64().is_multiple_of(2);
        // The rest is picked again: after what is more urgent, after the pause, or when the driver of a machine without
        // threads asks for it.
        let is_urgent_elsewhere = picker::is_long(job.compaction()) && gives_way_to_others(core, keyspace);
        if manual {
            core.background.wait_while_paused()?;
        } else if gives_way || is_urgent_elsewhere || driven || core.background.should_yield() {
            return Ok(());
        }
    }
}

/// Makes the names of new tables durable, and brings their blocks into the cache if those of the inputs were there.
fn ready(core: &Core, version: &Version, step: &Step) -> Result<()> {
    if !step.handles.is_empty() {
        core.context.sync_directory()?;
    }
    // Blocks that were in the cache have moved into the new tables.
    if cached_share(version, &step.edits) >= WARM_SHARE {
        warm(&step.handles)?;
    }
    Ok(())
}

/// Brings new tables into the cache.
fn warm(handles: &HashMap<FileNumber, Arc<TableHandle>>) -> Result<()> {
    // In order, so that a simulated run repeats itself.
    let mut handles: Vec<_> = handles.values().collect();
    handles.sort_unstable_by_key(|handle| handle.file());
    match handles.iter().try_for_each(|handle| handle.table()?.warm()) {
        // It only saves readers time.
        Err(error) if error.is_scarcity() => Ok(()),
        result => result,
    }
}

/// About which share of the tables that leave `version` is in the cache.
fn cached_share(version: &Version, edits: &[Edit]) -> f64 {
    let removed: HashSet<FileNumber> = edits.iter().filter_map(Edit::removed_file).collect();
    let (mut cached, mut all) = (0.0, 0.0);
    for table in version.tables().filter(|table| removed.contains(&table.handle.file())) {
        let bytes = table.handle.file_bytes() as f64;
        all += bytes;
        cached += table.handle.opened().map_or(0.0, |table| table.cached_share()) * bytes;
    }
    if all > 0.0 { cached / all } else { 0.0 }
}

/// Waits a little until the files of tables that were replaced are gone, which nobody reads any more.
pub(crate) fn wait_for_files(core: &Core) {
    if !core.options.env.starts_threads() {
        sweep_step(core);
        return;
    }
    for _ in 0..FILES_LOOKS {
        core.view.release_retired(RELEASE_TURNS);
        if core.context.leaving() == 0 && core.obsolete_files.is_empty() {
            return;
        }
        core.options.env.sleep(FILES_LOOK);
    }
}

/// Merges a range into the last level on the caller's thread.
pub(crate) fn compact_range(
    core: &Core,
    keyspace: KeyspaceId,
    lower: Option<&[u8]>,
    upper: Option<&[u8]>,
) -> Result<()> {
    wait_until(core, || {
        core.check_writable()?;
        Ok(core.background.claim(keyspace))
    })?;
    core.background.begin_call_work().inspect_err(|_| core.background.release(keyspace))?;
    let view = core.view.reference();
    let result = match view.keyspace(keyspace) {
        Some(space) if space.index.is_some() => apply::apply_all(core, space),
        Some(space) => {
            let stops = || core.background.stop.load(Ordering::Relaxed);
            picker::survey_range(&space.version, lower, upper).run(&space.version, stops).and_then(|()| {
                match picker::pick_range(keyspace, &space.version, lower, upper, &core.snapshots.numbers()) {
                    Some(compaction) => run_compaction(core, &space.version, compaction, true),
                    None => Ok(()),
                }
            })
        }
        None => Ok(()),
    };
    core.background.end();
    core.background.release(keyspace);
    wait_for_files(core);
    if core.background.is_shut_down() {
        return Err(Error::new(ErrorKind::Closed, "the database was closed during the compaction"));
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyspace_that_always_has_work_does_not_keep_others_from_theirs() {
        let background = Background::default();
        // The first is saturated: whatever is merged, it is at once as urgent as before.
        let pressures = [6.0, 1.0, 0.2, 0.0];
        let ids: Vec<KeyspaceId> = (0..4).map(KeyspaceId).collect();
        let mut last = [0; 4];
        let mut turns = [0; 4];
        for turn in 1..1000 {
            let queue = background.queue(ids.iter().copied().zip(pressures));
            // All have work.
            let served = queue[0].0 as usize;
            background.note_turn(queue[0], Some(&queue[1..]));
            assert!(turn - last[served] <= 60, "keyspace {served} waited for {} turns", turn - last[served]);
            last[served] = turn;
            turns[served] += 1;
        }
        assert!(last.iter().all(|last| *last > 900), "each has its turns to the end: {last:?}");
        assert!(turns[0] > 800, "the most urgent one has most of them: {turns:?}");
    }

    #[test]
    fn one_without_work_costs_the_others_no_turn() {
        let background = Background::default();
        let ids = [KeyspaceId(0), KeyspaceId(1)];
        for _ in 0..3 {
            let queue = background.queue(ids.iter().copied().zip([1.0, 0.5]));
            assert_eq!(queue, ids);
            background.note_turn(ids[0], None);
            background.note_turn(ids[1], Some(&[]));
        }
        // One that is no more is forgotten.
        background.note_turn(ids[0], Some(&ids[1..]));
        assert_eq!(background.queue([(KeyspaceId(5), 1.0)].into_iter()), [KeyspaceId(5)]);
        background.note_turn(KeyspaceId(5), None);
        assert!(background.state.lock().waiting.len() <= 1);
    }
}
