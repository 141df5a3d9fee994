//! Delta runs go into the tree of their index.
//!
//! 1. Which: the oldest runs, up to the first one with an entry that a live snapshot must not see.
//!    Of each entry only the newest version is left then, and a deletion has nothing to shield any
//!    more: the tree has one version of each entry, and its counts are exact.
//! 2. When: there are several runs, with enough pending entries for the leaves that they touch; or
//!    the database is idle.
//! 3. How: in chunks of bounded size, by key. One edit takes a chunk out of the runs, by their
//!    lower bounds, and names the new root. So a crash leaves an entry in a run or in the tree, and
//!    a pause waits for one chunk.
//! 4. Last, free pages at the end of the file are cut off, if that is worth it.
use super::state::{IndexMeta, Phase, TreeFile, TreeState};
use crate::background::merge;
use crate::planted;
use crate::read::keyspace_views::KeyspaceView;
use crate::read::resolve::has_value;
use crate::runtime::Core;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::manifest::{Edit, TableMeta};
use sapwood_base::iterator::InternalIterator;
use sapwood_base::iterator::merging::MergingIterator;
use sapwood_base::memory;
use sapwood_base::{Error, ErrorKind, KeyspaceId, Result};
use sapwood_btree::{Change, Tree, TreeOptions};
use sapwood_compaction::version::iterator::{RunIterator, Uncached};
use sapwood_compaction::{Run, picker};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// This many runs are applied if they are worth it.
const RUNS: usize = 4;
/// This many runs are applied in any case: each is one more to search.
const RUNS_MAX: usize = 12;
/// Pending entries are applied if they are this share of the tree: then every leaf gets several
/// entries.
const DENSE_SHARE: f64 = 0.125;
/// A cut takes off the file of a tree at least one part in so many of the rest.
const CUT_SHARE: u64 = 8;
/// A chunk has about this many bytes of entries.
const CHUNK_BYTES: usize = 24 << 20;

/// The runs that are to be applied now, newest first.
pub(crate) fn pick(core: &Core, space: &KeyspaceView, idle: bool) -> Option<Vec<Arc<Run>>> {
    let index = space.index.as_ref()?;
    let runs = applicable(core, space, index);
    let pending: u64 = runs.iter().map(|run| run.file_bytes()).sum();
    let tree = index.tree.as_ref().map_or(0, |tree| tree.root.file_bytes());
    let is_dense = pending as f64 >= tree as f64 * DENSE_SHARE;
    let is_due = runs.len() >= RUNS_MAX || runs.len() >= RUNS && is_dense || idle && !runs.is_empty();
    is_due.then_some(runs)
}

/// The runs that may be applied to the tree, newest first.
fn applicable(core: &Core, space: &KeyspaceView, index: &IndexMeta) -> Vec<Arc<Run>> {
    // Before the tree is complete, a deletion may be of an entry that the build has yet to add.
    if index.phase != Phase::Ready {
        return Vec::new();
    }
    // A snapshot that is taken later sees all entries that are in tables now.
    let oldest = core.snapshots.numbers().first().copied();
    let is_seen = |run: &Arc<Run>| {
        let newest = run.tables.iter().map(|table| table.meta.max_sequence).max();
        oldest.is_none_or(|oldest| newest.is_none_or(|newest| planted::may_apply(newest, oldest)))
    };
    let runs = &space.version.runs;
    let from = runs.iter().rposition(|run| !is_seen(run)).map_or(0, |last| last + 1);
    runs[from..].to_vec()
}

/// Applies all applicable runs; merges the rest. REQUIRES: the keyspace of the index is claimed.
pub(crate) fn apply_all(core: &Core, space: &KeyspaceView) -> Result<()> {
    let Some(index) = &space.index else { return Ok(()) };
    let runs = applicable(core, space, index);
    if !runs.is_empty() {
        apply(core, space, runs, true)?;
    }
    let view = core.view.reference();
    let Some(space) = view.keyspace(space.state.id).filter(|space| space.version.runs.len() > 1) else {
        return Ok(());
    };
    match picker::pick_range(space.state.id, &space.version, None, None, &core.snapshots.numbers()) {
        Some(compaction) => merge::run_compaction(core, &space.version, compaction, merge::Trigger::Call),
        None => Ok(()),
    }
}

