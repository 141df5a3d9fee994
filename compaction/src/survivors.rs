//! Decides which entries survive a flush or a merge, and in what form.
//!
//! Entries come in internal order; the survivors are written. The live snapshots cut the history of
//! a key into stripes. Of the versions in one stripe, readers see the newest only. Each version is
//! checked in this order:
//!
//! 1. Does its stripe hold a newer version of the key? Then no reader sees it, and it is dropped.
//! 2. Does a snapshot lie below it? Then that snapshot must not see it, and it is written as it is.
//! 3. May data older than all entries hold the key? Then it still hides that data, and it is
//!    written as it is.
//! 4. It is the oldest version that is left. A tombstone hides nothing and is dropped. A put is
//!    written; in the last level it loses its sequence number, which no reader needs.
//!
//! Architecture invariant: no other file drops, keeps or changes an entry on its way down the tree.
//! Flush, merge and the cleaning of indexes, whose deletions go through a flush, differ only in
//! their sources and in [`Older`].
use crate::garbage;
use crate::options::LAST_LEVEL;
use crate::planted;
use crate::version::{Run, RunTable};
use sapwood_base::iterator::InternalIterator;
use sapwood_base::key::key_prefix;
use sapwood_base::{Error, ErrorKind, Result, SequenceNumber, ValueKind};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The number of entries between two checks whether a walk should stop.
const STOP_ENTRIES: u32 = 4096;

/// Data older than all entries of a flush or a merge.
#[derive(Clone, Copy)]
pub enum Older<'a> {
    /// There is none.
    Nothing,
    /// The data of these runs.
    Runs(&'a [Arc<Run>]),
    /// Data that is unknown here, such as the tree of an index.
    Unknown,
}

impl Older<'_> {
    /// Whether the older data may hold `key`.
    #[inline]
    fn may_hold(&self, key: &[u8]) -> bool {
        match self {
            Older::Nothing => false,
            Older::Runs(runs) => runs.iter().any(|run| run.find(key).is_some()),
            Older::Unknown => true,
        }
    }

    /// Whether the older data holds no key at all.
    fn is_nothing(&self) -> bool {
        match self {
            Older::Nothing => true,
            Older::Runs(runs) => runs.is_empty(),
            Older::Unknown => false,
        }
    }
}

/// Whether a merge of `table`, of `level`, with only itself drops any of its bytes. Decided without
/// reading the file. `snapshots` are the live ones, ascending.
pub fn any_goes(table: &RunTable, level: u8, older: Older<'_>, snapshots: &[SequenceNumber]) -> bool {
    // Tombstones of the last level were kept for snapshots, so `releasable` includes them.
    let tombstones_go = table.meta.tombstones > 0 && level != LAST_LEVEL && older.is_nothing();
    tombstones_go || table.meta.lower.is_some() || garbage::releasable(table, snapshots) > 0
}

/// An entry that is written.
pub struct Survivor<'a> {
    /// The user key.
    pub key: &'a [u8],
    /// Whether it is the newest survivor of its key.
    pub is_newest: bool,
    /// Its sequence number; zero if all readers may see it.
    pub sequence: SequenceNumber,
    /// Put or delete.
    pub kind: ValueKind,
    /// The value; empty for a tombstone.
    pub value: &'a [u8],
    /// The snapshots for which alone it is written, if any.
    pub held_for: Option<Range<SequenceNumber>>,
}

/// The outcome for an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    /// Written with sequence number zero, because all readers may see it.
    KeepAsOldest,
    Drop,
}

/// A walk over entries in internal order that yields the survivors.
pub struct Survivors<'a, I> {
    entries: I,
    rules: Rules<'a>,
    /// The exclusive upper bound of the walk.
    upper: Option<&'a [u8]>,
    stop: Option<&'a AtomicBool>,
}

