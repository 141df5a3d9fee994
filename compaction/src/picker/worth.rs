//! Merges into the last level: their costs and the gains that justify them.
//!
//! A merge into the last level is worth a [`Price`] if `written <= price.newer * newer +
//! price.freed * freed`. Here `written` is its output, `newer` the bytes of the newer runs that it
//! removes from the read path, and `freed` the bytes that it frees. When the database is idle
//! ([`IDLE`]), tiny runs do not rewrite it, but garbage of a tenth of the bytes to be rewritten
//! goes, and so do newer runs of a tenth. Beside writers, only larger gains count. The freed bytes
//! are known from surveys ([`Survey`]); versions that a snapshot needs do not count.
//!
//! Costs are compared by *cluster*: tables that overlap each other, directly or through others.
//! Each cluster can be merged by itself, since none of its keys lies in a table outside. Writes or
//! deletions in one place therefore cost a merge of that place only.
//!
//! Newer runs that are not worth a merge into the last level are merged among themselves once there
//! are [`IDLE_RUNS`]. The merge starts at the newest and includes an older run only if that is not
//! larger than all newer ones together. The number of runs stays logarithmic, and each byte is
//! rewritten only when its run doubles.
use super::{Compaction, Moment, Work};
use crate::garbage::{self, Survey};
use crate::options::{CompactionOptions, CompactionStyle, FIRST_TIER, LAST_LEVEL};
use crate::planted;
use crate::version::{Run, RunTable, Version};
use sapwood_base::{KeyspaceId, SequenceNumber};
use std::ops::Range;
use std::sync::Arc;

/// The bytes that a merge into the last level may write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Price {
    /// For each byte of newer runs.
    pub(super) newer: u64,
    /// For each byte that the merge frees.
    pub(super) freed: u64,
}

/// The price of a merge that only improves reads and space.
pub(super) const IDLE: Price = Price { newer: 10, freed: 9 };
/// If less than one byte in this many of a cluster's newer tables is of tables that were not
/// surveyed, these count like the others.
const UNKNOWN_SHARE: u64 = 4;
/// A table whose entries would hide this many times its bytes, if each hides a row of average
/// length, is surveyed while it is in level 0.
const SMALL_OVER_LARGE: u64 = 8;
/// Garbage of at least one part in this many of the last level does not wait for idle time.
const URGENT_SHARE: u64 = 2;
/// When idle, this many runs above the last level are merged among themselves.
const IDLE_RUNS: usize = 4;

/// Tables that overlap each other.
#[derive(Default)]
struct Cluster {
    /// Tables of runs above the last level, with the places of their runs in the version.
    upper: Vec<(usize, RunTable)>,
    /// Tables of the last level.
    below: Range<usize>,
}

/// The runs that wait above the last level of a version for a merge into it beside writers, and
/// their bytes.
#[derive(Default)]
pub(super) struct Waiting {
    /// Their numbers: those of the tiers. The few bytes of level 0 are merged into the first tier
    /// before, unless they may hide many times as many.
    pub(super) runs: Range<usize>,
    /// Of the last level.
    last: u64,
    /// Of the runs above it.
    newer: u64,
    /// What their tables hide, as far as they were surveyed.
    hidden: u64,
    /// What the entries of the others hide if each hides a row of average length.
    possible: u64,
}

impl Waiting {
    /// What tables hide from all but `snapshots`, ascending, counts.
    pub(super) fn new(version: &Version, snapshots: &[SequenceNumber]) -> Waiting {
        let row_bytes = row_bytes(version);
        let possible = |table: &RunTable| (table.meta.entries as f64 * row_bytes) as u64;
        let hides_more =
            |table: &RunTable| possible(table) >= table.handle.file_bytes().saturating_mul(SMALL_OVER_LARGE);
        let is_free = |table: &RunTable| !is_seen(table, SequenceNumber::ZERO, snapshots);
        let includes_level_0 = version.level(0).flat_map(|run| &run.tables).any(hides_more);
        let first = if includes_level_0 { 0 } else { version.level(0).count() };
        let runs = first..above_last(version);
        let mut waiting = Waiting { runs, last: version.level_bytes(LAST_LEVEL), ..Waiting::default() };
        for table in version.runs[waiting.runs.clone()].iter().flat_map(|run| &run.tables) {
            let bytes = table.handle.file_bytes();
            waiting.newer += bytes;
            match table.hides() {
                Some(hidden) => waiting.hidden += if is_free(table) { hidden.bytes } else { 0 },
                None if !is_free(table) => {}
                None => waiting.possible += bytes.max(possible(table)),
            }
        }
        waiting
    }

