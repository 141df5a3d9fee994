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
use crate::oracle::{Oracle, Promise};
use crate::sim::arguments::{Command, Run, Settings};
use crate::sim::driver::indexes;
use crate::sim::driver::{DIRECTORY, Driver, Observer, Stop};
use crate::sim::jobs::replay_command;
use crate::sim::operation::{Operation, Value, Write};
use crate::sim::positions;
use crate::sim::report::SeedReport;
use crate::sim::shrink::shrink;
use crate::sim::tuning::Tuning;
use crate::sim::verify;
use crate::sim::workload::{Generator, Workload};
use sapwood::{Durability, Env};
use sapwood_base::format::file_name::FileName;
use sapwood_storage::sim::{Atom, AtomKind, CrashChoice, Moment, Operation as CallKind, SimFs};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::OsString;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

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

/// A captured moment of a watched run.
struct Caught {
    operation: u64,
    /// A description.
    what: String,
    image: SimFs,
    /// The table that was just removed, if the moment is taken for that reason alone.
    removed: Option<OsString>,
    /// Numbers that no new file may have, see [`Numbers`].
    durable_numbers: HashSet<u64>,
}

/// The numbers of created files. No number is assigned to a second file (O14), except after a crash
/// that removed every trace of the first.
#[derive(Default)]
struct Numbers {
    /// Of all files since the last crash, and of the files that it left.
    seen: HashSet<u64>,
    /// Of files whose directory entries may still be lost.
    unsynced: HashSet<u64>,
    /// Of files whose directory entries a power loss cannot remove.
    durable: HashSet<u64>,
    violation: Option<String>,
}

impl Numbers {
    /// The numbers that must not occur again after a crash that has left `fs`. After a `power_loss`
    /// the files of `fs` are durable.
    fn after_crash(durable: &HashSet<u64>, fs: &SimFs, power_loss: bool) -> Numbers {
        let left: HashSet<u64> = fs.files().iter().filter_map(|path| number_of(path)).collect();
        let (mut durable, mut unsynced) = (durable.clone(), HashSet::new());
        match power_loss {
            true => durable.extend(&left),
            false => unsynced.extend(left.difference(&durable)),
        }
        Numbers { seen: &durable | &left, unsynced, durable, violation: None }
    }

    /// Records a call that was executed.
    fn note(&mut self, moment: &Moment<'_>) {
        match (moment.operation, number_of(moment.path)) {
            (CallKind::Create, Some(number)) => {
                self.unsynced.insert(number);
                if !self.seen.insert(number) {
                    let what = format!("O14: the number of a file is used again, {moment:?}");
                    self.violation.get_or_insert(what);
                }
            }
            (CallKind::Remove, Some(number)) => drop(self.unsynced.remove(&number)),
            (CallKind::SyncDirectory, _) if moment.path.ends_with(DIRECTORY) => {
                self.durable.extend(self.unsynced.drain());
            }
            _ => {}
        }
    }
}

/// The number in a file's name.
fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(FileName::parse)?;
    name.number().map(|number| number.0)
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

type Queue = Arc<Mutex<Vec<Caught>>>;

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
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
                format!("panic: {}", text.unwrap_or_default())
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

/// Watches one run and recovers from the states that crashes leave.
struct Crasher {
    campaign: Rc<Campaign>,
    /// 1 for crashes of the workload, 2 for crashes of a recovery, …
    level: u32,
    queue: Queue,
    numbers: Arc<Mutex<Numbers>>,
    /// The promise at the time when the queued moments were captured.
    promise: Promise,
    /// Whether moments are taken; with a number, only that one is.
    taken: Option<Option<u64>>,
    /// The states to which a power loss may return while nothing of `promise` is durable: a
    /// recovery shows the remains of a kill, and continues with them, before it syncs them.
    before: Vec<Rc<(Oracle, Promise)>>,
    random: fastrand::Rng,
}

impl Observer for Crasher {
    fn moved(&mut self, oracle: &Oracle) -> Result<(), String> {
        if let Some(what) = self.numbers.lock().expect("no panic held it").violation.take() {
            return Err(what);
        }
        let caught = std::mem::take(&mut *self.queue.lock().expect("no panic held it"));
        let promise = self.promise.clone();
        for caught in caught {
            self.crash(&caught, oracle, &promise)?;
        }
        self.promise = oracle.promise().clone();
        Ok(())
    }

