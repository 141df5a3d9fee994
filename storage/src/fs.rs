//! The file-system contract: the guarantees of every implementation and the possible losses in a
//! crash.
//!
//! *Process crash* (`kill -9`): bytes survive once `append`, `write_at` or a store into a
//! [`MappedFile`] has returned. *Power loss*: bytes survive once `sync_data` or `sync_all` of their
//! file has returned; a file's name survives once [`FileSystem::sync_directory`] has returned after
//! its creation, renaming or removal. Anything not synced may or may not survive, in any order, in
//! units of 512-byte sectors.
use sapwood_base::{Error, Result, memory};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use crate::mapped::MappedFile;

pub mod os;
pub mod bounded;
pub(crate) mod group;

use group::FileGroup;
pub use os::is_no_file;

/// How [`FileSystem::open`] opens an existing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For `read_at` only.
    Read,
    /// For reading and writing.
    ReadWrite,
}

/// One open file. Methods take `&self`: positions are explicit, so any number of threads may read
/// and write.
pub trait File: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer only at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;
    /// Writes all of `bytes` at `offset`, extending the file where needed.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()>;
    /// Makes written bytes (and the length needed to read them) survive a power loss. A failed sync
    /// must not be retried: the kernel may have dropped the bytes already.
    fn sync_data(&self) -> Result<()>;
    /// `sync_data` and all metadata.
    fn sync_all(&self) -> Result<()>;
    /// Cuts the file to `len` bytes, or extends it with zeros.
    fn set_len(&self, len: u64) -> Result<()>;
    /// The length in bytes.
    fn len(&self) -> Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// The path under which it was opened, for messages.
    fn path(&self) -> &Path;
    /// Prefetches the bytes. A hint: may do nothing.
    fn prefetch(&self, _offset: u64, _len: u64) {}
    /// Reserves space for the first `len` bytes; unwritten bytes there read as zeros. Returns true
    /// if writes into that space, through a mapping too, need no further allocation: they cannot
    /// meet a full disk. Returns false, without any effect, where the file system does not promise
    /// that; then only written zeros reserve space. Survives a power loss once the file was synced.
    fn allocate(&self, _len: u64) -> Result<bool> {
        Ok(false)
    }
    /// The number of bytes that [`fill_zeros`] should write at a time.
    fn zeros_per_write(&self) -> usize {
        ZEROS_PER_WRITE
    }

    /// Distinguishes the file from all others of the machine that exist at the same time, whatever
    /// its name; `None` where the system has no such identity.
    fn identity(&self) -> Result<Option<FileIdentity>> {
        Ok(None)
    }

    /// Fills `buffer` from `offset`. A file that ends before is a corruption error at that offset.
    fn read_exact_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.read_at(offset + done as u64, &mut buffer[done..])? {
                0 => {
                    return Err(Error::corruption(
                        self.path(),
                        offset + done as u64,
                        format!("file ends {} bytes early", buffer.len() - done),
                    ));
                }
                n => done += n,
            }
        }
        Ok(())
    }
}

/// See [`File::identity`]: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The device.
    pub device: u64,
    /// The inode on it.
    pub inode: u64,
}

/// Free and total space of the device that holds a directory, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// Bytes that an unprivileged process can still write.
    pub available: u64,
    /// Size of the device.
    pub total: u64,
}

/// Releases the lock file when dropped.
pub trait LockGuard: Send + Sync {}

