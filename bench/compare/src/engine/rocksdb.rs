//! RocksDB through its C interface.
//!
//! The settings come from its wiki:
//!
//! | setting | page |
//! |---|---|
//! | level sizes (`level_compaction_dynamic_level_bytes`), `bytes_per_sync`, unlimited open files | "RocksDB Tuning Guide", "Setup Options and Basic Tuning" |
//! | full filters of 10 bits; whole keys in the memtable's filter | "RocksDB Bloom Filter" |
//! | hash index in blocks, for point reads from the cache | "Data Block Hash Index" |
//!
//! Blocks have 4 KiB, the default and the fast size for cached data.
//!
//! Every call follows the contract of `rocksdb/c.h`: options outlive the database, returned strings
//! are freed with `rocksdb_free`, and iterators and pinned values are destroyed before the database
//! is closed.
use super::{Acknowledged, Direction, Engine, INDEX_KEY_BYTES, Indexed, Info, Reader, Result, entry_key};
use crate::settings::{Codec, Settings};
use crate::stream::index_key_of;
use librocksdb_sys as ffi;
use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr;
use std::time::{Duration, Instant};

/// An open database.
pub struct RocksDb {
    db: *mut ffi::rocksdb_t,
    options: *mut ffi::rocksdb_options_t,
    table_options: *mut ffi::rocksdb_block_based_table_options_t,
    cache: *mut ffi::rocksdb_cache_t,
    write: *mut ffi::rocksdb_writeoptions_t,
    write_durably: *mut ffi::rocksdb_writeoptions_t,
    read: *mut ffi::rocksdb_readoptions_t,
    /// The column families of rows and of index entries; null if the rows have no index.
    families: [*mut ffi::rocksdb_column_family_handle_t; 2],
}

// SAFETY: `rocksdb/c.h` allows all calls made here from any thread at the same time; options are
// only read.
unsafe impl Send for RocksDb {}
// SAFETY: as above.
unsafe impl Sync for RocksDb {}

/// Runs a call that reports errors through a string.
fn checked<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> Result<T> {
    let mut error: *mut c_char = ptr::null_mut();
    let value = call(&mut error);
    if error.is_null() {
        return Ok(value);
    }
    // SAFETY: a non-null string was allocated by RocksDB, ends with a zero, and is ours to free.
    let message = unsafe {
        let message = CStr::from_ptr(error).to_string_lossy().into_owned();
        ffi::rocksdb_free(error.cast());
        message
    };
    Err(message.into())
}

impl RocksDb {
    fn put_with(&self, options: *mut ffi::rocksdb_writeoptions_t, key: &[u8], value: &[u8]) -> Result<()> {
        // SAFETY: database and options live as long as `self`; the slices are read during the call.
        checked(|error| unsafe {
            let (key, key_length) = (key.as_ptr().cast(), key.len());
            ffi::rocksdb_put(self.db, options, key, key_length, value.as_ptr().cast(), value.len(), error);
        })
    }

    fn number(&self, property: &CStr) -> u64 {
        let mut number = 0;
        // SAFETY: the database is open, the name ends with a zero, the number is ours.
        let unknown = unsafe { ffi::rocksdb_property_int(self.db, property.as_ptr(), &mut number) };
        if unknown == 0 { number } else { 0 }
    }
}

impl Engine for RocksDb {
    const INFO: Info = Info {
        acknowledged: Acknowledged::ProcessCrash,
        settings: "leveled with dynamic level sizes, Bloom filters of 10 bits in tables and memtables, 4 KiB blocks with \
                   hash index, LRU cache, all files open, bytes_per_sync 1 MiB",
    };

    type Reader<'a> = &'a RocksDb;

