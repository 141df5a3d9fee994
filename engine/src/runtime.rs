//! The runtime: the state that all handles of a database share.
//!
//! The work of the engine (reads, writes, indexes, background work, recovery) lies above the state
//! and is handed a [`Core`]. Each file of this folder depends only on files before it in this list:
//!
//! 1. `core.rs`: the state. `counters.rs`: sums in it. `views.rs`: how readers see the MANIFEST.
//! 2. `health.rs`: whether the database accepts calls. `waiting.rs`: waits for background work.
//! 3. `install.rs`: how an edit becomes durable, then visible. `log.rs`: how the log does.
//! 4. `catalog.rs`: creation and removal of keyspaces and indexes.
//! 5. `open.rs`, `close.rs`: the start and the end of a session. They lie above all work.
mod counters;
mod core;
mod views;
mod health;
mod waiting;
mod install;
mod log;
mod catalog;
mod open;
mod close;

pub(crate) use self::core::Core;
pub use health::Health;
