//! Workloads that only read.
use super::{Context, Limit};
use crate::engine::{Direction, Engine, Reader, Result};
use crate::measurement::{Figures, Latency};
use crate::meter::{self, Usage};
use crate::settings::Settings;
use crate::stream::{History, number_of};
use fastrand::Rng;
use sapwood_bench::histogram::Histogram;
use sapwood_bench::keys::KeyBuffer;
use sapwood_bench::zipfian::spread;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// The sampling interval of latencies.
const SAMPLE_EVERY: u64 = 16;

/// Pause before reads of an index.
const IDLE_PAUSE: Duration = Duration::from_secs(3);

/// Number of entries that a seek reads.
const SEEK_ENTRIES: usize = 11;

/// The choice of keys, and the settings of the reading threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub choice: Choice,
    pub threads: usize,
    pub seconds: f64,
    pub seed: u64,
}

impl Plan {
    pub fn new(seed: u64, seconds: f64) -> Plan {
        Plan { choice: Choice::Uniform, threads: 1, seconds, seed }
    }
}

/// The distribution of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Uniform. Keys that a random fill never drew are absent.
    Uniform,
    /// 99 of 100 reads are of a hundredth of the keys, which are spread over the key space.
    Hot,
    /// Absent keys between existing ones.
    Missing,
}

impl Choice {
    #[inline]
    pub fn next(self, rows: u64, random: &mut Rng) -> u64 {
        match self {
            Choice::Hot if random.u32(..100) < 99 => spread(random.u64(..(rows / 100).max(1))) % rows,
            _ => random.u64(..rows),
        }
    }

    pub fn keys(self, settings: &Settings) -> KeyBuffer {
        let longer = usize::from(self == Choice::Missing);
        KeyBuffer::new(settings.key_bytes + longer, 0, 0, settings.rows)
    }

    /// The number of existing keys among the next `reads` draws.
    pub fn expected(self, rows: u64, random: &mut Rng, reads: u64, history: &History) -> u64 {
        (0..reads).filter(|_| history.contains(self.next(rows, random)) && self != Choice::Missing).count()
            as u64
    }
}

/// The result of one thread.
struct Done {
    reads: u64,
    found: u64,
    histogram: Histogram,
}

impl<E: Engine> Context<'_, E> {
    /// Reads single keys.
    pub(super) fn read(&mut self, plan: &Plan) -> Result<Figures> {
        self.engine()?;
        let settings = self.settings;
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let random = |thread: usize| Rng::with_seed(plan.seed.wrapping_add(thread as u64));
        meter::reset_peak_memory();
        let before = Usage::now();
        let start = Instant::now();
        let barrier = Barrier::new(plan.threads);
        let threads = std::thread::scope(|scope| -> Result<Vec<Done>> {
            let running: Vec<_> = (0..plan.threads)
                .map(|thread| {
                    let (barrier, random) = (&barrier, random(thread));
                    scope.spawn(move || {
                        let reader = engine.reader()?;
                        barrier.wait();
                        read_thread(reader, settings, plan, random)
                    })
                })
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().map_err(|_| "a reading thread panicked")?)
                .collect()
        })?;
        let mut figures = finish(before, start);
        let mut histogram = Histogram::new();
        for (thread, done) in threads.iter().enumerate() {
            histogram.merge(&done.histogram);
            figures.operations += done.reads;
            let mut random = random(thread);
            let expected = plan.choice.expected(settings.rows, &mut random, done.reads, &self.history);
            if done.found != expected {
                let wrong = format!("{} of {} keys were found, not {expected}", done.found, done.reads);
                return Err(wrong.into());
            }
        }
        figures.latency = Latency::of(&histogram, SAMPLE_EVERY);
        Ok(figures)
    }

    /// Seeks to random keys and reads a few entries from each.
    pub(super) fn seek(&mut self, seed: u64) -> Result<Figures> {
        self.engine()?;
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let rows = self.settings.rows;
        let mut keys = Choice::Uniform.keys(self.settings);
        let mut random = Rng::with_seed(seed);
        let mut reader = engine.reader()?;
        let mut out_of_order = 0u64;
        let mut bytes = 0u64;
        let figures = sampled(rows, self.settings, |_| {
            let number = Choice::Uniform.next(rows, &mut random);
            let mut last = number;
            reader.seek(keys.make(number), SEEK_ENTRIES, &mut |key, value| {
                out_of_order += u64::from(number_of(key) < last);
                last = number_of(key);
                bytes += value.len() as u64;
            })?;
            Ok(())
        })?;
        drop(reader);

        // Repeats the seeks on a list of the existing keys.
        let present: Vec<u64> = (0..rows).filter(|&number| self.history.contains(number)).collect();
        let mut random = Rng::with_seed(seed);
        let expected: u64 = (0..figures.operations)
            .map(|_| {
                let number = Choice::Uniform.next(rows, &mut random);
                let place = present.partition_point(|&known| known < number);
                (present.len() - place).min(SEEK_ENTRIES) as u64
            })
            .sum();
        let expected = expected * self.settings.value_bytes as u64;
        if out_of_order > 0 || bytes != expected {
            let wrong =
                format!("seeks returned {bytes} bytes of values, not {expected}, {out_of_order} out of order");
            return Err(wrong.into());
        }
        Ok(figures)
    }

    /// Scans all entries in order, until the time is over.
    pub(super) fn scan(&mut self, direction: Direction) -> Result<Figures> {
        self.engine()?;
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let mut reader = engine.reader()?;
        self.whole_scans(|sum| {
            reader.scan(direction, &mut |key, value| {
                *sum = sum.wrapping_add(number_of(key));
                black_box(value);
            })
        })
    }

    /// Scans all entries, at least once, until the time is over. `scan` sums the numbers of the
    /// rows and returns the number of entries.
    pub(super) fn whole_scans(&self, mut scan: impl FnMut(&mut u64) -> Result<u64>) -> Result<Figures> {
        let expected: u64 =
            (0..self.settings.rows).filter(|&number| self.history.contains(number)).sum::<u64>();
        let rows = self.history.rows();
        meter::reset_peak_memory();
        let before = Usage::now();
        let start = Instant::now();
        let mut operations = 0;
        while operations == 0 || start.elapsed().as_secs_f64() < self.settings.seconds * 0.6 {
            let mut sum = 0;
            let visited = scan(&mut sum)?;
            if visited != rows || sum != expected {
                return Err(format!("a scan returned {visited} entries, not {rows}").into());
            }
            operations += visited;
        }
        let mut figures = finish(before, start);
        figures.operations = operations;
        Ok(figures)
    }

    /// Warms the cache: reads one key of eight in order, then some at random.
    pub(super) fn warm(&mut self, seed: u64) -> Result<Figures> {
        self.engine()?;
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let rows = self.settings.rows;
        let mut keys = Choice::Uniform.keys(self.settings);
        let mut reader = engine.reader()?;
        if self.settings.indexed {
            // Sapwood moves entries into its tree while it is idle. The pause is for all engines,
            // so that each may do deferred work.
            std::thread::sleep(IDLE_PAUSE);
        }
        let before = Usage::now();
        let start = Instant::now();
        for number in (0..rows).step_by(8) {
            black_box(reader.get(keys.make(number), |value| value.len())?);
        }
        let mut random = Rng::with_seed(seed);
        let mut limit = Limit::new(rows / 4, self.settings.seconds, 64);
        while limit.next() {
            black_box(reader.get(keys.make(random.u64(..rows)), |value| value.len())?);
        }
        let mut figures = finish(before, start);
        figures.operations = rows / 8 + limit.done;
        Ok(figures)
    }
}

