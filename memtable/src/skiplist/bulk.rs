//! Filling an empty list with many entries at once: records first, in any order and by many threads, then all leaves
//! from left to right, each range of keys by a thread, and the links last.
//!
//! An insert at a random place spends most of its time on the way there. Here nobody searches: the prefixes are
//! sorted, records are looked at again only where prefixes are equal (a look in another order than that of the arena
//! is a cache miss), and every leaf is written once.
use super::leaf::RecordOffset;
use super::leaves::{FILLED_SLOTS, Leaves, link_all};
use super::node::{KeyValue, Nodes, Record, Space};
use super::reorder::{FEW_KEYS, LEARNS_FROM, many_keys};
use super::{PrefixBase, Skiplist};
use crate::sync::Ordering;
use rayon::prelude::*;
use sapwood_base::{Result, SequenceNumber, ValueKind};
use std::cmp::Reverse;

/// Fewer entries are not worth several threads.
const PARALLEL_ENTRIES: usize = if cfg!(test) { 256 } else { 16 << 10 };
/// Prefixes of each run that are looked at to find ranges of the same size.
const SAMPLES_PER_RUN: usize = 32;

/// A record that is in the arena and in no list yet.
#[derive(Clone, Copy)]
pub struct Staged {
    prefix: u64,
    record: RecordOffset,
    /// Its memory, in units of eight bytes.
    units: u32,
}

const _: () = assert!(size_of::<Staged>() == 16);

