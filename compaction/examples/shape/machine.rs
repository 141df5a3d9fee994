//! A keyspace without files: executes what the picker picks on counts of keys.
use crate::workload::{Count, Workload};
use sapwood_base::format::manifest::TableMeta;
use sapwood_base::{FileNumber, KeyspaceId, SequenceNumber};
use sapwood_compaction::held::Hidden;
use sapwood_compaction::picker::{self, Compaction, Interrupted, Moment, Work};
use sapwood_compaction::version::{Run, RunTable, TableHandle, Version};
use sapwood_compaction::{CompactionOptions, LAST_LEVEL};
use sapwood_storage::DatabaseFiles;
use sapwood_storage::cache::BufferCache;
use sapwood_storage::env::Env;
use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes of an entry in a file. Only ratios count.
pub const ENTRY: f64 = 128.0;

/// The content of a table: `cells` of the key axis, and counts cell by cell, class by class.
struct Content {
    cells: Range<usize>,
    counts: Vec<Count>,
}

/// Figures of a simulation, in bytes where nothing else is said.
#[derive(Clone, Copy, Default, Debug)]
pub struct Figures {
    /// Written by the program.
    pub user: f64,
    /// Written to the log, by flushes, and by compactions.
    pub written: f64,
    /// Read by compactions.
    pub read: f64,
    /// The most that files held, relative to live rows at that time.
    pub peak_space: f64,
    /// Sum of the number of runs after each flush, and the number of flushes.
    pub runs: f64,
    pub flushes: f64,
    pub peak_runs: usize,
    /// The most runs in level 0.
    pub peak_level0: usize,
    /// Bytes of compaction that writers had to wait for.
    pub waited: f64,
    /// Relative to live rows, after all work of an idle database.
    pub settled_space: f64,
    pub settled_runs: usize,
    pub settled_written: f64,
}

pub struct Machine<'a> {
    workload: &'a Workload,
    options: CompactionOptions,
    files: Arc<DatabaseFiles>,
    version: Version,
    contents: HashMap<FileNumber, Content>,
    next: u64,
    job: Option<Job>,
    interrupted: Vec<Arc<Interrupted>>,
    /// Bytes that the background may write now.
    budget: f64,
    pub figures: Figures,
}

/// A compaction under way: its inputs are consumed cell by cell.
struct Job {
    compaction: Compaction,
    pieces: Vec<Range<usize>>,
}

/// Tables of a job that overlap each other, or are small neighbours.
struct Cluster {
    cells: Range<usize>,
    /// With the numbers of their inputs.
    members: Vec<(usize, RunTable)>,
    are_small: bool,
}

const KEYSPACE: KeyspaceId = KeyspaceId(0);
/// Level 0 at this many times its trigger stops the writer until it shrinks.
const LEVEL0_STOP: usize = 3;

