//! The MANIFEST: the history of version edits, and the resulting state.
//!
//! Every opening writes a new MANIFEST that starts with a snapshot of the state. A MANIFEST that
//! has grown to several times that size is also replaced. The switch needs no pointer file: the new
//! MANIFEST is written and synced, then the older ones are removed and the directory is synced, and
//! only then the first edit is appended. So if a newer and an older one exist, either both hold the
//! same state, or the newer is torn and the older is right.
use crate::db::place::{Proof, proof};
use crate::index::state::{IndexEntry, IndexState, Phase, TreeFile, TreeState};
use crate::keyspace::{KeyspaceOptions, KeyspaceState};
use keyspaces::Undo;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::log_record::{self, HEADER_BYTES as RECORD_HEADER_BYTES, RecordKind, UNIT_BYTES};
use sapwood_base::format::manifest::{self as format, Edit, HEADER_BYTES};
use sapwood_base::memory;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Error, ErrorKind, FileNumber, KeyspaceId, Result};
use sapwood_compaction::{TableContext, TableHandle, Version};
use sapwood_storage::fs::{File, FileSystem, OpenMode};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

mod keyspaces;

pub(crate) use keyspaces::Keyspaces;

/// A MANIFEST is rewritten when it has this many bytes and is four times its snapshot.
const REWRITE_BYTES: u64 = 1 << 20;

/// A keyspace in the state, or the internal one that has the entries of an index.
#[derive(Clone)]
pub(crate) struct KeyspaceEntry {
    pub(crate) state: Arc<KeyspaceState>,
    pub(crate) version: Arc<Version>,
    pub(crate) index: Option<IndexEntry>,
}

/// The state that results from the edits.
#[derive(Clone, Default)]
pub(crate) struct ManifestState {
    pub(crate) next_file: u64,
    pub(crate) next_keyspace: u32,
    /// Position from which the log is needed.
    pub(crate) log_start: u64,
    /// Complete stretches of log, in order.
    pub(crate) log_closed: Vec<(u64, u64)>,
    /// If set, closed stretches are synced below this position only.
    pub(crate) log_synced: Option<u64>,
    /// Start of the log of the last opening.
    pub(crate) log_opened: u64,
    pub(crate) keyspaces: Keyspaces,
}

impl ManifestState {
    /// Whether the log at `position` is needed: not below its start, and in a closed or the open
    /// stretch.
    pub(crate) fn needs_log_at(&self, position: u64) -> bool {
        let is_closed = || self.log_closed.iter().any(|(start, end)| (*start..*end).contains(&position));
        position >= self.log_start && (position >= self.log_opened || is_closed())
    }

    /// Drops the entries of stretches that are not needed any more.
    pub(crate) fn forget_log(&mut self) {
        let start = self.log_start;
        self.log_closed.retain(|(_, end)| *end > start);
        let last = self.log_closed.last().map_or(0, |(_, end)| *end);
        self.log_synced = self.log_synced.filter(|synced| *synced < last);
    }

    /// Below this position the needed log was synced as a whole: an invalid record there is damage.
    /// Above, the first invalid record may be the end of the log.
    pub(crate) fn log_surely_synced(&self) -> u64 {
        let opened = self.log_opened.max(self.log_start);
        self.log_synced.map_or(opened, |synced| synced.max(self.log_start).min(opened))
    }

    /// Applies one edit record. New tables come with their handles.
    pub(crate) fn apply(
        &mut self,
        edits: &[Edit],
        handles: &HashMap<FileNumber, Arc<TableHandle>>,
    ) -> Result<()> {
        edits.iter().try_for_each(|edit| self.apply_one(edit))?;
        self.finish(edits, handles)
    }

