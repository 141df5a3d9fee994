//! `sapwood-sim shuttle`: the engine with all its threads, under schedules that the seed
//! determines.
//!
//! Three writers, two readers, a maintainer that flushes, compacts and pauses, and the engine's own
//! threads run one at a time on a machine of [`Env::sim_scheduled`]. Meanwhile power losses and
//! kills leave images. After the run the history is known: sequence numbers state the order of the
//! commits. Every reader's results, every image, and the content after the close must be prefixes
//! of it with every promised commit. Every second seed has secondary indexes, each of which must
//! agree with the rows at every snapshot and after every open.
//!
//! Some seeds add more:
//!
//! | seeds | addition |
//! |---|---|
//! | 3 of 4 | keyspaces and indexes are created and dropped concurrently (`guests`) |
//! | every second one with writers | scans meet ranges of deletions into which rows are put (`vacancies`) |
//! | 1 of 4 | some commits have a payload that is written apart from its record |
//! | 1 of 4 | the database is closed early, while calls of every kind are in progress (`callers`), and reopened while they return: the first session has no thread left then, and changes no file any more |
use crate::journal::Write;
use crate::oracle::Map;
use crate::sim::arguments::{Command, Run, Settings};
use crate::sim::driver::Stop;
use crate::sim::indexes::{self, index_name, options};
use crate::sim::jobs::replay_command;
use crate::sim::positions;
use crate::sim::report::SeedReport;
use crate::sim::tuning::Tuning;
use sapwood::{Db, DbBuilder, Env, ErrorKind, Keyspace, Result, Snapshot};
use sapwood_storage::sim::{Schedule, SimFs};
use sapwood_storage::sync::step;
use sapwood_storage::{JoinHandle, ThreadClass};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

mod roles;
mod history;
mod callers;
mod guests;
mod vacancies;

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "shuttle",
    help: "threads in any order; checks writers, readers, background work, a close and crashes",
    options: &[
        ("--commits", "N", "commits of each of the three writers (50)"),
        ("--indexes", "", "every seed has secondary indexes, not only every second one"),
        ("--alone", "", "only flushes, and keyspaces that are created and dropped: they meet often"),
        ("--print", "", "print settings, number of turns, and a hash of them"),
    ],
    run: Run::Seeds {
        seed,
        counts: &["schedules", "turns", "crash images"],
        seconds: 60,
        seeds: 0..u64::MAX,
    },
};

const PATH: &str = "/db";
/// The indexes of each keyspace, if there are any: one of each kind.
const INDEXES: [[u8; 2]; SPACES.len()] = [[0, 2], [1, 3]];
const WRITERS: usize = 3;
const READERS: u64 = 2;
const SPACES: [&str; 2] = ["left", "right"];
/// The number of full reads of a reader.
const LOOKS: usize = 8;
/// The number of the maintainer's actions.
const ERRANDS: usize = 8;
const IMAGES: usize = 3;
/// More than an arena and than a segment of the log can hold.
const BODY_BYTES: usize = 300_000;

use callers::Session;
use guests::{Floors, Guests};
use history::check;

/// An acknowledged commit.
struct Done {
    sequence: u64,
    changes: Vec<Write>,
}

/// The content at a snapshot.
struct Look {
    reader: u64,
    sequence: u64,
    maps: Vec<Map>,
}

/// An image of a crash, and the sequence number up to which every commit must be there.
struct Image {
    name: String,
    fs: SimFs,
    floor: u64,
    guests: Floors,
}

#[derive(Default)]
struct Notes {
    commits: Vec<Done>,
    /// By writer: the number of acknowledged commits.
    counts: [u64; WRITERS],
    /// Sequence numbers of the newest commits that were acknowledged, and acknowledged as durable.
    acknowledged: u64,
    durable: u64,
    looks: Vec<Look>,
    images: Vec<Image>,
    guests: Guests,
    walks: Vec<vacancies::Walk>,
    /// The rows of the session after an early close, the same in each keyspace.
    later: Map,
}

/// The parameters of a run, from the seed and the arguments.
#[derive(Clone)]
struct Plan {
    seed: u64,
    tuning: Tuning,
    commits: u64,
    /// Whether the database is closed while threads use it.
    closes_early: bool,
    has_indexes: bool,
    has_vacancies: bool,
    /// Whether some commits have a payload that is written apart.
    has_bodies: bool,
    guests: Company,
}

/// Whether keyspaces are created and dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Company {
    Without,
    Beside,
    /// With nothing but flushes, which then meet them often.
    Alone,
}

