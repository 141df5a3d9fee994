//! Keyspaces and indexes that are created and dropped while other threads work.
//!
//! Each maker has names of its own, so it alone determines their content, and the history of a name
//! is known: one state after each step. After a crash or a close, the content under a name must be
//! one of its states, and not older than the last promise.
use super::{Checked, Company, Stage, number};
use crate::harness::contents;
use crate::oracle::{Bytes, Map, difference};
use crate::sim::driver::Stop;
use crate::sim::indexes::{self, INDEXES, index_name, index_number, options};
use sapwood::{Db, Durability, Error, Keyspace, KeyspaceOptions, Result, Snapshot};
use sapwood_storage::sync::step;
use std::collections::{BTreeMap, BTreeSet};

/// The number of makers, each a thread.
pub(super) const MAKERS: u64 = 2;
/// The number of actions of each.
const ROUNDS: u64 = 36;
/// The number of names of each.
const NAMES: usize = 3;
/// The same numbers for runs with nothing but makers and flushes.
const ROUNDS_ALONE: u64 = 60;
const NAMES_ALONE: usize = 40;

/// A keyspace.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct State {
    rows: Map,
    indexes: BTreeSet<u8>,
}

/// The history of one name.
#[derive(Clone)]
pub(super) struct Guest {
    /// The state after each step, including one in progress; `None` while no keyspace had the name.
    states: Vec<Option<State>>,
    /// The last acknowledged state, and the last one acknowledged as durable.
    acknowledged: usize,
    durable: usize,
}

impl Default for Guest {
    fn default() -> Guest {
        Guest { states: vec![None], acknowledged: 0, durable: 0 }
    }
}

impl Guest {
    /// Whether this state is allowed. The creation and the drop of an index are durable at once; a
    /// power loss may still remove the rows before it.
    fn allows(&self, floor: usize, found: &Option<State>) -> bool {
        let states = &self.states[floor..];
        let Some(found) = found else { return states.contains(&None) };
        states.split(Option::is_none).any(|incarnation| {
            let mut states = incarnation.iter().flatten();
            states.clone().any(|state| state.rows == found.rows)
                && states.any(|state| state.indexes == found.indexes)
        })
    }
}

/// By name.
pub(super) type Guests = BTreeMap<String, Guest>;

/// The oldest state that a name may have after a crash.
pub(super) type Floors = BTreeMap<String, usize>;

/// The guarantees after a kill, or after a power loss.
pub(super) fn floors(guests: &Guests, power_loss: bool) -> Floors {
    let floor = |guest: &Guest| if power_loss { guest.durable } else { guest.acknowledged };
    guests.iter().map(|(name, guest)| (name.clone(), floor(guest))).collect()
}

/// The content that a snapshot must continue to show.
struct Taken {
    snapshot: Snapshot,
    keyspace: Keyspace,
    name: String,
    rows: Map,
}

impl Stage {
    /// The thread of one maker.
    pub(super) fn make(&self, maker: u64) -> Result<()> {
        let mut random = self.random(60 + maker);
        let mut taken: Option<Taken> = None;
        let (rounds, names, rest) = match self.plan.guests {
            Company::Alone => (ROUNDS_ALONE, NAMES_ALONE, 4),
            _ => (ROUNDS, NAMES, 60),
        };
        for round in 0..rounds {
            (0..random.u32(..rest)).for_each(|_| step());
            let name = format!("guest-{maker}-{}", random.usize(..names));
            let before = self.guest(&name);
            let Some(state) = before else {
                self.guest_made(&name)?;
                if random.u8(..4) > 0 {
                    self.guest_written(&name, &mut random, round)?;
                }
                continue;
            };
            match random.u8(..14) {
                0..6 => self.guest_written(&name, &mut random, round)?,
                6 => self.guest_dropped(&name, &mut taken)?,
                7 => {
                    self.guest_dropped(&name, &mut taken)?;
                    self.guest_made(&name)?;
                    self.guest_written(&name, &mut random, round)?;
                }
                8 | 9 if self.plan.has_indexes => self.guest_indexed(&name, random.u8(..INDEXES))?,
                10 => {
                    let keyspace = self.db.keyspace(&name, KeyspaceOptions::default())?;
                    taken = Some(Taken { snapshot: self.db.snapshot(), keyspace, name, rows: state.rows });
                }
                _ => {
                    let keyspace = self.db.keyspace(&name, KeyspaceOptions::default())?;
                    same(&name, &contents(&keyspace)?, &state.rows);
                    compare_indexes(&keyspace, &name, &state)?;
                }
            }
            if let Some(taken) = &taken
                && random.u8(..4) == 0
            {
                taken.check()?;
            }
        }
        taken.map_or(Ok(()), |taken| taken.check())
    }

    fn guest(&self, name: &str) -> Option<State> {
        let mut notes = self.notes();
        notes.guests.entry(name.to_owned()).or_default().states.last().expect("never empty").clone()
    }

    /// Records the next state, and its acknowledgement once `call` has returned.
    fn guest_step(
        &self,
        name: &str,
        next: Option<State>,
        durable: bool,
        call: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        self.notes().guests.get_mut(name).expect("noted before").states.push(next);
        call()?;
        let mut notes = self.notes();
        let guest = notes.guests.get_mut(name).expect("noted before");
        guest.acknowledged = guest.states.len() - 1;
        if durable {
            guest.durable = guest.acknowledged;
        }
        Ok(())
    }

    fn guest_made(&self, name: &str) -> Result<()> {
        self.guest_step(name, Some(State::default()), true, || {
            self.db.keyspace(name, KeyspaceOptions::default()).map(drop)
        })
    }

