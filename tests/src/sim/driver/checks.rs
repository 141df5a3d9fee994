//! The promises that hold between any two operations.
use super::{Driver, Outcome, Stop, in_context, violation};
use crate::oracle::Map;
use crate::sim::operation::{space_name, space_number};
use crate::sim::verify;
use sapwood::BackgroundStep;

impl Driver {
    /// Compares everything with the oracle after an open.
    pub fn check_opened(&mut self) -> Outcome {
        let names = self.db().list_keyspaces()?;
        let numbers: Option<Vec<u8>> = names.iter().map(|name| space_number(name)).collect();
        let want: Vec<u8> = self.oracle.promise().spaces.keys().copied().collect();
        if numbers.as_ref() != Some(&want) {
            return violation(format!("O2: the keyspaces are {names:?}, not {want:?}"));
        }
        // An open that cannot flush takes the memtables that it needs.
        let (memtables, most) = (self.db().stats().memtables, self.tuning.max_memtables);
        if memtables > most && !self.is_scarce {
            return violation(format!("O12: there are {memtables} memtables, and {most} are allowed"));
        }
        self.attach_indexes()?;
        let Some(commits) = self.present() else { return Ok(()) };
        for (space, incarnation) in &self.oracle.promise().spaces {
            let keyspace = self.db().keyspace(&space_name(*space), self.tuning.keyspace.clone())?;
            let want: Map = self.oracle.map(*incarnation, commits);
            verify::compare(&keyspace, None, &want)
                .and_then(|()| self.compare_indexes(&keyspace, *incarnation, None, commits, &want))
                .map_err(|stop| in_context(stop, &format!("keyspace {space} after an open")))?;
        }
        verify::check_directory(self.db(), &self.fs)
    }

    /// The database's metadata of its tables must be true (O13). Reads every table.
    pub fn check_structure(&self) -> Outcome {
        if self.is_scarce {
            return Ok(());
        }
        self.db().check_structure().map_err(|error| match error.is_scarcity() {
            // The check itself met it.
            true => Stop::Error(error),
            false => Stop::Violation(format!("O13: {error}")),
        })
    }

    /// While no handle retains old files, the directory holds exactly the referenced files.
    pub(super) fn check_tidy(&self) -> Outcome {
        let is_held = self.cursors.iter().any(Option::is_some) || self.snapshots.iter().any(Option::is_some);
        if is_held || self.is_scarce {
            return Ok(());
        }
        verify::check_directory(self.db(), &self.fs)
    }

    /// Memtables and cache stay within 110 % of the budget. Not included are memtables that cursors
    /// retain, which have no bound, and one batch per memtable, which is never split.
    pub(super) fn check_memory(&self) -> Outcome {
        let Some(db) = &self.db else { return Ok(()) };
        if self.cursors.iter().any(Option::is_some) {
            return Ok(());
        }
        let used = || {
            let memory = db.memory();
            memory.memtables + memory.cache
        };
        let allowed = self.tuning.memory_budget() as u64 * 11 / 10 + self.largest_batches();
        // The collector frees replaced memory eventually; a sweep makes it run.
        if used() > allowed {
            db.background_step(BackgroundStep::Sweep)?;
        }
        match used() {
            used if used > allowed => {
                violation(format!("O12: memtables and cache take {used} bytes, and {allowed} are allowed"))
            }
            _ => Ok(()),
        }
    }

    /// The bytes that the largest batches can have added to full memtables.
    pub(super) fn largest_batches(&self) -> u64 {
        let is_large = self.largest_batch > self.tuning.memtable_bytes as u64 / 8;
        u64::from(is_large) * self.largest_batch * self.tuning.max_memtables as u64 + self.replayed
    }
}
