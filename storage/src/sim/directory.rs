//! One directory: the names visible to calls, the names after a power loss, and the atoms between
//! the two.
use super::atom::{AtomKind, InodeNumber};
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
                // The old name may refer to another file by now, if intermediate changes were lost.
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
    /// Each with its age.
    pending: Vec<(u64, NameAtom)>,
    /// Whether a failed sync has left names that no later sync makes durable.
    has_diverged: bool,
}

impl SimDirectory {
    pub(super) fn get(&self, name: &OsStr) -> Option<InodeNumber> {
        self.cached.get(name).copied()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (&OsString, InodeNumber)> {
        self.cached.iter().map(|(name, number)| (name, *number))
    }

    /// The names that a power loss leaves if it keeps no atom.
    pub(super) fn durable_names(&self) -> impl Iterator<Item = (&OsString, InodeNumber)> {
        self.durable.iter().map(|(name, number)| (name, *number))
    }

    /// Whether every crash leaves the visible state.
    pub(super) fn is_clean(&self) -> bool {
        self.pending.is_empty() && !self.has_diverged
    }

    fn change(&mut self, age: u64, atom: NameAtom) {
        atom.apply(&mut self.cached);
        self.pending.push((age, atom));
    }

    pub(super) fn link(&mut self, name: &OsStr, number: InodeNumber, age: u64) {
        self.change(age, NameAtom::Link(name.to_owned(), number));
    }

    pub(super) fn unlink(&mut self, name: &OsStr, age: u64) {
        self.change(age, NameAtom::Unlink(name.to_owned()));
    }

    pub(super) fn rename(&mut self, from: &OsStr, to: &OsStr, number: InodeNumber, age: u64) {
        self.change(age, NameAtom::Rename(from.to_owned(), to.to_owned(), number));
    }

    /// Adds a name, durable at once.
    pub(super) fn put(&mut self, name: &OsStr, number: InodeNumber) {
        self.cached.insert(name.to_owned(), number);
        self.durable.insert(name.to_owned(), number);
    }

    /// Makes all atoms durable.
    pub(super) fn sync(&mut self) {
        for (_, atom) in self.pending.drain(..) {
            atom.apply(&mut self.durable);
        }
    }

    /// Age of the last change that is not durable.
    pub(super) fn last_age(&self) -> Option<u64> {
        self.pending.last().map(|(age, _)| *age)
    }

    /// Age of the last name of a file that is not durable.
    pub(super) fn linked_at(&self, number: InodeNumber) -> Option<u64> {
        let link =
            |(_, atom): &&(u64, NameAtom)| matches!(atom, NameAtom::Link(_, linked) if *linked == number);
        self.pending.iter().rev().find(link).map(|(age, _)| *age)
    }

    /// Makes the atoms up to this age durable.
    pub(super) fn sync_until(&mut self, age: u64) {
        let count = self.pending.partition_point(|(own, _)| *own <= age);
        for (_, atom) in self.pending.drain(..count) {
            atom.apply(&mut self.durable);
        }
    }

    /// Makes the last name of a file durable, and the earlier changes of that name.
    pub(super) fn sync_link(&mut self, number: InodeNumber) {
        let link = self
            .pending
            .iter()
            .rposition(|(_, atom)| matches!(atom, NameAtom::Link(_, linked) if *linked == number));
        let Some(link) = link else { return };
        let NameAtom::Link(name, _) = self.pending[link].1.clone() else { unreachable!("found as a link") };
        let touches = |atom: &NameAtom| match atom {
            NameAtom::Link(other, _) | NameAtom::Unlink(other) => *other == name,
            NameAtom::Rename(from, to, _) => *from == name || *to == name,
        };
        let mut position = 0;
        self.pending.retain(|(_, atom)| {
            let goes = position <= link && touches(atom);
            position += 1;
            if goes {
                atom.apply(&mut self.durable);
            }
            !goes
        });
    }

    /// Forgets that the atoms have to be made durable.
    pub(super) fn lose_pending(&mut self) {
        self.has_diverged |= !self.pending.is_empty();
        self.pending.clear();
    }

    /// Ages and kinds.
    pub(super) fn atoms(&self) -> impl ExactSizeIterator<Item = (u64, AtomKind)> + '_ {
        self.pending.iter().map(|(age, atom)| (*age, atom.kind()))
    }

    /// All inodes of a name in any state that is still possible.
    pub(super) fn reachable(&self) -> impl Iterator<Item = InodeNumber> + '_ {
        let pending = self.pending.iter().filter_map(|(_, atom)| match atom {
            NameAtom::Link(_, number) | NameAtom::Rename(_, _, number) => Some(*number),
            NameAtom::Unlink(_) => None,
        });
        self.durable.values().chain(self.cached.values()).copied().chain(pending)
    }

    /// The directory after a power loss that kept the atoms at whose positions `kept` is true.
    pub(super) fn crashed(&self, kept: &[bool]) -> SimDirectory {
        let mut names = self.durable.clone();
        for ((_, atom), _) in self.pending.iter().zip(kept).filter(|(_, kept)| **kept) {
            atom.apply(&mut names);
        }
        SimDirectory { durable: names.clone(), cached: names, ..SimDirectory::default() }
    }
}
