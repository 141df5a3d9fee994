//! The buffer cache shared by all files of one or several databases.
//!
//! There is no hash table. The reader of a file owns a [`SlotTable`] with one slot per block, and a
//! slot says where the block is. A hit loads the slot and computes an address: no lock, no
//! reference count, no read-modify-write, and no store to shared memory once a block is known to be
//! in use. A miss costs a read anyway; it takes one lock and chooses the victim (`keeper`).
//!
//! A block that left its slot may still be in use by readers that found it there. So its frame is
//! reused only after every epoch guard of that time is gone, and, if it is pinned, after the last
//! [`PinnedBlock`].
//!
//! Invariants: a frame is in at most one slot; it is freed by exactly one party; the bytes of a
//! frame do not change between `publish` and its release. Slabs never hold more memory than the
//! capacity, except while it is being lowered.
use crate::planted;
use crate::sync::{Condvar, Mutex};
use crossbeam::utils::CachePadded;
use crossbeam_epoch::Guard;
use sapwood_base::Result;
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

mod block;
mod frames;
mod ghost;
mod keeper;
mod pin;
mod slabs;
mod slot;
mod slots;
#[cfg(all(test, sapwood_loom))]
mod models;
#[cfg(all(test, not(sapwood_loom)))]
mod tests;

pub use block::{BlockRef, CachedBlock, PinnedBlock};
pub use slots::SlotTable;

use frames::Frames;
use keeper::Keeper;
use slot::Slot;

/// Caching policy for a loaded block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Cached, and kept longer if it is used again.
    Normal,
    /// Part of a long scan: cached for a short while, regardless of its use.
    Scan,
    /// Not cached, and the use is not counted: for background work, and scans that must not disturb
    /// the cache.
    None,
}

/// Counts since the creation of the cache, and its contents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Lookups that found their block. Slightly low when more than 64 threads look up at once.
    pub hits: u64,
    /// Blocks that were absent and were loaded.
    pub misses: u64,
    /// Blocks that were put into the cache.
    pub inserts: u64,
    /// Blocks that were evicted to make room.
    pub evictions: u64,
    /// Blocks that were not cached for lack of room at that moment.
    pub refused: u64,
    /// Bytes of all blocks held, including those that wait for their last readers.
    pub used_bytes: usize,
    /// The capacity in bytes.
    pub capacity_bytes: usize,
}

/// A cache of immutable blocks, shared by any number of [`SlotTable`]s and threads. See the module.
///
/// Its memory returns to the system when the last reference is dropped, whatever other threads do;
/// pinned blocks keep their memory. Deferred calls of threads refer to the cache weakly: a thread
/// that has read once and then waits for other work, or one that stays in an epoch for long, keeps
/// no memory.
pub struct BufferCache {
    hits: HitCounter,
    shared: Arc<Shared>,
}

/// The memory of the blocks. Held by the cache and its tables; outlives them while blocks are
/// pinned.
struct Shared {
    frames: Frames,
    capacity_bytes: AtomicUsize,
    budget: Mutex<Budget>,
    next_table: AtomicU32,
    keeper: CachePadded<Mutex<Keeper>>,
    /// Where threads wait for a load by another thread, spread by the slot's index and not by its
    /// address, which differs between simulated runs.
    waiting: [CachePadded<(Mutex<()>, Condvar)>; WAITING_ROOMS],
}

const WAITING_ROOMS: usize = 16;

/// Inputs of the capacity.
struct Budget {
    /// Bytes for blocks and charges.
    bytes: usize,
    /// Bytes charged by other components.
    charged_bytes: usize,
}

impl Budget {
    /// The remainder for blocks. An eighth stays regardless of charges: without any cache every
    /// read would be a miss.
    fn capacity_bytes(&self) -> usize {
        self.bytes.saturating_sub(self.charged_bytes).max(self.bytes / 8)
    }
}

impl BufferCache {
    /// Creates a cache of at most `capacity_bytes` of memory for blocks, in slabs of 256 KiB. With
    /// 0 nothing is cached and every load returns an owned block. Fails if that much address space
    /// is unavailable.
    pub fn new(capacity_bytes: usize) -> Result<Arc<BufferCache>> {
        let frames = Frames::reserve(capacity_bytes)?;
        // A loom build has no frames.
        let capacity_bytes = if cfg!(sapwood_loom) { 0 } else { capacity_bytes };
        let keeper = Keeper::new(frames.slabs(), capacity_bytes);
        let shared = Shared {
            frames,
            capacity_bytes: AtomicUsize::new(capacity_bytes),
            budget: Mutex::new(Budget { bytes: capacity_bytes, charged_bytes: 0 }),
            next_table: AtomicU32::new(0),
            keeper: CachePadded::new(Mutex::new(keeper)),
            waiting: std::array::from_fn(|_| CachePadded::new((Mutex::new(()), Condvar::new()))),
        };
        Ok(Arc::new(BufferCache { hits: HitCounter::new(), shared: Arc::new(shared) }))
    }

