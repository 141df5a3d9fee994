//! The cache slots of a tree's pages. A [`SlotTable`] has a fixed length and a tree grows, so there
//! are several tables, each as long as all previous ones together. An existing table never moves,
//! so readers take no lock.
use sapwood_base::format::btree_page::MAX_PAGES;
use sapwood_storage::{BufferCache, SlotTable};
use std::sync::{Arc, OnceLock};

/// The number of slots of the first table.
const FIRST_SLOTS: u32 = 1024;
/// The number of tables for all possible page numbers.
const TABLES: usize = (MAX_PAGES / FIRST_SLOTS).ilog2() as usize + 1;

/// See the module.
pub(crate) struct PageSlots {
    cache: Arc<BufferCache>,
    tables: [OnceLock<SlotTable>; TABLES],
}

impl PageSlots {
    pub(crate) fn new(cache: &Arc<BufferCache>) -> PageSlots {
        PageSlots { cache: Arc::clone(cache), tables: [const { OnceLock::new() }; TABLES] }
    }

    /// The table with the slot of `page`, and the slot's index there. REQUIRES: the page is inside
    /// the file, which justifies the memory.
    #[inline]
    pub(crate) fn locate(&self, page: u32) -> (&SlotTable, usize) {
        let (table, first, len) = place(page);
        let slots = self.tables[table].get_or_init(|| self.cache.slots(len as usize));
        (slots, (page - first) as usize)
    }

    /// [`PageSlots::locate`] without creating the table: `None` means that the page is not cached.
    fn existing(&self, page: u32) -> Option<(&SlotTable, usize)> {
        let (table, first, _) = place(page);
        Some((self.tables[table].get()?, (page - first) as usize))
    }

    pub(crate) fn is_cached(&self, page: u32) -> bool {
        self.existing(page).is_some_and(|(slots, index)| slots.is_cached(index))
    }

    /// Evicts `page`. REQUIRES: no root refers to it any more.
    pub(crate) fn remove(&self, page: u32) {
        if let Some((slots, index)) = self.existing(page) {
            slots.remove(index);
        }
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.tables.iter().filter_map(OnceLock::get).map(SlotTable::memory_bytes).sum()
    }
}

/// The table of a page, the first page of that table, and its length.
#[inline]
fn place(page: u32) -> (usize, u32, u32) {
    match (page / FIRST_SLOTS).checked_ilog2() {
        None => (0, 0, FIRST_SLOTS),
        Some(doublings) => (doublings as usize + 1, FIRST_SLOTS << doublings, FIRST_SLOTS << doublings),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_one_slot() {
        let mut expected = (0, 0);
        for page in 0..100_000 {
            let (table, first, len) = place(page);
            if table != expected.0 {
                assert_eq!((table, first), (expected.0 + 1, page));
                expected = (table, first);
            }
            assert!(page - first < len);
        }
        let (table, first, len) = place(MAX_PAGES - 1);
        assert!(table < TABLES && MAX_PAGES - 1 - first < len);
    }
}
