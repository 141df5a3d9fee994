//! The shape of the workspace: dependencies between crates, the beginning of files, and the places
//! of unsafe code.
#![allow(clippy::disallowed_methods, reason = "reads the sources")]
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const CRATES: [&str; 9] =
    ["base", "storage", "memtable", "sstable", "btree", "compaction", "engine", "bench", "tests"];

/// The workspace crates that each crate may depend on.
fn allowed(folder: &str) -> &'static [&'static str] {
    match folder {
        "base" => &[],
        "storage" | "memtable" => &["base"],
        "sstable" | "btree" => &["base", "storage"],
        "compaction" => &["base", "storage", "memtable", "sstable"],
        "engine" => &["base", "storage", "memtable", "sstable", "btree", "compaction"],
        _ => &["base", "storage", "memtable", "sstable", "btree", "compaction", "engine"],
    }
}

/// The modules that may hold unsafe code.
const UNSAFE: [&str; 13] = [
    "bench/compare/src/engine/",
    "engine/src/read/view.rs",
    "engine/src/wal/segments.rs",
    "engine/src/wal/segment.rs",
    "memtable/src/arena/mapping.rs",
    "memtable/src/arena/memory.rs",
    "memtable/src/skiplist/",
    "storage/src/cache/",
    "storage/src/env/fork.rs",
    "storage/src/env/scheduling.rs",
    "storage/src/fs/os.rs",
    "storage/src/mapped.rs",
    "sstable/src/vector.rs",
];

pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The Rust files of the workspace, by their paths from its root, and their texts.
pub(super) fn sources() -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in CRATES.iter().map(|folder| root().join(folder)).filter(|folder| folder.exists()) {
        walk(&folder, &mut found);
    }
    found.sort();
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_string();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The names of this workspace's crates in the `[dependencies]` sections of a Cargo.toml, as
/// folders.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut section = "";
    let mut found = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section.ends_with("dependencies]") && !section.contains("dev-") {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            match name {
                "sapwood" => drop(found.insert("engine".to_string())),
                _ => found.extend(name.strip_prefix("sapwood-").map(str::to_string)),
            }
        }
    }
    found
}

#[test]
fn crates_depend_in_one_direction() {
    for folder in CRATES.iter().filter(|folder| root().join(folder).exists()) {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        for dependency in dependencies(&manifest) {
            assert!(
                allowed(folder).contains(&dependency.as_str()),
                "{folder} must not depend on {dependency}"
            );
        }
        let uses_storage_features = manifest.contains("\"sim\"");
        assert!(
            !uses_storage_features
                || ["tests", "storage", "fuzz"].contains(folder)
                || manifest.contains("dev-dependencies"),
            "the simulator is for tests, not for {folder}"
        );
    }
}

#[test]
fn bugs_are_planted_only_where_it_is_asked_for() {
    for folder in CRATES.iter().filter(|folder| root().join(folder).exists()) {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        for line in manifest.lines().filter(|line| line.contains("planted") && !line.starts_with('#')) {
            assert!(line.starts_with("planted = ["), "{folder}/Cargo.toml turns planted bugs on: {line}");
        }
    }
}

#[test]
fn production_code_does_not_know_of_planted_bugs() {
    let asks = |text: &str| {
        ["planted::{", "planted::is(", "Bug::", "planted::Rows"].iter().any(|use_| text.contains(use_))
    };
    for (path, text) in sources() {
        let is_production = path.contains("/src/")
            && !["tests/", "bench/", "fuzz/"].iter().any(|folder| path.starts_with(folder));
        let is_apart =
            path.ends_with("/src/planted.rs") || path.contains("/tests/") || path.contains("/models");
        if is_production && !is_apart {
            let code: Vec<&str> =
                text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
            assert!(
                !code.iter().any(|line| asks(line)),
                "{path}: decisions of planted bugs belong to planted.rs"
            );
        }
    }
}

