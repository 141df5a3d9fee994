//! Leaves that are written from left to right: for lists that are built, and for those that come into another order.
use super::leaf::{LEAF_SLOTS, LeafOffset, MAX_HEIGHT, RecordOffset};
use super::node::Nodes;
use super::order::Order;
use crate::sync::Ordering;
use sapwood_base::Result;

/// Slots that are filled: some are left for the inserts to come.
pub(super) const FILLED_SLOTS: usize = LEAF_SLOTS * 4 / 5;

/// Leaves that were written and are linked nowhere yet.
#[derive(Default)]
pub(super) struct Leaves {
    /// With the prefix of the low key and the height.
    written: Vec<(u64, LeafOffset, usize)>,
}

impl Leaves {
    /// Writes a leaf with these slots, and empties them.
    pub(super) fn write(&mut self, nodes: &Nodes, slots: &mut Vec<(u64, RecordOffset)>) -> Result<()> {
        let Some((low_prefix, low)) = slots.first().copied() else { return Ok(()) };
        // Every fourth leaf of a level goes up: the tower that chance would give on average.
        let height = (1 + (self.written.len() + 1).trailing_zeros() as usize / 2).min(MAX_HEIGHT);
        let leaf = nodes.new_leaf(height, low_prefix, Some(low), slots)?;
        self.written.push((low_prefix, leaf.offset(), height));
        slots.clear();
        Ok(())
    }
}

/// Makes leaves visible behind the head of `order`, which has no others yet; all keys of one range are below those of the
/// next. REQUIRES: nobody else uses the order meanwhile.
pub(super) fn link_all(nodes: &Nodes, order: &Order, ranges: impl IntoIterator<Item = Leaves>) {
    let mut last = [nodes.leaf(order.head); MAX_HEIGHT];
    for (prefix, offset, height) in ranges.into_iter().flat_map(|range| range.written) {
        let leaf = nodes.leaf(offset);
        for before in last.iter_mut().take(height).enumerate() {
            // SAFETY: `last` holds leaves that have the level, from the head on.
            unsafe { before.1.link(before.0) }.set(prefix, Some(offset));
            *before.1 = leaf;
        }
        order.levels.fetch_max(height as u32, Ordering::Relaxed);
    }
    // Keys that go on behind the last one do not halve the last leaf.
    last[0].set_ascending(true);
}
