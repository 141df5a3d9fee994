//! Opening a database: from its files to a state that takes writes.
//!
//! 1. Read the MANIFEST; check that every table it lists is there with its length.
//! 2. Read the headers of all log segments, and the stretches of log that are needed, in order.
//! 3. Rebuild memtables from the records. Nothing is flushed.
//! 4. Sync what was read of the last stretch, and write a new MANIFEST that calls it closed and starts a new stretch
//!    above every position that was ever handed out. This is the only commit point: before it nothing is removed or
//!    overwritten, so a crash in between changes nothing but the next attempt.
//! 5. Remove files that nothing refers to.
use crate::manifest::{self, Manifest, ManifestState};
use crate::read::super_version::Generation;
use crate::wal::reader::{FoundSegment, LogReader, Record};
use crate::wal::{RetainedSegment, SPARES_MAX};
use parking_lot::Mutex;
use rayon::prelude::*;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::log_record::{
    HEADER_BYTES as RECORD_HEADER_BYTES, RecordKind, UNIT_BYTES, parse_header, record_units,
};
use sapwood_base::format::log_segment::{DATA_OFFSET, HEADER_BYTES, SegmentHeader};
use sapwood_base::format::write_batch::Operations;
use sapwood_base::key::key_hash;
use sapwood_base::planted::{self, Bug};
use sapwood_base::{Error, ErrorKind, FileNumber, Result, SequenceNumber};
use sapwood_compaction::TableContext;
use sapwood_memtable::{ArenaPool, Memtable, Portion};
use sapwood_storage::fs::{File, OpenMode};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The first position of a new database. Sequence numbers below stand for "older than everything".
const FIRST_POSITION: u64 = 1 << 10;
/// Payload bytes of a portion. A log with more is replayed on threads.
const PORTION_BYTES: usize = 1 << 20;
/// Bytes of portions that may wait for a thread.
const IN_FLIGHT_BYTES: usize = 8 << 20;
/// Bytes that are written again at a time.
const REWRITE_BYTES: usize = 1 << 20;

/// A state to go on from.
pub(crate) struct Recovered {
    pub(crate) database: u64,
    pub(crate) manifest: ManifestState,
    /// Oldest first; at least one.
    pub(crate) generations: Vec<Arc<Generation>>,
    /// Where the new log starts.
    pub(crate) base: u64,
    pub(crate) retained: Vec<RetainedSegment>,
    /// Log files that hold nothing that is needed, with their bytes.
    pub(crate) spare_files: Vec<(FileNumber, u64)>,
    /// Files that nothing refers to.
    pub(crate) orphans: Vec<FileName>,
    /// Bytes of log that were replayed.
    pub(crate) log_bytes: u64,
    /// Segments to sync before the stretch that was read can be called closed.
    unsynced: Vec<FoundSegment>,
    /// The positions of the stretch that was read last, if a sync of it had failed: the bytes that reads show may be in
    /// memory only, in pages that the system takes for clean.
    rewrite: Option<(u64, u64)>,
}

/// What memtables are made of.
pub(crate) struct MemtableSource<'a> {
    pub(crate) arenas: &'a Arc<ArenaPool>,
    pub(crate) memtable_bytes: usize,
    /// Whether a long log may be replayed on threads.
    pub(crate) threads: bool,
    /// Whether what is read may be synced: not by a read-only opening.
    pub(crate) sync: bool,
}

/// The number of keyspaces that a new memtable has room for.
pub(crate) fn keyspace_capacity(next_keyspace: u32) -> u32 {
    next_keyspace.saturating_mul(2).max(64)
}

