//! A run as one sorted sequence: its tables in order, opened as they are reached.
use super::{Run, RunTable};
use crate::planted;
use sapwood_base::iterator::{InternalIterator, KeyRange};
use sapwood_base::{Result, SequenceNumber, ValueKind};
use sapwood_sstable::{READ_BYTES, ReadOptions, Table, TableIterator, TableScanner};
use std::sync::Arc;

/// The way to read a run's tables.
pub trait ReadTable {
    /// The iterator over one table.
    type Iterator: InternalIterator;
    /// Creates an iterator over `table`, not positioned.
    fn iterate(&self, table: &Arc<Table>) -> Self::Iterator;
}

/// Reads through the buffer cache, for users.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cached(pub ReadOptions);

impl ReadTable for Cached {
    type Iterator = TableIterator;
    fn iterate(&self, table: &Arc<Table>) -> TableIterator {
        table.iter(self.0)
    }
}

/// The shortest reads of a scan: a few blocks.
const LEAST_READ_BYTES: u64 = 16 << 10;

/// Reads in large pieces and bypasses the cache, for compaction.
#[derive(Clone, Copy, Debug)]
pub struct Uncached {
    /// The length of a read, and of the buffer of each run.
    read_bytes: u64,
}

impl Default for Uncached {
    fn default() -> Uncached {
        Uncached { read_bytes: READ_BYTES }
    }
}

impl Uncached {
    /// For a merge of so many runs, whose buffers take up to `bytes` in all.
    pub fn sharing(bytes: u64, runs: usize) -> Uncached {
        Uncached { read_bytes: (bytes / runs.max(1) as u64).clamp(LEAST_READ_BYTES, READ_BYTES) }
    }
}

impl ReadTable for Uncached {
    type Iterator = TableScanner;
    fn iterate(&self, table: &Arc<Table>) -> TableScanner {
        table.scan_in_reads_of(self.read_bytes)
    }
}

/// The place if there is no current table. A run has fewer tables.
const NOWHERE: u32 = u32::MAX;

/// An iterator over a run.
pub struct RunIterator<R: ReadTable> {
    run: Arc<Run>,
    read: R,
    /// The number of the current table; [`NOWHERE`] if there is none.
    at: u32,
    /// Whether the current table has a lower bound.
    has_lower: bool,
    table: Option<R::Iterator>,
    /// Tables outside this range are not opened, but entries outside it may be returned. Boxed
    /// because few readers have a range and every seek creates its sources: the allocator keeps no
    /// blocks above one KiB at hand.
    range: Option<Box<KeyRange>>,
}

impl<R: ReadTable> RunIterator<R> {
    /// Creates an iterator over `run`, not positioned.
    pub fn new(run: Arc<Run>, read: R) -> RunIterator<R> {
        RunIterator { run, read, at: NOWHERE, table: None, has_lower: false, range: None }
    }

    /// Creates an iterator for a reader that needs no key outside `range`.
    #[inline]
    pub fn within(run: Arc<Run>, read: R, range: &KeyRange) -> RunIterator<R> {
        let is_bounded = range.lower.is_some() || range.upper.is_some();
        let range = is_bounded.then(|| Box::new(range.clone()));
        RunIterator { run, read, at: NOWHERE, table: None, has_lower: false, range }
    }

    /// The number of the current table.
    #[inline]
    fn place(&self) -> usize {
        self.at as usize
    }

    /// Makes table `at` the current one. Returns whether the table exists and overlaps `range`.
    fn open(&mut self, at: usize) -> Result<bool> {
        let is_wanted = |table: &RunTable| match &self.range {
            Some(range) => !range.is_above(table.first()) && !range.is_below(table.last()),
            None => true,
        };
        if !self.run.tables.get(at).is_some_and(is_wanted) {
            self.table = None;
            self.at = NOWHERE;
            return Ok(false);
        }
        if self.place() != at || self.table.is_none() {
            self.table = None;
            let table = self.run.tables[at].handle.table()?;
            self.table = Some(self.read.iterate(table));
            self.at = at as u32;
            self.has_lower = self.run.tables[at].meta.lower.is_some();
        }
        Ok(true)
    }

    fn lower(&self) -> Option<&[u8]> {
        self.run.tables[self.place()].meta.lower.as_deref()
    }

