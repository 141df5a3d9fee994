//! The write-ahead log.
//!
//! One endless stream of records, laid over segments of fixed size. If a record does not fit into
//! the rest of a segment, it continues in the next. Positions count units of eight bytes and are
//! sequence numbers at the same time.
//!
//! The part of earlier logs that an opening has replayed may not be durable yet. Its segments are
//! handed over ([`Earlier`]) and synced before anything of this log; [`Wal::durable`] stays below
//! [`Wal::base`] until then.
//!
//! *Durability.* A record is in the page cache when its bytes were stored (mapped segment) or
//! `pwrite` returned: it survives the end of the process. It survives a power loss once
//! [`Wal::wait_durable`] returned. Positions are assigned only inside provisioned segments: created
//! with all their room and synced with their header. So a full disk is met during provisioning,
//! before anything was reserved, and never in the middle of a record.
//!
//! *Recycling.* Once everything in a segment is in tables, a new header assigns a later stretch of
//! the stream to it. Checksums are seeded with the position, so bytes of an earlier stretch never
//! validate. File names are slots, and independent of the order.
use crate::planted;
use crate::sync::backoff;
use bodies::Bodies;
use commit_ring::{CommitRing, LogPoint, Next, Tail, Taken};
use crossbeam::utils::CachePadded;
use reader::FoundSegment;
use retention::Retention;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::log_record::{self, HEADER_BYTES, RecordKind, RecordPlace, UNIT_BYTES};
use sapwood_base::format::log_segment::{DATA_OFFSET, SegmentHeader};
use sapwood_base::{Error, ErrorKind, FileNumber, Result, SequenceNumber};
use sapwood_storage::DatabaseFiles;
use sapwood_storage::sync::{Condvar, Mutex};
use segment::LogSegment;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

mod bodies;
mod retention;
pub(crate) mod body;
pub(crate) mod commit_ring;
pub(crate) mod reader;
pub(crate) mod segment;

/// Segments that can be in use at the same time.
pub(crate) const SEGMENTS_MAX: usize = 1024;
/// Segments not available to a single record: the one that holds the tail, and those after it.
const SEGMENTS_KEPT: u64 = 8;
/// Tickets in flight.
const RING_SLOTS: usize = 1024;
/// Room after the last ordinary record that only rotations may take, in units: a rotation must not
/// fail.
const ROTATION_MARGIN: u64 = 512;
/// End of positions, including those of unused segments; a little below the last sequence number.
/// Equals the commits of 1 EiB of log.
const POSITION_LIMIT: u64 = SequenceNumber::MAX.0 + 1 - (1 << 20);
/// Ordinary records end this many segments before the limit: commits up to there can still be
/// flushed, by more than one opening.
const LAST_SEGMENTS: u64 = 16;
/// An opening that has filled less than this part of a segment has one segment only.
const FIRST_SHARE: u64 = 64;
/// Limit of segments provisioned ahead of the writers.
const AHEAD_MAX: u64 = 3;
/// Number of filled segments per additional segment provisioned ahead.
const FILLED_PER_AHEAD: u64 = 4;

/// A stretch of the stream that belongs to one writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reservation {
    /// First position.
    pub(crate) position: u64,
    /// Position after the last unit.
    pub(crate) end: u64,
    taken: Taken,
}

impl Reservation {
    /// The first position, with the number of commits before it.
    #[inline]
    pub(crate) fn start(&self) -> LogPoint {
        LogPoint { position: self.position, commits: self.taken.commits }
    }
}

/// A reservation that counts as a commit, or does not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counts {
    Commit,
    Other,
}

/// The log of earlier openings.
pub(crate) struct Earlier {
    /// The position below which their log is durable.
    pub(crate) durable: u64,
    /// Segments that are needed.
    pub(crate) retained: Vec<RetainedSegment>,
    /// Those of them that are not durable yet, oldest first. Their handles are those that the
    /// segments were read through: Linux reports a write-back error once to each handle that was
    /// open.
    pub(crate) unsynced: Vec<FoundSegment>,
    /// Files that can be recycled.
    pub(crate) spare_files: Vec<FileNumber>,
}

/// Size, number and access of the segments of a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentOptions {
    /// Bytes of a segment.
    pub(crate) bytes: usize,
    /// Number of segments kept, including those in use; any beyond it are removed after use.
    pub(crate) kept: usize,
    /// Whether they are mapped.
    pub(crate) mapped: bool,
}

