//! A test of a program that embeds Sapwood against power losses: money moves between accounts.
//!
//! `cargo run --release --features sim --example crash_test -p sapwood`
//!
//! The program runs on a simulated machine without threads, so a run is a function of its seed.
//! During the run the machine is copied before and after every change to a file. Several power
//! losses are simulated on each copy, and the database is opened on the remains. Two promises are
//! checked: the sum of money is constant, and every transfer that the program had reported as done
//! is there.
use sapwood::sim::SimFs;
use sapwood::{Db, Durability, Env, Keyspace, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const ACCOUNTS: u64 = 20;
const MONEY: u64 = 1_000;
const TRANSFERS: u64 = 60;
/// The number of states per moment.
const CRASHES: usize = 3;

fn open(env: &Env) -> Result<Db> {
    Db::builder("bank")
        .memory_budget(4 << 20)
        .advanced(|options| {
            options.env = env.clone();
            options.memtable_bytes = Some(64 << 10);
            options.cache_bytes = Some(256 << 10);
            options.wal_segment_bytes = 64 << 10;
        })
        .open()
}

fn balance(accounts: &Keyspace, account: u64) -> Result<u64> {
    let bytes = accounts.get(account.to_be_bytes())?;
    Ok(bytes.and_then(|bytes| Some(u64::from_be_bytes(bytes[..].try_into().ok()?))).unwrap_or(MONEY))
}

/// The program under test: moves money, and reports the number of each durable transfer.
fn work(db: &Db, seed: u64, report: impl Fn(u64)) -> Result<()> {
    let accounts = db.default_keyspace();
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 1..=TRANSFERS {
        let (from, to) = (random.u64(..ACCOUNTS), random.u64(..ACCOUNTS));
        let amount = random.u64(1..100).min(balance(&accounts, from)?);
        if from == to {
            continue;
        }
        let (less, more) = (balance(&accounts, from)? - amount, balance(&accounts, to)? + amount);
        let mut batch = db.batch();
        batch.put(&accounts, from.to_be_bytes(), less.to_be_bytes());
        batch.put(&accounts, to.to_be_bytes(), more.to_be_bytes());
        batch.put(&accounts, "last", number.to_be_bytes());
        drop(batch.commit_durable(Durability::Sync)?);
        report(number);
        if number % 20 == 0 {
            db.flush()?;
        }
    }
    db.close()
}

/// The conditions after every crash.
fn check(image: &SimFs, env: &Env, reported: u64) -> Result<()> {
    let db = open(&env.with_file_system(Arc::new(image.clone())))?;
    let accounts = db.default_keyspace();
    let sum: u64 = (0..ACCOUNTS).map(|account| balance(&accounts, account)).sum::<Result<u64>>()?;
    assert_eq!(sum, ACCOUNTS * MONEY, "money was made or lost");
    let last = accounts
        .get("last")?
        .map_or(0, |bytes| u64::from_be_bytes(bytes[..].try_into().expect("eight bytes")));
    assert!(last >= reported, "transfer {reported} was reported as done; the last one there is {last}");
    db.close()
}

fn main() -> Result<()> {
    let seed = 7;
    let (env, fs) = Env::sim_manual(seed);
    let reported = Arc::new(AtomicU64::new(0));
    let moments = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (watched, at) = (moments.clone(), reported.clone());
    fs.watch(move |moment| {
        let mut moments = watched.lock().expect("not poisoned");
        moments.push((moment.image(), at.load(Ordering::Relaxed), format!("{moment:?}")));
    });
    let db = open(&env)?;
    work(&db, seed, |number| reported.store(number, Ordering::Relaxed))?;
    drop(db);
    fs.unwatch();

    let moments = std::mem::take(&mut *moments.lock().expect("not poisoned"));
    let mut crashes = 0;
    for (image, reported, moment) in &moments {
        // The earlier machine with another disk: the same clock, the same random numbers.
        for (choice, left) in image.crash_images(seed, CRASHES) {
            if let Err(error) = check(&left, &env, *reported) {
                panic!("{moment}, crash {choice}: {error}");
            }
            crashes += 1;
        }
    }
    println!(
        "{TRANSFERS} transfers, {} moments, {crashes} power losses: no money was made or lost",
        moments.len()
    );
    Ok(())
}
