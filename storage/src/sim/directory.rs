//! One directory: names that calls see, names that a power loss leaves, and the atoms between the two.
use super::atom::AtomKind;
use super::world::InodeNumber;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

type Names = BTreeMap<OsString, InodeNumber>;

#[derive(Clone)]
enum NameAtom {
    Link(OsString, InodeNumber),
    Unlink(OsString),
    Rename(OsString, OsString, InodeNumber),
}

impl NameAtom {
    fn kind(&self) -> AtomKind {
        match self {
            NameAtom::Link(name, number) => AtomKind::Link(name.clone(), *number),
            NameAtom::Unlink(name) => AtomKind::Unlink(name.clone()),
            NameAtom::Rename(from, to, _) => AtomKind::Rename(from.clone(), to.clone()),
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            NameAtom::Link(name, number) => {
                names.insert(name.clone(), *number);
            }
            NameAtom::Unlink(name) => {
                names.remove(name);
            }
            NameAtom::Rename(from, to, number) => {
                // The old name may mean another file by now, if what came between was lost.
                if names.get(from) == Some(number) {
                    names.remove(from);
                }
                names.insert(to.clone(), *number);
            }
        }
    }
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct SimDirectory {
    durable: Names,
    cached: Names,
    pending: Vec<NameAtom>,
}

impl SimDirectory {
    pub(super) fn get(&self, name: &OsStr) -> Option<InodeNumber> {
        self.cached.get(name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&OsString, InodeNumber)> {
        self.cached.iter().map(|(name, number)| (name, *number))
    }

    fn change(&mut self, atom: NameAtom) {
        atom.apply(&mut self.cached);
        self.pending.push(atom);
    }

    pub(super) fn link(&mut self, name: &OsStr, number: InodeNumber) {
        self.change(NameAtom::Link(name.to_owned(), number));
    }

    pub(super) fn unlink(&mut self, name: &OsStr) {
        self.change(NameAtom::Unlink(name.to_owned()));
    }

    pub(super) fn rename(&mut self, from: &OsStr, to: &OsStr, number: InodeNumber) {
        self.change(NameAtom::Rename(from.to_owned(), to.to_owned(), number));
    }

    /// Adds a name, durable at once.
    pub(super) fn put(&mut self, name: &OsStr, number: InodeNumber) {
        self.cached.insert(name.to_owned(), number);
        self.durable.insert(name.to_owned(), number);
    }

    /// Makes all atoms durable.
    pub(super) fn sync(&mut self) {
        for atom in self.pending.drain(..) {
            atom.apply(&mut self.durable);
        }
    }

    /// Forgets that the atoms have to be made durable.
    pub(super) fn lose_pending(&mut self) {
        self.pending.clear();
    }

    pub(super) fn atoms(&self) -> impl ExactSizeIterator<Item = AtomKind> + '_ {
        self.pending.iter().map(NameAtom::kind)
    }

    /// Whatever a name meant in some state that is still possible.
    pub(super) fn reachable(&self) -> impl Iterator<Item = InodeNumber> + '_ {
        let pending = self.pending.iter().filter_map(|atom| match atom {
            NameAtom::Link(_, number) | NameAtom::Rename(_, _, number) => Some(*number),
            NameAtom::Unlink(_) => None,
        });
        self.durable.values().chain(self.cached.values()).copied().chain(pending)
    }

    /// The directory after a power loss that kept the atoms for which `survives` says so, by position.
    pub(super) fn crashed(&self, mut survives: impl FnMut(usize, AtomKind) -> bool) -> SimDirectory {
        let mut names = self.durable.clone();
        for (position, atom) in self.pending.iter().enumerate() {
            if survives(position, atom.kind()) {
                atom.apply(&mut names);
            }
        }
        SimDirectory { durable: names.clone(), cached: names, pending: Vec::new() }
    }
}
