//! Leveling with sizes computed from the bottom up. The last level sets the targets of those above
//! it, so space amplification stays near 1 + 1/multiplier (after RocksDB's dynamic level bytes).
use super::{Compaction, part_under};
use crate::options::{CompactionOptions, LAST_LEVEL};
use crate::version::{Run, RunTable, Version};
use sapwood_base::KeyspaceId;
use std::sync::Arc;

/// Target sizes by level, and the level that level 0 is merged into.
fn targets(version: &Version, options: &CompactionOptions) -> ([u64; LAST_LEVEL as usize + 1], u8) {
    let mut targets = [0; LAST_LEVEL as usize + 1];
    let largest = (1..=LAST_LEVEL).map(|level| version.level_bytes(level)).max().unwrap_or(0);
    let mut target = largest.max(options.level_base_bytes);
    let mut base = LAST_LEVEL;
    targets[LAST_LEVEL as usize] = target;
    for level in (1..LAST_LEVEL).rev() {
        if target <= options.level_base_bytes {
            break;
        }
        target = (target / options.level_multiplier.max(2)).max(1);
        targets[level as usize] = target;
        base = level;
    }
    // If a level above the base still holds data because the tree shrank, it is emptied downwards
    // first.
    if let Some(filled) = (1..base).find(|level| version.level_bytes(*level) > 0) {
        base = filled;
    }
    (targets, base)
}

pub(super) fn pick(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
) -> Option<Compaction> {
    let (targets, base) = targets(version, options);
    let level0: Vec<Arc<Run>> = version.level(0).cloned().collect();
    let level0_score = level0.len() as f64 / options.level0_runs.max(1) as f64;
    let mut best: Option<(f64, u8)> = (level0_score >= 1.0).then_some((level0_score, 0));
    for level in 1..LAST_LEVEL {
        let bytes = version.level_bytes(level);
        if bytes == 0 {
            continue;
        }
        let mut score = bytes as f64 / targets[level as usize].max(1) as f64;
        if version.level(level).nth(1).is_some() {
            // Several runs, left by another shape. Until they are one run, no part of the level can
            // move down on its own.
            score = score.max(2.0);
        }
        if score > 1.0 && best.is_none_or(|(best, _)| score > best) {
            best = Some((score, level));
        }
    }
    match best?.1 {
        0 => Some(into_level(keyspace, version, level0, base, "level 0 is full")),
        level => {
            let runs: Vec<Arc<Run>> = version.level(level).cloned().collect();
            let [run] = runs.as_slice() else {
                // A single table of the newest run would move below the older runs, which would
                // then hide it.
                return Some(into_level(keyspace, version, runs, level + 1, "several runs in a level"));
            };
            let below = version.level(level + 1).next();
            // Pick the table that drags along the fewest bytes per byte of its own.
            let table = run.tables.iter().min_by(|a, b| cost(a, below).total_cmp(&cost(b, below)))?.clone();
            let input = Arc::new(Run::new(run.level, run.id, vec![table]));
            Some(into_level(keyspace, version, vec![input], level + 1, "level is full"))
        }
    }
}

fn cost(table: &RunTable, below: Option<&Arc<Run>>) -> f64 {
    let dragged: u64 = below
        .map(|run| run.overlapping(Some(table.first()), Some(table.last())))
        .unwrap_or(&[])
        .iter()
        .map(|table| table.handle.file_bytes())
        .sum();
    // Tombstones are worth pushing down: they free space below.
    let garbage = table.meta.tombstones as f64 / table.meta.entries.max(1) as f64;
    dragged as f64 / table.handle.file_bytes().max(1) as f64 - garbage
}

fn into_level(
    keyspace: KeyspaceId,
    version: &Version,
    mut inputs: Vec<Arc<Run>>,
    level: u8,
    reason: &'static str,
) -> Compaction {
    let target = version.level(level).next();
    let target_run = target.map_or(0, |run| run.id);
    if let Some(below) = target.and_then(|run| part_under(run, &inputs)) {
        inputs.push(below);
    }
    Compaction { keyspace, inputs, target_level: level, target_run, reason, rewrite: false }
}
