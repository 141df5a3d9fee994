//! The merge loop: 4 sorted inputs, 400,000 entries of 16 + 100 bytes together, per entry.
//!
//! Floors, measured with small probes on 2 cores of a cloud VM: 19 ns for the bare loop, 76 ns with
//! block building, checksum and filter. RocksDB's own figure for a whole compaction is 413 ns on
//! another machine.
#![allow(missing_docs, reason = "criterion's macros make undocumented functions")]
#![allow(clippy::disallowed_methods, reason = "benchmarks take files from the system")]
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sapwood_base::iterator::InternalIterator;
use sapwood_base::iterator::merging::MergingIterator;
use sapwood_base::{FileNumber, KeyspaceId, Result, SequenceNumber, ValueKind};
use sapwood_sstable::{Table, TableBuilder, TableOptions};
use sapwood_storage::{BufferCache, Env, OpenMode};
use std::path::Path;
use std::sync::Arc;

const ENTRIES: usize = 400_000;
const INPUTS: usize = 4;
const VALUE: [u8; 100] = [7; 100];

/// Entries of a slice: the cheapest possible input, so that the figure is that of the loop itself.
struct Entries<'a> {
    keys: &'a [[u8; 16]],
    /// `keys.len()` before the first and after the last.
    at: usize,
}

impl InternalIterator for Entries<'_> {
    fn valid(&self) -> bool {
        self.at < self.keys.len()
    }
    fn seek_to_first(&mut self) -> Result<()> {
        self.at = 0;
        Ok(())
    }
    fn seek_to_last(&mut self) -> Result<()> {
        self.at = self.keys.len().wrapping_sub(1);
        Ok(())
    }
    fn seek(&mut self, target: &[u8]) -> Result<()> {
        self.at = self.keys.partition_point(|key| &key[..] < target);
        Ok(())
    }
    fn seek_before(&mut self, target: &[u8]) -> Result<()> {
        self.at = self.keys.partition_point(|key| &key[..] < target).wrapping_sub(1);
        Ok(())
    }
    fn next(&mut self) -> Result<()> {
        self.at += 1;
        Ok(())
    }
    fn prev(&mut self) -> Result<()> {
        self.at = self.at.wrapping_sub(1);
        Ok(())
    }
    fn key(&self) -> &[u8] {
        &self.keys[self.at]
    }
    fn sequence(&self) -> SequenceNumber {
        SequenceNumber(1)
    }
    fn kind(&self) -> ValueKind {
        ValueKind::Put
    }
    fn value(&self) -> &[u8] {
        &VALUE
    }
}

/// Sorted keys, distributed over the inputs at random.
fn inputs() -> Vec<Vec<[u8; 16]>> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut inputs = vec![Vec::new(); INPUTS];
    for _ in 0..ENTRIES {
        inputs[random.usize(..INPUTS)].push(random.u128(..).to_be_bytes());
    }
    inputs.iter_mut().for_each(|keys| keys.sort_unstable());
    inputs
}

/// Builds a table of the entries of `from`; returns their number.
fn build(folder: &Path, number: u64, from: &mut impl InternalIterator) -> u64 {
    let path = folder.join(number.to_string());
    let _ = std::fs::remove_file(&path);
    let file = Env::os().fs().create_new(&path).expect("a new file");
    let mut builder = TableBuilder::new(file, FileNumber(number), KeyspaceId(1), &TableOptions::default());
    let mut entries = 0;
    from.seek_to_first().expect("no damage");
    while from.valid() {
        builder
            .add(from.key(), None, from.sequence(), from.kind(), from.value())
            .expect("space on the device");
        entries += 1;
        from.next().expect("no damage");
    }
    builder.finish().expect("space on the device");
    entries
}

fn walk(iterator: &mut impl InternalIterator) -> u64 {
    let mut sum = 0;
    iterator.seek_to_first().expect("no damage");
    while iterator.valid() {
        sum += u64::from(iterator.key()[15]);
        iterator.next().expect("no damage");
    }
    sum
}

fn merge(criterion: &mut Criterion) {
    let inputs = inputs();
    let slices = || MergingIterator::new(inputs.iter().map(|keys| Entries { keys, at: 0 }).collect());
    let mut group = criterion.benchmark_group("merge 4 inputs");
    group.sample_size(10);
    group.throughput(Throughput::Elements(ENTRIES as u64));
    group.bench_function("bare loop (floor 19 ns)", |bencher| bencher.iter(|| walk(&mut slices())));

    let folder = tempfile::tempdir().expect("a folder");
    let cache = BufferCache::new(256 << 20).expect("memory");
    let tables: Vec<Arc<Table>> = inputs
        .iter()
        .zip(1..)
        .map(|(keys, number)| {
            build(folder.path(), number, &mut Entries { keys, at: 0 });
            let path = folder.path().join(number.to_string());
            let file = Env::os().fs().open(&path, OpenMode::Read).expect("the file is there");
            Table::open(file, FileNumber(number), &cache).expect("no damage")
        })
        .collect();
    let scanners = || MergingIterator::new(tables.iter().map(Table::scan).collect());
    group.bench_function("tables, read only", |bencher| bencher.iter(|| walk(&mut scanners())));
    group.bench_function("tables into a table (floor 76 ns without input)", |bencher| {
        bencher.iter(|| assert_eq!(build(folder.path(), 9, &mut scanners()), ENTRIES as u64));
    });
    group.finish();
}

criterion_group!(benches, merge);
criterion_main!(benches);
