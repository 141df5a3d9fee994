//! A damaged copy: opening and reading it.
use super::fixture::{Fixture, Witness, all_indexes};
use super::{Outcome, Verdict, is_log};
use crate::history::{COUNTER, SPACES};
use crate::oracle::{Bytes, Map, difference};
use crate::sim::driver::Stop;
use crate::sim::indexes::{self, index_name};
use sapwood::{Db, Error, ErrorKind, Keyspace, KeyspaceOptions};
use sapwood_storage::sim::SimFs;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// A damaged copy.
pub(super) struct Case<'f> {
    pub(super) fixture: &'f Fixture,
    pub(super) places: Vec<(PathBuf, Range<usize>)>,
    pub(super) fs: SimFs,
    pub(super) number: u64,
}

impl Case<'_> {
    pub(super) fn check(&self) -> Outcome<Verdict> {
        let before = files(&self.fs);
        let env = self.fixture.env.with_file_system(Arc::new(self.fs.clone()));
        // In every eighth case the copy is only read, and nothing changes.
        let read_only = self.number % 8 == 1;
        let opened = match read_only {
            true => self.fixture.builder(&env).read_only(true).open(),
            false => self.fixture.open(&env),
        };
        let db = match opened {
            Ok(db) => db,
            Err(error) => {
                self.is_typed(&error).map_err(|wrong| format!("opening: {wrong}"))?;
                if files(&self.fs) != before {
                    return Err(format!("the open failed ({error}) and changed files"));
                }
                return Ok(Verdict::Refused);
            }
        };
        let verdict = self.read_all(&db)?;
        if read_only {
            drop(db);
            if files(&self.fs) != before {
                return Err("reading changed files".to_string());
            }
            return Ok(verdict);
        }
        // A compaction finds the damage or is unaffected by it. It never turns damage into valid
        // data.
        if self.number % 4 == 3 {
            if let Err(error) = db.compact()
                && error.kind() != ErrorKind::Poisoned
            {
                self.is_typed(&error).map_err(|wrong| format!("compaction: {wrong}"))?;
            }
            self.read_all(&db).map_err(|wrong| format!("after the compaction: {wrong}"))?;
            drop(db);
            match self.fixture.open(&env) {
                Ok(db) => drop(self.read_all(&db).map_err(|wrong| format!("opened again: {wrong}"))?),
                Err(error) => self.is_typed(&error).map_err(|wrong| format!("opened again: {wrong}"))?,
            }
        }
        self.fs.crash_at(0);
        Ok(verdict)
    }

    /// An error states its kind and place.
    pub(super) fn is_typed(&self, error: &Error) -> Outcome<()> {
        let kind = error.kind();
        if !matches!(kind, ErrorKind::Corruption | ErrorKind::Unsupported) {
            return Err(format!("an error of kind {kind:?}: {error}"));
        }
        if error.file().is_none() || (kind == ErrorKind::Corruption && error.offset().is_none()) {
            return Err(format!("an error without file and offset: {error}"));
        }
        Ok(())
    }

    /// The fewest commits that must be there, whatever looks like the torn end of the log.
    pub(super) fn floor(&self) -> u64 {
        if !self.places.iter().any(|(path, _)| is_log(path)) {
            return self.fixture.count;
        }
        let is_intact = |witness: &&Witness| {
            self.places.iter().all(|(path, range)| {
                *path != witness.file || range.end <= witness.bytes.start || range.start >= witness.bytes.end
            })
        };
        let intact = self.fixture.witnesses.iter().filter(is_intact);
        let durable = intact.map(|witness| witness.durable_position).max().unwrap_or(0);
        let synced = self.fixture.synced.iter().filter(|(_, position)| *position < durable);
        synced.map(|(number, _)| *number).max().unwrap_or(0).max(self.fixture.settled)
    }

    pub(super) fn read_all(&self, db: &Db) -> Outcome<Verdict> {
        let names = db.list_keyspaces().map_err(|error| error.to_string())?;
        if names != SPACES.map(str::to_string) {
            return Err(format!("the keyspaces are {names:?}"));
        }
        let spaces = match db.keyspace(SPACES[1], KeyspaceOptions::default()) {
            Ok(second) => [db.default_keyspace(), second],
            Err(error) => return self.is_typed(&error).map(|()| Verdict::Partly),
        };
        let mut counters = Vec::new();
        let mut failed = 0;
        for (number, space) in spaces.iter().enumerate() {
            match self.get(number, space, COUNTER)? {
                Some(Some(bytes)) => counters.push(u64::from_be_bytes(
                    bytes.try_into().map_err(|bytes| format!("a counter is {bytes:?}"))?,
                )),
                Some(None) => counters.push(0),
                None => failed += 1,
            }
        }
        if counters.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("the keyspaces hold {counters:?} commits"));
        }
        let count = counters.first().copied().unwrap_or(self.fixture.count);
        let floor = self.floor();
        if !(floor..=self.fixture.count).contains(&count) {
            let all = self.fixture.count;
            return Err(format!(
                "{count} commits are present instead of {floor} to {all}, and no error was returned"
            ));
        }
        let state = self.fixture.state(count);
        for (number, key) in &self.fixture.universe {
            match self.get(*number, &spaces[*number], key)? {
                Some(got) if got.as_deref() == state[*number].get(key).map(|value| &value[..]) => {}
                Some(_) => {
                    let key = key.escape_ascii().to_string();
                    return Err(format!("wrong data under {key:?} of {} at commit {count}", SPACES[*number]));
                }
                None => failed += 1,
            }
        }
        for (number, space) in spaces.iter().enumerate() {
            for backwards in [false, true] {
                failed += u64::from(!self.scan(space, &state[number], backwards)?);
            }
        }
        failed += self.ask_indexes(&spaces, &state)?;
        Ok(match (failed, count) {
            (0, count) if count == self.fixture.count => Verdict::Harmless,
            (0, count) if self.fixture.synced.iter().any(|(number, _)| *number > count) => {
                Verdict::Unwitnessed
            }
            (0, _) => Verdict::Shorter,
            _ => Verdict::Partly,
        })
    }

    /// Reads every index completely. Returns the number of allowed errors.
    pub(super) fn ask_indexes(&self, spaces: &[Keyspace; 2], state: &[Map; 2]) -> Outcome<u64> {
        let mut failed = 0;
        for (space, index) in all_indexes().filter(|_| self.fixture.has_indexes) {
            match indexes::compare(&spaces[space], index, None, &state[space]) {
                Ok(true) => {}
                Ok(false) => return Err(format!("O5: {} is unavailable", index_name(index))),
                Err(Stop::Violation(what)) => return Err(what),
                Err(Stop::Error(error)) => {
                    self.is_typed(&error).map_err(|wrong| format!("{}: {wrong}", index_name(index)))?;
                    failed += 1;
                }
            }
        }
        Ok(failed)
    }

    /// `Ok(None)` for an allowed error.
    #[allow(clippy::type_complexity, reason = "an outcome of an outcome of a look-up")]
    pub(super) fn get(
        &self,
        number: usize,
        space: &Keyspace,
        key: &[u8],
    ) -> Outcome<Option<Option<Vec<u8>>>> {
        match space.get(key) {
            Ok(value) => Ok(Some(value.map(|value| value.to_vec()))),
            Err(error) => {
                self.is_typed(&error)?;
                let entry = (number, key.to_vec());
                let fixture = self.fixture;
                let is_shorter = self.places.iter().any(|(path, _)| is_log(path));
                let is_needed = |(path, _): &(PathBuf, Range<usize>)| {
                    let needs = |needs: &BTreeMap<_, BTreeSet<_>>| {
                        needs.get(path).is_some_and(|keys: &BTreeSet<_>| keys.contains(&entry))
                    };
                    needs(&fixture.needs) || (is_shorter && needs(&fixture.needs_below_log))
                };
                // A compaction may have moved a key next to the damage, but then its read returns
                // no error.
                if !self.places.iter().any(is_needed) {
                    let key = key.escape_ascii().to_string();
                    return Err(format!("{key:?} is not in the damaged file and cannot be read: {error}"));
                }
                Ok(None)
            }
        }
    }

    /// Reads all entries in one direction. False if it ended with an allowed error.
    pub(super) fn scan(&self, space: &Keyspace, want: &Map, backwards: bool) -> Outcome<bool> {
        let mut got = Map::new();
        let mut last: Option<Vec<u8>> = None;
        let mut entries = space.iter();
        let complete = loop {
            let entry = match backwards {
                false => entries.next(),
                true => entries.next_back(),
            };
            match entry {
                None => break true,
                Some(Err(error)) => {
                    self.is_typed(&error).map_err(|wrong| format!("scan: {wrong}"))?;
                    break false;
                }
                Some(Ok(entry)) => {
                    let (key, value) = entry.into_parts();
                    if last.as_ref().is_some_and(|last| (*last < key) == backwards) {
                        return Err("a scan is out of order".to_string());
                    }
                    last = Some(key.clone());
                    got.insert(key, Bytes::from(&value[..]));
                }
            }
        };
        let want: Map = match (&last, complete) {
            (_, true) => want.clone(),
            (None, false) => Map::new(),
            (Some(last), false) => want
                .iter()
                .filter(|(key, _)| if backwards { *key >= last } else { *key <= last })
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
        };
        match difference(&got, &want) {
            Some(difference) => Err(format!("a scan of {:?} differs: {difference}", space.name())),
            None => Ok(complete),
        }
    }
}

pub(super) fn files(fs: &SimFs) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs.files().into_iter().filter(|path| !path.ends_with("LOCK"));
    paths.map(|path| (path.clone(), fs.read_file(&path).expect("listed"))).collect()
}
