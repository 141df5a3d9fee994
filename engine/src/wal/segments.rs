//! The room of the log: segments are provisioned ahead of the writers, used, and recycled.
//!
//! Positions are reserved only inside provisioned segments: created with all their room and synced
//! with their header. So a full disk is met during provisioning, before anything was reserved, and
//! never in the middle of a record.
//!
//! *Recycling.* Once everything in a segment is in tables, a new header assigns a later part of the
//! log to it. Checksums are seeded with the position, so bytes of an earlier part never validate.
//! File names are slots, and independent of the order.
use super::layout::{Layout, Place};
use super::pool::{AHEAD_MAX, Pool, SEGMENTS_MAX, SegmentOptions, Source, SpareFile, Surplus, full};
use super::segment::{self, LogSegment};
use crate::planted;
use crossbeam::utils::CachePadded;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::log_record::UNIT_BYTES;
use sapwood_base::format::log_segment::{DATA_OFFSET, HEADER_BYTES, SegmentHeader};
use sapwood_base::{Error, ErrorKind, FileNumber, Result, SequenceNumber};
use sapwood_storage::DatabaseFiles;
use sapwood_storage::sync::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Segments not available to a single record: the one that holds the tail, and those after it.
const SEGMENTS_KEPT: u64 = 8;
/// Room after the last ordinary record that only rotations may take, in units: a rotation must not
/// fail.
pub(super) const ROTATION_MARGIN: u64 = 64;
/// End of positions, including those of unused segments; a little below the last sequence number.
/// Equals the commits of 1 EiB of log.
pub(super) const POSITION_LIMIT: u64 = SequenceNumber::MAX.0 + 1 - (1 << 20);
/// Ordinary records end this many segments before the limit: commits up to there can still be
/// flushed, by more than one session.
const LAST_SEGMENTS: u64 = 16;
/// A session that has filled less than this part of a segment has one segment only.
const FIRST_SHARE: u64 = 64;
/// A part of the first segment that is never too little for that, in bytes: half of a short one.
const FIRST_BYTES: u64 = 2 << 10;
/// Number of filled segments of full length per additional segment provisioned ahead.
const FILLED_PER_AHEAD: u64 = 4;

/// A segment that the log and syncs hold.
type Shared = Arc<dyn LogSegment>;

/// The segments of the log of one session.
pub(super) struct Segments {
    files: Arc<DatabaseFiles>,
    database: u64,
    mapped: bool,
    /// See [`SegmentOptions::kept`].
    kept: usize,
    /// Start of the log.
    pub(super) base: u64,
    layout: Layout,
    /// End of ordinary records.
    pub(super) ordinary_limit: u64,
    /// The position at which the log thread is woken next.
    wake_at: CachePadded<AtomicU64>,
    /// Position up to which segments are ready.
    provisioned: CachePadded<AtomicU64>,
    /// Slot + 1 of segment `i`, at `i % SEGMENTS_MAX`.
    slot_of: Box<[AtomicU32]>,
    /// The segments by slot; null where one is empty. Each points to a box with a reference, so
    /// that a sync may hold a segment that is removed meanwhile.
    slots: Box<[AtomicPtr<Shared>]>,
    pool: Mutex<Pool>,
    /// Held while segments are provisioned.
    provisioning: Mutex<()>,
    /// The position below which all log is durable, for headers.
    durable: CachePadded<AtomicU64>,
}

impl Segments {
    /// The segments of a log that starts at `base`. Nothing is provisioned yet.
    pub(super) fn new(
        files: &Arc<DatabaseFiles>,
        database: u64,
        base: u64,
        options: SegmentOptions,
        durable: u64,
        pool: Pool,
    ) -> Segments {
        let layout = Layout::new(options);
        let padded = |position: u64| CachePadded::new(AtomicU64::new(position));
        Segments {
            files: files.clone(),
            database,
            mapped: options.mapped,
            kept: options.kept,
            base,
            ordinary_limit: POSITION_LIMIT - planted::kept_segments(LAST_SEGMENTS) * layout.full_units,
            wake_at: padded(base + first_share(&layout)),
            layout,
            provisioned: padded(base),
            slot_of: (0..SEGMENTS_MAX).map(|_| AtomicU32::new(0)).collect(),
            slots: (0..SEGMENTS_MAX).map(|_| AtomicPtr::default()).collect(),
            pool: Mutex::new(pool),
            provisioning: Mutex::new(()),
            durable: padded(durable),
        }
    }

