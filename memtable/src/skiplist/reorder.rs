//! Reorders a list during concurrent writes and reads: its records in new leaves, by other
//! prefixes.
//!
//! A list cannot know the common parts of its keys before it has some. So it samples its keys at a
//! few thousand entries, and some times later. If another encoding would distinguish the keys much
//! better, the list is rebuilt with it. That takes about as long as a hundred inserts for each
//! thousand entries, and happens at sizes that grow eightfold.
//!
//! 1. All leaves are frozen, from left to right, and their records collected. A writer that reaches
//!    a frozen leaf waits for the next order; it has changed nothing. Readers continue in the
//!    leaves of the old order.
//! 2. New leaves are written for the same records. (Older versions are chained to the records, so
//!    they are included.)
//! 3. The new order is published. An insert into it that happened before a read is visible to that
//!    read, because the writer saw the new order. A reader that began before may finish in the old
//!    order, which has every insert that happened before that read, and never changes again.
//!
//! If the arena is full, the leaves of the old order are thawed and the list is unchanged.
use super::leaf::LockedLeaf;
use super::leaves::{FILLED_SLOTS, Leaves, link_all};
use super::node::Nodes;
use super::order::Order;
use super::{PrefixBase, Skiplist};
use crate::sync::Ordering;
use sapwood_base::Result;

/// Number of entries at which a list first samples its keys.
#[cfg(not(sapwood_loom))]
pub(super) const LEARNS_FROM: u64 = 2048;
/// Growth factor between samplings.
#[cfg(not(sapwood_loom))]
const LEARNS_AGAIN: u64 = 8;
/// Sample size for the check of the current prefixes.
#[cfg(not(sapwood_loom))]
pub(super) const FEW_KEYS: usize = 128;
/// Sample size for the choice of others.
#[cfg(not(sapwood_loom))]
const MANY_KEYS: usize = 4000;
/// At most one in this many keys is sampled, so that the samples kept are small relative to the
/// list.
#[cfg(not(sapwood_loom))]
const KEYS_FOR_ONE: u64 = 8;

/// Sample size for the choice of prefixes in a list with this many entries.
#[cfg(not(sapwood_loom))]
pub(super) fn many_keys(entries: u64) -> usize {
    (entries / KEYS_FOR_ONE).min(MANY_KEYS as u64) as usize
}

impl Skiplist {
    /// Moves all entries into new leaves, by the prefixes of `base`. Returns false if the list has
    /// been reordered the maximum number of times, or another thread is reordering it.
    ///
    /// # Errors
    /// `NoSpace` when the arena is full; the list is unchanged then.
    pub fn reorder(&self, nodes: &Nodes, base: PrefixBase) -> Result<bool> {
        let Ok(_only) = self.reordering.try_lock() else { return Ok(false) };
        // Relaxed: changes under the lock only.
        let count = self.reordered.load(Ordering::Relaxed);
        let Some(place) = self.later.get(count as usize) else { return Ok(false) };
        let old = self.order();
        let (mut frozen, mut records) = (Vec::new(), Vec::new());
        let mut at = Some(old.head);
        while let Some(offset) = at {
            let leaf = nodes.leaf(offset);
            let locked = LockedLeaf::lock(leaf).expect("leaves are frozen once, by the holder of the lock");
            records.extend((0..leaf.count()).filter_map(|slot| leaf.record(slot)));
            // Keys that a split moves to the right are found there: under the lock, the link names
            // their leaf.
            at = leaf.next_link().next();
            frozen.push((leaf, locked.freeze()));
        }
        let order = Order::new(nodes, base).and_then(|order| {
            let (mut leaves, mut slots) = (Leaves::default(), Vec::with_capacity(FILLED_SLOTS));
            for record in records {
                if slots.len() == FILLED_SLOTS {
                    leaves.write(nodes, &mut slots)?;
                }
                slots.push((order.base.prefix_of(nodes.record(record).key()), record));
            }
            leaves.write(nodes, &mut slots)?;
            link_all(nodes, &order, [leaves]);
            Ok(order)
        });
        match order {
            Ok(order) => {
                assert!(place.set(order).is_ok(), "only the holder of the lock makes orders");
                // Release: pairs with the Acquire in `Skiplist::order`.
                self.reordered.store(count + 1, Ordering::Release);
                Ok(true)
            }
            Err(error) => {
                for (leaf, version) in frozen {
                    leaf.thaw(version);
                }
                Err(error)
            }
        }
    }

