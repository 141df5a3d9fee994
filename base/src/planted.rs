//! Planted bugs: classic mistakes of storage engines. The test programs plant them, one at a time,
//! to measure whether the tests detect them.
//!
//! This file is the registry. The crate where a mistake belongs has a file `planted.rs` with one
//! *decision function* per [`Bug`], named for the decision of correct code; the decisions of this
//! crate are below. Production code calls them, and nothing else calls [`is`].
//!
//! Without the feature `planted`, which no crate turns on by default, [`is`] is the constant
//! `false` and a decision function is a constant: the compiler evaluates the last assertion of this
//! file. With the feature, [`is`] reads one word. This crate reads no environment: a test program
//! selects the bug and calls `plant` before it opens a database.
//!
//! Numbers such as B15 name a class and a real bug of it, in the order of the table of
//! `tests/README.md`.

/// Generates the enum, the names, and the descriptions.
macro_rules! bugs {
    ($($variant:ident, $name:literal, $class:literal, $what:literal;)*) => {
        /// A classic mistake that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Bug {
            $(#[doc = concat!($class, ": ", $what)] $variant,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$variant,)*];

            /// The name that test programs accept, in kebab case.
            pub const fn name(self) -> &'static str {
                match self { $(Bug::$variant => $name,)* }
            }

            /// Its class, and where it was observed: `B15 (RocksDB 7.7)`.
            pub const fn class(self) -> &'static str {
                match self { $(Bug::$variant => $class,)* }
            }

            /// The description of the mistake.
            pub const fn what(self) -> &'static str {
                match self { $(Bug::$variant => $what,)* }
            }
        }
    };
}