    /// The position below which everything survives a power loss.
    #[inline]
    pub(super) fn durable(&self) -> u64 {
        // Acquire: pairs with the Release in `note_durable`.
        self.durable.load(Ordering::Acquire)
    }

    /// Notes that everything below `position` survives a power loss.
    pub(super) fn note_durable(&self, position: u64) {
        // Release: pairs with the Acquire in `durable`.
        self.durable.fetch_max(position, Ordering::Release);
    }

    /// The position up to which segments are ready.
    #[inline]
    pub(super) fn provisioned(&self) -> u64 {
        // Acquire: pairs with the Release in `provision`; the segments below are ready.
        self.provisioned.load(Ordering::Acquire)
    }

    /// A position near all that are in use: see `commit_ring`.
    #[inline]
    pub(super) fn near(&self) -> u64 {
        // Relaxed: any of its values of the last months will do.
        self.provisioned.load(Ordering::Relaxed)
    }

    /// Bytes of open segments, which are mapped if the log is.
    pub(super) fn open_bytes(&self) -> u64 {
        self.pool.lock().open_bytes
    }

    /// Units of a segment of full length.
    pub(super) fn full_units(&self) -> u64 {
        self.layout.full_units
    }

    /// Bytes of the file of a segment of full length.
    fn full_bytes(&self) -> u64 {
        self.layout.full_units * UNIT_BYTES as u64 + DATA_OFFSET as u64
    }

    /// The position after segment `number`.
    fn end_of(&self, number: u64) -> u64 {
        self.base + self.layout.end_of(number)
    }

    /// The number of segments that reach up to `position`.
    fn number_to(&self, position: u64) -> u64 {
        self.layout.count_to(position.saturating_sub(self.base))
    }

    /// The number of segments between two positions of this log.
    pub(super) fn count_between(&self, from: u64, to: u64) -> usize {
        let number = |position: u64| self.layout.place(position - self.base).number;
        number(to).saturating_sub(number(from)) as usize
    }

    /// Whether there is no segment left up to `position`, until a flush frees some.
    pub(super) fn is_full_to(&self, position: u64) -> bool {
        self.number_to(position) > self.pool.lock().limit()
    }

    /// Whether the log can ever hold a record of `units`.
    pub(super) fn can_hold(&self, units: u64) -> bool {
        self.layout.most_for(units) + SEGMENTS_KEPT <= SEGMENTS_MAX as u64
    }

    /// Stores bytes from `position` on. REQUIRES: the caller holds the reservation that contains
    /// them, or has it pinned.
    #[inline]
    pub(super) fn store(&self, position: u64, bytes: &[u8]) -> Result<()> {
        let mut unit = position - self.base;
        let mut rest = bytes;
        while !rest.is_empty() {
            let Place { number, offset, units } = self.layout.place(unit);
            let room = (units - offset) as usize * UNIT_BYTES;
            let (now, later) = rest.split_at(room.min(rest.len()));
            // SAFETY: the range lies inside the reservation, which no other thread has.
            unsafe { self.segment(number).write(DATA_OFFSET + offset as usize * UNIT_BYTES, now)? };
            rest = later;
            unit += units - offset;
        }
        Ok(())
    }

    #[inline]
    fn segment(&self, number: u64) -> &dyn LogSegment {
        // Relaxed, both: `provisioned`, read before, orders them.
        let slot = self.slot_of[number as usize % SEGMENTS_MAX].load(Ordering::Relaxed) as usize;
        let segment = self.slots[slot - 1].load(Ordering::Relaxed);
        // SAFETY: the caller holds a reservation in the segment, so it is in use until
        // that is completed, or has it pinned as a body, so that it is not recycled before the pin
        // is dropped. A segment in use is neither spare nor removed. A slot in use was filled
        // before `provisioned` covered its segment.
        unsafe { &**segment }
    }

