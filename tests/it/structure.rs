//! Tests of the structure check: MANIFESTs with one false statement each about sound tables.
use sapwood::fuzzing::{Surroundings, encode_manifest};
use sapwood::{BackgroundStep, Db, Env, ErrorKind};
use sapwood_base::SequenceNumber;
use sapwood_base::format::manifest::{Edit, TableMeta};
use sapwood_storage::sim::SimFs;
use sapwood_tests::sim::tuning::Tuning;
use std::path::Path;
use std::sync::Arc;

const MANIFEST: &str = "db/MANIFEST-000001";

fn open(env: &Env) -> sapwood::Result<Db> {
    let tuning = Tuning { disable_auto_compactions: true, level0_runs: 8, ..Tuning::standard() };
    tuning.builder("db", env).open()
}

/// A closed database of two runs that hold versions of the same keys.
fn two_runs() -> (Env, SimFs) {
    let (env, fs) = Env::sim_manual(1);
    let db = open(&env).unwrap();
    for round in 0..2 {
        for key in ["a", "b", "c"] {
            db.default_keyspace().put(key, format!("{round}")).unwrap();
        }
        db.default_keyspace().delete("d").unwrap();
        db.flush().unwrap();
    }
    db.check_structure().unwrap();
    db.close().unwrap();
    (env, fs)
}

/// Changes the MANIFEST's statements about the tables; returns the result of the open and the
/// check.
fn check_with(lie: impl Fn(usize, &mut TableMeta)) -> sapwood::Result<()> {
    let (env, fs) = two_runs();
    let surroundings = Surroundings::new(Arc::new(fs.clone()), Path::new("db")).unwrap();
    let state = surroundings.replay_manifest(&fs.read_file(MANIFEST).unwrap()).unwrap();
    let mut edits = state.edits();
    let tables = edits.iter_mut().filter_map(|edit| match edit {
        Edit::TableAdded(record) => Some(record),
        _ => None,
    });
    assert_eq!(tables.enumerate().map(|(at, record)| lie(at, record)).count(), 2);
    fs.write_file(MANIFEST, &encode_manifest(state.database, &[edits])).unwrap();
    // Some false statements contradict each other, so that the open detects them.
    let db = open(&env)?;
    let result = db.check_structure();
    // The database may not compact or remove any of it.
    assert!(!db.background_step(BackgroundStep::Compaction).unwrap());
    result
}

#[test]
fn what_is_right_passes() {
    check_with(|_, _| {}).unwrap();
}

#[test]
fn what_is_said_of_a_table_must_be_true() {
    type Lie = fn(&mut TableMeta);
    let lies: [(&str, Lie); 8] = [
        ("entries", |record| record.entries += 1),
        ("tombstones", |record| record.tombstones += 1),
        ("smallest", |record| record.smallest = b"A".to_vec()),
        ("largest", |record| record.largest = b"z".to_vec()),
        ("least sequence", |record| record.min_sequence = SequenceNumber(0)),
        ("largest sequence", |record| record.max_sequence.0 += 1),
        ("a trim that takes nothing", |record| record.lower = Some(b"a".to_vec())),
        ("a trim that takes all", |record| record.lower = Some(b"e".to_vec())),
    ];
    for (what, lie) in lies {
        for table in 0..2 {
            let error = check_with(|at, record| {
                if at == table {
                    lie(record)
                }
            })
            .expect_err(what);
            assert_eq!(error.kind(), ErrorKind::Corruption, "{what}: {error}");
            assert!(error.file().is_some(), "{what}: {error}");
        }
    }
}

#[test]
fn newer_versions_must_stand_above_older_ones() {
    let runs = std::cell::RefCell::new(Vec::new());
    check_with(|_, record| runs.borrow_mut().push(record.run)).unwrap();
    let runs = runs.into_inner();
    // The two runs are swapped.
    let error = check_with(|at, record| record.run = runs[1 - at]).unwrap_err();
    assert!(error.to_string().contains("stands above"), "{error}");
    // The older one is placed above by its level.
    let oldest = if runs[0] < runs[1] { 0 } else { 1 };
    let error = check_with(|at, record| record.level = if at == oldest { 0 } else { 1 }).unwrap_err();
    assert!(error.to_string().contains("stands above"), "{error}");
}
