//! The stored form of a payload: padding, and a trailer whose checksum is seeded with its place.
use crate::checksum::{checksum32, place_seed};
use crate::error::{Error, ErrorKind, Result};
use crate::key::FileNumber;
use crate::planted;

/// The length of a stored block's trailer in bytes.
pub const BLOCK_TRAILER_BYTES: usize = 8;
/// The maximum number of raw bytes that a compressed payload may declare per byte, unless the image
/// is small.
pub const MAX_COMPRESSION_RATIO: usize = 1024;
/// Images up to this length are exempt from [`MAX_COMPRESSION_RATIO`].
pub const SMALL_IMAGE_BYTES: usize = 64 << 10;

/// The compression of a payload. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CodecId {
    /// Uncompressed.
    None = 0,
    /// An LZ4 block.
    Lz4 = 1,
    /// A Zstandard frame.
    Zstd = 2,
}

/// The content of a stored block. The numbers are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StoredKind {
    /// Entries.
    Data = 1,
    /// The filter section.
    Filter = 2,
    /// The index section.
    Index = 3,
    /// The properties section.
    Properties = 4,
}

/// Ends the stored block that begins at `start` of `out` and whose payload is already there:
/// appends `padding` zeros and the trailer. `offset` is the future position of the block in `file`.
pub fn seal(
    out: &mut Vec<u8>,
    start: usize,
    padding: u16,
    codec: CodecId,
    kind: StoredKind,
    file: FileNumber,
    offset: u64,
) {
    out.resize(out.len() + usize::from(padding), 0);
    out.extend_from_slice(&[codec as u8, kind as u8]);
    out.extend_from_slice(&padding.to_le_bytes());
    let checksum = checksum32(&out[start..], place_seed(file.0, planted::sealed_offset(offset)));
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// Checks a stored block and returns its codec and the length of its payload.
pub fn unseal(stored: &[u8], kind: StoredKind, file: FileNumber, offset: u64) -> Result<(CodecId, usize)> {
    let Some((body, checksum)) = stored.split_last_chunk::<4>() else {
        return Err(Error::malformed("stored block is shorter than its trailer"));
    };
    if checksum32(body, place_seed(file.0, planted::sealed_offset(offset))) != u32::from_le_bytes(*checksum) {
        return Err(Error::malformed("block checksum does not match"));
    }
    let Some((padded, &[codec, found_kind, low, high])) = body.split_last_chunk::<4>() else {
        return Err(Error::malformed("stored block is shorter than its trailer"));
    };
    if found_kind != kind as u8 {
        return Err(Error::malformed("stored block is of another kind than expected"));
    }
    let codec = match codec {
        0 => CodecId::None,
        1 => CodecId::Lz4,
        2 => CodecId::Zstd,
        _ => return Err(Error::new(ErrorKind::Unsupported, format!("block codec {codec} is not known"))),
    };
    let padding = usize::from(u16::from_le_bytes([low, high]));
    let len = padded
        .len()
        .checked_sub(padding)
        .ok_or_else(|| Error::malformed("padding is longer than the block"))?;
    Ok((codec, len))
}
