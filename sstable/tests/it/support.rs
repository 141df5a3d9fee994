//! Shared by the tests of tables: a file in memory, random entries, and a model.
use sapwood_base::{Error, FileNumber, KeyspaceId, Result, SequenceNumber, ValueKind};
use sapwood_sstable::{Table, TableBuilder, TableOptions, TableSummary};
use sapwood_storage::{BufferCache, File};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

/// The number of every table in the tests.
pub const NUMBER: FileNumber = FileNumber(7);

/// A file in memory; clones share the bytes. After `writes_left` calls every change fails.
#[derive(Clone)]
pub struct MemoryFile {
    pub bytes: Arc<Mutex<Vec<u8>>>,
    pub calls_left: Arc<AtomicI64>,
}

impl MemoryFile {
    pub fn new(bytes: Vec<u8>) -> MemoryFile {
        MemoryFile { bytes: Arc::new(Mutex::new(bytes)), calls_left: Arc::new(AtomicI64::new(i64::MAX)) }
    }

    pub fn contents(&self) -> Vec<u8> {
        self.bytes.lock().unwrap().clone()
    }

    fn call(&self) -> Result<()> {
        if self.calls_left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(Error::io("write", self.path(), std::io::Error::from_raw_os_error(28)));
        }
        Ok(())
    }
}

impl File for MemoryFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.call()?;
        let bytes = self.bytes.lock().unwrap();
        let from = bytes.get(offset as usize..).unwrap_or(&[]);
        let len = from.len().min(buffer.len());
        buffer[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn write_at(&self, offset: u64, new: &[u8]) -> Result<()> {
        self.call()?;
        let mut bytes = self.bytes.lock().unwrap();
        let end = offset as usize + new.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(new);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        self.call()
    }

    fn sync_all(&self) -> Result<()> {
        self.call()
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.bytes.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn path(&self) -> &Path {
        Path::new("memory.sst")
    }
}

/// One entry: key, sequence number, kind, value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: Vec<u8>,
    pub sequence: u64,
    pub kind: ValueKind,
    pub value: Vec<u8>,
}

pub fn entry(key: &[u8], sequence: u64, kind: ValueKind, value: &[u8]) -> Entry {
    Entry { key: key.to_vec(), sequence, kind, value: value.to_vec() }
}

/// Puts entries into internal order and drops duplicates.
pub fn order(entries: &mut Vec<Entry>) {
    entries.sort_by(|a, b| a.key.cmp(&b.key).then(b.sequence.cmp(&a.sequence)));
    entries.dedup_by(|a, b| a.key == b.key && a.sequence == b.sequence);
}

/// Builds a table of ordered entries in `file`.
pub fn build_in(file: &MemoryFile, entries: &[Entry], options: &TableOptions) -> Result<TableSummary> {
    let mut builder = TableBuilder::new(Box::new(file.clone()), NUMBER, KeyspaceId(3), options);
    for entry in entries {
        builder.add(&entry.key, SequenceNumber(entry.sequence), entry.kind, &entry.value)?;
    }
    builder.finish()
}

/// The bytes of a table of ordered entries.
pub fn build(entries: &[Entry], options: &TableOptions) -> Vec<u8> {
    let file = MemoryFile::new(Vec::new());
    let summary = build_in(&file, entries, options).unwrap();
    let bytes = file.contents();
    assert_eq!(summary.file_bytes, bytes.len() as u64);
    assert_eq!(summary.properties.entries, entries.len() as u64);
    bytes
}

pub fn cache() -> Arc<BufferCache> {
    BufferCache::new(64 << 20).unwrap()
}

/// Opens a table of these bytes.
pub fn open(bytes: Vec<u8>) -> Result<Arc<Table>> {
    Table::open(Box::new(MemoryFile::new(bytes)), NUMBER, &cache())
}

/// The entry that a reader at `sequence` sees.
pub fn visible<'a>(entries: &'a [Entry], key: &[u8], sequence: u64) -> Option<&'a Entry> {
    let start = entries.partition_point(|entry| entry.key.as_slice() < key);
    entries[start..].iter().take_while(|entry| entry.key == key).find(|entry| entry.sequence <= sequence)
}
