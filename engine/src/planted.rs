//! The decisions that planted bugs change: see `sapwood_base::planted`.
//!
//! Each function has the name of what correct code decides, and is a constant, or the plain call,
//! in a build without the feature. A function named `not_...` takes a step that correct code does
//! not do at that place, and does nothing. No other file of this crate knows of the bugs. This one
//! imports no other module of it, because all of them may call it.
use sapwood_base::format::manifest::Edit;
use sapwood_base::planted::{Bug, is};
use sapwood_base::{Error, ErrorKind, KeyspaceId, Result, SequenceNumber, ValueKind};
use sapwood_storage::Env;
use sapwood_storage::fs::{File, FileSystem, LockGuard};
use sapwood_storage::sync::give_turn;
use std::borrow::Cow;
use std::ops::{Bound, Deref};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

type Lock = Option<Box<dyn LockGuard>>;

// Directory.

/// Holds the directory itself, so that its name may change.
#[inline]
pub(crate) fn hold(fs: &dyn FileSystem, directory: &Path) -> Result<Option<Arc<dyn FileSystem>>> {
    if is(Bug::DirectoryByName) { Ok(None) } else { fs.hold(directory) }
}

/// The lock, or the refusal of another owner.
#[inline]
pub(crate) fn lock_of(lock: Result<Lock>) -> Result<Lock> {
    if is(Bug::NoLock) { Ok(lock.unwrap_or(None)) } else { lock }
}

/// Whether a MANIFEST has to prove that it is ours.
#[inline]
pub(crate) fn manifests_need_proof() -> bool {
    !is(Bug::ForeignManifestTaken)
}

/// Whether files have to prove that they are ours before a database is destroyed.
#[inline]
pub(crate) fn destruction_needs_proof() -> bool {
    !is(Bug::DestroyByName)
}

// Keyspaces.

/// Whether a keyspace needs a name of at least a byte.
#[inline]
pub(crate) fn needs_name() -> bool {
    !is(Bug::EmptyKeyspaceName)
}

/// The upper bound of a prefix whose successor is `successor`.
#[inline]
pub(crate) fn end_of_prefix(successor: &[u8]) -> Bound<&[u8]> {
    if is(Bug::PrefixBound) { Bound::Included(successor) } else { Bound::Excluded(successor) }
}

// MANIFEST.

/// The commits before the start of the log, as an edit records them.
#[inline]
pub(crate) fn commits_before_log(commits: u64) -> u64 {
    if is(Bug::CommitsForgotten) { 0 } else { commits }
}

/// Those of the edits of a change that are appended: all.
#[inline]
pub(crate) fn appended(edits: &[Edit]) -> Cow<'_, [Edit]> {
    if is(Bug::DropNotLogged) {
        return edits.iter().filter(|edit| !matches!(edit, Edit::KeyspaceDropped(_))).cloned().collect();
    }
    Cow::Borrowed(edits)
}

/// Whether a new MANIFEST lists the trees of indexes.
#[inline]
pub(crate) fn lists_trees() -> bool {
    !is(Bug::TreeForgotten)
}

/// Whether a new MANIFEST is synced before it has its name.
#[inline]
pub(crate) fn syncs_new_manifest() -> bool {
    !is(Bug::NewManifestNotSynced)
}

/// Whether the name of a new MANIFEST is synced.
#[inline]
pub(crate) fn syncs_name_of_new_manifest() -> bool {
    !is(Bug::NewManifestNameNotSynced)
}

/// Whether edits are synced.
#[inline]
pub(crate) fn syncs_edits() -> bool {
    !is(Bug::ManifestNotSynced)
}

// Installation.

/// The inputs of a compaction are not removed before an edit has replaced them.
#[inline]
pub(crate) fn not_before_edit(fs: &dyn FileSystem, inputs: impl Iterator<Item = PathBuf>) {
    if is(Bug::DeletedBeforeEdit) {
        inputs.for_each(|path| drop(fs.remove_file(&path)));
    }
}

