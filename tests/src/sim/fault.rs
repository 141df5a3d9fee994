//! `sapwood-sim fault`: every call of a small workload fails in every way, one call per run.
//!
//! The method is that of SQLite's anomaly tests: run a workload once and count its calls of the
//! file system; then run it again for every call and every effect, once or from that call on. The
//! workload opens a database, writes with every durability, creates and drops a keyspace, flushes,
//! compacts, reads through a snapshot, dies, recovers, closes, and opens read-only. Every second
//! workload also creates, rebuilds and drops secondary indexes. It runs on one thread, so call
//! number 137 is the same call in each run.
//!
//! *If the call failed*, the failure is reported (by an error, a poisoned handle, or a bad health),
//! or `may_be_swallowed` states the reason why it is harmless. Every acknowledged commit is
//! present, at once and after a kill; every synced commit is present after a power loss; an index
//! agrees with its rows. A database that is not poisoned accepts writes again after the fault; one
//! that is poisoned opens again. There is no error without a fault, no report of damage after a
//! mere failure, and no panic.
//!
//! *If the device lied* (wrong bits stored, writes lost or misplaced, syncs without effect): reads
//! return the right data, or an error with the place of the damage. They never return wrong data,
//! and never a state inside a commit. Synced data that is missing without a report is counted, and
//! allowed only where no check could notice it: see `may_go_unnoticed`.
use super::arguments::{Command, Run, Settings};
use super::fault::injector::{Call, Effect, Injector, Plan};
use super::jobs::replay_command;
use super::report::SeedReport;
use crate::harness::contents;
use crate::journal::{Journal, Write};
use crate::oracle::{Bytes, Map, difference};
use sapwood::{BackgroundStep, Db, Durability, Env, Error, ErrorKind, Health, Snapshot};
use sapwood_base::format::log_record::HEADER_BYTES;
use sapwood_storage::sim::{Operation as Kind, SimFs};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

mod indexes;
pub mod injector;

/// Seeds per workload. The calls are dealt out to the seeds in turn.
const SLICES: u64 = 32;
/// The length of the mark after the last edit of a MANIFEST.
const MARK_BYTES: usize = HEADER_BYTES + 8;
/// The keyspace that is created and dropped.
const SECOND: u8 = 1;
/// The most openings of a database in one run.
const OPENINGS: usize = 3;

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "fault",
    help: "every call of a small workload fails in every way; checks that it is reported and nothing is lost",
    options: &[
        ("--only", "N", "only the run with this number, of the runs of the seed"),
        ("--one-in", "N", "only one run in N of the runs of the seed"),
        ("--indexes", "", "every workload has secondary indexes, not only every second one"),
        ("--quiet", "", "print the calls whose unreported failure was harmless or lost data"),
        ("--trace", "", "print each run before it starts"),
    ],
    run: Run::Seeds {
        seed,
        counts: &["runs", "reported", "harmless", "poisoned", "unnoticed losses", "elsewhere"],
        seconds: 60,
        seeds: 0..SLICES,
    },
};

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The failure was reported.
    Told,
    /// The failure was reported on request, and the handle accepts no more writes.
    Poisoned,
    /// The failure was not reported, and nothing is missing.
    Harmless,
    /// Synced data is missing without a report.
    Unnoticed,
    /// The call was another one than in the counting run.
    Elsewhere,
}

/// The workload of a run.
#[derive(Clone, Copy)]
struct WorkloadKind {
    seed: u64,
    has_indexes: bool,
}

/// The planned failure of a run.
#[derive(Clone, Copy)]
struct Planned<'c> {
    plan: Plan,
    call: &'c Call,
    /// See [`ends_a_close`].
    ends_a_close: bool,
    /// See [`leads_to_removal`].
    leads_to_removal: bool,
}

