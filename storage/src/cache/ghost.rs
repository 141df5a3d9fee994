//! Recent evictions, as fingerprints only.
//!
//! A block that returns while its fingerprint is here was evicted too early and goes straight to
//! the main queue. A set-associative table of (fingerprint, time) pairs, with time counted in
//! insertions, so that expiry costs nothing: an entry older than the table's capacity is treated as
//! absent.

const WAYS: usize = 4;

/// See the module.
pub(super) struct Ghost {
    /// `fingerprint << 32 | time`; zero is an entry that was never used.
    entries: Vec<u64>,
    /// Lifetime of an entry in insertions.
    capacity: u32,
    /// Starts at the capacity, so that time zero has expired.
    now: u32,
}

impl Ghost {
    /// Remembers about the last `capacity` insertions.
    pub(super) fn new(capacity: usize) -> Ghost {
        let capacity = capacity.clamp(16, 1 << 26) as u32;
        let entries = vec![0; (capacity as usize).next_power_of_two().max(WAYS)];
        Ghost { entries, capacity, now: capacity }
    }

    fn set_of(&self, hash: u64) -> usize {
        (hash as usize) & (self.entries.len() - 1) & !(WAYS - 1)
    }

    fn is_alive(&self, entry: u64) -> bool {
        self.now.wrapping_sub(entry as u32) < self.capacity
    }

    /// Remembers the block with this hash.
    pub(super) fn insert(&mut self, hash: u64) {
        self.now = self.now.wrapping_add(1);
        let (set, now) = (self.set_of(hash), self.now);
        let oldest = (set..set + WAYS)
            .max_by_key(|&i| {
                let same = self.entries[i] >> 32 == hash >> 32;
                (same, now.wrapping_sub(self.entries[i] as u32))
            })
            .expect("a set has ways");
        self.entries[oldest] = (hash & !u64::from(u32::MAX)) | u64::from(now);
    }

    /// Whether the block with this hash is remembered; if so, removes it.
    pub(super) fn take(&mut self, hash: u64) -> bool {
        let set = self.set_of(hash);
        for i in set..set + WAYS {
            if self.entries[i] >> 32 == hash >> 32 && self.is_alive(self.entries[i]) {
                self.entries[i] = 0;
                return true;
            }
        }
        false
    }

    /// The memory of the table in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.entries.len() * size_of::<u64>()
    }
}

#[cfg(all(test, not(sapwood_loom)))]
mod tests {
    use super::*;

    fn hash(number: u64) -> u64 {
        sapwood_base::checksum::checksum64(&number.to_le_bytes(), 0)
    }

    #[test]
    fn remembers_recent_ones_once_and_forgets_old_ones() {
        let mut ghost = Ghost::new(1000);
        for number in 0..3000 {
            ghost.insert(hash(number));
        }
        let remembered = (2000..3000).filter(|&number| ghost.take(hash(number))).count();
        // Some sets overflow before their time.
        assert!(remembered > 800, "{remembered}");
        assert_eq!((0..3000).filter(|&number| ghost.take(hash(number))).count(), 0);
    }
}
