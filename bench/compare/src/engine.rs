//! What a measurement asks of an engine, and the engines that can be asked.
//!
//! The loops of the workloads are generic over [`Engine`], so every engine is called without indirection. Each module
//! below holds one engine and its settings; every setting that is not the engine's default says where it is recommended.
//!
//! What an acknowledged write survives differs; [`Info::acknowledged`] says it, and the report repeats it. Nobody is
//! asked for less than its fast documented setting gives.
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

/// Anything that went wrong; the message is for people.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// A result of an engine or a measurement.
pub type Result<T> = std::result::Result<T, Failure>;

/// An open database with one table of keys.
pub trait Engine: Sized + Sync {
    /// What the report says about the engine.
    const INFO: Info;

    /// What one thread reads with.
    type Reader<'a>: Reader
    where
        Self: 'a;

    /// Opens the database in `folder`, which exists, and creates it if there is none.
    fn open(folder: &Path, settings: &Settings) -> Result<Self>;

    /// Writes one key; the log is in the page cache afterwards, or whatever [`Info::acknowledged`] says.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Writes one key and waits for the device.
    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Writes all entries at once.
    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()>;

    /// A reader that sees everything acknowledged so far.
    fn reader(&self) -> Result<Self::Reader<'_>>;

    /// Writes out what is only in memory, and waits until no work in the background is left.
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
/// Sapwood keeps one itself. By hand it is a second table whose keys are index key and primary key, with nothing behind
/// them: a write reads the old row, and one batch takes the old entry out, puts the new one in, and puts the row.
pub trait Indexed: Sync {
    /// Writes one row and its entry at once, in place of what the row had before.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;

    /// Calls `with` with key and value of every row with this index key; returns how many there were.
    fn lookup(&self, index_key: [u8; 8], with: &mut impl FnMut(&[u8], &[u8])) -> Result<u64>;

    /// Visits the index key and the primary key of all entries in order; returns how many there were.
    fn scan(&self, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64>;
}

/// The index of an engine that is not asked for one.
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

/// The key of an entry in a table that is an index by hand.
#[inline]
pub fn entry_key(into: &mut Vec<u8>, index_key: [u8; INDEX_KEY_BYTES], key: &[u8]) {
    into.clear();
    into.extend_from_slice(&index_key);
    into.extend_from_slice(key);
}

/// Reads of one thread.
pub trait Reader {
    /// Sees everything acknowledged until now. Readers that always do have nothing to do.
    fn refresh(&mut self) -> Result<()>;

    /// Calls `with` with the value of `key`.
    fn get<R>(&mut self, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>>;

    /// Visits at most `count` entries from `key` upwards; returns how many there were.
    fn seek(&mut self, key: &[u8], count: usize, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<usize>;

    /// Visits all entries; returns how many there were.
    fn scan(&mut self, direction: Direction, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64>;
}

/// The way of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the smallest key.
    Forward,
    /// From the largest key.
    Backward,
}

/// What the report says about an engine.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// What an acknowledged write of [`Engine::put`] survives.
    pub acknowledged: Acknowledged,
    /// The settings, in a few words.
    pub settings: &'static str,
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The end of the process: the log is in the page cache.
    ProcessCrash,
    /// Nothing: it is in the process's memory, and goes to the file within about half a second.
    HalfASecondLater,
    /// Nothing until the next explicit flush.
    ExplicitFlush,
}

impl Acknowledged {
    /// As the report says it.
    pub fn text(self) -> &'static str {
        match self {
            Acknowledged::ProcessCrash => "survives the process (page cache)",
            Acknowledged::HalfASecondLater => "in process memory, written within 0.5 s (weaker)",
            Acknowledged::ExplicitFlush => "in process memory until an explicit flush (weaker)",
        }
    }
}

/// The error of an operation that an engine does not have. The report shows it as such, not as a failure.
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

/// Something to do with an engine whose type is known only at run time.
pub trait WithEngine {
    /// What comes out.
    type Output;
    /// Does it.
    fn run<E: Engine>(self) -> Self::Output;
}

impl Name {
    /// All engines, built in or not: results may come from another build.
    pub const EVERY: [Name; 7] =
        [Name::Sapwood, Name::Rocksdb, Name::Fjall, Name::Lmdb, Name::Redb, Name::Sled, Name::Bftree];

    /// All that this program was built with.
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

    /// Reads a name; the error lists those there are.
    pub fn parse(text: &str) -> std::result::Result<Name, String> {
        let known: Vec<&str> = Name::ALL.iter().map(|name| name.id()).collect();
        Name::ALL.iter().copied().find(|name| name.id() == text).ok_or_else(|| {
            let hint = if text == "rocksdb" { " (build with --features rocksdb)" } else { "" };
            format!("'{text}' is no engine of this program{hint}; there are {}", known.join(", "))
        })
    }

    /// Does `what` with the engine of this name.
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
            Name::Rocksdb => unreachable!("`parse` does not give names of engines that are not built in"),
        }
    }
}
