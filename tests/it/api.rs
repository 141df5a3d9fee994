//! The edges of the interface: sizes of keys and values, durability, second opens, closes,
//! destroys, statistics.
#![allow(clippy::disallowed_methods, reason = "looks at the real file system from outside")]
use sapwood::{
    Builtin, Db, Durability, Env, ErrorKind, Field, Health, IndexOptions, KeyKind, KeyspaceOptions,
    MAX_KEY_BYTES, MAX_VALUE_BYTES, WriteOptions,
};
use sapwood_tests::harness::{builder, contents, eventually, small, within};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

fn small_db(path: &Path) -> Db {
    Db::builder(path).memory_budget(8 << 20).advanced(small).open().unwrap()
}

fn count(path: &Path, extension: &str) -> usize {
    std::fs::read_dir(path)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|found| found == extension))
        .count()
}

fn table_bytes(path: &Path) -> u64 {
    std::fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|found| found == "sst"))
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

#[test]
fn keys_and_values_of_every_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let db = Db::builder(&path).memory_budget(64 << 20).open().unwrap();
    let keyspace = db.default_keyspace();
    let longest = vec![0xAB; MAX_KEY_BYTES];
    let large: Vec<u8> = (0..64usize << 20).map(|i| (i / 4099) as u8).collect();
    keyspace.put("", "empty key").unwrap();
    keyspace.put("empty value", "").unwrap();
    keyspace.put(&longest, "longest key").unwrap();
    keyspace.put("large", &large).unwrap();
    let check = |db: &Db| {
        let keyspace = db.default_keyspace();
        assert_eq!(keyspace.get("").unwrap().as_deref(), Some(&b"empty key"[..]));
        assert_eq!(keyspace.get("empty value").unwrap().as_deref(), Some(&b""[..]));
        assert_eq!(keyspace.get(&longest).unwrap().as_deref(), Some(&b"longest key"[..]));
        assert!(keyspace.get("large").unwrap().as_deref() == Some(&large[..]));
        assert_eq!(keyspace.get_with("large", <[u8]>::len).unwrap(), Some(large.len()));
        assert!(!keyspace.contains("absent").unwrap());
        assert_eq!(keyspace.iter().count(), 4);
        assert_eq!(keyspace.iter().next().unwrap().unwrap().key(), b"");
    };
    check(&db);

    let too_long = vec![0; MAX_KEY_BYTES + 1];
    let too_large = vec![0; MAX_VALUE_BYTES + 1];
    let mut batch = db.batch();
    batch.put(&keyspace, "half", "").put(&keyspace, &too_long, "");
    for error in [
        keyspace.put(&too_long, "").unwrap_err(),
        keyspace.delete(&too_long).unwrap_err(),
        keyspace.put("k", &too_large).unwrap_err(),
        batch.commit().map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains("limit"), "{error}");
    }
    assert_eq!(keyspace.get("half").unwrap(), None);
    // A key that cannot be written cannot exist.
    assert_eq!(keyspace.get(&too_long).unwrap(), None);

    db.flush().unwrap();
    check(&db);
    db.compact().unwrap();
    check(&db);
    drop(keyspace);
    db.close().unwrap();
    drop(db);
    check(&Db::builder(&path).memory_budget(64 << 20).open().unwrap());
}

#[test]
fn what_each_durability_survives() {
    let (env, fs) = Env::sim(1);
    let db = builder("/db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    let put = |key: &str, durability| {
        keyspace.put_with(key, "", &WriteOptions { durability: Some(durability) }).unwrap();
    };
    put("flushed", Durability::None);
    db.flush().unwrap();
    put("sync", Durability::Sync);
    put("none", Durability::None);
    put("buffered", Durability::Buffered);
    let after = |fs: sapwood_storage::sim::SimFs| {
        let db = builder("/db", &env.with_file_system(Arc::new(fs))).open().unwrap();
        let keyspace = db.default_keyspace();
        ["flushed", "sync", "none", "buffered"].map(|key| keyspace.contains(key).unwrap())
    };
    assert_eq!(after(fs.kill()), [true, true, false, true]);
    assert_eq!(after(fs.crash(0)), [true, true, false, false]);
    db.sync().unwrap();
    assert_eq!(after(fs.crash(0)), [true, true, false, true]);
    put("periodic", Durability::Periodic(Duration::from_millis(1)));
    eventually("the periodic sync", || {
        let db = builder("/db", &env.with_file_system(Arc::new(fs.crash(0)))).open().unwrap();
        db.default_keyspace().contains("periodic").unwrap()
    });
    // A close saves unlogged commits.
    db.close().unwrap();
    assert_eq!(after(fs.crash(0)), [true; 4]);
}