/// Runs the share of one seed: seed / 32 determines the workload, seed % 32 the share. Odd
/// workloads have indexes.
pub fn seed(seed: u64, settings: &Settings) -> SeedReport {
    let (workload, slice) = (seed / SLICES, seed % SLICES);
    let mut report = SeedReport { counts: vec![0; 6], violations: Vec::new() };
    let workload =
        WorkloadKind { seed: workload, has_indexes: workload % 2 == 1 || settings.has("--indexes") };
    let calls = match alone(|| run(workload, None)) {
        Ok((_, calls)) => calls,
        Err(message) => {
            report.violations.push(format!("seed {seed}: without a fault: {message}"));
            return report;
        }
    };
    let mut plans = Vec::new();
    for (at, call) in calls.iter().enumerate().filter(|(at, _)| *at as u64 % SLICES == slice) {
        for effect in Effect::all(call) {
            let plan = Plan { at: at as u64, effect, sticky: false };
            let planned = Planned {
                plan,
                call,
                ends_a_close: ends_a_close(&calls, at),
                leads_to_removal: leads_to_removal(&calls, at),
            };
            plans.push(planned);
            if !effect.is_silent() {
                plans.push(Planned { plan: Plan { sticky: true, ..plan }, ..planned });
            }
        }
    }
    let only = settings.number("--only");
    let one_in = settings.number("--one-in").unwrap_or(1).max(1);
    for (number, planned) in plans.iter().enumerate() {
        let Planned { plan, call, .. } = planned;
        let is_left_out = !(number as u64).is_multiple_of(one_in);
        if is_left_out || only.is_some_and(|only| only != number as u64) {
            continue;
        }
        let sticky = if plan.sticky { " from now on" } else { "" };
        let what = format!("run {number}: call {} ({call}): {:?}{sticky}", plan.at, plan.effect);
        if settings.has("--trace") {
            eprintln!("{what}");
        }
        let result = alone(|| run(workload, Some(*planned)));
        report.counts[0] += 1;
        match result {
            Ok((Verdict::Elsewhere, _)) => report.counts[5] += 1,
            Ok((verdict, _)) => {
                match verdict {
                    Verdict::Told => report.counts[1] += 1,
                    Verdict::Harmless => report.counts[2] += 1,
                    Verdict::Poisoned => report.counts[3] += 1,
                    Verdict::Unnoticed => report.counts[4] += 1,
                    Verdict::Elsewhere => {}
                }
                let swallowed = verdict == Verdict::Harmless && !plan.effect.is_silent();
                if settings.has("--quiet") && (swallowed || verdict == Verdict::Unnoticed) {
                    println!("{verdict:?}: {what}");
                }
            }
            Err(message) => {
                let indexes = if settings.has("--indexes") { " --indexes" } else { "" };
                let replay = format!("{} --only {number}{indexes}", replay_command("fault", seed));
                report.violations.push(format!("seed {seed}: {what}: {message}\n  replay with: {replay}"));
            }
        }
    }
    report
}

/// Runs `body` on a thread of its own, independent of the runs before it: the thread determines
/// when memory and files are reclaimed.
fn alone<R: Send>(body: impl FnOnce() -> Result<R, String> + Send) -> Result<R, String> {
    let caught = || catch_unwind(AssertUnwindSafe(body));
    for _ in 0..4 {
        crossbeam_epoch::pin().flush();
    }
    std::thread::scope(|scope| scope.spawn(caught).join().expect("panics are caught inside"))
        .unwrap_or_else(|panic| Err(format!("panic: {}", message_of(&*panic))))
}

/// Whether synced data may be missing without a report after the device lied about this call.
///
/// The last bytes of the log have no later witness. Three calls are of this kind: a sync mark that
/// was itself stored wrong or lost; a header of a segment that was never stored (the segment then
/// looks unused); and a sync that did nothing, of the log or of the MANIFEST, if the power fails
/// before the next sync.
fn may_go_unnoticed(call: &Call, effect: Effect) -> bool {
    match effect {
        Effect::LyingSync => true,
        effect if effect.is_damage() => call.file() == "log" || call.file() == "MANIFEST",
        _ => false,
    }
}

