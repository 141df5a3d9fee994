//! `sapwood-sim places`: the working directory changes, directories are renamed and replaced, lock
//! files vanish, and other directories contain foreign files.
//!
//! A workload runs on a database and its oracle. Meanwhile events happen:
//!
//! * the working directory changes to another one, in which another database has the same name;
//! * the directory of the database is renamed, and the other database gets its name;
//! * the lock file is removed or replaced.
//!
//! All results stay right, no byte of any other directory changes, and a second open is refused
//! whatever happened to the lock file. At the end the database is closed, opened at its present
//! path, and complete.
//!
//! Next to it are directories with foreign files, some under the engine's own file names. Opening
//! such a directory is an error, destroying the database in it does nothing, and every byte stays.
use super::arguments::{Command, Run, Settings};
use super::driver::{Driver, Outcome, Stop};
use super::jobs::replay_command;
use super::operation::Operation;
use super::report::SeedReport;
use super::verify;
use super::workload::Workload;
use crate::harness::contents;
use crate::harness::panic_message;
use crate::oracle::Oracle;
use sapwood::{AdvancedOptions, Db, Env, ErrorKind};
use sapwood_storage::fs::FileSystem;
use sapwood_storage::sim::SimFs;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "places",
    help: "directories are renamed and replaced, lock files vanish, foreign files are near; checks every other byte",
    options: &[
        ("--length", "N", "operations per seed (80)"),
        ("--print", "", "print settings, operations and events"),
    ],
    run: Run::Seeds { seed, counts: &["operations", "events", "strangers"], seconds: 30, seeds: 0..u64::MAX },
};

/// One operation in this many is followed by an event.
const EVENT_ONE_IN: u32 = 4;
/// The directory of the database at its creation, and its name while another one has the first
/// name.
const HOME: &str = "/here/db";
const AWAY: &str = "/here/away";
/// The other databases: one next to it, and one of the same name in another directory.
const OTHER: &str = "/here/other";
const ELSEWHERE: &str = "/else/db";

/// An event that concerns directories.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The working directory changes.
    Working(&'static str),
    /// The directory is renamed; another database may get the name.
    Away { replaced: bool },
    /// All directories get their names back.
    Back,
    /// The lock file is removed; another one may replace it.
    Unlocked { replaced: bool },
    /// The other database is opened and closed, under its present name.
    Visit,
    /// The database is opened a second time, under its present name.
    Again,
}

impl Event {
    fn draw(random: &mut fastrand::Rng) -> Event {
        match random.u8(..8) {
            0..2 => Event::Working(["/", "/here", "/else", "/here/db"][random.usize(..4)]),
            2 => Event::Away { replaced: random.bool() },
            3 => Event::Back,
            4 => Event::Unlocked { replaced: random.bool() },
            5 => Event::Visit,
            _ => Event::Again,
        }
    }
}

/// Runs one seed.
pub fn seed(seed: u64, settings: &Settings) -> SeedReport {
    let length = settings.number("--length").unwrap_or(80) as usize;
    let mut counts = vec![0; 3];
    let caught = std::panic::catch_unwind(AssertUnwindSafe(|| {
        run(seed, length, settings.has("--print"), &mut counts)
    }));
    let outcome = caught.unwrap_or_else(|panic| violation(format!("panic: {}", panic_message(&*panic))));
    let replay = format!("{} --length {length}", replay_command("places", seed));
    let violations = outcome
        .err()
        .map(|stop| format!("seed {seed}: {stop}\n  replay with: {replay}"))
        .into_iter()
        .collect();
    SeedReport { counts, violations }
}

fn violation<T>(what: impl Into<String>) -> Outcome<T> {
    Err(Stop::Violation(what.into()))
}

/// All files below a directory with their bytes, except locks.
fn bytes_below(fs: &SimFs, directory: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs.files().into_iter().filter(|path| path.starts_with(directory) && !path.ends_with("LOCK"));
    files
        .map(|path| {
            let bytes = fs.read_file(&path).expect("listed just now");
            (path.strip_prefix(directory).expect("it begins so").to_path_buf(), bytes)
        })
        .collect()
}

