//! The full check of the tables against the version of a database. Under the feature `sim`, for
//! tests: it reads every table.
//!
//! Reads and compactions trust the version: runs are in order of age, tables of a run are disjoint,
//! and bounds are true. The check detects latent damage at once; otherwise reads may stay right for
//! long, until a compaction or a key at a bound is affected.
use crate::manifest::KeyspaceEntry;
use crate::runtime::Core;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::{Error, ErrorKind, FileNumber, Result, SequenceNumber};
use sapwood_compaction::version::iterator::{RunIterator, Uncached};
use sapwood_compaction::{LAST_LEVEL, RunTable, Version};
use sapwood_storage::DatabaseFiles;
use std::collections::HashMap;
use std::sync::Arc;

/// Checks every keyspace, in its state at the beginning. Other work continues meanwhile.
///
/// Errors: `Corruption` with the file, if an invariant is violated, and errors of reading a table.
pub(crate) fn check(core: &Core) -> Result<()> {
    // The versions hold their tables, so that none is removed while it is read.
    let (next_file, keyspaces) = core.manifest_state(|state| {
        let parts = |entry: &KeyspaceEntry| {
            (entry.state.clone(), entry.version.clone(), entry.index.as_ref().and_then(|it| it.tree.clone()))
        };
        let keyspaces: Vec<_> = state.keyspaces.values().map(parts).collect();
        (state.next_file, keyspaces)
    });
    // A file belongs to one place: it may be trimmed there, but no other place may remove it.
    let mut owners: HashMap<FileNumber, String> = HashMap::new();
    for (state, version, tree) in keyspaces {
        let in_context = |error: Error| error.context(&format!("keyspace {:?}", state.name));
        for table in version.tables() {
            let place = format!("run {} of level {} of {}", table.meta.run, table.meta.level, state.id);
            if let Some(owner) = owners.insert(table.handle.file(), place) {
                return Err(broken(&core.files, table, &format!("stands in {owner}, too")));
            }
            if table.handle.file().0 >= next_file {
                let message = format!("has a number that is given out again: the next is {next_file}");
                return Err(broken(&core.files, table, &message));
            }
            if table.meta.keyspace != state.id {
                return Err(broken(&core.files, table, "is of another keyspace"));
            }
        }
        check_order(&core.files, &version).map_err(in_context)?;
        version.tables().try_for_each(|table| check_table(&core.files, table)).map_err(in_context)?;
        check_ages(&core.files, &version).map_err(in_context)?;
        if let Some(tree) = tree {
            tree.view(core)?.verify().map_err(in_context)?;
        }
    }
    Ok(())
}

fn broken(files: &DatabaseFiles, table: &RunTable, what: &str) -> Error {
    Error::new(ErrorKind::Corruption, format!("table {} {what}", table.handle.file()))
        .in_file(files.table_path(table.handle.file()))
}

/// Runs are newest first; their tables are in key order and disjoint, so that no key is in two of
/// them.
fn check_order(files: &DatabaseFiles, version: &Version) -> Result<()> {
    for pair in version.runs.windows(2) {
        let (upper, lower) = (&pair[0], &pair[1]);
        if (upper.level, std::cmp::Reverse(upper.id)) >= (lower.level, std::cmp::Reverse(lower.id)) {
            return Err(Error::new(ErrorKind::Corruption, "runs are not newest first"));
        }
    }
    for run in &version.runs {
        let Some(first) = run.tables.first() else {
            return Err(Error::new(ErrorKind::Corruption, "a run is empty"));
        };
        if run.level > LAST_LEVEL {
            return Err(broken(files, first, "is below the last level"));
        }
        for table in &run.tables {
            if (table.meta.level, table.meta.run) != (run.level, run.id) {
                return Err(broken(files, table, "is in another run than its metadata say"));
            }
        }
        if let Some(pair) = run.tables.windows(2).find(|pair| pair[0].last() >= pair[1].first()) {
            return Err(broken(files, &pair[1], "overlaps the table before it"));
        }
    }
    Ok(())
}

/// The file exists and is whole, and its metadata in the MANIFEST are true.
fn check_table(files: &DatabaseFiles, member: &RunTable) -> Result<()> {
    let (meta, table) = (&member.meta, member.handle.table()?);
    let len = files.fs.file_len(&files.table_path(member.handle.file()))?;
    if len != meta.file_bytes || len != member.handle.file_bytes() {
        return Err(broken(files, member, &format!("has {len} bytes, not {}", meta.file_bytes)));
    }
    table.verify()?;
    let properties = table.properties();
    let said = (meta.keyspace, meta.entries, meta.tombstones, &meta.smallest, &meta.largest);
    let found = (
        properties.keyspace,
        properties.entries,
        properties.tombstones,
        &properties.smallest_key,
        &properties.largest_key,
    );
    if said != found || table.number() != meta.file {
        return Err(broken(files, member, "is not what the MANIFEST says of it"));
    }
    if (meta.min_sequence, meta.max_sequence) != (properties.min_sequence, properties.max_sequence) {
        return Err(broken(files, member, "has other sequence numbers than the MANIFEST says"));
    }
    if meta.lower.as_ref().is_some_and(|lower| *lower > meta.largest || *lower <= meta.smallest) {
        return Err(broken(files, member, "is trimmed to a bound outside it"));
    }
    Ok(())
}

/// Of every key, all versions in a newer run are newer than all in an older one, and within a run
/// they descend.
fn check_ages(files: &DatabaseFiles, version: &Version) -> Result<()> {
    let mut runs: Vec<RunIterator<Uncached>> = Vec::with_capacity(version.runs.len());
    for run in &version.runs {
        let mut iterator = RunIterator::new(Arc::clone(run), Uncached::default());
        iterator.seek_to_first()?;
        runs.push(iterator);
    }
    while let Some(key) = runs.iter().filter(|run| run.valid()).map(|run| run.key().to_vec()).min() {
        let mut last: Option<SequenceNumber> = None;
        for (iterator, run) in runs.iter_mut().zip(&version.runs) {
            while iterator.valid() && iterator.key() == key {
                let sequence = iterator.sequence();
                if last.is_some_and(|last| last <= sequence) {
                    let message =
                        format!("has version {sequence} of a key of which {last:?} stands above it");
                    let table = run.find(&key).unwrap_or(&run.tables[0]);
                    return Err(broken(files, table, &message));
                }
                last = Some(sequence);
                iterator.next()?;
            }
            if iterator.valid() && iterator.key() < key.as_slice() {
                let table = run.find(&key).unwrap_or(&run.tables[0]);
                return Err(broken(files, table, "is not in key order"));
            }
        }
    }
    Ok(())
}
