//! The reader of one table.
//!
//! 1. [`Table::open`] reads and checks footer, filter, index and properties. Filter and index stay
//!    in memory.
//! 2. [`Table::get`] finds the block in the index, its image in the cache, and the slot by the
//!    block's tags.
//! 3. Iterators move over the same blocks and pin one at a time. A scanner bypasses the cache.
//!
//! Invariant: a table is immutable and shared, and safe for concurrent use. The caller decides when
//! its file is removed.
use crate::blocks::{Search, image_len, likely_slot, read_block, read_unbelievable, search};
use crate::builder::HUGE_VALUE_BYTES;
use crate::filter::Filter;
use crate::index::{GROUP, Place, TableIndex};
use crate::options::ReadOptions;
use crate::planted;
use crossbeam_epoch::Guard;
use sapwood_base::format::block::{BlockLayout, CodecId, StoredKind, tag_of, unseal};
use sapwood_base::format::footer::{FOOTER_BYTES, SectionHandle, TableFooter};
use sapwood_base::format::properties::TableProperties;
use sapwood_base::memory;
use sapwood_base::{Error, ErrorKind, FileNumber, Lookup, Result};
use sapwood_storage::{BlockRef, BufferCache, File, Fill, SlotTable};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

mod iterator;
mod scanner;
mod value;
mod verify;

pub use iterator::TableIterator;
pub use scanner::{READ_BYTES, TableScanner};
pub use value::{Found, PinnedValue, ValueRef};

/// Lines of a block that a lookup prefetches before it knows which of them it needs: the columns
/// after the header, which it waits for, and most of the keys of a block of small entries.
const PREFETCHED_LINES: Range<usize> = 2..12;
const LINE_BYTES: usize = 64;
/// Lines of a block that hold its header and most of its tags.
const TAG_LINES: usize = 2;
/// Lines of a value that are prefetched. The processor's own prefetcher continues from there.
const VALUE_LINES: usize = 4;
/// Cache slots per cache line of the processor.
const SLOTS_PER_LINE: usize = 8;
/// Blocks that are loaded into the cache under one guard.
const WARM_BLOCKS: usize = 32;
/// Blocks that are sampled to estimate the cached share.
const SAMPLED_BLOCKS: usize = 64;

/// The position of a key in the index: see [`Table::prefetch_index`].
#[derive(Clone, Copy)]
pub struct IndexPlace(Place);

/// The last block that [`Table::get_in_order`] read, of any table.
#[derive(Default)]
pub struct LastBlock(Option<(FileNumber, usize, Arc<[u8]>)>);

impl LastBlock {
    /// Returns the image if it is that of this block.
    fn image(&self, file: FileNumber, block: usize) -> Option<Arc<[u8]>> {
        let (last_file, last_block, image) = self.0.as_ref()?;
        planted::is_same_block((*last_file, *last_block), (file, block)).then(|| Arc::clone(image))
    }
}

/// An open table.
pub struct Table {
    index: TableIndex,
    slots: SlotTable,
    filter: Filter,
    number: FileNumber,
    database: u64,
    file: Box<dyn File>,
    file_bytes: u64,
    properties: TableProperties,
}

/// Reads the footer of table `number`. Returns it with its offset in bytes.
fn read_footer(file: &dyn File, number: FileNumber) -> Result<(TableFooter, u64)> {
    let file_bytes = file.len()?;
    let Some(offset) = file_bytes.checked_sub(FOOTER_BYTES as u64) else {
        return Err(Error::corruption(file.path(), 0, "file is too short for a table"));
    };
    let mut footer = [0u8; FOOTER_BYTES];
    file.read_exact_at(offset, &mut footer)?;
    let footer =
        TableFooter::decode(&footer, number, file_bytes).map_err(|error| error.at(file.path(), offset))?;
    Ok((footer, offset))
}

