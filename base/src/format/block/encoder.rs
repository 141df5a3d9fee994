//! Writes the raw image of a block from its entries.
use super::layout::{
    ALL_PUT, BLOCK_HEADER_BYTES, FIXED_SUFFIX, FIXED_VALUE, TAG_GROUP, WIDE_KEY_ENDS, WIDE_VALUE_ENDS,
    padded_tags,
};
use crate::key::{ValueKind, common_prefix_len, key_head};
use crate::sequence::SequenceNumber;

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
