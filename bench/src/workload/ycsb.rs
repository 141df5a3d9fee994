//! The YCSB workloads A to F and their load phase; the streams of requests are in
//! `sapwood_bench::ycsb`.
//!
//! Reads verify their results: every record whose insert was acknowledged must exist and begin with
//! its number (unless values are shorter than eight bytes). Scans must begin at their record and
//! ascend. Any other result ends the program with an error.
//!
//! The load is a benchmark of its own, `ycsbload`. If the database is empty, a workload runs it
//! first, with its own line. If the database holds other data, the workload refuses to run.
use super::{Bench, Body, Parameters, Worker, throttle_reads, throttle_writes, wrong};
use crate::engine::Engine;
use crate::report::Operation;
use sapwood_base::{Error, Result};
use sapwood_bench::keys::KeyBuffer;
use sapwood_bench::values::stamp;
use sapwood_bench::ycsb::{RECORD_BYTES, Records, Request, Requests, Workload, record_key};
use std::sync::Arc;

/// Records have the paper's size unless the flags set another.
pub fn adjust(parameters: &mut Parameters) {
    if !parameters.value_size_given {
        parameters.value_size = RECORD_BYTES as u64;
    }
}

/// ycsba.
pub fn a(worker: &mut Worker<'_>) -> Result<()> {
    run(worker, Workload::A)
}

/// ycsbb.
pub fn b(worker: &mut Worker<'_>) -> Result<()> {
    run(worker, Workload::B)
}

/// ycsbc.
pub fn c(worker: &mut Worker<'_>) -> Result<()> {
    run(worker, Workload::C)
}

/// ycsbd.
pub fn d(worker: &mut Worker<'_>) -> Result<()> {
    run(worker, Workload::D)
}

/// ycsbe.
pub fn e(worker: &mut Worker<'_>) -> Result<()> {
    run(worker, Workload::E)
}

/// ycsbf.
pub fn f(worker: &mut Worker<'_>) -> Result<()> {
    run(worker, Workload::F)
}

/// Starts without records.
pub fn prepare_load(bench: &mut Bench, parameters: &Parameters) -> Result<()> {
    if parameters.key_size < 8 {
        return Err(Error::invalid_argument("records of YCSB need a --key_size of at least 8"));
    }
    bench.records = Some(Arc::new(Records::new(0)));
    Ok(())
}

/// ycsbload: inserts records 0 to num in this order, in which keys are random. Runs at full speed,
/// even if the following workload has a schedule.
pub fn load(worker: &mut Worker<'_>) -> Result<()> {
    let mode = worker.parameters.mode;
    let records = worker.shared.records();
    let Worker { engine, parameters, shared, keys, values, stats, .. } = worker;
    loop {
        let record = records.take();
        if record >= parameters.num {
            return Ok(());
        }
        let key = keys.make(record_key(record));
        let value = values.next_stamped(record);
        let bytes = (key.len() + value.len()) as u64;
        throttle_writes(shared, stats, bytes);
        engine.put(key, value, mode)?;
        records.acknowledge(record);
        stats.add_bytes(bytes);
        stats.finish_operations(1, Operation::Insert);
    }
}

/// Determines the existing records; loads them if the database is empty.
pub fn prepare(bench: &mut Bench, parameters: &Parameters) -> Result<()> {
    let engine = bench.engine()?;
    let mut keys = bench.key_buffer(parameters);
    let count = match &bench.records {
        Some(records) => records.count(),
        None => count_records(&engine, &mut keys)?,
    };
    if count == 0 {
        let mut cursor = engine.cursor()?;
        cursor.seek_to_first()?;
        if cursor.valid() {
            let message = "the database holds other data than the records of YCSB; ycsbload makes a new one";
            return Err(Error::invalid_argument(message));
        }
        drop(cursor);
        drop(engine);
        bench.run_once("ycsbload", Body::Prepared(prepare_load, load), parameters)?;
        bench.records = Some(Arc::new(Records::new(parameters.num)));
    } else {
        // A new count: a load takes more numbers than it inserts.
        bench.records = Some(Arc::new(Records::new(count)));
    }
    Ok(())
}

