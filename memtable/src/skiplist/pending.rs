//! Entries that are appended first, and moved into the leaves when a reader needs them in order.
//!
//! The search for its place is most of the cost of an insert. A list that is not read before its
//! flush, as is common for secondary indexes, can skip it: records are pushed onto a stack (each
//! names its predecessor in the cell where a linked record names its older version), and the first
//! reader sorts and links all of them. From then on inserts link their records directly, so a
//! reader concurrent with writers waits only once.
//!
//! Invariants:
//! 1. A record is in the stack, among those that could not be linked, or linked; [`Pending::last`]
//!    is `None` only if all appended records are linked. So if an insert happened before a read of
//!    `None`, the reader finds the entry in the leaves.
//! 2. Only the holder of `rest` links appended records, and only it may walk the stack. Any thread
//!    may append meanwhile.
//! 3. Versions of one key are linked in append order, which is roughly the order of their sequence
//!    numbers, and exactly so for one writer.
use super::coding::PrefixCoding;
use super::leaf::{RecordCell, RecordOffset};
use super::leaves::Leaves;
use super::node::{Nodes, Record};
use crate::planted;
use crate::sync::{Mutex, MutexGuard, Ordering, Padded, hint};
use sapwood_base::key::key_prefix;
use sapwood_base::{Result, SequenceNumber};
use std::sync::PoisonError;

/// Bytes of a key that the sort of records compares. Beyond them the order only affects how far
/// apart neighbours are when they are linked.
const SORTED_BYTES: usize = 256;
/// Prefetch distance of records that are linked.
const LOOKAHEAD: usize = 8;

/// The entries of a list that are in no leaf yet.
#[derive(Default)]
pub(super) struct Pending {
    /// The last appended record. Not on a line that every insert writes, since every reader loads
    /// it.
    last: Padded<RecordCell>,
    /// Whether inserts append. A hint: readers find entries in either state.
    is_on: hint::AtomicBool,
    /// Whether a reader has needed the list in order.
    was_read: hint::AtomicBool,
    rest: Mutex<Rest>,
}

/// State of taking records from the stack.
#[derive(Default)]
struct Rest {
    /// The stack was taken from this record downwards.
    taken: Option<RecordOffset>,
    /// Records that were taken but not linked, because the arena was full; in order.
    unlinked: Vec<RecordOffset>,
}

/// A record that is about to be linked.
#[derive(Clone, Copy)]
struct Waiting {
    /// The eight bytes of the key that the current pass compares.
    word: u64,
    /// Position among the appended records.
    place: u32,
    record: RecordOffset,
}

