//! Resolves the versions of a key at a sequence number.
//!
//! The read paths differ in how they find versions: a get walks memtables and runs, a cursor merges
//! them, index maintenance compares old rows with new ones. They all pass a version to this file,
//! which decides whether a reader sees it and whether it has a value. A new kind of entry does not
//! compile before it is decided here.
//!
//! | future kind | decision here | elsewhere in the read path |
//! |---|---|---|
//! | merge | [`resolve`] continues with older versions and applies the operator | none |
//! | range delete | [`is_seen`] also checks the newest covering fragment | sources of fragments |
//! | put that expires | [`has_value`] compares with the clock of the read | none |
//! | value reference | [`Found::bytes`] fetches the value | none |
use sapwood_base::{SequenceNumber, ValueKind};
use sapwood_sstable::ValueRef;

/// A value in place.
pub(crate) enum Found<'g> {
    Memtable(&'g [u8]),
    Table(ValueRef<'g>),
}

impl Found<'_> {
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Found::Memtable(value) => value,
            Found::Table(value) => value,
        }
    }
}

/// Whether a reader at `at` sees a version written at `version`.
#[inline(always)]
pub(crate) fn is_seen(version: SequenceNumber, at: SequenceNumber) -> bool {
    version <= at
}

/// Whether a key has a value if this is the kind of the newest version that a reader sees.
#[inline(always)]
pub(crate) fn has_value(kind: ValueKind) -> bool {
    match kind {
        ValueKind::Put => true,
        ValueKind::Delete => false,
    }
}

/// The value of a key whose newest visible version is `value`, of this kind; `None` if the key is
/// deleted.
#[inline(always)]
pub(crate) fn resolve<V>(kind: ValueKind, value: V) -> Option<V> {
    if has_value(kind) { Some(value) } else { None }
}