fn read_thread(mut reader: impl Reader, settings: &Settings, plan: &Plan, mut random: Rng) -> Result<Done> {
    let mut keys = plan.choice.keys(settings);
    let mut done = Done { reads: 0, found: 0, histogram: Histogram::new() };
    let mut limit = Limit::new(settings.rows.max(1 << 22), plan.seconds, 64);
    while limit.next() {
        let sampled = (limit.done.is_multiple_of(SAMPLE_EVERY)).then(Instant::now);
        let number = plan.choice.next(settings.rows, &mut random);
        // The read compares the number at the start of the value: a wrong value does not count as
        // found.
        let right = reader.get(keys.make(number), |value| {
            value.first_chunk::<8>().is_some_and(|head| u64::from_le_bytes(*head) == number)
        })?;
        done.found += u64::from(right == Some(true));
        if let Some(start) = sampled {
            done.histogram.record(start.elapsed().as_nanos() as u64);
        }
    }
    done.reads = limit.done;
    Ok(done)
}

/// Runs `operation` at most `most` times, with the number of the call as its argument, and times
/// one of [`SAMPLE_EVERY`].
pub(super) fn sampled(
    most: u64,
    settings: &Settings,
    mut operation: impl FnMut(u64) -> Result<()>,
) -> Result<Figures> {
    meter::reset_peak_memory();
    let before = Usage::now();
    let start = Instant::now();
    let mut histogram = Histogram::new();
    let mut limit = Limit::new(most, settings.seconds, 64);
    while limit.next() {
        let sampled = (limit.done.is_multiple_of(SAMPLE_EVERY)).then(Instant::now);
        operation(limit.done)?;
        if let Some(start) = sampled {
            histogram.record(start.elapsed().as_nanos() as u64);
        }
    }
    let mut figures = finish(before, start);
    figures.operations = limit.done;
    figures.latency = Latency::of(&histogram, SAMPLE_EVERY);
    Ok(figures)
}

/// The figures of a run from `start` until now.
pub(super) fn finish(before: Usage, start: Instant) -> Figures {
    let elapsed = start.elapsed();
    let usage = Usage::now().since(before);
    let memory = meter::memory();
    Figures {
        seconds: elapsed.as_secs_f64(),
        cpu_seconds: usage.cpu.as_secs_f64(),
        device_bytes: usage.device_bytes,
        call_bytes: usage.call_bytes,
        foreign_processors: usage.foreign_processors(elapsed),
        peak_memory_bytes: memory.peak,
        anonymous_memory_bytes: memory.anonymous,
        ..Figures::default()
    }
}
