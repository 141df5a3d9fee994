//! The process that is killed: opens the database, checks it, and writes until it dies.
//!
//! Each acknowledged commit is reported as eight bytes on the standard output, which is a pipe and
//! survives the process. The first report is the last commit found.
use crate::harness::{contents, small};
use crate::history::{COUNTER, SPACES, State, commit};
use crate::journal;
use crate::oracle::difference;
use sapwood::{AdvancedOptions, Db, Error, ErrorKind, KeyspaceOptions, Result};
use sapwood_base::memory::check_room;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// The exit code of a child that found a violation.
pub const WRONG: u8 = 2;
/// The exit code of a child that was refused space, files or handles by an error.
pub const REFUSED: u8 = 3;
/// The most memory that the expected content takes.
const STATE_BYTES: usize = 24 << 20;
/// The most memory that a commit takes, in addition to the engine's.
const COMMIT_BYTES: usize = 3 << 20;
/// The retries of a refused commit.
const TRIES: usize = 20;

/// The orders of a child.
pub struct Orders {
    /// The directory of the database.
    pub path: String,
    /// The seed of the history.
    pub seed: u64,
    /// The fewest commits that may be there.
    pub floor: u64,
    /// The most commits that may be there.
    pub ceiling: u64,
    /// Whether a refusal is allowed.
    pub is_poor: bool,
}

impl Orders {
    /// As arguments of a program.
    pub fn to_arguments(&self) -> Vec<String> {
        let poor = if self.is_poor { "poor" } else { "rich" };
        let numbers = [self.seed, self.floor, self.ceiling].map(|number| number.to_string());
        [vec![self.path.clone()], numbers.to_vec(), vec![poor.to_string()]].concat()
    }

    fn from_arguments(arguments: &[String]) -> Option<Orders> {
        let [path, seed, floor, ceiling, poor] = arguments else { return None };
        Some(Orders {
            path: path.clone(),
            seed: seed.parse().ok()?,
            floor: floor.parse().ok()?,
            ceiling: ceiling.parse().ok()?,
            is_poor: poor == "poor",
        })
    }
}

/// The whole run of the child.
pub fn live(arguments: &[String]) -> ExitCode {
    let Some(orders) = Orders::from_arguments(arguments) else {
        eprintln!("usage: PATH SEED FLOOR CEILING poor|rich");
        return ExitCode::from(WRONG);
    };
    match work(&orders) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let is_refusal =
                error.is_scarcity() || matches!(error.kind(), ErrorKind::Io | ErrorKind::Poisoned);
            let code = if orders.is_poor && is_refusal { REFUSED } else { WRONG };
            eprintln!("child: {error}");
            ExitCode::from(code)
        }
    }
}

/// An error of a kind that no shortage excuses.
fn wrong(message: String) -> Error {
    Error::new(ErrorKind::Corruption, message)
}

/// Checks that the child's own next allocation succeeds, or returns an error: the engine's errors
/// are of interest.
fn check_own_memory(orders: &Orders, bytes: usize) -> Result<()> {
    match orders.is_poor {
        true => check_room(bytes).map_err(|error| Error::system("continue", error)),
        false => Ok(()),
    }
}

fn work(orders: &Orders) -> Result<()> {
    // Each run has other memtables than the one before, so its log may exceed the memory of the
    // next.
    let mut random = fastrand::Rng::with_seed(orders.seed ^ orders.floor);
    let settings = |options: &mut AdvancedOptions| {
        small(options);
        options.memtable_bytes = Some((64 << 10) << random.u32(..if orders.is_poor { 2 } else { 5 }));
        options.max_memtables = random.usize(2..5);
    };
    let db = Db::builder(&orders.path).memory_budget(8 << 20).advanced(settings).open()?;
    let mut spaces = Vec::new();
    for name in SPACES {
        spaces.push(db.keyspace(name, KeyspaceOptions::default())?);
    }
    let mut counters = [0; SPACES.len()];
    for (space, counter) in spaces.iter().zip(&mut counters) {
        if let Some(bytes) = space.get(COUNTER)? {
            *counter = u64::from_be_bytes(bytes[..].try_into().expect("eight bytes"));
        }
    }
    let count = counters[0];
    if counters.iter().any(|counter| *counter != count) {
        return Err(wrong(format!("the keyspaces hold {counters:?} commits")));
    }
    if !(orders.floor..=orders.ceiling).contains(&count) {
        let (floor, ceiling) = (orders.floor, orders.ceiling);
        return Err(wrong(format!("{count} commits are present, not between {floor} and {ceiling}")));
    }
    check_own_memory(orders, STATE_BYTES)?;
    let mut state = State::new(orders.seed);
    state.advance_to(count);
    for (space, map) in spaces.iter().zip(&state.maps) {
        if let Some(difference) = difference(&contents(space)?, map) {
            return Err(wrong(format!("keyspace {:?} at commit {count}: {difference}", space.name())));
        }
    }
    // Recovered commits count as acknowledged from here on.
    let mut output = std::io::stdout().lock();
    let mut report = |number: u64| {
        output.write_all(&number.to_le_bytes()).and_then(|()| output.flush()).expect("the parent reads");
    };
    report(count);
    let is_refusal = |error: &Error| orders.is_poor && error.is_scarcity();
    for number in count + 1.. {
        check_own_memory(orders, COMMIT_BYTES)?;
        let commit = commit(orders.seed, number);
        let mut tries = 0;
        loop {
            let mut batch = db.batch();
            journal::fill(&mut batch, &spaces, &commit.writes);
            match batch.commit_durable(commit.durability) {
                Ok(_) => break,
                Err(error) if is_refusal(&error) && tries < TRIES => {
                    tries += 1;
                    sapwood::Env::os().sleep(Duration::from_millis(2));
                }
                Err(error) => return Err(error),
            }
        }
        report(number);
        if is_flushed_after(number) {
            match db.flush() {
                Err(error) if is_refusal(&error) => {}
                result => result?,
            }
        }
        if number % 3001 == 0 {
            match db.compact() {
                Err(error) if is_refusal(&error) => {}
                result => result?,
            }
        }
    }
    Ok(())
}

/// Whether the child flushes after commit `number`.
pub fn is_flushed_after(number: u64) -> bool {
    number.is_multiple_of(701)
}