    fn time_passed(&mut self, oracle: &Oracle, fs: &SimFs) {
        self.promise = oracle.promise().clone();
        let operation = fs.operations();
        if self.taken.is_some_and(|only| only.is_none_or(|only| only == operation)) {
            let caught = Caught {
                operation,
                what: "when time had passed".to_string(),
                image: fs.kill(),
                removed: None,
                durable_numbers: self.numbers.lock().expect("no panic holds it").durable.clone(),
            };
            self.queue.lock().expect("no panic holds it").push(caught);
        }
    }
}

impl Crasher {
    fn new(campaign: &Rc<Campaign>, level: u32, promise: Promise, numbers: Numbers) -> Crasher {
        let random = fastrand::Rng::with_seed(campaign.seed ^ u64::from(level) << 56);
        let (queue, numbers) = (Queue::default(), Arc::new(Mutex::new(numbers)));
        let before = Vec::new();
        Crasher { campaign: campaign.clone(), level, queue, numbers, promise, taken: None, before, random }
    }

    /// The states of the history to which a power loss may also return.
    fn still_before(&self, promise: &Promise) -> Vec<Rc<(Oracle, Promise)>> {
        // A commit becomes durable only together with its predecessors.
        if promise.durable > 0 { Vec::new() } else { self.before.clone() }
    }

