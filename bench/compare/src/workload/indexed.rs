//! Reads of rows with a secondary index, and the check of the index against its rows.
//!
//! The index key of a row follows from the write that made it, so the history of the database
//! determines all entries.
use super::Context;
use super::read::{Choice, sampled};
use crate::engine::{Engine, Indexed, Reader, Result};
use crate::measurement::Figures;
use crate::stream::{index_key_of_write, number_of};
use fastrand::Rng;
use std::hint::black_box;

/// Number of rows that are looked up in turn; a power of two.
const TARGETS: usize = 1 << 20;

impl<E: Engine> Context<'_, E> {
    /// Reads the row of one index key after the other. Every index key has exactly one row.
    pub(super) fn index_lookup(&mut self, seed: u64) -> Result<Figures> {
        self.engine()?;
        let index = self.engine.as_ref().ok_or("the engine is not open")?.indexed()?;
        let targets = self.targets(seed);
        let (mut found, mut right) = (0, 0);
        let figures = sampled(self.settings.rows.max(1 << 22), self.settings, |done| {
            let (number, sequence) = targets[done as usize % TARGETS];
            let index_key = index_key_of_write(u64::from(sequence));
            found += index.lookup(index_key, &mut |key, value| {
                let names_it = value
                    .first_chunk::<8>()
                    .is_some_and(|head| u64::from_le_bytes(*head) == u64::from(number));
                right += u64::from(names_it && number_of(key) == u64::from(number));
            })?;
            Ok(())
        })?;
        let lookups = figures.operations;
        if found != lookups || right != lookups {
            let wrong = format!("{lookups} index keys returned {found} rows, {right} of them right");
            return Err(wrong.into());
        }
        Ok(figures)
    }

    /// Reads existing rows by their own keys. Comparable with lookups by an index, which always
    /// find a row.
    pub(super) fn read_present(&mut self, seed: u64) -> Result<Figures> {
        self.engine()?;
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let targets = self.targets(seed);
        let (mut reader, mut keys) = (engine.reader()?, Choice::Uniform.keys(self.settings));
        let mut right = 0;
        let figures = sampled(self.settings.rows.max(1 << 22), self.settings, |done| {
            let number = u64::from(targets[done as usize % TARGETS].0);
            let is_right = reader.get(keys.make(number), |value| {
                value.first_chunk::<8>().is_some_and(|head| u64::from_le_bytes(*head) == number)
            })?;
            right += u64::from(is_right == Some(true));
            Ok(())
        })?;
        if right != figures.operations {
            return Err(format!("of {} keys that exist {right} were found", figures.operations).into());
        }
        Ok(figures)
    }

    /// Existing rows, and the write that made each. They are drawn beforehand, so that cache misses
    /// in the history are not measured.
    fn targets(&self, seed: u64) -> Vec<(u32, u32)> {
        let mut random = Rng::with_seed(seed);
        std::iter::repeat_with(|| random.u64(..self.settings.rows))
            .filter_map(|number| Some((number as u32, self.history.last_write(number)? as u32)))
            .take(TARGETS)
            .collect()
    }

    /// Scans all entries without their rows, until the time is over.
    pub(super) fn index_scan(&mut self) -> Result<Figures> {
        self.engine()?;
        let index = self.engine.as_ref().ok_or("the engine is not open")?.indexed()?;
        self.whole_scans(|sum| {
            index.scan(&mut |index_key, key| {
                *sum = sum.wrapping_add(number_of(key));
                black_box(index_key);
            })
        })
    }

    /// Compares every entry with its row. Returns the number of entries.
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
