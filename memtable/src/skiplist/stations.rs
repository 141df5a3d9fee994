//! Stations: entry points into the chains of keys with very many versions, so that a reader of an
//! old state can skip most newer versions.
//!
//! Once a key has some versions, one in some dozens of later ones becomes a station, chosen
//! pseudo-randomly. A search for a version far down the chain begins at the last station before it.
//! A station has no information beyond the chain, so any set of stations is correct: nothing is
//! removed from a chain, and its order never changes.
use super::leaf::RecordOffset;
use super::node::Nodes;
use crate::sync::Ordering;
use parking_lot::Mutex;
use sapwood_base::SequenceNumber;
use sapwood_base::key::key_hash;
use std::collections::HashMap;

/// One version in this many is a station.
const EVERY: usize = 64;

/// The stations of a list, by the hash of their key; stations of one hash are sorted by sequence
/// number.
#[derive(Default)]
pub(super) struct Stations {
    of_key: Mutex<HashMap<u64, Vec<(SequenceNumber, RecordOffset)>>>,
}

impl Stations {
    /// Whether a version with this random number becomes a station.
    #[inline]
    pub(super) fn is_one(seed: u64) -> bool {
        (seed >> 40).is_multiple_of(EVERY as u64)
    }

    /// Makes a version a station.
    #[cold]
    pub(super) fn add(&self, nodes: &Nodes, offset: RecordOffset) {
        let record = nodes.record(offset);
        let hash = key_hash(record.key());
        insert(self.of_key.lock().entry(hash).or_default(), record.sequence(), offset);
    }

    /// Returns the newest version after `offset` that is visible at `sequence`, and how many were
    /// checked. `offset` itself is not visible.
    #[cold]
    pub(super) fn search(
        &self,
        nodes: &Nodes,
        mut offset: RecordOffset,
        sequence: SequenceNumber,
    ) -> (Option<RecordOffset>, usize) {
        let key = nodes.record(offset).key();
        let hash = key_hash(key);
        if let Some(stations) = self.of_key.lock().get(&hash) {
            let at = stations.partition_point(|(number, _)| *number <= sequence);
            // If two keys share a hash, the stations of the other key do not apply.
            if let Some((number, station)) = stations.get(at)
                && *number < nodes.record(offset).sequence()
                && nodes.record(*station).key() == key
            {
                offset = *station;
            }
        }
        let mut steps = 0;
        // A chain that was built differently, by a recovery, has no stations at first.
        let mut missing = Vec::new();
        loop {
            let record = nodes.record(offset);
            if record.sequence() <= sequence {
                break;
            }
            steps += 1;
            if steps % (4 * EVERY) == 0 {
                missing.push((record.sequence(), offset));
            }
            // Acquire pairs with the release store that chained the older version.
            match record.older().load(Ordering::Acquire) {
                Some(older) => offset = older,
                None => break,
            }
        }
        if !missing.is_empty() {
            let mut of_key = self.of_key.lock();
            let stations = of_key.entry(hash).or_default();
            missing.into_iter().for_each(|(number, offset)| insert(stations, number, offset));
        }
        let found = Some(offset).filter(|offset| nodes.record(*offset).sequence() <= sequence);
        (found, steps)
    }
}

fn insert(stations: &mut Vec<(SequenceNumber, RecordOffset)>, number: SequenceNumber, offset: RecordOffset) {
    let at = stations.partition_point(|(other, _)| *other < number);
    stations.insert(at, (number, offset));
}

#[cfg(all(test, not(sapwood_loom)))]
mod tests {
    use crate::arena::ArenaPool;
    use crate::options::MemtableOptions;
    use crate::skiplist::cursor::Cursor;
    use crate::skiplist::{PrefixCoding, Skiplist};
    use sapwood_base::{SequenceNumber, ValueKind};

    #[test]
    fn an_old_version_is_found_without_passing_over_all_that_came_later() {
        const VERSIONS: u64 = 60_000;
        let arena = ArenaPool::new(MemtableOptions { size_bytes: 16 << 20 }).take().unwrap();
        let list = Skiplist::new(&arena, PrefixCoding::default()).unwrap();
        let put = |key: &[u8], sequence: u64, seed: u64| {
            list.insert(&arena, key, SequenceNumber(sequence), ValueKind::Put, b"v", seed).unwrap();
        };
        let mut random = fastrand::Rng::with_seed(5);
        put(b"a", 1, 1);
        put(b"z", 2, 1);
        for version in 0..VERSIONS {
            put(b"hot", 10 + version * 2, random.u64(..));
        }
        for _ in 0..2000 {
            let sequence = SequenceNumber(random.u64(5..VERSIONS * 2));
            let newest = list.leaves.newest(&arena, b"hot").unwrap();
            let (found, steps) = list.leaves.stations.search(&arena, newest, sequence);
            let expected = (sequence.0 >= 10).then(|| (sequence.0 - 10) / 2 * 2 + 10);
            let record = list.get(&arena, b"hot", sequence);
            assert_eq!(record.map(|record| record.sequence().0), expected);
            assert_eq!(record.map(|record| record.offset()), found);
            assert!(steps < 2000, "{steps} versions looked at");

            // A scan returns it as one entry.
            let mut cursor = Cursor::seen_at(sequence);
            let mut forward = Vec::new();
            cursor.seek_to_first(list.leaves(), &arena);
            while cursor.record().is_some() {
                forward.push((cursor.entry(&arena).key(), cursor.entry(&arena).sequence().0));
                if !cursor.next_within_leaf(&arena) {
                    cursor.next_leaf(list.leaves(), &arena);
                }
            }
            let mut want = vec![(&b"a"[..], 1), (b"z", 2)];
            want.splice(1..1, expected.map(|sequence| (&b"hot"[..], sequence)));
            assert_eq!(forward, want);
            let mut backward = Vec::new();
            cursor.seek_to_last(list.leaves(), &arena);
            while cursor.record().is_some() {
                backward.push((cursor.entry(&arena).key(), cursor.entry(&arena).sequence().0));
                if !cursor.prev_within_leaf(&arena) {
                    cursor.prev_leaf(list.leaves(), &arena);
                }
            }
            backward.reverse();
            assert_eq!(backward, want);
        }
    }
}
