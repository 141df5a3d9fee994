//! The write path of a commit.
//!
//! 0. Rows that have indexes get their entries: operations of the same record (`index/hooks.rs`).
//! 1. Check the handle: open, writable, not poisoned.
//! 2. Pay the debt: while compaction is behind, a delay proportional to it (`stall`). Rotate a full memtable.
//! 3. Reserve a stretch of log: one atomic operation gives position, commit order and sequence numbers.
//! 4. Seal the record for its position and store it in the log.
//! 5. Insert the operations into the memtable generation that the position belongs to, in parallel with others.
//! 6. Publish in order; wait until everything before is published as well (`commit_ring`).
//! 7. With [`Durability::Sync`], wait for a sync that covers the record; one sync serves all who wait.
//!
//! The log gets a record before the memtable does, and a reader sees it only after both.
pub mod batch;
pub(crate) mod commit_ring;
pub(crate) mod stall;

use crate::db::{Core, DbInner};
use crate::options::Durability;
use crate::read::super_version::SuperVersion;
use crate::wal::Reservation;
use sapwood_base::format::log_record::{self, HEADER_BYTES, MAX_PAYLOAD_BYTES, RecordKind};
use sapwood_base::format::write_batch::{Operations, pad_for_sequences};
use sapwood_base::key::key_hash;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Error, MAX_KEY_BYTES, MAX_VALUE_BYTES, Result, SequenceNumber, ValueKind};
use sapwood_memtable::Memtable;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Records up to this size keep their scratch buffer for the next commit of the thread, in bytes.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;
/// Batches above this size commit one at a time, so that a memtable's arena cannot be overrun, in bytes.
const LARGE_RECORD_BYTES: usize = 1 << 20;
/// What a batch may take of a memtable's arena, in bytes. Values above [`ARENA_VALUE_BYTES`] have memory of their own.
pub(crate) const BATCH_ARENA_BYTES: usize = 512 << 20;
/// Values of this size and more do not count against [`BATCH_ARENA_BYTES`].
pub(crate) const ARENA_VALUE_BYTES: usize = 256 << 10;

/// A commit that was acknowledged: it is visible to every read that starts now.
///
/// It can be dropped: the commit has the durability that it was made with. [`Commit::wait_durable`] asks for more.
pub struct Commit {
    db: Arc<DbInner>,
    sequence: SequenceNumber,
    end: u64,
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit").field("sequence", &self.sequence.0).finish_non_exhaustive()
    }
}

impl Commit {
    pub(crate) fn new(db: &Arc<DbInner>, committed: Committed) -> Commit {
        Commit { db: db.clone(), sequence: committed.sequence, end: committed.end }
    }

    /// The sequence number of the first operation. Numbers grow from commit to commit, with gaps.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann");
    /// let commit = batch.commit()?;
    /// assert!(commit.sequence() <= db.snapshot().sequence());
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    pub fn sequence(&self) -> SequenceNumber {
        self.sequence
    }

    /// Waits until the commit survives a power loss. (One made with [`Durability::None`] is not in the log; only a
    /// flush saves it.)
    ///
    /// Errors: [`ErrorKind::Poisoned`](crate::ErrorKind::Poisoned) if a sync failed.
    ///
    /// ```
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let db = sapwood::Db::open(folder.path().join("data"))?;
    /// # let users = db.default_keyspace();
    /// let mut batch = db.batch();
    /// batch.put(&users, "u1", "Ann");
    /// batch.commit()?.wait_durable()?;
    /// # Ok::<(), sapwood::Error>(())
    /// ```
    #[doc(alias = "sync")]
    pub fn wait_durable(self) -> Result<()> {
        let core = &self.db.core;
        // What is durable already needs nothing of a database that is being closed.
        if core.wal.durable() >= self.end {
            return Ok(());
        }
        let _call = core.enter(false)?;
        core.wait_durable(self.end)
    }
}

/// Where a commit went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) sequence: SequenceNumber,
    pub(crate) end: u64,
}

/// Checks the limits of a key.
#[inline]
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > MAX_KEY_BYTES {
        return Err(too_long("key", key.len(), MAX_KEY_BYTES));
    }
    Ok(())
}

/// Checks the limits of a value.
#[inline]
pub(crate) fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(too_long("value", value.len(), MAX_VALUE_BYTES));
    }
    Ok(())
}

#[cold]
fn too_long(what: &str, len: usize, max: usize) -> Error {
    Error::invalid_argument(format!("{what} has {len} bytes; the limit is {max}"))
}

