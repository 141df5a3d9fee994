//! One translation slot: whether a block is in memory, where, how long, and how often it was asked for.
//!
//! The word goes `absent -> loading -> frame -> absent`, or from `loading` back to `absent` when the load fails. Only
//! the thread that won `absent -> loading` leaves `loading`; only a holder of the keeper's lock leaves `frame`.
//! Eight bytes hold all that a hit needs, so a hit touches one line before the block itself.
use crate::sync::{AtomicU32, Ordering};

const ABSENT: u32 = 0;
const LOADING: u32 = u32::MAX;
/// The longest block that a slot can tell the length of, in bytes.
pub(super) const MAX_LEN: usize = 1 << USES_SHIFT;
/// Where in `about` the uses begin; below is the index of the block's last byte.
const USES_SHIFT: u32 = 24;
const LAST_BYTE: u32 = (1 << USES_SHIFT) - 1;
/// The length is not known yet. No block is that long and was used that often.
const UNKNOWN: u32 = u32::MAX;
/// The usage of a block that a scan brought in: hits do not raise it, the keeper reads it as "never used".
const USED_BY_SCAN: u8 = 0x80;
/// Where the count of uses stops.
pub(super) const MOST_USES: u8 = 3;

/// See the module.
pub(super) struct Slot {
    /// `ABSENT`, `LOADING`, or the frame's first unit plus one.
    word: AtomicU32,
    /// Uses since the keeper looked last, at most `MOST_USES`, or `USED_BY_SCAN`; below them the index of the block's last
    /// byte, to which loaders always give the same value. Stores may undo each other's count of uses, not the length.
    about: AtomicU32,
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
        Slot { word: AtomicU32::new(ABSENT), about: AtomicU32::new(UNKNOWN) }
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
        // Relaxed: ordered by the load above; a later load of the same block stores the same length.
        Some((word - 1, (self.about.load(Ordering::Relaxed) & LAST_BYTE) as usize + 1))
    }

    /// Notes a use. A plain load, and a plain store only while the count grows: two threads may lose one. REQUIRES: the
    /// block was there.
    #[inline]
    pub(super) fn touch(&self) {
        // Relaxed: a hint for the keeper that orders nothing.
        let about = self.about.load(Ordering::Relaxed);
        if about < u32::from(MOST_USES) << USES_SHIFT {
            self.about.store(about + (1 << USES_SHIFT), Ordering::Relaxed);
        }
    }

    /// The uses since the keeper looked last. REQUIRES: the block is there.
    pub(super) fn uses(&self) -> u8 {
        match (self.about.load(Ordering::Relaxed) >> USES_SHIFT) as u8 {
            USED_BY_SCAN => 0,
            uses => uses,
        }
    }

    /// Sets the count of uses. Relaxed, as in `touch`. REQUIRES: the block is there.
    pub(super) fn set_uses(&self, uses: u8) {
        let last_byte = self.about.load(Ordering::Relaxed) & LAST_BYTE;
        self.about.store(last_byte | u32::from(uses) << USES_SHIFT, Ordering::Relaxed);
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

    /// Makes a loaded block visible. REQUIRES: the caller won `begin_load`, and `len` is from 1 to `MAX_LEN`.
    ///
    /// # Panics
    /// If the block had another length before: a reader may hold the old frame and read the new length.
    pub(super) fn publish(&self, unit: u32, len: usize, by_scan: bool) {
        assert!((1..=MAX_LEN).contains(&len), "a cached block has at most {MAX_LEN} bytes, not {len}");
        let last_byte = (len - 1) as u32;
        // Relaxed: the chain of `begin_load` and `clear` orders the loaders among themselves.
        let before = self.about.load(Ordering::Relaxed);
        if before != UNKNOWN {
            assert_eq!(before & LAST_BYTE, last_byte, "the length of a block never changes");
        }
        let uses = if by_scan { USED_BY_SCAN } else { 0 };
        self.about.store(last_byte | u32::from(uses) << USES_SHIFT, Ordering::Relaxed);
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
