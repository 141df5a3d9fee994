//! Reads of rows with a secondary index, and the check that the index is what its rows say.
//!
//! An index key follows from the write that made a row, so the history of the database tells which entries there must be.
use super::read::finish;
use super::{Context, Limit};
use crate::engine::{Engine, Indexed, Result};
use crate::measurement::{Figures, Latency};
use crate::meter::{self, Usage};
use crate::stream::{index_key_of_write, number_of};
use fastrand::Rng;
use sapwood_base::histogram::Histogram;
use std::hint::black_box;
use std::time::Instant;

/// One lookup of so many is timed.
const SAMPLE_EVERY: u64 = 16;
/// So many rows are looked up in turn; a power of two.
const TARGETS: usize = 1 << 20;

impl<E: Engine> Context<'_, E> {
    /// Reads the row of one index key after the other. Every key has exactly one.
    pub(super) fn index_lookup(&mut self, seed: u64) -> Result<Figures> {
        self.engine()?;
        let index = self.engine.as_ref().ok_or("the engine is not open")?.indexed()?;
        let rows = self.settings.rows;
        let mut random = Rng::with_seed(seed);
        // Drawn beforehand, so that the history's cache misses are not measured.
        let targets: Vec<(u32, u32)> = std::iter::repeat_with(|| random.u64(..rows))
            .filter_map(|number| Some((number as u32, self.history.last_write(number)? as u32)))
            .take(TARGETS)
            .collect();
        meter::reset_peak_memory();
        let before = Usage::now();
        let start = Instant::now();
        let mut histogram = Histogram::new();
        let mut limit = Limit::new(rows.max(1 << 22), self.settings.seconds, 64);
        let (mut found, mut right) = (0, 0);
        while limit.next() {
            let sampled = (limit.done.is_multiple_of(SAMPLE_EVERY)).then(Instant::now);
            let (number, sequence) = targets[limit.done as usize % TARGETS];
            let index_key = index_key_of_write(u64::from(sequence));
            found += index.lookup(index_key, &mut |key, value| {
                let names_it = value
                    .first_chunk::<8>()
                    .is_some_and(|head| u64::from_le_bytes(*head) == u64::from(number));
                right += u64::from(names_it && number_of(key) == u64::from(number));
            })?;
            if let Some(start) = sampled {
                histogram.record(start.elapsed().as_nanos() as u64);
            }
        }
        let mut figures = finish(before, start);
        figures.operations = limit.done;
        figures.latency = Latency::of(&histogram, SAMPLE_EVERY);
        if found != limit.done || right != limit.done {
            let wrong = format!("{} index keys gave {found} rows, {right} of them right", limit.done);
            return Err(wrong.into());
        }
        Ok(figures)
    }

    /// Reads all entries without their rows, as often as there is time for.
    pub(super) fn index_scan(&mut self) -> Result<Figures> {
        self.engine()?;
        let index = self.engine.as_ref().ok_or("the engine is not open")?.indexed()?;
        let rows = self.history.rows();
        let expected: u64 =
            (0..self.settings.rows).filter(|&number| self.history.contains(number)).sum::<u64>();
        meter::reset_peak_memory();
        let before = Usage::now();
        let start = Instant::now();
        let mut operations = 0;
        while operations == 0 || start.elapsed().as_secs_f64() < self.settings.seconds * 0.6 {
            let mut sum = 0u64;
            let visited = index.scan(&mut |index_key, key| {
                sum = sum.wrapping_add(number_of(key));
                black_box(index_key);
            })?;
            if visited != rows || sum != expected {
                return Err(format!("the index gave {visited} entries, not {rows}").into());
            }
            operations += visited;
        }
        let mut figures = finish(before, start);
        figures.operations = operations;
        Ok(figures)
    }

    /// Compares every entry with the row that it should be of. Gives the number of entries.
    pub(super) fn verify_index(&self) -> Result<u64> {
        let index = self.engine.as_ref().ok_or("the engine is not open")?.indexed()?;
        let mut last = Vec::new();
        let mut wrong = 0u64;
        let entries = index.scan(&mut |index_key, key| {
            let write = self.history.last_write(number_of(key));
            let is_right = write.is_some_and(|write| index_key_of_write(write) == index_key);
            let is_later = last.as_slice() < index_key;
            wrong += u64::from(!is_right || !is_later);
            last.clear();
            last.extend_from_slice(index_key);
        })?;
        if wrong > 0 || entries != self.history.rows() {
            let rows = self.history.rows();
            return Err(format!("the index has {entries} entries of {rows} rows, {wrong} are wrong").into());
        }
        Ok(entries)
    }
}
