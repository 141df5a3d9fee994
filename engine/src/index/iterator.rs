//! Entries of an index as a Rust iterator.
use super::Index;
use super::cursor::{Bounds, IndexCursor};
use super::explain;
use crate::keyspace::Keyspace;
use crate::read::explain::Explain;
use crate::read::slice::Slice;
use crate::read::snapshot::Snapshot;
use sapwood_base::Result;
use sapwood_base::ordered::composite::{Composite, put_unescaped};

/// One entry of an index, and the way to its row.
pub struct Hit {
    keyspace: Keyspace,
    snapshot: Snapshot,
    /// Index key, primary key and covering bytes, one after the other.
    bytes: Vec<u8>,
    index_key_end: u32,
    primary_key_end: u32,
}

impl Hit {
    pub(super) fn new(
        keyspace: &Keyspace,
        snapshot: &Snapshot,
        composite: &[u8],
        covering: &[u8],
    ) -> Result<Hit> {
        let Composite { escaped_index_key, primary_key } = Composite::split(composite)?;
        let mut bytes = Vec::with_capacity(composite.len() + covering.len());
        put_unescaped(&mut bytes, escaped_index_key)?;
        let index_key_end = bytes.len() as u32;
        bytes.extend_from_slice(primary_key);
        let primary_key_end = bytes.len() as u32;
        bytes.extend_from_slice(covering);
        let (keyspace, snapshot) = (keyspace.clone(), snapshot.clone());
        Ok(Hit { keyspace, snapshot, bytes, index_key_end, primary_key_end })
    }

    /// The index key.
    pub fn index_key(&self) -> &[u8] {
        &self.bytes[..self.index_key_end as usize]
    }

    /// The key of the row.
    pub fn primary_key(&self) -> &[u8] {
        &self.bytes[self.index_key_end as usize..self.primary_key_end as usize]
    }

    /// What the extractor stored beside the index key.
    pub fn covering(&self) -> &[u8] {
        &self.bytes[self.primary_key_end as usize..]
    }

    /// The value of the row, in the state that the entry was read from.
    ///
    /// Errors: `Corruption` if a block that it needs is damaged, or if there is no such row.
    pub fn record(&self) -> Result<Slice> {
        let found = self.keyspace.get_at(self.primary_key(), &self.snapshot)?;
        found.ok_or_else(|| super::verify::no_row(self.primary_key()))
    }
}

impl std::fmt::Debug for Hit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hit")
            .field("index_key", &self.index_key())
            .field("primary_key", &self.primary_key())
            .field("covering", &self.covering())
            .finish()
    }
}

/// Entries of an index, in the order of index keys, and of primary keys among those of one index key.
///
/// Set it up with [`IndexIter::at`], [`IndexIter::rev`], [`IndexIter::limit`] before the first item. Owns all it needs;
/// after an error it ends. It opens what it reads at the first item, and sees the state of that moment or the snapshot's.
pub struct IndexIter {
    index: Index,
    bounds: Option<Bounds>,
    snapshot: Option<Snapshot>,
    limit: usize,
    reversed: bool,
    cursor: Option<IndexCursor>,
}

impl IndexIter {
    pub(super) fn new(index: Index, bounds: Bounds) -> IndexIter {
        IndexIter {
            index,
            bounds: Some(bounds),
            snapshot: None,
            limit: usize::MAX,
            reversed: false,
            cursor: None,
        }
    }

    /// Reads the state that `snapshot` sees.
    pub fn at(mut self, snapshot: &Snapshot) -> IndexIter {
        self.snapshot = Some(snapshot.clone());
        self
    }

    /// Ends after `count` items.
    pub fn limit(mut self, count: usize) -> IndexIter {
        self.limit = count;
        self
    }

    /// From the last entry to the first. (In place of [`Iterator::rev`], so that the other settings can follow.)
    pub fn rev(mut self) -> IndexIter {
        self.reversed = !self.reversed;
        self
    }

    /// Reads the entries to their end, or to the limit, and tells what was looked at.
    ///
    /// Errors: the first one that the iterator meets.
    pub fn explain(self) -> Result<Explain> {
        self.explain_it(false)
    }

    /// [`IndexIter::explain`], with the row of each entry.
    pub fn explain_with_rows(self) -> Result<Explain> {
        self.explain_it(true)
    }

    fn explain_it(self, with_rows: bool) -> Result<Explain> {
        let snapshot = self.snapshot.unwrap_or_else(|| self.index.core().snapshot());
        let bounds = self.bounds.unwrap_or_default();
        explain::explain(&self.index, &snapshot, bounds, self.limit, self.reversed, with_rows)
    }

    fn advance(&mut self) -> Result<Option<Hit>> {
        let snapshot = self.snapshot.get_or_insert_with(|| self.index.core().snapshot());
        match (&mut self.cursor, self.bounds.take()) {
            (Some(cursor), _) if self.reversed => cursor.prev()?,
            (Some(cursor), _) => cursor.next()?,
            (None, Some(bounds)) => {
                let mut cursor = self.index.open(Some(snapshot), bounds)?;
                if self.reversed {
                    cursor.seek_to_last()?;
                } else {
                    cursor.seek_to_first()?;
                }
                self.cursor = Some(cursor);
            }
            (None, None) => return Ok(None),
        }
        let Some(cursor) = self.cursor.as_ref().filter(|cursor| cursor.valid()) else {
            self.cursor = None;
            return Ok(None);
        };
        Hit::new(&self.index.keyspace, snapshot, cursor.composite(), cursor.covering()).map(Some)
    }
}

impl Iterator for IndexIter {
    type Item = Result<Hit>;

    fn next(&mut self) -> Option<Result<Hit>> {
        if self.limit == 0 {
            return None;
        }
        self.limit -= 1;
        let item = self.advance();
        if !matches!(item, Ok(Some(_))) {
            self.limit = 0;
            self.cursor = None;
        }
        item.transpose()
    }
}

impl std::iter::FusedIterator for IndexIter {}
