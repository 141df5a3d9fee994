//! The end of the driver's database, and its next open.
use super::{CLOSE_ATTEMPTS, Driver, Observer, Outcome, replayed, violation};
use crate::sim::tuning::Tuning;
use std::sync::Arc;
use std::time::Duration;

impl Driver {
    /// Closes the database; it may leave nothing open.
    pub fn close(&mut self, observer: &mut dyn Observer) -> Outcome {
        self.let_go();
        self.paused = false;
        let left = self.db().stats().snapshots;
        if left > 0 {
            return violation(format!("O9: {left} snapshots remain when none is held"));
        }
        self.check_structure()?;
        let db = self.db.take().expect("open");
        let remains = db.remains();
        db.close()?;
        drop(db);
        self.oracle.flushed();
        self.moved(observer)?;
        // Files of old versions are closed when no thread can read them; other threads of this
        // process may delay that, as long as the machine does not schedule them.
        for attempt in 0..CLOSE_ATTEMPTS {
            if self.fs.open_handles() == 0 && remains.left().is_empty() {
                break;
            }
            crossbeam_epoch::pin().flush();
            match attempt {
                0..2000 => std::thread::yield_now(),
                _ => std::thread::park_timeout(Duration::from_millis(10)),
            }
        }
        let handles = self.fs.open_handles();
        if handles > 0 {
            return violation(format!("O9: {handles} files are open after the close"));
        }
        let left = remains.left();
        if !left.is_empty() {
            return violation(format!("O9: after the close there remain {}", left.join(", ")));
        }
        Ok(())
    }

    /// Drops the database like a process that ends: none of its remaining calls reaches the disk.
    pub fn abandon(mut self) {
        self.fs.crash_at(0);
        self.let_go();
        self.db = None;
    }

    /// Opens again after a close.
    pub fn reopen(&mut self) -> Outcome {
        self.paused = false;
        let db = self.tuning.builder(&self.path, &self.env).open()?;
        self.replayed = replayed(&db, &self.tuning);
        self.db = Some(db);
        self.check_opened()?;
        self.check_structure()
    }

    pub(super) fn close_and_reopen(&mut self, tuning: Option<u32>, observer: &mut dyn Observer) -> Outcome {
        if let Some(number) = tuning {
            self.tuning = Tuning::draw(&mut fastrand::Rng::with_seed(u64::from(number)));
        }
        self.close(observer)?;
        self.reopen()?;
        self.moved(observer)
    }

    /// A power loss. A crash may remove commits that no flush has saved, so they are flushed first:
    /// the results must be equal under all settings.
    pub(super) fn power_loss(&mut self, seed: u32, observer: &mut dyn Observer) -> Outcome {
        self.flush(observer)?;
        let fs = self.fs.crash(u64::from(seed));
        self.let_go();
        self.db = None;
        self.env = self.env.with_file_system(Arc::new(fs.clone()));
        self.fs = fs;
        self.reopen()?;
        self.moved(observer)
    }
}
