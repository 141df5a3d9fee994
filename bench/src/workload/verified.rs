//! randomwithverify: groups of three keys that are written, deleted and read together.
//!
//! A batch writes or deletes all three, and a snapshot reads all three: they must be equal, also
//! under concurrent writes. If they differ, the program ends with an error.
use super::{Worker, throttle_writes, wrong};
use crate::report::Operation;
use sapwood_base::Result;

/// The suffixes of the keys of a group; the number of the group precedes them.
const SUFFIXES: [u8; 3] = *b"012";

/// randomwithverify: of every hundred operations `readwritepercent` are reads, then `deletepercent`
/// deletes, the rest writes.
pub fn run(worker: &mut Worker<'_>) -> Result<()> {
    let mut limit = worker.limit(worker.parameters.operations);
    let mode = worker.parameters.mode;
    let flags = worker.flags;
    let reads_per_hundred = flags.readwritepercent as u64;
    let deletes_per_hundred = flags.deletepercent as u64;
    let groups = flags.numdistinct as u64;
    let Worker { engine, shared, random, keys, values, stats, .. } = worker;
    let mut batch = engine.batch();
    let mut members = SUFFIXES.map(|_| Vec::new());
    let [mut gets, mut puts, mut deletes, mut found] = [0u64; 4];
    while limit.allows(1, stats) {
        let number = random.u64(..groups);
        let key = keys.make(number);
        for (member, suffix) in members.iter_mut().zip(SUFFIXES) {
            member.clear();
            member.extend_from_slice(key);
            member.push(suffix);
        }
        let place = (gets + puts + deletes) % 100;
        if place < reads_per_hundred {
            let snapshot = engine.snapshot();
            let mut values = [None, None, None];
            for (value, member) in values.iter_mut().zip(&members) {
                *value = engine.get_at(member, &snapshot)?;
            }
            if values[0] != values[1] || values[1] != values[2] {
                return Err(wrong(format!("the three keys of group {number} differ in one snapshot")));
            }
            gets += 1;
            found += u64::from(values[0].is_some());
            stats.finish_operations(1, Operation::Read);
        } else if place < reads_per_hundred + deletes_per_hundred {
            members.iter().for_each(|member| batch.delete(member));
            batch.commit(mode)?;
            deletes += 1;
            stats.finish_operations(1, Operation::Delete);
        } else {
            let value = values.next_value();
            throttle_writes(
                shared,
                stats,
                members.iter().map(|member| (member.len() + value.len()) as u64).sum(),
            );
            members.iter().for_each(|member| batch.put(member, value));
            batch.commit(mode)?;
            puts += 1;
            stats.finish_operations(1, Operation::Write);
        }
    }
    stats.set_tally(&[gets, puts, deletes, found], |n| {
        let total = n[0] + n[1] + n[2];
        format!("( get:{} put:{} del:{} total:{total} found:{})", n[0], n[1], n[2], n[3])
    });
    Ok(())
}