#[test]
fn a_database_is_open_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let db = small_db(&path);
    for read_only in [false, true] {
        let error = Db::builder(&path).read_only(read_only).open().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    }
    assert_eq!(Db::destroy(&path).unwrap_err().kind(), ErrorKind::Locked);
    // Another process gets the error, too.
    let output = Command::new(env!("CARGO_BIN_EXE_kill_child"))
        .arg(&path)
        .args(["1", "0", "1", "rich"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("open"), "{output:?}");
    db.default_keyspace().put("still", "writable").unwrap();
    // The last handle closes.
    let keyspace = db.default_keyspace();
    drop(db);
    assert_eq!(Db::open(&path).map(drop).unwrap_err().kind(), ErrorKind::Locked);
    drop(keyspace);
    small_db(&path).close().unwrap();
}

#[test]
fn a_closed_database_says_so() {
    within(Duration::from_secs(60), "closing", || {
        let folder = tempfile::tempdir().unwrap();
        let db = small_db(&folder.path().join("db"));
        let keyspace = db.default_keyspace();
        keyspace.put("a", "1").unwrap();
        let snapshot = db.snapshot();
        let mut cursor = keyspace.cursor().unwrap();
        // A pause does not prevent the last flush.
        db.pause_background().unwrap();
        db.close().unwrap();
        db.close().unwrap();
        for error in [
            keyspace.put("b", "").unwrap_err(),
            keyspace.get("a").map(drop).unwrap_err(),
            keyspace.get_at("a", &snapshot).map(drop).unwrap_err(),
            keyspace.multi_get(&["a"]).map(drop).unwrap_err(),
            keyspace.iter().next().unwrap().map(drop).unwrap_err(),
            keyspace.cursor().map(drop).unwrap_err(),
            keyspace.approximate_size::<&str>(..).map(drop).unwrap_err(),
            db.keyspace("default", KeyspaceOptions::default()).map(drop).unwrap_err(),
            db.keyspace("new", KeyspaceOptions::default()).map(drop).unwrap_err(),
            db.list_keyspaces().map(drop).unwrap_err(),
            db.flush().unwrap_err(),
            db.sync().unwrap_err(),
            db.compact().unwrap_err(),
            db.pause_background().unwrap_err(),
            db.batch().put(&keyspace, "b", "").commit().map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        }
        // A cursor owns its current row.
        cursor.seek_to_first().unwrap();
        assert_eq!((cursor.key(), cursor.value()), (&b"a"[..], &b"1"[..]));
    });
}

