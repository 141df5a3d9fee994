//! B+ trees alone: one page from arbitrary bytes, and a whole tree compared with a map.
use super::DATABASE;
use super::allocation::decoding;
use super::bytes::Bytes;
use sapwood_base::checksum::{checksum64, place_seed};
use sapwood_base::format::btree_page::{
    Cell, MAX_PAGE_BYTES, MIN_PAGE_BYTES, PAGE_HEADER_BYTES, PagePointer, Payload, TreePage, encode_page,
    parse_overflow_page,
};
use sapwood_base::{ErrorKind, MAX_KEY_BYTES};
use sapwood_btree::{Change, Tree, TreeOptions, TreeRoot, TreeView};
use sapwood_storage::sim::{Fault, FaultRule, Operation};
use sapwood_storage::{BufferCache, Env};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Repairs the checksum of a page, whose seed is in its own header.
pub fn repair_page(data: &mut [u8]) {
    if data.len() < PAGE_HEADER_BYTES {
        return;
    }
    let len = page_len(data.len());
    let mut page = data.to_vec();
    page.resize(len, 0);
    let generation = u64_at(&page, 8).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let seed = place_seed(DATABASE, u64::from(u32_at(&page, 16))) ^ generation;
    data[..8].copy_from_slice(&checksum64(&page[8..], seed).to_le_bytes());
}

/// The length of the page of which an input of `len` bytes is a prefix; the rest is zeros.
fn page_len(len: usize) -> usize {
    len.next_power_of_two().clamp(MIN_PAGE_BYTES, MAX_PAGE_BYTES)
}

/// Reads the input as a page of each kind, visits everything in it and encodes it again.
pub fn btree_page(data: &[u8]) {
    if !(PAGE_HEADER_BYTES..=MAX_PAGE_BYTES).contains(&data.len()) {
        return;
    }
    let mut bytes = data.to_vec();
    bytes.resize(page_len(data.len()), 0);
    let pointer = PagePointer { page: u32_at(&bytes, 16), generation: u32_at(&bytes, 8) };
    let overflow = decoding("btree_page", bytes.len(), || parse_overflow_page(&bytes, DATABASE, pointer));
    if let Ok(payload) = overflow {
        assert!(payload.len() <= bytes.len() - PAGE_HEADER_BYTES);
        return;
    }
    let level = bytes[21];
    let cells = usize::from(u16::from_le_bytes([bytes[22], bytes[23]]));
    // The count in the parent: the page's own, which is the last of the sums.
    let entries = if level == 0 {
        cells as u64
    } else {
        let sums = PAGE_HEADER_BYTES + 12 * cells + 8 * (cells + 1);
        match bytes.get(sums + 8 * cells..sums + 8 * cells + 8) {
            Some(sum) => u64_at(sum, 0),
            None => 0,
        }
    };
    let parse = || TreePage::parse(&bytes, DATABASE, pointer, level, entries);
    let Ok(page) = decoding("btree_page", bytes.len(), parse) else { return };
    walk(&page, &bytes, entries);
}

