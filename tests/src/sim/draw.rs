//! The source of a workload's choices: a seed, or the bytes of a fuzzer.

/// A source of choices.
pub trait Draw {
    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u32) -> u32;

    /// True once in `n` times.
    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }

    /// One of `choices`, which is not empty.
    fn pick<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        &choices[self.below(choices.len() as u32) as usize]
    }
}

impl Draw for fastrand::Rng {
    fn below(&mut self, bound: u32) -> u32 {
        self.u32(..bound)
    }
}

/// Choices from bytes: one byte each, or two for more than 256 alternatives. Zero when the bytes
/// are used up.
pub struct Bytes<'b> {
    rest: &'b [u8],
}

impl<'b> Bytes<'b> {
    /// Choices from `bytes`, first to last.
    pub fn new(bytes: &'b [u8]) -> Bytes<'b> {
        Bytes { rest: bytes }
    }

    /// Whether all bytes are used up.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn byte(&mut self) -> u32 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        u32::from(*first)
    }
}

impl Draw for Bytes<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        match bound {
            0 | 1 => 0,
            2..=256 => self.byte() % bound,
            _ => (self.byte() << 8 | self.byte()) % bound,
        }
    }
}