#[test]
fn the_flag_of_other_programs_models_changes_nothing() {
    // A program that runs loom models of its own builds all of its dependencies with `--cfg loom`.
    let flag = ["lo", "om"].concat();
    let asks = |text: &str| {
        ["(FLAG)", "(FLAG,", "(test, FLAG)", "cfg FLAG\""]
            .iter()
            .any(|form| text.contains(&form.replace("FLAG", &flag)))
    };
    for (name, text) in sources() {
        assert!(
            !asks(&text),
            "{name} uses the cfg of other programs; the one of this crate is sapwood_{flag}"
        );
    }
    for folder in CRATES {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(!asks(&manifest), "{folder}/Cargo.toml uses the cfg of other programs");
    }
}

#[test]
fn every_file_says_what_it_is() {
    for (name, text) in sources() {
        assert!(text.starts_with("//!") || text.starts_with("#![doc"), "{name} does not begin with a header");
        assert!(!name.ends_with("/mod.rs"), "{name}: a module is foo.rs next to foo/");
    }
}

#[test]
fn nothing_is_left_behind() {
    // Assembled here, so that this file does not contain them.
    let marks = [["FIX", "ME"], ["XX", "X"], ["db", "g!("], ["to", "do!("], ["unimple", "mented!("]];
    for (name, text) in sources() {
        for mark in marks.map(|halves| halves.concat()) {
            assert!(!text.contains(&mark), "{name} holds {mark}");
        }
    }
}

#[test]
fn every_file_belongs_to_a_module() {
    for (name, _) in sources() {
        let path = Path::new(&name);
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let folder = path.parent().unwrap();
        let is_root = matches!(stem, "lib" | "main" | "build") || folder.ends_with("bin");
        let is_target = ["tests", "benches", "examples"].iter().any(|kind| folder.ends_with(kind));
        if is_root || is_target {
            continue;
        }
        // `a/b/c.rs` is declared in `a/b.rs`, or in the root of the crate whose folder is `a/b`.
        let parents = [folder.with_extension("rs"), folder.join("lib.rs"), folder.join("main.rs")];
        let declared = parents
            .iter()
            .filter_map(|parent| std::fs::read_to_string(root().join(parent)).ok())
            .any(|text| {
                text.lines().any(|line| {
                    let line = line.trim();
                    line.ends_with(&format!("mod {stem};")) || line.contains(&format!("{stem}.rs\""))
                })
            });
        assert!(declared, "{name} is part of no crate");
    }
}

#[test]
fn unsafe_code_stands_in_few_places() {
    let mut unused = UNSAFE.to_vec();
    for (name, text) in sources() {
        let code = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
        let holds = code.into_iter().any(|line| {
            ["{ ", "fn ", "impl ", "{"].iter().any(|next| {
                line.contains(&format!("unsafe {next}")) && !line.contains(&format!("\"unsafe {next}"))
            })
        });
        let is_at = |place: &&str| name == *place || place.ends_with('/') && name.starts_with(place);
        let may = UNSAFE.iter().any(is_at);
        // The tests of such a module may need it, too.
        let is_test = name.starts_with("tests/") || name.contains("/tests/") || name.contains("/benches/");
        assert!(!holds || may || is_test, "{name} has unsafe code and is not listed for it");
        unused.retain(|place| !(holds && is_at(place)));
    }
    assert!(unused.is_empty(), "listed without unsafe code: {unused:?}");
}