impl SegmentOptions {
    /// Segments of `bytes` for the log of `memtables_bytes` that are not flushed.
    pub(crate) fn new(bytes: usize, memtables_bytes: usize, mapped: bool) -> SegmentOptions {
        // Memtables overshoot a little, and their log lies across segments.
        let needed = memtables_bytes.saturating_add(memtables_bytes / 8).div_ceil(bytes);
        let kept = needed.saturating_add(AHEAD_MAX as usize + 2).min(SEGMENTS_MAX);
        SegmentOptions { bytes, kept, mapped }
    }
}

/// A segment of an earlier opening that is still needed.
pub(crate) struct RetainedSegment {
    pub(crate) file: FileNumber,
    pub(crate) end_position: u64,
    pub(crate) file_bytes: u64,
}

#[derive(Default)]
struct Pool {
    /// Physical segments in use: number of the stretch and physical slot, oldest first.
    used: VecDeque<(u64, usize)>,
    /// Physical segments that can be recycled.
    spare: Vec<usize>,
    /// Files of the right size that are not open.
    spare_files: Vec<FileNumber>,
    /// Files of earlier openings.
    retained: Vec<RetainedSegment>,
    next_index: u64,
    /// Physical slots that were ever filled.
    physical: usize,
    /// Those of them that are empty again.
    vacant: Vec<usize>,
    /// Set when the log is closed: no further segment is provisioned.
    sealed: bool,
}

/// Origin of the next segment.
enum Source {
    /// One that is open already.
    Open(usize),
    /// This file, or a new one.
    File { file: Option<FileNumber>, physical: usize },
}

impl Pool {
    fn check_open(&self) -> Result<()> {
        match self.sealed {
            true => Err(Error::new(ErrorKind::Closed, "the database is closed")),
            false => Ok(()),
        }
    }

    fn source(&mut self) -> Result<Source> {
        self.check_open()?;
        if let Some(physical) = self.spare.pop() {
            return Ok(Source::Open(physical));
        }
        let physical = self.vacant.last().copied().unwrap_or(self.physical);
        if physical >= SEGMENTS_MAX {
            return Err(full());
        }
        Ok(Source::File { file: self.spare_files.pop(), physical })
    }

    /// The first stretch in use, or the next one.
    fn oldest(&self) -> u64 {
        self.used.front().map_or(self.next_index, |(index, _)| *index)
    }
}

/// A segment that the log and syncs hold.
type Shared = Arc<dyn LogSegment>;

#[derive(Default)]
struct SyncState {
    leader: bool,
    /// Set when the log is closed: no further sync begins.
    ended: bool,
}

/// The log of one opening.
pub(crate) struct Wal {
    context: Arc<DatabaseFiles>,
    database: u64,
    mapped: bool,
    base: u64,
    segment_units: u64,
    /// See [`SegmentOptions::kept`].
    kept: usize,
    /// End of ordinary records.
    ordinary_limit: u64,
    /// The position at which the log thread is woken next.
    wake_at: CachePadded<AtomicU64>,
    tail: Tail,
    ring: CommitRing,
    /// Position up to which segments are ready.
    provisioned: CachePadded<AtomicU64>,
    /// Physical slot + 1 of stretch `i`, at `i % SEGMENTS_MAX`.
    slots: Box<[AtomicU32]>,
    /// Physical segments; null where a slot is empty. Each points to a box with a reference, so
    /// that a sync may hold a segment that is removed meanwhile.
    segments: Box<[AtomicPtr<Shared>]>,
    pool: Mutex<Pool>,
    /// Held while segments are provisioned.
    provisioning: Mutex<()>,
    durable: CachePadded<AtomicU64>,
    bodies: Mutex<Bodies>,
    retention: Arc<Retention>,
    /// Segments of earlier openings, which the first sync covers before everything of this one.
    unsynced: Mutex<Vec<FoundSegment>>,
    /// Set once a caller has claimed their sync.
    replayed_claimed: AtomicBool,
    sync: Mutex<SyncState>,
    synced: Condvar,
}

