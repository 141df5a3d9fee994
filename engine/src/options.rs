//! Settings of a database: three that most programs set, the rest under [`AdvancedOptions`].
use crate::index::options::IndexOptions;
use crate::wal::SEGMENTS_MAX;
use sapwood_base::{Error, Result};
use sapwood_compaction::CompactionStyle;
use sapwood_sstable::{Codec, FilterKind};
use sapwood_storage::env::Env;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The first log segment by default: a header of 4 KiB, and one page of records.
const FIRST_SEGMENT_BYTES: usize = 8 << 10;

/// The failures that an acknowledged write survives.
///
/// The state after a crash is a prefix of the history of commits, except that commits with
/// [`Durability::None`] can be missing from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// No log: the write survives once its memtable was flushed. For data that can be made again. A
    /// write to a keyspace that has a strict or unique index is logged all the same, as with
    /// `Buffered`.
    None,
    /// The bytes are in the operating system's page cache: the write survives the end of the
    /// process (`kill -9`), not a power loss. The default; other engines call it "no sync".
    #[default]
    Buffered,
    /// As `Buffered`, and a background thread begins a sync of the log within this time of the
    /// acknowledgement, or as soon as a sync that is under way then has ended. So a power loss
    /// takes only commits acknowledged within this time and that of a sync. The interval is the
    /// commit's own: other commits keep theirs.
    Periodic(Duration),
    /// The log was synced to the device: the write survives a power loss. Waiting threads share one
    /// sync.
    Sync,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::None => f.write_str("none"),
            Durability::Buffered => f.write_str("buffered"),
            Durability::Periodic(every) => write!(f, "periodic:{}", every.as_millis()),
            Durability::Sync => f.write_str("sync"),
        }
    }
}

impl FromStr for Durability {
    type Err = Error;

    fn from_str(text: &str) -> Result<Durability> {
        Ok(match text {
            "none" => Durability::None,
            "buffered" => Durability::Buffered,
            "sync" => Durability::Sync,
            _ => match text.strip_prefix("periodic:").and_then(|millis| millis.parse().ok()) {
                Some(millis) if millis > 0 => Durability::Periodic(Duration::from_millis(millis)),
                _ => {
                    let message =
                        format!("durability is none, buffered, periodic:MILLISECONDS or sync, not {text:?}");
                    return Err(Error::invalid_argument(message));
                }
            },
        })
    }
}

/// Settings of one write.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct WriteOptions {
    /// The durability of the write; `None` takes the default of the database.
    pub durability: Option<Durability>,
}

impl WriteOptions {
    /// Waits until the write survives a power loss.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// users.put_with("u1", "Ann", &sapwood::WriteOptions::sync())?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn sync() -> WriteOptions {
        WriteOptions { durability: Some(Durability::Sync) }
    }
}

