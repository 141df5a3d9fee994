//! A clock that moves only on request, and random numbers from a seed. Threads are real, so a run
//! is reproducible only while one thread uses it; the manual machine ensures that by starting none,
//! and the scheduled one by running one at a time.
#![allow(
    clippy::disallowed_methods,
    reason = "this module is what the disallowed methods are reached through"
)]
use super::clock::SimClock;
use super::schedule::{self, Schedule};
use crate::env::{Machine, Task, ThreadClass};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// The time that reading the clock takes.
const LOOK_NS: u64 = 1_000;
/// Maximum real time of a sleep, so that loops that wait in steps do not busy-wait.
const LONGEST_SLEEP: Duration = Duration::from_micros(100);

/// See the module.
pub(crate) struct SimMachine {
    clock: Arc<SimClock>,
    random: Mutex<fastrand::Rng>,
    starts_threads: bool,
    schedule: Option<Schedule>,
}

impl SimMachine {
    pub(crate) fn new(seed: u64, clock: Arc<SimClock>) -> SimMachine {
        let random = Mutex::new(fastrand::Rng::with_seed(seed));
        SimMachine { clock, random, starts_threads: true, schedule: None }
    }

    /// Creates a machine for one thread.
    pub(crate) fn manual(seed: u64, clock: Arc<SimClock>) -> SimMachine {
        SimMachine { starts_threads: false, ..SimMachine::new(seed, clock) }
    }

    /// Creates a machine whose threads belong to a schedule.
    pub(crate) fn scheduled(seed: u64, clock: Arc<SimClock>, schedule: Schedule) -> SimMachine {
        SimMachine { schedule: Some(schedule), ..SimMachine::new(seed, clock) }
    }
}

impl Machine for SimMachine {
    fn now(&self) -> Duration {
        self.clock.advance(LOOK_NS)
    }

    fn unix_time(&self) -> Duration {
        self.clock.unix_time(self.now())
    }

    fn sleep(&self, duration: Duration) {
        if schedule::is_scheduled() {
            return schedule::sleep(duration);
        }
        self.clock.advance(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4));
        if self.starts_threads {
            std::thread::sleep(duration.min(LONGEST_SLEEP));
        }
    }

    fn random_u64(&self) -> u64 {
        self.random.lock().u64(..)
    }

    fn spawn(
        &self,
        name: &str,
        _class: ThreadClass,
        task: Task,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        match &self.schedule {
            Some(schedule) => schedule.spawn(name, task),
            None => std::thread::Builder::new().name(name.to_owned()).spawn(task),
        }
    }

    fn parallelism(&self) -> usize {
        2
    }

    fn starts_threads(&self) -> bool {
        self.starts_threads
    }

    fn allows_pools(&self) -> bool {
        self.starts_threads && self.schedule.is_none()
    }
}
