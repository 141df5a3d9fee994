//! The part of a flush for deferred indexes: it finds the entries that the rows of a memtable have
//! made stale.
//!
//! 1. The rows of a keyspace with deferred indexes are walked in key order, the versions of a row
//!    from the newest to the oldest.
//! 2. Each version is compared with its predecessor, which is in the same memtable, or else the
//!    newest one in the tables below. Keys are looked up in order, filters first, so that a new row
//!    costs little. The lookups bypass the cache, where blocks of rows that are not read otherwise
//!    would displace others.
//! 3. An entry that the older version emits and the newer one does not becomes a deletion, with the
//!    sequence number of the newer version: above that of the entry, and below that of any later
//!    one.
//!
//! The deletions go into the delta run of the same flush. So delta runs and trees are exact, and a
//! query checks rows only while they are in memtables.
use super::extractor::EmitBuffer;
use super::state::IndexState;
use crate::planted;
use crate::read::resolve::resolve;
use crate::read::view::CoveringView;
use crossbeam_epoch::Guard;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::iterator::merging::MergingIterator;
use sapwood_base::key::key_prefix;
use sapwood_base::{KeyspaceId, Lookup, Result, SequenceNumber, ValueKind};
use sapwood_compaction::Version;
use sapwood_memtable::{Memtable, MemtableIterator, Scan, ScannedEntry};
use sapwood_sstable::{LastBlock, ValueRef};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rows that are looked up with one epoch guard, which delays reclamation of memory.
const ROWS_PER_GUARD: usize = 64;
/// Runs whose filters are prefetched together.
const PREFETCHED_RUNS: usize = 16;

/// The additions of a flush to indexes.
#[derive(Default)]
pub(crate) struct Cleaned {
    /// Deletions, by index.
    pub(crate) lists: BTreeMap<KeyspaceId, Deletions>,
    /// Indexes whose rows are flushed while they have no extractor.
    pub(crate) outdated: Vec<KeyspaceId>,
}

/// Finds the deletions that the indexes owe for the rows of `memtable`, the oldest one. REQUIRES:
/// `view` covers it.
pub(crate) fn deletions(view: &CoveringView, memtable: &Arc<Memtable>) -> Result<Cleaned> {
    let mut cleaned = Cleaned::default();
    for space in view.keyspaces_in(memtable).filter(|_| planted::flush_deletes_entries()) {
        let mut indexes = Vec::new();
        for index in space.indexes.iter().filter(|index| index.is_deferred()) {
            match index.attached() {
                Some(_) => indexes.push(Walked { index, deletions: Deletions::default() }),
                None => cleaned.outdated.push(index.id),
            }
        }
        if indexes.is_empty() {
            continue;
        }
        let mut walk = Walk {
            version: &space.version,
            last_blocks: space.version.runs.iter().map(|_| LastBlock::default()).collect(),
            indexes,
            new: EmitBuffer::default(),
            old: EmitBuffer::default(),
        };
        walk.run(memtable.scan(space.state.id)?)?;
        for Walked { index, mut deletions } in walk.indexes {
            if !deletions.entries.is_empty() {
                deletions.sort();
                cleaned.lists.insert(index.id, deletions);
            }
        }
    }
    Ok(cleaned)
}

struct Walked<'a> {
    index: &'a Arc<IndexState>,
    deletions: Deletions,
}

struct Walk<'a> {
    /// The tables below the memtable.
    version: &'a Version,
    /// Of each of its runs, the block that was read last.
    last_blocks: Vec<LastBlock>,
    indexes: Vec<Walked<'a>>,
    new: EmitBuffer,
    old: EmitBuffer,
}

/// A version of a row, lent by the memtable.
#[derive(Clone, Copy)]
struct RowVersion<'m> {
    sequence: SequenceNumber,
    /// None if it is a deletion.
    value: Option<&'m [u8]>,
}

/// The rows of one guard, and where the versions of each end.
#[derive(Default)]
struct Group<'m> {
    rows: Vec<GroupRow<'m>>,
    versions: Vec<RowVersion<'m>>,
}

