//! Writers, readers, snapshots, flushes and compactions at once, on real files with the mapped log.
#![allow(clippy::disallowed_methods, reason = "threads of a test on real files")]
use sapwood::{Db, Durability, ErrorKind, Keyspace, KeyspaceOptions, Snapshot, WriteOptions};
use sapwood_tests::harness::{small, within};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(100);

fn open(folder: &tempfile::TempDir) -> Db {
    Db::builder(folder.path().join("db")).memory_budget(8 << 20).advanced(small).open().unwrap()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[..8].try_into().unwrap())
}

const WRITERS: u64 = 3;
const WRITES: u64 = 2500;

/// The state that the threads share.
struct Stage {
    db: Db,
    left: Keyspace,
    right: Keyspace,
    done: AtomicBool,
    /// The acknowledged commits of each writer.
    acknowledged: Vec<AtomicU64>,
}

impl Stage {
    fn write(&self, writer: u64) {
        let key = format!("counter-{writer}");
        for count in 1..=WRITES {
            let mut value = count.to_be_bytes().to_vec();
            value.resize(8 + (count % 200) as usize, 1);
            let mut batch = self.db.batch();
            batch.put(&self.left, &key, &value).put(&self.right, &key, &value);
            batch.put(&self.left, format!("{writer}-{count}"), &value);
            let durability = match count % 100 {
                0 => Durability::Sync,
                1 => Durability::Periodic(Duration::from_millis(2)),
                _ => Durability::Buffered,
            };
            let _ = batch.commit_durable(durability).unwrap();
            self.acknowledged[writer as usize].store(count, Ordering::Release);
            // A writer reads its own writes.
            assert_eq!(number(&self.left.get(&key).unwrap().unwrap()), count);
            assert!(self.left.contains(format!("{writer}-{count}")).unwrap());
        }
    }

    fn read(&self, backwards: bool) {
        let mut seen = [0; WRITERS as usize];
        while !self.done.load(Ordering::Acquire) {
            for writer in 0..WRITERS {
                let key = format!("counter-{writer}");
                let before = self.acknowledged[writer as usize].load(Ordering::Acquire);
                let got = self.left.get(&key).unwrap().map_or(0, |value| number(&value));
                let seen = &mut seen[writer as usize];
                assert!(got >= before && got >= *seen, "{key}: {got}, acknowledged {before}, seen {seen}");
                *seen = got;
            }
            let snapshot = self.db.snapshot();
            let in_left = counters(&self.left, &snapshot, backwards);
            let in_right = counters(&self.right, &snapshot, backwards);
            assert_eq!(in_left, in_right, "a batch is visible completely or not at all");
            for (key, count) in in_left {
                let again = self.right.get_at(&key, &snapshot).unwrap().unwrap();
                assert_eq!(number(&again), count, "a snapshot does not change");
            }
            let both = self.left.multi_get(&["counter-0", "counter-0"]).unwrap();
            assert_eq!(both[0], both[1]);
        }
    }

    fn work_in_background(&self) {
        for round in 0.. {
            if self.done.load(Ordering::Acquire) {
                break;
            }
            match round % 4 {
                0 => self.db.flush().unwrap(),
                1 => self.db.compact().unwrap(),
                2 => {
                    self.db.pause_background().unwrap();
                    self.db.resume_background();
                }
                _ => {
                    let name = format!("passing-{}", round % 3);
                    let keyspace = self.db.keyspace(&name, KeyspaceOptions::default()).unwrap();
                    keyspace.put("a", "b").unwrap();
                    self.db.drop_keyspace(&name).unwrap();
                    let _ = (self.db.stats(), self.db.memory(), self.db.health());
                }
            }
        }
    }
}

/// The counters of a keyspace at a snapshot, in the order of their keys.
fn counters(keyspace: &Keyspace, snapshot: &Snapshot, backwards: bool) -> Vec<(Vec<u8>, u64)> {
    let prefix = keyspace.prefix("counter-").at(snapshot);
    let entry = |entry: sapwood::Result<sapwood::Entry>| {
        let (key, value) = entry.unwrap().into_parts();
        (key, number(&value))
    };
    let mut counters: Vec<_> = match backwards {
        false => prefix.map(entry).collect(),
        true => prefix.rev().map(entry).collect(),
    };
    if backwards {
        counters.reverse();
    }
    counters
}

#[test]
fn writers_readers_and_background_work_agree() {
    within(LIMIT, "the threads", || {
        let folder = tempfile::tempdir().unwrap();
        let db = open(&folder);
        let stage = Stage {
            left: db.keyspace("left", KeyspaceOptions::default()).unwrap(),
            right: db.keyspace("right", KeyspaceOptions::default()).unwrap(),
            db,
            done: AtomicBool::new(false),
            acknowledged: (0..WRITERS).map(|_| AtomicU64::new(0)).collect(),
        };
        std::thread::scope(|scope| {
            let stage = &stage;
            let writers: Vec<_> =
                (0..WRITERS).map(|writer| scope.spawn(move || stage.write(writer))).collect();
            for backwards in [false, true] {
                scope.spawn(move || stage.read(backwards));
            }
            scope.spawn(|| stage.work_in_background());
            let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            // The others must end, too, if a writer has failed.
            stage.done.store(true, Ordering::Release);
            results.into_iter().for_each(|result| result.unwrap());
        });
        let Stage { db, left, right, .. } = stage;
        drop((left, right));
        db.close().unwrap();
        drop(db);
        let db = open(&folder);
        for name in ["left", "right"] {
            let keyspace = db.keyspace(name, KeyspaceOptions::default()).unwrap();
            for writer in 0..WRITERS {
                assert_eq!(number(&keyspace.get(format!("counter-{writer}")).unwrap().unwrap()), WRITES);
            }
            let rows = if name == "left" { WRITERS * WRITES } else { 0 };
            assert_eq!(keyspace.iter().count() as u64, rows + WRITERS);
        }
    });
}

#[test]
fn a_close_meets_working_threads() {
    for round in 0..8 {
        within(LIMIT, &format!("closing in round {round}"), move || {
            let folder = tempfile::tempdir().unwrap();
            let db = open(&folder);
            let threads: Vec<_> = (0..4u8)
                .map(|thread| {
                    let (db, keyspace) = (db.clone(), db.default_keyspace());
                    std::thread::spawn(move || {
                        let mut acknowledged = Vec::new();
                        for i in 0u32.. {
                            let durability =
                                if thread == 0 { Durability::Sync } else { Durability::Buffered };
                            let key = [&[thread][..], &i.to_be_bytes()].concat();
                            let result = match thread {
                                3 if i % 50 == 0 => db.flush(),
                                3 if i % 50 == 25 => db.compact(),
                                _ => keyspace
                                    .put_with(&key, [7; 100], &WriteOptions { durability: Some(durability) })
                                    .map(|()| acknowledged.push(key)),
                            };
                            if let Err(error) = result {
                                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                                break;
                            }
                        }
                        acknowledged
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(5 + 10 * round));
            db.close().unwrap();
            drop(db);
            let acknowledged: Vec<_> =
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            let db = open(&folder);
            let keyspace = db.default_keyspace();
            for key in acknowledged {
                assert!(keyspace.contains(&key).unwrap(), "{key:?} was acknowledged");
            }
        });
    }
}
