//! One state of a tree, for reading.
//!
//! 1. A lookup starts at the root's page and searches the separators of each inner page for the
//!    child. A frequently read state builds a `directory`, and lookups start where that ends.
//! 2. In the leaf it searches the heads, then compares the keys that tie.
//! 3. Counting adds up the entries to the left during the descent: inner pages store them as sums.
//!
//! Invariant: the pages of a view are neither changed nor reused while it lives.
use crate::directory::{Directory, MAX_CHILDREN};
use crate::file::{RunSource, TreeFile};
use crossbeam_epoch::Guard;
use sapwood_base::Result;
use sapwood_base::format::btree_page::{Child, OverflowRun, Payload, TreePage};
use sapwood_base::format::btree_root::TreeRoot;
use sapwood_base::key::begins_with;
use sapwood_storage::{BlockRef, Fill};
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// One state of a tree. Clones are cheap and share it, and it is safe for concurrent use. The pages
/// of the state are not reused while a clone lives, so a long-lived view makes the file grow.
#[derive(Clone)]
pub struct TreeView {
    pub(crate) state: Arc<State>,
}

/// The position of a key, present or not.
struct Found<'g> {
    leaf: BlockRef<'g>,
    /// The first cell at or above the key.
    cell: usize,
    /// Whether the cell has the key.
    is_equal: bool,
    /// The number of entries of the tree before the cell.
    before: u64,
}

/// Keys up to this length are assembled without an allocation.
const SHORT_KEY_BYTES: usize = 96;

/// Assembles a key from its parts in a page.
struct KeyBuffer {
    short: [u8; SHORT_KEY_BYTES],
    long: Vec<u8>,
}

/// The rest of a key after its beginning, and the key's payload.
type Behind<'k, 'p> = Option<(&'k [u8], Payload<'p>)>;

impl KeyBuffer {
    /// As [`TreePage::behind`], for a beginning of any length. An entry with a run is not compared.
    #[inline]
    fn of_suffix<'k, 'p>(&'k mut self, page: &TreePage<'p>, cell: usize, beginning: &[u8]) -> Behind<'k, 'p> {
        let payload = page.payload(cell);
        if let Payload::Overflow(_) = payload {
            return Some((&[], payload));
        }
        let suffix = match page.copy_suffix(cell, &mut self.short) {
            Some(len) => &self.short[..len],
            None => {
                self.long.clear();
                page.append_suffix(cell, &mut self.long);
                &self.long
            }
        };
        Some((suffix.strip_prefix(beginning)?, payload))
    }

    /// [`KeyBuffer::of_suffix`] for the whole key, where the page's prefix extends beyond
    /// `beginning`.
    fn of_key<'k, 'p>(&'k mut self, page: &TreePage<'p>, cell: usize, beginning: &[u8]) -> Behind<'k, 'p> {
        self.long.clear();
        page.append_key(cell, &mut self.long);
        Some((self.long.strip_prefix(beginning)?, page.payload(cell)))
    }
}

pub(crate) struct State {
    pub(crate) file: Arc<TreeFile>,
    pub(crate) root: TreeRoot,
    /// Set after `descents_before_directory` descents; `None` if a directory would be useless.
    directory: OnceLock<Option<Directory>>,
    /// The approximate number of descents, no longer counted once the directory is being built.
    descents: AtomicU32,
}

impl State {
    /// The number of descents that justify reading all inner pages: a quarter of the maximum number
    /// of leaves, at least 64.
    fn descents_before_directory(&self) -> u32 {
        (self.root.file_pages / 4).max(64)
    }
}

impl TreeView {
    pub(crate) fn new(file: Arc<TreeFile>, root: TreeRoot) -> TreeView {
        let (directory, descents) = (OnceLock::new(), AtomicU32::new(0));
        TreeView { state: Arc::new(State { file, root, directory, descents }) }
    }

    /// The directory, if there is one.
    #[inline]
    fn directory(&self) -> Option<&Directory> {
        match self.state.directory.get() {
            Some(directory) => directory.as_ref(),
            None => self.count_descent(),
        }
    }