/// Steps 1 to 3. Changes nothing on disk.
pub(crate) fn analyze(
    context: &Arc<TableContext>,
    names: &[FileName],
    new_database: u64,
    source: &MemtableSource<'_>,
) -> Result<Recovered> {
    let loaded = manifest::load(context, names)?;
    let loaded_nothing = loaded.is_none();
    let (database, mut state) = match loaded {
        Some(loaded) => (loaded.database, loaded.state),
        None => {
            let state =
                ManifestState { log_start: FIRST_POSITION, log_opened: FIRST_POSITION, ..Default::default() };
            (new_database, state)
        }
    };
    let highest = names
        .iter()
        .filter_map(|name| match name {
            FileName::Lock | FileName::Unsynced => None,
            FileName::Manifest(number) | FileName::Log(number) | FileName::Table(number) => Some(number.0),
        })
        .max();
    let highest = highest.filter(|_| !planted::is(Bug::FileNumbersReused) || loaded_nothing);
    state.next_file = state.next_file.max(highest.map_or(1, |highest| highest + 1));
    // Relaxed: nobody else has the context yet.
    context.next_file.store(state.next_file, Ordering::Relaxed);
    check_tables(context, &state)?;

    let (segments, mut unused) = find_segments(context, names, database, &state)?;
    let opened = state.log_opened.max(state.log_start);
    let failed_sync = names.contains(&FileName::Unsynced);
    let mut history = History::new(&segments, database, &state);
    let (mut generations, synced) =
        Replay::run(source, &state, &mut history, opened, source.sync && !failed_sync).map_err(|error| {
            if error.file().is_some() { error } else { error.in_file(&context.directory) }
        })?;
    let mut reader = history.reader;
    let log_end = reader.position();
    if let Some(durable) = reader.witness_above(log_end)?.filter(|_| !planted::is(Bug::DamageEndsLog)) {
        let message = format!(
            "log record is damaged; the log had been synced up to position {durable}, this is position {log_end}"
        );
        return Err(reader.damage(log_end, &message));
    }
    // Segments are made in order, each durable before the next, and given up only below `log_start`.
    if reader.place(log_end).is_none()
        && let Some(later) = segments.iter().find(|segment| segment.header.base_position > log_end)
    {
        let message = format!("the log segment before this one is missing: no file holds position {log_end}");
        return Err(Error::corruption(later.file.path(), 0, message));
    }
    let log_bytes = history.closed_bytes + (log_end - opened) * UNIT_BYTES as u64;

    // Above everything that may have been handed out: also positions whose records a crash has taken.
    let base = segments
        .iter()
        .map(|segment| segment.header.end_position())
        .chain(state.log_closed.iter().map(|(_, end)| *end))
        .chain(state.keyspaces.values().map(|entry| entry.version.max_sequence().0 + 1))
        .chain([log_end, state.log_opened, FIRST_POSITION])
        .max()
        .expect("not empty");
    let base = match planted::is(Bug::SequenceRestarts) && log_end == opened {
        true => FIRST_POSITION,
        false if planted::is(Bug::PositionsReused) => log_end,
        false => base,
    };
    if generations.is_empty() {
        let capacity = keyspace_capacity(state.next_keyspace);
        generations.push(Generation::new(
            Memtable::new(0, source.arenas.take()?, capacity),
            state.log_start.min(base),
        ));
    }

    let opened_needed = log_end > opened;
    let rewrite = failed_sync.then_some((opened, log_end));
    if opened_needed {
        state.log_closed.push((opened, log_end));
    }
    if planted::is(Bug::ReplayedLogDropped) {
        state.log_start = log_end;
    }
    let log_start = state.log_start;
    state.log_closed.retain(|(_, end)| *end > log_start);
    state.log_opened = if planted::is(Bug::RecoveredLogOpen) { opened } else { base };
    let needed = |segment: &FoundSegment| {
        let (from, to) = (segment.header.base_position, segment.header.end_position());
        state.log_closed.iter().any(|(start, end)| from < *end && to > (*start).max(log_start))
    };
    let mut retained = Vec::new();
    let mut unsynced = Vec::new();
    for segment in segments {
        if !needed(&segment) {
            unused.push((segment.number, segment.file_bytes));
            continue;
        }
        retained.push(RetainedSegment {
            file: segment.number,
            end_position: segment.header.end_position(),
            file_bytes: segment.file_bytes,
        });
        if opened_needed && segment.header.end_position() > opened && !synced.contains(&segment.number) {
            unsynced.push(segment);
        }
    }
    let live: HashSet<FileNumber> = state
        .keyspaces
        .values()
        .flat_map(|entry| entry.version.tables())
        .map(|table| table.handle.file())
        .skip(usize::from(planted::is(Bug::GreedySweep)))
        .collect();
    let orphans = names
        .iter()
        .filter(|name| matches!(name, FileName::Table(number) if !live.contains(number)))
        .copied()
        .collect();
    Ok(Recovered {
        database,
        manifest: state,
        generations,
        base,
        retained,
        spare_files: unused,
        orphans,
        log_bytes,
        unsynced,
        rewrite,
    })
}

