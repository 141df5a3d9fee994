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
use crate::sync::{AtomicU64, Ordering, backoff, step};
use sapwood_base::planted::{self, Bug};

/// Bits of a position in a word: its lowest. [`position_of`] finds the others.
const POSITION_BITS: u32 = 44;
const POSITION_MASK: u64 = (1 << POSITION_BITS) - 1;
/// Tickets wrap at this number.
pub(crate) const TICKETS: u64 = 1 << (64 - POSITION_BITS);

/// A ticket above a position in one word.
#[inline]
pub(crate) fn pack(ticket: u64, position: u64) -> u64 {
    (ticket % TICKETS) << POSITION_BITS | (position & POSITION_MASK)
}

/// The ticket of a word.
#[inline]
pub(crate) fn ticket_of(word: u64) -> u64 {
    word >> POSITION_BITS
}

/// The position of a word. REQUIRES: `near` is less than 2^43 away from it: the log between two
/// positions that are compared is never that long.
#[inline]
pub(crate) fn position_of(word: u64, near: u64) -> u64 {
    const UNUSED: u32 = 64 - POSITION_BITS;
    if planted::is(Bug::WordWithoutCarry) {
        return near & !POSITION_MASK | word & POSITION_MASK;
    }
    let distance = (word.wrapping_sub(near) << UNUSED) as i64 >> UNUSED;
    near.wrapping_add_signed(distance)
}

/// The end of the log: the next ticket and the next position, handed out together.
pub(crate) struct Tail {
    word: crossbeam::utils::CachePadded<AtomicU64>,
}

impl Tail {
    /// A tail at `position`.
    pub(crate) fn new(position: u64) -> Tail {
        Tail { word: crossbeam::utils::CachePadded::new(AtomicU64::new(pack(0, position))) }
    }

    /// The next ticket and the next position, which is near `near`. Both may already be taken when
    /// the caller looks at them.
    #[inline]
    pub(crate) fn peek(&self, near: u64) -> (u64, u64) {
        // Relaxed: a caller that acts on it does so through `take`, which checks it again.
        let word = self.word.load(Ordering::Relaxed);
        (ticket_of(word), position_of(word, near))
    }

    /// The next position, in order with every [`Tail::take`]. The caller's earlier writes
    /// happen-before every later take; the positions of every earlier take are below it.
    pub(crate) fn fence(&self, near: u64) -> u64 {
        // AcqRel: stands among the exchanges of `take` as one of them.
        position_of(self.word.fetch_add(0, Ordering::AcqRel), near)
    }

