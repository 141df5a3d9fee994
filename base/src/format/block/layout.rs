//! The raw image of a block: where its columns are, and access to them.
//!
//! Invariant: [`BlockLayout::parse`] checks every offset and every end once; after that no accessor
//! can leave the image. [`BlockLayout::of_validated`] skips the checks. It is for images that
//! passed `parse` when they were loaded.
use crate::coding::{u16_at, u32_at, u64_at};
use crate::error::{Error, Result};
use crate::key::{MAX_KEY_BYTES, MAX_VALUE_BYTES, ValueKind, begins_with, key_head};
use crate::search::partition;
use crate::sequence::SequenceNumber;
use std::cmp::Ordering;
use std::ops::Range;

/// The length of a block's header in bytes; the tags begin here.
pub const BLOCK_HEADER_BYTES: usize = 32;
/// The most entries in one block.
pub const MAX_BLOCK_ENTRIES: usize = u16::MAX as usize;
/// The maximum length of a raw image: the largest single entry, and room for the small entries that
/// a block may start with.
pub const MAX_BLOCK_BYTES: usize = MAX_VALUE_BYTES + MAX_KEY_BYTES + (1 << 20);
/// Tags are padded with zeros to a multiple of this, so that a search compares whole vectors.
pub const TAG_GROUP: usize = 16;

pub(super) const FIXED_SUFFIX: u8 = 1;
pub(super) const FIXED_VALUE: u8 = 2;
pub(super) const ALL_PUT: u8 = 4;
pub(super) const WIDE_KEY_ENDS: u8 = 8;
pub(super) const WIDE_VALUE_ENDS: u8 = 16;
const KNOWN_FLAGS: u8 = 31;

