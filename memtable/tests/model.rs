//! The memtable compared with `BTreeMap` and `crossbeam_skiplist`: random keys, versions, keyspaces
//! and cursor moves.
#![cfg(not(sapwood_loom))]

use crossbeam_skiplist::SkipMap;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::key::key_hash;
use sapwood_base::{KeyspaceId, Lookup, SequenceNumber, ValueKind};
use sapwood_memtable::{ArenaPool, Memtable, MemtableIterator, MemtableOptions};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

type Version = (Vec<u8>, Reverse<u64>);
type Model = BTreeMap<Version, (ValueKind, Vec<u8>)>;

const KEYSPACES: u32 = 3;

/// The shape of the keys of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    Tiny,
    Dense,
    Ascending,
    Descending,
    SharedPrefix,
    Nested,
    ZerosAndOnes,
    Long,
    Decimal,
    Tenants,
    Mixed,
}

const SHAPES: [Shape; 11] = [
    Shape::Tiny,
    Shape::Dense,
    Shape::Ascending,
    Shape::Descending,
    Shape::SharedPrefix,
    Shape::Nested,
    Shape::ZerosAndOnes,
    Shape::Long,
    Shape::Decimal,
    Shape::Tenants,
    Shape::Mixed,
];

fn key(random: &mut fastrand::Rng, shape: Shape, step: u64) -> Vec<u8> {
    match shape {
        Shape::Tiny => (0..random.usize(0..3)).map(|_| random.u8(b'a'..b'd')).collect(),
        Shape::Dense => random.u32(0..1500).to_be_bytes().to_vec(),
        Shape::Ascending => (step / 2).to_be_bytes().to_vec(),
        Shape::Descending => (u64::MAX - step).to_be_bytes().to_vec(),
        Shape::SharedPrefix => format!("a/long/common/prefix/{:04}", random.u32(0..2000)).into_bytes(),
        Shape::Nested => vec![b'x'; random.usize(0..600)],
        Shape::ZerosAndOnes => {
            (0..random.usize(0..14)).map(|_| if random.bool() { 0 } else { 0xFF }).collect()
        }
        Shape::Long => {
            let mut key = vec![random.u8(0..4); *random.choice(&[65_536, 65_535, 40_000, 9]).unwrap()];
            let last = key.len() - 1;
            key[last] = random.u8(..);
            key
        }
        Shape::Decimal => format!("{:020}", random.u64(0..100_000) * 977).into_bytes(),
        // The prefix of most keys changes.
        Shape::Tenants => {
            let tenant = if random.u8(..) < 8 { random.u64(0..10) } else { step / 4000 + 4 };
            format!("tenant/{tenant:03}/{:x}", random.u32(..)).into_bytes()
        }
        Shape::Mixed => {
            let shape = SHAPES[random.usize(0..SHAPES.len() - 2)];
            key(random, shape, step)
        }
    }
}

fn pairs(iterator: &MemtableIterator) -> Option<(&[u8], u64, ValueKind, &[u8])> {
    iterator.valid().then(|| (iterator.key(), iterator.sequence().0, iterator.kind(), iterator.value()))
}

fn check(
    seed: u64,
    iterator: &MemtableIterator,
    expected: Option<(&Version, &(ValueKind, Vec<u8>))>,
    what: &str,
) {
    let expected = expected.map(|((key, Reverse(sequence)), (kind, value))| {
        (key.as_slice(), *sequence, *kind, value.as_slice())
    });
    assert!(
        pairs(iterator) == expected,
        "seed {seed}: {what}: {:?} instead of {expected:?}",
        pairs(iterator)
    );
}

