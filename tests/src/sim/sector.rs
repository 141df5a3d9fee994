//! Damage of one sector of one file: every sector of a small database, in every way known from
//! disks.
//!
//! A database of several tables, a MANIFEST and a log is copied, one 512-byte sector of the copy is
//! damaged, and the copy is opened and read: every key, and scans in both directions. Reads return
//! the right data or an error with a file and an offset. Keys that do not need the damaged file are
//! still readable, a compaction does not copy damage into new tables, and an open that fails
//! changes nothing. Every second database has secondary indexes, whose trees are damaged as well:
//! an index agrees with the rows, or returns such an error.
//!
//! *The limit.* Damage of bytes after the last witness of a sync (a sync mark, or the header of a
//! later segment) looks like the torn end of the log. If one sector holds a synced record together
//! with every witness of it, its loss goes unnoticed. Such runs are counted as *unwitnessed*. The
//! check parses the log independently to find the witnesses, so no other loss is counted as one.
use super::arguments::{Command, Run, Settings};
use super::jobs::replay_command;
use super::report::SeedReport;
use crate::harness::panic_message;
use sapwood_storage::sim::SECTOR_BYTES;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

mod fixture;
mod case;

use fixture::Fixture;

const SECTOR: usize = SECTOR_BYTES as usize;

/// The damage of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// One bit is wrong.
    Flip,
    /// It holds zeros.
    Zero,
    /// It is swapped with the next one: a misplaced write.
    SwapNext,
    /// It is swapped with a sector of another file.
    SwapOther,
}

const DAMAGES: [Damage; 4] = [Damage::Flip, Damage::Zero, Damage::SwapNext, Damage::SwapOther];

/// The end of the database's process before the damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Closed: the log is empty.
    Closed,
    /// Killed, with synced and other commits in the log.
    Killed,
    /// Killed, opened, and killed again: a sealed part of the log, and an open one.
    KilledTwice,
}

const ENDS: [End; 3] = [End::Closed, End::Killed, End::KilledTwice];

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The open returns an error.
    Refused,
    /// Some reads return errors.
    Partly,
    /// Every row is present.
    Harmless,
    /// Unsynced commits are missing that look like the torn end of the log.
    Shorter,
    /// Synced commits are missing, too, with every witness of their sync.
    Unwitnessed,
}

type Outcome<T> = std::result::Result<T, String>;

/// Seeds per database. The sectors are dealt out to the seeds in turn.
const SLICES: u64 = 16;

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "sector",
    help: "every sector of every file of a small database is damaged; checks for the right data or an error with the place",
    options: &[
        ("--indexes", "", "every database has secondary indexes, not only every second one"),
        ("--only", "N", "only the run with this number, of the runs of the seed"),
        ("--one-in", "N", "only one run in N of the runs of the seed"),
    ],
    run: Run::Seeds {
        seed,
        counts: &[
            "runs",
            "refused",
            "partly readable",
            "harmless",
            "unsynced commits missing",
            "unwitnessed",
        ],
        seconds: 60,
        seeds: 0..SLICES * ENDS.len() as u64,
    },
};

/// Runs the share of one seed: `seed / 48` determines the database, `seed % 3` its end, and
/// `seed / 3 % 16` the share.
pub fn seed(seed: u64, settings: &Settings) -> SeedReport {
    let ends = ENDS.len() as u64;
    let database = seed / ends / SLICES;
    let has_indexes = database % 2 == 1 || settings.has("--indexes");
    let fixture = Fixture::new(ENDS[(seed % ends) as usize], database, has_indexes);
    let slice = seed / ends % SLICES;
    let mut report = SeedReport { counts: vec![0; 6], violations: Vec::new() };
    let only = settings.number("--only");
    let (one_in, mut ours) = (settings.number("--one-in").unwrap_or(1).max(1), 0);
    for number in 0..fixture.sectors.len() as u64 * DAMAGES.len() as u64 {
        // Neighbouring sectors belong to different seeds, so that each seed covers every file and
        // every kind of damage.
        let is_ours = (number / DAMAGES.len() as u64 + number % DAMAGES.len() as u64) % SLICES == slice;
        if !is_ours || only.is_some_and(|only| only != number) {
            continue;
        }
        ours += 1;
        if !u64::is_multiple_of(ours, one_in) {
            continue;
        }
        let verdict = catch_unwind(AssertUnwindSafe(|| fixture.damaged(number)))
            .unwrap_or_else(|panic| Err(format!("panic: {}", panic_message(&*panic))));
        match verdict {
            Ok(None) => {}
            Ok(Some(verdict)) => {
                report.counts[0] += 1;
                report.counts[1 + verdict as usize] += 1;
            }
            Err(message) => {
                let indexes = if settings.has("--indexes") { " --indexes" } else { "" };
                let replay = format!("{} --only {number}{indexes}", replay_command("sector", seed));
                report.violations.push(format!("seed {seed}: {message}\n  replay with: {replay}"));
            }
        }
    }
    report
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}
