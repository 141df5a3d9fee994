//! The iterator through the cache. It pins one block at a time and reads ahead when it meets
//! missing blocks in order.
use super::Table;
use crate::cursor::{BlockSource, Cursor};
use crate::index::TableIndex;
use crate::options::ReadOptions;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::{Result, SequenceNumber, ValueKind};
use sapwood_storage::{Fill, PinnedBlock};
use std::sync::Arc;

/// Bytes of the next block that are prefetched: the columns before the values, in a block of many
/// entries.
const PREFETCHED_BYTES: usize = 1 << 10;
/// Bytes of a block that are prefetched for a search: header, tags and heads.
const SEARCHED_BYTES: usize = 512;
/// Length of the first readahead, which doubles from there.
const FIRST_READAHEAD_BYTES: u64 = 32 << 10;
/// This many missing blocks in one ascending run indicate a sequential reader.
const SEQUENTIAL_MISSES: u32 = 2;
/// After this many consecutive blocks, blocks are loaded into the cache as those of a scan.
const SCAN_BLOCKS: u32 = 64;

/// An iterator over a table. It owns its data and may move to another thread.
///
/// Entries are in internal order. See [`InternalIterator`] for positioning and errors.
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

/// Pinned blocks from the cache, and the state of readahead.
struct CachedBlocks {
    table: Arc<Table>,
    options: ReadOptions,
    pinned: Option<PinnedBlock>,
    last_block: usize,
    /// The length of the current run of ascending blocks, and the number of its blocks that were
    /// missing.
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

    /// Called for a missing block: prefetches the following bytes once the reader seems sequential.
    fn read_ahead(&mut self, block: usize) {
        self.run_misses += 1;
        let limit = self.options.readahead_bytes as u64;
        if limit == 0 || self.run_misses < SEQUENTIAL_MISSES {
            return;
        }
        let index = &self.table.index;
        let offset = index.offset(block);
        // The next window is prefetched when half of the previous one is used, or three quarters at
        // the maximum window.
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
        // A reader that came from a neighbour may go on in the same direction, so the next block is
        // prefetched.
        if self.last_block.wrapping_add(1) == block {
            self.table.slots.prefetch_block(block + 1, PREFETCHED_BYTES);
        } else if self.last_block == block + 1 {
            self.table.slots.prefetch_block(block.wrapping_sub(1), PREFETCHED_BYTES);
        }
        // The columns for a search load while the pin is acquired.
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
