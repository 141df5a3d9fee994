//! redb 4, with `Durability::None` for writes that need not be durable.
//!
//! Its documentation names `Durability::None` for commits that may be lost until the next
//! `Immediate` one. This is weaker than the page cache of the other engines: the pages are in the
//! process's memory. Settling commits with `Immediate`.
use super::{Acknowledged, Direction, Engine, Info, NotOffered, Reader, Result};
use crate::settings::{Codec, Settings};
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase, TableDefinition};
use std::path::Path;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("default");

/// An open database.
pub struct Redb {
    database: Database,
}

impl Redb {
    fn write(&self, durability: Durability, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for (key, value) in entries {
                table.insert(&key[..], &value[..])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn write_one(&self, durability: Durability, key: &[u8], value: &[u8]) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        transaction.open_table(TABLE)?.insert(key, value)?;
        Ok(transaction.commit()?)
    }
}

impl Engine for Redb {
    const INFO: Info = Info {
        acknowledged: Acknowledged::ExplicitFlush,
        settings: "Durability::None; one transaction per write",
    };

    type Reader<'a> = RedbReader<'a>;

    fn open(folder: &Path, settings: &Settings) -> Result<Redb> {
        if settings.codec != Codec::None {
            return Err(Box::new(NotOffered("redb does not compress")));
        }
        let folder = folder.join("db");
        std::fs::create_dir_all(&folder)?;
        let database =
            Database::builder().set_cache_size(settings.cache_bytes).create(folder.join("data"))?;
        let redb = Redb { database };
        redb.write(Durability::Immediate, &[])?;
        Ok(redb)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write_one(Durability::None, key, value)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write_one(Durability::Immediate, key, value)
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        self.write(Durability::None, entries)
    }

    fn reader(&self) -> Result<RedbReader<'_>> {
        Ok(RedbReader { redb: self, table: self.database.begin_read()?.open_table(TABLE)? })
    }

    fn settle(&self) -> Result<()> {
        self.write(Durability::Immediate, &[])
    }

    fn close(self) -> Result<()> {
        self.settle()
    }

    fn version() -> String {
        crate::versions::of("redb")
    }
}

/// A table of a read transaction, kept over many reads.
pub struct RedbReader<'a> {
    redb: &'a Redb,
    table: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Reader for RedbReader<'_> {
    fn refresh(&mut self) -> Result<()> {
        self.table = self.redb.database.begin_read()?.open_table(TABLE)?;
        Ok(())
    }

    #[inline]
    fn get<R>(&mut self, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.table.get(key)?.map(|value| with(value.value())))
    }

    fn seek(&mut self, key: &[u8], count: usize, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut visited = 0;
        for entry in self.table.range(key..)?.take(count) {
            let (key, value) = entry?;
            visit(key.value(), value.value());
            visited += 1;
        }
        Ok(visited)
    }

    fn scan(&mut self, direction: Direction, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let mut entries = self.table.range::<&[u8]>(..)?;
        let mut visited = 0;
        while let Some(entry) = match direction {
            Direction::Forward => entries.next(),
            Direction::Backward => entries.next_back(),
        } {
            let (key, value) = entry?;
            visit(key.value(), value.value());
            visited += 1;
        }
        Ok(visited)
    }
}
