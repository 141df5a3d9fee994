//! The states after a crash, and the state of now as a hash.
use super::{Inode, REMOVED_FILES, ROOT, World};
use crate::sim::atom::{Atom, AtomKind, InodeNumber};
use crate::sim::crash::Pending;
use crate::sim::personality::Personality;
use crate::sim::underlay::{Ground, Underlay};
use sapwood_base::checksum::checksum64;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::sync::Arc;

impl World {
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

    /// The world after a power loss that keeps exactly the atoms for which `kept` is true.
    /// `pending` has all atoms.
    pub(in crate::sim) fn crashed(
        &self,
        pending: &Pending,
        mut kept: Vec<bool>,
        underlay: Underlay,
    ) -> World {
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
    pub(in crate::sim) fn killed(&self) -> World {
        self.successor(self.inodes.clone())
    }

    pub(in crate::sim) fn atom_count(&self) -> usize {
        self.inodes.values().map(|inode| inode.atom_count()).sum()
    }

    pub(in crate::sim) fn pending(&self) -> Pending {
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
    pub(in crate::sim) fn hash(&self) -> u64 {
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
    pub(super) fn collect_garbage(&mut self) {
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
}