#[test]
fn destroy_takes_the_database_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    Db::destroy(&path).unwrap();
    let db = small_db(&path);
    db.default_keyspace().put("a", "1").unwrap();
    db.close().unwrap();
    drop(db);
    std::fs::write(path.join("notes.txt"), "mine").unwrap();
    std::fs::write(path.join("7.sst"), "mine").unwrap();
    Db::destroy(&path).unwrap();
    let mut left: Vec<_> =
        std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["7.sst", "notes.txt"]);
    // Without a database the directory is not the engine's: a mistyped path is reported.
    assert_eq!(Db::destroy(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(path.join("notes.txt").exists() && path.join("7.sst").exists());
    std::fs::remove_file(path.join("notes.txt")).unwrap();
    std::fs::remove_file(path.join("7.sst")).unwrap();
    small_db(&path).close().unwrap();
    Db::destroy(&path).unwrap();
    assert!(!path.exists());
}

#[test]
fn deleted_data_gives_its_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let db = small_db(&path);
    let keyspace = db.default_keyspace();
    for round in 0..3 {
        for i in 0..4000u32 {
            keyspace.put(i.to_be_bytes(), vec![round; 200]).unwrap();
        }
    }
    db.compact().unwrap();
    // Each key once.
    eventually("overwritten values vanish", || table_bytes(&path) < 2 << 20);
    assert!(table_bytes(&path) > 4000 * 200);
    let whole = keyspace.approximate_size::<&[u8]>(..).unwrap();
    assert!(whole > 700_000 && whole <= table_bytes(&path), "{whole}");
    let half = keyspace.approximate_size(0u32.to_be_bytes()..2000u32.to_be_bytes()).unwrap();
    assert!(half > whole / 3 && half < whole * 2 / 3, "{half} of {whole}");
    assert!(keyspace.approximate_size([9u8; 4]..[10u8; 4]).unwrap() < whole / 10);

    let snapshot = db.snapshot();
    for i in 0..4000u32 {
        keyspace.delete(i.to_be_bytes()).unwrap();
    }
    db.compact().unwrap();
    assert!(table_bytes(&path) > 4000 * 200, "the snapshot still sees it");
    assert_eq!(keyspace.iter().at(&snapshot).count(), 4000);
    drop(snapshot);
    db.compact().unwrap();
    eventually("files of deleted data vanish", || count(&path, "sst") == 0);
    assert_eq!(keyspace.iter().count(), 0);
    assert_eq!(keyspace.approximate_size::<&[u8]>(..).unwrap(), 0);
    // The log is recycled, and does not accumulate.
    assert!(count(&path, "wal") < 20, "{} segments", count(&path, "wal"));
}

#[test]
fn figures_are_sane() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let db = Db::builder(&path)
        .memory_budget(16 << 20)
        .advanced(|options| {
            options.memtable_bytes = Some(1 << 20);
            options.wal_segment_bytes = 256 << 10;
            options.target_file_bytes = 512 << 10;
            // Inputs of an unfinished compaction count completely.
            options.idle_compaction = false;
        })
        .open()
        .unwrap();
    let keyspace = db.default_keyspace();
    for i in 0..60_000u64 {
        keyspace.put(i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes(), vec![i as u8; 200]).unwrap();
        if i % 10_000 == 0 {
            let memory = db.memory();
            assert_eq!(memory.budget, 16 << 20);
            // In addition there are the log's mappings, which are file pages; a quarter is for
            // rounding.
            assert!(memory.total() - memory.wal < 20 << 20, "{memory:?}");
        }
    }
    db.flush().unwrap();
    db.wait_for_background().unwrap();
    for i in 0..60_000u64 {
        assert!(keyspace.contains(i.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes()).unwrap());
    }
    let memory = db.memory();
    assert!(memory.total() - memory.wal < 20 << 20, "{memory:?}");
    let stats = db.stats();
    let bytes = 60_000 * 208;
    assert!(stats.wal_bytes_written > bytes && stats.wal_bytes_written < 2 * bytes);
    assert!(stats.flushes >= 10 && stats.flush_bytes_written > bytes / 2);
    assert!(stats.compactions > 0 && stats.write_amplification() > 1.0);
    assert_eq!(stats.memtables, 1);
    let [only] = stats.keyspaces.as_slice() else { panic!("{stats}") };
    let entries: u64 = only.levels.iter().map(|level| level.entries).sum();
    assert_eq!((only.name.as_str(), entries), ("default", 60_000));
    assert_eq!(only.levels.iter().map(|level| level.runs).sum::<usize>(), only.runs);
    eventually("obsolete files vanish", || {
        count(&path, "sst") == only.levels.iter().map(|level| level.files).sum::<usize>()
    });
    assert_eq!(only.bytes, table_bytes(&path));
    assert!(stats.to_string().contains("default"));
    assert!(matches!(db.health(), Health::Good));
    assert_eq!(contents(&keyspace).unwrap().len(), 60_000);
}