struct GroupRow<'m> {
    lookup: Lookup<'m>,
    versions_end: usize,
}

impl Walk<'_> {
    fn run(&mut self, rows: Scan<'_>) -> Result<()> {
        let (mut rows, mut group) = (rows.peekable(), Group::default());
        while let Some(first) = rows.next() {
            let key = first.key;
            let mut next = Some(first);
            while let Some(ScannedEntry { sequence, kind, value, .. }) = next {
                let value = resolve(kind, value);
                group.versions.push(RowVersion { sequence, value });
                next = rows.next_if(|next| next.key == key);
            }
            let lookup = Lookup::new(key, SequenceNumber::MAX);
            group.rows.push(GroupRow { lookup, versions_end: group.versions.len() });
            if group.rows.len() == ROWS_PER_GUARD || rows.peek().is_none() {
                self.compare(&group)?;
                group.rows.clear();
                group.versions.clear();
            }
        }
        Ok(())
    }

    fn compare(&mut self, group: &Group<'_>) -> Result<()> {
        let guard = crossbeam_epoch::pin();
        for row in &group.rows {
            prefetch(self.version, row.lookup);
        }
        let mut versions_start = 0;
        for row in &group.rows {
            let versions = &group.versions[versions_start..row.versions_end];
            versions_start = row.versions_end;
            for pair in versions.windows(2) {
                if let Some(older) = pair[1].value {
                    self.compare_versions(row.lookup.key, &pair[0], older)?;
                }
            }
            if let Some(oldest) = versions.last()
                && let Some(below) = newest_below(self.version, row.lookup, &mut self.last_blocks, &guard)?
            {
                self.compare_versions(row.lookup.key, oldest, &below)?;
            }
        }
        Ok(())
    }

    /// Adds deletions of the entries that `newer` makes stale of the version before it.
    fn compare_versions(&mut self, key: &[u8], newer: &RowVersion<'_>, older: &[u8]) -> Result<()> {
        for Walked { index, deletions } in &mut self.indexes {
            if newer.sequence < index.start() || newer.value == Some(older) {
                continue;
            }
            let extractor = index.extractor()?;
            // A row whose entries are too long was refused, or prevented the build of the index.
            if self.old.fill(extractor, key, older).is_err() || self.old.is_empty() {
                continue;
            }
            match newer.value {
                Some(value) => self.new.fill(extractor, key, value)?,
                None => self.new.clear(),
            }
            for (composite, _) in self.old.iter() {
                if !self.new.contains(composite) {
                    deletions.push(composite, newer.sequence);
                }
            }
        }
        Ok(())
    }
}

fn prefetch(version: &Version, lookup: Lookup<'_>) {
    for run in version.runs.iter().take(PREFETCHED_RUNS) {
        if let Some(table) = run.find(lookup.key).and_then(|table| table.handle.opened()) {
            table.prefetch_filter(lookup.hash);
        }
    }
}

/// The value of the newest version of a row in tables; `None` if there is none, or a tombstone.
fn newest_below<'g>(
    version: &'g Version,
    lookup: Lookup<'_>,
    last_blocks: &mut [LastBlock],
    guard: &'g Guard,
) -> Result<Option<ValueRef<'g>>> {
    for (run, last) in version.runs.iter().zip(last_blocks) {
        let Some(candidate) = run.find(lookup.key) else { continue };
        let table = candidate.handle.table()?;
        if !table.may_contain(lookup.hash) {
            continue;
        }
        if let Some(found) = table.get_in_order(lookup, last, guard)? {
            return Ok(resolve(found.kind, found.value));
        }
    }
    Ok(None)
}

/// Deletions of one index, as a source of a merge.
#[derive(Default)]
pub(crate) struct Deletions {
    bytes: Vec<u8>,
    entries: Vec<Deletion>,
    at: usize,
}

