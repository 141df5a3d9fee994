//! A simulated machine: a file system in memory that tracks which changes a crash may lose, and a
//! clock that tests drive.
//!
//! Each file and directory has a cached state, visible to calls, and a durable one, which survives
//! a power loss. Between them are *atoms*, the smallest changes that persist or do not: one
//! 512-byte sector, one length, one name. Only a sync makes atoms durable, those of its one file or
//! directory. A crash may keep any subset of the atoms: more than any one real file system loses,
//! so that data that survives here survives on all of them.
//!
//! [`SimFs::crash`] and [`SimFs::kill`] leave the old file system unchanged and return a new one,
//! so a test can crash the same moment in many ways; [`SimFs::crash_images`] lists them.
//! [`SimFs::watch`] calls back before and after every change and can crash at such moments while a
//! program runs. [`SimFs::crash_at`] stops the world at a chosen operation. [`SimFs::fail`] makes
//! calls fail or misbehave, by rules that have a text form, and [`SimFs::set_personality`] makes
//! the device behave like a certain real file system. Shared mappings are available after
//! [`SimFs::set_has_mappings`]; `map_shared` can fail in any case, mostly for lack of memory.
//!
//! A program that keeps its own files through [`FileSystem`] can be tested the same way:
//!
//! ```
//! use sapwood_storage::fs::FileSystem;
//! use sapwood_storage::sim::SimFs;
//! use std::path::Path;
//!
//! let fs = SimFs::new();
//! let file = fs.create_new(Path::new("/journal"))?;
//! file.write_at(0, b"first")?;
//! file.sync_all()?;
//! fs.sync_directory(Path::new("/"))?;
//! file.write_at(5, b" second")?;
//! // Whatever a power loss takes now, what was synced is there.
//! for (choice, image) in fs.crash_images(1, 100) {
//!     let bytes = image.read_file("/journal")?;
//!     assert!(bytes.starts_with(b"first"), "the crash {choice} lost it");
//! }
//! # Ok::<(), sapwood_base::Error>(())
//! ```
use crate::fs::group::FileGroup;
use crate::fs::os::check_mappable;
use crate::fs::{File, FileIdentity, FileSystem, LockGuard, MappedFile, OpenMode, Space};
use crate::mapped::Simulated;
use crate::planted;
use crate::sync::Mutex;
use sapwood_base::{Error, ErrorKind, Result};
use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod operation;
mod world;
mod file;
mod directory;
mod content;
mod atom;
mod crash;
mod choice;
mod underlay;
mod images;
mod watch;
mod personality;
pub(crate) mod schedule;
mod fault;
mod clock;
mod machine;
mod user;
#[cfg(test)]
mod tests;

pub use atom::{Atom, AtomKind, SECTOR_BYTES};
pub use choice::CrashChoice;
pub use fault::{Fault, FaultMet, FaultPlan, FaultRule};
pub use images::CrashImages;
pub use operation::Operation;
pub use personality::{FsyncFailure, Personality};
pub use schedule::Schedule;
pub use underlay::Underlay;
pub use user::User;
pub use watch::Moment;

use atom::InodeNumber;
pub(crate) use clock::SimClock;
pub(crate) use machine::SimMachine;
use world::World;

/// The file system of a simulated machine. Clones are the same file system. See the module.
#[derive(Clone)]
pub struct SimFs {
    world: Arc<Mutex<World>>,
    group: Arc<FileGroup>,
    user: Option<User>,
    /// The directory of this handle, if it was made by [`FileSystem::hold`].
    held: Option<Held>,
}

/// A held directory, and its path at that time.
#[derive(Clone)]
struct Held {
    number: InodeNumber,
    path: PathBuf,
}

impl Default for SimFs {
    fn default() -> SimFs {
        SimFs::new()
    }
}

impl SimFs {
    /// Creates an empty file system: only the root directory exists.
    pub fn new() -> SimFs {
        SimFs::of(World::new())
    }

    fn of(world: World) -> SimFs {
        SimFs {
            world: Arc::new(Mutex::new(world)),
            group: FileGroup::new(usize::MAX),
            user: None,
            held: None,
        }
    }

    /// Returns the same file system for a separate user: handles opened through it count as that
    /// user's.
    pub fn for_user(&self) -> (SimFs, User) {
        let user = User::default();
        (SimFs { user: Some(user.clone()), ..self.clone() }, user)
    }

    fn changes(&self, operation: Operation, path: &Path) {
        if let Some(user) = &self.user {
            user.changes(operation, path);
        }
    }

