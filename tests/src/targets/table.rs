//! Whole tables: arbitrary bytes opened and read in every way, and entries written and read back.
use super::FILE;
use super::allocation::producing;
use super::bytes::Bytes;
use super::memory::MemoryFile;
use sapwood::{Codec, FilterKind, Result};
use sapwood_base::iterator::InternalIterator;
use sapwood_base::key::key_hash;
use sapwood_base::{Error, ErrorKind, KeyspaceId, Lookup, SequenceNumber, ValueKind};
use sapwood_sstable::{ReadOptions, Table, TableBuilder, TableOptions, fuzzing};
use sapwood_storage::BufferCache;
use sapwood_storage::fs::File;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The most entries that a scan visits in a table that may be unsound.
const ENTRIES_MAX: usize = 4000;
/// The number of searched entries of a sound table, or one fewer.
const SEARCHES: usize = 8;
/// The most entries of a built table: enough for several blocks, and for keys that differ in more
/// than their last byte.
const BUILT_MAX: usize = 160;

thread_local! {
    /// A cache without space: every block is read, checked and decompressed each time.
    static CACHE: Arc<BufferCache> = BufferCache::new(0).expect("no memory is needed");
}

/// A version of a key, as a table holds it.
type Entry = (Vec<u8>, SequenceNumber, ValueKind, Vec<u8>);

/// A key and the number of its version, in internal order.
type Version = (Vec<u8>, std::cmp::Reverse<SequenceNumber>);

fn current(iterator: &dyn InternalIterator) -> Entry {
    (iterator.key().to_vec(), iterator.sequence(), iterator.kind(), iterator.value().to_vec())
}

/// Moves over a table; `None` if it is longer than [`ENTRIES_MAX`].
fn walk(iterator: &mut dyn InternalIterator, forward: bool) -> Result<Option<usize>> {
    if forward {
        iterator.seek_to_first()?
    } else {
        iterator.seek_to_last()?
    }
    let mut count = 0;
    let mut bytes = 0;
    while iterator.valid() {
        bytes +=
            iterator.key().len() + iterator.value().len() + usize::from(iterator.kind() == ValueKind::Put);
        let _ = iterator.sequence();
        count += 1;
        if count > ENTRIES_MAX || bytes > 1 << 20 {
            return Ok(None);
        }
        if forward { iterator.next()? } else { iterator.prev()? }
    }
    Ok(Some(count))
}

/// Opens the input as a table and reads it: errors, or consistent results if the table verifies.
pub fn sst_open_scan(data: &[u8]) {
    fuzzing::take_output();
    // A block may announce more than the rule allows; then twice its output is allowed.
    let read = producing("sst_open_scan", data.len(), || (read_all(data), 2 * fuzzing::take_output()));
    if let Some((table, forward, backward)) = read {
        let count = table.properties().entries as usize;
        assert_eq!(forward.expect("a sound table"), Some(count));
        assert_eq!(backward.expect("a sound table"), Some(count));
        sound(&table, data.len()).expect("a sound table");
    }
}

/// The number of entries that a walk over a table found, or that it gave up.
type Walked = Result<Option<usize>>;

/// Reads a table in every way, with one block at a time in memory. Returns the table if it
/// verifies, and the results of the walks.
fn read_all(data: &[u8]) -> Option<(Arc<Table>, Walked, Walked)> {
    let file = MemoryFile::new("000007.sst", data);
    let table = match CACHE.with(|cache| Table::open(Box::new(file), FILE, cache)) {
        Ok(table) => table,
        Err(error) => {
            expected(&error);
            return None;
        }
    };
    let guard = crossbeam_epoch::pin();
    let properties = table.properties();
    let probes: [&[u8]; 5] =
        [b"", &properties.smallest_key, &properties.largest_key, b"key05", &data[..data.len() % 11]];
    let options = ReadOptions { fill_cache: false, readahead_bytes: 0 };
    for probe in probes {
        let hash = key_hash(probe);
        table.may_contain(hash);
        match table.get(Lookup { key: probe, hash, sequence: SequenceNumber::MAX }, &guard) {
            Ok(found) => drop(found.map(|found| found.value.len())),
            Err(error) => expected(&error),
        }
        let mut iterator = table.iter(options);
        for forward in [true, false] {
            let outcome = if forward { iterator.seek(probe) } else { iterator.seek_before(probe) };
            match outcome {
                Ok(()) if iterator.valid() => look_at(&iterator),
                Ok(()) => {}
                Err(error) => expected(&error),
            }
        }
        assert!(table.approximate_offset(probe) <= table.data_bytes());
    }
    assert!(table.split_keys(3).is_sorted());
    let forward = walk(&mut table.iter(options), true);
    let backward = walk(&mut table.scan(), false);
    if forward.as_ref().is_ok_and(Option::is_none) || backward.as_ref().is_ok_and(Option::is_none) {
        return None;
    }
    match table.verify() {
        Ok(()) => Some((table, forward, backward)),
        Err(error) => {
            expected(&error);
            None
        }
    }
}

