//! The log that recovery has replayed is synced after the open. These scenarios check which
//! commits a power loss may remove in the meantime.
//!
//! Each scenario begins with a killed process. Its last writes are not on the disk, and the machine
//! has no threads, so nothing is synced except by the scenario.
use crate::harness::builder;
use crate::journal::Journal;
use sapwood::{BackgroundStep, Db, Durability, Env, ErrorKind, Health, Result};
use sapwood_base::format::log_segment::DATA_OFFSET;
use sapwood_storage::sim::{Fault, FaultRule, FsyncFailure, Operation as Call, SimFs};
use std::path::PathBuf;
use std::sync::Arc;

/// Commits before the kill. They fill more than one segment, and no memtable.
const COMMITS: u64 = 40;
/// The number of power losses per state.
const POWER_LOSSES: u64 = 40;

struct Scenario {
    env: Env,
    fs: SimFs,
    journal: Journal,
}

impl Scenario {
    /// The state after a kill, with the commits up to `synced` on the disk.
    fn killed(synced: u64) -> Scenario {
        let (env, fs) = Env::sim_manual(1);
        let mut scenario = Scenario { env, fs, journal: Journal::new() };
        let db = scenario.open().expect("it opens");
        for number in 1..=COMMITS {
            let durability = if number == synced { Durability::Sync } else { Durability::Buffered };
            scenario.commit(&db, durability);
        }
        scenario.kill(db);
        scenario
    }

    fn open(&self) -> Result<Db> {
        self.open_image(&self.fs)
    }

    fn open_image(&self, fs: &SimFs) -> Result<Db> {
        let env = self.env.with_file_system(Arc::new(fs.clone()));
        builder("db", &env).advanced(|options| options.memtable_bytes = Some(1 << 20)).open()
    }

    fn commit(&mut self, db: &Db, durability: Durability) {
        let number = self.journal.len();
        let key = format!("key-{:02}", number % 17).into_bytes();
        let value = vec![number as u8; 2000 + number as usize % 5 * 300];
        let writes = vec![(0, key, Some(value.into()))];
        self.journal.commit(db, writes, durability).expect("a healthy machine");
    }

    /// The process ends without a close.
    fn kill(&mut self, db: Db) {
        self.fs.crash_at(0);
        self.fs = self.fs.kill();
        drop(db);
    }

    /// After any power loss the remaining commits are one prefix with every promised commit, and
    /// the database accepts new ones. Returns the length of the shortest prefix.
    fn survives_power_losses(&self) -> u64 {
        (0..POWER_LOSSES).map(|seed| self.survives_power_loss(seed)).min().expect("there are some")
    }

    fn survives_power_loss(&self, seed: u64) -> u64 {
        let mut after =
            Scenario { env: self.env.clone(), fs: self.fs.crash(seed), journal: self.journal.clone() };
        let db = after.open().unwrap_or_else(|error| panic!("power loss {seed}: {error}"));
        let left = after.journal.recovered(&db, after.journal.durable()).expect("a healthy machine");
        after.commit(&db, Durability::Sync);
        let later = after.fs.crash(0);
        after.fs.crash_at(0);
        drop(db);
        let db = after.open_image(&later).unwrap_or_else(|error| panic!("after power loss {seed}: {error}"));
        after.journal.check(&db, after.journal.durable()).expect("a healthy machine");
        later.crash_at(0);
        left
    }

    /// The log file with the first records.
    fn first_log(&self) -> PathBuf {
        let logs =
            self.fs.files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "wal"));
        let with_data = |path: &PathBuf| self.fs.read_file(path).is_ok_and(|bytes| bytes[DATA_OFFSET] != 0);
        logs.filter(with_data).min().expect("a log with records")
    }
}

