//! The bytes of a small tree, so that a change of the format is detected.
use crate::support::*;
use sapwood_btree::{Change, Tree};

#[test]
fn a_small_tree_has_these_bytes() {
    let (env, fs) = sapwood_storage::Env::sim(1);
    let mut tree = Tree::create(&env, &path(), &options(512), &cache()).unwrap();
    let long = vec![b'z'; 700];
    let keys: Vec<String> = (0..60).map(|i| format!("country/{:03}/city", i * 3)).collect();
    let mut changes: Vec<Change<'_>> = keys.iter().map(|key| Change::put(key.as_bytes(), b"1")).collect();
    changes.push(Change::put(&long, b"long"));
    tree.apply(&changes).unwrap();
    tree.install();
    let bytes = fs.read_file(path()).unwrap();
    let mut text = String::new();
    for line in bytes.chunks(32) {
        if line.iter().any(|byte| *byte != 0) {
            text.extend(line.iter().map(|byte| format!("{byte:02x}")));
        }
        text.push('\n');
    }
    assert_eq!(tree.root().file_pages as usize * 512, bytes.len());
    let expected = include_str!("golden_tree.txt");
    if text != expected {
        let line = text.lines().zip(expected.lines()).position(|(a, b)| a != b);
        panic!("the bytes of a tree have changed, first in line {line:?}:\n{text}");
    }
}
