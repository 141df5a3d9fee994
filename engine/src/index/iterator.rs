//! Entries of an index as a Rust iterator.
use super::cursor::{Bounds, IndexCursor};
use super::reference::IndexReference;
use super::state::IndexState;
use crate::keyspace::KeyspaceState;
use crate::read::slice::Slice;
use crate::read::snapshot::Snapshot;
use crate::read::state::ReadState;
use crate::read::{Nobody, get_in_view};
use sapwood_base::ordered::composite::{Composite, put_unescaped};
use sapwood_base::{Error, Lookup, Result, memory};
use std::sync::Arc;

/// One entry of an index, and the way to its row.
///
/// Keeps memtables and tables of the state that it was read from until it is dropped; it does not
/// keep the database open (see [`Db`](crate::Db)).
pub struct Hit {
    keyspace: Arc<KeyspaceState>,
    state: ReadState,
    /// Index key, primary key and covering bytes, one after the other.
    bytes: Vec<u8>,
    index_key_end: u32,
    primary_key_end: u32,
}

impl Hit {
    pub(super) fn new(
        keyspace: &Arc<KeyspaceState>,
        state: &ReadState,
        composite: &[u8],
        covering: &[u8],
    ) -> Result<Hit> {
        let Composite { escaped_index_key, primary_key } = Composite::split(composite)?;
        let mut bytes = Vec::new();
        memory::reserve(&mut bytes, composite.len() + covering.len())?;
        put_unescaped(&mut bytes, escaped_index_key)?;
        let index_key_end = bytes.len() as u32;
        bytes.extend_from_slice(primary_key);
        let primary_key_end = bytes.len() as u32;
        bytes.extend_from_slice(covering);
        let (keyspace, state) = (keyspace.clone(), state.clone());
        Ok(Hit { keyspace, state, bytes, index_key_end, primary_key_end })
    }

    /// The index key.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// let hit = by_name.iter().next().expect("three entries")?;
    /// assert_eq!(hit.index_key(), b"Ann");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn index_key(&self) -> &[u8] {
        &self.bytes[..self.index_key_end as usize]
    }

    /// The key of the row.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// let hit = by_name.get("Ann").next().expect("she is there")?;
    /// assert_eq!(hit.primary_key(), b"u1");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn primary_key(&self) -> &[u8] {
        &self.bytes[self.index_key_end as usize..self.primary_key_end as usize]
    }

    /// The bytes that the extractor stored with the index key.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// use sapwood::IndexOptions;
    ///
    /// let lengths = users.create_index("lengths", IndexOptions::new(|_key, value, emit| emit.entry([value.len() as u8], value)))?;
    /// let hit = lengths.get([3]).next().expect("Ann")?;
    /// assert_eq!(hit.covering(), b"Ann");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn covering(&self) -> &[u8] {
        &self.bytes[self.primary_key_end as usize..]
    }

    /// The value of the row, in the state that the entry was read from.
    ///
    /// Errors: `Corruption` if a block that it needs is damaged, or if there is no such row.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// let hit = by_name.get("Bo").next().expect("he is there")?;
    /// assert_eq!(hit.record()?, "Bo");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn record(&self) -> Result<Slice> {
        let ReadState { view, sequence, .. } = &self.state;
        let guard = crossbeam_epoch::pin();
        let lookup = Lookup::new(self.primary_key(), *sequence);
        let found = get_in_view(view, &self.keyspace, lookup, &guard, &mut Nobody)?;
        match found {
            Some(found) => Slice::of(&found),
            None => Err(super::verify::no_row(self.primary_key())),
        }
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

/// Entries of an index, in the order of index keys, and of primary keys among those of one index
/// key.
///
/// It sees the state at its creation, or the snapshot's; later writes do not change it. Set it up
/// with [`IndexIter::at`], [`IndexIter::rev`], [`IndexIter::limit`] before the first item, which
/// can be taken from either end. Owns all
/// it needs, and so keeps memtables, tables and tree of that state until it is dropped; it does not
/// keep the database open (see [`Db`](crate::Db)). After an error it ends.
pub struct IndexIter {
    pub(super) keyspace: Arc<KeyspaceState>,
    pub(super) index: Arc<IndexState>,
    /// The state to read, or the error that prevents it.
    pub(super) state: Result<ReadState>,
    pub(super) bounds: Bounds,
    pub(super) limit: usize,
    pub(super) reversed: bool,
    /// The end that goes from the first entry to the last, once it has begun.
    front: Option<IndexCursor>,
    /// The other end.
    back: Option<IndexCursor>,
}

