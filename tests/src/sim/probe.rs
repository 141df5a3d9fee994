//! `sapwood-sim probe`: small scenarios for promises that random work rarely reaches: edges of one
//! call, crafted bytes, waiting threads, space and memory.
//!
//! Each scenario is a function that panics if the promise is broken. `it/probe.rs` runs all of them
//! in a process of their own, since some schedule threads by a seed. `sabotage` runs one with a
//! planted bug that no other detector finds.
#![allow(clippy::disallowed_methods, reason = "waits for real threads")]
use crate::harness::{builder, eventually, plant, within};
use crate::sim::arguments::{Command, Run, Settings};
use sapwood::{
    BackgroundStep, Builtin, Db, DbBuilder, Durability, Env, Error, ErrorKind, Field, IndexOptions, KeyKind,
    KeyspaceOptions, Maintenance, Result, WriteOptions,
};
use sapwood_base::format::file_name::FileName;
use sapwood_base::format::footer::{FOOTER_BYTES, SectionHandle, TableFooter};
use sapwood_base::format::log_segment::{DATA_OFFSET, HEADER_BYTES};
use sapwood_base::format::table_index::TableIndexColumns;
use sapwood_base::{FileNumber, planted};
use sapwood_storage::ThreadClass;
use sapwood_storage::sim::{Fault, FaultRule, Operation as Call, SimFs};
use sapwood_storage::sync::give_turn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[cfg(unix)]
mod address_space;
mod bodies;
mod closing;
mod descriptors;
#[cfg(unix)]
mod fork;
mod late_sync;
mod place;
mod room;
mod leavings;
mod scarcity;
mod scans;
mod large;
mod periodic;
mod segments;

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "probe",
    help: "small scenarios at the edges of promises",
    options: &[("--only", "NAME", "one scenario; all if not given")],
    run: Run::Whole(run),
};

/// A scenario.
pub struct Probe {
    /// Its name.
    pub name: &'static str,
    /// The question that it answers.
    pub asks: &'static str,
    /// Panics if the answer is no.
    pub run: fn(),
}

