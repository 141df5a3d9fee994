//! Data with a limited lifetime and a constant amount: sessions, leases, caches with a time to
//! live.
//!
//! Record `n` lives for `lifetime` writes. Each insert removes the record that expires at that
//! moment. Records are spread over the key space ([`record_key`]), so that after a while tombstones
//! are everywhere. Reads are of live records, which must be found, and of expired ones, which must
//! not.
pub use crate::ycsb::record_key;
use fastrand::Rng;

/// The next operation. Numbers are those of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Write a new record.
    Insert(u64),
    /// Remove an expired record.
    Remove(u64),
    /// Read a live record.
    ReadLive(u64),
    /// Read an expired record.
    ReadExpired(u64),
}

/// The stream of requests of one thread, with its own records.
#[derive(Clone, Debug)]
pub struct Requests {
    first: u64,
    inserted: u64,
    removed: u64,
    lifetime: u64,
    read_percent: u32,
}

impl Requests {
    /// Records from `first` on, each with a life of `lifetime` inserts (at least 1). Once the
    /// database has its size, `read_percent` of the requests are reads, nine of ten of them of live
    /// records.
    pub fn new(first: u64, lifetime: u64, read_percent: u32) -> Requests {
        Requests {
            first,
            inserted: 0,
            removed: 0,
            lifetime: lifetime.max(1),
            read_percent: read_percent.min(99),
        }
    }

    /// Number of live records.
    pub fn live(&self) -> u64 {
        self.inserted - self.removed
    }

    /// Number of expired records.
    pub fn expired(&self) -> u64 {
        self.removed
    }

    /// The next request.
    #[inline]
    pub fn next(&mut self, random: &mut Rng) -> Request {
        if self.live() > self.lifetime {
            self.removed += 1;
            return Request::Remove(self.first + self.removed - 1);
        }
        // The database first grows to its size.
        if self.live() == self.lifetime && random.u32(..100) < self.read_percent {
            return if self.removed > 0 && random.u32(..10) == 0 {
                Request::ReadExpired(self.first + random.u64(..self.removed))
            } else {
                Request::ReadLive(self.first + random.u64(self.removed..self.inserted))
            };
        }
        self.inserted += 1;
        Request::Insert(self.first + self.inserted - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_set_that_follows_the_requests_holds_what_they_say() {
        let mut requests = Requests::new(1000, 50, 40);
        let mut random = Rng::with_seed(1);
        let mut set = BTreeSet::new();
        let mut reads = [0, 0];
        for _ in 0..5_000 {
            match requests.next(&mut random) {
                Request::Insert(record) => assert!(set.insert(record)),
                Request::Remove(record) => assert!(set.remove(&record)),
                Request::ReadLive(record) => {
                    assert!(set.contains(&record));
                    reads[0] += 1;
                }
                Request::ReadExpired(record) => {
                    assert!(record >= 1000 && !set.contains(&record));
                    reads[1] += 1;
                }
            }
            assert_eq!(set.len() as u64, requests.live());
            assert!(set.len() <= 51);
        }
        assert!(reads[0] > 8 * reads[1] && reads[1] > 50, "{reads:?}");
        assert!(requests.expired() > 1000);
    }
}
