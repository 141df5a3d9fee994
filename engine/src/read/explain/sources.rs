//! The sources of a read, and the blocks of tables that a scan between two keys reaches.
use super::report::{ExplainedSource, Outcome, Place};
use crate::read::keyspace_views::KeyspaceView;
use crate::read::view::View;
use sapwood_base::Result;
use sapwood_compaction::RunTable;
use sapwood_sstable::Table;
use std::sync::Arc;

/// All sources of a keyspace, not searched yet.
pub(crate) fn sources(view: &View, space: &KeyspaceView) -> Vec<ExplainedSource> {
    let memtables = view.generations.iter().enumerate().map(|(number, generation)| {
        let place = if number == 0 { Place::ActiveMemtable } else { Place::ImmutableMemtable { number } };
        let is_empty = generation.memtable.entries_of(space.state.id) == 0;
        ExplainedSource::new(place, if is_empty { Outcome::Empty } else { Outcome::NotReached })
    });
    let runs = space.version.runs.iter().map(|run| {
        let place = Place::Run { level: run.level, run: run.id, tables: run.tables.len(), file: None };
        ExplainedSource::new(place, Outcome::NotReached)
    });
    memtables.chain(runs).collect()
}

/// A table of a scan and its cached blocks before the scan.
pub(crate) struct Before {
    source: usize,
    /// Whether it is the one of its run that is positioned first, wherever its keys begin.
    is_entrance: bool,
    run_table: RunTable,
    table: Arc<Table>,
    /// The first block of the range.
    first: usize,
    /// For each block of the range, whether it is in the cache.
    is_cached: Vec<bool>,
}

/// All sources of a keyspace that is about to be scanned, and the tables of the range.
pub(crate) fn tables_before(
    view: &View,
    space: &KeyspaceView,
    lower: Option<&[u8]>,
    upper: Option<&[u8]>,
    reversed: bool,
) -> Result<(Vec<ExplainedSource>, Vec<Before>)> {
    let mut all = sources(view, space);
    let mut before = Vec::new();
    for source in &mut all[..view.generations.len()] {
        if source.outcome == Outcome::NotReached {
            source.outcome = Outcome::Merged { tables: 0 };
        }
    }
    for (number, run) in space.version.runs.iter().enumerate() {
        let source = view.generations.len() + number;
        let tables = run.overlapping(lower, upper);
        all[source].outcome = match tables.len() {
            0 => Outcome::OutOfRange,
            tables => Outcome::Merged { tables },
        };
        for (at, run_table) in tables.iter().enumerate() {
            let table = Arc::clone(run_table.handle.table()?);
            let is_entrance = at == if reversed { tables.len() - 1 } else { 0 };
            let blocks = table.blocks_between(lower, upper);
            let first = blocks.start;
            let is_cached = blocks.map(|block| table.block_state(block).0).collect();
            let run_table = run_table.clone();
            before.push(Before { source, is_entrance, run_table, table, first, is_cached });
        }
    }
    Ok((all, before))
}

/// Counts the blocks of these tables that a scan between `lower` and `upper` reached.
pub(crate) fn count_blocks(
    tables: Vec<Before>,
    lower: Option<&[u8]>,
    upper: Option<&[u8]>,
    sources: &mut [ExplainedSource],
) {
    for Before { source, is_entrance, run_table, table, first, is_cached } in tables {
        let is_inside = upper.is_none_or(|upper| run_table.first() <= upper)
            && lower.is_none_or(|lower| run_table.last() >= lower);
        if !is_inside && !is_entrance {
            continue;
        }
        let blocks = table.blocks_between(lower, upper);
        for (was_cached, block) in is_cached.into_iter().zip(first..) {
            if blocks.contains(&block) {
                sources[source].count((was_cached, table.block_state(block).1));
            }
        }
    }
}
