//! The end of a session.
use super::core::Core;
use super::health::CLOSED;
use crate::background::{self, compactions, sweep};
use crate::manifest::log_start;
use crate::planted;
use crate::read::view::{Generation, View};
use crate::refusal::forked;
use sapwood_base::Result;
use sapwood_base::format::manifest::Edit;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Turns of the collector of replaced views at a close.
const RELEASE_TURNS: usize = 1024;

impl Core {
    /// Flushes, ends all work, and releases all resources, the lock last.
    ///
    /// In a forked child it only closes the child's copies of the locked files, and leaves the rest
    /// to the parent.
    pub(crate) fn close(&self) -> Result<()> {
        if self.status.is_forked() {
            if let Some(mut lock) = self.lock.try_lock() {
                lock.take();
            }
            return Err(forked());
        }
        self.background.refuse_inside("close")?;
        let mut closing = self.closing.lock();
        if std::mem::replace(&mut *closing, true) {
            return Ok(());
        }
        // From here on no call begins, and nothing is paused.
        self.background.resume_for_good();
        let result = match self.options.read_only {
            true => Ok(()),
            false => {
                // The flush makes writes of a lesser durability durable. If it fails, the log is
                // synced, so that the next open finds everything. A replayed log need not be
                // synced: tables will replace it.
                self.wal.claim_replayed();
                match self.flush() {
                    Ok(()) => {
                        compactions::finish_small_compactions(self);
                        // Errors of these compactions are reported like those of the flush, because
                        // this is the last chance.
                        self.check_not_poisoned()
                    }
                    Err(error) => self.wait_durable(self.wal.published()).and(Err(error)),
                }
            }
        };
        self.end(result.is_ok());
        result
    }

    /// Ends an open that has failed halfway: recovered data stays in the log, and nothing is
    /// written.
    pub(crate) fn abandon(&self) {
        let mut closing = self.closing.lock();
        if !std::mem::replace(&mut *closing, true) {
            self.background.resume_for_good();
            self.end(false);
        }
    }

    /// Ends all work, and releases all resources. `flushed`: everything published is in tables.
    fn end(&self, flushed: bool) {
        self.status.fetch_or(CLOSED, Ordering::Release);
        // Not in the middle of a rotation, which relies on the room that the seal takes.
        let sealed = (!self.options.read_only).then(|| {
            let _rotating = self.rotating.lock();
            self.wal.seal()
        });
        background::shut_down(self);
        // Calls under way fail by now: the status is closed, and no background work serves them any
        // more.
        if planted::close_waits_for_calls() {
            self.background.wait_for_calls();
        }
        if let Some(sealed) = sealed {
            let end = sealed.position;
            let is_empty = |generation: &Arc<Generation>| generation.memtable.is_empty();
            let all_in_tables = flushed
                && self.view.reference().generations.iter().all(is_empty)
                && self.check_not_poisoned().is_ok();
            if all_in_tables {
                self.wal.set_durable(end);
            } else if flushed {
                // Commits between the flush and the seal, some of which may wait for a sync.
                let _ = self.wait_durable(self.wal.published());
            }
            // A large payload is copied into a place that is published. Its commit finds no other
            // place any more.
            drop(self.large_commit.lock());
            self.wal.close();
            if all_in_tables
                && let Some(manifest) = self.manifest.lock().as_mut()
                && !manifest.says_all_of(sealed)
            {
                // With empty memtables, the next open need not read the log at all. This only
                // saves time; without the edit the log is read.
                let [start, commits] = log_start(sealed);
                let _ = manifest.append(vec![start, commits, Edit::LogOpened(end)], &HashMap::new());
            }
        }
        self.manifest.lock().take();
        self.fixed_state.lock().take();
        // Readers continue with what they retain. A file opened from here on could be another
        // session's.
        self.fs.end_opening();
        // Memtables and tables are freed with the last view, unless a cursor or a read under way
        // holds an older one.
        drop(self.change_view(|_| View::closed()));
        self.view.release_retired(RELEASE_TURNS);
        // Handles may live for long; all their calls return errors by now and need no memory.
        // (Blocks are freed with the last handle: evicted before, they would wait for readers of
        // other databases.)
        self.arenas.trim(0);
        // Removes tables released by the last versions now rather than at the next open.
        sweep::remove_obsolete(self);
        self.lock.lock().take();
        self.running.lock().take();
    }
}
