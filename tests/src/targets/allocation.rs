//! What a piece of code allocates: the largest single allocation, and the most that it holds at one time.
//!
//! A program that wants figures makes [`Counting`] its global allocator. Counts are those of one thread and cost a few
//! additions per allocation; without that allocator all figures are zero. Memory that C code or mappings take is not seen.
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with counts.
pub struct Counting;

/// What [`measure`] found, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// The largest single allocation.
    pub largest: usize,
    /// The most that was allocated and not yet freed at one time.
    pub peak: usize,
}

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn grown(bytes: usize, by: isize) {
    // A thread that ends may still free; what has no counters any more is not counted.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
    let _ = HELD.try_with(|held| {
        held.set(held.get() + by);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is handed on to `System` unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size(), layout.size() as isize);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size(), layout.size() as isize);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grown(size, size as isize - layout.size() as isize);
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let _ = HELD.try_with(|held| held.set(held.get() - layout.size() as isize));
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(block, layout) }
    }
}

/// Runs `body` and says what it allocated on this thread.
pub fn measure(body: impl FnOnce()) -> Used {
    let before = HELD.get();
    PEAK.set(before);
    LARGEST.set(0);
    body();
    Used { largest: LARGEST.get(), peak: usize::try_from(PEAK.get() - before).unwrap_or(0) }
}

/// What a target may allocate for an input, at once and in all.
#[derive(Clone, Copy, Debug)]
pub struct Cap {
    /// For an empty input, in bytes.
    pub base: usize,
    /// For each byte of input, in bytes.
    pub factor: usize,
}

impl Cap {
    /// The rule: 64 KiB, and eight times the input.
    pub const DECODER: Cap = Cap { base: 64 << 10, factor: 8 };
    /// Bytes that become a list of structures: the smallest takes three bytes on disk and 144 in memory, and a list
    /// doubles as it grows.
    pub const STRUCTURES: Cap = Cap { base: 64 << 10, factor: 160 };
    /// Blocks that are compressed may announce 64 KiB, or 1024 times their length.
    pub const COMPRESSED: Cap = Cap { base: 256 << 10, factor: 1100 };
    /// A target that writes before it reads has buffers of its own.
    pub const BUILDER: Cap = Cap { base: 4 << 20, factor: 64 };

    /// Panics if more was used for an input of `len` bytes.
    pub fn check(self, name: &str, len: usize, used: Used) {
        let most = self.base + self.factor * len;
        assert!(
            used.largest <= most && used.peak <= most,
            "{name}: {used:?} for an input of {len} bytes, the most is {most}"
        );
    }
}