thread_local! {
    static SCRATCH: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Runs `body` with the thread's record buffer: header room, and nothing behind it.
#[inline]
pub(crate) fn with_scratch<R>(body: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    SCRATCH.with(|scratch| {
        let mut record = scratch.take();
        record.clear();
        record.resize(HEADER_BYTES, 0);
        let result = body(&mut record);
        if record.capacity() <= SCRATCH_KEPT_BYTES {
            scratch.replace(record);
        }
        result
    })
}

/// Inserts the operations of a payload, which starts at `position`, into a memtable.
pub(crate) fn insert_all(memtable: &Memtable, position: u64, payload: &[u8]) -> Result<()> {
    for (i, operation) in Operations::new(payload).enumerate() {
        let operation = operation?;
        let sequence = SequenceNumber(position + i as u64);
        let hash = key_hash(operation.key);
        let (kind, value) = (operation.kind, operation.value);
        memtable.insert(operation.keyspace, operation.key, hash, sequence, kind, value)?;
    }
    Ok(())
}

/// Commits `record`: header room, then `operations` encoded operations. `apply` gets the memtable, the position (the
/// sequence number of the first operation), and the encoded operations, and inserts them.
///
/// `is_current` is asked once the record has its place in the log: whether the indexes that it was made for are those
/// that there are. If not, the place stays empty, and `None` says that the record is to be made anew.
pub(crate) fn commit(
    core: &Core,
    record: &mut Vec<u8>,
    operations: usize,
    durability: Option<Durability>,
    is_current: impl FnOnce() -> bool,
    apply: impl FnOnce(&Memtable, u64, &[u8]) -> Result<()>,
) -> Result<Option<Committed>> {
    core.check_writable()?;
    let durability = durability.unwrap_or(core.options.durability);
    pad_for_sequences(record, operations);
    let payload = record.len() - HEADER_BYTES;
    if payload > MAX_PAYLOAD_BYTES {
        return Err(too_long("batch", payload, MAX_PAYLOAD_BYTES));
    }
    let _large = (record.len() > LARGE_RECORD_BYTES).then(|| core.large_commit.lock());
    core.stall.pay(core, record.len())?;
    core.make_room(record.len())?;

    let logged = durability != Durability::None;
    let units = if logged { log_record::record_units(payload) } else { (operations as u64).max(2) };
    let at = core.wal.reserve(units).inspect_err(|error| core.poison_if_final(error))?;
    if !is_current() {
        leave_empty(core, &at)?;
        return Ok(None);
    }
    let written = if logged {
        core.wal.write(&at, record, RecordKind::Batch, operations)
    } else {
        core.wal.write(&at, &mut [0; HEADER_BYTES], RecordKind::Skip, operations)
    };
    crate::sync::step();
    let applied = written.and_then(|()| {
        let guard = crossbeam_epoch::pin();
        let view = core.view.load(&guard);
        let generation = view.generation_of(at.position);
        // Relaxed: who set it before it took the tail of the log, as this commit did afterwards, is seen.
        if core.watches_puts.load(Ordering::Relaxed) {
            cut_vacancies(view, &record[HEADER_BYTES..])?;
        }
        apply(&generation.memtable, at.position, &record[HEADER_BYTES..])
    });
    if let Err(error) = &applied {
        // The stretch is reserved: others must not wait for it, and nobody may write behind a gap.
        core.poison(error);
    }
    core.wal.complete(&at);
    core.wal.wait_published(at.end);
    if core.wal.crosses_segment(&at) {
        core.background.wake_log();
    }
    applied?;
    // A commit before this one may have left a gap in the log, at which recovery ends. Who leaves one poisons before it
    // completes, so whoever sees it published sees the poison.
    if !planted::is(Bug::GapAcknowledged) {
        core.check_not_gapped()?;
    }

    match durability {
        Durability::None | Durability::Buffered => {}
        Durability::Periodic(every) => core.background.sync_every(every),
        Durability::Sync if planted::is(Bug::AcknowledgeBeforeSync) => {}
        Durability::Sync => core.wait_durable(at.end)?,
    }
    Ok(Some(Committed { sequence: SequenceNumber(at.position), end: at.end }))
}

/// Tells the vacant ranges of keyspaces of what a commit puts there: see `read/vacancy.rs`.
#[cold]
fn cut_vacancies(view: &SuperVersion, payload: &[u8]) -> Result<()> {
    for operation in Operations::new(payload) {
        let operation = operation?;
        if operation.kind == ValueKind::Put
            && let Some(space) = view.keyspace(operation.keyspace)
        {
            space.state.vacancies.cut(operation.key);
        }
    }
    Ok(())
}

/// Completes a reservation without operations.
#[cold]
pub(crate) fn leave_empty(core: &Core, at: &Reservation) -> Result<()> {
    let written = core.wal.write(at, &mut [0; HEADER_BYTES], RecordKind::Skip, 0);
    if let Err(error) = &written {
        core.poison(error);
    }
    core.wal.complete(at);
    core.wal.wait_published(at.end);
    written
}
