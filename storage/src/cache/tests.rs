//! Tests of the whole cache: lookup results, eviction, accounting, and threads under pressure.
#![allow(clippy::disallowed_methods, reason = "tests start plain threads and take plain times")]
use super::*;
use crossbeam_epoch as epoch;
use sapwood_base::{Error, ErrorKind};
use std::sync::atomic::AtomicUsize;

/// Fills a block with bytes that identify table and index.
fn fill_block(table: u64, index: usize, block: &mut [u8]) {
    let mut random = fastrand::Rng::with_seed(table << 32 | index as u64);
    random.fill(block);
}

fn check_block(table: u64, index: usize, block: &[u8]) {
    let mut expected = vec![0; block.len()];
    fill_block(table, index, &mut expected);
    assert!(block == expected, "block {index} of table {table} holds other bytes");
}

fn load<'g>(slots: &'g SlotTable, index: usize, len: usize, fill: Fill, guard: &'g Guard) -> BlockRef<'g> {
    let block = slots.get_or_load(index, len, fill, guard, |bytes| {
        fill_block(0, index, bytes);
        Ok(())
    });
    block.unwrap()
}

/// Lets deferred calls run. Other tests pin the same collector, so one round is not enough.
fn wait_until_unused(cache: &BufferCache) {
    for _ in 0..100_000 {
        if cache.used_bytes() == 0 {
            return;
        }
        epoch::pin().flush();
        std::thread::yield_now();
    }
    panic!("{} bytes are still in use", cache.used_bytes());
}

#[test]
fn the_second_lookup_is_a_hit() {
    let cache = BufferCache::new(1 << 20).unwrap();
    let slots = cache.slots(10);
    let guard = epoch::pin();
    assert!(slots.get(3, &guard).is_none());
    for (index, len) in [1usize, 511, 4096, 4097, 65536].into_iter().enumerate() {
        let block = load(&slots, index, len, Fill::Normal, &guard);
        assert!(block.is_cached());
        check_block(0, index, &block);
        let again = slots.get(index, &guard).unwrap();
        assert_eq!((again.len(), again.as_ptr()), (len, block.as_ptr()));
        assert!(slots.is_cached(index));
        slots.prefetch(index);
        slots.prefetch_block(index, 128);
    }
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.inserts, stats.evictions), (5, 5, 5, 0));
    assert!(stats.used_bytes >= 1 + 511 + 4096 + 4097 + 65536);
}

#[test]
fn what_cannot_be_kept_is_owned() {
    let empty = BufferCache::new(0).unwrap();
    let full = BufferCache::new(1 << 20).unwrap();
    let guard = epoch::pin();
    for (cache, len, fill) in [
        (&empty, 4096, Fill::Normal),
        (&full, 4096, Fill::None),
        (&full, (4 << 20) + 1, Fill::Normal),
        (&full, 0, Fill::Normal),
    ] {
        let slots = cache.slots(1);
        let block = load(&slots, 0, len, fill, &guard);
        assert!(!block.is_cached());
        check_block(0, 0, &block);
        assert_eq!(block.len(), len);
        assert!(slots.get(0, &guard).is_none());
        check_block(0, 0, &block.pin());
        assert_eq!(cache.used_bytes(), 0);
    }
}

#[test]
fn what_is_not_to_be_kept_is_not_counted_either() {
    let cache = BufferCache::new(1 << 20).unwrap();
    let slots = cache.slots(2);
    let guard = epoch::pin();
    load(&slots, 0, 4096, Fill::Normal, &guard);
    let before = cache.stats();
    // From the cache if it is present.
    assert!(load(&slots, 0, 4096, Fill::None, &guard).is_cached());
    assert!(!load(&slots, 1, 4096, Fill::None, &guard).is_cached());
    assert_eq!(cache.stats(), before);
}

#[test]
fn an_inserted_block_is_a_hit() {
    let cache = BufferCache::new(1 << 20).unwrap();
    let slots = cache.slots(2);
    slots.insert(1, b"fresh from the builder");
    slots.insert(1, b"fresh from the builder");
    let guard = epoch::pin();
    assert_eq!(&*slots.get(1, &guard).unwrap(), b"fresh from the builder");
    slots.insert(0, b"");
    assert!(!slots.is_cached(0));
}

