//! The memory of one memtable: a bump allocator over one recycled anonymous mapping.
//!
//! Offsets are `u32` in units of eight bytes, so a link costs four bytes and an arena reaches 32
//! GiB. Nothing that is allocated moves or dies before the arena does, which is why readers need
//! neither locks nor reference counts. A mapping holds, in this order: the words of the filter,
//! then everything that was allocated. It is much larger than the memtable (address space is free)
//! so that writers that race past the rotation threshold never fail.
//!
//! Invariants:
//! 1. Two allocations never overlap ([`bump`]).
//! 2. A recycled mapping holds old bytes beyond its filter: the caller of `allocate` writes every
//!    byte that can be read.
//! 3. Filter words are zero when an arena is handed out.
#![cfg_attr(sapwood_loom, allow(missing_docs, reason = "only the models see these items"))]

pub mod bump;
#[cfg(not(sapwood_loom))]
mod mapping;
#[cfg(not(sapwood_loom))]
mod pool;

#[cfg(not(sapwood_loom))]
pub(crate) use self::bump::UNIT_BYTES;
#[cfg(not(sapwood_loom))]
pub use self::memory::{Arena, LargeValue};
#[cfg(not(sapwood_loom))]
pub(crate) use self::memory::{EXTERNAL_VALUE_BYTES, prefetch};
#[cfg(not(sapwood_loom))]
pub use pool::ArenaPool;

#[cfg(not(sapwood_loom))]
mod memory;
