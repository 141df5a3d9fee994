//! The log: headers of segments, streams of records, and histories with holes and flips.
//!
//! An input of [`wal_reader`] is a byte with the start (in units above the first segment), then
//! segments: two bytes of length, the header, and that many bytes of data. So a segment is stored
//! without the 4096 bytes in front of its data. Segments of other databases are ignored, as in
//! recovery.
use super::DATABASE;
use super::allocation::decoding;
use super::bytes::Bytes;
use super::memory::MemoryFile;
use sapwood::fuzzing::{LogOutcome, read_log};
use sapwood_base::format::log_record::{
    self, Distant, HEADER_BYTES, RecordKind, RecordPlace, UNIT_BYTES, record_units,
};
use sapwood_base::format::log_segment::{self, DATA_OFFSET, SegmentHeader};
use sapwood_storage::fs::File;
use std::ops::Range;

/// Decodes the input as the header of a segment.
pub fn log_segment(data: &[u8]) {
    let Some(bytes) = data.first_chunk::<{ log_segment::HEADER_BYTES }>() else { return };
    let Ok(decoded) = SegmentHeader::decode(bytes) else { return };
    match decoded {
        None => assert!(bytes.iter().all(|byte| *byte == 0)),
        Some(header) => {
            // Fields of later releases are passed over.
            let again = header.encode();
            let has_fields = bytes[48..52] != [0; 4];
            assert!(again == *bytes || has_fields, "a header has one encoding");
            assert_eq!(SegmentHeader::decode(&again).expect("an encoding"), Some(header));
            assert!(header.end_position() <= 1 << 57, "positions have 57 bits");
        }
    }
}

/// The parts of an input of [`wal_reader`]: the places of headers, and the data after each.
pub fn segments(data: &[u8]) -> Vec<(usize, usize, usize)> {
    let mut found = Vec::new();
    let mut at = 1;
    while at + 2 + log_segment::HEADER_BYTES <= data.len() && found.len() < 8 {
        let len = usize::from(u16::from_le_bytes([data[at], data[at + 1]]));
        let header = at + 2;
        let body = header + log_segment::HEADER_BYTES;
        let end = (body + len).min(data.len());
        found.push((header, body, end));
        at = end;
    }
    found
}

/// Reads the input as a log.
pub fn wal_reader(data: &[u8]) {
    let mut files: Vec<(SegmentHeader, Box<dyn File>)> = Vec::new();
    for (header, body, end) in segments(data) {
        let bytes = data[header..body].first_chunk().expect("a whole header");
        let Ok(Some(decoded)) = SegmentHeader::decode(bytes) else { continue };
        if decoded.database == DATABASE {
            let file = MemoryFile::with_hole("000001.wal", bytes, DATA_OFFSET, &data[body..end]);
            files.push((decoded, Box::new(file)));
        }
    }
    let Some(first) = files.iter().map(|(header, _)| header.base_position).min() else { return };
    let from = first.saturating_add(u64::from(data[0]));
    let mut position = from;
    let mut bytes = 0;
    let outcome = read_log(files, DATABASE, from, |at, kind, payload| {
        // Of a skipped range only the header is there, so the next record may be anywhere above. A
        // payload may precede its record, and is longer than a header then.
        assert!(at >= position, "records follow each other");
        assert!(!kind.is_header_alone() || payload.is_empty(), "a skipped range has no payload");
        position = at + record_units(0);
        bytes += payload.len();
    });
    // A segment may be shorter than its header states.
    let Ok(outcome) = outcome else { return };
    assert!(
        outcome.witness.is_none_or(|durable| durable > outcome.end),
        "a witness refers to missing records"
    );
    assert!(bytes <= data.len(), "a record is read once");
}

/// The most segments of a history, or one fewer. Each is a file, and takes longer than many
/// records.
const SEGMENTS_MAX: usize = 12;

/// One record of a history, as it is read back.
struct Written {
    position: u64,
    kind: RecordKind,
    payload: Vec<u8>,
    /// The parts of the stream under its checksum, its header first.
    covered: Vec<Range<usize>>,
}