#[test]
fn a_removed_block_is_loaded_anew_and_pins_keep_the_old_bytes() {
    let cache = BufferCache::new(1 << 20).unwrap();
    let slots = cache.slots(4);
    let before = {
        let guard = epoch::pin();
        load(&slots, 1, 4096, Fill::Normal, &guard).pin()
    };
    slots.remove(1);
    slots.remove(2);
    assert!(!slots.is_cached(1));
    slots.insert(1, &[7; 4096]);
    let guard = epoch::pin();
    assert!(slots.get(1, &guard).unwrap().iter().all(|byte| *byte == 7));
    check_block(0, 1, &before);
    drop((guard, before, slots));
    wait_until_unused(&cache);
}

#[test]
fn a_failed_load_leaves_nothing_and_a_panic_neither() {
    let cache = BufferCache::new(1 << 20).unwrap();
    let slots = cache.slots(1);
    let guard = epoch::pin();
    let failed = slots.get_or_load(0, 100, Fill::Normal, &guard, |_| {
        Err(Error::new(ErrorKind::Corruption, "block checksum does not match"))
    });
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::Corruption);
    assert_eq!(cache.used_bytes(), 0);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = slots.get_or_load(0, 100, Fill::Normal, &guard, |_| panic!("a bug in the loader"));
    }));
    assert!(panicked.is_err());
    assert_eq!(cache.used_bytes(), 0);
    check_block(0, 0, &load(&slots, 0, 100, Fill::Normal, &guard));
}

#[test]
#[should_panic(expected = "never changes")]
fn a_block_keeps_its_length() {
    let cache = BufferCache::new(1 << 20).unwrap();
    let slots = cache.slots(1);
    let guard = epoch::pin();
    load(&slots, 0, 100, Fill::Normal, &guard);
    cache.set_capacity_bytes(0);
    cache.set_capacity_bytes(1 << 20);
    for _ in 0..1000 {
        epoch::pin().flush();
    }
    load(&slots, 0, 101, Fill::Normal, &guard);
}

#[test]
fn one_thread_loads_and_the_others_wait() {
    let cache = BufferCache::new(1 << 20).unwrap();
    let slots = cache.slots(1);
    let loads = AtomicUsize::new(0);
    let failures = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let guard = epoch::pin();
                let result = slots.get_or_load(0, 4096, Fill::Normal, &guard, |bytes| {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    // The first load fails: another thread must take over.
                    if loads.fetch_add(1, Ordering::Relaxed) == 0 {
                        return Err(Error::new(ErrorKind::Io, "cannot read"));
                    }
                    fill_block(0, 0, bytes);
                    Ok(())
                });
                match result {
                    Ok(block) => check_block(0, 0, &block),
                    Err(_) => drop(failures.fetch_add(1, Ordering::Relaxed)),
                }
            });
        }
    });
    assert_eq!((loads.into_inner(), failures.into_inner()), (2, 1));
}

#[test]
fn pins_outlive_table_and_cache() {
    let cache = BufferCache::new(1 << 20).unwrap();
    let slots = cache.slots(4);
    let (first, second) = {
        let guard = epoch::pin();
        (load(&slots, 0, 4096, Fill::Normal, &guard).pin(), load(&slots, 1, 5000, Fill::Normal, &guard).pin())
    };
    let third = second.clone();
    drop(second);
    let used = cache.used_bytes();
    drop(slots);
    assert_eq!(cache.used_bytes(), used);
    drop(first);
    assert!(cache.used_bytes() < used);
    let weak = Arc::downgrade(&cache.shared);
    drop(cache);
    check_block(0, 1, &third);
    assert!(weak.upgrade().is_some());
    std::thread::spawn(move || check_block(0, 1, &third)).join().unwrap();
    assert!(weak.upgrade().is_none());
}

#[test]
fn pinned_blocks_stay_while_others_are_evicted() {
    let cache = BufferCache::new(1 << 20).unwrap();
    let slots = cache.slots(2000);
    let pinned = load(&slots, 0, 4096, Fill::Normal, &epoch::pin()).pin();
    // Guards of other tests may delay the reuse of frames, and then blocks are not cached.
    for round in 0.. {
        for index in 1..2000 {
            check_block(0, index, &load(&slots, index, 4096, Fill::Normal, &epoch::pin()));
        }
        if cache.stats().evictions > 1500 {
            break;
        }
        assert!(round < 1000, "{:?}", cache.stats());
    }
    assert!(slots.is_cached(0));
    check_block(0, 0, &pinned);
    let stats = cache.stats();
    assert!(stats.used_bytes <= stats.capacity_bytes, "{stats:?}");
    drop(pinned);
    drop(slots);
    wait_until_unused(&cache);
}

