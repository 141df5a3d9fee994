//! A cursor over one state of a tree.
//!
//! It pins its leaf and the inner pages above. A step within a leaf copies one key suffix; a step
//! to the next leaf goes through the parent. Leaves have no sibling links, because a neighbour may
//! be of a later state.
//!
//! Invariant: while valid, `first <= cell < last`, and `key` is the key of `cell`; `first..last`
//! are the cells of the leaf that lie between the bounds.
use crate::view::TreeView;
use sapwood_base::Result;
use sapwood_base::format::btree_page::{Child, Payload, TreePage};
use sapwood_storage::{Fill, PinnedBlock};
use std::fmt;
use std::ops::{Bound, Range};

/// After this many consecutive leaves, leaves are loaded into the cache as those of a scan.
const SCAN_LEAVES: u32 = 16;
/// The number of leaves that a scan prefetches.
const READAHEAD_LEAVES: usize = 16;

/// A cursor over the keys of one state of a tree between two bounds. It owns its data and may move
/// to another thread.
///
/// A fresh cursor is not positioned. `key` and `value` may be called only while
/// [`TreeCursor::valid`]. After an error the cursor is not valid until it is positioned again. When
/// the cursor reaches a long value, it reads all of it.
pub struct TreeCursor {
    view: TreeView,
    lower: Bound<Vec<u8>>,
    upper: Bound<Vec<u8>>,
    /// The inner pages from the top down, and the child taken in each.
    path: Vec<(PinnedBlock, usize)>,
    leaf: Option<PinnedBlock>,
    first: usize,
    last: usize,
    cell: usize,
    is_valid: bool,
    key: Vec<u8>,
    prefix_len: usize,
    /// The value if it lies in an overflow run.
    long_value: Option<Vec<u8>>,
    /// The number of leaves taken in a row.
    run: u32,
}

/// The direction in which a leaf is entered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Back,
}

impl TreeView {
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

    /// A cursor over all keys that begin with `prefix`, after the first `done` of them.
    #[cold]
    pub fn prefix_behind(&self, prefix: &[u8], done: usize) -> Result<TreeCursor> {
        let mut cursor = self.prefix(prefix);
        cursor.seek_to_first()?;
        for _ in 0..done {
            cursor.next()?;
        }
        Ok(cursor)
    }

    /// Key and value of the entry that has `n` entries before it; `None` if there are not that
    /// many. Reads one page per level.
    pub fn nth(&self, n: u64) -> Result<Option<(Vec<u8>, Vec<u8>)>> {
        let mut cursor = self.cursor(Bound::Unbounded, Bound::Unbounded);
        cursor.seek_to_nth(n)?;
        Ok(cursor.valid().then(|| (cursor.key().to_vec(), cursor.value().to_vec())))
    }
}

impl TreeCursor {
    fn new(view: TreeView, lower: Bound<Vec<u8>>, upper: Bound<Vec<u8>>) -> TreeCursor {
        TreeCursor {
            view,
            lower,
            upper,
            path: Vec::new(),
            leaf: None,
            first: 0,
            last: 0,
            cell: 0,
            is_valid: false,
            key: Vec::new(),
            prefix_len: 0,
            long_value: None,
            run: 0,
        }
    }

    /// The state over which the cursor moves.
    pub fn view(&self) -> &TreeView {
        &self.view
    }

    /// Whether the cursor is on an entry.
    #[inline]
    pub fn valid(&self) -> bool {
        self.is_valid
    }

    /// The key. REQUIRES: `valid`.
    #[inline]
    pub fn key(&self) -> &[u8] {
        debug_assert!(self.is_valid, "the cursor stands on no entry");
        &self.key
    }

    /// The value. REQUIRES: `valid`.
    #[inline]
    pub fn value(&self) -> &[u8] {
        debug_assert!(self.is_valid, "the cursor stands on no entry");
        if let Some(value) = &self.long_value {
            return value;
        }
        match self.leaf.as_ref().map(|leaf| TreePage::of_validated(leaf).payload(self.cell)) {
            Some(Payload::Inline(value)) => value,
            _ => &[],
        }
    }

    /// Moves to the first key.
    ///
    /// Errors: `Corruption` if a page is not what was written, and any error of the file. The same
    /// holds for every move.
    pub fn seek_to_first(&mut self) -> Result<()> {
        match self.lower.clone() {
            Bound::Unbounded => self.enter(Direction::Forward, |_, _| Ok(0)),
            Bound::Included(key) | Bound::Excluded(key) => self.seek_unbounded(&key),
        }
    }

    /// Moves to the last key.
    pub fn seek_to_last(&mut self) -> Result<()> {
        match self.upper.clone() {
            Bound::Unbounded => self.enter(Direction::Back, |_, page| Ok(page.children() - 1)),
            Bound::Included(key) | Bound::Excluded(key) => self.seek_before_unbounded(&key, true),
        }
    }

