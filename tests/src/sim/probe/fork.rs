//! A process that forks while its database is open. The child shares the log's mapping and the
//! files of the parent, and has none of its threads: its calls must be refused at once, and change
//! nothing. A child of a process that has closed its databases can open them.
#![allow(unsafe_code)]
use crate::harness::eventually;
use sapwood::{Db, ErrorKind, Health, KeyspaceOptions, Memory, Snapshot};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Seconds after which a hanging child is ended.
const PATIENCE: u32 = 30;

/// Runs `work` in a child and returns its process number. The child exits with 0 if `work` returns,
/// with 1 if it panics.
fn fork(work: impl FnOnce()) -> i32 {
    // SAFETY: the child runs on a copy of this thread. The C library makes its allocator usable in
    // it; whether the engine touches locks that may be held is the question of the probe, and an
    // alarm ends the child if it does.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: neither call touches memory of this process.
            unsafe { libc::alarm(PATIENCE) };

            let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err();
            // SAFETY: as above. Destructors and the harness of the parent do not run.
            unsafe { libc::_exit(i32::from(failed)) }
        }
        child => {
            assert!(child > 0, "the process cannot fork");
            child
        }
    }
}

/// Waits for the end of `child`, which must exit with 0.
fn join(child: i32) {
    let mut status = 0;
    // SAFETY: the kernel writes one integer to the address that it is given.
    let ended = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(ended, child);
    assert!(!libc::WIFSIGNALED(status), "the child hung, or died, of signal {}", libc::WTERMSIG(status));
    assert_eq!(libc::WEXITSTATUS(status), 0, "the child panicked: see its message");
}

fn open(path: &Path) -> Db {
    let builder = Db::builder(path).advanced(|options| {
        options.memtable_bytes = Some(64 << 10);
        options.wal_segment_bytes = 256 << 10;
    });
    builder.open().expect("opened")
}

/// Every call of `db` and of its handles is refused, with the reason.
fn all_is_refused(db: &Db, snapshot: &Snapshot) {
    fn refused<T>(call: &str, result: sapwood::Result<T>) {
        let error = result.err().unwrap_or_else(|| panic!("{call} of a forked child succeeded"));
        assert_eq!(error.kind(), ErrorKind::Closed, "{call}: {error}");
        assert!(error.to_string().contains("fork"), "{call}: {error}");
    }
    let rows = db.default_keyspace();
    refused("put", rows.put("child", "child"));
    refused("delete", rows.delete("0"));
    refused("get", rows.get("0"));
    refused("get at a snapshot", rows.get_at("0", snapshot));
    refused("contains_key", rows.contains_key("0"));
    refused("first row", rows.iter().next().expect("an error, not the end"));
    refused("batch", db.batch().put(&rows, "child", "child").commit());
    refused("keyspace", db.keyspace("child", KeyspaceOptions::default()));
    refused("list_keyspaces", db.list_keyspaces());
    refused("drop_keyspace", db.drop_keyspace("default"));
    refused("sync", db.sync());
    refused("flush", db.flush());
    refused("compact", db.compact());
    refused("settle", db.settle());
    refused("wait_for_background", db.wait_for_background());
    refused("pause_background", db.pause_background());
    assert!(matches!(db.health(), Health::Poisoned(error) if error.kind() == ErrorKind::Closed));
    assert_eq!(db.memory(), Memory::default());
    assert_eq!(db.stats().flushes, 0);
    refused("close", db.close());
}

/// The child of a busy database is refused every call, without an effect on the parent.
fn child_of_a_busy_database(path: &Path) {
    let db = open(path);
    let rows = db.default_keyspace();
    rows.put("0", "first").expect("written");
    let snapshot = db.snapshot();
    let (stop, written) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        // Writers, flushes, compactions and a reader: some lock is held at every moment.
        scope.spawn(|| {
            let mut number = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                rows.put(number.to_be_bytes(), [7; 300]).expect("written");
                number += 1;
                written.store(number, Ordering::Relaxed);
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(rows.get("0").expect("read").as_deref(), Some(b"first".as_slice()));
            }
        });
        for _ in 0..8 {
            let before = written.load(Ordering::Relaxed);
            eventually("the writer continues", || written.load(Ordering::Relaxed) > before + 500);
            let pause = db.pause_guard().expect("paused");
            let child = fork(|| {
                drop(pause);
                all_is_refused(&db, &snapshot);
            });
            join(child);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let written = written.load(Ordering::Relaxed);
    db.close().expect("closed");
    let db = open(path);
    let rows = db.default_keyspace();
    assert_eq!(rows.get("child").expect("read"), None, "the child has written");
    for number in 0..written {
        assert!(rows.contains_key(number.to_be_bytes()).expect("read"), "row {number} of {written}");
    }
    db.close().expect("closed");
}

/// A child of a process with an open database can open none, and releases the inherited handles.
fn child_cannot_open(folder: &Path) {
    let path = folder.join("open");
    let db = open(&path);
    db.default_keyspace().put("parent", "there").expect("written");
    let mut inherited = Some(db.clone());
    let child = fork(|| {
        drop(inherited.take());
        assert_eq!(db.close().expect_err("refused").kind(), ErrorKind::Closed);
        let others = folder.join("another");
        let refused = [Db::open(&path).err(), Db::open(&others).err(), Db::destroy(&others).err()];
        for error in refused.map(|error| error.expect("a child that has no locks to rely on")) {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains("fork"), "{error}");
        }
        assert!(!others.exists());
        // A child of the child cannot either.
        let grandchild =
            fork(|| assert_eq!(Db::open(&others).expect_err("refused").kind(), ErrorKind::Unsupported));
        join(grandchild);
    });
    join(child);
    // The child has closed its copies of the locked files; the parent holds the lock up to here.
    assert_eq!(Db::open(&path).expect_err("it is open here").kind(), ErrorKind::Locked);
    drop(inherited);
    db.close().expect("closed");
}

/// A program that closes its databases before it forks continues in the child, while other threads
/// wait elsewhere.
fn daemon(path: &Path) {
    let db = open(path);
    db.default_keyspace().put("parent", "there").expect("written");
    db.close().expect("closed");
    let (mut parents, mut childs) = UnixStream::pair().expect("made");
    let child = fork(|| {
        assert_eq!(db.default_keyspace().get("parent").expect_err("refused").kind(), ErrorKind::Closed);
        let again = open(path);
        childs.write_all(&[1]).expect("said");
        let rows = again.default_keyspace();
        assert_eq!(rows.get("parent").expect("read").as_deref(), Some(b"there".as_slice()));
        for number in 0..2000_u32 {
            rows.put(number.to_be_bytes(), [1; 300]).expect("written");
        }
        childs.read_exact(&mut [0]).expect("heard");
        again.close().expect("closed");
    });
    parents.read_exact(&mut [0]).expect("heard");
    assert_eq!(Db::open(path).expect_err("the child has it").kind(), ErrorKind::Locked);
    parents.write_all(&[1]).expect("said");
    join(child);
    let db = open(path);
    assert!(db.default_keyspace().contains_key(1999_u32.to_be_bytes()).expect("read"));
    db.close().expect("closed");
}

/// See the module.
pub(super) fn fork_while_open() {
    let folder = tempfile::tempdir().expect("made");
    child_of_a_busy_database(&folder.path().join("busy"));
    child_cannot_open(folder.path());
    daemon(&folder.path().join("daemon"));
}
