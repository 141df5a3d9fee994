//! Read-only files and directories in memory, as fast as a slice. A simulated machine would be too
//! slow here.
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_storage::fs::{File, FileSystem, LockGuard, MappedFile, OpenMode, Space};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

fn refused() -> Error {
    Error::new(ErrorKind::ReadOnly, "files in memory are for reading")
}

/// A file with a hole: `head` at its beginning, `body` from `body_offset` on, zeros between them.
#[derive(Clone)]
pub struct MemoryFile {
    head: Arc<[u8]>,
    body: Arc<[u8]>,
    body_offset: usize,
    path: Arc<Path>,
}

impl MemoryFile {
    /// A file without a hole.
    pub fn new(path: impl AsRef<Path>, bytes: &[u8]) -> MemoryFile {
        MemoryFile { head: [].into(), body: bytes.into(), body_offset: 0, path: path.as_ref().into() }
    }

    /// A file with a hole.
    pub fn with_hole(path: impl AsRef<Path>, head: &[u8], body_offset: usize, body: &[u8]) -> MemoryFile {
        MemoryFile { head: head.into(), body: body.into(), body_offset, path: path.as_ref().into() }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        match self.body.len() {
            0 => self.head.len(),
            len => self.body_offset + len,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Copies the overlap of `piece`, at `at` of the file, and `buffer`, at `offset` of the file.
fn overlay(piece: &[u8], at: usize, offset: usize, buffer: &mut [u8]) {
    let (from, to) = (at.max(offset), (at + piece.len()).min(offset + buffer.len()));
    if from < to {
        buffer[from - offset..to - offset].copy_from_slice(&piece[from - at..to - at]);
    }
}

impl File for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX).min(self.len());
        let len = buffer.len().min(self.len() - offset);
        let buffer = &mut buffer[..len];
        if offset >= self.body_offset {
            buffer.copy_from_slice(&self.body[offset - self.body_offset..][..len]);
            return Ok(len);
        }
        buffer.fill(0);
        overlay(&self.head, 0, offset, buffer);
        overlay(&self.body, self.body_offset, offset, buffer);
        Ok(len)
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> Result<()> {
        Err(refused())
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> Result<()> {
        Ok(())
    }

    fn set_len(&self, _len: u64) -> Result<()> {
        Err(refused())
    }

    fn len(&self) -> Result<u64> {
        Ok(MemoryFile::len(self) as u64)
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// A directory of such files. Clones share it.
#[derive(Clone, Default)]
pub struct MemoryDirectory {
    files: Arc<Mutex<Vec<MemoryFile>>>,
}

impl MemoryDirectory {
    /// Replaces all files.
    pub fn set(&self, files: Vec<MemoryFile>) {
        *self.files.lock().expect("not poisoned") = files;
    }

    fn find(&self, path: &Path) -> Result<MemoryFile> {
        let files = self.files.lock().expect("not poisoned");
        let found = files.iter().find(|file| &*file.path == path).cloned();
        found.ok_or_else(|| Error::io("open", path, std::io::ErrorKind::NotFound.into()))
    }
}

impl FileSystem for MemoryDirectory {
    fn create_new(&self, _path: &Path) -> Result<Box<dyn File>> {
        Err(refused())
    }

    fn open(&self, path: &Path, _mode: OpenMode) -> Result<Box<dyn File>> {
        Ok(Box::new(self.find(path)?))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.find(path).is_ok())
    }

    fn file_len(&self, path: &Path) -> Result<u64> {
        Ok(self.find(path)?.len() as u64)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> Result<()> {
        Err(refused())
    }

    fn hard_link(&self, _from: &Path, _to: &Path) -> Result<()> {
        Err(refused())
    }

    fn remove_file(&self, _path: &Path) -> Result<()> {
        Err(refused())
    }

    fn create_dir_all(&self, _path: &Path) -> Result<()> {
        Err(refused())
    }

    fn remove_dir(&self, _path: &Path) -> Result<()> {
        Err(refused())
    }

    fn list(&self, _path: &Path) -> Result<Vec<PathBuf>> {
        Ok(self.files.lock().expect("not poisoned").iter().map(|file| file.path.to_path_buf()).collect())
    }

    fn sync_directory(&self, _path: &Path) -> Result<()> {
        Ok(())
    }

    fn lock(&self, _path: &Path) -> Result<Box<dyn LockGuard>> {
        Err(refused())
    }

    fn space(&self, _path: &Path) -> Result<Space> {
        Ok(Space { available: 0, total: 0 })
    }

    fn map_shared(&self, _path: &Path, _len: usize) -> Result<Option<MappedFile>> {
        Ok(None)
    }
}
