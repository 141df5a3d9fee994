//! One of several users of a file system: its open handles, and its calls after it should be done.
use super::operation::Operation;
use crate::sync::Mutex;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Maximum of recorded late calls.
const SHOWN: usize = 4;

/// The handles of one user of a simulated file system, for instance one session of a database: see
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
    /// Number of open files.
    pub fn files(&self) -> usize {
        // Relaxed, as all below: a test reads them when the counting threads have ended or wait.
        self.inner.files.load(Ordering::Relaxed)
    }

    /// Number of held locks.
    pub fn locks(&self) -> usize {
        self.inner.locks.load(Ordering::Relaxed)
    }

    /// From now on the user should change nothing: each changing call is recorded. Calls continue
    /// to work.
    pub fn retire(&self) {
        self.inner.is_retired.store(true, Ordering::Relaxed);
    }

    /// The number of changing calls since [`User::retire`], and the first of them in words.
    pub fn late_calls(&self) -> (usize, Vec<String>) {
        (self.inner.late_count.load(Ordering::Relaxed), self.inner.late.lock().clone())
    }

    /// Records a changing call.
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
