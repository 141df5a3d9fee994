//! Splits an input into small numbers and strings; at its end, zeros and empty strings follow.

/// The rest of an input.
#[derive(Clone, Debug)]
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// All of `input`.
    pub fn new(input: &'a [u8]) -> Bytes<'a> {
        Bytes { rest: input }
    }

    /// Whether the input is used up.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `len` bytes, or the rest.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// The rest.
    pub fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// One byte.
    pub fn u8(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> u64 {
        let mut word = [0; 8];
        let taken = self.take(8);
        word[..taken.len()].copy_from_slice(taken);
        u64::from_le_bytes(word)
    }

    /// A string of at most `most` bytes, after a byte with its length.
    pub fn string(&mut self, most: usize) -> &'a [u8] {
        let len = usize::from(self.u8()) % (most + 1);
        self.take(len)
    }

    /// A key: mostly a short one out of few, so that keys meet; sometimes arbitrary bytes of the
    /// input.
    pub fn key(&mut self) -> Vec<u8> {
        let first = self.u8();
        match first {
            0..=191 => {
                let stem: &[u8] = [&b"k"[..], b"key", b"", b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFFx"]
                    [usize::from(first >> 4) % 4];
                [stem, &[first & 15]].concat()
            }
            _ => self.string(40).to_vec(),
        }
    }

    /// A value: bytes of the input, or a longer run of one byte.
    pub fn value(&mut self) -> Vec<u8> {
        let first = self.u8();
        match first {
            0..=127 => self.take(usize::from(first) % 24).to_vec(),
            _ => vec![first; usize::from(first - 127) * 9],
        }
    }
}
