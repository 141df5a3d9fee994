//! A mutex and a condition variable that a schedule controls: parking_lot's for all other threads.
//!
//! A thread of a schedule never blocks the operating system's thread here: it tries the lock, and
//! yields its turn until the holder releases it. So a lock may be held while another thread has the
//! turn.
use crate::sim::schedule;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// Mutual exclusion without poisoning.
#[derive(Default)]
pub struct Mutex<T> {
    inner: parking_lot::Mutex<T>,
}

impl<T> Mutex<T> {
    /// Creates a free mutex.
    pub const fn new(value: T) -> Mutex<T> {
        Mutex { inner: parking_lot::Mutex::new(value) }
    }

    /// Acquires the lock, waiting if necessary.
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        if schedule::is_scheduled() {
            schedule::step();
            return MutexGuard { mutex: self, inner: Some(self.lock_in_turn()) };
        }
        MutexGuard { mutex: self, inner: Some(self.inner.lock()) }
    }

    /// Acquires the lock if it is free now.
    #[inline]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        if schedule::is_scheduled() {
            schedule::step();
        }
        self.inner.try_lock().map(|inner| MutexGuard { mutex: self, inner: Some(inner) })
    }

    fn lock_in_turn(&self) -> parking_lot::MutexGuard<'_, T> {
        loop {
            if let Some(guard) = self.inner.try_lock() {
                return guard;
            }
            schedule::wait_for_lock(self.place());
        }
    }

    /// Identifies this mutex while it is borrowed.
    fn place(&self) -> usize {
        std::ptr::from_ref(&self.inner).addr()
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

/// A held lock.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Always present, except within a wait.
    inner: Option<parking_lot::MutexGuard<'a, T>>,
}

impl<T> MutexGuard<'_, T> {
    fn release(&mut self) {
        self.inner = None;
        schedule::released(self.mutex.place());
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.inner.as_ref().expect("held outside of waits")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.inner.as_mut().expect("held outside of waits")
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.release();
    }
}

/// A condition variable.
#[derive(Default)]
pub struct Condvar {
    inner: parking_lot::Condvar,
    /// Ensures a distinct address even if the other field has none.
    _place: u8,
}

impl Condvar {
    /// Creates a condition without waiting threads.
    pub const fn new() -> Condvar {
        Condvar { inner: parking_lot::Condvar::new(), _place: 0 }
    }

    /// Waits for a notification. May wake without one.
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        match schedule::is_scheduled() {
            true => self.wait_in_turn(guard, None),
            false => self.inner.wait(guard.inner.as_mut().expect("held outside of waits")),
        }
    }

    /// Waits for a notification, but not longer than `limit`.
    pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, limit: Duration) {
        match schedule::is_scheduled() {
            true => self.wait_in_turn(guard, Some(limit)),
            false => drop(self.inner.wait_for(guard.inner.as_mut().expect("held outside of waits"), limit)),
        }
    }

    fn wait_in_turn<T>(&self, guard: &mut MutexGuard<'_, T>, limit: Option<Duration>) {
        // No other thread has the turn between these two, so no notification is missed.
        guard.release();
        schedule::wait_for_notice(self.place(), limit);
        guard.inner = Some(guard.mutex.lock_in_turn());
    }

    /// Wakes one waiting thread.
    pub fn notify_one(&self) {
        schedule::notify(self.place(), false);
        self.inner.notify_one();
    }

    /// Wakes all waiting threads.
    pub fn notify_all(&self) {
        schedule::notify(self.place(), true);
        self.inner.notify_all();
    }

    fn place(&self) -> usize {
        std::ptr::from_ref(&self._place).addr()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
