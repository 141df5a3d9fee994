//! All files and directories, and what is to befall them.
use super::atom::{Atom, AtomKind};
use super::directory::SimDirectory;
use super::fault::{Faults, Operation};
use super::file::SimInodeFile;
use sapwood_base::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};

/// Names a file or directory for all times.
pub(super) type InodeNumber = u64;

const ROOT: InodeNumber = 0;

#[derive(Clone)]
enum Inode {
    File(SimInodeFile),
    Directory(SimDirectory),
}

/// See the module.
pub(super) struct World {
    inodes: BTreeMap<InodeNumber, Inode>,
    next_number: InodeNumber,
    /// Open handles per file; a file without a name lives as long as it has one.
    handles: BTreeMap<InodeNumber, usize>,
    locked: BTreeSet<InodeNumber>,
    operations: u64,
    crash_at: Option<u64>,
    has_crashed: bool,
    pub(super) faults: Faults,
    pub(super) capacity_bytes: Option<u64>,
}

fn missing(action: &str, path: &Path) -> Error {
    Error::io(action, path, io::ErrorKind::NotFound.into())
}

impl World {
    pub(super) fn new() -> World {
        World::of(BTreeMap::from([(ROOT, Inode::Directory(SimDirectory::default()))]), ROOT + 1)
    }

    fn of(inodes: BTreeMap<InodeNumber, Inode>, next_number: InodeNumber) -> World {
        World {
            inodes,
            next_number,
            handles: BTreeMap::new(),
            locked: BTreeSet::new(),
            operations: 0,
            crash_at: None,
            has_crashed: false,
            faults: Faults::default(),
            capacity_bytes: None,
        }
    }

    // ---- what befalls ----

    /// Begins a call: counts it if it changes something, and lets it fail if the world has stopped or a rule says so.
    pub(super) fn begin(&mut self, operation: Operation, path: &Path) -> Result<()> {
        if operation.is_change() && !self.has_crashed {
            self.has_crashed = self.crash_at == Some(self.operations);
            self.operations += u64::from(!self.has_crashed);
        }
        if self.has_crashed {
            return Err(operation.failed(path, io::Error::other("the simulated machine has crashed")));
        }
        match self.faults.meet(operation, path) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub(super) fn open_handles(&self) -> usize {
        self.handles.values().sum()
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

    pub(super) fn crashed(&self, survives: &mut dyn FnMut(&Atom) -> bool) -> World {
        let mut inodes = BTreeMap::new();
        for (&inode, object) in &self.inodes {
            let count = object.atom_count();
            let mut survives = |position, kind| survives(&Atom { inode, position, count, kind });
            let object = match object {
                Inode::File(file) => Inode::File(file.crashed(&mut survives)),
                Inode::Directory(directory) => Inode::Directory(directory.crashed(&mut survives)),
            };
            inodes.insert(inode, object);
        }
        let mut world = World::of(inodes, self.next_number);
        world.collect_garbage();
        world
    }

    pub(super) fn killed(&self) -> World {
        let mut world = World::of(self.inodes.clone(), self.next_number);
        world.collect_garbage();
        world
    }

    pub(super) fn atoms(&self) -> Vec<Atom> {
        let mut atoms = Vec::new();
        for (&inode, object) in &self.inodes {
            let count = object.atom_count();
            let mut add = |(position, kind): (usize, AtomKind)| {
                atoms.push(Atom { inode, position, count, kind });
            };
            match object {
                Inode::File(file) => file.atoms().enumerate().for_each(&mut add),
                Inode::Directory(directory) => directory.atoms().enumerate().for_each(&mut add),
            }
        }
        atoms
    }

    /// Drops what no name, no handle and no crash can reach.
    fn collect_garbage(&mut self) {
        let mut reached = BTreeSet::from([ROOT]);
        let mut to_visit = vec![ROOT];
        while let Some(number) = to_visit.pop() {
            if let Some(Inode::Directory(directory)) = self.inodes.get(&number) {
                to_visit.extend(directory.reachable().filter(|number| reached.insert(*number)));
            }
        }
        let handles = &self.handles;
        self.inodes.retain(|number, _| reached.contains(number) || handles.contains_key(number));
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
        match self.inodes.get(&number) {
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
        match self.inodes.get(&number) {
            Some(Inode::Directory(directory)) => Some(directory),
            _ => None,
        }
    }

    fn directory_mut(&mut self, number: InodeNumber) -> &mut SimDirectory {
        match self.inodes.get_mut(&number) {
            Some(Inode::Directory(directory)) => directory,
            _ => unreachable!("inode {number} was looked up as a directory"),
        }
    }

    pub(super) fn file(&self, number: InodeNumber) -> Option<&SimInodeFile> {
        match self.inodes.get(&number) {
            Some(Inode::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn file_mut(&mut self, number: InodeNumber) -> Option<&mut SimInodeFile> {
        match self.inodes.get_mut(&number) {
            Some(Inode::File(file)) => Some(file),
            _ => None,
        }
    }

    fn add(&mut self, inode: Inode) -> InodeNumber {
        let number = self.next_number;
        self.next_number += 1;
        self.inodes.insert(number, inode);
        number
    }

    pub(super) fn create_file(&mut self, path: &Path) -> Result<InodeNumber> {
        let (parent, name) = self.parent("create", path)?;
        if self.directory(parent).is_some_and(|directory| directory.get(name).is_some()) {
            return Err(Error::io("create", path, io::ErrorKind::AlreadyExists.into()));
        }
        let number = self.add(Inode::File(SimInodeFile::default()));
        self.directory_mut(parent).link(name, number);
        Ok(number)
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        let (parent, from_name) = self.parent("rename", from)?;
        let (to_parent, to_name) = self.parent("rename", to)?;
        if parent != to_parent {
            return Err(Error::io("rename", from, io::ErrorKind::CrossesDevices.into()));
        }
        let directory = self.directory_mut(parent);
        let number = directory.get(from_name).ok_or_else(|| missing("rename", from))?;
        // Two names of one file: POSIX leaves both.
        if directory.get(to_name) != Some(number) {
            directory.rename(from_name, to_name, number);
        }
        Ok(())
    }

    pub(super) fn hard_link(&mut self, from: &Path, to: &Path) -> Result<()> {
        let number = self.look_up_file(from)?;
        let (parent, name) = self.parent("link", to)?;
        let directory = self.directory_mut(parent);
        if directory.get(name).is_some() {
            return Err(Error::io("link", to, io::ErrorKind::AlreadyExists.into()));
        }
        directory.link(name, number);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> Result<()> {
        self.look_up_file(path).map_err(|_| missing("remove", path))?;
        let (parent, name) = self.parent("remove", path)?;
        self.directory_mut(parent).unlink(name);
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
                    self.directory_mut(parent).link(name, number);
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
                self.directory_mut(parent).unlink(name);
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
        if self.has_crashed {
            return;
        }
        if let Some(number) = self.look_up(path).filter(|&number| self.directory(number).is_some()) {
            self.directory_mut(number).lose_pending();
        }
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut to_visit = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, number)) = to_visit.pop() {
            match &self.inodes[&number] {
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
            if let Inode::Directory(directory) = inode {
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
