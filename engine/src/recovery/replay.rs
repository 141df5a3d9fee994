//! Rebuilding memtables from the log: step 3 of recovery.
//!
//! 1. One thread reads the log in pieces, and steps over the headers of the records to find the end
//!    of each piece.
//! 2. Other threads check the records of a piece, and write their operations into the arena of the
//!    target memtable.
//! 3. All threads distribute the entries to ranges of keys, sort them, and build lists from left to
//!    right, while one thread searches after the end of the log for a proof that it once continued.
//!
//! A memtable is full when its arena is, by the rule that commits also obey (`write/weight.rs`):
//! small entries take several times as much there as in the log. If the present memtable has no
//! room for a record, the record begins another one, with a larger arena if it needs one. So every
//! committed record can be replayed, whatever the settings are now.
//!
//! So all bytes of the log are read in the order in which they lie, and no insert searches. A short
//! log goes the same way on one thread. Nothing is synced here.
//!
//! Once the allowed number of memtables is full, a replay stops, or only checks the records of the
//! rest: the end of the log must be known before anything on disk changes.
use crate::manifest::ManifestState;
use crate::planted;
use crate::read::view::Generation;
use crate::wal::commit_ring::LogPoint;
use crate::wal::reader::{FoundSegment, LogReader, Record, Span};
use crate::write::weight::Weight;
use parking_lot::Mutex;
use rayon::prelude::*;
use sapwood_base::format::log_record::{HEADER_BYTES, RecordHeader, RecordKind, UNIT_BYTES, parse_header};
use sapwood_base::format::write_batch::Operations;
use sapwood_base::key::key_hash;
use sapwood_base::memory;
use sapwood_base::{Error, ErrorKind, KeyspaceId, Result, SequenceNumber};
use sapwood_memtable::{ArenaPool, BulkLoader, Memtable, MemtableOptions};
use sapwood_storage::Env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A log that fills more than one piece of this many bytes is replayed on threads.
const PIECE_BYTES: usize = 1 << 20;
/// Pieces of small memtables are smaller, down to this.
const LEAST_PIECE_BYTES: usize = 4 << 10;
/// Least number of pieces per memtable: the unused part of the last one is lost.
const PIECES_PER_MEMTABLE: usize = 16;
/// Bytes of pieces that may wait for a thread.
const IN_FLIGHT_BYTES: usize = 8 << 20;
/// Arena bytes that waiting pieces may take, with the smallest possible entries.
const IN_FLIGHT_ARENA_BYTES: usize = IN_FLIGHT_BYTES * 8;
/// Records of this size and more are weighed before they have a memtable.
const WEIGHED_BYTES: usize = 1 << 20;

/// The source of new memtables.
pub(crate) struct MemtableSource<'a> {
    pub(crate) arenas: &'a Arc<ArenaPool>,
    pub(crate) memtable_bytes: usize,
    /// Limit of memtables.
    pub(crate) most: usize,
    /// The number of the first one.
    pub(crate) first_memtable: u64,
    /// The machine on whose threads a long log may be replayed.
    pub(crate) env: Option<&'a Env>,
}

/// The result of a replay.
pub(super) struct Replayed {
    /// Oldest first.
    pub(super) generations: Vec<Arc<Generation>>,
    /// The end of the log.
    pub(super) end: LogPoint,
    /// A durable position above the end, if something proves one.
    pub(super) witness: Option<u64>,
    /// The first position that has no memtable, if there are records from there on.
    pub(super) rest: Option<LogPoint>,
}

/// The treatment of records that have no memtable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// They are checked, up to the end of the log.
    Checked,
    /// They are not read.
    Unread,
}

/// The needed records, oldest first: those of the closed sessions, then those of the open one. A
/// closed session that was not synced may be torn like the open one; then nothing after it counts.
pub(super) struct History<'a> {
    segments: &'a [FoundSegment],
    database: u64,
    state: &'a ManifestState,
    /// Number of closed sessions begun.
    begun: usize,
    /// Position that the present session must reach; `None` for the open one, which has no known
    /// end.
    end: Option<u64>,
    pub(super) reader: LogReader<'a>,
}

/// The next part of a history.
enum Next {
    /// Records that were read into the caller's memory.
    Span(Span),
    /// A record that is larger than that, or crosses segments.
    Record(Record),
}

