//! Damage of every kind to every file: reads return the right data or an error with the file, never
//! wrong data, and never panic. An open that fails changes nothing.
use sapwood::{BackgroundStep, Db, Durability, Env, Error, ErrorKind, KeyspaceOptions};
use sapwood_base::checksum::{checksum32, checksum64};
use sapwood_base::format::{log_segment, manifest};
use sapwood_storage::sim::{SECTOR_BYTES, SimFs};
use sapwood_tests::harness::{builder, within};
use sapwood_tests::journal::{Journal, Write};
use sapwood_tests::sim::arguments::Settings;
use sapwood_tests::sim::operation::space_name;
use sapwood_tests::sim::sector;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(120);

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A closed or killed database, and its content.
struct Fixture {
    name: &'static str,
    env: Env,
    fs: SimFs,
    journal: Journal,
}

fn files(fs: &SimFs) -> Files {
    fs.files().into_iter().map(|path| (path.clone(), fs.read_file(&path).unwrap())).collect()
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or("MANIFEST")
}

fn commit(journal: &mut Journal, db: &Db, number: u64, durability: Durability) {
    let mut random = fastrand::Rng::with_seed(number);
    let writes: Vec<Write> = (0..3)
        .map(|_| {
            let space = random.usize(..2) as u8;
            let key = format!("key-{:02}", random.u32(..60)).into_bytes();
            let value = match random.u8(..6) {
                0 => None,
                _ => Some(vec![random.u8(..); random.usize(..300)].into()),
            };
            (space, key, value)
        })
        .collect();
    journal.commit(db, writes, durability).unwrap();
}

/// Tables in two levels; `rest` determines the content of the log.
fn fixture(name: &'static str, rest: impl FnOnce(&Env, &mut Journal, Db) -> Option<Db>) -> Fixture {
    // Without threads: the number of preallocated segments determines which damage of the log can
    // be detected.
    let (env, fs) = Env::sim_manual(11);
    // No merge: obsolete files stay until a sweep, and their damage is harmless.
    let mut journal = Journal::new();
    let db = builder("/db", &env).advanced(|options| options.disable_auto_compactions = true).open().unwrap();
    journal.create_space(&db, 1).unwrap();
    for number in 0..50 {
        commit(&mut journal, &db, number, Durability::Buffered);
    }
    db.compact().unwrap();
    for number in 50..70 {
        commit(&mut journal, &db, number, Durability::Buffered);
    }
    db.flush().unwrap();
    journal.synced();
    db.wait_for_background().unwrap();
    db.background_step(BackgroundStep::Log).unwrap();
    if let Some(db) = rest(&env, &mut journal, db) {
        db.close().unwrap();
        journal.synced();
    }
    fs.crash_at(0);
    let fs = fs.kill();
    let env = env.with_file_system(Arc::new(fs.clone()));
    Fixture { name, env, fs, journal }
}

fn fixtures() -> Vec<Fixture> {
    let closed = fixture("closed", |_, _, db| Some(db));
    let killed = fixture("killed", |_, journal, db| {
        for number in 70..90 {
            commit(
                journal,
                &db,
                number,
                if number % 5 == 0 { Durability::Sync } else { Durability::Buffered },
            );
        }
        std::mem::forget(db);
        None
    });
    let mut killed_twice = fixture("killed twice", |_, journal, db| {
        for number in 70..80 {
            commit(journal, &db, number, if number == 75 { Durability::Sync } else { Durability::Buffered });
        }
        std::mem::forget(db);
        None
    });
    let db = builder("/db", &killed_twice.env).advanced(|o| o.max_memtables = 8).open().unwrap();
    killed_twice.journal.recovered(&db, killed_twice.journal.acknowledged()).unwrap();
    for number in 80..90 {
        commit(&mut killed_twice.journal, &db, number, Durability::Buffered);
    }
    db.background_step(BackgroundStep::Log).unwrap();
    killed_twice.fs.crash_at(0);
    killed_twice.fs = killed_twice.fs.kill();
    killed_twice.env = killed_twice.env.with_file_system(Arc::new(killed_twice.fs.clone()));
    drop(db);
    vec![closed, killed, killed_twice]
}

impl Fixture {
    /// Damages a copy, opens it and reads everything. Returns the outcome.
    fn survives(&self, what: &str, path: &Path, damage: impl FnOnce(&SimFs)) -> Result<(), Error> {
        // A torn end of the log removes unsynced commits only.
        let floor =
            if extension(path) == "wal" { self.journal.durable() } else { self.journal.acknowledged() };
        self.survives_from(floor, what, path, damage)
    }

