//! The machine a database runs on: files, clock, randomness and threads behind one cloneable
//! handle.
//!
//! The crates above this one access the operating system only through it, so a simulated machine
//! can replace the real one and a test can replay it. Every handle is cheap to clone and shares the
//! same machine.
use crate::fs::FileSystem;
use crate::fs::os::OsFileSystem;
use sapwood_base::memory::ROOM_BYTES;
use sapwood_base::{Error, ErrorKind, Result};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub mod fork;
mod os;
#[cfg(target_os = "linux")]
mod scheduling;

/// The purpose of a thread, as a hint for the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadClass {
    /// Other threads wait for it: it should run soon after it wakes, for short times.
    Latency,
    /// Throughput work such as compaction: it should yield to everything else.
    Background,
}

/// Memory and address space that a thread takes at its start: stacks and its first allocations.
pub(crate) const THREAD_BYTES: usize = 4 << 20;
/// The work of a thread.
pub(crate) type Task = Box<dyn FnOnce() + Send + 'static>;

/// Clock, randomness and threads: the services of an [`Env`] besides its file system.
pub(crate) trait Machine: Send + Sync {
    fn now(&self) -> Duration;
    fn unix_time(&self) -> Duration;
    fn sleep(&self, duration: Duration);
    fn random_u64(&self) -> u64;
    fn spawn(
        &self,
        name: &str,
        class: ThreadClass,
        task: Task,
    ) -> std::io::Result<std::thread::JoinHandle<()>>;
    fn parallelism(&self) -> usize;
    /// Whether `spawn` can be used. If not, the driver of the machine does the background work as
    /// well.
    fn starts_threads(&self) -> bool {
        true
    }
    /// Whether threads may also come from elsewhere.
    fn allows_pools(&self) -> bool {
        true
    }
}

/// A handle to the machine. Clones share it; any thread may use it.
#[derive(Clone)]
pub struct Env {
    fs: Arc<dyn FileSystem>,
    machine: Arc<dyn Machine>,
}

impl Env {
    /// The real machine.
    pub fn os() -> Env {
        Env { fs: Arc::new(OsFileSystem::new()), machine: Arc::new(os::OsMachine::new()) }
    }

    /// A simulated machine and its file system, which is empty. `seed` determines its random
    /// numbers.
    #[cfg(feature = "sim")]
    pub fn sim(seed: u64) -> (Env, crate::sim::SimFs) {
        let fs = crate::sim::SimFs::new();
        let env = Env {
            fs: Arc::new(fs.clone()),
            machine: Arc::new(crate::sim::SimMachine::new(seed, fs.clock())),
        };
        (env, fs)
    }

    /// [`Env::sim`] without threads. A database on it does its background work on the caller's
    /// thread, when the caller requests it or would have to wait for it, in an order determined by
    /// `seed`. So a run is reproducible from its seed. Sleeping only moves the clock.
    #[cfg(feature = "sim")]
    pub fn sim_manual(seed: u64) -> (Env, crate::sim::SimFs) {
        let fs = crate::sim::SimFs::new();
        let env = Env {
            fs: Arc::new(fs.clone()),
            machine: Arc::new(crate::sim::SimMachine::manual(seed, fs.clock())),
        };
        (env, fs)
    }

    /// [`Env::sim`] on which `seed` also determines which thread runs, and when: see
    /// [`crate::sim::Schedule`], whose [`run`](crate::sim::Schedule::run) starts the first thread;
    /// all others must be started by [`Env::spawn`].
    #[cfg(feature = "sim")]
    pub fn sim_scheduled(seed: u64) -> (Env, crate::sim::SimFs, crate::sim::Schedule) {
        let fs = crate::sim::SimFs::new();
        let schedule = crate::sim::Schedule::new(seed, fs.clock());
        let machine = crate::sim::SimMachine::scheduled(seed, fs.clock(), schedule.clone());
        (Env { fs: Arc::new(fs.clone()), machine: Arc::new(machine) }, fs, schedule)
    }

    /// The same machine with another file system.
    pub fn with_file_system(&self, fs: Arc<dyn FileSystem>) -> Env {
        Env { fs, machine: Arc::clone(&self.machine) }
    }

    /// The file system.
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// The time since some fixed moment. Never goes back; nanosecond resolution.
    pub fn now(&self) -> Duration {
        self.machine.now()
    }

