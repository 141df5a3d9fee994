//! `sapwood-sim scarcity`: handles, memory, threads and disk space run out, and become available
//! again.
//!
//! A workload runs on database and oracle, with *episodes* of scarcity: a limit of open files that
//! is nearly reached, a refusal of every call that needs a handle or memory, a disk with little or
//! no space, or a quota. An episode starts at some call, and affects all calls, some, or one in a
//! few.
//!
//! During an episode a call succeeds, or returns an error that names the scarce resource. Nothing
//! is poisoned, and every result is right. Images of kills and power losses in the episode open on
//! a machine without shortage. After the episode everything works again without a reopen: the
//! health is good, a write succeeds, no acknowledged commit is missing, and no unreferenced file
//! remains.
//!
//! Opens meet episodes, too. A failed open holds no file and no lock, and the next one finds
//! everything. In one seed of four, opens run with their threads, under a schedule: the system
//! refuses to start one of the threads or to open a file, or an index has an invalid definition.
//! Such an open returns, leaves no thread, file or lock, and the next one works.
use super::arguments::{Command, Run, Settings};
use super::driver::{DIRECTORY, Driver, Outcome, Stop};
use super::jobs::replay_command;
use super::operation::{Operation, Value, Write};
use super::report::SeedReport;
use super::shrink::shrink;
use super::tuning::Tuning;
use super::verify;
use super::workload::Workload;
use crate::harness::panic_message;
use sapwood::{Durability, Env, Error, Health};
use sapwood_storage::sim::{Fault, FaultRule, Operation as Kind, SimFs};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

mod opens;

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "scarcity",
    help: "handles, memory, threads and disk space run out temporarily; checks the recovery, and that nothing is lost",
    options: &[
        ("--length", "N", "operations per seed (120)"),
        ("--no-shrink", "", "do not look for a shorter failing list of operations"),
        ("--print", "", "print settings, operations and episodes"),
    ],
    run: Run::Seeds {
        seed,
        counts: &["episodes", "refused calls", "failed opens", "images"],
        seconds: 60,
        seeds: 0..u64::MAX,
    },
};

/// One seed in this many checks opens with threads.
const OPENINGS_ONE_IN: u64 = 4;
/// The rounds of background work after which the database must have recovered.
const ROUNDS: u32 = 200;
/// One operation in this many of an episode is followed by a check of a crash image.
const IMAGE_ONE_IN: u32 = 6;
/// The time limit for shortening a failing list.
const SHRINK: Duration = Duration::from_secs(20);

/// A shortage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Scarcity {
    /// The number of files that can still be opened.
    Handles(usize),
    /// The number of bytes that still fit on the device, in pages.
    Room(u64),
    /// The number of bytes that the quota still allows.
    Quota(u64),
    /// All kinds of calls that can meet this fault fail; among writes, those that extend a file.
    Calls(Fault, Strength),
}

/// The calls that fail.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Strength {
    /// All.
    All,
    /// One in this many, at random.
    OneIn(u32),
    /// Of each kind this many calls succeed, and then this many fail.
    Some(u64, u64),
}

/// An element of a run.
#[derive(Clone)]
enum Step {
    Do(Operation),
    Begin(Scarcity),
    /// Closes, and opens during a shortage.
    Reopen,
    End,
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Do(operation) => write!(f, "{operation:?}"),
            Step::Begin(scarcity) => write!(f, "-- scarcity begins: {scarcity:?}"),
            Step::Reopen => f.write_str("reopen, until it opens"),
            Step::End => f.write_str("-- scarcity ends"),
        }
    }
}