    /// The first half of [`ManifestState::apply`]: everything but tables.
    fn apply_one(&mut self, edit: &Edit) -> Result<()> {
        match edit {
            Edit::NextFile(next) => self.next_file = self.next_file.max(next.0),
            Edit::LogStart(position) => {
                self.log_start = self.log_start.max(*position);
                self.forget_log();
            }
            Edit::LogClosed { start, end } => self.log_closed.push((*start, *end)),
            Edit::LogOpened(position) => self.log_opened = *position,
            Edit::LogSynced(position) => {
                self.log_synced = Some(*position);
                self.forget_log();
            }
            Edit::KeyspaceCreated { id, name, options } => {
                let broken = |what: &str| {
                    Error::new(ErrorKind::Corruption, format!("keyspace {id} ({name:?}) {what}"))
                };
                if self.keyspaces.contains_key(id) {
                    return Err(broken("is created twice"));
                }
                if self.by_name(name).is_some() {
                    return Err(broken("has the name of another one"));
                }
                let options =
                    options.parse().map_err(|error| broken(&format!("has bad options: {error}")))?;
                let state = KeyspaceState::new(*id, name, options);
                let entry = KeyspaceEntry { state, version: Arc::default(), index: None };
                self.keyspaces.insert(*id, entry);
                self.next_keyspace = self.next_keyspace.max(id.0 + 1);
            }
            Edit::KeyspaceDropped(id) => {
                let indexes: Vec<KeyspaceId> = self.keyspaces.owned_by(*id).collect();
                indexes.into_iter().chain([*id]).for_each(|id| self.keyspaces.remove(id));
            }
            Edit::IndexCreated { id, definition } => {
                let broken = |what: &str| {
                    let message = format!("index {id} ({:?}) {what}", definition.name);
                    Error::new(ErrorKind::Corruption, message)
                };
                if self.keyspaces.contains_key(id) {
                    return Err(broken("is created twice"));
                }
                let owner = self.keyspaces.get(&definition.keyspace);
                let Some(owner) = owner.filter(|owner| owner.index.is_none()) else {
                    return Err(broken("is of a keyspace that does not exist"));
                };
                if self.index_by_name(definition.keyspace, &definition.name).is_some() {
                    return Err(broken("has the name of another one"));
                }
                let name = format!("{}/{}", owner.state.name, definition.name);
                let state = KeyspaceState::new(*id, &name, KeyspaceOptions::default());
                let index = IndexEntry {
                    state: IndexState::new(*id, definition.clone()),
                    phase: Phase::Building,
                    tree: None,
                };
                let entry = KeyspaceEntry { state, version: Arc::default(), index: Some(index) };
                self.keyspaces.insert(*id, entry);
                self.next_keyspace = self.next_keyspace.max(id.0 + 1);
            }
            Edit::IndexDropped(id) => {
                self.index_mut(*id)?;
                self.keyspaces.remove(*id);
            }
            Edit::IndexReady { id, start, through } => {
                let index = self.index_mut(*id)?;
                index.phase = Phase::Ready;
                index.state.set_start(*start);
                index.state.set_through(*through);
            }
            Edit::IndexOutdated(id) => {
                self.index_mut(*id)?.phase = Phase::Outdated;
            }
            Edit::IndexTree { id, file, root } => {
                let index = self.index_mut(*id)?;
                let known = index.tree.as_ref().map(|tree| &tree.file);
                let file = match known.filter(|known| known.number == *file) {
                    Some(known) => known.clone(),
                    None => TreeFile::new(*file),
                };
                index.tree = Some(TreeState::new(file, *root));
            }
            Edit::NextKeyspace(id) => self.next_keyspace = self.next_keyspace.max(*id),
            Edit::TableAdded(_) | Edit::TableRemoved { .. } => {}
        }
        Ok(())
    }

