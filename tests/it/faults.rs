//! Full disks and failing calls: an error or the right result, never wrong data, a panic or a hang.
use sapwood::{Db, Durability, Env, Error, ErrorKind, Health, KeyspaceOptions};
use sapwood_storage::sim::{Fault, FaultRule, FsyncFailure, Operation as Call, SimFs};
use sapwood_tests::harness::{builder, contents, eventually, within};
use sapwood_tests::journal::{Journal, Write};
use sapwood_tests::sim::arguments::Settings;
use sapwood_tests::sim::fault;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// The keyspace that is created and dropped.
const SECOND: u8 = 1;

fn writes(number: u64) -> Vec<Write> {
    let mut random = fastrand::Rng::with_seed(number);
    (0..3)
        .map(|_| {
            let key = format!("key-{:03}", random.u32(..90)).into_bytes();
            let value = match random.u8(..6) {
                0 => None,
                _ => Some(vec![random.u8(..); random.usize(..1500)].into()),
            };
            (0, key, value)
        })
        .collect()
}

fn durability(number: u64) -> Durability {
    match number % 5 {
        0 => Durability::Sync,
        _ => Durability::Buffered,
    }
}

fn used_bytes(env: &Env) -> u64 {
    let space = env.fs().space(Path::new("db")).unwrap();
    space.total - space.available
}

fn is_poisoned(db: &Db) -> bool {
    matches!(db.health(), Health::Poisoned(_))
}

/// The same machine after the end of the process or a power loss.
fn restarted(env: &Env, fs: &SimFs) -> Env {
    env.with_file_system(Arc::new(fs.clone()))
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    within(LIMIT, "the full disk", || {
        for room in [0, 10_000, 70_000, 150_000, 300_000] {
            let (env, fs) = Env::sim(room);
            let mut journal = Journal::new();
            let db = builder("db", &env).open().unwrap();
            for number in 0..30 {
                journal.commit(&db, writes(number), durability(number)).unwrap();
            }
            fs.set_capacity_bytes(Some(used_bytes(&env) + room));
            let mut number = 30;
            let error = loop {
                match journal.commit(&db, writes(number), durability(number)) {
                    Ok(()) => number += 1,
                    Err(error) => break error,
                }
                assert!(number < 5000, "the disk is never full");
            };
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
            assert!(error.is_retryable());
            journal.withdraw();
            journal.check(&db, journal.acknowledged()).unwrap();
            // It stays full, and refuses at once.
            for _ in 0..3 {
                match journal.commit(&db, writes(number), Durability::Buffered) {
                    // Background work may have freed some space.
                    Ok(()) => {}
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                        journal.withdraw();
                    }
                }
            }
            journal.check(&db, journal.acknowledged()).unwrap();

            // The state after a kill can be read on the full disk, and opened once there is space.
            let left = fs.kill();
            left.set_capacity_bytes(Some(used_bytes(&env)));
            let reader = builder("db", &restarted(&env, &left)).read_only(true).open().unwrap();
            journal.check(&reader, journal.acknowledged()).unwrap();
            drop(reader);
            match builder("db", &restarted(&env, &left)).open() {
                Ok(db) => drop(journal.check(&db, journal.acknowledged()).unwrap()),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}"),
            }
            left.set_capacity_bytes(None);
            let db_left = builder("db", &restarted(&env, &left)).open().unwrap();
            journal.check(&db_left, journal.acknowledged()).unwrap();
            drop(db_left);

            fs.set_capacity_bytes(None);
            eventually("writes resume", || match journal.commit(&db, writes(number), Durability::Sync) {
                Ok(()) => true,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
                    journal.withdraw();
                    false
                }
            });
            eventually("the database is healthy", || matches!(db.health(), Health::Good));
            for more in 0..200 {
                journal.commit(&db, writes(number + more), Durability::Buffered).unwrap();
            }
            db.flush().unwrap();
            journal.check(&db, journal.acknowledged()).unwrap();
            db.close().unwrap();
            let db = builder("db", &env).open().unwrap();
            journal.check(&db, journal.acknowledged()).unwrap();
        }
    });
}

