//! The engine under test. No other file of `db_bench` calls Sapwood.
//!
//! This is the interface of any engine to a benchmark: open, put, delete, batch, get, multi-get,
//! cursor, snapshot, flush, compact, wait, and figures. A second engine would have the same
//! methods; a trait would come with it.
//!
//! All functions on the path of an operation are inlined and add nothing to the engine's own cost.
use crate::files::Files;
use crate::flags::Flags;
use crate::report::Written;
use crate::report::statistics::{Figures, Level};
use sapwood::{
    AdvancedOptions, Builtin, Codec, CompactionStyle, Db, Durability, Env, Field, FilterKind, Index,
    IndexOptions, KeyKind, Keyspace, KeyspaceOptions, KeyspaceStats, Slice, WriteBatch, WriteOptions,
};
use sapwood_base::{Error, Result};
use sapwood_bench::keys::KeyBuffer;
use sapwood_bench::zipfian::spread;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

pub use sapwood::{Cursor, Snapshot};

/// The name of the index that benchmarks use.
const INDEX: &str = "first_bytes";

/// The durability that a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// The log in the page cache.
    Default,
    /// The log on the device.
    Sync,
    /// None: the write is not logged.
    NoLog,
}

impl WriteMode {
    fn durability(self) -> Durability {
        match self {
            WriteMode::Default => Durability::Buffered,
            WriteMode::Sync => Durability::Sync,
            WriteMode::NoLog => Durability::None,
        }
    }
}

/// An open database with the keyspaces of the benchmarks: `--num_column_families` of them, by
/// default one.
pub struct Engine {
    db: Db,
    keyspaces: Vec<Keyspace>,
    /// Bytes written by each thread of a benchmark, ended threads included.
    written: Mutex<Vec<Arc<Written>>>,
    /// The figures at the last `resetstats`.
    baseline: Mutex<Figures>,
}

impl Engine {
    /// Opens the database in `path` with the settings of the flags. Creates it, unless the flags
    /// require an existing one.
    pub fn open(path: &Path, flags: &Flags) -> Result<Engine> {
        let settings = Settings::new(flags)?;
        if let Some(log) = flags.log_folder() {
            std::fs::create_dir_all(&log).map_err(|error| Error::io("create a folder", &log, error))?;
        }
        let db = Db::builder(path)
            .memory_budget(settings.memory_budget)
            .create_if_missing(!flags.use_existing_db && !flags.readonly)
            .read_only(flags.readonly)
            .advanced(|advanced| {
                settings.apply(advanced);
                advanced.env = env(flags);
            })
            .open()?;
        let more = (1..flags.num_column_families).map(|number| {
            db.keyspace(&format!("column_family_name_{number:06}"), KeyspaceOptions::default())
        });
        let keyspaces =
            std::iter::once(Ok(db.default_keyspace())).chain(more).collect::<Result<Vec<Keyspace>>>()?;
        Ok(Engine { db, keyspaces, written: Mutex::default(), baseline: Mutex::new(Figures::default()) })
    }

    /// Removes a database, and the folder of its log if that is empty afterwards. A folder without
    /// a database is not an error.
    pub fn destroy(path: &Path, flags: &Flags) -> Result<()> {
        let log = flags.log_folder().filter(|log| log.exists());
        // If the folder of the log does not exist, there is no log in it.
        let flags = Flags {
            wal_dir: log.as_ref().map_or_else(String::new, |_| flags.wal_dir.clone()),
            ..flags.clone()
        };
        Db::destroy_in(path, &AdvancedOptions { env: env(&flags), ..AdvancedOptions::default() })?;
        if let Some(log) = log {
            // The folder stays if it holds other files.
            let _ = std::fs::remove_dir(log);
        }
        Ok(())
    }

    /// Closes the database.
    pub fn close(self) -> Result<()> {
        let Engine { db, keyspaces, .. } = self;
        drop(keyspaces);
        db.close()
    }

    /// The keyspace of `key`.
    #[inline]
    fn keyspace(&self, key: &[u8]) -> &Keyspace {
        let [first] = self.keyspaces.as_slice() else { return route(&self.keyspaces, key) };
        first
    }

