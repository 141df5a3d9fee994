//! The memtable's cursor as seen by the rest of the engine.
use crate::arena::Arena;
use crate::memtable::Memtable;
use crate::skiplist::cursor::Cursor;
use crate::skiplist::leaves::Leaves;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::{KeyspaceId, Result, SequenceNumber, ValueKind};
use std::sync::Arc;

/// A cursor over all versions of one keyspace. Keeps its memtable alive, and with it all borrowed
/// entries.
///
/// Returns each entry that was in the memtable when the cursor was positioned exactly once, in
/// order; may return later entries. A move fails only if ordering unordered entries fails.
pub struct MemtableIterator {
    cursor: Cursor,
    keyspace: KeyspaceId,
    memtable: Arc<Memtable>,
}

impl Memtable {
    /// Returns a cursor over all versions in `keyspace`. It keeps the memtable alive.
    pub fn iter(self: &Arc<Self>, keyspace: KeyspaceId) -> MemtableIterator {
        MemtableIterator { cursor: Cursor::default(), keyspace, memtable: Arc::clone(self) }
    }

    /// Returns a cursor over the state of `keyspace` at `sequence`: the newest version of each key
    /// up to `sequence`. A key is one step, however many versions it has. REQUIRES: no entry with a
    /// number up to `sequence` is still to be inserted.
    pub fn iter_at(self: &Arc<Self>, keyspace: KeyspaceId, sequence: SequenceNumber) -> MemtableIterator {
        let cursor = Cursor::seen_at(self.seen_at(sequence));
        MemtableIterator { cursor, keyspace, memtable: Arc::clone(self) }
    }
}

impl MemtableIterator {
    /// Orders the keyspace's list, which may have been created since the last call, then runs
    /// `position` in it.
    fn position(&mut self, position: impl FnOnce(&mut Cursor, &Leaves, &Arena)) -> Result<()> {
        match self.memtable.list(self.keyspace) {
            Some(list) => {
                list.mark_read();
                list.settle(&self.memtable.arena)?;
                position(&mut self.cursor, list.leaves(), &self.memtable.arena);
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
        self.position(|cursor, leaves, arena| cursor.seek_to_first(leaves, arena))
    }

    fn seek_to_last(&mut self) -> Result<()> {
        self.position(|cursor, leaves, arena| cursor.seek_to_last(leaves, arena))
    }

    fn seek(&mut self, target: &[u8]) -> Result<()> {
        self.position(|cursor, leaves, arena| cursor.seek(leaves, arena, target))
    }

    fn seek_before(&mut self, target: &[u8]) -> Result<()> {
        self.position(|cursor, leaves, arena| cursor.seek_before(leaves, arena, target))
    }

    #[inline]
    fn next(&mut self) -> Result<()> {
        debug_assert!(self.valid());
        if self.cursor.next_within_leaf(&self.memtable.arena) {
            return Ok(());
        }
        self.position(|cursor, leaves, arena| cursor.next_leaf(leaves, arena))
    }

    #[inline]
    fn prev(&mut self) -> Result<()> {
        debug_assert!(self.valid());
        if self.cursor.prev_within_leaf(&self.memtable.arena) {
            return Ok(());
        }
        self.position(|cursor, leaves, arena| cursor.prev_leaf(leaves, arena))
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