/// Whether a failed edit is certainly not on the disk, so that its new files can be removed.
#[inline]
pub(crate) fn is_clean_refusal(error: &Error) -> bool {
    error.is_scarcity() || is(Bug::OutputsTakenBack)
}

/// The position of a fence: after every reservation, published or not.
#[inline]
pub(crate) fn fence(published: impl FnOnce() -> u64, tail: impl FnOnce() -> u64) -> u64 {
    if is(Bug::VacancyUnfenced) { published() } else { tail() }
}

// Background work.

/// Whether the end of a guard ends its pause.
#[inline]
pub(crate) fn guard_ends_pause() -> bool {
    !is(Bug::PauseOutlivesGuard)
}

/// Whether a close waits until other threads have left their calls.
#[inline]
pub(crate) fn close_waits_for_calls() -> bool {
    !is(Bug::CloseLeavesCalls)
}

/// Whether a write that waits for a flush fails while flushes are paused.
#[inline]
pub(crate) fn pause_ends_waits() -> bool {
    !is(Bug::PausedWritesWait)
}

/// Whether the most urgent keyspace is compacted first.
#[inline]
pub(crate) fn urgent_keyspace_first() -> bool {
    !is(Bug::FirstKeyspaceFirst)
}

/// Whether a compaction that met a scarcity skips looks for work.
#[inline]
pub(crate) fn failed_compaction_waits() -> bool {
    !is(Bug::CompactionRetriedAtOnce)
}

/// Whether a full disk leaves the write path open.
#[inline]
pub(crate) fn full_disk_can_pass() -> bool {
    !is(Bug::FullDiskIsFinal)
}

/// Whether an error of background work closes the write path.
#[inline]
pub(crate) fn errors_close_the_write_path() -> bool {
    !is(Bug::ErrorSwallowed)
}

/// How long a thread sleeps until a sync is due, where a look at its work is `rounded` away.
#[inline]
pub(crate) fn sleep_until(due: Duration, rounded: Duration) -> Duration {
    if is(Bug::PeriodicRounded) { rounded } else { due }
}

/// A periodic sync does not wait for segments.
#[inline]
pub(crate) fn not_before_periodic_sync(provision: impl FnOnce() -> Result<()>) -> Result<()> {
    if is(Bug::PeriodicAfterSegments) { provision() } else { Ok(()) }
}

/// The next periodic sync is not forgotten: commits that arrived during this one have set its time.
#[inline]
pub(crate) fn not_after_periodic_sync(forget: impl FnOnce() -> bool) {
    if is(Bug::PeriodicForgotten) {
        forget();
    }
}

// Flush.

/// Whether a full disk takes spare segments from the log.
#[inline]
pub(crate) fn spares_give_room() -> bool {
    !is(Bug::SparesOnFullDisk)
}

/// The log of a memtable is not recycled, and does not start later, before its tables are durable.
#[inline]
pub(crate) fn not_before_tables(
    recycle: impl FnOnce(),
    move_log_start: impl FnOnce() -> Result<()>,
) -> Result<()> {
    if is(Bug::RecycledBeforeEdit) {
        recycle();
    }
    if is(Bug::LogStartBeforeFlush) { move_log_start() } else { Ok(()) }
}

/// The view that is loaded after the memtable was complete.
#[inline]
pub(crate) fn newer<T>(older: impl FnOnce() -> T, newer: T) -> T {
    if is(Bug::FlushViewBeforeRotation) { older() } else { newer }
}

/// Whether a failed flush removes the tables that it has finished.
#[inline]
pub(crate) fn failed_flush_removes_tables() -> bool {
    !is(Bug::FailedFlushKeepsTables)
}

// Commits.

/// Whether the memtable that starts at `memtable` holds the commit of the body at `body`.
#[inline]
pub(crate) fn holds_body(memtable: u64, body: u64) -> bool {
    memtable <= body || is(Bug::BodyAcrossRotation)
}

