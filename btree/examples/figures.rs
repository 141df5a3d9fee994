//! Prints figures of a tree on this machine: `cargo run --release -p sapwood-btree --example
//! figures [entries]`.
//!
//! Keys are 16 bytes (8 of them random), values 8 bytes. Except for the batches, the tree is in the
//! cache.
#![allow(clippy::disallowed_methods, reason = "a program that takes times")]
use sapwood_base::Result;
use sapwood_btree::{Change, Tree, TreeOptions, TreeView};
use sapwood_storage::{BufferCache, Env};
use std::hint::black_box;
use std::ops::Bound;
use std::time::{Duration, Instant};

const BATCH: usize = 10_000;
const LOOKUPS: usize = 1_000_000;

fn main() -> Result<()> {
    let entries: usize = std::env::args().nth(1).map_or(1_000_000, |count| count.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let env = Env::os();
    let cache = BufferCache::new(1 << 30)?;
    let mut random = fastrand::Rng::with_seed(1);

    let path = folder.path().join("random.btree");
    let mut tree = Tree::create(&env, &path, &TreeOptions::default(), &cache)?;
    let mut keys: Vec<[u8; 16]> = (0..entries).map(|_| key(random.u64(..))).collect();
    insert(&mut tree, &mut keys)?;
    insert_small_batches(&mut tree, &mut random)?;
    let view = tree.view();
    warm(&view)?;
    look_up(&view, &keys, &mut random)?;
    scan_parts(&view, &keys, &mut random)?;
    drop((view, tree));

    let path = folder.path().join("loaded.btree");
    let mut tree = Tree::create(&env, &path, &TreeOptions::default(), &cache)?;
    let count = 2 * entries as u64;
    load(&mut tree, count)?;
    let view = tree.view();
    let start = Instant::now();
    warm(&view)?;
    println!("first scan of all, from the file: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    count_and_select(&view, count, &mut random)?;
    scan_all(&view, count)
}

fn insert(tree: &mut Tree, keys: &mut [[u8; 16]]) -> Result<()> {
    let mut slowest = Duration::ZERO;
    let start = Instant::now();
    for batch in keys.chunks_mut(BATCH) {
        batch.sort_unstable();
        let changes: Vec<Change<'_>> = batch.iter().map(|key| Change::put(key, &key[..8])).collect();
        let start = Instant::now();
        tree.apply(&changes)?;
        tree.install();
        slowest = slowest.max(start.elapsed());
    }
    let taken = start.elapsed();
    println!(
        "{} random inserts in batches of {BATCH}: {:.2} s, {:.0} ns each; slowest batch {:.0} ms (synced)",
        keys.len(),
        taken.as_secs_f64(),
        taken.as_nanos() as f64 / keys.len() as f64,
        slowest.as_secs_f64() * 1e3,
    );
    Ok(())
}

fn insert_small_batches(tree: &mut Tree, random: &mut fastrand::Rng) -> Result<()> {
    let report = tree.verify()?;
    println!(
        "leaves {:.1} % full, inner pages {:.1} %; height {}, {} pages in use, {} in the file",
        report.leaf_fill * 100.0,
        report.inner_fill * 100.0,
        report.height,
        tree.root().used_pages,
        tree.root().file_pages
    );
    for (count, what) in [(100, "100"), (1000, "1000")] {
        let mut batch: Vec<[u8; 16]> = (0..count).map(|_| key(random.u64(..))).collect();
        batch.sort_unstable();
        let changes: Vec<Change<'_>> = batch.iter().map(|key| Change::put(key, &key[..8])).collect();
        let before = i64::from(tree.root().file_pages);
        let start = Instant::now();
        tree.apply(&changes)?;
        tree.install();
        let (taken, grown) = (start.elapsed(), i64::from(tree.root().file_pages) - before);
        println!(
            "a batch of {what} random inserts: {:.1} ms; {grown:+} pages in the file",
            taken.as_secs_f64() * 1e3
        );
    }
    Ok(())
}

fn look_up(view: &TreeView, keys: &[[u8; 16]], random: &mut fastrand::Rng) -> Result<()> {
    let mut times = Vec::with_capacity(LOOKUPS);
    let start = Instant::now();
    for _ in 0..LOOKUPS {
        let key = &keys[random.usize(..keys.len())];
        let start = Instant::now();
        black_box(view.get_with(key, |value| value.len())?);
        times.push(start.elapsed());
    }
    print_times("point lookup of a random key", &mut times, start.elapsed());
    Ok(())
}

fn scan_parts(view: &TreeView, keys: &[[u8; 16]], random: &mut fastrand::Rng) -> Result<()> {
    let mut times = Vec::new();
    let start = Instant::now();
    for _ in 0..1000 {
        let key = &keys[random.usize(..keys.len() - keys.len() / 50)];
        let start = Instant::now();
        let mut cursor = view.cursor(Bound::Included(key), Bound::Unbounded);
        cursor.seek_to_first()?;
        let mut taken = 0;
        while cursor.valid() && taken < 10_000 {
            black_box((cursor.key(), cursor.value()));
            cursor.next()?;
            taken += 1;
        }
        times.push(start.elapsed());
    }
    print_times("scan of 10,000 entries from a random key", &mut times, start.elapsed());
    Ok(())
}

fn load(tree: &mut Tree, count: u64) -> Result<()> {
    let step = u64::MAX / count;
    let start = Instant::now();
    tree.load((0..count).map(|i| Ok((key(i * step), (i * step).to_be_bytes()))))?;
    tree.install();
    let taken = start.elapsed();
    let report = tree.verify()?;
    println!(
        "load of {count} entries: {:.2} s, {:.1} million entries/s; leaves {:.1} % full, {} pages",
        taken.as_secs_f64(),
        count as f64 / taken.as_secs_f64() / 1e6,
        report.leaf_fill * 100.0,
        tree.root().used_pages,
    );
    Ok(())
}

fn count_and_select(view: &TreeView, count: u64, random: &mut fastrand::Rng) -> Result<()> {
    let mut times = Vec::new();
    let start = Instant::now();
    for _ in 0..100_000 {
        let (a, b) = (key(random.u64(..)), key(random.u64(..)));
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        let start = Instant::now();
        black_box(view.count(Bound::Included(&low), Bound::Excluded(&high))?);
        times.push(start.elapsed());
    }
    print_times(&format!("count of a random range of {count} entries"), &mut times, start.elapsed());

    let mut times = Vec::new();
    let start = Instant::now();
    for _ in 0..100_000 {
        let n = random.u64(..count);
        let start = Instant::now();
        black_box(view.nth(n)?);
        times.push(start.elapsed());
    }
    print_times("the n-th entry", &mut times, start.elapsed());
    Ok(())
}

fn scan_all(view: &TreeView, count: u64) -> Result<()> {
    for (forward, name) in [(true, "forward"), (false, "back")] {
        let mut best = Duration::MAX;
        for _ in 0..5 {
            let start = Instant::now();
            let mut cursor = view.cursor(Bound::Unbounded, Bound::Unbounded);
            if forward {
                cursor.seek_to_first()?
            } else {
                cursor.seek_to_last()?
            }
            let mut sum = 0;
            while cursor.valid() {
                sum += cursor.key().len() + cursor.value().len();
                if forward { cursor.next()? } else { cursor.prev()? }
            }
            assert_eq!(sum as u64, count * 24);
            best = best.min(start.elapsed());
        }
        println!(
            "scan of all {count} entries, {name}: {:.1} ms, {:.1} million entries/s",
            best.as_secs_f64() * 1e3,
            count as f64 / best.as_secs_f64() / 1e6
        );
    }
    Ok(())
}

fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    key
}

/// Loads all pages into the cache.
fn warm(view: &TreeView) -> Result<()> {
    let mut cursor = view.cursor(Bound::Unbounded, Bound::Unbounded);
    cursor.seek_to_first()?;
    while cursor.valid() {
        cursor.next()?;
    }
    Ok(())
}

fn print_times(what: &str, times: &mut [Duration], total: Duration) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_nanos() as f64 / 1e3;
    println!(
        "{what}: best {:.2} us, p50 {:.2} us, p99 {:.2} us, p99.9 {:.2} us, mean {:.2} us",
        at(0.0),
        at(0.5),
        at(0.99),
        at(0.999),
        total.as_nanos() as f64 / 1e3 / times.len() as f64,
    );
}