impl<'a> History<'a> {
    pub(super) fn new(segments: &'a [FoundSegment], database: u64, state: &'a ManifestState) -> History<'a> {
        let reader = LogReader::new(segments, database, state.log_start_point());
        let end = Some(state.log_start);
        History { segments, database, state, begun: 0, end, reader }
    }

    /// The next records; `None` at the end of the log: with the open session, or with one that may
    /// have been torn.
    fn next(&mut self, buffer: &mut [u8]) -> Result<Option<Next>> {
        while self.end.is_some_and(|end| self.reader.position() >= end) {
            self.begin_next_session();
        }
        let span = self.reader.span(self.end.unwrap_or(u64::MAX), buffer)?;
        if span.bytes > 0 {
            return Ok(Some(Next::Span(span)));
        }
        match self.reader.next()? {
            None if self.is_damage(self.reader.position()) => Err(self.damage(self.reader.position())),
            None if self.end.is_some() => planted::not_after_tear(|| {
                self.begin_next_session();
                self.next(buffer)
            }),
            record => Ok(record.map(Next::Record)),
        }
    }

    /// Whether `position` must hold a valid record.
    fn is_damage(&self, position: u64) -> bool {
        position < self.state.log_surely_synced()
    }

    /// The error for a position of a synced session that holds no valid record.
    fn damage(&self, position: u64) -> Error {
        self.reader.damage(position, "log record is damaged; it had been synced")
    }

    fn begin_next_session(&mut self) {
        let from = match self.state.closed_sessions.get(self.begun) {
            Some((start, end)) => {
                let from = (*start).max(self.state.log_start);
                self.end = Some(*end);
                from
            }
            None => {
                self.end = None;
                self.state.log_opened.max(self.state.log_start)
            }
        };
        self.begun += 1;
        let from = LogPoint { position: from, ..self.reader.point() };
        self.reader = LogReader::new(self.segments, self.database, from);
    }
}

/// Builds memtables from records.
pub(super) struct Replay<'a> {
    source: &'a MemtableSource<'a>,
    state: &'a ManifestState,
    beyond: Beyond,
    generations: Vec<(Arc<Generation>, Arc<Memtable>)>,
    /// See [`Replayed::rest`].
    rest: Option<LogPoint>,
    /// Bytes of log in the last generation.
    filled: usize,
    piece_bytes: usize,
    /// Unused memory.
    spare: Option<Vec<u8>>,
    pieces: usize,
}

/// The shared state of the threads of a replay.
struct Shared {
    database: u64,
    written: Mutex<Vec<Written>>,
    /// The lowest position of an invalid record found.
    torn: AtomicU64,
    /// Bytes of pieces that wait for a thread.
    in_flight: AtomicUsize,
    /// Memory that pieces no longer need.
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// A range of the log that goes into one memtable.
struct Piece {
    number: usize,
    generation: usize,
    /// None if the records are only checked.
    memtable: Option<Arc<Memtable>>,
    records: Records,
}

enum Records {
    Span(Span, Vec<u8>),
    One(Record),
}

/// The result of a piece.
struct Written {
    /// In log order.
    number: usize,
    generation: usize,
    loader: Result<Option<BulkLoader>>,
    /// The place of its first invalid record.
    torn: Option<LogPoint>,
}

impl Piece {
    fn bytes(&self) -> usize {
        match &self.records {
            Records::Span(span, _) => span.bytes,
            Records::One(record) => record.payload().len(),
        }
    }
}

impl<'a> Replay<'a> {
    /// Replays `history` into as many memtables as `source` allows.
    pub(super) fn run(
        source: &'a MemtableSource<'a>,
        state: &'a ManifestState,
        history: &mut History<'_>,
        beyond: Beyond,
    ) -> Result<Replayed> {
        let piece_bytes = (source.memtable_bytes / PIECES_PER_MEMTABLE).clamp(LEAST_PIECE_BYTES, PIECE_BYTES);
        let mut replay = Replay {
            source,
            state,
            beyond,
            generations: Vec::new(),
            rest: None,
            filled: 0,
            piece_bytes: piece_bytes.next_multiple_of(UNIT_BYTES),
            spare: None,
            pieces: 0,
        };
        let shared = Shared {
            database: history.database,
            written: Mutex::default(),
            torn: AtomicU64::new(u64::MAX),
            in_flight: AtomicUsize::new(0),
            buffers: Mutex::default(),
        };
        let mut pool = None;
        while let Some(piece) = replay.read(history, &shared)? {
            let long = replay.filled >= PIECE_BYTES / 2;
            shared.write(state, piece);
            if let Some(env) = source.env.filter(|_| long) {
                // The log is long enough to be worth threads.
                env.check_threads(env.parallelism())?;
                let built = rayon::ThreadPoolBuilder::new().build();
                let failed =
                    |error| Error::new(ErrorKind::Io, format!("cannot start recovery threads: {error}"));
                let pool = pool.insert(built.map_err(failed)?);
                pool.in_place_scope(|scope| replay.read_on_threads(history, &shared, scope))?;
                break;
            }
        }
        replay.finish(history, shared, pool.as_ref())
    }

