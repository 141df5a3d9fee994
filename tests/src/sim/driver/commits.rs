//! The driver's commits, and the promises that their durability makes.
use super::{Driver, Observer, Outcome, violation};
use crate::oracle::{Change, Incarnation};
use crate::sim::indexes::needs_log;
use crate::sim::operation::Write;
use sapwood::{Durability, WriteOptions};
use std::sync::Arc;

impl Driver {
    pub(super) fn commit(
        &mut self,
        writes: &[Write],
        single: bool,
        durability: Durability,
        wait: bool,
        observer: &mut dyn Observer,
    ) -> Outcome {
        // A batch that fills memtables by itself leaves one to other writers.
        if self.paused && self.db().stats().memtables + 1 >= self.tuning.max_memtables {
            self.resume();
        }
        let mut changes = Vec::new();
        let mut targets = Vec::new();
        for write in writes {
            let Some((keyspace, space)) = self.keyspace(write.space)? else { continue };
            let value = write.value.map(|value| value.bytes().into());
            changes.push((space, write.key.clone(), value));
            targets.push(keyspace);
        }
        let options = WriteOptions { durability: Some(durability) };
        if changes.is_empty() {
            let _ = self.db().batch().commit_with(&options)?;
            return Ok(());
        }
        let bytes = |(_, key, value): &(_, Vec<u8>, Option<Arc<[u8]>>)| {
            (key.len() + value.as_ref().map_or(0, |value| value.len())) as u64
        };
        self.largest_batch = self.largest_batch.max(changes.iter().map(bytes).sum());
        let before = self.oracle.promise().sequence;
        self.oracle.submit(changes.clone(), self.logged(durability, &changes));
        self.moved(observer)?;
        let durable = durability == Durability::Sync;
        if single && changes.len() == 1 {
            let (_, key, value) = &changes[0];
            match value {
                Some(value) => targets[0].put_with(key, value, &options)?,
                None => targets[0].delete_with(key, &options)?,
            }
            self.oracle.acknowledge(durable, None);
            self.note_due(durability);
            self.moved(observer)?;
            if wait {
                self.db().sync()?;
                self.oracle.synced();
                self.moved(observer)?;
            }
            return Ok(());
        }
        let mut batch = self.db().batch();
        for (keyspace, (_, key, value)) in targets.iter().zip(&changes) {
            match value {
                Some(value) => batch.put(keyspace, key, value),
                None => batch.delete(keyspace, key),
            };
        }
        let commit = batch.commit_with(&options)?;
        let sequence = commit.sequence().0;
        if sequence <= before {
            return violation(format!("O14: sequence number {sequence} comes after {before}"));
        }
        self.oracle.acknowledge(durable, Some(sequence));
        self.note_due(durability);
        self.moved(observer)?;
        if wait {
            commit.wait_durable()?;
            self.oracle.synced();
            self.moved(observer)?;
        }
        Ok(())
    }

    /// The effective durability of these changes.
    pub(super) fn logged(&self, durability: Durability, changes: &[Change]) -> Durability {
        let needs_log = |space: Incarnation| {
            let indexes = self.oracle.promise().indexes.range((space, 0)..=(space, u8::MAX));
            indexes.into_iter().any(|(_, index)| needs_log(*index))
        };
        match durability {
            Durability::None if changes.iter().any(|(space, ..)| needs_log(*space)) => Durability::Buffered,
            _ => durability,
        }
    }
}
