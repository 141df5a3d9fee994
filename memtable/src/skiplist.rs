//! An unrolled skiplist: sorted leaves of many keys, with towers over the leaves only.
//!
//! A leaf covers the keys from its `low` (immutable) up to the `low` of its successor. Eight-byte
//! order-preserving prefixes are in the leaf's slots and, next to the pointer, in every link, so a
//! search touches a leaf only when it moves there. Every key has one slot, which names the newest
//! version; older ones are chained to it. The idea of wide nodes is from "B-skiplist" (arXiv
//! 2507.21492), the move to the right from Lehman and Yao's B-link tree, the leaf's version word is
//! a seqlock as Boehm describes it ("Can seqlocks get along with programming language memory
//! models?", 2012).
//!
//! A search for a single key begins where the last one nearby ended: at the thread's finger, or at
//! the leaf that the cell of the prefix names (`shortcuts`). Both are hints, checked like any step
//! to the right.
//!
//! Any number of threads may insert, search and scan at once. Readers never wait for each other;
//! they retry the read of a leaf that changed meanwhile. Two writers exclude each other only in the
//! same leaf.
//!
//! Invariants:
//! 1. Nothing is removed, and a leaf's `low` never changes. A leaf or record stays where it is as
//!    long as the arena.
//! 2. A leaf's slots, count and level-0 link change only under its lock, and its links above that
//!    too.
//! 3. A link only ever changes to a *closer* leaf. A writer stores the pointer before the prefix
//!    and a reader loads them the other way round, so the leaf that a reader reaches begins at or
//!    before the prefix that it compared.
//! 4. A leaf is linked from the bottom up: a thread that reaches it at some level may use all its
//!    links up to that level.
//! 5. Slots and the level-0 link of one leaf, read between two equal even version words, are
//!    consistent.
//! 6. The versions of a slot are ordered by sequence number, newest first; the chain grows under
//!    the leaf's lock.
//! 7. A key's slot may move to a new leaf on the right, never elsewhere: a search that arrives too
//!    far left continues to the right and finds it.
#[cfg(not(sapwood_loom))]
use crate::arena::LargeValue;
use crate::sync::{Ordering, Padded, hint};
use sapwood_base::{Result, SequenceNumber, ValueKind};

mod pending;
#[cfg(not(sapwood_loom))]
mod bulk;
pub mod cursor;
mod finger;
pub mod leaf;
pub mod leaves;
#[cfg(not(sapwood_loom))]
pub mod node;
#[cfg(sapwood_loom)]
#[path = "skiplist/model.rs"]
pub mod node;
mod coding;
mod shortcuts;
#[cfg(not(sapwood_loom))]
mod stations;
mod versions;

#[cfg(not(sapwood_loom))]
pub use bulk::BulkEntry;
pub use coding::PrefixCoding;
use leaves::Leaves;
use node::{Nodes, Record};
use pending::Pending;

/// A list has shortcuts from this fraction of the arena's size on.
#[cfg(not(sapwood_loom))]
const SHORTCUTS_FROM_SHARE: u64 = 32;
/// A sorted map from (key, sequence number) to (kind, value). Its memory is in the `Nodes` that
/// created it, and every call must pass the same ones.
pub struct Skiplist {
    leaves: Leaves,
    /// `[entries:32 | units of memory:32]`, on lines of its own because every insert writes it.
    totals: Padded<hint::AtomicU64>,
    pending: Pending,
}

impl Skiplist {
    /// Creates an empty list whose keys are expected to start with `base`. Other keys are correct,
    /// but slower.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full.
    pub fn new(nodes: &Nodes, base: PrefixCoding) -> Result<Skiplist> {
        Ok(Skiplist {
            leaves: Leaves::new(nodes, base)?,
            totals: Padded(hint::AtomicU64::new(0)),
            pending: Pending::default(),
        })
    }

    /// Inserts one entry. `seed` is a random number that decides the height of a new leaf.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full; the list is unchanged then.
    pub fn insert(
        &self,
        nodes: &Nodes,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
        seed: u64,
    ) -> Result<()> {
        // The record is written before any lock is taken, so a critical section moves a few words
        // only.
        let record = nodes.new_record(key, sequence, kind, value)?;
        self.insert_record(nodes, key, record, seed)
    }

    /// [`Skiplist::insert`] of a value with its own memory.
    ///
    /// # Errors
    /// As [`Skiplist::insert`].
    #[cfg(not(sapwood_loom))]
    pub fn insert_large(
        &self,
        nodes: &Nodes,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: LargeValue,
        seed: u64,
    ) -> Result<()> {
        let record = nodes.new_large_record(key, sequence, kind, value)?;
        self.insert_record(nodes, key, record, seed)
    }