#[test]
fn a_scan_does_not_flush_what_is_in_use() {
    let cache = BufferCache::new(4 << 20).unwrap();
    let hot = cache.slots(500);
    let cold = cache.slots(20_000);
    for _ in 0..3 {
        for index in 0..500 {
            load(&hot, index, 4096, Fill::Normal, &epoch::pin());
        }
    }
    for index in 0..20_000 {
        load(&cold, index, 4096, Fill::Scan, &epoch::pin());
    }
    let kept = (0..500).filter(|&index| hot.is_cached(index)).count();
    assert!(kept > 490, "{kept} of 500 hot blocks are left");
}

#[test]
fn capacity_can_be_lowered_and_raised() {
    let cache = BufferCache::new(8 << 20).unwrap();
    let slots = cache.slots(4000);
    let load_all = || {
        for index in 0..4000 {
            check_block(0, index, &load(&slots, index, 700 + index % 9 * 1000, Fill::Normal, &epoch::pin()));
        }
    };
    load_all();
    cache.set_capacity_bytes(1 << 20);
    for _ in 0..100_000 {
        if cache.used_bytes() <= 1 << 20 && cache.memory_bytes() <= 5 << 18 {
            break;
        }
        epoch::pin().flush();
        std::thread::yield_now();
    }
    assert!(cache.used_bytes() <= 1 << 20);
    assert!(cache.memory_bytes() <= 5 << 18, "{}", cache.memory_bytes());
    load_all();
    cache.set_capacity_bytes(16 << 20);
    load_all();
    assert!(cache.used_bytes() > 8 << 20, "{:?}", cache.stats());
    cache.set_capacity_bytes(0);
    load_all();
    wait_until_unused(&cache);
}

#[test]
fn what_was_deferred_may_give_charges_back() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let cache = BufferCache::new(16 << 20).unwrap();
        for _ in 0..1000 {
            let of_a_table = Arc::clone(&cache);
            epoch::pin().defer(move || of_a_table.discharge(0));
            cache.charge(1 << 20);
            cache.discharge(1 << 20);
        }
        done.send(()).unwrap();
    });
    // A thread that waits for itself waits forever.
    is_done
        .recv_timeout(std::time::Duration::from_secs(100))
        .expect("the lock of the budget is free when calls run");
}

#[test]
fn charges_make_the_cache_smaller_and_their_end_larger() {
    let cache = BufferCache::new(16 << 20).unwrap();
    let slots = cache.slots(4000);
    let load_all = || {
        for index in 0..4000 {
            load(&slots, index, 4096, Fill::Normal, &epoch::pin());
        }
    };
    // Small charges add up, although none of them justifies a step.
    for _ in 0..100 {
        cache.charge(100 << 10);
    }
    let left = (16 << 20) - ((100 * 100) << 10);
    assert!(cache.capacity_bytes().abs_diff(left) <= 16 << 14, "{}", cache.capacity_bytes());
    load_all();
    assert!(cache.used_bytes() <= left + (16 << 14), "{:?}", cache.stats());
    // An eighth stays.
    cache.charge(32 << 20);
    assert_eq!(cache.capacity_bytes(), 2 << 20);
    load_all();
    assert!(cache.stats().evictions > 0);
    // A new capacity takes the charges into account.
    cache.set_capacity_bytes(64 << 20);
    assert_eq!(cache.capacity_bytes(), (64 << 20) - (32 << 20) - ((100 * 100) << 10));
    cache.discharge(32 << 20);
    for _ in 0..100 {
        cache.discharge(100 << 10);
    }
    assert!(cache.capacity_bytes().abs_diff(64 << 20) <= 1 << 20, "{}", cache.capacity_bytes());
}

