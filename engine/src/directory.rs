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
use crate::manifest;
use crate::planted;
use proof::{Proof, proof};
use sapwood_base::format::file_name::FileName;
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_storage::env::fork::Running;
use sapwood_storage::fs::bounded::BoundedFileSystem;
use sapwood_storage::fs::{FileSystem, LockGuard};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) mod proof;

/// Attempts at opening a directory that other processes remove meanwhile.
const ATTEMPTS: usize = 64;
/// The conditions of an open.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) path: PathBuf,
    pub(crate) create_if_missing: bool,
    pub(crate) error_if_exists: bool,
    pub(crate) read_only: bool,
}

impl Terms {
    pub(crate) fn may_create(&self) -> bool {
        self.create_if_missing && !self.read_only
    }

    /// The error of an open that finds no database.
    pub(crate) fn missing(&self, directory: &Path) -> Error {
        let advice = match self.read_only {
            true => "there is no database here, and a read-only open makes none; open it for writing first",
            false => "there is no database here; create_if_missing makes one",
        };
        Error::new(ErrorKind::NotFound, advice).in_file(directory)
    }
}

/// A directory that is ours to open, and locked.
pub(crate) struct Place {
    /// The file system for the directory.
    pub(crate) fs: Arc<BoundedFileSystem>,
    /// Its absolute path at the time of opening.
    pub(crate) directory: PathBuf,
    /// The files in it that have names of ours.
    pub(crate) names: Vec<FileName>,
    pub(crate) lock: Option<Box<dyn LockGuard>>,
}

impl Place {
    /// Finds or creates the directory, refuses one that is not ours, and locks it. At most `most`
    /// files on demand are open at the same time.
    pub(crate) fn open(terms: &Terms, fs: &Arc<dyn FileSystem>, most: usize) -> Result<Place> {
        let directory = fs.absolute(&terms.path)?;
        for attempt in 1.. {
            match Place::try_open(terms, fs, most, &directory) {
                // Another process has destroyed the database in between: then there is none.
                Err(error) if attempt < ATTEMPTS && is_missing(&error) && terms.may_create() => {}
                result => return result,
            }
        }
        unreachable!("the last attempt returns")
    }

    fn try_open(terms: &Terms, unheld: &Arc<dyn FileSystem>, most: usize, directory: &Path) -> Result<Place> {
        let unheld = Arc::new(BoundedFileSystem::new(unheld.clone(), most));
        let is_made = !unheld.exists(directory)?;
        if is_made {
            if !terms.may_create() {
                return Err(terms.missing(directory));
            }
            make_directory(&*unheld, directory)?;
        }
        let fs = match planted::hold(&*unheld, directory)? {
            Some(held) => Arc::new(BoundedFileSystem::new(held, most)),
            None => unheld.clone(),
        };
        let content = Content::look(&*fs, directory)?;
        content.admit(terms, directory)?;
        if !content.is_database
            && !is_made
            && let Some(parent) = parent_of(directory)
            // The creator of the directory, perhaps an interrupted attempt, may not have synced its
            // name.
            && let Err(error) = unheld.sync_directory(&parent)
            && !is_permission_denied(&error)
        {
            return Err(error);
        }
        let lock_path = directory.join(FileName::Lock.format());
        let lock = match terms.read_only {
            true => fs.lock_shared(&lock_path),
            false => fs.lock(&lock_path).map(Some),
        };
        let lock = planted::lock_of(lock)?;
        // A second look: the directory may have changed before the lock was acquired.
        let content = Content::look(&*fs, directory)?;
        content.admit(terms, directory)?;
        Ok(Place { fs, directory: directory.to_path_buf(), names: content.names, lock })
    }
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
            is_database |= proof(name)? == Proof::Ours || !planted::manifests_need_proof();
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

    /// Refuses a database that the terms does not allow, and a directory that is not ours.
    fn admit(&self, terms: &Terms, directory: &Path) -> Result<()> {
        if self.is_database {
            if terms.error_if_exists {
                let message = "the database exists, and error_if_exists is set";
                return Err(Error::invalid_argument(message).in_file(directory));
            }
            return Ok(());
        }
        if let Some(stranger) = &self.stranger {
            return Err(foreign(directory, stranger));
        }
        if terms.may_create() { Ok(()) } else { Err(terms.missing(directory)) }
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

/// See [`super::Db::destroy`].
pub(crate) fn destroy(fs: &Arc<dyn FileSystem>, path: &Path) -> Result<()> {
    let _running = Running::begin()?;
    let directory = &*fs.absolute(path)?;
    if !fs.exists(directory)? {
        return Ok(());
    }
    let held = fs.hold(directory)?;
    let fs = held.unwrap_or_else(|| fs.clone());
    let content = Content::look(&*fs, directory)?;
    if !content.is_database && planted::destruction_needs_proof() {
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
            && (listed.contains(&name)
                || !planted::destruction_needs_proof()
                || proof(&*fs, directory, name, database)? != Proof::Foreign)
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
