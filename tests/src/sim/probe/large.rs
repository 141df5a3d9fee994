//! Commits that are large, or become large in memory: their cost for other commits, and the limits
//! of a memtable and a replay.
use crate::harness::builder;
use sapwood::{Db, DbBuilder, Emit, Env, ErrorKind, Health, IndexOptions, KeyspaceOptions};
use sapwood_storage::ThreadClass;
use sapwood_storage::sim::{Operation as Call, SimFs};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Entries of one row.
const ENTRIES: u32 = 250_000;
/// Rows whose entries, of seven bytes and 64, take less than 512 MiB.
const ROWS_BELOW: u8 = 29;
/// The longest wait of a small write beside a large one, by the simulated clock.
const MOST_WAIT: Duration = Duration::from_millis(45);

/// Many short entries for each row.
fn many() -> IndexOptions {
    IndexOptions::new(|_: &[u8], _: &[u8], emit: &mut Emit<'_>| {
        let digit = |number: u32| 2 + (number % 254) as u8;
        for entry in 0..ENTRIES {
            emit.key([digit(entry / (254 * 254)), digit(entry / 254), digit(entry)]);
        }
    })
}

pub(super) fn index_weight() {
    let (env, fs) = Env::sim_manual(1);
    let open = |env: &Env| -> Db {
        let builder = Db::builder("db").memory_budget(64 << 20).advanced(|options| options.env = env.clone());
        builder.index("default", "many", many()).open().expect("it opens")
    };
    let db = open(&env);
    let keyspace = db.default_keyspace();
    let index = keyspace.create_index("many", many()).expect("made");
    let other = db.keyspace("other", KeyspaceOptions::default()).expect("made");
    other.put("a", "acknowledged").expect("written");
    let commit = |rows: u8| {
        let mut batch = db.batch();
        for row in 0..rows {
            batch.put(&keyspace, [row], "value");
        }
        batch.commit().map(drop)
    };
    let error = commit(ROWS_BELOW + 8).expect_err("a memtable may not hold so much");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
    commit(ROWS_BELOW).expect("that much is allowed");
    fs.crash_at(0);
    drop((index, keyspace, other, db));
    // It was committed, so an open loads it, and a flush writes it to tables.
    let db = open(&env.with_file_system(Arc::new(fs.kill())));
    let other = db.keyspace("other", KeyspaceOptions::default()).expect("there");
    assert!(other.contains("a").expect("read"));
    db.flush().expect("flushed");
    assert_eq!(db.default_keyspace().iter().count(), usize::from(ROWS_BELOW));
}

pub(super) fn replayed_small() {
    const MEMTABLE: usize = 1 << 20;
    let (env, fs) = Env::sim_manual(1);
    let open = |env: &Env| {
        builder("db", env)
            .advanced(|options| options.memtable_bytes = Some(MEMTABLE))
            .open()
            .expect("it opens")
    };
    let db = open(&env);
    db.pause_background().expect("paused");
    let keyspace = db.default_keyspace();
    let mut number = 0u32;
    // Operations of ten bytes in the log. Three memtables are almost full at the end.
    while db.stats().memtables < 3 || db.stats().memtable_bytes < (5 * MEMTABLE / 2) as u64 {
        let mut batch = db.batch();
        for _ in 0..500 {
            number += 1;
            batch.put(&keyspace, number.to_be_bytes(), "");
        }
        batch.commit().map(drop).expect("written");
    }
    fs.crash_at(0);
    drop((keyspace, db));
    let db = open(&env.with_file_system(Arc::new(fs.kill())));
    let stats = db.stats();
    let most = stats.memtable_bytes as usize / stats.memtables;
    assert!(most < 3 * MEMTABLE / 2, "{} memtables of {most} bytes and more", stats.memtables);
    assert_eq!(db.default_keyspace().iter().count(), number as usize);
}

