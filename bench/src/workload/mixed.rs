//! Benchmarks that read and write at the same time, in one thread or beside a thread in the background.
use super::{Worker, read, scan, throttle_reads, throttle_writes};
use crate::report::Operation;
use sapwood_base::Result;
use sapwood_bench::keys::Order;

/// readwhilewriting.
pub fn read_while_writing(worker: &mut Worker<'_>) -> Result<()> {
    if worker.thread == 0 { write_in_background(worker) } else { read::random(worker) }
}

/// seekrandomwhilewriting.
pub fn seek_while_writing(worker: &mut Worker<'_>) -> Result<()> {
    if worker.thread == 0 { write_in_background(worker) } else { scan::seek_random(worker) }
}

/// readwhilescanning.
pub fn read_while_scanning(worker: &mut Worker<'_>) -> Result<()> {
    if worker.thread == 0 { scan_in_background(worker) } else { read::random(worker) }
}

/// Writes random keys until the other threads are done, at `--benchmark_write_rate_limit`.
fn write_in_background(worker: &mut Worker<'_>) -> Result<()> {
    let mut numbers = worker.numbers(Order::Random);
    let mode = worker.parameters.mode;
    let most = if worker.flags.finish_after_writes { worker.parameters.writes } else { u64::MAX };
    let Worker { engine, shared, random, keys, values, stats, .. } = worker;
    let mut written = 0;
    while written < most && shared.foreground_works() {
        let key = keys.make(numbers.next(random));
        let value = values.next_value();
        throttle_writes(shared, (key.len() + value.len()) as u64);
        engine.put(key, value, mode)?;
        written += 1;
        stats.finish_operations(1, Operation::Write);
    }
    stats.stop();
    let per_second = stats.operations_per_second();
    eprintln!("background writer: {written} writes, {per_second:.0} ops/sec");
    stats.exclude();
    Ok(())
}

/// Iterates over everything again and again until the other threads are done.
fn scan_in_background(worker: &mut Worker<'_>) -> Result<()> {
    let Worker { engine, shared, stats, .. } = worker;
    while shared.foreground_works() {
        let mut cursor = engine.cursor()?;
        cursor.seek_to_first()?;
        if !cursor.valid() {
            // Nothing to scan: look again in a while instead of spinning.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        while cursor.valid() && shared.foreground_works() {
            std::hint::black_box(cursor.value());
            stats.finish_operations(1, Operation::Read);
            cursor.next()?;
        }
    }
    stats.stop();
    eprintln!("background scan: {} entries, {:.0} ops/sec", stats.done(), stats.operations_per_second());
    stats.exclude();
    Ok(())
}

/// readrandomwriterandom: of every hundred operations, `--readwritepercent` reads, then the rest writes.
pub fn read_random_write_random(worker: &mut Worker<'_>) -> Result<()> {
    let flags = worker.flags;
    let operations = if flags.reads < 0 && flags.writes < 0 {
        worker.parameters.num
    } else {
        u64::try_from(flags.reads.max(flags.writes)).unwrap_or(0)
    };
    let mut limit = worker.limit(operations);
    let read_keys = worker.read_keys();
    let mode = worker.parameters.mode;
    let reads_per_hundred = flags.readwritepercent as u64;
    let Worker { engine, shared, random, keys, values, stats, .. } = worker;
    let (mut reads, mut writes, mut found) = (0u64, 0u64, 0u64);
    while limit.allows(1) {
        let key = keys.make(read_keys.next(random));
        if (reads + writes) % 100 < reads_per_hundred {
            throttle_reads(shared, reads);
            reads += 1;
            found += u64::from(engine.get(key, |value| std::hint::black_box(value).len())?.is_some());
            stats.finish_operations(1, Operation::Read);
        } else {
            let value = values.next_value();
            throttle_writes(shared, (key.len() + value.len()) as u64);
            engine.put(key, value, mode)?;
            writes += 1;
            stats.finish_operations(1, Operation::Write);
        }
    }
    let total = reads + writes;
    stats.set_message(format!("( reads:{reads} writes:{writes} total:{total} found:{found})"));
    Ok(())
}

/// updaterandom: reads a random key, then writes it.
pub fn update_random(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.writes);
    let read_keys = worker.read_keys();
    let mode = worker.parameters.mode;
    let Worker { engine, shared, random, keys, values, stats, .. } = worker;
    let (mut updates, mut found, mut bytes) = (0u64, 0u64, 0u64);
    while limit.allows(1) {
        let key = keys.make(read_keys.next(random));
        if let Some(size) = engine.get(key, |value| std::hint::black_box(value).len())? {
            found += 1;
            bytes += (key.len() + size) as u64;
        }
        let value = values.next_value();
        throttle_writes(shared, (key.len() + value.len()) as u64);
        engine.put(key, value, mode)?;
        bytes += (key.len() + value.len()) as u64;
        updates += 1;
        stats.finish_operations(1, Operation::Update);
    }
    stats.add_bytes(bytes);
    stats.set_message(format!("( updates:{updates} found:{found})"));
    Ok(())
}
