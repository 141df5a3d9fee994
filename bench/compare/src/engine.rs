//! The interface between workloads and engines, and the list of engines.
//!
//! The loops of the workloads are generic over [`Engine`], so that calls have no indirection. Each
//! module below holds one engine and its settings. Every setting that differs from the engine's
//! default names the source that recommends it.
//!
//! The durability of an acknowledged write differs between engines: [`Info::acknowledged`] states
//! it, and the report repeats it. Each engine runs with its fast documented setting.
mod sapwood;
mod fjall;
mod lmdb;
mod redb;
mod sled;
mod bf_tree;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use crate::settings::Settings;
use std::fmt;
use std::path::Path;

/// Any error; the message is for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// A result of an engine or a measurement.
pub type Result<T> = std::result::Result<T, Failure>;

/// An open database with one table of keys.
pub trait Engine: Sized + Sync {
    /// The engine's description in the report.
    const INFO: Info;

    /// The state of one reading thread.
    type Reader<'a>: Reader
    where
        Self: 'a;

    /// Opens the database in the existing `folder`; creates it if there is none.
    fn open(folder: &Path, settings: &Settings) -> Result<Self>;

    /// Writes one key. On return the log is in the page cache, or in the state of
    /// [`Info::acknowledged`].
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Writes one key and waits for the device.
    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Writes all entries in one batch.
    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;

    /// A reader of the state that includes all acknowledged writes.
    fn reader(&self) -> Result<Self::Reader<'_>>;

    /// Flushes memory and waits for the end of all background work.
    fn settle(&self) -> Result<()>;

    /// Closes the database so that it can be opened again.
    fn close(self) -> Result<()>;

    /// The version in use.
    fn version() -> String;

    /// The index of a database that was opened with [`Settings::indexed`].
    ///
    /// Errors: [`NotOffered`] by engines whose index is not compared.
    fn indexed(&self) -> Result<&impl Indexed> {
        Err::<&NoIndex, _>(
            NotOffered("only Sapwood has indexes; the way by hand is compared on RocksDB and fjall").into(),
        )
    }
}

/// Rows with a secondary index on [`index_key_of`](crate::stream::index_key_of) their values.
///
/// Sapwood maintains one itself. For the others the index is a second table, whose keys are index
/// key and primary key, with empty values: a write reads the old row, and one batch removes the old
/// entry, adds the new one, and puts the row.
pub trait Indexed: Sync {
    /// Atomically writes a row and its entry, and removes the entry of the old row.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Calls `with` with key and value of every row with this index key; returns their number.
    fn lookup(&self, index_key: [u8; 8], with: &mut impl FnMut(&[u8], &[u8])) -> Result<u64>;

    /// Visits the index key and the primary key of all entries in order; returns their number.
    fn scan(&self, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64>;
}

/// The index of an engine without one.
pub enum NoIndex {}

impl Indexed for NoIndex {
    fn put(&self, _: &[u8], _: &[u8]) -> Result<()> {
        match *self {}
    }

    fn lookup(&self, _: [u8; 8], _: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        match *self {}
    }

    fn scan(&self, _: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        match *self {}
    }
}

/// Bytes of an index key.
pub const INDEX_KEY_BYTES: usize = 8;

/// Builds the key of an entry in a table that serves as an index.
#[inline]
pub fn entry_key(into: &mut Vec<u8>, index_key: [u8; INDEX_KEY_BYTES], key: &[u8]) {
    into.clear();
    into.extend_from_slice(&index_key);
    into.extend_from_slice(key);
}

/// Reads of one thread.
pub trait Reader {
    /// Advances the reader to the latest state. No effect on readers that always read it.
    fn refresh(&mut self) -> Result<()>;