/// Step 4.
pub(crate) fn commit(context: &Arc<TableContext>, recovered: &mut Recovered) -> Result<Manifest> {
    for segment in recovered.unsynced.drain(..).filter(|_| !planted::is(Bug::RecoveredLogNotSynced)) {
        if let Some((from, to)) = recovered.rewrite {
            rewrite(context, &segment, from, to)?;
        }
        segment.file.sync_data()?;
    }
    let manifest = Manifest::create(context, recovered.database, recovered.manifest.clone())?;
    if recovered.rewrite.is_some() {
        // If it stays, the next opening writes its log again without need.
        let _ = context.fs.remove_file(&context.directory.join(FileName::Unsynced.format()));
    }
    Ok(manifest)
}

/// Writes the positions `from..to` of a segment again with what reads show, so that the sync to come takes them to the disk.
/// After a failed sync Linux keeps the pages and calls them clean: a second sync succeeds and does nothing (Rebello et
/// al., "Can applications recover from fsync failures?", 2020). In place: whatever a crash leaves of it was there before.
fn rewrite(context: &Arc<TableContext>, segment: &FoundSegment, from: u64, to: u64) -> Result<()> {
    let file = context.fs.open(segment.file.path(), OpenMode::ReadWrite)?;
    let base = segment.header.base_position;
    let place = |position: u64| {
        DATA_OFFSET as u64 + (position.clamp(base, segment.header.end_position()) - base) * UNIT_BYTES as u64
    };
    // The header too: it was written when the segment was begun, and synced, but by the same device.
    let mut offset = if from <= base { 0 } else { place(from) };
    let end = place(to).min(segment.file_bytes);
    let mut buffer = vec![0; REWRITE_BYTES];
    while offset < end {
        let len = (end - offset).min(REWRITE_BYTES as u64) as usize;
        segment.file.read_exact_at(offset, &mut buffer[..len])?;
        file.write_at(offset, &buffer[..len])?;
        offset += len as u64;
    }
    Ok(())
}

/// Step 5. What cannot be removed is tried again at the next opening.
pub(crate) fn sweep(context: &Arc<TableContext>, recovered: &mut Recovered, segment_bytes: u64) {
    for orphan in recovered.orphans.drain(..) {
        let _ = context.fs.remove_file(&context.directory.join(orphan.format()));
    }
    let mut kept = 0;
    recovered.spare_files.retain(|(number, bytes)| {
        if *bytes == segment_bytes && kept < SPARES_MAX {
            kept += 1;
            return true;
        }
        let _ = context.fs.remove_file(&context.directory.join(FileName::Log(*number).format()));
        false
    });
}

fn check_tables(context: &Arc<TableContext>, state: &ManifestState) -> Result<()> {
    for entry in state.keyspaces.values() {
        for table in entry.version.tables() {
            let path = context.table_path(table.handle.file());
            let wanted = table.handle.file_bytes();
            if !context.fs.exists(&path)? {
                return Err(Error::corruption(&path, 0, "table is missing"));
            }
            let len = context.fs.file_len(&path)?;
            if len != wanted {
                let message = format!("table has {len} bytes, the MANIFEST says {wanted}");
                return Err(Error::corruption(&path, len.min(wanted), message));
            }
        }
    }
    Ok(())
}

