//! All files and directories, and what is to befall them.
use super::atom::{Atom, AtomKind};
use super::content::Content;
use super::crash::Pending;
use super::directory::SimDirectory;
use super::fault::{Fault, Faults};
use super::file::SimInodeFile;
use super::operation::Operation;
use super::underlay::{Ground, Underlay};
use super::watch::{Moment, Watcher};
use sapwood_base::checksum::checksum64;
use sapwood_base::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Names a file or directory for all times.
pub(super) type InodeNumber = u64;

const ROOT: InodeNumber = 0;
/// Of how many removed files the bytes are remembered.
const REMOVED_FILES: usize = 8;

#[derive(Clone)]
enum Inode {
    File(SimInodeFile),
    Directory(SimDirectory),
}

/// See the module.
pub(super) struct World {
    /// Shared with the worlds that were taken from this one, each until either changes it.
    inodes: BTreeMap<InodeNumber, Arc<Inode>>,
    next_number: InodeNumber,
    /// The contents of files that are gone, the last ones.
    removed: VecDeque<Content>,
    /// The age of the atoms that arise now: one more with each changing call. Goes on in worlds taken from this one.
    age: u64,
    /// Open handles per file; a file without a name lives as long as it has one.
    handles: BTreeMap<InodeNumber, usize>,
    locked: BTreeSet<InodeNumber>,
    operations: u64,
    crash_at: Option<u64>,
    has_crashed: bool,
    pub(super) watcher: Option<Watcher>,
    pub(super) faults: Faults,
    pub(super) capacity_bytes: Option<u64>,
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
            handles: BTreeMap::new(),
            locked: BTreeSet::new(),
            operations: 0,
            crash_at: None,
            has_crashed: false,
            watcher: None,
            faults: Faults::default(),
            capacity_bytes: None,
        }
    }

    /// A world with these files and directories and otherwise only what outlives a process.
    fn successor(&self, inodes: BTreeMap<InodeNumber, Arc<Inode>>) -> World {
        let mut world = World {
            inodes,
            next_number: self.next_number,
            removed: self.removed.clone(),
            age: self.age,
            ..World::new()
        };
        world.collect_garbage();
        world
    }

    // ---- what befalls ----

    /// Begins a call that changes nothing: it fails if the world has stopped, or if a rule says so.
    pub(super) fn begin(&mut self, operation: Operation, path: &Path) -> Result<()> {
        self.check_alive(operation, path)?;
        match self.faults.meet(operation, path) {
            Some(fault) => Err(fault.error(operation, path)),
            None => Ok(()),
        }
    }

    pub(super) fn open_handles(&self) -> usize {
        self.handles.values().sum()
    }

    /// Carries out a call that changes something, unless the world has stopped or stops here; tells the watcher.
    /// `apply` gets the fault that the call meets, if there is one. `other` is the second name of a call with two.
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
        let fault = self.faults.meet(operation, path);
        let result = apply(self, fault);
        self.tell(number, operation, path, other, Some(result.is_err()));
        result
    }

    /// [`World::change`] for calls that a fault simply keeps from happening.
    pub(super) fn change_names<T>(
        &mut self,
        operation: Operation,
        path: &Path,
        other: Option<&Path>,
        apply: impl FnOnce(&mut World) -> Result<T>,
    ) -> Result<T> {
        self.change(operation, path, other, |world, fault| match fault {
            Some(fault) => Err(fault.error(operation, path)),
            None => apply(world),
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
        // Out of the world while it looks at the world.
        let Some(mut watcher) = self.watcher.take() else { return };
        let (after, failed) = (failed.is_some(), failed == Some(true));
        watcher(&Moment { number, operation, path, other, after, failed, world: self });
        self.watcher = Some(watcher);
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    pub(super) fn crash_at(&mut self, operation: u64) {
        // A place that was passed already would never be met.
        self.has_crashed = operation < self.operations;
        self.crash_at = Some(operation);
    }

    pub(super) fn has_crashed(&self) -> bool {
        self.has_crashed
    }

    /// What a power loss leaves that keeps the atoms of `pending`, which are all that there are, for which `kept` is
    /// true.
    pub(super) fn crashed(&self, pending: &Pending, kept: Vec<bool>, underlay: Underlay) -> World {
        debug_assert_eq!(pending.len(), kept.len());
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

    /// What the end of the process leaves; also simply a copy of everything that is on the device.
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

    /// A hash of all names and contents, as calls see them and as a power loss leaves them if it keeps no atom. Two
    /// worlds in which all that is the same have the same hash, however they came about.
    pub(super) fn hash(&self) -> u64 {
        self.hash_of(ROOT, &mut HashMap::new())
    }

    fn hash_of(&self, number: InodeNumber, known: &mut HashMap<InodeNumber, u64>) -> u64 {
        if let Some(hash) = known.get(&number) {
            return *hash;
        }
        let hash = match self.inodes.get(&number).map(|inode| &**inode) {
            // A name that was made durable before the file got one of another kind: no crash state has it.
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

    /// Drops what no name, no handle and no crash can reach.
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
                // Its sectors are free now and still hold its bytes.
                self.removed.push_back(file.cached().clone());
            }
        }
        self.removed.drain(..self.removed.len().saturating_sub(REMOVED_FILES));
    }

    // ---- names ----

    pub(super) fn look_up(&self, path: &Path) -> Option<InodeNumber> {
        let mut way = vec![ROOT];
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

    /// The directory that holds `path`, and the last name of it.
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

    /// How many pages of a file no other world shares.
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

    /// Writes to a file that is open.
    pub(super) fn write(&mut self, number: InodeNumber, offset: u64, bytes: &[u8]) {
        let age = self.age;
        self.file_mut(number).expect("an open file stays").write(offset, bytes, age);
    }

    /// Sets the length of a file that is open.
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
        // Two names of one file: POSIX leaves both.
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
        self.directory_mut(number).sync();
        self.collect_garbage();
        Ok(())
    }

    /// A sync of a directory has failed: what it should have made durable will not become so by another one.
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

    /// False if it is locked already.
    pub(super) fn lock_file(&mut self, number: InodeNumber) -> bool {
        self.locked.insert(number)
    }

    pub(super) fn unlock_file(&mut self, number: InodeNumber) {
        self.locked.remove(&number);
    }

    /// The space that files with a name or a handle take, in bytes.
    pub(super) fn used_bytes(&self) -> u64 {
        let mut alive: BTreeSet<InodeNumber> = self.handles.keys().copied().collect();
        for inode in self.inodes.values() {
            if let Inode::Directory(directory) = &**inode {
                alive.extend(directory.names().map(|(_, number)| number));
            }
        }
        alive.iter().filter_map(|number| self.file(*number)).map(SimInodeFile::allocated_bytes).sum()
    }

    /// Whether there is room for a write.
    pub(super) fn check_space(&self, number: InodeNumber, offset: u64, len: u64, path: &Path) -> Result<()> {
        let Some(capacity) = self.capacity_bytes else { return Ok(()) };
        let missing = self.file(number).map_or(0, |file| file.missing_bytes(offset, len));
        if missing > 0 && self.used_bytes() + missing > capacity {
            return Err(Operation::Write.failed(path, io::ErrorKind::StorageFull.into()).at(path, offset));
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
