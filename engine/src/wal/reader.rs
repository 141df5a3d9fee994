//! Reading the log back: its records, and whether its end is a torn tail or damage.
//!
//! A record is invalid if its header or checksum is wrong. In a *closed* session, which an earlier
//! recovery has synced and measured, that is corruption. In the session that was open when the
//! process or the machine went down, the first invalid record ends the log, unless something proves
//! that the bytes had been synced: a sync mark after it, or a segment header, that names a durable
//! position above it.
use crate::planted;
use crate::wal::commit_ring::LogPoint;
use sapwood_base::format::log_record::{
    Distant, HEADER_BYTES, MARK_PAYLOAD_BYTES, RecordHeader, RecordKind, UNIT_BYTES, parse_header,
    record_units,
};
use sapwood_base::format::log_segment::{DATA_OFFSET, SegmentHeader};
use sapwood_base::memory;
use sapwood_base::{Error, FileNumber, Result};
use sapwood_storage::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// A segment file found on disk. Clones share the handle.
#[derive(Clone)]
pub(crate) struct FoundSegment {
    pub(crate) number: FileNumber,
    pub(crate) header: SegmentHeader,
    pub(crate) file: Arc<dyn File>,
    pub(crate) file_bytes: u64,
}

/// One record of the log. A distant batch is returned as a batch, with the payload that it refers
/// to.
pub(crate) struct Record {
    pub(crate) position: u64,
    /// Number of commits before it.
    pub(crate) commits: u64,
    /// Number of positions that it takes.
    pub(crate) units: u64,
    pub(crate) kind: RecordKind,
    pub(crate) is_distant: bool,
    /// The segment data that holds the payload, with its range; or its own bytes if it crossed
    /// segments.
    payload: Payload,
}

enum Payload {
    Within(Arc<Vec<u8>>, usize, usize),
    Own(Vec<u8>),
}

impl Record {
    /// Its position, with the number of commits before it.
    pub(crate) fn start(&self) -> LogPoint {
        LogPoint { position: self.position, commits: self.commits }
    }

    /// The payload.
    pub(crate) fn payload(&self) -> &[u8] {
        match &self.payload {
            Payload::Within(data, from, to) => &data[*from..*to],
            Payload::Own(bytes) => bytes,
        }
    }
}

/// Bytes read at once: few enough to be parsed while they are in the processor's cache.
const CHUNK_BYTES: usize = 256 << 10;
/// Zeros skipped at once by the search for marks.
const ZEROS_BYTES: usize = 1024;

/// Whole consecutive records in one segment. Their headers are right for their places; their
/// checksums have not been verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// Position of the first one.
    pub(crate) position: u64,
    /// Number of commits before it.
    pub(crate) commits: u64,
    /// Bytes of all of them, at the start of the caller's buffer.
    pub(crate) bytes: usize,
    /// Number of batches among them.
    pub(crate) batches: usize,
}

impl Span {
    /// The position of the first record, with the number of commits before it.
    pub(crate) fn start(&self) -> LogPoint {
        LogPoint { position: self.position, commits: self.commits }
    }
}

/// A part of one segment in memory.
#[derive(Clone)]
struct Chunk {
    position: u64,
    data: Arc<Vec<u8>>,
}

impl Chunk {
    /// The bytes from `position` on, if the chunk holds any.
    fn from(&self, position: u64) -> Option<&[u8]> {
        let units = position.checked_sub(self.position)?;
        let from = usize::try_from(units).ok()?.checked_mul(UNIT_BYTES)?;
        self.data.get(from..).filter(|rest| !rest.is_empty())
    }
}

/// Reads records of the stream from segments.
pub(crate) struct LogReader<'a> {
    /// In order of base position.
    segments: &'a [FoundSegment],
    database: u64,
    position: u64,
    /// Number of commits before `position`.
    commits: u64,
    /// The body whose record may still follow.
    body: Option<u64>,
    loaded: Option<Chunk>,
    /// Buffers of earlier chunks. A buffer that no record refers to any more is reused: fresh
    /// memory costs more than the reading.
    buffers: Vec<Arc<Vec<u8>>>,
}

