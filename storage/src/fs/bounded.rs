//! A bounded number of open descriptors for any number of files.
//!
//! A database has thousands of tables, a process some hundred descriptors.
//! [`FileSystem::open_on_demand`] returns a file whose descriptor is open while it is used: the
//! file is reopened when necessary, and descriptors that were not used lately are closed. Blocks in
//! the cache need no descriptor, so only reads that go to the disk are affected.
//!
//! All databases on one machine share its descriptors: a [`FileGroup`] bounds them together and
//! each database by itself. If a call finds no descriptor because the rest of the process uses
//! them, it closes idle files and retries; the error is returned only when no idle file is left.
//!
//! Invariants: a file with unsynced writes stays open, since a sync through another descriptor may
//! not report their failure. A reopened file is the same one: its identity is compared.
use super::group::Closable;
use super::{File, FileIdentity, FileSystem, LockGuard, MappedFile, OpenMode, Space};
use crate::planted;
use crate::sync::Mutex;
use sapwood_base::{Error, ErrorKind, Result};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub use super::group::FileGroup;

/// How often a call that finds no descriptor closes files and retries: other threads may take the
/// freed descriptors first.
const ATTEMPTS: usize = 32;

/// A file system for one database, with a bounded number of files on demand. Passes everything else
/// to the one below; calls that need a descriptor and find none close files on demand first.
pub struct BoundedFileSystem {
    fs: Arc<dyn FileSystem>,
    pool: Arc<Pool>,
}

impl BoundedFileSystem {
    /// Allows at most `most` open files on demand, and no more than the group has room for.
    pub fn new(fs: Arc<dyn FileSystem>, most: usize) -> BoundedFileSystem {
        let group = fs.file_group();
        let pool = Arc::new(Pool {
            fs: Arc::clone(&fs),
            group: Arc::clone(&group),
            most: most.max(1),
            count: AtomicUsize::new(0),
            has_ended: AtomicBool::new(false),
            ring: Mutex::default(),
        });
        let counted: Arc<dyn Closable> = pool.clone();
        group.add(Arc::downgrade(&counted));
        BoundedFileSystem { fs, pool }
    }

    /// Refuses to open files on demand from now on, including reopening, with an error of kind
    /// `Closed`. Open files remain readable.
    ///
    /// For the end of a database: its readers continue, but its directory may already belong to
    /// another one.
    pub fn end_opening(&self) {
        // Release: pairs with the Acquire in `Pool::open`.
        self.pool.has_ended.store(true, Ordering::Release);
    }

    /// Number of files on demand that are open now.
    pub fn open_files(&self) -> usize {
        self.pool.count.load(Ordering::Relaxed)
    }
}

/// The files of one database.
struct Pool {
    fs: Arc<dyn FileSystem>,
    group: Arc<FileGroup>,
    most: usize,
    /// Open files, including those being opened.
    count: AtomicUsize,
    /// No file is opened any more.
    has_ended: AtomicBool,
    /// The open files, in clock order.
    ring: Mutex<VecDeque<Arc<Shared>>>,
}

impl Closable for Pool {
    fn open_files(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn close_one(&self) -> bool {
        let mut ring = self.ring.lock();
        // Two rounds: the first clears the marks of use.
        for _ in 0..2 * ring.len() {
            let Some(file) = ring.pop_front() else { break };
            match file.try_close() {
                Closing::Closed => {
                    drop(ring);
                    self.forget(1);
                    return true;
                }
                Closing::InUse => ring.push_back(file),
                Closing::Gone => {}
            }
        }
        false
    }
}

impl Pool {
    /// Counts one more file, after making room for it. A file may always be opened, even if all
    /// others are in use: readers that all hold one are no reason to refuse the next.
    fn reserve(&self) {
        // Relaxed: a count that no other memory depends on. Two concurrent calls may both exceed
        // the bound by one.
        self.count.fetch_add(1, Ordering::Relaxed);
        self.group.count_opened();
        if planted::bounds_open_files() {
            self.shrink();
        }
    }

    /// Closes files beyond the bounds.
    fn shrink(&self) {
        while self.count.load(Ordering::Relaxed) > self.most && self.close_one() {}
        while self.group.open() > self.group.most() && self.group.close_one() {}
    }

    fn forget(&self, files: usize) {
        self.count.fetch_sub(files, Ordering::Relaxed);
        self.group.count_closed(files);
    }

