//! An unrolled skiplist: sorted leaves of many keys, with towers over the leaves only.
//!
//! A leaf covers the keys from its `low` (fixed for ever) up to the `low` of its successor. Eight-byte order-
//! preserving prefixes stand in the leaf's slots and, next to the pointer, in every link, so a search touches a leaf
//! only when it moves there. Every key has one slot, which names the newest version; older ones hang behind it.
//! The idea of wide nodes is from "B-skiplist" (arXiv 2507.21492), the move to the right from Lehman and Yao's
//! B-link tree, the leaf's version word is a seqlock as Boehm describes it ("Can seqlocks get along with
//! programming language memory models?", 2012).
//!
//! Searches for single keys begin where the last one nearby ended: at the thread's finger, or at the leaf that the cell of
//! the prefix names (`shortcuts`). Both are hints, checked like any step to the right.
//!
//! Any number of threads may insert, search and scan at once. Readers never wait for each other; they repeat the read
//! of a leaf that changed under them. Two writers exclude each other only in the same leaf.
//!
//! Invariants:
//! 1. Nothing is removed, and a leaf's `low` never changes. A leaf or record stays where it is as long as the arena.
//! 2. A leaf's slots, count and level-0 link change only under its lock, and its links above that too.
//! 3. A link only ever changes to a *closer* leaf. A writer stores the pointer before the prefix and a reader loads
//!    them the other way round, so the leaf that a reader reaches begins at or before the prefix that it compared.
//! 4. A leaf is linked from the bottom up: whoever reaches it at some level may use all its links up to there.
//! 5. Slots and the level-0 link of one leaf, read between two equal even version words, belong together.
//! 6. The versions behind a slot are ordered by sequence number, newest first; the chain grows under the leaf's lock.
//! 7. A key's slot may move to a new leaf on the right, never elsewhere: a search that arrives too far left goes on
//!    to the right and finds it.
use crate::sync::{Ordering, Padded, Spin, hint};
use sapwood_base::{Result, SequenceNumber, ValueKind};

mod appended;
#[cfg(not(loom))]
mod bulk;
pub mod cursor;
mod finger;
pub mod leaf;
#[cfg(not(loom))]
pub mod node;
#[cfg(loom)]
#[path = "skiplist/model.rs"]
pub mod node;
mod prefix;
mod shortcuts;

use appended::Appended;
#[cfg(not(loom))]
pub use bulk::Staged;
use leaf::{LEAF_SLOTS, LeafOffset, Link, LockedLeaf, MAX_HEIGHT, RecordOffset};
use node::{Leaf, Nodes, Record};
pub use prefix::PrefixBase;
use shortcuts::{Cell, Shortcuts};
use std::sync::OnceLock;

/// How many leaves to the right of a cell's leaf a shortcut looks.
const SHORTCUT_STEPS: usize = 3;
/// A list has shortcuts from this share of the arena's size on.
#[cfg(not(loom))]
const SHORTCUTS_FROM_SHARE: u64 = 32;
/// One cell for so many bytes of the arena: two or three for a leaf of small entries.
#[cfg(not(loom))]
const SHORTCUT_EVERY_BYTES: usize = 1024;

/// One sorted map from (key, sequence number) to (kind, value). Its memory is in the `Nodes` it was made with, and
/// every call must name the same ones.
pub struct Skiplist {
    base: PrefixBase,
    head: LeafOffset,
    /// Levels in use; searches start here. Grows only.
    levels: hint::AtomicU32,
    /// Tells the lists of one process apart, for the fingers of threads.
    identity: u64,
    /// Made once the list is large enough to profit.
    shortcuts: OnceLock<Shortcuts>,
    /// `[entries:32 | units of memory:32]`, on lines of its own because every insert writes it.
    totals: Padded<hint::AtomicU64>,
    appended: Appended,
}

/// Where a key is, or would be, in a leaf.
#[derive(Clone, Copy)]
struct Place {
    /// The first slot whose key is not smaller.
    index: usize,
    /// The newest version, when the key is there.
    newest: Option<RecordOffset>,
}