/// Whether the failure of a call may stay unreported:
///
/// * a sweep's removals are repeated at the next opening;
/// * the mark after the last edit of a MANIFEST only adds certainty to an opening;
/// * the last edit of a close records that the log need not be read, which only saves time:
///   everything is in tables by then, and if a failed write or sync leaves the edit incomplete, the
///   next opening takes the old state or the new one and writes a MANIFEST of its own;
/// * a full disk that preallocation meets may have passed before the health is read.
fn may_be_swallowed(planned: Planned<'_>) -> bool {
    let Planned { plan, call, ends_a_close, leads_to_removal } = planned;
    let is_mark = call.operation == Kind::Write && call.file() == "MANIFEST" && call.len == MARK_BYTES;
    let passes =
        matches!(plan.effect, Effect::Fails(cause) | Effect::HalfThenFails(cause) if cause.is_scarcity());
    let removes = call.operation == Kind::Remove || leads_to_removal;
    removes || is_mark || ends_a_close || (passes && !plan.sticky)
}

/// Whether call `at` inspects a file that is removed then: an orphan without a proven origin is
/// kept until the next opening.
fn leads_to_removal(calls: &[Call], at: usize) -> bool {
    let looks = |call: &Call| matches!(call.operation, Kind::Open | Kind::LookUp | Kind::Read);
    let next = calls[at..].iter().find(|call| !looks(call) || call.path != calls[at].path);
    looks(&calls[at])
        && next.is_some_and(|call| call.operation == Kind::Remove && call.path == calls[at].path)
}

/// Whether call `at` writes or syncs the last edit of a close: after it the MANIFEST gets a mark,
/// and no other edit before the close is over.
fn ends_a_close(calls: &[Call], at: usize) -> bool {
    let concerns_edit = |call: &&Call| {
        call.file() == "MANIFEST"
            && (call.operation == Kind::Sync || (call.operation == Kind::Write && call.len != MARK_BYTES))
    };
    let later = calls[at + 1..].iter().take_while(|call| call.closing);
    let writes = later.filter(concerns_edit).filter(|call| call.operation == Kind::Write).count();
    calls[at].closing && concerns_edit(&&calls[at]) && writes == 0
}

/// One run. Returns its calls if no failure was planned.
fn run(workload: WorkloadKind, planned: Option<Planned<'_>>) -> Result<(Verdict, Vec<Call>), String> {
    let plan = planned.map(|planned| planned.plan);
    let (machine, sim) = Env::sim_manual(workload.seed);
    let injector = Injector::new(&sim, plan);
    let mut run = Workload {
        random: fastrand::Rng::with_seed(workload.seed),
        env: machine.with_file_system(Arc::new(injector.clone())),
        sim,
        injector,
        journal: Journal::new(),
        plan,
        db: None,
        openings: 0,
        errors: 0,
        was_poisoned: false,
        unnoticed: false,
        snapshot: None,
        number: 0,
        has_indexes: workload.has_indexes,
        indexes: BTreeSet::new(),
    };
    run.work()?;
    let calls = run.injector.record();
    let verdict = run.end(planned)?;
    Ok((verdict, calls))
}

/// The workload in progress.
struct Workload {
    random: fastrand::Rng,
    env: Env,
    sim: SimFs,
    injector: Injector,
    journal: Journal,
    plan: Option<Plan>,
    db: Option<Db>,
    openings: usize,
    /// The number of errors returned to callers, and of bad states of health.
    errors: u64,
    was_poisoned: bool,
    /// Whether synced data was missing after the device had lied.
    unnoticed: bool,
    snapshot: Option<(Snapshot, Map)>,
    number: u64,
    has_indexes: bool,
    /// The indexes that are complete.
    indexes: BTreeSet<u8>,
}

/// A regular end of the workload: the database cannot be opened any more.
struct Over;

type Step<T = ()> = Result<T, String>;