/// The crates that go to crates.io: all that the engine needs.
const PUBLISHED: [&str; 7] = ["base", "storage", "memtable", "sstable", "btree", "compaction", "engine"];

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn crates_can_be_published() {
    let workspace = read("Cargo.toml");
    let version = workspace.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    for folder in CRATES {
        let manifest = read(&format!("{folder}/Cargo.toml"));
        if !PUBLISHED.contains(&folder) {
            assert!(manifest.contains("\npublish = false\n"), "{folder}/Cargo.toml may be published");
            continue;
        }
        for field in ["version", "edition", "rust-version", "license", "keywords", "categories", "readme"] {
            let line = format!("\n{field}.workspace = true\n");
            assert!(
                manifest.contains(&line),
                "{folder}/Cargo.toml does not have the {field} of the workspace"
            );
        }
        assert!(manifest.contains("\ndescription = \""), "{folder}/Cargo.toml has no description");
        for licence in ["LICENSE-MIT", "LICENSE-APACHE"] {
            assert!(read(&format!("{folder}/{licence}")) == read(licence), "{folder} lacks {licence}");
        }
        // A path alone is useless to programs that download the crate.
        let line = workspace
            .lines()
            .find(|line| line.contains(&format!("path = \"{folder}\"")))
            .unwrap_or_else(|| panic!("Cargo.toml does not list {folder}"));
        assert!(
            line.contains(&format!("version = {version}")),
            "Cargo.toml has no version {version}: {line}"
        );
    }
}

/// Whether a licence expression can be satisfied with these licences only.
fn is_allowed(expression: &str, licences: &[&str]) -> bool {
    /// The parts between occurrences of `separator` outside parentheses.
    fn parts<'a>(expression: &'a str, separator: &str) -> Vec<&'a str> {
        let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
        for (place, character) in expression.char_indices() {
            depth += i32::from(character == '(') - i32::from(character == ')');
            if depth == 0 && place >= start && expression[place..].starts_with(separator) {
                parts.push(&expression[start..place]);
                start = place + separator.len();
            }
        }
        parts.push(&expression[start..]);
        parts
    }
    // Old manifests separate alternatives by a slash.
    let expression = expression.trim().replace('/', " OR ");
    let alternatives = parts(&expression, " OR ");
    if alternatives.len() > 1 {
        return alternatives.iter().any(|one| is_allowed(one, licences));
    }
    let all = parts(&expression, " AND ");
    if all.len() > 1 {
        return all.iter().all(|one| is_allowed(one, licences));
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => is_allowed(inner, licences),
        None => licences.contains(&expression.trim()),
    }
}

#[test]
fn licence_expressions_are_understood() {
    let licences = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"];
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-3.0/MIT",
        "(GPL-3.0 OR MIT) AND ISC",
        "Apache-2.0 WITH LLVM-exception OR Apache-2.0",
        "GPL-3.0 OR MIT AND ISC",
    ] {
        assert!(is_allowed(good, &licences), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND GPL-3.0", "Apache-2.0", "MIT-0", "mit"] {
        assert!(!is_allowed(bad, &licences), "{bad}");
    }
}

/// For the dependencies of a build with default features. `cargo deny check` does the same for
/// every system and feature.
#[test]
fn dependencies_have_licences_that_all_programs_can_obey() {
    let policy = read("deny.toml");
    let list = policy.split("\nallow = [").nth(1).unwrap().split(']').next().unwrap();
    let licences: Vec<&str> = list.split('"').skip(1).step_by(2).collect();
    assert!(licences.contains(&"MIT"), "deny.toml has no list of licences");

    let output = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["tree", "--workspace", "--edges=normal,build,dev", "--prefix=none", "--no-dedupe"])
        .args(["--format={p}|{l}", "--color=never"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut packages = 0;
    for line in String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.is_empty()) {
        let (package, expression) = line.split_once('|').unwrap();
        assert!(is_allowed(expression, &licences), "{package} is under {expression:?}");
        packages += 1;
    }
    assert!(packages > CRATES.len(), "cargo lists no dependencies");
}

#[test]
fn no_dependency_is_built_in_two_versions() {
    let lock = read("Cargo.lock");
    let names: Vec<&str> = lock.lines().filter_map(|line| line.strip_prefix("name = ")).collect();
    assert!(names.len() > CRATES.len());
    for pair in names.windows(2) {
        assert!(pair[0] != pair[1], "two versions of {} are built", pair[0]);
    }
}
