//! What a driver does where calls may fail because something is scarce.
use super::{Driver, Outcome, violation};
use crate::sim::indexes::index_name;
use crate::sim::operation::{Operation, space_name};
use sapwood::{BackgroundStep, Health};
use std::time::Duration;

/// As long as a failed step waits before it is tried again, and longer.
const RETRY: Duration = Duration::from_millis(60);

impl Driver {
    /// Says whether something is scarce from now on.
    pub fn set_scarce(&mut self, is_scarce: bool) {
        self.is_scarce = is_scarce;
    }

    /// The operation has failed because something is scarce: what that means for the model. What was refused has not
    /// happened.
    pub fn has_failed(&mut self, operation: &Operation) -> Outcome {
        let promise = self.model.promise();
        if promise.submitted > promise.acknowledged {
            self.model.withdraw();
        }
        match operation {
            Operation::CreateSpace(space) | Operation::DropSpace(space) => {
                let is_there = self.db().list_keyspaces()?.contains(&space_name(*space));
                // Whether it was being made or dropped: it is there, or it is not.
                match self.model.promise().unsure {
                    Some(_) if is_there => self.model.created(),
                    Some(_) => self.model.not_created(),
                    None => {}
                }
            }
            Operation::CreateIndex { space, index } | Operation::RebuildIndex { space, index } => {
                let Some((_, incarnation)) = self.keyspace(*space)? else { return Ok(()) };
                let is_rebuilt = matches!(operation, Operation::RebuildIndex { .. });
                if is_rebuilt || !self.model.promise().indexes.contains(&(incarnation, *index)) {
                    self.model.dropping_index(incarnation, *index);
                    self.model.dropped_index();
                    self.unfinished.insert((incarnation, *index));
                }
            }
            Operation::DropIndex { space, index } => {
                let Some((keyspace, _)) = self.keyspace(*space)? else { return Ok(()) };
                match keyspace.list_indexes()?.contains(&index_name(*index)) {
                    true => self.model.created_index(),
                    false => self.model.dropped_index(),
                }
            }
            Operation::OpenCursor { slot, .. } | Operation::MoveCursor { slot, .. } => {
                self.cursors[usize::from(*slot)] = None;
            }
            _ => {}
        }
        Ok(())
    }

    /// Drops an opening that was not all right.
    pub fn abandon_opening(&mut self) {
        self.db = None;
    }

    /// Nothing is scarce any more: background work finds that out by itself, soon.
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
            "O11: nothing is scarce any more, and after {rounds} rounds of background work the health is {health:?}"
        ))
    }

    /// Makes the indexes whose making had failed.
    pub fn finish_indexes(&mut self) -> Outcome {
        let spaces = self.model.promise().spaces.clone();
        for (incarnation, index) in std::mem::take(&mut self.unfinished) {
            let space = spaces.iter().find(|(_, other)| **other == incarnation);
            let Some((space, _)) = space else { continue };
            if !self.model.promise().indexes.contains(&(incarnation, index)) {
                self.create_index(*space, index, &mut ())?;
            }
        }
        Ok(())
    }
}
