//! Loom models of the skiplist's protocol: the functions are the real ones, the memory is a table.
//!
//! Run with `RUSTFLAGS="--cfg sapwood_loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p sapwood-memtable
//! --release --test loom`. Leaves have two slots and towers two levels here, so three keys split a
//! leaf.
#![cfg(sapwood_loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use sapwood_base::{SequenceNumber, ValueKind};
use sapwood_memtable::arena::bump::Bump;
use sapwood_memtable::skiplist::cursor::Cursor;
use sapwood_memtable::skiplist::node::Nodes;
use sapwood_memtable::skiplist::{PrefixCoding, Skiplist};
use std::time::Duration;

/// A seed whose leaf gets two levels, and one whose leaf gets one.
const HIGH: u64 = 4;
const LOW: u64 = 1;

struct Map {
    nodes: Nodes,
    list: Skiplist,
}

impl Map {
    fn new(keys: &[&[u8]]) -> Map {
        let nodes = Nodes::default();
        let list = Skiplist::new(&nodes, PrefixCoding::default()).unwrap();
        let map = Map { nodes, list };
        for (i, key) in keys.iter().enumerate() {
            map.insert(key, i as u64 + 1, LOW);
        }
        map
    }

    fn insert(&self, key: &[u8], sequence: u64, seed: u64) {
        let sequence = SequenceNumber(sequence);
        self.list.insert(&self.nodes, key, sequence, ValueKind::Put, b"v", seed).unwrap();
    }

    fn get(&self, key: &[u8], sequence: u64) -> Option<u64> {
        let record = self.list.get(&self.nodes, key, SequenceNumber(sequence))?;
        assert_eq!((record.key(), record.value()), (key, &b"v"[..]));
        Some(record.sequence().0)
    }

    fn forward(&self) -> Vec<(Vec<u8>, u64)> {
        let mut cursor = Cursor::default();
        cursor.seek_to_first(self.list.leaves(), &self.nodes);
        let mut entries = Vec::new();
        while cursor.record().is_some() {
            let record = cursor.entry(&self.nodes);
            entries.push((record.key().to_vec(), record.sequence().0));
            if !cursor.next_within_leaf(&self.nodes) {
                cursor.next_leaf(self.list.leaves(), &self.nodes);
            }
        }
        entries
    }

    fn backward(&self) -> Vec<(Vec<u8>, u64)> {
        let mut cursor = Cursor::default();
        cursor.seek_to_last(self.list.leaves(), &self.nodes);
        let mut entries = Vec::new();
        while cursor.record().is_some() {
            let record = cursor.entry(&self.nodes);
            entries.push((record.key().to_vec(), record.sequence().0));
            if !cursor.prev_within_leaf(&self.nodes) {
                cursor.prev_leaf(self.list.leaves(), &self.nodes);
            }
        }
        entries.reverse();
        entries
    }
}

/// Internal order, no duplicates, and everything in `present` is there.
fn check(entries: &[(Vec<u8>, u64)], present: &[&[u8]]) {
    for pair in entries.windows(2) {
        let ordered = (&pair[0].0, std::cmp::Reverse(pair[0].1)) < (&pair[1].0, std::cmp::Reverse(pair[1].1));
        assert!(ordered, "{entries:?}");
    }
    for key in present {
        assert!(entries.iter().any(|entry| entry.0 == *key), "{key:?} is missing in {entries:?}");
    }
}

/// Runs `run` in all interleavings with at most two preemptions, or in as many as fit in some
/// seconds. (The scans have millions; `LOOM_MAX_DURATION` extends their time.)
fn model(run: impl Fn() + Sync + Send + 'static) {
    #[cfg(feature = "planted")]
    if let Ok(name) = std::env::var("SAPWOOD_PLANTED") {
        use sapwood_base::planted::{Bug, plant};
        plant(Bug::named(&name).expect("a bug of that name"));
    }
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.max_duration = builder.max_duration.or(Some(Duration::from_secs(6)));
    builder.check(run);
}

/// A list with appending writers, and the entries `keys`.
fn appending(keys: &[&[u8]]) -> Map {
    let nodes = Nodes::default();
    let list = Skiplist::new(&nodes, PrefixCoding::default()).unwrap();
    list.expect_appends();
    let map = Map { nodes, list };
    for (i, key) in keys.iter().enumerate() {
        map.insert(key, i as u64 + 1, LOW);
    }
    map
}

#[test]
fn who_was_told_of_an_append_finds_it_in_order() {
    model(|| {
        let map = Arc::new(appending(&[b"m"]));
        let told = Arc::new(AtomicUsize::new(0));
        let (other, tell) = (Arc::clone(&map), Arc::clone(&told));
        let keys: [&[u8]; 2] = [b"z", b"a"];
        let writer = thread::spawn(move || {
            for (i, key) in keys.iter().enumerate() {
                other.insert(key, i as u64 + 5, LOW);
                tell.store(i + 1, Ordering::Release);
            }
        });
        let count = told.load(Ordering::Acquire);
        map.list.settle(&map.nodes).unwrap();
        check(&map.forward(), &keys[..count]);
        check(&map.forward(), &[b"m"]);
        writer.join().unwrap();
        map.list.settle(&map.nodes).unwrap();
        check(&map.forward(), &[b"a", b"m", b"z"]);
        assert_eq!(map.list.entries(), 3);
    });
}

