//! The free pages of the file.
//!
//! Large extents are allocated first, lowest first, so that a batch needs few long writes. Single
//! pages are used only once a quarter of the file is free. Until then the file grows, which bounds
//! its size at a third above the space in use and keeps writes sequential.
use sapwood_base::format::btree_page::MAX_PAGES;
use sapwood_base::{Error, ErrorKind, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// An extent of this many pages is worth a write of its own.
const LARGE_PAGES: u32 = 32;

/// See the module. Unused pages that some root may still refer to are not free: the tree keeps
/// them.
#[derive(Debug)]
pub(crate) struct FreeSpace {
    /// Start and length. No two are adjacent, and none is adjacent to the end.
    runs: BTreeMap<u32, u32>,
    /// The starts of the extents with at least `LARGE_PAGES`.
    large: BTreeSet<u32>,
    free: u32,
    /// All pages from here on are free and outside of the file, or cut off.
    end: u32,
}

impl FreeSpace {
    /// Creates the free space of a file of `end` pages, none of them free.
    pub(crate) fn full(end: u32) -> FreeSpace {
        FreeSpace { runs: BTreeMap::new(), large: BTreeSet::new(), free: 0, end }
    }

    /// One above the last page in use.
    pub(crate) fn end(&self) -> u32 {
        self.end
    }

    /// The number of free pages below the end.
    pub(crate) fn free_pages(&self) -> u32 {
        self.free
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = Range<u32>> + '_ {
        self.runs.iter().map(|(&start, &len)| start..start + len)
    }

    /// Allocates at most `wanted` consecutive pages.
    pub(crate) fn allocate(&mut self, wanted: u32) -> Result<Range<u32>> {
        let start = match self.large.first() {
            Some(&start) => Some(start),
            None if self.free > self.end / 4 => self.runs.first_key_value().map(|(&start, _)| start),
            None => None,
        };
        match start {
            Some(start) => {
                let len = self.runs[&start].min(wanted);
                Ok(self.take(start, len))
            }
            None => self.extend(wanted),
        }
    }

    /// Allocates exactly `count` consecutive pages.
    pub(crate) fn allocate_exact(&mut self, count: u32) -> Result<Range<u32>> {
        let fitting = if count >= LARGE_PAGES {
            self.large.iter().copied().find(|start| self.runs[start] >= count)
        } else {
            // Long entries are rare, so checking a few extents is enough.
            let some = self.runs.iter().take(64).find(|(_, len)| **len >= count);
            some.map(|(&start, _)| start).or_else(|| self.large.first().copied())
        };
        match fitting {
            Some(start) => Ok(self.take(start, count)),
            None => self.extend(count),
        }
    }

    fn extend(&mut self, count: u32) -> Result<Range<u32>> {
        let start = self.end;
        let end = start.checked_add(count).filter(|end| *end <= MAX_PAGES).ok_or_else(|| {
            Error::new(ErrorKind::NoSpace, format!("a tree has at most {MAX_PAGES} pages; use larger ones"))
        })?;
        self.end = end;
        Ok(start..end)
    }

    fn take(&mut self, start: u32, len: u32) -> Range<u32> {
        let whole = self.remove(start);
        if whole > len {
            self.insert(start + len, whole - len);
        }
        start..start + len
    }

    fn remove(&mut self, start: u32) -> u32 {
        let len = self.runs.remove(&start).expect("a run starts here");
        self.large.remove(&start);
        self.free -= len;
        len
    }

    fn insert(&mut self, start: u32, len: u32) {
        self.runs.insert(start, len);
        if len >= LARGE_PAGES {
            self.large.insert(start);
        }
        self.free += len;
    }

    /// Frees pages.
    ///
    /// # Panics
    /// If one of them is free.
    pub(crate) fn release(&mut self, pages: Range<u32>) {
        if pages.is_empty() {
            return;
        }
        let (mut start, mut end) = (pages.start, pages.end);
        assert!(end <= self.end, "pages behind the end are free");
        if let Some((&before, &len)) = self.runs.range(..end).next_back() {
            assert!(before + len <= start, "a page is freed twice");
            if before + len == start {
                start = before;
                self.remove(before);
            }
        }
        if self.runs.contains_key(&end) {
            end += self.remove(end);
        }
        if end == self.end {
            self.end = start;
        } else {
            self.insert(start, end - start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_given_out_once_and_come_back() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut space = FreeSpace::full(1);
        let mut used: Vec<Range<u32>> = Vec::new();
        let mut taken = BTreeSet::new();
        for _ in 0..20_000 {
            if random.u32(..5) < 2 && !used.is_empty() {
                let pages = used.swap_remove(random.usize(..used.len()));
                pages.clone().for_each(|page| assert!(taken.remove(&page)));
                space.release(pages);
            } else if used.len() < 400 {
                let count = random.u32(1..60);
                let pages = if random.bool() {
                    space.allocate(count).unwrap()
                } else {
                    let pages = space.allocate_exact(count).unwrap();
                    assert_eq!(pages.len(), count as usize);
                    pages
                };
                assert!(!pages.is_empty() && pages.len() <= count as usize && pages.end <= space.end());
                pages.clone().for_each(|page| assert!(taken.insert(page)));
                used.push(pages);
            }
            let free: u32 = space.runs().map(|run| run.end - run.start).sum();
            assert_eq!(free, space.free_pages());
            assert_eq!(taken.len() as u32 + free + 1, space.end());
        }
        for pages in used {
            space.release(pages);
        }
        assert_eq!((space.end(), space.free_pages()), (1, 0));
    }

    #[test]
    fn a_full_file_is_an_error() {
        let mut space = FreeSpace::full(MAX_PAGES - 3);
        assert_eq!(space.allocate(4).unwrap_err().kind(), ErrorKind::NoSpace);
        assert_eq!(space.allocate(3).unwrap().len(), 3);
    }
}
