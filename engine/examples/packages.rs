//! A real list of Debian packages in a database: loads it, queries it, reopens it, and survives
//! kills.
//!
//! ```text
//! packages <file> [db dir] [--durability=none|buffered|periodic:MS|sync] [--every=N] [--pause=MICROSECONDS]
//! packages --check <file> <db dir> [--acknowledged=N]
//! ```
//!
//! The file is `/var/lib/dpkg/status` or a `Packages` file of apt, uncompressed. Each stanza is one
//! record: the key is `name/version/architecture`, the value the stanza's text. Secondary indexes
//! find records by section, maintainer, installed size and dependency (`packages/indexes.rs`).
//! Every result of the database is compared with the file.
//!
//! During the load, a line reports the number of acknowledged writes. Kill the program (`kill -9`)
//! in the middle, then run `--check` on the folder: the records must be the first ones of the file,
//! without a gap, and no fewer than the acknowledged ones. For this check each record is written in
//! one batch with its position in the file, which goes into a second keyspace.
#![expect(
    clippy::disallowed_methods,
    reason = "an example lives outside the engine: it reads a file and a clock"
)]

use sapwood::{Db, Durability, Entry, Keyspace, KeyspaceOptions};
use std::collections::HashMap;
use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[path = "packages/indexes.rs"]
mod indexes;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "\
usage: packages <file> [db dir] [--durability=none|buffered|periodic:MS|sync] [--every=N] [--pause=MICROSECONDS]
       packages --check <file> <db dir> [--acknowledged=N]

  <file>          /var/lib/dpkg/status, or an uncompressed Packages file of apt
  [db dir]        folder of the database, kept; without it a temporary one
  --durability    what an acknowledged write survives (buffered: kill -9; sync: power loss)
  --every         print the number of acknowledged writes each N writes
  --pause         wait after each write, so that there is time for a kill -9
  --check         do not load: say which records are in <db dir> and whether they are the first ones of <file>
  --acknowledged  with --check: at least N records must be there";

fn main() -> ExitCode {
    let result = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| match arguments.check {
        true => check(&arguments),
        false => load_and_ask(&arguments),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("packages: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The parsed command line.
struct Arguments {
    file: PathBuf,
    folder: Option<PathBuf>,
    check: bool,
    durability: Durability,
    every: Option<usize>,
    pause: Duration,
    acknowledged: usize,
}

impl Arguments {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments> {
        let mut paths = Vec::new();
        let mut parsed = Arguments {
            file: PathBuf::new(),
            folder: None,
            check: false,
            durability: Durability::Buffered,
            every: None,
            pause: Duration::ZERO,
            acknowledged: 0,
        };
        for argument in arguments {
            let number = |value: &str| {
                value.parse::<usize>().map_err(|_| format!("{argument}: '{value}' is not a number\n{USAGE}"))
            };
            match argument.split_once('=').unwrap_or((&argument, "")) {
                ("--help" | "-h", _) => return Err(USAGE.into()),
                ("--check", "") => parsed.check = true,
                ("--durability", value) => parsed.durability = value.parse()?,
                ("--every", value) => parsed.every = Some(number(value)?.max(1)),
                ("--pause", value) => parsed.pause = Duration::from_micros(number(value)? as u64),
                ("--acknowledged", value) => parsed.acknowledged = number(value)?,
                (flag, _) if flag.starts_with('-') => {
                    return Err(format!("unknown flag {flag}\n{USAGE}").into());
                }
                _ => paths.push(PathBuf::from(&argument)),
            }
        }
        let mut paths = paths.into_iter();
        parsed.file = paths.next().ok_or_else(|| format!("which package list?\n{USAGE}"))?;
        parsed.folder = paths.next();
        if let Some(extra) = paths.next() {
            return Err(format!("'{}' is one argument too many\n{USAGE}", extra.display()).into());
        }
        if parsed.check && parsed.folder.is_none() {
            return Err(format!("--check needs the folder of the database\n{USAGE}").into());
        }
        Ok(parsed)
    }
}

/// One stanza of the list.
struct Record<'a> {
    key: Vec<u8>,
    stanza: &'a [u8],
}

/// The bytes of the list.
fn read_list(file: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let compressed: [(&[u8], &str); 4] = [
        (&[0x04, 0x22, 0x4D, 0x18], "lz4cat"),
        (&[0x1F, 0x8B], "zcat"),
        (&[0xFD, b'7', b'z', b'X', b'Z'], "xzcat"),
        (&[0x28, 0xB5, 0x2F, 0xFD], "zstdcat"),
    ];
    match compressed.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, tool)) => {
            Err(format!("{} is compressed; unpack it with {tool} first", file.display()).into())
        }
        None => Ok(bytes),
    }
}

