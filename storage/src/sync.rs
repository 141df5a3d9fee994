//! Synchronization of threads: locks and conditions of all components above the operating system,
//! and the atomics of the lock-free parts.
//!
//! Without the feature `sim` these are parking_lot's, and the functions do nothing. With it, a
//! thread of a `sim::Schedule` yields its turn before it takes a lock, while it waits, and at every
//! [`step`]; for other threads nothing changes.
#[cfg(feature = "sim")]
mod scheduled;

#[cfg(sapwood_loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(sapwood_loom))]
pub(crate) use std::sync::atomic::{AtomicU32, Ordering};

#[cfg(not(feature = "sim"))]
pub use parking_lot::{Condvar, Mutex, MutexGuard};
#[cfg(feature = "sim")]
pub use scheduled::{Condvar, Mutex, MutexGuard};

use crossbeam::channel::Receiver;

/// A place between two steps of a lock-free protocol, where a schedule may switch threads.
#[inline]
pub fn step() {
    #[cfg(feature = "sim")]
    crate::sim::schedule::step();
}

/// Called by a spinning thread: lets others go first. Returns false if no schedule is active, and
/// the caller has to wait in another way.
#[inline]
pub fn give_turn() -> bool {
    #[cfg(feature = "sim")]
    return crate::sim::schedule::give_turn();
    #[cfg(not(feature = "sim"))]
    false
}

/// Waits for a message; `None` when all senders are gone.
pub fn receive<T>(receiver: &Receiver<T>) -> Option<T> {
    #[cfg(feature = "sim")]
    if crate::sim::schedule::is_scheduled() {
        return crate::sim::schedule::receive(receiver);
    }
    receiver.recv().ok()
}
