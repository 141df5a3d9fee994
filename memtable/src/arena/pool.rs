//! The arenas of one database: taken at rotation, returned when the last reader of a memtable is
//! gone.
//!
//! Mappings are reused, because unmapping costs every core a TLB shoot-down and mapping costs page
//! faults. A returned mapping is unmapped only if the pool holds more than the database needs,
//! which happens when cursors have kept memtables alive.
use crate::arena::mapping::Mapping;
use crate::options::MemtableOptions;
use parking_lot::Mutex;
use sapwood_base::Result;
use std::sync::{Arc, Weak};

/// A source of [`Arena`](super::memory::Arena)s. Cheap to share; every method may be called from
/// any thread.
pub struct ArenaPool {
    options: MemtableOptions,
    /// Limit of mappings above which a returned one is unmapped.
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<Arc<Mapping>>,
    /// Every mapping that exists, idle or in use.
    all: Vec<Weak<Mapping>>,
}

impl ArenaPool {
    /// Creates an empty pool of arenas for memtables with these options. It keeps every returned
    /// arena.
    pub fn new(options: MemtableOptions) -> Arc<ArenaPool> {
        ArenaPool::keeping(options, usize::MAX)
    }

    /// [`ArenaPool::new`] with a limit: unmaps a returned arena when more than `most` exist.
    pub fn keeping(options: MemtableOptions, most: usize) -> Arc<ArenaPool> {
        Arc::new(ArenaPool { options, most, state: Mutex::default() })
    }

    /// Ensures that `count` arenas are idle with their memory already touched. Call it on a
    /// background thread: it takes about a quarter of a millisecond per mebibyte.
    ///
    /// # Errors
    /// `NoSpace` when the system grants no address space, `InvalidArgument` when the memtable size
    /// is too large.
    pub fn prepare(self: &Arc<Self>, count: usize) -> Result<()> {
        while self.idle() < count {
            let mapping = self.create()?;
            mapping.populate(self.options.size_bytes);
            self.state.lock().idle.push(mapping);
        }
        Ok(())
    }

    /// Unmaps idle arenas until at most `keep` remain.
    pub fn trim(&self, keep: usize) {
        let surplus = {
            let mut state = self.state.lock();
            let keep = keep.min(state.idle.len());
            state.idle.split_off(keep)
        };
        // Unmapping is slow, so it happens outside the lock.
        drop(surplus);
        self.state.lock().all.retain(|mapping| mapping.strong_count() > 0);
    }

    /// The number of idle arenas.
    pub fn idle(&self) -> usize {
        self.state.lock().idle.len()
    }

    /// Address space of all arenas, idle and in use, in bytes.
    pub fn bytes_reserved(&self) -> usize {
        self.sum(Mapping::reserved_bytes)
    }

    /// Memory of all arenas, idle and in use, in bytes. Excludes values outside arenas.
    pub fn bytes_resident(&self) -> usize {
        self.sum(Mapping::resident_bytes)
    }

    /// The options of the pool.
    pub fn options(&self) -> &MemtableOptions {
        &self.options
    }

    /// An idle mapping, or a new one.
    pub(super) fn take_mapping(&self) -> Result<Arc<Mapping>> {
        let idle = self.state.lock().idle.pop();
        match idle {
            Some(mapping) => Ok(mapping),
            None => self.create(),
        }
    }

    fn create(&self) -> Result<Arc<Mapping>> {
        let mapping = Arc::new(Mapping::new(self.options.size_bytes)?);
        let mut state = self.state.lock();
        state.all.retain(|mapping| mapping.strong_count() > 0);
        state.all.push(Arc::downgrade(&mapping));
        drop(state);
        Ok(mapping)
    }

    fn sum(&self, of: impl Fn(&Mapping) -> usize) -> usize {
        self.state.lock().all.iter().filter_map(Weak::upgrade).map(|mapping| of(&mapping)).sum()
    }