    fn guest_dropped(&self, name: &str, taken: &mut Option<Taken>) -> Result<()> {
        // A snapshot does not see a dropped keyspace.
        if taken.as_ref().is_some_and(|taken| taken.name == name) {
            *taken = None;
        }
        let old = self.db.keyspace(name, KeyspaceOptions::default())?;
        self.guest_step(name, None, true, || self.db.drop_keyspace(name))?;
        assert!(old.get("first").is_err(), "a handle of the dropped keyspace {name} still reads");
        Ok(())
    }

    fn guest_written(&self, name: &str, random: &mut fastrand::Rng, round: u64) -> Result<()> {
        let mut state = self.guest(name).expect("there is such a keyspace");
        let keyspace = self.db.keyspace(name, KeyspaceOptions::default())?;
        let mut batch = self.db.batch();
        let mut value = round.to_be_bytes().to_vec();
        let longest = if random.u8(..4) == 0 { 3000 } else { 40 };
        value.resize(8 + random.usize(..longest), random.u8(..));
        batch.put(&keyspace, "first", &value);
        state.rows.insert(b"first".to_vec(), Bytes::from(&value[..]));
        for _ in 0..random.usize(..3) {
            let key = vec![b'a' + random.u8(..6)];
            match random.u8(..4) {
                0 => {
                    batch.delete(&keyspace, &key);
                    state.rows.remove(&key);
                }
                _ => {
                    batch.put(&keyspace, &key, &value[..9.min(value.len())]);
                    state.rows.insert(key, Bytes::from(&value[..9.min(value.len())]));
                }
            }
        }
        let durable = random.u8(..4) == 0;
        let durability = if durable { Durability::Sync } else { Durability::Buffered };
        self.guest_step(name, Some(state), durable, || batch.commit_durable(durability).map(drop))?;
        let got = keyspace.get("first")?.map(|value| number(&value));
        assert_eq!(got, Some(round), "{name}: the last write is missing");
        Ok(())
    }

    /// Creates an index, or drops it if it exists.
    fn guest_indexed(&self, name: &str, index: u8) -> Result<()> {
        let mut state = self.guest(name).expect("there is such a keyspace");
        let keyspace = self.db.keyspace(name, KeyspaceOptions::default())?;
        let is_new = state.indexes.insert(index);
        if !is_new {
            state.indexes.remove(&index);
        }
        // The rows need not be durable with it.
        self.guest_step(name, Some(state), false, || match is_new {
            true => self.served(|| keyspace.create_index(&index_name(index), options(index))).map(drop),
            false => keyspace.drop_index(&index_name(index)),
        })
    }
}

impl Taken {
    fn check(&self) -> Result<()> {
        let entries = self.keyspace.iter().at(&self.snapshot);
        let rows: Map = entries
            .map(|entry| {
                let (key, value) = entry?.into_parts();
                Ok((key, Bytes::from(&value[..])))
            })
            .collect::<Result<_>>()?;
        same(&format!("{} at a snapshot", self.name), &rows, &self.rows);
        Ok(())
    }
}

fn same(name: &str, got: &Map, want: &Map) {
    if let Some(difference) = difference(got, want) {
        panic!("O4: {name}: {difference}");
    }
}

/// Compares all indexes of a keyspace with its rows.
fn compare_indexes(keyspace: &Keyspace, name: &str, state: &State) -> Result<()> {
    for index in &state.indexes {
        match indexes::compare(keyspace, *index, None, &state.rows) {
            Ok(true) => {}
            Ok(false) => panic!("O5: {name}: {} is unavailable", index_name(*index)),
            Err(Stop::Violation(what)) => panic!("{name}: {what}"),
            Err(Stop::Error(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Whether the content under each name is one of its states, and late enough.
pub(super) fn check(db: &Db, guests: &Guests, floors: &Floors) -> Checked<()> {
    let in_words = |error: Error| error.to_string();
    let names = db.list_keyspaces().map_err(in_words)?;
    if let Some(strange) = names.iter().find(|name| name.starts_with("guest-") && !guests.contains_key(*name))
    {
        return Err(format!("O6: the keyspace {strange} was never created"));
    }
    for (name, guest) in guests {
        // A name without a step at the time of the crash may have had some since.
        let floor = floors.get(name).copied().unwrap_or(0);
        let found = match names.contains(name) {
            false => None,
            true => {
                let keyspace = db.keyspace(name, KeyspaceOptions::default()).map_err(in_words)?;
                let rows = contents(&keyspace).map_err(in_words)?;
                let indexes = keyspace.list_indexes().map_err(in_words)?;
                let indexes = indexes.iter().filter_map(|index| index_number(index)).collect();
                let state = State { rows, indexes };
                for index in &state.indexes {
                    keyspace.create_index(&index_name(*index), options(*index)).map_err(in_words)?;
                }
                compare_indexes(&keyspace, name, &state).map_err(in_words)?;
                Some(state)
            }
        };
        if !guest.allows(floor, &found) {
            let at = guest.states.iter().rposition(|state| *state == found);
            let show = |state: &Option<State>| match state {
                None => "no keyspace".to_string(),
                Some(state) => {
                    let rows: Vec<String> = state
                        .rows
                        .iter()
                        .map(|(key, value)| format!("{} ({} bytes)", key.escape_ascii(), value.len()))
                        .collect();
                    format!("rows {rows:?}, indexes {:?}", state.indexes)
                }
            };
            return Err(format!(
                "O1: {name} has {}; that is its state {at:?}, and {floor} to {} are allowed: {}",
                show(&found),
                guest.states.len() - 1,
                show(&guest.states[floor])
            ));
        }
    }
    Ok(())
}