#[test]
fn a_failed_sync_of_the_log_closes_the_write_path() {
    for fault in [Fault::Io, Fault::NoSpace] {
        within(LIMIT, "the failed sync", move || {
            // Without threads: one that preallocates log segments would sometimes meet the fault
            // instead.
            let (env, fs) = Env::sim_manual(1);
            let mut journal = Journal::new();
            let db = builder("db", &env).open().unwrap();
            for number in 0..20 {
                journal.commit(&db, writes(number), durability(number)).unwrap();
            }
            fs.fail(FaultRule::new(Call::Sync, fault).on(".wal"));
            let error = journal.commit(&db, writes(20), Durability::Sync).unwrap_err();
            assert!(!error.is_retryable(), "a failed sync must not be retried: {error}");
            assert!(is_poisoned(&db));
            for durability in [Durability::Buffered, Durability::Sync, Durability::None] {
                let error = db
                    .batch()
                    .put(&db.default_keyspace(), "later", "")
                    .commit_durable(durability)
                    .map(drop)
                    .unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
            }
            assert_eq!(db.sync().unwrap_err().kind(), ErrorKind::Poisoned);
            assert_eq!(db.flush().unwrap_err().kind(), ErrorKind::Poisoned);
            assert!(db.keyspace("new", KeyspaceOptions::default()).is_err());
            // Reads continue; the commit in doubt may be visible.
            journal.check(&db, journal.acknowledged()).unwrap();
            fs.crash_at(0);
            for seed in 0..30 {
                let left = fs.crash(seed);
                let db = builder("db", &restarted(&env, &left)).open().unwrap();
                journal.check(&db, journal.durable()).unwrap();
            }
            let left = fs.kill();
            let reopened = builder("db", &restarted(&env, &left)).open().unwrap();
            journal.check(&reopened, journal.acknowledged()).unwrap();
            assert!(db.close().is_err());
        });
    }
}

#[test]
fn what_a_failed_sync_left_in_memory_is_written_again_at_the_next_opening() {
    for failure in FsyncFailure::ALL {
        within(LIMIT, "the failed sync", move || {
            let (env, fs) = Env::sim_manual(1);
            let mut journal = Journal::new();
            let db = builder("db", &env).open().unwrap();
            for number in 0..20 {
                journal.commit(&db, writes(number), Durability::Buffered).unwrap();
            }
            fs.fail(FaultRule::new(Call::Sync, Fault::SyncFailure(failure)).on(".wal"));
            let mut failed = false;
            for number in 20..23 {
                failed |= journal.commit(&db, writes(number), Durability::Sync).is_err();
            }
            assert!(failed);
            fs.crash_at(0);
            drop(db);
            // The process ends, as the error advises, and the machine continues: the next open
            // reads bytes from memory that the disk does not have.
            let left = fs.kill();
            let db = builder("db", &restarted(&env, &left)).open().unwrap();
            // Btrfs exposes the old bytes at once, and the acknowledged commits are gone with them.
            let floor = if failure == FsyncFailure::Btrfs { 0 } else { journal.acknowledged() };
            journal.recovered(&db, floor).unwrap();
            for number in 30..40 {
                let durability = if number == 35 { Durability::Sync } else { Durability::Buffered };
                journal.commit(&db, writes(number), durability).unwrap();
            }
            left.crash_at(0);
            for seed in 0..20 {
                let later = left.crash(seed);
                let db = builder("db", &restarted(&env, &later)).open().unwrap();
                journal.check(&db, journal.durable()).unwrap();
            }
        });
    }
}

#[test]
fn a_commit_that_waits_is_told_of_the_failed_sync() {
    within(LIMIT, "the failed sync", || {
        let (env, fs) = Env::sim(1);
        let db = builder("db", &env).open().unwrap();
        let commit = db.batch().put(&db.default_keyspace(), "a", "1").commit().unwrap();
        // All of them: the next segment may be created in the meantime, with a sync of its own.
        fs.fail(FaultRule::new(Call::Sync, Fault::Io).on(".wal").sticky());
        assert_eq!(commit.wait_durable().unwrap_err().kind(), ErrorKind::Poisoned);
        // The background sync of periodic durability reports the failure, too.
        let (env, fs) = Env::sim(2);
        let db = builder("db", &env).open().unwrap();
        // The first write waits for the first segment.
        db.default_keyspace().put("0", "").unwrap();
        fs.fail(FaultRule::new(Call::Sync, Fault::Io).on(".wal").sticky());
        let periodic = Durability::Periodic(Duration::from_millis(1));
        db.batch().put(&db.default_keyspace(), "a", "1").commit_durable(periodic).map(drop).unwrap();
        eventually("the failed sync is reported", || is_poisoned(&db));
        assert_eq!(db.default_keyspace().put("b", "").unwrap_err().kind(), ErrorKind::Poisoned);
    });
}

#[test]
fn failing_reads_are_errors_and_heal() {
    within(LIMIT, "failing reads", || {
        let (env, fs) = Env::sim(1);
        let mut journal = Journal::new();
        let open = || builder("db", &env).advanced(|o| o.disable_auto_compactions = true).open();
        let db = open().unwrap();
        for number in 0..100 {
            journal.commit(&db, writes(number), Durability::Buffered).unwrap();
        }
        db.close().unwrap();
        for skip in 0..40 {
            let db = open().unwrap();
            fs.fail(FaultRule::new(Call::Read, Fault::Io).on(".sst").after(skip));
            match journal.check(&db, journal.acknowledged()) {
                Ok(_) => {}
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
                    assert!(error.file().is_some(), "{error}");
                }
            }
            fs.clear_faults();
            // A failed read has no lasting effect.
            journal.check(&db, journal.acknowledged()).unwrap();
            assert!(matches!(db.health(), Health::Good));
        }
        let db = open().unwrap();
        fs.fail(FaultRule::new(Call::Read, Fault::Io).on(".sst").sticky());
        let items: Vec<_> = db.default_keyspace().iter().collect();
        assert!(
            items.last().is_some_and(|item| item.as_ref().is_err_and(|error| error.kind() == ErrorKind::Io))
        );
    });
}