fn walk(page: &TreePage<'_>, bytes: &[u8], entries: u64) {
    assert_eq!(page.entries(), entries);
    assert_eq!((page.number(), page.generation()), (u32_at(bytes, 16), u64_at(bytes, 8)));
    let children: Vec<_> = (0..page.children()).map(|i| page.child(i)).collect();
    let mut before = 0;
    for (i, child) in children.iter().enumerate() {
        assert!(child.entries > 0 && child.pointer.page > 0);
        assert_eq!(page.entries_before(i), before);
        assert_eq!(page.child_of_entry(before), Some((i, 0)));
        before += child.entries;
        assert_eq!(page.child_of_entry(before - 1), Some((i, child.entries - 1)));
    }
    if !children.is_empty() {
        assert_eq!(before, entries);
        assert_eq!(page.child_of_entry(entries), None);
    }
    let keys: Vec<Vec<u8>> = (0..page.cells())
        .map(|i| {
            let mut key = Vec::new();
            page.append_key(i, &mut key);
            assert!(key.len() <= MAX_KEY_BYTES && key.starts_with(page.prefix()));
            key
        })
        .collect();
    let cells: Vec<Cell<'_>> =
        keys.iter().enumerate().map(|(i, key)| Cell { key, payload: page.payload(i) }).collect();
    // If keys continue in other pages, one page cannot compare them.
    let is_complete = cells.iter().all(|cell| !cell.payload.key_continues());
    let mut no_rest = |_: &_| Ok(Vec::new());
    for (i, key) in keys.iter().enumerate() {
        let found = page.lower_bound(key, &mut no_rest).expect("no file is read");
        assert!(found.0 <= page.cells());
        if is_complete {
            assert!(i == 0 || keys[i - 1] < *key, "keys ascend");
            assert_eq!(found, (i, true));
            let above = [key.as_slice(), b"\0"].concat();
            let found = page.lower_bound(&above, &mut no_rest).expect("no file is read");
            let expected = i + 1;
            assert_eq!(found, (expected, keys.get(expected) == Some(&above)));
        }
    }
    for probe in [&b""[..], b"k", &[0xFF; 20]] {
        let (found, is_equal) = page.lower_bound(probe, &mut no_rest).expect("no file is read");
        if is_complete {
            assert_eq!(found, keys.partition_point(|key| key.as_slice() < probe));
            assert_eq!(is_equal, keys.get(found).is_some_and(|key| key == probe));
        }
    }
    if !is_complete || page.level() == 0 && cells.is_empty() {
        return;
    }
    // A page may share less of its keys than possible, never more. Encoded again it has the same
    // content, and is at most eight bytes longer: a byte that all keys share moves from their
    // heads, which have eight bytes each in any case, to the prefix.
    let mut again = vec![0; bytes.len()];
    encode_page(&mut again, DATABASE, page.number(), page.generation(), page.level(), &cells, &children);
    let pointer = PagePointer { page: page.number(), generation: page.generation() as u32 };
    let second = TreePage::parse(&again, DATABASE, pointer, page.level(), entries).expect("an encoded page");
    assert!(second.used_bytes() <= page.used_bytes() + 8);
    for (i, cell) in cells.iter().enumerate() {
        let mut key = Vec::new();
        second.append_key(i, &mut key);
        assert_eq!((key.as_slice(), second.payload(i)), (cell.key, cell.payload));
    }
    assert!(children.iter().enumerate().all(|(i, child)| second.child(i) == *child));
}