    /// The share of the bytes which a merge of everything would write that `price` allows, as far
    /// as is known.
    pub(super) fn share_of(&self, price: &Price) -> f64 {
        self.share(price, self.hidden)
    }

    /// [`Waiting::share_of`] if each entry of a table that was not surveyed hides a row. A few
    /// bytes of such tables do not count.
    pub(super) fn share_of_at_most(&self, price: &Price) -> f64 {
        match self.possible.saturating_mul(UNKNOWN_SHARE) <= self.newer {
            true => self.share(price, self.hidden),
            false => self.share(price, self.hidden + self.possible),
        }
    }

    fn share(&self, price: &Price, freed: u64) -> f64 {
        let all = self.last + self.newer;
        let freed = freed.min(all);
        let allowed = price.newer as f64 * self.newer as f64 + price.freed as f64 * freed as f64;
        allowed / (all - freed).max(1) as f64
    }
}

/// Returns the part of a merge of the runs with numbers `upper` into the last level that is worth
/// `price`, or the survey needed to decide.
pub(super) fn pick_into_last(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    upper: Range<usize>,
    moment: &Moment<'_>,
    price: &Price,
    reason: &'static str,
) -> Option<Work> {
    let last = version.level(LAST_LEVEL).next();
    let clusters = clusters(version, upper.clone(), last);
    let mut chosen: Vec<&Cluster> = Vec::new();
    let mut survey = Survey::default();
    for cluster in &clusters {
        let below = last.map_or(&[][..], |run| &run.tables[cluster.below.clone()]);
        let bytes = (sum(cluster.upper.iter().map(|(_, table)| table)), sum(below));
        if is_worth(price, bytes.0, bytes.1, 0) {
            chosen.push(cluster);
            continue;
        }
        if options.has_base {
            // The older data lies in a tree, where a merge frees nothing.
            continue;
        }
        let unknown = || cluster.upper.iter().filter(|(_, table)| table.hides().is_none());
        let share = if price.newer == IDLE.newer { u64::MAX } else { UNKNOWN_SHARE };
        if sum(unknown().map(|(_, table)| table)).saturating_mul(share) > bytes.0 {
            survey.hiding.extend(unknown().cloned());
        } else if is_worth(price, bytes.0, bytes.1, gain(cluster, below, moment.snapshots)) {
            chosen.push(cluster);
        }
    }
    if !survey.is_empty() && planted::surveys_garbage() {
        return Some(Work::Survey(survey));
    }
    if chosen.is_empty() {
        return None;
    }
    let part = |run: &Arc<Run>, tables: Vec<RunTable>| match tables.len() {
        0 => None,
        len if len == run.tables.len() => Some(run.clone()),
        _ => Some(Arc::new(Run::new(run.level, run.id, tables))),
    };
    let mut inputs: Vec<Arc<Run>> = upper
        .filter_map(|number| {
            let tables = chosen.iter().flat_map(|cluster| &cluster.upper);
            let own = tables.filter(|(run, _)| *run == number).map(|(_, table)| table.clone()).collect();
            part(&version.runs[number], own)
        })
        .collect();
    inputs.extend(last.and_then(|run| {
        part(
            run,
            chosen.iter().flat_map(|cluster| run.tables[cluster.below.clone()].iter().cloned()).collect(),
        )
    }));
    let target_run = last.map_or(0, |run| run.id);
    Some(Work::Merge(Compaction {
        keyspace,
        inputs,
        target_level: LAST_LEVEL,
        target_run,
        reason,
        rewrite: false,
    }))
}

/// Picks work of an idle database on runs above the last level.
pub(super) fn pick_idle(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    moment: &Moment<'_>,
) -> Option<Work> {
    let upper = above_last(version);
    if !planted::merges_when_idle(options.style) {
        return None;
    }
    if upper == 0 {
        return survey_holding(version, options);
    }
    pick_into_last(keyspace, version, options, 0..upper, moment, &IDLE, "idle")
        .or_else(|| {
            let runs = (upper >= IDLE_RUNS).then_some(0..upper)?;
            merge_among(keyspace, version, options, runs, "idle, small runs").map(Work::Merge)
        })
        .or_else(|| survey_holding(version, options))
}