#[test]
fn errors_of_background_work_surface() {
    within(LIMIT, "background errors", || {
        for (call, path) in [
            (Call::Create, ".sst"),
            (Call::Write, ".sst"),
            (Call::Sync, ".sst"),
            (Call::SyncDirectory, ""),
            (Call::Write, "MANIFEST"),
            (Call::Sync, "MANIFEST"),
        ] {
            // Without threads: one that preallocates log segments would sometimes meet the fault
            // instead.
            let (env, fs) = Env::sim_manual(1);
            let mut journal = Journal::new();
            let db = builder("db", &env).open().unwrap();
            for number in 0..20 {
                journal.commit(&db, writes(number), durability(number)).unwrap();
            }
            fs.fail(FaultRule::new(call, Fault::Io).on(path));
            assert!(db.flush().is_err(), "{call:?} on {path:?}");
            assert!(is_poisoned(&db), "{call:?} on {path:?}");
            let error = db.default_keyspace().put("later", "").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
            assert!(error.to_string().contains("simulated failure"), "the cause is named: {error}");
            journal.check(&db, journal.acknowledged()).unwrap();
            let error = db.close().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
            let db = builder("db", &env).open().unwrap();
            journal.check(&db, journal.acknowledged()).unwrap();
        }

        // A compaction without a waiting caller.
        let (env, fs) = Env::sim(1);
        let mut journal = Journal::new();
        let db = builder("db", &env).open().unwrap();
        db.pause_background().unwrap();
        db.resume_background();
        fs.fail(FaultRule::new(Call::Read, Fault::Io).on(".sst").sticky());
        for number in 0.. {
            assert!(number < 10_000, "compaction never fails");
            if journal.commit(&db, writes(number), Durability::Buffered).is_err() {
                break;
            }
        }
        assert!(is_poisoned(&db));
        fs.clear_faults();
        journal.check(&db, journal.acknowledged()).unwrap();
        drop(db);
        let db = builder("db", &env).open().unwrap();
        journal.check(&db, journal.acknowledged()).unwrap();
    });
}

#[test]
fn a_full_disk_at_a_sync_of_the_manifest_takes_no_tables_away() {
    within(LIMIT, "the full MANIFEST", || {
        for call in [Call::Write, Call::Sync, Call::SyncDirectory] {
            let (env, fs) = Env::sim(1);
            let mut journal = Journal::new();
            let db = builder("db", &env).open().unwrap();
            for number in 0..20 {
                journal.commit(&db, writes(number), durability(number)).unwrap();
            }
            let path = if call == Call::SyncDirectory { "" } else { "MANIFEST" };
            fs.fail(FaultRule::new(call, Fault::NoSpace).on(path));
            // The flush may be retried and succeed, or close the write path.
            let _ = db.flush();
            journal.check(&db, journal.acknowledged()).unwrap();
            let _ = db.close();
            drop(db);
            for left in [fs.kill(), fs.crash(0), fs.crash(1)] {
                let db = builder("db", &restarted(&env, &left)).open().unwrap();
                journal.check(&db, journal.durable()).unwrap();
            }
        }
    });
}

