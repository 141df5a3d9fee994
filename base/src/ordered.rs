//! Byte strings that sort like the values that they encode: numbers, strings, tuples, options,
//! descending values.
//!
//! Keys are compared bytewise. So a key or an index key that is a number or has several parts must
//! be encoded such that its bytes compare like its parts. [`Ordered`] writes, [`FromOrdered`]
//! reads. The byte map is in `FORMAT.md`.
//!
//! Invariants, for every type here: `a < b` as values exactly if `a < b` as bytes; no encoding is a
//! prefix of another one of the same type, so encodings can be concatenated; a value has one
//! encoding, and any other bytes are an error.
//!
//! ```
//! use sapwood_base::ordered::{FromOrdered, Ordered};
//! use std::cmp::Reverse;
//!
//! // By city, then the newest first.
//! let key = ("Oslo", Reverse(1_700_000_000u64)).to_ordered();
//! let (city, time) = <(String, Reverse<u64>)>::from_ordered(&key)?;
//! assert_eq!((city.as_str(), time.0), ("Oslo", 1_700_000_000));
//! assert!(("Oslo", Reverse(5)).to_ordered() < ("Oslo", Reverse(4)).to_ordered());
//! assert!(("Oslo", Reverse(5)).to_ordered() < ("Oslo II", Reverse(9)).to_ordered());
//! # Ok::<(), sapwood_base::Error>(())
//! ```
use crate::error::{Error, Result};
use composite::{END, put_escaped, put_unescaped_masked};
use std::cmp::Reverse;

pub mod composite;
mod number;
mod tuple;

/// A value with an order-preserving encoding: the bytes sort like the values.
///
/// * Integers of all widths, signed and unsigned, `bool` and `char`, in their natural order.
/// * `f32` and `f64` in the total order of IEEE 754 (`f64::total_cmp`): negative NaN, negative
///   infinity, negative numbers, -0, +0, positive numbers, infinity, positive NaN. All bits are
///   preserved. To make -0 and +0 the same key, add `0.0` before writing.
/// * `str`, `String`, `[u8]` and `Vec<u8>` bytewise, so a string sorts before the strings that it
///   is a prefix of. An array `[u8; N]` takes exactly `N` bytes.
/// * `Option`: `None` comes before every `Some`.
/// * [`std::cmp::Reverse`]: the opposite order.
/// * Tuples of up to eight: by the first element, then by the second, and so on.
pub trait Ordered {
    /// Appends the encoding.
    fn put_ordered(&self, out: &mut Vec<u8>);

    /// The encoding.
    fn to_ordered(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put_ordered(&mut out);
        out
    }
}

/// A value that can be decoded from the encoding of [`Ordered`].
pub trait FromOrdered: Sized {
    /// Reads one value from the front of the remaining input.
    ///
    /// Errors: `Corruption` for anything that [`Ordered::put_ordered`] does not write.
    fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<Self>;

    /// Decodes the value in `bytes`, which must end with it.
    ///
    /// Errors: `Corruption` for anything that [`Ordered::to_ordered`] does not write.
    fn from_ordered(bytes: &[u8]) -> Result<Self> {
        let mut reader = OrderedReader::new(bytes);
        let value = Self::read_ordered(&mut reader)?;
        if !reader.is_empty() {
            return Err(corrupt(reader.position, "there is more behind the value"));
        }
        Ok(value)
    }
}

/// Reads ordered values one after the other.
#[derive(Clone, Debug)]
pub struct OrderedReader<'a> {
    input: &'a [u8],
    position: usize,
    /// 0xFF inside `Reverse`, whose bytes are inverted; 0 outside.
    mask: u8,
}

#[cold]
fn corrupt(position: usize, what: &str) -> Error {
    Error::malformed(format!("malformed ordered value: {what} (position {position})"))
}

impl<'a> OrderedReader<'a> {
    /// Creates a reader at the start of `input`.
    pub fn new(input: &'a [u8]) -> OrderedReader<'a> {
        OrderedReader { input, position: 0, mask: 0 }
    }

    /// Reads the next value.
    ///
    /// Errors: `Corruption` for anything that is not the encoding of a `T`.
    pub fn read<T: FromOrdered>(&mut self) -> Result<T> {
        T::read_ordered(self)
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

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.input[self.position..]
            .first_chunk::<N>()
            .ok_or_else(|| corrupt(self.position, "it ends too early"))?;
        self.position += N;
        Ok(bytes.map(|byte| byte ^ self.mask))
    }

    fn string(&mut self) -> Result<Vec<u8>> {
        let rest = &self.input[self.position..];
        let end = END ^ self.mask;
        let len = rest
            .iter()
            .position(|byte| *byte == end)
            .ok_or_else(|| corrupt(self.position, "a string has no end"))?;
        let mut out = Vec::new();
        put_unescaped_masked(&mut out, &rest[..len], self.mask)
            .map_err(|_| corrupt(self.position, "a string has an unknown escape"))?;
        self.position += len + 1;
        Ok(out)
    }
}

impl<T: Ordered + ?Sized> Ordered for &T {
    #[inline]
    fn put_ordered(&self, out: &mut Vec<u8>) {
        (**self).put_ordered(out);
    }
}

impl Ordered for [u8] {
    #[inline]
    fn put_ordered(&self, out: &mut Vec<u8>) {
        put_escaped(out, self);
        out.push(END);
    }
}

impl Ordered for Vec<u8> {
    #[inline]
    fn put_ordered(&self, out: &mut Vec<u8>) {
        self.as_slice().put_ordered(out);
    }
}

impl FromOrdered for Vec<u8> {
    fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<Vec<u8>> {
        reader.string()
    }
}

impl Ordered for str {
    #[inline]
    fn put_ordered(&self, out: &mut Vec<u8>) {
        self.as_bytes().put_ordered(out);
    }
}

impl Ordered for String {
    #[inline]
    fn put_ordered(&self, out: &mut Vec<u8>) {
        self.as_str().put_ordered(out);
    }
}

impl FromOrdered for String {
    fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<String> {
        let position = reader.position;
        String::from_utf8(reader.string()?).map_err(|_| corrupt(position, "a string is not UTF-8"))
    }
}

impl<const N: usize> Ordered for [u8; N] {
    #[inline]
    fn put_ordered(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
}

impl<const N: usize> FromOrdered for [u8; N] {
    fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<[u8; N]> {
        reader.array()
    }
}

impl<T: Ordered> Ordered for Option<T> {
    #[inline]
    fn put_ordered(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.put_ordered(out);
        }
    }
}

impl<T: FromOrdered> FromOrdered for Option<T> {
    fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<Option<T>> {
        Ok(if bool::read_ordered(reader)? { Some(T::read_ordered(reader)?) } else { None })
    }
}

impl<T: Ordered> Ordered for Reverse<T> {
    #[inline]
    fn put_ordered(&self, out: &mut Vec<u8>) {
        let start = out.len();
        self.0.put_ordered(out);
        for byte in &mut out[start..] {
            *byte = !*byte;
        }
    }
}

impl<T: FromOrdered> FromOrdered for Reverse<T> {
    fn read_ordered(reader: &mut OrderedReader<'_>) -> Result<Reverse<T>> {
        reader.mask = !reader.mask;
        let value = T::read_ordered(reader);
        reader.mask = !reader.mask;
        value.map(Reverse)
    }
}

#[cfg(test)]
mod tests;
