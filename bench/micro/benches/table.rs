//! Speed of tables in memory: building, lookups, seeks, steps, filters. Keys of 16 bytes, values of
//! 100.
//!
//! Floors, measured with small probes on 2 cores of a cloud VM:
//!
//! | operation | ns |
//! |---|---:|
//! | cached point read of one table, index and block together | 130 to 250 |
//! | the same with restart points | 880 to 1350 |
//! | entry of a sequential scan (memory bandwidth) | 16 |
//! | entry of a merge with block building, checksum and filter | 76 |
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::disallowed_methods, reason = "benchmarks take files from the system")]
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use sapwood_base::iterator::InternalIterator;
use sapwood_base::key::key_hash;
use sapwood_base::{FileNumber, KeyspaceId, Lookup, Result, SequenceNumber, ValueKind};
use sapwood_sstable::filter::Filter;
use sapwood_sstable::{Codec, FilterKind, ReadOptions, Table, TableBuilder, TableOptions};
use sapwood_storage::{BufferCache, File};
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Mutex};

const ENTRIES: u64 = 400_000;

/// A file in memory, so that the file system is not measured.
#[derive(Clone, Default)]
struct MemoryFile(Arc<Mutex<Vec<u8>>>);

impl File for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let bytes = self.0.lock().unwrap();
        let from = bytes.get(offset as usize..).unwrap_or(&[]);
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }
    fn write_at(&self, offset: u64, new: &[u8]) -> Result<()> {
        let mut bytes = self.0.lock().unwrap();
        bytes.truncate(offset as usize);
        bytes.extend_from_slice(new);
        Ok(())
    }
    fn sync_data(&self) -> Result<()> {
        Ok(())
    }
    fn sync_all(&self) -> Result<()> {
        Ok(())
    }
    fn set_len(&self, _len: u64) -> Result<()> {
        Ok(())
    }
    fn len(&self) -> Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
    fn path(&self) -> &Path {
        Path::new("memory")
    }
}

