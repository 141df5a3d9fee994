//! Resource usage of this process (processor time, bytes, memory, space) and processor time of
//! others.
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Counters that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time of all threads of this process.
    pub cpu: Duration,
    /// Bytes sent towards the device or made dirty in the page cache, mapped pages included.
    pub device_bytes: u64,
    /// Bytes passed to system calls that write.
    pub call_bytes: u64,
    /// Processor time of all processes, in clock ticks, without idle and iowait.
    machine_ticks: u64,
}

impl Usage {
    /// The usage up to now.
    pub fn now() -> Usage {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let io = fs::read_to_string("/proc/self/io").unwrap_or_default();
        Usage {
            cpu: Duration::new(cpu.tv_sec.unsigned_abs(), u32::try_from(cpu.tv_nsec).unwrap_or(0)),
            device_bytes: field(&io, "write_bytes:"),
            call_bytes: field(&io, "wchar:"),
            machine_ticks: machine_ticks().unwrap_or(0),
        }
    }

    /// The usage since `earlier`.
    pub fn since(self, earlier: Usage) -> Usage {
        Usage {
            cpu: self.cpu.saturating_sub(earlier.cpu),
            device_bytes: self.device_bytes - earlier.device_bytes,
            call_bytes: self.call_bytes - earlier.call_bytes,
            machine_ticks: self.machine_ticks - earlier.machine_ticks,
        }
    }

    /// Processors kept busy by other processes on average; `self` is the difference of two usages
    /// `elapsed` apart.
    pub fn foreign_processors(&self, elapsed: Duration) -> f64 {
        let ticks_per_second = rustix::param::clock_ticks_per_second().max(1) as f64;
        let foreign = self.machine_ticks as f64 / ticks_per_second - self.cpu.as_secs_f64();
        (foreign / elapsed.as_secs_f64().max(0.01)).max(0.0)
    }
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn machine_ticks() -> Option<u64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> = text
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|part| part.parse().ok())
        .collect();
    Some(ticks.iter().sum::<u64>() - ticks.get(3)? - ticks.get(4)?)
}

/// Memory of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Peak of resident memory since `reset_peak_memory`, mapped files included, in bytes.
    pub peak: u64,
    /// Resident now without mapped files, in bytes.
    pub anonymous: u64,
}

/// Reads `/proc/self/status`.
pub fn memory() -> Memory {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    Memory { peak: field(&text, "VmHWM:") * 1024, anonymous: field(&text, "RssAnon:") * 1024 }
}

/// Resets the peak to the memory resident now. No effect where the system does not allow it.
pub fn reset_peak_memory() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// Bytes that the files below a folder take on the device.
pub fn space(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => space(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        // The engine has just removed the file.
        Err(_) => 0,
    });
    sizes.sum()
}

/// The number that follows `name` at the start of a line.
fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

/// The machine, in one line.
pub fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split_once(':'))
        .map_or("unknown processor", |(_, name)| name.trim());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    format!(
        "{} x {model}, {} GiB of memory, Linux {}",
        std::thread::available_parallelism().map_or(1, usize::from),
        field(&memory, "MemTotal:") >> 20,
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_grows_with_work() {
        let before = Usage::now();
        let mut number = 1u64;
        while Usage::now().since(before).cpu < Duration::from_millis(2) {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("inner/file"), vec![1; 100_000]).unwrap();
        rustix::fs::sync();
        assert!(Usage::now().since(before).call_bytes >= 100_000);
        assert!((100_000..300_000).contains(&space(folder.path())), "{}", space(folder.path()));
        assert!(memory().peak > 1 << 20 && memory().anonymous > 0);
    }
}