fn run(seed: u64, length: usize, prints: bool, counts: &mut [u64]) -> Outcome {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x91AC_E500);
    let (env, fs) = Env::sim_manual(seed);
    let workload = Workload::of(seed, length, seed % 3 == 1);
    for place in [OTHER, ELSEWHERE] {
        let db = workload.tuning.builder(place, &env).open()?;
        for row in 0..40_u32 {
            db.default_keyspace().put(row.to_be_bytes(), place)?;
        }
        db.close()?;
    }
    counts[2] += strangers(&env, &fs, &mut random)?;
    let others = [OTHER, ELSEWHERE].map(|place| (place, bytes_below(&fs, place)));
    // By a path of any kind.
    let (working, path) = match random.u8(..4) {
        0 => ("/", HOME),
        1 => ("/here", "db"),
        2 => ("/here", "./db"),
        _ => ("/else", "../here/db"),
    };
    if prints {
        println!("settings: {}\nopened as {path} in {working}", workload.tuning);
    }
    fs.set_working_directory(working);
    let db = workload.tuning.builder(path, &env).open()?;
    let driver = Driver::with(db, &env, &fs, &workload.tuning, Oracle::new());
    let mut run = Places { driver, env, fs, is_away: false, is_replaced: false };
    // The check of the directory knows its first name only.
    run.driver.set_scarce(true);
    for operation in workload.operations.iter().filter(|operation| !is_reopening(operation)) {
        if prints {
            println!("{operation:?}");
        }
        run.driver.apply(operation, &mut ())?;
        counts[0] += 1;
        if random.u32(..EVENT_ONE_IN) == 0 {
            let event = Event::draw(&mut random);
            if prints {
                println!("-- {event:?}");
            }
            run.happens(event)?;
            counts[1] += 1;
        }
    }
    run.driver.apply(&Operation::Compare(None), &mut ())?;
    run.driver.close(&mut ())?;
    run.happens(Event::Back)?;
    for (place, bytes) in &others {
        if bytes_below(&run.fs, place) != *bytes {
            return violation(format!("bytes of the other database in {place} have changed"));
        }
    }
    let db = workload.tuning.builder(HOME, &run.env).open()?;
    let contents = verify::contents(&db)?;
    let oracle = run.driver.oracle();
    oracle
        .find(&verify::sums(&contents), oracle.promise(), false, || contents.clone())
        .map_err(|what| Stop::Violation(format!("{what} (opened at its present path)")))?;
    db.close()?;
    Ok(())
}

fn is_reopening(operation: &Operation) -> bool {
    matches!(operation, Operation::Reopen(_) | Operation::PowerLoss(_))
}

/// A run in progress.
struct Places {
    driver: Driver,
    env: Env,
    fs: SimFs,
    is_away: bool,
    /// Whether the other database has the name.
    is_replaced: bool,
}

impl Places {
    /// The present directory of the database.
    fn place(&self) -> &'static str {
        if self.is_away { AWAY } else { HOME }
    }

    fn rename(&self, from: &str, to: &str) -> Outcome {
        Ok(self.fs.rename(Path::new(from), Path::new(to))?)
    }

    fn happens(&mut self, event: Event) -> Outcome {
        match event {
            Event::Working(directory) => {
                if self.fs.exists(Path::new(directory))? {
                    self.fs.set_working_directory(directory);
                }
            }
            Event::Away { replaced } => {
                if !self.is_away {
                    self.rename(HOME, AWAY)?;
                    self.is_away = true;
                }
                if replaced && !self.is_replaced {
                    self.rename(OTHER, HOME)?;
                    self.is_replaced = true;
                }
            }
            Event::Back => {
                self.fs.set_working_directory("/");
                if std::mem::take(&mut self.is_replaced) {
                    self.rename(HOME, OTHER)?;
                }
                if std::mem::take(&mut self.is_away) {
                    self.rename(AWAY, HOME)?;
                }
            }
            Event::Unlocked { replaced } => {
                let lock = Path::new(self.place()).join("LOCK");
                if self.fs.exists(&lock)? {
                    self.fs.remove_file(&lock)?;
                }
                if replaced {
                    self.fs.write_file(&lock, b"")?;
                }
            }
            Event::Visit => {
                let place = if self.is_replaced { HOME } else { OTHER };
                let db = self.driver.tuning().builder(place, &self.env).read_only(true).open();
                let db = db.map_err(|error| {
                    Stop::Violation(format!("the other database, in {place}, does not open: {error}"))
                })?;
                let rows = contents(&db.default_keyspace())?;
                db.close()?;
                if rows.len() != 40 || rows.values().any(|row| &row[..] != OTHER.as_bytes()) {
                    return violation(format!("the other database, in {place}, has other rows"));
                }
            }
            Event::Again => {
                let db = self.driver.tuning().builder(self.place(), &self.env).open();
                match db {
                    Err(error) if error.kind() == ErrorKind::Locked => {}
                    Err(error) => {
                        return violation(format!("a second open is refused for another reason: {error}"));
                    }
                    Ok(_) => return violation(format!("{} is open twice", self.place())),
                }
            }
        }
        Ok(())
    }
}