    /// The second half: the tables among `edits`, after all edits of a record were applied.
    fn finish(&mut self, edits: &[Edit], handles: &HashMap<FileNumber, Arc<TableHandle>>) -> Result<()> {
        // Overlapping stretches would replay the same operations twice.
        let ends = self.log_closed.iter().map(|(_, end)| *end);
        let starts = self.log_closed.iter().skip(1).map(|(start, _)| *start).chain([self.log_opened]);
        if ends.zip(starts).any(|(end, next)| end > next) {
            return Err(Error::new(ErrorKind::Corruption, "stretches of the log overlap"));
        }
        let mut touched: Vec<KeyspaceId> = edits
            .iter()
            .filter_map(|edit| match edit {
                Edit::TableAdded(table) => Some(table.keyspace),
                Edit::TableRemoved { keyspace, .. } => Some(*keyspace),
                _ => None,
            })
            .collect();
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            let Some(entry) = self.keyspaces.get_mut(id) else {
                let message = format!("version edit concerns keyspace {id}, which does not exist");
                return Err(Error::new(ErrorKind::Corruption, message));
            };
            entry.version = Arc::new(entry.version.apply(id, edits, handles)?);
        }
        Ok(())
    }

    /// The edits that create this state from an empty one.
    pub(crate) fn snapshot(&self) -> Vec<Edit> {
        let mut edits = vec![
            Edit::NextFile(FileNumber(self.next_file)),
            Edit::NextKeyspace(self.next_keyspace),
            Edit::LogStart(self.log_start),
            Edit::LogOpened(self.log_opened),
        ];
        edits.extend(self.log_closed.iter().map(|(start, end)| Edit::LogClosed { start: *start, end: *end }));
        edits.extend(self.log_synced.map(Edit::LogSynced));
        for entry in self.named() {
            edits.push(Edit::KeyspaceCreated {
                id: entry.state.id,
                name: entry.state.name.clone(),
                options: entry.state.options.to_text(),
            });
        }
        for index in self.indexes() {
            let id = index.state.id;
            edits.push(Edit::IndexCreated { id, definition: index.state.definition.clone() });
            match index.phase {
                Phase::Building => {}
                Phase::Ready => {
                    let (start, through) = (index.state.start(), index.state.through());
                    edits.push(Edit::IndexReady { id, start, through });
                }
                Phase::Outdated => edits.push(Edit::IndexOutdated(id)),
            }
            if let Some(tree) = index.tree.as_ref().filter(|_| !planted::is(Bug::TreeForgotten)) {
                edits.push(Edit::IndexTree { id, file: tree.file.number, root: tree.root });
            }
        }
        for entry in self.keyspaces.values() {
            edits.extend(entry.version.tables().map(|table| Edit::TableAdded((*table.record).clone())));
        }
        edits
    }

    /// A table that two keyspaces list: dropping the first of them would remove it. A version
    /// covers its own keyspace only.
    fn file_in_two_keyspaces(&self) -> Option<FileNumber> {
        let mut listed = HashSet::new();
        let tables = self.keyspaces.values().flat_map(|entry| entry.version.tables());
        tables.map(|table| table.handle.file()).find(|file| !listed.insert(*file))
    }

    /// The keyspaces that have a name of their own: all but those of indexes.
    pub(crate) fn named(&self) -> impl Iterator<Item = &KeyspaceEntry> {
        self.keyspaces.values().filter(|entry| entry.index.is_none())
    }

    /// A keyspace by name.
    pub(crate) fn by_name(&self, name: &str) -> Option<&KeyspaceEntry> {
        self.keyspaces.by_name(name)
    }

    /// All indexes.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = &IndexEntry> {
        self.keyspaces.values().filter_map(|entry| entry.index.as_ref())
    }

    /// The indexes of a keyspace.
    pub(crate) fn indexes_of(&self, owner: KeyspaceId) -> impl Iterator<Item = &IndexEntry> {
        self.keyspaces.owned_by(owner).filter_map(|id| self.keyspaces.get(&id)?.index.as_ref())
    }

    /// An index by its name within its keyspace.
    pub(crate) fn index_by_name(&self, owner: KeyspaceId, name: &str) -> Option<&IndexEntry> {
        self.indexes_of(owner).find(|index| index.state.definition.name == name)
    }

    fn index_mut(&mut self, id: KeyspaceId) -> Result<&mut IndexEntry> {
        self.keyspaces.get_mut(id).and_then(|entry| entry.index.as_mut()).ok_or_else(|| {
            let message = format!("version edit concerns index {id}, which does not exist");
            Error::new(ErrorKind::Corruption, message)
        })
    }
}

/// The open MANIFEST.
pub(crate) struct Manifest {
    context: Arc<TableContext>,
    database: u64,
    number: FileNumber,
    file: Box<dyn File>,
    /// Offset of the next record, in bytes.
    end: u64,
    snapshot_bytes: u64,
    /// Set when a sync failed: nothing may be appended any more.
    failed: bool,
    pub(crate) state: ManifestState,
}

