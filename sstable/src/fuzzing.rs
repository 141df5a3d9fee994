//! Access to private decoders, only for fuzz targets. Requires the feature `sim`.
use crate::options::Codec;
use crate::{blocks, codec, index};
use sapwood_base::format::block::CodecId;
use sapwood_base::{FileNumber, Result};
use std::cell::Cell;

thread_local!(static OUTPUT: Cell<usize> = const { Cell::new(0) });

/// Records the size of the output of a block whose announced length was not trusted.
pub(crate) fn note_output(bytes: usize) {
    OUTPUT.set(OUTPUT.get().max(bytes));
}

/// Returns and resets the largest such output on this thread, in bytes.
pub fn take_output() -> usize {
    OUTPUT.take()
}

/// Decompresses `payload` into the whole of `image`, as the block reader does.
pub fn decompress(codec: CodecId, payload: &[u8], image: &mut [u8]) -> Result<()> {
    codec::decompress(codec, payload, image)
}

/// Decompresses `payload` into `len` bytes, on the reader's path for trusted or untrusted lengths.
pub fn decompress_owned(codec: CodecId, payload: &[u8], len: usize) -> Result<Vec<u8>> {
    if is_unbelievable(len, payload.len()) {
        return codec::decompress_grown(codec, payload, len);
    }
    let mut image = vec![0; len];
    codec::decompress(codec, payload, &mut image).map(|()| image)
}

/// Whether a stored block announces an image too long to allocate before it is decompressed.
pub fn is_unbelievable(image_len: usize, stored_len: usize) -> bool {
    codec::is_unbelievable(image_len, stored_len)
}

/// The compressed form of `image` as the table builder makes it; `None` if it would not save
/// enough.
pub fn compress(codec: Codec, image: &[u8]) -> Result<Option<(CodecId, Vec<u8>)>> {
    let mut compressor = codec::Compressor::new(codec)?;
    Ok(compressor.compress(image).map(|(id, payload)| (id, payload.to_vec())))
}

/// Checks a stored block that is not compressed.
pub fn check_image(stored: &[u8], file: FileNumber, offset: u64) -> Result<()> {
    blocks::check_image(stored, file, offset)
}

/// Checks a compressed stored block and decompresses it into an image of `len` bytes.
pub fn expand(stored: &[u8], len: usize, file: FileNumber, offset: u64) -> Result<Vec<u8>> {
    blocks::expand_owned(stored, len, file, offset)
}

/// The index of a table in memory.
pub struct Index(index::TableIndex);

impl Index {
    /// Decodes a section's payload.
    pub fn decode(payload: &[u8]) -> Result<Index> {
        index::TableIndex::decode(payload).map(Index)
    }

    /// The number of blocks.
    pub fn block_count(&self) -> usize {
        self.0.block_count()
    }

    /// The first block that can hold `key`. REQUIRES: there are blocks.
    pub fn find(&self, key: &[u8]) -> usize {
        self.0.find(key)
    }

    /// The whole separator of a block.
    pub fn separator(&self, block: usize) -> Vec<u8> {
        self.0.separator(block)
    }

    /// Whether a block begins with the last key of the previous block.
    pub fn is_continued(&self, block: usize) -> bool {
        self.0.is_continued(block)
    }

    /// Memory in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }
}