/// The segments that hold a stretch of this database's log, in order, and the files that hold none.
#[allow(clippy::type_complexity, reason = "a pair of lists needs no name")]
fn find_segments(
    context: &Arc<TableContext>,
    names: &[FileName],
    database: u64,
    state: &ManifestState,
) -> Result<(Vec<FoundSegment>, Vec<(FileNumber, u64)>)> {
    let mut segments = Vec::new();
    let mut unused = Vec::new();
    let mut suspects = Vec::new();
    for name in names {
        let FileName::Log(number) = *name else { continue };
        let path = context.directory.join(name.format());
        let file = context.fs.open(&path, OpenMode::Read)?;
        let file_bytes = file.len()?;
        if file_bytes < DATA_OFFSET as u64 {
            unused.push((number, file_bytes));
            continue;
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(0, &mut header)?;
        match SegmentHeader::decode(&header) {
            Ok(Some(header)) if header.database == database => {
                if file_bytes < DATA_OFFSET as u64 + u64::from(header.data_units) * UNIT_BYTES as u64 {
                    let needed = header.end_position() > state.log_start;
                    if needed {
                        return Err(Error::corruption(
                            &path,
                            file_bytes,
                            "log segment is shorter than its header says",
                        ));
                    }
                }
                segments.push(FoundSegment { number, header, file, file_bytes });
            }
            Ok(None) if has_data(&*file, file_bytes)? => {
                let error = Error::new(ErrorKind::Corruption, "the header of the log segment is gone");
                suspects.push((number, file, file_bytes, error));
            }
            Ok(_) => unused.push((number, file_bytes)),
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error.at(&path, 0)),
            Err(error) => suspects.push((number, file, file_bytes, error)),
        }
    }
    segments.sort_by_key(|segment| segment.header.base_position);
    // A file whose creation was cut short may hold anything. But one with records that are needed is a segment whose
    // header is damaged.
    for (number, file, file_bytes, error) in suspects {
        let mut data = vec![0; (file_bytes - DATA_OFFSET as u64) as usize];
        file.read_exact_at(DATA_OFFSET as u64, &mut data)?;
        if holds_records(&data, database, state.log_start) {
            return Err(error.at(file.path(), 0));
        }
        unused.push((number, file_bytes));
    }
    Ok((segments, unused))
}

/// Whether anything stands where the first record of a segment would be.
fn has_data(file: &dyn File, file_bytes: u64) -> Result<bool> {
    let mut start = [0; RECORD_HEADER_BYTES];
    if file_bytes < (DATA_OFFSET + start.len()) as u64 {
        return Ok(false);
    }
    file.read_exact_at(DATA_OFFSET as u64, &mut start)?;
    Ok(start.iter().any(|byte| *byte != 0))
}

/// Whether a valid record at or above the position `from` stands anywhere in `data`.
fn holds_records(data: &[u8], database: u64, from: u64) -> bool {
    (0..data.len() / UNIT_BYTES).map(|unit| &data[unit * UNIT_BYTES..]).any(|record| {
        let Some(header) = record.first_chunk::<RECORD_HEADER_BYTES>() else { return false };
        let low = u64::from(u32::from_le_bytes([header[8], header[9], header[10], header[11]]));
        // A record holds the low half of its position; the high half is that of `from`, or one more.
        [from >> 32, (from >> 32) + 1].iter().map(|high| high << 32 | low).any(|position| {
            position >= from
                && parse_header(header, position)
                    .is_some_and(|header| header.verify(record, database, position))
        })
    })
}

/// The records that are needed, oldest first: those of the closed stretches, then those of the open one.
struct History<'a> {
    segments: &'a [FoundSegment],
    database: u64,
    state: &'a ManifestState,
    /// How many closed stretches were begun.
    begun: usize,
    /// Where the present stretch must reach; `None` for the open one, which ends where it ends.
    end: Option<u64>,
    reader: LogReader<'a>,
    /// Bytes of the closed stretches so far.
    closed_bytes: u64,
}

impl<'a> History<'a> {
    fn new(segments: &'a [FoundSegment], database: u64, state: &'a ManifestState) -> History<'a> {
        let reader = LogReader::new(segments, database, state.log_start);
        let end = Some(state.log_start);
        History { segments, database, state, begun: 0, end, reader, closed_bytes: 0 }
    }

    /// The next record; `None` when the open stretch has ended.
    fn next(&mut self) -> Result<Option<Record>> {
        loop {
            let Some(end) = self.end else { return self.reader.next() };
            if self.reader.position() < end {
                let record = self.reader.next()?;
                let damaged = || {
                    self.reader.damage(self.reader.position(), "log record is damaged; it had been synced")
                };
                return Ok(Some(record.ok_or_else(damaged)?));
            }
            self.begin_next_stretch();
        }
    }

    fn begin_next_stretch(&mut self) {
        let from = match self.state.log_closed.get(self.begun) {
            Some((start, end)) => {
                let from = (*start).max(self.state.log_start);
                self.end = Some(*end);
                self.closed_bytes += end.saturating_sub(from) * UNIT_BYTES as u64;
                from
            }
            None => {
                self.end = None;
                self.state.log_opened.max(self.state.log_start)
            }
        };
        self.begun += 1;
        self.reader = LogReader::new(self.segments, self.database, from);
    }
}

