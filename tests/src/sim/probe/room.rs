//! Reclaimed space, and the space that compactions need.
use crate::harness::builder;
use sapwood::{BackgroundStep, CompactionStyle, Db, Env, ErrorKind, KeyspaceOptions};
use sapwood_storage::sim::{Fault, FaultRule, Operation as Call, SimFs};
use std::time::Duration;

/// Several runs of the same rows. Their lengths differ, so that tables end at different rows.
fn fill(db: &Db, runs: u8, rows: u32) {
    let keyspace = db.default_keyspace();
    for run in 0..runs {
        for row in 0..rows {
            keyspace.put(row.to_be_bytes(), vec![run; 1000 - 37 * usize::from(run)]).expect("written");
        }
        db.flush().expect("flushed");
    }
}

fn tables(fs: &SimFs) -> usize {
    fs.files().iter().filter(|path| path.extension().is_some_and(|name| name == "sst")).count()
}

pub(super) fn finished_slices() {
    // Four slices are merged at once; in each round another one meets the full disk.
    for writes in 0..10 {
        let (env, fs) = Env::sim(1);
        let db = builder("db", &env)
            .advanced(|options| {
                options.disable_auto_compactions = true;
                options.subcompactions = 4;
                // A run for each flush.
                options.memtable_bytes = Some(1 << 20);
            })
            .open()
            .expect("it opens");
        fill(&db, 4, 600);
        fs.fail(FaultRule::new(Call::Write, Fault::NoSpace).on(".sst").after(writes));
        let error = db.compact().expect_err("the disk is full");
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        let listed: usize =
            db.stats().keyspaces.iter().flat_map(|keyspace| &keyspace.levels).map(|level| level.files).sum();
        db.close().expect("closed");
        assert_eq!(
            tables(&fs),
            listed,
            "tables in the directory, and in the database, after {writes} writes"
        );
    }
}

pub(super) fn compaction_retries() {
    let (env, fs) = Env::sim_manual(1);
    let db = builder("db", &env).advanced(|options| options.level0_runs = 8).open().expect("it opens");
    fill(&db, 8, 40);
    fs.fail(FaultRule::new(Call::Write, Fault::NoSpace).on(".sst").sticky());
    let (before, looks) = (fs.calls(Call::Create), 100);
    for _ in 0..looks {
        assert!(!db.background_step(BackgroundStep::Compaction).expect("a healthy machine"));
    }
    let tries = fs.calls(Call::Create) - before;
    assert!((2..=10).contains(&tries), "{looks} looks for work, {tries} tries");
    fs.clear_faults();
    let done = (0..=40).any(|_| db.background_step(BackgroundStep::Compaction).expect("a healthy machine"));
    assert!(done, "the compaction continues once there is space");
}

const STYLES: [CompactionStyle; 2] = [CompactionStyle::Hybrid, CompactionStyle::Leveled];

fn open(env: &Env, style: CompactionStyle) -> Db {
    let builder = builder("db", env).advanced(|options| options.compaction_style = style);
    builder.open().expect("it opens")
}

fn table_bytes(env: &Env, fs: &SimFs) -> u64 {
    let paths = fs.files().into_iter().filter(|path| path.extension().is_some_and(|name| name == "sst"));
    paths.map(|path| env.fs().file_len(&path).unwrap_or(0)).sum()
}

/// Advances the clock without a write.
fn rest(env: &Env, db: &Db) {
    for _ in 0..4 {
        env.sleep(Duration::from_secs(2));
        for step in [BackgroundStep::Compaction, BackgroundStep::Flush, BackgroundStep::Sweep] {
            while db.background_step(step).expect("a healthy machine") {}
        }
    }
}

/// The history of an idle database.
#[derive(Clone, Copy, Debug)]
enum Pause {
    Settled,
    Idle,
    Reopened,
}

pub(super) fn hidden_garbage() {
    const ROWS: u32 = 3000;
    for (style, pause) in STYLES
        .iter()
        .flat_map(|style| [Pause::Settled, Pause::Idle, Pause::Reopened].map(|pause| (*style, pause)))
    {
        for shrinks in [false, true] {
            let (env, fs) = Env::sim_manual(1);
            let mut db = open(&env, style);
            let keyspace = db.default_keyspace();
            (0..ROWS).for_each(|row| keyspace.put(row.to_be_bytes(), [1; 1000]).expect("written"));
            db.compact().expect("merged");
            for row in (0..ROWS).filter(|row| row % 20 != 0) {
                match shrinks {
                    true => keyspace.put(row.to_be_bytes(), "tiny").expect("written"),
                    false => keyspace.delete(row.to_be_bytes()).expect("written"),
                };
            }
            drop(keyspace);
            match pause {
                Pause::Settled => db.settle().expect("settled"),
                Pause::Idle => {}
                Pause::Reopened => {
                    db.close().expect("closed");
                    drop(db);
                    db = open(&env, style);
                }
            }
            rest(&env, &db);
            let bytes = table_bytes(&env, &fs);
            assert!(
                bytes < u64::from(ROWS) * 120,
                "{style:?}, {pause:?}, {}: {bytes} bytes remain of {ROWS} rows of 1000 bytes",
                if shrinks { "overwritten by four bytes" } else { "deleted" },
            );
        }
    }
}

