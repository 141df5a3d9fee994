//! Picks the next compaction: a pure function of a version, the options and the moment.
use crate::garbage::{self, Survey};
use crate::options::{CompactionOptions, CompactionStyle, LAST_LEVEL};
use crate::planted;
use crate::version::{Run, RunTable, Version};
use sapwood_base::{KeyspaceId, SequenceNumber};
use std::sync::Arc;

mod hybrid;
mod interrupted;
mod leveled;
mod neighbours;
mod worth;

pub use interrupted::Interrupted;

#[cfg(test)]
mod scripts;

/// The circumstances of a pick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moment<'a> {
    /// Whether to include work that only improves reads and space.
    pub idle: bool,
    /// Live snapshots, ascending.
    pub snapshots: &'a [SequenceNumber],
    /// The compactions of the keyspace that have not reached their end, oldest first.
    pub interrupted: &'a [Arc<Interrupted>],
}

/// Work on a keyspace.
pub enum Work {
    /// Merge runs.
    Merge(Compaction),
    /// Survey tables, because it is not yet known whether a merge is worth it.
    Survey(Survey),
}

/// Runs to merge into one.
#[derive(Clone)]
pub struct Compaction {
    /// Their keyspace.
    pub keyspace: KeyspaceId,
    /// Newest first. An input can be a part of a run of the version. If the target run exists, its
    /// overlapping tables are the last input.
    pub inputs: Vec<Arc<Run>>,
    /// The level of the output.
    pub target_level: u8,
    /// The run of the output. 0 stands for a new run, which the caller numbers.
    pub target_run: u64,
    /// The reason, for the log and the statistics.
    pub reason: &'static str,
    /// Whether to rewrite tables that overlap nothing as well.
    pub rewrite: bool,
}

impl Compaction {
    /// Whether `run` is the target run or a part of it.
    pub fn is_target(&self, run: &Run) -> bool {
        run.level == self.target_level && run.id == self.target_run
    }
}

/// The most urgent work on a keyspace, or `None` if its shape is right. In order, after a full
/// level 0 of the hybrid shape and the rest of an interrupted compaction:
///
/// 1. The merge that the style demands because runs or levels are full.
/// 2. When idle, any merge that is worth its cost: see `picker/worth.rs`.
/// 3. A merge of the entries that hide half of the last level.
/// 4. A rewrite of tables of the last level that hold much for released snapshots.
///
/// A merge includes small neighbours: see `picker/neighbours.rs`.
pub fn pick(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    moment: &Moment<'_>,
) -> Option<Work> {
    let interrupted = moment.interrupted.iter().filter(|merge| moment.idle || !merge.idle);
    if let Some(rest) = interrupted.rev().find_map(|merge| merge.rest(version)) {
        let urgent = before(&rest, version, options, moment.snapshots);
        return Some(Work::Merge(urgent.unwrap_or(rest)));
    }
    let full = match options.style {
        CompactionStyle::Hybrid => hybrid::pick(keyspace, version, options, moment),
        CompactionStyle::Leveled => leveled::pick(keyspace, version, options).map(Work::Merge),
    };
    full.or_else(|| moment.idle.then(|| worth::pick_idle(keyspace, version, options, moment)).flatten())
        .or_else(|| worth::pick_urgent(keyspace, version, options, moment))
        .or_else(|| worth::pick_released(keyspace, version, options, moment))
        .map(|work| match work {
            Work::Merge(merge) => Work::Merge(neighbours::with_small_ones(merge, version, options)),
            survey @ Work::Survey(_) => survey,
        })
}

/// Whether `compaction`, between two of its slices, should yield to more urgent work, which
/// [`pick`] returns. The remainder is picked again later.
pub fn gives_way(
    compaction: &Compaction,
    version: &Version,
    options: &CompactionOptions,
    snapshots: &[SequenceNumber],
) -> bool {
    before(compaction, version, options, snapshots).is_some()
}

/// The compaction of newer runs that is more urgent than the next slice of `compaction`.
fn before(
    compaction: &Compaction,
    version: &Version,
    options: &CompactionOptions,
    snapshots: &[SequenceNumber],
) -> Option<Compaction> {
    let is_divisible = options.style == CompactionStyle::Hybrid && is_long(compaction);
    is_divisible.then(|| hybrid::before(compaction, version, options, snapshots)).flatten()
}

