//! Publication in order: writers finish in any order, readers see a prefix.
//!
//! A writer reserves with one atomic operation on the log's tail, which assigns a *ticket* (its
//! place in line) and a position. When its bytes are in the log and the memtable, it stores its end
//! position under its ticket. The next writer that looks moves `published` over all tickets that
//! are done without a gap. One word for ticket and position, and helping instead of handing over,
//! spare the leader and the wake-ups of a group commit.
//!
//! Progress: every writer calls [`CommitRing::advance`] until its own end is published, so a store
//! that another writer missed (both may look before they see each other's store) is picked up by
//! its own writer.
use crate::planted;
use crate::sync::{AtomicU64, Ordering, backoff, step};

/// Bits of a position in a word: its lowest. [`position_of`] finds the others.
const POSITION_BITS: u32 = 41;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
/// Bits of a number of commits in a word. [`Tail`] finds the others.
const COMMIT_BITS: u32 = 12;
const COMMIT_MASK: u64 = ((1 << COMMIT_BITS) - 1) << POSITION_BITS;
/// Bits of a ticket, the highest ones.
const TICKET_SHIFT: u32 = POSITION_BITS + COMMIT_BITS;
/// Tickets wrap at this number.
pub(crate) const TICKETS: u64 = 1 << (64 - TICKET_SHIFT);
/// The tail notes the number of commits whenever this many more have a place.
const NOTED_COMMITS: u64 = 512;
/// A word determines a number of commits that is less than half of `1 << COMMIT_BITS` away from the
/// noted one. All tickets before those in flight have noted theirs.
const _: () = assert!(TICKETS / 2 + NOTED_COMMITS < 1 << (COMMIT_BITS - 1));

/// A position in the log, and the number of commits before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct LogPoint {
    pub(crate) position: u64,
    pub(crate) commits: u64,
}

/// A ticket, a number of commits and a position in one word.
#[inline]
fn pack(ticket: u64, at: LogPoint) -> u64 {
    ticket << TICKET_SHIFT | at.commits << POSITION_BITS & COMMIT_MASK | at.position & POSITION_MASK
}

/// The ticket of a word.
#[inline]
fn ticket_of(word: u64) -> u64 {
    word >> TICKET_SHIFT
}

/// The number closest to `near` that has the lowest `bits` of `low`.
#[inline]
fn nearest(low: u64, bits: u32, near: u64) -> u64 {
    let unused = 64 - bits;
    let distance = (low.wrapping_sub(near) << unused) as i64 >> unused;
    near.wrapping_add_signed(distance)
}

/// The position of a word. REQUIRES: `near` is less than 2^40 away from it, 8 TiB of log: the log
/// between two positions that are compared is never that long.
#[inline]
fn position_of(word: u64, near: u64) -> u64 {
    planted::carried(nearest(word, POSITION_BITS, near), near, POSITION_MASK)
}

/// A place that a writer has taken in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    /// The number of commits before it.
    pub(crate) commits: u64,
    /// The word after it: what its ticket publishes.
    done: u64,
}

/// The end of the log: the next ticket, the number of commits and the next position, handed out
/// together.
pub(crate) struct Tail {
    word: crossbeam::utils::CachePadded<AtomicU64>,
    /// A number of commits near that of the word.
    noted: crossbeam::utils::CachePadded<AtomicU64>,
}

/// A state of the tail, which may have changed since.
#[derive(Clone, Copy)]
pub(crate) struct Next {
    word: u64,
    pub(crate) position: u64,
}

impl Next {
    /// The next ticket.
    #[inline]
    pub(crate) fn ticket(&self) -> u64 {
        ticket_of(self.word)
    }
}

impl Tail {
    /// A tail at `start`.
    pub(crate) fn new(start: LogPoint) -> Tail {
        Tail {
            word: crossbeam::utils::CachePadded::new(AtomicU64::new(pack(0, start))),
            noted: crossbeam::utils::CachePadded::new(AtomicU64::new(start.commits)),
        }
    }

