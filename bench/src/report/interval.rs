//! `--report_interval_seconds`: a CSV file with a line of seconds and operations per second for
//! each interval.
//!
//! The file covers the whole run with all its benchmarks. An interval without operations has a row
//! as well, so that stalls are visible.
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The finished operations of one thread. The counter has its own cache lines, since every
/// operation writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `operations`. Only the thread that owns the counter calls it.
    #[inline]
    pub fn add(&self, operations: u64) {
        // One thread writes, so load and store suffice. Relaxed: the reporter needs the number, not
        // an order.
        self.0.store(self.0.load(Ordering::Relaxed) + operations, Ordering::Relaxed);
    }
}

/// Writes the file from its own thread until it is dropped.
#[derive(Debug)]
pub struct IntervalReport {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    counters: Mutex<Vec<Arc<Counter>>>,
    stopped: Mutex<bool>,
    stop: Condvar,
}

impl Shared {
    fn total(&self) -> u64 {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        // Relaxed: see Counter::add.
        counters.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum()
    }
}

impl IntervalReport {
    /// Creates `path` and writes a row every `interval`.
    pub fn start(path: &Path, interval: Duration) -> io::Result<IntervalReport> {
        let mut file = File::create(path)?;
        file.write_all(b"secs_elapsed,interval_qps\n")?;
        let shared = Arc::new(Shared::default());
        let for_thread = Arc::clone(&shared);
        let path = path.to_owned();
        let thread = std::thread::spawn(move || {
            if let Err(error) = write_rows(&mut file, &for_thread, interval) {
                eprintln!("cannot write {}: {error}", path.display());
            }
        });
        Ok(IntervalReport { shared, thread: Some(thread) })
    }

    /// A counter for one more thread.
    pub fn counter(&self) -> Arc<Counter> {
        let counter = Arc::new(Counter::default());
        self.shared.counters.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counter));
        counter
    }
}

impl Drop for IntervalReport {
    fn drop(&mut self) {
        *self.shared.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.stop.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been printed; the results do not depend on it.
            let _ = thread.join();
        }
    }
}

fn write_rows(file: &mut File, shared: &Shared, interval: Duration) -> io::Result<()> {
    let start = Instant::now();
    let mut reported = 0;
    for row in 1.. {
        let due = start + interval * row;
        let mut stopped = shared.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                break;
            };
            stopped = shared.stop.wait_timeout(stopped, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        // A row that is due is written even if the run has ended.
        if *stopped && Instant::now() < due {
            return Ok(());
        }
        drop(stopped);
        let total = shared.total();
        let per_second = (total - reported) as f64 / interval.as_secs_f64();
        writeln!(file, "{},{}", start.elapsed().as_secs_f64().round() as u64, per_second as u64)?;
        reported = total;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_at_the_interval_and_end_with_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.csv");
        let report = IntervalReport::start(&path, Duration::from_millis(20)).unwrap();
        let (first, second) = (report.counter(), report.counter());
        first.add(5);
        second.add(7);
        std::thread::sleep(Duration::from_millis(70));
        drop(report);
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("secs_elapsed,interval_qps"));
        let rates: Vec<f64> =
            lines.map(|line| line.split_once(',').unwrap().1.parse::<f64>().unwrap()).collect();
        assert!(!rates.is_empty());
        assert_eq!(rates.iter().sum::<f64>() * 0.02, 12.0);
    }
}