/// Reads all parts of the current entry of an iterator.
fn look_at(iterator: &dyn InternalIterator) {
    let _ = (iterator.key().first(), iterator.value().last(), iterator.kind(), iterator.sequence());
}

/// Damage is reported as damage.
fn expected(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Corruption | ErrorKind::Unsupported), "{error:?}");
    assert_eq!(error.file(), Some(Path::new("000007.sst")), "{error:?}");
    assert!(error.offset().is_some(), "{error:?}");
}

/// A table that verifies returns the same in every way of reading.
///
/// Each search loads a block, so only some entries are searched: at a fixed distance, starting from
/// `choice`.
fn sound(table: &Arc<Table>, choice: usize) -> Result<()> {
    let guard = crossbeam_epoch::pin();
    let mut entries: Vec<Entry> = Vec::new();
    let mut scan = table.scan();
    scan.seek_to_first()?;
    while scan.valid() {
        entries.push(current(&scan));
        scan.next()?;
    }
    let order = |a: &Entry, b: &Entry| (&a.0, std::cmp::Reverse(a.1)) < (&b.0, std::cmp::Reverse(b.1));
    assert!(entries.is_sorted_by(order), "entries come in order");
    let mut iterator = table.iter(ReadOptions::default());
    iterator.seek_to_last()?;
    for entry in entries.iter().rev() {
        assert!(iterator.valid() && current(&iterator) == *entry, "a backward walk returns the same");
        iterator.prev()?;
    }
    assert!(!iterator.valid());
    let step = entries.len() / SEARCHES + 1;
    for entry in entries.iter().skip(choice % step).step_by(step) {
        let hash = key_hash(&entry.0);
        assert!(table.may_contain(hash));
        let found = table
            .get(Lookup { key: &entry.0, hash, sequence: entry.1 }, &guard)?
            .expect("the scan returned it");
        assert!((found.sequence, found.kind, &*found.value) == (entry.1, entry.2, &entry.3[..]));
        iterator.seek(&entry.0)?;
        let first = entries.partition_point(|other| other.0 < entry.0);
        assert!(iterator.valid() && current(&iterator) == entries[first]);
        iterator.seek_before(&entry.0)?;
        match first {
            0 => assert!(!iterator.valid()),
            _ => assert!(iterator.valid() && current(&iterator) == entries[first - 1]),
        }
    }
    Ok(())
}

/// A file that a builder writes, from front to back.
#[derive(Clone, Default)]
pub struct NewFile {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl NewFile {
    /// The bytes written.
    pub fn bytes(&self) -> Vec<u8> {
        std::mem::take(&mut *self.bytes.lock().expect("not poisoned"))
    }
}

impl File for NewFile {
    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> Result<usize> {
        Err(Error::invalid_argument("a new table is not read"))
    }

    fn write_at(&self, offset: u64, new: &[u8]) -> Result<()> {
        let mut bytes = self.bytes.lock().expect("not poisoned");
        assert_eq!(offset, bytes.len() as u64, "a builder appends");
        bytes.extend_from_slice(new);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> Result<()> {
        Ok(())
    }

    fn set_len(&self, _len: u64) -> Result<()> {
        Ok(())
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes.lock().expect("not poisoned").len() as u64)
    }

