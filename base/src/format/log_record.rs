//! Record framing shared by the log and the MANIFEST.
//!
//! ```text
//!  0  u32 payload length in bytes
//!  4  u32 checksum: low half of XXH3-64 over bytes 16.. of header and payload,
//!         seeded with (database, position, payload length, number of commits)
//!  8  u64 number of commits before this record; 0 in a MANIFEST
//! 16  u32 low half of the position
//! 20  u8  kind   21 u8 flags (0)   22 u16 number of operations, 65535 for "that many or more"
//! 24  payload, zeros to the next multiple of 8
//! ```
//!
//! A position counts units of eight bytes and is never reused, so bytes from an earlier use of a
//! recycled segment never validate.
//!
//! Positions have gaps, since sync marks, rotations and long records take them too. The numbers of
//! commits have none: the record of commit `n` (see [`RecordKind::is_commit`]) follows `n - 1` of
//! them. A reader that starts anywhere knows which commit comes next.
use crate::checksum::{checksum32, checksum64, place_seed};
use crate::error::{Error, ErrorKind};
use crate::planted;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 24;
/// The place of the payload length in a header.
pub const PAYLOAD_BYTES_AT: usize = 0;
const CHECKSUM_AT: usize = 4;
/// The place of the number of commits in a header.
pub const COMMITS_AT: usize = 8;
const POSITION_AT: usize = 16;
/// The place of the kind in a header.
pub const KIND_AT: usize = 20;
const FLAGS_AT: usize = 21;
/// The place of the number of operations in a header.
pub const OPERATIONS_AT: usize = 22;
/// The checksum covers the bytes from here on.
const CHECKED_FROM: usize = POSITION_AT;
/// Bytes per unit of position.
pub const UNIT_BYTES: usize = 8;
/// Bytes of a sync mark's payload, a position.
pub const MARK_PAYLOAD_BYTES: usize = 8;
/// The longest payload in bytes.
pub const MAX_PAYLOAD_BYTES: usize = (2 << 30) - HEADER_BYTES;

/// Reserved, a flag: 16 bytes of seal (AES-GCM or the like) stand between payload and the next
/// unit.
pub const SEALED: u8 = 0x80;

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// A write batch (`write_batch`).
    Batch = 1,
    /// Room that was reserved but holds no bytes, for operations that requested no log. The
    /// checksum covers the header alone.
    Skip = 2,
    /// Eight bytes: everything below this position was synced when the record was written.
    SyncMark = 3,
    /// The memtable was rotated here.
    Rotate = 4,
    /// A version edit (`manifest`); only in a MANIFEST.
    Edit = 5,
    /// Room for the payload of a large batch, which is written while later records are already
    /// published. The checksum covers the header alone.
    Body = 10,
    /// A write batch whose payload stands in the room of an earlier [`RecordKind::Body`]: see
    /// [`Distant`].
    Distant = 11,
    /// Reserved: a transaction that may still commit or roll back.
    Prepare = 6,
    /// Reserved: the outcome of a prepared transaction.
    TransactionEnd = 7,
    /// Reserved: values stored apart from their keys.
    Values = 8,
    /// Reserved: tables made elsewhere.
    Ingest = 9,
}

/// The payload of a [`RecordKind::Distant`] record; zeros may follow it.
///
/// ```text
///  0  u64 position of the body record
///  8  u32 bytes of the batch, which begins after the header of the body
/// 12  u32 0
/// 16  u64 XXH3-64 of the batch, seeded with (database, position of the body)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distant {
    /// The position of the body record.
    pub body: u64,
    /// Bytes of the batch.
    pub payload_bytes: u32,
    checksum: u64,
}

impl Distant {
    /// Bytes of the encoding.
    pub const BYTES: usize = 24;

    /// The reference to `payload`, which stands in the record at `body`.
    pub fn new(payload: &[u8], database: u64, body: u64) -> Distant {
        let checksum = checksum64(payload, place_seed(database, body));
        Distant { body, payload_bytes: payload.len() as u32, checksum }
    }

