//! The run of a plan: fresh databases, threads that start together, merged reports.
use super::parameters::Parameters;
use super::registry::{Benchmark, Body, Loop, Planned};
use super::worker::{Shared, Worker};
use crate::engine::Engine;
use crate::flags::Flags;
use crate::folder::Folder;
use crate::limit::RateLimiter;
use crate::log_file;
use crate::report::combined::Combined;
use crate::report::interval::IntervalReport;
use crate::report::{Counters, Progress, Stats};
use fastrand::Rng;
use sapwood_base::{Error, Result};
use sapwood_bench::keys::KeyBuffer;
use sapwood_bench::process::Cpu;
use sapwood_bench::schedule::{Schedule, Spacing};
use sapwood_bench::values::{Sizes, ValuePool};
use sapwood_bench::ycsb::Records;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// A run of `db_bench`: the flags, the database, and the state that outlives one benchmark.
pub struct Bench {
    pub(super) flags: Flags,
    /// Dropped before `folder`, which may remove the files.
    pub(super) engine: Option<Arc<Engine>>,
    pub(super) folder: Folder,
    pub(super) interval_report: Option<IntervalReport>,
    pub(super) last_writer: Option<LastWriter>,
    /// The records of the YCSB workloads, if known.
    pub(super) records: Option<Arc<Records>>,
    /// See `--use_existing_keys`.
    pub(super) existing_keys: Option<Arc<[Box<[u8]>]>>,
    /// Number of runs so far.
    pub(super) runs: u64,
    /// Number of threads started so far. Each has its own random numbers, also in later benchmarks:
    /// a read that replayed the keys of the fill would find all of them, in the order of their
    /// insertion.
    pub(super) threads_started: AtomicU64,
}

/// The last benchmark that wrote: later background work belongs to it.
pub(super) struct LastWriter {
    pub(super) name: &'static str,
    pub(super) writes: u64,
    pub(super) before: Cpu,
}

impl Bench {
    /// Prepares a run. Removes an existing database, unless the flags use it.
    pub fn new(flags: Flags) -> Result<Bench> {
        let folder =
            Folder::new(&flags.db).map_err(|error| Error::io("create a folder", &flags.db, error))?;
        if !flags.use_existing_db && !flags.readonly {
            destroy(&folder, &flags)?;
        }
        let interval_report = match u64::try_from(flags.report_interval_seconds) {
            Ok(seconds @ 1..) => {
                let path = Path::new(&flags.report_file);
                let report = IntervalReport::start(path, Duration::from_secs(seconds));
                Some(report.map_err(|error| Error::io("create", path, error))?)
            }
            _ => None,
        };
        Ok(Bench {
            flags,
            engine: None,
            folder,
            interval_report,
            last_writer: None,
            records: None,
            existing_keys: None,
            runs: 0,
            threads_started: AtomicU64::new(0),
        })
    }

    /// Runs the plan in order.
    pub fn run(&mut self, plan: &[Planned]) -> Result<()> {
        for planned in plan {
            self.run_planned(planned)?;
        }
        if self.flags.statistics {
            let engine = self.engine()?;
            crate::print(&format!("STATISTICS:\n{}{}\n", engine.figures().counters(), engine.statistics()));
        }
        match self.engine.take().map(Arc::try_unwrap) {
            Some(Ok(engine)) => engine.close(),
            _ => Ok(()),
        }
    }

    /// The open database; opens it first if necessary.
    pub(super) fn engine(&mut self) -> Result<Arc<Engine>> {
        if let Some(engine) = &self.engine {
            return Ok(Arc::clone(engine));
        }
        log_file::check(self.folder.path(), &self.flags)?;
        let engine = Arc::new(Engine::open(self.folder.path(), &self.flags)?);
        if let (Folder::Named(folder), false) = (&self.folder, self.flags.readonly) {
            log_file::write(folder, &self.flags)?;
        }
        self.engine = Some(Arc::clone(&engine));
        Ok(engine)
    }

