//! The translation slots of one file: from a block's index to its bytes, and the loading of absent
//! blocks.
#![allow(unsafe_code)]
use super::block::{BlockRef, CachedBlock};
use super::frames::{FrameBase, prefetch_line};
use super::slabs::MAX_FRAME_BYTES;
use super::slot::{Begin, Slot};
use super::{BufferCache, Fill, Shared};
use crate::planted;
use crossbeam_epoch::Guard;
use sapwood_base::Result;
use sapwood_base::memory;
use std::fmt;
use std::sync::Arc;

/// The translation slots of one file, eight bytes per block.
///
/// The file's reader owns it. Dropping it removes the file's blocks from the cache; pinned ones
/// leave with their last pin. The length of the block at an index must be the same whenever it is
/// loaded.
///
/// Every `guard` must come from [`crossbeam_epoch::pin`]: frames are reclaimed through that
/// collector.
pub struct SlotTable {
    slots: Arc<[Slot]>,
    base: FrameBase,
    cache: Arc<BufferCache>,
    /// The cache's own, with one indirection less.
    shared: Arc<Shared>,
    /// Distinguishes the tables of a cache.
    number: u32,
}

impl SlotTable {
    pub(super) fn new(cache: Arc<BufferCache>, count: usize, number: u32) -> SlotTable {
        assert!(u32::try_from(count).is_ok(), "a slot table has less than 2^32 slots");
        let shared = Arc::clone(&cache.shared);
        let slots = planted::own_slots(&shared, (0..count).map(|_| Slot::new()).collect());
        SlotTable { slots, base: shared.frames.base(), cache, shared, number }
    }

    /// The number of slots.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are no slots.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The cache of the blocks.
    pub fn cache(&self) -> &Arc<BufferCache> {
        &self.cache
    }

    /// Returns the block at `index` if it is in memory: two loads, an addition, and a store while
    /// the block is new.
    ///
    /// # Panics
    /// If `index` is not below `len()`.
    #[inline]
    pub fn get<'g>(&'g self, index: usize, guard: &'g Guard) -> Option<BlockRef<'g>> {
        debug_assert!(
            guard.collector().is_some_and(|collector| collector == crossbeam_epoch::default_collector()),
            "frames are reclaimed through the default collector"
        );
        let slot = &self.slots[index];
        let (unit, len) = slot.frame()?;
        slot.touch();
        self.cache.hits.add_one();
        Some(self.frame_block(unit, len, guard))
    }

    /// [`SlotTable::get`] without counting a use: does not extend the block's stay in the cache,
    /// and updates no statistics.
    #[inline]
    fn peek<'g>(&'g self, index: usize, guard: &'g Guard) -> Option<BlockRef<'g>> {
        let (unit, len) = self.slots[index].frame()?;
        Some(self.frame_block(unit, len, guard))
    }

    /// REQUIRES: a slot of this table held the frame, with this length, after `guard` was pinned.
    #[inline(always)]
    fn frame_block<'g>(&'g self, unit: u32, len: usize, _guard: &'g Guard) -> BlockRef<'g> {
        // SAFETY: the slot held this frame after `guard` was pinned, with this length, which never
        // changes for a slot. A frame that left its slot is reused only after all guards of that
        // time are gone, and `'g` ends before `guard`. The table, and so the cache, lives
        // throughout `'g`.
        let bytes = unsafe { self.base.bytes(unit, len) };
        BlockRef::Cached(CachedBlock::new(bytes, &self.shared))
    }

