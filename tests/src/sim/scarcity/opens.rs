//! Opens with threads that lack a resource.
use crate::harness::contents;
use crate::oracle::{Map, difference};
use crate::sim::arguments::Settings;
use crate::sim::indexes::{index_name, options};
use crate::sim::jobs::replay_command;
use crate::sim::report::SeedReport;
use crate::sim::tuning::Tuning;
use sapwood::{Builtin, DbBuilder, Env, ErrorKind, Field, IndexOptions, KeyKind, Result};
use sapwood_storage::sim::{Fault, FaultRule, Operation, Schedule, SimFs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const PATH: &str = "/db";
/// The number of opens per seed.
const OPENINGS: u32 = 6;
/// Rounds of the collector after which remaining objects count as leaked.
const TURNS: u32 = 4000;

/// The resource that an open lacks.
#[derive(Clone, Copy, Debug)]
enum Lack {
    /// The thread with this number, and those after it.
    Thread { pass: u64, count: u64 },
    /// A handle or memory for the call with this number of its kind.
    Call(Operation, Fault, u64),
    /// A valid definition of an index.
    Definition,
}

impl Lack {
    fn draw(random: &mut fastrand::Rng) -> Lack {
        match random.u8(..8) {
            0..4 => Lack::Thread { pass: random.u64(..6), count: random.u64(1..4) },
            4 => Lack::Definition,
            _ => {
                use Operation::{Create, List, Lock, Map, Open};
                let kinds = [Open, Create, List, Lock, Map];
                let faults = [Fault::TooManyOpen, Fault::TooManyOpenSystem, Fault::NoMemory];
                let (kind, fault) = (kinds[random.usize(..5)], faults[random.usize(..3)]);
                Lack::Call(kind, fault, random.u64(..4))
            }
        }
    }
}

/// Runs one seed.
pub(super) fn seed(seed: u64, settings: &Settings) -> SeedReport {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x09E4_1465);
    let mut tuning = Tuning::draw(&mut random);
    tuning.disable_auto_compactions = false;
    if settings.has("--print") {
        println!("settings: {tuning}");
    }
    let prints = settings.has("--print");
    let (env, _, schedule) = Env::sim_scheduled(seed);
    let failed = Arc::new(AtomicU64::new(0));
    let lacks: Arc<Mutex<Vec<Lack>>> = Arc::default();
    let outcome = {
        let (schedule_inside, tuning) = (schedule.clone(), tuning.clone());
        let (failed, lacks) = (failed.clone(), lacks.clone());
        schedule.run(move || {
            if let Err(error) = perform(&env, &schedule_inside, &tuning, random, &failed, &lacks, prints) {
                panic!("{error}");
            }
        })
    };
    let lack = lacks.lock().unwrap_or_else(PoisonError::into_inner).last().copied();
    let violations = outcome
        .err()
        .map(|what| {
            let replay = replay_command("scarcity", seed);
            format!(
                "seed {seed}: an open without {lack:?}: {what}\n  settings: {tuning}\n  replay with: {replay}"
            )
        })
        .into_iter()
        .collect();
    // Relaxed: all threads have ended.
    SeedReport { counts: vec![0, 0, failed.load(Ordering::Relaxed), 0], violations }
}

fn perform(
    env: &Env,
    schedule: &Schedule,
    tuning: &Tuning,
    mut random: fastrand::Rng,
    failed: &AtomicU64,
    lacks: &Mutex<Vec<Lack>>,
    prints: bool,
) -> Result<()> {
    let mut fs = SimFs::new();
    fs.set_has_mappings(random.bool());
    let mut rows = Map::new();
    let db = tuning.builder(PATH, &env.with_file_system(Arc::new(fs.clone()))).open()?;
    let space = db.default_keyspace();
    space.create_index(&index_name(0), options(0))?;
    for number in 0..random.u32(..40) {
        let (key, value) = (number.to_be_bytes().to_vec(), vec![random.u8(..); random.usize(..600)]);
        space.put(&key, &value)?;
        rows.insert(key, value.into());
    }
    if random.bool() {
        db.close()?;
    }
    // Otherwise the process dies, with unflushed commits in the log only.
    fs = fs.kill();
    drop((space, db));
    for _ in 0..OPENINGS {
        let lack = Lack::draw(&mut random);
        lacks.lock().unwrap_or_else(PoisonError::into_inner).push(lack);
        let (fs_seen, user) = fs.for_user();
        let env = env.with_file_system(Arc::new(fs_seen));
        let builder: DbBuilder = match lack {
            Lack::Definition => {
                let wrong = Builtin::new(Field::value().pointer("no slash"), KeyKind::Bytes);
                tuning.builder(PATH, &env).index("default", &index_name(0), IndexOptions::builtin(wrong))
            }
            _ => tuning.builder(PATH, &env).index("default", &index_name(0), options(0)),
        };
        match lack {
            Lack::Thread { pass, count } => schedule.refuse_threads(pass, count),
            Lack::Call(kind, fault, pass) => fs.fail(FaultRule::new(kind, fault).after(pass)),
            Lack::Definition => {}
        }
        let result = builder.open();
        schedule.refuse_threads(0, 0);
        fs.clear_faults();
        if prints {
            let outcome = result.as_ref().map(|_| "opens").map_err(ToString::to_string);
            println!("without {lack:?}: {outcome:?}");
        }
        match result {
            Ok(db) => {
                assert!(!matches!(lack, Lack::Definition), "the invalid definition is accepted");
                same(&contents(&db.default_keyspace())?, &rows);
                db.close()?;
            }
            Err(error) => {
                failed.fetch_add(1, Ordering::Relaxed);
                let is_right = match lack {
                    Lack::Definition => error.kind() == ErrorKind::InvalidArgument,
                    _ => error.is_scarcity(),
                };
                assert!(is_right, "the open fails with an error of kind {:?}: {error}", error.kind());
            }
        }
        user.retire();
        let threads = schedule.live_threads();
        let own: Vec<&String> = threads.iter().filter(|name| name.starts_with("sapwood-")).collect();
        assert!(own.is_empty(), "O9: threads remain: {own:?}");
        assert!(user.locks() == 0, "O9: the lock is held");
        for _ in 0..TURNS {
            if user.files() == 0 {
                break;
            }
            crossbeam_epoch::pin().flush();
        }
        assert!(user.files() == 0, "O9: {} files are open", user.files());
        let (late, calls) = user.late_calls();
        assert!(late == 0, "O9: the failed open still changes files: {calls:?}");
        // The same machine without a shortage, and sometimes one more death of the process.
        if random.bool() {
            fs = fs.kill();
        }
        let env = env.with_file_system(Arc::new(fs.clone()));
        let db = tuning.builder(PATH, &env).index("default", &index_name(0), options(0)).open()?;
        same(&contents(&db.default_keyspace())?, &rows);
        let report = db.default_keyspace().index(&index_name(0))?.verify()?;
        assert!(report.is_right(), "O5: {report:?}");
        let left = fs.kill();
        db.close()?;
        if random.bool() {
            fs = left;
        }
    }
    Ok(())
}

fn same(got: &Map, want: &Map) {
    if let Some(difference) = difference(got, want) {
        panic!("O1: {difference}");
    }
}
