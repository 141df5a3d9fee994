//! All files and directories, and their pending faults.
use super::atom::{Atom, AtomKind, InodeNumber, SECTOR_BYTES};
use super::clock::SimClock;
use super::content::Content;
use super::crash::Pending;
use super::directory::SimDirectory;
use super::fault::{Fault, Faults};
use super::file::SimInodeFile;
use super::operation::Operation;
use super::personality::{FsyncFailure, Personality};
use super::underlay::{Ground, Underlay};
use sapwood_base::checksum::checksum64;
use sapwood_base::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// A callback before and after every changing call.
pub(super) type Watcher = Box<dyn FnMut(&Call<'_>, &World) + Send>;

/// The moment just before or just after a changing call. See [`Moment`](super::Moment).
pub(super) struct Call<'c> {
    pub(super) number: u64,
    pub(super) operation: Operation,
    pub(super) path: &'c Path,
    pub(super) other: Option<&'c Path>,
    pub(super) after: bool,
    pub(super) failed: bool,
}

const ROOT: InodeNumber = 0;
/// Number of removed files whose bytes are kept.
const REMOVED_FILES: usize = 8;

#[derive(Clone)]
enum Inode {
    File(SimInodeFile),
    Directory(SimDirectory),
}

/// See the module.
pub(super) struct World {
    /// Shared with copies of this world, each until either changes it.
    inodes: BTreeMap<InodeNumber, Arc<Inode>>,
    next_number: InodeNumber,
    /// The contents of the last removed files.
    removed: VecDeque<Content>,
    /// The age of new atoms: incremented by each changing call. Continues in copies of this world.
    age: u64,
    pub(super) personality: Personality,
    /// The machine's clock, if one uses the file system.
    pub(super) clock: Arc<SimClock>,
    /// Number of calls of each kind.
    calls: BTreeMap<Operation, u64>,
    /// Open handles per file; a file without a name lives as long as it has one.
    handles: BTreeMap<InodeNumber, usize>,
    /// Locked files and directories, with the number of handles that share the lock; 0 if one is
    /// exclusive.
    locked: BTreeMap<InodeNumber, usize>,
    operations: u64,
    crash_at: Option<u64>,
    has_crashed: bool,
    pub(super) watcher: Option<Watcher>,
    pub(super) faults: Faults,
    pub(super) capacity_bytes: Option<u64>,
    /// Whether the limit of bytes is a quota instead of the device's size.
    pub(super) is_quota: bool,
    /// Whether files can be mapped.
    pub(super) has_mappings: bool,
    pub(super) handle_limit: Option<usize>,
    /// Base of relative paths.
    pub(super) working_directory: PathBuf,
}

fn missing(action: &str, path: &Path) -> Error {
    Error::io(action, path, io::ErrorKind::NotFound.into())
}

impl World {
    pub(super) fn new() -> World {
        let root = Arc::new(Inode::Directory(SimDirectory::default()));
        World {
            inodes: BTreeMap::from([(ROOT, root)]),
            next_number: ROOT + 1,
            removed: VecDeque::new(),
            age: 0,
            personality: Personality::Weakest,
            clock: Arc::default(),
            calls: BTreeMap::new(),
            handles: BTreeMap::new(),
            locked: BTreeMap::new(),
            operations: 0,
            crash_at: None,
            has_crashed: false,
            watcher: None,
            faults: Faults::default(),
            capacity_bytes: None,
            is_quota: false,
            has_mappings: false,
            handle_limit: None,
            working_directory: PathBuf::from("/"),
        }
    }

    /// Creates a world with these files and directories and otherwise only the state that outlives
    /// a process.
    fn successor(&self, inodes: BTreeMap<InodeNumber, Arc<Inode>>) -> World {
        let mut world = World {
            inodes,
            next_number: self.next_number,
            removed: self.removed.clone(),
            age: self.age,
            personality: self.personality,
            has_mappings: self.has_mappings,
            clock: Arc::clone(&self.clock),
            ..World::new()
        };
        world.collect_garbage();
        world
    }

