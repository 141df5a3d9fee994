//! Snapshots: sequence numbers that flush and compaction keep readable.
use crate::wal::commit_ring::LogPoint;
use sapwood_base::SequenceNumber;
use sapwood_storage::sync::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The numbers of live snapshots, each with how many there are.
#[derive(Default)]
pub(crate) struct SnapshotList {
    live: Mutex<BTreeMap<SequenceNumber, usize>>,
}

impl SnapshotList {
    /// Every live number, ascending.
    ///
    /// A snapshot that is taken later has a number at least as large as anything published now. So
    /// a job that reads this list before its inputs drops nothing that the snapshot could read.
    pub(crate) fn numbers(&self) -> Vec<SequenceNumber> {
        self.live.lock().keys().copied().collect()
    }
}

/// A view of all keyspaces at one point of the history. Costs nothing to take; the state that it
/// sees is kept until the last clone is dropped.
///
/// It does not keep the database open (see [`Db`](crate::Db)), and can no longer be read at when
/// that is closed.
#[derive(Clone)]
pub struct Snapshot {
    inner: Arc<Registered>,
}

struct Registered {
    list: Arc<SnapshotList>,
    sequence: SequenceNumber,
    commits: u64,
}

impl Snapshot {
    /// Registers a snapshot at the place that `published` returns.
    pub(crate) fn take(list: &Arc<SnapshotList>, published: impl FnOnce() -> LogPoint) -> Snapshot {
        // The number is read under the lock: a job either sees the snapshot in the list, or read
        // its inputs before.
        let mut live = list.live.lock();
        let LogPoint { position, commits } = published();
        let sequence = SequenceNumber(position - 1);
        *live.entry(sequence).or_insert(0) += 1;
        drop(live);
        Snapshot { inner: Arc::new(Registered { list: list.clone(), sequence, commits }) }
    }

    /// The last operation that it sees.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let before = db.snapshot();
    /// users.put("u1", "Ann")?;
    /// assert!(db.snapshot().sequence() > before.sequence());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn sequence(&self) -> SequenceNumber {
        self.inner.sequence
    }

    /// The number of the last commit that it sees, or 0 if it sees none: see
    /// [`Commit::number`](crate::Commit::number). It sees all commits up to that one, and none
    /// after it.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let before = db.snapshot();
    /// users.put("u1", "Ann")?;
    /// assert_eq!(db.snapshot().commits(), before.commits() + 1);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn commits(&self) -> u64 {
        self.inner.commits
    }

    pub(crate) fn belongs_to(&self, list: &Arc<SnapshotList>) -> bool {
        Arc::ptr_eq(&self.inner.list, list)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("sequence", &self.inner.sequence.0)
            .field("commits", &self.inner.commits)
            .finish_non_exhaustive()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut live = self.list.live.lock();
        if let Some(count) = live.get_mut(&self.sequence) {
            *count -= 1;
            if *count == 0 {
                live.remove(&self.sequence);
            }
        }
    }
}
