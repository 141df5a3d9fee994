//! How the log of a database becomes durable. A failed sync closes the write path.
use super::core::Core;
use sapwood_base::format::manifest::Edit;
use sapwood_base::{Error, Result};
use std::collections::HashMap;

impl Core {
    /// Waits until everything below `position` survives a power loss.
    pub(crate) fn wait_durable(&self, position: u64) -> Result<()> {
        self.wal.wait_durable(position, &|error| self.poison(error), &|| self.check_not_poisoned(), true)
    }

    /// Makes everything published survive a power loss, without allocating a segment on the way.
    pub(crate) fn sync_by_the_clock(&self) -> Result<()> {
        let (poison, check) = (|error: &Error| self.poison(error), || self.check_not_poisoned());
        self.wal.wait_durable(self.wal.published(), &poison, &check, false)
    }

    /// Syncs the log that recovery has replayed, unless that is done, and records it in the
    /// MANIFEST. False if there was nothing to do.
    pub(crate) fn sync_replayed(&self) -> Result<bool> {
        if self.options.read_only || !self.wal.claim_replayed() {
            return Ok(false);
        }
        // Syncs up to the published position, so that an observer of the step knows what it made
        // durable.
        self.wait_durable(self.wal.published())?;
        if let Some(manifest) = self.manifest.lock().as_mut() {
            let edits = vec![Edit::LogSynced(self.wal.base())];
            match self.append(manifest, edits, &HashMap::new()) {
                // Without the edit, the next open takes damage there for a tear.
                Err(error) if error.is_scarcity() => {}
                result => result?,
            }
        }
        Ok(true)
    }
}
