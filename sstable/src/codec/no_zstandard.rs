//! The substitute for Zstandard in a build without the feature `zstd`: errors that name the
//! feature.
use crate::options::without_zstd;
use sapwood_base::Result;

/// Never constructed.
pub(super) enum Compressor {}

impl Compressor {
    pub(super) fn new(_level: i32) -> Result<Compressor> {
        Err(without_zstd())
    }

    pub(super) fn compress(&mut self, _image: &[u8], _out: &mut Vec<u8>) -> Option<usize> {
        match *self {}
    }
}

pub(super) fn decompress(_payload: &[u8], _image: &mut [u8]) -> Result<Option<usize>> {
    Err(without_zstd())
}

pub(super) fn decompress_grown(_payload: &[u8], _room: usize, _len: usize) -> Result<Option<Vec<u8>>> {
    Err(without_zstd())
}
