//! Finds the pages that a root reaches. All others are free, which is how a newly opened tree finds
//! its free pages.
//!
//! Reads the inner pages, level by level. Of the leaves it reads only those that refer to overflow
//! runs, as recorded in the inner pages.
use crate::space::FreeSpace;
use crate::view::TreeView;
use sapwood_base::Result;
use sapwood_base::format::btree_page::{Child, OverflowRun, Payload, TreePage};
use sapwood_base::memory;
use sapwood_storage::Fill;
use std::ops::Range;

/// A set of pages of one file.
pub(crate) struct PageSet {
    words: Vec<u64>,
    pages: u32,
    marked: u32,
}

impl PageSet {
    /// An empty set over the pages below `pages`.
    ///
    /// Errors: `OutOfResources` if there is no memory for one bit per page.
    pub(crate) fn new(pages: u32) -> Result<PageSet> {
        let words = memory::filled(0, pages.div_ceil(64) as usize)?;
        Ok(PageSet { words, pages, marked: 0 })
    }

    /// Marks a page. Returns false if it is already marked, or outside.
    #[must_use]
    pub(crate) fn mark(&mut self, page: u32) -> bool {
        if page >= self.pages || self.contains(page) {
            return false;
        }
        self.words[page as usize / 64] |= 1 << (page % 64);
        self.marked += 1;
        true
    }

    pub(crate) fn contains(&self, page: u32) -> bool {
        self.words[page as usize / 64] >> (page % 64) & 1 == 1
    }

    pub(crate) fn marked(&self) -> u32 {
        self.marked
    }

    /// The ranges of pages that are not marked.
    fn gaps(&self) -> Vec<Range<u32>> {
        let mut gaps: Vec<Range<u32>> = Vec::new();
        for page in (0..self.pages).filter(|page| !self.contains(*page)) {
            match gaps.last_mut() {
                Some(gap) if gap.end == page => gap.end += 1,
                _ => gaps.push(page..page + 1),
            }
        }
        gaps
    }
}

/// All pages that a state reaches, the header included.
///
/// Errors: `Corruption` if a page is reached twice, or if there are more or fewer than the root
/// says.
pub(crate) fn reached(view: &TreeView) -> Result<PageSet> {
    let root = *view.root();
    let mut walk = Walk { view, set: PageSet::new(root.file_pages)? };
    assert!(walk.set.mark(0), "the header is the first");
    let mut here: Vec<Child> = root.top.into_iter().collect();
    let mut leaves = Vec::new();
    for top in &here {
        walk.mark(top.pointer.page)?;
    }
    for level in (1..root.height).rev() {
        let mut below = Vec::new();
        for child in &here {
            let guard = crossbeam_epoch::pin();
            let block = view.page(child, level, Fill::Normal, &guard)?;
            let page = TreePage::of_validated(&block);
            walk.mark_runs(&page)?;
            for child in (0..page.children()).map(|i| page.child(i)) {
                walk.mark(child.pointer.page)?;
                if level > 1 {
                    below.push(child);
                } else if child.has_overflow {
                    leaves.push(child);
                }
            }
        }
        here = below;
    }
    if root.height == 1 {
        leaves = here.into_iter().filter(|top| top.has_overflow).collect();
    }
    for leaf in &leaves {
        let guard = crossbeam_epoch::pin();
        let block = view.page(leaf, 0, Fill::None, &guard)?;
        walk.mark_runs(&TreePage::of_validated(&block))?;
    }
    if walk.set.marked() != root.used_pages {
        return Err(view.state.file.corruption(0, "root reaches another number of pages than it says"));
    }
    Ok(walk.set)
}

struct Walk<'a> {
    view: &'a TreeView,
    set: PageSet,
}

impl Walk<'_> {
    fn mark(&mut self, page: u32) -> Result<()> {
        if self.set.mark(page) {
            return Ok(());
        }
        Err(self
            .view
            .state
            .file
            .corruption(page, "page is referred to twice, or lies behind the end of the tree"))
    }

    fn mark_runs(&mut self, page: &TreePage<'_>) -> Result<()> {
        for cell in 0..page.cells() {
            if let Payload::Overflow(run) = page.payload(cell) {
                self.mark_run(&run)?;
            }
        }
        Ok(())
    }

    fn mark_run(&mut self, run: &OverflowRun) -> Result<()> {
        let first = run.first.page;
        (first..first + run.pages(self.view.state.file.page_bytes)).try_for_each(|page| self.mark(page))
    }
}

/// The free pages of a state if no other state exists.
pub(crate) fn free_space(view: &TreeView) -> Result<FreeSpace> {
    let set = reached(view)?;
    let mut space = FreeSpace::full(view.root().file_pages);
    set.gaps().into_iter().for_each(|gap| space.release(gap));
    Ok(space)
}
