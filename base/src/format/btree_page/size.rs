//! Sizes of pages, of their parts, and of the parts that move to an overflow run.

/// The smallest page in bytes.
pub const MIN_PAGE_BYTES: usize = 512;
/// The largest page in bytes.
pub const MAX_PAGE_BYTES: usize = 64 << 10;
/// The length of a page's header in bytes.
pub const PAGE_HEADER_BYTES: usize = 32;
/// The bytes that a cell takes besides its suffix and its payload; they include eight bytes of the
/// suffix.
pub const CELL_BYTES: usize = 12;
/// The bytes that a child takes in an inner page.
pub const CHILD_BYTES: usize = 16;
/// The length of the reference to an overflow run in bytes.
pub const OVERFLOW_REFERENCE_BYTES: usize = 16;
/// Page numbers are below this.
pub const MAX_PAGES: u32 = 1 << 31;
/// The maximum number of levels of a tree. A tree that splits every page into two, down to the last
/// page, has fewer.
pub const MAX_TREE_HEIGHT: u8 = 32;
/// The longest value of a tree in bytes.
pub const MAX_TREE_VALUE_BYTES: usize = 16 << 20;
/// The length of a head: the first bytes of a suffix.
pub(super) const HEAD_BYTES: usize = 8;

/// The maximum number of bytes of key and value that one entry keeps in a page; longer entries go
/// to an overflow run. At least four cells fit into every page.
pub fn inline_limit(page_bytes: usize) -> usize {
    (page_bytes - PAGE_HEADER_BYTES) / 4 - 40
}

/// The maximum number of bytes of its key that an entry with an overflow run keeps in the page.
pub fn inline_key_limit(page_bytes: usize) -> usize {
    inline_limit(page_bytes) / 2
}

/// Whether `page_bytes` is a valid page length.
pub fn is_page_size(page_bytes: usize) -> bool {
    (MIN_PAGE_BYTES..=MAX_PAGE_BYTES).contains(&page_bytes) && page_bytes.is_power_of_two()
}
