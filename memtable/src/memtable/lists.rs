//! The skiplists of a memtable, by keyspace number.
//!
//! Numbers are never reused, so a database with few keyspaces may have high numbers, and a damaged
//! MANIFEST may contain any number. Memory therefore is proportional to the written keyspaces, not
//! to their numbers. The first numbers, which suffice for most databases, are in one array; the
//! others in a tree of three levels.
use crate::skiplist::Skiplist;
use sapwood_base::KeyspaceId;
use sapwood_base::key::MAX_KEYSPACES;
use std::sync::OnceLock;

/// Keyspaces below this number are found with one load.
const NEAR: usize = 64;
/// Slots per table of the tree.
const FANOUT: usize = 128;

const _: () = assert!(MAX_KEYSPACES as usize <= FANOUT * FANOUT * FANOUT);

type Table<T> = Box<[OnceLock<T>]>;
/// Place of the list of one keyspace.
pub(super) type Slot = OnceLock<Box<Skiplist>>;

/// The lists. Every method may be called from any thread.
pub(super) struct Lists {
    near: Box<[Slot]>,
    far: OnceLock<Table<Table<Box<[Slot]>>>>,
}

fn table<T>(slots: usize) -> Table<T> {
    (0..slots).map(|_| OnceLock::new()).collect()
}

/// Path of a number through the tree.
fn way(number: usize) -> [usize; 3] {
    [number / (FANOUT * FANOUT), number / FANOUT % FANOUT, number % FANOUT]
}

impl Lists {
    pub(super) fn new() -> Lists {
        Lists { near: table(NEAR), far: OnceLock::new() }
    }

    /// The list of a keyspace, if it exists.
    #[inline]
    pub(super) fn get(&self, keyspace: KeyspaceId) -> Option<&Skiplist> {
        let number = keyspace.0 as usize;
        match self.near.get(number) {
            Some(slot) => slot.get().map(|list| &**list),
            None => self.get_far(number),
        }
    }

    fn get_far(&self, number: usize) -> Option<&Skiplist> {
        let [top, middle, bottom] = way(number);
        let slots = self.far.get()?.get(top)?.get()?[middle].get()?;
        slots[bottom].get().map(|list| &**list)
    }

    /// The slot of a keyspace. `None` if the number is out of range.
    pub(super) fn slot(&self, keyspace: KeyspaceId) -> Option<&Slot> {
        if keyspace.0 >= MAX_KEYSPACES {
            return None;
        }
        let number = keyspace.0 as usize;
        if let Some(slot) = self.near.get(number) {
            return Some(slot);
        }
        let [top, middle, bottom] = way(number);
        let tables = self.far.get_or_init(|| table(FANOUT))[top].get_or_init(|| table(FANOUT));
        Some(&tables[middle].get_or_init(|| table(FANOUT))[bottom])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_place_of_its_own() {
        let lists = Lists::new();
        let numbers = [0, 1, 63, 64, 65, 127, 128, 16_383, 16_384, 500_000, MAX_KEYSPACES - 1];
        let places = numbers.map(|number| lists.slot(KeyspaceId(number)).unwrap() as *const Slot);
        for (i, number) in numbers.iter().enumerate() {
            assert!(!places[..i].contains(&places[i]), "{number}");
            assert_eq!(lists.slot(KeyspaceId(*number)).unwrap() as *const Slot, places[i], "{number}");
            assert!(lists.get(KeyspaceId(*number)).is_none());
        }
        for number in [MAX_KEYSPACES, 2 * MAX_KEYSPACES, 4 * MAX_KEYSPACES, u32::MAX] {
            assert!(lists.slot(KeyspaceId(number)).is_none());
            assert!(lists.get(KeyspaceId(number)).is_none());
        }
    }
}