    /// Returns the block at `index`; if it is not in memory, `load` fills a buffer of `len` bytes
    /// and checks it.
    ///
    /// If several threads miss the same block, one loads and the others wait. If its `load` fails,
    /// it returns the error, nothing is cached, and the next thread tries. With [`Fill::None`], for
    /// a block longer than 4 MiB, or when there is no room, every thread loads for itself. `load`
    /// must not request the same block.
    ///
    /// # Panics
    /// If `index` is not below `len()`, or if the block had another length before.
    #[inline]
    pub fn get_or_load<'g>(
        &'g self,
        index: usize,
        len: usize,
        fill: Fill,
        guard: &'g Guard,
        load: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<BlockRef<'g>> {
        let there = if fill == Fill::None { self.peek(index, guard) } else { self.get(index, guard) };
        match there {
            Some(block) => Ok(block),
            None => self.load(index, len, fill, guard, load),
        }
    }

    #[cold]
    fn load<'g>(
        &'g self,
        index: usize,
        len: usize,
        fill: Fill,
        guard: &'g Guard,
        load: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<BlockRef<'g>> {
        if fill == Fill::None {
            return load_owned(len, load);
        }
        if !self.can_keep(len) {
            return self.load_unkept(len, load);
        }
        let slot = &self.slots[index];
        loop {
            match slot.begin_load() {
                Begin::Won => break,
                Begin::Loading => self.shared.wait_while_loading(slot, index),
                Begin::Present => {
                    if let Some(block) = self.get(index, guard) {
                        return Ok(block);
                    }
                }
            }
        }
        let claim = Claim { table: self, index };
        let Some(frame) = FreshFrame::allocate(&self.shared, len, guard) else {
            // The waiting threads would not find the block in the cache afterwards: let them load
            // as well.
            drop(claim);
            return self.load_unkept(len, load);
        };
        // SAFETY: the frame is exclusively ours and at least `len` bytes; the slice ends with the
        // call.
        load(unsafe { self.shared.frames.bytes_mut(frame.unit, len) })?;
        let unit = claim.publish(frame, len, fill, true);
        Ok(self.frame_block(unit, len, guard))
    }

    /// A miss that is not cached.
    #[cold]
    fn load_unkept<'g>(
        &self,
        len: usize,
        load: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<BlockRef<'g>> {
        let block = load_owned(len, load)?;
        self.shared.keeper.lock().counts.misses += 1;
        Ok(block)
    }

    /// Inserts an available block into the cache, as a newcomer. Does nothing if it is present or
    /// there is no room.
    ///
    /// # Panics
    /// If `index` is not below `len()`, or if the block had another length before.
    pub fn insert(&self, index: usize, bytes: &[u8]) {
        let slot = &self.slots[index];
        if !self.can_keep(bytes.len()) || slot.begin_load() != Begin::Won {
            return;
        }
        let claim = Claim { table: self, index };
        if let Some(frame) = FreshFrame::allocate(&self.shared, bytes.len(), &crossbeam_epoch::pin()) {
            // SAFETY: the frame is exclusively ours and at least as long as `bytes`.
            unsafe { self.shared.frames.bytes_mut(frame.unit, bytes.len()) }.copy_from_slice(bytes);
            claim.publish(frame, bytes.len(), Fill::Normal, false);
        }
    }

    /// Removes the block at `index` from the cache, if it is present: for files whose places are
    /// overwritten with other bytes. Readers that found the block before keep it as long as their
    /// guard or pin lives.
    ///
    /// REQUIRES: the old block is no longer requested, so that it is not being loaded now.
    ///
    /// # Panics
    /// If `index` is not below `len()`.
    pub fn remove(&self, index: usize) {
        let slot = &self.slots[index];
        if slot.frame().is_none() {
            return;
        }
        let unit = {
            let mut keeper = self.shared.keeper.lock();
            // Checked again under the lock: only its holders take frames out of their slots.
            let Some((unit, _)) = slot.frame() else { return };
            keeper.unlink(unit);
            unit
        };
        self.shared.retire_later(&[unit], &crossbeam_epoch::pin());
    }

    /// Whether the block at `index` is in memory now. Does not count as a use.
    ///
    /// # Panics
    /// If `index` is not below `len()`.
    #[inline]
    pub fn is_cached(&self, index: usize) -> bool {
        self.slots[index].frame().is_some()
    }

    /// Prefetches the line of a slot, ahead of `get`. Any `index` is allowed.
    #[inline]
    pub fn prefetch(&self, index: usize) {
        prefetch_line(self.slots.as_ptr().wrapping_add(index).cast());
    }

    /// Prefetches the first `bytes` of the block at `index` if it is in memory: the step between
    /// `prefetch` and `get`. Any `index` is allowed.
    #[inline]
    pub fn prefetch_block(&self, index: usize, bytes: usize) {
        if let Some((unit, len)) = self.slots.get(index).and_then(Slot::frame) {
            self.base.prefetch(unit, bytes.min(len));
        }
    }

    /// The memory of the slots in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.slots.len() * size_of::<Slot>()
    }

    fn can_keep(&self, len: usize) -> bool {
        (1..=MAX_FRAME_BYTES).contains(&len) && self.shared.capacity_bytes() > 0
    }
}

impl Drop for SlotTable {
    fn drop(&mut self) {
        // In portions, so that misses of other tables do not wait long.
        for slots in self.slots.chunks(256) {
            let mut pinned = Vec::new();
            let mut superfluous = Vec::new();
            let mut keeper = self.shared.keeper.lock();
            for slot in slots {
                let Some((unit, _)) = slot.frame() else { continue };
                keeper.unlink(unit);
                // Borrows of the table have ended, so no thread reads the frame through its slot,
                // and an unpinned frame stays unpinned.
                if self.shared.frames.pins(unit).is_pinned() {
                    pinned.push(unit);
                } else {
                    superfluous.extend(keeper.free(unit));
                }
            }
            self.shared.decommit(superfluous);
            drop(keeper);
            for unit in pinned {
                self.shared.retire(unit);
            }
        }
    }
}

impl fmt::Debug for SlotTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotTable").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

/// For a longer block a lack of memory is an error.
const SMALL_BYTES: usize = 64 << 10;

fn load_owned<'g>(len: usize, load: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<BlockRef<'g>> {
    if len > SMALL_BYTES {
        memory::check(len)?;
    }
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, len).collect();
    load(Arc::get_mut(&mut bytes).expect("nobody else has it yet"))?;
    Ok(BlockRef::Owned(bytes))
}

/// The right to load one block. Dropped without `publish`, it passes to the next thread.
struct Claim<'a> {
    table: &'a SlotTable,
    index: usize,
}

impl Claim<'_> {
    fn publish(self, frame: FreshFrame<'_>, len: usize, fill: Fill, was_missed: bool) -> u32 {
        let table = self.table;
        let unit = frame.unit;
        {
            let mut keeper = table.shared.keeper.lock();
            keeper.counts.misses += u64::from(was_missed);
            keeper.publish(unit, len, &table.slots, self.index, table.number, fill == Fill::Scan);
        }
        std::mem::forget(frame);
        table.shared.wake(self.index);
        std::mem::forget(self);
        unit
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.table.slots[self.index].abort();
        self.table.shared.wake(self.index);
    }
}

/// A frame on its way into a slot. Freed if dropped before.
struct FreshFrame<'a> {
    cache: &'a Shared,
    unit: u32,
}

impl<'a> FreshFrame<'a> {
    fn allocate(cache: &'a Arc<Shared>, len: usize, guard: &Guard) -> Option<FreshFrame<'a>> {
        let unit = cache.allocate(len, guard)?;
        Some(FreshFrame { cache, unit })
    }
}

impl Drop for FreshFrame<'_> {
    fn drop(&mut self) {
        self.cache.free(self.unit);
    }
}
