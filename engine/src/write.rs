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
use crate::wal::body::Body;
use sapwood_base::format::log_record::{self, HEADER_BYTES, MAX_PAYLOAD_BYTES, RecordKind};
use sapwood_base::format::write_batch::{Operation, Operations, pad_for_sequences};
use sapwood_base::key::key_hash;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Error, MAX_KEY_BYTES, MAX_VALUE_BYTES, Result, SequenceNumber, ValueKind};
use sapwood_memtable::{ENTRY_BYTES, LargeValue, Memtable};
use sapwood_storage::sync::MutexGuard;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Commits that take at most this much of an arena are not counted while they are under way, in bytes: so many of them
/// fit into [`ARENA_MARGIN_BYTES`] as there may be threads.
const CLAIM_BYTES: usize = 64 << 10;
/// What commits that are not counted may take of an arena at the same time, in bytes.
const ARENA_MARGIN_BYTES: usize = 128 << 20;
/// Records up to this size keep their scratch buffer for the next commit of the thread, in bytes.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;
/// Batches above this size commit one at a time, in bytes.
const LARGE_RECORD_BYTES: usize = 1 << 20;
/// A payload that is written apart has at most this many operations.
const APART_OPERATIONS_MAX: usize = 4096;
/// How often one is tried.
const APART_ATTEMPTS: usize = 2;
/// What a batch may weigh with the entries of its indexes: see [`Weight`].
const BATCH_WEIGHT_MAX: usize = 512 << 20;
/// What an operation weighs besides key and value.
const OPERATION_WEIGHT: usize = 64;
/// Larger values have memory of their own, and do not count.
const ARENA_VALUE_BYTES: usize = 256 << 10;

/// What operations take of a memtable's arena, by one rule for batches, the entries of indexes, and the log that is
/// replayed. It is checked before a commit has its place in the log: what is there, a memtable must be able to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weight(usize);

impl Weight {
    /// The weight of one operation.
    #[inline]
    pub(crate) fn of(key_len: usize, value_len: usize) -> Weight {
        let stored = if value_len > ARENA_VALUE_BYTES { 0 } else { value_len };
        Weight(key_len + stored + OPERATION_WEIGHT)
    }

    /// The weight of the operations of a payload.
    pub(crate) fn of_payload(payload: &[u8]) -> Result<Weight> {
        let mut weight = Weight::default();
        for operation in Operations::new(payload) {
            let operation = operation?;
            weight.add(operation.key.len(), operation.value.len());
        }
        Ok(weight)
    }

    /// Adds that of one operation.
    #[inline]
    pub(crate) fn add(&mut self, key_len: usize, value_len: usize) {
        self.0 += Weight::of(key_len, value_len).0;
    }

    /// Whether a batch may weigh so much.
    #[inline]
    pub(crate) fn is_allowed(self) -> bool {
        self.0 <= BATCH_WEIGHT_MAX
    }

    /// The bytes of an arena that operations of this weight take at most.
    pub(crate) fn arena_bytes(self) -> usize {
        self.0.saturating_add(self.0 / 4)
    }
}

const _: () = assert!(OPERATION_WEIGHT + OPERATION_WEIGHT / 4 >= ENTRY_BYTES);

/// Room in an arena that a commit under way will take. Given back when dropped: then it was taken, or was not needed.
struct Claim<'a> {
    core: &'a Core,
    bytes: usize,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.core.claimed_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

impl<'a> Claim<'a> {
    /// Waits until the active memtable has room for a commit of this weight beside all others that are under way.
    ///
    /// Errors: those of a commit that waits for a flush; `InvalidArgument` if no memtable can hold it.
    #[cold]
    fn take(core: &'a Core, weight: Weight) -> Result<Claim<'a>> {
        let bytes = weight.arena_bytes();
        core.make_arena_room(|room| {
            let free = room.saturating_sub(ARENA_MARGIN_BYTES.min(room / 8));
            // Of two that do this at once, one sees the other. Who waits claims nothing meanwhile: otherwise those who wait
            // could wait for each other.
            let claimed = core.claimed_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
            if claimed <= free {
                return ArenaRoom::Enough;
            }
            core.claimed_bytes.fetch_sub(bytes, Ordering::SeqCst);
            if bytes > free { ArenaRoom::TooLittle } else { ArenaRoom::TakenByOthers }
        })?;
        Ok(Claim { core, bytes })
    }
}

/// What a memtable has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArenaRoom {
    /// All that is under way.
    Enough,
    /// Not this commit.
    TooLittle,
    /// This commit, once others are done.
    TakenByOthers,
}

