//! queue: the pattern that tombstones slow down. Entries are appended at the end and popped from
//! the front. An iterator finds the front after it has passed all popped entries that are not
//! compacted.
//!
//! Every thread has its own queue. It fills the queue to `--queue_depth` before the first pop; then
//! a push follows each pop. A deep queue has its front in tables and its tombstones in memory; a
//! shallow one has both in memory. Finding the front and deleting it are timed separately. If
//! either grows with the number of popped entries, the rate falls with the number of operations.
//!
//! Pops must return the pushed values in the order of the pushes. At the end, exactly the remaining
//! entries must exist.
use super::{Worker, throttle_writes, wrong};
use crate::report::Operation;
use sapwood_base::Result;
use sapwood_bench::values::stamp;
use std::time::Instant;

/// The first key of a thread; the distance suffices for any number of pushes.
fn first_key(thread: usize) -> u64 {
    (thread as u64) << 44
}

/// queue. A push and a pop are one operation each.
pub fn run(worker: &mut Worker<'_>) -> Result<()> {
    let operations = worker.parameters.operations;
    let mut limit = worker.limit(operations);
    let mode = worker.parameters.mode;
    let depth = u64::try_from(worker.flags.queue_depth).unwrap_or(operations / 4);
    let first = first_key(worker.thread);
    let Worker { engine, shared, keys, values, stats, .. } = worker;
    let mut front = keys.clone();
    front.make(first);
    let (mut pushed, mut popped) = (0, 0);
    let start = Instant::now();
    let mut filled = start;
    while limit.allows(1, stats) {
        if pushed - popped <= depth {
            let key = keys.make(first + pushed);
            let value = values.next_stamped(first + pushed);
            let bytes = (key.len() + value.len()) as u64;
            throttle_writes(shared, stats, bytes);
            engine.put(key, value, mode)?;
            pushed += 1;
            stats.add_bytes(bytes);
            stats.finish_operations(1, Operation::Write);
        } else {
            if popped == 0 {
                filled = Instant::now();
            }
            let expected = keys.make(first + popped);
            let bytes = match engine.first_from(front.as_ref())? {
                Some((key, value)) => check(&key, &value, expected, first + popped)?,
                None => return Err(gone(first + popped)),
            };
            stats.add_bytes(bytes);
            stats.finish_operations(0, Operation::Seek);
            stats.add_written(expected.len() as u64);
            engine.delete(expected, mode)?;
            popped += 1;
            stats.finish_operations(1, Operation::Pop);
        }
    }
    let paired = if popped == 0 { 0.0 } else { popped as f64 / filled.elapsed().as_secs_f64().max(1e-9) };
    stats.stop();
    let mut cursor = engine.cursor_of(front.as_ref())?;
    cursor.seek(&front)?;
    for entry in popped..pushed {
        if !cursor.valid() {
            return Err(gone(first + entry));
        }
        check(cursor.key(), cursor.value(), keys.make(first + entry), first + entry)?;
        cursor.next()?;
    }
    if cursor.valid() && cursor.key() < keys.make(first_key(worker.thread + 1)) {
        return Err(wrong(format!("queue {} has an entry after its end", worker.thread)));
    }
    stats.set_tally(&[pushed, popped, paired as u64], |n| {
        format!("( pushed:{} popped:{} left:{}, {} pairs/sec)", n[0], n[1], n[0] - n[1], n[2])
    });
    Ok(())
}

fn gone(number: u64) -> sapwood_base::Error {
    wrong(format!("entry {number} is not at the front of its queue"))
}

/// Verifies that the entry is the one with `number`; returns its bytes.
fn check(key: &[u8], value: &[u8], expected: &[u8], number: u64) -> Result<u64> {
    if key != expected {
        return Err(gone(number));
    }
    match stamp(value) {
        Some(stamped) if stamped != number => {
            Err(wrong(format!("entry {number} has the value of entry {stamped}")))
        }
        _ => Ok((key.len() + value.len()) as u64),
    }
}
