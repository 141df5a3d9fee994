//! Leaves and records in the arena: all pointer code of the skiplist.
//!
//! A record, 8-byte aligned:
//!
//! ```text
//!  0 u32 the next older version   4 u32 value length
//!  8 u64 [sequence:43 | key length:17 | kind:4]
//! 16 key, then the value, or its address when it is too large for the arena
//! ```
//!
//! The sequence number is relative to the memtable's first one, see [`Memtable`](crate::Memtable).
//! The whole skiplist uses relative numbers.
//!
//! Invariant: a [`LeafOffset`] or [`RecordOffset`] is created here, after the node was written, and
//! is used only with its own arena.
use crate::arena::{Arena, EXTERNAL_VALUE_BYTES, LargeValue, UNIT_BYTES, prefetch};
use crate::skiplist::leaf::{LeafBody, LeafOffset, Link, RecordCell, RecordOffset};
use sapwood_base::{Error, MAX_KEY_BYTES, MAX_VALUE_BYTES, Result, SequenceNumber, ValueKind};
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::ptr::NonNull;

/// Where the nodes of a skiplist live.
pub type Nodes = Arena;

const KIND_BITS: u32 = 4;
const KEY_BITS: u32 = 17;
const HEADER_BYTES: usize = size_of::<RecordHeader>();
const LINE_BYTES: usize = 64;

const _: () = assert!(MAX_KEY_BYTES < 1 << KEY_BITS && MAX_VALUE_BYTES <= u32::MAX as usize);
/// The largest relative sequence number.
pub const MAX_RELATIVE: SequenceNumber = SequenceNumber((1 << (64 - KIND_BITS - KEY_BITS)) - 1);
const _: () = assert!(HEADER_BYTES == 16);

#[repr(C)]
struct RecordHeader {
    older: RecordCell,
    value_len: u32,
    packed: u64,
}

/// One version of one key.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    offset: RecordOffset,
    address: NonNull<u8>,
    arena: PhantomData<&'a Arena>,
}

impl<'a> Record<'a> {
    #[inline]
    fn header(self) -> &'a RecordHeader {
        // SAFETY: a `RecordOffset` names a complete record, which stays as long as the arena, and
        // of which nothing but the atomic `older` changes.
        unsafe { self.address.cast().as_ref() }
    }

    /// Its name.
    #[inline]
    pub fn offset(self) -> RecordOffset {
        self.offset
    }

    /// The next older version of the same key.
    #[inline]
    pub fn older(self) -> &'a RecordCell {
        &self.header().older
    }

    /// Sequence number of the write, relative.
    #[inline]
    pub fn sequence(self) -> SequenceNumber {
        SequenceNumber(self.header().packed >> (KIND_BITS + KEY_BITS))
    }

    /// Put or delete.
    #[inline]
    pub fn kind(self) -> ValueKind {
        let number = (self.header().packed & ((1 << KIND_BITS) - 1)) as u8;
        ValueKind::from_u8(number).expect("a record holds the number of a kind")
    }

    #[inline]
    fn key_len(self) -> usize {
        ((self.header().packed >> KIND_BITS) & ((1 << KEY_BITS) - 1)) as usize
    }

    /// The user key.
    #[inline]
    pub fn key(self) -> &'a [u8] {
        // SAFETY: `key_len` bytes after the header were written before the record got its name and
        // never change.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr().add(HEADER_BYTES), self.key_len()) }
    }

    /// The value.
    #[inline]
    pub fn value(self) -> &'a [u8] {
        let len = self.header().value_len as usize;
        // SAFETY: the key is followed by the value or, if that is long, by its address, which the
        // arena keeps valid as long as it lives; both were written before the record got its name
        // and never change.
        unsafe {
            let behind_key = self.address.as_ptr().add(HEADER_BYTES + self.key_len());
            let start = if len > EXTERNAL_VALUE_BYTES {
                std::ptr::with_exposed_provenance(behind_key.cast::<usize>().read_unaligned())
            } else {
                behind_key.cast_const()
            };
            std::slice::from_raw_parts(start, len)
        }
    }

    /// Memory in the arena, in units of eight bytes.
    #[inline]
    pub(super) fn units(self) -> u64 {
        let len = self.header().value_len as usize;
        let stored = if len > EXTERNAL_VALUE_BYTES { size_of::<usize>() } else { len };
        (HEADER_BYTES + self.key_len() + stored).div_ceil(UNIT_BYTES) as u64
    }
}

/// A leaf with its tower.
#[derive(Clone, Copy)]
pub struct Leaf<'a> {
    offset: LeafOffset,
    address: NonNull<LeafBody>,
    arena: PhantomData<&'a Arena>,
}

impl Deref for Leaf<'_> {
    type Target = LeafBody;

    #[inline]
    fn deref(&self) -> &LeafBody {
        // SAFETY: a `LeafOffset` names a complete leaf, which stays as long as the arena, and of
        // which nothing but the atomics change.
        unsafe { self.address.as_ref() }
    }
}

impl<'a> Leaf<'a> {
    /// Its name.
    #[inline]
    pub fn offset(self) -> LeafOffset {
        self.offset
    }

    /// The link at `level`.
    ///
    /// # Safety
    /// `level` is below the height of the leaf. (Checking the height here would cost a cache miss
    /// per visit.)
    #[inline]
    pub unsafe fn link(self, level: usize) -> &'a Link {
        debug_assert!(level < self.height());
        // SAFETY: the tower of `height` links directly follows the body and was written with it.
        unsafe { self.address.add(1).cast::<Link>().add(level).as_ref() }
    }

    /// The link to the next leaf.
    #[inline]
    pub fn next_link(self) -> &'a Link {
        // SAFETY: every leaf has at least one link.
        unsafe { self.link(0) }
    }

    /// Prefetches the lines that a search in this leaf reads.
    #[inline]
    pub fn prefetch(self) {
        let start = self.address.as_ptr().cast::<u8>();
        for line in 0..size_of::<LeafBody>() / LINE_BYTES {
            prefetch(start.wrapping_add(line * LINE_BYTES));
        }
    }
}

