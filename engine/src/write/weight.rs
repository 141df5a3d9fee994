//! The room that the operations of a commit take in a memtable, and its limit.
use sapwood_base::format::write_batch::Operations;
use sapwood_base::{Error, Result};
use sapwood_memtable::ENTRY_BYTES;

/// Largest weight of a batch with the entries of its indexes: see [`Weight`].
const BATCH_WEIGHT_MAX: usize = 512 << 20;
/// Weight of an operation besides key and value.
const OPERATION_WEIGHT: usize = 64;
/// Larger values have memory of their own, and do not count.
pub(super) const ARENA_VALUE_BYTES: usize = 256 << 10;

/// Arena room that operations take, by one rule for batches, entries of indexes, and the replayed
/// log. It is checked before a commit reserves its place in the log, because a memtable must be
/// able to hold everything in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight(pub(super) usize);

impl Weight {
    /// The weight of one operation.
    #[inline]
    pub(crate) fn of(key_len: usize, value_len: usize) -> Weight {
        let stored = if value_len > ARENA_VALUE_BYTES { 0 } else { value_len };
        Weight(key_len + stored + OPERATION_WEIGHT)
    }

    /// The weight of the operations of a payload.
    pub(crate) fn of_payload(payload: &[u8]) -> Result<Weight> {
        let mut weight = Weight::default();
        for operation in Operations::new(payload) {
            let operation = operation?;
            weight.add(operation.key.len(), operation.value.len());
        }
        Ok(weight)
    }

    /// Adds the weight of one operation.
    #[inline]
    pub(crate) fn add(&mut self, key_len: usize, value_len: usize) {
        self.0 += Weight::of(key_len, value_len).0;
    }

    /// Whether a batch of this weight is allowed.
    #[inline]
    pub(crate) fn is_allowed(self) -> bool {
        self.0 <= BATCH_WEIGHT_MAX
    }

    /// Largest number of arena bytes that operations of this weight take.
    pub(crate) fn arena_bytes(self) -> usize {
        self.0.saturating_add(self.0 / 4)
    }
}

const _: () = assert!(OPERATION_WEIGHT + OPERATION_WEIGHT / 4 >= ENTRY_BYTES);

/// Capacity of a memtable for commits under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArenaRoom {
    /// All that is under way.
    Enough,
    /// Not this commit.
    TooLittle,
    /// This commit, once others are done.
    TakenByOthers,
}

#[cold]
pub(crate) fn too_heavy() -> Error {
    let message = "a batch holds at most 512 MiB of keys and values up to 256 KiB, with 64 bytes for each operation and \
                   with the entries of its indexes; split it";
    Error::invalid_argument(message)
}
