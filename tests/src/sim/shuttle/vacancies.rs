//! Ranges of deletions, which scans record as vacancies and skip, and writers that put rows into
//! them.
//!
//! In every second seed with writers, these also delete whole ranges of keys, put single keys back,
//! and remove the first row as from a queue. Walkers scan the same keys in both directions: in the
//! latest state, or at a snapshot that may be older than the record of a vacancy. A scan must
//! return one of the states between the newest one before its creation and the newest one after it.
use super::{Checked, Done, Notes, SPACES, Stage};
use crate::journal::{Write, apply};
use crate::oracle::{Bytes, Map, difference};
use sapwood::{Iter, Result};
use sapwood_storage::sync::step;

/// The number of walkers, each a thread.
pub(super) const WALKERS: u64 = 2;
/// The number of scans of each.
const WALKS: usize = 60;
const KEYS: usize = 96;
/// The prefix of the keys, and a key after all of them.
const PREFIX: &str = "vacant-";
const END: &str = "vacant.";

/// The result of a scan.
pub(super) struct Walk {
    walker: u64,
    space: usize,
    /// The numbers of the first and the last key of the range, the last excluded.
    range: (usize, usize),
    backwards: bool,
    /// Whether it returned one row only.
    is_first: bool,
    /// The sequence numbers of the latest states before and after its creation.
    between: (u64, u64),
    rows: Map,
}

fn key(number: usize) -> Vec<u8> {
    format!("{PREFIX}{number:02}").into_bytes()
}

impl Stage {
    /// The changes of ranges in a writer's next commit.
    pub(super) fn changes_of_vacancies(
        &self,
        random: &mut fastrand::Rng,
        value: impl Fn(usize) -> Bytes,
    ) -> Result<Vec<Write>> {
        let space = random.usize(..SPACES.len()) as u8;
        let low = random.usize(..KEYS);
        Ok(match random.u8(..8) {
            0 => {
                let high = KEYS.min(low + random.usize(16..64));
                (low..high).map(|number| (space, key(number), None)).collect()
            }
            1 => {
                let high = KEYS.min(low + random.usize(1..32));
                (low..high).map(|number| (space, key(number), Some(value(8)))).collect()
            }
            2..5 => vec![(space, key(low), Some(value(random.usize(..40))))],
            _ => {
                let first = self.spaces[usize::from(space)].range(PREFIX..END).limit(random.usize(1..8));
                first.map(|row| Ok((space, row?.into_key(), None))).collect::<Result<_>>()?
            }
        })
    }

    /// The work of a walker.
    pub(super) fn walk(&self, walker: u64) -> Result<()> {
        let mut random = self.random(40 + walker);
        for _ in 0..WALKS {
            (0..random.u32(..60)).for_each(|_| step());
            let space = random.usize(..SPACES.len());
            let range = match random.u8(..3) {
                0 => (random.usize(..KEYS / 2), random.usize(KEYS / 2..KEYS)),
                _ => (0, KEYS),
            };
            let (backwards, is_first) = (random.bool(), random.bool());
            let snapshot = self.db.snapshot();
            let before = snapshot.sequence().0;
            (0..random.u32(..20)).for_each(|_| step());
            let scan: Iter = self.spaces[space].range(key(range.0)..key(range.1));
            let (scan, after) = match random.u8(..4) {
                0 => (scan.at(&snapshot), before),
                _ => (scan, self.db.snapshot().sequence().0),
            };
            // Meanwhile other threads advance the state.
            let longest = if random.u8(..3) == 0 { 400 } else { 20 };
            (0..random.u32(..longest)).for_each(|_| step());
            let scan = if backwards { scan.rev() } else { scan };
            let scan = scan.limit(if is_first { 1 } else { usize::MAX });
            let mut rows = Map::new();
            for entry in scan {
                let (key, value) = entry?.into_parts();
                rows.insert(key, Bytes::from(&value[..]));
            }
            let between = (before, after);
            self.notes().walks.push(Walk { walker, space, range, backwards, is_first, between, rows });
        }
        Ok(())
    }
}

/// Compares the walkers' results with the history, in its order.
pub(super) fn check(notes: &Notes) -> Checked<()> {
    if notes.walks.is_empty() {
        return Ok(());
    }
    let mut states = vec![vec![Map::new(); SPACES.len()]];
    for commit in &notes.commits {
        let mut state = states[states.len() - 1].clone();
        let of_vacancies = |write: &&Write| write.1.starts_with(PREFIX.as_bytes());
        apply(&mut state, commit.changes.iter().filter(of_vacancies));
        states.push(state);
    }
    notes.walks.iter().try_for_each(|walk| walk.check(&notes.commits, &states))
}

impl Walk {
    fn check(&self, commits: &[Done], states: &[Vec<Map>]) -> Checked<()> {
        let until = |sequence: u64| commits.partition_point(|commit| commit.sequence <= sequence);
        let (first, last) = (until(self.between.0), until(self.between.1));
        let want = |state: &Vec<Map>| {
            let rows = state[self.space].range(key(self.range.0)..key(self.range.1));
            let rows = rows.map(|(key, value)| (key.clone(), value.clone()));
            match (self.is_first, self.backwards) {
                (false, _) => rows.collect::<Map>(),
                (true, false) => rows.take(1).collect(),
                (true, true) => rows.rev().take(1).collect(),
            }
        };
        let mut nearest = None;
        for state in &states[first..=last] {
            match difference(&self.rows, &want(state)) {
                None => return Ok(()),
                Some(difference) => nearest = Some(difference),
            }
        }
        let Walk { walker, range, backwards, is_first, .. } = self;
        let direction = if *backwards { "backwards" } else { "forwards" };
        let rows = if *is_first { "the first row" } else { "all rows" };
        Err(format!(
            "O4: walker {walker}, {rows} of {range:?} {direction} in {}, after {first} to {last} commits: {}",
            SPACES[self.space],
            nearest.unwrap_or_default()
        ))
    }
}
