//! Ownership of files, identity of directories, and locking: on a simulated machine, where
//! directories can be renamed under an open database and every byte can be compared.
use crate::harness::builder;
use sapwood::{AdvancedOptions, Db, Env, ErrorKind};
use sapwood_base::FileNumber;
use sapwood_base::format::file_name::FileName;
use sapwood_storage::fs::FileSystem;
use sapwood_storage::sim::SimFs;
use std::path::{Path, PathBuf};

/// All files with their bytes.
fn contents(fs: &SimFs) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs.files().into_iter();
    files.map(|path| (path.clone(), fs.read_file(&path).expect("it is listed"))).collect()
}

/// A machine with these files in `/db`.
fn machine(files: &[(&str, &[u8])]) -> (Env, SimFs) {
    let (env, fs) = Env::sim_manual(1);
    fs.create_dir_all(Path::new("/db")).expect("made");
    for (name, bytes) in files {
        fs.write_file(Path::new("/db").join(name), bytes).expect("made");
    }
    (env, fs)
}

fn destroy_at(path: &str, env: &Env) -> sapwood::Result<()> {
    Db::destroy_in(path, &AdvancedOptions { env: env.clone(), ..AdvancedOptions::default() })
}

/// LevelDB: a log and tables with other names, a MANIFEST and a lock with the same names.
const LEVELDB: &[(&str, &[u8])] = &[
    ("CURRENT", b"MANIFEST-000002\n"),
    ("LOCK", b""),
    (
        "MANIFEST-000002",
        b"\x56\xf9\xb8\xf8\x1c\x00\x01\x01\x1aleveldb.BytewiseComparator\x02\x00\x03\x02\x04\x00",
    ),
    ("000003.log", &[9; 500]),
    ("000005.ldb", &[3; 5000]),
];

/// RocksDB: tables with the same names, too.
const ROCKSDB: &[(&str, &[u8])] = &[
    ("CURRENT", b"MANIFEST-000005\n"),
    ("LOCK", b""),
    (
        "MANIFEST-000005",
        b"\x56\xf9\xb8\xf8\x1c\x00\x01\x01\x1aleveldb.BytewiseComparator\x02\x00\x03\x02\x04\x00",
    ),
    ("000004.log", &[1; 100]),
    ("000009.sst", &[1; 5000]),
];

pub(super) fn foreign_files() {
    let log_only = &ROCKSDB[..4];
    let manifest_only = &ROCKSDB[2..3];
    for files in [LEVELDB, ROCKSDB, log_only, manifest_only] {
        for (create, read_only) in [(true, false), (false, false), (true, true)] {
            let (env, fs) = machine(files);
            let before = contents(&fs);
            let opened = builder("/db", &env).create_if_missing(create).read_only(read_only).open();
            let error = opened.map(|db| drop(db.close())).expect_err("a directory of another engine");
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(contents(&fs) == before, "no byte changes");
        }
    }
}

pub(super) fn destroy() {
    for files in [LEVELDB, ROCKSDB] {
        let (env, fs) = machine(files);
        let before = contents(&fs);
        let error = destroy_at("/db", &env).expect_err("the database of another engine");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(contents(&fs) == before, "no byte changes");
    }
    // A database with foreign files in its directory: those stay, whatever their names.
    let (env, fs) = machine(&[]);
    let db = builder("/db", &env).open().expect("a new database");
    db.default_keyspace().put("a", "1").expect("written");
    db.flush().expect("written");
    db.close().expect("closed");
    drop(db);
    let strange: &[(&str, &[u8])] = &[
        ("000123.sst", b"mine"),
        ("000124.wal", b"mine"),
        ("000125.tree", b"mine"),
        ("MANIFEST-000126", b"mine"),
        ("notes.txt", b"mine"),
        ("UNSYNCED", b"mine"),
    ];
    for (name, bytes) in strange {
        fs.write_file(Path::new("/db").join(name), bytes).expect("made");
    }
    destroy_at("/db", &env).expect("destroyed");
    let left: Vec<(PathBuf, Vec<u8>)> = contents(&fs);
    let mut wanted: Vec<(PathBuf, Vec<u8>)> =
        strange.iter().map(|(name, bytes)| (Path::new("/db").join(name), bytes.to_vec())).collect();
    wanted.sort();
    assert_eq!(left, wanted);
}

