//! The segments of the log: which of them are in use, and which can be recycled.
use crate::planted;
use sapwood_base::{Error, ErrorKind, FileNumber, Result};
use std::collections::VecDeque;

/// Segments that can be in use at the same time.
pub(crate) const SEGMENTS_MAX: usize = 1024;
/// Limit of segments provisioned ahead of the writers.
pub(super) const AHEAD_MAX: u64 = 3;

/// Size, number and access of the segments of a log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentOptions {
    /// Bytes of the first segment.
    pub(crate) first_bytes: usize,
    /// Bytes of a segment of full length.
    pub(crate) bytes: usize,
    /// Number of segments kept, including those in use; any beyond it are removed after use.
    pub(crate) kept: usize,
    /// Whether they are mapped.
    pub(crate) mapped: bool,
}

impl SegmentOptions {
    /// Segments of `first_bytes` to `bytes` for the log of `memtables_bytes` that are not flushed.
    pub(crate) fn new(
        first_bytes: usize,
        bytes: usize,
        memtables_bytes: usize,
        mapped: bool,
    ) -> SegmentOptions {
        // Memtables overshoot a little, and their log lies across segments.
        let needed = memtables_bytes.saturating_add(memtables_bytes / 8).div_ceil(bytes);
        let kept = needed.saturating_add(AHEAD_MAX as usize + 2).min(SEGMENTS_MAX);
        SegmentOptions { first_bytes, bytes, kept, mapped }
    }
}

/// A file that can become a segment of its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SpareFile {
    pub(crate) file: FileNumber,
    pub(crate) bytes: u64,
}

/// A segment of an earlier session that is still needed.
pub(crate) struct RetainedSegment {
    pub(crate) file: FileNumber,
    pub(crate) end_position: u64,
    pub(crate) file_bytes: u64,
}

/// The segments by their state. A *number* counts segments from the start of this log, a *slot* is
/// the place of an open file.
#[derive(Default)]
pub(super) struct Pool {
    /// Segments in use: number and slot, oldest first.
    pub(super) used: VecDeque<(u64, usize)>,
    /// Slots whose segments can be recycled, with the bytes of those.
    pub(super) spare: Vec<(usize, u64)>,
    /// Files that are not open.
    pub(super) spare_files: Vec<SpareFile>,
    /// Files of earlier sessions.
    pub(super) retained: Vec<RetainedSegment>,
    /// The number of the next segment.
    pub(super) next: u64,
    /// Bytes of open segments.
    pub(super) open_bytes: u64,
    /// Slots that were ever filled.
    slots: usize,
    /// Those of them that are empty again.
    vacant: Vec<usize>,
    /// Set when the log is closed: no further segment is provisioned.
    pub(super) sealed: bool,
}

/// Segments that the log no longer needs and does not keep.
#[derive(Default)]
pub(super) struct Surplus {
    /// Slots of open ones, which are in no list any more, with their bytes.
    pub(super) open: Vec<(usize, u64)>,
    pub(super) files: Vec<FileNumber>,
}

/// Origin of the next segment.
pub(super) enum Source {
    /// One that is open already.
    Open(usize),
    /// This file, or a new one.
    File { file: Option<FileNumber>, slot: usize },
}

impl Pool {
    /// The pool of a new log, with the files of earlier sessions.
    pub(super) fn new(retained: Vec<RetainedSegment>, spare_files: Vec<SpareFile>) -> Pool {
        Pool { retained, spare_files, ..Pool::default() }
    }

    pub(super) fn check_open(&self) -> Result<()> {
        match self.sealed {
            true => Err(Error::new(ErrorKind::Closed, "the database is closed")),
            false => Ok(()),
        }
    }

    /// Takes the origin of the next segment, of `bytes`.
    pub(super) fn source(&mut self, bytes: u64) -> Result<Source> {
        self.check_open()?;
        if let Some(place) = self.spare.iter().rposition(|spare| spare.1 == bytes) {
            return Ok(Source::Open(self.spare.remove(place).0));
        }
        let slot = self.vacant.last().copied().unwrap_or(self.slots);
        if slot >= SEGMENTS_MAX {
            return Err(full());
        }
        let place = self.spare_files.iter().rposition(|spare| spare.bytes == bytes);
        Ok(Source::File { file: place.map(|place| self.spare_files.swap_remove(place).file), slot })
    }

    /// The first segment in use, or the next one.
    pub(super) fn oldest(&self) -> u64 {
        self.used.front().map_or(self.next, |(number, _)| *number)
    }

    /// The number after the last segment that can be in use now.
    pub(super) fn limit(&self) -> u64 {
        self.oldest() + SEGMENTS_MAX as u64
    }

    /// Notes that a slot of [`Source::File`] has a segment of `bytes`.
    pub(super) fn fill(&mut self, slot: usize, bytes: u64) {
        self.open_bytes += bytes;
        match self.vacant.iter().position(|vacant| *vacant == slot) {
            Some(at) => drop(self.vacant.swap_remove(at)),
            None => self.slots = slot + 1,
        }
    }

    /// Notes that a slot is empty, which had a segment of `bytes`. REQUIRES: it is in no list.
    pub(super) fn vacate(&mut self, slot: usize, bytes: u64) {
        self.open_bytes -= bytes;
        self.vacant.push(slot);
    }

    /// Empties all slots; returns how many there are.
    pub(super) fn close(&mut self) -> usize {
        self.vacant = (0..self.slots).collect();
        self.open_bytes = 0;
        self.used.clear();
        self.spare.clear();
        self.slots
    }

    /// Makes the segments that end at or below `position` spare, where `shape` returns the end of a
    /// segment and the length of its file, and one of full length has `bytes`. Returns those beyond
    /// the `kept` ones, and those that are shorter: the segments to come are not.
    pub(super) fn recycle(
        &mut self,
        position: u64,
        shape: impl Fn(u64) -> (u64, u64),
        bytes: u64,
        kept: usize,
    ) -> Surplus {
        let mut surplus = Surplus::default();
        // The segment that holds the tail, and the ones after it, are in use.
        while let Some((number, slot)) = self.used.front().copied()
            && let (end, file_bytes) = shape(number)
            && end <= position
        {
            self.used.pop_front();
            self.spare.push((slot, file_bytes));
        }
        if planted::short_segments_go() {
            surplus.open.extend(self.spare.extract_if(.., |spare| spare.1 < bytes));
        }
        while planted::surplus_segments_go()
            && self.used.len() + self.spare.len() > kept
            && let Some(spare) = self.spare.pop()
        {
            surplus.open.push(spare);
        }
        for segment in std::mem::take(&mut self.retained) {
            if segment.end_position > position {
                self.retained.push(segment);
            } else if segment.file_bytes == bytes
                && self.used.len() + self.spare.len() + self.spare_files.len() < kept
            {
                self.spare_files.push(SpareFile { file: segment.file, bytes });
            } else {
                surplus.files.push(segment.file);
            }
        }
        surplus
    }

    /// Takes every spare segment.
    pub(super) fn take_spares(&mut self) -> Surplus {
        let files = std::mem::take(&mut self.spare_files).iter().map(|spare| spare.file).collect();
        Surplus { open: std::mem::take(&mut self.spare), files }
    }
}

/// Every segment is in use. Resolved by the next flush.
#[cold]
pub(super) fn full() -> Error {
    Error::new(ErrorKind::NoSpace, "all segments of the log are in use until a flush gives some back")
}