fn position_of(offset: u64) -> u64 {
    offset / UNIT_BYTES as u64
}

/// The seed of the records of a MANIFEST, in place of the database alone. After a crash, unwritten
/// blocks of a new file may hold those of a removed file: records of an older MANIFEST must not
/// validate there.
pub(crate) fn owner(database: u64, number: FileNumber) -> u64 {
    database.wrapping_add(number.0)
}

pub(crate) fn encode_record(edits: &[Edit], owner: u64, offset: u64) -> Vec<u8> {
    let mut record = vec![0; RECORD_HEADER_BYTES];
    record.extend(format::encode(edits));
    let payload = (record.len() - RECORD_HEADER_BYTES) as u32;
    log_record::seal(&mut record, payload, owner, position_of(offset), RecordKind::Edit, edits.len());
    record.resize(record.len().next_multiple_of(UNIT_BYTES), 0);
    record
}

impl Manifest {
    /// Writes a new MANIFEST with `state`, removes older ones, and makes both durable.
    pub(crate) fn create(
        context: &Arc<TableContext>,
        database: u64,
        state: ManifestState,
    ) -> Result<Manifest> {
        let manifest = Manifest::write_new(context, database, state)?;
        manifest.retire_older()?;
        manifest.bear_witness();
        Ok(manifest)
    }

    /// The first half of a switch. On an error the new file is removed again; if that fails, the
    /// error is of kind `Poisoned`: the next opening could then miss an edit to the old MANIFEST.
    fn write_new(context: &Arc<TableContext>, database: u64, mut state: ManifestState) -> Result<Manifest> {
        let number = context.allocate_name(FileName::Manifest)?;
        state.next_file = state.next_file.max(context.next_file.load(std::sync::atomic::Ordering::Relaxed));
        let unfinished = context.unfinished_path(FileName::Manifest(number));
        let file = context.fs.create_new(&unfinished)?;
        let mut bytes = format::encode_header(database).to_vec();
        bytes.extend(encode_record(&state.snapshot(), owner(database, number), HEADER_BYTES as u64));
        let sync = || if planted::is(Bug::NewManifestNotSynced) { Ok(()) } else { file.sync_all() };
        let sync_name = || match planted::is(Bug::NewManifestNameNotSynced) {
            true => Ok(()),
            false => context.sync_directory(),
        };
        // The file is renamed last: a file with the name is a whole MANIFEST, so one without our
        // magic number is foreign.
        let path = context.path(FileName::Manifest(number));
        let named = || {
            file.write_at(0, &bytes)?;
            sync()?;
            context.finish_file(FileName::Manifest(number))?;
            sync_name()?;
            // For the path in messages.
            context.fs.open(&path, OpenMode::ReadWrite)
        };
        let file = match named() {
            Ok(file) => file,
            Err(error) => {
                // The next opening removes a file that stays under this name.
                let _ = context.fs.remove_file(&unfinished);
                return match context.fs.exists(&path) {
                    Ok(true) if context.fs.remove_file(&path).is_ok() => Err(error),
                    Ok(false) => Err(error),
                    _ => Err(Error::new(ErrorKind::Poisoned, format!("cannot switch the MANIFEST: {error}"))),
                };
            }
        };
        let end = bytes.len() as u64;
        let context = context.clone();
        Ok(Manifest { context, database, number, file, end, snapshot_bytes: end, failed: false, state })
    }

    /// The second half: nothing may be appended before the older ones are durably removed.
    fn retire_older(&self) -> Result<()> {
        let (fs, directory) = (&*self.context.fs, &self.context.directory);
        for name in list(fs, directory)? {
            if let FileName::Manifest(other) = name
                && other < self.number
                && (planted::is(Bug::ForeignManifestTaken)
                    || proof(fs, directory, name, Some(self.database))? != Proof::Foreign)
            {
                fs.remove_file(&directory.join(name.format()))?;
            }
        }
        self.context.sync_directory()
    }