    /// Creates slots for a file of `count` blocks, all absent.
    pub fn slots(self: &Arc<Self>, count: usize) -> SlotTable {
        // Relaxed: the numbers only need to differ.
        let number = self.shared.next_table.fetch_add(1, Ordering::Relaxed);
        SlotTable::new(Arc::clone(self), count, number)
    }

    /// Limit of memory for blocks, in bytes: the configured capacity, less charges.
    pub fn capacity_bytes(&self) -> usize {
        self.shared.capacity_bytes()
    }

    /// Changes the capacity, which includes charges. A smaller one evicts at once; memory returns
    /// to the system as soon as readers and pins release it. Growth ends at the initially reserved
    /// address space: the first capacity and 64 GiB more.
    pub fn set_capacity_bytes(&self, capacity_bytes: usize) {
        self.change_budget(|budget| {
            budget.bytes = capacity_bytes;
            true
        });
    }

    /// Charges `bytes` to the capacity for data kept elsewhere, such as the index of an open table,
    /// until [`BufferCache::discharge`]. An eighth of the capacity stays for blocks. The cache
    /// follows in steps of a 64th, since each step evicts and clears the ghost table.
    pub fn charge(&self, bytes: usize) {
        self.change_budget(|budget| {
            budget.charged_bytes += bytes;
            self.is_behind(budget)
        });
    }

    /// Ends a charge of `bytes`.
    pub fn discharge(&self, bytes: usize) {
        self.change_budget(|budget| {
            debug_assert!(bytes <= budget.charged_bytes, "only what was charged");
            budget.charged_bytes = budget.charged_bytes.saturating_sub(bytes);
            self.is_behind(budget)
        });
    }

    fn is_behind(&self, budget: &Budget) -> bool {
        budget.capacity_bytes().abs_diff(self.capacity_bytes()) > budget.bytes / 64
    }

    /// Changes the budget, and resizes the cache if `change` returns true.
    ///
    /// Pinning an epoch and flushing run deferred calls, possibly the drop of a table, which calls
    /// `discharge`. So neither may happen under the lock.
    fn change_budget(&self, change: impl FnOnce(&mut Budget) -> bool) {
        let guard = crossbeam_epoch::pin();
        let mut budget = self.shared.budget.lock();
        if change(&mut budget) {
            self.shared.resize(budget.capacity_bytes(), &guard);
            drop(budget);
            guard.flush();
        }
    }

    /// Bytes of all blocks held, including those that wait for their last readers. Zero when all
    /// tables, pins and guards of that time are gone.
    pub fn used_bytes(&self) -> usize {
        self.shared.keeper.lock().used_bytes()
    }

    /// All memory of the cache, including bookkeeping, in bytes. Excludes the slots, which their
    /// tables count.
    pub fn memory_bytes(&self) -> usize {
        self.shared.keeper.lock().memory_bytes()
    }

    /// Returns a weak reference to the memory, usable after the end of the cache.
    pub fn remains(&self) -> CacheRemains {
        CacheRemains(Arc::downgrade(&self.shared))
    }

    /// Counts since the creation of the cache. Takes the lock of the misses, so do not call it for
    /// every operation.
    pub fn stats(&self) -> CacheStats {
        let keeper = self.shared.keeper.lock();
        CacheStats {
            hits: self.hits.sum(),
            misses: keeper.counts.misses,
            inserts: keeper.counts.inserts,
            evictions: keeper.counts.evictions,
            refused: keeper.counts.refused,
            used_bytes: keeper.used_bytes(),
            capacity_bytes: self.capacity_bytes(),
        }
    }
}

/// Reports whether the memory of a cache still exists, without keeping it: see
/// [`BufferCache::remains`].
pub struct CacheRemains(std::sync::Weak<Shared>);

impl CacheRemains {
    /// The remaining memory, in bytes; `None` when all is released.
    pub fn memory_bytes(&self) -> Option<usize> {
        self.0.upgrade().map(|shared| shared.keeper.lock().memory_bytes())
    }
}

impl Drop for BufferCache {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

impl Shared {
    fn capacity_bytes(&self) -> usize {
        // Relaxed: a setting; decisions are made under the keeper's lock.
        self.capacity_bytes.load(Ordering::Relaxed)
    }

    /// REQUIRES: the lock of the budget, so that of two sizes the later one prevails.
    fn resize(self: &Arc<Self>, capacity_bytes: usize, guard: &Guard) {
        if cfg!(sapwood_loom) {
            return;
        }
        self.frames.advise_huge_pages(capacity_bytes);
        let mut evicted = Vec::new();
        {
            let mut keeper = self.keeper.lock();
            self.capacity_bytes.store(capacity_bytes, Ordering::Relaxed);
            let slabs = self.frames.slabs();
            let superfluous = keeper.set_capacity(slabs, capacity_bytes, &self.frames, &mut evicted);
            self.decommit(superfluous);
        }
        self.retire_later(&evicted, guard);
    }

