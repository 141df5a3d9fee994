//! The builder: takes entries in internal order and writes a table in one pass.
//!
//! 1. An entry is checked for order. Its key is hashed once, for the tag and the filter.
//! 2. If the entry would make the block too long, the block is finished: encoded, compressed,
//!    sealed and appended to a buffer.
//! 3. A full buffer is written. At the end the builder writes filter, index, properties and footer,
//!    and syncs once.
//!
//! Invariant: after a failed write nothing more is written and `finish` fails. The caller removes
//! the file.
use crate::codec::Compressor;
use crate::filter::Filter;
use crate::options::{Codec, FilterKind, TableOptions};
use crate::planted;
use sapwood_base::format::block::{
    BLOCK_TRAILER_BYTES, BlockEncoder, CodecId, MAX_BLOCK_ENTRIES, StoredKind, seal, tag_of,
};
use sapwood_base::format::footer::{FOOTER_BYTES, SectionHandle, TableFooter};
use sapwood_base::format::properties::TableProperties;
use sapwood_base::format::table_index::{OFFSET_UNIT_BYTES, TableIndexColumns};
use sapwood_base::key::{common_prefix_len, key_hash};
use sapwood_base::memory;
use sapwood_base::{
    Error, ErrorKind, FileNumber, KeyspaceId, MAX_KEY_BYTES, MAX_VALUE_BYTES, Result, SequenceNumber,
    ValueKind,
};
use sapwood_storage::File;
use std::cmp::Ordering;

/// Blocks of large entries grow to hold about this many of them.
const LARGE_BLOCK_ENTRIES: usize = 12;
/// An entry is large if it takes more than this on average.
const LARGE_ENTRY_BYTES: usize = 256;
/// Blocks of large entries grow no larger than this.
const LARGE_BLOCK_BYTES: usize = 32 << 10;
/// A value of at least this length gets a block of its own, which saves one copy.
pub(crate) const HUGE_VALUE_BYTES: usize = 64 << 10;
const PAGE_BYTES: u64 = 4096;

/// The summary of a finished table.
#[derive(Clone, Debug)]
pub struct TableSummary {
    /// The length of the file in bytes.
    pub file_bytes: u64,
    /// The length of the data blocks in bytes.
    pub data_bytes: u64,
    /// The number of data blocks.
    pub blocks: u64,
    /// Counts of entries, tombstones and raw bytes, and the smallest and largest key and sequence
    /// number.
    pub properties: TableProperties,
}

/// Writes one table. One thread at a time.
pub struct TableBuilder {
    file: Box<dyn File>,
    number: FileNumber,
    database: u64,
    options: TableOptions,
    encoder: BlockEncoder,
    compressor: Option<Compressor>,
    /// Bytes that are not yet written, and their offset in the file.
    out: Vec<u8>,
    out_offset: u64,
    index: TableIndexColumns,
    /// The separator of the current block.
    separator: Vec<u8>,
    is_continued: bool,
    /// The last entry of the previous block.
    last_key: Vec<u8>,
    last_sequence: SequenceNumber,
    last_tag: u8,
    hashes: Vec<u64>,
    properties: TableProperties,
    failed: bool,
}

impl TableBuilder {
    /// Creates a builder of table `number` for the empty `file`.
    pub fn new(
        file: Box<dyn File>,
        number: FileNumber,
        keyspace: KeyspaceId,
        options: &TableOptions,
    ) -> TableBuilder {
        let mut options = options.clone();
        options.block_bytes = options.block_bytes.clamp(256, 64 << 10);
        TableBuilder {
            file,
            number,
            database: 0,
            options,
            encoder: BlockEncoder::default(),
            compressor: None,
            out: Vec::new(),
            out_offset: 0,
            index: TableIndexColumns::default(),
            separator: Vec::new(),
            is_continued: false,
            last_key: Vec::new(),
            last_sequence: SequenceNumber::ZERO,
            last_tag: 0,
            hashes: Vec::new(),
            properties: TableProperties {
                keyspace,
                min_sequence: SequenceNumber(u64::MAX),
                ..TableProperties::default()
            },
            failed: false,
        }
    }

    /// Records the number of the database in the table, so that no other database accepts it.
    pub fn for_database(mut self, database: u64) -> TableBuilder {
        self.database = database;
        self
    }