impl Pending {
    /// Makes inserts append. REQUIRES: the list is not in use yet.
    pub(super) fn turn_on(&self) {
        // Relaxed: a hint.
        self.is_on.store(true, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Whether some entries are in no leaf.
    #[inline]
    pub(super) fn is_any(&self) -> bool {
        // Acquire pairs with the fence that the cut in `settle` relies on: a reader that
        // loads `None` finds all appended records in the leaves.
        self.last.0.load(Ordering::Acquire).is_some()
    }

    /// Records that the list was read in order.
    #[inline]
    pub(super) fn mark_read(&self) {
        // Relaxed: a hint. Stored once, so that readers do not contend for the line.
        if !self.was_read() {
            self.was_read.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the list was read in order.
    #[inline]
    pub(super) fn was_read(&self) -> bool {
        self.was_read.load(Ordering::Relaxed)
    }

    /// Pushes an unlinked record onto the stack.
    #[inline]
    pub(super) fn push(&self, record: Record<'_>) {
        let mut before = self.last.0.load(Ordering::Relaxed);
        loop {
            record.older().store(before, Ordering::Relaxed);
            // Release: publishes the record and its link; pairs with the Acquire in
            // `settle`. The records below are published too, since this compare-and-swap
            // continues their release sequence.
            match self.last.0.compare_exchange(before, Some(record.offset()), Ordering::Release) {
                Ok(()) => return,
                Err(actual) => before = actual,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rest> {
        // A panicked holder leaves no partial state that matters more than the panic.
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rest {
    /// Returns the records appended since the last call, sorted; `top` is the last of them.
    fn take(&mut self, nodes: &Nodes, coding: &PrefixCoding, top: RecordOffset) -> Vec<Waiting> {
        let mut waiting = Vec::new();
        let mut at = Some(top);
        while let Some(offset) = at.filter(|offset| Some(*offset) != self.taken) {
            let record = nodes.record(offset);
            // Relaxed: the Acquire load of `top` covers this too. From here on only the holder of
            // the lock changes it.
            at = record.older().load(Ordering::Relaxed);
            record.older().store(None, Ordering::Relaxed);
            waiting.push(Waiting { word: coding.prefix_of(record.key()), place: 0, record: offset });
        }
        self.taken = Some(top);
        let count = waiting.len() as u32;
        for (i, entry) in waiting.iter_mut().enumerate() {
            entry.place = count - i as u32;
        }
        let skipped = if coding.is_plain() { size_of::<u64>() } else { 0 };
        sort(nodes, &mut waiting, skipped);
        waiting
    }
}

/// Sorts by words, and where these are equal by the following words, from byte `at` of the keys on.
/// Comparing whole keys would be a cache miss per comparison.
fn sort(nodes: &Nodes, waiting: &mut [Waiting], at: usize) {
    waiting.sort_unstable_by_key(|entry| (entry.word, entry.place));
    if at >= SORTED_BYTES {
        return;
    }
    for ties in waiting.chunk_by_mut(|a, b| a.word == b.word).filter(|ties| ties.len() > 1) {
        let mut goes_on = false;
        for entry in &mut *ties {
            let rest = nodes.record(entry.record).key().get(at..).unwrap_or(&[]);
            entry.word = key_prefix(rest);
            goes_on |= !rest.is_empty();
        }
        if goes_on {
            sort(nodes, ties, at + size_of::<u64>());
        }
    }
}

impl Pending {
    /// Orders all entries whose inserts happened before the call.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full. No entry is lost, and the next call retries.
    #[cold]
    pub(super) fn settle(&self, nodes: &Nodes, leaves: &Leaves) -> Result<()> {
        let mut rest = self.lock();
        // Relaxed: a hint. Writers that have not observed it yet append a few more records.
        self.is_on.store(false, Ordering::Relaxed);
        // Acquire: pairs with the Release of `push`.
        while let Some(top) = self.last.0.load(Ordering::Acquire) {
            // Relaxed: the last record was linked under a leaf's lock, and the release fence of
            // `LeafBody::lock` precedes this. It pairs with the Acquire in `is_any`: a reader that
            // loads `None` there sees the order that was linked into, the result in the leaves
            // before the last one, and the last leaf's version odd or later, so it waits for the
            // rest.
            let cut = || {
                let top = planted::linked_top(top, || self.last.0.load(Ordering::Relaxed));
                self.last.0.compare_exchange(top, None, Ordering::Relaxed).is_ok()
            };
            let mut waiting: Vec<RecordOffset> = std::mem::take(&mut rest.unlinked);
            waiting.extend(rest.take(nodes, &leaves.coding, top).iter().map(|entry| entry.record));
            planted::cut_when_linked(cut);
            for (i, offset) in waiting.iter().enumerate() {
                if let Some(ahead) = waiting.get(i + LOOKAHEAD) {
                    nodes.prefetch_record(*ahead);
                }
                if let Err(error) = link(nodes, leaves, nodes.record(*offset)) {
                    rest.unlinked = waiting.split_off(i);
                    return Err(error);
                }
            }
            // On failure, more was appended.
            if cut() {
                rest.taken = None;
            }
        }
        Ok(())
    }

    /// [`Leaves::get`] while some entries are unordered: checks each of these.
    #[cold]
    pub(super) fn get<'a>(
        &self,
        nodes: &'a Nodes,
        leaves: &Leaves,
        key: &[u8],
        sequence: SequenceNumber,
    ) -> Option<Record<'a>> {
        let rest = self.lock();
        let mut best = leaves.get(nodes, key, sequence);
        let mut look_at = |record: Record<'a>| {
            let is_seen = record.sequence() <= sequence && record.key() == key;
            if is_seen && best.is_none_or(|best| best.sequence() <= record.sequence()) {
                best = Some(record);
            }
        };
        for offset in &rest.unlinked {
            look_at(nodes.record(*offset));
        }
        let mut at = self.last.0.load(Ordering::Acquire);
        while let Some(offset) = at.filter(|offset| Some(*offset) != rest.taken) {
            let record = nodes.record(offset);
            at = record.older().load(Ordering::Relaxed);
            look_at(record);
        }
        best
    }
}

fn link(nodes: &Nodes, leaves: &Leaves, record: Record<'_>) -> Result<()> {
    let seed = (u64::from(record.offset().get()) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    leaves.link(nodes, record.key(), record, seed ^ (seed >> 32)).map(drop)
}

#[cfg(all(test, not(sapwood_loom)))]
mod tests {
    use super::*;
    use crate::arena::{Arena, ArenaPool};
    use crate::options::MemtableOptions;
    use crate::skiplist::Skiplist;
    use crate::skiplist::cursor::Cursor;
    use sapwood_base::{ErrorKind, ValueKind};
    use std::cmp::Reverse;
    use std::collections::BTreeMap;

    fn arena() -> Arena {
        ArenaPool::new(MemtableOptions { size_bytes: 1 << 20 }).take().unwrap()
    }

    fn appending(arena: &Arena, base: &[u8]) -> Skiplist {
        let list = Skiplist::new(arena, PrefixCoding::new(base)).unwrap();
        list.expect_appends();
        list
    }

    fn insert(list: &Skiplist, arena: &Arena, key: &[u8], sequence: u64) {
        list.insert(arena, key, SequenceNumber(sequence), ValueKind::Put, b"v", sequence).unwrap();
    }

    fn entries(list: &Skiplist, arena: &Arena) -> Vec<(Vec<u8>, u64)> {
        let (mut cursor, mut entries) = (Cursor::default(), Vec::new());
        cursor.seek_to_first(list.leaves(), arena);
        while cursor.record().is_some() {
            let entry = cursor.entry(arena);
            entries.push((entry.key().to_vec(), entry.sequence().0));
            if !cursor.next_within_leaf(arena) {
                cursor.next_leaf(list.leaves(), arena);
            }
        }
        entries
    }

    /// Keys that differ early, late, beyond the sorted bytes, or in their length alone, and some
    /// with many versions.
    fn key(random: &mut fastrand::Rng) -> Vec<u8> {
        let number = random.u64(..300);
        match random.u32(..6) {
            0 => random.u64(..).to_be_bytes().to_vec(),
            1 => format!("common/beginning/of/many/{number:04}").into_bytes(),
            2 => [&[7; SORTED_BYTES + 20][..], &number.to_be_bytes()].concat(),
            3 => vec![0; number as usize % 40],
            4 => b"one key".to_vec(),
            _ => number.to_be_bytes().to_vec(),
        }
    }

    #[test]
    fn what_was_appended_is_found_before_and_after_it_is_in_order() {
        for seed in 0..12 {
            let mut random = fastrand::Rng::with_seed(seed);
            let arena = arena();
            let list = appending(&arena, [&b""[..], b"common/"][seed as usize % 2]);
            let mut model: BTreeMap<(Vec<u8>, Reverse<u64>), ()> = BTreeMap::new();
            for sequence in 1..1500u64 {
                if sequence == 1200 {
                    assert!(list.is_unsettled() && entries(&list, &arena).is_empty(), "seed {seed}");
                    list.settle(&arena).unwrap();
                }
                assert_eq!(list.is_unsettled(), (2..1200).contains(&sequence), "seed {seed}");
                // Occasionally out of order, as concurrent writers append.
                let sequence = if sequence % 10 < 2 { sequence ^ 1 } else { sequence };
                let key = key(&mut random);
                insert(&list, &arena, &key, sequence);
                model.insert((key.clone(), Reverse(sequence)), ());
                assert_eq!(list.entries(), model.len() as u64);
                let bound = random.u64(..=sequence);
                let found = list.get(&arena, &key, SequenceNumber(bound)).map(|record| record.sequence().0);
                let expected = model.range((key.clone(), Reverse(bound))..).next().map(|(found, ())| found);
                let expected =
                    expected.filter(|found| found.0 == key).map(|(_, Reverse(sequence))| *sequence);
                assert_eq!(found, expected, "seed {seed}: {key:?} at {bound}");
            }
            list.verify(&arena);
            let expected: Vec<_> =
                model.into_keys().map(|(key, Reverse(sequence))| (key, sequence)).collect();
            assert_eq!(entries(&list, &arena), expected, "seed {seed}");
        }
    }

    #[test]
    fn many_versions_of_one_key_are_linked_in_the_order_in_which_they_came() {
        let arena = arena();
        let list = appending(&arena, b"");
        for sequence in 1..=40_000 {
            insert(&list, &arena, b"a key of more than eight bytes", sequence);
        }
        // In another order each record would walk through the versions.
        list.settle(&arena).unwrap();
        let sequences: Vec<u64> = entries(&list, &arena).into_iter().map(|entry| entry.1).collect();
        assert_eq!(sequences, (1..=40_000).rev().collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_lost_where_the_arena_is_full() {
        let arena = arena();
        let list = appending(&arena, b"");
        let key = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        let count = 20_000;
        for i in 0..count {
            insert(&list, &arena, &key(i), i + 1);
        }
        for bytes in [64 << 20, 1 << 20, 64 << 10, 4 << 10] {
            while arena.allocate(bytes, 1).is_ok() {}
        }
        for _ in 0..2 {
            assert_eq!(list.settle(&arena).unwrap_err().kind(), ErrorKind::NoSpace);
            assert!(list.is_unsettled());
            // Some are linked, some are taken but not linked, and one is appended after them, as by
            // a writer with a stale hint.
            for i in (0..count).step_by(371) {
                let found =
                    list.get(&arena, &key(i), SequenceNumber(1 << 40)).map(|record| record.sequence().0);
                assert_eq!(found, Some(i + 1));
            }
            let late = arena.new_record(b"late", SequenceNumber(7), ValueKind::Put, b"").unwrap();
            list.pending.push(late);
            assert!(list.get(&arena, b"late", SequenceNumber(7)).is_some());
        }
        assert!(!entries(&list, &arena).is_empty());
    }
}
