//! Pages as bytes: golden pages, searches against sorted keys, and bytes that form no page.
use super::*;
use crate::error::ErrorKind;

const TREE: u64 = 0x1122_3344_5566_7788;

fn leaf_cell<'a>(key: &'a [u8], value: &'a [u8]) -> Cell<'a> {
    Cell { key, payload: Payload::Inline(value) }
}

fn encoded(level: u8, cells: &[Cell<'_>], children: &[Child]) -> Vec<u8> {
    let mut out = vec![0xEE; 512];
    encode_page(&mut out, TREE, 7, 0x1_0000_0002, level, cells, children);
    out
}

const POINTER: PagePointer = PagePointer { page: 7, generation: 2 };

fn no_rest(_: &OverflowRun) -> Result<Vec<u8>> {
    panic!("no key of this page goes on")
}

fn run(page: u32, key_rest_bytes: u32, value_bytes: u32) -> OverflowRun {
    OverflowRun { first: PagePointer { page, generation: 1 }, key_rest_bytes, value_bytes }
}

#[test]
fn a_leaf_has_these_bytes() {
    let cells = [leaf_cell(b"ab", b"1"), leaf_cell(b"abcdefghijkl", b""), leaf_cell(b"abd", b"23")];
    let bytes = encoded(0, &cells, &[]);
    let hex: String = bytes[..88].iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = concat!(
        // Checksum, generation, page, kind, level, cells, prefix, zero, used.
        "f1f8a6e7ef0909f5",
        "0200000001000000",
        "07000000",
        "01",
        "00",
        "0300",
        "0200",
        "0000",
        "4b000000",
        // Heads, ends, lengths of suffixes.
        "0000000000000000",
        "6a69686766656463",
        "0000000000000064",
        "0100",
        "0300",
        "0500",
        "0000",
        "0a00",
        "0100",
        // Prefix, then the cells.
        "6162",
        "31",
        "6b6c",
        "3233",
        "00000000000000000000000000",
    );
    assert_eq!(hex, expected);
    assert!(bytes[75..].iter().all(|byte| *byte == 0));
    let page = TreePage::parse(&bytes, TREE, POINTER, 0, 3).unwrap();
    let mut key = Vec::new();
    for (i, cell) in cells.iter().enumerate() {
        key.clear();
        page.append_key(i, &mut key);
        assert_eq!((key.as_slice(), page.payload(i)), (cell.key, cell.payload));
    }
}

#[test]
fn an_inner_page_finds_children_by_key_and_by_number() {
    let child = |page, entries| Child {
        pointer: PagePointer { page, generation: page + 1 },
        entries,
        has_overflow: page == 11,
    };
    let children = [child(10, 5), child(11, 1), child(12, 9)];
    let bytes = encoded(2, &[leaf_cell(b"m", b""), leaf_cell(b"mm", b"")], &children);
    let page = TreePage::parse(&bytes, TREE, POINTER, 2, 15).unwrap();
    assert_eq!((page.children(), page.cells(), page.entries()), (3, 2, 15));
    assert!((0..3).all(|i| page.child(i) == children[i]));
    for (key, expected) in [("", 0), ("a", 0), ("l\u{7f}", 0), ("m", 1), ("ma", 1), ("mm", 2), ("z", 2)] {
        assert_eq!(page.child_of_key(key.as_bytes(), None, &mut no_rest).unwrap(), expected, "{key}");
    }
    for (n, expected) in [(0, (0, 0)), (4, (0, 4)), (5, (1, 0)), (6, (2, 0)), (14, (2, 8))] {
        assert_eq!(page.child_of_entry(n), Some(expected));
    }
    assert_eq!(page.child_of_entry(15), None);
    // A number of entries that differs from the parent's, another level, another generation,
    // another tree.
    assert!(TreePage::parse(&bytes, TREE, POINTER, 2, 14).is_err());
    assert!(TreePage::parse(&bytes, TREE, POINTER, 1, 15).is_err());
    assert!(TreePage::parse(&bytes, TREE, PagePointer { generation: 3, ..POINTER }, 2, 15).is_err());
    assert!(TreePage::parse(&bytes, TREE, PagePointer { page: 8, ..POINTER }, 2, 15).is_err());
    assert!(TreePage::parse(&bytes, TREE + 1, POINTER, 2, 15).is_err());
}

#[test]
fn heads_are_found_wherever_the_search_begins() {
    let even: Vec<u64> = (0..300).map(|i| i * 1000).collect();
    let doubling: Vec<u64> = (0..64).map(|i| 1 << i).collect();
    let same = vec![7; 100];
    let ends: Vec<u64> = (0..50).chain((0..50).map(|i| u64::MAX - 50 + i)).collect();
    for numbers in [&even, &doubling, &same, &ends, &even[..heads::HALVED_HEADS + 1].to_vec(), &Vec::new()] {
        let heads: Vec<[u8; 8]> = numbers.iter().map(|number| number.to_le_bytes()).collect();
        let near = numbers.iter().flat_map(|n| [n.wrapping_sub(1), *n, n.wrapping_add(1)]);
        for head in near.chain([0, 1, u64::MAX, u64::MAX / 2]) {
            let expected = numbers.iter().filter(|number| **number < head).count();
            for share in [None, Some(0.0), Some(0.3), Some(0.5), Some(0.999), Some(1.0)] {
                assert_eq!(heads_below(&heads, head, share), expected, "{head} of {numbers:?}, {share:?}");
            }
        }
    }
}

#[test]
fn a_page_with_one_child_has_no_cells() {
    let child = Child { pointer: PagePointer { page: 3, generation: 0 }, entries: 2, has_overflow: false };
    let bytes = encoded(1, &[], &[child]);
    let page = TreePage::parse(&bytes, TREE, POINTER, 1, 2).unwrap();
    assert_eq!(page.child_of_key(b"any", None, &mut no_rest).unwrap(), 0);
}

#[test]
fn searches_agree_with_the_order_of_keys_and_sizes_with_pages() {
    let mut random = 88172645463325252u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    for _ in 0..3000 {
        let count = 1 + next(18) as usize;
        let key = |next: &mut dyn FnMut(u64) -> u64| -> Vec<u8> {
            let len = next(20) as usize;
            let common = next(3) as usize * 4;
            let tail = (0..len).map(|_| [0, 0, b'a', 0xFF][next(4) as usize]);
            std::iter::repeat_n(b'p', common).chain(tail).collect()
        };
        let mut keys: Vec<Vec<u8>> = (0..count).map(|_| key(&mut next)).collect();
        keys.sort();
        keys.dedup();
        let cells: Vec<Cell<'_>> = keys.iter().map(|key| leaf_cell(key, b"v")).collect();
        let mut sizer = PageSizer::leaf();
        if !cells.iter().all(|cell| sizer.try_add(cell, 512)) {
            continue;
        }
        let bytes = encoded(0, &cells, &[]);
        let page = TreePage::parse(&bytes, TREE, POINTER, 0, keys.len() as u64).unwrap();
        assert_eq!(page.used_bytes(), sizer.len());
        let probes: Vec<Vec<u8>> = (0..10).map(|_| key(&mut next)).chain(keys.iter().cloned()).collect();
        for probe in probes {
            let expected = match keys.binary_search(&probe) {
                Ok(place) => (place, true),
                Err(place) => (place, false),
            };
            assert_eq!(page.lower_bound(&probe, &mut no_rest).unwrap(), expected, "{probe:?} in {keys:?}");
        }
    }
}

#[test]
fn keys_that_go_on_are_compared_by_their_rests() {
    let kept = [b'k'; 40];
    let rests: [&[u8]; 3] = [b"a", b"ab", b"b"];
    let long = |i: usize| Cell {
        key: &kept,
        payload: Payload::Overflow(run(20 + i as u32, rests[i].len() as u32, 3)),
    };
    let shorter = [b'k'; 39];
    let cells = [leaf_cell(&shorter, b"x"), long(0), long(1), long(2)];
    let bytes = encoded(0, &cells, &[]);
    let page = TreePage::parse(&bytes, TREE, POINTER, 0, 4).unwrap();
    assert_eq!(page.prefix().len(), 32, "a head is kept of a key that goes on");
    let mut rest = |run: &OverflowRun| Ok(rests[run.first.page as usize - 20].to_vec());
    let mut find = |tail: &[u8]| {
        let key = [&kept[..], tail].concat();
        page.lower_bound(&key, &mut rest).unwrap()
    };
    assert_eq!(find(b""), (1, false));
    assert_eq!(find(b"A"), (1, false));
    assert_eq!(find(b"a"), (1, true));
    assert_eq!(find(b"aa"), (2, false));
    assert_eq!(find(b"ab"), (2, true));
    assert_eq!(find(b"b"), (3, true));
    assert_eq!(find(b"ba"), (4, false));
    assert_eq!(page.lower_bound(&shorter, &mut rest).unwrap(), (0, true));
    assert_eq!(page.lower_bound(&kept[..38], &mut rest).unwrap(), (0, false));
}

#[test]
fn malformed_pages_are_errors_though_their_checksum_is_right() {
    let kept = [b'k'; 40];
    let cells = [
        leaf_cell(b"a", b"1"),
        leaf_cell(b"b", b"2"),
        Cell { key: &kept, payload: Payload::Overflow(run(9, 5, 700)) },
    ];
    let good = encoded(0, &cells, &[]);
    assert!(TreePage::parse(&good, TREE, POINTER, 0, 3).is_ok());
    let (ends, suffixes) = (PAGE_HEADER_BYTES + 24, PAGE_HEADER_BYTES + 30);
    let reference = u32_at(&good, 28) as usize - OVERFLOW_REFERENCE_BYTES;
    let changes: [(usize, &[u8]); 16] = [
        (20, &[4]),                      // kind
        (21, &[1]),                      // level
        (22, &[200, 0]),                 // more cells than there is room for
        (24, &[255, 1]),                 // prefix
        (26, &[1]),                      // reserved
        (28, &[1, 0, 0, 0]),             // used
        (28, &[0, 2, 1, 0]),             // used, beyond the page
        (32 + 7, b"c"),                  // order of heads
        (32, &[1]),                      // padding of a head
        (ends, &[9, 0]),                 // ends out of order
        (ends + 4, &[255, 255]),         // end beyond the page
        (suffixes, &[10, 0]),            // suffix longer than its cell
        (suffixes + 4, &[7, 0x80]),      // a key that continues keeps its head
        (reference, &[0, 0, 0, 0]),      // run at page 0
        (reference + 8, &[0, 0, 2, 0]),  // a key longer than keys are
        (reference + 12, &[0, 0, 0, 2]), // a value longer than values are
    ];
    for (at, change) in changes {
        let mut bytes = good.clone();
        bytes[at..at + change.len()].copy_from_slice(change);
        let checksum = checksum64(&bytes[8..], page_seed(TREE, 7, 0x1_0000_0002));
        bytes[..8].copy_from_slice(&checksum.to_le_bytes());
        let error = TreePage::parse(&bytes, TREE, POINTER, 0, 3).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corruption, "byte {at}");
    }
}

