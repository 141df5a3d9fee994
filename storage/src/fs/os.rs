//! The operating system's file system.
//!
//! Files are created with mode 0600 and directories with 0700; a symbolic link in the place of a
//! file is refused. Calls that a signal interrupts are retried, except those on names (renaming,
//! linking, removal): local file systems do not interrupt them, and where one can be interrupted, a
//! retry could find the effect of the first attempt. Features of only some systems (folder syncs,
//! `flock`, shared mappings that never allocate) have a plain fallback.
#![allow(
    clippy::disallowed_methods,
    reason = "this module is what the disallowed methods are reached through"
)]
use super::group::FileGroup;
use super::{File, FileSystem, LockGuard, OpenMode, Space};
use crate::mapped::MappedFile;
use sapwood_base::{Error, Result};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

#[cfg(unix)]
mod held;
mod lock;

/// The file system of the machine. Stateless.
#[derive(Clone, Debug, Default)]
pub struct OsFileSystem(());

impl OsFileSystem {
    /// Returns the file system of the machine.
    pub fn new() -> OsFileSystem {
        OsFileSystem(())
    }
}

impl FileSystem for OsFileSystem {
    #[cfg(unix)]
    fn hold(&self, directory: &Path) -> Result<Option<Arc<dyn FileSystem>>> {
        Ok(Some(Arc::new(held::HeldDirectory::open(directory)?)))
    }

    fn create_new(&self, path: &Path) -> Result<Box<dyn File>> {
        let file = open(path, Access::CreateNew).map_err(|error| Error::io("create", path, error))?;
        Ok(Box::new(OsFile { file, path: path.to_path_buf() }))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        let file = open(path, mode.into()).map_err(|error| Error::io("open", path, error))?;
        Ok(Box::new(OsFile { file, path: path.to_path_buf() }))
    }

    fn file_group(&self) -> Arc<FileGroup> {
        static GROUP: OnceLock<Arc<FileGroup>> = OnceLock::new();
        let group = GROUP.get_or_init(|| FileGroup::new(usize::MAX));
        // Read each time: a process may change its limit.
        group.set_most(files_for_us(descriptor_limit()));
        Arc::clone(group)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        // A dangling symbolic link counts as existing: a file of that name cannot be created.
        match std::fs::symlink_metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("look up", path, error)),
        }
    }

    fn file_len(&self, path: &Path) -> Result<u64> {
        let metadata = std::fs::metadata(path).map_err(|error| Error::io("look up", path, error))?;
        Ok(metadata.len())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to).map_err(|error| Error::io("rename", from, error))
    }

    #[cfg(target_os = "linux")]
    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        rename_new_at(rustix::fs::CWD, from, to).map_err(|error| Error::io("rename", from, error.into()))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::hard_link(from, to).map_err(|error| Error::io("link", to, error))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        std::fs::remove_file(path).map_err(|error| Error::io("remove", path, error))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(|error| Error::io("create directory", path, error))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        std::fs::remove_dir(path).map_err(|error| Error::io("remove directory", path, error))
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let failed = |error| Error::io("list", path, error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(path).map_err(failed)? {
            names.push(PathBuf::from(entry.map_err(failed)?.file_name()));
        }
        Ok(names)
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        // Windows has no handle of a directory that can be flushed; its file systems log such
        // changes themselves.
        #[cfg(unix)]
        {
            // The parent of a relative name is the empty path, which means the current directory.
            let opened = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            let directory =
                open(opened, Access::Directory).map_err(|error| Error::io("open directory", path, error))?;
            sync_directory(&directory, path)?;
        }
        #[cfg(not(unix))]
        let _ = path;
        Ok(())
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        lock::exclusive(path)
    }

    fn lock_shared(&self, path: &Path) -> Result<Option<Box<dyn LockGuard>>> {
        lock::shared(path)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        #[cfg(unix)]
        {
            let space = rustix::io::retry_on_intr(|| rustix::fs::statvfs(path))
                .map_err(|error| Error::io("ask for the space of", path, error.into()))?;
            Ok(space_of(&space))
        }
        #[cfg(not(unix))]
        {
            // Unknown: a full disk appears as an error of the write.
            let _ = path;
            Ok(Space { available: u64::MAX, total: u64::MAX })
        }
    }

    fn map_shared(&self, path: &Path, len: usize) -> Result<Option<MappedFile>> {
        let file = open(path, Access::ReadWrite).map_err(|error| Error::io("open", path, error))?;
        map(&file, path, len)
    }
}

