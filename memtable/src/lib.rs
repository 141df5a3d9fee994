//! The memtable: holds writes between the log and the first table file.
//!
//! One [`Memtable`] is one *generation*: an [`Arena`] that holds a skiplist per keyspace, and a
//! small filter that answers most lookups of absent keys. Writers insert in parallel. Readers take
//! no lock and touch no reference count. Entries are never removed; a generation is flushed as a
//! whole and its arena goes back to the [`ArenaPool`].
//!
//! Architecture invariant: this crate does no I/O and depends on neither the log nor table files.
//! Modules are listed in the order in which data meets them. All `unsafe` is in `arena` and below
//! `skiplist`.

#[cfg(not(sapwood_loom))]
mod sync;
#[cfg(sapwood_loom)]
pub mod sync;
#[cfg(not(sapwood_loom))]
mod options;
#[cfg(not(sapwood_loom))]
mod memtable;
#[cfg(not(sapwood_loom))]
mod filter;
#[cfg(not(sapwood_loom))]
mod skiplist;
#[cfg(sapwood_loom)]
pub mod skiplist;
#[cfg(not(sapwood_loom))]
mod arena;
#[cfg(sapwood_loom)]
pub mod arena;

mod planted;

#[cfg(not(sapwood_loom))]
pub use arena::{Arena, ArenaPool, LargeValue};
#[cfg(not(sapwood_loom))]
pub use memtable::bulk::BulkLoader;
#[cfg(not(sapwood_loom))]
pub use memtable::iterator::MemtableIterator;
#[cfg(not(sapwood_loom))]
pub use memtable::scan::{Scan, ScannedEntry};
#[cfg(not(sapwood_loom))]
pub use memtable::{ENTRY_BYTES, Found, Memtable};
#[cfg(not(sapwood_loom))]
pub use options::MemtableOptions;
