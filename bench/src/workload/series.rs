//! timeseries: one thread appends entries to random series while the others read whole series or
//! delete old entries.
//!
//! A key is the number of the series and the time, eight big-endian bytes each; the time is the
//! number of writes so far. A reader seeks to the first entry of a series and reads all of it.
//! Times must ascend within a series.
use super::{Worker, throttle_writes, wrong};
use crate::report::Operation;
use sapwood_base::Result;
use std::sync::atomic::Ordering;

/// timeseries.
pub fn run(worker: &mut Worker<'_>) -> Result<()> {
    let deletes =
        worker.flags.expire_style == "delete" && worker.thread as i64 <= worker.flags.num_deletion_threads;
    match worker.thread {
        0 => write(worker),
        _ => read_or_delete(worker, deletes),
    }
}

/// The time in the key of an entry; the number of the series precedes it.
fn time_of(key: &[u8]) -> Option<u64> {
    key.get(8..)?.first_chunk().map(|time| u64::from_be_bytes(*time))
}

/// Appends until the other threads end.
fn write(worker: &mut Worker<'_>) -> Result<()> {
    let mode = worker.parameters.mode;
    let series = worker.flags.key_id_range as u64;
    let Worker { engine, parameters, shared, random, values, stats, .. } = worker;
    let mut key = vec![b'0'; parameters.key_size];
    while shared.foreground_works() {
        // Relaxed: readers need no order between the time and the entries.
        let now = shared.clock.fetch_add(1, Ordering::Relaxed);
        key[..8].copy_from_slice(&random.u64(..series).to_be_bytes());
        key[8..16].copy_from_slice(&now.to_be_bytes());
        let value = values.next_value();
        let bytes = (key.len() + value.len()) as u64;
        throttle_writes(shared, stats, bytes);
        engine.put(&key, value, mode)?;
        stats.add_bytes(bytes);
        stats.finish_operations(1, Operation::Write);
    }
    stats.stop();
    crate::print(&stats.report("timeseries write"));
    stats.exclude();
    Ok(())
}

fn read_or_delete(worker: &mut Worker<'_>, deletes: bool) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.reads);
    let mode = worker.parameters.mode;
    let (series, range) = (worker.flags.key_id_range as u64, worker.flags.time_range as u64);
    let Worker { engine, parameters, shared, random, stats, .. } = worker;
    let mut key = vec![b'0'; parameters.key_size];
    let (mut found, mut reads, mut deleted) = (0, 0, 0);
    while limit.allows(1, stats) {
        let start = random.u64(..series).to_be_bytes();
        key[..8].copy_from_slice(&start);
        key[8..16].fill(0);
        let mut cursor = engine.cursor_of(&key)?;
        cursor.seek(&key)?;
        let (mut any, mut last) = (false, None);
        // Relaxed: an entry written concurrently is never old.
        let now = shared.clock.load(Ordering::Relaxed);
        while cursor.valid() && cursor.key().starts_with(&start) {
            any = true;
            let time = time_of(cursor.key());
            if time <= last {
                return Err(wrong(format!("time goes back in series {}", u64::from_be_bytes(start))));
            }
            last = time;
            if !deletes {
                stats.add_bytes((cursor.key().len() + std::hint::black_box(cursor.value()).len()) as u64);
            } else if time.is_some_and(|time| now.saturating_sub(time) > range) {
                stats.add_written(cursor.key().len() as u64);
                engine.delete(cursor.key(), mode)?;
                deleted += 1;
            } else {
                // All following entries are younger.
                break;
            }
            cursor.next()?;
        }
        reads += 1;
        found += u64::from(any);
        stats.finish_operations(1, if deletes { Operation::Delete } else { Operation::Seek });
    }
    stats.set_found(found, reads);
    if deletes {
        stats.set_tally(&[deleted], |n| format!("( deleted:{})", n[0]));
    }
    Ok(())
}