    /// Takes `ticket` and the stretch from `position` to `end`, unless another writer was faster.
    #[inline]
    pub(crate) fn take(&self, ticket: u64, position: u64, end: u64) -> bool {
        // AcqRel: a writer that takes a position after a rotation sees the generation that was
        // installed before the rotation took its own.
        step();
        let (current, next) = (pack(ticket, position), pack((ticket + 1) % TICKETS, end));
        self.word.compare_exchange_weak(current, next, Ordering::AcqRel, Ordering::Relaxed).is_ok()
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
pub(crate) struct StartPosition(AtomicU64);

impl StartPosition {
    /// A start that is known.
    pub(crate) fn at(position: u64) -> StartPosition {
        StartPosition(AtomicU64::new(position))
    }

    /// A start to be set later.
    pub(crate) fn pending() -> StartPosition {
        StartPosition::at(PENDING)
    }

    /// Sets the position of a pending start.
    pub(crate) fn set(&self, position: u64) {
        step();
        // Release: pairs with the Acquire in `get`.
        self.0.store(position, Ordering::Release);
    }

    /// The position. Waits for a rotation under way, which is a few instructions long.
    #[inline]
    pub(crate) fn get(&self) -> u64 {
        let mut spins = 0;
        loop {
            match self.0.load(Ordering::Acquire) {
                PENDING if planted::is(Bug::StartNotAwaited) => return 0,
                PENDING => backoff(&mut spins),
                position => return position,
            }
        }
    }
}

/// The ring of tickets that are done.
pub(crate) struct CommitRing {
    /// Next ticket to publish, and the position up to which everything is published. On a cache
    /// line of its own: readers poll it.
    published: crossbeam::utils::CachePadded<AtomicU64>,
    done: Box<[AtomicU64]>,
}

impl CommitRing {
    /// A ring of `slots` (a power of two) tickets, with everything below `start` published.
    pub(crate) fn new(slots: usize, start: u64) -> CommitRing {
        assert!(slots.is_power_of_two() && (slots as u64) < TICKETS);
        // A slot holds a ticket of an earlier lap until its ticket is done.
        let done =
            (0..slots as u64).map(|slot| AtomicU64::new(pack(slot + TICKETS - slots as u64, 0))).collect();
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

    /// Marks `ticket` as done up to `end`, and publishes what can be.
    #[inline]
    pub(crate) fn complete(&self, ticket: u64, end: u64) {
        step();
        let slot = ticket as usize & (self.done.len() - 1);
        // Release: pairs with the Acquire in `advance`; makes the writer's inserts visible to the
        // thread that publishes them.
        let order = if planted::is(Bug::PublishedUnordered) { Ordering::Relaxed } else { Ordering::Release };
        self.done[slot].store(pack(ticket, end), order);
        self.advance();
    }

    /// Publishes every ticket that is done without a gap.
    #[inline]
    pub(crate) fn advance(&self) {
        let mut published = self.published.load(Ordering::Acquire);
        loop {
            let ticket = ticket_of(published);
            let done = self.done[ticket as usize & (self.done.len() - 1)].load(Ordering::Acquire);
            if ticket_of(done) != ticket {
                return;
            }
            step();
            let next = pack(ticket + 1, done);
            // AcqRel: releases this ticket's inserts to readers, and acquires those of the tickets
            // before.
            match self.published.compare_exchange(published, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => published = next,
                Err(current) => published = current,
            }
        }
    }
}

#[cfg(all(test, not(sapwood_loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64 as Counter;

    #[test]
    fn tickets_done_out_of_order_are_published_in_order() {
        let ring = CommitRing::new(4, 100);
        ring.complete(1, 120);
        assert_eq!(ring.published(0), 100);
        ring.complete(0, 110);
        assert_eq!(ring.published(0), 120);
        assert!(ring.has_room(5) && !ring.has_room(6));
    }

    #[test]
    fn tickets_wrap() {
        let ring = CommitRing::new(4, 0);
        for ticket in 0..TICKETS * 2 + 3 {
            assert!(ring.has_room(ticket % TICKETS));
            ring.complete(ticket % TICKETS, ticket + 1);
            assert_eq!(ring.published(ticket), ticket + 1);
        }
    }

    #[test]
    fn positions_go_on_beyond_the_bits_of_a_word() {
        for start in [0, (1 << POSITION_BITS) - 3, (5 << POSITION_BITS) - 3, (1 << 57) - 1000] {
            let (tail, ring) = (Tail::new(start), CommitRing::new(4, start));
            let mut position = start;
            for units in [1, 2, 1 << 40, 7] {
                // The other position may lie on both sides.
                for near in [position.saturating_sub(1 << 42), position, position + (1 << 42)] {
                    assert_eq!(tail.peek(near).1, position);
                    assert_eq!(tail.fence(near), position);
                    assert_eq!(ring.published(near), position);
                }
                let ticket = tail.peek(position).0;
                assert!(tail.take(ticket, position, position + units));
                position += units;
                ring.complete(ticket, position);
            }
        }
    }

    #[test]
    fn threads_publish_every_ticket() {
        let ring = Arc::new(CommitRing::new(8, 0));
        let tail = Arc::new(Counter::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (ring, tail) = (ring.clone(), tail.clone());
                std::thread::Builder::new()
                    .spawn(move || {
                        for _ in 0..20_000 {
                            let ticket = tail.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
                            while !ring.has_room(ticket) {
                                std::thread::yield_now();
                            }
                            ring.complete(ticket, ticket + 1);
                            while ring.published(0) <= ticket {
                                ring.advance();
                                std::thread::yield_now();
                            }
                        }
                    })
                    .unwrap()
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(ring.published(0), 60_000);
    }
}
