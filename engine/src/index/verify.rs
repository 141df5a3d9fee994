//! Verifies that an index agrees with its rows.
use super::cursor::{Bounds, IndexCursor};
use super::extractor::EmitBuffer;
use super::reference::IndexReference;
use crate::read;
use crate::read::cursor::Cursor;
use crate::read::slice::Slice;
use crate::read::state::State;
use sapwood_base::iterator::KeyRange;
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_sstable::ReadOptions;

/// A report has the keys of this many wrong entries at most.
const EXAMPLES: usize = 16;

/// The result of comparing an index with its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct IndexReport {
    /// Rows that were read.
    pub rows: u64,
    /// Entries of the index.
    pub entries: u64,
    /// Entries that no row has, or with other covering bytes.
    pub surplus: u64,
    /// Entries of rows that the index does not have.
    pub missing: u64,
    /// The keys (escaped index key, a zero byte, primary key) of some of either.
    pub examples: Vec<Vec<u8>>,
}

impl IndexReport {
    /// Whether the index agrees with its rows.
    pub fn is_right(&self) -> bool {
        self.surplus == 0 && self.missing == 0
    }

    fn note(&mut self, key: &[u8]) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(key.to_vec());
        }
    }
}

/// See [`Index::verify`](super::Index::verify).
pub(super) fn verify(index: IndexReference<'_>) -> Result<IndexReport> {
    let mut report = IndexReport::default();
    let core = index.core();
    let _call = core.enter(false)?;
    core.options.env.check_memory(0)?;
    let extractor = index.state.extractor()?;
    let snapshot = core.snapshot();
    let mut emitted = EmitBuffer::default();

    // Every entry is one of its row. Reads stored entries only, without jumps over vacant ranges.
    let State { view, sequence, .. } = index.read_state(Some(&snapshot))?;
    let open = || IndexCursor::open_prepared(view.clone(), index.state.id, sequence, Bounds::default());
    let mut entries = open()?;
    entries.seek_to_first()?;
    while entries.valid() {
        report.entries += 1;
        core.check_open()?;
        let row = {
            let guard = crossbeam_epoch::pin();
            let found = read::get(core, index.keyspace, entries.primary_key(), Some(sequence), &guard)?;
            found.map(|found| Slice::of(&found)).transpose()?
        };
        let is_right = match row {
            Some(row) => {
                emitted.fill(extractor, entries.primary_key(), &row)?;
                emitted.covering_of(entries.composite()) == Some(entries.covering())
            }
            None => false,
        };
        if !is_right {
            report.surplus += 1;
            report.note(entries.composite());
        }
        entries.next()?;
    }

    // If there are as many as the rows have, none is missing: entries differ from each other.
    let (options, owner) = (ReadOptions::default(), index.state.owner());
    let mut rows = Cursor::new(view.clone(), owner, sequence, options, KeyRange::default());
    let mut expected = 0;
    rows.seek_to_first()?;
    while rows.valid() {
        core.check_open()?;
        report.rows += 1;
        emitted.fill(extractor, rows.key(), rows.value())?;
        expected += emitted.len() as u64;
        rows.next()?;
    }
    if expected == report.entries && report.surplus == 0 {
        return Ok(report);
    }
    let mut entries = open()?;
    rows.seek_to_first()?;
    while rows.valid() {
        core.check_open()?;
        emitted.fill(extractor, rows.key(), rows.value())?;
        for (composite, _) in emitted.iter() {
            entries.seek_composite(composite)?;
            if !entries.valid() || entries.composite() != composite {
                report.missing += 1;
                report.note(composite);
            }
        }
        rows.next()?;
    }
    Ok(report)
}

/// The error for an entry whose row does not exist.
#[cold]
pub(super) fn no_row(primary_key: &[u8]) -> Error {
    let message = format!(
        "an entry of an index has no row {:?}; Index::rebuild makes the index anew",
        String::from_utf8_lossy(primary_key)
    );
    Error::new(ErrorKind::Corruption, message)
}
