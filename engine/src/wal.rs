//! The write-ahead log.
//!
//! One endless sequence of records, laid over segments whose sizes grow with the log (`layout.rs`).
//! If a record does not fit into the rest of a segment, it continues in the next. Positions count
//! units of eight bytes and are sequence numbers at the same time.
//!
//! A record takes a place (`reserve.rs`) in segments that are provisioned (`segments.rs`), is
//! stored, and published in order (`commit_ring.rs`).
//!
//! The log of earlier sessions that recovery has replayed may not be durable yet. Its segments
//! are handed over ([`Earlier`]) and synced before anything of this log; [`Wal::durable`] stays
//! below [`Wal::base`] until then.
//!
//! *Durability.* A record is in the page cache when its bytes were stored (mapped segment) or
//! `pwrite` returned: it survives the end of the process. It survives a power loss once
//! [`Wal::wait_durable`] returned.
use crate::planted;
use commit_ring::{LogPoint, Next};
use pool::Pool;
use reader::FoundSegment;
use reserve::{Places, Request};
use retention::Retention;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::log_record::{
    self, HEADER_BYTES, MARK_PAYLOAD_BYTES, RecordKind, RecordPlace, UNIT_BYTES,
};
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_storage::DatabaseFiles;
use segments::{ROTATION_MARGIN, Segments};
use std::sync::Arc;
use sync::GroupSync;

pub(crate) mod commit_ring;
mod reserve;
mod segments;
mod pool;
mod layout;
mod segment;
pub(crate) mod body;
mod bodies;
mod sync;
mod retention;
pub(crate) mod reader;

pub(crate) use pool::{RetainedSegment, SEGMENTS_MAX, SegmentOptions, SpareFile};
pub(crate) use reserve::Reservation;

/// The log of earlier sessions.
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
    pub(crate) spare_files: Vec<SpareFile>,
}

/// The log of one session.
pub(crate) struct Wal {
    files: Arc<DatabaseFiles>,
    database: u64,
    places: Places,
    segments: Segments,
    sync: GroupSync,
    retention: Arc<Retention>,
}

impl Wal {
    /// A log that starts at `begin`. Nothing is provisioned yet.
    pub(crate) fn new(
        files: &Arc<DatabaseFiles>,
        database: u64,
        begin: LogPoint,
        options: SegmentOptions,
        earlier: Earlier,
    ) -> Wal {
        let Earlier { durable, retained, unsynced, spare_files } = earlier;
        let pool = Pool::new(retained, spare_files);
        Wal {
            files: files.clone(),
            database,
            places: Places::new(begin),
            segments: Segments::new(files, database, begin.position, options, durable, pool),
            sync: GroupSync::new(unsynced),
            retention: Arc::default(),
        }
    }

    /// Start of this log. Positions below belong to earlier sessions.
    pub(crate) fn base(&self) -> u64 {
        self.segments.base
    }

    /// See [`GroupSync::claim_replayed`].
    pub(crate) fn claim_replayed(&self) -> bool {
        self.sync.claim_replayed()
    }

    /// The position below which every operation is visible.
    #[inline]
    pub(crate) fn published(&self) -> u64 {
        self.places.published(self.segments.near())
    }

    /// The state of the tail.
    #[inline]
    fn tail(&self) -> Next {
        self.places.tail(self.segments.near())
    }

    /// The end of what is visible, with the number of commits before it.
    pub(crate) fn published_point(&self) -> LogPoint {
        self.places.published_point(self.segments.near())
    }

    /// The position below which everything survives a power loss.
    pub(crate) fn durable(&self) -> u64 {
        self.segments.durable()
    }

    /// The next position, or an earlier one.
    pub(crate) fn position(&self) -> u64 {
        self.tail().position
    }

    /// Bytes of log written in this session.
    pub(crate) fn bytes(&self) -> u64 {
        (self.tail().position - self.base()) * UNIT_BYTES as u64
    }

