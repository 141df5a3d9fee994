//! Iterators and cursors: bounds, both ends, prefixes, limits, seeks, and their validity through
//! flush and compaction.
use sapwood::{Cursor, Db, Env, ErrorKind, Keyspace};
use sapwood_tests::harness::{Replay, builder, seeds};
use std::collections::BTreeMap;
use std::ops::Bound;

/// Keys in tables of several levels and in the memtable, with deleted ones between them.
fn filled(env: &Env) -> (Db, Keyspace) {
    let db = builder("/db", env).open().unwrap();
    let keyspace = db.default_keyspace();
    for part in 0..4u32 {
        for i in (part..1000).step_by(4) {
            keyspace.put(format!("{i:04}"), format!("value {i}")).unwrap();
            keyspace.put(format!("{i:04}x"), "deleted").unwrap();
        }
        match part {
            0 => db.compact().unwrap(),
            1 | 2 => db.flush().unwrap(),
            _ => {}
        }
    }
    for i in 0..1000 {
        keyspace.delete(format!("{i:04}x")).unwrap();
    }
    (db, keyspace)
}

fn keys(iter: impl Iterator<Item = sapwood::Result<sapwood::Entry>>) -> Vec<String> {
    iter.map(|entry| String::from_utf8(entry.unwrap().key().to_vec()).unwrap()).collect()
}

#[test]
fn ranges_from_both_ends() {
    let (env, _) = Env::sim(1);
    let (_db, keyspace) = filled(&env);
    let all: Vec<String> = (0..1000).map(|i| format!("{i:04}")).collect();
    assert_eq!(keys(keyspace.iter()), all);
    assert_eq!(keys(keyspace.range("0010".."0013")), ["0010", "0011", "0012"]);
    assert_eq!(keys(keyspace.range("0010"..="0013").rev()), ["0013", "0012", "0011", "0010"]);
    assert_eq!(keys(keyspace.range("0998"..)), ["0998", "0999"]);
    assert_eq!(keys(keyspace.range(.."0002").rev()), ["0001", "0000"]);
    // Bounds on deleted keys, or on keys that never existed.
    assert_eq!(keys(keyspace.range("0010x".."0011x")), ["0011"]);
    assert_eq!(keys(keyspace.range("".."0000")), [""; 0]);
    assert_eq!(keys(keyspace.range("5".."7")), [""; 0]);
    let excluded = (Bound::Excluded("0010"), Bound::Excluded("0012"));
    assert_eq!(keys(keyspace.range::<&str>(excluded)), ["0011"]);
    // Empty and inverted ranges are empty, not errors.
    for (low, high) in [("0010", "0010"), ("0020", "0010")] {
        assert_eq!(keyspace.range(low..high).count(), 0);
        assert_eq!(keyspace.range(low..high).rev().count(), 0);
    }
    assert_eq!(keyspace.range("0010"..="0010").count(), 1);
    assert_eq!(keys(keyspace.iter().limit(3)), ["0000", "0001", "0002"]);
    assert_eq!(keys(keyspace.iter().rev().take(2)), ["0999", "0998"]);
    assert_eq!(keys(keyspace.iter().limit(2).rev()), ["0999", "0998"]);
    assert_eq!(keyspace.iter().limit(0).count(), 0);
    let mut only_keys = keyspace.iter().keys_only().map(Result::unwrap);
    assert!(only_keys.all(|entry| entry.value().unwrap_err().kind() == ErrorKind::InvalidArgument));
    // The ends meet exactly once, at any place.
    for from_front in [0, 1, 5, 9, 10] {
        let mut iter = keyspace.range("0100".."0110");
        let front = keys(iter.by_ref().take(from_front));
        let mut back = keys(iter.by_ref().rev());
        back.reverse();
        assert_eq!([front, back].concat(), all[100..110]);
        assert!(iter.next().is_none() && iter.next_back().is_none());
    }
}

#[test]
fn prefixes_up_to_the_last_byte() {
    let (env, _) = Env::sim(1);
    let db = builder("/db", &env).open().unwrap();
    let keyspace = db.default_keyspace();
    let keys: [&[u8]; 9] =
        [b"", b"a", b"a\xFE", b"a\xFF", b"a\xFF\xFF", b"b", b"\xFF", b"\xFF\xFF", b"\xFF\xFF\x00"];
    for key in keys {
        keyspace.put(key, key).unwrap();
    }
    for flushed in [false, true] {
        if flushed {
            db.flush().unwrap();
        }
        for prefix in keys {
            let want: Vec<&[u8]> = keys.into_iter().filter(|key| key.starts_with(prefix)).collect();
            let got: Vec<Vec<u8>> =
                keyspace.prefix(prefix).map(|entry| entry.unwrap().key().to_vec()).collect();
            assert_eq!(got, want, "prefix {prefix:?}");
            let mut got: Vec<Vec<u8>> =
                keyspace.prefix(prefix).rev().map(|entry| entry.unwrap().key().to_vec()).collect();
            got.reverse();
            assert_eq!(got, want, "prefix {prefix:?} in reverse");
        }
    }
    assert_eq!(keyspace.prefix([0xFF; 3]).count(), 0);
}

