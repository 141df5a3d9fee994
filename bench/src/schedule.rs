//! Open loop: operations begin by a schedule, not at the end of the previous one.
//!
//! In a closed loop a slow operation delays the following ones, and their wait is part of no
//! latency (Gil Tene's coordinated omission). Here a thread takes the next start time of the
//! schedule and waits until then. The latency counts from the start time, so that it includes the
//! wait in a queue during a stall.
use fastrand::Rng;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The distribution of start times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// Equal distances.
    Fixed,
    /// Independent arrivals: distances are exponentially distributed, with bursts and pauses.
    Poisson,
}

/// The start times of operations, distributed to any number of threads.
///
/// All threads take from one schedule: a stalled thread delays one operation, and others serve the
/// queue.
#[derive(Debug)]
pub struct Schedule {
    start: OnceLock<Instant>,
    nanos_between: f64,
    spacing: Spacing,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: Rng,
    /// The next start time, in nanoseconds since the start.
    next_nanos: f64,
    taken: u64,
}

/// A waiting thread sleeps until this much is left, then spins: the system wakes sleepers about 60
/// us late.
const AWAKE: Duration = Duration::from_micros(80);

impl Schedule {
    /// `per_second` start times a second, more than 0; the first one is that of the first call.
    pub fn new(per_second: f64, spacing: Spacing, seed: u64) -> Schedule {
        let state = State { random: Rng::with_seed(seed), next_nanos: 0.0, taken: 0 };
        Schedule {
            start: OnceLock::new(),
            nanos_between: 1e9 / per_second,
            spacing,
            state: Mutex::new(state),
        }
    }

    /// The start of the schedule.
    pub fn start(&self) -> Instant {
        *self.start.get_or_init(Instant::now)
    }

    /// Takes the next start time, which may have passed. Each is returned once.
    pub fn take(&self) -> Instant {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let due = state.next_nanos;
        let distance = match self.spacing {
            Spacing::Fixed => self.nanos_between,
            // From (0, 1]: the logarithm of 0 is infinite.
            Spacing::Poisson => -(1.0 - state.random.f64()).ln() * self.nanos_between,
        };
        state.next_nanos += distance;
        state.taken += 1;
        self.start() + Duration::from_nanos(due as u64)
    }

    /// Waits until `due`.
    pub fn wait(due: Instant) {
        loop {
            let now = Instant::now();
            if now >= due {
                return;
            }
            let left = due - now;
            if left > AWAKE {
                std::thread::sleep(left - AWAKE);
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Number of start times before `until` that no thread has taken: operations that are due and
    /// have not begun.
    pub fn waiting(&self, until: Instant) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let nanos = until.saturating_duration_since(self.start()).as_nanos() as f64;
        ((nanos - state.next_nanos) / self.nanos_between).max(0.0) as u64
    }

    /// Number of start times taken.
    pub fn taken(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distances(spacing: Spacing, count: usize) -> Vec<f64> {
        let schedule = Schedule::new(1e6, spacing, 7);
        let moments: Vec<Instant> = (0..=count).map(|_| schedule.take()).collect();
        assert_eq!((moments[0], schedule.taken()), (schedule.start(), count as u64 + 1));
        moments.windows(2).map(|pair| (pair[1] - pair[0]).as_nanos() as f64).collect()
    }

    #[test]
    fn fixed_distances_are_alike_and_random_ones_exponential() {
        assert!(distances(Spacing::Fixed, 1000).iter().all(|nanos| (999.0..=1001.0).contains(nanos)));
        let random = distances(Spacing::Poisson, 100_000);
        let mean = random.iter().sum::<f64>() / 1e5;
        let long = random.iter().filter(|nanos| **nanos > 1000.0).count();
        assert!((980.0..1020.0).contains(&mean), "{mean}");
        // The share e^-1 of them exceeds the mean.
        assert!((36_000..37_500).contains(&long), "{long}");
    }

    #[test]
    fn what_nobody_took_is_waiting() {
        let schedule = Schedule::new(1000.0, Spacing::Fixed, 1);
        (0..10).for_each(|_| _ = schedule.take());
        assert_eq!(schedule.waiting(schedule.start() + Duration::from_millis(5)), 0);
        assert_eq!(schedule.waiting(schedule.start() + Duration::from_millis(110)), 100);
    }

    #[test]
    fn waiting_never_ends_early() {
        let due = Instant::now() + Duration::from_millis(2);
        Schedule::wait(due);
        assert!(Instant::now() >= due);
        Schedule::wait(due);
    }
}
