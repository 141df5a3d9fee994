//! Reading the log back: which records are there, and whether its end is a torn tail or damage.
//!
//! A record is invalid when its header or checksum is wrong. In a *closed* stretch, which an earlier recovery has
//! synced and measured, that is corruption. In the stretch that was open when the process or the machine went down,
//! the first invalid record ends the log, unless something proves that the bytes had been synced: a sync mark behind
//! it, or a segment header, that names a durable position above it.
use sapwood_base::format::log_record::{
    HEADER_BYTES, MAX_PAYLOAD_BYTES, RecordHeader, RecordKind, UNIT_BYTES, parse_header,
};
use sapwood_base::format::log_segment::{DATA_OFFSET, SegmentHeader};
use sapwood_base::{Error, FileNumber, Result};
use sapwood_storage::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// A segment file found on disk.
pub(crate) struct FoundSegment {
    pub(crate) number: FileNumber,
    pub(crate) header: SegmentHeader,
    pub(crate) file: Box<dyn File>,
    pub(crate) file_bytes: u64,
}

/// One record of the log.
pub(crate) struct Record {
    pub(crate) position: u64,
    pub(crate) kind: RecordKind,
    /// Which segment data the payload lies in, and where; or its own bytes if it crossed segments.
    payload: Payload,
}

enum Payload {
    Within(Arc<Vec<u8>>, usize, usize),
    Own(Vec<u8>),
}

impl Record {
    /// The payload.
    pub(crate) fn payload(&self) -> &[u8] {
        match &self.payload {
            Payload::Within(data, from, to) => &data[*from..*to],
            Payload::Own(bytes) => bytes,
        }
    }
}

/// Reads records of the stream from segments.
pub(crate) struct LogReader<'a> {
    /// In order of base position.
    segments: &'a [FoundSegment],
    database: u64,
    position: u64,
    loaded: Option<(usize, Arc<Vec<u8>>)>,
}

impl<'a> LogReader<'a> {
    /// A reader at `position`. `segments` are sorted by base position.
    pub(crate) fn new(segments: &'a [FoundSegment], database: u64, position: u64) -> LogReader<'a> {
        LogReader { segments, database, position, loaded: None }
    }

    /// The position after the last record that was read.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// File and offset of a position, for messages.
    pub(crate) fn place(&self, position: u64) -> Option<(PathBuf, u64)> {
        let segment = &self.segments[self.find(position)?];
        let offset = DATA_OFFSET as u64 + (position - segment.header.base_position) * UNIT_BYTES as u64;
        Some((segment.file.path().to_path_buf(), offset))
    }

    fn find(&self, position: u64) -> Option<usize> {
        let at = self.segments.partition_point(|segment| segment.header.end_position() <= position);
        (self.segments.get(at)?.header.base_position <= position).then_some(at)
    }

    fn load(&mut self, at: usize) -> Result<Arc<Vec<u8>>> {
        if let Some((loaded, data)) = &self.loaded
            && *loaded == at
        {
            return Ok(data.clone());
        }
        let segment = &self.segments[at];
        // The file's real length bounds the allocation, whatever the header says.
        let wanted = u64::from(segment.header.data_units) * UNIT_BYTES as u64;
        let there = segment.file_bytes.saturating_sub(DATA_OFFSET as u64).min(wanted);
        let mut data = vec![0; there as usize];
        segment.file.read_exact_at(DATA_OFFSET as u64, &mut data)?;
        let data = Arc::new(data);
        self.loaded = Some((at, data.clone()));
        Ok(data)
    }

    /// Copies `len` bytes of the stream; `None` if the stream has fewer.
    fn copy(&mut self, mut position: u64, len: usize) -> Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        while out.len() < len {
            let Some(at) = self.find(position) else { return Ok(None) };
            let data = self.load(at)?;
            let from = (position - self.segments[at].header.base_position) as usize * UNIT_BYTES;
            let Some(rest) = data.get(from..).filter(|rest| !rest.is_empty()) else { return Ok(None) };
            let take = rest.len().min(len - out.len());
            out.extend_from_slice(&rest[..take]);
            position = self.segments[at].header.end_position();
        }
        Ok(Some(out))
    }

    fn header_at(&mut self, position: u64) -> Result<Option<RecordHeader>> {
        let Some(bytes) = self.copy(position, HEADER_BYTES)? else { return Ok(None) };
        Ok(parse_header(bytes.first_chunk().expect("sixteen bytes"), position))
    }

    /// The record at `position`; `None` if there is no valid one.
    fn record_at(&mut self, position: u64) -> Result<Option<(Record, u64)>> {
        let Some(at) = self.find(position) else { return Ok(None) };
        let data = self.load(at)?;
        let from = (position - self.segments[at].header.base_position) as usize * UNIT_BYTES;
        let header = match data.get(from..).and_then(|rest| rest.first_chunk::<HEADER_BYTES>()) {
            Some(bytes) => parse_header(bytes, position),
            None => self.header_at(position)?,
        };
        let Some(header) = header else { return Ok(None) };
        debug_assert!(header.payload_bytes as usize <= MAX_PAYLOAD_BYTES);
        let covered = header.covered_bytes();
        let payload = match data.get(from..from + covered) {
            Some(bytes) => {
                if !header.verify(bytes, self.database, position) {
                    return Ok(None);
                }
                Payload::Within(data.clone(), from + HEADER_BYTES, from + covered)
            }
            None => {
                // Before a large allocation: the stream must really reach that far.
                let last = position + header.units() - 1;
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
        Ok(Some((Record { position, kind: header.kind, payload }, position + header.units())))
    }

    /// The next record; `None` at the first place that holds no valid one.
    pub(crate) fn next(&mut self) -> Result<Option<Record>> {
        match self.record_at(self.position)? {
            Some((record, next)) => {
                self.position = next;
                Ok(Some(record))
            }
            None => Ok(None),
        }
    }

    /// After [`LogReader::next`] found no record at `position`: whether something proves that there had been synced
    /// bytes. Returns the proof's durable position.
    pub(crate) fn witness_above(&mut self, position: u64) -> Result<Option<u64>> {
        let mut witness = self
            .segments
            .iter()
            .filter(|segment| segment.header.end_position() > position)
            .map(|segment| segment.header.durable_position)
            .max()
            .unwrap_or(0);
        let first = self.segments.partition_point(|segment| segment.header.end_position() <= position);
        for at in first..self.segments.len() {
            let base = self.segments[at].header.base_position;
            let data = self.load(at)?;
            let start = (position.max(base) - base) as usize * UNIT_BYTES;
            let mut from = start;
            while let Some(bytes) = data.get(from..).and_then(|rest| rest.first_chunk::<HEADER_BYTES>()) {
                let here = base + (from / UNIT_BYTES) as u64;
                from += UNIT_BYTES;
                let Some(header) = parse_header(bytes, here) else { continue };
                if header.kind != RecordKind::SyncMark || header.payload_bytes != 8 {
                    continue;
                }
                let record = &data[from - UNIT_BYTES..];
                if header.verify(record, self.database, here)
                    && let Some(mark) = record.get(HEADER_BYTES..HEADER_BYTES + 8)
                {
                    witness = witness.max(u64::from_le_bytes(mark.try_into().expect("eight bytes")));
                }
            }
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
