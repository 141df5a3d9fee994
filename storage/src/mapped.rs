//! A file mapped into memory for shared writing, with every page resident.
//!
//! A store that has retired is in the page cache and so survives the death of the process; [`MappedFile::sync_range`]
//! makes it survive a power loss. The file must keep its length while it is mapped: a touch beyond the end of the
//! file kills the process.
#![allow(unsafe_code)]
use memmap2::MmapRaw;
use sapwood_base::{Error, Result};
use std::path::{Path, PathBuf};

/// A shared, writable mapping of the first bytes of a file. Unmapped when dropped; not synced then.
///
/// It hands out no `&mut [u8]`: many threads write disjoint ranges at once, and keeping them disjoint is the
/// caller's part of the contract.
pub struct MappedFile {
    map: MmapRaw,
    path: PathBuf,
}

impl MappedFile {
    /// Maps the first `len` bytes of `file` and makes every page present and writable, so that no later store waits
    /// for the disk or meets a full one. REQUIRES: `file` has at least `len` allocated bytes.
    pub(crate) fn new(file: &std::fs::File, path: &Path, len: usize) -> Result<MappedFile> {
        let map = memmap2::MmapOptions::new()
            .len(len)
            .map_raw(file)
            .map_err(|error| Error::io("map", path, error))?;
        let mapped = MappedFile { map, path: path.to_path_buf() };
        mapped.populate();
        Ok(mapped)
    }

    /// Makes every page writable without a fault again, where the system can be asked for it (Linux 5.14). When dirty
    /// pages are written out, by a sync or in time, the next store to each faults and may wait for the journal of the
    /// file system. Takes about a millisecond per 32 MiB if no page needs it.
    pub fn refresh(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.map.advise(memmap2::Advice::PopulateWrite).is_ok();
        #[cfg(not(target_os = "linux"))]
        return false;
    }

    fn populate(&self) {
        if self.refresh() {
            return;
        }
        // Older kernels: store to each page what it holds already. 4 KiB is the smallest page of any machine.
        for offset in (0..self.len()).step_by(4096) {
            // SAFETY: `offset` is inside the mapping, and nobody else has the mapping yet.
            unsafe {
                let byte = self.map.as_mut_ptr().add(offset);
                byte.write_volatile(byte.read_volatile());
            }
        }
    }

    /// The mapped length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether nothing is mapped.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The path it was mapped under, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Stores `bytes` at `offset`.
    ///
    /// # Panics
    /// If the range is not inside the mapping.
    ///
    /// # Safety
    /// No other thread reads or writes this range at the same time, and no slice of it is alive.
    #[inline]
    pub unsafe fn write(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        // SAFETY: the range is inside the mapping (checked), it is ours alone (the caller's promise), and `bytes`
        // cannot overlap it because no slice of it is alive.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(offset), bytes.len());
        }
    }

    /// The bytes of a range.
    ///
    /// # Panics
    /// If the range is not inside the mapping.
    ///
    /// # Safety
    /// Nobody writes this range while the slice is alive.
    #[inline]
    pub unsafe fn slice(&self, offset: usize, len: usize) -> &[u8] {
        self.check(offset, len);
        // SAFETY: the range is inside the mapping (checked), initialised by the file's content, and unwritten while
        // the borrow lasts (the caller's promise).
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(offset), len) }
    }

    /// Makes the stores to a range survive a power loss (`msync` of the pages that cover it). Stores that run at the
    /// same time may or may not be included. A failed sync must not be retried.
    pub fn sync_range(&self, offset: usize, len: usize) -> Result<()> {
        self.check(offset, len);
        self.map.flush_range(offset, len).map_err(|error| Error::io("sync", &self.path, error))
    }

    #[inline]
    fn check(&self, offset: usize, len: usize) {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len());
        assert!(fits, "bytes {offset}+{len} are outside a mapping of {} bytes", self.len());
    }
}

impl std::fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MappedFile").field("path", &self.path).field("len", &self.len()).finish()
    }
}
