//! The reuse of pages, and the length of the file.
use crate::support::*;

#[test]
fn the_file_stays_near_what_is_in_use() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut pair = Pair::new(1, 512);
    pair.apply(&random_changes(&mut random, Keys::Numbers, 1 << 40, 20_000, 0.0, 512));
    for _ in 0..300 {
        // Few changes each, so that single pages become free all over the file.
        pair.apply(&random_changes(&mut random, Keys::Numbers, 1 << 40, 40, 0.5, 512));
    }
    let root = *pair.tree.root();
    assert!(u64::from(root.file_pages) * 10 < u64::from(root.used_pages) * 17, "{root:?}");
    pair.tree.verify().unwrap();
    check_same(&pair.tree.view(), &pair.model);
}

#[test]
fn a_view_keeps_its_pages_until_it_is_gone() {
    let mut random = fastrand::Rng::with_seed(2);
    let mut pair = Pair::new(2, 512);
    pair.apply(&random_changes(&mut random, Keys::Numbers, 1 << 40, 2000, 0.0, 512));
    let (view, model) = (pair.tree.view(), pair.model.clone());
    let mut free_before = 0;
    for _ in 0..20 {
        pair.apply(&random_changes(&mut random, Keys::Numbers, 1 << 40, 500, 0.5, 512));
        free_before = pair.tree.free_bytes().unwrap();
        pair.tree.verify().unwrap();
    }
    check_same(&view, &model);
    // Every later state waits for the view, so only earlier pages are free.
    drop(view);
    let free_after = pair.tree.free_bytes().unwrap();
    assert!(free_after > 10 * free_before, "{free_before} bytes, then {free_after}");
    pair.tree.verify().unwrap();
    let all: Vec<OwnedChange> = pair.model.keys().map(|key| (key.clone(), None)).collect();
    pair.apply(&all);
    pair.apply(&[(vec![1], Some(vec![1]))]);
    let before = file_bytes(&pair.fs).len();
    assert!(pair.tree.trim(0).unwrap() > 0);
    assert!(file_bytes(&pair.fs).len() < before);
    pair.reopen();
    check_same(&pair.tree.view(), &pair.model);
}

#[test]
fn an_opened_tree_finds_its_free_pages() {
    let mut random = fastrand::Rng::with_seed(3);
    for keys in KEYS {
        let mut pair = Pair::new(3, 512);
        for _ in 0..8 {
            pair.apply(&random_changes(&mut random, keys, 5000, 700, 0.4, 512));
        }
        pair.tree.free_bytes().unwrap();
        let free = pair.tree.free_bytes().unwrap();
        let end = pair.tree.root().file_pages;
        pair.reopen();
        let found = pair.tree.free_bytes().unwrap();
        // The end of the file may have moved in the meantime, and pages after it do not count.
        assert!(found <= free && free - found <= 512 * u64::from(end), "{free} before, {found} after");
        let report = pair.tree.verify().unwrap();
        assert!(found <= report.unreached_pages * 512);
        pair.apply(&random_changes(&mut random, keys, 5000, 700, 0.4, 512));
        check_same(&pair.tree.view(), &pair.model);
        pair.tree.verify().unwrap();
    }
}

#[test]
fn a_discarded_batch_leaves_nothing() {
    let mut random = fastrand::Rng::with_seed(4);
    let mut pair = Pair::new(4, 1024);
    pair.apply(&random_changes(&mut random, Keys::Long, 5000, 2000, 0.0, 1024));
    pair.tree.free_bytes().unwrap();
    for _ in 0..10 {
        let free = pair.tree.free_bytes().unwrap();
        pair.tree.apply(&borrow(&random_changes(&mut random, Keys::Long, 5000, 500, 0.5, 1024))).unwrap();
        pair.tree.verify().unwrap();
        pair.tree.discard();
        assert_eq!(pair.tree.free_bytes().unwrap(), free);
        pair.tree.verify().unwrap();
        check_same(&pair.tree.view(), &pair.model);
        pair.apply(&random_changes(&mut random, Keys::Long, 5000, 100, 0.5, 1024));
    }
    check_same(&pair.tree.view(), &pair.model);
}