    fn path(&self) -> &Path {
        Path::new("000007.sst")
    }
}

/// The bytes of a table of these entries, which are in internal order.
pub fn build<'e>(
    options: &TableOptions,
    entries: impl IntoIterator<Item = (&'e [u8], SequenceNumber, ValueKind, &'e [u8])>,
) -> Result<Vec<u8>> {
    let file = NewFile::default();
    let mut builder = TableBuilder::new(Box::new(file.clone()), FILE, KeyspaceId(0), options);
    for (key, sequence, kind, value) in entries {
        builder.add(key, sequence, kind, value)?;
    }
    builder.finish()?;
    Ok(file.bytes())
}

/// Options of tables, determined by one byte.
pub fn table_options(choice: u8) -> TableOptions {
    TableOptions {
        block_bytes: [512, 600, 1024, 4096][usize::from(choice & 3)],
        compression: [Codec::None, Codec::Lz4, Codec::Zstd(1), Codec::None][usize::from(choice >> 2 & 3)],
        filter: [FilterKind::Blocked, FilterKind::None, FilterKind::Standard, FilterKind::Blocked]
            [usize::from(choice >> 4 & 3)],
        filter_bits_per_key: f32::from(choice >> 6) * 5.0 + 4.0,
        write_buffer_bytes: 8 << 10,
    }
}

/// Builds a table of entries that the input describes, and reads them back in every way.
pub fn sst_roundtrip(data: &[u8]) {
    let mut input = Bytes::new(data);
    let options = table_options(input.u8());
    let mut model: BTreeMap<Version, (ValueKind, Vec<u8>)> = BTreeMap::new();
    let mut sequence = input.u64() & 0xFFF_FFFF_FFFF;
    while !input.is_empty() && model.len() < BUILT_MAX {
        let choice = input.u8();
        sequence = sequence.wrapping_add(u64::from(choice >> 1)) & 0xFFF_FFFF_FFFF;
        let key = input.key();
        let (kind, value) =
            if choice & 7 == 0 { (ValueKind::Delete, Vec::new()) } else { (ValueKind::Put, input.value()) };
        model.insert((key, std::cmp::Reverse(SequenceNumber(sequence))), (kind, value));
    }
    let entries =
        model.iter().map(|((key, sequence), (kind, value))| (&key[..], sequence.0, *kind, &value[..]));
    let bytes = build(&options, entries.clone()).expect("entries in order and within limits");
    let file = MemoryFile::new("000007.sst", &bytes);
    fuzzing::take_output();
    let table = producing("sst_roundtrip", bytes.len(), || {
        let table = CACHE
            .with(|cache| Table::open(Box::new(file), FILE, cache))
            .expect("a table that was just built");
        table.verify().expect("a table that was just built");
        let mut iterator = table.iter(ReadOptions { fill_cache: false, readahead_bytes: 0 });
        iterator.seek_to_first().expect("a sound table");
        for (key, sequence, kind, value) in entries {
            assert!(iterator.valid(), "an entry is missing");
            assert_eq!(
                (iterator.key(), iterator.sequence(), iterator.kind(), iterator.value()),
                (key, sequence, kind, value)
            );
            iterator.next().expect("a sound table");
        }
        assert!(!iterator.valid(), "there is one entry too many");
        drop(iterator);
        (table, 2 * fuzzing::take_output())
    });
    sound(&table, data.len()).expect("a sound table");
    let properties = table.properties();
    assert_eq!(properties.entries, model.len() as u64);
    assert_eq!(
        properties.smallest_key,
        model.first_key_value().map(|((key, _), _)| key.clone()).unwrap_or_default()
    );
    assert_eq!(
        properties.largest_key,
        model.last_key_value().map(|((key, _), _)| key.clone()).unwrap_or_default()
    );
    let absent = Bytes::new(data).take(9);
    let guard = crossbeam_epoch::pin();
    let found = table.get(Lookup::new(absent, SequenceNumber::MAX), &guard).expect("a sound table");
    let wanted = model.iter().find(|((key, _), _)| key == absent).map(|((_, sequence), _)| sequence.0);
    assert_eq!(found.map(|found| found.sequence), wanted);
}