    /// Writes one key.
    #[inline]
    pub fn put(&self, key: &[u8], value: &[u8], mode: WriteMode) -> Result<()> {
        match mode {
            WriteMode::Default => self.keyspace(key).put(key, value),
            _ => {
                self.keyspace(key).put_with(key, value, &WriteOptions { durability: Some(mode.durability()) })
            }
        }
    }

    /// Deletes one key.
    #[inline]
    pub fn delete(&self, key: &[u8], mode: WriteMode) -> Result<()> {
        match mode {
            WriteMode::Default => self.keyspace(key).delete(key),
            _ => self.keyspace(key).delete_with(key, &WriteOptions { durability: Some(mode.durability()) }),
        }
    }

    /// An empty batch.
    pub fn batch(&self) -> Batch<'_> {
        Batch { engine: self, batch: self.db.batch() }
    }

    /// Calls `with` with the value of `key`, without a copy.
    #[inline]
    pub fn get<R>(&self, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        self.keyspace(key).get_with(key, with)
    }

    /// A snapshot of the current state.
    pub fn snapshot(&self) -> Snapshot {
        self.db.snapshot()
    }

    /// The value of `key` in `snapshot`.
    pub fn get_at(&self, key: &[u8], snapshot: &Snapshot) -> Result<Option<Vec<u8>>> {
        Ok(self.keyspace(key).get_at(key, snapshot)?.map(|value| value.to_vec()))
    }

    /// Reads all `keys`, with one call per keyspace: the number found, and the bytes of their keys
    /// and values.
    pub fn multi_get(&self, keys: &[KeyBuffer]) -> Result<(u64, u64)> {
        let [keyspace] = self.keyspaces.as_slice() else { return self.multi_get_routed(keys) };
        sum_found(keys, &keyspace.multi_get(keys)?)
    }

    fn multi_get_routed(&self, keys: &[KeyBuffer]) -> Result<(u64, u64)> {
        let mut sums = (0, 0);
        for keyspace in &self.keyspaces {
            let here: Vec<&[u8]> = keys
                .iter()
                .map(KeyBuffer::as_ref)
                .filter(|key| route(&self.keyspaces, key).name() == keyspace.name())
                .collect();
            let (count, bytes) = sum_found(&here, &keyspace.multi_get(&here)?)?;
            sums = (sums.0 + count, sums.1 + bytes);
        }
        Ok(sums)
    }

    /// A cursor on the latest state of the first keyspace, not positioned.
    #[inline]
    pub fn cursor(&self) -> Result<Cursor> {
        self.keyspaces[0].cursor()
    }

    /// A cursor on the keyspace of `key`, not positioned.
    #[inline]
    pub fn cursor_of(&self, key: &[u8]) -> Result<Cursor> {
        self.keyspace(key).cursor()
    }

    /// The first entry at or after `key` in the keyspace of `key`, read by an iterator.
    pub fn first_from(&self, key: &[u8]) -> Result<Option<(Vec<u8>, Slice)>> {
        self.keyspace(key).range(key..).next().transpose().map(|entry| entry.map(|entry| entry.into_parts()))
    }

    /// Number and bytes of the rows of the first keyspace that begin with `prefix`, read
    /// completely, in either direction.
    pub fn prefix(&self, prefix: &[u8], backward: bool) -> Result<(u64, u64)> {
        let rows = self.keyspaces[0].prefix(prefix);
        let rows = if backward { rows.rev() } else { rows };
        rows.into_iter().try_fold((0, 0), |(count, bytes), entry| {
            let entry = entry?;
            Ok((count + 1, bytes + (entry.key().len() + entry.value()?.len()) as u64))
        })
    }

    /// Bytes in memtables, which the estimates of sizes exclude.
    pub fn memtable_bytes(&self) -> u64 {
        self.db.stats().memtable_bytes
    }

    /// Estimated bytes in tables of the entries from one key to another.
    pub fn approximate_size(&self, from: &[u8], to: &[u8]) -> Result<u64> {
        self.keyspaces[0].approximate_size(from..to)
    }

    /// Creates the index on the first eight bytes of values, over the existing rows, unless it
    /// exists.
    pub fn create_index(&self) -> Result<()> {
        if self.keyspaces.len() > 1 {
            return Err(Error::invalid_argument(
                "an index is of one keyspace, so num_column_families must be 1",
            ));
        }
        let builtin = Builtin::new(Field::value().range(0, 8), KeyKind::Bytes);
        self.keyspaces[0].create_index(INDEX, IndexOptions::builtin(builtin)).map(drop)
    }

    /// The index.
    pub fn index(&self) -> Result<Index> {
        self.keyspaces[0].index(INDEX)
    }

    /// Flushes the memtables.
    pub fn flush(&self) -> Result<()> {
        self.db.flush()
    }

    /// Compacts all tables into the last level.
    pub fn compact(&self) -> Result<()> {
        self.keyspaces.iter().try_for_each(|keyspace| keyspace.compact_range::<&[u8]>(..))
    }

    /// Waits until no flush and no compaction is due.
    pub fn wait_for_background(&self) -> Result<()> {
        self.db.wait_for_background()
    }

    /// A counter for the writes of one more thread, for the statistics; `run` is the same for all
    /// threads that write at the same time.
    pub fn writer(&self, run: u64) -> Arc<Written> {
        let written = Arc::new(Written { run, ..Written::default() });
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&written));
        written
    }

    /// The figures since the open or the last `reset_statistics`.
    pub fn figures(&self) -> Figures {
        let baseline = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        self.all_figures().since(&baseline)
    }

    /// Makes the current figures the baseline.
    pub fn reset_statistics(&self) {
        *self.baseline.lock().unwrap_or_else(PoisonError::into_inner) = self.all_figures();
    }

    /// The figures in RocksDB's format, then in the engine's own.
    pub fn statistics(&self) -> String {
        format!("{}\n** Sapwood, since opening **\n{}", self.figures(), self.db.stats())
    }

    /// The memory that the engine accounts for.
    pub fn memory(&self) -> String {
        let memory = self.db.memory();
        let mut text = String::from("Engine memory (MB):\n");
        for (name, bytes) in [
            ("memtables", memory.memtables),
            ("cache", memory.cache),
            ("table metadata", memory.table_metadata),
            ("log, mapped", memory.wal),
            ("total", memory.total()),
            ("budget", memory.budget),
        ] {
            let _ = writeln!(text, "  {name:<15} {:10.1}", bytes as f64 / 1_048_576.0);
        }
        text
    }

    fn all_figures(&self) -> Figures {
        let stats = self.db.stats();
        let (mut writes, mut ingest_bytes, mut writers) = (0, 0, BTreeMap::<u64, u32>::new());
        for written in self.written.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // Relaxed: see Stats::publish.
            let count = written.writes.load(Ordering::Relaxed);
            writes += count;
            ingest_bytes += written.bytes.load(Ordering::Relaxed);
            *writers.entry(written.run).or_default() += u32::from(count > 0);
        }
        Figures {
            uptime: stats.uptime,
            writes,
            ingest_bytes,
            writers: writers.into_values().max().unwrap_or(0),
            log_bytes: stats.wal_bytes_written,
            flushes: stats.flushes,
            flush_bytes: stats.flush_bytes_written,
            compactions: stats.compactions,
            compaction_bytes_read: stats.compaction_bytes_read,
            compaction_bytes_written: stats.compaction_bytes_written,
            compaction_bytes_moved: stats.compaction_bytes_moved,
            stalled_by_debt: stats.stalls.compaction_debt,
            stalled_by_memtables: stats.stalls.memtables_full,
            memtable_waits: stats.stalls.memtable_waits,
            cache_misses: stats.cache_misses,
            cache_hits: stats.cache_hits,
            levels: levels(&stats.keyspaces),
        }
    }
}

