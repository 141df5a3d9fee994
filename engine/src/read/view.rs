//! The consistent view that a read pins: memtable generations and the version of every keyspace.
//! Other engines call it a super version or a read state.
//!
//! A get pins the current epoch and borrows the view: no reference count is touched. A cursor takes
//! a reference. The view must be loaded before the sequence number to read at: then every operation
//! that this number sees is in the view, or was written after the read began.
use super::keyspace_views::{KeyspaceView, KeyspaceViews};
use crate::planted;
use crate::refusal::closed;
use crate::sync::step;
use crate::wal::commit_ring::{LogPoint, StartPosition};
use crossbeam_epoch::{Atomic, Guard, Shared};
use sapwood_base::{KeyspaceId, Result};
use sapwood_memtable::Memtable;
use sapwood_storage::sync::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A memtable and the range of log that it holds.
pub(crate) struct Generation {
    pub(crate) memtable: Arc<Memtable>,
    /// First position that belongs here.
    start: StartPosition,
}

impl Generation {
    /// A generation from `start` on.
    pub(crate) fn new(memtable: Arc<Memtable>, start: LogPoint) -> Arc<Generation> {
        Arc::new(Generation { memtable, start: StartPosition::at(start) })
    }

    /// A generation whose start is set later.
    pub(crate) fn pending(memtable: Arc<Memtable>) -> Arc<Generation> {
        Arc::new(Generation { memtable, start: StartPosition::pending() })
    }

    /// Sets the start of a pending generation.
    pub(crate) fn begin(&self, start: LogPoint) {
        self.start.set(start);
    }

    /// The first position that belongs here.
    #[inline]
    pub(crate) fn start(&self) -> u64 {
        self.start.get()
    }

    /// That position, with the number of commits before it.
    pub(crate) fn start_point(&self) -> LogPoint {
        self.start.point()
    }
}

/// One state of all memtables and keyspaces. It does not change; the next one replaces it.
pub(crate) struct View {
    /// Newest first; the first takes the writes. None once the database is closed.
    pub(crate) generations: Vec<Arc<Generation>>,
    /// Those that were not dropped.
    pub(crate) keyspaces: KeyspaceViews,
}

impl View {
    /// The view of a closed database: it is empty.
    pub(crate) fn closed() -> View {
        View { generations: Vec::new(), keyspaces: KeyspaceViews::default() }
    }

    /// The generation that accepts writes.
    ///
    /// Errors: `Closed` in the view of a closed database.
    #[inline]
    pub(crate) fn active(&self) -> Result<&Arc<Generation>> {
        self.generations.first().ok_or_else(closed)
    }

    /// The generation that a log position belongs to.
    #[inline]
    pub(crate) fn generation_of(&self, position: u64) -> &Arc<Generation> {
        self.generations
            .iter()
            .find(|generation| generation.start() <= position)
            .expect("an unpublished position belongs to a generation that is not flushed")
    }

    /// Marks in a new memtable the keyspaces that are written rather than read: those of indexes,
    /// unless a reader has read them in the memtable before.
    pub(crate) fn expect_appends(&self, memtable: &Memtable, before: Option<&Memtable>) -> Result<()> {
        for space in self.keyspaces.iter().filter(|space| space.index.is_some()) {
            let id = space.state.id;
            if before.is_none_or(|before| !before.was_read(id)) {
                memtable.expect_appends(id)?;
            }
        }
        Ok(())
    }

    /// A keyspace, unless it was dropped.
    #[inline]
    pub(crate) fn keyspace(&self, id: KeyspaceId) -> Option<&Arc<KeyspaceView>> {
        self.keyspaces.get(id)
    }
}

/// A view that covers the log below a position: it has every keyspace and index that an operation
/// below was written to, unless that was dropped since.
///
/// A keyspace is in the view before its first handle exists. So a view has the keyspaces of
/// everything that was published when it was loaded, and may lack those of everything later. A
/// caller that interprets the rows of a memtable must therefore load the view *after* these rows
/// were published: in an older view, a keyspace that was created meanwhile is indistinguishable
/// from a dropped one, and its rows would be lost.
/// [`Core::view_covering`](crate::runtime::Core::view_covering) is the only way to obtain one.
pub(crate) struct CoveringView {
    view: Arc<View>,
}

impl CoveringView {
    /// REQUIRES: `view` was loaded when the log had been published up to the position that it is to
    /// cover.
    pub(crate) fn new(view: Arc<View>) -> CoveringView {
        CoveringView { view }
    }

    /// The keyspaces with rows in `memtable`, in the order of their numbers; without those that
    /// were dropped. REQUIRES: the memtable holds nothing from the covered position on.
    pub(crate) fn keyspaces_in<'v>(
        &'v self,
        memtable: &'v Memtable,
    ) -> impl Iterator<Item = &'v Arc<KeyspaceView>> {
        memtable.keyspaces().filter_map(|id| self.view.keyspace(id))
    }

    /// A keyspace, unless it was dropped.
    pub(crate) fn keyspace(&self, id: KeyspaceId) -> Option<&Arc<KeyspaceView>> {
        self.view.keyspace(id)
    }
}

/// A replaced view. It is released when this is dropped, or later.
///
/// Releasing views may free memtables and tables, which takes time: do not drop this where other
/// threads wait.
#[must_use = "replaced views are released when this is dropped, so it says when"]
pub(crate) struct Replaced(());

impl Drop for Replaced {
    fn drop(&mut self) {
        crossbeam_epoch::pin().flush();
    }
}

/// The cell of the current view.
pub(crate) struct ViewCell {
    current: Atomic<View>,
    retired: Arc<Retired>,
}

