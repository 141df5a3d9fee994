//! Benchmarks that read and write concurrently, in one thread or beside a background thread.
use super::{Worker, read, scan, throttle_reads, throttle_writes};
use crate::flags::Flags;
use crate::limit::{RateLimiter, SineRate};
use crate::report::Operation;
use fastrand::Rng;
use sapwood_base::Result;
use sapwood_bench::keys::Order;
use std::time::{Duration, Instant};

/// readwhilewriting.
pub fn read_while_writing(worker: &mut Worker<'_>) -> Result<()> {
    if worker.thread == 0 { write_in_background(worker) } else { read::random(worker) }
}

/// multireadwhilewriting.
pub fn multi_read_while_writing(worker: &mut Worker<'_>) -> Result<()> {
    if worker.thread == 0 { write_in_background(worker) } else { read::multi(worker) }
}

/// newiteratorwhilewriting.
pub fn new_iterator_while_writing(worker: &mut Worker<'_>) -> Result<()> {
    if worker.thread == 0 { write_in_background(worker) } else { scan::new_iterator(worker) }
}

/// seekrandomwhilewriting.
pub fn seek_while_writing(worker: &mut Worker<'_>) -> Result<()> {
    if worker.thread == 0 { write_in_background(worker) } else { scan::seek_random(worker) }
}

/// readwhilescanning.
pub fn read_while_scanning(worker: &mut Worker<'_>) -> Result<()> {
    if worker.thread == 0 { scan_in_background(worker) } else { read::random(worker) }
}

/// Writes random keys until the other threads end, at `--benchmark_write_rate_limit` or a
/// sinusoidal rate.
fn write_in_background(worker: &mut Worker<'_>) -> Result<()> {
    let mut numbers = worker.numbers(Order::Random);
    let mode = worker.parameters.mode;
    let most = if worker.flags.finish_after_writes { worker.parameters.writes } else { u64::MAX };
    let mut sine = worker.flags.sine_write_rate.then(|| Sine::of_writes(worker.flags));
    let Worker { engine, shared, random, keys, values, stats, .. } = worker;
    let mut written = 0;
    while written < most && shared.foreground_works() {
        if let (Some(sine), Some(limiter)) = (&mut sine, &shared.write_rate) {
            sine.adjust(limiter, 1.0, random);
        }
        let key = keys.make(numbers.next(random));
        let value = values.next_value();
        throttle_writes(shared, stats, (key.len() + value.len()) as u64);
        engine.put(key, value, mode)?;
        written += 1;
        stats.finish_operations(1, Operation::Write);
    }
    stats.stop();
    let per_second = written as f64 / stats.elapsed_seconds();
    eprintln!("background writer: {written} writes, {per_second:.0} ops/sec");
    stats.exclude();
    Ok(())
}

/// Scans all entries repeatedly until the other threads end.
fn scan_in_background(worker: &mut Worker<'_>) -> Result<()> {
    let Worker { engine, shared, stats, .. } = worker;
    while shared.foreground_works() {
        let mut cursor = engine.cursor()?;
        cursor.seek_to_first()?;
        if !cursor.valid() {
            // An empty database: pause instead of spinning.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        while cursor.valid() && shared.foreground_works() {
            std::hint::black_box(cursor.value());
            stats.finish_operations(1, Operation::Read);
            cursor.next()?;
        }
    }
    stats.stop();
    let per_second = stats.done() as f64 / stats.elapsed_seconds();
    eprintln!("background scan: {} entries, {per_second:.0} ops/sec", stats.done());
    stats.exclude();
    Ok(())
}

/// Changes a limit by the `--sine_…` flags.
pub struct Sine {
    rate: SineRate,
    start: Instant,
    /// The time of the next change; the clock is read at every sixteenth call.
    next: Instant,
    asked: u32,
}

impl Sine {
    /// The rate of background writers, in bytes per second.
    fn of_writes(flags: &Flags) -> Sine {
        Sine::new(flags, 0.0, flags.sine_write_rate_interval_milliseconds)
    }

    /// The rate of mixgraph, in operations per second.
    pub fn of_mix(flags: &Flags) -> Sine {
        Sine::new(flags, flags.sine_mix_rate_noise, flags.sine_mix_rate_interval_milliseconds)
    }

