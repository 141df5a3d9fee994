//! Resource usage of this process: processor time, memory, bytes written. `db_bench` reports the
//! cost of an operation, background work included, from these.
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::fs;
use std::time::Duration;

/// Processor time of all threads of this process, ended ones included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// All of it, with a resolution of nanoseconds.
    pub total: Duration,
    /// The part spent in the kernel, in steps of a clock tick (10 ms).
    pub system: Duration,
}

impl Cpu {
    /// The usage up to now.
    pub fn now() -> Cpu {
        let total = clock_gettime(ClockId::ProcessCPUTime);
        let total = Duration::new(
            u64::try_from(total.tv_sec).unwrap_or(0),
            u32::try_from(total.tv_nsec).unwrap_or(0),
        );
        Cpu { total, system: system_time().unwrap_or_default() }
    }

    /// The usage since `earlier`.
    pub fn since(self, earlier: Cpu) -> Cpu {
        Cpu {
            total: self.total.saturating_sub(earlier.total),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

/// Field 15 of `/proc/self/stat`, in clock ticks. The second field is a name in parentheses that
/// may contain spaces.
fn system_time() -> Option<Duration> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let ticks: u64 = text.rsplit_once(')')?.1.split_whitespace().nth(12)?.parse().ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    Some(Duration::from_millis(ticks * 1000 / ticks_per_second))
}

/// Memory of this process in bytes: resident now, and at its peak.
#[derive(Clone, Copy, Debug, Default)]
pub struct Resident {
    /// Now.
    pub now: u64,
    /// The peak.
    pub peak: u64,
    /// The part of `now` that maps files, such as log segments. The page cache counts it as well.
    pub file: u64,
}

/// Reads `/proc/self/status`; zeros where the file does not exist.
pub fn resident() -> Resident {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kilobytes = |name| field(&text, name) * 1024;
    Resident { now: kilobytes("VmRSS:"), peak: kilobytes("VmHWM:"), file: kilobytes("RssFile:") }
}

/// Resources that the process holds: memory in bytes, descriptors and threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Anonymous resident memory.
    pub anonymous: u64,
    /// Resident memory that maps files, shared memory included.
    pub mapped: u64,
    /// Address space.
    pub address_space: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// Its resources now; zeros without `/proc`.
    pub fn now() -> Usage {
        let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = |name| field(&text, name) * 1024;
        Usage {
            anonymous: kilobytes("RssAnon:"),
            mapped: kilobytes("RssFile:") + kilobytes("RssShmem:"),
            address_space: kilobytes("VmSize:"),
            // One descriptor is that of the listing itself.
            descriptors: fs::read_dir("/proc/self/fd").map_or(0, |list| list.count().saturating_sub(1))
                as u64,
            threads: field(&text, "Threads:"),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes as f64 / 1_048_576.0;
        write!(
            f,
            "{:9.1} MB anonymous {:9.1} MB mapped {:11.1} MB address space {:6} descriptors {:5} threads",
            megabytes(self.anonymous),
            megabytes(self.mapped),
            megabytes(self.address_space),
            self.descriptors,
            self.threads,
        )
    }
}

/// Bytes that this process has written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// Through system calls. Stores into mapped log segments are not included.
    pub calls: u64,
    /// Sent towards the device or made dirty in the page cache, mapped pages included.
    pub device: u64,
}

/// Reads `/proc/self/io`; zeros where the file does not exist.
pub fn written() -> Written {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    Written { calls: field(&text, "wchar:"), device: field(&text, "write_bytes:") }
}

/// The number that follows `name` at the start of a line.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// Number of processors and name of the first, from `/proc/cpuinfo`.
pub fn processor() -> (usize, String) {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |line: &str| line.split_once(':').map(|(_, value)| value.trim().to_owned());
    let name = text.lines().find(|line| line.starts_with("model name")).and_then(value);
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    (count, name.unwrap_or_else(|| "unknown processor".to_owned()))
}

/// Size of the last-level cache of the first processor, in the system's notation ("36608K"); empty
/// if unknown.
pub fn processor_cache() -> String {
    let path = |index| format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
    (0..8).rev().find_map(|index| fs::read_to_string(path(index)).ok()).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_grows_with_work() {
        let before = Cpu::now();
        let mut number = 1u64;
        while Cpu::now().since(before).total < Duration::from_millis(5) {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(Cpu::now().since(before).total >= Duration::from_millis(5));
        assert!(Cpu::now().system <= Cpu::now().total + Duration::from_millis(20));
    }

    #[test]
    fn memory_and_writes_are_found() {
        assert!(resident().now > 100_000 && resident().peak >= resident().now / 2);
        let before = Usage::now();
        assert!(before.anonymous > 100_000 && before.threads >= 1, "{before}");
        let file = fs::File::open("/proc/self/status").unwrap();
        assert!(Usage::now().descriptors > before.descriptors.min(3));
        drop(file);
        assert_eq!(field("a: 1\nwchar: 77 x\n", "wchar:"), 77);
        assert_eq!(field("", "wchar:"), 0);
    }
}
