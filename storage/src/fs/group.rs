//! The descriptors of one machine, shared by its databases.
use crate::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Minimum number of idle files to close when a call has found no descriptor.
const CLOSED_AT_ONCE: usize = 8;

/// The files on demand of one database.
pub(super) trait Closable: Send + Sync {
    /// Number of open files.
    fn open_files(&self) -> usize;
    /// Closes the approximately least recently used file. Returns false if each is in use or has
    /// unsynced writes.
    fn close_one(&self) -> bool;
}

/// The files on demand of all databases that share the descriptors of one machine.
pub struct FileGroup {
    most: AtomicUsize,
    open: AtomicUsize,
    pools: Mutex<Vec<Weak<dyn Closable>>>,
}

impl FileGroup {
    /// Creates a group of at most `most` open files.
    pub fn new(most: usize) -> Arc<FileGroup> {
        Arc::new(FileGroup {
            most: AtomicUsize::new(most.max(1)),
            open: AtomicUsize::new(0),
            pools: Mutex::default(),
        })
    }

    /// Changes how many files may be open. Excess files close as others are opened.
    pub fn set_most(&self, most: usize) {
        // Relaxed: a setting.
        self.most.store(most.max(1), Ordering::Relaxed);
    }

    /// Maximum number of open files.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Number of files open on demand, of all databases.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The pool with the most open files: it can best spare one.
    fn largest(&self) -> Option<Arc<dyn Closable>> {
        let pools: Vec<Arc<dyn Closable>> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        pools.into_iter().rev().max_by_key(|pool| pool.open_files())
    }

    /// Closes an idle file of any database. Returns false if there is none.
    pub(super) fn close_one(&self) -> bool {
        if self.largest().is_some_and(|pool| pool.close_one()) {
            return true;
        }
        let pools: Vec<Arc<dyn Closable>> = self.pools.lock().iter().filter_map(Weak::upgrade).collect();
        pools.iter().any(|pool| pool.close_one())
    }

    /// Closes some idle files after a call has found no descriptor. Returns false if there is none.
    pub(super) fn relieve(&self) -> bool {
        let wanted = CLOSED_AT_ONCE.max(self.open() / 8);
        (0..wanted).filter(|_| self.close_one()).count() > 0
    }

    /// Adds the files of one database.
    pub(super) fn add(&self, pool: Weak<dyn Closable>) {
        let mut pools = self.pools.lock();
        pools.retain(|pool| pool.strong_count() > 0);
        pools.push(pool);
    }

    /// Counts one more open file.
    pub(super) fn count_opened(&self) {
        // Relaxed: a count that no other memory depends on.
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts closed files.
    pub(super) fn count_closed(&self, files: usize) {
        self.open.fetch_sub(files, Ordering::Relaxed);
    }
}
