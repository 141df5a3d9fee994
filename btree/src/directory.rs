//! The directory of a state: one array in memory with the boundaries of all pages of one level.
//!
//! A descent reads a header, a prefix, a few heads and a child in each page on its path, and some
//! of these reads miss the cache. With a directory it searches one array for the lowest level that
//! is small enough, mostly the leaves, and continues from there. If keys are evenly spread, it
//! compares one or two.
//!
//! The directory holds the first eight bytes of each separator after their shared prefix. A key
//! that ties with one is not decided here: its descent starts at the root.
//!
//! Invariant: a directory is built from one state, whose pages neither change nor move, so it
//! agrees with the inner pages.
use crate::file::TreeFile;
use sapwood_base::Result;
use sapwood_base::format::btree_page::{Child, PagePointer, Payload, TreePage};
use sapwood_base::format::btree_root::TreeRoot;
use sapwood_base::key::{begins_with, common_prefix_len, key_prefix};
use sapwood_base::search::Cells;
use sapwood_storage::Fill;

/// The maximum number of pages in a directory. Each takes 36 to 40 bytes, so a tree of a gigabyte
/// needs about 5 MiB.
pub(crate) const MAX_CHILDREN: usize = 1 << 17;

/// See the module.
pub(crate) struct Directory {
    /// The shared prefix of all separators.
    prefix: Vec<u8>,
    /// The pages in key order.
    places: Vec<Place>,
    /// Search cells over their heads.
    cells: Cells,
    /// The level of the children.
    level: u8,
}

/// A page where a descent can continue, in half a line of the processor's cache.
#[derive(Clone, Copy)]
#[repr(align(32))]
struct Place {
    /// Eight bytes of the separator after the page. All bits are set for the last page.
    head: u64,
    /// The number of entries before the page.
    before: u64,
    /// The number of entries in and below the page.
    entries: u64,
    page: u32,
    generation: u32,
}

/// The start of a descent to a key, known without reading a page.
pub(crate) struct Start {
    /// The page that the key belongs below.
    pub(crate) child: Child,
    /// The number of entries before the page.
    pub(crate) before: u64,
    /// The approximate share of the page's keys before the key, if the separators on both sides
    /// permit an estimate.
    pub(crate) share: Option<f32>,
}

/// The pages of one level, with the separator before each. The first has none.
type Level = Vec<(Vec<u8>, Child)>;

impl Directory {
    /// Builds the directory of the state `root` of `file` for the lowest level that has at most
    /// `max_children` pages. `None` if it would be useless: if the tree has a single page, if
    /// separators continue in overflow runs, or if eight bytes do not distinguish many of them.
    ///
    /// Errors: those of reading the inner pages.
    pub(crate) fn build(file: &TreeFile, root: &TreeRoot, max_children: usize) -> Result<Option<Directory>> {
        let Some(top) = root.top else { return Ok(None) };
        let mut level = root.height - 1;
        let mut here: Level = vec![(Vec::new(), top)];
        while level > 0 {
            match below(file, root, &here, level, max_children)? {
                Below::Level(next) => here = next,
                Below::TooMany => break,
                Below::Overflows => return Ok(None),
            }
            level -= 1;
        }
        Ok(Directory::of(&here, level))
    }

    fn of(pages: &Level, level: u8) -> Option<Directory> {
        let separators = &pages[1..];
        let prefix = match separators {
            [(first, _), .., (last, _)] => first[..common_prefix_len(first, last)].to_vec(),
            _ => return None,
        };
        // Pages are checked one by one. A descent reports contradictions between pages when it
        // reaches them.
        let heads = separators.iter().map(|(key, _)| key.strip_prefix(prefix.as_slice()).map(key_prefix));
        let heads = heads.collect::<Option<Vec<u64>>>().filter(|heads| heads.is_sorted())?;
        if heads.windows(2).filter(|pair| pair[0] == pair[1]).count() > heads.len() / 8 {
            return None;
        }
        let mut before = 0u64;
        let places = pages.iter().enumerate().map(|(i, (_, child))| {
            let head = heads.get(i).copied().unwrap_or(u64::MAX);
            let PagePointer { page, generation } = child.pointer;
            let place = Place { head, before, entries: child.entries, page, generation };
            before = before.saturating_add(child.entries);
            place
        });
        let places = places.collect();
        let cells = Cells::new(heads.iter().copied(), 0);
        Some(Directory { prefix, places, cells, level })
    }

    /// The level of its pages; 0 are leaves.
    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    /// The start of the descent to `key`; `None` if `key` ties with a separator.
    #[inline]
    pub(crate) fn find(&self, key: &[u8]) -> Option<Start> {
        let last = self.places.len() - 1;
        if !begins_with(key, &self.prefix) {
            // A key that ends inside the prefix is below all separators, and compares so.
            return Some(self.start(if key < self.prefix.as_slice() { 0 } else { last }, None));
        }
        let head = key_prefix(&key[self.prefix.len()..]);
        let candidates = self.cells.candidates(head);
        let place = candidates.start + self.places[candidates].partition_point(|place| place.head < head);
        let upper = self.places[place].head;
        if place == 0 || place == last {
            return (place == last || upper != head).then(|| self.start(place, None));
        }
        let lower = self.places[place - 1].head;
        (upper != head).then(|| self.start(place, Some((head - lower) as f32 / (upper - lower) as f32)))
    }

    #[inline]
    fn start(&self, place: usize, share: Option<f32>) -> Start {
        let Place { before, entries, page, generation, .. } = self.places[place];
        // No descent reads this flag.
        let has_overflow = false;
        Start {
            child: Child { pointer: PagePointer { page, generation }, entries, has_overflow },
            before,
            share,
        }
    }

