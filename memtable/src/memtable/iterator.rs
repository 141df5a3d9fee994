//! The memtable's cursor as the rest of the engine sees it.
use crate::memtable::Memtable;
use crate::skiplist::Skiplist;
use crate::skiplist::cursor::Cursor;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::{KeyspaceId, Result, SequenceNumber, ValueKind};
use std::sync::Arc;

/// A cursor over all versions of one keyspace. Keeps its memtable alive, and with it everything it lends out.
///
/// Entries that were in the memtable when the cursor was positioned are met exactly once, in order; entries that
/// come later may be met. A move fails only if entries that are not in order yet cannot be put in order.
pub struct MemtableIterator {
    cursor: Cursor,
    keyspace: KeyspaceId,
    memtable: Arc<Memtable>,
}

impl MemtableIterator {
    pub(super) fn new(memtable: Arc<Memtable>, keyspace: KeyspaceId) -> MemtableIterator {
        MemtableIterator { cursor: Cursor::default(), keyspace, memtable }
    }

    /// The same, but of each key it meets the newest version that a reader at `sequence`, a relative number, sees, and no
    /// other.
    pub(super) fn seen_at(
        memtable: Arc<Memtable>,
        keyspace: KeyspaceId,
        sequence: SequenceNumber,
    ) -> MemtableIterator {
        MemtableIterator { cursor: Cursor::seen_at(sequence), keyspace, memtable }
    }

    /// Runs `position` in the keyspace's list, which may have come into being since the last call, once it is in order.
    fn position(
        &mut self,
        position: impl FnOnce(&mut Cursor, &Skiplist, &crate::arena::Arena),
    ) -> Result<()> {
        match self.memtable.list(self.keyspace) {
            Some(list) => {
                list.mark_read();
                list.settle(&self.memtable.arena)?;
                position(&mut self.cursor, list, &self.memtable.arena);
            }
            None => self.cursor.clear(),
        }
        Ok(())
    }
}

impl InternalIterator for MemtableIterator {
    #[inline]
    fn valid(&self) -> bool {
        self.cursor.record().is_some()
    }

    fn seek_to_first(&mut self) -> Result<()> {
        self.position(|cursor, list, arena| cursor.seek_to_first(list, arena))
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.position(|cursor, list, arena| cursor.seek_to_last(list, arena))
    }

    fn seek(&mut self, target: &[u8]) -> Result<()> {
        self.position(|cursor, list, arena| cursor.seek(list, arena, target))
    }

    fn seek_before(&mut self, target: &[u8]) -> Result<()> {
        self.position(|cursor, list, arena| cursor.seek_before(list, arena, target))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        debug_assert!(self.valid());
        if self.cursor.next_within_leaf(&self.memtable.arena) {
            return Ok(());
        }
        self.position(|cursor, list, arena| cursor.next_leaf(list, arena))
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        debug_assert!(self.valid());
        if self.cursor.prev_within_leaf(&self.memtable.arena) {
            return Ok(());
        }
        self.position(|cursor, list, arena| cursor.prev_leaf(list, arena))
    }

    #[inline]
    fn key(&self) -> &[u8] {
        self.cursor.entry(&self.memtable.arena).key()
    }

    #[inline]
    fn sequence(&self) -> SequenceNumber {
        self.memtable.absolute(self.cursor.entry(&self.memtable.arena).sequence())
    }

    #[inline]
    fn kind(&self) -> ValueKind {
        self.cursor.entry(&self.memtable.arena).kind()
    }

    #[inline]
    fn value(&self) -> &[u8] {
        self.cursor.entry(&self.memtable.arena).value()
    }

    #[inline]
    fn may_repeat_after(&self) -> bool {
        self.cursor.has_older(&self.memtable.arena)
    }

    #[inline]
    fn may_repeat_before(&self) -> bool {
        self.cursor.has_newer()
    }
}
