//! The result of a lookup: a block borrowed under an epoch guard, or pinned beyond it.
#![allow(unsafe_code)]
use super::Shared;
use super::frames::{FrameBase, prefetch_line};
use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// The bytes of a block, valid as long as its epoch guard and slot table.
#[derive(Clone)]
pub enum BlockRef<'g> {
    /// A frame of the cache. The guard prevents its reuse.
    Cached(CachedBlock<'g>),
    /// A block outside the cache: too long, excluded by the policy, or loaded when there was no
    /// room.
    Owned(Arc<[u8]>),
}

/// A frame of the cache, borrowed under an epoch guard.
#[derive(Clone, Copy)]
pub struct CachedBlock<'g> {
    bytes: &'g [u8],
    cache: &'g Arc<Shared>,
}

impl<'g> CachedBlock<'g> {
    /// REQUIRES: `bytes` is a frame of `cache` from its first byte on, found in a slot under a
    /// guard that lives throughout `'g`.
    #[inline]
    pub(super) fn new(bytes: &'g [u8], cache: &'g Arc<Shared>) -> CachedBlock<'g> {
        CachedBlock { bytes, cache }
    }
}

impl BlockRef<'_> {
    /// Keeps the block beyond the guard. One atomic addition, or a copy of the reference count of
    /// an owned block.
    #[inline]
    pub fn pin(&self) -> PinnedBlock {
        match self {
            BlockRef::Cached(block) => {
                let base: FrameBase = block.cache.frames.base();
                let unit = base.unit_of(block.bytes.as_ptr());
                block.cache.frames.pins(unit).pin();
                PinnedBlock(Pinned::Frame(FramePin {
                    bytes: NonNull::from(block.bytes),
                    cache: NonNull::from(&**block.cache),
                }))
            }
            BlockRef::Owned(bytes) => PinnedBlock(Pinned::Owned(Arc::clone(bytes))),
        }
    }

    /// Prefetches the cache line of the byte at `offset`. Any `offset` is allowed.
    #[inline]
    pub fn prefetch(&self, offset: usize) {
        prefetch_line(self.as_ptr().wrapping_add(offset));
    }

    /// Whether the bytes are a frame of the cache.
    pub fn is_cached(&self) -> bool {
        matches!(self, BlockRef::Cached(_))
    }
}

impl Deref for BlockRef<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            BlockRef::Cached(block) => block.bytes,
            BlockRef::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for BlockRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockRef").field("len", &self.len()).field("cached", &self.is_cached()).finish()
    }
}

/// The bytes of a block, valid as long as this lives: beyond guards, tables, and the cache's own
/// handle. A pinned frame is not evicted, so keep pins short or few.
#[derive(Clone)]
pub struct PinnedBlock(Pinned);

#[derive(Clone)]
enum Pinned {
    Frame(FramePin),
    Owned(Arc<[u8]>),
}

struct FramePin {
    bytes: NonNull<[u8]>,
    /// Alive because a pinned frame is in a slot (the table keeps the cache), in limbo (the cache
    /// is alive: when it goes it retires all frames in limbo) or retired (the retiring party left
    /// one strong count for the last pin to drop).
    cache: NonNull<Shared>,
}

// SAFETY: the bytes are immutable while pinned, and the cache is Send and Sync.
unsafe impl Send for FramePin {}
// SAFETY: as above.
unsafe impl Sync for FramePin {}

impl FramePin {
    fn cache(&self) -> &Shared {
        // SAFETY: alive while the pin is, see the field; only shared references to it exist.
        unsafe { self.cache.as_ref() }
    }

    fn unit(&self) -> u32 {
        self.cache().frames.base().unit_of(self.bytes.as_ptr().cast())
    }
}

impl Clone for FramePin {
    fn clone(&self) -> FramePin {
        self.cache().frames.pins(self.unit()).pin();
        FramePin { bytes: self.bytes, cache: self.cache }
    }
}

impl Drop for FramePin {
    fn drop(&mut self) {
        let unit = self.unit();
        if self.cache().frames.pins(unit).unpin() {
            // SAFETY: `unpin` reported that the frame was retired while pinned and that this is the
            // last pin. The retiring party left the strong count that this takes; `cache` came from
            // such an Arc.
            let cache = unsafe { Arc::from_raw(self.cache.as_ptr().cast_const()) };
            cache.free(unit);
        }
        // Otherwise the cache may already be gone.
    }
}

impl Deref for PinnedBlock {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            // SAFETY: the frame is neither freed nor written while the pin lives.
            Pinned::Frame(frame) => unsafe { frame.bytes.as_ref() },
            Pinned::Owned(bytes) => bytes,
        }
    }
}

impl fmt::Debug for PinnedBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinnedBlock").field("len", &self.len()).finish()
    }
}