impl<'a, I: InternalIterator> Survivors<'a, I> {
    /// Creates a walk over `entries` from their current position, on their way into `level`.
    /// `older` is the data below all of them. `snapshots` are the live ones, ascending.
    pub fn new(entries: I, level: u8, older: Older<'a>, snapshots: &'a [SequenceNumber]) -> Survivors<'a, I> {
        debug_assert!(snapshots.is_sorted());
        let rules = Rules {
            snapshots: planted::needed_snapshots(snapshots),
            older,
            is_last_level: level == LAST_LEVEL,
            stripe: 0,
        };
        Survivors { entries, rules, upper: None, stop: None }
    }

    /// Ends the walk before the key `upper`, if there is one.
    pub fn below(self, upper: Option<&'a [u8]>) -> Survivors<'a, I> {
        Survivors { upper, ..self }
    }

    /// Ends the walk with [`ErrorKind::Closed`] soon after `stop` is set.
    pub fn until(self, stop: &'a AtomicBool) -> Survivors<'a, I> {
        Survivors { stop: Some(stop), ..self }
    }

    /// Passes the survivors to `write`, in order. The first error ends the walk.
    ///
    /// The state of the walk is in local variables. In a struct that is called for each survivor it
    /// costs eight instructions per entry.
    #[inline]
    pub fn try_for_each(self, mut write: impl FnMut(Survivor<'_>) -> Result<()>) -> Result<()> {
        let Survivors { mut entries, mut rules, upper, stop } = self;
        let upper_prefix = upper.map(key_prefix);
        let mut last_key: Vec<u8> = Vec::new();
        let mut is_first = true;
        let mut read = 0u32;
        // The sequence number of the previous survivor.
        let mut newer = SequenceNumber::ZERO;
        while entries.valid() {
            let key = entries.key();
            let is_newest = is_first || key != last_key.as_slice();
            if is_newest {
                if let (Some(prefix), Some(upper)) = (upper_prefix, upper)
                    && key_prefix(key) >= prefix
                    && key >= upper
                {
                    break;
                }
                is_first = false;
                last_key.clear();
                last_key.extend_from_slice(key);
            }
            read = read.wrapping_add(1);
            // Relaxed: the flag carries no data.
            if read.is_multiple_of(STOP_ENTRIES) && stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(Error::new(ErrorKind::Closed, "the compaction was stopped"));
            }
            let (sequence, kind) = (entries.sequence(), entries.kind());
            let sequence = match rules.decide(is_newest, key, sequence, kind) {
                Fate::Keep => Some(sequence),
                Fate::KeepAsOldest => Some(SequenceNumber::ZERO),
                Fate::Drop => None,
            };
            if let Some(sequence) = sequence {
                let held_for = rules.held_for(is_newest, sequence, newer, kind);
                newer = sequence;
                write(Survivor { key, is_newest, sequence, kind, value: entries.value(), held_for })?;
            }
            entries.next()?;
        }
        Ok(())
    }
}

/// The state of the four checks.
struct Rules<'a> {
    /// Ascending.
    snapshots: &'a [SequenceNumber],
    older: Older<'a>,
    is_last_level: bool,
    /// The stripe of the last version that opened one. It belongs to the current key, unless that
    /// key is new.
    stripe: usize,
}

