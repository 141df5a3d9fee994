//! Atomics of the standard library, or loom's under `cfg(sapwood_loom)`, switched in one place.
#[cfg(sapwood_loom)]
pub(crate) use loom::sync::atomic::Ordering;
// Those of loom itself leave out interleavings: see there.
#[cfg(sapwood_loom)]
pub(crate) use sapwood_memtable::sync::observed::AtomicU64;
#[cfg(not(sapwood_loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

/// Spins a little, then yields: the thread waited for may need this core.
#[inline]
pub(crate) fn backoff(spins: &mut u32) {
    #[cfg(sapwood_loom)]
    {
        *spins += 1;
        loom::thread::yield_now();
    }
    #[cfg(not(sapwood_loom))]
    {
        *spins += 1;
        if sapwood_storage::sync::give_turn() {
            // Another thread ran meanwhile.
        } else if *spins < 64 {
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// A place between two steps of a protocol, where a simulated schedule may switch threads.
/// Otherwise a no-op.
#[inline]
pub(crate) fn step() {
    #[cfg(not(sapwood_loom))]
    sapwood_storage::sync::step();
}
