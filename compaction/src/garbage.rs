//! Garbage: space that no reader needs. Measures how much there is and which tables hold it.
//!
//! There are two sorts. Entries of newer runs *hide* older versions below them: a tombstone of a
//! few bytes can hide a row of megabytes. No single file shows how much, so a [`Survey`] looks up
//! sampled keys in the older runs, using their filters and the lengths of their blocks. A table
//! also *holds* versions and tombstones that were kept for snapshots alive when it was written; the
//! writer records which, and how many bytes.
//!
//! All of this is kept in memory only and is surveyed again, as time permits, after the database is
//! opened. Snapshots do not survive a restart, so versions held by tables of an earlier session can
//! be dropped.
use crate::held::{Held, Hidden};
use crate::options::LAST_LEVEL;
use crate::version::iterator::{Cached, ReadTable};
use crate::version::{Run, RunTable, Version};
use sapwood_base::iterator::InternalIterator;
use sapwood_base::{FileNumber, Lookup, Result, SequenceNumber};
use sapwood_sstable::{LastBlock, ReadOptions};
use std::collections::HashMap;
use std::sync::Arc;

/// The approximate number of keys of a table that a survey looks up; all if it has no more.
const SAMPLES: u64 = 2048;
/// A survey reads a table of at most this size from end to end, and of a larger one some
/// consecutive keys at [`PLACES`] places. Reading less of a small one would take more calls.
const SCAN_BYTES: u64 = 4 << 20;
const PLACES: u64 = 128;
/// The number of keys between two checks whether a survey should stop.
const STOP_KEYS: u64 = 1024;
/// The approximate number of bytes of `table` that a merge of it alone drops; 0 if unknown.
pub fn releasable(table: &RunTable, snapshots: &[SequenceNumber]) -> u64 {
    table.handle.held().map_or(0, |held| held.releasable(snapshots)).min(table.handle.file_bytes())
}

/// Whether `table`, of the last level, may hold an unknown number of bytes for snapshots.
pub fn is_unknown(table: &RunTable) -> bool {
    // In the last level, entries that all readers see have sequence number zero.
    table.handle.held().is_none() && table.meta.max_sequence > SequenceNumber::ZERO
}

/// Tables to be surveyed before the picker can decide whether merging them is worth it.
#[derive(Clone, Default)]
pub struct Survey {
    /// Tables whose hidden bytes are unknown, with the places of their runs in the version.
    pub hiding: Vec<(usize, RunTable)>,
    /// Tables of the last level whose held bytes are unknown.
    pub holding: Vec<RunTable>,
}

