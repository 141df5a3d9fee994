//! Opening a database: from its files to a state that takes writes.
//!
//! 1. Read the MANIFEST; check that every table it lists exists with its length.
//! 2. Read the headers of all log segments, and the needed log, in order.
//! 3. Rebuild memtables from the records, as many as the settings allow; check the records after
//!    them.
//! 4. Write a new MANIFEST that closes the last session and starts a new one above every position
//!    that was ever reserved. This is the only commit point: before it nothing is removed or
//!    overwritten, so recovery is idempotent until then, and a crash only leads to the next
//!    attempt. After a clean close the MANIFEST says that already, and is continued: no position at
//!    or above the start of its session was ever reserved.
//! 5. Remove files that nothing refers to.
//! 6. If step 3 has left records, replay these, a few memtables at a time, while the flush makes
//!    room for them (`recovery/spill.rs`). No call can see the database before.
//!
//! The records of the last session may be in the page cache only, as before the crash. They are not
//! synced here. The MANIFEST records the position up to which closed sessions are synced, and the
//! new log syncs them before anything of its own (`Wal::wait_durable`). A tear in one of them ends
//! the log for the next open, even if records of a later session have survived. So an open
//! does not wait for the disk to take the log.
use crate::directory::proof::{Proof, proof};
use crate::manifest::{self, Manifest, ManifestState};
use crate::planted;
use crate::read::view::Generation;
use crate::wal::commit_ring::LogPoint;
use crate::wal::reader::FoundSegment;
use crate::wal::{RetainedSegment, SegmentOptions, SpareFile};
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::log_record::{
    HEADER_BYTES as RECORD_HEADER_BYTES, UNIT_BYTES, claimed_positions, parse_header,
};
use sapwood_base::format::log_segment::{DATA_OFFSET, HEADER_BYTES, SegmentHeader};
use sapwood_base::memory;
use sapwood_base::{Error, ErrorKind, FileNumber, Result, SequenceNumber};
use sapwood_memtable::Memtable;
use sapwood_storage::DatabaseFiles;
use sapwood_storage::fs::{File, OpenMode, is_no_file};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

pub(crate) use replay::MemtableSource;
use replay::{Beyond, History, Replay, Replayed};

mod replay;
mod spill;

/// The first position of a new database. Sequence numbers below stand for "older than everything".
const FIRST_POSITION: u64 = 1 << 10;
/// Numbers of files from here on are never reached.
const FARTHEST_NUMBER: u64 = 1 << 48;
/// No segment is longer; a longer file is not ours.
const LONGEST_SEGMENT: u64 = 1 << 30;
/// Bytes rewritten at a time.
const REWRITE_BYTES: usize = 1 << 20;

/// The state from which the database continues.
pub(crate) struct Recovered {
    pub(crate) database: u64,
    pub(crate) manifest: ManifestState,
    /// Oldest first; at least one.
    pub(crate) generations: Vec<Arc<Generation>>,
    /// Start of the new log.
    pub(crate) base: u64,
    /// Number of commits before it.
    commits: u64,
    pub(crate) retained: Vec<RetainedSegment>,
    /// Log segments that hold no needed record.
    pub(crate) spare_files: Vec<SpareFile>,
    /// Files that nothing refers to.
    pub(crate) orphans: Vec<FileName>,
    /// Bytes of replayed log.
    pub(crate) log_bytes: u64,
    /// Segments to sync before anything of the new log may be called durable, oldest first.
    pub(crate) unsynced: Vec<FoundSegment>,
    /// The positions that may not be synced, if a sync had failed: reads may return bytes that are
    /// in memory only, in pages that the system regards as clean.
    rewrite: Option<(u64, u64)>,
    /// Whether the note of a failed sync exists.
    failed_sync: bool,
    /// The end of the MANIFEST, if it says all that a new one would: the log is empty.
    resumes: Option<manifest::End>,
    /// Whether there was no MANIFEST, or only one of an interrupted creation.
    pub(crate) is_new: bool,
    /// The input of step 6.
    pub(crate) rest: Option<Rest>,
}

/// A range of log, known to be valid, that has no room in memory yet.
pub(crate) struct Rest {
    database: u64,
    from: LogPoint,
    end: u64,
    segments: Vec<FoundSegment>,
}

impl Recovered {
    /// The start of the new log, with the number of commits before it.
    pub(crate) fn begin(&self) -> LogPoint {
        LogPoint { position: self.base, commits: self.commits }
    }

    /// The position below which all log is durable.
    pub(crate) fn durable(&self) -> u64 {
        self.manifest.log_synced.unwrap_or(self.base)
    }
}