#[test]
fn what_open_tables_keep_is_part_of_the_budget_unless_the_cache_has_a_size() {
    for (cache_bytes, fits) in [(None, true), (Some(5 << 20), false)] {
        let (env, _) = Env::sim_manual(1);
        let mut options = builder("/db", &env).memory_budget(8 << 20).advanced(|options| {
            options.cache_bytes = cache_bytes;
            options.memtable_bytes = Some(1 << 20);
            // Large filters, so that the difference exceeds the effects of rounding.
            options.filter_bits_per_key = 32.0;
        });
        let db = options.clone().open().unwrap();
        let keyspace = db.default_keyspace();
        for i in 0..150_000u64 {
            keyspace.put(i.to_be_bytes(), [i as u8; 40]).unwrap();
        }
        db.settle().unwrap();
        drop((keyspace, db));
        options = options.create_if_missing(false);
        let db = options.open().unwrap();
        let keyspace = db.default_keyspace();
        for i in 0..150_000u64 {
            assert!(keyspace.get(i.to_be_bytes()).unwrap().is_some());
        }
        let memory = db.memory();
        assert!(memory.table_metadata > 600 << 10, "{memory:?}");
        let read = memory.cache + memory.table_metadata;
        // Slabs and their metadata are rounded up.
        assert_eq!(read < (5 << 20) + (300 << 10), fits, "{memory:?}");
    }
}

#[test]
fn a_settled_database_is_in_one_run_and_its_indexes_in_their_trees() {
    for idle_compaction in [true, false] {
        let (env, _) = Env::sim_manual(1);
        let db = builder("/db", &env).advanced(|o| o.idle_compaction = idle_compaction).open().unwrap();
        let keyspace = db.default_keyspace();
        let first = Builtin::new(Field::value().separated(b' ', 0), KeyKind::Bytes);
        let index = keyspace.create_index("first", IndexOptions::builtin(first)).unwrap();
        for round in 0..5u8 {
            for i in 0..400u32 {
                keyspace.put(i.to_be_bytes(), vec![round; 100]).unwrap();
            }
            keyspace.put("last", [9u8; 100]).unwrap();
            if round < 4 {
                db.flush().unwrap();
            }
        }
        db.settle().unwrap();
        for space in &db.stats().keyspaces {
            let levels: Vec<_> = space.levels.iter().map(|level| (level.level, level.runs)).collect();
            match &space.tree {
                Some(tree) => assert_eq!((tree.entries, levels), (401, vec![])),
                None => assert_eq!((space.space_amplification, levels), (1.0, vec![(6, 1)])),
            }
        }
        assert_eq!(index.count::<&[u8]>(..).unwrap(), 401);
        assert_eq!(keyspace.iter().count(), 401);
    }
}

#[test]
fn bad_settings_are_refused_with_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let error = Db::builder(&path).memory_budget(1).open().map(drop).unwrap_err();
    assert!(error.to_string().contains("memory_budget"), "{error}");
    let error = Db::builder(&path).advanced(|o| o.block_bytes = 1).open().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(!path.exists(), "a bad setting creates no directory");
}

#[test]
fn handles_travel_between_threads() {
    fn travels<T: Send + 'static>() {}
    fn is_shared<T: Send + Sync + Clone + 'static>() {}
    is_shared::<Db>();
    is_shared::<sapwood::Keyspace>();
    is_shared::<sapwood::Snapshot>();
    is_shared::<sapwood::Slice>();
    travels::<sapwood::WriteBatch>();
    travels::<sapwood::Commit>();
    travels::<sapwood::Cursor>();
    travels::<sapwood::Iter>();
    travels::<sapwood::Error>();
}

/// A database held every table of its session, and so their files, until the close; only the next
/// open removed them.
#[test]
fn files_of_an_earlier_opening_vanish_when_they_are_compacted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let fill = |db: &Db| {
        for number in 0..5_000u32 {
            db.default_keyspace().put(number.to_be_bytes(), [7; 100]).unwrap();
        }
        db.flush().unwrap();
    };
    let db = Db::open(&path).unwrap();
    fill(&db);
    db.close().unwrap();
    drop(db);
    let db = Db::open(&path).unwrap();
    fill(&db);
    db.compact().unwrap();
    eventually("tables of the earlier session vanish", || count(&path, "sst") == 1);
}