    /// Inserts an opened file into the clock.
    fn enter(&self, file: &Arc<Shared>) {
        let mut ring = self.ring.lock();
        // Files whose handles were dropped stay in the clock, as a search for each would be slow.
        if ring.len() > 2 * self.count.load(Ordering::Relaxed) + 64 {
            ring.retain(|file| Arc::strong_count(file) > 1);
        }
        ring.push_back(Arc::clone(file));
    }

    /// Opens and counts a file, unless `accept` refuses it. Errors: `Closed` if no file is opened
    /// any more.
    fn open<R>(
        &self,
        path: &Path,
        mode: OpenMode,
        accept: impl FnOnce(Box<dyn File>) -> Result<R>,
    ) -> Result<R> {
        // Acquire: pairs with the Release in `end_opening`.
        let has_ended = || self.has_ended.load(Ordering::Acquire);
        let ended =
            || Err(Error::new(ErrorKind::Closed, "the database is closed, and opens no file").in_file(path));
        // Checked first, since another file may be closed to make room; and last, since the end may
        // have come meanwhile.
        if has_ended() {
            return ended();
        }
        self.reserve();
        let opened = self.with_descriptor(|| self.fs.open(path, mode)).and_then(accept);
        let opened = if has_ended() { ended() } else { opened };
        opened.inspect_err(|_| self.forget(1))
    }

    /// Runs a call that needs a descriptor.
    fn with_descriptor<R>(&self, call: impl Fn() -> Result<R>) -> Result<R> {
        let mut result = call();
        for _ in 0..ATTEMPTS {
            match &result {
                Err(error)
                    if error.kind() == ErrorKind::OutOfResources
                        && planted::bounds_open_files()
                        && self.group.relieve() => {}
                _ => break,
            }
            result = call();
        }
        result
    }
}

/// Result of an attempt to close a file.
enum Closing {
    Closed,
    /// In use, used lately, or with unsynced writes.
    InUse,
    /// Closed already: its handle was dropped.
    Gone,
}

/// A file that is open at times.
struct Shared {
    path: PathBuf,
    mode: OpenMode,
    identity: Option<FileIdentity>,
    /// The open file. Copies are made under the lock alone, so a count of one under the lock means
    /// no other user.
    cell: Mutex<Option<Arc<dyn File>>>,
    /// Used since the last visit of the clock.
    was_used: AtomicBool,
    /// Written and not synced since.
    is_unsynced: AtomicBool,
}

impl Shared {
    /// Closes the file if it is not in use and has no unsynced writes. Otherwise clears the mark of
    /// use.
    fn try_close(&self) -> Closing {
        // Relaxed: a hint.
        let was_used = self.was_used.swap(false, Ordering::Relaxed);
        // A file that is being opened is in use; waiting for it could deadlock with this thread.
        let Some(mut cell) = self.cell.try_lock() else { return Closing::InUse };
        match &*cell {
            None => Closing::Gone,
            // Acquire: pairs with the Release of a writer, which keeps the file in use until then.
            Some(file)
                if was_used || Arc::strong_count(file) > 1 || self.is_unsynced.load(Ordering::Acquire) =>
            {
                Closing::InUse
            }
            Some(_) => {
                *cell = None;
                Closing::Closed
            }
        }
    }
}

/// See the module.
struct FileOnDemand {
    shared: Arc<Shared>,
    pool: Arc<Pool>,
}

impl FileOnDemand {
    fn open(pool: &Arc<Pool>, path: &Path, mode: OpenMode) -> Result<FileOnDemand> {
        let (identity, file) = pool.open(path, mode, |file| Ok((file.identity()?, file)))?;
        let shared = Arc::new(Shared {
            path: path.to_path_buf(),
            mode,
            identity,
            cell: Mutex::new(Some(Arc::from(file))),
            was_used: AtomicBool::new(true),
            is_unsynced: AtomicBool::new(false),
        });
        pool.enter(&shared);
        Ok(FileOnDemand { shared, pool: Arc::clone(pool) })
    }

    /// The open file. It stays open as long as this lives.
    fn file(&self) -> Result<Arc<dyn File>> {
        let mut cell = self.shared.cell.lock();
        if let Some(file) = &*cell {
            let file = Arc::clone(file);
            // Relaxed: a hint for the clock.
            self.shared.was_used.store(true, Ordering::Relaxed);
            return Ok(file);
        }
        let file = self.open_again()?;
        *cell = Some(Arc::clone(&file));
        drop(cell);
        self.pool.enter(&self.shared);
        Ok(file)
    }

