//! Bulk loading of an empty list: records first, in any order and by many threads, then all leaves
//! from left to right, each range of keys by one thread, and the links last.
//!
//! An insert at a random place spends most of its time on the search. Bulk loading does not search:
//! it sorts the prefixes, reads records again only where prefixes are equal (a read out of arena
//! order is a cache miss), and writes every leaf once.
use super::Skiplist;
use super::coding::PrefixCoding;
use super::leaf::{LEAF_SLOTS, LeafOffset, MAX_HEIGHT, RecordOffset};
use super::leaves::Leaves;
use super::node::{Nodes, Record};
use crate::sync::Ordering;
use rayon::prelude::*;
use sapwood_base::key::key_prefix;
use sapwood_base::{Result, SequenceNumber, ValueKind};
use std::cmp::Reverse;

/// Fewer entries do not justify several threads.
const PARALLEL_ENTRIES: usize = if cfg!(test) { 256 } else { 16 << 10 };
/// Filled slots per leaf: the rest is for later inserts.
const FILLED_SLOTS: usize = LEAF_SLOTS * 4 / 5;
/// Sampled prefixes per run, to find ranges of equal size.
const SAMPLES_PER_RUN: usize = 32;

/// A record in the arena that is in no list yet.
#[derive(Clone, Copy)]
pub struct BulkEntry {
    prefix: u64,
    record: RecordOffset,
    /// Its memory, in units of eight bytes.
    units: u32,
}

const _: () = assert!(size_of::<BulkEntry>() == 16);

impl BulkEntry {
    /// Writes a record.
    #[inline]
    pub fn write(
        nodes: &Nodes,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<BulkEntry> {
        Ok(BulkEntry::of(nodes.new_record(key, sequence, kind, value)?))
    }

    #[inline]
    fn of(record: Record<'_>) -> BulkEntry {
        BulkEntry { prefix: key_prefix(record.key()), record: record.offset(), units: record.units() as u32 }
    }

    /// Primary sort key.
    #[inline]
    pub fn prefix(&self) -> u64 {
        self.prefix
    }
}

impl PrefixCoding {
    /// Chooses the encoding for the keys of `runs`.
    pub fn suiting_bulk(nodes: &Nodes, runs: &[Vec<BulkEntry>]) -> PrefixCoding {
        let entries: usize = runs.iter().map(Vec::len).sum();
        PrefixCoding::suiting(entries as u64, |wanted| {
            let entries = runs.iter().flatten().step_by((entries / wanted).max(1));
            let mut keys: Vec<&[u8]> = entries.map(|entry| nodes.record(entry.record).key()).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        })
    }
}

impl Skiplist {
    /// Publishes records; each of `runs` holds any number of them in any order. REQUIRES: no
    /// concurrent use of the list. On an error some are visible.
    ///
    /// With `threads` above one, several threads of the current pool share the work.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full.
    pub fn build(&self, nodes: &Nodes, mut runs: Vec<Vec<BulkEntry>>, threads: usize) -> Result<()> {
        let entries: usize = runs.iter().map(Vec::len).sum();
        let parallel = threads > 1 && entries >= PARALLEL_ENTRIES;
        let leaves = &self.leaves;
        if !leaves.coding.is_plain() {
            let take_prefixes = |run: &mut Vec<BulkEntry>| {
                for entry in run {
                    entry.prefix = leaves.coding.prefix_of(nodes.record(entry.record).key());
                }
            };
            match parallel {
                true => runs.par_iter_mut().for_each(take_prefixes),
                false => runs.iter_mut().for_each(take_prefixes),
            }
        }
        if self.entries() > 0 {
            return self.link_sorted(nodes, &sorted(nodes, runs.concat()));
        }
        let ranges: Vec<(Written, u64)> = match parallel {
            // A few more ranges than threads, because one thread may be late.
            true => {
                let bounds = split(&runs, threads * 4);
                let parts: Vec<Vec<Vec<BulkEntry>>> =
                    runs.into_par_iter().map(|run| distribute(&run, &bounds)).collect();
                let write = |range: usize| {
                    let parts: Vec<&[BulkEntry]> =
                        parts.iter().map(|parts| parts[range].as_slice()).collect();
                    write_leaves(nodes, &sorted(nodes, parts.concat()))
                };
                (0..bounds.len() + 1).into_par_iter().map(write).collect::<Result<_>>()?
            }
            false => vec![write_leaves(nodes, &sorted(nodes, runs.concat()))?],
        };

        let totals: u64 = ranges.iter().map(|range| range.1).sum();
        link_all(nodes, leaves, ranges.into_iter().map(|range| range.0));
        self.totals.0.fetch_add(totals, Ordering::Relaxed);
        Ok(())
    }

