//! A file mapped into memory for shared writing, with every page resident.
//!
//! A retired store is in the page cache and so survives the death of the process;
//! [`MappedFile::sync_range`] makes it survive a power loss. The file must keep its length while it
//! is mapped: an access beyond the end of the file kills the process.
#![allow(unsafe_code)]
use memmap2::MmapRaw;
use sapwood_base::memory;
use sapwood_base::{Error, Result};
use std::io;
use std::path::{Path, PathBuf};

/// A shared, writable mapping of the first bytes of a file. Dropping it unmaps without a sync.
///
/// It returns no `&mut [u8]`: many threads write disjoint ranges at once, and the caller must keep
/// them disjoint.
pub struct MappedFile {
    map: Map,
    path: PathBuf,
}

enum Map {
    Machine(MmapRaw),
    #[cfg(feature = "sim")]
    Simulated(Box<dyn Simulated>),
}

/// The mapping of a simulated machine. The caller checks ranges.
#[cfg(feature = "sim")]
pub(crate) trait Simulated: Send + Sync {
    /// The mapped length in bytes.
    fn len(&self) -> usize;
    /// Stores `bytes` at `offset`.
    fn store(&self, offset: usize, bytes: &[u8]);
    /// Makes the stores to a range survive a power loss.
    fn sync_range(&self, offset: usize, len: usize) -> Result<()>;
}

impl MappedFile {
    /// Maps the first `len` bytes of `file` and makes every page present and writable, so that no
    /// later store waits for the disk or finds it full. REQUIRES: `file` has at least `len`
    /// allocated bytes.
    pub(crate) fn new(file: &std::fs::File, path: &Path, len: usize) -> Result<MappedFile> {
        let map = memory::map_with_room(|| memmap2::MmapOptions::new().len(len).map_raw(file))
            .and_then(|map| populate(&map).map(|()| map))
            .map_err(|error| Error::io("map", path, error))?;
        Ok(MappedFile { map: Map::Machine(map), path: path.to_path_buf() })
    }

    /// A mapping of a simulated machine.
    #[cfg(feature = "sim")]
    pub(crate) fn simulated(mapping: Box<dyn Simulated>, path: &Path) -> MappedFile {
        MappedFile { map: Map::Simulated(mapping), path: path.to_path_buf() }
    }

    /// Makes every page writable without a fault again, where the system supports it (Linux 5.14).
    /// When dirty pages are written out, by a sync or in time, the next store to each faults and
    /// may wait for the journal of the file system. Takes about a millisecond per 32 MiB if no page
    /// needs it.
    pub fn refresh(&self) -> bool {
        match &self.map {
            Map::Machine(map) => touch_all(map).is_ok(),
            #[cfg(feature = "sim")]
            Map::Simulated(_) => true,
        }
    }

    /// The mapped length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.map {
            Map::Machine(map) => map.len(),
            #[cfg(feature = "sim")]
            Map::Simulated(mapping) => mapping.len(),
        }
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
    /// No other thread writes this range at the same time.
    #[inline]
    pub unsafe fn write(&self, offset: usize, bytes: &[u8]) {
        self.check(offset, bytes.len());
        match &self.map {
            // SAFETY: the range is inside the mapping (checked), it is exclusive (the caller's
            // promise), and `bytes` cannot overlap it because no method returns a slice of a
            // mapping.
            Map::Machine(map) => unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), map.as_mut_ptr().add(offset), bytes.len());
            },
            #[cfg(feature = "sim")]
            Map::Simulated(mapping) => mapping.store(offset, bytes),
        }
    }

    /// Makes the stores to a range survive a power loss (`msync` of the pages that cover it).
    /// Stores that run at the same time may or may not be included. A failed sync must not be
    /// retried.
    pub fn sync_range(&self, offset: usize, len: usize) -> Result<()> {
        self.check(offset, len);
        match &self.map {
            Map::Machine(map) => {
                map.flush_range(offset, len).map_err(|error| Error::io("sync", &self.path, error))
            }
            #[cfg(feature = "sim")]
            Map::Simulated(mapping) => mapping.sync_range(offset, len),
        }
    }

    #[inline]
    fn check(&self, offset: usize, len: usize) {
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len());
        assert!(fits, "bytes {offset}+{len} are outside a mapping of {} bytes", self.len());
    }
}

