//! The cursor over the entries of a table, independent of the source of its blocks.
//!
//! Both iterators of a table are this cursor over a [`BlockSource`], one cached and one scanning.
//! The cursor holds one block at a time. A step within a block moves a slot and copies one key
//! suffix; values are never copied.
//!
//! Invariant: while valid, `slot < layout.count()`, `layout` is that of the source's image, and
//! `key` is the key of the slot.
use crate::index::TableIndex;
use crate::planted;
use crate::vector::prefetch;
use sapwood_base::format::block::BlockLayout;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::{Result, SequenceNumber, ValueKind};

/// Provides the blocks of one table, one at a time.
pub(crate) trait BlockSource {
    /// The table's index.
    fn index(&self) -> &TableIndex;
    /// Makes `block` the current one. On error there is no current block.
    fn load(&mut self, block: usize) -> Result<()>;
    /// The checked image of the current block; empty if there is none.
    fn image(&self) -> &[u8];
}

pub(crate) struct Cursor<S> {
    source: S,
    layout: Option<BlockLayout>,
    block: usize,
    slot: usize,
    count: usize,
    /// The first `key_len` bytes are the user key; the rest is spare room. The first `lcp_len`
    /// bytes do not change within a block.
    key: Vec<u8>,
    key_len: usize,
    lcp_len: usize,
}

/// Suffixes up to this length are copied as this many bytes, which takes two instructions instead
/// of a call.
const SHORT_SUFFIX_BYTES: usize = 16;

impl<S: BlockSource> Cursor<S> {
    pub(crate) fn new(source: S) -> Cursor<S> {
        Cursor { source, layout: None, block: 0, slot: 0, count: 0, key: Vec::new(), key_len: 0, lcp_len: 0 }
    }

    /// Makes `block` the current one, if it is not yet. The cursor is not valid until a slot is
    /// taken.
    fn load(&mut self, block: usize) -> Result<()> {
        if self.layout.is_some() && self.block == block {
            return Ok(());
        }
        self.layout = None;
        self.count = 0;
        self.slot = 0;
        self.source.load(block)?;
        let image = self.source.image();
        let layout = BlockLayout::of_validated(image);
        let lcp = layout.lcp(image);
        self.key.clear();
        self.key.reserve(lcp.len() + SHORT_SUFFIX_BYTES);
        self.key.extend_from_slice(lcp);
        self.key.extend_from_slice(&[0; SHORT_SUFFIX_BYTES]);
        self.lcp_len = lcp.len();
        self.block = block;
        self.count = layout.count();
        self.layout = Some(layout);
        Ok(())
    }

    #[inline(always)]
    fn take_slot(&mut self, slot: usize) {
        let Some(layout) = &self.layout else { return };
        self.slot = slot;
        let image = self.source.image();
        let (start, end) = layout.suffix_range(image, slot);
        self.key_len = self.lcp_len + (end - start);
        if end - start <= SHORT_SUFFIX_BYTES
            && let Some(suffix) = image[start..].first_chunk::<SHORT_SUFFIX_BYTES>()
            && let Some(room) = self.key[self.lcp_len..].first_chunk_mut()
        {
            *room = *suffix;
            return;
        }
        self.take_long_suffix(start, end);
    }

    #[inline(never)]
    fn take_long_suffix(&mut self, start: usize, end: usize) {
        if self.key.len() < self.key_len {
            self.key.resize(self.key_len, 0);
        }
        self.key[self.lcp_len..self.key_len].copy_from_slice(&self.source.image()[start..end]);
    }

    /// Prefetches the columns of the slot that are read after its key.
    #[inline]
    fn prefetch_value(&self) {
        let image = self.source.image();
        let layout = self.layout();
        for at in [layout.sequence_offset(self.slot), layout.value_range(image, self.slot).0] {
            if let Some(byte) = image.get(at) {
                prefetch(byte);
            }
        }
    }

    /// Whether the neighbours `slot` and `slot + 1` may have the same key. Different tags rule it
    /// out.
    #[inline]
    fn may_be_equal(&self, slot: usize) -> bool {
        let image = self.source.image();
        let layout = self.layout();
        layout.tag(image, slot) == layout.tag(image, slot + 1)
    }

    fn leave(&mut self) {
        self.slot = self.count;
    }

    #[inline(always)]
    fn layout(&self) -> &BlockLayout {
        self.layout.as_ref().expect("the iterator is valid")
    }

    /// Moves to the first entry of the next block.
    #[cold]
    fn next_block(&mut self) -> Result<()> {
        let blocks = self.source.index().block_count();
        if self.block + 1 < blocks {
            planted::load_next(self.block + 1..blocks, |block| self.load(block))?;
            self.take_slot(0);
        } else {
            self.leave();
        }
        Ok(())
    }

    #[cold]
    fn previous_block(&mut self) -> Result<()> {
        if self.block > 0 {
            self.load(self.block - 1)?;
            self.take_slot(self.count - 1);
        } else {
            self.leave();
        }
        Ok(())
    }

    /// Loads the block for `target` and returns the slot of the first entry not below it, which may
    /// be one past the last slot.
    fn locate(&mut self, target: &[u8]) -> Result<Option<usize>> {
        if self.source.index().block_count() == 0 {
            return Ok(None);
        }
        let block = self.source.index().find(target);
        self.leave();
        self.load(block)?;
        Ok(Some(self.layout().lower_bound(self.source.image(), target)))
    }
}

impl<S: BlockSource> InternalIterator for Cursor<S> {
    #[inline(always)]
    fn valid(&self) -> bool {
        self.slot < self.count
    }

    fn seek_to_first(&mut self) -> Result<()> {
        if self.source.index().block_count() == 0 {
            return Ok(());
        }
        self.leave();
        self.load(0)?;
        self.take_slot(0);
        Ok(())
    }