#[test]
fn a_cursor_moves_as_documented() {
    let (env, _) = Env::sim(1);
    let (_db, keyspace) = filled(&env);
    let mut cursor = keyspace.cursor().unwrap();
    // Without a position there is no row, and moves have no effect.
    assert!(!cursor.valid() && cursor.key().is_empty() && cursor.value().is_empty());
    cursor.next().unwrap();
    cursor.prev().unwrap();
    assert!(!cursor.valid());
    cursor.seek("0010x").unwrap();
    assert_eq!((cursor.key(), cursor.value()), (&b"0011"[..], &b"value 11"[..]));
    cursor.prev().unwrap();
    assert_eq!(cursor.key(), b"0010");
    cursor.next().unwrap();
    assert_eq!(cursor.key(), b"0011");
    cursor.seek_for_prev("0010x").unwrap();
    assert_eq!(cursor.key(), b"0010");
    cursor.seek_for_prev("0010").unwrap();
    assert_eq!(cursor.key(), b"0010");
    cursor.seek_before("0010").unwrap();
    assert_eq!(cursor.key(), b"0009");
    cursor.seek_before("0000").unwrap();
    assert!(!cursor.valid());
    cursor.seek("9").unwrap();
    assert!(!cursor.valid());
    cursor.seek_to_last().unwrap();
    assert_eq!(cursor.key(), b"0999");
    cursor.next().unwrap();
    assert!(!cursor.valid());
    cursor.seek_to_first().unwrap();
    cursor.prev().unwrap();
    assert!(!cursor.valid());
}

#[test]
fn a_cursor_survives_flush_and_compaction_and_sees_one_state() {
    let (env, fs) = Env::sim(1);
    let (db, keyspace) = filled(&env);
    let mut cursor = keyspace.cursor().unwrap();
    cursor.seek("0500").unwrap();
    let mut iter = keyspace.range("0500"..);
    assert_eq!(iter.next().unwrap().unwrap().key(), b"0500");
    for i in 0..1000 {
        keyspace.put(format!("{i:04}"), "later").unwrap();
        keyspace.put(format!("{i:04}y"), "later").unwrap();
    }
    db.compact().unwrap();
    db.close().unwrap();
    drop((db, keyspace));
    // The cursor's tables are obsolete, and their files may be removed.
    for i in 501..1000 {
        cursor.next().unwrap();
        assert_eq!(cursor.key(), format!("{i:04}").as_bytes());
        assert_eq!(cursor.value(), format!("value {i}").as_bytes());
    }
    for i in (0..999).rev() {
        cursor.prev().unwrap();
        assert_eq!(cursor.value(), format!("value {i}").as_bytes());
    }
    assert_eq!(iter.by_ref().take(100).filter(|entry| entry.is_ok()).count(), 100);
    drop((cursor, iter));
    assert!(!fs.files().is_empty());
}

#[test]
fn several_keys_at_once() {
    let (env, _) = Env::sim(1);
    let (_db, keyspace) = filled(&env);
    let wanted = ["0999", "absent", "0000", "0500", "0500", "", "0001x"];
    let got = keyspace.multi_get(&wanted).unwrap();
    for (key, value) in wanted.iter().zip(&got) {
        assert_eq!(value.as_ref(), keyspace.get(key).unwrap().as_ref(), "{key}");
    }
    assert_eq!(got.iter().filter(|value| value.is_some()).count(), 4);
    assert!(keyspace.multi_get::<&str>(&[]).unwrap().is_empty());
}

