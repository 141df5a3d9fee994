//! Checks a whole state of a tree. Every page is read from the file, not from the cache.
//!
//! The properties of a single page are checked when it is read: checksum, place, generation, level,
//! order, counts. This module checks them together: all keys in order with the separators between
//! them, every page reached once, every run readable.
use crate::file::RunSource;
use crate::view::TreeView;
use crate::walk;
use sapwood_base::Result;
use sapwood_base::format::btree_page::{Child, PAGE_HEADER_BYTES, Payload, TreePage};

/// The result of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TreeReport {
    /// The number of entries.
    pub entries: u64,
    /// The number of levels.
    pub height: u8,
    /// The number of leaves.
    pub leaf_pages: u64,
    /// The number of pages above the leaves.
    pub inner_pages: u64,
    /// The number of pages of overflow runs.
    pub overflow_pages: u64,
    /// The number of pages of the file that are unreferenced as far as the checked state knows.
    pub unreached_pages: u64,
    /// The average fill of the leaves, from 0 to 1: used bytes by room for them.
    pub leaf_fill: f64,
    /// The average fill of the pages above the leaves.
    pub inner_fill: f64,
}

/// A page on the current path, and the next position in it.
struct Step {
    bytes: Vec<u8>,
    level: u8,
    next: usize,
}

impl TreeView {
    /// Reads and checks the whole tree: every checksum, the order of keys and separators, the
    /// counts, that every page is reached once, and that every overflow run can be read.
    ///
    /// Errors: `Corruption` with the place of the first damage, and any error of the file.
    pub fn verify(&self) -> Result<TreeReport> {
        let reached = walk::reached(self)?;
        let root = self.root();
        let mut report = TreeReport {
            height: root.height,
            unreached_pages: u64::from(root.file_pages - reached.marked()),
            ..TreeReport::default()
        };
        let mut order = Order::default();
        let (mut leaf_bytes, mut inner_bytes) = (0, 0);
        let mut path: Vec<Step> = Vec::new();
        if let Some(top) = &root.top {
            path.push(self.step(top, root.height - 1)?);
        }
        while let Some(step) = path.last_mut() {
            let page = TreePage::of_validated(&step.bytes);
            if step.level == 0 {
                for cell in 0..page.cells() {
                    report.overflow_pages += self.check_cell(&page, cell, &mut order, true)?;
                }
                report.entries += page.cells() as u64;
                report.leaf_pages += 1;
                leaf_bytes += (page.used_bytes() - PAGE_HEADER_BYTES) as u64;
                path.pop();
            } else if step.next < page.children() {
                let next = step.next;
                if next > 0 {
                    report.overflow_pages += self.check_cell(&page, next - 1, &mut order, false)?;
                }
                let (child, level) = (page.child(next), step.level - 1);
                step.next += 1;
                let below = self.step(&child, level)?;
                path.push(below);
            } else {
                report.inner_pages += 1;
                inner_bytes += (page.used_bytes() - PAGE_HEADER_BYTES) as u64;
                path.pop();
            }
        }
        let room = (self.state.file.page_bytes - PAGE_HEADER_BYTES) as f64;
        report.leaf_fill = leaf_bytes as f64 / (room * report.leaf_pages.max(1) as f64);
        report.inner_fill = inner_bytes as f64 / (room * report.inner_pages.max(1) as f64);
        let pages = 1 + report.leaf_pages + report.inner_pages + report.overflow_pages;
        if report.entries != root.entries() || pages != u64::from(root.used_pages) {
            return Err(self.state.file.corruption(0, "root has other counts than its pages"));
        }
        Ok(report)
    }

    fn step(&self, child: &Child, level: u8) -> Result<Step> {
        let mut bytes = vec![0; self.state.file.page_bytes];
        self.state.file.read_page(child, level, self.root().file_pages, &mut bytes)?;
        Ok(Step { bytes, level, next: 0 })
    }

    /// Checks the order of a key or separator, and its run. Returns the number of pages of the run.
    fn check_cell(&self, page: &TreePage<'_>, cell: usize, order: &mut Order, is_entry: bool) -> Result<u64> {
        let mut key = std::mem::take(&mut order.spare);
        key.clear();
        page.append_key(cell, &mut key);
        let mut pages = 0;
        if let Payload::Overflow(run) = page.payload(cell) {
            let file = &self.state.file;
            let bytes = file.read_run(&run, run.len(), self.root().file_pages, RunSource::File)?;
            key.extend_from_slice(&bytes[..run.key_rest_bytes as usize]);
            pages = u64::from(run.pages(file.page_bytes));
        }
        let is_right = match order.last_is_entry {
            None => true,
            // A separator may equal the first key after it, but not the last one before.
            Some(false) if is_entry => order.last <= key,
            Some(_) => order.last < key,
        };
        if !is_right {
            let number = page.number();
            return Err(self.state.file.corruption(number, "keys of a tree are not in order"));
        }
        order.last_is_entry = Some(is_entry);
        order.spare = std::mem::replace(&mut order.last, key);
        Ok(pages)
    }
}

/// The last key or separator visited.
#[derive(Default)]
struct Order {
    last: Vec<u8>,
    last_is_entry: Option<bool>,
    spare: Vec<u8>,
}