    /// The time since 1970-01-01 UTC. May jump in both directions: for people, not for ordering.
    pub fn unix_time(&self) -> Duration {
        self.machine.unix_time()
    }

    /// Blocks the calling thread for at least `duration`.
    pub fn sleep(&self, duration: Duration) {
        self.machine.sleep(duration);
    }

    /// An unpredictable number, different across threads, processes and calls. Not for secrets.
    pub fn random_u64(&self) -> u64 {
        self.machine.random_u64()
    }

    /// Starts a named thread. The scheduling class is a hint that the system may ignore.
    pub fn spawn<F>(&self, name: &str, class: ThreadClass, f: F) -> Result<JoinHandle>
    where
        F: FnOnce() + Send + 'static,
    {
        match self.machine.spawn(name, class, Box::new(f)) {
            Ok(inner) => Ok(JoinHandle { inner }),
            Err(error) => Err(Error::system(&format!("start thread {name}"), error)),
        }
    }

    /// Checks that there is memory for the small allocations of a new piece of work, and for
    /// `bytes` besides them: see [`FileSystem::check_memory`].
    ///
    /// Errors: `OutOfResources`.
    pub fn check_memory(&self, bytes: usize) -> Result<()> {
        self.fs.check_memory(ROOM_BYTES.saturating_add(bytes))
    }

    /// Checks that there is memory for `count` threads that another library starts: see
    /// [`Env::spawn`].
    ///
    /// Errors: `OutOfResources`.
    pub fn check_threads(&self, count: usize) -> Result<()> {
        self.check_memory(THREAD_BYTES.saturating_mul(count))
    }

    /// Whether background work gets threads of its own. False on `Env::sim_manual` only.
    pub fn starts_threads(&self) -> bool {
        self.machine.starts_threads()
    }

    /// Whether threads may also be started by means other than [`Env::spawn`], such as pools of
    /// other libraries.
    pub fn allows_pools(&self) -> bool {
        self.machine.allows_pools()
    }

    /// The number of threads that can run at once; at least 1.
    pub fn parallelism(&self) -> usize {
        self.machine.parallelism()
    }
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Env").finish_non_exhaustive()
    }
}

/// The right to join a thread. Dropping it detaches the thread.
#[derive(Debug)]
pub struct JoinHandle {
    inner: std::thread::JoinHandle<()>,
}

impl JoinHandle {
    /// Waits for the end of the thread. Returns [`ErrorKind::Poisoned`] with the panic's message if
    /// it panicked.
    pub fn join(self) -> Result<()> {
        let name = self.inner.thread().name().unwrap_or("unnamed").to_owned();
        #[cfg(feature = "sim")]
        crate::sim::schedule::wait_for_thread(self.inner.thread().id());
        self.inner.join().map_err(|panic| {
            let message = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "a value that is not text".to_owned());
            Error::new(ErrorKind::Poisoned, format!("thread {name} panicked: {message}"))
        })
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.inner.is_finished()
    }

    /// The thread, to unpark it or to compare it with the current one.
    pub fn thread(&self) -> &std::thread::Thread {
        self.inner.thread()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_on_and_sleep_lasts() {
        let env = Env::os();
        let start = env.now();
        env.sleep(Duration::from_millis(2));
        assert!(env.now() - start >= Duration::from_millis(2));
        assert!(env.unix_time() > Duration::from_secs(1_600_000_000));
    }

    #[test]
    fn random_numbers_differ() {
        let env = Env::os();
        let numbers: std::collections::HashSet<u64> = (0..1000).map(|_| env.random_u64()).collect();
        assert_eq!(numbers.len(), 1000);
    }

    #[test]
    fn threads_have_names_and_panics_become_errors() {
        let env = Env::os();
        for class in [ThreadClass::Latency, ThreadClass::Background] {
            let handle = env
                .spawn("sapwood-test", class, || {
                    assert_eq!(std::thread::current().name(), Some("sapwood-test"));
                })
                .unwrap();
            handle.join().unwrap();
        }
        let handle = env.spawn("sapwood-bad", ThreadClass::Background, || panic!("no luck")).unwrap();
        let error = handle.join().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned);
        assert!(error.to_string().contains("no luck"), "{error}");
        assert!(env.parallelism() >= 1);
    }
}
