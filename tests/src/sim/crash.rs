//! `sapwood-sim crash`: power losses and kills before and after every changing call, also inside
//! recovery.
//!
//! 1. A workload runs once without crashes: this run checks every result, and counts the changing
//!    calls.
//! 2. It runs again with the same calls (a hash of all calls proves it), and a watcher captures the
//!    machine's state at moments spread evenly over the run.
//! 3. Each moment yields several states that a power loss can leave, and sometimes the state that a
//!    kill leaves.
//! 4. Each state is recovered. It must be one prefix of the history with everything that was
//!    promised at that moment, the directory must be tidy, and the database must keep working: it
//!    accepts writes, returns them to reads, and numbers them above every number assigned before.
//! 5. For one in two removals of tables, a state is made in which the removal is durable and no
//!    other unsynced change is. The database must not miss the table (O10). No file gets a number
//!    that an earlier file had, in a recovery either (O14).
//! 6. A commit with `Durability::Periodic` is durable when its interval has passed (O1): the run
//!    follows the machine's clock, and whenever the clock alone has made a commit durable, the
//!    power fails.
//! 7. One recovery in eight is watched and interrupted itself, and one in eight of those again.
//!    Some databases are closed and opened once more, which must change nothing; some are first
//!    opened read-only, which must change no byte.
use crate::harness::panic_message;
use crate::oracle::Oracle;
use crate::sim::arguments::{Command, Run, Settings};
use crate::sim::driver::{DIRECTORY, Driver, Observer, Stop};
use crate::sim::jobs::replay_command;
use crate::sim::operation::Operation;
use crate::sim::positions;
use crate::sim::report::SeedReport;
use crate::sim::shrink::shrink;
use crate::sim::tuning::Tuning;
use crate::sim::workload::Workload;
use sapwood::Env;
use sapwood_storage::sim::Operation as CallKind;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

mod crasher;
mod recovery;

use crasher::{Crasher, Numbers};

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "crash",
    help: "power losses and kills at any changing call, also inside recovery; checks every promise",
    options: &[
        ("--states", "N", "approximate number of states per seed (280)"),
        ("--length", "N", "operations per seed (80)"),
        ("--operation", "K", "only the moments of the changing call with this number"),
        ("--choice", "TEXT", "only the states of this choice: \"kill\", or the text of a failure"),
        ("--loose", "", "do not require that runs repeat: for a process with other active threads"),
        ("--indexes", "", "every seed has secondary indexes, not only every second one"),
        ("--no-shrink", "", "do not look for a shorter failing list of operations"),
        ("--print", "", "print settings and operations; with --operation, all changing calls too"),
    ],
    run: Run::Seeds { seed, counts: &["states", "nested"], seconds: 90, seeds: 0..u64::MAX },
};

/// The time limit for shortening a failing list.
const SHRINK: Duration = Duration::from_secs(40);
/// The most states that power losses make of one moment.
const STATES_PER_MOMENT: usize = 8;
/// One recovery in this many is watched and interrupted.
const NESTED_ONE_IN: u32 = 8;
/// The same after a kill, which leaves data that is not durable yet.
const NESTED_AFTER_KILL_ONE_IN: u32 = 3;
/// The depth of crashes within recoveries from crashes.
const LEVELS: u32 = 3;
/// One moment in this many of a watched recovery is taken.
const NESTED_MOMENT_ONE_IN: u64 = 24;

/// One removal of a table in this many is examined alone.
const REMOVAL_ONE_IN: u64 = 2;
/// The structure is checked after one recovery in this many.
const STRUCTURE_ONE_IN: u32 = 8;

