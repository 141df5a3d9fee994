//! The read path of a get.
//!
//! 1. Pin the epoch: every reachable memtable, table, index and cache frame stays alive from here
//!    on.
//! 2. Load the view, then the sequence number to read at (in this order, see `super_version`).
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
pub(crate) mod resolve;
pub(crate) mod slice;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod super_version;
pub(crate) mod vacancy;

use crate::keyspace::KeyspaceState;
use crate::runtime::Core;
use crossbeam_epoch::Guard;
use keyspace_views::KeyspaceView;
pub(crate) use resolve::Found;
use resolve::{has_value, resolve};
use sapwood_base::key::key_hash;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Result, SequenceNumber, ValueKind};
use sapwood_compaction::RunTable;
use sapwood_sstable::{IndexPlace, Table};
use sapwood_storage::BlockRef;
pub(crate) use slice::TOGETHER;
use super_version::SuperVersion;

/// Keys of one call that are read under one guard.
const PINNED_TOGETHER: usize = 8 * TOGETHER;
/// Runs that are searched in this way.
const TOGETHER_RUNS: usize = 4;
/// Runs whose filters are prefetched together.
const PREFETCHED_RUNS: usize = 16;

/// Receives the steps of a get: see `explain`. For an ordinary get all of this is compiled away.
pub(crate) trait Observer {
    /// Whether the calls have an effect.
    const ACTIVE: bool;

    /// The get begins.
    fn begin(&mut self, view: &SuperVersion, keyspace: &KeyspaceView, sequence: SequenceNumber);
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

    fn begin(&mut self, _: &SuperVersion, _: &KeyspaceView, _: SequenceNumber) {}
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
    // Planted with a delay, as in a thread that is interrupted here.
    let mut early = None;
    if planted::is(Bug::SequenceBeforeView) {
        early = Some(core.visible_sequence());
        core.options.env.sleep(crate::write::stall::STEP);
    }
    let view = core.view.load(guard);
    let sequence = at.or(early).unwrap_or_else(|| core.visible_sequence());
    get_in_view(view, keyspace, key, sequence, guard, observer)
}

/// Steps 3 to 6, in a view that the caller has. REQUIRES: whatever `sequence` sees is in the view.
#[inline]
pub(crate) fn get_in_view<'g, O: Observer>(
    view: &'g SuperVersion,
    keyspace: &KeyspaceState,
    key: &[u8],
    sequence: SequenceNumber,
    guard: &'g Guard,
    observer: &mut O,
) -> Result<Option<Found<'g>>> {
    let Some(space) = view.keyspace(keyspace.id) else { return Err(keyspace.dropped_error()) };
    if planted::is(Bug::StaleRow)
        && let Some(value) = keyspace.stale_rows.recall(keyspace.id, key)
    {
        return Ok(Some(Found::Memtable(value)));
    }
    let hash = key_hash(key);
    if O::ACTIVE {
        observer.begin(view, space, sequence);
    }

    for generation in &view.generations {
        generation.memtable.prefetch(keyspace.id, hash);
    }
    let candidates = candidates(space, key, hash);
    for (number, generation) in view.generations.iter().enumerate() {
        let found = generation.memtable.get(keyspace.id, key, hash, sequence);
        if O::ACTIVE {
            let may_contain = generation.memtable.may_contain(keyspace.id, hash);
            observer.memtable(number, may_contain, found.map(|found| (found.kind, found.value.len())));
        }
        if let Some(found) = found {
            return Ok(resolve(found.kind, found.value).map(Found::Memtable));
        }
    }
    get_in_runs(space, key, hash, sequence, &candidates, guard, observer)
}