/// Random moves of one cursor, compared with the same moves in the model.
fn walk(seed: u64, random: &mut fastrand::Rng, iterator: &mut MemtableIterator, model: &Model, shape: Shape) {
    let mut at: Option<Version> = None;
    for step in 0..400 {
        let action = random.u32(0..100);
        let (expected, what) = match (action, &at) {
            (0..5, _) => {
                iterator.seek_to_first().unwrap();
                (model.iter().next(), "seek_to_first")
            }
            (5..10, _) => {
                iterator.seek_to_last().unwrap();
                (model.iter().next_back(), "seek_to_last")
            }
            (10..20, _) => {
                let target = key(random, shape, step * 7);
                iterator.seek(&target).unwrap();
                (model.range((target, Reverse(u64::MAX))..).next(), "seek")
            }
            (20..30, _) => {
                let target = key(random, shape, step * 7);
                iterator.seek_before(&target).unwrap();
                (model.range(..(target, Reverse(u64::MAX))).next_back(), "seek_before")
            }
            (_, None) => {
                iterator.seek_to_first().unwrap();
                (model.iter().next(), "seek_to_first")
            }
            // Long runs in one direction, then a change of direction.
            (_, Some(version)) if (step / 25) % 2 == 0 || action < 40 => {
                iterator.next().unwrap();
                (model.range::<Version, _>((Bound::Excluded(version), Bound::Unbounded)).next(), "next")
            }
            (_, Some(version)) => {
                iterator.prev().unwrap();
                (model.range::<Version, _>(..version).next_back(), "prev")
            }
        };
        check(seed, iterator, expected, what);
        at = expected.map(|(version, _)| version.clone());
    }
}

/// A memtable from which the next one learns, mostly with keys that resemble those of `shape`.
fn previous(random: &mut fastrand::Rng, shape: Shape) -> Arc<Memtable> {
    let shape = match random.u32(..4) {
        0 => SHAPES[random.usize(..SHAPES.len())],
        _ => shape,
    };
    let (shape, entries) = match shape {
        Shape::Long => (Shape::Nested, 2500),
        Shape::Mixed => (shape, 2500),
        // The second suffices for ranks among samples.
        _ => (shape, [2500, 9000][random.usize(..2)]),
    };
    let pool = ArenaPool::new(MemtableOptions { size_bytes: 1 << 20 });
    let memtable = Memtable::new(0, pool.take().unwrap());
    for step in 0..entries {
        let (key, keyspace) = (key(random, shape, step), KeyspaceId(random.u32(0..KEYSPACES)));
        // Most entries are in one keyspace, the others have too few.
        let keyspace = if random.u32(..8) == 0 { keyspace } else { KeyspaceId(0) };
        let sequence = SequenceNumber(step + 1);
        memtable.insert(keyspace, &key, key_hash(&key), sequence, ValueKind::Put, b"").unwrap();
    }
    memtable
}

fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let shape = SHAPES[seed as usize % SHAPES.len()];
    let pool = ArenaPool::new(MemtableOptions { size_bytes: 1 << 20 });
    let memtable = Memtable::new(seed, pool.take().unwrap());
    let mut models: Vec<Model> = vec![Model::new(); KEYSPACES as usize];
    let crossbeam: SkipMap<(u32, Version), (ValueKind, Vec<u8>)> = SkipMap::new();
    if random.bool() {
        memtable.expect_prefixes_of(&previous(&mut random, shape)).unwrap();
    }
    let steps = if shape == Shape::Long { 300 } else { 4000 };
    // Some keyspaces are not read for a while, and the memtable expects that.
    let quiet_until = if seed % 3 == 1 { random.usize(..steps as usize) } else { 0 };
    if quiet_until > 0 {
        memtable.expect_appends(KeyspaceId(KEYSPACES - 1)).unwrap();
    }
    // Sequence numbers arrive slightly out of order, as from concurrent writers.
    let mut sequences: Vec<u64> = (1..=steps).collect();
    for window in sequences.chunks_mut(random.usize(1..20)) {
        random.shuffle(window);
    }
    let mut iterators: Vec<_> = (0..KEYSPACES).map(|keyspace| memtable.iter(KeyspaceId(keyspace))).collect();
    for (step, sequence) in sequences.into_iter().enumerate() {
        let keyspace = random.u32(0..KEYSPACES);
        let key = key(&mut random, shape, step as u64);
        let (kind, value) = if random.u32(0..8) == 0 {
            (ValueKind::Delete, Vec::new())
        } else {
            (ValueKind::Put, vec![random.u8(..); random.usize(0..60)])
        };
        memtable
            .insert(KeyspaceId(keyspace), &key, key_hash(&key), SequenceNumber(sequence), kind, &value)
            .unwrap();
        let version = (key, Reverse(sequence));
        crossbeam.insert((keyspace, version.clone()), (kind, value.clone()));
        models[keyspace as usize].insert(version, (kind, value));
        if step % 997 == 0 || step as u64 + 1 == steps {
            let quiet = usize::from(step < quiet_until);
            for (keyspace, iterator) in iterators.iter_mut().enumerate().take(KEYSPACES as usize - quiet) {
                walk(seed, &mut random, iterator, &models[keyspace], shape);
            }
        }
    }
    for keyspace in 0..KEYSPACES {
        let model = &models[keyspace as usize];
        assert_eq!(memtable.entries_of(KeyspaceId(keyspace)), model.len() as u64, "seed {seed}");
        let iterator = &mut iterators[keyspace as usize];
        iterator.seek_to_first().unwrap();
        for entry in crossbeam.range((keyspace, (Vec::new(), Reverse(u64::MAX)))..) {
            if entry.key().0 != keyspace {
                break;
            }
            check(seed, iterator, Some((&entry.key().1, entry.value())), "scan");
            iterator.next().unwrap();
        }
        assert!(!iterator.valid(), "seed {seed}: an entry too many");
        iterator.seek_to_last().unwrap();
        for expected in model.iter().rev() {
            check(seed, iterator, Some(expected), "scan backward");
            iterator.prev().unwrap();
        }
        assert!(!iterator.valid(), "seed {seed}: an entry too many");
        let scanned = memtable.scan(KeyspaceId(keyspace)).unwrap();
        let scanned = scanned.map(|entry| {
            ((entry.key.to_vec(), Reverse(entry.sequence.0)), (entry.kind, entry.value.to_vec()))
        });
        assert!(scanned.eq(model.clone()), "seed {seed}: the scan differs");
        for step in 0..500 {
            let key = match random.bool() {
                true => key(&mut random, shape, step * 9),
                false => match model.iter().nth(random.usize(0..model.len().max(1))) {
                    Some(((key, _), _)) => key.clone(),
                    None => Vec::new(),
                },
            };
            let sequence = random.u64(0..=steps);
            let found = memtable.get(KeyspaceId(keyspace), Lookup::new(&key, SequenceNumber(sequence)));
            let expected = model
                .range((key.clone(), Reverse(sequence))..)
                .next()
                .filter(|((found, _), _)| *found == key)
                .map(|((_, Reverse(sequence)), (kind, value))| (*kind, *sequence, value.as_slice()));
            let found = found.map(|found| (found.kind, found.sequence.0, found.value));
            assert!(found == expected, "seed {seed}: get: {found:?} instead of {expected:?}");
        }
    }
    drop(iterators);
    drop(memtable);
    assert_eq!(pool.idle(), 1, "seed {seed}");
    recycled_arenas_need_no_zeroing(seed, &pool);
}

/// The next memtable in the same arena sees none of the last one's entries.
fn recycled_arenas_need_no_zeroing(seed: u64, pool: &Arc<ArenaPool>) {
    let memtable = Memtable::new(seed, pool.take().unwrap());
    assert!(memtable.is_empty() && memtable.size_bytes() == 0, "seed {seed}");
    for step in 0..100u64 {
        let key = step.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        memtable
            .insert(KeyspaceId(1), &key, key_hash(&key), SequenceNumber(step), ValueKind::Put, b"v")
            .unwrap();
    }
    let mut iterator = memtable.iter(KeyspaceId(1));
    iterator.seek_to_first().unwrap();
    let mut count = 0;
    let mut last = Vec::new();
    while iterator.valid() {
        assert!(count == 0 || last.as_slice() < iterator.key(), "seed {seed}");
        last = iterator.key().to_vec();
        count += 1;
        iterator.next().unwrap();
    }
    assert_eq!(count, 100, "seed {seed}");
}

#[test]
fn agrees_with_the_model() {
    let (from, count) = match std::env::var("SAPWOOD_SEED") {
        Ok(seed) => (seed.parse().expect("SAPWOOD_SEED is a number"), 1),
        Err(_) => (0, 45),
    };
    for seed in from..from + count {
        run(seed);
    }
}
