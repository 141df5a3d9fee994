//! The state of a database that an iterator, a cursor or an entry of an index continues to read.
//!
//! It is fixed by a view and a sequence number, and holds no reference to the database: it does not
//! keep the database open, and the contents of the view stay readable after the database is closed.
use crate::db::DbInner;
use crate::keyspace::KeyspaceState;
use crate::read::snapshot::Snapshot;
use crate::read::view::View;
use crate::refusal::closed;
use crate::runtime::Core;
use sapwood_base::{Result, SequenceNumber};
use std::sync::{Arc, Weak};

/// One state of a database.
#[derive(Clone)]
pub(crate) struct ReadState {
    db: Weak<DbInner>,
    pub(crate) view: Arc<View>,
    pub(crate) sequence: SequenceNumber,
    /// The number up to which the view is known to be complete.
    pub(crate) covered: SequenceNumber,
}

impl ReadState {
    /// The latest state, or the one that `snapshot` sees, to read `keyspace` in.
    ///
    /// # Errors
    /// `Closed` if database or keyspace is no longer there, `InvalidArgument` for a snapshot of
    /// another database.
    pub(crate) fn new(
        db: &Arc<DbInner>,
        keyspace: &KeyspaceState,
        snapshot: Option<&Snapshot>,
    ) -> Result<ReadState> {
        let (view, sequence, covered) = ReadState::parts(&db.core, keyspace, snapshot)?;
        Ok(ReadState { db: Arc::downgrade(db), view, sequence, covered })
    }

    /// The same without the database: view, sequence number, and the number up to which the view is
    /// complete.
    #[inline]
    pub(crate) fn parts(
        core: &Core,
        keyspace: &KeyspaceState,
        snapshot: Option<&Snapshot>,
    ) -> Result<(Arc<View>, SequenceNumber, SequenceNumber)> {
        core.check_open()?;
        keyspace.check_alive()?;
        let at = snapshot.map(|snapshot| core.sequence_of(snapshot)).transpose()?;
        let vacancies = &keyspace.vacancies;
        if vacancies.has_announced() {
            core.watch(vacancies);
        }
        Ok(core.latest(at))
    }

    /// The database, while it is open.
    ///
    /// # Errors
    /// `Closed` if it is not.
    pub(crate) fn database(&self) -> Result<Arc<DbInner>> {
        let db = self.db.upgrade().ok_or_else(closed)?;
        db.core.check_open()?;
        Ok(db)
    }
}
