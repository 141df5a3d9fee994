//! The cursor over the entries of an index, as one state of the database has them.
//!
//! 1. Sources: the index's lists in the memtables, its delta runs, its tree. If only the tree has
//!    entries, its own cursor serves alone.
//! 2. The merge shows the newest version of an entry, unless that is a deletion: see
//!    `read/cursor.rs`.
//! 3. Runs and tree are exact: the flush has added the deletions that a deferred index owes.
//!    Memtables are not: an entry is stale if a memtable holds a later version of its row, and that
//!    version has not renewed it (or it would have a later sequence number itself). Without rows in
//!    memtables no check is needed.
use super::state::{IndexMeta, IndexState};
use crate::planted;
use crate::read::cursor::Cursor;
use crate::read::jumps::Jumps;
use crate::read::vacancy::WORTH_A_RANGE;
use crate::read::view::View;
use crate::refusal::closed;
use crate::runtime::Core;
use sapwood_base::iterator::KeyRange;
use sapwood_base::ordered::composite::{
    Composite, end_bound_after, end_bound_at, prefix_end, put_bound_after, put_bound_at, put_escaped,
};
use sapwood_base::{Error, ErrorKind, KeyspaceId, Lookup, Result, SequenceNumber};
use sapwood_btree::{TreeCursor, TreeView};
use sapwood_sstable::ReadOptions;
use std::borrow::Cow;
use std::ops::{Bound, Deref, RangeBounds};
use std::sync::Arc;

/// A range of composites: from the lower bound on, and below the upper one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds(KeyRange);

impl Deref for Bounds {
    type Target = KeyRange;

    fn deref(&self) -> &KeyRange {
        &self.0
    }
}

impl Bounds {
    fn new(lower: Option<Vec<u8>>, upper: Option<Vec<u8>>) -> Bounds {
        Bounds(KeyRange { lower: lower.map(Into::into), upper: upper.map(Into::into) })
    }

    /// The entries whose index keys lie in `range`.
    pub(crate) fn of_range<K: AsRef<[u8]>>(range: impl RangeBounds<K>) -> Bounds {
        Bounds::of_keys(range.start_bound().map(K::as_ref), range.end_bound().map(K::as_ref))
    }

    /// The entries whose index keys lie between these.
    pub(crate) fn of_keys(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Bounds {
        let at = |key: &[u8]| {
            let mut bound = Vec::new();
            put_bound_at(&mut bound, key);
            Some(bound)
        };
        let after = |key: &[u8]| {
            let mut bound = Vec::new();
            put_bound_after(&mut bound, key);
            Some(bound)
        };
        let lower = match lower {
            Bound::Included(key) => at(key),
            Bound::Excluded(key) => after(key),
            Bound::Unbounded => None,
        };
        let upper = match upper {
            Bound::Included(key) => after(key),
            Bound::Excluded(key) => at(key),
            Bound::Unbounded => None,
        };
        Bounds::new(lower, upper)
    }

    /// The entries with this index key.
    pub(crate) fn of_key(key: &[u8]) -> Bounds {
        let (mut lower, mut upper) = (Vec::new(), Vec::new());
        put_bound_at(&mut lower, key);
        put_bound_after(&mut upper, key);
        Bounds::new(Some(lower), Some(upper))
    }

    /// The entries with an index key that is escaped already.
    pub(crate) fn of_escaped(escaped: &[u8]) -> Bounds {
        let (mut lower, mut upper) = (escaped.to_vec(), escaped.to_vec());
        end_bound_at(&mut lower);
        end_bound_after(&mut upper);
        Bounds::new(Some(lower), Some(upper))
    }

    /// The entries whose index keys start with `prefix`.
    pub(crate) fn of_prefix(prefix: &[u8]) -> Bounds {
        let mut lower = Vec::new();
        put_escaped(&mut lower, prefix);
        Bounds::new(Some(lower), prefix_end(prefix))
    }
}

/// A position among the entries of an index.
///
/// Owns all it needs, so do not keep an idle one for long: the state that it reads stays until it
/// is dropped. It does not keep the database open (see [`Db`](crate::Db)). Entries come in the
/// order of index keys, those of one index key in the order of primary keys.
pub struct IndexCursor {
    inner: Inner,
    bounds: Bounds,
    rows: Option<RowCheck>,
    /// Entries that were passed over.
    stale: u64,
    view: Arc<View>,
    id: KeyspaceId,
    sequence: SequenceNumber,
    /// Of the internal keyspace. In an index, a range is vacant too where all entries are stale:
    /// only a put of the entry itself makes one count again.
    jumps: Jumps,
    /// Where the stale entries that are being passed over begin (backward: end).
    stale_from: Option<Vec<u8>>,
}

/// The bounds are the cursor's own, in both forms.
enum Inner {
    Tree(TreeCursor),
    Merged(Cursor),
}

macro_rules! delegate {
    ($self:ident, $cursor:ident => $call:expr) => {
        match $self {
            Inner::Tree($cursor) => $call,
            Inner::Merged($cursor) => $call,
        }
    };
}

impl Inner {
    #[inline]
    fn valid(&self) -> bool {
        delegate!(self, cursor => cursor.valid())
    }

