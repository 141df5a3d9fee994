//! The eviction policy: S3-FIFO over the frames. Runs under one lock that only misses take.
//!
//! Source: Yang, Zhang, Qiu, Yue, Vigfusson, "FIFO queues are all you need for cache eviction",
//! SOSP 2023. Newcomers wait in a small queue (a tenth of the bytes); those used again before they
//! reach its end move to the main queue, the others are evicted and only their fingerprints stay.
//! In the main queue each use of a block earns it another round.
use super::frames::{Frames, SLAB_BYTES};
use super::ghost::Ghost;
use super::slabs::{Class, NOWHERE, Place, Slabs};
use super::slot::Slot;
use crate::planted;
use sapwood_base::checksum;
use std::ops::Range;
use std::sync::Arc;

/// Uses that a newcomer needs to move to the main queue.
const USES_TO_STAY: u8 = 1;
/// After this many spared frames in one search, the next unpinned one is evicted in any case.
const MOST_SPARED: usize = 512;
/// Minimum reserve for frames in limbo, unless it exceeds a quarter of the capacity.
const LEAST_RESERVE_BYTES: usize = 1 << 20;
/// The usual block size, for sizing the ghost table.
const USUAL_BLOCK_BYTES: usize = 4096;

/// A queue of frames, linked through their `previous` and `next`.
struct Queue {
    newest: u32,
    oldest: u32,
    bytes: usize,
}

const EMPTY_QUEUE: Queue = Queue { newest: NOWHERE, oldest: NOWHERE, bytes: 0 };

/// Counts since the creation of the cache.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) misses: u64,
    pub(super) inserts: u64,
    pub(super) evictions: u64,
    pub(super) refused: u64,
}

/// See the module.
pub(super) struct Keeper {
    slabs: Slabs,
    small: Queue,
    main: Queue,
    ghost: Ghost,
    /// Bytes of all frames that are not free.
    used_bytes: usize,
    /// Bytes of frames in slots, and of those being filled.
    resident_bytes: usize,
    /// The limit of `resident_bytes`; the rest of the capacity is for frames in limbo.
    resident_limit: usize,
    /// The cache is gone: no frame is allocated any more.
    is_abandoned: bool,
    pub(super) counts: Counts,
}

impl Keeper {
    pub(super) fn new(reserved_slabs: usize, capacity_bytes: usize) -> Keeper {
        let resident_limit = resident_limit(reserved_slabs, capacity_bytes);
        Keeper {
            slabs: Slabs::new(reserved_slabs, slab_limit(capacity_bytes)),
            small: EMPTY_QUEUE,
            main: EMPTY_QUEUE,
            ghost: Ghost::new(resident_limit / USUAL_BLOCK_BYTES),
            used_bytes: 0,
            resident_bytes: 0,
            resident_limit,
            is_abandoned: false,
            counts: Counts::default(),
        }
    }

    /// Bytes of all frames that are not free, including frames that wait for their last readers.
    pub(super) fn used_bytes(&self) -> usize {
        self.used_bytes
    }

