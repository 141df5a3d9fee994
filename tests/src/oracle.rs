//! The oracle of crashes: the history of commits, and what of it a database may show afterwards.
//!
//! Every commit also writes its number under [`COUNTER`] in the default keyspace. So a database says by itself how
//! much of the history it holds, and everything else in it is compared with exactly that prefix.
use crate::harness::{contents, difference};
use crate::model::{Map, Operation, apply};
use sapwood::{Db, Durability, Error, KeyspaceOptions, Result};
use std::collections::BTreeMap;

/// The key that holds the number of the last commit.
pub const COUNTER: &[u8] = b"\xFFcommit";
/// The keyspace that counts.
pub const DEFAULT: &str = "default";

/// One operation of a commit: the incarnation of a keyspace, and what is done there.
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
    /// Keyspaces by name. A name that is dropped and made again has a new incarnation.
    spaces: BTreeMap<String, u64>,
    next_incarnation: u64,
    /// A keyspace whose creation or drop was cut short, with the incarnation it has if it exists.
    unsure: Option<(String, u64)>,
    /// A dropped keyspace that may come back, with any of what was in it.
    ghost: Option<String>,
}

impl Oracle {
    /// Nothing happened yet.
    pub fn new() -> Oracle {
        Oracle {
            spaces: BTreeMap::from([(DEFAULT.to_string(), 0)]),
            next_incarnation: 1,
            ..Oracle::default()
        }
    }

    /// Commits so far, those in doubt included.
    pub fn len(&self) -> u64 {
        self.first + self.commits.len() as u64
    }

    /// Whether nothing was committed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Names of the keyspaces that exist.
    pub fn names(&self) -> Vec<String> {
        self.spaces.keys().cloned().collect()
    }

    /// Notes a creation before it is tried.
    pub fn creating(&mut self, name: &str) {
        self.unsure = Some((name.to_string(), self.next_incarnation));
        self.next_incarnation += 1;
    }

    /// The creation succeeded.
    pub fn created(&mut self) {
        let (name, incarnation) = self.unsure.take().expect("a creation was noted");
        self.spaces.insert(name, incarnation);
    }

    /// Notes a drop before it is tried.
    pub fn dropping(&mut self, name: &str) {
        let incarnation = self.spaces.remove(name).expect("an existing keyspace");
        self.unsure = Some((name.to_string(), incarnation));
    }

    /// The drop succeeded.
    pub fn dropped(&mut self) {
        self.unsure = None;
    }

    /// The drop succeeded, but the device lied about it: the keyspace may come back.
    pub fn dropped_in_vain(&mut self) {
        self.ghost = self.unsure.take().map(|(name, _)| name);
    }

    /// Commits operations (name of keyspace, operation) as the next of the history, in one batch with the counter.
    ///
    /// On an error of a kind that leaves the commit in doubt the history keeps it; see [`Oracle::withdraw`].
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

    /// Everything acknowledged is durable from now on.
    pub fn synced(&mut self) {
        self.durable = self.acknowledged;
    }

    /// Takes the last commit back: it was refused.
    pub fn withdraw(&mut self) {
        assert!(self.acknowledged < self.len(), "an acknowledged commit cannot be taken back");
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

    /// Compares the database with the prefix that it says it holds, which must have at least `floor` commits.
    ///
    /// Returns the length of the prefix; panics with what is wrong. Errors are those of reads.
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
        assert!(count >= self.first, "commits that were there before are gone: {count} of {}", self.first);
        let state = self.state(count);
        let mut spaces = self.spaces.clone();
        let mut names = db.list_keyspaces()?;
        names.retain(|name| self.ghost.as_ref() != Some(name));
        if let Some((name, incarnation)) = &self.unsure
            && names.contains(name)
        {
            spaces.insert(name.clone(), *incarnation);
        }
        // A keyspace of the same name that was dropped is not seen again, so equal names suffice.
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

    /// Checks a database that was opened after a crash, and goes on from what it holds, all of it made durable.
    pub fn recovered(&mut self, db: &Db, floor: u64) -> Result<u64> {
        let count = self.check(db, floor)?;
        // What a kill has left need not be durable: an opening does not wait for that.
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
