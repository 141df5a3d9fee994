//! Inserts, lookups and scans of one generation, beside `crossbeam_skiplist`.
//!
//! The memtable is filled to 64 MB: 450,000 entries with keys of 16 bytes and values of 100 bytes.
//! Every figure is the time of one operation, averaged over a whole pass.
//!
//! Floors of a random insert, measured with small probes on 2 cores of a cloud VM:
//!
//! | structure | ns |
//! |---|---:|
//! | unrolled skiplist | 300 to 580 |
//! | `BTreeMap` of numbers | 350 to 440 |
//! | crossbeam's skiplist | 1500 to 2000 |
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock and starts real threads")]
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam_skiplist::SkipMap;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::key::key_hash;
use sapwood_base::{KeyspaceId, Lookup, SequenceNumber, ValueKind};
use sapwood_memtable::{ArenaPool, Memtable, MemtableOptions};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

const ENTRIES: u64 = 450_000;
const KEYSPACE: KeyspaceId = KeyspaceId(0);
const VALUE: [u8; 100] = [7; 100];

type Key = [u8; 16];
type Reference = SkipMap<(Box<[u8]>, u64), Box<[u8]>>;

#[derive(Clone, Copy)]
enum Order {
    Sequential,
    Random,
    /// Decimal keys whose first bytes are equal: the worst case for plain prefixes.
    Decimal,
}

const ORDERS: [(&str, Order); 3] =
    [("sequential", Order::Sequential), ("random", Order::Random), ("decimal", Order::Decimal)];

fn keys(order: Order) -> Vec<Key> {
    let mut random = fastrand::Rng::with_seed(42);
    let mut keys: Vec<Key> = (0..ENTRIES)
        .map(|i| match order {
            Order::Sequential => u128::from(i).rotate_left(64).to_be_bytes(),
            Order::Random => random.u128(..).to_be_bytes(),
            Order::Decimal => format!("{i:016}").into_bytes().try_into().expect("sixteen digits"),
        })
        .collect();
    if matches!(order, Order::Decimal) {
        random.shuffle(&mut keys);
    }
    keys
}

fn insert(memtable: &Memtable, key: &Key, sequence: u64) {
    memtable
        .insert(KEYSPACE, key, key_hash(key), SequenceNumber(sequence), ValueKind::Put, &VALUE)
        .expect("there is room");
}

/// A memtable with these keys. It learns prefixes from `previous`.
fn filled(pool: &Arc<ArenaPool>, keys: &[Key], previous: Option<&Arc<Memtable>>) -> Arc<Memtable> {
    let memtable = Memtable::new(0, pool.take().expect("memory"));
    if let Some(previous) = previous {
        memtable.expect_prefixes_of(previous).expect("there is room");
    }
    for (sequence, key) in keys.iter().enumerate() {
        insert(&memtable, key, sequence as u64);
    }
    memtable
}

fn filled_reference(keys: &[Key]) -> Reference {
    let map = Reference::new();
    for (sequence, key) in keys.iter().enumerate() {
        map.insert((key[..].into(), u64::MAX - sequence as u64), VALUE[..].into());
    }
    map
}