    /// The present state. Its position is near `near`.
    #[inline]
    pub(crate) fn peek(&self, near: u64) -> Next {
        // Relaxed: a caller that acts on it does so through `take`, which checks it again.
        let word = self.word.load(Ordering::Relaxed);
        Next { word, position: position_of(word, near) }
    }

    /// The next position, in order with every [`Tail::take`]. The caller's earlier writes
    /// happen-before every later take; the positions of every earlier take are below it.
    pub(crate) fn fence(&self, near: u64) -> u64 {
        // AcqRel: stands among the exchanges of `take` as one of them.
        position_of(self.word.fetch_add(0, Ordering::AcqRel), near)
    }

    /// Takes the range from the position of `next` to `end`, unless another writer was faster.
    /// `is_commit`: it counts as one.
    #[inline]
    pub(crate) fn take(&self, next: &Next, end: u64, is_commit: bool) -> Option<Taken> {
        step();
        let word = next.word;
        let commits = word.wrapping_add(u64::from(is_commit) << POSITION_BITS) & COMMIT_MASK;
        let ticket = (word >> TICKET_SHIFT).wrapping_add(1) << TICKET_SHIFT;
        let done = ticket | commits | end & POSITION_MASK;
        // Relaxed: if the exchange succeeds, the word has not changed since it was loaded, so the
        // number that was noted since is near it.
        let noted = self.noted.load(Ordering::Relaxed);
        // AcqRel: a writer that takes a position after a rotation sees the generation that was
        // installed before the rotation took its own.
        self.word.compare_exchange_weak(word, done, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        let commits = nearest(word >> POSITION_BITS, COMMIT_BITS, noted);
        if is_commit && (commits + 1).is_multiple_of(NOTED_COMMITS) {
            // A maximum: a late writer must not take it back. Relaxed: this writer's ticket is in
            // flight, which bounds the commits that others add meanwhile.
            self.noted.fetch_max(commits + 1, Ordering::Relaxed);
        }
        Some(Taken { commits, done })
    }

    /// The number of commits of a word that `load` returns.
    fn commits_of(&self, load: impl Fn() -> u64) -> (u64, u64) {
        loop {
            let before = self.noted.load(Ordering::Acquire);
            let word = load();
            // Acquire: if the number was the same on both sides, it was near the word then.
            if self.noted.load(Ordering::Acquire) == before {
                return (nearest(word >> POSITION_BITS, COMMIT_BITS, before), word);
            }
        }
    }

    /// Where `ring` has published everything below; near `near`.
    pub(crate) fn published(&self, ring: &CommitRing, near: u64) -> LogPoint {
        // Acquire: as in `CommitRing::published`.
        let (commits, word) = self.commits_of(|| ring.published.load(Ordering::Acquire));
        LogPoint { position: position_of(word, near), commits }
    }
}

/// The start of a generation that has no place in the log yet.
const PENDING: u64 = u64::MAX;

/// Where a memtable generation starts in the log.
///
/// A rotation publishes the new generation in the view with a pending start, takes a position, and
/// then stores it here. A writer that took a later position sees the new generation, because both
/// went through [`Tail::take`]. A writer that sees it with an earlier position belongs to the
/// previous generation.
pub(crate) struct StartPosition {
    position: AtomicU64,
    commits: AtomicU64,
}

impl StartPosition {
    /// A start that is known.
    pub(crate) fn at(start: LogPoint) -> StartPosition {
        StartPosition { position: AtomicU64::new(start.position), commits: AtomicU64::new(start.commits) }
    }

    /// A start to be set later.
    pub(crate) fn pending() -> StartPosition {
        StartPosition::at(LogPoint { position: PENDING, commits: 0 })
    }

