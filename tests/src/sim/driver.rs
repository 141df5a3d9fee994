//! Runs operations on a database and on the oracle, and compares the results.
//!
//! Every result is compared with the oracle's (O4 snapshots, O7 cursors and iterators, gets and
//! scans). After an open the directory must hold the referenced files and no others (O8); after a
//! close nothing may be open (O9); memory stays within the budget (O12); the MANIFEST's statements
//! about tables are true (O13); sequence numbers only grow, also across crashes (O14).
//!
//! A driver can follow the clock ([`Driver::follow_clock`]). It then acts as the log thread: it
//! sleeps for the duration that this thread would choose, and a commit with `Durability::Periodic`
//! must be durable when its time has come.
use crate::oracle::{Incarnation, Oracle};
use crate::sim::operation::{Operation, SLOTS, space_name};
use crate::sim::tuning::Tuning;
use sapwood::{BackgroundStep, Cursor, Db, Env, Error, Health, Keyspace, Snapshot};
use sapwood_storage::sim::SimFs;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3;

mod commits;
mod reads;
mod maintenance;
mod lifetime;
mod checks;
pub mod indexes;
mod runs;
mod scarce;

/// The directory of simulated databases.
pub const DIRECTORY: &str = "db";

/// Many more steps than there can be work for.
const STEPS_TO_SETTLE: u32 = 5000;

/// How often the files of a closed database are polled; after the first 2000 polls with a pause.
const CLOSE_ATTEMPTS: u32 = 4000;

/// The allowed delay of a periodic sync: reading the clock takes time, too.
const CLOCK_ALLOWANCE: Duration = Duration::from_millis(1);

/// The structure is checked after one structural change in this many: a check reads every table.
const STRUCTURE_ONE_IN: u32 = 6;

/// The reason why a run ended.
#[derive(Debug)]
pub enum Stop {
    /// The database broke a promise; the text begins with its number.
    Violation(String),
    /// A call returned an error. The caller decides whether the error is allowed.
    Error(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Error(error)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Violation(what) => f.write_str(what),
            Stop::Error(error) => write!(f, "a call failed: {error}"),
        }
    }
}

/// The result of a step.
pub type Outcome<T = ()> = Result<T, Stop>;

fn violation<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Stop::Violation(what.into()))
}

/// Observes every change of the database's promises, before the next operation.
pub trait Observer {
    /// The oracle's promise has changed.
    ///
    /// Errors end the run as a violation.
    fn moved(&mut self, oracle: &Oracle) -> Result<(), String>;

    /// Called between two calls of [`Observer::moved`] if time alone has changed the promise, which
    /// the disk must keep in its present state.
    fn time_passed(&mut self, _oracle: &Oracle, _fs: &SimFs) {}
}

impl Observer for () {
    fn moved(&mut self, _oracle: &Oracle) -> Result<(), String> {
        Ok(())
    }
}

struct Taken {
    snapshot: Snapshot,
    commits: u64,
}

struct Held {
    cursor: Cursor,
    space: Incarnation,
    commits: u64,
    /// The key at the cursor.
    at: Option<Vec<u8>>,
}

/// A database and its oracle. The machine must have no threads, see [`Env::sim_manual`].
pub struct Driver {
    env: Env,
    fs: SimFs,
    path: PathBuf,
    tuning: Tuning,
    oracle: Oracle,
    db: Option<Db>,
    snapshots: [Option<Taken>; SLOTS as usize],
    cursors: [Option<Held>; SLOTS as usize],
    paused: bool,
    /// The number of operations that may have changed the structure.
    changes: u32,
    /// Bytes of the largest batch.
    largest_batch: u64,
    /// Bytes of memtables beyond their sizes that the last open made of the log, including large
    /// batches.
    replayed: u64,
    answers: Xxh3,
    /// When the log thread wakes, if the driver acts as that thread.
    log_wakes: Option<Duration>,
    /// The number of commits when an index was created or rebuilt: the index need not cover earlier
    /// states.
    index_since: BTreeMap<(Incarnation, u8), u64>,
    /// Indexes whose creation failed for lack of a resource.
    unfinished: BTreeSet<(Incarnation, u8)>,
    /// Whether a resource is scarce: operations that read or list everything are postponed.
    is_scarce: bool,
}

