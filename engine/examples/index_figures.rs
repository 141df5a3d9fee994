//! Prints costs and speeds of an index on this machine: `cargo run --release -p sapwood --example
//! index_figures [rows]`.
//!
//! Rows are 16 + 100 bytes, and the index is on 8 uniform bytes of the value. Each kind of write
//! uses a fresh database, without an index and with one. Times are from the first write to the last
//! acknowledgement, and separately to the end of background work.
#![allow(clippy::disallowed_methods, reason = "a program that takes times")]
use sapwood::{Builtin, Db, Field, Index, IndexOptions, KeyKind, Keyspace, Maintenance, Result};
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

const LOOKUPS: usize = 300_000;
const VALUE_BYTES: usize = 100;

fn main() -> Result<()> {
    let rows: u64 = std::env::args().nth(1).map_or(2_000_000, |count| count.parse().expect("a number"));
    let only = std::env::args().nth(2);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name);
    let wants = |what: &str| only.as_deref().is_none_or(|only| only == what);

    if wants("fill") || wants("update") {
        println!("{rows} rows in random order:");
        let plain = fill(&path("plain"), rows, None)?;
        let deferred = fill(&path("deferred"), rows, Some(Maintenance::Deferred))?;
        let insert_only = fill(&path("insert-only"), rows, Some(Maintenance::InsertOnly))?;
        let strict = fill(&path("strict"), rows, Some(Maintenance::Strict))?;
        for (name, times) in [("deferred", deferred), ("insert-only", insert_only), ("strict", strict)] {
            print_ratio(name, plain, times);
        }
    }
    if wants("update") {
        println!("{rows} updates of rows in random order, each with another index key:");
        let plain = update(&path("plain"), rows)?;
        let deferred = update(&path("deferred"), rows)?;
        let strict = update(&path("strict"), rows)?;
        for (name, times) in [("deferred", deferred), ("strict", strict)] {
            print_ratio(name, plain, times);
        }
    }
    for name in ["plain", "insert-only", "strict"] {
        Db::destroy(path(name))?;
    }
    if !path("deferred").exists() {
        fill(&path("deferred"), rows, Some(Maintenance::Deferred))?;
    }

    let db = open(&path("deferred"))?;
    let keyspace = db.default_keyspace();
    let index = keyspace.index("by_number")?;
    if only.as_deref() != Some("unsettled") {
        db.compact()?;
    }
    println!("{}", db.stats());
    queries(&keyspace, &index, rows)?;

    println!("online build on {rows} rows:");
    let start = Instant::now();
    let built = index.rebuild()?;
    println!("  {:.2} s, {} entries", start.elapsed().as_secs_f64(), built.progress().entries);
    let start = Instant::now();
    let report = built.verify()?;
    println!("verification: {:.2} s, {report:?}", start.elapsed().as_secs_f64());
    Ok(())
}

fn open(path: &Path) -> Result<Db> {
    // The number of filled memtables is independent of the number of rows.
    let rows: usize = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(2_000_000);
    let budget = (rows * 512).max(8 << 20);
    Db::builder(path).memory_budget(budget).open()
}

fn row_key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let mixed = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    key[..8].copy_from_slice(&mixed.to_be_bytes());
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

/// Its index key is in the first eight bytes.
fn row_value(random: &mut fastrand::Rng) -> [u8; VALUE_BYTES] {
    let mut value = [b'v'; VALUE_BYTES];
    value[..8].copy_from_slice(&random.u64(..).to_be_bytes());
    value[8..50].fill(random.u8(..));
    value
}

fn number_index(maintenance: Maintenance) -> IndexOptions {
    let integer = KeyKind::FixedInteger { bytes: 8, signed: false, big_endian: true };
    IndexOptions::builtin(Builtin::new(Field::value().range(0, 8), integer)).maintenance(maintenance)
}

#[derive(Clone, Copy)]
struct Times {
    writing: Duration,
    processor: f64,
}

fn print_ratio(name: &str, plain: Times, with_index: Times) {
    println!(
        "  {name}: {:.0} % of the rate without an index; by processor time with all background work {:.0} %",
        100.0 * plain.writing.as_secs_f64() / with_index.writing.as_secs_f64(),
        100.0 * plain.processor / with_index.processor,
    );
}

/// Writes rows in random order of their keys' first bytes.
fn write(db: &Db, rows: u64, seed: u64, what: &str) -> Result<Times> {
    let keyspace = db.default_keyspace();
    let mut random = fastrand::Rng::with_seed(seed);
    let before = processor_seconds();
    let start = Instant::now();
    for number in 0..rows {
        // A multiplication by an odd number permutes the numbers.
        let number = number.wrapping_mul(2_654_435_761).wrapping_add(seed) % rows;
        keyspace.put(row_key(number), row_value(&mut random))?;
    }
    let writing = start.elapsed();
    db.wait_for_background()?;
    let settled = start.elapsed();
    let processor = processor_seconds() - before;
    let stats = db.stats();
    println!(
        "  {what}: {:.0} writes/s, {:.2} us of processor time each; settled after {:.2} s, of {:.2} s; stalled {:.2} s; {:.0} bytes written each, of them {:.0} to the log",
        rows as f64 / writing.as_secs_f64(),
        processor * 1e6 / rows as f64,
        settled.as_secs_f64(),
        writing.as_secs_f64(),
        (stats.stalls.compaction_debt + stats.stalls.memtables_full).as_secs_f64(),
        (stats.wal_bytes_written + stats.flush_bytes_written + stats.compaction_bytes_written) as f64
            / rows as f64,
        stats.wal_bytes_written as f64 / rows as f64,
    );
    Ok(Times { writing, processor })
}

