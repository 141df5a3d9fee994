//! Batches: atomic, ordered, over any keyspaces.
use sapwood::{Db, Env, ErrorKind, KeyspaceOptions};
use sapwood_tests::harness::{builder, contents};
use std::sync::Arc;

fn open(env: &Env) -> Db {
    builder("/db", env).open().unwrap()
}

#[test]
fn operations_take_effect_in_order_and_in_all_keyspaces() {
    let (env, fs) = Env::sim(1);
    let db = open(&env);
    let [a, b] = ["a", "b"].map(|name| db.keyspace(name, KeyspaceOptions::default()).unwrap());
    let mut batch = db.batch();
    assert!(batch.is_empty());
    batch
        .put(&a, "k", "1")
        .put(&b, "k", "2")
        .delete(&a, "k")
        .put(&a, "k", "3")
        .put(&b, "x", "4")
        .delete(&b, "x");
    assert_eq!(batch.len(), 6);
    assert!(batch.size_bytes() > 6);
    let before = db.snapshot();
    let commit = batch.commit().unwrap();
    assert!(commit.sequence() > before.sequence());
    commit.wait_durable().unwrap();
    assert!(batch.is_empty(), "a committed batch can be filled again");
    let check = |db: &Db| {
        let [a, b] = ["a", "b"].map(|name| db.keyspace(name, KeyspaceOptions::default()).unwrap());
        assert_eq!(a.get("k").unwrap().as_deref(), Some(&b"3"[..]));
        assert_eq!(b.get("k").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(b.get("x").unwrap(), None);
        assert_eq!((a.iter().count(), b.iter().count()), (1, 1));
    };
    check(&db);
    assert_eq!(a.get_at("k", &before).unwrap(), None);
    check(&open(&env.with_file_system(Arc::new(fs.kill()))));
    check(&open(&env.with_file_system(Arc::new(fs.crash(0)))));
    db.flush().unwrap();
    check(&db);
    db.close().unwrap();
    check(&open(&env));
}

#[test]
fn a_refused_batch_leaves_nothing() {
    let (env, _) = Env::sim(1);
    let db = open(&env);
    let other = builder("/other", &env).open().unwrap();
    let (mine, theirs) = (db.default_keyspace(), other.default_keyspace());
    let mut batch = db.batch();
    batch.put(&mine, "a", "1").put(&theirs, "b", "2");
    assert_eq!(batch.commit().map(drop).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(mine.iter().count() + theirs.iter().count(), 0);
    // The error is returned once; then the batch is empty.
    assert!(batch.is_empty());
    let _ = batch.put(&mine, "c", "3").commit().unwrap();
    assert_eq!(contents(&mine).unwrap().len(), 1);
    let gone = db.keyspace("gone", KeyspaceOptions::default()).unwrap();
    let mut batch = db.batch();
    batch.put(&mine, "d", "4").put(&gone, "d", "4");
    db.drop_keyspace("gone").unwrap();
    assert_eq!(batch.commit().map(drop).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(mine.get("d").unwrap(), None);
    // An empty batch is no error, and durable at once.
    db.batch().commit().unwrap().wait_durable().unwrap();
    batch.clear();
    assert!(batch.is_empty());
}

#[test]
fn a_batch_larger_than_memtable_and_segment_is_whole() {
    let (env, fs) = Env::sim(1);
    let db = open(&env);
    let keyspace = db.default_keyspace();
    let second = db.keyspace("second", KeyspaceOptions::default()).unwrap();
    let mut batch = db.batch();
    for i in 0..20_000u32 {
        batch.put(if i % 2 == 0 { &keyspace } else { &second }, i.to_be_bytes(), [i as u8; 50]);
    }
    assert!(batch.size_bytes() > 1 << 20);
    let _ = batch.commit().unwrap();
    let check = |db: &Db| {
        let counts = ["default", "second"]
            .map(|name| contents(&db.keyspace(name, KeyspaceOptions::default()).unwrap()).unwrap().len());
        assert_eq!(counts, [10_000; 2]);
    };
    check(&db);
    check(&open(&env.with_file_system(Arc::new(fs.kill()))));
    // A power loss keeps all of it or nothing.
    for seed in 0..20 {
        let db = open(&env.with_file_system(Arc::new(fs.crash(seed))));
        let counts = ["default", "second"]
            .map(|name| db.keyspace(name, KeyspaceOptions::default()).unwrap().iter().count());
        assert!(counts == [0; 2] || counts == [10_000; 2], "{counts:?}");
    }
    db.flush().unwrap();
    check(&db);
}
