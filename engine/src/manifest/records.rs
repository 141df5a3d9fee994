//! The records of a MANIFEST: an edit or a sync mark each, sealed for one file and one offset.
use sapwood_base::FileNumber;
use sapwood_base::format::log_record::{self, HEADER_BYTES as RECORD_HEADER_BYTES, RecordKind, UNIT_BYTES};
use sapwood_base::format::manifest::{self as format, Edit};

pub(super) fn position_of(offset: u64) -> u64 {
    offset / UNIT_BYTES as u64
}

/// The seed of the records of a MANIFEST, in place of the database alone. After a crash, unwritten
/// blocks of a new file may hold those of a removed file: records of an older MANIFEST must not
/// validate there.
pub(crate) fn owner(database: u64, number: FileNumber) -> u64 {
    database.wrapping_add(number.0)
}

pub(crate) fn encode_record(edits: &[Edit], owner: u64, offset: u64) -> Vec<u8> {
    let mut record = vec![0; RECORD_HEADER_BYTES];
    record.extend(format::encode(edits));
    let payload = (record.len() - RECORD_HEADER_BYTES) as u32;
    log_record::seal(&mut record, payload, owner, position_of(offset), RecordKind::Edit, edits.len());
    record.resize(record.len().next_multiple_of(UNIT_BYTES), 0);
    record
}

/// The edit or sync mark at `offset`, if a valid one is there: its kind and payload.
pub(super) fn record_at(bytes: &[u8], offset: usize, owner: u64) -> Option<(RecordKind, &[u8])> {
    let rest = &bytes[offset..];
    let header = log_record::parse_header(rest.first_chunk()?, position_of(offset as u64))?;
    let record = rest.get(..header.covered_bytes())?;
    let is_ours = matches!(header.kind, RecordKind::Edit | RecordKind::SyncMark) && header.is_known();
    (is_ours && header.verify(record, owner, position_of(offset as u64)))
        .then(|| (header.kind, &record[RECORD_HEADER_BYTES..]))
}