impl<'a> LogReader<'a> {
    /// A reader at `start`. `segments` are sorted by base position.
    pub(crate) fn new(segments: &'a [FoundSegment], database: u64, start: LogPoint) -> LogReader<'a> {
        let LogPoint { position, commits } = start;
        LogReader { segments, database, position, commits, body: None, loaded: None, buffers: Vec::new() }
    }

    /// Whether the record that a body was written for may still follow. The two belong to one
    /// memtable: the log is recycled by memtables, and the record needs the body. If the writer has
    /// changed memtables, none follows.
    pub(crate) fn is_in_body(&self) -> bool {
        self.body.is_some() && planted::body_and_record_stay_together()
    }

    /// Passes over the record at the present position.
    fn pass(&mut self, header: &RecordHeader) {
        match header.kind {
            RecordKind::Body => self.body = Some(self.position),
            RecordKind::Distant | RecordKind::Rotate => self.body = None,
            _ => {}
        }
        self.position += header.units();
        self.commits = header.commits_after();
    }

    /// The position after the last record that was read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// That position, with the number of commits before it.
    pub(crate) fn point(&self) -> LogPoint {
        LogPoint { position: self.position, commits: self.commits }
    }

    /// File and offset of a position, for messages.
    pub(crate) fn place(&self, position: u64) -> Option<(PathBuf, u64)> {
        let segment = &self.segments[self.find(position)?];
        Some((segment.file.path().to_path_buf(), self.offset_in(segment, position)))
    }

    fn find(&self, position: u64) -> Option<usize> {
        let at = self.segments.partition_point(|segment| segment.header.end_position() <= position);
        (self.segments.get(at)?.header.base_position <= position).then_some(at)
    }

    /// The chunk that holds `position`; `None` if no segment does.
    fn load(&mut self, position: u64) -> Result<Option<Chunk>> {
        if let Some(chunk) = self.loaded.as_ref().filter(|chunk| chunk.from(position).is_some()) {
            return Ok(Some(chunk.clone()));
        }
        self.loaded = None;
        let Some(at) = self.find(position) else { return Ok(None) };
        let segment = &self.segments[at];
        let offset = self.offset_in(segment, position);
        let there = self.readable(segment, offset).min(CHUNK_BYTES);
        if there < UNIT_BYTES {
            return Ok(None);
        }
        let free = self.buffers.iter().position(|buffer| Arc::strong_count(buffer) == 1);
        let mut data = free.map_or_else(Arc::default, |free| self.buffers.swap_remove(free));
        let buffer = Arc::get_mut(&mut data).expect("nobody else holds the buffer");
        memory::resize(buffer, there, 0)?;
        segment.file.read_exact_at(offset, buffer)?;
        self.buffers.push(data.clone());
        let chunk = Chunk { position, data };
        self.loaded = Some(chunk.clone());
        Ok(Some(chunk))
    }

    /// Copies `len` bytes of the stream; `None` if the stream has fewer.
    fn copy(&mut self, mut position: u64, len: usize) -> Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        while out.len() < len {
            let Some(chunk) = self.load(position)? else { return Ok(None) };
            let rest = chunk.from(position).expect("loaded");
            let take = rest.len().min(len - out.len());
            memory::reserve(&mut out, take)?;
            out.extend_from_slice(&rest[..take]);
            position += take.div_ceil(UNIT_BYTES) as u64;
        }
        Ok(Some(out))
    }