    /// Sets a pending start.
    pub(crate) fn set(&self, start: LogPoint) {
        step();
        // Relaxed: the position publishes it.
        self.commits.store(start.commits, Ordering::Relaxed);
        // Release: pairs with the Acquire in `get`.
        self.position.store(start.position, Ordering::Release);
    }

    /// The position. Waits for a rotation under way, which is a few instructions long.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        let mut spins = 0;
        loop {
            match planted::start_of(self.position.load(Ordering::Acquire), PENDING) {
                PENDING => backoff(&mut spins),
                position => return position,
            }
        }
    }

    /// The position, and the commits before it.
    pub(crate) fn point(&self) -> LogPoint {
        let position = self.get();
        // Relaxed: the load of the position has acquired it.
        LogPoint { position, commits: self.commits.load(Ordering::Relaxed) }
    }
}

/// The ring of tickets that are done.
pub(crate) struct CommitRing {
    /// Next ticket to publish, and the number of commits and the position up to which everything is
    /// published. On a cache line of its own: readers poll it.
    published: crossbeam::utils::CachePadded<AtomicU64>,
    /// By ticket: the word after it, once it is done.
    done: Box<[AtomicU64]>,
}

impl CommitRing {
    /// A ring of `slots` (a power of two) tickets, with everything below `start` published.
    pub(crate) fn new(slots: usize, start: LogPoint) -> CommitRing {
        assert!(slots.is_power_of_two() && slots as u64 <= TICKETS / 2);
        // A slot holds the word of an earlier lap until its ticket is done.
        let done = (0..slots as u64)
            .map(|slot| AtomicU64::new(pack((slot + 1).wrapping_sub(slots as u64), start)))
            .collect();
        CommitRing { published: crossbeam::utils::CachePadded::new(AtomicU64::new(pack(0, start))), done }
    }

    /// The position, near `near`, below which every operation is visible.
    #[inline]
    pub(crate) fn published(&self, near: u64) -> u64 {
        // Acquire: pairs with the Release of `advance`; all inserts below the position are visible.
        position_of(self.published.load(Ordering::Acquire), near)
    }

    /// Whether `ticket` may be used: its slot's earlier lap is published.
    #[inline]
    pub(crate) fn has_room(&self, ticket: u64) -> bool {
        // Acquire: the store of our ticket must come after the store it replaces was read.
        let published = ticket_of(self.published.load(Ordering::Acquire));
        (ticket + TICKETS - published) % TICKETS < self.done.len() as u64
    }

    /// Marks a place as done, and publishes what can be.
    #[inline]
    pub(crate) fn complete(&self, taken: &Taken) {
        step();
        let slot = self.slot(ticket_of(taken.done).wrapping_sub(1));
        // Release: pairs with the Acquire in `advance`; makes the writer's inserts visible to the
        // thread that publishes them.
        slot.store(taken.done, planted::releases_inserts());
        self.advance();
    }

    #[inline]
    fn slot(&self, ticket: u64) -> &AtomicU64 {
        &self.done[ticket as usize & (self.done.len() - 1)]
    }

    /// Publishes every ticket that is done without a gap.
    #[inline]
    pub(crate) fn advance(&self) {
        let mut published = self.published.load(Ordering::Acquire);
        loop {
            let ticket = ticket_of(published);
            let done = self.slot(ticket).load(Ordering::Acquire);
            if ticket_of(done) != (ticket + 1) % TICKETS {
                return;
            }
            step();
            // AcqRel: releases this ticket's inserts to readers, and acquires those of the tickets
            // before.
            match self.published.compare_exchange(published, done, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => published = done,
                Err(current) => published = current,
            }
        }
    }
}

