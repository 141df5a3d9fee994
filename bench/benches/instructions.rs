//! Instructions per operation: a gate that does not depend on the load of the machine.
//!
//! ```text
//! cargo bench -p sapwood-bench --bench instructions                 compare with bench/instructions.txt
//! cargo bench -p sapwood-bench --bench instructions -- --accept     write that file
//! ```
//!
//! The program runs itself under `valgrind --tool=callgrind` and does a fixed amount of work on a
//! small database. Each path runs on the main thread in a function of its own; callgrind reports
//! the instructions of that function and its callees. Work of other threads is not counted. A path
//! that exceeds its baseline by more than 5 % fails, by name.
//!
//! The compiler, the C library and the processor decide the code that runs. The file names those of
//! the baseline; if they differ, nothing is compared.
#![forbid(unsafe_code)]
#![expect(clippy::disallowed_methods, reason = "starts a process, reads and writes files")]
use sapwood::{Builtin, Db, Field, Index, IndexOptions, KeyKind, Keyspace, Result};
use sapwood_bench::keys::{KeyBuffer, Numbers, Order};
use sapwood_bench::values::{Sizes, ValuePool};
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Entries of the database: a few runs of tables that fit into the cache.
const ENTRIES: u64 = 40_000;

/// Measured puts; they stay in the memtable.
const PUTS: u64 = 20_000;

/// Point reads of each kind.
const GETS: u64 = 25_000;

/// Seeks, each with a cursor of its own.
const SEEKS: u64 = 3_000;

/// The length of an index key in bytes.
const INDEX_KEY_BYTES: usize = size_of::<u64>();

/// Runs that the compaction merges; each has every key once.
const RUNS: u64 = 4;

/// The measured paths: name, function, number of operations.
const PATHS: [(&str, &str, u64); 13] = [
    ("put", "measured_put", PUTS),
    ("put in a batch of 100", "measured_batch", PUTS),
    ("get from the memtable", "measured_get_memtable", GETS),
    ("get from tables", "measured_get_tables", GETS),
    ("get of what is not there", "measured_get_missing", GETS),
    ("seek over four runs", "measured_seek_runs", SEEKS),
    ("next over four runs", "measured_next_runs", ENTRIES),
    ("seek in one run", "measured_seek_one", SEEKS),
    ("next in one run", "measured_next_one", ENTRIES),
    ("merge, per entry read", "measured_merge", RUNS * ENTRIES),
    ("row of an index key", "measured_lookup", GETS),
    ("index key that is not there", "measured_lookup_missing", GETS),
    ("put with an index", "measured_put_indexed", PUTS),
];

/// The largest accepted excess over the baseline.
const TOLERANCE: f64 = 0.05;