#[test]
fn readers_that_put_appends_in_order_wait_for_each_other() {
    model(|| {
        let map = Arc::new(appending(&[b"m", b"a", b"m"]));
        let other = Arc::clone(&map);
        let reader = thread::spawn(move || {
            other.list.settle(&other.nodes).unwrap();
            check(&other.forward(), &[b"a", b"m"]);
        });
        map.insert(b"k", 9, LOW);
        assert_eq!(map.get(b"k", 100), Some(9));
        map.list.settle(&map.nodes).unwrap();
        let entries = map.forward();
        check(&entries, &[b"a", b"k", b"m"]);
        assert_eq!(entries.len(), 4);
        reader.join().unwrap();
    });
}

#[test]
fn a_lookup_beside_the_sorting_finds_what_it_should() {
    model(|| {
        let map = Arc::new(appending(&[b"m", b"a"]));
        let other = Arc::clone(&map);
        let reader = thread::spawn(move || other.list.settle(&other.nodes).unwrap());
        // The entry that is linked last.
        assert_eq!(map.get(b"m", 100), Some(1));
        assert_eq!(map.get(b"a", 100), Some(2));
        reader.join().unwrap();
    });
}

#[test]
fn two_versions_of_one_key_are_chained_in_order() {
    model(|| {
        let map = Arc::new(Map::new(&[b"k"]));
        let other = Arc::clone(&map);
        let writer = thread::spawn(move || other.insert(b"k", 9, LOW));
        map.insert(b"k", 7, LOW);
        writer.join().unwrap();
        let sequences: Vec<u64> = map.forward().iter().map(|entry| entry.1).collect();
        assert_eq!(sequences, [9, 7, 1]);
        assert_eq!(map.get(b"k", 100), Some(9));
        assert_eq!(map.list.entries(), 3);
    });
}

#[test]
fn a_reader_walks_a_chain_that_grows_inside() {
    model(|| {
        let map = Arc::new(Map::new(&[b"k"]));
        map.insert(b"k", 9, LOW);
        let other = Arc::clone(&map);
        let writer = thread::spawn(move || other.insert(b"k", 5, LOW));
        // The reader may pass the new version, and must get past it.
        assert_eq!(map.get(b"k", 4), Some(1));
        writer.join().unwrap();
        assert_eq!(map.get(b"k", 6), Some(5));
    });
}

#[test]
fn a_lookup_sees_whole_leaves_while_slots_shift() {
    model(|| {
        let map = Arc::new(Map::new(&[b"m"]));
        let other = Arc::clone(&map);
        let writer = thread::spawn(move || other.insert(b"a", 5, LOW));
        assert_eq!(map.get(b"m", 100), Some(1));
        writer.join().unwrap();
        assert_eq!(map.get(b"a", 100), Some(5));
    });
}

#[test]
fn a_new_key_is_found_whole_or_not_at_all() {
    model(|| {
        let map = Arc::new(Map::new(&[b"m"]));
        let other = Arc::clone(&map);
        let writer = thread::spawn(move || other.insert(b"a", 5, LOW));
        let early = map.get(b"a", 100);
        assert!(early.is_none() || early == Some(5));
        writer.join().unwrap();
    });
}

fn lookup_while_the_leaf_splits(seed: u64, wanted: &'static [u8]) {
    model(move || {
        let map = Arc::new(Map::new(&[b"b", b"d"]));
        let other = Arc::clone(&map);
        let writer = thread::spawn(move || other.insert(b"c", 5, seed));
        assert!(map.get(wanted, 100).is_some());
        writer.join().unwrap();
        assert_eq!(map.get(b"c", 100), Some(5));
    });
}

#[test]
fn a_lookup_finds_its_key_while_the_leaf_splits() {
    lookup_while_the_leaf_splits(LOW, b"d");
    lookup_while_the_leaf_splits(LOW, b"b");
}

#[test]
fn a_lookup_finds_its_key_while_a_tower_grows() {
    lookup_while_the_leaf_splits(HIGH, b"d");
}

fn lookup_while_a_closer_leaf_is_linked(wanted: &'static [u8]) {
    model(move || {
        // Leaves begin at the head (a, c), at "e" and, with two levels, at "g". A leaf that begins
        // at "c" is inserted between them, so the head's links change from "e" and "g" to "c".
        let map = Map::new(&[b"a", b"c", b"e", b"g"]);
        map.insert(b"f", 8, HIGH);
        let map = Arc::new(map);
        let other = Arc::clone(&map);
        let writer = thread::spawn(move || other.insert(b"d", 9, HIGH));
        assert!(map.get(wanted, 100).is_some());
        writer.join().unwrap();
        check(&map.forward(), &[b"a", b"c", b"d", b"e", b"f", b"g"]);
    });
}

