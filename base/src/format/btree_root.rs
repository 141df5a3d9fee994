//! The root of a B+ tree, kept in a MANIFEST, and the header of the tree's file.
//!
//! A root describes one state of a tree completely: pages never change while a root refers to them.
//! The set of free pages is not stored. It follows from the root: a page that the root does not
//! reach is free.
use super::FORMAT_VERSION;
use super::btree_page::{Child, MAX_PAGES, MAX_TREE_HEIGHT, PagePointer, is_page_size};
use crate::checksum::{checksum64, place_seed};
use crate::error::{Error, Result};

/// The length of an encoded root in bytes.
pub const TREE_ROOT_BYTES: usize = 64;
/// The length in bytes of the header in the first page of a file; the rest of the page is zero.
pub const TREE_HEADER_BYTES: usize = 40;

/// The first eight bytes of the file of every tree.
pub const TREE_MAGIC: [u8; 8] = *b"SAPWTREE";
const HAS_OVERFLOW: u8 = 1;

/// One state of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeRoot {
    /// A random number, the same in all pages of the tree.
    pub tree: u64,
    /// The length of a page in bytes.
    pub page_bytes: u32,
    /// The number of levels; 0 if the tree is empty.
    pub height: u8,
    /// The topmost page, with the number of all entries; `None` if the tree is empty.
    pub top: Option<Child>,
    /// Increases with every state.
    pub generation: u64,
    /// The number of pages that the file must have, its header included.
    pub file_pages: u32,
    /// The number of pages in use, the header included.
    pub used_pages: u32,
}

impl TreeRoot {
    /// The root of an empty tree.
    pub fn empty(tree: u64, page_bytes: u32) -> TreeRoot {
        TreeRoot { tree, page_bytes, height: 0, top: None, generation: 0, file_pages: 1, used_pages: 1 }
    }

    /// The number of entries.
    pub fn entries(&self) -> u64 {
        self.top.map_or(0, |top| top.entries)
    }

    /// The length that the file must have, in bytes.
    pub fn file_bytes(&self) -> u64 {
        u64::from(self.file_pages) * u64::from(self.page_bytes)
    }

