//! Workloads that only write.
use super::{Context, Limit};
use crate::engine::{Engine, Indexed, Result};
use crate::measurement::{Figures, Growth, Latency, Second};
use crate::meter::{self, Usage};
use crate::stream::Writes;
use sapwood_bench::histogram::Histogram;
use sapwood_bench::keys::Order;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// The order and the mode of writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub order: Order,
    pub mode: Mode,
    pub threads: usize,
    /// Maximum number of keys written by all threads; by default the number of rows.
    pub operations: Option<u64>,
    /// Maximum duration in seconds.
    pub seconds: f64,
    /// Whether the rest of `operations` is written afterwards, without being measured.
    pub rest: bool,
    /// The sampling interval of latencies; a power of two.
    pub sample_every: u64,
    /// Whether the report has every second.
    pub timeline: bool,
    pub seed: u64,
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        Plan {
            order: Order::Random,
            mode: Mode::Single,
            threads: 1,
            operations: None,
            seconds: 1.0,
            rest: false,
            sample_every: 8,
            timeline: false,
            seed,
        }
    }

    fn stream_seed(&self, thread: usize) -> u64 {
        self.seed.wrapping_add(thread as u64)
    }
}

/// The mode of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One by one.
    Single,
    /// One by one, each synced to the device.
    Durable,
    /// One by one, each with its entry in the index.
    Indexed,
    /// In batches of this size.
    Batches(usize),
}

/// The result of one thread.
struct Done {
    writes: u64,
    histogram: Histogram,
    growth: Vec<Growth>,
    timeline: Vec<Second>,
}

/// Entries of a batch, whose memory is reused.
#[derive(Default)]
struct Batch {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Batch {
    fn fill(&mut self, writes: &mut Writes<'_>, count: usize) {
        self.entries.resize_with(count, Default::default);
        for (key, value) in &mut self.entries {
            let (new_key, new_value) = writes.next();
            key.clear();
            key.extend_from_slice(new_key);
            value.clear();
            value.extend_from_slice(new_value);
        }
    }
}

impl<E: Engine> Context<'_, E> {
    /// Runs a plan, then settles the engine.
    pub(super) fn write(&mut self, plan: &Plan) -> Result<Figures> {
        self.engine()?;
        let (settings, task) = (self.settings, self.task);
        let operations = plan.operations.unwrap_or(settings.rows);
        let first_sequence = self.history.next_sequence;
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let values = &self.values;
        let writes = |thread: usize| {
            Writes::new(settings, values, plan.order, plan.stream_seed(thread), first_sequence)
        };
        if plan.mode == Mode::Indexed {
            engine.indexed()?;
        }
        if plan.mode == Mode::Durable {
            // The first write may create files, which is not part of the cost of a durable write.
            // The measured stream repeats it.
            let mut first = writes(0);
            let (key, value) = first.next();
            engine.put_durable(key, value)?;
        }
        meter::reset_peak_memory();
        let before = Usage::now();
        let start = Instant::now();
        let threads: Vec<Done> = if plan.threads == 1 {
            let sizes = Sizes { folder: &task.folder, before, row_bytes: settings.row_bytes() };
            vec![write_thread(engine, writes(0), plan, operations, Some(&sizes))?]
        } else {
            let barrier = Barrier::new(plan.threads);
            std::thread::scope(|scope| -> Result<Vec<Done>> {
                let running: Vec<_> = (0..plan.threads)
                    .map(|thread| {
                        let (barrier, writes) = (&barrier, &writes);
                        scope.spawn(move || {
                            let writes = writes(thread);
                            barrier.wait();
                            write_thread(engine, writes, plan, operations / plan.threads as u64, None)
                        })
                    })
                    .collect();
                running
                    .into_iter()
                    .map(|thread| thread.join().map_err(|_| "a writing thread panicked")?)
                    .collect()
            })?
        };
        let elapsed = start.elapsed();
        let acknowledged = Usage::now().since(before);
        let done: u64 = threads.iter().map(|thread| thread.writes).sum();
        let mut histogram = Histogram::new();
        threads.iter().for_each(|thread| histogram.merge(&thread.histogram));
        let mut figures = Figures {
            operations: done,
            seconds: elapsed.as_secs_f64(),
            user_bytes: done * settings.row_bytes(),
            cpu_seconds: acknowledged.cpu.as_secs_f64(),
            device_bytes: acknowledged.device_bytes,
            call_bytes: acknowledged.call_bytes,
            space_bytes: meter::space(&task.folder.join("db")),
            foreign_processors: acknowledged.foreign_processors(elapsed),
            latency: Latency::of(&histogram, plan.sample_every),
            ..Figures::default()
        };
        if done == 0 {
            return Err("not a single write ended in time".into());
        }

        let settle_start = Instant::now();
        engine.settle()?;
        let settled = Usage::now().since(before);
        figures.settle_seconds = Some(settle_start.elapsed().as_secs_f64());
        figures.cpu_seconds_settled = Some(settled.cpu.as_secs_f64());
        figures.device_bytes_settled = Some(settled.device_bytes);
        figures.call_bytes_settled = Some(settled.call_bytes);
        figures.peak_memory_bytes = meter::memory().peak;
        figures.anonymous_memory_bytes = meter::memory().anonymous;

        // Not measured: the rest of the rows, and the update of the history.
        if plan.rest && done < operations {
            let mut writes = writes(0);
            for _ in 0..done {
                writes.next();
            }
            if plan.mode == Mode::Indexed {
                let index = engine.indexed()?;
                for _ in done..operations {
                    let (key, value) = writes.next();
                    index.put(key, value)?;
                }
            } else {
                write_batches(engine, &mut writes, operations - done)?;
            }
            engine.settle()?;
            figures.more.insert("rows written without being measured".into(), (operations - done) as f64);
        }
        for (thread, done) in threads.into_iter().enumerate() {
            let mut writes = writes(thread);
            let mut replayed = 0;
            for mut growth in done.growth {
                let writes_then = growth.user_bytes / settings.row_bytes();
                writes.replay(writes_then - replayed, &mut self.history);
                replayed = writes_then;
                growth.live_bytes = self.history.rows() * settings.row_bytes();
                figures.growth.push(growth);
            }
            writes.replay(done.writes - replayed, &mut self.history);
            figures.live_bytes_acknowledged = self.history.rows() * settings.row_bytes();
            if plan.rest {
                writes.replay(operations - done.writes, &mut self.history);
            }
            figures.timeline.extend(done.timeline);
        }
        self.history.exact &= plan.threads == 1;
        let rows = self.history.rows();
        figures.live_bytes = rows * settings.row_bytes();
        figures.space_bytes_settled = Some(meter::space(&task.folder.join("db")));
        Ok(figures)
    }

