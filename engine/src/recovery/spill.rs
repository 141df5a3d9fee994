//! Recovery of a log that exceeds the memtables: the flush makes room for the rest of it.
//!
//! The log may exceed the settings because they were different when it was written, or because its
//! records take more room in a memtable than on disk.
use super::{MemtableSource, Rest};
use crate::read::view::View;
use crate::runtime::Core;
use sapwood_base::Result;
use std::sync::atomic::Ordering;

impl Core {
    /// Replays `rest` into memtables, in parts of as many as are allowed. REQUIRES: background work
    /// has begun, indexes have their extractors, and no call can see the database.
    ///
    /// If the flush cannot work, for want of room or after an error, the rest is held in memory: an
    /// open does not fail for that.
    pub(crate) fn replay_rest(&self, mut rest: Rest) -> Result<()> {
        let state = self.manifest_state(|state| state.clone());
        loop {
            let source = MemtableSource {
                arenas: &self.arenas,
                memtable_bytes: self.options.memtable_bytes,
                most: self.wait_for_free_memtables(),
                first_memtable: self.next_memtable.load(Ordering::Relaxed),
                env: self.options.env.allows_pools().then_some(&self.options.env),
            };
            let Some(generations) = rest.replay(&source, state.clone())? else { break };
            self.next_memtable.fetch_add(generations.len() as u64, Ordering::Relaxed);
            let _replaced = self.change_view(|view| View {
                generations: generations.iter().rev().chain(&view.generations).cloned().collect(),
                keyspaces: view.keyspaces.clone(),
            });
            self.background.wake_flush();
        }
        let view = self.view.reference();
        view.expect_appends(&view.active()?.memtable, None)
    }

    /// Number of memtables that may be created, at least one.
    fn wait_for_free_memtables(&self) -> usize {
        let most = self.options.advanced.max_memtables;
        loop {
            let used = self.view.reference().generations.len();
            let can_flush = self.check_flush_has_space().and_then(|()| self.check_not_poisoned()).is_ok();
            if used < most || !can_flush {
                return most.saturating_sub(used).max(1);
            }
            self.background.wake_flush();
            self.give_way();
        }
    }
}
