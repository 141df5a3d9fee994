//! Benchmarks that only write or delete.
use super::{Worker, throttle_writes};
use crate::limit::Limit;
use crate::report::Operation;
use sapwood_base::Result;
use sapwood_bench::keys::Order;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// fillseq, fillbatch.
pub fn sequential(worker: &mut Worker<'_>) -> Result<()> {
    fill(worker, Order::Sequential)
}

/// fillrandom, fillsync, fill100K, overwrite.
pub fn random(worker: &mut Worker<'_>) -> Result<()> {
    fill(worker, Order::Random)
}

/// filluniquerandom. With `--overwrite_probability`, some writes overwrite one of the last keys.
pub fn unique_random(worker: &mut Worker<'_>) -> Result<()> {
    if worker.flags.overwrite_probability == 0.0 {
        return fill(worker, Order::UniqueRandom);
    }
    let mut numbers = worker.numbers(Order::UniqueRandom);
    let mut limit = limit(worker, Order::UniqueRandom, worker.parameters.writes);
    let mode = worker.parameters.mode;
    let window = worker.flags.overwrite_window_size as usize;
    let Worker { engine, flags, shared, random, keys, values, stats, .. } = worker;
    // A ring buffer of the last keys.
    let (mut lately, mut place) = (Vec::new(), 0);
    let (mut writes, mut overwrites) = (0, 0);
    while limit.allows(1, stats) {
        let number = if !lately.is_empty() && random.f64() < flags.overwrite_probability {
            overwrites += 1;
            lately[random.usize(..lately.len())]
        } else {
            let number = numbers.next(random);
            if lately.len() < window {
                lately.push(number);
            } else {
                lately[place] = number;
                place = (place + 1) % window;
            }
            number
        };
        let (key, value) = (keys.make(number), values.next_value());
        let bytes = (key.len() + value.len()) as u64;
        throttle_writes(shared, stats, bytes);
        engine.put(key, value, mode)?;
        writes += 1;
        stats.add_bytes(bytes);
        stats.finish_operations(1, Operation::Write);
    }
    stats.set_tally(&[writes, overwrites], |n| format!("( writes:{} of them overwrites:{})", n[0], n[1]));
    Ok(())
}

/// fillanddeleteuniquerandom: every key once, in random order and in groups. Entries of the first
/// kind are deleted as a group, some time after its last write and before the next group of their
/// kind. Entries of the second kind stay.
pub fn unique_random_and_delete(worker: &mut Worker<'_>) -> Result<()> {
    let disposable = worker.flags.disposable_entries_batch_size as u64;
    if disposable == 0 {
        return unique_random(worker);
    }
    let persistent = worker.flags.persistent_entries_batch_size as u64;
    let delay = Duration::from_micros(worker.flags.disposable_entries_delete_delay as u64);
    let mut numbers = worker.numbers(Order::UniqueRandom);
    let mut limit = limit(worker, Order::UniqueRandom, worker.parameters.writes);
    let mode = worker.parameters.mode;
    let Worker { engine, flags, shared, random, keys, values, stats, .. } = worker;
    let mut group: Vec<u64> = Vec::new();
    // Complete groups, and the earliest time of their deletion.
    let mut written: VecDeque<(Instant, Vec<u64>)> = VecDeque::new();
    let (mut writes, mut deletes) = (0, 0);
    let mut more = true;
    while more || !written.is_empty() {
        more = more && limit.allows(1, stats);
        if more {
            let number = numbers.next(random);
            let is_disposable = writes % (disposable + persistent) < disposable;
            let size = match is_disposable {
                true => flags.disposable_entries_value_size,
                false => flags.persistent_entries_value_size,
            };
            let (key, value) = (keys.make(number), values.take(size as usize));
            let bytes = (key.len() + value.len()) as u64;
            throttle_writes(shared, stats, bytes);
            engine.put(key, value, mode)?;
            writes += 1;
            stats.add_bytes(bytes);
            stats.finish_operations(1, Operation::Write);
            if is_disposable {
                group.push(number);
            }
        }
        if group.len() as u64 == disposable || (!more && !group.is_empty()) {
            written.push_back((Instant::now() + delay, std::mem::take(&mut group)));
        }
        // At the end, the remaining groups wait for their time.
        while written.front().is_some_and(|(due, _)| !more || *due <= Instant::now()) {
            let Some((due, group)) = written.pop_front() else { break };
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            for number in group {
                let key = keys.make(number);
                throttle_writes(shared, stats, key.len() as u64);
                engine.delete(key, mode)?;
                deletes += 1;
                stats.finish_operations(1, Operation::Delete);
            }
        }
    }
    stats.set_tally(&[writes, deletes], |n| format!("( writes:{} deletes:{})", n[0], n[1]));
    Ok(())
}

/// deleteseq.
pub fn delete_sequential(worker: &mut Worker<'_>) -> Result<()> {
    delete(worker, Order::Sequential)
}

/// deleterandom.
pub fn delete_random(worker: &mut Worker<'_>) -> Result<()> {
    delete(worker, Order::Random)
}

/// Only a random order supports a duration: an order that visits each key once ends with the keys.
fn limit<'a>(worker: &Worker<'a>, order: Order, operations: u64) -> Limit<'a> {
    match order {
        Order::Random => worker.limit(operations),
        Order::Sequential | Order::UniqueRandom => worker.count_limit(operations),
    }
}

fn fill(worker: &mut Worker<'_>, order: Order) -> Result<()> {
    let mut numbers = worker.numbers(order);
    let mut limit = limit(worker, order, worker.parameters.writes);
    let (mode, batch_size) = (worker.parameters.mode, worker.parameters.batch_size);
    let Worker { engine, shared, random, keys, values, stats, .. } = worker;
    if batch_size == 1 {
        while limit.allows(1, stats) {
            let key = keys.make(numbers.next(random));
            let value = values.next_value();
            let bytes = (key.len() + value.len()) as u64;
            throttle_writes(shared, stats, bytes);
            engine.put(key, value, mode)?;
            stats.add_bytes(bytes);
            stats.finish_operations(1, Operation::Write);
        }
        return Ok(());
    }
    let mut batch = engine.batch();
    while limit.allows(batch_size, stats) {
        let mut bytes = 0;
        for _ in 0..batch_size {
            let key = keys.make(numbers.next(random));
            let value = values.next_value();
            bytes += (key.len() + value.len()) as u64;
            batch.put(key, value);
        }
        throttle_writes(shared, stats, bytes);
        batch.commit(mode)?;
        stats.add_bytes(bytes);
        stats.finish_operations(batch_size, Operation::Write);
    }
    Ok(())
}

fn delete(worker: &mut Worker<'_>, order: Order) -> Result<()> {
    let mut numbers = worker.numbers(order);
    let mut limit = limit(worker, order, worker.parameters.deletes);
    let (mode, batch_size) = (worker.parameters.mode, worker.parameters.batch_size);
    let Worker { engine, shared, random, keys, stats, .. } = worker;
    if batch_size == 1 {
        while limit.allows(1, stats) {
            let key = keys.make(numbers.next(random));
            throttle_writes(shared, stats, key.len() as u64);
            engine.delete(key, mode)?;
            stats.finish_operations(1, Operation::Delete);
        }
        return Ok(());
    }
    let mut batch = engine.batch();
    while limit.allows(batch_size, stats) {
        for _ in 0..batch_size {
            let key = keys.make(numbers.next(random));
            throttle_writes(shared, stats, key.len() as u64);
            batch.delete(key);
        }
        batch.commit(mode)?;
        stats.finish_operations(batch_size, Operation::Delete);
    }
    Ok(())
}