/// Whether a commit fails if one before it has left a gap in the log.
#[inline]
pub(crate) fn commits_check_for_gaps() -> bool {
    !is(Bug::GapAcknowledged)
}

/// Whether a commit that asks for a sync waits for it.
#[inline]
pub(crate) fn commits_wait_for_sync() -> bool {
    !is(Bug::AcknowledgeBeforeSync)
}

/// Whether a commit waits for a flush if all segments of the log are in use.
#[inline]
pub(crate) fn full_log_can_wait() -> bool {
    !is(Bug::FullLogIsFinal)
}

/// Whether a memtable of this size takes another commit.
#[inline]
pub(crate) fn has_room(size: usize, full: usize) -> bool {
    size < full || is(Bug::MemtableGrows)
}

/// A limit of the delays of a writer.
#[inline]
pub(crate) fn limit_of_stall(limit: u64) -> u64 {
    if is(Bug::StallClockUnbounded) { u64::MAX } else { limit }
}

// The places of the log.

/// A position with all of its bits. The lowest ones (`mask`) are those of a word; it is near
/// `near`.
#[inline]
pub(crate) fn carried(position: u64, near: u64, mask: u64) -> u64 {
    if is(Bug::WordWithoutCarry) { near & !mask | position & mask } else { position }
}

/// The start of a generation, or `pending` while it is not known.
#[inline]
pub(crate) fn start_of(position: u64, pending: u64) -> u64 {
    if position == pending && is(Bug::StartNotAwaited) { 0 } else { position }
}

/// The order in which a commit is published.
#[inline]
pub(crate) fn releases_inserts() -> Ordering {
    if is(Bug::PublishedUnordered) { Ordering::Relaxed } else { Ordering::Release }
}

/// How many segments at the end of positions are kept for rotations.
#[inline]
pub(crate) fn kept_segments(kept: u64) -> u64 {
    if is(Bug::PositionsPastTheEnd) { 0 } else { kept }
}

/// Whether there are no segments beyond the last position.
#[inline]
pub(crate) fn segments_end_with_positions() -> bool {
    !is(Bug::PositionsPastTheEnd)
}

/// Whether segments that are more than the log needs are removed.
#[inline]
pub(crate) fn surplus_segments_go() -> bool {
    !is(Bug::SpareSegmentsStay)
}

/// Whether segments that are too short for the log to come are removed.
#[inline]
pub(crate) fn short_segments_go() -> bool {
    !is(Bug::ShortSegmentsStay)
}

/// Whether the log is kept for its holders.
#[inline]
pub(crate) fn holders_count() -> bool {
    !is(Bug::BodyUnpinned)
}

// Syncs of the log.

/// Whether a header is synced before positions of its segment are reserved.
#[inline]
pub(crate) fn syncs_segment_headers() -> bool {
    !is(Bug::SegmentHeaderNotSynced)
}

/// The file of a segment: writes reach it at once.
#[inline]
pub(crate) fn unbuffered(file: Box<dyn File>) -> Box<dyn File> {
    #[cfg(feature = "planted")]
    if is(Bug::UserSpaceBuffer) {
        return Box::new(buffer::BufferedFile::new(file));
    }
    file
}

/// Whether a follower checks that the sync it has waited for reached its commit.
#[inline]
pub(crate) fn followers_check_again() -> bool {
    !is(Bug::LeadersTarget)
}

/// The position that a sync reaches: published, and then checked for a gap.
#[inline]
pub(crate) fn without_gap(
    published: impl FnOnce() -> u64,
    check: impl FnOnce() -> Result<()>,
) -> Result<u64> {
    if is(Bug::GapCalledDurable) {
        // As in a thread that is interrupted here, after the check before it has led.
        for _ in 0..50 {
            give_turn();
        }
        return Ok(published());
    }
    let position = published();
    check().map(|()| position)
}

