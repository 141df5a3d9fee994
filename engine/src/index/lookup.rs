//! The rows of one index key, without a cursor and without copies.
//!
//! 1. Pin the epoch, load the view, then the sequence number: entries and rows are read in this one
//!    state, so no snapshot needs to be registered for them to agree.
//! 2. If no memtable and no delta run has an entry of the index key, the tree has all of them,
//!    adjacent in one leaf, or a few: descend once and read them there. Otherwise the cursor merges
//!    the pending entries with the tree.
//! 3. Leave out stale entries (see `cursor`), and get each row; from tables alone if memtables have
//!    no rows.
//! 4. After the first leaf, continue in the same state with a reference to the view: a guard for
//!    all rows would keep everything that is replaced meanwhile, however many rows there are.
use super::cursor::{Bounds, IndexCursor, dropped, has_rows, index_meta, is_stale, tree_view};
use super::reference::IndexReference;
use crate::read::keyspace_views::KeyspaceView;
use crate::read::view::View;
use crate::read::{Found, Nobody, get_in_tables, get_in_view};
use crossbeam_epoch::Guard;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::ordered::composite::{Composite, put_bound_at};
use sapwood_base::{KeyspaceId, Lookup, Result, SequenceNumber};
use sapwood_btree::TreeCursor;
use std::cell::RefCell;
use std::sync::Arc;

/// Entries after the first leaf that are read under one guard.
const PINNED_TOGETHER: usize = 256;