    /// Reads the rest of the log while other threads make entries.
    fn read_on_threads<'s>(
        &mut self,
        history: &mut History<'_>,
        shared: &'s Shared,
        scope: &rayon::Scope<'s>,
    ) -> Result<()>
    where
        'a: 's,
    {
        let state = self.state;
        while let Some(piece) = self.read(history, shared)? {
            // Relaxed, here and below: the count bounds memory only roughly.
            if shared.in_flight.load(Ordering::Relaxed) > IN_FLIGHT_BYTES {
                // The other threads are late.
                shared.write(state, piece);
                continue;
            }
            let bytes = piece.bytes();
            shared.in_flight.fetch_add(bytes, Ordering::Relaxed);
            scope.spawn(move |_| {
                shared.write(state, piece);
                shared.in_flight.fetch_sub(bytes, Ordering::Relaxed);
            });
        }
        Ok(())
    }

    /// The next piece; `None` at the end of the log.
    fn read(&mut self, history: &mut History<'_>, shared: &Shared) -> Result<Option<Piece>> {
        // Relaxed: a piece read in vain is discarded in the end.
        if shared.torn.load(Ordering::Relaxed) != u64::MAX {
            return Ok(None);
        }
        // Memtable entries take about as much room as log records; the size need not be exact.
        let mut full = match (&self.rest, self.generations.last()) {
            (Some(_), _) => false,
            (None, last) => {
                !history.reader.is_in_body() && last.is_none_or(|(_, memtable)| self.is_full(memtable))
            }
        };
        let free = self.spare.take().or_else(|| shared.buffers.lock().pop());
        let mut buffer = match free {
            Some(buffer) => buffer,
            None => memory::filled(0, self.piece_bytes)?,
        };
        let mut need = 0;
        let (point, records) = match planted::following(history.next(&mut buffer))? {
            None => return Ok(None),
            Some(Next::Span(span)) => (span.start(), Records::Span(span, buffer)),
            Some(Next::Record(record)) => {
                if self.rest.is_none() {
                    need = self.need_of(&record);
                    let present = self.generations.last().filter(|_| !full);
                    let has_room = present.is_some_and(|(_, memtable)| need <= memtable.room_bytes());
                    full |= !has_room;
                }
                self.spare = Some(buffer);
                (record.start(), Records::One(record))
            }
        };
        if full && self.generations.len() >= self.source.most && planted::replay_is_bounded() {
            self.rest = Some(point);
            if self.beyond == Beyond::Unread {
                history.reader.return_to(point);
                return Ok(None);
            }
        } else if full {
            let start = match self.generations.is_empty() {
                true => self.state.log_start_point(),
                false => point,
            };
            let id = self.source.first_memtable + self.generations.len() as u64;
            let first = SequenceNumber(point.position);
            let mut memtable = Memtable::starting_at(first, id, self.source.arenas.take()?);
            if need > memtable.room_bytes() {
                // The settings were different then, or the system gave more address space. Its
                // arena is not pooled.
                let arenas = ArenaPool::keeping(MemtableOptions { size_bytes: need }, 0);
                memtable = Memtable::starting_at(first, id, arenas.take()?);
            }
            self.generations.push((Generation::new(memtable.clone(), start), memtable));
            self.filled = 0;
        }
        self.pieces += 1;
        let piece = Piece {
            number: self.pieces,
            generation: self.generations.len() - 1,
            memtable: self
                .generations
                .last()
                .filter(|_| self.rest.is_none())
                .map(|(_, memtable)| memtable.clone()),
            records,
        };
        self.filled += piece.bytes();
        Ok(Some(piece))
    }

