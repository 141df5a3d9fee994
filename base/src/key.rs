//! Keys, kinds of entries, and the identifiers that name files and keyspaces.
use crate::error::{Error, ErrorKind};
use std::fmt;

/// The longest user key in bytes.
pub const MAX_KEY_BYTES: usize = 64 << 10;
/// The longest value in bytes.
pub const MAX_VALUE_BYTES: usize = 1 << 30;

/// Numbers of keyspaces are below this. They index arrays, so a wrong number must not allocate all
/// memory.
pub const MAX_KEYSPACES: u32 = 1 << 20;

/// The effect of an entry on its key. The numbers are on disk; the reserved ones are named so that
/// they are not reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ValueKind {
    /// The key is deleted: a tombstone.
    Delete = 0,
    /// The key has this value.
    Put = 1,
}

impl ValueKind {
    /// The kind with this number, or `None` for one that this version does not know.
    #[inline]
    pub fn from_u8(byte: u8) -> Option<ValueKind> {
        match byte {
            0 => Some(ValueKind::Delete),
            1 => Some(ValueKind::Put),
            _ => None,
        }
    }

    /// The error for an entry whose kind this version does not know. Numbers below 16 fit into a
    /// memtable's entries; 7 to 15 are free.
    #[cold]
    pub fn unknown(byte: u8) -> Error {
        let what = match byte {
            2 => "a range delete",
            3 => "a merge",
            4 => "a single delete",
            5 => "a reference to a value elsewhere",
            6 => "a put that expires",
            _ => "of a kind without a name",
        };
        let message =
            format!("entry is {what} (kind {byte}), which this release does not know: use a newer one");
        Error::new(ErrorKind::Unsupported, message)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}
pub(crate) use number;

number!(
    /// The number in a file's name. Never reused within a database.
    FileNumber,
    u64
);

impl FileNumber {
    /// The largest number that a file can have. It is far above any number that is allocated, so
    /// counting on from it is safe.
    pub const MAX: FileNumber = FileNumber(1 << 62);
}

number!(
    /// The identity of a keyspace. Dense, never reused within a database.
    KeyspaceId,
    u32
);

/// The first eight bytes of `key` as a big-endian number, short keys padded with zeros.
///
/// Order-preserving: `key_prefix(a) < key_prefix(b)` implies `a < b`; equal prefixes decide
/// nothing.
#[inline]
pub fn key_prefix(key: &[u8]) -> u64 {
    if let Some(head) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*head);
    }
    let mut padded = [0u8; 8];
    padded[..key.len()].copy_from_slice(key);
    u64::from_be_bytes(padded)
}

/// The first four bytes of `key` as a big-endian number, short keys padded with zeros.
/// Order-preserving like [`key_prefix`].
#[inline]
pub fn key_head(key: &[u8]) -> u32 {
    if let Some(head) = key.first_chunk::<4>() {
        return u32::from_be_bytes(*head);
    }
    let mut padded = [0u8; 4];
    padded[..key.len()].copy_from_slice(key);
    u32::from_be_bytes(padded)
}

/// `key.starts_with(prefix)`, without a call for prefixes of up to 16 bytes.
#[inline]
pub fn begins_with(key: &[u8], prefix: &[u8]) -> bool {
    /// Compares both ends, which may overlap. REQUIRES: equal lengths from `N` to `2 * N`.
    #[inline]
    fn ends_are_equal<const N: usize>(a: &[u8], b: &[u8]) -> bool {
        a.first_chunk::<N>() == b.first_chunk::<N>() && a.last_chunk::<N>() == b.last_chunk::<N>()
    }
    /// Not inlined, because most callers have longer prefixes. REQUIRES: lengths from 1 to 3.
    #[inline(never)]
    fn few_are_equal(a: &[u8], b: &[u8]) -> bool {
        match (a, b) {
            ([a], [b]) => a == b,
            ([a, c], [b, d]) => a == b && c == d,
            ([a, c, e], [b, d, f]) => a == b && c == d && e == f,
            _ => false,
        }
    }
    let Some(key) = key.get(..prefix.len()) else { return false };
    match prefix.len() {
        0 => true,
        1..4 => few_are_equal(key, prefix),
        4..8 => ends_are_equal::<4>(key, prefix),
        8..=16 => ends_are_equal::<8>(key, prefix),
        _ => key == prefix,
    }
}

/// The length of the common prefix of `a` and `b`.
#[inline]
pub fn common_prefix_len(a: &[u8], b: &[u8]) -> usize {
    let limit = a.len().min(b.len());
    let mut i = 0;
    while i + 8 <= limit {
        let x = u64::from_le_bytes(a[i..i + 8].try_into().expect("eight bytes"));
        let y = u64::from_le_bytes(b[i..i + 8].try_into().expect("eight bytes"));
        let difference = x ^ y;
        if difference != 0 {
            return i + (difference.trailing_zeros() / 8) as usize;
        }
        i += 8;
    }
    while i < limit && a[i] == b[i] {
        i += 1;
    }
    i
}

/// The hash of a user key: XXH3-64. Computed once per operation; memtable filter, table filters and
/// block tags use it.
#[inline]
pub fn key_hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

/// The smallest byte string greater than every string that starts with `prefix`, or `None` if there
/// is none.
pub fn prefix_successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let end = prefix.iter().rposition(|byte| *byte != 0xFF)?;
    let mut successor = prefix[..=end].to_vec();
    successor[end] += 1;
    Some(successor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings_of_every_length_are_told_from_others() {
        let key: Vec<u8> = (0..40).collect();
        for len in 0..=key.len() {
            let prefix = &key[..len];
            assert!(begins_with(&key, prefix) && begins_with(prefix, prefix));
            for at in 0..len {
                let mut other = prefix.to_vec();
                other[at] ^= 1;
                assert!(!begins_with(&key, &other), "byte {at} of {len}");
                assert!(!begins_with(&key[..at], prefix));
            }
        }
    }

    #[test]
    fn prefixes_preserve_order() {
        let keys: [&[u8]; 7] = [b"", b"\0", b"a", b"a\0", b"ab", b"abcdefgh", b"abcdefghi"];
        for pair in keys.windows(2) {
            assert!(key_prefix(pair[0]) <= key_prefix(pair[1]));
            assert!(key_head(pair[0]) <= key_head(pair[1]));
        }
    }

    #[test]
    fn common_prefix_counts_bytes() {
        assert_eq!(common_prefix_len(b"", b"a"), 0);
        assert_eq!(common_prefix_len(b"abcdefghij", b"abcdefghiX"), 9);
        assert_eq!(common_prefix_len(b"abcdXfgh", b"abcdYfgh"), 4);
        assert_eq!(common_prefix_len(b"same", b"same"), 4);
    }

    #[test]
    fn prefix_successor_is_the_least_upper_bound() {
        assert_eq!(prefix_successor(b"ab"), Some(b"ac".to_vec()));
        assert_eq!(prefix_successor(b"a\xFF"), Some(b"b".to_vec()));
        assert_eq!(prefix_successor(b"\xFF\xFF"), None);
        assert_eq!(prefix_successor(b""), None);
    }
}