    /// Whether the list was reordered.
    #[cfg(all(test, not(sapwood_loom)))]
    pub fn was_reordered(&self) -> bool {
        self.reordered.load(Ordering::Relaxed) > 0
    }

    /// Reorders the list if it has grown enough to check, and would benefit.
    #[cfg(not(sapwood_loom))]
    #[inline]
    pub(super) fn learn(&self, nodes: &Nodes) {
        // Relaxed: a hint. The thread that changes it does the check.
        let at = self.learns_at.load(Ordering::Relaxed);
        if self.entries() >= at && !self.is_unsettled() {
            self.learn_now(nodes, at);
        }
    }

    #[cfg(not(sapwood_loom))]
    #[cold]
    fn learn_now(&self, nodes: &Nodes, at: u64) {
        // After as many checks as there can be orders the list stays as it is.
        let next = match at.saturating_mul(LEARNS_AGAIN) {
            next if next <= LEARNS_FROM * LEARNS_AGAIN.pow(super::REORDERS as u32 - 1) => next,
            _ => u64::MAX,
        };
        let exchanged = self.learns_at.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
        // If the list was already large at its first check, because it was built or ordered late,
        // reordering would block its writers for too long.
        if exchanged.is_ok()
            && self.entries() < at * LEARNS_AGAIN
            && let Some(base) = self.better(nodes, &self.order().base)
        {
            // If the arena has no room for another order, the list remains valid.
            let _ = self.reorder(nodes, base);
        }
    }

    /// Returns the prefixes that suit the keys of a list like this one; `None` if it is small.
    #[cfg(not(sapwood_loom))]
    pub fn learned(&self, nodes: &Nodes) -> Option<PrefixBase> {
        let is_large = self.entries() >= LEARNS_FROM;
        is_large.then(|| self.better(nodes, &PrefixBase::default()).unwrap_or_default())
    }

    /// Returns prefixes that suit the keys much better than `base`.
    #[cfg(not(sapwood_loom))]
    fn better(&self, nodes: &Nodes, base: &PrefixBase) -> Option<PrefixBase> {
        match base.suits(&self.sample(nodes, FEW_KEYS)) {
            true => None,
            false => base.better_for(&self.sample(nodes, many_keys(self.entries()))),
        }
    }

    /// Samples about `wanted` keys from the whole list, or a few times as many, in order.
    #[cfg(not(sapwood_loom))]
    fn sample<'a>(&self, nodes: &'a Nodes, wanted: usize) -> Vec<&'a [u8]> {
        let order = self.order();
        let mut leaves = Vec::new();
        // Relaxed: any former height suffices.
        for level in (0..order.levels.load(Ordering::Relaxed) as usize).rev() {
            leaves.clear();
            leaves.push(nodes.leaf(order.head));
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
}

#[cfg(all(test, not(sapwood_loom)))]
mod tests {
    use super::*;
    use crate::arena::{Arena, ArenaPool};
    use crate::options::MemtableOptions;
    use crate::skiplist::cursor::Cursor;
    use sapwood_base::{ErrorKind, SequenceNumber, ValueKind};
    use std::sync::atomic::AtomicUsize;

    fn arena() -> Arena {
        ArenaPool::new(MemtableOptions { size_bytes: 4 << 20 }).take().unwrap()
    }

    fn decimal(number: u64) -> Vec<u8> {
        format!("account/{:012}", number.wrapping_mul(7_919) % 1_000_003 * 977).into_bytes()
    }

    fn insert(list: &Skiplist, arena: &Arena, key: &[u8], sequence: u64) {
        let seed = sequence.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 7;
        list.insert(arena, key, SequenceNumber(sequence), ValueKind::Put, b"v", seed).unwrap();
    }