    /// Calls `with` with the value of `key`.
    fn get<R>(&mut self, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>>;

    /// Visits at most `count` entries from `key` upwards; returns their number.
    fn seek(&mut self, key: &[u8], count: usize, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<usize>;

    /// Visits all entries; returns their number.
    fn scan(&mut self, direction: Direction, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64>;
}

/// The direction of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key.
    Forward,
    /// From the largest key.
    Backward,
}

/// The description of an engine in the report.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// The durability of an acknowledged write of [`Engine::put`].
    pub acknowledged: Acknowledged,
    /// The settings, in a few words.
    pub settings: &'static str,
}

/// The durability of an acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// It survives the end of the process: the log is in the page cache.
    ProcessCrash,
    /// None: the write is in the process's memory and reaches the file within about half a second.
    HalfASecondLater,
    /// None until the next explicit flush.
    ExplicitFlush,
}

impl Acknowledged {
    /// The text in the report.
    pub fn text(self) -> &'static str {
        match self {
            Acknowledged::ProcessCrash => "survives the process (page cache)",
            Acknowledged::HalfASecondLater => "in process memory, written within 0.5 s (weaker)",
            Acknowledged::ExplicitFlush => "in process memory until an explicit flush (weaker)",
        }
    }
}

/// The error of an operation that an engine does not have. The report shows it as not offered, not
/// as a failure.
#[derive(Debug)]
pub struct NotOffered(pub &'static str);

impl fmt::Display for NotOffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not offered: {}", self.0)
    }
}

impl std::error::Error for NotOffered {}

/// The engines, in the order of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// This project.
    Sapwood,
    /// RocksDB, through its C interface.
    Rocksdb,
    /// fjall 3.
    Fjall,
    /// LMDB, through heed.
    Lmdb,
    /// redb 4.
    Redb,
    /// sled 0.34.
    Sled,
    /// bf-tree 0.5.
    Bftree,
}

/// A generic operation on an engine whose type is known only at run time.
pub trait WithEngine {
    /// Its result.
    type Output;
    /// Runs it on the engine `E`.
    fn run<E: Engine>(self) -> Self::Output;
}

impl Name {
    /// All engines, built in or not: results may come from another build.
    pub const EVERY: [Name; 7] =
        [Name::Sapwood, Name::Rocksdb, Name::Fjall, Name::Lmdb, Name::Redb, Name::Sled, Name::Bftree];

    /// The engines of this build.
    pub const ALL: &'static [Name] = &[
        Name::Sapwood,
        #[cfg(feature = "rocksdb")]
        Name::Rocksdb,
        Name::Fjall,
        Name::Lmdb,
        Name::Redb,
        Name::Sled,
        Name::Bftree,
    ];

    /// The name on the command line and in files.
    pub fn id(self) -> &'static str {
        match self {
            Name::Sapwood => "sapwood",
            Name::Rocksdb => "rocksdb",
            Name::Fjall => "fjall",
            Name::Lmdb => "lmdb",
            Name::Redb => "redb",
            Name::Sled => "sled",
            Name::Bftree => "bftree",
        }
    }

    /// The name in tables and plots.
    pub fn title(self) -> &'static str {
        match self {
            Name::Sapwood => "Sapwood",
            Name::Rocksdb => "RocksDB",
            Name::Fjall => "fjall",
            Name::Lmdb => "LMDB",
            Name::Redb => "redb",
            Name::Sled => "sled",
            Name::Bftree => "bf-tree",
        }
    }

    /// Parses a name; the error lists the known names.
    pub fn parse(text: &str) -> std::result::Result<Name, String> {
        let known: Vec<&str> = Name::ALL.iter().map(|name| name.id()).collect();
        Name::ALL.iter().copied().find(|name| name.id() == text).ok_or_else(|| {
            let hint = if text == "rocksdb" { " (build with --features rocksdb)" } else { "" };
            format!("'{text}' is no engine of this program{hint}; there are {}", known.join(", "))
        })
    }

    /// Runs `what` on the engine of this name.
    pub fn with<W: WithEngine>(self, what: W) -> W::Output {
        match self {
            Name::Sapwood => what.run::<sapwood::Sapwood>(),
            Name::Fjall => what.run::<fjall::Fjall>(),
            Name::Lmdb => what.run::<lmdb::Lmdb>(),
            Name::Redb => what.run::<redb::Redb>(),
            Name::Sled => what.run::<sled::Sled>(),
            Name::Bftree => what.run::<bf_tree::BfTree>(),
            #[cfg(feature = "rocksdb")]
            Name::Rocksdb => what.run::<rocksdb::RocksDb>(),
            #[cfg(not(feature = "rocksdb"))]
            Name::Rocksdb => unreachable!("`parse` returns only names of engines that are built in"),
        }
    }
}
