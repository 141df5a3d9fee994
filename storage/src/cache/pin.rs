//! The pins of one frame: references to its bytes beyond the epoch in which they were found.
//!
//! Pins are taken under an epoch guard, or by copying a pin. When a frame has left its slot and
//! every guard that could have seen it there is gone, it is *retired*: from then on the number of
//! pins only decreases, and exactly one party learns that it must free the frame: the one that
//! retires it, or the last one to unpin.
use crate::planted;
use crate::sync::{AtomicU32, Ordering};

const RETIRED: u32 = 1 << 31;
/// Only a program that leaks pins in a loop reaches this; beyond it the count could run into the
/// flag.
const MOST_PINS: u32 = 1 << 30;

/// See the module. All zeros is a frame without pins.
#[repr(transparent)]
pub(super) struct PinCount(AtomicU32);

impl PinCount {
    #[cfg(all(test, sapwood_loom))]
    pub(super) fn new() -> PinCount {
        PinCount(AtomicU32::new(0))
    }

    /// Adds a pin. REQUIRES: an epoch guard under which the frame was found in its slot, or another
    /// pin.
    #[inline]
    pub(super) fn pin(&self) {
        // Relaxed: the retiring party comes after the end of our guard (or of the pin that is
        // copied), which orders this.
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        if before & !RETIRED >= MOST_PINS {
            std::process::abort();
        }
    }

    /// Removes a pin. Returns true if the caller must free the frame. After false the caller must
    /// not touch the frame.
    #[inline]
    #[must_use]
    pub(super) fn unpin(&self) -> bool {
        // Release: our reads of the bytes happen before the frame's next use. Acquire, in the one
        // case in which we free it: so do the reads of threads that unpinned earlier.
        self.0.fetch_sub(1, Ordering::AcqRel) == RETIRED | 1
    }

    /// Retires the frame. Returns true if the caller must free it; otherwise the last `unpin`
    /// returns true to its caller.
    #[must_use]
    pub(super) fn retire(&self) -> bool {
        // AcqRel: pairs with the Release of `unpin`, as there.
        planted::is_unpinned(self.0.fetch_or(RETIRED, Ordering::AcqRel))
    }

    /// Whether a pin exists: a hint, unless no thread can add one.
    pub(super) fn is_pinned(&self) -> bool {
        // Acquire pairs with the Release of `unpin`, for callers that exclude new pins.
        self.0.load(Ordering::Acquire) & !RETIRED != 0
    }

    /// Prepares a freed frame for its next use. REQUIRES: the caller is the party that must free
    /// it.
    pub(super) fn reset(&self) {
        // Relaxed: the keeper's lock hands the frame to its next user.
        self.0.store(0, Ordering::Relaxed);
    }
}