#[cold]
pub(crate) fn too_heavy() -> Error {
    let message = "a batch holds at most 512 MiB of keys and values up to 256 KiB, with 64 bytes for each operation and \
                   with the entries of its indexes; split it";
    Error::invalid_argument(message)
}

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
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Runs `body` with the thread's record buffer: header room, and nothing behind it.
#[inline]
pub(crate) fn with_scratch<R>(body: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // A thread that is being torn down has none, and may still write: in a destructor of another thread-local value.
    let mut record = SCRATCH.try_with(RefCell::take).unwrap_or_default();
    record.clear();
    record.resize(HEADER_BYTES, 0);
    let result = body(&mut record);
    if record.capacity() <= SCRATCH_KEPT_BYTES {
        let _ = SCRATCH.try_with(|scratch| scratch.replace(record));
    }
    result
}

/// What a large commit needs beside what all need. Empty for others, whose way it must not lengthen.
#[derive(Default)]
pub(crate) struct Large<'c>(Option<Box<LargeCommit<'c>>>);

struct LargeCommit<'c> {
    /// Copies of the values that are too large for arenas, in order. They are made before the commit has its place in the
    /// log: others wait for whoever has one, and there may be no memory for them.
    values: std::vec::IntoIter<LargeValue>,
    /// See [`Large::goes_apart`].
    goes_apart: bool,
    body: Option<Body<'c>>,
    /// Held while it is this commit's turn. Below the body, which is one at a time.
    _turn: Option<MutexGuard<'c, ()>>,
}

impl<'c> Large<'c> {
    /// Copies values, and waits for the turn of the commit.
    #[cold]
    fn begin(
        core: &'c Core,
        record: &[u8],
        operations: usize,
        weight: Weight,
        durability: Durability,
    ) -> Result<Large<'c>> {
        let payload = &record[HEADER_BYTES..];
        let mut values = Vec::new();
        for operation in Operations::new(payload) {
            let value = operation?.value;
            if LargeValue::is_one(value.len()) {
                values.push(LargeValue::copy(value)?);
            }
        }
        let goes_apart = durability != Durability::None
            && core.wal.is_worth_a_body(payload.len())
            && weight.0 <= CLAIM_BYTES
            && operations <= APART_OPERATIONS_MAX;
        let mut turn = None;
        if record.len() > LARGE_RECORD_BYTES || goes_apart {
            turn = Some(core.large_commit.lock());
            core.admit_large(record.len())?;
        }
        let values = values.into_iter();
        Ok(Large(Some(Box::new(LargeCommit { values, goes_apart, body: None, _turn: turn }))))
    }

    /// Whether the payload goes apart from its record (`wal/body.rs`): one of few large values. Anything else takes most of
    /// its time in the memtable, behind its place in the log, and a replay has to find room for it there.
    #[inline]
    fn goes_apart(&self) -> bool {
        self.0.as_ref().is_some_and(|large| large.goes_apart)
    }

    /// Writes the payload as a body, and reserves the place of its record. If the memtable has changed meanwhile each
    /// time, others write so fast that they wait for an ordinary record, which has so many `units`.
    #[cold]
    fn write_apart(
        &mut self,
        core: &'c Core,
        payload: &[u8],
        operations: usize,
        units: u64,
    ) -> Result<Reservation> {
        let large = self.0.as_mut().expect("only then it goes apart");
        for _ in 0..APART_ATTEMPTS {
            large.body = None;
            let at = reserve(core, log_record::record_units(payload.len()))?;
            let body = core.wal.begin_body(&at, operations);
            if let Err(error) = &body {
                // The stretch is reserved, and nobody may write behind a gap.
                core.poison(error);
            }
            core.wal.complete(&at);
            let mut body = body?;
            body.fill(payload)?;
            if core.wal.wants_segments(&at) {
                core.background.wake_log();
            }
            let at = reserve(core, Body::record_units(operations))?;
            let view = core.view.reference();
            if view.generation_of(at.position).start() <= body.start() || planted::is(Bug::BodyAcrossRotation)
            {
                large.body = Some(body);
                return Ok(at);
            }
            leave_empty(core, &at)?;
        }
        reserve(core, units)
    }

    /// Writes the record at `at`.
    #[cold]
    fn write_record(
        &self,
        core: &Core,
        at: &Reservation,
        record: &mut [u8],
        operations: usize,
    ) -> Result<()> {
        match self.0.as_ref().and_then(|large| large.body.as_ref()) {
            Some(body) => body.commit(at, operations),
            None => core.wal.write(at, record, RecordKind::Batch, operations),
        }
    }

    fn next_value(&mut self) -> Option<LargeValue> {
        self.0.as_mut()?.values.next()
    }
}

/// Inserts one operation into a memtable.
#[inline]
pub(crate) fn insert(
    memtable: &Memtable,
    operation: &Operation<'_>,
    sequence: SequenceNumber,
    large: &mut Large<'_>,
) -> Result<()> {
    let Operation { kind, keyspace, key, value } = *operation;
    let hash = key_hash(key);
    if LargeValue::is_one(value.len())
        && let Some(value) = large.next_value()
    {
        return memtable.insert_large(keyspace, key, hash, sequence, kind, value);
    }
    memtable.insert(keyspace, key, hash, sequence, kind, value)
}

