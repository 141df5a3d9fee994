//! LMDB through heed, with `MDB_WRITEMAP | MDB_MAPASYNC | MDB_NOMEMINIT`.
//!
//! `lmdb.h` says of `MDB_WRITEMAP`: "faster and uses fewer mallocs". With `MDB_MAPASYNC` flushes
//! are asynchronous: a commit is in the page cache when it returns, as with the other engines here.
//! `MDB_NOMEMINIT` omits zeroing, which it documents as a cost of writes. LMDB uses the page cache
//! instead of a cache of its own, so its memory has no limit.
use super::{Acknowledged, Direction, Engine, Info, NotOffered, Reader, Result};
use crate::settings::{Codec, Settings};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithoutTls};
use std::path::Path;

/// An open environment with its unnamed database.
pub struct Lmdb {
    env: Env<WithoutTls>,
    database: Database<Bytes, Bytes>,
}

impl Engine for Lmdb {
    const INFO: Info = Info {
        acknowledged: Acknowledged::ProcessCrash,
        settings: "WRITEMAP, MAPASYNC, NOMEMINIT; one transaction per write; page cache instead of a cache",
    };

    type Reader<'a> = LmdbReader<'a>;

    fn open(folder: &Path, settings: &Settings) -> Result<Lmdb> {
        if settings.codec != Codec::None {
            return Err(Box::new(NotOffered("LMDB does not compress")));
        }
        let folder = folder.join("db");
        std::fs::create_dir_all(&folder)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        // The file is sparse: only used pages take space.
        let size = (settings.rows * settings.row_bytes() * 8).max(1 << 30).next_multiple_of(1 << 20);
        options.map_size(size as usize);
        // SAFETY: no other process opens this folder while the environment is open.
        let env = unsafe {
            options.flags(EnvFlags::WRITE_MAP | EnvFlags::MAP_ASYNC | EnvFlags::NO_MEM_INIT);
            options.open(&folder)?
        };
        let mut transaction = env.write_txn()?;
        let database = env.create_database(&mut transaction, None)?;
        transaction.commit()?;
        Ok(Lmdb { env, database })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        self.database.put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.put(key, value)?;
        Ok(self.env.force_sync()?)
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in entries {
            self.database.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn reader(&self) -> Result<LmdbReader<'_>> {
        Ok(LmdbReader { lmdb: self, transaction: Some(self.env.read_txn()?) })
    }

    fn settle(&self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn close(self) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }

    fn version() -> String {
        let version = heed::lmdb_version();
        format!(
            "{}.{}.{} (heed {})",
            version.major,
            version.minor,
            version.patch,
            crate::versions::of("heed")
        )
    }
}

/// A read transaction, kept over many reads as LMDB recommends.
pub struct LmdbReader<'a> {
    lmdb: &'a Lmdb,
    /// Dropped before the next one begins: only then does that one see the latest state.
    transaction: Option<RoTxn<'a, WithoutTls>>,
}

impl<'a> LmdbReader<'a> {
    #[inline]
    fn transaction(&self) -> Result<&RoTxn<'a, WithoutTls>> {
        self.transaction.as_ref().ok_or_else(|| "no transaction could be begun".into())
    }
}

impl Reader for LmdbReader<'_> {
    fn refresh(&mut self) -> Result<()> {
        self.transaction = None;
        self.transaction = Some(self.lmdb.env.read_txn()?);
        Ok(())
    }

    #[inline]
    fn get<R>(&mut self, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.lmdb.database.get(self.transaction()?, key)?.map(with))
    }

    #[inline]
    fn seek(&mut self, key: &[u8], count: usize, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let range = (std::ops::Bound::Included(key), std::ops::Bound::Unbounded);
        let mut visited = 0;
        for entry in self.lmdb.database.range(self.transaction()?, &range)?.take(count) {
            let (key, value) = entry?;
            visit(key, value);
            visited += 1;
        }
        Ok(visited)
    }

    fn scan(&mut self, direction: Direction, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let transaction = self.transaction()?;
        let mut visited = 0;
        match direction {
            Direction::Forward => {
                for entry in self.lmdb.database.iter(transaction)? {
                    let (key, value) = entry?;
                    visit(key, value);
                    visited += 1;
                }
            }
            Direction::Backward => {
                for entry in self.lmdb.database.rev_iter(transaction)? {
                    let (key, value) = entry?;
                    visit(key, value);
                    visited += 1;
                }
            }
        }
        Ok(visited)
    }
}
