//! Decisions of the picker as text: maps the state of the levels to the work picked.
//!
//! ```text
//! 0.9   a-f 4K hides 92M          a run (level.number), then its tables: range, size, and
//!                                 optionally `hides` with the bytes it hides, `hid` if they are
//!                                 known already, `deletes` with its
//!                                 tombstones, `cut` with a raised lower bound, `holds` with bytes
//!                                 and the snapshots that need them, `seq` with sequence numbers
//! snapshots 15                    live ones
//! begun 0.9 6.1 -> 6.1            a merge that yielded; the newest last
//! idle => merge 0.9 6.1 -> 6.1    question and answer; tables follow only a part of a run
//! ```
//!
//! Questions are `idle`, `busy`, and `all` for a manual compaction of everything. `hides` and
//! `holds` are the results of surveys.
use super::{Compaction, Interrupted, Moment, Work, gives_way, pick, pick_range};
use crate::held::{Held, Hidden};
use crate::options::{CompactionOptions, CompactionStyle, LAST_LEVEL};
use crate::version::{Run, TableHandle, Version};
use sapwood_base::format::manifest::{Edit, TableMeta};
use sapwood_base::{FileNumber, KeyspaceId, SequenceNumber};
use sapwood_storage::DatabaseFiles;
use sapwood_storage::cache::BufferCache;
use sapwood_storage::env::Env;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The results of a survey.
#[derive(Default)]
struct Facts {
    hides: u64,
    holds: Held,
}

struct Script {
    version: Version,
    facts: HashMap<FileNumber, Facts>,
    snapshots: Vec<SequenceNumber>,
    interrupted: Vec<Arc<Interrupted>>,
    options: CompactionOptions,
}

fn bytes(text: &str) -> u64 {
    let (number, unit) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    number.parse::<u64>().unwrap_or_else(|_| panic!("{text:?} is no size")) * unit
}

/// Parses the name of a run, level.number.
fn name(text: &str) -> (u8, u64) {
    let (level, run) = text.split_once('.').expect("a run is level.number");
    (level.parse().unwrap(), run.parse().unwrap())
}

/// Parses numbers "5" or "5..9".
fn span(text: &str) -> (SequenceNumber, SequenceNumber) {
    let (from, to) = text.split_once("..").unwrap_or((text, text));
    (SequenceNumber(from.parse().unwrap()), SequenceNumber(to.parse().unwrap()))
}

impl Script {
    fn new(options: CompactionOptions) -> Script {
        Script {
            version: Version::default(),
            facts: HashMap::new(),
            snapshots: Vec::new(),
            interrupted: Vec::new(),
            options,
        }
    }

