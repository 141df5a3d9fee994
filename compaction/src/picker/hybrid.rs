//! Lazy leveling. Level 0 is merged as a whole into a new run of the tier level. A full tier is
//! merged into the last level as far as that is worth it ([`super::worth`]), and otherwise within
//! itself.
//!
//! A merge into the last level takes long, and level 0 fills meanwhile. When level 0 is full, the
//! merge therefore yields after a slice, level 0 becomes one more run of the tier, and the merge of
//! the runs already begun continues. Writers hardly notice the merge. They slow down only once the
//! tier has twice its runs and level 0 must wait.
//!
//! Levels between the two are filled only by another shape that the keyspace had before. Their data
//! is newer than the tier and older than level 0, so it moves together with level 0. Otherwise it
//! would hide the newer data that went below it.
use super::worth::{merge_among, merge_runs, pick_into_last};
use super::{Compaction, Moment, Work};
use crate::options::{CompactionOptions, TIER_LEVEL};
use crate::version::{Run, Version};
use sapwood_base::KeyspaceId;
use std::sync::Arc;

/// Level 0 has priority over a full tier until the tier has this many times its runs.
const TIER_RUNS_FACTOR: usize = 2;

/// Whether level 0 is full and the tier has room for one more run.
pub(super) fn level0_is_next(version: &Version, options: &CompactionOptions) -> bool {
    version.level(0).count() >= options.level0_runs
        && version.level(TIER_LEVEL).count() < options.tier_runs.saturating_mul(TIER_RUNS_FACTOR)
}

pub(super) fn pick(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    moment: &Moment<'_>,
) -> Option<Work> {
    let above_tier = version.runs.iter().take_while(|run| run.level < TIER_LEVEL).count();
    let tier = version.level(TIER_LEVEL).count();
    let end = above_tier + tier;
    if tier >= options.tier_runs && !level0_is_next(version, options) {
        let begun = begun(&version.runs[above_tier..end]);
        let into_last =
            pick_into_last(keyspace, version, options, above_tier + begun..end, moment, "tier is full");
        if into_last.is_some() {
            return into_last;
        }
        // The runs are too small to justify writing the last level.
        let among = merge_among(keyspace, version, options, above_tier..end, "tier is full, small runs");
        if among.is_some() {
            return among.map(Work::Merge);
        }
        if tier >= options.tier_runs.saturating_mul(TIER_RUNS_FACTOR) {
            let runs = &version.runs[above_tier..end];
            let merged = merge_runs(keyspace, version, options, runs, "tier has twice its runs");
            return Some(Work::Merge(merged));
        }
    }
    (version.level(0).count() >= options.level0_runs).then(|| {
        Work::Merge(Compaction {
            keyspace,
            inputs: version.runs[..above_tier].to_vec(),
            target_level: TIER_LEVEL,
            target_run: 0,
            reason: "level 0 is full",
            rewrite: false,
        })
    })
}

/// The place in the tier of the newest run that an interrupted merge had begun with; 0 if there is
/// none. Later runs of the tier are newer, so they can stay above. Including them would write the
/// first part of the last level twice.
fn begun(tier: &[Arc<Run>]) -> usize {
    let is_begun = |run: &Arc<Run>| run.tables.iter().any(|table| table.record.lower.is_some());
    tier.iter().position(is_begun).unwrap_or(0)
}
