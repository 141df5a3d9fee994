//! The core workloads of the Yahoo! Cloud Serving Benchmark (Cooper, Silberstein, Tam, Ramakrishnan
//! and Sears, "Benchmarking Cloud Serving Systems with YCSB", 2010), as streams of requests.
//!
//! | | mix | distribution |
//! |---|---|---|
//! | A | 50 % reads, 50 % updates | zipfian |
//! | B | 95 % reads, 5 % updates | zipfian |
//! | C | reads | zipfian |
//! | D | 95 % reads, 5 % inserts | latest |
//! | E | 95 % scans of 1 to 100 records, 5 % inserts | zipfian |
//! | F | 50 % reads, 50 % read-modify-writes | zipfian |
//!
//! Records are numbered in the order of their insertion. [`record_key`] spreads them over the key
//! space; YCSB calls this hashed order. A record is read and written as one value, [`RECORD_BYTES`]
//! long in the paper.
//!
//! Reads are only of records whose insert was acknowledged ([`Records`]), so every one of them must
//! be found.
use crate::zipfian::{Latest, Scrambled, spread};
use fastrand::Rng;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a record in the paper: ten fields of a hundred.
pub const RECORD_BYTES: usize = 1000;

/// The longest scan of workload E.
pub const MAX_SCAN_LENGTH: u64 = 100;

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Update heavy.
    A,
    /// Read mostly.
    B,
    /// Read only.
    C,
    /// Read latest.
    D,
    /// Short ranges.
    E,
    /// Read-modify-write.
    F,
}

impl Workload {
    /// All, in order.
    pub const ALL: [Workload; 6] =
        [Workload::A, Workload::B, Workload::C, Workload::D, Workload::E, Workload::F];

    /// Its letter, as in `ycsba`.
    pub fn letter(self) -> char {
        ['a', 'b', 'c', 'd', 'e', 'f'][self as usize]
    }

    /// Number of requests in a hundred that are [`Request::Read`] (in workload E:
    /// [`Request::Scan`]).
    fn reads_per_hundred(self) -> u32 {
        match self {
            Workload::A | Workload::F => 50,
            Workload::B | Workload::D | Workload::E => 95,
            Workload::C => 100,
        }
    }
}

/// The next operation. Numbers are those of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read a record.
    Read(u64),
    /// Overwrite an existing record, without reading it.
    Update(u64),
    /// Write a new record, then call [`Records::acknowledge`].
    Insert(u64),
    /// Read `length` records in key order, from this one on.
    Scan {
        /// The first record.
        record: u64,
        /// The number of records; fewer if the key space ends.
        length: u64,
    },
    /// Read a record and write it.
    ReadModifyWrite(u64),
}

/// The number for a record's key, for [`crate::keys::KeyBuffer::make`]. It differs for every
/// record.
#[inline]
pub const fn record_key(record: u64) -> u64 {
    spread(record)
}

/// The existing records: inserting threads count them, reading threads load the count.
///
/// Inserts of several threads end in any order. A record is readable once it and all earlier ones
/// are acknowledged.
#[derive(Debug)]
pub struct Records {
    next: AtomicU64,
    readable: AtomicU64,
    /// For each acknowledged record its number plus one, at its number modulo the length.
    window: Box<[AtomicU64]>,
}

/// The maximum distance between the fastest and the slowest insert; beyond it the former waits.
const WINDOW: u64 = 1 << 16;

impl Records {
    /// Records 0 to `count` exist.
    pub fn new(count: u64) -> Records {
        let window = (0..WINDOW).map(|_| AtomicU64::new(0)).collect();
        Records { next: AtomicU64::new(count), readable: AtomicU64::new(count), window }
    }

    /// Number of readable records.
    #[inline]
    pub fn count(&self) -> u64 {
        // Acquire: pairs with the release in `acknowledge`; the counted inserts happen before the
        // reads.
        self.readable.load(Ordering::Acquire)
    }

    /// Takes the number of a record to insert.
    #[inline]
    pub fn take(&self) -> u64 {
        // Relaxed: only the number is used.
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Acknowledges the insert of `record`, a number returned by [`Records::take`].
    pub fn acknowledge(&self, record: u64) {
        while record >= self.count() + WINDOW {
            std::thread::yield_now();
        }
        let slot = |record: u64| &self.window[(record % WINDOW) as usize];
        // Sequentially consistent, like the loads below: of two threads with consecutive records,
        // the later one must see the other's store. Otherwise neither would move the count past
        // both.
        slot(record).store(record + 1, Ordering::SeqCst);
        let mut first = self.readable.load(Ordering::SeqCst);
        while slot(first).load(Ordering::SeqCst) == first + 1 {
            match self.readable.compare_exchange(first, first + 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => first += 1,
                Err(now) => first = now,
            }
        }
    }
}

/// The stream of requests of one thread.
#[derive(Debug)]
pub struct Requests<'a> {
    workload: Workload,
    records: &'a Records,
    popular: Scrambled,
    latest: Latest,
}

