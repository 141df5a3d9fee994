//! Resources of a process or a database: memory, mappings, descriptors, threads. The oracle of
//! everything that must be released.
//!
//! [`Resources`] reads Linux's figures of the whole process, so it suits programs that do one thing
//! at a time. `Db::remains` and [`SimFs::open_handles`](sapwood_storage::sim::SimFs::open_handles)
//! report on one database and one simulated machine; they are exact even while other tests run.
#![allow(
    clippy::disallowed_methods,
    reason = "reads the real system's figures of this process, in real time"
)]
use std::fmt;
use std::time::Duration;

/// The resources of this process at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes of anonymous memory in use: heap, arenas, cache.
    pub anonymous_bytes: u64,
    /// Bytes of address space, whether in use or not.
    pub mapped_bytes: u64,
    /// Mappings.
    pub mappings: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// The increase that is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Slack {
    /// Bytes of anonymous memory: an allocator retains some.
    pub anonymous_bytes: u64,
    /// Bytes of address space.
    pub mapped_bytes: u64,
    /// Mappings.
    pub mappings: u64,
}

impl Default for Slack {
    fn default() -> Slack {
        Slack { anonymous_bytes: 16 << 20, mapped_bytes: 1 << 30, mappings: 64 }
    }
}

impl Resources {
    /// The present resources; `None` where the system does not report them (only Linux does).
    pub fn now() -> Option<Resources> {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        };
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        // One of them lists the others.
        let descriptors = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64 - 1;
        Some(Resources {
            anonymous_bytes: field("RssAnon:")? << 10,
            mapped_bytes: field("VmSize:")? << 10,
            mappings: maps.lines().count() as u64,
            descriptors,
            threads: field("Threads:")?,
        })
    }

    /// Compares the present resources with `self`: descriptors and threads exactly, memory up to
    /// `slack`.
    ///
    /// The kernel releases threads and their resources shortly after a join, so this polls for up
    /// to five seconds.
    ///
    /// Errors: the figures of both moments.
    pub fn check_back(&self, slack: Slack) -> Result<(), String> {
        let mut left = 500;
        loop {
            let Some(now) = Resources::now() else { return Ok(()) };
            let is_back = now.descriptors <= self.descriptors
                && now.threads <= self.threads
                && now.anonymous_bytes <= self.anonymous_bytes + slack.anonymous_bytes
                && now.mapped_bytes <= self.mapped_bytes + slack.mapped_bytes
                && now.mappings <= self.mappings + slack.mappings;
            if is_back {
                return Ok(());
            }
            if left == 0 {
                return Err(format!("before: {self}; now: {now}"));
            }
            left -= 1;
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} KiB anonymous, {} KiB mapped in {} pieces, {} descriptors, {} threads",
            self.anonymous_bytes >> 10,
            self.mapped_bytes >> 10,
            self.mappings,
            self.descriptors,
            self.threads
        )
    }
}
