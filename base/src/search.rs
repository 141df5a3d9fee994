//! Binary search over numbers, for sorted data that is not a slice: columns of a block, lines of an
//! index.

use std::ops::Range;

/// The first number in `low..high` for which `less` is false; `high` if there is none.
///
/// `less` must be true up to some number and false from there on; otherwise the result is some
/// number of the range.
#[inline]
pub fn partition(mut low: usize, high: usize, less: impl Fn(usize) -> bool) -> usize {
    let mut len = high - low;
    while len > 0 {
        let half = len / 2;
        if less(low + half) {
            low += half + 1;
            len -= half + 1;
        } else {
            len = half;
        }
    }
    low
}

/// Narrows the search for a number in an ascending sequence. The range from the first to the last
/// is cut into cells of equal width, about as many as there are numbers. Evenly spread numbers then
/// need one or two comparisons, and no distribution needs more than bisection.
pub struct Cells {
    /// The count of numbers below the beginning of each cell, then the count of all.
    below: Vec<u32>,
    /// The beginning of the first cell.
    start: u64,
    /// The base-2 logarithm of a cell's width.
    shift: u32,
}

impl Cells {
    /// Builds cells for `numbers`, which ascend: up to 2^`finer` times as many cells as numbers.
    ///
    /// # Panics
    /// If there are 2^32 numbers.
    pub fn new(
        numbers: impl DoubleEndedIterator<Item = u64> + ExactSizeIterator + Clone,
        finer: u32,
    ) -> Cells {
        let len = u32::try_from(numbers.len()).expect("fewer than 2^32 numbers");
        let start = numbers.clone().next().unwrap_or(0);
        let width = numbers.clone().next_back().unwrap_or(start).saturating_sub(start);
        let wanted = len.next_power_of_two().ilog2() + finer;
        let shift = (u64::BITS - width.leading_zeros()).saturating_sub(wanted);
        let mut below = Vec::with_capacity((width >> shift) as usize + 2);
        for (i, number) in numbers.enumerate() {
            let cell = (number.saturating_sub(start) >> shift) as usize;
            // Only the first number of each cell is recorded.
            below.resize(below.len().max(cell + 1), i as u32);
        }
        below.push(len);
        Cells { below, start, shift }
    }

    /// The range of indexes that may hold `number`: all numbers before the range are below it, all
    /// from the end on above it.
    #[inline]
    pub fn candidates(&self, number: u64) -> Range<usize> {
        let Some(distance) = number.checked_sub(self.start) else { return 0..0 };
        match self.below.get((distance >> self.shift) as usize..).and_then(|below| below.first_chunk()) {
            Some([first, end]) => *first as usize..*end as usize,
            None => {
                let len = self.below.last().map_or(0, |len| *len as usize);
                len..len
            }
        }
    }

    /// The memory in use, in bytes.
    pub fn memory_bytes(&self) -> usize {
        size_of_val(self.below.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::key_hash;

    #[test]
    fn the_place_of_a_number_is_among_its_candidates() {
        let mut drawn = 0u64;
        let mut draw = || {
            drawn += 1;
            key_hash(&drawn.to_le_bytes())
        };
        for round in 0..300 {
            let (len, bits) = ((draw() % 100) as usize, draw() % 64 + 1);
            let offset = if round % 3 == 0 { 0 } else { draw() };
            let mut numbers: Vec<u64> =
                (0..len).map(|_| offset.saturating_add(draw() >> (64 - bits))).collect();
            numbers.sort_unstable();
            let cells = Cells::new(numbers.iter().copied(), round % 2);
            let around = numbers
                .iter()
                .flat_map(|number| [number.saturating_sub(1), *number, number.saturating_add(1)]);
            for number in around.chain([0, u64::MAX, draw()]) {
                let candidates = cells.candidates(number);
                assert!(
                    numbers[..candidates.start].iter().all(|other| *other < number),
                    "{number} in {numbers:?}"
                );
                assert!(
                    numbers[candidates.end..].iter().all(|other| *other > number),
                    "{number} in {numbers:?}"
                );
            }
            assert!(cells.memory_bytes() <= 4 * (4 * len + 8));
        }
        // Evenly spread numbers need few comparisons.
        let even: Vec<u64> = (0..1000).map(|i| i << 50).collect();
        let cells = Cells::new(even.iter().copied(), 0);
        assert!(even.iter().all(|number| cells.candidates(*number).len() <= 2));
    }

    #[test]
    fn finds_every_boundary_of_every_range() {
        for low in 0..5 {
            for high in low..low + 20 {
                for boundary in 0..high + 3 {
                    assert_eq!(partition(low, high, |i| i < boundary), boundary.clamp(low, high));
                }
            }
        }
    }
}
