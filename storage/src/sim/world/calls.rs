//! The frame of every call: faults, crash points, the watcher.
use super::{Call, World};
use crate::sim::atom::InodeNumber;
use crate::sim::fault::Fault;
use crate::sim::operation::Operation;
use sapwood_base::Result;
use std::io;
use std::path::Path;

impl World {
    /// Begins a call that changes nothing: it fails if the world has stopped, or if a rule says so.
    /// Otherwise returns a fault to apply that is no error.
    pub(in crate::sim) fn begin(&mut self, operation: Operation, path: &Path) -> Result<Option<Fault>> {
        self.check_alive(operation, path)?;
        match self.meet(operation, path, self.operations) {
            Some(fault) if fault.is_error() => Err(fault.error(operation, path)),
            fault => Ok(fault),
        }
    }

    /// Counts the call and returns its fault.
    fn meet(&mut self, operation: Operation, path: &Path, number: u64) -> Option<Fault> {
        *self.calls.entry(operation).or_default() += 1;
        let needs_handle = Fault::TooManyOpen.applies_to(operation);
        if needs_handle
            && self.handle_limit.is_some_and(|limit| self.open_handles() + self.held_locks() >= limit)
        {
            return Some(Fault::TooManyOpen);
        }
        let fault = self.faults.meet(operation, path, number)?;
        match fault {
            Fault::Latency(milliseconds) => {
                self.clock.advance(u64::from(milliseconds) * 1_000_000);
                None
            }
            Fault::ClockJump(seconds) => {
                self.clock.jump(i64::from(seconds) * 1_000_000_000);
                None
            }
            fault => Some(fault),
        }
    }

    pub(in crate::sim) fn calls(&self, operation: Operation) -> u64 {
        self.calls.get(&operation).copied().unwrap_or(0)
    }

    /// Executes a call that changes something, unless the world has stopped or stops here; notifies
    /// the watcher. `apply` receives the fault of the call, if there is one. `other` is the second
    /// name of a call with two.
    pub(in crate::sim) fn change<T>(
        &mut self,
        operation: Operation,
        path: &Path,
        other: Option<&Path>,
        apply: impl FnOnce(&mut World, Option<Fault>) -> Result<T>,
    ) -> Result<T> {
        self.has_crashed |= self.crash_at == Some(self.operations);
        self.check_alive(operation, path)?;
        let number = self.operations;
        self.operations += 1;
        self.age += 1;
        self.tell(number, operation, path, other, None);
        let fault = self.meet(operation, path, number);
        let result = apply(self, fault);
        self.tell(number, operation, path, other, Some(result.is_err()));
        result
    }

    /// A store into a mapping: a crash point like a write, but no call, so that no fault applies.
    pub(in crate::sim) fn store(&mut self, number: InodeNumber, path: &Path, offset: u64, bytes: &[u8]) {
        self.has_crashed |= self.crash_at == Some(self.operations);
        if self.has_crashed {
            return;
        }
        let operation = self.operations;
        self.operations += 1;
        self.age += 1;
        self.tell(operation, Operation::Write, path, None, None);
        let age = self.age;
        self.file_mut(number).expect("a mapped file stays").write(offset, bytes, age);
        self.tell(operation, Operation::Write, path, None, Some(false));
    }

    /// [`World::change`] for calls that an error simply prevents.
    pub(in crate::sim) fn change_names<T>(
        &mut self,
        operation: Operation,
        path: &Path,
        other: Option<&Path>,
        apply: impl FnOnce(&mut World) -> Result<T>,
    ) -> Result<T> {
        self.change(operation, path, other, |world, fault| match fault {
            None => apply(world),
            Some(fault) => {
                if fault == Fault::ErrorButApplied {
                    apply(world)?;
                }
                Err(fault.error(operation, path))
            }
        })
    }

    fn check_alive(&self, operation: Operation, path: &Path) -> Result<()> {
        match self.has_crashed {
            true => Err(operation.failed(path, io::Error::other("the simulated machine has crashed"))),
            false => Ok(()),
        }
    }

    fn tell(
        &mut self,
        number: u64,
        operation: Operation,
        path: &Path,
        other: Option<&Path>,
        failed: Option<bool>,
    ) {
        // Taken out of the world while it inspects the world.
        let Some(mut watcher) = self.watcher.take() else { return };
        let (after, failed) = (failed.is_some(), failed == Some(true));
        watcher(&Call { number, operation, path, other, after, failed }, self);
        self.watcher = Some(watcher);
    }

    pub(in crate::sim) fn operations(&self) -> u64 {
        self.operations
    }

    pub(in crate::sim) fn crash_at(&mut self, operation: u64) {
        // A number that has already passed would never match.
        self.has_crashed = operation < self.operations;
        self.crash_at = Some(operation);
    }

    pub(in crate::sim) fn has_crashed(&self) -> bool {
        self.has_crashed
    }
}
