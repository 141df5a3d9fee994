//! One failed call, and what it may cost.
use crate::harness::builder;
use sapwood::{Env, WriteOptions};
use sapwood_storage::sim::{Fault, FaultRule, Operation as Call};
use std::sync::Arc;

pub(super) fn flush_error() {
    let (env, fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    db.default_keyspace().put("a", "1").expect("written");
    fs.fail(FaultRule::new(Call::Write, Fault::Io).on(".sst"));
    assert!(db.flush().is_err(), "the flush met an error");
    assert!(db.default_keyspace().put("b", "").is_err(), "background work failed");
}

pub(super) fn manifest_error() {
    let (env, fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    db.default_keyspace().put("a", "1").expect("written");
    fs.fail(FaultRule::new(Call::Sync, Fault::Io).on("MANIFEST"));
    assert!(db.flush().is_err(), "the flush met an error");
    // The removals of the handle are complete after the drop.
    drop(db);
    let open = |left| builder("db", &env.with_file_system(Arc::new(left))).open().expect("it opens");
    let row = open(fs.kill()).default_keyspace().get("a").expect("read");
    assert_eq!(row.as_deref(), Some(&b"1"[..]), "an acknowledged row is gone after a kill");
    // The row need not be there, but every listed file must be.
    (0..8).for_each(|seed| drop(open(fs.crash(seed)).default_keyspace().get("a").expect("read")));
}

pub(super) fn table_error() {
    let (env, fs) = Env::sim(1);
    let open = || builder("db", &env).open().expect("it opens");
    let db = open();
    for number in 0..500u32 {
        db.default_keyspace().put(number.to_be_bytes(), [7; 100]).expect("written");
    }
    db.close().expect("closed");
    for skip in 0..20 {
        let db = open();
        fs.fail(FaultRule::new(Call::Read, Fault::Io).on(".sst").after(skip));
        let read: sapwood::Result<Vec<_>> = db.default_keyspace().iter().collect();
        fs.clear_faults();
        assert!(read.is_err() || read.is_ok_and(|read| read.len() == 500), "a scan skipped a block");
    }
}

pub(super) fn sync_error() {
    // Without threads: one that preallocates log segments would sometimes meet the fault instead.
    let (env, fs) = Env::sim_manual(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    keyspace.put_with("a", "1", &WriteOptions::sync()).expect("written");
    fs.fail(FaultRule::new(Call::Sync, Fault::Io).on(".wal"));
    let acknowledged = keyspace.put_with("b", "2", &WriteOptions::sync()).is_ok();
    fs.crash_at(0);
    for seed in 0..20 {
        let env = env.with_file_system(Arc::new(fs.crash(seed)));
        let db = builder("db", &env).open().expect("it opens");
        let there = db.default_keyspace().contains("b").expect("read");
        assert!(
            there || !acknowledged,
            "a sync failed, and the commit that it should have saved was acknowledged and is gone"
        );
    }
}

pub(super) fn read_error() {
    for skip in 0..40 {
        let (env, fs) = Env::sim(1);
        let db = builder("db", &env).open().expect("it opens");
        for number in 0..50u32 {
            db.default_keyspace().put(number.to_be_bytes(), [7; 100]).expect("written");
        }
        fs.crash_at(0);
        let left = fs.kill();
        drop(db);
        left.fail(FaultRule::new(Call::Read, Fault::Io).on(".wal").after(skip));
        let env = env.with_file_system(Arc::new(left));
        if let Ok(db) = builder("db", &env).open() {
            let count = db.default_keyspace().iter().count();
            assert_eq!(count, 50, "a read of the log failed, and replay took it for the end");
        }
    }
}
