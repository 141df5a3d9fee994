//! Writes leaves from left to right: for bulk loading and for reordering.
use super::leaf::{LEAF_SLOTS, LeafOffset, MAX_HEIGHT, RecordOffset};
use super::node::Nodes;
use super::order::Order;
use crate::sync::Ordering;
use sapwood_base::Result;

/// Filled slots per leaf: the rest is for later inserts.
pub(super) const FILLED_SLOTS: usize = LEAF_SLOTS * 4 / 5;

/// Leaves that are written and not linked yet.
#[derive(Default)]
pub(super) struct Leaves {
    /// Prefix of the low key, leaf, height.
    written: Vec<(u64, LeafOffset, usize)>,
}

impl Leaves {
    /// Writes a leaf with these slots, and clears `slots`.
    pub(super) fn write(&mut self, nodes: &Nodes, slots: &mut Vec<(u64, RecordOffset)>) -> Result<()> {
        let Some((low_prefix, low)) = slots.first().copied() else { return Ok(()) };
        // Every fourth leaf of a level is promoted: the average tower of a random choice.
        let height = (1 + (self.written.len() + 1).trailing_zeros() as usize / 2).min(MAX_HEIGHT);
        let leaf = nodes.new_leaf(height, low_prefix, Some(low), slots)?;
        self.written.push((low_prefix, leaf.offset(), height));
        slots.clear();
        Ok(())
    }
}

/// Links leaves after the head of `order`, which has no others yet; all keys of one range are below
/// those of the next. REQUIRES: no concurrent use of the order.
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
    // Later keys in ascending order do not halve the last leaf.
    last[0].set_ascending(true);
}
