//! The comments of the engine's crates: constructions that `STYLE.md` rules out, counted, and lines
//! that are too long.
use crate::tidy::sources;

const CRATES: [&str; 7] = ["base", "storage", "memtable", "sstable", "btree", "compaction", "engine"];
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

/// The construction that a word makes with the words before and after it.
fn construction(before: &str, word: &str, next: &str) -> Option<&'static str> {
    let begins = before.is_empty() || before.ends_with(['.', '!', '?', ':']);
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
fn comments_are_plain_english_within_their_columns() {
    let (mut words, mut found, mut long) = (0, std::collections::BTreeMap::new(), Vec::new());
    let is_read = |path: &str| CRATES.iter().any(|name| path.starts_with(&format!("{name}/src/")));
    for (path, text) in sources().into_iter().filter(|(path, _)| is_read(path)) {
        let lines: Vec<&str> = text.lines().collect();
        let (mut before, mut last) = ("", 0);
        for (number, comment) in comments(&text) {
            let place = || format!("{path}:{number}");
            if lines[number - 1].chars().count() > COLUMNS && !comment.starts_with('|') {
                long.push(place());
            }
            if number != last + 1 {
                before = "";
            }
            last = number;
            let all: Vec<&str> = comment.split_whitespace().collect();
            for (at, word) in all.iter().enumerate() {
                words += 1;
                if let Some(what) = construction(before, word, all.get(at + 1).unwrap_or(&"")) {
                    found.entry(what).or_insert_with(Vec::new).push(place());
                }
                before = word;
            }
        }
    }
    assert!(words > 50_000, "{words} words of comments were read");
    assert!(long.is_empty(), "comments beyond column {COLUMNS}: {long:?}");
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
}