/// Every scenario.
pub const PROBES: &[Probe] = &[
    Probe { name: "lock", asks: "is a second opening refused?", run: lock },
    Probe { name: "names", asks: "is a keyspace without a name refused?", run: names },
    Probe { name: "prefix", asks: "does a prefix end before its successor?", run: prefix },
    Probe {
        name: "keyspaces",
        asks: "do the creation and the drop of a keyspace survive a kill?",
        run: keyspaces,
    },
    Probe { name: "turning", asks: "does a cursor that reverses its direction move?", run: turning },
    Probe {
        name: "tiny-batch",
        asks: "does a snapshot see the last of many tiny operations?",
        run: tiny_batch,
    },
    Probe { name: "memory", asks: "do memtables stay within the budget?", run: memory },
    Probe {
        name: "descriptors",
        asks: "are more tables than descriptors read, merged and opened again?",
        run: descriptors::many_tables,
    },
    Probe {
        name: "no-descriptors",
        asks: "does the engine recover from a lack of descriptors without closing anything?",
        run: descriptors::none_left,
    },
    Probe {
        name: "replaced-table",
        asks: "is a reopened table the same table?",
        run: descriptors::replaced_table,
    },
    #[cfg(unix)]
    Probe {
        name: "fork",
        asks: "is a forked child refused, without an effect on its parent?",
        run: fork::fork_while_open,
    },
    #[cfg(unix)]
    Probe {
        name: "address-space",
        asks: "does a process with little address space get errors, and continue?",
        run: address_space::limited,
    },
    Probe {
        name: "leavings",
        asks: "does a closed database leave nothing in threads that continue?",
        run: leavings::closed,
    },
    Probe {
        name: "drained",
        asks: "does a long reader cost others no more of the cache than they use?",
        run: leavings::drained,
    },
    Probe {
        name: "closing",
        asks: "does a close wait for calls that write files?",
        run: closing::calls_are_awaited,
    },
    Probe { name: "space", asks: "is the space of overwritten data reclaimed?", run: space },
    Probe {
        name: "finished-slices",
        asks: "are finished slices removed if another one finds no space?",
        run: room::finished_slices,
    },
    Probe {
        name: "compaction-retries",
        asks: "are compactions on a full disk retried with increasing delays?",
        run: room::compaction_retries,
    },
    Probe {
        name: "hidden-garbage",
        asks: "is the space of large rows reclaimed after small deletions?",
        run: room::hidden_garbage,
    },
    Probe {
        name: "snapshot-garbage",
        asks: "are a snapshot's versions removed after it, and not rewritten before?",
        run: room::snapshot_garbage,
    },
    Probe {
        name: "leveled-idle",
        asks: "is an idle database merged under leveled compaction, too?",
        run: room::leveled_idle,
    },
    Probe { name: "idle-cost", asks: "do tiny flushes not rewrite an idle database?", run: room::idle_cost },
    Probe {
        name: "fair-compactions",
        asks: "do other keyspaces get their compactions beside a busy one?",
        run: room::fair_compactions,
    },
    Probe { name: "full-disk", asks: "do writes continue once there is space again?", run: full_disk },
    Probe {
        name: "nameless-tree",
        asks: "is a tree removed whose name could not be made durable?",
        run: scarcity::tree_without_a_name,
    },
    Probe {
        name: "late-sequence",
        asks: "does a scan with a view older than its sequence number skip nothing that the view shows?",
        run: scans::late_sequence,
    },
    Probe {
        name: "full-disk-spares",
        asks: "does a flush on a full disk get the space of the log's spare segments?",
        run: scarcity::spares_on_full_disk,
    },
    Probe {
        name: "full-disk-flush",
        asks: "does a flush that does not fit remove its tables?",
        run: scarcity::flush_on_full_disk,
    },
    Probe { name: "flush-error", asks: "is a flush that fails reported?", run: flush_error },
    Probe { name: "manifest-error", asks: "are tables kept when an edit fails?", run: manifest_error },
    Probe {
        name: "table-error",
        asks: "is an unreadable block reported instead of skipped?",
        run: table_error,
    },
    Probe { name: "sync-error", asks: "is a failed sync final?", run: sync_error },
    Probe {
        name: "read-error",
        asks: "is an unreadable log reported instead of shortened?",
        run: read_error,
    },
    Probe {
        name: "log-damage",
        asks: "is damage below a sync reported instead of taken for the end of the log?",
        run: log_damage,
    },
    Probe {
        name: "half-made-log",
        asks: "is a log file with the blocks of a removed one excluded from the log?",
        run: half_made_log,
    },
    Probe {
        name: "replayed-awaited",
        asks: "does a sync after a recovery cover the replayed log, too?",
        run: late_sync::awaited,
    },
    Probe {
        name: "replayed-torn",
        asks: "are records after a lost replayed log lost with it?",
        run: late_sync::torn,
    },
    Probe {
        name: "replayed-sync-error",
        asks: "is a failed sync of a replayed log final?",
        run: late_sync::failed,
    },
    Probe {
        name: "replayed-noted",
        asks: "is damage of a synced replayed log reported instead of taken for a tear?",
        run: late_sync::noted,
    },
    Probe {
        name: "foreign-files",
        asks: "does an opening leave the files of another engine unchanged?",
        run: place::foreign_files,
    },
    Probe { name: "destroy", asks: "does destroying a database remove nothing else?", run: place::destroy },
    Probe {
        name: "strange-table",
        asks: "is a foreign file under a name of the engine's form kept?",
        run: place::strange_table,
    },
    Probe {
        name: "lock-file-removed",
        asks: "is a second opening refused whatever happens to the lock file?",
        run: place::lock_file_removed,
    },
    Probe {
        name: "directory-replaced",
        asks: "does a database stay in its directory when another one gets the name?",
        run: place::directory_replaced,
    },
    Probe {
        name: "table-of-another",
        asks: "is a table of another database with the right number and length detected?",
        run: place::table_of_another,
    },
    Probe {
        name: "periodic",
        asks: "does a power loss spare commits that are older than their interval and a sync?",
        run: periodic::kept,
    },
    Probe {
        name: "index-weight",
        asks: "is a batch refused whose index entries exceed a memtable, and a smaller one replayed?",
        run: large::index_weight,
    },
    Probe {
        name: "spare-segments",
        asks: "does the log release the segments of a large value?",
        run: segments::spare,
    },
    Probe {
        name: "full-log",
        asks: "does a log with all segments in use wait for a flush?",
        run: segments::full,
    },
    Probe {
        name: "position-limit",
        asks: "does a database at the end of its positions report it, flush and close?",
        run: segments::position_limit,
    },
    Probe {
        name: "paused",
        asks: "is a write refused that would wait for a paused flush?",
        run: large::paused,
    },
    Probe {
        name: "bodies",
        asks: "does a payload that was written apart from its record survive with the record?",
        run: bodies::written_apart,
    },
    Probe {
        name: "long-log",
        asks: "does an opening flush during replay if its memory is smaller than the log?",
        run: large::long_log,
    },
    Probe {
        name: "replayed-small",
        asks: "does an opening fill memtables by the entries' size in memory, not in the log?",
        run: large::replayed_small,
    },
    Probe {
        name: "large-price",
        asks: "is a small write exempt from the delay of another thread's large one?",
        run: large::price,
    },
    Probe { name: "waiting", asks: "do all threads that wait for one sync return?", run: waiting },
    Probe {
        name: "gap",
        asks: "is nothing after a gap in the log acknowledged or counted as durable?",
        run: gap,
    },
    Probe {
        name: "swapped-blocks",
        asks: "is a block in the place of another detected?",
        run: swapped_blocks,
    },
    Probe { name: "crafted-index", asks: "is a block of 4 GiB refused?", run: crafted_index },
    Probe { name: "crafted-footer", asks: "are sections refused whose ends overflow?", run: crafted_footer },
    Probe {
        name: "reading-while-merging",
        asks: "do gets see the newest version while tables change?",
        run: merging,
    },
    Probe {
        name: "scan-bounds",
        asks: "does a scan stop at the end of its range, whatever was deleted after it?",
        run: scans::bounds_are_handed_on,
    },
    Probe {
        name: "queues",
        asks: "is the cost of popping the first or last entry constant?",
        run: scans::queues_are_linear,
    },
    Probe {
        name: "vacancies",
        asks: "are the vacancies that scans skip empty, for every state that they read?",
        run: scans::vacancies_are_exact,
    },
    Probe {
        name: "vacancy-growth",
        asks: "does a vacancy grow only by ranges that were watched during the scan?",
        run: scans::vacancies_grow_over_what_was_watched,
    },
    Probe {
        name: "hot-key",
        asks: "is a key with very many versions one step of a scan?",
        run: scans::a_hot_key_is_one_step,
    },
    Probe {
        name: "iterator-state",
        asks: "does an iterator see the state at its creation?",
        run: scans::iterators_fix_their_state,
    },
    Probe {
        name: "readers-and-close",
        asks: "do readers continue after a close, without keeping the database open?",
        run: scans::readers_do_not_keep_it_open,
    },
    Probe {
        name: "index-log",
        asks: "does a strict index survive a kill like its rows, whatever their durability?",
        run: index_log,
    },
    Probe {
        name: "index-snapshot",
        asks: "does a snapshot see the index of its time after a merge of everything?",
        run: index_snapshot,
    },
    Probe {
        name: "index-pages",
        asks: "does an index scan keep its tree while newer ones are written?",
        run: index_pages,
    },
    Probe {
        name: "index-named",
        asks: "is an index that an opening names created, and an omitted one reported?",
        run: index_named,
    },
    Probe { name: "pause-guard", asks: "does background work continue after a pause?", run: pause_guard },
    Probe { name: "inserting-together", asks: "are keys found while others are inserted?", run: inserting },
];

