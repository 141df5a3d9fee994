//! The oracle of crashes: the history of commits, and the part of it that a database may show
//! afterwards.
//!
//! Every commit also writes its number under [`COUNTER`] in the default keyspace. So each database
//! states the length of its history, and everything else in it is compared with exactly that
//! prefix.
use crate::harness::{contents, difference};
use crate::model::{Map, Operation, apply};
use sapwood::{Db, Durability, Error, KeyspaceOptions, Result};
use std::collections::BTreeMap;

/// The key that holds the number of the last commit.
pub const COUNTER: &[u8] = b"\xFFcommit";
/// The keyspace that holds the counter.
pub const DEFAULT: &str = "default";

/// One operation of a commit, with the incarnation of its keyspace.
pub type SpaceOperation = (u64, Operation);

/// A history and its promises.
#[derive(Clone, Default)]
pub struct Oracle {
    /// The state after `first` commits, by incarnation of keyspaces.
    base: BTreeMap<u64, Map>,
    first: u64,
    commits: Vec<Vec<SpaceOperation>>,
    /// Commits that survive the end of the process.
    pub acknowledged: u64,
    /// Commits that survive a power loss.
    pub durable: u64,
    /// Keyspaces by name. A name that is reused after a drop has a new incarnation.
    spaces: BTreeMap<String, u64>,
    next_incarnation: u64,
    /// A keyspace whose creation or drop was interrupted, with the incarnation it has if it exists.
    unsure: Option<(String, u64)>,
    /// A dropped keyspace that may come back, with any part of its content.
    ghost: Option<String>,
}

impl Oracle {
    /// An empty history.
    pub fn new() -> Oracle {
        Oracle {
            spaces: BTreeMap::from([(DEFAULT.to_string(), 0)]),
            next_incarnation: 1,
            ..Oracle::default()
        }
    }

    /// The number of commits, including those in doubt.
    pub fn len(&self) -> u64 {
        self.first + self.commits.len() as u64
    }

    /// Whether the history is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the keyspaces that exist.
    pub fn names(&self) -> Vec<String> {
        self.spaces.keys().cloned().collect()
    }

    /// Records a creation before it is attempted.
    pub fn creating(&mut self, name: &str) {
        self.unsure = Some((name.to_string(), self.next_incarnation));
        self.next_incarnation += 1;
    }

    /// Records that the creation succeeded.
    pub fn created(&mut self) {
        let (name, incarnation) = self.unsure.take().expect("a creation was noted");
        self.spaces.insert(name, incarnation);
    }

    /// Records a drop before it is attempted.
    pub fn dropping(&mut self, name: &str) {
        let incarnation = self.spaces.remove(name).expect("an existing keyspace");
        self.unsure = Some((name.to_string(), incarnation));
    }

    /// Records that the drop succeeded.
    pub fn dropped(&mut self) {
        self.unsure = None;
    }

    /// Records that the drop succeeded while the device lied: the keyspace may come back.
    pub fn dropped_in_vain(&mut self) {
        self.ghost = self.unsure.take().map(|(name, _)| name);
    }

    /// Commits operations (name of keyspace, operation) as the next commit of the history, in one
    /// batch with the counter.
    ///
    /// If the error leaves the commit in doubt, the history keeps it; see [`Oracle::withdraw`].
    pub fn commit(
        &mut self,
        db: &Db,
        operations: Vec<(String, Operation)>,
        durability: Durability,
    ) -> std::result::Result<(), Error> {
        let number = self.len() + 1;
        let mut batch = db.batch();
        let mut noted = Vec::new();
        let counter = Operation::Put(COUNTER.to_vec(), number.to_be_bytes().to_vec());
        for (name, operation) in operations.into_iter().chain([(DEFAULT.to_string(), counter)]) {
            let keyspace = db.keyspace(&name, KeyspaceOptions::default())?;
            match &operation {
                Operation::Put(key, value) => batch.put(&keyspace, key, value),
                Operation::Delete(key) => batch.delete(&keyspace, key),
            };
            noted.push((self.spaces[&name], operation));
        }
        self.commits.push(noted);
        let commit = batch.commit_durable(durability)?;
        drop(commit);
        self.acknowledged = number;
        if durability == Durability::Sync {
            self.durable = number;
        }
        Ok(())
    }

    /// Every acknowledged commit is durable from now on.
    pub fn synced(&mut self) {
        self.durable = self.acknowledged;
    }

    /// Withdraws the last commit, which was refused.
    pub fn withdraw(&mut self) {
        assert!(self.acknowledged < self.len(), "an acknowledged commit cannot be withdrawn");
        self.commits.pop();
    }

    /// The state after `count` commits.
    fn state(&self, count: u64) -> BTreeMap<u64, Map> {
        let mut state = self.base.clone();
        for commit in &self.commits[..(count - self.first) as usize] {
            for (space, operation) in commit {
                apply(state.entry(*space).or_default(), std::slice::from_ref(operation));
            }
        }
        state
    }

    /// Compares the database with the prefix whose length it states, which must be at least
    /// `floor`.
    ///
    /// Returns the length of the prefix; panics with the difference. Errors are those of reads.
    pub fn check(&self, db: &Db, floor: u64) -> Result<u64> {
        let counter = db.default_keyspace().get(COUNTER)?;
        let count = match counter {
            Some(bytes) => u64::from_be_bytes(bytes[..].try_into().expect("a counter has eight bytes")),
            None => 0,
        };
        assert!(
            (floor..=self.len()).contains(&count),
            "the database holds {count} commits, not between {floor} and {}",
            self.len()
        );
        assert!(count >= self.first, "commits that were present before are gone: {count} of {}", self.first);
        let state = self.state(count);
        let mut spaces = self.spaces.clone();
        let mut names = db.list_keyspaces()?;
        names.retain(|name| self.ghost.as_ref() != Some(name));
        if let Some((name, incarnation)) = &self.unsure
            && names.contains(name)
        {
            spaces.insert(name.clone(), *incarnation);
        }
        // A dropped keyspace of the same name does not come back, so equal names suffice.
        assert_eq!(names, spaces.keys().cloned().collect::<Vec<_>>(), "keyspaces");
        for (name, incarnation) in &spaces {
            let keyspace = db.keyspace(name, KeyspaceOptions::default())?;
            let empty = Map::new();
            let want = state.get(incarnation).unwrap_or(&empty);
            if let Some(difference) = difference(&contents(&keyspace)?, want) {
                panic!("keyspace {name:?} at commit {count}: {difference}");
            }
        }
        Ok(count)
    }

    /// Checks a database that was opened after a crash, and continues from its content, which
    /// becomes durable.
    pub fn recovered(&mut self, db: &Db, floor: u64) -> Result<u64> {
        let count = self.check(db, floor)?;
        // The remains of a kill need not be durable: an opening does not wait for that.
        db.sync()?;
        if let Some((name, incarnation)) = self.unsure.take()
            && db.list_keyspaces()?.contains(&name)
        {
            self.spaces.insert(name, incarnation);
        }
        self.base = self.state(count);
        self.base.retain(|space, _| self.spaces.values().any(|live| live == space));
        self.first = count;
        self.commits.clear();
        self.acknowledged = count;
        self.durable = count;
        Ok(count)
    }
}
