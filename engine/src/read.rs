//! The read path of a get.
//!
//! 1. Pin the epoch: every reachable memtable, table, index and cache frame stays alive from here
//!    on.
//! 2. Load the view, then the sequence number to read at (in this order, see `view.rs`).
//! 3. Hash the key once; memtable filters, table filters and block tags all use it.
//! 4. Find the table of each run. Prefetch its filter line and those of the memtables: one wait for
//!    all of them instead of one each.
//! 5. Search the memtables, newest first: filter, skiplist.
//! 6. Search the runs, newest first: filter, index, block in the cache or from the file. The first
//!    hit is the result.
pub(crate) mod cursor;
pub mod explain;
pub(crate) mod iterator;
pub(crate) mod jumps;
pub(crate) mod keyspace_views;
pub(crate) mod multi_get;
pub(crate) mod resolve;
pub(crate) mod slice;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod view;
pub(crate) mod vacancy;

use crate::keyspace::KeyspaceState;
use crate::planted;
use crate::runtime::Core;
use crossbeam_epoch::Guard;
use keyspace_views::KeyspaceView;
pub(crate) use resolve::Found;
use resolve::{has_value, resolve};
use sapwood_base::{Lookup, Result, SequenceNumber, ValueKind};
use sapwood_compaction::RunTable;
use sapwood_sstable::Table;
use view::View;

/// Runs whose filters are prefetched together.
const PREFETCHED_RUNS: usize = 16;

/// Receives the steps of a get: see `explain`. For an ordinary get all of this is compiled away.
pub(crate) trait Observer {
    /// Whether the calls have an effect.
    const ACTIVE: bool;

    /// The get begins.
    fn begin(&mut self, view: &View, keyspace: &KeyspaceView, sequence: SequenceNumber);
    /// The get has searched the memtable of this number.
    fn memtable(&mut self, number: usize, may_contain: bool, found: Option<(ValueKind, usize)>);
    /// The get searches a table of the run of this number next; `None` if no table of it covers the
    /// key.
    fn table(&mut self, run: usize, table: Option<&Table>, key: &[u8], may_contain: bool);
    /// The get has searched the table.
    fn answer(&mut self, run: usize, found: Option<(ValueKind, usize)>);
}

/// The observer of an ordinary get.
pub(crate) struct Nobody;

impl Observer for Nobody {
    const ACTIVE: bool = false;

    fn begin(&mut self, _: &View, _: &KeyspaceView, _: SequenceNumber) {}
    fn memtable(&mut self, _: usize, _: bool, _: Option<(ValueKind, usize)>) {}
    fn table(&mut self, _: usize, _: Option<&Table>, _: &[u8], _: bool) {}
    fn answer(&mut self, _: usize, _: Option<(ValueKind, usize)>) {}
}

/// Steps 2 to 6. `at` is the snapshot to read at; the latest state if there is none.
#[inline]
pub(crate) fn get<'g>(
    core: &'g Core,
    keyspace: &KeyspaceState,
    key: &[u8],
    at: Option<SequenceNumber>,
    guard: &'g Guard,
) -> Result<Option<Found<'g>>> {
    get_observed(core, keyspace, key, at, guard, &mut Nobody)
}

/// [`get`] with an observer.
#[inline]
pub(crate) fn get_observed<'g, O: Observer>(
    core: &'g Core,
    keyspace: &KeyspaceState,
    key: &[u8],
    at: Option<SequenceNumber>,
    guard: &'g Guard,
    observer: &mut O,
) -> Result<Option<Found<'g>>> {
    let (view, sequence) = planted::in_order(
        || core.view.load(guard),
        || at.unwrap_or_else(|| core.visible_sequence()),
        &core.options.env,
    );
    get_in_view(view, keyspace, Lookup::new(key, sequence), guard, observer)
}

