//! What a piece of code allocates: the largest single allocation, and the most that it holds at one time.
//!
//! A program that wants figures makes [`Counting`] its global allocator. Counts are those of one thread and cost a few
//! additions per allocation; without that allocator all figures are zero. Memory that C code or mappings take is not seen.
//!
//! The rule is [`ALLOWED_BASE`] and [`ALLOWED_FACTOR`] times the input, at once and in all. What may come on top is memory
//! for things that were really there: bytes that came out of compression, names in a MANIFEST. Nothing that an input only
//! announces is ever allocated. [`decoding`] holds one call to it, and is for targets that keep models of their own.
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
    static WARMING: Cell<bool> = const { Cell::new(false) };
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

/// Runs `body` and says what it allocated on this thread. Calls may be nested.
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

/// What a decoder may allocate whatever its input, in bytes.
pub const ALLOWED_BASE: usize = 64 << 10;
/// What a decoder may allocate for each byte of input, in bytes.
pub const ALLOWED_FACTOR: usize = 8;

/// Panics if more was used for an input of `len` bytes than the rule allows, and `produced` bytes on top.
pub fn check(name: &str, len: usize, used: Used, produced: usize) {
    let most = ALLOWED_BASE + ALLOWED_FACTOR * len + produced;
    assert!(
        used.largest <= most && used.peak <= most,
        "{name}: {used:?} for an input of {len} bytes, the most is {most}"
    );
}

/// Runs a decoder on an input of `len` bytes and holds it to the rule.
pub fn decoding<T>(name: &str, len: usize, decoder: impl FnOnce() -> T) -> T {
    producing(name, len, || (decoder(), 0))
}

/// [`decoding`] for a decoder that also says how many bytes it may have on top, for what it really met.
pub fn producing<T>(name: &str, len: usize, decoder: impl FnOnce() -> (T, usize)) -> T {
    let mut result = None;
    let used = measure(|| result = Some(decoder()));
    let (result, produced) = result.expect("it was run");
    if !WARMING.get() {
        check(name, len, used, produced);
    }
    result
}

/// Runs `body` for what it makes once per thread (contexts of codecs, surroundings of decoders), which belongs to no
/// input: nothing is held to the rule.
pub fn warming(body: impl FnOnce()) {
    WARMING.set(true);
    body();
    WARMING.set(false);
}