/// The mark of a sync is not written before it.
#[inline]
pub(crate) fn not_before_sync(mark: impl FnOnce()) {
    if is(Bug::LeadersTarget) || is(Bug::LostWakeUp) {
        // Models the duration of a sync on a disk: meanwhile further followers arrive.
        (0..50).for_each(|_| std::thread::yield_now());
    }
    if is(Bug::MarkBeforeSync) {
        mark();
    }
}

/// Syncs once: the outcome of a second attempt proves nothing.
#[inline]
pub(crate) fn once(sync: impl Fn() -> Result<()>) -> Result<()> {
    let result = sync();
    if is(Bug::RetrySync) && result.is_err() { sync() } else { result }
}

/// Whether the leader of a sync wakes its followers.
#[inline]
pub(crate) fn leader_wakes_followers() -> bool {
    !is(Bug::LostWakeUp)
}

/// Whether a sync goes on in the segment of `position`, after the one of `first`.
#[inline]
pub(crate) fn syncs_from(position: u64, first: u64) -> bool {
    position == first || !is(Bug::SyncOneSegment)
}

/// Whether a sync includes what was written to a body behind an earlier sync.
#[inline]
pub(crate) fn syncs_late_bodies() -> bool {
    !is(Bug::BodyNotSynced)
}

/// Whether every sync waits for that of the replayed log.
#[inline]
pub(crate) fn syncs_cover_replayed_log() -> bool {
    !is(Bug::RecoveredLogNotAwaited)
}

/// Whether the replayed log is synced.
#[inline]
pub(crate) fn replayed_log_is_synced() -> bool {
    !is(Bug::RecoveredLogNotSynced)
}

// Recovery.

/// The records that follow in the log. A failed read is an error, not the end of the log.
#[inline]
pub(crate) fn following<T>(read: Result<Option<T>>) -> Result<Option<T>> {
    match read {
        Err(error) if error.kind() == ErrorKind::Io && is(Bug::ReadErrorEndsLog) => Ok(None),
        read => read,
    }
}

/// Whether a record counts whose checksum is `verified`.
#[inline]
pub(crate) fn is_whole(verified: bool) -> bool {
    verified || is(Bug::TornBatch)
}

/// Whether the replay reaches an operation of a batch: also one that it has to report.
#[inline]
pub(crate) fn is_reached<T>(operation: &Result<T>) -> bool {
    operation.is_ok() || !is(Bug::TornBatch)
}

/// Whether no memtable begins between a body and its record.
#[inline]
pub(crate) fn body_and_record_stay_together() -> bool {
    !is(Bug::BodyCutAtReplay)
}

/// Whether the header of a segment counts only in the file that it names.
#[inline]
pub(crate) fn headers_name_their_file() -> bool {
    !is(Bug::StrangeHeader)
}

/// Whether damage below a proof of a sync is an error.
#[inline]
pub(crate) fn damage_is_an_error() -> bool {
    !is(Bug::DamageEndsLog)
}

/// The log ends at a tear: what follows does not count.
#[inline]
pub(crate) fn not_after_tear<T>(later: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
    if is(Bug::TornSessionSkipped) { later() } else { Ok(None) }
}

/// Whether a record at `position` is replayed, of a log that begins at `start`.
#[inline]
pub(crate) fn is_replayed(position: u64, start: u64) -> bool {
    position > start || !is(Bug::ReplayOffByOne)
}

/// Whether rows of a keyspace are replayed; `next` is the number of the next keyspace.
#[inline]
pub(crate) fn has_rows(keyspace: KeyspaceId, next: u32) -> bool {
    keyspace.0 + 1 != next.max(2) || !is(Bug::ReplaySkipsKeyspace)
}

/// Whether a replay obeys the limit of memtables.
#[inline]
pub(crate) fn replay_is_bounded() -> bool {
    !is(Bug::ReplayedIntoMemory)
}

