//! Leaves and records for loom: the same interface as the arena's `node`, in tables instead of raw
//! memory.
//!
//! The protocol (`leaf`, `skiplist`, `cursor`) is the real one. Every node carries a witness,
//! written when the node is made and read when it is used, so that loom reports a thread that
//! reaches a node that was not published to it.
use crate::skiplist::leaf::{LeafBody, LeafOffset, Link, RecordCell, RecordOffset};
use loom::cell::UnsafeCell;
use sapwood_base::{Error, ErrorKind, Result, SequenceNumber, ValueKind};
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const CAPACITY: usize = 16;

/// Reports writes and reads of a node to loom.
struct Witness(UnsafeCell<()>);

// SAFETY: the cell holds nothing; loom reports accesses that are not ordered.
unsafe impl Send for Witness {}
// SAFETY: as above.
unsafe impl Sync for Witness {}

impl Witness {
    fn written() -> Witness {
        let witness = Witness(UnsafeCell::new(()));
        witness.0.with_mut(|_| ());
        witness
    }

    fn read(&self) {
        self.0.with(|_| ());
    }
}

/// Nodes by number. Number 0 is not used.
struct Table<T> {
    // Boxed twice: loom's threads have stacks of a few kilobytes.
    nodes: Box<[OnceLock<Box<T>>]>,
    // An atomic of the standard library: the assignment of numbers is not modelled.
    count: AtomicU32,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { nodes: (0..CAPACITY).map(|_| OnceLock::new()).collect(), count: AtomicU32::new(0) }
    }
}

impl<T> Table<T> {
    fn push(&self, node: T) -> Result<NonZeroU32> {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let slot = self.nodes.get(number as usize);
        let slot = slot.ok_or_else(|| Error::new(ErrorKind::NoSpace, "the model has no room for a node"))?;
        assert!(slot.set(Box::new(node)).is_ok(), "a number was handed out twice");
        Ok(NonZeroU32::new(number).expect("numbers start at one"))
    }

    fn get(&self, number: u32) -> &T {
        self.nodes[number as usize].get().expect("a name stands for a node")
    }
}

/// Where the nodes of a skiplist live.
#[derive(Default)]
pub struct Nodes {
    records: Table<ModelRecord>,
    leaves: Table<ModelLeaf>,
}

struct ModelRecord {
    witness: Witness,
    key: Vec<u8>,
    sequence: SequenceNumber,
    kind: ValueKind,
    value: Vec<u8>,
    older: RecordCell,
}

struct ModelLeaf {
    witness: Witness,
    body: LeafBody,
    tower: Vec<Link>,
}

/// One version of one key.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    offset: RecordOffset,
    node: &'a ModelRecord,
}

impl<'a> Record<'a> {
    /// Its name.
    pub fn offset(self) -> RecordOffset {
        self.offset
    }

    /// The next older version of the same key.
    pub fn older(self) -> &'a RecordCell {
        &self.node.older
    }

    /// Sequence number of the write.
    pub fn sequence(self) -> SequenceNumber {
        self.node.witness.read();
        self.node.sequence
    }

    /// Put or delete.
    pub fn kind(self) -> ValueKind {
        self.node.witness.read();
        self.node.kind
    }

    /// The user key.
    pub fn key(self) -> &'a [u8] {
        self.node.witness.read();
        &self.node.key
    }

    /// The value.
    pub fn value(self) -> &'a [u8] {
        self.node.witness.read();
        &self.node.value
    }

    /// Memory, in units of eight bytes.
    pub(super) fn units(self) -> u64 {
        1
    }
}

/// A leaf with its tower.
#[derive(Clone, Copy)]
pub struct Leaf<'a> {
    offset: LeafOffset,
    node: &'a ModelLeaf,
}

impl Deref for Leaf<'_> {
    type Target = LeafBody;

    fn deref(&self) -> &LeafBody {
        self.node.witness.read();
        &self.node.body
    }
}

impl<'a> Leaf<'a> {
    /// Its name.
    pub fn offset(self) -> LeafOffset {
        self.offset
    }

    /// The link at `level`.
    ///
    /// # Safety
    /// As in the arena: `level` is below the height of the leaf. Here it is checked.
    pub unsafe fn link(self, level: usize) -> &'a Link {
        self.node.witness.read();
        &self.node.tower[level]
    }

    /// The link to the next leaf.
    pub fn next_link(self) -> &'a Link {
        &self.node.tower[0]
    }

    /// No-op in a model.
    pub fn prefetch(self) {}
}

impl Nodes {
    /// Writes a record. It is not linked anywhere yet.
    pub fn new_record(
        &self,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<Record<'_>> {
        let (key, value) = (key.to_vec(), value.to_vec());
        let (witness, older) = (Witness::written(), RecordCell::new(None));
        let number = self.records.push(ModelRecord { witness, key, sequence, kind, value, older })?;
        Ok(self.record(RecordOffset::new(number)))
    }

    /// The record with this name.
    pub fn record(&self, offset: RecordOffset) -> Record<'_> {
        Record { offset, node: self.records.get(offset.get()) }
    }

    /// Writes a leaf with these slots. It is not linked anywhere yet.
    pub fn new_leaf(
        &self,
        height: usize,
        low_prefix: u64,
        low: Option<RecordOffset>,
        slots: &[(u64, RecordOffset)],
    ) -> Result<Leaf<'_>> {
        let body = LeafBody::new(height, low_prefix, low, slots);
        let tower = (0..height).map(|_| Link::end()).collect();
        let number = self.leaves.push(ModelLeaf { witness: Witness::written(), body, tower })?;
        Ok(self.leaf(LeafOffset::new(number)))
    }

    /// The leaf with this name.
    pub fn leaf(&self, offset: LeafOffset) -> Leaf<'_> {
        Leaf { offset, node: self.leaves.get(offset.get()) }
    }

    /// No-op in a model.
    pub fn prefetch_record(&self, _offset: RecordOffset) {}

    /// No-op in a model.
    pub fn prefetch_leaf(&self, _offset: LeafOffset) {}
}