/// Steps 3, 4 and 6, for a key that exists, but in no memtable at `sequence`.
#[inline]
pub(crate) fn get_in_tables<'g>(
    space: &'g KeyspaceView,
    key: &[u8],
    sequence: SequenceNumber,
    guard: &'g Guard,
) -> Result<Option<Found<'g>>> {
    let hash = key_hash(key);
    // A single run is searched without its filter, whose result is known beforehand.
    if let [run] = space.version.runs.as_slice() {
        let Some(candidate) = run.find(key) else { return Ok(None) };
        let found = candidate.handle.table()?.get(key, hash, sequence, guard)?;
        return Ok(found.and_then(|found| resolve(found.kind, found.value)).map(Found::Table));
    }
    let candidates = candidates(space, key, hash);
    get_in_runs(space, key, hash, sequence, &candidates, guard, &mut Nobody)
}

/// Steps 2 to 6 for many keys, all in one state. A get waits for memory several times: for filters,
/// the index, the slot of the block, the block. Here groups of keys take each step together, so
/// that their waits overlap.
pub(crate) fn get_many<K: AsRef<[u8]>>(
    core: &Core,
    keyspace: &KeyspaceState,
    keys: &[K],
    mut answer: impl FnMut(Option<Found<'_>>),
) -> Result<()> {
    if keys.len() <= PINNED_TOGETHER {
        let guard = crossbeam_epoch::pin();
        let view = core.view.load(&guard);
        return get_together(view, keyspace, keys, core.visible_sequence(), &guard, &mut answer);
    }
    // A guard keeps every memtable, table and block that is replaced meanwhile, of all databases; a
    // reference keeps only those of this view.
    let view = core.view.reference();
    let sequence = core.visible_sequence();
    for keys in keys.chunks(PINNED_TOGETHER) {
        get_together(&view, keyspace, keys, sequence, &crossbeam_epoch::pin(), &mut answer)?;
    }
    Ok(())
}

/// [`get_many`] in one view, under one guard.
fn get_together<K: AsRef<[u8]>>(
    view: &SuperVersion,
    keyspace: &KeyspaceState,
    keys: &[K],
    sequence: SequenceNumber,
    guard: &Guard,
    answer: &mut impl FnMut(Option<Found<'_>>),
) -> Result<()> {
    let Some(space) = view.keyspace(keyspace.id) else { return Err(keyspace.dropped_error()) };
    let runs = &space.version.runs;
    for keys in keys.chunks(TOGETHER) {
        let mut wanted: [Wanted<'_>; TOGETHER] = [const { Wanted::NOTHING }; TOGETHER];
        let wanted = &mut wanted[..keys.len()];
        for (key, wanted) in keys.iter().zip(&mut *wanted) {
            wanted.hash = key_hash(key.as_ref());
            wanted.all_prefetched = runs.len() <= TOGETHER_RUNS;
            for generation in &view.generations {
                generation.memtable.prefetch(keyspace.id, wanted.hash);
            }
            for (run, table) in runs.iter().zip(&mut wanted.tables) {
                let Some(candidate) = run.find(key.as_ref()) else { continue };
                // A table that is not open yet is opened in the ordinary way, which also returns
                // its error. Older sources must not be searched before it.
                let Some(opened) = candidate.handle.opened() else {
                    wanted.all_prefetched = false;
                    break;
                };
                opened.prefetch_filter(wanted.hash);
                *table = Some(opened);
            }
        }
        for (key, wanted) in keys.iter().zip(&mut *wanted) {
            let passed = wanted.tables.iter().flatten().find(|table| table.may_contain(wanted.hash));
            wanted.table = passed.and_then(|table| Some((*table, table.prefetch_index(key.as_ref())?)));
        }
        for (key, wanted) in keys.iter().zip(&mut *wanted) {
            if let Some((table, place)) = wanted.table {
                wanted.number = table.prefetch_block(place, key.as_ref());
            }
        }
        for wanted in &mut *wanted {
            if let Some((table, _)) = wanted.table {
                wanted.block = table.prefetch_entry(wanted.number, wanted.hash, guard);
            }
        }
        for (key, wanted) in keys.iter().zip(wanted) {
            let (key, hash) = (key.as_ref(), wanted.hash);
            if planted::is(Bug::StaleRow) {
                answer(get_in_view(view, keyspace, key, sequence, guard, &mut Nobody)?);
                continue;
            }
            let mut generations = view.generations.iter();
            let in_memtable =
                generations.find_map(|generation| generation.memtable.get(keyspace.id, key, hash, sequence));
            if let Some(found) = in_memtable {
                answer(resolve(found.kind, found.value).map(Found::Memtable));
                continue;
            }
            if let Some((table, _)) = wanted.table {
                let block = wanted.block.take();
                let found = table.get_prefetched(wanted.number, block, key, hash, sequence, guard)?;
                if let Some(found) = found {
                    answer(resolve(found.kind, found.value).map(Found::Table));
                    continue;
                }
            } else if wanted.all_prefetched {
                answer(None);
                continue;
            }
            // The filter was wrong, a table is to be opened, or there are many runs.
            let candidates = candidates(space, key, hash);
            answer(get_in_runs(space, key, hash, sequence, &candidates, guard, &mut Nobody)?);
        }
    }
    Ok(())
}

/// The progress of a key through [`get_many`].
struct Wanted<'g> {
    hash: u64,
    /// The tables of the newest runs that may have the key.
    tables: [Option<&'g Table>; TOGETHER_RUNS],
    /// Whether these are all that may have it.
    all_prefetched: bool,
    /// The newest table whose filter passes the key, and the result of its index root.
    table: Option<(&'g Table, IndexPlace)>,
    /// The number of the block there.
    number: usize,
    /// The block if it was in the cache.
    block: Option<BlockRef<'g>>,
}

impl Wanted<'_> {
    const NOTHING: Self = Wanted {
        hash: 0,
        tables: [None; TOGETHER_RUNS],
        all_prefetched: false,
        table: None,
        number: 0,
        block: None,
    };
}

/// The table of each run that may have `key`; prefetches their filters.
#[inline(always)]
fn candidates<'g>(space: &'g KeyspaceView, key: &[u8], hash: u64) -> [Option<&'g RunTable>; PREFETCHED_RUNS] {
    let mut candidates: [Option<&RunTable>; PREFETCHED_RUNS] = [None; PREFETCHED_RUNS];
    for (number, run) in space.version.runs.iter().take(PREFETCHED_RUNS).enumerate() {
        let Some(table) = run.find(key) else { continue };
        candidates[number] = Some(table);
        if let Some(table) = table.handle.opened() {
            table.prefetch_filter(hash);
        }
    }
    candidates
}

/// Step 6.
#[inline(always)]
fn get_in_runs<'g, O: Observer>(
    space: &'g KeyspaceView,
    key: &[u8],
    hash: u64,
    sequence: SequenceNumber,
    candidates: &[Option<&'g RunTable>; PREFETCHED_RUNS],
    guard: &'g Guard,
    observer: &mut O,
) -> Result<Option<Found<'g>>> {
    for (number, run) in space.version.runs.iter().enumerate() {
        let candidate = if number < PREFETCHED_RUNS { candidates[number] } else { run.find(key) };
        let Some(candidate) = candidate else {
            if O::ACTIVE {
                observer.table(number, None, key, false);
            }
            continue;
        };
        let table = candidate.handle.table()?;
        let may_contain = table.may_contain(hash);
        if O::ACTIVE {
            observer.table(number, Some(table), key, may_contain);
        }
        if !may_contain {
            continue;
        }
        let found = table.get(key, hash, sequence, guard)?;
        if O::ACTIVE {
            observer.answer(number, found.as_ref().map(|found| (found.kind, found.value.len())));
        }
        if let Some(found) = found {
            if planted::is(Bug::StaleRow) && has_value(found.kind) {
                space.state.stale_rows.remember(space.state.id, key, &found.value);
            }
            return Ok(resolve(found.kind, found.value).map(Found::Table));
        }
    }
    Ok(None)
}
