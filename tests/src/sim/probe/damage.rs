//! Damage in the log, in blocks, and crafted bytes.
use crate::harness::builder;
use sapwood::{Db, Env, ErrorKind, WriteOptions};
use sapwood_base::FileNumber;
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::footer::{FOOTER_BYTES, SectionHandle, TableFooter};
use sapwood_base::format::log_segment::{DATA_OFFSET, HEADER_BYTES};
use sapwood_base::format::table_index::TableIndexColumns;
use sapwood_storage::sim::SimFs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) fn log_damage() {
    let (env, fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    for number in 0..50u32 {
        db.default_keyspace()
            .put_with(number.to_be_bytes(), [7; 100], &WriteOptions::sync())
            .expect("written");
    }
    fs.crash_at(0);
    let left = fs.kill();
    let log = left.files().into_iter().find(|path| {
        let is_log = path.extension().is_some_and(|name| name == "wal");
        is_log && left.read_file(path).is_ok_and(|bytes| bytes[DATA_OFFSET] != 0)
    });
    left.corrupt(log.expect("a log with records"), DATA_OFFSET as u64 + 1000, 0x20);
    let opened = builder("db", &env.with_file_system(Arc::new(left))).open().map(drop);
    assert_eq!(opened.expect_err("a synced record is damaged").kind(), ErrorKind::Corruption);
}

/// A crash that keeps the length of a new log file but not its bytes may expose the blocks of a
/// removed segment in it.
pub(super) fn half_made_log() {
    const ROWS: u32 = 100;
    let (env, fs) = Env::sim_manual(1);
    let open = |fs: &SimFs| {
        let env = env.with_file_system(Arc::new(fs.clone()));
        builder("db", &env).advanced(|options| options.memtable_bytes = Some(1 << 20)).open()
    };
    let rows = |db: &Db| db.default_keyspace().iter().filter(|entry| entry.is_ok()).count();
    let db = open(&fs).expect("it opens");
    for number in 0..ROWS {
        db.default_keyspace().put(number.to_be_bytes(), [7; 1000]).expect("written");
    }
    fs.crash_at(0);
    let left = fs.kill();
    drop(db);
    let logs = left.files().into_iter().filter(|path| path.extension().is_some_and(|name| name == "wal"));
    let mut logs: Vec<(PathBuf, Vec<u8>)> =
        logs.map(|path| (path.clone(), left.read_file(&path).expect("it is there"))).collect();
    logs.sort();
    let [(first_path, first), (_, second), ..] = &logs[..] else { panic!("two segments: {}", logs.len()) };
    assert!(second[DATA_OFFSET] != 0, "the rows reach into the second segment");
    let strange = Path::new("db").join(FileName::Log(FileNumber(1000)).format());
    let behind = |header: &[u8]| [header, &second[HEADER_BYTES..]].concat();

    // Without its first record the log ends at once: the second segment is not needed, and may be
    // removed.
    let mut torn = first.clone();
    torn[DATA_OFFSET..DATA_OFFSET + 16].fill(0);
    left.write_file(first_path, &torn).expect("replaced");
    let db = open(&left).expect("it opens");
    assert_eq!(rows(&db), 0, "the first record is gone");
    db.default_keyspace().put("after", "").expect("written");
    let left = left.kill();
    drop(db);
    for (what, bytes) in [
        ("a whole segment", second.clone()),
        ("half a segment", second[..second.len() / 2].to_vec()),
        ("records without a header", behind(&[0; HEADER_BYTES])),
        ("records after garbage", behind(&[0x5A; HEADER_BYTES])),
        ("zeros", vec![0; second.len()]),
    ] {
        let image = left.kill();
        image.write_file(&strange, &bytes).expect("made");
        let db = open(&image).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(rows(&db), 1, "{what}");
        // Its length and its zeros may be in memory only, and a sync of a part of the file would
        // not change that: it is not reused. A file without proof of origin is foreign.
        let left = image.read_file(&strange).ok();
        let is_ours = ["a whole segment", "half a segment", "zeros"].contains(&what);
        assert_eq!(left, if is_ours { None } else { Some(bytes) }, "{what}");
    }
    // A segment that is needed, under another number: its header is damaged.
    let mut logs = left.files().into_iter().map(|path| left.read_file(path).expect("it is there"));
    let is_needed = |bytes: &Vec<u8>| bytes.windows(5).any(|at| at == b"after");
    let bytes = logs.find(is_needed).expect("the log of the second open");
    left.write_file(&strange, &bytes).expect("made");
    let error = open(&left).map(drop).expect_err("a needed record follows an invalid header");
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
}

/// A misplaced write that stores a whole block in the place of another.
pub(super) fn swapped_blocks() {
    const BLOCK: usize = 4096;
    let (env, fs) = Env::sim(1);
    let open =
        || builder("db", &env).advanced(|options| options.block_bytes = BLOCK).open().expect("it opens");
    let db = open();
    let value = |number: u32| [number as u8; 100];
    for number in 0..400u32 {
        db.default_keyspace().put(number.to_be_bytes(), value(number)).expect("written");
    }
    db.close().expect("closed");
    let table = fs.files().into_iter().find(|path| path.extension().is_some_and(|name| name == "sst"));
    let table = table.expect("a close flushes");
    let mut bytes = fs.read_file(&table).expect("it is there");
    let (first, second) = bytes[..2 * BLOCK].split_at_mut(BLOCK);
    first.swap_with_slice(second);
    fs.write_file(&table, &bytes).expect("replaced");
    let db = open();
    for number in 0..400u32 {
        match db.default_keyspace().get(number.to_be_bytes()) {
            Ok(got) => assert_eq!(got.as_deref(), Some(&value(number)[..]), "key {number}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "{error}"),
        }
    }
    assert!(db.default_keyspace().get(0u32.to_be_bytes()).is_err(), "two blocks were swapped");
}

pub(super) fn crafted_index() {
    let mut index = TableIndexColumns::default();
    index.push(&[], 0, u32::MAX, false).expect("one block");
    index.data_len = 64;
    let mut payload = Vec::new();
    index.encode(&mut payload);
    assert!(TableIndexColumns::decode(&payload).is_err(), "a block of 64 bytes announces 4 GiB");
}

pub(super) fn crafted_footer() {
    let section = |offset: u64, len: u64| SectionHandle { offset, len };
    // The second section begins at the overflowed end of the first.
    let footer = TableFooter {
        data_len: 4096,
        filter: section(4096, u64::MAX - 95),
        index: section(4000, 50),
        properties: section(4050, 50),
        database: 0,
    };
    let bytes = footer.encode(FileNumber(7));
    let decoded = TableFooter::decode(&bytes, FileNumber(7), 4100 + FOOTER_BYTES as u64);
    assert!(decoded.is_err(), "sections overlap the data: {decoded:?}");
}
