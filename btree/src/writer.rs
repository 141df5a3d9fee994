//! Writes the pages of one batch into free places, in long writes, and accounts for them.
//!
//! No page written here is visible until a root refers to it, so a failed batch returns all places.
use crate::file::{RunSource, TreeFile};
use crate::pack::{Items, NewNode, Separator};
use crate::space::FreeSpace;
use sapwood_base::Result;
use sapwood_base::format::btree_page::{
    Cell, Child, MAX_PAGES, OverflowRun, PAGE_HEADER_BYTES, PagePointer, Payload, encode_overflow_page,
    encode_page, inline_key_limit, inline_limit,
};
use sapwood_base::key::common_prefix_len;
use sapwood_base::memory;
use std::collections::HashMap;
use std::ops::Range;

/// The size of one write in bytes.
const WRITE_BYTES: usize = 1 << 20;

/// See the module. REQUIRES: ends with `finish` or `abandon`.
pub(crate) struct PageWriter<'a> {
    pub(crate) file: &'a TreeFile,
    space: &'a mut FreeSpace,
    generation: u64,
    /// Allocated but unused pages.
    ahead: Range<u32>,
    /// Pages from `buffer_start` on that are not yet written.
    buffer: Vec<u8>,
    buffer_start: u32,
    /// All pages used so far.
    used: Vec<Range<u32>>,
    /// Balance of references to overflow runs: plus one for each in a replaced page and for each
    /// new run, minus one for each in a written page. A run whose final balance is one is no longer
    /// referenced.
    runs: HashMap<u32, (i32, OverflowRun)>,
}

/// The pages written by a batch.
pub(crate) struct Written {
    pub(crate) pages: Vec<Range<u32>>,
    /// Overflow runs that are no longer referenced.
    pub(crate) left_behind: Vec<Range<u32>>,
}

