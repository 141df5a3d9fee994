//! The directory of a database: its identity, its ownership, and its lock.
//!
//! *Identity.* The path is made absolute, and the directory is held by a handle where the system
//! has such handles. Later changes of the name, and of the process's working directory, affect no
//! file of the database.
//!
//! *Ownership.* A name proves nothing: other engines also call their files `MANIFEST-000005`,
//! `000009.sst` and `LOCK`. A file is ours if it has the magic number that goes with its name. A
//! directory without a MANIFEST of ours is a new one only if everything in it is left from an
//! interrupted creation, or is irrelevant ([`is_of_no_concern`]). Any other directory is refused
//! and stays unchanged, down to the last byte.
//!
//! *Lock.* A lock on `LOCK` and, where it is offered, on the directory itself (`FileSystem::lock`).
//! Readers share it and create no file.
use super::DbBuilder;
use crate::manifest;
use sapwood_base::format::btree_root::TREE_MAGIC;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::footer::{FOOTER_BYTES, TABLE_MAGIC};
use sapwood_base::format::log_segment::{HEADER_BYTES, LOG_MAGIC, SegmentHeader};
use sapwood_base::format::manifest::{HEADER_BYTES as MANIFEST_HEADER_BYTES, MANIFEST_MAGIC, decode_header};
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_storage::env::fork::Running;
use sapwood_storage::fs::bounded::BoundedFileSystem;
use sapwood_storage::fs::{File, FileSystem, LockGuard, OpenMode, is_no_file};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Attempts at opening a directory that other processes remove meanwhile.
const ATTEMPTS: usize = 64;
/// Bytes read at a time by the check for zeros.
const BLANK_BYTES: usize = 1 << 16;
/// The longest file of ours that can be blank: the longest log segment.
const LONGEST_BLANK: u64 = 1 << 30;

/// A directory that is ours to open, and locked.
pub(super) struct Place {
    /// The file system for the directory.
    pub(super) fs: Arc<BoundedFileSystem>,
    /// Its absolute path at the time of opening.
    pub(super) directory: PathBuf,
    /// The files in it that have names of ours.
    pub(super) names: Vec<FileName>,
    pub(super) lock: Option<Box<dyn LockGuard>>,
}

impl Place {
    /// Finds or creates the directory, refuses one that is not ours, and locks it. At most `most`
    /// files on demand are open at the same time.
    pub(super) fn open(builder: &DbBuilder, fs: &Arc<dyn FileSystem>, most: usize) -> Result<Place> {
        let directory = fs.absolute(&builder.path)?;
        for attempt in 1.. {
            match Place::try_open(builder, fs, most, &directory) {
                // Another process has destroyed the database in between: then there is none.
                Err(error) if attempt < ATTEMPTS && is_missing(&error) && builder.may_create() => {}
                result => return result,
            }
        }
        unreachable!("the last attempt returns")
    }

    fn try_open(
        builder: &DbBuilder,
        unheld: &Arc<dyn FileSystem>,
        most: usize,
        directory: &Path,
    ) -> Result<Place> {
        let unheld = Arc::new(BoundedFileSystem::new(unheld.clone(), most));
        if !unheld.exists(directory)? {
            if !builder.may_create() {
                return Err(missing(builder, directory));
            }
            make_directory(&*unheld, directory)?;
        }
        let held = match planted::is(Bug::DirectoryByName) {
            true => None,
            false => unheld.hold(directory)?,
        };
        let fs = match held {
            Some(held) => Arc::new(BoundedFileSystem::new(held, most)),
            None => unheld.clone(),
        };
        let content = Content::look(&*fs, directory)?;
        content.admit(builder, directory)?;
        if !content.is_database
            && let Some(parent) = parent_of(directory)
            // The creator of the directory, perhaps an interrupted attempt, may not have synced its
            // name.
            && let Err(error) = unheld.sync_directory(&parent)
            && !is_permission_denied(&error)
        {
            return Err(error);
        }
        let lock_path = directory.join(FileName::Lock.format());
        let lock = match builder.read_only {
            true => fs.lock_shared(&lock_path),
            false => fs.lock(&lock_path).map(Some),
        };
        let lock = match lock {
            Err(_) if planted::is(Bug::NoLock) => None,
            lock => lock?,
        };
        // A second look: the directory may have changed before the lock was acquired.
        let content = Content::look(&*fs, directory)?;
        content.admit(builder, directory)?;
        Ok(Place { fs, directory: directory.to_path_buf(), names: content.names, lock })
    }
}