impl<'a> Requests<'a> {
    /// Requests for `records`, which are not empty. `operations` is the number of operations of all
    /// threads. As in YCSB, the distribution includes the records that these will insert.
    pub fn new(workload: Workload, records: &'a Records, operations: u64) -> Requests<'a> {
        let count = records.count();
        let expected = match workload {
            Workload::E => operations.saturating_mul(5) / 100 * 2,
            _ => 0,
        };
        Requests {
            workload,
            records,
            popular: Scrambled::new(count.saturating_add(expected)),
            latest: Latest::new(if workload == Workload::D { count } else { 1 }),
        }
    }

    /// The next request.
    #[inline]
    pub fn next(&mut self, random: &mut Rng) -> Request {
        let read = random.u32(..100) < self.workload.reads_per_hundred();
        match (self.workload, read) {
            (Workload::D, true) => Request::Read(self.latest.next(self.records.count(), random)),
            (Workload::E, true) => {
                Request::Scan { record: self.popular(random), length: random.u64(1..=MAX_SCAN_LENGTH) }
            }
            (_, true) => Request::Read(self.popular(random)),
            (Workload::D | Workload::E, false) => Request::Insert(self.records.take()),
            (Workload::F, false) => Request::ReadModifyWrite(self.popular(random)),
            (_, false) => Request::Update(self.popular(random)),
        }
    }

    /// An existing record, drawn by popularity.
    #[inline]
    fn popular(&self, random: &mut Rng) -> u64 {
        let count = self.records.count();
        loop {
            let record = self.popular.next(random);
            if record < count {
                return record;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixes_are_those_of_the_paper() {
        for workload in Workload::ALL {
            let records = Records::new(1000);
            let mut requests = Requests::new(workload, &records, 20_000);
            let mut random = Rng::with_seed(5);
            let (mut reads, mut updates, mut inserts, mut scans, mut changes, mut longest) =
                (0, 0, 0, 0, 0, 0);
            for _ in 0..20_000 {
                match requests.next(&mut random) {
                    Request::Read(record) => {
                        assert!(record < records.count());
                        reads += 1;
                    }
                    Request::Update(record) => {
                        assert!(record < 1000);
                        updates += 1;
                    }
                    Request::Insert(record) => {
                        assert_eq!(record, 1000 + inserts);
                        records.acknowledge(record);
                        inserts += 1;
                    }
                    Request::Scan { record, length } => {
                        assert!(record < records.count() && (1..=100).contains(&length));
                        longest = longest.max(length);
                        scans += 1;
                    }
                    Request::ReadModifyWrite(record) => {
                        assert!(record < 1000);
                        changes += 1;
                    }
                }
            }
            let near = |count: u64, percent: u64| count.abs_diff(percent * 200) < 300;
            let (r, u, i, s, c) = match workload {
                Workload::A => (50, 50, 0, 0, 0),
                Workload::B => (95, 5, 0, 0, 0),
                Workload::C => (100, 0, 0, 0, 0),
                Workload::D => (95, 0, 5, 0, 0),
                Workload::E => (0, 0, 5, 95, 0),
                Workload::F => (50, 0, 0, 0, 50),
            };
            assert!(
                near(reads, r) && near(updates, u) && near(inserts, i) && near(scans, s) && near(changes, c),
                "{workload:?}: {reads} {updates} {inserts} {scans} {changes}"
            );
            assert!(scans == 0 || longest == 100);
            assert_eq!(records.count(), 1000 + inserts);
        }
    }

    #[test]
    fn records_become_readable_in_order() {
        let records = Records::new(10);
        let (first, second, third) = (records.take(), records.take(), records.take());
        assert_eq!((first, second, third), (10, 11, 12));
        records.acknowledge(second);
        assert_eq!(records.count(), 10);
        records.acknowledge(first);
        assert_eq!(records.count(), 12);
        records.acknowledge(third);
        assert_eq!(records.count(), 13);
    }

    #[test]
    fn many_threads_lose_no_record() {
        let records = Records::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..40_000).for_each(|_| records.acknowledge(records.take())));
            }
        });
        assert_eq!(records.count(), 160_000);
    }
}
