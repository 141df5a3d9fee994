//! Entries that are put behind each other first, and into the leaves when somebody wants to see them in order.
//!
//! Finding its place is most of what an insert costs. A list that nobody reads before it is flushed, as those of secondary
//! indexes often are, need not pay that at every insert: the records wait in a stack (each names the one before it in the
//! cell where a linked record names its older version), and the first reader sorts and links all of them. From then on
//! inserts find their place themselves, so that readers beside writers wait once and not again.
//!
//! Invariants:
//! 1. A record is in the stack, among those that could not be linked, or linked; [`Appended::last`] is `None` only if
//!    all that were appended are linked. So who was told of an insert and finds `None` finds the entry in the leaves.
//! 2. Only the holder of `rest` links what was appended, and only it may walk the stack. Anybody may append meanwhile.
//! 3. Versions of one key are linked in the order in which they were appended, which is roughly that of their sequence
//!    numbers, and exactly so for one writer.
use super::leaf::{RecordCell, RecordOffset};
use super::node::{Nodes, Record};
use super::{PrefixBase, Skiplist};
use crate::sync::{Mutex, MutexGuard, Ordering, Padded, hint};
use sapwood_base::key::key_prefix;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Result, SequenceNumber};
use std::sync::PoisonError;

/// Bytes of a key that are compared when records are sorted. Behind them the order only decides how far neighbours lie
/// apart when they are linked.
const SORTED_BYTES: usize = 256;
/// Records are asked for this many before they are linked.
const LOOKAHEAD: usize = 8;

/// What a list has that is in no leaf yet.
#[derive(Default)]
pub(super) struct Appended {
    /// The last record that was appended. Not on a line that every insert writes, since every reader looks at it.
    last: Padded<RecordCell>,
    /// Whether inserts append. A hint: entries are found whatever the writers did.
    is_on: hint::AtomicBool,
    /// Whether somebody has looked at the list in order.
    was_read: hint::AtomicBool,
    rest: Mutex<Rest>,
}

/// What is known while records are taken from the stack.
#[derive(Default)]
struct Rest {
    /// The stack from here on downwards was taken.
    taken: Option<RecordOffset>,
    /// Records that were taken and, because the arena was full, not linked; in order.
    unlinked: Vec<RecordOffset>,
}

/// A record on its way into the leaves.
#[derive(Clone, Copy)]
struct Waiting {
    /// The eight bytes of the key that are compared now.
    word: u64,
    /// The place among those that were appended.
    place: u32,
    record: RecordOffset,
}