#[test]
fn pages_of_runs_hold_bytes_and_are_told_apart() {
    let mut out = vec![0; 512];
    encode_overflow_page(&mut out, TREE, 7, 0x1_0000_0002, &[5; 480]);
    assert_eq!(parse_overflow_page(&out, TREE, POINTER).unwrap(), &[5; 480]);
    assert!(is_page(&out, POINTER, None) && !is_page(&out, POINTER, Some(0)));
    assert!(TreePage::parse(&out, TREE, POINTER, 0, 0).is_err());
    let leaf = encoded(0, &[leaf_cell(b"a", b"")], &[]);
    assert!(is_page(&leaf, POINTER, Some(0)) && !is_page(&leaf, POINTER, Some(1)));
    assert!(parse_overflow_page(&leaf, TREE, POINTER).is_err());
    out[100] ^= 1;
    assert!(parse_overflow_page(&out, TREE, POINTER).is_err());
    assert_eq!(run(1, 0, 480).pages(512), 1);
    assert_eq!(run(1, 1, 480).pages(512), 2);
}

#[test]
fn four_cells_of_the_longest_kind_fit_into_every_page() {
    for shift in 9..=16 {
        let page_bytes = 1usize << shift;
        let key = vec![b'k'; inline_limit(page_bytes)];
        let keys: Vec<Vec<u8>> = (0..4).map(|i| [&[i], &key[1..]].concat()).collect();
        for mut sizer in [PageSizer::leaf(), PageSizer::inner()] {
            assert!(keys.iter().all(|key| sizer.try_add(&leaf_cell(key, b""), page_bytes)), "{page_bytes}");
        }
        assert!(inline_key_limit(page_bytes) >= 5 * HEAD_BYTES);
    }
}
