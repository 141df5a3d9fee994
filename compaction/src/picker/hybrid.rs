//! Lazy leveling: level 0 goes as a whole into a new run of the tier level; a full tier goes into the last level.
//!
//! Levels between the two are filled only by another shape that the keyspace had before. What lies there is newer than
//! the tier and older than level 0, so it goes wherever level 0 goes: passed over, it would hide what went below it.
use super::{Compaction, part_under};
use crate::options::{CompactionOptions, LAST_LEVEL, TIER_LEVEL};
use crate::version::{Run, Version};
use sapwood_base::KeyspaceId;
use std::sync::Arc;

/// When idle, upper levels above this share of the last level are merged down.
const IDLE_UPPER_SHARE: f64 = 0.05;
/// When idle, this many runs above the last level are merged down, however small.
const IDLE_UPPER_RUNS: usize = 4;

pub(super) fn pick(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    idle: bool,
) -> Option<Compaction> {
    let level0_runs = version.level(0).count();
    let above_tier: Vec<Arc<Run>> =
        version.runs.iter().filter(|run| run.level < TIER_LEVEL).cloned().collect();
    let tier: Vec<Arc<Run>> = version.level(TIER_LEVEL).cloned().collect();
    if tier.len() >= options.tier_runs {
        return Some(into_last(keyspace, version, tier, "tier is full"));
    }
    if level0_runs >= options.level0_runs {
        return Some(Compaction {
            keyspace,
            inputs: above_tier,
            target_level: TIER_LEVEL,
            target_run: 0,
            reason: "level 0 is full",
            rewrite: false,
        });
    }
    if idle {
        let upper: Vec<Arc<Run>> = above_tier.into_iter().chain(tier).collect();
        let upper_bytes: u64 = upper.iter().map(|run| run.file_bytes()).sum();
        let last_bytes = version.level_bytes(LAST_LEVEL);
        let worthwhile =
            upper_bytes as f64 > last_bytes as f64 * IDLE_UPPER_SHARE || upper.len() >= IDLE_UPPER_RUNS;
        if !upper.is_empty() && worthwhile {
            return Some(into_last(keyspace, version, upper, "idle"));
        }
    }
    None
}

fn into_last(
    keyspace: KeyspaceId,
    version: &Version,
    mut inputs: Vec<Arc<Run>>,
    reason: &'static str,
) -> Compaction {
    let last = version.level(LAST_LEVEL).next();
    let target_run = last.map_or(0, |run| run.id);
    if let Some(below) = last.and_then(|run| part_under(run, &inputs)) {
        inputs.push(below);
    }
    Compaction { keyspace, inputs, target_level: LAST_LEVEL, target_run, reason, rewrite: false }
}
