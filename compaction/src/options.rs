//! Options for the shape and sizes of the tree.
use sapwood_base::{Error, Result};
use sapwood_sstable::{Codec, TableOptions};
use std::fmt;
use std::str::FromStr;

/// The level of the oldest data.
pub const LAST_LEVEL: u8 = 6;
/// The first of the levels in which the hybrid shape collects merged runs before they enter the
/// last level.
pub const FIRST_TIER: u8 = 1;
/// The last of them.
pub const LAST_TIER: u8 = LAST_LEVEL - 1;

/// The shape of the tree of one keyspace.
///
/// | level | `Hybrid` | `Leveled` |
/// |---|---|---|
/// | 0 | runs as they are flushed, newest first; merged at `level0_runs` | the same |
/// | 1 to 5 | tiers of up to six runs; a full one becomes one run of the next | one run each, every level ten times as large as the one above |
/// | 6, the last | one run | one run |
///
/// Only as many of the levels 1 to 5 are used as the data needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CompactionStyle {
    /// Lazy leveling: tiers of several runs above one run in the last level. Each byte is written
    /// once per tier, and into the last level when enough data or garbage waits above it. Writes
    /// the fewest bytes; the default.
    #[default]
    Hybrid,
    /// One run per level. The fewest runs to read, at two to three times the bytes written.
    Leveled,
}

/// `hybrid`, `leveled`, which [`FromStr`] parses.
impl fmt::Display for CompactionStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CompactionStyle::Hybrid => "hybrid",
            CompactionStyle::Leveled => "leveled",
        })
    }
}

impl FromStr for CompactionStyle {
    type Err = Error;

    fn from_str(text: &str) -> Result<CompactionStyle> {
        match text {
            "hybrid" => Ok(CompactionStyle::Hybrid),
            "leveled" => Ok(CompactionStyle::Leveled),
            _ => Err(Error::invalid_argument(format!("a style is hybrid or leveled, not {text:?}"))),
        }
    }
}

/// Options for the shape and sizes of one keyspace.
#[derive(Clone, Debug)]
pub struct CompactionOptions {
    /// The shape of the tree.
    pub style: CompactionStyle,
    /// The number of runs in level 0 that triggers a merge into the first tier or level.
    pub level0_runs: usize,
    /// The number of runs in a tier that triggers a merge into the next tier or the last level
    /// ([`CompactionStyle::Hybrid`]).
    pub tier_runs: usize,
    /// Size ratio of neighbouring levels ([`CompactionStyle::Leveled`]).
    pub level_multiplier: u64,
    /// Size of the first level below level 0 ([`CompactionStyle::Leveled`]), in bytes.
    pub level_base_bytes: u64,
    /// The size at which tables are cut, in bytes.
    pub target_file_bytes: u64,
    /// The approximate size of the slices in which a job is installed, in bytes of input. It bounds
    /// the extra space, and a pause or a shutdown waits for at most one slice.
    pub slice_bytes: u64,
    /// The memory in bytes for reading the runs of a merge. Each run has an equal part of it, but
    /// at least a few blocks.
    pub read_bytes: u64,
    /// Table options. Codec and filter bits are adapted per level.
    pub table: TableOptions,
    /// The codec of the last level.
    pub last_level_compression: Codec,
    /// Whether older data lies below all runs, such as the tree of an index. If so, tombstones are
    /// never dropped.
    pub has_base: bool,
}

impl Default for CompactionOptions {
    fn default() -> CompactionOptions {
        CompactionOptions {
            style: CompactionStyle::Hybrid,
            level0_runs: 8,
            tier_runs: 6,
            level_multiplier: 10,
            level_base_bytes: 256 << 20,
            target_file_bytes: 64 << 20,
            slice_bytes: 256 << 20,
            read_bytes: 64 << 20,
            table: TableOptions::default(),
            last_level_compression: Codec::None,
            has_base: false,
        }
    }
}

/// A table is small if it is below this fraction (one in `SMALL_SHARE`) of the size at which tables
/// are cut.
const SMALL_SHARE: u64 = 64;

impl CompactionOptions {
    /// Whether a table of this size costs more as a file than by its bytes. A compaction that
    /// touches such a table merges it with its neighbours instead of moving it.
    pub fn is_small(&self, bytes: u64) -> bool {
        bytes < self.target_file_bytes / SMALL_SHARE
    }

    /// The options of tables written to `level`.
    ///
    /// Filters of upper levels get more bits: they are small, every lookup consults them, and their
    /// false positives add up (Monkey; Dayan, Athanassoulis, Idreos, SIGMOD 2017).
    pub fn table_options(&self, level: u8) -> TableOptions {
        let mut table = self.table.clone();
        if level == LAST_LEVEL {
            table.compression = self.last_level_compression;
        } else if table.filter_bits_per_key > 0.0 {
            table.filter_bits_per_key += if level == 0 { 6.0 } else { 3.0 };
        }
        table
    }
}
