//! Partitions cells of one level, in key order, into pages to be written.
//!
//! Leaves and inner pages are partitioned alike. An inner page does not store the key of its first
//! item, which becomes the separator in the parent.
use sapwood_base::format::btree_page::{
    CELL_BYTES, CHILD_BYTES, Cell, Child, OverflowRun, PAGE_HEADER_BYTES, PageSizer, Payload, TreePage,
};
use std::ops::Range;

/// A single page filled below this share absorbs a neighbour.
const LEAST_FILL: f64 = 0.45;
/// A split that would leave its pages below this share does so too.
const LEAST_SPLIT_FILL: f64 = 0.72;
/// The fill of the pages of a split, which leaves room for the next changes.
const SPLIT_FILL: f64 = 0.92;

/// A key to be stored in a parent, and the run for the rest that does not fit there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Separator {
    pub(crate) key: Vec<u8>,
    pub(crate) overflow: Option<OverflowRun>,
}

impl Separator {
    pub(crate) fn payload(&self) -> Payload<'static> {
        self.overflow.map_or(Payload::Inline(&[]), Payload::Overflow)
    }

    /// The separator before child `index` of `page`. `own` is the separator of the page itself.
    pub(crate) fn of_child(page: &TreePage<'_>, index: usize, own: &Separator) -> Separator {
        let Some(cell) = index.checked_sub(1) else { return own.clone() };
        let mut separator = Separator::default();
        page.append_key(cell, &mut separator.key);
        if let Payload::Overflow(run) = page.payload(cell) {
            separator.overflow = Some(run);
        }
        separator
    }
}

/// A written page, in the form that its parent stores.
#[derive(Clone, Debug)]
pub(crate) struct NewNode {
    pub(crate) separator: Separator,
    pub(crate) child: Child,
}

/// Cells in key order, in owned memory.
#[derive(Debug, Default)]
pub(crate) struct Items {
    bytes: Vec<u8>,
    list: Vec<Item>,
}

#[derive(Clone, Debug)]
struct Item {
    key: Range<usize>,
    value: Value,
    child: Option<Child>,
}

#[derive(Clone, Debug)]
enum Value {
    Inline(Range<usize>),
    Overflow(OverflowRun),
}

impl Items {
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The memory of keys and values in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn cell(&self, i: usize) -> Cell<'_> {
        let item = &self.list[i];
        let payload = match &item.value {
            Value::Inline(range) => Payload::Inline(&self.bytes[range.clone()]),
            Value::Overflow(run) => Payload::Overflow(*run),
        };
        Cell { key: &self.bytes[item.key.clone()], payload }
    }

    /// The child of item `i`. REQUIRES: these are items of an inner level.
    pub(crate) fn child(&self, i: usize) -> Child {
        self.list[i].child.expect("an item of an inner level has a child")
    }

    pub(crate) fn separator(&self, i: usize) -> Separator {
        let cell = self.cell(i);
        let overflow = match cell.payload {
            Payload::Overflow(run) => Some(run),
            Payload::Inline(_) => None,
        };
        Separator { key: cell.key.to_vec(), overflow }
    }

    pub(crate) fn push(&mut self, key: &[u8], payload: Payload<'_>, child: Option<Child>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.push_from(start, payload, child);
    }

    /// Adds cell `i` of a leaf unchanged.
    pub(crate) fn push_cell(&mut self, page: &TreePage<'_>, i: usize) {
        let start = self.bytes.len();
        page.append_key(i, &mut self.bytes);
        self.push_from(start, page.payload(i), None);
    }

    pub(crate) fn push_node(&mut self, node: &NewNode) {
        self.push(&node.separator.key, node.separator.payload(), Some(node.child));
    }

    fn push_from(&mut self, start: usize, payload: Payload<'_>, child: Option<Child>) {
        let end = self.bytes.len();
        let value = match payload {
            Payload::Inline(value) => {
                self.bytes.extend_from_slice(value);
                Value::Inline(end..self.bytes.len())
            }
            Payload::Overflow(run) => Value::Overflow(run),
        };
        self.list.push(Item { key: start..end, value, child });
    }

    /// Appends the items of `other`.
    pub(crate) fn append(&mut self, other: &Items) {
        for i in 0..other.len() {
            let cell = other.cell(i);
            self.push(cell.key, cell.payload, other.list[i].child);
        }
    }

    /// The items from `from` on.
    pub(crate) fn tail(&self, from: usize) -> Items {
        let mut tail = Items::default();
        for i in from..self.len() {
            let cell = self.cell(i);
            tail.push(cell.key, cell.payload, self.list[i].child);
        }
        tail
    }

    /// Partitions the items of `range` into pages that are filled in order. `weigh` receives the
    /// size of each item.
    pub(crate) fn fill(
        &self,
        range: Range<usize>,
        is_leaf: bool,
        page_bytes: usize,
        mut weigh: impl FnMut(usize),
    ) -> Vec<Range<usize>> {
        let mut pages = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let mut sizer = if is_leaf { PageSizer::leaf() } else { PageSizer::inner() };
            // The key of an inner page's first item moves to the parent.
            let first_cell = if is_leaf { start } else { start + 1 };
            let mut end = first_cell;
            while end < range.end && sizer.try_add(&self.cell(end), page_bytes) {
                end += 1;
            }
            assert!(end > start, "every page has room for a cell");
            if !is_leaf {
                weigh(CELL_BYTES + CHILD_BYTES);
            }
            for i in first_cell..end {
                let cell = self.cell(i);
                let own = if is_leaf { CELL_BYTES } else { CELL_BYTES + CHILD_BYTES };
                weigh(own + sizer.rest_len(&cell) + cell.payload.stored_len());
            }
            pages.push(start..end);
            start = end;
        }
        pages
    }
}

