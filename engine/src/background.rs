//! Background work: flush, compaction, log provisioning, removal of files.
//!
//! Each kind of work is a function that does one step and returns whether there was something to
//! do; the threads here only call them in loops. A flush has its own thread, so it never waits for
//! a compaction. On a machine without threads the driver of the database calls the same functions,
//! one step at a time, and so do calls that would otherwise wait: see `Core::give_way`.
//!
//! Each file of this folder depends only on files before it in this list, and none on this file:
//!
//! 1. `state.rs`: the shared state.
//! 2. `pause.rs`: pauses, and the work and the calls that they stop. `turns.rs`: the keyspace that
//!    a compaction works on.
//!    `retries.rs`: intervals between attempts at a step that meets a scarcity.
//! 3. `attempt.rs`: one attempt at a step.
//! 4. `periodic.rs`: syncs by the clock, and their thread.
//! 5. `log.rs`, `flush.rs`, `merge.rs`, `compactions.rs`, `sweep.rs`: the steps.
pub(crate) mod state;
pub(crate) mod pause;
mod turns;
pub(crate) mod retries;
mod attempt;
mod periodic;
pub(crate) mod log;
mod flush;
pub(crate) mod merge;
pub(crate) mod compactions;
pub(crate) mod sweep;

use crate::runtime::Core;
use attempt::{guarded, run_unpaused};
use compactions::{compaction_due, compaction_step, merge_range};
use flush::flush_step;
use log::{log_sleep, log_step};
use retries::{COMPACTION, FLUSH};
use sapwood_base::{Error, ErrorKind, KeyspaceId, Result};
use sapwood_storage::env::ThreadClass;
use sapwood_storage::sync::receive;
use state::LOOK_UP;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use sweep::{RELEASE_TURNS, SWEEP_ENDS, sweep_step, wait_for_files};

/// A database without writes for this long is idle.
const IDLE: Duration = Duration::from_secs(1);
/// A kind of background work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackgroundStep {
    /// Writes the oldest immutable memtable into level 0.
    Flush,
    /// Runs the most urgent compaction, or the next part of it.
    Compaction,
    /// Syncs the log if that is due by the clock, or left to do by an open; provisions log
    /// segments ahead of need.
    Log,
    /// Removes the files of tables that have no reader any more.
    Sweep,
}

impl BackgroundStep {
    /// All kinds.
    pub const ALL: [BackgroundStep; 4] =
        [BackgroundStep::Flush, BackgroundStep::Compaction, BackgroundStep::Log, BackgroundStep::Sweep];
}

/// Starts the threads.
pub(crate) fn start(core: &Arc<Core>) -> Result<()> {
    let env = core.options.env.clone();
    if !env.starts_threads() {
        return Ok(());
    }
    // Each thread is recorded at once: if a later one cannot be started, the earlier ones are
    // still ended.
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
            // A file that cannot be removed now is removed as an orphan at the next open.
            let _ = shared.files.fs.remove_file(&shared.files.path(file));
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
pub(crate) fn shut_down(core: &Core) {
    core.background.stop.store(true, Ordering::Relaxed);
    let background = &core.background;
    {
        let mut state = background.state.lock();
        state.shutdown = true;
        background.notify_all();
        while state.starts_sync_thread {
            background.changed.wait(&mut state);
        }
    }
    let _ = core.files.obsolete.send(SWEEP_ENDS);
    let threads = std::mem::take(&mut *background.threads.lock());
    for thread in threads {
        // A panic was caught inside the thread and reported already.
        let _ = thread.join();
    }
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
        // Bounded, so that a flush that met a full disk is retried.
        background.wake_flush.wait_for(&mut state, LOOK_UP);
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

fn compaction_loop(core: &Core) {
    let background = &core.background;
    loop {
        if run_step(core, BackgroundStep::Compaction) {
            continue;
        }
        // Replaced versions retain files on the disk, and without reads nothing else advances the
        // collector. It serves the whole process, so if a schedule must be reproducible, it must
        // not decide when files are removed.
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

/// One step of any kind that has something to do. The machine's random numbers select the kind to
/// check first. False if nothing is due.
pub(crate) fn any_step(core: &Core) -> bool {
    let first = core.options.env.random_u64() as usize;
    let kinds = BackgroundStep::ALL;
    (0..kinds.len()).any(|i| run_step(core, kinds[(first % kinds.len() + i) % kinds.len()]))
}

/// Whether no write came for a while, or a caller requests the work of an idle database.
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

/// Waits until all memtables but the active one are in tables and no compaction is due or under
/// way; with `idle`, also no compaction that waits for a database without writes.
pub(crate) fn wait_for_work(core: &Core, idle: bool) -> Result<()> {
    // Only a scarcity met from now on counts.
    core.clear_no_space(FLUSH);
    core.clear_no_space(COMPACTION);
    core.background.retry_now();
    core.background.wake_flush();
    core.background.wake_compaction();
    core.wait_until(|| {
        core.check_not_poisoned()?;
        core.check_has_space(&[FLUSH, COMPACTION])?;
        let flushed = core.view.reference().generations.len() <= 1;
        Ok(flushed && !core.background.is_running() && !compaction_due(core, idle))
    })
}

/// Flushes, then merges a range into the last level on the caller's thread.
pub(crate) fn compact_range(
    core: &Core,
    keyspace: KeyspaceId,
    lower: Option<&[u8]>,
    upper: Option<&[u8]>,
) -> Result<()> {
    core.flush()?;
    core.wait_until(|| {
        core.check_writable()?;
        Ok(core.background.claim(keyspace))
    })?;
    core.background.begin_call_work().inspect_err(|_| core.background.release(keyspace))?;
    let view = core.view.reference();
    let result = match view.keyspace(keyspace) {
        Some(space) => merge_range(core, space, lower, upper),
        None => Ok(()),
    };
    // The view retains the replaced tables, and so their files.
    drop(view);
    core.background.end();
    core.background.release(keyspace);
    wait_for_files(core);
    if core.background.is_shut_down() {
        return Err(Error::new(ErrorKind::Closed, "the database was closed during the compaction"));
    }
    result
}
