//! A Bloom filter for absent keys: one word per key, so a lookup is one load and an insert one
//! `fetch_or`.
//!
//! All five bits of a key lie in the same 64-bit word ("register-blocked" filter: Putze, Sanders,
//! Singler, "Cache-, hash- and space-efficient Bloom filters", 2007). With 16 bits per key about
//! 0.6 % of absent keys pass.
use crate::arena::prefetch;
use sapwood_base::KeyspaceId;
use std::sync::atomic::{AtomicU64, Ordering};

/// A view of the filter words of one arena.
#[derive(Clone, Copy)]
pub(crate) struct Filter<'a> {
    words: &'a [AtomicU64],
}

impl<'a> Filter<'a> {
    /// Creates the filter over `words`. REQUIRES: `words` were zero when the memtable began; there
    /// is at least one word.
    #[inline]
    pub(crate) fn new(words: &'a [AtomicU64]) -> Filter<'a> {
        Filter { words }
    }

    /// Marks the key with this hash as present.
    #[inline]
    pub(crate) fn insert(self, keyspace: KeyspaceId, hash: u64) {
        let (word, bits) = self.place(keyspace, hash);
        // Relaxed: an insert is acknowledged before a reader may rely on it, and that
        // acknowledgement orders this store before the reader's load. The first load saves the
        // locked operation when a hot key is written again.
        if word.load(Ordering::Relaxed) & bits != bits {
            word.fetch_or(bits, Ordering::Relaxed);
        }
    }

    /// Whether the key may be present; `false` is certain.
    #[inline]
    pub(crate) fn may_contain(self, keyspace: KeyspaceId, hash: u64) -> bool {
        let (word, bits) = self.place(keyspace, hash);
        // Relaxed: see `insert`.
        word.load(Ordering::Relaxed) & bits == bits
    }

    /// Prefetches the key's word.
    #[inline]
    pub(crate) fn prefetch(self, keyspace: KeyspaceId, hash: u64) {
        prefetch(std::ptr::from_ref(self.place(keyspace, hash).0).cast());
    }

    #[inline]
    fn place(self, keyspace: KeyspaceId, hash: u64) -> (&'a AtomicU64, u64) {
        // The keyspace maps equal keys of different keyspaces to different words.
        let mixed = hash ^ u64::from(keyspace.0).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // High bits choose the word, low bits the positions in it.
        let index = ((u128::from(mixed) * self.words.len() as u128) >> 64) as usize;
        let mut bits = 0;
        for step in 0..5 {
            bits |= 1 << ((mixed >> (6 * step)) & 63);
        }
        (&self.words[index], bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sapwood_base::key::key_hash;

    #[test]
    fn finds_all_that_was_inserted_and_little_else() {
        let count = 20_000u64;
        let words: Vec<AtomicU64> = (0..count / 4).map(|_| AtomicU64::new(0)).collect();
        let filter = Filter::new(&words);
        for key in 0..count {
            filter.insert(KeyspaceId(3), key_hash(&key.to_be_bytes()));
        }
        let passes = |keyspace, from: u64| {
            (from..from + count)
                .filter(|key| filter.may_contain(KeyspaceId(keyspace), key_hash(&key.to_be_bytes())))
                .count()
        };
        assert_eq!(passes(3, 0), count as usize);
        assert!(passes(3, count) < count as usize / 80, "{} absent keys pass", passes(3, count));
        assert!(passes(4, 0) < count as usize / 80, "{} keys of another keyspace pass", passes(4, 0));
    }
}