#[test]
fn a_change_of_block_size_takes_over_the_slabs() {
    let cache = BufferCache::new(4 << 20).unwrap();
    let small = cache.slots(4000);
    for index in 0..4000 {
        load(&small, index, 1000, Fill::Normal, &epoch::pin());
    }
    let large = cache.slots(10_000);
    for index in 0..10_000 {
        check_block(0, index, &load(&large, index, 33_000, Fill::Normal, &epoch::pin()));
    }
    let kept = (0..10_000).filter(|&index| large.is_cached(index)).count();
    assert!(kept > 60, "{kept} of about 100 possible blocks are in the cache: {:?}", cache.stats());
}

#[test]
fn threads_under_pressure_read_right_bytes_and_everything_is_given_back() {
    const BLOCKS: usize = 600;
    const TABLES: u64 = 4;
    let cache = BufferCache::new(4 << 20).unwrap();
    let next_table = AtomicU64::new(TABLES);
    // Tables come and go, as after compactions.
    let tables: Vec<Mutex<(u64, Arc<SlotTable>)>> =
        (0..TABLES).map(|table| Mutex::new((table, Arc::new(cache.slots(BLOCKS))))).collect();
    let block_len = |table: u64, index: usize| match (table + index as u64) % 16 {
        0 => 66_000,
        1..=2 => 30_000,
        3..=5 => 500 + index,
        _ => 4_096 + index % 600,
    };
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let (cache, tables, next_table) = (&cache, &tables, &next_table);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut pins = Vec::new();
                for round in 0..60_000 {
                    // The number of evictions depends on the scheduler: a thread that is preempted
                    // under a guard delays all reuse, and then nothing is cached.
                    if round > 6_000 && round % 64 == 0 && cache.stats().evictions > 500 {
                        break;
                    }
                    let place = random.usize(..tables.len());
                    if random.u32(..500) == 0 {
                        let number = next_table.fetch_add(1, Ordering::Relaxed);
                        *tables[place].lock() = (number, Arc::new(cache.slots(BLOCKS)));
                        continue;
                    }
                    let (number, slots) = tables[place].lock().clone();
                    // Skewed, so that some blocks are hit often.
                    let index = random.usize(..BLOCKS) * random.usize(..BLOCKS) / BLOCKS;
                    let len = block_len(number, index);
                    let fill = match random.u32(..10) {
                        0 => Fill::None,
                        1..=2 => Fill::Scan,
                        _ => Fill::Normal,
                    };
                    let guard = epoch::pin();
                    if random.u32(..20) == 0 && len <= 65_536 {
                        let mut bytes = vec![0; len];
                        fill_block(number, index, &mut bytes);
                        slots.insert(index, &bytes);
                    }
                    let fails = random.u32(..50) == 0;
                    let result = slots.get_or_load(index, len, fill, &guard, |bytes| {
                        if fails {
                            bytes.fill(0xEE);
                            return Err(Error::new(ErrorKind::Io, "cannot read"));
                        }
                        fill_block(number, index, bytes);
                        Ok(())
                    });
                    let Ok(block) = result else { continue };
                    assert_eq!(block.len(), len);
                    check_block(number, index, &block);
                    if random.u32(..10) == 0 {
                        pins.push((number, index, block.pin()));
                    }
                    if pins.len() > 20 {
                        let (number, index, pin) = pins.swap_remove(random.usize(..20));
                        check_block(number, index, &pin.clone());
                    }
                    if round % 512 == 0 {
                        let used = cache.used_bytes();
                        assert!(used <= cache.capacity_bytes(), "{used} bytes");
                    }
                }
                for (number, index, pin) in pins {
                    check_block(number, index, &pin);
                }
            });
        }
    });
    let stats = cache.stats();
    assert!(stats.evictions > 0 && stats.hits > 0, "{stats:?}");
    drop(tables);
    wait_until_unused(&cache);
    let weak = Arc::downgrade(&cache.shared);
    drop(cache);
    for _ in 0..100_000 {
        if weak.strong_count() == 0 {
            return;
        }
        epoch::pin().flush();
    }
    panic!("{} handles of the cache are left", weak.strong_count());
}

