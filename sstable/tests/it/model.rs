//! Tables compared with a sorted vector: every way to read, over many shapes of data and options.
use sapwood_base::iterator::InternalIterator;
use sapwood_base::key::key_hash;
use sapwood_base::{Lookup, SequenceNumber, ValueKind};
use sapwood_sstable::{Codec, FilterKind, LastBlock, ReadOptions, Table, TableOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::support::{Entry, MemoryFile, NUMBER, build, cache, entry, open, order, visible};

/// Entries of the shape `shape`: the form of keys, the number of versions, the length of values.
fn entries(random: &mut fastrand::Rng, shape: usize) -> Vec<Entry> {
    let mut all = Vec::new();
    let count = random.usize(1..1500);
    for _ in 0..count {
        let key: Vec<u8> = match shape {
            // Random bytes, some very short.
            0 => (0..random.usize(0..12)).map(|_| random.u8(..)).collect(),
            // A long shared prefix, dense numbers.
            1 => format!("keyspace/with/a/long/prefix/{:08}", random.u32(0..3000)).into_bytes(),
            // Few keys with many versions: they span blocks.
            2 => vec![b'k'; random.usize(0..6)],
            // Two letters and all-ones bytes: many equal prefixes.
            3 => (0..random.usize(0..20)).map(|_| [0, 0xFF][random.usize(0..2)]).collect(),
            // Fixed length.
            _ => random.u64(..).to_be_bytes().to_vec(),
        };
        let value_len = match shape {
            0 => random.usize(0..30),
            1 => 100,
            2 => random.usize(0..200),
            3 if random.u8(..) == 0 => random.usize(0..100_000),
            3 => random.usize(0..3),
            _ if random.u8(0..10) == 0 => random.usize(0..3000),
            _ => 0,
        };
        let kind = if random.u8(0..10) == 0 { ValueKind::Delete } else { ValueKind::Put };
        let value: Vec<u8> = match kind {
            ValueKind::Put if random.bool() => vec![random.u8(..); value_len],
            ValueKind::Put => (0..value_len).map(|_| random.u8(..)).collect(),
            ValueKind::Delete => Vec::new(),
        };
        let bits = random.u32(1..44);
        let sequence = if shape == 1 { 77 } else { random.u64(0..1 << bits) };
        all.push(entry(&key, sequence, kind, &value));
    }
    order(&mut all);
    all
}

fn here(iterator: &impl InternalIterator) -> Entry {
    entry(iterator.key(), iterator.sequence().0, iterator.kind(), iterator.value())
}

fn check_position(iterator: &impl InternalIterator, entries: &[Entry], position: Option<usize>, what: &str) {
    assert_eq!(iterator.valid(), position.is_some(), "{what}");
    if let Some(position) = position {
        assert_eq!(here(iterator), entries[position], "{what}");
    }
}

/// Walks at random, and compares each position with the vector. Counts in `in_runs` the moves
/// without a check of versions.
fn walk(
    iterator: &mut impl InternalIterator,
    entries: &[Entry],
    random: &mut fastrand::Rng,
    steps: usize,
    in_runs: &mut usize,
) {
    let mut position: Option<usize> = None;
    for _ in 0..steps {
        let what;
        match (random.u8(0..12), position) {
            (0, _) => {
                what = "first";
                iterator.seek_to_first().unwrap();
                position = Some(0);
            }
            (1, _) => {
                what = "last";
                iterator.seek_to_last().unwrap();
                position = Some(entries.len() - 1);
            }
            (2..=4, _) | (_, None) => {
                let mut target = entries[random.usize(0..entries.len())].key.clone();
                match random.u8(0..6) {
                    0 => target.push(0),
                    1 => drop(target.pop()),
                    2 if !target.is_empty() => {
                        let at = random.usize(0..target.len());
                        target[at] = random.u8(..);
                    }
                    _ => {}
                }
                let bound = entries.partition_point(|entry| entry.key < target);
                if random.bool() {
                    what = "seek";
                    iterator.seek(&target).unwrap();
                    position = (bound < entries.len()).then_some(bound);
                } else {
                    what = "seek_before";
                    iterator.seek_before(&target).unwrap();
                    position = bound.checked_sub(1);
                }
            }
            (5, Some(at)) => {
                what = "next_in_run";
                let bound = SequenceNumber([random.u64(0..1 << 57), u64::MAX >> 8][random.usize(0..2)]);
                let limit = random.bool().then(|| entries[random.usize(0..entries.len())].key.as_slice());
                let count = iterator.run_ahead(bound, limit);
                for place in at + 1..=at + count {
                    let next = &entries[place];
                    assert!(next.kind == ValueKind::Put && next.sequence <= bound.0);
                    assert!(next.key != entries[place - 1].key, "an older version belongs to no run");
                    assert!(limit.is_none_or(|limit| next.key.as_slice() < limit));
                    iterator.next_in_run();
                    check_position(iterator, entries, Some(place), what);
                }
                *in_runs += count;
                position = Some(at + count);
            }
            // Called only if no other version comes before.
            (6, Some(at)) if at == 0 || entries[at - 1].key != entries[at].key => {
                what = "prev_in_run";
                let bound = SequenceNumber([random.u64(0..1 << 57), u64::MAX >> 8][random.usize(0..2)]);
                let limit = random.bool().then(|| entries[random.usize(0..entries.len())].key.as_slice());
                let count = iterator.run_behind(bound, limit);
                for place in (at - count..at).rev() {
                    let next = &entries[place];
                    assert!(next.kind == ValueKind::Put && next.sequence <= bound.0);
                    assert!(place == 0 || next.key != entries[place - 1].key, "a newer version comes before");
                    assert!(next.key != entries[place + 1].key);
                    assert!(limit.is_none_or(|limit| next.key.as_slice() > limit));
                    iterator.prev_in_run();
                    check_position(iterator, entries, Some(place), what);
                }
                *in_runs += count;
                position = Some(at - count);
            }
            (7..=8, Some(at)) => {
                what = "next";
                iterator.next().unwrap();
                position = Some(at + 1).filter(|at| *at < entries.len());
            }
            (_, Some(at)) => {
                what = "prev";
                iterator.prev().unwrap();
                position = at.checked_sub(1);
            }
        }
        check_position(iterator, entries, position, what);
    }
}

fn check(table: &Arc<Table>, entries: &[Entry], random: &mut fastrand::Rng) -> usize {
    table.verify().unwrap();
    let guard = crossbeam_epoch::pin();
    let mut forward = table.iter(ReadOptions::default());
    forward.seek_to_first().unwrap();
    let mut scan = table.scan();
    scan.seek_to_first().unwrap();
    for expected in entries {
        assert_eq!(here(&forward), *expected);
        assert_eq!(here(&scan), *expected);
        forward.next().unwrap();
        scan.next().unwrap();
    }
    assert!(!forward.valid() && !scan.valid());
    let mut backward = table.iter(ReadOptions { fill_cache: false, readahead_bytes: 0 });
    backward.seek_to_last().unwrap();
    scan.seek_to_last().unwrap();
    for expected in entries.iter().rev() {
        assert_eq!(here(&backward), *expected);
        assert_eq!(here(&scan), *expected);
        backward.prev().unwrap();
        scan.prev().unwrap();
    }
    assert!(!backward.valid() && !scan.valid());
    let mut in_runs = 0;
    walk(&mut forward, entries, random, 600, &mut in_runs);
    walk(&mut scan, entries, random, 60, &mut in_runs);

    // For keys in any order, which costs only additional reads.
    let mut last = LastBlock::default();
    for _ in 0..600 {
        let chosen = &entries[random.usize(0..entries.len())];
        let mut key = chosen.key.clone();
        match random.u8(0..5) {
            0 => key.push(random.u8(..)),
            1 => drop(key.pop()),
            _ => {}
        }
        let near = chosen.sequence.saturating_add(random.u64(0..3)).saturating_sub(1);
        let sequence = [near, random.u64(0..1 << 57), SequenceNumber::MAX.0][random.usize(0..3)];
        let lookup = Lookup::new(&key, SequenceNumber(sequence));
        let found = table.get(lookup, &guard).unwrap();
        let expected = visible(entries, &key, sequence);
        assert_eq!(found.is_some(), expected.is_some(), "{key:?} at {sequence}");
        if let (Some(found), Some(expected)) = (found, expected) {
            assert!(table.may_contain(key_hash(&key)));
            let pinned = found.value.pin();
            assert_eq!(entry(&key, found.sequence.0, found.kind, &found.value), *expected);
            assert_eq!(*pinned, *expected.value);
        }
        let in_order = table
            .get_in_order(lookup, &mut last, &guard)
            .unwrap()
            .map(|found| entry(&key, found.sequence.0, found.kind, &found.value));
        assert_eq!(in_order.as_ref(), expected);
        // The same in steps, as for many keys; and whether any key begins with a part of this one.
        let place = table.prefetch_index(&key).unwrap();
        let number = table.prefetch_block(place, &key);
        assert_eq!(Some(number), table.locate(&key));
        let block = table.prefetch_entry(number, key_hash(&key), &guard);
        let staged = table.get_prefetched(number, block, lookup, &guard).unwrap();
        let staged = staged.map(|found| entry(&key, found.sequence.0, found.kind, &found.value));
        assert_eq!(staged.as_ref(), expected, "{key:?} at {sequence}");
        let prefix = &key[..key.len() - random.usize(0..=key.len().min(3))];
        let at = entries.partition_point(|entry| entry.key.as_slice() < prefix);
        let expected = entries.get(at).is_some_and(|entry| entry.key.starts_with(prefix));
        assert_eq!(table.has_prefix(prefix, &guard).unwrap(), expected, "{prefix:?}");
    }
    in_runs
}

#[test]
fn every_way_to_read_agrees_with_the_model() {
    let mut random = fastrand::Rng::with_seed(11);
    let codecs = [Codec::None, Codec::Lz4, Codec::Zstd(1)];
    let filters = [FilterKind::None, FilterKind::Blocked, FilterKind::Standard];
    let mut in_runs = 0;
    for round in 0..150 {
        let entries = entries(&mut random, round % 5);
        let options = TableOptions {
            block_bytes: [512, 4096, 16_384, 65_536][random.usize(0..4)],
            compression: codecs[random.usize(0..3)],
            filter: filters[random.usize(0..3)],
            filter_bits_per_key: random.f32() * 20.0,
            write_buffer_bytes: [1, 10_000, 1 << 20][random.usize(0..3)],
        };
        let table = open(build(&entries, &options)).unwrap();
        in_runs += check(&table, &entries, &mut random);
    }
    assert!(in_runs > 10_000, "only {in_runs} moves were in runs");
}

#[test]
fn the_longest_keys_and_large_values_fit() {
    let mut random = fastrand::Rng::with_seed(12);
    let mut all = vec![entry(b"", 5, ValueKind::Put, b""), entry(b"", 3, ValueKind::Put, &[9; 200_000])];
    for i in 0..60 {
        let mut key = vec![i as u8 / 20; 65_536];
        key[65_530] = i as u8;
        all.push(entry(&key, 1 << i.min(43), ValueKind::Put, &vec![i as u8; random.usize(0..70_000)]));
        all.push(entry(&key[..65_535], i, ValueKind::Put, b"shorter"));
    }
    all.push(entry(b"huge", 1, ValueKind::Put, &vec![7; 20 << 20]));
    order(&mut all);
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd(1)] {
        let options = TableOptions { compression: codec, ..TableOptions::default() };
        let table = open(build(&all, &options)).unwrap();
        check(&table, &all, &mut random);
    }
}

