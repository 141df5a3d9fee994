//! Whole engines: the bytes of the fuzzer determine settings, operations and faults; the oracles
//! are those of `sim`. The machine has no threads, so a run is a function of its input.
use crate::oracle::{Contents, Oracle, Promise, Spaces};
use crate::sim::crash;
use crate::sim::draw::{Bytes, Draw};
use crate::sim::driver::{self, DIRECTORY, Driver, Stop};
use crate::sim::indexes;
use crate::sim::operation::{Operation, space_name};
use crate::sim::tuning::Tuning;
use crate::sim::verify;
use crate::sim::workload::Generator;
use sapwood::{Db, Env, KeyspaceOptions};
use sapwood_storage::sim::{Fault, FaultRule, Operation as Call};
use std::sync::Arc;

/// The most operations of one input.
const OPERATIONS_MAX: usize = 60;

fn workload(draw: &mut Bytes<'_>) -> (Tuning, Vec<Operation>) {
    let tuning = if draw.one_in(2) { Tuning::draw(draw) } else { Tuning::standard() };
    let mut generator = Generator::new(draw);
    if draw.one_in(2) {
        generator.add_indexes();
    }
    let mut operations = Vec::new();
    while !draw.is_empty() && operations.len() < OPERATIONS_MAX {
        operations.push(generator.operation(draw));
    }
    (tuning, operations)
}

/// Runs operations and compares every result with the oracle's.
pub fn db_ops(data: &[u8]) {
    let mut draw = Bytes::new(data);
    let (env, fs) = Env::sim_manual(u64::from(draw.below(256)));
    let (tuning, operations) = workload(&mut draw);
    let run = || -> Result<(), Stop> {
        let mut driver = Driver::open(&env, &fs, &tuning, Oracle::new())?;
        for operation in &operations {
            driver.apply(operation, &mut ())?;
        }
        driver.settle()?;
        driver.apply(&Operation::Compare(None), &mut ())?;
        driver.close(&mut ())
    };
    if let Err(stop) = run() {
        panic!("{stop}\nsettings: {tuning}\n{operations:#?}");
    }
}

/// Runs operations, takes some moments of the run, and recovers from crashes at them, also inside
/// the recovery.
pub fn db_crash(data: &[u8]) {
    let mut draw = Bytes::new(data);
    let seed = u64::from(draw.below(65_536));
    let (tuning, operations) = workload(&mut draw);
    if let Err(what) = crash::run_operations(seed, &tuning, &operations, 12) {
        panic!("{what}\nsettings: {tuning}\n{operations:#?}");
    }
}

/// Runs operations while one call in a few fails, until an error is returned. Then kills the
/// process and opens the database on a healthy machine: it holds a prefix of the history with every
/// durable commit.
pub fn db_fault(data: &[u8]) {
    let mut draw = Bytes::new(data);
    let (env, fs) = Env::sim_manual(u64::from(draw.below(256)));
    let calls =
        [Call::Write, Call::Sync, Call::SyncDirectory, Call::Create, Call::Read, Call::Remove, Call::Open];
    let fault = *draw.pick(&[Fault::Io, Fault::Io, Fault::NoSpace, Fault::TooManyOpen, Fault::ReadOnly]);
    let mut rule = match draw.below(4) {
        0 => FaultRule::any(fault),
        _ => FaultRule::new(*draw.pick(&calls), fault),
    };
    rule = rule.after(u64::from(draw.below(256)));
    if draw.one_in(3) {
        rule = rule.sticky();
    }
    let rule_text = rule.to_string();
    let (tuning, operations) = workload(&mut draw);
    fs.fail(rule);
    let mut driver = match Driver::open(&env, &fs, &tuning, Oracle::new()) {
        Ok(driver) => driver,
        // A failed creation leaves no database, or an empty one.
        Err(_) => {
            let left = fs.kill();
            let env = env.with_file_system(Arc::new(left.clone()));
            if let Err(stop) = Driver::open(&env, &left, &tuning, Oracle::new()) {
                panic!("{stop}, after {rule_text} in the first session\nsettings: {tuning}");
            }
            return;
        }
    };
    for operation in &operations {
        match driver.apply(operation, &mut ()) {
            Ok(()) => {}
            Err(Stop::Error(_)) => break,
            // Files that could not be removed stay until the next open.
            Err(Stop::Violation(what)) if fs.faults_met() > 0 && is_untidiness(&what) => break,
            Err(stop) => panic!("{stop}, with {rule_text}\nsettings: {tuning}\n{operations:#?}"),
        }
    }
    let left = fs.kill();
    let env = env.with_file_system(Arc::new(left.clone()));
    let (oracle, promise) = (driver.oracle(), driver.oracle().promise());
    let opened = tuning.builder(DIRECTORY, &env).open();
    let found = opened.map_err(|error| format!("the open fails: {error}")).and_then(|db| {
        let contents = verify::contents(&db).map_err(|stop| stop.to_string())?;
        // A failed sync may have lost unsynced commits, so the promise is that of a power loss.
        let place = oracle.find(&verify::sums(&contents), promise, true, || contents.clone())?;
        check_indexes(&db, &contents, &place.spaces, promise).map_err(|stop| stop.to_string())
    });
    driver.abandon();
    if let Err(what) = found {
        panic!("{what}, after {rule_text}\nsettings: {tuning}\n{operations:#?}");
    }
}

/// Indexes on a healthy machine: the promised ones exist, and agree with the rows.
fn check_indexes(
    db: &Db,
    contents: &Contents,
    spaces: &Spaces,
    promise: &Promise,
) -> crate::sim::driver::Outcome {
    for (space, index) in driver::indexes::found(db, spaces, &promise.indexes, promise.unsure_index)? {
        let keyspace = db.keyspace(&space_name(space), KeyspaceOptions::default())?;
        keyspace.create_index(&indexes::index_name(index), indexes::options(index))?;
        if !indexes::compare(&keyspace, index, None, &contents[&space])? {
            return Err(Stop::Violation(format!("O5: index {index} is unavailable after it was built")));
        }
    }
    Ok(())
}

/// Whether a violation concerns remaining files, handles, or endless work.
fn is_untidiness(what: &str) -> bool {
    ["O8", "O9", "O11"].iter().any(|promise| what.starts_with(promise))
}
