//! The effect of one part of a database on calls to another: scans beside deleted neighbours, small
//! puts beside large commits.
use super::{Bench, Parameters, Worker, throttle_writes, wrong};
use crate::engine::{Engine, WriteMode};
use crate::report::Operation;
use sapwood_base::Result;
use std::time::{Duration, Instant};

/// The prefixes before the deleted rows: one with rows, and one without.
const BEFORE: [&[u8; 8]; 2] = [b"beside-a", b"beside-b"];
/// The prefix of the deleted rows.
const DELETED: &[u8; 8] = b"beside-c";
/// The prefix after them, with rows.
const BEHIND: &[u8; 8] = b"beside-d";
/// Number of rows of the prefixes that have rows.
const ROWS: u64 = 3;

/// Writes and deletes `--deleted_neighbours` rows, with some rows before and after them. Does
/// nothing if the database has them, so that a flush or a compaction can run between two runs.
pub fn prepare_scans(bench: &mut Bench, parameters: &Parameters) -> Result<()> {
    let engine = bench.engine()?;
    if engine.prefix(BEFORE[0], false)?.0 == ROWS {
        return Ok(());
    }
    let count = bench.flags.deleted_neighbours as u64;
    let value = vec![b'v'; parameters.value_size as usize];
    let mut key = vec![b'0'; parameters.key_size];
    for (prefix, rows) in [(BEFORE[0], ROWS), (BEHIND, ROWS), (DELETED, count)] {
        change(&engine, &mut key, prefix, rows, Some(&value))?;
    }
    change(&engine, &mut key, DELETED, count, None)
}

/// Puts rows under `prefix`, or deletes them, in batches of a thousand.
fn change(engine: &Engine, key: &mut [u8], prefix: &[u8; 8], rows: u64, value: Option<&[u8]>) -> Result<()> {
    let mut batch = engine.batch();
    key[..8].copy_from_slice(prefix);
    for row in 0..rows {
        key[8..16].copy_from_slice(&row.to_be_bytes());
        match value {
            Some(value) => batch.put(key, value),
            None => batch.delete(key),
        }
        if row % 1000 == 999 || row + 1 == rows {
            batch.commit(WriteMode::Default)?;
        }
    }
    Ok(())
}

/// scanbeside: reads all rows of a prefix, to its end. Takes turns between the prefixes before and
/// after the deleted ones, forward and backward.
pub fn scan(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.reads);
    let Worker { engine, stats, .. } = worker;
    let mut turn = 0;
    while limit.allows(1, stats) {
        let prefix = [BEFORE[0], BEFORE[1], BEHIND][turn % 3];
        let expected = if prefix == BEFORE[1] { 0 } else { ROWS };
        let (rows, bytes) = engine.prefix(prefix, turn % 6 >= 3)?;
        if rows != expected {
            let prefix = String::from_utf8_lossy(prefix);
            return Err(wrong(format!("prefix {prefix} has {rows} rows, not {expected}")));
        }
        turn += 1;
        stats.add_bytes(bytes);
        stats.finish_operations(1, Operation::Scan);
    }
    Ok(())
}

/// smallputs: puts on a schedule while one more thread repeatedly commits `--large_commit_size`
/// bytes at once.
pub fn small_puts(worker: &mut Worker<'_>) -> Result<()> {
    if worker.thread == 0 { large_commits(worker) } else { super::fill::random(worker) }
}

/// Commits until the other threads end; a pause of `--large_commit_pause` milliseconds follows
/// each.
fn large_commits(worker: &mut Worker<'_>) -> Result<()> {
    /// The maximum size of a value: the commit must be large, not its values.
    const LARGEST_VALUE: usize = 64 << 20;
    let size = worker.flags.large_commit_size as usize;
    let pause = Duration::from_millis(worker.flags.large_commit_pause as u64);
    let mode = worker.parameters.mode;
    let Worker { engine, shared, stats, .. } = worker;
    let mut random = fastrand::Rng::with_seed(301);
    let value: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(size.min(LARGEST_VALUE)).collect();
    let mut longest = Duration::ZERO;
    while shared.foreground_works() {
        let mut batch = engine.batch();
        let mut left = size;
        while left > 0 {
            let length = left.min(value.len());
            // These keys are after all keys of the small puts. They repeat, so that the database
            // does not grow.
            batch.put(format!("\u{7f}large{left:012}").as_bytes(), &value[..length]);
            left -= length;
        }
        throttle_writes(shared, stats, size as u64);
        let start = Instant::now();
        batch.commit(mode)?;
        longest = longest.max(start.elapsed());
        stats.finish_operations(1, Operation::Write);
        let end = Instant::now() + pause;
        while shared.foreground_works() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1).min(pause));
        }
    }
    stats.stop();
    crate::print(&format!(
        "large commits: {} of {size} bytes, the longest took {:.1} ms\n",
        stats.done(),
        longest.as_secs_f64() * 1e3
    ));
    stats.exclude();
    Ok(())
}
