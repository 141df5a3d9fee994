//! Damage of one sector of one file: every sector of a small database, in every way known from
//! disks.
//!
//! A database of several tables, a MANIFEST and a log is copied, one 512-byte sector of the copy is
//! damaged, and the copy is opened and read: every key, and scans in both directions. Reads return
//! the right data or an error with a file and an offset. Keys that do not need the damaged file are
//! still readable, a compaction does not copy damage into new tables, and an opening that fails
//! changes nothing. Every second database has secondary indexes, whose trees are damaged as well:
//! an index agrees with the rows, or returns such an error.
//!
//! *The limit.* Damage of bytes after the last witness of a sync (a sync mark, or the header of a
//! later segment) looks like the torn end of the log. If one sector holds a synced record together
//! with every witness of it, its loss goes unnoticed. Such runs are counted as *unwitnessed*. The
//! check parses the log independently to find the witnesses, so no other loss is counted as one.
use super::arguments::{Command, Run, Settings};
use super::jobs::replay_command;
use super::report::SeedReport;
use crate::harness::builder;
use crate::history::{COUNTER, SPACES, State, commit};
use crate::journal;
use crate::oracle::{Bytes, Map, difference};
use crate::sim::driver::Stop;
use crate::sim::indexes::{self, INDEXES, index_name, options};
use sapwood::{
    BackgroundStep, Db, DbBuilder, Durability, Env, Error, ErrorKind, Keyspace, KeyspaceOptions, Result,
};
use sapwood_base::format::log_record::{HEADER_BYTES, RecordKind, UNIT_BYTES, parse_header};
use sapwood_base::format::log_segment::{DATA_OFFSET, HEADER_BYTES as SEGMENT_HEADER_BYTES, SegmentHeader};
use sapwood_storage::sim::{Fault, FaultRule, Operation as Call, SECTOR_BYTES, SimFs};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const SECTOR: usize = SECTOR_BYTES as usize;

/// The damage of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// One bit is wrong.
    Flip,
    /// It holds zeros.
    Zero,
    /// It is swapped with the next one: a misplaced write.
    SwapNext,
    /// It is swapped with a sector of another file.
    SwapOther,
}

const DAMAGES: [Damage; 4] = [Damage::Flip, Damage::Zero, Damage::SwapNext, Damage::SwapOther];

/// The end of the database's process before the damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Closed: the log is empty.
    Closed,
    /// Killed, with synced and other commits in the log.
    Killed,
    /// Killed, opened, and killed again: a sealed part of the log, and an open one.
    KilledTwice,
}

const ENDS: [End; 3] = [End::Closed, End::Killed, End::KilledTwice];

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The opening returns an error.
    Refused,
    /// Some reads return errors.
    Partly,
    /// Every row is present.
    Harmless,
    /// Unsynced commits are missing that look like the torn end of the log.
    Shorter,
    /// Synced commits are missing, too, with every witness of their sync.
    Unwitnessed,
}

type Outcome<T> = std::result::Result<T, String>;

/// A closed or killed database, and its content.
struct Fixture {
    end: End,
    seed: u64,
    has_indexes: bool,
    env: Env,
    fs: SimFs,
    /// The number of its commits.
    count: u64,
    /// Commits in tables, or in a sealed part of the log: their loss is detected whatever is
    /// damaged.
    settled: u64,
    /// Synced commits of the open part, and their positions.
    synced: Vec<(u64, u64)>,
    witnesses: Vec<Witness>,
    /// Sectors to damage: file and number.
    sectors: Vec<(PathBuf, usize)>,
    images: BTreeMap<PathBuf, Vec<u8>>,
    /// Per table, the keys that cannot be read without it.
    needs: BTreeMap<PathBuf, BTreeSet<(usize, Vec<u8>)>>,
    /// The same without the log: if the log has become shorter, reads of its keys need the tables.
    needs_below_log: BTreeMap<PathBuf, BTreeSet<(usize, Vec<u8>)>>,
    /// Every key that was ever written.
    universe: Vec<(usize, Vec<u8>)>,
    /// The state after some number of commits.
    states: Mutex<BTreeMap<u64, Arc<[Map; 2]>>>,
}

/// Bytes that prove that everything below a position had been synced.
struct Witness {
    file: PathBuf,
    bytes: Range<usize>,
    durable_position: u64,
}

/// Seeds per database. The sectors are dealt out to the seeds in turn.
const SLICES: u64 = 16;