    /// The segment in a slot. REQUIRES: the slot is not empty, and the lock of the pool or the lock
    /// `provisioning` keeps it so.
    fn shared(&self, slot: usize) -> Shared {
        // Acquire: pairs with the Release in `fill`.
        let segment = self.slots[slot].load(Ordering::Acquire);
        assert!(!segment.is_null(), "the slot is filled");
        // SAFETY: it was made by `Box::into_raw` and is freed only after it was taken out of the
        // pool, under its lock.
        unsafe { (*segment).clone() }
    }

    /// Whether to provision segments ahead of need now, for a record that ends at `end`.
    #[inline]
    pub(super) fn are_wanted(&self, end: u64) -> bool {
        // Relaxed: a hint.
        end > self.wake_at.load(Ordering::Relaxed) && self.note_segment(end)
    }

    /// Schedules the next provisioning for the next segment.
    #[cold]
    fn note_segment(&self, end: u64) -> bool {
        let next = self.end_of(self.layout.place(end - self.base).number);
        self.wake_at.fetch_max(next, Ordering::Relaxed) < next
    }

    /// Provisions segments ahead of the writers: one, and one more per [`FILLED_PER_AHEAD`]
    /// segments of full length that this session has filled. While tables are written, the sync of
    /// a header can take the disk longer than writers need to fill a segment. But a short log
    /// should take little disk space, and be quick to scan.
    ///
    /// A session that writes nothing has no segment.
    ///
    /// Where segments are scarce (at the end of positions, and while all are in use), the last ones
    /// are left to the writers. The writers get the error, or wait for a flush.
    pub(super) fn provision_ahead(&self, tail: u64) -> Result<()> {
        let written = tail - self.base;
        if written == 0 {
            return Ok(());
        }
        let Place { number, offset, units } = self.layout.place(written);
        let wanted = if written < first_share(&self.layout) {
            tail + ROTATION_MARGIN
        } else if units < self.layout.full_units {
            self.end_of(number + 1)
        } else {
            let ahead = (1 + self.layout.full_before(number) / FILLED_PER_AHEAD).min(AHEAD_MAX);
            self.end_of(number + ahead + u64::from(offset > units / 2))
        };
        let most = self.base + self.layout.start_of(self.pool.lock().limit());
        self.provision(wanted.min(most).min(self.ordinary_limit))
    }

    /// Provisions segments up to `position`.
    ///
    /// One thread at a time creates files and syncs headers, which may take as long as the disk
    /// does. The pool is locked only in between, for threads that recycle segments or have room
    /// enough.
    #[cold]
    pub(super) fn provision(&self, position: u64) -> Result<()> {
        let is_ready = || self.provisioned() >= position;
        if is_ready() {
            return Ok(());
        }
        let _provisioning = self.provisioning.lock();
        while !is_ready() {
            let (number, bytes, source) = {
                let mut pool = self.pool.lock();
                pool.check_open()?;
                let number = pool.next;
                let is_past_end = self.end_of(number) > POSITION_LIMIT;
                if is_past_end && planted::segments_end_with_positions() {
                    return Err(exhausted());
                }
                // Checked first, so that no segment is provisioned for a record that cannot get
                // enough of them.
                if self.number_to(position) > pool.limit() {
                    return Err(full());
                }
                let bytes = self.layout.file_bytes(number);
                (number, bytes, pool.source(bytes)?)
            };
            let (slot, started) = match source {
                Source::Open(slot) => (slot, self.start(number, slot)),
                Source::File { file: Some(file), slot } => {
                    self.open_segment(file, bytes, slot)?;
                    (slot, self.start(number, slot))
                }
                Source::File { file: None, slot } => {
                    self.create_segment(number, bytes, slot)?;
                    (slot, Ok(()))
                }
            };
            let mut pool = self.pool.lock();
            if let Err(error) = started.and_then(|()| pool.check_open()) {
                pool.spare.push((slot, bytes));
                return Err(error);
            }
            self.slot_of[number as usize % SEGMENTS_MAX].store(slot as u32 + 1, Ordering::Relaxed);
            pool.used.push_back((number, slot));
            pool.next += 1;
            // Release: pairs with the Acquire in `provisioned`.
            self.provisioned.store(self.end_of(number), Ordering::Release);
        }
        Ok(())
    }

