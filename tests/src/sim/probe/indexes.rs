//! Secondary indexes: the log, pauses, snapshots, and pages of trees.
use crate::harness::builder;
use sapwood::{
    BackgroundStep, Builtin, Db, DbBuilder, Durability, Env, Error, ErrorKind, Field, IndexOptions, KeyKind,
    Maintenance, Result, WriteOptions,
};
use std::sync::Arc;
use std::time::Duration;

/// An index on the first byte of values, which covers some of the following bytes.
pub(super) fn first_byte() -> IndexOptions {
    let covering = Field::value().range(1, 120);
    IndexOptions::builtin(Builtin::new(Field::value().range(0, 1), KeyKind::Bytes).covering(covering))
}

/// Commits without a log record, and one with a log record, of the same row.
pub(super) fn index_log() {
    let (env, fs) = Env::sim_manual(1);
    let strict = || first_byte().maintenance(Maintenance::Strict);
    let without_log = WriteOptions { durability: Some(Durability::None) };
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    keyspace.create_index("first", strict()).expect("made");
    keyspace.put("row", "a").expect("written");
    keyspace.put_with("row", "b", &without_log).expect("written");
    keyspace.put("row", "c").expect("written");
    fs.crash_at(0);
    drop((keyspace, db));
    let env = env.with_file_system(Arc::new(fs.kill()));
    let db = builder("db", &env).open().expect("it opens");
    let index = db.default_keyspace().create_index("first", strict()).expect("it is there");
    let report = index.verify().expect("read");
    assert!(report.is_right(), "the index disagrees with its row: {report:?}");
}

/// Opens that name indexes: one that exists, one that does not, and neither of two.
pub(super) fn index_named() {
    let (mut env, mut fs) = Env::sim_manual(1);
    let second_byte = || IndexOptions::new(|_key, value, emit| emit.key(&value[1..2]));
    let named = |env: &Env, names: &[&str]| {
        let add = |builder: DbBuilder, name: &&str| match *name {
            "first" => builder.index("default", "first", first_byte()),
            name => builder.index("default", name, second_byte()),
        };
        names.iter().fold(builder("db", env), add).open()
    };
    for names in [&["first"][..], &["first", "second"], &["second"]] {
        let db = named(&env, names).expect("it opens");
        let keyspace = db.default_keyspace();
        keyspace.put(names.len().to_be_bytes(), "ab").expect("every index has its code");
        for name in names {
            let report = keyspace.index(name).expect("it was named").verify().expect("read");
            assert!(report.is_right() && report.entries > 0, "{name}: {report:?}");
        }
        fs = fs.kill();
        drop((keyspace, db));
        env = env.with_file_system(Arc::new(fs.clone()));
    }
    let db = named(&env, &[]).expect("it opens");
    db.default_keyspace().create_index("third", second_byte()).expect("made");
    db.close().expect("closed");
    let error = named(&env, &["first", "second"]).map(drop).expect_err("the third is left out");
    assert!(error.kind() == ErrorKind::IndexUnavailable && error.to_string().contains("third"), "{error}");
}

/// A guard that an early return drops, and a pause that ends by a call.
pub(super) fn pause_guard() {
    let (env, _fs) = Env::sim_manual(1);
    let db = builder("db", &env).open().expect("it opens");
    let fails = |db: &Db| -> Result<()> {
        let _pause = db.pause_guard()?;
        Err(Error::invalid_argument("the work of the application fails"))
    };
    fails(&db).expect_err("it fails");
    db.pause_background().expect("paused");
    db.resume_background();
    db.default_keyspace().put("row", "a").expect("written");
    db.flush().expect("work continues");
}

pub(super) fn index_snapshot() {
    let (env, _fs) = Env::sim_manual(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("first", first_byte()).expect("made");
    let write = |letter: &str| {
        for number in 0..50u32 {
            keyspace.put(number.to_be_bytes(), letter).expect("written");
        }
    };
    write("a");
    db.flush().expect("flushed");
    let snapshot = db.snapshot();
    for letter in ["b", "c"] {
        write(letter);
        db.flush().expect("flushed");
        db.compact().expect("merged");
    }
    for (letter, old, new) in [("a", 50, 0), ("b", 0, 0), ("c", 0, 50)] {
        assert_eq!(index.get(letter).at(&snapshot).count(), old, "{letter} at the snapshot");
        assert_eq!(index.get(letter).count(), new, "{letter} now");
    }
}

/// An index scan that reads a tree page by page while two later states of the tree are written.
pub(super) fn index_pages() {
    const ROWS: u32 = 4000;
    let (env, _fs) = Env::sim_manual(1);
    let db = builder("db", &env)
        .advanced(|options| options.memtable_bytes = Some(1 << 20))
        .open()
        .expect("it opens");
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("first", first_byte()).expect("made");
    let put = |number: u32, round: u8| {
        let value = [&b"a"[..], &[round; 120]].concat();
        keyspace.put(number.to_be_bytes(), value).expect("written");
    };
    let merge_when_idle = || {
        for _ in 0..2 {
            env.sleep(Duration::from_secs(2));
            while db.background_step(BackgroundStep::Compaction).expect("merged") {}
        }
    };
    (0..ROWS).for_each(|number| put(number, 0));
    db.compact().expect("merged");
    // The remaining rows of this range move to other places among the pages.
    (0..ROWS / 3).for_each(|number| keyspace.delete(number.to_be_bytes()).expect("written"));
    (0..ROWS).skip(ROWS as usize / 3).step_by(25).for_each(|number| put(number, 1));
    db.flush().expect("flushed");
    // These rows enter the tree later, and the scan sees them too, so that no write has to wait for
    // the end of the scan.
    (0..ROWS).skip(ROWS as usize / 3 + 7).step_by(25).for_each(|number| put(number, 2));
    let mut walk = index.iter();
    let first = walk.next().expect("there are rows").expect("read");
    merge_when_idle();
    db.flush().expect("flushed");
    merge_when_idle();
    let mut expected = ROWS / 3;
    for hit in std::iter::once(Ok(first)).chain(walk) {
        let hit = hit.expect("read");
        assert_eq!(hit.primary_key(), expected.to_be_bytes(), "row {expected} comes next");
        let round = match (expected - ROWS / 3) % 25 {
            0 => 1,
            7 => 2,
            _ => 0,
        };
        assert_eq!(hit.covering(), [round; 120], "row {expected}");
        expected += 1;
    }
    assert_eq!(expected, ROWS, "the walk comes to the end");
}