/// A database whose log was written with 8 MiB of memory, and its content.
struct LongLog {
    env: Env,
    fs: SimFs,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Settings with less memory than the log needs.
const SMALL_MEMTABLE: usize = 64 << 10;
const SMALL_MEMTABLES: usize = 2;
/// The most reads of an open with these settings, without those of compactions.
const MOST_READS: u64 = 2600;

/// The first byte of a value.
fn first_byte() -> IndexOptions {
    IndexOptions::new(|_: &[u8], value: &[u8], emit: &mut Emit<'_>| emit.key(&value[..1]))
}

impl LongLog {
    /// Puts, overwrites and deletes of rows with an index, up to a kill.
    fn write(seed: u64) -> LongLog {
        let (env, fs) = Env::sim_manual(seed);
        let builder = builder("db", &env).index("default", "first", first_byte());
        let builder = builder.advanced(|options| options.memtable_bytes = Some(8 << 20));
        let db = builder.open().expect("it opens");
        let keyspace = db.default_keyspace();
        let (mut random, mut rows) = (fastrand::Rng::with_seed(seed), BTreeMap::new());
        for number in 0..6000_u32 {
            let key = random.u32(..3000).to_be_bytes().to_vec();
            if random.u8(..5) == 0 {
                keyspace.delete(&key).expect("written");
                rows.remove(&key);
                continue;
            }
            let value = [&[random.u8(..4)], number.to_be_bytes().as_slice(), &[7; 200]].concat();
            keyspace.put(&key, &value).expect("written");
            rows.insert(key, value);
        }
        assert_eq!(db.stats().flushes, 0, "the log must hold all of it");
        fs.crash_at(0);
        drop((keyspace, db));
        let fs = fs.kill();
        LongLog { env: env.with_file_system(Arc::new(fs.clone())), fs, rows }
    }

    fn builder(&self) -> DbBuilder {
        builder("db", &self.env).index("default", "first", first_byte()).advanced(|options| {
            options.memtable_bytes = Some(SMALL_MEMTABLE);
            options.max_memtables = SMALL_MEMTABLES;
        })
    }

    fn check(&self, db: &Db) {
        let keyspace = db.default_keyspace();
        let found = keyspace.iter().map(|row| row.expect("read"));
        let found = found.map(|row| (row.key().to_vec(), row.value().expect("read").to_vec()));
        assert!(found.eq(self.rows.clone()), "other rows than were written");
        let index = keyspace.index("first").expect("there");
        for byte in 0..4_u8 {
            let hits = index.get([byte]).map(|hit| hit.expect("read").primary_key().to_vec());
            let wanted = self.rows.iter().filter(|(_, value)| value[0] == byte).map(|(key, _)| key.clone());
            assert!(hits.eq(wanted), "the index has other rows with {byte}");
        }
    }
}

pub(super) fn long_log() {
    let log = LongLog::write(1);
    // A read-only open can load the log only into memory, and changes nothing.
    let reader = log.builder().read_only(true).open().expect("it opens");
    log.check(&reader);
    reader.close().expect("closed");

    // Without compactions, whose reads would count as well.
    let still = log.builder().advanced(|options| options.disable_auto_compactions = true);
    let reads = log.fs.calls(Call::Read);
    let db = still.open().expect("it opens");
    let reads = log.fs.calls(Call::Read) - reads;
    assert!(reads < MOST_READS, "{reads} reads: the log may be read twice, not once more for each memtable");
    let stats = db.stats();
    assert!(stats.memtables <= SMALL_MEMTABLES, "{} memtables", stats.memtables);
    let most = 2 * SMALL_MEMTABLES * SMALL_MEMTABLE;
    assert!(db.memory().memtables <= most as u64, "memtables take {} bytes", db.memory().memtables);
    assert!(stats.flushes > 10, "{} flushes", stats.flushes);
    log.check(&db);
    db.default_keyspace().put("later", "written").expect("written");
    db.close().expect("closed");
    let db = log.builder().open().expect("it opens");
    assert!(db.default_keyspace().contains("later").expect("read"));
    db.default_keyspace().delete("later").expect("written");
    log.check(&db);
    db.close().expect("closed");

    // A full disk: an open cannot flush, and keeps the rest in memory.
    let log = LongLog::write(2);
    let db = log.builder().open().expect("it opens");
    let room = log.fs.used_bytes();
    drop(db);
    let log = LongLog::write(2);
    log.fs.set_capacity_bytes(Some((room + log.fs.used_bytes()) / 2));
    let db = log.builder().open().expect("it opens on a full disk");
    assert!(db.stats().flushes > 0 && db.stats().memtables > SMALL_MEMTABLES, "{:?}", db.stats());
    log.check(&db);
    log.fs.set_capacity_bytes(None);
    db.flush().expect("flushed");
    assert_eq!(db.stats().memtables, 1, "a flush with enough space");
    log.check(&db);
    db.close().expect("closed");
}

/// One thread writes large values while compaction is reported as far behind, another thread small
/// ones.
pub(super) fn price() {
    for seed in 0..6 {
        let (env, _fs, schedule) = Env::sim_scheduled(seed);
        // Time passes for the small writes only while they wait.
        schedule.keep_punctual("small");
        let outcome = schedule.run(move || {
            let db = builder("db", &env)
                .advanced(|options| {
                    options.memtable_bytes = Some(16 << 20);
                    options.wal_segment_bytes = 4 << 20;
                    options.wal_mapped = false;
                })
                .open()
                .expect("it opens");
            db.pretend_debt(1.0);
            let done = Arc::new(AtomicBool::new(false));
            let longest = Arc::new(Mutex::new(Duration::ZERO));
            let small = {
                let (db, clock, done, longest) = (db.clone(), env.clone(), done.clone(), longest.clone());
                let body = move || {
                    while !done.load(Ordering::Acquire) {
                        let before = clock.now();
                        db.default_keyspace().put("small", "value").expect("written");
                        let took = clock.now() - before;
                        let mut longest = longest.lock().expect("no panic held it");
                        *longest = took.max(*longest);
                        drop(longest);
                        clock.sleep(Duration::from_millis(1));
                    }
                };
                env.spawn("small", ThreadClass::Latency, body).expect("a thread")
            };
            let value = vec![7; 6 << 20];
            for _ in 0..2 {
                db.default_keyspace().put("large", &value).expect("written");
                env.sleep(Duration::from_millis(30));
            }
            done.store(true, Ordering::Release);
            small.join().expect("written");
            let longest = *longest.lock().expect("no panic held it");
            assert!(longest <= MOST_WAIT, "a small write took {longest:?}");
            db.close().expect("closed");
        });
        if let Err(what) = outcome {
            panic!("schedule {seed}: {what}");
        }
    }
}

pub(super) fn paused() {
    let (env, _fs) = Env::sim(1);
    let db = builder("db", &env).open().expect("it opens");
    let keyspace = db.default_keyspace();
    db.pause_background().expect("paused");
    let mut rows = 0u32;
    let error = loop {
        match keyspace.put(rows.to_be_bytes(), [7; 2000]) {
            Ok(()) => rows += 1,
            Err(error) => break error,
        }
        assert!(rows < 10_000, "memtables of 64 KiB take {rows} rows of 2000 bytes");
    };
    assert_eq!(error.kind(), ErrorKind::Paused, "{error}");
    // A batch that fills a memtable by itself, and one with a long value.
    let mut batch = db.batch();
    for row in 0..40_000u32 {
        batch.put(&keyspace, row.to_be_bytes(), "batch");
    }
    assert_eq!(batch.commit().map(drop).expect_err("full").kind(), ErrorKind::Paused);
    assert_eq!(keyspace.put("long", vec![7; 2 << 20]).expect_err("full").kind(), ErrorKind::Paused);
    assert!(matches!(db.health(), Health::Good), "{:?}", db.health());
    db.resume_background();
    batch.commit().map(drop).expect("a refused batch is as it was");
    keyspace.put("long", vec![7; 2 << 20]).expect("written");
    assert_eq!(keyspace.get(7u32.to_be_bytes()).expect("read").as_deref(), Some(&b"batch"[..]));
    db.close().expect("closed");
}