    #[inline]
    fn insert_record(&self, nodes: &Nodes, key: &[u8], record: Record<'_>, seed: u64) -> Result<()> {
        match self.pending.is_on() {
            true => self.pending.push(record),
            false => self.link(nodes, key, record, seed)?,
        }
        // Relaxed: statistics only.
        self.totals.0.fetch_add((1 << 32) | record.units(), Ordering::Relaxed);
        Ok(())
    }

    /// The newest version of `key` that is visible at `sequence`.
    #[inline]
    pub fn get<'a>(&self, nodes: &'a Nodes, key: &[u8], sequence: SequenceNumber) -> Option<Record<'a>> {
        match self.is_unsettled() {
            true => self.pending.get(nodes, &self.leaves, key, sequence),
            false => self.leaves.get(nodes, key, sequence),
        }
    }

    /// The leaves, for cursors: they have all entries of a settled list.
    #[inline]
    pub fn leaves(&self) -> &Leaves {
        &self.leaves
    }

    /// Lets inserts skip the search until the first ordered read. REQUIRES: the list is not in use
    /// yet.
    pub fn expect_appends(&self) {
        self.pending.turn_on();
    }

    /// Whether some entries are not in order yet.
    #[inline]
    pub fn is_unsettled(&self) -> bool {
        self.pending.is_any()
    }

    /// Records that the list was read in order.
    #[inline]
    pub fn mark_read(&self) {
        self.pending.mark_read();
    }

    /// Whether the list was read in order.
    #[inline]
    pub fn was_read(&self) -> bool {
        self.pending.was_read()
    }

    /// Orders all entries whose inserts happened before the call. Cheap if they are ordered.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full. No entry is lost, and the next call retries.
    #[inline]
    pub fn settle(&self, nodes: &Nodes) -> Result<()> {
        match self.pending.is_any() {
            true => self.pending.settle(nodes, &self.leaves),
            false => Ok(()),
        }
    }

    /// The number of entries, counting all versions.
    #[inline]
    pub fn entries(&self) -> u64 {
        self.totals.0.load(Ordering::Relaxed) >> 32
    }

    /// Memory of the records in the arena, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.totals.0.load(Ordering::Relaxed) & u64::from(u32::MAX)) * 8
    }

    /// Asserts the order of all links and slots. REQUIRES: no concurrent insert.
    #[cfg(any(test, sapwood_loom))]
    pub fn verify(&self, nodes: &Nodes) {
        self.leaves.verify(nodes);
    }

    /// Creates shortcuts with `cells` cells for prefixes up to `last`, for a list of any size.
    #[cfg(sapwood_loom)]
    pub fn make_shortcuts_up_to(&self, last: u64, cells: usize) {
        self.leaves.make_shortcuts_up_to(last, cells);
    }

    /// Makes `record` visible.
    #[inline]
    fn link(&self, nodes: &Nodes, key: &[u8], record: Record<'_>, seed: u64) -> Result<()> {
        let is_one_more_leaf = self.leaves.link(nodes, key, record, seed)?;
        #[cfg(not(sapwood_loom))]
        if is_one_more_leaf {
            self.make_shortcuts(nodes);
        }
        #[cfg(sapwood_loom)]
        let _ = is_one_more_leaf;
        Ok(())
    }

    /// Creates the shortcuts once the list has some share of the arena, so that many small lists do
    /// without. While appended entries are linked, in order, the last leaf does not predict the
    /// positions of later keys.
    #[cfg(not(sapwood_loom))]
    fn make_shortcuts(&self, nodes: &Nodes) {
        let is_small = || self.bytes() < nodes.size_bytes() as u64 / SHORTCUTS_FROM_SHARE;
        if !(self.leaves.has_shortcuts() || is_small() || self.is_unsettled()) {
            self.leaves.make_shortcuts(nodes);
        }
    }

    /// The prefixes that suit the keys of another list like this one.
    #[cfg(not(sapwood_loom))]
    pub fn learned(&self, nodes: &Nodes) -> PrefixCoding {
        PrefixCoding::suiting(self.entries(), |wanted| self.leaves.sample(nodes, wanted))
    }

    /// Whether the list compares the first eight bytes of keys.
    #[cfg(all(test, not(sapwood_loom)))]
    pub fn has_plain_prefixes(&self) -> bool {
        self.leaves.coding.is_plain()
    }
}