    fn open(folder: &Path, settings: &Settings) -> Result<RocksDb> {
        let path = folder.join("db");
        let path = CString::new(path.to_str().ok_or("the folder's name is not UTF-8")?)?;
        // SAFETY: every object is made by the call that `rocksdb/c.h` names for it and used before
        // it is destroyed. The table options take over the filter policy.
        unsafe {
            let options = ffi::rocksdb_options_create();
            ffi::rocksdb_options_set_create_if_missing(options, 1);
            ffi::rocksdb_options_set_write_buffer_size(options, settings.memtable_bytes);
            ffi::rocksdb_options_set_max_write_buffer_number(options, settings.memtables as i32);
            ffi::rocksdb_options_set_max_background_jobs(options, settings.background_threads as i32);
            ffi::rocksdb_options_set_level_compaction_dynamic_level_bytes(options, 1);
            ffi::rocksdb_options_set_bytes_per_sync(options, 1 << 20);
            ffi::rocksdb_options_set_max_open_files(options, -1);
            ffi::rocksdb_options_set_memtable_prefix_bloom_size_ratio(options, 0.02);
            ffi::rocksdb_options_set_memtable_whole_key_filtering(options, 1);
            let codec = match settings.codec {
                Codec::None => ffi::rocksdb_no_compression,
                Codec::Lz4 => ffi::rocksdb_lz4_compression,
            };
            ffi::rocksdb_options_set_compression(options, codec as i32);
            let cache = ffi::rocksdb_cache_create_lru(settings.cache_bytes);
            let table_options = ffi::rocksdb_block_based_options_create();
            ffi::rocksdb_block_based_options_set_block_cache(table_options, cache);
            let filter = ffi::rocksdb_filterpolicy_create_bloom_full(10.0);
            ffi::rocksdb_block_based_options_set_filter_policy(table_options, filter);
            ffi::rocksdb_block_based_options_set_format_version(table_options, 5);
            // 1 is binary search and hash; the wiki's page recommends the ratio 0.75.
            ffi::rocksdb_block_based_options_set_data_block_index_type(table_options, 1);
            ffi::rocksdb_block_based_options_set_data_block_hash_ratio(table_options, 0.75);
            ffi::rocksdb_options_set_block_based_table_factory(options, table_options);
            let write = ffi::rocksdb_writeoptions_create();
            let write_durably = ffi::rocksdb_writeoptions_create();
            ffi::rocksdb_writeoptions_set_sync(write_durably, 1);
            let read = ffi::rocksdb_readoptions_create();
            let mut rocksdb = RocksDb {
                db: ptr::null_mut(),
                options,
                table_options,
                cache,
                write,
                write_durably,
                read,
                families: [ptr::null_mut(); 2],
            };
            rocksdb.db = if settings.indexed {
                ffi::rocksdb_options_set_create_missing_column_families(options, 1);
                let names = [c"default".as_ptr(), c"entries".as_ptr()];
                let all = [options.cast_const(); 2];
                let families = rocksdb.families.as_mut_ptr();
                checked(|error| {
                    let (names, all) = (names.as_ptr(), all.as_ptr());
                    ffi::rocksdb_open_column_families(options, path.as_ptr(), 2, names, all, families, error)
                })?
            } else {
                checked(|error| ffi::rocksdb_open(options, path.as_ptr(), error))?
            };
            Ok(rocksdb)
        }
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.put_with(self.write, key, value)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.put_with(self.write_durably, key, value)
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        // SAFETY: the batch copies its arguments and is destroyed once, after its write.
        unsafe {
            let batch = ffi::rocksdb_writebatch_create();
            for (key, value) in entries {
                let (key, key_length) = (key.as_ptr().cast(), key.len());
                ffi::rocksdb_writebatch_put(batch, key, key_length, value.as_ptr().cast(), value.len());
            }
            let written = checked(|error| ffi::rocksdb_write(self.db, self.write, batch, error));
            ffi::rocksdb_writebatch_destroy(batch);
            written
        }
    }

    fn reader(&self) -> Result<&RocksDb> {
        Ok(self)
    }

