//! The arena as its memtable sees it: a mapping in use, and the values that are too large for it.
use crate::arena::bump::UNIT_BYTES;
use crate::arena::mapping::Mapping;
use crate::arena::pool::ArenaPool;
use parking_lot::Mutex;
use sapwood_base::{Error, ErrorKind, Result, memory as buffer};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Values longer than this get their own heap allocation.
pub(crate) const EXTERNAL_VALUE_BYTES: usize = 256 << 10;

/// A heap copy of a value that is too large for an arena: beyond 256 KiB.
#[derive(Debug)]
pub struct LargeValue(Vec<u8>);

impl LargeValue {
    /// Whether a value of `len` bytes is stored outside the arena.
    #[inline]
    pub fn is_one(len: usize) -> bool {
        len > EXTERNAL_VALUE_BYTES
    }

    /// Copies `value`.
    ///
    /// # Errors
    /// `OutOfResources` when memory is exhausted.
    pub fn copy(value: &[u8]) -> Result<LargeValue> {
        buffer::copy(value).map(LargeValue)
    }

    /// The value.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The memory of one memtable. Returns to its [`ArenaPool`] when dropped.
pub struct Arena {
    base: NonNull<u8>,
    mapping: Arc<Mapping>,
    size_bytes: usize,
    external: Mutex<Vec<Vec<u8>>>,
    external_bytes: AtomicUsize,
    pool: Arc<ArenaPool>,
}

// SAFETY: `base` points into `mapping`, which is Send and Sync; see there.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl ArenaPool {
    /// Returns an idle arena, or a new one.
    ///
    /// # Errors
    /// `NoSpace` when the system grants no address space, `InvalidArgument` when the memtable size
    /// is too large.
    pub fn take(self: &Arc<Self>) -> Result<Arena> {
        Ok(Arena::new(self.take_mapping()?, self.options().size_bytes, Arc::clone(self)))
    }
}

impl Arena {
    fn new(mapping: Arc<Mapping>, size_bytes: usize, pool: Arc<ArenaPool>) -> Arena {
        let base = mapping.base();
        let (external, external_bytes) = (Mutex::default(), AtomicUsize::new(0));
        Arena { base, mapping, size_bytes, external, external_bytes, pool }
    }

    /// The size at which a memtable in this arena requests rotation, in bytes.
    #[inline]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Memory handed out, in bytes: chunks of the arena and values outside it.
    #[inline]
    pub fn used_bytes(&self) -> usize {
        self.mapping.bump.used() as usize * UNIT_BYTES + self.external_bytes.load(Ordering::Relaxed)
    }

    /// Memory that can still be handed out, in bytes. Values outside the arena consume none of it.
    pub fn room_bytes(&self) -> usize {
        self.mapping.bump.left() as usize * UNIT_BYTES
    }

    /// The words of the memtable's filter, zero when the arena was taken.
    #[inline]
    pub(crate) fn filter_words(&self) -> &[AtomicU64] {
        self.mapping.filter_words()
    }

    /// Allocates `bytes` aligned to `align` units. The returned offset, in units, is never zero.
    #[inline]
    pub(crate) fn allocate(&self, bytes: usize, align: u32) -> Result<u32> {
        debug_assert!(bytes <= 1 << 30);
        let units = bytes.div_ceil(UNIT_BYTES) as u32;
        self.mapping.bump.allocate(units, align, lane()).ok_or_else(|| self.full(bytes))
    }

    #[cold]
    fn full(&self, bytes: usize) -> Error {
        Error::new(
            ErrorKind::NoSpace,
            format!("the memtable's arena has no room for {bytes} bytes; flush it and go on in the next one"),
        )
    }

    /// The address of `offset`. Valid for the allocation there, as long as the arena lives.
    #[inline]
    pub(crate) fn pointer(&self, offset: u32) -> *mut u8 {
        // SAFETY: offsets come from `allocate` (or name the start), so they lie inside the mapping.
        unsafe { self.base.as_ptr().add(offset as usize * UNIT_BYTES) }
    }

    /// Takes ownership of a heap value. The returned address is valid as long as the arena lives.
    pub(crate) fn store_external(&self, value: LargeValue) -> *const u8 {
        let (address, len) = (value.0.as_ptr(), value.0.len());
        self.external.lock().push(value.0);
        self.external_bytes.fetch_add(len, Ordering::Relaxed);
        address
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.pool.give_back(Arc::clone(&self.mapping));
    }
}

/// Prefetches the cache line at `address`, which need not be valid.
#[inline(always)]
pub(crate) fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The allocation lane of this thread: threads are numbered in order of arrival.
#[inline]
fn lane() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static LANE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    // A destructor of a dying thread may still insert; any lane is correct.
    LANE.try_with(|lane| {
        if lane.get() == usize::MAX {
            lane.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        lane.get()
    })
    .unwrap_or(0)
}