    /// Appends one edit durably, then applies it to the state.
    ///
    /// After an error of the write nothing has changed, and the call can be retried. After an error
    /// of the sync nothing can be appended any more.
    pub(crate) fn append(
        &mut self,
        mut edits: Vec<Edit>,
        handles: &HashMap<FileNumber, Arc<TableHandle>>,
    ) -> Result<()> {
        if self.failed {
            return Err(Error::new(
                ErrorKind::Poisoned,
                "an earlier sync of the MANIFEST failed; reopen the database",
            ));
        }
        let next_file = self.context.next_file.load(std::sync::atomic::Ordering::Relaxed);
        edits.push(Edit::NextFile(FileNumber(next_file)));
        // Applied first, so that an edit that does not fit never reaches the disk. If the write
        // fails, the edit is undone.
        let undo = Undo::new(&self.state, &edits);
        let written = self.state.apply(&edits, handles).and_then(|()| self.write(&edits));
        if written.is_err() {
            undo.restore(&mut self.state);
        }
        written
    }

    /// Makes `edits`, which the state has already, durable.
    fn write(&mut self, edits: &[Edit]) -> Result<()> {
        if self.end > REWRITE_BYTES && self.end > 4 * self.snapshot_bytes {
            let next = Manifest::write_new(&self.context, self.database, self.state.clone())
                .inspect_err(|error| self.failed = error.kind() == ErrorKind::Poisoned)?;
            self.failed = true;
            next.retire_older().map_err(closed_for_good)?;
            next.bear_witness();
            *self = next;
            return Ok(());
        }
        let record = encode_record(edits, owner(self.database, self.number), self.end);
        self.file.write_at(self.end, &record)?;
        let unsynced = planted::is(Bug::ManifestNotSynced);
        if let Err(error) = if unsynced { Ok(()) } else { self.file.sync_data() } {
            self.failed = true;
            return Err(closed_for_good(error));
        }
        self.end += record.len() as u64;
        self.bear_witness();
        Ok(())
    }

    /// Writes a sync mark after the last edit, where the next edit will overwrite it. It is not
    /// synced: if it exists, the edits before it were synced, so a damaged last edit is not taken
    /// for a torn one.
    fn bear_witness(&self) {
        let mut mark = [0; RECORD_HEADER_BYTES + UNIT_BYTES];
        mark[RECORD_HEADER_BYTES..].copy_from_slice(&position_of(self.end).to_le_bytes());
        let position = position_of(self.end);
        let owner = owner(self.database, self.number);
        log_record::seal(&mut mark, UNIT_BYTES as u32, owner, position, RecordKind::SyncMark, 0);
        // Without it, the next opening only has less evidence.
        let _ = self.file.write_at(self.end, &mark);
    }
}

/// Whatever the cause, even a full disk: the edit may or may not be on disk, so no caller may
/// assume that it is not.
fn closed_for_good(error: Error) -> Error {
    Error::new(ErrorKind::Poisoned, format!("the MANIFEST is closed for good; reopen the database ({error})"))
}

/// The content of a MANIFEST.
pub(crate) struct Loaded {
    pub(crate) database: u64,
    pub(crate) state: ManifestState,
}

/// Our files in a directory.
pub(crate) fn list(fs: &dyn FileSystem, directory: &Path) -> Result<Vec<FileName>> {
    let names = fs.list(directory)?;
    Ok(names.iter().filter_map(|path| FileName::parse(path.file_name()?.to_str()?)).collect())
}

