//! The recovery from a crash, and its checks.
use super::crasher::Crasher;
use super::{LEVELS, NESTED_AFTER_KILL_ONE_IN, NESTED_MOMENT_ONE_IN, NESTED_ONE_IN, STRUCTURE_ONE_IN};
use crate::oracle::Oracle;
use crate::sim::driver::indexes;
use crate::sim::driver::{DIRECTORY, Driver, Observer, Stop};
use crate::sim::operation::{Operation, Value, Write};
use crate::sim::tuning::Tuning;
use crate::sim::verify;
use crate::sim::workload::Generator;
use sapwood::{Durability, Env};
use sapwood_storage::sim::SimFs;
use std::rc::Rc;
use std::sync::Arc;

/// Recovers from a crash and checks everything.
///
/// `crasher` has the level of crashes in this recovery, and knows the promise.
pub(super) fn recover(
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
    let db = tuning.builder(DIRECTORY, &env).open().map_err(|error| format!("the open fails: {error}"))?;
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
pub(super) fn check_read_only<P>(
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
        Err(error) => return Err(format!("O16: the read-only open fails: {error}")),
    }
    if verify::files_hash(fs) != before {
        return Err("O16: a read-only open has changed bytes".to_string());
    }
    Ok(())
}
