//! The contract of every iterator below the public API, and the merge of several of them.
use crate::error::Result;
use crate::key::ValueKind;
use crate::sequence::SequenceNumber;

pub mod merging;

/// A cursor over entries in internal order: user key ascending, then sequence number *descending*, so the newest
/// version of a key comes first.
///
/// A fresh iterator is not positioned. `key`, `sequence`, `kind` and `value` may be called only while `valid`;
/// their borrows end at the next move. After an error the iterator is not valid until it is positioned anew.
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
    /// Moves one entry on. REQUIRES: `valid`.
    fn next(&mut self) -> Result<()>;
    /// Moves one entry back. REQUIRES: `valid`.
    fn prev(&mut self) -> Result<()>;
    /// The user key.
    fn key(&self) -> &[u8];
    /// The sequence number.
    fn sequence(&self) -> SequenceNumber;
    /// Put or delete.
    fn kind(&self) -> ValueKind;
    /// The value; empty for a tombstone.
    fn value(&self) -> &[u8];
    /// Whether the entry that follows may be another version of the current key; `false` is certain. REQUIRES:
    /// `valid`.
    fn may_repeat_after(&self) -> bool {
        true
    }
    /// As [`InternalIterator::may_repeat_after`], for the entry before.
    fn may_repeat_before(&self) -> bool {
        true
    }
    /// How many of the next moves on lead to *plain* entries: puts that `bound` sees, each the newest version of a key
    /// below `limit` (if there is one). 0 is always right; an answer costs less than that many moves. REQUIRES:
    /// `valid`.
    fn plain_ahead(&self, _bound: SequenceNumber, _limit: Option<&[u8]>) -> usize {
        0
    }
    /// As [`InternalIterator::plain_ahead`], for moves back and keys above `limit`; the entries are the only versions
    /// of their keys. REQUIRES: no other version of the current key comes before it.
    fn plain_behind(&self, _bound: SequenceNumber, _limit: Option<&[u8]>) -> usize {
        0
    }
    /// Makes a move that [`InternalIterator::plain_ahead`] counted; who never counts one is never asked.
    fn next_plain(&mut self) {}
    /// Makes a move that [`InternalIterator::plain_behind`] counted.
    fn prev_plain(&mut self) {}
}