    #[cold]
    fn count_descent(&self) -> Option<&Directory> {
        let state = &*self.state;
        // Relaxed: only a count. The thread that reaches the number builds the directory; others
        // continue without it.
        if state.descents.fetch_add(1, Ordering::Relaxed) + 1 != state.descents_before_directory() {
            return None;
        }
        // An unreadable page is reported by the descent that needs it.
        let directory = Directory::build(&state.file, &state.root, MAX_CHILDREN).unwrap_or(None);
        state.directory.get_or_init(|| directory).as_ref()
    }

    /// The root of this state.
    pub fn root(&self) -> &TreeRoot {
        &self.state.root
    }

    /// The number of entries.
    pub fn len(&self) -> u64 {
        self.state.root.entries()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Passes the value of `key` to `f`, if the key is present. Only a value in an overflow run is
    /// copied.
    ///
    /// Errors: `Corruption` if a page is not what was written, and any error of the file. The same
    /// holds for every method below.
    pub fn get_with<R>(&self, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let guard = crossbeam_epoch::pin();
        let Some(found) = self.descend(key, Fill::Normal, &guard)?.filter(|found| found.is_equal) else {
            return Ok(None);
        };
        match TreePage::of_validated(&found.leaf).payload(found.cell) {
            Payload::Inline(value) => Ok(Some(f(value))),
            Payload::Overflow(run) => {
                let bytes = self.read_run(&run)?;
                Ok(Some(f(&bytes[run.key_rest_bytes as usize..])))
            }
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_with(key, <[u8]>::to_vec)
    }

    /// Whether `key` is present.
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        let guard = crossbeam_epoch::pin();
        Ok(self.descend(key, Fill::Normal, &guard)?.is_some_and(|found| found.is_equal))
    }

    /// The number of keys below `key`, which need not be present. Reads one page per level.
    pub fn rank(&self, key: &[u8]) -> Result<u64> {
        Ok(self.rank_and_presence(key)?.0)
    }

    fn rank_and_presence(&self, key: &[u8]) -> Result<(u64, bool)> {
        let guard = crossbeam_epoch::pin();
        let found = self.descend(key, Fill::Normal, &guard)?;
        Ok(found.map_or((0, false), |found| (found.before, found.is_equal)))
    }

    /// The number of keys between the bounds. Reads two pages per level, however many keys there
    /// are.
    pub fn count(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Result<u64> {
        let from = match lower {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.rank(key)?,
            Bound::Excluded(key) => {
                let (rank, is_present) = self.rank_and_presence(key)?;
                rank + u64::from(is_present)
            }
        };
        let to = match upper {
            Bound::Unbounded => self.len(),
            Bound::Excluded(key) => self.rank(key)?,
            Bound::Included(key) => {
                let (rank, is_present) = self.rank_and_presence(key)?;
                rank + u64::from(is_present)
            }
        };
        Ok(to.saturating_sub(from))
    }

    /// Calls `with` for the entries of one leaf whose keys begin with `prefix`, in order, with the
    /// rest of the key and the value. For few entries this is cheaper than a cursor. Keep `with`
    /// short: its leaf stays in place meanwhile.
    ///
    /// Returns the number of these entries if there may be more, for which
    /// [`TreeView::prefix_behind`] continues.
    pub fn for_each_in_leaf(
        &self,
        prefix: &[u8],
        guard: &Guard,
        mut with: impl FnMut(&[u8], &[u8]) -> Result<()>,
    ) -> Result<Option<usize>> {
        let Some(found) = self.descend(prefix, Fill::Normal, guard)? else { return Ok(None) };
        let (page, first) = (TreePage::of_validated(&found.leaf), found.cell);
        let beginning = begins_with(prefix, page.prefix()).then(|| &prefix[page.prefix().len()..]);
        let mut key = KeyBuffer { short: [0; SHORT_KEY_BYTES], long: Vec::new() };
        for cell in first..page.cells() {
            let found = match beginning {
                // `prefix` contains all parts that the page stores elsewhere, so the key need not
                // be assembled.
                Some(beginning) if beginning.len() >= size_of::<u64>() => page.behind(cell, beginning),
                Some(beginning) => key.of_suffix(&page, cell, beginning),
                None => key.of_key(&page, cell, prefix),
            };
            match found {
                Some((rest, Payload::Inline(value))) => with(rest, value)?,
                // Its key may continue in a run.
                Some((_, Payload::Overflow(_))) => return Ok(Some(cell - first)),
                None => return Ok(None),
            }
        }
        // The next leaf may begin with more such keys.
        Ok(Some(page.cells() - first))
    }

    /// The pages that a cursor over the keys between `lower`, which is included, and `upper`
    /// visits, from the top down, and whether each was in the cache before this call. Reads the
    /// inner ones, and no overflow runs. `None` is unbounded.
    pub fn pages_between(&self, lower: Option<&[u8]>, upper: Option<&[u8]>) -> Result<Vec<(u32, bool)>> {
        let State { file, root, .. } = &*self.state;
        let guard = crossbeam_epoch::pin();
        let mut pages = Vec::new();
        let mut children: Vec<Child> = root.top.into_iter().collect();
        for level in (0..root.height).rev() {
            let page_of = |child: &Child| (child.pointer.page, file.slots.is_cached(child.pointer.page));
            pages.extend(children.iter().map(page_of));
            if level == 0 {
                break;
            }
            let mut below = Vec::new();
            for child in &children {
                let block = self.page(child, level, Fill::Normal, &guard)?;
                let page = TreePage::of_validated(&block);
                let first = lower.map_or(Ok(0), |key| self.child_of_key(&page, key))?;
                let last = upper.map_or(Ok(page.children() - 1), |key| self.child_of_key(&page, key))?;
                below.extend((first..=last).map(|i| page.child(i)));
            }
            children = below;
        }
        Ok(pages)
    }

    /// The memory of this tree's cache slots and of this state's directory in bytes. Pages are
    /// accounted for by the cache.
    pub fn pinned_bytes(&self) -> usize {
        let directory = self.state.directory.get().and_then(Option::as_ref);
        self.state.file.slots.memory_bytes() + directory.map_or(0, Directory::memory_bytes)
    }

    /// Descends to the leaf of `key`.
    fn descend<'g>(&'g self, key: &[u8], fill: Fill, guard: &'g Guard) -> Result<Option<Found<'g>>> {
        let State { file, root, .. } = &*self.state;
        let Some(top) = root.top else { return Ok(None) };
        let (mut child, mut level, mut before, mut share) = (top, root.height - 1, 0, None);
        if let Some(directory) = self.directory()
            && let Some(start) = directory.find(key)
        {
            (child, level, before, share) = (start.child, directory.level(), start.before, start.share);
        }
        while level > 0 {
            let block = file.page_near(&child, level, share, root.file_pages, fill, guard)?;
            let page = TreePage::of_validated(&block);
            let index = file.child_of_key(&page, key, share, root.file_pages)?;
            before += page.entries_before(index);
            share = page.share_below(index, key);
            child = page.child(index);
            level -= 1;
        }
        let leaf = file.page_near(&child, 0, share, root.file_pages, fill, guard)?;
        let (cell, is_equal) =
            file.lower_bound_near(&TreePage::of_validated(&leaf), key, share, root.file_pages)?;
        Ok(Some(Found { leaf, cell, is_equal, before: before + cell as u64 }))
    }

    pub(crate) fn page<'g>(
        &'g self,
        child: &Child,
        level: u8,
        fill: Fill,
        guard: &'g Guard,
    ) -> Result<BlockRef<'g>> {
        self.state.file.page(child, level, self.state.root.file_pages, fill, guard)
    }

    pub(crate) fn lower_bound(&self, page: &TreePage<'_>, key: &[u8]) -> Result<(usize, bool)> {
        self.state.file.lower_bound(page, key, self.state.root.file_pages)
    }

    pub(crate) fn child_of_key(&self, page: &TreePage<'_>, key: &[u8]) -> Result<usize> {
        self.state.file.child_of_key(page, key, None, self.state.root.file_pages)
    }

    /// Reads a whole overflow run.
    pub(crate) fn read_run(&self, run: &OverflowRun) -> Result<Vec<u8>> {
        self.state.file.read_run(run, run.len(), self.state.root.file_pages, RunSource::Cache)
    }
}

impl fmt::Debug for TreeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeView").field("root", &self.state.root).finish_non_exhaustive()
    }
}
