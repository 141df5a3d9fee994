//! Benchmarks that read single keys.
//!
//! Values are read without a copy, like the pinned reads of RocksDB's `db_bench`.
use super::{Worker, throttle_reads};
use crate::limit::Limit;
use crate::report::Operation;
use sapwood_base::Result;
use sapwood_bench::keys::ReadKeys;

/// readrandom; readmissing with keys of one more byte.
///
/// Such a key is an existing key plus one '0'. It sorts immediately after the existing key, inside
/// the range of keys, and was never written. Only a filter or a search in a block can exclude it.
pub fn random(worker: &mut Worker<'_>) -> Result<()> {
    let keys = worker.read_keys();
    point_reads(worker, keys)
}

/// readhot.
pub fn hot(worker: &mut Worker<'_>) -> Result<()> {
    let hundredth = worker.parameters.num.div_ceil(100);
    point_reads(worker, ReadKeys::new(hundredth, 0.0))
}

/// Point reads of random keys, also for the mixed benchmarks.
pub fn point_reads(worker: &mut Worker<'_>, read_keys: ReadKeys) -> Result<()> {
    let limit = worker.limit(worker.parameters.reads);
    read_each(worker, limit, |random, _| read_keys.next(random))
}

/// readtocache, readtorowcache.
pub fn in_order(worker: &mut Worker<'_>) -> Result<()> {
    let limit = worker.count_limit(worker.parameters.num);
    read_each(worker, limit, |_, reads| reads)
}

/// Reads the keys of `next_key`, which receives the number of reads so far.
fn read_each(
    worker: &mut Worker<'_>,
    mut limit: Limit<'_>,
    next_key: impl Fn(&mut fastrand::Rng, u64) -> u64,
) -> Result<()> {
    let Worker { engine, shared, random, keys, stats, .. } = worker;
    let (mut found, mut reads) = (0, 0);
    while limit.allows(1, stats) {
        let key = keys.make(next_key(random, reads));
        throttle_reads(shared, reads);
        reads += 1;
        if let Some(size) = engine.get(key, |value| std::hint::black_box(value).len())? {
            found += 1;
            stats.add_bytes((key.len() + size) as u64);
        }
        stats.finish_operations(1, Operation::Read);
    }
    stats.set_found(found, reads);
    Ok(())
}

/// readrandomfast: keys are drawn with a mask instead of a division, and operations are counted by
/// the hundred. Keys beyond num do not exist.
pub fn random_fast(worker: &mut Worker<'_>) -> Result<()> {
    const GROUP: u64 = 100;
    let mut limit = worker.limit(worker.parameters.reads.max(GROUP));
    let num = worker.parameters.num;
    let mask = num.next_power_of_two() - 1;
    let Worker { engine, shared, random, keys, stats, .. } = worker;
    let (mut found, mut reads, mut absent) = (0, 0, 0);
    while limit.allows(GROUP, stats) {
        for _ in 0..GROUP {
            let number = random.u64(..) & mask;
            absent += u64::from(number >= num);
            let key = keys.make(number);
            found += u64::from(engine.get(key, |value| std::hint::black_box(value).len())?.is_some());
        }
        if let Some(limiter) = &shared.read_rate {
            limiter.request(GROUP);
        }
        reads += GROUP;
        stats.finish_operations(GROUP, Operation::Read);
    }
    stats.set_tally(&[found, reads, absent], |n| {
        format!("({} of {} found, issued {} non-exist keys)", n[0], n[1], n[2])
    });
    Ok(())
}

/// approximatesizerandom.
pub fn approximate_size(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.reads);
    let num = worker.parameters.num;
    let Worker { engine, random, keys, stats, .. } = worker;
    let mut upper = keys.clone();
    let (mut estimates, mut sum) = (0, 0);
    while limit.allows(1, stats) {
        let (a, b) = (random.u64(..num), random.u64(..num));
        sum += engine.approximate_size(keys.make(a.min(b)), upper.make(a.max(b)))?;
        estimates += 1;
        stats.finish_operations(1, Operation::Other);
    }
    stats.set_tally(&[estimates, sum], |n| format!("(average size: {})", n[1] / n[0].max(1)));
    let memtable_bytes = engine.memtable_bytes();
    if memtable_bytes > 0 {
        stats
            .set_message(format!("({memtable_bytes} bytes in memtables are not counted; flush writes them)"));
    }
    Ok(())
}

/// multireadrandom.
pub fn multi(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.reads);
    let read_keys = worker.read_keys();
    let num = worker.parameters.num;
    let stride = u64::try_from(worker.flags.multiread_stride).unwrap_or(0);
    let batch_size = worker.parameters.batch_size;
    let Worker { engine, shared, random, keys, stats, .. } = worker;
    let mut batch: Vec<_> = (0..batch_size).map(|_| keys.clone()).collect();
    let (mut found, mut reads) = (0, 0);
    while limit.allows(batch_size, stats) {
        if stride == 0 {
            batch.iter_mut().for_each(|key| {
                key.make(read_keys.next(random));
            });
        } else {
            let first = read_keys.next(random);
            (0u64..).zip(&mut batch).for_each(|(step, key)| {
                key.make((first + step * stride) % num);
            });
        }
        if let Some(limiter) = &shared.read_rate {
            limiter.request(batch_size);
        }
        reads += batch_size;
        let (hits, bytes) = engine.multi_get(&batch)?;
        found += hits;
        stats.add_bytes(bytes);
        stats.finish_operations(batch_size, Operation::Read);
    }
    stats.set_found(found, reads);
    Ok(())
}