impl DbBuilder {
    pub(super) fn may_create(&self) -> bool {
        self.create_if_missing && !self.read_only
    }
}

/// The error of opening where there is no database.
pub(super) fn missing(builder: &DbBuilder, directory: &Path) -> Error {
    let advice = match builder.read_only {
        true => "there is no database here, and a read-only opening makes none; open it for writing first",
        false => "there is no database here; create_if_missing makes one",
    };
    Error::new(ErrorKind::NotFound, advice).in_file(directory)
}

/// The content of a directory.
struct Content {
    /// The files that have names of ours.
    names: Vec<FileName>,
    /// Whether one of them is a MANIFEST that is ours, or a damaged one beside files that are.
    is_database: bool,
    /// A file that keeps the directory from being a new database.
    stranger: Option<PathBuf>,
}

impl Content {
    fn look(fs: &dyn FileSystem, directory: &Path) -> Result<Content> {
        let mut names = Vec::new();
        let mut stranger = None;
        for path in fs.list(directory)? {
            match path.file_name().and_then(|name| name.to_str()).and_then(FileName::parse) {
                Some(name) => names.push(name),
                None if is_of_no_concern(&path) => {}
                None => stranger = Some(path),
            }
        }
        let proof = |name: FileName| proof(fs, directory, name, None);
        let manifests = || names.iter().copied().filter(|name| matches!(name, FileName::Manifest(_)));
        let mut is_database = false;
        for name in manifests() {
            is_database |= proof(name)? == Proof::Ours || planted::is(Bug::ForeignManifestTaken);
        }
        if is_database {
            return Ok(Content { names, is_database, stranger });
        }
        let mut has_data = false;
        for name in names.iter().copied() {
            let proof = proof(name)?;
            let is_data = matches!(name, FileName::Table(_) | FileName::Tree(_) | FileName::Log(_));
            has_data |= is_data && proof == Proof::Ours;
            // Data without a MANIFEST is the remainder of a database, not the beginning of one.
            if proof == Proof::Foreign || is_data {
                stranger = Some(PathBuf::from(name.format()));
            }
        }
        // Recovery reports the damage of the MANIFEST.
        is_database = has_data && manifests().next().is_some();
        Ok(Content { names, is_database, stranger })
    }

    /// Refuses a database that the builder does not allow, and a directory that is not ours.
    fn admit(&self, builder: &DbBuilder, directory: &Path) -> Result<()> {
        if self.is_database {
            if builder.error_if_exists {
                let message = "the database exists, and error_if_exists is set";
                return Err(Error::invalid_argument(message).in_file(directory));
            }
            return Ok(());
        }
        if let Some(stranger) = &self.stranger {
            return Err(foreign(directory, stranger));
        }
        if builder.may_create() { Ok(()) } else { Err(missing(builder, directory)) }
    }
}

fn foreign(directory: &Path, stranger: &Path) -> Error {
    let message = "the directory is not a database and not empty; choose another one";
    Error::invalid_argument(message).in_file(directory.join(stranger))
}