    /// Allocates a frame for a block of `len` bytes that is about to be loaded.
    fn allocate(self: &Arc<Self>, len: usize, guard: &Guard) -> Option<u32> {
        let mut evicted = Vec::new();
        let (unit, hurry) = {
            let mut keeper = self.keeper.lock();
            let unit = keeper.allocate(len, &self.frames, &mut evicted);
            (unit, unit.is_none() || keeper.limbo_is_large(self.capacity_bytes()))
        };
        self.retire_later(&evicted, guard);
        if hurry {
            // Makes this thread's deferred calls available to all threads and runs those that are
            // due.
            guard.flush();
        }
        unit
    }

    /// Retires frames that left their slots, once no thread can be reading them.
    fn retire_later(self: &Arc<Self>, evicted: &[u32], guard: &Guard) {
        for &unit in evicted {
            // Weak: this thread may not return here for long, and the cache may end first.
            let shared = Arc::downgrade(self);
            planted::hold_weakly(self, guard);
            guard.defer(move || {
                if let Some(shared) = shared.upgrade() {
                    shared.retire(unit);
                }
            });
        }
    }

    /// REQUIRES: the frame is in limbo and no thread can find it or read it under a guard; or the
    /// cache was abandoned, which has retired it already.
    fn retire(self: &Arc<Self>, unit: u32) {
        let mut keeper = self.keeper.lock();
        if !keeper.is_abandoned() {
            self.retire_under(&mut keeper, unit);
        }
    }

    /// REQUIRES: the frame is in limbo and no thread can find it or read it under a guard.
    fn retire_under(self: &Arc<Self>, keeper: &mut Keeper, unit: u32) {
        if self.frames.pins(unit).retire() {
            self.free_under(keeper, unit);
        } else {
            // The last pin frees the frame, for which it needs the lock held here, and drops this
            // count, which keeps the frames mapped until then.
            keeper.leave_to_pins(unit);
            std::mem::forget(Arc::clone(self));
        }
    }

    /// Retires every frame and releases all memory, except for pinned frames. The cache and its
    /// tables are gone, so no thread can find a frame, and none reads one under a guard, since that
    /// borrows a table.
    fn abandon(self: &Arc<Self>) {
        let mut keeper = self.keeper.lock();
        for unit in keeper.abandon() {
            self.retire_under(&mut keeper, unit);
        }
        let superfluous = keeper.give_up_slabs();
        self.decommit(superfluous);
    }

    /// REQUIRES: the frame is known only to the caller.
    fn free(&self, unit: u32) {
        self.free_under(&mut self.keeper.lock(), unit);
    }

    fn free_under(&self, keeper: &mut Keeper, unit: u32) {
        self.frames.pins(unit).reset();
        let superfluous = keeper.free(unit);
        // Under the lock, so that the slab cannot be reused meanwhile.
        self.decommit(superfluous);
    }

    /// REQUIRES: the keeper's lock, and that the slabs are empty.
    fn decommit(&self, slabs: impl IntoIterator<Item = usize>) {
        slabs.into_iter().for_each(|slab| self.frames.decommit(slab));
    }

    fn waiting_room(&self, index: usize) -> &(Mutex<()>, Condvar) {
        &self.waiting[index % WAITING_ROOMS]
    }

    /// Blocks while another thread loads the block of this slot, which is at `index` of its table.
    fn wait_while_loading(&self, slot: &Slot, index: usize) {
        let (mutex, condition) = self.waiting_room(index);
        let mut waiting = mutex.lock();
        while slot.is_loading() {
            condition.wait(&mut waiting);
        }
    }

    /// Wakes the threads that wait for a slot at `index` of its table, which is no longer loading.
    fn wake(&self, index: usize) {
        let (mutex, condition) = self.waiting_room(index);
        // A thread that saw the slot loading waits before this lock is granted.
        drop(mutex.lock());
        condition.notify_all();
    }
}

impl fmt::Debug for BufferCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

/// Counts hits in per-thread cells, without read-modify-writes.
struct HitCounter {
    cells: [CachePadded<AtomicU64>; HIT_CELLS],
}

const HIT_CELLS: usize = 64;

thread_local! {
    /// The cell of this thread; out of range until assigned.
    static HIT_CELL: Cell<usize> = const { Cell::new(usize::MAX) };
}

impl HitCounter {
    fn new() -> HitCounter {
        HitCounter { cells: std::array::from_fn(|_| CachePadded::new(AtomicU64::new(0))) }
    }

    #[inline]
    fn add_one(&self) {
        let mut cell = HIT_CELL.get();
        if cell >= HIT_CELLS {
            cell = choose_hit_cell();
        }
        // Relaxed, and a load and a store: two threads that share a cell may lose a count, which is
        // acceptable for statistics.
        let count = self.cells[cell].load(Ordering::Relaxed);
        self.cells[cell].store(count.wrapping_add(1), Ordering::Relaxed);
    }

    fn sum(&self) -> u64 {
        self.cells.iter().map(|cell| cell.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

#[cold]
fn choose_hit_cell() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: the numbers only need to differ.
    let cell = NEXT.fetch_add(1, Ordering::Relaxed) % HIT_CELLS;
    HIT_CELL.set(cell);
    cell
}