/// Renames within `directory`, unless the target exists.
#[cfg(target_os = "linux")]
fn rename_new_at(
    directory: impl std::os::fd::AsFd,
    from: impl AsRef<Path>,
    to: impl AsRef<Path>,
) -> rustix::io::Result<()> {
    use rustix::fs::{AtFlags, RenameFlags};
    use rustix::io::Errno;
    let (directory, from, to) = (directory.as_fd(), from.as_ref(), to.as_ref());
    match rustix::fs::renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
        // Not supported by this file system, kernel or sandbox: fall back to a check before the
        // rename.
        Err(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::OPNOTSUPP) => {
            match rustix::fs::statat(directory, to, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(_) => Err(Errno::EXIST),
                Err(Errno::NOENT) => rustix::fs::renameat(directory, from, directory, to),
                Err(error) => Err(error),
            }
        }
        renamed => renamed,
    }
}

/// Whether an error of opening or reading means that the name stands for no plain file: there is
/// none, or it is a directory, a symbolic link, a pipe or a device.
pub fn is_no_file(error: &Error) -> bool {
    error.io_error().is_some_and(|source| {
        use std::io::ErrorKind::{IsADirectory, NotFound, NotSeekable};
        matches!(source.kind(), IsADirectory | NotFound | NotSeekable) || means_no_file(source)
    })
}

/// Whether the error means "not a plain file" by a code that the standard library has no name for.
#[cfg(unix)]
fn means_no_file(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::LOOP, Errno::NXIO, Errno::NODEV]
        .iter()
        .any(|code| Some(code.raw_os_error()) == error.raw_os_error())
}

#[cfg(not(unix))]
fn means_no_file(_error: &io::Error) -> bool {
    false
}

#[cfg(unix)]
fn space_of(space: &rustix::fs::StatVfs) -> Space {
    Space {
        available: space.f_bavail.saturating_mul(space.f_frsize),
        total: space.f_blocks.saturating_mul(space.f_frsize),
    }
}

/// Syncs the names in a directory. A file system without such a call stores names in another way,
/// or not at all.
#[cfg(unix)]
fn sync_directory(directory: &std::fs::File, path: &Path) -> Result<()> {
    use rustix::io::Errno;
    let says = |error: &io::Error, codes: &[Errno]| {
        codes.iter().any(|code| Some(code.raw_os_error()) == error.raw_os_error())
    };
    // Not `fsync`: on Apple's systems that leaves the names in the drive's cache.
    match directory.sync_all() {
        Ok(()) => Ok(()),
        Err(error) if says(&error, &[Errno::INVAL, Errno::OPNOTSUPP, Errno::NOTSUP]) => Ok(()),
        // A failed sync is never a transient shortage, whatever its cause.
        Err(error) => {
            Err(Error::new(sapwood_base::ErrorKind::Io, format!("cannot sync directory: {error}"))
                .in_file(path))
        }
    }
}

/// Checks that a file of `file_len` bytes covers the mapping. The caller has ensured this: a
/// shorter file was truncated.
pub(crate) fn check_mappable(path: &Path, file_len: u64, len: usize) -> Result<()> {
    match len {
        0 => Err(Error::invalid_argument("cannot map nothing").in_file(path)),
        _ if file_len >= len as u64 => Ok(()),
        _ => {
            let message = format!("the file has {file_len} of the {len} bytes that are to be mapped");
            Err(Error::corruption(path, file_len, message))
        }
    }
}

