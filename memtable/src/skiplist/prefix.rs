//! The eight bytes of a key that searches compare.
use sapwood_base::key::key_prefix;

/// The bytes that most keys of a list start with. Prefixes are taken behind them, so that keys with a long common
/// beginning are told apart by their prefixes too.
#[derive(Clone, Debug, Default)]
pub struct PrefixBase(Box<[u8]>);

impl PrefixBase {
    /// Prefixes behind `base`.
    pub fn new(base: &[u8]) -> PrefixBase {
        PrefixBase(base.into())
    }

    /// Whether there is no common beginning.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number that grows with the key: `prefix_of(a) < prefix_of(b)` implies `a < b`.
    #[inline]
    pub fn prefix_of(&self, key: &[u8]) -> u64 {
        if self.0.is_empty() {
            return key_prefix(key);
        }
        match key.strip_prefix(&*self.0) {
            Some(rest) => key_prefix(rest),
            None if key < &*self.0 => 0,
            None => u64::MAX,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn prefixes_behind_a_base_preserve_order() {
        let mut keys: Vec<&[u8]> = vec![
            b"",
            b"a",
            b"user",
            b"user:",
            b"user:\0",
            b"user:1",
            b"user:12345678",
            b"user:123456789",
            b"user;",
            b"z",
        ];
        keys.push(b"use");
        keys.push(b"user:\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF");
        keys.sort();
        for base in [&b""[..], b"user:", b"user:1234", b"\xFF"] {
            let base = PrefixBase::new(base);
            for pair in keys.windows(2) {
                assert!(base.prefix_of(pair[0]) <= base.prefix_of(pair[1]), "{base:?} {pair:?}");
            }
        }
    }
}
