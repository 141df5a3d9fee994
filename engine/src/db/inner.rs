//! The part of a database that its handles own together.
use crate::runtime::Core;
use std::sync::Arc;

/// State shared by all handles. Dropping the last one closes the database.
pub(crate) struct DbInner {
    pub(crate) core: Arc<Core>,
}

impl Drop for DbInner {
    fn drop(&mut self) {
        // Errors are discarded here; `close` returns them.
        let closed = self.core.close();
        if closed.is_err() && self.core.is_forked() {
            // The resources belong to the parent: in the child no lock is sure to be free, and no
            // thread ends.
            std::mem::forget(Arc::clone(&self.core));
        }
    }
}
