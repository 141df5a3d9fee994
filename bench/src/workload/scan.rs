//! Benchmarks that iterate and seek.
use super::{Worker, throttle_reads};
use crate::engine::Cursor;
use crate::flags::Flags;
use crate::report::{Operation, Stats};
use sapwood_base::Result;
use sapwood_bench::keys::{KeyBuffer, Order, ReadKeys};

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

/// Reads the key and the value of the current entry, without further use.
#[inline]
fn touch_entry(cursor: &Cursor, stats: &mut Stats) {
    let (key, value) = (std::hint::black_box(cursor.key()), std::hint::black_box(cursor.value()));
    stats.add_bytes((key.len() + value.len()) as u64);
}

/// The same, counted as an operation.
#[inline]
fn count_entry(cursor: &Cursor, stats: &mut Stats) {
    touch_entry(cursor, stats);
    stats.finish_operations(1, Operation::Read);
}

/// Reads up to `length` entries from the cursor's position, as a part of an operation; returns
/// their number.
fn read_entries(cursor: &mut Cursor, length: u64, stats: &mut Stats) -> Result<u64> {
    let mut entries = 0;
    while entries < length && cursor.valid() {
        touch_entry(cursor, stats);
        entries += 1;
        cursor.next()?;
    }
    Ok(entries)
}

/// seekrandom.
pub fn seek_random(worker: &mut Worker<'_>) -> Result<()> {
    let keys = worker.read_keys();
    seeks(worker, |random, _| keys.next(random))
}

/// seekordered: random steps upwards; the first key follows the last.
pub fn seek_ordered(worker: &mut Worker<'_>) -> Result<()> {
    let num = worker.parameters.num;
    let steps = ReadKeys::new(100.min(num), 0.0);
    seeks(worker, |random, last| (last + steps.next(random)) % num)
}

/// Seeks to the keys of `next_key`, which receives the previous number.
fn seeks(worker: &mut Worker<'_>, next_key: impl Fn(&mut fastrand::Rng, u64) -> u64) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.reads);
    let nexts = worker.flags.seek_nexts;
    let (deletes, mode) = (worker.flags.seek_nexts_to_delete, worker.parameters.mode);
    let num = worker.parameters.num;
    let Worker { engine, flags, shared, random, keys, stats, .. } = worker;
    let mut end = End::new(flags, keys);
    let mut kept = if flags.reuse_iterator { Some(engine.cursor()?) } else { None };
    let (mut found, mut reads, mut number) = (0, 0, 0);
    let mut copy = [0u8; 256];
    while limit.allows(1, stats) {
        number = next_key(random, number);
        let key = keys.make(number);
        // As in RocksDB's, each seek has its own iterator unless one is kept.
        let mut fresh = None;
        let cursor = match &mut kept {
            Some(cursor) => cursor,
            None => fresh.insert(engine.cursor()?),
        };
        throttle_reads(shared, reads);
        reads += 1;
        cursor.seek(key)?;
        found += u64::from(cursor.valid() && cursor.key() == key);
        end.set(number, num);
        for _ in 0..nexts {
            if !cursor.valid() || end.reached(key, cursor.key()) {
                break;
            }
            // The copy ensures that the value is read.
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
        for _ in 0..deletes {
            if !cursor.valid() || end.reached(key, cursor.key()) {
                break;
            }
            stats.add_written(cursor.key().len() as u64);
            engine.delete(cursor.key(), mode)?;
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

/// The end of the steps after a seek: `--max_scan_distance` and `--prefix_same_as_start`.
struct End {
    /// The maximum distance of numbers; 0: unlimited.
    distance: u64,
    backward: bool,
    bound: KeyBuffer,
    prefix_size: usize,
}

impl End {
    fn new(flags: &Flags, keys: &KeyBuffer) -> End {
        End {
            distance: flags.max_scan_distance as u64,
            backward: flags.reverse_iterator,
            bound: keys.clone(),
            prefix_size: if flags.prefix_same_as_start { flags.prefix_size as usize } else { 0 },
        }
    }

    /// Begins a seek to `number`, of the numbers below `num`.
    #[inline]
    fn set(&mut self, number: u64, num: u64) {
        if self.distance > 0 {
            let bound = match self.backward {
                true => number.saturating_sub(self.distance),
                false => number.saturating_add(self.distance).min(num),
            };
            self.bound.make(bound);
        }
    }

    /// Whether `key` is beyond the end of a seek to `start`. A scan excludes its upper bound and
    /// includes its lower one.
    #[inline]
    fn reached(&self, start: &[u8], key: &[u8]) -> bool {
        (self.distance > 0
            && if self.backward { key < self.bound.as_ref() } else { key >= self.bound.as_ref() })
            || (self.prefix_size > 0 && !key.starts_with(&start[..self.prefix_size]))
    }
}

/// multiscan: ranges at equal distances, in order, read with one iterator and counted as one
/// operation.
pub fn multi(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.reads);
    let (ranges, stride) = (worker.flags.multiscan_size as u64, worker.flags.multiscan_stride as u64);
    let length = match worker.flags.seek_nexts {
        nexts @ 1.. => nexts as u64,
        _ => 50,
    };
    // If there are enough keys, the last range ends before their end.
    let starts = worker.parameters.num.saturating_sub((ranges - 1) * stride + length).max(1);
    let Worker { engine, random, keys, stats, .. } = worker;
    let (mut scans, mut entries) = (0, 0);
    while limit.allows(1, stats) {
        let first = random.u64(..starts);
        let mut cursor = engine.cursor()?;
        for range in 0..ranges {
            cursor.seek(keys.make(first + range * stride))?;
            entries += read_entries(&mut cursor, length, stats)?;
        }
        scans += 1;
        stats.finish_operations(1, Operation::Scan);
    }
    stats.set_tally(&[scans, entries], |n| format!("(multiscans:{} entries:{})", n[0], n[1]));
    Ok(())
}

/// multiscanrandom: ranges at random positions, of random length, in order and without overlaps,
/// read with one iterator and counted as one operation. A range has at most a mebibyte.
pub fn multi_random(worker: &mut Worker<'_>) -> Result<()> {
    const LARGEST_RANGE_BYTES: u64 = 1 << 20;
    let mut limit = worker.limit(worker.parameters.reads);
    let num = worker.parameters.num;
    let entry_bytes = worker.parameters.key_size as u64 + worker.parameters.value_size;
    let longest = match worker.flags.seek_nexts {
        nexts @ 1.. => nexts as u64,
        _ => 100,
    };
    let longest = longest.min(LARGEST_RANGE_BYTES / entry_bytes).max(1);
    let most_ranges = worker.flags.multiscan_size as u64;
    let Worker { engine, random, keys, stats, .. } = worker;
    let mut starts = Vec::new();
    let (mut scans, mut ranges, mut entries) = (0, 0, 0);
    while limit.allows(1, stats) {
        starts.clear();
        starts.extend((0..random.u64(1..=most_ranges)).map(|_| random.u64(..num)));
        starts.sort_unstable();
        starts.dedup();
        let mut cursor = engine.cursor()?;
        for (at, &start) in starts.iter().enumerate() {
            let next = starts.get(at + 1).copied().unwrap_or(num);
            let length = random.u64(1..=longest).min(next - start);
            cursor.seek(keys.make(start))?;
            entries += read_entries(&mut cursor, length, stats)?;
            ranges += 1;
        }
        scans += 1;
        stats.finish_operations(1, Operation::Scan);
    }
    stats.set_tally(&[scans, ranges, entries], |n| {
        format!("(multiscans:{} ranges:{} entries:{})", n[0], n[1], n[2])
    });
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
