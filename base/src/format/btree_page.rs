//! The pages of a B+ tree: leaves, inner pages, and pages of overflow runs.
//!
//! A page in memory has the same bytes as on disk. [`TreePage::parse`] checks it once when it is
//! loaded, and every later lookup works on the image. The byte map is in `FORMAT.md`. Keys are cut
//! three ways: the prefix that all keys of a page share is stored once, the next eight bytes of
//! each key stand in a column of numbers that a search compares, and keys of inner pages are only
//! as long as they must be to separate two children.
//!
//! An entry that is too long for a page keeps the beginning of its key there. The rest of its key
//! and its value are in an *overflow run*: adjacent pages of its own. A comparison with such a key
//! may need the run, which this crate cannot read, so searches take a callback that reads it.
//!
//! Invariant: a page that passed [`TreePage::parse`] can be read with [`TreePage::of_validated`]
//! without leaving the image.
use crate::checksum::{checksum64, place_seed};
use crate::coding::{u16_at, u32_at, u64_at};
use crate::error::{Error, Result};
use crate::key::{MAX_KEY_BYTES, begins_with, common_prefix_len, key_prefix};
use crate::search::partition;
use heads::{LINE_BYTES, heads_below};
use std::cmp::Ordering;

mod size;
mod heads;

pub use heads::leaf_bytes_near;
use size::HEAD_BYTES;
pub use size::{
    CELL_BYTES, CHILD_BYTES, MAX_PAGE_BYTES, MAX_PAGES, MAX_TREE_HEIGHT, MAX_TREE_VALUE_BYTES,
    MIN_PAGE_BYTES, OVERFLOW_REFERENCE_BYTES, PAGE_HEADER_BYTES, inline_key_limit, inline_limit,
    is_page_size,
};

/// In the column of suffix lengths: the payload is the reference to an overflow run.
const IN_OVERFLOW: u16 = 1 << 15;
/// In a child's page number: the subtree has overflow runs.
const HAS_OVERFLOW: u32 = 1 << 31;

const LEAF: u8 = 1;
const INNER: u8 = 2;
const OVERFLOW: u8 = 3;

/// The position of a page, and which of the pages ever written there it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PagePointer {
    /// The number of the page: its offset in the file divided by the page size. Page 0 is the
    /// file's header.
    pub page: u32,
    /// The low half of the generation that wrote the page.
    pub generation: u32,
}

/// One child of an inner page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// The position of the child.
    pub pointer: PagePointer,
    /// The number of entries below it; at least one.
    pub entries: u64,
    /// Whether a leaf below it refers to an overflow run.
    pub has_overflow: bool,
}

/// The end of an entry that is too long for its page: the rest of the key, then the value, starting
/// at the first payload byte of the first page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OverflowRun {
    /// The first page of the run.
    pub first: PagePointer,
    /// The number of bytes of the key in the run.
    pub key_rest_bytes: u32,
    /// The length of the value in bytes.
    pub value_bytes: u32,
}

impl OverflowRun {
    /// The number of bytes in the run.
    pub fn len(&self) -> usize {
        self.key_rest_bytes as usize + self.value_bytes as usize
    }

    /// Whether the run is empty; no such runs are on disk.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of pages of the run.
    pub fn pages(&self, page_bytes: usize) -> u32 {
        self.len().div_ceil(page_bytes - PAGE_HEADER_BYTES) as u32
    }

    fn encode(&self) -> [u8; OVERFLOW_REFERENCE_BYTES] {
        let mut out = [0; OVERFLOW_REFERENCE_BYTES];
        out[..4].copy_from_slice(&self.first.page.to_le_bytes());
        out[4..8].copy_from_slice(&self.first.generation.to_le_bytes());
        out[8..12].copy_from_slice(&self.key_rest_bytes.to_le_bytes());
        out[12..].copy_from_slice(&self.value_bytes.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> OverflowRun {
        OverflowRun {
            first: PagePointer { page: u32_at(bytes, 0), generation: u32_at(bytes, 4) },
            key_rest_bytes: u32_at(bytes, 8),
            value_bytes: u32_at(bytes, 12),
        }
    }
}

/// The part of an entry after its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The key is complete and this is the value.
    Inline(&'a [u8]),
    /// The rest of the key and the value are in a run.
    Overflow(OverflowRun),
}

impl Payload<'_> {
    /// The number of bytes that the payload takes in a page.
    pub fn stored_len(&self) -> usize {
        match self {
            Payload::Inline(value) => value.len(),
            Payload::Overflow(_) => OVERFLOW_REFERENCE_BYTES,
        }
    }

    /// Whether the key continues in a run.
    pub fn key_continues(&self) -> bool {
        matches!(self, Payload::Overflow(run) if run.key_rest_bytes > 0)
    }
}

/// An entry to be written into a page.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// The key, or the part of it that is kept in the page.
    pub key: &'a [u8],
    /// The part after the key. In an inner page the value is empty.
    pub payload: Payload<'a>,
}

