//! The tree as its single writer uses it: create, open, apply batches, install roots.
//!
//! The steps of a batch:
//! 1. [`Tree::apply`] reclaims pages that no view needs any more, writes new pages into free
//!    places, and syncs.
//! 2. The caller makes the returned root durable.
//! 3. [`Tree::install`] publishes the root to new views. The pages that only the old root has
//!    become free when the last view of it, and of all previous roots, is dropped.
//!
//! Invariant: a page is free, or reachable from the installed root, from the root of a view, or
//! from the root that waits to be installed. It is written only while it is free.
use crate::apply::{self, Outcome};
use crate::file::TreeFile;
use crate::load;
use crate::options::{Change, TreeOptions};
use crate::planted;
use crate::space::FreeSpace;
use crate::verify::TreeReport;
use crate::view::{State, TreeView};
use crate::walk::{self, PageSet};
use crate::writer::{PageWriter, Written, give_back};
use sapwood_base::format::btree_root::{TREE_HEADER_BYTES, TreeRoot, check_tree_header, encode_tree_header};
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_storage::{BufferCache, Env, File, OpenMode};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Weak};

/// A tree with write access. There must be one per file; readers use [`Tree::view`].
pub struct Tree {
    file: Arc<TreeFile>,
    view: TreeView,
    /// Unknown until the first change after opening.
    space: Option<FreeSpace>,
    /// Previously installed states, the oldest first.
    retired: VecDeque<Retired>,
    pending: Option<Pending>,
    /// A sync has failed. The contents of the file are unknown, so nothing is written any more.
    is_poisoned: bool,
}

/// A state that is no longer the newest.
struct Retired {
    state: Weak<State>,
    /// Pages that only this state and older ones have.
    pages: Vec<Range<u32>>,
}

/// A state whose root is not yet durable.
struct Pending {
    root: TreeRoot,
    written: Vec<Range<u32>>,
    left_behind: Vec<Range<u32>>,
}

impl Tree {
    /// Creates the file of an empty tree at `path`, which must not exist, and syncs it and its
    /// name. The caller stores [`Tree::root`].
    ///
    /// Errors: `InvalidArgument` for an impossible page size, and any error of the file system.
    pub fn create(env: &Env, path: &Path, options: &TreeOptions, cache: &Arc<BufferCache>) -> Result<Tree> {
        let tree = Tree::create_unnamed(env, path, options, cache)?;
        if let Some(directory) = path.parent() {
            env.fs().sync_directory(directory)?;
        }
        Ok(tree)
    }

    /// [`Tree::create`] without the sync of the name. The caller syncs the directory before it
    /// relies on the file.
    pub fn create_unnamed(
        env: &Env,
        path: &Path,
        options: &TreeOptions,
        cache: &Arc<BufferCache>,
    ) -> Result<Tree> {
        options.check()?;
        let root = TreeRoot::empty(env.random_u64(), options.page_bytes as u32);
        let file = env.fs().create_new(path)?;
        let mut page = vec![0; options.page_bytes];
        page[..TREE_HEADER_BYTES].copy_from_slice(&encode_tree_header(root.tree, root.page_bytes));
        file.write_at(0, &page)?;
        file.sync_all()?;
        Ok(Tree::new(file, root, cache))
    }

    /// Opens the tree at `path` in the state of `root`.
    ///
    /// Errors: `Corruption` if the file is not that of the tree or too short for the root,
    /// `Unsupported` for a newer format, and any error of the file system. Pages are checked when
    /// they are read.
    pub fn open(env: &Env, path: &Path, root: &TreeRoot, cache: &Arc<BufferCache>) -> Result<Tree> {
        Ok(Tree::new(open_file(env, path, root, OpenMode::ReadWrite)?, *root, cache))
    }

    /// Opens the tree at `path` in the state of `root` for reading only, without requesting write
    /// access.
    ///
    /// Errors: as of [`Tree::open`].
    pub fn open_view(env: &Env, path: &Path, root: &TreeRoot, cache: &Arc<BufferCache>) -> Result<TreeView> {
        let file = open_file(env, path, root, OpenMode::Read)?;
        Ok(TreeView::new(Arc::new(TreeFile::new(file, root, cache)), *root))
    }

    fn new(file: Box<dyn File>, root: TreeRoot, cache: &Arc<BufferCache>) -> Tree {
        let file = Arc::new(TreeFile::new(file, &root, cache));
        let view = TreeView::new(Arc::clone(&file), root);
        Tree { file, view, space: None, retired: VecDeque::new(), pending: None, is_poisoned: false }
    }

    /// The installed root.
    pub fn root(&self) -> &TreeRoot {
        self.view.root()
    }

    /// A view of the installed state.
    pub fn view(&self) -> TreeView {
        self.view.clone()
    }