impl Rules<'_> {
    /// The four checks of the module. `is_newest`: no newer entry has its key.
    #[inline(always)]
    fn decide(&mut self, is_newest: bool, key: &[u8], sequence: SequenceNumber, kind: ValueKind) -> Fate {
        if planted::keeps_all_versions() {
            return Fate::Keep;
        }
        // The stripe of a version is the number of snapshots that cannot see it.
        let stripe = if self.snapshots.is_empty() {
            0
        } else {
            self.snapshots.partition_point(|snapshot| planted::is_older_than(*snapshot, sequence))
        };
        if !is_newest && self.stripe == stripe {
            return Fate::Drop;
        }
        if planted::drops_newest(is_newest, stripe, self.snapshots.len()) {
            return Fate::Drop;
        }
        self.stripe = stripe;
        if stripe != 0 {
            return Fate::Keep;
        }
        // The check costs a search in every older run, so it is made only where the result matters.
        let asks = kind == ValueKind::Delete || self.is_last_level;
        match kind {
            _ if !asks || self.older.may_hold(key) => Fate::Keep,
            ValueKind::Delete => Fate::Drop,
            ValueKind::Put => Fate::KeepAsOldest,
        }
    }

    /// The snapshots for which alone a survivor is written, if any. `newer` is the sequence number
    /// of the previous survivor, which has the same key unless this one `is_newest`.
    #[inline(always)]
    fn held_for(
        &self,
        is_newest: bool,
        sequence: SequenceNumber,
        newer: SequenceNumber,
        kind: ValueKind,
    ) -> Option<Range<SequenceNumber>> {
        if !is_newest {
            return Some(sequence..newer);
        }
        // In the last level a tombstone hides only versions that a snapshot sees.
        let is_bottom = self.is_last_level && !matches!(self.older, Older::Unknown);
        (kind == ValueKind::Delete && is_bottom).then_some(SequenceNumber::ZERO..sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ValueKind::{Delete, Put};

    /// A version: sequence number and kind. The value of a put is its number.
    type Version = (u64, ValueKind);

    /// Entries in memory, for forward walks.
    struct List {
        entries: Vec<(&'static str, Version, Vec<u8>)>,
        at: usize,
    }

    fn list(keys: &[(&'static str, &[Version])]) -> List {
        let of_key = |(key, versions): &(&'static str, &[Version])| {
            let key = *key;
            let entry = move |version: &Version| match version.1 {
                Put => (key, *version, version.0.to_le_bytes().to_vec()),
                Delete => (key, *version, Vec::new()),
            };
            versions.iter().map(entry).collect::<Vec<_>>()
        };
        List { entries: keys.iter().flat_map(of_key).collect(), at: 0 }
    }

    impl InternalIterator for List {
        fn valid(&self) -> bool {
            self.at < self.entries.len()
        }
        fn next(&mut self) -> Result<()> {
            self.at += 1;
            Ok(())
        }
        fn key(&self) -> &[u8] {
            self.entries[self.at].0.as_bytes()
        }
        fn sequence(&self) -> SequenceNumber {
            SequenceNumber(self.entries[self.at].1.0)
        }
        fn kind(&self) -> ValueKind {
            self.entries[self.at].1.1
        }
        fn value(&self) -> &[u8] {
            &self.entries[self.at].2
        }
        fn seek_to_first(&mut self) -> Result<()> {
            unreachable!("a walk starts where it is")
        }
        fn seek_to_last(&mut self) -> Result<()> {
            unreachable!("a walk goes forward")
        }
        fn seek(&mut self, _: &[u8]) -> Result<()> {
            unreachable!("a walk goes forward")
        }
        fn seek_before(&mut self, _: &[u8]) -> Result<()> {
            unreachable!("a walk goes forward")
        }
        fn prev(&mut self) -> Result<()> {
            unreachable!("a walk goes forward")
        }
    }

    /// A survivor, without its borrows.
    #[derive(Debug, PartialEq, Eq)]
    struct Written {
        key: String,
        is_newest: bool,
        sequence: u64,
        kind: ValueKind,
        value: Vec<u8>,
        held_for: Option<Range<u64>>,
    }

    fn written(survivors: Survivors<'_, List>) -> Result<Vec<Written>> {
        let mut written = Vec::new();
        survivors.try_for_each(|survivor| {
            written.push(Written {
                key: String::from_utf8(survivor.key.to_vec()).expect("a key of the test"),
                is_newest: survivor.is_newest,
                sequence: survivor.sequence.0,
                kind: survivor.kind,
                value: survivor.value.to_vec(),
                held_for: survivor.held_for.map(|range| range.start.0..range.end.0),
            });
            Ok(())
        })?;
        Ok(written)
    }

    /// The reader without a snapshot.
    const LATEST: u64 = 1000;

    /// The version that a reader at `at` sees.
    fn met(versions: &[Version], at: u64) -> Option<Version> {
        versions.iter().copied().find(|(sequence, _)| *sequence <= at)
    }

    /// The expected output for `versions`, newest first, by the definition: checks each reader.
    fn expected(versions: &[Version], snapshots: &[u64], is_last: bool, is_free: bool) -> Vec<Written> {
        let mut expected = Vec::new();
        for &(sequence, kind) in versions {
            let version = Some((sequence, kind));
            let readers: Vec<u64> =
                snapshots.iter().copied().filter(|at| met(versions, *at) == version).collect();
            let is_current = met(versions, LATEST) == version;
            let is_oldest = is_free && snapshots.iter().all(|at| *at >= sequence);
            let is_read = is_current || !readers.is_empty();
            if !is_read || kind == Delete && is_oldest {
                continue;
            }
            let number = if kind == Put && is_oldest && is_last { 0 } else { sequence };
            let newer = versions.iter().rev().find(|newer| {
                newer.0 > sequence
                    && (met(versions, LATEST) == Some(**newer)
                        || snapshots.iter().any(|at| met(versions, *at) == Some(**newer)))
            });
            expected.push(Written {
                key: String::new(),
                is_newest: is_current,
                sequence: number,
                kind,
                value: if kind == Put { sequence.to_le_bytes().to_vec() } else { Vec::new() },
                held_for: match newer {
                    Some((newer, _)) => Some(number..*newer),
                    None => (kind == Delete && is_last && is_free).then_some(0..sequence),
                },
            });
        }
        expected
    }

    #[test]
    fn what_is_written_is_what_some_reader_meets() {
        // All histories of up to five versions of a key, with all sets of snapshots among them.
        for (count, kinds) in (0..6u32).flat_map(|count| (0..1u32 << count).map(move |kinds| (count, kinds)))
        {
            let kind = |i: u32| if kinds >> i & 1 == 1 { Put } else { Delete };
            let history: Vec<Version> = (0..count).rev().map(|i| (10 + u64::from(i) * 10, kind(i))).collect();
            // One key before and one after, so that the state of one key is not used for another.
            let other = [(60, kind(0)), (30, kind(1)), (20, kind(2))];
            for set in 0..128u32 {
                let at: Vec<u64> = (0..7u64).filter(|i| set >> i & 1 == 1).map(|i| i * 10).collect();
                let snapshots: Vec<SequenceNumber> = at.iter().copied().map(SequenceNumber).collect();
                for (level, is_free) in [(0, false), (0, true), (LAST_LEVEL, false), (LAST_LEVEL, true)] {
                    let older = if is_free { Older::Nothing } else { Older::Unknown };
                    let keys: [(&str, &[Version]); 3] = [("a", &other), ("b", &history), ("c", &other)];
                    let survivors = Survivors::new(list(&keys), level, older, &snapshots);
                    let written = written(survivors).expect("nothing fails");
                    let mut rest = written.iter();
                    for (key, versions) in keys {
                        let is_last = level == LAST_LEVEL;
                        for expected in expected(versions, &at, is_last, is_free) {
                            let found = rest.next().expect("as many as expected");
                            let expected = Written { key: key.to_owned(), ..expected };
                            assert_eq!(
                                *found, expected,
                                "{versions:?} for {at:?} into level {level}, free below: {is_free}"
                            );
                        }
                    }
                    assert!(rest.next().is_none(), "{written:?}");
                    every_reader_reads_the_same(&history, &written, &at, is_free);
                }
            }
        }
    }

    /// Readers of key `b`, with a put below if there may be one, read the same as before.
    fn every_reader_reads_the_same(
        history: &[Version],
        written: &[Written],
        snapshots: &[u64],
        is_free: bool,
    ) {
        let below = (!is_free).then_some(0);
        for at in snapshots.iter().copied().chain([LATEST]) {
            let before = match met(history, at) {
                Some((sequence, Put)) => Some(sequence),
                Some((_, Delete)) => None,
                None => below,
            };
            let after = match written.iter().find(|entry| entry.key == "b" && entry.sequence <= at) {
                Some(entry) if entry.kind == Put => {
                    Some(u64::from_le_bytes(entry.value.as_slice().try_into().expect("eight bytes")))
                }
                Some(_) => None,
                None => below,
            };
            assert_eq!(after, before, "at {at} of {history:?}, for {snapshots:?}");
        }
    }

    #[test]
    fn a_walk_ends_before_its_upper_bound() {
        let put: &[Version] = &[(20, Put)];
        let keys = ["a", "b", "c"].map(|key| (key, put));
        for (upper, count) in [(None, 3), (Some("d"), 3), (Some("c"), 2), (Some("bb"), 2), (Some("a"), 0)] {
            let survivors = Survivors::new(list(&keys), LAST_LEVEL, Older::Nothing, &[]);
            let survivors = survivors.below(upper.map(str::as_bytes));
            assert_eq!(written(survivors).expect("nothing fails").len(), count, "{upper:?}");
        }
    }

    #[test]
    fn a_walk_that_returns_nothing_can_be_stopped() {
        let stop = AtomicBool::new(false);
        let versions = vec![(20, Delete); 2 * STOP_ENTRIES as usize];
        let walk = || {
            let entries = list(&[("a", &versions)]);
            written(Survivors::new(entries, LAST_LEVEL, Older::Nothing, &[]).until(&stop))
        };
        assert!(walk().expect("it goes on to the end").is_empty());
        stop.store(true, Ordering::Relaxed);
        assert_eq!(walk().expect_err("it is stopped").kind(), ErrorKind::Closed);
    }
}