/// The operating system, with the changes of the flags to its files.
fn env(flags: &Flags) -> Env {
    match Files::new(flags.log_folder(), flags.rate_limiter_bytes_per_sec) {
        Some(files) => Env::os().with_file_system(Arc::new(files)),
        None => Env::os(),
    }
}

/// The keyspace of a key if there are several: spread by its first eight bytes, so that neighbours
/// are in different keyspaces.
#[cold]
fn route<'a>(keyspaces: &'a [Keyspace], key: &[u8]) -> &'a Keyspace {
    let head = key.iter().take(8).fold(0, |head, byte| head << 8 | u64::from(*byte));
    &keyspaces[(spread(head) % keyspaces.len() as u64) as usize]
}

/// The number of values found, and the bytes of their keys and values.
fn sum_found<K: AsRef<[u8]>>(keys: &[K], values: &[Option<Slice>]) -> Result<(u64, u64)> {
    let found = keys.iter().zip(values).filter_map(|(key, value)| value.as_ref().map(|value| (key, value)));
    Ok(found.fold((0, 0), |(count, bytes), (key, value)| {
        (count + 1, bytes + (key.as_ref().len() + value.len()) as u64)
    }))
}

/// The levels of all keyspaces, added up.
fn levels(keyspaces: &[KeyspaceStats]) -> Vec<Level> {
    let mut levels: Vec<Level> = Vec::new();
    for level in keyspaces.iter().flat_map(|keyspace| &keyspace.levels) {
        let at = levels.binary_search_by_key(&level.level, |known| known.level);
        let at = at.unwrap_or_else(|at| {
            levels.insert(at, Level { level: level.level, ..Level::default() });
            at
        });
        levels[at].files += level.files as u64;
        levels[at].bytes += level.bytes;
    }
    levels
}

