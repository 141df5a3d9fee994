//! Workloads that read and write.
use super::read::{Choice, finish};
use super::{Context, Limit};
use crate::engine::{Engine, Reader, Result};
use crate::measurement::{Figures, Latency};
use crate::meter::{self, Usage};
use crate::stream::Writes;
use fastrand::Rng;
use sapwood_bench::histogram::Histogram;
use sapwood_bench::keys::{KeyBuffer, Order};
use sapwood_bench::ycsb::{Records, Request, Requests, Workload, record_key};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Beside writes, an engine that reads from transactions begins a new one after so many reads.
const REFRESH_EVERY: u64 = 64;

/// A writer with a limit reads the clock after so many writes.
const PACE_EVERY: u64 = 80;

/// The sampling interval of latencies.
const SAMPLE_EVERY: u64 = 8;

impl<E: Engine> Context<'_, E> {
    /// One thread reads and one overwrites. The writer runs at full speed or, so that all engines
    /// read beside the same load, at a given rate. Operations are the reads.
    pub(super) fn read_while_writing(
        &mut self,
        seed: u64,
        writes_per_second: Option<u32>,
    ) -> Result<Figures> {
        self.engine()?;
        let settings = self.settings;
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let first_sequence = self.history.next_sequence;
        let writes = || Writes::new(settings, &self.values, Order::Random, seed, first_sequence);
        let stop = AtomicBool::new(false);
        meter::reset_peak_memory();
        let before = Usage::now();
        let start = Instant::now();
        let read_seed = seed.wrapping_add(1);
        let (reads, found, histogram, written) =
            std::thread::scope(|scope| -> Result<(u64, u64, Histogram, u64)> {
                let writer = scope.spawn(|| -> Result<u64> {
                    let mut writes = writes();
                    let mut written = 0;
                    // Relaxed: no read depends on it.
                    while !stop.load(Ordering::Relaxed) {
                        let (key, value) = writes.next();
                        engine.put(key, value)?;
                        written += 1;
                        if let Some(rate) = writes_per_second
                            && written % PACE_EVERY == 0
                        {
                            let due = Duration::from_secs_f64(written as f64 / f64::from(rate));
                            std::thread::sleep(due.saturating_sub(start.elapsed()));
                        }
                    }
                    Ok(written)
                });
                let reading = (|| -> Result<(u64, u64, Histogram)> {
                    let mut reader = engine.reader()?;
                    let mut keys = Choice::Uniform.keys(settings);
                    let mut random = Rng::with_seed(read_seed);
                    let mut limit = Limit::new(u64::MAX, 2.0 * settings.seconds, 64);
                    let mut found = 0;
                    let mut histogram = Histogram::new();
                    while limit.next() {
                        if limit.done.is_multiple_of(REFRESH_EVERY) {
                            reader.refresh()?;
                        }
                        let sampled = (limit.done.is_multiple_of(SAMPLE_EVERY)).then(Instant::now);
                        let number = Choice::Uniform.next(settings.rows, &mut random);
                        let right = reader.get(keys.make(number), |value| {
                            value.first_chunk::<8>().is_some_and(|head| u64::from_le_bytes(*head) == number)
                        })?;
                        found += u64::from(right == Some(true));
                        if let Some(start) = sampled {
                            histogram.record(start.elapsed().as_nanos() as u64);
                        }
                    }
                    Ok((limit.done, found, histogram))
                })();
                stop.store(true, Ordering::Relaxed);
                let written = writer.join().map_err(|_| "the writing thread panicked")??;
                let (reads, found, histogram) = reading?;
                Ok((reads, found, histogram, written))
            })?;
        let mut figures = finish(before, start);
        figures.operations = reads;
        figures.latency = Latency::of(&histogram, SAMPLE_EVERY);
        figures.user_bytes = written * settings.row_bytes();
        figures.more.insert(super::WRITES_BESIDE.into(), written as f64 / figures.seconds);
        engine.settle()?;

        let mut random = Rng::with_seed(read_seed);
        let at_least = Choice::Uniform.expected(settings.rows, &mut random, reads, &self.history);
        writes().replay(written, &mut self.history);
        let mut random = Rng::with_seed(read_seed);
        let at_most = Choice::Uniform.expected(settings.rows, &mut random, reads, &self.history);
        if !(at_least..=at_most).contains(&found) {
            let wrong = format!("{found} of {reads} keys were found, not {at_least} to {at_most}");
            return Err(wrong.into());
        }
        Ok(figures)
    }

    /// Loads the records of YCSB, in batches.
    pub(super) fn ycsb_load(&mut self, _seed: u64) -> Result<Figures> {
        self.engine()?;
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let settings = self.settings;
        let mut keys = KeyBuffer::new(settings.key_bytes, 0, 0, settings.rows);
        let start = Instant::now();
        let mut batch: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for record in 0..settings.rows {
            let mut value = Vec::new();
            self.values.make(record, record, &mut value);
            batch.push((keys.make(record_key(record)).to_vec(), value));
            if batch.len() == 1000 || record + 1 == settings.rows {
                engine.put_batch(&batch)?;
                batch.clear();
            }
        }
        engine.settle()?;
        self.ycsb_records = settings.rows;
        Ok(Figures {
            operations: settings.rows,
            seconds: start.elapsed().as_secs_f64(),
            ..Figures::default()
        })
    }

    /// One of YCSB's workloads with one thread.
    pub(super) fn ycsb(&mut self, workload: Workload, seed: u64) -> Result<Figures> {
        self.engine()?;
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let settings = self.settings;
        let values = &self.values;
        let records = Records::new(self.ycsb_records);
        let mut requests = Requests::new(workload, &records, settings.rows);
        let mut random = Rng::with_seed(seed);
        let mut keys = KeyBuffer::new(settings.key_bytes, 0, 0, settings.rows);
        let mut value = Vec::new();
        let mut sequence = self.ycsb_records;
        let mut reader = engine.reader()?;
        let mut histogram = Histogram::new();
        let mut limit = Limit::new(settings.rows, 2.0 * settings.seconds, 16);
        let (mut wrong, mut written) = (0u64, 0u64);
        // A read transaction sees nothing newer. Workload D reads the latest inserts, so a new
        // transaction begins after each; elsewhere one begins after some writes.
        let refresh_every = if workload == Workload::D { 1 } else { REFRESH_EVERY };
        let mut written_since_refresh = 0;
        meter::reset_peak_memory();
        let before = Usage::now();
        let start = Instant::now();
        while limit.next() {
            let sampled = (limit.done.is_multiple_of(SAMPLE_EVERY)).then(Instant::now);
            let request = requests.next(&mut random);
            let of_record = |value: &[u8], record: u64| {
                value.first_chunk::<8>().is_some_and(|head| u64::from_le_bytes(*head) == record)
            };
            if let Request::Read(record) | Request::ReadModifyWrite(record) = request {
                let right = reader.get(keys.make(record_key(record)), |value| of_record(value, record))?;
                wrong += u64::from(right != Some(true));
            }
            if let Request::Scan { record, length } = request {
                let mut first_right = false;
                let mut entries = 0;
                reader.seek(keys.make(record_key(record)), length as usize, &mut |_, value| {
                    first_right |= entries == 0 && of_record(value, record);
                    entries += 1;
                })?;
                wrong += u64::from(!first_right);
            }
            if let Request::Update(record) | Request::Insert(record) | Request::ReadModifyWrite(record) =
                request
            {
                values.make(record, sequence, &mut value);
                sequence += 1;
                engine.put(keys.make(record_key(record)), &value)?;
                written += 1;
                written_since_refresh += 1;
                if let Request::Insert(record) = request {
                    records.acknowledge(record);
                }
                // An acknowledged insert may be read next, so the reader must see it.
                if written_since_refresh == refresh_every || matches!(request, Request::Insert(_)) {
                    reader.refresh()?;
                    written_since_refresh = 0;
                }
            }
            if let Some(start) = sampled {
                histogram.record(start.elapsed().as_nanos() as u64);
            }
        }
        let mut figures = finish(before, start);
        figures.operations = limit.done;
        figures.latency = Latency::of(&histogram, SAMPLE_EVERY);
        figures.user_bytes = written * settings.row_bytes();
        drop(reader);
        engine.settle()?;
        self.ycsb_records = records.count();
        if wrong > 0 {
            return Err(
                format!("{wrong} of {} requests did not find their record", figures.operations).into()
            );
        }
        Ok(figures)
    }
}
