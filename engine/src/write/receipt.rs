//! The receipt of a commit.
use super::Committed;
use crate::db::DbInner;
use sapwood_base::{Result, SequenceNumber};
use std::sync::Arc;

/// A commit that was acknowledged: it is visible to every read that starts now.
///
/// It can be dropped: the commit keeps its own durability. [`Commit::wait_durable`] strengthens it.
pub struct Commit {
    db: Arc<DbInner>,
    sequence: SequenceNumber,
    number: u64,
    end: u64,
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit")
            .field("number", &self.number)
            .field("sequence", &self.sequence.0)
            .finish_non_exhaustive()
    }
}

impl Commit {
    pub(crate) fn new(db: &Arc<DbInner>, committed: Committed) -> Commit {
        let Committed { sequence, number, end } = committed;
        Commit { db: db.clone(), sequence, number, end }
    }

    /// The number of the commit: the first one of a database is number 1, and there are no gaps.
    /// Commits are visible in the order of their numbers.
    ///
    /// Every batch and every single write is one commit. Some numbers belong to commits without
    /// operations: the database needs a few itself, e.g. while an index begins. An empty batch has
    /// the number of the last visible commit.
    ///
    /// A power loss or a crash may take the last commits that were not durable. The next open
    /// then assigns their numbers again, so a number identifies a commit for other systems only
    /// once it is durable: see [`Commit::wait_durable`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann");
    /// let first = batch.commit()?.number();
    /// users.put("u2", "Bob")?;
    /// let mut batch = db.batch();
    /// batch.put(&users, "u3", "Cem");
    /// assert_eq!(batch.commit()?.number(), first + 2);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The sequence number of the first operation. Numbers grow from commit to commit, with gaps.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann");
    /// let commit = batch.commit()?;
    /// assert!(commit.sequence() <= db.snapshot().sequence());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// Waits until the commit survives a power loss. (A commit with
    /// [`Durability::None`](crate::Durability::None) is not in the log; only a flush saves it.)
    ///
    /// Errors: [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) if a sync failed.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann");
    /// batch.commit()?.wait_durable()?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "sync")]
    pub fn wait_durable(self) -> Result<()> {
        let core = &self.db.core;
        // A commit that is already durable needs nothing of a database that is being closed.
        if core.wal.durable() >= self.end {
            return Ok(());
        }
        let _call = core.enter(false)?;
        core.wait_durable(self.end)
    }
}
