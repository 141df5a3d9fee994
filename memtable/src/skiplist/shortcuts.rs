//! Shortcuts: the leaf last found for an interval of prefixes, so that most searches skip the
//! towers.
//!
//! A search through the towers of a large list takes three or four dependent cache misses. A
//! shortcut needs the prefix alone: the interval between the least and the greatest prefix is cut
//! into cells of equal width, and each cell names a leaf, from which the key is at most a few
//! leaves to the right. Like a finger this is a hint: the caller checks that the leaf begins at or
//! before the key, which makes the search to the right correct, and falls back to the towers if it
//! finds no such leaf.
//!
//! Unevenly distributed keys cluster in few cells. A cell whose leaf is far from its keys is
//! closed, so that such keys do not pay for the attempt.
//!
//! Only writers change cells, and only when they learned something: a read writes nothing.
use crate::skiplist::leaf::LeafOffset;
use crate::sync::{AtomicU32, Ordering};
use std::num::NonZeroU32;

/// The content of a closed cell. Not a valid leaf: offsets end below it.
const CLOSED: u32 = u32::MAX;

/// The cells of one list.
pub(super) struct Shortcuts {
    first: u64,
    /// Log2 of the width of a cell.
    shift: u32,
    cells: Box<[AtomicU32]>,
}

/// The cell that a prefix falls into.
pub(super) struct Cell<'a> {
    leaf: &'a AtomicU32,
    start: u64,
}

impl Shortcuts {
    /// Creates at most `cells` cells, a power of two, for prefixes from `first` to `last`.
    pub(super) fn new(first: u64, last: u64, cells: usize) -> Shortcuts {
        let width = u64::BITS - (last - first).leading_zeros();
        let shift = width.saturating_sub(cells.ilog2());
        let cells = ((last - first) >> shift) as usize + 1;
        Shortcuts { first, shift, cells: (0..cells).map(|_| AtomicU32::new(0)).collect() }
    }

    /// The cell of `prefix`, if it is in the range for which the cells were created.
    #[inline]
    pub(super) fn cell(&self, prefix: u64) -> Option<Cell<'_>> {
        let number = prefix.checked_sub(self.first)? >> self.shift;
        let leaf = self.cells.get(usize::try_from(number).ok()?)?;
        Some(Cell { leaf, start: self.first + (number << self.shift) })
    }
}

impl Cell<'_> {
    /// The least prefix that falls into this cell.
    #[inline]
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// The leaf, if one is known.
    #[inline]
    pub(super) fn leaf(&self) -> Option<LeafOffset> {
        // Acquire pairs with the release store in `set`: the leaf is complete.
        match self.leaf.load(Ordering::Acquire) {
            CLOSED => None,
            offset => NonZeroU32::new(offset).map(LeafOffset::new),
        }
    }

    /// Whether the cell is closed.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.leaf.load(Ordering::Relaxed) == CLOSED
    }

    /// Stores another leaf.
    #[inline]
    pub(super) fn set(&self, leaf: LeafOffset) {
        // Release: a thread that loads the offset finds the leaf complete, as this thread did.
        self.leaf.store(leaf.get(), Ordering::Release);
    }

    /// Closes this cell.
    pub(super) fn close(&self) {
        self.leaf.store(CLOSED, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(sapwood_loom)))]
mod tests {
    use super::*;

    #[test]
    fn cells_cover_the_range_and_nothing_else() {
        for (first, last, cells) in [
            (0, u64::MAX, 8),
            (5, 5, 4),
            (5, 6, 4),
            (100, 100_000, 16),
            (u64::MAX - 3, u64::MAX, 64),
            (7, 1 << 63, 1),
        ] {
            let shortcuts = Shortcuts::new(first, last, cells);
            assert!((1..=cells.max(2)).contains(&shortcuts.cells.len()), "{first} {last} {cells}");
            for prefix in [first, last, first + (last - first) / 3] {
                let cell = shortcuts.cell(prefix).unwrap();
                assert!(
                    cell.start() <= prefix && prefix - cell.start() < 1 << shortcuts.shift.min(63)
                        || shortcuts.shift == 64
                );
            }
            if let Some(below) = first.checked_sub(1) {
                assert!(shortcuts.cell(below).is_none());
            }
            if let Some(above) = last.checked_add(1 << shortcuts.shift.min(63)) {
                assert!(shortcuts.cell(above).is_none());
            }
        }
    }

    #[test]
    fn a_closed_cell_stays_without_a_leaf() {
        let shortcuts = Shortcuts::new(0, 100, 4);
        let cell = shortcuts.cell(50).unwrap();
        assert!(cell.leaf().is_none() && !cell.is_closed());
        cell.set(LeafOffset::new(NonZeroU32::new(8).unwrap()));
        assert_eq!(shortcuts.cell(51).unwrap().leaf().map(LeafOffset::get), Some(8));
        cell.close();
        assert!(cell.leaf().is_none() && shortcuts.cell(51).unwrap().is_closed());
    }
}
