//! Statistics of the engine.
use crate::runtime::Core;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use crate::runtime::Health;

/// Memory in bytes, by use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Memory {
    /// Arenas of memtables, resident part.
    pub memtables: u64,
    /// Frames of the buffer cache.
    pub cache: u64,
    /// Indexes and filters of open tables.
    pub table_metadata: u64,
    /// Mapped log segments. They are file pages, which the kernel can write out.
    pub wal: u64,
    /// The value of `memory_budget`.
    pub budget: u64,
}

impl Memory {
    /// The sum.
    pub fn total(&self) -> u64 {
        self.memtables + self.cache + self.table_metadata + self.wal
    }
}

/// One level of a keyspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LevelStats {
    /// 0 is the newest.
    pub level: u8,
    /// Sorted runs.
    pub runs: usize,
    /// Files.
    pub files: usize,
    /// Bytes of the files.
    pub bytes: u64,
    /// Entries, tombstones included.
    pub entries: u64,
    /// Tombstones.
    pub tombstones: u64,
}

/// One keyspace.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeyspaceStats {
    /// Its name.
    pub name: String,
    /// Whether it holds the entries above the tree of an index. Its name is the keyspace's, a
    /// slash, and the index's.
    pub is_index: bool,
    /// The tree, once entries were applied to it.
    pub tree: Option<TreeStats>,
    /// Levels that hold something.
    pub levels: Vec<LevelStats>,
    /// Sorted runs that a read may have to search, memtables not counted.
    pub runs: usize,
    /// Bytes of all files.
    pub bytes: u64,
    /// Bytes of all files over the bytes left if everything was merged and no snapshot was open: an
    /// estimate of space amplification. Deleted and overwritten rows count with their size, as far
    /// as that is known: newer runs are surveyed when the database is idle; before that a deletion
    /// counts as a row of average length.
    pub space_amplification: f64,
}

/// Time that writers were held back, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct StallStats {
    /// Delays for compaction debt.
    pub compaction_debt: Duration,
    /// Waits for a free memtable.
    pub memtables_full: Duration,
    /// How often a writer waited for a free memtable.
    pub memtable_waits: u64,
}

/// The tree of an index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TreeStats {
    /// Entries that were applied to it.
    pub entries: u64,
    /// Bytes of its file.
    pub bytes: u64,
    /// Bytes of the pages in use.
    pub used_bytes: u64,
}

/// Everything at one moment. Sums count from the open of the database.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stats {
    /// Time since the open.
    pub uptime: Duration,
    /// Bytes of log that recovery replayed.
    pub replayed_log_bytes: u64,
    /// Bytes of log written.
    pub wal_bytes_written: u64,
    /// Memtables flushed.
    pub flushes: u64,
    /// Bytes of tables that flushes wrote.
    pub flush_bytes_written: u64,
    /// Compactions run.
    pub compactions: u64,
    /// Bytes of tables that compactions read.
    pub compaction_bytes_read: u64,
    /// Bytes of tables that compactions wrote.
    pub compaction_bytes_written: u64,
    /// Bytes of tables that compactions moved without reading them.
    pub compaction_bytes_moved: u64,
    /// Bytes in memtables that were not flushed yet.
    pub memtable_bytes: u64,
    /// Memtables, the active one included.
    pub memtables: usize,
    /// Blocks that were read from files.
    pub cache_misses: u64,
    /// Blocks that were found in the cache, sampled.
    pub cache_hits: u64,
    /// Bytes in the buffer cache.
    pub cache_bytes: u64,
    /// Capacity of the buffer cache in bytes.
    pub cache_capacity_bytes: u64,
    /// Time that writers were held back.
    pub stalls: StallStats,
    /// Live snapshots.
    pub snapshots: usize,
    /// Every keyspace, and every index: its delta runs, and its tree.
    pub keyspaces: Vec<KeyspaceStats>,
}

impl Stats {
    /// Bytes written to the device per byte of log: log, flushes and compactions over the log.
    pub fn write_amplification(&self) -> f64 {
        let written = self.wal_bytes_written + self.flush_bytes_written + self.compaction_bytes_written;
        written as f64 / self.wal_bytes_written.max(1) as f64
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "uptime {:.1} s, {} live snapshots", self.uptime.as_secs_f64(), self.snapshots)?;
        writeln!(
            f,
            "written: log {:.1} MiB, {} flushes {:.1} MiB, {} compactions {:.1} MiB (read {:.1}, moved {:.1}); {:.2} bytes per byte of log",
            mib(self.wal_bytes_written),
            self.flushes,
            mib(self.flush_bytes_written),
            self.compactions,
            mib(self.compaction_bytes_written),
            mib(self.compaction_bytes_read),
            mib(self.compaction_bytes_moved),
            self.write_amplification(),
        )?;
        writeln!(f, "memtables: {}, {:.1} MiB", self.memtables, mib(self.memtable_bytes))?;
        writeln!(
            f,
            "cache: {:.1} of {:.1} MiB, {} misses",
            mib(self.cache_bytes),
            mib(self.cache_capacity_bytes),
            self.cache_misses
        )?;
        writeln!(
            f,
            "stalls: compaction debt {:.3} s, memtables full {:.3} s ({} waits)",
            self.stalls.compaction_debt.as_secs_f64(),
            self.stalls.memtables_full.as_secs_f64(),
            self.stalls.memtable_waits
        )?;
        for keyspace in &self.keyspaces {
            writeln!(
                f,
                "keyspace {:?}: {:.1} MiB in {} runs, space amplification {:.2}",
                keyspace.name,
                mib(keyspace.bytes),
                keyspace.runs,
                keyspace.space_amplification
            )?;
            if let Some(tree) = &keyspace.tree {
                let (used, all) = (mib(tree.used_bytes), mib(tree.bytes));
                writeln!(f, "  tree: {} entries, {used:.1} of {all:.1} MiB in use", tree.entries)?;
            }
            writeln!(f, "  level  runs  files        MiB      entries  tombstones")?;
            for level in &keyspace.levels {
                writeln!(
                    f,
                    "  {:>5} {:>5} {:>6} {:>10.1} {:>12} {:>11}",
                    level.level,
                    level.runs,
                    level.files,
                    mib(level.bytes),
                    level.entries,
                    level.tombstones
                )?;
            }
        }
        Ok(())
    }
}