    /// Watches `fs` and captures the moments whose hash is below `threshold`.
    fn attach(&mut self, fs: &SimFs, threshold: u64, trace: Option<Arc<Mutex<Trace>>>) {
        let (queue, numbers) = (self.queue.clone(), self.numbers.clone());
        let (salt, level) = (self.random.u64(..), self.level);
        let print = self.campaign.only.as_ref().is_some_and(|only| only.print) && threshold > 0;
        let only = self.campaign.only.clone().filter(|_| level == 1).map(|only| only.operation);
        self.taken = (threshold > 0).then_some(only);
        fs.watch(move |moment: &Moment<'_>| {
            if let Some(trace) = &trace {
                let call = (moment.number, moment.operation, moment.path.to_path_buf());
                trace.lock().expect("no panic holds it").calls.push(call);
            }
            if print {
                println!("level {level}: {moment:?}");
            }
            let mut numbers = numbers.lock().expect("no panic holds it");
            if moment.after && !moment.failed {
                numbers.note(moment);
            }
            if threshold == 0 {
                return;
            }
            let mut hash = [0; 17];
            hash[..8].copy_from_slice(&moment.number.to_le_bytes());
            hash[8] = u8::from(moment.after);
            hash[9..].copy_from_slice(&salt.to_le_bytes());
            let hash = xxh3_64(&hash);
            let is_removal = moment.after
                && !moment.failed
                && moment.operation == CallKind::Remove
                && moment.path.extension().is_some_and(|extension| extension == "sst");
            let is_drawn = hash < threshold;
            let is_taken = is_drawn || (is_removal && hash.is_multiple_of(REMOVAL_ONE_IN));
            if is_taken && only.is_none_or(|only| only == moment.number) {
                let removed = moment.path.file_name().filter(|_| !is_drawn).map(ToOwned::to_owned);
                let caught = Caught {
                    operation: moment.number,
                    what: format!("{moment:?}"),
                    image: moment.image(),
                    removed,
                    durable_numbers: numbers.durable.clone(),
                };
                queue.lock().expect("no panic holds it").push(caught);
            }
        });
    }

    /// Crashes one moment in several ways.
    fn crash(&mut self, caught: &Caught, oracle: &Oracle, promise: &Promise) -> Result<(), String> {
        let limit = if self.level == 1 { STATES_PER_MOMENT } else { 1 };
        let images: Vec<(String, SimFs, bool)> = match self.only_choice() {
            Some(choice) if choice == "kill" => vec![(choice, caught.image.kill(), false)],
            Some(text) => {
                let choice: CrashChoice = text.parse()?;
                if !choice.fits(&caught.image.atoms()) {
                    // The choice belongs to the other moment of the call.
                    return Ok(());
                }
                vec![(text, caught.image.crash_by(&choice), true)]
            }
            None if caught.removed.is_some() => {
                let gone = |atom: &Atom| matches!(&atom.kind, AtomKind::Unlink(name) if Some(name) == caught.removed.as_ref());
                let kept: Vec<bool> = caught.image.atoms().iter().map(gone).collect();
                let choice = CrashChoice::of_kept(&kept);
                vec![(choice.to_string(), caught.image.crash_by(&choice), true)]
            }
            None if self.random.u8(..6) == 0 || (self.level > 1 && self.random.u8(..4) == 0) => {
                vec![("kill".to_string(), caught.image.kill(), false)]
            }
            None => {
                // The list begins with the crash that keeps nothing and the crash that keeps
                // everything.
                let skip = if self.level == 1 { 0 } else { self.random.usize(..6) };
                let images = caught.image.crash_images(self.random.u64(..), limit + skip);
                let mut images: Vec<_> =
                    images.map(|(choice, image)| (choice.to_string(), image, true)).collect();
                images.drain(..skip.min(images.len().saturating_sub(1)));
                images
            }
        };
        for (choice, image, power_loss) in images {
            let campaign = self.campaign.clone();
            let known = format!("{promise:?} {power_loss}");
            if !campaign.seen.borrow_mut().insert((image.image_hash(), xxh3_64(known.as_bytes()))) {
                continue;
            }
            if self.level == 1 {
                *campaign.place.borrow_mut() =
                    Some(Place { operation: caught.operation, choice: choice.clone() });
            }
            campaign.states.set(campaign.states.get() + 1);
            campaign.nested.set(campaign.nested.get() + u64::from(self.level > 1));
            if campaign.only.as_ref().is_some_and(|only| only.print) {
                println!("level {}: crash {}, {choice}: {:?}", self.level, caught.what, image.files());
            }
            let seed = xxh3_64(choice.as_bytes()) ^ caught.operation ^ u64::from(self.level) << 60;
            let numbers = Numbers::after_crash(&caught.durable_numbers, &image, power_loss);
            let mut crasher = Crasher::new(&campaign, self.level + 1, promise.clone(), numbers);
            crasher.before = self.still_before(promise);
            let outcome = recover(crasher, image, oracle, power_loss, seed);
            outcome.map_err(|what| {
                let promise_name =
                    if caught.removed.is_some() { "O10: a table was removed too early: " } else { "" };
                format!("{promise_name}{what}\n  crash of level {}: {}, {choice}", self.level, caught.what)
            })?;
            if self.level == 1 {
                *campaign.place.borrow_mut() = None;
            }
        }
        Ok(())
    }

    fn only_choice(&self) -> Option<String> {
        if self.level > 1 {
            return None;
        }
        self.campaign.only.as_ref().and_then(|only| only.choice.clone())
    }
}