/// Whether a merge can take so long that others should not wait for it: it writes the last level,
/// or merges runs of tiers.
pub fn is_long(compaction: &Compaction) -> bool {
    compaction.target_level == LAST_LEVEL || compaction.inputs.first().is_some_and(|newest| newest.level > 0)
}

/// The urgency of shrinking `version`. At 1 it begins to slow down writers.
pub fn pressure(version: &Version, options: &CompactionOptions, snapshots: &[SequenceNumber]) -> f64 {
    let level0 = version.level(0).count() as f64 / options.level0_runs.max(1) as f64;
    match options.style {
        CompactionStyle::Hybrid => level0.max(hybrid::overdue(version, options, snapshots)),
        CompactionStyle::Leveled => level0,
    }
}

/// How far level 0 exceeds its trigger: 0 up to the trigger, growing by 1 for each further
/// `level0_runs`.
pub fn debt(version: &Version, options: &CompactionOptions) -> f64 {
    let runs = version.level(0).count() as f64;
    let trigger = options.level0_runs as f64;
    ((runs - trigger) / trigger).max(0.0)
}

/// Merges everything that overlaps `[lower, upper]` into the last level. Tables of that range with
/// versions that none of `snapshots`, ascending, needs are rewritten. The bytes held by tables of
/// an earlier session must be known: see [`survey_range`].
pub fn pick_range(
    keyspace: KeyspaceId,
    version: &Version,
    lower: Option<&[u8]>,
    upper: Option<&[u8]>,
    snapshots: &[SequenceNumber],
) -> Option<Compaction> {
    // A table taken from a newer run shadows tables of older runs over its whole range. The range
    // therefore grows until no chosen table extends beyond it.
    let mut lower = lower.map(<[u8]>::to_vec);
    let mut upper = upper.map(<[u8]>::to_vec);
    loop {
        let mut grown = false;
        for run in &version.runs {
            for table in run.overlapping(lower.as_deref(), upper.as_deref()) {
                if lower.as_deref().is_some_and(|lower| table.first() < lower) {
                    lower = Some(table.first().to_vec());
                    grown = true;
                }
                if upper.as_deref().is_some_and(|upper| table.last() > upper) {
                    upper = Some(table.last().to_vec());
                    grown = true;
                }
            }
        }
        if !grown {
            break;
        }
    }
    let inputs: Vec<Arc<Run>> =
        version.runs.iter().filter_map(|run| part(run, lower.as_deref(), upper.as_deref())).collect();
    let target_run = version.level(LAST_LEVEL).next().map_or(0, |run| run.id);
    match inputs.as_slice() {
        [] => None,
        [only] if only.level == LAST_LEVEL && !needs_rewrite(&only.tables, snapshots) => None,
        _ => Some(Compaction {
            keyspace,
            inputs,
            target_level: LAST_LEVEL,
            target_run,
            reason: "manual",
            rewrite: false,
        }),
    }
}

fn needs_rewrite(tables: &[RunTable], snapshots: &[SequenceNumber]) -> bool {
    tables.iter().any(|table| {
        let reclaims = planted::rewrites_for_released();
        table.meta.lower.is_some() || garbage::releasable(table, snapshots) > 0 && reclaims
    })
}

/// The survey that [`pick_range`] requires for the same range.
pub fn survey_range(version: &Version, lower: Option<&[u8]>, upper: Option<&[u8]>) -> Survey {
    let tables = version.level(LAST_LEVEL).flat_map(|run| run.overlapping(lower, upper));
    Survey {
        hiding: Vec::new(),
        holding: tables.filter(|table| garbage::is_unknown(table)).cloned().collect(),
    }
}

/// The part of a run that overlaps `[lower, upper]`.
fn part(run: &Arc<Run>, lower: Option<&[u8]>, upper: Option<&[u8]>) -> Option<Arc<Run>> {
    let tables = run.overlapping(lower, upper);
    if tables.len() == run.tables.len() && !tables.is_empty() {
        return Some(run.clone());
    }
    (!tables.is_empty()).then(|| Arc::new(Run::new(run.level, run.id, tables.to_vec())))
}

/// The part of a run that the tables of `inputs` overlap.
fn part_under(run: &Arc<Run>, inputs: &[Arc<Run>]) -> Option<Arc<Run>> {
    let lower = inputs.iter().filter_map(|run| run.bounds()).map(|(first, _)| first).min()?;
    let upper = inputs.iter().filter_map(|run| run.bounds()).map(|(_, last)| last).max()?;
    part(run, Some(lower), Some(upper))
}