impl Scarcity {
    fn draw(random: &mut fastrand::Rng) -> Scarcity {
        let strength = match random.u8(..4) {
            0 => Strength::All,
            1 => Strength::OneIn(random.u32(2..8)),
            _ => Strength::Some(random.u64(..12), random.u64(1..6)),
        };
        match random.u8(..10) {
            0..2 => Scarcity::Handles(random.usize(..6)),
            2..4 => Scarcity::Room(random.u64(..4) * random.u64(..40_000)),
            4 => Scarcity::Quota(random.u64(..4) * random.u64(..40_000)),
            5 => Scarcity::Calls(Fault::TooManyOpen, strength),
            6 => Scarcity::Calls(Fault::TooManyOpenSystem, strength),
            7 => Scarcity::Calls(Fault::NoMemory, strength),
            8 => Scarcity::Calls(Fault::NoSpace, strength),
            _ => Scarcity::Calls(Fault::Quota, strength),
        }
    }

    fn begin(self, fs: &SimFs, seed: u64) {
        match self {
            Scarcity::Handles(more) => {
                fs.set_handle_limit(Some(fs.open_handles() + fs.held_locks() + more));
            }
            Scarcity::Room(bytes) => fs.set_capacity_bytes(Some(fs.used_bytes() + bytes)),
            Scarcity::Quota(bytes) => fs.set_quota_bytes(fs.used_bytes() + bytes),
            Scarcity::Calls(fault, strength) => {
                let add = |rule: FaultRule| {
                    fs.fail(match strength {
                        Strength::All => rule.sticky(),
                        Strength::OneIn(calls) => rule.one_in(calls, seed),
                        Strength::Some(pass, fail) => rule.after(pass).times(fail),
                    });
                };
                if matches!(fault, Fault::NoSpace | Fault::Quota) {
                    // Records of the log go into preallocated space, and a failed sync is final.
                    add(FaultRule::new(Kind::Create, fault));
                    add(FaultRule::new(Kind::SetLen, fault));
                    add(FaultRule::new(Kind::Write, fault).on(".sst"));
                    add(FaultRule::new(Kind::Write, fault).on("MANIFEST"));
                } else {
                    let meets = |kind: &Kind| fault.applies_to(*kind);
                    Kind::ALL.into_iter().filter(meets).for_each(|kind| add(FaultRule::new(kind, fault)));
                }
            }
        }
    }
}

/// Ends the shortage.
fn end(fs: &SimFs) {
    fs.clear_faults();
    fs.set_capacity_bytes(None);
    fs.set_handle_limit(None);
}

/// Runs one seed.
pub fn seed(seed: u64, settings: &Settings) -> SeedReport {
    if seed % OPENINGS_ONE_IN == OPENINGS_ONE_IN - 1 {
        return opens::seed(seed, settings);
    }
    let length = settings.number("--length").unwrap_or(120) as usize;
    let workload = Workload::of(seed, length, seed % 3 == 1);
    let steps = steps(seed, &workload);
    if settings.has("--print") {
        println!("settings: {}", workload.tuning);
    }
    let mut counts = vec![0; 4];
    let outcome = caught(seed, &workload.tuning, &steps, settings.has("--print"), &mut counts);
    let violations = outcome
        .err()
        .map(|(at, what)| {
            let mut text = format!("seed {seed}: {what}\n  at step {at}: {:?}", steps.get(at));
            text += &format!("\n  settings: {}\n", workload.tuning);
            if !settings.has("--no-shrink") {
                text += &shortened(seed, &workload.tuning, &steps, &what);
            }
            text + &format!("  replay with: {} --length {length}", replay_command("scarcity", seed))
        })
        .into_iter()
        .collect();
    SeedReport { counts, violations }
}

