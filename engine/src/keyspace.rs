//! Keyspaces: named, independent key ranges of one database that share its log, memory and
//! background work.
use crate::background;
use crate::db::DbInner;
use crate::index::maintenance;
use crate::options::{Durability, WriteOptions};
use crate::planted;
use crate::read::cursor::Cursor;
use crate::read::explain::{self, Explain};
use crate::read::iterator::{Entry, Iter};
use crate::read::multi_get::get_many;
use crate::read::slice::{Gathered, Slice};
use crate::read::snapshot::Snapshot;
use crate::read::state::ReadState;
use crate::read::{self, Found};
use crate::runtime::Core;
use crate::write::weight::Weight;
use crate::write::{check_key, check_value, commit, insert, insert_all, with_scratch};
use sapwood_base::format::write_batch::{Operation, put_operation};
use sapwood_base::iterator::KeyRange;
use sapwood_base::key::prefix_successor;
use sapwood_base::{KeyspaceId, Result, SequenceNumber, ValueKind};
use sapwood_sstable::ReadOptions;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

mod options;
mod state;
mod indexes;

pub use options::KeyspaceOptions;
pub(crate) use state::{DEFAULT_KEYSPACE, KeyspaceState, check_name};

/// A handle of a keyspace (elsewhere: column family). Cheap to clone, usable from any thread; keeps
/// the database open (see [`Db`](crate::Db)).
#[doc(alias = "column family")]
#[derive(Clone)]
pub struct Keyspace {
    db: Arc<DbInner>,
    state: Arc<KeyspaceState>,
}

impl fmt::Debug for Keyspace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyspace")
            .field("name", &self.name())
            .field("options", self.options())
            .field("is_dropped", &self.check_alive().is_err())
            .finish_non_exhaustive()
    }
}

impl Keyspace {
    pub(crate) fn new(db: &Arc<DbInner>, state: &Arc<KeyspaceState>) -> Keyspace {
        Keyspace { db: db.clone(), state: state.clone() }
    }

