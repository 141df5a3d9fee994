//! Concurrent writers and readers of one memtable: order, completeness, and acknowledged inserts.
#![cfg(not(sapwood_loom))]
#![allow(clippy::disallowed_methods, reason = "the test wants real threads")]

use sapwood_base::iterator::InternalIterator;
use sapwood_base::key::key_hash;
use sapwood_base::{KeyspaceId, Lookup, SequenceNumber, ValueKind};
use sapwood_memtable::{ArenaPool, Memtable, MemtableIterator, MemtableOptions};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const WRITERS: u64 = 4;
const PATTERNS: u64 = 5;
const KEYSPACE: KeyspaceId = KeyspaceId(1);

/// Writer `writer`'s key number `i`. Writers share leaves, prefixes and, every seventh time, keys.
fn key(pattern: u64, writer: u64, i: u64) -> Vec<u8> {
    let number = if i.is_multiple_of(7) { i } else { i * WRITERS + writer };
    match pattern {
        0 => number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes().to_vec(),
        1 => number.to_be_bytes().to_vec(),
        2 => (u64::MAX - number).to_be_bytes().to_vec(),
        3 => format!("{:020}", number * 977).into_bytes(),
        _ => format!("the/same/prefix/{:05}", number.wrapping_mul(7919) % 65_536).into_bytes(),
    }
}

fn value(writer: u64, i: u64) -> Vec<u8> {
    let len = (i % 50) as usize;
    [&(writer << 32 | i).to_le_bytes()[..], &vec![i as u8; len]].concat()
}

fn sequence(writer: u64, i: u64) -> SequenceNumber {
    SequenceNumber(i * WRITERS + writer + 1)
}

fn owner(sequence: SequenceNumber) -> (u64, u64) {
    ((sequence.0 - 1) % WRITERS, (sequence.0 - 1) / WRITERS)
}

fn check_entry(pattern: u64, iterator: &MemtableIterator) {
    let (writer, i) = owner(iterator.sequence());
    assert_eq!(iterator.key(), key(pattern, writer, i), "pattern {pattern}: a key of another entry");
    assert_eq!(iterator.value(), value(writer, i), "pattern {pattern}: a value of another entry");
}

/// Scans everything, checks order and content, and that the entries below the acknowledged counts
/// are there.
fn scan(pattern: u64, memtable: &Arc<Memtable>, acknowledged: &[AtomicU64], backward: bool) -> u64 {
    let present: Vec<u64> = acknowledged.iter().map(|count| count.load(Ordering::Acquire)).collect();
    let mut counts = vec![0u64; WRITERS as usize];
    let mut seen = HashSet::new();
    let mut iterator = memtable.iter(KEYSPACE);
    if backward { iterator.seek_to_last() } else { iterator.seek_to_first() }.unwrap();
    let mut last: Option<(Vec<u8>, SequenceNumber)> = None;
    while iterator.valid() {
        check_entry(pattern, &iterator);
        let this = (iterator.key().to_vec(), iterator.sequence());
        if let Some((last_key, last_sequence)) = &last {
            let (smaller, larger) = if backward {
                (&this, (last_key, last_sequence))
            } else {
                (&(last_key.clone(), *last_sequence), (&this.0, &this.1))
            };
            let ordered = smaller.0 < *larger.0 || (smaller.0 == *larger.0 && smaller.1 > *larger.1);
            assert!(ordered, "pattern {pattern}: {smaller:?} before {larger:?}, backward: {backward}");
        }
        let (writer, i) = owner(this.1);
        assert!(seen.insert(this.1), "pattern {pattern}: an entry twice");
        if i < present[writer as usize] {
            counts[writer as usize] += 1;
        }
        last = Some(this);
        if backward { iterator.prev() } else { iterator.next() }.unwrap();
    }
    assert_eq!(counts, present, "pattern {pattern}: acknowledged entries are missing, backward: {backward}");
    seen.len() as u64
}

