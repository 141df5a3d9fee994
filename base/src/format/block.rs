//! The data block: the entries of one stretch of a table, split into columns.
//!
//! A *raw image* is a header, then one section per column (tags, heads, ends, sequence numbers,
//! kinds, key suffixes, values); the byte map is in `FORMAT.md`. A column that is constant over the
//! block is absent. The image is used as it is: an uncompressed block has the same bytes on disk
//! and in the cache, and a lookup decodes nothing.
//!
//! A *stored block* is a payload (the image, or its compressed form), padding, and an eight-byte
//! trailer whose checksum is seeded with the file and the offset. The sections of a table (filter,
//! index, properties) are stored in the same way.
//!
//! Invariant: [`BlockLayout::parse`] checks every offset and every end once; after that no accessor
//! can leave the image. [`BlockLayout::of_validated`] skips the checks. It is for images that
//! passed `parse` when they were loaded.
use crate::checksum::{checksum32, place_seed};
use crate::coding::{u16_at, u32_at, u64_at};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{
    FileNumber, MAX_KEY_BYTES, MAX_VALUE_BYTES, ValueKind, begins_with, common_prefix_len, key_head,
};
use crate::planted;
use crate::search::partition;
use crate::sequence::SequenceNumber;
use std::cmp::Ordering;
use std::ops::Range;

/// The length of a block's header in bytes; the tags begin here.
pub const BLOCK_HEADER_BYTES: usize = 32;
/// The length of a stored block's trailer in bytes.
pub const BLOCK_TRAILER_BYTES: usize = 8;
/// The most entries in one block.
pub const MAX_BLOCK_ENTRIES: usize = u16::MAX as usize;
/// The maximum length of a raw image: the largest single entry, and room for the small entries that
/// a block may start with.
pub const MAX_BLOCK_BYTES: usize = MAX_VALUE_BYTES + MAX_KEY_BYTES + (1 << 20);
/// The maximum number of raw bytes that a compressed payload may declare per byte, unless the image
/// is small.
pub const MAX_COMPRESSION_RATIO: usize = 1024;
/// Images up to this length are exempt from [`MAX_COMPRESSION_RATIO`].
pub const SMALL_IMAGE_BYTES: usize = 64 << 10;
/// Tags are padded with zeros to a multiple of this, so that a search compares whole vectors.
pub const TAG_GROUP: usize = 16;

const FIXED_SUFFIX: u8 = 1;
const FIXED_VALUE: u8 = 2;
const ALL_PUT: u8 = 4;
const WIDE_KEY_ENDS: u8 = 8;
const WIDE_VALUE_ENDS: u8 = 16;
const KNOWN_FLAGS: u8 = 31;

/// The compression of a payload. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CodecId {
    /// Uncompressed.
    None = 0,
    /// An LZ4 block.
    Lz4 = 1,
    /// A Zstandard frame.
    Zstd = 2,
}

/// The content of a stored block. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StoredKind {
    /// Entries.
    Data = 1,
    /// The filter section.
    Filter = 2,
    /// The index section.
    Index = 3,
    /// The properties section.
    Properties = 4,
}

#[cold]
fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corruption, what)
}