/// The maximum length of the shared prefix that this cell permits. A key that continues in a run
/// keeps a whole head in the page; otherwise the zero padding of a short head would misplace it.
fn prefix_cap(cell: &Cell<'_>) -> usize {
    if cell.payload.key_continues() { cell.key.len() - HEAD_BYTES } else { cell.key.len() }
}

/// Computes the length of a page incrementally, cell by cell.
#[derive(Debug)]
pub struct PageSizer<'a> {
    per_cell: usize,
    len: usize,
    key_lens: Vec<u32>,
    first: &'a [u8],
    prefix: usize,
    rests: usize,
}

impl<'a> PageSizer<'a> {
    /// A sizer for a leaf.
    pub fn leaf() -> PageSizer<'a> {
        PageSizer {
            per_cell: CELL_BYTES,
            len: PAGE_HEADER_BYTES,
            key_lens: Vec::new(),
            first: &[],
            prefix: 0,
            rests: 0,
        }
    }

    /// A sizer for an inner page, which has one child without a cell.
    pub fn inner() -> PageSizer<'a> {
        PageSizer {
            per_cell: CELL_BYTES + CHILD_BYTES,
            len: PAGE_HEADER_BYTES + CHILD_BYTES,
            ..PageSizer::leaf()
        }
    }

    /// The length of the page with the cells so far, in bytes.
    pub fn len(&self) -> usize {
        self.len + self.prefix + self.rests
    }

    /// Whether no cell was added yet.
    pub fn is_empty(&self) -> bool {
        self.key_lens.is_empty()
    }

    /// The bytes that a cell takes outside of the columns and its payload.
    pub fn rest_len(&self, cell: &Cell<'_>) -> usize {
        rest_len(cell.key.len(), self.prefix)
    }

    /// Adds a cell if the page stays at or below `limit` bytes. REQUIRES: cells come in ascending
    /// order.
    pub fn try_add(&mut self, cell: &Cell<'a>, limit: usize) -> bool {
        let mut prefix = prefix_cap(cell);
        if !self.key_lens.is_empty() {
            prefix = prefix.min(self.prefix);
            prefix = common_prefix_len(&self.first[..prefix], cell.key);
        }
        let rests = if prefix == self.prefix {
            self.rests
        } else {
            self.key_lens.iter().map(|&len| rest_len(len as usize, prefix)).sum()
        };
        let rests = rests + rest_len(cell.key.len(), prefix);
        let len = self.len + self.per_cell + cell.payload.stored_len();
        if len + prefix + rests > limit {
            return false;
        }
        if self.key_lens.is_empty() {
            self.first = cell.key;
        }
        (self.len, self.prefix, self.rests) = (len, prefix, rests);
        self.key_lens.push(cell.key.len() as u32);
        true
    }
}

/// The length of the part of a key that is neither in the prefix nor in the head.
fn rest_len(key_len: usize, prefix: usize) -> usize {
    (key_len - prefix).saturating_sub(HEAD_BYTES)
}

