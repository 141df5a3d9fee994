//! A door to decoders that have no public name, for fuzz targets and nothing else. Behind the feature `sim`.
use crate::options::Codec;
use crate::{blocks, codec, index};
use sapwood_base::format::block::CodecId;
use sapwood_base::{FileNumber, Result};

/// Decompresses `payload` into the whole of `image`, as a reader of blocks does.
pub fn decompress(codec: CodecId, payload: &[u8], image: &mut [u8]) -> Result<()> {
    codec::decompress(codec, payload, image)
}

/// The compressed form of `image` as a builder of tables makes it; `None` if it would not save enough.
pub fn compress(codec: Codec, image: &[u8]) -> Result<Option<(CodecId, Vec<u8>)>> {
    let mut compressor = codec::Compressor::new(codec)?;
    Ok(compressor.compress(image).map(|(id, payload)| (id, payload.to_vec())))
}

/// Checks a stored block that is not compressed.
pub fn check_image(stored: &[u8], file: FileNumber, offset: u64) -> Result<()> {
    blocks::check_image(stored, file, offset)
}

/// Checks a compressed stored block and decompresses it into the whole of `image`.
pub fn expand(stored: &[u8], image: &mut [u8], file: FileNumber, offset: u64) -> Result<()> {
    blocks::expand(stored, image, file, offset)
}

/// The index of a table in memory.
pub struct Index(index::TableIndex);

impl Index {
    /// From a section's payload.
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

    /// Whether a block begins with the key that the one before ended with.
    pub fn is_continued(&self, block: usize) -> bool {
        self.0.is_continued(block)
    }

    /// The memory it takes in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }
}