impl Workload {
    fn is_damaged(&self) -> bool {
        self.plan.is_some_and(|plan| plan.effect.is_damage()) && !self.injector.met().is_empty()
    }

    fn lied(&self) -> bool {
        self.plan.is_some_and(|plan| plan.effect.is_silent()) && !self.injector.met().is_empty()
    }

    /// An error needs a cause, and must not report damage after a mere failure.
    fn cause(&mut self, error: &Error) -> Step {
        self.errors += 1;
        if self.injector.met().is_empty() {
            return Err(format!("nothing had failed: {error}"));
        }
        if self.lied() {
            return self.typed(error);
        }
        match error.kind() {
            ErrorKind::Corruption | ErrorKind::Unsupported => {
                Err(format!("a failed call is reported as damage: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// After a lie, errors name the damage, or say that the handle is closed because of it.
    fn typed(&self, error: &Error) -> Step {
        match error.kind() {
            ErrorKind::Corruption if error.file().is_none() => Err(format!("damage without a file: {error}")),
            ErrorKind::Corruption | ErrorKind::Poisoned | ErrorKind::Unsupported => Ok(()),
            kind => Err(format!("an error of kind {kind:?} after the device lied: {error}")),
        }
    }

    fn db(&self) -> Db {
        self.db.clone().expect("open")
    }

    fn is_poisoned(&mut self) -> bool {
        let health = self.db.as_ref().map(|db| db.health());
        match health {
            Some(Health::Poisoned(_)) => {
                self.was_poisoned = true;
                self.errors += 1;
                true
            }
            Some(Health::NoSpace(_)) => {
                self.errors += 1;
                false
            }
            _ => false,
        }
    }

    /// Compares the database with the history, all of which must be there up to `floor`.
    fn check(&mut self, floor: u64) -> Step<Option<u64>> {
        let floor = if self.is_damaged() { 0 } else { floor };
        let db = self.db();
        match self.journal.check(&db, floor) {
            Ok(count) => self.check_indexes().map(|()| Some(count)),
            Err(error) => self.cause(&error).map(|()| None),
        }
    }

    /// Opens, three times if necessary, and continues from the content found.
    fn open(&mut self, floor: u64) -> Result<Result<(), Over>, String> {
        self.snapshot = None;
        let mut tries = 0;
        loop {
            tries += 1;
            self.openings += 1;
            if tries > 3 || self.openings > 3 * OPENINGS {
                return Ok(Err(Over));
            }
            match self.builder().advanced(|o| o.idle_compaction = false).open() {
                Ok(db) => self.db = Some(db),
                Err(error) => {
                    self.cause(&error)?;
                    continue;
                }
            }
            let floor = if self.is_damaged() { 0 } else { floor };
            let db = self.db();
            let durable = self.journal.durable();
            let recovered = self.journal.recovered(&db, floor);
            match recovered.and_then(|count| self.forget_lost_indexes().map(|()| count)) {
                Ok(count) => {
                    self.unnoticed |= count < durable;
                    self.check_indexes()?;
                    return Ok(Ok(()));
                }
                Err(error) => {
                    self.cause(&error)?;
                    self.db = None;
                }
            }
        }
    }

    /// After an error: continues, with a new handle if this one is poisoned.
    fn mend(&mut self) -> Result<Result<(), Over>, String> {
        if !self.is_poisoned() {
            return Ok(Ok(()));
        }
        let db = self.db();
        match db.default_keyspace().put("poisoned", "") {
            Err(error) if error.kind() == ErrorKind::Poisoned => {}
            other => return Err(format!("a poisoned database accepts writes: {other:?}")),
        }
        self.check(self.journal.acknowledged())?;
        self.snapshot = None;
        if db.close().is_ok() {
            return Err("the close of a poisoned database returns no error".to_string());
        }
        self.db = None;
        self.open(self.journal.acknowledged())
    }

    /// Evaluates a result of the database. `Ok(Ok(true))` if it was a success.
    fn outcome<R>(&mut self, result: sapwood::Result<R>) -> Result<Result<bool, Over>, String> {
        match result {
            Ok(_) => {
                // Background work may have failed in the meantime.
                Ok(self.mend()?.map(|()| true))
            }
            Err(error) => {
                self.cause(&error)?;
                Ok(self.mend()?.map(|()| false))
            }
        }
    }

    fn commits(&mut self, count: u64) -> Result<Result<(), Over>, String> {
        for _ in 0..count {
            self.number += 1;
            let spaces = self.journal.spaces();
            let writes: Vec<Write> = (0..3)
                .map(|_| {
                    let space = spaces[self.random.usize(..spaces.len())];
                    let key = format!("key-{:03}", self.random.u32(..90)).into_bytes();
                    let value = match self.random.u8(..6) {
                        0 => None,
                        _ => Some(vec![self.random.u8(..); self.random.usize(..1200)].into()),
                    };
                    (space, key, value)
                })
                .collect();
            let durability = match self.number % 6 {
                0 => Durability::Sync,
                3 => Durability::Periodic(Duration::from_millis(1)),
                _ => Durability::Buffered,
            };
            let db = self.db();
            let (length, acknowledged) = (self.journal.len(), self.journal.acknowledged());
            let result = self.journal.commit(&db, writes, durability);
            let refused = result.is_err() && !matches!(db.health(), Health::Poisoned(_));
            if refused && self.journal.len() > length && self.journal.acknowledged() == acknowledged {
                self.journal.withdraw();
            }
            drop(db);
            if self.outcome(result)?.is_err() {
                return Ok(Err(Over));
            }
        }
        Ok(Ok(()))
    }

    fn flush(&mut self) -> Result<Result<(), Over>, String> {
        let result = self.db().flush();
        if result.is_ok() {
            self.journal.synced();
        }
        Ok(self.outcome(result)?.map(drop))
    }

    fn background(&mut self) -> Result<Result<(), Over>, String> {
        for step in BackgroundStep::ALL {
            for _ in 0..20 {
                let result = self.db().background_step(step);
                let more = *result.as_ref().unwrap_or(&false);
                if self.outcome(result)?.is_err() {
                    return Ok(Err(Over));
                }
                if !more {
                    break;
                }
            }
        }
        Ok(Ok(()))
    }

    fn look_back(&mut self) -> Step {
        let Some((snapshot, want)) = self.snapshot.take() else { return Ok(()) };
        let db = self.db();
        let mut got = Map::new();
        for entry in db.default_keyspace().iter().at(&snapshot) {
            match entry {
                Ok(entry) => {
                    let (key, value) = entry.into_parts();
                    got.insert(key, Bytes::from(&value[..]));
                }
                Err(error) => return self.cause(&error),
            }
        }
        match difference(&got, &want) {
            Some(difference) => Err(format!("through the snapshot: {difference}")),
            None => self
                .compare_indexes(&db.default_keyspace(), Some(&snapshot), &want)
                .map_err(|what| format!("through the snapshot: {what}")),
        }
    }

    /// The whole workload, as far as the state of the database allows.
    fn work(&mut self) -> Step {
        self.phases().map(drop)
    }

    fn phases(&mut self) -> Result<Result<(), Over>, String> {
        macro_rules! go {
            ($step:expr) => {
                match $step? {
                    Ok(value) => value,
                    Err(over) => return Ok(Err(over)),
                }
            };
        }
        go!(self.open(0));
        go!(self.commits(10));
        for _ in 0..2 {
            if !self.journal.has_space(SECOND) {
                let db = self.db();
                let result = self.journal.create_space(&db, SECOND);
                drop(db);
                go!(self.outcome(result));
            }
        }
        go!(self.commits(8));
        go!(self.make_indexes());
        let db = self.db();
        let snapshot = db.snapshot();
        match contents(&db.default_keyspace()) {
            Ok(map) => self.snapshot = Some((snapshot, map)),
            Err(error) => self.cause(&error)?,
        }
        drop(db);
        for _ in 0..3 {
            go!(self.flush());
            go!(self.commits(8));
        }
        go!(self.background());
        self.check(self.journal.acknowledged())?;
        self.look_back()?;
        if self.journal.has_space(SECOND) {
            let db = self.db();
            let result = self.journal.drop_space(&db, SECOND);
            drop(db);
            // As long as the drop is the last edit of the MANIFEST, no later edit proves that it is
            // missing.
            if result.is_ok() && self.is_damaged() {
                self.journal.may_come_back(SECOND);
            }
            go!(self.outcome(result));
        }
        go!(self.commits(6));
        let result = self.db().compact();
        go!(self.outcome(result));
        go!(self.background());
        go!(self.rebuild_index());
        go!(self.drop_index());
        go!(self.commits(14));

        // The process dies, and the next one recovers.
        self.sim.crash_at(0);
        self.injector.die();
        let left = self.sim.kill();
        self.db = None;
        self.snapshot = None;
        self.move_to(left);
        go!(self.open(self.journal.acknowledged()));
        self.check(self.journal.acknowledged())?;
        go!(self.commits(6));
        let result = self.db().sync();
        if result.is_ok() {
            self.journal.synced();
        }
        go!(self.outcome(result));
        go!(self.commits(2));

        self.injector.set_closing(true);
        let result = self.db().close();
        self.injector.set_closing(false);
        if result.is_ok() {
            self.journal.synced();
        } else {
            self.is_poisoned();
        }
        if let Err(error) = result {
            self.cause(&error)?;
        }
        self.db = None;
        match self.builder().read_only(true).open() {
            Ok(db) => {
                self.db = Some(db);
                self.check(self.journal.acknowledged())?;
                self.db = None;
            }
            Err(error) => self.cause(&error)?,
        }
        go!(self.open(self.journal.acknowledged()));
        go!(self.commits(6));
        self.check(self.journal.acknowledged())?;
        Ok(Ok(()))
    }

    fn move_to(&mut self, sim: SimFs) {
        self.injector = self.injector.before(&sim);
        self.env = self.env.with_file_system(Arc::new(self.injector.clone()));
        self.sim = sim;
    }

    /// The fault ends. Checks the present state and the states that a kill or a power loss leaves.
    fn end(mut self, planned: Option<Planned<'_>>) -> Result<Verdict, String> {
        let met = self.injector.met();
        if met.first() != planned.map(|planned| planned.call) {
            return Ok(Verdict::Elsewhere);
        }
        self.injector.heal();
        if self.db.is_some() {
            self.takes_writes_again()?;
        }
        // The remaining calls of a close must not reach the disk.
        self.sim.crash_at(0);
        self.db = None;
        let images = [
            (self.sim.kill(), self.journal.acknowledged(), "a kill"),
            (self.sim.crash(0), self.journal.durable(), "a power loss that keeps nothing"),
            (self.sim.crash(2 + met.len() as u64), self.journal.durable(), "a power loss"),
        ];
        let (journal, number, indexes) = (self.journal.clone(), self.number, self.indexes.clone());
        for (image, floor, what) in images {
            self.move_to(image);
            self.journal = journal.clone();
            self.number = number;
            self.indexes = indexes.clone();
            self.opens_and_works(floor).map_err(|message| format!("opened after {what}: {message}"))?;
        }
        Ok(match (self.unnoticed, self.was_poisoned, self.errors) {
            (true, ..) => {
                let plan = self.plan.ok_or("synced data is missing")?;
                match may_go_unnoticed(&met[0], plan.effect) {
                    true => Verdict::Unnoticed,
                    false => return Err("synced data is missing without a report".to_string()),
                }
            }
            (_, true, _) => Verdict::Poisoned,
            (_, _, 0) => match planned {
                Some(planned) if !planned.plan.effect.is_silent() && !may_be_swallowed(planned) => {
                    return Err("the failure was not reported, and it is not harmless".to_string());
                }
                _ => Verdict::Harmless,
            },
            _ => Verdict::Told,
        })
    }

    /// A database that is not poisoned must recover by itself.
    fn takes_writes_again(&mut self) -> Step {
        if self.is_poisoned() {
            return Ok(());
        }
        let mut last = String::new();
        for _ in 0..50 {
            let db = self.db();
            let write: Write = (0, b"healed".to_vec(), Some(b"yes"[..].into()));
            let length = self.journal.len();
            let result = self.journal.commit(&db, vec![write], Durability::Sync);
            match result {
                Ok(()) => {
                    let flushed = db.flush();
                    if self.is_damaged() {
                        // The damage is permanent, and a read may meet it only now.
                        return flushed.or_else(|error| self.cause(&error));
                    }
                    flushed.map_err(|error| format!("the fault is over, and a flush fails: {error}"))?;
                    self.journal.synced();
                    // Work that met a full disk reports it until the retry.
                    while BackgroundStep::ALL
                        .into_iter()
                        .any(|step| db.background_step(step).unwrap_or(false))
                    {}
                    return match db.health() {
                        Health::Good => Ok(()),
                        other => Err(format!("the fault is over, and the health is {other:?}")),
                    };
                }
                Err(error) if self.is_poisoned() => {
                    // The earlier damage was found now.
                    return self.cause(&error);
                }
                Err(error) => {
                    last = error.to_string();
                    self.cause(&error)?;
                    if self.journal.len() > length {
                        self.journal.withdraw();
                    }
                    for step in BackgroundStep::ALL {
                        let _ = db.background_step(step);
                    }
                }
            }
        }
        // Damage is permanent, and a write to a keyspace with an index reads the row before it.
        match self.is_damaged() {
            true => Ok(()),
            false => Err(format!("the fault is over, and writes are refused: {last}")),
        }
    }

    /// A healthy machine opens the remains, finds everything, and accepts work that survives in
    /// turn.
    fn opens_and_works(&mut self, floor: u64) -> Step {
        let damaged = self.is_damaged();
        let wrong = |error: Error| match damaged {
            true => Ok(()),
            false => Err(error.to_string()),
        };
        self.openings = 0;
        let db = match self.builder().open() {
            Ok(db) => db,
            Err(error) => {
                self.cause(&error)?;
                return wrong(error);
            }
        };
        self.db = Some(db.clone());
        let durable = self.journal.durable().min(floor);
        let recovered = self.journal.recovered(&db, if damaged { 0 } else { floor });
        match recovered.and_then(|count| self.forget_lost_indexes().map(|()| count)) {
            Ok(count) => {
                self.unnoticed |= count < durable;
                self.check_indexes()?;
            }
            Err(error) => {
                self.cause(&error)?;
                self.db = None;
                return wrong(error);
            }
        }
        let write: Write = (0, b"after".to_vec(), Some(b"all"[..].into()));
        let result = self
            .journal
            .commit(&db, vec![write], Durability::Sync)
            .and_then(|()| db.compact())
            .and_then(|()| db.close());
        drop(db);
        self.db = None;
        if let Err(error) = result {
            self.cause(&error)?;
            return wrong(error);
        }
        let left = self.sim.crash(0);
        self.move_to(left);
        let wrong = |error: Error| {
            wrong(error).map_err(|message| format!("and after the next power loss: {message}"))
        };
        let db = match self.builder().open() {
            Ok(db) => db,
            Err(error) => {
                self.cause(&error)?;
                return wrong(error);
            }
        };
        let checked = self.journal.check(&db, self.journal.durable());
        self.db = Some(db);
        let checked = match checked.and_then(|_| self.forget_lost_indexes()) {
            Ok(()) => self.check_indexes(),
            Err(error) => self.cause(&error).and_then(|()| wrong(error)),
        };
        self.db = None;
        checked
    }
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    match panic.downcast_ref::<&str>() {
        Some(text) => (*text).to_string(),
        None => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "not a text".to_string()),
    }
}
