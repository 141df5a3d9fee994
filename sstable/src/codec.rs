//! Compression of blocks: the size is decided by the writer and must come out exactly at the reader.
use crate::options::Codec;
use sapwood_base::format::block::{CodecId, MAX_COMPRESSION_RATIO, SMALL_IMAGE_BYTES};
use sapwood_base::{Error, ErrorKind, Result};
use std::cell::RefCell;

/// Compresses the blocks of one table; keeps its scratch memory.
pub(crate) struct Compressor {
    codec: Codec,
    zstd: Option<zstd::bulk::Compressor<'static>>,
    scratch: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new(codec: Codec) -> Result<Compressor> {
        let zstd = match codec {
            Codec::Zstd(level) => {
                let compressor = zstd::bulk::Compressor::new(level);
                Some(compressor.map_err(|error| {
                    Error::invalid_argument(format!("zstd level {level} is not available: {error}"))
                })?)
            }
            Codec::None | Codec::Lz4 => None,
        };
        Ok(Compressor { codec, zstd, scratch: Vec::new() })
    }

    /// The compressed form of `image`, or `None` if it would not save an eighth.
    pub(crate) fn compress(&mut self, image: &[u8]) -> Option<(CodecId, &[u8])> {
        let limit = image.len() - image.len() / 8;
        let (id, len) = match self.codec {
            Codec::None => return None,
            Codec::Lz4 => (CodecId::Lz4, self.lz4(image)?),
            Codec::Zstd(_) => {
                let bound = zstd::zstd_safe::compress_bound(image.len());
                if self.scratch.len() < bound {
                    self.scratch.resize(bound, 0);
                }
                let len = self.zstd.as_mut()?.compress_to_buffer(image, &mut self.scratch[..]).ok()?;
                if image.len() > SMALL_IMAGE_BYTES && len.saturating_mul(MAX_COMPRESSION_RATIO) < image.len()
                {
                    // Readers refuse such ratios as bombs; LZ4 cannot reach them.
                    (CodecId::Lz4, self.lz4(image)?)
                } else {
                    (CodecId::Zstd, len)
                }
            }
        };
        (len <= limit).then(|| (id, &self.scratch[..len]))
    }

    fn lz4(&mut self, image: &[u8]) -> Option<usize> {
        let bound = lz4_flex::block::get_maximum_output_size(image.len());
        if self.scratch.len() < bound {
            self.scratch.resize(bound, 0);
        }
        lz4_flex::block::compress_into(image, &mut self.scratch).ok()
    }
}

/// Decompresses `payload` into the whole of `image`; any other length is corruption.
pub(crate) fn decompress(codec: CodecId, payload: &[u8], image: &mut [u8]) -> Result<()> {
    thread_local! {
        // Creating a zstd context costs more than decompressing a block.
        static ZSTD: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
    }
    let len = match codec {
        CodecId::None => {
            if payload.len() == image.len() {
                image.copy_from_slice(payload);
            }
            Some(payload.len())
        }
        CodecId::Lz4 => lz4_flex::block::decompress_into(payload, image).ok(),
        CodecId::Zstd => ZSTD.with_borrow_mut(|context| {
            if context.is_none() {
                *context = zstd::bulk::Decompressor::new().ok();
            }
            context.as_mut()?.decompress_to_buffer(payload, image).ok()
        }),
    };
    if len == Some(image.len()) {
        Ok(())
    } else {
        Err(Error::new(ErrorKind::Corruption, "block does not decompress to its length"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_round_trip_and_other_lengths_are_errors() {
        for codec in [Codec::Lz4, Codec::Zstd(1), Codec::Zstd(3)] {
            let mut compressor = Compressor::new(codec).unwrap();
            for len in [100, 4000, 300_000] {
                let image: Vec<u8> = (0..len).map(|i| (i / 50 % 7) as u8).collect();
                let (id, payload) = compressor.compress(&image).unwrap();
                let mut out = vec![0; image.len()];
                decompress(id, payload, &mut out).unwrap();
                assert_eq!(out, image);
                assert!(decompress(id, payload, &mut vec![0; len + 1]).is_err());
                assert!(decompress(id, payload, &mut vec![0; len - 1]).is_err());
                assert!(decompress(id, &payload[..payload.len() - 1], &mut out).is_err());
            }
        }
    }

    #[test]
    fn incompressible_blocks_stay_and_extreme_ratios_are_avoided() {
        let mut random = fastrand::Rng::with_seed(2);
        let noise: Vec<u8> = (0..4096).map(|_| random.u8(..)).collect();
        let mut compressor = Compressor::new(Codec::Zstd(3)).unwrap();
        assert!(compressor.compress(&noise).is_none());
        let zeros = vec![0; 16 << 20];
        let (_, payload) = compressor.compress(&zeros).unwrap();
        assert!(payload.len() * MAX_COMPRESSION_RATIO >= zeros.len());
    }

    #[test]
    fn garbage_never_panics() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..3000 {
            let garbage: Vec<u8> = (0..random.usize(0..200)).map(|_| random.u8(..)).collect();
            let mut out = vec![0; random.usize(0..300)];
            for codec in [CodecId::None, CodecId::Lz4, CodecId::Zstd] {
                let _ = decompress(codec, &garbage, &mut out);
            }
        }
    }
}
