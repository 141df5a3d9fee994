//! Flush: the first move down the tree, from a memtable generation into tables of level 0.
use crate::options::CompactionOptions;
use crate::output::{Output, OutputWriter};
use crate::version::TableContext;
use crate::visibility::{Fate, VersionFilter};
use sapwood_base::iterator::InternalIterator;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{KeyspaceId, Result, SequenceNumber};
use std::sync::Arc;

/// Writes the entries of one keyspace as one run of level 0. Empty if nothing is left to write.
///
/// REQUIRES: no more entries come. Versions that no snapshot can see are not written; tombstones are written unless
/// the keyspace `is_bottom`: has nothing older.
pub fn flush(
    context: &Arc<TableContext>,
    options: &CompactionOptions,
    mut entries: impl InternalIterator,
    keyspace: KeyspaceId,
    is_bottom: bool,
    mut snapshots: Vec<SequenceNumber>,
) -> Result<Vec<Output>> {
    snapshots.sort_unstable();
    // The number of a run only has to be larger than those of older runs.
    let run = context.allocate_file().0;
    let mut writer = OutputWriter::new(context, options, keyspace, 0, run, &snapshots);
    let mut filter = VersionFilter::new(snapshots.clone(), false);
    let bottom = is_bottom || planted::is(Bug::FlushLosesDeletes);
    entries.seek_to_first()?;
    let mut last_key: Vec<u8> = Vec::new();
    let mut first = true;
    while entries.valid() {
        let key = entries.key();
        let new_key = first || key != last_key.as_slice();
        if new_key {
            first = false;
            last_key.clear();
            last_key.extend_from_slice(key);
        }
        let (sequence, kind) = (entries.sequence(), entries.kind());
        if filter.decide(new_key, sequence, kind, || bottom) != Fate::Drop {
            writer.add(new_key, key, None, sequence, kind, entries.value())?;
        }
        entries.next()?;
    }
    writer.finish()
}