    fn new(flags: &Flags, noise: f64, interval_millis: i64) -> Sine {
        let now = Instant::now();
        let rate = SineRate {
            parameters: [flags.sine_a, flags.sine_b, flags.sine_c, flags.sine_d],
            noise,
            interval: Duration::from_millis(u64::try_from(interval_millis).unwrap_or(0)),
        };
        Sine { rate, start: now, next: now, asked: 0 }
    }

    /// If a change is due, sets the rate of `limiter` to the current one times `share`.
    pub fn adjust(&mut self, limiter: &RateLimiter, share: f64, random: &mut Rng) {
        self.asked += 1;
        if self.asked % 16 != 1 {
            return;
        }
        let now = Instant::now();
        if now >= self.next {
            limiter.set_rate(self.rate.at(now - self.start, random.f64()) * share);
            self.next = now + self.rate.interval;
        }
    }
}

/// readrandomwriterandom: of every hundred operations, `--readwritepercent` reads, then the rest
/// writes.
pub fn read_random_write_random(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.operations);
    let read_keys = worker.read_keys();
    let mode = worker.parameters.mode;
    let reads_per_hundred = worker.flags.readwritepercent as u64;
    let Worker { engine, shared, random, keys, values, stats, .. } = worker;
    let (mut reads, mut writes, mut found) = (0u64, 0u64, 0u64);
    while limit.allows(1, stats) {
        let key = keys.make(read_keys.next(random));
        if (reads + writes) % 100 < reads_per_hundred {
            throttle_reads(shared, reads);
            reads += 1;
            found += u64::from(engine.get(key, |value| std::hint::black_box(value).len())?.is_some());
            stats.finish_operations(1, Operation::Read);
        } else {
            let value = values.next_value();
            throttle_writes(shared, stats, (key.len() + value.len()) as u64);
            engine.put(key, value, mode)?;
            writes += 1;
            stats.finish_operations(1, Operation::Write);
        }
    }
    stats.set_tally(&[reads, writes, found], |n| {
        format!("( reads:{} writes:{} total:{} found:{})", n[0], n[1], n[0] + n[1], n[2])
    });
    Ok(())
}

/// updaterandom: reads a random key, then writes it.
pub fn update_random(worker: &mut Worker<'_>) -> Result<()> {
    updates(worker, |_, operand, new| new.extend_from_slice(operand))
}

/// xorupdaterandom: writes the old value xor another one; the rest of the longer one stays.
pub fn xor_update_random(worker: &mut Worker<'_>) -> Result<()> {
    updates(worker, |old, operand, new| {
        let (longer, shorter) = if old.len() > operand.len() { (old, operand) } else { (operand, old) };
        new.extend_from_slice(longer);
        new.iter_mut().zip(shorter).for_each(|(byte, other)| *byte ^= other);
    })
}

/// appendrandom: writes the old value, a comma and another value, so that values grow.
pub fn append_random(worker: &mut Worker<'_>) -> Result<()> {
    updates(worker, |old, operand, new| {
        new.extend_from_slice(old);
        if !old.is_empty() {
            new.push(b',');
        }
        new.extend_from_slice(operand);
    })
}

/// Reads random keys and writes the result of `change` on the old value (empty if absent) and a new
/// one.
fn updates(worker: &mut Worker<'_>, change: impl Fn(&[u8], &[u8], &mut Vec<u8>)) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.writes);
    let read_keys = worker.read_keys();
    let mode = worker.parameters.mode;
    let Worker { engine, shared, random, keys, values, stats, .. } = worker;
    let mut new = Vec::new();
    let (mut updates, mut found) = (0u64, 0u64);
    while limit.allows(1, stats) {
        let key = keys.make(read_keys.next(random));
        let operand = values.next_value();
        new.clear();
        let old = engine.get(key, |old| {
            change(old, operand, &mut new);
            old.len()
        })?;
        match old {
            Some(size) => {
                found += 1;
                stats.add_bytes((key.len() + size) as u64);
            }
            None => change(&[], operand, &mut new),
        }
        let bytes = (key.len() + new.len()) as u64;
        throttle_writes(shared, stats, bytes);
        engine.put(key, &new, mode)?;
        stats.add_bytes(bytes);
        updates += 1;
        stats.finish_operations(1, Operation::Update);
    }
    stats.set_tally(&[updates, found], |n| format!("( updates:{} found:{})", n[0], n[1]));
    Ok(())
}
