//! Secondary indexes: B+ trees that the engine keeps beside the rows of a keyspace.
//!
//! An index is a set of entries (index key, primary key) with covering bytes, which an extractor
//! emits for each row. It is as atomic and as durable as the rows: entries are operations of the
//! same log record.
//!
//! The life of an entry:
//! 1. `maintenance`: a put extracts entries and commits them with the row, into the same memtable.
//! 2. `cleanup`: the flush adds deletions for entries that later versions of their rows have made
//!    stale, and writes a delta run.
//! 3. `apply`: delta runs go into the tree.
//!
//! `build` builds the tree of an index on existing rows. Queries merge all three places (`cursor`).
//!
//! ```
//! use sapwood::{Db, Emit, IndexOptions, Result};
//!
//! # fn main() -> Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let db = Db::open(folder.path().join("data"))?;
//! let users = db.default_keyspace();
//! let city = |_key: &[u8], value: &[u8], emit: &mut Emit<'_>| {
//!     if let Some(city) = value.split(|byte| *byte == b',').nth(1) {
//!         emit.key(city);
//!     }
//! };
//! let by_city = users.create_index("by_city", IndexOptions::new(city))?;
//! users.put("u1", "Ann,Oslo")?;
//! users.put("u2", "Bo,Rome")?;
//! users.put("u1", "Ann,Lima")?;
//!
//! let hit = by_city.get("Lima").next().expect("Ann lives there")?;
//! assert_eq!((hit.primary_key(), &*hit.record()?), (&b"u1"[..], &b"Ann,Lima"[..]));
//! assert_eq!(by_city.count("A".."P")?, 1);
//! # Ok(())
//! # }
//! ```
pub mod extractor;
pub mod options;
pub(crate) mod state;
pub(crate) mod epoch;
pub(crate) mod maintenance;
pub(crate) mod cleanup;
pub(crate) mod apply;
pub(crate) mod build;
pub mod cursor;
pub mod iterator;
mod reference;
mod count;
mod explain;
mod lookup;
pub mod verify;

use crate::key_range::KeyRange;
use crate::keyspace::Keyspace;
use crate::read::snapshot::Snapshot;
use crate::read::state::ReadState;
use crate::runtime::Core;
use cursor::{Bounds, IndexCursor};
use iterator::{Hit, IndexIter};
use reference::IndexReference;
use sapwood_base::Result;
use sapwood_base::format::index_definition::IndexDefinition;
use state::IndexState;
use std::fmt;
use std::ops::RangeBounds;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use verify::IndexReport;

/// A handle of a secondary index. Cheap to clone, usable from any thread; keeps the database open
/// (see [`Db`](crate::Db)).
///
/// A handle is bound to one build of an index: after [`Keyspace::drop_index`] or a rebuild of the
/// index, its calls return errors of kind [`Closed`](crate::ErrorKind::Closed).
#[derive(Clone)]
pub struct Index {
    keyspace: Keyspace,
    state: Arc<IndexState>,
}

/// The progress of the build of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct BuildProgress {
    /// Rows that were read.
    pub rows: u64,
    /// An estimate of their number: versions in tables and memtables, so the build may end below
    /// this.
    pub rows_expected: u64,
    /// Entries that the rows had.
    pub entries: u64,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index")
            .field("name", &self.name())
            .field("keyspace", &self.keyspace.name())
            .field("is_attached", &self.is_attached())
            .finish_non_exhaustive()
    }
}

/// All entries, as [`Index::iter`].
impl IntoIterator for &Index {
    type Item = Result<Hit>;
    type IntoIter = IndexIter;

    fn into_iter(self) -> IndexIter {
        self.iter()
    }
}

impl Index {
    pub(crate) fn new(keyspace: Keyspace, state: Arc<IndexState>) -> Index {
        Index { keyspace, state }
    }