bugs! {
    // A. The tail of the log.
    SyncOneSegment, "sync-one-segment", "A3 (RocksDB #12489)",
        "a sync that covers two log segments syncs the first one only";
    StaleRecords, "stale-records", "A4 (RocksDB #12918)",
        "checksums of log records are not seeded with the position, so a recycled segment's old records count";
    SegmentHeaderNotSynced, "segment-header-not-synced", "A7 (LevelDB #193)",
        "a log segment is used before its header is synced";
    ReadErrorEndsLog, "read-error-ends-log", "A2 (RocksDB #6288)",
        "a read error of the log is taken for its end";
    DamageEndsLog, "damage-ends-log", "A1 (RocksDB #7701)",
        "a damaged record in the middle of the synced log is taken for its end";
    TornBatch, "torn-batch", "A10 (Badger #592)",
        "a log record whose checksum is wrong is applied as far as it can be decoded";
    RecoveredLogOpen, "recovered-log-open", "A9 (fjall #317)",
        "recovery does not note where the old log ends, so what is written after it is not replayed";
    RecoveredLogNotSynced, "recovered-log-not-synced", "A (measured beside us)",
        "recovery replays what was never synced and does not sync it: a second crash takes what the first had left";
    RecoveredLogNotAwaited, "recovered-log-not-awaited", "A (our own late sync)",
        "a commit that asks for a sync after a recovery does not wait for that of the log that was replayed";
    CalledSyncedEarly, "called-synced-early", "A (our own late sync)",
        "recovery calls the log that it has replayed synced before it is: what a second crash takes is reported as damage";
    TornSessionSkipped, "torn-session-skipped", "A (our own late sync)",
        "recovery replays a later session of the log after a tear in an earlier one";
    GapAcknowledged, "gap-acknowledged", "A5 (RocksDB #13169)",
        "a commit is acknowledged although one before it left a gap in the log";
    GapCalledDurable, "gap-called-durable", "A (our own sync mark)",
        "a sync calls a gap durable that a failed write left while the sync began";
    MarkBeforeSync, "mark-before-sync", "A (our own sync mark)",
        "the mark that says how far the log is durable is written before the sync";

    StrangeHeader, "strange-header", "A (our own segment header)",
        "a header of a log segment counts although it is that of another file, whose blocks a new one shows";

    // B. MANIFEST, names, order of the directory.
    DirectoryNotSynced, "directory-not-synced", "B15 (RocksDB 7.7)",
        "names of new files are not synced";
    ManifestNotSynced, "manifest-not-synced", "B14 (LevelDB #189)",
        "edits of the MANIFEST are not synced";
    NewManifestNotSynced, "new-manifest-not-synced", "B14 (goleveldb #351)",
        "a new MANIFEST replaces the old one before its content is synced";
    NewManifestNameNotSynced, "new-manifest-name-not-synced", "B13 (LevelDB #195)",
        "the old MANIFEST is removed before the name of the new one is synced";
    TableNotSynced, "table-not-synced", "B17 (RocksDB #5287)",
        "a table is not synced before the MANIFEST lists it";
    DropNotLogged, "drop-not-logged", "B16 (RocksDB 7.6)",
        "dropping a keyspace writes nothing into the MANIFEST: it comes back at the next open";

    TableOfAnyDatabase, "table-of-any-database", "B (our own footer)",
        "a table of another database passes if its number and its length are right";
    ForeignManifestTaken, "foreign-manifest-taken", "B (LevelDB beside us)",
        "a MANIFEST without our magic number is taken for a creation that was cut short";
    DestroyByName, "destroy-by-name", "B (RocksDB beside us)",
        "destroying a database trusts names: the files of other engines go as well";
    SweepByName, "sweep-by-name", "B (measured beside us)",
        "the sweep at open takes every file with a name of ours that it does not know for an orphan";
    LockByName, "lock-by-name", "B (measured beside us)",
        "who has the lock file open has the database, whatever became of the file's name";
    DirectoryByName, "directory-by-name", "B (sourmash #206)",
        "the directory is looked up by its name at each call, so a renamed or replaced one is another database";

    // C. Syncs and acknowledgements.
    AcknowledgeBeforeSync, "acknowledge-before-sync", "C32 (VelesDB #898)",
        "a commit that asked for a sync does not wait for it";
    LeadersTarget, "leaders-target", "C26 (Turso #9237)",
        "who waits for another thread's sync takes its end for the end of its own wait";
    RetrySync, "retry-sync", "C23 (fsyncgate)",
        "a failed sync of the log is tried again and believed";
    OutputsTakenBack, "outputs-taken-back", "C25 (RocksDB #4990)",
        "after a failed sync of the MANIFEST the new tables are deleted, though the edit may be on disk";
    UserSpaceBuffer, "user-space-buffer", "C32 (measured beside us)",
        "acknowledged records wait in a buffer of the process until the next sync";
    RecycledBeforeEdit, "recycled-before-edit", "C32 (VelesDB #898)",
        "log segments are recycled before the MANIFEST says that they are not needed";

    // D. Sequence numbers, file numbers, the start of recovery.
    PositionsReused, "positions-reused", "D33 (Typhon #712)",
        "positions that a crash took are handed out again after it";
    CommitsForgotten, "commits-forgotten", "D (our own commit numbers)",
        "a flush does not say how many commits lie below the new start of the log";
    SequenceRestarts, "sequence-restarts", "D33 (measured beside us)",
        "after a clean close sequence numbers start at the beginning: old rows are not seen, or win over new ones";
    FileNumbersReused, "file-numbers-reused", "D39 (dugite #926)",
        "numbers of files that the MANIFEST does not know are given out again";
    LogStartBeforeFlush, "log-start-before-flush", "D37 (SlateDB #1625)",
        "the start of the log moves before the flushed tables are durable";
    ReplayedLogDropped, "replayed-log-dropped", "D37 (measured beside us)",
        "recovery moves the start of the log although what it replayed is in memory only";
    ReplayOffByOne, "replay-off-by-one", "D37 (boundary)",
        "replay leaves out the record that stands exactly at the start of the log";
    ReplaySkipsKeyspace, "replay-skips-keyspace", "D36 (cnosdb #925)",
        "replay leaves out the keyspace that was made last";
    CacheKeyWithoutFile, "cache-key-without-file", "D38 (RocksDB #14209)",
        "tables of equally many blocks share their place in the cache";
    StaleRow, "stale-row", "D38 (measured beside us)",
        "a get answers with what an earlier get of the key had found in a table";

    // E. Versions, snapshots, tombstones.
    TombstoneDroppedEarly, "tombstone-dropped-early", "E41 (RocksDB #2722)",
        "a compaction drops tombstones above the data that they hide";
    FlushLosesDeletes, "flush-loses-deletes", "E41 (measured beside us)",
        "a flush drops tombstones";
    SnapshotBoundary, "snapshot-boundary", "E42 (SurrealKV #351)",
        "a snapshot is taken not to see the version with its own number";
    SnapshotsIgnored, "snapshots-ignored", "E42 (SurrealKV #351)",
        "flush and compaction drop versions that snapshots need";
    NewestDropped, "newest-dropped", "E43 (RocksDB 9.10)",
        "with a live snapshot, compaction drops what is newer than it";
    SplitUserKey, "split-user-key", "E40 (LevelDB #320)",
        "versions of one key are split over two tables of a run";
    LowerBoundIgnored, "lower-bound-ignored", "E47 (Pebble #2015)",
        "iterators read a table's part below its raised lower bound, which a compaction has merged already";
    SequenceBeforeView, "sequence-before-view", "E45 (RocksDB #6973)",
        "a get takes the number to read at before the view";

    // F. Tables in and out.
    DeletedBeforeEdit, "deleted-before-edit", "F56 (RocksDB #782)",
        "input tables of a compaction are deleted before the edit that replaces them";
    GreedySweep, "greedy-sweep", "F57 (cqlite #1393)",
        "the sweep at open takes a live table for an orphan";
    UnreadableSkipped, "unreadable-skipped", "F53 (RocksDB 8.7)",
        "an iterator goes on behind a block that it cannot read";
    KeyAltered, "key-altered", "F (measured beside us)",
        "a flush alters a byte of some keys";
    ObsoleteTablesStay, "obsolete-tables-stay", "F (measured beside us)",
        "tables that no version lists keep their files";
    OverwrittenVersionsStay, "overwritten-versions-stay", "F (measured beside us)",
        "compaction keeps every version, so overwritten data never gives its space back";
    FinishedSlicesStay, "finished-slices-stay", "F (our own slices)",
        "slices of a compaction that were finished when another one met a full disk keep their files";
    CompactionRetriedAtOnce, "compaction-retried-at-once", "F (our own retries)",
        "a compaction that met a full disk is tried again at every look, and writes its slice each time";
    GarbageByWeight, "garbage-by-weight", "F (RocksDB #13120)",
        "deletions count by what they weigh, so the large rows that they hide stay";
    SnapshotGarbageStays, "snapshot-garbage-stays", "F (our own last level)",
        "what the last level holds for a snapshot stays when that has gone";
    LeveledNeverIdle, "leveled-never-idle", "F (our own leveling)",
        "with leveling an idle database merges nothing";
    IdleRewrites, "idle-rewrites", "F (our own idle merging)",
        "newer runs are merged into the last level however little they are";
    TierNeverFull, "tier-never-full", "F (our own tiers)",
        "runs of a tier are never merged into one of the next tier";
    MergeBegunForgotten, "merge-begun-forgotten", "F (our own tiers)",
        "a merge that yielded takes newer runs along when it continues, and begins again";
    NewerRunsSink, "newer-runs-sink", "F (our own tiers)",
        "beside a merge that yielded, newer runs move below older runs that wait for it";
    FirstKeyspaceFirst, "first-keyspace-first", "H (our own compaction thread)",
        "of the keyspaces with work the one with the lowest number is always next";

    // G. Iterators, memory.
    PrevRepeats, "prev-repeats", "G (cursor)",
        "the first step back after a step forward stays where it is";
    SeekLandsLate, "seek-lands-late", "G (cursor)",
        "a seek in a table lands one entry late";
    IterSeesLater, "iter-sees-later", "H (own)",
        "an iterator fixes its state when the first entry is asked for and not when it is made";
    BoundsNotHandedOn, "bounds-not-handed-on", "H (own)",
        "a scan asks whether it has left its range only where it finds a live entry";
    VacancyNotCut, "vacancy-not-cut", "H (own)",
        "a put into a range that scans jump over does not end it";
    VacancyAtOnce, "vacancy-at-once", "H (own)",
        "a range is jumped over without being watched first, so a put behind the scan's back stays in it";
    VacancyForOlder, "vacancy-for-older", "H (own)",
        "a scan of an older state jumps over a range that became vacant later";
    VacancyUnfenced, "vacancy-unfenced", "H (own)",
        "a range is watched from what is published on, so a put that is under way is not seen to go by";
    VacancyGrownEarly, "vacancy-grown-early", "H (own)",
        "a known range grows over what is announced, or watched from later on than the scan has read";
    VersionsWalked, "versions-walked", "H (own)",
        "a scan steps through all versions of a key in a memtable";
    PrefixBound, "prefix-bound", "G (cursor)",
        "the upper bound of a prefix is included";
    FilterForgets, "filter-forgets", "G (filter)",
        "the filter lacks the key that begins a block";
    PinnedFrameFreed, "pinned-frame-freed", "G63 (RocksDB 10.10)",
        "a frame of the cache is reused although it is pinned";
    TornLeaf, "torn-leaf", "G64 (Typhon #679)",
        "a reader of the memtable does not check that its leaf stayed the same";
    AppendLeftOut, "append-left-out", "G (memtable)",
        "an index entry that is appended while the others are put in order is left out";
    CutTooEarly, "cut-too-early", "G (memtable)",
        "index entries pass for sorted before they are in the leaves";
    ShortcutBelieved, "shortcut-believed", "G (memtable)",
        "a shortcut into the memtable is taken although its leaf begins behind the key";

    // H. Space, stalls, memory, threads.
    LostWakeUp, "lost-wake-up", "H69 (fjall #257)",
        "who waits for another thread's sync is not woken";
    IndexEntriesUncounted, "index-entries-uncounted", "H70 (ours)",
        "the entries of indexes do not count for what a memtable can hold";
    ReplayByLogBytes, "replay-by-log-bytes", "H70 (ours)",
        "an open fills memtables by bytes of the log, of which small entries need several times as much in memory";
    BodyUnpinned, "body-unpinned", "G (log)",
        "segments are recycled that the payload of a large commit is being written to";
    BodyNotSynced, "body-not-synced", "C17 (ours)",
        "a sync leaves out what of a large payload was written behind an earlier sync";
    BodyAcrossRotation, "body-across-rotation", "C17 (ours)",
        "a large payload and its record belong to different memtables, and the log of the first is given up alone";
    BodyCutAtReplay, "body-cut-at-replay", "C17 (ours)",
        "an open begins a memtable between a large payload and its record";
    VacancyOfLaterState, "vacancy-of-later-state", "A (ours)",
        "a scan whose view is older than its sequence number jumps over rows that were deleted in between";
    SparesOnFullDisk, "spares-on-full-disk", "H66 (ours)",
        "a flush finds no room on a full disk, on which segments are kept that the log may need later";
    NamelessTreeStays, "nameless-tree-stays", "H66 (ours)",
        "the file of a new tree stays if there is no memory to make its name durable";
    ReplayedIntoMemory, "replayed-into-memory", "H70 (ours)",
        "an open keeps all of a long log in memory, and flushes nothing on its way";
    RestForgotten, "rest-forgotten", "C17 (ours)",
        "records that find no room in memtables during recovery are not replayed";
    StallClockUnbounded, "stall-clock-unbounded", "H70 (ours)",
        "the next writer pays the price of a large record, and one that is outdated as well";
    SpareSegmentsStay, "spare-segments-stay", "H70 (ours)",
        "segments that the log once needed stay mapped and on the disk until the database is closed";
    SessionUnrecorded, "session-unrecorded", "C17 (ours)",
        "an open that has replayed a log records neither its end nor the start of the new one";
    ShortSegmentsStay, "short-segments-stay", "H70 (ours)",
        "segments that are too short for the log to come stay mapped and on the disk";
    FullLogIsFinal, "full-log-is-final", "H67 (ours)",
        "a log that has all its segments in use refuses writes, although a flush would give some back";
    PositionsPastTheEnd, "positions-past-the-end", "D33 (ours)",
        "ordinary records go up to the very last position, and segments beyond it";
    PausedWritesWait, "paused-writes-wait", "H69 (ours)",
        "a write for which there is no memtable waits for a flush although flushes are paused";
    PeriodicForgotten, "periodic-forgotten", "C32 (ours)",
        "commits that are made during a periodic sync wait for the next write to be synced";
    PeriodicAfterSegments, "periodic-after-segments", "C32 (ours)",
        "a periodic sync waits for log segments to be made, and fails where there is no room for one";
    PeriodicRounded, "periodic-rounded", "C32 (ours)",
        "a periodic sync comes when its thread looks up next, not when it is due";
    ErrorSwallowed, "error-swallowed", "H68 (basho/leveldb #141)",
        "an error of background work is not reported";
    FullDiskIsFinal, "full-disk-is-final", "H67 (yugabyte #32894)",
        "a full disk closes the database for good";
    MemtableGrows, "memtable-grows", "H70 (SurrealKV #397)",
        "a full memtable is not rotated";
    PublishedUnordered, "published-unordered", "H11 (memory order)",
        "a commit is published without releasing what it inserted";
    StartNotAwaited, "start-not-awaited", "H11 (rotation)",
        "a writer does not wait for the start of a generation that is being rotated in";

    // I. Crafted files.
    ChecksumWithoutOffset, "checksum-without-offset", "I (misdirected write)",
        "checksums of blocks do not depend on where the block stands";
    NoLengthCap, "no-length-cap", "I73 (LevelDB #1318)",
        "the length that a compressed block announces has no limit";
    UncheckedAdd, "unchecked-add", "I72 (LevelDB #1310)",
        "offset and length of a table's section are added without a check";

    // K. Locks, names.
    NoLock, "no-lock", "K81 (bolt #110)",
        "a second handle opens a database whose lock is taken";
    CacheOutlivesClose, "cache-outlives-close", "H (measured beside us)",
        "blocks that were evicted keep the whole cache until the thread that evicted them comes by again";
    ViewOutlivesClose, "view-outlives-close", "H (measured beside us)",
        "views that were replaced keep memtables and tables of a closed database while another one is being read";
    DrainedForNothing, "drained-for-nothing", "H (measured beside us)",
        "while a reader stays, each miss of another size empties one more part of the cache to no use";
    FilesStayOpen, "files-stay-open", "H (LevelDB #181)",
        "every table that was read stays open, and a call that finds no descriptor fails";
    AnotherFileOpened, "another-file-opened", "F (our own files on demand)",
        "a file that is opened again may be another one of the same name";
    EmptyKeyspaceName, "empty-keyspace-name", "K95 (RocksDB 11.3)",
        "a keyspace with an empty name is accepted";

    // L. Secondary indexes.
    StaleEntriesStay, "stale-entries-stay", "L (deferred maintenance)",
        "a flush does not delete the index entries that its rows have made stale";
    LastBlockForAll, "last-block-for-all", "L (deferred maintenance)",
        "a flush looks for the older version of a row in the block that it read last, whichever that is";
    RowsNotAsked, "rows-not-asked", "L (deferred maintenance)",
        "a query of an index does not ask whether a row in a memtable has made an entry stale";
    DeleteKeepsEntries, "delete-keeps-entries", "L (strict maintenance)",
        "the removal of a row leaves the deletions of its index entries out of the batch";
    StrictNotLogged, "strict-not-logged", "L (strict maintenance)",
        "a commit leaves the log out although a later one has read from it what to delete in an index";
    IndexEpochUnordered, "index-epoch-unordered", "L (online build, memory order)",
        "writers are told of a new index without releasing the view that lists it";
    ApplyIgnoresSnapshots, "apply-ignores-snapshots", "L (apply)",
        "delta runs are applied to a tree although a snapshot must not see them";
    ApplyLosesDeletes, "apply-loses-deletes", "L (apply)",
        "deletions in delta runs are not applied to the tree";
    CountIgnoresDeltas, "count-ignores-deltas", "L (count)",
        "a count is the tree's alone, without what is not applied to it yet";
    IndexAheadOfRows, "index-ahead-of-rows", "L (online build)",
        "an index is built durably from rows that a power loss still takes";
    TreeForgotten, "tree-forgotten", "L (measured beside us)",
        "a clean close and an open lose the trees of indexes: the new MANIFEST does not name them";
    TreeNotSynced, "tree-not-synced", "L (copy on write)",
        "the root of a tree is durable before its pages are";
    TreePagesReused, "tree-pages-reused", "L (copy on write)",
        "pages of a tree are written again while a view still reads them";
    NamedIndexNotMade, "named-index-not-made", "L (our own open)",
        "an open attaches code to the indexes that are there and makes none that is named";
    LeftOutIndexUnnoticed, "left-out-index-unnoticed", "L (our own open)",
        "an open that names indexes does not notice that one without code is left out";
    PauseOutlivesGuard, "pause-outlives-guard", "M (our own pause)",
        "the end of a guard does not end the pause of background work";

    // M. Views, closing, scarcity.
    FlushViewBeforeRotation, "flush-view-before-rotation", "M (our own flush)",
        "a flush looks keyspaces up in a view from before the rotation: rows of a keyspace made in between are lost";
    CloseLeavesCalls, "close-leaves-calls", "M (our own close)",
        "a close does not wait for what other threads do: it gives the lock back while they write files";
    ScarcityIsFinal, "scarcity-is-final", "M (scarcity)",
        "a lack of descriptors in the background closes the database for good";
    FailedFlushKeepsTables, "failed-flush-keeps-tables", "M (our own flush)",
        "a flush that a full disk ends keeps the tables that it had finished, and so does each further attempt";
    NoRoomLeft, "no-room-left", "M (process and place)",
        "mappings take the last address space, and work begins without any";
    WordWithoutCarry, "word-without-carry", "M (positions)",
        "a position beyond the end of a word is completed with what was above the word before";
    ForkUnmarked, "fork-unmarked", "M (process and place)",
        "a forked child takes the database for its own and writes to the log of its parent";
}