/// The workload, with interspersed episodes.
fn steps(seed: u64, workload: &Workload) -> Vec<Step> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5CA8_CE00);
    let mut steps = Vec::new();
    let mut left = 0;
    for operation in &workload.operations {
        let mut operation = operation.clone();
        // A failed close may lose unlogged commits.
        if let Operation::Commit { durability, .. } = &mut operation
            && *durability == Durability::None
        {
            *durability = Durability::Buffered;
        }
        // Closes and other settings occur on the way, and by themselves.
        let is_reopening = matches!(operation, Operation::Reopen(_));
        steps.push(if is_reopening { Step::Reopen } else { Step::Do(operation) });
        match left {
            0 if random.u8(..6) == 0 => {
                steps.push(Step::Begin(Scarcity::draw(&mut random)));
                left = random.u32(1..14);
                // An operation that needs the scarce resource.
                if random.bool() {
                    steps.push(match random.u8(..5) {
                        0 | 1 => Step::Do(Operation::Flush),
                        2 => Step::Do(Operation::Compact),
                        3 => Step::Reopen,
                        _ => Step::Do(Operation::Background(super::operation::Step::Compaction)),
                    });
                }
            }
            0 => {}
            1 => {
                steps.push(Step::End);
                left = 0;
            }
            _ => left -= 1,
        }
    }
    if left > 0 {
        steps.push(Step::End);
    }
    steps
}

fn caught(
    seed: u64,
    tuning: &Tuning,
    steps: &[Step],
    prints: bool,
    counts: &mut [u64],
) -> Result<(), (usize, String)> {
    let mut at = 0;
    let result =
        std::panic::catch_unwind(AssertUnwindSafe(|| run(seed, tuning, steps, prints, counts, &mut at)));
    let what = match result {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(stop)) => stop.to_string(),
        Err(panic) => {
            format!("panic: {}", panic_message(&*panic))
        }
    };
    Err((at, what))
}

/// A shorter list that also fails, as text.
fn shortened(seed: u64, tuning: &Tuning, steps: &[Step], what: &str) -> String {
    let promise = |what: &str| what.chars().take(24).collect::<String>();
    let name = promise(what);
    let fails = |list: &[Step]| {
        caught(seed, tuning, list, false, &mut [0; 4]).is_err_and(|(_, other)| promise(&other) == name)
    };
    let shortest = shrink(steps, SHRINK, fails);
    let mut text = format!("  {} steps suffice:\n", shortest.len());
    shortest.iter().for_each(|step| text += &format!("    {step:?}\n"));
    text
}

fn run(
    seed: u64,
    tuning: &Tuning,
    steps: &[Step],
    prints: bool,
    counts: &mut [u64],
    at: &mut usize,
) -> Outcome {
    let (env, fs) = Env::sim_manual(seed);
    fs.set_has_mappings(seed.is_multiple_of(2));
    let driver = Driver::open(&env, &fs, tuning, crate::oracle::Oracle::new())?;
    let mut random = fastrand::Rng::with_seed(seed ^ 0xE1_50DE);
    let mut run = Episodes { driver, fs, is_scarce: false, seed, prints, counts };
    for (number, step) in steps.iter().enumerate() {
        *at = number;
        if prints {
            println!("{number:>4} {step:?}");
        }
        match step {
            Step::Begin(scarcity) => {
                run.counts[0] += u64::from(!run.is_scarce);
                run.is_scarce = true;
                scarcity.begin(&run.fs, seed ^ number as u64);
                run.driver.set_scarce(true);
            }
            Step::End => run.recover()?,
            Step::Reopen => run.reopen()?,
            Step::Do(operation) => {
                run.apply(operation)?;
                if run.is_scarce && random.u32(..IMAGE_ONE_IN) == 0 {
                    run.look_at_image(random.bool(), random.u64(..))?;
                }
            }
        }
    }
    *at = steps.len();
    run.recover()?;
    run.look_at_image(random.bool(), random.u64(..))?;
    run.driver.close(&mut ())
}

/// A run in progress.
struct Episodes<'c> {
    driver: Driver,
    fs: SimFs,
    is_scarce: bool,
    seed: u64,
    prints: bool,
    counts: &'c mut [u64],
}

fn violation<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Stop::Violation(what.into()))
}

