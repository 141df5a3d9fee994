//! Counts entries without reading them: the tree counts its entries, and entries not applied to it
//! yet correct the count.
//!
//! A *correction* is an entry in memtables or delta runs that makes a difference: one that exists
//! and is not in the tree, or the other way round. A deferred index with rows in memtables is
//! counted by reading, because entries of the tree that those rows made stale leave no trace of
//! their own.
use super::cursor::{Bounds, IndexCursor, has_rows, index_meta, tree_view};
use super::reference::IndexReference;
use super::state::IndexState;
use crate::planted;
use crate::read::cursor::Overlay;
use crate::read::state::ReadState;
use crate::read::view::View;
use crate::runtime::Core;
use sapwood_base::memory;
use sapwood_base::{KeyspaceId, Result, SequenceNumber};
use sapwood_btree::TreeView;
use std::ops::Bound;
use std::sync::Arc;

/// Key and covering bytes of an entry.
type KeyAndCovering = (Vec<u8>, Vec<u8>);

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
    index_meta(&view, state.id)?.check_readable(sequence)?;
    if bounds.is_empty() {
        return Ok(0);
    }
    if !is_counted(&view, state) {
        let covered = core.covered(&view, sequence);
        return count_by_reading(IndexCursor::open(core, view, state.id, sequence, bounds)?.jumping(covered));
    }
    Counted::new(core, &view, state.id, sequence)?.count(&bounds)
}

/// The entry that has `n` entries before it.
pub(super) fn nth(
    index: IndexReference<'_>,
    ReadState { view, sequence, covered, .. }: &ReadState,
    n: u64,
) -> Result<Option<KeyAndCovering>> {
    let (core, id, sequence) = (index.core(), index.state.id, *sequence);
    let cursor = || IndexCursor::open(core, view.clone(), id, sequence, Bounds::default());
    if !is_counted(view, index.state) {
        return nth_by_reading(cursor()?.jumping(*covered), n);
    }
    let counted = Counted::new(core, view, id, sequence)?;
    let in_tree = match counted.locate(n)? {
        Located::Added(found) => return Ok(Some(found)),
        Located::InTree(rank) => counted.tree.map_or(Ok(None), |tree| tree.nth(rank))?,
    };
    let Some((key, covering)) = in_tree else { return Ok(None) };
    if IndexCursor::is_settled(view, id) {
        return Ok(Some((key, covering)));
    }
    // A pending version of the entry may have other covering bytes.
    let mut cursor = cursor()?;
    cursor.seek_composite(&key)?;
    current(&cursor)
}

/// Whether the entries can be counted without reading them.
fn is_counted(view: &View, state: &IndexState) -> bool {
    !state.is_deferred() || !has_rows(view, state.owner())
}

fn count_by_reading(mut cursor: IndexCursor) -> Result<u64> {
    let mut count = 0;
    cursor.seek_to_first()?;
    while cursor.valid() {
        count += 1;
        cursor.next()?;
    }
    Ok(count)
}

fn nth_by_reading(mut cursor: IndexCursor, n: u64) -> Result<Option<KeyAndCovering>> {
    cursor.seek_to_first()?;
    for _ in 0..n {
        if !cursor.valid() {
            break;
        }
        cursor.next()?;
    }
    current(&cursor)
}

/// The entry at a cursor.
fn current(cursor: &IndexCursor) -> Result<Option<KeyAndCovering>> {
    if !cursor.valid() {
        return Ok(None);
    }
    Ok(Some((cursor.composite().to_vec(), memory::copy(cursor.covering())?)))
}

/// One state of an index whose entries can be counted.
struct Counted<'a> {
    view: &'a Arc<View>,
    id: KeyspaceId,
    sequence: SequenceNumber,
    tree: Option<&'a TreeView>,
}

/// The place of an entry.
enum Located {
    /// It is a correction.
    Added(KeyAndCovering),
    /// If it exists, it has this many entries before it in the tree.
    InTree(u64),
}

impl<'a> Counted<'a> {
    fn new(
        core: &Core,
        view: &'a Arc<View>,
        id: KeyspaceId,
        sequence: SequenceNumber,
    ) -> Result<Counted<'a>> {
        let tree = tree_view(core, index_meta(view, id)?)?;
        Ok(Counted { view, id, sequence, tree })
    }

    fn count(&self, bounds: &Bounds) -> Result<u64> {
        let lower = bounds.lower.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let upper = bounds.upper.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut count = self.tree.map_or(Ok(0), |tree| tree.count(lower, upper))? as i64;
        self.for_each_correction(bounds, |_, _, difference| {
            count += planted::corrected_by(difference);
            Ok(true)
        })?;
        Ok(count.max(0) as u64)
    }

    /// The entry that has `n` entries before it.
    fn locate(&self, n: u64) -> Result<Located> {
        let mut located = None;
        // The sum of the corrections so far.
        let mut added = 0;
        self.for_each_correction(&Bounds::default(), |key, covering, difference| {
            let rank = self.tree.map_or(Ok(0), |tree| tree.rank(key))?.saturating_add_signed(added);
            if n < rank {
                return Ok(false);
            }
            if n == rank && difference > 0 {
                located = Some(Located::Added((key.to_vec(), covering.to_vec())));
                return Ok(false);
            }
            added += difference;
            Ok(true)
        })?;
        Ok(located.unwrap_or(Located::InTree(n.saturating_add_signed(-added))))
    }

    /// Calls `with` for each correction within `bounds`, in order: its key, its covering bytes, and
    /// 1 or -1. Ends early when `with` returns `false`.
    fn for_each_correction(
        &self,
        bounds: &Bounds,
        mut with: impl FnMut(&[u8], &[u8], i64) -> Result<bool>,
    ) -> Result<()> {
        let Some(mut overlay) = Overlay::new(self.view, self.id, self.sequence, bounds) else {
            return Ok(());
        };
        overlay.seek_to_first()?;
        while let Some(found) = overlay.next_key()? {
            let before = self.tree.map_or(Ok(false), |tree| tree.contains(found.key))?;
            let difference = i64::from(found.is_put) - i64::from(before);
            if difference != 0 && !with(found.key, found.value, difference)? {
                break;
            }
        }
        Ok(())
    }
}
