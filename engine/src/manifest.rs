//! The MANIFEST: the history of version edits, and the resulting state.
//!
//! An open writes a new MANIFEST that starts with a snapshot of the state, or continues the one
//! that a clean close has left. A MANIFEST that has grown to several times that size is also
//! replaced. The switch needs no pointer file: the new MANIFEST is written and synced, then the
//! older ones are removed and the directory is synced, and only then the first edit is appended. So
//! if a newer and an older one exist, either both hold the same state, or the newer is torn and the
//! older is right.
use crate::directory::proof::{Proof, proof};
use crate::planted;
use crate::wal::commit_ring::LogPoint;
use records::position_of;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::log_record::{
    self, HEADER_BYTES as RECORD_HEADER_BYTES, MARK_PAYLOAD_BYTES, RecordKind,
};
use sapwood_base::format::manifest::{self as format, Edit, HEADER_BYTES};
use sapwood_base::{Error, ErrorKind, FileNumber, Result};
use sapwood_compaction::TableHandle;
use sapwood_storage::DatabaseFiles;
use sapwood_storage::fs::{File, FileSystem, OpenMode};
use state::Undo;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

mod keyspaces;
mod state;
mod records;
mod load;

pub(crate) use keyspaces::KeyspaceEntry;
#[cfg(feature = "sim")]
pub(crate) use load::replay_bytes;
pub(crate) use load::{End, listed_files, load};
pub(crate) use records::{encode_record, owner};
pub(crate) use state::{ManifestState, log_start};

/// A MANIFEST is rewritten when it has this many bytes and is four times its snapshot.
const REWRITE_BYTES: u64 = 1 << 20;

/// An open continues a MANIFEST that has this many bytes, or is twice its snapshot: fewer than a
/// block of a file system.
const CONTINUED_BYTES: u64 = 3 << 10;

/// The open MANIFEST.
pub(crate) struct Manifest {
    files: Arc<DatabaseFiles>,
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

impl Manifest {
    /// Writes a new MANIFEST with `state`, removes older ones, and makes both durable.
    pub(crate) fn create(
        files: &Arc<DatabaseFiles>,
        database: u64,
        state: ManifestState,
    ) -> Result<Manifest> {
        let manifest = Manifest::write_new(files, database, state)?;
        manifest.retire_older()?;
        manifest.write_sync_mark();
        Ok(manifest)
    }

    /// Continues a MANIFEST whose state is `state`, and writes nothing. `None` if a new one is
    /// better.
    pub(crate) fn resume(
        files: &Arc<DatabaseFiles>,
        database: u64,
        state: &ManifestState,
        at: &End,
    ) -> Result<Option<Manifest>> {
        let End { number, offset: end, snapshot_bytes } = *at;
        if end > CONTINUED_BYTES && end > 2 * snapshot_bytes {
            return Ok(None);
        }
        let file = files.fs.open(&files.path(FileName::Manifest(number)), OpenMode::ReadWrite)?;
        let (files, state) = (files.clone(), state.clone());
        Ok(Some(Manifest { files, database, number, file, end, snapshot_bytes, failed: false, state }))
    }

    /// Whether it records that the log is empty and begins at `start`, and all numbers of files.
    pub(crate) fn says_all_of(&self, start: LogPoint) -> bool {
        let next_file = self.files.next_file.load(std::sync::atomic::Ordering::Relaxed);
        self.state.has_empty_log_at(start) && self.state.next_file == next_file
    }

    /// The first half of a switch. On an error the new file is removed again; if that fails, the
    /// error is of kind `Poisoned`: the next open could then miss an edit to the old MANIFEST.
    fn write_new(files: &Arc<DatabaseFiles>, database: u64, mut state: ManifestState) -> Result<Manifest> {
        let number = files.allocate_name(FileName::Manifest)?;
        state.next_file = state.next_file.max(files.next_file.load(std::sync::atomic::Ordering::Relaxed));
        let unfinished = files.unfinished_path(FileName::Manifest(number));
        let file = files.fs.create_new(&unfinished)?;
        let mut bytes = format::encode_header(database).to_vec();
        bytes.extend(encode_record(&state.snapshot(), owner(database, number), HEADER_BYTES as u64));
        // The file is renamed last: a file with the name is a whole MANIFEST, so one without our
        // magic number is foreign.
        let path = files.path(FileName::Manifest(number));
        let named = || {
            file.write_at(0, &bytes)?;
            if planted::syncs_new_manifest() {
                file.sync_all()?;
            }
            files.finish_file(FileName::Manifest(number))?;
            if planted::syncs_name_of_new_manifest() {
                files.sync_directory()?;
            }
            // For the path in messages.
            files.fs.open(&path, OpenMode::ReadWrite)
        };
        let file = match named() {
            Ok(file) => file,
            Err(error) => {
                // The next open removes a file that stays under this name.
                let _ = files.fs.remove_file(&unfinished);
                return match files.fs.exists(&path) {
                    Ok(true) if files.fs.remove_file(&path).is_ok() => Err(error),
                    Ok(false) => Err(error),
                    _ => Err(Error::new(ErrorKind::Poisoned, format!("cannot switch the MANIFEST: {error}"))),
                };
            }
        };
        let end = bytes.len() as u64;
        let files = files.clone();
        Ok(Manifest { files, database, number, file, end, snapshot_bytes: end, failed: false, state })
    }