    /// Writes and syncs the tree that results from the changes. Until the root is made durable and
    /// [`Tree::install`] is called, readers do not see the new tree, and a crash loses it.
    /// `changes` are sorted by key, each key once. If they have no effect, the installed root is
    /// returned.
    ///
    /// Errors: `InvalidArgument` if the changes are not in order or too long, or if an earlier root
    /// waits to be installed; `Corruption` if a page is not what was written; `NoSpace` and any
    /// other error of the file. After an error the tree is unchanged, and the call can be repeated.
    /// Only a failed sync is final: further changes fail with `Poisoned`.
    pub fn apply(&mut self, changes: &[Change<'_>]) -> Result<TreeRoot> {
        apply::check(changes)?;
        let root = *self.root();
        self.change(|writer| apply::apply(writer, &root, changes))
    }

    /// Fills an empty tree with sorted entries, each key once, in full pages. Otherwise like
    /// [`Tree::apply`]. Entries are consumed one by one, so there may be any number of them.
    ///
    /// Errors: those of [`Tree::apply`]; `InvalidArgument` if the tree is not empty; and those of
    /// `entries`.
    pub fn load<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        entries: impl IntoIterator<Item = Result<(K, V)>>,
    ) -> Result<TreeRoot> {
        if self.root().top.is_some() {
            return Err(Error::invalid_argument("only an empty tree can be loaded"));
        }
        self.change(|writer| {
            let (top, height, written) = load::load(writer, entries)?;
            Ok(top.is_some().then_some(Outcome { top, height, written, replaced: Vec::new() }))
        })
    }

