//! Runs operations on a database and on the oracle, and compares the results.
//!
//! Every result is compared with the oracle's (O4 snapshots, O7 cursors and iterators, gets and
//! scans). After openings the directory must hold the referenced files and no others (O8); after a
//! close nothing may be open (O9); memory stays within the budget (O12); the MANIFEST's statements
//! about tables are true (O13); sequence numbers only grow, also across crashes (O14).
//!
//! A driver can follow the clock ([`Driver::follow_clock`]). It then acts as the log thread: it
//! sleeps for the duration that this thread would choose, and a commit with `Durability::Periodic`
//! must be durable when its time has come.
use crate::oracle::{Change, Incarnation, Map, Oracle, is_empty};
use crate::sim::indexes::needs_log;
use crate::sim::operation::{
    Lookup, Move, Operation, Range, SLOTS, Step, Write, show_key, space_name, space_number,
};
use crate::sim::tuning::Tuning;
use crate::sim::verify;
use sapwood::{BackgroundStep, Cursor, Db, Durability, Env, Error, Health, Keyspace, Snapshot, WriteOptions};
use sapwood_base::key::prefix_successor;
use sapwood_storage::sim::SimFs;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3;

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
    fn time_passed(&mut self, _model: &Oracle, _fs: &SimFs) {}
}

impl Observer for () {
    fn moved(&mut self, _model: &Oracle) -> Result<(), String> {
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
    /// Bytes of memtables beyond their sizes that the last opening made of the log, including large
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
        self.db.as_ref().expect("open unless an opening failed")
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
        match operation {
            Operation::Commit { writes, single, durability, wait } => {
                self.commit(writes, *single, *durability, *wait, observer)?;
            }
            Operation::Get { space, key, at, lookup } => self.get(*space, key, *at, *lookup)?,
            Operation::MultiGet { space, keys } => self.multi_get(*space, keys)?,
            Operation::Snapshot(slot) => {
                if let Some(commits) = self.present() {
                    let snapshot = self.db().snapshot();
                    self.snapshots[usize::from(*slot)] = Some(Taken { snapshot, commits });
                }
            }
            Operation::Release(slot) => self.snapshots[usize::from(*slot)] = None,
            Operation::Compare(at) => self.compare(*at)?,
            Operation::OpenCursor { slot, space, at } => self.open_cursor(*slot, *space, *at)?,
            Operation::MoveCursor { slot, moves } => self.move_cursor(*slot, moves)?,
            Operation::CloseCursor(slot) => self.cursors[usize::from(*slot)] = None,
            Operation::Range(range) => self.range(range)?,
            Operation::Sync => {
                self.db().sync()?;
                self.oracle.synced();
                self.moved(observer)?;
            }
            Operation::Flush => {
                self.resume();
                self.db().flush()?;
                self.oracle.flushed();
                self.moved(observer)?;
            }
            Operation::CompactRange { space, lower, upper } => {
                let Some((keyspace, _)) = self.keyspace(*space)? else { return Ok(()) };
                self.resume();
                keyspace.compact_range(lower.as_slice()..upper.as_slice())?;
                self.oracle.flushed();
                self.moved(observer)?;
            }
            Operation::Compact => {
                self.resume();
                self.db().compact()?;
                self.oracle.flushed();
                self.moved(observer)?;
            }
            Operation::Background(step) => self.background(*step, observer)?,
            Operation::WaitForBackground => {
                self.resume();
                self.db().wait_for_background()?;
                self.check_tidy()?;
            }
            Operation::CreateSpace(space) => {
                if self.oracle.space(*space).is_none() {
                    self.oracle.creating(*space);
                    self.moved(observer)?;
                    self.db().keyspace(&space_name(*space), self.tuning.keyspace.clone())?;
                    self.oracle.created();
                    self.moved(observer)?;
                }
            }
            Operation::DropSpace(space) => {
                if *space == 0 {
                    return Ok(());
                }
                let Some((keyspace, _)) = self.keyspace(*space)? else { return Ok(()) };
                self.oracle.dropping(*space);
                self.moved(observer)?;
                self.db().drop_keyspace(&space_name(*space))?;
                self.oracle.dropped();
                self.moved(observer)?;
                if keyspace.get("any").is_ok() {
                    return violation("O6: a handle of a dropped keyspace still reads");
                }
            }
            Operation::Reopen(tuning) => {
                if let Some(number) = tuning {
                    self.tuning = Tuning::draw(&mut fastrand::Rng::with_seed(u64::from(*number)));
                }
                self.close(observer)?;
                self.reopen()?;
                self.moved(observer)?;
            }
            Operation::PowerLoss(seed) => {
                // Commits that no flush has saved may be lost, so they are flushed first: the
                // results must be equal under all settings.
                self.resume();
                self.db().flush()?;
                self.oracle.flushed();
                self.moved(observer)?;
                let fs = self.fs.crash(u64::from(*seed));
                self.let_go();
                self.db = None;
                self.env = self.env.with_file_system(Arc::new(fs.clone()));
                self.fs = fs;
                self.reopen()?;
                self.moved(observer)?;
            }
            Operation::Pause => {
                if !self.paused {
                    self.db().pause_background()?;
                    self.paused = true;
                }
            }
            Operation::Resume => self.resume(),
            Operation::Tick(duration) => self.tick(*duration, observer)?,
            Operation::CreateIndex { space, index } => {
                self.resume();
                self.create_index(*space, *index, observer)?;
            }
            Operation::DropIndex { space, index } => {
                self.resume();
                self.drop_index(*space, *index, observer)?;
            }
            Operation::RebuildIndex { space, index } => {
                self.resume();
                self.rebuild_index(*space, *index, observer)?;
            }
            Operation::Queue { space, from, pushes, pops, len } => {
                self.queue(*space, *from..*from + u32::from(*pushes), *pops, *len, observer)?;
            }
            Operation::Overwrite { space, key, times, value } => {
                self.overwrite(*space, key, *times, *value, observer)?;
            }
            Operation::AskIndex { space, index, at, question } => {
                self.ask_index(*space, *index, *at, question)?;
            }
        }
        self.be_log_thread(observer)?;
        if matches!(
            operation,
            Operation::Flush
                | Operation::CompactRange { .. }
                | Operation::Compact
                | Operation::Background(Step::Flush | Step::Compaction)
                | Operation::WaitForBackground
        ) {
            self.changes += 1;
            if self.changes.is_multiple_of(STRUCTURE_ONE_IN) {
                self.check_structure()?;
            }
        }
        self.check_memory()
    }