    // ---- faults ----

    /// Begins a call that changes nothing: it fails if the world has stopped, or if a rule says so.
    /// Otherwise returns a fault to apply that is no error.
    pub(super) fn begin(&mut self, operation: Operation, path: &Path) -> Result<Option<Fault>> {
        self.check_alive(operation, path)?;
        match self.meet(operation, path, self.operations) {
            Some(fault) if fault.is_error() => Err(fault.error(operation, path)),
            fault => Ok(fault),
        }
    }

    /// Counts the call and returns its fault.
    fn meet(&mut self, operation: Operation, path: &Path, number: u64) -> Option<Fault> {
        *self.calls.entry(operation).or_default() += 1;
        let needs_handle = Fault::TooManyOpen.applies_to(operation);
        if needs_handle
            && self.handle_limit.is_some_and(|limit| self.open_handles() + self.held_locks() >= limit)
        {
            return Some(Fault::TooManyOpen);
        }
        let fault = self.faults.meet(operation, path, number)?;
        match fault {
            Fault::Latency(milliseconds) => {
                self.clock.advance(u64::from(milliseconds) * 1_000_000);
                None
            }
            Fault::ClockJump(seconds) => {
                self.clock.jump(i64::from(seconds) * 1_000_000_000);
                None
            }
            fault => Some(fault),
        }
    }

    pub(super) fn calls(&self, operation: Operation) -> u64 {
        self.calls.get(&operation).copied().unwrap_or(0)
    }

    /// Executes a call that changes something, unless the world has stopped or stops here; notifies
    /// the watcher. `apply` receives the fault of the call, if there is one. `other` is the second
    /// name of a call with two.
    pub(super) fn change<T>(
        &mut self,
        operation: Operation,
        path: &Path,
        other: Option<&Path>,
        apply: impl FnOnce(&mut World, Option<Fault>) -> Result<T>,
    ) -> Result<T> {
        self.has_crashed |= self.crash_at == Some(self.operations);
        self.check_alive(operation, path)?;
        let number = self.operations;
        self.operations += 1;
        self.age += 1;
        self.tell(number, operation, path, other, None);
        let fault = self.meet(operation, path, number);
        let result = apply(self, fault);
        self.tell(number, operation, path, other, Some(result.is_err()));
        result
    }

    /// A store into a mapping: a crash point like a write, but no call, so that no fault applies.
    pub(super) fn store(&mut self, number: InodeNumber, path: &Path, offset: u64, bytes: &[u8]) {
        self.has_crashed |= self.crash_at == Some(self.operations);
        if self.has_crashed {
            return;
        }
        let operation = self.operations;
        self.operations += 1;
        self.age += 1;
        self.tell(operation, Operation::Write, path, None, None);
        let age = self.age;
        self.file_mut(number).expect("a mapped file stays").write(offset, bytes, age);
        self.tell(operation, Operation::Write, path, None, Some(false));
    }

    /// [`World::change`] for calls that an error simply prevents.
    pub(super) fn change_names<T>(
        &mut self,
        operation: Operation,
        path: &Path,
        other: Option<&Path>,
        apply: impl FnOnce(&mut World) -> Result<T>,
    ) -> Result<T> {
        self.change(operation, path, other, |world, fault| match fault {
            None => apply(world),
            Some(fault) => {
                if fault == Fault::ErrorButApplied {
                    apply(world)?;
                }
                Err(fault.error(operation, path))
            }
        })
    }

    fn check_alive(&self, operation: Operation, path: &Path) -> Result<()> {
        match self.has_crashed {
            true => Err(operation.failed(path, io::Error::other("the simulated machine has crashed"))),
            false => Ok(()),
        }
    }

    fn tell(
        &mut self,
        number: u64,
        operation: Operation,
        path: &Path,
        other: Option<&Path>,
        failed: Option<bool>,
    ) {
        // Taken out of the world while it inspects the world.
        let Some(mut watcher) = self.watcher.take() else { return };
        let (after, failed) = (failed.is_some(), failed == Some(true));
        watcher(&Call { number, operation, path, other, after, failed }, self);
        self.watcher = Some(watcher);
    }