impl Table {
    /// Opens table `number`.
    ///
    /// Errors: `Corruption` if footer, filter, index or properties are not what was written,
    /// `Unsupported` for a newer format, and any error of the file.
    pub fn open(file: Box<dyn File>, number: FileNumber, cache: &Arc<BufferCache>) -> Result<Arc<Table>> {
        let (footer, footer_offset) = read_footer(&*file, number)?;
        // Reads everything between data and footer at once. The footer check has ensured that it
        // lies inside the file.
        let tail_len = usize::try_from(footer_offset - footer.data_len)
            .map_err(|_| Error::corruption(file.path(), footer_offset, "table sections are too long"))?;
        let mut tail = memory::filled(0, tail_len)?;
        file.read_exact_at(footer.data_len, &mut tail)?;

        let section = |handle: SectionHandle, kind: StoredKind| {
            let start = (handle.offset - footer.data_len) as usize;
            let stored = &tail[start..start + handle.len as usize];
            let (codec, len) = unseal(stored, kind, number, handle.offset)?;
            match codec {
                CodecId::None => Ok(&stored[..len]),
                _ => Err(Error::new(ErrorKind::Unsupported, "table section is compressed")),
            }
        };
        let at = |handle: SectionHandle| {
            let path = file.path();
            move |error: Error| error.at(path, handle.offset)
        };
        let filter = match footer.filter.len {
            0 => Filter::None,
            _ => section(footer.filter, StoredKind::Filter)
                .and_then(Filter::decode)
                .map_err(at(footer.filter))?,
        };
        let index = section(footer.index, StoredKind::Index)
            .and_then(TableIndex::decode)
            .map_err(at(footer.index))?;
        let properties = section(footer.properties, StoredKind::Properties)
            .and_then(TableProperties::decode)
            .map_err(at(footer.properties))?;
        if index.data_len() != footer.data_len
            || (index.block_count() as u64) > properties.entries
            || (index.block_count() == 0) != (properties.entries == 0)
        {
            let message = "table index, properties and footer contradict each other";
            return Err(Error::corruption(file.path(), footer_offset, message));
        }
        let slots = cache.slots(index.block_count());
        let (database, file_bytes) = (footer.database, footer_offset + FOOTER_BYTES as u64);
        Ok(Arc::new(Table { index, slots, filter, number, database, file, file_bytes, properties }))
    }

    /// Reads only the properties of table `number`.
    ///
    /// Errors: as of [`Table::open`].
    pub fn read_properties(file: &dyn File, number: FileNumber) -> Result<TableProperties> {
        let (footer, _) = read_footer(file, number)?;
        let SectionHandle { offset, len } = footer.properties;
        let len = usize::try_from(len)
            .map_err(|_| Error::corruption(file.path(), offset, "table properties are too long"))?;
        let mut stored = memory::filled(0, len)?;
        file.read_exact_at(offset, &mut stored)?;
        unseal(&stored, StoredKind::Properties, number, offset)
            .and_then(|(codec, len)| match codec {
                CodecId::None => TableProperties::decode(&stored[..len]),
                _ => Err(Error::new(ErrorKind::Unsupported, "table section is compressed")),
            })
            .map_err(|error| error.at(file.path(), offset))
    }