    /// Parses the state from its lines.
    fn state(&mut self, lines: &[&str]) {
        let (env, _) = Env::sim_manual(1);
        let (obsolete, _) = crossbeam::channel::unbounded();
        let cache = BufferCache::new(1 << 20).unwrap();
        let context = Arc::new(DatabaseFiles::new(env.fs().clone(), PathBuf::from("db"), cache, obsolete));
        let (mut edits, mut handles) = (Vec::new(), HashMap::new());
        let mut hid = Vec::new();
        let mut begun = Vec::new();
        self.facts.clear();
        self.snapshots.clear();
        for line in lines {
            let mut words = line.split_whitespace().peekable();
            let head = words.next().expect("a line says something");
            if head == "snapshots" {
                self.snapshots = words.map(|word| SequenceNumber(word.parse().unwrap())).collect();
                continue;
            }
            if head == "begun" {
                let (inputs, target) = line[head.len()..].split_once("->").expect("a merge has a target");
                begun.push((inputs.split_whitespace().map(name).collect::<Vec<_>>(), name(target.trim())));
                continue;
            }
            let (level, run) = name(head);
            while let Some(range) = words.next() {
                let (smallest, largest) = range.split_once('-').expect("a table has a range");
                let file_bytes = bytes(words.next().expect("a table has a size"));
                let file = FileNumber(edits.len() as u64 + 1);
                let mut facts = Facts::default();
                let mut record = TableMeta {
                    keyspace: KeyspaceId(0),
                    level,
                    run,
                    file,
                    file_bytes,
                    entries: 1000,
                    tombstones: 0,
                    smallest: smallest.into(),
                    largest: largest.into(),
                    min_sequence: SequenceNumber(if level == 6 { 0 } else { run }),
                    max_sequence: SequenceNumber(if level == 6 { 0 } else { run }),
                    lower: None,
                    unknown: Vec::new(),
                };
                while let Some(word) = words.next_if(|word| !word.contains('-')) {
                    let mut next = || words.next().expect("the word has a value");
                    match word {
                        "hides" => facts.hides = bytes(next()),
                        "hid" => hid.push((file, bytes(next()))),
                        "deletes" => record.tombstones = next().parse().unwrap(),
                        "cut" => record.lower = Some(next().into()),
                        "seq" => (record.min_sequence, record.max_sequence) = span(next()),
                        "holds" => {
                            let size = bytes(next());
                            let (from, to) = span(next());
                            facts.holds = Held::between(from, to, size);
                        }
                        _ => panic!("{word:?} says nothing of a table"),
                    }
                }
                let handle = TableHandle::new(&context, file, file_bytes);
                if level != 6 || record.max_sequence == SequenceNumber::ZERO {
                    handle.set_held(facts.holds.clone());
                }
                handles.insert(file, handle);
                self.facts.insert(file, facts);
                edits.push(Edit::TableAdded(record));
            }
        }
        self.version = Version::default().apply(KeyspaceId(0), &edits, &handles).unwrap();
        self.interrupted.clear();
        for (inputs, (target_level, target_run)) in begun {
            let is_input = |run: &&Arc<Run>| inputs.contains(&(run.level, run.id));
            let merge = Compaction {
                keyspace: KeyspaceId(0),
                inputs: self.version.runs.iter().filter(is_input).cloned().collect(),
                target_level,
                target_run,
                reason: "it was due",
                rewrite: false,
            };
            let merge = Interrupted::new(&merge, false);
            Interrupted::begin(&mut self.interrupted, merge, &self.version);
        }
        for (file, bytes) in hid {
            let table = self.version.tables().find(|table| table.handle.file() == file).unwrap();
            table.set_hides(Hidden { entries: bytes / 100, bytes });
        }
    }

    fn ask(&self, question: &str) -> String {
        let id = KeyspaceId(0);
        let moment =
            Moment { idle: question == "idle", snapshots: &self.snapshots, interrupted: &self.interrupted };
        // Each survey is made at most once, whatever its result.
        for surveys in 0..3 {
            let work = match question {
                "all" => {
                    self.learn(super::survey_range(&self.version, None, None));
                    pick_range(id, &self.version, None, None, &self.snapshots).map(Work::Merge)
                }
                _ => pick(id, &self.version, &self.options, &moment),
            };
            match work {
                None => return "nothing".to_owned(),
                Some(Work::Survey(survey)) => {
                    assert!(!survey.is_empty() && surveys < 2, "a survey is made in vain");
                    self.learn(survey);
                }
                Some(Work::Merge(merge)) => {
                    let inputs: Vec<String> = merge.inputs.iter().map(|run| self.name(run)).collect();
                    let target = match merge.target_run {
                        0 => format!("{}.new", merge.target_level),
                        run => format!("{}.{run}", merge.target_level),
                    };
                    let verb = if merge.rewrite { "rewrite" } else { "merge" };
                    let way = if gives_way(&merge, &self.version, &self.options, &self.snapshots) {
                        ", later"
                    } else {
                        ""
                    };
                    return format!("{verb} {} -> {target}{way}", inputs.join(" "));
                }
            }
        }
        unreachable!("asked until there is an answer")
    }

    fn learn(&self, survey: crate::garbage::Survey) {
        for (_, table) in &survey.hiding {
            let bytes = self.facts[&table.handle.file()].hides;
            table.set_hides(Hidden { entries: bytes / 100, bytes });
        }
        for table in &survey.holding {
            table.handle.set_held(self.facts[&table.handle.file()].holds.clone());
        }
    }

