//! Keys and values that are too long for a page.
use crate::support::*;

#[test]
fn the_longest_keys_differ_in_their_last_byte() {
    for page_bytes in [512, 8192, 65536] {
        let mut pair = Pair::new(5, page_bytes);
        let key = |last: u8| {
            let mut key = vec![b'k'; 65536];
            key[65535] = last;
            key
        };
        let changes: Vec<OwnedChange> =
            (0..40).map(|last| (key(last * 2), Some(vec![last; usize::from(last)]))).collect();
        pair.apply(&changes);
        check_same(&pair.tree.view(), &pair.model);
        for last in 0..80 {
            assert_eq!(pair.tree.view().get(&key(last)).unwrap().as_ref(), pair.model.get(&key(last)));
            assert_eq!(pair.tree.view().rank(&key(last)).unwrap(), u64::from(last.div_ceil(2)));
        }
        // A shorter key, a prefix of the others.
        pair.apply(&[(vec![b'k'; 65535], Some(b"short".to_vec())), (key(3), Some(vec![3]))]);
        check_same(&pair.tree.view(), &pair.model);
        pair.tree.verify().unwrap();
        let report = pair.tree.verify().unwrap();
        assert!(report.overflow_pages >= 40 * (65536 / page_bytes as u64 / 2));
        let deleted: Vec<OwnedChange> = (1..40).map(|last| (key(last * 2), None)).collect();
        pair.apply(&deleted);
        check_same(&pair.tree.view(), &pair.model);
        pair.reopen();
        pair.tree.verify().unwrap();
        pair.apply(&[(key(0), None)]);
        check_same(&pair.tree.view(), &pair.model);
        pair.tree.verify().unwrap();
    }
}

#[test]
fn the_longest_value_comes_back() {
    let mut pair = Pair::new(6, 4096);
    let value: Vec<u8> = (0..16u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    pair.apply(&[(b"big".to_vec(), Some(value)), (b"small".to_vec(), Some(b"1".to_vec()))]);
    pair.reopen();
    check_same(&pair.tree.view(), &pair.model);
    pair.apply(&[(b"big".to_vec(), None)]);
    check_same(&pair.tree.view(), &pair.model);
    assert_eq!(pair.tree.root().used_pages, 2);
}

#[test]
fn entries_at_the_limit_of_a_page_stay_in_it() {
    use sapwood_base::format::btree_page::{inline_key_limit, inline_limit};
    for page_bytes in [512, 8192] {
        let limit = inline_limit(page_bytes);
        for (key, value, has_run) in [
            (limit, 0, false),
            (limit / 2, limit - limit / 2, false),
            (1, limit - 1, false),
            (1, limit, true),
            (limit + 1, 0, true),
            (inline_key_limit(page_bytes), limit, true),
            (inline_key_limit(page_bytes) + 1, limit, true),
        ] {
            let mut pair = Pair::new(7, page_bytes);
            let changes: Vec<OwnedChange> = (0..30)
                .map(|i| {
                    let mut bytes = vec![b'x'; key];
                    bytes[key - 1] = i;
                    (bytes, Some(vec![i; value]))
                })
                .collect();
            pair.apply(&changes);
            check_same(&pair.tree.view(), &pair.model);
            let report = pair.tree.verify().unwrap();
            assert_eq!(report.overflow_pages > 0, has_run, "key {key}, value {value}, page {page_bytes}");
        }
    }
}
