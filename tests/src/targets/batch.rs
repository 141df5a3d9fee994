//! Write batches: arbitrary payloads of records, and encoded ones.
use super::allocation::decoding;
use super::bytes::Bytes;
use sapwood_base::format::log_record::HEADER_BYTES;
use sapwood_base::format::write_batch::{Operations, operation_bytes, pad_for_sequences, put_operation};
use sapwood_base::{KeyspaceId, MAX_KEY_BYTES, MAX_VALUE_BYTES, ValueKind};

/// Decodes the input: an error after some operations, or operations that encode to the same bytes,
/// then padding.
pub fn batch_decode(data: &[u8]) {
    let mut again = Vec::new();
    let mut failed = false;
    for operation in Operations::new(data) {
        assert!(!failed, "nothing follows an error");
        match operation {
            Ok(operation) => {
                assert!(operation.key.len() <= MAX_KEY_BYTES && operation.value.len() <= MAX_VALUE_BYTES);
                let before = again.len();
                put_operation(&mut again, operation.kind, operation.keyspace, operation.key, operation.value)
                    .expect("memory for it");
                assert_eq!(
                    again.len() - before,
                    operation_bytes(operation.kind, operation.keyspace, operation.key, operation.value)
                );
            }
            Err(_) => failed = true,
        }
    }
    assert!(data.starts_with(&again), "an operation has one encoding");
    if !failed {
        assert!(matches!(data.get(again.len()), None | Some(0xFF)), "what follows is padding");
    }
}

/// Encodes operations that the input describes, decodes them, and truncates them.
pub fn batch_roundtrip(data: &[u8]) {
    let mut input = Bytes::new(data);
    let cut = usize::from(input.u16());
    let mut record = vec![0; HEADER_BYTES];
    let mut wanted = Vec::new();
    let mut ends = vec![record.len()];
    while !input.is_empty() {
        let kind = input.u8();
        let keyspace = KeyspaceId(match kind & 6 {
            0 => input.u64() as u32,
            small => u32::from(small),
        });
        let key = input.key();
        let (kind, value) =
            if kind & 1 == 0 { (ValueKind::Delete, Vec::new()) } else { (ValueKind::Put, input.value()) };
        put_operation(&mut record, kind, keyspace, &key, &value).expect("memory for it");
        ends.push(record.len());
        wanted.push((kind, keyspace, key, value));
    }
    pad_for_sequences(&mut record, wanted.len());
    assert!(record.len() >= wanted.len() * 8, "there are as many positions as operations");
    let payload = &record[HEADER_BYTES..];
    decoding("batch_roundtrip", payload.len(), || {
        let mut count = 0;
        for (got, want) in Operations::new(payload).zip(&wanted) {
            let got = got.expect("the encoded operation");
            let want = (want.0, want.1, &want.2[..], &want.3[..]);
            assert_eq!((got.kind, got.keyspace, got.key, got.value), want);
            count += 1;
        }
        assert_eq!((count, Operations::new(payload).count()), (wanted.len(), wanted.len()));
    });
    // Truncation leaves the operations before it and an error, unless it is between two operations.
    let cut = HEADER_BYTES + cut % (record.len() - HEADER_BYTES + 1);
    let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
    let left: Vec<_> = Operations::new(&record[HEADER_BYTES..cut]).collect();
    let good = left.iter().filter(|operation| operation.is_ok()).count();
    assert_eq!(good, whole);
    let between = ends.contains(&cut) || cut > ends[wanted.len()];
    assert_eq!(
        left.len() > good,
        !between,
        "truncation inside an operation is detected, truncation between two is not"
    );
}
