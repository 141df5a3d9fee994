//! A simulated machine: a file system in memory that knows what a crash may take, and a clock that tests drive.
//!
//! Each file and directory has a cached state, which calls see, and a durable one, which a power loss leaves; between
//! them lie *atoms*, the smallest changes that persist or do not: one 512-byte sector, one length, one name. A sync
//! makes the atoms of its one file or directory durable, nothing else does. A crash may keep any subset of the atoms:
//! more than any one real file system loses, so that what survives here survives on all of them.
//!
//! [`SimFs::crash`] and [`SimFs::kill`] leave the old file system as it is and give a new one, so a test can crash the
//! same moment in many ways. [`SimFs::crash_at`] stops the world at a chosen operation, [`SimFs::fail`] makes calls
//! fail. There are no shared mappings here: `map_shared` gives `None`.
use crate::fs::{File, FileSystem, LockGuard, MappedFile, OpenMode, Space};
use parking_lot::Mutex;
use sapwood_base::{Error, ErrorKind, Result};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod atom;
mod content;
mod crash;
mod directory;
mod fault;
mod file;
mod machine;
#[cfg(test)]
mod tests;
mod world;

pub use atom::{Atom, AtomKind, SECTOR_BYTES};
pub use fault::{Fault, FaultRule, Operation};

pub(crate) use machine::SimMachine;
use world::{InodeNumber, World};

/// The file system of a simulated machine. Clones are the same file system. See the module.
#[derive(Clone)]
pub struct SimFs {
    world: Arc<Mutex<World>>,
}

impl Default for SimFs {
    fn default() -> SimFs {
        SimFs::new()
    }
}

impl SimFs {
    /// An empty file system: only the root directory exists.
    pub fn new() -> SimFs {
        SimFs::of(World::new())
    }

    fn of(world: World) -> SimFs {
        SimFs { world: Arc::new(Mutex::new(world)) }
    }

    /// What a power loss at this moment may leave, chosen by `seed`: no atom, every atom, a beginning of each file's
    /// and directory's atoms, or any subset. The same seed gives the same choice. Handles of this file system do not
    /// work on the new one; its locks are free and its faults and limits gone.
    pub fn crash(&self, seed: u64) -> SimFs {
        SimFs::of(self.world.lock().crashed(&mut crash::by_seed(seed)))
    }

    /// What a power loss at this moment leaves if exactly the atoms for which `survives` says so persist. It is asked
    /// once per atom, object by object, in the order in which the atoms of an object arose.
    pub fn crash_with(&self, mut survives: impl FnMut(&Atom) -> bool) -> SimFs {
        SimFs::of(self.world.lock().crashed(&mut survives))
    }

    /// What the death of the process at this moment leaves: all that was written, synced or not. What was not synced
    /// can still be lost to a later crash.
    pub fn kill(&self) -> SimFs {
        SimFs::of(self.world.lock().killed())
    }

    /// All atoms that a power loss could take now.
    pub fn atoms(&self) -> Vec<Atom> {
        self.world.lock().atoms()
    }

    /// How many changing operations (creation, write, length, sync, renaming, …) have been begun.
    pub fn operations(&self) -> u64 {
        self.world.lock().operations()
    }

    /// Stops the world before the changing operation with this number (counted as [`SimFs::operations`] counts): it
    /// and every later call of any kind fail, and nothing more is applied. Then look at [`SimFs::crash`].
    pub fn crash_at(&self, operation: u64) {
        self.world.lock().crash_at(operation);
    }

    /// Whether [`SimFs::crash_at`] has struck.
    pub fn has_crashed(&self) -> bool {
        self.world.lock().has_crashed()
    }

    /// Makes calls fail from now on.
    pub fn fail(&self, rule: FaultRule) {
        self.world.lock().faults.add(rule);
    }

    /// Forgets all fault rules. What they did stays done.
    pub fn clear_faults(&self) {
        self.world.lock().faults.clear();
    }

    /// How many calls failed by a rule.
    pub fn faults_met(&self) -> u64 {
        self.world.lock().faults.met()
    }

    /// Limits the bytes that files can take, in whole pages of 4 KiB; `None` for no limit. A lower limit than what is
    /// taken only stops growth.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.world.lock().capacity_bytes = capacity_bytes;
    }

    /// Damages a byte: flips the bits of `mask` in every state of the file.
    ///
    /// # Panics
    /// If there is no such file or byte.
    pub fn corrupt(&self, path: impl AsRef<Path>, offset: u64, mask: u8) {
        let mut world = self.world.lock();
        let number = world.look_up(path.as_ref()).expect("a file to damage");
        let file = world.file_mut(number).expect("a file, not a directory");
        assert!(offset < file.len(), "byte {offset} is behind the end of the file");
        file.corrupt(offset, mask);
    }

    /// The content of a file. Counts as no operation and works after a crash, for looking at what is left.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let world = self.world.lock();
        let missing = || Error::io("open", path.as_ref(), std::io::ErrorKind::NotFound.into());
        let file = world.look_up(path.as_ref()).and_then(|number| world.file(number)).ok_or_else(missing)?;
        let mut bytes = vec![0; usize::try_from(file.len()).expect("a file in memory")];
        file.read(0, &mut bytes);
        Ok(bytes)
    }

    /// Makes a file with this content, or replaces the content of one, durable at once. Its directory must exist.
    /// Counts as no operation and meets no fault.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        self.world.lock().put_file(path.as_ref(), bytes)
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.world.lock().files()
    }

    /// How many file handles are open.
    pub fn open_handles(&self) -> usize {
        self.world.lock().open_handles()
    }

    fn handle(&self, number: InodeNumber, path: &Path, mode: OpenMode) -> Box<dyn File> {
        Box::new(SimFile { world: Arc::clone(&self.world), number, path: path.to_path_buf(), mode })
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.world.lock();
        f.debug_struct("SimFs")
            .field("files", &world.files())
            .field("atoms", &world.atoms().len())
            .field("operations", &world.operations())
            .field("crashed", &world.has_crashed())
            .finish()
    }
}

