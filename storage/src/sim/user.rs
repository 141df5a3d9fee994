//! One user of a file system among several: what it holds, and what it does when it should be done.
use super::operation::Operation;
use crate::sync::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Late calls that are kept, to be shown.
const SHOWN: usize = 4;

/// What one user of a simulated file system holds, for instance one opening of a database: see
/// [`SimFs::for_user`](super::SimFs::for_user). Clones are the same user. Usable from any thread.
#[derive(Clone, Default)]
pub struct User {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    files: AtomicUsize,
    locks: AtomicUsize,
    is_retired: AtomicBool,
    late: Mutex<Vec<String>>,
    late_count: AtomicUsize,
}

impl User {
    /// Files that it has open.
    pub fn files(&self) -> usize {
        // Relaxed, as all that follows: a test asks when the threads that count have ended or wait.
        self.inner.files.load(Ordering::Relaxed)
    }

    /// Locks that it holds.
    pub fn locks(&self) -> usize {
        self.inner.locks.load(Ordering::Relaxed)
    }

    /// From now on it should change nothing: each call that would is noted. Calls go on to work.
    pub fn retire(&self) {
        self.inner.is_retired.store(true, Ordering::Relaxed);
    }

    /// How many changing calls it has made since [`User::retire`], and the first of them in words.
    pub fn late_calls(&self) -> (usize, Vec<String>) {
        (self.inner.late_count.load(Ordering::Relaxed), self.inner.late.lock().clone())
    }

    /// Notes a changing call.
    pub(super) fn changes(&self, operation: Operation, path: &Path) {
        if self.inner.is_retired.load(Ordering::Relaxed)
            && self.inner.late_count.fetch_add(1, Ordering::Relaxed) < SHOWN
        {
            self.inner.late.lock().push(format!("{operation} {}", path.display()));
        }
    }

    pub(super) fn opens_file(&self) {
        self.inner.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closes_file(&self) {
        self.inner.files.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn takes_lock(&self) {
        self.inner.locks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn gives_lock(&self) {
        self.inner.locks.fetch_sub(1, Ordering::Relaxed);
    }
}
