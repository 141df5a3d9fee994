//! Applies one batch of changes, from the root's page down and up again.
//!
//! 1. *Route*, from the top down: assigns the changes to children, level by level.
//! 2. *Rebuild*, from the leaves up: the changed children of one parent become new pages.
//!    Neighbours that change are repartitioned together. Pages that would be rather empty absorb an
//!    unchanged neighbour.
//! 3. The rest at the top becomes the new top page, with more levels or fewer.
//!
//! Nothing recurses. The work is proportional to the number of changed leaves and the pages above
//! them.
use crate::file::TreeFile;
use crate::options::{Change, check_entry, out_of_order};
use crate::pack::{Items, NewNode, Plan, Separator};
use crate::writer::{PageWriter, Written};
use sapwood_base::Result;
use sapwood_base::format::btree_page::{Child, MAX_TREE_HEIGHT, Payload, TreePage};
use sapwood_base::format::btree_root::TreeRoot;
use sapwood_storage::{Fill, PinnedBlock};
use std::ops::Range;

/// Changed neighbours are repartitioned together up to this many bytes.
const RUN_BYTES: usize = 1 << 20;
/// The number of unchanged neighbours that one run absorbs.
const MOST_NEIGHBOURS: usize = 2;

/// The tree after a batch, and the pages that the batch replaced.
pub(crate) struct Outcome {
    pub(crate) top: Option<Child>,
    pub(crate) height: u8,
    pub(crate) written: Written,
    /// Pages of the old tree that the new one does not have, except overflow runs.
    pub(crate) replaced: Vec<u32>,
}

/// An inner page with changes below it.
struct Touched {
    child: Child,
    /// The separator before the page.
    separator: Separator,
    /// Whether no page of its level is right of it.
    is_last: bool,
    /// Its touched children, ascending: the index of the child, and its changes.
    below: Vec<(usize, Below)>,
    /// The replacements of its children, filled in by the rebuild of the level below.
    replacements: Vec<Replacement>,
}

/// The changes below a child.
#[derive(Clone)]
enum Below {
    /// These changes, in a leaf.
    Changes(Range<usize>),
    /// The touched page with this number, one level below.
    Page(usize),
}

/// Some children of a page, and the nodes that replace them.
struct Replacement {
    children: Range<usize>,
    nodes: Vec<NewNode>,
}

/// Adjacent children that are being repartitioned.
struct Run {
    items: Items,
    children: Range<usize>,
    /// Whether all changes are after the last key of the tree.
    is_append: bool,
    /// Whether one of the old pages was in the cache.
    is_warm: bool,
}

