//! Ownership of a directory: an advisory lock on the directory itself and on a file in it.
//!
//! The lock on the directory holds regardless of the file's name. The lock on the file serves where
//! a directory cannot be locked (NFS turns these locks into locks of ranges, which need a handle
//! for writing), and programs that check only the file. After it was taken the name is looked up
//! again: a lock on a file that has lost its name excludes no other process.
use super::{Access, LockGuard, open};
use parking_lot::Mutex;
use sapwood_base::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Identifies a directory.
#[cfg(unix)]
type Key = (u64, u64);
#[cfg(not(unix))]
type Key = std::path::PathBuf;

/// The directories that this process has locked. `flock` alone would suffice on a local disk; over
/// NFS it becomes a lock of the whole process, which does not exclude a second handle.
static HELD: Mutex<BTreeMap<Key, Holders>> = Mutex::new(BTreeMap::new());

struct Holders {
    /// The process that owns the handles. A forked child inherits the map but not the locks.
    process: u32,
    /// `None`: one exclusive handle.
    sharing: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Exclusive,
    Shared,
}

fn refused(who: &str, path: &Path) -> Error {
    Error::new(ErrorKind::Locked, format!("{who} has the database open; close it first")).in_file(path)
}

/// An entry in [`HELD`].
struct Registered {
    key: Key,
    process: u32,
}

impl Registered {
    #[allow(clippy::clone_on_copy, reason = "not every system's key can be copied")]
    fn take(key: Key, way: Way, path: &Path) -> Result<Registered> {
        let process = std::process::id();
        let mut held = HELD.lock();
        match held.get_mut(&key).filter(|holders| holders.process == process) {
            None => {
                let sharing = (way == Way::Shared).then_some(1);
                held.insert(key.clone(), Holders { process, sharing });
            }
            Some(Holders { sharing: Some(count), .. }) if way == Way::Shared => *count += 1,
            Some(_) => return Err(refused("another handle of this process", path)),
        }
        Ok(Registered { key, process })
    }

    /// False in a child that was forked since.
    fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        if !self.is_ours() {
            return;
        }
        let mut held = HELD.lock();
        match held.get_mut(&self.key) {
            Some(Holders { sharing: Some(count), .. }) if *count > 1 => *count -= 1,
            _ => drop(held.remove(&self.key)),
        }
    }
}

/// Unlocked when dropped, unless in a child of the process that took it: the two share one lock,
/// which stays the parent's.
struct OsLock {
    /// The locked files: the file, the directory.
    files: Vec<std::fs::File>,
    registered: Registered,
}

impl Drop for OsLock {
    fn drop(&mut self) {
        if !self.registered.is_ours() {
            return;
        }
        // First the lock, then the entry: if the entry is free, the lock must be free too. Closing
        // is not enough: a process that another thread is starting has a copy of the handle until
        // it runs its program.
        for file in self.files.drain(..) {
            unlock(&file);
        }
    }
}

impl LockGuard for OsLock {}

#[cfg(unix)]
pub(super) use unix::{exclusive, exclusive_in, shared, shared_in};

#[cfg(unix)]
mod unix {
    use super::super::open_at;
    use super::*;
    use rustix::fs::{AtFlags, statat};
    use rustix::io::{Errno, retry_on_intr};
    use std::ffi::OsStr;
    use std::fs::File;
    use std::os::unix::fs::MetadataExt;

    /// How often a lock file may be replaced while it is being locked.
    const ATTEMPTS: usize = 64;

    pub(in super::super) fn exclusive(path: &Path) -> Result<Box<dyn LockGuard>> {
        let (directory, name) = split(path)?;
        exclusive_in(&directory, name, path)
    }

    pub(in super::super) fn shared(path: &Path) -> Result<Option<Box<dyn LockGuard>>> {
        let (directory, name) = split(path)?;
        shared_in(&directory, name, path)
    }

    fn split(path: &Path) -> Result<(File, &OsStr)> {
        let failed = |error| Error::io("lock", path, error);
        let name = path.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        Ok((open(parent.unwrap_or(Path::new(".")), Access::Directory).map_err(failed)?, name))
    }

    /// Locks `directory`, and the file `name` in it, which is created if missing.
    pub(in super::super) fn exclusive_in(
        directory: &File,
        name: &OsStr,
        path: &Path,
    ) -> Result<Box<dyn LockGuard>> {
        let mut lock = lock_directory(directory, path, Way::Exclusive)?;
        lock.files.extend(lock_file(directory, name, path, Way::Exclusive)?);
        Ok(Box::new(lock))
    }