/// Builds memtables out of records.
///
/// One thread reads, checks and cuts the log into portions. Portions of a long log are written into the memtables'
/// memory by other threads, in the order of the log and each sorted for itself; in the end the lists are built from
/// them from left to right. So no byte of the log is looked at in another order than the one it lies in.
struct Replay<'a> {
    source: &'a MemtableSource<'a>,
    state: &'a ManifestState,
    /// Whether segments of the open stretch are to be synced while they are read.
    sync_early: bool,
    generations: Vec<(Arc<Generation>, Arc<Memtable>)>,
    /// Bytes of payload in the last generation.
    filled: usize,
    pending: Vec<Record>,
    pending_bytes: usize,
    tasks: usize,
}

/// What the threads of a replay share.
#[derive(Default)]
struct Shared {
    /// Portions with their number, by which they are in log order, and the generation that they belong to.
    written: Mutex<Vec<(usize, usize, Result<Portion>)>>,
    /// Bytes of tasks that wait for a thread.
    in_flight: AtomicUsize,
    /// Files that were synced meanwhile.
    synced: Mutex<Vec<(FileNumber, Result<()>)>>,
}

/// A stretch of the log that goes into one memtable.
struct Task {
    number: usize,
    generation: usize,
    memtable: Arc<Memtable>,
    records: Vec<Record>,
    bytes: usize,
}

impl<'a> Replay<'a> {
    /// Replays `history`. Returns the generations, oldest first, and those files of the open stretch, which starts at
    /// the position `opened`, that were synced meanwhile.
    fn run(
        source: &'a MemtableSource<'a>,
        state: &'a ManifestState,
        history: &mut History<'_>,
        opened: u64,
        sync_early: bool,
    ) -> Result<(Vec<Arc<Generation>>, HashSet<FileNumber>)> {
        let generations = Vec::new();
        let mut replay = Replay {
            source,
            state,
            sync_early,
            generations,
            filled: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            tasks: 0,
        };
        let shared = Shared::default();
        let mut pool = None;
        while let Some(record) = history.next()? {
            let Some(task) = replay.add(record)? else { continue };
            shared.write(state, task);
            if source.threads {
                // The log is long enough to be worth threads. One more than there are processors: a sync waits.
                let threads = rayon::current_num_threads() + 1;
                let built = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                let failed =
                    |error| Error::new(ErrorKind::Io, format!("cannot start recovery threads: {error}"));
                let pool = pool.insert(built.map_err(failed)?);
                pool.in_place_scope(|scope| replay.read_on_threads(history, opened, &shared, scope))?;
                break;
            }
        }
        if let Some(task) = replay.cut() {
            shared.write(state, task);
        }

        let mut written = shared.written.into_inner();
        written.sort_unstable_by_key(|(number, ..)| *number);
        let mut portions: Vec<Vec<Portion>> = replay.generations.iter().map(|_| Vec::new()).collect();
        for (_, generation, portion) in written {
            portions[generation].push(portion?);
        }
        let publish = |((_, memtable), portions): (&(Arc<Generation>, Arc<Memtable>), Vec<Portion>)| {
            memtable.publish(portions)
        };
        match &pool {
            Some(pool) => {
                pool.install(|| replay.generations.par_iter().zip(portions).try_for_each(publish))?;
            }
            None => replay.generations.iter().zip(portions).try_for_each(publish)?,
        }
        let mut synced = HashSet::new();
        for (file, result) in shared.synced.into_inner() {
            result?;
            synced.insert(file);
        }
        Ok((replay.generations.into_iter().map(|(generation, _)| generation).collect(), synced))
    }