    fn settle(&self) -> Result<()> {
        // SAFETY: the options are destroyed once, after their use.
        unsafe {
            let options = ffi::rocksdb_flushoptions_create();
            ffi::rocksdb_flushoptions_set_wait(options, 1);
            let mut flushed = checked(|error| ffi::rocksdb_flush(self.db, options, error));
            let [_, entries] = self.families;
            if flushed.is_ok() && !entries.is_null() {
                flushed = checked(|error| ffi::rocksdb_flush_cf(self.db, options, entries, error));
            }
            ffi::rocksdb_flushoptions_destroy(options);
            flushed?;
        }
        // Older versions have no call that waits; 100 ms without work count as settled.
        let busy = || {
            self.number(c"rocksdb.mem-table-flush-pending") > 0
                || self.number(c"rocksdb.num-running-flushes") > 0
                || self.number(c"rocksdb.compaction-pending") > 0
                || self.number(c"rocksdb.num-running-compactions") > 0
        };
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < Duration::from_millis(100) {
            std::thread::sleep(Duration::from_millis(2));
            if busy() {
                quiet_since = Instant::now();
            }
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }

    fn indexed(&self) -> Result<&impl Indexed> {
        Ok(self)
    }

    fn version() -> String {
        // The C interface has no call for it, but the LOG of a database begins with it.
        let version = || -> Option<String> {
            let folder = tempfile::tempdir().ok()?;
            drop(RocksDb::open(folder.path(), &Settings::default()).ok()?);
            let log = std::fs::read_to_string(folder.path().join("db/LOG")).ok()?;
            let line = log.lines().find(|line| line.contains("RocksDB version:"))?;
            Some(line.rsplit(':').next()?.trim().to_owned())
        };
        version().unwrap_or_else(|| "unknown".to_owned())
    }
}

impl Drop for RocksDb {
    fn drop(&mut self) {
        // SAFETY: nothing else refers to the destroyed objects: readers borrow `self`.
        unsafe {
            self.families
                .iter()
                .filter(|family| !family.is_null())
                .for_each(|family| ffi::rocksdb_column_family_handle_destroy(*family));
            if !self.db.is_null() {
                ffi::rocksdb_close(self.db);
            }
            ffi::rocksdb_readoptions_destroy(self.read);
            ffi::rocksdb_writeoptions_destroy(self.write);
            ffi::rocksdb_writeoptions_destroy(self.write_durably);
            ffi::rocksdb_options_destroy(self.options);
            ffi::rocksdb_block_based_options_destroy(self.table_options);
            ffi::rocksdb_cache_destroy(self.cache);
        }
    }
}

/// An iterator that is destroyed on drop.
struct Iterator(*mut ffi::rocksdb_iterator_t);

impl Iterator {
    fn new(rocksdb: &RocksDb) -> Iterator {
        // SAFETY: database and options are alive, and the borrow of the reader keeps them so.
        Iterator(unsafe { ffi::rocksdb_create_iterator(rocksdb.db, rocksdb.read) })
    }

    /// An iterator over the entries of the index.
    fn of_entries(rocksdb: &RocksDb) -> Result<Iterator> {
        let [_, entries] = rocksdb.families;
        if entries.is_null() {
            return Err("the database has no index".into());
        }
        // SAFETY: as in `new`; the column family lives as long as the database.
        Ok(Iterator(unsafe { ffi::rocksdb_create_iterator_cf(rocksdb.db, rocksdb.read, entries) }))
    }

    #[inline]
    fn entry(&self) -> Option<(&[u8], &[u8])> {
        // SAFETY: key and value of a valid iterator stay until it moves, which takes a mutable
        // borrow.
        unsafe {
            if ffi::rocksdb_iter_valid(self.0) == 0 {
                return None;
            }
            let (mut key_length, mut value_length) = (0, 0);
            let key = ffi::rocksdb_iter_key(self.0, &mut key_length).cast();
            let value = ffi::rocksdb_iter_value(self.0, &mut value_length).cast();
            Some((
                std::slice::from_raw_parts(key, key_length),
                std::slice::from_raw_parts(value, value_length),
            ))
        }
    }

    #[inline]
    fn step(&mut self, direction: Direction) {
        // SAFETY: called only while the iterator is valid.
        unsafe {
            match direction {
                Direction::Forward => ffi::rocksdb_iter_next(self.0),
                Direction::Backward => ffi::rocksdb_iter_prev(self.0),
            }
        }
    }

