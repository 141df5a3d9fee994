//! The files of one database: their directory, numbers and names, and the end of their lives.
//!
//! A file is written under an unfinished name, synced, and renamed. It is listed by an edit of the
//! MANIFEST, and read through handles that versions share. Once an edit has removed it, its last
//! handle sends its name to the thread that removes files. Tables and trees follow this one rule.
use crate::cache::BufferCache;
use crate::fs::FileSystem;
use crate::planted;
use crate::sync::Mutex;
use crossbeam::channel::Sender;
use sapwood_base::format::file_name::FileName;
use sapwood_base::{Error, ErrorKind, FileNumber, Result};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Directory, numbers and names of the files of a database, shared by everything that reads or
/// writes one.
pub struct DatabaseFiles {
    /// The file system.
    pub fs: Arc<dyn FileSystem>,
    /// The directory of the database.
    pub directory: PathBuf,
    /// The random number recorded in all files of the database; 0 until it is known.
    pub database: AtomicU64,
    /// The cache for blocks.
    pub cache: Arc<BufferCache>,
    /// Whether the memory of open tables is charged to the cache, so that both together stay within
    /// its capacity.
    pub charges_tables: bool,
    /// The next file number.
    pub next_file: AtomicU64,
    /// Receives the obsolete files that are not referenced any more.
    pub obsolete: Sender<FileName>,
    /// The number of files that are obsolete, but still referenced by an older version or one of
    /// its readers.
    leaving: AtomicUsize,
    /// Whether a sync of the directory has failed. Locked during each sync, so that none succeeds
    /// after a failed one.
    directory_sync_failed: Mutex<bool>,
}

impl DatabaseFiles {
    /// Creates the state of the database in `directory`, with no file number allocated yet.
    pub fn new(
        fs: Arc<dyn FileSystem>,
        directory: PathBuf,
        cache: Arc<BufferCache>,
        obsolete: Sender<FileName>,
    ) -> DatabaseFiles {
        let (next_file, directory_sync_failed) = (AtomicU64::new(1), Mutex::new(false));
        let (database, charges_tables) = (AtomicU64::new(0), false);
        DatabaseFiles {
            fs,
            directory,
            database,
            cache,
            charges_tables,
            next_file,
            obsolete,
            leaving: AtomicUsize::new(0),
            directory_sync_failed,
        }
    }

    /// Allocates a number that no file of this database has had.
    pub fn allocate_file(&self) -> FileNumber {
        // Relaxed: only the number matters; the file that it names is published by other means.
        FileNumber(self.next_file.fetch_add(1, Ordering::Relaxed))
    }

    /// Allocates a number for a file name of this kind that does not exist in the directory, which
    /// may contain foreign files with such names.
    pub fn allocate_name(&self, kind: fn(FileNumber) -> FileName) -> Result<FileNumber> {
        loop {
            let number = self.allocate_file();
            if !self.fs.exists(&self.path(kind(number)))? {
                return Ok(number);
            }
        }
    }

    /// The database's number.
    pub fn database(&self) -> u64 {
        // Relaxed: it is set once, before anything is written or read.
        self.database.load(Ordering::Relaxed)
    }

    /// Renames a file that was written and synced under the name [`FileName::Unfinished`] to its
    /// final name. The caller syncs the directory.
    pub fn finish_file(&self, name: FileName) -> Result<()> {
        self.fs.rename_new(&self.unfinished_path(name), &self.path(name))
    }

    /// The path of a file until it is finished.
    pub fn unfinished_path(&self, name: FileName) -> PathBuf {
        self.path(name.unfinished().expect("a file with a number"))
    }

    /// The number of obsolete files that wait for their last reader.
    pub fn leaving(&self) -> usize {
        // Relaxed: callers poll.
        self.leaving.load(Ordering::Relaxed)
    }

    /// The path of a table's file.
    pub fn table_path(&self, file: FileNumber) -> PathBuf {
        self.path(FileName::Table(file))
    }

    /// The path of a file.
    pub fn path(&self, file: FileName) -> PathBuf {
        self.directory.join(file.format())
    }

