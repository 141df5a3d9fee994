//! Reading a MANIFEST: the state to start from, and the files that it names.
use super::records::{owner, position_of, record_at};
use super::state::ManifestState;
use crate::directory::proof::{Proof, proof};
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::log_record::{HEADER_BYTES as RECORD_HEADER_BYTES, RecordKind, UNIT_BYTES};
use sapwood_base::format::manifest::{self as format, Edit, HEADER_BYTES};
use sapwood_base::memory;
use sapwood_base::{Error, ErrorKind, FileNumber, Result};
use sapwood_compaction::TableHandle;
use sapwood_storage::DatabaseFiles;
use sapwood_storage::fs::{FileSystem, OpenMode};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

/// The content of a MANIFEST.
pub(crate) struct Loaded {
    pub(crate) database: u64,
    pub(crate) state: ManifestState,
    /// Its end, if the next edit can be appended to it.
    pub(crate) end: Option<End>,
}

/// The end of a MANIFEST whose edits and name are durable, of the present version, without older
/// ones beside it and without bytes after its last edit but the sync mark. It is what an append
/// leaves.
pub(crate) struct End {
    pub(super) number: FileNumber,
    /// Offset of the next record, in bytes.
    pub(super) offset: u64,
    pub(super) snapshot_bytes: u64,
}

/// Reads the current MANIFEST; `None` if there is no database, or only an interrupted creation of
/// one.
pub(crate) fn load(files: &Arc<DatabaseFiles>, names: &[FileName]) -> Result<Option<Loaded>> {
    let mut numbers: Vec<FileNumber> = names
        .iter()
        .filter_map(|name| match name {
            FileName::Manifest(number) => Some(*number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    let is_only_one = numbers.len() == 1;
    let mut newest_error = None;
    while let Some(number) = numbers.pop() {
        match load_one(files, number) {
            Ok(mut loaded) => {
                loaded.end = loaded.end.filter(|_| is_only_one);
                return Ok(Some(loaded));
            }
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

fn load_one(files: &Arc<DatabaseFiles>, number: FileNumber) -> std::result::Result<Loaded, Failure> {
    let path = files.directory.join(FileName::Manifest(number).format());
    let read = || -> Result<Option<Vec<u8>>> {
        // Foreign files of such names may be large, or not regular files at all.
        if proof(&*files.fs, &files.directory, FileName::Manifest(number), None)? != Proof::Ours {
            return Ok(None);
        }
        let file = files.fs.open(&path, OpenMode::Read)?;
        let mut bytes = memory::filled(0, file.len()? as usize)?;
        file.read_exact_at(0, &mut bytes)?;
        Ok(Some(bytes))
    };
    match read().map_err(Failure::Fatal)? {
        Some(bytes) => replay(files, &path, number, &bytes),
        None => Err(Failure::Torn(Error::corruption(&path, 0, "not a MANIFEST: wrong magic number"))),
    }
}

/// The state that results from the bytes of a MANIFEST. `path` is for messages.
fn replay(
    files: &Arc<DatabaseFiles>,
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
    let mut snapshot_bytes = 0;
    // The offset of a sync mark that says that all edits before it are synced.
    let mut mark = None;
    while offset < bytes.len() {
        mark = None;
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
            let says = payload.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
            mark = Some(offset as u64).filter(|mark| says == Some(position_of(*mark)));
            offset += (RECORD_HEADER_BYTES + payload.len()).next_multiple_of(UNIT_BYTES);
            continue;
        }
        apply_record(files, &mut state, payload)
            .map_err(|error| Failure::Fatal(error.at(path, offset as u64)))?;
        offset += (RECORD_HEADER_BYTES + payload.len()).next_multiple_of(UNIT_BYTES);
        if std::mem::take(&mut first) {
            snapshot_bytes = offset as u64;
        }
    }
    if first {
        return Err(Failure::Torn(Error::corruption(path, HEADER_BYTES as u64, "MANIFEST has no record")));
    }
    if let Some(file) = state.file_in_two_keyspaces() {
        let message = format!("table {file} belongs to two keyspaces");
        return Err(Failure::Fatal(Error::corruption(path, offset as u64, message)));
    }
    let is_current = *header == format::encode_header(database);
    let end = mark.filter(|_| is_current).map(|offset| End { number, offset, snapshot_bytes });
    Ok(Loaded { database, state, end })
}

/// Applies the edit in the payload of a record. After an error the state is unusable.
fn apply_record(files: &Arc<DatabaseFiles>, state: &mut ManifestState, payload: &[u8]) -> Result<()> {
    // Of a long record only the tables are buffered, and added to the state together.
    let (mut tables, mut handles) = (Vec::new(), HashMap::new());
    for edit in format::Edits::new(payload) {
        let edit = edit?;
        match &edit {
            Edit::TableAdded(table) => {
                handles.insert(table.file, TableHandle::new(files, table.file, table.file_bytes));
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
pub(crate) fn replay_bytes(files: &Arc<DatabaseFiles>, bytes: &[u8]) -> Result<Loaded> {
    replay(files, Path::new("MANIFEST-000001"), FileNumber(1), bytes).map_err(|failure| match failure {
        Failure::Torn(error) | Failure::Fatal(error) => error,
    })
}
