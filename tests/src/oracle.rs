//! The oracle: the history of commits, every version of every key, and the states that a database
//! may show after a crash.
//!
//! A commit has a number; number 0 is the initial state. Any moment of the history can be read, so
//! reads through snapshots and cursors are checked exactly. For each number the oracle keeps a sum
//! of hashes over the entries of each keyspace. A state found after a crash is compared with every
//! prefix of the history by this one comparison, which checks O1 (promised commits are present), O2
//! (one prefix for all keyspaces), O3 (batches are atomic) and O6 (no phantoms, no deleted entry
//! comes back).
//!
//! Commits with [`Durability::None`] are not in the log: a crash removes those that no flush has
//! saved, but always the latest ones first. So there is one sequence of sums for each number of
//! them that may have been saved.
use crate::sim::operation::show_key;
use sapwood::Durability;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::Xxh3;

/// A keyspace from its creation to its drop: a reused name has another number.
pub type Incarnation = u64;

/// A value.
pub type Bytes = Arc<[u8]>;

/// One keyspace at one moment.
pub type Map = BTreeMap<Vec<u8>, Bytes>;

/// A change of one key: the incarnation of the keyspace, the key, the new value.
pub type Change = (Incarnation, Vec<u8>, Option<Bytes>);

/// Keyspaces by number, see [`crate::sim::operation::space_name`].
pub type Spaces = BTreeMap<u8, Incarnation>;

/// The commits that a crash at this moment may remove, and those that it may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// Commits that survive a power loss.
    pub durable: u64,
    /// Commits that survive the end of the process.
    pub acknowledged: u64,
    /// Commits so far, including one in progress.
    pub submitted: u64,
    /// Commits without a log record that were saved by a flush.
    pub saved: u32,
    /// Keyspaces that exist.
    pub spaces: Spaces,
    /// A keyspace whose creation or drop is in progress.
    pub unsure: Option<(u8, Incarnation)>,
    /// Secondary indexes: keyspace and number. Those of dropped keyspaces may remain in the set.
    pub indexes: BTreeSet<(Incarnation, u8)>,
    /// An index whose creation or drop is in progress.
    pub unsure_index: Option<(Incarnation, u8)>,
    /// The largest assigned sequence number.
    pub sequence: u64,
}

impl Promise {
    /// The fewest commits that a state may hold: after a power loss, or after the end of the
    /// process alone.
    pub fn floor(&self, power_loss: bool) -> u64 {
        if power_loss { self.durable } else { self.acknowledged.max(self.durable) }
    }
}

/// The content of a database: all keyspaces by number.
pub type Contents = BTreeMap<u8, Map>;

/// The position of a state in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Commits that it holds.
    pub commits: u64,
    /// The number of commits without a log record among them.
    pub saved: u32,
    /// Its keyspaces.
    pub spaces: Spaces,
}

/// The sums along the history if only the first `saved` commits without a log record count.
#[derive(Clone)]
struct Sums {
    saved: u32,
    /// Hash of each live entry.
    entries: BTreeMap<Incarnation, BTreeMap<Vec<u8>, u128>>,
    now: BTreeMap<Incarnation, u128>,
    /// After each commit, from number 0.
    history: Vec<Vec<(Incarnation, u128)>>,
}

impl Sums {
    fn apply(&mut self, changes: &[Change]) {
        for (space, key, value) in changes {
            let entries = self.entries.entry(*space).or_default();
            let sum = self.now.entry(*space).or_insert(0);
            let before = match value {
                Some(value) => {
                    let hash = entry_hash(key, value);
                    *sum = sum.wrapping_add(hash);
                    entries.insert(key.clone(), hash)
                }
                None => entries.remove(key),
            };
            *sum = sum.wrapping_sub(before.unwrap_or(0));
        }
    }

    fn note(&mut self) {
        self.history.push(self.now.iter().map(|(space, sum)| (*space, *sum)).collect());
    }

