//! Sapwood: an embedded storage engine for write-heavy work.
//!
//! Writes land in a write-ahead log and a skiplist memtable, flush into sorted tables, and
//! compaction merges those in the background. Reads go through one shared buffer cache.
//!
//! ```
//! use sapwood::{Db, KeyspaceOptions, Result};
//!
//! # fn main() -> Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let db = Db::builder(folder.path().join("data")).memory_budget(64 << 20).open()?;
//! let users = db.keyspace("users", KeyspaceOptions::default())?;
//!
//! users.put("u1", "Ann, Oslo")?;
//! assert_eq!(users.get("u1")?.as_deref(), Some(&b"Ann, Oslo"[..]));
//!
//! let mut batch = db.batch();
//! batch.put(&users, "u2", "Bo, Rome").delete(&users, "u1");
//! batch.commit()?.wait_durable()?;
//!
//! let snapshot = db.snapshot();
//! users.put("u3", "Cy, Lima")?;
//! let names: Vec<_> = users.prefix("u").at(&snapshot).map(|entry| entry.map(|e| e.key().to_vec())).collect::<Result<_>>()?;
//! assert_eq!(names, [b"u2".to_vec()]);
//! db.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! The module [`guide`] has recipes (time to live, counters, queues, retention), the blocking
//! behaviour of calls and their use from an async program, the demands of the database on the
//! process and the directory, and the names here for calls of other engines.
//!
//! # Threads
//!
//! [`Db`] and [`Keyspace`] are cheap to clone and can be used from any number of threads at once;
//! readers take no locks. Snapshots, cursors and iterators are `Send` and own what they need.
//!
//! # Durability
//!
//! The durability of an acknowledged write is chosen per commit, see [`Durability`]. After any
//! crash the database holds a prefix of the history of commits, the same one for all keyspaces,
//! that includes every synced commit. (Commits without the log, [`Durability::None`], can be
//! missing from it.)

// Under `cfg(sapwood_loom)` the models in `tests/loom.rs` include the lock-free parts by
// themselves.
#![cfg(not(sapwood_loom))]
#![warn(missing_debug_implementations)]

mod sync;
mod key_range;
mod auto_traits;
mod planted;
#[cfg(feature = "serde")]
mod serialize;
mod options;
mod refusal;
mod runtime;
mod db;
mod keyspace;
mod directory;
mod write;
mod wal;
// Programs have used the names of its reports by this path.
#[doc(hidden)]
pub mod read;
mod index;
mod background;
mod manifest;
mod recovery;
// As above.
#[doc(hidden)]
pub mod stats;
#[cfg(feature = "sim")]
mod structure;
#[cfg(feature = "sim")]
mod remains;
#[cfg(feature = "sim")]
#[doc(hidden)]
#[allow(missing_debug_implementations, reason = "for tests of Sapwood itself")]
pub mod fuzzing;

#[cfg(feature = "sim")]
pub use background::BackgroundStep;
pub use db::{Db, DbBuilder, PauseGuard};
pub use index::cursor::IndexCursor;
pub use index::extractor::{BuiltinExtractor, Emit, Extractor, MAX_EMITTED_BYTES};
pub use index::iterator::{Hit, IndexIter};
pub use index::options::IndexOptions;
pub use index::verify::IndexReport;
pub use index::{BuildProgress, Index};
pub use key_range::KeyRange;
pub use keyspace::{Keyspace, KeyspaceOptions};
pub use options::{AdvancedOptions, Durability, WriteOptions};
pub use read::cursor::Cursor;
pub use read::explain::{
    Explain, ExplainedRows, ExplainedSource, Outcome as ExplainedOutcome, Place as ExplainedPlace,
};
pub use read::iterator::{Entry, Iter};
pub use read::slice::Slice;
pub use read::snapshot::Snapshot;
#[cfg(feature = "sim")]
pub use remains::Remains;
pub use sapwood_base::format::index_definition::{
    Builtin, ExtractorSpec, Field, IndexDefinition, KeyKind, Maintenance, Place, RowPart,
};
pub use sapwood_base::ordered;
pub use sapwood_base::{
    Error, ErrorKind, KeyspaceId, MAX_KEY_BYTES, MAX_VALUE_BYTES, Result, SequenceNumber,
};
pub use sapwood_compaction::CompactionStyle;
pub use sapwood_sstable::{Codec, FilterKind};
pub use sapwood_storage::env::Env;
#[cfg(feature = "sim")]
pub use sapwood_storage::sim;
pub use stats::{Health, KeyspaceStats, LevelStats, Memory, StallStats, Stats, TreeStats};
pub use write::Commit;
pub use write::batch::WriteBatch;

pub mod guide;

/// The parts of [`Env`], for a file system of your own ([`Env::with_file_system`]) and threads on
/// its machine.
pub mod env {
    pub use sapwood_storage::env::{JoinHandle, ThreadClass};
    pub use sapwood_storage::fs::{File, FileSystem, LockGuard, MappedFile, OpenMode, Space};
}

/// Compiles the code of README.md with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
