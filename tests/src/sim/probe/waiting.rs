//! Threads that wait for each other, write together, or read beside a compaction.
use crate::harness::builder;
use sapwood::{Durability, Env, ErrorKind, WriteOptions};
use sapwood_storage::ThreadClass;
use sapwood_storage::sim::{Fault, FaultRule, Operation as Call, SimFs};
use sapwood_storage::sync::give_turn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

pub(super) fn lock() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("db");
    let db = builder(&path, &Env::os()).open().expect("it opens");
    for read_only in [false, true] {
        let error = builder(&path, &Env::os()).read_only(read_only).open().map(drop).expect_err("it is open");
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    }
    db.default_keyspace().put("still", "writable").expect("the first handle keeps working");
}

/// Threads that commit with a sync while the power fails: every acknowledged commit must survive.
pub(super) fn waiting() {
    for round in 0..40 {
        let (env, fs) = Env::sim(round);
        let db = builder("db", &env).open().expect("it opens");
        db.default_keyspace().put_with("first", "", &WriteOptions::sync()).expect("written");
        fs.crash_at(fs.operations() + 40 + round * 3);
        let writers: Vec<_> = (0..4u32)
            .map(|writer| {
                let keyspace = db.default_keyspace();
                let body = move || {
                    let keys = (0..200u32).map(move |number| format!("{writer}-{number}"));
                    keys.take_while(|key| keyspace.put_with(key, "", &WriteOptions::sync()).is_ok())
                        .collect::<Vec<String>>()
                };
                std::thread::Builder::new().spawn(body).expect("a thread")
            })
            .collect();
        let acknowledged: Vec<String> =
            writers.into_iter().flat_map(|writer| writer.join().expect("no panic")).collect();
        drop(db);
        // Unsynced commits are gone.
        let env = env.with_file_system(Arc::new(fs.crash_with(|_| false)));
        let db = builder("db", &env).open().expect("it opens");
        for key in acknowledged {
            assert!(db.default_keyspace().contains(&key).expect("read"), "{key} was synced and is gone");
        }
    }
}

/// Schedules in which a write to the log fails, four for each of its first writes.
pub(super) const GAP_SCHEDULES: u64 = 360;

pub(super) fn gap() {
    for seed in 0..GAP_SCHEDULES {
        let (env, fs, schedule) = Env::sim_scheduled(seed);
        let acknowledged = Arc::new(Mutex::new(Vec::new()));
        let (disk, keys) = (fs.clone(), acknowledged.clone());
        let outcome = schedule.run(move || write_until_the_log_fails(&env, &disk, seed, &keys));
        outcome.unwrap_or_else(|what| panic!("schedule {seed}: {what}"));
        let (env, _) = Env::sim_manual(seed);
        let db = builder("db", &env.with_file_system(Arc::new(fs.kill()))).open();
        // If a sync has counted the gap as durable, the gap is reported as damage.
        let db = db.unwrap_or_else(|error| panic!("schedule {seed}: it does not open: {error}"));
        for key in acknowledged.lock().expect("no panic").iter() {
            let is_there = db.default_keyspace().contains(key).expect("read");
            assert!(is_there, "schedule {seed}: {key} was acknowledged and is gone");
        }
    }
}

/// Three writers, at every other seed one of them with syncs, until a write to the log fails.
pub(super) fn write_until_the_log_fails(
    env: &Env,
    fs: &SimFs,
    seed: u64,
    acknowledged: &Arc<Mutex<Vec<String>>>,
) {
    let db = builder("db", env).open().expect("it opens");
    fs.fail(FaultRule::new(Call::Write, Fault::Io).on(".wal").after(3 + seed / 4));
    let start = |writer: u64| {
        let (keyspace, acknowledged) = (db.default_keyspace(), acknowledged.clone());
        let options = match seed.is_multiple_of(2) && writer == 0 {
            true => WriteOptions::sync(),
            false => WriteOptions::default(),
        };
        let body = move || {
            for key in (0..60).map(|number| format!("{writer}-{number}")) {
                if keyspace.put_with(&key, &key, &options).is_ok() {
                    acknowledged.lock().expect("no panic").push(key);
                }
            }
        };
        env.spawn("writer", ThreadClass::Latency, body).expect("a thread")
    };
    let writers: Vec<_> = (0..3).map(start).collect();
    writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
    fs.crash_at(0);
}

/// Gets concurrent with overwrites, flushes and compactions, in many orders: a get never returns an
/// older value than one that was acknowledged before it.
pub(super) fn merging() {
    for seed in 0..48 {
        let (env, _fs, schedule) = Env::sim_scheduled(seed);
        if let Err(what) = schedule.run(move || merge_beside_readers(&env)) {
            panic!("schedule {seed}: {what}");
        }
    }
}

pub(super) fn merge_beside_readers(env: &Env) {
    let db = builder("db", env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    let done = Arc::new(AtomicBool::new(false));
    let read = |_| {
        let (keyspace, done) = (keyspace.clone(), done.clone());
        let body = move || {
            let mut last = 0;
            while !done.load(Ordering::Acquire) {
                let got = keyspace.get("key").expect("read");
                let got =
                    got.map_or(0, |value| u32::from_be_bytes(value[..4].try_into().expect("four bytes")));
                assert!(got >= last, "read {got} after {last}");
                last = got;
                // Otherwise the reader with the highest priority would run alone.
                give_turn();
            }
        };
        env.spawn("reader", ThreadClass::Latency, body).expect("a thread")
    };
    let readers: Vec<_> = (0..3).map(read).collect();
    for number in 1..=30u32 {
        keyspace.put("key", number.to_be_bytes()).expect("written");
        if number % 3 == 0 {
            db.flush().expect("flushed");
        }
    }
    done.store(true, Ordering::Release);
    readers.into_iter().for_each(|reader| reader.join().expect("every read was right"));
    db.close().expect("closed");
}

/// Writers that split the same leaves, and readers of the earlier rows.
pub(super) fn inserting() {
    for round in 0..60u64 {
        let (env, _fs) = Env::sim(round);
        let db = builder("db", &env).open().expect("it opens");
        let keyspace = db.default_keyspace();
        for number in (0..400u32).step_by(4) {
            keyspace.put(number.to_be_bytes(), "old").expect("written");
        }
        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (keyspace, done) = (keyspace.clone(), done.clone());
                let body = move || {
                    while !done.load(Ordering::Acquire) {
                        for number in (0..400u32).step_by(4) {
                            let got = keyspace.get(number.to_be_bytes()).expect("read");
                            assert_eq!(got.as_deref(), Some(&b"old"[..]), "key {number}");
                        }
                        let found = keyspace.iter().filter(|entry| {
                            entry.as_ref().is_ok_and(|entry| {
                                entry.key().first_chunk().is_some_and(|key| u32::from_be_bytes(*key) % 4 == 0)
                            })
                        });
                        assert_eq!(found.count(), 100, "a scan meets every old key once");
                    }
                };
                std::thread::Builder::new().spawn(body).expect("a thread")
            })
            .collect();
        let options = WriteOptions { durability: Some(Durability::Buffered) };
        for number in (0..400u32).filter(|number| number % 4 != 0) {
            keyspace.put_with(number.to_be_bytes(), "new", &options).expect("written");
        }
        done.store(true, Ordering::Release);
        readers.into_iter().for_each(|reader| reader.join().expect("every read was right"));
    }
}
