//! Garbage: what takes space and no reader needs. How much there is, and what has to go first.
//!
//! There are two sorts. Entries of newer runs *hide* older versions below them: a tombstone of a few bytes hides a row of
//! megabytes. How much is not seen in any file alone, so a [`Survey`] asks the older runs, by sampled keys, their filters and
//! the lengths of their blocks. And a table *holds* versions and tombstones that were kept when it was written for
//! snapshots that were alive then: the writer knows which, and how many bytes.
//!
//! All of it is memory only: it is known again after an opening by surveying, when there is time. Snapshots do not outlive
//! an opening, so what tables of an earlier one hold is free to go.
use crate::options::LAST_LEVEL;
use crate::version::iterator::{ReadTable, Scanned};
use crate::version::{Run, RunTable, Version};
use sapwood_base::iterator::InternalIterator;
use sapwood_base::key::key_hash;
use sapwood_base::{FileNumber, Result, SequenceNumber};
use sapwood_sstable::LastBlock;
use std::collections::HashMap;
use std::sync::Arc;

/// Keys of a table that a survey looks up, at most.
const SAMPLES: u64 = 8192;
/// Keys between two looks whether a survey should stop.
const STOP_KEYS: u64 = 1024;
/// Different spans that a table's [`Held`] tells apart.
const SPANS_MAX: usize = 16;

/// What the entries of a table hide in older runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden {
    /// Versions.
    pub entries: u64,
    /// About how many bytes they take in their files.
    pub bytes: u64,
}

/// Bytes that only snapshots in `[from, to]` need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: SequenceNumber,
    to: SequenceNumber,
    bytes: u64,
}

/// What a table holds for the sake of snapshots: versions with a newer one above, and tombstones in the last level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    spans: Vec<Span>,
}

impl Held {
    /// All of it, `bytes`, is needed by snapshots in `[from, to]` only.
    pub fn between(from: SequenceNumber, to: SequenceNumber, bytes: u64) -> Held {
        Held { spans: vec![Span { from, to, bytes }] }
    }

    /// Adds an entry that is read from `older` on, and no more from `newer` on. `snapshots` are those that it was kept
    /// for, ascending; one that none of them sees is not counted.
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
            // It goes later than it could, and never too early.
            *last = Span { from: last.from.min(from), to: last.to.max(to), bytes: last.bytes + bytes };
        } else {
            self.spans.push(Span { from, to, bytes });
        }
    }

    /// The same in bytes of the file, which holds `raw_bytes` of keys and values in `file_bytes`. Rounded up: a short
    /// version in a table that compresses well is no reason to take the table for one that holds nothing.
    pub fn scaled(mut self, file_bytes: u64, raw_bytes: u64) -> Held {
        for span in &mut self.spans {
            let bytes =
                (u128::from(span.bytes) * u128::from(file_bytes)).div_ceil(u128::from(raw_bytes.max(1)));
            span.bytes = bytes as u64;
        }
        self
    }

    /// Bytes, whether a snapshot needs them or not.
    pub fn bytes(&self) -> u64 {
        self.spans.iter().map(|span| span.bytes).sum()
    }

    /// Bytes that none of `snapshots`, ascending, needs: a merge leaves them out.
    pub fn releasable(&self, snapshots: &[SequenceNumber]) -> u64 {
        let is_free = |span: &&Span| {
            let first = snapshots.partition_point(|snapshot| *snapshot < span.from);
            snapshots.get(first).is_none_or(|snapshot| *snapshot > span.to)
        };
        self.spans.iter().filter(is_free).map(|span| span.bytes).sum()
    }
}

/// About how many bytes of `table` a merge of it alone leaves out; 0 if that is not known.
pub fn releasable(table: &RunTable, snapshots: &[SequenceNumber]) -> u64 {
    table.handle.held().map_or(0, |held| held.releasable(snapshots)).min(table.handle.file_bytes())
}

/// Whether `table`, of the last level, may hold something for snapshots and it is not known how much.
pub fn is_unknown(table: &RunTable) -> bool {
    // Entries that all readers see have no sequence number there.
    table.handle.held().is_none() && table.record.max_sequence > SequenceNumber::ZERO
}

/// Tables of which more must be known before it can be said whether merging them is worth it.
#[derive(Clone, Default)]
pub struct Survey {
    /// Tables with their runs, by the places of these in the version: what do they hide?
    pub hiding: Vec<(usize, RunTable)>,
    /// Tables of the last level: what do they hold?
    pub holding: Vec<RunTable>,
}

impl Survey {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.hiding.is_empty() && self.holding.is_empty()
    }

    /// Finds out, and takes it down in the tables. `version` is the one that the survey was made for. `stops` is asked now
    /// and then whether the rest is to be left for later.
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

/// What a table from an earlier opening holds: what is more than one entry for each key, and tombstones.
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

/// What the newest versions in `table`, a member of run number `run`, hide below. Each version is counted for the one that
/// is next above it, so the sum over all tables counts none twice. `None` if it `stops`.
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

/// What lookups in ascending order of keys remember.
#[derive(Default)]
struct Lookup {
    /// The length of a row that shares its block, by table.
    rows: HashMap<FileNumber, u64>,
    last: LastBlock,
}

impl Lookup {
    /// About how many bytes the newest version of `key` in `runs` takes; `None` if there is none.
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
    /// About how many bytes of the files a merge of everything would leave out if there were no snapshots. What was not
    /// surveyed is estimated: each tombstone hides a row of average length.
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
                // Tombstones themselves go as well.
                let entry_bytes = table.handle.file_bytes() / table.record.entries.max(1);
                bytes += table.record.tombstones * entry_bytes;
            }
        }
        bytes.min(self.file_bytes())
    }

    /// What the tombstones of `table` hide if each of them hides a row of average length of the tables below.
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

    /// The number of versions that some snapshot sees although a newer one is there, by asking each snapshot.
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
        // All sets of snapshots at the writing, and all parts of them that are left.
        for written in 0..256u32 {
            let at = |set: u32| (0..8u64).filter(move |s| set >> s & 1 == 1).collect::<Vec<_>>();
            let kept: Vec<(u64, u64)> =
                notes.iter().copied().filter(|note| needed(&[*note], &at(written)) == 1).collect();
            // As many as a table tells apart.
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
