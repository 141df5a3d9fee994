//! Shared by the tests: a tree on the simulated machine with a sorted map, random changes, and
//! seeds.
use sapwood_btree::{Change, Tree, TreeOptions, TreeRoot, TreeView};
use sapwood_storage::{BufferCache, Env, SimFs};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub type Model = BTreeMap<Vec<u8>, Vec<u8>>;

/// A change that owns its bytes.
pub type OwnedChange = (Vec<u8>, Option<Vec<u8>>);

/// Runs `test` for each seed, or for the one in `SEED`; a failure prints its replay command.
pub fn for_seeds(name: &str, seeds: std::ops::Range<u64>, test: impl Fn(u64)) {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().expect("SEED is a number")],
        Err(_) => seeds.collect(),
    };
    for seed in seeds {
        let replay = Replay { name, seed };
        test(seed);
        std::mem::forget(replay);
    }
}

struct Replay<'a> {
    name: &'a str,
    seed: u64,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        eprintln!("replay with: SEED={} cargo test -p sapwood-btree --test it {}", self.seed, self.name);
    }
}

pub fn path() -> PathBuf {
    PathBuf::from("/000007.btree")
}

pub fn cache() -> Arc<BufferCache> {
    BufferCache::new(4 << 20).unwrap()
}

pub fn options(page_bytes: usize) -> TreeOptions {
    TreeOptions { page_bytes }
}

/// A tree, the map that it must equal, and its machine.
pub struct Pair {
    pub env: Env,
    pub fs: SimFs,
    pub cache: Arc<BufferCache>,
    pub tree: Tree,
    pub model: Model,
}

impl Pair {
    pub fn new(seed: u64, page_bytes: usize) -> Pair {
        let (env, fs) = Env::sim(seed);
        let cache = cache();
        let tree = Tree::create(&env, &path(), &options(page_bytes), &cache).unwrap();
        Pair { env, fs, cache, tree, model: Model::new() }
    }

    pub fn apply(&mut self, changes: &[OwnedChange]) {
        let root = self.tree.apply(&borrow(changes)).unwrap();
        self.tree.install();
        assert_eq!(*self.tree.root(), root);
        apply_to_model(&mut self.model, changes);
    }

    pub fn reopen(&mut self) {
        let root = TreeRoot::decode(&self.tree.root().encode()).unwrap();
        self.tree = Tree::open(&self.env, &path(), &root, &self.cache).unwrap();
    }
}

pub fn borrow(changes: &[OwnedChange]) -> Vec<Change<'_>> {
    changes.iter().map(|(key, value)| Change { key, value: value.as_deref() }).collect()
}

pub fn apply_to_model(model: &mut Model, changes: &[OwnedChange]) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(model.insert(key.clone(), value.clone())),
            None => drop(model.remove(key)),
        }
    }
}

/// The shape of keys.
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    /// Numbers of eight bytes.
    Numbers,
    /// Few different bytes, including zeros, of any short length: many ties.
    Ties,
    /// A long common prefix, then a number.
    Deep,
    /// Some exceed a page, with differences in their last bytes only.
    Long,
}

pub const KEYS: [Keys; 4] = [Keys::Numbers, Keys::Ties, Keys::Deep, Keys::Long];

pub fn random_key(random: &mut fastrand::Rng, keys: Keys, range: u64) -> Vec<u8> {
    let number = random.u64(..range);
    match keys {
        Keys::Numbers => number.to_be_bytes().to_vec(),
        Keys::Ties => {
            let len = random.usize(..14);
            (0..len).map(|_| [0, 0, 0, b'a', 0xFF][random.usize(..5)]).collect()
        }
        Keys::Deep => format!("a/common/beginning/of/thirty/bytes/{number:06}/end").into_bytes(),
        Keys::Long if random.u8(..4) > 0 => format!("long{number}").into_bytes(),
        Keys::Long => {
            let mut key = vec![b'l'; [60, 300, 5000][random.usize(..3)]];
            key.extend_from_slice(&(number % 40).to_be_bytes()[6..]);
            key
        }
    }
}

pub fn random_value(random: &mut fastrand::Rng, page_bytes: usize) -> Vec<u8> {
    let len = match random.u8(..50) {
        0 => random.usize(..3 * page_bytes.min(8192)),
        1..=5 => random.usize(..page_bytes.min(8192) / 6),
        _ => random.usize(..20),
    };
    vec![random.u8(..); len]
}

/// A sorted batch of `len` changes or slightly fewer.
pub fn random_changes(
    random: &mut fastrand::Rng,
    keys: Keys,
    range: u64,
    len: usize,
    deletes: f64,
    page_bytes: usize,
) -> Vec<OwnedChange> {
    let mut changes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
    for _ in 0..len {
        let key = random_key(random, keys, range);
        let value = (random.f64() >= deletes).then(|| random_value(random, page_bytes));
        changes.insert(key, value);
    }
    changes.into_iter().collect()
}

/// All entries of a view, forward.
pub fn contents(view: &TreeView) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut cursor = view.cursor(Bound::Unbounded, Bound::Unbounded);
    cursor.seek_to_first().unwrap();
    let mut found = Vec::new();
    while cursor.valid() {
        found.push((cursor.key().to_vec(), cursor.value().to_vec()));
        cursor.next().unwrap();
    }
    found
}

/// Compares everything: contents in both directions, the report of a check, and the number of
/// entries.
pub fn check_same(view: &TreeView, model: &Model) {
    let found = contents(view);
    let expected: Vec<_> = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    if found != expected {
        let place = found.iter().zip(&expected).position(|(a, b)| a != b);
        panic!("{} entries, expected {}; the first difference is at {place:?}", found.len(), expected.len());
    }
    assert_eq!(view.len(), model.len() as u64);
    let report = view.verify().unwrap();
    assert_eq!(report.entries, model.len() as u64);
}

pub fn file_bytes(fs: &SimFs) -> Vec<u8> {
    fs.read_file(Path::new(&path())).unwrap()
}
