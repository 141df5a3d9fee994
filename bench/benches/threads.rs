//! The cost of sharing a database among threads.
//!
//! ```text
//! cargo bench -p sapwood-bench --bench threads                   one million operations, three rounds
//! cargo bench -p sapwood-bench --bench threads -- 200000 1       operations, rounds
//! ```
//!
//! 1 to 16 threads do the same total number of operations: on one database and, as a control, on
//! one database per thread, where only the machine is shared. A cache line that every operation
//! writes would make the first slower than the second as soon as two processors run them. The
//! reported ratio of the two shows this. Reads of a hundred hot keys are the hardest case: all
//! threads use the same blocks, frames and epochs.
//!
//! The last line is the gain of `multi_get`: keys per second in calls of 32, beside single gets of
//! the same keys, on one thread.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "measures with the real clock")]
use fastrand::Rng;
use sapwood::{Db, Keyspace, Result};
use sapwood_bench::process::Cpu;
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Rows of a database whose blocks all fit into the cache.
const ROWS: u64 = 100_000;
/// Rows of the database for `multi_get`: more than the processor's caches hold.
const MANY_ROWS: u64 = 1_000_000;
/// Number of hot keys.
const HOT: u64 = 100;
/// Keys of one `multi_get`.
const TOGETHER: usize = 32;
/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// Numbers of concurrent threads.
const THREADS: [usize; 5] = [1, 2, 4, 8, 16];

/// One operation of a thread.
type Operation = fn(&Keyspace, &mut Rng) -> Result<()>;

const OPERATIONS: [(&str, Operation); 3] = [("get", get), ("get, 100 hot keys", get_hot), ("put", put)];

fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    key
}

fn get(keyspace: &Keyspace, random: &mut Rng) -> Result<()> {
    black_box(keyspace.get_with(key(random.u64(..ROWS)), |value| value[0])?);
    Ok(())
}

fn get_hot(keyspace: &Keyspace, random: &mut Rng) -> Result<()> {
    black_box(keyspace.get_with(key(random.u64(..HOT)), |value| value[0])?);
    Ok(())
}

fn put(keyspace: &Keyspace, random: &mut Rng) -> Result<()> {
    keyspace.put(key(random.u64(..ROWS)), [9; VALUE_BYTES])
}

/// The cost of a number of operations.
#[derive(Clone, Copy, Default)]
struct Cost {
    clock: Duration,
    cpu: Duration,
}

fn main() -> ExitCode {
    // Cargo passes `--bench` of its own.
    let numbers: std::result::Result<Vec<u64>, _> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").map(|text| text.parse()).collect();
    let (operations, rounds) = match numbers.as_deref() {
        Ok([]) => (1_000_000, 3),
        Ok([operations]) => (*operations, 3),
        Ok([operations, rounds]) => (*operations, *rounds),
        _ => {
            eprintln!("usage: cargo bench -p sapwood-bench --bench threads -- [operations [rounds]]");
            return ExitCode::from(2);
        }
    };
    match run(operations.max(16), rounds.max(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A settled database of `rows` rows, with its folder.
fn filled(rows: u64) -> Result<(TempDir, Db)> {
    let folder = tempfile::tempdir().map_err(|error| {
        sapwood::Error::new(sapwood::ErrorKind::Io, format!("cannot make a temporary folder: {error}"))
    })?;
    let cache = rows as usize * 300;
    let db = Db::builder(folder.path().join("db"))
        .memory_budget(cache + (256 << 20))
        .advanced(|options| {
            options.cache_bytes = Some(cache);
            options.memtable_bytes = Some(16 << 20);
        })
        .open()?;
    let keyspace = db.default_keyspace();
    for number in 0..rows {
        keyspace.put(key(number), [7; VALUE_BYTES])?;
    }
    db.settle()?;
    assert_eq!(keyspace.iter().count() as u64, rows);
    Ok((folder, db))
}

/// Runs `operations` in total, on one thread per keyspace.
fn measure(keyspaces: &[Keyspace], operations: u64, operation: Operation) -> Result<Cost> {
    let each = operations / keyspaces.len() as u64;
    let (cpu, clock) = (Cpu::now(), Instant::now());
    std::thread::scope(|scope| {
        let threads: Vec<_> = keyspaces
            .iter()
            .enumerate()
            .map(|(thread, keyspace)| {
                scope.spawn(move || {
                    let mut random = Rng::with_seed(thread as u64);
                    (0..each).try_for_each(|_| operation(keyspace, &mut random))
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("a thread that measures does not panic"))
    })?;
    Ok(Cost { clock: clock.elapsed(), cpu: Cpu::now().since(cpu).total })
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("no figure is NaN"));
    values[values.len() / 2]
}

fn run(operations: u64, rounds: u64) -> Result<()> {
    let most = THREADS.iter().copied().max().unwrap_or(1);
    let databases = (0..most).map(|_| filled(ROWS)).collect::<Result<Vec<_>>>()?;
    let apart: Vec<Keyspace> = databases.iter().map(|(_, db)| db.default_keyspace()).collect();
    println!(
        "{operations} operations in all; nanoseconds of processor time each, median of {rounds} rounds\n"
    );
    println!("| operation | threads | one database: by the clock | one database | a database each | ratio |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (name, operation) in OPERATIONS {
        for threads in THREADS {
            let shared = vec![apart[0].clone(); threads];
            // A first pass warms caches and tables.
            measure(&shared, operations / 4, operation)?;
            measure(&apart[..threads], operations / 4, operation)?;
            let mut costs = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
            for _ in 0..rounds {
                let one = measure(&shared, operations, operation)?;
                let many = measure(&apart[..threads], operations, operation)?;
                let nanos = |time: Duration| time.as_nanos() as f64 / operations as f64;
                let ratio = one.cpu.as_secs_f64() / many.cpu.as_secs_f64();
                for (list, figure) in
                    costs.iter_mut().zip([nanos(one.clock), nanos(one.cpu), nanos(many.cpu), ratio])
                {
                    list.push(figure);
                }
            }
            let [clock, one, many, ratio] = costs.map(median);
            println!("| {name} | {threads} | {clock:.0} | {one:.0} | {many:.0} | {ratio:.2} |");
        }
    }
    drop((apart, databases));
    multi_get(operations, rounds)
}

fn multi_get(operations: u64, rounds: u64) -> Result<()> {
    let (_folder, db) = filled(MANY_ROWS)?;
    let keyspace = db.default_keyspace();
    let mut ratios = Vec::new();
    let mut rates = Vec::new();
    for round in 0..=rounds {
        let mut random = Rng::with_seed(round);
        let keys: Vec<[u8; 16]> = (0..operations).map(|_| key(random.u64(..MANY_ROWS))).collect();
        let start = Instant::now();
        for key in &keys {
            assert!(black_box(keyspace.get(key)?).is_some());
        }
        let single = start.elapsed();
        let start = Instant::now();
        for keys in keys.chunks(TOGETHER) {
            assert!(black_box(keyspace.multi_get(keys)?).iter().all(Option::is_some));
        }
        let together = start.elapsed();
        // The first round brings blocks into the cache.
        if round > 0 {
            ratios.push(single.as_secs_f64() / together.as_secs_f64());
            rates.push(operations as f64 / together.as_secs_f64());
        }
    }
    println!(
        "\nmulti_get of {TOGETHER} of {MANY_ROWS} keys: {:.2} M keys/s, {:.2} times single gets",
        median(rates) / 1e6,
        median(ratios)
    );
    Ok(())
}