/// Steps 1 to 3. Changes nothing on disk.
pub(crate) fn analyze(
    files: &Arc<DatabaseFiles>,
    names: &[FileName],
    new_database: u64,
    source: &MemtableSource<'_>,
) -> Result<Recovered> {
    let (database, mut state, manifest_end) = load_state(files, names, new_database)?;
    let is_new = manifest_end.is_none();
    let log_before = state.log();
    check_tables(files, &state)?;

    let (segments, half_made) = find_segments(files, names, database, &state)?;
    let opened = state.log_opened.max(state.log_start);
    check_log(files, &segments, &state)?;
    let failed_sync = names.contains(&FileName::Unsynced)
        && proof(&*files.fs, &files.directory, FileName::Unsynced, None)? == Proof::Ours;
    let mut history = History::new(&segments, database, &state);
    let replayed = Replay::run(source, &state, &mut history, Beyond::Checked);
    let in_directory = |error: Error| match error.file() {
        Some(_) => error,
        None => error.in_file(&files.directory),
    };
    let Replayed { mut generations, end, witness, rest } = replayed.map_err(in_directory)?;
    let log_end = end.position;
    let reader = &history.reader;
    if let Some(durable) = witness.filter(|_| planted::damage_is_an_error()) {
        let message = format!(
            "log record is damaged; the log had been synced up to position {durable}, this is position {log_end}"
        );
        return Err(reader.damage(log_end, &message));
    }
    let base = next_base(&segments, &state, opened, log_end);
    if generations.is_empty() {
        let memtable = Memtable::starting_at(SequenceNumber(base), 0, source.arenas.take()?);
        let start = LogPoint { position: state.log_start.min(base), commits: state.log_commits };
        generations.push(Generation::new(memtable, start));
    }

    let log_bytes = close_log(&mut state, opened, end);
    let log_start = state.log_start;
    state.forget_log();
    let rewrite = state.log_synced.filter(|_| failed_sync).map(|synced| (synced, log_end));
    state.log_opened = planted::start_of_new_log(base, opened);
    let needed = |segment: &FoundSegment| {
        let (from, to) = (segment.header.base_position, segment.header.end_position());
        state.closed_sessions.iter().any(|(start, end)| from < *end && to > (*start).max(log_start))
    };
    let holds_rest =
        |segment: &&FoundSegment, rest: u64| segment.header.end_position() > rest && needed(segment);
    let rest = rest.map(|from| Rest {
        database,
        from,
        end: log_end,
        segments: segments.iter().filter(|segment| holds_rest(segment, from.position)).cloned().collect(),
    });
    let mut retained = Vec::new();
    let mut unsynced = Vec::new();
    let mut spare_files = Vec::new();
    for segment in segments {
        if !needed(&segment) {
            spare_files.push(SpareFile { file: segment.number, bytes: segment.file_bytes });
            continue;
        }
        retained.push(RetainedSegment {
            file: segment.number,
            end_position: segment.header.end_position(),
            file_bytes: segment.file_bytes,
        });
        if state.log_synced.is_some_and(|synced| segment.header.end_position() > synced) {
            unsynced.push(segment);
        }
    }
    let orphans = orphans(names, &state, &half_made);
    let is_same = planted::is_same_log(state.log() == log_before) && !failed_sync;
    let resumes = manifest_end.flatten().filter(|_| is_same);
    Ok(Recovered {
        database,
        manifest: state,
        generations,
        base,
        commits: end.commits,
        retained,
        spare_files,
        orphans,
        log_bytes,
        unsynced,
        rewrite,
        failed_sync,
        resumes,
        is_new,
        rest,
    })
}

/// The number of the database, the state of its MANIFEST, and the end of that. The latter is `None`
/// if there is no MANIFEST, `Some(None)` if it must be replaced.
fn load_state(
    files: &Arc<DatabaseFiles>,
    names: &[FileName],
    new_database: u64,
) -> Result<(u64, ManifestState, Option<Option<manifest::End>>)> {
    let loaded = manifest::load(files, names)?;
    let is_new = loaded.is_none();
    let (database, mut state, end) = match loaded {
        Some(loaded) => (loaded.database, loaded.state, Some(loaded.end)),
        None => {
            let state =
                ManifestState { log_start: FIRST_POSITION, log_opened: FIRST_POSITION, ..Default::default() };
            (new_database, state, None)
        }
    };
    // Relaxed, both: no other thread has the files yet.
    files.database.store(database, Ordering::Relaxed);
    // Includes numbers of foreign files: they stay, and no two files may have the same number. A
    // number that counting never reaches is ignored.
    let numbers = names.iter().filter_map(|name| name.number()).map(|number| number.0);
    let highest = numbers.filter(|number| *number < FARTHEST_NUMBER).max();
    let highest = highest.filter(|_| planted::all_numbers_count() || is_new);
    let next_file = state.next_file.max(highest.map_or(1, |highest| highest + 1));
    // A number that stands only in the name of a file must be recorded before the file is removed.
    let is_recorded = next_file == state.next_file;
    state.next_file = next_file;
    files.next_file.store(state.next_file, Ordering::Relaxed);
    Ok((database, state, end.map(|end| end.filter(|_| is_recorded))))
}

