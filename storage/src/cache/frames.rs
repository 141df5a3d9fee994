//! The memory of the cache: one reservation of address space, cut into slabs, with huge pages where
//! available, and the pin counts beside it.
//!
//! A frame is named by its first unit, so its address is one multiplication away. Reserving costs
//! no memory; a page costs memory once touched, until `decommit` of its slab.
#![allow(unsafe_code)]
use super::pin::PinCount;
use memmap2::{MmapOptions, MmapRaw};
use sapwood_base::memory;
use sapwood_base::{Error, Result};
use std::ptr::NonNull;

/// The granularity of frames: a cache line of the processor, so that frames can begin at any of its
/// sets.
pub(super) const UNIT_BYTES: usize = 64;
/// The granularity in which size classes take memory.
pub(super) const SLAB_BYTES: usize = 256 << 10;
/// Units in one slab.
pub(super) const UNITS_PER_SLAB: usize = SLAB_BYTES / UNIT_BYTES;
/// The shortest frame, so frames differ in `unit / UNITS_PER_PIN`, the index of their pin count.
pub(super) const UNITS_PER_PIN: usize = 8;
/// The size of a huge page on systems where it matters.
const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Slots hold a unit plus one in 32 bits, the largest of which means "loading".
const MOST_SLABS: usize = ((u32::MAX - 2) as usize) / UNITS_PER_SLAB;
/// Address space reserved beyond the initial capacity, so that the cache can grow.
#[cfg(target_pointer_width = "64")]
const ROOM_TO_GROW_BYTES: usize = 64 << 30;
#[cfg(not(target_pointer_width = "64"))]
const ROOM_TO_GROW_BYTES: usize = 0;

/// The start of the frames' memory. A plain address that is copied to where hits need it.
#[derive(Clone, Copy)]
pub(super) struct FrameBase(NonNull<u8>);

// SAFETY: an address without a claim to its content; every use goes through an unsafe method below.
unsafe impl Send for FrameBase {}
// SAFETY: as above.
unsafe impl Sync for FrameBase {}

impl FrameBase {
    /// The bytes of a frame.
    ///
    /// # Safety
    /// `unit` and `len` describe a frame of the reservation that this base belongs to; while `'a`
    /// lasts the reservation lives and no thread writes to the frame.
    #[inline]
    pub(super) unsafe fn bytes<'a>(self, unit: u32, len: usize) -> &'a [u8] {
        // SAFETY: the frame lies inside the reservation, whose pages hold zeros or earlier bytes;
        // unwritten for 'a.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(unit as usize * UNIT_BYTES), len) }
    }

    /// The unit at an address inside a frame's first unit.
    #[inline]
    pub(super) fn unit_of(self, address: *const u8) -> u32 {
        ((address as usize - self.0.as_ptr() as usize) / UNIT_BYTES) as u32
    }

    /// Prefetches the first `bytes` of a frame. Never faults.
    #[inline]
    pub(super) fn prefetch(self, unit: u32, bytes: usize) {
        let start = self.0.as_ptr().wrapping_add(unit as usize * UNIT_BYTES);
        for line in (0..bytes).step_by(LINE_BYTES) {
            prefetch_line(start.wrapping_add(line));
        }
    }
}

const LINE_BYTES: usize = 64;

/// Prefetches the cache line at `address`, which need not be valid.
#[inline]
pub(super) fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is defined: it never faults and changes nothing but caches.
    // SSE is part of the x86-64 baseline.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// See the module.
pub(super) struct Frames {
    map: MmapRaw,
    /// Keeps the pin counts mapped; they are reached through `pins`.
    _pin_map: MmapRaw,
    base: FrameBase,
    pins: NonNull<PinCount>,
    slabs: usize,
}

// SAFETY: the pointer leads to atomics that live as long as `_pin_map`; everything else is Send and
// Sync.
unsafe impl Send for Frames {}
// SAFETY: as above.
unsafe impl Sync for Frames {}

