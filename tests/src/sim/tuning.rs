//! One set of settings of a database, small enough that little data exercises every mechanism.
use crate::sim::draw::Draw;
use sapwood::{Codec, CompactionStyle, Db, DbBuilder, Env, FilterKind, KeyspaceOptions};
use std::fmt;
use std::path::Path;

/// One set of settings: every option of [`sapwood::AdvancedOptions`] that may change between
/// sessions.
#[derive(Clone, PartialEq)]
pub struct Tuning {
    /// See `AdvancedOptions`, like all fields below.
    pub memtable_bytes: usize,
    /// The most memtables.
    pub max_memtables: usize,
    /// Bytes of cache.
    pub cache_bytes: usize,
    /// Bytes of a segment.
    pub wal_segment_bytes: usize,
    /// Whether segments are mapped.
    pub wal_mapped: bool,
    /// Bytes of a table.
    pub target_file_bytes: u64,
    /// Bytes of a block.
    pub block_bytes: usize,
    /// Runs of level 0.
    pub level0_runs: usize,
    /// The shape of trees.
    pub style: CompactionStyle,
    /// Codec of upper levels.
    pub compression: Codec,
    /// Codec of the last level.
    pub last_level_compression: Option<Codec>,
    /// The filter.
    pub filter: FilterKind,
    /// Bits of the filter per key.
    pub filter_bits_per_key: f32,
    /// Whether idle time is used.
    pub idle_compaction: bool,
    /// Whether only `compact_range` compacts.
    pub disable_auto_compactions: bool,
    /// The options of new keyspaces.
    pub keyspace: KeyspaceOptions,
}

impl Tuning {
    /// The smallest value of everything that has a size; otherwise the defaults.
    pub fn standard() -> Tuning {
        Tuning {
            memtable_bytes: 64 << 10,
            max_memtables: 3,
            cache_bytes: 256 << 10,
            wal_segment_bytes: 64 << 10,
            wal_mapped: true,
            target_file_bytes: 16 << 10,
            block_bytes: 512,
            level0_runs: 3,
            style: CompactionStyle::Hybrid,
            compression: Codec::None,
            last_level_compression: None,
            filter: FilterKind::Blocked,
            filter_bits_per_key: 10.0,
            idle_compaction: true,
            disable_auto_compactions: false,
            keyspace: KeyspaceOptions::default(),
        }
    }

    /// Any settings that an open accepts, of sizes that fit on a small machine.
    pub fn draw(draw: &mut impl Draw) -> Tuning {
        let mut tuning = Tuning::standard();
        // `least` times a power of two, at most 2^`doublings`.
        let mut size = |least: usize, doublings: u32| least << draw.below(doublings + 1);
        tuning.memtable_bytes = size(64 << 10, 3);
        tuning.cache_bytes = size(64 << 10, 5);
        // The longest are those of default settings, which begin short.
        tuning.wal_segment_bytes = match size(64 << 10, 2) {
            bytes if bytes < 256 << 10 => bytes,
            _ => 0,
        };
        tuning.target_file_bytes = size(4 << 10, 6) as u64;
        tuning.block_bytes = size(256, 8);
        if draw.one_in(4) && tuning.wal_segment_bytes > 0 {
            tuning.wal_segment_bytes += 4096 * (1 + draw.below(7) as usize);
        }
        if draw.one_in(6) {
            tuning.cache_bytes = 0;
        }
        tuning.wal_mapped = !draw.one_in(3);
        tuning.max_memtables = 2 + draw.below(3) as usize;
        tuning.level0_runs = 1 + draw.below(8) as usize;
        tuning.style = *draw.pick(&[CompactionStyle::Hybrid, CompactionStyle::Leveled]);
        let codecs = [Codec::None, Codec::Lz4, Codec::Zstd(1), Codec::Zstd(9)];
        tuning.compression = *draw.pick(&codecs);
        tuning.last_level_compression = (!draw.one_in(3)).then(|| *draw.pick(&codecs));
        tuning.filter = *draw.pick(&[FilterKind::None, FilterKind::Blocked, FilterKind::Standard]);
        tuning.filter_bits_per_key = *draw.pick(&[0.0, 1.0, 2.5, 10.0, 20.0, 32.0]);
        tuning.idle_compaction = !draw.one_in(3);
        tuning.disable_auto_compactions = draw.one_in(8);
        tuning.keyspace = KeyspaceOptions {
            compaction_style: draw
                .one_in(4)
                .then(|| *draw.pick(&[CompactionStyle::Hybrid, CompactionStyle::Leveled])),
            compression: draw.one_in(4).then(|| *draw.pick(&codecs)),
            filter_bits_per_key: draw.one_in(4).then(|| *draw.pick(&[0.0, 4.0, 16.0])),
            block_bytes: draw.one_in(4).then(|| 256 << draw.below(8)),
        };
        tuning
    }

    /// The builder of the database in `path` with these settings.
    pub fn builder(&self, path: impl AsRef<Path>, env: &Env) -> DbBuilder {
        Db::builder(path).memory_budget(self.memory_budget()).advanced(|options| {
            options.memtable_bytes = Some(self.memtable_bytes);
            options.max_memtables = self.max_memtables;
            options.cache_bytes = Some(self.cache_bytes);
            options.wal_segment_bytes = self.wal_segment_bytes;
            options.wal_mapped = self.wal_mapped;
            options.target_file_bytes = self.target_file_bytes;
            options.block_bytes = self.block_bytes;
            options.level0_runs = self.level0_runs;
            options.compaction_style = self.style;
            options.compression = self.compression;
            options.last_level_compression = self.last_level_compression;
            options.filter = self.filter;
            options.filter_bits_per_key = self.filter_bits_per_key;
            options.idle_compaction = self.idle_compaction;
            options.disable_auto_compactions = self.disable_auto_compactions;
            options.env = env.clone();
        })
    }

    /// The budget that memtables and cache need with these settings, in bytes.
    pub fn memory_budget(&self) -> usize {
        (self.max_memtables * self.memtable_bytes + self.cache_bytes).max(4 << 20)
    }
}

impl fmt::Display for Tuning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "memtable {} x {}, cache {}, segment {}, mapped {}, file {}, block {}, level0 {}, {:?}, {:?}/{:?}, \
             {:?} {} bits, idle {}, auto {}, keyspaces {:?}",
            self.memtable_bytes,
            self.max_memtables,
            self.cache_bytes,
            self.wal_segment_bytes,
            self.wal_mapped,
            self.target_file_bytes,
            self.block_bytes,
            self.level0_runs,
            self.style,
            self.compression,
            self.last_level_compression,
            self.filter,
            self.filter_bits_per_key,
            self.idle_compaction,
            !self.disable_auto_compactions,
            self.keyspace.to_text()
        )
    }
}
