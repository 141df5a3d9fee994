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
use crate::options::LAST_LEVEL;
use crate::version::iterator::{ReadTable, Scanned};
use crate::version::{Run, RunTable, Version};
use sapwood_base::iterator::InternalIterator;
use sapwood_base::key::key_hash;
use sapwood_base::{FileNumber, Result, SequenceNumber};
use sapwood_sstable::LastBlock;
use std::collections::HashMap;
use std::sync::Arc;

/// The maximum number of keys of a table that a survey looks up.
const SAMPLES: u64 = 8192;
/// The number of keys between two checks whether a survey should stop.
const STOP_KEYS: u64 = 1024;
/// The number of different spans in a table's [`Held`].
const SPANS_MAX: usize = 16;

/// Older versions that the entries of a table hide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// The number of versions.
    pub entries: u64,
    /// Their approximate size in their files, in bytes.
    pub bytes: u64,
}

/// Bytes that only snapshots in `[from, to]` need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: SequenceNumber,
    to: SequenceNumber,
    bytes: u64,
}

/// Entries that a table holds only for snapshots: versions with a newer one above, and tombstones
/// in the last level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    spans: Vec<Span>,
}

impl Held {
    /// All of `bytes` is needed only by snapshots in `[from, to]`.
    pub fn between(from: SequenceNumber, to: SequenceNumber, bytes: u64) -> Held {
        Held { spans: vec![Span { from, to, bytes }] }
    }

    /// Adds an entry that is visible from `older` on and hidden from `newer` on. `snapshots`,
    /// ascending, are those that it was kept for. An entry that none of them sees is not counted.
    pub fn note(
        &mut self,
        older: SequenceNumber,
        newer: SequenceNumber,
        bytes: u64,
        snapshots: &[SequenceNumber],
    ) {
        let first = snapshots.partition_point(|snapshot| *snapshot < older);
        let end = snapshots.partition_point(|snapshot| *snapshot < newer);
        if first >= end {
            return;
        }
        let (from, to) = (snapshots[first], snapshots[end - 1]);
        let is_full = self.spans.len() == SPANS_MAX;
        if let Some(span) = self.spans.iter_mut().find(|span| (span.from, span.to) == (from, to)) {
            span.bytes += bytes;
        } else if let Some(last) = self.spans.last_mut().filter(|_| is_full) {
            // The merged span may be released later than possible, but never too early.
            *last = Span { from: last.from.min(from), to: last.to.max(to), bytes: last.bytes + bytes };
        } else {
            self.spans.push(Span { from, to, bytes });
        }
    }

    /// Converts raw bytes to bytes of the file, which holds `raw_bytes` of keys and values in
    /// `file_bytes`. Rounds up, so that a table with a short version and good compression does not
    /// count as holding nothing.
    pub fn scaled(mut self, file_bytes: u64, raw_bytes: u64) -> Held {
        for span in &mut self.spans {
            let bytes =
                (u128::from(span.bytes) * u128::from(file_bytes)).div_ceil(u128::from(raw_bytes.max(1)));
            span.bytes = bytes as u64;
        }
        self
    }

    /// All held bytes, whether a snapshot needs them or not.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.bytes).sum()
    }

    /// Bytes that none of `snapshots`, ascending, needs. A merge drops them.
    pub fn releasable(&self, snapshots: &[SequenceNumber]) -> u64 {
        let is_free = |span: &&Span| {
            let first = snapshots.partition_point(|snapshot| *snapshot < span.from);
            snapshots.get(first).is_none_or(|snapshot| *snapshot > span.to)
        };
        self.spans.iter().filter(is_free).map(|span| span.bytes).sum()
    }
}

/// The approximate number of bytes of `table` that a merge of it alone drops; 0 if unknown.
pub fn releasable(table: &RunTable, snapshots: &[SequenceNumber]) -> u64 {
    table.handle.held().map_or(0, |held| held.releasable(snapshots)).min(table.handle.file_bytes())
}