    /// The bytes for a MANIFEST.
    pub fn encode(&self) -> [u8; TREE_ROOT_BYTES] {
        let mut out = [0; TREE_ROOT_BYTES];
        out[..4].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        out[4..8].copy_from_slice(&self.page_bytes.to_le_bytes());
        out[8..16].copy_from_slice(&self.tree.to_le_bytes());
        out[16..24].copy_from_slice(&self.generation.to_le_bytes());
        out[24..28].copy_from_slice(&self.file_pages.to_le_bytes());
        out[28..32].copy_from_slice(&self.used_pages.to_le_bytes());
        if let Some(top) = &self.top {
            out[32..40].copy_from_slice(&top.entries.to_le_bytes());
            out[40..44].copy_from_slice(&top.pointer.page.to_le_bytes());
            out[44..48].copy_from_slice(&top.pointer.generation.to_le_bytes());
            out[49] = if top.has_overflow { HAS_OVERFLOW } else { 0 };
        }
        out[48] = self.height;
        let checksum = checksum64(&out[..56], place_seed(self.tree, self.generation));
        out[56..].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// The root in `bytes`.
    ///
    /// Errors: `Unsupported` for a newer format, `Corruption` for anything that
    /// [`TreeRoot::encode`] does not write; both without a file.
    pub fn decode(bytes: &[u8]) -> Result<TreeRoot> {
        let Ok(bytes) = <&[u8; TREE_ROOT_BYTES]>::try_from(bytes) else {
            return Err(Error::malformed("root of a tree has another length"));
        };
        let tree = u64_at(bytes, 8);
        let generation = u64_at(bytes, 16);
        if u64_at(bytes, 56) != checksum64(&bytes[..56], place_seed(tree, generation)) {
            return Err(Error::malformed("checksum of the root of a tree does not match"));
        }
        super::check_version("tree", u32_at(bytes, 0))?;
        let (page_bytes, height, flags) = (u32_at(bytes, 4), bytes[48], bytes[49]);
        let (file_pages, used_pages) = (u32_at(bytes, 24), u32_at(bytes, 28));
        let top = Child {
            pointer: PagePointer { page: u32_at(bytes, 40), generation: u32_at(bytes, 44) },
            entries: u64_at(bytes, 32),
            has_overflow: flags & HAS_OVERFLOW != 0,
        };
        let nothing = PagePointer { page: 0, generation: 0 };
        let top_fits = if height == 0 {
            top == Child { pointer: nothing, entries: 0, has_overflow: false }
        } else {
            top.entries > 0 && (1..file_pages).contains(&top.pointer.page)
        };
        let is_right = is_page_size(page_bytes as usize)
            && height <= MAX_TREE_HEIGHT
            && flags & !HAS_OVERFLOW == 0
            && bytes[50..56] == [0; 6]
            && (1..=MAX_PAGES).contains(&file_pages)
            && (1..=file_pages).contains(&used_pages)
            && top_fits;
        if !is_right {
            return Err(Error::malformed("root of a tree is malformed"));
        }
        let top = (height > 0).then_some(top);
        Ok(TreeRoot { tree, page_bytes, height, top, generation, file_pages, used_pages })
    }
}

/// The header for the file of a tree; the rest of its first page is zero.
pub fn encode_tree_header(tree: u64, page_bytes: u32) -> [u8; TREE_HEADER_BYTES] {
    let mut out = [0; TREE_HEADER_BYTES];
    out[..8].copy_from_slice(&TREE_MAGIC);
    out[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    out[12..16].copy_from_slice(&page_bytes.to_le_bytes());
    out[16..24].copy_from_slice(&tree.to_le_bytes());
    let checksum = checksum64(&out[..32], u64::from_le_bytes(TREE_MAGIC));
    out[32..].copy_from_slice(&checksum.to_le_bytes());
    out
}

/// Checks that `bytes` are the header of the file of this tree.
///
/// Errors: `Unsupported` for a newer format, `Corruption` otherwise; both without a file.
pub fn check_tree_header(bytes: &[u8], tree: u64, page_bytes: u32) -> Result<()> {
    let Ok(bytes) = <&[u8; TREE_HEADER_BYTES]>::try_from(bytes) else {
        return Err(Error::malformed("header of a tree has another length"));
    };
    if bytes[..8] != TREE_MAGIC
        || u64_at(bytes, 32) != checksum64(&bytes[..32], u64::from_le_bytes(TREE_MAGIC))
    {
        return Err(Error::malformed("header of a tree does not validate"));
    }
    super::check_version("tree", u32_at(bytes, 8))?;
    if *bytes != encode_tree_header(tree, page_bytes) {
        return Err(Error::malformed("file belongs to another tree"));
    }
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn root() -> TreeRoot {
        let pointer = PagePointer { page: 77, generation: 9 };
        TreeRoot {
            tree: 0x1122_3344_5566_7788,
            page_bytes: 8192,
            height: 3,
            top: Some(Child { pointer, entries: 123_456, has_overflow: true }),
            generation: 9,
            file_pages: 100,
            used_pages: 90,
        }
    }

    #[test]
    fn a_root_has_these_bytes() {
        let hex: String = root().encode().iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = concat!(
            "02000000",
            "00200000",
            "8877665544332211",
            "0900000000000000",
            "64000000",
            "5a000000",
            "40e2010000000000",
            "4d000000",
            "09000000",
            "0301000000000000",
            "78821f6a1ba315e4",
        );
        assert_eq!(hex, expected);
    }

    #[test]
    fn roots_round_trip_and_damage_is_found() {
        for root in [root(), TreeRoot::empty(5, 512)] {
            let bytes = root.encode();
            assert_eq!(TreeRoot::decode(&bytes).unwrap(), root);
            for i in 0..bytes.len() {
                let mut bytes = bytes;
                bytes[i] ^= 0x10;
                assert_eq!(TreeRoot::decode(&bytes).unwrap_err().kind(), ErrorKind::Corruption, "byte {i}");
            }
            assert!(TreeRoot::decode(&bytes[1..]).is_err());
        }
    }

    #[test]
    fn a_root_that_contradicts_itself_is_refused() {
        let changes: [fn(&mut TreeRoot); 6] = [
            |root| root.page_bytes = 1000,
            |root| root.height = MAX_TREE_HEIGHT + 1,
            |root| root.height = 0,
            |root| root.file_pages = 77,
            |root| root.used_pages = 101,
            |root| root.top = None,
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut root = root();
            change(&mut root);
            assert_eq!(
                TreeRoot::decode(&root.encode()).unwrap_err().kind(),
                ErrorKind::Corruption,
                "change {i}"
            );
        }
    }

    #[test]
    fn a_header_is_of_one_tree() {
        let header = encode_tree_header(7, 4096);
        check_tree_header(&header, 7, 4096).unwrap();
        assert!(check_tree_header(&header, 8, 4096).is_err());
        assert!(check_tree_header(&header, 7, 8192).is_err());
        for i in 0..header.len() {
            let mut header = header;
            header[i] ^= 1;
            assert!(check_tree_header(&header, 7, 4096).is_err(), "byte {i}");
        }
    }

    #[test]
    fn another_format_is_unsupported() {
        for version in [1, FORMAT_VERSION as u8 + 1] {
            let mut bytes = root().encode();
            bytes[0] = version;
            let checksum = checksum64(&bytes[..56], place_seed(root().tree, root().generation));
            bytes[56..].copy_from_slice(&checksum.to_le_bytes());
            assert_eq!(TreeRoot::decode(&bytes).unwrap_err().kind(), ErrorKind::Unsupported);
        }
    }
}