#[test]
fn long_blocks_are_kept_too() {
    let cache = BufferCache::new(16 << 20).unwrap();
    let lengths =
        [64 << 10, (64 << 10) + 1, 200_000, 256 << 10, (256 << 10) + 1, 1 << 20, 1_200_000, 4 << 20];
    let slots = cache.slots(lengths.len());
    for round in 0..2 {
        for (index, len) in lengths.into_iter().enumerate() {
            let guard = epoch::pin();
            let block = load(&slots, index, len, Fill::Normal, &guard);
            assert!(block.is_cached(), "{len} bytes");
            check_block(0, index, &block);
        }
        assert_eq!(cache.stats().misses, lengths.len() as u64, "round {round}");
    }
    drop(slots);
    wait_until_unused(&cache);
}

/// Blocks of all lengths are loaded, evict each other, and keep their content.
#[test]
fn short_and_long_blocks_share_a_small_cache() {
    let cache = BufferCache::new(8 << 20).unwrap();
    let len = |index: usize| [4096, 90_000, 16 << 10, 300_000, 700, 1_100_000, 64 << 10][index % 7];
    let slots = cache.slots(700);
    let mut random = fastrand::Rng::with_seed(7);
    let mut cached = [0; 7];
    for _ in 0..6000 {
        let index = random.usize(..700);
        let guard = epoch::pin();
        let block = load(&slots, index, len(index), Fill::Normal, &guard);
        cached[index % 7] += usize::from(block.is_cached());
        check_block(0, index, &block);
        drop(guard);
        epoch::pin().flush();
        assert!(cache.memory_bytes() <= (8 << 20) + (2 << 20));
    }
    assert!(cached.iter().all(|count| *count > 100), "{cached:?}");
    drop(slots);
    wait_until_unused(&cache);
}

/// A size other than the one that fills the cache, while a reader stays: slabs emptied by such a
/// miss become usable only when the reader is gone, so one part is enough.
#[test]
fn a_reader_that_stays_does_not_empty_the_cache_for_another_size() {
    let cache = BufferCache::new(64 << 20).unwrap();
    let (blocks, others) = (cache.slots(15_000), cache.slots(400));
    for index in 0..15_000 {
        load(&blocks, index, 4096, Fill::Normal, &epoch::pin());
    }
    let kept = |slots: &SlotTable| (0..slots.len()).filter(|index| slots.is_cached(*index)).count();
    let before = kept(&blocks);
    let reader = epoch::pin();
    for index in 0..400 {
        load(&others, index, 16 << 10, Fill::Normal, &epoch::pin());
    }
    let (after, new) = (kept(&blocks), kept(&others));
    // Each cached block of 16 KiB replaces about four, and one more part was emptied.
    assert!(before - after <= 5 * new + 2 * 64 + 64, "{before} were there, {after} are, for {new} others");
    drop(reader);
    // The epoch is process-wide, and other tests may stay in it for a while.
    for _ in 0..10_000 {
        for index in 0..400 {
            load(&others, index, 16 << 10, Fill::Normal, &epoch::pin());
            epoch::pin().flush();
        }
        if kept(&others) > 350 {
            return;
        }
    }
    panic!("{} of 400 are kept without a reader", kept(&others));
}

/// The frames of a cache are released with its last handle, regardless of deferred calls of other
/// threads.
#[test]
fn nothing_but_pins_outlives_the_cache() {
    let reader = epoch::pin();
    let cache = BufferCache::new(4 << 20).unwrap();
    let slots = cache.slots(4000);
    let mut pins = Vec::new();
    for index in 0..4000 {
        let block = load(&slots, index, 4096, Fill::Normal, &reader);
        if index % 500 == 3 {
            // Some of these are evicted while they are pinned, some are pinned afterwards.
            pins.push((index, block.pin()));
        }
    }
    let shared = Arc::downgrade(&cache.shared);
    assert!(cache.stats().evictions > 100);
    drop(slots);
    drop(cache);
    let keeper = shared.upgrade().expect("pinned");
    let used = keeper.keeper.lock().used_bytes();
    assert!(used <= pins.len() * 8192, "{used} bytes for {} pins", pins.len());
    drop(keeper);
    for (index, pin) in pins.drain(..) {
        check_block(0, index, &pin);
        check_block(0, index, &pin.clone());
    }
    assert!(shared.upgrade().is_none(), "nothing pins it, and a reader is still there");
    drop(reader);
    // The deferred calls find nothing.
    for _ in 0..100 {
        epoch::pin().flush();
    }
}