impl Survey {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.hiding.is_empty() && self.holding.is_empty()
    }

    /// Runs the survey and records the results in the tables. `version` is the one that the survey
    /// was made for. `stops` is polled, and ends the survey early if it returns true.
    ///
    /// Errors: those of reading tables.
    pub fn run(&self, version: &Version, mut stops: impl FnMut() -> bool) -> Result<()> {
        let mut sizes = RowSizes::default();
        for (run, table) in &self.hiding {
            match hidden_by(version, *run, table, &mut sizes, &mut stops)? {
                Some(hidden) => table.set_hides(hidden),
                None => return Ok(()),
            }
        }
        for table in &self.holding {
            table.handle.set_held(held_by(table)?);
            if stops() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The bytes that a table of an earlier session holds: all entries beyond one per key, and
/// tombstones.
fn held_by(table: &RunTable) -> Result<Held> {
    let properties = table.handle.properties()?;
    let entries = properties.entries - properties.user_keys + properties.tombstones;
    if entries == 0 {
        return Ok(Held::default());
    }
    let row_bytes = table.handle.file_bytes().div_ceil(properties.entries.max(1));
    let newest = SequenceNumber(properties.max_sequence.0.saturating_sub(1));
    Ok(Held::between(SequenceNumber::ZERO, newest, entries * row_bytes))
}

/// The older versions that the newest versions in `table`, a member of run number `run`, hide. Each
/// version is attributed to the next newer one, so the sum over all tables counts none twice.
/// `None` if `stops` returned true.
fn hidden_by(
    version: &Version,
    run: usize,
    table: &RunTable,
    sizes: &mut RowSizes,
    stops: &mut impl FnMut() -> bool,
) -> Result<Option<Hidden>> {
    let older = &version.runs[run + 1..];
    let open = table.handle.table()?;
    let mut read = ReadOptions { fill_cache: false, ..ReadOptions::default() };
    let is_large = table.handle.file_bytes() > SCAN_BYTES && table.meta.entries > SAMPLES;
    let mut places = vec![Vec::new()];
    let (mut keys_at_place, mut step) = (u64::MAX, (table.meta.entries / SAMPLES).max(1));
    if is_large {
        places.extend(open.split_keys(PLACES as usize));
        (keys_at_place, step) = (SAMPLES / PLACES, 1);
        read.readahead_bytes = 0;
    }
    let mut entries = Cached(read).iterate(open);
    // What lies below a raised lower bound was merged before.
    let all_places = places.len() as u64;
    let lower = table.meta.lower.as_deref().unwrap_or_default();
    places.retain(|place| place.as_slice() > lower);
    places.insert(0, lower.to_vec());
    let (mut hidden, mut seen, mut looked_up) = (Hidden::default(), 0u64, 0u64);
    let mut last_key = Vec::new();
    for place in &places {
        entries.seek(place)?;
        let mut keys = 0;
        while entries.valid() && keys < keys_at_place {
            let key = entries.key();
            if seen == 0 || key != last_key.as_slice() {
                if seen.is_multiple_of(step) {
                    looked_up += 1;
                    if let Some(bytes) = sizes.row_below(older, key)? {
                        hidden.entries += 1;
                        hidden.bytes += bytes;
                    }
                }
                keys += 1;
                seen += 1;
                if seen.is_multiple_of(STOP_KEYS) && stops() {
                    return Ok(None);
                }
                last_key.clear();
                last_key.extend_from_slice(entries.key());
            }
            entries.next()?;
        }
    }
    let live = match is_large {
        true => table.meta.entries * places.len() as u64 / all_places,
        false => seen,
    };
    let scaled = |number: u64| (u128::from(number) * u128::from(live) / u128::from(looked_up.max(1))) as u64;
    Ok(Some(Hidden { entries: scaled(hidden.entries), bytes: scaled(hidden.bytes) }))
}

/// The state of lookups in ascending order of keys.
#[derive(Default)]
struct RowSizes {
    /// The average length of a row that shares its block, by table.
    rows: HashMap<FileNumber, u64>,
    last: LastBlock,
}

impl RowSizes {
    /// The approximate size in bytes of the newest version of `key` in `runs`; `None` if there is
    /// none.
    fn row_below(&mut self, runs: &[Arc<Run>], key: &[u8]) -> Result<Option<u64>> {
        let lookup = Lookup::new(key, SequenceNumber::MAX);
        for table in runs.iter().filter_map(|run| run.find(key)) {
            let open = table.handle.table()?;
            let is_there = match open.has_filter() {
                true => open.may_contain(lookup.hash),
                false => {
                    let guard = crossbeam::epoch::pin();
                    open.get_in_order(lookup, &mut self.last, &guard)?.is_some()
                }
            };
            if is_there {
                let file = table.handle.file();
                let shared = *self.rows.entry(file).or_insert_with(|| open.shared_row_bytes());
                return Ok(Some(open.approximate_row_bytes(key, shared)));
            }
        }
        Ok(None)
    }
}

impl Version {
    /// The approximate number of bytes of files that a merge of everything would drop if there were
    /// no snapshots. Tables that were not surveyed are estimated: each tombstone hides a row of
    /// average length.
    pub fn garbage_bytes(&self) -> u64 {
        let mut bytes = 0;
        for (number, run) in self.runs.iter().enumerate() {
            for table in &run.tables {
                bytes += table.handle.held().map_or(0, Held::bytes);
                if run.level == LAST_LEVEL {
                    continue;
                }
                bytes += match table.hides() {
                    Some(hidden) => hidden.bytes,
                    None => self.guess(number, table),
                };
                // The tombstones themselves are dropped too.
                let entry_bytes = table.handle.file_bytes() / table.meta.entries.max(1);
                bytes += table.meta.tombstones * entry_bytes;
            }
        }
        bytes.min(self.file_bytes())
    }

    /// The bytes that the tombstones of `table` hide if each hides a row of average length of the
    /// tables below.
    pub fn guess(&self, run: usize, table: &RunTable) -> u64 {
        if table.meta.tombstones == 0 {
            return 0;
        }
        let (mut bytes, mut entries) = (0, 0);
        for below in self.runs[run + 1..]
            .iter()
            .flat_map(|run| run.overlapping(Some(table.first()), Some(table.last())))
        {
            bytes += below.handle.file_bytes();
            entries += below.meta.entries;
        }
        (u128::from(table.meta.tombstones.min(entries)) * u128::from(bytes) / u128::from(entries.max(1)))
            as u64
    }
}
