//! Snapshots: the state of one moment, through writes, flushes, compactions and drops of other
//! snapshots.
use sapwood::{Env, ErrorKind};
use sapwood_tests::harness::builder;

#[test]
fn snapshots_stay_as_they_are() {
    let (env, _) = Env::sim(1);
    let db = builder("/db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    let mut snapshots = vec![db.snapshot()];
    for round in 1..=12u8 {
        for key in 0..100u32 {
            // Each round skips some keys, and deletes others.
            match (key + u32::from(round)) % 5 {
                0 => {}
                1 => keyspace.delete(key.to_be_bytes()).unwrap(),
                _ => keyspace.put(key.to_be_bytes(), [round; 150]).unwrap(),
            }
        }
        snapshots.push(db.snapshot());
        match round % 4 {
            0 => db.compact().unwrap(),
            1 => db.flush().unwrap(),
            _ => {}
        }
    }
    let state = |round: u8, key: u32| {
        (1..=round).rev().find_map(|round| match (key + u32::from(round)) % 5 {
            0 => None,
            1 => Some(None),
            _ => Some(Some(round)),
        })
    };
    let check = |snapshots: &[(u8, sapwood::Snapshot)]| {
        for (round, snapshot) in snapshots {
            let mut present = 0;
            for key in 0..100u32 {
                let want = state(*round, key).flatten();
                let got = keyspace.get_at(key.to_be_bytes(), snapshot).unwrap();
                assert_eq!(
                    got.as_deref(),
                    want.map(|round| vec![round; 150]).as_deref(),
                    "round {round} key {key}"
                );
                present += usize::from(want.is_some());
            }
            assert_eq!(keyspace.iter().at(snapshot).count(), present);
            assert_eq!(keyspace.iter().at(snapshot).rev().count(), present);
        }
    };
    let mut snapshots: Vec<_> = (0..).zip(snapshots).collect();
    assert_eq!(db.stats().snapshots, snapshots.len());
    check(&snapshots);
    // Some snapshots are dropped; the others do not change.
    for at in [11, 7, 6, 2] {
        snapshots.remove(at);
    }
    db.compact().unwrap();
    check(&snapshots);
    assert_eq!(db.stats().snapshots, snapshots.len());
    snapshots.truncate(1);
    db.compact().unwrap();
    check(&snapshots);
    let clone = snapshots[0].1.clone();
    snapshots.clear();
    assert_eq!(keyspace.iter().at(&clone).count(), 0);
    drop(clone);
    assert_eq!(db.stats().snapshots, 0);
}

#[test]
fn a_snapshot_belongs_to_its_opening() {
    let (env, _) = Env::sim(1);
    let db = builder("/db", &env).open().unwrap();
    let snapshot = db.snapshot();
    drop(db);
    let db = builder("/db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    for error in [
        keyspace.get_at("k", &snapshot).map(drop).unwrap_err(),
        keyspace.cursor_at(&snapshot).map(drop).unwrap_err(),
        keyspace.iter().at(&snapshot).next().unwrap().map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}
