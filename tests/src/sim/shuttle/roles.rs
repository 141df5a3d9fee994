//! The threads of a run: writers, readers, the maintainer, and the crasher.
use super::guests;
use super::{
    BODY_BYTES, Company, Done, ERRANDS, IMAGES, Image, LOOKS, Look, SPACES, Stage, WRITERS, counter, number,
};
use crate::journal::{self, Write};
use crate::oracle::{Bytes, Map};
use sapwood::{Durability, Keyspace, Result, Snapshot};
use sapwood_storage::sync::step;
use std::time::Duration;

impl Stage {
    pub(super) fn write(&self, writer: usize) -> Result<()> {
        let mut random = self.random(writer as u64);
        let counter = counter(writer);
        for count in 1..=self.plan.commits {
            let value = |len: usize| {
                let mut value = count.to_be_bytes().to_vec();
                value.resize(8 + len, writer as u8);
                Bytes::from(value)
            };
            let mut changes: Vec<Write> = (0..SPACES.len() as u8)
                .map(|space| (space, counter.clone(), Some(value(random.usize(..200)))))
                .collect();
            for _ in 0..random.usize(..4) {
                let key = format!("key-{:02}", random.u8(..40)).into_bytes();
                let put = random.u8(..4) > 0;
                changes.push((
                    random.usize(..SPACES.len()) as u8,
                    key,
                    put.then(|| value(random.usize(..1500))),
                ));
            }
            if self.plan.has_bodies && random.u8(..8) == 0 {
                let key = format!("large-{}", random.u8(..3)).into_bytes();
                changes.push((random.usize(..SPACES.len()) as u8, key, Some(value(BODY_BYTES))));
            }
            if self.plan.has_vacancies {
                changes.extend(self.changes_of_vacancies(&mut random, value)?);
            }
            let durability = match random.u8(..12) {
                0 | 1 => Durability::Sync,
                2 => Durability::Periodic(Duration::from_millis(2)),
                _ => Durability::Buffered,
            };
            let commit = self.served(|| {
                let mut batch = self.db.batch();
                journal::fill(&mut batch, &self.spaces, &changes);
                batch.commit_durable(durability)
            })?;
            let sequence = commit.sequence().0;
            {
                let mut notes = self.notes();
                notes.commits.push(Done { sequence, changes });
                notes.counts[writer] = count;
                notes.acknowledged = notes.acknowledged.max(sequence);
                if durability == Durability::Sync {
                    notes.durable = notes.durable.max(sequence);
                }
            }
            if random.u8(..10) == 0 {
                commit.wait_durable()?;
                let mut notes = self.notes();
                notes.durable = notes.durable.max(sequence);
            }
            let own = self.spaces[random.usize(..SPACES.len())].get(&counter)?;
            assert_eq!(own.map(|value| number(&value)), Some(count), "writer {writer} reads its own write");
        }
        Ok(())
    }

    pub(super) fn read(&self, reader: u64) -> Result<()> {
        let mut random = self.random(10 + reader);
        let mut seen = [0; WRITERS];
        for _ in 0..LOOKS {
            for writer in (0..WRITERS).cycle().take(2 * WRITERS) {
                let acknowledged = self.notes().counts[writer];
                let space = &self.spaces[random.usize(..SPACES.len())];
                let got = space.get(counter(writer))?.map_or(0, |value| number(&value));
                assert!(
                    got >= acknowledged && got >= seen[writer],
                    "reader {reader}: writer {writer} is at {got}, but {acknowledged} were acknowledged and {} seen",
                    seen[writer]
                );
                seen[writer] = got;
            }
            let snapshot = self.db.snapshot();
            let maps = self.look(&snapshot, random.bool())?;
            (0..random.u32(..200)).for_each(|_| step());
            let again = self.look(&snapshot, random.bool())?;
            assert!(maps == again, "reader {reader}: a snapshot at {:?} has changed", snapshot.sequence());
            match self.plan.compare_indexes(&self.spaces, Some(&snapshot), &maps) {
                Ok(result) => result?,
                Err(what) => panic!("reader {reader}, snapshot at {:?}: {what}", snapshot.sequence()),
            }
            self.notes().looks.push(Look { reader, sequence: snapshot.sequence().0, maps });
        }
        Ok(())
    }

    /// The content of all keyspaces at a snapshot.
    pub(super) fn look(&self, snapshot: &Snapshot, backwards: bool) -> Result<Vec<Map>> {
        let read = |space: &Keyspace| -> Result<Map> {
            let entries = space.iter().at(snapshot);
            let entry = |entry: Result<sapwood::Entry>| {
                entry.map(|entry| {
                    let (key, value) = entry.into_parts();
                    (key, Bytes::from(&value[..]))
                })
            };
            match backwards {
                true => entries.rev().map(entry).collect(),
                false => entries.map(entry).collect(),
            }
        };
        self.spaces.iter().map(read).collect()
    }

    pub(super) fn maintain(&self) -> Result<()> {
        let mut random = self.random(20);
        // Keyspaces that are created and dropped have to meet flushes.
        let (errands, rest) = match self.plan.guests {
            Company::Without => (ERRANDS, 300),
            Company::Beside => (4 * ERRANDS, 80),
            Company::Alone => (10 * ERRANDS, 4),
        };
        let own = self.db.default_keyspace();
        for errand in 0..errands {
            (0..random.u32(..rest)).for_each(|_| step());
            if self.plan.guests == Company::Alone || self.plan.guests == Company::Beside && random.u8(..4) > 0
            {
                own.put("errand", errand.to_be_bytes())?;
                self.served(|| self.db.flush())?;
                continue;
            }
            match random.u8(..6) {
                0 => self.served(|| self.db.flush())?,
                1 => self.served(|| self.db.compact())?,
                2 => {
                    let space = &self.spaces[random.usize(..SPACES.len())];
                    self.served(|| space.compact_range("counter".."key-20"))?;
                }
                3 => {
                    self.db.pause_background()?;
                    self.env.sleep(Duration::from_micros(random.u64(..2_000)));
                    self.db.resume_background();
                }
                4 => self.served(|| self.db.wait_for_background())?,
                _ => self.env.sleep(Duration::from_micros(random.u64(..2_000_000))),
            }
        }
        Ok(())
    }

    /// Takes images of power losses and kills, without a change of the machine.
    pub(super) fn crash(&self) -> Result<()> {
        let mut random = self.random(30);
        for _ in 0..IMAGES {
            (0..random.u32(..2500)).for_each(|_| step());
            // Read first: later promises need not hold for the image.
            let is_kill = random.u8(..3) == 0;
            let (floor, guests) = {
                let notes = self.notes();
                let floor = if is_kill { notes.acknowledged } else { notes.durable };
                (floor, guests::floors(&notes.guests, !is_kill))
            };
            let choice = random.u64(..);
            let (name, fs) = match is_kill {
                true => ("a kill".to_string(), self.fs.kill()),
                false => (format!("the power loss {choice}"), self.fs.crash(choice)),
            };
            let image = Image { name, fs, floor, guests };
            self.notes().images.push(image);
        }
        Ok(())
    }
}