fn keys() -> Vec<[u8; 16]> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut keys: Vec<[u8; 16]> = (0..ENTRIES).map(|_| random.u128(..).to_be_bytes()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn values() -> Vec<u8> {
    // Half of it compressible.
    let mut random = fastrand::Rng::with_seed(2);
    (0..1 << 16).map(|i| if i / 50 % 2 == 0 { random.u8(..) } else { b'x' }).collect()
}

fn build(file: &MemoryFile, keys: &[[u8; 16]], values: &[u8], options: &TableOptions) {
    let mut builder = TableBuilder::new(Box::new(file.clone()), FileNumber(1), KeyspaceId(1), options);
    for (i, key) in keys.iter().enumerate() {
        let at = i * 37 % (values.len() - 100);
        // Scattered sequence numbers, as in a flush.
        let sequence = SequenceNumber((i as u64).wrapping_mul(0x9E37_79B9) & 0xFF_FFFF);
        builder.add(key, sequence, ValueKind::Put, &values[at..at + 100]).unwrap();
    }
    builder.finish().unwrap();
}

fn open(options: &TableOptions, keys: &[[u8; 16]], values: &[u8]) -> Arc<Table> {
    let file = MemoryFile::default();
    build(&file, keys, values, options);
    let cache = BufferCache::new(256 << 20).unwrap();
    let table = Table::open(Box::new(file), FileNumber(1), &cache).unwrap();
    let mut warm = table.iter(ReadOptions::default());
    warm.seek_to_first().unwrap();
    while warm.valid() {
        warm.next().unwrap();
    }
    let guard = crossbeam_epoch::pin();
    for key in keys {
        table.get(Lookup::new(key, SequenceNumber::MAX), &guard).unwrap().unwrap();
    }
    table
}

fn builder(criterion: &mut Criterion) {
    let (keys, values) = (keys(), values());
    let mut group = criterion.benchmark_group("build");
    group.sample_size(10);
    group.throughput(Throughput::Elements(keys.len() as u64));
    for (name, codec) in [("none", Codec::None), ("lz4", Codec::Lz4), ("zstd1", Codec::Zstd(1))] {
        let options = TableOptions { codec, ..TableOptions::default() };
        let file = MemoryFile::default();
        build(&file, &keys, &values, &options);
        group.bench_function(name, |bencher| bencher.iter(|| build(&file, &keys, &values, &options)));
    }
    let options = TableOptions { filter: FilterKind::None, ..TableOptions::default() };
    let file = MemoryFile::default();
    group.bench_function("no filter", |bencher| bencher.iter(|| build(&file, &keys, &values, &options)));
}

fn reader(criterion: &mut Criterion) {
    let (keys, values) = (keys(), values());
    let table = open(&TableOptions::default(), &keys, &values);
    let mut random = fastrand::Rng::with_seed(3);
    let few: Vec<usize> = (0..200).map(|_| random.usize(0..keys.len())).collect();
    for (name, chosen) in [("hot", Some(&few)), ("random", None)] {
        let mut pick = {
            let mut random = random.fork();
            let chosen = chosen.cloned();
            let keys = keys.clone();
            move || match &chosen {
                Some(chosen) => keys[chosen[random.usize(0..chosen.len())]],
                None => keys[random.usize(0..keys.len())],
            }
        };
        let mut group = criterion.benchmark_group(name);
        group.bench_function("pick and hash", |bencher| {
            bencher.iter(|| {
                let key = pick();
                (key_hash(&key), key)
            });
        });
        group.bench_function("get: index and block search (floor 130 ns)", |bencher| {
            bencher.iter(|| {
                let key = pick();
                let guard = crossbeam_epoch::pin();
                let found = table.get(Lookup::new(&key, SequenceNumber::MAX), &guard).unwrap().unwrap();
                found.value[0]
            });
        });
        group.bench_function("filter and get", |bencher| {
            bencher.iter(|| {
                let key = pick();
                let hash = key_hash(&key);
                let guard = crossbeam_epoch::pin();
                assert!(table.may_contain(hash));
                let found = table.get(Lookup { key: &key, hash, sequence: SequenceNumber::MAX }, &guard).unwrap().unwrap();
                found.value[0]
            });
        });
        // The key after an existing one: the same search, which ends without a value.
        group.bench_function("get of an absent key, without the filter", |bencher| {
            bencher.iter(|| {
                let key = (u128::from_be_bytes(pick()) ^ 1).to_be_bytes();
                let guard = crossbeam_epoch::pin();
                table.get(Lookup::new(&key, SequenceNumber::MAX), &guard).unwrap().is_none()
            });
        });
        let mut iterator = table.iter(ReadOptions::default());
        group.bench_function("seek", |bencher| {
            bencher.iter(|| {
                iterator.seek(&pick()).unwrap();
                iterator.value()[0]
            });
        });
    }
    let mut group = criterion.benchmark_group("all entries");
    group.sample_size(20);
    group.throughput(Throughput::Elements(keys.len() as u64));
    let mut iterator = table.iter(ReadOptions::default());
    group.bench_function("iterator next (floor 16 ns)", |bencher| bencher.iter(|| walk(&mut iterator)));
    group.bench_function("iterator prev", |bencher| {
        bencher.iter(|| {
            let mut sum = 0u64;
            iterator.seek_to_last().unwrap();
            while iterator.valid() {
                sum += u64::from(iterator.key()[15]) + u64::from(iterator.value()[0]);
                iterator.prev().unwrap();
            }
            sum
        });
    });
    let mut scanner = table.scan();
    group.bench_function("scanner next (floor 16 ns)", |bencher| bencher.iter(|| walk(&mut scanner)));
}

fn walk(iterator: &mut impl InternalIterator) -> u64 {
    let mut sum = 0u64;
    iterator.seek_to_first().unwrap();
    while iterator.valid() {
        sum += u64::from(iterator.key()[15]) + u64::from(iterator.value()[0]);
        iterator.next().unwrap();
    }
    sum
}

fn filters(criterion: &mut Criterion) {
    let mut random = fastrand::Rng::with_seed(4);
    let hashes: Vec<u64> = (0..1_000_000).map(|_| random.u64(..)).collect();
    for (name, kind) in [("blocked", FilterKind::Blocked), ("standard", FilterKind::Standard)] {
        let filter = Filter::build(kind, 10.0, &hashes).unwrap();
        let mut group = criterion.benchmark_group(format!("filter {name}"));
        group.bench_function("absent", |bencher| bencher.iter(|| filter.may_contain(random.u64(..))));
        group.bench_function("present", |bencher| {
            bencher.iter(|| filter.may_contain(hashes[random.usize(0..hashes.len())]));
        });
        group.sample_size(10);
        group.throughput(Throughput::Elements(hashes.len() as u64));
        group.bench_function("build", |bencher| {
            bencher.iter_batched(
                || (),
                |()| black_box(Filter::build(kind, 10.0, &hashes).unwrap()),
                BatchSize::LargeInput,
            );
        });
    }
}

criterion_group!(benches, builder, reader, filters);
criterion_main!(benches);
