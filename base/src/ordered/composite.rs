//! Byte strings that sort correctly even when other bytes follow them: escaped, then ended by a
//! zero byte.
//!
//! ```text
//! byte 00 -> 01 01      byte 01 -> 01 02      every other byte -> itself      end -> 00
//! ```
//!
//! Escaped bytes hold no zero byte, so the first zero byte is the end: a split is one search for it
//! and never inspects the bytes after it. (The more usual `00 -> 00 FF`, ended by `00 00`, takes
//! one more byte per string, and the entries of an index are short.) Strings without the bytes 00
//! and 01 are copied as they are.
//!
//! The key of an entry of an index is a *composite*: the index key, escaped and ended, then the
//! primary key as it is. Composites sort by index key, then by primary key.
use crate::error::{Error, Result};
use crate::key::prefix_successor;
use std::borrow::Cow;

/// Ends an escaped string.
pub(crate) const END: u8 = 0;
/// Precedes an escaped byte. It is the lowest byte that can continue an escaped string.
pub(crate) const ESCAPE: u8 = 1;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Whether one of the eight bytes of `word` is below `bound`, which is at most 128.
#[inline]
fn has_byte_below(word: u64, bound: u64) -> bool {
    word.wrapping_sub(ONES * bound) & !word & HIGHS != 0
}

/// The length of the longest prefix of `bytes` without a byte below `bound`.
#[inline]
fn len_without(bytes: &[u8], bound: u8) -> usize {
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        if has_byte_below(u64::from_le_bytes(*chunk), u64::from(bound)) {
            break;
        }
        at += 8;
    }
    at + bytes[at..].iter().position(|byte| *byte < bound).unwrap_or(bytes.len() - at)
}

/// Appends `bytes` escaped, without an end: a bound for everything that starts with them.
#[inline]
pub fn put_escaped(out: &mut Vec<u8>, bytes: &[u8]) {
    let plain = len_without(bytes, ESCAPE + 1);
    out.extend_from_slice(&bytes[..plain]);
    if plain < bytes.len() {
        put_escaped_slowly(out, &bytes[plain..]);
    }
}

fn put_escaped_slowly(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + bytes.iter().filter(|byte| **byte <= ESCAPE).count());
    for byte in bytes {
        if *byte <= ESCAPE {
            out.extend_from_slice(&[ESCAPE, byte + 1]);
        } else {
            out.push(*byte);
        }
    }
}

/// The number of bytes that [`put_escaped`] appends for `bytes`.
#[inline]
pub fn escaped_len(bytes: &[u8]) -> usize {
    bytes.len() + bytes.iter().filter(|byte| **byte <= ESCAPE).count()
}

/// Appends the key of the entry `(index_key, primary_key)`.
#[inline]
pub fn put_composite(out: &mut Vec<u8>, index_key: &[u8], primary_key: &[u8]) {
    out.reserve(index_key.len() + primary_key.len() + 1);
    put_escaped(out, index_key);
    out.push(END);
    out.extend_from_slice(primary_key);
}

/// The number of bytes that [`put_composite`] appends.
#[inline]
pub fn composite_len(index_key: &[u8], primary_key: &[u8]) -> usize {
    escaped_len(index_key) + 1 + primary_key.len()
}

/// The key of an entry, split into its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Composite<'a> {
    /// The index key as it stands in the composite. Two escaped index keys compare like the index
    /// keys.
    pub escaped_index_key: &'a [u8],
    /// The primary key.
    pub primary_key: &'a [u8],
}

impl<'a> Composite<'a> {
    /// Splits `bytes`. Only searches for the end of the index key; a wrong escape in it is detected
    /// when it is decoded.
    ///
    /// Errors: `Corruption` if there is no end.
    #[inline]
    pub fn split(bytes: &'a [u8]) -> Result<Composite<'a>> {
        let end = len_without(bytes, END + 1);
        match bytes.get(end + 1..) {
            Some(primary_key) => Ok(Composite { escaped_index_key: &bytes[..end], primary_key }),
            None => Err(Error::malformed("key of an index entry has no end of its index key")),
        }
    }

    /// The index key; a copy only if there is something to unescape.
    ///
    /// Errors: `Corruption` for bytes that [`put_escaped`] does not write.
    #[inline]
    pub fn index_key(&self) -> Result<Cow<'a, [u8]>> {
        unescape(self.escaped_index_key)
    }
}

/// The inverse of [`put_escaped`]; a copy only if there is something to unescape.
///
/// Errors: `Corruption` for bytes that it does not write.
#[inline]
pub fn unescape(escaped: &[u8]) -> Result<Cow<'_, [u8]>> {
    if len_without(escaped, ESCAPE + 1) == escaped.len() {
        return Ok(Cow::Borrowed(escaped));
    }
    let mut out = Vec::new();
    put_unescaped(&mut out, escaped)?;
    Ok(Cow::Owned(out))
}

/// Appends the bytes that [`put_escaped`] encoded as `escaped`.
///
/// Errors: `Corruption` for bytes that it does not write; `out` then has the part before the error.
#[inline]
pub fn put_unescaped(out: &mut Vec<u8>, escaped: &[u8]) -> Result<()> {
    put_unescaped_masked(out, escaped, 0)
}