impl Plan {
    /// The builder of the database, with the code of its indexes, and of those that callers may
    /// have left at a close.
    fn builder(&self, env: &Env) -> DbBuilder {
        let builder = self.indexes().fold(self.tuning.builder(PATH, env), |builder, (space, index)| {
            builder.index(SPACES[space], &index_name(index), options(index))
        });
        let of_callers = (0..callers::CALLERS).filter(|_| self.closes_early && self.has_indexes);
        of_callers.fold(builder, |builder, caller| {
            let name = format!("{}{caller}", callers::CALLERS_INDEX);
            SPACES.iter().fold(builder, |builder, space| builder.index(space, &name, options(caller as u8)))
        })
    }

    /// The indexes, with their keyspaces.
    fn indexes(&self) -> impl Iterator<Item = (usize, u8)> + use<> {
        let of = |(space, indexes): (usize, [u8; 2])| indexes.map(|index| (space, index));
        let has_indexes = self.has_indexes;
        INDEXES.into_iter().enumerate().flat_map(of).filter(move |_| has_indexes)
    }

    /// Compares every index with the content of its keyspace, at the snapshot or now.
    fn compare_indexes(
        &self,
        spaces: &[Keyspace],
        at: Option<&Snapshot>,
        maps: &[Map],
    ) -> Checked<Result<()>> {
        for (space, index) in self.indexes() {
            match indexes::compare(&spaces[space], index, at, &maps[space]) {
                Ok(true) => {}
                Ok(false) => return Err(format!("O5: {} is unavailable", index_name(index))),
                Err(Stop::Violation(what)) => return Err(what),
                Err(Stop::Error(error)) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }
}

/// `Err` is a violation.
type Checked<T> = std::result::Result<T, String>;

/// The state shared by the threads of one run.
#[derive(Clone)]
struct Stage {
    env: Env,
    fs: SimFs,
    db: Db,
    spaces: Vec<Keyspace>,
    /// Never held over a scheduling point.
    notes: Arc<Mutex<Notes>>,
    plan: Plan,
}

/// Runs one seed.
pub fn seed(seed: u64, settings: &Settings) -> SeedReport {
    let commits = settings.number("--commits").unwrap_or(50);
    let mut random = fastrand::Rng::with_seed(seed ^ 0x0050_771E);
    let mut tuning = match random.u8(..3) {
        0 => Tuning::standard(),
        _ => Tuning::draw(&mut random),
    };
    tuning.memtable_bytes = 64 << 10;
    let closes_early = random.u8(..4) == 0;
    let has_indexes = seed % 2 == 1 || settings.has("--indexes");
    let guests = match random.u8(..8) {
        _ if settings.has("--alone") => Company::Alone,
        0 | 1 => Company::Without,
        2..6 => Company::Beside,
        _ => Company::Alone,
    };
    let commits = if guests == Company::Alone { 0 } else { commits };
    let has_vacancies = guests != Company::Alone && random.bool();
    let has_bodies = random.u8(..4) == 0;
    let plan = Plan { seed, tuning, commits, closes_early, has_indexes, has_vacancies, has_bodies, guests };
    let (env, fs, schedule) = Env::sim_scheduled(seed);
    if let Some(position) = positions::before_the_end_of_a_word(seed) {
        positions::begin_at(&fs, std::path::Path::new(PATH), position).expect("a database is made");
    }
    let notes = Arc::new(Mutex::new(Notes::default()));
    let outcome = {
        let (env, fs, notes, plan) = (env.clone(), fs.clone(), notes.clone(), plan.clone());
        let schedule_inside = schedule.clone();
        schedule.run(move || {
            if let Err(error) = perform(env, fs, &schedule_inside, notes, plan) {
                panic!("{error}");
            }
        })
    };
    let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = outcome.and_then(|()| check(&mut notes, &fs, &plan));
    if settings.has("--print") {
        print(&schedule, &plan);
    }
    let mut report =
        SeedReport { counts: vec![1, schedule.turns(), notes.images.len() as u64], violations: Vec::new() };
    if let Err(what) = outcome {
        let replay = replay_command("shuttle", seed);
        let early = if closes_early { ", closed early" } else { "" };
        let indexes = if settings.has("--indexes") { " --indexes" } else { "" };
        let alone = if settings.has("--alone") { " --alone" } else { "" };
        let settings = &plan.tuning;
        let text = format!(
            "seed {seed}{early}: {what}\n  settings: {settings}\n  replay with: {replay} --commits {commits}{indexes}{alone}"
        );
        report.violations.push(text);
    }
    report
}

fn print(schedule: &Schedule, plan: &Plan) {
    println!("settings: {}", plan.tuning);
    println!(
        "closed early: {}, indexes: {}, ranges of deletions: {}, large payloads: {}, concurrent keyspaces: {:?}",
        plan.closes_early, plan.has_indexes, plan.has_vacancies, plan.has_bodies, plan.guests
    );
    println!("turns: {}, hash {:016x}", schedule.turns(), schedule.trace());
}

/// The work of the first thread of the schedule.
fn perform(env: Env, fs: SimFs, schedule: &Schedule, notes: Arc<Mutex<Notes>>, plan: Plan) -> Result<()> {
    let (first_env, first) = Session::new("first session", &env, &fs);
    let db = plan.builder(&first_env).open()?;
    let remains = db.remains();
    let spaces: Vec<Keyspace> =
        SPACES.iter().map(|name| db.keyspace(name, plan.tuning.keyspace.clone())).collect::<Result<_>>()?;
    for (space, index) in plan.indexes() {
        spaces[space].create_index(&index_name(index), options(index))?;
    }
    // An image without the keyspaces is not allowed after this.
    db.sync()?;
    let stage = Stage { env: env.clone(), fs: fs.clone(), db, spaces, notes: notes.clone(), plan };
    let mut threads = Vec::new();
    for writer in 0..WRITERS {
        threads.push(stage.start(&format!("writer-{writer}"), move |stage| stage.write(writer))?);
    }
    let is_alone = stage.plan.guests == Company::Alone;
    for reader in (0..READERS).filter(|_| !is_alone) {
        threads.push(stage.start(&format!("reader-{reader}"), move |stage| stage.read(reader))?);
    }
    for walker in (0..vacancies::WALKERS).filter(|_| stage.plan.has_vacancies) {
        threads.push(stage.start(&format!("walker-{walker}"), move |stage| stage.walk(walker))?);
    }
    threads.push(stage.start("maintainer", |stage| stage.maintain())?);
    threads.push(stage.start("crasher", |stage| stage.crash())?);
    if stage.plan.guests != Company::Without {
        for maker in 0..guests::MAKERS {
            threads.push(stage.start(&format!("maker-{maker}"), move |stage| stage.make(maker))?);
        }
    }
    let mut later = None;
    if stage.plan.closes_early {
        for caller in 0..callers::CALLERS {
            threads.push(stage.start(&format!("caller-{caller}"), move |stage| stage.call(caller))?);
        }
        let mut random = stage.random(90);
        (0..random.u32(..4000)).for_each(|_| step());
        stage.db.close()?;
        first.has_closed(schedule);
        let (env, second) = Session::new("second session", &env, &fs);
        let (db, rows) = callers::work_later(&stage.plan, &env)?;
        later = Some((db, rows, second));
    }
    threads.into_iter().try_for_each(JoinHandle::join)?;
    match later {
        None => {
            stage.db.close()?;
            first.has_closed(schedule);
        }
        Some((db, rows, second)) => {
            first.has_changed_nothing();
            db.close()?;
            second.has_closed(schedule);
            let remains = db.remains();
            drop(db);
            second.holds_nothing(&remains);
            notes.lock().unwrap_or_else(PoisonError::into_inner).later = rows;
        }
    }
    drop(stage);
    first.holds_nothing(&remains);
    Ok(())
}

impl Stage {
    fn start(
        &self,
        name: &str,
        body: impl FnOnce(&Stage) -> Result<()> + Send + 'static,
    ) -> Result<JoinHandle> {
        let stage = self.clone();
        self.env.spawn(name, ThreadClass::Latency, move || match body(&stage) {
            Err(error) if stage.plan.closes_early && error.kind() == ErrorKind::Closed => {}
            Err(error) => panic!("{error}"),
            Ok(()) => {}
        })
    }

    /// Repeats a call while it is refused because another thread has paused background work.
    fn served<R>(&self, mut call: impl FnMut() -> Result<R>) -> Result<R> {
        loop {
            match call() {
                Err(error) if error.kind() == ErrorKind::Paused => self.env.sleep(Duration::from_micros(50)),
                result => return result,
            }
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn random(&self, thread: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.plan.seed.wrapping_mul(1000).wrapping_add(thread))
    }
}

fn counter(writer: usize) -> Vec<u8> {
    format!("counter-{writer}").into_bytes()
}

fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value[..8].try_into().expect("a value begins with its number"))
}