    #[cold]
    fn open_again(&self) -> Result<Arc<dyn File>> {
        let (pool, shared) = (&self.pool, &self.shared);
        pool.open(&shared.path, shared.mode, |file| {
            match planted::is_same_file(file.identity()?, shared.identity) {
                true => Ok(Arc::from(file)),
                false => Err(Error::corruption(
                    &shared.path,
                    0,
                    "another file has taken the place of one in use; what was read from it is not affected",
                )),
            }
        })
    }

    /// Runs a change, after which the file stays open until it is synced.
    fn change<R>(&self, change: impl FnOnce(&dyn File) -> Result<R>) -> Result<R> {
        let file = self.file()?;
        let result = change(&*file);
        // Also after an error: a part may have been written. Set before the file is released, and
        // after the change, so that a sync that began before does not clear it. Release: see
        // `try_close`.
        self.shared.is_unsynced.store(true, Ordering::Release);
        result
    }

    fn sync(&self, sync: impl FnOnce(&dyn File) -> Result<()>) -> Result<()> {
        let file = self.file()?;
        // Changes that end after this set it again. After a failed sync it stays set, so that no
        // file is closed while another sync should still report.
        let was_unsynced = self.shared.is_unsynced.swap(false, Ordering::AcqRel);
        sync(&*file).inspect_err(|_| {
            self.shared.is_unsynced.fetch_or(was_unsynced, Ordering::Release);
        })?;
        // Unsynced files may have kept each other open.
        drop(file);
        self.pool.shrink();
        Ok(())
    }
}

impl Drop for FileOnDemand {
    fn drop(&mut self) {
        if self.shared.cell.lock().take().is_some() {
            self.pool.forget(1);
        }
    }
}

impl File for FileOnDemand {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.file()?.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.change(|file| file.write_at(offset, bytes))
    }

    fn sync_data(&self) -> Result<()> {
        self.sync(|file| file.sync_data())
    }

    fn sync_all(&self) -> Result<()> {
        self.sync(|file| file.sync_all())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.change(|file| file.set_len(len))
    }

    fn len(&self) -> Result<u64> {
        self.file()?.len()
    }

    fn path(&self) -> &Path {
        &self.shared.path
    }

    fn prefetch(&self, offset: u64, len: u64) {
        // A hint: the read reports a failure to open.
        if let Ok(file) = self.file() {
            file.prefetch(offset, len);
        }
    }

    fn allocate(&self, len: u64) -> Result<bool> {
        self.change(|file| file.allocate(len))
    }

    fn zeros_per_write(&self) -> usize {
        self.file().map_or(super::ZEROS_PER_WRITE, |file| file.zeros_per_write())
    }

    fn identity(&self) -> Result<Option<FileIdentity>> {
        Ok(self.shared.identity)
    }
}