    /// The record at `position`, and its header; `None` if there is no valid one.
    fn record_at(&mut self, position: u64) -> Result<Option<(Record, RecordHeader)>> {
        let Some(chunk) = self.load(position)? else { return Ok(None) };
        let from = (position - chunk.position) as usize * UNIT_BYTES;
        let header = match chunk.data[from..].first_chunk::<HEADER_BYTES>() {
            Some(bytes) => parse_header(bytes, position),
            None => match self.copy(position, HEADER_BYTES)? {
                Some(bytes) => parse_header(bytes.first_chunk().expect("a header"), position),
                None => None,
            },
        };
        let Some(header) = header else { return Ok(None) };
        let covered = header.covered_bytes();
        let payload = match chunk.data.get(from..from + covered) {
            Some(bytes) => {
                if !planted::is_whole(header.verify(bytes, self.database, position)) {
                    return Ok(None);
                }
                Payload::Within(chunk.data.clone(), from + HEADER_BYTES, from + covered)
            }
            None => {
                // Before a large allocation: the stream must really reach that far.
                let last = position + (covered.div_ceil(UNIT_BYTES) as u64 - 1);
                if self.find(last).is_none() {
                    return Ok(None);
                }
                let Some(mut bytes) = self.copy(position, covered)? else { return Ok(None) };
                if !header.verify(&bytes, self.database, position) {
                    return Ok(None);
                }
                bytes.drain(..HEADER_BYTES);
                Payload::Own(bytes)
            }
        };
        if !header.is_known() {
            let place = self.place(position);
            let error = header.unknown();
            return Err(place.map_or(error.duplicate(), |(path, offset)| error.at(path, offset)));
        }
        if header.commits != self.commits {
            let (said, read) = (header.commits, self.commits);
            let message = format!("log record follows commit {said}, but {read} commits come before it");
            return Err(self.damage(position, &message));
        }
        let (units, commits) = (header.units(), header.commits);
        let record = Record { position, commits, units, kind: header.kind, is_distant: false, payload };
        let record = match header.kind {
            RecordKind::Distant => self.distant(&record)?,
            _ => Some(record),
        };
        Ok(record.map(|record| (record, header)))
    }

    /// The batch that `record` refers to; `None` if it is not there.
    fn distant(&mut self, record: &Record) -> Result<Option<Record>> {
        let distant = Distant::decode(record.payload(), record.position);
        let Some(distant) = distant.filter(|distant| self.body == Some(distant.body)) else {
            return Ok(None);
        };
        let (from, len) = (distant.body + (HEADER_BYTES / UNIT_BYTES) as u64, distant.payload_bytes as usize);
        // Before a large allocation: the stream must really reach that far.
        if self.find(from + len.div_ceil(UNIT_BYTES).saturating_sub(1) as u64).is_none() {
            return Ok(None);
        }
        let Some(bytes) = self.copy(from, len)? else { return Ok(None) };
        if !distant.verify(&bytes, self.database) {
            return Ok(None);
        }
        let Record { position, commits, units, .. } = *record;
        let payload = Payload::Own(bytes);
        Ok(Some(Record { position, commits, units, kind: RecordKind::Batch, is_distant: true, payload }))
    }

    /// Reads the records that follow, below the position `end`, into `buffer`: as many as lie in it
    /// whole and in one segment, which may be none, up to a distant batch. REQUIRES: the caller
    /// verifies them, and calls [`LogReader::return_to`] if one is not what was written.
    pub(crate) fn span(&mut self, end: u64, buffer: &mut [u8]) -> Result<Span> {
        let LogPoint { position, commits } = self.point();
        let mut span = Span { position, commits, bytes: 0, batches: 0 };
        let Some(at) = self.find(self.position) else { return Ok(span) };
        let segment = &self.segments[at];
        let offset = self.offset_in(segment, self.position);
        let there = self.readable(segment, offset).min(buffer.len());
        segment.file.read_exact_at(offset, &mut buffer[..there])?;
        while self.position < end
            && let Some(bytes) = buffer[span.bytes..there].first_chunk::<HEADER_BYTES>()
            && let Some(header) = parse_header(bytes, self.position)
        {
            let bytes = header.units() as usize * UNIT_BYTES;
            if bytes > there - span.bytes
                || header.kind == RecordKind::Distant
                || !header.is_known()
                || header.commits != self.commits
            {
                break;
            }
            span.batches += usize::from(header.kind == RecordKind::Batch);
            span.bytes += bytes;
            self.pass(&header);
        }
        Ok(span)
    }