#[derive(Clone, Copy)]
struct Deletion {
    prefix: u64,
    start: usize,
    end: usize,
    sequence: SequenceNumber,
}

impl Deletions {
    fn push(&mut self, composite: &[u8], sequence: SequenceNumber) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(composite);
        let (prefix, end) = (key_prefix(composite), self.bytes.len());
        self.entries.push(Deletion { prefix, start, end, sequence });
    }

    /// Into internal order.
    fn sort(&mut self) {
        let bytes = &self.bytes;
        self.entries.sort_unstable_by(|a, b| {
            let keys = || bytes[a.start..a.end].cmp(&bytes[b.start..b.end]);
            a.prefix.cmp(&b.prefix).then_with(keys).then(b.sequence.cmp(&a.sequence))
        });
    }

    fn key_at(&self, at: usize) -> &[u8] {
        let entry = &self.entries[at];
        &self.bytes[entry.start..entry.end]
    }
}

impl InternalIterator for Deletions {
    fn valid(&self) -> bool {
        self.at < self.entries.len()
    }
    fn seek_to_first(&mut self) -> Result<()> {
        self.at = 0;
        Ok(())
    }
    fn seek_to_last(&mut self) -> Result<()> {
        self.at = self.entries.len().wrapping_sub(1);
        Ok(())
    }
    fn seek(&mut self, target: &[u8]) -> Result<()> {
        self.at = self.entries.partition_point(|entry| &self.bytes[entry.start..entry.end] < target);
        Ok(())
    }
    fn seek_before(&mut self, target: &[u8]) -> Result<()> {
        self.seek(target)?;
        self.at = self.at.wrapping_sub(1);
        Ok(())
    }
    fn next(&mut self) -> Result<()> {
        self.at += 1;
        Ok(())
    }
    fn prev(&mut self) -> Result<()> {
        self.at = self.at.wrapping_sub(1);
        Ok(())
    }
    fn key(&self) -> &[u8] {
        self.key_at(self.at)
    }
    fn sequence(&self) -> SequenceNumber {
        self.entries[self.at].sequence
    }
    fn kind(&self) -> ValueKind {
        ValueKind::Delete
    }
    fn value(&self) -> &[u8] {
        &[]
    }
}

/// One of the two inputs of an index's delta run.
pub(crate) enum Input {
    Entries(MemtableIterator),
    Deletions(Deletions),
}

macro_rules! delegate {
    ($self:ident, $input:ident => $call:expr) => {
        match $self {
            Input::Entries($input) => $call,
            Input::Deletions($input) => $call,
        }
    };
}

impl InternalIterator for Input {
    fn valid(&self) -> bool {
        delegate!(self, input => input.valid())
    }
    fn seek_to_first(&mut self) -> Result<()> {
        delegate!(self, input => input.seek_to_first())
    }
    fn seek_to_last(&mut self) -> Result<()> {
        delegate!(self, input => input.seek_to_last())
    }
    fn seek(&mut self, target: &[u8]) -> Result<()> {
        delegate!(self, input => input.seek(target))
    }
    fn seek_before(&mut self, target: &[u8]) -> Result<()> {
        delegate!(self, input => input.seek_before(target))
    }
    fn next(&mut self) -> Result<()> {
        delegate!(self, input => input.next())
    }
    fn prev(&mut self) -> Result<()> {
        delegate!(self, input => input.prev())
    }
    fn key(&self) -> &[u8] {
        delegate!(self, input => input.key())
    }
    fn sequence(&self) -> SequenceNumber {
        delegate!(self, input => input.sequence())
    }
    fn kind(&self) -> ValueKind {
        delegate!(self, input => input.kind())
    }
    fn value(&self) -> &[u8] {
        delegate!(self, input => input.value())
    }
}

/// The entries of a memtable with the deletions among them.
pub(crate) fn with_deletions(entries: MemtableIterator, deletions: Deletions) -> MergingIterator<Input> {
    MergingIterator::new(vec![Input::Entries(entries), Input::Deletions(deletions)])
}
