//! The vocabulary of Sapwood and every byte it writes to disk.
//!
//! Architecture invariant: this crate never does I/O, starts no thread, reads no clock; every
//! function is deterministic. Modules are listed in the order in which data passes through them.
#![forbid(unsafe_code)]

pub mod error;
pub mod memory;
pub mod key;
pub mod sequence;
pub mod lookup;
pub mod checksum;
pub mod coding;
pub mod search;
pub mod ordered;
pub mod json;
pub mod iterator;
pub mod format;
pub mod planted;

pub use error::{Error, ErrorKind, Result};
pub use key::{FileNumber, KeyspaceId, MAX_KEY_BYTES, MAX_VALUE_BYTES, ValueKind};
pub use lookup::Lookup;
pub use sequence::SequenceNumber;
