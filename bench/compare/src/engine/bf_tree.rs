//! bf-tree 0.5, without a log.
//!
//! With the log, a write waits up to a millisecond for a flush, so there is no class between
//! "durable" and "lost". Without it, the tree runs as its authors measure it. Only a snapshot can
//! be opened again; settling takes one. A tree that was opened from a snapshot keeps its pages in
//! that file and changes it even when it is only read. Therefore every close takes a new snapshot,
//! under a new name.
use super::{Acknowledged, Direction, Engine, Info, NotOffered, Reader, Result};
use crate::settings::{Codec, Settings};
use bf_tree::{Config, LeafInsertResult, LeafReadResult, ScanReturnField, StorageBackend};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// An open tree.
pub struct BfTree {
    tree: bf_tree::BfTree,
    folder: PathBuf,
    /// The number of the newest snapshot; 0 if there is none.
    snapshot: AtomicU32,
    /// Whether there were writes since.
    changed: AtomicBool,
    record_bytes: usize,
}

impl BfTree {
    fn insert(&self, key: &[u8], value: &[u8]) -> Result<()> {
        match self.tree.insert(key, value) {
            LeafInsertResult::Success => Ok(()),
            LeafInsertResult::InvalidKV(why) => Err(why.into()),
        }
    }

    fn mark_changed(&self) {
        // Relaxed: read after all writers have ended. The load comes first, so that a set flag
        // costs no write.
        if !self.changed.load(Ordering::Relaxed) {
            self.changed.store(true, Ordering::Relaxed);
        }
    }
}

fn snapshot_path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("snapshot-{number}"))
}

impl Engine for BfTree {
    const INFO: Info = Info {
        acknowledged: Acknowledged::ExplicitFlush,
        settings: "no log; file backend; a snapshot when settling",
    };

    type Reader<'a> = BfTreeReader<'a>;

    fn open(folder: &Path, settings: &Settings) -> Result<BfTree> {
        if settings.codec != Codec::None {
            return Err(Box::new(NotOffered("bf-tree does not compress")));
        }
        let folder = folder.join("db");
        fs::create_dir_all(&folder)?;
        let newest = (1..).take_while(|&number| snapshot_path(&folder, number).exists()).last().unwrap_or(0);
        for old in (1..newest).map(|number| snapshot_path(&folder, number)).chain([folder.join("pages")]) {
            if newest > 0 && old.exists() {
                fs::write(old, [])?;
            }
        }
        let record_bytes = settings.row_bytes() as usize + 16;
        let tree = if newest > 0 {
            let path = snapshot_path(&folder, newest);
            bf_tree::BfTree::new_from_cpr_snapshot(path, true, None, Some(settings.cache_bytes), None)
        } else {
            let mut config = Config::new(folder.join("pages"), settings.cache_bytes);
            config
                .storage_backend(StorageBackend::Std)
                .cb_max_key_len(settings.key_bytes + 8)
                .cb_max_record_size(record_bytes.max(256))
                .use_snapshot(true);
            bf_tree::BfTree::with_config(config, None)
        };
        let tree = tree.map_err(|error| format!("{error:?}"))?;
        Ok(BfTree {
            tree,
            folder,
            snapshot: AtomicU32::new(newest),
            changed: AtomicBool::new(true),
            record_bytes,
        })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.mark_changed();
        self.insert(key, value)
    }

    fn put_durable(&self, _key: &[u8], _value: &[u8]) -> Result<()> {
        Err(Box::new(NotOffered("without its log, bf-tree has no durable write")))
    }

    fn put_batch(&self, entries: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
        // bf-tree has no batches. A loop has the same effect, without the atomicity.
        self.mark_changed();
        entries.iter().try_for_each(|(key, value)| self.insert(key, value))
    }

    fn reader(&self) -> Result<BfTreeReader<'_>> {
        Ok(BfTreeReader { tree: self, buffer: vec![0; self.record_bytes + 64] })
    }

    fn settle(&self) -> Result<()> {
        if self.changed.swap(false, Ordering::Relaxed) {
            let number = self.snapshot.fetch_add(1, Ordering::Relaxed) + 1;
            self.tree.cpr_snapshot(snapshot_path(&self.folder, number));
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        self.settle()
    }

    fn version() -> String {
        crate::versions::of("bf-tree")
    }
}

/// A reader that copies records into its buffer.
pub struct BfTreeReader<'a> {
    tree: &'a BfTree,
    buffer: Vec<u8>,
}

impl BfTreeReader<'_> {
    fn visit(&mut self, from: &[u8], count: usize, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<usize> {
        let entries = self.tree.tree.scan_with_count(from, count, ScanReturnField::KeyAndValue);
        let mut entries = entries.map_err(|error| format!("{error:?}"))?;
        let mut visited = 0;
        while let Some((key, value)) = entries.next(&mut self.buffer) {
            let (key, rest) = self.buffer.split_at(key);
            visit(key, &rest[..value]);
            visited += 1;
        }
        Ok(visited)
    }
}

impl Reader for BfTreeReader<'_> {
    fn refresh(&mut self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn get<R>(&mut self, key: &[u8], with: impl FnOnce(&[u8]) -> R) -> Result<Option<R>> {
        match self.tree.tree.read(key, &mut self.buffer) {
            LeafReadResult::Found(length) => Ok(Some(with(&self.buffer[..length as usize]))),
            LeafReadResult::NotFound | LeafReadResult::Deleted => Ok(None),
            LeafReadResult::InvalidKey => Err("bf-tree calls a key invalid".into()),
        }
    }

    fn seek(&mut self, key: &[u8], count: usize, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<usize> {
        self.visit(key, count, visit)
    }

    fn scan(&mut self, direction: Direction, visit: &mut impl FnMut(&[u8], &[u8])) -> Result<u64> {
        match direction {
            Direction::Forward => Ok(self.visit(&[0], usize::MAX, visit)? as u64),
            Direction::Backward => Err(Box::new(NotOffered("bf-tree scans forward only"))),
        }
    }
}
