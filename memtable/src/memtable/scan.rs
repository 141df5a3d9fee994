//! One way through a keyspace of a memtable, for who has the memtable anyway: what it meets is lent by the memtable and
//! not by the position, so that it can be kept while the scan goes on.
use super::Memtable;
use crate::skiplist::Skiplist;
use crate::skiplist::cursor::Cursor;
use sapwood_base::{KeyspaceId, Result, SequenceNumber, ValueKind};

/// All versions in one keyspace, keys ascending, the newest version of a key first. See [`Memtable::scan`].
pub struct Scan<'m> {
    cursor: Cursor,
    list: Option<&'m Skiplist>,
    memtable: &'m Memtable,
}

/// One version of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned<'m> {
    /// The key.
    pub key: &'m [u8],
    /// When it was written.
    pub sequence: SequenceNumber,
    /// Put or delete.
    pub kind: ValueKind,
    /// The value; empty for a delete.
    pub value: &'m [u8],
}

impl Memtable {
    /// Scans `keyspace` from its first entry on. Meets what is there now; of what comes later it may meet some.
    ///
    /// # Errors
    /// `NoSpace` if entries that are not in order yet cannot be put in order.
    pub fn scan(&self, keyspace: KeyspaceId) -> Result<Scan<'_>> {
        let mut cursor = Cursor::default();
        let list = self.list(keyspace);
        if let Some(list) = list {
            list.settle(&self.arena)?;
            cursor.seek_to_first(list, &self.arena);
        }
        Ok(Scan { cursor, list, memtable: self })
    }
}

impl<'m> Iterator for Scan<'m> {
    type Item = Scanned<'m>;

    #[inline]
    fn next(&mut self) -> Option<Scanned<'m>> {
        let arena = &self.memtable.arena;
        let record = arena.record(self.cursor.record()?);
        let scanned = Scanned {
            key: record.key(),
            sequence: self.memtable.absolute(record.sequence()),
            kind: record.kind(),
            value: record.value(),
        };
        if !self.cursor.next_within_leaf(arena)
            && let Some(list) = self.list
        {
            self.cursor.next_leaf(list, arena);
        }
        Some(scanned)
    }
}
