//! The filter section of a table: the algorithm, its parameters, and its bits.
use crate::coding::Decoder;
use crate::error::{Error, ErrorKind, Result};

/// The length of the section's header in bytes.
pub const FILTER_HEADER_BYTES: usize = 16;
/// The length of one line of a blocked filter in bytes: a cache line.
pub const FILTER_LINE_BYTES: usize = 64;
/// The most bits that one key may set. A blocked filter sets at most 14 (`sapwood-sstable`).
pub const MAX_PROBES: u32 = 16;

/// The algorithm of a filter. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FilterId {
    /// The bits are the lines of a blocked Bloom filter.
    Blocked = 1,
    /// The bits are the output of the `bloomfilter` crate, its header included; items are key
    /// hashes.
    Standard = 2,
}

/// A filter section, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct FilterSection<'a> {
    /// The algorithm.
    pub id: FilterId,
    /// The number of bits that each key sets.
    pub probes: u32,
    /// The filter's own bytes.
    pub bits: &'a [u8],
}

impl<'a> FilterSection<'a> {
    /// Appends the section's payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.id as u8, self.probes as u8, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&(self.bits.len() as u64).to_le_bytes());
        out.extend_from_slice(self.bits);
    }

    /// Decodes a section's payload.
    pub fn decode(payload: &'a [u8]) -> Result<FilterSection<'a>> {
        let mut decoder = Decoder::new(payload);
        let id = match decoder.u8()? {
            1 => FilterId::Blocked,
            2 => FilterId::Standard,
            other => return Err(Error::new(ErrorKind::Unsupported, format!("filter {other} is not known"))),
        };
        let probes = u32::from(decoder.u8()?);
        let reserved = decoder.bytes(6)?;
        let len = decoder.u64()?;
        let len = usize::try_from(len).map_err(|_| Error::malformed("filter is too long"))?;
        let bits = decoder.bytes(len)?;
        let whole_lines = id != FilterId::Blocked || len.is_multiple_of(FILTER_LINE_BYTES);
        if reserved.iter().any(|byte| *byte != 0)
            || !decoder.is_empty()
            || bits.is_empty()
            || !whole_lines
            || !(1..=MAX_PROBES).contains(&probes)
        {
            return Err(Error::malformed("filter section has impossible parameters"));
        }
        Ok(FilterSection { id, probes, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_round_trips_and_truncations_are_errors() {
        let section = FilterSection { id: FilterId::Blocked, probes: 6, bits: &[5; 128] };
        let mut payload = Vec::new();
        section.encode(&mut payload);
        assert_eq!(payload.len(), FILTER_HEADER_BYTES + 128);
        let decoded = FilterSection::decode(&payload).unwrap();
        assert_eq!((decoded.id, decoded.probes, decoded.bits), (section.id, 6, section.bits));
        for len in 0..payload.len() {
            assert!(FilterSection::decode(&payload[..len]).is_err());
        }
    }
}
