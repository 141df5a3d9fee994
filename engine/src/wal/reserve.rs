//! The places of records: reserved in order, and published in that order once they are complete.
use super::commit_ring::{CommitRing, LogPoint, Next, Tail, Taken};
use super::pool::full;
use super::segments::{POSITION_LIMIT, ROTATION_MARGIN, Segments, exhausted};
use crate::sync::backoff;
use sapwood_base::Result;
use sapwood_base::format::log_record;

/// Tickets in flight.
const RING_SLOTS: usize = 1024;

/// A range of the log that belongs to one writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reservation {
    /// First position.
    pub(crate) position: u64,
    /// Position after the last unit.
    pub(crate) end: u64,
    taken: Taken,
}

impl Reservation {
    /// The first position, with the number of commits before it.
    #[inline]
    pub(crate) fn start(&self) -> LogPoint {
        LogPoint { position: self.position, commits: self.taken.commits }
    }
}

/// What a record needs.
#[derive(Clone, Copy)]
pub(super) struct Request {
    units: u64,
    /// Whether it counts as a commit.
    is_commit: bool,
    /// Room to be left after it.
    margin: u64,
    /// The position that it must not reach beyond.
    limit: u64,
}

impl Request {
    /// For the record of a commit.
    #[inline]
    pub(super) fn commit(units: u64, segments: &Segments) -> Request {
        Request { is_commit: true, ..Request::other(units, segments) }
    }

    /// For a record that is no commit.
    #[inline]
    pub(super) fn other(units: u64, segments: &Segments) -> Request {
        Request { units, is_commit: false, margin: ROTATION_MARGIN, limit: segments.ordinary_limit }
    }

    /// For a rotation, which may take the room after ordinary records.
    pub(super) fn rotation() -> Request {
        let units = log_record::record_units(0);
        Request { units, is_commit: false, margin: 0, limit: POSITION_LIMIT }
    }
}

/// The places of one log.
pub(super) struct Places {
    tail: Tail,
    ring: CommitRing,
}

impl Places {
    pub(super) fn new(begin: LogPoint) -> Places {
        Places { tail: Tail::new(begin), ring: CommitRing::new(RING_SLOTS, begin) }
    }

    /// The state of the tail. `near`, here and below: see [`Segments::near`].
    #[inline]
    pub(super) fn tail(&self, near: u64) -> Next {
        self.tail.peek(near)
    }

    /// The position below which every operation is visible.
    #[inline]
    pub(super) fn published(&self, near: u64) -> u64 {
        self.ring.published(near)
    }

    /// That position, with the number of commits before it.
    pub(super) fn published_point(&self, near: u64) -> LogPoint {
        self.tail.published(&self.ring, near)
    }

    /// See [`Tail::fence`].
    pub(super) fn fence(&self, near: u64) -> u64 {
        self.tail.fence(near)
    }

    /// Reserves a place in `segments`. Without `provisions`, returns `NoSpace` where no segment is
    /// ready.
    #[inline]
    pub(super) fn reserve(
        &self,
        segments: &Segments,
        request: Request,
        provisions: bool,
    ) -> Result<Reservation> {
        let Request { units, is_commit, margin, limit } = request;
        let mut spins = 0;
        loop {
            let ready = segments.provisioned();
            let next = self.tail(ready);
            let end = next.position + units;
            if end > limit {
                return Err(exhausted());
            }
            if end + margin > ready {
                if !provisions {
                    return Err(full());
                }
                segments.provision(end + margin)?;
            } else if !self.ring.has_room(next.ticket()) {
                backoff(&mut spins);
                self.ring.advance();
            } else if let Some(taken) = self.tail.take(&next, end, is_commit) {
                return Ok(Reservation { position: next.position, end, taken });
            }
        }
    }

    /// Publishes a reservation: its bytes are in the log and in the memtable.
    #[inline]
    pub(super) fn complete(&self, at: &Reservation) {
        self.ring.complete(&at.taken);
    }

    /// Waits until everything below `position` is published. Earlier writers are late by at most a
    /// few copies.
    #[inline]
    pub(super) fn wait_published(&self, position: u64, near: impl Fn() -> u64) {
        let mut spins = 0;
        while self.published(near()) < position {
            self.ring.advance();
            backoff(&mut spins);
        }
    }

    /// Takes all room up to `end`, so that no further reservation succeeds, and waits for earlier
    /// writers. REQUIRES: nothing is provisioned any more, and `end` is where that ended.
    pub(super) fn seal(&self, end: u64) {
        let mut spins = 0;
        loop {
            let next = self.tail(end);
            if next.position >= end {
                return self.wait_published(end, || end);
            }
            if self.ring.has_room(next.ticket())
                && let Some(taken) = self.tail.take(&next, end, false)
            {
                // No record marks this range: to a reader the log ends before it.
                self.ring.complete(&taken);
            }
            self.ring.advance();
            backoff(&mut spins);
        }
    }
}