    /// Adds an entry. REQUIRES: internal order: `key` above the last one, or equal to it and
    /// `sequence` below.
    ///
    /// Errors: `InvalidArgument` for an entry out of order or beyond the limits, which leaves the
    /// table unchanged. Any error of the file, after which the builder is unusable.
    #[inline]
    pub fn add(&mut self, key: &[u8], sequence: SequenceNumber, kind: ValueKind, value: &[u8]) -> Result<()> {
        if key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES || sequence > SequenceNumber::MAX {
            return Err(Error::invalid_argument("key, value or sequence number is beyond its limit"));
        }
        let is_first = self.properties.entries == 0;
        let (last_key, last_sequence) = if self.encoder.is_empty() {
            (self.last_key.as_slice(), self.last_sequence)
        } else {
            (self.encoder.last_key(), self.encoder.last_sequence())
        };
        let is_new_key = is_first
            || match key.cmp(last_key) {
                Ordering::Greater => true,
                Ordering::Equal if sequence < last_sequence => false,
                _ => return Err(out_of_order()),
            };
        if is_new_key {
            let hash = key_hash(key);
            self.last_tag = tag_of(hash);
            if self.options.filter != FilterKind::None {
                memory::reserve(&mut self.hashes, 1)?;
                self.hashes.push(hash);
            }
        }

        if self.encoder.is_empty() {
            self.begin_block(key, is_new_key);
        } else if self.encoder.len_bound_with(key.len(), value.len()) > self.raw_limit()
            && self.must_cut(key, sequence, kind, value.len())
        {
            self.end_block(None)?;
            self.begin_block(key, is_new_key);
        }

        let properties = &mut self.properties;
        properties.entries += 1;
        properties.user_keys += u64::from(is_new_key);
        properties.tombstones += u64::from(kind == ValueKind::Delete);
        properties.raw_key_bytes += key.len() as u64;
        properties.raw_value_bytes += value.len() as u64;
        properties.min_sequence = properties.min_sequence.min(sequence);
        properties.max_sequence = properties.max_sequence.max(sequence);
        if is_first {
            properties.smallest_key.extend_from_slice(key);
        }
        if value.len() < HUGE_VALUE_BYTES {
            self.encoder.push(key, self.last_tag, sequence, kind, value);
            return Ok(());
        }
        if !self.encoder.is_empty() {
            self.end_block(None)?;
            self.begin_block(key, is_new_key);
        }
        self.encoder.push_without_value(key, self.last_tag, sequence, kind, value.len());
        self.end_block(Some(value))
    }

    #[inline]
    fn raw_limit(&self) -> usize {
        self.options.block_bytes - BLOCK_TRAILER_BYTES
    }

    /// Whether the entry would make the block too long. The exact length is computed only for the
    /// last few entries of a block, where the bound does not decide.
    #[cold]
    #[inline(never)]
    fn must_cut(&self, key: &[u8], sequence: SequenceNumber, kind: ValueKind, value_len: usize) -> bool {
        let count = self.encoder.count() + 1;
        if count > MAX_BLOCK_ENTRIES {
            return true;
        }
        let average = (self.encoder.payload_bytes() + key.len() + value_len) / count;
        let mut limit = self.raw_limit();
        if average > LARGE_ENTRY_BYTES {
            // Whole pages, to fill a frame of the cache.
            let grown = (average * LARGE_BLOCK_ENTRIES).min(LARGE_BLOCK_BYTES).next_multiple_of(4096);
            limit = limit.max(grown - BLOCK_TRAILER_BYTES);
        }
        self.encoder.len_with(key, sequence, kind, value_len) > limit
    }

    /// Stores the separator between the previous block and the one that begins with `key`.
    fn begin_block(&mut self, key: &[u8], is_new_key: bool) {
        self.separator.clear();
        self.is_continued = !is_new_key;
        planted::keep_first_hash(&mut self.hashes, is_new_key);
        if self.properties.entries > 0 {
            let shared = common_prefix_len(&self.last_key, key);
            self.separator.extend_from_slice(&key[..key.len().min(shared + 1)]);
        }
    }

    /// Finishes the block. `value` is the value of its only entry if the encoder does not have it.
    fn end_block(&mut self, value: Option<&[u8]>) -> Result<()> {
        let result = self.try_end_block(value);
        self.failed |= result.is_err();
        result
    }

