//! Binary search over numbers, for sorted data that is not a slice: columns of a block, lines of an index.

/// The first number from `low` to below `high` for which `less` is false; `high` if there is none.
///
/// `less` holds up to some number and not from there on; otherwise the result is some number of the range.
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

#[cfg(test)]
mod tests {
    use super::*;

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
