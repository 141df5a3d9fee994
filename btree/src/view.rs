//! One state of a tree, for reading.
//!
//! 1. Start at the root's page; in each inner page, search the separators for the child.
//! 2. In the leaf, search the heads, then compare what ties.
//! 3. Counting adds up the entries to the left on the way down: inner pages store them as sums.
//!
//! Invariant: the pages of a view are neither changed nor reused while it lives.
use crate::cursor::TreeCursor;
use crate::file::{RunSource, TreeFile};
use crossbeam_epoch::Guard;
use sapwood_base::Result;
use sapwood_base::format::btree_page::{Child, OverflowRun, Payload, TreePage};
use sapwood_base::format::btree_root::TreeRoot;
use sapwood_storage::{BlockRef, Fill};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

/// One state of a tree. Clones are cheap and share it; any thread may use it. As long as one lives, the pages of that
/// state are not reused, so a view that is kept long makes the file grow.
#[derive(Clone)]
pub struct TreeView {
    pub(crate) state: Arc<State>,
}

pub(crate) struct State {
    pub(crate) file: Arc<TreeFile>,
    pub(crate) root: TreeRoot,
}

impl TreeView {
    pub(crate) fn new(file: Arc<TreeFile>, root: TreeRoot) -> TreeView {
        TreeView { state: Arc::new(State { file, root }) }
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

    /// Hands the value of `key` to `f` where it lies, if the key is there.
    ///
    /// Errors: `Corruption` if a page is not what was written, and what the file reports. The same holds for every
    /// method below.
    pub fn get_with<R>(&self, key: &[u8], f: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        let guard = crossbeam_epoch::pin();
        let Some((_, leaf)) = self.descend(key, Fill::Normal, &guard)? else { return Ok(None) };
        let page = TreePage::of_validated(&leaf);
        let (cell, is_equal) = self.lower_bound(&page, key)?;
        if !is_equal {
            return Ok(None);
        }
        match page.payload(cell) {
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

    /// Whether `key` is there.
    pub fn contains(&self, key: &[u8]) -> Result<bool> {
        let guard = crossbeam_epoch::pin();
        let Some((_, leaf)) = self.descend(key, Fill::Normal, &guard)? else { return Ok(false) };
        Ok(self.lower_bound(&TreePage::of_validated(&leaf), key)?.1)
    }

    /// How many keys are below `key`, which need not be there itself. Reads one page per level.
    pub fn rank(&self, key: &[u8]) -> Result<u64> {
        Ok(self.rank_and_presence(key)?.0)
    }

    fn rank_and_presence(&self, key: &[u8]) -> Result<(u64, bool)> {
        let guard = crossbeam_epoch::pin();
        let Some((before, leaf)) = self.descend(key, Fill::Normal, &guard)? else { return Ok((0, false)) };
        let (cell, is_equal) = self.lower_bound(&TreePage::of_validated(&leaf), key)?;
        Ok((before + cell as u64, is_equal))
    }

    /// How many keys are between the bounds. Reads two pages per level, however many keys there are.
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

    /// Key and value of the entry that has `n` entries before it; `None` if there are not that many. Reads one page per
    /// level.
    pub fn nth(&self, n: u64) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut cursor = self.cursor(Bound::Unbounded, Bound::Unbounded);
        cursor.seek_to_nth(n)?;
        Ok(cursor.valid().then(|| (cursor.key().to_vec(), cursor.value().to_vec())))
    }

    /// A cursor over the keys between the bounds. Not yet positioned.
    pub fn cursor(&self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> TreeCursor {
        TreeCursor::new(self.clone(), lower.map(<[u8]>::to_vec), upper.map(<[u8]>::to_vec))
    }

    /// A cursor over all keys that begin with `prefix`. Not yet positioned.
    pub fn prefix(&self, prefix: &[u8]) -> TreeCursor {
        let upper = match sapwood_base::key::prefix_successor(prefix) {
            Some(successor) => Bound::Excluded(successor),
            None => Bound::Unbounded,
        };
        TreeCursor::new(self.clone(), Bound::Included(prefix.to_vec()), upper)
    }

    /// The memory of the cache slots of this tree in bytes. Pages themselves are counted by the cache.
    pub fn pinned_bytes(&self) -> usize {
        self.state.file.slots.memory_bytes()
    }

    /// The leaf that `key` belongs to, and how many entries lie in the leaves before it.
    fn descend<'g>(
        &'g self,
        key: &[u8],
        fill: Fill,
        guard: &'g Guard,
    ) -> Result<Option<(u64, BlockRef<'g>)>> {
        let State { file, root } = &*self.state;
        let Some(mut child) = root.top else { return Ok(None) };
        let mut before = 0;
        for level in (1..root.height).rev() {
            let block = file.page(&child, level, root.file_pages, fill, guard)?;
            let page = TreePage::of_validated(&block);
            let index = file.child_of_key(&page, key, root.file_pages)?;
            before += page.entries_before(index);
            child = page.child(index);
        }
        Ok(Some((before, file.page(&child, 0, root.file_pages, fill, guard)?)))
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
        self.state.file.child_of_key(page, key, self.state.root.file_pages)
    }

    /// All of an overflow run.
    pub(crate) fn read_run(&self, run: &OverflowRun) -> Result<Vec<u8>> {
        self.state.file.read_run(run, run.len(), self.state.root.file_pages, RunSource::Cache)
    }
}

impl fmt::Debug for TreeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeView").field("root", &self.state.root).finish_non_exhaustive()
    }
}