    fn try_end_block(&mut self, value: Option<&[u8]>) -> Result<()> {
        if self.failed {
            return Err(failed_before());
        }
        let mut room = self.encoder.encoded_len_bound();
        if self.out.capacity() == 0 {
            room += self.options.write_buffer_bytes.min(16 << 20) + 2 * self.options.block_bytes;
        }
        memory::reserve(&mut self.out, room)?;
        let start = self.out.len();
        let offset = self.out_offset + start as u64;
        let raw_len = match value {
            None => self.encoder.encode(&mut self.out),
            Some(value) => self.encoder.encode_with_value(&mut self.out, value),
        };
        let mut stored = (CodecId::None, 0);
        if self.options.compression != Codec::None {
            if self.compressor.is_none() {
                self.compressor = Some(Compressor::new(self.options.compression)?);
            }
            let compressed = self.compressor.as_mut().and_then(|c| c.compress(&self.out[start..]));
            if let Some((codec, payload)) = compressed {
                self.out.truncate(start);
                self.out.extend_from_slice(payload);
                stored = (codec, raw_len as u32);
            }
        }
        let len = self.out.len() - start;
        let end = offset + (len + BLOCK_TRAILER_BYTES) as u64;
        let mut padding = end.next_multiple_of(OFFSET_UNIT_BYTES) - end;
        if self.options.compression == Codec::None {
            // A block that nearly fills its pages is padded, so that the next one begins on a page.
            let to_page = end.next_multiple_of(PAGE_BYTES) - end;
            if to_page <= len as u64 / 8 {
                padding = to_page;
            }
        }
        // Less than a page, so it fits.
        seal(&mut self.out, start, padding as u16, stored.0, StoredKind::Data, self.number, offset);
        self.index.push(&self.separator, offset, stored.1, self.is_continued)?;
        self.last_key.clear();
        self.last_key.extend_from_slice(self.encoder.last_key());
        self.last_sequence = self.encoder.last_sequence();
        self.encoder.clear();
        if self.out.len() >= self.options.write_buffer_bytes {
            self.write_out()?;
        }
        Ok(())
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.write_at(self.out_offset, &self.out)?;
        self.out_offset += self.out.len() as u64;
        self.out.clear();
        // A huge value may have grown the buffer.
        self.out.shrink_to(2 * self.options.write_buffer_bytes + (1 << 20));
        Ok(())
    }

    /// The approximate length of the file in bytes if it were finished now.
    #[inline]
    pub fn estimated_bytes(&self) -> u64 {
        let filter_bits = self.hashes.len() as u64 * self.options.filter_bits_per_key.clamp(1.0, 64.0) as u64;
        let unwritten = self.out.len() + self.encoder.payload_bytes() + self.index.encoded_len_bound();
        self.out_offset + unwritten as u64 + filter_bits / 8 + FOOTER_BYTES as u64
    }

    /// The number of entries so far.
    #[inline]
    pub fn entries(&self) -> u64 {
        self.properties.entries
    }

    /// The last user key that was added; empty if there is none.
    #[inline]
    pub fn last_key(&self) -> &[u8] {
        if self.encoder.is_empty() { &self.last_key } else { self.encoder.last_key() }
    }

    /// Writes the sections after the data, and syncs. The caller makes the file's name durable.
    pub fn finish(mut self) -> Result<TableSummary> {
        if self.failed {
            return Err(failed_before());
        }
        if !self.encoder.is_empty() {
            self.end_block(None)?;
        }
        let data_len = self.out_offset + self.out.len() as u64;
        self.index.data_len = data_len;
        if self.properties.entries == 0 {
            self.properties.min_sequence = SequenceNumber::ZERO;
        }
        self.properties.largest_key = std::mem::take(&mut self.last_key);
        let filter = Filter::build(self.options.filter, self.options.filter_bits_per_key, &self.hashes)?;
        // A second copy of the filter's bits, and both sections next to the output that is not yet
        // written.
        memory::check(3 * filter.memory_bytes() + 2 * self.index.encoded_len_bound() + self.out.len())?;

        let mut footer = TableFooter { data_len, database: self.database, ..TableFooter::default() };
        footer.filter = self.section(StoredKind::Filter, |_, out| filter.encode(out));
        footer.index = self.section(StoredKind::Index, |builder, out| builder.index.encode(out));
        footer.properties =
            self.section(StoredKind::Properties, |builder, out| builder.properties.encode(out));
        let footer = footer.encode(self.number);
        self.out.extend_from_slice(&footer);
        let file_bytes = self.out_offset + self.out.len() as u64;
        self.write_out()?;
        if planted::syncs_table() {
            self.file.sync_data()?;
        }
        Ok(TableSummary {
            file_bytes,
            data_bytes: data_len,
            blocks: self.index.block_count() as u64,
            properties: self.properties,
        })
    }

    /// Appends a section. An empty section is left out.
    fn section(
        &mut self,
        kind: StoredKind,
        encode: impl FnOnce(&TableBuilder, &mut Vec<u8>),
    ) -> SectionHandle {
        let mut out = std::mem::take(&mut self.out);
        let start = out.len();
        let offset = self.out_offset + start as u64;
        encode(self, &mut out);
        if out.len() > start {
            seal(&mut out, start, 0, CodecId::None, kind, self.number, offset);
        }
        let len = (out.len() - start) as u64;
        self.out = out;
        SectionHandle { offset, len }
    }
}

#[cold]
fn out_of_order() -> Error {
    Error::invalid_argument("entries must be added in internal order, without duplicates")
}

#[cold]
fn failed_before() -> Error {
    Error::new(ErrorKind::Io, "an earlier write of this table failed")
}