#[cfg(target_os = "linux")]
fn touch_all(map: &MmapRaw) -> io::Result<()> {
    map.advise(memmap2::Advice::PopulateWrite)
}

#[cfg(not(target_os = "linux"))]
fn touch_all(_map: &MmapRaw) -> io::Result<()> {
    Err(io::ErrorKind::InvalidInput.into())
}

/// Makes every page of a new mapping present and writable.
fn populate(map: &MmapRaw) -> io::Result<()> {
    match touch_all(map) {
        Ok(()) => return Ok(()),
        // A later store would raise a signal that ends the process.
        Err(error) if is_refused_page(&error) => return Err(error),
        // Not supported by this kernel or sandbox.
        Err(_) => {}
    }
    // Stores to each page its present content. 4 KiB is the smallest page of any machine.
    for offset in (0..map.len()).step_by(4096) {
        // SAFETY: `offset` is inside the mapping, and no other thread has the mapping yet.
        unsafe {
            let byte = map.as_mut_ptr().add(offset);
            byte.write_volatile(byte.read_volatile());
        }
    }
    Ok(())
}

/// Whether the system cannot provide a page: it has no memory, or the file has no such page.
#[cfg(target_os = "linux")]
fn is_refused_page(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOMEM, Errno::FAULT].iter().any(|code| Some(code.raw_os_error()) == error.raw_os_error())
}

#[cfg(not(target_os = "linux"))]
fn is_refused_page(_error: &io::Error) -> bool {
    false
}

impl std::fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MappedFile").field("path", &self.path).field("len", &self.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::FileSystem as _;
    use crate::sim::{Fault, FaultRule, Operation, SimFs};

    #[test]
    fn a_store_into_a_mapping_is_seen_and_survives_a_power_loss_once_its_page_is_synced() {
        let (fs, path) = (SimFs::new(), Path::new("/a"));
        fs.set_has_mappings(true);
        let file = fs.create_new(path).unwrap();
        file.write_at(0, &[0; 3 * 4096]).unwrap();
        file.sync_all().unwrap();
        fs.sync_directory(Path::new("/")).unwrap();
        drop(file);
        let map = fs.map_shared(path, 3 * 4096).unwrap().expect("all its room is there");
        assert!(fs.map_shared(path, 3 * 4096 + 1).is_err());
        let operations = fs.operations();
        // SAFETY: no other thread has the mapping.
        unsafe {
            map.write(10, b"first");
            map.write(4096 + 10, b"second");
            map.write(8192 + 10, b"third");
        }
        assert_eq!(fs.operations(), operations + 3, "each is a place to crash at");
        let bytes = |fs: &SimFs| {
            let bytes = fs.read_file(path).unwrap();
            [10, 4106, 8202].map(|at| bytes[at])
        };
        assert_eq!(bytes(&fs), *b"fst");
        assert_eq!(bytes(&fs.kill()), *b"fst");
        assert_eq!(bytes(&fs.crash_with(|_| false)), [0; 3]);
        map.sync_range(4096 + 100, 1).unwrap();
        assert_eq!(bytes(&fs.crash_with(|_| false)), [0, b's', 0], "the whole page, and no other");
        assert_eq!(bytes(&fs.crash_with(|_| true)), *b"fst");
        fs.fail(FaultRule::new(Operation::Sync, Fault::Io));
        assert!(map.sync_range(0, 1).is_err());
        map.sync_range(0, 1).unwrap();
        assert_eq!(bytes(&fs.crash_with(|_| true)), [0, b's', 0], "what a failed sync has lost stays so");
        assert_eq!(fs.open_handles(), 1);
        drop(map);
        assert_eq!(fs.open_handles(), 0);
    }

    /// A store touched it, and the signal ended the process.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_page_that_the_system_cannot_give_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert_eq!(MappedFile::new(&file, Path::new("a"), 4096).unwrap().len(), 4096);
        let error = MappedFile::new(&file, Path::new("a"), 8192).unwrap_err();
        assert_eq!(error.file(), Some(Path::new("a")));
    }
}