    /// The key of the entry, stale or not.
    #[inline]
    fn key(&self) -> Option<&[u8]> {
        delegate!(self, cursor => cursor.valid().then(|| cursor.key()))
    }

    fn seek(&mut self, target: &[u8]) -> Result<()> {
        delegate!(self, cursor => cursor.seek(target))
    }

    /// Moves to the last entry before `target`, or the last one.
    fn seek_before(&mut self, target: Option<&[u8]>) -> Result<()> {
        match target {
            Some(target) => delegate!(self, cursor => cursor.seek_before(target)),
            None => delegate!(self, cursor => cursor.seek_to_last()),
        }
    }

    /// Moves to the next entry, stale or not, or to the previous one.
    #[inline]
    fn step<const FORWARD: bool>(&mut self) -> Result<()> {
        delegate!(self, cursor => if FORWARD { cursor.next() } else { cursor.prev() })
    }

    fn clear(&mut self) {
        delegate!(self, cursor => cursor.clear());
    }
}

/// Looks for later versions of rows in memtables.
struct RowCheck {
    view: Arc<View>,
    keyspace: KeyspaceId,
    /// The state that is read.
    sequence: SequenceNumber,
    /// The number at which entries of the tree count as written.
    built: SequenceNumber,
}

impl RowCheck {
    /// The check that an index needs, or `None`.
    fn new(view: &Arc<View>, index: &IndexState, sequence: SequenceNumber) -> Option<RowCheck> {
        let keyspace = index.owner();
        let is_needed = index.is_deferred() && has_rows(view, keyspace);
        is_needed.then(|| RowCheck { view: view.clone(), keyspace, sequence, built: index.built_sequence() })
    }

    /// Whether an entry of the row `primary_key`, written at `written`, is stale.
    #[inline]
    fn is_stale(&self, primary_key: &[u8], written: SequenceNumber) -> bool {
        is_stale(&self.view, self.keyspace, primary_key, self.sequence, written)
    }
}

/// Whether a memtable has a later version of the row `primary_key`, as `sequence` sees it, than the
/// one of an entry that was written at `written`.
#[inline]
pub(crate) fn is_stale(
    view: &View,
    keyspace: KeyspaceId,
    primary_key: &[u8],
    sequence: SequenceNumber,
    written: SequenceNumber,
) -> bool {
    let lookup = Lookup::new(primary_key, sequence);
    let mut generations = view.generations.iter();
    let newest = generations.find_map(|generation| generation.memtable.get(keyspace, lookup));
    newest.is_some_and(|found| planted::is_newer_row(found.sequence, written))
}

/// Whether memtables hold rows of a keyspace.
#[inline]
pub(crate) fn has_rows(view: &View, keyspace: KeyspaceId) -> bool {
    view.generations.iter().any(|generation| generation.memtable.entries_of(keyspace) > 0)
}

/// An index in a view.
pub(crate) fn index_meta(view: &View, id: KeyspaceId) -> Result<&IndexMeta> {
    view.keyspace(id).and_then(|space| space.index.as_ref()).ok_or_else(dropped)
}

#[cold]
pub(crate) fn dropped() -> Error {
    Error::new(ErrorKind::Closed, "the index was dropped, or built anew: ask its keyspace for it again")
}

/// The tree of an index in a view, unless it is empty.
pub(crate) fn tree_view<'v>(core: &Core, entry: &'v IndexMeta) -> Result<Option<&'v TreeView>> {
    match &entry.tree {
        Some(tree) if tree.root.top.is_some() => Ok(Some(tree.view(core)?)),
        _ => Ok(None),
    }
}

