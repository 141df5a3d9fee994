//! The sources that a read searched or passed over, and why: the report returned by
//! [`Keyspace::explain_get`], [`Iter::explain`] and [`IndexIter::explain`].
//!
//! A get is the ordinary one with an active observer; ordinary gets are compiled without it. A scan
//! is the ordinary one too; the blocks that it had to read follow from the state of the cache
//! before it.
//!
//! [`Keyspace::explain_get`]: crate::Keyspace::explain_get
//! [`IndexIter::explain`]: crate::IndexIter::explain
use super::iterator::Iter;
use super::keyspace_views::KeyspaceView;
use super::state::State;
use super::super_version::SuperVersion;
use super::{Observer, get_observed};
use crate::keyspace::KeyspaceState;
use crate::read::resolve::has_value;
use crate::runtime::Core;
use sapwood_base::{Result, SequenceNumber, ValueKind};
use sapwood_compaction::RunTable;
use sapwood_sstable::Table;
use sapwood_storage::Env;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
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
    SealedMemtable {
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

/// All sources of a keyspace, not searched yet.
pub(crate) fn sources(view: &SuperVersion, space: &KeyspaceView) -> Vec<ExplainedSource> {
    let memtables = view.generations.iter().enumerate().map(|(number, generation)| {
        let place = if number == 0 { Place::ActiveMemtable } else { Place::SealedMemtable { number } };
        let is_empty = generation.memtable.entries_of(space.state.id) == 0;
        ExplainedSource::new(place, if is_empty { Outcome::Empty } else { Outcome::NotReached })
    });
    let runs = space.version.runs.iter().map(|run| {
        let place = Place::Run { level: run.level, run: run.id, tables: run.tables.len(), file: None };
        ExplainedSource::new(place, Outcome::NotReached)
    });
    memtables.chain(runs).collect()
}

/// Collects the steps of a get.
struct Listener<'e> {
    env: &'e Env,
    sources: Vec<ExplainedSource>,
    memtables: usize,
    sequence: SequenceNumber,
    /// The end of the previous source.
    last: Duration,
}

impl Listener<'_> {
    fn lap(&mut self) -> Option<Duration> {
        let now = self.env.now();
        let lap = now.saturating_sub(self.last);
        self.last = now;
        Some(lap)
    }
}

fn outcome(found: Option<(ValueKind, usize)>) -> Outcome {
    match found {
        None => Outcome::Absent,
        Some((kind, bytes)) if has_value(kind) => Outcome::Value { bytes: bytes as u64 },
        Some(_) => Outcome::Tombstone,
    }
}

impl Observer for Listener<'_> {
    const ACTIVE: bool = true;

    fn begin(&mut self, view: &SuperVersion, keyspace: &KeyspaceView, sequence: SequenceNumber) {
        self.sources = sources(view, keyspace);
        self.memtables = view.generations.len();
        self.sequence = sequence;
        self.last = self.env.now();
    }

    fn memtable(&mut self, number: usize, may_contain: bool, found: Option<(ValueKind, usize)>) {
        let time = self.lap();
        let source = &mut self.sources[number];
        source.time = time;
        match source.outcome {
            Outcome::Empty => {}
            _ if may_contain => source.outcome = outcome(found),
            _ => source.outcome = Outcome::Filter,
        }
    }

    fn table(&mut self, run: usize, table: Option<&Table>, key: &[u8], may_contain: bool) {
        let time = self.lap();
        let source = &mut self.sources[self.memtables + run];
        source.time = time;
        source.outcome = if table.is_none() { Outcome::OutOfRange } else { Outcome::Filter };
        let Some(table) = table else { return };
        if let Place::Run { file, .. } = &mut source.place {
            *file = Some(table.number().0);
        }
        if may_contain && let Some(block) = table.locate(key) {
            source.count(table.block_state(block));
        }
        self.last = self.env.now();
    }

    fn answer(&mut self, run: usize, found: Option<(ValueKind, usize)>) {
        let time = self.lap();
        let source = &mut self.sources[self.memtables + run];
        source.time = Some(source.time.unwrap_or_default() + time.unwrap_or_default());
        source.outcome = outcome(found);
    }
}

pub(crate) fn get(
    core: &Core,
    keyspace: &KeyspaceState,
    key: &[u8],
    at: Option<SequenceNumber>,
) -> Result<Explain> {
    core.check_open()?;
    let env = &core.options.env;
    let guard = crossbeam_epoch::pin();
    let mut listener = Listener {
        env,
        sources: Vec::new(),
        memtables: 0,
        sequence: SequenceNumber(0),
        last: Duration::ZERO,
    };
    let start = env.now();
    let found = get_observed(core, keyspace, key, at, &guard, &mut listener)?;
    let time = env.now().saturating_sub(start);
    Ok(Explain {
        operation: "get",
        keyspace: keyspace.name.clone(),
        index: None,
        target: text(key),
        sequence: listener.sequence.0,
        sources: listener.sources,
        entries: u64::from(found.is_some()),
        bytes: found.map_or(0, |found| found.bytes().len() as u64),
        passed_versions: 0,
        stale_entries: 0,
        rows: None,
        time,
    })
}

impl ExplainedRows {
    /// Reads one more row, in the state of `at`; returns whether it exists.
    pub(crate) fn add(
        &mut self,
        core: &Core,
        keyspace: &KeyspaceState,
        key: &[u8],
        at: SequenceNumber,
    ) -> Result<bool> {
        let explain = get(core, keyspace, key, Some(at))?;
        self.rows += explain.entries;
        self.bytes += explain.bytes;
        self.time += explain.time;
        for source in &explain.sources {
            self.cached_blocks += source.cached_blocks;
            self.read_blocks += source.read_blocks;
            self.read_bytes += source.read_bytes;
        }
        Ok(explain.entries > 0)
    }
}

