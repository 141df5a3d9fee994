//! Small tables next to a merge.
//!
//! Keys that only grow overlap nothing, so their tables would move down the tree unchanged: a
//! program that repeatedly opens the database, writes some rows and closes it would create one file
//! per session. A merge therefore also takes the tables of its target run adjacent to its small
//! inputs, if they are small too and no larger than the bytes to be merged with them. Their sizes
//! then form a binary counter: a byte is rewritten only when its table doubles, and the number of
//! adjacent small files is logarithmic.
use super::Compaction;
use crate::options::CompactionOptions;
use crate::version::{Run, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Returns `merge` with the small neighbours of its small inputs.
pub(super) fn with_small_ones(
    mut merge: Compaction,
    version: &Version,
    options: &CompactionOptions,
) -> Compaction {
    let Some(target) = version.runs.iter().find(|run| merge.is_target(run)) else { return merge };
    // The bytes of small inputs, by the tables of the target that they overlap or lie between.
    let mut incoming: BTreeMap<(usize, usize), u64> = BTreeMap::new();
    for table in merge.inputs.iter().filter(|run| !merge.is_target(run)).flat_map(|run| &run.tables) {
        if options.is_small(table.handle.file_bytes()) {
            let from = target.lower_bound(table.first());
            let to = from + target.overlapping(Some(table.first()), Some(table.last())).len();
            *incoming.entry((from, to)).or_default() += table.handle.file_bytes();
        }
    }
    let mut beside = BTreeSet::new();
    for ((from, to), mut bytes) in incoming {
        let (mut from, mut to) = (from, to);
        bytes += target.tables[from..to].iter().map(|table| table.handle.file_bytes()).sum::<u64>();
        let fits = |place: usize, bytes: u64| {
            let size = target.tables[place].handle.file_bytes();
            (options.is_small(size) && size <= bytes).then_some(size)
        };
        loop {
            if let Some(size) = from.checked_sub(1).and_then(|place| fits(place, bytes)) {
                from -= 1;
                beside.insert(from);
                bytes += size;
            } else if let Some(size) = (to < target.tables.len()).then(|| fits(to, bytes)).flatten() {
                beside.insert(to);
                to += 1;
                bytes += size;
            } else {
                break;
            }
        }
    }
    let chosen = merge.inputs.iter().position(|run| merge.is_target(run));
    let is_chosen = |place: usize| {
        let table = &target.tables[place];
        let part = chosen.map(|input| &merge.inputs[input]);
        part.is_some_and(|part| !part.overlapping(Some(table.first()), Some(table.last())).is_empty())
    };
    if beside.iter().all(|place| is_chosen(*place)) {
        return merge;
    }
    let tables = (0..target.tables.len()).filter(|place| beside.contains(place) || is_chosen(*place));
    let tables = tables.map(|place| target.tables[place].clone()).collect();
    let part = Arc::new(Run::new(target.level, target.id, tables));
    match chosen {
        Some(input) => merge.inputs[input] = part,
        // The target is older than every input.
        None => merge.inputs.push(part),
    }
    merge
}
