//! Ranges as Rust iterators, from both ends.
use crate::keyspace::Keyspace;
use crate::read::cursor::Cursor;
use crate::read::explain::{self, Explain};
use crate::read::slice::Slice;
use crate::read::snapshot::Snapshot;
use sapwood_base::Result;
use std::ops::Bound;

/// One entry of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    key: Vec<u8>,
    value: Slice,
}

impl Entry {
    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The value.
    pub fn value(&self) -> Result<Slice> {
        Ok(self.value.clone())
    }

    /// Key and value.
    pub fn into_parts(self) -> (Vec<u8>, Slice) {
        (self.key, self.value)
    }
}

/// The entries of a range, in key order.
///
/// Set it up with [`Iter::at`], [`Iter::limit`], [`Iter::keys_only`] before the first item. Owns all it needs; both
/// ends can be taken in any mix; after an error it ends.
///
/// It opens what it reads at the first item and sees the state of that moment, or the snapshot's.
pub struct Iter {
    keyspace: Keyspace,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    snapshot: Option<Snapshot>,
    limit: usize,
    keys_only: bool,
    reversed: bool,
    front: Option<Cursor>,
    back: Option<Cursor>,
    /// Fixes the state for the second end.
    fixed: Option<Snapshot>,
    done: bool,
}

impl Iter {
    pub(crate) fn new(keyspace: Keyspace, lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>) -> Iter {
        let done = match (&lower, &upper) {
            (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
            (
                Bound::Included(lower) | Bound::Excluded(lower),
                Bound::Included(upper) | Bound::Excluded(upper),
            ) => lower >= upper,
            _ => false,
        };
        Iter {
            keyspace,
            lower,
            upper,
            snapshot: None,
            limit: usize::MAX,
            keys_only: false,
            reversed: false,
            front: None,
            back: None,
            fixed: None,
            done,
        }
    }

    /// Reads the state that `snapshot` sees.
    pub fn at(mut self, snapshot: &Snapshot) -> Iter {
        self.snapshot = Some(snapshot.clone());
        self
    }

    /// Ends after `count` items.
    pub fn limit(mut self, count: usize) -> Iter {
        self.limit = count;
        self
    }

    /// From the last entry to the first. (In place of [`Iterator::rev`], so that the other settings can follow.)
    pub fn rev(mut self) -> Iter {
        self.reversed = !self.reversed;
        self
    }

    /// How many items may still come.
    pub(crate) fn remaining(&self) -> usize {
        self.limit
    }

    /// Leaves the values empty.
    pub fn keys_only(mut self) -> Iter {
        self.keys_only = true;
        self
    }

    /// Reads the range to its end, or to the limit, and tells what was looked at.
    ///
    /// Errors: the first one that the iterator meets.
    pub fn explain(self) -> Result<Explain> {
        let bounds = (self.lower.clone(), self.upper.clone());
        let (keyspace, reversed) = (self.keyspace.clone(), self.reversed);
        let snapshot = self.snapshot.clone().unwrap_or_else(|| keyspace.snapshot());
        explain::scan(&keyspace, bounds, reversed, &snapshot, self.at(&snapshot))
    }

    fn open(&mut self) -> Result<Cursor> {
        let snapshot = self.snapshot.as_ref().or(self.fixed.as_ref());
        match snapshot {
            Some(snapshot) => self.keyspace.cursor_at(snapshot),
            None => {
                // The state is fixed at the first item, so that both ends agree.
                let snapshot = self.keyspace.snapshot();
                let cursor = self.keyspace.cursor_at(&snapshot)?;
                self.fixed = Some(snapshot);
                Ok(cursor)
            }
        }
    }

    fn entry(&mut self, front: bool) -> Entry {
        let cursor = if front { &self.front } else { &self.back };
        let cursor = cursor.as_ref().expect("positioned");
        let value = if self.keys_only { Slice::copied(&[]) } else { Slice::copied(cursor.value()) };
        Entry { key: cursor.key().to_vec(), value }
    }

    fn within(&self, key: &[u8]) -> bool {
        let above = match &self.lower {
            Bound::Included(lower) => key >= lower.as_slice(),
            Bound::Excluded(lower) => key > lower.as_slice(),
            Bound::Unbounded => true,
        };
        above
            && match &self.upper {
                Bound::Included(upper) => key <= upper.as_slice(),
                Bound::Excluded(upper) => key < upper.as_slice(),
                Bound::Unbounded => true,
            }
    }

    fn advance_front(&mut self) -> Result<bool> {
        match &mut self.front {
            Some(cursor) => cursor.next()?,
            None => {
                let mut cursor = self.open()?;
                match &self.lower {
                    Bound::Included(lower) => cursor.seek(lower)?,
                    Bound::Excluded(lower) => {
                        cursor.seek(lower)?;
                        if cursor.valid() && cursor.key() == lower.as_slice() {
                            cursor.next()?;
                        }
                    }
                    Bound::Unbounded => cursor.seek_to_first()?,
                }
                self.front = Some(cursor);
            }
        }
        let front = self.front.as_ref().expect("opened");
        Ok(front.valid()
            && self.within(front.key())
            && self.back.as_ref().is_none_or(|back| back.valid() && front.key() < back.key()))
    }

    fn advance_back(&mut self) -> Result<bool> {
        match &mut self.back {
            Some(cursor) => cursor.prev()?,
            None => {
                let mut cursor = self.open()?;
                match &self.upper {
                    Bound::Included(upper) => cursor.seek_for_prev(upper)?,
                    Bound::Excluded(upper) => cursor.seek_before(upper)?,
                    Bound::Unbounded => cursor.seek_to_last()?,
                }
                self.back = Some(cursor);
            }
        }
        let back = self.back.as_ref().expect("opened");
        Ok(back.valid()
            && self.within(back.key())
            && self.front.as_ref().is_none_or(|front| front.valid() && front.key() < back.key()))
    }

    fn take(&mut self, front: bool) -> Option<Result<Entry>> {
        if self.done || self.limit == 0 {
            return None;
        }
        match if front { self.advance_front() } else { self.advance_back() } {
            Ok(true) => {
                self.limit -= 1;
                Some(Ok(self.entry(front)))
            }
            Ok(false) => {
                self.done = true;
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