    /// Returns to a record that turned out to be invalid.
    pub(crate) fn return_to(&mut self, point: LogPoint) {
        LogPoint { position: self.position, commits: self.commits } = point;
    }

    /// File offset of a position of a segment.
    fn offset_in(&self, segment: &FoundSegment, position: u64) -> u64 {
        DATA_OFFSET as u64 + (position - segment.header.base_position) * UNIT_BYTES as u64
    }

    /// Bytes of the segment from `offset` on. The file's real length bounds reads, whatever the
    /// header says.
    fn readable(&self, segment: &FoundSegment, offset: u64) -> usize {
        let end = DATA_OFFSET as u64 + u64::from(segment.header.data_units) * UNIT_BYTES as u64;
        segment.file_bytes.min(end).saturating_sub(offset) as usize
    }

    /// The next record; `None` at the first place that holds no valid one.
    pub(crate) fn next(&mut self) -> Result<Option<Record>> {
        match self.record_at(self.position)? {
            Some((record, header)) => {
                self.pass(&header);
                Ok(Some(record))
            }
            None => Ok(None),
        }
    }

    /// After [`LogReader::next`] found no record at `position`: whether something proves that there
    /// had been synced bytes. Returns the proof's durable position.
    pub(crate) fn witness_above(&mut self, position: u64) -> Result<Option<u64>> {
        let mut witness = self
            .segments
            .iter()
            .filter(|segment| segment.header.end_position() > position)
            .map(|segment| segment.header.durable_position)
            .max()
            .unwrap_or(0);
        let last = self.segments.last().map_or(0, |segment| segment.header.end_position());
        let mut here = position;
        while here < last {
            let Some(chunk) = self.load(here)? else {
                // A gap between sessions: on to the next segment.
                let next = self
                    .segments
                    .iter()
                    .map(|segment| segment.header.base_position)
                    .find(|base| *base > here);
                let Some(next) = next else { break };
                here = next;
                continue;
            };
            let data = chunk.from(here).expect("loaded");
            let units = (data.len() / UNIT_BYTES) as u64;
            let mut unit = 0;
            while unit < units {
                // Most of the range was never written.
                while data[unit as usize * UNIT_BYTES..].first_chunk() == Some(&[0u8; ZEROS_BYTES]) {
                    unit += ((ZEROS_BYTES - HEADER_BYTES) / UNIT_BYTES) as u64;
                }
                let rest = &data[unit as usize * UNIT_BYTES..];
                // A mark that crosses chunks is examined separately below.
                let Some(bytes) = rest.first_chunk::<HEADER_BYTES>() else { break };
                let at = here + unit;
                unit += 1;
                if let Some(header) = parse_header(bytes, at).filter(is_mark)
                    && header.verify(rest, self.database, at)
                {
                    witness = witness.max(mark_of(&rest[HEADER_BYTES..]));
                }
            }
            for at in (here + units).saturating_sub(record_units(MARK_PAYLOAD_BYTES) - 1)..here + units {
                if let Some(bytes) = self.copy(at, HEADER_BYTES + MARK_PAYLOAD_BYTES)?
                    && let Some(header) =
                        parse_header(bytes.first_chunk().expect("a header"), at).filter(is_mark)
                    && header.verify(&bytes, self.database, at)
                {
                    witness = witness.max(mark_of(&bytes[HEADER_BYTES..]));
                }
            }
            here += units.max(1);
        }
        Ok((witness > position).then_some(witness))
    }

    /// The error for a position that must hold a valid record.
    pub(crate) fn damage(&self, position: u64, message: &str) -> Error {
        match self.place(position) {
            Some((path, offset)) => Error::corruption(path, offset, message),
            None => Error::new(
                sapwood_base::ErrorKind::Corruption,
                format!("{message}: no log segment holds position {position}"),
            ),
        }
    }
}

fn is_mark(header: &RecordHeader) -> bool {
    header.kind == RecordKind::SyncMark && header.payload_bytes as usize == MARK_PAYLOAD_BYTES
}

fn mark_of(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