/// Splits a list at its blank lines, in the order of the file.
fn parse_list<'a>(file: &Path, bytes: &'a [u8]) -> Result<Vec<Record<'a>>> {
    let mut records = Vec::new();
    let mut seen: HashMap<Vec<u8>, u32> = HashMap::new();
    let mut start = 0;
    let mut line_number = 1;
    while start < bytes.len() {
        // A stanza ends at an empty line or at the end of the file.
        let length = find(&bytes[start..], b"\n\n").map_or(bytes.len() - start, |at| at + 1);
        let stanza = &bytes[start..start + length];
        if !stanza.trim_ascii().is_empty() {
            let first_line = line_number + stanza.iter().take_while(|byte| **byte == b'\n').count();
            let name = field(stanza, b"Package:").ok_or_else(|| {
                format!(
                    "{}: the stanza in line {first_line} has no 'Package:'; is this a package list?",
                    file.display()
                )
            })?;
            let version = field(stanza, b"Version:").unwrap_or(b"-");
            let architecture = field(stanza, b"Architecture:").unwrap_or(b"-");
            let mut key = [name, version, architecture].join(&b'/');
            // Lists merged from several sources can name a package twice.
            let times = seen.entry(key.clone()).or_default();
            *times += 1;
            if *times > 1 {
                key.extend(format!("/{times}").bytes());
            }
            records.push(Record { key, stanza });
        }
        line_number += stanza.iter().filter(|byte| **byte == b'\n').count() + 1;
        start += length + 1;
    }
    if records.is_empty() {
        return Err(format!("{} holds no package", file.display()).into());
    }
    Ok(records)
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

/// The value of the field `name` at the start of a line.
fn field<'a>(stanza: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    stanza.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(name)).map(<[u8]>::trim_ascii)
}

/// The two keyspaces: the records, and the key of each record by its position in the file.
fn keyspaces(db: &Db) -> sapwood::Result<(Keyspace, Keyspace)> {
    Ok((
        db.keyspace("packages", KeyspaceOptions::default())?,
        db.keyspace("order", KeyspaceOptions::default())?,
    ))
}

fn load_and_ask(arguments: &Arguments) -> Result<()> {
    let bytes = read_list(&arguments.file)?;
    let records = parse_list(&arguments.file, &bytes)?;
    let temporary = tempfile::tempdir()?;
    let folder = arguments.folder.clone().unwrap_or_else(|| temporary.path().join("data"));
    println!("{}: {} records, {:.1} MB", arguments.file.display(), records.len(), megabytes(bytes.len()));

    let db = Db::builder(&folder).durability(arguments.durability).error_if_exists(true).open();
    let db = db.map_err(|error| error.context("cannot load into this folder"))?;
    let (packages, order) = keyspaces(&db)?;
    let indexes = indexes::attach(&packages)?;
    load(arguments, &db, &packages, &order, &records)?;

    let mut expected: Vec<&Record<'_>> = records.iter().collect();
    expected.sort_by(|a, b| a.key.cmp(&b.key));
    println!("\nasking the database that loaded the list:");
    ask(&packages, &expected)?;
    indexes::ask(&packages, &expected)?;
    drop((packages, order, indexes));
    db.close()?;

    let start = Instant::now();
    let db = Db::builder(&folder).create_if_missing(false).open()?;
    let opened = start.elapsed();
    println!("\nasking the database reopened from {} (opened in {opened:.1?}):", folder.display());
    let packages = keyspaces(&db)?.0;
    let indexes = indexes::attach(&packages)?;
    ask(&packages, &expected)?;
    indexes::ask(&packages, &expected)?;

    let start = Instant::now();
    db.flush()?;
    db.wait_for_background()?;
    println!("\nasking the tables, after a flush ({:.1?}):", start.elapsed());
    ask(&packages, &expected)?;
    indexes::ask(&packages, &expected)?;
    println!("\n{}", db.stats());
    drop((packages, indexes));
    db.close()?;
    println!("every result matches the file");
    Ok(())
}