/// Picks a merge that cannot wait for idle time, if the newer runs hide half of the last level or
/// their tombstones suggest it.
pub(super) fn pick_urgent(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    moment: &Moment<'_>,
) -> Option<Work> {
    let upper = above_last(version);
    let last_bytes = version.level_bytes(LAST_LEVEL);
    if upper == 0 || last_bytes == 0 || options.has_base {
        return None;
    }
    let known = |(number, table): (usize, &RunTable)| match table.hides() {
        Some(hidden) => hidden.bytes,
        None => version.guess(number, table),
    };
    let tables = version.runs[..upper].iter().enumerate();
    let hidden: u64 =
        tables.flat_map(|(number, run)| run.tables.iter().map(move |table| (number, table))).map(known).sum();
    let is_due = hidden >= last_bytes / URGENT_SHARE && planted::surveys_garbage();
    is_due
        .then(|| pick_into_last(keyspace, version, options, 0..upper, moment, &IDLE, "half is garbage"))
        .flatten()
}

/// Merges the newest of `runs`, which are consecutive numbers, into one run: as many as are each
/// not larger than all newer ones together. `None` if that is only one.
pub(super) fn merge_among(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    runs: Range<usize>,
    reason: &'static str,
) -> Option<Compaction> {
    let list = &version.runs[runs];
    let mut bytes = list.first()?.file_bytes();
    let mut count = 1;
    while let Some(run) = list.get(count).filter(|run| run.file_bytes() <= bytes) {
        bytes += run.file_bytes();
        count += 1;
    }
    (count > 1).then(|| merge_runs(keyspace, version, options, &list[..count], reason))
}

/// Merges `runs`, which are consecutive, into one run in their place.
pub(super) fn merge_runs(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    runs: &[Arc<Run>],
    reason: &'static str,
) -> Compaction {
    let (newest, oldest) = (&runs[0], &runs[runs.len() - 1]);
    let next =
        version.runs.iter().find(|run| (run.level, u64::MAX - run.id) > (oldest.level, u64::MAX - oldest.id));
    let is_all_of_level_0 = next.is_none_or(|run| run.level >= FIRST_TIER);
    let (target_level, target_run) = match oldest.level {
        0 if options.style == CompactionStyle::Hybrid && is_all_of_level_0 => (FIRST_TIER, 0),
        // Not a new number: a flush in progress already has one and will be newer.
        0 => (0, newest.id),
        level => (level, oldest.id),
    };
    Compaction { keyspace, inputs: runs.to_vec(), target_level, target_run, reason, rewrite: false }
}

/// Picks tables of the last level that a released snapshot allows to shrink considerably.
pub(super) fn pick_released(
    keyspace: KeyspaceId,
    version: &Version,
    options: &CompactionOptions,
    moment: &Moment<'_>,
) -> Option<Work> {
    let last = version.level(LAST_LEVEL).next().filter(|_| !options.has_base)?;
    let is_due = |table: &&RunTable| {
        let free = garbage::releasable(table, moment.snapshots);
        free > 0 && is_worth(&IDLE, 0, table.handle.file_bytes(), free) && planted::rewrites_for_released()
    };
    let tables: Vec<RunTable> = last.tables.iter().filter(is_due).cloned().collect();
    (!tables.is_empty()).then(|| {
        Work::Merge(Compaction {
            keyspace,
            inputs: vec![Arc::new(Run::new(LAST_LEVEL, last.id, tables))],
            target_level: LAST_LEVEL,
            target_run: last.id,
            reason: "a snapshot has gone",
            rewrite: true,
        })
    })
}

/// Surveys the bytes held by tables of an earlier session, as time permits.
fn survey_holding(version: &Version, options: &CompactionOptions) -> Option<Work> {
    let last = version.level(LAST_LEVEL).next().filter(|_| !options.has_base)?;
    let holding: Vec<RunTable> =
        last.tables.iter().filter(|table| garbage::is_unknown(table)).cloned().collect();
    (!holding.is_empty()).then(|| Work::Survey(Survey { hiding: Vec::new(), holding }))
}

