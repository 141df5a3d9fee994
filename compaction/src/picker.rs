//! Which compaction comes next: a pure function of a version and the options.
use crate::options::{CompactionOptions, CompactionStyle, LAST_LEVEL};
use crate::version::{Run, RunTable, Version};
use sapwood_base::KeyspaceId;
use std::sync::Arc;

mod hybrid;
mod leveled;

/// Runs to be merged into one.
#[derive(Clone)]
pub struct Compaction {
    /// The keyspace they belong to.
    pub keyspace: KeyspaceId,
    /// Newest first. A run here can be a part of a run of the version; if the target run exists, the tables of it
    /// that overlap are the last input.
    pub inputs: Vec<Arc<Run>>,
    /// Where the output goes.
    pub target_level: u8,
    /// The run of the output. 0 stands for a new run: the caller gives it a number.
    pub target_run: u64,
    /// Why, for the log and the statistics.
    pub reason: &'static str,
    /// Whether tables that overlap nothing are rewritten all the same.
    pub rewrite: bool,
}

/// The most urgent compaction of a keyspace, or `None` if its shape is right.
///
/// With `idle`, work that only helps reads and space counts as well.
pub fn pick(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    idle: bool,
) -> Option<Compaction> {
    match options.style {
        CompactionStyle::Hybrid => hybrid::pick(keyspace, version, options, idle),
        CompactionStyle::Leveled => leveled::pick(keyspace, version, options),
    }
}

/// Whether `compaction`, between two of its slices, should be given up for something more urgent, which [`pick`] names;
/// what is left of it is picked again later.
pub fn gives_way(compaction: &Compaction, version: &Version, options: &CompactionOptions) -> bool {
    match options.style {
        CompactionStyle::Hybrid => {
            compaction.target_level == LAST_LEVEL && hybrid::level0_is_next(version, options)
        }
        CompactionStyle::Leveled => false,
    }
}

/// How far level 0 is above its trigger: 0 at the trigger and below, growing by 1 for each `level0_runs` more.
pub fn debt(version: &Version, options: &CompactionOptions) -> f64 {
    let runs = version.level(0).count() as f64;
    let trigger = options.level0_runs as f64;
    ((runs - trigger) / trigger).max(0.0)
}

/// Merges everything that overlaps `[lower, upper]` into the last level.
pub fn pick_range(
    keyspace: KeyspaceId,
    version: &Version,
    lower: Option<&[u8]>,
    upper: Option<&[u8]>,
) -> Option<Compaction> {
    // A table that is taken from a newer run shadows tables of older runs over its whole range, so the range grows
    // until no chosen table reaches beyond it.
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
        [only] if only.level == LAST_LEVEL && !needs_rewrite(&only.tables) => None,
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

fn needs_rewrite(tables: &[RunTable]) -> bool {
    tables.iter().any(|table| table.record.tombstones > 0 || table.record.lower.is_some())
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
