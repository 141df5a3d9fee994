//! Counts entries without reading them: the tree counts its entries, and entries not applied to it
//! yet correct the count.
//!
//! A *correction* is an entry in memtables or delta runs that makes a difference: one that exists
//! and is not in the tree, or the other way round. A deferred index with rows in memtables is
//! counted by reading, because entries of the tree that those rows made stale leave no trace of
//! their own.
use super::cursor::{Bounds, IndexCursor, entry, has_rows, tree_view};
use super::reference::IndexReference;
use super::state::IndexState;
use crate::read::cursor::Overlay;
use crate::read::state::State;
use crate::read::super_version::SuperVersion;
use crate::runtime::Core;
use sapwood_base::memory;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Result, SequenceNumber};
use sapwood_btree::TreeView;
use std::ops::Bound;
use std::sync::Arc;

/// Key and covering bytes of an entry.
type Entry = (Vec<u8>, Vec<u8>);

/// Number of entries within `bounds`; in the latest state if `at` is `None`.
pub(super) fn count(
    core: &Core,
    state: &IndexState,
    bounds: Bounds,
    at: Option<SequenceNumber>,
) -> Result<u64> {
    let view = core.view.reference();
    core.watch_in(&view, state.id);
    let sequence = at.unwrap_or_else(|| core.visible_sequence());
    let index = entry(&view, state.id)?;
    index.check_readable(sequence)?;
    if state.is_deferred() && has_rows(&view, state.owner()) {
        let covered = core.covered(&view, sequence);
        let mut cursor = IndexCursor::open(core, view, state.id, sequence, bounds)?.jumping(covered);
        let mut count = 0;
        cursor.seek_to_first()?;
        while cursor.valid() {
            count += 1;
            cursor.next()?;
        }
        return Ok(count);
    }
    let tree = tree_view(core, index)?;
    let lower = bounds.lower.as_deref().map_or(Bound::Unbounded, Bound::Included);
    let upper = bounds.upper.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    if bounds.is_empty() {
        return Ok(0);
    }
    let mut count = tree.map_or(Ok(0), |tree| tree.count(lower, upper))? as i64;
    if planted::is(Bug::CountIgnoresDeltas) {
        return Ok(count as u64);
    }
    corrections(&view, state, sequence, tree, &bounds, |_, _, difference| {
        count += difference;
        Ok(true)
    })?;
    Ok(count.max(0) as u64)
}

/// Calls `with` for each correction within `bounds`, in order: its key, its covering bytes, and 1
/// or -1. Ends early when `with` returns `false`.
fn corrections(
    view: &Arc<SuperVersion>,
    state: &IndexState,
    sequence: SequenceNumber,
    tree: Option<&TreeView>,
    bounds: &Bounds,
    mut with: impl FnMut(&[u8], &[u8], i64) -> Result<bool>,
) -> Result<()> {
    let Some(mut overlay) = Overlay::new(view, state.id, sequence, bounds) else { return Ok(()) };
    overlay.seek_to_first()?;
    while let Some(found) = overlay.next_key()? {
        let before = tree.map_or(Ok(false), |tree| tree.contains(found.key))?;
        let difference = i64::from(found.is_put) - i64::from(before);
        if difference != 0 && !with(found.key, found.value, difference)? {
            break;
        }
    }
    Ok(())
}

/// The entry that has `n` entries before it.
pub(super) fn nth(
    index: IndexReference<'_>,
    State { view, sequence, covered, .. }: &State,
    n: u64,
) -> Result<Option<Entry>> {
    let (core, state, sequence) = (index.core(), index.state, *sequence);
    let found = entry(view, state.id)?;
    if state.is_deferred() && has_rows(view, state.owner()) {
        let mut cursor = IndexCursor::open(core, view.clone(), state.id, sequence, Bounds::default())?;
        cursor = cursor.jumping(*covered);
        cursor.seek_to_first()?;
        for _ in 0..n {
            if !cursor.valid() {
                return Ok(None);
            }
            cursor.next()?;
        }
        if !cursor.valid() {
            return Ok(None);
        }
        return Ok(Some((cursor.composite().to_vec(), memory::copy(cursor.covering())?)));
    }
    let tree = tree_view(core, found)?;
    // The sum of the corrections so far.
    let mut added = 0i64;
    let mut hit = None;
    corrections(view, state, sequence, tree, &Bounds::default(), |key, value, difference| {
        let rank = tree.map_or(Ok(0), |tree| tree.rank(key))? as i64 + added;
        if (n as i64) < rank {
            return Ok(false);
        }
        if difference > 0 && n as i64 == rank {
            hit = Some((key.to_vec(), value.to_vec()));
            return Ok(false);
        }
        added += difference;
        Ok(true)
    })?;
    let in_tree = match (hit, tree) {
        (Some(hit), _) => return Ok(Some(hit)),
        (None, Some(tree)) => tree.nth((n as i64 - added) as u64)?,
        (None, None) => None,
    };
    let Some((key, covering)) = in_tree else { return Ok(None) };
    if IndexCursor::is_settled(view, state.id) {
        return Ok(Some((key, covering)));
    }
    // Its covering bytes may be others by now.
    let mut cursor = IndexCursor::open(core, view.clone(), state.id, sequence, Bounds::default())?;
    cursor.seek_composite(&key)?;
    Ok(cursor.valid().then(|| (key, cursor.covering().to_vec())))
}
