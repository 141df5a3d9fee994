//! The search for one key, as memtables and tables receive it.
use crate::key::key_hash;
use crate::sequence::SequenceNumber;

/// A key, as a reader at `sequence` sees it.
#[derive(Clone, Copy, Debug)]
pub struct Lookup<'k> {
    /// The user key.
    pub key: &'k [u8],
    /// [`key_hash`] of the key. Memtable filters, table filters and block tags all use it.
    pub hash: u64,
    /// Later versions of the key are not seen.
    pub sequence: SequenceNumber,
}

impl<'k> Lookup<'k> {
    /// The lookup of `key` at `sequence`. Hashes the key.
    #[inline(always)]
    pub fn new(key: &'k [u8], sequence: SequenceNumber) -> Lookup<'k> {
        Lookup { key, hash: key_hash(key), sequence }
    }
}
