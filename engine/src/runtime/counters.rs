//! Sums that background work counts.
use std::sync::atomic::AtomicU64;

/// Sums since the database was opened. Nothing here is touched per operation.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) flushes: AtomicU64,
    pub(crate) flush_bytes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) compaction_read_bytes: AtomicU64,
    pub(crate) compaction_written_bytes: AtomicU64,
    pub(crate) compaction_moved_bytes: AtomicU64,
}
