//! The index section of a table: the place and the possible keys of each data block.
//!
//! Block `i` has a *separator*: the shortest string that is above the last key of block `i - 1` and
//! not above the first key of block `i`. The separator of block 0 is empty. A block whose first
//! user key is the last user key of its predecessor is *continued*, and its separator is that whole
//! key. The byte map is in `FORMAT.md`.
//!
//! Invariant: a decoded index has ascending separators and offsets, and no block beyond the data
//! section.
use crate::coding::Decoder;
use crate::error::{Error, ErrorKind, Result};
use crate::format::block::{BLOCK_TRAILER_BYTES, MAX_BLOCK_BYTES, MAX_COMPRESSION_RATIO, SMALL_IMAGE_BYTES};
use crate::key::common_prefix_len;
use crate::planted;

/// Offsets of blocks are in units of this many bytes.
pub const OFFSET_UNIT_BYTES: u64 = 16;

const HEADER_BYTES: usize = 32;
const HAS_RAW_LENGTHS: u32 = 1;

/// The columns of an index, block by block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableIndexColumns {
    /// The prefix that all separators but the first share; `heap` leaves it out.
    pub prefix: Vec<u8>,
    /// The end of each separator in `heap`; it begins at the end of the one before.
    pub ends: Vec<u32>,
    /// The separators, back to back.
    pub heap: Vec<u8>,
    /// The offset of each block in units of [`OFFSET_UNIT_BYTES`].
    pub offsets: Vec<u32>,
    /// The length of each raw image, 0 for one that is stored as it is. Empty if all of them are.
    pub raw_lengths: Vec<u32>,
    /// The numbers of the continued blocks, ascending.
    pub continued: Vec<u32>,
    /// The length of the data section; the last block ends there.
    pub data_len: u64,
}

impl TableIndexColumns {
    /// Adds a block. `separator` is complete; [`TableIndexColumns::encode`] removes the common
    /// prefix. `raw_len` is 0 for an image stored as it is. REQUIRES: `offset` is a multiple of the
    /// unit and fits.
    pub fn push(&mut self, separator: &[u8], offset: u64, raw_len: u32, continued: bool) -> Result<()> {
        let too_large = || Error::invalid_argument("table is too large for its index: cut it earlier");
        let block = u32::try_from(self.offsets.len()).map_err(|_| too_large())?;
        let offset = u32::try_from(offset / OFFSET_UNIT_BYTES).map_err(|_| too_large())?;
        let end = u32::try_from(self.heap.len() + separator.len()).map_err(|_| too_large())?;
        self.heap.extend_from_slice(separator);
        self.ends.push(end);
        self.offsets.push(offset);
        if raw_len > 0 && self.raw_lengths.is_empty() {
            self.raw_lengths.resize(block as usize, 0);
        }
        if raw_len > 0 || !self.raw_lengths.is_empty() {
            self.raw_lengths.push(raw_len);
        }
        if continued {
            self.continued.push(block);
        }
        Ok(())
    }

    /// The number of blocks.
    pub fn block_count(&self) -> usize {
        self.offsets.len()
    }

    /// The separator of `block` as it lies in `heap`.
    #[inline]
    pub fn separator(&self, block: usize) -> &[u8] {
        let start = if block == 0 { 0 } else { self.ends[block - 1] as usize };
        &self.heap[start..self.ends[block] as usize]
    }

    /// An estimate of the length of the encoded section.
    pub fn encoded_len_bound(&self) -> usize {
        HEADER_BYTES + 4 * (self.ends.len() + self.offsets.len() + self.raw_lengths.len()) + self.heap.len()
    }

