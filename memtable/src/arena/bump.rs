//! Ownership of the parts of an arena: positions only, no memory.
//!
//! The shared `tail` is advanced a chunk at a time; a chunk belongs to a *lane*, and a thread
//! always uses the same lane, so that most allocations touch a line no other thread touches. A lane
//! is one word, `[end:32 | cursor:32]`, changed by compare-and-swap: two threads that share a lane
//! are correct, merely slower.
use crate::sync::{AtomicU64, Ordering, Padded};

/// Bytes per unit.
#[cfg(not(sapwood_loom))]
pub(crate) const UNIT_BYTES: usize = 8;

/// The allocator. All positions and lengths are in units of eight bytes.
pub struct Bump {
    tail: Padded<AtomicU64>,
    /// First unit that may not be handed out. Constant.
    end: u64,
    /// First unit that may be handed out. Constant.
    start: u64,
    chunk: u32,
    lanes: Box<[Padded<AtomicU64>]>,
}

impl Bump {
    /// Creates an allocator of the units `start..end`, handed to lanes in chunks of `chunk` units.
    ///
    /// `lanes` is a power of two; `start` and `chunk` are multiples of eight units, so that chunks
    /// start on cache lines; `end` fits in 32 bits.
    pub fn new(start: u64, end: u64, chunk: u32, lanes: usize) -> Bump {
        assert!(lanes.is_power_of_two() && start <= end && end <= u64::from(u32::MAX));
        assert!(start.is_multiple_of(8) && chunk.is_multiple_of(8) && chunk > 0);
        let lanes = (0..lanes).map(|_| Padded(AtomicU64::new(0))).collect();
        Bump { tail: Padded(AtomicU64::new(start)), end, start, chunk, lanes }
    }

    /// Reclaims all units. REQUIRES: no allocation is in use.
    pub fn reset(&self) {
        // Relaxed: the arena changes hands through the pool's mutex, which orders these stores.
        for lane in &self.lanes {
            lane.0.store(0, Ordering::Relaxed);
        }
        self.tail.0.store(self.start, Ordering::Relaxed);
    }

    /// Units handed to lanes so far. Exceeds the allocated units by at most one chunk per lane in
    /// use.
    #[inline]
    pub fn used(&self) -> u64 {
        // Relaxed: a statistic; no other access depends on it.
        self.tail.0.load(Ordering::Relaxed) - self.start
    }

    /// Units that no lane owns yet.
    pub fn left(&self) -> u64 {
        // Relaxed: a statistic, as above.
        self.end - self.tail.0.load(Ordering::Relaxed)
    }

    /// The first unit that no lane owns yet.
    pub fn high_water(&self) -> u64 {
        self.tail.0.load(Ordering::Relaxed)
    }

    /// Allocates `units` aligned to `align` units (a power of two, at most 8). `None` when the
    /// arena is full.
    #[inline]
    pub fn allocate(&self, units: u32, align: u32, lane: usize) -> Option<u32> {
        let lane = &self.lanes[lane & (self.lanes.len() - 1)].0;
        // Relaxed throughout: positions carry no data. The link or slot that later names a position
        // publishes its bytes.
        let mut state = lane.load(Ordering::Relaxed);
        loop {
            let (cursor, end) = (state as u32, (state >> 32) as u32);
            let start = cursor.next_multiple_of(align);
            if u64::from(start) + u64::from(units) > u64::from(end) {
                return self.refill(lane, units);
            }
            let next = (u64::from(end) << 32) | u64::from(start + units);
            match lane.compare_exchange_weak(state, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(start),
                Err(actual) => state = actual,
            }
        }
    }

    #[cold]
    fn refill(&self, lane: &AtomicU64, units: u32) -> Option<u32> {
        // Long allocations bypass the chunk, because they would waste too much of the one in use.
        if units > self.chunk / 16 {
            return self.advance(units);
        }
        let Some(start) = self.advance(self.chunk) else { return self.advance(units) };
        let state = (u64::from(start + self.chunk) << 32) | u64::from(start + units);
        // Abandons the rest of the lane's former chunk: less than one sixteenth of it.
        lane.store(state, Ordering::Relaxed);
        Some(start)
    }

    /// Advances the tail by `units`, rounded up so that the tail stays on a cache line.
    fn advance(&self, units: u32) -> Option<u32> {
        let units = u64::from(units).next_multiple_of(8);
        let mut tail = self.tail.0.load(Ordering::Relaxed);
        loop {
            if tail + units > self.end {
                return None;
            }
            let swapped =
                self.tail.0.compare_exchange_weak(tail, tail + units, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return Some(tail as u32),
                Err(actual) => tail = actual,
            }
        }
    }
}

#[cfg(all(test, not(sapwood_loom)))]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_disjoint_aligned_and_end_with_none() {
        let bump = Bump::new(8, 4096, 256, 4);
        let mut taken = vec![false; 4096];
        let mut random = fastrand::Rng::with_seed(7);
        let mut total = 0;
        loop {
            let (units, align) = (random.u32(1..40), if random.bool() { 8 } else { 1 });
            let Some(start) = bump.allocate(units, align, random.usize(0..9)) else { break };
            assert!(start >= 8 && start % align == 0);
            for unit in start..start + units {
                assert!(!std::mem::replace(&mut taken[unit as usize], true));
            }
            total += u64::from(units);
        }
        assert!(bump.used() >= total && bump.high_water() <= 4096);
        assert!(total > 2000, "only {total} units could be used");
        bump.reset();
        assert_eq!(bump.used(), 0);
        assert_eq!(bump.allocate(3, 1, 0), Some(8));
    }
}
