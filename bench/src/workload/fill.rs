//! Benchmarks that write or delete, and do nothing else.
use super::{Worker, throttle_writes};
use crate::limit::Limit;
use crate::report::Operation;
use sapwood_base::Result;
use sapwood_bench::keys::Order;

/// fillseq, fillbatch.
pub fn sequential(worker: &mut Worker<'_>) -> Result<()> {
    fill(worker, Order::Sequential)
}

/// fillrandom, fillsync, fill100K, overwrite.
pub fn random(worker: &mut Worker<'_>) -> Result<()> {
    fill(worker, Order::Random)
}

/// filluniquerandom.
pub fn unique_random(worker: &mut Worker<'_>) -> Result<()> {
    fill(worker, Order::UniqueRandom)
}

/// deleteseq.
pub fn delete_sequential(worker: &mut Worker<'_>) -> Result<()> {
    delete(worker, Order::Sequential)
}

/// deleterandom.
pub fn delete_random(worker: &mut Worker<'_>) -> Result<()> {
    delete(worker, Order::Random)
}

/// Only a random order goes on for a given time: one that visits each key once ends when all are visited.
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
            throttle_writes(shared, bytes);
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
        throttle_writes(shared, bytes);
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
            throttle_writes(shared, key.len() as u64);
            engine.delete(key, mode)?;
            stats.finish_operations(1, Operation::Delete);
        }
        return Ok(());
    }
    let mut batch = engine.batch();
    while limit.allows(batch_size, stats) {
        for _ in 0..batch_size {
            batch.delete(keys.make(numbers.next(random)));
        }
        batch.commit(mode)?;
        stats.finish_operations(batch_size, Operation::Delete);
    }
    Ok(())
}