/// A batch that can be reused after its commit.
pub struct Batch<'a> {
    engine: &'a Engine,
    batch: WriteBatch,
}

impl Batch<'_> {
    /// Adds a put.
    #[inline]
    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.batch.put(self.engine.keyspace(key), key, value);
    }

    /// Adds a delete.
    #[inline]
    pub fn delete(&mut self, key: &[u8]) {
        self.batch.delete(self.engine.keyspace(key), key);
    }

    /// Commits the batch and empties it.
    pub fn commit(&mut self, mode: WriteMode) -> Result<()> {
        self.batch.commit_durable(mode.durability()).map(drop)
    }
}

/// The engine's settings from the flags. `None` keeps the engine's default.
struct Settings {
    memory_budget: usize,
    cache_bytes: Option<usize>,
    memtable_bytes: usize,
    max_memtables: usize,
    compression: Option<Codec>,
    filter: Option<FilterKind>,
    filter_bits_per_key: Option<f32>,
    block_bytes: usize,
    target_file_bytes: Option<u64>,
    compaction_style: CompactionStyle,
    background_threads: Option<usize>,
    subcompactions: Option<usize>,
    level0_runs: Option<usize>,
    disable_auto_compactions: bool,
    wal_segment_bytes: Option<usize>,
}

impl Settings {
    fn new(flags: &Flags) -> Result<Settings> {
        let unknown = |name: &str, value: &str, choices: &str| {
            Err(Error::invalid_argument(format!("--{name}={value} is none of {choices}")))
        };
        let positive = |value: i64| usize::try_from(value).ok().filter(|value| *value > 0);
        let compression = match flags.compression_type.as_str() {
            "default" => None,
            "none" => Some(Codec::None),
            // See [`Flags::codec_in_place`].
            "lz4" | "snappy" | "lz4hc" => Some(Codec::Lz4),
            "zstd" => Some(Codec::Zstd(i32::try_from(flags.compression_level).unwrap_or(3))),
            other => return unknown("compression_type", other, "default, none, lz4, zstd, snappy, lz4hc"),
        };
        let filter = match (flags.filter_type.as_str(), flags.bloom_bits) {
            (_, 0.0) => Some(FilterKind::None),
            ("", _) => None,
            ("none", _) => Some(FilterKind::None),
            ("blocked", _) => Some(FilterKind::Blocked),
            ("standard", _) => Some(FilterKind::Standard),
            (other, _) => return unknown("filter_type", other, "none, blocked, standard"),
        };
        let compaction_style = match flags.compaction_style.as_str() {
            // RocksDB's universal style also has several runs above the last level.
            "hybrid" | "1" | "none" | "3" => CompactionStyle::Hybrid,
            "leveled" | "0" => CompactionStyle::Leveled,
            other => return unknown("compaction_style", other, "hybrid (1), leveled (0), none (3)"),
        };
        let cache_bytes = usize::try_from(flags.cache_size).ok();
        let memtable_bytes = flags.write_buffer_size as usize;
        // The engine needs one memtable to write to and one to flush.
        let max_memtables = (flags.max_write_buffer_number as usize).max(2);
        let parts = cache_bytes.unwrap_or(64 << 20) + memtable_bytes * max_memtables;
        Ok(Settings {
            // A quarter more, and 64 MiB, for the log, the tables' indexes and the scratch of
            // compactions.
            memory_budget: positive(flags.memory_budget).unwrap_or(parts + parts / 4 + (64 << 20)),
            cache_bytes,
            memtable_bytes,
            max_memtables,
            compression,
            filter,
            filter_bits_per_key: (flags.bloom_bits > 0.0).then_some(flags.bloom_bits as f32),
            block_bytes: positive(flags.block_size).unwrap_or(4096).clamp(256, 64 << 10),
            target_file_bytes: positive(flags.target_file_size_base).map(|bytes| bytes as u64),
            compaction_style,
            // Scripts for large machines request more than the engine's maximum.
            background_threads: positive(flags.max_background_jobs)
                .or(positive(flags.max_background_compactions))
                .map(|threads| threads.min(64)),
            subcompactions: positive(flags.subcompactions).map(|threads| threads.min(64)),
            level0_runs: positive(flags.level0_file_num_compaction_trigger),
            disable_auto_compactions: flags.disable_auto_compactions
                || matches!(flags.compaction_style.as_str(), "none" | "3"),
            wal_segment_bytes: positive(flags.wal_segment_size),
        })
    }