    pub(super) fn held_locks(&self) -> usize {
        self.locked.len()
    }

    pub(super) fn open_handles(&self) -> usize {
        self.handles.values().sum()
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn crash_at(&mut self, operation: u64) {
        // A number that has already passed would never match.
        self.has_crashed = operation < self.operations;
        self.crash_at = Some(operation);
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.has_crashed
    }

    /// The world after a power loss that keeps exactly the atoms for which `kept` is true.
    /// `pending` has all atoms.
    pub(super) fn crashed(&self, pending: &Pending, mut kept: Vec<bool>, underlay: Underlay) -> World {
        debug_assert_eq!(pending.len(), kept.len());
        let durable_len = |number| self.file(number).map_or(0, |file| file.durable().len());
        self.personality.admit(pending, &mut kept, durable_len);
        // Only the weakest file system writes a length ahead of its bytes.
        let underlay = if self.personality == Personality::Weakest { underlay } else { Underlay::Zeros };
        let mut inodes = BTreeMap::new();
        let mut rest = &kept[..];
        for (&number, inode) in &self.inodes {
            let kept = rest.split_off(..inode.atom_count()).expect("one answer per atom");
            let after = match &**inode {
                Inode::File(file) if !file.is_clean() => {
                    let ground = Ground::new(underlay, number, &self.removed);
                    Arc::new(Inode::File(file.crashed(kept, ground.as_ref())))
                }
                Inode::Directory(directory) if !directory.is_clean() => {
                    Arc::new(Inode::Directory(directory.crashed(kept)))
                }
                Inode::File(_) | Inode::Directory(_) => Arc::clone(inode),
            };
            inodes.insert(number, after);
        }
        self.successor(inodes)
    }

    /// The world after the end of the process; also a copy of everything on the device.
    pub(super) fn killed(&self) -> World {
        self.successor(self.inodes.clone())
    }

    pub(super) fn atom_count(&self) -> usize {
        self.inodes.values().map(|inode| inode.atom_count()).sum()
    }

    pub(super) fn pending(&self) -> Pending {
        let mut atoms = Vec::new();
        for (&inode, object) in &self.inodes {
            let count = object.atom_count();
            let mut add = |(position, (age, kind)): (usize, (u64, AtomKind))| {
                atoms.push(Atom { inode, position, count, age, kind });
            };
            match &**object {
                Inode::File(file) => file.atoms().enumerate().for_each(&mut add),
                Inode::Directory(directory) => directory.atoms().enumerate().for_each(&mut add),
            }
        }
        Pending::new(atoms)
    }

    /// A hash of all names and contents, as calls see them and as a power loss leaves them if it
    /// keeps no atom. Two worlds equal in these have the same hash, whatever their history.
    pub(super) fn hash(&self) -> u64 {
        self.hash_of(ROOT, &mut HashMap::new())
    }

    fn hash_of(&self, number: InodeNumber, known: &mut HashMap<InodeNumber, u64>) -> u64 {
        if let Some(hash) = known.get(&number) {
            return *hash;
        }
        let hash = match self.inodes.get(&number).map(|inode| &**inode) {
            // A name that was made durable before the file got one of another kind: no crash state
            // has it.
            None => 0,
            Some(Inode::File(file)) => {
                let hashes = [file.cached().hash(), file.durable().hash()];
                checksum64(&hashes.map(u64::to_le_bytes).concat(), 1)
            }
            Some(Inode::Directory(directory)) => {
                let mut bytes = Vec::new();
                let mut add = |name: &OsStr, hash: u64| {
                    let name = name.as_encoded_bytes();
                    bytes.extend_from_slice(&(name.len() as u64).to_le_bytes());
                    bytes.extend_from_slice(name);
                    bytes.extend_from_slice(&hash.to_le_bytes());
                };
                directory.names().for_each(|(name, number)| add(name, self.hash_of(number, known)));
                add(OsStr::new("/"), 0);
                directory.durable_names().for_each(|(name, number)| add(name, self.hash_of(number, known)));
                checksum64(&bytes, 2)
            }
        };
        known.insert(number, hash);
        hash
    }

    /// Drops inodes that no name, no handle and no crash can reach.
    fn collect_garbage(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut to_visit = vec![ROOT];
        while let Some(number) = to_visit.pop() {
            if let Some(directory) = self.directory(number) {
                to_visit.extend(directory.reachable().filter(|number| reached.insert(*number)));
            }
        }
        let gone: Vec<InodeNumber> = self
            .inodes
            .keys()
            .copied()
            .filter(|number| !reached.contains(number) && !self.handles.contains_key(number))
            .collect();
        for number in gone {
            let inode = self.inodes.remove(&number);
            if let Some(Inode::File(file)) = inode.as_deref()
                && file.len() > 0
            {
                // Its sectors are free now and still contain its bytes.
                self.removed.push_back(file.cached().clone());
            }
        }
        self.removed.drain(..self.removed.len().saturating_sub(REMOVED_FILES));
    }

    // ---- names ----

    pub(super) fn look_up(&self, path: &Path) -> Option<InodeNumber> {
        let mut way = vec![ROOT];
        // An absolute path replaces the working directory.
        let path = self.working_directory.join(path);
        for component in path.components() {
            match component {
                Component::Normal(name) => {
                    let next = self.directory(*way.last()?)?.get(name)?;
                    way.push(next);
                }
                // The parent of the root is the root.
                Component::ParentDir if way.len() > 1 => drop(way.pop()),
                Component::ParentDir | Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
            }
        }
        way.pop()
    }

    pub(super) fn look_up_file(&self, path: &Path) -> Result<InodeNumber> {
        let number = self.look_up(path).ok_or_else(|| missing("open", path))?;
        match self.inodes.get(&number).map(|inode| &**inode) {
            Some(Inode::File(_)) => Ok(number),
            _ => Err(Error::io("open", path, io::ErrorKind::IsADirectory.into())),
        }
    }

    pub(super) fn look_up_directory(&self, path: &Path) -> Result<InodeNumber> {
        let number = self.look_up(path).ok_or_else(|| missing("open directory", path))?;
        match self.directory(number) {
            Some(_) => Ok(number),
            None => Err(Error::io("open directory", path, io::ErrorKind::NotADirectory.into())),
        }
    }

    /// The path of a directory, if it has one.
    pub(super) fn path_of(&self, number: InodeNumber) -> Option<PathBuf> {
        let mut to_visit = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, visited)) = to_visit.pop() {
            if visited == number {
                return Some(path);
            }
            let names = self.directory(visited).into_iter().flat_map(SimDirectory::names);
            to_visit.extend(names.map(|(name, number)| (path.join(name), number)));
        }
        None
    }

    /// The directory that contains `path`, and the last name of `path`.
    fn parent<'p>(&self, action: &str, path: &'p Path) -> Result<(InodeNumber, &'p OsStr)> {
        let name = path.file_name().ok_or_else(|| missing(action, path))?;
        let parent =
            self.look_up(path.parent().unwrap_or(Path::new(""))).ok_or_else(|| missing(action, path))?;
        if self.directory(parent).is_none() {
            return Err(Error::io(action, path, io::ErrorKind::NotADirectory.into()));
        }
        Ok((parent, name))
    }

    fn directory(&self, number: InodeNumber) -> Option<&SimDirectory> {
        match self.inodes.get(&number).map(|inode| &**inode) {
            Some(Inode::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    fn directory_mut(&mut self, number: InodeNumber) -> &mut SimDirectory {
        match self.inodes.get_mut(&number).map(Arc::make_mut) {
            Some(Inode::Directory(directory)) => directory,
            _ => unreachable!("inode {number} was looked up as a directory"),
        }
    }

    pub(super) fn file(&self, number: InodeNumber) -> Option<&SimInodeFile> {
        match self.inodes.get(&number).map(|inode| &**inode) {
            Some(Inode::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Number of pages of a file that no other world shares.
    #[cfg(test)]
    pub(super) fn own_pages(&self, number: InodeNumber) -> usize {
        let is_shared = Arc::strong_count(&self.inodes[&number]) > 1;
        self.file(number).map_or(0, |file| if is_shared { 0 } else { file.cached().own_pages() })
    }

    pub(super) fn file_mut(&mut self, number: InodeNumber) -> Option<&mut SimInodeFile> {
        match self.inodes.get_mut(&number).map(Arc::make_mut) {
            Some(Inode::File(file)) => Some(file),
            _ => None,
        }
    }

    /// Writes to an open file, subject to the fault.
    pub(super) fn write(
        &mut self,
        number: InodeNumber,
        path: &Path,
        offset: u64,
        bytes: &[u8],
        fault: Option<Fault>,
    ) -> Result<()> {
        let age = self.age;
        let end = offset + bytes.len() as u64;
        let error = |fault: Fault, offset| Err(fault.error(Operation::Write, path).at(path, offset));
        let part = match fault {
            Some(fault) if fault.is_error() => return error(fault, offset),
            Some(Fault::ShortWrite(count) | Fault::TornWrite(count)) => {
                &bytes[..bytes.len().min(count as usize)]
            }
            _ => bytes,
        };
        self.check_space(number, offset, part.len() as u64, path)?;
        let file = self.file_mut(number).expect("an open file stays");
        match fault {
            Some(Fault::LostWrite) => file.write_lost(offset, bytes, age),
            Some(Fault::Misdirect(sectors)) => {
                let distance = i64::from(sectors) * SECTOR_BYTES as i64;
                // No place exists before the beginning: the write lands as far after its place
                // instead.
                let target = offset.checked_add_signed(distance).unwrap_or(offset + distance.unsigned_abs());
                file.write(target, bytes, age);
                file.extend(end, age);
            }
            Some(Fault::MisdirectFile) => {
                file.extend(end, age);
                self.write_elsewhere(number, offset, bytes);
            }
            _ => file.write(offset, part, age),
        }
        match fault {
            Some(Fault::ShortWrite(_) | Fault::TornWrite(_)) => {
                error(fault.expect("matched"), offset + part.len() as u64)
            }
            Some(Fault::ErrorButApplied) => error(Fault::ErrorButApplied, offset),
            Some(fault) => {
                self.damage(number, offset..end, fault);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A write that reaches another file: the next one that has bytes.
    fn write_elsewhere(&mut self, number: InodeNumber, offset: u64, bytes: &[u8]) {
        let has_bytes = |other: &InodeNumber| self.file(*other).is_some_and(|file| file.len() > 0);
        let later = self.inodes.range(number + 1..).map(|(other, _)| *other);
        let others = later.chain(self.inodes.range(..number).map(|(other, _)| *other));
        let Some(victim) = others.into_iter().find(has_bytes) else { return };
        let file = self.file_mut(victim).expect("found as a file");
        // The same place if the file has it, and another place otherwise.
        let start =
            if offset < file.len() { offset } else { offset % file.len() / SECTOR_BYTES * SECTOR_BYTES };
        let end = file.len().min(start + bytes.len() as u64);
        file.damage(start..end, |offset, _| bytes[(offset - start) as usize]);
    }

    /// Reads from an open file, subject to the fault.
    pub(super) fn read(
        &mut self,
        number: InodeNumber,
        offset: u64,
        buffer: &mut [u8],
        fault: Option<Fault>,
    ) -> usize {
        if let Some(fault) = fault {
            let len = self.file(number).map_or(0, SimInodeFile::len);
            self.damage(number, offset..len.min(offset.saturating_add(buffer.len() as u64)), fault);
        }
        let file = self.file(number).expect("an open file stays");
        match fault {
            Some(Fault::StaleRead) => file.read_stale(offset, buffer, self.removed.back()),
            Some(Fault::ShortRead(most)) => {
                let most = buffer.len().min(most as usize);
                file.read(offset, &mut buffer[..most])
            }
            Some(Fault::FlipRead(bit)) => {
                let count = file.read(offset, buffer);
                if count > 0 {
                    buffer[bit as usize / 8 % count] ^= 1 << (bit % 8);
                }
                count
            }
            _ => file.read(offset, buffer),
        }
    }

    /// Applies a fault to the medium below a range of a file.
    fn damage(&mut self, number: InodeNumber, range: std::ops::Range<u64>, fault: Fault) {
        let Some(len) = range.end.checked_sub(range.start).filter(|len| *len > 0) else { return };
        let file = self.file_mut(number).expect("an open file stays");
        match fault {
            Fault::FlipMedium(bit) => {
                let at = range.start + u64::from(bit) / 8 % len;
                file.damage(at..at + 1, |_, byte| byte ^ 1 << (bit % 8));
            }
            Fault::ZeroSector(sector) => {
                let first = range.start / SECTOR_BYTES;
                let count = range.end.div_ceil(SECTOR_BYTES) - first;
                let start = (first + u64::from(sector) % count) * SECTOR_BYTES;
                file.damage(start..start + SECTOR_BYTES, |_, _| 0);
            }
            _ => {}
        }
    }

    /// Sets the length of an open file.
    pub(super) fn set_len(&mut self, number: InodeNumber, len: u64) {
        let age = self.age;
        self.file_mut(number).expect("an open file stays").set_len(len, age);
    }

    fn add(&mut self, inode: Inode) -> InodeNumber {
        let number = self.next_number;
        self.next_number += 1;
        self.inodes.insert(number, Arc::new(inode));
        number
    }

    pub(super) fn create_file(&mut self, path: &Path) -> Result<InodeNumber> {
        let (parent, name) = self.parent("create", path)?;
        if self.directory(parent).is_some_and(|directory| directory.get(name).is_some()) {
            return Err(Error::io("create", path, io::ErrorKind::AlreadyExists.into()));
        }
        let number = self.add(Inode::File(SimInodeFile::default()));
        let age = self.age;
        self.directory_mut(parent).link(name, number, age);
        Ok(number)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        let (parent, from_name) = self.parent("rename", from)?;
        let (to_parent, to_name) = self.parent("rename", to)?;
        if parent != to_parent {
            return Err(Error::io("rename", from, io::ErrorKind::CrossesDevices.into()));
        }
        let age = self.age;
        let directory = self.directory_mut(parent);
        let number = directory.get(from_name).ok_or_else(|| missing("rename", from))?;
        // Two names of one file: POSIX keeps both.
        if directory.get(to_name) != Some(number) {
            directory.rename(from_name, to_name, number, age);
        }
        Ok(())
    }

    pub(super) fn hard_link(&mut self, from: &Path, to: &Path) -> Result<()> {
        let number = self.look_up_file(from)?;
        let (parent, name) = self.parent("link", to)?;
        let age = self.age;
        let directory = self.directory_mut(parent);
        if directory.get(name).is_some() {
            return Err(Error::io("link", to, io::ErrorKind::AlreadyExists.into()));
        }
        directory.link(name, number, age);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> Result<()> {
        self.look_up_file(path).map_err(|_| missing("remove", path))?;
        let (parent, name) = self.parent("remove", path)?;
        let age = self.age;
        self.directory_mut(parent).unlink(name, age);
        Ok(())
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> Result<()> {
        let mut prefix = PathBuf::new();
        let path = &self.working_directory.join(path);
        for component in path.components() {
            prefix.push(component);
            match self.look_up(&prefix) {
                Some(number) if self.directory(number).is_some() => {}
                Some(_) => {
                    return Err(Error::io("create directory", path, io::ErrorKind::NotADirectory.into()));
                }
                None => {
                    let (parent, name) = self.parent("create directory", &prefix)?;
                    let number = self.add(Inode::Directory(SimDirectory::default()));
                    let age = self.age;
                    self.directory_mut(parent).link(name, number, age);
                }
            }
        }
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> Result<()> {
        let (parent, name) = self.parent("remove directory", path)?;
        let number = self.look_up(path).ok_or_else(|| missing("remove directory", path))?;
        let refused = |kind: io::ErrorKind| Err(Error::io("remove directory", path, kind.into()));
        match self.directory(number) {
            None => refused(io::ErrorKind::NotADirectory),
            Some(directory) if directory.names().next().is_some() => {
                refused(io::ErrorKind::DirectoryNotEmpty)
            }
            Some(_) => {
                let age = self.age;
                self.directory_mut(parent).unlink(name, age);
                Ok(())
            }
        }
    }

    pub(super) fn list(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let number = self.look_up(path).ok_or_else(|| missing("list", path))?;
        match self.directory(number) {
            Some(directory) => Ok(directory.names().map(|(name, _)| PathBuf::from(name)).collect()),
            None => Err(Error::io("list", path, io::ErrorKind::NotADirectory.into())),
        }
    }

    pub(super) fn sync_directory(&mut self, path: &Path) -> Result<()> {
        let number = self.look_up(path).ok_or_else(|| missing("sync directory", path))?;
        if self.directory(number).is_none() {
            return Err(Error::io("sync directory", path, io::ErrorKind::NotADirectory.into()));
        }
        if self.personality == Personality::Ordered
            && let Some(age) = self.directory(number).and_then(SimDirectory::last_age)
        {
            self.commit_until(age);
        }
        self.directory_mut(number).sync();
        self.collect_garbage();
        Ok(())
    }

    /// Makes all names and lengths up to this age durable, in all files and directories, as a
    /// journal does.
    fn commit_until(&mut self, age: u64) {
        let concerned = |inode: &Inode| match inode {
            Inode::File(file) => file.last_length_age().is_some(),
            Inode::Directory(directory) => directory.last_age().is_some(),
        };
        for inode in self.inodes.values_mut().filter(|inode| concerned(inode)) {
            match Arc::make_mut(inode) {
                Inode::File(file) => file.sync_lengths_until(age),
                Inode::Directory(directory) => directory.sync_until(age),
            }
        }
    }

    /// Makes an open file durable, or a range of it, with the additional changes that the file
    /// system includes.
    pub(super) fn sync_file(&mut self, number: InodeNumber, range: Option<Range<u64>>) {
        let directories = || {
            self.inodes.values().filter_map(|inode| match &**inode {
                Inode::Directory(directory) => Some(directory),
                Inode::File(_) => None,
            })
        };
        let linked_at = directories().filter_map(|directory| directory.linked_at(number)).max();
        match self.personality {
            Personality::Weakest => {}
            Personality::Ordered => {
                let length_age = self.file(number).and_then(SimInodeFile::last_length_age);
                if let Some(age) = linked_at.max(length_age) {
                    self.commit_until(age);
                }
            }
            Personality::Btrfs => {
                let holders: Vec<InodeNumber> = self
                    .inodes
                    .keys()
                    .copied()
                    .filter(|holder| {
                        self.directory(*holder).is_some_and(|directory| directory.linked_at(number).is_some())
                    })
                    .collect();
                holders.into_iter().for_each(|holder| self.directory_mut(holder).sync_link(number));
            }
        }
        let file = self.file_mut(number).expect("an open file stays");
        match range {
            Some(range) => file.sync_range(range),
            None => file.sync(),
        }
    }

    /// Syncs an open file, or a range of it; fails if the fault says so or the file owes an error.
    pub(super) fn sync_or_fail(
        &mut self,
        number: InodeNumber,
        path: &Path,
        range: Option<Range<u64>>,
        fault: Option<Fault>,
    ) -> Result<()> {
        let file = self.file_mut(number).expect("an open file stays");
        let fault = if file.take_owed_error() { Some(Fault::Io) } else { fault };
        let says_so = match fault {
            None => {
                self.sync_file(number, range);
                false
            }
            Some(Fault::ErrorButApplied) => {
                self.sync_file(number, range);
                true
            }
            Some(Fault::SyncFailure(failure)) => file.fail_sync(failure),
            // The kernel drops the bytes, or treats them as written: a second sync succeeds without
            // them.
            Some(_) => file.fail_sync(FsyncFailure::Ext4),
        };
        match fault {
            Some(fault) if says_so => Err(fault.error(Operation::Sync, path)),
            _ => Ok(()),
        }
    }

    /// Fails a sync of a directory: no later sync makes its pending changes durable.
    pub(super) fn fail_sync_directory(&mut self, path: &Path) {
        if let Some(number) = self.look_up(path).filter(|&number| self.directory(number).is_some()) {
            self.directory_mut(number).lose_pending();
        }
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut to_visit = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, number)) = to_visit.pop() {
            match &*self.inodes[&number] {
                Inode::File(_) => files.push(path),
                Inode::Directory(directory) => {
                    to_visit.extend(directory.names().map(|(name, number)| (path.join(name), number)));
                }
            }
        }
        files.sort();
        files
    }

    /// Makes a file with this content, durable at once.
    pub(super) fn put_file(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let (parent, name) = self.parent("create", path)?;
        let number = match self.look_up(path) {
            Some(number) => number,
            None => self.add(Inode::File(SimInodeFile::default())),
        };
        let Some(file) = self.file_mut(number) else {
            return Err(Error::io("create", path, io::ErrorKind::IsADirectory.into()));
        };
        file.put(bytes);
        self.directory_mut(parent).put(name, number);
        Ok(())
    }

    // ---- handles, locks, space ----

    pub(super) fn open(&mut self, number: InodeNumber) {
        *self.handles.entry(number).or_default() += 1;
    }

    pub(super) fn close(&mut self, number: InodeNumber) {
        let handles = self.handles.get_mut(&number).expect("an open file");
        *handles -= 1;
        if *handles == 0 {
            self.handles.remove(&number);
        }
    }

    /// Returns false if it is locked already, in a way that does not allow this.
    pub(super) fn lock(&mut self, number: InodeNumber, shared: bool) -> bool {
        match self.locked.get_mut(&number) {
            None => {
                self.locked.insert(number, usize::from(shared));
                true
            }
            Some(sharing) if shared && *sharing > 0 => {
                *sharing += 1;
                true
            }
            Some(_) => false,
        }
    }

    pub(super) fn unlock(&mut self, number: InodeNumber) {
        match self.locked.get_mut(&number) {
            Some(sharing) if *sharing > 1 => *sharing -= 1,
            _ => drop(self.locked.remove(&number)),
        }
    }

    /// The space of files with a name or a handle, in bytes.
    pub(super) fn used_bytes(&self) -> u64 {
        let mut alive: BTreeSet<InodeNumber> = self.handles.keys().copied().collect();
        for inode in self.inodes.values() {
            if let Inode::Directory(directory) = &**inode {
                alive.extend(directory.names().map(|(_, number)| number));
            }
        }
        alive.iter().filter_map(|number| self.file(*number)).map(SimInodeFile::allocated_bytes).sum()
    }

    /// Checks that there is room for a write.
    pub(super) fn check_space(&self, number: InodeNumber, offset: u64, len: u64, path: &Path) -> Result<()> {
        let Some(capacity) = self.capacity_bytes else { return Ok(()) };
        let missing = self.file(number).map_or(0, |file| file.missing_bytes(offset, len));
        if missing > 0 && self.used_bytes() + missing > capacity {
            let fault = if self.is_quota { Fault::Quota } else { Fault::NoSpace };
            return Err(fault.error(Operation::Write, path).at(path, offset));
        }
        Ok(())
    }
}

impl Inode {
    fn atom_count(&self) -> usize {
        match self {
            Inode::File(file) => file.atoms().len(),
            Inode::Directory(directory) => directory.atoms().len(),
        }
    }
}