    fn seek_to_last(&mut self) -> Result<()> {
        let count = self.source.index().block_count();
        if count == 0 {
            return Ok(());
        }
        self.leave();
        self.load(count - 1)?;
        self.take_slot(self.count - 1);
        Ok(())
    }

    fn seek(&mut self, target: &[u8]) -> Result<()> {
        match self.locate(target)? {
            None => Ok(()),
            Some(slot) if slot < self.count => {
                self.take_slot(planted::landing_slot(slot, self.count));
                self.prefetch_value();
                Ok(())
            }
            Some(_) => self.next_block(),
        }
    }

    fn seek_before(&mut self, target: &[u8]) -> Result<()> {
        match self.locate(target)? {
            None => Ok(()),
            Some(0) => self.previous_block(),
            Some(slot) => {
                self.take_slot(slot - 1);
                Ok(())
            }
        }
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        debug_assert!(self.valid());
        let slot = self.slot + 1;
        if slot < self.count {
            self.take_slot(slot);
            return Ok(());
        }
        self.next_block()
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        debug_assert!(self.valid());
        if self.slot > 0 {
            self.take_slot(self.slot - 1);
            return Ok(());
        }
        self.previous_block()
    }

    #[inline(always)]
    fn key(&self) -> &[u8] {
        &self.key[..self.key_len]
    }

    #[inline(always)]
    fn sequence(&self) -> SequenceNumber {
        self.layout().sequence(self.source.image(), self.slot)
    }

    #[inline(always)]
    fn kind(&self) -> ValueKind {
        self.layout().kind(self.source.image(), self.slot)
    }

    #[inline(always)]
    fn value(&self) -> &[u8] {
        self.layout().value(self.source.image(), self.slot)
    }

    #[inline(always)]
    fn may_repeat_after(&self) -> bool {
        // Versions of a key may continue in the next block.
        self.slot + 1 >= self.count || self.may_be_equal(self.slot)
    }

    #[inline(always)]
    fn may_repeat_before(&self) -> bool {
        self.slot == 0 || self.may_be_equal(self.slot - 1)
    }

    fn run_ahead(&self, bound: SequenceNumber, limit: Option<&[u8]>) -> usize {
        let (image, layout) = (self.source.image(), self.layout());
        let end = limit.map_or(self.count, |limit| layout.lower_bound(image, limit));
        let ahead = self.slot + 1..end.max(self.slot + 1);
        let shows_all = layout.shows_all(bound);
        ahead
            .take_while(|slot| {
                (shows_all || layout.shows(image, *slot, bound)) && !self.may_be_equal(slot - 1)
            })
            .count()
    }

    fn run_behind(&self, bound: SequenceNumber, limit: Option<&[u8]>) -> usize {
        let (image, layout) = (self.source.image(), self.layout());
        // The first slot may hold another version of the last key of the previous block. The slot
        // at the limit may hold another version of its own key.
        let start = limit.map_or(0, |limit| layout.lower_bound(image, limit)) + 1;
        let behind = start.min(self.slot)..self.slot;
        let shows_all = layout.shows_all(bound);
        behind
            .rev()
            .take_while(|slot| {
                (shows_all || layout.shows(image, *slot, bound)) && !self.may_be_equal(slot - 1)
            })
            .count()
    }

    #[inline(always)]
    fn next_in_run(&mut self) {
        self.take_slot(self.slot + 1);
    }

    #[inline(always)]
    fn prev_in_run(&mut self) {
        self.take_slot(self.slot - 1);
    }
}

/// Makes a public type that wraps a cursor in its field `cursor` an [`InternalIterator`].
macro_rules! forward_to_cursor {
    ($name:ty) => {
        impl InternalIterator for $name {
            #[inline(always)]
            fn valid(&self) -> bool {
                self.cursor.valid()
            }
            fn seek_to_first(&mut self) -> Result<()> {
                self.cursor.seek_to_first()
            }
            fn seek_to_last(&mut self) -> Result<()> {
                self.cursor.seek_to_last()
            }
            fn seek(&mut self, target: &[u8]) -> Result<()> {
                self.cursor.seek(target)
            }
            fn seek_before(&mut self, target: &[u8]) -> Result<()> {
                self.cursor.seek_before(target)
            }
            #[inline]
            fn next(&mut self) -> Result<()> {
                self.cursor.next()
            }
            #[inline]
            fn prev(&mut self) -> Result<()> {
                self.cursor.prev()
            }
            #[inline(always)]
            fn key(&self) -> &[u8] {
                self.cursor.key()
            }
            #[inline(always)]
            fn sequence(&self) -> SequenceNumber {
                self.cursor.sequence()
            }
            #[inline(always)]
            fn kind(&self) -> ValueKind {
                self.cursor.kind()
            }
            #[inline(always)]
            fn value(&self) -> &[u8] {
                self.cursor.value()
            }
            #[inline(always)]
            fn may_repeat_after(&self) -> bool {
                self.cursor.may_repeat_after()
            }
            #[inline(always)]
            fn may_repeat_before(&self) -> bool {
                self.cursor.may_repeat_before()
            }
            fn run_ahead(&self, bound: SequenceNumber, limit: Option<&[u8]>) -> usize {
                self.cursor.run_ahead(bound, limit)
            }
            fn run_behind(&self, bound: SequenceNumber, limit: Option<&[u8]>) -> usize {
                self.cursor.run_behind(bound, limit)
            }
            #[inline(always)]
            fn next_in_run(&mut self) {
                self.cursor.next_in_run();
            }
            #[inline(always)]
            fn prev_in_run(&mut self) {
                self.cursor.prev_in_run();
            }
        }
    };
}
pub(crate) use forward_to_cursor;