/// A leaf and an inner page, for seeds.
pub fn pages() -> Vec<Vec<u8>> {
    let keys: Vec<Vec<u8>> =
        (0..9u8).map(|i| [b"user/", &vec![b'a' + i; 3 + usize::from(i)][..]].concat()).collect();
    let values = b"some value";
    let cells: Vec<Cell<'_>> =
        keys.iter().map(|key| Cell { key, payload: Payload::Inline(&values[..key.len() % 10]) }).collect();
    let separators: Vec<Cell<'_>> =
        keys.iter().map(|key| Cell { key, payload: Payload::Inline(&[]) }).collect();
    let child = |page: u32| sapwood_base::format::btree_page::Child {
        pointer: PagePointer { page, generation: 3 },
        entries: u64::from(page) * 10,
        has_overflow: page.is_multiple_of(4),
    };
    let children: Vec<_> = (1..=10).map(child).collect();
    let (mut leaf, mut inner) = (vec![0; MIN_PAGE_BYTES], vec![0; MIN_PAGE_BYTES]);
    encode_page(&mut leaf, DATABASE, 5, 7, 0, &cells, &[]);
    encode_page(&mut inner, DATABASE, 6, 7, 2, &separators, &children);
    // The zeros at the end are restored.
    [leaf, inner]
        .into_iter()
        .map(|mut page| {
            page.truncate(page.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
            page
        })
        .collect()
}

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The most batches of one input.
const BATCHES_MAX: usize = 40;

const PATH: &str = "/000007.tree";

fn check_same(view: &TreeView, map: &Map) {
    assert_eq!(view.len(), map.len() as u64);
    let mut cursor = view.cursor(Bound::Unbounded, Bound::Unbounded);
    cursor.seek_to_first().expect("a healthy disk");
    for (key, value) in map {
        assert!(cursor.valid(), "{key:?} is missing");
        assert_eq!((cursor.key(), cursor.value()), (key.as_slice(), value.as_slice()));
        cursor.next().expect("a healthy disk");
    }
    assert!(!cursor.valid());
    cursor.seek_to_last().expect("a healthy disk");
    for key in map.keys().rev() {
        assert!(cursor.valid() && cursor.key() == key);
        cursor.prev().expect("a healthy disk");
    }
    assert!(!cursor.valid());
}

fn check_lookups(view: &TreeView, map: &Map, key: &[u8], other: &[u8]) {
    let sorted: Vec<&Vec<u8>> = map.keys().collect();
    let place = sorted.partition_point(|present| present.as_slice() < key);
    assert_eq!(view.get(key).expect("a healthy disk").as_ref(), map.get(key));
    assert_eq!(view.rank(key).expect("a healthy disk"), place as u64);
    let nth = sorted.get(place).map(|key| ((*key).clone(), map[*key].clone()));
    assert_eq!(view.nth(place as u64).expect("a healthy disk"), nth);
    let end = sorted.partition_point(|present| present.as_slice() <= other);
    let count = view.count(Bound::Included(key), Bound::Included(other)).expect("a healthy disk");
    assert_eq!(count, end.saturating_sub(place) as u64);
    let mut cursor = view.cursor(Bound::Unbounded, Bound::Excluded(other));
    cursor.seek(key).expect("a healthy disk");
    let expected = sorted.get(place).filter(|present| present.as_slice() < other);
    assert_eq!(cursor.valid().then(|| cursor.key()), expected.map(|key| key.as_slice()));
}

/// A key that is sometimes too long for a page.
fn long_key(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let mut key = bytes.key();
    if key.first().is_some_and(|first| *first >= 0xF8) {
        key.splice(0..0, vec![b'l'; 700]);
    }
    key
}

/// Applies batches to a tree and to a map, with held views, discarded batches, failing calls, and
/// new opens. The tree equals the map at all times, and views do not change.
pub fn btree_ops(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let (env, fs) = Env::sim_manual(1);
    let cache = BufferCache::new(1 << 20).expect("a megabyte");
    let page_bytes = [512, 1024, 4096, 8192][usize::from(bytes.u8() % 4)];
    let path = Path::new(PATH);
    let mut tree = Tree::create(&env, path, &TreeOptions { page_bytes }, &cache).expect("an empty disk");
    let mut map = Map::new();
    let mut views: Vec<(TreeView, Map)> = Vec::new();
    for _ in 0..BATCHES_MAX {
        if bytes.is_empty() {
            break;
        }
        match bytes.u8() % 16 {
            0 => views.push((tree.view(), map.clone())),
            1 => {
                if let Some((view, map)) = views.pop() {
                    check_same(&view, &map);
                }
            }
            2 => {
                // A new handle does not protect older views.
                views.drain(..).for_each(|(view, map)| check_same(&view, &map));
                reopen(&env, &mut tree, &cache);
            }
            3 => drop(tree.trim(0).expect("a healthy disk")),
            4 => {
                let report = tree.verify().expect("a sound tree");
                assert_eq!(report.entries, map.len() as u64);
            }
            5 => {
                let (key, other) = (long_key(&mut bytes), long_key(&mut bytes));
                check_lookups(&tree.view(), &map, &key, &other);
            }
            how => {
                let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
                for _ in 0..bytes.u8() % 64 {
                    let key = long_key(&mut bytes);
                    let value = (!bytes.u8().is_multiple_of(3)).then(|| bytes.value());
                    changes.insert(key, value);
                }
                let batch: Vec<Change<'_>> =
                    changes.iter().map(|(key, value)| Change { key, value: value.as_deref() }).collect();
                let fails = how == 6;
                if fails {
                    let call = if bytes.u8().is_multiple_of(2) { Operation::Write } else { Operation::Sync };
                    fs.fail(FaultRule::new(call, Fault::Io).after(u64::from(bytes.u8() % 4)));
                }
                let before = *tree.root();
                let result = tree.apply(&batch);
                fs.clear_faults();
                match result {
                    Err(error) => {
                        assert!(fails && error.kind() == ErrorKind::Io, "{error}");
                        views.drain(..).for_each(|(view, map)| check_same(&view, &map));
                        reopen(&env, &mut tree, &cache);
                        continue;
                    }
                    Ok(root) if root == before => {}
                    Ok(_) if how == 7 => {
                        tree.discard();
                        continue;
                    }
                    Ok(root) => {
                        tree.install();
                        assert_eq!(*tree.root(), root);
                    }
                }
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(map.insert(key, value)),
                        None => drop(map.remove(&key)),
                    }
                }
            }
        }
    }
    check_same(&tree.view(), &map);
    tree.verify().expect("a sound tree");
    views.drain(..).for_each(|(view, map)| check_same(&view, &map));
    reopen(&env, &mut tree, &cache);
    check_same(&tree.view(), &map);
}

fn reopen(env: &Env, tree: &mut Tree, cache: &std::sync::Arc<BufferCache>) {
    let root = TreeRoot::decode(&tree.root().encode()).expect("its own encoding");
    *tree = Tree::open(env, Path::new(PATH), &root, cache).expect("a tree that was there");
}
