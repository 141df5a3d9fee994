//! Allocations of a piece of code: the largest single allocation, and the peak.
//!
//! A program that needs the figures makes [`Counting`] its global allocator. Counts are per thread
//! and cost a few additions per allocation; without that allocator all figures are zero. Memory of
//! C code and of mappings is not counted.
//!
//! The rule is [`ALLOWED_BASE`] plus [`ALLOWED_FACTOR`] times the input, for a single allocation
//! and for the peak. Additional memory is allowed only for data that is really there: decompressed
//! bytes, names in a MANIFEST. A length that an input only announces never justifies an allocation.
//! [`decoding`] checks one call, for targets that keep models of their own.
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, with counts.
pub struct Counting;

/// The result of [`measure`], in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// The largest single allocation.
    pub largest: usize,
    /// The largest total of live allocations.
    pub peak: usize,
}

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static HELD: Cell<isize> = const { Cell::new(0) };
    static WARMING: Cell<bool> = const { Cell::new(false) };
}

fn grown(bytes: usize, by: isize) {
    // A thread that ends may still free memory; without counters it is not counted.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
    let _ = HELD.try_with(|held| {
        held.set(held.get() + by);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is forwarded to `System` unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size(), layout.size() as isize);
        // SAFETY: the caller's obligations are those of `System`.
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

/// Runs `body` and returns its allocations on this thread. Calls may be nested.
pub fn measure(body: impl FnOnce()) -> Used {
    let (before, outer_peak, outer_largest) = (HELD.get(), PEAK.get(), LARGEST.get());
    PEAK.set(before);
    LARGEST.set(0);
    body();
    let used = Used { largest: LARGEST.get(), peak: usize::try_from(PEAK.get() - before).unwrap_or(0) };
    PEAK.set(PEAK.get().max(outer_peak));
    LARGEST.set(LARGEST.get().max(outer_largest));
    used
}

/// The allocation that a decoder is allowed for any input, in bytes.
pub const ALLOWED_BASE: usize = 64 << 10;
/// The additional allocation per byte of input, in bytes.
pub const ALLOWED_FACTOR: usize = 8;

/// Panics if the use exceeds the rule for an input of `len` bytes, plus `produced` bytes.
pub fn check(name: &str, len: usize, used: Used, produced: usize) {
    let most = ALLOWED_BASE + ALLOWED_FACTOR * len + produced;
    assert!(
        used.largest <= most && used.peak <= most,
        "{name}: {used:?} for an input of {len} bytes, at most {most} are allowed"
    );
}

/// Runs a decoder on an input of `len` bytes and checks the rule.
pub fn decoding<T>(name: &str, len: usize, decoder: impl FnOnce() -> T) -> T {
    producing(name, len, || (decoder(), 0))
}

/// [`decoding`] for a decoder that also returns its allowance for data that is really there, in
/// bytes.
pub fn producing<T>(name: &str, len: usize, decoder: impl FnOnce() -> (T, usize)) -> T {
    let mut result = None;
    let used = measure(|| result = Some(decoder()));
    let (result, produced) = result.expect("it was run");
    if !WARMING.get() {
        check(name, len, used, produced);
    }
    result
}

/// Runs `body` for its allocations once per thread (contexts of codecs, environments of decoders),
/// which belong to no input: the rule is not checked.
pub fn warming(body: impl FnOnce()) {
    WARMING.set(true);
    body();
    WARMING.set(false);
}
