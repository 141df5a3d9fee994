//! Sorted tables: one immutable file of entries in internal order.
//!
//! A [`TableBuilder`] writes a table in one pass; a [`Table`] reads it. Modules are listed in the order in which data
//! meets them: options, then what the builder uses, then what the reader uses. The bytes are described in
//! `sapwood_base::format`.
//!
//! Architecture invariant: this crate knows one file at a time. It knows neither levels nor keyspaces, and it never
//! creates, renames or removes a file. Any byte of a table may be wrong: it is checked once, when it is loaded.
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
#[cfg(feature = "sim")]
#[doc(hidden)]
pub mod fuzzing;

pub use builder::{TableBuilder, TableSummary};
pub use options::{Codec, FilterKind, ReadOptions, TableOptions};
pub use sapwood_base::format::properties::TableProperties;
pub use table::{Found, IndexPlace, LastBlock, PinnedValue, Table, TableIterator, TableScanner, ValueRef};