impl IndexIter {
    pub(super) fn new(index: IndexReference<'_>, bounds: Bounds) -> IndexIter {
        IndexIter {
            keyspace: index.keyspace.clone(),
            index: index.state.clone(),
            state: index.read_state(None),
            bounds,
            limit: usize::MAX,
            reversed: false,
            front: None,
            back: None,
        }
    }

    /// Reads the state that `snapshot` sees.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// let before = db.snapshot();
    /// users.delete("u1")?;
    /// assert_eq!(by_name.iter().at(&before).count(), 3);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn at(mut self, snapshot: &Snapshot) -> IndexIter {
        // The view of the creation may be older than the snapshot; and the index may not have been
        // complete yet.
        self.state = match &self.state {
            Ok(state) => state.database().and_then(|db| {
                let index = IndexReference { db: &db, keyspace: &self.keyspace, state: &self.index };
                index.read_state(Some(snapshot))
            }),
            Err(error) => Err(error.duplicate()),
        };
        self
    }

    /// Ends after `count` items.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.iter().limit(2).count(), 2);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn limit(mut self, count: usize) -> IndexIter {
        self.limit = count;
        self
    }

    /// From the last entry to the first. (In place of [`Iterator::rev`], so that the other settings
    /// can follow.)
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// let last = by_name.iter().rev().next().expect("three entries")?;
    /// assert_eq!(last.index_key(), b"Cy");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn rev(mut self) -> IndexIter {
        self.reversed = !self.reversed;
        self
    }

    /// Moves one end on: `backward`, the one that goes from the last entry to the first.
    fn advance(&mut self, backward: bool) -> Result<Option<Hit>> {
        let state = self.state.as_ref().map_err(Error::duplicate)?;
        let (front, back) = (&mut self.front, &mut self.back);
        let (end, other) = if backward { (back, front) } else { (front, back) };
        match end {
            Some(cursor) if backward => cursor.prev()?,
            Some(cursor) => cursor.next()?,
            None => {
                let ReadState { view, sequence, covered, .. } = state.clone();
                let bounds = self.bounds.clone();
                let cursor = IndexCursor::open_prepared(view, self.index.id, sequence, bounds)?;
                let cursor = end.insert(cursor.jumping(covered));
                if backward {
                    cursor.seek_to_last()?;
                } else {
                    cursor.seek_to_first()?;
                }
            }
        }
        let Some(cursor) = end.as_ref().filter(|cursor| cursor.valid()) else { return Ok(None) };
        // Each cursor stays at the last entry that it returned. The ends have met if this one
        // reaches that of the other.
        let has_met = other.as_ref().is_some_and(|other| {
            let (front, back) = if backward { (other, cursor) } else { (cursor, other) };
            front.composite() >= back.composite()
        });
        if has_met {
            return Ok(None);
        }
        Hit::new(&self.keyspace, state, cursor.composite(), cursor.covering()).map(Some)
    }

    fn item(&mut self, backward: bool) -> Option<Result<Hit>> {
        if self.limit == 0 {
            return None;
        }
        self.limit -= 1;
        let item = self.advance(backward);
        if !matches!(item, Ok(Some(_))) {
            self.limit = 0;
            (self.front, self.back) = (None, None);
        }
        item.transpose()
    }
}

impl Iterator for IndexIter {
    type Item = Result<Hit>;

    fn next(&mut self) -> Option<Result<Hit>> {
        self.item(self.reversed)
    }
}

/// From both ends: each entry comes once.
impl DoubleEndedIterator for IndexIter {
    fn next_back(&mut self) -> Option<Result<Hit>> {
        self.item(!self.reversed)
    }
}

impl std::iter::FusedIterator for IndexIter {}

impl std::fmt::Debug for IndexIter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexIter")
            .field("index", &self.index.definition.name)
            .field("keyspace", &self.keyspace.name)
            .field("reversed", &self.reversed)
            .field("limit", &self.limit)
            .field("sequence", &self.state.as_ref().map(|state| state.sequence.0))
            .finish_non_exhaustive()
    }
}