pub(super) fn snapshot_garbage() {
    const ROWS: u32 = 1000;
    for (style, is_reopened) in STYLES.iter().flat_map(|style| [(*style, false), (*style, true)]) {
        let (env, fs) = Env::sim_manual(1);
        let mut db = open(&env, style);
        let write = |db: &Db, round: u8| {
            let keyspace = db.default_keyspace();
            (0..ROWS).for_each(|row| keyspace.put(row.to_be_bytes(), [round; 1000]).expect("written"));
        };
        write(&db, 1);
        let snapshot = db.snapshot();
        write(&db, 2);
        db.compact().expect("merged");
        rest(&env, &db);
        let both = table_bytes(&env, &fs);
        assert!(both > u64::from(ROWS) * 1900, "the snapshot needs the old rows: {both} bytes");
        let written = db.stats().compaction_bytes_written;
        for _ in 0..3 {
            db.compact().expect("merged");
            rest(&env, &db);
        }
        assert_eq!(db.stats().compaction_bytes_written, written, "{style:?}: rewritten without a benefit");
        let old = db.default_keyspace().get_at(1u32.to_be_bytes(), &snapshot).expect("read");
        assert_eq!(old.as_deref(), Some(&[1; 1000][..]));
        drop(snapshot);
        if is_reopened {
            db.close().expect("closed");
            drop(db);
            db = open(&env, style);
        }
        rest(&env, &db);
        let bytes = table_bytes(&env, &fs);
        assert!(
            bytes < u64::from(ROWS) * 1200,
            "{style:?}, reopened {is_reopened}: {bytes} of {both} remain"
        );
    }
}

pub(super) fn leveled_idle() {
    for style in STYLES {
        let (env, fs) = Env::sim_manual(1);
        let db = open(&env, style);
        let keyspace = db.default_keyspace();
        let runs = || db.stats().keyspaces.iter().map(|keyspace| keyspace.runs).max().unwrap_or(0);
        (0..2000u32).for_each(|row| keyspace.put((2 * row).to_be_bytes(), [1; 200]).expect("written"));
        db.compact().expect("merged");
        (0..400u32).for_each(|row| keyspace.put((10 * row + 1).to_be_bytes(), [1; 200]).expect("written"));
        db.settle().expect("settled");
        assert_eq!(runs(), 1, "{style:?}: a sixth of the rows is newer");
        (0..4000u32).for_each(|row| keyspace.delete(row.to_be_bytes()).expect("written"));
        db.settle().expect("settled");
        rest(&env, &db);
        assert_eq!(table_bytes(&env, &fs), 0, "{style:?}: everything was deleted");
    }
}

pub(super) fn idle_cost() {
    for style in STYLES {
        let (env, _fs) = Env::sim_manual(1);
        let db = open(&env, style);
        let keyspace = db.default_keyspace();
        (0..6000u32).for_each(|row| keyspace.put(row.to_be_bytes(), [1; 500]).expect("written"));
        db.compact().expect("merged");
        let mut random = fastrand::Rng::with_seed(1);
        let before = db.stats();
        for _ in 0..40 {
            for _ in 0..3 {
                keyspace.put(random.u32(..6000).to_be_bytes(), [2; 500]).expect("written");
            }
            db.flush().expect("flushed");
            rest(&env, &db);
        }
        let after = db.stats();
        let flushed = after.flush_bytes_written - before.flush_bytes_written;
        let merged = after.compaction_bytes_written - before.compaction_bytes_written;
        assert!(
            merged <= 10 * flushed,
            "{style:?}: {flushed} bytes were flushed and {merged} written when idle"
        );
        let runs = after.keyspaces.iter().map(|keyspace| keyspace.runs).max().unwrap_or(0);
        assert!(runs <= 8, "{style:?}: reads meet {runs} runs");
    }
}

pub(super) fn fair_compactions() {
    // The first has barely enough runs for a compaction, the second four times as many.
    let (env, _fs) = Env::sim_manual(2);
    let first = builder("db", &env).advanced(|options| options.disable_auto_compactions = true);
    let db = first.open().expect("it opens");
    let urgent = db.keyspace("urgent", KeyspaceOptions::default()).expect("made");
    for run in 0..12u32 {
        urgent.put(run.to_be_bytes(), "").expect("written");
        if run < 3 {
            db.default_keyspace().put(run.to_be_bytes(), "").expect("written");
        }
        db.flush().expect("flushed");
    }
    db.close().expect("closed");
    drop((urgent, db));
    let db = open(&env, CompactionStyle::Hybrid);
    assert!(db.background_step(BackgroundStep::Compaction).expect("a healthy machine"), "work is due");
    let level0 = |name: &str| {
        let stats = db.stats();
        let keyspace = stats.keyspaces.iter().find(|keyspace| keyspace.name == name).expect("it is there");
        keyspace.levels.iter().find(|level| level.level == 0).map_or(0, |level| level.runs)
    };
    assert_eq!((level0("urgent"), level0("default")), (0, 3), "the keyspace with most runs is first");

    let (env, _fs) = Env::sim_manual(1);
    let db = open(&env, CompactionStyle::Hybrid);
    let busy = db.default_keyspace();
    let others = ["b", "c"].map(|name| db.keyspace(name, KeyspaceOptions::default()).expect("made"));
    for round in 0..60u32 {
        for flush in 0..8u32 {
            busy.put((round * 8 + flush).to_be_bytes(), "busy").expect("written");
            if flush == 0 {
                others.iter().for_each(|other| other.put(round.to_be_bytes(), "other").expect("written"));
            }
            db.flush().expect("flushed");
        }
    }
    for keyspace in
        db.stats().keyspaces.iter().filter(|keyspace| ["b", "c"].contains(&keyspace.name.as_str()))
    {
        let level0 = keyspace.levels.iter().find(|level| level.level == 0).map_or(0, |level| level.runs);
        assert!(level0 <= 16, "{level0} of 60 runs of {} wait in level 0", keyspace.name);
    }
}
