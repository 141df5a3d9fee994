//! Seeds: small, real artefacts for every target, the same at every call.
//!
//! They are made by the code that writes the formats, and by databases on a simulated machine.
use super::image::append;
use super::table::{build, table_options};
use super::{DATABASE, FILE, TARGETS};
use crate::harness::small;
use sapwood::fuzzing::encode_manifest;
use sapwood::ordered::Ordered;
use sapwood::{Codec, Db, Durability, Env, FilterKind, KeyspaceOptions};
use sapwood_base::coding::{Decoder, put_bytes, put_varint};
use sapwood_base::format;
use sapwood_base::format::block::{BlockEncoder, CodecId, StoredKind, seal, tag_of};
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::footer::FOOTER_BYTES;
use sapwood_base::format::index_definition::{
    Builtin, ExtractorSpec, Field, IndexDefinition, KeyKind, Maintenance,
};
use sapwood_base::format::log_record::{
    self, Distant, HEADER_BYTES, RecordKind, RecordPlace, UNIT_BYTES, parse_header,
};
use sapwood_base::format::log_segment::{self, SegmentHeader};
use sapwood_base::format::manifest::{Edit, TableMeta};
use sapwood_base::format::properties::TableProperties;
use sapwood_base::format::table_index::TableIndexColumns;
use sapwood_base::format::write_batch::{pad_for_sequences, put_operation};
use sapwood_base::key::key_hash;
use sapwood_base::{FileNumber, KeyspaceId, SequenceNumber, ValueKind};
use sapwood_sstable::filter::Filter;
use sapwood_sstable::fuzzing;

/// A page of one key that is shared in part only: encoded again, with the whole key as prefix, it
/// is longer.
const SHORT_PREFIX: [u8; 56] = [
    0x09, 0x6E, 0xF7, 0x89, 0x39, 0x74, 0x01, 0x28, 0x07, 0x00, 0x00, 0x00, 0x40, 0xFF, 0x07, 0x00, 0x05,
    0x00, 0x00, 0x00, 0x01, 0x00, 0x01, 0x00, 0x05, 0x00, 0x00, 0x00, 0x31, 0x00, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x06, 0x00, 0x5A, 0x00, 0xFF, 0x00, 0x00, 0x00, 0x00,
    0x00, 0x0B, 0x0C, 0xFF, 0x09,
];

/// All seeds: the name of the target, and an input.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let mut all = Vec::new();
    for target in TARGETS {
        for seed in of(target.name) {
            assert!(seed.len() <= target.max_len, "a seed of {} has {} bytes", target.name, seed.len());
            all.push((target.name, seed));
        }
    }
    all
}

