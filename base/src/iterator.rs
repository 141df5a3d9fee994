//! The contract of every iterator below the public API, and the merge of several of them.
use crate::error::Result;
use crate::key::ValueKind;
use crate::sequence::SequenceNumber;
use std::ops::Bound;
use std::sync::Arc;

pub mod merging;

/// The keys that a scan may visit: from `lower` on, and below `upper`. `None` is no limit. Cheap to
/// clone, because every source of a scan has a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// The smallest key in the range.
    pub lower: Option<Arc<[u8]>>,
    /// The smallest key above the range.
    pub upper: Option<Arc<[u8]>>,
}

impl KeyRange {
    /// The range with these bounds. No key lies between a key and the same key followed by a zero
    /// byte, so bounds of every kind have this form.
    pub fn new(lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> KeyRange {
        let after = |key: &[u8]| Some([key, &[0]].concat().into());
        KeyRange {
            lower: match lower {
                Bound::Included(key) => Some(key.into()),
                Bound::Excluded(key) => after(key),
                Bound::Unbounded => None,
            },
            upper: match upper {
                Bound::Included(key) => after(key),
                Bound::Excluded(key) => Some(key.into()),
                Bound::Unbounded => None,
            },
        }
    }

    /// Whether no key belongs to the range.
    pub fn is_empty(&self) -> bool {
        match (&self.lower, &self.upper) {
            (Some(lower), Some(upper)) => lower >= upper,
            (None, Some(upper)) => upper.is_empty(),
            _ => false,
        }
    }

    /// Whether `key` lies below the range.
    #[inline(always)]
    pub fn is_below(&self, key: &[u8]) -> bool {
        self.lower.as_deref().is_some_and(|lower| key < lower)
    }

    /// Whether `key` lies above the range.
    #[inline(always)]
    pub fn is_above(&self, key: &[u8]) -> bool {
        self.upper.as_deref().is_some_and(|upper| key >= upper)
    }
}

/// A cursor over entries in internal order: user key ascending, then sequence number *descending*,
/// so the newest version of a key comes first.
///
/// A fresh iterator is not positioned. `key`, `sequence`, `kind` and `value` may be called only
/// while `valid`; their borrows end at the next move. After an error the iterator is invalid until
/// it is positioned again.
pub trait InternalIterator {
    /// Whether the iterator stands on an entry.
    fn valid(&self) -> bool;
    /// Moves to the first entry.
    fn seek_to_first(&mut self) -> Result<()>;
    /// Moves to the last entry (the oldest version of the largest key).
    fn seek_to_last(&mut self) -> Result<()>;
    /// Moves to the first entry whose user key is `>= target` (the newest version of that key).
    fn seek(&mut self, target: &[u8]) -> Result<()>;
    /// Moves to the last entry whose user key is `< target` (the oldest version of that key).
    fn seek_before(&mut self, target: &[u8]) -> Result<()>;
    /// Moves to the next entry. REQUIRES: `valid`.
    fn next(&mut self) -> Result<()>;
    /// Moves to the previous entry. REQUIRES: `valid`.
    fn prev(&mut self) -> Result<()>;
    /// The user key.
    fn key(&self) -> &[u8];
    /// The sequence number.
    fn sequence(&self) -> SequenceNumber;
    /// Put or delete.
    fn kind(&self) -> ValueKind;
    /// The value; empty for a tombstone.
    fn value(&self) -> &[u8];
    /// Whether the next entry may be another version of the current key; `false` is certain.
    /// REQUIRES: `valid`.
    fn may_repeat_after(&self) -> bool {
        true
    }
    /// Like [`InternalIterator::may_repeat_after`], for the previous entry.
    fn may_repeat_before(&self) -> bool {
        true
    }
    /// The length of the *run* ahead: how many of the next forward moves lead to puts visible at
    /// `bound`, each the newest version of a key below `limit` (if there is one). 0 is always
    /// correct. The call costs less than that many moves. REQUIRES: `valid`.
    fn run_ahead(&self, _bound: SequenceNumber, _limit: Option<&[u8]>) -> usize {
        0
    }
    /// Like [`InternalIterator::run_ahead`], for backward moves and keys above `limit`; the
    /// entries are the only versions of their keys. REQUIRES: no other version of the current key
    /// comes before it.
    fn run_behind(&self, _bound: SequenceNumber, _limit: Option<&[u8]>) -> usize {
        0
    }
    /// Makes a move that [`InternalIterator::run_ahead`] counted. Never called on an iterator
    /// that counts none.
    fn next_in_run(&mut self) {}
    /// Makes a move that [`InternalIterator::run_behind`] counted.
    fn prev_in_run(&mut self) {}
}