impl Skiplist {
    /// An empty list whose keys are expected to start with `base`. Any key is correct; others are slower.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full.
    pub fn new(nodes: &Nodes, base: PrefixBase) -> Result<Skiplist> {
        let head = nodes.new_leaf(MAX_HEIGHT, 0, None, &[])?;
        Ok(Skiplist {
            base,
            head: head.offset(),
            levels: hint::AtomicU32::new(1),
            identity: finger::next_identity(),
            shortcuts: OnceLock::new(),
            totals: Padded(hint::AtomicU64::new(0)),
            appended: Appended::default(),
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
        // The record is written before any lock is taken, so a critical section moves a few words only.
        let record = nodes.new_record(key, sequence, kind, value)?;
        match self.appended.is_on() {
            true => self.appended.push(record),
            false => self.link(nodes, key, record, seed)?,
        }
        // Relaxed: figures only.
        self.totals.0.fetch_add((1 << 32) | record.units(), Ordering::Relaxed);
        Ok(())
    }

    /// The newest version of `key` that a reader at `sequence` sees.
    #[inline]
    pub fn get<'a>(&self, nodes: &'a Nodes, key: &[u8], sequence: SequenceNumber) -> Option<Record<'a>> {
        match self.is_unsettled() {
            true => self.get_unsettled(nodes, key, sequence),
            false => self.get_settled(nodes, key, sequence),
        }
    }