    fn change(
        &mut self,
        write: impl FnOnce(&mut PageWriter<'_>) -> Result<Option<Outcome>>,
    ) -> Result<TreeRoot> {
        if self.is_poisoned {
            let message = "a sync of the tree has failed; open it again with its last durable root";
            return Err(Error::new(ErrorKind::Poisoned, message).in_file(self.file.file.path()));
        }
        if self.pending.is_some() {
            return Err(Error::invalid_argument("the root of an earlier batch waits to be installed"));
        }
        self.take_back()?;
        let old = *self.root();
        let file = Arc::clone(&self.file);
        let space = self.space.as_mut().expect("taken back above");
        let generation = old.generation + 1;
        let mut writer = PageWriter::new(&file, space, generation);
        let changed = match write(&mut writer) {
            Ok(Some(changed)) => changed,
            Ok(None) => {
                writer.abandon();
                return Ok(old);
            }
            Err(error) => {
                writer.abandon();
                return Err(error);
            }
        };
        if planted::syncs_pages()
            && let Err(error) = file.file.sync_data()
        {
            self.is_poisoned = true;
            return Err(error);
        }
        let Written { pages: written, mut left_behind } = changed.written;
        left_behind.extend(ranges(changed.replaced));
        let count = |ranges: &[Range<u32>]| ranges.iter().map(|range| range.end - range.start).sum::<u32>();
        let root = TreeRoot {
            height: changed.height,
            top: changed.top,
            generation,
            file_pages: space.end(),
            used_pages: old.used_pages + count(&written) - count(&left_behind),
            ..old
        };
        self.pending = Some(Pending { root, written, left_behind });
        Ok(root)
    }

    /// The size in bytes of the pages that the last change wrote, until its root is installed or
    /// discarded.
    pub fn pending_bytes(&self) -> u64 {
        let written = self.pending.iter().flat_map(|pending| &pending.written);
        written.map(|pages| self.file.offset(pages.end - pages.start)).sum()
    }

    /// Frees the pages whose last view is dropped.
    fn take_back(&mut self) -> Result<()> {
        if self.space.is_none() {
            let space = walk::free_space(&self.view)?;
            self.cut_what_came_to_nothing()?;
            self.space = Some(space);
        }
        let space = self.space.as_mut().expect("filled above");
        while let Some(oldest) = self.retired.front() {
            if planted::is_read(oldest.state.strong_count()) {
                break;
            }
            // Acquire: pairs with the release of the last view, so its reads happen before our
            // writes.
            fence(Ordering::Acquire);
            give_back(&self.file, space, &oldest.pages);
            self.retired.pop_front();
        }
        Ok(())
    }

    /// Truncates bytes after the root's pages, found when the tree was opened and left by an
    /// incomplete batch. If a sync failed at that time, the system may wrongly consider the file's
    /// length durable. Only growing the file again makes it durable.
    fn cut_what_came_to_nothing(&self) -> Result<()> {
        let len = self.file.offset(self.root().file_pages);
        if self.file.file.len()? > len {
            self.file.file.set_len(len)?;
        }
        Ok(())
    }

    /// Publishes the root of the last [`Tree::apply`] to new views. No effect if none waits.
    ///
    /// REQUIRES: the root is durable: after a crash the tree will be opened with it or a later one.
    pub fn install(&mut self) {
        if let Some(pending) = self.pending.take() {
            let view = TreeView::new(Arc::clone(&self.file), pending.root);
            let old = std::mem::replace(&mut self.view, view);
            self.retired.push_back(Retired { state: Arc::downgrade(&old.state), pages: pending.left_behind });
        }
    }

    /// Discards the root of the last [`Tree::apply`].
    ///
    /// REQUIRES: the root is not durable and never will be. If that is unknown, say because a sync
    /// of a MANIFEST has failed, drop the tree instead and open it again.
    pub fn discard(&mut self) {
        if let Some(pending) = self.pending.take() {
            let space = self.space.as_mut().expect("known since the change");
            give_back(&self.file, space, &pending.written);
        }
    }

    /// Truncates free pages at the end of the file if that frees at least `least_bytes`, and
    /// returns the number of bytes freed. The cut needs no sync, as losing it in a crash is
    /// harmless. It keeps all pages that the installed root requires, so pages freed after that
    /// root was made are cut after the next change.
    ///
    /// Errors: any error of the file. Only the space is lost then.
    pub fn trim(&mut self, least_bytes: u64) -> Result<u64> {
        if self.is_poisoned {
            return Ok(0);
        }
        self.take_back()?;
        let end = self.space.as_ref().map_or(0, FreeSpace::end);
        // Opening the durable root requires this many pages.
        let pages =
            end.max(self.root().file_pages).max(self.pending.as_ref().map_or(0, |it| it.root.file_pages));
        let len = self.file.offset(pages);
        let cut = self.file.file.len()?.saturating_sub(len);
        if cut == 0 || cut < least_bytes {
            return Ok(0);
        }
        self.file.file.set_len(len)?;
        Ok(cut)
    }

    /// The number of bytes of the file that are free for writing.
    ///
    /// Errors: as of [`TreeView::verify`], if the tree has not changed since it was opened.
    pub fn free_bytes(&mut self) -> Result<u64> {
        self.take_back()?;
        let pages = self.space.as_ref().map_or(0, FreeSpace::free_pages);
        Ok(self.file.offset(pages))
    }

    /// Checks the installed state as [`TreeView::verify`] does. Also checks that each page not
    /// reached from it is free once, kept for an older view, or part of a root that waits to be
    /// installed.
    ///
    /// Errors: `Corruption` with the place of the first damage, and any error of the file.
    pub fn verify(&self) -> Result<TreeReport> {
        let report = self.view.verify()?;
        let Some(space) = &self.space else { return Ok(report) };
        let reached = walk::reached(&self.view)?;
        let mut all = PageSet::new(space.end().max(self.root().file_pages))?;
        let mut mark = |page: u32, message: &str| {
            if all.mark(page) { Ok(()) } else { Err(self.file.corruption(page, message)) }
        };
        for page in (0..self.root().file_pages).filter(|page| reached.contains(*page)) {
            mark(page, "page is in use and behind the end")?;
        }
        for page in space.runs().flatten() {
            mark(page, "page is free and in use")?;
        }
        let kept = self.retired.iter().flat_map(|retired| &retired.pages);
        let pending = self.pending.iter().flat_map(|pending| &pending.written);
        for page in kept.chain(pending).cloned().flatten() {
            mark(page, "page is kept for a view and free or in use")?;
        }
        // Pages between the end and the root's pages were cut off since, and are free.
        if all.marked() != space.end() {
            return Err(self.file.corruption(0, "pages are lost: neither free nor in use"));
        }
        Ok(report)
    }
}

/// Opens the file of a tree, if it can be that of `root`.
fn open_file(env: &Env, path: &Path, root: &TreeRoot, mode: OpenMode) -> Result<Box<dyn File>> {
    let file = env.fs().open_on_demand(path, mode)?;
    let mut header = [0; TREE_HEADER_BYTES];
    file.read_exact_at(0, &mut header)?;
    check_tree_header(&header, root.tree, root.page_bytes).map_err(|error| error.at(path, 0))?;
    let (len, needed) = (file.len()?, root.file_bytes());
    if len < needed {
        let message = format!("file of a tree is shorter than its root says: {needed} bytes");
        return Err(Error::corruption(path, len, message));
    }
    Ok(file)
}

/// Combines pages into as few ranges as possible.
fn ranges(mut pages: Vec<u32>) -> Vec<Range<u32>> {
    pages.sort_unstable();
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for page in pages {
        match ranges.last_mut() {
            Some(last) if last.end == page => last.end += 1,
            _ => ranges.push(page..page + 1),
        }
    }
    ranges
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("root", self.root()).finish_non_exhaustive()
    }
}