impl Wal {
    /// A log that starts at `begin`. Nothing is provisioned yet.
    pub(crate) fn new(
        context: &Arc<DatabaseFiles>,
        database: u64,
        begin: LogPoint,
        segment: SegmentOptions,
        earlier: Earlier,
    ) -> Wal {
        let Earlier { durable, retained, unsynced, spare_files } = earlier;
        let start = AtomicU64::new;
        let base = begin.position;
        let segment_units = ((segment.bytes - DATA_OFFSET) / UNIT_BYTES) as u64;
        Wal {
            context: context.clone(),
            database,
            mapped: segment.mapped,
            base,
            segment_units,
            kept: segment.kept,
            ordinary_limit: POSITION_LIMIT - planted::kept_segments(LAST_SEGMENTS) * segment_units,
            wake_at: CachePadded::new(start(base + segment_units / FIRST_SHARE)),
            tail: Tail::new(begin),
            ring: CommitRing::new(RING_SLOTS, begin),
            provisioned: CachePadded::new(start(base)),
            slots: (0..SEGMENTS_MAX).map(|_| AtomicU32::new(0)).collect(),
            segments: (0..SEGMENTS_MAX).map(|_| AtomicPtr::default()).collect(),
            pool: Mutex::new(Pool { retained, spare_files, ..Pool::default() }),
            provisioning: Mutex::new(()),
            durable: CachePadded::new(start(durable)),
            replayed_claimed: AtomicBool::new(unsynced.is_empty()),
            unsynced: Mutex::new(unsynced),
            bodies: Mutex::default(),
            retention: Arc::default(),
            sync: Mutex::new(SyncState::default()),
            synced: Condvar::new(),
        }
    }

    /// Start of this log. Positions below belong to earlier openings.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Whether the log of earlier openings must be synced, and the caller is the first to claim
    /// that.
    pub(crate) fn claim_replayed(&self) -> bool {
        // Relaxed: only one caller may claim it; nothing else depends on it.
        !self.replayed_claimed.load(Ordering::Relaxed) && !self.replayed_claimed.swap(true, Ordering::Relaxed)
    }

    /// The position below which every operation is visible.
    #[inline]
    pub(crate) fn published(&self) -> u64 {
        self.ring.published(self.near())
    }

    /// A position near all that are in use: see `commit_ring`.
    #[inline]
    fn near(&self) -> u64 {
        // Relaxed: any of its values of the last months will do.
        self.provisioned.load(Ordering::Relaxed)
    }

    /// The state of the tail.
    #[inline]
    fn tail(&self) -> Next {
        self.tail.peek(self.near())
    }

    /// The end of what is visible, with the number of commits before it.
    pub(crate) fn published_point(&self) -> LogPoint {
        self.tail.published(&self.ring, self.near())
    }

    /// The position below which everything survives a power loss.
    pub(crate) fn durable(&self) -> u64 {
        // Acquire: pairs with the Release in `wait_durable`.
        self.durable.load(Ordering::Acquire)
    }

    /// The next position, or an earlier one.
    pub(crate) fn position(&self) -> u64 {
        self.tail().position
    }

    /// Bytes of log written since opening.
    pub(crate) fn bytes(&self) -> u64 {
        (self.tail().position - self.base) * UNIT_BYTES as u64
    }

    /// Bytes of open segments, which are mapped if the log is.
    pub(crate) fn segment_bytes(&self) -> u64 {
        let pool = self.pool.lock();
        let open = (pool.physical - pool.vacant.len()) as u64;
        open * (self.segment_units * UNIT_BYTES as u64 + DATA_OFFSET as u64)
    }

    /// Reserves `units` for the record of a commit.
    ///
    /// Errors: [`ErrorKind::NoSpace`] and other errors of provisioning; nothing is reserved then.
    #[inline]
    pub(crate) fn reserve(&self, units: u64) -> Result<Reservation> {
        self.reserve_within(units, Counts::Commit, ROTATION_MARGIN, self.ordinary_limit, true)
    }

    /// Reserves `units` for a body, which is no commit. Errors: as those of [`Wal::reserve`].
    pub(crate) fn reserve_body(&self, units: u64) -> Result<Reservation> {
        self.reserve_within(units, Counts::Other, ROTATION_MARGIN, self.ordinary_limit, true)
    }

    /// The next position, in order with every reservation: see [`Tail::fence`].
    pub(crate) fn fence(&self) -> u64 {
        self.tail.fence(self.near())
    }

    /// Reserves the position of a rotation. Succeeds without provisioning if an ordinary
    /// reservation has succeeded or [`Wal::prepare_rotation`] was called before.
    pub(crate) fn reserve_rotation(&self) -> Result<Reservation> {
        self.reserve_within(log_record::record_units(0), Counts::Other, 0, POSITION_LIMIT, true)
    }

    /// Ensures that [`Wal::reserve_rotation`] finds room.
    pub(crate) fn prepare_rotation(&self) -> Result<()> {
        let tail = self.tail().position;
        self.provision(tail + ROTATION_MARGIN)
    }