/// The start of the new log: above every position that may have been reserved, including those
/// whose records a crash has lost.
fn next_base(segments: &[FoundSegment], state: &ManifestState, opened: u64, log_end: u64) -> u64 {
    let base = segments
        .iter()
        .map(|segment| segment.header.end_position())
        .chain(state.closed_sessions.iter().map(|(_, end)| *end))
        .chain(state.keyspaces.values().map(|entry| entry.version.max_sequence().0 + 1))
        .chain(state.indexes().map(|index| index.state.built_sequence().0 + 1))
        .chain([log_end, state.log_opened, FIRST_POSITION])
        .max()
        .expect("not empty");
    planted::next_base(base, log_end, FIRST_POSITION, log_end == opened)
}

/// Closes the open session of the log, which began at `opened`, at the end that was found. Returns
/// the bytes of needed log.
fn close_log(state: &mut ManifestState, opened: u64, end: LogPoint) -> u64 {
    let log_end = end.position;
    let surely_synced = state.log_surely_synced();
    // After a tear in an earlier session nothing is valid, including later sessions.
    state.closed_sessions.retain(|(start, _)| *start < log_end);
    if let Some((_, end)) = state.closed_sessions.last_mut() {
        *end = log_end.min(*end);
    }
    if log_end > opened {
        state.closed_sessions.push((opened, log_end));
    }
    let needed =
        state.closed_sessions.iter().map(|(start, end)| end.saturating_sub(*start.max(&state.log_start)));
    let bytes = needed.sum::<u64>() * UNIT_BYTES as u64;
    state.log_synced = Some(surely_synced).filter(|_| planted::replayed_log_is_unsynced());
    let kept = planted::start_of_kept_log(state.log_start_point(), end);
    LogPoint { position: state.log_start, commits: state.log_commits } = kept;
    bytes
}

/// The files that nothing refers to; `half_made` are segments of interrupted creations.
fn orphans(names: &[FileName], state: &ManifestState, half_made: &HashSet<FileNumber>) -> Vec<FileName> {
    let live: HashSet<FileNumber> = state
        .keyspaces
        .values()
        .flat_map(|entry| entry.version.tables())
        .map(|table| table.handle.file())
        .skip(planted::live_tables_to_sweep())
        .collect();
    let live_trees: HashSet<FileNumber> =
        state.indexes().filter_map(|index| Some(index.tree.as_ref()?.file.number)).collect();
    let is_orphan = |name: &FileName| match name {
        FileName::Table(number) => !live.contains(number),
        FileName::Tree(number) => !live_trees.contains(number),
        FileName::Log(number) => half_made.contains(number),
        FileName::Unfinished(..) => true,
        _ => false,
    };
    names.iter().copied().filter(is_orphan).collect()
}

/// Step 4.
pub(crate) fn commit(files: &Arc<DatabaseFiles>, recovered: &mut Recovered) -> Result<Manifest> {
    if let Some((from, to)) = recovered.rewrite {
        for segment in recovered.unsynced.drain(..) {
            rewrite(files, &segment, from, to)?;
            segment.file.sync_data()?;
        }
        recovered.manifest.log_synced = None;
    }
    if let Some(end) = &recovered.resumes
        && let Some(manifest) = Manifest::resume(files, recovered.database, &recovered.manifest, end)?
    {
        return Ok(manifest);
    }
    let manifest = Manifest::create(files, recovered.database, recovered.manifest.clone())?;
    if recovered.failed_sync {
        // If it stays, the next open rewrites its log without need.
        let _ = files.fs.remove_file(&files.directory.join(FileName::Unsynced.format()));
    }
    Ok(manifest)
}

