//! Filling an empty list with many entries at once: records first, in any order and by many threads, then all leaves
//! from left to right.
//!
//! An insert at a random place spends most of its time on the way there. Here nobody searches: the prefixes are
//! sorted, records are looked at again only where prefixes are equal (a look in another order than that of the arena
//! is a cache miss), and every leaf is written once.
use super::leaf::{LEAF_SLOTS, LockedLeaf, MAX_HEIGHT, RecordOffset};
use super::node::{Leaf, Nodes};
use super::{PrefixBase, Skiplist};
use crate::sync::Ordering;
use sapwood_base::{Result, SequenceNumber, ValueKind};
use std::cmp::Reverse;

/// Slots that are filled: some are left for the inserts to come.
const FILLED_SLOTS: usize = LEAF_SLOTS * 4 / 5;

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
        let record = nodes.new_record(key, sequence, kind, value)?;
        Ok(Staged { prefix: base.prefix_of(key), record: record.offset(), units: record.units() as u32 })
    }

    /// What it is sorted by first.
    #[inline]
    pub fn prefix(&self) -> u64 {
        self.prefix
    }
}

impl Skiplist {
    /// Takes the prefixes anew, behind this list's base.
    pub fn rebase(&self, nodes: &Nodes, staged: &mut [Staged]) {
        for entry in staged {
            entry.prefix = self.base.prefix_of(nodes.record(entry.record).key());
        }
    }

    /// Makes records visible whose prefixes were taken behind this list's base. REQUIRES: nobody else uses the list
    /// meanwhile. On an error some of them are visible.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full.
    pub fn build(&self, nodes: &Nodes, mut staged: Vec<Staged>) -> Result<()> {
        // Stable, because that sort merges what is in order already: each thread has sorted its own.
        staged.sort_by_key(Staged::prefix);
        for ties in staged.chunk_by_mut(|a, b| a.prefix == b.prefix).filter(|ties| ties.len() > 1) {
            ties.sort_unstable_by(|a, b| {
                let (a, b) = (nodes.record(a.record), nodes.record(b.record));
                (a.key(), Reverse(a.sequence())).cmp(&(b.key(), Reverse(b.sequence())))
            });
        }
        if self.entries() > 0 {
            return self.link_sorted(nodes, &staged);
        }
        let mut builder = LeafBuilder::new(self, nodes);
        let mut units = 0;
        let mut last: Option<Staged> = None;
        for entry in &staged {
            units += u64::from(entry.units);
            match last.filter(|last| last.prefix == entry.prefix).map(|last| nodes.record(last.record)) {
                // Relaxed: nobody else uses the list yet.
                Some(newer) if newer.key() == nodes.record(entry.record).key() => {
                    newer.older().store(Some(entry.record), Ordering::Relaxed);
                }
                _ => builder.push(entry.prefix, entry.record)?,
            }
            last = Some(*entry);
        }
        builder.finish()?;
        self.totals.0.fetch_add(((staged.len() as u64) << 32) | units, Ordering::Relaxed);
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

/// Writes the leaves of an empty list from left to right.
struct LeafBuilder<'a> {
    list: &'a Skiplist,
    nodes: &'a Nodes,
    slots: Vec<(u64, RecordOffset)>,
    leaves: u64,
    /// The last leaf that is linked at each level.
    last: [Leaf<'a>; MAX_HEIGHT],
}

impl<'a> LeafBuilder<'a> {
    fn new(list: &'a Skiplist, nodes: &'a Nodes) -> LeafBuilder<'a> {
        let head = nodes.leaf(list.head);
        LeafBuilder {
            list,
            nodes,
            slots: Vec::with_capacity(FILLED_SLOTS),
            leaves: 0,
            last: [head; MAX_HEIGHT],
        }
    }

    fn push(&mut self, prefix: u64, newest: RecordOffset) -> Result<()> {
        if self.slots.len() == FILLED_SLOTS {
            self.write_leaf()?;
        }
        self.slots.push((prefix, newest));
        Ok(())
    }

    fn write_leaf(&mut self) -> Result<()> {
        let Some((low_prefix, low)) = self.slots.first().copied() else { return Ok(()) };
        if self.leaves == 0 {
            // The head is there from the beginning.
            let locked = LockedLeaf::lock(self.last[0]);
            for (index, (prefix, newest)) in self.slots.iter().enumerate() {
                locked.insert_slot(index, *prefix, *newest);
            }
        } else {
            // Every fourth leaf of a level goes up: the tower that chance would give on average.
            let height = (1 + self.leaves.trailing_zeros() as usize / 2).min(MAX_HEIGHT);
            let leaf = self.nodes.new_leaf(height, low_prefix, Some(low), &self.slots)?;
            for level in 0..height {
                // SAFETY: `last` holds leaves that have the level, from the head on.
                unsafe { self.last[level].link(level) }.set(low_prefix, Some(leaf.offset()));
                self.last[level] = leaf;
            }
            self.list.levels.fetch_max(height as u32, Ordering::Relaxed);
        }
        self.leaves += 1;
        self.slots.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.write_leaf()?;
        // Keys that go on behind the last one do not halve the last leaf.
        self.last[0].set_ascending(true);
        Ok(())
    }
}