/// Opens, works, closes. Whatever fails, `journal` knows the promises for afterwards.
fn work(env: &Env, fs: &SimFs, journal: &mut Journal) {
    // An error needs a cause: nothing may fail on its own.
    let cause = |error: &Error| assert!(fs.faults_met() > 0, "nothing had failed: {error}");
    let mut db = None;
    for _ in 0..3 {
        match builder("db", env).open() {
            Ok(opened) => {
                db = Some(opened);
                break;
            }
            Err(error) => cause(&error),
        }
    }
    let Some(db) = db else { return };
    for number in 0..70 {
        let result = match number {
            10 => journal.create_space(&db, SECOND),
            25 | 45 => db.flush().map(|()| journal.synced()),
            50 => db.compact().map(|()| journal.synced()),
            60 if journal.has_space(SECOND) => journal.drop_space(&db, SECOND),
            _ => {
                let mut writes = writes(number);
                if journal.has_space(SECOND) {
                    let (_, key, value) = writes[0].clone();
                    writes.push((SECOND, key, value));
                }
                match journal.commit(&db, writes, durability(number)) {
                    Ok(()) => Ok(()),
                    // In doubt: it can be the last of the history, since nothing follows it.
                    Err(error) if is_poisoned(&db) => {
                        cause(&error);
                        break;
                    }
                    Err(error) => {
                        journal.withdraw();
                        Err(error)
                    }
                }
            }
        };
        if let Err(error) = result {
            cause(&error);
            match journal.check(&db, journal.acknowledged()) {
                Ok(_) => {}
                Err(error) => cause(&error),
            }
            if is_poisoned(&db) {
                break;
            }
        }
    }
    if is_poisoned(&db) {
        let error = db.default_keyspace().put("poisoned", "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Poisoned, "{error}");
    }
    match journal.check(&db, journal.acknowledged()) {
        Ok(_) => {}
        Err(error) => cause(&error),
    }
    if let Err(error) = db.close() {
        cause(&error);
    }
}

#[test]
fn every_call_may_fail_once_or_for_good() {
    let calls = [
        (Call::Create, true),
        (Call::Open, false),
        (Call::LookUp, false),
        (Call::Read, false),
        (Call::Write, true),
        (Call::Sync, true),
        (Call::Remove, false),
        (Call::List, false),
        (Call::SyncDirectory, true),
        (Call::Lock, false),
        (Call::CreateDirectory, true),
    ];
    for (call, may_fill) in calls {
        for (fault, sticky, step) in [
            (Fault::Io, false, 1),
            (Fault::NoSpace, false, 1),
            (Fault::Io, true, 7),
            (Fault::NoSpace, true, 7),
        ] {
            if fault == Fault::NoSpace && !may_fill {
                continue;
            }
            let mut skip = 0;
            loop {
                let what =
                    format!("{call:?} number {skip} with {fault:?}{}", if sticky { " for good" } else { "" });
                let met = within(LIMIT, &what.clone(), move || {
                    let (env, fs) = Env::sim(skip);
                    let mut journal = Journal::new();
                    let rule = FaultRule::new(call, fault).after(skip);
                    fs.fail(if sticky { rule.sticky() } else { rule });
                    let guard = OnPanic(what);
                    work(&env, &fs, &mut journal);
                    fs.crash_at(0);
                    for (left, floor) in [
                        (fs.kill(), journal.acknowledged()),
                        (fs.crash(0), journal.durable()),
                        (fs.crash(skip + 2), journal.durable()),
                    ] {
                        let db = builder("db", &restarted(&env, &left)).open().unwrap();
                        journal.check(&db, floor).unwrap();
                    }
                    drop(guard);
                    fs.faults_met() > 0
                });
                if !met {
                    break;
                }
                skip += step;
            }
        }
    }
}

#[test]
fn a_bit_of_the_log_that_is_read_wrong_takes_nothing_away() {
    let (env, fs) = Env::sim_manual(11);
    let db = builder("db", &env).open().unwrap();
    for number in 0..50u32 {
        db.default_keyspace().put(number.to_be_bytes(), [7; 100]).unwrap();
    }
    fs.crash_at(0);
    drop(db);
    let rows =
        |env: &Env| builder("db", env).open().map(|db| contents(&db.default_keyspace()).unwrap().len());
    let mut refused = 0;
    for skip in 0..8 {
        for bit in (0..8 * 4096).step_by(1501) {
            let left = fs.kill();
            left.fail(FaultRule::new(Call::Read, Fault::FlipRead(bit)).on(".wal").after(skip));
            let env = env.with_file_system(Arc::new(left.clone()));
            match rows(&env) {
                Ok(count) => assert_eq!(count, 50, "bit {bit} of read {skip} was wrong"),
                Err(error) => {
                    assert!(error.kind() == ErrorKind::Corruption && error.file().is_some(), "{error}");
                    refused += 1;
                    // The failed open has changed nothing.
                    left.clear_faults();
                    assert_eq!(rows(&env).unwrap(), 50, "after bit {bit} of read {skip} was wrong");
                }
            }
        }
    }
    assert!(refused > 0, "some bit was of a record");
}

#[test]
fn every_call_of_a_small_workload_may_go_wrong_in_every_way() {
    // A third of a share of the calls, without indexes and with them; `sapwood-sim fault` runs
    // everything.
    for number in [0, 39] {
        let report = fault::seed(number, &Settings::default().with("--one-in", 3));
        assert!(report.violations.is_empty(), "{}", report.violations.join("\n"));
        // The places of removals depend on the threads of other tests, so some calls do not occur
        // again.
        let [runs, told, _, poisoned, ..] = report.counts[..] else { panic!("{:?}", report.counts) };
        assert!(runs > 40 && told > 0 && poisoned > 0, "{:?}", report.counts);
    }
}

/// Prints the case that panicked.
struct OnPanic(String);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the fault was: {}", self.0);
        }
    }
}
