//! Creates, attaches or rebuilds an index.
//!
//! The online build, while writes continue:
//! 1. The definition goes into the MANIFEST. A crash from here on leaves an index that is not
//!    complete, and the next `create_index` starts again.
//! 2. Writes add entries from now on (`Core::begin_index`). A place in the log divides rows before
//!    from rows after.
//! 3. The build takes a snapshot after that place and flushes the rows that it sees. It reads all
//!    of them, sorts their entries in bounded memory, and loads them into the tree as full pages.
//!    Nothing is applied meanwhile, so that deletions wait for the entries that are yet to be
//!    loaded.
//! 4. One edit names the tree and marks the index as complete.
use super::cursor::{Bounds, IndexCursor};
use super::extractor::EmitBuffer;
use super::maintenance::violation;
use super::options::IndexOptions;
use super::state::{IndexState, Phase};
use crate::keyspace::KeyspaceState;
use crate::planted;
use crate::read::cursor::Cursor;
use crate::read::snapshot::Snapshot;
use crate::runtime::Core;
use sapwood_base::format::btree_root::TreeRoot;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::manifest::Edit;
use sapwood_base::iterator::merging::MergingIterator;
use sapwood_base::iterator::{InternalIterator, KeyRange};
use sapwood_base::key::key_prefix;
use sapwood_base::ordered::composite::Composite;
use sapwood_base::{Error, ErrorKind, FileNumber, KeyspaceId, Result, SequenceNumber, ValueKind};
use sapwood_btree::{Tree, TreeOptions};
use sapwood_compaction::output::OutputWriter;
use sapwood_compaction::version::iterator::{RunIterator, Uncached};
use sapwood_compaction::{LAST_LEVEL, Run, RunTable};
use sapwood_sstable::ReadOptions;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Entries are sorted in buffers of at most this many bytes.
const SORT_BUFFER_BYTES: usize = 64 << 20;
/// A cursor reads this many rows; then a new one continues, so that memtables and tables replaced
/// meanwhile are released.
const ROWS_PER_CURSOR: u64 = 1 << 20;
/// Rows between two checks of the clock and of whether the database is closing.
const ROWS_PER_LOOK: u64 = 256;

/// The index `name` of a keyspace: the existing one, with its extractor, or a new one.
pub(crate) fn create(
    core: &Core,
    owner: &Arc<KeyspaceState>,
    name: &str,
    options: &IndexOptions,
) -> Result<Arc<IndexState>> {
    core.check_writable()?;
    let _call = core.enter(true)?;
    let definition = options.definition(name, owner.id)?;
    let extractor = options.extractor()?;
    let _making = core.making_index.lock();
    let found = core.manifest_state(|state| state.index_by_name(owner.id, name).cloned());
    if let Some(found) = &found
        && found.state.definition == definition
        && found.phase == Phase::Ready
    {
        found.state.attach(extractor);
        return Ok(found.state.clone());
    }
    let replaced = found.map(|found| found.state.id);
    let index = core.create_index(definition, replaced)?;
    index.attach(extractor);
    match build(core, owner, &index, options.build_limit()) {
        Ok(()) => Ok(index),
        Err(error) => {
            // If the drop fails, the next call rebuilds the index.
            let _ = core.drop_index(owner, name);
            Err(error)
        }
    }
}

/// Attaches the extractor to an index that exists with this definition.
pub(crate) fn attach(core: &Core, keyspace: &str, name: &str, options: &IndexOptions) -> Result<()> {
    let found = core.manifest_state(|state| {
        let owner = state.by_name(keyspace)?.state.id;
        state.index_by_name(owner, name).cloned()
    });
    if let Some(found) = found
        && found.state.definition == options.definition(name, found.state.owner())?
    {
        found.state.attach(options.extractor()?);
    }
    Ok(())
}

/// Creates the indexes that the application named when it opened the database, of one keyspace or
/// of all existing ones.
pub(crate) fn make_named(core: &Core, keyspace: Option<&str>) -> Result<()> {
    for (owner, name, options) in &core.options.indexes {
        if keyspace.is_some_and(|keyspace| keyspace != owner) || !planted::makes_named_indexes() {
            continue;
        }
        let Some(owner) = core.manifest_state(|state| state.by_name(owner).map(|entry| entry.state.clone()))
        else {
            continue;
        };
        let about = |error: Error| error.context(&format!("index {name:?} of keyspace {:?}", owner.name));
        create(core, &owner, name, options).map_err(about)?;
    }
    Ok(())
}

