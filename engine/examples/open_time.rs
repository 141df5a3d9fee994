//! The time to open a database: after a clean close, and after a kill with a given number of MiB in
//! the log.
//!
//! `cargo run --release --example open_time -- [MiB of log, 64 by default]`
#![expect(clippy::disallowed_methods, reason = "a program that measures itself reads the clock")]
use sapwood::{Db, DbBuilder, Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};

const ROUNDS: usize = 7;

fn builder(path: &Path) -> DbBuilder {
    // One memtable holds everything, so that all data is in the log and none in tables.
    Db::builder(path).memory_budget(2 << 30).advanced(|options| options.memtable_bytes = Some(512 << 20))
}

fn fill(db: &Db, log_mib: u64) -> Result<()> {
    let keyspace = db.default_keyspace();
    let mut number = 1u64;
    while db.stats().wal_bytes_written < log_mib << 20 {
        for _ in 0..1000 {
            // A multiplicative generator: random order, no repetition.
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let mut key = number.to_be_bytes().to_vec();
            key.extend_from_slice(b"00000000");
            keyspace.put(key, [number as u8; 100])?;
        }
    }
    Ok(())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let (least, median, most) = (times[0], times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{what}: median {:.1} ms (least {:.1}, most {:.1})",
        millis(median),
        millis(least),
        millis(most)
    );
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, mode, path, log_mib] = arguments.as_slice()
        && mode == "--child"
    {
        let db = builder(Path::new(path)).open()?;
        fill(&db, log_mib.parse().expect("the parent passes a number"))?;
        // Like a kill: nothing is flushed, closed or written any more.
        std::process::abort();
    }
    let log_mib = match arguments.get(1).map(|text| text.parse::<u64>()) {
        None => 64,
        Some(Ok(mib)) => mib,
        Some(Err(_)) => return Err(Error::invalid_argument("usage: open_time [MiB of log]")),
    };
    let folder = tempfile::tempdir().map_err(|error| Error::io("make a folder", "", error))?;
    let mut after_kill = Vec::new();
    let mut after_close = Vec::new();
    for round in 0..ROUNDS {
        let path = folder.path().join(round.to_string());
        let program = std::env::current_exe().map_err(|error| Error::io("find this program", "", error))?;
        let status = std::process::Command::new(program)
            .arg("--child")
            .arg(&path)
            .arg(log_mib.to_string())
            .status()
            .map_err(|error| Error::io("start the writer", "", error))?;
        assert!(!status.success(), "the writer ends by aborting");

        let started = Instant::now();
        let db = builder(&path).open()?;
        after_kill.push(started.elapsed());
        assert!(db.stats().replayed_log_bytes >= log_mib << 20);
        db.close()?;

        let started = Instant::now();
        let db = builder(&path).open()?;
        after_close.push(started.elapsed());
        assert_eq!(db.stats().replayed_log_bytes, 0);
        db.close()?;
        Db::destroy(&path)?;
    }
    report(&format!("open after a kill with {log_mib} MiB of log"), after_kill);
    report("open after a clean close", after_close);
    Ok(())
}
