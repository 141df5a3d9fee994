//! The decisions of this crate that a planted bug changes: see [`sapwood_base::planted`].
use crate::options::CompactionStyle;
use sapwood_base::SequenceNumber;
use sapwood_base::planted::{Bug, is};
use std::borrow::Cow;

/// Whether a table may end before an entry.
#[inline]
pub(crate) fn may_end_table(is_new_key: bool) -> bool {
    is_new_key || is(Bug::SplitUserKey)
}

/// The key to write after `last` for an entry of `level` with `key`.
#[inline]
pub(crate) fn written_key<'a>(key: &'a [u8], level: u8, last: &[u8]) -> Cow<'a, [u8]> {
    if is(Bug::KeyAltered) && level == 0 {
        // The last byte of the eight-byte prefix.
        let mut altered = key.to_vec();
        if let Some(byte) = altered.get_mut(7) {
            *byte = byte.wrapping_sub(1);
        }
        if altered.as_slice() > last {
            return Cow::Owned(altered);
        }
    }
    Cow::Borrowed(key)
}

/// Whether nothing older lies below a flush.
#[inline]
pub(crate) fn flushes_to_bottom(is_bottom: bool) -> bool {
    is_bottom || is(Bug::FlushLosesDeletes)
}

/// The snapshots for which versions are kept.
#[inline]
pub(crate) fn needed_snapshots(snapshots: &[SequenceNumber]) -> &[SequenceNumber] {
    if is(Bug::SnapshotsIgnored) { &[] } else { snapshots }
}

/// Whether versions that no reader needs are kept.
#[inline]
pub(crate) fn keeps_all_versions() -> bool {
    is(Bug::OverwrittenVersionsStay)
}

/// Whether `snapshot` cannot see a version.
#[inline]
pub(crate) fn is_older_than(snapshot: SequenceNumber, version: SequenceNumber) -> bool {
    snapshot.0 < version.0 + u64::from(is(Bug::SnapshotBoundary))
}

/// Whether the newest version of a key, which `stripe` of `snapshots` snapshots cannot see, is
/// dropped.
#[inline]
pub(crate) fn drops_newest(is_newest: bool, stripe: usize, snapshots: usize) -> bool {
    is(Bug::NewestDropped) && is_newest && stripe > 0 && stripe == snapshots
}

/// Whether a table of database `of` can be of database `ours`; 0 is not recorded.
#[inline]
pub(crate) fn is_of_database(of: u64, ours: u64) -> bool {
    of == ours || of == 0 || ours == 0 || is(Bug::TableOfAnyDatabase)
}

/// Whether tombstones hide nothing below the inputs of a merge, whatever lies there.
#[inline]
pub(crate) fn forgets_older_data() -> bool {
    is(Bug::TombstoneDroppedEarly)
}

/// Whether the output of a failed step is discarded.
#[inline]
pub(crate) fn discards_failed_step() -> bool {
    !is(Bug::FinishedSlicesStay)
}

/// The smallest key that a reader of a table must not pass.
#[inline]
pub(crate) fn lower_bound(lower: Option<&[u8]>) -> Option<&[u8]> {
    if is(Bug::LowerBoundIgnored) { None } else { lower }
}

/// Whether the picker knows garbage by what it hides, not by its own bytes.
#[inline]
pub(crate) fn surveys_garbage() -> bool {
    !is(Bug::GarbageByWeight)
}

/// Whether merges of an idle database belong to a style.
#[inline]
pub(crate) fn merges_when_idle(style: CompactionStyle) -> bool {
    !is(Bug::LeveledNeverIdle) || style != CompactionStyle::Leveled
}

/// Whether tables are rewritten for a snapshot that was released.
#[inline]
pub(crate) fn rewrites_for_released() -> bool {
    !is(Bug::SnapshotGarbageStays)
}

/// Whether a merge of newer runs counts as worth its cost, whatever that is.
#[inline]
pub(crate) fn ignores_cost(newer: u64) -> bool {
    is(Bug::IdleRewrites) && newer > 0
}

/// The number of runs from which a tier is full.
#[inline]
pub(crate) fn full_tier(tier_runs: usize) -> usize {
    if is(Bug::TierNeverFull) { usize::MAX } else { tier_runs }
}

/// Whether the output of newer runs stays in their tier while older ones wait in it.
#[inline]
pub(crate) fn newer_runs_stay() -> bool {
    !is(Bug::NewerRunsSink)
}

/// Whether a merge that yielded continues with the tables that it began with.
#[inline]
pub(crate) fn continues_merges() -> bool {
    !is(Bug::MergeBegunForgotten)
}
