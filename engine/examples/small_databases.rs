//! The cost of small databases: memory within small budgets, and many databases of ten rows in one
//! process.
//!
//! `cargo run --release --example small_databases -- [databases, 1000 by default] [folder]`
//!
//! The first table has the memory that a process occupies after three million puts of 116 bytes.
//! The second has what one of many open databases takes: memory, disk and time. Memory is what the
//! process occupies beyond what it did before; disk is the space that files and the directory
//! occupy. Each line of the first table, and the second table, is measured in a process of its own.
//! For the calls to the system that one open takes, run
//! `strace -f target/release/examples/small_databases --one FOLDER`.
#![expect(clippy::disallowed_methods, reason = "a program that measures itself reads the clock")]
use sapwood::{Db, DbBuilder, Error, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PUTS: u64 = 3_000_000;
const ROWS: u64 = 10;
const BUDGETS_MIB: [usize; 3] = [4, 16, 64];
const DATABASES: usize = 1000;

/// A key in random order, without repetition.
fn key(number: u64) -> [u8; 16] {
    let mut key = [b'0'; 16];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    key
}

/// Writes `rows` rows of 116 bytes.
fn fill(db: &Db, rows: u64) -> Result<()> {
    let keyspace = db.default_keyspace();
    (0..rows).try_for_each(|number| keyspace.put(key(number), [number as u8; 100]))
}

fn io_error(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::io(what, path, error)
}

/// A number of `/proc/self/status`, such as the KiB after `VmRSS:`; 0 where there is no such file.
fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// KiB that a directory and its files occupy.
#[cfg(unix)]
fn disk_kib(folder: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let blocks =
        |path: &Path| Ok(std::fs::symlink_metadata(path).map_err(io_error("look at", path))?.blocks());
    let mut sum = blocks(folder)?;
    for entry in std::fs::read_dir(folder).map_err(io_error("list", folder))? {
        sum += blocks(&entry.map_err(io_error("list", folder))?.path())?;
    }
    Ok(sum / 2)
}

#[cfg(not(unix))]
fn disk_kib(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).map_err(io_error("list", folder))? {
        let entry = entry.map_err(io_error("list", folder))?;
        sum += entry.metadata().map_err(io_error("look at", folder))?.len();
    }
    Ok(sum / 1024)
}

/// Fills a database with a budget of `mib`, and prints a line of the first table.
fn budget(folder: &Path, mib: usize) -> Result<()> {
    let path = folder.join("budget");
    let db = Db::builder(&path).memory_budget(mib << 20).open()?;
    let started = Instant::now();
    fill(&db, PUTS)?;
    let rate = PUTS as f64 / started.elapsed().as_secs_f64();
    let (now, most) = (status("VmRSS:") as f64 / 1024.0, status("VmHWM:") as f64 / 1024.0);
    let memory = db.memory();
    let part = |bytes: u64| bytes as f64 / (1 << 20) as f64;
    println!(
        "| {mib} | {now:.1} | {most:.1} | {:.1} | {:.1} | {:.1} | {rate:.0} |",
        part(memory.memtables),
        part(memory.wal),
        part(memory.cache),
    );
    db.close()?;
    Db::destroy(&path)
}

/// The time of each of several calls.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn measure<R>(&mut self, call: impl FnOnce() -> Result<R>) -> Result<R> {
        let started = Instant::now();
        let result = call();
        self.0.push(started.elapsed());
        result
    }

    fn report(mut self, label: &str) {
        self.0.sort_unstable();
        let millis = |place: usize| self.0[place].as_secs_f64() * 1e3;
        let (median, late) = (millis(self.0.len() / 2), millis(self.0.len() * 99 / 100));
        println!("| {label} | {median:.3} | {late:.3} |");
    }
}

fn small(path: &Path) -> DbBuilder {
    Db::builder(path).memory_budget(4 << 20)
}