/// The number of records in an existing database. They were inserted in order, so a search for the
/// first missing one determines it.
fn count_records(engine: &Engine, keys: &mut KeyBuffer) -> Result<u64> {
    let mut is_there =
        |record: u64| -> Result<bool> { Ok(engine.get(keys.make(record_key(record)), |_| ())?.is_some()) };
    let (mut there, mut missing) = (0, 1);
    if !is_there(0)? {
        return Ok(0);
    }
    while is_there(missing)? {
        (there, missing) = (missing, missing * 2);
    }
    while there + 1 < missing {
        let middle = there + (missing - there) / 2;
        if is_there(middle)? { there = middle } else { missing = middle }
    }
    Ok(missing)
}

fn run(worker: &mut Worker<'_>, workload: Workload) -> Result<()> {
    let operations = worker.parameters.operations;
    let mut limit = worker.limit(operations);
    let mode = worker.parameters.mode;
    let records = worker.shared.records();
    let mut requests = Requests::new(workload, records, operations * worker.parameters.threads as u64);
    let Worker { engine, shared, random, keys, values, stats, .. } = worker;
    let [mut reads, mut updates, mut inserts, mut scans, mut changes, mut entries] = [0u64; 6];
    while limit.allows(1, stats) {
        match requests.next(random) {
            Request::Read(record) => {
                throttle_reads(shared, reads);
                reads += 1;
                stats.add_bytes(read(engine, keys, record)?);
                stats.finish_operations(1, Operation::Read);
            }
            request @ (Request::Update(record)
            | Request::Insert(record)
            | Request::ReadModifyWrite(record)) => {
                if let Request::ReadModifyWrite(record) = request {
                    stats.add_bytes(read(engine, keys, record)?);
                }
                let key = keys.make(record_key(record));
                let value = values.next_stamped(record);
                let bytes = (key.len() + value.len()) as u64;
                throttle_writes(shared, stats, bytes);
                engine.put(key, value, mode)?;
                stats.add_bytes(bytes);
                let (count, operation) = match request {
                    Request::Insert(_) => {
                        records.acknowledge(record);
                        (&mut inserts, Operation::Insert)
                    }
                    Request::ReadModifyWrite(_) => (&mut changes, Operation::Update),
                    _ => (&mut updates, Operation::Write),
                };
                *count += 1;
                stats.finish_operations(1, operation);
            }
            Request::Scan { record, length } => {
                throttle_reads(shared, scans);
                scans += 1;
                let (seen, bytes) = scan(engine, keys, record, length)?;
                entries += seen;
                stats.add_bytes(bytes);
                stats.finish_operations(1, Operation::Scan);
            }
        }
    }
    stats.set_tally(&[reads, updates, inserts, changes, scans, entries], |n| {
        let names = ["reads", "updates", "inserts", "read-modify-writes", "scans", "entries"];
        let parts = names.iter().zip(n).filter(|(_, count)| **count > 0);
        let parts: Vec<String> = parts.map(|(name, count)| format!("{name}:{count}")).collect();
        format!("( {}, all found)", parts.join(" "))
    });
    Ok(())
}

/// Reads a record, which must exist; returns the bytes of its key and value.
#[inline]
fn read(engine: &Engine, keys: &mut KeyBuffer, record: u64) -> Result<u64> {
    let key = keys.make(record_key(record));
    match engine.get(key, |value| (value.len(), stamp(value)))? {
        Some((size, None)) => Ok((key.len() + size) as u64),
        Some((size, Some(number))) if number == record => Ok((key.len() + size) as u64),
        Some((_, Some(number))) => Err(wrong(format!("record {record} has the value of record {number}"))),
        None => Err(wrong(format!("record {record} was inserted and is not there"))),
    }
}

/// Reads up to `length` records from `record` on, which must exist; returns their number and bytes.
fn scan(engine: &Engine, keys: &mut KeyBuffer, record: u64, length: u64) -> Result<(u64, u64)> {
    let key = keys.make(record_key(record));
    let mut cursor = engine.cursor_of(key)?;
    cursor.seek(key)?;
    if !cursor.valid() || cursor.key() != key {
        return Err(wrong(format!("record {record} was inserted and a seek does not find it")));
    }
    let (mut seen, mut bytes, mut last) = (0, 0, None);
    while seen < length && cursor.valid() {
        let head = cursor.key().first_chunk().map(|head| u64::from_be_bytes(*head));
        if head <= last {
            return Err(wrong(format!("a scan from record {record} goes back at entry {seen}")));
        }
        last = head;
        bytes += (cursor.key().len() + std::hint::black_box(cursor.value()).len()) as u64;
        seen += 1;
        cursor.next()?;
    }
    Ok((seen, bytes))
}
