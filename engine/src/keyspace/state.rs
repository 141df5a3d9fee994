//! The state of a keyspace while the database is open.
use super::options::KeyspaceOptions;
use crate::index::epoch::{IndexEpoch, SharedIndexEpoch};
use crate::planted;
use crate::read::vacancy::Vacancies;
use sapwood_base::{Error, ErrorKind, KeyspaceId, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The keyspace that every database has.
pub(crate) const DEFAULT_KEYSPACE: &str = "default";

/// The state shared by all handles of a keyspace.
pub(crate) struct KeyspaceState {
    pub(crate) id: KeyspaceId,
    pub(crate) name: String,
    pub(crate) options: KeyspaceOptions,
    dropped: AtomicBool,
    /// The set of its indexes, for writers.
    indexes: SharedIndexEpoch,
    /// Ranges without live entries, found by scans.
    pub(crate) vacancies: Vacancies,
}

impl KeyspaceState {
    pub(crate) fn new(id: KeyspaceId, name: &str, options: KeyspaceOptions) -> Arc<KeyspaceState> {
        let (dropped, indexes) = (AtomicBool::new(false), SharedIndexEpoch::new());
        let (name, vacancies) = (name.to_string(), Vacancies::default());
        Arc::new(KeyspaceState { id, name, options, dropped, indexes, vacancies })
    }

    #[inline]
    pub(crate) fn index_epoch(&self) -> IndexEpoch {
        self.indexes.load()
    }

    /// Records that the set of indexes in the view has changed. REQUIRES: callers exclude each
    /// other.
    pub(crate) fn change_indexes(&self, has_indexes: bool) {
        self.indexes.change(has_indexes);
    }

    pub(crate) fn mark_dropped(&self) {
        // Release: pairs with the Acquire in `check_alive`; a write that still passes is ignored by
        // the flush.
        self.dropped.store(true, Ordering::Release);
    }

    #[inline]
    pub(crate) fn check_alive(&self) -> Result<()> {
        if self.dropped.load(Ordering::Acquire) {
            return Err(self.dropped_error());
        }
        Ok(())
    }

    #[cold]
    pub(crate) fn dropped_error(&self) -> Error {
        Error::new(ErrorKind::Closed, format!("keyspace {:?} was dropped", self.name))
    }
}

/// Checks a keyspace's name.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if name.is_empty() && planted::needs_name() || name.len() > 255 {
        return Err(Error::invalid_argument("a keyspace's name has 1 to 255 bytes"));
    }
    Ok(())
}
