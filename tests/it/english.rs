//! The comments and documents of the workspace: constructions that `STYLE.md` rules out, counted,
//! and lines that are too long.
use crate::tidy::{root, sources};

/// Folders whose sources are read.
const FOLDERS: [&str; 8] =
    ["base/", "storage/", "memtable/", "sstable/", "btree/", "compaction/", "engine/", "tests/"];
/// Files outside the folders of crates, and documents.
const FILES: [&str; 3] = ["fuzz/README.md", "fuzz/src/lib.rs", "tests/README.md"];
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

#[test]
fn comments_and_documents_are_plain_english_within_their_columns() {
    let (mut words, mut found, mut long) = (0, std::collections::BTreeMap::new(), Vec::new());
    let is_read = |path: &str| FOLDERS.iter().any(|folder| path.starts_with(folder));
    let files = FILES.map(|path| (path.to_string(), std::fs::read_to_string(root().join(path)).unwrap()));
    for (path, text) in sources().into_iter().filter(|(path, _)| is_read(path)).chain(files) {
        let lines: Vec<&str> = text.lines().collect();
        let (mut before, mut last) = (String::new(), 0);
        let is_document = path.ends_with(".md");
        for (number, line) in if is_document { prose(&text) } else { comments(&text) } {
            let place = || format!("{path}:{number}");
            if lines[number - 1].chars().count() > COLUMNS && !line.starts_with('|') {
                long.push(place());
            }
            if number != last + 1 {
                before.clear();
            }
            last = number;
            let plain = without_code(line);
            let all: Vec<&str> = plain.split_whitespace().collect();
            for (at, word) in all.iter().enumerate() {
                words += 1;
                if let Some(what) = construction(&before, word, all.get(at + 1).unwrap_or(&"")) {
                    found.entry(what).or_insert_with(Vec::new).push(place());
                }
                before = word.to_string();
            }
        }
    }
    assert!(words > 100_000, "{words} words were read");
    assert!(long.is_empty(), "lines beyond column {COLUMNS}: {long:?}");
    for (what, places) in found {
        let rate = places.len() as f64 * 1000.0 / words as f64;
        assert!(rate <= MOST_PER_THOUSAND, "{what:?} {rate:.2} times in 1,000 words: {places:?}");
    }
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
}