    /// The bytes of the payload.
    pub fn encode(&self) -> [u8; Distant::BYTES] {
        let words = [self.body, u64::from(self.payload_bytes), self.checksum];
        let mut bytes = [0; Distant::BYTES];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    /// Reads the payload of the record at `position`; `None` if it does not refer to earlier room.
    pub fn decode(payload: &[u8], position: u64) -> Option<Distant> {
        let words = payload.first_chunk::<{ Distant::BYTES }>()?.as_chunks::<8>().0;
        let [body, payload_bytes, checksum] = [0, 1, 2].map(|at| u64::from_le_bytes(words[at]));
        let payload_bytes = u32::try_from(payload_bytes).ok()?;
        let end = body.checked_add(record_units(payload_bytes as usize))?;
        (payload_bytes as usize <= MAX_PAYLOAD_BYTES && end <= position).then_some(Distant {
            body,
            payload_bytes,
            checksum,
        })
    }

    /// Whether `payload` has the bytes of the batch.
    pub fn verify(&self, payload: &[u8], database: u64) -> bool {
        *self == Distant::new(payload, database, self.body)
    }
}

impl RecordKind {
    /// Whether the checksum covers the header alone.
    pub fn is_header_alone(self) -> bool {
        matches!(self, RecordKind::Skip | RecordKind::Body)
    }

    /// Whether the record counts as a commit. One that was skipped has its operations in tables
    /// only, or none.
    #[inline]
    pub fn is_commit(self) -> bool {
        matches!(self, RecordKind::Batch | RecordKind::Skip | RecordKind::Distant)
    }

    /// Whether no release writes such records yet.
    #[inline]
    pub fn is_reserved(self) -> bool {
        use RecordKind::{Ingest, Prepare, TransactionEnd, Values};
        matches!(self, Prepare | TransactionEnd | Values | Ingest)
    }

    /// The kind that a header names with `byte`.
    pub fn from_u8(byte: u8) -> Option<RecordKind> {
        Some(match byte {
            1 => RecordKind::Batch,
            2 => RecordKind::Skip,
            3 => RecordKind::SyncMark,
            4 => RecordKind::Rotate,
            5 => RecordKind::Edit,
            6 => RecordKind::Prepare,
            7 => RecordKind::TransactionEnd,
            8 => RecordKind::Values,
            9 => RecordKind::Ingest,
            10 => RecordKind::Body,
            11 => RecordKind::Distant,
            _ => return None,
        })
    }
}

/// The place of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// The number of the database.
    pub database: u64,
    /// The position of the record.
    pub position: u64,
    /// The number of commits before it.
    pub commits: u64,
}

/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of payload (for [`RecordKind::Skip`] and [`RecordKind::Body`]: bytes to skip).
    pub payload_bytes: u32,
    /// The kind of the record.
    pub kind: RecordKind,
    /// Operations in the batch, saturated at 65535.
    pub operations: u16,
    /// No flag is known; [`SEALED`] is reserved.
    pub flags: u8,
    /// The number of commits before the record.
    pub commits: u64,
    checksum: u32,
}

/// The units that a record with this payload occupies.
#[inline]
pub fn record_units(payload_bytes: usize) -> u64 {
    (HEADER_BYTES + payload_bytes).div_ceil(UNIT_BYTES) as u64
}