impl<'a> PageWriter<'a> {
    pub(crate) fn new(file: &'a TreeFile, space: &'a mut FreeSpace, generation: u64) -> PageWriter<'a> {
        PageWriter {
            file,
            space,
            generation,
            ahead: 0..0,
            buffer: Vec::new(),
            buffer_start: 0,
            used: Vec::new(),
            runs: HashMap::new(),
        }
    }

    /// Allocates a page and buffer memory for its bytes. Flushes the buffer first if the page does
    /// not follow it.
    fn place(&mut self) -> Result<u32> {
        let page_bytes = self.file.page_bytes;
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()?;
        }
        if self.ahead.is_empty() {
            let wanted = (WRITE_BYTES / page_bytes) as u32;
            self.ahead = self.space.allocate(wanted)?;
        }
        let page = self.ahead.start;
        self.ahead.start += 1;
        // Recorded before anything can fail, so that a failure returns it.
        self.note_used(page..page + 1);
        let buffered = (self.buffer.len() / page_bytes) as u32;
        if self.buffer_start + buffered != page {
            self.flush()?;
        }
        if self.buffer.is_empty() {
            self.buffer_start = page;
        }
        self.buffer.resize(self.buffer.len() + page_bytes, 0);
        Ok(page)
    }

    fn note_used(&mut self, pages: Range<u32>) {
        match self.used.last_mut() {
            Some(last) if last.end == pages.start => last.end = pages.end,
            _ => self.used.push(pages),
        }
    }

    /// Writes the buffer to the file.
    fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.file.file.write_at(self.file.offset(self.buffer_start), &self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Writes the pages of `pages`, which are ranges of `items`. `first` is the separator before
    /// the first page. With `warm` the new pages enter the cache.
    pub(crate) fn write_pages(
        &mut self,
        items: &Items,
        pages: &[Range<usize>],
        level: u8,
        first: &Separator,
        warm: bool,
    ) -> Result<Vec<NewNode>> {
        let mut nodes = Vec::with_capacity(pages.len());
        for range in pages {
            let separator = if range.start == 0 {
                first.clone()
            } else if level == 0 {
                self.separate(&items.cell(range.start - 1), &items.cell(range.start))?
            } else {
                items.separator(range.start)
            };
            let child = self.write_page(items, range.clone(), level, warm)?;
            nodes.push(NewNode { separator, child });
        }
        Ok(nodes)
    }

    fn write_page(&mut self, items: &Items, range: Range<usize>, level: u8, warm: bool) -> Result<Child> {
        let first_cell = if level == 0 { range.start } else { range.start + 1 };
        let cells: Vec<Cell<'_>> = (first_cell..range.end).map(|i| items.cell(i)).collect();
        let children: Vec<Child> =
            if level == 0 { Vec::new() } else { range.clone().map(|i| items.child(i)).collect() };
        let (entries, has_overflow) = if level == 0 {
            (cells.len() as u64, cells.iter().any(|cell| matches!(cell.payload, Payload::Overflow(_))))
        } else {
            (
                children.iter().map(|child| child.entries).sum(),
                children.iter().any(|child| child.has_overflow),
            )
        };
        for cell in &cells {
            if let Payload::Overflow(run) = cell.payload {
                self.count_run(run, -1);
            }
        }
        let page = self.place()?;
        let start = self.buffer.len() - self.file.page_bytes;
        let out = &mut self.buffer[start..];
        encode_page(out, self.file.tree, page, self.generation, level, &cells, &children);
        if warm {
            let (slots, index) = self.file.slots.locate(page);
            slots.insert(index, out);
        }
        Ok(Child { pointer: PagePointer { page, generation: self.generation as u32 }, entries, has_overflow })
    }

    fn count_run(&mut self, run: OverflowRun, references: i32) {
        self.runs.entry(run.first.page).or_insert((0, run)).0 += references;
    }

    /// Records that a page with a reference to `run` is being replaced.
    pub(crate) fn take_over(&mut self, run: OverflowRun) {
        self.count_run(run, 1);
    }

    /// Prepares an entry for a leaf, or a separator for an inner page, by moving an overlong part
    /// into a run.
    pub(crate) fn shorten<'k>(&mut self, key: &'k [u8], value: &'k [u8]) -> Result<(&'k [u8], Payload<'k>)> {
        let page_bytes = self.file.page_bytes;
        if key.len() + value.len() <= inline_limit(page_bytes) {
            return Ok((key, Payload::Inline(value)));
        }
        let (kept, rest) = key.split_at(key.len().min(inline_key_limit(page_bytes)));
        let run = self.write_run(rest, value)?;
        Ok((kept, Payload::Overflow(run)))
    }

    fn write_run(&mut self, key_rest: &[u8], value: &[u8]) -> Result<OverflowRun> {
        self.flush()?;
        // Otherwise a run at the end of the file would leave a hole before it.
        self.space.release(std::mem::replace(&mut self.ahead, 0..0));
        let page_bytes = self.file.page_bytes;
        let bytes = [key_rest, value].concat();
        let capacity = page_bytes - PAGE_HEADER_BYTES;
        let pages = self.space.allocate_exact(bytes.len().div_ceil(capacity) as u32)?;
        self.note_used(pages.clone());
        let mut image = memory::filled(0, pages.len() * page_bytes)?;
        for ((page, out), payload) in
            pages.clone().zip(image.chunks_mut(page_bytes)).zip(bytes.chunks(capacity))
        {
            encode_overflow_page(out, self.file.tree, page, self.generation, payload);
        }
        self.file.file.write_at(self.file.offset(pages.start), &image)?;
        let run = OverflowRun {
            first: PagePointer { page: pages.start, generation: self.generation as u32 },
            key_rest_bytes: key_rest.len() as u32,
            value_bytes: value.len() as u32,
        };
        self.count_run(run, 1);
        Ok(run)
    }

    /// The shortest key above `left` that is not above `right`.
    pub(crate) fn separate(&mut self, left: &Cell<'_>, right: &Cell<'_>) -> Result<Separator> {
        let common = common_prefix_len(left.key, right.key);
        // The stored parts decide if the keys differ there, or if the shorter one is complete.
        let is_decided =
            common < right.key.len() && (common < left.key.len() || !left.payload.key_continues());
        if is_decided {
            return self.shorten_separator(&right.key[..=common]);
        }
        let (left, right) = (self.whole_key(left)?, self.whole_key(right)?);
        let common = common_prefix_len(&left, &right);
        self.shorten_separator(&right[..=common])
    }

    fn shorten_separator(&mut self, key: &[u8]) -> Result<Separator> {
        let (kept, payload) = self.shorten(key, &[])?;
        let overflow = match payload {
            Payload::Overflow(run) => Some(run),
            Payload::Inline(_) => None,
        };
        Ok(Separator { key: kept.to_vec(), overflow })
    }

    /// Returns a key with its rest. Runs are written immediately, so that those of this batch can
    /// be read too.
    pub(crate) fn whole_key(&self, cell: &Cell<'_>) -> Result<Vec<u8>> {
        let mut key = cell.key.to_vec();
        if let Payload::Overflow(run) = cell.payload {
            key.extend(self.file.read_run(&run, run.key_rest_bytes as usize, MAX_PAGES, RunSource::File)?);
        }
        Ok(key)
    }

    /// Reads a page of this batch or an older one from the file.
    pub(crate) fn read_back(&mut self, child: &Child, level: u8) -> Result<Vec<u8>> {
        self.flush()?;
        let mut bytes = vec![0; self.file.page_bytes];
        self.file.read_page(child, level, MAX_PAGES, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes the rest and frees unused pages. Does not sync.
    pub(crate) fn finish(&mut self) -> Result<Written> {
        self.flush()?;
        self.space.release(std::mem::replace(&mut self.ahead, 0..0));
        let mut left_behind = Vec::new();
        for (count, run) in self.runs.values() {
            match count {
                0 => {}
                1 => left_behind.push(run.first.page..run.first.page + run.pages(self.file.page_bytes)),
                _ => {
                    return Err(self.file.corruption(run.first.page, "an overflow run is referred to twice"));
                }
            }
        }
        Ok(Written { pages: std::mem::take(&mut self.used), left_behind })
    }

    /// Frees all pages of the batch.
    pub(crate) fn abandon(self) {
        self.space.release(self.ahead);
        give_back(self.file, self.space, &self.used);
    }
}

/// Frees pages that no root refers to, and evicts them from the cache.
pub(crate) fn give_back(file: &TreeFile, space: &mut FreeSpace, pages: &[Range<u32>]) {
    for range in pages {
        range.clone().for_each(|page| file.slots.remove(page));
        space.release(range.clone());
    }
}
