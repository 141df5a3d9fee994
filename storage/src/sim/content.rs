//! The bytes of a file: pages that copies share until one is written.
//!
//! A page is 4 KiB and 64 of them are a chunk; both are shared by reference counts, so a copy of a
//! file costs one count per 256 KiB, and a store after it copies one chunk's table and one page.
//! Pages and chunks cache their hash, so rehashing costs as little.
use super::atom::SECTOR_BYTES;
use sapwood_base::checksum::checksum64;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

/// The size of a page, and the unit of space.
pub(super) const PAGE_BYTES: u64 = 4096;
/// Pages per table.
const CHUNK_PAGES: u64 = 64;

/// The bytes of one sector.
pub(super) type Sector = Arc<[u8; SECTOR_BYTES as usize]>;

/// New files consist of zeros, so their sectors are worth sharing.
static ZERO_SECTOR: LazyLock<Sector> = LazyLock::new(|| Arc::new([0; SECTOR_BYTES as usize]));

/// A hash that is computed once, on demand. Zero means "not known", so a true zero is computed each
/// time.
#[derive(Default)]
struct KnownHash(AtomicU64);

impl KnownHash {
    fn get(&self, compute: impl FnOnce() -> u64) -> u64 {
        // Relaxed: every thread computes the same number.
        match self.0.load(Ordering::Relaxed) {
            0 => {
                let hash = compute();
                self.0.store(hash, Ordering::Relaxed);
                hash
            }
            hash => hash,
        }
    }

    fn forget(&mut self) {
        *self.0.get_mut() = 0;
    }
}

/// The hash of an element at this index.
fn placed(index: u64, hash: u64) -> u64 {
    checksum64(&hash.to_le_bytes(), index)
}

struct Page {
    bytes: [u8; PAGE_BYTES as usize],
    hash: KnownHash,
}

impl Page {
    fn new() -> Page {
        Page { bytes: [0; PAGE_BYTES as usize], hash: KnownHash::default() }
    }

    /// Zero for a page of zeros, so that it equals a page that was never written.
    fn hash(&self) -> u64 {
        self.hash.get(|| match self.bytes.iter().all(|byte| *byte == 0) {
            true => 0,
            false => checksum64(&self.bytes, 0).max(1),
        })
    }
}

impl Clone for Page {
    /// For writing, so the hash is not copied.
    fn clone(&self) -> Page {
        Page { bytes: self.bytes, hash: KnownHash::default() }
    }
}

struct Chunk {
    pages: [Option<Arc<Page>>; CHUNK_PAGES as usize],
    hash: KnownHash,
}

impl Chunk {
    fn new() -> Chunk {
        Chunk { pages: [const { None }; CHUNK_PAGES as usize], hash: KnownHash::default() }
    }

    fn hash(&self) -> u64 {
        self.hash.get(|| {
            let pages = self.pages.iter().enumerate();
            let hashes = pages.filter_map(|(index, page)| Some((index, page.as_ref()?.hash())));
            let add = |sum: u64, (index, hash)| sum.wrapping_add(placed(index as u64, hash));
            hashes.filter(|(_, hash)| *hash != 0).fold(0, add)
        })
    }
}

impl Clone for Chunk {
    /// For writing, so the hash is not copied.
    fn clone(&self) -> Chunk {
        Chunk { pages: self.pages.clone(), hash: KnownHash::default() }
    }
}