/// Directories with foreign files: neither opening nor destroying changes a byte. Returns their
/// number.
fn strangers(env: &Env, fs: &SimFs, random: &mut fastrand::Rng) -> Outcome<u64> {
    const NAMES: [&str; 16] = [
        "CURRENT",
        "MANIFEST-000002",
        "MANIFEST-000005",
        "000003.log",
        "000005.ldb",
        "000009.sst",
        "000011.wal",
        "OPTIONS-000007",
        "LOG",
        "LOCK",
        "data.mdb",
        "db",
        "conf",
        ".bashrc",
        "main.sqlite",
        "000004.tree",
    ];
    const BEGINNINGS: [&[u8]; 5] = [
        b"",
        b"\x57\xfb\x80\x8b\x24\x75\x47\xdb",
        b"SQLite format 3\0",
        b"\x7f\x45\x03\x01leveldb.BytewiseComparator",
        b"# a file of a person\n",
    ];
    let count = random.u64(1..4);
    for number in 0..count {
        let directory = format!("/strangers/{number}");
        fs.create_dir_all(Path::new(&directory))?;
        let mut is_strange = false;
        for _ in 0..random.usize(1..7) {
            let name = NAMES[random.usize(..NAMES.len())];
            let mut bytes = BEGINNINGS[random.usize(..BEGINNINGS.len())].to_vec();
            // Only empty files under the engine's names: the remains of an interrupted creation.
            if name != "LOCK" {
                bytes.extend((0..random.usize(1..300)).map(|_| random.u8(..)));
                is_strange = true;
            }
            fs.write_file(Path::new(&directory).join(name), &bytes)?;
        }
        let before = bytes_below(fs, &directory);
        let names: Vec<&PathBuf> = before.iter().map(|(name, _)| name).collect();
        let options = AdvancedOptions { env: env.clone(), ..AdvancedOptions::default() };
        let destroys = || {
            // The call may return an error or do nothing.
            let _ = Db::destroy_in(&directory, &options);
            match bytes_below(fs, &directory) == before {
                true => Ok(()),
                false => {
                    violation(format!("destroy has changed a directory with the foreign files {names:?}"))
                }
            }
        };
        let comes_first = random.bool();
        if comes_first {
            destroys()?;
        }
        for create in [false, true] {
            let tuning = super::tuning::Tuning::standard();
            let opened = tuning.builder(&directory, env).create_if_missing(create).open();
            let what = match opened {
                Ok(db) => {
                    let _ = db.close();
                    "is opened".to_string()
                }
                Err(error) => format!("{:?}: {error}", error.kind()),
            };
            let is_refused = what.starts_with("InvalidArgument") || (!create && what.starts_with("NotFound"));
            // An empty directory, or one with only a lock file, may become a database.
            if is_strange && bytes_below(fs, &directory) != before {
                return violation(format!(
                    "an open has changed a directory with the foreign files {names:?}: {what}"
                ));
            }
            if is_strange && !is_refused {
                return violation(format!("a directory with the foreign files {names:?}: {what}"));
            }
        }
        if is_strange {
            destroys()?;
        }
    }
    Ok(count)
}