    fn name(&self, run: &Run) -> String {
        let all = self.version.runs.iter().find(|own| (own.level, own.id) == (run.level, run.id)).unwrap();
        let name = format!("{}.{}", run.level, run.id);
        if all.tables.len() == run.tables.len() {
            return name;
        }
        let text = |key: &[u8]| String::from_utf8(key.to_vec()).unwrap();
        let tables: Vec<String> = run
            .tables
            .iter()
            .map(|table| format!("{}-{}", text(&table.meta.smallest), text(&table.meta.largest)))
            .collect();
        format!("{name}[{}]", tables.join(" "))
    }
}

/// Runs a script. States are separated by questions.
fn run(options: CompactionOptions, script: &str) {
    let mut player = Script::new(options);
    let mut lines: Vec<&str> = Vec::new();
    let mut has_asked = false;
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((question, answer)) = line.split_once("=>") else {
            if std::mem::take(&mut has_asked) {
                lines.clear();
            }
            lines.push(line);
            continue;
        };
        has_asked = true;
        // Reset for each question, because surveys are remembered.
        player.state(&lines);
        assert_eq!(player.ask(question.trim()), answer.trim(), "{question} of\n{}", lines.join("\n"));
    }
}

fn options(style: CompactionStyle) -> CompactionOptions {
    CompactionOptions { style, level0_runs: 4, tier_runs: 3, ..CompactionOptions::default() }
}

/// Runs a script in both styles.
fn both(script: &str) {
    run(options(CompactionStyle::Hybrid), script);
    run(options(CompactionStyle::Leveled), script);
}

#[test]
fn garbage_counts_by_what_it_hides() {
    both(
        "
        # 95,000 tombstones of 97 MiB of rows, and blind ones.
        0.9 a-z 2M deletes 950 hides 92M
        6.1 a-m 48M n-z 49M
        idle => merge 0.9 6.1 -> 6.1

        # Half of it: not even a busy database waits, unless the tombstones are blind.
        0.9 a-z 2M deletes 1000 hides 60M
        6.1 a-m 48M n-z 49M
        busy => merge 0.9 6.1 -> 6.1
        0.9 a-z 2M deletes 1000
        6.1 a-m 48M n-z 49M
        busy => nothing

        0.9 a-z 2M deletes 950
        6.1 a-m 48M n-z 49M
        idle => nothing

        # Values of 560 KiB that were overwritten by four bytes.
        0.9 a-z 10K hides 420M
        6.1 a-m 200M n-z 240M
        idle => merge 0.9 6.1 -> 6.1

        # A tenth is worth it, less is not.
        0.9 a-z 1 hides 100M
        6.1 a-z 1000M
        idle => merge 0.9 6.1 -> 6.1
        0.9 a-z 1 hides 99M
        6.1 a-z 1000M
        idle => nothing

        # It comes back where it is.
        0.9 a-b 1K hides 30M  m-n 1K
        6.1 a-b 40M c-l 500M m-n 40M
        idle => merge 0.9[a-b] 6.1[a-b] -> 6.1
        ",
    );
}

#[test]
fn what_a_snapshot_sees_is_no_gain() {
    both(
        "
        0.90 a-z 2M hides 92M
        6.1 a-z 97M
        snapshots 50
        idle => nothing
        0.90 a-z 2M hides 92M
        6.1 a-z 97M
        snapshots 90
        idle => merge 0.90 6.1 -> 6.1

        # Older than all of it.
        0.90 a-z 2M hides 92M
        6.1 a-z 97M seq 60..70
        snapshots 50
        idle => merge 0.90 6.1 -> 6.1
        ",
    );
}

#[test]
fn what_only_a_gone_snapshot_needed_goes() {
    both(
        "
        6.1 a-f 20M holds 10M 50..60  g-m 20M  n-z 20M holds 1M 50
        idle => rewrite 6.1[a-f] -> 6.1
        busy => rewrite 6.1[a-f] -> 6.1
        all => merge 6.1 -> 6.1

        6.1 a-f 20M holds 10M 50..60  g-m 20M
        snapshots 55
        idle => nothing
        busy => nothing
        all => nothing

        6.1 a-f 20M holds 10M 50..60  g-m 20M
        snapshots 40 49 61
        busy => rewrite 6.1[a-f] -> 6.1

        # Of an earlier session: looked up when there is time.
        6.1 a-f 20M holds 10M 0..60 seq 3..61  g-m 20M
        busy => nothing
        idle => rewrite 6.1[a-f] -> 6.1
        all => merge 6.1 -> 6.1
        ",
    );
}

