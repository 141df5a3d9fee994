//! The rows of one index key, without a cursor and without copies.
//!
//! 1. Pin the epoch, load the view, then the sequence number: entries and rows are read in this one state, so no snapshot
//!    needs to be registered for them to agree.
//! 2. If the tree has all entries, they lie behind each other in one leaf, or a few: go down once and read them there.
//!    Otherwise the cursor merges what is pending with the tree.
//! 3. Leave out what is stale (see `cursor`), and get each row.
use super::Index;
use super::cursor::{Bounds, IndexCursor, entry, has_rows, is_stale, tree_view};
use super::state::IndexEntry;
use crate::read::super_version::SuperVersion;
use crate::read::{Nobody, get_in_view};
use crossbeam_epoch::Guard;
use sapwood_base::ordered::composite::{Composite, put_bound_at};
use sapwood_base::{Result, SequenceNumber};

/// Calls `with` with key and value of each row that has `index_key`; gives their number.
pub(super) fn rows(index: &Index, index_key: &[u8], mut with: impl FnMut(&[u8], &[u8])) -> Result<u64> {
    let core = index.core();
    core.check_open()?;
    let guard = crossbeam_epoch::pin();
    let view = core.view.load(&guard);
    let sequence = core.visible_sequence();
    let found = entry(view, index.state.id)?;
    found.check_readable(sequence)?;
    if !IndexCursor::is_settled(view, index.state.id) {
        drop(guard);
        return merged(index, index_key, with);
    }
    let Some(tree) = tree_view(core, found)? else { return Ok(0) };
    let mut prefix = Vec::with_capacity(index_key.len() + 8);
    put_bound_at(&mut prefix, index_key);
    let state = Rows { index, view, entry: found, sequence, guard: &guard };
    let asks_rows = index.state.is_deferred() && has_rows(view, index.state.owner());
    let mut count = 0;
    tree.for_each_with_prefix(&prefix, |composite, _| {
        let primary_key = composite.get(prefix.len()..).unwrap_or_default();
        let through = state.entry.state.through();
        if asks_rows && is_stale(view, index.state.owner(), primary_key, sequence, through) {
            return Ok(());
        }
        count += 1;
        state.row(primary_key, &mut with)
    })?;
    Ok(count)
}

/// The same while not all entries are in the tree.
#[cold]
fn merged(index: &Index, index_key: &[u8], mut with: impl FnMut(&[u8], &[u8])) -> Result<u64> {
    let core = index.core();
    let view = core.view.reference();
    let sequence = core.visible_sequence();
    let found = entry(&view, index.state.id)?;
    found.check_readable(sequence)?;
    let bounds = Bounds::of_key(index_key);
    let mut cursor = IndexCursor::open(core, view.clone(), index.state.id, sequence, bounds)?;
    cursor.seek_to_first()?;
    let mut count = 0;
    while cursor.valid() {
        let guard = crossbeam_epoch::pin();
        let state = Rows { index, view: &view, entry: found, sequence, guard: &guard };
        state.row(Composite::split(cursor.composite())?.primary_key, &mut with)?;
        count += 1;
        cursor.next()?;
    }
    Ok(count)
}

/// The state in which rows are read.
struct Rows<'a> {
    index: &'a Index,
    view: &'a SuperVersion,
    entry: &'a IndexEntry,
    sequence: SequenceNumber,
    guard: &'a Guard,
}

impl Rows<'_> {
    #[inline]
    fn row(&self, primary_key: &[u8], with: &mut impl FnMut(&[u8], &[u8])) -> Result<()> {
        let (core, keyspace) = (self.index.core(), self.index.keyspace.state());
        let found =
            get_in_view(core, self.view, keyspace, primary_key, self.sequence, self.guard, &mut Nobody)?;
        match found {
            Some(found) => with(primary_key, found.bytes()),
            None => return Err(super::verify::no_row(primary_key)),
        }
        Ok(())
    }
}
