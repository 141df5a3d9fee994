//! A compaction, slice by slice: the job of the crate `compaction` merges; this file connects it to
//! the database.
use super::flush::warm;
use crate::read::keyspace_views::KeyspaceView;
use crate::runtime::Core;
use sapwood_base::format::manifest::Edit;
use sapwood_base::{FileNumber, KeyspaceId, Result};
use sapwood_compaction::Version;
use sapwood_compaction::job::{Job, Step};
use sapwood_compaction::picker::{self, Compaction, Interrupted};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A compaction's output is loaded into the cache if this share of its input was there.
const WARM_SHARE: f64 = 0.25;

/// The reason for a compaction.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// A call waits for it, so it does not yield.
    Call,
    /// The picker. `idle`: it may only improve reads and space.
    Picked { idle: bool },
}

/// Runs a compaction slice by slice. REQUIRES: the keyspace is claimed.
pub(crate) fn run_compaction(
    core: &Core,
    version: &Version,
    mut compaction: Compaction,
    trigger: Trigger,
) -> Result<()> {
    if compaction.target_run == 0 {
        compaction.target_run = core.files.allocate_file().0;
    }
    let keyspace = compaction.keyspace;
    core.options.env.check_memory(0)?;
    let Some(options) = core.keyspace_compaction_options(keyspace) else { return Ok(()) };
    if let Trigger::Picked { idle } = trigger {
        // Until its end, so that whatever ends it early, the picker continues it.
        core.background.begin_merge(keyspace, Interrupted::new(&compaction, idle), version);
    }
    let mut job = Job::new(&core.files, &options, version, compaction, &core.snapshots.numbers())?;
    core.counters.compactions.fetch_add(1, Ordering::Relaxed);
    loop {
        // Loaded again for each slice: a snapshot taken meanwhile is newer than all inputs.
        let snapshots = core.snapshots.numbers();
        let Some(step) = job.step(&snapshots, core.pool.as_ref(), &core.background.stop)? else {
            if trigger != Trigger::Call {
                core.background.end_merge(keyspace);
            }
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
            .is_some_and(|space| picker::gives_way(job.compaction(), &space.version, &options, &snapshots));
        // On a machine without threads, jobs of half of the databases yield after every slice, as
        // they do if another keyspace is always more urgent: each slice must be progress.
        let (env, database) = (&core.options.env, core.files.database());
        let driven =
            !env.starts_threads() && (database.is_multiple_of(2) || env.random_u64().is_multiple_of(2));
        // The rest is picked again: after more urgent work, after the pause, or when the driver of
        // a machine without threads requests it.
        let is_urgent_elsewhere = picker::is_long(job.compaction()) && gives_way_to_others(core, keyspace);
        if trigger == Trigger::Call {
            core.background.wait_while_paused()?;
        } else if core.background.should_yield() || gives_way || is_urgent_elsewhere || driven {
            return Ok(());
        }
    }
}

/// Whether a compaction of `keyspace`, between two slices, should yield the thread to another
/// keyspace whose writers begin to wait.
pub(crate) fn gives_way_to_others(core: &Core, keyspace: KeyspaceId) -> bool {
    let view = core.view.reference();
    let snapshots = core.snapshots.numbers();
    let pressure = |space: &Arc<KeyspaceView>| {
        picker::pressure(&space.version, &core.compaction_options(space), &snapshots)
    };
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
        core.files.sync_directory()?;
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
