//! Crashes at any point: a tree that is opened with a durable root has exactly that state.
//!
//! The root is in a file that replaces the MANIFEST: two slots, written in turn. Each write is
//! synced before the tree is notified.
use crate::support::*;
use sapwood_base::Result;
use sapwood_btree::{TREE_ROOT_BYTES, Tree, TreeRoot};
use sapwood_storage::{Env, File, OpenMode, SimFs};
use std::path::Path;
use std::sync::Arc;

const ROOTS: &str = "/roots";

/// The slot of root number `count`: in turn, so that a torn write leaves the previous one.
fn write_root(file: &dyn File, count: u64, root: &TreeRoot) -> Result<()> {
    file.write_at(count % 2 * 512, &root.encode())?;
    file.sync_data()
}

fn read_root(fs: &SimFs) -> Option<TreeRoot> {
    let bytes = fs.read_file(ROOTS).ok()?;
    let roots =
        [0, 512].map(|at| bytes.get(at..at + TREE_ROOT_BYTES).and_then(|it| TreeRoot::decode(it).ok()));
    roots.into_iter().flatten().max_by_key(|root| root.generation)
}

/// Applies batches until the machine stops. Returns the states by generation; the last one may be
/// unsynced.
fn run(
    env: &Env,
    seed: u64,
    page_bytes: usize,
    keys: Keys,
    start: Option<(TreeRoot, Model)>,
) -> Vec<(u64, Model)> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut states = Vec::new();
    let cache = cache();
    let mut body = || -> Result<()> {
        let (mut tree, mut model, roots) = match start.clone() {
            None => {
                states.push((0, Model::new()));
                let tree = Tree::create(env, &path(), &options(page_bytes), &cache)?;
                let roots = env.fs().create_new(Path::new(ROOTS))?;
                write_root(&*roots, 0, tree.root())?;
                env.fs().sync_directory(Path::new("/"))?;
                (tree, Model::new(), roots)
            }
            Some((root, model)) => {
                states.push((root.generation, model.clone()));
                let tree = Tree::open(env, &path(), &root, &cache)?;
                (tree, model, env.fs().open(Path::new(ROOTS), OpenMode::ReadWrite)?)
            }
        };
        let mut views = Vec::new();
        for _ in 0..12 {
            let len = [3, 40, 300][random.usize(..3)];
            let changes = random_changes(&mut random, keys, 2000, len, 0.4, page_bytes);
            let before = *tree.root();
            let root = tree.apply(&borrow(&changes))?;
            if root == before {
                continue;
            }
            if random.u8(..8) == 0 {
                tree.discard();
                continue;
            }
            apply_to_model(&mut model, &changes);
            states.push((root.generation, model.clone()));
            write_root(&*roots, root.generation, &root)?;
            tree.install();
            if random.u8(..3) == 0 {
                views.push(tree.view());
            }
            if random.u8(..3) == 0 {
                views.clear();
                tree.trim(0)?;
            }
        }
        Ok(())
    };
    let _ = body();
    states
}

fn check(fs: &SimFs, states: &[(u64, Model)]) -> Option<(TreeRoot, Model)> {
    let Some(root) = read_root(fs) else {
        assert_eq!(states.last().map_or(0, |state| state.0), 0, "a durable root is lost");
        return None;
    };
    // The root in progress may be there or not; the previous one must be.
    let least = states.len().saturating_sub(2);
    let state =
        states[least..].iter().find(|state| state.0 == root.generation).expect("one of the last two roots");
    let env = Env::os().with_file_system(Arc::new(fs.clone()));
    let tree = Tree::open(&env, &path(), &root, &cache()).unwrap();
    check_same(&tree.view(), &state.1);
    tree.verify().unwrap();
    Some((root, state.1.clone()))
}

#[test]
fn a_crash_leaves_the_old_tree_or_the_new_one() {
    for_seeds("a_crash_leaves_the_old_tree_or_the_new_one", 0..36, |seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let page_bytes = [512, 1024, 4096][seed as usize % 3];
        let keys = KEYS[seed as usize % 4];
        let (env, fs) = Env::sim(seed);
        run(&env, seed, page_bytes, keys, None);
        let operations = fs.operations();
        for _ in 0..4 {
            let (env, fs) = Env::sim(seed);
            fs.crash_at(random.u64(..operations + 1));
            let states = run(&env, seed, page_bytes, keys, None);
            for survivors in [0, 1, random.u64(..), random.u64(..)] {
                let crashed = fs.crash(survivors);
                let Some(start) = check(&crashed, &states) else { continue };
                // Work continues from this state, up to another crash.
                let env = env.with_file_system(Arc::new(crashed.clone()));
                crashed.crash_at(crashed.operations() + random.u64(..60));
                let states = run(&env, survivors, page_bytes, keys, Some(start));
                check(&crashed.crash(random.u64(..)), &states);
            }
        }
    });
}

#[test]
fn every_operation_of_a_batch_can_be_the_last() {
    let (seed, page_bytes, keys) = (9, 512, Keys::Long);
    let (env, fs) = Env::sim(seed);
    run(&env, seed, page_bytes, keys, None);
    for operation in 0..fs.operations() {
        let (env, fs) = Env::sim(seed);
        fs.crash_at(operation);
        let states = run(&env, seed, page_bytes, keys, None);
        for survivors in 0..3 {
            check(&fs.crash(survivors), &states);
        }
    }
}
