//! Random work on a simulated machine, interrupted by power losses and kills at any operation, also
//! inside recovery. Every promised commit is present, and all keyspaces show the same prefix of the
//! history.
use sapwood::{CompactionStyle, Db, Durability, WriteOptions};
use sapwood_storage::Env;
use sapwood_storage::sim::SimFs;
use sapwood_tests::harness::{Replay, builder, seeds, within};
use sapwood_tests::journal::{Journal, Write};
use sapwood_tests::sim::{self, arguments::Settings};
use std::sync::Arc;
use std::time::Duration;

const CRASHES_PER_SEED: usize = 12;

struct Run {
    random: fastrand::Rng,
    env: Env,
    fs: SimFs,
    journal: Journal,
    style: CompactionStyle,
    /// The fewest commits that the state on disk must hold.
    floor: u64,
}

impl Run {
    fn open(&self) -> sapwood::Result<Db> {
        let style = self.style;
        builder("db", &self.env).advanced(|options| options.compaction_style = style).open()
    }

    fn writes(&mut self) -> Vec<Write> {
        let spaces = self.journal.spaces();
        let count = self.random.usize(..6);
        (0..count)
            .map(|_| {
                let space = spaces[self.random.usize(..spaces.len())];
                let key = format!("key-{:03}", self.random.u32(..200)).into_bytes();
                let value = match self.random.u8(..10) {
                    0..3 => None,
                    3 => Some(vec![self.random.u8(..); self.random.usize(..9000)].into()),
                    _ => Some(vec![self.random.u8(..); self.random.usize(..600)].into()),
                };
                (space, key, value)
            })
            .collect()
    }

    /// One step of work. An error is legal only if the machine has stopped.
    fn step(&mut self, db: &Db) -> sapwood::Result<()> {
        match self.random.u8(..100) {
            0..5 => {
                db.flush()?;
                self.journal.synced();
            }
            5..7 => {
                db.compact()?;
                self.journal.synced();
            }
            7..10 => {
                db.sync()?;
                self.journal.synced();
            }
            10..13 => {
                let space = self.random.u8(1..4);
                if !self.journal.has_space(space) {
                    self.journal.create_space(db, space)?;
                }
            }
            13..15 => {
                let space = self.random.u8(1..4);
                if self.journal.has_space(space) {
                    self.journal.drop_space(db, space)?;
                }
            }
            15 => db.wait_for_background()?,
            16 => drop(self.journal.check(db, self.journal.acknowledged())?),
            17 => {
                // A single write in addition to the batches: to a key without other writes, with
                // its old value.
                db.default_keyspace().delete_with("untouched", &WriteOptions::sync())?;
                self.journal.synced();
            }
            _ => {
                let durability = match self.random.u8(..10) {
                    0..2 => Durability::Sync,
                    2 => Durability::Periodic(Duration::from_millis(1)),
                    _ => Durability::Buffered,
                };
                let writes = self.writes();
                self.journal.commit(db, writes, durability)?;
            }
        }
        Ok(())
    }

    /// Ends this machine in its present state, and starts the next one.
    fn end(&mut self, db: Option<Db>) {
        // The remaining calls of the old process must not reach the disk.
        self.fs.crash_at(0);
        let kill = self.random.bool();
        let next = if kill { self.fs.kill() } else { self.fs.crash(self.random.u64(..)) };
        drop(db);
        self.floor = match kill {
            // Commits that a power loss has removed before do not come back.
            true => self.floor,
            false => self.floor.min(self.journal.durable()),
        };
        self.fs = next;
        self.env = self.env.with_file_system(Arc::new(self.fs.clone()));
    }

    fn run(&mut self) {
        for _ in 0..CRASHES_PER_SEED {
            // Most crashes hit the running database, some its recovery.
            let near = self.random.u8(..3) == 0;
            let distance = if near { self.random.u64(..30) } else { self.random.u64(..400) };
            self.fs.crash_at(self.fs.operations() + distance + 1);
            let db = match self.open() {
                Ok(db) => db,
                Err(error) => {
                    assert!(self.fs.has_crashed(), "opening failed: {error}");
                    self.end(None);
                    continue;
                }
            };
            // The workload may have ended before the check could read everything.
            match self.journal.check(&db, self.floor) {
                Ok(_) => {}
                Err(error) => {
                    assert!(self.fs.has_crashed(), "reading failed: {error}");
                    self.end(Some(db));
                    continue;
                }
            }
            if let Err(error) = self.journal.recovered(&db, self.floor) {
                assert!(self.fs.has_crashed(), "reading failed: {error}");
                self.end(Some(db));
                continue;
            }
            for _ in 0..self.random.usize(..300) {
                if let Err(error) = self.step(&db) {
                    assert!(self.fs.has_crashed(), "an operation failed: {error}");
                    break;
                }
            }
            self.floor = self.journal.acknowledged();
            if self.random.u8(..6) == 0 && !self.fs.has_crashed() {
                // A clean end needs no luck.
                match db.close() {
                    Ok(()) => self.journal.synced(),
                    Err(error) => assert!(self.fs.has_crashed(), "closing failed: {error}"),
                }
            }
            self.end(Some(db));
        }
        let db = self.open().unwrap();
        self.journal.check(&db, self.floor).unwrap();
        db.close().unwrap();
    }
}

#[test]
fn crashes_leave_a_prefix_that_holds_every_promise() {
    for seed in seeds(1..41) {
        within(Duration::from_secs(120), &format!("seed {seed}"), move || {
            let _replay = Replay::new(seed, "crash::crashes_leave_a_prefix_that_holds_every_promise");
            let (env, fs) = Env::sim(seed);
            let mut random = fastrand::Rng::with_seed(seed);
            let style = if random.bool() { CompactionStyle::Hybrid } else { CompactionStyle::Leveled };
            let mut run = Run { random, env, fs, journal: Journal::new(), style, floor: 0 };
            run.run();
        });
    }
}

/// A small portion of `sapwood-sim crash`: every moment of a run on one thread, instead of some
/// moments of a run on many.
#[test]
fn crashes_at_watched_moments_leave_a_prefix_that_holds_every_promise() {
    let settings = Settings::default().with("--states", 60).with("--loose", "");
    let mut nested = 0;
    for seed in seeds(1000..1008) {
        let report = sim::crash::seed(seed, &settings);
        assert!(report.violations.is_empty(), "{}", report.violations.join("\n"));
        assert!(report.counts[0] > 20, "too few states: {:?}", report.counts);
        nested += report.counts[1];
    }
    assert!(nested > 0 || std::env::var("SEED").is_ok(), "no crash within a recovery");
}
