//! One segment file of the log: mapped, or written with `pwrite` where mappings are not coherent.
use crate::planted;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::log_segment::HEADER_BYTES;
use sapwood_base::{FileNumber, Result};
use sapwood_storage::DatabaseFiles;
use sapwood_storage::fs::{self, File, MappedFile, OpenMode};

/// A segment that is open for writing.
pub(crate) trait LogSegment: Send + Sync {
    /// The number in the file's name.
    fn file(&self) -> FileNumber;
    /// Writes a new header and syncs it: positions in a segment are assigned only
    /// when a crash cannot bring its old header back.
    fn start(&self, header: &[u8; HEADER_BYTES]) -> Result<()>;
    /// Stores bytes; they survive the end of the process when this returns.
    ///
    /// # Safety
    ///
    /// No other thread writes or reads the range at the same time.
    unsafe fn write(&self, offset: usize, bytes: &[u8]) -> Result<()>;
    /// Makes the bytes between two offsets survive a power loss.
    fn sync(&self, from: usize, to: usize) -> Result<()>;
}

/// Creates a segment file of `bytes` bytes with its header, both durable; its name is not. If a
/// step fails, the file may stay under either of its names: the caller removes it.
pub(crate) fn create(
    files: &DatabaseFiles,
    number: FileNumber,
    bytes: usize,
    mapped: bool,
    header: &[u8; HEADER_BYTES],
) -> Result<()> {
    let file = files.fs.create_new(&files.unfinished_path(FileName::Log(number)))?;
    // Real room, not a hole: a full disk must not be met by a store into a mapping.
    let is_allocated = mapped && file.allocate(bytes as u64)?;
    file.write_at(0, header)?;
    match is_allocated {
        true => file.sync_all()?,
        false => fs::fill_zeros(&*file, HEADER_BYTES as u64, bytes as u64)?,
    }
    files.finish_file(FileName::Log(number))
}

/// Opens a segment file of `bytes` bytes.
pub(crate) fn open(
    files: &DatabaseFiles,
    number: FileNumber,
    bytes: usize,
    mapped: bool,
) -> Result<Box<dyn LogSegment>> {
    let (fs, path) = (&*files.fs, &*files.path(FileName::Log(number)));
    if mapped && let Some(map) = fs.map_shared(path, bytes)? {
        return Ok(Box::new(MappedSegment { number, map }));
    }
    let file = fs.open(path, OpenMode::ReadWrite)?;
    Ok(Box::new(WrittenSegment { number, file: planted::unbuffered(file) }))
}

struct MappedSegment {
    number: FileNumber,
    map: MappedFile,
}

impl LogSegment for MappedSegment {
    fn file(&self) -> FileNumber {
        self.number
    }

    fn start(&self, header: &[u8; HEADER_BYTES]) -> Result<()> {
        // Writers that store records here should not wait for a page.
        self.map.refresh();
        // SAFETY: the header is written only here, by one thread at a time, before records can be.
        unsafe { self.map.write(0, header) };
        if planted::syncs_segment_headers() {
            self.map.sync_range(0, HEADER_BYTES)?;
        }
        Ok(())
    }

    #[inline]
    unsafe fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        // SAFETY: the caller has the range to itself.
        unsafe { self.map.write(offset, bytes) };
        Ok(())
    }

    fn sync(&self, from: usize, to: usize) -> Result<()> {
        self.map.sync_range(from, to - from)
    }
}

struct WrittenSegment {
    number: FileNumber,
    file: Box<dyn File>,
}

impl LogSegment for WrittenSegment {
    fn file(&self) -> FileNumber {
        self.number
    }

    fn start(&self, header: &[u8; HEADER_BYTES]) -> Result<()> {
        self.file.write_at(0, header)?;
        if planted::syncs_segment_headers() {
            self.file.sync_data()?;
        }
        Ok(())
    }

    unsafe fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.file.write_at(offset as u64, bytes)
    }

    fn sync(&self, _from: usize, _to: usize) -> Result<()> {
        self.file.sync_data()
    }
}