impl std::fmt::Debug for IndexCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexCursor")
            .field("valid", &self.valid())
            .field("stale_entries", &self.stale)
            .finish_non_exhaustive()
    }
}

impl IndexCursor {
    /// A cursor over the entries within `bounds` as of `sequence`, not positioned. Does not check
    /// whether the index is complete.
    pub(crate) fn open(
        core: &Core,
        view: Arc<View>,
        id: KeyspaceId,
        sequence: SequenceNumber,
        bounds: Bounds,
    ) -> Result<IndexCursor> {
        tree_view(core, index_meta(&view, id)?)?;
        IndexCursor::open_prepared(view, id, sequence, bounds)
    }

    /// The same without the database. REQUIRES: the index's tree was opened in this view, by
    /// [`tree_view`].
    pub(crate) fn open_prepared(
        view: Arc<View>,
        id: KeyspaceId,
        sequence: SequenceNumber,
        bounds: Bounds,
    ) -> Result<IndexCursor> {
        let entry = index_meta(&view, id)?;
        let tree = match &entry.tree {
            Some(tree) if tree.root.top.is_some() => Some(tree.opened().ok_or_else(closed)?.clone()),
            _ => None,
        };
        let rows = RowCheck::new(&view, &entry.state, sequence);
        let inner = match tree {
            Some(tree) if IndexCursor::is_settled(&view, id) => {
                let lower = bounds.lower.as_deref().map_or(Bound::Unbounded, Bound::Included);
                let upper = bounds.upper.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                Inner::Tree(tree.cursor(lower, upper))
            }
            tree => {
                let built = entry.state.built_sequence();
                let base = tree.map(|tree| (tree.cursor(Bound::Unbounded, Bound::Unbounded), built));
                let (options, range) = (ReadOptions::default(), bounds.0.clone());
                Inner::Merged(Cursor::with_base(view.clone(), id, sequence, options, range, base))
            }
        };
        let (jumps, stale_from) = (Jumps::default(), None);
        Ok(IndexCursor { inner, bounds, rows, stale: 0, view, id, sequence, jumps, stale_from })
    }

    /// The same with jumps over ranges known to be vacant; it also records the vacant ranges that
    /// it finds. Without effect while the index is being built: then entries are added in other
    /// ways than by commits. The cursor's view is complete up to `covered`.
    pub(crate) fn jumping(mut self, covered: SequenceNumber) -> IndexCursor {
        let Some(space) = self.view.keyspace(self.id) else { return self };
        if space.index.as_ref().is_some_and(|index| index.check_readable(self.sequence).is_ok()) {
            self.jumps = Jumps::new(&space.state, covered);
            self.inner = match self.inner {
                Inner::Merged(cursor) => Inner::Merged(cursor.jumping(&space.state, covered)),
                inner => inner,
            };
        }
        self
    }

    /// Number of stale entries passed over.
    pub(crate) fn stale_entries(&self) -> u64 {
        self.stale
    }

    /// Number of versions of entries passed over: see [`Cursor::passed`].
    pub(crate) fn passed_versions(&self) -> u64 {
        match &self.inner {
            Inner::Tree(_) => 0,
            Inner::Merged(cursor) => cursor.passed(),
        }
    }