    /// Closes the database; it may leave nothing open.
    pub fn close(&mut self, observer: &mut dyn Observer) -> Outcome {
        self.let_go();
        self.paused = false;
        let left = self.db().stats().snapshots;
        if left > 0 {
            return violation(format!("O9: {left} snapshots remain when none is held"));
        }
        self.check_structure()?;
        let db = self.db.take().expect("open");
        let remains = db.remains();
        db.close()?;
        drop(db);
        self.oracle.flushed();
        self.moved(observer)?;
        // Files of old versions are closed when no thread can read them; other threads of this
        // process may delay that, as long as the machine does not schedule them.
        for attempt in 0..CLOSE_ATTEMPTS {
            if self.fs.open_handles() == 0 && remains.left().is_empty() {
                break;
            }
            crossbeam_epoch::pin().flush();
            match attempt {
                0..2000 => std::thread::yield_now(),
                _ => std::thread::park_timeout(Duration::from_millis(10)),
            }
        }
        let handles = self.fs.open_handles();
        if handles > 0 {
            return violation(format!("O9: {handles} files are open after the close"));
        }
        let left = remains.left();
        if !left.is_empty() {
            return violation(format!("O9: after the close there remain {}", left.join(", ")));
        }
        Ok(())
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

    /// Drops the database like a process that ends: none of its remaining calls reaches the disk.
    pub fn abandon(mut self) {
        self.fs.crash_at(0);
        self.let_go();
        self.db = None;
    }

    /// Opens again after a close.
    pub fn reopen(&mut self) -> Outcome {
        self.paused = false;
        let db = self.tuning.builder(&self.path, &self.env).open()?;
        self.replayed = replayed(&db, &self.tuning);
        self.db = Some(db);
        self.check_opened()?;
        self.check_structure()
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

    // ---- writing ----

    fn commit(
        &mut self,
        writes: &[Write],
        single: bool,
        durability: Durability,
        wait: bool,
        observer: &mut dyn Observer,
    ) -> Outcome {
        // A batch that fills memtables by itself leaves one to other writers.
        if self.paused && self.db().stats().memtables + 1 >= self.tuning.max_memtables {
            self.resume();
        }
        let mut changes = Vec::new();
        let mut targets = Vec::new();
        for write in writes {
            let Some((keyspace, space)) = self.keyspace(write.space)? else { continue };
            let value = write.value.map(|value| value.bytes().into());
            changes.push((space, write.key.clone(), value));
            targets.push(keyspace);
        }
        let options = WriteOptions { durability: Some(durability) };
        if changes.is_empty() {
            let _ = self.db().batch().commit_with(&options)?;
            return Ok(());
        }
        let bytes = |(_, key, value): &(_, Vec<u8>, Option<Arc<[u8]>>)| {
            (key.len() + value.as_ref().map_or(0, |value| value.len())) as u64
        };
        self.largest_batch = self.largest_batch.max(changes.iter().map(bytes).sum());
        let before = self.oracle.promise().sequence;
        self.oracle.submit(changes.clone(), self.logged(durability, &changes));
        self.moved(observer)?;
        let durable = durability == Durability::Sync;
        if single && changes.len() == 1 {
            let (_, key, value) = &changes[0];
            match value {
                Some(value) => targets[0].put_with(key, value, &options)?,
                None => targets[0].delete_with(key, &options)?,
            }
            self.oracle.acknowledge(durable, None);
            self.note_due(durability);
            self.moved(observer)?;
            if wait {
                self.db().sync()?;
                self.oracle.synced();
                self.moved(observer)?;
            }
            return Ok(());
        }
        let mut batch = self.db().batch();
        for (keyspace, (_, key, value)) in targets.iter().zip(&changes) {
            match value {
                Some(value) => batch.put(keyspace, key, value),
                None => batch.delete(keyspace, key),
            };
        }
        let commit = batch.commit_with(&options)?;
        let sequence = commit.sequence().0;
        if sequence <= before {
            return violation(format!("O14: sequence number {sequence} comes after {before}"));
        }
        self.oracle.acknowledge(durable, Some(sequence));
        self.note_due(durability);
        self.moved(observer)?;
        if wait {
            commit.wait_durable()?;
            self.oracle.synced();
            self.moved(observer)?;
        }
        Ok(())
    }

    /// The effective durability of these changes.
    fn logged(&self, durability: Durability, changes: &[Change]) -> Durability {
        let needs_log = |space: Incarnation| {
            let indexes = self.oracle.promise().indexes.range((space, 0)..=(space, u8::MAX));
            indexes.into_iter().any(|(_, index)| needs_log(*index))
        };
        match durability {
            Durability::None if changes.iter().any(|(space, ..)| needs_log(*space)) => Durability::Buffered,
            _ => durability,
        }
    }

    fn background(&mut self, step: Step, observer: &mut dyn Observer) -> Outcome {
        let kind = match step {
            Step::Flush => BackgroundStep::Flush,
            Step::Compaction => BackgroundStep::Compaction,
            Step::Log => BackgroundStep::Log,
            Step::Sweep => BackgroundStep::Sweep,
        };
        let done = self.db().background_step(kind)?;
        match self.db().health() {
            Health::Good => {}
            Health::NoSpace(error) | Health::Poisoned(error) => return Err(Stop::Error(error)),
        }
        if done && step == Step::Log {
            self.oracle.synced();
            self.moved(observer)?;
        }
        Ok(())
    }

    /// Advances the clock, and runs the log thread on time.
    fn tick(&mut self, duration: Duration, observer: &mut dyn Observer) -> Outcome {
        let end = self.env.now() + duration;
        loop {
            let now = self.env.now();
            let wakes = self.log_wakes.filter(|_| self.oracle.waits_for_the_clock());
            let until = wakes.map_or(end, |wakes| wakes.min(end));
            self.env.sleep(until.saturating_sub(now));
            if until == end {
                return Ok(());
            }
            // Record the commits that were due before the thread woke.
            self.note_time(observer)?;
            self.be_log_thread(observer)?;
        }
    }

    /// Runs the steps of the log thread that are due by now.
    fn be_log_thread(&mut self, observer: &mut dyn Observer) -> Outcome {
        let Some(mut wakes) = self.log_wakes.filter(|_| self.db.is_some()) else { return Ok(()) };
        while self.oracle.waits_for_the_clock() {
            let sleeps = self.db().log_sleeps()?;
            if !sleeps.is_zero() && self.env.now() < wakes {
                break;
            }
            self.background(Step::Log, observer)?;
            wakes = self.env.now() + self.db().log_sleeps()?;
            self.log_wakes = Some(wakes);
        }
        self.note_time(observer)
    }

    /// Counts commits as durable that are due by now.
    fn note_time(&mut self, observer: &mut dyn Observer) -> Outcome {
        let now = self.env.now().saturating_sub(CLOCK_ALLOWANCE);
        let Some(commits) = self.oracle.due_by(now) else { return Ok(()) };
        // Earlier events count by the earlier promise.
        self.moved(observer)?;
        self.oracle.time_passed(commits);
        observer.time_passed(&self.oracle, &self.fs);
        self.moved(observer)
    }

    /// Records the due time of the last commit, acknowledged with `durability`.
    fn note_due(&mut self, durability: Durability) {
        if let Durability::Periodic(every) = durability
            && self.log_wakes.is_some()
        {
            self.oracle.promise_by(self.env.now() + every);
        }
    }

    // ---- reading ----

    fn get(&mut self, space: u8, key: &[u8], at: Option<u8>, lookup: Lookup) -> Outcome {
        let Some((keyspace, incarnation)) = self.keyspace(space)? else { return Ok(()) };
        let Some((snapshot, commits)) = self.moment(at) else { return Ok(()) };
        let want = self.oracle.get(incarnation, key, commits);
        let got = match (snapshot, lookup) {
            (Some(snapshot), _) => keyspace.get_at(key, snapshot)?.map(|value| value.to_vec()),
            (None, Lookup::Get) => keyspace.get(key)?.map(|value| value.to_vec()),
            (None, Lookup::With) => keyspace.get_with(key, <[u8]>::to_vec)?,
            (None, Lookup::Contains) => {
                let got = keyspace.contains(key)?;
                if got != want.is_some() {
                    return violation(format!("O4: contains {} says {got}", show_key(key)));
                }
                self.answers.update(&[u8::from(got)]);
                return Ok(());
            }
        };
        if got.as_deref() != want.map(|value| &value[..]) {
            let (got, want) = (show(got.as_deref()), show(want.map(|value| &value[..])));
            return violation(format!("O4: get of {} returns {got}, not {want}", show_key(key)));
        }
        self.answers.update(got.as_deref().unwrap_or(b"none"));
        Ok(())
    }

    fn multi_get(&mut self, space: u8, keys: &[Vec<u8>]) -> Outcome {
        let Some((keyspace, incarnation)) = self.keyspace(space)? else { return Ok(()) };
        let Some(commits) = self.present() else { return Ok(()) };
        let values = keyspace.multi_get(keys)?;
        if values.len() != keys.len() {
            return violation("O4: multi_get returns another number of results than keys");
        }
        for (key, got) in keys.iter().zip(values) {
            let want = self.oracle.get(incarnation, key, commits);
            if got.as_deref() != want.map(|value| &value[..]) {
                let (got, want) = (show(got.as_deref()), show(want.map(|value| &value[..])));
                return violation(format!("O4: multi_get of {} returns {got}, not {want}", show_key(key)));
            }
            self.answers.update(got.as_deref().unwrap_or(b"none"));
        }
        Ok(())
    }

    fn compare(&mut self, at: Option<u8>) -> Outcome {
        let spaces: Vec<u8> = self.oracle.promise().spaces.keys().copied().collect();
        for space in spaces {
            let Some((keyspace, incarnation)) = self.keyspace(space)? else { continue };
            let Some((snapshot, commits)) = self.moment(at) else { return Ok(()) };
            let want = self.oracle.map(incarnation, commits);
            verify::compare(&keyspace, snapshot, &want)
                .and_then(|()| self.compare_indexes(&keyspace, incarnation, snapshot, commits, &want))
                .map_err(|stop| in_context(stop, &format!("keyspace {space}")))?;
        }
        Ok(())
    }

    fn open_cursor(&mut self, slot: u8, space: u8, at: Option<u8>) -> Outcome {
        let Some((keyspace, incarnation)) = self.keyspace(space)? else { return Ok(()) };
        let Some((snapshot, commits)) = self.moment(at) else { return Ok(()) };
        let cursor = match snapshot {
            Some(snapshot) => keyspace.cursor_at(snapshot)?,
            None => keyspace.cursor()?,
        };
        let held = Held { cursor, space: incarnation, commits, at: None };
        self.cursors[usize::from(slot)] = Some(held);
        Ok(())
    }

    fn move_cursor(&mut self, slot: u8, moves: &[Move]) -> Outcome {
        let Some(held) = &mut self.cursors[usize::from(slot)] else { return Ok(()) };
        for step in moves {
            let now = held.at.take();
            let bounds = match (step, &now) {
                (Move::First, _) => Some((Bound::Unbounded, Bound::Unbounded, true)),
                (Move::Last, _) => Some((Bound::Unbounded, Bound::Unbounded, false)),
                (Move::Seek(key), _) => Some((Bound::Included(key), Bound::Unbounded, true)),
                (Move::SeekForPrev(key), _) => Some((Bound::Unbounded, Bound::Included(key), false)),
                (Move::SeekBefore(key), _) => Some((Bound::Unbounded, Bound::Excluded(key), false)),
                (Move::Next, Some(now)) => Some((Bound::Excluded(now), Bound::Unbounded, true)),
                (Move::Prev, Some(now)) => Some((Bound::Unbounded, Bound::Excluded(now), false)),
                (Move::Next | Move::Prev, None) => None,
            };
            let want = bounds.and_then(|(lower, upper, first)| {
                let bounds = (lower.map(Vec::as_slice), upper.map(Vec::as_slice));
                self.oracle.entry(held.space, bounds, first, held.commits)
            });
            match step {
                Move::First => held.cursor.seek_to_first()?,
                Move::Last => held.cursor.seek_to_last()?,
                Move::Seek(key) => held.cursor.seek(key)?,
                Move::SeekForPrev(key) => held.cursor.seek_for_prev(key)?,
                Move::SeekBefore(key) => held.cursor.seek_before(key)?,
                Move::Next => held.cursor.next()?,
                Move::Prev => held.cursor.prev()?,
            }
            let got = held.cursor.valid().then(|| (held.cursor.key(), held.cursor.value()));
            if got != want.map(|(key, value)| (key, &value[..])) {
                let show = |entry: Option<(&[u8], &[u8])>| match entry {
                    Some((key, value)) => format!("{} = {}", show_key(key), show_key(value)),
                    None => "no entry".to_string(),
                };
                let (got, want) = (show(got), show(want.map(|(key, value)| (key, &value[..]))));
                return violation(format!("O7: cursor after {step:?} is at {got}, not {want}"));
            }
            if let Some((key, value)) = got {
                self.answers.update(key);
                self.answers.update(value);
            }
            held.at = want.map(|(key, _)| key.to_vec());
        }
        Ok(())
    }

    fn range(&mut self, range: &Range) -> Outcome {
        let Some((keyspace, incarnation)) = self.keyspace(range.space)? else { return Ok(()) };
        let Some((snapshot, commits)) = self.moment(range.at) else { return Ok(()) };
        let (mut iter, lower, upper) = match &range.prefix {
            Some(prefix) => {
                let upper = prefix_successor(prefix).map_or(Bound::Unbounded, Bound::Excluded);
                (keyspace.prefix(prefix), Bound::Included(prefix.clone()), upper)
            }
            None => {
                let bounds = (range.lower.clone(), range.upper.clone());
                (keyspace.range::<Vec<u8>>(bounds), range.lower.clone(), range.upper.clone())
            }
        };
        if let Some(snapshot) = snapshot {
            iter = iter.at(snapshot);
        }
        if let Some(limit) = range.limit {
            iter = iter.limit(usize::from(limit));
        }
        if range.keys_only {
            iter = iter.keys_only();
        }
        if range.reversed {
            iter = iter.rev();
        }
        let map = self.oracle.map(incarnation, commits);
        let bounds = (lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
        let mut want: VecDeque<_> = match is_empty(bounds) {
            true => VecDeque::new(),
            false => map.range::<[u8], _>(bounds).collect(),
        };
        let mut left = range.limit.map_or(usize::MAX, usize::from);
        for front in range.ends.iter().cycle() {
            let got = if *front { iter.next() } else { iter.next_back() }.transpose()?;
            // Reversed, the front is the last entry.
            let expected = match left {
                0 => None,
                _ if *front != range.reversed => want.pop_front(),
                _ => want.pop_back(),
            };
            left -= usize::from(expected.is_some());
            if range.keys_only && got.as_ref().is_some_and(|entry| entry.value().is_ok()) {
                return violation("O7: an iterator of keys only shows a value");
            }
            let got = got.map(|entry| match range.keys_only {
                true => (entry.into_key(), Vec::new()),
                false => (entry.key().to_vec(), entry.into_parts().1.to_vec()),
            });
            let expected =
                expected.map(|(key, value)| (key.as_slice(), if range.keys_only { &[] } else { &value[..] }));
            if got.as_ref().map(|(key, value)| (key.as_slice(), &value[..])) != expected {
                let (got, want) =
                    (show(got.as_ref().map(|(key, _)| &key[..])), show(expected.map(|(key, _)| key)));
                return violation(format!("O7: the range returns {got}, not {want}"));
            }
            let Some((key, value)) = got else { break };
            self.answers.update(&key);
            self.answers.update(&value);
        }
        if iter.next().is_some() || iter.next_back().is_some() {
            return violation("O7: an iterator continues after its end");
        }
        Ok(())
    }

    // ---- invariants ----

    /// Compares everything with the oracle after an opening.
    pub fn check_opened(&mut self) -> Outcome {
        let names = self.db().list_keyspaces()?;
        let numbers: Option<Vec<u8>> = names.iter().map(|name| space_number(name)).collect();
        let want: Vec<u8> = self.oracle.promise().spaces.keys().copied().collect();
        if numbers.as_ref() != Some(&want) {
            return violation(format!("O2: the keyspaces are {names:?}, not {want:?}"));
        }
        // An opening that cannot flush takes the memtables that it needs.
        let (memtables, most) = (self.db().stats().memtables, self.tuning.max_memtables);
        if memtables > most && !self.is_scarce {
            return violation(format!("O12: there are {memtables} memtables, and {most} are allowed"));
        }
        self.attach_indexes()?;
        let Some(commits) = self.present() else { return Ok(()) };
        for (space, incarnation) in &self.oracle.promise().spaces {
            let keyspace = self.db().keyspace(&space_name(*space), self.tuning.keyspace.clone())?;
            let want: Map = self.oracle.map(*incarnation, commits);
            verify::compare(&keyspace, None, &want)
                .and_then(|()| self.compare_indexes(&keyspace, *incarnation, None, commits, &want))
                .map_err(|stop| in_context(stop, &format!("keyspace {space} after an opening")))?;
        }
        verify::check_directory(self.db(), &self.fs)
    }

    /// The database's metadata of its tables must be true (O13). Reads every table.
    pub fn check_structure(&self) -> Outcome {
        if self.is_scarce {
            return Ok(());
        }
        self.db().check_structure().map_err(|error| match error.is_scarcity() {
            // The check itself met it.
            true => Stop::Error(error),
            false => Stop::Violation(format!("O13: {error}")),
        })
    }

    /// While no handle retains old files, the directory holds exactly the referenced files.
    fn check_tidy(&self) -> Outcome {
        let is_held = self.cursors.iter().any(Option::is_some) || self.snapshots.iter().any(Option::is_some);
        if is_held || self.is_scarce {
            return Ok(());
        }
        verify::check_directory(self.db(), &self.fs)
    }

    /// Memtables and cache stay within 110 % of the budget. Not included are memtables that cursors
    /// retain, which have no bound, and one batch per memtable, which is never split.
    fn check_memory(&self) -> Outcome {
        let Some(db) = &self.db else { return Ok(()) };
        if self.cursors.iter().any(Option::is_some) {
            return Ok(());
        }
        let used = || {
            let memory = db.memory();
            memory.memtables + memory.cache
        };
        let allowed = self.tuning.memory_budget() as u64 * 11 / 10 + self.largest_batches();
        // The collector frees replaced memory eventually; a sweep makes it run.
        if used() > allowed {
            db.background_step(BackgroundStep::Sweep)?;
        }
        match used() {
            used if used > allowed => {
                violation(format!("O12: memtables and cache take {used} bytes, and {allowed} are allowed"))
            }
            _ => Ok(()),
        }
    }

    /// The bytes that the largest batches can have added to full memtables.
    fn largest_batches(&self) -> u64 {
        let is_large = self.largest_batch > self.tuning.memtable_bytes as u64 / 8;
        u64::from(is_large) * self.largest_batch * self.tuning.max_memtables as u64 + self.replayed
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

fn show(bytes: Option<&[u8]>) -> String {
    bytes.map_or("nothing".to_string(), show_key)
}
