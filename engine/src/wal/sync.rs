//! Syncs of the log, one at a time: by a leader, for all who wait meanwhile.
use super::bodies::Bodies;
use super::reader::FoundSegment;
use super::segments::Segments;
use crate::planted;
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_storage::sync::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, Ordering};

/// The syncs of one log.
pub(super) struct GroupSync {
    state: Mutex<State>,
    /// Notified at the end of a sync.
    ended: Condvar,
    pub(super) bodies: Mutex<Bodies>,
    /// Segments of earlier sessions, which the first sync covers before everything of this one.
    replayed: Mutex<Vec<FoundSegment>>,
    /// Set once a caller has claimed their sync.
    replayed_claimed: AtomicBool,
}

#[derive(Default)]
struct State {
    has_leader: bool,
    /// Set when the log is closed: no further sync begins.
    closed: bool,
}

impl GroupSync {
    /// The syncs of a log; `replayed` are the segments of earlier sessions that are not durable.
    pub(super) fn new(replayed: Vec<FoundSegment>) -> GroupSync {
        GroupSync {
            state: Mutex::default(),
            ended: Condvar::new(),
            bodies: Mutex::default(),
            replayed_claimed: AtomicBool::new(replayed.is_empty()),
            replayed: Mutex::new(replayed),
        }
    }

    /// Whether the log of earlier sessions must be synced, and the caller is the first to claim
    /// that.
    pub(super) fn claim_replayed(&self) -> bool {
        // Relaxed: only one caller may claim it; nothing else depends on it.
        !self.replayed_claimed.load(Ordering::Relaxed) && !self.replayed_claimed.swap(true, Ordering::Relaxed)
    }

    /// True if the caller leads the next sync, and must end it. Otherwise waits for the end of
    /// another thread's sync, or finds that everything below `position` is durable.
    pub(super) fn lead_or_follow(&self, position: u64, segments: &Segments) -> Result<bool> {
        let mut state = self.state.lock();
        if segments.durable() >= position {
            return Ok(false);
        }
        if state.closed {
            let message = "the database was closed before the commit was durable";
            return Err(Error::new(ErrorKind::Closed, message));
        }
        if state.has_leader {
            self.ended.wait(&mut state);
            return Ok(false);
        }
        state.has_leader = true;
        Ok(true)
    }

    /// Ends the caller's sync: `note` records its outcome before another thread can lead.
    pub(super) fn end(&self, note: impl FnOnce()) {
        let mut state = self.state.lock();
        state.has_leader = false;
        note();
        if planted::leader_wakes_followers() {
            self.ended.notify_all();
        }
    }

    /// Notes that everything below `position` is in tables, which are durable.
    pub(super) fn set_durable(&self, position: u64, segments: &Segments) {
        let _state = self.state.lock();
        segments.note_durable(position);
        self.ended.notify_all();
    }

    /// Waits for a sync under way; none begins afterwards.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        while state.has_leader {
            self.ended.wait(&mut state);
        }
        drop(state);
        self.ended.notify_all();
    }

    /// Closes the segments of earlier sessions.
    pub(super) fn drop_replayed(&self) {
        self.replayed.lock().clear();
    }

    /// Syncs all log below `to`, oldest first.
    pub(super) fn sync_up_to(&self, to: u64, segments: &Segments) -> Result<()> {
        if to == segments.base || planted::syncs_cover_replayed_log() {
            self.sync_replayed(segments)?;
        }
        let from = segments.durable().max(segments.base);
        let late = self.bodies.lock().late(from, to);
        for body in &late {
            segments.sync(body.start, body.end.min(from))?;
        }
        segments.sync(from, to)?;
        self.bodies.lock().forget(to);
        Ok(())
    }

    /// Syncs the log of earlier sessions. Nothing of this one may be called durable before: the
    /// next open would find it after a tear, and discard it.
    fn sync_replayed(&self, segments: &Segments) -> Result<()> {
        let mut replayed = self.replayed.lock();
        for segment in replayed.drain(..).filter(|_| planted::replayed_log_is_synced()) {
            // A segment that was recycled since is in tables, which were synced.
            if segments.retains(segment.number) {
                segment.file.sync_data()?;
            }
        }
        Ok(())
    }
}