    /// The second half: nothing may be appended before the older ones are durably removed.
    fn retire_older(&self) -> Result<()> {
        let (fs, directory) = (&*self.files.fs, &self.files.directory);
        let mut is_synced = true;
        for name in list(fs, directory)? {
            if let FileName::Manifest(other) = name
                && other < self.number
                && (!planted::manifests_need_proof()
                    || proof(fs, directory, name, Some(self.database))? != Proof::Foreign)
            {
                is_synced = false;
                fs.remove_file(&directory.join(name.format()))?;
            }
        }
        // Removals of an earlier attempt were synced with the name of this one.
        if is_synced { Ok(()) } else { self.files.sync_directory() }
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
        let next_file = self.files.next_file.load(std::sync::atomic::Ordering::Relaxed);
        edits.push(Edit::NextFile(FileNumber(next_file)));
        // Applied first, so that an edit that does not fit never reaches the disk. If the write
        // fails, the edit is undone.
        let undo = Undo::new(&self.state, &edits);
        let written = self.state.apply(&edits, handles).and_then(|()| self.write(&planted::appended(&edits)));
        if written.is_err() {
            undo.restore(&mut self.state);
        }
        written
    }

    /// Makes `edits`, which the state has already, durable.
    fn write(&mut self, edits: &[Edit]) -> Result<()> {
        if self.end > REWRITE_BYTES && self.end > 4 * self.snapshot_bytes {
            let next = Manifest::write_new(&self.files, self.database, self.state.clone())
                .inspect_err(|error| self.failed = error.kind() == ErrorKind::Poisoned)?;
            self.failed = true;
            next.retire_older().map_err(closed_for_good)?;
            next.write_sync_mark();
            *self = next;
            return Ok(());
        }
        let record = encode_record(edits, owner(self.database, self.number), self.end);
        self.file.write_at(self.end, &record)?;
        if planted::syncs_edits()
            && let Err(error) = self.file.sync_data()
        {
            self.failed = true;
            return Err(closed_for_good(error));
        }
        self.end += record.len() as u64;
        self.write_sync_mark();
        Ok(())
    }

    /// Writes a sync mark after the last edit, where the next edit will overwrite it. It is not
    /// synced: if it exists, the edits before it were synced, so a damaged last edit is not taken
    /// for a torn one.
    fn write_sync_mark(&self) {
        let mut mark = [0; RECORD_HEADER_BYTES + MARK_PAYLOAD_BYTES];
        mark[RECORD_HEADER_BYTES..].copy_from_slice(&position_of(self.end).to_le_bytes());
        let position = position_of(self.end);
        let owner = owner(self.database, self.number);
        log_record::seal(&mut mark, MARK_PAYLOAD_BYTES as u32, owner, position, RecordKind::SyncMark, 0);
        // Without it, the next open only has less evidence.
        let _ = self.file.write_at(self.end, &mark);
    }
}

/// Whatever the cause, even a full disk: the edit may or may not be on disk, so no caller may
/// assume that it is not.
fn closed_for_good(error: Error) -> Error {
    Error::new(ErrorKind::Poisoned, format!("the MANIFEST is closed for good; reopen the database ({error})"))
}

/// Our files in a directory.
pub(crate) fn list(fs: &dyn FileSystem, directory: &Path) -> Result<Vec<FileName>> {
    let names = fs.list(directory)?;
    Ok(names.iter().filter_map(|path| FileName::parse(path.file_name()?.to_str()?)).collect())
}