    fn survives_from(
        &self,
        floor: u64,
        what: &str,
        path: &Path,
        damage: impl FnOnce(&SimFs),
    ) -> Result<(), Error> {
        let fs = self.fs.kill();
        damage(&fs);
        let before = files(&fs);
        let env = self.env.with_file_system(Arc::new(fs.clone()));
        let context = || format!("{}: {what} in {}", self.name, path.display());
        let guard = OnPanic(context());
        let opened = builder("/db", &env).advanced(|options| options.disable_auto_compactions = true).open();
        let result = match opened {
            Ok(db) => {
                let result = self.journal.check(&db, floor).map(drop);
                fs.crash_at(0);
                result
            }
            Err(error) => {
                assert!(files(&fs) == before, "{}: the open failed ({error}) and changed files", context());
                Err(error)
            }
        };
        if let Err(error) = &result {
            let kinds = [ErrorKind::Corruption, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{}: {error:?}", context());
            assert!(error.file().is_some(), "{}: no file is named: {error:?}", context());
        }
        drop(guard);
        result
    }

    fn paths(&self) -> Vec<PathBuf> {
        self.fs.files().into_iter().filter(|path| !path.ends_with("LOCK")).collect()
    }
}

/// Prints the case that panicked.
struct OnPanic(String);

impl Drop for OnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the damage was: {}", self.0);
        }
    }
}

#[test]
fn flipped_bits_are_noticed_or_harmless() {
    within(LIMIT, "flipped bits", || {
        for fixture in fixtures() {
            for path in fixture.paths() {
                let bytes = fixture.fs.read_file(&path).unwrap();
                // All written bytes, but only some of the log's zeros.
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                let step = (used / 250).max(1);
                let mut random = fastrand::Rng::with_seed(used as u64);
                let mut offsets: Vec<usize> =
                    (0..used).step_by(step).map(|at| at + random.usize(..step)).collect();
                offsets.extend([used + 1, used + 8, bytes.len().saturating_sub(1)]);
                let mut noticed = 0;
                for offset in offsets.into_iter().filter(|offset| *offset < bytes.len()) {
                    let mask = 1 << random.u8(..8);
                    let what = format!("bit {mask:#x} of byte {offset}");
                    let result = fixture.survives(&what, &path, |fs| fs.corrupt(&path, offset as u64, mask));
                    noticed += usize::from(result.is_err());
                }
                if extension(&path) != "wal" {
                    assert!(noticed > 10, "{}: damage in {} is noticed", fixture.name, path.display());
                }
            }
        }
    });
}

#[test]
fn cut_grown_and_missing_files_are_noticed_or_harmless() {
    within(LIMIT, "cut files", || {
        for fixture in fixtures() {
            for path in fixture.paths() {
                let bytes = fixture.fs.read_file(&path).unwrap();
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                let kind = extension(&path).to_string();
                for len in [0, 1, used / 2, used.saturating_sub(1), bytes.len() - 1] {
                    let result = fixture.survives(&format!("the cut to {len}"), &path, |fs| {
                        fs.write_file(&path, &bytes[..len]).unwrap();
                    });
                    assert!(kind != "sst" || result.is_err(), "a shorter table is noticed");
                }
                for (len, fill) in [(1, 0), (1, 7), (5000, 0), (5000, 0xAB)] {
                    let _ =
                        fixture.survives(&format!("{len} bytes of {fill:#x} after the end"), &path, |fs| {
                            let mut bytes = bytes.clone();
                            bytes.resize(bytes.len() + len, fill);
                            fs.write_file(&path, &bytes).unwrap();
                        });
                }
                for start in (0..used).step_by(SECTOR_BYTES as usize) {
                    // In the log the sector may hold a record with every proof of its sync.
                    let floor = if kind == "wal" { 0 } else { fixture.journal.acknowledged() };
                    let _ =
                        fixture.survives_from(floor, &format!("the zeroed sector at {start}"), &path, |fs| {
                            let mut bytes = bytes.clone();
                            let end = (start + SECTOR_BYTES as usize).min(bytes.len());
                            bytes[start..end].fill(0);
                            fs.write_file(&path, &bytes).unwrap();
                        });
                }
                if kind == "sst" {
                    let result = fixture.survives("the missing file", &path, |fs| {
                        Env::os().with_file_system(Arc::new(fs.clone())).fs().remove_file(&path).unwrap();
                    });
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::Corruption);
                }
            }
        }
    });
}