/// Replaced views that a reader may still be borrowing. The cell owns them; the functions deferred
/// to the end of an epoch refer to them weakly. So they are freed with the cell, from which no
/// reader borrows by then, even if another database is being read in the same epoch, or the thread
/// that replaced them does not run the collector again.
#[derive(Default)]
struct Retired {
    count: AtomicUsize,
    /// By the address of each.
    views: Mutex<HashMap<usize, Arc<View>>>,
}

/// A view that was current when it was loaded, for as long as the epoch is pinned and the cell
/// exists.
///
/// Invariant: the pointer comes from `Arc::into_raw`, and the cell keeps one count of it meanwhile.
/// The cell releases the count of a replaced view only after every guard of that time is gone, or
/// when the cell is dropped.
#[derive(Clone, Copy)]
pub(crate) struct Borrowed<'g>(Shared<'g, View>);

impl<'g> Borrowed<'g> {
    /// The view.
    #[inline]
    pub(crate) fn view(self) -> &'g View {
        // SAFETY: by the invariant the view is there, and it is not changed once it is in the cell.
        unsafe { self.0.deref() }
    }

    /// A reference to the view, which may have been replaced meanwhile.
    #[inline]
    pub(crate) fn reference(self) -> Arc<View> {
        let pointer = self.0.as_raw();
        // SAFETY: the pointer came from `Arc::into_raw`, and by the invariant the count is at least
        // one here.
        unsafe {
            Arc::increment_strong_count(pointer);
            Arc::from_raw(pointer)
        }
    }
}

impl ViewCell {
    /// A cell that holds `view`.
    pub(crate) fn new(view: View) -> ViewCell {
        let cell = ViewCell { current: Atomic::null(), retired: Arc::default() };
        // Release: pairs with the Acquire in `load`.
        cell.current.store(Shared::from(Arc::into_raw(Arc::new(view))), Ordering::Release);
        cell
    }

    /// The current view, for as long as the epoch is pinned.
    #[inline]
    pub(crate) fn load<'g>(&'g self, guard: &'g Guard) -> &'g View {
        self.borrow(guard).view()
    }

    /// The same; a reference can be taken from it later.
    #[inline]
    pub(crate) fn borrow<'g>(&'g self, guard: &'g Guard) -> Borrowed<'g> {
        Borrowed(self.current.load(Ordering::Acquire, guard))
    }

    /// A reference to the current view.
    pub(crate) fn reference(&self) -> Arc<View> {
        step();
        self.reference_under(&crossbeam_epoch::pin())
    }

    #[inline]
    fn reference_under(&self, guard: &Guard) -> Arc<View> {
        self.borrow(guard).reference()
    }

    /// A reference to the current view, the result of `read` called after the load, and whether the
    /// view is still the current one after `read`: see [`ViewCell::is_current`]. All of it
    /// under one pin.
    #[inline]
    pub(crate) fn reference_around<T>(&self, read: impl FnOnce() -> T) -> (Arc<View>, T, bool) {
        step();
        let guard = crossbeam_epoch::pin();
        let view = self.reference_under(&guard);
        let value = read();
        step();
        let is_current = self.is_current_under(&view, &guard);
        (view, value, is_current)
    }

    /// Whether `view` is still the current one. If it is after the reading of a sequence number,
    /// the view has all that this number sees; if not, it may lack operations written after a
    /// rotation meanwhile.
    pub(crate) fn is_current(&self, view: &Arc<View>) -> bool {
        step();
        self.is_current_under(view, &crossbeam_epoch::pin())
    }

    #[inline]
    fn is_current_under(&self, view: &Arc<View>, guard: &Guard) -> bool {
        std::ptr::eq(self.current.load(Ordering::Acquire, guard).as_raw(), Arc::as_ptr(view))
    }

    /// Replaces the view. REQUIRES: callers exclude each other.
    pub(crate) fn replace(&self, view: View) -> Replaced {
        step();
        let guard = crossbeam_epoch::pin();
        let new = Shared::from(Arc::into_raw(Arc::new(view)));
        // AcqRel: publishes the new view; pairs with the Acquire in `load`.
        let old = self.current.swap(new, Ordering::AcqRel, &guard);
        // SAFETY: the old pointer came from `Arc::into_raw` and is no longer in the cell, whose
        // count this takes over.
        let old = unsafe { Arc::from_raw(old.as_raw()) };
        let address = Arc::as_ptr(&old) as usize;
        // Relaxed: a counter, read by `release_retired`.
        self.retired.count.fetch_add(1, Ordering::Relaxed);
        self.retired.views.lock().insert(address, old);
        let retired = planted::weakly(&self.retired);
        guard.defer(move || {
            if let Some(retired) = retired() {
                retired.release(address);
            }
        });
        Replaced(())
    }

    /// Releases the replaced views that no reader can be borrowing any more, in at most so many
    /// turns of the collector. All databases of a process share the collector, so a turn may be
    /// spent on garbage of another one.
    pub(crate) fn release_retired(&self, turns: usize) {
        for _ in 0..turns {
            if self.retired.count.load(Ordering::Relaxed) == 0 {
                return;
            }
            crossbeam_epoch::pin().flush();
        }
    }
}

impl Retired {
    /// Releases a view. Called once every guard that could have loaded it is gone.
    fn release(&self, address: usize) {
        let view = self.views.lock().remove(&address);
        // Memtables and tables may go with it, which takes long, so it happens outside the lock.
        drop(view);
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ViewCell {
    fn drop(&mut self) {
        // SAFETY: no other thread can reach the cell any more.
        unsafe {
            let guard = crossbeam_epoch::unprotected();
            drop(Arc::from_raw(self.current.load(Ordering::Acquire, guard).as_raw()));
        }
    }
}
