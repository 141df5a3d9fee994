//! Atomics and waiting, from the standard library or from loom.
//!
//! Every lock-free part of this crate imports its atomics from here, so that `--cfg sapwood_loom`
//! runs the same functions under loom's scheduler.

#[cfg(sapwood_loom)]
pub(crate) use loom::sync::atomic::{Ordering, fence};
#[cfg(sapwood_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(sapwood_loom)]
pub(crate) use observed::{AtomicU16, AtomicU32, AtomicU64};
#[cfg(not(sapwood_loom))]
pub(crate) use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(sapwood_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Atomics for hints and statistics, on which no reader's safety depends. Always those of the
/// standard library, because they would only enlarge the models.
pub(crate) mod hint {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64};
}

/// A value on its own pair of cache lines, because the adjacent-line prefetcher moves lines in
/// pairs.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// A wait that first spins and then yields its time slice, because the awaited thread may not be
/// running.
#[derive(Default)]
pub(crate) struct Spin {
    #[cfg(not(sapwood_loom))]
    rounds: u32,
}

impl Spin {
    /// Waits briefly.
    #[cold]
    pub(crate) fn wait(&mut self) {
        #[cfg(sapwood_loom)]
        loom::thread::yield_now();
        #[cfg(not(sapwood_loom))]
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

/// Loom's atomics with more interleavings.
///
/// Loom detects a race with the *last* access to an object only, so a thread that loads a word
/// before it stores to it hides the loads of other threads, and loom never explores the
/// interleavings that matter to a seqlock. Here every access first fails a compare-and-swap of a
/// companion word: loom treats that as a conflict of any two accesses, and because it never stores
/// it orders no memory.
#[cfg(sapwood_loom)]
#[allow(missing_docs, reason = "only models use them")]
pub mod observed {
    use loom::sync::atomic::Ordering;

    macro_rules! observed {
        ($name:ident, $inner:ty) => {
            /// A loom atomic that conflicts with itself at every access.
            #[derive(Debug)]
            pub struct $name {
                companion: loom::sync::atomic::AtomicU8,
                word: loom::sync::atomic::$name,
            }

            #[allow(dead_code, reason = "every width has the same operations")]
            impl $name {
                /// As in the standard library, here and below.
                pub fn new(value: $inner) -> $name {
                    let companion = loom::sync::atomic::AtomicU8::new(0);
                    $name { companion, word: loom::sync::atomic::$name::new(value) }
                }

                fn touch(&self) {
                    let _ = self.companion.compare_exchange(1, 1, Ordering::Relaxed, Ordering::Relaxed);
                }

                pub fn load(&self, order: Ordering) -> $inner {
                    self.touch();
                    self.word.load(order)
                }

                pub fn store(&self, value: $inner, order: Ordering) {
                    self.touch();
                    self.word.store(value, order);
                }

                pub fn fetch_add(&self, value: $inner, order: Ordering) -> $inner {
                    self.touch();
                    self.word.fetch_add(value, order)
                }

                pub fn fetch_max(&self, value: $inner, order: Ordering) -> $inner {
                    self.touch();
                    self.word.fetch_max(value, order)
                }

                pub fn compare_exchange(
                    &self,
                    current: $inner,
                    new: $inner,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$inner, $inner> {
                    self.touch();
                    self.word.compare_exchange(current, new, success, failure)
                }

                pub fn compare_exchange_weak(
                    &self,
                    current: $inner,
                    new: $inner,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$inner, $inner> {
                    self.touch();
                    self.word.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    impl Default for AtomicU32 {
        fn default() -> AtomicU32 {
            AtomicU32::new(0)
        }
    }

    observed!(AtomicU16, u16);
    observed!(AtomicU32, u32);
    observed!(AtomicU64, u64);
}
