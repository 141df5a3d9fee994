//! Compression of blocks. The writer chooses the size; the reader must decompress to exactly that
//! size.
use crate::options::Codec;
use sapwood_base::format::block::{CodecId, MAX_COMPRESSION_RATIO, SMALL_IMAGE_BYTES};
use sapwood_base::memory;
use sapwood_base::{Error, ErrorKind, Result};

#[cfg_attr(not(feature = "zstd"), path = "codec/no_zstandard.rs")]
mod zstandard;

/// Compresses the blocks of one table. Keeps its scratch memory.
pub(crate) struct Compressor {
    codec: Codec,
    zstd: Option<zstandard::Compressor>,
    scratch: Vec<u8>,
}

impl Compressor {
    pub(crate) fn new(codec: Codec) -> Result<Compressor> {
        let zstd = match codec {
            Codec::Zstd(level) => Some(zstandard::Compressor::new(level)?),
            Codec::None | Codec::Lz4 => None,
        };
        Ok(Compressor { codec, zstd, scratch: Vec::new() })
    }

    /// Returns the compressed form of `image`, or `None` if it would not save an eighth.
    pub(crate) fn compress(&mut self, image: &[u8]) -> Option<(CodecId, &[u8])> {
        let limit = image.len() - image.len() / 8;
        let (id, len) = match self.codec {
            Codec::None => return None,
            Codec::Lz4 => (CodecId::Lz4, self.lz4(image)?),
            Codec::Zstd(_) => {
                let len = self.zstd.as_mut()?.compress(image, &mut self.scratch)?;
                if image.len() > SMALL_IMAGE_BYTES && len.saturating_mul(MAX_COMPRESSION_RATIO) < image.len()
                {
                    // Readers refuse such ratios as decompression bombs. LZ4 cannot reach them.
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
            memory::resize(&mut self.scratch, bound, 0).ok()?;
        }
        lz4_flex::block::compress_into(image, &mut self.scratch).ok()
    }
}

/// An image is trusted without evidence if it is at most this many times as long as its stored
/// block, or at most [`BELIEVED_BYTES`] long.
const BELIEVED_RATIO: usize = 8;
/// Together with the reader's other memory this stays below 64 KiB.
const BELIEVED_BYTES: usize = 60 << 10;
/// Whether the announced image is too long to allocate before it is decompressed. Such blocks go
/// through [`decompress_grown`].
#[inline]
pub(crate) fn is_unbelievable(image_len: usize, stored_len: usize) -> bool {
    image_len > BELIEVED_BYTES && image_len > stored_len.saturating_mul(BELIEVED_RATIO)
}

#[cold]
fn wrong_length() -> Error {
    Error::new(ErrorKind::Corruption, "block does not decompress to its length")
}

/// Decompresses `payload` into the whole of `image`. Any other length is corruption.
pub(crate) fn decompress(codec: CodecId, payload: &[u8], image: &mut [u8]) -> Result<()> {
    let len = match codec {
        CodecId::None => {
            if payload.len() == image.len() {
                image.copy_from_slice(payload);
            }
            Some(payload.len())
        }
        CodecId::Lz4 => lz4_flex::block::decompress_into(payload, image).ok(),
        CodecId::Zstd => zstandard::decompress(payload, image)?,
    };
    if len == Some(image.len()) { Ok(()) } else { Err(wrong_length()) }
}

/// Decompresses `payload`, whose image must be `len` bytes long. Since `len` is untrusted, memory
/// never exceeds twice the output so far.
#[cold]
pub(crate) fn decompress_grown(codec: CodecId, payload: &[u8], len: usize) -> Result<Vec<u8>> {
    match codec {
        // The image is as long as the payload.
        CodecId::None => match payload.len() == len {
            true => memory::copy(payload),
            false => Err(wrong_length()),
        },
        CodecId::Lz4 => {
            if lz4_image_len(payload) != Some(len) {
                return Err(wrong_length());
            }
            #[cfg(feature = "sim")]
            crate::fuzzing::note_output(len);
            let mut image = memory::filled(0, len)?;
            decompress(codec, payload, &mut image)?;
            Ok(image)
        }
        CodecId::Zstd => {
            let room = BELIEVED_BYTES.max(payload.len().saturating_mul(BELIEVED_RATIO));
            zstandard::decompress_grown(payload, room, len)?.ok_or_else(wrong_length)
        }
    }
}

/// The decompressed length of an LZ4 block, without decompressing it; `None` if it refers to bytes
/// that do not exist.
fn lz4_image_len(payload: &[u8]) -> Option<usize> {
    /// Reads the rest of a length whose first four bits are in the token.
    fn length(rest: &mut &[u8], nibble: u8) -> Option<usize> {
        let mut len = usize::from(nibble);
        let mut goes_on = nibble == 15;
        while goes_on {
            let byte = *rest.split_off_first()?;
            len = len.checked_add(usize::from(byte))?;
            goes_on = byte == u8::MAX;
        }
        Some(len)
    }

    let (mut rest, mut len) = (payload, 0usize);
    loop {
        let token = *rest.split_off_first()?;
        let literals = length(&mut rest, token >> 4)?;
        rest = rest.get(literals..)?;
        len = len.checked_add(literals)?;
        // The last sequence has no match.
        if rest.is_empty() {
            return Some(len);
        }
        let offset = u16::from_le_bytes([*rest.split_off_first()?, *rest.split_off_first()?]);
        let offset = usize::from(offset);
        let copied = length(&mut rest, token & 15)?.checked_add(4)?;
        if offset == 0 || offset > len {
            return None;
        }
        len = len.checked_add(copied)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The codecs of this build.
    fn codecs() -> Vec<Codec> {
        let all = [Codec::Lz4, Codec::Zstd(1), Codec::Zstd(3), Codec::Zstd(9)];
        all.into_iter().filter(|codec| codec.check_available().is_ok()).collect()
    }

    #[test]
    fn blocks_round_trip_and_other_lengths_are_errors() {
        for codec in codecs() {
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
                assert_eq!(decompress_grown(id, payload, len).unwrap(), image);
                assert!(decompress_grown(id, payload, len + 1).is_err());
                assert!(decompress_grown(id, payload, len - 1).is_err());
                assert!(decompress_grown(id, &payload[..payload.len() - 1], len).is_err());
            }
        }
    }

    #[test]
    fn images_far_longer_than_their_blocks_come_out_in_steps() {
        let mut random = fastrand::Rng::with_seed(5);
        for codec in codecs() {
            let mut compressor = Compressor::new(codec).unwrap();
            for len in [BELIEVED_BYTES + 1, 200_000, 3 << 20] {
                let noise: Vec<u8> = (0..200).map(|_| random.u8(..)).collect();
                let image: Vec<u8> = noise.iter().copied().cycle().take(len).collect();
                let (id, payload) = compressor.compress(&image).unwrap();
                assert!(is_unbelievable(len, payload.len()));
                assert_eq!(decompress_grown(id, payload, len).unwrap(), image);
                // A wrong announced length.
                assert!(decompress_grown(id, payload, len * 2).is_err());
            }
        }
    }

    #[cfg(not(feature = "zstd"))]
    #[test]
    fn without_the_feature_zstandard_is_not_supported_and_not_damage() {
        let said = |error: Error| {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("feature `zstd`"), "{error}");
        };
        said(Codec::Zstd(3).check_available().unwrap_err());
        said(Compressor::new(Codec::Zstd(3)).err().unwrap());
        said(decompress(CodecId::Zstd, b"a frame", &mut [0; 100]).unwrap_err());
        said(decompress_grown(CodecId::Zstd, b"a frame", 1 << 20).unwrap_err());
    }

    #[cfg(feature = "zstd")]
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
                let is_good = decompress(codec, &garbage, &mut out).is_ok();
                assert_eq!(decompress_grown(codec, &garbage, out.len()).ok(), is_good.then(|| out.clone()));
            }
        }
    }
}