    /// Closes the database, if it is open.
    pub(super) fn close(&mut self) -> Result<()> {
        match self.engine.take().map(Arc::try_unwrap) {
            Some(Ok(engine)) => engine.close(),
            Some(Err(_)) => unreachable!("nothing else holds the engine between benchmarks"),
            None => Ok(()),
        }
    }

    /// Reads the existing keys; their number replaces `--num`.
    pub(super) fn read_keys(&mut self) -> Result<()> {
        let mut keys = Vec::new();
        let mut cursor = self.engine()?.cursor()?;
        cursor.seek_to_first()?;
        while cursor.valid() {
            keys.push(Box::from(cursor.key()));
            cursor.next()?;
        }
        if keys.is_empty() {
            return Err(Error::invalid_argument("--use_existing_keys: the database has no keys"));
        }
        self.flags.num = keys.len() as i64;
        self.existing_keys = Some(keys.into());
        Ok(())
    }

    pub(super) fn run_planned(&mut self, planned: &Planned) -> Result<()> {
        let Planned { benchmark, repeats, warm_ups } = planned;
        let Benchmark { name, fresh, adjust, body, .. } = **benchmark;
        if fresh && (self.flags.use_existing_db || self.flags.readonly) {
            crate::print(&format!("{name:<12} : skipped (--use_existing_db is true)\n"));
            return Ok(());
        }
        if self.flags.use_existing_keys && self.existing_keys.is_none() {
            self.read_keys()?;
        }
        let mut parameters = Parameters::new(&self.flags);
        adjust(&mut parameters);
        if let Body::Silent(body) = body {
            let before = Cpu::now();
            let start = Instant::now();
            body(self)?;
            if name == "waitforcompaction" {
                self.report_cpu(name, 0, before, start.elapsed());
            }
            return Ok(());
        }
        if parameters.threads as i64 != self.flags.threads {
            eprintln!("{name} uses {} thread", parameters.threads);
        }
        crate::print(&format!("DB path: [{}]\n", self.folder.path().display()));
        if *warm_ups > 0 {
            crate::print(&format!("Warming up benchmark by running {warm_ups} times\n"));
        }
        if *repeats > 1 && *warm_ups == 0 {
            crate::print(&format!("Running benchmark for {repeats} times\n"));
        }
        let mut combined = Combined::default();
        for run in 0..warm_ups + repeats {
            if fresh {
                // Every run of a filling benchmark has an empty database, so that all runs are
                // alike.
                self.close()?;
                destroy(&self.folder, &self.flags)?;
                self.records = None;
            }
            if run == *warm_ups && *warm_ups > 0 {
                crate::print(&format!("Running benchmark for {repeats} times\n"));
            }
            let stats = self.run_once(name, body, &parameters)?;
            if run >= *warm_ups {
                combined.add(&stats);
                let interval_only = self.flags.confidence_interval_only;
                crate::print(&if interval_only {
                    combined.report_interval(name)
                } else {
                    combined.report(name)
                });
            }
        }
        crate::print(&combined.report_final(name));
        Ok(())
    }

    /// One run of one benchmark, with its line of output.
    pub(super) fn run_once(
        &mut self,
        name: &'static str,
        body: Body,
        parameters: &Parameters,
    ) -> Result<Stats> {
        // Opening and preparing count neither as time nor as processor time.
        self.engine()?;
        if let Body::Prepared(prepare, _) = body {
            prepare(self, parameters)?;
        }
        self.runs += 1;
        let before = Cpu::now();
        let mut open_loop = String::new();
        let stats = match body {
            Body::Threads(body) | Body::Prepared(_, body) => {
                self.run_threads(body, parameters, 0, &mut open_loop)?
            }
            Body::Background(body) => self.run_threads(body, parameters, 1, &mut open_loop)?,
            Body::Alone(body) => {
                let mut stats = self.start_stats(0, None);
                body(self, parameters, &mut stats)?;
                stats.stop();
                stats
            }
            Body::Silent(_) => unreachable!("silent benchmarks have no line"),
        };
        crate::print(&(stats.report(name) + &open_loop));
        if stats.writes() > 0 {
            self.last_writer = Some(LastWriter { name, writes: stats.writes(), before });
        }
        self.report_cpu(name, stats.done(), before, Duration::from_secs_f64(stats.elapsed_seconds()));
        Ok(stats)
    }