/// Whether a merge of newer runs of `upper` bytes with `below` bytes of the last level is worth
/// `price` if it frees `gain`.
fn is_worth(price: &Price, upper: u64, below: u64, gain: u64) -> bool {
    let written = upper.saturating_add(below).saturating_sub(gain);
    if planted::ignores_cost(upper) {
        return true;
    }
    let allowed = upper.saturating_mul(price.newer).saturating_add(gain.saturating_mul(price.freed));
    written <= allowed
}

/// The number of runs above the last level.
pub(super) fn above_last(version: &Version) -> usize {
    version.runs.iter().take_while(|run| run.level < LAST_LEVEL).count()
}

/// The average length of a row of the last level.
fn row_bytes(version: &Version) -> f64 {
    let entries: u64 = version.level(LAST_LEVEL).map(|run| run.entries()).sum();
    version.level_bytes(LAST_LEVEL) as f64 / entries.max(1) as f64
}

fn sum<'a>(tables: impl IntoIterator<Item = &'a RunTable>) -> u64 {
    tables.into_iter().map(|table| table.handle.file_bytes()).sum()
}

/// Bytes that a merge of the cluster frees. Bytes hidden by its tables count if they are known.
fn gain(cluster: &Cluster, below: &[RunTable], snapshots: &[SequenceNumber]) -> u64 {
    let oldest = below.iter().map(|table| table.meta.min_sequence).min().unwrap_or_default();
    let is_seen = |table: &RunTable| is_seen(table, oldest, snapshots);
    let upper = cluster.upper.iter().map(|(_, table)| table);
    let hidden = upper.clone().filter(|table| !is_seen(table)).filter_map(RunTable::hides);
    let hidden: u64 = hidden.map(|hidden| hidden.bytes).sum();
    // The few that were not surveyed count like the others.
    let known = sum(upper.clone().filter(|table| table.hides().is_some()));
    let all = sum(upper.clone());
    let hidden = (u128::from(hidden) * u128::from(all) / u128::from(known.max(1))) as u64;
    let released: u64 = upper.clone().chain(below).map(|table| garbage::releasable(table, snapshots)).sum();
    (hidden + released).min(sum(upper) + sum(below))
}

/// Whether one of `snapshots`, ascending, may see what `table` hides, if that is not older than
/// `oldest`.
fn is_seen(table: &RunTable, oldest: SequenceNumber, snapshots: &[SequenceNumber]) -> bool {
    let first = snapshots.partition_point(|snapshot| *snapshot < oldest);
    snapshots.get(first).is_some_and(|snapshot| *snapshot < table.meta.max_sequence)
}

/// The clusters of the runs with numbers `upper` and of `last`, in key order. Tables of `last`
/// alone form no cluster.
fn clusters(version: &Version, upper: Range<usize>, last: Option<&Arc<Run>>) -> Vec<Cluster> {
    let mut tables: Vec<(usize, RunTable)> = upper
        .flat_map(|number| version.runs[number].tables.iter().map(move |table| (number, table.clone())))
        .collect();
    tables.sort_by(|a, b| a.1.first().cmp(b.1.first()));
    let mut clusters: Vec<Cluster> = Vec::new();
    let mut reach: Vec<u8> = Vec::new();
    for (number, table) in tables {
        let below = last.map_or(0..0, |run| {
            let from = run.lower_bound(table.first());
            from..from + run.overlapping(Some(table.first()), Some(table.last())).len()
        });
        let lowest = last.filter(|_| !below.is_empty()).map(|run| run.tables[below.start].first());
        let highest = last.filter(|_| !below.is_empty()).map(|run| run.tables[below.end - 1].last());
        let is_apart = table.first().min(lowest.unwrap_or(table.first())) > reach.as_slice();
        let end = table.last().max(highest.unwrap_or(table.last())).to_vec();
        match clusters.last_mut().filter(|_| !is_apart) {
            Some(cluster) => {
                cluster.upper.push((number, table));
                cluster.below = match (cluster.below.is_empty(), below.is_empty()) {
                    (_, true) => cluster.below.clone(),
                    (true, false) => below,
                    (false, false) => cluster.below.start..cluster.below.end.max(below.end),
                };
                reach = reach.max(end);
            }
            None => {
                clusters.push(Cluster { upper: vec![(number, table)], below });
                reach = end;
            }
        }
    }
    clusters
}