    /// Without `provisions`, reserves only in provisioned segments and otherwise returns `NoSpace`.
    #[inline]
    fn reserve_within(
        &self,
        units: u64,
        counts: Counts,
        margin: u64,
        limit: u64,
        provisions: bool,
    ) -> Result<Reservation> {
        let mut spins = 0;
        loop {
            let next = self.tail();
            let end = next.position + units;
            if end > limit {
                return Err(exhausted());
            }
            // Acquire: pairs with the Release in `provision`; the segments below are ready.
            if end + margin > self.provisioned.load(Ordering::Acquire) {
                if !provisions {
                    return Err(full());
                }
                self.provision(end + margin)?;
            } else if !self.ring.has_room(next.ticket()) {
                backoff(&mut spins);
                self.ring.advance();
            } else if let Some(taken) = self.tail.take(&next, end, counts == Counts::Commit) {
                return Ok(Reservation { position: next.position, end, taken });
            }
        }
    }

    /// Seals `record` (header room and payload) for its place and stores it. For
    /// [`RecordKind::Skip`] and [`RecordKind::Body`] `record` is a header alone, standing for the
    /// whole reservation.
    #[inline]
    pub(crate) fn write(
        &self,
        at: &Reservation,
        record: &mut [u8],
        kind: RecordKind,
        operations: usize,
    ) -> Result<()> {
        let payload = match kind {
            kind if kind.is_header_alone() => ((at.end - at.position) as usize * UNIT_BYTES) - HEADER_BYTES,
            _ => record.len() - HEADER_BYTES,
        };
        let LogPoint { position, commits } = at.start();
        let place = RecordPlace { database: self.database, position, commits };
        log_record::seal_at(record, payload as u32, &place, kind, operations);
        self.store(at.position, record)
    }

