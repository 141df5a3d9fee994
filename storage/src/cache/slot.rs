//! One translation slot: whether a block is in memory, where, how long, and how often it was asked for.
//!
//! The word goes `absent -> loading -> frame -> absent`, or from `loading` back to `absent` when the load fails. Only
//! the thread that won `absent -> loading` leaves `loading`; only a holder of the keeper's lock leaves `frame`.
//! Eight bytes hold all that a hit needs, so a hit touches one line before the block itself.
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, Ordering};

const ABSENT: u32 = 0;
const LOADING: u32 = u32::MAX;
/// The usage of a block that a scan brought in: hits do not raise it, the keeper reads it as "never used".
const USED_BY_SCAN: u8 = 0x80;
/// Where the count of uses stops.
pub(super) const MOST_USES: u8 = 3;

/// See the module.
pub(super) struct Slot {
    /// `ABSENT`, `LOADING`, or the frame's first unit plus one.
    word: AtomicU32,
    /// The index of the block's last byte: lengths go from 1 to 65536. Written by loaders, always to the same value.
    last_byte: AtomicU16,
    /// Uses since the keeper looked last, at most `MOST_USES`; or `USED_BY_SCAN`.
    uses: AtomicU8,
    /// 1 once `last_byte` is known.
    length_known: AtomicU8,
}

/// What [`Slot::begin_load`] met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// The caller loads and must call `publish` or `abort`.
    Won,
    /// Another thread loads.
    Loading,
    /// The block is there.
    Present,
}

impl Slot {
    pub(super) fn new() -> Slot {
        Slot {
            word: AtomicU32::new(ABSENT),
            last_byte: AtomicU16::new(0),
            uses: AtomicU8::new(0),
            length_known: AtomicU8::new(0),
        }
    }

    /// The frame's first unit and the block's length, if the block is there.
    #[inline]
    pub(super) fn frame(&self) -> Option<(u32, usize)> {
        // Acquire pairs with the Release store of `publish`: the block's bytes and its length are seen.
        let word = self.word.load(Ordering::Acquire);
        // Both states without a frame are at the ends of the range, next to each other when one is added.
        if word.wrapping_add(1) <= 1 {
            return None;
        }
        // Relaxed: ordered by the load above; a later load of the same block stores the same value.
        Some((word - 1, usize::from(self.last_byte.load(Ordering::Relaxed)) + 1))
    }

    /// Notes a use. A plain load, and a plain store only while the count grows: two threads may lose one.
    #[inline]
    pub(super) fn touch(&self) {
        // Relaxed: a hint for the keeper that orders nothing.
        let uses = self.uses.load(Ordering::Relaxed);
        if uses < MOST_USES {
            self.uses.store(uses + 1, Ordering::Relaxed);
        }
    }

    /// The uses since the keeper looked last.
    pub(super) fn uses(&self) -> u8 {
        match self.uses.load(Ordering::Relaxed) {
            USED_BY_SCAN => 0,
            uses => uses,
        }
    }

    /// Sets the count of uses. Relaxed, as in `touch`.
    pub(super) fn set_uses(&self, uses: u8) {
        self.uses.store(uses, Ordering::Relaxed);
    }

    /// Tries to become the one thread that loads the block.
    pub(super) fn begin_load(&self) -> Begin {
        // Acquire pairs with the Release of `clear` and `abort`: what an earlier loader knew about the length is
        // seen. A failure needs no order, for then `frame` is read anew.
        match self.word.compare_exchange(ABSENT, LOADING, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Begin::Won,
            Err(LOADING) => Begin::Loading,
            Err(_) => Begin::Present,
        }
    }

    /// Whether a thread is loading the block.
    pub(super) fn is_loading(&self) -> bool {
        // Acquire for symmetry with `frame`, which the waiter calls next.
        self.word.load(Ordering::Acquire) == LOADING
    }

    /// Makes a loaded block visible. REQUIRES: the caller won `begin_load`, and `1 <= len <= 65536`.
    ///
    /// # Panics
    /// If the block had another length before: a reader may hold the old frame and read the new length.
    pub(super) fn publish(&self, unit: u32, len: usize, by_scan: bool) {
        let last_byte = u16::try_from(len - 1).expect("a cached block has at most 65536 bytes");
        // Relaxed: the chain of `begin_load` and `clear` orders the loaders among themselves.
        if self.length_known.load(Ordering::Relaxed) == 0 {
            self.last_byte.store(last_byte, Ordering::Relaxed);
            self.length_known.store(1, Ordering::Relaxed);
        } else {
            let before = self.last_byte.load(Ordering::Relaxed);
            assert_eq!(before, last_byte, "the length of a block never changes");
        }
        self.uses.store(if by_scan { USED_BY_SCAN } else { 0 }, Ordering::Relaxed);
        // Release pairs with the Acquire load of `frame`.
        self.word.store(unit + 1, Ordering::Release);
    }

    /// Gives up a load. REQUIRES: the caller won `begin_load`.
    pub(super) fn abort(&self) {
        // Release pairs with the Acquire of the next `begin_load`.
        self.word.store(ABSENT, Ordering::Release);
    }

    /// Takes the block out. REQUIRES: the block is there and the caller holds the keeper's lock. Readers that run
    /// may still use the frame.
    pub(super) fn clear(&self) {
        // Release pairs with the Acquire of the next `begin_load`.
        self.word.store(ABSENT, Ordering::Release);
    }
}