impl FileSystem for SimFs {
    fn create_new(&self, path: &Path) -> Result<Box<dyn File>> {
        let mut world = self.world.lock();
        world.begin(Operation::Create, path)?;
        let number = world.create_file(path)?;
        world.open(number);
        Ok(self.handle(number, path, OpenMode::ReadWrite))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        let mut world = self.world.lock();
        world.begin(Operation::Open, path)?;
        let number = world.look_up_file(path)?;
        world.open(number);
        Ok(self.handle(number, path, mode))
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let mut world = self.world.lock();
        world.begin(Operation::LookUp, path)?;
        Ok(world.look_up(path).is_some())
    }

    fn file_len(&self, path: &Path) -> Result<u64> {
        let mut world = self.world.lock();
        world.begin(Operation::LookUp, path)?;
        let number = world.look_up_file(path)?;
        Ok(world.file(number).expect("looked up as a file").len())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let mut world = self.world.lock();
        world.begin(Operation::Rename, from)?;
        world.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        let mut world = self.world.lock();
        world.begin(Operation::Link, to)?;
        world.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        let mut world = self.world.lock();
        world.begin(Operation::Remove, path)?;
        world.remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let mut world = self.world.lock();
        world.begin(Operation::CreateDirectory, path)?;
        world.create_dir_all(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        let mut world = self.world.lock();
        world.begin(Operation::RemoveDirectory, path)?;
        world.remove_dir(path)
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let mut world = self.world.lock();
        world.begin(Operation::List, path)?;
        world.list(path)
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        let mut world = self.world.lock();
        match world.begin(Operation::SyncDirectory, path) {
            Ok(()) => world.sync_directory(path),
            Err(error) => {
                world.fail_sync_directory(path);
                Err(error)
            }
        }
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        let mut world = self.world.lock();
        world.begin(Operation::Lock, path)?;
        let number = match world.look_up(path) {
            Some(number) => number,
            None => world.create_file(path)?,
        };
        if !world.lock_file(number) {
            return Err(Error::new(
                ErrorKind::Locked,
                "another handle has the database open; close it first",
            )
            .at(path, 0));
        }
        Ok(Box::new(SimLock { world: Arc::clone(&self.world), number }))
    }

    fn space(&self, path: &Path) -> Result<Space> {
        let mut world = self.world.lock();
        world.begin(Operation::Space, path)?;
        let total = world.capacity_bytes.unwrap_or(1 << 50);
        Ok(Space { available: total.saturating_sub(world.used_bytes()), total })
    }

    fn map_shared(&self, _path: &Path, _len: usize) -> Result<Option<MappedFile>> {
        Ok(None)
    }
}

/// An open file.
struct SimFile {
    world: Arc<Mutex<World>>,
    number: InodeNumber,
    path: PathBuf,
    mode: OpenMode,
}

impl SimFile {
    /// Begins a changing operation; only a handle for writing may.
    fn begin_change(&self, world: &mut World, operation: Operation) -> Result<()> {
        world.begin(operation, &self.path)?;
        if self.mode == OpenMode::Read {
            return Err(Error::io("write", &self.path, std::io::ErrorKind::PermissionDenied.into()));
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut world = self.world.lock();
        let result = world.begin(Operation::Sync, &self.path);
        let has_crashed = world.has_crashed();
        let file = world.file_mut(self.number).expect("an open file stays");
        match &result {
            Ok(()) => file.sync(),
            Err(_) if has_crashed => {}
            // The kernel drops the bytes, or believes them written: a second sync succeeds without them.
            Err(_) => file.lose_pending(),
        }
        result
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut world = self.world.lock();
        world.begin(Operation::Read, &self.path)?;
        Ok(world.file(self.number).expect("an open file stays").read(offset, buffer))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut world = self.world.lock();
        self.begin_change(&mut world, Operation::Write)?;
        world.check_space(self.number, offset, bytes.len() as u64, &self.path)?;
        world.file_mut(self.number).expect("an open file stays").write(offset, bytes);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> Result<()> {
        self.sync()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let mut world = self.world.lock();
        self.begin_change(&mut world, Operation::SetLen)?;
        world.file_mut(self.number).expect("an open file stays").set_len(len);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        let mut world = self.world.lock();
        world.begin(Operation::LookUp, &self.path)?;
        Ok(world.file(self.number).expect("an open file stays").len())
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.world.lock().close(self.number);
    }
}

struct SimLock {
    world: Arc<Mutex<World>>,
    number: InodeNumber,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.world.lock().unlock_file(self.number);
    }
}