impl FileSystem for BoundedFileSystem {
    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        self.fs.absolute(path)
    }

    fn hold(&self, directory: &Path) -> Result<Option<Arc<dyn FileSystem>>> {
        self.pool.with_descriptor(|| self.fs.hold(directory))
    }

    fn create_new(&self, path: &Path) -> Result<Box<dyn File>> {
        self.pool.with_descriptor(|| self.fs.create_new(path))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        self.pool.with_descriptor(|| self.fs.open(path, mode))
    }

    fn open_on_demand(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        Ok(Box::new(FileOnDemand::open(&self.pool, path, mode)?))
    }

    fn file_group(&self) -> Arc<FileGroup> {
        Arc::clone(&self.pool.group)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        self.fs.exists(path)
    }

    fn file_len(&self, path: &Path) -> Result<u64> {
        self.fs.file_len(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.fs.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> Result<()> {
        self.fs.rename_new(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.fs.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.fs.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.fs.create_dir_all(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.fs.remove_dir(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        self.pool.with_descriptor(|| self.fs.list(path))
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        // Retries only a directory that could not be opened: a failed sync never has the kind
        // `OutOfResources`.
        self.pool.with_descriptor(|| self.fs.sync_directory(path))
    }

    fn lock_shared(&self, path: &Path) -> Result<Option<Box<dyn LockGuard>>> {
        self.pool.with_descriptor(|| self.fs.lock_shared(path))
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        self.pool.with_descriptor(|| self.fs.lock(path))
    }

    fn space(&self, path: &Path) -> Result<Space> {
        self.fs.space(path)
    }

    fn map_shared(&self, path: &Path, len: usize) -> Result<Option<MappedFile>> {
        self.pool.with_descriptor(|| self.fs.map_shared(path, len))
    }

    fn check_memory(&self, bytes: usize) -> Result<()> {
        self.fs.check_memory(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Fault, FaultRule, Operation, SimFs};

    fn with_files(count: usize) -> SimFs {
        let fs = SimFs::new();
        (0..count).for_each(|i| fs.write_file(name(i), &[i as u8; 100]).unwrap());
        fs
    }

    fn name(number: usize) -> PathBuf {
        PathBuf::from(format!("/{number}"))
    }

    fn byte(file: &dyn File) -> Result<u8> {
        let mut byte = [0];
        file.read_exact_at(7, &mut byte).map(|()| byte[0])
    }

    #[test]
    fn any_number_of_files_is_read_through_a_few_descriptors() {
        let sim = with_files(100);
        let fs = BoundedFileSystem::new(Arc::new(sim.clone()), 5);
        let files: Vec<_> = (0..100).map(|i| fs.open_on_demand(&name(i), OpenMode::Read).unwrap()).collect();
        for round in 0..3 {
            for (i, file) in files.iter().enumerate() {
                assert_eq!(byte(&**file).unwrap(), i as u8, "round {round}");
                assert!(sim.open_handles() <= 5, "{} are open", sim.open_handles());
            }
        }
        // Files in repeated use stay open.
        let opened = sim.calls(Operation::Open);
        for file in &files[..50] {
            byte(&**file).unwrap();
            byte(&*files[99]).unwrap();
        }
        assert_eq!(sim.calls(Operation::Open) - opened, 50);
        drop(files);
        assert_eq!((sim.open_handles(), fs.open_files(), fs.file_group().open()), (0, 0, 0));
    }

    #[test]
    fn after_the_end_of_openings_what_is_open_is_read_and_nothing_else() {
        let sim = with_files(4);
        let fs = BoundedFileSystem::new(Arc::new(sim.clone()), 2);
        let files: Vec<_> = (0..3).map(|i| fs.open_on_demand(&name(i), OpenMode::Read).unwrap()).collect();
        let (open, opened) = (sim.open_handles(), sim.calls(Operation::Open));
        fs.end_opening();
        let results: Vec<_> = files.iter().map(|file| byte(&**file)).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2);
        let first = fs.open_on_demand(&name(3), OpenMode::Read).map(drop);
        let errors = results.into_iter().filter_map(Result::err).chain(first.err());
        let kinds: Vec<ErrorKind> = errors.map(|error| error.kind()).collect();
        assert_eq!(kinds, [ErrorKind::Closed, ErrorKind::Closed]);
        assert_eq!((sim.open_handles(), sim.calls(Operation::Open)), (open, opened));
        drop(files);
        assert_eq!((sim.open_handles(), fs.open_files()), (0, 0));
    }

    #[test]
    fn databases_of_one_machine_share_its_descriptors() {
        let sim = with_files(40);
        sim.file_group().set_most(10);
        let pools = [8, 100].map(|most| BoundedFileSystem::new(Arc::new(sim.clone()), most));
        let open = |i: usize| pools[i % 2].open_on_demand(&name(i), OpenMode::Read).unwrap();
        let files: Vec<_> = (0..40).map(open).collect();
        for file in files.iter().chain(files.iter().rev()) {
            byte(&**file).unwrap();
            assert!(sim.open_handles() <= 10 && pools[0].open_files() <= 8);
        }
        drop(files);
        assert_eq!(sim.file_group().open(), 0);
    }

    #[test]
    fn a_call_that_finds_no_descriptor_takes_those_of_idle_files() {
        let sim = with_files(40);
        let fs = BoundedFileSystem::new(Arc::new(sim.clone()), 100);
        let files: Vec<_> = (0..30).map(|i| fs.open_on_demand(&name(i), OpenMode::Read).unwrap()).collect();
        // The rest of the process uses all remaining descriptors.
        sim.set_handle_limit(Some(sim.open_handles()));
        let plain = fs.open(&name(35), OpenMode::Read).unwrap();
        let new = fs.create_new(Path::new("/new")).unwrap();
        files.iter().enumerate().for_each(|(i, file)| assert_eq!(byte(&**file).unwrap(), i as u8));
        assert!(sim.open_handles() <= 30);
        // No descriptor is left: the error says what to do, and passes.
        drop((plain, new));
        sim.set_handle_limit(Some(0));
        let error = fs.open(&name(36), OpenMode::Read).err().unwrap();
        assert!(error.is_retryable() && error.to_string().contains("max_open_files"), "{error}");
        let error = byte(&*files[3]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfResources);
        sim.set_handle_limit(None);
        assert_eq!(byte(&*files[3]).unwrap(), 3);
        drop(files);
        assert_eq!((sim.open_handles(), fs.file_group().open()), (0, 0));
    }

    #[test]
    fn a_failed_opening_counts_no_file() {
        let sim = with_files(3);
        let fs = BoundedFileSystem::new(Arc::new(sim.clone()), 1);
        let [first, second] = [0, 1].map(|i| fs.open_on_demand(&name(i), OpenMode::Read).unwrap());
        for fault in [Fault::Io, Fault::TooManyOpen, Fault::AccessDenied] {
            sim.fail(FaultRule::new(Operation::Open, fault));
            assert!(byte(&*first).is_err() || fault == Fault::TooManyOpen);
            assert!(fs.open_on_demand(Path::new("/none"), OpenMode::Read).is_err());
            sim.clear_faults();
            assert_eq!((byte(&*first).unwrap(), byte(&*second).unwrap()), (0, 1));
            assert_eq!((fs.open_files(), sim.open_handles()), (1, 1));
        }
    }

    #[test]
    fn a_file_with_unsynced_writes_stays_open() {
        let sim = with_files(3);
        let fs = BoundedFileSystem::new(Arc::new(sim.clone()), 1);
        let tree = fs.open_on_demand(&name(0), OpenMode::ReadWrite).unwrap();
        tree.write_at(0, b"new").unwrap();
        let opened = sim.calls(Operation::Open);
        let table = fs.open_on_demand(&name(1), OpenMode::Read).unwrap();
        byte(&*table).unwrap();
        // A failed sync is final.
        sim.fail(FaultRule::new(Operation::Sync, Fault::Io));
        assert!(tree.sync_data().is_err());
        sim.clear_faults();
        byte(&*table).unwrap();
        assert_eq!((sim.calls(Operation::Open) - opened, sim.open_handles()), (1, 2));
        tree.sync_data().unwrap();
        for _ in 0..3 {
            byte(&*table).unwrap();
            byte(&*tree).unwrap();
        }
        assert!(sim.calls(Operation::Open) - opened > 1);
        assert_eq!(sim.open_handles(), 1);
    }

    #[test]
    fn another_file_of_the_same_name_is_not_read() {
        let sim = with_files(2);
        let fs = BoundedFileSystem::new(Arc::new(sim.clone()), 1);
        let files = [0, 1].map(|i| fs.open_on_demand(&name(i), OpenMode::Read).unwrap());
        byte(&*files[1]).unwrap();
        fs.remove_file(&name(0)).unwrap();
        assert!(byte(&*files[0]).is_err());
        fs.create_new(&name(0)).unwrap().write_at(0, &[9; 100]).unwrap();
        let error = byte(&*files[0]).unwrap_err();
        assert_eq!((error.kind(), error.file()), (ErrorKind::Corruption, Some(&*name(0))));
        assert_eq!(byte(&*files[1]).unwrap(), 1);
    }

    #[test]
    fn threads_that_read_more_files_than_may_be_open_get_right_bytes() {
        let sim = with_files(64);
        let fs = BoundedFileSystem::new(Arc::new(sim.clone()), 3);
        let files: Vec<_> = (0..64).map(|i| fs.open_on_demand(&name(i), OpenMode::Read).unwrap()).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let files = &files;
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(thread);
                    for _ in 0..2000 {
                        let i = random.usize(..64);
                        assert_eq!(byte(&*files[i]).unwrap(), i as u8);
                    }
                });
            }
        });
        // Each thread may have exceeded the bound by one.
        assert!(sim.open_handles() <= 3 + 4);
        drop(files);
        assert_eq!((sim.open_handles(), fs.file_group().open()), (0, 0));
    }
}
