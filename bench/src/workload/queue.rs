//! queue: the pattern that tombstones make slow. Entries are appended at the end and popped from the front, and the
//! front is found by a seek to the lowest key there could be, over everything that was popped and is not compacted.
//!
//! Every thread has a queue of its own. Pops must come in the order of the pushes, with the values that were pushed, and
//! in the end exactly the entries that are left must be there.
use super::{Worker, throttle_writes, wrong};
use crate::report::Operation;
use sapwood_base::{Error, Result};
use sapwood_bench::values::stamp;

/// Where the keys of a thread begin: far enough apart for any number of pushes.
fn first_key(thread: usize) -> u64 {
    (thread as u64) << 44
}

/// queue. Pushes and pops are counted as one operation each.
pub fn run(worker: &mut Worker<'_>) -> Result<()> {
    if worker.parameters.key_size < 8 {
        return Err(Error::invalid_argument("queue needs a --key_size of at least 8"));
    }
    let mut limit = worker.limit(worker.parameters.operations);
    let mode = worker.parameters.mode;
    let depth = worker.flags.queue_depth as u64;
    let first = first_key(worker.thread);
    let Worker { engine, shared, keys, values, stats, .. } = worker;
    let mut front = keys.clone();
    front.make(first);
    let (mut pushed, mut popped) = (0, 0);
    while limit.allows(1, stats) {
        if pushed - popped <= depth {
            let key = keys.make(first + pushed);
            let value = values.next_stamped(first + pushed);
            let bytes = (key.len() + value.len()) as u64;
            throttle_writes(shared, bytes);
            engine.put(key, value, mode)?;
            pushed += 1;
            stats.add_bytes(bytes);
            stats.finish_operations(1, Operation::Write);
        } else {
            let expected = keys.make(first + popped);
            let mut cursor = engine.cursor_of(expected)?;
            cursor.seek(&front)?;
            check(&cursor, expected, first + popped)?;
            stats.add_bytes((expected.len() + cursor.value().len()) as u64);
            drop(cursor);
            engine.delete(expected, mode)?;
            popped += 1;
            stats.finish_operations(1, Operation::Pop);
        }
    }
    stats.stop();
    let mut cursor = engine.cursor()?;
    cursor.seek(&front)?;
    for entry in popped..pushed {
        check(&cursor, keys.make(first + entry), first + entry)?;
        cursor.next()?;
    }
    if cursor.valid() && cursor.key() < keys.make(first_key(worker.thread + 1)) {
        return Err(wrong(format!("queue {} has an entry behind its end", worker.thread)));
    }
    stats
        .set_tally(&[pushed, popped], |n| format!("( pushed:{} popped:{} left:{})", n[0], n[1], n[0] - n[1]));
    Ok(())
}

fn check(cursor: &crate::engine::Cursor, expected: &[u8], number: u64) -> Result<()> {
    if !cursor.valid() || cursor.key() != expected {
        return Err(wrong(format!("entry {number} is not at the front of its queue")));
    }
    match stamp(cursor.value()) {
        Some(stamped) if stamped != number => {
            Err(wrong(format!("entry {number} has the value of entry {stamped}")))
        }
        _ => Ok(()),
    }
}