#[test]
fn many_keys_at_once_agree_with_single_gets_wherever_they_lie() {
    let (env, _) = Env::sim(1);
    let builder = builder("/db", &env).advanced(|options| options.disable_auto_compactions = true);
    let db = builder.open().unwrap();
    let keyspace = db.default_keyspace();
    let mut random = fastrand::Rng::with_seed(1);
    let key = |number: u32| format!("{:0width$}", number, width = 4 + (number % 9) as usize).into_bytes();
    // Around the lengths up to which a slice holds a value itself, copies it with others, or pins
    // it in place.
    let lengths = [0, 1, 46, 47, 100, 512, 513, 9000, 80_000];
    let keys: Vec<Vec<u8>> = (0..700).map(key).collect();
    let mut check = |asked: usize| {
        let wanted: Vec<&Vec<u8>> = (0..asked).map(|_| random.choice(&keys).unwrap()).collect();
        let single: Vec<_> = wanted.iter().map(|key| keyspace.get(key).unwrap()).collect();
        let together = keyspace.multi_get(&wanted).unwrap();
        assert_eq!(together, single);
        let mut seen = Vec::new();
        keyspace.multi_get_with(&wanted, |key, value| seen.push((*key, value.map(<[u8]>::to_vec)))).unwrap();
        assert!(seen.iter().map(|(key, _)| *key).eq(wanted.iter().copied()));
        assert!(
            seen.iter().map(|(_, value)| value.as_deref()).eq(single.iter().map(|value| value.as_deref()))
        );
        // Each slice stays valid without the others.
        let kept = together.into_iter().flatten().nth(asked / 2).map(|slice| (slice.clone(), slice.detach()));
        assert!(kept.is_none_or(|(slice, detached)| slice == detached));
    };
    // Several runs, more than one lookup processes together, and a memtable above them.
    for run in 0..7u8 {
        for number in (0..600u32).filter(|number| (number + u32::from(run)) % 3 == 0) {
            let len = lengths[(number as usize + usize::from(run)) % lengths.len()];
            if (number + u32::from(run)) % 7 == 0 {
                keyspace.delete(key(number)).unwrap();
            } else {
                keyspace.put(key(number), vec![run; len]).unwrap();
            }
        }
        for asked in [1, 31, 32, 33, 200, 600] {
            check(asked);
        }
        db.flush().unwrap();
        for asked in [2, 64, 200] {
            check(asked);
        }
    }
    db.compact().unwrap();
    for asked in [1, 32, 500] {
        check(asked);
    }
}

#[test]
fn many_entries_of_one_run_agree_with_a_sorted_map() {
    for seed in seeds(0..6) {
        let _replay = Replay::new(seed, "iterator::many_entries_of_one_run_agree_with_a_sorted_map");
        let mut random = fastrand::Rng::with_seed(seed);
        let (env, _) = Env::sim(1);
        let builder = builder("/db", &env).advanced(|options| options.disable_auto_compactions = true);
        let db = builder.open().unwrap();
        let keyspace = db.default_keyspace();
        let mut map = BTreeMap::new();
        // One run with most keys, smaller ones above it, a few rows in the memtable: most merged
        // rows come from one input.
        let mut put = |number: u32, value: u32| {
            let key = format!("{number:05}");
            keyspace.put(&key, value.to_string()).unwrap();
            map.insert(key, value);
        };
        (0..4000).for_each(|number| put(number, 0));
        db.compact().unwrap();
        let snapshot = db.snapshot();
        let old = map.clone();
        for run in 1..4 {
            for _ in 0..60 {
                let number = random.u32(..5000);
                let key = format!("{number:05}");
                if random.u8(..4) == 0 {
                    keyspace.delete(&key).unwrap();
                    map.remove(&key);
                } else {
                    keyspace.put(&key, run.to_string()).unwrap();
                    map.insert(key, run);
                }
            }
            if run < 3 {
                db.flush().unwrap();
            }
        }
        walk(keyspace.cursor().unwrap(), &map, &mut random);
        walk(keyspace.cursor_at(&snapshot).unwrap(), &old, &mut random);
    }
}

/// Long scans in one direction, with seeks and changes of direction between them.
fn walk(mut cursor: Cursor, map: &BTreeMap<String, u32>, random: &mut fastrand::Rng) {
    let entries: Vec<(&String, &u32)> = map.iter().collect();
    let mut place = None;
    for _ in 0..60 {
        let target = format!("{:05}", random.u32(..5000));
        let below = entries.partition_point(|(key, _)| **key < target);
        match random.u8(..6) {
            0 => {
                cursor.seek(&target).unwrap();
                place = Some(below).filter(|place| *place < entries.len());
            }
            1 => {
                cursor.seek_before(&target).unwrap();
                place = below.checked_sub(1);
            }
            2 => {
                cursor.seek_to_first().unwrap();
                place = Some(0);
            }
            3 => {
                cursor.seek_to_last().unwrap();
                place = Some(entries.len() - 1);
            }
            _ => {}
        }
        let forward = random.bool();
        for _ in 0..random.u32(..500) {
            assert_eq!(cursor.valid(), place.is_some());
            let Some(at) = place else { break };
            assert_eq!(cursor.key(), entries[at].0.as_bytes());
            assert_eq!(cursor.value(), entries[at].1.to_string().as_bytes());
            if forward {
                cursor.next().unwrap();
                place = Some(at + 1).filter(|place| *place < entries.len());
            } else {
                cursor.prev().unwrap();
                place = at.checked_sub(1);
            }
        }
    }
}