    fn enter_at_first(&mut self, at: usize) -> Result<bool> {
        if !self.open(at)? {
            return Ok(false);
        }
        let table = self.table.as_mut().expect("open");
        match planted::lower_bound(self.run.tables[at].meta.lower.as_deref()) {
            Some(lower) => table.seek(lower)?,
            None => table.seek_to_first()?,
        }
        Ok(true)
    }

    fn forward_to_valid(&mut self) -> Result<()> {
        while let Some(table) = &self.table {
            if table.valid() {
                return Ok(());
            }
            if !self.enter_at_first(self.place() + 1)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn backward_to_valid(&mut self) -> Result<()> {
        while let Some(table) = &self.table {
            if table.valid() && self.lower().is_none_or(|lower| table.key() >= lower) {
                return Ok(());
            }
            if self.at == 0 {
                self.table = None;
                return Ok(());
            }
            if self.open(self.place() - 1)? {
                self.table.as_mut().expect("open").seek_to_last()?;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn inner(&self) -> &R::Iterator {
        self.table.as_ref().expect("the iterator stands on an entry")
    }
}

impl<R: ReadTable> InternalIterator for RunIterator<R> {
    #[inline(always)]
    fn valid(&self) -> bool {
        self.table.as_ref().is_some_and(|table| table.valid())
    }

    fn seek_to_first(&mut self) -> Result<()> {
        if self.enter_at_first(0)? { self.forward_to_valid() } else { Ok(()) }
    }

    fn seek_to_last(&mut self) -> Result<()> {
        let Some(last) = self.run.tables.len().checked_sub(1) else {
            self.table = None;
            return Ok(());
        };
        if self.open(last)? {
            self.table.as_mut().expect("open").seek_to_last()?;
        }
        self.backward_to_valid()
    }

    fn seek(&mut self, target: &[u8]) -> Result<()> {
        let at = self.run.lower_bound(target);
        if !self.open(at)? {
            return Ok(());
        }
        let from = match self.run.tables[at].meta.lower.as_deref() {
            Some(lower) if lower > target => lower,
            _ => target,
        };
        self.table.as_mut().expect("open").seek(from)?;
        self.forward_to_valid()
    }

    fn seek_before(&mut self, target: &[u8]) -> Result<()> {
        let after = self.run.tables.partition_point(|table| table.first() < target);
        let Some(at) = after.checked_sub(1) else {
            self.table = None;
            return Ok(());
        };
        if self.open(at)? {
            self.table.as_mut().expect("open").seek_before(target)?;
        }
        self.backward_to_valid()
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        let table = self.table.as_mut().expect("the iterator stands on an entry");
        table.next()?;
        if table.valid() {
            return Ok(());
        }
        self.forward_to_valid()
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        let table = self.table.as_mut().expect("the iterator stands on an entry");
        table.prev()?;
        if table.valid() && !self.has_lower {
            return Ok(());
        }
        self.backward_to_valid()
    }

    #[inline(always)]
    fn key(&self) -> &[u8] {
        self.inner().key()
    }

    #[inline(always)]
    fn sequence(&self) -> SequenceNumber {
        self.inner().sequence()
    }

    #[inline(always)]
    fn kind(&self) -> ValueKind {
        self.inner().kind()
    }

    #[inline(always)]
    fn value(&self) -> &[u8] {
        self.inner().value()
    }

    #[inline(always)]
    fn may_repeat_after(&self) -> bool {
        self.inner().may_repeat_after()
    }

    #[inline(always)]
    fn may_repeat_before(&self) -> bool {
        self.inner().may_repeat_before()
    }

    fn run_ahead(&self, bound: SequenceNumber, limit: Option<&[u8]>) -> usize {
        self.inner().run_ahead(bound, limit)
    }

    fn run_behind(&self, bound: SequenceNumber, limit: Option<&[u8]>) -> usize {
        // Entries below the bound do not belong to the run.
        if self.has_lower { 0 } else { self.inner().run_behind(bound, limit) }
    }

    #[inline(always)]
    fn next_in_run(&mut self) {
        if let Some(table) = &mut self.table {
            table.next_in_run();
        }
    }

    #[inline(always)]
    fn prev_in_run(&mut self) {
        if let Some(table) = &mut self.table {
            table.prev_in_run();
        }
    }
}