/// Runs one seed.
pub fn seed(seed: u64, settings: &Settings) -> SeedReport {
    let length = settings.number("--length").unwrap_or(80) as usize;
    let states = settings.number("--states").unwrap_or(280);
    let workload = Workload::of(seed, length, seed % 2 == 1 || settings.has("--indexes"));
    if settings.has("--print") {
        println!("settings: {}", workload.tuning);
        for (at, operation) in workload.operations.iter().enumerate() {
            println!("{at:>4} {operation:?}");
        }
    }
    let only = settings.text("--operation").and_then(|number| number.parse().ok()).map(|operation| Only {
        operation,
        choice: settings.text("--choice").map(str::to_string),
        print: settings.has("--print"),
    });
    let campaign = Campaign::new(seed, workload.tuning.clone(), states, only, settings.has("--loose"));
    let mut failure = campaign.run(&workload.operations).err();
    if failure.is_none() && campaign.only.is_some() && campaign.states.get() == 0 {
        let what = "no moment matches --operation and --choice".to_string();
        failure = Some(Failure { place: None, what });
    }
    let counts = vec![campaign.states.get(), campaign.nested.get()];
    let violations = failure
        .map(|failure| {
            let mut text = format!("seed {seed}: {failure}\n  settings: {}\n", workload.tuning);
            if !settings.has("--no-shrink") {
                text += &shortened(seed, &workload, states, &failure);
            }
            let mut replay = replay_command("crash", seed);
            if let Some(place) = &failure.place {
                replay += &format!(" --operation {} --choice '{}'", place.operation, place.choice);
            }
            if settings.has("--indexes") {
                replay += " --indexes";
            }
            text + &format!("  replay with: {replay} --length {length} --states {states}")
        })
        .into_iter()
        .collect();
    SeedReport { counts, violations }
}

/// A shorter list of operations that also fails, as text.
fn shortened(seed: u64, workload: &Workload, states: u64, failure: &Failure) -> String {
    let promise = |failure: &Failure| failure.what.split(':').next().unwrap_or_default().to_string();
    let name = promise(failure);
    // More states than in the first run, so that a crash at a rare place occurs again.
    let fails = |list: &[Operation]| {
        let campaign = Campaign::new(seed, workload.tuning.clone(), states * 2, None, false);
        campaign.run(list).is_err_and(|other| promise(&other) == name)
    };
    let shortest = shrink(&workload.operations, SHRINK, fails);
    if shortest.len() == workload.operations.len() {
        return String::new();
    }
    let mut text = format!("  {} operations suffice:\n", shortest.len());
    shortest.iter().for_each(|operation| text += &format!("    {operation:?}\n"));
    text
}

/// A restriction to one place.
#[derive(Clone)]
struct Only {
    operation: u64,
    choice: Option<String>,
    /// Prints every changing call.
    print: bool,
}

/// A crash of the outermost level.
#[derive(Clone, Debug)]
struct Place {
    operation: u64,
    choice: String,
}

/// A violation.
#[derive(Clone, Debug)]
struct Failure {
    place: Option<Place>,
    what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)
    }
}

/// The record of a run.
#[derive(Default)]
struct Trace {
    /// Changing calls: number, kind and file, before and after each.
    calls: Vec<(u64, CallKind, PathBuf)>,
    /// A hash of all results of reads.
    answers: u64,
}

impl Trace {
    /// The first difference of two runs that should be equal.
    fn difference(&self, again: &Trace) -> Option<String> {
        let calls = self.calls.len().max(again.calls.len());
        if let Some(at) = (0..calls).find(|at| self.calls.get(*at) != again.calls.get(*at)) {
            let show = |trace: &Trace| match trace.calls.get(at) {
                Some((number, operation, path)) => format!("call {number}, {operation} {}", path.display()),
                None => "the end".to_string(),
            };
            return Some(format!("{} was {} in the second run", show(self), show(again)));
        }
        (self.answers != again.answers).then(|| "its results differ in the second run".to_string())
    }
}

/// The state shared by all levels of one seed.
struct Campaign {
    seed: u64,
    tuning: Tuning,
    budget: u64,
    only: Option<Only>,
    /// Whether other threads of this process decide when files are removed.
    loose: bool,
    states: Cell<u64>,
    nested: Cell<u64>,
    /// States that were recovered already, with their promises.
    seen: RefCell<HashSet<(u64, u64)>>,
    /// The present crash of the outermost level.
    place: RefCell<Option<Place>>,
}