    /// Reads the rest of the log while other threads write portions, and sync what has to be synced in the end.
    fn read_on_threads<'s, 'h>(
        &mut self,
        history: &mut History<'h>,
        opened: u64,
        shared: &'s Shared,
        scope: &rayon::Scope<'s>,
    ) -> Result<()>
    where
        'a: 's,
        'h: 's,
    {
        if self.sync_early && !planted::is(Bug::RecoveredLogNotSynced) {
            let segments: &'h [FoundSegment] = history.segments;
            // One after the other: a thread that waits for the disk writes no portions.
            scope.spawn(move |_| {
                for segment in segments.iter().filter(|segment| segment.header.end_position() > opened) {
                    let result = segment.file.sync_data();
                    shared.synced.lock().push((segment.number, result));
                }
            });
        }
        let state = self.state;
        while let Some(record) = history.next()? {
            let Some(task) = self.add(record)? else { continue };
            // Relaxed, here and below: a figure that bounds memory, roughly.
            if shared.in_flight.load(Ordering::Relaxed) > IN_FLIGHT_BYTES {
                // The others are behind.
                shared.write(state, task);
                continue;
            }
            let bytes = task.bytes;
            shared.in_flight.fetch_add(bytes, Ordering::Relaxed);
            scope.spawn(move |_| {
                shared.write(state, task);
                shared.in_flight.fetch_sub(bytes, Ordering::Relaxed);
            });
        }
        Ok(())
    }

    /// Takes a record; gives a task when there is enough for one.
    fn add(&mut self, record: Record) -> Result<Option<Task>> {
        if record.kind != RecordKind::Batch {
            return Ok(None);
        }
        if planted::is(Bug::ReplayOffByOne) && record.position <= self.state.log_start {
            return Ok(None);
        }
        // Memtable entries take more room than log records; the size need not be exact.
        let full = self.generations.is_empty() || self.filled >= self.source.memtable_bytes;
        let task = if full { self.cut() } else { None };
        if full {
            let start = if self.generations.is_empty() { self.state.log_start } else { record.position };
            let capacity = keyspace_capacity(self.state.next_keyspace);
            let id = self.generations.len() as u64;
            let memtable = Memtable::new(id, self.source.arenas.take()?, capacity);
            self.generations.push((Generation::new(memtable.clone(), start), memtable));
            self.filled = 0;
        }
        let bytes = record.payload().len();
        self.filled += bytes;
        self.pending_bytes += bytes;
        self.pending.push(record);
        match task {
            None if self.pending_bytes >= PORTION_BYTES => Ok(self.cut()),
            task => Ok(task),
        }
    }

    /// The task of what is pending.
    fn cut(&mut self) -> Option<Task> {
        let (_, memtable) = self.generations.last()?;
        if self.pending.is_empty() {
            return None;
        }
        self.tasks += 1;
        Some(Task {
            number: self.tasks,
            generation: self.generations.len() - 1,
            memtable: memtable.clone(),
            records: std::mem::take(&mut self.pending),
            bytes: std::mem::take(&mut self.pending_bytes),
        })
    }
}

impl Shared {
    /// Writes the operations of a task into the memory of its memtable. Those on a keyspace that was dropped later have
    /// nowhere to go.
    fn write(&self, state: &ManifestState, task: Task) {
        let portion = || -> Result<Portion> {
            let mut portion = Portion::new(&task.memtable);
            for record in &task.records {
                for (i, operation) in Operations::new(record.payload()).enumerate() {
                    if planted::is(Bug::TornBatch) && operation.is_err() {
                        break;
                    }
                    let operation = operation?;
                    // Each has a position of its own; one too many would have that of the next record.
                    if i as u64 >= record_units(record.payload().len()) {
                        let message =
                            format!("the batch at position {} has too many operations", record.position);
                        return Err(Error::new(ErrorKind::Corruption, message));
                    }
                    let (keyspace, key) = (operation.keyspace, operation.key);
                    if planted::is(Bug::ReplaySkipsKeyspace) && keyspace.0 + 1 == state.next_keyspace.max(2) {
                        continue;
                    }
                    if state.keyspaces.contains_key(&keyspace) {
                        let sequence = SequenceNumber(record.position + i as u64);
                        let hash = key_hash(key);
                        portion.add(keyspace, key, hash, sequence, operation.kind, operation.value)?;
                    }
                }
            }
            portion.prepare();
            Ok(portion)
        };
        let portion = portion();
        self.written.lock().push((task.number, task.generation, portion));
    }
}
