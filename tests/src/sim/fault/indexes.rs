//! Secondary indexes of the workload with failing calls. After any failure, each index agrees with
//! its rows (O5), or is unavailable because its creation failed.
use super::{Over, Step, Workload};
use crate::harness::builder;
use crate::oracle::Map;
use crate::sim::driver::Stop;
use crate::sim::indexes::{self, index_name, index_number, options};
use sapwood::{DbBuilder, Keyspace, Snapshot};

/// The indexes of the default keyspace: a deferred one, one that reads before each write, and a
/// unique one.
const INDEXES: [u8; 3] = [0, 2, 3];
/// The index that is rebuilt, and the index that is dropped.
pub(super) const REBUILT: u8 = 0;
pub(super) const DROPPED: u8 = 3;

impl Workload {
    /// The builder of the database, with the code of its indexes.
    pub(super) fn builder(&self) -> DbBuilder {
        let builder = builder("db", &self.env);
        match self.has_indexes {
            true => INDEXES.iter().fold(builder, |builder, index| {
                builder.index("default", &index_name(*index), options(*index))
            }),
            false => builder,
        }
    }

    /// Creates all indexes.
    pub(super) fn make_indexes(&mut self) -> Result<Result<(), Over>, String> {
        if !self.has_indexes {
            return Ok(Ok(()));
        }
        for index in INDEXES {
            let made = self.db().default_keyspace().create_index(&index_name(index), options(index));
            if made.is_ok() {
                self.indexes.insert(index);
            }
            if self.outcome(made)?.is_err() {
                return Ok(Err(Over));
            }
        }
        Ok(Ok(()))
    }

    /// Rebuilds one of the indexes, if it exists. After a failure it may be missing.
    pub(super) fn rebuild_index(&mut self) -> Result<Result<(), Over>, String> {
        if !self.indexes.remove(&REBUILT) {
            return Ok(Ok(()));
        }
        let index = self.db().default_keyspace().index(&index_name(REBUILT));
        let rebuilt = index.and_then(|index| index.rebuild());
        if rebuilt.is_ok() {
            self.indexes.insert(REBUILT);
        }
        Ok(self.outcome(rebuilt)?.map(drop))
    }

    /// Drops one of the indexes, if it exists.
    pub(super) fn drop_index(&mut self) -> Result<Result<(), Over>, String> {
        if !self.indexes.remove(&DROPPED) {
            return Ok(Ok(()));
        }
        let dropped = self.db().default_keyspace().drop_index(&index_name(DROPPED));
        Ok(self.outcome(dropped)?.map(drop))
    }

    /// After an open: forgets the indexes that the device has lost silently.
    pub(super) fn forget_lost_indexes(&mut self) -> sapwood::Result<()> {
        if self.is_damaged() {
            let listed = self.db().default_keyspace().list_indexes()?;
            self.indexes.retain(|index| listed.contains(&index_name(*index)));
        }
        Ok(())
    }

    /// Compares every index with the rows of the database.
    pub(super) fn check_indexes(&mut self) -> Step {
        if !self.has_indexes {
            return Ok(());
        }
        let keyspace = self.db().default_keyspace();
        match crate::harness::contents(&keyspace) {
            Ok(rows) => self.compare_indexes(&keyspace, None, &rows),
            Err(error) => self.cause(&error),
        }
    }

    /// Compares every index with `rows`, those of `snapshot` if there is one.
    pub(super) fn compare_indexes(
        &mut self,
        keyspace: &Keyspace,
        snapshot: Option<&Snapshot>,
        rows: &Map,
    ) -> Step {
        if !self.has_indexes {
            return Ok(());
        }
        let listed = match keyspace.list_indexes() {
            Ok(names) => names.iter().filter_map(|name| index_number(name)).collect::<Vec<u8>>(),
            Err(error) => return self.cause(&error),
        };
        if let Some(missing) = self.indexes.iter().find(|index| !listed.contains(index)) {
            return Err(format!("O5: index {missing} is gone"));
        }
        for index in listed {
            // The index was dropped, and the device has lost the drop: as long as it is the last
            // edit of the MANIFEST, no later edit proves that it is missing. The index that comes
            // back misses all later rows.
            if self.is_damaged() && index == DROPPED && !self.indexes.contains(&index) {
                continue;
            }
            match indexes::compare(keyspace, index, snapshot, rows) {
                Ok(true) => {}
                // An index whose creation or drop failed need not be complete, nor cover earlier
                // states.
                Ok(false) if snapshot.is_some() || !self.indexes.contains(&index) => {}
                Ok(false) => return Err(format!("O5: index {index} is unavailable, though it is complete")),
                Err(Stop::Violation(what)) => return Err(what),
                Err(Stop::Error(error)) => self.cause(&error)?,
            }
        }
        Ok(())
    }
}