impl Frames {
    /// Reserves room for at least `capacity_bytes`, and for more where address space is free of
    /// charge.
    pub(super) fn reserve(capacity_bytes: usize) -> Result<Frames> {
        // The pin counts of a loom build are not plain integers; its cache caches nothing.
        let wanted =
            if cfg!(sapwood_loom) { 0 } else { capacity_bytes.div_ceil(SLAB_BYTES).clamp(1, MOST_SLABS) };
        let roomy = (wanted + ROOM_TO_GROW_BYTES / SLAB_BYTES).min(MOST_SLABS);
        let reserve = |slabs| memory::map_with_room(|| Frames::reserve_slabs(slabs));
        match reserve(roomy) {
            // An external limit may apply to address space.
            Err(_) if roomy > wanted => reserve(wanted),
            result => result,
        }
        .map_err(|error| Error::system(&format!("reserve {capacity_bytes} bytes for the cache"), error))
        .inspect(|frames| frames.advise_huge_pages(capacity_bytes))
    }

    /// Requests huge pages if a cache of this capacity fills one. A smaller cache would pay for a
    /// whole one, and for clearing it, at its first block.
    pub(super) fn advise_huge_pages(&self, capacity_bytes: usize) {
        #[cfg(target_os = "linux")]
        if capacity_bytes >= HUGE_PAGE_BYTES {
            // Advisory: without huge pages the cache works, with more TLB misses.
            let _ = self.map.advise(memmap2::Advice::HugePage);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = capacity_bytes;
    }

    fn reserve_slabs(slabs: usize) -> std::io::Result<Frames> {
        let too_large = || std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        let data_bytes = slabs.checked_mul(SLAB_BYTES).ok_or_else(too_large)?;
        // Space for alignment to a huge page.
        let map_bytes = data_bytes.checked_add(HUGE_PAGE_BYTES).ok_or_else(too_large)?;
        let map = MmapRaw::from(MmapOptions::new().len(map_bytes).no_reserve_swap().map_anon()?);
        let pin_bytes = (slabs * (UNITS_PER_SLAB / UNITS_PER_PIN) * size_of::<PinCount>()).max(1);
        let pin_map = MmapRaw::from(MmapOptions::new().len(pin_bytes).no_reserve_swap().map_anon()?);
        let skip = map.as_ptr().align_offset(HUGE_PAGE_BYTES);
        let base =
            NonNull::new(map.as_mut_ptr().wrapping_add(skip)).expect("a mapping is not at address zero");
        let pins = NonNull::new(pin_map.as_mut_ptr().cast()).expect("a mapping is not at address zero");
        Ok(Frames { map, _pin_map: pin_map, base: FrameBase(base), pins, slabs })
    }

    /// Capacity in slabs.
    pub(super) fn slabs(&self) -> usize {
        self.slabs
    }

    #[inline]
    pub(super) fn base(&self) -> FrameBase {
        self.base
    }

    /// The pin count of the frame that begins at `unit`.
    #[inline]
    pub(super) fn pins(&self, unit: u32) -> &PinCount {
        assert!((unit as usize) < self.slabs * UNITS_PER_SLAB, "unit {unit} is outside the cache");
        // SAFETY: inside the pin map (checked), which holds zeros or values stored by atomics; a
        // PinCount is transparent over a 32-bit atomic, for which every bit pattern is valid. A
        // loom build has no slabs.
        unsafe { self.pins.add(unit as usize / UNITS_PER_PIN).as_ref() }
    }

    /// A frame's bytes, for its loader.
    ///
    /// # Safety
    /// The caller is the only one that knows the frame while the slice lives, and `len` is within
    /// the frame.
    #[allow(clippy::mut_from_ref, reason = "frames are disjoint memory; the caller owns this one")]
    pub(super) unsafe fn bytes_mut(&self, unit: u32, len: usize) -> &mut [u8] {
        assert!(unit as usize * UNIT_BYTES + len <= self.slabs * SLAB_BYTES, "a frame is inside the cache");
        // SAFETY: inside the mapping (checked), initialised by it, and exclusive (the caller's
        // promise).
        unsafe { std::slice::from_raw_parts_mut(self.base.0.as_ptr().add(unit as usize * UNIT_BYTES), len) }
    }

    /// Returns the memory of a slab without frames to the system; its next use finds zeros or its
    /// old bytes.
    pub(super) fn decommit(&self, slab: usize) {
        assert!(slab < self.slabs, "slab {slab} is outside the cache");
        #[cfg(target_os = "linux")]
        {
            let offset = self.base.0.as_ptr() as usize - self.map.as_ptr() as usize + slab * SLAB_BYTES;
            // SAFETY: no frame of the slab is in use, so no reference to its bytes exists. A
            // failure leaves them.
            let _ = unsafe {
                self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, SLAB_BYTES)
            };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = &self.map;
    }
}
