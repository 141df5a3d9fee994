//! All files and directories, and their pending faults.
use super::atom::InodeNumber;
use super::clock::SimClock;
use super::content::Content;
use super::directory::SimDirectory;
use super::fault::Faults;
use super::file::SimInodeFile;
use super::operation::Operation;
use super::personality::Personality;
use sapwood_base::Error;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

mod bytes;
mod calls;
mod crash;
mod names;
mod sync;

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

    pub(super) fn held_locks(&self) -> usize {
        self.locked.len()
    }

    pub(super) fn open_handles(&self) -> usize {
        self.handles.values().sum()
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

    fn add(&mut self, inode: Inode) -> InodeNumber {
        let number = self.next_number;
        self.next_number += 1;
        self.inodes.insert(number, Arc::new(inode));
        number
    }

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
}

impl Inode {
    fn atom_count(&self) -> usize {
        match self {
            Inode::File(file) => file.atoms().len(),
            Inode::Directory(directory) => directory.atoms().len(),
        }
    }
}
