//! Compactions: the work that is due on a keyspace.
//!
//! The picker of the crate `compaction` selects the work; `merge.rs` and the application of delta
//! runs to trees do it. A keyspace is claimed while work on it runs, so only flushes change its
//! version meanwhile.
use super::attempt::run_unpaused;
use super::flush::is_flush_worth;
use super::merge::{Trigger, run_compaction};
use super::retries::COMPACTION;
use crate::index::apply;
use crate::read::keyspace_views::KeyspaceView;
use crate::runtime::Core;
use sapwood_base::{KeyspaceId, Result};
use sapwood_compaction::Run;
use sapwood_compaction::garbage::Survey;
use sapwood_compaction::picker::{self, Compaction, Moment, Work};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

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
    let snapshots = core.snapshots.numbers();
    let queue = core.background.queue(view.keyspaces.iter().map(|space| {
        let options = core.compaction_options(space);
        (space.state.id, picker::pressure(&space.version, &options, &snapshots))
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
            Some((space, due)) => due.run(core, space, idle).map(|()| true),
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
    fn run(self, core: &Core, space: &KeyspaceView, idle: bool) -> Result<()> {
        match self {
            Due::Compaction(compaction) => {
                run_compaction(core, &space.version, compaction, Trigger::Picked { idle })
            }
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
    let interrupted = core.background.interrupted(space.state.id);
    let moment = Moment { idle: idle && !is_index, snapshots: &snapshots, interrupted: &interrupted };
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
/// for them: each run of the program would leave one more run, and each open would take longer
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
                    small_work(core, space).map_or(Ok(()), |due| due.run(core, space, false)).map(|()| false)
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
        Some(compaction) => run_compaction(core, version, compaction, Trigger::Call),
        None => Ok(()),
    }
}