    /// Memory of the cache: slabs and their bookkeeping, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slabs.committed() * SLAB_BYTES + self.slabs.memory_bytes() + self.ghost.memory_bytes()
    }

    /// Whether frames that wait for their last readers take so much that evicting ahead is in
    /// danger of stalling.
    pub(super) fn limbo_is_large(&self, capacity_bytes: usize) -> bool {
        self.used_bytes - self.resident_bytes > (capacity_bytes.saturating_sub(self.resident_limit)) / 4
    }

    /// Allocates a frame for a block of `len` bytes, evicting into `evicted` as necessary: the
    /// caller retires those frames. `None` if there is no room at the moment.
    pub(super) fn allocate(&mut self, len: usize, frames: &Frames, evicted: &mut Vec<u32>) -> Option<u32> {
        let class = Class::of(len);
        let cost = class.cost_bytes();
        if cost > self.resident_limit {
            self.counts.refused += 1;
            return None;
        }
        while self.resident_bytes + cost > self.resident_limit {
            if !self.evict_one(frames, evicted) {
                self.counts.refused += 1;
                return None;
            }
        }
        let mut superfluous = Vec::new();
        let mut unit = self.slabs.allocate(class, &mut superfluous);
        superfluous.into_iter().for_each(|slab| frames.decommit(slab));
        if unit.is_none() {
            // If frames of this class, or enough slabs drained earlier, are about to become free,
            // wait for them: while a reader stays, draining more would empty slabs for nothing.
            // Otherwise other classes hold all slabs, or this class holds them with frames that are
            // not evicted because the total is below the limit.
            for _ in 0..class.slabs() {
                let is_pending = self.slabs.soon_empty() >= class.slabs();
                if self.slabs.has_limbo(class) || is_pending && planted::awaits_slabs() {
                    break;
                }
                match self.slabs.drain(Some(class), |unit| frames.pins(unit).is_pinned()) {
                    Some(drained) => self.evict_all(drained, frames, evicted),
                    None => {
                        self.evict_one(frames, evicted);
                        break;
                    }
                }
            }
            unit = self.slabs.allocate_larger(class);
        }
        let Some(unit) = unit else {
            self.counts.refused += 1;
            return None;
        };
        let cost = self.slabs.class_of(unit).cost_bytes();
        self.used_bytes += cost;
        self.resident_bytes += cost;
        Some(unit)
    }

    /// Puts a filled frame into its slot and into a queue.
    pub(super) fn publish(
        &mut self,
        unit: u32,
        len: usize,
        owner: &Arc<[Slot]>,
        index: usize,
        table: u32,
        by_scan: bool,
    ) {
        owner[index].publish(unit, len, by_scan);
        let frame = self.slabs.frame_mut(unit);
        debug_assert_eq!(frame.place, Place::Loading);
        frame.owner = Some(Arc::clone(owner));
        frame.index = index as u32;
        frame.table = table;
        let was_known = self.ghost.take(block_hash(table, index as u32));
        self.enqueue(unit, if was_known && !by_scan { Place::Main } else { Place::Small });
        self.counts.inserts += 1;
    }

    /// Frees a frame whose load failed, or one in limbo that is no longer in use. Returns the slabs
    /// to decommit, if some have become superfluous.
    #[must_use]
    pub(super) fn free(&mut self, unit: u32) -> Range<usize> {
        let cost = self.slabs.class_of(unit).cost_bytes();
        self.used_bytes -= cost;
        if self.slabs.frame(unit).place == Place::Loading {
            self.resident_bytes -= cost;
        }
        self.slabs.free(unit)
    }

    /// Takes a frame out of its slot and its queue, into limbo.
    pub(super) fn unlink(&mut self, unit: u32) {
        self.dequeue(unit);
        let frame = self.slabs.frame_mut(unit);
        let owner = frame.owner.take().expect("a frame in a queue has an owner");
        owner[frame.index as usize].clear();
        self.slabs.enter_limbo(unit);
        self.resident_bytes -= self.slabs.class_of(unit).cost_bytes();
    }

    /// Leaves a frame in limbo to its pins: the last one frees it.
    pub(super) fn leave_to_pins(&mut self, unit: u32) {
        self.slabs.leave_to_pins(unit);
    }

    /// Whether the cache is gone.
    pub(super) fn is_abandoned(&self) -> bool {
        self.is_abandoned
    }

    /// Marks the cache as gone; from now on no thread allocates or finds a frame. Returns the
    /// frames to be retired.
    pub(super) fn abandon(&mut self) -> Vec<u32> {
        self.is_abandoned = true;
        self.ghost = Ghost::new(0);
        for unit in self.slabs.units_in(|place| matches!(place, Place::Small | Place::Main)) {
            self.unlink(unit);
        }
        self.slabs.units_in(|place| place == Place::Limbo)
    }

    /// Limits slab memory to frames that are in use. Returns slabs to decommit.
    #[must_use]
    pub(super) fn give_up_slabs(&mut self) -> Vec<usize> {
        self.slabs.set_limit(0)
    }

    /// Changes the capacity. Returns slabs to decommit; evicts into `evicted`.
    #[must_use]
    pub(super) fn set_capacity(
        &mut self,
        reserved_slabs: usize,
        capacity_bytes: usize,
        frames: &Frames,
        evicted: &mut Vec<u32>,
    ) -> Vec<usize> {
        self.resident_limit = resident_limit(reserved_slabs, capacity_bytes);
        self.ghost = Ghost::new(self.resident_limit / USUAL_BLOCK_BYTES);
        let superfluous = self.slabs.set_limit(slab_limit(capacity_bytes));
        // Whole slabs first: single evictions would leave every slab sparse, and then most of it
        // would be evicted too.
        while self.slabs.is_over_limit() {
            let Some(drained) = self.slabs.drain(None, |_| false) else { break };
            self.evict_all(drained, frames, evicted);
        }
        while self.resident_bytes > self.resident_limit && self.evict_one(frames, evicted) {}
        superfluous
    }

    fn evict_all(&mut self, units: Vec<u32>, frames: &Frames, evicted: &mut Vec<u32>) {
        for unit in units {
            if !frames.pins(unit).is_pinned() {
                self.evict(unit, evicted);
            }
        }
    }

    fn evict(&mut self, unit: u32, evicted: &mut Vec<u32>) {
        let frame = self.slabs.frame(unit);
        if frame.place == Place::Small {
            self.ghost.insert(block_hash(frame.table, frame.index));
        }
        self.unlink(unit);
        evicted.push(unit);
        self.counts.evictions += 1;
    }

    /// Evicts the least valuable block. Returns false if every block is pinned, or there is none.
    fn evict_one(&mut self, frames: &Frames, evicted: &mut Vec<u32>) -> bool {
        let mut spared = 0;
        let mut pinned = 0;
        // Blocks in use by iterators are few; beyond this number the cache is full of them.
        while pinned <= MOST_SPARED {
            let from_small = self.main.oldest == NOWHERE || self.small.bytes > self.resident_limit / 10;
            let (place, unit) = match (from_small, self.small.oldest) {
                (true, oldest) if oldest != NOWHERE => (Place::Small, oldest),
                _ => (Place::Main, self.main.oldest),
            };
            if unit == NOWHERE {
                return false;
            }
            let frame = self.slabs.frame(unit);
            let slot = &frame.owner.as_ref().expect("a frame in a queue has an owner")[frame.index as usize];
            let uses = slot.uses();
            // Evicting a pinned block frees nothing, and the pinning caller will likely request it
            // again.
            if frames.pins(unit).is_pinned() {
                pinned += 1;
                self.requeue(unit);
                continue;
            }
            let stays = match place {
                Place::Small => uses >= USES_TO_STAY,
                _ => uses > 0,
            };
            if !stays || spared >= MOST_SPARED {
                self.evict(unit, evicted);
                return true;
            }
            spared += 1;
            slot.set_uses(if place == Place::Small { 0 } else { uses - 1 });
            self.requeue(unit);
        }
        false
    }

    /// Makes a frame the newest of the main queue.
    fn requeue(&mut self, unit: u32) {
        self.dequeue(unit);
        self.enqueue(unit, Place::Main);
    }

    fn enqueue(&mut self, unit: u32, place: Place) {
        let cost = self.slabs.class_of(unit).cost_bytes();
        let queue = if place == Place::Small { &mut self.small } else { &mut self.main };
        let second = std::mem::replace(&mut queue.newest, unit);
        queue.bytes += cost;
        if second == NOWHERE {
            queue.oldest = unit;
        } else {
            self.slabs.frame_mut(second).next = unit;
        }
        let frame = self.slabs.frame_mut(unit);
        frame.place = place;
        frame.previous = second;
        frame.next = NOWHERE;
    }

    fn dequeue(&mut self, unit: u32) {
        let cost = self.slabs.class_of(unit).cost_bytes();
        let frame = self.slabs.frame(unit);
        let (place, previous, next) = (frame.place, frame.previous, frame.next);
        let queue = match place {
            Place::Small => &mut self.small,
            Place::Main => &mut self.main,
            place => unreachable!("a frame that is {place:?} is in no queue"),
        };
        queue.bytes -= cost;
        if next == NOWHERE {
            queue.newest = previous;
        }
        if previous == NOWHERE {
            queue.oldest = next;
        }
        if next != NOWHERE {
            self.slabs.frame_mut(next).previous = previous;
        }
        if previous != NOWHERE {
            self.slabs.frame_mut(previous).next = next;
        }
    }
}

/// A hash that identifies a block in the ghost table.
fn block_hash(table: u32, index: u32) -> u64 {
    checksum::checksum64(&index.to_le_bytes(), u64::from(table))
}

/// Number of slabs that the capacity covers. A capacity below one slab gets one, so that small
/// caches work too.
fn slab_limit(capacity_bytes: usize) -> usize {
    if capacity_bytes == 0 { 0 } else { (capacity_bytes / SLAB_BYTES).max(1) }
}

/// Limit of bytes in slots: all but a reserve for frames that wait for their last readers.
fn resident_limit(reserved_slabs: usize, capacity_bytes: usize) -> usize {
    let bytes = slab_limit(capacity_bytes).min(reserved_slabs) * SLAB_BYTES;
    // A thread that is preempted under a guard delays reuse for milliseconds, whatever the size of
    // the cache.
    let reserve = (bytes / 32).max(LEAST_RESERVE_BYTES.min(bytes / 4));
    (bytes - reserve).min(capacity_bytes)
}