    fn apply(self, advanced: &mut AdvancedOptions) {
        fn set<T>(target: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *target = value;
            }
        }
        advanced.cache_bytes = self.cache_bytes;
        advanced.memtable_bytes = Some(self.memtable_bytes);
        advanced.max_memtables = self.max_memtables;
        set(&mut advanced.compression, self.compression);
        set(&mut advanced.filter, self.filter);
        set(&mut advanced.filter_bits_per_key, self.filter_bits_per_key);
        advanced.block_bytes = self.block_bytes;
        set(&mut advanced.target_file_bytes, self.target_file_bytes);
        advanced.compaction_style = self.compaction_style;
        set(&mut advanced.background_threads, self.background_threads);
        set(&mut advanced.subcompactions, self.subcompactions);
        set(&mut advanced.level0_runs, self.level0_runs);
        advanced.disable_auto_compactions = self.disable_auto_compactions;
        set(&mut advanced.wal_segment_bytes, self.wal_segment_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_settings_or_errors_that_list_the_choices() {
        let settings = |change: fn(&mut Flags)| {
            let mut flags = Flags::default();
            change(&mut flags);
            Settings::new(&flags)
        };
        let default = settings(|_| {}).unwrap();
        assert_eq!((default.cache_bytes, default.memtable_bytes), (Some(32 << 20), 64 << 20));
        assert!(
            default.compression.is_none()
                && default.filter.is_none()
                && default.filter_bits_per_key.is_none()
        );
        assert!(default.memory_budget > (32 << 20) + 2 * (64 << 20));
        let settings_ = settings(|flags| {
            flags.compression_type = "snappy".into();
            flags.bloom_bits = 0.0;
            flags.compaction_style = "0".into();
        })
        .unwrap();
        assert_eq!(settings_.compression, Some(Codec::Lz4));
        assert_eq!(settings_.filter, Some(FilterKind::None));
        assert_eq!(settings_.compaction_style, CompactionStyle::Leveled);
        let error = settings(|flags| flags.compression_type = "zip".into()).err().unwrap().to_string();
        assert_eq!(error, "--compression_type=zip is none of default, none, lz4, zstd, snappy, lz4hc");
        let none = settings(|flags| flags.compaction_style = "3".into()).unwrap();
        assert!(none.disable_auto_compactions && none.compaction_style == CompactionStyle::Hybrid);
        assert!(settings(|flags| flags.compaction_style = "2".into()).is_err());
        assert!(settings(|flags| flags.filter_type = "ribbon".into()).is_err());
    }

    #[test]
    fn keys_are_spread_over_keyspaces_and_found_there() {
        let folder = tempfile::tempdir().unwrap();
        let flags = Flags { write_buffer_size: 1 << 20, num_column_families: 3, ..Flags::default() };
        let engine = Engine::open(folder.path(), &flags).unwrap();
        let mut batch = engine.batch();
        let mut keys: Vec<KeyBuffer> = (0..100).map(|_| KeyBuffer::new(16, 0, 0, 100)).collect();
        (0..).zip(&mut keys).for_each(|(number, key)| batch.put(key.make(number), b"12345"));
        batch.commit(WriteMode::Default).unwrap();
        engine.compact().unwrap();
        assert_eq!(engine.multi_get(&keys).unwrap(), (100, 2_100));
        assert_eq!(engine.get(keys[7].as_ref(), <[u8]>::len).unwrap(), Some(5));
        let snapshot = engine.snapshot();
        engine.delete(keys[7].as_ref(), WriteMode::Default).unwrap();
        assert_eq!(engine.get_at(keys[7].as_ref(), &snapshot).unwrap(), Some(b"12345".to_vec()));
        assert_eq!(engine.multi_get(&keys[7..9]).unwrap(), (1, 21));
        let mut cursor = engine.cursor().unwrap();
        cursor.seek_to_first().unwrap();
        let mut first = 0;
        while cursor.valid() {
            first += 1;
            cursor.next().unwrap();
        }
        assert!((20..50).contains(&first), "{first}");
        let levels = engine.figures().levels;
        assert_eq!(levels.iter().map(|level| level.files).sum::<u64>(), 3);
    }

    #[test]
    fn a_database_is_filled_read_scanned_and_emptied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        let mut flags = Flags { write_buffer_size: 1 << 20, ..Flags::default() };
        let engine = Engine::open(&path, &flags).unwrap();
        engine.put(b"a", b"1", WriteMode::Default).unwrap();
        engine.put(b"b", b"22", WriteMode::Sync).unwrap();
        let mut batch = engine.batch();
        batch.put(b"c", b"333");
        batch.delete(b"a");
        batch.commit(WriteMode::Default).unwrap();
        engine.flush().unwrap();
        engine.compact().unwrap();
        engine.wait_for_background().unwrap();
        assert_eq!(engine.get(b"a", <[u8]>::len).unwrap(), None);
        assert_eq!(engine.get(b"c", <[u8]>::len).unwrap(), Some(3));
        let mut cursor = engine.cursor().unwrap();
        cursor.seek_to_first().unwrap();
        assert_eq!((cursor.key(), cursor.value()), (&b"b"[..], &b"22"[..]));
        drop(cursor);
        let figures = engine.figures();
        assert!(figures.flushes >= 1 && figures.log_bytes > 0);
        assert!(engine.memory().contains("total") && engine.statistics().contains("\nUptime(secs): "));
        engine.reset_statistics();
        assert_eq!(engine.figures().flushes, 0);
        drop(batch);
        engine.close().unwrap();

        flags.use_existing_db = true;
        let engine = Engine::open(&path, &flags).unwrap();
        assert_eq!(engine.get(b"b", <[u8]>::len).unwrap(), Some(2));
        engine.close().unwrap();
        Engine::destroy(&path, &flags).unwrap();
        assert!(Engine::open(&path, &flags).is_err(), "an existing database was asked for and there is none");
    }
}
