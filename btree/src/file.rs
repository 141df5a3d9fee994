//! The file of a tree. Pages are read through the cache and checked once, when they are loaded.
//!
//! A page's references to other pages may be wrong, so every pointer is checked before it is
//! followed: the page must be inside the file, one level below, and of the generation in the
//! pointer. The level decreases with each step, which bounds every descent.
use crate::slots::PageSlots;
use crossbeam_epoch::Guard;
use sapwood_base::format::btree_page::{
    Child, KeyRest, OverflowRun, PAGE_HEADER_BYTES, PagePointer, TreePage, is_page, leaf_bytes_near,
    overflow_payload, parse_overflow_page,
};
use sapwood_base::format::btree_root::TreeRoot;
use sapwood_base::memory;
use sapwood_base::{Error, Result};
use sapwood_storage::{BlockRef, BufferCache, File, Fill};
use std::sync::Arc;

/// See the module. Shared by the writer and all views.
pub(crate) struct TreeFile {
    pub(crate) file: Box<dyn File>,
    pub(crate) tree: u64,
    pub(crate) page_bytes: usize,
    pub(crate) slots: PageSlots,
}

impl TreeFile {
    pub(crate) fn new(file: Box<dyn File>, root: &TreeRoot, cache: &Arc<BufferCache>) -> TreeFile {
        TreeFile { file, tree: root.tree, page_bytes: root.page_bytes as usize, slots: PageSlots::new(cache) }
    }

    pub(crate) fn offset(&self, page: u32) -> u64 {
        u64::from(page) * self.page_bytes as u64
    }

    /// The error for wrong bytes in `page`.
    #[cold]
    pub(crate) fn corruption(&self, page: u32, message: &str) -> Error {
        Error::corruption(self.file.path(), self.offset(page), message)
    }