impl Episodes<'_> {
    /// Runs one operation, which may fail during a shortage.
    fn apply(&mut self, operation: &Operation) -> Outcome {
        let before = self.fs.faults_met();
        let result = self.driver.apply(operation, &mut ());
        self.counts[1] += self.fs.faults_met() - before;
        match result {
            Err(Stop::Error(error)) => {
                if self.prints {
                    println!("     fails: {error}");
                }
                self.accept(&error, &format!("{operation:?}"))?;
                self.driver.has_failed(operation)?;
            }
            result => result?,
        }
        if let Health::Poisoned(error) = self.driver.db().health() {
            return violation(format!("a scarcity has poisoned the database: {error}"));
        }
        Ok(())
    }

    /// Accepts or rejects this error.
    fn accept(&self, error: &Error, what: &str) -> Outcome {
        match (self.is_scarce, error.is_scarcity()) {
            (true, true) => Ok(()),
            (true, false) => {
                violation(format!("a scarcity becomes an error of kind {:?}: {error} ({what})", error.kind()))
            }
            (false, _) => violation(format!("no resource is scarce any more, and {what} fails: {error}")),
        }
    }

    /// Closes, and opens until it succeeds: during a shortage an open may fail, but leaves
    /// nothing.
    fn reopen(&mut self) -> Outcome {
        match self.driver.close(&mut ()) {
            Err(Stop::Error(error)) => self.accept(&error, "close")?,
            result => result?,
        }
        self.holds_nothing("a close")?;
        for _ in 0..3 {
            match self.driver.reopen() {
                Ok(()) => return Ok(()),
                Err(Stop::Error(error)) => {
                    self.accept(&error, "an open")?;
                    self.counts[2] += 1;
                    self.driver.abandon_opening();
                    self.holds_nothing("a failed open")?;
                }
                Err(violation) => return Err(violation),
            }
        }
        end(&self.fs);
        self.is_scarce = false;
        self.driver.set_scarce(false);
        match self.driver.reopen() {
            Err(Stop::Error(error)) => self.accept(&error, "an open"),
            result => result,
        }
    }

    fn holds_nothing(&self, what: &str) -> Outcome {
        for _ in 0..2000 {
            if self.fs.open_handles() == 0 {
                break;
            }
            crossbeam_epoch::pin().flush();
        }
        let (files, locks) = (self.fs.open_handles(), self.fs.held_locks());
        match (files, locks) {
            (0, 0) => Ok(()),
            _ => violation(format!("O9: {files} files and {locks} locks are held after {what}")),
        }
    }

    /// The episode ends: the database recovers without a reopen.
    fn recover(&mut self) -> Outcome {
        end(&self.fs);
        let was_scarce = std::mem::replace(&mut self.is_scarce, false);
        self.driver.set_scarce(false);
        if !was_scarce {
            return Ok(());
        }
        self.driver.becomes_well(ROUNDS)?;
        let writes = vec![Write { space: 0, key: b"again".to_vec(), value: Some(Value { tag: 1, len: 9 }) }];
        let commit = Operation::Commit { writes, single: false, durability: Durability::Sync, wait: false };
        for operation in [commit, Operation::Compare(None)] {
            self.apply(&operation)?;
        }
        self.driver.finish_indexes()?;
        self.driver.settle()?;
        self.driver.let_go();
        self.apply(&Operation::WaitForBackground)?;
        self.apply(&Operation::Compare(None))?;
        self.driver.check_structure()
    }

    /// Opens the present image of a crash on a machine without shortage: it is complete.
    fn look_at_image(&mut self, power_loss: bool, choice: u64) -> Outcome {
        self.counts[3] += 1;
        let image = if power_loss { self.fs.crash(choice) } else { self.fs.kill() };
        let env = Env::sim_manual(self.seed ^ choice).0.with_file_system(Arc::new(image));
        let context = if power_loss { "a power loss" } else { "a kill" };
        let in_context = |what: String| Stop::Violation(format!("{what} (after {context} in the episode)"));
        let db = self.driver.tuning().builder(DIRECTORY, &env).open();
        let db = db.map_err(|error| in_context(format!("the open fails: {error}")))?;
        let contents = verify::contents(&db)?;
        let oracle = self.driver.oracle();
        let found = oracle.find(&verify::sums(&contents), oracle.promise(), power_loss, || contents.clone());
        found.map_err(in_context)?;
        Ok(())
    }
}
