//! The write path of rows that have indexes: the operations on indexes that are added to a commit.
//!
//! 1. For each row, in the order of the batch: its own operation, then those of its indexes. So an
//!    entry has a higher sequence number than its row, and a lower one than the next version of the
//!    row.
//! 2. Most indexes read nothing here: queries find the entries that a put makes stale, and the
//!    flush cleans them.
//! 3. Strict and unique indexes do read. Then the keys concerned are locked from the first read
//!    until the commit is published. Such commits are always logged, because a later commit depends
//!    on what it reads of them and must not outlive them.
//!
//! All of it happens before the commit reserves its place in the log. If the set of indexes changes
//! until then, the commit is discarded and retried: see [`super::epoch::IndexEpoch`].
use super::cursor::{Bounds, IndexCursor};
use super::extractor::EmitBuffer;
use super::state::IndexState;
use crate::options::Durability;
use crate::planted;
use crate::read;
use crate::read::view::View;
use crate::runtime::Core;
use crate::write::locks::{Held, KeyLocks};
use crate::write::weight::{Weight, too_heavy};
use sapwood_base::format::index_definition::Maintenance;
use sapwood_base::format::log_record::HEADER_BYTES;
use sapwood_base::format::write_batch::{Operation, put_operation};
use sapwood_base::memory;
use sapwood_base::ordered::composite::Composite;
use sapwood_base::{Error, ErrorKind, KeyspaceId, Result, ValueKind};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Memory for entries that a thread keeps from one row to the next.
const BUFFER_KEPT_BYTES: usize = 1 << 20;

thread_local! {
    static BUFFER: RefCell<EmitBuffer> = RefCell::default();
}

/// Runs `body` with the thread's buffer for entries. An extractor that writes into a database gets
/// a fresh one.
fn with_buffer<R>(body: impl FnOnce(&mut EmitBuffer) -> R) -> R {
    // None is kept in a thread that is being torn down.
    let mut buffer = BUFFER.try_with(RefCell::take).unwrap_or_default();
    let result = body(&mut buffer);
    // A thread does not keep the memory of a row with very many entries.
    if buffer.memory_bytes() <= BUFFER_KEPT_BYTES {
        let _ = BUFFER.try_with(|cell| cell.replace(buffer));
    }
    result
}

/// A record that includes the operations of indexes.
pub(crate) struct Expanded<'a> {
    pub(crate) operations: usize,
    /// Their weight in a memtable.
    pub(crate) weight: Weight,
    /// Whether it concerns an index that reads before writes.
    reads: bool,
    /// To be kept until the commit is published.
    _held: Held<'a>,
}

impl Expanded<'_> {
    /// The durability of the commit; `asked` is the caller's choice, `None` takes the default of
    /// the database.
    pub(crate) fn durability(&self, core: &Core, asked: Option<Durability>) -> Option<Durability> {
        let asked = asked.unwrap_or(core.options.durability);
        let is_unlogged = asked == Durability::None && self.reads && planted::reads_are_logged();
        Some(if is_unlogged { Durability::Buffered } else { asked })
    }
}

/// Fills `record`, which has room for the header and nothing else, with `rows` and the operations
/// of their indexes.
///
/// Errors: `IndexUnavailable` if an index has no extractor, `InvalidArgument` if an index key is
/// too long or the commit as a whole, `UniqueViolation`.
pub(crate) fn expand<'a, 'r>(
    core: &'a Core,
    rows: impl Iterator<Item = Operation<'r>> + Clone,
    record: &mut Vec<u8>,
) -> Result<Expanded<'a>> {
    let blind = {
        let guard = crossbeam_epoch::pin();
        expand_blindly(core.view.load(&guard), rows.clone(), record)?
    };
    let expanded = match blind {
        Some(Added { operations, weight }) => {
            Expanded { operations, weight, reads: false, _held: Held::default() }
        }
        None => {
            record.truncate(HEADER_BYTES);
            let (Added { operations, weight }, held) = Reading::expand(core, rows, record)?;
            Expanded { operations, weight, reads: true, _held: held }
        }
    };
    Ok(expanded)
}

