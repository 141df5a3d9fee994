//! Ranges as Rust iterators, from both ends.
use crate::db::DbInner;
use crate::keyspace::KeyspaceState;
use crate::planted;
use crate::read::cursor::Cursor;
use crate::read::slice::Slice;
use crate::read::snapshot::Snapshot;
use crate::read::state::ReadState;
use sapwood_base::iterator::KeyRange;
use sapwood_base::{Error, Result};
use sapwood_sstable::ReadOptions;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// One entry of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    key: Vec<u8>,
    /// `None` if values are not read.
    value: Option<Slice>,
}

impl Entry {
    /// The key.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let first = users.iter().next().expect("three rows")?;
    /// assert_eq!(first.key(), b"u1");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The key, without a copy.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let keys: Vec<Vec<u8>> = users.iter().keys_only().map(|entry| Ok(entry?.into_key())).collect::<sapwood::Result<_>>()?;
    /// assert_eq!(keys.len(), 3);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn into_key(self) -> Vec<u8> {
        self.key
    }

    /// The value.
    ///
    /// Errors: `InvalidArgument` if the iterator reads [`Iter::keys_only`].
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let first = users.iter().next().expect("three rows")?;
    /// assert_eq!(first.value()?, "Ann");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn value(&self) -> Result<Slice> {
        self.value.clone().ok_or_else(|| Error::invalid_argument(NOT_READ))
    }

    /// Key and value; an iterator that reads [`Iter::keys_only`] returns an empty value.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let (key, value) = users.iter().next().expect("three rows")?.into_parts();
    /// assert_eq!((&key[..], &value[..]), (&b"u1"[..], &b"Ann"[..]));
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn into_parts(self) -> (Vec<u8>, Slice) {
        (self.key, self.value.unwrap_or_default())
    }
}

const NOT_READ: &str = "the value was not read: the iterator is one of keys only";

/// The entries of a range, in key order.
///
/// It sees the state at its creation, or the snapshot's; later writes do not change it. Set it up
/// with [`Iter::at`], [`Iter::limit`], [`Iter::keys_only`] before the first item. Owns all it
/// needs, and so keeps memtables and tables of that state until it is dropped; it does not keep the
/// database open (see [`Db`](crate::Db)). Items can be taken from both ends in any mix; after an
/// error it ends.
pub struct Iter {
    pub(super) keyspace: Arc<KeyspaceState>,
    /// The state to read, or the error that prevents it.
    pub(super) state: Result<ReadState>,
    pub(super) range: KeyRange,
    /// The bounds as passed by the caller, for [`Iter::explain`]: without and with the key itself.
    pub(super) excludes_lower: bool,
    pub(super) includes_upper: bool,
    limit: usize,
    keys_only: bool,
    pub(super) reversed: bool,
    front: Option<Cursor>,
    back: Option<Cursor>,
    done: bool,
    /// Versions passed over by cursors that were dropped.
    passed: u64,
}