/// The seed has the number of commits, so that the checksum need not read it: every eight bytes of
/// input count for small records.
#[inline]
fn seed(place: &RecordPlace, payload_bytes: u32) -> u64 {
    place_seed(place.database, planted::sealed_position(place.position))
        ^ u64::from(payload_bytes).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        ^ place.commits.wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// Fills in the header of `record`, which follows no commit: see [`seal_at`].
#[inline]
pub fn seal(
    record: &mut [u8],
    payload_bytes: u32,
    database: u64,
    position: u64,
    kind: RecordKind,
    operations: usize,
) {
    seal_at(record, payload_bytes, &RecordPlace { database, position, commits: 0 }, kind, operations);
}

/// Fills in the header of `record`, whose payload starts at byte [`HEADER_BYTES`]. For
/// [`RecordKind::Skip`] and [`RecordKind::Body`] `record` is the header alone and `payload_bytes`
/// the length of the room after it.
#[inline]
pub fn seal_at(
    record: &mut [u8],
    payload_bytes: u32,
    place: &RecordPlace,
    kind: RecordKind,
    operations: usize,
) {
    debug_assert!(kind.is_header_alone() || record.len() == HEADER_BYTES + payload_bytes as usize);
    // Stored as words: small slices would be copied by function calls.
    let operations = u64::from(operations.min(0xFFFF) as u16);
    let facts = u64::from(place.position as u32) | u64::from(kind as u8) << 32 | operations << 48;
    let (words, _) = record.as_chunks_mut::<8>();
    words[1] = place.commits.to_le_bytes();
    words[2] = facts.to_le_bytes();
    let sum = checksum32(&record[CHECKED_FROM..], seed(place, payload_bytes));
    let (words, _) = record.as_chunks_mut::<8>();
    words[0] = (u64::from(payload_bytes) | u64::from(sum) << 32).to_le_bytes();
}

#[inline]
fn word(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The two positions from `from` on that the header in `bytes` can stand at: it holds the low half
/// of its position.
pub fn claimed_positions(bytes: &[u8; HEADER_BYTES], from: u64) -> [u64; 2] {
    let low = word(bytes, POSITION_AT);
    [0, 1].map(|more| ((from >> 32) + more) << 32 | u64::from(low))
}

/// Parses a header claimed to stand at `position`; `None` if it is not one. The payload is not yet
/// checked.
#[inline]
pub fn parse_header(bytes: &[u8; HEADER_BYTES], position: u64) -> Option<RecordHeader> {
    let word = |at| word(bytes, at);
    let payload_bytes = word(PAYLOAD_BYTES_AT);
    if !planted::is_position(word(POSITION_AT), position) || payload_bytes as usize > MAX_PAYLOAD_BYTES {
        return None;
    }
    let (kind, flags) = (RecordKind::from_u8(bytes[KIND_AT])?, bytes[FLAGS_AT]);
    let operations = u16::from_le_bytes([bytes[OPERATIONS_AT], bytes[OPERATIONS_AT + 1]]);
    let commits = u64::from(word(COMMITS_AT)) | u64::from(word(COMMITS_AT + 4)) << 32;
    Some(RecordHeader { payload_bytes, kind, operations, flags, commits, checksum: word(CHECKSUM_AT) })
}

impl RecordHeader {
    /// The number of bytes that the checksum covers, from the start of the record.
    pub fn covered_bytes(&self) -> usize {
        match self.kind {
            kind if kind.is_header_alone() => HEADER_BYTES,
            _ => HEADER_BYTES + self.payload_bytes as usize,
        }
    }

    /// Whether `record` (header and payload, at least [`RecordHeader::covered_bytes`]) is intact.
    #[inline]
    pub fn verify(&self, record: &[u8], database: u64, position: u64) -> bool {
        let place = RecordPlace { database, position, commits: self.commits };
        match record.get(CHECKED_FROM..self.covered_bytes()) {
            Some(covered) => checksum32(covered, seed(&place, self.payload_bytes)) == self.checksum,
            None => false,
        }
    }

    /// Whether this release understands such records.
    #[inline]
    pub fn is_known(&self) -> bool {
        self.flags == 0 && !self.kind.is_reserved()
    }

    /// The error of a valid record that this release does not understand.
    #[cold]
    pub fn unknown(&self) -> Error {
        let what = match self.kind {
            _ if self.flags & SEALED != 0 => "encrypted".to_owned(),
            _ if self.flags != 0 => format!("marked with unknown flags ({:#x})", self.flags),
            RecordKind::Prepare => "the preparation of a transaction".to_owned(),
            RecordKind::TransactionEnd => "the end of a transaction".to_owned(),
            RecordKind::Values => "a list of values apart from their keys".to_owned(),
            RecordKind::Ingest => "an ingest".to_owned(),
            kind => format!("of kind {kind:?}"),
        };
        Error::new(ErrorKind::Unsupported, format!("log record is {what}: use a newer release"))
    }

    /// The number of commits up to and including the record.
    #[inline]
    pub fn commits_after(&self) -> u64 {
        self.commits.wrapping_add(u64::from(self.kind.is_commit()))
    }

    /// The units that the record occupies.
    pub fn units(&self) -> u64 {
        record_units(self.payload_bytes as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(position: u64) -> Vec<u8> {
        let mut record = vec![0; HEADER_BYTES];
        record.extend_from_slice(b"payload");
        let place = RecordPlace { database: 42, position, commits: 0x1_0000_0007 };
        seal_at(&mut record, 7, &place, RecordKind::Batch, 3);
        record
    }

    #[test]
    fn every_flipped_bit_and_every_other_place_is_noticed() {
        let good = record(1000);
        let valid = |bytes: &[u8], position: u64, database: u64| {
            parse_header(bytes.first_chunk().unwrap(), position)
                .is_some_and(|header| header.verify(bytes, database, position))
        };
        assert!(valid(&good, 1000, 42));
        assert!(!valid(&good, 1001, 42) && !valid(&good, 1000 + (1 << 32), 42) && !valid(&good, 1000, 43));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!valid(&bad, 1000, 42), "bit {bit}");
        }
        assert!(!valid(&good[..good.len() - 1], 1000, 42));
    }

    #[test]
    fn what_later_releases_write_is_named() {
        let kinds = [
            (6, "preparation of a transaction"),
            (7, "end of a transaction"),
            (8, "values apart"),
            (9, "ingest"),
        ];
        for (kind, name) in kinds {
            let kind = RecordKind::from_u8(kind).expect("a reserved kind");
            let mut record = record(1000);
            seal(&mut record, 7, 42, 1000, kind, 3);
            let header = parse_header(record.first_chunk().unwrap(), 1000).unwrap();
            assert!(header.verify(&record, 42, 1000) && !header.is_known());
            let error = header.unknown();
            assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains(name), "{error}");
        }
        for (flags, name) in [(SEALED, "encrypted"), (1, "flags")] {
            let mut record = record(1000);
            record[21] = flags;
            let header = parse_header(record.first_chunk().unwrap(), 1000).unwrap();
            assert!(!header.is_known() && header.unknown().to_string().contains(name));
        }
        assert!(parse_header(record(1000).first_chunk().unwrap(), 1000).unwrap().is_known());
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(
            record(0x1_0000_0002)[..24],
            [7, 0, 0, 0, 60, 70, 32, 239, 7, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 3, 0],
            "the framing of records is part of the format"
        );
    }

    #[test]
    fn a_distant_batch_leads_to_an_earlier_place_and_to_no_other_bytes() {
        let distant = Distant::new(b"operations", 42, 0x1_0000_0002);
        assert_eq!(
            distant.encode(),
            [2, 0, 0, 0, 1, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 50, 69, 236, 57, 231, 227, 73, 161],
            "the bytes are part of the format"
        );
        let end = 0x1_0000_0002 + record_units(10);
        assert_eq!(Distant::decode(&distant.encode(), end), Some(distant));
        assert_eq!(Distant::decode(&distant.encode(), end - 1), None);
        assert_eq!(Distant::decode(&distant.encode()[..23], end), None);
        assert!(distant.verify(b"operations", 42) && !distant.verify(b"operations", 43));
        assert!(!distant.verify(b"operation", 42) && !distant.verify(b"Operations", 42));
        for bit in 0..Distant::BYTES * 8 {
            let mut bytes = distant.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let other = Distant::decode(&bytes, u64::MAX);
            assert!(other.is_none_or(|other| !other.verify(b"operations", 42)), "bit {bit}");
        }
    }

    #[test]
    fn skipped_room_is_covered_by_its_header_alone() {
        let mut header = vec![0; HEADER_BYTES];
        seal(&mut header, 80, 42, 9, RecordKind::Skip, 10);
        let parsed = parse_header(header.first_chunk().unwrap(), 9).unwrap();
        assert!(parsed.verify(&header, 42, 9));
        assert_eq!(parsed.units(), 13);
    }
}