/// Whether `table`, of the last level, may hold an unknown number of bytes for snapshots.
pub fn is_unknown(table: &RunTable) -> bool {
    // In the last level, entries that all readers see have sequence number zero.
    table.handle.held().is_none() && table.record.max_sequence > SequenceNumber::ZERO
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
        let mut lookup = Lookup::default();
        for (run, table) in &self.hiding {
            match hidden_by(version, *run, table, &mut lookup, &mut stops)? {
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
    lookup: &mut Lookup,
    stops: &mut impl FnMut() -> bool,
) -> Result<Option<Hidden>> {
    let older = &version.runs[run + 1..];
    let step = (table.record.entries / SAMPLES).max(1);
    let mut entries = Scanned.iterate(table.handle.table()?);
    match &table.record.lower {
        Some(lower) => entries.seek(lower)?,
        None => entries.seek_to_first()?,
    }
    let mut hidden = Hidden::default();
    let (mut number, mut last_key) = (0u64, Vec::new());
    while entries.valid() {
        let key = entries.key();
        if number == 0 || key != last_key.as_slice() {
            if number.is_multiple_of(step)
                && let Some(bytes) = lookup.row_below(older, key)?
            {
                hidden.entries += step;
                hidden.bytes += bytes * step;
            }
            number += 1;
            if number.is_multiple_of(STOP_KEYS) && stops() {
                return Ok(None);
            }
            last_key.clear();
            last_key.extend_from_slice(entries.key());
        }
        entries.next()?;
    }
    Ok(Some(hidden))
}

/// The state of lookups in ascending order of keys.
#[derive(Default)]
struct Lookup {
    /// The average length of a row that shares its block, by table.
    rows: HashMap<FileNumber, u64>,
    last: LastBlock,
}

impl Lookup {
    /// The approximate size in bytes of the newest version of `key` in `runs`; `None` if there is
    /// none.
    fn row_below(&mut self, runs: &[Arc<Run>], key: &[u8]) -> Result<Option<u64>> {
        let hash = key_hash(key);
        for table in runs.iter().filter_map(|run| run.find(key)) {
            let open = table.handle.table()?;
            let is_there = match open.has_filter() {
                true => open.may_contain(hash),
                false => {
                    let guard = crossbeam::epoch::pin();
                    open.get_in_order(key, hash, SequenceNumber::MAX, &mut self.last, &guard)?.is_some()
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
                let entry_bytes = table.handle.file_bytes() / table.record.entries.max(1);
                bytes += table.record.tombstones * entry_bytes;
            }
        }
        bytes.min(self.file_bytes())
    }

    /// The bytes that the tombstones of `table` hide if each hides a row of average length of the
    /// tables below.
    pub fn guess(&self, run: usize, table: &RunTable) -> u64 {
        if table.record.tombstones == 0 {
            return 0;
        }
        let (mut bytes, mut entries) = (0, 0);
        for below in self.runs[run + 1..]
            .iter()
            .flat_map(|run| run.overlapping(Some(table.first()), Some(table.last())))
        {
            bytes += below.handle.file_bytes();
            entries += below.record.entries;
        }
        (u128::from(table.record.tombstones.min(entries)) * u128::from(bytes) / u128::from(entries.max(1)))
            as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(notes: &[(u64, u64)], snapshots: &[u64]) -> Held {
        let snapshots: Vec<SequenceNumber> = snapshots.iter().copied().map(SequenceNumber).collect();
        let mut held = Held::default();
        for (older, newer) in notes {
            held.note(SequenceNumber(*older), SequenceNumber(*newer), 1, &snapshots);
        }
        held
    }

    fn releasable(held: &Held, snapshots: &[u64]) -> u64 {
        let snapshots: Vec<SequenceNumber> = snapshots.iter().copied().map(SequenceNumber).collect();
        held.releasable(&snapshots)
    }

    /// The number of versions that some snapshot sees although a newer one exists, by checking each
    /// snapshot.
    fn needed(notes: &[(u64, u64)], snapshots: &[u64]) -> u64 {
        let is_seen = |(older, newer): &&(u64, u64)| snapshots.iter().any(|s| s >= older && s < newer);
        notes.iter().filter(is_seen).count() as u64
    }

    #[test]
    fn little_in_a_table_that_compresses_well_is_not_nothing() {
        let held = held(&[(1, 2)], &[1]).scaled(1000, 1_000_000);
        assert_eq!((held.bytes(), releasable(&held, &[1]), releasable(&held, &[])), (1, 0, 1));
        assert_eq!(Held::default().scaled(1000, 1_000_000).bytes(), 0);
    }

    #[test]
    fn what_is_held_goes_when_the_last_snapshot_that_sees_it_has_gone() {
        let notes: Vec<(u64, u64)> =
            (0..8).flat_map(|older| (older + 1..9).map(move |newer| (older, newer))).collect();
        // All sets of snapshots at the time of writing, and all their subsets that remain.
        for written in 0..256u32 {
            let at = |set: u32| (0..8u64).filter(move |s| set >> s & 1 == 1).collect::<Vec<_>>();
            let kept: Vec<(u64, u64)> =
                notes.iter().copied().filter(|note| needed(&[*note], &at(written)) == 1).collect();
            // As many as a table distinguishes.
            let kept = &kept[..kept.len().min(SPANS_MAX)];
            let held = held(kept, &at(written));
            assert_eq!(held.bytes(), kept.len() as u64);
            let mut left = written;
            loop {
                let free = kept.len() as u64 - needed(kept, &at(left));
                assert_eq!(
                    releasable(&held, &at(left)),
                    free,
                    "{kept:?}, {:?} of {:?}",
                    at(left),
                    at(written)
                );
                if left == 0 {
                    break;
                }
                left = (left - 1) & written;
            }
        }
    }

    #[test]
    fn of_many_spans_none_goes_too_early() {
        let snapshots: Vec<u64> = (0..100).map(|i| i * 10).collect();
        let notes: Vec<(u64, u64)> = (0..99).map(|i| (i * 10, i * 10 + 5)).collect();
        let held = held(&notes, &snapshots);
        assert!(held.spans.len() <= SPANS_MAX);
        assert_eq!(held.bytes(), 99);
        assert_eq!(releasable(&held, &snapshots), 0);
        for gone in 0..100 {
            let left: Vec<u64> = snapshots.iter().copied().skip(gone).collect();
            assert!(releasable(&held, &left) <= 99 - needed(&notes, &left));
        }
        assert_eq!(releasable(&held, &[]), 99);
    }
}