/// Fills a memtable that learns from `previous`.
fn run(
    pattern: u64,
    per_writer: u64,
    pool: &Arc<ArenaPool>,
    previous: Option<&Arc<Memtable>>,
) -> Arc<Memtable> {
    let memtable = Memtable::new(pattern, pool.take().unwrap());
    if let Some(previous) = previous {
        memtable.expect_prefixes_of(previous).unwrap();
    }
    let acknowledged: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2u64)
            .map(|reader| {
                let (memtable, acknowledged, done) = (&memtable, &acknowledged, &done);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(pattern * 10 + reader);
                    while !done.load(Ordering::Relaxed) {
                        scan(pattern, memtable, acknowledged, reader == 1);
                        for _ in 0..2000 {
                            let writer = random.u64(0..WRITERS);
                            let count = acknowledged[writer as usize].load(Ordering::Acquire);
                            if count == 0 {
                                continue;
                            }
                            let i = random.u64(0..count);
                            let key = key(pattern, writer, i);
                            let at = sequence(writer, i);
                            let found = memtable.get(KEYSPACE, Lookup::new(&key, at));
                            let found = found
                                .unwrap_or_else(|| panic!("pattern {pattern}: {key:?} at {at} is missing"));
                            assert_eq!((found.sequence, found.value), (at, &value(writer, i)[..]));
                            let mut iterator = memtable.iter(KEYSPACE);
                            iterator.seek(&key).unwrap();
                            assert_eq!(iterator.key(), key, "pattern {pattern}");
                            iterator.seek_before(&key).unwrap();
                            assert!(!iterator.valid() || iterator.key() < &key[..], "pattern {pattern}");
                        }
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (memtable, acknowledged) = (&memtable, &acknowledged);
                scope.spawn(move || write(pattern, memtable, writer, per_writer, acknowledged))
            })
            .collect();
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    for backward in [false, true] {
        assert_eq!(scan(pattern, &memtable, &acknowledged, backward), WRITERS * per_writer);
    }
    assert_eq!(memtable.entries(), WRITERS * per_writer);
    memtable
}

/// The work of one writer.
fn write(pattern: u64, memtable: &Memtable, writer: u64, count: u64, acknowledged: &[AtomicU64]) {
    for i in 0..count {
        let (key, value) = (key(pattern, writer, i), value(writer, i));
        let hash = key_hash(&key);
        memtable.insert(KEYSPACE, &key, hash, sequence(writer, i), ValueKind::Put, &value).unwrap();
        acknowledged[writer as usize].store(i + 1, Ordering::Release);
    }
}

/// The first reader of a keyspace without earlier reads sorts it while writers continue.
#[test]
fn the_first_readers_find_what_was_appended() {
    let pool = ArenaPool::new(MemtableOptions { size_bytes: 1 << 20 });
    for round in 0..150 {
        let pattern = round % PATTERNS;
        let memtable = Memtable::new(round, pool.take().unwrap());
        memtable.expect_appends(KEYSPACE).unwrap();
        let acknowledged: Vec<AtomicU64> = (0..WRITERS).map(|_| AtomicU64::new(0)).collect();
        let (memtable, acknowledged) = (&memtable, &acknowledged);
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                scope.spawn(move || write(pattern, memtable, writer, 100, acknowledged));
            }
            for reader in 0..2 {
                scope.spawn(move || {
                    // After any number of acknowledgements, including none.
                    while acknowledged[0].load(Ordering::Relaxed) < round % 80 {
                        std::thread::yield_now();
                    }
                    for _ in 0..3 {
                        scan(pattern, memtable, acknowledged, reader == 1);
                    }
                });
            }
        });
        assert_eq!(scan(pattern, memtable, acknowledged, false), WRITERS * 100);
    }
}

#[test]
fn writers_and_readers_agree() {
    for pattern in 0..PATTERNS {
        let pool = ArenaPool::new(MemtableOptions { size_bytes: 4 << 20 });
        let first = run(pattern, 5000, &pool, None);
        drop(run(pattern, 10_000, &pool, Some(&first)));
        drop(first);
        assert_eq!(pool.idle(), 2);
    }
}
