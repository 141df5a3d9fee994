//! A closed or killed database, its content, and the bytes that prove its syncs.
use super::case::Case;
use super::{DAMAGES, Damage, End, Outcome, SECTOR, Verdict, is_log};
use crate::harness::builder;
use crate::history::{SPACES, State, commit};
use crate::journal;
use crate::oracle::Map;
use crate::sim::indexes::{INDEXES, index_name, options};
use sapwood::{BackgroundStep, Db, DbBuilder, Durability, Env, Keyspace, KeyspaceOptions, Result};
use sapwood_base::format::log_record::{
    HEADER_BYTES, MARK_PAYLOAD_BYTES, RecordKind, UNIT_BYTES, parse_header,
};
use sapwood_base::format::log_segment::{DATA_OFFSET, HEADER_BYTES as SEGMENT_HEADER_BYTES, SegmentHeader};
use sapwood_storage::sim::{Fault, FaultRule, Operation as Call, SimFs};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// A closed or killed database, and its content.
pub(super) struct Fixture {
    pub(super) end: End,
    pub(super) seed: u64,
    pub(super) has_indexes: bool,
    pub(super) env: Env,
    pub(super) fs: SimFs,
    /// The number of its commits.
    pub(super) count: u64,
    /// Commits in tables, or in a sealed part of the log: their loss is detected whatever is
    /// damaged.
    pub(super) settled: u64,
    /// Synced commits of the open part, and their positions.
    pub(super) synced: Vec<(u64, u64)>,
    pub(super) witnesses: Vec<Witness>,
    /// Sectors to damage: file and number.
    pub(super) sectors: Vec<(PathBuf, usize)>,
    pub(super) images: BTreeMap<PathBuf, Vec<u8>>,
    /// Per table, the keys that cannot be read without it.
    pub(super) needs: BTreeMap<PathBuf, BTreeSet<(usize, Vec<u8>)>>,
    /// The same without the log: if the log has become shorter, reads of its keys need the tables.
    pub(super) needs_below_log: BTreeMap<PathBuf, BTreeSet<(usize, Vec<u8>)>>,
    /// Every key that was ever written.
    pub(super) universe: Vec<(usize, Vec<u8>)>,
    /// The state after some number of commits.
    pub(super) states: Mutex<BTreeMap<u64, Arc<[Map; 2]>>>,
}

impl Fixture {
    pub(super) fn new(end: End, seed: u64, has_indexes: bool) -> Fixture {
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
    pub(super) fn builder(&self, env: &Env) -> DbBuilder {
        let builder = builder("/db", env);
        match self.has_indexes {
            true => all_indexes().fold(builder, |builder, (space, index)| {
                builder.index(SPACES[space], &index_name(index), options(index))
            }),
            false => builder,
        }
    }

    pub(super) fn open(&self, env: &Env) -> Result<Db> {
        let small_blocks = |options: &mut sapwood::AdvancedOptions| {
            options.target_file_bytes = 24 << 10;
            options.block_bytes = 1024;
            options.disable_auto_compactions = true;
        };
        self.builder(env).advanced(small_blocks).open()
    }

    /// Executes the next `count` commits of the history.
    pub(super) fn work(&mut self, db: &Db, count: u64) {
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
    pub(super) fn settle(&mut self) {
        self.settled = self.count;
        self.synced.clear();
    }

    /// Ends the process, without the remaining calls of the database.
    pub(super) fn stop(&mut self) {
        self.fs.crash_at(0);
        self.fs = self.fs.kill();
        self.env = self.env.with_file_system(Arc::new(self.fs.clone()));
    }

    pub(super) fn state(&self, count: u64) -> Arc<[Map; 2]> {
        let mut states = self.states.lock().expect("nothing panics here");
        let known = states.entry(count).or_insert_with(|| {
            let mut state = State::new(self.seed);
            state.advance_to(count);
            Arc::new(state.maps)
        });
        known.clone()
    }

    pub(super) fn all_keys(&self) -> Vec<(usize, Vec<u8>)> {
        let mut keys = BTreeSet::new();
        for number in 1..=self.count {
            let writes = commit(self.seed, number).writes.into_iter();
            keys.extend(writes.map(|(space, key, _)| (usize::from(space), key)));
        }
        keys.into_iter().collect()
    }

    pub(super) fn keys_that_need(&self, path: &Path, fs: &SimFs) -> BTreeSet<(usize, Vec<u8>)> {
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
    pub(super) fn damaged(&self, number: u64) -> Outcome<Option<Verdict>> {
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

/// Bytes that prove that everything below a position had been synced.
pub(super) struct Witness {
    pub(super) file: PathBuf,
    pub(super) bytes: Range<usize>,
    pub(super) durable_position: u64,
}

pub(super) fn spaces(db: &Db) -> Result<[Keyspace; 2]> {
    Ok([
        db.keyspace(SPACES[0], KeyspaceOptions::default())?,
        db.keyspace(SPACES[1], KeyspaceOptions::default())?,
    ])
}

/// The indexes of the keyspaces: one of each kind.
pub(super) fn all_indexes() -> impl Iterator<Item = (usize, u8)> {
    (0..INDEXES).map(|index| (usize::from(index) % SPACES.len(), index))
}

pub(super) fn is_table(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sst")
}

/// The sectors of a file to damage: all, but only a few of the log's unwritten ones.
pub(super) fn sectors(path: &Path, bytes: &[u8]) -> Vec<(PathBuf, usize)> {
    let is_worth = |(at, sector): &(usize, &[u8])| at % 16 == 3 || sector.iter().any(|byte| *byte != 0);
    let worth = bytes.chunks(SECTOR).enumerate().filter(is_worth);
    worth.map(|(at, _)| (path.to_path_buf(), at)).collect()
}

/// The witnesses in a segment of the log.
pub(super) fn witnesses(path: &Path, bytes: &[u8]) -> Vec<Witness> {
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
            && record.payload_bytes as usize == MARK_PAYLOAD_BYTES
            && record.verify(rest, header.database, position)
            && let Some(payload) = rest[HEADER_BYTES..].first_chunk()
        {
            add(start..start + HEADER_BYTES + MARK_PAYLOAD_BYTES, u64::from_le_bytes(*payload));
        }
    }
    found
}
