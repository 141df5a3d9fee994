//! Settings of a keyspace, and their text form.
use crate::options::DbOptions;
use sapwood_base::{Error, Result};
use sapwood_compaction::{CompactionOptions, CompactionStyle};
use sapwood_sstable::{Codec, FilterKind};
use std::fmt;
use std::str::FromStr;

/// Settings of one keyspace. Unset fields are taken from the database.
///
/// Stored in the database as text, `key=value;…`, which `Display` prints and [`FromStr`] parses:
///
/// ```
/// use sapwood::{Codec, KeyspaceOptions};
///
/// let options: KeyspaceOptions = "compression=lz4;style=leveled".parse()?;
/// assert_eq!(options.compression, Some(Codec::Lz4));
/// assert_eq!(options.to_string(), "style=leveled;compression=lz4");
/// let options = KeyspaceOptions { block_bytes: Some(16 << 10), ..KeyspaceOptions::default() };
/// assert_eq!(options.to_string(), "block_bytes=16384");
/// # Ok::<(), sapwood::Error>(())
/// ```
///
/// More fields may come: end a literal with `..KeyspaceOptions::default()`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyspaceOptions {
    /// The shape of its tree: see [`CompactionStyle`].
    pub compaction_style: Option<CompactionStyle>,
    /// Codec of its tables, in all levels.
    pub compression: Option<Codec>,
    /// Bits per key of its filters in the last level, as in
    /// [`crate::AdvancedOptions::filter_bits_per_key`]; 0: no filters.
    pub filter_bits_per_key: Option<f32>,
    /// Size of its data blocks, in bytes.
    pub block_bytes: Option<usize>,
}

impl fmt::Display for KeyspaceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(style) = self.compaction_style {
            parts.push(format!("style={style}"));
        }
        if let Some(codec) = self.compression {
            parts.push(format!("compression={codec}"));
        }
        if let Some(bits) = self.filter_bits_per_key {
            parts.push(format!("filter_bits_per_key={bits}"));
        }
        if let Some(bytes) = self.block_bytes {
            parts.push(format!("block_bytes={bytes}"));
        }
        f.write_str(&parts.join(";"))
    }
}

impl KeyspaceOptions {
    /// The text form, which `Display` prints as well.
    #[doc(hidden)]
    pub fn to_text(&self) -> String {
        self.to_string()
    }

    /// Whether this build supports the settings.
    pub(crate) fn check_available(&self) -> Result<()> {
        self.compression.map_or(Ok(()), Codec::check_available)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.filter_bits_per_key.is_some_and(|bits| !(0.0..=32.0).contains(&bits)) {
            return Err(Error::invalid_argument("filter_bits_per_key must be between 0 (no filter) and 32"));
        }
        if self.block_bytes.is_some_and(|bytes| !(256..=64 << 10).contains(&bytes)) {
            return Err(Error::invalid_argument("block_bytes must be between 256 bytes and 64 KiB"));
        }
        if let Some(Codec::Zstd(level)) = self.compression
            && !(-131_072..=22).contains(&level)
        {
            return Err(Error::invalid_argument("a level of zstd is between -131072 and 22"));
        }
        Ok(())
    }

    /// The options of compactions, with unset ones taken from the database.
    pub(crate) fn compaction(&self, options: &DbOptions) -> CompactionOptions {
        let (database, memtable_bytes) = (&options.advanced, options.memtable_bytes as u64);
        // While a table is written, its index and the hashes of its keys are in memory: a tenth of
        // it where rows are small.
        let target_file_bytes =
            database.target_file_bytes.min(SMALL_FILE_BYTES.max(options.memory_budget as u64));
        let defaults = CompactionOptions::default();
        let codec = self.compression.unwrap_or(database.compression);
        let mut table = defaults.table.clone();
        table.block_bytes = self.block_bytes.unwrap_or(database.block_bytes);
        table.compression = codec;
        table.filter_bits_per_key = self.filter_bits_per_key.unwrap_or(database.filter_bits_per_key);
        table.filter = match table.filter_bits_per_key > 0.0 {
            true => database.filter,
            false => FilterKind::None,
        };
        CompactionOptions {
            style: self.compaction_style.unwrap_or(database.compaction_style),
            level0_runs: database.level0_runs,
            level_base_bytes: memtable_bytes.saturating_mul(4),
            target_file_bytes,
            slice_bytes: slice_bytes(target_file_bytes, memtable_bytes),
            read_bytes: options.read_bytes(),
            table,
            last_level_compression: match self.compression {
                Some(codec) => codec,
                None => database.last_level_compression.unwrap_or(codec),
            },
            ..defaults
        }
    }
}

/// No budget is so small that longer tables do not fit.
const SMALL_FILE_BYTES: u64 = 16 << 20;

/// The size of the slices of a compaction. Between two of them a full level 0 goes first, so a
/// slice takes no longer than a few memtables to fill. Large slices cost fewer edits of the
/// MANIFEST.
fn slice_bytes(target_file_bytes: u64, memtable_bytes: u64) -> u64 {
    memtable_bytes.saturating_mul(32).max(32 << 20).min(target_file_bytes.saturating_mul(4))
}

impl FromStr for KeyspaceOptions {
    type Err = Error;

    fn from_str(text: &str) -> Result<KeyspaceOptions> {
        let mut options = KeyspaceOptions::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').ok_or_else(|| {
                Error::invalid_argument(format!("keyspace options are key=value;…, and {part:?} has no '='"))
            })?;
            let bad = || Error::invalid_argument(format!("keyspace option {key} cannot be {value:?}"));
            match (key, value) {
                ("style", _) => options.compaction_style = Some(value.parse().map_err(|_| bad())?),
                ("compression", _) => options.compression = Some(value.parse().map_err(|_| bad())?),
                ("filter_bits_per_key", _) => {
                    options.filter_bits_per_key = Some(value.parse().map_err(|_| bad())?)
                }
                ("block_bytes", _) => options.block_bytes = Some(value.parse().map_err(|_| bad())?),
                _ => return Err(Error::invalid_argument(format!("there is no keyspace option {key:?}"))),
            }
        }
        options.validate()?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_round_trip_through_text() {
        let options = KeyspaceOptions {
            compaction_style: Some(CompactionStyle::Leveled),
            compression: Some(Codec::Zstd(5)),
            filter_bits_per_key: Some(7.5),
            block_bytes: Some(16384),
        };
        assert_eq!(options.to_text().parse::<KeyspaceOptions>().unwrap(), options);
        assert_eq!("".parse::<KeyspaceOptions>().unwrap(), KeyspaceOptions::default());
        for bad in ["compression=gzip", "style", "colour=red", "block_bytes=7"] {
            assert!(bad.parse::<KeyspaceOptions>().is_err(), "{bad}");
        }
    }
}