/// Steps 3 to 6, in a view that the caller has. REQUIRES: all that the lookup sees is in the view.
#[inline]
pub(crate) fn get_in_view<'g, O: Observer>(
    view: &'g View,
    keyspace: &KeyspaceState,
    lookup: Lookup<'_>,
    guard: &'g Guard,
    observer: &mut O,
) -> Result<Option<Found<'g>>> {
    let Some(space) = view.keyspace(keyspace.id) else { return Err(keyspace.dropped_error()) };
    if let Some(value) = planted::kept_row(&space.state, lookup.key) {
        return Ok(Some(Found::Memtable(value)));
    }
    if O::ACTIVE {
        observer.begin(view, space, lookup.sequence);
    }

    for generation in &view.generations {
        generation.memtable.prefetch(keyspace.id, lookup.hash);
    }
    let candidates = candidates(space, lookup);
    for (number, generation) in view.generations.iter().enumerate() {
        let found = generation.memtable.get(keyspace.id, lookup);
        if O::ACTIVE {
            let may_contain = generation.memtable.may_contain(keyspace.id, lookup.hash);
            observer.memtable(number, may_contain, found.map(|found| (found.kind, found.value.len())));
        }
        if let Some(found) = found {
            return Ok(resolve(found.kind, found.value).map(Found::Memtable));
        }
    }
    get_in_runs(space, lookup, &candidates, guard, observer)
}

/// Steps 3, 4 and 6, for a key that exists, but in no memtable at the lookup's sequence number.
#[inline]
pub(crate) fn get_in_tables<'g>(
    space: &'g KeyspaceView,
    lookup: Lookup<'_>,
    guard: &'g Guard,
) -> Result<Option<Found<'g>>> {
    // A single run is searched without its filter, whose result is known beforehand.
    if let [run] = space.version.runs.as_slice() {
        let Some(candidate) = run.find(lookup.key) else { return Ok(None) };
        let found = candidate.handle.table()?.get(lookup, guard)?;
        return Ok(found.and_then(|found| resolve(found.kind, found.value)).map(Found::Table));
    }
    get_in_runs(space, lookup, &candidates(space, lookup), guard, &mut Nobody)
}

/// The table of each run that may have the key; prefetches their filters.
#[inline(always)]
fn candidates<'g>(space: &'g KeyspaceView, lookup: Lookup<'_>) -> [Option<&'g RunTable>; PREFETCHED_RUNS] {
    let mut candidates: [Option<&RunTable>; PREFETCHED_RUNS] = [None; PREFETCHED_RUNS];
    for (number, run) in space.version.runs.iter().take(PREFETCHED_RUNS).enumerate() {
        let Some(table) = run.find(lookup.key) else { continue };
        candidates[number] = Some(table);
        if let Some(table) = table.handle.opened() {
            table.prefetch_filter(lookup.hash);
        }
    }
    candidates
}

/// Step 6.
#[inline(always)]
fn get_in_runs<'g, O: Observer>(
    space: &'g KeyspaceView,
    lookup: Lookup<'_>,
    candidates: &[Option<&'g RunTable>; PREFETCHED_RUNS],
    guard: &'g Guard,
    observer: &mut O,
) -> Result<Option<Found<'g>>> {
    for (number, run) in space.version.runs.iter().enumerate() {
        let candidate = if number < PREFETCHED_RUNS { candidates[number] } else { run.find(lookup.key) };
        let Some(candidate) = candidate else {
            if O::ACTIVE {
                observer.table(number, None, lookup.key, false);
            }
            continue;
        };
        let table = candidate.handle.table()?;
        let may_contain = table.may_contain(lookup.hash);
        if O::ACTIVE {
            observer.table(number, Some(table), lookup.key, may_contain);
        }
        if !may_contain {
            continue;
        }
        let found = table.get(lookup, guard)?;
        if O::ACTIVE {
            observer.answer(number, found.as_ref().map(|found| (found.kind, found.value.len())));
        }
        if let Some(found) = found {
            planted::keep_row(&space.state, lookup.key, has_value(found.kind), &found.value);
            return Ok(resolve(found.kind, found.value).map(Found::Table));
        }
    }
    Ok(None)
}