#[test]
fn a_missing_manifest_makes_no_new_database() {
    for fixture in fixtures() {
        let fs = fixture.fs.kill();
        let env = fixture.env.with_file_system(Arc::new(fs.clone()));
        let manifest = fixture.paths().into_iter().find(|path| extension(path) == "MANIFEST").unwrap();
        env.fs().remove_file(&manifest).unwrap();
        let before = files(&fs);
        let error = builder("/db", &env).open().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(files(&fs) == before);
    }
}

#[test]
fn a_missing_segment_of_the_log_is_noticed() {
    for fixture in fixtures() {
        for path in fixture.paths().into_iter().filter(|path| extension(path) == "wal") {
            let _ = fixture.survives("the missing file", &path, |fs| {
                Env::os().with_file_system(Arc::new(fs.clone())).fs().remove_file(&path).unwrap();
            });
        }
    }
}

/// A replayed, unflushed log, whose end the MANIFEST records: three segments of one range, or one
/// segment of each of two ranges.
#[test]
fn segments_of_a_replayed_log_cannot_go_unnoticed_together() {
    for sessions in [1, 2] {
        let (mut env, mut fs) = Env::sim_manual(sessions);
        for session in 0..sessions {
            let db = builder("/db", &env).open().unwrap();
            for row in 0..(if sessions == 1 { 100 } else { 20u64 }) {
                db.default_keyspace().put((session * 1000 + row).to_be_bytes(), [7; 1500]).unwrap();
            }
            fs.crash_at(0);
            drop(db);
            fs = fs.kill();
            env = env.with_file_system(Arc::new(fs.clone()));
        }
        // The log is replayed, and its end recorded. Nothing is written to the new log.
        let db = builder("/db", &env).open().unwrap();
        let rows = db.default_keyspace().iter().count();
        fs.crash_at(0);
        drop(db);
        let logs: Vec<PathBuf> = fs.files().into_iter().filter(|path| extension(path) == "wal").collect();
        let mut noticed = 0;
        for gone in 1..1u32 << logs.len() {
            let left = fs.kill();
            let fs_left = Env::os().with_file_system(Arc::new(left.clone()));
            let gone = logs.iter().enumerate().filter(|(at, _)| gone >> at & 1 == 1);
            gone.for_each(|(_, path)| fs_left.fs().remove_file(path).unwrap());
            match builder("/db", &env.with_file_system(Arc::new(left))).open() {
                // Preallocated segments are empty.
                Ok(db) => {
                    assert_eq!(db.default_keyspace().iter().count(), rows, "rows are lost without a report")
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                    assert!(error.file().is_some(), "{error}");
                    noticed += 1;
                }
            }
        }
        assert!(noticed > 0);
    }
}

#[test]
fn after_a_clean_close_nothing_of_the_log_is_needed() {
    let (env, fs) = Env::sim_manual(1);
    let db = builder("/db", &env).open().unwrap();
    (0..100u64).for_each(|row| db.default_keyspace().put(row.to_be_bytes(), [7; 1500]).unwrap());
    db.close().unwrap();
    drop(db);
    for path in fs.files().into_iter().filter(|path| extension(path) == "wal") {
        env.fs().remove_file(&path).unwrap();
    }
    let db = builder("/db", &env).open().unwrap();
    assert_eq!(db.default_keyspace().iter().count(), 100);
}

/// A log of records of one segment, the last few of them unsynced. Without threads, since the
/// header of the next segment would record the durable position at its creation.
fn log_fixture() -> (Env, SimFs, Journal, PathBuf) {
    let (env, fs) = Env::sim_manual(3);
    let mut journal = Journal::new();
    let db = builder("/db", &env).open().unwrap();
    for number in 0..12u64 {
        let durability = if number == 6 { Durability::Sync } else { Durability::Buffered };
        let write = (0, number.to_be_bytes().to_vec(), Some(vec![7; 200].into()));
        journal.commit(&db, vec![write], durability).unwrap();
    }
    fs.crash_at(0);
    drop(db);
    let fs = fs.kill();
    let path = fs
        .files()
        .into_iter()
        .filter(|path| extension(path) == "wal")
        .max_by_key(|path| fs.read_file(path).unwrap().iter().filter(|byte| **byte != 0).count())
        .unwrap();
    (env, fs, journal, path)
}

