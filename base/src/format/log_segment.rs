//! The header of a log segment.
//!
//! ```text
//!  0 u64 magic "SAPWLOG1"    8 u32 format version   12 u32 units of data (from byte 4096 on)
//! 16 u64 base position      24 u64 database          32 u64 file number
//! 40 u64 durable position when the header was written (0 if nothing was synced)
//! 48 u32 bytes of fields    52 fields: varint identifier, byte string; none so far; then zeros
//! 504 u64 XXH3-64 over bytes 0..504
//! ```
//!
//! It fills one sector, which a medium writes atomically.
//!
//! A file of zeros is one whose creation was interrupted. The log is one stream of bytes: a record
//! that does not fit into the rest of a segment continues in the segment with the next base
//! position.
use crate::checksum::checksum64;
use crate::coding::Decoder;
use crate::error::{Error, Result};
use crate::sequence::SequenceNumber;

/// The offset of the data in a segment, in bytes.
pub const DATA_OFFSET: usize = 4096;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 512;
const CHECKED_BYTES: usize = HEADER_BYTES - 8;
const FIELDS_OFFSET: usize = 52;
/// The first eight bytes of every log segment that was used.
pub const LOG_MAGIC: [u8; 8] = *b"SAPWLOG1";
const MAGIC: u64 = u64::from_le_bytes(LOG_MAGIC);
const SEED: u64 = 0x5A50_574C_4F47;

/// The header of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Room for records, in units of eight bytes.
    pub data_units: u32,
    /// The position of the first unit of data.
    pub base_position: u64,
    /// The identity of the database that wrote the segment.
    pub database: u64,
    /// The number in the file's name.
    pub file_number: u64,
    /// All positions below were synced when the header was written.
    pub durable_position: u64,
}

impl SegmentHeader {
    /// The bytes at offset 0.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..12].copy_from_slice(&super::FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.data_units.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base_position.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.database.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.file_number.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.durable_position.to_le_bytes());
        let sum = checksum64(&bytes[..CHECKED_BYTES], SEED);
        bytes[CHECKED_BYTES..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Parses a header; `Ok(None)` for a file that was never used. Errors carry no file: the caller
    /// adds it.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Option<SegmentHeader>> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        if word(0) != MAGIC {
            return Err(Error::malformed("not a log segment: wrong magic number"));
        }
        if word(CHECKED_BYTES) != checksum64(&bytes[..CHECKED_BYTES], SEED) {
            return Err(Error::malformed("checksum of the segment header does not match"));
        }
        super::check_version("log segment", half(8))?;
        let header = SegmentHeader {
            data_units: half(12),
            base_position: word(16),
            database: word(24),
            file_number: word(32),
            durable_position: word(40),
        };
        let fields = bytes[FIELDS_OFFSET..CHECKED_BYTES].split_at_checked(half(48) as usize);
        let Some((fields, rest)) = fields else {
            return Err(Error::malformed("fields of a segment header are too long"));
        };
        super::fields(&mut Decoder::new(fields), "log segment", |_, _| Ok(false))?;
        if rest.iter().any(|byte| *byte != 0) || header.end_position() > SequenceNumber::MAX.0 + 1 {
            return Err(Error::malformed("segment header holds what no version has written"));
        }
        Ok(Some(header))
    }

    /// The position after the last unit of data.
    pub fn end_position(&self) -> u64 {
        self.base_position.saturating_add(u64::from(self.data_units))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn headers_round_trip_and_flipped_bits_are_noticed() {
        let header = SegmentHeader {
            data_units: 4096,
            base_position: 1 << 40,
            database: 7,
            file_number: 12,
            durable_position: 99,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes).unwrap(), Some(header));
        assert_eq!(SegmentHeader::decode(&[0; HEADER_BYTES]).unwrap(), None);
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn impossible_headers_under_a_right_checksum_are_refused() {
        let header = SegmentHeader {
            data_units: 64,
            base_position: (1 << 57) - 64,
            database: 7,
            file_number: 12,
            durable_position: 0,
        };
        let sealed = |at: usize, value: u8| {
            let mut bytes = header.encode();
            bytes[at] = value;
            let sum = checksum64(&bytes[..CHECKED_BYTES], SEED);
            bytes[CHECKED_BYTES..].copy_from_slice(&sum.to_le_bytes());
            SegmentHeader::decode(&bytes)
        };
        assert_eq!(sealed(12, 64).unwrap(), Some(header));
        // One unit more than there are positions, version 0, a byte that is always zero.
        for (at, value) in [(12, 65), (23, 0xFF), (8, 0), (60, 1), (48, 1), (49, 2)] {
            assert_eq!(sealed(at, value).unwrap_err().kind(), ErrorKind::Corruption, "byte {at}");
        }
    }

    #[test]
    fn fields_of_later_releases_are_passed_over_or_refused() {
        let header = SegmentHeader {
            data_units: 64,
            base_position: 64,
            database: 7,
            file_number: 12,
            durable_position: 0,
        };
        let with = |fields: &[u8]| {
            let mut bytes = header.encode();
            bytes[48] = fields.len() as u8;
            bytes[FIELDS_OFFSET..FIELDS_OFFSET + fields.len()].copy_from_slice(fields);
            let sum = checksum64(&bytes[..CHECKED_BYTES], SEED);
            bytes[CHECKED_BYTES..].copy_from_slice(&sum.to_le_bytes());
            SegmentHeader::decode(&bytes)
        };
        assert_eq!(with(&[64, 2, 8, 9, 65, 0]).unwrap(), Some(header));
        assert_eq!(with(&[1, 1, 8, 64, 0]).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(with(&[64, 9]).unwrap_err().kind(), ErrorKind::Corruption);
        assert_eq!(with(&[65, 0, 64, 0]).unwrap_err().kind(), ErrorKind::Corruption);
    }
}