/// A commit with a sync is durable together with everything that the open has replayed. The same
/// holds for `sync` and for background syncs.
pub(super) fn awaited() {
    for way in 0..3 {
        let mut scenario = Scenario::killed(7);
        let db = scenario.open().expect("it opens");
        scenario.journal.check(&db, COMMITS).expect("a healthy machine");
        assert!(scenario.survives_power_losses() < COMMITS, "the open has not waited for the disk");
        match way {
            0 => scenario.commit(&db, Durability::Sync),
            1 => db.sync().expect("a healthy machine"),
            _ => assert!(db.background_step(BackgroundStep::Log).expect("it is open"), "there was work"),
        }
        scenario.journal.synced();
        assert_eq!(scenario.survives_power_losses(), scenario.journal.acknowledged(), "way {way}");
        scenario.fs.crash_at(0);
    }
}

/// Records after an unsynced replayed log are lost with it, regardless of the number of sessions in
/// between.
pub(super) fn torn() {
    for kills in 0..3 {
        let mut scenario = Scenario::killed(7);
        let mut db = scenario.open().expect("it opens");
        (0..5).for_each(|_| scenario.commit(&db, Durability::Buffered));
        for _ in 0..kills {
            scenario.kill(db);
            db = scenario.open().expect("it opens");
            (0..3).for_each(|_| scenario.commit(&db, Durability::Buffered));
        }
        let floor = scenario.survives_power_losses();
        assert!(floor < COMMITS, "the opens have not waited for the disk");
        scenario.commit(&db, Durability::Sync);
        assert_eq!(scenario.survives_power_losses(), scenario.journal.acknowledged());
        scenario.fs.crash_at(0);
    }
}

/// A failed sync of the replayed log closes the write path, and the next open does not trust a
/// second one.
pub(super) fn failed() {
    // Not `Ext4Late`: its first failure reports success, so the engine cannot notice.
    for failure in [FsyncFailure::Ext4, FsyncFailure::Xfs, FsyncFailure::Btrfs] {
        let mut scenario = Scenario::killed(0);
        let log = scenario.first_log();
        let db = scenario.open().expect("it opens");
        let rule = FaultRule::new(Call::Sync, Fault::SyncFailure(failure));
        scenario.fs.fail(rule.on(log.file_name().expect("it has one").to_string_lossy()));
        db.background_step(BackgroundStep::Log).expect("it is open");
        assert!(matches!(db.health(), Health::Poisoned(_)), "{failure:?}: a failed sync is final");
        let refused = db.default_keyspace().put("more", "").expect_err("writes are closed");
        assert_eq!(refused.kind(), ErrorKind::Poisoned);
        scenario.kill(db);
        let db = scenario.open().expect("it opens");
        // Btrfs exposes the old bytes at once, and the acknowledged commits are gone with them.
        let floor = if failure == FsyncFailure::Btrfs { 0 } else { COMMITS };
        let left = scenario.journal.recovered(&db, floor).expect("a healthy machine");
        assert_eq!(scenario.survives_power_losses(), left, "{failure:?}");
        scenario.fs.crash_at(0);
    }
}

/// Once the replayed log is synced, the MANIFEST records it: invalid bytes there are damage, not a
/// tear.
pub(super) fn noted() {
    for is_synced in [false, true] {
        let mut scenario = Scenario::killed(0);
        let db = scenario.open().expect("it opens");
        if is_synced {
            db.background_step(BackgroundStep::Log).expect("it is open");
        }
        scenario.kill(db);
        scenario.fs.corrupt(scenario.first_log(), DATA_OFFSET as u64 + 5000, 0x20);
        match scenario.open() {
            Ok(db) => {
                assert!(!is_synced, "a synced record is damaged");
                assert!(scenario.journal.check(&db, 0).expect("a healthy machine") < COMMITS);
                scenario.fs.crash_at(0);
            }
            Err(error) => {
                assert!(is_synced, "it may be torn: {error}");
                assert_eq!(error.kind(), ErrorKind::Corruption);
            }
        }
    }
}