/// The partition of some items into pages.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The items of each page.
    pub(crate) pages: Vec<Range<usize>>,
    /// Whether the pages are so empty that a neighbour should be absorbed first.
    pub(crate) wants_neighbour: bool,
}

impl Plan {
    /// Plans the pages for items that replace `replaced` pages. With `is_append` the items are the
    /// end of a tree that grows at its end, and pages are filled completely.
    pub(crate) fn new(
        items: &Items,
        is_leaf: bool,
        page_bytes: usize,
        replaced: usize,
        is_append: bool,
    ) -> Plan {
        let mut weights = Vec::with_capacity(items.len());
        let full = items.fill(0..items.len(), is_leaf, page_bytes, |weight| weights.push(weight));
        if full.is_empty() {
            return Plan { pages: full, wants_neighbour: false };
        }
        let room = (page_bytes - PAGE_HEADER_BYTES) as f64;
        let total: usize = weights.iter().sum();
        let fill = total as f64 / (room * full.len() as f64);
        let is_split = full.len() > replaced;
        if is_append && is_split {
            return Plan { pages: full, wants_neighbour: false };
        }
        let wants_neighbour =
            if is_split { fill < LEAST_SPLIT_FILL } else { full.len() == 1 && fill < LEAST_FILL };
        let comfortable = (total as f64 / (room * SPLIT_FILL)).ceil() as usize;
        let count =
            if is_split { comfortable.max(full.len()) } else { comfortable.clamp(full.len(), replaced) };
        let count = count.min(items.len());
        if count == 1 {
            return Plan { pages: full, wants_neighbour };
        }
        let mut pages = Vec::with_capacity(count);
        let (mut start, mut weight) = (0, 0);
        for (i, own) in weights.iter().enumerate() {
            weight += own;
            let is_due = weight * count >= total * (pages.len() + 1);
            // Enough items must remain for the following pages.
            let must = items.len() - (i + 1) == count - (pages.len() + 1);
            if (is_due || must) && pages.len() + 1 < count {
                pages.push(start..i + 1);
                start = i + 1;
            }
        }
        pages.push(start..items.len());
        // The estimate used the prefixes of other pages, so a piece can be too long.
        let pages =
            pages.into_iter().flat_map(|piece| items.fill(piece, is_leaf, page_bytes, |_| {})).collect();
        Plan { pages, wants_neighbour }
    }
}