/// [`put_unescaped`] of bytes that were combined with `mask`, which is 0 or 0xFF, by exclusive or.
pub(crate) fn put_unescaped_masked(out: &mut Vec<u8>, escaped: &[u8], mask: u8) -> Result<()> {
    let mut rest = escaped;
    if mask == 0 {
        let plain = len_without(escaped, ESCAPE + 1);
        out.extend_from_slice(&escaped[..plain]);
        rest = &escaped[plain..];
    }
    out.reserve(rest.len());
    let mut bytes = rest.iter().map(|byte| byte ^ mask);
    while let Some(byte) = bytes.next() {
        match byte {
            END => return Err(Error::malformed("escaped string holds a zero byte")),
            ESCAPE => match bytes.next() {
                Some(byte @ 1..=2) => out.push(byte - 1),
                _ => return Err(Error::malformed("escaped string holds an unknown escape")),
            },
            _ => out.push(byte),
        }
    }
    Ok(())
}

/// Appends the lower bound of all entries whose index key is at or above `index_key`.
#[inline]
pub fn put_bound_at(out: &mut Vec<u8>, index_key: &[u8]) {
    put_escaped(out, index_key);
    end_bound_at(out);
}

/// Completes an escaped index key to the bound that [`put_bound_at`] writes.
#[inline]
pub fn end_bound_at(out: &mut Vec<u8>) {
    out.push(END);
}

/// Completes an escaped index key to the bound that [`put_bound_after`] writes.
#[inline]
pub fn end_bound_after(out: &mut Vec<u8>) {
    out.push(END + 1);
}

/// Appends the lower bound of all entries whose index key is above `index_key`; the entries with
/// `index_key` itself are below it.
#[inline]
pub fn put_bound_after(out: &mut Vec<u8>, index_key: &[u8]) {
    put_escaped(out, index_key);
    end_bound_after(out);
}

/// The lower bound of all entries whose index key is above all that start with `prefix`; `None` if
/// there can be none. The lower bound of those that start with `prefix` is [`put_escaped`].
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut escaped = Vec::with_capacity(prefix.len());
    put_escaped(&mut escaped, prefix);
    prefix_successor(&escaped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn composite(index_key: &[u8], primary_key: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_composite(&mut out, index_key, primary_key);
        out
    }

    /// All strings of up to `most` bytes from a few significant bytes, in order.
    fn strings(most: usize) -> Vec<Vec<u8>> {
        let mut all = vec![Vec::new()];
        let mut from = 0;
        for _ in 0..most {
            let until = all.len();
            for i in from..until {
                for byte in [0, 1, 2, 0x7F, 0x80, 0xFF] {
                    let mut longer = all[i].clone();
                    longer.push(byte);
                    all.push(longer);
                }
            }
            from = until;
        }
        all.sort();
        all
    }

    #[test]
    fn composites_have_these_bytes() {
        assert_eq!(composite(b"Oslo", b"u1"), b"Oslo\0u1");
        assert_eq!(composite(b"", b""), b"\0");
        assert_eq!(composite(b"\0\x01\x02\xFF", b"\0"), b"\x01\x01\x01\x02\x02\xFF\0\0");
    }

    #[test]
    fn composites_sort_like_pairs_and_come_apart() {
        let strings = strings(3);
        let mut last: Option<Vec<u8>> = None;
        for index_key in &strings {
            for primary_key in [&b""[..], b"\0", b"\x01", b"\x01\x01", b"\xFF"] {
                let bytes = composite(index_key, primary_key);
                assert_eq!(bytes.len(), composite_len(index_key, primary_key));
                assert!(last.is_none_or(|last| last < bytes), "{index_key:?} {primary_key:?}");
                let split = Composite::split(&bytes).unwrap();
                assert_eq!(split.index_key().unwrap(), *index_key);
                assert_eq!(split.primary_key, primary_key);
                last = Some(bytes);
            }
        }
    }

    #[test]
    fn bounds_are_where_they_should_be() {
        let strings = strings(2);
        let entries: Vec<(&Vec<u8>, Vec<u8>)> = strings
            .iter()
            .flat_map(|key| [&b""[..], b"\xFF\xFF"].map(|primary| (key, composite(key, primary))))
            .collect();
        for bound in &strings {
            let (mut at, mut after, mut prefix) = (Vec::new(), Vec::new(), Vec::new());
            put_bound_at(&mut at, bound);
            put_bound_after(&mut after, bound);
            put_escaped(&mut prefix, bound);
            let prefix_end = prefix_end(bound);
            for (key, entry) in &entries {
                assert_eq!(*entry >= at, *key >= bound, "{key:?} at {bound:?}");
                assert_eq!(*entry >= after, *key > bound, "{key:?} after {bound:?}");
                let inside = *entry >= prefix && prefix_end.as_ref().is_none_or(|end| entry < end);
                assert_eq!(inside, key.starts_with(bound), "{key:?} with prefix {bound:?}");
            }
        }
    }

    #[test]
    fn places_of_special_bytes_do_not_matter() {
        for len in 0..40 {
            for at in 0..len {
                for byte in 0..=2 {
                    let mut key = vec![0xA5; len];
                    key[at] = byte;
                    let bytes = composite(&key, b"p");
                    let split = Composite::split(&bytes).unwrap();
                    assert_eq!(split.index_key().unwrap(), key);
                    assert_eq!(split.primary_key, b"p");
                }
            }
        }
    }

    #[test]
    fn what_was_not_escaped_is_damage() {
        for bytes in [&b""[..], b"abc", b"abcdefghijklmnop"] {
            assert_eq!(Composite::split(bytes).unwrap_err().kind(), ErrorKind::Corruption);
        }
        for escaped in [&b"\x01"[..], b"ab\x01\x03", b"\x01\x00", b"a\0b", b"abcdefgh\x01"] {
            assert_eq!(unescape(escaped).unwrap_err().kind(), ErrorKind::Corruption, "{escaped:?}");
        }
    }
}