    /// Loads every row in random order, in batches.
    pub(super) fn load(&mut self, seed: u64) -> Result<Figures> {
        self.engine()?;
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let rows = self.settings.rows;
        let new = || Writes::new(self.settings, &self.values, Order::UniqueRandom, seed, 0);
        let start = Instant::now();
        write_batches(engine, &mut new(), rows)?;
        engine.settle()?;
        let figures =
            Figures { operations: rows, seconds: start.elapsed().as_secs_f64(), ..Figures::default() };
        new().replay(rows, &mut self.history);
        Ok(figures)
    }
}

/// Writes keys in batches of a thousand.
pub(super) fn write_batches<E: Engine>(engine: &E, writes: &mut Writes<'_>, count: u64) -> Result<()> {
    let mut batch = Batch::default();
    let mut left = count;
    while left > 0 {
        let now = left.min(1000);
        batch.fill(writes, now as usize);
        engine.put_batch(&batch.entries)?;
        left -= now;
    }
    Ok(())
}

/// The data for recording sizes during a fill.
struct Sizes<'a> {
    folder: &'a std::path::Path,
    before: Usage,
    row_bytes: u64,
}

impl Sizes<'_> {
    fn growth(&self, writes: u64) -> Growth {
        Growth {
            user_bytes: writes * self.row_bytes,
            device_bytes: Usage::now().since(self.before).device_bytes,
            space_bytes: meter::space(&self.folder.join("db")),
            live_bytes: 0,
        }
    }
}

fn write_thread<E: Engine>(
    engine: &E,
    mut writes: Writes<'_>,
    plan: &Plan,
    operations: u64,
    sizes: Option<&Sizes<'_>>,
) -> Result<Done> {
    let mut done = Done { writes: 0, histogram: Histogram::new(), growth: Vec::new(), timeline: Vec::new() };
    if let Mode::Batches(size) = plan.mode {
        let mut batch = Batch::default();
        let mut limit = Limit::new(operations / size as u64, plan.seconds, 1);
        while limit.next() {
            batch.fill(&mut writes, size);
            engine.put_batch(&batch.entries)?;
            done.writes += size as u64;
        }
        return Ok(done);
    }
    // Twenty points of growth; a timeline has points of its own.
    let growth_every = if plan.timeline { u64::MAX } else { (operations / 20).max(1) };
    let mut next_growth = growth_every;
    let mask = plan.sample_every - 1;
    let check_every = if plan.mode == Mode::Durable { 1 } else { 64 };
    let mut limit = Limit::new(operations, plan.seconds, check_every);
    let mut second = Histogram::new();
    let mut second_end = Instant::now() + Duration::from_secs(1);
    while limit.next() {
        let (key, value) = writes.next();
        let sampled = (done.writes & mask == 0).then(Instant::now);
        match plan.mode {
            Mode::Durable => engine.put_durable(key, value)?,
            Mode::Indexed => engine.indexed()?.put(key, value)?,
            _ => engine.put(key, value)?,
        }
        done.writes += 1;
        if let Some(start) = sampled {
            let now = Instant::now();
            let nanos = u64::try_from((now - start).as_nanos()).unwrap_or(u64::MAX);
            done.histogram.record(nanos);
            if plan.timeline {
                // If a write takes longer than a second, the seconds without a completed write are
                // empty entries.
                while now >= second_end {
                    done.timeline.push(Second {
                        operations: second.count(),
                        latency: Latency::of(&second, plan.sample_every).unwrap_or_default(),
                    });
                    second.clear();
                    second_end += Duration::from_secs(1);
                }
                second.record(nanos);
            }
        }
        if done.writes == next_growth {
            next_growth += growth_every;
            done.growth.extend(sizes.map(|sizes| sizes.growth(done.writes)));
        }
    }
    Ok(done)
}