/// The tag of a user key with this hash.
#[inline]
pub fn tag_of(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// Ends the stored block that begins at `start` of `out` and whose payload is already there:
/// appends `padding` zeros and the trailer. `offset` is the future position of the block in `file`.
pub fn seal(
    out: &mut Vec<u8>,
    start: usize,
    padding: u16,
    codec: CodecId,
    kind: StoredKind,
    file: FileNumber,
    offset: u64,
) {
    out.resize(out.len() + usize::from(padding), 0);
    out.extend_from_slice(&[codec as u8, kind as u8]);
    out.extend_from_slice(&padding.to_le_bytes());
    let checksum = checksum32(&out[start..], place_seed(file.0, planted::sealed_offset(offset)));
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// Checks a stored block and returns its codec and the length of its payload.
pub fn unseal(stored: &[u8], kind: StoredKind, file: FileNumber, offset: u64) -> Result<(CodecId, usize)> {
    let Some((body, checksum)) = stored.split_last_chunk::<4>() else {
        return Err(corrupt("stored block is shorter than its trailer"));
    };
    if checksum32(body, place_seed(file.0, planted::sealed_offset(offset))) != u32::from_le_bytes(*checksum) {
        return Err(corrupt("block checksum does not match"));
    }
    let Some((padded, &[codec, found_kind, low, high])) = body.split_last_chunk::<4>() else {
        return Err(corrupt("stored block is shorter than its trailer"));
    };
    if found_kind != kind as u8 {
        return Err(corrupt("stored block is of another kind than expected"));
    }
    let codec = match codec {
        0 => CodecId::None,
        1 => CodecId::Lz4,
        2 => CodecId::Zstd,
        _ => return Err(Error::new(ErrorKind::Unsupported, format!("block codec {codec} is not known"))),
    };
    let padding = usize::from(u16::from_le_bytes([low, high]));
    let len = padded.len().checked_sub(padding).ok_or_else(|| corrupt("padding is longer than the block"))?;
    Ok((codec, len))
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
fn padded_tags(count: usize) -> usize {
    count.next_multiple_of(TAG_GROUP)
}

impl BlockLayout {
    /// Checks the whole image (padding and a trailer may follow) and returns its layout.
    ///
    /// Costs one pass over the ends and kinds, once per load of an image. Order, tags and heads are
    /// protected by the checksum and checked only by a table's `verify`.
    pub fn parse(image: &[u8]) -> Result<BlockLayout> {
        let Some(header) = image.first_chunk::<BLOCK_HEADER_BYTES>() else {
            return Err(corrupt("block is shorter than its header"));
        };
        let layout = BlockLayout::from_header(header);
        let raw_len = u32_at(header, 16) as usize;
        let (keys, values) = (layout.keys as usize, layout.values as usize);
        if layout.count == 0 || layout.flags & !KNOWN_FLAGS != 0 {
            return Err(corrupt("block header has no entries or unknown flags"));
        }
        if !matches!(layout.sequence_width, 0 | 1 | 2 | 4 | 8) {
            return Err(corrupt("block header has an impossible sequence width"));
        }
        if raw_len > image.len() || values > raw_len || keys > values {
            return Err(corrupt("block sections are out of order or beyond its end"));
        }
        let count = layout.count as usize;
        // A count is at most 65535, so these sums cannot overflow.
        let columns_end = layout.kinds as usize + if layout.flags & ALL_PUT != 0 { 0 } else { count };
        if columns_end + layout.lcp_len as usize != keys {
            return Err(corrupt("block columns do not end where its keys begin"));
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
            return Err(corrupt("key ends of a block do not match its keys"));
        }
        let all = tail_len(flag(FIXED_VALUE), flag(WIDE_VALUE_ENDS), layout.value_ends, layout.value_len);
        if all != Some(raw_len - values) {
            return Err(corrupt("value ends of a block do not match its values"));
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

#[derive(Clone, Copy)]
struct Staged {
    key_end: u32,
    value_end: u32,
    sequence: u64,
    tag: u8,
    kind: u8,
}

/// Collects the entries of one block and writes the raw image. Reuses its memory across blocks.
#[derive(Default)]
pub struct BlockEncoder {
    entries: Vec<Staged>,
    keys: Vec<u8>,
    values: Vec<u8>,
    value_bytes: usize,
    last_key_start: usize,
    first_value_len: usize,
    key_lens_differ: bool,
    value_lens_differ: bool,
    any_delete: bool,
    min_sequence: u64,
    max_sequence: u64,
    first_key_len: usize,
}

impl BlockEncoder {
    /// The number of entries so far.
    #[inline]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The total length of all keys and values so far, in bytes.
    #[inline]
    pub fn payload_bytes(&self) -> usize {
        self.keys.len() + self.value_bytes
    }

    /// The first user key. REQUIRES: not empty.
    #[inline]
    pub fn first_key(&self) -> &[u8] {
        &self.keys[..self.first_key_len]
    }

    /// The last user key. REQUIRES: not empty.
    #[inline]
    pub fn last_key(&self) -> &[u8] {
        &self.keys[self.last_key_start..]
    }

    /// The sequence number of the last entry. REQUIRES: not empty.
    #[inline]
    pub fn last_sequence(&self) -> SequenceNumber {
        SequenceNumber(self.entries.last().expect("an entry was pushed").sequence)
    }

    /// An upper bound of the image's length after a push of an entry of this shape. Costs a few
    /// additions.
    #[inline]
    pub fn len_bound_with(&self, key_len: usize, value_len: usize) -> usize {
        // Tag, head, two wide ends, a wide sequence number, a kind. The common prefix of the keys
        // is stored once.
        let count = self.entries.len() + 1;
        BLOCK_HEADER_BYTES + TAG_GROUP + count * 22 + self.payload_bytes() + key_len + value_len
    }

    /// The exact length of the image after a push of this entry. REQUIRES: `key` is not below the
    /// last key.
    pub fn len_with(&self, key: &[u8], sequence: SequenceNumber, kind: ValueKind, value_len: usize) -> usize {
        let count = self.entries.len() + 1;
        let (first, low, high) = if self.is_empty() {
            (key, sequence.0, sequence.0)
        } else {
            (self.first_key(), self.min_sequence.min(sequence.0), self.max_sequence.max(sequence.0))
        };
        let fixed_value = !self.value_lens_differ && (self.is_empty() || self.first_value_len == value_len);
        shape(
            count,
            common_prefix_len(first, key),
            self.keys.len() + key.len(),
            self.value_bytes + value_len,
            (!self.key_lens_differ && first.len() == key.len()).then_some(key.len()),
            fixed_value,
            !self.any_delete && kind == ValueKind::Put,
            high - low,
        )
        .raw_len
    }

    /// Adds an entry and its value.
    #[inline]
    pub fn push(&mut self, key: &[u8], tag: u8, sequence: SequenceNumber, kind: ValueKind, value: &[u8]) {
        self.push_without_value(key, tag, sequence, kind, value.len());
        self.values.extend_from_slice(value);
    }

    /// Adds an entry whose value the caller keeps, for [`BlockEncoder::encode_with_value`].
    /// REQUIRES: empty, and no further entry is pushed to this block.
    #[inline]
    pub fn push_without_value(
        &mut self,
        key: &[u8],
        tag: u8,
        sequence: SequenceNumber,
        kind: ValueKind,
        value_len: usize,
    ) {
        if self.entries.is_empty() {
            self.first_key_len = key.len();
            self.first_value_len = value_len;
            self.min_sequence = sequence.0;
            self.max_sequence = sequence.0;
        } else {
            self.key_lens_differ |= key.len() != self.first_key_len;
            self.value_lens_differ |= value_len != self.first_value_len;
            self.min_sequence = self.min_sequence.min(sequence.0);
            self.max_sequence = self.max_sequence.max(sequence.0);
        }
        self.any_delete |= kind != ValueKind::Put;
        self.last_key_start = self.keys.len();
        self.keys.extend_from_slice(key);
        self.value_bytes += value_len;
        self.entries.push(Staged {
            key_end: self.keys.len() as u32,
            value_end: self.value_bytes as u32,
            sequence: sequence.0,
            tag,
            kind: kind as u8,
        });
    }

    /// An upper bound of the length that [`BlockEncoder::encode`] appends.
    #[inline]
    pub fn encoded_len_bound(&self) -> usize {
        self.len_bound_with(0, 0)
    }

    /// Appends the raw image to `out` and returns its length. REQUIRES: not empty.
    pub fn encode(&self, out: &mut Vec<u8>) -> usize {
        self.encode_with_value(out, &self.values)
    }

    /// Like [`BlockEncoder::encode`], with the value of [`BlockEncoder::push_without_value`].
    pub fn encode_with_value(&self, out: &mut Vec<u8>, values: &[u8]) -> usize {
        assert!(
            !self.is_empty() && values.len() == self.value_bytes,
            "a block has entries and all their values"
        );
        let count = self.entries.len();
        let shape = shape(
            count,
            common_prefix_len(self.first_key(), self.last_key()),
            self.keys.len(),
            self.value_bytes,
            (!self.key_lens_differ).then_some(self.first_key_len),
            !self.value_lens_differ,
            !self.any_delete,
            self.max_sequence - self.min_sequence,
        );
        let lcp = shape.lcp_len;
        let start = out.len();
        // All columns but the values are written in place. The values, most of the block, are
        // appended once.
        out.reserve(shape.raw_len);
        out.resize(start + shape.values, 0);
        let (header, columns) = out[start..].split_at_mut(BLOCK_HEADER_BYTES);
        header[0..2].copy_from_slice(&(count as u16).to_le_bytes());
        header[2] = shape.flags;
        header[3] = shape.sequence_width as u8;
        header[4..6].copy_from_slice(&(lcp as u16).to_le_bytes());
        if shape.flags & FIXED_SUFFIX != 0 {
            header[6..8].copy_from_slice(&((self.first_key_len - lcp) as u16).to_le_bytes());
        }
        header[8..12].copy_from_slice(&(shape.keys as u32).to_le_bytes());
        header[12..16].copy_from_slice(&(shape.values as u32).to_le_bytes());
        header[16..20].copy_from_slice(&(shape.raw_len as u32).to_le_bytes());
        if shape.flags & FIXED_VALUE != 0 {
            header[20..24].copy_from_slice(&(self.first_value_len as u32).to_le_bytes());
        }
        header[24..32].copy_from_slice(&self.min_sequence.to_le_bytes());

        let (tags, rest) = columns.split_at_mut(padded_tags(count));
        for (tag, entry) in tags.iter_mut().zip(&self.entries) {
            *tag = entry.tag;
        }
        let (heads, rest) = rest.split_at_mut(4 * count);
        let mut from = 0;
        for (head, entry) in heads.as_chunks_mut::<4>().0.iter_mut().zip(&self.entries) {
            *head = key_head(&self.keys[from + lcp..entry.key_end as usize]).to_le_bytes();
            from = entry.key_end as usize;
        }
        let (key_ends, rest) = rest.split_at_mut(shape.key_end_width * count);
        let mut removed = 0;
        let suffix_ends = self.entries.iter().map(|entry| {
            removed += lcp as u32;
            u64::from(entry.key_end - removed)
        });
        put_column(key_ends, shape.key_end_width, suffix_ends);
        let (value_ends, rest) = rest.split_at_mut(shape.value_end_width * count);
        put_column(
            value_ends,
            shape.value_end_width,
            self.entries.iter().map(|entry| u64::from(entry.value_end)),
        );
        let (sequences, rest) = rest.split_at_mut(shape.sequence_width * count);
        let deltas = self.entries.iter().map(|entry| entry.sequence - self.min_sequence);
        put_column(sequences, shape.sequence_width, deltas);
        let (kinds, rest) = rest.split_at_mut(if shape.flags & ALL_PUT != 0 { 0 } else { count });
        for (kind, entry) in kinds.iter_mut().zip(&self.entries) {
            *kind = entry.kind;
        }
        let (prefix, mut suffixes) = rest.split_at_mut(lcp);
        prefix.copy_from_slice(&self.keys[..lcp]);
        if lcp == 0 {
            suffixes.copy_from_slice(&self.keys);
        } else {
            let mut from = 0;
            for entry in &self.entries {
                let suffix = &self.keys[from + lcp..entry.key_end as usize];
                let (slot, rest) = suffixes.split_at_mut(suffix.len());
                slot.copy_from_slice(suffix);
                suffixes = rest;
                from = entry.key_end as usize;
            }
        }
        out.extend_from_slice(values);
        shape.raw_len
    }

    /// Removes all entries.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.keys.clear();
        self.values.clear();
        self.value_bytes = 0;
        self.last_key_start = 0;
        self.key_lens_differ = false;
        self.value_lens_differ = false;
        self.any_delete = false;
    }
}

fn put_column(out: &mut [u8], width: usize, numbers: impl Iterator<Item = u64>) {
    match width {
        0 => {}
        1 => out.iter_mut().zip(numbers).for_each(|(slot, number)| *slot = number as u8),
        2 => {
            let slots = out.as_chunks_mut().0;
            slots.iter_mut().zip(numbers).for_each(|(slot, number)| *slot = (number as u16).to_le_bytes());
        }
        4 => {
            let slots = out.as_chunks_mut().0;
            slots.iter_mut().zip(numbers).for_each(|(slot, number)| *slot = (number as u32).to_le_bytes());
        }
        _ => {
            let slots = out.as_chunks_mut().0;
            slots.iter_mut().zip(numbers).for_each(|(slot, number)| *slot = number.to_le_bytes());
        }
    }
}

struct Shape {
    flags: u8,
    lcp_len: usize,
    key_end_width: usize,
    value_end_width: usize,
    sequence_width: usize,
    keys: usize,
    values: usize,
    raw_len: usize,
}

/// The sections of a block with these totals. `fixed_key_len` is the length of all keys if it is
/// the same.
#[expect(clippy::too_many_arguments, reason = "the totals of a block, passed once from each of two places")]
fn shape(
    count: usize,
    lcp_len: usize,
    key_bytes: usize,
    value_bytes: usize,
    fixed_key_len: Option<usize>,
    fixed_value: bool,
    all_put: bool,
    sequence_spread: u64,
) -> Shape {
    let lcp_len = lcp_len.min(usize::from(u16::MAX));
    let suffix_bytes = key_bytes - count * lcp_len;
    let mut flags = 0;
    let mut end_width = |fixed: bool, total: usize, fixed_flag: u8, wide_flag: u8| {
        if fixed {
            flags |= fixed_flag;
            0
        } else if total > usize::from(u16::MAX) {
            flags |= wide_flag;
            4
        } else {
            2
        }
    };
    let fixed_suffix = fixed_key_len.is_some_and(|len| len - lcp_len <= usize::from(u16::MAX));
    let key_end_width = end_width(fixed_suffix, suffix_bytes, FIXED_SUFFIX, WIDE_KEY_ENDS);
    let value_end_width = end_width(fixed_value, value_bytes, FIXED_VALUE, WIDE_VALUE_ENDS);
    let kind_width = if all_put {
        flags |= ALL_PUT;
        0
    } else {
        1
    };
    let sequence_width = match sequence_spread {
        0 => 0,
        1..=0xFF => 1,
        0x100..=0xFFFF => 2,
        0x1_0000..=0xFFFF_FFFF => 4,
        _ => 8,
    };
    let columns = count * (4 + key_end_width + value_end_width + sequence_width + kind_width);
    let keys = BLOCK_HEADER_BYTES + padded_tags(count) + columns + lcp_len;
    let values = keys + suffix_bytes;
    Shape {
        flags,
        lcp_len,
        key_end_width,
        value_end_width,
        sequence_width,
        keys,
        values,
        raw_len: values + value_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Entry = (Vec<u8>, u64, ValueKind, Vec<u8>);

    fn encode(entries: &[Entry]) -> Vec<u8> {
        let mut encoder = BlockEncoder::default();
        let mut expected = 0;
        for (key, sequence, kind, value) in entries {
            expected = encoder.len_with(key, SequenceNumber(*sequence), *kind, value.len());
            assert!(expected <= encoder.len_bound_with(key.len(), value.len()));
            encoder.push(key, key.len() as u8, SequenceNumber(*sequence), *kind, value);
        }
        let mut out = Vec::new();
        assert_eq!(encoder.encode(&mut out), expected);
        assert_eq!(out.len(), expected);
        out
    }

    fn samples() -> Vec<Vec<Entry>> {
        let put = ValueKind::Put;
        vec![
            vec![(b"".to_vec(), 0, put, b"".to_vec())],
            vec![(b"a".to_vec(), 9, ValueKind::Delete, b"".to_vec())],
            (0..40u64).map(|i| (format!("user{i:04}").into_bytes(), 7, put, vec![i as u8; 10])).collect(),
            (0..40u64).map(|i| (b"same".to_vec(), 1000 - i * 9, put, vec![i as u8; i as usize])).collect(),
            (0..17u64).map(|i| (vec![b'k'; i as usize], i << 40, put, vec![1; 3])).collect(),
            vec![(vec![7; 65536], 1, put, vec![1; 70_000]), (vec![8; 65536], 1 << 20, put, vec![2; 5])],
            vec![(vec![7; 65536], 1, put, vec![])],
        ]
    }

    #[test]
    fn entries_come_back_from_their_columns() {
        for entries in samples() {
            let image = encode(&entries);
            let layout = BlockLayout::parse(&image).unwrap();
            assert_eq!(layout.count(), entries.len());
            for (i, (key, sequence, kind, value)) in entries.iter().enumerate() {
                assert_eq!([layout.lcp(&image), layout.suffix(&image, i)].concat(), *key);
                assert!(layout.key_is(&image, i, key));
                assert_eq!(layout.sequence(&image, i).0, *sequence);
                assert_eq!(layout.kind(&image, i), *kind);
                assert_eq!(layout.value(&image, i), *value);
                assert_eq!(layout.tag(&image, i), key.len() as u8);
                let first = entries.iter().position(|entry| entry.0 == *key).unwrap();
                assert_eq!(layout.lower_bound(&image, key), first);
                let mut above = key.clone();
                above.push(0);
                assert_eq!(layout.lower_bound(&image, &above), entries.partition_point(|e| e.0 < above));
            }
            assert_eq!(layout.lower_bound(&image, b""), 0);
            assert_eq!(layout.lower_bound(&image, &[0xFF; 3]), entries.len());
        }
    }

    #[test]
    fn every_entry_shows_where_all_are_said_to() {
        let put = ValueKind::Put;
        let mut blocks = samples();
        // Spans of every width, up to the largest that each holds and up to the largest of all.
        for span in [0, 1, 255, 256, 65535, 65536, u64::from(u32::MAX), 1 << 32] {
            for first in [0, 9, SequenceNumber::MAX.0 - span] {
                let entry = |key: &[u8], sequence| (key.to_vec(), sequence, put, vec![]);
                blocks.push(vec![entry(b"a", first), entry(b"b", first + span)]);
            }
        }
        for entries in blocks {
            let image = encode(&entries);
            let layout = BlockLayout::parse(&image).unwrap();
            let shows = |bound| {
                let all = (0..entries.len()).all(|i| layout.shows(&image, i, SequenceNumber(bound)));
                let is_said = layout.shows_all(SequenceNumber(bound));
                assert!(all || !is_said, "bound {bound}");
                is_said
            };
            let last = entries.iter().map(|entry| entry.1).max().unwrap();
            for bound in [0, last.saturating_sub(1), last, last.saturating_add(1), u64::MAX] {
                shows(bound);
            }
            // In the useful case, `shows_all` is true.
            let first = entries.iter().map(|entry| entry.1).min().unwrap();
            let is_near = last - first <= u64::from(u32::MAX);
            let are_puts = entries.iter().all(|entry| entry.2 == put);
            assert_eq!(shows(1 << 60), is_near && are_puts);
        }
    }

    #[test]
    fn wrong_images_are_errors_or_stay_inside() {
        for entries in samples().into_iter().take(5) {
            let image = encode(&entries);
            for len in 0..image.len() {
                assert!(BlockLayout::parse(&image[..len]).is_err());
            }
            for at in 0..image.len() {
                for bit in 0..8 {
                    let mut wrong = image.clone();
                    wrong[at] ^= 1 << bit;
                    if let Ok(layout) = BlockLayout::parse(&wrong) {
                        for i in 0..layout.count() {
                            let _ = layout.suffix(&wrong, i).len() + layout.value(&wrong, i).len();
                            let _ = (layout.sequence(&wrong, i), layout.kind(&wrong, i));
                        }
                        layout.lower_bound(&wrong, b"user0007");
                    }
                }
            }
        }
    }

    #[test]
    fn a_stored_block_validates_only_in_its_place() {
        let mut out = b"before".to_vec();
        out.extend_from_slice(b"payload");
        seal(&mut out, 6, 5, CodecId::None, StoredKind::Data, FileNumber(3), 4096);
        let stored = &out[6..];
        assert_eq!(unseal(stored, StoredKind::Data, FileNumber(3), 4096).unwrap(), (CodecId::None, 7));
        assert!(unseal(stored, StoredKind::Data, FileNumber(4), 4096).is_err());
        assert!(unseal(stored, StoredKind::Data, FileNumber(3), 8192).is_err());
        assert!(unseal(stored, StoredKind::Index, FileNumber(3), 4096).is_err());
        for len in 0..stored.len() {
            assert!(unseal(&stored[..len], StoredKind::Data, FileNumber(3), 4096).is_err());
        }
    }
}
