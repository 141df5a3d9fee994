//! Keyspaces: independent, created, dropped and created again.
#![allow(clippy::disallowed_methods, reason = "threads of a test")]
use sapwood::{Codec, CompactionStyle, Db, Env, ErrorKind, KeyspaceOptions};
use sapwood_tests::harness::{builder, contents, eventually, within};
use std::time::Duration;

fn open(env: &Env) -> Db {
    builder("/db", env).open().unwrap()
}

#[test]
fn a_dropped_keyspace_is_gone_with_its_files_and_its_name_is_free() {
    let (env, fs) = Env::sim(1);
    let db = open(&env);
    let tables =
        || fs.files().iter().filter(|path| path.extension().is_some_and(|found| found == "sst")).count();
    for (round, flushed) in [(0u8, true), (1, false), (2, true)] {
        let keyspace = db.keyspace("users", KeyspaceOptions::default()).unwrap();
        assert_eq!(keyspace.iter().count(), 0, "round {round}");
        for i in 0..500u32 {
            keyspace.put(i.to_be_bytes(), vec![round; 100]).unwrap();
        }
        db.default_keyspace().put([round], "stays").unwrap();
        if flushed {
            db.flush().unwrap();
            assert!(tables() > 0);
        }
        let snapshot = db.snapshot();
        let mut cursor = keyspace.cursor().unwrap();
        cursor.seek_to_first().unwrap();
        db.drop_keyspace("users").unwrap();
        for error in [
            keyspace.get(0u32.to_be_bytes()).map(drop).unwrap_err(),
            keyspace.get_at("k", &snapshot).map(drop).unwrap_err(),
            keyspace.put("k", "").unwrap_err(),
            keyspace.delete("k").unwrap_err(),
            keyspace.cursor().map(drop).unwrap_err(),
            keyspace.iter().next().unwrap().map(drop).unwrap_err(),
            keyspace.multi_get(&["k"]).map(drop).unwrap_err(),
            keyspace.compact_range::<&str>(..).unwrap_err(),
            keyspace.approximate_size::<&str>(..).map(drop).unwrap_err(),
            db.batch().put(&keyspace, "k", "").commit().map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            assert!(error.to_string().contains("users"), "{error}");
        }
        // An open cursor continues.
        let mut seen = 0;
        while cursor.valid() {
            assert_eq!(cursor.value(), [round; 100]);
            seen += 1;
            cursor.next().unwrap();
        }
        assert_eq!(seen, 500);
        assert_eq!(db.list_keyspaces().unwrap(), ["default"]);
        assert_eq!(db.drop_keyspace("users").unwrap_err().kind(), ErrorKind::NotFound);
    }
    // Only the files of the default keyspace remain on disk.
    db.compact().unwrap();
    eventually("files of dropped keyspaces vanish", || {
        // Epochs advance by the work of some thread.
        db.default_keyspace().get("nudge").unwrap();
        db.snapshot();
        let stats = db.stats();
        tables() == stats.keyspaces[0].levels.iter().map(|level| level.files).sum::<usize>()
    });
    db.close().unwrap();
    let db = open(&env);
    assert_eq!(db.list_keyspaces().unwrap(), ["default"]);
    assert_eq!(contents(&db.default_keyspace()).unwrap().len(), 3);
    assert_eq!(db.drop_keyspace("default").unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[test]
fn a_drop_holds_when_the_log_still_has_the_data() {
    let (env, fs) = Env::sim(1);
    let db = open(&env);
    let users = db.keyspace("users", KeyspaceOptions::default()).unwrap();
    users.put("a", "old").unwrap();
    db.drop_keyspace("users").unwrap();
    let again = db.keyspace("users", KeyspaceOptions::default()).unwrap();
    again.put("b", "new").unwrap();
    fs.crash_at(0);
    let left = env.with_file_system(std::sync::Arc::new(fs.kill()));
    let db = open(&left);
    let users = db.keyspace("users", KeyspaceOptions::default()).unwrap();
    assert_eq!(users.get("a").unwrap(), None);
    assert_eq!(users.get("b").unwrap().as_deref(), Some(&b"new"[..]));
}

#[test]
fn names_and_options_are_checked_and_kept() {
    let (env, _) = Env::sim(1);
    let db = open(&env);
    for name in [String::new(), "n".repeat(256)] {
        let error = db.keyspace(&name, KeyspaceOptions::default()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
    for options in [
        KeyspaceOptions { block_bytes: Some(1), ..KeyspaceOptions::default() },
        KeyspaceOptions { filter_bits_per_key: Some(-1.0), ..KeyspaceOptions::default() },
        KeyspaceOptions { filter_bits_per_key: Some(f32::NAN), ..KeyspaceOptions::default() },
    ] {
        let error = db.keyspace("bad", options).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    let options = KeyspaceOptions {
        compaction_style: Some(CompactionStyle::Leveled),
        compression: Some(Codec::Lz4),
        filter_bits_per_key: Some(0.0),
        block_bytes: Some(1024),
    };
    let odd = "naïve; name=\n".to_string();
    let longest = "n".repeat(255);
    for name in [&odd, &longest] {
        let keyspace = db.keyspace(name, options.clone()).unwrap();
        assert_eq!((keyspace.name(), keyspace.options()), (name.as_str(), &options));
        for i in 0..300u32 {
            keyspace.put(i.to_be_bytes(), [7; 300]).unwrap();
        }
    }
    db.compact().unwrap();
    db.close().unwrap();
    let db = open(&env);
    for name in [&odd, &longest] {
        // The options of an existing keyspace do not change.
        let keyspace = db.keyspace(name, KeyspaceOptions::default()).unwrap();
        assert_eq!(keyspace.options(), &options);
        assert_eq!(contents(&keyspace).unwrap().len(), 300);
        assert!(keyspace.approximate_size::<&[u8]>(..).unwrap() < 50_000, "compressed");
    }
}

#[test]
fn many_keyspaces_made_by_several_threads_at_once() {
    within(Duration::from_secs(60), "making keyspaces", || {
        let (env, _) = Env::sim(1);
        let db = open(&env);
        let threads: Vec<_> = (0..3u8)
            .map(|thread| {
                let db = db.clone();
                std::thread::spawn(move || {
                    for number in 0..150u32 {
                        // All threads create the same ones, and write to them at once.
                        let keyspace =
                            db.keyspace(&format!("space-{number}"), KeyspaceOptions::default()).unwrap();
                        keyspace.put([thread], number.to_be_bytes()).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let check = |db: &Db| {
            assert_eq!(db.list_keyspaces().unwrap().len(), 151);
            for number in 0..150u32 {
                let keyspace = db.keyspace(&format!("space-{number}"), KeyspaceOptions::default()).unwrap();
                let map = contents(&keyspace).unwrap();
                assert_eq!(map.len(), 3);
                assert!(map.values().all(|value| value[..] == number.to_be_bytes()));
            }
        };
        check(&db);
        db.close().unwrap();
        check(&open(&env));
    });
}
