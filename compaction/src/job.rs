//! One compaction: merges runs into one run, in slices.
//!
//! A job cuts its key range into slices of bounded size. Each [`Job::step`] merges one slice and
//! returns the edit that adds the new tables and removes the merged part. Input tables that extend
//! beyond the slice stay, with a raised lower bound. Each step can therefore be installed on its
//! own, extra space is bounded, and a pause or a shutdown waits for at most one slice. Input tables
//! that overlap nothing are moved without reading them, unless they are small.
use crate::options::CompactionOptions;
use crate::output::{Output, OutputWriter};
use crate::picker::Compaction;
use crate::planted;
use crate::survivors::{self, Older, Survivors};
use crate::version::iterator::{RunIterator, Uncached};
use crate::version::{Run, RunTable, TableHandle, Version};
use rayon::prelude::*;
use sapwood_base::format::manifest::{Edit, TableMeta};
use sapwood_base::iterator::{InternalIterator, merging::MergingIterator};
use sapwood_base::{FileNumber, KeyspaceId, Result, SequenceNumber};
use sapwood_storage::DatabaseFiles;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Bytes of input between two candidates for a slice boundary, approximately.
const BOUNDARY_BYTES: u64 = 16 << 20;

/// The result of one step.
#[derive(Default)]
pub struct Step {
    /// Edits to be installed as one.
    pub edits: Vec<Edit>,
    /// Handles of the new tables.
    pub handles: HashMap<FileNumber, Arc<TableHandle>>,
    /// Bytes of input tables that were read (estimated for partly read ones).
    pub read_bytes: u64,
    /// Bytes of tables written.
    pub written_bytes: u64,
    /// Bytes of tables moved without reading.
    pub moved_bytes: u64,
}

impl Step {
    /// Discards the new tables, which no version lists. Their files are removed.
    pub fn discard(&self) {
        self.handles.values().for_each(|handle| handle.mark_obsolete());
    }
}

/// A key range of a job: tables to merge, which overlap each other or are small, or a single table
/// to move.
enum Piece {
    Move(InputTable),
    Merge {
        tables: Vec<InputTable>,
        /// Slice boundaries inside the piece, ascending. Each starts a new slice.
        boundaries: Vec<Vec<u8>>,
        next: usize,
    },
}

#[derive(Clone)]
struct InputTable {
    /// Index into the inputs of the compaction; smaller is newer.
    input: usize,
    table: RunTable,
}

/// Keys that cut `parts` of tables, each its first key and its bytes, into slices of at least
/// `slice_bytes`.
///
/// A slice may be the only progress of a job, because the rest is planned again. If keys were
/// counted instead of bytes, the first slice could be a few small tables of the target run, which
/// would be planned and written for ever.
fn boundaries(mut parts: Vec<(Vec<u8>, u64)>, slice_bytes: u64) -> Vec<Vec<u8>> {
    parts.sort_unstable();
    let mut left: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    let (mut boundaries, mut slice) = (Vec::new(), 0u64);
    let mut parts = parts.into_iter().peekable();
    while let Some((key, bytes)) = parts.next() {
        slice += bytes;
        left -= bytes;
        let Some((next, _)) = parts.peek() else { break };
        // The last slice takes a rest that is too short for one of its own.
        let is_full = slice >= slice_bytes && left >= slice_bytes / 2;
        if is_full && *next != key {
            boundaries.push(next.clone());
            slice = 0;
        }
    }
    boundaries
}

/// A compaction in progress.
pub struct Job {
    context: Arc<DatabaseFiles>,
    options: CompactionOptions,
    compaction: Compaction,
    /// Runs that are older than all inputs and overlap the job.
    older: Vec<Arc<Run>>,
    /// In reverse key order, so the next piece is at the end.
    pieces: Vec<Piece>,
}

