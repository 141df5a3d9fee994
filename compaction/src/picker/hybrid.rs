//! Lazy leveling (Dostoevsky; Dayan, Idreos, SIGMOD 2018): tiers above one leveled last level, as
//! many as the data needs.
//!
//! A full level 0 becomes one run of the first tier, and a full tier one run of the next. A run is
//! therefore about `tier_runs` times as large as one of the tier above, and each byte is written
//! once per tier: with the logarithm of the data beside the memtables.
//!
//! Everything above the last level is merged into it once that is worth the price of [`BUSY`]: when
//! as many bytes wait above it as it holds, or when a quarter of it is hidden by newer entries. The
//! size of the last level thus decides how many tiers there are. Only the clusters that are worth
//! it are merged ([`super::worth`]), so writes in one place cost a merge of that place.
//!
//! Merges of tiers take long, and level 0 fills meanwhile. When level 0 is full, a merge therefore
//! yields after a slice, level 0 becomes one more run of the first tier, and the merge continues
//! with the tables that it began with ([`super::interrupted`]). If runs that came meanwhile fill a
//! tier, it yields to their merge too. Runs that wait for the merge may stand in the same tier;
//! then the newer ones are merged within it, since in the next tier they would be below older
//! versions. Writers hardly notice any of this. They slow down only once garbage of half the last
//! level waits, or a tier has three times its runs of one size: then level 0 must wait.
//!
//! Beside writers, level 0 goes into the last level only by way of the first tier. So its merge
//! never takes tables of a merge under way, and only the tables of tiers are surveyed.
use super::worth::{Price, Waiting, above_last, merge_among, merge_runs, pick_into_last};
use super::{Compaction, Moment, Work};
use crate::options::{CompactionOptions, FIRST_TIER, LAST_TIER};
use crate::planted;
use crate::version::Run;
use crate::version::Version;
use sapwood_base::{KeyspaceId, SequenceNumber};
use std::ops::Range;
use std::sync::Arc;

/// The price of a merge into the last level beside writers. With `S` bytes in the last level it is
/// due when `S` bytes of new keys wait, or `S / 4` bytes that overwrite.
const BUSY: Price = Price { newer: 2, freed: 2 };
/// The price if the tiers have at most [`FEW_RUNS`]. Lookups pass them quickly, and the first
/// merges of a small database would cost more than they gain: only garbage counts.
const BUSY_FEW: Price = Price { newer: 0, freed: 3 };
const FEW_RUNS: usize = 4;
/// The price when a tier is full that holds at least half of what waits: the merge into the last
/// level saves the merge into the next tier.
const BUSY_FULL: Price = Price { newer: 3, freed: 2 };
/// Level 0 has priority over a merge into the last level until that has become this cheap.
const OVERDUE: Price = Price { newer: 1, freed: 1 };
/// Level 0 has priority over a full tier until that has this many times its runs.
const TIER_RUNS_FACTOR: usize = 3;

/// Whether level 0 is full and the levels below have room for one more run.
pub(super) fn level0_is_next(
    version: &Version,
    options: &CompactionOptions,
    snapshots: &[SequenceNumber],
) -> bool {
    version.level(0).count() >= options.level0_runs && overdue(version, options, snapshots) < 1.0
}

/// How far the work below level 0 is overdue; from 1 on, level 0 waits for it.
pub(super) fn overdue(version: &Version, options: &CompactionOptions, snapshots: &[SequenceNumber]) -> f64 {
    let most = (options.tier_runs * TIER_RUNS_FACTOR).max(1) as f64;
    let tiers = (FIRST_TIER..=LAST_TIER).map(|tier| &version.runs[places(version, tier)]);
    let fullest = tiers.filter(|runs| !runs.is_empty()).map(|runs| alike(runs, options)).max().unwrap_or(0);
    let runs = fullest as f64 / most;
    match options.has_base {
        true => runs,
        false => runs.max(Waiting::new(version, snapshots).share_of(&OVERDUE)),
    }
}