#[cfg(all(test, not(sapwood_loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    const SLOTS: usize = 4;

    fn at(position: u64) -> LogPoint {
        LogPoint { position, commits: position / 3 }
    }

    /// Takes the next place.
    fn take(tail: &Tail, ring: &CommitRing, units: u64, is_commit: bool) -> Option<(u64, Taken)> {
        let next = tail.peek(ring.published(0));
        if !ring.has_room(next.ticket()) {
            return None;
        }
        Some((next.position, tail.take(&next, next.position + units, is_commit)?))
    }

    #[test]
    fn tickets_done_out_of_order_are_published_in_order() {
        let (tail, ring) = (Tail::new(at(100)), CommitRing::new(SLOTS, at(100)));
        let places: Vec<_> = (0..4).map(|_| take(&tail, &ring, 10, true).expect("room").1).collect();
        assert!(take(&tail, &ring, 10, true).is_none(), "the ring is full");
        ring.complete(&places[1]);
        assert_eq!(ring.published(0), 100);
        ring.complete(&places[0]);
        assert_eq!(tail.published(&ring, 0), LogPoint { position: 120, commits: 35 });
        assert!(take(&tail, &ring, 10, true).is_some() && take(&tail, &ring, 10, true).is_some());
        assert!(take(&tail, &ring, 10, true).is_none());
    }

    #[test]
    fn tickets_and_numbers_of_commits_wrap() {
        let (tail, ring) = (Tail::new(at(0)), CommitRing::new(SLOTS, at(0)));
        let mut commits = 0;
        for place in 0..(TICKETS << COMMIT_BITS) / 64 + 3 {
            let is_commit = place % 7 != 0;
            let (position, taken) = take(&tail, &ring, 1, is_commit).expect("room");
            assert_eq!((position, taken.commits), (place, commits));
            commits += u64::from(is_commit);
            ring.complete(&taken);
            assert_eq!(tail.published(&ring, place), LogPoint { position: place + 1, commits });
        }
    }

    #[test]
    fn positions_go_on_beyond_the_bits_of_a_word() {
        for start in [0, (1 << POSITION_BITS) - 3, (5 << POSITION_BITS) - 3, (1 << 57) - 1000] {
            let (tail, ring) = (Tail::new(at(start)), CommitRing::new(SLOTS, at(start)));
            let mut position = start;
            for units in [1, 2, 1 << 38, 7] {
                // The other position may lie on both sides.
                for near in [position.saturating_sub(1 << 39), position, position + (1 << 39)] {
                    assert_eq!(tail.peek(near).position, position);
                    assert_eq!(tail.fence(near), position);
                    assert_eq!(ring.published(near), position);
                }
                let next = tail.peek(position);
                let taken = tail.take(&next, position + units, true).expect("no other writer");
                position += units;
                ring.complete(&taken);
            }
        }
    }

    #[test]
    fn threads_publish_every_ticket_and_number_every_commit() {
        let shared = Arc::new((Tail::new(at(0)), CommitRing::new(8, at(0))));
        let threads: Vec<_> = (0..3u64)
            .map(|thread| {
                let shared = shared.clone();
                std::thread::Builder::new()
                    .spawn(move || {
                        let (tail, ring) = &*shared;
                        let mut numbers = Vec::new();
                        for round in 0..20_000 {
                            let is_commit = (round + thread) % 5 != 0;
                            let (position, taken) = loop {
                                if let Some(taken) = take(tail, ring, 1, is_commit) {
                                    break taken;
                                }
                                std::thread::yield_now();
                            };
                            numbers.extend(is_commit.then_some((position, taken.commits)));
                            ring.complete(&taken);
                            while ring.published(position) <= position {
                                ring.advance();
                                std::thread::yield_now();
                            }
                        }
                        numbers
                    })
                    .unwrap()
            })
            .collect();
        let mut numbers: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        numbers.sort_unstable();
        // In the order of positions, without a gap.
        assert!(numbers.iter().map(|(_, number)| *number).eq(0..48_000));
        assert_eq!(shared.0.published(&shared.1, 0), LogPoint { position: 60_000, commits: 48_000 });
    }
}
