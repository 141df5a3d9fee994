//! A bounded number of open files.
use crate::harness::builder;
use sapwood::{BackgroundStep, Db, Env, Health, KeyspaceOptions};
use sapwood_storage::fs::FileSystem;
use sapwood_storage::sim::{Operation as Call, SimFs};
use std::path::Path;

const KEYSPACES: usize = 60;
/// Descriptors of the whole machine: fewer than there are tables.
const DESCRIPTORS: usize = 20;

fn open(env: &Env, most: Option<usize>) -> Db {
    builder("/db", env).advanced(|options| options.max_open_files = most).open().unwrap()
}

/// More tables than descriptors, with a limit below their number and without one. Without one, a
/// call that finds no descriptor takes that of an idle table.
pub(super) fn many_tables() {
    for most in [Some(5), None] {
        let (env, fs) = Env::sim_manual(0);
        fs.set_handle_limit(Some(DESCRIPTORS));
        for session in 0..3u8 {
            let db = open(&env, most);
            let spaces: Vec<_> = (0..KEYSPACES)
                .map(|i| db.keyspace(&format!("k{i}"), KeyspaceOptions::default()).unwrap())
                .collect();
            for pass in 0..3u8 {
                spaces.iter().for_each(|space| space.put([pass], [session, pass]).unwrap());
                db.flush().unwrap();
                for space in &spaces {
                    assert_eq!(space.get([pass]).unwrap().as_deref(), Some(&[session, pass][..]));
                    assert_eq!(space.iter().count(), if session == 0 { pass as usize + 1 } else { 3 });
                }
            }
            db.compact().unwrap();
            while db.background_step(BackgroundStep::Sweep).unwrap() {}
            assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
            assert!(most.is_none_or(|most| fs.open_handles() < most + 8), "{} are open", fs.open_handles());
            db.close().unwrap();
        }
        assert_eq!(fs.open_handles(), 0);
    }
}

/// A temporary lack of all descriptors: errors report it. Nothing is closed or lost.
pub(super) fn none_left() {
    let (env, fs) = Env::sim_manual(0);
    let db = open(&env, None);
    let space = db.default_keyspace();
    space.put("row", "old").unwrap();
    db.flush().unwrap();
    space.put("row", "new").unwrap();
    fs.set_handle_limit(Some(0));
    for _ in 0..3 {
        let error = db.flush().unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        assert_eq!(space.get("row").unwrap().as_deref(), Some(&b"new"[..]));
    }
    assert!(!matches!(db.health(), Health::Poisoned(_)), "{:?}", db.health());
    fs.set_handle_limit(None);
    db.flush().unwrap();
    db.compact().unwrap();
    assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
    assert_eq!(space.get("row").unwrap().as_deref(), Some(&b"new"[..]));
    db.close().unwrap();
}

fn tables(fs: &SimFs, directory: &str) -> Vec<std::path::PathBuf> {
    let names = fs.list(Path::new(directory)).unwrap();
    let mut names: Vec<_> = names
        .into_iter()
        .filter(|name| name.extension().is_some_and(|extension| extension == "sst"))
        .collect();
    names.sort();
    names
}

/// A reopened table is the same table.
pub(super) fn replaced_table() {
    let (env, fs) = Env::sim_manual(0);
    let make = |directory: &str, byte: u8| {
        let db =
            builder(directory, &env).advanced(|options| options.max_open_files = Some(1)).open().unwrap();
        for space in ["a", "b"] {
            let space = db.keyspace(space, KeyspaceOptions::default()).unwrap();
            (0..200u8).for_each(|row| space.put([row], [byte; 100]).unwrap());
        }
        db.flush().unwrap();
        db
    };
    make("/other", 2).close().unwrap();
    let db = make("/db", 1);
    assert_eq!(tables(&fs, "/db"), tables(&fs, "/other"), "the same numbers");
    let [a, b] = ["a", "b"].map(|name| db.keyspace(name, KeyspaceOptions::default()).unwrap());
    // Opened, and closed in favour of each other.
    let opened = fs.calls(Call::Open);
    for row in [0, 199] {
        assert_eq!(a.get([row]).unwrap().as_deref(), Some(&[1; 100][..]));
        assert_eq!(b.get([row]).unwrap().as_deref(), Some(&[1; 100][..]));
    }
    assert!(fs.calls(Call::Open) > opened + 2, "each closed the other");
    for name in tables(&fs, "/db") {
        let bytes = fs.read_file(Path::new("/other").join(&name)).unwrap();
        fs.remove_file(&Path::new("/db").join(&name)).unwrap();
        fs.write_file(Path::new("/db").join(&name), &bytes).unwrap();
    }
    // At most one of the tables is still open. Neither may return a row of the other database.
    for row in 0..200u8 {
        for value in [a.get([row]), b.get([row])].into_iter().flatten() {
            assert_eq!(value.as_deref(), Some(&[1; 100][..]), "row {row} is that of another database");
        }
    }
}
