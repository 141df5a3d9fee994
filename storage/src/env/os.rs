//! The real machine: the standard library's clock and threads.
#![allow(
    clippy::disallowed_methods,
    reason = "this module is what the disallowed methods are reached through"
)]
use super::{Machine, THREAD_BYTES, Task, ThreadClass};
use sapwood_base::memory::{ROOM_BYTES, check_room};
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(super) struct OsMachine {
    origin: Instant,
}

impl OsMachine {
    pub(super) fn new() -> OsMachine {
        OsMachine { origin: Instant::now() }
    }
}

impl Machine for OsMachine {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn unix_time(&self) -> Duration {
        // A clock set before 1970 reads as 1970.
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }

    fn random_u64(&self) -> u64 {
        // Every `RandomState` has its own SipHash key, derived from the system's randomness, so the
        // hash of nothing is a fresh number.
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }

    fn spawn(
        &self,
        name: &str,
        class: ThreadClass,
        task: Task,
    ) -> std::io::Result<std::thread::JoinHandle<()>> {
        // A thread that finds no memory for the stack of its signal handlers ends the process.
        check_room(ROOM_BYTES + THREAD_BYTES)?;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            set_scheduling(class);
            task();
        })
    }

    fn parallelism(&self) -> usize {
        std::thread::available_parallelism().map_or(1, |count| count.get())
    }
}

#[cfg(target_os = "linux")]
fn set_scheduling(class: ThreadClass) {
    super::scheduling::ask(class);
}

#[cfg(not(target_os = "linux"))]
fn set_scheduling(_class: ThreadClass) {}