/// The time of one operation, from passes over all entries.
fn per_entry(passes: u64, mut pass: impl FnMut() -> Duration) -> Duration {
    let mut total = Duration::ZERO;
    // Criterion requests a number of operations. A pass has ENTRIES of them, so the time is scaled.
    let whole = passes.div_ceil(ENTRIES).max(1);
    for _ in 0..whole {
        total += pass();
    }
    total.mul_f64(passes as f64 / (whole * ENTRIES) as f64)
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn benchmark_insert(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("insert (floor, random: 300 ns)");
    group.throughput(Throughput::Elements(1));
    let pool = ArenaPool::new(MemtableOptions { size_bytes: 64 << 20 });
    pool.prepare(1).expect("memory");
    for (name, order) in ORDERS {
        let keys = keys(order);
        let learned = matches!(order, Order::Decimal).then(|| filled(&pool, &keys, None));
        let mut kinds = vec![("sapwood", None)];
        kinds.extend(learned.as_ref().map(|previous| ("sapwood, not the first memtable", Some(previous))));
        for (which, previous) in kinds {
            group.bench_function(BenchmarkId::new(which, name), |bencher| {
                bencher.iter_custom(|count| {
                    per_entry(count, || {
                        let mut memtable = None;
                        let time = timed(|| memtable = Some(filled(&pool, &keys, previous)));
                        drop(memtable);
                        time
                    })
                });
            });
        }
        group.bench_function(BenchmarkId::new("crossbeam", name), |bencher| {
            bencher.iter_custom(|count| {
                per_entry(count, || {
                    let mut map = None;
                    let time = timed(|| map = Some(filled_reference(&keys)));
                    drop(map);
                    time
                })
            });
        });
    }
    for threads in [1, 2] {
        let keys = keys(Order::Random);
        group.bench_function(BenchmarkId::new("sapwood random, threads", threads), |bencher| {
            bencher.iter_custom(|count| {
                per_entry(count, || {
                    let memtable = Memtable::new(0, pool.take().expect("memory"));
                    timed(|| {
                        std::thread::scope(|scope| {
                            for part in keys.chunks(keys.len().div_ceil(threads)) {
                                let memtable = &memtable;
                                scope.spawn(move || {
                                    for (sequence, key) in part.iter().enumerate() {
                                        insert(memtable, key, sequence as u64);
                                    }
                                });
                            }
                        });
                    })
                })
            });
        });
    }
    group.finish();
}

fn benchmark_get(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("get");
    group.throughput(Throughput::Elements(1));
    let pool = ArenaPool::new(MemtableOptions { size_bytes: 64 << 20 });
    for (name, order) in ORDERS {
        let inserted = keys(order);
        let previous = filled(&pool, &inserted, None);
        let memtable = filled(&pool, &inserted, Some(&previous));
        let reference = filled_reference(&inserted);
        let mut wanted = inserted;
        fastrand::Rng::with_seed(1).shuffle(&mut wanted);
        group.bench_function(BenchmarkId::new("sapwood hit", name), |bencher| {
            let mut next = wanted.iter().cycle();
            bencher.iter(|| {
                let key = next.next().expect("a cycle does not end");
                let found = memtable.get(KEYSPACE, Lookup::new(key, SequenceNumber::MAX));
                black_box(found.expect("the key is there").value[0])
            });
        });
        group.bench_function(BenchmarkId::new("crossbeam hit", name), |bencher| {
            let mut next = wanted.iter().cycle();
            bencher.iter(|| {
                let key = next.next().expect("a cycle does not end");
                let entry = reference.lower_bound(std::ops::Bound::Included(&(key[..].into(), 0)));
                black_box(entry.expect("the key is there").value()[0])
            });
        });
        if matches!(order, Order::Random) {
            let mut random = fastrand::Rng::with_seed(2);
            let absent: Vec<Key> = (0..ENTRIES).map(|_| random.u128(..).to_be_bytes()).collect();
            group.bench_function(BenchmarkId::new("sapwood miss", name), |bencher| {
                let mut next = absent.iter().cycle();
                bencher.iter(|| {
                    let key = next.next().expect("a cycle does not end");
                    black_box(memtable.get(KEYSPACE, Lookup::new(key, SequenceNumber::MAX)).is_some())
                });
            });
        }
    }
    group.finish();
}

fn benchmark_scan(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Elements(1));
    let pool = ArenaPool::new(MemtableOptions { size_bytes: 64 << 20 });
    for (name, order) in ORDERS {
        let memtable = filled(&pool, &keys(order), None);
        group.bench_function(BenchmarkId::new("sapwood next", name), |bencher| {
            let mut iterator = memtable.iter(KEYSPACE);
            bencher.iter_custom(|count| {
                per_entry(count, || {
                    timed(|| {
                        let mut sum = 0u64;
                        iterator.seek_to_first().expect("memory");
                        while iterator.valid() {
                            sum += u64::from(iterator.key()[15]) + u64::from(iterator.value()[99]);
                            iterator.next().expect("memory");
                        }
                        black_box(sum);
                    })
                })
            });
        });
        group.bench_function(BenchmarkId::new("sapwood prev", name), |bencher| {
            let mut iterator = memtable.iter(KEYSPACE);
            bencher.iter_custom(|count| {
                per_entry(count, || {
                    timed(|| {
                        let mut sum = 0u64;
                        iterator.seek_to_last().expect("memory");
                        while iterator.valid() {
                            sum += u64::from(iterator.key()[15]) + u64::from(iterator.value()[99]);
                            iterator.prev().expect("memory");
                        }
                        black_box(sum);
                    })
                })
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = benchmark_insert, benchmark_get, benchmark_scan
}
criterion_main!(benches);
