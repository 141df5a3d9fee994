//! Pauses, and the work and the calls that they stop.
//!
//! Flushes, compactions and removals of files begin and end here, so a pause knows which of them
//! are under way, and waits for them. Calls that need background work, or that a close has to wait
//! for, are counted here as well.
use super::state::Background;
use crate::planted;
use crate::refusal::closed;
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_storage::env::Env;
use std::thread::ThreadId;
use std::time::Duration;

/// How long writes, and calls that need background work, wait for the end of a pause that is in
/// effect. It is once no work is under way: until then the wait is for that work.
const PAUSE_BORNE: Duration = Duration::from_millis(500);
/// Interval at which such a call checks whether the pause is over.
const PAUSE_LOOK: Duration = Duration::from_millis(1);

/// A call that is under way, see [`Background::enter`].
pub(crate) struct Call<'a> {
    background: &'a Background,
    /// The thread that began it; another one may end it.
    thread: ThreadId,
}

impl Background {
    /// Begins a call that works on the database from a user's thread: it writes files, or waits for
    /// other threads to. A close waits until no such call is left. With `needs_work`, the call
    /// needs flushes and compactions.
    ///
    /// A call that needs work waits for the end of a short pause of another thread. A long pause
    /// may be that of its own caller, on any thread.
    ///
    /// Errors: `Closed` once a close has begun; `Paused` if a pause would make the call wait for
    /// long.
    pub(crate) fn enter(&self, env: &Env, needs_work: bool) -> Result<Call<'_>> {
        let thread = std::thread::current().id();
        let mut since = None;
        let mut state = self.state.lock();
        while needs_work && !state.closing && !state.paused.is_empty() {
            let now = env.now();
            if !state.workers.is_empty() {
                since = None;
            }
            let has_waited = now.saturating_sub(*since.get_or_insert(now));
            if !env.starts_threads() || state.paused.contains(&thread) || has_waited >= PAUSE_BORNE {
                return Err(paused());
            }
            drop(state);
            env.sleep(PAUSE_LOOK);
            state = self.state.lock();
        }
        if state.closing {
            return Err(closed());
        }
        state.callers.push(thread);
        Ok(Call { background: self, thread })
    }

    /// Refuses a call that would wait for its own caller: a call from user code that the database
    /// runs, such as the extractor of an index, within work that the call has to wait for.
    pub(crate) fn refuse_inside(&self, what: &str) -> Result<()> {
        let this = std::thread::current().id();
        let state = self.state.lock();
        let is_thread = || self.threads.lock().iter().any(|thread| thread.thread().id() == this);
        if state.callers.contains(&this) || state.workers.contains(&this) || is_thread() {
            let message =
                format!("{what} waits for the call that runs this code; call it after that has returned");
            return Err(Error::invalid_argument(message));
        }
        Ok(())
    }

    /// Waits until no call of [`Background::enter`] is left. REQUIRES: the database is shut down,
    /// so that they end.
    pub(crate) fn wait_for_calls(&self) {
        let mut state = self.state.lock();
        while !state.callers.is_empty() {
            self.changed.wait(&mut state);
        }
    }

    /// Stops new flushes and compactions, and waits for those under way, up to the end of their
    /// present slice.
    pub(crate) fn pause(&self) -> Result<()> {
        self.refuse_inside("pause_background")?;
        let mut state = self.state.lock();
        if state.closing {
            return Err(closed());
        }
        state.paused.push(std::thread::current().id());
        while !state.workers.is_empty() && !state.shutdown {
            self.changed.wait(&mut state);
        }
        Ok(())
    }

    /// Ends one `pause`.
    pub(crate) fn resume(&self) {
        let mut state = self.state.lock();
        let this = std::thread::current().id();
        let own = state.paused.iter().rposition(|thread| *thread == this);
        if let Some(place) = own.or(state.paused.len().checked_sub(1)) {
            state.paused.swap_remove(place);
        }
        if state.paused.is_empty() {
            state.writes_paused_since = None;
        }
        self.notify_all();
    }

    /// Ends every `pause`, including future ones: the database is closing.
    pub(crate) fn resume_for_good(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        state.paused.clear();
        self.notify_all();
    }

    /// Errors: `Paused` while flushes and compactions are stopped, for a write that waits for one.
    /// The write waits for the end of a short pause; a long one may be that of its own caller.
    pub(crate) fn check_not_paused(&self, now: Duration) -> Result<()> {
        let mut state = self.state.lock();
        if state.paused.is_empty() || !planted::pause_ends_waits() {
            return Ok(());
        }
        if !state.workers.is_empty() {
            state.writes_paused_since = None;
            return Ok(());
        }
        let since = *state.writes_paused_since.get_or_insert(now);
        if now.saturating_sub(since) < PAUSE_BORNE {
            return Ok(());
        }
        let message = "background work is paused and every memtable is full; resume_background makes room for the write";
        Err(Error::new(ErrorKind::Paused, message))
    }

    /// Begins a flush or a compaction; false while none may run.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.state.lock();
        if state.shutdown || !state.paused.is_empty() {
            return false;
        }
        state.workers.push(std::thread::current().id());
        true
    }

    /// Begins the removal of a file, after the end of a pause.
    pub(super) fn begin_removal(&self) {
        let mut state = self.state.lock();
        while !state.paused.is_empty() {
            self.changed.wait(&mut state);
        }
        state.workers.push(std::thread::current().id());
    }

    /// [`Background::begin`] for a call that does such work itself: it waits for the end of a pause
    /// that began after the call. Errors: `Closed`; no work has begun then.
    pub(super) fn begin_call_work(&self) -> Result<()> {
        let mut state = self.state.lock();
        while !state.paused.is_empty() && !state.shutdown {
            self.changed.wait(&mut state);
        }
        if state.shutdown {
            return Err(closed());
        }
        state.workers.push(std::thread::current().id());
        Ok(())
    }

    /// Between two slices of such work: lets a pause take effect, and resumes after it.
    pub(crate) fn wait_while_paused(&self) -> Result<()> {
        if !self.should_yield() {
            return Ok(());
        }
        self.end();
        let begun = self.begin_call_work();
        if begun.is_err() {
            // The caller still ends the work that it has begun.
            self.state.lock().workers.push(std::thread::current().id());
        }
        begun
    }

    /// Ends the work that [`Background::begin`] began on this thread.
    pub(crate) fn end(&self) {
        remove_one(&mut self.state.lock().workers, std::thread::current().id());
        self.changed.notify_all();
    }

    /// Whether a flush or a compaction is under way.
    pub(super) fn is_running(&self) -> bool {
        !self.state.lock().workers.is_empty()
    }

    pub(super) fn is_paused(&self) -> bool {
        !self.state.lock().paused.is_empty()
    }

    /// Whether work must stop between two slices.
    pub(crate) fn should_yield(&self) -> bool {
        let state = self.state.lock();
        state.shutdown || !state.paused.is_empty()
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        remove_one(&mut self.background.state.lock().callers, self.thread);
        self.background.changed.notify_all();
    }
}

/// Removes one piece of work of a thread from a list.
fn remove_one(threads: &mut Vec<ThreadId>, thread: ThreadId) {
    let place = threads.iter().position(|other| *other == thread);
    threads.swap_remove(place.expect("what ends has begun"));
}

#[cold]
fn paused() -> Error {
    let message = "background work is paused, and this call would wait for it; resume_background first";
    Error::new(ErrorKind::Paused, message)
}
