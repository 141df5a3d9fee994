//! The report: its parts, and how it is printed.
use std::fmt;
use std::time::Duration;

/// The report of one read. `Display` prints it as a table; with the feature `serde` it can be
/// serialized.
///
/// Figures are those of this one execution: the blocks that it read are in the cache for the next
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Explain {
    /// The operation: `get`, `scan`, `index scan`.
    pub operation: &'static str,
    /// The keyspace.
    pub keyspace: String,
    /// The index, for a query of one. Then the results are its entries, and the target is a range
    /// of stored entries: escaped index key, end, primary key.
    pub index: Option<String>,
    /// The key or the range, with bytes that are no text escaped.
    pub target: String,
    /// The sequence number that it was read at.
    pub sequence: u64,
    /// All sources of the read, in the order of the search.
    pub sources: Vec<ExplainedSource>,
    /// Number of entries returned.
    pub entries: u64,
    /// Total bytes of their keys and values; of a get, the value.
    pub bytes: u64,
    /// Versions that a scan passed over: deletions, versions that they hide, those older than the
    /// newest version that it sees, and those newer than the state that it reads. A scan does not
    /// pass over any past the end of its range.
    pub passed_versions: u64,
    /// Entries of an index that were passed over because their rows have changed since.
    pub stale_entries: u64,
    /// The rows of the entries, if the query read them.
    pub rows: Option<ExplainedRows>,
    /// Time of the whole.
    pub time: Duration,
}

/// The rows that the entries of an index led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ExplainedRows {
    /// Number of rows.
    pub rows: u64,
    /// Total bytes of their values.
    pub bytes: u64,
    /// How often a block that they needed was in the cache.
    pub cached_blocks: u64,
    /// How often one was read from the file.
    pub read_blocks: u64,
    /// The bytes of those that were read from the file.
    pub read_bytes: u64,
    /// Time to read the rows, a part of the time of the whole.
    pub time: Duration,
}

/// One source of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ExplainedSource {
    /// Which one it is.
    pub place: Place,
    /// The result of the search.
    pub outcome: Outcome,
    /// Blocks or pages that were in the cache.
    pub cached_blocks: u64,
    /// Blocks or pages that were read from the file.
    pub read_blocks: u64,
    /// The bytes of those that were read from the file.
    pub read_bytes: u64,
    /// Time of the search; `None` where sources are read together.
    pub time: Option<Duration>,
}

/// Where entries are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Place {
    /// The memtable that takes writes.
    ActiveMemtable,
    /// A memtable that waits to be flushed; the newest has the number 1.
    ImmutableMemtable {
        /// Its number.
        number: usize,
    },
    /// A run of tables.
    Run {
        /// Its level; 0 is the newest.
        level: u8,
        /// Its number in the level; larger is newer.
        run: u64,
        /// Number of its tables.
        tables: usize,
        /// The file of the one table that was searched, if any.
        file: Option<u64>,
    },
    /// The tree of an index.
    Tree {
        /// Its file.
        file: u64,
        /// Number of its levels, the leaves included.
        height: u8,
        /// Number of its entries.
        entries: u64,
    },
}

/// The result of searching a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub enum Outcome {
    /// Not searched: a newer source had the result.
    NotReached,
    /// Passed over: it holds nothing of the keyspace.
    Empty,
    /// Passed over: no table of it has keys in this range.
    OutOfRange,
    /// Passed over: its filter excludes the key.
    Filter,
    /// Searched; it has no visible version of the key.
    Absent,
    /// Searched; it has the result: a value of so many bytes.
    Value {
        /// Its length.
        bytes: u64,
    },
    /// Searched; it has the result: the key was deleted.
    Tombstone,
    /// Read as one of several: tables that overlap the range.
    Merged {
        /// How many of them.
        tables: usize,
    },
}

