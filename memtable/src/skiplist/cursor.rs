//! A position in a skiplist: scans in both directions over all versions.
//!
//! The cursor copies the slots of one leaf at a time, consistent between two equal version words,
//! and then walks its own copy. It returns the entries that were in the list when it was positioned
//! exactly once and in order; it may return later ones. A move to the right takes the successor
//! from the same copy, so keys that a split moved meanwhile are not returned twice. A move to the
//! left searches the leaf before the low key of the current one.
use crate::skiplist::leaf::{LEAF_SLOTS, LeafBody, LeafOffset, RecordOffset};
use crate::skiplist::leaves::Leaves;
use crate::skiplist::node::{Leaf, Nodes, Record};
use crate::skiplist::versions::{Nearby, nearby};
use crate::sync::{Ordering, Spin};
use sapwood_base::SequenceNumber;

/// Prefetch distance in slots: about as many misses as a core keeps in flight.
const LOOKAHEAD: usize = 8;

/// A position. Every call passes the leaves of its list, and its nodes.
pub struct Cursor {
    slots: [Option<RecordOffset>; LEAF_SLOTS],
    len: usize,
    index: usize,
    leaf: Option<LeafOffset>,
    next: Option<LeafOffset>,
    current: Option<RecordOffset>,
    /// Versions newer than `current`, newest first, collected from the chain to move backwards.
    /// Empty: not known.
    newer: Vec<RecordOffset>,
    /// If set, each key is returned only in the newest version that is visible at this number.
    seen_at: Option<SequenceNumber>,
}