    /// Bytes of open segments, which are mapped if the log is.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segments.open_bytes()
    }

    /// Reserves `units` for the record of a commit.
    ///
    /// Errors: [`ErrorKind::NoSpace`] and other errors of provisioning; nothing is reserved then.
    #[inline]
    pub(crate) fn reserve(&self, units: u64) -> Result<Reservation> {
        self.places.reserve(&self.segments, Request::commit(units, &self.segments), true)
    }

    /// Reserves `units` for a body, which is no commit. Errors: as those of [`Wal::reserve`].
    pub(crate) fn reserve_body(&self, units: u64) -> Result<Reservation> {
        self.places.reserve(&self.segments, Request::other(units, &self.segments), true)
    }

    /// The next position, in order with every reservation: see [`Tail::fence`].
    ///
    /// [`Tail::fence`]: commit_ring::Tail::fence
    pub(crate) fn fence(&self) -> u64 {
        self.places.fence(self.segments.near())
    }

    /// Reserves the position of a rotation. Succeeds without provisioning if an ordinary
    /// reservation has succeeded or [`Wal::prepare_rotation`] was called before.
    pub(crate) fn reserve_rotation(&self) -> Result<Reservation> {
        self.places.reserve(&self.segments, Request::rotation(), true)
    }

    /// Ensures that [`Wal::reserve_rotation`] finds room.
    pub(crate) fn prepare_rotation(&self) -> Result<()> {
        self.segments.provision(self.tail().position + ROTATION_MARGIN)
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
        self.segments.store(at.position, record)
    }

    /// Publishes a reservation: its bytes are in the log and in the memtable.
    #[inline]
    pub(crate) fn complete(&self, at: &Reservation) {
        self.places.complete(at);
    }

    /// Waits until everything below `position` is published. Earlier writers are late by at most a
    /// few copies.
    #[inline]
    pub(crate) fn wait_published(&self, position: u64) {
        self.places.wait_published(position, || self.segments.near());
    }

    /// Whether to provision segments ahead of need now.
    #[inline]
    pub(crate) fn wants_segments(&self, at: &Reservation) -> bool {
        self.segments.are_wanted(at.end)
    }

    /// Whether the log has no segments left for a record of `units`, until a flush frees some.
    pub(crate) fn is_full_for(&self, units: u64) -> bool {
        self.segments.is_full_to(self.tail().position + units + ROTATION_MARGIN)
    }

    /// Whether the log can ever hold a record of `units`.
    pub(crate) fn can_hold(&self, units: u64) -> bool {
        self.segments.can_hold(units)
    }

    /// Segments that the log has filled since `position`.
    pub(crate) fn segments_since(&self, position: u64) -> usize {
        self.segments.count_between(position.max(self.base()), self.tail().position)
    }

    /// See [`Segments::provision_ahead`].
    pub(crate) fn provision_ahead(&self) -> Result<()> {
        self.segments.provision_ahead(self.tail().position)
    }

    /// Ends the log: takes all remaining room, so that no further reservation succeeds, and waits
    /// for earlier writers. Returns a position above every one that was or could have been
    /// reserved, and the number of all commits.
    pub(crate) fn seal(&self) -> LogPoint {
        let end = self.segments.seal();
        self.places.seal(end);
        LogPoint { position: end, ..self.published_point() }
    }

    /// Recycles every segment below `position`. REQUIRES: the MANIFEST durably records that the log
    /// is not needed below.
    pub(crate) fn recycle(&self, position: u64) {
        self.sync.bodies.lock().forget(position);
        self.segments.recycle(self.retention.release(position));
    }

    /// Removes every spare segment, because a full disk needs the room now. False if there is none.
    pub(crate) fn give_back_spares(&self) -> bool {
        self.segments.give_back_spares()
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
            if self.sync.lead_or_follow(position, &self.segments)? {
                self.lead(poison, check, provisions)?;
            } else if !planted::followers_check_again() {
                break;
            }
        }
        Ok(())
    }

    /// Syncs everything published. The caller has the lead: see [`GroupSync::lead_or_follow`].
    fn lead(&self, poison: &dyn Fn(&Error), check: &dyn Fn() -> Result<()>, provisions: bool) -> Result<()> {
        // A writer that leaves a gap in the log poisons before it publishes. Records after a gap
        // are never read again, so they must not be called durable: recovery would take the gap for
        // damage.
        let target = match planted::without_gap(|| self.published(), check) {
            Ok(target) => target,
            Err(error) => {
                self.sync.end(|| ());
                return Err(error);
            }
        };
        planted::not_before_sync(|| self.mark(target, poison, provisions));
        let result = planted::once(|| self.sync.sync_up_to(target, &self.segments));
        if result.is_err() {
            self.note_failed_sync();
        }
        self.sync.end(|| match &result {
            Ok(()) => self.segments.note_durable(target),
            Err(error) => poison(error),
        });
        // Whatever the cause, even a full disk: the sync cannot be retried.
        result.map_err(|error| {
            let message =
                format!("a sync of the log failed, writes are closed; reopen the database ({error})");
            Error::new(ErrorKind::Poisoned, message)
        })?;
        // If this log is empty, no mark is needed: the MANIFEST covers the log before it.
        if target > self.base() {
            self.mark(target, poison, provisions);
        }
        Ok(())
    }

    /// Notes that everything below `position` is in tables, which are durable.
    pub(crate) fn set_durable(&self, position: u64) {
        self.sync.set_durable(position, &self.segments);
    }

    /// Waits for a sync and for a provisioning under way, none of which begins afterwards, and
    /// closes all segments. REQUIRES: the log is sealed.
    pub(crate) fn close(&self) {
        self.sync.close();
        self.segments.close();
        self.sync.drop_replayed();
    }

    /// Notes for the next open that bytes which it can read may not be on the disk. The note
    /// need not survive longer than those bytes, so it is not synced. If the device accepts no new
    /// file either, only the error remains.
    fn note_failed_sync(&self) {
        let _ = self.files.fs.create_new(&self.files.directory.join(FileName::Unsynced.format()));
    }

    /// Appends a witness for recovery: a damaged record below a mark is corruption, not the torn
    /// end.
    fn mark(&self, durable: u64, poison: &dyn Fn(&Error), provisions: bool) {
        let units = log_record::record_units(MARK_PAYLOAD_BYTES);
        // Without room there is no witness, which only weakens the evidence for recovery.
        let request = Request::other(units, &self.segments);
        let at = match self.places.reserve(&self.segments, request, provisions) {
            Ok(at) => at,
            Err(error) => {
                if error.kind() == ErrorKind::Poisoned {
                    poison(&error);
                }
                return;
            }
        };
        let mut record = [0; HEADER_BYTES + MARK_PAYLOAD_BYTES];
        record[HEADER_BYTES..].copy_from_slice(&durable.to_le_bytes());
        // A failed store leaves a gap, and recovery ends at gaps: nothing may be acknowledged after
        // it.
        if let Err(error) = self.write(&at, &mut record, RecordKind::SyncMark, 0) {
            poison(&error);
        }
        self.complete(&at);
        self.wait_published(at.end);
    }
}
