//! The decisions of this crate that a planted bug changes: see [`sapwood_base::planted`].
use crossbeam_epoch::Guard;
use sapwood_base::format::file_name::FileName;
use sapwood_base::planted::{Bug, is};
use sapwood_base::{ErrorKind, Result};
use std::sync::Arc;

/// Runs the sync of a directory.
#[inline]
pub(crate) fn sync_names(sync: impl FnOnce() -> Result<()>) -> Result<()> {
    if is(Bug::DirectoryNotSynced) { Ok(()) } else { sync() }
}

/// Whether a sync of the directory that failed in this way may be retried.
#[inline]
pub(crate) fn may_be_retried(kind: ErrorKind) -> bool {
    kind == ErrorKind::OutOfResources && !is(Bug::ScarcityIsFinal)
}

/// Whether an obsolete file is removed.
#[inline]
pub(crate) fn is_removed(name: FileName) -> bool {
    !(is(Bug::ObsoleteTablesStay) && matches!(name, FileName::Table(_)))
}

/// Whether the number of open files has a bound.
#[inline]
pub(crate) fn bounds_open_files() -> bool {
    !is(Bug::FilesStayOpen)
}

/// Whether a file that was opened again is the one that was opened before.
#[inline]
pub(crate) fn is_same_file<I: PartialEq>(opened: Option<I>, before: Option<I>) -> bool {
    opened == before || is(Bug::AnotherFileOpened)
}

/// Whether a lock covers the directory, not only the name of a file.
#[cfg(feature = "sim")]
#[inline]
pub(crate) fn locks_directory() -> bool {
    !is(Bug::LockByName)
}

/// The handler that runs in a forked child.
#[cfg(all(unix, not(miri)))]
#[inline]
pub(crate) fn child_handler(mark: unsafe extern "C" fn()) -> Option<unsafe extern "C" fn()> {
    if is(Bug::ForkUnmarked) { None } else { Some(mark) }
}

/// Whether an allocation waits for slabs that are already becoming empty.
#[inline]
pub(crate) fn awaits_slabs() -> bool {
    !is(Bug::DrainedForNothing)
}

/// Whether a frame with these pins has none.
#[inline]
pub(crate) fn is_unpinned(pins: u32) -> bool {
    pins == 0 || is(Bug::PinnedFrameFreed)
}

/// Lets deferred calls of the guard's thread keep nothing of `cache`.
#[inline]
pub(crate) fn hold_weakly<C: Send + Sync + 'static>(cache: &Arc<C>, guard: &Guard) {
    if is(Bug::CacheOutlivesClose) {
        let held = Arc::clone(cache);
        guard.defer(move || drop(held));
    }
}

/// The slots of a new table of `cache`: those of no other table.
#[cfg(not(feature = "planted"))]
#[inline]
pub(crate) fn own_slots<C, S>(_cache: &Arc<C>, slots: Arc<[S]>) -> Arc<[S]> {
    slots
}

#[cfg(feature = "planted")]
pub(crate) use switched::own_slots;

/// Plants the bug that the environment names.
#[cfg(all(test, sapwood_loom, feature = "planted"))]
pub(crate) fn plant_from_environment() {
    if let Ok(name) = std::env::var("SAPWOOD_PLANTED") {
        sapwood_base::planted::plant(Bug::named(&name).expect("a bug of that name"));
    }
}

#[cfg(feature = "planted")]
mod switched {
    use super::*;
    use std::any::Any;
    use std::sync::{Mutex, Weak};

    type Shared = dyn Any + Send + Sync;

    /// Slots of tables, each with its cache.
    static SLOTS: Mutex<Vec<(Weak<Shared>, Box<Shared>)>> = Mutex::new(Vec::new());

    /// The slots of a new table of `cache`. With the bug, those of a table with as many blocks.
    pub(crate) fn own_slots<C, S>(cache: &Arc<C>, slots: Arc<[S]>) -> Arc<[S]>
    where
        C: Send + Sync + 'static,
        S: Send + Sync + 'static,
    {
        if !is(Bug::CacheKeyWithoutFile) {
            return slots;
        }
        let cache: Arc<Shared> = cache.clone();
        let mut known = SLOTS.lock().expect("nothing panics here");
        known.retain(|(cache, _)| cache.strong_count() > 0);
        let of_cache =
            known.iter().filter(|(other, _)| std::ptr::addr_eq(other.as_ptr(), Arc::as_ptr(&cache)));
        let mut of_cache = of_cache.filter_map(|(_, slots)| slots.downcast_ref::<Arc<[S]>>());
        if let Some(same) = of_cache.find(|other| other.len() == slots.len()) {
            return Arc::clone(same);
        }
        known.push((Arc::downgrade(&cache), Box::new(Arc::clone(&slots))));
        slots
    }
}
