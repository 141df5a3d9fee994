//! The bytes of a file: pages that copies share until one is written.
use super::atom::SECTOR_BYTES;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The size of a page, and the unit of space.
pub(super) const PAGE_BYTES: u64 = 4096;

/// A length and the pages that were written; a page that was not holds zeros. Bytes behind the length are zero too.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE_BYTES as usize]>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The space it takes in bytes.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES
    }

    /// How much space a write of this range would take in addition.
    pub(super) fn missing_bytes(&self, offset: u64, len: u64) -> u64 {
        let pages = offset / PAGE_BYTES..(offset + len).div_ceil(PAGE_BYTES);
        pages.filter(|page| !self.pages.contains_key(page)).count() as u64 * PAGE_BYTES
    }

    /// Copies bytes out, up to the end of the file; returns how many.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let len = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        self.read_beyond(offset, &mut buffer[..len]);
        len
    }

    /// Copies bytes out, also from behind the end of the file.
    pub(super) fn read_beyond(&self, offset: u64, buffer: &mut [u8]) {
        for (offset, range) in split(offset, buffer.len(), PAGE_BYTES) {
            let start = (offset % PAGE_BYTES) as usize;
            let part = &mut buffer[range];
            match self.pages.get(&(offset / PAGE_BYTES)) {
                Some(page) => part.copy_from_slice(&page[start..start + part.len()]),
                None => part.fill(0),
            }
        }
    }

    /// Stores bytes without changing the length.
    pub(super) fn store(&mut self, offset: u64, bytes: &[u8]) {
        for (offset, range) in split(offset, bytes.len(), PAGE_BYTES) {
            let start = (offset % PAGE_BYTES) as usize;
            let page =
                self.pages.entry(offset / PAGE_BYTES).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            Arc::make_mut(page)[start..start + range.len()].copy_from_slice(&bytes[range]);
        }
    }

    /// The file has at least this length.
    pub(super) fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// The file has this length; what lies behind it is gone.
    pub(super) fn set_len(&mut self, len: u64) {
        self.len = len;
        self.cut();
    }

    /// Drops what lies behind the end.
    pub(super) fn cut(&mut self) {
        self.pages.split_off(&self.len.div_ceil(PAGE_BYTES));
        let rest = (self.len % PAGE_BYTES) as usize;
        if rest > 0
            && let Some(page) = self.pages.get_mut(&(self.len / PAGE_BYTES))
        {
            Arc::make_mut(page)[rest..].fill(0);
        }
    }

    /// The sector that begins at `offset`.
    pub(super) fn sector(&self, offset: u64) -> Arc<[u8; SECTOR_BYTES as usize]> {
        let mut sector = [0; SECTOR_BYTES as usize];
        self.read_beyond(offset, &mut sector);
        Arc::new(sector)
    }
}

/// Cuts a range of `len` bytes at `offset` where multiples of `unit` lie: pairs of offset and range in the buffer.
pub(super) fn split(
    offset: u64,
    len: usize,
    unit: u64,
) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut done = 0usize;
    std::iter::from_fn(move || {
        (done < len).then(|| {
            let start = offset + done as u64;
            let part = (unit - start % unit).min((len - done) as u64) as usize;
            let range = done..done + part;
            done += part;
            (start, range)
        })
    })
}
