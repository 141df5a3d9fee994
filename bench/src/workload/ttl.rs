//! ttlchurn: records with a lifetime in writes, all over the key space; the stream of requests is
//! in `sapwood_bench::churn`.
//!
//! Each thread has its own records. Live records must be found with their values, and expired ones
//! must not be found; otherwise the program ends with an error.
use super::{Worker, throttle_reads, throttle_writes, wrong};
use crate::report::Operation;
use sapwood_base::Result;
use sapwood_bench::churn::{Request, Requests, record_key};
use sapwood_bench::values::stamp;

/// ttlchurn.
pub fn run(worker: &mut Worker<'_>) -> Result<()> {
    let flags = worker.flags;
    let mut limit = worker.limit(worker.parameters.operations);
    let mode = worker.parameters.mode;
    let lifetime = match flags.ttl_writes {
        0 => worker.parameters.num / 4,
        writes => writes as u64,
    };
    let read_percent =
        if flags.given.contains(&"readwritepercent") { flags.readwritepercent as u32 } else { 50 };
    let mut requests = Requests::new((worker.thread as u64) << 44, lifetime, read_percent);
    let Worker { thread, engine, parameters, shared, random, keys, values, stats, .. } = worker;
    let [mut inserts, mut live, mut expired] = [0u64; 3];
    while limit.allows(1, stats) {
        match requests.next(random) {
            Request::Insert(record) => {
                let key = keys.make(record_key(record));
                let value = values.next_stamped(record);
                let bytes = (key.len() + value.len()) as u64;
                throttle_writes(shared, stats, bytes);
                engine.put(key, value, mode)?;
                inserts += 1;
                stats.add_bytes(bytes);
                stats.finish_operations(1, Operation::Insert);
            }
            Request::Remove(record) => {
                let key = keys.make(record_key(record));
                stats.add_written(key.len() as u64);
                engine.delete(key, mode)?;
                stats.finish_operations(1, Operation::Delete);
            }
            Request::ReadLive(record) => {
                throttle_reads(shared, live);
                live += 1;
                let key = keys.make(record_key(record));
                match engine.get(key, |value| (value.len(), stamp(value)))? {
                    Some((_, Some(number))) if number != record => {
                        return Err(wrong(format!("record {record} has the value of record {number}")));
                    }
                    Some((size, _)) => stats.add_bytes((key.len() + size) as u64),
                    None => return Err(wrong(format!("record {record} is live and missing"))),
                }
                stats.finish_operations(1, Operation::Read);
            }
            Request::ReadExpired(record) => {
                throttle_reads(shared, live + expired);
                expired += 1;
                if engine.get(keys.make(record_key(record)), |_| ())?.is_some() {
                    return Err(wrong(format!("record {record} was deleted and is there")));
                }
                stats.finish_operations(1, Operation::Read);
            }
        }
    }
    stats.stop();
    stats.set_tally(&[inserts, requests.expired(), live, expired], |n| {
        format!(
            "( inserts:{} deletes:{} reads of live:{} of expired:{}, all as expected)",
            n[0], n[1], n[2], n[3]
        )
    });
    if *thread == 0 {
        let megabytes = |bytes: u64| bytes as f64 / 1_048_576.0;
        let size = (parameters.key_size as u64 + parameters.value_size) * parameters.threads as u64;
        let tables: u64 = engine.figures().levels.iter().map(|level| level.bytes).sum();
        let (live, tables) = (megabytes(requests.live() * size), megabytes(tables));
        stats.set_message(format!("(live: {live:.1} MB, tables: {tables:.1} MB)"));
    }
    Ok(())
}