    /// The name.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// assert_eq!(users.name(), "default");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The options it was created with.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// assert_eq!(users.options().to_string(), "");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn options(&self) -> &KeyspaceOptions {
        &self.state.options
    }

    pub(crate) fn id(&self) -> KeyspaceId {
        self.state.id
    }

    pub(crate) fn state(&self) -> &Arc<KeyspaceState> {
        &self.state
    }

    pub(crate) fn database(&self) -> &Arc<DbInner> {
        &self.db
    }

    pub(crate) fn check_alive(&self) -> Result<()> {
        self.state.check_alive()
    }

    #[inline]
    pub(crate) fn core(&self) -> &Core {
        &self.db.core
    }

    /// Sets `key` to `value`, with the database's default durability. Visible to every read that
    /// starts after the return.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// users.put("u1", "Ann")?;
    /// users.put(7u64.to_be_bytes(), vec![0xff])?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "insert")]
    #[doc(alias = "set")]
    #[doc(alias = "Put")]
    #[inline]
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.write(ValueKind::Put, key.as_ref(), value.as_ref(), None)
    }

    /// Sets `key` to `value`.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// users.put_with("u1", "Ann", &sapwood::WriteOptions::sync())?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "put_opt")]
    pub fn put_with(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        options: &WriteOptions,
    ) -> Result<()> {
        self.write(ValueKind::Put, key.as_ref(), value.as_ref(), options.durability)
    }

    /// Removes `key`, with the database's default durability. A key that is not there is no error.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// users.delete("u1")?;
    /// assert!(users.get("u1")?.is_none());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "remove")]
    #[doc(alias = "Delete")]
    #[doc(alias = "del")]
    #[inline]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.write(ValueKind::Delete, key.as_ref(), &[], None)
    }

    /// Removes `key`.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// users.delete_with("u1", &sapwood::WriteOptions::sync())?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "delete_opt")]
    pub fn delete_with(&self, key: impl AsRef<[u8]>, options: &WriteOptions) -> Result<()> {
        self.write(ValueKind::Delete, key.as_ref(), &[], options.durability)
    }

    #[inline]
    fn write(&self, kind: ValueKind, key: &[u8], value: &[u8], durability: Option<Durability>) -> Result<()> {
        check_key(key)?;
        check_value(value)?;
        self.state.check_alive()?;
        let id = self.state.id;
        let epoch = self.state.index_epoch();
        if epoch.has_indexes() {
            return self.write_indexed(kind, key, value, durability);
        }
        let is_current = || self.state.index_epoch() == epoch;
        let committed = with_scratch(|record| {
            put_operation(record, kind, id, key, value)?;
            let weight = Weight::of(key.len(), value.len());
            let row = Operation { kind, keyspace: id, key, value };
            commit(self.core(), record, 1, weight, durability, is_current, |place, _, large| {
                if place.watches_puts && kind == ValueKind::Put {
                    self.state.vacancies.cut(key);
                }
                insert(place.memtable, &row, SequenceNumber(place.position), large)
            })
        })?;
        match committed {
            Some(_) => Ok(()),
            None => self.write_indexed(kind, key, value, durability),
        }
    }

    /// A write of a row that has indexes, or had when the caller checked.
    fn write_indexed(
        &self,
        kind: ValueKind,
        key: &[u8],
        value: &[u8],
        durability: Option<Durability>,
    ) -> Result<()> {
        let core = self.core();
        let row = Operation { kind, keyspace: self.state.id, key, value };
        loop {
            core.check_writable()?;
            let epoch = self.state.index_epoch();
            let is_current = || self.state.index_epoch() == epoch;
            let committed = with_scratch(|record| {
                let expanded = maintenance::expand(core, std::iter::once(row), record)?;
                let durability = expanded.durability(core, durability);
                let (operations, weight) = (expanded.operations, expanded.weight);
                commit(core, record, operations, weight, durability, is_current, insert_all)
            })?;
            if committed.is_some() {
                return Ok(());
            }
        }
    }

    /// The value of `key`, or `None`.
    ///
    /// Errors: [`ErrorKind::Corruption`](crate::ErrorKind::Corruption) with file and offset if a
    /// block it needs is damaged.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// assert_eq!(users.get("u1")?.unwrap(), "Ann");
    /// assert!(users.get("u9")?.is_none());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "Get")]
    #[doc(alias = "get_pinned")]
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Slice>> {
        self.lookup(key.as_ref(), None, |found| Slice::of(&found))?.transpose()
    }

    /// The value of `key` as `snapshot` sees it.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let before = db.snapshot();
    /// users.delete("u1")?;
    /// assert_eq!(users.get_at("u1", &before)?.unwrap(), "Ann");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn get_at(&self, key: impl AsRef<[u8]>, snapshot: &Snapshot) -> Result<Option<Slice>> {
        let sequence = self.core().sequence_of(snapshot)?;
        self.lookup(key.as_ref(), Some(sequence), |found| Slice::of(&found))?.transpose()
    }

    /// Calls `with` with the value of `key` in place, without a copy. Keep `with` short: it pins
    /// the epoch and delays reclamation of memory.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let letters = users.get_with("u1", |value| value.len())?;
    /// assert_eq!(letters, Some(3));
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[inline]
    pub fn get_with<R>(&self, key: impl AsRef<[u8]>, with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.lookup(key.as_ref(), None, |found| with(found.bytes()))
    }

    /// Whether `key` has a value.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// assert!(users.contains_key("u1")? && !users.contains_key("u9")?);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "exists")]
    #[doc(alias = "has")]
    #[doc(alias = "KeyMayExist")]
    #[inline]
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.contains(key)
    }

    /// [`Keyspace::contains_key`] by its earlier name.
    #[doc(hidden)]
    #[inline]
    pub fn contains(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        Ok(self.lookup(key.as_ref(), None, |_| ())?.is_some())
    }

    #[inline]
    fn lookup<R>(
        &self,
        key: &[u8],
        at: Option<SequenceNumber>,
        with: impl FnOnce(Found<'_>) -> R,
    ) -> Result<Option<R>> {
        let core = self.core();
        core.check_open()?;
        let guard = crossbeam_epoch::pin();
        Ok(read::get(core, &self.state, key, at, &guard)?.map(with))
    }

    /// Looks `key` up as [`Keyspace::get`] does, and returns a report of the sources that it
    /// searched or passed over, and why.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// println!("{}", users.explain_get("u1")?);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn explain_get(&self, key: impl AsRef<[u8]>) -> Result<Explain> {
        explain::get(self.core(), &self.state, key.as_ref(), None)
    }

    /// [`Keyspace::explain_get`] for the state that `snapshot` sees.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// println!("{}", users.explain_get_at("u1", &db.snapshot())?);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn explain_get_at(&self, key: impl AsRef<[u8]>, snapshot: &Snapshot) -> Result<Explain> {
        let sequence = self.core().sequence_of(snapshot)?;
        explain::get(self.core(), &self.state, key.as_ref(), Some(sequence))
    }

    /// The values of several keys, all of one state of the database, in the order of `keys`. For
    /// some dozens of keys, one call costs less than as many gets: their waits for memory overlap.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let values = users.multi_get(&["u1", "u9", "u2"])?;
    /// assert_eq!(values[0].as_ref().unwrap(), "Ann");
    /// assert!(values[1].is_none());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "MultiGet")]
    #[doc(alias = "get_many")]
    pub fn multi_get<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Slice>>> {
        let core = self.core();
        core.check_open()?;
        let mut values = Gathered::with_capacity(keys.len());
        get_many(core, &self.state, keys, |found| values.push(found))?;
        values.finish()
    }

    /// [`Keyspace::multi_get`] without copies: passes each value in place to `with`, or `None` if
    /// its key has none, in the order of `keys`. Keep `with` short: the value lies in shared memory
    /// that cannot be reused meanwhile.
    ///
    /// Errors: those of a get. `with` has been called for the keys before the one that failed.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let mut found = Vec::new();
    /// users.multi_get_with(&["u1", "u9"], |key, value| found.push((key.to_string(), value.map(<[u8]>::len))))?;
    /// assert_eq!(found, [("u1".to_string(), Some(3)), ("u9".to_string(), None)]);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn multi_get_with<K: AsRef<[u8]>>(
        &self,
        keys: &[K],
        mut with: impl FnMut(&K, Option<&[u8]>),
    ) -> Result<()> {
        let core = self.core();
        core.check_open()?;
        let mut asked = keys.iter();
        get_many(core, &self.state, keys, |found| {
            if let Some(key) = asked.next() {
                with(key, found.as_ref().map(|found| found.bytes()));
            }
        })
    }

    /// All entries, as they are now.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// for entry in users.iter().rev().limit(2) {
    ///     let entry = entry?;
    ///     println!("{} = {}", entry.key().escape_ascii(), entry.value()?.escape_ascii());
    /// }
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "NewIterator")]
    #[doc(alias = "iterator")]
    #[doc(alias = "scan")]
    pub fn iter(&self) -> Iter {
        Iter::new(&self.db, &self.state, Bound::Unbounded, Bound::Unbounded)
    }

    /// The entries whose keys lie in `range`, such as `"a".."m"`, `&key..` or `..`, as they are
    /// now.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// use std::ops::Bound;
    ///
    /// assert_eq!(users.range("u2"..).count(), 2);
    /// assert_eq!(users.range(..="u2").count(), 2);
    /// assert_eq!(users.range((Bound::Excluded("u1"), Bound::Unbounded)).count(), 2);
    /// assert_eq!(users.range(..).count(), 3);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn range<K>(&self, range: impl crate::KeyRange<K>) -> Iter {
        let (lower, upper) = range.bounds();
        Iter::new(&self.db, &self.state, lower, upper)
    }

    /// The entries whose keys start with `prefix`, as they are now.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// assert_eq!(users.prefix("u").count(), 3);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "prefix_iterator")]
    #[doc(alias = "scan_prefix")]
    #[doc(alias = "prefix_iter")]
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Iter {
        let prefix = prefix.as_ref();
        let upper = prefix_successor(prefix);
        Iter::new(
            &self.db,
            &self.state,
            Bound::Included(prefix),
            upper.as_deref().map_or(Bound::Unbounded, planted::end_of_prefix),
        )
    }

    /// A cursor on the latest state, not positioned.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let mut cursor = users.cursor()?;
    /// cursor.seek("u2")?;
    /// while cursor.valid() {
    ///     println!("{}", cursor.key().escape_ascii());
    ///     cursor.next()?;
    /// }
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "raw_iterator")]
    pub fn cursor(&self) -> Result<Cursor> {
        self.open_cursor(None)
    }

    /// A cursor on the state that `snapshot` sees, not positioned.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let before = db.snapshot();
    /// users.delete("u1")?;
    /// let mut cursor = users.cursor_at(&before)?;
    /// cursor.seek_to_first()?;
    /// assert_eq!(cursor.key(), b"u1");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn cursor_at(&self, snapshot: &Snapshot) -> Result<Cursor> {
        self.open_cursor(Some(snapshot))
    }

    fn open_cursor(&self, at: Option<&Snapshot>) -> Result<Cursor> {
        let (view, sequence, covered) = ReadState::parts(self.core(), &self.state, at)?;
        let cursor = Cursor::new(view, self.state.id, sequence, ReadOptions::default(), KeyRange::default());
        Ok(cursor.jumping(&self.state, covered))
    }

    /// Merges everything in `range` into the last level, which reclaims the space of deleted and
    /// overwritten data. Flushes first. Returns when the range is done. If the range is unbounded,
    /// the indexes are settled as well; [`Keyspace::compact`] is the call for that. If the compiler
    /// cannot infer the type of the ends, name it (`compact_range::<&[u8]>(..)`).
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// users.compact_range("u1".."u2")?;
    /// users.compact_range::<&[u8]>(..)?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "CompactRange")]
    pub fn compact_range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<()> {
        self.state.check_alive()?;
        let (lower, upper) = owned_bounds(range);
        let bytes = |bound: Bound<Vec<u8>>| match bound {
            Bound::Included(key) | Bound::Excluded(key) => Some(key),
            Bound::Unbounded => None,
        };
        let core = self.core();
        core.check_writable()?;
        let _call = core.enter(true)?;
        let (lower, upper) = (bytes(lower), bytes(upper));
        let is_whole = lower.is_none() && upper.is_none();
        background::compact_range(core, self.state.id, lower.as_deref(), upper.as_deref())?;
        if is_whole {
            let indexes: Vec<KeyspaceId> = core.manifest_state(|state| {
                state.indexes_of(self.state.id).map(|index| index.state.id).collect()
            });
            indexes.into_iter().try_for_each(|id| background::compact_range(core, id, None, None))?;
        }
        Ok(())
    }

    /// [`Keyspace::compact_range`] of everything, the indexes included.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// users.compact()?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn compact(&self) -> Result<()> {
        self.compact_range::<&[u8]>(..)
    }

    /// [`Keyspace::approximate_size`] of everything.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// db.flush()?;
    /// assert!(users.approximate_bytes()? > 0);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "disk_space")]
    #[doc(alias = "size_on_disk")]
    pub fn approximate_bytes(&self) -> Result<u64> {
        self.approximate_size::<&[u8]>(..)
    }

    /// Approximate bytes of the entries of `range` in tables; rows that are only in memtables are
    /// not counted. Tables inside the range are not opened; for those that reach beyond it, the
    /// index is read. If the compiler cannot infer the type of the ends, name it
    /// (`approximate_size::<&[u8]>(..)`).
    ///
    /// Errors: those of opening a table.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// db.flush()?;
    /// let bytes = users.approximate_size("u1".."u3")?;
    /// # let _ = bytes;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "GetApproximateSizes")]
    pub fn approximate_size<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Result<u64> {
        let (lower, upper) = owned_bounds(range);
        let core = self.core();
        core.check_open()?;
        let view = core.view.reference();
        let Some(space) = view.keyspace(self.state.id) else { return Err(self.state.dropped_error()) };
        let key = |bound: &Bound<Vec<u8>>| match bound {
            Bound::Included(key) | Bound::Excluded(key) => Some(key.clone()),
            Bound::Unbounded => None,
        };
        let (lower, upper) = (key(&lower), key(&upper));
        space.version.approximate_bytes(lower.as_deref(), upper.as_deref())
    }
}

impl IntoIterator for &Keyspace {
    type Item = Result<Entry>;
    type IntoIter = Iter;

    /// [`Keyspace::iter`].
    fn into_iter(self) -> Iter {
        self.iter()
    }
}

fn owned_bounds<K: AsRef<[u8]>>(range: impl RangeBounds<K>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let owned = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
    (owned(range.start_bound()), owned(range.end_bound()))
}
