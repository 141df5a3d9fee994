//! The iterator for compaction. It bypasses the cache with large sequential reads into its own
//! buffer and checks every block.
use super::Table;
use crate::blocks::{check_image, expand, expand_owned};
use crate::codec::is_unbelievable;
use crate::cursor::{BlockSource, Cursor};
use crate::index::TableIndex;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::memory;
use sapwood_base::{Result, SequenceNumber, ValueKind};
use std::ops::Range;
use std::sync::Arc;

/// The length of one read, unless a scan has less memory. A longer block is read alone.
pub const READ_BYTES: u64 = 1 << 20;

/// A scan of a table. It owns its data and may move to another thread.
pub struct TableScanner {
    cursor: Cursor<ScannedBlocks<Arc<Table>>>,
}

impl TableScanner {
    pub(super) fn new(table: Arc<Table>, read_bytes: u64) -> TableScanner {
        TableScanner { cursor: Cursor::new(ScannedBlocks::new(table, read_bytes)) }
    }
}

/// Blocks from the file, dozens to hundreds at a time.
pub(super) struct ScannedBlocks<T> {
    table: T,
    /// The length of one read.
    read_bytes: u64,
    buffer: Vec<u8>,
    /// The blocks in `buffer`.
    buffered: Range<usize>,
    /// The current image: a range of `buffer`, or `expanded`.
    current: Range<usize>,
    expanded: Vec<u8>,
    is_expanded: bool,
}

impl<T: std::ops::Deref<Target = Table>> ScannedBlocks<T> {
    pub(super) fn new(table: T, read_bytes: u64) -> ScannedBlocks<T> {
        ScannedBlocks {
            table,
            read_bytes,
            buffer: Vec::new(),
            buffered: 0..0,
            current: 0..0,
            expanded: Vec::new(),
            is_expanded: false,
        }
    }

    /// Reads consecutive blocks that contain `block`: those after it, or those before it if the
    /// scan goes backwards.
    fn fill(&mut self, block: usize) -> Result<()> {
        let table = &*self.table;
        let index = &table.index;
        let backwards = block + 1 == self.buffered.start;
        self.buffered = 0..0;
        let (mut first, mut end) = (block, block + 1);
        let mut len = index.stored_len(block);
        while backwards && first > 0 && len + index.stored_len(first - 1) <= self.read_bytes {
            first -= 1;
            len += index.stored_len(first);
        }
        while !backwards && end < index.block_count() && len + index.stored_len(end) <= self.read_bytes {
            len += index.stored_len(end);
            end += 1;
        }
        let offset = index.offset(first);
        let wanted = len as usize;
        if self.buffer.len() < wanted {
            memory::resize(&mut self.buffer, wanted, 0)?;
        }
        table.file.read_exact_at(offset, &mut self.buffer[..wanted])?;
        if !backwards && offset + len < index.data_len() {
            table.file.prefetch(offset + len, self.read_bytes.min(index.data_len() - offset - len));
        }
        self.buffered = first..end;
        Ok(())
    }
}

impl<T: std::ops::Deref<Target = Table>> BlockSource for ScannedBlocks<T> {
    fn index(&self) -> &TableIndex {
        &self.table.index
    }

    fn load(&mut self, block: usize) -> Result<()> {
        self.current = 0..0;
        self.is_expanded = false;
        if !self.buffered.contains(&block) {
            self.fill(block)?;
        }
        let table = &*self.table;
        let index = &table.index;
        let offset = index.offset(block);
        let start = (offset - index.offset(self.buffered.start)) as usize;
        let range = start..start + index.stored_len(block) as usize;
        let stored = &self.buffer[range.clone()];
        let checked = match index.raw_len(block) {
            None => check_image(stored, table.number, offset),
            Some(raw_len) if is_unbelievable(raw_len, stored.len()) => {
                // Frees the memory of the previous block.
                self.expanded = Vec::new();
                self.is_expanded = true;
                expand_owned(stored, raw_len, table.number, offset).map(|image| self.expanded = image)
            }
            Some(raw_len) => {
                self.expanded.clear();
                memory::resize(&mut self.expanded, raw_len, 0)?;
                self.is_expanded = true;
                expand(stored, &mut self.expanded, table.number, offset)
            }
        };
        checked.map_err(|error| error.at(table.file.path(), offset))?;
        self.current = range;
        Ok(())
    }

    #[inline]
    fn image(&self) -> &[u8] {
        if self.is_expanded { &self.expanded } else { &self.buffer[self.current.clone()] }
    }
}

crate::cursor::forward_to_cursor!(TableScanner);