    /// Stores bytes from `position` on. REQUIRES: the caller holds the reservation that contains
    /// them, or has it pinned.
    #[inline]
    fn store(&self, position: u64, bytes: &[u8]) -> Result<()> {
        let mut unit = position - self.base;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (index, offset) = (unit / self.segment_units, unit % self.segment_units);
            let room = (self.segment_units - offset) as usize * UNIT_BYTES;
            let (now, later) = rest.split_at(room.min(rest.len()));
            // SAFETY: the range lies inside the reservation, which no other thread has.
            unsafe { self.segment(index).write(DATA_OFFSET + offset as usize * UNIT_BYTES, now)? };
            rest = later;
            unit += self.segment_units - offset;
        }
        Ok(())
    }

    #[inline]
    fn segment(&self, index: u64) -> &dyn LogSegment {
        // Relaxed, both: `provisioned`, read before, orders them.
        let slot = self.slots[index as usize % SEGMENTS_MAX].load(Ordering::Relaxed) as usize;
        let segment = self.segments[slot - 1].load(Ordering::Relaxed);
        // SAFETY: the caller holds a reservation in the stretch, so the stretch is in use until
        // that is completed, or has it pinned as a body, so that it is not recycled before the pin
        // is dropped. A segment in use is neither spare nor removed. A slot in use was filled
        // before `provisioned` covered its stretch.
        unsafe { &**segment }
    }

    /// The segment in a slot. REQUIRES: the slot is not empty, and the lock of the pool or the lock
    /// `provisioning` keeps it so.
    fn shared(&self, physical: usize) -> Shared {
        // Acquire: pairs with the Release in `open_segment`.
        let segment = self.segments[physical].load(Ordering::Acquire);
        assert!(!segment.is_null(), "the slot is filled");
        // SAFETY: it was made by `Box::into_raw` and is freed only after it was taken out of the
        // pool, under its lock.
        unsafe { (*segment).clone() }
    }

    /// Publishes a reservation: its bytes are in the log and in the memtable.
    #[inline]
    pub(crate) fn complete(&self, at: &Reservation) {
        self.ring.complete(&at.taken);
    }

    /// Waits until everything below `position` is published. Earlier writers are late by at most a
    /// few copies.
    #[inline]
    pub(crate) fn wait_published(&self, position: u64) {
        let mut spins = 0;
        while self.published() < position {
            self.ring.advance();
            backoff(&mut spins);
        }
    }

    /// Whether to provision segments ahead of need now.
    #[inline]
    pub(crate) fn wants_segments(&self, at: &Reservation) -> bool {
        // Relaxed: a hint.
        at.end > self.wake_at.load(Ordering::Relaxed) && self.note_segment(at.end)
    }

    /// Schedules the next provisioning for the next segment.
    #[cold]
    fn note_segment(&self, end: u64) -> bool {
        let next = self.base + ((end - self.base) / self.segment_units + 1) * self.segment_units;
        self.wake_at.fetch_max(next, Ordering::Relaxed) < next
    }

    /// Whether the log has no segments left for a record of `units`, until a flush frees some.
    pub(crate) fn is_full_for(&self, units: u64) -> bool {
        let end = self.tail().position + units + ROTATION_MARGIN;
        self.stretches_to(end) > self.pool.lock().oldest() + SEGMENTS_MAX as u64
    }

    /// Whether the log can ever hold a record of `units`.
    pub(crate) fn can_hold(&self, units: u64) -> bool {
        units.div_ceil(self.segment_units) + SEGMENTS_KEPT <= SEGMENTS_MAX as u64
    }

    /// Segments that the log has filled since `position`.
    pub(crate) fn segments_since(&self, position: u64) -> usize {
        (self.tail().position.saturating_sub(position.max(self.base)) / self.segment_units) as usize
    }

    /// Stretches that reach up to `position`.
    fn stretches_to(&self, position: u64) -> u64 {
        position.saturating_sub(self.base).div_ceil(self.segment_units)
    }

    /// Provisions segments ahead of the writers: one, and one more per [`FILLED_PER_AHEAD`]
    /// segments that this opening has filled. While tables are written, the sync of a header can
    /// take the disk longer than writers need to fill a segment. But a short log should take little
    /// disk space, and be quick to scan.
    ///
    /// Where segments are scarce (at the end of positions, and while all are in use), the last ones
    /// are left to the writers. The writers get the error, or wait for a flush.
    pub(crate) fn provision_ahead(&self) -> Result<()> {
        let tail = self.tail().position;
        let written = tail - self.base;
        let ahead = match written < self.segment_units / FIRST_SHARE {
            true => ROTATION_MARGIN,
            false => {
                let ahead = (1 + written / self.segment_units / FILLED_PER_AHEAD).min(AHEAD_MAX);
                ahead * self.segment_units + self.segment_units / 2
            }
        };
        let most = self.base + (self.pool.lock().oldest() + SEGMENTS_MAX as u64) * self.segment_units;
        let wanted = (tail + ahead).min(most).min(self.ordinary_limit);
        self.provision(wanted)
    }

    /// Provisions segments up to `position`.
    ///
    /// One thread at a time creates files and syncs headers, which may take as long as the disk
    /// does. The pool is locked only in between, for threads that recycle segments or have room
    /// enough.
    #[cold]
    pub(crate) fn provision(&self, position: u64) -> Result<()> {
        let is_ready = || self.provisioned.load(Ordering::Acquire) >= position;
        if is_ready() {
            return Ok(());
        }
        let _provisioning = self.provisioning.lock();
        while !is_ready() {
            let (index, source) = {
                let mut pool = self.pool.lock();
                pool.check_open()?;
                let index = pool.next_index;
                let is_past_end = self.base + (index + 1) * self.segment_units > POSITION_LIMIT;
                if is_past_end && planted::segments_end_with_positions() {
                    return Err(exhausted());
                }
                // Checked first, so that no segment is provisioned for a record that cannot get
                // enough of them.
                if self.stretches_to(position) > pool.oldest() + SEGMENTS_MAX as u64 {
                    return Err(full());
                }
                (index, pool.source()?)
            };
            let physical = match source {
                Source::Open(physical) => physical,
                Source::File { file, physical } => self.open_segment(file, physical)?,
            };
            let segment = self.shared(physical);
            let header = SegmentHeader {
                data_units: self.segment_units as u32,
                base_position: self.base + index * self.segment_units,
                database: self.database,
                file_number: segment.file().0,
                durable_position: self.durable(),
            };
            let started = segment.start(&header.encode());
            let mut pool = self.pool.lock();
            if let Err(error) = started.and_then(|()| pool.check_open()) {
                pool.spare.push(physical);
                return Err(error);
            }
            self.slots[index as usize % SEGMENTS_MAX].store(physical as u32 + 1, Ordering::Relaxed);
            pool.used.push_back((index, physical));
            pool.next_index += 1;
            // Release: pairs with the Acquire in `reserve_within`.
            self.provisioned.store(self.base + pool.next_index * self.segment_units, Ordering::Release);
        }
        Ok(())
    }

    /// Ends the log: takes all remaining room, so that no further reservation succeeds, and waits
    /// for earlier writers. Returns a position above every one that was or could have been
    /// reserved, and the number of all commits.
    pub(crate) fn seal(&self) -> LogPoint {
        self.pool.lock().sealed = true;
        // The header of a segment that is being provisioned records the durable position. It must
        // be written before this stretch, which no record marks, can be synced: otherwise the next
        // opening would miss records in it.
        drop(self.provisioning.lock());
        let end = self.provisioned.load(Ordering::Acquire);
        let mut spins = 0;
        loop {
            let next = self.tail();
            if next.position >= end {
                self.wait_published(end);
                return LogPoint { position: end, ..self.published_point() };
            }
            if self.ring.has_room(next.ticket())
                && let Some(taken) = self.tail.take(&next, end, false)
            {
                // No record marks this stretch: to a reader the log ends before it.
                self.ring.complete(&taken);
            }
            self.ring.advance();
            backoff(&mut spins);
        }
    }

    /// Opens a recycled file, or creates a new one, as physical segment `physical`; returns
    /// `physical`.
    fn open_segment(&self, recycled: Option<FileNumber>, physical: usize) -> Result<usize> {
        let bytes = self.segment_units as usize * UNIT_BYTES + DATA_OFFSET;
        let number = match recycled {
            Some(number) => number,
            None => self.context.allocate_name(FileName::Log)?,
        };
        let path = self.path(number);
        let opened = segment::open(&self.context, number, bytes, recycled.is_none(), self.mapped);
        let segment = match opened {
            Ok(segment) => segment,
            Err(error) => {
                match recycled {
                    Some(number) => self.pool.lock().spare_files.push(number),
                    // An incomplete file would only take space on a full disk.
                    None => self.remove_created(number),
                }
                return Err(error);
            }
        };
        if recycled.is_none()
            && let Err(error) = self.context.sync_directory()
        {
            // The name exists, may not survive a power loss, and no later sync would change that.
            // The next opening must not find the file and write durable data to it.
            drop(segment);
            let _ = self.context.fs.remove_file(&path);
            return Err(error);
        }
        let shared: Shared = Arc::from(segment);
        // Release: pairs with the Acquire in `shared`.
        let before = self.segments[physical].swap(Box::into_raw(Box::new(shared)), Ordering::Release);
        assert!(before.is_null(), "only empty slots are filled");
        let mut pool = self.pool.lock();
        match pool.vacant.iter().position(|vacant| *vacant == physical) {
            Some(at) => drop(pool.vacant.swap_remove(at)),
            None => pool.physical = physical + 1,
        }
        Ok(physical)
    }

    /// Removes a segment that was being created, under its present name. A foreign file of the
    /// final name is not removed: it has kept the segment at its unfinished name.
    fn remove_created(&self, number: FileNumber) {
        let unfinished = self.context.unfinished_path(FileName::Log(number));
        if self.context.fs.remove_file(&unfinished).is_err() {
            let _ = self.context.fs.remove_file(&self.path(number));
        }
    }

    fn path(&self, number: FileNumber) -> PathBuf {
        self.context.directory.join(FileName::Log(number).format())
    }

    /// Recycles every segment below `position`. REQUIRES: the MANIFEST durably records that the log
    /// is not needed below.
    pub(crate) fn recycle(&self, position: u64) {
        let mut pool = self.pool.lock();
        self.bodies.lock().forget(position);
        let position = self.retention.release(position);
        while let Some((index, physical)) = pool.used.front().copied() {
            let end = self.base + (index + 1) * self.segment_units;
            // The segment that holds the tail, and the ones after it, are in use.
            if end > position {
                break;
            }
            pool.used.pop_front();
            pool.spare.push(physical);
        }
        let mut surplus = Vec::new();
        while planted::surplus_segments_go()
            && pool.used.len() + pool.spare.len() > self.kept
            && let Some(physical) = pool.spare.pop()
        {
            surplus.push(physical);
        }
        let bytes = self.segment_units * UNIT_BYTES as u64 + DATA_OFFSET as u64;
        let retained = std::mem::take(&mut pool.retained);
        for segment in retained {
            if segment.end_position > position {
                pool.retained.push(segment);
            } else if segment.file_bytes == bytes
                && pool.used.len() + pool.spare.len() + pool.spare_files.len() < self.kept
            {
                pool.spare_files.push(segment.file);
            } else {
                // A file that cannot be removed now is removed as an orphan at the next opening.
                let _ = self.context.fs.remove_file(&self.path(segment.file));
            }
        }
        drop(pool);
        for physical in surplus {
            self.give_back(physical);
        }
    }

    /// Removes every spare segment, because a full disk needs the room now. False if there is none.
    pub(crate) fn give_back_spares(&self) -> bool {
        let mut pool = self.pool.lock();
        let (open, files) = (std::mem::take(&mut pool.spare), std::mem::take(&mut pool.spare_files));
        drop(pool);
        for file in &files {
            // The next opening removes a file that stays.
            let _ = self.context.fs.remove_file(&self.path(*file));
        }
        for physical in &open {
            self.give_back(*physical);
        }
        !(open.is_empty() && files.is_empty())
    }

    /// Closes the segment in a slot and removes its file. REQUIRES: the slot is in no list of the
    /// pool.
    fn give_back(&self, physical: usize) {
        // Acquire: pairs with the Release in `open_segment`.
        let segment = self.segments[physical].swap(std::ptr::null_mut(), Ordering::Acquire);
        // SAFETY: `open_segment` made it by `Box::into_raw`, and this call alone has taken it out.
        // No reservation lies in it, since it was spare, and syncs hold references of their own.
        let segment = unsafe { Box::from_raw(segment) };
        let path = self.path(segment.file());
        drop(segment);
        // A file that cannot be removed now is removed, or used again, at the next opening.
        let _ = self.context.fs.remove_file(&path);
        self.pool.lock().vacant.push(physical);
    }

    /// Waits until everything below `position` survives a power loss.
    ///
    /// The first thread that finds no sync under way leads: it syncs everything published, for
    /// itself and for all waiters. It runs on the caller's thread: one wake-up less. A failed sync
    /// is final: the kernel may have dropped the bytes, so no thread may retry (`poison` prevents
    /// it). With `provisions` a segment may be provisioned for the sync mark.
    pub(crate) fn wait_durable(
        &self,
        position: u64,
        poison: &dyn Fn(&Error),
        check: &dyn Fn() -> Result<()>,
        provisions: bool,
    ) -> Result<()> {
        while self.durable() < position {
            check()?;
            if self.lead_or_follow(position)? {
                self.lead(poison, check, provisions)?;
            } else if !planted::followers_check_again() {
                break;
            }
        }
        Ok(())
    }

    /// True if the caller leads the next sync; otherwise waits for the end of another's.
    fn lead_or_follow(&self, position: u64) -> Result<bool> {
        let mut state = self.sync.lock();
        if self.durable() >= position {
            return Ok(false);
        }
        if state.ended {
            let message = "the database was closed before the commit was durable";
            return Err(Error::new(ErrorKind::Closed, message));
        }
        if state.leader {
            self.synced.wait(&mut state);
            return Ok(false);
        }
        state.leader = true;
        Ok(true)
    }

    /// Syncs everything published, and wakes the followers.
    fn lead(&self, poison: &dyn Fn(&Error), check: &dyn Fn() -> Result<()>, provisions: bool) -> Result<()> {
        let target = self.published();
        // A writer that leaves a gap in the log poisons before it publishes. Records after a gap
        // are never read again, so they must not be called durable: recovery would take the gap for
        // damage.
        if planted::syncs_check_for_gaps()
            && let Err(error) = check()
        {
            self.sync.lock().leader = false;
            self.synced.notify_all();
            return Err(error);
        }
        planted::before_sync(|| self.mark(target, poison, provisions));
        let result = planted::once(|| self.sync_up_to(target));
        if result.is_err() {
            self.note_failed_sync();
        }
        let mut state = self.sync.lock();
        state.leader = false;
        match &result {
            // Release: pairs with the Acquire in `durable`.
            Ok(()) => drop(self.durable.fetch_max(target, Ordering::Release)),
            Err(error) => poison(error),
        }
        if planted::leader_wakes_followers() {
            self.synced.notify_all();
        }
        drop(state);
        // Whatever the cause, even a full disk: the sync cannot be retried.
        result.map_err(|error| {
            let message =
                format!("a sync of the log failed, writes are closed; reopen the database ({error})");
            Error::new(ErrorKind::Poisoned, message)
        })?;
        // If this log is empty, no mark is needed: the MANIFEST covers the log before it.
        if target > self.base {
            self.mark(target, poison, provisions);
        }
        Ok(())
    }

    /// Notes that everything below `position` is in tables, which are durable.
    pub(crate) fn set_durable(&self, position: u64) {
        let _state = self.sync.lock();
        // Release: pairs with the Acquire in `durable`.
        self.durable.fetch_max(position, Ordering::Release);
        self.synced.notify_all();
    }

    /// Waits for a sync and for a provisioning under way, none of which begins afterwards, and
    /// closes all segments. REQUIRES: the log is sealed.
    pub(crate) fn close(&self) {
        let mut state = self.sync.lock();
        state.ended = true;
        while state.leader {
            self.synced.wait(&mut state);
        }
        drop(state);
        self.synced.notify_all();
        let _provisioning = self.provisioning.lock();
        let mut pool = self.pool.lock();
        for segment in &self.segments[..pool.physical] {
            // Acquire: pairs with the Release in `open_segment`.
            let segment = segment.swap(std::ptr::null_mut(), Ordering::Acquire);
            if !segment.is_null() {
                // SAFETY: `open_segment` made it by `Box::into_raw`, and the swap alone has taken
                // it out. The seal has waited for every writer that had a place in it, and no
                // reservation or sync comes after.
                drop(unsafe { Box::from_raw(segment) });
            }
        }
        pool.vacant = (0..pool.physical).collect();
        pool.used.clear();
        pool.spare.clear();
        drop(pool);
        self.unsynced.lock().clear();
    }

    /// Notes for the next opening that bytes which it can read may not be on the disk. The note
    /// need not survive longer than those bytes, so it is not synced. If the device accepts no new
    /// file either, only the error remains.
    fn note_failed_sync(&self) {
        let _ = self.context.fs.create_new(&self.context.directory.join(FileName::Unsynced.format()));
    }

    /// Appends a witness for recovery: a damaged record below a mark is corruption, not the torn
    /// end.
    fn mark(&self, durable: u64, poison: &dyn Fn(&Error), provisions: bool) {
        let units = log_record::record_units(8);
        // Without room there is no witness, which only weakens the evidence for recovery.
        let at =
            match self.reserve_within(units, Counts::Other, ROTATION_MARGIN, self.ordinary_limit, provisions)
            {
                Ok(at) => at,
                Err(error) => {
                    if error.kind() == ErrorKind::Poisoned {
                        poison(&error);
                    }
                    return;
                }
            };
        let mut record = [0; HEADER_BYTES + 8];
        record[HEADER_BYTES..].copy_from_slice(&durable.to_le_bytes());
        // A failed store leaves a gap, and recovery ends at gaps: nothing may be acknowledged after
        // it.
        if let Err(error) = self.write(&at, &mut record, RecordKind::SyncMark, 0) {
            poison(&error);
        }
        self.complete(&at);
        self.wait_published(at.end);
    }

    /// Syncs all log below `to`, oldest first.
    fn sync_up_to(&self, to: u64) -> Result<()> {
        if to == self.base || planted::syncs_cover_replayed_log() {
            self.sync_replayed()?;
        }
        let from = self.durable().max(self.base);
        let late = self.bodies.lock().late(from, to);
        for body in &late {
            self.sync_range(body.start, body.end.min(from))?;
        }
        self.sync_range(from, to)?;
        self.bodies.lock().forget(to);
        Ok(())
    }

    /// Syncs the log of earlier openings. Nothing of this one may be called durable before: the
    /// next opening would find it after a tear, and discard it.
    fn sync_replayed(&self) -> Result<()> {
        let mut unsynced = self.unsynced.lock();
        for segment in unsynced.drain(..).filter(|_| planted::replayed_log_is_synced()) {
            // A segment that was recycled since is in tables, which were synced.
            let is_needed = self.pool.lock().retained.iter().any(|kept| kept.file == segment.number);
            if is_needed {
                segment.file.sync_data()?;
            }
        }
        Ok(())
    }

    fn sync_range(&self, from: u64, to: u64) -> Result<()> {
        let (mut unit, end) = (from - self.base, to - self.base);
        let first = unit;
        while unit < end && planted::syncs_from(unit, first) {
            let (index, offset) = (unit / self.segment_units, unit % self.segment_units);
            let stop = (end - unit + offset).min(self.segment_units);
            let bytes = |units: u64| DATA_OFFSET + units as usize * UNIT_BYTES;
            // A segment that was recycled since is in tables, which were synced.
            if let Some(segment) = self.segment_in_use(index) {
                segment.sync(bytes(offset), bytes(stop))?;
            }
            unit += stop - offset;
        }
        Ok(())
    }

    fn segment_in_use(&self, index: u64) -> Option<Shared> {
        let pool = self.pool.lock();
        let (_, physical) = pool.used.iter().find(|(used, _)| *used == index)?;
        Some(self.shared(*physical))
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        for segment in &mut self.segments {
            let segment = std::mem::replace(segment.get_mut(), std::ptr::null_mut());
            if !segment.is_null() {
                // SAFETY: `open_segment` made it by `Box::into_raw`, and no other thread has the
                // log any more.
                drop(unsafe { Box::from_raw(segment) });
            }
        }
    }
}

/// Every segment is in use. Resolved by the next flush.
#[cold]
fn full() -> Error {
    Error::new(ErrorKind::NoSpace, "all segments of the log are in use until a flush gives some back")
}

#[cold]
fn exhausted() -> Error {
    let message = "the database has used up its positions (1 EiB of log); copy its entries into a new one";
    Error::new(ErrorKind::Unsupported, message)
}