/// Checks that all indexes of a keyspace with named indexes have their extractors: the first write
/// would need them.
pub(crate) fn check_named(core: &Core) -> Result<()> {
    let missing = core.manifest_state(|state| {
        let named = |owner: KeyspaceId| {
            core.options
                .indexes
                .iter()
                .any(|(keyspace, ..)| state.by_name(keyspace).is_some_and(|entry| entry.state.id == owner))
        };
        let mut missing = state.indexes().filter(|index| index.state.attached().is_none());
        missing.find(|index| named(index.state.owner())).map(|index| index.state.definition.name.clone())
    });
    match missing {
        Some(name) if planted::left_out_index_is_an_error() => Err(Error::new(
            ErrorKind::IndexUnavailable,
            format!(
                "index {name:?} has no extractor, and other indexes of its keyspace have: name it with \
                 DbBuilder::index too, or open without naming any and drop it"
            ),
        )),
        _ => Ok(()),
    }
}

/// Rebuilds an index, from the rows alone, with its present extractor.
pub(crate) fn rebuild(core: &Core, owner: &Arc<KeyspaceState>, old: &IndexState) -> Result<Arc<IndexState>> {
    core.check_writable()?;
    let _call = core.enter(true)?;
    let extractor = old.shared_extractor()?;
    let _making = core.making_index.lock();
    let name = &old.definition.name;
    let found = core.manifest_state(|state| state.index_by_name(owner.id, name).map(|index| index.state.id));
    let index = core.create_index(old.definition.clone(), found)?;
    index.attach(extractor);
    build(core, owner, &index, None).inspect_err(|_| drop(core.drop_index(owner, name)))?;
    Ok(index)
}

fn build(
    core: &Core,
    owner: &Arc<KeyspaceState>,
    index: &Arc<IndexState>,
    bytes_per_second: Option<u64>,
) -> Result<()> {
    core.options.env.check_memory(0)?;
    let start = {
        // A flush finds the entries that its rows make stale from `start` on.
        let _flushing = core.flushing.lock();
        let start = core.begin_index(index)?;
        index.set_start(start);
        let view = core.view.reference();
        view.expect_appends(&view.active()?.memtable, None)?;
        start
    };
    let snapshot = core.snapshot();
    let built = snapshot.sequence();
    index.set_built_sequence(built);
    // The tree will be durable, so its rows must be: some may be in the part of the log that a
    // power loss takes, or, written with `Durability::None`, not in the log at all.
    if planted::rows_are_durable_first() {
        core.flush()?;
    }
    let tree = Builder::new(core, owner, index, snapshot, bytes_per_second).run()?;
    let (id, mut edits) = (index.id, Vec::new());
    edits.extend(tree.map(|tree| Edit::IndexTree { id, file: tree.file, root: tree.root }));
    if index.definition.unique {
        // From here on writes check the tree as well; earlier ones did not, and are checked here.
        install(core, std::mem::take(&mut edits))?;
        core.barrier()?;
        check_unique(core, index)?;
    }
    edits.push(Edit::IndexReady { id, start, built });
    install(core, edits)?;
    index.set_building(false);
    core.background.wake_compaction();
    Ok(())
}

/// Installs edits. On a clean refusal, a tree that they name for the first time is removed.
fn install(core: &Core, edits: Vec<Edit>) -> Result<()> {
    let named = edits.iter().find_map(|edit| match edit {
        Edit::IndexTree { file, .. } => Some(*file),
        _ => None,
    });
    core.install(edits, HashMap::new(), None).inspect_err(|error| {
        // After another error the edits may be on disk all the same.
        if let Some(file) = named.filter(|_| error.is_scarcity()) {
            let _ = core.files.fs.remove_file(&core.files.path(FileName::Tree(file)));
        }
    })
}

/// No two entries have one index key.
fn check_unique(core: &Core, index: &IndexState) -> Result<()> {
    let view = core.view.reference();
    let sequence = core.visible_sequence();
    let mut cursor = IndexCursor::open(core, view, index.id, sequence, Bounds::default())?;
    cursor.seek_to_first()?;
    let mut last: Option<Vec<u8>> = None;
    let mut looks = 0u64;
    while cursor.valid() {
        if looks.is_multiple_of(ROWS_PER_LOOK) {
            core.check_writable()?;
        }
        looks += 1;
        let escaped = Composite::split(cursor.composite())?.escaped_index_key;
        match &mut last {
            Some(last) if last == escaped => return Err(violation(index)),
            Some(last) => {
                last.clear();
                last.extend_from_slice(escaped);
            }
            None => last = Some(escaped.to_vec()),
        }
        cursor.next()?;
    }
    Ok(())
}