    fn keys(list: &Skiplist, arena: &Arena, backward: bool) -> Vec<Vec<u8>> {
        let (mut cursor, mut keys) = (Cursor::default(), Vec::new());
        match backward {
            true => cursor.seek_to_last(list, arena),
            false => cursor.seek_to_first(list, arena),
        }
        while cursor.record().is_some() {
            keys.push(cursor.entry(arena).key().to_vec());
            match backward {
                true if !cursor.prev_within_leaf(arena) => cursor.prev_leaf(list, arena),
                false if !cursor.next_within_leaf(arena) => cursor.next_leaf(list, arena),
                _ => {}
            }
        }
        if backward {
            keys.reverse();
        }
        keys
    }

    fn expected(range: std::ops::Range<u64>) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = range.map(decimal).collect();
        keys.sort();
        keys
    }

    #[test]
    fn a_list_learns_once_what_its_keys_look_like() {
        let arena = arena();
        let list = Skiplist::new(&arena, PrefixBase::default()).unwrap();
        let reordered = || list.reordered.load(Ordering::Relaxed);
        for number in 0..LEARNS_FROM - 1 {
            insert(&list, &arena, &decimal(number), number);
        }
        assert_eq!(reordered(), 0, "a small list stays as it is");
        for number in LEARNS_FROM - 1..10 * LEARNS_FROM {
            insert(&list, &arena, &decimal(number), number);
            if number == 2 * LEARNS_FROM {
                list.verify(&arena);
                assert_eq!(reordered(), 1);
                assert!(!list.order().base.is_plain());
            }
        }
        list.verify(&arena);
        assert_eq!(reordered(), 1, "what suits the keys stays");
        assert_eq!(list.entries(), 10 * LEARNS_FROM);
        assert_eq!(keys(&list, &arena, false), expected(0..10 * LEARNS_FROM));
        assert_eq!(keys(&list, &arena, true), expected(0..10 * LEARNS_FROM));

        // Ranks need more samples than a list has at its first check.
        let paths = Skiplist::new(&arena, PrefixBase::default()).unwrap();
        let words = ["usr", "share", "lib", "a", "index", "2026", "x", "data"];
        let path = |number: u64| -> Vec<u8> {
            let number = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let key: String =
                (0..12).map(|at| words[(number >> (3 * at)) as usize % 8].to_owned() + "/").collect();
            format!("{key}{number:x}").into_bytes()
        };
        for number in 0..9 * LEARNS_FROM {
            insert(&paths, &arena, &path(number), number);
        }
        paths.verify(&arena);
        let mut expected_paths: Vec<Vec<u8>> = (0..9 * LEARNS_FROM).map(path).collect();
        expected_paths.sort();
        assert_eq!(keys(&paths, &arena, false), expected_paths);
        assert!(!paths.order().base.is_plain() && paths.learned(&arena).is_some());

        let next = Skiplist::new(&arena, list.learned(&arena).unwrap()).unwrap();
        for number in 0..2 * LEARNS_FROM {
            insert(&next, &arena, &decimal(number), number);
        }
        assert!(!next.first.base.is_plain(), "the next list knows");
        assert_eq!(next.reordered.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn keys_drawn_evenly_and_counters_stay_in_their_order() {
        for form in [|number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15), |number| 300_000 - number] {
            let arena = arena();
            let list = Skiplist::new(&arena, PrefixBase::default()).unwrap();
            for number in 0..10 * LEARNS_FROM {
                insert(&list, &arena, &form(number).to_be_bytes(), number);
            }
            assert_eq!(list.reordered.load(Ordering::Relaxed), 0);
            assert!(list.learned(&arena).unwrap().is_plain());
        }
    }

    #[test]
    fn cursors_go_on_in_the_order_that_they_began_in() {
        let arena = arena();
        let list = Skiplist::new(&arena, PrefixBase::default()).unwrap();
        for number in 0..1000 {
            insert(&list, &arena, &decimal(number), number);
        }
        let mut forward = Cursor::default();
        let mut backward = Cursor::default();
        forward.seek_to_first(&list, &arena);
        backward.seek_to_last(&list, &arena);
        assert!(list.reorder(&arena, PrefixBase::new(b"account/0")).unwrap());
        let (mut met, mut met_backward) = (Vec::new(), Vec::new());
        while forward.record().is_some() {
            met.push(forward.entry(&arena).key().to_vec());
            if !forward.next_within_leaf(&arena) {
                forward.next_leaf(&list, &arena);
            }
        }
        while backward.record().is_some() {
            met_backward.push(backward.entry(&arena).key().to_vec());
            if !backward.prev_within_leaf(&arena) {
                backward.prev_leaf(&list, &arena);
            }
        }
        met_backward.reverse();
        assert_eq!(met, expected(0..1000));
        assert_eq!(met_backward, expected(0..1000));
        // An overwrite in the new order is found, and the old version after it.
        let key = decimal(17);
        insert(&list, &arena, &key, 5000);
        let sequence = |at| list.get(&arena, &key, SequenceNumber(at)).map(|record| record.sequence().0);
        assert_eq!([sequence(4999), sequence(5000)], [Some(17), Some(5000)]);
        assert_eq!(list.entries(), 1001);
        // As often as there are places, and no more.
        assert!(list.reorder(&arena, PrefixBase::default()).unwrap());
        assert!(!list.reorder(&arena, PrefixBase::new(b"account/")).unwrap());
        list.verify(&arena);
        assert_eq!(keys(&list, &arena, false).len(), 1001);
    }

    #[test]
    fn a_full_arena_leaves_the_list_as_it_was() {
        let arena = arena();
        let list = Skiplist::new(&arena, PrefixBase::default()).unwrap();
        for number in 0..1500 {
            insert(&list, &arena, &decimal(number), number);
        }
        let room = arena.new_record(b"late", SequenceNumber(1500), ValueKind::Put, b"").unwrap();
        for bytes in [64 << 20, 1 << 20, 64 << 10, 4 << 10, 256, 8] {
            while arena.new_space(bytes).is_ok() {}
        }
        for _ in 0..3 {
            let error = list.reorder(&arena, PrefixBase::new(b"account/")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace);
        }
        // Writers are admitted again.
        list.link(&arena, b"late", room, 1).unwrap();
        list.verify(&arena);
        let keys = keys(&list, &arena, false);
        assert_eq!(keys.len(), 1501);
        assert!(keys.contains(&b"late".to_vec()));
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "the test wants real threads")]
    fn writers_and_readers_beside_a_new_order_lose_nothing() {
        const WRITERS: usize = 3;
        const EACH: usize = 1500;
        for round in 0..20u64 {
            let arena = arena();
            let list = Skiplist::new(&arena, PrefixBase::default()).unwrap();
            let told = [const { AtomicUsize::new(0) }; WRITERS];
            let number = |writer: usize, i: usize| (i * WRITERS + writer) as u64;
            let check = |writer: usize, random: &mut fastrand::Rng| {
                let count = told[writer].load(std::sync::atomic::Ordering::Acquire);
                if count > 0 {
                    let number = number(writer, random.usize(..count));
                    let found = list.get(&arena, &decimal(number), SequenceNumber(1 << 40));
                    let found = found.map(|record| record.sequence().0);
                    assert_eq!(found, Some(number), "round {round}: {number} of {count}");
                }
            };
            std::thread::scope(|scope| {
                for (writer, told) in told.iter().enumerate() {
                    let (list, arena, check) = (&list, &arena, &check);
                    scope.spawn(move || {
                        let mut random = fastrand::Rng::with_seed(round);
                        for i in 0..EACH {
                            insert(list, arena, &decimal(number(writer, i)), number(writer, i));
                            told.store(i + 1, std::sync::atomic::Ordering::Release);
                            check(random.usize(..WRITERS), &mut random);
                        }
                    });
                }
                for base in [&b"account/0"[..], b"acc"] {
                    let wait = round as usize * 40;
                    while told[0].load(std::sync::atomic::Ordering::Relaxed) < wait {
                        std::thread::yield_now();
                    }
                    // The writers may come first.
                    list.reorder(&arena, PrefixBase::new(base)).unwrap();
                    let before = told[1].load(std::sync::atomic::Ordering::Acquire);
                    let met = keys(&list, &arena, base.len() == 3);
                    assert!(met.is_sorted_by(|a, b| a < b), "round {round}");
                    let own = (0..before).map(|i| decimal(number(1, i)));
                    let met: std::collections::HashSet<_> = met.into_iter().collect();
                    assert!(own.into_iter().all(|key| met.contains(&key)), "round {round}");
                }
            });
            list.verify(&arena);
            assert_eq!(keys(&list, &arena, false), expected(0..(WRITERS * EACH) as u64), "round {round}");
        }
    }
}