    /// Links records one by one; neighbours share the path through the list.
    fn link_sorted(&self, nodes: &Nodes, entries: &[BulkEntry]) -> Result<()> {
        for entry in entries {
            let record = nodes.record(entry.record);
            let seed = (u64::from(entry.record.get()) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.link(nodes, record.key(), record, seed ^ (seed >> 32))?;
            self.totals.0.fetch_add((1 << 32) | record.units(), Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Prefixes, ascending, that split `runs` into at most `ranges` ranges of about equal size.
fn split(runs: &[Vec<BulkEntry>], ranges: usize) -> Vec<u64> {
    let mut samples: Vec<u64> = runs
        .iter()
        .flat_map(|run| run.iter().step_by((run.len() / SAMPLES_PER_RUN).max(1)).map(BulkEntry::prefix))
        .collect();
    samples.sort_unstable();
    let mut bounds: Vec<u64> = (1..ranges).map(|range| samples[samples.len() * range / ranges]).collect();
    bounds.dedup();
    bounds
}

/// Partitions the records of `run`: those below the first of `bounds`, from each bound on, and from
/// the last one on.
fn distribute(run: &[BulkEntry], bounds: &[u64]) -> Vec<Vec<BulkEntry>> {
    let even = run.len() / (bounds.len() + 1);
    let mut parts: Vec<_> = (0..=bounds.len()).map(|_| Vec::with_capacity(even + even / 2 + 1)).collect();
    for entry in run {
        // Branch-free in the key, because the range is unpredictable.
        let range = bounds.iter().map(|bound| usize::from(*bound <= entry.prefix)).sum::<usize>();
        parts[range].push(*entry);
    }
    parts
}

/// Records in order: keys ascending, newest version first.
fn sorted(nodes: &Nodes, mut entries: Vec<BulkEntry>) -> Vec<BulkEntry> {
    entries.sort_unstable_by_key(BulkEntry::prefix);
    for ties in entries.chunk_by_mut(|a, b| a.prefix == b.prefix).filter(|ties| ties.len() > 1) {
        ties.sort_unstable_by(|a, b| {
            let (a, b) = (nodes.record(a.record), nodes.record(b.record));
            (a.key(), Reverse(a.sequence())).cmp(&(b.key(), Reverse(b.sequence())))
        });
    }
    entries
}

/// Writes leaves of sorted records from left to right. Also returns the increment of the list's
/// totals.
fn write_leaves(nodes: &Nodes, entries: &[BulkEntry]) -> Result<(Written, u64)> {
    let mut leaves = Written::default();
    let mut totals = 0;
    let mut slots = Vec::with_capacity(FILLED_SLOTS);
    let mut last: Option<BulkEntry> = None;
    for entry in entries {
        totals += (1 << 32) | u64::from(entry.units);
        match last.filter(|last| last.prefix == entry.prefix).map(|last| nodes.record(last.record)) {
            // Relaxed: the list is not in use yet.
            Some(newer) if newer.key() == nodes.record(entry.record).key() => {
                newer.older().store(Some(entry.record), Ordering::Relaxed);
            }
            _ => {
                if slots.len() == FILLED_SLOTS {
                    leaves.write(nodes, &mut slots)?;
                }
                slots.push((entry.prefix, entry.record));
            }
        }
        last = Some(*entry);
    }
    leaves.write(nodes, &mut slots)?;
    Ok((leaves, totals))
}

/// Written that are written and not linked yet.
#[derive(Default)]
struct Written {
    /// Prefix of the low key, leaf, height.
    written: Vec<(u64, LeafOffset, usize)>,
}

impl Written {
    /// Writes a leaf with these slots, and clears `slots`.
    fn write(&mut self, nodes: &Nodes, slots: &mut Vec<(u64, RecordOffset)>) -> Result<()> {
        let Some((low_prefix, low)) = slots.first().copied() else { return Ok(()) };
        // Every fourth leaf of a level is promoted: the average tower of a random choice.
        let height = (1 + (self.written.len() + 1).trailing_zeros() as usize / 2).min(MAX_HEIGHT);
        let leaf = nodes.new_leaf(height, low_prefix, Some(low), slots)?;
        self.written.push((low_prefix, leaf.offset(), height));
        slots.clear();
        Ok(())
    }
}

/// Links leaves after the head of `list`, which has no others yet; all keys of one range are below
/// those of the next. REQUIRES: no concurrent use of the list.
fn link_all(nodes: &Nodes, list: &Leaves, ranges: impl IntoIterator<Item = Written>) {
    let mut last = [nodes.leaf(list.head); MAX_HEIGHT];
    for (prefix, offset, height) in ranges.into_iter().flat_map(|range| range.written) {
        let leaf = nodes.leaf(offset);
        for before in last.iter_mut().take(height).enumerate() {
            // SAFETY: `last` holds leaves that have the level, from the head on.
            unsafe { before.1.link(before.0) }.set(prefix, Some(offset));
            *before.1 = leaf;
        }
        list.levels.fetch_max(height as u32, Ordering::Relaxed);
    }
    // Later keys in ascending order do not halve the last leaf.
    last[0].set_ascending(true);
}
