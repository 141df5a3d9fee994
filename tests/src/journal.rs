//! Commits operations to a database and records them in the oracle, for tests that run a database
//! by themselves.
//!
//! Every commit also writes its number under [`COUNTER`] in the default keyspace. So no two commits
//! leave the same content, and the content determines the length of the history exactly.
use crate::harness::contents;
use crate::oracle::{Bytes, Contents, Map, Oracle, Place, Promise};
use crate::sim::operation::{space_name, space_number};
use crate::sim::verify;
use sapwood::{Db, Durability, Error, Keyspace, KeyspaceOptions, Result, WriteBatch};

/// The key that holds the number of the last commit.
pub const COUNTER: &[u8] = b"\xFFcommit";

/// A write of one key: the number of the keyspace, the key, the new value.
pub type Write = (u8, Vec<u8>, Option<Bytes>);

/// Adds writes to a batch. The number of a keyspace is an index into `keyspaces`.
pub fn fill(batch: &mut WriteBatch, keyspaces: &[Keyspace], writes: &[Write]) {
    for (space, key, value) in writes {
        let keyspace = &keyspaces[usize::from(*space)];
        match value {
            Some(value) => batch.put(keyspace, key, value),
            None => batch.delete(keyspace, key),
        };
    }
}

/// Applies writes to the content of keyspaces. The number of a keyspace is an index into `maps`.
pub fn apply<'w>(maps: &mut [Map], writes: impl IntoIterator<Item = &'w Write>) {
    for (space, key, value) in writes {
        let map = &mut maps[usize::from(*space)];
        match value {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}

/// A history and its promises.
#[derive(Clone, Default)]
pub struct Journal {
    oracle: Oracle,
    /// Commits that the oracle does not hold one by one: the content that was found last.
    first: u64,
    /// A dropped keyspace that may come back, with any part of its content.
    ghost: Option<u8>,
}

impl Journal {
    /// An empty history.
    pub fn new() -> Journal {
        Journal::default()
    }

    /// The number of commits, including those in doubt.
    pub fn len(&self) -> u64 {
        self.first + self.oracle.promise().submitted
    }

    /// Whether the history is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Commits that survive the end of the process.
    pub fn acknowledged(&self) -> u64 {
        self.first + self.oracle.promise().acknowledged
    }

    /// Commits that survive a power loss.
    pub fn durable(&self) -> u64 {
        self.first + self.oracle.promise().durable
    }

    /// The keyspaces that exist.
    pub fn spaces(&self) -> Vec<u8> {
        self.oracle.promise().spaces.keys().copied().collect()
    }

    /// Whether a keyspace exists.
    pub fn has_space(&self, space: u8) -> bool {
        self.oracle.space(space).is_some()
    }

    /// Creates a keyspace. After an error it may exist.
    pub fn create_space(&mut self, db: &Db, space: u8) -> Result<()> {
        self.oracle.creating(space);
        db.keyspace(&space_name(space), KeyspaceOptions::default())?;
        self.oracle.created();
        Ok(())
    }

    /// Drops a keyspace. After an error it may exist.
    pub fn drop_space(&mut self, db: &Db, space: u8) -> Result<()> {
        self.oracle.dropping(space);
        db.drop_keyspace(&space_name(space))?;
        self.oracle.dropped();
        Ok(())
    }

    /// The device lied about the drop of this keyspace: it may come back.
    pub fn may_come_back(&mut self, space: u8) {
        self.ghost = Some(space);
    }

    /// Commits writes as the next commit of the history, in one batch with the counter.
    ///
    /// If the error leaves the commit in doubt, the history keeps it; see [`Journal::withdraw`].
    pub fn commit(
        &mut self,
        db: &Db,
        writes: Vec<Write>,
        durability: Durability,
    ) -> std::result::Result<(), Error> {
        let counter = (0, COUNTER.to_vec(), Some(Bytes::from((self.len() + 1).to_be_bytes())));
        let mut batch = db.batch();
        let mut changes = Vec::new();
        for (space, key, value) in writes.into_iter().chain([counter]) {
            let keyspace = db.keyspace(&space_name(space), KeyspaceOptions::default())?;
            match &value {
                Some(value) => batch.put(&keyspace, &key, value),
                None => batch.delete(&keyspace, &key),
            };
            changes.push((self.oracle.space(space).expect("an existing keyspace"), key, value));
        }
        self.oracle.submit(changes, durability);
        let commit = batch.commit_durable(durability)?;
        self.oracle.acknowledge(durability == Durability::Sync, Some(commit.sequence().0));
        Ok(())
    }

    /// Every acknowledged commit is durable from now on.
    pub fn synced(&mut self) {
        self.oracle.synced();
    }

    /// Withdraws the last commit, which was refused.
    pub fn withdraw(&mut self) {
        self.oracle.withdraw();
    }

    /// Compares the database, read in every way, with the history: it must be a prefix with at
    /// least `floor` commits.
    ///
    /// Returns the length of the prefix; panics with the difference. Errors are those of reads.
    pub fn check(&self, db: &Db, floor: u64) -> Result<u64> {
        self.find(db, floor).map(|(_, place)| self.first + place.commits)
    }

    fn find(&self, db: &Db, floor: u64) -> Result<(Contents, Place)> {
        assert!(floor <= self.len(), "{floor} commits are required, and there are {}", self.len());
        let mut found = Contents::new();
        for name in db.list_keyspaces()? {
            let space =
                space_number(&name).unwrap_or_else(|| panic!("O6: keyspace {name:?} was never created"));
            if self.ghost != Some(space) {
                found.insert(space, contents(&db.keyspace(&name, KeyspaceOptions::default())?)?);
            }
        }
        let durable = floor.saturating_sub(self.first);
        let promise = Promise { durable, ..self.oracle.promise().clone() };
        match self.oracle.find(&verify::sums(&found), &promise, true, || found.clone()) {
            Ok(place) => Ok((found, place)),
            Err(violation) => panic!("after {} commits: {violation}", self.first),
        }
    }

    /// Checks a database that was opened after a crash, and continues from its content, which
    /// becomes durable.
    pub fn recovered(&mut self, db: &Db, floor: u64) -> Result<u64> {
        let (found, place) = self.find(db, floor)?;
        // The remains of a kill need not be durable: an open does not wait for that.
        db.sync()?;
        self.first += place.commits;
        self.oracle = Oracle::from_contents(&found, 0);
        Ok(self.first)
    }
}
