//! The write path of a commit.
//!
//! 0. Rows with indexes get their entries: operations of the same record (`index/maintenance.rs`).
//! 1. Check the handle: open, writable, not poisoned.
//! 2. Pay the debt: a delay proportional to the compaction debt (`stall`). Rotate a full memtable.
//! 3. Reserve a range of log: one atomic operation assigns position, commit order and sequence
//!    numbers.
//! 4. Seal the record for its position and append it to the log.
//! 5. Insert the operations into the memtable generation of the position, in parallel with others.
//! 6. Publish in order; wait until everything before is published as well (`commit_ring`).
//! 7. With [`Durability::Sync`], wait for a sync that covers the record; one sync serves all
//!    waiters.
//!
//! The log gets a record before the memtable does, and a reader sees it only after both.
pub(crate) mod locks;
mod rotation;
pub(crate) mod stall;
pub(crate) mod weight;
mod receipt;
pub mod batch;

use crate::options::Durability;
use crate::planted;
use crate::read::view::View;
use crate::runtime::Core;
use crate::wal::body::Body;
use crate::wal::{Reservation, Wal};
use sapwood_base::format::log_record::{self, HEADER_BYTES, MAX_PAYLOAD_BYTES, RecordKind};
use sapwood_base::format::write_batch::{Operation, Operations, pad_for_sequences};
use sapwood_base::key::key_hash;
use sapwood_base::{Error, MAX_KEY_BYTES, MAX_VALUE_BYTES, Result, SequenceNumber, ValueKind};
use sapwood_memtable::{LargeValue, Memtable};
use sapwood_storage::sync::MutexGuard;
use std::cell::RefCell;
use std::sync::atomic::Ordering;
use weight::{ARENA_VALUE_BYTES, ArenaRoom, Weight};

pub use receipt::Commit;