/// The time after which a scenario hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// The same for a planted bug that may be a hang.
const PLANTED_LIMIT: Duration = Duration::from_secs(12);

/// Runs a scenario with a time limit.
pub fn check(probe: &'static Probe) {
    within(if planted::any() { PLANTED_LIMIT } else { LIMIT }, probe.name, probe.run);
}

fn run(settings: &Settings) -> ExitCode {
    plant();
    let only = settings.text("--only");
    let chosen: Vec<&Probe> =
        PROBES.iter().filter(|probe| only.is_none_or(|only| only == probe.name)).collect();
    if chosen.is_empty() {
        eprintln!(
            "no such probe; the probes are: {}",
            PROBES.iter().map(|p| p.name).collect::<Vec<_>>().join(", ")
        );
        return ExitCode::from(2);
    }
    let mut failed = 0;
    for probe in chosen {
        let kept = catch_unwind(AssertUnwindSafe(|| check(probe))).is_ok();
        println!("{:<24} {}", probe.name, if kept { "kept" } else { "BROKEN" });
        failed += u8::from(!kept);
    }
    ExitCode::from(failed.min(1))
}

fn lock() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let path = folder.path().join("db");
    let db = builder(&path, &Env::os()).open().expect("it opens");
    for read_only in [false, true] {
        let error = builder(&path, &Env::os()).read_only(read_only).open().map(drop).expect_err("it is open");
        assert_eq!(error.kind(), ErrorKind::Locked, "{error}");
    }
    db.default_keyspace().put("still", "writable").expect("the first handle keeps working");
}

