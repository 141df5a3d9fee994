//! A callback before and after every changing call, which can copy the file system at that moment.
use super::SimFs;
use super::operation::Operation;
use super::world::{Call, World};
use std::fmt;
use std::path::Path;

/// The moment just before or just after a changing call.
pub struct Moment<'w> {
    /// The number of the call, as [`SimFs::operations`] counts and [`SimFs::crash_at`] takes it.
    pub number: u64,
    /// The kind of call.
    pub operation: Operation,
    /// The changed path; for a renaming the old name, for a link the new one.
    pub path: &'w Path,
    /// The other name: for a renaming the new one, for a link the old one.
    pub other: Option<&'w Path>,
    /// Whether the call has been executed. Before that, a file to be removed is still there.
    pub after: bool,
    /// After the call: whether it has failed. Even then it may have changed something.
    pub failed: bool,
    world: &'w World,
}

impl SimFs {
    /// Has `watcher` called before and after every changing call from now on, in the thread that
    /// makes the call, while the file system stands still. Replaces the previous one. Of the file
    /// system it must use nothing but [`Moment::image`]: other calls would deadlock.
    pub fn watch(&self, mut watcher: impl FnMut(&Moment<'_>) + Send + 'static) {
        let watcher = move |call: &Call<'_>, world: &World| {
            let Call { number, operation, path, other, after, failed } = *call;
            watcher(&Moment { number, operation, path, other, after, failed, world });
        };
        self.world.lock().watcher = Some(Box::new(watcher));
    }

    /// Ends [`SimFs::watch`].
    pub fn unwatch(&self) {
        let watcher = self.world.lock().watcher.take();
        // It may own this file system.
        drop(watcher);
    }
}

impl Moment<'_> {
    /// The whole file system at this moment, as an independent copy: with everything that is not
    /// durable yet, without locks, handles, watcher and faults. It shares its bytes with the
    /// original until either changes them, so it costs about one reference count per file. Take
    /// crashes from it, now or later, in this thread or another.
    pub fn image(&self) -> SimFs {
        SimFs::of(self.world.killed())
    }
}

impl fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.after { "after" } else { "before" };
        write!(f, "{side} operation {}: {} {}", self.number, self.operation, self.path.display())
    }
}