/// Settings that most programs do not change: [`DbBuilder::advanced`](crate::DbBuilder::advanced)
/// takes a closure that changes some of them.
///
/// ```
/// use sapwood::{AdvancedOptions, Codec, Db};
///
/// # let folder = tempfile::tempdir().unwrap();
/// let db = Db::builder(folder.path().join("data"))
///     .advanced(|options| {
///         options.last_level_compression = Some(Codec::Lz4);
///         options.block_bytes = 16 << 10;
///     })
///     .open()?;
/// // As a literal. More fields may come: end it with `..AdvancedOptions::default()`.
/// let options = AdvancedOptions { block_bytes: 16 << 10, ..AdvancedOptions::default() };
/// # let _ = (db, options);
/// # Ok::<(), sapwood::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AdvancedOptions {
    /// Bytes of the buffer cache. By default the rest of `memory_budget`: see
    /// `DbBuilder::memory_budget`.
    pub cache_bytes: Option<usize>,
    /// Size at which a memtable is flushed, in bytes. By default a twelfth of `memory_budget`, 512
    /// KiB to 128 MiB.
    pub memtable_bytes: Option<usize>,
    /// Memtables at most, the active one included; when all are full, writers wait for a flush. At
    /// least 2.
    pub max_memtables: usize,
    /// Codec of level 0 and of the levels between it and the last.
    pub compression: Codec,
    /// Codec of the last level, which holds most of the data; `None` takes `compression`.
    pub last_level_compression: Option<Codec>,
    /// The filter that tables carry.
    pub filter: FilterKind,
    /// Bits per key of the filters in the last level. Filters of level 0 get six more, those
    /// between three more. 0: no filters.
    pub filter_bits_per_key: f32,
    /// Size of a data block, in bytes: 256 to 65,536. A larger value has a block of its own; those
    /// of up to 4 MiB are cached as others are.
    pub block_bytes: usize,
    /// The shape of the tree: see [`CompactionStyle`].
    pub compaction_style: CompactionStyle,
    /// Runs of level 0 that start a merge into level 1. A flush adds one run per keyspace with rows
    /// in the memtable.
    pub level0_runs: usize,
    /// Threads that compact. One keyspace is compacted by one of them at a time.
    pub background_threads: usize,
    /// Threads that share one compaction. They belong to a pool of their own.
    pub subcompactions: usize,
    /// Tables are cut at this size in bytes, or at `memory_budget` if that is less (but not below
    /// 16 MiB): a table that is being written takes memory in proportion to its size.
    pub target_file_bytes: u64,
    /// Maximum of tables and trees of indexes that are open at the same time; at least 1. By
    /// default, and together with all databases of the process, half of the descriptors that the
    /// process may have, or all but 1024 if that is more (`open` raises the soft limit to the hard
    /// one). Files beyond the maximum are opened when they are read, so with a low figure reads
    /// that miss the cache cost an open of the file; 64 is enough for any size. A few descriptors
    /// more are for log, MANIFEST and the files that are being written.
    pub max_open_files: Option<usize>,
    /// Size of a log segment, in bytes: a multiple of 4096, at least 64 KiB; or 0, the default. By
    /// default the first segment of a session has 8 KiB, and each further one four times as much,
    /// up to a size that suits the memtables, 256 KiB to 32 MiB. The log has at most 1024 segments
    /// at a time, so with small ones a memtable may be flushed before it is full.
    pub wal_segment_bytes: usize,
    /// Maps log segments into memory, so that a commit makes no system call. `false` writes with
    /// `pwrite`.
    pub wal_mapped: bool,
    /// Leaves compaction to `compact_range`.
    pub disable_auto_compactions: bool,
    /// After a second without writes, merges runs into the last level as far as that is worth its
    /// cost, and few runs among themselves.
    pub idle_compaction: bool,
    /// Files, clock, threads and randomness.
    pub env: Env,
}

impl Default for AdvancedOptions {
    fn default() -> AdvancedOptions {
        AdvancedOptions {
            cache_bytes: None,
            memtable_bytes: None,
            max_memtables: 3,
            compression: Codec::None,
            last_level_compression: None,
            filter: FilterKind::Blocked,
            filter_bits_per_key: 10.0,
            block_bytes: 4096,
            compaction_style: CompactionStyle::Hybrid,
            level0_runs: 8,
            background_threads: 1,
            subcompactions: 1,
            target_file_bytes: 64 << 20,
            max_open_files: None,
            wal_segment_bytes: 0,
            wal_mapped: true,
            disable_auto_compactions: false,
            idle_compaction: true,
            env: Env::os(),
        }
    }
}

