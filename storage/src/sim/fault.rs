//! Calls that fail because a test says so.
use super::operation::Operation;
use sapwood_base::Error;
use std::path::Path;

/// How a call fails. A failed sync of a file or directory also loses what it should have made durable, while reads
/// still see it, as kernels do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The device reports an error.
    Io,
    /// There is no space.
    NoSpace,
}

impl Fault {
    /// The error of a call on `path` that meets it.
    pub(super) fn error(self, operation: Operation, path: &Path) -> Error {
        let cause = match self {
            Fault::Io => std::io::Error::other("simulated failure of the device"),
            Fault::NoSpace => std::io::ErrorKind::StorageFull.into(),
        };
        operation.failed(path, cause)
    }
}

/// Which calls fail, and how: by default the next one of its kind, once.
#[derive(Clone, Debug)]
pub struct FaultRule {
    operation: Operation,
    fault: Fault,
    path_contains: Option<String>,
    skip: u64,
    times: u64,
}

impl FaultRule {
    /// The next call of this kind fails.
    pub fn new(operation: Operation, fault: Fault) -> FaultRule {
        FaultRule { operation, fault, path_contains: None, skip: 0, times: 1 }
    }

    /// Lets `count` calls pass first.
    pub fn after(mut self, count: u64) -> FaultRule {
        self.skip = count;
        self
    }

    /// Fails `count` calls in a row instead of one.
    pub fn times(mut self, count: u64) -> FaultRule {
        self.times = count;
        self
    }

    /// Fails every call from then on.
    pub fn sticky(self) -> FaultRule {
        self.times(u64::MAX)
    }

    /// Concerns only calls whose path contains `text`.
    pub fn on(mut self, text: impl Into<String>) -> FaultRule {
        self.path_contains = Some(text.into());
        self
    }
}

/// The rules of a file system.
#[derive(Default)]
pub(super) struct Faults {
    rules: Vec<FaultRule>,
    met: u64,
}

impl Faults {
    pub(super) fn add(&mut self, rule: FaultRule) {
        self.rules.push(rule);
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(super) fn met(&self) -> u64 {
        self.met
    }

    /// The fault that befalls this call, if a rule says so.
    pub(super) fn meet(&mut self, operation: Operation, path: &Path) -> Option<Fault> {
        let mut fault = None;
        for rule in &mut self.rules {
            let concerns = rule.operation == operation
                && rule.path_contains.as_ref().is_none_or(|text| path.to_string_lossy().contains(text));
            if !concerns {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 && fault.is_none() {
                rule.times = if rule.times == u64::MAX { u64::MAX } else { rule.times - 1 };
                fault = Some(rule.fault);
            }
        }
        self.met += u64::from(fault.is_some());
        fault
    }
}