#[test]
fn small_runs_are_merged_among_themselves() {
    run(
        options(CompactionStyle::Hybrid),
        "
        # Four tiny flushes do not rewrite a database.
        0.9 a-z 6K
        0.8 a-z 6K
        0.7 a-z 6K
        5.6 a-z 6K
        6.1 a-m 200M n-z 200M
        busy => nothing
        idle => merge 0.9 0.8 0.7 5.6 -> 5.6

        # Nor what came together of them.
        0.9 a-z 6K
        0.8 a-z 6K
        5.6 a-z 9M
        5.5 a-z 20M
        6.1 a-m 200M n-z 200M
        idle => merge 0.9 0.8 -> 1.new

        # A run that is larger than all newer ones together stays as it is, and what is below keeps its place.
        0.9 a-z 6K
        0.8 a-z 6K
        0.7 a-z 1M
        5.6 a-z 9M
        6.1 a-m 200M n-z 200M
        idle => merge 0.9 0.8 -> 0.9
        0.9 a-z 1K
        0.8 a-z 6K
        0.7 a-z 1M
        5.6 a-z 9M
        6.1 a-m 200M n-z 200M
        idle => nothing

        # A tenth of what is written is worth it, and what overlaps nothing always is.
        0.9 a-z 45M
        6.1 a-m 200M n-z 200M
        idle => merge 0.9 6.1 -> 6.1
        0.9 a-z 44M
        6.1 a-m 200M n-z 200M
        idle => nothing
        0.9 a-c 1K x-z 1K
        6.1 d-w 400M
        idle => merge 0.9 -> 6.1
        0.9 a-c 1K x-z 1K
        idle => merge 0.9 -> 6.new
        ",
    );
    run(
        options(CompactionStyle::Leveled),
        "
        0.9 a-z 6K
        0.8 a-z 6K
        0.7 a-z 6K
        5.6 a-z 6K
        6.1 a-m 200M n-z 200M
        busy => nothing
        idle => merge 0.9 0.8 0.7 5.6 -> 5.6
        0.9 a-z 6K
        0.8 a-z 6K
        0.7 a-z 6K
        5.6 a-z 9M
        6.1 a-m 200M n-z 200M
        idle => merge 0.9 0.8 0.7 -> 0.9
        # Newer runs of a tenth go down.
        0.9 a-z 10M
        5.6 a-z 35M
        6.1 a-m 200M n-z 200M
        busy => nothing
        idle => merge 0.9 5.6 6.1 -> 6.1
        ",
    );
}

#[test]
fn garbage_beside_writers() {
    run(
        options(CompactionStyle::Hybrid),
        "
        # A survey finds what a few bytes hide: rows of half a megabyte, or those of tombstones.
        0.9 a-z 10K hides 420M
        6.1 a-m 200M n-z 240M
        busy => merge 0.9 6.1 -> 6.1
        0.9 a-z 2M deletes 950 hides 92M
        6.1 a-m 48M n-z 49M
        busy => merge 0.9 6.1 -> 6.1

        # A third of overwritten rows is worth it, less is not.
        1.9 a-z 134M hides 134M
        6.1 a-z 400M
        busy => merge 1.9 6.1 -> 6.1
        1.9 a-z 132M hides 132M
        6.1 a-z 400M
        busy => nothing
        # So is a quarter that deletions hide.
        0.9 a-z 1K hides 101M
        6.1 a-z 400M
        busy => merge 0.9 6.1 -> 6.1
        0.9 a-z 1K hides 99M
        6.1 a-z 400M
        busy => nothing
        # A snapshot needs it.
        1.90 a-z 140M hides 140M
        6.1 a-z 400M
        snapshots 50
        busy => nothing
        # Level 0 waits for its merge into a tier.
        0.9 a-z 134M hides 134M
        6.1 a-z 400M
        busy => nothing

        # Level 0 goes first, until half of the last level is garbage.
        0.12 a-z 1K
        0.11 a-z 1K
        0.10 a-z 1K
        0.9 a-z 1K
        1.8 a-z 180M hid 180M
        6.1 a-z 400M
        busy => merge 0.12 0.11 0.10 0.9 -> 1.new
        0.12 a-z 1K
        0.11 a-z 1K
        0.10 a-z 1K
        0.9 a-z 1K
        1.8 a-z 210M hid 210M
        6.1 a-z 400M
        busy => merge 0.12 0.11 0.10 0.9 1.8 6.1 -> 6.1

        # Only the place that has it is merged.
        1.9 a-b 30M hides 30M  x-z 1K
        6.1 a-b 40M x-z 30M
        busy => merge 1.9[a-b] 6.1[a-b] -> 6.1
        ",
    );
    run(
        options(CompactionStyle::Leveled),
        "
        0.9 a-z 10K hides 420M
        6.1 a-m 200M n-z 240M
        busy => nothing
        0.9 a-z 2M deletes 950 hides 92M
        6.1 a-m 48M n-z 49M
        busy => nothing
        ",
    );
}

