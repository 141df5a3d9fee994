//! Options for building and reading a table.
use sapwood_base::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

/// Compression of the blocks of a table. A block that would save less than an eighth is stored
/// uncompressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// No compression: the block on disk is the block in the cache.
    #[default]
    None,
    /// LZ4: cheap to write and to read.
    Lz4,
    /// Zstandard at this level, for levels of the tree that are written rarely. Requires the
    /// feature `zstd` (a default one), which requires a C compiler.
    Zstd(i32),
}

impl Codec {
    /// Checks whether this build has the codec.
    ///
    /// Errors: `Unsupported`, with the feature that is missing.
    pub fn check_available(self) -> Result<()> {
        match self {
            Codec::Zstd(_) if !cfg!(feature = "zstd") => Err(without_zstd()),
            _ => Ok(()),
        }
    }
}

#[cold]
pub(crate) fn without_zstd() -> Error {
    let message = "Zstandard is not part of this build: it needs the feature `zstd` of the crate sapwood";
    Error::new(ErrorKind::Unsupported, message)
}

/// `none`, `lz4`, `zstd:3`, which [`FromStr`] parses. There, `zstd` alone is level 3.
impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Codec::None => f.write_str("none"),
            Codec::Lz4 => f.write_str("lz4"),
            Codec::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

impl FromStr for Codec {
    type Err = Error;

    fn from_str(text: &str) -> Result<Codec> {
        let level = || text.strip_prefix("zstd:")?.parse().ok();
        match text {
            "none" => Ok(Codec::None),
            "lz4" => Ok(Codec::Lz4),
            "zstd" => Ok(Codec::Zstd(3)),
            _ => level().map(Codec::Zstd).ok_or_else(|| {
                Error::invalid_argument(format!("a codec is none, lz4, zstd or zstd:LEVEL, not {text:?}"))
            }),
        }
    }
}

/// The filter that rejects most absent keys without reading a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FilterKind {
    /// No filter: every lookup reads a block.
    None,
    /// A Bloom filter whose bits for one key share a cache line, so that a lookup costs one cache
    /// miss.
    ///
    /// The default: at 10 bits per key it lets about 1.0 % of absent keys pass (the standard one
    /// 0.8 %) and is several times faster.
    #[default]
    Blocked,
    /// The standard Bloom filter of the `bloomfilter` crate, which has the lower false-positive
    /// rate per bit.
    Standard,
}

/// Options for building a table.
#[derive(Clone, Debug)]
pub struct TableOptions {
    /// The largest raw length of a block of small entries, trailer included, in bytes; 256 to
    /// 65536. Blocks of entries above 256 bytes grow to hold about a dozen. Default 4096: one page,
    /// one cache frame.
    pub block_bytes: usize,
    /// The compression of data blocks. Default none.
    pub compression: Codec,
    /// The filter. Default blocked.
    pub filter: FilterKind,
    /// The size of the filter in bits per user key, clamped to 1 to 64. Default 10.
    pub filter_bits_per_key: f32,
    /// The number of bytes buffered per write. Default 256 KiB, which stays in the processor's
    /// cache and measured 3 % faster than 1 MiB.
    pub write_buffer_bytes: usize,
}

impl Default for TableOptions {
    fn default() -> TableOptions {
        TableOptions {
            block_bytes: 4096,
            compression: Codec::None,
            filter: FilterKind::Blocked,
            filter_bits_per_key: 10.0,
            write_buffer_bytes: 256 << 10,
        }
    }
}

/// Options of an iterator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadOptions {
    /// Whether blocks read from the file enter the cache like those of a lookup. If not, they may
    /// pass through it but do not displace others. Default true.
    pub fill_cache: bool,
    /// The maximum readahead of a sequential reader in bytes; 0 disables readahead. Default 512
    /// KiB.
    pub readahead_bytes: usize,
}

impl Default for ReadOptions {
    fn default() -> ReadOptions {
        ReadOptions { fill_cache: true, readahead_bytes: 512 << 10 }
    }
}