impl Arena {
    /// Writes a record. It is not linked anywhere yet.
    ///
    /// The checks go into the caller and the writing does not: left to itself, the compiler makes
    /// one function of both and calls it with twice the arguments.
    #[inline(always)]
    pub fn new_record(
        &self,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: &[u8],
    ) -> Result<Record<'_>> {
        if key.len() > MAX_KEY_BYTES || value.len() > MAX_VALUE_BYTES || sequence > MAX_RELATIVE {
            return Err(out_of_range(key, sequence, value));
        }
        if LargeValue::is_one(value.len()) {
            return self.new_large_record(key, sequence, kind, LargeValue::copy(value)?);
        }
        self.write_record(key, sequence, kind, value, value.len())
    }

    /// Allocates and writes a record that is not visible yet, with a value that has its own memory.
    ///
    /// # Errors
    /// As [`Arena::new_record`].
    #[cold]
    pub fn new_large_record(
        &self,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        value: LargeValue,
    ) -> Result<Record<'_>> {
        let len = value.bytes().len();
        if key.len() > MAX_KEY_BYTES || len > MAX_VALUE_BYTES || sequence > MAX_RELATIVE {
            return Err(out_of_range(key, sequence, value.bytes()));
        }
        let address = self.store_external(value).expose_provenance().to_ne_bytes();
        self.write_record(key, sequence, kind, &address, len)
    }

    /// Writes a record with `stored` after the key, for a value of `value_len` bytes.
    #[inline(never)]
    fn write_record(
        &self,
        key: &[u8],
        sequence: SequenceNumber,
        kind: ValueKind,
        stored: &[u8],
        value_len: usize,
    ) -> Result<Record<'_>> {
        let offset = self.allocate(HEADER_BYTES + key.len() + stored.len(), 1)?;
        let address = self.pointer(offset);
        let lengths_and_kind = ((key.len() as u64) << KIND_BITS) | kind as u64;
        let packed = (sequence.0 << (KIND_BITS + KEY_BITS)) | lengths_and_kind;
        let header = RecordHeader { older: RecordCell::new(None), value_len: value_len as u32, packed };
        // SAFETY: the allocation is ours alone, aligned to eight bytes, and as long as the written
        // bytes.
        unsafe {
            address.cast::<RecordHeader>().write(header);
            let behind_header = address.add(HEADER_BYTES);
            behind_header.copy_from_nonoverlapping(key.as_ptr(), key.len());
            behind_header.add(key.len()).copy_from_nonoverlapping(stored.as_ptr(), stored.len());
        }
        let offset = NonZeroU32::new(offset).expect("the filter lies at the start of the arena");
        Ok(self.record(RecordOffset::new(offset)))
    }

    /// The record with this name.
    #[inline]
    pub fn record(&self, offset: RecordOffset) -> Record<'_> {
        // SAFETY: the address is inside the mapping, so it is not null.
        let address = unsafe { NonNull::new_unchecked(self.pointer(offset.get())) };
        Record { offset, address, arena: PhantomData }
    }

    /// Writes a leaf with these slots. It is not linked anywhere yet.
    pub fn new_leaf(
        &self,
        height: usize,
        low_prefix: u64,
        low: Option<RecordOffset>,
        slots: &[(u64, RecordOffset)],
    ) -> Result<Leaf<'_>> {
        let align = (align_of::<LeafBody>() / UNIT_BYTES) as u32;
        let offset = self.allocate(size_of::<LeafBody>() + height * size_of::<Link>(), align)?;
        let address = self.pointer(offset).cast::<LeafBody>();
        // SAFETY: the allocation is ours alone, aligned for a leaf, and has room for the body and
        // `height` links.
        unsafe {
            address.write(LeafBody::new(height, low_prefix, low, slots));
            for level in 0..height {
                address.add(1).cast::<Link>().add(level).write(Link::end());
            }
        }
        let offset = NonZeroU32::new(offset).expect("the filter lies at the start of the arena");
        Ok(self.leaf(LeafOffset::new(offset)))
    }

    /// The leaf with this name.
    #[inline]
    pub fn leaf(&self, offset: LeafOffset) -> Leaf<'_> {
        // SAFETY: the address is inside the mapping, so it is not null.
        let address = unsafe { NonNull::new_unchecked(self.pointer(offset.get())) }.cast();
        Leaf { offset, address, arena: PhantomData }
    }

    /// Prefetches the lines of a record that a scan reads first.
    #[inline]
    pub fn prefetch_record(&self, offset: RecordOffset) {
        let address = self.pointer(offset.get());
        prefetch(address);
        prefetch(address.wrapping_add(LINE_BYTES));
    }

    /// Prefetches a leaf.
    #[inline]
    pub fn prefetch_leaf(&self, offset: LeafOffset) {
        let leaf = self.leaf(offset);
        leaf.prefetch();
        prefetch(leaf.address.as_ptr().cast::<u8>().wrapping_add(size_of::<LeafBody>()));
    }
}

#[cold]
fn out_of_range(key: &[u8], sequence: SequenceNumber, value: &[u8]) -> Error {
    Error::invalid_argument(format!(
        "an entry with a key of {} bytes (at most {MAX_KEY_BYTES}), a value of {} bytes (at most {MAX_VALUE_BYTES}) and \
         relative sequence number {sequence} (at most {}) cannot be stored",
        key.len(),
        value.len(),
        MAX_RELATIVE
    ))
}
