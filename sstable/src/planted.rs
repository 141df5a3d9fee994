//! The decisions of this crate that a planted bug changes: see [`sapwood_base::planted`].
use sapwood_base::planted::{Bug, is};
use sapwood_base::{FileNumber, Result};
use std::ops::Range;

/// Leaves the hash of a key that begins a block in the filter.
#[inline]
pub(crate) fn keep_first_hash(hashes: &mut Vec<u64>, is_new_key: bool) {
    if is(Bug::FilterForgets) && is_new_key {
        hashes.pop();
    }
}

/// Whether a finished table is synced.
#[inline]
pub(crate) fn syncs_table() -> bool {
    !is(Bug::TableNotSynced)
}

/// Whether two blocks are the same one.
#[inline]
pub(crate) fn is_same_block(last: (FileNumber, usize), wanted: (FileNumber, usize)) -> bool {
    last == wanted || is(Bug::LastBlockForAll)
}

/// The slot to take where a seek found `slot` of `count`.
#[inline]
pub(crate) fn landing_slot(slot: usize, count: usize) -> usize {
    if is(Bug::SeekLandsLate) { (slot + 1).min(count - 1) } else { slot }
}

/// Loads the first of `blocks`. A block that is unreadable is an error.
#[inline]
pub(crate) fn load_next(mut blocks: Range<usize>, mut load: impl FnMut(usize) -> Result<()>) -> Result<()> {
    let mut loaded = load(blocks.start);
    while is(Bug::UnreadableSkipped) && loaded.is_err() && blocks.len() > 1 {
        blocks.start += 1;
        loaded = load(blocks.start);
    }
    loaded
}