/// Maps an open file; `path` is for messages.
fn map(file: &std::fs::File, path: &Path, len: usize) -> Result<Option<MappedFile>> {
    let metadata = file.metadata().map_err(|error| Error::io("look up", path, error))?;
    check_mappable(path, metadata.len(), len)?;
    if !overwrites_in_place(file, &metadata, len) {
        return Ok(None);
    }
    MappedFile::new(file, path, len).map(Some)
}

/// Whether a store into a shared mapping of the first `len` bytes needs no new space on disk, ever.
#[cfg(target_os = "linux")]
fn overwrites_in_place(file: &std::fs::File, metadata: &std::fs::Metadata, len: usize) -> bool {
    use std::os::unix::fs::MetadataExt;
    metadata.blocks().saturating_mul(512) >= len as u64 && is_overwritten_in_place(file)
}

/// Whether blocks of the file stay allocated once they are written.
///
/// A copy-on-write file system allocates again when a written-back page is stored to once more, and
/// reports a full disk by a signal that kills the process. So only file systems known to overwrite
/// in place count.
#[cfg(target_os = "linux")]
fn is_overwritten_in_place(file: &std::fs::File) -> bool {
    const EXT4: u64 = 0xEF53;
    const XFS: u64 = 0x5846_5342;
    const TMPFS: u64 = 0x0102_1994;
    // Containers. Writes go to the upper layer, in practice one of the three above.
    const OVERLAY: u64 = 0x794C_7630;
    rustix::fs::fstatfs(file).is_ok_and(|stat| {
        // The kernel's magic numbers have 32 bits; the field is signed and as wide as a pointer on
        // some machines.
        [EXT4, XFS, TMPFS, OVERLAY].contains(&(stat.f_type as u64 & 0xFFFF_FFFF))
    })
}

#[cfg(not(target_os = "linux"))]
fn overwrites_in_place(_file: &std::fs::File, _metadata: &std::fs::Metadata, _len: usize) -> bool {
    false
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    ReadWrite,
    CreateNew,
    /// Created if missing, never truncated.
    Lock,
    /// A directory, to hold, lock or sync.
    #[cfg_attr(not(unix), allow(dead_code, reason = "only Unix can open a directory"))]
    Directory,
}

impl From<OpenMode> for Access {
    fn from(mode: OpenMode) -> Access {
        match mode {
            OpenMode::Read => Access::Read,
            OpenMode::ReadWrite => Access::ReadWrite,
        }
    }
}

#[cfg(unix)]
fn open(path: &Path, access: Access) -> io::Result<std::fs::File> {
    open_at(rustix::fs::CWD, path, access)
}