/// Writes a page into `out`, whose length is the page size, and seals it. Level 0 is a leaf without
/// children; a page above has one child more than cells.
///
/// # Panics
/// If the cells do not fit, which [`PageSizer`] checks beforehand.
pub fn encode_page(
    out: &mut [u8],
    tree: u64,
    page: u32,
    generation: u64,
    level: u8,
    cells: &[Cell<'_>],
    children: &[Child],
) {
    assert_eq!(children.len(), if level == 0 { 0 } else { cells.len() + 1 }, "children beside cells");
    let n = cells.len();
    let prefix = match (cells.first(), cells.last()) {
        (Some(first), Some(last)) => {
            let cap = cells.iter().map(prefix_cap).min().unwrap_or(0);
            common_prefix_len(first.key, last.key).min(cap)
        }
        _ => 0,
    };
    out.fill(0);
    let (heads, ends, suffixes) = (PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + 8 * n, PAGE_HEADER_BYTES + 10 * n);
    let mut at = PAGE_HEADER_BYTES + CELL_BYTES * n;
    for child in children {
        assert!(child.pointer.page < MAX_PAGES, "page numbers have 31 bits");
        let flag = if child.has_overflow { HAS_OVERFLOW } else { 0 };
        put(out, &mut at, &(child.pointer.page | flag).to_le_bytes());
    }
    for child in children {
        put(out, &mut at, &child.pointer.generation.to_le_bytes());
    }
    let mut entries = 0u64;
    for child in children {
        entries += child.entries;
        put(out, &mut at, &entries.to_le_bytes());
    }
    if let Some(first) = cells.first() {
        put(out, &mut at, &first.key[..prefix]);
    }
    let heap = at;
    for (i, cell) in cells.iter().enumerate() {
        let suffix = &cell.key[prefix..];
        let mut suffix_len = suffix.len() as u16;
        put(out, &mut at, suffix.get(HEAD_BYTES..).unwrap_or(&[]));
        match &cell.payload {
            Payload::Inline(value) => put(out, &mut at, value),
            Payload::Overflow(run) => {
                put(out, &mut at, &run.encode());
                suffix_len |= IN_OVERFLOW;
            }
        }
        out[heads + 8 * i..][..8].copy_from_slice(&key_prefix(suffix).to_le_bytes());
        out[ends + 2 * i..][..2].copy_from_slice(&((at - heap) as u16).to_le_bytes());
        out[suffixes + 2 * i..][..2].copy_from_slice(&suffix_len.to_le_bytes());
    }
    let header = Header {
        generation,
        page,
        kind: if level == 0 { LEAF } else { INNER },
        level,
        cells: n as u16,
        prefix: prefix as u16,
        used: at as u32,
    };
    header.seal(out, tree);
}

/// Writes one page of an overflow run into `out`, whose length is the page size, and seals it.
///
/// # Panics
/// If `payload` is empty or does not fit after the header.
pub fn encode_overflow_page(out: &mut [u8], tree: u64, page: u32, generation: u64, payload: &[u8]) {
    assert!(!payload.is_empty(), "an overflow page holds something");
    out.fill(0);
    let used = PAGE_HEADER_BYTES + payload.len();
    out[PAGE_HEADER_BYTES..used].copy_from_slice(payload);
    let header =
        Header { generation, page, kind: OVERFLOW, level: 0, cells: 0, prefix: 0, used: used as u32 };
    header.seal(out, tree);
}

fn put(out: &mut [u8], at: &mut usize, bytes: &[u8]) {
    out[*at..*at + bytes.len()].copy_from_slice(bytes);
    *at += bytes.len();
}

struct Header {
    generation: u64,
    page: u32,
    kind: u8,
    level: u8,
    cells: u16,
    prefix: u16,
    used: u32,
}

impl Header {
    fn seal(&self, out: &mut [u8], tree: u64) {
        out[8..16].copy_from_slice(&self.generation.to_le_bytes());
        out[16..20].copy_from_slice(&self.page.to_le_bytes());
        out[20] = self.kind;
        out[21] = self.level;
        out[22..24].copy_from_slice(&self.cells.to_le_bytes());
        out[24..26].copy_from_slice(&self.prefix.to_le_bytes());
        out[28..32].copy_from_slice(&self.used.to_le_bytes());
        let checksum = checksum64(&out[8..], page_seed(tree, self.page, self.generation));
        out[..8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Checks the parts common to all kinds of pages.
    fn open(bytes: &[u8], tree: u64, pointer: PagePointer) -> Result<Header> {
        if !is_page_size(bytes.len()) {
            return Err(Error::malformed("a page has a length that pages do not have"));
        }
        let header = Header {
            generation: u64_at(bytes, 8),
            page: u32_at(bytes, 16),
            kind: bytes[20],
            level: bytes[21],
            cells: u16_at(bytes, 22),
            prefix: u16_at(bytes, 24),
            used: u32_at(bytes, 28),
        };
        if u64_at(bytes, 0) != checksum64(&bytes[8..], page_seed(tree, pointer.page, header.generation)) {
            return Err(Error::malformed("page checksum does not match"));
        }
        if header.page != pointer.page || header.generation as u32 != pointer.generation {
            return Err(Error::malformed("page is of another generation than the one that is referred to"));
        }
        let used = header.used as usize;
        if !(PAGE_HEADER_BYTES..=bytes.len()).contains(&used) || u16_at(bytes, 26) != 0 {
            return Err(Error::malformed("page header is malformed"));
        }
        Ok(header)
    }
}

fn page_seed(tree: u64, page: u32, generation: u64) -> u64 {
    place_seed(tree, u64::from(page)) ^ generation.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Checks a page of an overflow run and returns its payload.
///
/// Errors: `Corruption`, without file and offset, if it is not the page that `pointer` means.
pub fn parse_overflow_page(bytes: &[u8], tree: u64, pointer: PagePointer) -> Result<&[u8]> {
    let header = Header::open(bytes, tree, pointer)?;
    if header.kind != OVERFLOW || header.level != 0 || header.cells != 0 || header.prefix != 0 {
        return Err(Error::malformed("page of an overflow run is of another kind"));
    }
    Ok(overflow_payload(bytes))
}

/// The payload of a page that passed [`parse_overflow_page`].
pub fn overflow_payload(bytes: &[u8]) -> &[u8] {
    &bytes[PAGE_HEADER_BYTES..u32_at(bytes, 28) as usize]
}

/// Whether a page that was checked when it was loaded is the one that `pointer` means, at that
/// level. Overflow pages have no level: `None`.
#[inline]
pub fn is_page(bytes: &[u8], pointer: PagePointer, level: Option<u8>) -> bool {
    let kind_fits = match level {
        Some(0) => bytes[20] == LEAF,
        Some(level) => bytes[20] == INNER && bytes[21] == level,
        None => bytes[20] == OVERFLOW,
    };
    kind_fits && u32_at(bytes, 8) == pointer.generation && u32_at(bytes, 16) == pointer.page
}

/// Reads the rest of a key from its overflow run. Called only for a comparison with a key whose
/// beginning is the same.
pub type KeyRest<'r> = dyn FnMut(&OverflowRun) -> Result<Vec<u8>> + 'r;

/// A leaf or an inner page.
#[derive(Clone, Copy, Debug)]
pub struct TreePage<'a> {
    bytes: &'a [u8],
    cells: usize,
    children: usize,
    prefix_at: usize,
    heap_at: usize,
}

impl<'a> TreePage<'a> {
    /// The page in `bytes`, which passed [`TreePage::parse`] when it was loaded.
    ///
    /// # Panics
    /// This call or a later one may panic if the page did not pass.
    #[inline]
    pub fn of_validated(bytes: &'a [u8]) -> TreePage<'a> {
        let cells = usize::from(u16_at(bytes, 22));
        let children = if bytes[20] == LEAF { 0 } else { cells + 1 };
        let prefix_at = PAGE_HEADER_BYTES + CELL_BYTES * cells + CHILD_BYTES * children;
        TreePage { bytes, cells, children, prefix_at, heap_at: prefix_at + usize::from(u16_at(bytes, 24)) }
    }

    /// Checks the page and everything in it that can be checked without other pages.
    ///
    /// Errors: `Corruption`, without file and offset, if it is not the page that `pointer` means at
    /// `level`, if it does not have `entries` entries, or if it is malformed.
    pub fn parse(
        bytes: &'a [u8],
        tree: u64,
        pointer: PagePointer,
        level: u8,
        entries: u64,
    ) -> Result<TreePage<'a>> {
        let header = Header::open(bytes, tree, pointer)?;
        let kind = if level == 0 { LEAF } else { INNER };
        if header.kind != kind || header.level != level {
            return Err(Error::malformed(
                "page is of another kind or level than the one that is referred to",
            ));
        }
        let cells = usize::from(header.cells);
        let children = if level == 0 { 0 } else { cells + 1 };
        let columns = PAGE_HEADER_BYTES + CELL_BYTES * cells + CHILD_BYTES * children;
        if columns + usize::from(header.prefix) > header.used as usize {
            return Err(Error::malformed("columns of a page are longer than the page"));
        }
        let page = TreePage::of_validated(bytes);
        page.check_cells(header.used as usize)?;
        page.check_children()?;
        if page.entries() != entries {
            return Err(Error::malformed("page has another number of entries than its parent says"));
        }
        Ok(page)
    }

    fn check_cells(&self, used: usize) -> Result<()> {
        let page_bytes = self.bytes.len();
        let is_leaf = self.children == 0;
        let mut start = 0;
        for i in 0..self.cells {
            let end = usize::from(self.end(i));
            let raw = self.suffix_word(i);
            let suffix = usize::from(raw & !IN_OVERFLOW);
            let rest = suffix.saturating_sub(HEAD_BYTES);
            let is_long = raw & IN_OVERFLOW != 0;
            let least = start + rest + if is_long { OVERFLOW_REFERENCE_BYTES } else { 0 };
            if end < least || self.heap_at + end > used || (end != least && (is_long || !is_leaf)) {
                return Err(Error::malformed("cell leaves its page"));
            }
            if suffix < HEAD_BYTES && self.head(i) & (u64::MAX >> (8 * suffix)) != 0 {
                return Err(Error::malformed("head of a short key is not padded with zeros"));
            }
            if is_long {
                let run = OverflowRun::decode(&self.bytes[self.heap_at + end - OVERFLOW_REFERENCE_BYTES..]);
                let key = self.prefix().len() + suffix + run.key_rest_bytes as usize;
                let last = u64::from(run.first.page) + u64::from(run.pages(page_bytes));
                let is_right = key <= MAX_KEY_BYTES
                    && run.value_bytes as usize <= MAX_TREE_VALUE_BYTES
                    && !run.is_empty()
                    && (run.key_rest_bytes == 0 || suffix >= HEAD_BYTES)
                    && (is_leaf || run.value_bytes == 0)
                    && run.first.page > 0
                    && last <= u64::from(MAX_PAGES);
                if !is_right {
                    return Err(Error::malformed("reference to an overflow run is malformed"));
                }
            }
            if i > 0 && !self.may_follow(i) {
                return Err(Error::malformed("keys of a page are not in order"));
            }
            start = end;
        }
        if self.heap_at + start != used {
            return Err(Error::malformed("page holds more than its cells"));
        }
        Ok(())
    }

    fn check_children(&self) -> Result<()> {
        let mut before = 0;
        for i in 0..self.children {
            let entries = self.entries_through(i);
            if entries <= before || self.child_page(i) & !HAS_OVERFLOW == 0 {
                return Err(Error::malformed("child of an inner page is malformed"));
            }
            before = entries;
        }
        Ok(())
    }

    /// Whether key `i` may be above the key before it, as far as this page alone decides.
    fn may_follow(&self, i: usize) -> bool {
        match self.head(i - 1).cmp(&self.head(i)) {
            Ordering::Less => return true,
            Ordering::Greater => return false,
            Ordering::Equal => {}
        }
        let (before, after) = (self.suffix_len(i - 1), self.suffix_len(i));
        if before < HEAD_BYTES || after < HEAD_BYTES {
            return before < after;
        }
        let (lower, upper) = (self.suffix_rest(i - 1), self.suffix_rest(i));
        let common = lower.len().min(upper.len());
        match lower[..common].cmp(&upper[..common]) {
            Ordering::Less => true,
            Ordering::Greater => false,
            // One is a prefix of the other. If it continues in a run, this page cannot decide the
            // order.
            Ordering::Equal if lower.len() <= upper.len() && self.payload(i - 1).key_continues() => true,
            Ordering::Equal if upper.len() <= lower.len() && self.payload(i).key_continues() => true,
            Ordering::Equal => lower.len() < upper.len(),
        }
    }

    /// The number of cells: entries of a leaf, separators of an inner page.
    #[inline]
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// The number of children; 0 in a leaf.
    #[inline]
    pub fn children(&self) -> usize {
        self.children
    }

    /// The level: 0 is a leaf.
    pub fn level(&self) -> u8 {
        self.bytes[21]
    }

    /// The number of the page.
    pub fn number(&self) -> u32 {
        u32_at(self.bytes, 16)
    }

    /// The generation that wrote the page.
    pub fn generation(&self) -> u64 {
        u64_at(self.bytes, 8)
    }

    /// The number of bytes in use, header included.
    pub fn used_bytes(&self) -> usize {
        u32_at(self.bytes, 28) as usize
    }

    /// The prefix that all keys of the page share.
    #[inline]
    pub fn prefix(&self) -> &'a [u8] {
        &self.bytes[self.prefix_at..self.heap_at]
    }

    /// The number of entries in this page and below it.
    #[inline]
    pub fn entries(&self) -> u64 {
        match self.children {
            0 => self.cells as u64,
            children => self.entries_through(children - 1),
        }
    }

    /// The number of entries below the children before child `i`. REQUIRES: an inner page,
    /// `i <= children()`.
    #[inline]
    pub fn entries_before(&self, i: usize) -> u64 {
        if i == 0 { 0 } else { self.entries_through(i - 1) }
    }

    #[inline]
    fn entries_through(&self, i: usize) -> u64 {
        u64_at(self.bytes, PAGE_HEADER_BYTES + CELL_BYTES * self.cells + 8 * self.children + 8 * i)
    }

    #[inline]
    fn child_page(&self, i: usize) -> u32 {
        u32_at(self.bytes, PAGE_HEADER_BYTES + CELL_BYTES * self.cells + 4 * i)
    }

    /// Child `i`. REQUIRES: `i < children()`.
    #[inline]
    pub fn child(&self, i: usize) -> Child {
        let at = PAGE_HEADER_BYTES + CELL_BYTES * self.cells + 4 * self.children + 4 * i;
        let page = self.child_page(i);
        Child {
            pointer: PagePointer { page: page & !HAS_OVERFLOW, generation: u32_at(self.bytes, at) },
            entries: self.entries_through(i) - self.entries_before(i),
            has_overflow: page & HAS_OVERFLOW != 0,
        }
    }

    /// The child that holds entry `n` of this subtree, and the number of the entry in it; `None` if
    /// there is none.
    pub fn child_of_entry(&self, n: u64) -> Option<(usize, u64)> {
        if n >= self.entries() {
            return None;
        }
        let child = partition(0, self.children, |i| self.entries_through(i) <= n);
        Some((child, n - self.entries_before(child)))
    }

    #[inline]
    fn heads(&self) -> &'a [[u8; HEAD_BYTES]] {
        self.bytes[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + HEAD_BYTES * self.cells].as_chunks().0
    }

    #[inline]
    fn head(&self, i: usize) -> u64 {
        u64_at(self.bytes, PAGE_HEADER_BYTES + 8 * i)
    }

    #[inline]
    fn end(&self, i: usize) -> u16 {
        u16_at(self.bytes, PAGE_HEADER_BYTES + 8 * self.cells + 2 * i)
    }

    #[inline]
    fn suffix_word(&self, i: usize) -> u16 {
        u16_at(self.bytes, PAGE_HEADER_BYTES + 10 * self.cells + 2 * i)
    }

    #[inline]
    fn suffix_len(&self, i: usize) -> usize {
        usize::from(self.suffix_word(i) & !IN_OVERFLOW)
    }

    /// The bytes of cell `i` outside of the columns.
    #[inline]
    fn stored(&self, i: usize) -> &'a [u8] {
        let start = if i == 0 { 0 } else { usize::from(self.end(i - 1)) };
        &self.bytes[self.heap_at + start..self.heap_at + usize::from(self.end(i))]
    }

    /// Byte offsets that a search reads, besides those of [`leaf_bytes_near`], if its key is at
    /// relative position `share`: in a leaf the stored cells near that position, in an inner page
    /// the columns.
    #[inline]
    pub fn bytes_near(&self, share: f32) -> [usize; 5] {
        if self.children == 0 {
            let stored = self.used_bytes().saturating_sub(self.heap_at);
            let near = self.heap_at + (share * stored as f32) as usize;
            return [
                near.wrapping_sub(2 * LINE_BYTES),
                near.wrapping_sub(LINE_BYTES),
                near,
                near.wrapping_add(LINE_BYTES),
                near.wrapping_add(2 * LINE_BYTES),
            ];
        }
        let near = (share * self.cells as f32) as usize;
        let children = PAGE_HEADER_BYTES + CELL_BYTES * self.cells;
        [
            PAGE_HEADER_BYTES + 8 * near,
            self.prefix_at,
            children + 4 * near,
            children + 4 * self.children + 4 * near,
            children + 8 * self.children + 8 * near,
        ]
    }

    /// The suffix of key `i` after its head.
    #[inline]
    fn suffix_rest(&self, i: usize) -> &'a [u8] {
        &self.stored(i)[..self.suffix_len(i).saturating_sub(HEAD_BYTES)]
    }

    /// Appends key `i`, or the part of it that the page keeps. REQUIRES: `i < cells()`.
    #[inline]
    pub fn append_key(&self, i: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(self.prefix());
        self.append_suffix(i, out);
    }

    /// Appends the suffix of key `i`, the part after the prefix. REQUIRES: `i < cells()`.
    #[inline]
    pub fn append_suffix(&self, i: usize, out: &mut Vec<u8>) {
        let len = self.suffix_len(i);
        let head = self.head(i).to_be_bytes();
        // The head is always copied whole: a copy of known length is one instruction.
        out.extend_from_slice(&head);
        if len > HEAD_BYTES {
            out.extend_from_slice(&self.stored(i)[..len - HEAD_BYTES]);
        } else if len < HEAD_BYTES {
            out.truncate(out.len() - (HEAD_BYTES - len));
        }
    }

    /// Copies the suffix of key `i` to the beginning of `out` and returns its length; `None` if it
    /// is longer than `out`. REQUIRES: `i < cells()`.
    #[inline]
    pub fn copy_suffix<const N: usize>(&self, i: usize, out: &mut [u8; N]) -> Option<usize> {
        const { assert!(N >= HEAD_BYTES) };
        let len = self.suffix_len(i);
        out[..HEAD_BYTES].copy_from_slice(&self.head(i).to_be_bytes());
        if let Some(rest) = len.checked_sub(HEAD_BYTES) {
            out.get_mut(HEAD_BYTES..len)?.copy_from_slice(&self.stored(i)[..rest]);
        }
        Some(len)
    }

    /// The part of key `i` after the prefix and `beginning`, and the key's payload; `None` if the
    /// suffix does not start with `beginning`. `beginning` is at least a head long. For a key that
    /// continues in a run, only the head is compared. REQUIRES: `i < cells()`.
    #[inline]
    pub fn behind(&self, i: usize, beginning: &[u8]) -> Option<(&'a [u8], Payload<'a>)> {
        let (head, rest) = beginning.split_first_chunk::<HEAD_BYTES>()?;
        if self.head(i) != u64::from_be_bytes(*head) {
            return None;
        }
        let word = self.suffix_word(i);
        let own_len = usize::from(word & !IN_OVERFLOW).checked_sub(HEAD_BYTES)?;
        let (own, payload) = self.stored(i).split_at(own_len);
        if word & IN_OVERFLOW != 0 {
            return Some((own, Payload::Overflow(OverflowRun::decode(payload))));
        }
        begins_with(own, rest).then(|| (&own[rest.len()..], Payload::Inline(payload)))
    }

    /// The payload of key `i`. REQUIRES: `i < cells()`.
    #[inline]
    pub fn payload(&self, i: usize) -> Payload<'a> {
        let word = self.suffix_word(i);
        let rest = usize::from(word & !IN_OVERFLOW).saturating_sub(HEAD_BYTES);
        let payload = &self.stored(i)[rest..];
        if word & IN_OVERFLOW == 0 {
            Payload::Inline(payload)
        } else {
            Payload::Overflow(OverflowRun::decode(payload))
        }
    }

    /// The estimated share of the entries below child `i` that sort before `key`, assuming keys
    /// evenly spaced between the adjacent separators.
    #[inline]
    pub fn share_below(&self, i: usize, key: &[u8]) -> Option<f32> {
        if i == 0 || i >= self.cells || !begins_with(key, self.prefix()) {
            return None;
        }
        let suffix = &key[self.prefix().len()..];
        let (lower, upper) = (self.head(i - 1), self.head(i));
        let before = key_prefix(suffix).saturating_sub(lower);
        (lower < upper).then(|| (before as f32 / (upper - lower) as f32).min(1.0))
    }

    /// The first cell whose key is at or above `key`, and whether it is `key`.
    ///
    /// Errors: those of `key_rest`.
    #[inline]
    pub fn lower_bound(&self, key: &[u8], key_rest: &mut KeyRest<'_>) -> Result<(usize, bool)> {
        self.lower_bound_near(key, None, key_rest)
    }

    /// [`TreePage::lower_bound`] with an estimate of the share of the keys that sort before `key`.
    #[inline]
    pub fn lower_bound_near(
        &self,
        key: &[u8],
        share: Option<f32>,
        key_rest: &mut KeyRest<'_>,
    ) -> Result<(usize, bool)> {
        let prefix = self.prefix();
        if !begins_with(key, prefix) {
            // A key that ends inside the prefix is below all others, which agrees with the
            // comparison.
            return Ok((if key < prefix { 0 } else { self.cells }, false));
        }
        let suffix = &key[prefix.len()..];
        let head = key_prefix(suffix);
        let heads = self.heads();
        let mut low = heads_below(heads, head, share);
        if low == self.cells || self.head(low) != head {
            return Ok((low, false));
        }
        let mut high = self.cells;
        if low + 1 < self.cells && self.head(low + 1) != head {
            high = low + 1;
        } else {
            high = low + heads[low..high].partition_point(|other| u64::from_le_bytes(*other) <= head);
        }
        while low < high {
            let middle = low.midpoint(high);
            match self.compare_tie(middle, suffix, key_rest)? {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Ok((middle, true)),
            }
        }
        Ok((low, false))
    }

    /// The child whose subtree covers `key`. `share` estimates the share of the children before it.
    /// REQUIRES: an inner page.
    ///
    /// Errors: those of `key_rest`.
    #[inline]
    pub fn child_of_key(&self, key: &[u8], share: Option<f32>, key_rest: &mut KeyRest<'_>) -> Result<usize> {
        let (cell, is_equal) = self.lower_bound_near(key, share, key_rest)?;
        Ok(cell + usize::from(is_equal))
    }

    /// Compares the suffix of key `i` with one that has the same head.
    #[inline]
    fn compare_tie(&self, i: usize, suffix: &[u8], key_rest: &mut KeyRest<'_>) -> Result<Ordering> {
        let word = self.suffix_word(i);
        let len = usize::from(word & !IN_OVERFLOW);
        if len < HEAD_BYTES || suffix.len() < HEAD_BYTES {
            return Ok(len.cmp(&suffix.len()));
        }
        let other = &suffix[HEAD_BYTES..];
        let (own, payload) = self.stored(i).split_at(len - HEAD_BYTES);
        if word & IN_OVERFLOW != 0 {
            return compare_long(own, &OverflowRun::decode(payload), other, key_rest);
        }
        // Most searches look for a prefix that is present.
        Ok(if begins_with(own, other) { own.len().cmp(&other.len()) } else { own.cmp(other) })
    }
}

/// Compares the part in the page of a key that refers to `run` with `other`.
#[cold]
fn compare_long(own: &[u8], run: &OverflowRun, other: &[u8], key_rest: &mut KeyRest<'_>) -> Result<Ordering> {
    if run.key_rest_bytes == 0 {
        return Ok(own.cmp(other));
    }
    let common = own.len().min(other.len());
    match own[..common].cmp(&other[..common]) {
        Ordering::Equal if other.len() <= own.len() => Ok(Ordering::Greater),
        Ordering::Equal => Ok(key_rest(run)?.as_slice().cmp(&other[own.len()..])),
        unequal => Ok(unequal),
    }
}

#[cfg(test)]
mod tests;