/// A tree that was written and synced, and is in no MANIFEST yet.
struct Built {
    file: FileNumber,
    root: TreeRoot,
}

struct Builder<'a> {
    core: &'a Core,
    owner: &'a Arc<KeyspaceState>,
    index: &'a Arc<IndexState>,
    snapshot: Snapshot,
    bytes_per_second: Option<u64>,
    buffer: SortBuffer,
    buffer_bytes: usize,
    /// Sorted buffers that did not stay in memory.
    spilled: Vec<Arc<Run>>,
}

impl<'a> Builder<'a> {
    fn new(
        core: &'a Core,
        owner: &'a Arc<KeyspaceState>,
        index: &'a Arc<IndexState>,
        snapshot: Snapshot,
        bytes_per_second: Option<u64>,
    ) -> Builder<'a> {
        Builder {
            core,
            owner,
            index,
            snapshot,
            bytes_per_second,
            buffer: SortBuffer::default(),
            buffer_bytes: SORT_BUFFER_BYTES.min(core.options.memory_budget / 8),
            spilled: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Option<Built>> {
        self.read_rows()?;
        self.buffer.sort();
        if self.spilled.is_empty() {
            let SortBuffer { bytes, entries } = &self.buffer;
            if entries.is_empty() {
                return Ok(None);
            }
            return self
                .load(entries.iter().map(|entry| Ok((entry.key(bytes), entry.value(bytes)))))
                .map(Some);
        }
        if !self.buffer.entries.is_empty() {
            self.spill()?;
        }
        let uncached = Uncached::sharing(self.core.options.read_bytes(), self.spilled.len());
        let inputs = self.spilled.iter().map(|run| RunIterator::new(run.clone(), uncached)).collect();
        let mut merged = MergingIterator::new(inputs);
        merged.seek_to_first()?;
        let mut at_first = true;
        self.load(std::iter::from_fn(|| {
            if !std::mem::take(&mut at_first)
                && let Err(error) = merged.next()
            {
                return Some(Err(error));
            }
            merged.valid().then(|| Ok((merged.key().to_vec(), merged.value().to_vec())))
        }))
        .map(Some)
    }

    /// Reads every row that the snapshot sees, and collects its entries.
    fn read_rows(&mut self) -> Result<()> {
        let core = self.core;
        let progress = &self.index.progress;
        let view = core.view.reference();
        let expected = view.keyspace(self.owner.id).map_or(0, |space| {
            let in_tables: u64 = space.version.runs.iter().map(|run| run.entries()).sum();
            let memtables = view.generations.iter();
            in_tables + memtables.map(|generation| generation.memtable.entries_of(self.owner.id)).sum::<u64>()
        });
        // Relaxed, here and below: figures.
        progress.rows_expected.store(expected, Ordering::Relaxed);
        drop(view);
        let options = ReadOptions { fill_cache: false, ..ReadOptions::default() };
        let mut emitted = EmitBuffer::default();
        let (started, mut bytes, mut rows) = (core.options.env.now(), 0u64, 0u64);
        let mut last: Option<Vec<u8>> = None;
        loop {
            let view = core.view.reference();
            let sequence = self.snapshot.sequence();
            let mut cursor = Cursor::new(view, self.owner.id, sequence, options, KeyRange::default());
            match &last {
                None => cursor.seek_to_first()?,
                Some(last) => {
                    cursor.seek(last)?;
                    if cursor.valid() && cursor.key() == last.as_slice() {
                        cursor.next()?;
                    }
                }
            }
            let until = rows + ROWS_PER_CURSOR;
            while cursor.valid() && rows < until {
                emitted.fill(self.index.extractor()?, cursor.key(), cursor.value())?;
                for (key, covering) in emitted.iter() {
                    self.buffer.push(key, covering);
                }
                progress.entries.fetch_add(emitted.len() as u64, Ordering::Relaxed);
                rows += 1;
                bytes += (cursor.key().len() + cursor.value().len()) as u64;
                if rows.is_multiple_of(ROWS_PER_LOOK) {
                    progress.rows.store(rows, Ordering::Relaxed);
                    self.look(bytes, started)?;
                    last = Some(cursor.key().to_vec());
                }
                if self.buffer.len_bytes() >= self.buffer_bytes {
                    self.buffer.sort();
                    self.spill()?;
                }
                cursor.next()?;
            }
            if !cursor.valid() {
                progress.rows.store(rows, Ordering::Relaxed);
                return Ok(());
            }
        }
    }

    /// Returns an error if the build has become pointless; waits if it was too fast.
    fn look(&self, bytes: u64, started: Duration) -> Result<()> {
        let core = self.core;
        core.check_writable()?;
        self.owner.check_alive()?;
        let view = core.view.reference();
        super::cursor::index_meta(&view, self.index.id)?;
        drop(view);
        if let Some(limit) = self.bytes_per_second {
            let due = started + Duration::from_secs_f64(bytes as f64 / limit as f64);
            let early = due.saturating_sub(core.options.env.now());
            if !early.is_zero() {
                core.options.env.sleep(early);
            }
        }
        Ok(())
    }

    /// Writes the sort buffer as a run of tables that no version lists: the open after a crash
    /// removes them.
    fn spill(&mut self) -> Result<()> {
        let core = self.core;
        let Some(options) = core.keyspace_compaction_options(self.index.id) else {
            return Err(Error::new(ErrorKind::Closed, "the index was dropped"));
        };
        let run = core.files.allocate_file().0;
        let mut writer = OutputWriter::new(&core.files, &options, self.index.id, LAST_LEVEL, run, &[]);
        let SortBuffer { bytes, entries } = &self.buffer;
        for entry in entries {
            let (key, value) = (entry.key(bytes), entry.value(bytes));
            writer.add(true, key, SequenceNumber::ZERO, ValueKind::Put, value)?;
        }
        let mut tables = Vec::new();
        for output in writer.finish()? {
            output.handle.mark_obsolete();
            tables.push(RunTable::new(output.handle, output.meta));
        }
        self.spilled.push(Arc::new(Run::new(LAST_LEVEL, run, tables)));
        self.buffer.clear();
        Ok(())
    }

    /// Writes the tree.
    fn load<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &self,
        entries: impl Iterator<Item = Result<(K, V)>>,
    ) -> Result<Built> {
        let files = &self.core.files;
        let file = files.allocate_name(FileName::Tree)?;
        let unfinished = files.unfinished_path(FileName::Tree(file));
        let write = || {
            let env = &self.core.options.env;
            let mut tree = Tree::create_unnamed(env, &unfinished, &TreeOptions::default(), &files.cache)?;
            let mut looks = 0u64;
            let watched = entries.map(|entry| {
                looks += 1;
                match looks.is_multiple_of(ROWS_PER_LOOK) {
                    true => self.core.check_writable().and(entry),
                    false => entry,
                }
            });
            let root = tree.load(watched)?;
            files.finish_file(FileName::Tree(file))?;
            Ok(root)
        };
        let root = write().inspect_err(|_| drop(files.fs.remove_file(&unfinished)))?;
        let synced = files.sync_directory();
        synced.inspect_err(|_| drop(files.fs.remove_file(&files.path(FileName::Tree(file)))))?;
        Ok(Built { file, root })
    }
}

/// Entries that are to be sorted.
#[derive(Default)]
struct SortBuffer {
    bytes: Vec<u8>,
    entries: Vec<SortEntry>,
}

struct SortEntry {
    prefix: u64,
    start: usize,
    key_len: u32,
    value_len: u32,
}

impl SortEntry {
    fn key_range(&self) -> Range<usize> {
        self.start..self.start + self.key_len as usize
    }

    fn key<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        &bytes[self.key_range()]
    }

    fn value<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        let start = self.key_range().end;
        &bytes[start..start + self.value_len as usize]
    }
}

impl SortBuffer {
    fn push(&mut self, key: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        let (key_len, value_len) = (key.len() as u32, value.len() as u32);
        self.entries.push(SortEntry { prefix: key_prefix(key), start, key_len, value_len });
    }

    fn len_bytes(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<SortEntry>()
    }

    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.entries
            .sort_unstable_by(|a, b| a.prefix.cmp(&b.prefix).then_with(|| a.key(bytes).cmp(b.key(bytes))));
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}