/// The sub-command.
pub const COMMAND: Command = Command {
    name: "sector",
    help: "every sector of every file of a small database is damaged; checks for the right data or an error with the place",
    options: &[
        ("--indexes", "", "every database has secondary indexes, not only every second one"),
        ("--only", "N", "only the run with this number, of the runs of the seed"),
        ("--one-in", "N", "only one run in N of the runs of the seed"),
    ],
    run: Run::Seeds {
        seed,
        counts: &[
            "runs",
            "refused",
            "partly readable",
            "harmless",
            "unsynced commits missing",
            "unwitnessed",
        ],
        seconds: 60,
        seeds: 0..SLICES * ENDS.len() as u64,
    },
};

/// Runs the share of one seed: `seed / 48` determines the database, `seed % 3` its end, and
/// `seed / 3 % 16` the share.
pub fn seed(seed: u64, settings: &Settings) -> SeedReport {
    let ends = ENDS.len() as u64;
    let database = seed / ends / SLICES;
    let has_indexes = database % 2 == 1 || settings.has("--indexes");
    let fixture = Fixture::new(ENDS[(seed % ends) as usize], database, has_indexes);
    let slice = seed / ends % SLICES;
    let mut report = SeedReport { counts: vec![0; 6], violations: Vec::new() };
    let only = settings.number("--only");
    let (one_in, mut ours) = (settings.number("--one-in").unwrap_or(1).max(1), 0);
    for number in 0..fixture.sectors.len() as u64 * DAMAGES.len() as u64 {
        // Neighbouring sectors belong to different seeds, so that each seed covers every file and
        // every kind of damage.
        let is_ours = (number / DAMAGES.len() as u64 + number % DAMAGES.len() as u64) % SLICES == slice;
        if !is_ours || only.is_some_and(|only| only != number) {
            continue;
        }
        ours += 1;
        if !u64::is_multiple_of(ours, one_in) {
            continue;
        }
        let verdict = catch_unwind(AssertUnwindSafe(|| fixture.damaged(number)))
            .unwrap_or_else(|panic| Err(format!("panic: {}", message_of(&*panic))));
        match verdict {
            Ok(None) => {}
            Ok(Some(verdict)) => {
                report.counts[0] += 1;
                report.counts[1 + verdict as usize] += 1;
            }
            Err(message) => {
                let indexes = if settings.has("--indexes") { " --indexes" } else { "" };
                let replay = format!("{} --only {number}{indexes}", replay_command("sector", seed));
                report.violations.push(format!("seed {seed}: {message}\n  replay with: {replay}"));
            }
        }
    }
    report
}

fn spaces(db: &Db) -> Result<[Keyspace; 2]> {
    Ok([
        db.keyspace(SPACES[0], KeyspaceOptions::default())?,
        db.keyspace(SPACES[1], KeyspaceOptions::default())?,
    ])
}

/// The indexes of the keyspaces: one of each kind.
fn all_indexes() -> impl Iterator<Item = (usize, u8)> {
    (0..INDEXES).map(|index| (usize::from(index) % SPACES.len(), index))
}

impl Fixture {
    fn new(end: End, seed: u64, has_indexes: bool) -> Fixture {
        let (env, fs) = Env::sim_manual(seed);
        let mut fixture = Fixture {
            end,
            seed,
            has_indexes,
            env,
            fs,
            count: 0,
            settled: 0,
            synced: Vec::new(),
            witnesses: Vec::new(),
            sectors: Vec::new(),
            images: BTreeMap::new(),
            needs: BTreeMap::new(),
            needs_below_log: BTreeMap::new(),
            universe: Vec::new(),
            states: Mutex::default(),
        };
        let db = fixture.open(&fixture.env).expect("a healthy machine");
        if has_indexes {
            let spaces = spaces(&db).expect("a healthy machine");
            for (space, index) in all_indexes() {
                spaces[space].create_index(&index_name(index), options(index)).expect("a healthy machine");
            }
        }
        fixture.work(&db, 500);
        db.compact().expect("a healthy machine");
        // Runs of level 0 above it.
        for _ in 0..2 {
            fixture.work(&db, 60);
            db.flush().expect("a healthy machine");
        }
        fixture.settle();
        let tables_alone = fixture.fs.kill();
        if end == End::Closed {
            db.close().expect("a healthy machine");
        } else {
            fixture.work(&db, 40);
        }
        fixture.stop();
        drop(db);
        if end == End::KilledTwice {
            // Syncs the whole replayed log, and records it in the MANIFEST.
            let db = fixture.open(&fixture.env).expect("a healthy machine");
            db.background_step(BackgroundStep::Log).expect("a healthy machine");
            fixture.settle();
            fixture.work(&db, 40);
            fixture.stop();
            drop(db);
        }
        fixture.images = fixture
            .fs
            .files()
            .into_iter()
            .filter(|path| !path.ends_with("LOCK"))
            .map(|path| {
                let bytes = fixture.fs.read_file(&path).expect("listed");
                (path, bytes)
            })
            .collect();
        fixture.witnesses = fixture.images.iter().flat_map(|(path, bytes)| witnesses(path, bytes)).collect();
        fixture.sectors = fixture.images.iter().flat_map(|(path, bytes)| sectors(path, bytes)).collect();
        fixture.universe = fixture.all_keys();
        for path in fixture.images.keys().filter(|path| is_table(path)) {
            let (keys, below) =
                (fixture.keys_that_need(path, &fixture.fs), fixture.keys_that_need(path, &tables_alone));
            fixture.needs.insert(path.clone(), keys);
            fixture.needs_below_log.insert(path.clone(), below);
        }
        fixture
    }