/// The target of a leaf copy.
#[derive(Clone, Copy)]
enum Target<'k> {
    /// This leaf, from its first slot.
    Leaf,
    /// The leaf with the last key; past its last slot.
    Last,
    /// The first key not smaller than this, with its prefix.
    AtLeast(u64, &'k [u8]),
    /// As `AtLeast`, but in a leaf that begins before the key.
    Before(u64, &'k [u8]),
}

impl Default for Cursor {
    fn default() -> Cursor {
        Cursor {
            slots: [None; LEAF_SLOTS],
            len: 0,
            index: 0,
            leaf: None,
            next: None,
            current: None,
            newer: Vec::new(),
            seen_at: None,
        }
    }
}

impl Cursor {
    /// Creates a cursor that returns the newest version of each key that is visible at `sequence`,
    /// and skips keys without one. A key is one step, however many versions it has.
    pub fn seen_at(sequence: SequenceNumber) -> Cursor {
        Cursor { seen_at: Some(sequence), ..Cursor::default() }
    }

    /// The record under the cursor.
    #[inline]
    pub fn record(&self) -> Option<RecordOffset> {
        self.current
    }

    /// The entry under the cursor. REQUIRES: there is one.
    #[inline]
    pub fn entry<'a>(&self, nodes: &'a Nodes) -> Record<'a> {
        nodes.record(self.current.expect("the iterator is valid"))
    }

    /// Whether an older version of the key follows. REQUIRES: there is an entry.
    #[inline]
    pub fn has_older(&self, nodes: &Nodes) -> bool {
        // Acquire, as in `next_within_leaf`.
        self.seen_at.is_none() && self.entry(nodes).older().load(Ordering::Acquire).is_some()
    }

    /// Whether a newer version of the key comes before. REQUIRES: there is an entry.
    #[inline]
    pub fn has_newer(&self) -> bool {
        self.seen_at.is_none() && self.slots[self.index] != self.current
    }

    /// Unpositions the cursor.
    pub fn clear(&mut self) {
        self.current = None;
        self.leaf = None;
    }

    /// Moves to the first entry.
    pub fn seek_to_first(&mut self, leaves: &Leaves, nodes: &Nodes) {
        self.copy(leaves, nodes, nodes.leaf(leaves.head), Target::Leaf);
        self.settle_forward(leaves, nodes);
    }

    /// Moves to the last entry.
    pub fn seek_to_last(&mut self, leaves: &Leaves, nodes: &Nodes) {
        let mut leaf = nodes.leaf(leaves.head);
        // Relaxed: see `Leaves::descend`.
        let mut level = (leaves.levels.load(Ordering::Relaxed) as usize).max(1);
        while level > 0 {
            level -= 1;
            // SAFETY: the leaf is the head or was reached by a link of this or a higher level.
            while let Some(next) = unsafe { leaf.link(level) }.next() {
                leaf = nodes.leaf(next);
            }
        }
        self.copy(leaves, nodes, leaf, Target::Last);
        self.settle_backward(leaves, nodes);
    }

    /// Moves to the first entry whose key is `>= key`.
    pub fn seek(&mut self, leaves: &Leaves, nodes: &Nodes, key: &[u8]) {
        let prefix = leaves.coding.prefix_of(key);
        let leaf = leaves.descend::<false>(nodes, prefix, key, 0);
        self.copy(leaves, nodes, leaf, Target::AtLeast(prefix, key));
        self.settle_forward(leaves, nodes);
    }

    /// Moves to the last entry whose key is `< key`.
    pub fn seek_before(&mut self, leaves: &Leaves, nodes: &Nodes, key: &[u8]) {
        self.copy_before(leaves, nodes, key);
        self.settle_backward(leaves, nodes);
    }

    /// Moves forward if that is possible without another leaf. Otherwise the cursor is past the
    /// last slot.
    #[inline]
    pub fn next_within_leaf(&mut self, nodes: &Nodes) -> bool {
        let Some(current) = self.current else { return false };
        if let Some(sequence) = self.seen_at {
            return self.next_seen_within_leaf(nodes, sequence);
        }
        // Acquire pairs with the release store that chained the older version.
        if let Some(older) = nodes.record(current).older().load(Ordering::Acquire) {
            self.newer.clear();
            self.current = Some(older);
            return true;
        }
        self.newer.clear();
        self.index += 1;
        self.prefetch_ahead(nodes);
        if self.index < self.len {
            self.current = self.slots[self.index];
            return true;
        }
        false
    }

    #[inline]
    fn next_seen_within_leaf(&mut self, nodes: &Nodes, sequence: SequenceNumber) -> bool {
        loop {
            self.index += 1;
            self.prefetch_ahead(nodes);
            if self.index >= self.len {
                return false;
            }
            match self.slots[self.index].map_or(Nearby::None, |newest| nearby(nodes, newest, sequence)) {
                Nearby::Seen(record) => {
                    self.current = Some(record);
                    return true;
                }
                Nearby::None => {}
                // Left to `settle_forward`, which has access to the leaves.
                Nearby::Far(_) => return false,
            }
        }
    }

    /// Moves to the first entry of the next leaf. REQUIRES: `next_within_leaf` returned `false`.
    pub fn next_leaf(&mut self, leaves: &Leaves, nodes: &Nodes) {
        self.settle_forward(leaves, nodes);
    }

    /// Moves backward if that is possible without another leaf. Otherwise the cursor has not moved.
    #[inline]
    pub fn prev_within_leaf(&mut self, nodes: &Nodes) -> bool {
        let Some(current) = self.current else { return false };
        if let Some(sequence) = self.seen_at {
            return self.prev_seen_within_leaf(nodes, sequence);
        }
        let newest = self.slots[self.index];
        if newest == Some(current) {
            if self.index == 0 {
                return false;
            }
            self.enter_previous_slot(nodes);
            return true;
        }
        if self.newer.is_empty() {
            self.walk_chain(nodes, newest, Some(current));
        }
        self.current = self.newer.pop();
        true
    }

    #[inline]
    fn prev_seen_within_leaf(&mut self, nodes: &Nodes, sequence: SequenceNumber) -> bool {
        while self.index > 0 {
            let slot = self.index - 1;
            match self.slots[slot].map_or(Nearby::None, |newest| nearby(nodes, newest, sequence)) {
                Nearby::Seen(record) => {
                    (self.index, self.current) = (slot, Some(record));
                    if let Some(ahead) = slot.checked_sub(LOOKAHEAD)
                        && let Some(record) = self.slots[ahead]
                    {
                        nodes.prefetch_record(record);
                    }
                    return true;
                }
                Nearby::None => self.index = slot,
                // Left to `settle_backward`, which has access to the leaves.
                Nearby::Far(_) => return false,
            }
        }
        false
    }

    /// Moves to the last entry of the previous leaf. REQUIRES: `prev_within_leaf` returned `false`.
    pub fn prev_leaf(&mut self, leaves: &Leaves, nodes: &Nodes) {
        self.settle_backward(leaves, nodes);
    }

    /// Prefetches the record `LOOKAHEAD` slots ahead, in the next leaf if necessary.
    #[inline]
    fn prefetch_ahead(&self, nodes: &Nodes) {
        let ahead = self.index + LOOKAHEAD;
        if ahead < self.len {
            if let Some(record) = self.slots[ahead] {
                nodes.prefetch_record(record);
            }
        } else if let Some(next) = self.next
            // The next leaf may change before it is copied; any record that it names suffices for a
            // guess.
            && let Some(record) = nodes.leaf(next).record((ahead - self.len) % LEAF_SLOTS)
        {
            nodes.prefetch_record(record);
        }
    }

    /// Moves to the newest version in slot `index`, in the next leaf if necessary.
    fn settle_forward(&mut self, leaves: &Leaves, nodes: &Nodes) {
        self.newer.clear();
        loop {
            while self.index >= self.len {
                let Some(next) = self.next else { return self.clear() };
                self.copy(leaves, nodes, nodes.leaf(next), Target::Leaf);
            }
            let newest = self.slots[self.index];
            self.current = match self.seen_at {
                None => newest,
                Some(sequence) => newest.and_then(|newest| leaves.seen(nodes, newest, sequence)),
            };
            if self.current.is_some() || self.seen_at.is_none() {
                break;
            }
            self.index += 1;
        }
        for record in self.slots[self.index..self.len.min(self.index + LOOKAHEAD)].iter().flatten() {
            nodes.prefetch_record(*record);
        }
        if let Some(next) = self.next {
            nodes.prefetch_leaf(next);
        }
    }

    /// Moves to the oldest version in the slot before `index`, in the previous leaf if necessary.
    fn settle_backward(&mut self, leaves: &Leaves, nodes: &Nodes) {
        loop {
            while self.index == 0 {
                let low = self.leaf.and_then(|leaf| nodes.leaf(leaf).low_record());
                let Some(low) = low else { return self.clear() };
                self.copy_before(leaves, nodes, nodes.record(low).key());
            }
            let Some(sequence) = self.seen_at else { break };
            self.index -= 1;
            self.current = self.slots[self.index].and_then(|newest| leaves.seen(nodes, newest, sequence));
            if self.current.is_some() {
                return;
            }
        }
        for record in self.slots[self.index.saturating_sub(LOOKAHEAD)..self.index].iter().flatten() {
            nodes.prefetch_record(*record);
        }
        self.enter_previous_slot(nodes);
    }

    /// Moves to the oldest version in the slot before `index`. REQUIRES: such a slot exists.
    #[inline]
    fn enter_previous_slot(&mut self, nodes: &Nodes) {
        self.index -= 1;
        if let Some(ahead) = self.index.checked_sub(LOOKAHEAD)
            && let Some(record) = self.slots[ahead]
        {
            nodes.prefetch_record(record);
        }
        self.newer.clear();
        self.current = self.slots[self.index];
        // Most keys have one version, and thus no chain to collect.
        if let Some(newest) = self.current
            && nodes.record(newest).older().load(Ordering::Acquire).is_some()
        {
            self.walk_chain(nodes, Some(newest), None);
            self.current = self.newer.pop();
        }
    }

    /// Collects the versions from `from` up to, but excluding, `until`.
    fn walk_chain(&mut self, nodes: &Nodes, from: Option<RecordOffset>, until: Option<RecordOffset>) {
        let mut version = from;
        while version != until
            && let Some(offset) = version
        {
            self.newer.push(offset);
            version = nodes.record(offset).older().load(Ordering::Acquire);
        }
    }

    fn copy_before(&mut self, leaves: &Leaves, nodes: &Nodes, key: &[u8]) {
        let prefix = leaves.coding.prefix_of(key);
        let leaf = leaves.descend::<true>(nodes, prefix, key, 0);
        self.copy(leaves, nodes, leaf, Target::Before(prefix, key));
    }

    /// Copies the leaf that contains `target`: `leaf` or one to its right. REQUIRES: a target with
    /// a key is searched in the order that owns the leaf.
    fn copy<'a>(&mut self, leaves: &Leaves, nodes: &'a Nodes, mut leaf: Leaf<'a>, target: Target<'_>) {
        let mut spin = Spin::default();
        loop {
            if let Some(version) = leaf.begin_read() {
                let link = leaf.next_link();
                let right = match target {
                    Target::Leaf => None,
                    Target::Last => link.next().map(|next| nodes.leaf(next)),
                    Target::AtLeast(prefix, key) => leaves.right_of::<false>(nodes, link, prefix, key),
                    Target::Before(prefix, key) => leaves.right_of::<true>(nodes, link, prefix, key),
                };
                if let Some(right) = right {
                    leaf = right;
                    continue;
                }
                self.index = match target {
                    Target::Leaf => 0,
                    Target::Last => leaf.count(),
                    Target::AtLeast(prefix, key) | Target::Before(prefix, key) => {
                        leaves.place(nodes, leaf, prefix, key).index
                    }
                };
                self.copy_slots(&leaf);
                self.next = link.next();
                if leaf.unchanged_since(version) {
                    self.leaf = Some(leaf.offset());
                    return;
                }
            }
            spin.wait();
        }
    }

    fn copy_slots(&mut self, leaf: &LeafBody) {
        self.len = leaf.count();
        for (slot, copy) in self.slots[..self.len].iter_mut().enumerate() {
            *copy = leaf.record(slot);
        }
    }
}