/// Opens `path`, which is relative to `directory`.
#[cfg(unix)]
fn open_at(
    directory: impl std::os::fd::AsFd,
    path: impl AsRef<Path>,
    access: Access,
) -> io::Result<std::fs::File> {
    use rustix::fs::{Mode, OFlags};
    let (directory, path) = (directory.as_fd(), path.as_ref());
    let flags = OFlags::CLOEXEC
        | match access {
            // A pipe in the place of a file is detected by its content, and must not block its
            // reader.
            Access::Read => OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK,
            Access::ReadWrite => OFlags::RDWR | OFlags::NOFOLLOW,
            Access::CreateNew => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW,
            Access::Lock => OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW,
            // The database's directory itself may be a symbolic link: the user chose it.
            Access::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
        };
    loop {
        match rustix::fs::openat(directory, path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(descriptor) => return Ok(descriptor.into()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(not(unix))]
fn open(path: &Path, access: Access) -> io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(matches!(access, Access::ReadWrite | Access::CreateNew | Access::Lock));
    options.create_new(access == Access::CreateNew).create(access == Access::Lock).truncate(false);
    options.open(path)
}

struct OsFile {
    file: std::fs::File,
    path: PathBuf,
}

impl OsFile {
    #[cold]
    fn failed(&self, action: &str, offset: u64, error: io::Error) -> Error {
        Error::io(action, &self.path, error).at(&self.path, offset)
    }
}

impl File for OsFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let position = offset + done as u64;
            match read_some(&self.file, position, &mut buffer[done..]) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read", position, error)),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let position = offset + done as u64;
            match write_some(&self.file, position, &bytes[done..]) {
                Ok(0) => return Err(self.failed("write", position, io::ErrorKind::WriteZero.into())),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("write", position, error)),
            }
        }
        Ok(())
    }

    /// A page. Linux keeps the bytes of one write call to ext4 or XFS in one folio, and marks the
    /// whole folio dirty when a byte of a mapping changes: in a file filled by the MiB each sync
    /// wrote a MiB (measured on Linux 6.18). By pages, filling takes 36 ms for 32 MiB instead of
    /// 14.
    fn zeros_per_write(&self) -> usize {
        4096
    }

    /// Allocated but unwritten blocks read as zeros. To write one, ext4 and XFS change its mark and
    /// reserve room for that; a store into a mapping needs nothing else. Files in memory have no
    /// such marks.
    #[cfg(target_os = "linux")]
    fn allocate(&self, len: u64) -> Result<bool> {
        use rustix::io::Errno;
        if !is_overwritten_in_place(&self.file) {
            return Ok(false);
        }
        let allocate = || rustix::fs::fallocate(&self.file, rustix::fs::FallocateFlags::empty(), 0, len);
        match rustix::io::retry_on_intr(allocate) {
            Ok(()) => Ok(true),
            // Ext4 without extents, layers that do not pass it on, and sandboxes that refuse the
            // call.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::ACCESS) => Ok(false),
            Err(error) => Err(self.failed("allocate", 0, error.into())),
        }
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }

    fn sync_all(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| Error::io("sync", &self.path, error))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len).map_err(|error| Error::io("set the length of", &self.path, error))
    }

    fn len(&self) -> Result<u64> {
        let metadata = self.file.metadata().map_err(|error| Error::io("look up", &self.path, error))?;
        Ok(metadata.len())
    }

    fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(unix)]
    fn identity(&self) -> Result<Option<super::FileIdentity>> {
        use std::os::unix::fs::MetadataExt;
        let metadata = self.file.metadata().map_err(|error| Error::io("look up", &self.path, error))?;
        Ok(Some(super::FileIdentity { device: metadata.dev(), inode: metadata.ino() }))
    }

    #[cfg(target_os = "linux")]
    fn prefetch(&self, offset: u64, len: u64) {
        // For the system a length of zero means the rest of the file.
        if let Some(len) = std::num::NonZeroU64::new(len) {
            let _ = rustix::fs::fadvise(&self.file, offset, Some(len), rustix::fs::Advice::WillNeed);
        }
    }
}

#[cfg(unix)]
fn read_some(file: &std::fs::File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(unix)]
fn write_some(file: &std::fs::File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_some(file: &std::fs::File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

#[cfg(windows)]
fn write_some(file: &std::fs::File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, offset)
}

/// Maximum of requested descriptors: more than any number of tables needs.
#[cfg(unix)]
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// Returns the descriptor limit of this process. The soft limit protects programs that are unaware
/// of it, so it is raised to the hard one.
#[cfg(unix)]
fn descriptor_limit() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(MOST_DESCRIPTORS);
    let hard = limit.maximum.unwrap_or(MOST_DESCRIPTORS).min(MOST_DESCRIPTORS);
    // macOS reports no hard limit and refuses more than this.
    for wanted in [hard, hard.min(10_240)] {
        let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
        if wanted > soft && setrlimit(Resource::Nofile, raised).is_ok() {
            return wanted as usize;
        }
    }
    soft.min(MOST_DESCRIPTORS) as usize
}

#[cfg(not(unix))]
fn descriptor_limit() -> usize {
    // Windows has no such limit that a program reaches before it runs out of memory.
    16_384
}

/// How many of `descriptors` may be files on demand. The rest is for the application, and for files
/// being written.
fn files_for_us(descriptors: usize) -> usize {
    const MOST: usize = 1 << 16;
    let others = (descriptors / 2).clamp(24, 1024);
    descriptors.saturating_sub(others).clamp(4, MOST)
}