    /// Moves to the first key at or above `target`.
    pub fn seek(&mut self, target: &[u8]) -> Result<()> {
        let is_below = match &self.lower {
            Bound::Included(lower) | Bound::Excluded(lower) => target <= lower.as_slice(),
            Bound::Unbounded => false,
        };
        if is_below { self.seek_to_first() } else { self.seek_unbounded(target) }
    }

    /// Moves to the last key below `target`.
    pub fn seek_before(&mut self, target: &[u8]) -> Result<()> {
        let is_above = match &self.upper {
            Bound::Included(upper) | Bound::Excluded(upper) => target > upper.as_slice(),
            Bound::Unbounded => false,
        };
        if is_above { self.seek_to_last() } else { self.seek_before_unbounded(target, false) }
    }

    /// Moves to the entry that has `n` entries of the whole tree before it, if it is between the
    /// bounds.
    pub fn seek_to_nth(&mut self, n: u64) -> Result<()> {
        self.clear();
        if n >= self.view.len() {
            return Ok(());
        }
        let mut left = n;
        self.enter_leaf(|view, page| match page.child_of_entry(left) {
            Some((child, rest)) => {
                left = rest;
                Ok(child)
            }
            None => Err(view.state.file.corruption(0, "entries of a page do not add up")),
        })?;
        let cell = usize::try_from(left).unwrap_or(usize::MAX);
        if (self.first..self.last).contains(&cell) { self.stand_on(cell) } else { Ok(()) }
    }

