//! The rest of a merge that yielded between two of its slices.
//!
//! The merge continues with the tables that it began with. Runs that came meanwhile are newer, so
//! they can stay above; including them would write the first part of the target twice. Merges of
//! such newer runs may begin and end in between: the merges of a keyspace that have not reached
//! their end form a stack. A merge of any table of an earlier one replaces that one.
use super::Compaction;
use crate::planted;
use crate::version::{Run, RunTable, Version};
use sapwood_base::{FileNumber, KeyspaceId};
use std::collections::HashSet;
use std::sync::Arc;

/// A merge under way. Keeps no file alive.
#[derive(Debug)]
pub struct Interrupted {
    keyspace: KeyspaceId,
    target_level: u8,
    target_run: u64,
    reason: &'static str,
    rewrite: bool,
    /// Whether it only improves reads and space.
    pub(super) idle: bool,
    /// Level, number and tables of the runs, newest first.
    inputs: Vec<(u8, u64, HashSet<FileNumber>)>,
}

impl Interrupted {
    /// Remembers `compaction`, whose target run is numbered.
    pub fn new(compaction: &Compaction, idle: bool) -> Interrupted {
        let files = |run: &Arc<Run>| run.tables.iter().map(|table| table.handle.file()).collect();
        Interrupted {
            keyspace: compaction.keyspace,
            target_level: compaction.target_level,
            target_run: compaction.target_run,
            reason: compaction.reason,
            rewrite: compaction.rewrite,
            idle,
            inputs: compaction.inputs.iter().map(|run| (run.level, run.id, files(run))).collect(),
        }
    }

    /// Begins `merge` on `version`: the newest of `stack`, which keeps the merges that it leaves
    /// something of.
    pub fn begin(stack: &mut Vec<Arc<Interrupted>>, merge: Interrupted, version: &Version) {
        stack.retain(|earlier| {
            let is_left = earlier.rest(version).is_some();
            is_left && !earlier.shares_tables(&merge)
        });
        stack.push(Arc::new(merge));
    }

    fn shares_tables(&self, other: &Interrupted) -> bool {
        let mut own = self.inputs.iter().flat_map(|(_, _, files)| files);
        own.any(|file| other.inputs.iter().any(|(_, _, files)| files.contains(file)))
    }

    /// What is left to merge of `version`; `None` if the merge is done, or others have done it.
    pub(super) fn rest(&self, version: &Version) -> Option<Compaction> {
        let part = |(level, id, files): &(u8, u64, HashSet<FileNumber>)| {
            let run = version.runs.iter().find(|run| (run.level, run.id) == (*level, *id))?;
            let is_left = |table: &&RunTable| files.contains(&table.handle.file());
            let tables: Vec<RunTable> = run.tables.iter().filter(is_left).cloned().collect();
            match tables.len() {
                0 => None,
                len if len == run.tables.len() => Some(run.clone()),
                _ => Some(Arc::new(Run::new(*level, *id, tables))),
            }
        };
        let rest = Compaction {
            keyspace: self.keyspace,
            inputs: self.inputs.iter().filter_map(part).collect(),
            target_level: self.target_level,
            target_run: self.target_run,
            reason: self.reason,
            rewrite: self.rewrite,
        };
        let is_left = rest.inputs.iter().any(|run| self.rewrite || !rest.is_target(run));
        (is_left && planted::continues_merges()).then_some(rest)
    }
}