fn main() -> ExitCode {
    // Cargo passes `--bench` of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["--work", folder] => work(Path::new(folder)).map_err(|error| error.to_string()),
        [] => count().and_then(|counts| compare(&counts)),
        ["--accept"] => count().and_then(|counts| accept(&counts)),
        _ => Err("usage: instructions [--accept]".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Numbers below [`ENTRIES`] in random order, each once. Keys that are one byte longer are absent.
struct Keys {
    numbers: Numbers,
    random: fastrand::Rng,
    key: KeyBuffer,
}

impl Keys {
    fn new(seed: u64, key_bytes: usize) -> Keys {
        let mut random = fastrand::Rng::with_seed(seed);
        let numbers = Numbers::new(Order::UniqueRandom, ENTRIES, &mut random);
        Keys { numbers, random, key: KeyBuffer::new(key_bytes, 0, 0, ENTRIES) }
    }

    #[inline]
    fn next(&mut self) -> &[u8] {
        self.key.make(self.numbers.next(&mut self.random))
    }
}

/// All work, in databases below `folder`.
fn work(folder: &Path) -> Result<()> {
    plain(&folder.join("plain"))?;
    indexed(&folder.join("indexed"))
}

/// Opens a database in which the memtable is not rotated and one log segment holds all commits.
fn open(folder: &Path, compactions: bool) -> Result<Db> {
    Db::builder(folder)
        .memory_budget(256 << 20)
        .advanced(|advanced| {
            advanced.memtable_bytes = Some(64 << 20);
            advanced.cache_bytes = Some(64 << 20);
            advanced.wal_segment_bytes = 128 << 20;
            advanced.disable_auto_compactions = !compactions;
            advanced.idle_compaction = compactions;
        })
        .open()
}

fn plain(folder: &Path) -> Result<()> {
    let db = open(folder, false)?;
    let entries = db.default_keyspace();
    let pool = ValuePool::new(0.5, Sizes::Fixed(100));
    let value = pool.walk(&mut fastrand::Rng::with_seed(1)).next_value();
    for run in 0..RUNS {
        let mut keys = Keys::new(run, 16);
        let mut batch = db.batch();
        for _ in 0..ENTRIES {
            batch.put(&entries, keys.next(), value);
        }
        batch.commit().map(drop)?;
        db.flush()?;
    }
    // The cache is warm from here on.
    assert_eq!(gets(&entries, Keys::new(50, 16), ENTRIES)?, ENTRIES);

    assert_eq!(measured_get_tables(&entries, Keys::new(51, 16), GETS)?, GETS);
    assert_eq!(measured_get_missing(&entries, Keys::new(52, 17), GETS)?, 0);
    assert_eq!(measured_seek_runs(&entries, Keys::new(53, 16), SEEKS)?, SEEKS);
    assert_eq!(measured_next_runs(&entries)?, ENTRIES);
    measured_merge(&entries)?;
    // The first scan reads the new table from its file.
    assert_eq!(nexts(&entries)?, ENTRIES);
    assert_eq!(measured_seek_one(&entries, Keys::new(53, 16), SEEKS)?, SEEKS);
    assert_eq!(measured_next_one(&entries)?, ENTRIES);

    let fresh = db.keyspace("fresh", Default::default())?;
    measured_put(&fresh, Keys::new(54, 16), PUTS, value)?;
    measured_batch(&db, &fresh, Keys::new(55, 16), PUTS, value)?;
    // About half of the keys outside the batches were put one by one.
    assert!((PUTS + 1..GETS).contains(&measured_get_memtable(&fresh, Keys::new(55, 16), GETS)?));
    db.close()
}

/// Rows with an index on the first eight bytes of their values, all merged into its tree.
fn indexed(folder: &Path) -> Result<()> {
    let db = open(folder, true)?;
    let rows = db.default_keyspace();
    let number = KeyKind::FixedInteger { bytes: INDEX_KEY_BYTES as u8, signed: false, big_endian: true };
    let index = rows.create_index(
        "first bytes",
        IndexOptions::builtin(Builtin::new(Field::value().range(0, INDEX_KEY_BYTES as u32), number)),
    )?;
    let mut keys = Keys::new(60, 16);
    for number in 0..ENTRIES {
        rows.put(keys.next(), indexed_value(number))?;
    }
    db.settle()?;
    // The cache is warm from here on, and the tree has its directory.
    assert_eq!(lookups(&index, ENTRIES, 0)?, ENTRIES);
    assert_eq!(measured_lookup(&index, GETS)?, GETS);
    assert_eq!(measured_lookup_missing(&index, GETS)?, 0);
    measured_put_indexed(&rows, Keys::new(61, 16), PUTS)?;
    db.close()
}

/// The index key of row `number`: multiplication spreads the numbers over all 64-bit values.
fn index_key(number: u64) -> [u8; INDEX_KEY_BYTES] {
    number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()
}

fn indexed_value(number: u64) -> [u8; 100] {
    let mut value = [b'v'; 100];
    value[..INDEX_KEY_BYTES].copy_from_slice(&index_key(number));
    value
}

#[inline(never)]
fn measured_lookup(index: &Index, count: u64) -> Result<u64> {
    black_box(7);
    lookups(index, count, 0)
}

#[inline(never)]
fn measured_lookup_missing(index: &Index, count: u64) -> Result<u64> {
    black_box(8);
    lookups(index, count, ENTRIES)
}

/// Looks up `count` index keys, beginning with that of row `first`.
#[inline(always)]
fn lookups(index: &Index, count: u64, first: u64) -> Result<u64> {
    let mut found = 0;
    for number in first..first + count {
        found += index.get_with(index_key(number), |key, value| {
            black_box((key, value));
        })?;
    }
    Ok(found)
}

#[inline(never)]
fn measured_put_indexed(rows: &Keyspace, mut keys: Keys, count: u64) -> Result<()> {
    (ENTRIES..ENTRIES + count).try_for_each(|number| rows.put(keys.next(), indexed_value(number)))
}

#[inline(never)]
fn measured_put(keyspace: &Keyspace, mut keys: Keys, count: u64, value: &[u8]) -> Result<()> {
    (0..count).try_for_each(|_| keyspace.put(keys.next(), value))
}

#[inline(never)]
fn measured_batch(db: &Db, keyspace: &Keyspace, mut keys: Keys, count: u64, value: &[u8]) -> Result<()> {
    let mut batch = db.batch();
    for _ in 0..count / 100 {
        for _ in 0..100 {
            batch.put(keyspace, keys.next(), value);
        }
        batch.commit().map(drop)?;
    }
    Ok(())
}

// The constants differ so that the compiler does not merge three equal functions.
#[inline(never)]
fn measured_get_memtable(keyspace: &Keyspace, keys: Keys, count: u64) -> Result<u64> {
    black_box(0);
    gets(keyspace, keys, count)
}

#[inline(never)]
fn measured_get_tables(keyspace: &Keyspace, keys: Keys, count: u64) -> Result<u64> {
    black_box(1);
    gets(keyspace, keys, count)
}

#[inline(never)]
fn measured_get_missing(keyspace: &Keyspace, keys: Keys, count: u64) -> Result<u64> {
    black_box(2);
    gets(keyspace, keys, count)
}

#[inline(always)]
fn gets(keyspace: &Keyspace, mut keys: Keys, count: u64) -> Result<u64> {
    let mut found = 0;
    for _ in 0..count {
        found += u64::from(keyspace.get_with(keys.next(), |value| black_box(value).len())?.is_some());
    }
    Ok(found)
}

#[inline(never)]
fn measured_seek_runs(keyspace: &Keyspace, keys: Keys, count: u64) -> Result<u64> {
    black_box(3);
    seeks(keyspace, keys, count)
}

#[inline(never)]
fn measured_seek_one(keyspace: &Keyspace, keys: Keys, count: u64) -> Result<u64> {
    black_box(4);
    seeks(keyspace, keys, count)
}

/// Seeks, each with a cursor of its own.
#[inline(always)]
fn seeks(keyspace: &Keyspace, mut keys: Keys, count: u64) -> Result<u64> {
    let mut found = 0;
    for _ in 0..count {
        let key = keys.next();
        let mut cursor = keyspace.cursor()?;
        cursor.seek(key)?;
        found += u64::from(cursor.key() == key);
    }
    Ok(found)
}

#[inline(never)]
fn measured_next_runs(keyspace: &Keyspace) -> Result<u64> {
    black_box(5);
    nexts(keyspace)
}

#[inline(never)]
fn measured_next_one(keyspace: &Keyspace) -> Result<u64> {
    black_box(6);
    nexts(keyspace)
}

#[inline(always)]
fn nexts(keyspace: &Keyspace) -> Result<u64> {
    let mut cursor = keyspace.cursor()?;
    cursor.seek_to_first()?;
    let mut seen = 0;
    while cursor.valid() {
        black_box((cursor.key(), cursor.value()));
        seen += 1;
        cursor.next()?;
    }
    Ok(seen)
}

#[inline(never)]
fn measured_merge(keyspace: &Keyspace) -> Result<()> {
    keyspace.compact_range::<&[u8]>(..)
}

/// Instructions per operation of every path, in the order of [`PATHS`].
fn count() -> std::result::Result<Vec<f64>, String> {
    let valgrind = Command::new("valgrind").arg("--version").output();
    if !valgrind.is_ok_and(|output| output.status.success()) {
        return Err("valgrind is needed to count instructions (Debian: apt-get install valgrind)".to_owned());
    }
    // In memory where `/dev/shm` exists: the file system decides how the log is written.
    let memory = Path::new("/dev/shm");
    let mut folder = tempfile::Builder::new();
    folder.prefix("sapwood-instructions-");
    let folder = folder
        .tempdir_in(if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() })
        .map_err(|error| format!("cannot make a folder: {error}"))?;
    let profile = folder.path().join("callgrind.out");
    let program = std::env::current_exe().map_err(|error| format!("cannot find the program: {error}"))?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(program)
        .arg("--work")
        .arg(folder.path().join("db"))
        .output()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("the work failed:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let profile =
        std::fs::read_to_string(&profile).map_err(|error| format!("no profile was written: {error}"))?;
    PATHS
        .iter()
        .map(|(_, function, operations)| {
            let instructions = inclusive(&profile, function)
                .ok_or_else(|| format!("the profile has no call of {function}; was it inlined?"))?;
            Ok(instructions as f64 / *operations as f64)
        })
        .collect()
}

/// Instructions of all calls of `function`, callees included, from a profile in callgrind's format:
/// a line `cfn=<function>`, a line `calls=…`, and a line with a position and the cost of these
/// calls.
fn inclusive(profile: &str, function: &str) -> Option<u64> {
    let mut lines = profile.lines();
    let mut sum = None;
    while let Some(line) = lines.next() {
        if line.strip_prefix("cfn=").is_some_and(|name| name.ends_with(function)) {
            let cost = lines.find(|line| !line.starts_with("calls="))?;
            let cost: u64 = cost.split_whitespace().nth(1)?.parse().ok()?;
            sum = Some(sum.unwrap_or(0) + cost);
        }
    }
    sum
}

/// The parts of the machine that decide the instructions, one line each.
fn machine() -> String {
    let say = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        Some(text.lines().next()?.trim().to_owned())
    };
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let compiler = say(&compiler, &["--version"]).unwrap_or_else(|| "rustc of an unknown version".to_owned());
    let library =
        say("getconf", &["GNU_LIBC_VERSION"]).unwrap_or_else(|| "another libc than glibc".to_owned());
    // The C library selects its functions by this feature.
    #[cfg(target_arch = "x86_64")]
    let vectors = if std::arch::is_x86_feature_detected!("avx2") { "with AVX2" } else { "without AVX2" };
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = "";
    format!("{compiler}, {library}, {} {vectors}", std::env::consts::ARCH).trim_end().to_owned()
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.txt")
}

fn accept(counts: &[f64]) -> std::result::Result<(), String> {
    let mut text = format!(
        "# Instructions per operation; `cargo bench -p sapwood-bench --bench instructions -- --accept` writes this file.\n\
         {}\n",
        machine()
    );
    for ((name, ..), count) in PATHS.iter().zip(counts) {
        let _ = writeln!(text, "{count:10.1}  {name}");
    }
    print!("{text}");
    std::fs::write(file(), text).map_err(|error| format!("cannot write {}: {error}", file().display()))
}

fn compare(counts: &[f64]) -> std::result::Result<(), String> {
    let text = std::fs::read_to_string(file()).unwrap_or_default();
    let mut lines = text.lines().filter(|line| !line.starts_with('#'));
    let baseline_machine = lines.next().unwrap_or("nothing");
    let baseline: Vec<(f64, &str)> = lines
        .filter_map(|line| line.trim().split_once("  "))
        .filter_map(|(count, name)| Some((count.parse().ok()?, name)))
        .collect();
    let comparable = baseline_machine == machine();
    println!("{:>12} {:>12}           instructions per operation", "baseline", "now");
    let mut worse = String::new();
    for ((name, ..), count) in PATHS.iter().zip(counts) {
        let known = baseline.iter().find(|(_, known)| known == name).map(|(count, _)| *count);
        let Some(known) = known.filter(|_| comparable) else {
            println!("{:>12} {count:12.1}           {name}", "-");
            continue;
        };
        let change = count / known - 1.0;
        println!("{known:12.1} {count:12.1} {:+8.1} %  {name}", change * 100.0);
        if change > TOLERANCE {
            let _ = write!(
                worse,
                "\n{name}: {count:.1} instructions per operation instead of {known:.1}, {:.1} % more",
                change * 100.0
            );
        }
    }
    if !comparable {
        println!("not compared: this is {},\nthe baseline was made with {baseline_machine}", machine());
    }
    if worse.is_empty() {
        return Ok(());
    }
    Err(format!(
        "instructions: slower than the baseline by more than {:.0} %:{worse}\n\
         If that is worth it: cargo bench -p sapwood-bench --bench instructions -- --accept",
        TOLERANCE * 100.0
    ))
}