#[test]
fn a_full_tier_becomes_a_run_of_the_next() {
    run(
        options(CompactionStyle::Hybrid),
        "
        1.6 a-z 40K
        1.5 a-z 40K
        6.1 a-m 200M n-z 200M
        busy => nothing
        1.6 a-z 40K
        1.5 a-z 40K
        1.4 a-z 40K
        6.1 a-m 200M n-z 200M
        busy => merge 1.6 1.5 1.4 -> 2.new

        # The older of two full tiers makes room for the newer, which goes before its next slice.
        1.9 a-z 40K
        1.8 a-z 40K
        1.7 a-z 40K
        2.6 a-z 120K
        2.5 a-z 120K
        2.4 a-z 120K
        6.1 a-m 200M n-z 200M
        busy => merge 2.6 2.5 2.4 -> 3.new, later

        # A merge that yielded continues with its tables and its output, until it is done.
        1.9 a-z 40K
        1.6 a-l 3M m-z 4M cut n
        1.4 a-z 4M cut n
        2.7 a-l 8M
        2.3 a-z 4M
        6.1 a-m 200M n-z 200M
        begun 1.6 1.4 -> 2.7
        busy => merge 1.6 1.4 -> 2.7
        1.9 a-z 40K
        2.7 a-l 8M
        2.3 a-z 4M
        6.1 a-m 200M n-z 200M
        begun 1.6 1.4 -> 2.7
        busy => nothing

        # Tables that overlap nothing, and those of the one place that is written, go down.
        1.6 d-e 40K
        1.5 f-g 40K
        1.4 h-i 40K
        6.1 a-c 200M  d-z 60K
        busy => merge 1.6 1.5 1.4 6.1[d-z] -> 6.1
        1.6 d-e 40K
        1.5 f-g 40K
        1.4 h-i 40K
        6.1 a-c 200M  n-z 200M
        busy => merge 1.6 1.5 1.4 -> 6.1
        ",
    );
}

