//! Keyspaces: their names, and their creation and drop.
use crate::harness::builder;
use sapwood::{Env, ErrorKind, KeyspaceOptions};
use std::sync::Arc;

pub(super) fn names() {
    let (env, _fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    let error = db.keyspace("", KeyspaceOptions::default()).map(drop).expect_err("no name");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

pub(super) fn keyspaces() {
    let (env, fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    let second = db.keyspace("second", KeyspaceOptions::default()).expect("made");
    second.put("a", "1").expect("written");
    let open = |left| builder("db", &env.with_file_system(Arc::new(left))).open().expect("it opens");
    let killed = open(fs.kill());
    let row = killed.keyspace("second", KeyspaceOptions::default()).and_then(|second| second.get("a"));
    assert!(row.expect("read").is_some(), "the row of a keyspace is gone after a kill");
    db.drop_keyspace("second").expect("dropped");
    let names = open(fs.kill()).list_keyspaces().expect("listed");
    assert_eq!(names, ["default"], "a keyspace that was dropped is back");
}
