//! The driver's operations while calls may fail for lack of a resource.
use super::{Driver, Outcome, violation};
use crate::sim::indexes::index_name;
use crate::sim::operation::{Operation, space_name};
use sapwood::{BackgroundStep, Health};
use std::time::Duration;

/// Longer than the delay after which a failed step is retried.
const RETRY: Duration = Duration::from_millis(60);

impl Driver {
    /// Sets whether a resource is scarce from now on.
    pub fn set_scarce(&mut self, is_scarce: bool) {
        self.is_scarce = is_scarce;
    }

    /// Updates the oracle after an operation failed for lack of a resource. A refused operation has
    /// had no effect.
    pub fn has_failed(&mut self, operation: &Operation) -> Outcome {
        let promise = self.oracle.promise();
        if promise.submitted > promise.acknowledged {
            self.oracle.withdraw();
        }
        match operation {
            Operation::CreateSpace(space) | Operation::DropSpace(space) => {
                let is_there = self.db().list_keyspaces()?.contains(&space_name(*space));
                // A keyspace in creation or removal either exists or does not.
                match self.oracle.promise().unsure {
                    Some(_) if is_there => self.oracle.created(),
                    Some(_) => self.oracle.not_created(),
                    None => {}
                }
            }
            Operation::CreateIndex { space, index } | Operation::RebuildIndex { space, index } => {
                let Some((_, incarnation)) = self.keyspace(*space)? else { return Ok(()) };
                let is_rebuilt = matches!(operation, Operation::RebuildIndex { .. });
                if is_rebuilt || !self.oracle.promise().indexes.contains(&(incarnation, *index)) {
                    self.oracle.dropping_index(incarnation, *index);
                    self.oracle.dropped_index();
                    self.unfinished.insert((incarnation, *index));
                }
            }
            Operation::DropIndex { space, index } => {
                let Some((keyspace, _)) = self.keyspace(*space)? else { return Ok(()) };
                match keyspace.list_indexes()?.contains(&index_name(*index)) {
                    true => self.oracle.created_index(),
                    false => self.oracle.dropped_index(),
                }
            }
            Operation::OpenCursor { slot, .. } | Operation::MoveCursor { slot, .. } => {
                self.cursors[usize::from(*slot)] = None;
            }
            _ => {}
        }
        Ok(())
    }

    /// Drops an open that failed in part.
    pub fn abandon_opening(&mut self) {
        self.db = None;
    }

    /// No resource is scarce any more: background work must recover by itself, soon.
    pub fn becomes_well(&mut self, rounds: u32) -> Outcome {
        self.resume();
        for _ in 0..rounds {
            let mut any = false;
            for kind in BackgroundStep::ALL {
                any |= self.db().background_step(kind)?;
            }
            if !any && matches!(self.db().health(), Health::Good) {
                return Ok(());
            }
            self.env.sleep(RETRY);
        }
        let health = self.db().health();
        violation(format!(
            "O11: no resource is scarce any more, and after {rounds} rounds of background work the health is {health:?}"
        ))
    }

    /// Creates the indexes whose creation had failed.
    pub fn finish_indexes(&mut self) -> Outcome {
        let spaces = self.oracle.promise().spaces.clone();
        for (incarnation, index) in std::mem::take(&mut self.unfinished) {
            let space = spaces.iter().find(|(_, other)| **other == incarnation);
            let Some((space, _)) = space else { continue };
            if !self.oracle.promise().indexes.contains(&(incarnation, index)) {
                self.create_index(*space, index, &mut ())?;
            }
        }
        Ok(())
    }
}