impl Job {
    /// Plans `compaction` on `version`, from which it was picked. `snapshots` are the live ones,
    /// ascending.
    pub fn new(
        context: &Arc<DatabaseFiles>,
        options: &CompactionOptions,
        version: &Version,
        compaction: Compaction,
        snapshots: &[SequenceNumber],
    ) -> Result<Job> {
        let mut tables: Vec<InputTable> = compaction
            .inputs
            .iter()
            .enumerate()
            .flat_map(|(input, run)| {
                run.tables.iter().map(move |table| InputTable { input, table: table.clone() })
            })
            .collect();
        tables.sort_by(|a, b| a.table.first().cmp(b.table.first()));
        let lower = tables.first().map(|first| first.table.first().to_vec());
        let upper = tables.iter().map(|table| table.table.last()).max().map(<[u8]>::to_vec);
        let older = version
            .runs
            .iter()
            .filter(|run| {
                let is_input = compaction.inputs.iter().any(|i| i.level == run.level && i.id == run.id);
                let below = run.level > compaction.target_level
                    || run.level == compaction.target_level && run.id < compaction.target_run;
                // Tables of an input run that were not chosen lie outside the job's key range.
                !is_input && below && !run.overlapping(lower.as_deref(), upper.as_deref()).is_empty()
            })
            .cloned()
            .collect();

        let mut job =
            Job { context: context.clone(), options: options.clone(), compaction, older, pieces: Vec::new() };
        let mut tables = tables.into_iter().peekable();
        let is_small = |table: &InputTable| options.is_small(table.table.handle.file_bytes());
        let target_of = |runs: &[Arc<Run>]| runs.iter().find(|run| job.compaction.is_target(run)).cloned();
        let (target, chosen) = (target_of(&version.runs), target_of(&job.compaction.inputs));
        // Whether a table of the target run that is not an input lies between two inputs. No output
        // may span it.
        let is_divided = |reach: &[u8], next: &InputTable| {
            let between = |run: &Option<Arc<Run>>| {
                run.as_ref().map_or(0, |run| run.overlapping(Some(reach), Some(next.table.first())).len())
            };
            between(&target) > between(&chosen)
        };
        while let Some(first) = tables.next() {
            let mut reach = first.table.last().to_vec();
            let mut are_small = is_small(&first);
            let mut cluster = vec![first];
            // Adjacent small tables become one.
            while let Some(next) = tables.next_if(|next| {
                next.table.first() <= reach.as_slice()
                    || are_small && is_small(next) && !is_divided(&reach, next)
            }) {
                are_small &= is_small(&next);
                if next.table.last() > reach.as_slice() {
                    reach = next.table.last().to_vec();
                }
                cluster.push(next);
            }
            job.add_piece(cluster, snapshots)?;
        }
        job.pieces.reverse();
        Ok(job)
    }

    /// The keyspace it works on.
    pub fn keyspace(&self) -> KeyspaceId {
        self.compaction.keyspace
    }

    /// The compaction that the job executes.
    pub fn compaction(&self) -> &Compaction {
        &self.compaction
    }

