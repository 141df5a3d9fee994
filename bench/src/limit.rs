//! The end of a benchmark's loop, and its rate.
use crate::report::Stats;
use sapwood_bench::schedule::Schedule;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Ends a loop after a number of operations or, if set, after a time. In an open loop, delays each
/// operation until it is due.
#[derive(Debug)]
pub struct Limit<'a> {
    operations: u64,
    done: u64,
    end: Option<Instant>,
    clock_interval: u64,
    next_clock: u64,
    schedule: Option<&'a Schedule>,
}

impl<'a> Limit<'a> {
    /// `seconds` of work, or `operations` if `seconds` is 0. The clock is read every
    /// `clock_interval` operations.
    pub fn new(operations: u64, seconds: i64, clock_interval: i64) -> Limit<'a> {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        let clock_interval = u64::try_from(clock_interval).unwrap_or(1).max(1);
        let end = (seconds > 0).then(|| Instant::now() + Duration::from_secs(seconds));
        Limit { operations, done: 0, end, clock_interval, next_clock: clock_interval, schedule: None }
    }

    /// The same with the start times of `schedule`, if any.
    pub fn at(self, schedule: Option<&'a Schedule>) -> Limit<'a> {
        Limit { schedule, ..self }
    }

    /// Whether the loop may do a call of `operations` more. Returns when they are due, and passes
    /// that time to `stats`.
    #[inline]
    pub fn allows(&mut self, operations: u64, stats: &mut Stats) -> bool {
        self.done += operations;
        if let Some(schedule) = self.schedule {
            return self.allows_on(schedule, stats);
        }
        match self.end {
            None => self.done <= self.operations,
            Some(_) if self.done < self.next_clock => true,
            Some(end) => {
                self.next_clock = self.done + self.clock_interval;
                Instant::now() < end
            }
        }
    }

    #[inline(never)]
    fn allows_on(&mut self, schedule: &Schedule, stats: &mut Stats) -> bool {
        match self.end {
            None if self.done > self.operations => return false,
            Some(end) if Instant::now() >= end => {
                stats.set_out_of_time();
                return false;
            }
            _ => {}
        }
        let due = schedule.take();
        if self.end.is_some_and(|end| due >= end) {
            return false;
        }
        Schedule::wait(due);
        stats.begin(schedule.start(), due);
        true
    }
}

/// Limits several threads to a common rate: each request waits until all requests before it would
/// have been served. A late thread may catch up by at most a tenth of a second.
#[derive(Debug)]
pub struct RateLimiter {
    start: Instant,
    /// The bits of an `f64`: the rate may change.
    per_second: AtomicU64,
    /// The time of the next request, in nanoseconds since `start`.
    next: AtomicU64,
}

impl RateLimiter {
    /// At most `per_second` units a second; `None` for 0 or less, which is no limit.
    pub fn new(per_second: i64) -> Option<RateLimiter> {
        (per_second > 0).then(|| RateLimiter {
            start: Instant::now(),
            per_second: AtomicU64::new((per_second as f64).to_bits()),
            next: AtomicU64::new(0),
        })
    }

    /// Changes the rate of later requests; the minimum is one.
    pub fn set_rate(&self, per_second: f64) {
        // Relaxed: some requests may still use the old rate.
        self.per_second.store(per_second.max(1.0).to_bits(), Ordering::Relaxed);
    }

    /// Waits until `units` are within the rate.
    pub fn request(&self, units: u64) {
        let per_second = f64::from_bits(self.per_second.load(Ordering::Relaxed));
        let cost = (units as f64 / per_second * 1e9) as u64;
        let now = self.start.elapsed().as_nanos() as u64;
        let earliest = now.saturating_sub(100_000_000);
        // Relaxed: threads share only this word.
        let place = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| Some(next.max(earliest) + cost));
        let due = place.unwrap_or(0).max(earliest);
        if due > now {
            std::thread::sleep(Duration::from_nanos(due - now));
        }
    }
}

/// A sinusoidal rate: `--sine_mix_rate` and `--sine_write_rate`.
#[derive(Clone, Copy, Debug)]
pub struct SineRate {
    /// Amplitude, angular frequency per second, phase and mean.
    pub parameters: [f64; 4],
    /// Noise, as a share of the amplitude.
    pub noise: f64,
    /// The time between changes of the rate.
    pub interval: Duration,
}

impl SineRate {
    /// The rate after `time`; `chance` (0 to 1) selects the noise.
    pub fn at(&self, time: Duration, chance: f64) -> f64 {
        let [a, b, c, d] = self.parameters;
        a * (b * time.as_secs_f64() + c).sin() + d + a * self.noise * (chance - 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Counters, Progress};
    use sapwood_bench::schedule::Spacing;

    fn stats() -> Stats {
        Stats::start(0, false, Progress::default(), Counters::default())
    }

    #[test]
    fn a_limit_counts_operations() {
        let mut limit = Limit::new(5, 0, 1000);
        assert_eq!((0..10).take_while(|_| limit.allows(1, &mut stats())).count(), 5);
        let mut limit = Limit::new(10, 0, 1000);
        assert_eq!((0..10).take_while(|_| limit.allows(4, &mut stats())).count(), 2);
    }

    #[test]
    fn a_time_ends_the_loop_whatever_the_count_says() {
        let mut limit = Limit::new(1, 1, 10);
        let end = Instant::now() + Duration::from_millis(20);
        limit.end = Some(end);
        let mut stats = stats();
        while limit.allows(1, &mut stats) {}
        assert!(Instant::now() >= end);
    }

    #[test]
    fn an_open_loop_counts_what_it_waited_for() {
        let schedule = Schedule::new(1000.0, Spacing::Fixed, 1);
        let mut stats = stats();
        let mut limit = Limit::new(20, 0, 1000).at(Some(&schedule));
        while limit.allows(1, &mut stats) {
            if schedule.taken() == 5 {
                // A stall of twelve milliseconds: operations that are due during it wait for its
                // end.
                std::thread::sleep(Duration::from_millis(12));
            }
            stats.finish_operations(1, crate::report::Operation::Read);
        }
        let latencies = stats.latencies().unwrap().all();
        assert_eq!((latencies.count(), schedule.taken()), (20, 20));
        assert!(latencies.max() >= 12_000_000);
        let late: u64 =
            latencies.buckets().filter(|(low, _, _)| *low >= 3_000_000).map(|(.., count)| count).sum();
        assert!(late >= 7, "{late}");
    }

    #[test]
    fn a_rate_is_kept() {
        assert!(RateLimiter::new(0).is_none());
        let limiter = RateLimiter::new(1000).unwrap();
        let start = Instant::now();
        (0..61).for_each(|_| limiter.request(1));
        assert!(start.elapsed() >= Duration::from_millis(59));
    }

    #[test]
    fn a_sine_has_its_mean_amplitude_and_noise() {
        let rate = SineRate { parameters: [10.0, 1.0, 0.0, 100.0], noise: 0.2, interval: Duration::ZERO };
        assert_eq!(rate.at(Duration::ZERO, 0.5), 100.0);
        assert!((rate.at(Duration::from_secs_f64(std::f64::consts::FRAC_PI_2), 1.0) - 111.0).abs() < 1e-9);
    }
}