impl Driver {
    /// Opens the database on `env`, whose file system is `fs`, and compares it with `oracle`.
    pub fn open(env: &Env, fs: &SimFs, tuning: &Tuning, oracle: Oracle) -> Outcome<Driver> {
        let db = tuning.builder(DIRECTORY, env).open()?;
        let mut driver = Driver::with(db, env, fs, tuning, oracle);
        driver.check_opened()?;
        driver.check_structure()?;
        Ok(driver)
    }

    /// Drives a database that is already open.
    pub fn with(db: Db, env: &Env, fs: &SimFs, tuning: &Tuning, oracle: Oracle) -> Driver {
        Driver {
            env: env.clone(),
            fs: fs.clone(),
            path: db.path().to_path_buf(),
            tuning: tuning.clone(),
            oracle,
            replayed: replayed(&db, tuning),
            db: Some(db),
            snapshots: [const { None }; SLOTS as usize],
            cursors: [const { None }; SLOTS as usize],
            paused: false,
            changes: 0,
            largest_batch: 0,
            answers: Xxh3::new(),
            log_wakes: None,
            index_since: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            is_scarce: false,
        }
    }

    /// From now on the promises of commits with `Durability::Periodic` are checked, and the log
    /// thread runs on time as long as such a commit waits for it. Otherwise the workload decides
    /// the steps.
    pub fn follow_clock(&mut self) {
        self.log_wakes = Some(Duration::ZERO);
    }

    /// The database.
    pub fn db(&self) -> &Db {
        self.db.as_ref().expect("open unless an open failed")
    }

    /// The oracle.
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// The oracle, to record the fate of a commit whose call failed.
    pub fn oracle_mut(&mut self) -> &mut Oracle {
        &mut self.oracle
    }

    /// The file system. [`Operation::PowerLoss`] replaces it.
    pub fn fs(&self) -> &SimFs {
        &self.fs
    }

    /// The present settings.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// The directory of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A hash of all results of reads so far.
    pub fn answers(&self) -> u64 {
        self.answers.digest()
    }

    /// Runs all operations; an error includes the operation that ended the run.
    pub fn run(
        &mut self,
        operations: &[Operation],
        observer: &mut dyn Observer,
    ) -> Result<(), (usize, Stop)> {
        for (i, operation) in operations.iter().enumerate() {
            self.apply(operation, observer).map_err(|stop| (i, stop))?;
        }
        Ok(())
    }