    /// Memory in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.prefix.len() + size_of_val(self.places.as_slice()) + self.cells.memory_bytes()
    }
}

enum Below {
    Level(Level),
    TooMany,
    Overflows,
}

/// The children of the pages `here`, which are on `level`.
fn below(file: &TreeFile, root: &TreeRoot, here: &Level, level: u8, max_children: usize) -> Result<Below> {
    let mut below = Level::new();
    for (separator, child) in here {
        let guard = crossbeam_epoch::pin();
        let block = file.page(child, level, root.file_pages, Fill::Normal, &guard)?;
        let page = TreePage::of_validated(&block);
        if below.len() + page.children() > max_children {
            return Ok(Below::TooMany);
        }
        below.push((separator.clone(), page.child(0)));
        for i in 0..page.cells() {
            if matches!(page.payload(i), Payload::Overflow(_)) {
                return Ok(Below::Overflows);
            }
            let mut key = Vec::new();
            page.append_key(i, &mut key);
            below.push((key, page.child(i + 1)));
        }
    }
    Ok(Below::Level(below))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Change, Tree, TreeOptions, TreeView};
    use sapwood_storage::{BufferCache, Env};
    use std::path::Path;

    fn tree(keys: &[Vec<u8>]) -> Tree {
        let (env, _) = Env::sim(1);
        let cache = BufferCache::new(4 << 20).unwrap();
        let mut tree =
            Tree::create(&env, Path::new("/1.btree"), &TreeOptions { page_bytes: 512 }, &cache).unwrap();
        let changes: Vec<Change<'_>> = keys.iter().map(|key| Change { key, value: Some(b"value") }).collect();
        tree.apply(&changes).unwrap();
        tree.install();
        tree
    }

    fn build(view: &TreeView, max_children: usize) -> Result<Option<Directory>> {
        Directory::build(&view.state.file, &view.state.root, max_children)
    }

    /// The page on `level` that `key` belongs below, found from the root, and the number of entries
    /// before it.
    fn from_root(view: &TreeView, key: &[u8], level: u8) -> (Child, u64) {
        let root = view.root();
        let (mut child, mut before) = (root.top.unwrap(), 0);
        for above in (level + 1..root.height).rev() {
            let guard = crossbeam_epoch::pin();
            let block = view.page(&child, above, Fill::Normal, &guard).unwrap();
            let page = TreePage::of_validated(&block);
            let index = view.child_of_key(&page, key).unwrap();
            before += page.entries_before(index);
            child = page.child(index);
        }
        (child, before)
    }

    /// Looks up each key and its neighbours. Returns the number found and the number of lookups.
    fn check(keys: &[Vec<u8>], max_children: usize, expected_level: u8) -> (usize, usize) {
        let tree = tree(keys);
        let view = tree.view();
        let directory = build(&view, max_children).unwrap().unwrap();
        assert_eq!(directory.level(), expected_level);
        assert!(directory.places.len() <= max_children && directory.memory_bytes() > 0);
        let (mut found, mut asked) = (0, 0);
        for key in keys {
            let cut = &key[..key.len().saturating_sub(1)];
            for key in [key.as_slice(), cut, &[key, b"\0".as_slice()].concat(), &[cut, b"\xFF"].concat()] {
                asked += 1;
                let Some(start) = directory.find(key) else { continue };
                let (child, before) = from_root(&view, key, expected_level);
                assert_eq!((start.child, start.before), (child, before), "{key:?}");
                assert!(start.share.is_none_or(|share| (0.0..=1.0).contains(&share)));
                found += 1;
            }
        }
        for beyond in [b"".as_slice(), b"\0", b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"] {
            let start = directory.find(beyond).unwrap();
            assert_eq!((start.child, start.before), from_root(&view, beyond, expected_level));
        }
        (found, asked)
    }

    #[test]
    fn what_is_found_is_what_the_inner_pages_say() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut keys: Vec<Vec<u8>> = (0..20_000).map(|_| random.u64(1..).to_be_bytes().to_vec()).collect();
        keys.sort_unstable();
        for (max_children, level) in [(MAX_CHILDREN, 0), (200, 1), (20, 2)] {
            let (found, asked) = check(&keys, max_children, level);
            assert!(found > asked * 9 / 10, "{found} of {asked}");
        }
        // Crowded keys after a shared prefix.
        let keys: Vec<Vec<u8>> = (0..3000u32)
            .map(|i| format!("common/{:09}/{i}", if i < 2900 { i } else { i * 1000 }).into_bytes())
            .collect();
        let (found, asked) = check(&keys, MAX_CHILDREN, 0);
        assert!(found > asked / 2, "{found} of {asked}");
    }

    #[test]
    fn separators_that_cannot_be_told_apart_or_go_on_elsewhere_have_none() {
        let alike: Vec<Vec<u8>> =
            (0..4000u32).map(|i| format!("{}/eight bytes/{i:06}", i / 2000).into_bytes()).collect();
        assert!(build(&tree(&alike).view(), MAX_CHILDREN).unwrap().is_none());
        let long: Vec<Vec<u8>> =
            (0..100u32).map(|i| [vec![b'l'; 400], i.to_be_bytes().to_vec()].concat()).collect();
        assert!(build(&tree(&long).view(), MAX_CHILDREN).unwrap().is_none());
        assert!(build(&tree(&[]).view(), MAX_CHILDREN).unwrap().is_none());
        assert!(build(&tree(&[b"one".to_vec()]).view(), MAX_CHILDREN).unwrap().is_none());
    }
}