    /// Copies everything that outlives the process: excludes files that have lost all their names,
    /// whose atoms can never be visible again.
    fn copy(&self) -> World {
        self.world.lock().killed()
    }

    /// Returns the file system after a power loss at this moment, chosen by `seed`: no atom, every
    /// atom, a prefix of each file's and directory's atoms, or any subset. The same seed makes the
    /// same choice. Seed 0 keeps nothing and seed 1 all. Handles of this file system do not work on
    /// the new one; its locks are free and its faults, limits and watcher gone.
    pub fn crash(&self, seed: u64) -> SimFs {
        let world = self.copy();
        let pending = world.pending();
        let (kept, underlay) = crash::by_seed(seed, &pending);
        SimFs::of(world.crashed(&pending, kept, underlay))
    }

    /// Returns the file system after a power loss at this moment that keeps exactly the atoms for
    /// which `survives` returns true. It is called once per atom, object by object, in order of
    /// origin within an object.
    pub fn crash_with(&self, survives: impl FnMut(&Atom) -> bool) -> SimFs {
        let world = self.copy();
        let pending = world.pending();
        let kept = pending.atoms.iter().map(survives).collect();
        SimFs::of(world.crashed(&pending, kept, Underlay::Zeros))
    }

    /// Returns the file system after a power loss at this moment by this choice.
    ///
    /// # Panics
    /// If the choice was made for another number of atoms: then its run was not repeated exactly.
    pub fn crash_by(&self, choice: &CrashChoice) -> SimFs {
        let world = self.copy();
        let pending = world.pending();
        if let Some(atoms) = choice.atoms {
            assert_eq!(atoms, pending.len(), "{choice} is for another number of atoms than are pending");
        }
        SimFs::of(world.crashed(&pending, choice.choose(&pending), choice.underlay))
    }

    /// Returns the file system after the death of the process at this moment: all writes, synced or
    /// not. A later crash can still lose unsynced ones. Costs one reference count per file,
    /// whatever its size; the two share their bytes until either changes them.
    pub fn kill(&self) -> SimFs {
        SimFs::of(self.copy())
    }

    /// All atoms that a power loss could lose now, in order of origin.
    pub fn atoms(&self) -> Vec<Atom> {
        let pending = self.copy().pending();
        (0..pending.len()).map(|place| pending.at(place).clone()).collect()
    }

    /// A hash of all names and contents, as calls see them and as a power loss leaves them if it
    /// keeps no atom. Equal file systems have equal hashes, whatever their history. Unchanged
    /// content is not hashed again.
    pub fn image_hash(&self) -> u64 {
        self.world.lock().hash()
    }

    /// How many changing operations (creation, write, length, sync, renaming, …) have been begun.
    pub fn operations(&self) -> u64 {
        self.world.lock().operations()
    }

    /// Stops the world before the changing operation with this number (counted as by
    /// [`SimFs::operations`]): it and every later call of any kind fail, and nothing more is
    /// applied. Then use [`SimFs::crash`].
    pub fn crash_at(&self, operation: u64) {
        self.world.lock().crash_at(operation);
    }

    /// Whether [`SimFs::crash_at`] has taken effect.
    pub fn has_crashed(&self) -> bool {
        self.world.lock().has_crashed()
    }

    /// Sets the kind of file system from now on, also after kills and crashes.
    pub fn set_personality(&self, personality: Personality) {
        self.world.lock().personality = personality;
    }

    /// The kind of file system.
    pub fn personality(&self) -> Personality {
        self.world.lock().personality
    }

    /// Makes calls fail or misbehave from now on. If several rules match a call, the first applies.
    pub fn fail(&self, rule: FaultRule) {
        self.world.lock().faults.add(rule);
    }

    /// [`SimFs::fail`] with each rule of a plan.
    pub fn fail_by(&self, plan: &FaultPlan) {
        plan.0.iter().for_each(|rule| self.fail(rule.clone()));
    }

    /// Removes all fault rules. Their effects remain.
    pub fn clear_faults(&self) {
        self.world.lock().faults.clear();
    }

    /// Number of calls that met a fault.
    pub fn faults_met(&self) -> u64 {
        self.world.lock().faults.log().len() as u64
    }

    /// The faults of calls so far, in order.
    pub fn faults_log(&self) -> Vec<FaultMet> {
        self.world.lock().faults.log().to_vec()
    }