/// Recovers from a crash and checks everything.
///
/// `crasher` has the level of crashes in this recovery, and knows the promise.
fn recover(
    mut crasher: Crasher,
    fs: SimFs,
    oracle: &Oracle,
    power_loss: bool,
    seed: u64,
) -> Result<(), String> {
    let (campaign, promise) = (crasher.campaign.clone(), crasher.promise.clone());
    let mut random = fastrand::Rng::with_seed(seed);
    let env = Env::sim_manual(random.u64(..)).0.with_file_system(Arc::new(fs.clone()));
    let tuning = match random.u8(..8) {
        0 => Tuning::draw(&mut random),
        _ => campaign.tuning.clone(),
    };
    let in_words = |stop: Stop| stop.to_string();
    let before = crasher.before.clone();
    let find = |contents: &crate::oracle::Contents| {
        let sums = verify::sums(contents);
        let found = oracle.find(&sums, &promise, power_loss, || contents.clone());
        let earlier = before.iter().filter(|_| power_loss && found.is_err()).find_map(|before| {
            let (oracle, promise) = &**before;
            Some((oracle.find(&sums, promise, true, || contents.clone()).ok()?, promise.clone()))
        });
        match earlier {
            Some(earlier) => Ok(earlier),
            None => Ok((found?, promise.clone())),
        }
    };
    if random.u8(..16) == 0 {
        check_read_only(&env, &fs, &tuning, find)?;
    }
    crasher.random = fastrand::Rng::with_seed(random.u64(..));
    let is_cut_short = crasher.level <= LEVELS
        && random.u32(..if power_loss { NESTED_ONE_IN } else { NESTED_AFTER_KILL_ONE_IN }) == 0;
    crasher.attach(&fs, if is_cut_short { u64::MAX / NESTED_MOMENT_ONE_IN } else { 0 }, None);
    let db = tuning.builder(DIRECTORY, &env).open().map_err(|error| format!("the opening fails: {error}"))?;
    let contents = verify::contents(&db).map_err(in_words)?;
    let (place, kept) = find(&contents)?;
    let mut base = Oracle::from_contents(&contents, promise.sequence);
    let indexes = indexes::found(&db, &place.spaces, &kept.indexes, kept.unsure_index).map_err(in_words)?;
    base.adopt_indexes(&indexes);
    debug_assert_eq!(place.spaces.len(), contents.len());
    if power_loss {
        // The remains were durable, so a crash inside the recovery changes nothing.
        crasher.promise = base.promise().clone();
        crasher.before.clear();
        crasher.moved(&base)?;
    } else {
        // A power loss can still remove the remains of the kill, until something is durable that
        // was written later.
        crasher.moved(oracle)?;
        if is_cut_short {
            crasher.before.push(Rc::new((oracle.clone(), promise.clone())));
        }
        crasher.promise = base.promise().clone();
    }
    // If the recovery is not watched, or nothing can be lost, work continues at once.
    let is_unsure = !crasher.before.is_empty();
    let mut driver = Driver::with(db, &env, &fs, &tuning, base);
    driver.check_opened().map_err(in_words)?;
    if random.u32(..STRUCTURE_ONE_IN) == 0 {
        driver.check_structure().map_err(in_words)?;
    }
    // The database keeps working: numbers only grow, and new writes are readable.
    let mut generator = Generator::new(&mut random);
    if !indexes.is_empty() {
        generator.add_indexes();
    }
    let writes = vec![Write { space: 0, key: b"after".to_vec(), value: Some(Value { tag: 0, len: 20 }) }];
    let durability = if random.bool() { Durability::Sync } else { Durability::Buffered };
    let mut operations = vec![Operation::Commit { writes, single: false, durability, wait: false }];
    if is_unsure {
        // The oracle describes earlier states only as long as the keyspaces and indexes match them.
        operations.push(Operation::Sync);
    }
    if random.u8(..4) == 0 {
        operations.extend((0..6).map(|_| generator.operation(&mut random)));
    }
    operations.push(Operation::Compare(None));
    if random.u8(..4) == 0 {
        operations.push(Operation::Reopen(None));
    }
    for operation in &operations {
        let done = driver.apply(operation, &mut crasher);
        done.map_err(|stop| format!("{stop}\n  at {operation:?} after the recovery"))?;
    }
    crasher.moved(driver.oracle())?;
    fs.unwatch();
    driver.abandon();
    Ok(())
}

/// Opens read-only: no byte may change (O16), and the content is right.
fn check_read_only<P>(
    env: &Env,
    fs: &SimFs,
    tuning: &Tuning,
    find: impl Fn(&crate::oracle::Contents) -> Result<P, String>,
) -> Result<(), String> {
    let before = verify::files_hash(fs);
    match tuning.builder(DIRECTORY, env).read_only(true).open() {
        Ok(db) => {
            let contents = verify::contents(&db).map_err(|stop| stop.to_string())?;
            // If not even the default keyspace existed yet, there is nothing to compare.
            if contents.contains_key(&0) {
                find(&contents)?;
            }
            db.close().map_err(|error| format!("O16: a read-only close fails: {error}"))?;
        }
        Err(error) if error.kind() == sapwood::ErrorKind::NotFound => {}
        Err(error) => return Err(format!("O16: the read-only opening fails: {error}")),
    }
    if verify::files_hash(fs) != before {
        return Err("O16: a read-only opening has changed bytes".to_string());
    }
    Ok(())
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