/// Commits that take at most this many bytes of an arena are not counted while they are under way:
/// as many of them fit into [`ARENA_MARGIN_BYTES`] as there may be threads.
const CLAIM_BYTES: usize = 64 << 10;
/// Arena bytes that uncounted commits may take at the same time.
const ARENA_MARGIN_BYTES: usize = 128 << 20;
/// Records up to this size keep their scratch buffer for the next commit of the thread, in bytes.
const SCRATCH_KEPT_BYTES: usize = 1 << 20;
/// Batches above this size commit one at a time, in bytes.
const LARGE_RECORD_BYTES: usize = 1 << 20;
/// A payload that is written apart has at most this many operations.
const APART_OPERATIONS_MAX: usize = 4096;
/// Attempts at writing a payload apart.
const APART_ATTEMPTS: usize = 2;
/// Arena room claimed by a commit under way. Dropping it returns the claim: the room was taken by
/// then, or was not needed.
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
    /// Waits until the active memtable has room for a commit of this weight beside all others under
    /// way.
    ///
    /// Errors: those of a commit that waits for a flush; `InvalidArgument` if no memtable has room.
    #[cold]
    fn take(core: &'a Core, weight: Weight) -> Result<Claim<'a>> {
        let bytes = weight.arena_bytes();
        core.make_arena_room(|room| {
            let free = room.saturating_sub(ARENA_MARGIN_BYTES.min(room / 8));
            // Of two concurrent claims, one sees the other. A waiting commit claims nothing
            // meanwhile: otherwise waiting commits could wait for each other.
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

/// The position of a commit in the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Committed {
    pub(crate) sequence: SequenceNumber,
    /// From 1 on, without gaps.
    pub(crate) number: u64,
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

/// Runs `body` with the thread's record buffer, which holds header room only.
#[inline]
pub(crate) fn with_scratch<R>(body: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // During thread teardown the buffer may be gone, and the destructor of another thread-local
    // value may still write.
    let mut record = SCRATCH.try_with(RefCell::take).unwrap_or_default();
    record.clear();
    record.resize(HEADER_BYTES, 0);
    let result = body(&mut record);
    if record.capacity() <= SCRATCH_KEPT_BYTES {
        let _ = SCRATCH.try_with(|scratch| scratch.replace(record));
    }
    result
}

/// State of a large commit only. Empty for others, whose path it must not lengthen.
#[derive(Default)]
pub(crate) struct Large<'c>(Option<Box<LargeCommit<'c>>>);

struct LargeCommit<'c> {
    /// Copies of the values that are too large for arenas, in order. They are made before the
    /// commit reserves its place in the log: other commits wait for a reserved place, and the
    /// copies may fail for want of memory.
    values: std::vec::IntoIter<LargeValue>,
    /// See [`Large::goes_apart`].
    goes_apart: bool,
    body: Option<Body<'c>>,
    /// Held while it is this commit's turn. Declared below the body, of which there is one at a
    /// time.
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

    /// Whether the payload goes apart from its record (`wal/body.rs`): one of few large values. Any
    /// other commit spends most of its time in the memtable, after reserving its place in the log,
    /// and a replay has to find room for it there.
    #[inline]
    fn goes_apart(&self) -> bool {
        self.0.as_ref().is_some_and(|large| large.goes_apart)
    }

    /// Writes the payload as a body, and reserves the place of its record. If the memtable changes
    /// during each attempt, other writers are so fast that they wait for an ordinary record of
    /// `units` instead.
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
            let at = reserve_body(core, log_record::record_units(payload.len()))?;
            let body = core.wal.begin_body(&at, operations);
            if let Err(error) = &body {
                // The range is reserved, and no write may follow a gap.
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
            if planted::holds_body(view.generation_of(at.position).start(), body.start()) {
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

/// The destination of a commit's operations.
pub(crate) struct Place<'a> {
    pub(crate) memtable: &'a Memtable,
    /// The sequence number of the first operation.
    pub(crate) position: u64,
    /// Whether some keyspace has vacant ranges, which puts end: see `read/vacancy.rs`.
    pub(crate) watches_puts: bool,
    view: &'a View,
}

/// Inserts the operations of a payload into a memtable, and cuts the vacant ranges of keyspaces at
/// the keys that are put.
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

/// Commits `record`: header room, then `operations` encoded operations of this `weight`. `apply`
/// gets their place and the encoded operations. It cuts vacant ranges, and inserts the operations.
///
/// Once the record has its place in the log, `is_current` decides whether the indexes that the
/// record was built for are still the current ones. If not, the place stays empty, and `commit`
/// returns `None`: the caller rebuilds the record and retries.
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
    let units = if logged {
        log_record::record_units(payload)
    } else {
        (operations as u64).max(log_record::record_units(0))
    };
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
        // Relaxed: a store that happened before its thread took the tail of the log, as this commit
        // did afterwards, is visible.
        let watches_puts = core.watches_puts.load(Ordering::Relaxed);
        let place = Place { memtable: &generation.memtable, position: at.position, watches_puts, view };
        apply(&place, &record[HEADER_BYTES..], &mut large)
    });
    if let Err(error) = &applied {
        // The range is reserved: other writers must not wait for it, and no write may follow a
        // gap.
        core.poison(error);
    }
    core.wal.complete(&at);
    core.wal.wait_published(at.end);
    if core.wal.wants_segments(&at) {
        core.background.wake_log();
    }
    applied?;
    // An earlier commit may have left a gap in the log, at which recovery ends. It poisons before
    // it completes, so a commit that sees it published sees the poison.
    if planted::commits_check_for_gaps() {
        core.check_not_gapped()?;
    }

    match durability {
        Durability::None | Durability::Buffered => {}
        Durability::Periodic(every) => core.sync_within(every, at.end),
        Durability::Sync => {
            if planted::commits_wait_for_sync() {
                core.wait_durable(at.end)?;
            }
        }
    }
    let number = at.start().commits + 1;
    Ok(Some(Committed { sequence: SequenceNumber(at.position), number, end: at.end }))
}

/// Reserves units for a commit.
#[inline]
fn reserve(core: &Core, units: u64) -> Result<Reservation> {
    match core.wal.reserve(units) {
        Ok(at) => Ok(at),
        Err(error) => reserve_in_full_log(core, units, Wal::reserve, error),
    }
}

/// Reserves units for a body.
fn reserve_body(core: &Core, units: u64) -> Result<Reservation> {
    let reserved = core.wal.reserve_body(units);
    reserved.or_else(|error| reserve_in_full_log(core, units, Wal::reserve_body, error))
}

/// Retries a reservation that has failed because all segments of the log were in use: a flush frees
/// some.
#[cold]
fn reserve_in_full_log(
    core: &Core,
    units: u64,
    reserve: fn(&Wal, u64) -> Result<Reservation>,
    mut error: Error,
) -> Result<Reservation> {
    loop {
        core.poison_if_final(&error);
        if !(planted::full_log_can_wait() && core.wal.is_full_for(units)) {
            return Err(error);
        }
        core.make_log_room(units)?;
        match reserve(&core.wal, units) {
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
