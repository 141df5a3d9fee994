//! The epoch of the set of indexes of a keyspace, for writers.
//!
//! A write reads the epoch, then the view, and the epoch again when it has reserved its place in
//! the log. A change publishes the new set, increases the epoch, and then reserves a place in the
//! log itself. Both places come from one atomic variable. So a write that was prepared for the old
//! set and has a later place finds another epoch, and is retried. `engine/tests/loom.rs` has a
//! model of that.
use crate::planted;
use crate::sync::{AtomicU64, Ordering};

/// The set of indexes that a write was prepared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEpoch(u64);

impl IndexEpoch {
    #[inline]
    pub(crate) fn has_indexes(self) -> bool {
        self.0 & 1 != 0
    }
}

/// The epoch of one keyspace: whether it has indexes, in the lowest bit, and how often that has
/// changed, above.
pub(crate) struct SharedIndexEpoch(AtomicU64);

impl SharedIndexEpoch {
    /// That of a keyspace without indexes.
    pub(crate) fn new() -> SharedIndexEpoch {
        SharedIndexEpoch(AtomicU64::new(0))
    }

    #[inline]
    pub(crate) fn load(&self) -> IndexEpoch {
        // Acquire: pairs with the Release in `change`; the view that is loaded next has the set.
        IndexEpoch(self.0.load(Ordering::Acquire))
    }

    /// Records that the set of indexes in the view has changed. REQUIRES: callers exclude each
    /// other.
    pub(crate) fn change(&self, has_indexes: bool) {
        let epoch = self.0.load(Ordering::Relaxed);
        self.0.store((epoch | 1) + 1 + u64::from(has_indexes), planted::releases_index_set());
    }
}