impl Appended {
    /// Asks inserts to append. REQUIRES: nobody uses the list yet.
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
        // Acquire pairs with the fence that the cut in `settle_appended` relies on: who finds nothing here finds all that
        // was appended in the leaves.
        self.last.0.load(Ordering::Acquire).is_some()
    }

    /// Puts a record that is linked nowhere on top of the stack.
    #[inline]
    pub(super) fn push(&self, record: Record<'_>) {
        let mut before = self.last.0.load(Ordering::Relaxed);
        loop {
            record.older().store(before, Ordering::Relaxed);
            // Release: publishes the record and its link; pairs with the Acquire in `take`. Those below are published
            // too, since what replaces a Release store of theirs continues it.
            match self.last.0.compare_exchange(before, Some(record.offset()), Ordering::Release) {
                Ok(()) => return,
                Err(actual) => before = actual,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Rest> {
        // A panic elsewhere leaves nothing half done that matters more than the panic.
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rest {
    /// The records that were appended since the last time, sorted; `top` is the last of them.
    fn take(&mut self, nodes: &Nodes, base: &PrefixBase, top: RecordOffset) -> Vec<Waiting> {
        let mut waiting = Vec::new();
        let mut at = Some(top);
        while let Some(offset) = at.filter(|offset| Some(*offset) != self.taken) {
            let record = nodes.record(offset);
            // Relaxed: the Acquire load of `top` has this too. Only the holder of the lock changes it from here on.
            at = record.older().load(Ordering::Relaxed);
            record.older().store(None, Ordering::Relaxed);
            waiting.push(Waiting { word: base.prefix_of(record.key()), place: 0, record: offset });
        }
        self.taken = Some(top);
        let count = waiting.len() as u32;
        for (i, entry) in waiting.iter_mut().enumerate() {
            entry.place = count - i as u32;
        }
        let skipped = if base.is_plain() { size_of::<u64>() } else { 0 };
        sort(nodes, &mut waiting, skipped);
        waiting
    }
}

/// Sorts by words, and where these are equal by those that follow, from byte `at` of the keys on. Comparing whole keys
/// would be a cache miss for each comparison.
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

impl Skiplist {
    /// Asks inserts not to look for their place until somebody reads the list. REQUIRES: nobody uses the list yet.
    pub fn expect_appends(&self) {
        self.appended.turn_on();
    }

    /// Whether some entries are not in order yet.
    #[inline]
    pub fn is_unsettled(&self) -> bool {
        self.appended.is_any()
    }

    /// Notes that somebody looks at the list in order.
    #[inline]
    pub fn mark_read(&self) {
        // Relaxed: a hint. Stored once, so that readers do not take the line from each other.
        if !self.was_read() {
            self.appended.was_read.store(true, Ordering::Relaxed);
        }
    }

    /// Whether anybody has.
    #[inline]
    pub fn was_read(&self) -> bool {
        self.appended.was_read.load(Ordering::Relaxed)
    }

    /// Sees to it that all entries whose inserts the caller was told of are in order. Cheap if they are.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full. Nothing is lost, and the next call tries again.
    #[inline]
    pub fn settle(&self, nodes: &Nodes) -> Result<()> {
        match self.appended.is_any() {
            true => self.settle_appended(nodes),
            false => Ok(()),
        }
    }

    #[cold]
    fn settle_appended(&self, nodes: &Nodes) -> Result<()> {
        let appended = &self.appended;
        let mut rest = appended.lock();
        // Relaxed: a hint. Writers that have not seen it yet append a little more.
        appended.is_on.store(false, Ordering::Relaxed);
        // Acquire: pairs with the Release of `push`.
        while let Some(top) = appended.last.0.load(Ordering::Acquire) {
            // Relaxed: the last record was linked under a leaf's lock, and the release fence of `LeafBody::lock` stands
            // before this. It pairs with the Acquire in `is_any`: who finds nothing there sees the order that was linked
            // into, the leaves before the last one as they became, and that one's version odd or later, so it waits for
            // the rest.
            let cut = || appended.last.0.compare_exchange(Some(top), None, Ordering::Relaxed).is_ok();
            let mut waiting: Vec<RecordOffset> = std::mem::take(&mut rest.unlinked);
            waiting.extend(rest.take(nodes, &self.order().base, top).iter().map(|entry| entry.record));
            if planted::is(Bug::CutTooEarly) {
                cut();
            }
            for (i, offset) in waiting.iter().enumerate() {
                if let Some(ahead) = waiting.get(i + LOOKAHEAD) {
                    nodes.prefetch_record(*ahead);
                }
                if let Err(error) = self.link_appended(nodes, nodes.record(*offset)) {
                    rest.unlinked = waiting.split_off(i);
                    return Err(error);
                }
            }
            // If it fails, more was appended.
            if cut() {
                rest.taken = None;
            } else if planted::is(Bug::AppendLeftOut) {
                appended.last.0.store(None, Ordering::Release);
            }
        }
        Ok(())
    }

    fn link_appended(&self, nodes: &Nodes, record: Record<'_>) -> Result<()> {
        let seed = (u64::from(record.offset().get()) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.link(nodes, record.key(), record, seed ^ (seed >> 32))
    }

    /// [`Skiplist::get`] while some entries are not in order: looks at each of these.
    #[cold]
    pub(super) fn get_unsettled<'a>(
        &self,
        nodes: &'a Nodes,
        key: &[u8],
        sequence: SequenceNumber,
    ) -> Option<Record<'a>> {
        let rest = self.appended.lock();
        let mut best = self.get_settled(nodes, key, sequence);
        let mut look_at = |record: Record<'a>| {
            let is_seen = record.sequence() <= sequence && record.key() == key;
            if is_seen && best.is_none_or(|best| best.sequence() <= record.sequence()) {
                best = Some(record);
            }
        };
        for offset in &rest.unlinked {
            look_at(nodes.record(*offset));
        }
        let mut at = self.appended.last.0.load(Ordering::Acquire);
        while let Some(offset) = at.filter(|offset| Some(*offset) != rest.taken) {
            let record = nodes.record(offset);
            at = record.older().load(Ordering::Relaxed);
            look_at(record);
        }
        best
    }
}

#[cfg(all(test, not(sapwood_loom)))]
mod tests {
    use super::*;
    use crate::arena::{Arena, ArenaPool};
    use crate::memtable::MemtableOptions;
    use crate::skiplist::cursor::Cursor;
    use sapwood_base::{ErrorKind, ValueKind};
    use std::cmp::Reverse;
    use std::collections::BTreeMap;

    fn arena() -> Arena {
        ArenaPool::new(MemtableOptions { size_bytes: 1 << 20 }).take().unwrap()
    }

    fn appending(arena: &Arena, base: &[u8]) -> Skiplist {
        let list = Skiplist::new(arena, PrefixBase::new(base)).unwrap();
        list.expect_appends();
        list
    }

    fn insert(list: &Skiplist, arena: &Arena, key: &[u8], sequence: u64) {
        list.insert(arena, key, SequenceNumber(sequence), ValueKind::Put, b"v", sequence).unwrap();
    }

    fn entries(list: &Skiplist, arena: &Arena) -> Vec<(Vec<u8>, u64)> {
        let (mut cursor, mut entries) = (Cursor::default(), Vec::new());
        cursor.seek_to_first(list, arena);
        while cursor.record().is_some() {
            let entry = cursor.entry(arena);
            entries.push((entry.key().to_vec(), entry.sequence().0));
            if !cursor.next_within_leaf(arena) {
                cursor.next_leaf(list, arena);
            }
        }
        entries
    }

    /// Keys that differ early, late, beyond what is sorted, or in their length alone, and some with many versions.
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
                // Now and then somewhat out of order, as concurrent writers append.
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
        // In another order this would walk through the versions for each of them.
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
            while arena.new_space(bytes).is_ok() {}
        }
        for _ in 0..2 {
            assert_eq!(list.settle(&arena).unwrap_err().kind(), ErrorKind::NoSpace);
            assert!(list.is_unsettled());
            // Some are linked, some were taken and are not; and one is appended behind them, as by a writer that does
            // not know yet.
            for i in (0..count).step_by(371) {
                let found =
                    list.get(&arena, &key(i), SequenceNumber(1 << 40)).map(|record| record.sequence().0);
                assert_eq!(found, Some(i + 1));
            }
            let late = arena.new_record(b"late", SequenceNumber(7), ValueKind::Put, b"").unwrap();
            list.appended.push(late);
            assert!(list.get(&arena, b"late", SequenceNumber(7)).is_some());
        }
        assert!(!entries(&list, &arena).is_empty());
    }
}