/// Rewrites the positions `from..to` of a segment with the bytes that reads return, so that the
/// next sync takes them to the disk. After a failed sync Linux keeps the pages and marks them
/// clean: a second sync succeeds and does nothing (Rebello et al., "Can applications recover from
/// fsync failures?", 2020). In place: any state that a crash leaves existed before.
fn rewrite(files: &Arc<DatabaseFiles>, segment: &FoundSegment, from: u64, to: u64) -> Result<()> {
    let file = files.fs.open(segment.file.path(), OpenMode::ReadWrite)?;
    let base = segment.header.base_position;
    let place = |position: u64| {
        DATA_OFFSET as u64 + (position.clamp(base, segment.header.end_position()) - base) * UNIT_BYTES as u64
    };
    // Includes the header: it was written and synced when the segment was begun, but by the same
    // device.
    let mut offset = if from <= base { 0 } else { place(from) };
    let end = place(to).min(segment.file_bytes);
    let mut buffer = memory::filled(0, REWRITE_BYTES)?;
    while offset < end {
        let len = (end - offset).min(REWRITE_BYTES as u64) as usize;
        segment.file.read_exact_at(offset, &mut buffer[..len])?;
        file.write_at(offset, &buffer[..len])?;
        offset += len as u64;
    }
    Ok(())
}

/// Step 5. The next open retries files that cannot be removed.
pub(crate) fn sweep(files: &Arc<DatabaseFiles>, recovered: &mut Recovered, segments: SegmentOptions) {
    for orphan in recovered.orphans.drain(..) {
        // A name is no proof: a file that cannot be read is left alone as well.
        let is_ours = match proof(&*files.fs, &files.directory, orphan, Some(recovered.database)) {
            Ok(proof) => proof != Proof::Foreign,
            Err(_) => false,
        };
        if !is_ours && planted::sweep_needs_proof() {
            continue;
        }
        let _ = files.fs.remove_file(&files.directory.join(orphan.format()));
    }
    let mut kept = recovered.retained.len();
    let mut has_first = false;
    recovered.spare_files.retain(|spare| {
        if spare.bytes == segments.bytes as u64 && kept < segments.kept {
            kept += 1;
            return true;
        }
        if spare.bytes == segments.first_bytes as u64 && !std::mem::replace(&mut has_first, true) {
            return true;
        }
        let _ = files.fs.remove_file(&files.directory.join(FileName::Log(spare.file).format()));
        false
    });
}

impl Rest {
    /// The next generations of step 6, oldest first: as many as `source` allows, at least one.
    /// `None` at the end.
    pub(crate) fn replay(
        &mut self,
        source: &MemtableSource<'_>,
        mut state: ManifestState,
    ) -> Result<Option<Vec<Arc<Generation>>>> {
        if self.from.position >= self.end || !planted::replays_rest() {
            return Ok(None);
        }
        LogPoint { position: state.log_start, commits: state.log_commits } = self.from;
        let mut history = History::new(&self.segments, self.database, &state);
        let replayed = Replay::run(source, &state, &mut history, Beyond::Unread)?;
        if replayed.rest.is_none() && replayed.end.position < self.end {
            let message = "log record was another one when it was read again; open the database again";
            return Err(history.reader.damage(replayed.end.position, message));
        }
        self.from = replayed.rest.unwrap_or(replayed.end);
        Ok(Some(replayed.generations))
    }
}

fn check_tables(files: &Arc<DatabaseFiles>, state: &ManifestState) -> Result<()> {
    for tree in state.indexes().filter_map(|index| index.tree.as_ref()) {
        let path = files.path(FileName::Tree(tree.file.number));
        if !files.fs.exists(&path)? {
            return Err(Error::corruption(&path, 0, "tree of an index is missing"));
        }
        let (len, least) = (files.fs.file_len(&path)?, tree.root.file_bytes());
        if len < least {
            let message = format!("tree of an index has {len} bytes, its root says at least {least}");
            return Err(Error::corruption(&path, len, message));
        }
    }
    for entry in state.keyspaces.values() {
        for table in entry.version.tables() {
            let path = files.table_path(table.handle.file());
            let wanted = table.handle.file_bytes();
            if !files.fs.exists(&path)? {
                return Err(Error::corruption(&path, 0, "table is missing"));
            }
            let len = files.fs.file_len(&path)?;
            if len != wanted {
                let message = format!("table has {len} bytes, the MANIFEST says {wanted}");
                return Err(Error::corruption(&path, len.min(wanted), message));
            }
        }
    }
    Ok(())
}