impl<'a> Machine<'a> {
    pub fn new(workload: &'a Workload, options: CompactionOptions) -> Machine<'a> {
        let (env, _) = Env::sim_manual(1);
        let (obsolete, _) = crossbeam::channel::unbounded();
        let cache = BufferCache::new(1 << 20).expect("a cache of 1 MiB");
        let files = Arc::new(DatabaseFiles::new(env.fs().clone(), PathBuf::from("db"), cache, obsolete));
        Machine {
            workload,
            options,
            files,
            version: Version::default(),
            contents: HashMap::new(),
            next: 1,
            job: None,
            interrupted: Vec::new(),
            budget: 0.0,
            figures: Figures::default(),
        }
    }

    /// Puts all rows into the last level.
    pub fn begin_full(&mut self) {
        let classes = self.workload.classes.len();
        let counts = (0..self.workload.cells * classes)
            .map(|place| Count { rows: self.workload.classes[place % classes].0, tombstones: 0.0 })
            .collect();
        let run = self.number();
        let tables = self.cut(LAST_LEVEL, run, 0..self.workload.cells, counts);
        self.version.runs.push(Arc::new(Run::new(LAST_LEVEL, run, tables)));
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// One memtable of `rows` operations is written and flushed, while the background writes up to
    /// `bandwidth` bytes per byte of the program.
    pub fn flush(&mut self, written: f64, rows: f64, bandwidth: f64) {
        let counts = self.workload.flush(written, rows);
        let user = rows * ENTRY;
        let bytes: f64 = counts.iter().map(Count::entries).sum::<f64>() * ENTRY;
        self.figures.user += user;
        self.figures.written += user + bytes;
        self.figures.flushes += 1.0;
        let run = self.number();
        let (whole, saved) = (0..self.workload.cells, self.options.target_file_bytes);
        self.options.target_file_bytes = u64::MAX;
        let tables = self.cut(0, run, whole, counts);
        self.options.target_file_bytes = saved;
        if !tables.is_empty() {
            self.version.runs.insert(0, Arc::new(Run::new(0, run, tables)));
        }
        self.budget = (self.budget + user * bandwidth).min(user * bandwidth.max(1.0));
        self.work(false);
        while self.version.level(0).count() >= self.options.level0_runs * LEVEL0_STOP {
            let before = self.version.level(0).count();
            self.budget += user;
            self.figures.waited += user;
            self.work(false);
            if self.job.is_none() && self.version.level(0).count() >= before {
                break;
            }
        }
        self.figures.runs += self.version.runs.len() as f64;
        self.figures.peak_runs = self.figures.peak_runs.max(self.version.runs.len());
        self.figures.peak_level0 = self.figures.peak_level0.max(self.version.level(0).count());
    }

    /// All work of an idle database.
    pub fn settle(&mut self) {
        let before = self.figures.written;
        self.budget = f64::INFINITY;
        self.work(true);
        self.figures.settled_space = self.space(0.0);
        self.figures.settled_runs = self.version.runs.len();
        self.figures.settled_written = self.figures.written - before;
        self.figures.written = before;
    }

    /// Works while the budget lasts.
    fn work(&mut self, idle: bool) {
        while self.budget > 0.0 {
            if self.job.is_none() && !self.pick(idle) {
                break;
            }
            self.step();
        }
    }

    fn pick(&mut self, idle: bool) -> bool {
        loop {
            let moment = Moment { idle, snapshots: &[], interrupted: &self.interrupted };
            match picker::pick(KEYSPACE, &self.version, &self.options, &moment) {
                None => return false,
                Some(Work::Survey(survey)) => {
                    for (run, table) in &survey.hiding {
                        let bytes = (self.hidden_by(*run, table) * ENTRY) as u64;
                        table.set_hides(Hidden { entries: bytes / ENTRY as u64, bytes });
                    }
                }
                Some(Work::Merge(mut compaction)) => {
                    if compaction.target_run == 0 {
                        compaction.target_run = self.number();
                    }
                    let merge = Interrupted::new(&compaction, idle);
                    Interrupted::begin(&mut self.interrupted, merge, &self.version);
                    let pieces = self.pieces(&compaction);
                    self.job = Some(Job { compaction, pieces });
                    return true;
                }
            }
        }
    }

    /// Moves the tables that overlap nothing; returns the slices of the rest, last first.
    fn pieces(&mut self, compaction: &Compaction) -> Vec<Range<usize>> {
        let mut tables: Vec<(usize, RunTable)> = Vec::new();
        for (input, run) in compaction.inputs.iter().enumerate() {
            tables.extend(run.tables.iter().map(|table| (input, table.clone())));
        }
        tables.sort_by(|a, b| a.1.first().cmp(b.1.first()));
        let mut clusters: Vec<Cluster> = Vec::new();
        for (input, table) in tables {
            let (from, to) = (cell_of(table.first()), cell_of(table.last()) + 1);
            let is_small = self.options.is_small(table.handle.file_bytes());
            match clusters.last_mut() {
                Some(cluster) if from < cluster.cells.end || cluster.are_small && is_small => {
                    cluster.cells.end = cluster.cells.end.max(to);
                    cluster.are_small &= is_small;
                    cluster.members.push((input, table));
                }
                _ => {
                    let members = vec![(input, table)];
                    clusters.push(Cluster { cells: from..to, members, are_small: is_small });
                }
            }
        }
        let mut pieces = Vec::new();
        for Cluster { cells, members, .. } in clusters {
            if let [(input, table)] = members.as_slice() {
                let run = &compaction.inputs[*input];
                if !compaction.is_target(run) {
                    self.remove(run.level, run.id, table.handle.file());
                    self.add(compaction.target_level, compaction.target_run, vec![table.clone()]);
                }
                continue;
            }
            let bytes: u64 = members.iter().map(|(_, table)| table.handle.file_bytes()).sum();
            let slices = (bytes / self.options.slice_bytes.max(1) + 1).min(cells.len() as u64) as usize;
            let cut = |number: usize| cells.start + cells.len() * number / slices;
            pieces.extend((0..slices).map(|number| cut(number)..cut(number + 1)));
        }
        pieces.reverse();
        pieces
    }

    /// Merges one slice.
    fn step(&mut self) {
        let Some(mut job) = self.job.take() else { return };
        let Some(cells) = job.pieces.pop() else { return };
        let (level, run) = (job.compaction.target_level, job.compaction.target_run);
        let is_last = level == LAST_LEVEL;
        let mut stack: Vec<Vec<Count>> = Vec::new();
        let mut consumed = Vec::new();
        for input in &job.compaction.inputs {
            // The run as it is now: earlier slices have cut its tables.
            let own = |run: &&Arc<Run>| (run.level, run.id) == (input.level, input.id);
            let Some(now) = self.version.runs.iter().find(own).cloned() else { continue };
            let chosen = |table: &&RunTable| {
                input.tables.iter().any(|other| other.handle.file() == table.handle.file())
            };
            let mut counts = vec![Count::default(); cells.len() * self.workload.classes.len()];
            for table in now.tables.iter().filter(chosen) {
                let Some(both) = self.both(table, &cells) else { continue };
                self.copy(table, &both, cells.start, &mut counts);
                consumed.push((now.level, now.id, table.clone()));
            }
            stack.push(counts);
        }
        let mut merged = vec![Count::default(); cells.len() * self.workload.classes.len()];
        for counts in &stack {
            self.figures.read += counts.iter().map(Count::entries).sum::<f64>() * ENTRY;
            self.put_below(&mut merged, counts);
        }
        if is_last {
            merged.iter_mut().for_each(|count| count.tombstones = 0.0);
        }
        let bytes = merged.iter().map(Count::entries).sum::<f64>() * ENTRY;
        self.figures.written += bytes;
        self.budget -= bytes;
        self.note_space(bytes);
        for (level, run, table) in consumed {
            self.remove(level, run, table.handle.file());
            let end = cell_of(table.last()) + 1;
            if end > cells.end {
                let mut meta = (*table.meta).clone();
                meta.lower = Some(key_of(cells.end));
                self.add(level, run, vec![RunTable::new(table.handle.clone(), meta)]);
            } else {
                self.contents.remove(&table.handle.file());
            }
        }
        let tables = self.cut(level, run, cells, merged);
        self.add(level, run, tables);
        if job.pieces.is_empty() {
            self.interrupted.pop();
        } else if !picker::gives_way(&job.compaction, &self.version, &self.options, &[]) {
            self.job = Some(job);
        }
    }

    /// The cells of `cells` in the live part of a table.
    fn both(&self, table: &RunTable, cells: &Range<usize>) -> Option<Range<usize>> {
        let from = cell_of(table.first()).max(cells.start);
        let to = (cell_of(table.last()) + 1).min(cells.end);
        (from < to).then_some(from..to)
    }

    fn copy(&self, table: &RunTable, cells: &Range<usize>, origin: usize, into: &mut [Count]) {
        let content = &self.contents[&table.handle.file()];
        let classes = self.workload.classes.len();
        for place in cells.start * classes..cells.end * classes {
            into[place - origin * classes] = content.counts[place - content.cells.start * classes];
        }
    }

    /// Adds older `counts` below `merged`: what newer entries do not hide.
    fn put_below(&self, merged: &mut [Count], counts: &[Count]) {
        for (place, (newer, older)) in merged.iter_mut().zip(counts).enumerate() {
            let free = 1.0 - self.share_hidden(place, newer);
            newer.rows += older.rows * free;
            newer.tombstones += older.tombstones * free;
        }
    }

    /// The share of older entries that `newer` hides.
    fn share_hidden(&self, place: usize, newer: &Count) -> f64 {
        let keys = self.workload.classes[place % self.workload.classes.len()].0;
        let hiding = if self.workload.kind.is_ordered() { newer.tombstones } else { newer.entries() };
        (hiding / keys).min(1.0)
    }

    /// Older entries that `table`, of run number `run`, hides.
    fn hidden_by(&self, run: usize, table: &RunTable) -> f64 {
        let cells = cell_of(table.first())..cell_of(table.last()) + 1;
        let mut own = vec![Count::default(); cells.len() * self.workload.classes.len()];
        self.copy(table, &cells, cells.start, &mut own);
        let mut below = vec![Count::default(); own.len()];
        for run in &self.version.runs[run + 1..] {
            let mut counts = vec![Count::default(); own.len()];
            for other in &run.tables {
                if let Some(both) = self.both(other, &cells) {
                    self.copy(other, &both, cells.start, &mut counts);
                }
            }
            self.put_below(&mut below, &counts);
        }
        own.iter()
            .zip(&below)
            .enumerate()
            .map(|(place, (own, below))| self.share_hidden(place, own) * below.rows)
            .sum()
    }

    /// Cuts the content of `cells` into tables.
    fn cut(&mut self, level: u8, run: u64, cells: Range<usize>, counts: Vec<Count>) -> Vec<RunTable> {
        let classes = self.workload.classes.len();
        let mut tables = Vec::new();
        let (mut from, mut entries) = (0, 0.0);
        for at in 0..cells.len() {
            let own: f64 = counts[at * classes..(at + 1) * classes].iter().map(Count::entries).sum();
            entries += own;
            if own < 1.0 && entries < 1.0 {
                from = at + 1;
                entries = 0.0;
                continue;
            }
            let is_last = at + 1 == cells.len();
            if is_last || entries * ENTRY >= self.options.target_file_bytes as f64 {
                let part = counts[from * classes..(at + 1) * classes].to_vec();
                tables.push(self.table(level, run, cells.start + from..cells.start + at + 1, part));
                (from, entries) = (at + 1, 0.0);
            }
        }
        tables
    }

    fn table(&mut self, level: u8, run: u64, mut cells: Range<usize>, mut counts: Vec<Count>) -> RunTable {
        // Bounds are those of keys that exist.
        let classes = self.workload.classes.len();
        while cells.len() > 1 && counts[counts.len() - classes..].iter().all(|c| c.entries() < 1e-6) {
            cells.end -= 1;
            counts.truncate(counts.len() - classes);
        }
        let file = FileNumber(self.number());
        let entries: f64 = counts.iter().map(Count::entries).sum();
        let meta = TableMeta {
            keyspace: KEYSPACE,
            level,
            run,
            file,
            file_bytes: (entries * ENTRY).max(1.0) as u64,
            entries: entries.max(1.0) as u64,
            tombstones: counts.iter().map(|count| count.tombstones).sum::<f64>() as u64,
            smallest: key_of(cells.start),
            largest: key_of(cells.end - 1),
            min_sequence: SequenceNumber(if level == LAST_LEVEL { 0 } else { 1 }),
            max_sequence: SequenceNumber(if level == LAST_LEVEL { 0 } else { file.0 }),
            lower: None,
            unknown: Default::default(),
        };
        let handle = TableHandle::new(&self.files, file, meta.file_bytes);
        handle.set_held(Default::default());
        self.contents.insert(file, Content { cells, counts });
        RunTable::new(handle, meta)
    }

    fn remove(&mut self, level: u8, run: u64, file: FileNumber) {
        let place = self.version.runs.iter().position(|own| (own.level, own.id) == (level, run));
        let Some(place) = place else { return };
        let tables: Vec<RunTable> = self.version.runs[place]
            .tables
            .iter()
            .filter(|table| table.handle.file() != file)
            .cloned()
            .collect();
        match tables.is_empty() {
            true => drop(self.version.runs.remove(place)),
            false => self.version.runs[place] = Arc::new(Run::new(level, run, tables)),
        }
    }

    fn add(&mut self, level: u8, run: u64, mut tables: Vec<RunTable>) {
        if tables.is_empty() {
            return;
        }
        match self.version.runs.iter().position(|own| (own.level, own.id) == (level, run)) {
            Some(place) => {
                tables.extend(self.version.runs[place].tables.iter().cloned());
                self.version.runs[place] = Arc::new(Run::new(level, run, tables));
            }
            None => {
                self.version.runs.push(Arc::new(Run::new(level, run, tables)));
                self.version.runs.sort_by(|a, b| a.level.cmp(&b.level).then(b.id.cmp(&a.id)));
            }
        }
    }

    /// Bytes of files relative to those of live rows, with `more` bytes of files.
    fn space(&self, more: f64) -> f64 {
        let mut live = vec![Count::default(); self.workload.cells * self.workload.classes.len()];
        let whole = 0..self.workload.cells;
        for run in &self.version.runs {
            let mut counts = vec![Count::default(); live.len()];
            for table in &run.tables {
                if let Some(both) = self.both(table, &whole) {
                    self.copy(table, &both, 0, &mut counts);
                }
            }
            self.put_below(&mut live, &counts);
        }
        let rows: f64 = live.iter().map(|count| count.rows).sum();
        (self.version.file_bytes() as f64 + more) / (rows * ENTRY).max(1.0)
    }

    fn note_space(&mut self, more: f64) {
        // Of the second half: a small database has the size of some memtables.
        if self.figures.flushes
            >= self.workload.rows / 2.0 / (self.figures.user / self.figures.flushes / ENTRY)
        {
            self.figures.peak_space = self.figures.peak_space.max(self.space(more));
        }
    }
}

fn key_of(cell: usize) -> Vec<u8> {
    (cell as u32).to_be_bytes().to_vec()
}

fn cell_of(key: &[u8]) -> usize {
    u32::from_be_bytes(key.try_into().expect("keys have four bytes")) as usize
}
