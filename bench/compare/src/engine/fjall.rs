//! fjall 3, with all filters and indexes pinned.
//!
//! Block size, filters and memtable size are its defaults (4 KiB; Bloom filters of 10 bits, more in
//! level 0; 64 MiB). Its documentation of `index_block_pinning_policy` and
//! `filter_block_pinning_policy` offers pinning for reads. The cache has the size of the others'
//! caches ("or more if the data set fits fully into memory").
use super::{Acknowledged, Direction, Engine, INDEX_KEY_BYTES, Indexed, Info, Reader, Result, entry_key};
use crate::settings::{Codec, Settings};
use crate::stream::index_key_of;
use fjall::config::{CompressionPolicy, PinningPolicy};
use fjall::{CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;
use std::time::{Duration, Instant};

/// An open database.
pub struct Fjall {
    db: Database,
    keyspace: Keyspace,
    /// The entries of the index, if the rows have one.
    entries: Option<Keyspace>,
}

impl Engine for Fjall {
    const INFO: Info = Info {
        acknowledged: Acknowledged::ProcessCrash,
        settings: "filters and indexes pinned on all levels, leveled compaction (default), 4 KiB blocks (default)",
    };

    type Reader<'a> = &'a Fjall;

    fn open(folder: &Path, settings: &Settings) -> Result<Fjall> {
        let db = Database::builder(folder.join("db"))
            .cache_size(settings.cache_bytes as u64)
            .worker_threads(settings.background_threads)
            .open()?;
        let codec = match settings.codec {
            Codec::None => CompressionType::None,
            Codec::Lz4 => CompressionType::Lz4,
        };
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(settings.memtable_bytes as u64)
                .data_block_compression_policy(CompressionPolicy::all(codec))
                .index_block_pinning_policy(PinningPolicy::all(true))
                .filter_block_pinning_policy(PinningPolicy::all(true))
        };
        let keyspace = db.keyspace("default", options)?;
        let entries = settings.indexed.then(|| db.keyspace("entries", options)).transpose()?;
        Ok(Fjall { db, keyspace, entries })
    }

    #[inline]
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.keyspace.insert(key, value)?)
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value)?;
        Ok(self.db.persist(PersistMode::SyncData)?)
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = self.db.batch();
        for (key, value) in entries {
            batch.insert(&self.keyspace, &key[..], &value[..]);
        }
        Ok(batch.commit()?)
    }

    fn reader(&self) -> Result<&Fjall> {
        Ok(self)
    }

    fn settle(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        if let Some(entries) = &self.entries {
            entries.rotate_memtable_and_wait()?;
        }
        // No call waits for the last compaction; 100 ms without work count as settled.
        let mut quiet_since = Instant::now();
        while quiet_since.elapsed() < Duration::from_millis(100) {
            std::thread::sleep(Duration::from_millis(2));
            if self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0 {
                quiet_since = Instant::now();
            }
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(self.db.persist(PersistMode::Buffer)?)
    }

    fn indexed(&self) -> Result<&impl Indexed> {
        Ok(self)
    }

    fn version() -> String {
        crate::versions::of("fjall")
    }
}

impl Fjall {
    fn entries(&self) -> Result<&Keyspace> {
        self.entries.as_ref().ok_or_else(|| "the database has no index".into())
    }
}

impl Indexed for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let entries = self.entries()?;
        let mut batch = self.db.batch();
        let mut entry = Vec::with_capacity(INDEX_KEY_BYTES + key.len());
        if let Some(old) = self.keyspace.get(key)? {
            entry_key(&mut entry, index_key_of(&old), key);
            batch.remove(entries, &entry[..]);
        }
        entry_key(&mut entry, index_key_of(value), key);
        batch.insert(entries, &entry[..], &[][..]);
        batch.insert(&self.keyspace, key, value);
        Ok(batch.commit()?)
    }

    fn lookup(&self, index_key: [u8; 8], with: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let mut found = 0;
        for guard in self.entries()?.prefix(index_key) {
            let entry = guard.key()?;
            let key = &entry[INDEX_KEY_BYTES..];
            let value = self.keyspace.get(key)?.ok_or("an entry of the index has no row")?;
            with(key, &value);
            found += 1;
        }
        Ok(found)
    }

    fn scan(&self, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let mut visited = 0;
        for guard in self.entries()?.iter() {
            let entry = guard.key()?;
            let (index_key, key) = entry.split_at(INDEX_KEY_BYTES);
            visit(index_key, key);
            visited += 1;
        }
        Ok(visited)
    }
}

fn entry(guard: Guard, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<()> {
    let (key, value) = guard.into_inner()?;
    visit(&key, &value);
    Ok(())
}

/// Every read is of the latest state.
impl Reader for &Fjall {
    fn refresh(&mut self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn get<R>(&mut self, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.keyspace.get(key)?.map(|value| with(&value)))
    }

    fn seek(&mut self, key: &[u8], count: usize, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut visited = 0;
        for guard in self.keyspace.range(key..).take(count) {
            entry(guard, visit)?;
            visited += 1;
        }
        Ok(visited)
    }

    fn scan(&mut self, direction: Direction, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let mut visited = 0;
        let mut entries = self.keyspace.iter();
        while let Some(guard) = match direction {
            Direction::Forward => entries.next(),
            Direction::Backward => entries.next_back(),
        } {
            entry(guard, visit)?;
            visited += 1;
        }
        Ok(visited)
    }
}