    /// Takes back the mapping of an arena that is no longer in use.
    pub(super) fn give_back(&self, mapping: Arc<Mapping>) {
        // Keeps a quarter more than the usual size, because memtables overshoot a little.
        mapping.recycle(self.options.size_bytes + self.options.size_bytes / 4);
        let mut state = self.state.lock();
        let there = state.all.iter().filter(|mapping| mapping.strong_count() > 0).count();
        if there <= self.most {
            return state.idle.push(mapping);
        }
        // Unmapping is slow, so it happens outside the lock.
        drop(state);
        drop(mapping);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Arena;

    #[test]
    fn no_more_arenas_are_kept_than_are_needed() {
        let pool = ArenaPool::keeping(MemtableOptions { size_bytes: 64 << 10 }, 2);
        let arenas: Vec<Arena> = (0..5).map(|_| pool.take().unwrap()).collect();
        drop(arenas);
        assert_eq!(pool.idle(), 2);
        let reserved = pool.bytes_reserved();
        drop((pool.take().unwrap(), pool.take().unwrap()));
        assert_eq!((pool.idle(), pool.bytes_reserved()), (2, reserved));
    }

    #[test]
    fn small_arenas_give_back_what_a_large_batch_took() {
        let pool = ArenaPool::new(MemtableOptions { size_bytes: 64 << 10 });
        let arena = pool.take().unwrap();
        while pool.bytes_resident() < 1 << 20 {
            arena.allocate(4096, 1).unwrap();
        }
        assert!(pool.bytes_resident() >= 1 << 20);
        drop(arena);
        assert!(pool.bytes_resident() <= 128 << 10, "{} bytes", pool.bytes_resident());
    }

    #[test]
    fn arenas_are_recycled_and_trimmed() {
        let pool = ArenaPool::new(MemtableOptions { size_bytes: 4 << 20 });
        let arena = pool.take().unwrap();
        let address = arena.filter_words().as_ptr() as usize;
        assert_eq!(address % (2 << 20), 0);
        for word in arena.filter_words() {
            word.store(7, std::sync::atomic::Ordering::Relaxed);
        }
        let fresh = pool.bytes_resident();
        for _ in 0..128 {
            let offset = arena.allocate(256 << 10, 1).unwrap();
            assert!(offset > 0);
        }
        assert!(pool.bytes_resident() >= fresh + (32 << 20));
        assert!(pool.bytes_reserved() > 16 << 20);
        drop(arena);
        assert_eq!(pool.idle(), 1);
        assert!(pool.bytes_resident() <= 8 << 20);

        let arena = pool.take().unwrap();
        assert_eq!(arena.filter_words().as_ptr() as usize, address);
        assert!(arena.filter_words().iter().all(|word| word.load(std::sync::atomic::Ordering::Relaxed) == 0));
        assert_eq!(arena.used_bytes(), 0);
        drop(arena);
        pool.trim(0);
        assert_eq!((pool.idle(), pool.bytes_reserved(), pool.bytes_resident()), (0, 0, 0));
        pool.prepare(2).unwrap();
        assert_eq!(pool.idle(), 2);
    }

    #[test]
    fn a_full_arena_is_an_error() {
        let pool = ArenaPool::new(MemtableOptions { size_bytes: 1 << 20 });
        let arena = pool.take().unwrap();
        let error = loop {
            if let Err(error) = arena.allocate(300 << 10, 8) {
                break error;
            }
        };
        assert_eq!(error.kind(), sapwood_base::ErrorKind::NoSpace);
        assert!(arena.used_bytes() <= pool.bytes_reserved());
    }

    #[test]
    fn an_impossible_size_is_an_error() {
        let pool = ArenaPool::new(MemtableOptions { size_bytes: usize::MAX });
        assert_eq!(pool.take().err().unwrap().kind(), sapwood_base::ErrorKind::InvalidArgument);
    }
}