impl AdvancedOptions {
    /// The size of a memtable and of the cache: the values that are set, or the shares of a
    /// `memory_budget` of so many bytes.
    pub(crate) fn divide(&self, budget: usize) -> (usize, usize) {
        let memtable_bytes = self.memtable_bytes.unwrap_or((budget / 12).clamp(512 << 10, 128 << 20));
        // One more than the maximum: the memory of a memtable is returned only when its last reader
        // has left.
        let memtables_bytes = self.max_memtables.saturating_add(1).saturating_mul(memtable_bytes);
        // A log segment stays mapped until all of it was flushed. Measured, here and for the work
        // of flushes and compactions (their buffers, and indexes and filters of tables before and
        // after): 100 million rows of 116 bytes with 2 GB.
        let log_bytes = self.max_memtables.saturating_mul(memtable_bytes) / 3 * 2;
        let work_bytes = budget / 7;
        let others = [memtables_bytes, log_bytes, work_bytes].into_iter().fold(0, usize::saturating_add);
        let cache_bytes = self.cache_bytes.unwrap_or(budget.saturating_sub(others).max(budget / 8));
        (memtable_bytes, cache_bytes)
    }

    /// The size of the first log segment, and of those that segments grow to, for memtables of so
    /// many bytes. Both are the value that is set, or by default: 8 KiB; and the largest power of
    /// two that is at most four fifths of a memtable, and more where 1024 segments would not hold
    /// all memtables.
    pub(crate) fn segment_bytes(&self, memtable_bytes: usize) -> (usize, usize) {
        if self.wal_segment_bytes > 0 {
            return (self.wal_segment_bytes, self.wal_segment_bytes);
        }
        let (least, most) = (256 << 10, 32 << 20);
        let suits = 1 << (memtable_bytes / 5 * 4).max(least).ilog2();
        let all = self.max_memtables.saturating_add(1).saturating_mul(memtable_bytes);
        let holds_all = (all / (SEGMENTS_MAX / 2)).min(1 << 30).next_power_of_two();
        (FIRST_SEGMENT_BYTES, usize::max(suits.min(most), holds_all))
    }

    /// Checks every range. The message names the valid values.
    pub(crate) fn validate(&self) -> Result<()> {
        let check = |good: bool, message: &str| match good {
            true => Ok(()),
            false => Err(Error::invalid_argument(message)),
        };
        self.compression.check_available()?;
        self.last_level_compression.map_or(Ok(()), Codec::check_available)?;
        check(self.max_memtables >= 2, "max_memtables must be at least 2: one to write to, one to flush")?;
        check(
            self.memtable_bytes.is_none_or(|bytes| (64 << 10..=16u64 << 30).contains(&(bytes as u64))),
            "memtable_bytes must be between 64 KiB and 16 GiB",
        )?;
        check(
            self.wal_segment_bytes == 0
                || self.wal_segment_bytes >= 64 << 10
                    && self.wal_segment_bytes.is_multiple_of(4096)
                    && self.wal_segment_bytes <= 1 << 30,
            "wal_segment_bytes must be a multiple of 4096 between 64 KiB and 1 GiB, or 0",
        )?;
        check(
            (256..=64 << 10).contains(&self.block_bytes),
            "block_bytes must be between 256 bytes and 64 KiB",
        )?;
        check(
            (0.0..=32.0).contains(&self.filter_bits_per_key),
            "filter_bits_per_key must be between 0 (no filter) and 32",
        )?;
        check(self.level0_runs >= 1, "level0_runs must be at least 1")?;
        check((1..=64).contains(&self.background_threads), "background_threads must be between 1 and 64")?;
        check((1..=64).contains(&self.subcompactions), "subcompactions must be between 1 and 64")?;
        check(self.max_open_files.is_none_or(|most| most >= 1), "max_open_files must be at least 1")?;
        check(self.target_file_bytes >= 4096, "target_file_bytes must be at least 4096")
    }
}

/// Settings as `open` found them.
pub(crate) struct DbOptions {
    pub(crate) memory_budget: usize,
    pub(crate) durability: Durability,
    pub(crate) read_only: bool,
    pub(crate) memtable_bytes: usize,
    /// Bytes of the first log segment, and of those that segments grow to.
    pub(crate) segment_bytes: (usize, usize),
    pub(crate) advanced: AdvancedOptions,
    /// Indexes named by the application: keyspace, name, options.
    pub(crate) indexes: Vec<(String, String, IndexOptions)>,
    pub(crate) env: Env,
}

