//! Payloads that are written apart from their record: no later commit waits for the copying of a
//! large one.
//!
//! Records are published in the order of positions: a commit with a place in the log delays all
//! later commits until its bytes are there. For most records that is the time of a small copy. A
//! payload of a gigabyte takes a tenth of a second and more, so it is written as follows:
//!
//! 1. A *body* takes its place: only its header is written, and it is published at once. It has no
//!    operations, and recovery passes over its room, whatever that holds.
//! 2. The payload is copied into the room while later writers commit.
//! 3. A small record takes its place, with the position of the payload and its checksum. This is
//!    the commit: its positions are the sequence numbers.
//!
//! A published range may be synced, flushed, and recycled, so for a body:
//!
//! * nothing from its start on is recycled while it is being written;
//! * a sync that covers the small record includes the part of the room that an earlier sync has
//!   passed, because it was written since;
//! * body and record belong to one memtable. The log is recycled by memtables, and the record needs
//!   the body. If the memtable has changed in between, the body is abandoned.
use super::bodies::Unsynced;
use super::retention::Hold;
use super::{Reservation, Wal};
use sapwood_base::Result;
use sapwood_base::format::log_record::{Distant, HEADER_BYTES, RecordKind, UNIT_BYTES, record_units};

/// Payloads from this size on are written apart, in bytes: copying one takes longer than a slow
/// system call.
const WORTH_BYTES: usize = 8 << 20;

/// Bytes that are copied at a time.
const CHUNK_BYTES: usize = 64 << 10;
/// Number of schedule steps that copying a payload takes, in a simulation.
const STEPS: usize = 384;

/// A body with its place in the log. Its room belongs to the writer as long as this lives.
pub(crate) struct Body<'w> {
    wal: &'w Wal,
    start: u64,
    end: u64,
    distant: Distant,
    /// Nothing from the start on is recycled meanwhile.
    _hold: Hold,
}

impl Wal {
    /// Whether a payload of this size is worth a body: an ordinary record would noticeably delay
    /// other commits, or make them wait for a segment to be filled.
    pub(crate) fn is_worth_a_body(&self, payload_bytes: usize) -> bool {
        payload_bytes >= WORTH_BYTES.min(self.segments.full_units() as usize * UNIT_BYTES)
    }

    /// Makes the place `at` a body, which the caller completes.
    pub(crate) fn begin_body(&self, at: &Reservation, operations: usize) -> Result<Body<'_>> {
        let (start, end) = (at.position, at.end);
        let distant = Distant::new(&[], self.database, start);
        let body = Body { wal: self, start, end, distant, _hold: self.retention.hold(start) };
        self.write(at, &mut [0; HEADER_BYTES], RecordKind::Body, operations)?;
        Ok(body)
    }
}

impl Body<'_> {
    /// The units of the record that refers to the body, which needs a position per operation.
    pub(crate) fn record_units(operations: usize) -> u64 {
        record_units(Distant::BYTES).max(operations as u64)
    }

    /// Copies the payload into its room. A failure leaves no gap: recovery passes over the room.
    pub(crate) fn fill(&mut self, payload: &[u8]) -> Result<()> {
        let mut position = self.start + (HEADER_BYTES / UNIT_BYTES) as u64;
        let steps = STEPS * CHUNK_BYTES / payload.len().max(CHUNK_BYTES);
        for chunk in payload.chunks(CHUNK_BYTES) {
            // Other threads do much meanwhile.
            (0..steps).for_each(|_| crate::sync::step());
            self.wal.segments.store(position, chunk)?;
            position += (CHUNK_BYTES / UNIT_BYTES) as u64;
        }
        self.distant = Distant::new(payload, self.wal.database, self.start);
        Ok(())
    }

    /// Start of the body.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// Writes the record at `at`, which refers to the body. The caller completes it.
    #[cold]
    pub(crate) fn commit(&self, at: &Reservation, operations: usize) -> Result<()> {
        // Before it is published: a sync that covers the record finds the body.
        let unsynced = Unsynced { start: self.start, end: self.end, record_end: at.end };
        self.wal.sync.bodies.lock().unsynced.push(unsynced);
        let mut record = vec![0; (at.end - at.position) as usize * UNIT_BYTES];
        record[HEADER_BYTES..][..Distant::BYTES].copy_from_slice(&self.distant.encode());
        self.wal.write(at, &mut record, RecordKind::Distant, operations)
    }
}
