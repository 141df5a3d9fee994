//! Timeouts by the work that a process did, not by the clock alone.
//!
//! On a busy machine a process may get a tenth of a processor, and a task of seconds takes minutes.
//! Such a process does not hang. A process that hangs either works or sleeps without end. So two
//! times count: the processor time of the process, and the time during which none of its threads
//! was runnable.
#![allow(clippy::disallowed_methods, reason = "watches real processes in real time")]
use std::time::{Duration, Instant};

/// The polling interval: each poll sees whether the process sleeps.
pub const LOOK: Duration = Duration::from_millis(200);

/// The timeout of one process.
pub struct Patience {
    process: u32,
    limit: Duration,
    since: Instant,
    worked_before: Duration,
    asleep: Duration,
    looked: Instant,
}

impl Patience {
    /// A timeout that starts now. Poll it about every [`LOOK`].
    pub fn new(process: u32, limit: Duration) -> Patience {
        let now = Instant::now();
        let worked_before = look(process).map_or(Duration::ZERO, |look| look.worked);
        Patience { process, limit, since: now, worked_before, asleep: Duration::ZERO, looked: now }
    }

    /// Whether the process has worked or slept for longer than the limit. Where the system does not
    /// report either, the clock decides.
    pub fn is_over(&mut self) -> bool {
        let now = Instant::now();
        let since_last = now - std::mem::replace(&mut self.looked, now);
        let counts = match look(self.process) {
            Some(look) => self.counts(&look, since_last),
            None => now - self.since,
        };
        now - self.since >= self.limit && counts >= self.limit
    }

    /// The time that counts so far, after one more poll.
    fn counts(&mut self, look: &Look, since_last: Duration) -> Duration {
        if !look.wants_to_run {
            self.asleep += since_last;
        }
        look.worked.saturating_sub(self.worked_before) + self.asleep
    }
}

/// The state of a process at one moment.
struct Look {
    /// The processor time of all its threads so far.
    worked: Duration,
    /// Whether a thread runs, is runnable, or waits for a disk. The polling thread is excluded.
    wants_to_run: bool,
}

/// Fields of a line of `/proc/…/stat` after the name, which may contain any character.
#[cfg(target_os = "linux")]
fn fields(path: impl AsRef<std::path::Path>) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(path).ok()?;
    let (_, behind) = text.rsplit_once(')')?;
    Some(behind.split_whitespace().map(str::to_string).collect())
}

#[cfg(target_os = "linux")]
fn look(process: u32) -> Option<Look> {
    /// The unit of the times in that file, on every architecture.
    const TICK: Duration = Duration::from_millis(10);
    let folder = format!("/proc/{process}");
    let of_process = fields(format!("{folder}/stat"))?;
    let ticks = |at: usize| of_process.get(at)?.parse::<u32>().ok();
    let worked = TICK * (ticks(11)? + ticks(12)?);
    let own = std::fs::read_link("/proc/thread-self").ok();
    let own = own.as_deref().and_then(|path| path.file_name());
    let wants_to_run = std::fs::read_dir(format!("{folder}/task"))
        .ok()?
        .flatten()
        .filter(|thread| process != std::process::id() || Some(thread.file_name().as_os_str()) != own)
        .filter_map(|thread| fields(thread.path().join("stat")))
        .any(|thread| thread.first().is_some_and(|state| state == "R" || state == "D"));
    Some(Look { worked, wants_to_run })
}

#[cfg(not(target_os = "linux"))]
fn look(_process: u32) -> Option<Look> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// Polls `program` until its timeout is over.
    fn wait_for_the_end(program: &str) {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", program]).stdout(Stdio::null()).spawn().unwrap();
        let mut patience = Patience::new(child.id(), Duration::from_millis(60));
        // Many more polls than are needed, for a machine with other work.
        let is_over = (0..20_000).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            patience.is_over()
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_over, "{program}");
    }

    #[test]
    fn patience_ends_with_who_sleeps_and_with_who_works() {
        wait_for_the_end("exec sleep 1000");
        wait_for_the_end("while :; do :; done");
    }

    #[test]
    fn who_never_gets_a_turn_is_waited_for() {
        let second = Duration::from_secs(1);
        let mut patience = Patience::new(std::process::id(), second);
        let worked = patience.worked_before;
        for _ in 0..1000 {
            assert_eq!(patience.counts(&Look { worked, wants_to_run: true }, second), Duration::ZERO);
        }
        let worked = worked + second;
        assert_eq!(patience.counts(&Look { worked, wants_to_run: true }, second), second);
        assert_eq!(patience.counts(&Look { worked, wants_to_run: false }, second), 2 * second);
    }
}
