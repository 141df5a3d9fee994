//! Wrong bytes: detected, with file and offset, and never a panic, even under a repaired checksum.
use crate::support::*;
use sapwood_base::ErrorKind;
use sapwood_base::checksum::{checksum64, place_seed};
use sapwood_btree::{Tree, TreeRoot};
use sapwood_storage::Env;
use std::ops::Bound;
use std::sync::Arc;

fn pair(keys: Keys, page_bytes: usize) -> Pair {
    let mut random = fastrand::Rng::with_seed(1);
    let mut pair = Pair::new(1, page_bytes);
    for _ in 0..3 {
        pair.apply(&random_changes(&mut random, keys, 2000, 500, 0.2, page_bytes));
    }
    pair
}

/// Opens `bytes` as a tree and uses it in every way. Errors must report damage and name the file;
/// values may be wrong only without a checksum.
fn use_all(bytes: &[u8], root: &TreeRoot) -> Vec<sapwood_base::Error> {
    let (env, fs) = Env::sim(1);
    fs.write_file(path(), bytes).unwrap();
    let env = env.with_file_system(Arc::new(fs));
    let mut errors = Vec::new();
    let mut tree = match Tree::open(&env, &path(), root, &cache()) {
        Ok(tree) => tree,
        Err(error) => return vec![error],
    };
    let view = tree.view();
    errors.extend(view.verify().err());
    let mut cursor = view.cursor(Bound::Unbounded, Bound::Unbounded);
    let mut walk = |forward: bool| {
        let mut result = if forward { cursor.seek_to_first() } else { cursor.seek_to_last() };
        let mut steps = 0;
        while result.is_ok() && cursor.valid() && steps < 100_000 {
            let _ = (cursor.key().len(), cursor.value().len());
            result = if forward { cursor.next() } else { cursor.prev() };
            steps += 1;
        }
        assert!(steps < 100_000, "a walk without an end");
        result.err()
    };
    errors.extend(walk(true));
    errors.extend(walk(false));
    let mut random = fastrand::Rng::with_seed(5);
    for keys in KEYS {
        let key = random_key(&mut random, keys, 2000);
        errors.extend(view.get(&key).err());
        errors.extend(view.rank(&key).err());
        errors.extend(view.nth(random.u64(..view.len() + 1)).err());
    }
    let changes = random_changes(&mut random, Keys::Long, 2000, 100, 0.4, root.page_bytes as usize);
    errors.extend(tree.apply(&borrow(&changes)).err());
    errors
}

fn check_errors(errors: &[sapwood_base::Error]) {
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
        assert_eq!(error.file(), Some(path().as_path()), "{error}");
        assert!(error.offset().is_some(), "{error}");
    }
}

#[test]
fn every_flipped_bit_in_use_is_found() {
    for keys in [Keys::Deep, Keys::Long] {
        let pair = pair(keys, 512);
        let root = *pair.tree.root();
        let bytes = file_bytes(&pair.fs);
        assert!(use_all(&bytes, &root).is_empty());
        let mut random = fastrand::Rng::with_seed(2);
        let mut found = 0;
        for _ in 0..150 {
            let mut bytes = bytes.clone();
            let at = random.usize(..root.file_pages as usize * 512);
            bytes[at] ^= 1 << random.u8(..8);
            let errors = use_all(&bytes, &root);
            check_errors(&errors);
            found += usize::from(!errors.is_empty());
        }
        // The others are in free pages, or after the header.
        let used = f64::from(root.used_pages) / f64::from(root.file_pages);
        assert!(found as f64 > 150.0 * used * 0.85, "{found} found, {used} of the pages in use");
    }
}