/// Gathers [`Stats`].
pub(crate) fn gather(core: &Core) -> Stats {
    if core.is_forked() {
        // Another thread may have held any lock at the fork.
        return Stats::default();
    }
    let view = core.view.reference();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let cache = core.files.cache.stats();
    let keyspaces = view
        .keyspaces
        .iter()
        .map(|space| {
            let mut levels: Vec<LevelStats> = Vec::new();
            for run in &space.version.runs {
                if levels.last().is_none_or(|last| last.level != run.level) {
                    levels.push(LevelStats { level: run.level, ..LevelStats::default() });
                }
                let level = levels.last_mut().expect("pushed");
                level.runs += 1;
                level.files += run.tables.len();
                level.bytes += run.file_bytes();
                level.entries += run.entries();
                level.tombstones += run.tables.iter().map(|table| table.meta.tombstones).sum::<u64>();
            }
            let bytes = space.version.file_bytes();
            let last = levels.last().map_or(0, |level| level.bytes);
            let tree = space.index.as_ref().and_then(|index| index.tree.as_ref()).map(|tree| TreeStats {
                entries: tree.root.entries(),
                bytes: tree.root.file_bytes(),
                used_bytes: u64::from(tree.root.used_pages) * u64::from(tree.root.page_bytes),
            });
            KeyspaceStats {
                name: space.state.name.clone(),
                is_index: space.index.is_some(),
                tree,
                runs: space.version.runs.len(),
                bytes,
                space_amplification: space_amplification(bytes, last, space.version.garbage_bytes()),
                levels,
            }
        })
        .collect();
    Stats {
        uptime: core.options.env.now().saturating_sub(core.opened_at),
        replayed_log_bytes: core.replayed_log_bytes,
        wal_bytes_written: core.wal.bytes(),
        flushes: load(&core.counters.flushes),
        flush_bytes_written: load(&core.counters.flush_bytes),
        compactions: load(&core.counters.compactions),
        compaction_bytes_read: load(&core.counters.compaction_read_bytes),
        compaction_bytes_written: load(&core.counters.compaction_written_bytes),
        compaction_bytes_moved: load(&core.counters.compaction_moved_bytes),
        memtable_bytes: view.generations.iter().map(|g| g.memtable.size_bytes() as u64).sum(),
        memtables: view.generations.len(),
        cache_misses: cache.misses,
        cache_hits: cache.hits,
        cache_bytes: core.files.cache.used_bytes() as u64,
        cache_capacity_bytes: core.files.cache.capacity_bytes() as u64,
        stalls: StallStats {
            compaction_debt: Duration::from_nanos(load(&core.stall.delayed_nanos)),
            memtables_full: Duration::from_nanos(load(&core.stall.memtable_nanos)),
            memtable_waits: load(&core.stall.memtable_waits),
        },
        snapshots: core.snapshots.numbers().len(),
        keyspaces,
    }
}

/// `bytes` is the size of all files, `last` that of the last level, `garbage` the part that a full
/// merge would drop.
fn space_amplification(bytes: u64, last: u64, garbage: u64) -> f64 {
    let left = bytes.saturating_sub(garbage).min(if last == 0 { bytes } else { last });
    if bytes == 0 { 1.0 } else { bytes as f64 / left.max(1) as f64 }
}

/// Gathers [`Memory`].
pub(crate) fn memory(core: &Core) -> Memory {
    if core.is_forked() {
        return Memory::default();
    }
    let view = core.view.reference();
    let table_metadata = view
        .keyspaces
        .iter()
        .flat_map(|space| space.version.tables())
        .filter_map(|table| table.handle.opened())
        .map(|table| table.pinned_bytes() as u64)
        .sum();
    Memory {
        memtables: core.arenas.bytes_resident() as u64,
        cache: core.files.cache.memory_bytes() as u64,
        table_metadata,
        wal: core.wal.segment_bytes(),
        budget: core.options.memory_budget as u64,
    }
}
