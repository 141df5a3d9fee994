//! Cursors, iterators and snapshots at their edges.
use crate::harness::builder;
use sapwood::Env;

pub(super) fn prefix() {
    let (env, _fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    for key in ["a", "a1", "b", "b1"] {
        keyspace.put(key, "").expect("written");
    }
    let keys: Vec<Vec<u8>> = keyspace.prefix("a").map(|entry| entry.expect("read").into_parts().0).collect();
    assert_eq!(keys, [b"a".to_vec(), b"a1".to_vec()]);
}

pub(super) fn turning() {
    let (env, _fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    for key in ["a", "b", "c"] {
        db.default_keyspace().put(key, "").expect("written");
    }
    let mut cursor = db.default_keyspace().cursor().expect("opened");
    cursor.seek("b").and_then(|()| cursor.next()).and_then(|()| cursor.prev()).expect("moved");
    assert_eq!(cursor.key(), b"b");
    cursor.prev().and_then(|()| cursor.next()).expect("moved");
    assert_eq!(cursor.key(), b"b");
}

/// Operations so small that each takes one position: the snapshot's sequence number is that of the
/// last one.
pub(super) fn tiny_batch() {
    let (env, _fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    let mut batch = db.batch();
    for byte in 0..100u8 {
        batch.put(&keyspace, [byte], "");
    }
    batch.commit().map(drop).expect("written");
    let snapshot = db.snapshot();
    for byte in 0..100u8 {
        keyspace.delete([byte]).expect("written");
    }
    db.flush().expect("flushed");
    db.compact().expect("merged");
    for byte in 0..100u8 {
        assert!(keyspace.get_at([byte], &snapshot).expect("read").is_some(), "the snapshot lost key {byte}");
        assert!(keyspace.get([byte]).expect("read").is_none(), "key {byte} is back");
    }
}
