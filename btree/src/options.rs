//! Arguments of callers: the shape of a new tree, and the changes of a batch.
use sapwood_base::format::btree_page::{MAX_PAGE_BYTES, MAX_TREE_VALUE_BYTES, MIN_PAGE_BYTES, is_page_size};
use sapwood_base::{Error, MAX_KEY_BYTES, Result};

/// The shape of a new tree. It is fixed for the life of its file.
#[derive(Clone, Debug)]
pub struct TreeOptions {
    /// The length of a page in bytes: a power of two from 512 to 65,536. Default 8,192.
    pub page_bytes: usize,
}

impl Default for TreeOptions {
    fn default() -> TreeOptions {
        TreeOptions { page_bytes: 8 << 10 }
    }
}

impl TreeOptions {
    pub(crate) fn check(&self) -> Result<()> {
        if is_page_size(self.page_bytes) {
            return Ok(());
        }
        Err(Error::invalid_argument(format!(
            "a page has a power of two of bytes from {MIN_PAGE_BYTES} to {MAX_PAGE_BYTES}, not {}",
            self.page_bytes
        )))
    }
}

/// A change of one key in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The key, at most 65,536 bytes.
    pub key: &'a [u8],
    /// The new value, at most 16 MiB; `None` deletes the key. Deleting an absent key has no effect.
    pub value: Option<&'a [u8]>,
}

impl<'a> Change<'a> {
    /// Inserts or overwrites `key`.
    pub fn put(key: &'a [u8], value: &'a [u8]) -> Change<'a> {
        Change { key, value: Some(value) }
    }

    /// Deletes `key` if it is present.
    pub fn delete(key: &'a [u8]) -> Change<'a> {
        Change { key, value: None }
    }
}

pub(crate) fn check_entry(key: &[u8], value: &[u8]) -> Result<()> {
    if key.len() > MAX_KEY_BYTES {
        return Err(Error::invalid_argument(format!(
            "a key has at most {MAX_KEY_BYTES} bytes, not {}",
            key.len()
        )));
    }
    if value.len() > MAX_TREE_VALUE_BYTES {
        return Err(Error::invalid_argument(format!(
            "a value of a tree has at most {MAX_TREE_VALUE_BYTES} bytes, not {}",
            value.len()
        )));
    }
    Ok(())
}

pub(crate) fn out_of_order() -> Error {
    Error::invalid_argument("keys of a batch must be sorted and different from each other")
}
