//! Random batches compared with a sorted map, with pages of all sizes; views of older states do not
//! change.
use crate::support::*;
use sapwood_btree::TreeView;
use std::ops::Bound;

#[test]
fn batches_do_what_a_map_does() {
    for_seeds("batches_do_what_a_map_does", 0..24, |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let page_bytes = [512, 512, 1024, 4096, 8192, 65536][seed as usize % 6];
        let keys = KEYS[(seed as usize / 6) % 4];
        let range = if page_bytes <= 1024 { 3000 } else { 40_000 };
        let mut pair = Pair::new(seed, page_bytes);
        let mut older: Vec<(TreeView, Model)> = Vec::new();
        let deletes = [0.1, 0.3, 0.6, 0.95];
        for round in 0..24 {
            let len = [1, 5, 60, 400, 1500][random.usize(..5)];
            let deletes = deletes[round / 4 % deletes.len()];
            let changes = random_changes(&mut random, keys, range, len, deletes, page_bytes);
            pair.apply(&changes);
            let report = pair.tree.verify().unwrap();
            assert_eq!(report.entries, pair.model.len() as u64);
            if random.u8(..4) == 0 {
                older.push((pair.tree.view(), pair.model.clone()));
            }
            if random.u8(..6) == 0 && !older.is_empty() {
                let (view, model) = older.swap_remove(random.usize(..older.len()));
                check_same(&view, &model);
            }
            if random.u8(..8) == 0 {
                // A new handle does not protect older views: their pages would be reused.
                older.drain(..).for_each(|(view, model)| check_same(&view, &model));
                pair.reopen();
            }
            check_lookups(&mut random, &pair, keys, range);
        }
        check_same(&pair.tree.view(), &pair.model);
        older.drain(..).for_each(|(view, model)| check_same(&view, &model));
        // Deletes everything, and the file shrinks to its header.
        let all: Vec<OwnedChange> = pair.model.keys().map(|key| (key.clone(), None)).collect();
        pair.apply(&all);
        assert_eq!((pair.tree.root().height, pair.tree.root().used_pages), (0, 1));
        pair.tree.verify().unwrap();
        pair.apply(&[(b"k".to_vec(), Some(b"v".to_vec()))]);
        check_same(&pair.tree.view(), &pair.model);
    });
}

fn check_lookups(random: &mut fastrand::Rng, pair: &Pair, keys: Keys, range: u64) {
    let view = pair.tree.view();
    let mut sorted: Option<Vec<&Vec<u8>>> = None;
    for _ in 0..20 {
        let a = random_key(random, keys, range);
        assert_eq!(view.get(&a).unwrap().as_ref(), pair.model.get(&a));
        assert_eq!(view.contains(&a).unwrap(), pair.model.contains_key(&a));
        let sorted = sorted.get_or_insert_with(|| pair.model.keys().collect());
        let place = |key: &[u8]| sorted.partition_point(|other| other.as_slice() < key);
        assert_eq!(view.rank(&a).unwrap(), place(&a) as u64);
        let b = random_key(random, keys, range);
        for lower in [Bound::Unbounded, Bound::Included(&a[..]), Bound::Excluded(&a[..])] {
            for upper in [Bound::Unbounded, Bound::Included(&b[..]), Bound::Excluded(&b[..])] {
                let above = |key: &[u8]| match lower {
                    Bound::Unbounded => true,
                    Bound::Included(lower) => key >= lower,
                    Bound::Excluded(lower) => key > lower,
                };
                let below = |key: &[u8]| match upper {
                    Bound::Unbounded => true,
                    Bound::Included(upper) => key <= upper,
                    Bound::Excluded(upper) => key < upper,
                };
                let from = sorted.partition_point(|key| !above(key));
                let to = sorted.partition_point(|key| below(key));
                assert_eq!(view.count(lower, upper).unwrap(), to.saturating_sub(from) as u64);
            }
        }
        let n = random.u64(..view.len() + 2);
        let expected = sorted.get(n as usize).map(|key| ((*key).clone(), pair.model[*key].clone()));
        assert_eq!(view.nth(n).unwrap(), expected);
    }
}

#[test]
fn the_same_batch_again_changes_nothing() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut pair = Pair::new(1, 1024);
    // Long values are not compared, but rewritten.
    let mut changes = random_changes(&mut random, Keys::Numbers, 1000, 800, 0.3, 1024);
    changes.iter_mut().for_each(|(_, value)| value.iter_mut().for_each(|value| value.truncate(100)));
    pair.apply(&changes);
    let root = *pair.tree.root();
    let operations = pair.fs.operations();
    assert_eq!(pair.tree.apply(&borrow(&changes)).unwrap(), root);
    assert_eq!(pair.fs.operations(), operations, "nothing is written");
    // And no page waits for its release.
    pair.apply(&[(vec![1], Some(vec![2]))]);
    assert_eq!(pair.tree.root().generation, root.generation + 1);
}

#[test]
fn wrong_batches_are_refused() {
    let mut pair = Pair::new(1, 512);
    let kind = |result: sapwood_base::Result<sapwood_btree::TreeRoot>| result.unwrap_err().kind();
    let key = |text: &str| (text.as_bytes().to_vec(), Some(vec![]));
    use sapwood_base::ErrorKind::InvalidArgument;
    assert_eq!(kind(pair.tree.apply(&borrow(&[key("b"), key("a")]))), InvalidArgument);
    assert_eq!(kind(pair.tree.apply(&borrow(&[key("a"), key("a")]))), InvalidArgument);
    assert_eq!(kind(pair.tree.apply(&borrow(&[(vec![0; 65537], None)]))), InvalidArgument);
    assert_eq!(kind(pair.tree.apply(&borrow(&[(vec![0], Some(vec![0; (16 << 20) + 1]))]))), InvalidArgument);
    pair.tree.apply(&borrow(&[key("a")])).unwrap();
    assert_eq!(kind(pair.tree.apply(&borrow(&[key("b")]))), InvalidArgument);
    pair.tree.discard();
    assert!(pair.tree.view().is_empty());
    pair.apply(&[key("b")]);
    check_same(&pair.tree.view(), &pair.model);
    for page_bytes in [0, 256, 1000, 1 << 17] {
        let env = &pair.env;
        let created = sapwood_btree::Tree::create(env, "/other".as_ref(), &options(page_bytes), &pair.cache);
        assert_eq!(created.unwrap_err().kind(), InvalidArgument);
    }
}

#[test]
fn readers_see_their_state_while_batches_are_applied() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut pair = Pair::new(3, 1024);
    pair.apply(&random_changes(&mut random, Keys::Deep, 5000, 3000, 0.0, 1024));
    let (sender, receiver) = std::sync::mpsc::channel::<(TreeView, Model)>();
    std::thread::scope(|scope| {
        let reader =
            scope.spawn(move || receiver.iter().map(|(view, model)| check_same(&view, &model)).count());
        for _ in 0..40 {
            sender.send((pair.tree.view(), pair.model.clone())).unwrap();
            let changes = random_changes(&mut random, Keys::Deep, 5000, 300, 0.4, 1024);
            pair.apply(&changes);
        }
        drop(sender);
        assert_eq!(reader.join().unwrap(), 40);
    });
    pair.tree.verify().unwrap();
    check_same(&pair.tree.view(), &pair.model);
}
