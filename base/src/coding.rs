//! Little-endian integers, varints and length-prefixed bytes, and a decoder that cannot leave its
//! input.
use crate::error::{Error, Result};

/// The maximum length of a varint of a `u64`, in bytes.
pub const MAX_VARINT_BYTES: usize = 10;

/// Appends `value` in LEB128.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// The number of bytes that [`put_varint`] appends for `value`.
#[inline]
pub fn varint_len(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Appends the length of `bytes` as a varint, then `bytes`.
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads from the front of a byte slice. Every read is checked against the remaining length.
///
/// Errors carry no file. The caller adds it with [`Error::at`].
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    input: &'a [u8],
    position: usize,
}

#[cold]
fn short(position: usize, what: &str) -> Error {
    Error::malformed(format!("{what} ends after its input (position {position})"))
}

impl<'a> Decoder<'a> {
    /// Creates a decoder at the start of `input`.
    pub fn new(input: &'a [u8]) -> Decoder<'a> {
        Decoder { input, position: 0 }
    }

    /// The number of bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The number of bytes left.
    pub fn remaining(&self) -> usize {
        self.input.len() - self.position
    }

    /// Whether all bytes were read.
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    /// Reads the next `len` bytes.
    #[inline]
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let bytes =
            self.input[self.position..].get(..len).ok_or_else(|| short(self.position, "byte string"))?;
        self.position += len;
        Ok(bytes)
    }

    /// Reads the next byte.
    #[inline]
    pub fn u8(&mut self) -> Result<u8> {
        Ok(self.bytes(1)?[0])
    }

    /// Reads the next two bytes, little-endian.
    #[inline]
    pub fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.bytes(2)?.try_into().expect("two bytes")))
    }

    /// Reads the next four bytes, little-endian.
    #[inline]
    pub fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes(4)?.try_into().expect("four bytes")))
    }

    /// Reads the next eight bytes, little-endian.
    #[inline]
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes(8)?.try_into().expect("eight bytes")))
    }

    /// Reads a varint of at most 64 bits, in its shortest form.
    #[inline]
    pub fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7F);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    break;
                }
                return Ok(value);
            }
        }
        Err(Error::malformed(format!("malformed varint (position {})", self.position)))
    }

    /// Reads a varint length, then that many bytes.
    #[inline]
    pub fn length_prefixed(&mut self) -> Result<&'a [u8]> {
        let len = self.varint()?;
        let len = usize::try_from(len).map_err(|_| short(self.position, "byte string"))?;
        self.bytes(len)
    }
}

/// The little-endian number at `at`. REQUIRES: it lies inside `bytes`, as checked by a layout.
#[inline]
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

/// The little-endian number at `at`. REQUIRES: it lies inside `bytes`, as checked by a layout.
#[inline]
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The little-endian number at `at`. REQUIRES: it lies inside `bytes`, as checked by a layout.
#[inline]
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_have_the_announced_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1u64 << shift) - 1, u64::MAX >> shift] {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                assert_eq!(out.len(), varint_len(value));
                let mut decoder = Decoder::new(&out);
                assert_eq!(decoder.varint().unwrap(), value);
                assert!(decoder.is_empty());
            }
        }
    }

    #[test]
    fn malformed_varints_are_errors() {
        for bytes in [&[0x80u8][..], &[0x80, 0x00], &[0xFF; 10], &[0xFF; 11], &[]] {
            assert!(Decoder::new(bytes).varint().is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_length_beyond_the_input_is_an_error() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        out.extend_from_slice(b"abc");
        assert!(Decoder::new(&out).length_prefixed().is_err());
    }
}