/// Whether a replay fills memtables by what entries take in memory.
#[inline]
pub(crate) fn replay_weighs() -> bool {
    !is(Bug::ReplayByLogBytes)
}

/// Whether the part of the log that no memtable had room for is replayed later.
#[inline]
pub(crate) fn replays_rest() -> bool {
    !is(Bug::RestForgotten)
}

/// Whether the numbers of files that the MANIFEST does not list are not given out again.
#[inline]
pub(crate) fn all_numbers_count() -> bool {
    !is(Bug::FileNumbersReused)
}

/// The start of the new log: `base`, above every position that was reserved. The old log ends at
/// `end`, perhaps `empty`, and that of a new database starts at `first`.
#[inline]
pub(crate) fn next_base(base: u64, end: u64, first: u64, empty: bool) -> u64 {
    if is(Bug::SequenceRestarts) && empty {
        return first;
    }
    if is(Bug::PositionsReused) { end } else { base }
}

/// Whether an open has nothing to record about the log.
#[inline]
pub(crate) fn is_same_log(is_same: bool) -> bool {
    is_same || is(Bug::SessionUnrecorded)
}

/// The start of the log that is open for writing; the one of the last session was `opened`.
#[inline]
pub(crate) fn start_of_new_log(base: u64, opened: u64) -> u64 {
    if is(Bug::RecoveredLogOpen) { opened } else { base }
}

/// Whether the replayed log is called unsynced.
#[inline]
pub(crate) fn replayed_log_is_unsynced() -> bool {
    !is(Bug::CalledSyncedEarly)
}

/// The start of the log that is kept after a replay from `start` to `end`.
#[inline]
pub(crate) fn start_of_kept_log<T>(start: T, end: T) -> T {
    if is(Bug::ReplayedLogDropped) { end } else { start }
}

/// How many live tables the sweep removes.
#[inline]
pub(crate) fn live_tables_to_sweep() -> usize {
    usize::from(is(Bug::GreedySweep))
}

/// Whether a file has to prove that it is ours before the sweep removes it.
#[inline]
pub(crate) fn sweep_needs_proof() -> bool {
    !is(Bug::SweepByName)
}

// Reads.

/// The view, and then the sequence number to read at.
#[inline]
pub(crate) fn in_order<V, S>(view: impl FnOnce() -> V, sequence: impl FnOnce() -> S, env: &Env) -> (V, S) {
    if is(Bug::SequenceBeforeView) {
        let sequence = sequence();
        // As in a thread that is interrupted here.
        env.sleep(Duration::from_micros(50));
        return (view(), sequence);
    }
    let view = view();
    (view, sequence())
}

/// A row that an earlier get has kept: none, because a write would have to invalidate it.
#[inline]
pub(crate) fn kept_row<T: Send + Sync + 'static>(keyspace: &Arc<T>, key: &[u8]) -> Option<&'static [u8]> {
    #[cfg(feature = "planted")]
    if is(Bug::StaleRow) {
        return rows::recall(keyspace, key);
    }
    let _ = (keyspace, key);
    None
}

/// A get keeps no row.
#[inline]
pub(crate) fn keep_row<T, V>(keyspace: &Arc<T>, key: &[u8], exists: bool, value: &V)
where
    T: Send + Sync + 'static,
    V: Deref<Target = [u8]>,
{
    #[cfg(feature = "planted")]
    if exists && is(Bug::StaleRow) {
        rows::remember(keyspace, key, value);
    }
    let _ = (keyspace, key, exists, value);
}

/// The versions in a memtable that a scan sees.
#[inline]
pub(crate) fn versions_seen<I>(seen: impl FnOnce() -> I, all: impl FnOnce() -> I) -> I {
    if is(Bug::VersionsWalked) { all() } else { seen() }
}

/// The end of all entries before `key`, exclusive.
#[inline]
pub(crate) fn end_of_previous(key: &mut Vec<u8>) -> &[u8] {
    if is(Bug::PrevRepeats) {
        key.push(0);
    }
    key
}

