//! The MANIFEST: the fields of one edit, and the whole file replayed.
//!
//! A field takes three bytes at least and becomes an `Edit` of some 140, so the cap of these targets is a multiple of that
//! ratio, not of eight. The smallest useful field, a table, takes thirty.
use super::DATABASE;
use sapwood::fuzzing::{Surroundings, encode_manifest};
use sapwood_base::coding::{Decoder, put_bytes, put_varint};
use sapwood_base::format::manifest::{MAX_LEVELS, decode, encode};
use std::path::Path;
use std::sync::Arc;

/// Decodes the input as one edit record: an error, or fields that encode to the same bytes.
pub fn manifest_edit(data: &[u8]) {
    let Ok(edits) = decode(data) else { return };
    // Fields that a later version may add are passed over.
    let mut known = Vec::new();
    let mut fields = Decoder::new(data);
    let mut count = 0;
    while !fields.is_empty() {
        let (tag, body) =
            (fields.varint().expect("decoded before"), fields.length_prefixed().expect("as well"));
        if tag < 64 {
            put_varint(&mut known, tag);
            put_bytes(&mut known, body);
            count += 1;
        }
    }
    assert_eq!(edits.len(), count);
    assert!(encode(&edits) == known, "an edit has one encoding");
    for edit in &edits {
        if let sapwood_base::format::manifest::Edit::TableAdded(table) = edit {
            assert!(table.level < MAX_LEVELS);
            assert!(table.smallest <= table.largest, "a table ends where it begins, or after");
            assert!(table.lower.as_ref().is_none_or(|lower| *lower <= table.largest));
            assert!(table.min_sequence <= table.max_sequence);
            assert!(table.max_sequence <= sapwood_base::SequenceNumber::MAX);
        }
    }
}

thread_local! {
    static SURROUNDINGS: Surroundings =
        Surroundings::new(Arc::new(super::memory::MemoryDirectory::default()), Path::new("/db"))
            .expect("memory for nothing much");
}

/// Replays the input as a MANIFEST: an error, or a consistent state whose snapshot replays to the same.
pub fn manifest_replay(data: &[u8]) {
    SURROUNDINGS.with(|surroundings| {
        let Ok(replayed) = surroundings.replay_manifest(data) else { return };
        let again = encode_manifest(DATABASE, std::slice::from_ref(&replayed.edits));
        let second = surroundings.replay_manifest(&again).expect("a snapshot of a valid state");
        assert!(
            second.edits == replayed.edits,
            "a snapshot says all: {:?} {:?}",
            second.edits,
            replayed.edits
        );
    });
}

/// Whether the first record of a MANIFEST has a right checksum.
#[cfg(test)]
pub(super) fn passes_checksums(data: &[u8]) -> bool {
    use sapwood_base::format::log_record::parse_header;
    let rest = &data[24..];
    let header = rest.first_chunk().and_then(|bytes| parse_header(bytes, 3));
    let owner = sapwood::fuzzing::manifest_owner(DATABASE, sapwood_base::FileNumber(1));
    header.is_some_and(|header| header.verify(rest, owner, 3))
}