thread_local! {
    static PREFIX: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Calls `with` with key and value of each row that has `index_key`; returns their number.
// Always: left to itself, the compiler decides by what else is in the crate.
#[inline(always)]
pub(super) fn rows(
    index: IndexReference<'_>,
    index_key: &[u8],
    mut with: impl FnMut(&[u8], &[u8]),
) -> Result<u64> {
    let rows = PREFIX.try_with(|cell| {
        // If `with` does a lookup itself, that one gets a fresh buffer.
        let mut prefix = cell.take();
        prefix.clear();
        put_bound_at(&mut prefix, index_key);
        let count = rows_behind(index, index_key, &prefix, &mut with);
        cell.replace(prefix);
        count
    });
    rows.unwrap_or_else(|_| rows_at_the_end(index, index_key, &mut with))
}

/// The same for a thread that is being torn down.
#[cold]
fn rows_at_the_end(
    index: IndexReference<'_>,
    index_key: &[u8],
    mut with: &mut dyn FnMut(&[u8], &[u8]),
) -> Result<u64> {
    let mut prefix = Vec::new();
    put_bound_at(&mut prefix, index_key);
    rows_behind(index, index_key, &prefix, &mut with)
}

/// The same; `prefix` is the common prefix of the composites of `index_key`.
#[inline]
fn rows_behind(
    index: IndexReference<'_>,
    index_key: &[u8],
    prefix: &[u8],
    with: &mut impl FnMut(&[u8], &[u8]),
) -> Result<u64> {
    let core = index.core();
    core.check_open()?;
    let guard = crossbeam_epoch::pin();
    let borrowed = core.view.borrow(&guard);
    let view = borrowed.view();
    let Some(space) = view.keyspace(index.state.id) else { return Err(dropped()) };
    core.watch_announced(space);
    let sequence = core.visible_sequence();
    let Some(found) = &space.index else { return Err(dropped()) };
    found.check_readable(sequence)?;
    let is_vacant = space.state.vacancies.any() && is_vacant(space, prefix, sequence);
    let is_settled = space.version.runs.is_empty() && !has_rows(view, index.state.id);
    if is_vacant || !is_settled && is_pending(view, space, index.state.id, prefix, &guard)? {
        drop(guard);
        return merged(index, index_key, with);
    }
    let Some(tree) = tree_view(core, found)? else { return Ok(0) };
    let rows = RowReader::new(index, view, sequence, &guard)?;
    // If no row can have made an entry stale, none is looked up.
    let asks_rows = index.state.is_deferred() && rows.in_memtables;
    let built = asks_rows.then(|| found.state.built_sequence());
    let mut count = 0;
    let done = tree.for_each_in_leaf(prefix, &guard, |primary_key, _| {
        if let Some(built) = built
            && is_stale(view, index.state.owner(), primary_key, sequence, built)
        {
            return Ok(());
        }
        count += 1;
        rows.row(primary_key, with)
    })?;
    if let Some(done) = done {
        let view = borrowed.reference();
        let rest = tree.prefix_behind(prefix, done)?;
        drop(guard);
        count += in_later_leaves(index, view, sequence, built, prefix.len(), rest, with)?;
    }
    Ok(count)
}

/// Continues with the entries of `rest`, whose keys have a prefix of `prefix_len` bytes; returns
/// the number of their rows.
#[cold]
fn in_later_leaves(
    index: IndexReference<'_>,
    view: Arc<View>,
    sequence: SequenceNumber,
    built: Option<SequenceNumber>,
    prefix_len: usize,
    mut rest: TreeCursor,
    with: &mut impl FnMut(&[u8], &[u8]),
) -> Result<u64> {
    let owner = index.state.owner();
    let mut count = 0;
    while rest.valid() {
        let guard = crossbeam_epoch::pin();
        let rows = RowReader::new(index, &view, sequence, &guard)?;
        for _ in 0..PINNED_TOGETHER {
            if !rest.valid() {
                break;
            }
            let primary_key = &rest.key()[prefix_len..];
            if !built.is_some_and(|built| is_stale(&view, owner, primary_key, sequence, built)) {
                rows.row(primary_key, with)?;
                count += 1;
            }
            rest.next()?;
        }
    }
    Ok(count)
}

/// Whether `prefix` lies in a vacant range, which the cursor jumps over.
#[cold]
fn is_vacant(space: &KeyspaceView, prefix: &[u8], sequence: SequenceNumber) -> bool {
    space.state.vacancies.end_of(prefix, sequence).is_some()
}

/// Whether a memtable or a delta run has an entry whose composite begins with `prefix`, of whatever
/// kind and time.
#[inline(never)]
fn is_pending(
    view: &View,
    space: &KeyspaceView,
    id: KeyspaceId,
    prefix: &[u8],
    guard: &Guard,
) -> Result<bool> {
    for generation in &view.generations {
        if generation.memtable.entries_of(id) > 0 {
            let mut entries = generation.memtable.iter(id);
            entries.seek(prefix)?;
            if entries.valid() && entries.key().starts_with(prefix) {
                return Ok(true);
            }
        }
    }
    for run in &space.version.runs {
        if run.has_prefix(prefix, guard)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The same while not all entries are in the tree.
#[cold]
fn merged(index: IndexReference<'_>, index_key: &[u8], with: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
    let core = index.core();
    let (view, sequence, covered) = core.latest(None);
    index_meta(&view, index.state.id)?.check_readable(sequence)?;
    let bounds = Bounds::of_key(index_key);
    let mut cursor =
        IndexCursor::open(core, view.clone(), index.state.id, sequence, bounds)?.jumping(covered);
    cursor.seek_to_first()?;
    let mut count = 0;
    while cursor.valid() {
        let guard = crossbeam_epoch::pin();
        let rows = RowReader::new(index, &view, sequence, &guard)?;
        rows.row(Composite::split(cursor.composite())?.primary_key, with)?;
        count += 1;
        cursor.next()?;
    }
    Ok(count)
}

/// The state in which rows are read.
struct RowReader<'a> {
    index: IndexReference<'a>,
    view: &'a View,
    space: &'a KeyspaceView,
    /// Whether memtables have any.
    in_memtables: bool,
    sequence: SequenceNumber,
    guard: &'a Guard,
}

impl<'a> RowReader<'a> {
    #[inline]
    fn new(
        index: IndexReference<'a>,
        view: &'a View,
        sequence: SequenceNumber,
        guard: &'a Guard,
    ) -> Result<RowReader<'a>> {
        let Some(space) = view.keyspace(index.state.owner()) else { return Err(dropped()) };
        let in_memtables = has_rows(view, index.state.owner());
        Ok(RowReader { index, view, space, in_memtables, sequence, guard })
    }

    #[inline]
    fn row(&self, primary_key: &[u8], with: &mut impl FnMut(&[u8], &[u8])) -> Result<()> {
        match self.find(primary_key)? {
            Some(found) => with(primary_key, found.bytes()),
            None => return Err(super::verify::no_row(primary_key)),
        }
        Ok(())
    }

    #[inline]
    fn find(&self, primary_key: &[u8]) -> Result<Option<Found<'_>>> {
        match self.in_memtables {
            false => get_in_tables(self.space, Lookup::new(primary_key, self.sequence), self.guard),
            true => self.find_in_view(primary_key),
        }
    }

    /// Apart: the way through tables alone is short, and is inlined.
    #[inline(never)]
    fn find_in_view(&self, primary_key: &[u8]) -> Result<Option<Found<'_>>> {
        let lookup = Lookup::new(primary_key, self.sequence);
        get_in_view(self.view, self.index.keyspace, lookup, self.guard, &mut Nobody)
    }
}
