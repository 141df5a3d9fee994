//! Random operations compared with sorted maps: all reads agree, before and after flushes,
//! compactions and reopenings.
use sapwood::{CompactionStyle, Cursor, Db, DbBuilder, Env, Keyspace, KeyspaceOptions, Snapshot};
use sapwood_tests::harness::{Replay, seeds};
use sapwood_tests::oracle::Map;
use sapwood_tests::sim::{arguments::Settings, meta};
use std::ops::Bound;

struct Run {
    random: fastrand::Rng,
    style: CompactionStyle,
    mapped: bool,
    env: Env,
}

impl Run {
    fn key(&mut self) -> Vec<u8> {
        let number = self.random.u32(..400);
        match self.random.u8(..10) {
            0 => format!("{number}").into_bytes(),
            1 => vec![0xFF; self.random.usize(..12)],
            2 => Vec::new(),
            3 => format!("a-rather-long-prefix-that-many-keys-share/{number:04}").into_bytes(),
            _ => u64::from(number).to_be_bytes().to_vec(),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        let len = match self.random.u8(..20) {
            0 => 0,
            1 => self.random.usize(..20_000),
            _ => self.random.usize(..200),
        };
        let byte = self.random.u8(..);
        (0..len).map(|i| byte.wrapping_add(i as u8)).collect()
    }

    fn builder(&self, path: &std::path::Path) -> DbBuilder {
        Db::builder(path).memory_budget(8 << 20).advanced(|options| {
            options.memtable_bytes = Some(64 << 10);
            options.cache_bytes = Some(256 << 10);
            options.wal_segment_bytes = 64 << 10;
            options.wal_mapped = self.mapped;
            options.target_file_bytes = 32 << 10;
            options.level0_runs = 3;
            options.compaction_style = self.style;
            options.env = self.env.clone();
        })
    }
}

fn check(keyspace: &Keyspace, map: &Map, at: Option<&Snapshot>, run: &mut Run) {
    for _ in 0..20 {
        let key = run.key();
        let got = match at {
            Some(snapshot) => keyspace.get_at(&key, snapshot).unwrap(),
            None => keyspace.get(&key).unwrap(),
        };
        assert_eq!(got.as_deref(), map.get(&key).map(|value| &value[..]), "get {key:?}");
    }
    let (mut lower, mut upper) = (run.key(), run.key());
    if lower > upper {
        std::mem::swap(&mut lower, &mut upper);
    }
    let range = (Bound::Included(lower.clone()), Bound::Excluded(upper.clone()));
    let mut iter = keyspace.range::<Vec<u8>>(range.clone());
    if let Some(snapshot) = at {
        iter = iter.at(snapshot);
    }
    // Both ends in a random mix.
    let mut model = map.range::<Vec<u8>, _>(range);
    loop {
        let (got, want) = match run.random.bool() {
            true => (iter.next(), model.next()),
            false => (iter.next_back(), model.next_back()),
        };
        let got = got.map(|entry| entry.unwrap().into_parts());
        assert_eq!(
            got.as_ref().map(|(key, value)| (key.as_slice(), &value[..])),
            want.map(|(k, v)| (k.as_slice(), &v[..]))
        );
        if want.is_none() {
            break;
        }
    }
    let mut cursor = match at {
        Some(snapshot) => keyspace.cursor_at(snapshot).unwrap(),
        None => keyspace.cursor().unwrap(),
    };
    walk(&mut cursor, map, run);
}

fn walk(cursor: &mut Cursor, map: &Map, run: &mut Run) {
    let mut at: Option<Vec<u8>> = None;
    let first = |range: (Bound<Vec<u8>>, Bound<Vec<u8>>)| map.range(range).next().map(|(key, _)| key.clone());
    let last =
        |range: (Bound<Vec<u8>>, Bound<Vec<u8>>)| map.range(range).next_back().map(|(key, _)| key.clone());
    for _ in 0..40 {
        let key = run.key();
        match (run.random.u8(..8), &at) {
            (0, _) => {
                cursor.seek(&key).unwrap();
                at = first((Bound::Included(key), Bound::Unbounded));
            }
            (1, _) => {
                cursor.seek_for_prev(&key).unwrap();
                at = last((Bound::Unbounded, Bound::Included(key)));
            }
            (2, _) => {
                cursor.seek_to_first().unwrap();
                at = map.keys().next().cloned();
            }
            (3, _) => {
                cursor.seek_to_last().unwrap();
                at = map.keys().next_back().cloned();
            }
            (4 | 5, Some(now)) => {
                cursor.next().unwrap();
                at = first((Bound::Excluded(now.clone()), Bound::Unbounded));
            }
            (_, Some(now)) => {
                cursor.prev().unwrap();
                at = last((Bound::Unbounded, Bound::Excluded(now.clone())));
            }
            _ => {}
        }
        assert_eq!(cursor.valid(), at.is_some());
        if let Some(now) = &at {
            assert_eq!(cursor.key(), now.as_slice());
            assert_eq!(cursor.value(), &map[now][..]);
        }
    }
}

fn run(seed: u64) {
    let _replay = Replay::new(seed, "model::random_operations_agree_with_sorted_maps");
    // Few seeds run with real syncs; the others run on the simulated machine.
    let env = if seed.is_multiple_of(7) { Env::os() } else { Env::sim(seed).0 };
    let mut random = fastrand::Rng::with_seed(seed);
    let style = if random.bool() { CompactionStyle::Hybrid } else { CompactionStyle::Leveled };
    let mapped = random.bool();
    let mut run = Run { random, style, mapped, env };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let names = ["default", "second"];
    let mut maps = [Map::new(), Map::new()];
    let mut db = run.builder(&path).open().unwrap();
    let mut snapshots: Vec<(Snapshot, [Map; 2])> = Vec::new();
    for _ in 0..400 {
        let keyspaces = names.map(|name| db.keyspace(name, KeyspaceOptions::default()).unwrap());
        match run.random.u8(..100) {
            0..70 => {
                let mut batch = db.batch();
                for _ in 0..run.random.usize(1..30) {
                    let which = run.random.usize(..2);
                    let key = run.key();
                    if run.random.u8(..4) == 0 {
                        batch.delete(&keyspaces[which], &key);
                        maps[which].remove(&key);
                    } else {
                        let value = run.value();
                        batch.put(&keyspaces[which], &key, &value);
                        maps[which].insert(key, value.into());
                    }
                }
                let _ = batch.commit().unwrap();
            }
            70..78 => db.flush().unwrap(),
            78..81 => db.compact().unwrap(),
            81..84 => {
                let (a, b) = (run.key(), run.key());
                keyspaces[0].compact_range(a.clone().min(b.clone())..a.max(b)).unwrap();
            }
            84..90 => snapshots.push((db.snapshot(), maps.clone())),
            90..94 => {
                if !snapshots.is_empty() {
                    let at = run.random.usize(..snapshots.len());
                    snapshots.swap_remove(at);
                }
            }
            94..97 => {
                snapshots.clear();
                db.close().unwrap();
                drop(keyspaces);
                db = run.builder(&path).open().unwrap();
                continue;
            }
            97..99 => db.wait_for_background().unwrap(),
            _ => db.settle().unwrap(),
        }
        if run.random.u8(..4) == 0 {
            for (keyspace, map) in keyspaces.iter().zip(&maps) {
                check(keyspace, map, None, &mut run);
            }
            for (snapshot, maps) in &snapshots {
                for (keyspace, map) in keyspaces.iter().zip(maps) {
                    check(keyspace, map, Some(snapshot), &mut run);
                }
            }
        }
    }
    for (name, map) in names.iter().zip(&maps) {
        let keyspace = db.keyspace(name, KeyspaceOptions::default()).unwrap();
        let all: Vec<_> = keyspace.iter().map(|entry| entry.unwrap().into_parts()).collect();
        assert_eq!(all.len(), map.len());
        assert!(all.iter().zip(map).all(|((key, value), (k, v))| key == k && value[..] == v[..]));
    }
}

#[test]
fn random_operations_agree_with_sorted_maps() {
    seeds(1..8).into_iter().for_each(run);
}

/// A small portion of `sapwood-sim meta`.
#[test]
fn settings_do_not_change_answers() {
    let settings = Settings::default().with("--settings", 4);
    for seed in seeds(1000..1012) {
        let report = meta::seed(seed, &settings);
        assert!(report.violations.is_empty(), "{}", report.violations.join("\n"));
        assert_eq!(report.counts[0], 4);
    }
}