    /// Whether a memtable is to take no more, as far as is known: some pieces may still wait for a
    /// thread.
    fn is_full(&self, memtable: &Memtable) -> bool {
        let size = self.source.memtable_bytes;
        // Only records exist yet. Leaves, which take almost as much for the smallest entries,
        // follow.
        let most = size.min((size + (256 << 20)) / 5 * 3);
        self.filled >= size || planted::replay_weighs() && memtable.size_bytes() >= most
    }

    /// Arena bytes that a record may need, plus those that earlier pieces may take meanwhile. Zero
    /// if it is small: arenas extend beyond the size at which they are full.
    fn need_of(&self, record: &Record) -> usize {
        let payload = record.payload();
        // A distant batch weighs next to nothing: see `write::Large`.
        if record.kind != RecordKind::Batch
            || record.is_distant
            || payload.len() < WEIGHED_BYTES
            || !planted::replay_weighs()
        {
            return 0;
        }
        // A payload that cannot be decoded is reported when it is copied.
        Weight::of_payload(payload).map_or(0, |weight| weight.arena_bytes() + IN_FLIGHT_ARENA_BYTES)
    }

    /// Finds the end of the log, and makes the records before it visible.
    fn finish(
        mut self,
        history: &mut History<'_>,
        shared: Shared,
        pool: Option<&rayon::ThreadPool>,
    ) -> Result<Replayed> {
        self.spare = None;
        let mut written = shared.written.into_inner();
        written.sort_unstable_by_key(|written| written.number);
        let mut loaders: Vec<Vec<BulkLoader>> = self.generations.iter().map(|_| Vec::new()).collect();
        for written in written {
            if let Some(loader) = written.loader? {
                loaders[written.generation].push(loader);
            }
            if let Some(torn) = written.torn {
                if history.is_damage(torn.position) {
                    return Err(history.damage(torn.position));
                }
                history.reader.return_to(torn);
                // A wrong read does not imply wrong data on the device: then it is no end, and must
                // not be made one.
                if history.reader.next()?.is_some() {
                    let message =
                        "log record was another one when it was read again; open the database again";
                    return Err(history.reader.damage(torn.position, message));
                }
                break;
            }
        }
        let end = history.reader.point();
        // Pieces read in vain may have begun further ones.
        while self.generations.len() > 1
            && self.generations.last().is_some_and(|(generation, _)| generation.start() >= end.position)
        {
            self.generations.pop();
            loaders.pop();
        }

        let publish = |threads: usize, (_, memtable): &(_, Arc<Memtable>), loaders: Vec<BulkLoader>| {
            memtable.publish(loaders, threads)
        };
        let reader = &mut history.reader;
        // The search scans everything after the end, and is needless if records follow.
        let mut witness_above = |end| match self.beyond {
            Beyond::Checked => reader.witness_above(end),
            Beyond::Unread => Ok(None),
        };
        let witness = match pool {
            None => {
                let mut published = self.generations.iter().zip(loaders);
                published.try_for_each(|(generation, loaders)| publish(1, generation, loaders))?;
                witness_above(end.position)?
            }
            Some(pool) => {
                let threads = pool.current_num_threads();
                let published = Mutex::new(Ok(()));
                let (published_ref, generations) = (&published, &self.generations);
                let witness = pool.in_place_scope(|scope| {
                    scope.spawn(move |_| {
                        let each = generations.par_iter().zip(loaders);
                        *published_ref.lock() =
                            each.try_for_each(|(generation, loaders)| publish(threads, generation, loaders));
                    });
                    witness_above(end.position)
                });
                published.into_inner()?;
                witness?
            }
        };
        let generations = self.generations.into_iter().map(|(generation, _)| generation).collect();
        let rest = self.rest.filter(|rest| rest.position < end.position || self.beyond == Beyond::Unread);
        Ok(Replayed { generations, end, witness, rest })
    }
}

/// A walk over the records of a span.
struct Walk {
    /// The place of the next record.
    at: LogPoint,
    left_bytes: usize,
}

impl Walk {
    fn new(span: &Span) -> Walk {
        Walk { at: span.start(), left_bytes: span.bytes }
    }