impl ExplainedSource {
    pub(crate) fn new(place: Place, outcome: Outcome) -> ExplainedSource {
        ExplainedSource { place, outcome, cached_blocks: 0, read_blocks: 0, read_bytes: 0, time: None }
    }

    pub(crate) fn count(&mut self, (is_cached, bytes): (bool, u64)) {
        if is_cached {
            self.cached_blocks += 1;
        } else {
            self.read_blocks += 1;
            self.read_bytes += bytes;
        }
    }
}

pub(crate) fn text(key: &[u8]) -> String {
    format!("\"{}\"", key.escape_ascii())
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::ActiveMemtable => f.write_str("memtable, active"),
            Place::ImmutableMemtable { number } => write!(f, "memtable, immutable {number}"),
            Place::Run { level, run, tables, file } => {
                write!(f, "level {level}, run {run}")?;
                match file {
                    Some(file) => write!(f, ", {file:06}.sst"),
                    None if *tables == 1 => f.write_str(", 1 table"),
                    None => write!(f, ", {tables} tables"),
                }
            }
            Place::Tree { file, height, .. } => {
                write!(f, "tree, {file:06}.tree, {height} level{}", if *height == 1 { "" } else { "s" })
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::NotReached => f.write_str("not reached"),
            Outcome::Empty => f.write_str("skipped: empty"),
            Outcome::OutOfRange => f.write_str("skipped: key range"),
            Outcome::Filter => f.write_str("skipped: filter"),
            Outcome::Absent => f.write_str("absent"),
            Outcome::Value { bytes } => write!(f, "value of {bytes} bytes"),
            Outcome::Tombstone => f.write_str("tombstone"),
            Outcome::Merged { tables: 0 } => f.write_str("merged"),
            Outcome::Merged { tables: 1 } => f.write_str("merged, 1 table"),
            Outcome::Merged { tables } => write!(f, "merged, {tables} tables"),
        }
    }
}

/// A line for the operation, then a table with a line for each source.
impl fmt::Display for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explain { operation, keyspace, target, sequence, entries, bytes, .. } = self;
        write!(f, "{operation} {target} in ")?;
        if let Some(index) = &self.index {
            write!(f, "index {index:?} of ")?;
        }
        writeln!(f, "keyspace {keyspace:?} at sequence number {sequence}")?;
        let blank = |number: u64| if number == 0 { String::new() } else { number.to_string() };
        let header = ["source", "outcome", "cached", "read", "bytes read", "us"].map(String::from);
        let rows = self.sources.iter().map(|source| {
            [
                source.place.to_string(),
                source.outcome.to_string(),
                blank(source.cached_blocks),
                blank(source.read_blocks),
                blank(source.read_bytes),
                source.time.map_or(String::new(), micros),
            ]
        });
        let rows: Vec<[String; 6]> = std::iter::once(header).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        for row in &rows {
            write!(f, "  {:<1$}  {2:<3$}", row[0], widths[0], row[1], widths[1])?;
            for column in 2..6 {
                write!(f, "  {:>1$}", row[column], widths[column])?;
            }
            writeln!(f)?;
        }
        if let Some(rows) = &self.rows {
            let ExplainedRows { rows, bytes, cached_blocks, read_blocks, read_bytes, time } = rows;
            write!(f, "{rows} rows, {bytes} bytes: {cached_blocks} blocks cached, {read_blocks} read, ")?;
            writeln!(f, "{read_bytes} bytes read, {} us", micros(*time))?;
        }
        write!(f, "{entries} entries, {bytes} bytes, ")?;
        if self.passed_versions > 0 {
            write!(f, "{} versions passed over, ", self.passed_versions)?;
        }
        if self.index.is_some() {
            write!(f, "{} stale ones passed over, ", self.stale_entries)?;
        }
        write!(f, "{} us", micros(self.time))
    }
}

fn micros(time: Duration) -> String {
    format!("{:.2}", time.as_nanos() as f64 / 1000.0)
}
