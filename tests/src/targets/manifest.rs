//! The MANIFEST: the fields of one edit, and the whole file replayed.
//!
//! The decoder of an edit holds one field at a time, and to the rule of memory. What a MANIFEST is replayed to has a
//! structure for every keyspace, index, run and table that it names, and a name can be six bytes long: so that state may
//! have `NAMED_BYTES` for each, which no announced number makes more of.
use super::DATABASE;
use super::allocation::producing;
use sapwood::fuzzing::{Surroundings, encode_manifest};
use sapwood_base::coding::{Decoder, put_bytes, put_varint};
use sapwood_base::format::log_record::{self, UNIT_BYTES, parse_header};
use sapwood_base::format::manifest::{Edit, Edits, HEADER_BYTES, MAX_LEVELS, encode};
use std::path::Path;
use std::sync::Arc;

/// What the state of a database may have in memory for one keyspace, index or table, in bytes: while it is built, too.
const NAMED_BYTES: usize = 700;

/// Decodes the input as one edit record: an error, or fields that encode to the same bytes.
pub fn manifest_edit(data: &[u8]) {
    // Fields that a later version may add are passed over.
    let mut fields = Decoder::new(data);
    for edit in Edits::new(data) {
        let Ok(edit) = edit else { return };
        let mut known = Vec::new();
        while known.is_empty() {
            let (tag, body) =
                (fields.varint().expect("decoded before"), fields.length_prefixed().expect("as well"));
            if tag < 64 {
                put_varint(&mut known, tag);
                put_bytes(&mut known, body);
            }
        }
        assert!(encode(std::slice::from_ref(&edit)) == known, "an edit has one encoding");
        if let Edit::TableAdded(table) = &edit {
            assert!(table.level < MAX_LEVELS);
            assert!(table.smallest <= table.largest, "a table ends where it begins, or after");
            assert!(table.lower.as_ref().is_none_or(|lower| *lower <= table.largest));
            assert!(table.min_sequence <= table.max_sequence);
            assert!(table.max_sequence <= sapwood_base::SequenceNumber::MAX);
        }
    }
    while !fields.is_empty() {
        assert!(fields.varint().expect("decoded before") >= 64, "every known field was there");
        fields.length_prefixed().expect("decoded before");
    }
}

/// What the state that a MANIFEST adds up to may have in memory on top of the rule: see [`NAMED_BYTES`].
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

/// Replays the input as a MANIFEST: an error, or a consistent state whose snapshot replays to the same.
pub fn manifest_replay(data: &[u8]) {
    SURROUNDINGS.with(|surroundings| {
        let replay = || (surroundings.replay_manifest(data), state_bytes(data));
        let Ok(replayed) = producing("manifest_replay", data.len(), replay) else { return };
        let edits = replayed.edits();
        let again = encode_manifest(DATABASE, std::slice::from_ref(&edits));
        let second = surroundings.replay_manifest(&again).expect("a snapshot of a valid state").edits();
        assert!(second == edits, "a snapshot says all: {second:?} {edits:?}");
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