    fn finish(self) -> Result<()> {
        // SAFETY: the iterator is alive.
        checked(|error| unsafe { ffi::rocksdb_iter_get_error(self.0, error) })
    }
}

impl Drop for Iterator {
    fn drop(&mut self) {
        // SAFETY: made by `rocksdb_create_iterator`, destroyed once.
        unsafe { ffi::rocksdb_iter_destroy(self.0) }
    }
}

impl Indexed for RocksDb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let [rows, entries] = self.families;
        if entries.is_null() {
            return Err("the database has no index".into());
        }
        let old = { self }.get(key, index_key_of)?;
        let mut entry = Vec::with_capacity(INDEX_KEY_BYTES + key.len());
        // SAFETY: the column families live as long as `self`; the batch copies its arguments and is
        // destroyed once, after its write.
        unsafe {
            let batch = ffi::rocksdb_writebatch_create();
            if let Some(old) = old {
                entry_key(&mut entry, old, key);
                ffi::rocksdb_writebatch_delete_cf(batch, entries, entry.as_ptr().cast(), entry.len());
            }
            entry_key(&mut entry, index_key_of(value), key);
            let nothing: *const c_char = ptr::NonNull::dangling().as_ptr();
            ffi::rocksdb_writebatch_put_cf(batch, entries, entry.as_ptr().cast(), entry.len(), nothing, 0);
            let (key, key_length) = (key.as_ptr().cast(), key.len());
            let (value, value_length) = (value.as_ptr().cast(), value.len());
            ffi::rocksdb_writebatch_put_cf(batch, rows, key, key_length, value, value_length);
            let written = checked(|error| ffi::rocksdb_write(self.db, self.write, batch, error));
            ffi::rocksdb_writebatch_destroy(batch);
            written
        }
    }

    fn lookup(&self, index_key: [u8; 8], with: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let mut iterator = Iterator::of_entries(self)?;
        // SAFETY: the iterator is alive; the bytes are read during the call.
        unsafe { ffi::rocksdb_iter_seek(iterator.0, index_key.as_ptr().cast(), index_key.len()) }
        let mut found = 0;
        while let Some((entry, _)) = iterator.entry()
            && let Some(key) = entry.strip_prefix(&index_key)
        {
            { self }.get(key, |value| with(key, value))?.ok_or("an entry of the index has no row")?;
            found += 1;
            iterator.step(Direction::Forward);
        }
        iterator.finish()?;
        Ok(found)
    }

    fn scan(&self, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let mut iterator = Iterator::of_entries(self)?;
        // SAFETY: the iterator is alive.
        unsafe { ffi::rocksdb_iter_seek_to_first(iterator.0) }
        let mut visited = 0;
        while let Some((entry, _)) = iterator.entry() {
            let (index_key, key) = entry.split_at(INDEX_KEY_BYTES);
            visit(index_key, key);
            visited += 1;
            iterator.step(Direction::Forward);
        }
        iterator.finish()?;
        Ok(visited)
    }
}

/// Every read is of the latest state.
impl Reader for &RocksDb {
    fn refresh(&mut self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn get<R>(&mut self, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        // SAFETY: database and options are alive; the slice is read during the call.
        let pinned = checked(|error| unsafe {
            ffi::rocksdb_get_pinned(self.db, self.read, key.as_ptr().cast(), key.len(), error)
        })?;
        if pinned.is_null() {
            return Ok(None);
        }
        // SAFETY: the bytes of a pinned value stay until it is destroyed, which happens once,
        // below.
        unsafe {
            let mut length = 0;
            let value = ffi::rocksdb_pinnableslice_value(pinned, &mut length).cast();
            let result = with(std::slice::from_raw_parts(value, length));
            ffi::rocksdb_pinnableslice_destroy(pinned);
            Ok(Some(result))
        }
    }

    fn seek(&mut self, key: &[u8], count: usize, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut iterator = Iterator::new(self);
        // SAFETY: the iterator is alive; the slice is read during the call.
        unsafe { ffi::rocksdb_iter_seek(iterator.0, key.as_ptr().cast(), key.len()) }
        let mut visited = 0;
        while let Some((key, value)) = iterator.entry() {
            visit(key, value);
            visited += 1;
            if visited == count {
                break;
            }
            iterator.step(Direction::Forward);
        }
        iterator.finish()?;
        Ok(visited)
    }

    fn scan(&mut self, direction: Direction, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let mut iterator = Iterator::new(self);
        // SAFETY: the iterator is alive.
        unsafe {
            match direction {
                Direction::Forward => ffi::rocksdb_iter_seek_to_first(iterator.0),
                Direction::Backward => ffi::rocksdb_iter_seek_to_last(iterator.0),
            }
        }
        let mut visited = 0;
        while let Some((key, value)) = iterator.entry() {
            visit(key, value);
            visited += 1;
            iterator.step(direction);
        }
        iterator.finish()?;
        Ok(visited)
    }
}