#[test]
fn changes_with_a_right_checksum_do_not_panic() {
    for_seeds("changes_with_a_right_checksum_do_not_panic", 0..12, |seed| {
        let keys = KEYS[seed as usize % 4];
        let pair = pair(keys, 512);
        let root = *pair.tree.root();
        let bytes = file_bytes(&pair.fs);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..60 {
            let mut bytes = bytes.clone();
            let page = random.usize(1..root.file_pages as usize);
            let image = &mut bytes[page * 512..(page + 1) * 512];
            for _ in 0..random.usize(1..4) {
                // Mostly in the header and the columns, where damage has most effect.
                let at = if random.bool() { random.usize(8..48) } else { random.usize(8..512) };
                image[at] = match random.u8(..4) {
                    0 => random.u8(..),
                    1 => image[at].wrapping_add(1),
                    2 => image[at].wrapping_sub(1),
                    _ => image[at] ^ 1 << random.u8(..8),
                };
            }
            seal(image, root.tree, page as u32);
            check_errors(&use_all(&bytes, &root));
        }
    });
}

/// Repairs the checksum of a page.
fn seal(image: &mut [u8], tree: u64, page: u32) {
    let generation = u64::from_le_bytes(image[8..16].try_into().unwrap());
    let seed = place_seed(tree, u64::from(page)) ^ generation.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let checksum = checksum64(&image[8..], seed);
    image[..8].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn a_page_of_another_place_or_time_is_found() {
    let mut pair = pair(Keys::Numbers, 512);
    let old_root = *pair.tree.root();
    let old = file_bytes(&pair.fs);
    let mut random = fastrand::Rng::with_seed(3);
    pair.apply(&random_changes(&mut random, Keys::Numbers, 2000, 500, 0.2, 512));
    pair.apply(&random_changes(&mut random, Keys::Numbers, 2000, 500, 0.2, 512));
    let root = *pair.tree.root();
    let new = file_bytes(&pair.fs);
    let top = root.top.unwrap().pointer.page as usize;
    // A write that never reached the device: the old page is still there.
    let mut lost = new.clone();
    let end = ((top + 1) * 512).min(old.len());
    if let Some(page) = old.get(top * 512..end) {
        lost[top * 512..end].copy_from_slice(page);
        let errors = use_all(&lost, &root);
        assert!(!errors.is_empty());
        check_errors(&errors);
    }
    // A misplaced write.
    let other = if top == 1 { 2 } else { 1 };
    let mut swapped = new.clone();
    let from: Vec<u8> = new[other * 512..(other + 1) * 512].to_vec();
    swapped[top * 512..(top + 1) * 512].copy_from_slice(&from);
    let errors = use_all(&swapped, &root);
    assert!(!errors.is_empty());
    check_errors(&errors);
    // The root of a state whose pages were reused.
    check_errors(&use_all(&new, &old_root));
}

#[test]
fn files_that_are_short_or_of_another_tree_are_refused() {
    let pair = pair(Keys::Numbers, 512);
    let root = *pair.tree.root();
    let bytes = file_bytes(&pair.fs);
    for len in [0, 10, 511, 512, bytes.len() - 1] {
        let errors = use_all(&bytes[..len.min(root.file_pages as usize * 512 - 1)], &root);
        assert!(!errors.is_empty());
        check_errors(&errors);
    }
    let errors = use_all(&bytes, &TreeRoot { tree: root.tree + 1, ..root });
    assert!(!errors.is_empty());
    check_errors(&errors);
    let mut damaged = bytes.clone();
    damaged[3] ^= 1;
    check_errors(&use_all(&damaged, &root));
    assert!(!use_all(&damaged, &root).is_empty());
}

#[test]
fn roots_that_contradict_the_pages_are_found() {
    let pair = pair(Keys::Numbers, 512);
    let root = *pair.tree.root();
    let bytes = file_bytes(&pair.fs);
    let top = root.top.unwrap();
    let mut wrong = top;
    wrong.entries += 1;
    let mut other_page = top;
    other_page.pointer.page = if top.pointer.page == 1 { 2 } else { 1 };
    for root in [
        TreeRoot { height: root.height + 1, ..root },
        TreeRoot { height: root.height - 1, ..root },
        TreeRoot { top: Some(wrong), ..root },
        TreeRoot { top: Some(other_page), ..root },
        TreeRoot { used_pages: root.used_pages - 1, ..root },
        TreeRoot { file_pages: root.file_pages / 2, ..root },
    ] {
        let errors = use_all(&bytes, &root);
        assert!(!errors.is_empty(), "{root:?}");
        check_errors(&errors);
    }
}
