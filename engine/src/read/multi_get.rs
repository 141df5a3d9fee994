//! Gets of many keys, all in one state.
//!
//! A get waits for memory several times: for filters, the index, the slot of the block, the block.
//! Here a group of keys takes each stage together, so that their waits overlap. Every stage
//! prefetches the data that the next one reads:
//!
//! 1. find the tables of the key; prefetch their filters and those of the memtables;
//! 2. choose the newest table whose filter passes; prefetch its index;
//! 3. find the block; prefetch its beginning;
//! 4. prefetch the entry in the block;
//! 5. search the memtables, then the entry.
//!
//! A key whose chosen table does not have it, or whose tables could not all be taken into account,
//! continues as an ordinary get.
use super::keyspace_views::KeyspaceView;
use super::resolve::{Found, resolve};
use super::slice::TOGETHER;
use super::view::View;
use super::{Nobody, candidates, get_in_runs};
use crate::keyspace::KeyspaceState;
use crate::runtime::Core;
use crossbeam_epoch::Guard;
use sapwood_base::key::key_hash;
use sapwood_base::{Lookup, Result, SequenceNumber};
use sapwood_sstable::{IndexPlace, Table};
use sapwood_storage::BlockRef;

/// Keys of one call that are read under one guard.
const PINNED_TOGETHER: usize = 8 * TOGETHER;
/// Runs whose tables pass through the stages.
const STAGED_RUNS: usize = 4;

/// Calls `answer` with the result of each key, in the order of the keys.
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
    view: &View,
    keyspace: &KeyspaceState,
    keys: &[K],
    sequence: SequenceNumber,
    guard: &Guard,
    answer: &mut impl FnMut(Option<Found<'_>>),
) -> Result<()> {
    let Some(space) = view.keyspace(keyspace.id) else { return Err(keyspace.dropped_error()) };
    for keys in keys.chunks(TOGETHER) {
        let mut group: [Wanted<'_>; TOGETHER] = [const { Wanted::NOTHING }; TOGETHER];
        let group = &mut group[..keys.len()];
        for (key, wanted) in keys.iter().zip(&mut *group) {
            wanted.prefetch_filters(view, space, key.as_ref());
        }
        for (key, wanted) in keys.iter().zip(&mut *group) {
            wanted.prefetch_index(key.as_ref());
        }
        for (key, wanted) in keys.iter().zip(&mut *group) {
            wanted.prefetch_block(key.as_ref());
        }
        for wanted in &mut *group {
            wanted.prefetch_entry(guard);
        }
        for (key, wanted) in keys.iter().zip(group) {
            let lookup = Lookup { key: key.as_ref(), hash: wanted.hash, sequence };
            answer(wanted.get(view, space, lookup, guard)?);
        }
    }
    Ok(())
}

/// The progress of a key through the stages.
struct Wanted<'g> {
    hash: u64,
    /// The tables of the newest runs that may have the key.
    tables: [Option<&'g Table>; STAGED_RUNS],
    /// Whether no other table may have it.
    has_all_tables: bool,
    /// The newest table whose filter passes the key, and the result of its index root.
    chosen: Option<(&'g Table, IndexPlace)>,
    /// The number of the block in the chosen table.
    number: usize,
    /// That block if it was in the cache.
    block: Option<BlockRef<'g>>,
}

impl<'g> Wanted<'g> {
    const NOTHING: Self = Wanted {
        hash: 0,
        tables: [None; STAGED_RUNS],
        has_all_tables: false,
        chosen: None,
        number: 0,
        block: None,
    };

    /// Stage 1.
    #[inline(always)]
    fn prefetch_filters(&mut self, view: &'g View, space: &'g KeyspaceView, key: &[u8]) {
        self.hash = key_hash(key);
        for generation in &view.generations {
            generation.memtable.prefetch(space.state.id, self.hash);
        }
        let runs = &space.version.runs;
        self.has_all_tables = runs.len() <= STAGED_RUNS;
        for (number, run) in runs.iter().take(STAGED_RUNS).enumerate() {
            let Some(candidate) = run.find(key) else { continue };
            // A table that is not open yet is opened by the ordinary get, which also returns its
            // error. Older sources must not be searched before it.
            let Some(opened) = candidate.handle.opened() else {
                self.has_all_tables = false;
                break;
            };
            opened.prefetch_filter(self.hash);
            self.tables[number] = Some(opened);
        }
    }

    /// Stage 2.
    #[inline(always)]
    fn prefetch_index(&mut self, key: &[u8]) {
        let passed = self.tables.iter().flatten().find(|table| table.may_contain(self.hash));
        self.chosen = passed.and_then(|table| Some((*table, table.prefetch_index(key)?)));
    }

    /// Stage 3.
    #[inline(always)]
    fn prefetch_block(&mut self, key: &[u8]) {
        if let Some((table, place)) = self.chosen {
            self.number = table.prefetch_block(place, key);
        }
    }

    /// Stage 4.
    #[inline(always)]
    fn prefetch_entry(&mut self, guard: &'g Guard) {
        if let Some((table, _)) = self.chosen {
            self.block = table.prefetch_entry(self.number, self.hash, guard);
        }
    }

    /// Stage 5.
    #[inline(always)]
    fn get(
        &mut self,
        view: &'g View,
        space: &'g KeyspaceView,
        lookup: Lookup<'_>,
        guard: &'g Guard,
    ) -> Result<Option<Found<'g>>> {
        let mut generations = view.generations.iter();
        let in_memtable = generations.find_map(|generation| generation.memtable.get(space.state.id, lookup));
        if let Some(found) = in_memtable {
            return Ok(resolve(found.kind, found.value).map(Found::Memtable));
        }
        if let Some((table, _)) = self.chosen {
            let block = self.block.take();
            if let Some(found) = table.get_prefetched(self.number, block, lookup, guard)? {
                return Ok(resolve(found.kind, found.value).map(Found::Table));
            }
        } else if self.has_all_tables {
            return Ok(None);
        }
        // The filter was wrong, a table is to be opened, or there are many runs.
        get_in_runs(space, lookup, &candidates(space, lookup), guard, &mut Nobody)
    }
}
