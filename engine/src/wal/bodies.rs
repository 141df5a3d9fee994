//! The bodies of a log that are not synced yet: see `body`.
use crate::planted;

/// The bodies of a log.
#[derive(Default)]
pub(super) struct Bodies {
    pub(super) unsynced: Vec<Unsynced>,
}

/// A body with its record, which no sync has covered yet.
#[derive(Clone, Copy)]
pub(super) struct Unsynced {
    pub(super) start: u64,
    pub(super) end: u64,
    /// End of its record.
    pub(super) record_end: u64,
}

impl Bodies {
    /// Forgets the bodies whose records lie below `position`: they are synced or in tables.
    pub(super) fn forget(&mut self, position: u64) {
        self.unsynced.retain(|body| body.record_end > position);
    }

    /// The bodies of records below `to` that begin below `from`, where `from` is the end of the
    /// synced log.
    pub(super) fn late(&self, from: u64, to: u64) -> Vec<Unsynced> {
        let is_late = |body: &&Unsynced| body.record_end <= to && body.start < from;
        self.unsynced.iter().filter(is_late).filter(|_| planted::syncs_late_bodies()).copied().collect()
    }
}