impl Campaign {
    fn new(seed: u64, tuning: Tuning, budget: u64, only: Option<Only>, loose: bool) -> Rc<Campaign> {
        Rc::new(Campaign {
            seed,
            tuning,
            budget,
            only,
            loose,
            states: Cell::new(0),
            nested: Cell::new(0),
            seen: RefCell::default(),
            place: RefCell::default(),
        })
    }

    /// Runs the operations without crashes, then with crashes.
    fn run(self: &Rc<Campaign>, operations: &[Operation]) -> Result<(), Failure> {
        let caught = std::panic::catch_unwind(AssertUnwindSafe(|| self.run_twice(operations)));
        let what = match caught {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(what)) => what,
            Err(panic) => {
                format!("panic: {}", panic_message(&*panic))
            }
        };
        let place = self.place.borrow().clone();
        let what = match &place {
            Some(place) => format!("{what}\n  after {} at operation {}", place.choice, place.operation),
            None => what,
        };
        Err(Failure { place, what })
    }

    fn run_twice(self: &Rc<Campaign>, operations: &[Operation]) -> Result<(), String> {
        let (calls, trace) = self.run_once(operations, |_| 0)?;
        // A moment yields several states; half of the calls have two different moments.
        let moments = 2 * calls;
        let wanted = self.budget.div_ceil(5).min(moments);
        let threshold = match &self.only {
            Some(_) => u64::MAX,
            None => (wanted as f64 / moments.max(1) as f64 * u64::MAX as f64) as u64,
        };
        let (_, again) = self.run_once(operations, |_| threshold)?;
        // A run for one place stops nowhere else, and is the same in every other respect.
        match trace.difference(&again).filter(|_| !self.loose) {
            Some(difference) => Err(format!("the run does not repeat itself: {difference}")),
            None => Ok(()),
        }
    }

    /// Runs the operations; returns the number of changing calls, the calls, and a hash of all
    /// results.
    fn run_once(
        self: &Rc<Campaign>,
        operations: &[Operation],
        threshold: impl Fn(()) -> u64,
    ) -> Result<(u64, Trace), String> {
        let (env, fs) = Env::sim_manual(self.seed);
        fs.set_has_mappings(self.seed % 2 == 1);
        if let Some(position) = positions::before_the_end_of_a_word(self.seed) {
            positions::begin_at(&fs, Path::new(DIRECTORY), position).map_err(|error| error.to_string())?;
        }
        let trace = Arc::new(Mutex::new(Trace::default()));
        let promise = Oracle::new().promise().clone();
        let mut crasher = Crasher::new(self, 1, promise, Numbers::default());
        crasher.attach(&fs, threshold(()), Some(trace.clone()));
        let in_words = |stop: Stop| stop.to_string();
        let mut driver = Driver::open(&env, &fs, &self.tuning, Oracle::new()).map_err(in_words)?;
        driver.follow_clock();
        crasher.moved(driver.oracle())?;
        driver
            .run(operations, &mut crasher)
            .map_err(|(at, stop)| format!("{stop}\n  at step {at}: {:?}", operations[at]))?;
        driver.settle().map_err(in_words)?;
        driver.apply(&Operation::Compare(None), &mut crasher).map_err(in_words)?;
        crasher.moved(driver.oracle())?;
        driver.close(&mut crasher).map_err(in_words)?;
        crasher.moved(driver.oracle())?;
        fs.unwatch();
        let mut trace = std::mem::take(&mut *trace.lock().expect("no panic held it"));
        trace.answers = driver.answers();
        Ok((fs.operations(), trace))
    }
}

/// Runs these operations, and recovers from about `states` states that crashes can leave; for
/// fuzzing.
pub fn run_operations(
    seed: u64,
    tuning: &Tuning,
    operations: &[Operation],
    states: u64,
) -> Result<(), String> {
    let campaign = Campaign::new(seed, tuning.clone(), states, None, false);
    campaign.run(operations).map_err(|failure| failure.to_string())
}
