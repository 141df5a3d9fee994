//! When a benchmark's loop ends, and how fast it may go.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Ends a loop after a number of operations or, if a time is given, after that time.
#[derive(Debug)]
pub struct Limit {
    operations: u64,
    done: u64,
    end: Option<Instant>,
    clock_interval: u64,
    next_clock: u64,
}

impl Limit {
    /// `seconds` of work, or `operations` if `seconds` is 0. The clock is read every `clock_interval` operations.
    pub fn new(operations: u64, seconds: i64, clock_interval: i64) -> Limit {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        let clock_interval = u64::try_from(clock_interval).unwrap_or(1).max(1);
        let end = (seconds > 0).then(|| Instant::now() + Duration::from_secs(seconds));
        Limit { operations, done: 0, end, clock_interval, next_clock: clock_interval }
    }

    /// Whether `operations` more may be done.
    #[inline]
    pub fn allows(&mut self, operations: u64) -> bool {
        self.done += operations;
        match self.end {
            None => self.done <= self.operations,
            Some(_) if self.done < self.next_clock => true,
            Some(end) => {
                self.next_clock = self.done + self.clock_interval;
                Instant::now() < end
            }
        }
    }
}

/// Keeps several threads together to a rate: each request waits until all requests before it would have been served.
/// A thread that was late may catch up, but for no more than a tenth of a second.
#[derive(Debug)]
pub struct RateLimiter {
    start: Instant,
    per_second: f64,
    /// When the next request may go, in nanoseconds since `start`.
    next: AtomicU64,
}

impl RateLimiter {
    /// At most `per_second` units a second; `None` for 0 or less: no limit.
    pub fn new(per_second: i64) -> Option<RateLimiter> {
        (per_second > 0).then(|| RateLimiter {
            start: Instant::now(),
            per_second: per_second as f64,
            next: AtomicU64::new(0),
        })
    }

    /// Waits until `units` may go.
    pub fn request(&self, units: u64) {
        let cost = (units as f64 / self.per_second * 1e9) as u64;
        let now = self.start.elapsed().as_nanos() as u64;
        let earliest = now.saturating_sub(100_000_000);
        // Relaxed: the word is all the threads share.
        let place = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| Some(next.max(earliest) + cost));
        let due = place.unwrap_or(0).max(earliest);
        if due > now {
            std::thread::sleep(Duration::from_nanos(due - now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_operations() {
        let mut limit = Limit::new(5, 0, 1000);
        assert_eq!((0..10).take_while(|_| limit.allows(1)).count(), 5);
        let mut limit = Limit::new(10, 0, 1000);
        assert_eq!((0..10).take_while(|_| limit.allows(4)).count(), 2);
    }

    #[test]
    fn a_time_ends_the_loop_whatever_the_count_says() {
        let mut limit = Limit::new(1, 1, 10);
        limit.end = Some(Instant::now() + Duration::from_millis(20));
        let start = Instant::now();
        while limit.allows(1) {}
        assert!((Duration::from_millis(20)..Duration::from_millis(500)).contains(&start.elapsed()));
    }

    #[test]
    fn a_rate_is_kept() {
        assert!(RateLimiter::new(0).is_none());
        let limiter = RateLimiter::new(1000).unwrap();
        let start = Instant::now();
        (0..61).for_each(|_| limiter.request(1));
        assert!((Duration::from_millis(59)..Duration::from_millis(300)).contains(&start.elapsed()));
    }
}