impl DbOptions {
    /// Memory for reading the runs of a merge: half of the share of flushes and compactions.
    pub(crate) fn read_bytes(&self) -> u64 {
        self.memory_budget as u64 / 14
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durability_round_trips_through_text() {
        for durability in [
            Durability::None,
            Durability::Buffered,
            Durability::Periodic(Duration::from_millis(20)),
            Durability::Sync,
        ] {
            assert_eq!(durability.to_string().parse::<Durability>().unwrap(), durability);
        }
        assert!("periodic:0".parse::<Durability>().is_err() && "fsync".parse::<Durability>().is_err());
    }

    #[test]
    fn a_budget_is_divided_without_a_rest_and_pays_for_the_log() {
        let options = AdvancedOptions::default();
        for budget in [4 << 20, 64 << 20, 512 << 20, 2_000_000_000, 64 << 30, usize::MAX] {
            let (memtable, cache) = options.divide(budget);
            let (memtables, log) = (memtable * 4, memtable * 3 / 3 * 2);
            assert_eq!(options.max_memtables, 3);
            assert!((512 << 10..=128 << 20).contains(&memtable) && cache >= budget / 8, "{budget}");
            let all = (memtables + log).saturating_add(cache).saturating_add(budget / 7);
            // Below that, memtables are as small as they can be.
            assert!(budget < 8 << 20 || (budget - budget / 100..=budget).contains(&all), "{budget}: {all}");
        }
        let set = AdvancedOptions { memtable_bytes: Some(64 << 20), ..AdvancedOptions::default() };
        assert_eq!(set.divide(64 << 20), (64 << 20, 8 << 20));
        let set = AdvancedOptions { cache_bytes: Some(1), ..AdvancedOptions::default() };
        assert_eq!(set.divide(120 << 20), (10 << 20, 1));
    }

    #[test]
    fn segments_suit_the_memtables() {
        let options = AdvancedOptions::default();
        for (budget, bytes) in [
            (4 << 20, 256 << 10),
            (16 << 20, 1 << 20),
            (64 << 20, 4 << 20),
            (512 << 20, 32 << 20),
            (1 << 40, 32 << 20),
        ] {
            assert_eq!(options.segment_bytes(options.divide(budget).0), (8 << 10, bytes), "{budget}");
        }
        assert_eq!(options.segment_bytes(64 << 10).1, 256 << 10);
        // 64 GiB of memtables.
        assert_eq!(options.segment_bytes(16 << 30).1, 128 << 20);
        let set = AdvancedOptions { wal_segment_bytes: 64 << 10, ..options };
        assert_eq!(set.segment_bytes(16 << 30), (64 << 10, 64 << 10));
    }

    #[test]
    fn every_bad_setting_is_named() {
        let bad = |change: fn(&mut AdvancedOptions), name: &str| {
            let mut options = AdvancedOptions::default();
            change(&mut options);
            let message = options.validate().unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        };
        bad(|o| o.max_memtables = 1, "max_memtables");
        bad(|o| o.memtable_bytes = Some(1), "memtable_bytes");
        bad(|o| o.wal_segment_bytes = 100_000, "wal_segment_bytes");
        bad(|o| o.block_bytes = 0, "block_bytes");
        bad(|o| o.block_bytes = (64 << 10) + 1, "block_bytes");
        bad(|o| o.filter_bits_per_key = 99.0, "filter_bits_per_key");
        bad(|o| o.background_threads = 0, "background_threads");
        bad(|o| o.max_open_files = Some(0), "max_open_files");
        assert!(AdvancedOptions::default().validate().is_ok());
    }
}
