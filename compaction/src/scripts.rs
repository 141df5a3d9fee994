//! Jobs and flushes as text: maps runs with their entries to the runs that result.
//!
//! ```text
//! slice 1                         settings: `slice` and `target` in bytes, `snapshots`, `has-base`
//! 0.9   a5=new b6- | m7=x         a run (level.number): entries, a bar between two tables;
//!                                 `=` a put, `-` a tombstone, the number is the sequence number
//! 6.1   a1=old
//! merge 0.9 6.1 -> 6.1 =>         a job to its end, and below all runs that result
//!       6.1 a0=new m0=x
//! ```
//!
//! Questions are `merge` and `rewrite` of runs, of which `[a-b m-m]` selects tables by their
//! ranges, `step` for the first step of a merge alone, and `flush` and `flush bottom` for the
//! entries of run 0.0. A table that was not written shows `moved`, one of which a part is taken
//! shows `from` and the key; a job of several steps says how many.
use crate::flush::flush;
use crate::job::Job;
use crate::options::CompactionOptions;
use crate::output::{Output, OutputWriter};
use crate::picker::Compaction;
use crate::version::iterator::{RunIterator, Uncached};
use crate::version::{Run, RunTable, Version};
use sapwood_base::format::manifest::Edit;
use sapwood_base::iterator::InternalIterator;
use sapwood_base::{FileNumber, KeyspaceId, SequenceNumber, ValueKind};
use sapwood_storage::DatabaseFiles;
use sapwood_storage::cache::BufferCache;
use sapwood_storage::env::Env;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

const ID: KeyspaceId = KeyspaceId(0);

/// One state of a script.
struct State {
    context: Arc<DatabaseFiles>,
    options: CompactionOptions,
    snapshots: Vec<SequenceNumber>,
    version: Version,
    /// The files of the state; others are written by the job.
    files: HashSet<FileNumber>,
}

/// Splits "key5=value" or "key5-".
fn entry(text: &str) -> (&str, SequenceNumber, ValueKind, &str) {
    let (head, kind, value) = match text.split_once('=') {
        Some((head, value)) => (head, ValueKind::Put, value),
        None => (text.strip_suffix('-').expect("an entry is a put or a tombstone"), ValueKind::Delete, ""),
    };
    let at = head.find(|c: char| c.is_ascii_digit()).expect("an entry has a sequence number");
    (&head[..at], SequenceNumber(head[at..].parse().expect("a number")), kind, value)
}

