//! One anonymous mapping: address space reserved once, touched as the memtable grows, kept for the
//! next one.
use crate::arena::bump::{Bump, UNIT_BYTES};
use memmap2::{MmapMut, MmapOptions};
use sapwood_base::memory;
use sapwood_base::{Error, Result};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Mappings start on a huge page.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Unit of release for mappings without huge pages: whole pages on every known machine.
const SMALL_PAGES_BYTES: usize = 64 << 10;
/// Offsets are 32 bits of eight-byte units. On 32-bit targets a mapping takes at most half of the
/// address space.
const LARGEST_BYTES: usize = match (u32::MAX as usize).checked_mul(UNIT_BYTES) {
    Some(bytes) => bytes,
    None => isize::MAX as usize / UNIT_BYTES * UNIT_BYTES,
};
/// Address space beyond the memtable's size, tried from the left until the system grants one.
const SLACK_BYTES: [usize; 4] = [1 << 30, 256 << 20, 64 << 20, 16 << 20];

/// The mapping with its allocator. Shared by the arena that uses it and the pool that counts it.
pub(super) struct Mapping {
    map: MmapMut,
    base: NonNull<u8>,
    /// Usable bytes from `base` on.
    #[cfg_attr(not(unix), expect(dead_code, reason = "memory is given back on Unix only"))]
    capacity_bytes: usize,
    filter_bytes: usize,
    /// Unit in which memory is released.
    page_bytes: usize,
    pub(super) bump: Bump,
    /// The most bytes from `base` on that were ever touched and not released.
    touched_bytes: AtomicUsize,
}

// SAFETY: `base` points into `map`, which lives as long as `self`; the memory is reached only
// through atomics or through allocations that the bump allocator handed to one owner.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps space for `size_bytes` of entries, their filter and slack.
    pub(super) fn new(size_bytes: usize) -> Result<Mapping> {
        // Sixteen bits for every 96 bytes of entries, in whole cache lines.
        let filter_bytes = (size_bytes / 48).next_multiple_of(64).max(64);
        let wanted = size_bytes.checked_add(filter_bytes).filter(|bytes| *bytes < LARGEST_BYTES);
        let Some(wanted) = wanted else {
            return Err(Error::invalid_argument(format!(
                "a memtable of {size_bytes} bytes is too large; the most is 31 GiB"
            )));
        };
        let mut failure = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        for slack in SLACK_BYTES {
            let Some(bytes) = wanted.checked_add(slack.max(wanted / 8)) else { continue };
            let capacity_bytes = bytes.min(LARGEST_BYTES) / HUGE_PAGE_BYTES * HUGE_PAGE_BYTES;
            let mut options = MmapOptions::new();
            options.len(capacity_bytes + HUGE_PAGE_BYTES).no_reserve_swap();
            match memory::map_with_room(|| options.map_anon()) {
                Ok(map) => return Ok(Mapping::over(map, capacity_bytes, filter_bytes, size_bytes)),
                Err(error) => failure = error,
            }
        }
        Err(Error::system(&format!("map {wanted} bytes for a memtable"), failure))
    }

    fn over(mut map: MmapMut, capacity_bytes: usize, filter_bytes: usize, size_bytes: usize) -> Mapping {
        let start = map.as_mut_ptr();
        let skip = start.align_offset(HUGE_PAGE_BYTES);
        // SAFETY: the mapping is one huge page longer than `capacity_bytes`, so `skip` stays inside
        // it.
        let base = unsafe { NonNull::new_unchecked(start.add(skip)) };
        // For a small memtable a huge page would waste up to two mebibytes. Advice may be refused;
        // it only costs speed.
        let is_huge = size_bytes >= HUGE_PAGE_BYTES / 2;
        #[cfg(target_os = "linux")]
        if is_huge {
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let units = |bytes: usize| (bytes / UNIT_BYTES) as u64;
        let chunk_bytes = (size_bytes / 256).clamp(4 << 10, 32 << 10).next_multiple_of(64);
        // Computed once: the answer is read from system files.
        static LANES: OnceLock<usize> = OnceLock::new();
        let lanes = *LANES.get_or_init(|| {
            std::thread::available_parallelism().map_or(8, usize::from).clamp(2, 64).next_power_of_two()
        });
        let bump = Bump::new(units(filter_bytes), units(capacity_bytes), units(chunk_bytes) as u32, lanes);
        Mapping {
            map,
            base,
            capacity_bytes,
            filter_bytes,
            page_bytes: if is_huge { HUGE_PAGE_BYTES } else { SMALL_PAGES_BYTES },
            bump,
            touched_bytes: AtomicUsize::new(filter_bytes),
        }
    }

    /// The first usable byte, aligned to a huge page.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The words of the filter, at the very start.
    #[inline]
    pub(super) fn filter_words(&self) -> &[AtomicU64] {
        // SAFETY: the first `filter_bytes` are inside the mapping, aligned, initialised (by the
        // system or by their last user), never handed out by `bump`, and only ever reached as
        // atomics.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.filter_bytes / 8) }
    }

    /// Address space taken, in bytes.
    pub(super) fn reserved_bytes(&self) -> usize {
        self.map.len()
    }

    /// Memory that was touched and not released, in bytes.
    pub(super) fn resident_bytes(&self) -> usize {
        let in_use = self.bump.high_water() as usize * UNIT_BYTES;
        self.touched_bytes.load(Ordering::Relaxed).max(in_use)
    }

    /// Touches the first `bytes`, so that no writer takes a page fault. Does nothing where the
    /// system lacks support.
    pub(super) fn populate(&self, bytes: usize) {
        #[cfg(target_os = "linux")]
        {
            let bytes = bytes.min(self.capacity_bytes);
            let skip = self.base.as_ptr() as usize - self.map.as_ptr() as usize;
            if self.map.advise_range(memmap2::Advice::PopulateWrite, skip, bytes).is_ok() {
                self.touched_bytes.fetch_max(bytes, Ordering::Relaxed);
            }
        }
        let _ = bytes;
    }

    /// Prepares the mapping for its next user, and releases memory touched beyond `keep_bytes`.
    ///
    /// REQUIRES: no allocation is in use.
    pub(super) fn recycle(&self, keep_bytes: usize) {
        for word in self.filter_words() {
            // Relaxed: the next user gets the mapping through the pool's mutex.
            word.store(0, Ordering::Relaxed);
        }
        let touched = self.resident_bytes();
        let keep = (self.filter_bytes + keep_bytes).next_multiple_of(self.page_bytes);
        self.bump.reset();
        let kept = if touched > keep && self.give_back(keep, touched) { keep } else { touched };
        self.touched_bytes.store(kept, Ordering::Relaxed);
    }

    /// Returns the pages of `from..to` to the system.
    fn give_back(&self, from: usize, to: usize) -> bool {
        #[cfg(unix)]
        {
            let skip = self.base.as_ptr() as usize - self.map.as_ptr() as usize;
            let to = to.next_multiple_of(self.page_bytes).min(self.capacity_bytes);
            // SAFETY: the range lies inside the mapping and after the filter, and by the contract
            // of `recycle` no reference into it exists; the pages read as zeros afterwards, which
            // is as valid as old bytes.
            unsafe {
                self.map
                    .unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, skip + from, to - from)
                    .is_ok()
            }
        }
        #[cfg(not(unix))]
        {
            let _ = (from, to);
            false
        }
    }
}