#[cfg(test)]
mod tests {
    #![allow(unsafe_code)]
    use super::*;
    use crate::fs::fill_zeros;
    use sapwood_base::ErrorKind;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn files_are_written_read_cut_and_renamed() {
        let folder = folder();
        let fs = OsFileSystem::new();
        let path = folder.path().join("a");
        let file = fs.create_new(&path).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_at(3, b"hello").unwrap();
        assert_eq!(file.len().unwrap(), 8);
        let mut buffer = [9u8; 16];
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 8);
        assert_eq!(&buffer[..8], b"\0\0\0hello");
        file.set_len(4).unwrap();
        let error = file.read_exact_at(0, &mut buffer).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (ErrorKind::Corruption, Some(4)));
        file.sync_data().unwrap();
        file.sync_all().unwrap();
        file.prefetch(0, 4);
        let other = folder.path().join("b");
        fs.rename(&path, &other).unwrap();
        fs.sync_directory(folder.path()).unwrap();
        assert!(!fs.exists(&path).unwrap());
        assert!(fs.exists(&other).unwrap());
        assert_eq!(fs.file_len(&other).unwrap(), 4);
        assert_eq!(fs.list(folder.path()).unwrap(), [PathBuf::from("b")]);
        fs.hard_link(&other, &path).unwrap();
        fs.remove_file(&other).unwrap();
        assert_eq!(fs.open(&path, OpenMode::Read).unwrap().len().unwrap(), 4);
        assert!(fs.space(folder.path()).unwrap().total > 0);
    }

    #[test]
    fn directories_are_made_and_removed() {
        let folder = folder();
        let fs = OsFileSystem::new();
        let deep = folder.path().join("x/y/z");
        fs.create_dir_all(&deep).unwrap();
        fs.create_dir_all(&deep).unwrap();
        fs.remove_dir(&deep).unwrap();
        assert!(!fs.exists(&deep).unwrap());
    }

    #[test]
    fn an_existing_file_is_not_created_and_a_missing_one_not_opened() {
        let folder = folder();
        let fs = OsFileSystem::new();
        let path = folder.path().join("a");
        assert!(fs.open(&path, OpenMode::ReadWrite).is_err());
        drop(fs.create_new(&path).unwrap());
        let error = fs.create_new(&path).err().unwrap();
        assert_eq!(error.file(), Some(path.as_path()));
    }

    #[cfg(unix)]
    #[test]
    fn files_are_private_and_symbolic_links_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = folder();
        let fs = OsFileSystem::new();
        let path = folder.path().join("a");
        drop(fs.create_new(&path).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(fs.open(&link, OpenMode::Read).is_err());
        assert!(fs.lock(&link).is_err());
    }

    #[test]
    fn a_lock_keeps_a_second_handle_out_until_it_is_dropped() {
        let folder = folder();
        let fs = OsFileSystem::new();
        let path = folder.path().join("LOCK");
        let lock = fs.lock(&path).unwrap();
        assert_eq!(fs.lock(&path).err().unwrap().kind(), ErrorKind::Locked);
        drop(lock);
        drop(fs.lock(&path).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_is_given_back_while_a_copy_of_its_handle_lives() {
        let folder = folder();
        let fs = OsFileSystem::new();
        let path = folder.path().join("LOCK");
        let lock = fs.lock(&path).unwrap();
        // The descriptors of a starting process, before it runs its program.
        let handles: Vec<_> = std::fs::read_dir("/proc/self/fd").map_or(Vec::new(), |entries| {
            entries.map(|entry| entry.unwrap().path()).filter(|path| is_in(path, folder.path())).collect()
        });
        // SAFETY: the descriptor is open as long as `lock` is not dropped.
        let borrow = |path: &PathBuf| unsafe {
            let number = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
            std::os::fd::BorrowedFd::borrow_raw(number)
        };
        let copies: Vec<_> = handles.iter().map(|path| borrow(path).try_clone_to_owned().unwrap()).collect();
        drop(lock);
        drop(fs.lock(&path).unwrap());
        drop(copies);
    }

    /// Whether a descriptor's link points into `folder`.
    #[cfg(unix)]
    fn is_in(link: &Path, folder: &Path) -> bool {
        std::fs::read_link(link).is_ok_and(|target| target.starts_with(folder))
    }

    #[cfg(unix)]
    #[test]
    fn a_lock_whose_file_is_removed_or_replaced_still_keeps_others_out() {
        let folder = folder();
        let fs = OsFileSystem::new();
        let path = folder.path().join("LOCK");
        let lock = fs.lock(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(fs.lock(&path).err().unwrap().kind(), ErrorKind::Locked);
        std::fs::write(&path, "").unwrap();
        assert_eq!(fs.lock(&path).err().unwrap().kind(), ErrorKind::Locked);
        assert_eq!(fs.lock_shared(&path).err().unwrap().kind(), ErrorKind::Locked);
        drop(lock);
        drop(fs.lock(&path).unwrap());
    }

    #[test]
    fn readers_share_a_lock_and_make_no_file() {
        let folder = folder();
        let fs = OsFileSystem::new();
        let path = folder.path().join("LOCK");
        let reader = fs.lock_shared(&path).unwrap();
        assert!(!path.exists());
        drop(reader);
        drop(fs.lock(&path).unwrap());
        let readers = [fs.lock_shared(&path).unwrap(), fs.lock_shared(&path).unwrap()];
        assert_eq!(fs.lock(&path).err().unwrap().kind(), ErrorKind::Locked);
        let [first, second] = readers;
        drop(first);
        assert_eq!(fs.lock(&path).err().unwrap().kind(), ErrorKind::Locked);
        drop(second);
        let writer = fs.lock(&path).unwrap();
        assert_eq!(fs.lock_shared(&path).err().unwrap().kind(), ErrorKind::Locked);
        drop(writer);
    }

    #[cfg(unix)]
    #[test]
    fn a_held_directory_stays_itself_under_another_name() {
        let folder = folder();
        let fs = OsFileSystem::new();
        let (path, away) = (folder.path().join("data"), folder.path().join("away"));
        fs.create_dir_all(&path).unwrap();
        let held = fs.hold(&path).unwrap().unwrap();
        held.create_new(&path.join("a")).unwrap().write_at(0, b"first").unwrap();
        std::fs::rename(&path, &away).unwrap();
        fs.create_dir_all(&path).unwrap();
        std::fs::write(path.join("a"), "strange").unwrap();

        assert_eq!(held.file_len(&path.join("a")).unwrap(), 5);
        held.create_new(&path.join("b")).unwrap().write_at(0, b"second").unwrap();
        held.rename(&path.join("b"), &path.join("c")).unwrap();
        held.hard_link(&path.join("c"), &path.join("d")).unwrap();
        held.remove_file(&path.join("a")).unwrap();
        held.sync_directory(&path).unwrap();
        assert!(held.space(&path).unwrap().total > 0);
        assert!(!held.exists(&path.join("a")).unwrap() && held.exists(&path.join("c")).unwrap());
        let mut names = held.list(&path).unwrap();
        names.sort();
        assert_eq!(names, [PathBuf::from("c"), PathBuf::from("d")]);
        assert_eq!(fs.list(&path).unwrap(), [PathBuf::from("a")]);
        assert_eq!(std::fs::read(away.join("c")).unwrap(), b"second");
        // A lock is one on the held directory, by any name.
        let lock = held.lock(&path.join("LOCK")).unwrap();
        assert_eq!(fs.lock(&away.join("LOCK")).err().unwrap().kind(), ErrorKind::Locked);
        drop(fs.lock(&path.join("LOCK")).unwrap());
        drop(lock);
        // The name refers to another directory, which is left alone.
        std::fs::remove_file(path.join("a")).unwrap();
        std::fs::remove_file(path.join("LOCK")).unwrap();
        assert!(held.remove_dir(&path).is_err());
        assert!(path.exists());
        // Paths outside cannot be reached at all.
        for outside in [folder.path(), &away, &away.join("c"), &path.join("../away/c"), Path::new("c")] {
            let error = held.open(outside, OpenMode::Read).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
        std::fs::remove_dir_all(&away).unwrap();
        let error = held.create_new(&path.join("e")).err().unwrap();
        assert!(error.to_string().contains("directory was removed"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_in_the_place_of_a_file_does_not_keep_its_reader_waiting() {
        let folder = folder();
        let path = folder.path().join("pipe");
        if !std::process::Command::new("mkfifo").arg(&path).status().is_ok_and(|status| status.success()) {
            return;
        }
        let file = OsFileSystem::new().open(&path, OpenMode::Read).unwrap();
        assert!(file.read_exact_at(0, &mut [0; 8]).is_err());
    }

    #[test]
    fn a_mapping_and_the_file_are_the_same_bytes() {
        let folder = folder();
        let fs = OsFileSystem::new();
        let path = folder.path().join("a");
        let file = fs.create_new(&path).unwrap();
        fill_zeros(&*file, 0, (1 << 20) + 4096).unwrap();
        assert_eq!(file.len().unwrap(), (1 << 20) + 4096);
        // The folder for temporary files may be on a copy-on-write file system.
        let Some(map) = fs.map_shared(&path, 1 << 20).unwrap() else { return };
        assert_eq!(map.len(), 1 << 20);
        // SAFETY: this thread is the only one that has the mapping, and no slice is alive during
        // the stores.
        unsafe {
            map.write(5000, b"stored");
        }
        map.sync_range(5000, 6).unwrap();
        let mut buffer = [0u8; 8];
        file.read_exact_at(4999, &mut buffer).unwrap();
        assert_eq!(&buffer, b"\0stored\0");
        // A store that is not synced is visible to reads as well.
        // SAFETY: as above.
        unsafe { map.write(0, b"x") };
        file.read_exact_at(0, &mut buffer).unwrap();
        assert_eq!(&buffer[..1], b"x");
        assert_eq!(fs.map_shared(&path, 2 << 20).unwrap_err().kind(), ErrorKind::Corruption);
    }

    #[test]
    fn allocated_room_reads_as_zeros_and_can_be_mapped() {
        let folder = folder();
        let fs = OsFileSystem::new();
        let path = folder.path().join("a");
        let file = fs.create_new(&path).unwrap();
        // The folder for temporary files may be on a copy-on-write file system.
        if !file.allocate(1 << 20).unwrap() {
            assert_eq!(file.len().unwrap(), 0);
            return;
        }
        assert_eq!(file.len().unwrap(), 1 << 20);
        let map = fs.map_shared(&path, 1 << 20).unwrap().expect("allocated, so it can be mapped");
        // SAFETY: this thread is the only one that has the mapping, and no slice is alive during
        // the store.
        unsafe { map.write(5000, b"stored") };
        map.sync_range(5000, 6).unwrap();
        let mut bytes = vec![9u8; 1 << 20];
        file.read_exact_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes[5000..5006], b"stored");
        bytes[5000..5006].fill(0);
        assert!(bytes.iter().all(|byte| *byte == 0));
        // A second time nothing changes.
        assert!(file.allocate(1 << 20).unwrap());
        file.read_exact_at(5000, &mut bytes[..6]).unwrap();
        assert_eq!(&bytes[..6], b"stored");
        drop(map);
    }

    #[test]
    #[should_panic(expected = "outside a mapping")]
    fn a_store_beyond_the_mapping_panics() {
        let folder = folder();
        let fs = OsFileSystem::new();
        let path = folder.path().join("a");
        let file = fs.create_new(&path).unwrap();
        fill_zeros(&*file, 0, 4096).unwrap();
        let Some(map) = fs.map_shared(&path, 4096).unwrap() else { panic!("outside a mapping (none here)") };
        // SAFETY: this thread is the only one that has the mapping.
        unsafe { map.write(4090, b"too long") };
    }
}