/// Checks keys and values of a batch.
pub(crate) fn check(changes: &[Change<'_>]) -> Result<()> {
    for change in changes {
        check_entry(change.key, change.value.unwrap_or(&[]))?;
    }
    if changes.windows(2).any(|pair| pair[0].key >= pair[1].key) {
        return Err(out_of_order());
    }
    Ok(())
}

/// Applies changes that were checked. `None` if they have no effect.
pub(crate) fn apply(
    writer: &mut PageWriter<'_>,
    root: &TreeRoot,
    changes: &[Change<'_>],
) -> Result<Option<Outcome>> {
    let mut batch = Batch { file: writer.file, writer, root, changes, replaced: Vec::new() };
    let Some((top, height)) = batch.run()? else { return Ok(None) };
    let replaced = batch.replaced;
    Ok(Some(Outcome { top, height, written: writer.finish()?, replaced }))
}

struct Batch<'b, 'w> {
    file: &'w TreeFile,
    writer: &'b mut PageWriter<'w>,
    root: &'b TreeRoot,
    changes: &'b [Change<'b>],
    replaced: Vec<u32>,
}

impl Batch<'_, '_> {
    fn run(&mut self) -> Result<Option<(Option<Child>, u8)>> {
        let all = 0..self.changes.len();
        let top_level = self.root.height.saturating_sub(1);
        let mut run = Run { items: Items::default(), children: 0..0, is_append: false, is_warm: true };
        match self.root.top {
            None => {
                for change in self.changes {
                    self.push_change(change, &mut run.items)?;
                }
                if run.items.is_empty() {
                    return Ok(None);
                }
                run.is_append = true;
            }
            Some(top) if top_level == 0 => {
                if !self.rebuild_leaf(&top, all, true, &mut run)? {
                    return Ok(None);
                }
                run.children.end = 1;
            }
            Some(top) => {
                let mut levels = self.route(top, all)?;
                for level in 1..=top_level {
                    let (done, rest) = levels.split_at_mut(usize::from(level));
                    let below = done.last_mut().map_or(&mut [][..], |below| below.as_mut_slice());
                    for touched in &mut rest[0] {
                        self.rebuild_children(touched, below, level)?;
                    }
                }
                let top = &mut levels[usize::from(top_level)][0];
                if !self.rebuild_inner(top, top_level, &mut run)? {
                    return Ok(None);
                }
                run.children.end = 1;
            }
        }
        self.finish_top(run, top_level).map(Some)
    }

    /// Assigns the changes to pages. Returns the touched pages of each level; that of the leaves
    /// stays empty.
    fn route(&mut self, top: Child, changes: Range<usize>) -> Result<Vec<Vec<Touched>>> {
        let height = usize::from(self.root.height);
        let mut levels: Vec<Vec<Touched>> = (0..height).map(|_| Vec::new()).collect();
        let touched = |child, separator, is_last| Touched {
            child,
            separator,
            is_last,
            below: Vec::new(),
            replacements: Vec::new(),
        };
        levels[height - 1].push(touched(top, Separator::default(), true));
        let mut ranges = vec![changes];
        for level in (1..height).rev() {
            let mut ranges_below = Vec::new();
            let (below, here) = levels.split_at_mut(level);
            for (page_touched, range) in here[0].iter_mut().zip(ranges) {
                let block = self.pinned(&page_touched.child, level as u8)?;
                let page = TreePage::of_validated(&block);
                let mut start = range.start;
                while start < range.end {
                    let index =
                        self.file.child_of_key(&page, self.changes[start].key, None, self.root.file_pages)?;
                    let mut end = start + 1;
                    // All changes below the same child. There are only a few each, so they are
                    // tried in turn.
                    while end < range.end
                        && self.file.child_of_key(&page, self.changes[end].key, None, self.root.file_pages)?
                            == index
                    {
                        end += 1;
                    }
                    if level == 1 {
                        page_touched.below.push((index, Below::Changes(start..end)));
                    } else {
                        let separator = Separator::of_child(&page, index, &page_touched.separator);
                        let is_last = page_touched.is_last && index + 1 == page.children();
                        page_touched.below.push((index, Below::Page(below[level - 1].len())));
                        below[level - 1].push(touched(page.child(index), separator, is_last));
                        ranges_below.push(start..end);
                    }
                    start = end;
                }
            }
            ranges = ranges_below;
        }
        Ok(levels)
    }

    /// Returns a page of the old tree. It is pinned, because a write under an epoch guard would
    /// delay reclamation for others. Leaves that are not cached are read without filling the cache,
    /// since new ones replace them.
    fn pinned(&self, child: &Child, level: u8) -> Result<PinnedBlock> {
        let fill = if level == 0 { Fill::None } else { Fill::Normal };
        let guard = crossbeam_epoch::pin();
        Ok(self.file.page(child, level, self.root.file_pages, fill, &guard)?.pin())
    }

    /// Rebuilds the touched children of a page.
    fn rebuild_children(&mut self, parent: &mut Touched, below: &mut [Touched], level: u8) -> Result<()> {
        let block = self.pinned(&parent.child, level)?;
        let page = TreePage::of_validated(&block);
        let mut replacements: Vec<Replacement> = Vec::new();
        let mut run: Option<Run> = None;
        let touched = std::mem::take(&mut parent.below);
        if level == 1 {
            self.prefetch_leaves(&page, &touched);
        }
        for (number, (index, what)) in touched.iter().enumerate() {
            let index = *index;
            let continues =
                run.as_ref().is_some_and(|run| run.children.end == index && run.items.bytes() < RUN_BYTES);
            if !continues && let Some(run) = run.take() {
                let replacement = self.close(run, parent, &page, level - 1, &replacements, Some(index))?;
                replacements.push(replacement);
            }
            let mut target = run.take().unwrap_or_else(|| Run {
                items: Items::default(),
                children: index..index,
                is_append: false,
                is_warm: false,
            });
            let child = page.child(index);
            let has_changed = match what {
                Below::Changes(changes) => {
                    let is_last =
                        parent.is_last && number + 1 == touched.len() && index + 1 == page.children();
                    self.rebuild_leaf(&child, changes.clone(), is_last, &mut target)?
                }
                Below::Page(page) => self.rebuild_inner(&mut below[*page], level - 1, &mut target)?,
            };
            if has_changed {
                target.children.end = index + 1;
            }
            run = (!target.children.is_empty()).then_some(target);
        }
        if let Some(run) = run {
            let replacement = self.close(run, parent, &page, level - 1, &replacements, None)?;
            replacements.push(replacement);
        }
        parent.replacements = replacements;
        Ok(())
    }

    /// Prefetches the touched leaves of a parent that are not cached, so that the device reads
    /// several at a time.
    fn prefetch_leaves(&self, page: &TreePage<'_>, touched: &[(usize, Below)]) {
        for (index, _) in touched {
            let number = page.child(*index).pointer.page;
            if number < self.root.file_pages && !self.file.slots.is_cached(number) {
                self.file.file.prefetch(self.file.offset(number), self.file.page_bytes as u64);
            }
        }
    }

    /// Partitions a run into pages and writes them. `level` is that of the run; `next` is the next
    /// child with changes.
    fn close(
        &mut self,
        mut run: Run,
        parent: &Touched,
        page: &TreePage<'_>,
        level: u8,
        before: &[Replacement],
        next: Option<usize>,
    ) -> Result<Replacement> {
        let least = before.last().map_or(0, |replacement| replacement.children.end);
        let most = next.unwrap_or(page.children());
        let mut neighbours = 0;
        let plan = loop {
            let plan =
                Plan::new(&run.items, level == 0, self.file.page_bytes, run.children.len(), run.is_append);
            if !plan.wants_neighbour || neighbours == MOST_NEIGHBOURS {
                break plan;
            }
            neighbours += 1;
            if run.children.end < most {
                let index = run.children.end;
                self.take_in(
                    &page.child(index),
                    level,
                    &Separator::of_child(page, index, &parent.separator),
                    &mut run,
                )?;
                run.children.end += 1;
            } else if run.children.start > least {
                let index = run.children.start - 1;
                let mut whole = Run { items: Items::default(), ..run };
                let separator = Separator::of_child(page, index, &parent.separator);
                self.take_in(&page.child(index), level, &separator, &mut whole)?;
                whole.items.append(&run.items);
                whole.children.start = index;
                run = whole;
            } else {
                break plan;
            }
        };
        let first = Separator::of_child(page, run.children.start, &parent.separator);
        let nodes =
            self.writer.write_pages(&run.items, &plan.pages, level, &first, level > 0 || run.is_warm)?;
        Ok(Replacement { children: run.children, nodes })
    }

    /// Adds all items of an unchanged page to a run.
    fn take_in(&mut self, child: &Child, level: u8, separator: &Separator, run: &mut Run) -> Result<()> {
        run.is_warm |= self.file.slots.is_cached(child.pointer.page);
        let block = self.pinned(child, level)?;
        let page = TreePage::of_validated(&block);
        if level == 0 {
            for cell in 0..page.cells() {
                self.keep(&page, cell, &mut run.items);
            }
        } else {
            self.take_over_runs(&page);
            for index in 0..page.children() {
                let own = Separator::of_child(&page, index, separator);
                run.items.push(&own.key, own.payload(), Some(page.child(index)));
            }
        }
        self.replaced.push(child.pointer.page);
        Ok(())
    }

    fn keep(&mut self, page: &TreePage<'_>, cell: usize, items: &mut Items) {
        if let Payload::Overflow(run) = page.payload(cell) {
            self.writer.take_over(run);
        }
        items.push_cell(page, cell);
    }

    fn take_over_runs(&mut self, page: &TreePage<'_>) {
        for cell in 0..page.cells() {
            if let Payload::Overflow(run) = page.payload(cell) {
                self.writer.take_over(run);
            }
        }
    }

    /// Adds a leaf with its changes to a run. Returns false, and adds nothing, if the changes have
    /// no effect.
    fn rebuild_leaf(
        &mut self,
        child: &Child,
        changes: Range<usize>,
        is_last: bool,
        run: &mut Run,
    ) -> Result<bool> {
        let is_warm = self.file.slots.is_cached(child.pointer.page);
        let block = self.pinned(child, 0)?;
        let page = TreePage::of_validated(&block);
        let changes = &self.changes[changes];
        let mut places = Vec::with_capacity(changes.len());
        let mut has_changes = false;
        for change in changes {
            let (cell, is_there) = self.file.lower_bound(&page, change.key, self.root.file_pages)?;
            let is_effective = match (change.value, is_there) {
                (None, is_there) => is_there,
                (Some(_), false) => true,
                (Some(value), true) => page.payload(cell) != Payload::Inline(value),
            };
            has_changes |= is_effective;
            places.push((cell, is_there, is_effective));
        }
        if !has_changes {
            return Ok(false);
        }
        run.is_append = is_last && run.items.is_empty() && places.iter().all(|place| place.0 == page.cells());
        run.is_warm |= is_warm;
        let mut kept = 0;
        for (change, (cell, is_there, is_effective)) in changes.iter().zip(places) {
            while kept < cell {
                self.keep(&page, kept, &mut run.items);
                kept += 1;
            }
            if !is_effective {
                continue;
            }
            if is_there {
                if let Payload::Overflow(old) = page.payload(kept) {
                    self.writer.take_over(old);
                }
                kept += 1;
            }
            self.push_change(change, &mut run.items)?;
        }
        while kept < page.cells() {
            self.keep(&page, kept, &mut run.items);
            kept += 1;
        }
        self.replaced.push(child.pointer.page);
        Ok(true)
    }

    fn push_change(&mut self, change: &Change<'_>, items: &mut Items) -> Result<()> {
        if let Some(value) = change.value {
            let (key, payload) = self.writer.shorten(change.key, value)?;
            items.push(key, payload, None);
        }
        Ok(())
    }

    /// Adds the children of an inner page, with their replacements, to a run. Returns false, and
    /// adds nothing, if they are unchanged.
    fn rebuild_inner(&mut self, touched: &mut Touched, level: u8, run: &mut Run) -> Result<bool> {
        if touched.replacements.is_empty() {
            return Ok(false);
        }
        let block = self.pinned(&touched.child, level)?;
        let page = TreePage::of_validated(&block);
        self.take_over_runs(&page);
        let mut index = 0;
        for replacement in std::mem::take(&mut touched.replacements) {
            self.push_children(&page, index..replacement.children.start, &touched.separator, &mut run.items);
            replacement.nodes.iter().for_each(|node| run.items.push_node(node));
            index = replacement.children.end;
        }
        self.push_children(&page, index..page.children(), &touched.separator, &mut run.items);
        self.replaced.push(touched.child.pointer.page);
        Ok(true)
    }

    fn push_children(&self, page: &TreePage<'_>, children: Range<usize>, own: &Separator, items: &mut Items) {
        for index in children {
            let separator = Separator::of_child(page, index, own);
            items.push(&separator.key, separator.payload(), Some(page.child(index)));
        }
    }

    /// Combines the remaining items at the top into one top page, or none.
    fn finish_top(&mut self, run: Run, mut level: u8) -> Result<(Option<Child>, u8)> {
        let mut items = run.items;
        let mut replaced = run.children.len();
        loop {
            if items.is_empty() {
                return Ok((None, 0));
            }
            if level > 0 && items.len() == 1 {
                break;
            }
            let plan = Plan::new(&items, level == 0, self.file.page_bytes, replaced, run.is_append);
            let warm = level > 0 || run.is_warm;
            let nodes = self.writer.write_pages(&items, &plan.pages, level, &Separator::default(), warm)?;
            items = Items::default();
            nodes.iter().for_each(|node| items.push_node(node));
            level += 1;
            replaced = 0;
            assert!(level <= MAX_TREE_HEIGHT, "a tree of so many pages is not so high");
        }
        // While the top has a single child, that child becomes the top.
        let mut top = items.child(0);
        while level > 1 {
            let bytes = self.writer.read_back(&top, level - 1)?;
            let page = TreePage::of_validated(&bytes);
            if page.children() != 1 {
                break;
            }
            self.replaced.push(top.pointer.page);
            top = page.child(0);
            level -= 1;
        }
        Ok((Some(top), level))
    }
}
