//! The cursor compared with a sorted map: any moves, any bounds.
use crate::support::*;
use std::ops::Bound;

#[test]
fn cursors_move_as_over_a_map() {
    for_seeds("cursors_move_as_over_a_map", 0..32, |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let page_bytes = [512, 1024, 8192][seed as usize % 3];
        let keys = KEYS[seed as usize % 4];
        let mut pair = Pair::new(seed, page_bytes);
        let len = [0, 1, 10, 1500][random.usize(..4)];
        pair.apply(&random_changes(&mut random, keys, 2000, len, 0.0, page_bytes));
        let sorted: Vec<(&Vec<u8>, &Vec<u8>)> = pair.model.iter().collect();
        for _ in 0..6 {
            let bound = |random: &mut fastrand::Rng| {
                let key = random_key(random, keys, 2000);
                match random.u8(..3) {
                    0 => Bound::Unbounded,
                    1 => Bound::Included(key),
                    _ => Bound::Excluded(key),
                }
            };
            let (lower, upper) = (bound(&mut random), bound(&mut random));
            let from = sorted.partition_point(|(key, _)| match &lower {
                Bound::Unbounded => false,
                Bound::Included(lower) => *key < lower,
                Bound::Excluded(lower) => *key <= lower,
            });
            let to = sorted.partition_point(|(key, _)| match &upper {
                Bound::Unbounded => true,
                Bound::Included(upper) => *key <= upper,
                Bound::Excluded(upper) => *key < upper,
            });
            let within = &sorted[from..to.max(from)];
            let mut cursor =
                pair.tree.view().cursor(lower.as_ref().map(Vec::as_slice), upper.as_ref().map(Vec::as_slice));
            assert!(!cursor.valid());
            let mut place: Option<usize> = None;
            for _ in 0..150 {
                let target = random_key(&mut random, keys, 2000);
                let first_not_below = within.partition_point(|(key, _)| **key < target);
                match random.u8(..if place.is_some() { 20 } else { 5 }) {
                    0 => {
                        cursor.seek_to_first().unwrap();
                        place = Some(0);
                    }
                    1 => {
                        cursor.seek_to_last().unwrap();
                        place = within.len().checked_sub(1);
                    }
                    2 => {
                        cursor.seek(&target).unwrap();
                        place = Some(first_not_below);
                    }
                    3 => {
                        cursor.seek_before(&target).unwrap();
                        place = first_not_below.checked_sub(1);
                    }
                    4 => {
                        let n = random.usize(..sorted.len() + 2);
                        cursor.seek_to_nth(n as u64).unwrap();
                        place = n.checked_sub(from).filter(|_| n < to.max(from));
                    }
                    5..12 => {
                        cursor.next().unwrap();
                        place = place.map(|place| place + 1);
                    }
                    _ => {
                        cursor.prev().unwrap();
                        place = place.and_then(|place| place.checked_sub(1));
                    }
                }
                place = place.filter(|place| *place < within.len());
                assert_eq!(cursor.valid(), place.is_some());
                if let Some(place) = place {
                    assert_eq!((cursor.key(), cursor.value()), (&within[place].0[..], &within[place].1[..]));
                }
            }
        }
    });
}

#[test]
fn a_prefix_gives_what_begins_with_it() {
    let mut pair = Pair::new(1, 512);
    let words = ["", "a", "ab", "ab\u{0}", "abc", "abd", "ac", "b"];
    pair.apply(&words.map(|word| (word.as_bytes().to_vec(), Some(vec![]))));
    let found = |prefix: &[u8]| {
        let mut cursor = pair.tree.view().prefix(prefix);
        cursor.seek_to_first().unwrap();
        let mut found = Vec::new();
        while cursor.valid() {
            found.push(String::from_utf8(cursor.key().to_vec()).unwrap());
            cursor.next().unwrap();
        }
        found
    };
    assert_eq!(found(b"ab"), ["ab", "ab\u{0}", "abc", "abd"]);
    assert_eq!(found(b""), words);
    assert_eq!(found(b"\xFF"), Vec::<String>::new());
}

#[test]
fn a_prefix_is_visited_as_its_cursor_does_it() {
    let mut random = fastrand::Rng::with_seed(4);
    for shape in KEYS {
        let mut pair = Pair::new(1, 512);
        pair.apply(&random_changes(&mut random, shape, 3000, 2000, 0.0, 512));
        let view = pair.tree.view();
        let keys: Vec<Vec<u8>> = pair.model.keys().cloned().collect();
        for _ in 0..300 {
            let key = &keys[random.usize(..keys.len())];
            let prefix = &key[..random.usize(..=key.len())];
            let mut visited = Vec::new();
            let done = view.for_each_in_leaf(prefix, &crossbeam_epoch::pin(), |rest, value| {
                visited.push(([prefix, rest].concat(), value.to_vec()));
                Ok(())
            });
            if let Some(done) = done.unwrap() {
                let mut cursor = view.prefix_behind(prefix, done).unwrap();
                while cursor.valid() {
                    visited.push((cursor.key().to_vec(), cursor.value().to_vec()));
                    cursor.next().unwrap();
                }
            }
            let mut cursor = view.prefix(prefix);
            let mut expected = Vec::new();
            cursor.seek_to_first().unwrap();
            while cursor.valid() {
                expected.push((cursor.key().to_vec(), cursor.value().to_vec()));
                cursor.next().unwrap();
            }
            assert_eq!(visited, expected, "{prefix:?}");
        }
    }
}

#[test]
fn a_state_that_is_asked_often_answers_as_before() {
    let mut random = fastrand::Rng::with_seed(5);
    for shape in KEYS {
        let mut pair = Pair::new(1, 512);
        pair.apply(&random_changes(&mut random, shape, 3000, 2000, 0.0, 512));
        let view = pair.tree.view();
        let before = view.pinned_bytes();
        let keys: Vec<Vec<u8>> = pair.model.keys().cloned().collect();
        for _ in 0..2000 {
            let key = random_key(&mut random, shape, 3100);
            assert_eq!(view.get(&key).unwrap().as_ref(), pair.model.get(&key), "{key:?}");
            assert_eq!(
                view.rank(&key).unwrap(),
                keys.partition_point(|other| *other < key) as u64,
                "{key:?}"
            );
        }
        // In these two shapes eight bytes distinguish the separators.
        let expects_directory = matches!(shape, Keys::Numbers | Keys::Deep);
        assert!(!expects_directory || view.pinned_bytes() > before, "{shape:?}");
    }
}

#[test]
fn cursors_outlive_the_tree_and_go_to_other_threads() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut pair = Pair::new(1, 512);
    pair.apply(&random_changes(&mut random, Keys::Deep, 3000, 2000, 0.0, 512));
    let mut cursor = pair.tree.view().cursor(Bound::Unbounded, Bound::Unbounded);
    cursor.seek_to_last().unwrap();
    for _ in 0..10 {
        pair.apply(&random_changes(&mut random, Keys::Deep, 3000, 500, 0.6, 512));
    }
    let newest = pair.model.len();
    drop(pair);
    let walk = move || {
        let mut count = 0;
        while cursor.valid() {
            count += 1;
            cursor.prev().unwrap();
        }
        count
    };
    let count = std::thread::scope(|scope| scope.spawn(walk).join().unwrap());
    assert!(count > newest, "{count} entries of the old state, {newest} of the newest");
}
