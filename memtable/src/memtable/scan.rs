//! A forward scan of a keyspace for callers that hold the memtable. Its entries borrow from the
//! memtable and not from the position, so that they outlive the next step.
use super::Memtable;
use crate::skiplist::Skiplist;
use crate::skiplist::cursor::Cursor;
use crate::skiplist::leaves::Leaves;
use sapwood_base::{KeyspaceId, Result, SequenceNumber, ValueKind};

/// Iterates over all versions in one keyspace, keys ascending, the newest version of a key first.
/// See [`Memtable::scan`].
pub struct Scan<'m> {
    cursor: Cursor,
    leaves: Option<&'m Leaves>,
    memtable: &'m Memtable,
}

/// One version of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScannedEntry<'m> {
    /// The key.
    pub key: &'m [u8],
    /// Sequence number of the write.
    pub sequence: SequenceNumber,
    /// Put or delete.
    pub kind: ValueKind,
    /// The value; empty for a delete.
    pub value: &'m [u8],
}

impl Memtable {
    /// Scans `keyspace` from its first entry on. Returns all present entries; may return later
    /// ones.
    ///
    /// # Errors
    /// `NoSpace` if the arena has no room to order unordered entries.
    pub fn scan(&self, keyspace: KeyspaceId) -> Result<Scan<'_>> {
        let mut cursor = Cursor::default();
        let list = self.list(keyspace);
        if let Some(list) = list {
            list.settle(&self.arena)?;
            cursor.seek_to_first(list.leaves(), &self.arena);
        }
        Ok(Scan { cursor, leaves: list.map(Skiplist::leaves), memtable: self })
    }
}

impl<'m> Iterator for Scan<'m> {
    type Item = ScannedEntry<'m>;

    #[inline]
    fn next(&mut self) -> Option<ScannedEntry<'m>> {
        let arena = &self.memtable.arena;
        let record = arena.record(self.cursor.record()?);
        let scanned = ScannedEntry {
            key: record.key(),
            sequence: self.memtable.absolute(record.sequence()),
            kind: record.kind(),
            value: record.value(),
        };
        if !self.cursor.next_within_leaf(arena)
            && let Some(leaves) = self.leaves
        {
            self.cursor.next_leaf(leaves, arena);
        }
        Some(scanned)
    }
}