/// A length and the written pages; an unwritten page reads as zeros. Bytes after the length are
/// zero too, except inside a call.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    chunks: BTreeMap<u64, Arc<Chunk>>,
    page_count: u64,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Allocated space in bytes.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.page_count * PAGE_BYTES
    }

    /// Additional space that a write of this range needs.
    pub(super) fn missing_bytes(&self, offset: u64, len: u64) -> u64 {
        let pages = offset / PAGE_BYTES..(offset + len).div_ceil(PAGE_BYTES);
        pages.filter(|page| self.page(*page).is_none()).count() as u64 * PAGE_BYTES
    }

    fn page(&self, page: u64) -> Option<&Page> {
        self.chunks.get(&(page / CHUNK_PAGES))?.pages[(page % CHUNK_PAGES) as usize].as_deref()
    }

    /// Copies bytes out, up to the end of the file; returns how many.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let len = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        self.read_beyond(offset, &mut buffer[..len]);
        len
    }

    /// Copies bytes out, including those after the end of the file.
    pub(super) fn read_beyond(&self, offset: u64, buffer: &mut [u8]) {
        for (offset, range) in split(offset, buffer.len(), PAGE_BYTES) {
            let start = (offset % PAGE_BYTES) as usize;
            let part = &mut buffer[range];
            match self.page(offset / PAGE_BYTES) {
                Some(page) => part.copy_from_slice(&page.bytes[start..start + part.len()]),
                None => part.fill(0),
            }
        }
    }

    /// Stores bytes without changing the length.
    pub(super) fn store(&mut self, offset: u64, bytes: &[u8]) {
        for (offset, range) in split(offset, bytes.len(), PAGE_BYTES) {
            let start = (offset % PAGE_BYTES) as usize;
            let page = offset / PAGE_BYTES;
            let chunk = self.chunks.entry(page / CHUNK_PAGES).or_insert_with(|| Arc::new(Chunk::new()));
            let chunk = Arc::make_mut(chunk);
            chunk.hash.forget();
            let page = chunk.pages[(page % CHUNK_PAGES) as usize].get_or_insert_with(|| {
                self.page_count += 1;
                Arc::new(Page::new())
            });
            let page = Arc::make_mut(page);
            page.hash.forget();
            page.bytes[start..start + range.len()].copy_from_slice(&bytes[range]);
        }
    }

    /// Makes the file at least this long.
    pub(super) fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Sets the length; bytes after it are dropped.
    pub(super) fn set_len(&mut self, len: u64) {
        self.len = len;
        self.cut();
    }

    /// Drops the bytes after the end.
    pub(super) fn cut(&mut self) {
        let first_gone = self.len.div_ceil(PAGE_BYTES);
        for chunk in self.chunks.split_off(&first_gone.div_ceil(CHUNK_PAGES)).values() {
            self.page_count -= chunk.pages.iter().flatten().count() as u64;
        }
        let in_chunk = (first_gone % CHUNK_PAGES) as usize;
        if in_chunk > 0
            && let Some(chunk) = self.chunks.get_mut(&(first_gone / CHUNK_PAGES))
            && chunk.pages[in_chunk..].iter().any(Option::is_some)
        {
            let chunk = Arc::make_mut(chunk);
            chunk.hash.forget();
            for page in &mut chunk.pages[in_chunk..] {
                self.page_count -= u64::from(page.take().is_some());
            }
        }
        let rest = (self.len % PAGE_BYTES) as usize;
        let is_dirty = |page: &Page| page.bytes[rest..].iter().any(|byte| *byte != 0);
        if rest > 0 && self.page(self.len / PAGE_BYTES).is_some_and(is_dirty) {
            self.store(self.len, &vec![0; PAGE_BYTES as usize - rest]);
        }
    }

    /// The sector that begins at `offset`.
    pub(super) fn sector(&self, offset: u64) -> Sector {
        let mut sector = [0; SECTOR_BYTES as usize];
        self.read_beyond(offset, &mut sector);
        match sector.iter().all(|byte| *byte == 0) {
            true => Arc::clone(&ZERO_SECTOR),
            false => Arc::new(sector),
        }
    }

    /// Number of pages that no other content shares, directly or by their chunk.
    #[cfg(test)]
    pub(super) fn own_pages(&self) -> usize {
        let own = self.chunks.values().filter(|chunk| Arc::strong_count(chunk) == 1);
        own.flat_map(|chunk| &chunk.pages).flatten().filter(|page| Arc::strong_count(page) == 1).count()
    }

    /// A hash of length and bytes.
    pub(super) fn hash(&self) -> u64 {
        let add = |sum: u64, (index, hash)| sum.wrapping_add(placed(index, hash));
        let chunks = self.chunks.iter().map(|(index, chunk)| (*index, chunk.hash()));
        chunks.filter(|(_, hash)| *hash != 0).fold(placed(u64::MAX, self.len), add)
    }
}

/// Splits a range of `len` bytes at `offset` at multiples of `unit`: pairs of offset and range in
/// the buffer.
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
