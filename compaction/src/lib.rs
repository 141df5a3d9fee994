//! Compaction: how sorted runs move down the tree.
//!
//! ```text
//!   memtable generation ──flush──> level 0      up to 8 runs, newest first
//!                                    │  job: all of them at once
//!                                    v
//!                                  tiers        up to 6 runs each, as many tiers as the data needs
//!                                    │  job: a full tier becomes one run of the next; once it is
//!                                    │  worth it, all runs with the tables they overlap below
//!                                    v
//!                                  last level   one run, disjoint tables
//! ```
//!
//! This is [`CompactionStyle::Hybrid`], after the lazy leveling of Dostoevsky (Dayan and Idreos,
//! SIGMOD 2018). It keeps the cost of leveling for reads of existing keys and for space, and avoids
//! the upper merges, which are most of the write amplification. [`CompactionStyle::Leveled`] keeps
//! one run in every level but the first.
//!
//! Architecture invariant: this is the only crate that makes tables from existing data. It never
//! touches the MANIFEST or the log: a flush and each step of a job return edits, and the engine
//! installs them.
#![cfg(not(sapwood_loom))]
#![forbid(unsafe_code)]

pub(crate) mod planted;
pub mod options;
pub mod held;
pub mod version;
pub mod flush;
pub mod garbage;
pub mod picker;
pub mod job;
pub mod survivors;
pub mod output;

#[cfg(test)]
mod scripts;

pub use options::{CompactionOptions, CompactionStyle, FIRST_TIER, LAST_LEVEL, LAST_TIER};
pub use version::{Run, RunTable, TableHandle, Version};
