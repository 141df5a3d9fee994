//! An index with its keyspace and its database, as queries refer to it.
use super::cursor::{index_meta, tree_view};
use super::state::IndexState;
use crate::db::DbInner;
use crate::keyspace::KeyspaceState;
use crate::read::snapshot::Snapshot;
use crate::read::state::ReadState;
use crate::runtime::Core;
use sapwood_base::Result;
use std::sync::Arc;

/// A reference to an index: every query starts from it.
#[derive(Clone, Copy)]
pub(super) struct IndexReference<'a> {
    pub(super) db: &'a Arc<DbInner>,
    pub(super) keyspace: &'a Arc<KeyspaceState>,
    pub(super) state: &'a Arc<IndexState>,
}

impl<'a> IndexReference<'a> {
    #[inline]
    pub(super) fn core(self) -> &'a Core {
        &self.db.core
    }

    /// The state to read in, with the tree opened in it.
    ///
    /// # Errors
    /// `IndexUnavailable` while the index is not complete in it, and those of a read.
    pub(super) fn read_state(self, snapshot: Option<&Snapshot>) -> Result<ReadState> {
        let core = self.core();
        core.watch_in(core.view.load(&crossbeam_epoch::pin()), self.state.id);
        let state = ReadState::new(self.db, self.keyspace, snapshot)?;
        let entry = index_meta(&state.view, self.state.id)?;
        entry.check_readable(state.sequence)?;
        tree_view(core, entry)?;
        Ok(state)
    }
}
