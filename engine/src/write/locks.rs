//! Locks on keys, held from the first read of a commit until it is published.
use sapwood_base::KeyspaceId;
use sapwood_base::key::key_hash;
use sapwood_storage::sync::{Mutex, MutexGuard};

/// Keys share this many locks.
const STRIPES: usize = 1024;

/// The locks of keys, for commits that read before they write: those of strict and unique indexes.
pub(crate) struct KeyLocks {
    stripes: Box<[Mutex<()>]>,
}

impl Default for KeyLocks {
    fn default() -> KeyLocks {
        KeyLocks { stripes: (0..STRIPES).map(|_| Mutex::new(())).collect() }
    }
}

impl KeyLocks {
    /// The lock of a key.
    pub(crate) fn stripe(keyspace: KeyspaceId, key: &[u8]) -> usize {
        (key_hash(key) ^ u64::from(keyspace.0).wrapping_mul(0x9E37_79B9_7F4A_7C15)) as usize % STRIPES
    }

    /// Takes the locks in one order, which excludes deadlocks.
    pub(crate) fn lock(&self, mut stripes: Vec<usize>) -> Held<'_> {
        stripes.sort_unstable();
        stripes.dedup();
        Held { _guards: stripes.into_iter().map(|stripe| self.stripes[stripe].lock()).collect() }
    }
}

/// Locks that a commit keeps until it is published.
#[derive(Default)]
pub(crate) struct Held<'a> {
    _guards: Vec<MutexGuard<'a, ()>>,
}
