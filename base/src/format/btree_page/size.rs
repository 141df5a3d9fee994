//! Sizes of pages, of what lies in them, and of what leaves them for an overflow run.

/// The smallest page in bytes.
pub const MIN_PAGE_BYTES: usize = 512;
/// The largest page in bytes.
pub const MAX_PAGE_BYTES: usize = 64 << 10;
/// The length of a page's header in bytes.
pub const PAGE_HEADER_BYTES: usize = 32;
/// What a cell takes beside its suffix and its payload, in bytes; eight bytes of the suffix are among them.
pub const CELL_BYTES: usize = 12;
/// What a child takes in an inner page, in bytes.
pub const CHILD_BYTES: usize = 16;
/// The length of the reference to an overflow run in bytes.
pub const OVERFLOW_REFERENCE_BYTES: usize = 16;
/// A page number is below this.
pub const MAX_PAGES: u32 = 1 << 31;
/// The most levels of a tree. One that splits every page into two, down to the last page, has less.
pub const MAX_TREE_HEIGHT: u8 = 32;
/// The longest value of a tree in bytes.
pub const MAX_TREE_VALUE_BYTES: usize = 16 << 20;
/// The length of a head: the first bytes of a suffix.
pub(super) const HEAD_BYTES: usize = 8;

/// How much of key and value one entry may keep in a page; longer ones go to an overflow run. At least four cells fit
/// into every page.
pub fn inline_limit(page_bytes: usize) -> usize {
    (page_bytes - PAGE_HEADER_BYTES) / 4 - 40
}

/// How much of its key an entry with an overflow run keeps in the page.
pub fn inline_key_limit(page_bytes: usize) -> usize {
    inline_limit(page_bytes) / 2
}

/// Whether `page_bytes` is a length that pages may have.
pub fn is_page_size(page_bytes: usize) -> bool {
    (MIN_PAGE_BYTES..=MAX_PAGE_BYTES).contains(&page_bytes) && page_bytes.is_power_of_two()
}
