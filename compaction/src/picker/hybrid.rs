//! Lazy leveling: level 0 goes as a whole into a new run of the tier level; a full tier goes into the last level.
//!
//! A merge into the last level takes long, and meanwhile level 0 fills. So when that is full the merge gives way after a
//! slice, level 0 goes into one more run of the tier, and then the runs that the merge had begun with go on. Writers hardly
//! notice the merge; they pay for the tier only once it has twice its runs and level 0 must wait.
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
/// Level 0 goes before a full tier until the tier has so many times its runs.
const TIER_RUNS_FACTOR: usize = 2;

/// Whether level 0 is full, and the tier not too full for one more run.
pub(super) fn level0_is_next(version: &Version, options: &CompactionOptions) -> bool {
    version.level(0).count() >= options.level0_runs
        && version.level(TIER_LEVEL).count() < options.tier_runs.saturating_mul(TIER_RUNS_FACTOR)
}

pub(super) fn pick(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    idle: bool,
) -> Option<Compaction> {
    let above_tier: Vec<Arc<Run>> =
        version.runs.iter().filter(|run| run.level < TIER_LEVEL).cloned().collect();
    let tier: Vec<Arc<Run>> = version.level(TIER_LEVEL).cloned().collect();
    if tier.len() >= options.tier_runs && !level0_is_next(version, options) {
        return Some(into_last(keyspace, version, begun(tier), "tier is full"));
    }
    if version.level(0).count() >= options.level0_runs {
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

/// The runs of the tier that a merge which gave way had begun with, or all of them. What came into the tier since is newer,
/// so it can stay above; taken along, it would have the first part of the last level written twice.
fn begun(mut tier: Vec<Arc<Run>>) -> Vec<Arc<Run>> {
    let is_begun = |run: &Arc<Run>| run.tables.iter().any(|table| table.record.lower.is_some());
    let newest = tier.iter().position(is_begun).unwrap_or(0);
    tier.split_off(newest)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picker::{gives_way, pick};
    use crate::version::{TableContext, TableHandle};
    use sapwood_base::format::manifest::{Edit, TableRecord};
    use sapwood_base::{FileNumber, SequenceNumber};
    use sapwood_storage::cache::BufferCache;
    use sapwood_storage::env::Env;
    use std::collections::HashMap;
    use std::path::PathBuf;

    /// A version with one table per run. A run is its level, its number, and whether a merge has begun with it.
    fn version(runs: &[(u8, u64, bool)]) -> Version {
        let (env, _) = Env::sim_manual(1);
        let (obsolete, _) = crossbeam::channel::unbounded();
        let cache = BufferCache::new(1 << 20).unwrap();
        let context = Arc::new(TableContext::new(env.fs().clone(), PathBuf::from("db"), cache, obsolete));
        let (mut edits, mut handles) = (Vec::new(), HashMap::new());
        for (level, run, is_begun) in runs {
            let file = FileNumber(*run);
            handles.insert(file, TableHandle::new(&context, file, 1000));
            edits.push(Edit::TableAdded(TableRecord {
                keyspace: KeyspaceId(0),
                level: *level,
                run: *run,
                file,
                file_bytes: 1000,
                entries: 10,
                tombstones: 0,
                smallest: b"a".to_vec(),
                largest: b"z".to_vec(),
                min_sequence: SequenceNumber(*run),
                max_sequence: SequenceNumber(*run),
                lower: is_begun.then(|| b"m".to_vec()),
            }));
        }
        Version::default().apply(KeyspaceId(0), &edits, &handles).unwrap()
    }

    fn options() -> CompactionOptions {
        CompactionOptions { level0_runs: 2, tier_runs: 3, ..CompactionOptions::default() }
    }

    fn picked(runs: &[(u8, u64, bool)]) -> Option<(u8, Vec<u64>)> {
        let compaction = pick(KeyspaceId(0), &version(runs), &options(), false)?;
        Some((compaction.target_level, compaction.inputs.iter().map(|run| run.id).collect()))
    }

    #[test]
    fn a_full_level_0_goes_before_a_full_tier() {
        let mut runs = vec![(LAST_LEVEL, 1, false)];
        runs.extend((2..5).map(|run| (TIER_LEVEL, run, false)));
        assert_eq!(picked(&runs), Some((LAST_LEVEL, vec![4, 3, 2, 1])));
        runs.push((0, 8, false));
        assert_eq!(picked(&runs), Some((LAST_LEVEL, vec![4, 3, 2, 1])), "level 0 is not full");
        runs.push((0, 9, false));
        assert_eq!(picked(&runs), Some((TIER_LEVEL, vec![9, 8])));
    }

    #[test]
    fn a_tier_with_twice_its_runs_goes_before_a_full_level_0() {
        let mut runs: Vec<_> = (2..8).map(|run| (TIER_LEVEL, run, false)).collect();
        runs.extend([(0, 8, false), (0, 9, false)]);
        assert_eq!(picked(&runs), Some((LAST_LEVEL, vec![7, 6, 5, 4, 3, 2])));
        runs.remove(0);
        assert_eq!(picked(&runs), Some((TIER_LEVEL, vec![9, 8])));
    }

    #[test]
    fn a_merge_that_gave_way_goes_on_with_the_runs_it_began_with() {
        let runs = [
            (LAST_LEVEL, 1, false),
            // A table of the oldest run ended where a slice did.
            (TIER_LEVEL, 2, false),
            (TIER_LEVEL, 3, true),
            (TIER_LEVEL, 4, false),
            (0, 8, false),
        ];
        assert_eq!(picked(&runs), Some((LAST_LEVEL, vec![3, 2, 1])));
    }

    #[test]
    fn only_a_merge_into_the_last_level_gives_way() {
        let mut runs: Vec<_> = (2..5).map(|run| (TIER_LEVEL, run, false)).collect();
        let merge = pick(KeyspaceId(0), &version(&runs), &options(), false).unwrap();
        assert!(!gives_way(&merge, &version(&runs), &options()));
        runs.extend([(0, 8, false), (0, 9, false)]);
        let now = version(&runs);
        assert!(gives_way(&merge, &now, &options()));
        let upper = pick(KeyspaceId(0), &now, &options(), false).unwrap();
        assert!(!gives_way(&upper, &now, &options()));
        runs.extend((5..8).map(|run| (TIER_LEVEL, run, false)));
        assert!(!gives_way(&merge, &version(&runs), &options()), "the tier is too full for another run");
    }
}