#[test]
fn as_many_bytes_as_the_last_level_holds_are_merged_into_it() {
    run(
        options(CompactionStyle::Hybrid),
        "
        1.9 a-z 10M
        1.8 a-z 10M
        2.7 a-z 30M
        2.6 a-z 30M
        3.5 a-z 120M
        6.1 a-m 100M n-z 100M
        busy => merge 1.9 1.8 2.7 2.6 3.5 6.1 -> 6.1
        1.9 a-z 10M
        1.8 a-z 10M
        2.7 a-z 30M
        2.6 a-z 30M
        3.5 a-z 119M
        6.1 a-m 100M n-z 100M
        busy => nothing
        # Few runs wait.
        2.7 a-z 60M
        2.6 a-z 60M
        3.5 a-z 120M
        6.1 a-m 100M n-z 100M
        busy => nothing
        # A full tier of at least half of what waits saves its merge into the next one.
        2.7 a-z 40M
        2.6 a-z 40M
        2.5 a-z 40M
        6.1 a-m 100M n-z 100M
        busy => merge 2.7 2.6 2.5 6.1 -> 6.1
        2.7 a-z 30M
        2.6 a-z 30M
        2.5 a-z 30M
        6.1 a-m 100M n-z 100M
        busy => merge 2.7 2.6 2.5 -> 3.new
        # A merge that yielded continues, though the rest of it would not be due, unless level 0 is full.
        0.12 a-z 1M
        1.9 a-z 10M
        1.8 a-z 10M cut n
        2.7 a-z 90M cut n
        2.6 a-z 30M cut n
        3.5 a-z 120M cut n
        6.1 a-m 200M n-z 100M
        begun 1.8 2.7 2.6 3.5 6.1 -> 6.1
        busy => merge 1.8 2.7 2.6 3.5 6.1 -> 6.1
        0.15 a-z 1M
        0.14 a-z 1M
        0.13 a-z 1M
        0.12 a-z 1M
        1.8 a-z 10M cut n
        6.1 a-m 200M n-z 100M
        begun 1.8 6.1 -> 6.1
        busy => merge 0.15 0.14 0.13 0.12 -> 1.new
        # After that it continues.
        1.16 a-z 4M
        1.8 a-z 10M cut n
        6.1 a-m 200M n-z 100M
        begun 1.8 6.1 -> 6.1
        busy => merge 1.8 6.1 -> 6.1

        # Beside it, newer runs of a tier are merged within the tier.
        1.20 a-z 4M
        1.19 a-z 4M
        1.18 a-z 4M
        1.9 a-z 10M cut n
        1.8 a-z 10M cut n
        6.1 a-m 200M n-z 100M
        begun 1.9 1.8 6.1 -> 6.1
        busy => merge 1.20 1.19 1.18 -> 1.18
        # Large and small ones are not mixed.
        1.20 a-z 1M
        1.19 a-z 1M
        1.18 a-z 4M
        1.9 a-z 10M cut n
        1.8 a-z 10M cut n
        6.1 a-m 200M n-z 100M
        begun 1.9 1.8 6.1 -> 6.1
        busy => merge 1.9 1.8 6.1 -> 6.1
        # Newer tiers are merged as ever, and so is level 0.
        1.20 a-z 4M
        1.19 a-z 4M
        1.18 a-z 4M
        2.9 a-z 10M cut n
        2.8 a-z 10M cut n
        6.1 a-m 200M n-z 100M
        begun 2.9 2.8 6.1 -> 6.1
        busy => merge 1.20 1.19 1.18 -> 2.new
        # Of several merges that yielded, the newest continues first.
        1.20 a-z 4M cut n
        1.19 a-z 4M cut n
        1.18 a-z 12M
        2.9 a-z 10M cut n
        2.8 a-z 10M cut n
        6.1 a-m 200M n-z 100M
        begun 2.9 2.8 6.1 -> 6.1
        begun 1.20 1.19 -> 1.18
        busy => merge 1.20 1.19 -> 1.18
        # After its end, the earlier one does.
        1.18 a-z 20M
        2.9 a-z 10M cut n
        2.8 a-z 10M cut n
        6.1 a-m 200M n-z 100M
        begun 2.9 2.8 6.1 -> 6.1
        begun 1.20 1.19 -> 1.18
        busy => merge 2.9 2.8 6.1 -> 6.1
        # One that began with the tables of another replaces it.
        1.20 a-z 4M cut n
        2.9 a-z 10M cut n
        6.1 a-m 200M n-z 100M
        begun 1.20 2.9 6.1 -> 6.1
        begun 1.20 -> 2.9
        busy => merge 1.20 -> 2.9
        ",
    );
}

#[test]
fn the_last_tier_is_merged_within_itself() {
    run(
        options(CompactionStyle::Hybrid),
        "
        5.6 a-z 40K
        5.5 a-z 40K
        5.4 a-z 40K
        6.1 a-m 200M n-z 200M
        busy => merge 5.6 5.5 5.4 -> 5.4

        5.6 a-z 1K
        5.5 a-z 10K
        5.4 a-z 100K
        6.1 a-m 200M n-z 200M
        busy => nothing

        # Three times its runs.
        5.10 a-z 1
        5.9 a-z 10
        5.8 a-z 50
        5.7 a-z 100
        5.6 a-z 1K
        5.5 a-z 10K
        5.4 a-z 100K
        5.3 a-z 1M
        5.2 a-z 10M
        6.1 a-m 2000M n-z 2000M
        busy => merge 5.10 5.9 5.8 5.7 5.6 5.5 5.4 5.3 5.2 -> 5.2
        ",
    );
}

