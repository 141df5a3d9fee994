//! Sapwood's only access to the operating system, and the buffer cache above it.
//!
//! All other crates take an [`Env`] and thereby files, clock, randomness and threads; tests pass a
//! simulated one. This crate knows neither levels nor keyspaces. Modules are listed in the order in
//! which data meets them.
#![deny(unsafe_code)]

pub mod env;
pub mod fs;
pub mod mapped;
pub mod sync;
pub mod cache;
pub mod files;
mod planted;
#[cfg(feature = "sim")]
pub mod sim;

pub use cache::{BlockRef, BufferCache, CacheStats, Fill, PinnedBlock, SlotTable};
pub use env::{Env, JoinHandle, ThreadClass};
pub use files::{DatabaseFiles, FileLifetime};
pub use fs::{File, FileSystem, LockGuard, OpenMode, Space};
pub use mapped::MappedFile;
#[cfg(feature = "sim")]
pub use sim::SimFs;
