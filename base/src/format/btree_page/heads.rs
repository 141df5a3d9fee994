//! The search of a page's column of heads, and which lines of a page a search reads.
use super::size::{CELL_BYTES, HEAD_BYTES, PAGE_HEADER_BYTES};

/// A line of a processor's cache.
pub(super) const LINE_BYTES: usize = 64;
/// Up to so many heads are searched by halving alone: they are in a few cache lines.
pub(super) const HALVED_HEADS: usize = 24;
/// How far from the place that even keys would have the search begins, in heads: a cache line of them.
const GALLOP_HEADS: usize = 8;

/// Where in a leaf of `cells` cells a search reads that finds its key behind `share` of the others: the header, the place
/// of the prefix, and the columns. To be asked for at once, before even the header is there. Of keys that are even
/// otherwise, the place differs by some half of a root of their number, which is what the lines of heads are for.
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

/// How many of `heads`, which ascend, are below `head`. `share`, if it is known, is about that number as a share of all.
///
/// Begins where the head would be if heads were as far from each other as in an even distribution, and doubles its steps
/// from there. Halving misses the cache at almost every step of a page that was not read lately; this does at two or three
/// if keys are even, and takes twice as many steps as halving if they are not at all.
#[inline]
pub(super) fn heads_below(heads: &[[u8; HEAD_BYTES]], head: u64, share: Option<f32>) -> usize {
    let at = |i: usize| u64::from_le_bytes(heads[i]);
    let (mut low, mut high) = (0, heads.len());
    if high > HALVED_HEADS {
        let share = share.unwrap_or_else(|| {
            let (first, last) = (at(0), at(high - 1));
            // Of equal ones it is not a number, which becomes 0.
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
