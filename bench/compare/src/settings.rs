//! The sizes of a comparison, equal for all engines.
use serde::{Deserialize, Serialize};

/// The settings that every engine receives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Size of the key space: keys are drawn from so many numbers.
    pub rows: u64,
    /// Bytes of a key.
    pub key_bytes: usize,
    /// Bytes of a value, at least 16.
    pub value_bytes: usize,
    /// Bytes of the engine's own cache. LMDB has none: it uses the page cache, without a limit.
    pub cache_bytes: usize,
    /// Bytes of one memtable, for engines that have them.
    pub memtable_bytes: usize,
    /// Maximum number of memtables.
    pub memtables: usize,
    /// Background threads, for engines with such a setting.
    pub background_threads: usize,
    /// The codec of data blocks.
    pub codec: Codec,
    /// Whether the rows have a secondary index: see [`crate::engine::Indexed`].
    #[serde(default)]
    pub indexed: bool,
    /// Limit of the measured part of a fill, in seconds; the rest is written in batches.
    pub fill_seconds: f64,
    /// Limit of every other workload in seconds; `rows` operations are the other limit.
    pub seconds: f64,
}

/// The codec of data blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// No compression.
    None,
    /// lz4, for engines that have it.
    Lz4,
}

impl Default for Settings {
    /// The data of the standard comparison: 3 million rows of 16 and 100 bytes, 512 MiB of cache.
    fn default() -> Settings {
        Settings {
            rows: 3_000_000,
            key_bytes: 16,
            value_bytes: 100,
            cache_bytes: 512 << 20,
            memtable_bytes: 64 << 20,
            memtables: 4,
            background_threads: 2,
            codec: Codec::None,
            indexed: false,
            fill_seconds: 15.0,
            seconds: 1.0,
        }
    }
}

impl Settings {
    /// Bytes of one row, as the user counts them.
    pub fn row_bytes(&self) -> u64 {
        (self.key_bytes + self.value_bytes) as u64
    }

    /// The settings as the report prints them.
    pub fn describe(&self) -> String {
        let mebibytes = |bytes: usize| bytes >> 20;
        format!(
            "{} rows of {} + {} bytes, {} MiB of cache, {} memtables of {} MiB, {} background threads, {}",
            grouped(self.rows),
            self.key_bytes,
            self.value_bytes,
            mebibytes(self.cache_bytes),
            self.memtables,
            mebibytes(self.memtable_bytes),
            self.background_threads,
            match self.codec {
                Codec::None => "no compression",
                Codec::Lz4 => "lz4",
            }
        )
    }
}

/// A number with its digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(
            ["7", "1 234", "12 345 678"],
            [7, 1_234, 12_345_678].map(grouped).each_ref().map(String::as_str)
        );
    }

    #[test]
    fn settings_survive_the_way_to_another_process() {
        let settings = Settings { codec: Codec::Lz4, ..Settings::default() };
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        assert!(settings.describe().starts_with("3 000 000 rows of 16 + 100 bytes, 512 MiB of cache"));
    }
}
