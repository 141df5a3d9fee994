//! Values as a lookup returns them: a range of a cached block, borrowed under an epoch guard or
//! pinned for longer.
use sapwood_base::{SequenceNumber, ValueKind};
use sapwood_storage::{BlockRef, PinnedBlock};
use std::fmt;
use std::ops::Deref;

/// The version of a key that a lookup found.
#[derive(Debug)]
pub struct Found<'g> {
    /// Put or delete.
    pub kind: ValueKind,
    /// The sequence number of the version.
    pub sequence: SequenceNumber,
    /// The value; empty for a tombstone.
    pub value: ValueRef<'g>,
}

/// A value inside a block, valid as long as the epoch guard of the lookup.
pub struct ValueRef<'g> {
    block: BlockRef<'g>,
    start: usize,
    end: usize,
}

impl<'g> ValueRef<'g> {
    #[inline]
    pub(super) fn new(block: BlockRef<'g>, start: usize, end: usize) -> ValueRef<'g> {
        ValueRef { block, start, end }
    }

    /// Returns the same value, independent of the guard. It keeps the whole block in memory while
    /// it lives.
    pub fn pin(&self) -> PinnedValue {
        PinnedValue { block: self.block.pin(), start: self.start, end: self.end }
    }
}

impl Deref for ValueRef<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }
}

impl fmt::Debug for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// A value inside a pinned block. It owns its memory, is cheap to clone and may move to other
/// threads.
#[derive(Clone)]
pub struct PinnedValue {
    block: PinnedBlock,
    start: usize,
    end: usize,
}

impl Deref for PinnedValue {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        &self.block[self.start..self.end]
    }
}

impl fmt::Debug for PinnedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
