//! Opening, killing, and the comparison of a database with its history.
use super::read::finish;
use super::write::write_batches;
use super::{Context, history_path};
use crate::engine::{Acknowledged, Direction, Engine, Reader, Result};
use crate::measurement::Figures;
use crate::meter::{self, Usage};
use crate::stream::{Writes, number_of};
use sapwood_bench::keys::{KeyBuffer, Order};
use std::time::Instant;

/// Bytes of keys and values in the log, outside of tables, when the process is killed.
const LOG_BYTES: u64 = 64 << 20;

impl<E: Engine> Context<'_, E> {
    /// Opens the database and reads one key.
    pub(super) fn open(&mut self, killed: bool) -> Result<Figures> {
        if self.engine.is_some() {
            return Err("the database is open already".into());
        }
        let before = Usage::now();
        let start = Instant::now();
        let engine = E::open(&self.task.folder, self.settings)?;
        let mut keys = KeyBuffer::new(self.settings.key_bytes, 0, 0, self.settings.rows);
        let number = (0..self.settings.rows).find(|&number| self.history.contains(number)).unwrap_or(0);
        let found = engine.reader()?.get(keys.make(number), |value| value.len())?;
        let mut figures = finish(before, start);
        figures.operations = 1;
        figures.space_bytes = meter::space(&self.task.folder.join("db"));
        self.engine = Some(engine);
        if killed {
            self.compare(E::INFO.acknowledged != Acknowledged::ProcessCrash, &mut figures)?;
        } else if found.is_none() && self.history.contains(number) {
            return Err("the first key is missing".into());
        }
        Ok(figures)
    }

    /// Reads all entries and compares them.
    pub(super) fn verify(&mut self) -> Result<Figures> {
        self.engine()?;
        let before = Usage::now();
        let start = Instant::now();
        let mut figures = Figures::default();
        self.compare(false, &mut figures)?;
        if self.settings.indexed {
            figures.more.insert("entries compared".into(), self.verify_index()? as f64);
        }
        figures = Figures { operations: self.history.rows(), more: figures.more, ..finish(before, start) };
        Ok(figures)
    }

    /// Compares all entries with the history. With `loss_allowed`, missing and old values are
    /// counted, not errors.
    fn compare(&mut self, loss_allowed: bool, figures: &mut Figures) -> Result<()> {
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let (history, values, value_bytes) = (&self.history, &self.values, self.settings.value_bytes);
        let mut last: Option<u64> = None;
        let mut wrong: Option<String> = None;
        let mut stale = 0u64;
        let entries = engine.reader()?.scan(Direction::Forward, &mut |key, value| {
            if wrong.is_some() {
                return;
            }
            let number = number_of(key);
            let complain = |what: String| Some(format!("key {number}: {what}"));
            if last.is_some_and(|last| number <= last) {
                wrong = complain(format!("comes after {last:?}"));
            }
            last = Some(number);
            match values.check(value) {
                Some((of, write)) if of == number && value.len() == value_bytes => {
                    match history.last_write(number) {
                        None => wrong = complain("was never written".into()),
                        Some(newest) if history.exact && newest != write => {
                            stale += 1;
                            if !loss_allowed {
                                wrong = complain(format!("has the value of write {write}, not of {newest}"));
                            }
                        }
                        _ => {}
                    }
                }
                _ => wrong = complain("has a value that no write made".into()),
            }
        })?;
        if let Some(wrong) = wrong {
            return Err(format!("verification: {wrong}").into());
        }
        let rows = history.rows();
        let missing = rows.saturating_sub(entries);
        if (missing > 0 && !loss_allowed) || entries > rows {
            return Err(format!("verification: {entries} keys are there, not {rows}").into());
        }
        if loss_allowed {
            figures.more.insert("acknowledged rows lost".into(), (missing + stale) as f64);
        }
        figures.more.insert("rows compared".into(), entries as f64);
        Ok(())
    }

    /// Writes tables of all rows, then fills the log. The caller kills the process next.
    pub(super) fn kill(&mut self, seed: u64) -> Result<Figures> {
        self.engine()?;
        let engine = self.engine.as_ref().ok_or("the engine is not open")?;
        let settings = self.settings;
        // The tables are written first and settle; then come as many writes as a memtable holds.
        let load = || Writes::new(settings, &self.values, Order::UniqueRandom, seed, 0);
        write_batches(engine, &mut load(), settings.rows)?;
        engine.settle()?;
        // Small trials have a small log.
        let log_bytes =
            LOG_BYTES.min(settings.memtable_bytes as u64 / 2).min(settings.rows * settings.row_bytes() * 20);
        let count = log_bytes / settings.row_bytes();
        let log = || Writes::new(settings, &self.values, Order::Random, seed ^ 1, settings.rows);
        let mut writes = log();
        let start = Instant::now();
        for _ in 0..count {
            let (key, value) = writes.next();
            engine.put(key, value)?;
        }
        let figures =
            Figures { operations: count, seconds: start.elapsed().as_secs_f64(), ..Figures::default() };
        load().replay(settings.rows, &mut self.history);
        log().replay(count, &mut self.history);
        self.history.save(&history_path(&self.task.folder))?;
        Ok(figures)
    }
}

/// Kills this process with SIGKILL.
pub(super) fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // Not reached: SIGKILL cannot be caught.
    std::process::abort()
}
