//! Long runs of deletions and of versions, and their space.
use super::{Driver, Observer, Outcome, violation};
use crate::sim::operation::{QUEUE, Value, Write, queue_key, show_key};
use sapwood::Durability;
use sapwood_base::key::prefix_successor;
use std::ops::{Bound, Range};

/// Bytes that the tables of a keyspace may take beyond their entries.
const OVERHEAD_BYTES: u64 = 16 << 10;

impl Driver {
    /// Pushes and takes, see [`crate::sim::operation::Operation::Queue`].
    pub(super) fn queue(
        &mut self,
        space: u8,
        pushes: Range<u32>,
        pops: u8,
        len: u16,
        observer: &mut dyn Observer,
    ) -> Outcome {
        for number in pushes {
            let value = Some(Value { tag: number, len: u32::from(len) });
            self.write_one(Write { space, key: queue_key(number), value }, observer)?;
        }
        let successor = prefix_successor(QUEUE).expect("it is not all ones");
        let bounds = (Bound::Included(QUEUE), Bound::Excluded(successor.as_slice()));
        for pop in 0..pops {
            let Some((keyspace, incarnation)) = self.keyspace(space)? else { return Ok(()) };
            let Some(commits) = self.present() else { return Ok(()) };
            let first = self.oracle.entry(incarnation, bounds, true, commits);
            let want = first.map(|(key, value)| (key.to_vec(), value.to_vec()));
            // By the prefix, or by a cursor that starts before all of them.
            let got = match pop % 2 {
                0 => keyspace.prefix(QUEUE).next().transpose()?.map(|entry| {
                    let (key, value) = entry.into_parts();
                    (key, value.to_vec())
                }),
                _ => {
                    let mut cursor = keyspace.cursor()?;
                    cursor.seek(QUEUE)?;
                    let is_one = cursor.valid() && cursor.key().starts_with(QUEUE);
                    is_one.then(|| (cursor.key().to_vec(), cursor.value().to_vec()))
                }
            };
            if got != want {
                let show = |entry: &Option<(Vec<u8>, Vec<u8>)>| {
                    entry.as_ref().map_or("nothing".to_string(), |(key, _)| show_key(key))
                };
                return violation(format!(
                    "O7: the front of the queue is {}, not {}",
                    show(&got),
                    show(&want)
                ));
            }
            let Some((key, value)) = got else { return Ok(()) };
            self.answers.update(&key);
            self.answers.update(&value);
            self.write_one(Write { space, key, value: None }, observer)?;
        }
        Ok(())
    }

    pub(super) fn overwrite(
        &mut self,
        space: u8,
        key: &[u8],
        times: u8,
        value: Value,
        observer: &mut dyn Observer,
    ) -> Outcome {
        for time in 0..u32::from(times) {
            let value = Some(Value { tag: value.tag + time, len: value.len });
            self.write_one(Write { space, key: key.to_vec(), value }, observer)?;
        }
        Ok(())
    }

    fn write_one(&mut self, write: Write, observer: &mut dyn Observer) -> Outcome {
        self.commit(&[write], true, Durability::Buffered, false, observer)
    }

    /// Space is reclaimed (O15): [`sapwood::Db::settle`] leaves little more than
    /// [`sapwood::Db::compact`] does, and that is each row once and no deletion. Drops cursors and
    /// snapshots.
    pub fn check_space(&mut self) -> Outcome {
        self.let_go();
        self.resume();
        self.db().settle()?;
        let settled = self.tables_of_rows();
        self.db().compact()?;
        let compacted = self.tables_of_rows();
        let commits = self.present().expect("all commits are certain at the end");
        let spaces = self.oracle.promise().spaces.clone();
        let rows: u64 = spaces.values().map(|space| self.oracle.map(*space, commits).len() as u64).sum();
        if compacted.entries != rows {
            return violation(format!(
                "O15: after a compaction of everything tables hold {} entries for {rows} rows",
                compacted.entries
            ));
        }
        let allowed = compacted.bytes * 13 / 10 + OVERHEAD_BYTES * spaces.len() as u64;
        if !self.tuning.disable_auto_compactions && settled.bytes > allowed {
            return violation(format!(
                "O15: settled, tables take {} bytes; compacted, {}",
                settled.bytes, compacted.bytes
            ));
        }
        Ok(())
    }

    fn tables_of_rows(&self) -> Tables {
        let stats = self.db().stats();
        let keyspaces = stats.keyspaces.iter().filter(|space| !space.is_index);
        let levels = keyspaces.flat_map(|space| &space.levels);
        levels.fold(Tables::default(), |sum, level| Tables {
            bytes: sum.bytes + level.bytes,
            entries: sum.entries + level.entries,
        })
    }
}

#[derive(Default)]
struct Tables {
    bytes: u64,
    entries: u64,
}
