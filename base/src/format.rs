#![doc = include_str!("format/FORMAT.md")]
//!
//! The modules below hold the bytes; the crates that use them hold the algorithms (when to cut a block, when to
//! rotate a log).

pub mod file_name;
pub mod log_record;
pub mod log_segment;
pub mod write_batch;
pub mod manifest;
pub mod index_definition;
pub mod block;
pub mod table_index;
pub mod filter;
pub mod properties;
pub mod footer;
pub mod btree_page;
pub mod btree_root;

/// The version of the on-disk format that this code writes. A database of a newer one is refused.
pub const FORMAT_VERSION: u32 = 1;