/// Whether a scan ends at the first key beyond its bounds, alive or not.
#[inline]
pub(crate) fn bounds_end_scans() -> bool {
    !is(Bug::BoundsNotHandedOn)
}

/// The state that an iterator reads: that of its creation.
#[inline]
pub(crate) fn of_creation<T>(creation: T, now: impl FnOnce() -> Option<T>) -> T {
    if is(Bug::IterSeesLater) { now().unwrap_or(creation) } else { creation }
}

/// A reference for a deferred release, which ends with the cell of the view.
#[inline]
pub(crate) fn weakly<T: Send + Sync + 'static>(cell: &Arc<T>) -> impl FnOnce() -> Option<Arc<T>> + use<T> {
    let kept = is(Bug::ViewOutlivesClose).then(|| Arc::clone(cell));
    let weak = Arc::downgrade(cell);
    move || kept.or_else(|| weak.upgrade())
}

// Vacant ranges.

/// Whether a put ends the vacancy of its key.
#[inline]
pub(crate) fn puts_cut_ranges() -> bool {
    !is(Bug::VacancyNotCut)
}

/// Whether a range that is vacant since `since` is vacant at `sequence`.
#[inline]
pub(crate) fn is_known_at(since: SequenceNumber, sequence: SequenceNumber) -> bool {
    since <= sequence || is(Bug::VacancyForOlder)
}

/// Whether a range grows over the next one: if that was `watched` long enough.
#[inline]
pub(crate) fn grows_over(watched: bool) -> bool {
    watched || is(Bug::VacancyGrownEarly)
}

/// The kind of a range that a scan has found.
#[inline]
pub(crate) fn watched_first<K>(announced: K, known: K) -> K {
    if is(Bug::VacancyAtOnce) { known } else { announced }
}

/// A lower bound of the state at `sequence` in a view that is complete up to `covered`.
#[inline]
pub(crate) fn shown(sequence: SequenceNumber, covered: SequenceNumber) -> SequenceNumber {
    if is(Bug::VacancyOfLaterState) { sequence } else { sequence.min(covered) }
}

// Indexes.

/// The order in which a changed set of indexes is announced: after the view that lists it.
#[inline]
pub(crate) fn releases_index_set() -> Ordering {
    if is(Bug::IndexEpochUnordered) { Ordering::Relaxed } else { Ordering::Release }
}

/// Whether an open creates the indexes that it names.
#[inline]
pub(crate) fn makes_named_indexes() -> bool {
    !is(Bug::NamedIndexNotMade)
}

/// Whether an open that names indexes fails if it leaves out one without extractor.
#[inline]
pub(crate) fn left_out_index_is_an_error() -> bool {
    !is(Bug::LeftOutIndexUnnoticed)
}

/// Whether rows are made durable before an index of them.
#[inline]
pub(crate) fn rows_are_durable_first() -> bool {
    !is(Bug::IndexAheadOfRows)
}

/// Whether a commit is logged that has read what it deletes from an index.
#[inline]
pub(crate) fn reads_are_logged() -> bool {
    !is(Bug::StrictNotLogged)
}

/// Whether index entries count for the limit of a batch.
#[inline]
pub(crate) fn index_entries_weigh() -> bool {
    !is(Bug::IndexEntriesUncounted)
}

/// Whether an operation of this kind deletes the index entries of the older row: every one.
#[inline]
pub(crate) fn deletes_entries(kind: ValueKind) -> bool {
    kind != ValueKind::Delete || !is(Bug::DeleteKeepsEntries)
}

/// Whether a flush deletes the index entries that its rows have made stale.
#[inline]
pub(crate) fn flush_deletes_entries() -> bool {
    !is(Bug::StaleEntriesStay)
}

/// Whether a row in a memtable is newer than an entry written at `entry`.
#[inline]
pub(crate) fn is_newer_row(row: SequenceNumber, entry: SequenceNumber) -> bool {
    row > entry && !is(Bug::RowsNotAsked)
}