    fn at(&self, commits: u64, space: Incarnation) -> u128 {
        let sums = &self.history[commits as usize];
        sums.iter().find(|(other, _)| *other == space).map_or(0, |(_, sum)| *sum)
    }
}

fn entry_hash(key: &[u8], value: &[u8]) -> u128 {
    let mut hash = Xxh3::new();
    hash.update(&(key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(value);
    hash.digest128()
}

/// The sum over the entries of one keyspace.
pub fn sum_of<'e>(entries: impl IntoIterator<Item = (&'e [u8], &'e [u8])>) -> u128 {
    entries.into_iter().fold(0, |sum, (key, value)| sum.wrapping_add(entry_hash(key, value)))
}

/// Per key, the commits that changed it, oldest first.
type Versions = BTreeMap<Vec<u8>, Vec<(u64, Option<Bytes>)>>;

/// See the module.
#[derive(Clone)]
pub struct Oracle {
    versions: BTreeMap<Incarnation, Versions>,
    /// The changes of each commit, from number 1, and its number among the commits without a log
    /// record.
    commits: Vec<(Vec<Change>, Option<u32>)>,
    /// The last one includes all commits.
    sums: Vec<Sums>,
    unlogged: u32,
    next_incarnation: Incarnation,
    promise: Promise,
    /// Commits that the clock makes durable, see [`Oracle::promise_by`]: number, and time.
    due: Vec<(u64, Duration)>,
}

impl Default for Oracle {
    fn default() -> Oracle {
        Oracle::new()
    }
}

impl Oracle {
    /// A database without commits, with the default keyspace.
    pub fn new() -> Oracle {
        Oracle::from_contents(&BTreeMap::from([(0, Map::new())]), 0)
    }

    /// A database that holds `contents`, all of it durable, and has assigned sequence numbers up to
    /// `sequence`.
    pub fn from_contents(contents: &Contents, sequence: u64) -> Oracle {
        let mut sums = Sums { saved: 0, entries: BTreeMap::new(), now: BTreeMap::new(), history: Vec::new() };
        let mut versions: BTreeMap<Incarnation, Versions> = BTreeMap::new();
        let mut spaces = Spaces::new();
        for (incarnation, (space, map)) in contents.iter().enumerate() {
            let incarnation = incarnation as Incarnation;
            spaces.insert(*space, incarnation);
            let changes: Vec<Change> =
                map.iter().map(|(key, value)| (incarnation, key.clone(), Some(value.clone()))).collect();
            sums.apply(&changes);
            let versions = versions.entry(incarnation).or_default();
            for (_, key, value) in changes {
                versions.insert(key, vec![(0, value)]);
            }
        }
        sums.note();
        Oracle {
            versions,
            commits: Vec::new(),
            sums: vec![sums],
            unlogged: 0,
            next_incarnation: contents.len() as Incarnation,
            promise: Promise { spaces, sequence, ..Promise::default() },
            due: Vec::new(),
        }
    }

    /// The guarantees for a crash at this moment.
    pub fn promise(&self) -> &Promise {
        &self.promise
    }

    /// The incarnation of a keyspace, if it exists.
    pub fn space(&self, space: u8) -> Option<Incarnation> {
        self.promise.spaces.get(&space).copied()
    }

    /// The number of the last commit that is visible to reads.
    pub fn now(&self) -> u64 {
        self.promise.acknowledged
    }

    // ---- writing ----

    /// Records a commit before it is attempted. The caller follows with [`Oracle::acknowledge`] or
    /// [`Oracle::withdraw`], or with neither if its fate is unknown.
    pub fn submit(&mut self, changes: Vec<Change>, durability: Durability) {
        let number = self.promise.submitted + 1;
        self.promise.submitted = number;
        let unlogged = (durability == Durability::None && !changes.is_empty()).then(|| {
            self.unlogged += 1;
            self.unlogged
        });
        if unlogged.is_some() {
            // From here on the history without this commit diverges.
            let without = self.sums.last().expect("never empty").clone();
            self.sums.push(Sums { saved: self.unlogged, ..without });
        }
        let last = self.sums.len() - 1;
        for (i, sums) in self.sums.iter_mut().enumerate() {
            if unlogged.is_none() || i == last {
                sums.apply(&changes);
            }
            sums.note();
        }
        for (space, key, value) in &changes {
            let versions = self.versions.entry(*space).or_default().entry(key.clone()).or_default();
            versions.push((number, value.clone()));
        }
        self.commits.push((changes, unlogged));
    }

    /// The last commit succeeded: `sequence` is the number of its first operation.
    pub fn acknowledge(&mut self, durable: bool, sequence: Option<u64>) {
        self.promise.acknowledged = self.promise.submitted;
        if durable {
            self.promise.durable = self.promise.submitted;
        }
        if let (Some(sequence), Some((changes, _))) = (sequence, self.commits.last()) {
            let last = sequence + (changes.len() as u64).saturating_sub(1);
            self.promise.sequence = self.promise.sequence.max(last);
        }
    }

    /// The last commit, which was acknowledged, survives a power loss from the time `due` on.
    pub fn promise_by(&mut self, due: Duration) {
        self.due.push((self.promise.acknowledged, due));
    }

    /// Whether the clock is to make commits durable.
    pub fn waits_for_the_clock(&self) -> bool {
        self.due.iter().any(|(number, _)| *number > self.promise.durable)
    }

    /// The commits that were promised for `now` or before, if they exceed the known durable ones.
    pub fn due_by(&self, now: Duration) -> Option<u64> {
        let due = self.due.iter().filter(|(_, due)| *due <= now).map(|(number, _)| *number).max();
        due.filter(|number| *number > self.promise.durable)
    }

    /// Records that `commits` commits are durable because their time has come.
    pub fn time_passed(&mut self, commits: u64) {
        self.promise.durable = commits;
        self.due.retain(|(number, _)| *number > commits);
    }

    /// The last commit was refused: it never happened.
    pub fn withdraw(&mut self) {
        assert!(
            self.promise.acknowledged < self.promise.submitted,
            "an acknowledged commit cannot be withdrawn"
        );
        let number = self.promise.submitted;
        self.promise.submitted -= 1;
        let (changes, unlogged) = self.commits.pop().expect("a commit was submitted");
        if unlogged.is_some() {
            self.unlogged -= 1;
            self.sums.pop();
        }
        for (space, key, _) in &changes {
            let versions = self.versions.get_mut(space).and_then(|versions| versions.get_mut(key));
            versions.expect("it was noted").retain(|(at, _)| *at != number);
        }
        for sums in &mut self.sums {
            sums.history.pop();
            let now = sums.history.last().expect("number 0 stays").iter().copied().collect();
            sums.now = now;
        }
        // The entries serve only to subtract their hashes: they are recomputed from the versions.
        let at = self.promise.submitted;
        for i in 0..self.sums.len() {
            let saved = self.sums[i].saved;
            let spaces: Vec<Incarnation> = self.sums[i].entries.keys().copied().collect();
            for space in spaces {
                let entries = self.map_with(space, at, saved);
                let hashes =
                    entries.iter().map(|(key, value)| (key.clone(), entry_hash(key, value))).collect();
                self.sums[i].entries.insert(space, hashes);
            }
        }
    }

    /// Every acknowledged commit survives a power loss from now on.
    pub fn synced(&mut self) {
        self.promise.durable = self.promise.acknowledged;
    }

    /// Every acknowledged commit is in tables from now on.
    pub fn flushed(&mut self) {
        self.promise.durable = self.promise.acknowledged;
        self.promise.saved = self.unlogged;
    }

    /// Records the creation of a keyspace before it is attempted.
    pub fn creating(&mut self, space: u8) {
        self.promise.unsure = Some((space, self.next_incarnation));
        self.next_incarnation += 1;
    }

    /// Records that the creation succeeded.
    pub fn created(&mut self) {
        let (space, incarnation) = self.promise.unsure.take().expect("a creation was recorded");
        self.promise.spaces.insert(space, incarnation);
    }

    /// Records that the creation has certainly not happened.
    pub fn not_created(&mut self) {
        self.promise.unsure = None;
    }

    /// Records the drop of a keyspace before it is attempted.
    pub fn dropping(&mut self, space: u8) {
        let incarnation = self.promise.spaces.remove(&space).expect("an existing keyspace");
        self.promise.unsure = Some((space, incarnation));
    }

    /// Records that the drop succeeded.
    pub fn dropped(&mut self) {
        self.promise.unsure = None;
    }

    /// Records that the drop has certainly not happened.
    pub fn not_dropped(&mut self) {
        self.created();
    }

    /// Records the creation of an index before it is attempted.
    pub fn creating_index(&mut self, space: Incarnation, index: u8) {
        self.promise.unsure_index = Some((space, index));
    }

    /// Records that the creation succeeded.
    pub fn created_index(&mut self) {
        self.promise.indexes.extend(self.promise.unsure_index.take());
    }

    /// Records the drop of an index before it is attempted.
    pub fn dropping_index(&mut self, space: Incarnation, index: u8) {
        self.promise.indexes.remove(&(space, index));
        self.promise.unsure_index = Some((space, index));
    }

    /// Records that the drop succeeded.
    pub fn dropped_index(&mut self) {
        self.promise.unsure_index = None;
    }

    /// Records the indexes that a database has, by numbers of keyspaces.
    pub fn adopt_indexes(&mut self, indexes: &[(u8, u8)]) {
        for (space, index) in indexes {
            let space = self.space(*space).expect("a keyspace that was found");
            self.promise.indexes.insert((space, *index));
        }
    }

    // ---- reading ----

    /// The value of a key after `commits` commits.
    pub fn get(&self, space: Incarnation, key: &[u8], commits: u64) -> Option<&Bytes> {
        version_at(self.versions.get(&space)?.get(key)?, commits)
    }

    /// The first entry within bounds after `commits` commits, or the last one.
    pub fn entry(
        &self,
        space: Incarnation,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        first: bool,
        commits: u64,
    ) -> Option<(&[u8], &Bytes)> {
        if is_empty(range) {
            return None;
        }
        let mut range = self.versions.get(&space)?.range::<[u8], _>(range);
        loop {
            let (key, versions) = if first { range.next()? } else { range.next_back()? };
            if let Some(value) = version_at(versions, commits) {
                return Some((key, value));
            }
        }
    }

    /// A keyspace after `commits` commits.
    pub fn map(&self, space: Incarnation, commits: u64) -> Map {
        self.map_with(space, commits, u32::MAX)
    }

    /// A keyspace after `commits` commits; of those without a log record only the first `saved`
    /// count.
    pub fn map_with(&self, space: Incarnation, commits: u64, saved: u32) -> Map {
        let Some(versions) = self.versions.get(&space) else { return Map::new() };
        let counts = |at: u64| {
            let unlogged = at.checked_sub(1).and_then(|at| self.commits[at as usize].1);
            at <= commits && unlogged.is_none_or(|number| number <= saved)
        };
        let last = |versions: &Vec<(u64, Option<Bytes>)>| {
            versions.iter().rev().find(|(at, _)| counts(*at)).and_then(|(_, value)| value.clone())
        };
        versions.iter().filter_map(|(key, versions)| Some((key.clone(), last(versions)?))).collect()
    }

    // ---- after a crash ----

    /// Finds the place in the history of a database with these sums of all its keyspaces, or
    /// describes the violation. `contents` returns its entries for the message.
    pub fn find(
        &self,
        sums: &BTreeMap<u8, u128>,
        promise: &Promise,
        power_loss: bool,
        contents: impl FnOnce() -> Contents,
    ) -> Result<Place, String> {
        let mut spaces = promise.spaces.clone();
        if let Some((space, incarnation)) = promise.unsure
            && sums.contains_key(&space)
        {
            spaces.insert(space, incarnation);
        }
        if !spaces.keys().eq(sums.keys()) {
            return Err(format!(
                "O2: the keyspaces are {:?}, expected {:?}",
                sums.keys().collect::<Vec<_>>(),
                spaces.keys().collect::<Vec<_>>()
            ));
        }
        let floor = promise.floor(power_loss);
        let histories = || self.sums.iter().filter(|history| history.saved >= promise.saved);
        for commits in (floor..=promise.submitted).rev() {
            for history in histories() {
                if spaces.iter().all(|(space, inside)| history.at(commits, *inside) == sums[space]) {
                    return Ok(Place { commits, saved: history.saved, spaces });
                }
            }
        }
        Err(self.explain(&contents(), &spaces, promise, floor))
    }

    /// Describes the difference between an illegal state and the nearest place, or names the
    /// illegal place.
    fn explain(&self, contents: &Contents, spaces: &Spaces, promise: &Promise, floor: u64) -> String {
        let mut nearest: Option<(usize, u64, u32, String)> = None;
        for history in &self.sums {
            for commits in 0..=promise.submitted {
                let mut differences = Vec::new();
                for (space, incarnation) in spaces {
                    let want = self.map_with(*incarnation, commits, history.saved);
                    differences.extend(
                        self::differences(&contents[space], &want)
                            .into_iter()
                            .map(|text| format!("keyspace {space}: {text}")),
                    );
                }
                let is_legal = commits >= floor && history.saved >= promise.saved;
                // An illegal place counts only if it matches exactly.
                if (is_legal || differences.is_empty())
                    && nearest.as_ref().is_none_or(|(count, ..)| differences.len() < *count)
                {
                    differences.truncate(3);
                    let text = differences.join("; ");
                    nearest = Some((differences.len(), commits, history.saved, text));
                }
            }
        }
        let limits = format!("{floor} to {} commits, {} saved by flushes", promise.submitted, promise.saved);
        match nearest {
            Some((0, commits, saved, _)) => {
                format!("O1: the database holds {commits} commits ({saved} saved), the promise is {limits}")
            }
            Some((_, commits, saved, text)) => {
                format!(
                    "O2: no prefix of the history ({limits}) matches; the nearest has {commits} commits ({saved} saved): {text}"
                )
            }
            None => format!("O2: there is no legal prefix ({limits})"),
        }
    }
}

fn version_at(versions: &[(u64, Option<Bytes>)], commits: u64) -> Option<&Bytes> {
    // A commit may change a key twice; the last change counts.
    let count = versions.partition_point(|(at, _)| *at <= commits);
    versions[..count].last()?.1.as_ref()
}

/// Whether no key can be within bounds, which `BTreeMap::range` does not accept.
pub fn is_empty(range: (Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match range {
        (Bound::Included(lower), Bound::Included(upper)) => lower > upper,
        (
            Bound::Included(lower) | Bound::Excluded(lower),
            Bound::Included(upper) | Bound::Excluded(upper),
        ) => lower >= upper,
        _ => false,
    }
}

/// Describes the first difference of two keyspaces.
pub fn difference(got: &Map, want: &Map) -> Option<String> {
    if got == want { None } else { differences(got, want).into_iter().next() }
}

/// The differences of two keyspaces, as text.
pub fn differences(got: &Map, want: &Map) -> Vec<String> {
    let mut texts = Vec::new();
    for (key, value) in want {
        match got.get(key) {
            None => texts.push(format!("{} is missing", show_key(key))),
            Some(other) if other != value => {
                texts.push(format!("{} is {}, not {}", show_key(key), show_key(other), show_key(value)))
            }
            Some(_) => {}
        }
    }
    let extra = got.keys().filter(|key| !want.contains_key(*key));
    texts.extend(extra.map(|key| format!("{} should not be there", show_key(key))));
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> Bytes {
        text.as_bytes().into()
    }

    fn put(key: &str, value: &str) -> Change {
        (0, key.into(), Some(bytes(value)))
    }

    fn find(oracle: &Oracle, entries: &[(&str, &str)], promise: &Promise) -> Result<Place, String> {
        let map: Map = entries.iter().map(|(key, value)| (key.as_bytes().to_vec(), bytes(value))).collect();
        let sum = sum_of(map.iter().map(|(key, value)| (key.as_slice(), &value[..])));
        oracle.find(&BTreeMap::from([(0, sum)]), promise, true, || BTreeMap::from([(0, map.clone())]))
    }

    #[test]
    fn every_prefix_and_no_other_state_is_found() {
        let mut oracle = Oracle::new();
        for (i, changes) in
            [vec![put("a", "1"), put("b", "1")], vec![(0, b"a".to_vec(), None)], vec![put("c", "3")]]
                .into_iter()
                .enumerate()
        {
            oracle.submit(changes, Durability::Buffered);
            oracle.acknowledge(i == 0, None);
        }
        let promise = oracle.promise().clone();
        let commits = |entries: &[_]| find(&oracle, entries, &promise).map(|place| place.commits);
        assert_eq!(commits(&[("a", "1"), ("b", "1")]), Ok(1));
        assert_eq!(commits(&[("b", "1")]), Ok(2));
        assert_eq!(commits(&[("b", "1"), ("c", "3")]), Ok(3));
        assert!(commits(&[]).unwrap_err().starts_with("O1"), "an acknowledged commit is gone");
        assert!(commits(&[("a", "1")]).unwrap_err().starts_with("O2"), "half a batch");
        assert!(commits(&[("a", "1"), ("b", "1"), ("c", "3")]).unwrap_err().starts_with("O2"), "a gap");
    }

    #[test]
    fn unlogged_commits_go_latest_first() {
        let mut oracle = Oracle::new();
        for (key, durability) in [
            ("a", Durability::None),
            ("b", Durability::Buffered),
            ("c", Durability::None),
            ("d", Durability::Buffered),
        ] {
            oracle.submit(vec![put(key, "1")], durability);
            oracle.acknowledge(false, None);
        }
        let promise = oracle.promise().clone();
        let is_legal = |keys: &[&str]| {
            let entries: Vec<_> = keys.iter().map(|key| (*key, "1")).collect();
            find(&oracle, &entries, &promise).is_ok()
        };
        assert!(is_legal(&["b", "d"]) && is_legal(&["a", "b", "d"]) && is_legal(&["a", "b", "c", "d"]));
        assert!(is_legal(&["a"]) && is_legal(&[]) && is_legal(&["b"]));
        assert!(!is_legal(&["b", "c", "d"]) && !is_legal(&["d"]));
    }

    #[test]
    fn a_withdrawn_commit_never_happened() {
        let mut oracle = Oracle::new();
        oracle.submit(vec![put("a", "1")], Durability::Buffered);
        oracle.acknowledge(false, None);
        oracle.submit(vec![put("a", "2"), put("b", "2")], Durability::None);
        oracle.withdraw();
        oracle.submit(vec![put("a", "3")], Durability::Buffered);
        oracle.acknowledge(false, None);
        let promise = oracle.promise().clone();
        assert_eq!(find(&oracle, &[("a", "3")], &promise).unwrap().commits, 2);
        assert!(find(&oracle, &[("a", "2"), ("b", "2")], &promise).is_err());
        assert_eq!(oracle.get(0, b"b", 2), None);
    }
}
