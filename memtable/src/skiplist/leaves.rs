//! The leaves of a list with their links, by one choice of prefixes, and the searches among them.
use super::coding::PrefixCoding;
use super::finger;
use super::leaf::{LEAF_SLOTS, LeafOffset, Link, LockedLeaf, MAX_HEIGHT, RecordOffset};
use super::node::{Leaf, Nodes, Record};
use super::shortcuts::{Cell, Shortcuts};
#[cfg(not(sapwood_loom))]
use super::stations::Stations;
use super::versions::{Nearby, chain, nearby};
use crate::planted;
use crate::sync::{Ordering, Spin, hint};
use sapwood_base::{Result, SequenceNumber};
use std::sync::OnceLock;

/// How many leaves to the right of a cell's leaf a shortcut checks.
const SHORTCUT_STEPS: usize = 3;
/// Arena bytes per cell: two or three cells for a leaf of small entries.
#[cfg(not(sapwood_loom))]
const SHORTCUT_EVERY_BYTES: usize = 1024;

/// The leaves of one list. Every call must pass the nodes that created them.
pub struct Leaves {
    pub(super) coding: PrefixCoding,
    pub(super) head: LeafOffset,
    /// Levels in use; searches start here. Grows only.
    pub(super) levels: hint::AtomicU32,
    /// Distinguishes the lists of one process, for the fingers of threads.
    identity: u64,
    /// Created once the list is large enough to profit.
    shortcuts: OnceLock<Shortcuts>,
    #[cfg(not(sapwood_loom))]
    pub(super) stations: Stations,
}

/// Position of a key in a leaf, or its insertion point.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The first slot whose key is not smaller than it.
    pub(super) index: usize,
    /// The newest version, if the key is present.
    newest: Option<RecordOffset>,
}

impl Leaves {
    /// Creates the head leaf.
    pub(super) fn new(nodes: &Nodes, coding: PrefixCoding) -> Result<Leaves> {
        let head = nodes.new_leaf(MAX_HEIGHT, 0, None, &[])?;
        Ok(Leaves {
            coding,
            head: head.offset(),
            levels: hint::AtomicU32::new(1),
            identity: finger::next_identity(),
            shortcuts: OnceLock::new(),
            #[cfg(not(sapwood_loom))]
            stations: Stations::default(),
        })
    }

