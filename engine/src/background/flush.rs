//! The flush: the oldest immutable memtable becomes tables of level 0.
//!
//! One edit adds the tables and moves the start of the log. A flush that fails before that leaves
//! no file behind.
use crate::index::cleanup;
use crate::manifest::log_start;
use crate::planted;
use crate::read::view::{CoveringView, View};
use crate::runtime::Core;
use sapwood_base::format::manifest::Edit;
use sapwood_base::{ErrorKind, FileNumber, Result};
use sapwood_compaction::TableHandle;
use sapwood_compaction::flush::flush;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The memtable of an idle database is flushed if it hides this many bytes in tables,
const IDLE_FLUSH_BYTES: u64 = 256 << 10;
/// and this fraction of the keyspace (1/n): less would not be merged away.
const IDLE_FLUSH_SHARE: u64 = 10;

/// Writes the oldest immutable memtable into level 0. False if there is none.
///
/// On a full disk, the flush removes spare segments of the log first: it frees more log than it
/// writes tables.
pub(super) fn flush_step(core: &Core) -> Result<bool> {
    match flush_oldest(core) {
        Err(error)
            if error.kind() == ErrorKind::NoSpace
                && planted::spares_give_room()
                && core.wal.give_back_spares() =>
        {
            flush_oldest(core)
        }
        result => result,
    }
}

fn flush_oldest(core: &Core) -> Result<bool> {
    let _flushing = core.flushing.lock();
    let view = core.view.reference();
    let [.., next, oldest] = view.generations.as_slice() else { return Ok(false) };
    core.check_not_poisoned()?;
    core.options.env.check_memory(0)?;
    let start = next.start_point();
    let end = start.position;
    planted::not_before_tables(
        || core.wal.recycle(end),
        || core.install(log_start(start).to_vec(), HashMap::new(), None),
    )?;
    // From here on the memtable takes no inserts: every writer that belongs to it has published.
    let covering = planted::newer(|| CoveringView::new(view.clone()), core.view_covering(end));
    let snapshots = core.snapshots.numbers();
    let memtable = &oldest.memtable;
    let mut edits = Vec::new();
    let mut tables = NewTables::default();
    let mut cleaned = cleanup::deletions(&covering, memtable)?;
    edits.extend(cleaned.outdated.iter().map(|id| Edit::IndexOutdated(*id)));
    let indexes = cleaned.lists.keys().filter_map(|id| covering.keyspace(*id));
    let mut spaces: Vec<_> = covering.keyspaces_in(memtable).chain(indexes).cloned().collect();
    spaces.sort_unstable_by_key(|space| space.state.id);
    spaces.dedup_by_key(|space| space.state.id);
    for space in &spaces {
        let id = space.state.id;
        let options = core.compaction_options(space);
        let is_bottom = space.version.runs.is_empty() && !options.has_base;
        let (files, rows) = (&core.files, memtable.iter(id));
        let outputs = match cleaned.lists.remove(&id) {
            None => flush(files, &options, rows, id, is_bottom, snapshots.clone())?,
            Some(deletions) => {
                let entries = cleanup::with_deletions(rows, deletions);
                flush(files, &options, entries, id, is_bottom, snapshots.clone())?
            }
        };
        for output in outputs {
            tables.add(output.handle);
            edits.push(Edit::TableAdded(output.meta));
        }
    }
    if !edits.is_empty() {
        core.files.sync_directory()?;
    }
    // Entries read from the memtable until now should not be read from the file next.
    if core.reads_since_last_flush() {
        warm(&tables.handles)?;
    }
    let written: u64 = tables.handles.values().map(|handle| handle.file_bytes()).sum();
    edits.extend(log_start(start));
    core.counters.flush_bytes.fetch_add(written, Ordering::Relaxed);
    core.counters.flushes.fetch_add(1, Ordering::Relaxed);
    let flushed = oldest.clone();
    drop((view, covering, spaces));
    core.install(edits, tables.into_handles(), Some(&flushed))?;
    core.wal.recycle(end);
    Ok(true)
}

/// Tables of a flush that the MANIFEST does not list yet. If the flush fails before that, their
/// files are removed: it is retried under new numbers, and each failed attempt would take more
/// space on a full disk.
#[derive(Default)]
struct NewTables {
    handles: HashMap<FileNumber, Arc<TableHandle>>,
}

impl NewTables {
    fn add(&mut self, handle: Arc<TableHandle>) {
        self.handles.insert(handle.file(), handle);
    }

    /// Hands them over to the edit that lists them.
    fn into_handles(mut self) -> HashMap<FileNumber, Arc<TableHandle>> {
        std::mem::take(&mut self.handles)
    }
}

impl Drop for NewTables {
    fn drop(&mut self) {
        if planted::failed_flush_removes_tables() {
            self.handles.values().for_each(|handle| handle.mark_obsolete());
        }
    }
}

/// Loads new tables into the cache.
pub(super) fn warm(handles: &HashMap<FileNumber, Arc<TableHandle>>) -> Result<()> {
    // In order, so that a simulated run is reproducible.
    let mut handles: Vec<_> = handles.values().collect();
    handles.sort_unstable_by_key(|handle| handle.file());
    match handles.iter().try_for_each(|handle| handle.table()?.warm()) {
        // The cache only saves readers time.
        Err(error) if error.is_scarcity() => Ok(()),
        result => result,
    }
}

/// Whether the active memtable of an idle database may hide enough data in tables to be flushed
/// before it is full.
pub(super) fn is_flush_worth(view: &View) -> bool {
    let Ok(active) = view.active() else { return false };
    let memtable = &active.memtable;
    view.keyspaces.iter().filter(|space| space.index.is_none()).any(|space| {
        let (bytes, entries) = (space.version.file_bytes(), space.version.entries());
        let hidden = memtable.entries_of(space.state.id).min(entries);
        let hidden_bytes = u128::from(bytes) * u128::from(hidden) / u128::from(entries.max(1));
        hidden_bytes >= u128::from(IDLE_FLUSH_BYTES.max(bytes / IDLE_FLUSH_SHARE))
    })
}
