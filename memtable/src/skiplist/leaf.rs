//! The leaf and its protocol: version word, slots, links. Shared by the arena and by the loom
//! models.
//!
//! Layout in the arena, 64-byte aligned (a tower of up to four links keeps a leaf within seven
//! cache lines):
//!
//! ```text
//!   0 u64 version (odd: locked)   8 u16 count   10 u8 height   11 u8 ascending   12 u32 low record
//!  16 u64 low prefix             24 u32 record[30]            144 u64 prefix[30]
//! 384 link[height], 16 bytes each: u64 prefix of the next leaf, u32 its offset, u32 unused
//! ```
//!
//! Slots from `count` on have the prefix `u64::MAX`, so counting smaller prefixes needs no `count`.
use crate::planted;
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering, Spin, fence, hint};
use std::num::NonZeroU32;
use std::ops::Deref;

/// Keys per leaf. Models use few, so that splits happen early.
pub const LEAF_SLOTS: usize = if cfg!(sapwood_loom) { 2 } else { 30 };
/// The highest tower. With one leaf in four promoted, 4^12 leaves are more than an arena can hold.
pub const MAX_HEIGHT: usize = if cfg!(sapwood_loom) { 2 } else { 12 };

/// Names a complete leaf. Only `node` creates offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct LeafOffset(NonZeroU32);

impl LeafOffset {
    /// REQUIRES: a leaf was completely written at `offset`.
    pub(super) fn new(offset: NonZeroU32) -> LeafOffset {
        LeafOffset(offset)
    }

    /// The offset as a number.
    #[inline]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// Names a complete record. Only `node` creates offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct RecordOffset(NonZeroU32);

impl RecordOffset {
    /// REQUIRES: a record was completely written at `offset`.
    pub(super) fn new(offset: NonZeroU32) -> RecordOffset {
        RecordOffset(offset)
    }

    /// The offset as a number.
    #[inline]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

/// A shared cell that names a record.
#[derive(Default)]
#[repr(transparent)]
pub struct RecordCell(AtomicU32);

impl RecordCell {
    /// Creates a cell with this content.
    pub(super) fn new(record: Option<RecordOffset>) -> RecordCell {
        RecordCell(AtomicU32::new(record.map_or(0, RecordOffset::get)))
    }

    /// The record, if any.
    #[inline]
    pub fn load(&self, order: Ordering) -> Option<RecordOffset> {
        NonZeroU32::new(self.0.load(order)).map(RecordOffset)
    }

    /// Stores another record.
    #[inline]
    pub fn store(&self, record: Option<RecordOffset>, order: Ordering) {
        self.0.store(record.map_or(0, RecordOffset::get), order);
    }

    /// Stores `new` if the cell names `current`, with the ordering `success`; otherwise returns the
    /// current content, loaded relaxed.
    #[inline]
    pub fn compare_exchange(
        &self,
        current: Option<RecordOffset>,
        new: Option<RecordOffset>,
        success: Ordering,
    ) -> Result<(), Option<RecordOffset>> {
        let number = |record: Option<RecordOffset>| record.map_or(0, RecordOffset::get);
        let exchanged = self.0.compare_exchange(number(current), number(new), success, Ordering::Relaxed);
        exchanged.map(drop).map_err(|actual| NonZeroU32::new(actual).map(RecordOffset))
    }
}

/// The next leaf at one level, and the prefix of its low key so that a search need not read that
/// leaf.
#[repr(C)]
pub struct Link {
    prefix: AtomicU64,
    next: AtomicU32,
}

impl Link {
    /// The link at the end of a level: no key has a larger prefix.
    pub(super) fn end() -> Link {
        Link { prefix: AtomicU64::new(u64::MAX), next: AtomicU32::new(0) }
    }

    /// The prefix of the next leaf's low key. Load it *before* [`Link::next`].
    #[inline]
    pub fn prefix(&self) -> u64 {
        // Acquire pairs with the release store of the prefix in `set`: the pointer loaded
        // afterwards is at least as new as this prefix.
        self.prefix.load(Ordering::Acquire)
    }