#[test]
fn level_0_goes_before_tiers_until_one_has_three_times_its_runs() {
    let script = |runs: u32, answer: &str| {
        let tier: Vec<String> = (0..runs).rev().map(|run| format!("1.{} a-z 40K", run + 2)).collect();
        let level0 = "0.20 a-z 9K\n0.19 a-z 9K\n0.18 a-z 9K\n0.17 a-z 9K";
        let last = "6.1 a-m 200M n-z 200M";
        run(
            options(CompactionStyle::Hybrid),
            &format!("{level0}\n{}\n{last}\nbusy => {answer}", tier.join("\n")),
        );
    };
    script(3, "merge 0.20 0.19 0.18 0.17 -> 1.new");
    script(8, "merge 0.20 0.19 0.18 0.17 -> 1.new");
    script(9, "merge 1.10 1.9 1.8 1.7 1.6 1.5 1.4 1.3 1.2 -> 2.new");
}

#[test]
fn long_merges_give_way_to_a_full_level_0() {
    let options = options(CompactionStyle::Hybrid);
    let mut player = Script::new(options.clone());
    let (last, tier) = ("6.1 a-z 1000", ["1.4 a-z 400", "1.3 a-z 400", "1.2 a-z 400"]);
    player.state(&[tier[0], tier[1], tier[2], last]);
    let work = pick(KeyspaceId(0), &player.version, &options, &Moment::default());
    let Some(Work::Survey(survey)) = work else { panic!("its garbage is not known") };
    player.learn(survey);
    let work = pick(KeyspaceId(0), &player.version, &options, &Moment::default());
    let Some(Work::Merge(merge)) = work else { panic!("the tier is full") };
    assert_eq!(merge.target_level, LAST_LEVEL);
    assert!(!gives_way(&merge, &player.version, &options, &[]));
    let full = ["0.9 a-z 1", "0.8 a-z 1", "0.7 a-z 1", "0.6 a-z 1"];
    player.state(&[&full[..], &tier, &[last]].concat());
    assert!(gives_way(&merge, &player.version, &options, &[]));
    let Some(Work::Merge(upper)) = pick(KeyspaceId(0), &player.version, &options, &Moment::default()) else {
        panic!("level 0 is full")
    };
    assert!(!gives_way(&upper, &player.version, &options, &[]));
    let more = (5..11).rev().map(|run| format!("1.{run} a-z 400")).collect::<Vec<_>>();
    let more: Vec<&str> = more.iter().map(String::as_str).collect();
    player.state(&[&full[..], &more, &tier, &[last]].concat());
    let Some(within) = super::before(&merge, &player.version, &options, &[]) else {
        panic!("the tier has many newer runs")
    };
    assert_eq!((within.inputs.len(), within.target_level), (6, 1), "the tier is too full for another run");
}

#[test]
fn small_tables_beside_a_merge_are_taken_along() {
    both(
        "
        # Keys that only grow: what is not larger than what comes is taken, and then what is not larger than both.
        0.9 x-z 4K
        6.1 a-b 800K  c-d 16K  e-f 8K  g-h 4K
        idle => merge 0.9 6.1[c-d e-f g-h] -> 6.1
        0.9 x-z 4K
        6.1 a-b 800K  c-d 16K  e-f 8K
        idle => merge 0.9 -> 6.1
        # From the other side, and on both.
        0.9 a-b 4K
        6.1 c-d 4K  e-f 7K  g-h 900K
        idle => merge 0.9 6.1[c-d e-f] -> 6.1
        0.9 k-l 40K
        6.1 a-b 900K  c-d 80K  x-z 40K
        idle => merge 0.9 6.1[c-d x-z] -> 6.1
        # A large table is not written for a small one, nor a small one for a large one, which only moves.
        0.9 x-z 4K
        6.1 a-b 4K  c-d 40M
        idle => merge 0.9 -> 6.1
        0.9 x-z 2M
        6.1 a-b 4K  c-d 8K
        idle => merge 0.9 -> 6.1
        ",
    );
}
