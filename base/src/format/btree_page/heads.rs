//! The search in a page's column of heads, and the cache lines of a page that a search reads.
use super::size::{CELL_BYTES, HEAD_BYTES, PAGE_HEADER_BYTES};

/// The length of a cache line in bytes.
pub(super) const LINE_BYTES: usize = 64;
/// Up to this many heads are searched by bisection alone: they are in a few cache lines.
pub(super) const HALVED_HEADS: usize = 24;
/// The first step of the gallop from the interpolated position, in heads: a cache line of them.
const GALLOP_HEADS: usize = 8;

/// Byte offsets that a search in a leaf of `cells` cells reads if its key is at relative position
/// `share`: the header, the position of the prefix, and the columns. For prefetching all of them at
/// once, before even the header is loaded. With evenly distributed keys the position deviates by
/// about half the square root of their number; the extra lines of heads cover that.
#[inline]
pub fn leaf_bytes_near(cells: usize, share: f32) -> [usize; 8] {
    let near = (share * cells as f32) as usize;
    let heads = PAGE_HEADER_BYTES + 8 * near;
    [
        0,
        heads.wrapping_sub(LINE_BYTES / 2),
        heads + LINE_BYTES / 2,
        heads.wrapping_sub(3 * LINE_BYTES / 2),
        heads + 3 * LINE_BYTES / 2,
        PAGE_HEADER_BYTES + CELL_BYTES * cells,
        PAGE_HEADER_BYTES + 8 * cells + 2 * near,
        PAGE_HEADER_BYTES + 10 * cells + 2 * near,
    ]
}

/// The number of `heads`, which ascend, that are below `head`. `share`, if known, estimates that
/// number as a share of all.
///
/// An interpolation search: starts at the position of `head` in an even distribution and gallops
/// from there with doubling steps. Bisection misses the cache at almost every step of a page that
/// was not read lately. This search misses two or three times if keys are even, and takes twice as
/// many steps as bisection if they are not even at all.
#[inline]
pub(super) fn heads_below(heads: &[[u8; HEAD_BYTES]], head: u64, share: Option<f32>) -> usize {
    let at = |i: usize| u64::from_le_bytes(heads[i]);
    let (mut low, mut high) = (0, heads.len());
    if high > HALVED_HEADS {
        let share = share.unwrap_or_else(|| {
            let (first, last) = (at(0), at(high - 1));
            // If all heads are equal this is NaN, which the cast turns into 0.
            head.saturating_sub(first) as f32 / last.saturating_sub(first) as f32
        });
        let guess = ((share * (high - 1) as f32) as usize).min(high - 1);
        let mut step = GALLOP_HEADS;
        if at(guess) < head {
            low = guess + 1;
            while low + step < high && at(low + step - 1) < head {
                low += step;
                step *= 2;
            }
            high = (low + step).min(high);
        } else {
            high = guess;
            while high > step && at(high - step) >= head {
                high -= step;
                step *= 2;
            }
            low = high.saturating_sub(step);
        }
    }
    low + heads[low..high].partition_point(|other| u64::from_le_bytes(*other) < head)
}