#[test]
fn a_lookup_finds_its_key_while_a_closer_leaf_is_linked() {
    lookup_while_a_closer_leaf_is_linked(b"c");
    lookup_while_a_closer_leaf_is_linked(b"e");
}

#[test]
fn equal_prefixes_are_told_apart_while_the_leaf_splits() {
    model(|| {
        let map = Arc::new(Map::new(&[b"prefix__1", b"prefix__3"]));
        let other = Arc::clone(&map);
        let writer = thread::spawn(move || other.insert(b"prefix__2", 5, LOW));
        assert_eq!(map.get(b"prefix__3", 100), Some(2));
        writer.join().unwrap();
        assert_eq!(map.get(b"prefix__2", 100), Some(5));
    });
}

/// A list with the entries `keys`, whose next searches take shortcuts; all keys with the same first
/// letter share a cell.
fn with_shortcuts(keys: &[&[u8]]) -> Map {
    let map = Map::new(keys);
    map.list.make_shortcuts_up_to(u64::MAX, 4);
    map
}

#[test]
fn a_lookup_takes_a_shortcut_that_a_writer_has_just_made() {
    model(|| {
        let map = Arc::new(with_shortcuts(&[b"c", b"e"]));
        let other = Arc::clone(&map);
        // The first insert splits the only leaf; the second finds the new one, and enters it in a
        // cell of its own.
        let writer = thread::spawn(move || {
            other.insert(b"d", 5, LOW);
            other.insert(b"\xF0", 6, LOW);
        });
        assert!(matches!(map.get(b"\xF0", 100), None | Some(6)));
        writer.join().unwrap();
    });
}

#[test]
fn writers_that_share_a_shortcut_lose_nothing() {
    model(|| {
        let map = Arc::new(with_shortcuts(&[b"c", b"e"]));
        let other = Arc::clone(&map);
        // Both split a leaf, and each enters one in the cell.
        let writer = thread::spawn(move || other.insert(b"d", 5, LOW));
        map.insert(b"f", 6, LOW);
        writer.join().unwrap();
        check(&map.forward(), &[b"c", b"d", b"e", b"f"]);
        assert_eq!([map.get(b"d", 100), map.get(b"f", 100)], [Some(5), Some(6)]);
    });
}

#[test]
fn two_inserts_split_and_link_towers() {
    model(|| {
        let map = Arc::new(Map::new(&[b"c", b"g"]));
        let other = Arc::clone(&map);
        let writer = thread::spawn(move || other.insert(b"e", 5, HIGH));
        map.insert(b"i", 6, HIGH);
        writer.join().unwrap();
        check(&map.forward(), &[b"c", b"e", b"g", b"i"]);
        map.list.verify(&map.nodes);
        assert!(map.get(b"e", 100).is_some() && map.get(b"i", 100).is_some());
    });
}

#[test]
fn a_forward_scan_loses_nothing_to_a_split() {
    model(|| {
        let map = Arc::new(Map::new(&[b"b", b"d"]));
        let other = Arc::clone(&map);
        let writer = thread::spawn(move || other.insert(b"a", 5, LOW));
        check(&map.forward(), &[b"b", b"d"]);
        writer.join().unwrap();
    });
}

#[test]
fn a_backward_scan_loses_nothing_to_a_split() {
    model(|| {
        let map = Arc::new(Map::new(&[b"b", b"d"]));
        let other = Arc::clone(&map);
        let writer = thread::spawn(move || other.insert(b"c", 5, LOW));
        check(&map.backward(), &[b"b", b"d"]);
        writer.join().unwrap();
    });
}

#[test]
fn the_arena_hands_out_every_unit_once() {
    model(|| {
        let bump = Arc::new(Bump::new(8, 64, 32, 1));
        let other = Arc::clone(&bump);
        let taker = thread::spawn(move || [other.allocate(2, 1, 0), other.allocate(2, 8, 0)]);
        let mine = [bump.allocate(2, 1, 0), bump.allocate(8, 8, 0)];
        let theirs = taker.join().unwrap();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for (start, units) in [(mine[0], 2), (mine[1], 8), (theirs[0], 2), (theirs[1], 2)] {
            // Two chunks of 32 units do not fit; what fits must be disjoint.
            ranges.extend(start.map(|start| (start, start + units)));
        }
        ranges.sort_unstable();
        assert!(
            ranges.first().is_some_and(|range| range.0 >= 8)
                && ranges.last().is_some_and(|range| range.1 <= 64)
        );
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:?}");
        assert!(bump.used() <= 56);
    });
}