#[test]
fn thousands_of_versions_span_blocks() {
    let mut random = fastrand::Rng::with_seed(13);
    let mut all: Vec<Entry> =
        (0..5000).map(|i| entry(b"counter", i * 3, ValueKind::Put, &[i as u8; 20])).collect();
    all.push(entry(b"count", 1, ValueKind::Put, b"before"));
    all.push(entry(b"counter\0", 1, ValueKind::Put, b"after"));
    order(&mut all);
    let table = open(build(&all, &TableOptions { block_bytes: 512, ..TableOptions::default() })).unwrap();
    assert!(table.blocks() > 100);
    assert!(table.split_keys(10).len() <= 2, "all versions of a key stay together");
    check(&table, &all, &mut random);
}

#[test]
fn readers_may_go_to_other_threads() {
    fn movable<T: Send + 'static>() {}
    fn shared<T: Send + Sync + 'static>() {}
    movable::<sapwood_sstable::TableIterator>();
    movable::<sapwood_sstable::TableScanner>();
    movable::<sapwood_sstable::TableBuilder>();
    shared::<Table>();
    shared::<sapwood_sstable::PinnedValue>();
}

#[test]
fn an_empty_table_is_a_table() {
    let table = open(build(&[], &TableOptions::default())).unwrap();
    table.verify().unwrap();
    let guard = crossbeam_epoch::pin();
    assert!(table.get(Lookup::new(b"a", SequenceNumber::MAX), &guard).unwrap().is_none());
    let mut iterator = table.iter(ReadOptions::default());
    for _ in 0..2 {
        assert!(!iterator.valid());
        iterator.seek(b"a").unwrap();
        iterator.seek_before(b"a").unwrap();
        iterator.seek_to_first().unwrap();
        iterator.seek_to_last().unwrap();
    }
    assert_eq!(table.approximate_offset(b"a"), 0);
    assert!(table.split_keys(4).is_empty());
}