    /// The builder of the database, with the code of its indexes.
    fn builder(&self, env: &Env) -> DbBuilder {
        let builder = builder("/db", env);
        match self.has_indexes {
            true => all_indexes().fold(builder, |builder, (space, index)| {
                builder.index(SPACES[space], &index_name(index), options(index))
            }),
            false => builder,
        }
    }

    fn open(&self, env: &Env) -> Result<Db> {
        let small_blocks = |options: &mut sapwood::AdvancedOptions| {
            options.target_file_bytes = 24 << 10;
            options.block_bytes = 1024;
            options.disable_auto_compactions = true;
        };
        self.builder(env).advanced(small_blocks).open()
    }

    /// Executes the next `count` commits of the history.
    fn work(&mut self, db: &Db, count: u64) {
        let spaces = spaces(db).expect("a healthy machine");
        for number in self.count + 1..=self.count + count {
            let commit = commit(self.seed, number);
            let mut batch = db.batch();
            journal::fill(&mut batch, &spaces, &commit.writes);
            // More synced commits than in the history itself, so that many of them are the last
            // one.
            let durability = match number % 7 {
                0 => Durability::Sync,
                _ => Durability::Buffered,
            };
            let done = batch.commit_durable(durability).expect("a healthy machine");
            if durability == Durability::Sync {
                self.synced.push((number, done.sequence().0));
            }
        }
        self.count += count;
    }

    /// From here on a loss of the present commits is always detected.
    fn settle(&mut self) {
        self.settled = self.count;
        self.synced.clear();
    }

    /// Ends the process, without the remaining calls of the database.
    fn stop(&mut self) {
        self.fs.crash_at(0);
        self.fs = self.fs.kill();
        self.env = self.env.with_file_system(Arc::new(self.fs.clone()));
    }

    fn state(&self, count: u64) -> Arc<[Map; 2]> {
        let mut states = self.states.lock().expect("nothing panics here");
        let known = states.entry(count).or_insert_with(|| {
            let mut state = State::new(self.seed);
            state.advance_to(count);
            Arc::new(state.maps)
        });
        known.clone()
    }

    fn all_keys(&self) -> Vec<(usize, Vec<u8>)> {
        let mut keys = BTreeSet::new();
        for number in 1..=self.count {
            let writes = commit(self.seed, number).writes.into_iter();
            keys.extend(writes.map(|(space, key, _)| (usize::from(space), key)));
        }
        keys.into_iter().collect()
    }

    fn keys_that_need(&self, path: &Path, fs: &SimFs) -> BTreeSet<(usize, Vec<u8>)> {
        let fs = fs.kill();
        let db = self.open(&self.env.with_file_system(Arc::new(fs.clone()))).expect("a healthy copy");
        let spaces = spaces(&db).expect("a healthy copy");
        for call in [Call::Read, Call::Open] {
            fs.fail(FaultRule::new(call, Fault::Io).on(path.to_string_lossy()).sticky());
        }
        let is_needed = |(space, key): &&(usize, Vec<u8>)| spaces[*space].get(key).is_err();
        let keys = self.universe.iter().filter(is_needed).cloned().collect();
        fs.crash_at(0);
        keys
    }

