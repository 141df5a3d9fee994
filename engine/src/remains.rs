//! The parts left of a database whose handles are gone: for tests that look for leaks.
use crate::runtime::Core;
use sapwood_memtable::ArenaPool;
use sapwood_storage::DatabaseFiles;
use sapwood_storage::cache::CacheRemains;
use std::sync::{Arc, Weak};

/// Weak references to the parts of a database that hold memory, files and threads. Taken while it
/// is open, and checked after it was closed and its handles were dropped.
pub struct Remains {
    core: Weak<Core>,
    files: Weak<DatabaseFiles>,
    cache: CacheRemains,
    arenas: Weak<ArenaPool>,
}

impl Remains {
    pub(crate) fn of(core: &Arc<Core>) -> Remains {
        Remains {
            core: Arc::downgrade(core),
            files: Arc::downgrade(&core.files),
            cache: core.files.cache.remains(),
            arenas: Arc::downgrade(&core.arenas),
        }
    }

    /// Descriptions of the parts still alive; empty when all were released. Live cursors, iterators
    /// and slices keep the parts that they read.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        if let Some(core) = self.core.upgrade() {
            left.push(format!("the database itself, held by {}", Arc::strong_count(&core) - 1));
        }
        if let Some(files) = self.files.upgrade() {
            left.push(format!("tables, held by {}", Arc::strong_count(&files) - 1));
        }
        if let Some(bytes) = self.cache.memory_bytes() {
            left.push(format!("a cache of {bytes} bytes"));
        }
        if let Some(arenas) = self.arenas.upgrade() {
            left.push(format!("arenas of {} bytes", arenas.bytes_reserved()));
        }
        left
    }
}

impl std::fmt::Debug for Remains {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remains").finish_non_exhaustive()
    }
}