impl Iter {
    pub(crate) fn new(
        db: &Arc<DbInner>,
        keyspace: &Arc<KeyspaceState>,
        lower: Bound<&[u8]>,
        upper: Bound<&[u8]>,
    ) -> Iter {
        let range = KeyRange::new(lower, upper);
        let state = ReadState::new(db, keyspace, None);
        // An error is the first item, whatever the range.
        let done = range.is_empty() && state.is_ok();
        Iter {
            keyspace: keyspace.clone(),
            state,
            range,
            excludes_lower: matches!(lower, Bound::Excluded(_)),
            includes_upper: matches!(upper, Bound::Included(_)),
            limit: usize::MAX,
            keys_only: false,
            reversed: false,
            front: None,
            back: None,
            done,
            passed: 0,
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
    /// let before = db.snapshot();
    /// users.delete("u1")?;
    /// assert_eq!(users.iter().at(&before).count(), 3);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn at(mut self, snapshot: &Snapshot) -> Iter {
        // The view of the creation may be older than the snapshot.
        self.state = self.state.and_then(|state| {
            let db = state.database()?;
            ReadState::new(&db, &self.keyspace, Some(snapshot))
        });
        self.done &= self.state.is_ok();
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
    /// assert_eq!(users.iter().limit(2).count(), 2);
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "take")]
    pub fn limit(mut self, count: usize) -> Iter {
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
    /// let last = users.iter().rev().next().expect("three rows")?;
    /// assert_eq!(last.key(), b"u3");
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "reverse")]
    #[doc(alias = "backward")]
    pub fn rev(mut self) -> Iter {
        self.reversed = !self.reversed;
        self
    }

    /// Number of items still to be returned at most.
    pub(crate) fn remaining(&self) -> usize {
        self.limit
    }

    /// Number of versions passed over.
    pub(crate) fn passed(&self) -> u64 {
        let cursors = [&self.front, &self.back];
        self.passed + cursors.into_iter().flatten().map(Cursor::passed).sum::<u64>()
    }

    /// Reads no values: [`Entry::value`] then returns an error.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// # for (key, value) in [("u1", "Ann"), ("u2", "Bo"), ("u3", "Cy")] {
    /// #     users.put(key, value)?;
    /// # }
    /// let entry = users.iter().keys_only().next().expect("three rows")?;
    /// assert!(entry.key() == b"u1" && entry.value().is_err());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "keys")]
    pub fn keys_only(mut self) -> Iter {
        self.keys_only = true;
        self
    }

    fn open(&self) -> Result<Cursor> {
        let state = self.state.as_ref().map_err(Error::duplicate)?;
        let covered = state.covered;
        let (view, sequence) = planted::of_creation((state.view.clone(), state.sequence), || {
            let db = state.database().ok()?;
            Some((db.core.view.reference(), db.core.visible_sequence()))
        });
        let (id, options, range) = (self.keyspace.id, ReadOptions::default(), self.range.clone());
        Ok(Cursor::new(view, id, sequence, options, range).jumping(&self.keyspace, covered))
    }

    fn entry(&self, front: bool) -> Result<Entry> {
        let cursor = if front { &self.front } else { &self.back };
        let cursor = cursor.as_ref().expect("positioned");
        let value = (!self.keys_only).then(|| Slice::of_value(cursor.value())).transpose()?;
        Ok(Entry { key: cursor.key().to_vec(), value })
    }

    fn advance_front(&mut self) -> Result<bool> {
        match &mut self.front {
            Some(cursor) => cursor.next()?,
            None => {
                let mut cursor = self.open()?;
                cursor.seek_to_first()?;
                self.front = Some(cursor);
            }
        }
        let front = self.front.as_ref().expect("opened");
        Ok(front.valid() && self.back.as_ref().is_none_or(|back| back.valid() && front.key() < back.key()))
    }

    fn advance_back(&mut self) -> Result<bool> {
        match &mut self.back {
            Some(cursor) => cursor.prev()?,
            None => {
                let mut cursor = self.open()?;
                cursor.seek_to_last()?;
                self.back = Some(cursor);
            }
        }
        let back = self.back.as_ref().expect("opened");
        Ok(back.valid() && self.front.as_ref().is_none_or(|front| front.valid() && front.key() < back.key()))
    }

    fn take(&mut self, front: bool) -> Option<Result<Entry>> {
        if self.done || self.limit == 0 {
            return None;
        }
        match if front { self.advance_front() } else { self.advance_back() } {
            Ok(true) => {
                self.limit -= 1;
                Some(self.entry(front))
            }
            Ok(false) => {
                self.done = true;
                self.passed = self.passed();
                self.front = None;
                self.back = None;
                None
            }
            Err(error) => {
                self.done = true;
                Some(Err(error))
            }
        }
    }
}

impl Iterator for Iter {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take(!self.reversed)
    }
}

impl DoubleEndedIterator for Iter {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.take(self.reversed)
    }
}

impl std::iter::FusedIterator for Iter {}

impl fmt::Debug for Iter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter")
            .field("keyspace", &self.keyspace.name)
            .field("reversed", &self.reversed)
            .field("keys_only", &self.keys_only)
            .field("limit", &self.limit)
            .field("sequence", &self.state.as_ref().map(|state| state.sequence.0))
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}