    /// Data older than all inputs.
    fn older_data(&self) -> Older<'_> {
        match self.options.has_base {
            _ if planted::forgets_older_data() => Older::Nothing,
            true => Older::Unknown,
            false => Older::Runs(&self.older),
        }
    }

    fn add_piece(&mut self, cluster: Vec<InputTable>, snapshots: &[SequenceNumber]) -> Result<()> {
        if let [single] = cluster.as_slice() {
            let run = &self.compaction.inputs[single.input];
            let in_place = self.compaction.is_target(run);
            let same_codec = self.options.table_options(run.level).compression
                == self.options.table_options(self.compaction.target_level).compression;
            // Only rewriting frees the bytes that no reader needs.
            let reclaims = survivors::any_goes(&single.table, run.level, self.older_data(), snapshots);
            if !self.compaction.rewrite && !reclaims && (in_place || same_codec) {
                if !in_place {
                    self.pieces.extend(cluster.into_iter().map(Piece::Move));
                }
                return Ok(());
            }
        }
        let boundaries = self.slice_boundaries(&cluster)?;
        self.pieces.push(Piece::Merge { tables: cluster, boundaries, next: 0 });
        Ok(())
    }

    /// Keys that cut the cluster into slices of about `slice_bytes` of input.
    fn slice_boundaries(&self, cluster: &[InputTable]) -> Result<Vec<Vec<u8>>> {
        let slice_bytes = self.options.slice_bytes;
        let total: u64 = cluster.iter().map(|input| input.table.handle.file_bytes()).sum();
        if total <= slice_bytes + slice_bytes / 2 {
            return Ok(Vec::new());
        }
        let mut parts: Vec<(Vec<u8>, u64)> = Vec::new();
        for input in cluster {
            let table = &input.table;
            let bytes = table.handle.file_bytes();
            let count = (bytes / BOUNDARY_BYTES.min(slice_bytes)).max(1);
            let later = table.handle.table()?.split_keys(count as usize);
            let share = bytes / (later.len() as u64 + 1);
            parts.push((table.first().to_vec(), share));
            // Keys below a raised lower bound belong to slices that were merged before.
            parts.extend(
                later.into_iter().filter(|key| key.as_slice() > table.first()).map(|key| (key, share)),
            );
        }
        Ok(boundaries(parts, slice_bytes))
    }

    /// Runs the next slice; `None` when the job is done.
    ///
    /// `snapshots` are the live ones, ascending. `pool` spreads a slice over its threads. `stop`
    /// ends the step early with [`ErrorKind::Closed`](sapwood_base::ErrorKind::Closed); its output
    /// is removed.
    pub fn step(
        &mut self,
        snapshots: &[SequenceNumber],
        pool: Option<&rayon::ThreadPool>,
        stop: &AtomicBool,
    ) -> Result<Option<Step>> {
        let Some(mut piece) = self.pieces.pop() else { return Ok(None) };
        let mut step = Step::default();
        match &mut piece {
            Piece::Move(input) => {
                self.move_table(input, &mut step);
                // Moves cost nothing, so all consecutive ones go into one edit.
                while let Some(Piece::Move(input)) = self.pieces.last() {
                    self.move_table(&input.clone(), &mut step);
                    self.pieces.pop();
                }
            }
            Piece::Merge { tables, boundaries, next } => {
                let parts = pool.map_or(1, |pool| pool.current_num_threads().max(1));
                let lower = next.checked_sub(1).map(|at| boundaries[at].clone());
                let to = (*next + parts).min(boundaries.len() + 1);
                let upper = boundaries.get(to - 1).cloned();
                let mut cuts: Vec<Option<&[u8]>> = vec![lower.as_deref()];
                cuts.extend((*next..to).map(|at| boundaries.get(at).map(Vec::as_slice)));
                let ranges: Vec<_> = cuts.windows(2).map(|pair| (pair[0], pair[1])).collect();
                let merge = |(lower, upper): (Option<&[u8]>, Option<&[u8]>)| {
                    self.merge(tables, lower, upper, snapshots, stop)
                };
                let slices: Vec<Result<Vec<Output>>> = match pool {
                    Some(pool) if ranges.len() > 1 => {
                        pool.install(|| ranges.par_iter().map(|range| merge(*range)).collect())
                    }
                    _ => ranges.iter().map(|range| merge(*range)).collect(),
                };
                let mut failed = None;
                for slice in slices {
                    let outputs = match slice {
                        Ok(outputs) => outputs,
                        Err(error) => {
                            failed.get_or_insert(error);
                            continue;
                        }
                    };
                    for output in outputs {
                        step.written_bytes += output.meta.file_bytes;
                        step.handles.insert(output.meta.file, output.handle);
                        step.edits.push(Edit::TableAdded(output.meta));
                    }
                }
                if let Some(error) = failed {
                    // The job will be planned again from its inputs and will write these slices
                    // again.
                    if planted::discards_failed_step() {
                        step.discard();
                    }
                    return Err(error);
                }
                self.take_inputs(tables, lower.as_deref(), upper.as_deref(), &mut step);
                *next = to;
                if *next <= boundaries.len() {
                    self.pieces.push(piece);
                }
            }
        }
        Ok(Some(step))
    }

    fn removed(&self, input: &InputTable) -> Edit {
        let run = &self.compaction.inputs[input.input];
        Edit::TableRemoved {
            keyspace: self.compaction.keyspace,
            level: run.level,
            run: run.id,
            file: input.table.handle.file(),
        }
    }

    fn move_table(&self, input: &InputTable, step: &mut Step) {
        step.edits.push(self.removed(input));
        step.edits.push(Edit::TableAdded(TableMeta {
            level: self.compaction.target_level,
            run: self.compaction.target_run,
            ..(*input.table.meta).clone()
        }));
        step.moved_bytes += input.table.handle.file_bytes();
    }

    /// Removes the part of the inputs below `upper` from their runs. Returns the inputs that hold
    /// keys in `[lower, upper)`.
    fn take_inputs<'a>(
        &self,
        tables: &'a [InputTable],
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
        step: &mut Step,
    ) -> Vec<&'a InputTable> {
        let mut taken = Vec::new();
        for input in tables {
            let table = &input.table;
            if lower.is_some_and(|lower| table.last() < lower)
                || upper.is_some_and(|upper| table.first() >= upper)
            {
                continue;
            }
            taken.push(input);
            step.edits.push(self.removed(input));
            let run = &self.compaction.inputs[input.input];
            let (from, whole) = (table.handle.opened(), table.handle.file_bytes());
            let offset = |key: Option<&[u8]>, or: u64| match (key, from) {
                (Some(key), Some(table)) => table.approximate_offset(key),
                _ => or,
            };
            step.read_bytes += offset(upper, whole).saturating_sub(offset(lower, 0));
            if let Some(upper) = upper.filter(|upper| table.last() >= *upper) {
                step.edits.push(Edit::TableAdded(TableMeta {
                    level: run.level,
                    run: run.id,
                    lower: Some(upper.to_vec()),
                    ..(*table.meta).clone()
                }));
            }
        }
        taken
    }

    /// Merges the entries of the inputs in `[lower, upper)`.
    fn merge(
        &self,
        tables: &[InputTable],
        lower: Option<&[u8]>,
        upper: Option<&[u8]>,
        snapshots: &[SequenceNumber],
        stop: &AtomicBool,
    ) -> Result<Vec<Output>> {
        let mut inputs = Vec::new();
        let uncached = Uncached::sharing(self.options.read_bytes, self.compaction.inputs.len());
        for (number, run) in self.compaction.inputs.iter().enumerate() {
            let members: Vec<RunTable> = tables
                .iter()
                .filter(|input| input.input == number)
                .filter(|input| lower.is_none_or(|lower| input.table.last() >= lower))
                .filter(|input| upper.is_none_or(|upper| input.table.first() < upper))
                .map(|input| input.table.clone())
                .collect();
            if !members.is_empty() {
                inputs.push(RunIterator::new(Arc::new(Run::new(run.level, run.id, members)), uncached));
            }
        }
        let mut writer = OutputWriter::new(
            &self.context,
            &self.options,
            self.compaction.keyspace,
            self.compaction.target_level,
            self.compaction.target_run,
            snapshots,
        );
        let mut merged = MergingIterator::new(inputs);
        match lower {
            Some(lower) => merged.seek(lower)?,
            None => merged.seek_to_first()?,
        }
        Survivors::new(merged, self.compaction.target_level, self.older_data(), snapshots)
            .below(upper)
            .until(stop)
            .try_for_each(|survivor| writer.write(survivor))?;
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Boundaries of parts written as "key bytes, key bytes".
    fn cut(parts: &str, slice_bytes: u64) -> String {
        let part = |part: &str| {
            let (key, bytes) = part.trim().split_once(' ').expect("a part is a key and bytes");
            (key.as_bytes().to_vec(), bytes.parse().expect("a number of bytes"))
        };
        let keys = boundaries(parts.split(',').map(part).collect(), slice_bytes);
        keys.iter().map(|key| String::from_utf8_lossy(key)).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn slices_are_cut_by_bytes() {
        assert_eq!(cut("a 100, b 100, c 100, d 100", 100), "b c d");
        assert_eq!(cut("a 100, c 100, b 100, d 100", 200), "c");
        // Small tables beside a large merge are no slices of their own.
        assert_eq!(cut("a 1, b 1, c 1, d 1, e 100, f 100", 100), "f");
        // The last slice takes what is left over.
        assert_eq!(cut("a 100, b 100, c 49", 100), "b");
        assert_eq!(cut("a 100, b 100, c 50", 100), "b c");
        // Tables of several runs begin at the same key.
        assert_eq!(cut("a 100, a 100, a 100, b 100, b 100", 100), "b");
        assert_eq!(cut("a 500", 100), "");
    }
}