/// Entries in key order, each once.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    entries: Vec<ChunkEntry>,
    /// Where the next chunk starts.
    end: Option<Vec<u8>>,
}

struct ChunkEntry {
    key: Range<usize>,
    value: Option<Range<usize>>,
}

impl Chunk {
    /// Takes the newest version of each entry, up to the size of a chunk.
    fn fill(&mut self, merged: &mut MergingIterator<RunIterator<Uncached>>) -> Result<()> {
        self.bytes.clear();
        self.entries.clear();
        self.end = None;
        while merged.valid() {
            if self.entries.last().is_some_and(|last| &self.bytes[last.key.clone()] == merged.key()) {
                merged.next()?;
                continue;
            }
            if self.bytes.len() >= CHUNK_BYTES {
                self.end = Some(merged.key().to_vec());
                return Ok(());
            }
            if !planted::is_applied(merged.kind()) {
                merged.next()?;
                continue;
            }
            let key = self.add(merged.key())?;
            let value = match has_value(merged.kind()) {
                true => Some(self.add(merged.value())?),
                false => None,
            };
            self.entries.push(ChunkEntry { key, value });
            merged.next()?;
        }
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) -> Result<Range<usize>> {
        let start = self.bytes.len();
        memory::reserve(&mut self.bytes, bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(start..self.bytes.len())
    }

    fn changes(&self) -> Vec<Change<'_>> {
        let change = |entry: &ChunkEntry| Change {
            key: &self.bytes[entry.key.clone()],
            value: entry.value.clone().map(|value| &self.bytes[value]),
        };
        self.entries.iter().map(change).collect()
    }
}

/// Applies `runs`, chunk by chunk. REQUIRES: the keyspace of the index is claimed.
pub(crate) fn apply(core: &Core, space: &KeyspaceView, runs: Vec<Arc<Run>>, manual: bool) -> Result<()> {
    let id = space.state.id;
    let Some(index) = &space.index else { return Ok(()) };
    core.options.env.check_memory(CHUNK_BYTES)?;
    let mut tree = match &index.tree {
        Some(tree) => tree.clone(),
        None => create(core, id)?,
    };
    core.counters.compactions.fetch_add(1, Ordering::Relaxed);
    let uncached = Uncached::sharing(core.options.read_bytes(), runs.len());
    let mut merged =
        MergingIterator::new(runs.iter().map(|run| RunIterator::new(run.clone(), uncached)).collect());
    merged.seek_to_first()?;
    let mut left: Vec<TableMeta> =
        runs.iter().flat_map(|run| &run.tables).map(|table| (*table.meta).clone()).collect();
    let read: u64 = left.iter().map(|table| table.file_bytes).sum();
    core.counters.compaction_read_bytes.fetch_add(read, Ordering::Relaxed);
    let mut chunk = Chunk::default();
    while !left.is_empty() {
        // Relaxed: the flag carries no data.
        if core.background.stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, "the database is closing"));
        }
        chunk.fill(&mut merged)?;
        let changes = chunk.changes();
        tree.change(core, |writer| {
            let root = writer.apply(&changes)?;
            let written = &core.counters.compaction_written_bytes;
            written.fetch_add(writer.pending_bytes(), Ordering::Relaxed);
            let mut edits = take_out(&mut left, chunk.end.as_deref());
            edits.push(Edit::IndexTree { id, file: tree.file.number, root });
            if let Err(error) = core.install(edits, HashMap::new(), None) {
                // Otherwise the edit may be on disk all the same.
                if error.is_scarcity() {
                    writer.discard();
                }
                return Err(error);
            }
            writer.install();
            Ok(())
        })?;
        core.background.changed.notify_all();
        let view = core.view.reference();
        core.update_debt(&view);
        match view.keyspace(id).and_then(|space| space.index.as_ref()?.tree.clone()) {
            Some(newest) => tree = newest,
            // Dropped meanwhile.
            None => return Ok(()),
        }
        let driven = !core.options.env.starts_threads() && core.options.env.random_u64().is_multiple_of(2);
        let is_urgent_elsewhere = merge::gives_way_to_others(core, id);
        if manual {
            core.background.wait_while_paused()?;
        } else if is_urgent_elsewhere || driven || core.background.should_yield() {
            return Ok(());
        }
    }
    give_back_the_end(core, &tree)
}