/// After the start of a thread's destructors, some of its thread-local values are gone.
#[test]
fn a_thread_that_is_torn_down_reads_and_writes() {
    struct Last(Option<Db>, u8);

    impl Drop for Last {
        fn drop(&mut self) {
            let db = self.0.take().unwrap();
            let keyspace = db.default_keyspace();
            let indexed = db.keyspace("indexed", KeyspaceOptions::default()).unwrap();
            let index = indexed.index("first").unwrap();
            keyspace.put([self.1, 1], "put").unwrap();
            keyspace.delete([self.1, 0]).unwrap();
            indexed.put([self.1], "entry").unwrap();
            let mut batch = db.batch();
            batch.put(&keyspace, [self.1, 2], "batch").put(&indexed, [self.1, 1], "other");
            let _ = batch.commit().unwrap();
            assert!(keyspace.contains("compressed-100").unwrap());
            assert_eq!(keyspace.multi_get(&["compressed-7", "compressed-8"]).unwrap().len(), 2);
            assert!(keyspace.iter().count() > 1000);
            assert!(index.get("e").count() > 0);
            let mut rows = 0;
            index.get_with("e", |_, _| rows += 1).unwrap();
            assert!(rows > 0);
            db.flush().unwrap();
        }
    }

    thread_local! {
        static EARLY: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) };
        static LATE: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) };
    }

    let folder = tempfile::tempdir().unwrap();
    for codec in [sapwood::Codec::Zstd(1), sapwood::Codec::Lz4] {
        let path = folder.path().join(format!("{codec:?}"));
        let db = builder(&path, &Env::os()).advanced(|options| options.compression = codec).open().unwrap();
        let keyspace = db.default_keyspace();
        for number in 0..1000 {
            keyspace.put(format!("compressed-{number}"), vec![b'a'; 300]).unwrap();
        }
        let indexed = db.keyspace("indexed", KeyspaceOptions::default()).unwrap();
        let first = Builtin::new(Field::value().range(0, 1), KeyKind::Bytes);
        indexed.create_index("first", IndexOptions::builtin(first)).unwrap();
        db.flush().unwrap();
        let handle = db.clone();
        let thread = std::thread::spawn(move || {
            // One value is destroyed after the database's own values, one before, in either order
            // of destruction.
            EARLY.with(|early| *early.borrow_mut() = Some(Last(Some(handle.clone()), 1)));
            let keyspace = handle.default_keyspace();
            keyspace.put("in between", "").unwrap();
            assert!(keyspace.contains("compressed-1").unwrap());
            let indexed = handle.keyspace("indexed", KeyspaceOptions::default()).unwrap();
            indexed.put("row", "entry").unwrap();
            indexed.index("first").unwrap().get_with("e", |_, _| ()).unwrap();
            LATE.with(|late| *late.borrow_mut() = Some(Last(Some(handle), 2)));
        });
        thread.join().unwrap();
        for number in [1u8, 2] {
            assert_eq!(keyspace.get([number, 2]).unwrap().as_deref(), Some(&b"batch"[..]));
        }
        db.close().unwrap();
    }
}

/// On a full disk, calls that wait for background work return its error.
#[test]
fn waits_for_background_work_end_on_a_full_disk() {
    let (env, fs) = Env::sim(1);
    // Merges happen on request only.
    let only_asked = |options: &mut sapwood::AdvancedOptions| {
        options.idle_compaction = false;
        options.level0_runs = 16;
    };
    let db = builder("db", &env).advanced(only_asked).open().unwrap();
    let keyspace = db.default_keyspace();
    let fill = |round: u8| {
        for number in 0..400u32 {
            keyspace.put(number.to_be_bytes(), [round; 200]).unwrap();
        }
    };
    fill(0);
    db.flush().unwrap();
    for number in 0..399u32 {
        keyspace.delete(number.to_be_bytes()).unwrap();
    }
    db.flush().unwrap();
    fs.set_capacity_bytes(Some(1));
    let waiting = db.clone();
    let error = within(Duration::from_secs(30), "settle", move || waiting.settle().unwrap_err());
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    // Background work finds new space, even after failures for a while.
    std::thread::sleep(Duration::from_millis(300));
    fs.set_capacity_bytes(None);
    let waiting = db.clone();
    within(Duration::from_secs(30), "settle", move || waiting.settle().unwrap());
    fill(3);
    db.close().unwrap();
}