/// Reads the current MANIFEST; `None` if there is no database, or only an interrupted creation of
/// one.
pub(crate) fn load(context: &Arc<TableContext>, names: &[FileName]) -> Result<Option<Loaded>> {
    let mut numbers: Vec<FileNumber> = names
        .iter()
        .filter_map(|name| match name {
            FileName::Manifest(number) => Some(*number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    let mut newest_error = None;
    while let Some(number) = numbers.pop() {
        match load_one(context, number) {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(Failure::Torn(error)) => {
                newest_error.get_or_insert(error);
            }
            Err(Failure::Fatal(error)) => return Err(error),
        }
    }
    match newest_error {
        None => Ok(None),
        Some(error) => {
            // The first MANIFEST is written before anything else, so a torn one alone is an
            // interrupted creation.
            let alone = names.iter().all(|name| {
                matches!(name, FileName::Lock | FileName::Manifest(_) | FileName::Unfinished(..))
            });
            if alone { Ok(None) } else { Err(error) }
        }
    }
}

/// The files named by a MANIFEST.
pub(crate) struct ListedFiles {
    pub(crate) database: u64,
    /// The tables that it lists, and all trees that it has named.
    pub(crate) files: HashSet<FileName>,
}

/// The files that MANIFEST `number` lists, as far as it can be read; `None` if its header is
/// damaged.
pub(crate) fn listed_files(
    fs: &dyn FileSystem,
    path: &Path,
    number: FileNumber,
) -> Result<Option<ListedFiles>> {
    let file = fs.open(path, OpenMode::Read)?;
    let mut bytes = memory::filled(0, file.len()? as usize)?;
    file.read_exact_at(0, &mut bytes)?;
    let header = bytes.first_chunk::<HEADER_BYTES>().map(format::decode_header);
    let Some(Ok(database)) = header else { return Ok(None) };
    let mut files = HashSet::new();
    let mut offset = HEADER_BYTES;
    while let Some((kind, payload)) = bytes
        .get(offset..)
        .filter(|rest| !rest.is_empty())
        .and_then(|_| record_at(&bytes, offset, owner(database, number)))
    {
        offset += (RECORD_HEADER_BYTES + payload.len()).next_multiple_of(UNIT_BYTES);
        if kind == RecordKind::SyncMark {
            continue;
        }
        let edits: Vec<Edit> = format::Edits::new(payload).map_while(Result::ok).collect();
        // A table that moves is removed and added by one record.
        for removed in edits.iter().filter_map(Edit::removed_file) {
            files.remove(&FileName::Table(removed));
        }
        files.extend(edits.iter().filter_map(|edit| match edit {
            Edit::TableAdded(table) => Some(FileName::Table(table.file)),
            Edit::IndexTree { file, .. } => Some(FileName::Tree(*file)),
            _ => None,
        }));
    }
    Ok(Some(ListedFiles { database, files }))
}

enum Failure {
    /// The snapshot at the start is missing: an older MANIFEST counts, if there is one.
    Torn(Error),
    Fatal(Error),
}

fn load_one(context: &Arc<TableContext>, number: FileNumber) -> std::result::Result<Loaded, Failure> {
    let path = context.directory.join(FileName::Manifest(number).format());
    let read = || -> Result<Option<Vec<u8>>> {
        // Foreign files of such names may be large, or not regular files at all.
        if proof(&*context.fs, &context.directory, FileName::Manifest(number), None)? != Proof::Ours {
            return Ok(None);
        }
        let file = context.fs.open(&path, OpenMode::Read)?;
        let mut bytes = memory::filled(0, file.len()? as usize)?;
        file.read_exact_at(0, &mut bytes)?;
        Ok(Some(bytes))
    };
    match read().map_err(Failure::Fatal)? {
        Some(bytes) => replay(context, &path, number, &bytes),
        None => Err(Failure::Torn(Error::corruption(&path, 0, "not a MANIFEST: wrong magic number"))),
    }
}

/// The state that results from the bytes of a MANIFEST. `path` is for messages.
fn replay(
    context: &Arc<TableContext>,
    path: &Path,
    number: FileNumber,
    bytes: &[u8],
) -> std::result::Result<Loaded, Failure> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(Failure::Torn(Error::corruption(path, 0, "MANIFEST is shorter than its header")));
    };
    let database = format::decode_header(header).map_err(|error| {
        let error_kind = error.kind();
        let error = error.at(path, 0);
        if error_kind == ErrorKind::Unsupported { Failure::Fatal(error) } else { Failure::Torn(error) }
    })?;
    let owner = owner(database, number);
    let mut state = ManifestState::default();
    let mut offset = HEADER_BYTES;
    let mut first = true;
    while offset < bytes.len() {
        let Some((kind, payload)) = record_at(bytes, offset, owner) else {
            let error = Error::corruption(path, offset as u64, "MANIFEST record is damaged");
            // Each edit was synced before anything was appended after it, so only the last record
            // can be torn.
            let later = (offset / UNIT_BYTES + 1..bytes.len() / UNIT_BYTES)
                .any(|unit| record_at(bytes, unit * UNIT_BYTES, owner).is_some());
            if later {
                return Err(Failure::Fatal(error));
            }
            if first {
                return Err(Failure::Torn(error));
            }
            break;
        };
        if kind == RecordKind::SyncMark {
            offset += (RECORD_HEADER_BYTES + payload.len()).next_multiple_of(UNIT_BYTES);
            continue;
        }
        apply_record(context, &mut state, payload)
            .map_err(|error| Failure::Fatal(error.at(path, offset as u64)))?;
        offset += (RECORD_HEADER_BYTES + payload.len()).next_multiple_of(UNIT_BYTES);
        first = false;
    }
    if first {
        return Err(Failure::Torn(Error::corruption(path, HEADER_BYTES as u64, "MANIFEST has no record")));
    }
    if let Some(file) = state.file_in_two_keyspaces() {
        let message = format!("table {file} belongs to two keyspaces");
        return Err(Failure::Fatal(Error::corruption(path, offset as u64, message)));
    }
    Ok(Loaded { database, state })
}

/// Applies the edit in the payload of a record. After an error the state is unusable.
fn apply_record(context: &Arc<TableContext>, state: &mut ManifestState, payload: &[u8]) -> Result<()> {
    // Of a long record only the tables are buffered, and added to the state together.
    let (mut tables, mut handles) = (Vec::new(), HashMap::new());
    for edit in format::Edits::new(payload) {
        let edit = edit?;
        match &edit {
            Edit::TableAdded(table) => {
                handles.insert(table.file, TableHandle::new(context, table.file, table.file_bytes));
                tables.push(edit);
            }
            Edit::TableRemoved { .. } => tables.push(edit),
            other => state.apply_one(other)?,
        }
    }
    state.finish(&tables, &handles)
}

/// [`replay`] for fuzzing, of the bytes of file 1.
#[cfg(feature = "sim")]
pub(crate) fn replay_bytes(context: &Arc<TableContext>, bytes: &[u8]) -> Result<Loaded> {
    replay(context, Path::new("MANIFEST-000001"), FileNumber(1), bytes).map_err(|failure| match failure {
        Failure::Torn(error) | Failure::Fatal(error) => error,
    })
}

/// The edit or sync mark at `offset`, if a valid one is there: its kind and payload.
fn record_at(bytes: &[u8], offset: usize, owner: u64) -> Option<(RecordKind, &[u8])> {
    let rest = &bytes[offset..];
    let header = log_record::parse_header(rest.first_chunk()?, position_of(offset as u64))?;
    let record = rest.get(..header.covered_bytes())?;
    let is_ours = matches!(header.kind, RecordKind::Edit | RecordKind::SyncMark) && header.is_known();
    (is_ours && header.verify(record, owner, position_of(offset as u64)))
        .then(|| (header.kind, &record[RECORD_HEADER_BYTES..]))
}

/// The options of a keyspace, with unset ones taken from the database.
pub(crate) fn compaction_options(
    database: &crate::options::AdvancedOptions,
    memtable_bytes: usize,
    keyspace: &KeyspaceOptions,
) -> sapwood_compaction::CompactionOptions {
    let defaults = sapwood_compaction::CompactionOptions::default();
    let codec = keyspace.compression.unwrap_or(database.compression);
    let mut table = defaults.table.clone();
    table.block_size_bytes = keyspace.block_bytes.unwrap_or(database.block_bytes);
    table.codec = codec;
    table.filter_bits_per_key = keyspace.filter_bits_per_key.unwrap_or(database.filter_bits_per_key);
    table.filter = match table.filter_bits_per_key > 0.0 {
        true => database.filter,
        false => sapwood_sstable::FilterKind::None,
    };
    sapwood_compaction::CompactionOptions {
        style: keyspace.compaction_style.unwrap_or(database.compaction_style),
        level0_runs: database.level0_runs,
        level_base_bytes: (memtable_bytes as u64).saturating_mul(4),
        target_file_bytes: database.target_file_bytes,
        slice_bytes: database.target_file_bytes.saturating_mul(4),
        table,
        last_level_codec: match keyspace.compression {
            Some(codec) => codec,
            None => database.last_level_compression.unwrap_or(codec),
        },
        ..defaults
    }
}
