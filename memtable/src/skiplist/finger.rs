//! Fingers: each thread remembers the leaf of its last insert into a list, so that keys that arrive
//! in order skip the search. A finger is a hint; the caller checks that the key belongs to the
//! leaf. Models have none.
use crate::skiplist::leaf::LeafOffset;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Lists that a thread writes in turn (rows and indexes of a batch) should not evict each other.
const FINGERS: usize = 16;

thread_local! {
    static LAST: [Cell<(u64, Option<LeafOffset>)>; FINGERS] = const { [const { Cell::new((0, None)) }; FINGERS] };
}

/// Returns the identity of a new list. Never reused, so a finger cannot point into a recycled
/// arena.
pub(super) fn next_identity() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The leaf of this thread's last insert into the list.
#[inline]
pub(super) fn get(identity: u64) -> Option<LeafOffset> {
    let (of, leaf) = LAST.try_with(|last| last[identity as usize % FINGERS].get()).ok()?;
    if of == identity { leaf } else { None }
}

/// Remembers the leaf of an insert.
#[inline]
pub(super) fn set(identity: u64, leaf: LeafOffset) {
    if cfg!(sapwood_loom) {
        return;
    }
    // A thread in teardown has no fingers; it searches.
    let _ = LAST.try_with(|last| last[identity as usize % FINGERS].set((identity, Some(leaf))));
}
