//! Benchmarks of a secondary index: 8 uniform bytes at the start of each value are its index key.
//!
//! Index keys are `num` different numbers with equal probability. The index of num writes has one
//! entry per number on average, so that a lookup finds about as much as a read of readrandom. A
//! lookup also reads the rows; an index-only scan does not.
use super::{Bench, Parameters, Worker, throttle_reads, throttle_writes};
use crate::report::Operation;
use sapwood_base::{Error, Result};
use sapwood_bench::zipfian::spread;

/// The bytes of a number at the start of a value.
const STAMP_BYTES: u64 = 8;
/// Entries of a range without `--seek_nexts`.
const RANGE_ENTRIES: i64 = 50;

/// The preparation of all: creates the index over the existing rows, unless it exists.
pub fn prepare(bench: &mut Bench, parameters: &Parameters) -> Result<()> {
    if parameters.value_size < STAMP_BYTES {
        return Err(Error::invalid_argument(format!(
            "an index needs values of at least {STAMP_BYTES} bytes"
        )));
    }
    bench.engine()?.create_index()
}

/// fillindexed, updateindexed. The latter moves the index key of almost every row that it writes.
pub fn write(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.writes);
    let (mode, num) = (worker.parameters.mode, worker.parameters.num);
    let Worker { engine, shared, random, keys, values, stats, .. } = worker;
    while limit.allows(1, stats) {
        let key = keys.make(random.u64(..num));
        let value = values.next_stamped(spread(random.u64(..num)));
        let bytes = (key.len() + value.len()) as u64;
        throttle_writes(shared, stats, bytes);
        engine.put(key, value, mode)?;
        stats.add_bytes(bytes);
        stats.finish_operations(1, Operation::Write);
    }
    Ok(())
}

/// indexlookup: all rows of a random index key.
pub fn lookup(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.reads);
    let num = worker.parameters.num;
    let Worker { engine, shared, random, stats, .. } = worker;
    let index = engine.index()?;
    let (mut found, mut reads) = (0, 0);
    while limit.allows(1, stats) {
        let index_key = spread(random.u64(..num)).to_be_bytes();
        throttle_reads(shared, reads);
        reads += 1;
        let rows = index.get_with(index_key, |primary_key, record| {
            stats.add_bytes((primary_key.len() + std::hint::black_box(record).len()) as u64);
        })?;
        found += u64::from(rows > 0);
        stats.finish_operations(1, Operation::Read);
    }
    stats.set_found(found, reads);
    Ok(())
}

/// indexrange: the rows of a number of entries, beginning at a random index key.
pub fn range(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.reads);
    let Worker { engine, flags, shared, random, stats, .. } = worker;
    let entries = match flags.seek_nexts {
        0 => RANGE_ENTRIES,
        entries => entries,
    };
    let index = engine.index()?;
    let (mut found, mut reads) = (0, 0);
    while limit.allows(1, stats) {
        let from = random.u64(..).to_be_bytes();
        throttle_reads(shared, reads);
        reads += 1;
        let mut rows = 0;
        for hit in index.range(from..).limit(entries as usize) {
            let hit = hit?;
            let record = hit.record()?;
            stats.add_bytes((hit.primary_key().len() + std::hint::black_box(&record).len()) as u64);
            rows += 1;
        }
        found += u64::from(rows > 0);
        stats.finish_operations(1, Operation::Seek);
    }
    stats.set_found(found, reads);
    Ok(())
}

/// indexonlyscan: index keys and primary keys of the first reads entries, without their rows.
pub fn scan(worker: &mut Worker<'_>) -> Result<()> {
    let Worker { engine, parameters, shared, stats, .. } = worker;
    let mut cursor = engine.index()?.cursor::<[u8; 8]>(..)?;
    cursor.seek_to_first()?;
    let mut reads = 0;
    while reads < parameters.reads && cursor.valid() {
        let (index_key, primary_key) = (cursor.index_key()?, cursor.primary_key());
        stats.add_bytes((std::hint::black_box(&index_key).len() + primary_key.len()) as u64);
        stats.finish_operations(1, Operation::Read);
        throttle_reads(shared, reads);
        reads += 1;
        cursor.next()?;
    }
    Ok(())
}

/// indexcount: the number of entries in random ranges, counted without reading them.
pub fn count(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.reads);
    let Worker { engine, shared, random, stats, .. } = worker;
    let index = engine.index()?;
    let mut reads = 0;
    while limit.allows(1, stats) {
        let (a, b) = (random.u64(..).to_be_bytes(), random.u64(..).to_be_bytes());
        throttle_reads(shared, reads);
        reads += 1;
        let count = index.count(a.min(b)..a.max(b))?;
        std::hint::black_box(count);
        stats.finish_operations(1, Operation::Read);
    }
    Ok(())
}