fn fill(path: &Path, rows: u64, maintenance: Option<Maintenance>) -> Result<Times> {
    let db = open(path)?;
    if let Some(maintenance) = maintenance {
        db.default_keyspace().create_index("by_number", number_index(maintenance))?;
    }
    let what = maintenance.map_or("no index".to_string(), |maintenance| format!("{maintenance:?}"));
    let times = write(&db, rows, 1, &what)?;
    db.close()?;
    Ok(times)
}

fn update(path: &Path, rows: u64) -> Result<Times> {
    let db = open(path)?;
    let what = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let times = write(&db, rows, 7, what)?;
    db.close()?;
    Ok(times)
}

fn queries(keyspace: &Keyspace, index: &Index, rows: u64) -> Result<()> {
    let mut random = fastrand::Rng::with_seed(5);
    let entries = index.count::<&[u8]>(..)?;
    println!("{entries} entries");
    // Warms the cache, and collects some index keys for the queries.
    let mut keys = Vec::new();
    let mut cursor = index.cursor::<&[u8]>(..)?;
    cursor.seek_to_first()?;
    while cursor.valid() {
        if keys.len() < LOOKUPS && random.u64(0..entries) < LOOKUPS as u64 {
            keys.push((cursor.index_key()?.to_vec(), cursor.primary_key().to_vec()));
        }
        cursor.next()?;
    }
    random.shuffle(&mut keys);
    for _ in 0..2 {
        let start = Instant::now();
        for (_, primary_key) in &keys {
            black_box(keyspace.get(primary_key)?.expect("a row"));
        }
        let plain = start.elapsed();
        let start = Instant::now();
        for (index_key, _) in &keys {
            let hit = index.get(index_key).next().expect("an entry")?;
            black_box(hit.record()?);
        }
        let with_record = start.elapsed();
        let start = Instant::now();
        for (index_key, _) in &keys {
            let mut cursor = index.cursor(index_key.as_slice()..=index_key.as_slice())?;
            cursor.seek_to_first()?;
            black_box(cursor.primary_key());
        }
        let alone = start.elapsed();
        let rate = |time: Duration| keys.len() as f64 / time.as_secs_f64();
        println!(
            "lookups: rows by key {:.0}/s; by index key with row {:.0}/s, {:.0} %; entries alone {:.0}/s",
            rate(plain),
            rate(with_record),
            100.0 * rate(with_record) / rate(plain),
            rate(alone),
        );
    }
    for (forward, name) in [(true, "forward"), (false, "back")] {
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            let mut cursor = index.cursor::<&[u8]>(..)?;
            if forward {
                cursor.seek_to_first()?
            } else {
                cursor.seek_to_last()?
            }
            let (mut count, mut sum) = (0u64, 0usize);
            while cursor.valid() {
                count += 1;
                sum += cursor.primary_key().len() + cursor.index_key()?.len();
                if forward { cursor.next()? } else { cursor.prev()? }
            }
            black_box(sum);
            assert_eq!(count, entries);
            best = best.min(start.elapsed());
        }
        println!(
            "scan of the index alone, {name}: {:.1} million entries/s",
            entries as f64 / best.as_secs_f64() / 1e6
        );
    }
    let start = Instant::now();
    let mut count = 0;
    for hit in index.iter() {
        count += hit?.primary_key().len() / 16;
    }
    println!("the same as an iterator: {:.1} million/s", count as f64 / start.elapsed().as_secs_f64() / 1e6);
    let mut times: Vec<Duration> = (0..2000)
        .map(|_| {
            let (a, b) = (random.u64(..), random.u64(..));
            let (low, high) = (a.min(b).to_be_bytes(), a.max(b).to_be_bytes());
            let start = Instant::now();
            black_box(index.count(low..high).expect("a count"));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("count of a random range: p50 {:.1?}, p99 {:.1?}", times[1000], times[1980]);
    let mut times: Vec<Duration> = (0..2000)
        .map(|_| {
            let start = Instant::now();
            black_box(index.nth(random.u64(0..rows.min(entries))).expect("an entry"));
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("the n-th entry: p50 {:.1?}, p99 {:.1?}", times[1000], times[1980]);
    Ok(())
}

/// Processor time of this process.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    // User and system time, in ticks of a hundredth of a second.
    (ticks(11) + ticks(12)) / 100.0
}
