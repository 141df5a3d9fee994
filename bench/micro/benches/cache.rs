//! The buffer cache: the cost of hits and misses, and its hit ratio beside that of LRU.
//!
//! Prints figures once instead of sampling them: most of them are counts. Floors on 2 cores of a
//! cloud VM:
//!
//! | operation | ns |
//! |---|---:|
//! | independent load that misses the second-level cache | 21 |
//! | dependent load that misses it | 140 to 430 |
//! | uncontended atomic operation | 4 |
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the real clock")]

use crossbeam_epoch as epoch;
use sapwood_storage::cache::{BufferCache, Fill};

fn main() {
    cost_of_a_hit_and_of_a_miss();
    hit_ratio_of_skewed_lookups();
    refusals_with_mixed_lengths();
}

/// The cost of a hit, independent and in a chain of dependent addresses, and the cost of a miss.
fn cost_of_a_hit_and_of_a_miss() {
    let cache = BufferCache::new(256 << 20).expect("the cache works");
    for (name, blocks) in [("64 blocks", 64usize), ("1024 blocks", 1024), ("50000 blocks", 50_000)] {
        let slots = cache.slots(blocks);
        for index in 0..blocks {
            slots.insert(index, &[7; 4096]);
        }
        let mut random = fastrand::Rng::with_seed(1);
        let order: Vec<u32> = (0..1 << 16).map(|_| random.u32(..blocks as u32)).collect();
        const ROUNDS: usize = 100;
        let mut last = 7;
        let start = std::time::Instant::now();
        let guard = epoch::pin();
        for _ in 0..ROUNDS {
            for &index in &order {
                // The address depends on the previous block, so that the figure is a latency.
                let block =
                    slots.get(index as usize + usize::from(last) - 7, &guard).expect("the cache works");
                last = block[0];
            }
        }
        let per_hit = start.elapsed().as_nanos() as f64 / (ROUNDS * order.len()) as f64;
        let start = std::time::Instant::now();
        for _ in 0..ROUNDS {
            for &index in &order {
                std::hint::black_box(slots.get(index as usize, &guard).expect("the cache works"));
            }
        }
        let alone = start.elapsed().as_nanos() as f64 / (ROUNDS * order.len()) as f64;
        println!(
            "{name}: {alone:.1} ns per hit, {per_hit:.1} ns in a chain through the first byte of the block"
        );
    }
    let slots = cache.slots(1 << 20);
    let start = std::time::Instant::now();
    for index in 0..1 << 20 {
        let guard = epoch::pin();
        let block = slots.get_or_load(index, 4096, Fill::Normal, &guard, |_| Ok(()));
        assert!(block.is_ok());
    }
    println!(
        "{:.0} ns per miss with eviction, load not counted",
        start.elapsed().as_nanos() as f64 / (1 << 20) as f64
    );
    println!("{:?}", cache.stats());
}

/// The hit ratio of skewed lookups, beside that of an exact LRU.
fn hit_ratio_of_skewed_lookups() {
    const BLOCKS: usize = 100_000;
    for exponent in [0.7f64, 0.99] {
        let mut sums = Vec::with_capacity(BLOCKS);
        let mut sum = 0.0;
        for rank in 1..=BLOCKS {
            sum += (rank as f64).powf(-exponent);
            sums.push(sum);
        }
        for percent in [2usize, 10, 30] {
            let cache = BufferCache::new(BLOCKS * percent / 100 * 4096).expect("the cache works");
            let slots = cache.slots(BLOCKS);
            let mut random = fastrand::Rng::with_seed(7);
            let capacity = BLOCKS * percent / 100;
            // LRU by time stamps.
            let (mut last_use, mut by_time, mut lru_hits) =
                (vec![0u64; BLOCKS], std::collections::BTreeMap::new(), 0u64);
            const LOOKUPS: u64 = 1_000_000;
            for time in 1..=LOOKUPS {
                let target = random.f64() * sum;
                let rank = sums.partition_point(|&partial| partial < target).min(BLOCKS - 1);
                let index = (rank * 7919) % BLOCKS;
                let guard = epoch::pin();
                drop(slots.get_or_load(index, 4096, Fill::Normal, &guard, |_| Ok(())));
                if last_use[index] != 0 {
                    lru_hits += 1;
                    by_time.remove(&last_use[index]);
                } else if by_time.len() == capacity {
                    let (_, oldest) = by_time.pop_first().expect("the cache works");
                    last_use[oldest] = 0;
                }
                last_use[index] = time;
                by_time.insert(time, index);
            }
            let stats = cache.stats();
            println!(
                "zipf {exponent}, cache {percent} %: {:.2} % hits, LRU {:.2} %, refused {}",
                stats.hits as f64 * 100.0 / LOOKUPS as f64,
                lru_hits as f64 * 100.0 / LOOKUPS as f64,
                stats.refused
            );
        }
    }
}

/// The rate of refused blocks when blocks have many sizes.
fn refusals_with_mixed_lengths() {
    for (name, capacity, shortest, longest) in [
        ("tiny, 20 sizes", 2usize << 20, 500, 40_000),
        ("tiny, 3 sizes", 2 << 20, 3_900, 5_000),
        ("small, 20 sizes", 32 << 20, 500, 40_000),
        ("small, 3 sizes", 32 << 20, 3_900, 5_000),
        ("large, 20 sizes", 256 << 20, 500, 40_000),
    ] {
        let cache = BufferCache::new(capacity).expect("the cache works");
        let blocks = capacity / longest * 8;
        let slots = cache.slots(blocks);
        let mut random = fastrand::Rng::with_seed(7);
        let lengths: Vec<usize> = (0..blocks).map(|_| random.usize(shortest..longest)).collect();
        for _ in 0..10 * blocks {
            let index = random.usize(..blocks) * random.usize(..blocks) / blocks;
            let guard = epoch::pin();
            drop(slots.get_or_load(index, lengths[index], Fill::Normal, &guard, |_| Ok(())));
        }
        let stats = cache.stats();
        let refused = stats.refused as f64 * 100.0 / stats.misses as f64;
        println!("{name}: {refused:.1} % of the misses refused, {stats:?}");
    }
}