impl State {
    fn new(lines: &[&str]) -> State {
        let (env, _) = Env::sim_manual(1);
        let (obsolete, _) = crossbeam::channel::unbounded();
        let cache = BufferCache::new(1 << 20).unwrap();
        let context = Arc::new(DatabaseFiles::new(env.fs().clone(), PathBuf::from("db"), cache, obsolete));
        env.fs().create_dir_all(&context.directory).unwrap();
        let mut state = State {
            context,
            options: CompactionOptions::default(),
            snapshots: Vec::new(),
            version: Version::default(),
            files: HashSet::new(),
        };
        let mut outputs = Vec::new();
        for line in lines {
            let (head, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            match head {
                "slice" => state.options.slice_bytes = rest.trim().parse().expect("a number of bytes"),
                "target" => state.options.target_file_bytes = rest.trim().parse().expect("a number of bytes"),
                "has-base" => state.options.has_base = true,
                "snapshots" => {
                    let numbers = rest.split_whitespace().map(|number| number.parse().expect("a number"));
                    state.snapshots = numbers.map(SequenceNumber).collect();
                }
                run => {
                    let (level, run) = run.split_once('.').expect("a run is level.number");
                    let (level, run) = (level.parse().unwrap(), run.parse().unwrap());
                    for table in rest.split('|') {
                        outputs.extend(state.write(level, run, table));
                    }
                }
            }
        }
        state.files = outputs.iter().map(|output| output.meta.file).collect();
        state.install(outputs);
        state
    }

    /// Writes one table.
    fn write(&self, level: u8, run: u64, table: &str) -> Vec<Output> {
        let options = CompactionOptions { target_file_bytes: u64::MAX, ..self.options.clone() };
        let mut writer = OutputWriter::new(&self.context, &options, ID, level, run, &[]);
        let mut last = None;
        for text in table.split_whitespace() {
            let (key, sequence, kind, value) = entry(text);
            let is_new = last.replace(key) != Some(key);
            writer.add(is_new, key.as_bytes(), sequence, kind, value.as_bytes()).unwrap();
        }
        writer.finish().unwrap()
    }

    fn install(&mut self, outputs: Vec<Output>) {
        let handles = outputs.iter().map(|output| (output.meta.file, output.handle.clone())).collect();
        let edits: Vec<Edit> = outputs.into_iter().map(|output| Edit::TableAdded(output.meta)).collect();
        self.version = self.version.apply(ID, &edits, &handles).unwrap();
    }

    /// The run, or the part of it, that a question names.
    fn run(&self, name: &str) -> Arc<Run> {
        let (name, part) = name.split_once('[').unwrap_or((name, ""));
        let (level, id) = name.split_once('.').expect("a run is level.number");
        let (level, id): (u8, u64) = (level.parse().unwrap(), id.parse().unwrap());
        let run = self.version.runs.iter().find(|run| (run.level, run.id) == (level, id)).expect("a run");
        let part = part.trim_end_matches(']');
        if part.is_empty() {
            return run.clone();
        }
        let range = |table: &RunTable| format!("{}-{}", text(table.first()), text(table.last()));
        let is_chosen = |table: &&RunTable| part.split(',').any(|chosen| chosen == range(table));
        Arc::new(Run::new(level, id, run.tables.iter().filter(is_chosen).cloned().collect()))
    }

    fn merge(&mut self, runs: &str, rewrite: bool, most_steps: usize) -> usize {
        let (inputs, target) = runs.split_once("->").expect("a merge has a target");
        let inputs: Vec<Arc<Run>> = inputs.split_whitespace().map(|name| self.run(name)).collect();
        let (level, run) = target.trim().split_once('.').expect("a run is level.number");
        let (target_level, target_run) = (level.parse().unwrap(), run.parse().unwrap());
        let compaction =
            Compaction { keyspace: ID, inputs, target_level, target_run, reason: "script", rewrite };
        let snapshots = self.snapshots.clone();
        let mut job = Job::new(&self.context, &self.options, &self.version, compaction, &snapshots).unwrap();
        let (stop, mut steps) = (AtomicBool::new(false), 0);
        while steps < most_steps
            && let Some(step) = job.step(&snapshots, None, &stop).unwrap()
        {
            self.version = self.version.apply(ID, &step.edits, &step.handles).unwrap();
            steps += 1;
        }
        steps
    }

    fn flush(&mut self, is_bottom: bool) {
        let entries = RunIterator::new(self.run("0.0"), Uncached::default());
        let outputs =
            flush(&self.context, &self.options, entries, ID, is_bottom, self.snapshots.clone()).unwrap();
        self.version = Version::default();
        self.install(outputs);
    }

    /// Answers a question: the runs that result, one per line.
    fn ask(&mut self, question: &str) -> Vec<String> {
        let (verb, runs) = question.split_once(' ').unwrap_or((question, ""));
        let mut steps = 1;
        match verb {
            "merge" => steps = self.merge(runs, false, usize::MAX),
            "rewrite" => steps = self.merge(runs, true, usize::MAX),
            "step" => drop(self.merge(runs, false, 1)),
            "flush" => self.flush(runs == "bottom"),
            _ => panic!("{verb:?} is no question"),
        }
        let mut lines: Vec<String> = self.version.runs.iter().map(|run| self.show(run, verb)).collect();
        if lines.is_empty() {
            lines.push("nothing".to_owned());
        }
        if steps > 1 {
            lines.push(format!("in {steps} steps"));
        }
        lines
    }

    fn show(&self, run: &Arc<Run>, verb: &str) -> String {
        let tables: Vec<String> = run.tables.iter().map(|table| self.show_table(run, table)).collect();
        // The number of a flushed run is that of a file, which says nothing.
        let id = if verb == "flush" { "new".to_owned() } else { run.id.to_string() };
        format!("{}.{id} {}", run.level, tables.join(" | "))
    }

    fn show_table(&self, run: &Run, table: &RunTable) -> String {
        let part = Arc::new(Run::new(run.level, run.id, vec![table.clone()]));
        let mut entries = RunIterator::new(part, Uncached::default());
        entries.seek_to_first().unwrap();
        let mut words = Vec::new();
        while entries.valid() {
            let (key, sequence) = (text(entries.key()), entries.sequence().0);
            words.push(match entries.kind() {
                ValueKind::Put => format!("{key}{sequence}={}", text(entries.value())),
                _ => format!("{key}{sequence}-"),
            });
            entries.next().unwrap();
        }
        if let Some(lower) = &table.meta.lower {
            words.push(format!("from {}", text(lower)));
        } else if self.files.contains(&table.meta.file) {
            words.push("moved".to_owned());
        }
        words.join(" ")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("a script has text")
}

/// Runs a script. A state stands before its questions, and an answer is indented further than its
/// question.
fn run(script: &str) {
    let mut lines: Vec<&str> = Vec::new();
    let mut has_asked = false;
    let mut script = script.lines().map(str::trim_end).peekable();
    while let Some(line) = script.next() {
        let indent = |line: &str| line.len() - line.trim_start().len();
        let depth = indent(line);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(question) = line.strip_suffix("=>") else {
            if std::mem::take(&mut has_asked) {
                lines.clear();
            }
            lines.push(line);
            continue;
        };
        has_asked = true;
        let mut wanted = Vec::new();
        while let Some(answer) = script.next_if(|line| indent(line) > depth && !line.trim().is_empty()) {
            wanted.push(answer.split_whitespace().collect::<Vec<_>>().join(" "));
        }
        let answer = State::new(&lines).ask(question.trim());
        assert_eq!(answer, wanted, "{question} of\n{}", lines.join("\n"));
    }
}

#[test]
fn a_merge_keeps_the_newest_versions() {
    run("
        0.9 a5=new b6- d7=x
        6.1 a1=old b1=gone c1=kept
        merge 0.9 6.1 -> 6.1 =>
            6.1 a0=new c0=kept d0=x

        # Above the last level, tombstones stay as long as older runs hold the key.
        0.9 a5- b6-
        0.8 a4=x b3=y
        6.1 a1=old
        merge 0.9 0.8 -> 5.8 =>
            5.8 a5-
            6.1 a1=old moved

        # Data that is not known here, such as the tree of an index, may hold any key.
        has-base
        0.9 a5- b6=x
        6.1 c1=old
        merge 0.9 6.1 -> 6.1 =>
            6.1 a5- b6=x c1=old
        ");
}

#[test]
fn a_merge_keeps_what_snapshots_see() {
    run("
        snapshots 3
        0.9 a5=new b6- c2- d7=x
        6.1 a1=old b1=seen c1=older
        merge 0.9 6.1 -> 6.1 =>
            6.1 a5=new a0=old b6- b0=seen d7=x

        # Once the snapshot is released, a rewrite of the same table drops its versions.
        6.1 a5=new a0=old b6- b0=seen d7=x
        rewrite 6.1 -> 6.1 =>
            6.1 a0=new d0=x
        ");
}

#[test]
fn tables_that_overlap_nothing_are_moved() {
    run("
        # Of one key each, so that none is small.
        target 64
        0.9 a5=x | m6=y | z7=z
        6.1 b1=b | n1=n
        merge 0.9 6.1 -> 6.1 =>
            6.1 a5=x moved | b1=b moved | m6=y moved | n1=n moved | z7=z moved

        # Small ones become one file instead.
        0.9 a5=x | m6=y
        6.1 b1=b | n1=n
        merge 0.9 6.1 -> 6.1 =>
            6.1 a0=x b0=b m0=y n0=n

        # Unless a table that is not an input lies between them.
        0.9 a5=x | z6=y
        6.1 b1=b | m1=m | y1=n
        merge 0.9 6.1[b-b,y-y] -> 6.1 =>
            6.1 a0=x b0=b | m1=m moved | y0=n z0=y
            in 2 steps

        # A moved tombstone would hide nothing.
        target 64
        0.9 a5- | m6=y
        6.1 m1=old
        merge 0.9 6.1 -> 6.1 =>
            6.1 m0=y
            in 2 steps

        # A rewrite moves nothing.
        target 64
        6.1 a1=x | m1=y
        rewrite 6.1 -> 6.1 =>
            6.1 a0=x | m0=y
            in 2 steps
        ");
}

#[test]
fn a_job_is_done_in_slices_and_each_is_progress() {
    run("
        target 64
        slice 1
        0.9 a5=a1 c6=c1 e7=e1
        6.1 a1=a | c1=c | e1=e
        step 0.9 6.1 -> 6.1 =>
            0.9 c6=c1 e7=e1 from c
            6.1 a0=a1 | c1=c moved | e1=e moved
        merge 0.9 6.1 -> 6.1 =>
            6.1 a0=a1 | c0=c1 | e0=e1
            in 3 steps

        # Small tables beside a large one are no slice of their own.
        slice 900
        0.9 d5=new
        6.1 a1=a | b1=b | c1=c | d1=d
        step 0.9 6.1 -> 6.1 =>
            0.9 d5=new moved
            6.1 a0=a b0=b c0=c | d1=d moved
        ");
}

#[test]
fn a_flush_writes_what_a_reader_may_see() {
    run("
        0.0 a9=new a5=old b8- b2=x c7-
        flush =>
            0.new a9=new b8- c7-
        # There is nothing below that tombstones could hide.
        flush bottom =>
            0.new a9=new

        snapshots 6
        0.0 a9=new a5=old b8- b2=x c3-
        flush =>
            0.new a9=new a5=old b8- b2=x c3-
        flush bottom =>
            0.new a9=new a5=old b8- b2=x

        0.0 a9- b8-
        flush bottom =>
            nothing

        # Cut by size, but never between versions of a key.
        target 64
        snapshots 6
        0.0 a9=new a5=old b8=x
        flush =>
            0.new a9=new a5=old | b8=x
        ");
}