    /// Number of calls of this kind: for a sweep that fails each of them once.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.world.lock().calls(operation)
    }

    /// Sets the machine's time of day forward, or back, by `seconds`, without affecting elapsed
    /// time.
    pub fn jump_clock(&self, seconds: i64) {
        self.world.lock().clock.jump(seconds.saturating_mul(1_000_000_000));
    }

    pub(crate) fn clock(&self) -> Arc<SimClock> {
        Arc::clone(&self.world.lock().clock)
    }

    /// Limits the bytes of files, in whole pages of 4 KiB; `None` for no limit. A limit below the
    /// current use only stops growth.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        let mut world = self.world.lock();
        (world.capacity_bytes, world.is_quota) = (capacity_bytes, false);
    }

    /// [`SimFs::set_capacity_bytes`] for a limit that is a quota: writes beyond it fail with
    /// `EDQUOT`.
    pub fn set_quota_bytes(&self, quota_bytes: u64) {
        let mut world = self.world.lock();
        (world.capacity_bytes, world.is_quota) = (Some(quota_bytes), true);
    }

    /// Resolves relative paths against this directory from now on; initially against the root.
    pub fn set_working_directory(&self, directory: impl AsRef<Path>) {
        self.world.lock().working_directory = directory.as_ref().to_path_buf();
    }

    /// Enables mappings of files; initially they are disabled. A mapping counts as an open file. A
    /// store into one is a crash point, and durable once its page is synced.
    pub fn set_has_mappings(&self, has_mappings: bool) {
        self.world.lock().has_mappings = has_mappings;
    }

    /// Limits how many files and locks can be open at once; `None` for no limit. Further calls fail
    /// as if the process had too many files open (`EMFILE`).
    pub fn set_handle_limit(&self, handles: Option<usize>) {
        self.world.lock().handle_limit = handles;
    }

    /// The bytes that files take, in whole pages of 4 KiB.
    pub fn used_bytes(&self) -> u64 {
        self.world.lock().used_bytes()
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
        file.damage(offset..offset + 1, |_, byte| byte ^ mask);
    }

    /// Returns the content of a file. Counts as no operation and works after a crash, to inspect
    /// the result.
    pub fn read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let world = self.world.lock();
        let missing = || Error::io("open", path.as_ref(), std::io::ErrorKind::NotFound.into());
        let file = world.look_up(path.as_ref()).and_then(|number| world.file(number)).ok_or_else(missing)?;
        let mut bytes = vec![0; usize::try_from(file.len()).expect("a file in memory")];
        file.read(0, &mut bytes);
        Ok(bytes)
    }

    /// Creates a file with this content, or replaces the content of one, durable at once. Its
    /// directory must exist. Counts as no operation and meets no fault.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        self.world.lock().put_file(path.as_ref(), bytes)
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.world.lock().files()
    }

    /// Number of held locks.
    pub fn held_locks(&self) -> usize {
        self.world.lock().held_locks()
    }

    /// Number of open file handles.
    pub fn open_handles(&self) -> usize {
        self.world.lock().open_handles()
    }

    /// Locks a file, if there is one, and the directory of `path`.
    fn take_lock(
        &self,
        world: &mut World,
        path: &Path,
        number: Option<InodeNumber>,
        shared: bool,
    ) -> Result<SimLock> {
        let directory = world.look_up_directory(path.parent().unwrap_or(Path::new("")))?;
        let mut lock =
            SimLock { world: Arc::clone(&self.world), numbers: Vec::new(), user: self.user.clone() };
        let directory = Some(directory).filter(|_| planted::locks_directory());
        for number in [directory, number].into_iter().flatten() {
            if !world.lock(number, shared) {
                lock.numbers.drain(..).for_each(|number| world.unlock(number));
                let message = "another handle has the database open; close it first";
                return Err(Error::new(ErrorKind::Locked, message).in_file(path));
            }
            lock.numbers.push(number);
        }
        if let Some(user) = &self.user {
            user.takes_lock();
        }
        Ok(lock)
    }

    /// Resolves `path`: in a held directory, against its present path.
    fn resolve<'p>(&self, world: &World, path: &'p Path) -> Result<Cow<'p, Path>> {
        let Some(held) = &self.held else { return Ok(Cow::Borrowed(path)) };
        let Ok(rest) = path.strip_prefix(&held.path) else {
            let message = format!("the path does not lie in the directory {}", held.path.display());
            return Err(Error::invalid_argument(message).in_file(path));
        };
        if world.look_up(&held.path) == Some(held.number) {
            return Ok(Cow::Borrowed(path));
        }
        match world.path_of(held.number) {
            Some(now) if rest.as_os_str().is_empty() => Ok(Cow::Owned(now)),
            Some(now) => Ok(Cow::Owned(now.join(rest))),
            None => {
                let error = Error::io("use", path, std::io::ErrorKind::NotFound.into());
                Err(error.context("the directory was removed while it was in use"))
            }
        }
    }

    fn handle(&self, number: InodeNumber, path: &Path, mode: OpenMode) -> SimFile {
        let user = self.user.clone();
        if let Some(user) = &user {
            user.opens_file();
        }
        SimFile { world: Arc::clone(&self.world), number, path: path.to_path_buf(), mode, user }
    }
}