/// A file system. Object-safe; the engine holds one `Arc<dyn FileSystem>`.
pub trait FileSystem: Send + Sync {
    /// The absolute path of the present target of `path`, independent of later changes of the
    /// working directory. Links are not followed; the path need not exist.
    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        std::path::absolute(path).map_err(|error| Error::io("make absolute the path of", path, error))
    }
    /// A file system for the one directory that has the name `directory` now. It accepts the paths
    /// `directory` and `directory/name`, and stays with that directory if the name, or a link on
    /// the way to it, later leads to another one. `None`, the default, where a directory can only
    /// be named.
    fn hold(&self, _directory: &Path) -> Result<Option<Arc<dyn FileSystem>>> {
        Ok(None)
    }
    /// Creates a file that must not exist (mode 0600, no symbolic links followed), open for reading
    /// and writing.
    fn create_new(&self, path: &Path) -> Result<Box<dyn File>>;
    /// Opens an existing file.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>>;
    /// Opens an existing file that is used occasionally over a long time. Its descriptor may be
    /// closed between two calls and reopened by name, which must lead to the same file as long as
    /// the handle lives: see [`bounded`].
    fn open_on_demand(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        self.open(path, mode)
    }
    /// The databases that share this machine's descriptors, with the present descriptor limit where
    /// there is one.
    fn file_group(&self) -> Arc<FileGroup> {
        FileGroup::new(usize::MAX)
    }
    /// Whether a file or directory of that name exists.
    fn exists(&self, path: &Path) -> Result<bool>;
    /// The length of a file in bytes.
    fn file_len(&self, path: &Path) -> Result<u64>;
    /// Renames within a directory, replacing the target if there is one.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Renames within a directory. If the target exists, returns an error and changes nothing.
    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        if self.exists(to)? {
            return Err(Error::io("rename", to, std::io::ErrorKind::AlreadyExists.into()));
        }
        self.rename(from, to)
    }
    /// Creates a second name for a file.
    fn hard_link(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> Result<()>;
    /// Creates a directory and its missing parents (mode 0700).
    fn create_dir_all(&self, path: &Path) -> Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> Result<()>;
    /// The names in a directory, in no order.
    fn list(&self, path: &Path) -> Result<Vec<PathBuf>>;
    /// Makes creations, renamings and removals in a directory survive a power loss.
    ///
    /// Errors: [`OutOfResources`](sapwood_base::ErrorKind::OutOfResources) only if no sync was
    /// begun. Any other error is that of a sync, and the changes may be lost.
    fn sync_directory(&self, path: &Path) -> Result<()>;
    /// Acquires the exclusive lock on `path`, creating the file if needed, and on its directory
    /// where that can be locked: so a lock file that is removed or replaced while it is held admits
    /// no second owner. Returns [`sapwood_base::ErrorKind::Locked`] if another process or another
    /// handle of this process holds either lock.
    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>>;
    /// Acquires a shared lock on `path` if such a file can be read, and on its directory where that
    /// can be locked. Changes nothing on disk. `None` if there was nothing to lock. Errors: as
    /// [`FileSystem::lock`], if an exclusive lock is held.
    fn lock_shared(&self, path: &Path) -> Result<Option<Box<dyn LockGuard>>> {
        // Without shared locks only one reader at a time is safe.
        if self.exists(path)? { self.lock(path).map(Some) } else { Ok(None) }
    }
    /// Free space under `path`.
    fn space(&self, path: &Path) -> Result<Space>;
    /// Maps `len` bytes of an existing, fully allocated file for shared writing, with every page
    /// resident, or `None` where this file system has no coherent shared mappings (then the caller
    /// uses `write_at`).
    fn map_shared(&self, path: &Path, len: usize) -> Result<Option<MappedFile>>;
    /// Checks that the process may use `bytes` more of memory and address space, for work that
    /// allocates in many small pieces: if one of those fails, the standard library ends the
    /// process. Other threads and processes may take the memory meanwhile.
    ///
    /// Errors: `OutOfResources`.
    fn check_memory(&self, bytes: usize) -> Result<()> {
        memory::check_room(bytes).map_err(|error| Error::system(&format!("map {bytes} bytes"), error))
    }
}

/// The number of bytes that [`fill_zeros`] writes at a time, unless a file requests fewer.
const ZEROS_PER_WRITE: usize = 1 << 20;

/// Writes zeros from `from` up to `to` and syncs, so that the file's space is really allocated: a
/// later store into a mapping of it cannot meet a full disk. On an error the bytes already written
/// remain.
pub fn fill_zeros(file: &dyn File, from: u64, to: u64) -> Result<()> {
    let longest = to.saturating_sub(from).min(file.zeros_per_write() as u64) as usize;
    let zeros = vec![0u8; longest];
    let mut offset = from;
    while offset < to {
        let len = (to - offset).min(longest as u64);
        file.write_at(offset, &zeros[..len as usize])?;
        offset += len;
    }
    file.sync_all()
}
