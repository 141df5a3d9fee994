//! The iterator through the cache: pins one block at a time, reads ahead when it moves over missing blocks in order.
use super::Table;
use crate::cursor::{BlockSource, Cursor};
use crate::index::TableIndex;
use crate::options::ReadOptions;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::{Result, SequenceNumber, ValueKind};
use sapwood_storage::{Fill, PinnedBlock};
use std::sync::Arc;

/// What is asked for of the next block in memory: the columns before the values, in a block of many entries.
const PREFETCHED_BYTES: usize = 1 << 10;
/// What is asked for of a block that is searched: header, tags and heads.
const SEARCHED_BYTES: usize = 512;
/// What the first readahead asks for; it doubles from there.
const FIRST_READAHEAD_BYTES: u64 = 32 << 10;
/// This many missing blocks in a row make a sequential reader.
const SEQUENTIAL_MISSES: u32 = 2;
/// After this many blocks in a row, those that are read come into the cache as those of a scan.
const SCAN_BLOCKS: u32 = 64;

/// An iterator over a table; owns all it needs, may go to another thread.
///
/// Entries come in internal order. See [`InternalIterator`] for positioning and errors.
pub struct TableIterator {
    cursor: Cursor<CachedBlocks>,
}

impl TableIterator {
    pub(super) fn new(table: Arc<Table>, options: ReadOptions) -> TableIterator {
        TableIterator {
            cursor: Cursor::new(CachedBlocks {
                table,
                options,
                pinned: None,
                last_block: usize::MAX,
                run_blocks: 0,
                run_misses: 0,
                window_bytes: FIRST_READAHEAD_BYTES,
                prefetched_to: 0,
            }),
        }
    }
}

/// Blocks from the cache, pinned, and the state of readahead.
struct CachedBlocks {
    table: Arc<Table>,
    options: ReadOptions,
    pinned: Option<PinnedBlock>,
    last_block: usize,
    /// How many blocks were taken in ascending order, and how many of those in a row were missing.
    run_blocks: u32,
    run_misses: u32,
    window_bytes: u64,
    prefetched_to: u64,
}

impl CachedBlocks {
    fn note_position(&mut self, block: usize) {
        if self.last_block.checked_add(1) == Some(block) {
            self.run_blocks = self.run_blocks.saturating_add(1);
        } else {
            self.run_blocks = 0;
            self.run_misses = 0;
            self.window_bytes = FIRST_READAHEAD_BYTES;
            self.prefetched_to = 0;
        }
        self.last_block = block;
    }

    /// Called for a missing block: asks for what comes after it once the reader seems to be sequential.
    fn read_ahead(&mut self, block: usize) {
        self.run_misses += 1;
        let limit = self.options.readahead_bytes as u64;
        if limit == 0 || self.run_misses < SEQUENTIAL_MISSES {
            return;
        }
        let index = &self.table.index;
        let offset = index.offset(block);
        // The next stretch is asked for when half of the one before is used up.
        if offset + self.window_bytes / 4 < self.prefetched_to {
            return;
        }
        let from = self.prefetched_to.max(offset);
        let to = (offset + self.window_bytes.min(limit)).min(index.data_len());
        if from < to {
            self.table.file.prefetch(from, to - from);
            self.prefetched_to = to;
        }
        self.window_bytes = (self.window_bytes * 2).min(limit.max(FIRST_READAHEAD_BYTES));
    }
}

impl BlockSource for CachedBlocks {
    fn index(&self) -> &TableIndex {
        &self.table.index
    }

    fn load(&mut self, block: usize) -> Result<()> {
        self.pinned = None;
        // Whoever has come from a neighbour may go on to the next one, and finds there what a step looks at.
        if self.last_block.wrapping_add(1) == block {
            self.table.slots.prefetch_block(block + 1, PREFETCHED_BYTES);
        } else if self.last_block == block + 1 {
            self.table.slots.prefetch_block(block.wrapping_sub(1), PREFETCHED_BYTES);
        }
        // The columns that a search looks at come while the pin is waited for.
        self.table.slots.prefetch_block(block, SEARCHED_BYTES);
        self.note_position(block);
        let guard = crossbeam_epoch::pin();
        if let Some(found) = self.table.slots.get(block, &guard) {
            self.pinned = Some(found.pin());
            return Ok(());
        }
        self.read_ahead(block);
        let fill =
            if self.options.fill_cache && self.run_blocks < SCAN_BLOCKS { Fill::Normal } else { Fill::Scan };
        self.pinned = Some(self.table.load(block, fill, &guard)?.pin());
        Ok(())
    }

    #[inline]
    fn image(&self) -> &[u8] {
        self.pinned.as_deref().unwrap_or(&[])
    }
}

crate::cursor::forward_to_cursor!(TableIterator);
