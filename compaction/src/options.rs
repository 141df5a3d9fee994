//! The knobs of shape and size.
use sapwood_base::{Error, Result};
use sapwood_sstable::{Codec, TableOptions};
use std::fmt;
use std::str::FromStr;

/// The level of the oldest data.
pub const LAST_LEVEL: u8 = 6;
/// The level in which the hybrid shape gathers merged runs before they enter the last one.
pub const TIER_LEVEL: u8 = 5;

/// The shape of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CompactionStyle {
    /// Lazy leveling: several runs above one leveled last level. Fewest bytes written; the default.
    #[default]
    Hybrid,
    /// One run per level. Fewest runs to read; two to three times the bytes written.
    Leveled,
}

/// `hybrid`, `leveled`, which [`FromStr`] reads.
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

/// The knobs of shape and size of one keyspace.
#[derive(Clone, Debug)]
pub struct CompactionOptions {
    /// The shape of the tree.
    pub style: CompactionStyle,
    /// Runs in level 0 that start a compaction.
    pub level0_runs: usize,
    /// Runs in the tier level that start a compaction ([`CompactionStyle::Hybrid`]).
    pub tier_runs: usize,
    /// Size ratio of neighbouring levels ([`CompactionStyle::Leveled`]).
    pub level_multiplier: u64,
    /// Size of the first level below level 0 ([`CompactionStyle::Leveled`]), in bytes.
    pub level_base_bytes: u64,
    /// Tables are cut at this size, in bytes.
    pub target_file_bytes: u64,
    /// A job is installed in slices of about this many input bytes, so that it needs little extra space and a pause
    /// or a shutdown waits for at most one slice.
    pub slice_bytes: u64,
    /// Format of tables; codec and filter bits are adapted per level.
    pub table: TableOptions,
    /// The codec of the last level.
    pub last_level_codec: Codec,
    /// Whether something older lies below all runs, as the tree of an index does: then tombstones are never dropped.
    pub has_base: bool,
}

impl Default for CompactionOptions {
    fn default() -> CompactionOptions {
        CompactionOptions {
            style: CompactionStyle::Hybrid,
            level0_runs: 8,
            tier_runs: 4,
            level_multiplier: 10,
            level_base_bytes: 256 << 20,
            target_file_bytes: 64 << 20,
            slice_bytes: 256 << 20,
            table: TableOptions::default(),
            last_level_codec: Codec::None,
            has_base: false,
        }
    }
}

/// A table below one part in so many of the size at which tables are cut is small.
const SMALL_SHARE: u64 = 64;

impl CompactionOptions {
    /// Whether a table of so many bytes costs more as a file than its bytes cost: what touches it merges it with its
    /// neighbours instead of moving it.
    pub fn is_small(&self, bytes: u64) -> bool {
        bytes < self.target_file_bytes / SMALL_SHARE
    }

    /// The options of tables written to `level`.
    ///
    /// Filters of upper levels get more bits: they are small, every lookup passes them, and their false positives
    /// add up (Monkey; Dayan, Athanassoulis, Idreos, SIGMOD 2017).
    pub fn table_options(&self, level: u8) -> TableOptions {
        let mut table = self.table.clone();
        if level == LAST_LEVEL {
            table.codec = self.last_level_codec;
        } else if table.filter_bits_per_key > 0.0 {
            table.filter_bits_per_key += if level == 0 { 6.0 } else { 3.0 };
        }
        table
    }
}
