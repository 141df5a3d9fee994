//! The segments of the log: their number, their exhaustion, and the end of the positions that they
//! represent.
use crate::harness::{builder, eventually};
use crate::sim::positions::begin_at;
use sapwood::{BackgroundStep, Db, Durability, Env, ErrorKind, Health, WriteOptions};
use sapwood_base::SequenceNumber;
use sapwood_storage::sim::SimFs;
use std::path::Path;

const SEGMENT: usize = 64 << 10;

fn log_files(fs: &SimFs) -> usize {
    fs.files().iter().filter(|path| path.extension().is_some_and(|extension| extension == "wal")).count()
}

pub(super) fn spare() {
    let (env, fs) = Env::sim_manual(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    keyspace.put("large", vec![7; 16 << 20]).expect("written");
    assert!(log_files(&fs) > 200, "a value of 16 MiB fills segments of 64 KiB");
    keyspace.delete("large").expect("written");
    db.flush().expect("flushed");
    let (files, mapped) = (log_files(&fs), db.memory().wal);
    assert!(files < 16 && mapped < 16 * SEGMENT as u64, "{files} files, {mapped} bytes are kept");
    // Released segments are created again on demand.
    for round in 0..3 {
        keyspace.put("large", vec![round; 4 << 20]).expect("written");
        db.flush().expect("flushed");
    }
    db.close().expect("closed");
    drop((keyspace, db));
    assert!(log_files(&fs) < 16);
    let db = builder("db", &env).open().expect("it opens");
    let value = db.default_keyspace().get("large").expect("read").expect("there");
    assert!(value.len() == 4 << 20 && value.iter().all(|byte| *byte == 2));
}

/// The lengths of the files of the log, ascending.
fn log_lengths(fs: &SimFs) -> Vec<usize> {
    let paths = fs.files().into_iter();
    let logs = paths.filter(|path| path.extension().is_some_and(|extension| extension == "wal"));
    let mut lengths: Vec<usize> =
        logs.filter_map(|path| fs.read_file(&path).ok().map(|bytes| bytes.len())).collect();
    lengths.sort_unstable();
    lengths
}

pub(super) fn short() {
    const FIRST: usize = 8 << 10;
    let (env, fs) = Env::sim_manual(1);
    let open = || {
        let builder = builder("db", &env).advanced(|options| options.wal_segment_bytes = 0);
        builder.open().expect("it opens")
    };
    let put = |db: &Db, numbers: std::ops::Range<u32>| {
        for number in numbers {
            db.default_keyspace().put(number.to_be_bytes(), [7; 100]).expect("written");
            db.background_step(BackgroundStep::Log).expect("open");
        }
    };
    for round in 0..3 {
        let db = open();
        put(&db, 0..10);
        assert_eq!(log_lengths(&fs), [FIRST], "ten rows, session {round}");
        assert_eq!(db.memory().wal, FIRST as u64);
        db.close().expect("closed");
        assert_eq!(log_lengths(&fs), [FIRST], "it serves the next session");
    }
    // The next one is there before the first is full.
    let db = open();
    put(&db, 0..20);
    assert_eq!(log_lengths(&fs), [FIRST, 4 * FIRST]);
    // Few segments: if there are more than the log keeps, short ones are removed as surplus.
    put(&db, 0..3000);
    db.flush().expect("flushed");
    let lengths = log_lengths(&fs);
    assert!(lengths.iter().all(|length| *length == 256 << 10), "{lengths:?} of a log that has grown");
    put(&db, 0..20_000);
    db.flush().expect("flushed");
    let lengths = log_lengths(&fs);
    assert!(lengths.iter().all(|length| *length == 256 << 10), "{lengths:?} of a long log");
    assert!(lengths.len() < 16 && db.memory().wal == lengths.iter().sum::<usize>() as u64);
    // All lengths are replayed.
    drop(db);
    let db = open();
    put(&db, 30_000..30_600);
    let lengths = log_lengths(&fs);
    assert!(lengths.starts_with(&[FIRST, 4 * FIRST, 16 * FIRST]), "{lengths:?}");
    let left = fs.kill();
    std::mem::forget(db);
    let env = env.with_file_system(std::sync::Arc::new(left.clone()));
    let db = builder("db", &env).advanced(|options| options.wal_segment_bytes = 0).open().expect("it opens");
    assert_eq!(db.default_keyspace().iter().count(), 20_600);
    db.flush().expect("flushed");
    // Besides the first one of this session, which is in use.
    let lengths = log_lengths(&left);
    let others = lengths.strip_prefix(&[FIRST]).expect("it is the shortest");
    assert!(others.iter().all(|length| *length == 256 << 10), "{lengths:?} after the flush");
}

pub(super) fn full() {
    // With threads, since the log's thread meets the end first.
    let (env, _fs) = Env::sim(1);
    let open = || {
        builder("db", &env)
            .memory_budget(600 << 20)
            .advanced(|options| {
                options.memtable_bytes = Some(160 << 20);
                options.wal_segment_bytes = SEGMENT;
            })
            .open()
            .expect("it opens")
    };
    let db = open();
    let keyspace = db.default_keyspace();
    // 1024 segments are 64 MiB, less than a memtable.
    for number in 0..1200u32 {
        keyspace.put(number.to_be_bytes(), vec![7; 100_000]).expect("a flush releases segments");
    }
    assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
    let error = keyspace.put("too long", vec![7; 80 << 20]).expect_err("longer than all segments");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(error.to_string().contains("wal_segment_bytes"), "{error}");
    // Without a flush there is no space, and with background work paused there is no flush.
    db.pause_background().expect("paused");
    let refused = (0..2000u32).find_map(|number| keyspace.put(number.to_be_bytes(), vec![8; 100_000]).err());
    assert_eq!(refused.expect("the log is full at some time").kind(), ErrorKind::Paused);
    db.resume_background();
    eventually("writes continue", || keyspace.put("later", "").is_ok());
    db.close().expect("closed");
    drop((keyspace, db));
    assert_eq!(open().default_keyspace().iter().count(), 1201);
}

/// The end of the positions.
const END: u64 = SequenceNumber::MAX.0 + 1 - (1 << 20);

pub(super) fn position_limit() {
    let units = (SEGMENT / 8) as u64;
    let short = [units + 100, units + 101, units + 102, units + 103];
    let distances = [&[3, units - 1][..], &short, &[10 * units, 60 * units, 100 * units]].concat();
    for (number, distance) in distances.into_iter().enumerate() {
        let (env, fs) = Env::sim_manual(distance);
        begin_at(&fs, Path::new("db"), END - distance).expect("made");
        let mut expected = 0;
        for round in 0..40u32 {
            let open = || -> Db { builder("db", &env).open().expect("it opens") };
            let db = open();
            let keyspace = db.default_keyspace();
            assert_eq!(keyspace.iter().count(), expected, "{distance} units before the end, session {round}");
            let before = expected;
            let end = loop {
                match keyspace.put(format!("{round} {expected}"), [1; 100]) {
                    Ok(()) => expected += 1,
                    Err(error) => break error,
                }
                if expected > 120_000 {
                    panic!("{distance} units suffice for {expected} rows");
                }
                if expected.is_multiple_of(20_000) {
                    for step in BackgroundStep::ALL {
                        db.background_step(step).expect("open");
                    }
                }
            };
            assert_eq!(end.kind(), ErrorKind::Unsupported, "{end}");
            // Shorter ones, up to the very last position.
            for len in (0..100).step_by(8).rev() {
                while keyspace.put(format!("{round} {expected}"), vec![1; len]).is_ok() {
                    expected += 1;
                }
            }
            if expected > before {
                let last = db.snapshot().sequence().0;
                if last >= END - units {
                    // A flush, and so a close, would wait forever for a position after the rows.
                    std::mem::forget(db.clone());
                    panic!("rows fill the positions up to {last}, and nothing else fits");
                }
            }
            let synced = WriteOptions { durability: Some(Durability::Sync) };
            assert!(keyspace.put_with("synced", [1; 100], &synced).is_err());
            db.sync().expect("the rows are synced");
            for step in BackgroundStep::ALL {
                db.background_step(step).expect("open");
            }
            assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
            // In most cases in the first session, too, which has rows to flush.
            if round % 3 == u32::from(number.is_multiple_of(4)) {
                db.flush().expect("flushed");
                db.compact().expect("compacted");
            }
            if round % 5 == 4 {
                // The log is replayed.
                let left = fs.kill();
                let db =
                    builder("db", &env.with_file_system(std::sync::Arc::new(left))).open().expect("it opens");
                assert_eq!(db.default_keyspace().iter().count(), expected);
                db.flush().expect("flushed");
                db.close().expect("closed");
            }
            db.close().expect("closed");
        }
    }
}