    /// Moves to the next key. REQUIRES: `valid`.
    #[inline]
    #[allow(
        clippy::should_implement_trait,
        reason = "a cursor lends what it stands on, which an Iterator cannot"
    )]
    pub fn next(&mut self) -> Result<()> {
        debug_assert!(self.is_valid, "the cursor stands on no entry");
        if self.cell + 1 < self.last {
            return self.stand_on(self.cell + 1);
        }
        self.step(Direction::Forward)
    }

    /// Moves to the previous key. REQUIRES: `valid`.
    #[inline]
    pub fn prev(&mut self) -> Result<()> {
        debug_assert!(self.is_valid, "the cursor stands on no entry");
        if self.cell > self.first {
            return self.stand_on(self.cell - 1);
        }
        self.step(Direction::Back)
    }

    /// Unpositions the cursor.
    pub fn clear(&mut self) {
        self.path.clear();
        self.leaf = None;
        self.is_valid = false;
        self.run = 0;
        (self.first, self.last) = (0, 0);
    }

    /// Moves to the first key at or above `target`, or above if the lower bound excludes it.
    fn seek_unbounded(&mut self, target: &[u8]) -> Result<()> {
        self.clear();
        if self.view.is_empty() {
            return Ok(());
        }
        self.enter_leaf(|view, page| view.child_of_key(page, target))?;
        let leaf = self.leaf.take().expect("just entered");
        let found = self.view.lower_bound(&TreePage::of_validated(&leaf), target);
        self.leaf = Some(leaf);
        let cell = found?.0.max(self.first);
        if cell < self.last { self.stand_on(cell) } else { self.step(Direction::Forward) }
    }

    /// Moves to the last key below `target`, or to `target` if `inclusive` and the upper bound
    /// permits it.
    fn seek_before_unbounded(&mut self, target: &[u8], inclusive: bool) -> Result<()> {
        self.clear();
        if self.view.is_empty() {
            return Ok(());
        }
        self.enter_leaf(|view, page| view.child_of_key(page, target))?;
        let leaf = self.leaf.take().expect("just entered");
        let found = self.view.lower_bound(&TreePage::of_validated(&leaf), target);
        self.leaf = Some(leaf);
        let (cell, is_equal) = found?;
        let end = (cell + usize::from(is_equal && inclusive)).min(self.last);
        if end > self.first { self.stand_on(end - 1) } else { self.step(Direction::Back) }
    }

    /// Descends along the chosen children and positions on the first or last cell.
    fn enter(
        &mut self,
        direction: Direction,
        choose: impl FnMut(&TreeView, &TreePage<'_>) -> Result<usize>,
    ) -> Result<()> {
        self.clear();
        if self.view.is_empty() {
            return Ok(());
        }
        self.enter_leaf(choose)?;
        self.stand_on_edge(direction)
    }

    fn stand_on_edge(&mut self, direction: Direction) -> Result<()> {
        if self.first >= self.last {
            return self.step(direction);
        }
        self.stand_on(if direction == Direction::Forward { self.first } else { self.last - 1 })
    }

    /// Descends from the end of `path`, or from the top if `path` is empty, and pins a leaf.
    fn enter_leaf(
        &mut self,
        mut choose: impl FnMut(&TreeView, &TreePage<'_>) -> Result<usize>,
    ) -> Result<()> {
        self.is_valid = false;
        let height = self.view.root().height;
        let guard = crossbeam_epoch::pin();
        let mut child = match self.path.last() {
            Some((block, index)) => TreePage::of_validated(block).child(*index),
            None => match self.view.root().top {
                Some(top) => top,
                None => return Ok(()),
            },
        };
        for level in (1..height - self.path.len() as u8).rev() {
            let block = self.view.page(&child, level, Fill::Normal, &guard)?;
            let page = TreePage::of_validated(&block);
            let index = choose(&self.view, &page)?;
            child = page.child(index);
            self.path.push((block.pin(), index));
        }
        self.read_ahead(&child);
        let fill = if self.run < SCAN_LEAVES { Fill::Normal } else { Fill::Scan };
        let block = self.view.page(&child, 0, fill, &guard)?;
        let page = TreePage::of_validated(&block);
        self.first = match &self.lower {
            Bound::Unbounded => 0,
            Bound::Included(key) => self.view.lower_bound(&page, key)?.0,
            Bound::Excluded(key) => {
                let (cell, is_equal) = self.view.lower_bound(&page, key)?;
                cell + usize::from(is_equal)
            }
        };
        self.last = match &self.upper {
            Bound::Unbounded => page.cells(),
            Bound::Excluded(key) => self.view.lower_bound(&page, key)?.0,
            Bound::Included(key) => {
                let (cell, is_equal) = self.view.lower_bound(&page, key)?;
                cell + usize::from(is_equal)
            }
        };
        self.key.clear();
        self.key.extend_from_slice(page.prefix());
        self.prefix_len = page.prefix().len();
        self.leaf = Some(block.pin());
        Ok(())
    }

    /// Prefetches a missing leaf and those after it once the cursor seems sequential.
    fn read_ahead(&self, child: &Child) {
        let file = &self.view.state.file;
        let Some((parent, index)) = self.path.last() else { return };
        if self.run < 2 || file.slots.is_cached(child.pointer.page) {
            return;
        }
        let parent = TreePage::of_validated(parent);
        let ahead = *index..(*index + READAHEAD_LEAVES).min(parent.children());
        let mut pages = 0..0;
        for page in ahead.map(|i| parent.child(i).pointer.page).filter(|page| !file.slots.is_cached(*page)) {
            if page != pages.end {
                self.prefetch(pages);
                pages = page..page;
            }
            pages.end += 1;
        }
        self.prefetch(pages);
    }

    fn prefetch(&self, pages: Range<u32>) {
        if !pages.is_empty() {
            let file = &self.view.state.file;
            let len = file.offset(pages.end) - file.offset(pages.start);
            file.file.prefetch(file.offset(pages.start), len);
        }
    }

    /// Moves to the next leaf that has keys between the bounds, or out of the bounds.
    fn step(&mut self, direction: Direction) -> Result<()> {
        self.is_valid = false;
        loop {
            // A leaf that the bounds cut off on this side is the last one.
            let leaf = self.leaf.take();
            let Some(leaf) = leaf else { return Ok(()) };
            let cells = TreePage::of_validated(&leaf).cells();
            let is_cut = if direction == Direction::Forward { self.last < cells } else { self.first > 0 };
            if is_cut {
                return Ok(());
            }
            let moved = loop {
                let Some((block, index)) = self.path.last_mut() else { break false };
                let children = TreePage::of_validated(block).children();
                match direction {
                    Direction::Forward if *index + 1 < children => *index += 1,
                    Direction::Back if *index > 0 => *index -= 1,
                    _ => {
                        self.path.pop();
                        continue;
                    }
                }
                break true;
            };
            if !moved {
                return Ok(());
            }
            self.run = self.run.saturating_add(1);
            let forward = direction == Direction::Forward;
            self.enter_leaf(|_, page| Ok(if forward { 0 } else { page.children() - 1 }))?;
            if self.first < self.last {
                return self.stand_on_edge(direction);
            }
        }
    }

    /// Makes `cell` the current one. REQUIRES: it is inside the leaf.
    #[inline]
    fn stand_on(&mut self, cell: usize) -> Result<()> {
        let leaf = self.leaf.as_ref().expect("a leaf was entered");
        let page = TreePage::of_validated(leaf);
        self.key.truncate(self.prefix_len);
        page.append_suffix(cell, &mut self.key);
        self.cell = cell;
        self.long_value = None;
        if let Payload::Overflow(run) = page.payload(cell) {
            self.is_valid = false;
            let mut bytes = self.view.read_run(&run)?;
            let value = bytes.split_off(run.key_rest_bytes as usize);
            self.key.extend_from_slice(&bytes);
            self.long_value = Some(value);
        }
        self.is_valid = true;
        Ok(())
    }
}

impl fmt::Debug for TreeCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeCursor").field("valid", &self.is_valid).finish_non_exhaustive()
    }
}