impl Bug {
    /// The bug of this name.
    pub fn named(name: &str) -> Option<Bug> {
        Bug::ALL.iter().copied().find(|bug| bug.name() == name)
    }
}

/// The offset that the checksum of a stored block is seeded with.
#[inline]
pub(crate) fn sealed_offset(offset: u64) -> u64 {
    if is(Bug::ChecksumWithoutOffset) { 0 } else { offset }
}

/// The position that the checksum of a log record is seeded with.
#[inline]
pub(crate) fn sealed_position(position: u64) -> u64 {
    if is(Bug::StaleRecords) { 0 } else { position }
}

/// Whether a log record with this word for its position stands at `position`.
#[inline]
pub(crate) fn is_position(word: u32, position: u64) -> bool {
    word == position as u32 || is(Bug::StaleRecords)
}

/// Whether the length that a compressed block announces is limited.
#[inline]
pub(crate) fn limits_lengths() -> bool {
    !is(Bug::NoLengthCap)
}

/// The end of a section whose offset and length have no sum: behind every file.
#[inline]
pub(crate) fn overflown_end(offset: u64, len: u64) -> u64 {
    if is(Bug::UncheckedAdd) { offset.wrapping_add(len) } else { u64::MAX }
}

/// The room that must be left before `bytes` of it are used.
#[inline]
pub(crate) fn needed_room(bytes: usize) -> usize {
    if is(Bug::NoRoomLeft) { 0 } else { bytes }
}

