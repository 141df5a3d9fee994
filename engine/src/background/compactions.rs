//! Compactions: the work that is due on a keyspace, and its slices.
//!
//! The picker of the crate `compaction` selects the work on a keyspace, and its job merges; this
//! file connects them to the database. A keyspace is claimed while work on it runs, so only flushes
//! change its version meanwhile.
use super::attempt::{COMPACTION, run_unpaused};
use super::flush::{is_flush_worth, warm};
use crate::db::Core;
use crate::index::apply;
use crate::read::keyspace_views::KeyspaceView;
use sapwood_base::format::manifest::Edit;
use sapwood_base::{FileNumber, KeyspaceId, Result};
use sapwood_compaction::garbage::Survey;
use sapwood_compaction::job::{Job, Step};
use sapwood_compaction::picker::{self, Compaction, Moment, Work};
use sapwood_compaction::{Run, Version};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A compaction's output is loaded into the cache if this share of its input was there.
const WARM_SHARE: f64 = 0.25;
/// Limit of small compactions of a keyspace at a close.
const CLOSING_MERGES: u32 = 8;
/// Interval at which a close checks whether another thread has done one, and limit of checks.
const CLOSING_LOOK: Duration = Duration::from_millis(1);
const CLOSING_WAITS: u32 = 200;

/// Runs the most urgent compaction of any keyspace to its end, or until something is more urgent.
/// If an idle database has no other work, starts a flush of the memtable if that reclaims space.
/// False if there is nothing to do.
pub(super) fn compaction_step(core: &Core, idle: bool) -> Result<bool> {
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
        // The version may have changed since the view was loaded; while the keyspace is claimed
        // only flushes change it.
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

/// Work on a keyspace.
enum Due {
    Compaction(Compaction),
    /// A survey of tables, needed before the picker can decide.
    Survey(Survey),
    /// A merge of delta runs of an index into its tree.
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

/// Whether a compaction is due; with `idle`, also one that only improves reads and space.
pub(super) fn compaction_due(core: &Core, idle: bool) -> bool {
    if core.options.advanced.disable_auto_compactions {
        return false;
    }
    let view = core.view.reference();
    view.keyspaces.iter().any(|space| due(core, space, idle).is_some())
}

/// Runs the due compactions that read no more than one flush writes, before a close stops the
/// threads.
///
/// If a program opens the database, writes a little and closes it again, the threads have no time
/// for them: each run of the program would leave one more run, and each opening would take longer
/// than the one before.
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
                // Another thread has claimed it.
                waits += 1;
                core.options.env.sleep(CLOSING_LOOK);
            }
        }
    }
}

fn is_small_work_due(core: &Core, keyspace: KeyspaceId) -> bool {
    core.view.reference().keyspace(keyspace).is_some_and(|space| small_work(core, space).is_some())
}

/// The work that is due, if it reads no more than a flush writes.
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

/// Merges a range into the last level. REQUIRES: the keyspace is claimed.
pub(super) fn merge_range(
    core: &Core,
    space: &KeyspaceView,
    lower: Option<&[u8]>,
    upper: Option<&[u8]>,
) -> Result<()> {
    if space.index.is_some() {
        return apply::apply_all(core, space);
    }
    let (keyspace, version) = (space.state.id, &space.version);
    let stops = || core.background.stop.load(Ordering::Relaxed);
    picker::survey_range(version, lower, upper).run(version, stops)?;
    match picker::pick_range(keyspace, version, lower, upper, &core.snapshots.numbers()) {
        Some(compaction) => run_compaction(core, version, compaction, true),
        None => Ok(()),
    }
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
        // Loaded again for each slice: a snapshot taken meanwhile is newer than all inputs.
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
        let may_repeat = step.may_repeat;
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
        // On a machine without threads, jobs of half of the databases yield after every slice, as
        // they do if another keyspace is always more urgent: each slice must be progress.
        let (env, database) = (&core.options.env, core.context.database());
        let driven =
            !env.starts_threads() && (database.is_multiple_of(2) || env.random_u64().is_multiple_of(2));
        // The rest is picked again: after more urgent work, after the pause, or when the driver of
        // a machine without threads requests it.
        let is_urgent_elsewhere = picker::is_long(job.compaction()) && gives_way_to_others(core, keyspace);
        if manual {
            core.background.wait_while_paused()?;
        } else if core.background.should_yield()
            || !may_repeat && (gives_way || is_urgent_elsewhere || driven)
        {
            return Ok(());
        }
    }
}

/// Whether a compaction of `keyspace`, between two slices, should yield the thread to another
/// keyspace whose writers begin to wait.
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

/// Makes the names of new tables durable, and loads their blocks into the cache if those of the
/// inputs were there.
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

/// Approximate share in the cache of the tables that leave `version`.
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