    /// Appends the section's payload. REQUIRES: separators are complete (`prefix` is empty).
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.prefix.is_empty(), "an index is encoded from complete separators");
        let count = self.block_count();
        // Separators ascend, so the common prefix of the second and the last is that of all between
        // them.
        let prefix_len = if count < 2 {
            0
        } else {
            common_prefix_len(self.separator(1), self.separator(count - 1)).min(usize::from(u16::MAX))
        };
        let heap_len = self.heap.len() - prefix_len * count.saturating_sub(1);
        out.extend_from_slice(&(count as u32).to_le_bytes());
        let flags = if self.raw_lengths.is_empty() { 0 } else { HAS_RAW_LENGTHS };
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.data_len.to_le_bytes());
        out.extend_from_slice(&(self.continued.len() as u32).to_le_bytes());
        out.extend_from_slice(&(prefix_len as u32).to_le_bytes());
        out.extend_from_slice(&(heap_len as u32).to_le_bytes());
        out.extend_from_slice(&0u32.to_le_bytes());
        for (block, end) in self.ends.iter().enumerate() {
            out.extend_from_slice(&(end - (prefix_len * block) as u32).to_le_bytes());
        }
        for number in self.offsets.iter().chain(&self.raw_lengths).chain(&self.continued) {
            out.extend_from_slice(&number.to_le_bytes());
        }
        if count > 1 {
            out.extend_from_slice(&self.separator(1)[..prefix_len]);
        }
        for block in 0..count {
            let separator = self.separator(block);
            out.extend_from_slice(if block == 0 { separator } else { &separator[prefix_len..] });
        }
    }

    /// Decodes a section's payload and checks its invariants.
    pub fn decode(payload: &[u8]) -> Result<TableIndexColumns> {
        let mut decoder = Decoder::new(payload);
        let count = decoder.u32()? as usize;
        let flags = decoder.u32()?;
        let data_len = decoder.u64()?;
        let continued_count = decoder.u32()? as usize;
        let prefix_len = decoder.u32()? as usize;
        let heap_len = decoder.u32()? as usize;
        if decoder.u32()? != 0 || flags & !HAS_RAW_LENGTHS != 0 {
            return Err(Error::new(ErrorKind::Unsupported, "table index has unknown flags"));
        }
        let mut column = |count: usize| -> Result<Vec<u32>> {
            let len = count.checked_mul(4).ok_or_else(|| Error::malformed("table index is too long"))?;
            let bytes = decoder.bytes(len)?;
            Ok(bytes.as_chunks().0.iter().map(|number| u32::from_le_bytes(*number)).collect())
        };
        let ends = column(count)?;
        let offsets = column(count)?;
        let raw_lengths = column(if flags & HAS_RAW_LENGTHS != 0 { count } else { 0 })?;
        let continued = column(continued_count)?;
        let prefix = decoder.bytes(prefix_len)?.to_vec();
        let heap = decoder.bytes(heap_len)?.to_vec();
        if !decoder.is_empty() {
            return Err(Error::malformed("table index goes on after its end"));
        }
        let index = TableIndexColumns { prefix, ends, heap, offsets, raw_lengths, continued, data_len };
        index.check()?;
        Ok(index)
    }

    fn check(&self) -> Result<()> {
        if self.ends.last().map_or(0, |end| *end as usize) != self.heap.len() || !self.ends.is_sorted() {
            return Err(Error::malformed("separators of the table index do not match their ends"));
        }
        let units = self.data_len / OFFSET_UNIT_BYTES;
        if !self.data_len.is_multiple_of(OFFSET_UNIT_BYTES)
            || self.offsets.first().is_some_and(|first| *first != 0)
            || self.offsets.last().is_some_and(|last| u64::from(*last) >= units)
            || !self.offsets.is_sorted_by(|a, b| a < b)
            || (self.offsets.is_empty() && units != 0)
        {
            return Err(Error::malformed(
                "block offsets of the table index are not ascending within the data",
            ));
        }
        let last_block = self.block_count() as u32;
        if !self.continued.is_sorted_by(|a, b| a < b)
            || self.continued.first() == Some(&0)
            || self.continued.last().is_some_and(|last| *last >= last_block)
        {
            return Err(Error::malformed("continued blocks of the table index are not ascending"));
        }
        if self.block_count() > 0 && !self.separator(0).is_empty() {
            return Err(Error::malformed("the first block of the table index has a separator"));
        }
        let mut continued = self.continued.iter().copied().peekable();
        for block in 1..self.block_count() {
            let is_continued = continued.next_if_eq(&(block as u32)).is_some();
            let (before, this) = (self.separator(block - 1), self.separator(block));
            // The separator of block 1 may be just the common prefix, or block 1 may be continued
            // with an empty key.
            if before > this || (before == this && block > 1 && !is_continued) {
                return Err(Error::malformed("separators of the table index are not ascending"));
            }
        }
        for (block, raw_len) in self.raw_lengths.iter().enumerate() {
            let raw_len = *raw_len as usize;
            let limit = (self.stored_len(block) as usize).saturating_mul(MAX_COMPRESSION_RATIO);
            let beyond = raw_len > MAX_BLOCK_BYTES || (raw_len > SMALL_IMAGE_BYTES && raw_len > limit);
            if beyond && planted::limits_lengths() {
                return Err(Error::malformed("a block of the table index announces too many bytes"));
            }
        }
        if self.offsets.len() != self.ends.len() {
            return Err(Error::malformed("columns of the table index differ in length"));
        }
        let short = (0..self.block_count()).any(|block| self.stored_len(block) < BLOCK_TRAILER_BYTES as u64);
        if short {
            Err(Error::malformed("a block of the table index has no room for a trailer"))
        } else {
            Ok(())
        }
    }

    /// The offset of `block` in bytes.
    #[inline]
    pub fn offset(&self, block: usize) -> u64 {
        u64::from(self.offsets[block]) * OFFSET_UNIT_BYTES
    }

    /// The stored length of `block` in bytes, with padding and trailer.
    #[inline]
    pub fn stored_len(&self, block: usize) -> u64 {
        let end = match self.offsets.get(block + 1) {
            Some(next) => u64::from(*next) * OFFSET_UNIT_BYTES,
            None => self.data_len,
        };
        end - self.offset(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(compressed: bool) -> TableIndexColumns {
        let mut index = TableIndexColumns::default();
        index.push(b"", 0, if compressed { 4000 } else { 0 }, false).unwrap();
        index.push(b"user1", 4096, 0, false).unwrap();
        index.push(b"user2", 8192, if compressed { 70_000 } else { 0 }, false).unwrap();
        index.push(b"user2", 12_288, 0, true).unwrap();
        index.push(b"user3abc", 12_304, 0, false).unwrap();
        index.data_len = 20_000;
        index
    }

    #[test]
    fn an_index_round_trips_without_its_common_prefix() {
        for compressed in [false, true] {
            let index = sample(compressed);
            let mut payload = Vec::new();
            index.encode(&mut payload);
            let decoded = TableIndexColumns::decode(&payload).unwrap();
            assert_eq!(decoded.prefix, b"user");
            assert_eq!((decoded.separator(0), decoded.separator(4)), (&b""[..], &b"3abc"[..]));
            assert_eq!(decoded.offsets, index.offsets);
            assert_eq!(decoded.raw_lengths, index.raw_lengths);
            assert_eq!(decoded.continued, [3]);
            assert_eq!((decoded.offset(3), decoded.stored_len(3), decoded.stored_len(4)), (12_288, 16, 7696));
        }
        let mut payload = Vec::new();
        TableIndexColumns::default().encode(&mut payload);
        assert_eq!(TableIndexColumns::decode(&payload).unwrap().block_count(), 0);
    }

    #[test]
    fn wrong_bytes_never_panic() {
        let mut payload = Vec::new();
        sample(true).encode(&mut payload);
        for len in 0..payload.len() {
            assert!(TableIndexColumns::decode(&payload[..len]).is_err());
        }
        for at in 0..payload.len() {
            for bit in 0..8 {
                let mut wrong = payload.clone();
                wrong[at] ^= 1 << bit;
                let _ = TableIndexColumns::decode(&wrong);
            }
        }
    }
}