    /// Position, header and payload of the next record, which `bytes` begin with; `None` if it is
    /// not valid.
    #[inline]
    fn next<'b>(&mut self, shared: &Shared, bytes: &'b [u8]) -> Option<(u64, RecordHeader, &'b [u8])> {
        let position = self.at.position;
        let (header, payload) = shared.check(bytes, position)?;
        self.at = LogPoint { position: position + header.units(), commits: header.commits_after() };
        self.left_bytes -= header.units() as usize * UNIT_BYTES;
        Some((position, header, payload))
    }
}

impl Shared {
    /// Checks the records of a piece and turns them into entries, up to the first invalid one.
    fn write(&self, state: &ManifestState, piece: Piece) {
        let expected = match &piece.records {
            Records::Span(span, _) => span.batches,
            Records::One(_) => 0,
        };
        let mut loader = piece.memtable.as_ref().map(|memtable| BulkLoader::new(memtable, expected));
        let mut torn = None;
        let outcome = match (piece.records, &mut loader) {
            (Records::One(record), Some(loader)) if record.kind == RecordKind::Batch => {
                copy(state, loader, record.position, record.units, record.payload())
            }
            // The reader has checked it.
            (Records::One(_), _) => Ok(()),
            (Records::Span(span, bytes), loader) => {
                let outcome = self.write_span(state, loader.as_mut(), span, &bytes);
                self.buffers.lock().push(bytes);
                outcome.map(|found| torn = found)
            }
        };
        if let Some(torn) = torn {
            // Relaxed: see `read`.
            self.torn.fetch_min(torn.position, Ordering::Relaxed);
        }
        if let Some(loader) = &mut loader {
            loader.prepare();
        }
        let loader = outcome.map(|()| loader);
        self.written.lock().push(Written {
            number: piece.number,
            generation: piece.generation,
            loader,
            torn,
        });
    }

    /// Writes the operations of a span, which `bytes` begin with. Without a loader it only checks
    /// the records. Returns the place of the first invalid one.
    fn write_span(
        &self,
        state: &ManifestState,
        mut loader: Option<&mut BulkLoader>,
        span: Span,
        bytes: &[u8],
    ) -> Result<Option<LogPoint>> {
        let mut walk = Walk::new(&span);
        while walk.left_bytes > 0 {
            let rest = &bytes[span.bytes - walk.left_bytes..span.bytes];
            let Some((position, header, payload)) = walk.next(self, rest) else {
                return Ok(Some(walk.at));
            };
            if let Some(loader) = &mut loader
                && header.kind == RecordKind::Batch
                && is_needed(state, position)
            {
                copy(state, loader, position, header.units(), payload)?;
            }
        }
        Ok(None)
    }

    /// Header and payload of the record at the start of `bytes`, if it is valid.
    #[inline]
    fn check<'b>(&self, bytes: &'b [u8], position: u64) -> Option<(RecordHeader, &'b [u8])> {
        let header = parse_header(bytes.first_chunk()?, position)?;
        if !planted::is_whole(header.verify(bytes, self.database, position)) {
            return None;
        }
        Some((header, bytes.get(HEADER_BYTES..header.covered_bytes())?))
    }
}

fn is_needed(state: &ManifestState, position: u64) -> bool {
    planted::is_replayed(position, state.log_start)
}

/// Operations on a keyspace that was dropped later are skipped.
#[inline]
fn is_there(state: &ManifestState, keyspace: KeyspaceId) -> bool {
    state.keyspaces.contains_key(&keyspace) && planted::has_rows(keyspace, state.next_keyspace)
}

/// Copies the operations of the batch at `position`, which spans `units`.
fn copy(
    state: &ManifestState,
    loader: &mut BulkLoader,
    position: u64,
    units: u64,
    payload: &[u8],
) -> Result<()> {
    for (i, operation) in Operations::new(payload).take_while(planted::is_reached).enumerate() {
        let operation = operation?;
        // Each has a position of its own; a surplus one would have that of the next record.
        if i as u64 >= units {
            let message = format!("the batch at position {position} has too many operations");
            return Err(Error::new(ErrorKind::Corruption, message));
        }
        let (keyspace, key) = (operation.keyspace, operation.key);
        if is_there(state, keyspace) {
            let sequence = SequenceNumber(position + i as u64);
            loader.add(keyspace, key, key_hash(key), sequence, operation.kind, operation.value)?;
        }
    }
    Ok(())
}