/// Where the operations of a commit go.
pub(crate) struct Place<'a> {
    pub(crate) memtable: &'a Memtable,
    /// The sequence number of the first operation.
    pub(crate) position: u64,
    /// Whether some keyspace has vacant ranges, which puts end: see `read/vacancy.rs`.
    pub(crate) watches_puts: bool,
    view: &'a SuperVersion,
}

/// Inserts the operations of a payload into a memtable, and tells the vacant ranges of keyspaces of what is put there.
pub(crate) fn insert_all(place: &Place<'_>, payload: &[u8], large: &mut Large<'_>) -> Result<()> {
    for (i, operation) in Operations::new(payload).enumerate() {
        let operation = operation?;
        if place.watches_puts
            && operation.kind == ValueKind::Put
            && let Some(space) = place.view.keyspace(operation.keyspace)
        {
            space.state.vacancies.cut(operation.key);
        }
        insert(place.memtable, &operation, SequenceNumber(place.position + i as u64), large)?;
    }
    Ok(())
}

/// Commits `record`: header room, then `operations` encoded operations, which have this `weight`. `apply` gets the place
/// that they go to and the encoded operations. It tells vacant ranges of them, and inserts them.
///
/// `is_current` is asked once the record has its place in the log: whether the indexes that it was made for are those
/// that there are. If not, the place stays empty, and `None` says that the record is to be made anew.
pub(crate) fn commit(
    core: &Core,
    record: &mut Vec<u8>,
    operations: usize,
    weight: Weight,
    durability: Option<Durability>,
    is_current: impl FnOnce() -> bool,
    apply: impl FnOnce(&Place<'_>, &[u8], &mut Large<'_>) -> Result<()>,
) -> Result<Option<Committed>> {
    core.check_writable()?;
    let durability = durability.unwrap_or(core.options.durability);
    pad_for_sequences(record, operations);
    let payload = record.len() - HEADER_BYTES;
    if payload > MAX_PAYLOAD_BYTES {
        return Err(too_long("batch", payload, MAX_PAYLOAD_BYTES));
    }
    let mut large = Large::default();
    if record.len() > ARENA_VALUE_BYTES {
        large = Large::begin(core, record, operations, weight, durability)?;
    }
    core.stall.pay(core, record.len())?;
    core.make_room(record.len())?;
    let _claim = match weight.0 > CLAIM_BYTES {
        true => Some(Claim::take(core, weight)?),
        false => None,
    };

    let logged = durability != Durability::None;
    let units = if logged { log_record::record_units(payload) } else { (operations as u64).max(2) };
    let at = match large.goes_apart() {
        false => reserve(core, units)?,
        true => large.write_apart(core, &record[HEADER_BYTES..], operations, units)?,
    };
    if !is_current() {
        leave_empty(core, &at)?;
        return Ok(None);
    }
    let written = if large.goes_apart() {
        large.write_record(core, &at, record, operations)
    } else if logged {
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
        let watches_puts = core.watches_puts.load(Ordering::Relaxed);
        let place = Place { memtable: &generation.memtable, position: at.position, watches_puts, view };
        apply(&place, &record[HEADER_BYTES..], &mut large)
    });
    if let Err(error) = &applied {
        // The stretch is reserved: others must not wait for it, and nobody may write behind a gap.
        core.poison(error);
    }
    core.wal.complete(&at);
    core.wal.wait_published(at.end);
    if core.wal.wants_segments(&at) {
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
        Durability::Periodic(every) => core.background.sync_within(core, every, at.end),
        Durability::Sync if planted::is(Bug::AcknowledgeBeforeSync) => {}
        Durability::Sync => core.wait_durable(at.end)?,
    }
    Ok(Some(Committed { sequence: SequenceNumber(at.position), end: at.end }))
}

/// Reserves units for an ordinary record.
#[inline]
fn reserve(core: &Core, units: u64) -> Result<Reservation> {
    match core.wal.reserve(units) {
        Ok(at) => Ok(at),
        Err(error) => reserve_in_full_log(core, units, error),
    }
}

/// Reserves once more where a reservation has failed because all segments of the log were in use: a flush gives some back.
#[cold]
fn reserve_in_full_log(core: &Core, units: u64, mut error: Error) -> Result<Reservation> {
    loop {
        core.poison_if_final(&error);
        if !core.wal.is_full_for(units) || planted::is(Bug::FullLogIsFinal) {
            return Err(error);
        }
        core.make_log_room(units)?;
        match core.wal.reserve(units) {
            Ok(at) => return Ok(at),
            Err(another) => error = another,
        }
    }
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