    /// Ends provisioning. Returns the position up to which segments are ready.
    pub(super) fn seal(&self) -> u64 {
        self.pool.lock().sealed = true;
        // The header of a segment that is being provisioned records the durable position. It must
        // be written before the rest of the log, which no record marks, can be synced: otherwise
        // the next open would miss records in it.
        drop(self.provisioning.lock());
        self.provisioned()
    }

    /// The header of segment `number` in `file`.
    fn header(&self, number: u64, file: FileNumber) -> [u8; HEADER_BYTES] {
        let header = SegmentHeader {
            data_units: self.layout.units_of(number) as u32,
            base_position: self.base + self.layout.start_of(number),
            database: self.database,
            file_number: file.0,
            durable_position: self.durable(),
        };
        header.encode()
    }

    /// Makes an open segment number `number`.
    fn start(&self, number: u64, slot: usize) -> Result<()> {
        let segment = self.shared(slot);
        segment.start(&self.header(number, segment.file()))
    }

    /// Opens a recycled file of `bytes` in `slot`.
    fn open_segment(&self, file: FileNumber, bytes: u64, slot: usize) -> Result<()> {
        match segment::open(&self.files, file, bytes as usize, self.mapped) {
            Ok(segment) => {
                self.fill(slot, segment, bytes);
                Ok(())
            }
            Err(error) => {
                self.pool.lock().spare_files.push(SpareFile { file, bytes });
                Err(error)
            }
        }
    }

    /// Creates segment `number` with `bytes`, in `slot`.
    fn create_segment(&self, number: u64, bytes: u64, slot: usize) -> Result<()> {
        let file = self.files.allocate_name(FileName::Log)?;
        let header = self.header(number, file);
        let created = segment::create(&self.files, file, bytes as usize, self.mapped, &header)
            .and_then(|()| segment::open(&self.files, file, bytes as usize, self.mapped));
        let segment = created.inspect_err(|_| {
            // An incomplete file would only take space on a full disk.
            self.remove_created(file);
        })?;
        if let Err(error) = self.files.sync_directory() {
            // The name exists, may not survive a power loss, and no later sync would change that.
            // The next open must not find the file and write durable data to it.
            drop(segment);
            let _ = self.files.fs.remove_file(&self.path(file));
            return Err(error);
        }
        self.fill(slot, segment, bytes);
        Ok(())
    }

    /// Puts a segment of `bytes` into an empty slot.
    fn fill(&self, slot: usize, segment: Box<dyn LogSegment>, bytes: u64) {
        let shared: Shared = Arc::from(segment);
        // Release: pairs with the Acquire in `shared`.
        let before = self.slots[slot].swap(Box::into_raw(Box::new(shared)), Ordering::Release);
        assert!(before.is_null(), "only empty slots are filled");
        self.pool.lock().fill(slot, bytes);
    }

    /// Removes a segment that was being created, under its present name. A foreign file of the
    /// final name is not removed: it has kept the segment at its unfinished name.
    fn remove_created(&self, number: FileNumber) {
        let unfinished = self.files.unfinished_path(FileName::Log(number));
        if self.files.fs.remove_file(&unfinished).is_err() {
            let _ = self.files.fs.remove_file(&self.path(number));
        }
    }

    fn path(&self, number: FileNumber) -> PathBuf {
        self.files.directory.join(FileName::Log(number).format())
    }

    /// Recycles every segment below `position`. REQUIRES: the MANIFEST durably records that the log
    /// is not needed below.
    pub(super) fn recycle(&self, position: u64) {
        let shape = |number| (self.end_of(number), self.layout.file_bytes(number));
        let surplus = self.pool.lock().recycle(position, shape, self.full_bytes(), self.kept);
        self.remove(surplus);
    }