/// Whether a name is one of those that systems put into directories on their own, or that keep an
/// empty directory in a repository. Such a name indicates neither a database nor user data.
fn is_of_no_concern(path: &Path) -> bool {
    const NAMES: &[&str] = &[
        "lost+found",
        ".DS_Store",
        ".Spotlight-V100",
        ".Trashes",
        ".fseventsd",
        ".TemporaryItems",
        ".gitkeep",
        ".gitignore",
        ".keep",
        ".snapshot",
        ".snapshots",
        ".zfs",
        "Thumbs.db",
        "desktop.ini",
        "$RECYCLE.BIN",
        "System Volume Information",
    ];
    const BEGINNINGS: &[&str] = &["._", ".nfs", ".fuse_hidden", ".Trash-"];
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    NAMES.contains(&name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
}

/// The origin of a file with a name of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It has the magic number that goes with the name, and names no other database.
    Ours,
    /// Empty, or zeros only: an interrupted creation, without data.
    Blank,
    /// From another program, or damaged beyond recognition.
    Foreign,
}

/// Examines a file with a name of ours. `database` is the number that it must have, if known.
pub(crate) fn proof(
    fs: &dyn FileSystem,
    directory: &Path,
    name: FileName,
    database: Option<u64>,
) -> Result<Proof> {
    let path = directory.join(name.format());
    if matches!(name, FileName::Unfinished(..)) {
        return Ok(Proof::Ours);
    }
    let file = match fs.open(&path, OpenMode::Read) {
        Ok(file) => file,
        // Removed in between, a directory, a link, a pipe.
        Err(error) if is_no_file(&error) => return Ok(Proof::Foreign),
        Err(error) => return Err(error),
    };
    match prove(&*file, name, database) {
        Err(error) if is_no_file(&error) => Ok(Proof::Foreign),
        result => result,
    }
}

fn prove(file: &dyn File, name: FileName, database: Option<u64>) -> Result<Proof> {
    let len = file.len()?;
    let is_of = |number: Option<u64>| match (number, database) {
        (Some(number), Some(wanted)) => number == wanted || number == 0,
        _ => true,
    };
    let is_ours = match name {
        FileName::Lock | FileName::Unsynced => {
            return Ok(if len == 0 { Proof::Ours } else { Proof::Foreign });
        }
        FileName::Unfinished(..) => return Ok(Proof::Ours),
        FileName::Manifest(_) => {
            let mut header = [0; MANIFEST_HEADER_BYTES];
            let count = read_up_to(file, 0, &mut header)?;
            // A damaged header does not identify the database.
            begins_with(&header[..count], MANIFEST_MAGIC) && is_of(decode_header(&header).ok())
        }
        FileName::Log(_) => {
            let mut header = [0; HEADER_BYTES];
            let count = read_up_to(file, 0, &mut header)?;
            let decoded = SegmentHeader::decode(&header).ok().flatten();
            begins_with(&header[..count], LOG_MAGIC) && is_of(decoded.map(|header| header.database))
        }
        FileName::Tree(_) => {
            let mut magic = [0; 8];
            let count = read_up_to(file, 0, &mut magic)?;
            begins_with(&magic[..count], TREE_MAGIC)
        }
        FileName::Table(_) => {
            let mut footer = [0; FOOTER_BYTES];
            let count = read_up_to(file, len.saturating_sub(FOOTER_BYTES as u64), &mut footer)?;
            let number = footer.as_chunks().0[8];
            count == FOOTER_BYTES && footer.ends_with(&TABLE_MAGIC) && is_of(Some(u64::from_le_bytes(number)))
        }
    };
    match is_ours {
        true => Ok(Proof::Ours),
        false if is_blank(file, len)? => Ok(Proof::Blank),
        false => Ok(Proof::Foreign),
    }
}

fn begins_with(bytes: &[u8], magic: [u8; 8]) -> bool {
    bytes.starts_with(&magic)
}

/// Reads until the buffer is full or the file ends.
fn read_up_to(file: &dyn File, offset: u64, buffer: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(offset + done as u64, &mut buffer[done..])? {
            0 => break,
            count => done += count,
        }
    }
    Ok(done)
}

fn is_blank(file: &dyn File, len: u64) -> Result<bool> {
    if len > LONGEST_BLANK {
        return Ok(false);
    }
    let mut buffer = vec![0; BLANK_BYTES.min(len as usize)];
    let mut offset = 0;
    while offset < len {
        let count = read_up_to(file, offset, &mut buffer)?;
        if count == 0 {
            break;
        }
        if buffer[..count].iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        offset += count as u64;
    }
    Ok(true)
}

