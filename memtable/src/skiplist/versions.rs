//! The versions of a key: a chain from the newest to the oldest.
use super::leaf::{LeafBody, LockedLeaf, RecordOffset};
use super::node::{Nodes, Record};
use crate::sync::Ordering;
use sapwood_base::SequenceNumber;
use std::ops::Deref;

/// Location of the version that a reader sees.
pub(super) enum Nearby {
    Seen(RecordOffset),
    /// No version is visible.
    None,
    /// After this one, which is not visible, and some others.
    Far(RecordOffset),
}

/// Versions that are checked one by one.
const NEARBY: usize = 16;

/// The newest version from `newest` on that is visible at `sequence`, if it is among the first.
#[inline]
pub(super) fn nearby(nodes: &Nodes, newest: RecordOffset, sequence: SequenceNumber) -> Nearby {
    let mut offset = newest;
    for _ in 0..NEARBY {
        let record = nodes.record(offset);
        if record.sequence() <= sequence {
            return Nearby::Seen(offset);
        }
        // Acquire pairs with the release store that chained the older version.
        match record.older().load(Ordering::Acquire) {
            Some(older) => offset = older,
            None => return Nearby::None,
        }
    }
    Nearby::Far(offset)
}

/// Inserts `record` into the versions of slot `index`, whose newest is `newest`.
pub(super) fn chain<L: Deref<Target = LeafBody> + Copy>(
    nodes: &Nodes,
    locked: &LockedLeaf<L>,
    index: usize,
    newest: Record<'_>,
    record: Record<'_>,
) {
    let sequence = record.sequence();
    if sequence >= newest.sequence() {
        // Relaxed: the release store of the slot publishes this link too.
        record.older().store(Some(newest.offset()), Ordering::Relaxed);
        locked.replace(index, record.offset());
        return;
    }
    let mut newer = newest;
    loop {
        // Acquire pairs with the release store below by an earlier holder of the lock.
        let older = newer.older().load(Ordering::Acquire);
        match older.map(|offset| nodes.record(offset)) {
            Some(older) if older.sequence() > sequence => newer = older,
            _ => {
                record.older().store(older, Ordering::Relaxed);
                // Release pairs with the acquire loads of readers that walk the chain without the
                // lock.
                newer.older().store(Some(record.offset()), Ordering::Release);
                return;
            }
        }
    }
}
