//! Benchmarks that iterate and seek.
use super::{Worker, throttle_reads};
use crate::engine::Cursor;
use crate::report::{Operation, Stats};
use sapwood_base::Result;
use sapwood_bench::keys::{Order, ReadKeys};

/// readseq.
pub fn forward(worker: &mut Worker<'_>) -> Result<()> {
    let Worker { engine, parameters, shared, stats, .. } = worker;
    let mut cursor = engine.cursor()?;
    cursor.seek_to_first()?;
    let mut reads = 0;
    while reads < parameters.reads && cursor.valid() {
        count_entry(&cursor, stats);
        throttle_reads(shared, reads);
        reads += 1;
        cursor.next()?;
    }
    Ok(())
}

/// readreverse.
pub fn backward(worker: &mut Worker<'_>) -> Result<()> {
    let Worker { engine, parameters, shared, stats, .. } = worker;
    let mut cursor = engine.cursor()?;
    cursor.seek_to_last()?;
    let mut reads = 0;
    while reads < parameters.reads && cursor.valid() {
        count_entry(&cursor, stats);
        throttle_reads(shared, reads);
        reads += 1;
        cursor.prev()?;
    }
    Ok(())
}

/// The entry under the cursor is read: its key and its value are there, whether they are looked at or not.
#[inline]
fn count_entry(cursor: &Cursor, stats: &mut Stats) {
    let (key, value) = (std::hint::black_box(cursor.key()), std::hint::black_box(cursor.value()));
    stats.add_bytes((key.len() + value.len()) as u64);
    stats.finish_operations(1, Operation::Read);
}

/// seekrandom.
pub fn seek_random(worker: &mut Worker<'_>) -> Result<()> {
    let keys = worker.read_keys();
    seeks(worker, |random, _| keys.next(random))
}

/// seekordered: random steps upwards, from the first key again after the last.
pub fn seek_ordered(worker: &mut Worker<'_>) -> Result<()> {
    let num = worker.parameters.num;
    let steps = ReadKeys::new(100.min(num), 0.0);
    seeks(worker, |random, last| (last + steps.next(random)) % num)
}

/// Seeks to the keys that `next_key` names, given the last one.
fn seeks(worker: &mut Worker<'_>, next_key: impl Fn(&mut fastrand::Rng, u64) -> u64) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.reads);
    let nexts = worker.flags.seek_nexts;
    let Worker { engine, flags, shared, random, keys, stats, .. } = worker;
    let mut kept = if flags.reuse_iterator { Some(engine.cursor()?) } else { None };
    let (mut found, mut reads, mut number) = (0, 0, 0);
    let mut copy = [0u8; 256];
    while limit.allows(1, stats) {
        number = next_key(random, number);
        let key = keys.make(number);
        // As in RocksDB's, a seek has an iterator of its own unless one is kept.
        let mut fresh = None;
        let cursor = match &mut kept {
            Some(cursor) => cursor,
            None => fresh.insert(engine.cursor()?),
        };
        throttle_reads(shared, reads);
        reads += 1;
        cursor.seek(key)?;
        found += u64::from(cursor.valid() && cursor.key() == key);
        for _ in 0..nexts {
            if !cursor.valid() {
                break;
            }
            // The value is copied, so that it is really read.
            let value = cursor.value();
            let length = value.len().min(copy.len());
            copy[..length].copy_from_slice(&value[..length]);
            std::hint::black_box(&copy);
            stats.add_bytes((cursor.key().len() + value.len()) as u64);
            if flags.reverse_iterator {
                cursor.prev()?;
            } else {
                cursor.next()?;
            }
        }
        stats.finish_operations(1, Operation::Seek);
    }
    stats.set_found(found, reads);
    Ok(())
}

/// multiscan: ranges at equal distances, behind each other, read with one iterator and counted as one operation.
pub fn multi(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.reads);
    let (ranges, stride) = (worker.flags.multiscan_size as u64, worker.flags.multiscan_stride as u64);
    let length = match worker.flags.seek_nexts {
        nexts @ 1.. => nexts as u64,
        _ => 50,
    };
    // The last range ends where the keys end, if there are as many.
    let starts = worker.parameters.num.saturating_sub((ranges - 1) * stride + length).max(1);
    let Worker { engine, random, keys, stats, .. } = worker;
    let (mut scans, mut entries) = (0, 0);
    while limit.allows(1, stats) {
        let first = random.u64(..starts);
        let mut cursor = engine.cursor()?;
        for range in 0..ranges {
            cursor.seek(keys.make(first + range * stride))?;
            for _ in 0..length {
                if !cursor.valid() {
                    break;
                }
                let (key, value) = (std::hint::black_box(cursor.key()), std::hint::black_box(cursor.value()));
                stats.add_bytes((key.len() + value.len()) as u64);
                entries += 1;
                cursor.next()?;
            }
        }
        scans += 1;
        stats.finish_operations(1, Operation::Scan);
    }
    stats.set_tally(&[scans, entries], |n| format!("(multiscans:{} entries:{})", n[0], n[1]));
    Ok(())
}

/// newiterator.
pub fn new_iterator(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.num);
    let Worker { engine, stats, .. } = worker;
    while limit.allows(1, stats) {
        drop(std::hint::black_box(engine.cursor()?));
        stats.finish_operations(1, Operation::Other);
    }
    Ok(())
}

/// fillseekseq: fills in order, then seeks to every key with one iterator.
pub fn fill_seek_sequential(worker: &mut Worker<'_>) -> Result<()> {
    super::fill::sequential(worker)?;
    let mut numbers = worker.numbers(Order::Sequential);
    let Worker { engine, parameters, random, keys, stats, .. } = worker;
    let mut cursor = engine.cursor()?;
    let mut found = 0;
    for _ in 0..parameters.writes {
        let key = keys.make(numbers.next(random));
        cursor.seek(key)?;
        found += u64::from(cursor.valid() && cursor.key() == key);
        stats.finish_operations(1, Operation::Seek);
    }
    stats.set_found(found, parameters.writes);
    Ok(())
}