    /// Makes the names of new files durable. A failure is final, and of kind
    /// [`ErrorKind::Poisoned`] whatever its cause: names that other threads are waiting to sync may
    /// be lost with it, and the kernel would not report that to their own syncs. The exception is
    /// [`ErrorKind::OutOfResources`]: if descriptors or memory ran out before the request reached
    /// the kernel, nothing has happened.
    pub fn sync_directory(&self) -> Result<()> {
        let mut has_failed = self.directory_sync_failed.lock();
        let refused = |cause: &dyn std::fmt::Display| {
            let message = format!("a sync of the directory failed; reopen the database ({cause})");
            Err(Error::new(ErrorKind::Poisoned, message))
        };
        if *has_failed {
            return refused(&"an earlier one");
        }
        match planted::sync_names(|| self.fs.sync_directory(&self.directory)) {
            Ok(()) => Ok(()),
            // The directory could not be opened, so nothing happened and the call can be retried.
            Err(error) if planted::may_be_retried(error.kind()) => Err(error),
            Err(error) => {
                *has_failed = true;
                refused(&error)
            }
        }
    }
}

/// The life of a file that may become obsolete. Lives in the handle of the file, below everything
/// that keeps the file open.
pub struct FileLifetime {
    name: FileName,
    /// Set once the file is obsolete.
    obsolete: OnceLock<Arc<DatabaseFiles>>,
}

impl FileLifetime {
    /// The life of an existing file.
    pub fn new(name: FileName) -> FileLifetime {
        FileLifetime { name, obsolete: OnceLock::new() }
    }

    /// Allows the file to be removed once this is dropped.
    pub fn mark_obsolete(&self, files: &Arc<DatabaseFiles>) {
        if self.obsolete.set(files.clone()).is_ok() {
            // Relaxed: only a count.
            files.leaving.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for FileLifetime {
    fn drop(&mut self) {
        let Some(files) = self.obsolete.take() else { return };
        if planted::is_removed(self.name) {
            // Without a receiver the database is closing. The file is removed when the database is
            // next opened.
            let _ = files.obsolete.send(self.name);
        }
        // Relaxed: only a count.
        files.leaving.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use super::*;
    use crate::Env;
    use crate::sim::{Fault, FaultRule, Operation};
    use crossbeam::channel::Receiver;

    fn files(env: &Env) -> (Arc<DatabaseFiles>, Receiver<FileName>) {
        let (obsolete, removed) = crossbeam::channel::unbounded();
        let cache = BufferCache::new(1 << 20).unwrap();
        let files = DatabaseFiles::new(env.fs().clone(), PathBuf::from("db"), cache, obsolete);
        files.fs.create_dir_all(&files.directory).unwrap();
        (Arc::new(files), removed)
    }

    #[test]
    fn an_obsolete_file_is_removed_once_and_after_its_last_handle() {
        let (files, removed) = files(&Env::sim(1).0);
        let name = FileName::Tree(FileNumber(7));
        drop(FileLifetime::new(name));
        assert!(removed.is_empty(), "a file that is not obsolete stays");
        let lifetime = Arc::new(FileLifetime::new(name));
        let reader = lifetime.clone();
        lifetime.mark_obsolete(&files);
        lifetime.mark_obsolete(&files);
        drop(lifetime);
        assert!((files.leaving(), removed.len()) == (1, 0), "a reader still has it");
        drop(reader);
        assert_eq!((files.leaving(), removed.try_iter().collect::<Vec<_>>()), (0, vec![name]));
        // A removal thread that has ended is no error.
        drop(removed);
        let lifetime = FileLifetime::new(name);
        lifetime.mark_obsolete(&files);
        drop(lifetime);
        assert_eq!(files.leaving(), 0);
    }

    #[test]
    fn no_sync_of_the_directory_succeeds_after_one_that_failed() {
        let (env, fs) = Env::sim_manual(1);
        let (files, _) = files(&env);
        files.sync_directory().unwrap();
        // Two threads create a file each. The sync of one fails and loses the name of the other's
        // file.
        for number in [1, 2] {
            files.fs.create_new(&files.table_path(FileNumber(number))).unwrap();
        }
        fs.fail(FaultRule::new(Operation::SyncDirectory, Fault::Io));
        for _ in 0..2 {
            assert_eq!(files.sync_directory().unwrap_err().kind(), ErrorKind::Poisoned);
        }
        assert!(!fs.crash(0).files().iter().any(|path| path.extension().is_some()), "both names are lost");
    }
}