#[cfg(feature = "planted")]
pub use switched::{any, is, plant};

/// Whether a bug is planted: never in this build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn is(_bug: Bug) -> bool {
    false
}

/// Whether any bug is planted: never in this build.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn any() -> bool {
    false
}

#[cfg(feature = "planted")]
mod switched {
    use super::Bug;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// One bit per bug.
    static PLANTED: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
    const _: () = assert!(Bug::ALL.len() <= 256);

    /// Whether `bug` is planted.
    #[inline]
    pub fn is(bug: Bug) -> bool {
        // Relaxed: set before the first database is opened.
        PLANTED[bug as usize / 64].load(Ordering::Relaxed) >> (bug as u8 % 64) & 1 == 1
    }

    /// Whether any bug is planted.
    pub fn any() -> bool {
        PLANTED.iter().any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Plants `bug` in this process permanently. Must be called before a database is opened.
    pub fn plant(bug: Bug) {
        PLANTED[bug as usize / 64].fetch_or(1 << (bug as u8 % 64), Ordering::Relaxed);
    }
}

/// Code guarded by `if planted::is(…)` is absent from every build without the feature.
#[cfg(not(feature = "planted"))]
const _: () = assert!(!is(Bug::DirectoryNotSynced));

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_differ_and_lead_back() {
        let names: BTreeSet<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
        assert_eq!(names.len(), Bug::ALL.len());
        for bug in Bug::ALL {
            assert_eq!(Bug::named(bug.name()), Some(*bug));
            assert!(bug.name().chars().all(|c| c.is_ascii_lowercase() || c == '-'), "{}", bug.name());
            assert!(bug.class().starts_with(|c: char| ('A'..='M').contains(&c)) && !bug.what().is_empty());
        }
        assert_eq!(Bug::named("no-such-bug"), None);
    }
}
