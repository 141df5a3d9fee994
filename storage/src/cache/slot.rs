//! One translation slot: whether a block is in memory, its place, length, and number of uses.
//!
//! The word goes `absent -> loading -> frame -> absent`, or from `loading` back to `absent` when
//! the load fails. Only the thread that won `absent -> loading` leaves `loading`; only a holder of
//! the keeper's lock leaves `frame`. A hit needs only these eight bytes, so it touches one line
//! before the block itself.
use crate::sync::{AtomicU32, Ordering};

const ABSENT: u32 = 0;
const LOADING: u32 = u32::MAX;
/// The longest block whose length a slot can represent, in bytes.
pub(super) const MAX_LEN: usize = 1 << USES_SHIFT;
/// Shift of the uses in `about`; the index of the block's last byte is below.
const USES_SHIFT: u32 = 24;
const LAST_BYTE: u32 = (1 << USES_SHIFT) - 1;
/// The length is not known yet. No block has this length and use count.
const UNKNOWN: u32 = u32::MAX;
/// The usage of a block that a scan loaded: hits do not raise it, and the keeper reads it as "never
/// used".
const USED_BY_SCAN: u8 = 0x80;
/// Maximum of the use count.
pub(super) const MOST_USES: u8 = 3;

/// See the module.
pub(super) struct Slot {
    /// `ABSENT`, `LOADING`, or the frame's first unit plus one.
    word: AtomicU32,
    /// Uses since the keeper's last visit, at most `MOST_USES`, or `USED_BY_SCAN`; below them the
    /// index of the block's last byte, for which all loaders store the same value. Stores may
    /// overwrite each other's count of uses, not the length.
    about: AtomicU32,
}

/// The result of [`Slot::begin_load`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// The caller loads and must call `publish` or `abort`.
    Won,
    /// Another thread loads.
    Loading,
    /// The block is present.
    Present,
}

impl Slot {
    pub(super) fn new() -> Slot {
        Slot { word: AtomicU32::new(ABSENT), about: AtomicU32::new(UNKNOWN) }
    }

    /// The frame's first unit and the block's length, if the block is present.
    #[inline]
    pub(super) fn frame(&self) -> Option<(u32, usize)> {
        // Acquire pairs with the Release store of `publish`: the block's bytes and its length are
        // seen.
        let word = self.word.load(Ordering::Acquire);
        // Both states without a frame are at the ends of the range, adjacent after adding one.
        if word.wrapping_add(1) <= 1 {
            return None;
        }
        // Relaxed: ordered by the load above; a later load of the same block stores the same
        // length.
        Some((word - 1, (self.about.load(Ordering::Relaxed) & LAST_BYTE) as usize + 1))
    }

    /// Counts a use. A plain load, and a plain store only while the count grows: concurrent threads
    /// may lose one. REQUIRES: the block was present.
    #[inline]
    pub(super) fn touch(&self) {
        // Relaxed: a hint for the keeper that orders nothing.
        let about = self.about.load(Ordering::Relaxed);
        if about < u32::from(MOST_USES) << USES_SHIFT {
            self.about.store(about + (1 << USES_SHIFT), Ordering::Relaxed);
        }
    }

    /// Uses since the keeper's last visit. REQUIRES: the block is present.
    pub(super) fn uses(&self) -> u8 {
        match (self.about.load(Ordering::Relaxed) >> USES_SHIFT) as u8 {
            USED_BY_SCAN => 0,
            uses => uses,
        }
    }

    /// Sets the count of uses. Relaxed, as in `touch`. REQUIRES: the block is present.
    pub(super) fn set_uses(&self, uses: u8) {
        let last_byte = self.about.load(Ordering::Relaxed) & LAST_BYTE;
        self.about.store(last_byte | u32::from(uses) << USES_SHIFT, Ordering::Relaxed);
    }

    /// Tries to become the only loader of the block.
    pub(super) fn begin_load(&self) -> Begin {
        // Acquire pairs with the Release of `clear` and `abort`: this loader sees the length stored
        // by an earlier one. A failure needs no order, because `frame` is read again.
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

    /// Publishes a loaded block. REQUIRES: the caller won `begin_load`, and `len` is from 1 to
    /// `MAX_LEN`.
    ///
    /// # Panics
    /// If the block had another length before: a reader may hold the old frame and read the new
    /// length.
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

    /// Abandons a load. REQUIRES: the caller won `begin_load`.
    pub(super) fn abort(&self) {
        // Release pairs with the Acquire of the next `begin_load`.
        self.word.store(ABSENT, Ordering::Release);
    }

    /// Removes the block. REQUIRES: the block is present and the caller holds the keeper's lock.
    /// Concurrent readers may still use the frame.
    pub(super) fn clear(&self) {
        // Release pairs with the Acquire of the next `begin_load`.
        self.word.store(ABSENT, Ordering::Release);
    }
}