    /// The name.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.name(), "by_name");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.state.definition.name
    }

    /// The keyspace of its rows.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.keyspace().name(), "default");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn keyspace(&self) -> &Keyspace {
        &self.keyspace
    }

    /// The definition of the index.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert!(!by_name.definition().unique);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn definition(&self) -> &IndexDefinition {
        &self.state.definition
    }

    /// Whether it has its extractor, without which writes to the keyspace are refused.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert!(by_name.is_attached());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn is_attached(&self) -> bool {
        self.state.attached().is_some()
    }

    #[inline]
    fn reference(&self) -> IndexReference<'_> {
        let Index { keyspace, state } = self;
        IndexReference { db: keyspace.database(), keyspace: keyspace.state(), state }
    }

    #[inline]
    pub(crate) fn core(&self) -> &Core {
        self.keyspace.core()
    }

    /// The entries with this index key, in the order of primary keys.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// for hit in by_name.get("Bo") {
    ///     let hit = hit?;
    ///     assert_eq!((hit.primary_key(), &*hit.record()?), (&b"u2"[..], &b"Bo"[..]));
    /// }
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn get(&self, index_key: impl AsRef<[u8]>) -> IndexIter {
        IndexIter::new(self.reference(), Bounds::of_key(index_key.as_ref()))
    }

    /// Calls `with` with primary key and value of each row that has this index key, in the order of
    /// primary keys, and returns their number. All of them are of one state, the latest. Nothing is
    /// copied, so this is the fastest way to the rows of an index key. Keep `with` short: it pins
    /// the epoch and delays reclamation of memory.
    ///
    /// Errors: those of [`Index::get`] and of [`Hit::record`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// let mut found = Vec::new();
    /// let rows = by_name.get_with("Bo", |key, value| found.push((key.to_vec(), value.len())))?;
    /// assert_eq!((rows, found), (1, vec![(b"u2".to_vec(), 2)]));
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn get_with(&self, index_key: impl AsRef<[u8]>, with: impl FnMut(&[u8], &[u8])) -> Result<u64> {
        lookup::rows(self.reference(), index_key.as_ref(), with)
    }

    /// The entries whose index keys lie in `range`.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.range("B"..).count(), 2);
    /// assert_eq!(by_name.range(..).rev().limit(1).count(), 1);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn range<K>(&self, range: impl KeyRange<K>) -> IndexIter {
        let (lower, upper) = range.bounds();
        IndexIter::new(self.reference(), Bounds::of_keys(lower, upper))
    }

    /// The entries whose index keys start with `prefix`.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.prefix("A").count(), 1);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> IndexIter {
        IndexIter::new(self.reference(), Bounds::of_prefix(prefix.as_ref()))
    }

    /// All entries.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.iter().count(), 3);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn iter(&self) -> IndexIter {
        IndexIter::new(self.reference(), Bounds::default())
    }

    /// A cursor over the entries whose index keys lie in `range`, in their latest state; not
    /// positioned. It lends the current entry without a copy, so it is the fastest way to read an
    /// index alone.
    ///
    /// Errors: [`IndexUnavailable`](crate::ErrorKind::IndexUnavailable) while the index is not
    /// complete. The same holds for every query.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// let mut cursor = by_name.cursor("B"..)?;
    /// cursor.seek_to_first()?;
    /// assert_eq!(cursor.primary_key(), b"u2");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn cursor<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<IndexCursor> {
        self.open(None, Bounds::of_range(range))
    }

    /// The same on the state that `snapshot` sees.
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
    /// users.delete("u2")?;
    /// let mut cursor = by_name.cursor_at("B".., &before)?;
    /// cursor.seek_to_first()?;
    /// assert_eq!(cursor.primary_key(), b"u2");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn cursor_at<K: AsRef<[u8]>>(
        &self,
        range: impl RangeBounds<K>,
        snapshot: &Snapshot,
    ) -> Result<IndexCursor> {
        self.open(Some(snapshot), Bounds::of_range(range))
    }

    fn open(&self, snapshot: Option<&Snapshot>, bounds: Bounds) -> Result<IndexCursor> {
        let ReadState { view, sequence, covered, .. } = self.reference().read_state(snapshot)?;
        Ok(IndexCursor::open_prepared(view, self.state.id, sequence, bounds)?.jumping(covered))
    }

    /// Number of entries with index keys in `range`, in the latest state.
    ///
    /// Costs a path in the tree for each bound, and a check of each entry in the range that is not
    /// applied to the tree yet. If the index is deferred and its keyspace has rows in memtables,
    /// the entries of the range are read instead.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.count("B"..)?, 2);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn count<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        self.count_bounds(Bounds::of_range(range), None)
    }

    /// Number of entries. Costs as much as [`Index::count`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.count_all()?, 3);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "len")]
    pub fn count_all(&self) -> Result<u64> {
        self.count_bounds(Bounds::default(), None)
    }

    /// [`Index::count`] in the state that `snapshot` sees.
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
    /// users.delete("u2")?;
    /// assert_eq!(by_name.count_at("B".., &before)?, 2);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn count_at<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>, snapshot: &Snapshot) -> Result<u64> {
        self.count_bounds(Bounds::of_range(range), Some(snapshot))
    }

    /// Number of entries with index keys that start with `prefix`. Costs as much as
    /// [`Index::count`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.count_prefix("A")?, 1);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn count_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<u64> {
        self.count_bounds(Bounds::of_prefix(prefix.as_ref()), None)
    }

    /// Number of entries with index keys below `index_key`. Costs as much as [`Index::count`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.rank("Bo")?, 1);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn rank(&self, index_key: impl AsRef<[u8]>) -> Result<u64> {
        self.count(..index_key.as_ref())
    }

    /// The entry that has `n` entries before it, in the order of index keys. Costs as much as
    /// [`Index::count`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.nth(2)?.expect("three entries").primary_key(), b"u3");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn nth(&self, n: u64) -> Result<Option<Hit>> {
        let index = self.reference();
        let state = index.read_state(None)?;
        let found = count::nth(index, &state, n)?;
        found.map(|(key, covering)| Hit::new(self.keyspace.state(), &state, &key, &covering)).transpose()
    }

    fn count_bounds(&self, bounds: Bounds, snapshot: Option<&Snapshot>) -> Result<u64> {
        let core = self.core();
        core.check_open()?;
        let at = snapshot.map(|snapshot| core.sequence_of(snapshot)).transpose()?;
        count::count(core, &self.state, bounds, at)
    }

    /// Progress of its build, which another thread runs in [`Keyspace::create_index`] or
    /// [`Index::rebuild`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// assert_eq!(by_name.progress().rows, 3);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn progress(&self) -> BuildProgress {
        let progress = &self.state.progress;
        // Relaxed: figures.
        BuildProgress {
            rows: progress.rows.load(Ordering::Relaxed),
            rows_expected: progress.rows_expected.load(Ordering::Relaxed),
            entries: progress.entries.load(Ordering::Relaxed),
        }
    }

    /// Rebuilds the index from the rows, on the caller's thread, with its present extractor. Until
    /// that is done there is no index to read; writes continue. Returns the handle of the new one.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// let by_name = by_name.rebuild()?;
    /// assert_eq!(by_name.count_all()?, 3);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn rebuild(&self) -> Result<Index> {
        let state = build::rebuild(self.core(), self.keyspace.state(), &self.state)?;
        Ok(Index::new(self.keyspace.clone(), state))
    }

    /// Compares the index with the rows, in both directions: every entry is one of its row, and
    /// every entry of a row is in the index. Reads all of both; other work continues.
    ///
    /// Errors: `IndexUnavailable` without an extractor, and errors of reads. Wrong entries are not
    /// an error; they are in the report.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// let report = by_name.verify()?;
    /// assert!(report.is_right() && report.entries == 3);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn verify(&self) -> Result<IndexReport> {
        verify::verify(self.reference())
    }
}
