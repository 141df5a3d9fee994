//! The command line: gflags' syntax and the flag names of RocksDB's `db_bench`.
//!
//! `--name=value`, `-name=value` and `--name value` set a flag, `--name` and `--noname` set a
//! boolean, `--undefok=a,b` accepts unknown names, `--flagfile=path` reads more flags from a file,
//! one per line. Later flags win.
//!
//! | name | effect |
//! |---|---|
//! | known to RocksDB, without meaning here | accepted; the caller warns once |
//! | known to RocksDB, would change the meaning of figures | refused unless it is off |
//! | unknown | error that lists the nearest names, since scripts rely on that |
mod table;
mod parser;
mod check;
mod help;
mod ignored;
mod refused;
#[cfg(test)]
mod tests;

pub use help::columns;
pub use table::Flags;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

/// The request of a command line.
#[derive(Debug)]
pub enum Command {
    /// Run benchmarks.
    Run(Box<Flags>),
    /// Print the help and stop.
    Help,
    /// Print the version and stop.
    Version,
    /// Print the build information and stop.
    BuildInfo,
}

impl Flags {
    /// The operations of a reading thread.
    pub fn read_count(&self) -> u64 {
        count_or(self.reads, self.num)
    }

    /// The operations of a writing thread.
    pub fn write_count(&self) -> u64 {
        count_or(self.writes, self.num)
    }

    /// The operations of a deleting thread.
    pub fn delete_count(&self) -> u64 {
        count_or(self.deletes, self.num)
    }

    /// The codec that replaces the requested one, if any.
    ///
    /// lz4 has the speed of snappy; lz4 decompresses the output of lz4hc.
    pub fn codec_in_place(&self) -> Option<&'static str> {
        matches!(self.compression_type.as_str(), "snappy" | "lz4hc").then_some("lz4")
    }

    /// The folder of the log, if it differs from that of the database.
    pub fn log_folder(&self) -> Option<PathBuf> {
        let same = self.wal_dir.is_empty() || Path::new(&self.wal_dir) == Path::new(&self.db);
        (!same).then(|| PathBuf::from(&self.wal_dir))
    }

    /// Whether progress is shown: only on a terminal.
    pub fn shows_progress(&self) -> bool {
        self.progress && self.progress_reports && std::io::stderr().is_terminal()
    }
}

/// `count`, or `num` if it is negative.
fn count_or(count: i64, num: i64) -> u64 {
    u64::try_from(count).unwrap_or_else(|_| u64::try_from(num).unwrap_or(0))
}

/// The names that resemble `name`, nearest first, three at most.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut near: Vec<(usize, &str)> = names
        .map(|known| {
            // A part of a name counts like one typing error.
            let distance =
                if known.contains(name) || name.contains(known) { 1 } else { edit_distance(name, known) };
            (distance, known)
        })
        .filter(|&(distance, known)| distance <= 1 + known.len().min(name.len()) / 4)
        .collect();
    near.sort();
    near.truncate(3);
    near.into_iter().map(|(_, known)| known).collect()
}

/// Levenshtein's distance: insertions, deletions and replacements that turn `left` into `right`.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
