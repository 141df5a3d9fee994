//! Atomics and waiting, from the standard library or from loom.
//!
//! Every lock-free part of this crate takes its atomics from here, so that `--cfg loom` runs the same functions
//! under loom's scheduler.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// A value on its own pair of cache lines, because the adjacent-line prefetcher moves lines in pairs.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// A wait that first spins and then gives up its time slice: the thread that is waited for may not be running.
#[derive(Default)]
pub(crate) struct Spin {
    #[cfg(not(loom))]
    rounds: u32,
}

impl Spin {
    /// Lets some time pass.
    #[cold]
    pub(crate) fn wait(&mut self) {
        #[cfg(loom)]
        loom::thread::yield_now();
        #[cfg(not(loom))]
        {
            self.rounds += 1;
            if self.rounds.is_multiple_of(64) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}