    /// Runs one operation.
    ///
    /// After an error of a commit the oracle holds it as submitted, not acknowledged: see
    /// [`Oracle::withdraw`]. Until that is resolved, the present state cannot be compared, and
    /// reads of it do nothing.
    pub fn apply(&mut self, operation: &Operation, observer: &mut dyn Observer) -> Outcome {
        use Operation::*;
        match operation {
            Commit { writes, single, durability, wait } => {
                self.commit(writes, *single, *durability, *wait, observer)?;
            }
            Queue { space, from, pushes, pops, len } => {
                self.queue(*space, *from..*from + u32::from(*pushes), *pops, *len, observer)?;
            }
            Overwrite { space, key, times, value } => {
                self.overwrite(*space, key, *times, *value, observer)?;
            }
            Get { space, key, at, lookup } => self.get(*space, key, *at, *lookup)?,
            MultiGet { space, keys } => self.multi_get(*space, keys)?,
            Snapshot(slot) => self.take_snapshot(*slot),
            Release(slot) => self.snapshots[usize::from(*slot)] = None,
            Compare(at) => self.compare(*at)?,
            OpenCursor { slot, space, at } => self.open_cursor(*slot, *space, *at)?,
            MoveCursor { slot, moves } => self.move_cursor(*slot, moves)?,
            CloseCursor(slot) => self.cursors[usize::from(*slot)] = None,
            Range(range) => self.range(range)?,
            Sync => self.sync(observer)?,
            Flush => self.flush(observer)?,
            CompactRange { space, lower, upper } => self.compact_range(*space, lower, upper, observer)?,
            Compact => self.compact(observer)?,
            Background(step) => self.background(*step, observer)?,
            WaitForBackground => self.wait_for_background()?,
            Pause => self.pause()?,
            Resume => self.resume(),
            Tick(duration) => self.tick(*duration, observer)?,
            CreateSpace(space) => self.create_space(*space, observer)?,
            DropSpace(space) => self.drop_space(*space, observer)?,
            CreateIndex { space, index } => self.create_index(*space, *index, observer)?,
            DropIndex { space, index } => self.drop_index(*space, *index, observer)?,
            RebuildIndex { space, index } => self.rebuild_index(*space, *index, observer)?,
            AskIndex { space, index, at, question } => self.ask_index(*space, *index, *at, question)?,
            Reopen(tuning) => self.close_and_reopen(*tuning, observer)?,
            PowerLoss(seed) => self.power_loss(*seed, observer)?,
        }
        self.be_log_thread(observer)?;
        if operation.may_change_structure() {
            self.changes += 1;
            if self.changes.is_multiple_of(STRUCTURE_ONE_IN) {
                self.check_structure()?;
            }
        }
        self.check_memory()
    }

    /// Runs background work to its end (O11), which it must reach soon.
    pub fn settle(&mut self) -> Outcome {
        self.resume();
        for _ in 0..STEPS_TO_SETTLE {
            let mut any = false;
            for kind in BackgroundStep::ALL {
                any |= self.db().background_step(kind)?;
            }
            match self.db().health() {
                Health::Good => {}
                Health::NoSpace(error) | Health::Poisoned(error) => return Err(Stop::Error(error)),
            }
            if !any {
                return Ok(());
            }
        }
        violation(format!("O11: background work continues after {STEPS_TO_SETTLE} steps of each kind"))
    }

    /// Drops all cursors and snapshots.
    pub fn let_go(&mut self) {
        self.cursors = [const { None }; SLOTS as usize];
        self.snapshots = [const { None }; SLOTS as usize];
    }

    fn moved(&mut self, observer: &mut dyn Observer) -> Outcome {
        observer.moved(&self.oracle).map_err(Stop::Violation)
    }

    /// Ends a pause before an operation that would wait for background work forever.
    fn resume(&mut self) {
        if std::mem::take(&mut self.paused) {
            self.db().resume_background();
        }
    }

    /// The number of the last commit, if it is certain.
    fn present(&self) -> Option<u64> {
        let promise = self.oracle.promise();
        (promise.acknowledged == promise.submitted).then_some(promise.acknowledged)
    }

    /// A handle of an existing keyspace.
    fn keyspace(&self, space: u8) -> Outcome<Option<(Keyspace, Incarnation)>> {
        let Some(incarnation) = self.oracle.space(space) else { return Ok(None) };
        let keyspace = self.db().keyspace(&space_name(space), self.tuning.keyspace.clone())?;
        Ok(Some((keyspace, incarnation)))
    }

    /// The snapshot in a slot, and the number of commits that it, or the present, sees. `None` if
    /// the slot is empty.
    fn moment(&self, at: Option<u8>) -> Option<(Option<&Snapshot>, u64)> {
        match at {
            Some(slot) => {
                let taken = self.snapshots[usize::from(slot)].as_ref()?;
                Some((Some(&taken.snapshot), taken.commits))
            }
            None => Some((None, self.present()?)),
        }
    }
}

/// See [`Driver::replayed`].
fn replayed(db: &Db, tuning: &Tuning) -> u64 {
    db.memory().memtables.saturating_sub((tuning.max_memtables * tuning.memtable_bytes) as u64)
}

fn in_context(stop: Stop, context: &str) -> Stop {
    match stop {
        Stop::Violation(what) => Stop::Violation(format!("{what} ({context})")),
        error => error,
    }
}
