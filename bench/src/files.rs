//! The file system of the machine with the effects of two flags: a separate folder for the log, and
//! a rate limit on the writes of flushes and compactions.
//!
//! The engine keeps its log beside its tables. With `--wal_dir`, segment `000005.wal` is
//! `sapwood-000005.log` in another folder: scripts add up the sizes of files with `log` in their
//! names. Segments are mapped, so that the redirection is not on the path of a write.
use crate::limit::RateLimiter;
use sapwood_base::{Error, Result};
use sapwood_storage::fs::os::OsFileSystem;
use sapwood_storage::fs::{File, FileSystem, LockGuard, MappedFile, OpenMode, Space};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file system described above.
pub struct Files {
    machine: Arc<dyn FileSystem>,
    /// The folder of the log, if it differs from that of the database.
    log: Option<PathBuf>,
    /// The rate limit of tables.
    limiter: Option<Arc<RateLimiter>>,
}

/// The prefix of a segment's number in the folder of the log.
const PREFIX: &str = "sapwood-";

impl Files {
    /// With the log in `log`, and a limit in bytes per second for tables (0: no limit). `None` if
    /// neither applies.
    pub fn new(log: Option<PathBuf>, bytes_per_second: i64) -> Option<Files> {
        let limiter = RateLimiter::new(bytes_per_second).map(Arc::new);
        let machine = Arc::new(OsFileSystem::new());
        (log.is_some() || limiter.is_some()).then(|| Files { machine, log, limiter })
    }

    /// The location of the file that the engine names `path`.
    fn place<'a>(&self, path: &'a Path) -> Cow<'a, Path> {
        match (&self.log, path.file_stem().and_then(|stem| stem.to_str())) {
            (Some(log), Some(stem)) if path.extension().is_some_and(|extension| extension == "wal") => {
                Cow::Owned(log.join(format!("{PREFIX}{stem}.log")))
            }
            _ => Cow::Borrowed(path),
        }
    }

    fn limited(&self, path: &Path, file: Box<dyn File>) -> Box<dyn File> {
        match &self.limiter {
            Some(limiter) if path.extension().is_some_and(|extension| extension == "sst") => {
                Box::new(LimitedFile { file, limiter: Arc::clone(limiter) })
            }
            _ => file,
        }
    }
}

impl FileSystem for Files {
    fn create_new(&self, path: &Path) -> Result<Box<dyn File>> {
        Ok(self.limited(path, self.machine.create_new(&self.place(path))?))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        self.machine.open(&self.place(path), mode)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.machine.exists(&self.place(path))
    }

    fn file_len(&self, path: &Path) -> Result<u64> {
        self.machine.file_len(&self.place(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.machine.rename(&self.place(from), &self.place(to))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.machine.hard_link(&self.place(from), &self.place(to))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.machine.remove_file(&self.place(path))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.machine.create_dir_all(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.machine.remove_dir(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let mut names = self.machine.list(path)?;
        let Some(log) = &self.log else { return Ok(names) };
        if let Some(segment) = names.iter().find(|name| self.place(name) != **name) {
            let message = "the database was made with its log in its own folder, without --wal_dir";
            return Err(Error::invalid_argument(message).in_file(segment));
        }
        for segment in self.machine.list(log)? {
            let name = segment.file_name().and_then(|name| name.to_str());
            let stem = name.and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(".log"));
            // Files with other names do not belong to the log.
            names.extend(stem.map(|stem| PathBuf::from(format!("{stem}.wal"))));
        }
        Ok(names)
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        if let Some(log) = &self.log {
            self.machine.sync_directory(log)?;
        }
        self.machine.sync_directory(path)
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        self.machine.lock(path)
    }

    fn space(&self, path: &Path) -> Result<Space> {
        let tables = self.machine.space(path)?;
        let Some(log) = &self.log else { return Ok(tables) };
        let log = self.machine.space(log)?;
        Ok(if log.available < tables.available { log } else { tables })
    }

    fn map_shared(&self, path: &Path, len: usize) -> Result<Option<MappedFile>> {
        self.machine.map_shared(&self.place(path), len)
    }

    fn check_memory(&self, bytes: usize) -> Result<()> {
        self.machine.check_memory(bytes)
    }
}

/// A file whose writes wait for the rate limiter.
struct LimitedFile {
    file: Box<dyn File>,
    limiter: Arc<RateLimiter>,
}

impl File for LimitedFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.limiter.request(bytes.len() as u64);
        self.file.write_at(offset, bytes)
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<()> {
        self.file.sync_all()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn path(&self) -> &Path {
        self.file.path()
    }

    fn prefetch(&self, offset: u64, len: u64) {
        self.file.prefetch(offset, len);
    }

    fn allocate(&self, len: u64) -> Result<bool> {
        self.file.allocate(len)
    }

    fn zeros_per_write(&self) -> usize {
        self.file.zeros_per_write()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn segments_lie_in_a_folder_of_their_own_and_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (db, log) = (folder.path().join("db"), folder.path().join("log"));
        std::fs::create_dir_all(&db).unwrap();
        std::fs::create_dir_all(&log).unwrap();
        std::fs::write(log.join("000003.log"), "of another engine").unwrap();
        let files = Files::new(Some(log.clone()), 0).unwrap();
        files.create_new(&db.join("000005.wal")).unwrap();
        files.create_new(&db.join("000006.sst")).unwrap();
        assert!(log.join("sapwood-000005.log").exists() && db.join("000006.sst").exists());
        let mut names = files.list(&db).unwrap();
        names.sort();
        assert_eq!(names, ["000005.wal", "000006.sst"].map(PathBuf::from));
        files.remove_file(&db.join("000005.wal")).unwrap();
        assert!(!files.exists(&db.join("000005.wal")).unwrap() && log.join("000003.log").exists());
        std::fs::write(db.join("000007.wal"), "a log that was made without the flag").unwrap();
        assert!(files.list(&db).unwrap_err().to_string().contains("without --wal_dir"));
        assert!(Files::new(None, 0).is_none());
    }

    #[test]
    fn tables_are_written_at_the_rate() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(None, 1_000_000).unwrap();
        let start = Instant::now();
        let table = files.create_new(&folder.path().join("000001.sst")).unwrap();
        (0..5).for_each(|block| table.write_at(block * 10_000, &[1; 10_000]).unwrap());
        // The first write does not wait.
        assert!(start.elapsed() >= Duration::from_millis(39), "{:?}", start.elapsed());
        let log = files.create_new(&folder.path().join("000002.wal")).unwrap();
        let start = Instant::now();
        log.write_at(0, &[1; 100_000]).unwrap();
        assert!(start.elapsed() < Duration::from_millis(90));
    }
}
