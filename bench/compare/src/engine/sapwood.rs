//! Sapwood itself.
use super::{Acknowledged, Direction, Engine, Indexed, Info, Reader, Result};
use crate::settings::{self, Settings};
use crate::stream::index_key_of;
use sapwood::{Db, Durability, Emit, Index, IndexOptions, Keyspace, WriteOptions};
use std::path::Path;

/// An open database.
pub struct Sapwood {
    db: Db,
    keyspace: Keyspace,
    index: Option<Index>,
}

impl Engine for Sapwood {
    const INFO: Info = Info {
        acknowledged: Acknowledged::ProcessCrash,
        settings: "defaults, but for the sizes all engines share",
    };

    type Reader<'a> = &'a Sapwood;

    fn open(folder: &Path, settings: &Settings) -> Result<Sapwood> {
        let parts = settings.cache_bytes + settings.memtables * settings.memtable_bytes;
        let codec = match settings.codec {
            settings::Codec::None => sapwood::Codec::None,
            settings::Codec::Lz4 => sapwood::Codec::Lz4,
        };
        let db = Db::builder(folder.join("db"))
            // A quarter more, and 64 MiB, for the log, the tables' indexes and the scratch of
            // compactions.
            .memory_budget(parts + parts / 4 + (64 << 20))
            .advanced(|advanced| {
                advanced.cache_bytes = Some(settings.cache_bytes);
                advanced.memtable_bytes = Some(settings.memtable_bytes);
                advanced.max_memtables = settings.memtables;
                // One of the threads is for flushes.
                advanced.background_threads = settings.background_threads.saturating_sub(1).max(1);
                advanced.compression = codec;
            })
            .open()?;
        let keyspace = db.default_keyspace();
        let index = if settings.indexed {
            let extractor = |_: &[u8], value: &[u8], emit: &mut Emit<'_>| emit.key(index_key_of(value));
            Some(keyspace.create_index("by_write", IndexOptions::new(extractor))?)
        } else {
            None
        };
        Ok(Sapwood { db, keyspace, index })
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.keyspace.put(key, value)?)
    }

    #[inline]
    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.keyspace.put_with(key, value, &WriteOptions::sync())?)
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = self.db.batch();
        for (key, value) in entries {
            batch.put(&self.keyspace, key, value);
        }
        Ok(batch.commit_durable(Durability::Buffered).map(drop)?)
    }

    fn reader(&self) -> Result<&Sapwood> {
        Ok(self)
    }

    fn settle(&self) -> Result<()> {
        // The compaction that would follow a second without writes counts as well.
        Ok(self.db.settle()?)
    }

    fn close(self) -> Result<()> {
        Ok(self.db.close()?)
    }

    fn indexed(&self) -> Result<&impl Indexed> {
        Ok(self)
    }

    fn version() -> String {
        // The tests and the report run inside the repository. Elsewhere the package's version is
        // used.
        let described = std::process::Command::new("git")
            .args(["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", "HEAD"])
            .output()
            .ok()
            .filter(|output| output.status.success())
            .and_then(|output| String::from_utf8(output.stdout).ok());
        described.map_or_else(
            || env!("CARGO_PKG_VERSION").to_owned(),
            |commit| format!("commit {}", commit.trim()),
        )
    }
}

impl Indexed for Sapwood {
    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.keyspace.put(key, value)?)
    }

    #[inline]
    fn lookup(&self, index_key: [u8; 8], with: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let index = self.index.as_ref().ok_or("the database has no index")?;
        Ok(index.get_with(index_key, with)?)
    }

    fn scan(&self, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let index = self.index.as_ref().ok_or("the database has no index")?;
        let mut cursor = index.cursor::<[u8; 8]>(..)?;
        let mut visited = 0;
        cursor.seek_to_first()?;
        while cursor.valid() {
            visit(&cursor.index_key()?, cursor.primary_key());
            visited += 1;
            cursor.next()?;
        }
        Ok(visited)
    }
}

/// Every read is of the latest state.
impl Reader for &Sapwood {
    fn refresh(&mut self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn get<R>(&mut self, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.keyspace.get_with(key, with)?)
    }

    #[inline]
    fn seek(&mut self, key: &[u8], count: usize, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut cursor = self.keyspace.cursor()?;
        cursor.seek(key)?;
        let mut visited = 0;
        while cursor.valid() {
            visit(cursor.key(), cursor.value());
            visited += 1;
            if visited == count {
                break;
            }
            cursor.next()?;
        }
        Ok(visited)
    }

    fn scan(&mut self, direction: Direction, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let mut cursor = self.keyspace.cursor()?;
        match direction {
            Direction::Forward => cursor.seek_to_first()?,
            Direction::Backward => cursor.seek_to_last()?,
        }
        let mut visited = 0;
        while cursor.valid() {
            visit(cursor.key(), cursor.value());
            visited += 1;
            match direction {
                Direction::Forward => cursor.next()?,
                Direction::Backward => cursor.prev()?,
            }
        }
        Ok(visited)
    }
}