#[test]
fn a_torn_end_of_the_log_is_cut_and_damage_below_a_sync_is_not() {
    let (env, fs, journal, path) = log_fixture();
    let bytes = fs.read_file(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut counts = std::collections::BTreeSet::new();
    let mut damaged = 0;
    for from in (log_segment::DATA_OFFSET..used).step_by(13) {
        // From some byte on nothing has reached the disk.
        let left = fs.kill();
        let mut torn = bytes.clone();
        torn[from..].fill(0);
        left.write_file(&path, &torn).unwrap();
        let env_left = env.with_file_system(Arc::new(left.clone()));
        let db = builder("/db", &env_left).open().unwrap();
        // The marks are gone as well, so no sync is proven: any prefix is legal.
        counts.insert(journal.check(&db, 0).unwrap());
        left.crash_at(0);
        drop(db);

        // One byte is wrong, and the following ones are right.
        let left = fs.kill();
        left.corrupt(&path, from as u64, 0x10);
        let env_left = env.with_file_system(Arc::new(left.clone()));
        match builder("/db", &env_left).open() {
            Ok(db) => {
                journal.check(&db, journal.durable()).unwrap();
                left.crash_at(0);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corruption);
                assert_eq!(error.file(), Some(path.as_path()));
                assert!(error.offset().is_some_and(|offset| offset <= from as u64), "{error}");
                damaged += 1;
            }
        }
    }
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        (0..12).collect::<Vec<_>>(),
        "every prefix can remain"
    );
    assert!(damaged > 50, "damage below the sync is noticed");
}

#[test]
fn newer_formats_are_refused() {
    let (env, fs, _, log) = log_fixture();
    let newest = fs.files().into_iter().find(|path| path.to_string_lossy().contains("MANIFEST")).unwrap();
    for path in [log, newest] {
        let left = fs.kill();
        let mut bytes = left.read_file(&path).unwrap();
        bytes[8] = 99;
        if extension(&path) == "wal" {
            let end = log_segment::HEADER_BYTES - size_of::<u64>();
            let sum = checksum64(&bytes[..end], 0x5A50_574C_4F47);
            bytes[end..log_segment::HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        } else {
            let end = manifest::HEADER_BYTES - size_of::<u32>();
            let sum = checksum32(&bytes[..end], u64::from_le_bytes(manifest::MANIFEST_MAGIC));
            bytes[end..manifest::HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        }
        left.write_file(&path, &bytes).unwrap();
        let before = files(&left);
        let error =
            builder("/db", &env.with_file_system(Arc::new(left.clone()))).open().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(error.file(), Some(path.as_path()));
        assert!(error.to_string().contains("99"), "{error}");
        assert!(files(&left) == before);
    }
}

#[test]
fn reading_only_changes_no_byte() {
    for fixture in fixtures() {
        let before = files(&fixture.fs);
        let db = builder("/db", &fixture.env).read_only(true).open().unwrap();
        fixture.journal.check(&db, fixture.journal.acknowledged()).unwrap();
        let keyspace = db.default_keyspace();
        for error in [
            keyspace.put("a", "b").unwrap_err(),
            keyspace.delete("a").unwrap_err(),
            db.batch().put(&keyspace, "a", "b").commit().map(drop).unwrap_err(),
            db.keyspace("new", KeyspaceOptions::default()).map(drop).unwrap_err(),
            db.drop_keyspace(&space_name(1)).unwrap_err(),
            db.flush().unwrap_err(),
            db.compact().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
        }
        drop(keyspace);
        db.close().unwrap();
        assert!(files(&fixture.fs) == before);
        let error = builder("/none", &fixture.env).read_only(true).open().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(files(&fixture.fs) == before);
    }
}

#[test]
fn a_directory_of_somebody_else_is_left_alone() {
    let (env, fs) = Env::sim(1);
    env.fs().create_dir_all(Path::new("/home")).unwrap();
    fs.write_file("/home/letters.txt", b"dear reader").unwrap();
    for create in [true, false] {
        let error = builder("/home", &env).create_if_missing(create).open().map(drop).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::NotFound), "{error}");
    }
    assert_eq!(fs.files(), [PathBuf::from("/home/letters.txt")]);
    let error = builder("/nowhere", &env).create_if_missing(false).open().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!env.fs().exists(Path::new("/nowhere")).unwrap());
    builder("/new", &env).open().unwrap().close().unwrap();
    let error = builder("/new", &env).error_if_exists(true).open().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn every_sector_may_be_wrong() {
    // A third of a share of each database; `sapwood-sim sector` runs everything.
    for number in 0..3 {
        let report = sector::seed(number, &Settings::default().with("--one-in", 3));
        assert!(report.violations.is_empty(), "{}", report.violations.join("\n"));
        assert!(report.counts[0] > 50 && report.counts[2] > 20, "{:?}", report.counts);
    }
}
