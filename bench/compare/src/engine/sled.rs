//! sled 0.34 in its mode `HighThroughput`, the default, with its default flush interval of 500 ms.
//!
//! Until that flush an acknowledged write is in the process's memory, which is weaker than the page
//! cache of the other engines.
use super::{Acknowledged, Direction, Engine, Info, NotOffered, Reader, Result};
use crate::settings::{Codec, Settings};
use sled::{Batch, Config, Db, Mode};
use std::path::Path;

/// An open database.
pub struct Sled {
    db: Db,
}

impl Engine for Sled {
    const INFO: Info = Info {
        acknowledged: Acknowledged::HalfASecondLater,
        settings: "Mode::HighThroughput (default), flushed every 500 ms (default)",
    };

    type Reader<'a> = &'a Sled;

    fn open(folder: &Path, settings: &Settings) -> Result<Sled> {
        if settings.codec != Codec::None {
            return Err(Box::new(NotOffered("sled compresses with zstd only")));
        }
        let db = Config::default()
            .path(folder.join("db"))
            .mode(Mode::HighThroughput)
            .cache_capacity(settings.cache_bytes as u64)
            .open()?;
        Ok(Sled { db })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.insert(key, value)?;
        Ok(())
    }

    fn put_durable(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.insert(key, value)?;
        self.db.flush()?;
        Ok(())
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        let mut batch = Batch::default();
        for (key, value) in entries {
            batch.insert(&key[..], &value[..]);
        }
        Ok(self.db.apply_batch(batch)?)
    }

    fn reader(&self) -> Result<&Sled> {
        Ok(self)
    }

    fn settle(&self) -> Result<()> {
        self.db.flush()?;
        Ok(())
    }

    fn close(self) -> Result<()> {
        self.settle()
    }

    fn version() -> String {
        crate::versions::of("sled")
    }
}

/// Every read is of the latest state.
impl Reader for &Sled {
    fn refresh(&mut self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn get<R>(&mut self, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        Ok(self.db.get(key)?.map(|value| with(&value)))
    }

    fn seek(&mut self, key: &[u8], count: usize, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let mut visited = 0;
        for entry in self.db.range(key..).take(count) {
            let (key, value) = entry?;
            visit(&key, &value);
            visited += 1;
        }
        Ok(visited)
    }

    fn scan(&mut self, direction: Direction, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        let mut entries = self.db.iter();
        let mut visited = 0;
        while let Some(entry) = match direction {
            Direction::Forward => entries.next(),
            Direction::Backward => entries.next_back(),
        } {
            let (key, value) = entry?;
            visit(&key, &value);
            visited += 1;
        }
        Ok(visited)
    }
}
