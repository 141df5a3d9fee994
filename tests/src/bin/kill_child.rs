//! The child that the kill test kills: opens the database, checks it, and writes until it dies.
//!
//! Arguments: directory, seed, number of commits that must be there. Each acknowledged commit is reported as eight
//! bytes on the standard output, which is a pipe and survives us. Ends with code 2 and a message if what it finds is
//! not a prefix of the history.
use sapwood::{Db, KeyspaceOptions, Result};
use sapwood_tests::harness::{contents, difference, small};
use sapwood_tests::history::{COUNTER, SPACES, State, commit};
use sapwood_tests::model::Operation;
use std::io::Write;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, path, seed, floor] = arguments.as_slice() else { panic!("usage: kill_child PATH SEED FLOOR") };
    if let Err(error) = run(path, seed.parse().expect("a seed"), floor.parse().expect("a number")) {
        eprintln!("child: {error}");
        std::process::exit(2);
    }
}

fn fail(message: String) -> ! {
    eprintln!("child: {message}");
    std::process::exit(2);
}

fn run(path: &str, seed: u64, floor: u64) -> Result<()> {
    let db = Db::builder(path).memory_budget(8 << 20).advanced(small).open()?;
    let spaces = [
        db.keyspace(SPACES[0], KeyspaceOptions::default())?,
        db.keyspace(SPACES[1], KeyspaceOptions::default())?,
    ];
    let mut counters = [0; 2];
    for (space, counter) in spaces.iter().zip(&mut counters) {
        if let Some(bytes) = space.get(COUNTER)? {
            *counter = u64::from_be_bytes(bytes[..].try_into().expect("eight bytes"));
        }
    }
    let count = counters[0];
    if counters[0] != counters[1] {
        fail(format!("the keyspaces hold {} and {} commits", counters[0], counters[1]));
    }
    // One commit may have been under way when the last child died.
    if !(floor..=floor + 1).contains(&count) {
        fail(format!("{floor} commits were acknowledged, {count} are there"));
    }
    let mut state = State::new(seed);
    state.advance_to(count);
    for (space, map) in spaces.iter().zip(&state.maps) {
        if let Some(difference) = difference(&contents(space)?, map) {
            fail(format!("keyspace {:?} at commit {count}: {difference}", space.name()));
        }
    }
    // What was recovered counts as acknowledged from here on.
    let mut output = std::io::stdout().lock();
    let mut report = |number: u64| {
        output.write_all(&number.to_le_bytes()).and_then(|()| output.flush()).expect("the parent reads");
    };
    report(count);
    for number in count + 1.. {
        let commit = commit(seed, number);
        let mut batch = db.batch();
        for (space, operation) in &commit.operations {
            match operation {
                Operation::Put(key, value) => batch.put(&spaces[*space], key, value),
                Operation::Delete(key) => batch.delete(&spaces[*space], key),
            };
        }
        let _ = batch.commit_durable(commit.durability)?;
        report(number);
        if number % 701 == 0 {
            db.flush()?;
        }
        if number % 3001 == 0 {
            db.compact()?;
        }
    }
    Ok(())
}