/// The seeds of one target.
fn of(name: &str) -> Vec<Vec<u8>> {
    match name {
        "coding" => vec![
            vec![3, 1, 2, 3, 0x80, 1, 5, b'h', b'e', b'l', b'l', b'o'],
            vec![4, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
            b"\x08keykey01keykey02".to_vec(),
        ],
        "options" => [
            "style=hybrid;compression=lz4;filter_bits_per_key=12.5;block_bytes=8192",
            "style=leveled; compression=zstd:-3",
            "compression=none;;filter_bits_per_key=0",
            "periodic:20",
            "buffered",
            "filter_bits_per_key=NaN",
        ]
        .map(|text| text.as_bytes().to_vec())
        .to_vec(),
        "file_name" => {
            ["LOCK", "MANIFEST-000005", "000123.wal", "000124.sst", "18446744073709551615.sst", "7.sst"]
                .map(|text| text.as_bytes().to_vec())
                .to_vec()
        }
        "log_segment" => {
            vec![segment(64, 1 << 20, 3, 0).encode().to_vec(), vec![0; log_segment::HEADER_BYTES]]
        }
        "wal_reader" => logs(),
        "wal_roundtrip" => noise(&[9, 40, 120, 400]),
        "batch_decode" => batches(),
        "batch_roundtrip" => noise(&[3, 30, 200]),
        "manifest_edit" => {
            let edits = histories().into_iter().flatten().map(|edits| format::manifest::encode(&edits));
            edits.chain([with_optional_field()]).collect()
        }
        "manifest_replay" => histories().iter().map(|records| encode_manifest(DATABASE, records)).collect(),
        "sst_block" => blocks(),
        "sst_stored" => stored_blocks(),
        "sst_index" => indexes(),
        "sst_filter" => filters(),
        "sst_footer" => tables()
            .iter()
            .map(|table| {
                let footer = &table[table.len() - FOOTER_BYTES..];
                [&(table.len() as u64).to_le_bytes(), footer].concat()
            })
            .collect(),
        "sst_properties" => properties(),
        "decompress" => compressed(),
        "sst_open_scan" => tables(),
        "sst_roundtrip" => noise(&[1, 60, 300, 900]),
        "recover_image" | "open_dir" => images(),
        "db_ops" | "db_fault" => noise(&[100, 300, 900]),
        "db_crash" => noise(&[100, 400]),
        "ordered" => vec![
            b"\x05Oslo\x01\x01\x00u1".to_vec(),
            ("Oslo", std::cmp::Reverse(5u64), Some(-1.5f64)).to_ordered(),
            (Some(std::cmp::Reverse(Some("a\0b"))), 7u128, -7i128).to_ordered(),
        ],
        "index_definition" => definitions(),
        "extractor" => [
            (&b"\x00"[..], r#"{"x":[{"b":"}"}],"a":{"b":["s","\u00e9\ud83d\ude00",1.5e3,true]}}"#),
            (b"\x15", r#"{ "a" : [ 1 , -2 , 3e2 ] }"#),
            (b"\x02\x03a~b", r#"{"a~b":"d\n"}"#),
            (b"/\x02", "one/two/3/four"),
        ]
        .map(|(choice, text)| [choice, text.as_bytes()].concat())
        .to_vec(),
        "btree_page" => {
            let mut pages = super::tree::pages();
            pages.push(SHORT_PREFIX.to_vec());
            pages
        }
        "btree_ops" => noise(&[200, 900]),
        _ => panic!("{name} has no seeds"),
    }
}

fn definitions() -> Vec<Vec<u8>> {
    let builtin = Builtin::new(Field::value().pointer("/address/city"), KeyKind::Bytes);
    let integer = KeyKind::FixedInteger { bytes: 8, signed: true, big_endian: false };
    let specs = [
        ExtractorSpec::Builtin(builtin.covering(Field::value().separated(b',', 3))),
        ExtractorSpec::Builtin(Builtin::new(Field::key().range(4, 8), integer)),
        ExtractorSpec::Custom { version: 300 },
    ];
    let definition =
        |extractor| IndexDefinition::new("by_city", KeyspaceId(300), extractor, true, Maintenance::Strict);
    specs.into_iter().map(|extractor| definition(extractor).encode()).collect()
}

/// Random bytes of these lengths, for targets that accept any bytes.
fn noise(lens: &[usize]) -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(7);
    lens.iter().map(|len| (0..*len).map(|_| random.u8(..)).collect()).collect()
}

fn segment(data_units: u32, base_position: u64, file_number: u64, durable_position: u64) -> SegmentHeader {
    SegmentHeader { data_units, base_position, database: DATABASE, file_number, durable_position }
}

fn batch(operations: &[(ValueKind, u32, &[u8], &[u8])]) -> Vec<u8> {
    let mut record = vec![0; HEADER_BYTES];
    for (kind, keyspace, key, value) in operations {
        put_operation(&mut record, *kind, KeyspaceId(*keyspace), key, value).expect("memory for it");
    }
    pad_for_sequences(&mut record, operations.len());
    record.split_off(HEADER_BYTES)
}

fn batches() -> Vec<Vec<u8>> {
    let (put, delete) = (ValueKind::Put, ValueKind::Delete);
    vec![
        batch(&[(put, 0, b"key", b"value")]),
        batch(&[(put, 0, b"a", &[7; 40]), (delete, 300, b"b", b""), (put, 70_000, b"", b"")]),
        batch(&[(delete, 0, &b""[..], &b""[..]); 12]),
    ]
}

/// An edit of a later version: its body ends with a field that may be skipped.
fn with_optional_field() -> Vec<u8> {
    let edit = format::manifest::encode(&[Edit::LogStart(1 << 33)]);
    let mut fields = Decoder::new(&edit);
    let tag = fields.varint().expect("a tag");
    let mut body = fields.length_prefixed().expect("a body").to_vec();
    put_varint(&mut body, 96);
    put_bytes(&mut body, b"later");
    let mut later = Vec::new();
    put_varint(&mut later, tag);
    put_bytes(&mut later, &body);
    later
}

/// The place after the records of a stream that begins at `base`.
fn next_place(stream: &[u8], base: u64) -> RecordPlace {
    let (mut at, mut commits) = (0, 0);
    let header_at =
        |at: usize| parse_header(stream.get(at..)?.first_chunk()?, base + (at / UNIT_BYTES) as u64);
    while let Some(header) = header_at(at) {
        commits = header.commits_after();
        at += header.units() as usize * UNIT_BYTES;
    }
    RecordPlace { database: DATABASE, position: base + (stream.len() / UNIT_BYTES) as u64, commits }
}

/// Appends a record to a stream that begins at `base`.
fn record(stream: &mut Vec<u8>, base: u64, kind: RecordKind, payload: &[u8]) {
    let start = stream.len();
    let place = next_place(stream, base);
    stream.resize(start + HEADER_BYTES, 0);
    stream.extend_from_slice(payload);
    log_record::seal_at(&mut stream[start..], payload.len() as u32, &place, kind, 1);
    stream.resize(stream.len().next_multiple_of(UNIT_BYTES), 0);
}

/// A stream with every kind of record.
fn log_stream(base: u64) -> Vec<u8> {
    let mut stream = Vec::new();
    for payload in batches() {
        record(&mut stream, base, RecordKind::Batch, &payload);
    }
    record(&mut stream, base, RecordKind::Rotate, b"");
    let mark = (base + (stream.len() / UNIT_BYTES) as u64).to_le_bytes();
    record(&mut stream, base, RecordKind::SyncMark, &mark);
    let start = stream.len();
    let place = next_place(&stream, base);
    stream.resize(start + HEADER_BYTES, 0);
    log_record::seal_at(&mut stream[start..], 40, &place, RecordKind::Skip, 5);
    stream.resize(start + HEADER_BYTES + 40, 0);
    record(&mut stream, base, RecordKind::Batch, &batches()[0]);
    // A payload that was written apart: its reserved range, another record, and the record that
    // refers to it.
    let (start, payload) = (stream.len(), &batches()[0]);
    let place = next_place(&stream, base);
    let body = place.position;
    stream.resize(start + HEADER_BYTES, 0);
    log_record::seal_at(&mut stream[start..], payload.len() as u32, &place, RecordKind::Body, 1);
    stream.extend_from_slice(payload);
    stream.resize(stream.len().next_multiple_of(UNIT_BYTES), 0);
    record(&mut stream, base, RecordKind::Batch, &batches()[1]);
    let distant = Distant::new(payload, DATABASE, body).encode();
    record(&mut stream, base, RecordKind::Distant, &distant);
    stream
}

/// An input of `wal_reader`.
fn log_input(from: u8, segments: &[(SegmentHeader, &[u8])]) -> Vec<u8> {
    let mut input = vec![from];
    for (header, data) in segments {
        input.extend_from_slice(&(data.len() as u16).to_le_bytes());
        input.extend_from_slice(&header.encode());
        input.extend_from_slice(data);
    }
    input
}

fn logs() -> Vec<Vec<u8>> {
    let base = 1 << 20;
    let mut stream = log_stream(base);
    let whole = log_input(0, &[(segment((stream.len() / 8) as u32 + 8, base, 1, 0), &stream)]);
    stream.resize(stream.len().next_multiple_of(96) + 96, 0);
    let chunks: Vec<(SegmentHeader, &[u8])> = stream
        .chunks(96)
        .take(8)
        .enumerate()
        .map(|(i, chunk)| (segment(12, base + i as u64 * 12, i as u64 + 1, base), chunk))
        .collect();
    let last = log_stream((1 << 57) - 64);
    vec![whole, log_input(0, &chunks), log_input(0, &[(segment(64, (1 << 57) - 64, 1, 0), &last)])]
}

fn table_added(file: u64, level: u8, run: u64, smallest: &[u8], largest: &[u8]) -> Edit {
    Edit::TableAdded(TableMeta {
        keyspace: KeyspaceId(1),
        level,
        run,
        file: FileNumber(file),
        file_bytes: 1000,
        entries: 10,
        tombstones: 1,
        smallest: smallest.to_vec(),
        largest: largest.to_vec(),
        min_sequence: SequenceNumber(1),
        max_sequence: SequenceNumber(1000),
        lower: None,
        unknown: Vec::new(),
    })
}

/// Histories of edits, one list per record.
fn histories() -> Vec<Vec<Vec<Edit>>> {
    let created = |id: u32, name: &str, options: &str| Edit::KeyspaceCreated {
        id: KeyspaceId(id),
        name: name.into(),
        options: options.into(),
    };
    let start = vec![
        Edit::NextFile(FileNumber(12)),
        Edit::NextKeyspace(2),
        Edit::LogStart(1 << 33),
        Edit::LogCommits(1 << 20),
        Edit::LogOpened(1 << 34),
        Edit::LogClosed { start: 1 << 33, end: 1 << 34 },
        created(0, "default", ""),
        created(1, "users", "style=leveled;compression=lz4"),
    ];
    let mut lowered = table_added(5, 0, 9, b"", b"zz");
    if let Edit::TableAdded(table) = &mut lowered {
        table.lower = Some(b"m".to_vec());
    }
    vec![
        vec![vec![Edit::NextFile(FileNumber(2)), Edit::LogOpened(1024), created(0, "default", "")]],
        vec![
            start.clone(),
            vec![
                table_added(5, 0, 9, b"", b"zz"),
                table_added(6, 6, 3, b"a", b"c"),
                table_added(7, 6, 3, b"d", b"e"),
            ],
            vec![
                Edit::TableRemoved { keyspace: KeyspaceId(1), level: 0, run: 9, file: FileNumber(5) },
                lowered,
            ],
            vec![created(2, "gone", ""), Edit::KeyspaceDropped(KeyspaceId(2)), Edit::LogStart(1 << 35)],
        ],
        vec![start, vec![Edit::KeyspaceDropped(KeyspaceId(1))]],
    ]
}

/// Entries in order, with versions and tombstones.
fn entries(count: u64) -> Vec<(Vec<u8>, u64, ValueKind, Vec<u8>)> {
    let mut all = Vec::new();
    for i in 0..count {
        let key = format!("key{i:02}").into_bytes();
        if i % 5 == 3 {
            all.push((key.clone(), 500 + i, ValueKind::Delete, Vec::new()));
        }
        all.push((key, 100 + i, ValueKind::Put, vec![i as u8; (i % 4) as usize * 9]));
    }
    all
}

fn raw_block(entries: &[(Vec<u8>, u64, ValueKind, Vec<u8>)]) -> Vec<u8> {
    let mut encoder = BlockEncoder::default();
    for (key, sequence, kind, value) in entries {
        encoder.push(key, tag_of(key_hash(key)), SequenceNumber(*sequence), *kind, value);
    }
    let mut image = Vec::new();
    encoder.encode(&mut image);
    image
}

fn blocks() -> Vec<Vec<u8>> {
    let put = ValueKind::Put;
    vec![
        raw_block(&entries(6)),
        raw_block(&entries(40)),
        raw_block(&[(b"".to_vec(), 0, put, b"".to_vec())]),
        raw_block(&(0..40).map(|i| (vec![b'k', i], 7, put, vec![i; 10])).collect::<Vec<_>>()),
        raw_block(&(0..9u64).map(|i| (vec![b'k'; i as usize], i << 40, put, vec![1; 3])).collect::<Vec<_>>()),
    ]
}

fn sealed(payload: &[u8], padding: u16, codec: CodecId, kind: StoredKind) -> Vec<u8> {
    let mut out = payload.to_vec();
    seal(&mut out, 0, padding, codec, kind, FILE, 0);
    out
}

fn stored_blocks() -> Vec<Vec<u8>> {
    let image = raw_block(&entries(40));
    let mut all = vec![[&[0, 0, 0][..], &sealed(&image, 5, CodecId::None, StoredKind::Data)].concat()];
    for codec in [Codec::Lz4, Codec::Zstd(1)] {
        let (id, payload) = fuzzing::compress(codec, &image).expect("a known codec").expect("compressible");
        let stored = sealed(&payload, 0, id, StoredKind::Data);
        all.push([&[4][..], &(image.len() as u16).to_le_bytes(), &stored].concat());
    }
    let stored = sealed(&properties()[0], 0, CodecId::None, StoredKind::Properties);
    all.push([&[3, 0, 0][..], &stored].concat());
    all
}

fn indexes() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for raw in [0, 4000] {
        let mut index = TableIndexColumns::default();
        let separators: [&[u8]; 5] = [b"", b"user1", b"user2", b"user2", b"user3abc"];
        for (i, separator) in separators.into_iter().enumerate() {
            index.push(separator, i as u64 * 4096, raw, i == 3).expect("a small table");
        }
        index.data_len = 20_000;
        let mut payload = Vec::new();
        index.encode(&mut payload);
        all.push(payload);
    }
    let mut many = TableIndexColumns::default();
    for i in 0..70u64 {
        let separator = if i == 0 { Vec::new() } else { format!("longcommonprefix{i:03}").into_bytes() };
        many.push(&separator, i * 16, 0, false).expect("a small table");
    }
    many.data_len = 70 * 16;
    for index in [many, TableIndexColumns::default()] {
        let mut payload = Vec::new();
        index.encode(&mut payload);
        all.push(payload);
    }
    all
}

fn filters() -> Vec<Vec<u8>> {
    let hashes: Vec<u64> = (0..60u64).map(|i| key_hash(&i.to_le_bytes())).collect();
    let mut all = Vec::new();
    for (kind, bits) in
        [(FilterKind::Blocked, 10.0), (FilterKind::Blocked, 28.0), (FilterKind::Standard, 10.0)]
    {
        let mut payload = Vec::new();
        Filter::build(kind, bits, &hashes).expect("a small filter").encode(&mut payload);
        all.push(payload);
    }
    all
}

fn properties() -> Vec<Vec<u8>> {
    let full = TableProperties {
        keyspace: KeyspaceId(7),
        entries: 1000,
        tombstones: 3,
        user_keys: 900,
        raw_key_bytes: 16_000,
        raw_value_bytes: 1 << 40,
        smallest_key: b"a".to_vec(),
        largest_key: b"zz".to_vec(),
        min_sequence: SequenceNumber(5),
        max_sequence: SequenceNumber::MAX,
        unknown: vec![(64, b"kept".to_vec()), (u64::MAX, vec![])],
    };
    let mut all = Vec::new();
    for properties in [full, TableProperties::default()] {
        let mut payload = Vec::new();
        properties.encode(&mut payload);
        all.push(payload);
    }
    all
}

fn compressed() -> Vec<Vec<u8>> {
    let text: Vec<u8> = (0..3000u32).map(|i| (i / 50 % 7) as u8).collect();
    let zeros = vec![0; 60_000];
    let mut all = vec![b"\0\x05\0hello".to_vec()];
    for image in [&text, &zeros] {
        for codec in [Codec::Lz4, Codec::Zstd(1), Codec::Zstd(19)] {
            let (id, payload) =
                fuzzing::compress(codec, image).expect("a known codec").expect("compressible");
            all.push([&[id as u8][..], &(image.len() as u16).to_le_bytes(), &payload].concat());
        }
    }
    all
}

/// Tables of every codec and filter, some of several blocks.
fn tables() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (choice, count) in
        [(0, 12), (4, 12), (8, 12), (16, 12), (32, 30), (0x84, 60), (0x48, 60), (0, 60), (0, 0)]
    {
        let entries = entries(count);
        let borrowed = entries
            .iter()
            .map(|(key, sequence, kind, value)| (&key[..], SequenceNumber(*sequence), *kind, &value[..]));
        all.push(build(&table_options(choice), borrowed).expect("entries in order"));
    }
    all
}

/// Databases as stored on a disk, without the zeros at the end of the log.
fn images() -> Vec<Vec<u8>> {
    (0..4).map(image).collect()
}

fn image(shape: usize) -> Vec<u8> {
    let (env, fs) = Env::sim_manual(3);
    let builder = Db::builder("/db").memory_budget(4 << 20).advanced(|options| {
        small(options);
        options.env = env.clone();
        options.background_threads = 1;
    });
    let db = builder.open().expect("an empty disk");
    let keyspace = db.default_keyspace();
    let write = |from: u32, to: u32| {
        for i in from..to {
            keyspace.put(format!("key{i:02}"), vec![i as u8; 20]).expect("a healthy database");
        }
    };
    write(0, 6);
    if shape > 0 {
        db.flush().expect("a healthy database");
        let second = db.keyspace("second", KeyspaceOptions::default()).expect("a healthy database");
        second.put("a", "b").expect("a healthy database");
        write(3, 9);
    }
    if shape > 1 {
        db.compact().expect("a healthy database");
        keyspace.delete("key04").expect("a healthy database");
        let mut batch = db.batch();
        batch.put(&keyspace, "x", "y").delete(&keyspace, "key05");
        drop(batch.commit_durable(Durability::Sync).expect("a healthy database"));
    }
    if shape > 2 {
        db.close().expect("a healthy database");
    }
    fs.crash_at(0);
    drop((keyspace, db));
    let left = fs.kill();
    let mut archive = Vec::new();
    for path in left.files() {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(FileName::parse);
        let Some(name) = name.filter(|name| *name != FileName::Lock) else { continue };
        let mut bytes = left.read_file(&path).expect("a file that is there");
        if matches!(name, FileName::Log(_)) {
            shorten(&mut bytes);
        }
        append(&mut archive, name, &bytes);
    }
    // Databases choose a random number; it is replaced by a fixed one.
    rename_database(&mut archive);
    archive
}

/// Truncates a segment to its written part, and adapts its header.
fn shorten(bytes: &mut Vec<u8>) {
    use log_segment::DATA_OFFSET;
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let header = bytes.first_chunk().and_then(|header| SegmentHeader::decode(header).ok().flatten());
    let Some(mut header) = header else {
        bytes.truncate(DATA_OFFSET);
        return;
    };
    let data = used.saturating_sub(DATA_OFFSET).next_multiple_of(UNIT_BYTES) + 2 * UNIT_BYTES;
    header.data_units = (data / UNIT_BYTES) as u32;
    bytes.resize(DATA_OFFSET + data, 0);
    bytes[..log_segment::HEADER_BYTES].copy_from_slice(&header.encode());
}

/// Replaces the database number of an archive by the one of all inputs, which the repair does.
fn rename_database(archive: &mut [u8]) {
    super::repair::image(archive);
}