    /// Whether all entries of an index are in its tree, in a view.
    pub(crate) fn is_settled(view: &View, id: KeyspaceId) -> bool {
        view.keyspace(id).is_none_or(|space| space.version.runs.is_empty()) && !has_rows(view, id)
    }

    /// Whether the cursor stands on an entry.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// # let mut cursor = by_name.cursor::<&[u8]>(..)?;
    /// assert!(!cursor.valid());
    /// cursor.seek_to_first()?;
    /// assert!(cursor.valid());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "is_valid")]
    #[inline]
    pub fn valid(&self) -> bool {
        self.inner.valid()
    }

    /// The composite that is the key of the entry: escaped index key, end, primary key.
    #[inline]
    pub(crate) fn composite(&self) -> &[u8] {
        self.inner.key().unwrap_or_default()
    }

    #[inline]
    fn split(&self) -> Composite<'_> {
        // Every entry was split when the cursor reached it, or was written by the engine into a
        // page with a matching checksum.
        Composite::split(self.composite()).unwrap_or(Composite { escaped_index_key: &[], primary_key: &[] })
    }

    /// The index key: a copy only if it has bytes 0 or 1. REQUIRES: [`IndexCursor::valid`] (empty
    /// otherwise).
    ///
    /// Errors: `Corruption` if it is not a valid escaped index key.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// # let mut cursor = by_name.cursor::<&[u8]>(..)?;
    /// cursor.seek_to_first()?;
    /// assert_eq!(&*cursor.index_key()?, b"Ann");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[inline]
    pub fn index_key(&self) -> Result<Cow<'_, [u8]>> {
        self.split().index_key()
    }

    /// The primary key. REQUIRES: [`IndexCursor::valid`] (empty otherwise).
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// # let mut cursor = by_name.cursor::<&[u8]>(..)?;
    /// cursor.seek("Bo")?;
    /// assert_eq!(cursor.primary_key(), b"u2");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[inline]
    pub fn primary_key(&self) -> &[u8] {
        self.split().primary_key
    }

    /// The covering bytes. REQUIRES: [`IndexCursor::valid`] (empty otherwise).
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// # let mut cursor = by_name.cursor::<&[u8]>(..)?;
    /// cursor.seek_to_first()?;
    /// assert_eq!(cursor.covering(), b"");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[inline]
    pub fn covering(&self) -> &[u8] {
        match &self.inner {
            Inner::Tree(cursor) if cursor.valid() => cursor.value(),
            Inner::Merged(cursor) => cursor.value(),
            Inner::Tree(_) => &[],
        }
    }

    /// Moves to the first entry.
    ///
    /// Errors: `Corruption` with file and offset if a page or block that it needs is damaged. The
    /// same holds for every move; the cursor is not valid then.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// # let mut cursor = by_name.cursor::<&[u8]>(..)?;
    /// cursor.seek_to_first()?;
    /// assert_eq!(cursor.primary_key(), b"u1");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn seek_to_first(&mut self) -> Result<()> {
        let lower = self.bounds.lower.clone();
        self.seek_from(lower.as_deref().unwrap_or_default())
    }

    /// Moves to the last entry.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// # let mut cursor = by_name.cursor::<&[u8]>(..)?;
    /// cursor.seek_to_last()?;
    /// assert_eq!(cursor.primary_key(), b"u3");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn seek_to_last(&mut self) -> Result<()> {
        let upper = self.bounds.upper.clone();
        self.seek_back_from(upper.as_deref())
    }

    /// Moves to the first entry whose index key is `index_key` or above it.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// # let mut cursor = by_name.cursor::<&[u8]>(..)?;
    /// cursor.seek("B")?;
    /// assert_eq!(cursor.primary_key(), b"u2");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn seek(&mut self, index_key: impl AsRef<[u8]>) -> Result<()> {
        let mut target = Vec::new();
        put_bound_at(&mut target, index_key.as_ref());
        self.seek_composite(&target)
    }

    /// Moves to the last entry whose index key is `index_key` or below it.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// # let mut cursor = by_name.cursor::<&[u8]>(..)?;
    /// cursor.seek_for_prev("B")?;
    /// assert_eq!(cursor.primary_key(), b"u1");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn seek_for_prev(&mut self, index_key: impl AsRef<[u8]>) -> Result<()> {
        let mut target = Vec::new();
        put_bound_after(&mut target, index_key.as_ref());
        if self.bounds.is_above(&target) {
            return self.seek_to_last();
        }
        self.seek_back_from(Some(&target))
    }

    /// Moves to the first entry at or above `target`.
    pub(crate) fn seek_composite(&mut self, target: &[u8]) -> Result<()> {
        if self.bounds.is_below(target) {
            return self.seek_to_first();
        }
        self.seek_from(target)
    }

    /// Moves to the first entry from `target` on. REQUIRES: that is not below the bounds.
    fn seek_from(&mut self, target: &[u8]) -> Result<()> {
        // A cursor that merges jumps by itself.
        let end = match self.jumps.any() && matches!(self.inner, Inner::Tree(_)) {
            true => self.jumps.end_of(target, self.sequence).map(Option::unwrap_or_default),
            false => None,
        };
        let to = end.as_deref().unwrap_or(target);
        // No key follows an empty end.
        if end.as_ref().is_some_and(Vec::is_empty) || self.bounds.is_above(to) {
            self.inner.clear();
            return Ok(());
        }
        self.inner.seek(to)?;
        self.settle_from::<true>(Some(Some(target)))
    }

    /// Moves to the last entry before `target`, or the last one. REQUIRES: that is not above the
    /// bounds.
    fn seek_back_from(&mut self, target: Option<&[u8]>) -> Result<()> {
        let jumps = self.jumps.any() && matches!(self.inner, Inner::Tree(_));
        let start = if jumps { self.jumps.start_of(target, self.sequence) } else { None };
        let to = start.as_deref().or(target);
        if to.is_some_and(|to| to.is_empty() || self.bounds.is_below(to)) {
            self.inner.clear();
            return Ok(());
        }
        self.inner.seek_before(to)?;
        self.settle_from::<false>(Some(target))
    }

    /// Moves to the next entry; past the last one the cursor is not valid. A no-op on a cursor that
    /// is not valid.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// # let mut cursor = by_name.cursor::<&[u8]>(..)?;
    /// cursor.seek_to_first()?;
    /// cursor.next()?;
    /// assert_eq!(cursor.primary_key(), b"u2");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[expect(
        clippy::should_implement_trait,
        reason = "`next` beside `prev` is what a cursor's moves are called"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<()> {
        match &mut self.inner {
            Inner::Tree(cursor) => {
                if cursor.valid() {
                    cursor.next()?;
                }
                if self.rows.is_none() {
                    return Ok(());
                }
            }
            Inner::Merged(cursor) => cursor.next()?,
        }
        self.settle::<true>()
    }

    /// Moves to the previous entry; before the first one the cursor is not valid. A no-op on a
    /// cursor that is not valid.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// # let by_name = users.create_index("by_name", sapwood::IndexOptions::new(|_key, value, emit| emit.key(value)))?;
    /// # let mut cursor = by_name.cursor::<&[u8]>(..)?;
    /// cursor.seek_to_last()?;
    /// cursor.prev()?;
    /// assert_eq!(cursor.primary_key(), b"u2");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
        match &mut self.inner {
            Inner::Tree(cursor) => {
                if cursor.valid() {
                    cursor.prev()?;
                }
                if self.rows.is_none() {
                    return Ok(());
                }
            }
            Inner::Merged(cursor) => cursor.prev()?,
        }
        self.settle::<false>()
    }

    /// Moves on, or back, to the first entry that is not stale, from an entry that was not.
    #[inline]
    fn settle<const FORWARD: bool>(&mut self) -> Result<()> {
        self.settle_from::<FORWARD>(None)
    }

    /// The same; `edge` is the key at which the move began (`Some(None)`: the end of all), unless
    /// it began at an entry. After an error the cursor is not valid.
    fn settle_from<const FORWARD: bool>(&mut self, edge: Option<Option<&[u8]>>) -> Result<()> {
        let passed = self.pass_stale::<FORWARD>(edge);
        match passed {
            Ok(WORTH_A_RANGE..) => self.remember::<FORWARD>(edge),
            Ok(_) => {}
            Err(_) => self.inner.clear(),
        }
        passed.map(drop)
    }

    /// Moves over the stale entries; returns their number.
    #[inline]
    fn pass_stale<const FORWARD: bool>(&mut self, edge: Option<Option<&[u8]>>) -> Result<usize> {
        let mut steps = 0;
        while self.is_stale()? {
            self.inner.step::<FORWARD>()?;
            self.stale += 1;
            steps += 1;
            if steps % WORTH_A_RANGE == 0 && self.jumps.are_on() {
                self.look::<FORWARD>(steps, edge)?;
            }
        }
        Ok(steps)
    }

    /// Whether the cursor stands on a stale entry.
    #[inline]
    fn is_stale(&self) -> Result<bool> {
        match (&self.inner, &self.rows) {
            (Inner::Tree(cursor), Some(rows)) if cursor.valid() => {
                Ok(rows.is_stale(Composite::split(cursor.key())?.primary_key, rows.built))
            }
            (Inner::Merged(cursor), rows) if cursor.valid() => {
                let primary_key = Composite::split(cursor.key())?.primary_key;
                Ok(rows.as_ref().is_some_and(|rows| rows.is_stale(primary_key, cursor.sequence())))
            }
            _ => Ok(false),
        }
    }

    /// Called at intervals while stale entries are passed over. Records where they begin,
    /// and jumps if the next entry is in a vacant range.
    #[cold]
    fn look<const FORWARD: bool>(&mut self, steps: usize, edge: Option<Option<&[u8]>>) -> Result<()> {
        if steps == WORTH_A_RANGE {
            self.stale_from = None;
        }
        let Some(key) = self.inner.key().map(<[u8]>::to_vec) else { return Ok(()) };
        let behind = [&key[..], &[0]].concat();
        if steps == WORTH_A_RANGE && edge.is_none() {
            // The current entry was not checked yet; it may be alive.
            self.stale_from = Some(if FORWARD { behind.clone() } else { key.clone() });
        }
        if !self.jumps.any() {
            return Ok(());
        }
        let to = match FORWARD {
            true => self.jumps.end_of(&key, self.sequence).map(Option::unwrap_or_default),
            false => self.jumps.start_of(Some(&behind), self.sequence),
        };
        match to {
            None => {}
            // An empty end is that of all entries, and nothing comes before an empty start.
            Some(to) if to.is_empty() => self.inner.clear(),
            Some(to) if FORWARD => self.inner.seek(&to)?,
            Some(to) => self.inner.seek_before(Some(&to))?,
        }
        Ok(())
    }

    /// The cursor has found an entry, or the end: everything before it is vacant.
    #[cold]
    fn remember<const FORWARD: bool>(&self, edge: Option<Option<&[u8]>>) {
        if !self.jumps.are_on() {
            return;
        }
        // Neither is there if the end came just where they became worth it.
        let Some(edge) = edge.or_else(|| self.stale_from.as_deref().map(Some)) else { return };
        let found = self.inner.key();
        if FORWARD {
            let from = edge.unwrap_or_default();
            let to = found.or(self.bounds.upper.as_deref());
            self.jumps.learn(from, to, self.sequence, None);
        } else {
            let from = match found {
                Some(found) => [found, &[0]].concat(),
                None => self.bounds.lower.as_deref().unwrap_or_default().to_vec(),
            };
            self.jumps.learn(&from, edge, self.sequence, None);
        }
    }
}
