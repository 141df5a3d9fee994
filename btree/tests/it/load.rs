//! Trees that are loaded in one pass.
use crate::support::*;
use sapwood_base::{Error, ErrorKind, Result};

fn loaded(page_bytes: usize, count: u64, keys: Keys) -> Pair {
    let mut random = fastrand::Rng::with_seed(count);
    let mut pair = Pair::new(1, page_bytes);
    let entries: Model = random_changes(&mut random, keys, u64::MAX >> 40, count as usize, 0.0, page_bytes)
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect();
    let root = pair.tree.load(entries.iter().map(Ok)).unwrap();
    assert_eq!(root.entries(), entries.len() as u64);
    pair.tree.install();
    pair.model = entries;
    pair
}

#[test]
fn a_loaded_tree_has_its_entries() {
    for page_bytes in [512, 4096] {
        for keys in KEYS {
            for count in [0, 1, 2, 100, 4000] {
                let mut pair = loaded(page_bytes, count, keys);
                check_same(&pair.tree.view(), &pair.model);
                pair.tree.verify().unwrap();
                pair.reopen();
                let mut random = fastrand::Rng::with_seed(count);
                pair.apply(&random_changes(&mut random, keys, u64::MAX >> 40, 300, 0.5, page_bytes));
                check_same(&pair.tree.view(), &pair.model);
                pair.tree.verify().unwrap();
            }
        }
    }
}

#[test]
fn loaded_pages_are_full() {
    let mut pair = Pair::new(1, 8192);
    let entries = (0..200_000u64).map(|i| Ok((format!("index/{:012}", i * 7), [0u8; 4])));
    pair.tree.load(entries).unwrap();
    pair.tree.install();
    let report = pair.tree.verify().unwrap();
    assert_eq!(report.entries, 200_000);
    assert!(report.leaf_fill > 0.97, "{report:?}");
}

#[test]
fn a_tree_that_grows_at_its_end_is_full_too() {
    let mut pair = Pair::new(1, 4096);
    for batch in 0..200u64 {
        let changes: Vec<OwnedChange> =
            (0..100).map(|i| ((batch * 100 + i).to_be_bytes().to_vec(), Some(vec![0; 8]))).collect();
        pair.apply(&changes);
    }
    let report = pair.tree.verify().unwrap();
    assert!(report.leaf_fill > 0.95, "{report:?}");
}

#[test]
fn random_batches_leave_pages_well_filled() {
    for batch_len in [20, 500, 5000] {
        let mut random = fastrand::Rng::with_seed(batch_len);
        let mut pair = Pair::new(1, 4096);
        for _ in 0..40_000 / batch_len {
            let changes: Model =
                (0..batch_len).map(|_| (random.u64(..).to_be_bytes().to_vec(), vec![0; 8])).collect();
            let changes: Vec<OwnedChange> = changes.into_iter().map(|(k, v)| (k, Some(v))).collect();
            pair.apply(&changes);
        }
        let report = pair.tree.verify().unwrap();
        assert!(report.leaf_fill > 0.7, "batches of {batch_len}: {report:?}");
    }
}

#[test]
fn a_load_that_fails_leaves_the_tree_empty() {
    let mut pair = Pair::new(1, 512);
    let unordered = (0..1000u64).map(|i| Ok(((i ^ 1).to_be_bytes(), [0u8])));
    assert_eq!(pair.tree.load(unordered).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let broken = (0..1000u64).map(|i| -> Result<_> {
        if i < 900 { Ok((i.to_be_bytes(), [0u8])) } else { Err(Error::invalid_argument("no more")) }
    });
    assert!(pair.tree.load(broken).is_err());
    assert!(pair.tree.view().is_empty());
    assert_eq!(pair.tree.free_bytes().unwrap(), 0);
    pair.tree.verify().unwrap();
    pair.apply(&[(vec![1], Some(vec![1]))]);
    assert!(pair.tree.load([Ok((vec![2], vec![2]))]).is_err());
    check_same(&pair.tree.view(), &pair.model);
}