/// Whether entries up to `newest` may be applied while the oldest snapshot is at `snapshot`.
#[inline]
pub(crate) fn may_apply(newest: SequenceNumber, snapshot: SequenceNumber) -> bool {
    newest <= snapshot || is(Bug::ApplyIgnoresSnapshots)
}

/// Whether entries of this kind are applied to a tree: all are.
#[inline]
pub(crate) fn is_applied(kind: ValueKind) -> bool {
    kind != ValueKind::Delete || !is(Bug::ApplyLosesDeletes)
}

/// Whether the file of a tree is removed if a scarcity kept it out of the MANIFEST.
#[inline]
pub(crate) fn nameless_tree_is_removed() -> bool {
    !is(Bug::NamelessTreeStays)
}

/// The effect of a correction on a count.
#[inline]
pub(crate) fn corrected_by(difference: i64) -> i64 {
    if is(Bug::CountIgnoresDeltas) { 0 } else { difference }
}

#[cfg(feature = "planted")]
mod rows {
    use sapwood_storage::sync::Mutex;
    use std::any::Any;
    use std::collections::BTreeMap;
    use std::sync::{Arc, Weak};

    type Rows = BTreeMap<Vec<u8>, &'static [u8]>;
    type Owner = Weak<dyn Any + Send + Sync>;

    /// The rows of each keyspace, by the address of its state. The weak reference keeps the address
    /// from being used again. Values are never freed, because readers borrow them.
    static ROWS: Mutex<BTreeMap<usize, (Owner, Rows)>> = Mutex::new(BTreeMap::new());

    pub(super) fn recall<T>(keyspace: &Arc<T>, key: &[u8]) -> Option<&'static [u8]> {
        ROWS.lock().get(&(Arc::as_ptr(keyspace) as usize))?.1.get(key).copied()
    }

    pub(super) fn remember<T: Send + Sync + 'static>(keyspace: &Arc<T>, key: &[u8], value: &[u8]) {
        let owner: Arc<dyn Any + Send + Sync> = keyspace.clone();
        let mut rows = ROWS.lock();
        let (_, rows) = rows
            .entry(Arc::as_ptr(keyspace) as usize)
            .or_insert_with(|| (Arc::downgrade(&owner), Rows::new()));
        rows.insert(key.to_vec(), value.to_vec().leak());
    }
}

#[cfg(feature = "planted")]
mod buffer {
    use sapwood_base::Result;
    use sapwood_storage::fs::File;
    use sapwood_storage::sync::Mutex;
    use std::path::Path;

    /// A file that keeps writes in the process until the next sync. What it keeps is not read.
    pub(super) struct BufferedFile {
        file: Box<dyn File>,
        writes: Mutex<Vec<(u64, Vec<u8>)>>,
    }

    impl BufferedFile {
        pub(super) fn new(file: Box<dyn File>) -> BufferedFile {
            BufferedFile { file, writes: Mutex::default() }
        }

        fn flush(&self) -> Result<()> {
            let writes = std::mem::take(&mut *self.writes.lock());
            writes.iter().try_for_each(|(offset, bytes)| self.file.write_at(*offset, bytes))
        }
    }

    impl File for BufferedFile {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
            self.file.read_at(offset, buffer)
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
            self.writes.lock().push((offset, bytes.to_vec()));
            Ok(())
        }

        fn sync_data(&self) -> Result<()> {
            self.flush()?;
            self.file.sync_data()
        }

        fn sync_all(&self) -> Result<()> {
            self.flush()?;
            self.file.sync_all()
        }

        fn set_len(&self, len: u64) -> Result<()> {
            self.file.set_len(len)
        }

        fn len(&self) -> Result<u64> {
            self.file.len()
        }

        fn path(&self) -> &Path {
            self.file.path()
        }
    }
}