    pub(super) fn run_threads(
        &mut self,
        body: Loop,
        parameters: &Parameters,
        background: usize,
        open_loop: &mut String,
    ) -> Result<Stats> {
        let engine = self.engine()?;
        let threads = parameters.threads + background;
        let flags = &self.flags;
        let values = ValuePool::new(flags.compression_ratio, sizes(flags, parameters.value_size))
            .with_same_percent(flags.same_value_percentage as u32);
        let shared = Shared {
            barrier: Barrier::new(threads),
            foreground: AtomicUsize::new(parameters.threads),
            // A changing rate is set by the threads that use it.
            write_rate: RateLimiter::new(
                flags.benchmark_write_rate_limit.max(i64::from(flags.sine_write_rate)),
            ),
            read_rate: RateLimiter::new(flags.benchmark_read_rate_limit),
            mix_rate: RateLimiter::new(i64::from(flags.sine_mix_rate)),
            schedule: parameters.open_loop_rate.map(|rate| schedule(flags, rate)),
            records: self.records.clone(),
            clock: AtomicU64::new(0),
        };
        let results: Vec<Result<Stats>> = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads)
                .map(|thread| {
                    let (engine, shared, values) = (&*engine, &shared, &values);
                    let (bench, each_line) = (&*self, self.each_line());
                    // Relaxed: only the number is used.
                    let number = bench.threads_started.fetch_add(1, Ordering::Relaxed);
                    // Forked, since random numbers of neighbouring seeds are similar.
                    let mut random = Rng::with_seed((flags.seed as u64).wrapping_add(number)).fork();
                    scope.spawn(move || {
                        let values = values.walk(&mut random);
                        let keys = bench.key_buffer(parameters);
                        shared.barrier.wait();
                        let stats = bench.start_stats(thread, each_line);
                        let mut worker = Worker {
                            thread,
                            engine,
                            flags: &bench.flags,
                            parameters,
                            shared,
                            random,
                            keys,
                            values,
                            stats,
                        };
                        let result = body(&mut worker);
                        worker.stats.stop();
                        if thread >= background {
                            // Relaxed: only the number is used; join publishes the results.
                            shared.foreground.fetch_sub(1, Ordering::Relaxed);
                        }
                        result.map(|()| worker.stats)
                    })
                })
                .collect();
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let mut merged: Option<Stats> = None;
        for stats in results {
            let stats = stats?;
            match &mut merged {
                Some(merged) => merged.merge(&stats),
                None => merged = Some(stats),
            }
        }
        let merged = merged.expect("there is at least one thread");
        if let Some(schedule) = &shared.schedule {
            *open_loop = self.open_loop_report(schedule, parameters, &merged);
        }
        Ok(merged)
    }

    /// The lines on an open loop, which follow the result.
    pub(super) fn open_loop_report(
        &self,
        schedule: &Schedule,
        parameters: &Parameters,
        stats: &Stats,
    ) -> String {
        let Some(latencies) = stats.latencies() else {
            return "open loop    : this benchmark does not go by a schedule\n".to_owned();
        };
        let rate = parameters.open_loop_rate.unwrap_or_default();
        let spacing = &self.flags.open_loop_spacing;
        let mut text = format!(
            "open loop    : {rate} ops/sec asked for ({spacing}), {:.1} done; micros from the intended start:\n",
            latencies.all().count() as f64 / stats.elapsed_seconds(),
        );
        for line in latencies.to_string().lines() {
            let _ = writeln!(text, "  {line}");
        }
        let waiting = if stats.out_of_time() { schedule.waiting(stats.finished()) } else { 0 };
        if waiting > 0 {
            let _ = writeln!(text, "  {waiting} more were due and had not begun when the time was over");
        }
        text
    }

    pub(super) fn key_buffer(&self, parameters: &Parameters) -> KeyBuffer {
        if let Some(keys) = &self.existing_keys {
            return KeyBuffer::of(Arc::clone(keys));
        }
        let flags = &self.flags;
        KeyBuffer::new(
            parameters.key_size,
            flags.prefix_size as usize,
            flags.keys_per_prefix as u64,
            flags.num as u64,
        )
    }

    pub(super) fn start_stats(&self, thread: usize, each_line: Option<Arc<dyn Fn() + Send + Sync>>) -> Stats {
        let positive = |value: i64| u64::try_from(value).unwrap_or(0);
        let progress = Progress {
            shown: self.flags.shows_progress(),
            slow: self.slow_operation(),
            every_operations: positive(self.flags.stats_interval),
            every_seconds: positive(self.flags.stats_interval_seconds),
            each_line,
        };
        let counters = Counters {
            operations: self.interval_report.as_ref().map(IntervalReport::counter),
            written: self.engine.as_ref().map(|engine| engine.writer(self.runs)),
        };
        Stats::start(thread, self.flags.histogram, progress, counters)
    }

    /// The latency from which an operation is reported as slow.
    pub(super) fn slow_operation(&self) -> Option<Duration> {
        let told = self.flags.given.contains(&"slow_usecs") || self.flags.shows_progress();
        let micros = u64::try_from(self.flags.slow_usecs).ok().filter(|micros| *micros > 0)?;
        let alone = self.flags.stats_interval == 0 && self.flags.stats_interval_seconds == 0;
        (told && alone).then(|| Duration::from_micros(micros))
    }

    /// The output of `--stats_per_interval`.
    pub(super) fn each_line(&self) -> Option<Arc<dyn Fn() + Send + Sync>> {
        let engine = self.engine.as_ref().filter(|_| self.flags.stats_per_interval > 0).map(Arc::clone)?;
        Some(Arc::new(move || eprintln!("{}", engine.statistics())))
    }

    /// The line on processor time: of all threads of the process, the engine's included.
    pub(super) fn report_cpu(&self, name: &str, operations: u64, before: Cpu, elapsed: Duration) {
        if !self.flags.cpu_report {
            return;
        }
        let now = Cpu::now();
        let used = now.since(before);
        let share = 100.0 * used.total.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        let per_operation = |cpu: Cpu, count: u64| cpu.total.as_secs_f64() * 1e6 / count.max(1) as f64;
        // The line does not begin with the name: scripts read results from lines that do.
        let mut line = format!("cpu          : {name}");
        if operations > 0 {
            let _ = write!(line, " {:.3} micros/op;", per_operation(used, operations));
        }
        let _ = write!(
            line,
            " {:.3} seconds, {:.3} of them in the kernel; {share:.0}% of one core",
            used.total.as_secs_f64(),
            used.system.as_secs_f64(),
        );
        // After `waitforcompaction` the line also has the cost of the writes with their background
        // work.
        if let Some(writer) = self.last_writer.as_ref().filter(|_| name == "waitforcompaction") {
            let all = now.since(writer.before);
            let per_write = per_operation(all, writer.writes);
            let _ = write!(line, "; {} and all after it: {per_write:.3} micros/write", writer.name);
        }
        eprintln!("{line}");
    }
}

/// Removes the database, if it exists, and the file beside it.
pub(super) fn destroy(folder: &Folder, flags: &Flags) -> Result<()> {
    log_file::remove(folder.path())?;
    Engine::destroy(folder.path(), flags)
}

/// The sizes of values: those of the flags, unless the benchmark sets its own.
pub(super) fn sizes(flags: &Flags, value_size: u64) -> Sizes {
    let (least, most) = (flags.value_size_min as usize, flags.value_size_max as usize);
    match flags.value_size_distribution_type.as_str() {
        "uniform" if value_size == flags.value_size as u64 => Sizes::Uniform(least, most),
        "normal" if value_size == flags.value_size as u64 => Sizes::Normal(least, most),
        _ => Sizes::Fixed(value_size as usize),
    }
}

/// The schedule of an open loop.
pub(super) fn schedule(flags: &Flags, rate: f64) -> Schedule {
    let spacing = if flags.open_loop_spacing == "fixed" { Spacing::Fixed } else { Spacing::Poisson };
    Schedule::new(rate, spacing, flags.seed as u64)
}