fn names() {
    let (env, _fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    let error = db.keyspace("", KeyspaceOptions::default()).map(drop).expect_err("no name");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

fn prefix() {
    let (env, _fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    for key in ["a", "a1", "b", "b1"] {
        keyspace.put(key, "").expect("written");
    }
    let keys: Vec<Vec<u8>> = keyspace.prefix("a").map(|entry| entry.expect("read").into_parts().0).collect();
    assert_eq!(keys, [b"a".to_vec(), b"a1".to_vec()]);
}

fn keyspaces() {
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

fn turning() {
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
fn tiny_batch() {
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

fn memory() {
    let (env, _fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    for number in 0..6000u32 {
        keyspace.put(number.to_be_bytes(), [7; 2000]).expect("written");
        let memory = db.memory();
        let used = memory.memtables + memory.cache;
        assert!(used <= memory.budget, "{used} bytes are in use, the budget is {}", memory.budget);
    }
}

fn space() {
    let (env, fs) = Env::sim_manual(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    for round in 0..40u8 {
        for number in 0..100u32 {
            keyspace.put(number.to_be_bytes(), [round; 1000]).expect("written");
        }
        db.flush().expect("flushed");
    }
    db.compact().expect("merged");
    let tables = || -> u64 {
        let paths = fs.files().into_iter().filter(|path| path.extension().is_some_and(|name| name == "sst"));
        paths.map(|path| env.fs().file_len(&path).unwrap_or(0)).sum()
    };
    for _ in 0..500 {
        if tables() < 300_000 {
            return;
        }
        for step in BackgroundStep::ALL {
            db.background_step(step).expect("a healthy machine");
        }
    }
    panic!("100 KB of data take {} bytes in tables", tables());
}

fn full_disk() {
    let (env, fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    let space = env.fs().space(db.path()).expect("known");
    fs.set_capacity_bytes(Some(space.total - space.available + 150_000));
    let error = (0..5000u32)
        .find_map(|number| keyspace.put(number.to_be_bytes(), [7; 2000]).err())
        .expect("the disk is full at some time");
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    // The flush has no space either.
    let _ = db.flush();
    fs.set_capacity_bytes(None);
    eventually("writes continue", || match keyspace.put("later", "") {
        Ok(()) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            false
        }
    });
}

fn flush_error() {
    let (env, fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    db.default_keyspace().put("a", "1").expect("written");
    fs.fail(FaultRule::new(Call::Write, Fault::Io).on(".sst"));
    assert!(db.flush().is_err(), "the flush met an error");
    assert!(db.default_keyspace().put("b", "").is_err(), "background work failed");
}

fn manifest_error() {
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

fn table_error() {
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

fn sync_error() {
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

fn read_error() {
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

fn log_damage() {
    let (env, fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    for number in 0..50u32 {
        db.default_keyspace()
            .put_with(number.to_be_bytes(), [7; 100], &WriteOptions::sync())
            .expect("written");
    }
    fs.crash_at(0);
    let left = fs.kill();
    let log = left.files().into_iter().find(|path| {
        let is_log = path.extension().is_some_and(|name| name == "wal");
        is_log && left.read_file(path).is_ok_and(|bytes| bytes[DATA_OFFSET] != 0)
    });
    left.corrupt(log.expect("a log with records"), DATA_OFFSET as u64 + 1000, 0x20);
    let opened = builder("db", &env.with_file_system(Arc::new(left))).open().map(drop);
    assert_eq!(opened.expect_err("a synced record is damaged").kind(), ErrorKind::Corruption);
}

/// A crash that keeps the length of a new log file but not its bytes may expose the blocks of a
/// removed segment in it.
fn half_made_log() {
    const ROWS: u32 = 100;
    let (env, fs) = Env::sim_manual(1);
    let open = |fs: &SimFs| {
        let env = env.with_file_system(Arc::new(fs.clone()));
        builder("db", &env).advanced(|options| options.memtable_bytes = Some(1 << 20)).open()
    };
    let rows = |db: &Db| db.default_keyspace().iter().filter(|entry| entry.is_ok()).count();
    let db = open(&fs).expect("it opens");
    for number in 0..ROWS {
        db.default_keyspace().put(number.to_be_bytes(), [7; 1000]).expect("written");
    }
    fs.crash_at(0);
    let left = fs.kill();
    drop(db);
    let logs = left.files().into_iter().filter(|path| path.extension().is_some_and(|name| name == "wal"));
    let mut logs: Vec<(PathBuf, Vec<u8>)> =
        logs.map(|path| (path.clone(), left.read_file(&path).expect("it is there"))).collect();
    logs.sort();
    let [(first_path, first), (_, second), ..] = &logs[..] else { panic!("two segments: {}", logs.len()) };
    assert!(second[DATA_OFFSET] != 0, "the rows reach into the second segment");
    let strange = Path::new("db").join(FileName::Log(FileNumber(1000)).format());
    let behind = |header: &[u8]| [header, &second[HEADER_BYTES..]].concat();

    // Without its first record the log ends at once: the second segment is not needed, and may be
    // removed.
    let mut torn = first.clone();
    torn[DATA_OFFSET..DATA_OFFSET + 16].fill(0);
    left.write_file(first_path, &torn).expect("replaced");
    let db = open(&left).expect("it opens");
    assert_eq!(rows(&db), 0, "the first record is gone");
    db.default_keyspace().put("after", "").expect("written");
    let left = left.kill();
    drop(db);
    for (what, bytes) in [
        ("a whole segment", second.clone()),
        ("half a segment", second[..second.len() / 2].to_vec()),
        ("records without a header", behind(&[0; HEADER_BYTES])),
        ("records after garbage", behind(&[0x5A; HEADER_BYTES])),
        ("zeros", vec![0; second.len()]),
    ] {
        let image = left.kill();
        image.write_file(&strange, &bytes).expect("made");
        let db = open(&image).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(rows(&db), 1, "{what}");
        // Its length and its zeros may be in memory only, and a sync of a part of the file would
        // not change that: it is not reused. A file without proof of origin is foreign.
        let left = image.read_file(&strange).ok();
        let is_ours = ["a whole segment", "half a segment", "zeros"].contains(&what);
        assert_eq!(left, if is_ours { None } else { Some(bytes) }, "{what}");
    }
    // A segment that is needed, under another number: its header is damaged.
    let mut logs = left.files().into_iter().map(|path| left.read_file(path).expect("it is there"));
    let is_needed = |bytes: &Vec<u8>| bytes.windows(5).any(|at| at == b"after");
    let bytes = logs.find(is_needed).expect("the log of the second opening");
    left.write_file(&strange, &bytes).expect("made");
    let error = open(&left).map(drop).expect_err("a needed record follows an invalid header");
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
}

/// Threads that commit with a sync while the power fails: every acknowledged commit must survive.
fn waiting() {
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
const GAP_SCHEDULES: u64 = 360;

fn gap() {
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
fn write_until_the_log_fails(env: &Env, fs: &SimFs, seed: u64, acknowledged: &Arc<Mutex<Vec<String>>>) {
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

/// A misplaced write that stores a whole block in the place of another.
fn swapped_blocks() {
    const BLOCK: usize = 4096;
    let (env, fs) = Env::sim(1);
    let open =
        || builder("db", &env).advanced(|options| options.block_bytes = BLOCK).open().expect("it opens");
    let db = open();
    let value = |number: u32| [number as u8; 100];
    for number in 0..400u32 {
        db.default_keyspace().put(number.to_be_bytes(), value(number)).expect("written");
    }
    db.close().expect("closed");
    let table = fs.files().into_iter().find(|path| path.extension().is_some_and(|name| name == "sst"));
    let table = table.expect("a close flushes");
    let mut bytes = fs.read_file(&table).expect("it is there");
    let (first, second) = bytes[..2 * BLOCK].split_at_mut(BLOCK);
    first.swap_with_slice(second);
    fs.write_file(&table, &bytes).expect("replaced");
    let db = open();
    for number in 0..400u32 {
        match db.default_keyspace().get(number.to_be_bytes()) {
            Ok(got) => assert_eq!(got.as_deref(), Some(&value(number)[..]), "key {number}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Corruption, "{error}"),
        }
    }
    assert!(db.default_keyspace().get(0u32.to_be_bytes()).is_err(), "two blocks were swapped");
}

fn crafted_index() {
    let mut index = TableIndexColumns::default();
    index.push(&[], 0, u32::MAX, false).expect("one block");
    index.data_len = 64;
    let mut payload = Vec::new();
    index.encode(&mut payload);
    assert!(TableIndexColumns::decode(&payload).is_err(), "a block of 64 bytes announces 4 GiB");
}

fn crafted_footer() {
    let section = |offset: u64, len: u64| SectionHandle { offset, len };
    // The second section begins at the overflowed end of the first.
    let footer = TableFooter {
        data_len: 4096,
        filter: section(4096, u64::MAX - 95),
        index: section(4000, 50),
        properties: section(4050, 50),
        database: 0,
    };
    let bytes = footer.encode(FileNumber(7));
    let decoded = TableFooter::decode(&bytes, FileNumber(7), 4100 + FOOTER_BYTES as u64);
    assert!(decoded.is_err(), "sections overlap the data: {decoded:?}");
}

/// Gets concurrent with overwrites, flushes and compactions, in many orders: a get never returns an
/// older value than one that was acknowledged before it.
fn merging() {
    for seed in 0..48 {
        let (env, _fs, schedule) = Env::sim_scheduled(seed);
        if let Err(what) = schedule.run(move || merge_beside_readers(&env)) {
            panic!("schedule {seed}: {what}");
        }
    }
}

fn merge_beside_readers(env: &Env) {
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

/// An index on the first byte of values, which covers some of the following bytes.
fn first_byte() -> IndexOptions {
    let covering = Field::value().range(1, 120);
    IndexOptions::builtin(Builtin::new(Field::value().range(0, 1), KeyKind::Bytes).covering(covering))
}

/// Commits without a log record, and one with a log record, of the same row.
fn index_log() {
    let (env, fs) = Env::sim_manual(1);
    let strict = || first_byte().maintenance(Maintenance::Strict);
    let without_log = WriteOptions { durability: Some(Durability::None) };
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    keyspace.create_index("first", strict()).expect("made");
    keyspace.put("row", "a").expect("written");
    keyspace.put_with("row", "b", &without_log).expect("written");
    keyspace.put("row", "c").expect("written");
    fs.crash_at(0);
    drop((keyspace, db));
    let env = env.with_file_system(Arc::new(fs.kill()));
    let db = builder("db", &env).open().expect("it opens");
    let index = db.default_keyspace().create_index("first", strict()).expect("it is there");
    let report = index.verify().expect("read");
    assert!(report.is_right(), "the index disagrees with its row: {report:?}");
}

/// Openings that name indexes: one that exists, one that does not, and neither of two.
fn index_named() {
    let (mut env, mut fs) = Env::sim_manual(1);
    let second_byte = || IndexOptions::new(|_key, value, emit| emit.key(&value[1..2]));
    let named = |env: &Env, names: &[&str]| {
        let add = |builder: DbBuilder, name: &&str| match *name {
            "first" => builder.index("default", "first", first_byte()),
            name => builder.index("default", name, second_byte()),
        };
        names.iter().fold(builder("db", env), add).open()
    };
    for names in [&["first"][..], &["first", "second"], &["second"]] {
        let db = named(&env, names).expect("it opens");
        let keyspace = db.default_keyspace();
        keyspace.put(names.len().to_be_bytes(), "ab").expect("every index has its code");
        for name in names {
            let report = keyspace.index(name).expect("it was named").verify().expect("read");
            assert!(report.is_right() && report.entries > 0, "{name}: {report:?}");
        }
        fs = fs.kill();
        drop((keyspace, db));
        env = env.with_file_system(Arc::new(fs.clone()));
    }
    let db = named(&env, &[]).expect("it opens");
    db.default_keyspace().create_index("third", second_byte()).expect("made");
    db.close().expect("closed");
    let error = named(&env, &["first", "second"]).map(drop).expect_err("the third is left out");
    assert!(error.kind() == ErrorKind::IndexUnavailable && error.to_string().contains("third"), "{error}");
}

/// A guard that an early return drops, and a pause that ends by a call.
fn pause_guard() {
    let (env, _fs) = Env::sim_manual(1);
    let db = builder("db", &env).open().expect("it opens");
    let fails = |db: &Db| -> Result<()> {
        let _pause = db.pause_guard()?;
        Err(Error::invalid_argument("the work of the application fails"))
    };
    fails(&db).expect_err("it fails");
    db.pause_background().expect("paused");
    db.resume_background();
    db.default_keyspace().put("row", "a").expect("written");
    db.flush().expect("work continues");
}

fn index_snapshot() {
    let (env, _fs) = Env::sim_manual(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("first", first_byte()).expect("made");
    let write = |letter: &str| {
        for number in 0..50u32 {
            keyspace.put(number.to_be_bytes(), letter).expect("written");
        }
    };
    write("a");
    db.flush().expect("flushed");
    let snapshot = db.snapshot();
    for letter in ["b", "c"] {
        write(letter);
        db.flush().expect("flushed");
        db.compact().expect("merged");
    }
    for (letter, old, new) in [("a", 50, 0), ("b", 0, 0), ("c", 0, 50)] {
        assert_eq!(index.get(letter).at(&snapshot).count(), old, "{letter} at the snapshot");
        assert_eq!(index.get(letter).count(), new, "{letter} now");
    }
}

/// An index scan that reads a tree page by page while two later states of the tree are written.
fn index_pages() {
    const ROWS: u32 = 4000;
    let (env, _fs) = Env::sim_manual(1);
    let db = builder("db", &env)
        .advanced(|options| options.memtable_bytes = Some(1 << 20))
        .open()
        .expect("it opens");
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("first", first_byte()).expect("made");
    let put = |number: u32, round: u8| {
        let value = [&b"a"[..], &[round; 120]].concat();
        keyspace.put(number.to_be_bytes(), value).expect("written");
    };
    let merge_when_idle = || {
        for _ in 0..2 {
            env.sleep(Duration::from_secs(2));
            while db.background_step(BackgroundStep::Compaction).expect("merged") {}
        }
    };
    (0..ROWS).for_each(|number| put(number, 0));
    db.compact().expect("merged");
    // The remaining rows of this range move to other places among the pages.
    (0..ROWS / 3).for_each(|number| keyspace.delete(number.to_be_bytes()).expect("written"));
    (0..ROWS).skip(ROWS as usize / 3).step_by(25).for_each(|number| put(number, 1));
    db.flush().expect("flushed");
    // These rows enter the tree later, and the scan sees them too, so that no write has to wait for
    // the end of the scan.
    (0..ROWS).skip(ROWS as usize / 3 + 7).step_by(25).for_each(|number| put(number, 2));
    let mut walk = index.iter();
    let first = walk.next().expect("there are rows").expect("read");
    merge_when_idle();
    db.flush().expect("flushed");
    merge_when_idle();
    let mut expected = ROWS / 3;
    for hit in std::iter::once(Ok(first)).chain(walk) {
        let hit = hit.expect("read");
        assert_eq!(hit.primary_key(), expected.to_be_bytes(), "row {expected} comes next");
        let round = match (expected - ROWS / 3) % 25 {
            0 => 1,
            7 => 2,
            _ => 0,
        };
        assert_eq!(hit.covering(), [round; 120], "row {expected}");
        expected += 1;
    }
    assert_eq!(expected, ROWS, "the walk comes to the end");
}

/// Writers that split the same leaves, and readers of the earlier rows.
fn inserting() {
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