    /// The newest version that `lookup` sees; `None` if this table has none.
    /// The filter is not consulted: see [`Table::may_contain`].
    ///
    /// Errors: `Corruption` if the block is not what was written, and any error of the file.
    #[inline]
    pub fn get<'g>(&'g self, lookup: Lookup<'_>, guard: &'g Guard) -> Result<Option<Found<'g>>> {
        if self.index.block_count() == 0 {
            return Ok(None);
        }
        // Prefetches the slots near the block's while the index is still being read.
        let number = self.index.find_near(lookup.key, |first| self.prefetch_slots(first));
        let block = self.block(number, guard)?;
        for line in PREFETCHED_LINES {
            block.prefetch(line * LINE_BYTES);
        }
        self.get_from(number, block, lookup, guard)
    }

    /// [`Table::get`] for ascending lookups that bypass the cache. A block that is not cached is
    /// read and kept in `last` for the lookups of nearby keys. It does not enter the cache, and its
    /// use is not counted.
    ///
    /// Errors: as of [`Table::get`].
    pub fn get_in_order<'g>(
        &'g self,
        lookup: Lookup<'_>,
        last: &mut LastBlock,
        guard: &'g Guard,
    ) -> Result<Option<Found<'g>>> {
        let Some(number) = self.locate(lookup.key) else { return Ok(None) };
        let block = match last.image(self.number, number) {
            Some(image) => BlockRef::Owned(image),
            None => {
                let block = self.load(number, Fill::None, guard)?;
                if let BlockRef::Owned(image) = &block {
                    last.0 = Some((self.number, number, Arc::clone(image)));
                }
                block
            }
        };
        self.get_from(number, block, lookup, guard)
    }

    /// The number of the first block that can hold `key`; `None` in an empty table.
    #[inline]
    pub fn locate(&self, key: &[u8]) -> Option<usize> {
        if self.index.block_count() == 0 { None } else { Some(self.index.find(key)) }
    }

    /// Batched lookup, stage 1: prefetches a part of the index. `None` in an empty table.
    ///
    /// The stages overlap the cache misses of many keys, as each prefetches the data that the next
    /// one reads: [`Table::prefetch_index`], [`Table::prefetch_block`], [`Table::prefetch_entry`],
    /// [`Table::get_prefetched`]. Each stage runs for all keys before the next begins.
    #[inline]
    pub fn prefetch_index(&self, key: &[u8]) -> Option<IndexPlace> {
        if self.index.block_count() == 0 {
            return None;
        }
        let place = self.index.prefetch(key);
        if let Place::Group { group, .. } = place {
            self.prefetch_slots(group * GROUP);
        }
        Some(IndexPlace(place))
    }

    /// Batched lookup, stage 2: returns the block that [`Table::locate`] would return, and
    /// prefetches its beginning if it is in the cache. `place` is from stage 1 with this key.
    #[inline]
    pub fn prefetch_block(&self, place: IndexPlace, key: &[u8]) -> usize {
        let block = self.index.find_at(place.0, key);
        self.slots.prefetch_block(block, TAG_LINES * LINE_BYTES);
        block
    }

    /// Batched lookup, stage 3: returns the block if it is in the cache, and prefetches the entry
    /// that the key's hash points to.
    ///
    /// # Panics
    /// If `number` is not from stage 2.
    #[inline]
    pub fn prefetch_entry<'g>(&'g self, number: usize, hash: u64, guard: &'g Guard) -> Option<BlockRef<'g>> {
        let block = self.slots.get(number, guard)?;
        let layout = BlockLayout::of_validated(&block);
        if let Some(slot) = likely_slot(&layout, &block, tag_of(hash)) {
            let (key, value) = layout.about(&block, slot);
            block.prefetch(key);
            let lines = value.len().div_ceil(LINE_BYTES).min(VALUE_LINES);
            (0..=lines).for_each(|line| block.prefetch(value.start + line * LINE_BYTES));
        }
        Some(block)
    }

    /// Batched lookup, stage 4: [`Table::get`] with the results of stages 2 and 3.
    ///
    /// # Panics
    /// If `number` is not from stage 2.
    #[inline]
    pub fn get_prefetched<'g>(
        &'g self,
        number: usize,
        block: Option<BlockRef<'g>>,
        lookup: Lookup<'_>,
        guard: &'g Guard,
    ) -> Result<Option<Found<'g>>> {
        let block = match block {
            Some(block) => block,
            None => self.block(number, guard)?,
        };
        self.get_from(number, block, lookup, guard)
    }

    /// [`Table::get`] for a key whose first block is `number`.
    #[inline]
    fn get_from<'g>(
        &'g self,
        mut number: usize,
        mut block: BlockRef<'g>,
        lookup: Lookup<'_>,
        guard: &'g Guard,
    ) -> Result<Option<Found<'g>>> {
        let Lookup { key, hash, sequence } = lookup;
        let tag = tag_of(hash);
        loop {
            let image: &[u8] = &block;
            let layout = BlockLayout::of_validated(image);
            match search(&layout, image, key, tag, sequence) {
                Search::Found(slot) => {
                    let (kind, found) = (layout.kind(image, slot), layout.sequence(image, slot));
                    let (start, end) = layout.value_range(image, slot);
                    let value = ValueRef::new(block, start, end);
                    return Ok(Some(Found { kind, sequence: found, value }));
                }
                Search::AtEnd if self.index.is_continued(number + 1) => {
                    number += 1;
                    block = self.block(number, guard)?;
                }
                Search::AtEnd | Search::Absent => return Ok(None),
            }
        }
    }

    /// Returns a block, from the cache or the file.
    #[inline]
    fn block<'g>(&'g self, number: usize, guard: &'g Guard) -> Result<BlockRef<'g>> {
        match self.slots.get(number, guard) {
            Some(block) => Ok(block),
            None => self.load(number, Fill::Normal, guard),
        }
    }

    /// Prefetches the slots of [`GROUP`] blocks.
    #[inline]
    fn prefetch_slots(&self, first: usize) {
        for line in 0..GROUP / SLOTS_PER_LINE {
            self.slots.prefetch(first + line * SLOTS_PER_LINE);
        }
    }

    /// Whether the table has an entry, of any kind and version, whose user key begins with
    /// `prefix`. Reads one block or two.
    ///
    /// Errors: as of [`Table::get`].
    pub fn has_prefix(&self, prefix: &[u8], guard: &Guard) -> Result<bool> {
        let Some(number) = self.locate(prefix) else { return Ok(false) };
        let begins = |block: &BlockRef<'_>, slot| {
            let (layout, mut key) = (BlockLayout::of_validated(block), prefix);
            for part in [layout.lcp(block), layout.suffix(block, slot)] {
                let (part, wanted) = (part.get(..key.len()).unwrap_or(part), key);
                match wanted.strip_prefix(part) {
                    Some(rest) => key = rest,
                    None => return false,
                }
            }
            key.is_empty()
        };
        let block = self.block(number, guard)?;
        let layout = BlockLayout::of_validated(&block);
        let slot = layout.lower_bound(&block, prefix);
        if slot < layout.count() {
            return Ok(begins(&block, slot));
        }
        match number + 1 < self.index.block_count() {
            true => Ok(begins(&self.block(number + 1, guard)?, 0)),
            false => Ok(false),
        }
    }

    /// The blocks that a reader of the keys in `[lower, upper]` visits; `None` is unbounded.
    pub fn blocks_between(&self, lower: Option<&[u8]>, upper: Option<&[u8]>) -> Range<usize> {
        let blocks = self.index.block_count();
        if blocks == 0 {
            return 0..0;
        }
        let first = lower.map_or(0, |lower| self.index.find(lower));
        // Versions of `upper` may continue in later blocks; this estimate ignores them.
        let last = upper.map_or(blocks - 1, |upper| self.index.find(upper));
        first..(last + 1).max(first)
    }

    /// Whether a block is in the cache, and its length in the file in bytes.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn block_state(&self, block: usize) -> (bool, u64) {
        (self.slots.is_cached(block), self.index.stored_len(block))
    }

    /// Loads all blocks into the cache, for a table that replaces cached ones. Stops early if the
    /// cache has no room at the moment.
    ///
    /// Errors: those of [`Table::get`].
    pub fn warm(&self) -> Result<()> {
        for first in (0..self.index.block_count()).step_by(WARM_BLOCKS) {
            // Each guard is short-lived, because it pins the epoch and delays reclamation.
            let guard = crossbeam_epoch::pin();
            for block in first..(first + WARM_BLOCKS).min(self.index.block_count()) {
                if !self.slots.is_cached(block) && !self.load(block, Fill::Normal, &guard)?.is_cached() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The approximate share of the blocks that is in the cache, from a sample.
    pub fn cached_share(&self) -> f64 {
        let blocks = self.index.block_count();
        let step = (blocks / SAMPLED_BLOCKS).max(1);
        let sampled = (0..blocks).step_by(step);
        let cached = sampled.clone().filter(|block| self.slots.is_cached(*block)).count();
        cached as f64 / sampled.count().max(1) as f64
    }

    /// Reads a block that is not in the cache.
    #[cold]
    #[inline(never)]
    fn load<'g>(&'g self, block: usize, fill: Fill, guard: &'g Guard) -> Result<BlockRef<'g>> {
        let len = image_len(&self.index, block);
        let unbelievable = read_unbelievable(&*self.file, self.number, &self.index, block)?;
        self.slots.get_or_load(block, len, fill, guard, |image| match unbelievable {
            Some(bytes) => {
                image.copy_from_slice(&bytes);
                Ok(())
            }
            None => read_block(&*self.file, self.number, &self.index, block, image),
        })
    }

    /// Whether a key with this hash may be in the table; never `false` for a key that is.
    #[inline]
    pub fn may_contain(&self, hash: u64) -> bool {
        self.filter.may_contain(hash)
    }

    /// Prefetches the memory that [`Table::may_contain`] reads. Call it first, for all tables of a
    /// lookup.
    #[inline]
    pub fn prefetch_filter(&self, hash: u64) {
        self.filter.prefetch(hash);
    }

    /// An iterator that reads through the cache. Not yet positioned.
    pub fn iter(self: &Arc<Self>, options: ReadOptions) -> TableIterator {
        TableIterator::new(Arc::clone(self), options)
    }

    /// An iterator for compaction: bypasses the cache with large sequential reads and checks every
    /// block. Not yet positioned. Moves in both directions but is optimized for forward scans.
    pub fn scan(self: &Arc<Self>) -> TableScanner {
        self.scan_in_reads_of(READ_BYTES)
    }

    /// [`Table::scan`] with reads, and a buffer, of so many bytes.
    pub fn scan_in_reads_of(self: &Arc<Self>, bytes: u64) -> TableScanner {
        TableScanner::new(Arc::clone(self), bytes)
    }

    /// The approximate number of bytes of the file before `key`, exact to one block, without
    /// reading one.
    pub fn approximate_offset(&self, key: &[u8]) -> u64 {
        if key > self.properties.largest_key.as_slice() {
            return self.index.data_len();
        }
        match self.index.block_count() {
            0 => 0,
            _ => self.index.offset(self.index.find(key)),
        }
    }

    /// The approximate average size in the file, in bytes, of a row that shares its block with
    /// others. Walks the index.
    pub fn shared_row_bytes(&self) -> u64 {
        let blocks = 0..self.index.block_count();
        let (count, bytes) = blocks
            .filter(|block| self.is_own_block(*block))
            .fold((0, 0), |(count, bytes), block| (count + 1, bytes + self.index.stored_len(block)));
        let rows = self.properties.entries.saturating_sub(count).max(1);
        self.index.data_len().saturating_sub(bytes) / rows
    }

    /// The approximate size in the file, in bytes, of the row of `key`, if there is one. Estimated
    /// from the length of the block that would hold it, which is not read. `shared` is the result
    /// of [`Table::shared_row_bytes`].
    pub fn approximate_row_bytes(&self, key: &[u8], shared: u64) -> u64 {
        let Some(block) = self.locate(key) else { return 0 };
        let bytes = self.index.stored_len(block);
        let average = self.index.data_len() / self.index.block_count() as u64;
        if self.is_own_block(block) {
            bytes
        } else if bytes >= 2 * average {
            // The block is this long to hold at most a dozen large rows.
            bytes / 4
        } else {
            shared.min(bytes)
        }
    }

    /// Whether a block is so long that it holds a single row.
    fn is_own_block(&self, block: usize) -> bool {
        let raw_bytes = self.index.raw_len(block).unwrap_or(self.index.stored_len(block) as usize);
        raw_bytes >= HUGE_VALUE_BYTES
    }

    /// Whether [`Table::may_contain`] can return `false`.
    pub fn has_filter(&self) -> bool {
        !matches!(self.filter, Filter::None)
    }

    /// Up to `parts - 1` ascending keys that split the table into pieces of about equal length,
    /// without reading it. All versions of a key fall into one piece. The keys need not be in the
    /// table.
    pub fn split_keys(&self, parts: usize) -> Vec<Vec<u8>> {
        let blocks = self.index.block_count();
        let mut keys: Vec<Vec<u8>> = (1..parts.min(blocks))
            .map(|part| self.index.separator(blocks * part / parts.min(blocks)))
            .collect();
        keys.dedup();
        keys
    }

    /// The number of the database that the table was written for; 0 if not recorded.
    pub fn database(&self) -> u64 {
        self.database
    }

    /// The number in the file's name.
    #[inline]
    pub fn number(&self) -> FileNumber {
        self.number
    }

    /// The length of the file in bytes.
    #[inline]
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The length of the data blocks in bytes.
    pub fn data_bytes(&self) -> u64 {
        self.index.data_len()
    }

    /// The number of data blocks.
    pub fn blocks(&self) -> usize {
        self.index.block_count()
    }

    /// The properties of the table.
    #[inline]
    pub fn properties(&self) -> &TableProperties {
        &self.properties
    }

    /// Memory of index, filter and cache slots while the table is open, in bytes.
    pub fn pinned_bytes(&self) -> usize {
        self.index.memory_bytes() + self.filter.memory_bytes() + self.slots.memory_bytes()
    }

    /// Reads and checks the whole table: every checksum, the order of entries, tags, heads and
    /// separators, that the filter contains every key, and that the properties are true.
    pub fn verify(&self) -> Result<()> {
        verify::verify(self)
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("number", &self.number)
            .field("file_bytes", &self.file_bytes)
            .field("entries", &self.properties.entries)
            .finish_non_exhaustive()
    }
}
