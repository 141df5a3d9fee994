//! The footer of a table: the last bytes of the file, which locate the sections.
//!
//! Its length, and the offsets of magic, checksum, version and features, are the same in every
//! version, so that an older program can distinguish "newer" from "damaged".
use crate::checksum::{checksum32, place_seed};
use crate::error::{Error, ErrorKind, Result};
use crate::format::FORMAT_VERSION;
use crate::key::FileNumber;
use crate::planted;

/// The length of the footer in bytes.
pub const FOOTER_BYTES: usize = 96;
/// The last eight bytes of every table.
pub const TABLE_MAGIC: [u8; 8] = *b"SAPWTABL";

/// Features that a reader must know to read the table: none so far.
const KNOWN_FEATURES: u32 = 0;
const CHECKED_BYTES: usize = 84;

/// The place of a section: a stored block at `offset`, `len` bytes with its trailer. A length of 0
/// means that it is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SectionHandle {
    /// The offset of its first byte in the file.
    pub offset: u64,
    /// Its length in bytes, trailer included.
    pub len: u64,
}

impl SectionHandle {
    /// The offset of its end in the file.
    pub fn end(&self) -> u64 {
        self.offset.checked_add(self.len).unwrap_or(planted::overflown_end(self.offset, self.len))
    }
}

/// The footer of a table. Sections follow the data in this order, back to back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableFooter {
    /// The length of the data section, which begins the file.
    pub data_len: u64,
    /// The filter; may be absent.
    pub filter: SectionHandle,
    /// The index.
    pub index: SectionHandle,
    /// The properties.
    pub properties: SectionHandle,
    /// The database that the table was written for; 0 if it was not recorded.
    pub database: u64,
}

impl TableFooter {
    /// The footer's bytes in table `file`.
    pub fn encode(&self, file: FileNumber) -> [u8; FOOTER_BYTES] {
        let mut out = [0u8; FOOTER_BYTES];
        let numbers = [
            self.data_len,
            self.filter.offset,
            self.filter.len,
            self.index.offset,
            self.index.len,
            self.properties.offset,
            self.properties.len,
            file.0,
            self.database,
        ];
        for (slot, number) in out.as_chunks_mut::<8>().0.iter_mut().zip(numbers) {
            *slot = number.to_le_bytes();
        }
        out[72..76].copy_from_slice(&KNOWN_FEATURES.to_le_bytes());
        out[76..80].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let checksum = checksum32(&out[..CHECKED_BYTES], place_seed(file.0, u64::MAX));
        out[84..88].copy_from_slice(&checksum.to_le_bytes());
        out[88..].copy_from_slice(&TABLE_MAGIC);
        out
    }

    /// Decodes the last bytes of table `file`, which is `file_len` bytes long, and checks that its
    /// sections fill it.
    pub fn decode(bytes: &[u8; FOOTER_BYTES], file: FileNumber, file_len: u64) -> Result<TableFooter> {
        let u64_at = |i: usize| u64::from_le_bytes(bytes.as_chunks().0[i]);
        let u32_at = |i: usize| u32::from_le_bytes(bytes.as_chunks().0[i]);
        if bytes[88..] != TABLE_MAGIC {
            return Err(Error::malformed("file does not end as a table does"));
        }
        if u32_at(21) != checksum32(&bytes[..CHECKED_BYTES], place_seed(file.0, u64::MAX)) {
            return Err(Error::malformed("table footer checksum does not match"));
        }
        let (features, version) = (u32_at(18), u32_at(19));
        super::check_version("table", version)?;
        if features & !KNOWN_FEATURES != 0 {
            let message = format!("table has unknown features ({features:#x}): use a newer release");
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let footer = TableFooter {
            data_len: u64_at(0),
            filter: SectionHandle { offset: u64_at(1), len: u64_at(2) },
            index: SectionHandle { offset: u64_at(3), len: u64_at(4) },
            properties: SectionHandle { offset: u64_at(5), len: u64_at(6) },
            database: u64_at(8),
        };
        if u64_at(7) != file.0 || u32_at(20) != 0 {
            return Err(Error::malformed("table footer is of another file or has unknown bytes"));
        }
        if footer.filter.offset != footer.data_len
            || footer.index.offset != footer.filter.end()
            || footer.properties.offset != footer.index.end()
            || footer.properties.end().checked_add(FOOTER_BYTES as u64) != Some(file_len)
        {
            return Err(Error::malformed("table sections do not fill the file"));
        }
        Ok(footer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_footer_is_valid_only_in_its_file_and_every_flip_is_found() {
        let footer = TableFooter {
            data_len: 4096,
            filter: SectionHandle { offset: 4096, len: 100 },
            index: SectionHandle { offset: 4196, len: 50 },
            properties: SectionHandle { offset: 4246, len: 10 },
            database: 0x1122_3344_5566_7788,
        };
        let bytes = footer.encode(FileNumber(9));
        let file_len = 4256 + FOOTER_BYTES as u64;
        assert_eq!(TableFooter::decode(&bytes, FileNumber(9), file_len).unwrap(), footer);
        assert_eq!(bytes[56..72], [9, 0, 0, 0, 0, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert!(TableFooter::decode(&bytes, FileNumber(8), file_len).is_err());
        assert!(TableFooter::decode(&bytes, FileNumber(9), file_len + 1).is_err());
        for at in 0..FOOTER_BYTES {
            for bit in 0..8 {
                let mut wrong = bytes;
                wrong[at] ^= 1 << bit;
                let error = TableFooter::decode(&wrong, FileNumber(9), file_len).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corruption);
            }
        }
    }

    #[test]
    fn a_newer_version_is_unsupported_not_corrupt() {
        let mut bytes = TableFooter::default().encode(FileNumber(9));
        bytes[76] += 1;
        let checksum = checksum32(&bytes[..CHECKED_BYTES], place_seed(9, u64::MAX));
        bytes[84..88].copy_from_slice(&checksum.to_le_bytes());
        let error = TableFooter::decode(&bytes, FileNumber(9), FOOTER_BYTES as u64).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn a_new_section_or_field_needs_a_feature_and_is_unsupported_then() {
        for (features, kind) in [(0, ErrorKind::Corruption), (1 << 31, ErrorKind::Unsupported)] {
            for (field, section_bytes) in [(7, 0), (0, 100)] {
                let mut bytes = TableFooter::default().encode(FileNumber(9));
                bytes[72..76].copy_from_slice(&u32::to_le_bytes(features));
                bytes[80] = field;
                let checksum = checksum32(&bytes[..CHECKED_BYTES], place_seed(9, u64::MAX));
                bytes[84..88].copy_from_slice(&checksum.to_le_bytes());
                let file_len = section_bytes + FOOTER_BYTES as u64;
                assert_eq!(TableFooter::decode(&bytes, FileNumber(9), file_len).unwrap_err().kind(), kind);
            }
        }
    }
}
