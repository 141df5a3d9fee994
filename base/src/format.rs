#![doc = include_str!("format/FORMAT.md")]
//!
//! The modules below hold the bytes; the crates that use them hold the algorithms (when to cut a block, when to
//! rotate a log).

use crate::error::{Error, ErrorKind, Result};

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

/// The version of the on-disk format that this code writes, and the only one that it reads. Version 1 was never released.
pub const FORMAT_VERSION: u32 = 2;

/// Checks the version that a file of kind `what` has.
///
/// Errors: `Unsupported` for another version, `Corruption` for one that nothing writes.
pub(crate) fn check_version(what: &str, version: u32) -> Result<()> {
    let (kind, message) = match version {
        FORMAT_VERSION => return Ok(()),
        0 => (ErrorKind::Corruption, format!("no release writes a {what} of format version 0")),
        1 => (
            ErrorKind::Unsupported,
            format!("{what} has format version 1, which no release wrote: fill the database again"),
        ),
        _ => (
            ErrorKind::Unsupported,
            format!(
                "{what} has format version {version}, this release reads {FORMAT_VERSION}: use a newer one"
            ),
        ),
    };
    Err(Error::new(kind, message))
}