    /// Returns the page of `child` at `level`, in a file of `file_pages` pages.
    ///
    /// Errors: `Corruption` if it is not what was written, and any error of the file.
    #[inline]
    pub(crate) fn page<'g>(
        &'g self,
        child: &Child,
        level: u8,
        file_pages: u32,
        fill: Fill,
        guard: &'g Guard,
    ) -> Result<BlockRef<'g>> {
        self.page_near(child, level, None, file_pages, fill, guard)
    }

    /// [`TreeFile::page`] that also prefetches the lines for a search whose key has about `share`
    /// of the page before it.
    #[inline]
    pub(crate) fn page_near<'g>(
        &'g self,
        child: &Child,
        level: u8,
        share: Option<f32>,
        file_pages: u32,
        fill: Fill,
        guard: &'g Guard,
    ) -> Result<BlockRef<'g>> {
        let pointer = child.pointer;
        if pointer.page >= file_pages {
            return Err(self.behind_the_end(pointer));
        }
        let (slots, index) = self.slots.locate(pointer.page);
        let block = slots.get_or_load(index, self.page_bytes, fill, guard, |bytes| {
            self.read_page(child, level, file_pages, bytes)
        })?;
        if let Some(share) = share.filter(|_| level == 0) {
            for offset in &leaf_bytes_near(child.entries as usize, share) {
                block.prefetch(*offset);
            }
        }
        if !is_page(&block, pointer, Some(level)) {
            return Err(self.other_page(pointer));
        }
        if let Some(share) = share {
            for offset in &TreePage::of_validated(&block).bytes_near(share) {
                block.prefetch(*offset);
            }
        }
        Ok(block)
    }

    #[cold]
    fn behind_the_end(&self, pointer: PagePointer) -> Error {
        self.corruption(pointer.page, "a page refers to one behind the end of the tree")
    }

    #[cold]
    fn other_page(&self, pointer: PagePointer) -> Error {
        self.corruption(pointer.page, "page is another one than the one that is referred to")
    }

    /// Reads and checks the page of `child`, bypassing the cache.
    pub(crate) fn read_page(
        &self,
        child: &Child,
        level: u8,
        file_pages: u32,
        bytes: &mut [u8],
    ) -> Result<()> {
        let page = child.pointer.page;
        if page >= file_pages {
            return Err(self.behind_the_end(child.pointer));
        }
        self.file.read_exact_at(self.offset(page), bytes)?;
        TreePage::parse(bytes, self.tree, child.pointer, level, child.entries)
            .map(drop)
            .map_err(|error| error.at(self.file.path(), self.offset(page)))
    }

    /// Reads the first `len` bytes of an overflow run.
    ///
    /// Errors: as of [`TreeFile::page`].
    pub(crate) fn read_run(
        &self,
        run: &OverflowRun,
        len: usize,
        file_pages: u32,
        from: RunSource,
    ) -> Result<Vec<u8>> {
        let capacity = self.page_bytes - PAGE_HEADER_BYTES;
        let pages = run.pages(self.page_bytes);
        if u64::from(run.first.page) + u64::from(pages) > u64::from(file_pages) {
            return Err(self.behind_the_end(run.first));
        }
        let mut out = Vec::new();
        memory::reserve(&mut out, len)?;
        let mut buffer = if from == RunSource::File { vec![0; self.page_bytes] } else { Vec::new() };
        for i in 0..len.div_ceil(capacity) {
            let pointer = PagePointer { page: run.first.page + i as u32, generation: run.first.generation };
            let expected = (run.len() - i * capacity).min(capacity);
            let guard = crossbeam_epoch::pin();
            let block;
            let payload = match from {
                RunSource::File => {
                    self.read_overflow_page(pointer, &mut buffer)?;
                    overflow_payload(&buffer)
                }
                RunSource::Cache => {
                    let (slots, index) = self.slots.locate(pointer.page);
                    block = slots.get_or_load(index, self.page_bytes, Fill::Scan, &guard, |bytes| {
                        self.read_overflow_page(pointer, bytes)
                    })?;
                    if !is_page(&block, pointer, None) {
                        return Err(self.other_page(pointer));
                    }
                    overflow_payload(&block)
                }
            };
            if payload.len() != expected {
                return Err(self.corruption(pointer.page, "page of an overflow run has another length"));
            }
            out.extend_from_slice(&payload[..expected.min(len - out.len())]);
        }
        Ok(out)
    }

    fn read_overflow_page(&self, pointer: PagePointer, bytes: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(self.offset(pointer.page), bytes)?;
        parse_overflow_page(bytes, self.tree, pointer)
            .map(drop)
            .map_err(|error| error.at(self.file.path(), self.offset(pointer.page)))
    }

    /// Reads the rest of a key.
    pub(crate) fn read_key_rest(&self, run: &OverflowRun, file_pages: u32) -> Result<Vec<u8>> {
        self.read_run(run, run.key_rest_bytes as usize, file_pages, RunSource::Cache)
    }

    /// The first cell of a page at or above `key`, and whether it is `key`.
    #[inline]
    pub(crate) fn lower_bound(
        &self,
        page: &TreePage<'_>,
        key: &[u8],
        file_pages: u32,
    ) -> Result<(usize, bool)> {
        let rest: &mut KeyRest<'_> = &mut |run| self.read_key_rest(run, file_pages);
        page.lower_bound(key, rest)
    }

    /// [`TreeFile::lower_bound`] in a leaf that has about `share` of its keys before `key`.
    #[inline]
    pub(crate) fn lower_bound_near(
        &self,
        page: &TreePage<'_>,
        key: &[u8],
        share: Option<f32>,
        file_pages: u32,
    ) -> Result<(usize, bool)> {
        let rest: &mut KeyRest<'_> = &mut |run| self.read_key_rest(run, file_pages);
        page.lower_bound_near(key, share, rest)
    }

    /// The child of an inner page below which `key` belongs. About `share` of the children lies
    /// before it.
    #[inline]
    pub(crate) fn child_of_key(
        &self,
        page: &TreePage<'_>,
        key: &[u8],
        share: Option<f32>,
        file_pages: u32,
    ) -> Result<usize> {
        let rest: &mut KeyRest<'_> = &mut |run| self.read_key_rest(run, file_pages);
        page.child_of_key(key, share, rest)
    }
}

/// The source of the pages of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunSource {
    /// Through the cache.
    Cache,
    /// The file only, to check it, or because no root refers to the new pages yet.
    File,
}
