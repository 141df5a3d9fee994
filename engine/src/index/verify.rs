//! Verifies that an index agrees with its rows.
use super::cursor::{Bounds, IndexCursor};
use super::extractor::{EmitBuffer, Extractor};
use super::reference::IndexReference;
use crate::read;
use crate::read::cursor::Cursor;
use crate::read::slice::Slice;
use crate::read::state::ReadState;
use crate::read::view::View;
use sapwood_base::iterator::KeyRange;
use sapwood_base::{Error, ErrorKind, Result, SequenceNumber};
use sapwood_sstable::ReadOptions;
use std::sync::Arc;

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
    let core = index.core();
    let _call = core.enter(false)?;
    core.options.env.check_memory(0)?;
    let extractor = index.state.extractor()?;
    let snapshot = core.snapshot();
    let ReadState { view, sequence, .. } = index.read_state(Some(&snapshot))?;
    let mut check = Check { index, extractor, view, sequence, report: IndexReport::default() };
    check.entries()?;
    // If there are as many as the rows have, none is missing: entries differ from each other.
    if check.rows()? != check.report.entries || check.report.surplus > 0 {
        check.missing()?;
    }
    Ok(check.report)
}

/// A comparison in one state.
struct Check<'a> {
    index: IndexReference<'a>,
    extractor: &'a dyn Extractor,
    view: Arc<View>,
    sequence: SequenceNumber,
    report: IndexReport,
}

impl Check<'_> {
    /// The stored entries, without jumps over vacant ranges.
    fn open_entries(&self) -> Result<IndexCursor> {
        let (view, id) = (self.view.clone(), self.index.state.id);
        IndexCursor::open_prepared(view, id, self.sequence, Bounds::default())
    }

    /// Counts the entries, and those that their rows do not have.
    fn entries(&mut self) -> Result<()> {
        let mut emitted = EmitBuffer::default();
        let mut entries = self.open_entries()?;
        entries.seek_to_first()?;
        while entries.valid() {
            self.index.core().check_open()?;
            self.report.entries += 1;
            if !self.is_of_its_row(&entries, &mut emitted)? {
                self.report.surplus += 1;
                self.report.note(entries.composite());
            }
            entries.next()?;
        }
        Ok(())
    }

    /// Whether the row of an entry has that entry.
    fn is_of_its_row(&self, entry: &IndexCursor, emitted: &mut EmitBuffer) -> Result<bool> {
        let IndexReference { keyspace, .. } = self.index;
        let row = {
            let guard = crossbeam_epoch::pin();
            let core = self.index.core();
            let found = read::get(core, keyspace, entry.primary_key(), Some(self.sequence), &guard)?;
            found.map(|found| Slice::of(&found)).transpose()?
        };
        let Some(row) = row else { return Ok(false) };
        emitted.fill(self.extractor, entry.primary_key(), &row)?;
        Ok(emitted.covering_of(entry.composite()) == Some(entry.covering()))
    }

    /// Counts the rows; returns the number of their entries.
    fn rows(&mut self) -> Result<u64> {
        let (mut rows, mut entries) = (0, 0);
        self.for_each_row(|emitted| {
            rows += 1;
            entries += emitted.len() as u64;
            Ok(())
        })?;
        self.report.rows = rows;
        Ok(entries)
    }

    /// Counts the entries of rows that the index does not have.
    fn missing(&mut self) -> Result<()> {
        let mut report = std::mem::take(&mut self.report);
        let mut entries = self.open_entries()?;
        self.for_each_row(|emitted| {
            for (composite, _) in emitted.iter() {
                entries.seek_composite(composite)?;
                if !entries.valid() || entries.composite() != composite {
                    report.missing += 1;
                    report.note(composite);
                }
            }
            Ok(())
        })?;
        self.report = report;
        Ok(())
    }

    /// Calls `with` with the entries of each row.
    fn for_each_row(&self, mut with: impl FnMut(&EmitBuffer) -> Result<()>) -> Result<()> {
        let mut emitted = EmitBuffer::default();
        let (view, owner) = (self.view.clone(), self.index.state.owner());
        let mut rows = Cursor::new(view, owner, self.sequence, ReadOptions::default(), KeyRange::default());
        rows.seek_to_first()?;
        while rows.valid() {
            self.index.core().check_open()?;
            emitted.fill(self.extractor, rows.key(), rows.value())?;
            with(&emitted)?;
            rows.next()?;
        }
        Ok(())
    }
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