impl fmt::Debug for SimFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let world = self.world.lock();
        f.debug_struct("SimFs")
            .field("files", &world.files())
            .field("atoms", &world.atom_count())
            .field("operations", &world.operations())
            .field("crashed", &world.has_crashed())
            .finish()
    }
}

impl FileSystem for SimFs {
    /// With the working directory at the root, the default, paths stay unchanged.
    fn absolute(&self, path: &Path) -> Result<PathBuf> {
        let world = self.world.lock();
        let is_root = world.working_directory == Path::new("/");
        Ok(if is_root { path.to_path_buf() } else { world.working_directory.join(path) })
    }

    fn hold(&self, directory: &Path) -> Result<Option<Arc<dyn FileSystem>>> {
        let mut world = self.world.lock();
        world.begin(Operation::Open, directory)?;
        let number = world.look_up_directory(directory)?;
        let held = Held { number, path: directory.to_path_buf() };
        Ok(Some(Arc::new(SimFs { held: Some(held), ..self.clone() })))
    }

    fn create_new(&self, path: &Path) -> Result<Box<dyn File>> {
        self.changes(Operation::Create, path);
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        let number = world.change_names(Operation::Create, place, None, |world| world.create_file(place))?;
        world.open(number);
        Ok(Box::new(self.handle(number, path, OpenMode::ReadWrite)))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>> {
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        world.begin(Operation::Open, place)?;
        let number = world.look_up_file(place)?;
        world.open(number);
        Ok(Box::new(self.handle(number, path, mode)))
    }

    fn file_group(&self) -> Arc<FileGroup> {
        Arc::clone(&self.group)
    }

    fn exists(&self, path: &Path) -> Result<bool> {
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        world.begin(Operation::LookUp, place)?;
        Ok(world.look_up(place).is_some())
    }

    fn file_len(&self, path: &Path) -> Result<u64> {
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        world.begin(Operation::LookUp, place)?;
        let number = world.look_up_file(place)?;
        Ok(world.file(number).expect("looked up as a file").len())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.changes(Operation::Rename, from);
        let mut world = self.world.lock();
        let (from, to) = (&*self.resolve(&world, from)?, &*self.resolve(&world, to)?);
        world.change_names(Operation::Rename, from, Some(to), |world| world.rename(from, to))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.changes(Operation::Link, to);
        let mut world = self.world.lock();
        let (from, to) = (&*self.resolve(&world, from)?, &*self.resolve(&world, to)?);
        world.change_names(Operation::Link, to, Some(from), |world| world.hard_link(from, to))
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.changes(Operation::Remove, path);
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        world.change_names(Operation::Remove, place, None, |world| world.remove_file(place))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        self.changes(Operation::CreateDirectory, path);
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        world.change_names(Operation::CreateDirectory, place, None, |world| world.create_dir_all(place))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.changes(Operation::RemoveDirectory, path);
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        world.change_names(Operation::RemoveDirectory, place, None, |world| world.remove_dir(place))
    }

    fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        world.begin(Operation::List, place)?;
        world.list(place)
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        self.changes(Operation::SyncDirectory, path);
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        world.change(Operation::SyncDirectory, place, None, |world, fault| match fault {
            None => world.sync_directory(place),
            Some(fault) => {
                match fault {
                    Fault::ErrorButApplied => world.sync_directory(place)?,
                    fault if fault.comes_first() => {}
                    _ => world.fail_sync_directory(place),
                }
                Err(fault.error(Operation::SyncDirectory, place))
            }
        })
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn LockGuard>> {
        self.changes(Operation::Lock, path);
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        let number =
            world.change_names(Operation::Lock, place, None, |world| match world.look_up(place) {
                Some(number) => Ok(number),
                None => world.create_file(place),
            })?;
        self.take_lock(&mut world, place, Some(number), false)
            .map(|lock| Box::new(lock) as Box<dyn LockGuard>)
    }

    fn lock_shared(&self, path: &Path) -> Result<Option<Box<dyn LockGuard>>> {
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        world.begin(Operation::Lock, place)?;
        let number = world.look_up(place);
        self.take_lock(&mut world, place, number, true).map(|lock| Some(Box::new(lock) as Box<dyn LockGuard>))
    }

    fn space(&self, path: &Path) -> Result<Space> {
        let mut world = self.world.lock();
        world.begin(Operation::Space, path)?;
        let total = world.capacity_bytes.unwrap_or(1 << 50);
        Ok(Space { available: total.saturating_sub(world.used_bytes()), total })
    }

    fn map_shared(&self, path: &Path, len: usize) -> Result<Option<MappedFile>> {
        let mut world = self.world.lock();
        let place = &*self.resolve(&world, path)?;
        world.begin(Operation::Map, place)?;
        let number = world.look_up_file(place)?;
        let file = world.file(number).expect("looked up as a file");
        check_mappable(path, file.len(), len)?;
        // A store into a mapping must never need room.
        if !world.has_mappings || file.missing_bytes(0, len as u64) > 0 {
            return Ok(None);
        }
        world.open(number);
        let file = self.handle(number, path, OpenMode::ReadWrite);
        Ok(Some(MappedFile::simulated(Box::new(SimMapping { file, len }), path)))
    }

    fn check_memory(&self, _bytes: usize) -> Result<()> {
        self.world.lock().begin(Operation::CheckMemory, Path::new("memory")).map(drop)
    }
}

/// An open file.
struct SimFile {
    world: Arc<Mutex<World>>,
    number: InodeNumber,
    path: PathBuf,
    mode: OpenMode,
    user: Option<User>,
}

impl SimFile {
    /// Fails unless the handle is open for writing.
    fn check_writable(&self) -> Result<()> {
        match self.mode {
            OpenMode::Read => {
                Err(Error::io("write", &self.path, std::io::ErrorKind::PermissionDenied.into()))
            }
            OpenMode::ReadWrite => Ok(()),
        }
    }

