//! Write batches: any set of operations over any keyspaces, applied as one.
use crate::db::DbInner;
use crate::index::epoch::IndexEpoch;
use crate::index::maintenance;
use crate::keyspace::Keyspace;
use crate::options::{Durability, WriteOptions};
use crate::wal::commit_ring::LogPoint;
use crate::write::weight::{Weight, too_heavy};
use crate::write::{Commit, check_key, check_value, commit, insert_all, with_scratch};
use sapwood_base::format::log_record::HEADER_BYTES;
use sapwood_base::format::write_batch::{Operations, put_operation};
use sapwood_base::{Error, Result, SequenceNumber, ValueKind};
use std::fmt;
use std::sync::Arc;

/// Operations that take effect together or not at all, in the order in which they were added.
///
/// The commit reports a bad argument (a key that is too long, a keyspace of another database);
/// nothing of the batch is applied then. A committed batch is empty and can be filled again.
#[derive(Clone)]
pub struct WriteBatch {
    db: Arc<DbInner>,
    record: Vec<u8>,
    operations: usize,
    weight: Weight,
    /// The keyspaces, and at a commit their indexes: see [`IndexEpoch`].
    keyspaces: Vec<(Keyspace, IndexEpoch)>,
    refused: Option<Error>,
}

impl fmt::Debug for WriteBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBatch")
            .field("operations", &self.operations)
            .field("size_bytes", &self.size_bytes())
            .field("refused", &self.refused)
            .finish_non_exhaustive()
    }
}

impl WriteBatch {
    pub(crate) fn new(db: &Arc<DbInner>) -> WriteBatch {
        WriteBatch {
            db: db.clone(),
            record: vec![0; HEADER_BYTES],
            operations: 0,
            weight: Weight::default(),
            keyspaces: Vec::new(),
            refused: None,
        }
    }

    /// Sets `key` to `value`.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann").put(&users, "u2", "Bo");
    /// batch.commit()?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "insert")]
    #[doc(alias = "set")]
    pub fn put(
        &mut self,
        keyspace: &Keyspace,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> &mut WriteBatch {
        self.add(keyspace, ValueKind::Put, key.as_ref(), value.as_ref())
    }

    /// Removes `key`.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.delete(&users, "u1");
    /// batch.commit()?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "remove")]
    pub fn delete(&mut self, keyspace: &Keyspace, key: impl AsRef<[u8]>) -> &mut WriteBatch {
        self.add(keyspace, ValueKind::Delete, key.as_ref(), &[])
    }

    fn add(&mut self, keyspace: &Keyspace, kind: ValueKind, key: &[u8], value: &[u8]) -> &mut WriteBatch {
        if self.refused.is_some() {
            return self;
        }
        // Numbers of keyspaces are the same in every database, so this is checked each time.
        if !Arc::ptr_eq(&self.db, keyspace.database()) {
            let message =
                format!("keyspace {:?} belongs to another database than the batch", keyspace.name());
            self.refused = Some(Error::invalid_argument(message));
            return self;
        }
        if self.keyspaces.last().is_none_or(|(last, _)| last.id() != keyspace.id())
            && !self.keyspaces.iter().any(|(known, _)| known.id() == keyspace.id())
        {
            self.keyspaces.push((keyspace.clone(), keyspace.state().index_epoch()));
        }
        if let Err(error) = check_key(key).and_then(|()| check_value(value)) {
            self.refused = Some(error);
            return self;
        }
        self.weight.add(key.len(), value.len());
        if !self.weight.is_allowed() {
            self.refused = Some(too_heavy());
            return self;
        }
        if let Err(error) = put_operation(&mut self.record, kind, keyspace.id(), key, value) {
            self.refused = Some(error);
            return self;
        }
        self.operations += 1;
        self
    }

    /// Operations in the batch.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann").delete(&users, "u2");
    /// assert_eq!(batch.len(), 2);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "count")]
    pub fn len(&self) -> usize {
        self.operations
    }

    /// Whether the batch has no operation.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// assert!(db.batch().is_empty());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.operations == 0
    }

    /// Bytes that the batch takes in the log.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann");
    /// assert!(batch.size_bytes() >= 5);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn size_bytes(&self) -> usize {
        self.record.len()
    }

    /// Removes all operations.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann").clear();
    /// assert!(batch.is_empty());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "reset")]
    #[doc(alias = "rollback")]
    pub fn clear(&mut self) {
        self.record.truncate(HEADER_BYTES);
        self.operations = 0;
        self.weight = Weight::default();
        self.keyspaces.clear();
        self.refused = None;
    }

    /// Applies the batch with the database's default durability.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann");
    /// batch.commit()?;
    /// assert!(batch.is_empty());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "write")]
    #[doc(alias = "Write")]
    pub fn commit(&mut self) -> Result<Commit> {
        self.commit_with(&WriteOptions::default())
    }

    /// Applies the batch with a durability of its own.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann");
    /// batch.commit_durable(sapwood::Durability::Sync)?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn commit_durable(&mut self, durability: Durability) -> Result<Commit> {
        self.commit_with(&WriteOptions { durability: Some(durability) })
    }

    /// Applies the batch.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann");
    /// batch.commit_with(&sapwood::WriteOptions::sync())?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "write_opt")]
    pub fn commit_with(&mut self, options: &WriteOptions) -> Result<Commit> {
        if let Some(error) = self.refused.take() {
            self.clear();
            return Err(error);
        }
        for (keyspace, _) in &self.keyspaces {
            keyspace.check_alive()?;
        }
        let core = &self.db.core;
        if self.operations == 0 {
            core.check_writable()?;
            // Nothing of its own: it stands for the last commit that is visible.
            let LogPoint { position: end, commits: number } = core.wal.published_point();
            let sequence = SequenceNumber(end.saturating_sub(1));
            let committed = super::Committed { sequence, number, end };
            return Ok(Commit::new(&self.db, committed));
        }
        let bytes = self.record.len();
        let committed = loop {
            let mut has_indexes = false;
            for (keyspace, epoch) in &mut self.keyspaces {
                *epoch = keyspace.state().index_epoch();
                has_indexes |= epoch.has_indexes();
            }
            let keyspaces = &self.keyspaces;
            let is_current =
                || keyspaces.iter().all(|(keyspace, epoch)| keyspace.state().index_epoch() == *epoch);
            let committed = match has_indexes {
                false => {
                    let record = &mut self.record;
                    let (operations, weight) = (self.operations, self.weight);
                    commit(core, record, operations, weight, options.durability, is_current, insert_all)
                }
                true => with_scratch(|record| {
                    core.check_writable()?;
                    // Operations encoded by this batch always decode.
                    let rows = Operations::new(&self.record[HEADER_BYTES..]).map_while(Result::ok);
                    let expanded = maintenance::expand(core, rows, record)?;
                    let durability = expanded.durability(core, options.durability);
                    let (operations, weight) = (expanded.operations, expanded.weight);
                    commit(core, record, operations, weight, durability, is_current, insert_all)
                }),
            };
            // A refused commit (by a full disk, for example) leaves the batch unchanged, so that it
            // can be retried.
            self.record.truncate(bytes);
            if let Some(committed) = committed? {
                break committed;
            }
        };
        self.clear();
        Ok(Commit::new(&self.db, committed))
    }
}
