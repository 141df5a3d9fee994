//! One thread of a benchmark, and the state that the threads share.
use super::parameters::Parameters;
use crate::engine::Engine;
use crate::flags::Flags;
use crate::limit::{Limit, RateLimiter};
use crate::report::Stats;
use fastrand::Rng;
use sapwood_base::{Error, ErrorKind};
use sapwood_bench::keys::{KeyBuffer, Numbers, Order, ReadKeys};
use sapwood_bench::schedule::Schedule;
use sapwood_bench::values::Values;
use sapwood_bench::ycsb::Records;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};

/// The state that the threads of one benchmark share.
pub struct Shared {
    pub(super) barrier: Barrier,
    /// Number of running threads, without the background thread.
    pub(super) foreground: AtomicUsize,
    pub(super) write_rate: Option<RateLimiter>,
    pub(super) read_rate: Option<RateLimiter>,
    /// The limit that `--sine_mix_rate` changes.
    pub(super) mix_rate: Option<RateLimiter>,
    /// The start times of operations in an open loop.
    pub(super) schedule: Option<Schedule>,
    /// See `Bench::records`.
    pub(super) records: Option<Arc<Records>>,
    /// The time of `timeseries`: the number of writes so far.
    pub(super) clock: AtomicU64,
}

impl Shared {
    /// Whether a foreground thread is running; a background thread ends with the last one.
    pub(super) fn foreground_works(&self) -> bool {
        // Relaxed: one more round does not matter.
        self.foreground.load(Ordering::Relaxed) > 0
    }

    /// The records of the YCSB workloads. Only for benchmarks that prepare them.
    pub(super) fn records(&self) -> &Records {
        self.records.as_ref().expect("the benchmark prepares its records")
    }
}

/// One thread of a benchmark.
pub struct Worker<'a> {
    pub(super) thread: usize,
    pub(super) engine: &'a Engine,
    pub(super) flags: &'a Flags,
    pub(super) parameters: &'a Parameters,
    pub(super) shared: &'a Shared,
    pub(super) random: Rng,
    pub(super) keys: KeyBuffer,
    pub(super) values: Values<'a>,
    pub(super) stats: Stats,
}

impl<'a> Worker<'a> {
    /// The end of a loop: `operations`, or `--duration` seconds. In an open loop, also its start
    /// times.
    pub(super) fn limit(&self, operations: u64) -> Limit<'a> {
        Limit::new(operations, self.flags.duration, self.flags.ops_between_duration_checks)
            .at(self.shared.schedule.as_ref())
    }

    /// The same without `--duration`, for loops that end with the keys.
    pub(super) fn count_limit(&self, operations: u64) -> Limit<'a> {
        Limit::new(operations, 0, 1).at(self.shared.schedule.as_ref())
    }

    /// The keys of random reads.
    pub(super) fn read_keys(&self) -> ReadKeys {
        ReadKeys::new(self.parameters.num, self.flags.read_random_exp_range)
    }

    /// The numbers of the keys in `order`.
    pub(super) fn numbers(&mut self, order: Order) -> Numbers {
        Numbers::new(order, self.parameters.num, &mut self.random)
    }
}

/// The error of a benchmark that reads wrong data.
pub(super) fn wrong(what: String) -> Error {
    Error::new(ErrorKind::Corruption, what)
}

/// Reads are throttled in groups of this size, since a read is faster than a limiter.
pub(super) const READS_PER_REQUEST: u64 = 256;

/// Waits, once in [`READS_PER_REQUEST`] reads, if reads are throttled.
#[inline]
pub(super) fn throttle_reads(shared: &Shared, done: u64) {
    if let Some(limiter) = &shared.read_rate
        && done % READS_PER_REQUEST == READS_PER_REQUEST - 1
    {
        limiter.request(READS_PER_REQUEST);
    }
}

/// Counts the `bytes` of a write; if writes are throttled, waits for the limiter first.
#[inline]
pub(super) fn throttle_writes(shared: &Shared, stats: &mut Stats, bytes: u64) {
    stats.add_written(bytes);
    if let Some(limiter) = &shared.write_rate {
        limiter.request(bytes);
    }
}