/// The segments that hold log of this database, in order, and the files of interrupted
/// creations.
///
/// A file gets its header after it was synced with its full length, and its name after that. So a
/// file with a header of its own exists as a whole, whatever a power loss takes, and can be reused.
/// Of a file without a header it is unknown how much the disk has, even if it looks complete: that
/// may be in memory only. It is not reused, because a sync of its new header alone would not make
/// the rest durable.
fn find_segments(
    files: &Arc<DatabaseFiles>,
    names: &[FileName],
    database: u64,
    state: &ManifestState,
) -> Result<(Vec<FoundSegment>, HashSet<FileNumber>)> {
    let mut segments = Vec::new();
    let mut half_made = HashSet::new();
    let mut suspects = Vec::new();
    for name in names {
        let FileName::Log(number) = *name else { continue };
        let path = files.directory.join(name.format());
        let file = match files.fs.open(&path, OpenMode::Read) {
            Err(error) if is_no_file(&error) => continue,
            file => file?,
        };
        let file_bytes = file.len()?;
        if file_bytes < DATA_OFFSET as u64 {
            half_made.insert(number);
            continue;
        }
        if file_bytes > LONGEST_SEGMENT {
            continue;
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(0, &mut header)?;
        match SegmentHeader::decode(&header) {
            // A new file may show the blocks of a removed one: a right header, in the wrong place.
            Ok(Some(header)) if header.file_number != number.0 && planted::headers_name_their_file() => {
                let message = format!("the header of the log segment is that of file {}", header.file_number);
                suspects.push((number, file, file_bytes, Error::new(ErrorKind::Corruption, message)));
            }
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
                segments.push(FoundSegment { number, header, file: file.into(), file_bytes });
            }
            Ok(None) if has_data(&*file, file_bytes)? => {
                let error = Error::new(ErrorKind::Corruption, "the header of the log segment is gone");
                suspects.push((number, file, file_bytes, error));
            }
            Ok(_) => drop(half_made.insert(number)),
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(error.at(&path, 0)),
            Err(error) => suspects.push((number, file, file_bytes, error)),
        }
    }
    segments.sort_by_key(|segment| segment.header.base_position);
    // A file of an interrupted creation may hold anything. But a file with needed records is a
    // segment whose header is damaged.
    for (number, file, file_bytes, error) in suspects {
        let mut data = memory::filled(0, (file_bytes - DATA_OFFSET as u64) as usize)?;
        file.read_exact_at(DATA_OFFSET as u64, &mut data)?;
        if holds_records(&data, database, state) {
            return Err(error.at(file.path(), 0));
        }
        half_made.insert(number);
    }
    Ok((segments, half_made))
}

/// Checks that no segment that is known to have been created is missing.
///
/// Segments are created in order, each durable before the next, and removed only below `log_start`.
/// So those of the open session exist without a gap up to the last one, and those of a closed
/// session up to its end.
fn check_log(files: &DatabaseFiles, segments: &[FoundSegment], state: &ManifestState) -> Result<()> {
    let last = segments.last().map_or(0, |segment| segment.header.base_position);
    for (from, end) in state.closed_sessions.iter().copied().chain([(state.log_opened, last)]) {
        let mut at = from.max(state.log_start);
        let mut later = None;
        for segment in segments {
            if segment.header.base_position > at {
                later = Some(segment.file.path());
                break;
            }
            at = at.max(segment.header.end_position());
        }
        if at < end {
            let message = format!(
                "a log segment is missing: no file holds position {at}, and the log went up to {end}"
            );
            return Err(Error::corruption(later.unwrap_or(&files.directory), 0, message));
        }
    }
    Ok(())
}

/// Whether there is any data at the place of the first record of a segment.
fn has_data(file: &dyn File, file_bytes: u64) -> Result<bool> {
    let mut start = [0; RECORD_HEADER_BYTES];
    if file_bytes < (DATA_OFFSET + start.len()) as u64 {
        return Ok(false);
    }
    file.read_exact_at(DATA_OFFSET as u64, &mut start)?;
    Ok(start.iter().any(|byte| *byte != 0))
}

/// Whether `data` contains a valid record that is needed.
///
/// Not every record at or above the log's start is needed: those after the torn end of an earlier
/// log were discarded. Files with such records are removed like others, and new files may show
/// their blocks.
fn holds_records(data: &[u8], database: u64, state: &ManifestState) -> bool {
    (0..data.len() / UNIT_BYTES).map(|unit| &data[unit * UNIT_BYTES..]).any(|record| {
        let Some(header) = record.first_chunk::<RECORD_HEADER_BYTES>() else { return false };
        claimed_positions(header, state.log_start).into_iter().any(|position| {
            state.needs_log_at(position)
                && parse_header(header, position)
                    .is_some_and(|header| header.verify(record, database, position))
        })
    })
}