    /// The next leaf.
    #[inline]
    pub fn next(&self) -> Option<LeafOffset> {
        // Acquire pairs with the release store of the pointer in `set`: the leaf is complete.
        NonZeroU32::new(self.next.load(Ordering::Acquire)).map(LeafOffset)
    }

    /// Changes to a closer leaf. REQUIRES: the leaf of this link is locked, or this link is
    /// unreachable.
    #[inline]
    pub fn set(&self, prefix: u64, next: Option<LeafOffset>) {
        // Pointer first: see invariant 3 of the skiplist.
        self.next.store(next.map_or(0, LeafOffset::get), Ordering::Release);
        self.prefix.store(prefix, Ordering::Release);
    }
}

/// The fixed part of a leaf.
#[repr(C, align(64))]
pub struct LeafBody {
    version: AtomicU64,
    count: AtomicU16,
    height: u8,
    /// Whether the last insert appended at the end.
    ascending: hint::AtomicU8,
    low_record: Option<RecordOffset>,
    low_prefix: u64,
    records: [RecordCell; LEAF_SLOTS],
    prefixes: [AtomicU64; LEAF_SLOTS],
}

#[cfg(not(sapwood_loom))]
const _: () = assert!(size_of::<LeafBody>() == 384 && size_of::<Link>() == 16);

impl LeafBody {
    /// Creates a leaf with these slots, at most [`LEAF_SLOTS`] of them.
    pub(super) fn new(
        height: usize,
        low_prefix: u64,
        low_record: Option<RecordOffset>,
        slots: &[(u64, RecordOffset)],
    ) -> LeafBody {
        debug_assert!(slots.len() <= LEAF_SLOTS && (1..=MAX_HEIGHT).contains(&height));
        LeafBody {
            version: AtomicU64::new(0),
            count: AtomicU16::new(slots.len() as u16),
            height: height as u8,
            ascending: hint::AtomicU8::new(0),
            low_record,
            low_prefix,
            records: std::array::from_fn(|slot| RecordCell::new(slots.get(slot).map(|slot| slot.1))),
            prefixes: std::array::from_fn(|slot| {
                AtomicU64::new(slots.get(slot).map_or(u64::MAX, |slot| slot.0))
            }),
        }
    }

    /// The number of links. Constant.
    #[inline]
    pub fn height(&self) -> usize {
        usize::from(self.height)
    }

    /// A record with the smallest key that this leaf can hold; the head has none. Constant.
    #[inline]
    pub fn low_record(&self) -> Option<RecordOffset> {
        self.low_record
    }

    /// The prefix of the smallest key that this leaf can hold. Constant.
    #[inline]
    pub fn low_prefix(&self) -> u64 {
        self.low_prefix
    }

    /// Begins a read without the lock. `None` while a writer holds it.
    #[inline]
    pub fn begin_read(&self) -> Option<u64> {
        // Acquire pairs with the release store of the last writer's unlock: its changes are
        // visible.
        let version = self.version.load(Ordering::Acquire);
        version.is_multiple_of(2).then_some(version)
    }

    /// Whether all reads since [`LeafBody::begin_read`] are consistent.
    #[inline]
    pub fn unchanged_since(&self, version: u64) -> bool {
        // The fence pairs with the release fence in `lock`: if a read above saw a store of a later
        // writer, the load below sees that writer's odd version or a later one.
        fence(Ordering::Acquire);
        planted::is_unchanged(self.version.load(Ordering::Relaxed), version)
    }

    #[inline]
    pub fn count(&self) -> usize {
        // Relaxed, here and in the next two: under the lock, or validated by `unchanged_since`.
        usize::from(self.count.load(Ordering::Relaxed)).min(LEAF_SLOTS)
    }

    /// The prefix in a slot.
    #[inline]
    pub fn prefix(&self, slot: usize) -> u64 {
        self.prefixes[slot].load(Ordering::Relaxed)
    }

