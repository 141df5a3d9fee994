//! Files of other releases: refused by name, or readable forever.
#![allow(clippy::disallowed_methods, reason = "copies a committed database, which is of real files")]
use sapwood::{Db, Env, ErrorKind};
use sapwood_base::KeyspaceId;
use sapwood_base::ValueKind;
use sapwood_base::format::log_record::{HEADER_BYTES, RecordKind, RecordPlace, UNIT_BYTES, seal_at};
use sapwood_base::format::log_segment::{DATA_OFFSET, SegmentHeader};
use sapwood_base::format::write_batch::put_operation;
use sapwood_storage::FileSystem;
use sapwood_tests::golden;
use sapwood_tests::sim::positions::begin_at;
use std::path::Path;

const BASE: u64 = 1 << 20;
const DATABASE: u64 = 77;

/// Appends a record to a stream that begins at [`BASE`].
fn append(stream: &mut Vec<u8>, commits: u64, kind: RecordKind, payload: &[u8]) {
    let position = BASE + (stream.len() / UNIT_BYTES) as u64;
    let place = RecordPlace { database: DATABASE, position, commits };
    let mut record = vec![0; HEADER_BYTES];
    record.extend_from_slice(payload);
    seal_at(&mut record, payload.len() as u32, &place, kind, 1);
    record.resize(record.len().next_multiple_of(UNIT_BYTES), 0);
    stream.extend(record);
}

/// Opens a database whose log holds one row, then a record of `kind`, then another row, which says
/// that the record counts as a commit if it is `counted`.
fn open_with(kind: RecordKind, counted: bool) -> (sapwood::Result<Db>, u64) {
    let row = |key: &[u8]| {
        let mut payload = Vec::new();
        put_operation(&mut payload, ValueKind::Put, KeyspaceId(0), key, b"value").unwrap();
        payload
    };
    let mut stream = Vec::new();
    append(&mut stream, 0, RecordKind::Batch, &row(b"before"));
    let offset = (DATA_OFFSET + stream.len()) as u64;
    append(&mut stream, 1, kind, &row(b"between"));
    append(&mut stream, 1 + u64::from(counted), RecordKind::Batch, &row(b"after"));
    let (env, fs) = Env::sim(1);
    begin_at(&fs, Path::new("db"), BASE).unwrap();
    let header = SegmentHeader {
        data_units: 8192,
        base_position: BASE,
        database: DATABASE,
        file_number: 7,
        durable_position: 0,
    };
    let mut bytes = header.encode().to_vec();
    bytes.resize(DATA_OFFSET, 0);
    bytes.extend(stream);
    bytes.resize(DATA_OFFSET + 8192 * UNIT_BYTES, 0);
    let file = fs.create_new(Path::new("db/000007.wal")).unwrap();
    file.write_at(0, &bytes).unwrap();
    (Db::builder("db").advanced(|options| options.env = env).open(), offset)
}

#[test]
fn a_commit_that_is_missing_between_two_others_is_damage() {
    // Each record is valid for its place; the last one follows more commits than there are, or
    // fewer.
    for (kind, counted) in [(RecordKind::Batch, false), (RecordKind::Rotate, true)] {
        let (db, _) = open_with(kind, counted);
        let error = db.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert_eq!(error.file(), Some(Path::new("db/000007.wal")), "{error}");
    }
}

#[test]
fn records_of_later_releases_are_refused_by_name_and_place() {
    let (db, _) = open_with(RecordKind::Batch, true);
    // Three records, and all are accepted: their keyspace was never created, so there is nothing to
    // read.
    assert!(db.unwrap().stats().replayed_log_bytes >= 3 * 32);
    let kinds = [
        (RecordKind::Prepare, "preparation of a transaction"),
        (RecordKind::TransactionEnd, "end of a transaction"),
        (RecordKind::Values, "values apart"),
        (RecordKind::Ingest, "ingest"),
    ];
    for (kind, name) in kinds {
        let (db, offset) = open_with(kind, true);
        let error = db.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(error.file(), Some(Path::new("db/000007.wal")), "{error}");
        assert_eq!(error.offset(), Some(offset), "{error}");
    }
}

#[test]
fn the_database_of_every_format_is_read_and_goes_on() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    for format in ["format-2"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format);
        std::fs::create_dir(&path).unwrap();
        for entry in std::fs::read_dir(data.join(format)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
        }
        golden::check(&path, true).unwrap();
        golden::check(&path, false).unwrap();
        golden::check(&path, false).unwrap();
    }
}