impl Staged {
    /// Writes a record. `base` is what prefixes are taken behind.
    #[inline]
    pub fn write(
        nodes: &Nodes,
        base: &PrefixBase,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<Staged> {
        Ok(Staged::of(base, nodes.new_record(key, sequence, kind, value)?))
    }

    /// Makes a record of a key and a value that stand in the arena already: see [`Nodes::adopt_record`].
    #[inline]
    pub fn adopt(
        nodes: &Nodes,
        base: &PrefixBase,
        space: Space,
        at: KeyValue,
        sequence: SequenceNumber,
        kind: ValueKind,
    ) -> Staged {
        Staged::of(base, nodes.adopt_record(space, at, sequence, kind))
    }

    #[inline]
    fn of(base: &PrefixBase, record: Record<'_>) -> Staged {
        Staged { prefix: base.prefix_of(record.key()), record: record.offset(), units: record.units() as u32 }
    }

    /// What it is sorted by first.
    #[inline]
    pub fn prefix(&self) -> u64 {
        self.prefix
    }
}

impl Skiplist {
    /// Makes records visible; each of `runs` holds any number of them in any order. REQUIRES: nobody else uses the list
    /// meanwhile. On an error some are visible.
    ///
    /// With `threads` above one, several of them from the present thread pool work on it.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full.
    pub fn build(&self, nodes: &Nodes, mut runs: Vec<Vec<Staged>>, threads: usize) -> Result<()> {
        let entries: usize = runs.iter().map(Vec::len).sum();
        let parallel = threads > 1 && entries >= PARALLEL_ENTRIES;
        if self.entries() == 0 && entries as u64 >= LEARNS_FROM {
            self.learn_from(nodes, &runs)?;
        }
        let order = self.order();
        if !order.base.is_plain() {
            let take_prefixes = |run: &mut Vec<Staged>| {
                for entry in run {
                    entry.prefix = order.base.prefix_of(nodes.record(entry.record).key());
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
        let ranges: Vec<(Leaves, u64)> = match parallel {
            // A few more ranges than threads, because one thread may come late.
            true => {
                let bounds = split(&runs, threads * 4);
                let parts: Vec<Vec<Vec<Staged>>> =
                    runs.into_par_iter().map(|run| distribute(&run, &bounds)).collect();
                let write = |range: usize| {
                    let parts: Vec<&[Staged]> = parts.iter().map(|parts| parts[range].as_slice()).collect();
                    write_leaves(nodes, &sorted(nodes, parts.concat()))
                };
                (0..bounds.len() + 1).into_par_iter().map(write).collect::<Result<_>>()?
            }
            false => vec![write_leaves(nodes, &sorted(nodes, runs.concat()))?],
        };

        let totals: u64 = ranges.iter().map(|range| range.1).sum();
        link_all(nodes, order, ranges.into_iter().map(|range| range.0));
        self.totals.0.fetch_add(totals, Ordering::Relaxed);
        Ok(())
    }

    /// Chooses prefixes that suit the keys of `runs`. REQUIRES: the list is empty.
    fn learn_from(&self, nodes: &Nodes, runs: &[Vec<Staged>]) -> Result<()> {
        let entries: usize = runs.iter().map(Vec::len).sum();
        let sample = |wanted: usize| {
            let entries = runs.iter().flatten().step_by((entries / wanted).max(1));
            let mut keys: Vec<&[u8]> = entries.map(|entry| nodes.record(entry.record).key()).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        let base = &self.order().base;
        if !base.suits(&sample(FEW_KEYS))
            && let Some(better) = base.better_for(&sample(many_keys(entries as u64)))
        {
            self.reorder(nodes, better)?;
        }
        Ok(())
    }

    /// Links records one by one; neighbours share the way through the list.
    fn link_sorted(&self, nodes: &Nodes, staged: &[Staged]) -> Result<()> {
        for entry in staged {
            let record = nodes.record(entry.record);
            let seed = (u64::from(entry.record.get()) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            self.link(nodes, record.key(), record, seed ^ (seed >> 32))?;
            self.totals.0.fetch_add((1 << 32) | record.units(), Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Prefixes, ascending, that part `runs` into at most `ranges` ranges of about the same size.
fn split(runs: &[Vec<Staged>], ranges: usize) -> Vec<u64> {
    let mut samples: Vec<u64> = runs
        .iter()
        .flat_map(|run| run.iter().step_by((run.len() / SAMPLES_PER_RUN).max(1)).map(Staged::prefix))
        .collect();
    samples.sort_unstable();
    let mut bounds: Vec<u64> = (1..ranges).map(|range| samples[samples.len() * range / ranges]).collect();
    bounds.dedup();
    bounds
}

/// The records of `run` by range: those below the first of `bounds`, from each bound on, and from the last one on.
fn distribute(run: &[Staged], bounds: &[u64]) -> Vec<Vec<Staged>> {
    let even = run.len() / (bounds.len() + 1);
    let mut parts: Vec<_> = (0..=bounds.len()).map(|_| Vec::with_capacity(even + even / 2 + 1)).collect();
    for entry in run {
        // Without branches that depend on the key: which range it is cannot be foreseen.
        let range = bounds.iter().map(|bound| usize::from(*bound <= entry.prefix)).sum::<usize>();
        parts[range].push(*entry);
    }
    parts
}

/// Records in order: keys ascending, newest version first.
fn sorted(nodes: &Nodes, mut staged: Vec<Staged>) -> Vec<Staged> {
    staged.sort_unstable_by_key(Staged::prefix);
    for ties in staged.chunk_by_mut(|a, b| a.prefix == b.prefix).filter(|ties| ties.len() > 1) {
        ties.sort_unstable_by(|a, b| {
            let (a, b) = (nodes.record(a.record), nodes.record(b.record));
            (a.key(), Reverse(a.sequence())).cmp(&(b.key(), Reverse(b.sequence())))
        });
    }
    staged
}

/// Writes leaves of sorted records from left to right. Returns what is to be added to the list's totals, too.
fn write_leaves(nodes: &Nodes, staged: &[Staged]) -> Result<(Leaves, u64)> {
    let mut leaves = Leaves::default();
    let mut totals = 0;
    let mut slots = Vec::with_capacity(FILLED_SLOTS);
    let mut last: Option<Staged> = None;
    for entry in staged {
        totals += (1 << 32) | u64::from(entry.units);
        match last.filter(|last| last.prefix == entry.prefix).map(|last| nodes.record(last.record)) {
            // Relaxed: nobody else uses the list yet.
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
