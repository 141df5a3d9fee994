//! Which versions of a key survive a flush or a compaction.
//!
//! The live snapshots cut the history into stripes; of the versions in one stripe only the newest can be read. A
//! tombstone goes when no older version can be left below it: it lies in the oldest stripe, and nothing older than
//! the output holds the key. This is the one place where versions are dropped.
use sapwood_base::planted::{self, Bug};
use sapwood_base::{SequenceNumber, ValueKind};

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is written.
    Keep,
    /// It is written with sequence number zero: nobody can tell it from an older one.
    KeepAsOldest,
    /// No reader can see it.
    Drop,
}

/// Decides entry by entry, in internal order.
pub struct VersionFilter {
    /// Ascending, without duplicates.
    snapshots: Vec<SequenceNumber>,
    zero_sequences: bool,
    /// The stripe of the last kept or dropped version of the current key.
    stripe: Option<usize>,
}

impl VersionFilter {
    /// A filter that honours `snapshots`. With `zero_sequences`, entries in the oldest stripe that have nothing
    /// older below lose their number.
    pub fn new(mut snapshots: Vec<SequenceNumber>, zero_sequences: bool) -> VersionFilter {
        if planted::is(Bug::SnapshotsIgnored) {
            snapshots.clear();
        }
        snapshots.sort_unstable();
        snapshots.dedup();
        VersionFilter { snapshots, zero_sequences, stripe: None }
    }

    /// Decides about the next entry. `new_key`: its user key differs from the one before. `bottom` tells whether
    /// data older than all inputs is free of this key; it is asked only when the answer matters.
    #[inline]
    pub fn decide(
        &mut self,
        new_key: bool,
        sequence: SequenceNumber,
        kind: ValueKind,
        bottom: impl FnOnce() -> bool,
    ) -> Fate {
        if planted::is(Bug::OverwrittenVersionsStay) {
            return Fate::Keep;
        }
        // The stripe of a version is the number of snapshots that cannot see it.
        let stripe = if self.snapshots.is_empty() {
            0
        } else {
            let late = u64::from(planted::is(Bug::SnapshotBoundary));
            self.snapshots.partition_point(|snapshot| snapshot.0 < sequence.0 + late)
        };
        if !new_key && self.stripe == Some(stripe) {
            return Fate::Drop;
        }
        if planted::is(Bug::NewestDropped) && new_key && stripe > 0 && stripe == self.snapshots.len() {
            return Fate::Drop;
        }
        self.stripe = Some(stripe);
        if stripe != 0 {
            return Fate::Keep;
        }
        let asks = kind == ValueKind::Delete || self.zero_sequences;
        match kind {
            _ if !asks || !bottom() => Fate::Keep,
            ValueKind::Delete => Fate::Drop,
            ValueKind::Put => Fate::KeepAsOldest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What a reader at `at` sees of `versions` (newest first).
    fn read(versions: &[(u64, ValueKind)], at: u64) -> Option<u64> {
        let (sequence, kind) = versions.iter().find(|(sequence, _)| *sequence <= at)?;
        (*kind == ValueKind::Put).then_some(*sequence)
    }

    #[test]
    fn every_snapshot_reads_the_same_before_and_after() {
        // All histories of five versions of one key, all sets of snapshots among them.
        for kinds in 0..32u32 {
            let history: Vec<(u64, ValueKind)> = (0..5u64)
                .rev()
                .map(|i| {
                    let kind = if kinds >> i & 1 == 1 { ValueKind::Put } else { ValueKind::Delete };
                    (10 + i * 10, kind)
                })
                .collect();
            for set in 0..128u32 {
                let snapshots: BTreeSet<u64> =
                    (0..7u64).filter(|i| set >> i & 1 == 1).map(|i| i * 10).collect();
                for bottom in [false, true] {
                    let list = snapshots.iter().map(|s| SequenceNumber(*s)).collect();
                    let mut filter = VersionFilter::new(list, false);
                    let mut kept = Vec::new();
                    for (i, (sequence, kind)) in history.iter().enumerate() {
                        match filter.decide(i == 0, SequenceNumber(*sequence), *kind, || bottom) {
                            Fate::Drop => {}
                            _ => kept.push((*sequence, *kind)),
                        }
                    }
                    for at in snapshots.iter().copied().chain([1000]) {
                        assert_eq!(read(&kept, at), read(&history, at), "{history:?} {snapshots:?}");
                    }
                    if !bottom && history[0].1 == ValueKind::Delete {
                        assert_eq!(kept[0].0, history[0].0, "a tombstone shields what lies below");
                    }
                    assert!(kept.len() <= snapshots.len() + 1);
                }
            }
        }
    }

    #[test]
    fn numbers_go_only_where_no_snapshot_can_tell() {
        let mut filter = VersionFilter::new(vec![SequenceNumber(15)], true);
        assert_eq!(filter.decide(true, SequenceNumber(20), ValueKind::Put, || true), Fate::Keep);
        assert_eq!(filter.decide(false, SequenceNumber(10), ValueKind::Put, || true), Fate::KeepAsOldest);
        assert_eq!(filter.decide(true, SequenceNumber(10), ValueKind::Put, || false), Fate::Keep);
    }
}