    fn changes(&self, operation: Operation) {
        if let Some(user) = &self.user {
            user.changes(operation, &self.path);
        }
    }

    fn sync(&self) -> Result<()> {
        self.changes(Operation::Sync);
        self.world.lock().change(Operation::Sync, &self.path, None, |world, fault| {
            world.sync_or_fail(self.number, &self.path, None, fault)
        })
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut world = self.world.lock();
        let fault = world.begin(Operation::Read, &self.path)?;
        Ok(world.read(self.number, offset, buffer, fault))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.changes(Operation::Write);
        self.world.lock().change(Operation::Write, &self.path, None, |world, fault| {
            self.check_writable()?;
            world.write(self.number, &self.path, offset, bytes, fault)
        })
    }

    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> Result<()> {
        self.sync()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.changes(Operation::SetLen);
        self.world.lock().change_names(Operation::SetLen, &self.path, None, |world| {
            self.check_writable()?;
            world.set_len(self.number, len);
            Ok(())
        })
    }

    fn len(&self) -> Result<u64> {
        let mut world = self.world.lock();
        world.begin(Operation::LookUp, &self.path)?;
        Ok(world.file(self.number).expect("an open file stays").len())
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn identity(&self) -> Result<Option<FileIdentity>> {
        Ok(Some(FileIdentity { device: 0, inode: self.number }))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if let Some(user) = &self.user {
            user.closes_file();
        }
        self.world.lock().close(self.number);
    }
}

/// The first bytes of a file, mapped.
struct SimMapping {
    file: SimFile,
    len: usize,
}

impl Simulated for SimMapping {
    fn len(&self) -> usize {
        self.len
    }

    fn store(&self, offset: usize, bytes: &[u8]) {
        self.file.changes(Operation::Write);
        self.file.world.lock().store(self.file.number, &self.file.path, offset as u64, bytes);
    }

    fn sync_range(&self, offset: usize, len: usize) -> Result<()> {
        let (number, path) = (self.file.number, &self.file.path);
        let range = offset as u64..(offset + len) as u64;
        self.file.changes(Operation::Sync);
        self.file.world.lock().change(Operation::Sync, path, None, |world, fault| {
            world.sync_or_fail(number, path, Some(range), fault)
        })
    }
}

struct SimLock {
    world: Arc<Mutex<World>>,
    /// The locked inodes.
    numbers: Vec<InodeNumber>,
    user: Option<User>,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        // A lock without inodes may be dropped while its thread uses the world.
        if self.numbers.is_empty() {
            return;
        }
        if let Some(user) = &self.user {
            user.gives_lock();
        }
        let mut world = self.world.lock();
        self.numbers.drain(..).for_each(|number| world.unlock(number));
    }
}