/// The additions to a record.
#[derive(Default)]
struct Added {
    operations: usize,
    weight: Weight,
}

impl Added {
    /// Adds an operation, unless the commit would not fit into a memtable with it. Checked for
    /// each, so that a batch is refused before it has become many times as long.
    #[inline]
    fn put(
        &mut self,
        record: &mut Vec<u8>,
        kind: ValueKind,
        keyspace: KeyspaceId,
        key: &[u8],
        value: &[u8],
    ) -> Result<()> {
        self.weight.add(key.len(), value.len());
        if !self.weight.is_allowed() && planted::index_entries_weigh() {
            return Err(too_heavy());
        }
        put_operation(record, kind, keyspace, key, value)?;
        self.operations += 1;
        Ok(())
    }
}

/// The case that reads nothing. `None` if an index needs to read.
fn expand_blindly<'r>(
    view: &View,
    rows: impl Iterator<Item = Operation<'r>>,
    record: &mut Vec<u8>,
) -> Result<Option<Added>> {
    let mut added = Added::default();
    with_buffer(|buffer| {
        for row in rows {
            added.put(record, row.kind, row.keyspace, row.key, row.value)?;
            for index in indexes_of(view, row.keyspace) {
                if index.reads_before_writes() {
                    return Ok(None);
                }
                put_entries(index, &row, buffer, record, &mut added)?;
            }
        }
        Ok(Some(added))
    })
}

fn indexes_of(view: &View, keyspace: KeyspaceId) -> &[Arc<IndexState>] {
    // A keyspace that was dropped meanwhile takes its indexes with it.
    view.keyspace(keyspace).map_or(&[], |space| &space.indexes)
}

/// Adds the entries that a row has from now on; `buffer` has them afterwards.
fn put_entries(
    index: &IndexState,
    row: &Operation<'_>,
    buffer: &mut EmitBuffer,
    record: &mut Vec<u8>,
    added: &mut Added,
) -> Result<()> {
    buffer.clear();
    let extractor = index.extractor()?;
    if row.kind == ValueKind::Delete {
        if index.definition.maintenance == Maintenance::InsertOnly {
            let name = &index.definition.name;
            let message = format!("index {name:?} is insert-only: its rows cannot be removed");
            return Err(Error::invalid_argument(message));
        }
        return Ok(());
    }
    buffer.fill(extractor, row.key, row.value)?;
    buffer.iter().try_for_each(|(key, covering)| added.put(record, ValueKind::Put, index.id, key, covering))
}

/// A commit that reads before it writes.
struct Reading<'a> {
    core: &'a Core,
    /// The rows of the batch so far; `None` for a row that it removes.
    rows: BTreeMap<(KeyspaceId, Vec<u8>), Option<Vec<u8>>>,
}