/// Writes records that the input describes to segments, damages some bytes, and reads. The reader
/// returns the longest whole prefix, and distinguishes damage below a sync from a torn end.
pub fn wal_roundtrip(data: &[u8]) {
    let mut input = Bytes::new(data);
    let base = 1024 + (input.u64() & 0xFF_FFFF_FFFF);
    let segment_units = 8 + u32::from(input.u8());
    let damages = usize::from(input.u8() % 4);
    let damage: Vec<(u8, u16, u8)> = (0..damages).map(|_| (input.u8(), input.u16(), input.u8())).collect();

    let mut stream: Vec<u8> = Vec::new();
    let mut written: Vec<Written> = Vec::new();
    // The last body without its record: its place and content.
    let mut body: Option<(u64, Vec<u8>)> = None;
    let mut commits = base.wrapping_mul(3) >> 7;
    while !input.is_empty() && written.len() < 64 {
        let position = base + (stream.len() / UNIT_BYTES) as u64;
        let choice = input.u8();
        let (kind, mut payload) = match choice % 8 {
            0 => (RecordKind::Rotate, Vec::new()),
            1 => (RecordKind::SyncMark, position.to_le_bytes().to_vec()),
            // A mark beyond the end of the log.
            2 => (RecordKind::SyncMark, (position + u64::from(input.u8())).to_le_bytes().to_vec()),
            3 => (RecordKind::Skip, vec![0; usize::from(input.u8())]),
            4 => (RecordKind::Body, input.value()),
            5 if body.is_some() => (RecordKind::Distant, Vec::new()),
            _ => (RecordKind::Batch, input.value()),
        };
        let place = RecordPlace { database: DATABASE, position, commits };
        commits += u64::from(kind.is_commit());
        let start = stream.len();
        let header = start..start + HEADER_BYTES;
        let mut covered = vec![header];
        stream.resize(start + HEADER_BYTES, 0);
        let mut comes_as = kind;
        if kind.is_header_alone() {
            log_record::seal_at(&mut stream[start..], payload.len() as u32, &place, kind, 3);
            stream.extend_from_slice(&payload);
            stream.resize(start + record_units(payload.len()) as usize * UNIT_BYTES, choice);
        } else {
            let apart = body.take_if(|_| kind == RecordKind::Distant);
            match &apart {
                Some((at, bytes)) => stream.extend(Distant::new(bytes, DATABASE, *at).encode()),
                None => stream.extend_from_slice(&payload),
            }
            let len = stream.len() - start - HEADER_BYTES;
            covered.push(start + HEADER_BYTES..stream.len());
            log_record::seal_at(&mut stream[start..], len as u32, &place, kind, 1);
            stream.resize(stream.len().next_multiple_of(UNIT_BYTES), 0);
            if let Some((at, bytes)) = apart {
                let from = (at - base) as usize * UNIT_BYTES + HEADER_BYTES;
                covered.push(from..from + bytes.len());
                (comes_as, payload) = (RecordKind::Batch, bytes);
            }
        }
        match kind {
            RecordKind::Body => body = Some((position, payload.clone())),
            RecordKind::Rotate => body = None,
            _ => {}
        }
        written.push(Written { position, kind: comes_as, payload, covered });
    }
    let end = base + (stream.len() / UNIT_BYTES) as u64;
    let intact = stream.clone();
    for (what, at, mask) in damage {
        if stream.is_empty() {
            break;
        }
        let at = usize::from(at) % stream.len();
        match what % 3 {
            0 => stream[at] ^= mask,
            1 => stream[at..].fill(0),
            _ => {
                let from = at / 512 * 512;
                let to = (from + 512).min(stream.len());
                stream[from..to].fill(mask);
            }
        }
    }
    // Many segments take long, and find no more than a dozen.
    let segment_units = segment_units.max((stream.len() / UNIT_BYTES / SEGMENTS_MAX) as u32);
    // A few zeros after the end, as in a segment that is not full.
    let unit_bytes = segment_units as usize * UNIT_BYTES;
    let whole = (stream.len() + 1).next_multiple_of(unit_bytes);
    let used = stream.len();
    stream.resize(whole, 0);
    let files = stream.chunks(unit_bytes).enumerate().map(|(i, chunk)| {
        let header = SegmentHeader {
            data_units: segment_units,
            base_position: base + i as u64 * u64::from(segment_units),
            database: DATABASE,
            file_number: i as u64 + 1,
            durable_position: 0,
        };
        let file = MemoryFile::with_hole("000001.wal", &header.encode(), DATA_OFFSET, chunk);
        (header, Box::new(file) as Box<dyn File>)
    });
    let files: Vec<_> = files.collect();

    // The model: a record is whole if no byte under its checksum has changed.
    let is_whole =
        |record: &Written| record.covered.iter().all(|range| stream[range.clone()] == intact[range.clone()]);
    let broken = written.iter().position(|record| !is_whole(record));
    let wanted_end = broken.map_or(end, |broken| written[broken].position);
    let mut expected = written[..broken.unwrap_or(written.len())].iter();
    let len = stream.len() + files.len() * log_segment::HEADER_BYTES;
    let outcome = decoding("wal_roundtrip", len, || {
        read_log(files, DATABASE, base, |position, kind, payload| {
            let want = expected.next().expect("only written records, and none after a broken one");
            assert_eq!((position, kind), (want.position, want.kind));
            assert!(
                if kind.is_header_alone() { payload.is_empty() } else { payload == want.payload },
                "payloads are read back"
            );
        })
    });
    assert!(expected.next().is_none(), "every record of the whole prefix is read back");
    let marks = written[broken.unwrap_or(written.len())..].iter();
    let witness = marks
        .filter(|record| record.kind == RecordKind::SyncMark && is_whole(record))
        .map(|record| u64::from_le_bytes(record.payload[..].try_into().expect("eight bytes")))
        .max()
        .filter(|durable| *durable > wanted_end);
    let wanted = LogOutcome { end: wanted_end, witness };
    assert_eq!(outcome.expect("reading from memory"), wanted, "{used} bytes used");
}