    /// Removes every spare segment. False if there is none.
    pub(super) fn give_back_spares(&self) -> bool {
        let surplus = self.pool.lock().take_spares();
        self.remove(surplus)
    }

    /// Removes the files of segments. False if there is none.
    fn remove(&self, surplus: Surplus) -> bool {
        let Surplus { open, mut files } = surplus;
        for (slot, _) in &open {
            // Acquire: pairs with the Release in `fill`.
            let segment = self.slots[*slot].swap(std::ptr::null_mut(), Ordering::Acquire);
            // SAFETY: `fill` made it by `Box::into_raw`, and this call alone has taken it
            // out. No reservation lies in it, since it was spare, and syncs hold references of
            // their own.
            let segment = unsafe { Box::from_raw(segment) };
            files.push(segment.file());
        }
        for file in &files {
            // A file that cannot be removed now is removed, or used again, at the next open.
            let _ = self.files.fs.remove_file(&self.path(*file));
        }
        let mut pool = self.pool.lock();
        open.iter().for_each(|(slot, bytes)| pool.vacate(*slot, *bytes));
        !files.is_empty()
    }

    /// Makes the log between two positions survive a power loss.
    pub(super) fn sync(&self, from: u64, to: u64) -> Result<()> {
        let (mut unit, end) = (from - self.base, to - self.base);
        let first = unit;
        while unit < end && planted::syncs_from(unit, first) {
            let Place { number, offset, units } = self.layout.place(unit);
            let stop = (end - unit + offset).min(units);
            let bytes = |units: u64| DATA_OFFSET + units as usize * UNIT_BYTES;
            // A segment that was recycled since is in tables, which were synced.
            if let Some(segment) = self.in_use(number) {
                segment.sync(bytes(offset), bytes(stop))?;
            }
            unit += stop - offset;
        }
        Ok(())
    }

    /// A segment, unless it was recycled.
    fn in_use(&self, number: u64) -> Option<Shared> {
        let pool = self.pool.lock();
        let (_, slot) = pool.used.iter().find(|(used, _)| *used == number)?;
        Some(self.shared(*slot))
    }

    /// Whether a file of an earlier session is still needed.
    pub(super) fn retains(&self, file: FileNumber) -> bool {
        self.pool.lock().retained.iter().any(|kept| kept.file == file)
    }

    /// Waits for a provisioning under way and closes all segments. REQUIRES: the log is sealed, and
    /// no sync is under way or begins later.
    pub(super) fn close(&self) {
        let _provisioning = self.provisioning.lock();
        let mut pool = self.pool.lock();
        let filled = pool.close();
        for segment in &self.slots[..filled] {
            // Acquire: pairs with the Release in `fill`.
            let segment = segment.swap(std::ptr::null_mut(), Ordering::Acquire);
            if !segment.is_null() {
                // SAFETY: `fill` made it by `Box::into_raw`, and the swap alone has taken
                // it out. The seal has waited for every writer that had a place in it, and no
                // reservation or sync comes after.
                drop(unsafe { Box::from_raw(segment) });
            }
        }
    }
}

impl Drop for Segments {
    fn drop(&mut self) {
        for segment in &mut self.slots {
            let segment = std::mem::replace(segment.get_mut(), std::ptr::null_mut());
            if !segment.is_null() {
                // SAFETY: `fill` made it by `Box::into_raw`, and no other thread has the
                // log any more.
                drop(unsafe { Box::from_raw(segment) });
            }
        }
    }
}

/// Units of log below which one segment is enough.
fn first_share(layout: &Layout) -> u64 {
    (layout.units_of(0) / FIRST_SHARE).max(FIRST_BYTES / UNIT_BYTES as u64)
}

#[cold]
pub(super) fn exhausted() -> Error {
    let message = "the database has used up its positions (1 EiB of log); copy its entries into a new one";
    Error::new(ErrorKind::Unsupported, message)
}
