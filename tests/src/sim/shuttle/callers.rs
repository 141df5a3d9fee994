//! Calls of every kind concurrent with a close, and the remains of a session after it.
use super::{Plan, SPACES, Stage};
use crate::oracle::Map;
use crate::sim::indexes::options;
use sapwood::{Db, Durability, Env, Keyspace, KeyspaceOptions, Remains, Result};
use sapwood_storage::sim::{Schedule, SimFs, User};
use std::sync::Arc;
use std::time::Duration;

/// The number of calling threads.
pub(super) const CALLERS: u64 = 3;
/// The most calls of each; the close stops most of them.
const CALLS: u32 = 30;
/// The number of keys that the session after a close writes.
const LATER: u32 = 24;
/// The prefix of keys of the session after a close.
pub(super) const LATER_KEYS: &str = "later-";
/// The prefix of names of indexes that callers create and drop.
pub(super) const CALLERS_INDEX: &str = "index-of-";
/// Rounds of the collector after which remaining objects count as leaked.
const TURNS: u32 = 4000;

impl Stage {
    /// The thread of one caller.
    pub(super) fn call(&self, caller: u64) -> Result<()> {
        let mut random = self.random(70 + caller);
        for _ in 0..CALLS {
            let space = &self.spaces[random.usize(..SPACES.len())];
            match random.u8(..16) {
                0..5 => self.served(|| self.db.compact())?,
                5..7 => self.served(|| space.compact_range::<&[u8]>(..))?,
                7 => self.served(|| space.compact_range("counter".."key-20"))?,
                8 => self.served(|| self.db.flush())?,
                9 => self.served(|| self.db.settle())?,
                10 => self.served(|| self.db.wait_for_background())?,
                11 => {
                    self.db.pause_background()?;
                    self.env.sleep(Duration::from_micros(random.u64(..500)));
                    self.db.resume_background();
                }
                12 => {
                    self.db.list_keyspaces()?;
                    self.db.sync()?;
                }
                _ if !self.plan.has_indexes => {
                    space.iter().take(20).try_for_each(|entry| entry.map(drop))?;
                }
                13 => {
                    let names = space.list_indexes()?;
                    for name in names.iter().filter(|name| !name.starts_with(CALLERS_INDEX)) {
                        let report = space.index(name)?.verify()?;
                        assert!(report.is_right(), "O5: {name} while others write: {report:?}");
                    }
                }
                // An index of its own, of a kind of its own, so that every open knows its options.
                _ => {
                    let name = format!("{CALLERS_INDEX}{caller}");
                    self.served(|| space.create_index(&name, options(caller as u8)))?;
                    space.drop_index(&name)?;
                }
            }
        }
        Ok(())
    }
}

/// One session, and its resources.
pub(super) struct Session {
    name: &'static str,
    user: User,
}

impl Session {
    /// An environment whose file system counts the files opened through it.
    pub(super) fn new(name: &'static str, env: &Env, fs: &SimFs) -> (Env, Session) {
        let (fs, user) = fs.for_user();
        (env.with_file_system(Arc::new(fs)), Session { name, user })
    }

    /// A close has returned: none of its threads is active, and its lock is free.
    pub(super) fn has_closed(&self, schedule: &Schedule) {
        self.user.retire();
        let threads = schedule.live_threads();
        let own: Vec<&String> = threads.iter().filter(|name| name.starts_with("sapwood-")).collect();
        assert!(own.is_empty(), "O9: threads work after the close of the {}: {own:?}", self.name);
        assert!(self.user.locks() == 0, "O9: the {} holds its lock after its close", self.name);
    }

    /// All calls have returned: the session has changed nothing since its close.
    pub(super) fn has_changed_nothing(&self) {
        let (count, calls) = self.user.late_calls();
        assert!(count == 0, "O9: the {} made {count} changing calls after its close: {calls:?}", self.name);
    }

    /// All handles were dropped, too: the session has no open file and no memory.
    pub(super) fn holds_nothing(&self, remains: &Remains) {
        self.has_changed_nothing();
        for _ in 0..TURNS {
            if self.user.files() == 0 && remains.left().is_empty() {
                return;
            }
            crossbeam_epoch::pin().flush();
        }
        let left = remains.left().join(", ");
        panic!("O9: the {} has {} files open after its close, and {left}", self.name, self.user.files());
    }
}

/// The work of the session after a close, while calls of the previous one may still return.
pub(super) fn work_later(plan: &Plan, env: &Env) -> Result<(Db, Map)> {
    let db = plan.builder(env).open()?;
    let spaces: Vec<Keyspace> =
        SPACES.iter().map(|name| db.keyspace(name, KeyspaceOptions::default())).collect::<Result<_>>()?;
    for space in &spaces {
        // An index whose drop the close prevented has no code now.
        let names = space.list_indexes()?;
        names
            .iter()
            .filter(|name| name.starts_with(CALLERS_INDEX))
            .try_for_each(|name| space.drop_index(name))?;
    }
    let mut random = fastrand::Rng::with_seed(plan.seed);
    let mut rows = Map::new();
    for number in 0..LATER {
        let key = format!("{LATER_KEYS}{number:02}").into_bytes();
        let value = vec![random.u8(..); 1 + random.usize(..300)];
        let mut batch = db.batch();
        for space in &spaces {
            batch.put(space, &key, &value);
        }
        let _ = batch.commit_durable(Durability::Buffered)?;
        rows.insert(key, value.into());
        if number % 12 == 11 {
            db.compact()?;
        }
    }
    for space in &spaces {
        for name in space.list_indexes()? {
            let report = space.index(&name)?.verify()?;
            assert!(report.is_right(), "O5: {name} of {} after a close: {report:?}", space.name());
        }
    }
    Ok((db, rows))
}
