//! One directory, held by a handle: every call is relative to the handle and not to the directory's
//! name.
//!
//! So the files stay those of the opened directory, even if the working directory changes, the
//! directory is renamed or replaced, or a link on its path is redirected. The path serves messages,
//! and the removal of the directory itself, which only its name can do.
use super::{Access, OsFile, OsFileSystem, lock, map, open, open_at, space_of, sync_directory};
use crate::fs::group::FileGroup;
use crate::fs::{File, FileSystem, LockGuard, MappedFile, OpenMode, Space};
use rustix::fs::{AtFlags, Dir, Stat};
use rustix::io::{Errno, retry_on_intr};
use sapwood_base::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// See the module.
pub(super) struct HeldDirectory {
    handle: std::fs::File,
    /// The path at opening.
    path: PathBuf,
}

/// The target of a path.
enum Place<'p> {
    Itself,
    Entry(&'p OsStr),
}

impl HeldDirectory {
    pub(super) fn open(path: &Path) -> Result<HeldDirectory> {
        let handle =
            open(path, Access::Directory).map_err(|error| Error::io("open directory", path, error))?;
        Ok(HeldDirectory { handle, path: path.to_path_buf() })
    }

    fn place<'p>(&self, path: &'p Path) -> Result<Place<'p>> {
        if path == self.path {
            return Ok(Place::Itself);
        }
        match path.file_name().filter(|_| path.parent() == Some(&self.path)) {
            Some(name) => Ok(Place::Entry(name)),
            None => {
                let message = format!("the path does not lie in the directory {}", self.path.display());
                Err(Error::invalid_argument(message).in_file(path))
            }
        }
    }

    fn entry<'p>(&self, path: &'p Path) -> Result<&'p OsStr> {
        match self.place(path)? {
            Place::Entry(name) => Ok(name),
            Place::Itself => {
                Err(Error::invalid_argument("a file is expected, not the directory").in_file(path))
            }
        }
    }

    fn open_entry(&self, action: &str, path: &Path, access: Access) -> Result<std::fs::File> {
        open_at(&self.handle, self.entry(path)?, access).map_err(|error| self.failed(action, path, error))
    }

    /// The error of a call on a name. A name is missing also if the directory itself is gone.
    #[cold]
    fn failed(&self, action: &str, path: &Path, error: impl Into<io::Error>) -> Error {
        let error = error.into();
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        let error = Error::io(action, path, error);
        match is_missing && self.is_removed() {
            true => error.context("the directory was removed while it was in use"),
            false => error,
        }
    }

    fn is_removed(&self) -> bool {
        rustix::fs::fstat(&self.handle).is_ok_and(|stat| stat.st_nlink == 0)
    }

    fn look_up(&self, path: &Path, flags: AtFlags) -> Result<Option<Stat>> {
        let found = match self.place(path)? {
            Place::Itself => retry_on_intr(|| rustix::fs::fstat(&self.handle)),
            Place::Entry(name) => retry_on_intr(|| rustix::fs::statat(&self.handle, name, flags)),
        };
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io("look up", path, error.into())),
        }
    }
}

impl FileSystem for HeldDirectory {
    fn create_new(&self, path: &Path) -> Result<Box<dyn File>> {
        let file = self.open_entry("create", path, Access::CreateNew)?;
        Ok(Box::new(OsFile { file, path: path.to_path_buf() }))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        let file = self.open_entry("open", path, mode.into())?;
        Ok(Box::new(OsFile { file, path: path.to_path_buf() }))
    }

    fn file_group(&self) -> Arc<FileGroup> {
        OsFileSystem::new().file_group()
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.look_up(path, AtFlags::SYMLINK_NOFOLLOW)?.is_some())
    }

    fn file_len(&self, path: &Path) -> Result<u64> {
        match self.look_up(path, AtFlags::empty())? {
            Some(stat) => Ok(stat.st_size as u64),
            None => Err(self.failed("look up", path, Errno::NOENT)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (old, new) = (self.entry(from)?, self.entry(to)?);
        rustix::fs::renameat(&self.handle, old, &self.handle, new)
            .map_err(|error| self.failed("rename", from, error))
    }

    #[cfg(target_os = "linux")]
    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        let (old, new) = (self.entry(from)?, self.entry(to)?);
        super::rename_new_at(&self.handle, old, new).map_err(|error| self.failed("rename", from, error))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        let (old, new) = (self.entry(from)?, self.entry(to)?);
        rustix::fs::linkat(&self.handle, old, &self.handle, new, AtFlags::empty())
            .map_err(|error| self.failed("link", to, error))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        rustix::fs::unlinkat(&self.handle, self.entry(path)?, AtFlags::empty())
            .map_err(|error| self.failed("remove", path, error))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        match self.place(path)? {
            Place::Itself => Ok(()),
            Place::Entry(name) => match rustix::fs::mkdirat(&self.handle, name, rustix::fs::Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(self.failed("create directory", path, error)),
            },
        }
    }

    /// For the directory itself, removes the name that it was opened under, if that still refers to
    /// it.
    fn remove_dir(&self, path: &Path) -> Result<()> {
        let removed = match self.place(path)? {
            Place::Entry(name) => rustix::fs::unlinkat(&self.handle, name, AtFlags::REMOVEDIR),
            Place::Itself => {
                let named = retry_on_intr(|| rustix::fs::stat(path));
                let held = retry_on_intr(|| rustix::fs::fstat(&self.handle));
                let is_same = |named: Stat| {
                    held.is_ok_and(|held| (held.st_dev, held.st_ino) == (named.st_dev, named.st_ino))
                };
                match named {
                    Ok(named) if !is_same(named) => {
                        let message = "the name means another directory by now, which is left alone";
                        return Err(Error::invalid_argument(message).in_file(path));
                    }
                    Ok(_) => rustix::fs::rmdir(path),
                    Err(error) => Err(error),
                }
            }
        };
        removed.map_err(|error| Error::io("remove directory", path, error.into()))
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let failed = |error| self.failed("list", path, error);
        let directory = match self.place(path)? {
            Place::Itself => Dir::read_from(&self.handle).map_err(failed)?,
            Place::Entry(name) => {
                let opened = open_at(&self.handle, name, Access::Directory)
                    .map_err(|error| self.failed("list", path, error))?;
                Dir::new(opened).map_err(failed)?
            }
        };
        let mut names = Vec::new();
        for entry in directory {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(PathBuf::from(OsString::from_vec(name)));
            }
        }
        Ok(names)
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        match self.place(path)? {
            Place::Itself => sync_directory(&self.handle, path),
            Place::Entry(_) => {
                sync_directory(&self.open_entry("open directory", path, Access::Directory)?, path)
            }
        }
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        lock::exclusive_in(&self.handle, self.entry(path)?, path)
    }

    fn lock_shared(&self, path: &Path) -> Result<Option<Box<dyn LockGuard>>> {
        lock::shared_in(&self.handle, self.entry(path)?, path)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        let space = retry_on_intr(|| rustix::fs::fstatvfs(&self.handle))
            .map_err(|error| self.failed("ask for the space of", path, error))?;
        Ok(space_of(&space))
    }

    fn map_shared(&self, path: &Path, len: usize) -> Result<Option<MappedFile>> {
        map(&self.open_entry("open", path, Access::ReadWrite)?, path, len)
    }
}