    /// Locks `directory`, and the file `name` in it if it can be read.
    pub(in super::super) fn shared_in(
        directory: &File,
        name: &OsStr,
        path: &Path,
    ) -> Result<Option<Box<dyn LockGuard>>> {
        let mut lock = lock_directory(directory, path, Way::Shared)?;
        lock.files.extend(lock_file(directory, name, path, Way::Shared)?);
        Ok(Some(Box::new(lock)))
    }

    fn lock_directory(directory: &File, path: &Path, way: Way) -> Result<OsLock> {
        let failed = |error| Error::io("lock", path, error);
        let metadata = directory.metadata().map_err(failed)?;
        let registered = Registered::take((metadata.dev(), metadata.ino()), way, path)?;
        let mut lock = OsLock { files: Vec::new(), registered };
        // A separate handle: a lock belongs to the opened handle.
        let own = open_at(directory, ".", Access::Directory).map_err(failed)?;
        match try_lock(&own, way) {
            Ok(true) => lock.files.push(own),
            Ok(false) => {
                let message =
                    "another process has the database open, or its directory locked; close it first";
                return Err(Error::new(ErrorKind::Locked, message).in_file(path));
            }
            // Not supported here: the lock on the file alone must suffice.
            Err(_) => {}
        }
        Ok(lock)
    }

    fn lock_file(directory: &File, name: &OsStr, path: &Path, way: Way) -> Result<Option<File>> {
        let failed = |error| Error::io("lock", path, error);
        let access = if way == Way::Exclusive { Access::Lock } else { Access::Read };
        for _ in 0..ATTEMPTS {
            let file = match open_at(directory, name, access) {
                Ok(file) => file,
                Err(error) if way == Way::Shared && is_out_of_reach(&error) => return Ok(None),
                Err(error) => return Err(failed(error)),
            };
            match try_lock(&file, way) {
                Ok(true) => {}
                Ok(false) => return Err(refused("another process", path)),
                // A reader may be refused a right that it does not need.
                Err(_) if way == Way::Shared => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
            let locked = file.metadata().map_err(failed)?;
            match retry_on_intr(|| statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)) {
                Ok(named) if identity(&named) == (locked.dev(), locked.ino()) => return Ok(Some(file)),
                // The previous owner has removed it, or another file has replaced it.
                Ok(_) | Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error.into())),
            }
        }
        Err(Error::new(ErrorKind::Locked, "the lock file is replaced again and again").in_file(path))
    }

    #[allow(clippy::unnecessary_cast, reason = "the types of the fields differ between systems")]
    fn identity(stat: &rustix::fs::Stat) -> Key {
        (stat.st_dev as u64, stat.st_ino as u64)
    }

    fn is_out_of_reach(error: &io::Error) -> bool {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
    }

    /// Returns false if another handle holds it.
    fn try_lock(file: &File, way: Way) -> io::Result<bool> {
        use rustix::fs::{FlockOperation, flock};
        let operation = match way {
            Way::Exclusive => FlockOperation::NonBlockingLockExclusive,
            Way::Shared => FlockOperation::NonBlockingLockShared,
        };
        match retry_on_intr(|| flock(file, operation)) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn unlock(file: &File) {
        // On failure, closing releases it as far as possible.
        let _ = rustix::fs::flock(file, rustix::fs::FlockOperation::Unlock);
    }
}

#[cfg(unix)]
use unix::unlock;

#[cfg(not(unix))]
pub(super) use elsewhere::{exclusive, shared};

#[cfg(not(unix))]
mod elsewhere {
    use super::*;
    use std::fs::TryLockError;

    pub(in super::super) fn exclusive(path: &Path) -> Result<Box<dyn LockGuard>> {
        let failed = |error| Error::io("lock", path, error);
        let file = open(path, Access::Lock).map_err(failed)?;
        let lock = take(path, file, Way::Exclusive)?;
        Ok(Box::new(lock))
    }

    pub(in super::super) fn shared(path: &Path) -> Result<Option<Box<dyn LockGuard>>> {
        match open(path, Access::Read) {
            Ok(file) => Ok(Some(Box::new(take(path, file, Way::Shared)?))),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                Ok(None)
            }
            Err(error) => Err(Error::io("lock", path, error)),
        }
    }

    fn take(path: &Path, file: std::fs::File, way: Way) -> Result<OsLock> {
        let failed = |error| Error::io("lock", path, error);
        let registered = Registered::take(std::fs::canonicalize(path).map_err(failed)?, way, path)?;
        let locked = match way {
            Way::Exclusive => file.try_lock(),
            Way::Shared => file.try_lock_shared(),
        };
        match locked {
            Ok(()) => Ok(OsLock { files: vec![file], registered }),
            Err(TryLockError::WouldBlock) => Err(refused("another process", path)),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub(super) fn unlock(file: &std::fs::File) {
        let _ = file.unlock();
    }
}

#[cfg(not(unix))]
use elsewhere::unlock;