/// Opens many databases of ten rows, and prints the second and the third table.
fn many(folder: &Path, count: usize) -> Result<()> {
    let paths: Vec<PathBuf> = (0..count).map(|number| folder.join(number.to_string())).collect();
    // Whatever a process has once.
    small(&paths[0]).open()?.close()?;
    Db::destroy(&paths[0])?;
    let before = status("VmRSS:");
    let (mut creations, mut openings, mut unread) = (Times::default(), Times::default(), Times::default());
    let mut closes = Times::default();
    let mut databases = Vec::new();
    println!("| state | KiB of memory each | KiB of disk each | threads in all |");
    println!("|---|---|---|---|");
    let report = |label: &str| -> Result<()> {
        let memory = status("VmRSS:").saturating_sub(before) as f64 / count as f64;
        let disk: u64 = paths.iter().map(|path| disk_kib(path)).sum::<Result<u64>>()?;
        let (disk, threads) = (disk as f64 / count as f64, status("Threads:") - 1);
        println!("| {label} | {memory:.1} | {disk:.1} | {threads} |");
        Ok(())
    };
    for path in &paths {
        databases.push(creations.measure(|| {
            let db = small(path).open()?;
            fill(&db, ROWS)?;
            Ok(db)
        })?);
    }
    report("created, ten rows, open")?;
    for db in databases.drain(..) {
        closes.measure(|| db.close())?;
    }
    report("closed")?;
    for path in &paths {
        databases.push(openings.measure(|| small(path).open())?);
    }
    for db in &databases {
        assert!(db.default_keyspace().get(key(ROWS - 1))?.is_some(), "the row is there");
    }
    report("opened again, one row read")?;
    std::thread::sleep(Duration::from_secs(2));
    report("two seconds later")?;
    databases.clear();
    for path in &paths {
        unread.measure(|| small(path).open()?.close())?;
    }
    println!("\n| call | median ms | 99th percentile |");
    println!("|---|---|---|");
    creations.report("create and write ten rows");
    closes.report("close after ten rows");
    openings.report("open");
    unread.report("open and close");
    paths.iter().try_for_each(Db::destroy)
}

/// Opens and closes one database that exists, for a tracer.
fn one(folder: &Path) -> Result<()> {
    let path = folder.join("one");
    let db = small(&path).open()?;
    eprintln!("-- created");
    fill(&db, ROWS)?;
    eprintln!("-- ten rows");
    db.close()?;
    eprintln!("-- closed");
    let db = small(&path).open()?;
    eprintln!("-- opened");
    db.close()?;
    eprintln!("-- closed");
    Ok(())
}

/// Runs this program again: memory that an earlier part has returned would count otherwise.
fn child(mode: &str, argument: &str, folder: &Path) -> Result<()> {
    let program = std::env::current_exe().map_err(io_error("find", Path::new("this program")))?;
    let run = std::process::Command::new(&program).arg(mode).arg(argument).arg(folder).status();
    assert!(run.map_err(io_error("start", &program))?.success(), "{mode} {argument} failed");
    Ok(())
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let usage = || Error::invalid_argument("usage: small_databases [databases] [folder]");
    let number = |text: &str| text.parse::<usize>().map_err(|_| usage());
    let (count, parent) = match arguments.as_slice() {
        ["--one", folder] => return one(Path::new(folder)),
        ["--budget", mib, folder] => return budget(Path::new(folder), number(mib)?),
        ["--many", count, folder] => return many(Path::new(folder), number(count)?),
        [] => (DATABASES, std::env::temp_dir()),
        [count] => (number(count)?, std::env::temp_dir()),
        [count, folder] => (number(count)?, PathBuf::from(folder)),
        _ => return Err(usage()),
    };
    let folder = tempfile::tempdir_in(&parent).map_err(io_error("make a folder in", &parent))?;
    println!("| budget MiB | occupied MiB | most | memtables | log | cache | puts/s |");
    println!("|---|---|---|---|---|---|---|");
    for mib in BUDGETS_MIB {
        child("--budget", &mib.to_string(), folder.path())?;
    }
    println!();
    child("--many", &count.to_string(), folder.path())
}
