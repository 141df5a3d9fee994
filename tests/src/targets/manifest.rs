//! The MANIFEST: the fields of one edit, and a replay of the whole file.
//!
//! The decoder of an edit holds one field at a time, and obeys the rule of memory. The state after
//! a replay has a structure for every keyspace, index, run and table of the MANIFEST, and a name
//! can be six bytes long. So the state may use `NAMED_BYTES` for each of them; an announced count
//! adds nothing.
use super::DATABASE;
use super::allocation::producing;
use sapwood::fuzzing::{Surroundings, encode_manifest};
use sapwood_base::coding::{Decoder, put_bytes, put_varint};
use sapwood_base::format::log_record::{self, UNIT_BYTES, parse_header};
use sapwood_base::format::manifest::{Edit, Edits, HEADER_BYTES, MAX_LEVELS, encode};
use std::path::Path;
use std::sync::Arc;

/// The memory that the state of a database may use per keyspace, index or table, also during its
/// construction, in bytes.
const NAMED_BYTES: usize = 700;

/// Decodes the input as one edit record: an error, or fields that encode to the same bytes.
pub fn manifest_edit(data: &[u8]) {
    let mut fields = Decoder::new(data);
    for edit in Edits::new(data) {
        let Ok(edit) = edit else { return };
        let (tag, body) =
            (fields.varint().expect("decoded before"), fields.length_prefixed().expect("as well"));
        let mut read = Vec::new();
        put_varint(&mut read, tag);
        put_bytes(&mut read, body);
        let again = encode(std::slice::from_ref(&edit));
        // Optional parts of later versions inside of a known field are not encoded again.
        let is_shortened = tag < 64 && again.len() < read.len();
        assert!(again == read || is_shortened, "an edit has one encoding");
        let decoded: Vec<_> = Edits::new(&again).collect::<Result<_, _>>().expect("an encoded edit");
        assert!(decoded == [edit.clone()], "an edit comes back");
        if let Edit::TableAdded(table) = &edit {
            assert!(table.level < MAX_LEVELS);
            assert!(table.smallest <= table.largest, "a table's largest key is not below its smallest");
            assert!(table.lower.as_ref().is_none_or(|lower| *lower <= table.largest));
            assert!(table.min_sequence <= table.max_sequence);
            assert!(table.max_sequence <= sapwood_base::SequenceNumber::MAX);
        }
    }
    assert!(fields.is_empty(), "every field was there");
}

/// The memory that the state of a MANIFEST may use in addition to the rule: see [`NAMED_BYTES`].
pub(super) fn state_bytes(manifest: &[u8]) -> usize {
    let mut named = 0;
    let mut at = HEADER_BYTES;
    while let Some(header) =
        manifest.get(at..).and_then(|rest| parse_header(rest.first_chunk()?, at as u64 / 8))
    {
        let Some(record) = manifest.get(at..at + header.covered_bytes()) else { break };
        let is_named = |edit: &Edit| {
            matches!(
                edit,
                Edit::KeyspaceCreated { .. }
                    | Edit::IndexCreated { .. }
                    | Edit::TableAdded(_)
                    | Edit::TableRemoved { .. }
            )
        };
        let edits = Edits::new(&record[log_record::HEADER_BYTES..]).map_while(Result::ok);
        named += edits.filter(is_named).count();
        at += header.units() as usize * UNIT_BYTES;
    }
    named * NAMED_BYTES
}

thread_local! {
    static SURROUNDINGS: Surroundings =
        Surroundings::new(Arc::new(super::memory::MemoryDirectory::default()), Path::new("/db"))
            .expect("memory for nothing much");
}

/// Replays the input as a MANIFEST: an error, or a consistent state whose snapshot replays to the
/// same.
pub fn manifest_replay(data: &[u8]) {
    SURROUNDINGS.with(|surroundings| {
        let replay = || (surroundings.replay_manifest(data), state_bytes(data));
        let Ok(replayed) = producing("manifest_replay", data.len(), replay) else { return };
        let edits = replayed.edits();
        let again = encode_manifest(DATABASE, std::slice::from_ref(&edits));
        let second = surroundings.replay_manifest(&again).expect("a snapshot of a valid state").edits();
        assert!(second == edits, "a snapshot is complete: {second:?} {edits:?}");
    });
}

/// Whether the first record of a MANIFEST has a right checksum.
#[cfg(test)]
pub(super) fn passes_checksums(data: &[u8]) -> bool {
    let rest = &data[24..];
    let header = rest.first_chunk().and_then(|bytes| parse_header(bytes, 3));
    let owner = sapwood::fuzzing::manifest_owner(DATABASE, sapwood_base::FileNumber(1));
    header.is_some_and(|header| header.verify(rest, owner, 3))
}