/// The bounds of a scan.
pub(crate) type Bounds = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// A table of a scan and its cached blocks before the scan.
pub(crate) struct Before {
    source: usize,
    /// Whether it is the one of its run that is positioned first, wherever its keys begin.
    is_entrance: bool,
    run_table: RunTable,
    table: Arc<Table>,
    /// The first block of the range.
    first: usize,
    /// For each block of the range, whether it is in the cache.
    is_cached: Vec<bool>,
}

/// Reads `iter`, which has these bounds and this state.
pub(crate) fn scan(
    core: &Core,
    keyspace: &KeyspaceState,
    (lower, upper): Bounds,
    reversed: bool,
    State { view, sequence, .. }: &State,
    mut iter: Iter,
) -> Result<Explain> {
    let env = &core.options.env;
    let target = format!("{}{}", lower_text(&lower), upper_text(&upper));
    let (mut lower, mut upper) = (key_of(&lower), key_of(&upper));
    let (mut all, mut tables) = match view.keyspace(keyspace.id) {
        Some(space) => tables_before(view, space, lower.as_deref(), upper.as_deref(), reversed)?,
        None => Default::default(),
    };
    let (mut entries, mut bytes, mut reached) = (0, 0, Vec::new());
    let start = env.now();
    let mut at_end = true;
    let limit = iter.remaining();
    for entry in iter.by_ref() {
        let entry = entry?;
        entries += 1;
        bytes += (entry.key().len() + entry.value().map_or(0, |value| value.len())) as u64;
        reached = entry.into_key();
        at_end = entries < limit as u64;
    }
    let time = env.now().saturating_sub(start);
    // A limited scan did not read past its last entry.
    if !at_end {
        *(if reversed { &mut lower } else { &mut upper }) = Some(reached);
    } else if limit == 0 {
        tables.clear();
    }
    count_blocks(tables, lower.as_deref(), upper.as_deref(), &mut all);
    Ok(Explain {
        operation: "scan",
        keyspace: keyspace.name.clone(),
        index: None,
        target,
        sequence: sequence.0,
        sources: all,
        entries,
        bytes,
        passed_versions: iter.passed(),
        stale_entries: 0,
        rows: None,
        time,
    })
}

/// All sources of a keyspace that is about to be scanned, and the tables of the range.
pub(crate) fn tables_before(
    view: &SuperVersion,
    space: &KeyspaceView,
    lower: Option<&[u8]>,
    upper: Option<&[u8]>,
    reversed: bool,
) -> Result<(Vec<ExplainedSource>, Vec<Before>)> {
    let mut all = sources(view, space);
    let mut before = Vec::new();
    for source in &mut all[..view.generations.len()] {
        if source.outcome == Outcome::NotReached {
            source.outcome = Outcome::Merged { tables: 0 };
        }
    }
    for (number, run) in space.version.runs.iter().enumerate() {
        let source = view.generations.len() + number;
        let tables = run.overlapping(lower, upper);
        all[source].outcome = match tables.len() {
            0 => Outcome::OutOfRange,
            tables => Outcome::Merged { tables },
        };
        for (at, run_table) in tables.iter().enumerate() {
            let table = Arc::clone(run_table.handle.table()?);
            let is_entrance = at == if reversed { tables.len() - 1 } else { 0 };
            let blocks = table.blocks_between(lower, upper);
            let first = blocks.start;
            let is_cached = blocks.map(|block| table.block_state(block).0).collect();
            let run_table = run_table.clone();
            before.push(Before { source, is_entrance, run_table, table, first, is_cached });
        }
    }
    Ok((all, before))
}

/// Counts the blocks of these tables that a scan between `lower` and `upper` reached.
pub(crate) fn count_blocks(
    tables: Vec<Before>,
    lower: Option<&[u8]>,
    upper: Option<&[u8]>,
    sources: &mut [ExplainedSource],
) {
    for Before { source, is_entrance, run_table, table, first, is_cached } in tables {
        let is_inside = upper.is_none_or(|upper| run_table.first() <= upper)
            && lower.is_none_or(|lower| run_table.last() >= lower);
        if !is_inside && !is_entrance {
            continue;
        }
        let blocks = table.blocks_between(lower, upper);
        for (was_cached, block) in is_cached.into_iter().zip(first..) {
            if blocks.contains(&block) {
                sources[source].count((was_cached, table.block_state(block).1));
            }
        }
    }
}

fn key_of(bound: &Bound<Vec<u8>>) -> Option<Vec<u8>> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key.clone()),
        Bound::Unbounded => None,
    }
}

pub(crate) fn text(key: &[u8]) -> String {
    format!("\"{}\"", key.escape_ascii())
}

fn lower_text(bound: &Bound<Vec<u8>>) -> String {
    match bound {
        Bound::Included(key) => format!("{}..", text(key)),
        Bound::Excluded(key) => format!("({})..", text(key)),
        Bound::Unbounded => "..".to_string(),
    }
}

fn upper_text(bound: &Bound<Vec<u8>>) -> String {
    match bound {
        Bound::Included(key) => format!("={}", text(key)),
        Bound::Excluded(key) => text(key),
        Bound::Unbounded => String::new(),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::ActiveMemtable => f.write_str("memtable, active"),
            Place::SealedMemtable { number } => write!(f, "memtable, sealed {number}"),
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
