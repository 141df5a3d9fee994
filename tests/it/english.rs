//! The English of comments and documents: constructions that `STYLE.md` rules out, counted, and
//! lines that are too long.
#![allow(clippy::disallowed_methods, reason = "reads the documents")]
use crate::tidy::{root, sources};
use std::collections::BTreeMap;

const CRATES: [&str; 9] =
    ["base", "storage", "memtable", "sstable", "btree", "compaction", "engine", "bench", "tests"];
/// Sources outside of these crates.
const OTHERS: [&str; 1] = ["fuzz/src/lib.rs"];
/// Folders with documents.
const DOCUMENTS: [&str; 8] =
    ["", "docs", "bench/compare", "tests", "fuzz", "base/src/format", "engine/src/guide", ".github"];
/// Documents that are written by a program.
const GENERATED: [&str; 1] = ["docs/modules.md"];
/// The most occurrences of one construction in a thousand words.
const MOST_PER_THOUSAND: f64 = 0.1;
const COLUMNS: usize = 100;

/// The comments of a file with the numbers of their lines, without the code and the drawings in
/// them.
fn comments(text: &str) -> Vec<(usize, &str)> {
    let (mut found, mut is_fenced) = (Vec::new(), false);
    for (number, line) in text.lines().enumerate() {
        let Some(comment) = line.trim_start().strip_prefix("//") else {
            is_fenced = false;
            continue;
        };
        let comment = comment.trim_start_matches(['/', '!']).trim();
        is_fenced ^= comment.starts_with("```");
        if !is_fenced && !comment.starts_with("```") {
            found.push((number + 1, comment));
        }
    }
    found
}

/// The lines of a document with their numbers, without blank lines and fenced code.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut is_fenced = false;
    let lines = text.lines().enumerate().filter(|(_, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_fenced ^= is_fence;
        !is_fenced && !is_fence && !line.trim().is_empty()
    });
    lines.map(|(at, line)| (at + 1, line.trim())).collect()
}

/// A line without its code spans.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

/// The construction that a word makes with the words before and after it.
fn construction(before: &str, word: &str, next: &str) -> Option<&'static str> {
    let begins = before.is_empty() || before.ends_with(['.', '!', '?', ':', '|', '#', '*']);
    let plain = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_string();
    let (word, next) = (plain(word), plain(next));
    Some(match (word.as_str(), next.as_str()) {
        ("What", _) if begins => "What … as a subject",
        ("behind", _) => "behind",
        ("nobody" | "somebody" | "Nobody" | "Somebody", _) => "nobody, somebody",
        ("who" | "whoever" | "Who" | "Whoever", _) => "who, whoever",
        ("gives", _) => "gives",
        ("told" | "tells", _) => "told, tells",
        ("ask" | "asks" | "asked", "for") => "ask for",
        ("anew", _) => "anew",
        _ => return None,
    })
}

/// The constructions and the long lines of some texts.
#[derive(Default)]
struct Findings {
    words: usize,
    constructions: BTreeMap<&'static str, Vec<String>>,
    long: Vec<String>,
}

impl Findings {
    /// Reads the numbered lines `prose` of the file at `path`, whose text is `text`.
    fn read(&mut self, path: &str, text: &str, prose: &[(usize, &str)]) {
        let lines: Vec<&str> = text.lines().collect();
        let (mut before, mut last) = (String::new(), 0);
        for &(number, line) in prose {
            let place = || format!("{path}:{number}");
            if lines[number - 1].chars().count() > COLUMNS && !line.starts_with('|') {
                self.long.push(place());
            }
            if number != last + 1 || line.is_empty() {
                before.clear();
            }
            last = number;
            let plain = without_code(line);
            let words: Vec<&str> = plain.split_whitespace().collect();
            for (at, word) in words.iter().enumerate() {
                self.words += 1;
                if let Some(what) = construction(&before, word, words.get(at + 1).unwrap_or(&"")) {
                    self.constructions.entry(what).or_default().push(place());
                }
                before.clear();
                before.push_str(word);
            }
        }
    }

    fn check(&self, least_words: usize) {
        assert!(self.words > least_words, "only {} words were read", self.words);
        assert!(self.long.is_empty(), "lines beyond column {COLUMNS}: {:?}", self.long);
        for (what, places) in &self.constructions {
            let rate = places.len() as f64 * 1000.0 / self.words as f64;
            assert!(rate <= MOST_PER_THOUSAND, "{what:?} {rate:.2} times in 1,000 words: {places:?}");
        }
    }
}

#[test]
fn comments_are_plain_english_within_their_columns() {
    let mut findings = Findings::default();
    let is_read = |path: &str| CRATES.iter().any(|name| path.starts_with(&format!("{name}/")));
    let others = OTHERS.map(|path| (path.to_string(), std::fs::read_to_string(root().join(path)).unwrap()));
    for (path, text) in sources().into_iter().filter(|(path, _)| is_read(path)).chain(others) {
        findings.read(&path, &text, &comments(&text));
    }
    findings.check(110_000);
}

#[test]
fn documents_are_plain_english_within_their_columns() {
    let mut findings = Findings::default();
    for folder in DOCUMENTS {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
            if name.ends_with(".md") && !GENERATED.contains(&name) {
                let text = std::fs::read_to_string(&path).unwrap();
                findings.read(name, &text, &prose(&text));
            }
        }
    }
    findings.check(25_000);
}

#[test]
fn constructions_are_found_where_they_count() {
    assert!(construction("", "What", "is").is_some() && construction("end.", "What", "is").is_some());
    assert!(construction("see", "What", "is").is_none());
    assert!(construction("it", "asks", "for").is_some() && construction("it", "asks", "whether").is_none());
    assert_eq!(comments("/// a\n/// ```\n/// code\n/// ```\n// b\nlet c = 1; // d"), [(1, "a"), (5, "b")]);
    assert!(construction("|", "What", "is").is_some() && construction("##", "What", "is").is_some());
    assert_eq!(prose("# a\n\n```sh\nb\n```\n| c |\n"), [(1, "# a"), (6, "| c |")]);
    assert_eq!(without_code("it `gives` up"), "it ` up");
    let mut findings = Findings::default();
    let text = "* What is\n\n| What | told\n";
    findings.read("x", text, &prose(text));
    assert_eq!(findings.constructions["What … as a subject"], ["x:1", "x:3"]);
    assert_eq!(findings.constructions["told, tells"].len(), 1);
}