impl<'a> Reading<'a> {
    fn expand<'r>(
        core: &'a Core,
        rows: impl Iterator<Item = Operation<'r>> + Clone,
        record: &mut Vec<u8>,
    ) -> Result<(Added, Held<'a>)> {
        let held = core.key_locks.lock(Reading::stripes(&core.view.reference(), rows.clone())?);
        // Commits that held the locks before are published by now, and this view has them.
        let view = core.view.reference();
        let mut reading = Reading { core, rows: BTreeMap::new() };
        let mut added = Added::default();
        let (mut new, mut old) = (EmitBuffer::default(), EmitBuffer::default());
        for row in rows {
            added.put(record, row.kind, row.keyspace, row.key, row.value)?;
            let indexes = indexes_of(&view, row.keyspace);
            let before = match indexes.iter().any(|index| index.is_strict()) {
                true => reading.row(row.keyspace, row.key)?,
                false => None,
            };
            for index in indexes {
                let at = record.len();
                put_entries(index, &row, &mut new, record, &mut added)?;
                let is_cleaned = index.is_strict() && planted::deletes_entries(row.kind);
                let Some(before) = before.as_ref().filter(|_| is_cleaned) else { continue };
                old.fill(index.extractor()?, row.key, before)?;
                let puts = record.split_off(at);
                for (key, _) in old.iter().filter(|(key, _)| !new.contains(key)) {
                    added.put(record, ValueKind::Delete, index.id, key, &[])?;
                }
                record.extend_from_slice(&puts);
            }
            if indexes.iter().any(|index| index.reads_before_writes()) {
                let value = (row.kind == ValueKind::Put).then(|| memory::copy(row.value)).transpose()?;
                reading.rows.insert((row.keyspace, row.key.to_vec()), value);
            }
        }
        reading.check_unique(&view)?;
        Ok((added, held))
    }

    /// The locks: of the rows of strict indexes, and of the index keys of unique ones.
    fn stripes<'r>(view: &View, rows: impl Iterator<Item = Operation<'r>>) -> Result<Vec<usize>> {
        let mut stripes = Vec::new();
        let mut buffer = EmitBuffer::default();
        for row in rows {
            for index in indexes_of(view, row.keyspace) {
                if index.is_strict() {
                    stripes.push(KeyLocks::stripe(row.keyspace, row.key));
                }
                if index.definition.unique && row.kind == ValueKind::Put {
                    buffer.fill(index.extractor()?, row.key, row.value)?;
                    for (key, _) in buffer.iter() {
                        stripes.push(KeyLocks::stripe(index.id, Composite::split(key)?.escaped_index_key));
                    }
                }
            }
        }
        Ok(stripes)
    }

    /// The value of a row before the next operation of the batch.
    fn row(&self, keyspace: KeyspaceId, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if let Some(value) = self.rows.get(&(keyspace, key.to_vec())) {
            return Ok(value.clone());
        }
        let guard = crossbeam_epoch::pin();
        let view = self.core.view.load(&guard);
        let Some(space) = view.keyspace(keyspace) else { return Ok(None) };
        let found = read::get(self.core, &space.state, key, None, &guard)?;
        found.map(|found| memory::copy(found.bytes())).transpose()
    }

    /// Checks the rows that result from the batch against each other and against all others.
    fn check_unique(&self, view: &Arc<View>) -> Result<()> {
        let mut taken: BTreeMap<(KeyspaceId, Vec<u8>), &[u8]> = BTreeMap::new();
        let mut buffer = EmitBuffer::default();
        for ((keyspace, primary_key), value) in &self.rows {
            let Some(value) = value else { continue };
            for index in indexes_of(view, *keyspace).iter().filter(|index| index.definition.unique) {
                buffer.fill(index.extractor()?, primary_key, value)?;
                for (key, _) in buffer.iter() {
                    let escaped = Composite::split(key)?.escaped_index_key;
                    let other = taken.insert((index.id, escaped.to_vec()), primary_key);
                    if other.is_some_and(|other| other != primary_key.as_slice())
                        || self.is_taken(view, index, escaped, primary_key)?
                    {
                        return Err(violation(index));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a row that the batch leaves as it is has the index key.
    fn is_taken(
        &self,
        view: &Arc<View>,
        index: &IndexState,
        escaped: &[u8],
        primary_key: &[u8],
    ) -> Result<bool> {
        self.core.watch_in(view, index.id);
        let sequence = self.core.visible_sequence();
        let bounds = Bounds::of_escaped(escaped);
        let cursor = IndexCursor::open(self.core, view.clone(), index.id, sequence, bounds)?;
        let mut cursor = cursor.jumping(self.core.covered(view, sequence));
        cursor.seek_to_first()?;
        while cursor.valid() {
            let other = cursor.primary_key();
            if other != primary_key && !self.rows.contains_key(&(index.owner(), other.to_vec())) {
                return Ok(true);
            }
            cursor.next()?;
        }
        Ok(false)
    }
}

/// Another row has the index key.
#[cold]
pub(crate) fn violation(index: &IndexState) -> Error {
    let message = format!("another row has this key of index {:?}, which is unique", index.definition.name);
    Error::new(ErrorKind::UniqueViolation, message)
}