#[test]
fn offsets_and_splits_are_proportional() {
    let all: Vec<Entry> =
        (0..20_000u32).map(|i| entry(&i.to_be_bytes(), u64::from(i), ValueKind::Put, &[1; 100])).collect();
    let table = open(build(&all, &TableOptions::default())).unwrap();
    let whole = table.approximate_offset(&[0xFF; 5]) as f64;
    assert_eq!(table.approximate_offset(b""), 0);
    for quarter in 1..4u32 {
        let offset = table.approximate_offset(&(quarter * 5000).to_be_bytes()) as f64;
        assert!((offset / whole - f64::from(quarter) / 4.0).abs() < 0.01);
    }
    let splits = table.split_keys(4);
    assert_eq!(splits.len(), 3);
    for (i, split) in splits.iter().enumerate() {
        let offset = table.approximate_offset(split) as f64;
        assert!((offset / whole - (i + 1) as f64 / 4.0).abs() < 0.01);
    }
    // 35 entries of 116 bytes fill a page.
    let per_entry = whole / all.len() as f64;
    assert!(per_entry < 116.0, "{per_entry}");
    assert!(table.pinned_bytes() < all.len() * 3);
}

#[test]
fn keys_in_order_are_read_past_the_cache_each_block_once() {
    let all: Vec<Entry> =
        (0..5000u64).map(|i| entry(&i.to_be_bytes(), i, ValueKind::Put, &[7; 50])).collect();
    let file = MemoryFile::new(build(&all, &TableOptions::default()));
    let cache = cache();
    let table = Table::open(Box::new(file.clone()), NUMBER, &cache).unwrap();
    let guard = crossbeam_epoch::pin();
    // One block is in the cache because a reader uses it.
    let first = &all[0].key;
    assert!(table.get(Lookup::new(first, SequenceNumber::MAX), &guard).unwrap().is_some());
    let (stats, calls_left) = (cache.stats(), file.calls_left.load(Ordering::Relaxed));
    let mut last = LastBlock::default();
    for Entry { key, .. } in &all {
        let found = table.get_in_order(Lookup::new(key, SequenceNumber::MAX), &mut last, &guard).unwrap();
        assert_eq!(found.map(|found| found.value.to_vec()), Some(vec![7; 50]));
    }
    assert_eq!(cache.stats(), stats);
    let reads = calls_left - file.calls_left.load(Ordering::Relaxed);
    assert_eq!(reads as usize, table.blocks() - 1);
}