/// Writes all records, in the order of the file, each in a batch with its position.
fn load(
    arguments: &Arguments,
    db: &Db,
    packages: &Keyspace,
    order: &Keyspace,
    records: &[Record<'_>],
) -> Result<()> {
    let every = arguments.every.unwrap_or_else(|| records.len().div_ceil(20));
    let mut batch = db.batch();
    let mut written = 0;
    let start = Instant::now();
    for (place, record) in records.iter().enumerate() {
        batch.put(packages, &record.key, record.stanza);
        batch.put(order, (place as u64).to_be_bytes(), &record.key);
        let _ = batch.commit()?;
        written += record.key.len() + record.stanza.len();
        let acknowledged = place + 1;
        if acknowledged % every == 0 || acknowledged == records.len() {
            // Printed after the commit has returned, and flushed at once, so the last line before a
            // kill is right.
            let mut stdout = std::io::stdout().lock();
            writeln!(stdout, "acknowledged {acknowledged} of {}", records.len())?;
            stdout.flush()?;
        }
        if !arguments.pause.is_zero() {
            std::thread::sleep(arguments.pause);
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "loaded in {seconds:.3} s: {:.0} records/s, {:.1} MB/s, durability {}",
        records.len() as f64 / seconds,
        megabytes(written) / seconds,
        arguments.durability,
    );
    Ok(())
}

/// Runs every kind of query, and compares every result with `expected`, which is sorted by key.
fn ask(packages: &Keyspace, expected: &[&Record<'_>]) -> Result<()> {
    println!("  {:<44} {:>9} {:>12} {:>12}", "query", "records", "time", "per record");

    let mut shuffled = expected.to_vec();
    fastrand::Rng::with_seed(1).shuffle(&mut shuffled);
    timed("get, every key in random order", || {
        for record in &shuffled {
            let value = packages.get(&record.key)?;
            same(&record.key, value.as_deref(), Some(record.stanza))?;
        }
        Ok(shuffled.len())
    })?;

    timed("get in place, without a copy", || {
        for record in &shuffled {
            match packages.get_with(&record.key, |value| value == record.stanza)? {
                Some(true) => {}
                Some(false) => return Err(wrong(&record.key).into()),
                None => same(&record.key, None, Some(record.stanza))?,
            }
        }
        Ok(shuffled.len())
    })?;

    timed("get, keys that are not there", || {
        let mut missing = Vec::new();
        for record in &shuffled {
            missing.clear();
            missing.extend_from_slice(&record.key);
            missing.push(b'!');
            same(&missing, packages.get(&missing)?.as_deref(), None)?;
        }
        Ok(shuffled.len())
    })?;

    timed("multi_get, 100 keys at a time", || {
        for records in shuffled.chunks(100) {
            let keys: Vec<&[u8]> = records.iter().map(|record| &record.key[..]).collect();
            for (record, value) in records.iter().zip(packages.multi_get(&keys)?) {
                same(&record.key, value.as_deref(), Some(record.stanza))?;
            }
        }
        Ok(shuffled.len())
    })?;

    timed("everything, forwards", || compare(packages.iter(), expected.iter().copied()))?;
    timed("everything, backwards", || compare(packages.iter().rev(), expected.iter().rev().copied()))?;

    let mut prefixes: Vec<&[u8]> =
        expected.iter().map(|record| &record.key[..record.key.len().min(3)]).collect();
    prefixes.dedup();
    timed(&format!("prefixes of three letters ({})", prefixes.len()), || {
        let mut count = 0;
        for prefix in &prefixes {
            let (low, high) = bounds(expected, prefix);
            count += compare(packages.prefix(prefix), expected[low..high].iter().copied())?;
        }
        Ok(count)
    })?;

    let mut random = fastrand::Rng::with_seed(2);
    let ranges: Vec<(usize, usize)> = (0..500)
        .map(|_| {
            let low = random.usize(..expected.len());
            (low, (low + random.usize(..200)).min(expected.len() - 1))
        })
        .collect();
    timed("500 ranges of up to 200 records", || {
        let mut count = 0;
        for &(low, high) in &ranges {
            let range = packages.range(&expected[low].key[..]..&expected[high].key[..]);
            count += compare(range, expected[low..high].iter().copied())?;
        }
        Ok(count)
    })?;
    timed("the same, backwards, both ends included", || {
        let mut count = 0;
        for &(low, high) in &ranges {
            let range = packages.range(&expected[low].key[..]..=&expected[high].key[..]);
            count += compare(range.rev(), expected[low..=high].iter().rev().copied())?;
        }
        Ok(count)
    })?;
    timed("the ten before each, backwards", || {
        let mut count = 0;
        for &(low, _) in &ranges {
            let before = packages.range(..&expected[low].key[..]).limit(10);
            count += compare(before.rev(), expected[low.saturating_sub(10)..low].iter().rev().copied())?;
        }
        Ok(count)
    })
}

/// Runs a query and prints its duration.
fn timed(name: &str, query: impl FnOnce() -> Result<usize>) -> Result<()> {
    let start = Instant::now();
    let count = query().map_err(|error| format!("{name}: {error}"))?;
    let time = start.elapsed();
    let each = time.as_secs_f64() * 1e6 / count.max(1) as f64;
    println!("  {name:<44} {count:>9} {:>9.2} ms {each:>9.2} us", time.as_secs_f64() * 1e3);
    Ok(())
}

/// Compares a range with the expected records, one by one, and counts them.
fn compare<'a>(
    entries: impl Iterator<Item = sapwood::Result<Entry>>,
    mut expected: impl Iterator<Item = &'a Record<'a>>,
) -> Result<usize> {
    let mut count = 0;
    for entry in entries {
        let entry = entry?;
        let Some(record) = expected.next() else {
            return Err(format!("'{}' is there and should not be", entry.key().escape_ascii()).into());
        };
        if entry.key() != record.key {
            let (found, wanted) = (entry.key().escape_ascii(), record.key.escape_ascii());
            return Err(format!("found '{found}' where '{wanted}' should be").into());
        }
        same(&record.key, Some(&entry.value()?), Some(record.stanza))?;
        count += 1;
    }
    match expected.next() {
        Some(record) => Err(format!("'{}' is missing", record.key.escape_ascii()).into()),
        None => Ok(count),
    }
}

/// The start and the end of the keys with `prefix` among sorted records.
fn bounds(sorted: &[&Record<'_>], prefix: &[u8]) -> (usize, usize) {
    let low = sorted.partition_point(|record| record.key[..] < *prefix);
    (low, low + sorted[low..].partition_point(|record| record.key.starts_with(prefix)))
}

fn same(key: &[u8], found: Option<&[u8]>, expected: Option<&[u8]>) -> Result<()> {
    match (found, expected) {
        (None, Some(_)) => Err(format!("'{}' is missing", key.escape_ascii()).into()),
        (Some(_), None) => Err(format!("'{}' is there and should not be", key.escape_ascii()).into()),
        (found, expected) if found == expected => Ok(()),
        _ => Err(wrong(key).into()),
    }
}

fn wrong(key: &[u8]) -> String {
    format!("the value of '{}' differs from the file", key.escape_ascii())
}

fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

/// Lists the records of a database, after a load that may have been killed.
fn check(arguments: &Arguments) -> Result<()> {
    let bytes = read_list(&arguments.file)?;
    let records = parse_list(&arguments.file, &bytes)?;
    let folder = arguments.folder.as_deref().unwrap_or(Path::new(""));
    let start = Instant::now();
    let db = Db::builder(folder).create_if_missing(false).open()?;
    println!("opened {} in {:.1?}", folder.display(), start.elapsed());
    let names = db.list_keyspaces()?;
    if !names.iter().any(|name| name == "packages") || !names.iter().any(|name| name == "order") {
        // Killed before the keyspaces were created: nothing can have been acknowledged.
        return verdict(0, records.len(), arguments.acknowledged);
    }
    let (packages, order) = keyspaces(&db)?;
    let mut present = 0;
    for entry in order.iter() {
        let entry = entry?;
        let place =
            entry.key().try_into().map(u64::from_be_bytes).map_err(|_| "a place is not eight bytes long")?;
        if place != present as u64 {
            return Err(
                format!("record {present} is missing, but record {place} is there: not a prefix").into()
            );
        }
        let record =
            records.get(present).ok_or("there are more records than in the file; is it the same file?")?;
        if *entry.value()? != record.key[..] {
            return Err(
                format!("record {present} has another key than in the file; is it the same file?").into()
            );
        }
        same(&record.key, packages.get(&record.key)?.as_deref(), Some(record.stanza))?;
        present += 1;
    }
    // Each batch held both, so there must be no record without a position.
    let mut expected: Vec<&Record<'_>> = records[..present].iter().collect();
    expected.sort_by(|a, b| a.key.cmp(&b.key));
    compare(packages.iter(), expected.iter().copied())?;
    // The indexes have the same state. If the process was killed before their creation, they are
    // created now.
    let indexes = indexes::attach(&packages)?;
    if present > 0 {
        indexes::ask(&packages, &expected)?;
    }
    drop((packages, order, indexes));
    db.close()?;
    verdict(present, records.len(), arguments.acknowledged)
}

fn verdict(present: usize, all: usize, acknowledged: usize) -> Result<()> {
    println!(
        "{present} of {all} records are there: the first {present} of the file, without a gap, all as written"
    );
    if present < acknowledged {
        return Err(format!(
            "{acknowledged} writes were acknowledged, {} of them are lost",
            acknowledged - present
        )
        .into());
    }
    Ok(())
}