/// The tag of a user key with this hash.
#[inline]
pub fn tag_of(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// The positions of the columns of one raw image. Plain numbers: every accessor takes the image, so
/// that a layout can be kept beside a pinned image.
#[derive(Clone, Copy, Debug)]
pub struct BlockLayout {
    count: u32,
    flags: u8,
    sequence_width: u8,
    lcp_len: u32,
    suffix_len: u32,
    value_len: u32,
    key_ends: u32,
    value_ends: u32,
    sequences: u32,
    kinds: u32,
    keys: u32,
    values: u32,
    base_sequence: u64,
}

#[inline]
pub(super) fn padded_tags(count: usize) -> usize {
    count.next_multiple_of(TAG_GROUP)
}

impl BlockLayout {
    /// Checks the whole image (padding and a trailer may follow) and returns its layout.
    ///
    /// Costs one pass over the ends and kinds, once per load of an image. Order, tags and heads are
    /// protected by the checksum and checked only by a table's `verify`.
    pub fn parse(image: &[u8]) -> Result<BlockLayout> {
        let Some(header) = image.first_chunk::<BLOCK_HEADER_BYTES>() else {
            return Err(Error::malformed("block is shorter than its header"));
        };
        let layout = BlockLayout::from_header(header);
        let raw_len = u32_at(header, 16) as usize;
        let (keys, values) = (layout.keys as usize, layout.values as usize);
        if layout.count == 0 || layout.flags & !KNOWN_FLAGS != 0 {
            return Err(Error::malformed("block header has no entries or unknown flags"));
        }
        if !matches!(layout.sequence_width, 0 | 1 | 2 | 4 | 8) {
            return Err(Error::malformed("block header has an impossible sequence width"));
        }
        if raw_len > image.len() || values > raw_len || keys > values {
            return Err(Error::malformed("block sections are out of order or beyond its end"));
        }
        let count = layout.count as usize;
        // A count is at most 65535, so these sums cannot overflow.
        let columns_end = layout.kinds as usize + if layout.flags & ALL_PUT != 0 { 0 } else { count };
        if columns_end + layout.lcp_len as usize != keys {
            return Err(Error::malformed("block columns do not end where its keys begin"));
        }
        let tail_len = |fixed: bool, wide: bool, at: u32, each: u32| -> Option<usize> {
            if fixed {
                return (each as usize).checked_mul(count);
            }
            let mut last = 0;
            if wide {
                for end in image.get(at as usize..)?.chunks_exact(4).take(count) {
                    let end = u32_at(end, 0);
                    if end < last {
                        return None;
                    }
                    last = end;
                }
            } else {
                for end in image.get(at as usize..)?.chunks_exact(2).take(count) {
                    let end = u32::from(u16_at(end, 0));
                    if end < last {
                        return None;
                    }
                    last = end;
                }
            }
            Some(last as usize)
        };
        let flag = |bit: u8| layout.flags & bit != 0;
        let suffixes = tail_len(flag(FIXED_SUFFIX), flag(WIDE_KEY_ENDS), layout.key_ends, layout.suffix_len);
        if suffixes != Some(values - keys) {
            return Err(Error::malformed("key ends of a block do not match its keys"));
        }
        let all = tail_len(flag(FIXED_VALUE), flag(WIDE_VALUE_ENDS), layout.value_ends, layout.value_len);
        if all != Some(raw_len - values) {
            return Err(Error::malformed("value ends of a block do not match its values"));
        }
        if !flag(ALL_PUT) {
            let kinds = &image[layout.kinds as usize..columns_end];
            if let Some(kind) = kinds.iter().find(|kind| ValueKind::from_u8(**kind).is_none()) {
                return Err(ValueKind::unknown(*kind));
            }
        }
        Ok(layout)
    }

    /// The layout of an image that passed [`BlockLayout::parse`] before. Reads the header only.
    ///
    /// # Panics
    /// If `image` is shorter than a header. The accessors may panic on an image that was never
    /// parsed.
    #[inline]
    pub fn of_validated(image: &[u8]) -> BlockLayout {
        BlockLayout::from_header(image.first_chunk().expect("a validated image has a header"))
    }

    #[inline]
    fn from_header(header: &[u8; BLOCK_HEADER_BYTES]) -> BlockLayout {
        let count = u32::from(u16_at(header, 0));
        let (flags, sequence_width) = (header[2], header[3]);
        let end_width = |fixed: u8, wide: u8| {
            if flags & fixed != 0 {
                0
            } else if flags & wide != 0 {
                4
            } else {
                2
            }
        };
        // These are small numbers: a count below 2^16 times widths of at most 255.
        let key_ends = (BLOCK_HEADER_BYTES + padded_tags(count as usize)) as u32 + 4 * count;
        let value_ends = key_ends + count * end_width(FIXED_SUFFIX, WIDE_KEY_ENDS);
        let sequences = value_ends + count * end_width(FIXED_VALUE, WIDE_VALUE_ENDS);
        BlockLayout {
            count,
            flags,
            sequence_width,
            lcp_len: u32::from(u16_at(header, 4)),
            suffix_len: u32::from(u16_at(header, 6)),
            value_len: u32_at(header, 20),
            key_ends,
            value_ends,
            sequences,
            kinds: sequences + count * u32::from(sequence_width),
            keys: u32_at(header, 8),
            values: u32_at(header, 12),
            base_sequence: u64_at(header, 24),
        }
    }

    /// The number of entries.
    #[inline]
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// The tags, padded with zeros to whole groups.
    #[inline]
    pub fn tags<'a>(&self, image: &'a [u8]) -> &'a [[u8; TAG_GROUP]] {
        let end = BLOCK_HEADER_BYTES + padded_tags(self.count as usize);
        image[BLOCK_HEADER_BYTES..end].as_chunks().0
    }

    /// The tag of entry `i`.
    #[inline]
    pub fn tag(&self, image: &[u8], i: usize) -> u8 {
        image[BLOCK_HEADER_BYTES + i]
    }

    /// The first four suffix bytes of entry `i`, as returned by [`key_head`].
    #[inline]
    pub fn head(&self, image: &[u8], i: usize) -> u32 {
        u32_at(image, BLOCK_HEADER_BYTES + padded_tags(self.count as usize) + 4 * i)
    }

    /// The prefix that all keys of the block share.
    #[inline]
    pub fn lcp<'a>(&self, image: &'a [u8]) -> &'a [u8] {
        &image[(self.keys - self.lcp_len) as usize..self.keys as usize]
    }

    #[inline]
    fn bounds(image: &[u8], ends: u32, wide: bool, i: usize) -> (usize, usize) {
        let ends = ends as usize;
        if wide {
            let start = if i == 0 { 0 } else { u32_at(image, ends + 4 * (i - 1)) };
            (start as usize, u32_at(image, ends + 4 * i) as usize)
        } else {
            let start = if i == 0 { 0 } else { u16_at(image, ends + 2 * (i - 1)) };
            (usize::from(start), usize::from(u16_at(image, ends + 2 * i)))
        }
    }

    /// The key of entry `i` without the common prefix.
    #[inline]
    pub fn suffix<'a>(&self, image: &'a [u8], i: usize) -> &'a [u8] {
        let (start, end) = self.suffix_range(image, i);
        &image[start..end]
    }

    /// The byte range of the suffix of entry `i` in the image: start and end.
    #[inline]
    pub fn suffix_range(&self, image: &[u8], i: usize) -> (usize, usize) {
        let keys = self.keys as usize;
        if self.flags & FIXED_SUFFIX != 0 {
            let len = self.suffix_len as usize;
            return (keys + i * len, keys + i * len + len);
        }
        let (start, end) = BlockLayout::bounds(image, self.key_ends, self.flags & WIDE_KEY_ENDS != 0, i);
        (keys + start, keys + end)
    }

    /// The byte range of the value of entry `i` in the image: start and end.
    #[inline]
    pub fn value_range(&self, image: &[u8], i: usize) -> (usize, usize) {
        let values = self.values as usize;
        if self.flags & FIXED_VALUE != 0 {
            let len = self.value_len as usize;
            return (values + i * len, values + i * len + len);
        }
        let (start, end) = BlockLayout::bounds(image, self.value_ends, self.flags & WIDE_VALUE_ENDS != 0, i);
        (values + start, values + end)
    }

    /// The value of entry `i`.
    #[inline]
    pub fn value<'a>(&self, image: &'a [u8], i: usize) -> &'a [u8] {
        let (start, end) = self.value_range(image, i);
        &image[start..end]
    }

    /// The start of the key suffix and the byte range of the value of entry `i`, from the header
    /// alone. Exact for suffixes and values of fixed length; otherwise an estimate that assumes
    /// equal lengths.
    #[inline]
    pub fn about(&self, image: &[u8], i: usize) -> (usize, Range<usize>) {
        let (keys, values, count) = (self.keys as usize, self.values as usize, self.count as usize);
        let value_len = (image.len() - values) / count;
        let suffix = keys
            + if self.flags & FIXED_SUFFIX != 0 {
                i * self.suffix_len as usize
            } else {
                (values - keys) * i / count
            };
        let value_len = if self.flags & FIXED_VALUE != 0 { self.value_len as usize } else { value_len };
        (suffix, values + i * value_len..values + (i + 1) * value_len)
    }

    /// The offset of the sequence number of entry `i` in the image, if it is stored there.
    #[inline]
    pub fn sequence_offset(&self, i: usize) -> usize {
        self.sequences as usize + usize::from(self.sequence_width) * i
    }

    /// The sequence number of entry `i`.
    #[inline]
    pub fn sequence(&self, image: &[u8], i: usize) -> SequenceNumber {
        let at = self.sequences as usize;
        let delta = match self.sequence_width {
            0 => 0,
            1 => u64::from(image[at + i]),
            2 => u64::from(u16_at(image, at + 2 * i)),
            4 => u64::from(u32_at(image, at + 4 * i)),
            _ => u64_at(image, at + 8 * i),
        };
        SequenceNumber(self.base_sequence.wrapping_add(delta))
    }

    /// The kind of entry `i`.
    #[inline]
    pub fn kind(&self, image: &[u8], i: usize) -> ValueKind {
        if self.flags & ALL_PUT != 0 {
            return ValueKind::Put;
        }
        match image[self.kinds as usize + i] {
            0 => ValueKind::Delete,
            // `parse` has rejected every other number.
            _ => ValueKind::Put,
        }
    }

    /// Whether the header alone proves that every entry is a put visible at `bound`.
    #[inline]
    pub fn shows_all(&self, bound: SequenceNumber) -> bool {
        let most = match self.sequence_width {
            0 => 0,
            1 => u64::from(u8::MAX),
            2 => u64::from(u16::MAX),
            4 => u64::from(u32::MAX),
            _ => u64::MAX,
        };
        let last = self.base_sequence.checked_add(most);
        self.flags & ALL_PUT != 0 && last.is_some_and(|last| last <= bound.0)
    }

    /// Whether entry `i` is a put visible at `bound`.
    #[inline(always)]
    pub fn shows(&self, image: &[u8], i: usize, bound: SequenceNumber) -> bool {
        self.kind(image, i) == ValueKind::Put && self.sequence(image, i) <= bound
    }

    /// Whether the user key of entry `i` is `key`.
    #[inline]
    pub fn key_is(&self, image: &[u8], i: usize, key: &[u8]) -> bool {
        match key.split_at_checked(self.lcp_len as usize) {
            Some((prefix, suffix)) => {
                let own = self.suffix(image, i);
                suffix.len() == own.len() && begins_with(suffix, own) && begins_with(prefix, self.lcp(image))
            }
            None => false,
        }
    }

    /// The number of leading entries whose user key is `< target`, which is the slot of the first
    /// one `>= target`.
    pub fn lower_bound(&self, image: &[u8], target: &[u8]) -> usize {
        let lcp = self.lcp(image);
        let shared = &target[..target.len().min(lcp.len())];
        match shared.cmp(&lcp[..shared.len()]) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.count(),
            // A target that ends inside the common prefix sorts before every key.
            Ordering::Equal if shared.len() < lcp.len() => return 0,
            Ordering::Equal => {}
        }
        let suffix = &target[lcp.len()..];
        let head = key_head(suffix);
        let below = partition(0, self.count(), |i| self.head(image, i) < head);
        if below == self.count() || self.head(image, below) != head {
            return below;
        }
        let upto = partition(below, self.count(), |i| self.head(image, i) <= head);
        partition(below, upto, |i| self.suffix(image, i) < suffix)
    }
}
