//! Whether the database accepts calls: open, closed, poisoned, or out of space.
use super::core::Core;
use crate::background::pause::Call;
use crate::background::retries::FLUSH;
use crate::refusal::{closed, forked};
use sapwood_base::{Error, ErrorKind, Result};
use sapwood_storage::env::fork::FORKED;
use std::sync::atomic::Ordering;

pub(super) const OPEN: u8 = 0;
pub(super) const CLOSED: u8 = 1;
const POISONED: u8 = 2;

/// Whether the database takes writes.
///
/// There will be no fourth state, so a `match` can name all three; the errors may get more kinds.
#[derive(Clone, Debug)]
pub enum Health {
    /// All is well.
    Good,
    /// The disk is full; reads continue, writes resume when there is room. The error names the
    /// place.
    NoSpace(Error),
    /// An error closed the write path permanently; reopen the database.
    Poisoned(Error),
}

impl Core {
    #[inline]
    pub(crate) fn check_open(&self) -> Result<()> {
        // Relaxed: a call that races with `close` may go either way.
        if self.status.load(Ordering::Relaxed) & (CLOSED | FORKED) != 0 {
            return Err(self.refuse());
        }
        Ok(())
    }

    #[cold]
    fn refuse(&self) -> Error {
        if self.status.is_forked() { forked() } else { closed() }
    }

    #[inline]
    pub(crate) fn check_writable(&self) -> Result<()> {
        // Acquire: pairs with the Release in `poison`.
        if self.status.load(Ordering::Acquire) == OPEN && !self.options.read_only {
            return Ok(());
        }
        self.refuse_write()
    }

    /// After a commit was published: an error if an earlier failure poisoned the log.
    #[inline]
    pub(crate) fn check_not_gapped(&self) -> Result<()> {
        // Acquire: pairs with the Release in `poison`.
        if self.status.load(Ordering::Acquire) & POISONED == 0 {
            return Ok(());
        }
        self.check_not_poisoned()
    }

    #[cold]
    fn refuse_write(&self) -> Result<()> {
        self.check_open()?;
        self.check_not_poisoned()?;
        Err(Error::new(ErrorKind::ReadOnly, "the database was opened read-only"))
    }

    pub(crate) fn check_not_poisoned(&self) -> Result<()> {
        match &*self.poison.lock() {
            Some(cause) => {
                let message = format!("writes are closed after an error; reopen the database ({cause})");
                Err(Error::new(ErrorKind::Poisoned, message))
            }
            None => Ok(()),
        }
    }

    /// Closes the write path for good.
    #[cold]
    pub(crate) fn poison(&self, cause: &Error) {
        self.poison.lock().get_or_insert_with(|| cause.duplicate());
        // Release: pairs with the Acquire in `check_writable`.
        self.status.fetch_or(POISONED, Ordering::Release);
    }

    /// Closes the write path after an error of kind `Poisoned`, the kind of a failed sync of log,
    /// MANIFEST or directory.
    pub(crate) fn poison_if_final(&self, error: &Error) {
        if error.kind() == ErrorKind::Poisoned {
            self.poison(error);
        }
    }

    /// Notes that background work of the kind `what` met a full disk.
    pub(crate) fn report_no_space(&self, what: &'static str, error: Error) {
        let mut met = self.no_space.lock();
        met.retain(|(other, _)| *other != what);
        met.push((what, error));
    }

    /// Notes that background work of the kind `what` found room again, or has nothing to do. True
    /// if a full disk was noted.
    pub(crate) fn clear_no_space(&self, what: &'static str) -> bool {
        let mut met = self.no_space.lock();
        let before = met.len();
        met.retain(|(other, _)| *other != what);
        met.len() < before
    }

    /// Returns the error of a flush that met a full disk.
    pub(crate) fn check_flush_has_space(&self) -> Result<()> {
        self.check_has_space(&[FLUSH])
    }

    /// Returns the error of background work of these kinds that met a full disk.
    pub(crate) fn check_has_space(&self, kinds: &[&str]) -> Result<()> {
        match self.no_space.lock().iter().find(|(what, _)| kinds.contains(what)) {
            Some((_, error)) => Err(error.duplicate()),
            None => Ok(()),
        }
    }

    pub(crate) fn health(&self) -> Health {
        if self.status.is_forked() {
            return Health::Poisoned(forked());
        }
        if let Some(error) = &*self.poison.lock() {
            return Health::Poisoned(error.duplicate());
        }
        match self.no_space.lock().first() {
            Some((_, error)) => Health::NoSpace(error.duplicate()),
            None => Health::Good,
        }
    }

    /// Begins a call that writes files from the caller's thread, or waits for such calls. A close
    /// waits for it. With `needs_work`, the call needs flushes and compactions.
    ///
    /// Errors: `Closed` in a forked child, where another thread may have held any lock at the fork.
    pub(crate) fn enter(&self, needs_work: bool) -> Result<Call<'_>> {
        if self.status.is_forked() {
            return Err(forked());
        }
        self.background.enter(&self.options.env, needs_work)
    }

    /// Ends one pause of background work.
    pub(crate) fn resume(&self) {
        // A forked child has no background work, and the lock may have been held at the fork.
        if !self.status.is_forked() {
            self.background.resume();
        }
    }

    /// Whether this process is a child that was forked since the database was opened.
    pub(crate) fn is_forked(&self) -> bool {
        self.status.is_forked()
    }
}