    /// One run.
    fn damaged(&self, number: u64) -> Outcome<Option<Verdict>> {
        let (path, sector) = &self.sectors[number as usize / DAMAGES.len()];
        let damage = DAMAGES[number as usize % DAMAGES.len()];
        let mut random = fastrand::Rng::with_seed(self.seed ^ number << 8);
        let mut images = BTreeMap::from([(path.clone(), self.images[path].clone())]);
        let range = |path: &Path, sector: usize| {
            sector * SECTOR..((sector + 1) * SECTOR).min(self.images[path].len())
        };
        let here = range(path, *sector);
        let mut places = vec![(path.clone(), here.clone())];
        match damage {
            Damage::Flip => {
                let at = random.usize(here.clone());
                images.get_mut(path).expect("just put there")[at] ^= 1 << random.u8(..8);
            }
            Damage::Zero => images.get_mut(path).expect("just put there")[here.clone()].fill(0),
            Damage::SwapNext | Damage::SwapOther => {
                let (other, other_sector) = match damage {
                    Damage::SwapNext => (path.clone(), sector + 1),
                    _ => self.sectors[random.usize(..self.sectors.len())].clone(),
                };
                if other_sector * SECTOR >= self.images[&other].len() {
                    return Ok(None);
                }
                let there = range(&other, other_sector);
                let len = here.len().min(there.len());
                let (here, there) = (here.start..here.start + len, there.start..there.start + len);
                let other_image = self.images[&other].clone();
                images.get_mut(path).expect("just put there")[here.clone()]
                    .copy_from_slice(&other_image[there.clone()]);
                images.entry(other.clone()).or_insert(other_image)[there.clone()]
                    .copy_from_slice(&self.images[path][here]);
                places.push((other, there));
            }
        }
        if images.iter().all(|(path, image)| *image == self.images[path]) {
            return Ok(None);
        }
        let fs = self.fs.kill();
        for (path, image) in &images {
            fs.write_file(path, image).expect("the file is there");
        }
        let case = Case { fixture: self, places, fs, number };
        case.check().map(Some).map_err(|message| {
            format!("{damage:?} of sector {sector} of {} ({:?}): {message}", path.display(), self.end)
        })
    }
}

/// A damaged copy.
struct Case<'f> {
    fixture: &'f Fixture,
    places: Vec<(PathBuf, Range<usize>)>,
    fs: SimFs,
    number: u64,
}

impl Case<'_> {
    fn check(&self) -> Outcome<Verdict> {
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
                    return Err(format!("the opening failed ({error}) and changed files"));
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
    fn is_typed(&self, error: &Error) -> Outcome<()> {
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
    fn floor(&self) -> u64 {
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

    fn read_all(&self, db: &Db) -> Outcome<Verdict> {
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
    fn ask_indexes(&self, spaces: &[Keyspace; 2], state: &[Map; 2]) -> Outcome<u64> {
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
    fn get(&self, number: usize, space: &Keyspace, key: &[u8]) -> Outcome<Option<Option<Vec<u8>>>> {
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
    fn scan(&self, space: &Keyspace, want: &Map, backwards: bool) -> Outcome<bool> {
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

fn files(fs: &SimFs) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs.files().into_iter().filter(|path| !path.ends_with("LOCK"));
    paths.map(|path| (path.clone(), fs.read_file(&path).expect("listed"))).collect()
}

fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sst")
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "wal")
}

/// The sectors of a file to damage: all, but only a few of the log's unwritten ones.
fn sectors(path: &Path, bytes: &[u8]) -> Vec<(PathBuf, usize)> {
    let is_worth = |(at, sector): &(usize, &[u8])| at % 16 == 3 || sector.iter().any(|byte| *byte != 0);
    let worth = bytes.chunks(SECTOR).enumerate().filter(is_worth);
    worth.map(|(at, _)| (path.to_path_buf(), at)).collect()
}

/// The witnesses in a segment of the log.
fn witnesses(path: &Path, bytes: &[u8]) -> Vec<Witness> {
    let mut found = Vec::new();
    let Some(first) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>().filter(|_| is_log(path)) else {
        return found;
    };
    let Ok(Some(header)) = SegmentHeader::decode(first) else { return found };
    let mut add = |bytes, durable_position| {
        found.push(Witness { file: path.to_path_buf(), bytes, durable_position });
    };
    add(0..SEGMENT_HEADER_BYTES, header.durable_position);
    for start in (DATA_OFFSET..bytes.len()).step_by(UNIT_BYTES) {
        let position = header.base_position + ((start - DATA_OFFSET) / UNIT_BYTES) as u64;
        let rest = &bytes[start..];
        let Some(record) = rest.first_chunk::<HEADER_BYTES>().and_then(|bytes| parse_header(bytes, position))
        else {
            continue;
        };
        if record.kind == RecordKind::SyncMark
            && record.payload_bytes == 8
            && record.verify(rest, header.database, position)
            && let Some(payload) = rest[HEADER_BYTES..].first_chunk()
        {
            add(start..start + HEADER_BYTES + 8, u64::from_le_bytes(*payload));
        }
    }
    found
}

fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    match panic.downcast_ref::<&str>() {
        Some(text) => (*text).to_string(),
        None => panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "not a text".to_string()),
    }
}