pub(super) fn strange_table() {
    let (env, fs) = machine(&[]);
    let open = || builder("/db", &env).open().expect("it opens");
    let db = open();
    db.default_keyspace().put("a", "1").expect("written");
    db.close().expect("closed");
    drop(db);
    // With the next numbers, and with numbers that are never reached.
    let highest = fs.files().iter().filter_map(|path| number_of(path)).max().expect("there are files").0;
    let mut strange = Vec::new();
    for number in (highest + 1..highest + 40).chain([FileNumber::MAX.0, 123_456_789]).map(FileNumber) {
        for name in [FileName::Table(number), FileName::Log(number), FileName::Tree(number)] {
            strange.push((Path::new("/db").join(name.format()), b"not of this engine".to_vec()));
        }
    }
    strange.push((PathBuf::from("/db/MANIFEST-999999"), b"not of this engine".to_vec()));
    for (path, bytes) in &strange {
        fs.write_file(path, bytes).expect("made");
    }
    for round in 0..3u32 {
        let db = open();
        let keyspace = db.default_keyspace();
        assert_eq!(keyspace.get("a").expect("read").as_deref(), Some(&b"1"[..]));
        keyspace.put(round.to_be_bytes(), [7; 1000]).expect("written");
        db.flush().expect("flushed");
        db.compact().expect("compacted");
        db.close().expect("closed");
    }
    for (path, bytes) in &strange {
        assert_eq!(fs.read_file(path).ok().as_ref(), Some(bytes), "{}", path.display());
    }
}

fn number_of(path: &Path) -> Option<FileNumber> {
    FileName::parse(path.file_name()?.to_str()?)?.number()
}

pub(super) fn lock_file_removed() {
    let (env, fs) = machine(&[]);
    let db = builder("/db", &env).open().expect("a new database");
    fs.remove_file(Path::new("/db/LOCK")).expect("removed");
    for replaced in [false, true] {
        if replaced {
            fs.write_file("/db/LOCK", b"").expect("replaced");
        }
        for read_only in [false, true] {
            let error = builder("/db", &env).read_only(read_only).open().map(drop).expect_err("it is open");
            assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
        }
        assert_eq!(destroy_at("/db", &env).expect_err("it is open").kind(), ErrorKind::Locked);
    }
    db.default_keyspace().put("still", "writable").expect("the first handle keeps working");
    db.close().expect("closed");
    drop(db);
    drop(builder("/db", &env).open().expect("it opens again"));
}

pub(super) fn directory_replaced() {
    let (env, fs) = machine(&[]);
    let db = builder("/db", &env).open().expect("a new database");
    let keyspace = db.default_keyspace();
    let fill = |from: u32| {
        for number in from..from + 500 {
            keyspace.put(number.to_be_bytes(), [7; 300]).expect("written");
        }
    };
    fill(0);
    db.flush().expect("flushed");
    fs.rename(Path::new("/db"), Path::new("/away")).expect("renamed");
    // Another database in its place.
    let other = builder("/db", &env).open().expect("another database");
    for number in 0..900u32 {
        other.default_keyspace().put(number.to_be_bytes(), [9; 300]).expect("written");
    }
    other.flush().expect("flushed");
    other.close().expect("closed");
    drop(other);
    let of_other = |fs: &SimFs| -> Vec<(PathBuf, Vec<u8>)> {
        contents(fs).into_iter().filter(|(path, _)| path.starts_with("/db")).collect()
    };
    let before = of_other(&fs);
    fill(500);
    db.flush().expect("flushed");
    db.compact().expect("compacted");
    let value = keyspace.get(3u32.to_be_bytes()).expect("read").expect("it is there");
    assert_eq!(&value[..], [7; 300]);
    db.close().expect("closed");
    drop((keyspace, value, db));
    assert!(of_other(&fs) == before, "the other database is unchanged");
    for (path, rows, byte) in [("/away", 1000, 7), ("/db", 900, 9)] {
        let db = builder(path, &env).open().expect("it opens");
        let mut count = 0;
        for entry in db.default_keyspace().iter() {
            assert_eq!(entry.expect("read").value().expect("read")[0], byte, "{path}");
            count += 1;
        }
        assert_eq!(count, rows, "{path}");
    }
}

pub(super) fn table_of_another() {
    let (env, fs) = machine(&[]);
    let mut tables = Vec::new();
    for (path, byte) in [("/db", 1u8), ("/other", 2)] {
        let db = builder(path, &env).open().expect("a new database");
        for number in 0..100u32 {
            db.default_keyspace().put(number.to_be_bytes(), [byte; 100]).expect("written");
        }
        db.compact().expect("compacted");
        db.close().expect("closed");
        let is_table = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "sst");
        let mut own = fs.files().into_iter().filter(|file| file.starts_with(path) && is_table(file));
        let (table, next) = (own.next().expect("a table"), own.next());
        assert!(next.is_none(), "one table");
        tables.push(table);
    }
    let [ours, theirs] = &tables[..] else { unreachable!("two databases") };
    assert_eq!(ours.file_name(), theirs.file_name(), "the same number");
    let bytes = fs.read_file(theirs).expect("it is there");
    assert_eq!(bytes.len(), fs.read_file(ours).expect("it is there").len(), "the same length");
    fs.write_file(ours, &bytes).expect("replaced");
    let db = builder("/db", &env).open().expect("it opens");
    let error = db.default_keyspace().get(7u32.to_be_bytes()).map(drop).expect_err("not our table");
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert_eq!(error.file(), Some(ours.as_path()), "{error}");
}