/// The merge of newer runs that goes before the next slice of `merge`: that of a full level 0, or
/// of runs of the first tiers that have come since `merge` began.
pub(super) fn before(
    merge: &Compaction,
    version: &Version,
    options: &CompactionOptions,
    snapshots: &[SequenceNumber],
) -> Option<Compaction> {
    let keyspace = merge.keyspace;
    if level0_is_next(version, options, snapshots) {
        return Some(into_first_tier(keyspace, version));
    }
    let newest = merge.inputs.iter().find(|run| run.level >= FIRST_TIER)?;
    for tier in FIRST_TIER..newest.level.min(LAST_TIER) {
        let places = places(version, tier);
        if places.len() >= planted::full_tier(options.tier_runs) {
            return Some(into_next_tier(keyspace, version, tier, places));
        }
    }
    let tier = &version.runs[places(version, newest.level)];
    let mut rest = &tier[..tier.partition_point(|run| run.id > newest.id)];
    while !rest.is_empty() {
        let alike = alike(rest, options);
        if alike >= planted::full_tier(options.tier_runs).max(2) {
            let mut within = merge_runs(keyspace, version, options, &rest[..alike], "newer runs");
            if !planted::newer_runs_stay() && newest.level < LAST_TIER {
                (within.target_level, within.target_run) = (newest.level + 1, 0);
            }
            return Some(within);
        }
        rest = &rest[alike..];
    }
    None
}

/// How many of the newest of `runs` are about as large as the newest, or smaller.
fn alike(runs: &[Arc<Run>], options: &CompactionOptions) -> usize {
    let most = runs[0].file_bytes().saturating_mul(options.tier_runs as u64) / 2;
    runs.iter().take_while(|run| run.file_bytes() <= most).count().max(1)
}

pub(super) fn pick(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    moment: &Moment<'_>,
) -> Option<Work> {
    let above = above_last(version);
    let level0_is_full = version.level(0).count() >= options.level0_runs;
    if level0_is_next(version, options, moment.snapshots) {
        return Some(Work::Merge(into_first_tier(keyspace, version)));
    }
    let waiting = Waiting::new(version, moment.snapshots);
    let price = if above - version.level(0).count() <= FEW_RUNS { &BUSY_FEW } else { &BUSY };
    if !waiting.runs.is_empty() && waiting.share_of_at_most(price) >= 1.0 {
        let merge =
            pick_into_last(keyspace, version, options, waiting.runs, moment, price, "enough is waiting");
        if merge.is_some() {
            return merge;
        }
    }
    // The oldest full tier first: those above then fill the room that it leaves.
    let tiers = (FIRST_TIER..=LAST_TIER).rev().map(|tier| (tier, places(version, tier)));
    for (tier, places) in tiers.filter(|(_, places)| places.len() >= planted::full_tier(options.tier_runs)) {
        let bytes: u64 = version.runs[places.clone()].iter().map(|run| run.file_bytes()).sum();
        let below: u64 = version.runs[places.end..above].iter().map(|run| run.file_bytes()).sum();
        let price = if bytes >= below { &BUSY_FULL } else { &BUSY };
        let merge =
            pick_into_last(keyspace, version, options, places.start..above, moment, price, "a tier is full");
        if merge.is_some() {
            return merge;
        }
        let merge = match tier == LAST_TIER {
            true => within_last_tier(keyspace, version, options, places),
            false => Some(into_next_tier(keyspace, version, tier, places)),
        };
        if merge.is_some() {
            return merge.map(Work::Merge);
        }
    }
    level0_is_full.then(|| Work::Merge(into_first_tier(keyspace, version)))
}

/// Level 0 as one more run of the first tier.
fn into_first_tier(keyspace: KeyspaceId, version: &Version) -> Compaction {
    Compaction {
        keyspace,
        inputs: version.level(0).cloned().collect(),
        target_level: FIRST_TIER,
        target_run: 0,
        reason: "level 0 is full",
        rewrite: false,
    }
}

/// Merges runs of the last tier, which has no next one: the newest ones that are each not larger
/// than all newer ones together, and all of them once there are twice as many as a tier has.
fn within_last_tier(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    places: Range<usize>,
) -> Option<Compaction> {
    let reason = "the last tier is full";
    let has_twice = places.len() >= options.tier_runs.saturating_mul(TIER_RUNS_FACTOR);
    merge_among(keyspace, version, options, places.clone(), reason)
        .or_else(|| has_twice.then(|| merge_runs(keyspace, version, options, &version.runs[places], reason)))
}

/// The runs with numbers `places` of `tier` as one more run of the next tier.
fn into_next_tier(keyspace: KeyspaceId, version: &Version, tier: u8, places: Range<usize>) -> Compaction {
    Compaction {
        keyspace,
        inputs: version.runs[places].to_vec(),
        target_level: tier + 1,
        target_run: 0,
        reason: "a tier is full",
        rewrite: false,
    }
}

/// The places of the runs of a level.
fn places(version: &Version, level: u8) -> Range<usize> {
    let from = version.runs.partition_point(|run| run.level < level);
    from..version.runs.partition_point(|run| run.level <= level)
}