/// Cuts free pages off the file of a tree, if they are a good part of it. Extents are rewritten,
/// lowest first, so the end becomes free by itself once a tree has shrunk; the next batch would
/// only undo small cuts.
///
/// The root that no longer refers to these pages is durable. If the cut fails only space is lost,
/// but a disk that fails is reported as everywhere else.
fn give_back_the_end(core: &Core, tree: &TreeState) -> Result<()> {
    let least_bytes = tree.root.file_bytes() / CUT_SHARE;
    tree.change(core, |writer| writer.trim(least_bytes)).map(drop)
}

/// The edits that take everything below `end` out of tables; `left` keeps the rest of these.
fn take_out(left: &mut Vec<TableMeta>, end: Option<&[u8]>) -> Vec<Edit> {
    let mut edits = Vec::new();
    left.retain_mut(|table| {
        let first = table.lower.as_ref().map_or(&table.smallest, |lower| lower.max(&table.smallest));
        if end.is_some_and(|end| first.as_slice() >= end) {
            return true;
        }
        let (keyspace, level, run, file) = (table.keyspace, table.level, table.run, table.file);
        edits.push(Edit::TableRemoved { keyspace, level, run, file });
        match end.filter(|end| table.largest.as_slice() >= *end) {
            Some(end) => {
                table.lower = Some(end.to_vec());
                edits.push(Edit::TableAdded(table.clone()));
                true
            }
            None => false,
        }
    });
    edits
}

/// Creates the tree of an index that has none yet. It is empty.
fn create(core: &Core, id: KeyspaceId) -> Result<Arc<TreeState>> {
    let number = core.files.allocate_name(FileName::Tree)?;
    let path = core.files.path(FileName::Tree(number));
    let (env, cache) = (&core.options.env, &core.files.cache);
    let unfinished = core.files.unfinished_path(FileName::Tree(number));
    let created = Tree::create_unnamed(env, &unfinished, &TreeOptions::default(), cache);
    let named = |tree: Tree| core.files.finish_file(FileName::Tree(number)).map(|()| *tree.root());
    let root = match created.and_then(named) {
        Ok(root) => root,
        Err(error) => {
            // If it cannot be removed either, the next open does.
            let _ = core.files.fs.remove_file(&unfinished);
            return Err(error);
        }
    };
    let edits = vec![Edit::IndexTree { id, file: number, root }];
    let synced = core.files.sync_directory();
    if let Err(error) = synced.and_then(|()| core.install(edits, HashMap::new(), None)) {
        // After another error the edit may be on disk all the same.
        if error.is_scarcity() && planted::nameless_tree_is_removed() {
            let _ = core.files.fs.remove_file(&path);
        }
        return Err(error);
    }
    let view = core.view.reference();
    let shown = view.keyspace(id).and_then(|space| space.index.as_ref()?.tree.clone());
    // If the index was dropped meanwhile, the file goes, with the entries applied to it.
    Ok(shown.unwrap_or_else(|| {
        let file = TreeFile::new(number);
        file.mark_obsolete(&core.files);
        TreeState::new(file, root)
    }))
}
