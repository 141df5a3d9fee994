//! The holders of the log: parts that must not be recycled, although their operations are in
//! tables.
//!
//! Memtables hold the log from the start of the oldest one, which the MANIFEST records. Every other
//! reader or writer of an older part takes a [`Hold`]: today a body that is being written; a change
//! stream, an archive or a prepared transaction can do the same. The log is recycled below the
//! lowest position of all of them.
use crate::planted;
use sapwood_storage::sync::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The holders of one log.
#[derive(Default)]
pub(crate) struct Retention {
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    next: u64,
    /// By holder.
    positions: BTreeMap<u64, u64>,
}

/// Keeps the log from a position on until it is dropped.
pub(crate) struct Hold {
    retention: Arc<Retention>,
    holder: u64,
}

impl Retention {
    /// Holds the log from `position` on. REQUIRES: the log at `position` has not been recycled, and
    /// is not meanwhile.
    pub(crate) fn hold(self: &Arc<Retention>, position: u64) -> Hold {
        let mut holders = self.holders.lock();
        let holder = holders.next;
        holders.next += 1;
        holders.positions.insert(holder, position);
        drop(holders);
        Hold { retention: self.clone(), holder }
    }

    /// The position up to which the log can be recycled if memtables need nothing below `position`.
    pub(crate) fn release(&self, position: u64) -> u64 {
        let holders = self.holders.lock();
        let held = holders.positions.values().filter(|_| planted::holders_count());
        held.fold(position, |least, held| least.min(*held))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.retention.holders.lock().positions.remove(&self.holder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_holder_decides_until_it_is_dropped() {
        let retention = Arc::new(Retention::default());
        assert_eq!(retention.release(100), 100);
        let (low, high, same) = (retention.hold(10), retention.hold(70), retention.hold(10));
        assert_eq!((retention.release(100), retention.release(5)), (10, 5));
        drop(low);
        assert_eq!(retention.release(100), 10);
        drop(same);
        assert_eq!((retention.release(100), retention.release(60)), (70, 60));
        drop(high);
        assert_eq!(retention.release(100), 100);
    }
}