    #[inline]
    fn get_settled<'a>(&self, nodes: &'a Nodes, key: &[u8], sequence: SequenceNumber) -> Option<Record<'a>> {
        let mut record = nodes.record(self.newest(nodes, key)?);
        while record.sequence() > sequence {
            // Acquire pairs with the release store in `chain`: the older record is complete.
            record = nodes.record(record.older().load(Ordering::Acquire)?);
        }
        Some(record)
    }

    /// Whether prefixes are the first bytes of keys.
    #[cfg(not(loom))]
    pub fn has_plain_prefixes(&self) -> bool {
        self.base.is_empty()
    }

    /// The number of entries, all versions counted.
    pub fn entries(&self) -> u64 {
        self.totals.0.load(Ordering::Relaxed) >> 32
    }

    /// Memory of the records in the arena, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.totals.0.load(Ordering::Relaxed) & u64::from(u32::MAX)) * 8
    }

    /// Asserts the order of all links and slots. REQUIRES: nobody inserts.
    #[cfg(any(test, loom))]
    pub fn verify(&self, nodes: &Nodes) {
        let low_key = |leaf: Leaf<'_>| leaf.low_record().map(|low| nodes.record(low).key().to_vec());
        for level in 0..MAX_HEIGHT {
            let mut leaf = nodes.leaf(self.head);
            loop {
                assert!(level < leaf.height(), "a leaf is linked above its height");
                // SAFETY: just asserted.
                let link = unsafe { leaf.link(level) };
                let next = link.next().map(|next| nodes.leaf(next));
                assert_eq!(link.prefix(), next.map_or(u64::MAX, |next| next.low_prefix()));
                let end = next.and_then(low_key);
                assert!(end.is_none() || low_key(leaf) < end, "links of level {level} are out of order");
                let mut last = None;
                for slot in 0..if level == 0 { leaf.count() } else { 0 } {
                    let record = nodes.record(leaf.record(slot).expect("a slot in use names a record"));
                    let key = Some(record.key().to_vec());
                    assert_eq!(leaf.prefix(slot), self.base.prefix_of(record.key()));
                    assert!(last < key && low_key(leaf) <= key && (end.is_none() || key < end));
                    last = key;
                }
                let Some(next) = next else { break };
                leaf = next;
            }
        }
    }

    fn newest(&self, nodes: &Nodes, key: &[u8]) -> Option<RecordOffset> {
        let prefix = self.base.prefix_of(key);
        let cell = self.shortcuts.get().and_then(|shortcuts| shortcuts.cell(prefix));
        let (mut leaf, _) = self.find(nodes, cell.as_ref(), prefix, key);
        let mut spin = Spin::default();
        loop {
            if let Some(version) = leaf.begin_read() {
                if let Some(next) = self.right_of::<false>(nodes, leaf.next_link(), prefix, key) {
                    leaf = next;
                    leaf.prefetch();
                    continue;
                }
                let place = self.place(nodes, leaf, prefix, key);
                if leaf.unchanged_since(version) {
                    return place.newest;
                }
            }
            spin.wait();
        }
    }

    /// A leaf that begins at or before `key`, by the shortcut of its cell or through the towers; and whether it was the
    /// shortcut.
    #[inline]
    fn find<'a>(
        &self,
        nodes: &'a Nodes,
        cell: Option<&Cell<'_>>,
        prefix: u64,
        key: &[u8],
    ) -> (Leaf<'a>, bool) {
        if let Some(leaf) = cell.and_then(|cell| self.shortcut(nodes, cell, prefix, key)) {
            return (leaf, true);
        }
        let leaf = self.descend::<false>(nodes, prefix, key, 0);
        leaf.prefetch();
        (leaf, false)
    }

    /// The leaf of `key`, if it is the cell's or a little to the right of it.
    #[inline]
    fn shortcut<'a>(&self, nodes: &'a Nodes, cell: &Cell<'_>, prefix: u64, key: &[u8]) -> Option<Leaf<'a>> {
        let offset = cell.leaf()?;
        nodes.prefetch_leaf(offset);
        let mut leaf = nodes.leaf(offset);
        if !self.begins_at_or_before(nodes, leaf, prefix, key) {
            return None;
        }
        for _ in 0..SHORTCUT_STEPS {
            match self.right_of::<false>(nodes, leaf.next_link(), prefix, key) {
                Some(next) => leaf = next,
                None => return Some(leaf),
            }
            nodes.prefetch_leaf(leaf.offset());
        }
        None
    }

    /// Makes `leaf`, in which a writer found its key, the leaf of the cell if it serves more keys than the present one.
    #[inline]
    fn note(&self, nodes: &Nodes, cell: &Cell<'_>, leaf: Leaf<'_>, was_found: bool) {
        let Some(present) = cell.leaf() else {
            if !cell.is_closed() {
                cell.set(leaf.offset());
            }
            return;
        };
        if present == leaf.offset() {
            return;
        }
        let low = leaf.low_prefix();
        // The last leaf that begins at or before the cell serves it best; while none is known, the first one.
        if low <= cell.start() || !was_found && low < nodes.leaf(present).low_prefix() {
            cell.set(leaf.offset());
        } else if !was_found {
            cell.close();
        }
    }

    /// Makes the shortcuts once a list has some share of the arena: many small lists do without. While entries that were
    /// appended are linked, in order, the last leaf says nothing about where the keys to come will be.
    #[cfg(not(loom))]
    fn make_shortcuts(&self, nodes: &Nodes) {
        let is_small = || self.bytes() < nodes.size_bytes() as u64 / SHORTCUTS_FROM_SHARE;
        if self.shortcuts.get().is_some() || is_small() || self.is_unsettled() {
            return;
        }
        let mut last = nodes.leaf(self.head);
        // Relaxed: any height that once was serves.
        for level in (0..self.levels.load(Ordering::Relaxed) as usize).rev() {
            // SAFETY: `last` is the head, which has all levels, or was reached by a link of this or a higher level.
            while let Some(next) = unsafe { last.link(level) }.next() {
                last = nodes.leaf(next);
            }
        }
        let (first, last) = (nodes.leaf(self.head).prefix(0), last.low_prefix());
        if first < last {
            let cells = (nodes.size_bytes() / SHORTCUT_EVERY_BYTES).next_power_of_two().max(2);
            self.shortcuts.get_or_init(|| Shortcuts::new(first, last, cells));
        }
    }

    /// Makes shortcuts with `cells` cells for prefixes up to `last`, whatever the size of the list.
    #[cfg(loom)]
    pub fn make_shortcuts_up_to(&self, last: u64, cells: usize) {
        self.shortcuts.get_or_init(|| Shortcuts::new(0, last, cells));
    }

    /// Whether a leaf begins at or before `key`. The caller looks at its other end.
    #[inline]
    fn begins_at_or_before(&self, nodes: &Nodes, leaf: Leaf<'_>, prefix: u64, key: &[u8]) -> bool {
        let low_prefix = leaf.low_prefix();
        if prefix != low_prefix {
            return low_prefix < prefix;
        }
        leaf.low_record().is_none_or(|low| nodes.record(low).key() <= key)
    }

    /// The last leaf that is linked at level `floor` or above and begins at or before `key` (`STRICT`: before it).
    #[inline]
    fn descend<'a, const STRICT: bool>(
        &self,
        nodes: &'a Nodes,
        prefix: u64,
        key: &[u8],
        floor: usize,
    ) -> Leaf<'a> {
        let mut leaf = nodes.leaf(self.head);
        // Relaxed: a stale height only makes the search start lower. The head has every level.
        let mut level = (self.levels.load(Ordering::Relaxed) as usize).max(floor + 1);
        while level > floor {
            level -= 1;
            // SAFETY: `leaf` is the head, which has all levels, or was reached by a link of this or a higher level.
            while let Some(next) = self.right_of::<STRICT>(nodes, unsafe { leaf.link(level) }, prefix, key) {
                leaf = next;
            }
        }
        leaf
    }

    /// The leaf behind `link`, when it begins at or before `key` (`STRICT`: before it).
    #[inline]
    fn right_of<'a, const STRICT: bool>(
        &self,
        nodes: &'a Nodes,
        link: &Link,
        prefix: u64,
        key: &[u8],
    ) -> Option<Leaf<'a>> {
        let next_prefix = link.prefix();
        if prefix < next_prefix {
            return None;
        }
        let next = nodes.leaf(link.next()?);
        if prefix == next_prefix {
            // The only leaf without a low record is the head, which no link names.
            let low = nodes.record(next.low_record()?).key();
            if if STRICT { low >= key } else { low > key } {
                return None;
            }
        }
        Some(next)
    }

    /// Finds `key` among the slots of `leaf`. Meaningful only if the leaf is locked or did not change meanwhile.
    #[inline]
    fn place(&self, nodes: &Nodes, leaf: Leaf<'_>, prefix: u64, key: &[u8]) -> Place {
        let mut index = leaf.slots_below(prefix);
        let count = leaf.count();
        if index >= count || leaf.prefix(index) != prefix {
            return Place { index, newest: None };
        }
        let mut end = index + 1;
        while end < count && leaf.prefix(end) == prefix {
            end += 1;
        }
        while index < end {
            let middle = index.midpoint(end);
            // An empty slot below the count is a torn read, which the caller is about to notice.
            let Some(newest) = leaf.record(middle) else { break };
            match nodes.record(newest).key().cmp(key) {
                std::cmp::Ordering::Less => index = middle + 1,
                std::cmp::Ordering::Equal => return Place { index: middle, newest: Some(newest) },
                std::cmp::Ordering::Greater => end = middle,
            }
        }
        Place { index, newest: None }
    }

    /// Makes `record` visible.
    fn link(&self, nodes: &Nodes, key: &[u8], record: Record<'_>, seed: u64) -> Result<()> {
        let prefix = self.base.prefix_of(key);
        let mut leaf;
        let mut cell = None;
        let mut was_found = true;
        match self.finger(nodes, prefix, key) {
            Some(found) => leaf = found,
            None => {
                cell = self.shortcuts.get().and_then(|shortcuts| shortcuts.cell(prefix));
                (leaf, was_found) = self.find(nodes, cell.as_ref(), prefix, key);
            }
        }
        let locked = loop {
            let locked = LockedLeaf::lock(leaf);
            match self.right_of::<false>(nodes, leaf.next_link(), prefix, key) {
                Some(next) => leaf = next,
                None => break locked,
            }
        };
        if let Some(cell) = &cell {
            self.note(nodes, cell, leaf, was_found);
        }
        let place = self.place(nodes, leaf, prefix, key);
        if let Some(newest) = place.newest {
            chain(nodes, &locked, place.index, nodes.record(newest), record);
            finger::set(self.identity, leaf.offset());
            return Ok(());
        }
        if leaf.count() < LEAF_SLOTS {
            locked.insert_slot(place.index, prefix, record.offset());
            finger::set(self.identity, leaf.offset());
            return Ok(());
        }
        let right = self.split(nodes, &locked, place.index, prefix, record, seed)?;
        drop(locked);
        let record_is_right = right.low_prefix() < prefix
            || right.low_record().is_some_and(|low| nodes.record(low).key() <= key);
        finger::set(self.identity, if record_is_right { right.offset() } else { leaf.offset() });
        self.link_above(nodes, right);
        #[cfg(not(loom))]
        self.make_shortcuts(nodes);
        Ok(())
    }

    /// Splits a full leaf and inserts `record`, whose slot would be `index`. Returns the new leaf, which is linked at
    /// level 0.
    fn split<'a>(
        &self,
        nodes: &'a Nodes,
        locked: &LockedLeaf<'_>,
        index: usize,
        prefix: u64,
        record: Record<'_>,
        seed: u64,
    ) -> Result<Leaf<'a>> {
        let leaf = locked.leaf();
        // When the last key came at the end and this one does too, keys arrive in order: the leaf stays full. The mark
        // is spent by this, so a later descending run before the new leaf splits in halves and not into single keys.
        let in_order = index == LEAF_SLOTS && leaf.ascending();
        let from = if in_order { LEAF_SLOTS } else { LEAF_SLOTS / 2 };
        let stays_left = index <= from && !in_order;

        let mut moved = [(0, record.offset()); LEAF_SLOTS + 1];
        let mut len = 0;
        for slot in from..=LEAF_SLOTS {
            if slot == index && !stays_left {
                moved[len] = (prefix, record.offset());
                len += 1;
            }
            if slot < LEAF_SLOTS
                && let Some(newest) = leaf.record(slot)
            {
                moved[len] = (leaf.prefix(slot), newest);
                len += 1;
            }
        }
        let height = (1 + seed.trailing_zeros() as usize / 2).min(MAX_HEIGHT);
        let (low_prefix, low) = moved[0];
        let right = nodes.new_leaf(height, low_prefix, Some(low), &moved[..len])?;
        right.set_ascending(index == LEAF_SLOTS);

        let link = leaf.next_link();
        right.next_link().set(link.prefix(), link.next());
        link.set(low_prefix, Some(right.offset()));
        leaf.set_ascending(false);
        locked.truncate(from);
        if stays_left {
            locked.insert_slot(index, prefix, record.offset());
        }
        Ok(right)
    }

    /// Links a new leaf at the levels above 0.
    fn link_above(&self, nodes: &Nodes, leaf: Leaf<'_>) {
        let height = leaf.height();
        let Some(low) = leaf.low_record() else { return };
        let (prefix, key) = (leaf.low_prefix(), nodes.record(low).key());
        for level in 1..height {
            let mut before = self.descend::<true>(nodes, prefix, key, level);
            loop {
                let _locked = LockedLeaf::lock(before);
                // SAFETY: `before` is the head or was reached by a link of this or a higher level.
                let link = unsafe { before.link(level) };
                if let Some(next) = self.right_of::<true>(nodes, link, prefix, key) {
                    before = next;
                    continue;
                }
                // SAFETY: `level` is below the leaf's height. No one else uses this link yet: the leaf is not
                // linked at this level.
                unsafe { leaf.link(level) }.set(link.prefix(), link.next());
                link.set(prefix, Some(leaf.offset()));
                break;
            }
        }
        // Relaxed: only where searches start; links order themselves.
        if height > 1 && self.levels.load(Ordering::Relaxed) < height as u32 {
            self.levels.fetch_max(height as u32, Ordering::Relaxed);
        }
    }

    /// The leaf of this thread's last insert, when `key` belongs there too. The caller checks the upper end again
    /// under the lock.
    fn finger<'a>(&self, nodes: &'a Nodes, prefix: u64, key: &[u8]) -> Option<Leaf<'a>> {
        let leaf = nodes.leaf(finger::get(self.identity)?);
        if !self.begins_at_or_before(nodes, leaf, prefix, key) {
            return None;
        }
        match self.right_of::<false>(nodes, leaf.next_link(), prefix, key) {
            Some(_) => None,
            None => Some(leaf),
        }
    }
}

/// Puts `record` into the versions behind slot `index`, whose newest is `newest`.
fn chain(nodes: &Nodes, locked: &LockedLeaf<'_>, index: usize, newest: Record<'_>, record: Record<'_>) {
    let sequence = record.sequence();
    if sequence >= newest.sequence() {
        // Relaxed: the release store of the slot publishes this link too.
        record.older().store(Some(newest.offset()), Ordering::Relaxed);
        locked.replace(index, record.offset());
        return;
    }
    let mut newer = newest;
    loop {
        // Acquire pairs with the release store below by an earlier holder of the lock.
        let older = newer.older().load(Ordering::Acquire);
        match older.map(|offset| nodes.record(offset)) {
            Some(older) if older.sequence() > sequence => newer = older,
            _ => {
                record.older().store(older, Ordering::Relaxed);
                // Release pairs with the acquire loads of readers that walk the chain without the lock.
                newer.older().store(Some(record.offset()), Ordering::Release);
                return;
            }
        }
    }
}
