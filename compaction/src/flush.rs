//! Flush: the first step down the tree, from a memtable generation into tables of level 0.
use crate::options::CompactionOptions;
use crate::output::{Output, OutputWriter};
use crate::planted;
use crate::survivors::{Older, Survivors};
use sapwood_base::iterator::InternalIterator;
use sapwood_base::{KeyspaceId, Result, SequenceNumber};
use sapwood_storage::DatabaseFiles;
use std::sync::Arc;

/// Writes the entries of one keyspace as one run of level 0. Returns no tables if no entry
/// survives.
///
/// REQUIRES: no more entries are added. Versions that no snapshot can see are not written.
/// Tombstones are written unless the keyspace `is_bottom`, that is, has no older data.
pub fn flush(
    context: &Arc<DatabaseFiles>,
    options: &CompactionOptions,
    mut entries: impl InternalIterator,
    keyspace: KeyspaceId,
    is_bottom: bool,
    mut snapshots: Vec<SequenceNumber>,
) -> Result<Vec<Output>> {
    snapshots.sort_unstable();
    // The number of a run only has to exceed those of older runs.
    let run = context.allocate_file().0;
    let mut writer = OutputWriter::new(context, options, keyspace, 0, run, &snapshots);
    let older = match planted::flushes_to_bottom(is_bottom) {
        true => Older::Nothing,
        false => Older::Unknown,
    };
    entries.seek_to_first()?;
    Survivors::new(entries, 0, older, &snapshots).try_for_each(|survivor| writer.write(survivor))?;
    writer.finish()
}