    /// Asserts the order of all links and slots. REQUIRES: no concurrent insert.
    #[cfg(any(test, sapwood_loom))]
    pub(super) fn verify(&self, nodes: &Nodes) {
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
                    assert_eq!(leaf.prefix(slot), self.coding.prefix_of(record.key()));
                    assert!(last < key && low_key(leaf) <= key && (end.is_none() || key < end));
                    last = key;
                }
                let Some(next) = next else { break };
                leaf = next;
            }
        }
    }

    /// Samples about `wanted` keys from the whole list, or a few times as many, in order.
    #[cfg(not(sapwood_loom))]
    pub(super) fn sample<'a>(&self, nodes: &'a Nodes, wanted: usize) -> Vec<&'a [u8]> {
        let mut leaves = Vec::new();
        // Relaxed: any former height suffices.
        for level in (0..self.levels.load(Ordering::Relaxed) as usize).rev() {
            leaves.clear();
            leaves.push(nodes.leaf(self.head));
            // SAFETY: the leaf is the head, which has all levels, or was reached by a link of this
            // level.
            while let Some(next) = unsafe { leaves[leaves.len() - 1].link(level) }.next() {
                leaves.push(nodes.leaf(next));
            }
            if leaves.len() > wanted {
                break;
            }
        }
        let of_leaf = wanted.div_ceil(leaves.len());
        let mut keys = Vec::with_capacity(wanted + leaves.len());
        for leaf in leaves {
            // A concurrently changing leaf may return a key twice, or another key.
            let slots = (0..leaf.count()).step_by((leaf.count() / of_leaf).max(1)).take(of_leaf);
            keys.extend(slots.filter_map(|slot| leaf.record(slot)).map(|record| nodes.record(record).key()));
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// The newest version of `key` that is visible at `sequence`.
    #[inline]
    pub(super) fn get<'a>(
        &self,
        nodes: &'a Nodes,
        key: &[u8],
        sequence: SequenceNumber,
    ) -> Option<Record<'a>> {
        let newest = self.newest(nodes, key)?;
        let record = nodes.record(newest);
        if record.sequence() <= sequence {
            return Some(record);
        }
        Some(nodes.record(self.seen(nodes, newest, sequence)?))
    }

    /// The newest version from `newest` on that is visible at `sequence`.
    pub(super) fn seen(
        &self,
        nodes: &Nodes,
        newest: RecordOffset,
        sequence: SequenceNumber,
    ) -> Option<RecordOffset> {
        match nearby(nodes, newest, sequence) {
            Nearby::Seen(offset) => Some(offset),
            Nearby::None => None,
            #[cfg(not(sapwood_loom))]
            Nearby::Far(offset) => self.stations.search(nodes, offset, sequence).0,
            #[cfg(sapwood_loom)]
            Nearby::Far(_) => unreachable!("models have few versions"),
        }
    }

    /// The newest version of `key`.
    pub(super) fn newest(&self, nodes: &Nodes, key: &[u8]) -> Option<RecordOffset> {
        let prefix = self.coding.prefix_of(key);
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

    /// Returns a leaf that begins at or before `key`, by the shortcut of its cell or through the
    /// towers; and whether it was the shortcut.
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

    /// The leaf of `key`, if it is the cell's leaf or a few to the right of it.
    #[inline]
    fn shortcut<'a>(&self, nodes: &'a Nodes, cell: &Cell<'_>, prefix: u64, key: &[u8]) -> Option<Leaf<'a>> {
        let offset = cell.leaf()?;
        nodes.prefetch_leaf(offset);
        let mut leaf = nodes.leaf(offset);
        if planted::checks_shortcuts() && !self.begins_at_or_before(nodes, leaf, prefix, key) {
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

    /// Stores `leaf`, in which a writer found its key, in the cell if it serves more keys than the
    /// present one.
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
        // The last leaf that begins at or before the cell serves it best; until one is known, the
        // first leaf in it.
        if low <= cell.start() || !was_found && low < nodes.leaf(present).low_prefix() {
            cell.set(leaf.offset());
        } else if !was_found {
            cell.close();
        }
    }

    /// Creates the shortcuts, if absent, for prefixes between the present least and greatest one.
    #[cfg(not(sapwood_loom))]
    #[cold]
    pub(super) fn make_shortcuts(&self, nodes: &Nodes) {
        let mut last = nodes.leaf(self.head);
        // Relaxed: any former height suffices.
        for level in (0..self.levels.load(Ordering::Relaxed) as usize).rev() {
            // SAFETY: `last` is the head, which has all levels, or was reached by a link of this or
            // a higher level.
            while let Some(next) = unsafe { last.link(level) }.next() {
                last = nodes.leaf(next);
            }
        }
        // After a bulk load the head is empty.
        let head = nodes.leaf(self.head);
        let first = match head.count() {
            0 => head.next_link().prefix(),
            _ => head.prefix(0),
        };
        let last = last.low_prefix();
        if first < last {
            let cells = (nodes.size_bytes() / SHORTCUT_EVERY_BYTES).next_power_of_two().max(2);
            self.shortcuts.get_or_init(|| Shortcuts::new(first, last, cells));
        }
    }

    /// Whether shortcuts exist.
    #[cfg(not(sapwood_loom))]
    #[inline]
    pub(super) fn has_shortcuts(&self) -> bool {
        self.shortcuts.get().is_some()
    }

    /// Creates shortcuts with `cells` cells for prefixes up to `last`, for a list of any size.
    #[cfg(sapwood_loom)]
    pub(super) fn make_shortcuts_up_to(&self, last: u64, cells: usize) {
        self.shortcuts.get_or_init(|| Shortcuts::new(0, last, cells));
    }

    /// Whether a leaf begins at or before `key`. The caller checks its other end.
    #[inline]
    fn begins_at_or_before(&self, nodes: &Nodes, leaf: Leaf<'_>, prefix: u64, key: &[u8]) -> bool {
        let low_prefix = leaf.low_prefix();
        if prefix != low_prefix {
            return low_prefix < prefix;
        }
        leaf.low_record().is_none_or(|low| nodes.record(low).key() <= key)
    }

    /// The last leaf that is linked at level `floor` or above and begins at or before `key`
    /// (`STRICT`: before it).
    #[inline]
    pub(super) fn descend<'a, const STRICT: bool>(
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
            // SAFETY: `leaf` is the head, which has all levels, or was reached by a link of this or
            // a higher level.
            while let Some(next) = self.right_of::<STRICT>(nodes, unsafe { leaf.link(level) }, prefix, key) {
                leaf = next;
            }
        }
        leaf
    }

    /// The target of `link`, if it begins at or before `key` (`STRICT`: before it).
    #[inline]
    pub(super) fn right_of<'a, const STRICT: bool>(
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

    /// Finds `key` among the slots of `leaf`. Meaningful only if the leaf is locked or did not
    /// change meanwhile.
    // Always: as a call it is 2 % of the instructions of a put.
    #[inline(always)]
    pub(super) fn place(&self, nodes: &Nodes, leaf: Leaf<'_>, prefix: u64, key: &[u8]) -> Place {
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
            // An empty slot below the count is a torn read, which the caller will detect.
            let Some(newest) = leaf.record(middle) else { break };
            match nodes.record(newest).key().cmp(key) {
                std::cmp::Ordering::Less => index = middle + 1,
                std::cmp::Ordering::Equal => return Place { index: middle, newest: Some(newest) },
                std::cmp::Ordering::Greater => end = middle,
            }
        }
        Place { index, newest: None }
    }

    /// Publishes `record`. Returns whether that took a new leaf.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full; nothing has changed then.
    pub(super) fn link(&self, nodes: &Nodes, key: &[u8], record: Record<'_>, seed: u64) -> Result<bool> {
        let prefix = self.coding.prefix_of(key);
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
            drop(locked);
            // Relaxed: checks only whether an older version exists, in a chain that is worth it.
            #[cfg(not(sapwood_loom))]
            if Stations::is_one(seed) && record.older().load(Ordering::Relaxed).is_some() {
                self.stations.add(nodes, record.offset());
            }
            return Ok(false);
        }
        if leaf.count() < LEAF_SLOTS {
            locked.insert_slot(place.index, prefix, record.offset());
            finger::set(self.identity, leaf.offset());
            return Ok(false);
        }
        let right = self.split(nodes, &locked, place.index, prefix, record, seed)?;
        drop(locked);
        let record_is_right = right.low_prefix() < prefix
            || right.low_record().is_some_and(|low| nodes.record(low).key() <= key);
        finger::set(self.identity, if record_is_right { right.offset() } else { leaf.offset() });
        self.link_above(nodes, right);
        Ok(true)
    }

    /// Splits a full leaf and inserts `record`, whose slot would be `index`. Returns the new leaf,
    /// which is linked at level 0.
    fn split<'a>(
        &self,
        nodes: &'a Nodes,
        locked: &LockedLeaf<Leaf<'_>>,
        index: usize,
        prefix: u64,
        record: Record<'_>,
        seed: u64,
    ) -> Result<Leaf<'a>> {
        let leaf = locked.leaf();
        // If both the previous key and this one are at the end, keys arrive in order: the leaf
        // stays full. This consumes the mark, so a later descending run before the new leaf splits
        // into halves and not into single keys.
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
                // SAFETY: `level` is below the leaf's height. No other thread uses this link yet:
                // the leaf is not linked at this level.
                unsafe { leaf.link(level) }.set(link.prefix(), link.next());
                link.set(prefix, Some(leaf.offset()));
                break;
            }
        }
        // Relaxed: affects only where searches start; links order themselves.
        if height > 1 && self.levels.load(Ordering::Relaxed) < height as u32 {
            self.levels.fetch_max(height as u32, Ordering::Relaxed);
        }
    }

    /// The leaf of this thread's last insert, if `key` belongs there too. The caller rechecks the
    /// upper end under the lock.
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