    /// The number of slots whose prefix is smaller.
    #[inline]
    pub fn slots_below(&self, prefix: u64) -> usize {
        // No early exit: independent loads overlap their cache misses, and no branch is
        // mispredicted.
        self.prefixes.iter().map(|slot| usize::from(slot.load(Ordering::Relaxed) < prefix)).sum()
    }

    /// The newest version of the key in a slot; `None` only in a torn read.
    #[inline]
    pub fn record(&self, slot: usize) -> Option<RecordOffset> {
        // Acquire pairs with the release store in `replace` and the release fence in `lock`: the
        // record is complete even if this read turns out to be torn.
        self.records[slot].load(Ordering::Acquire)
    }

    /// Whether the last insert appended at the end.
    pub fn ascending(&self) -> bool {
        // Relaxed, here and in the store: a hint about arrival order, used under the lock.
        self.ascending.load(Ordering::Relaxed) != 0
    }

    /// Records whether the last insert appended at the end.
    pub fn set_ascending(&self, ascending: bool) {
        self.ascending.store(u8::from(ascending), Ordering::Relaxed);
    }

    /// Acquires the lock and returns the version before it.
    fn lock(&self) -> u64 {
        let mut spin = Spin::default();
        loop {
            let version = self.version.load(Ordering::Relaxed);
            // Acquire pairs with the release store in `unlock`: this writer sees the last writer's
            // changes.
            if version.is_multiple_of(2)
                && self
                    .version
                    .compare_exchange_weak(version, version + 1, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                // Pairs with the fence in `unchanged_since`, and makes records that were written
                // before the lock was taken complete for every reader that reaches them through a
                // relaxed slot store.
                fence(Ordering::Release);
                return version;
            }
            spin.wait();
        }
    }

    fn unlock(&self, version: u64) {
        // Release pairs with the acquire loads in `begin_read` and `lock`.
        self.version.store(version + 2, Ordering::Release);
    }
}

/// A leaf whose lock this thread holds. Dropping it unlocks the leaf.
pub struct LockedLeaf<L: Deref<Target = LeafBody>> {
    leaf: L,
    version: u64,
}

impl<L: Deref<Target = LeafBody> + Copy> LockedLeaf<L> {
    /// Acquires the lock of `leaf`.
    #[inline]
    pub fn lock(leaf: L) -> LockedLeaf<L> {
        let version = leaf.lock();
        LockedLeaf { leaf, version }
    }

    /// The leaf.
    #[inline]
    pub fn leaf(&self) -> L {
        self.leaf
    }

    /// Inserts a key at slot `index` and shifts the later ones. REQUIRES: a slot is free.
    #[inline]
    pub fn insert_slot(&self, index: usize, prefix: u64, record: RecordOffset) {
        let leaf = &self.leaf;
        let count = leaf.count();
        assert!(index <= count && count < LEAF_SLOTS, "no room for a key in this leaf");
        for slot in (index..count).rev() {
            leaf.prefixes[slot + 1].store(leaf.prefixes[slot].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        leaf.prefixes[index].store(prefix, Ordering::Relaxed);
        for slot in (index..count).rev() {
            leaf.records[slot + 1].store(leaf.records[slot].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        leaf.records[index].store(Some(record), Ordering::Release);
        leaf.count.store(count as u16 + 1, Ordering::Relaxed);
        leaf.set_ascending(index == count);
    }

    /// Stores another record as the newest version of slot `index`.
    #[inline]
    pub fn replace(&self, index: usize, record: RecordOffset) {
        // Release pairs with the acquire load in `record`: its chain was linked after the lock was
        // taken.
        self.leaf.records[index].store(Some(record), Ordering::Release);
    }

    /// Drops the slots from `count` on. REQUIRES: their keys are in the next leaf.
    pub fn truncate(&self, count: usize) {
        for slot in count..LEAF_SLOTS {
            self.leaf.prefixes[slot].store(u64::MAX, Ordering::Relaxed);
        }
        self.leaf.count.store(count as u16, Ordering::Relaxed);
    }
}

impl<L: Deref<Target = LeafBody>> Drop for LockedLeaf<L> {
    #[inline]
    fn drop(&mut self) {
        self.leaf.unlock(self.version);
    }
}
