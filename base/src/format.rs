#![doc = include_str!("format/FORMAT.md")]
//!
//! The modules below define the bytes. The crates that use them define the algorithms (when to cut
//! a block, when to rotate a log).

use crate::coding::Decoder;
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

/// The version of the on-disk format that this code writes, and the only one that it reads. Version
/// 1 was never released.
pub const FORMAT_VERSION: u32 = 2;

/// Whether a reader may skip an unknown field, property or edit with this number: bit 6 is set. Any
/// other unknown number makes the enclosing structure unreadable, because its contents cannot be
/// understood without it.
pub(crate) fn is_optional(identifier: u64) -> bool {
    identifier & 64 != 0
}

/// The error for an unknown field that is not optional.
#[cold]
pub(crate) fn unknown_field(what: &str, identifier: u64) -> Error {
    let message = format!("{what} has field {identifier}, which this release does not know: use a newer one");
    Error::new(ErrorKind::Unsupported, message)
}

/// Passes each field that follows in `decoder`, an identifier and bytes, to `known`, which returns
/// whether it knows the identifier. Identifiers ascend.
///
/// Errors: `Unsupported` for an unknown field that is not optional, `Corruption` for a malformed
/// list.
pub(crate) fn fields<'a>(
    decoder: &mut Decoder<'a>,
    what: &str,
    mut known: impl FnMut(u64, &'a [u8]) -> Result<bool>,
) -> Result<()> {
    let mut last = 0;
    while !decoder.is_empty() {
        let identifier = decoder.varint()?;
        let bytes = decoder.length_prefixed()?;
        if identifier <= last {
            return Err(Error::malformed(format!("fields of a {what} are not in order")));
        }
        last = identifier;
        if !known(identifier, bytes)? && !is_optional(identifier) {
            return Err(unknown_field(what, identifier));
        }
    }
    Ok(())
}

/// Checks the version of a file of kind `what`.
///
/// Errors: `Unsupported` for another version, `Corruption` for one that no version of the engine
/// writes.
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
