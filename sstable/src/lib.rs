//! Sorted tables: one immutable file of entries in internal order.
//!
//! A [`TableBuilder`] writes a table in one pass; a [`Table`] reads it. Modules are listed in
//! data-flow order: options, then the builder's modules, then the reader's. The bytes are described
//! in `sapwood_base::format`.
//!
//! Architecture invariant: this crate works on one file at a time. It knows neither levels nor
//! keyspaces, and it never creates, renames or removes a file. Any byte of a table may be wrong, so
//! each is checked once, when it is loaded.
#![cfg(not(sapwood_loom))]
#![deny(unsafe_code)]

pub mod options;
mod vector;
mod codec;
pub mod filter;
pub mod builder;
mod index;
mod blocks;
mod cursor;
pub mod table;
mod planted;
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod fuzzing;

pub use builder::{TableBuilder, TableSummary};
pub use options::{Codec, FilterKind, ReadOptions, TableOptions};
pub use sapwood_base::format::properties::TableProperties;
pub use table::{
    Found, IndexPlace, LastBlock, PinnedValue, READ_BYTES, Table, TableIterator, TableScanner, ValueRef,
};
