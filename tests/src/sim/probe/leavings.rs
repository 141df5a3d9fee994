//! Remains of a closed database in threads that continue, and the cost of a long reader for others.
use crate::harness::builder;
use sapwood::{Db, Env, Remains};
use sapwood_storage::{BufferCache, Fill, SlotTable};

const ROWS: u32 = 4000;

fn open(env: &Env) -> Db {
    let small = |options: &mut sapwood::AdvancedOptions| {
        options.cache_bytes = Some(256 << 10);
        options.memtable_bytes = Some(64 << 10);
    };
    builder("/db", env).advanced(small).open().unwrap()
}

/// Opens, writes, reads more than the cache holds, flushes, closes.
fn live(env: &Env) -> Remains {
    let db = open(env);
    let space = db.default_keyspace();
    for row in 0..ROWS {
        space.put(row.to_be_bytes(), [row as u8; 200]).unwrap();
    }
    db.flush().unwrap();
    for row in 0..ROWS {
        assert!(
            space.get(row.wrapping_mul(2_654_435_761).wrapping_rem(ROWS).to_be_bytes()).unwrap().is_some()
        );
    }
    let remains = db.remains();
    db.close().unwrap();
    remains
}

/// This thread has evicted blocks and replaced views, and runs no collector afterwards: it stays in
/// the epoch of another database.
pub(super) fn closed() {
    let (env, _) = Env::sim_manual(1);
    let other = builder("/other", &env).open().unwrap();
    other.default_keyspace().put("row", "value").unwrap();
    let remains = other.default_keyspace().get_with("row", |_| live(&Env::sim_manual(2).0)).unwrap().unwrap();
    assert_eq!(remains.left(), [""; 0]);
    // Without another reader, and without a later call that runs deferred work.
    let remains = live(&env);
    assert_eq!(remains.left(), [""; 0]);
    other.close().unwrap();
}

/// While a reader is active, misses of other sizes take no more of the cache than they use.
pub(super) fn drained() {
    const BLOCKS: usize = 5000;
    /// Bytes that are evicted before the cache notices that the reader prevents their reuse: two
    /// slabs.
    const SLACK: usize = 2 * (256 << 10);
    let cache = BufferCache::new(16 << 20).unwrap();
    let blocks = cache.slots(BLOCKS);
    let load = |slots: &SlotTable, index: usize, len: usize| {
        let guard = crossbeam_epoch::pin();
        slots.get_or_load(index, len, Fill::Normal, &guard, |_| Ok(())).unwrap();
    };
    let kept = |slots: &SlotTable| (0..slots.len()).filter(|index| slots.is_cached(*index)).count();
    (0..BLOCKS).for_each(|index| load(&blocks, index, 4096));
    let before = kept(&blocks);
    let _reader = crossbeam_epoch::pin();
    // Kept to the end, since a table's blocks are reusable as soon as it is dropped.
    let mut others: Vec<(SlotTable, usize)> = Vec::new();
    for len in (6 << 10..48 << 10).step_by(2 << 10) {
        let slots = cache.slots(2);
        (0..2).for_each(|index| load(&slots, index, len));
        others.push((slots, len));
    }
    let used: usize = others.iter().map(|(slots, len)| kept(slots) * len).sum();
    let lost = (before - kept(&blocks)) * 4096;
    assert!(lost <= used + SLACK, "{lost} bytes of the cache are empty for {used} that are in use");
}