/// See [`super::Db::destroy`].
pub(super) fn destroy(fs: &Arc<dyn FileSystem>, path: &Path) -> Result<()> {
    let _running = Running::begin()?;
    let directory = &*fs.absolute(path)?;
    if !fs.exists(directory)? {
        return Ok(());
    }
    let held = fs.hold(directory)?;
    let fs = held.unwrap_or_else(|| fs.clone());
    let content = Content::look(&*fs, directory)?;
    if planted::is(Bug::DestroyByName) {
        return content.names.iter().try_for_each(|name| fs.remove_file(&directory.join(name.format())));
    }
    if !content.is_database {
        let has_foreign_manifest = content.names.iter().any(|name| matches!(name, FileName::Manifest(_)));
        return match content.stranger {
            Some(stranger) if has_foreign_manifest => Err(foreign(directory, &stranger)),
            Some(_) => {
                let message = "there is no database here to destroy; the directory is left alone";
                Err(Error::new(ErrorKind::NotFound, message).in_file(directory))
            }
            None => Ok(()),
        };
    }
    let lock_path = directory.join(FileName::Lock.format());
    let _lock = fs.lock(&lock_path)?;
    let names = Content::look(&*fs, directory)?.names;
    let (mut manifests, mut others) = (Vec::new(), Vec::new());
    let mut listed = HashSet::new();
    let mut database = None;
    for name in names.iter().copied() {
        if let FileName::Manifest(number) = name
            && proof(&*fs, directory, name, None)? == Proof::Ours
        {
            manifests.push(name);
            if let Some(known) = manifest::listed_files(&*fs, &directory.join(name.format()), number)? {
                database = Some(known.database);
                listed.extend(known.files);
            }
        }
    }
    for name in names {
        // The lock is removed last, and a MANIFEST that is not ours stays.
        if !matches!(name, FileName::Lock | FileName::Manifest(_))
            && (listed.contains(&name) || proof(&*fs, directory, name, database)? != Proof::Foreign)
        {
            others.push(name);
        }
    }
    // Tables first: after a crash in between, the remainder is still recognised as a database to
    // destroy.
    for name in others.iter().chain(&manifests) {
        fs.remove_file(&directory.join(name.format()))?;
    }
    // Removed while the lock is held: a process that waits for the lock looks for the name again.
    fs.remove_file(&lock_path)?;
    if fs.list(directory)?.is_empty() {
        fs.remove_dir(directory)?;
    }
    Ok(())
}

/// Creates a directory and its missing ancestors, durably: each needs its name in its parent.
fn make_directory(fs: &dyn FileSystem, directory: &Path) -> Result<()> {
    let mut made = Vec::new();
    let mut path = directory.to_path_buf();
    while !fs.exists(&path)? {
        let parent = parent_of(&path);
        made.push(path);
        let Some(parent) = parent else { break };
        path = parent;
    }
    fs.create_dir_all(directory)?;
    let synced =
        made.iter().filter_map(|path| parent_of(path)).try_for_each(|parent| fs.sync_directory(&parent));
    if synced.is_err() {
        // A failed sync cannot be retried, but a new directory can be created.
        for path in &made {
            let _ = fs.remove_dir(path);
        }
    }
    synced
}

/// The parent directory; "." for a relative path of one name.
fn parent_of(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_path_buf() })
}

/// Whether the error is that a name no longer exists.
fn is_missing(error: &Error) -> bool {
    io_kind(error) == Some(std::io::ErrorKind::NotFound)
}

/// Whether the system denied access: a parent directory may be closed to us and still hold ours.
fn is_permission_denied(error: &Error) -> bool {
    io_kind(error) == Some(std::io::ErrorKind::PermissionDenied)
}

fn io_kind(error: &Error) -> Option<std::io::ErrorKind> {
    Some(error.io_error()?.kind())
}
