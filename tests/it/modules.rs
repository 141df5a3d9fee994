//! The files of each crate import each other in one direction. This test draws and checks
//! `docs/modules.md`.
//!
//! `UPDATE_MODULES=1 cargo test -p sapwood-tests --test it modules` draws it again. The remaining
//! circles are listed in [`KNOWN`]; a new circle fails the test, and so does a listed one that is
//! gone.
#![allow(clippy::disallowed_methods, reason = "reads the sources, which are real files")]
use crate::tidy::{root, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const CRATES: [&str; 7] = ["base", "storage", "memtable", "sstable", "btree", "compaction", "engine"];
/// The remaining circles: crate, a file in it, and the number of its files.
const KNOWN: &[(&str, &str, usize)] = &[];

/// A path of modules, without `crate`.
type Module = Vec<String>;

struct Sources {
    /// Modules that are files, with their text, without comments, strings and tests.
    files: BTreeMap<Module, String>,
    /// Names that a module re-exports from elsewhere.
    handed_on: BTreeMap<(Module, String), Module>,
}

/// Tests in files of their own, and entry points for fuzz targets.
const LEFT_OUT: [&str; 5] = ["tests", "models", "model", "scripts", "fuzzing"];

/// The modules of a crate that are files.
fn collect(name: &str) -> BTreeMap<Module, String> {
    let mut files = BTreeMap::new();
    for (path, text) in sources() {
        let inside = path.strip_prefix(name).and_then(|path| path.strip_prefix("/src/"));
        let Some(path) = inside.and_then(|path| path.strip_suffix(".rs")) else { continue };
        let module: Module = path.split('/').map(str::to_string).collect();
        if !module.iter().any(|part| LEFT_OUT.contains(&part.as_str())) {
            files.insert(if path == "lib" { Vec::new() } else { module }, plain(&text));
        }
    }
    files
}

/// The text up to its tests, without comments.
fn plain(text: &str) -> String {
    let end = ["\n#[cfg(test)]\nmod ", "\n#[cfg(all(test"].iter().filter_map(|start| text.find(start)).min();
    let lines = text[..end.unwrap_or(text.len())].lines();
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether the item at `at` is for tests, models or simulations only, by an attribute before it.
fn is_conditional(text: &str, at: usize) -> bool {
    let before = text[..at].trim_end();
    let line = before.rsplit('\n').next().unwrap_or_default().trim();
    line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test")
}

/// The single paths of a tree such as `a::{b, c::{d, e as f}}`, each with its name.
fn expand(tree: &str, prefix: &str, out: &mut Vec<(String, String)>) {
    let tree = tree.trim();
    if let Some(open) = tree.find('{') {
        let prefix = format!("{prefix}{}", &tree[..open]);
        let inner = &tree[open + 1..tree.rfind('}').expect("balanced")];
        let (mut depth, mut start) = (0, 0);
        for (at, character) in inner.char_indices().chain([(inner.len(), ',')]) {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !inner[start..at].trim().is_empty() {
                        expand(&inner[start..at], &prefix, out);
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, name) = tree.split_once(" as ").unwrap_or((tree, tree));
    let path = format!("{prefix}{}", path.trim());
    let path = path.strip_suffix("::self").unwrap_or(&path).to_string();
    let name = name.trim().rsplit("::").next().unwrap_or_default();
    let name = if name == "self" { path.rsplit("::").next().unwrap_or_default() } else { name };
    out.push((path.clone(), name.to_string()));
}

impl Sources {
    fn read(name: &str) -> Sources {
        let mut sources = Sources { files: collect(name), handed_on: BTreeMap::new() };
        let mut handed_on = BTreeMap::new();
        for module in sources.files.keys() {
            for (is_public, path, name) in sources.uses(module) {
                if is_public && let Some(path) = sources.absolute(module, &path) {
                    handed_on.insert((module.clone(), name), path);
                }
            }
        }
        sources.handed_on = handed_on;
        sources
    }

    /// Every `use` of a module: whether it re-exports, the path, the name.
    fn uses(&self, module: &Module) -> Vec<(bool, String, String)> {
        let text = &self.files[module];
        let mut found = Vec::new();
        for (at, _) in text.match_indices("use ") {
            let line = text[..at].rsplit('\n').next().unwrap_or_default();
            let public = line.trim();
            if !(public.is_empty() || public.starts_with("pub")) || is_conditional(text, at - line.len()) {
                continue;
            }
            let Some(end) = text[at..].find(';') else { continue };
            let mut paths = Vec::new();
            expand(&text[at + 4..at + end], "", &mut paths);
            found.extend(paths.into_iter().map(|(path, name)| (!public.is_empty(), path, name)));
        }
        found
    }

    /// The path from the root of the crate; `None` for one of another crate.
    fn absolute(&self, module: &Module, path: &str) -> Option<Module> {
        let mut parts = path.split("::").map(str::trim).peekable();
        let mut at = match *parts.peek()? {
            "crate" => {
                parts.next();
                Vec::new()
            }
            "self" => {
                parts.next();
                module.clone()
            }
            "super" => module.clone(),
            // Since edition 2018 a path to a module next to the file needs no keyword before it.
            first if self.files.contains_key(&[module.as_slice(), &[first.to_string()]].concat()) => {
                module.clone()
            }
            _ => return None,
        };
        for part in parts {
            match part {
                "super" => drop(at.pop()?),
                part => at.push(part.to_string()),
            }
        }
        Some(at)
    }

    /// The file that defines the item of an absolute path.
    fn file_of(&self, path: &Module) -> Option<Module> {
        let mut path = path.clone();
        // Each step follows one re-export.
        'follow: for _ in 0..8 {
            let len = (0..=path.len()).rev().find(|len| self.files.contains_key(&path[..*len]))?;
            if let Some(name) = path.get(len)
                && let Some(to) = self.handed_on.get(&(path[..len].to_vec(), name.clone()))
            {
                let rest = path[len + 1..].to_vec();
                path = [to.as_slice(), &rest].concat();
                continue 'follow;
            }
            return Some(path[..len].to_vec());
        }
        None
    }

    /// The files that each file imports from.
    fn edges(&self) -> BTreeMap<Module, BTreeSet<Module>> {
        let mut edges = BTreeMap::new();
        for module in self.files.keys() {
            let mut to = BTreeSet::new();
            for (is_public, path, _) in self.uses(module) {
                // A table of contents imports nothing.
                let file = self.absolute(module, &path).and_then(|path| self.file_of(&path));
                to.extend(file.filter(|file| !is_public && file != module));
            }
            let text = &self.files[module];
            for (at, _) in text.match_indices("crate::") {
                if text[..at].ends_with("use ") || text[..at].ends_with("(") && text[..at].ends_with("pub(") {
                    continue;
                }
                let end = text[at..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
                let path = text[at..at + end.unwrap_or(text.len() - at)].trim_end_matches(':');
                let file = self.absolute(module, path).and_then(|path| self.file_of(&path));
                to.extend(file.filter(|file| file != module));
            }
            edges.insert(module.clone(), to);
        }
        edges
    }
}

/// All reachable files.
fn reach(edges: &BTreeMap<Module, BTreeSet<Module>>, from: &Module) -> BTreeSet<Module> {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from.clone()]);
    while let Some(next) = left.pop() {
        for to in edges.get(&next).into_iter().flatten() {
            if seen.insert(to.clone()) {
                left.push(to.clone());
            }
        }
    }
    seen
}

fn named(module: &Module) -> String {
    if module.is_empty() { "lib.rs".to_string() } else { format!("{}.rs", module.join("/")) }
}

/// The drawing of one crate, and its circles.
fn draw(name: &str) -> (String, Vec<Vec<String>>) {
    let edges = Sources::read(name).edges();
    let reached: BTreeMap<&Module, BTreeSet<Module>> =
        edges.keys().map(|module| (module, reach(&edges, module))).collect();
    let mut circles: BTreeSet<Vec<String>> = BTreeSet::new();
    let circle_of = |module: &Module| -> Vec<Module> {
        let mut circle: Vec<Module> =
            reached[module].iter().filter(|other| reached[other].contains(module)).cloned().collect();
        if circle.is_empty() {
            circle.push(module.clone());
        }
        circle
    };
    // Floors: a circle is above all files that it imports from. Iterates to a fixed point.
    let mut floors: BTreeMap<&Module, usize> = edges.keys().map(|module| (module, 0)).collect();
    loop {
        let mut moved = false;
        for module in edges.keys() {
            let circle = circle_of(module);
            let below = circle.iter().flat_map(|of| &edges[of]).filter(|to| !circle.contains(to));
            let floor = below.map(|to| floors[to] + 1).max().unwrap_or(0);
            let floor = circle.iter().map(|of| floors[of]).max().unwrap_or(0).max(floor);
            moved |= floors[module] < floor;
            floors.insert(module, floor);
        }
        if !moved {
            break;
        }
    }
    let mut out = format!("## {name}\n\n```text\n");
    let top = floors.values().max().copied().unwrap_or(0);
    for floor in (0..=top).rev() {
        let files: Vec<String> =
            floors.iter().filter(|(_, on)| **on == floor).map(|(module, _)| named(module)).collect();
        let mut line = format!("{floor:2} ");
        for file in files {
            if line.len() + file.len() > 98 {
                writeln!(out, "{}", line.trim_end()).expect("text");
                line = "   ".to_string();
            }
            write!(line, " {file}").expect("text");
        }
        writeln!(out, "{}", line.trim_end()).expect("text");
    }
    out.push_str("```\n\n");
    for module in edges.keys() {
        let circle = circle_of(module);
        if circle.len() > 1 {
            circles.insert(circle.iter().map(named).collect());
        }
    }
    for circle in &circles {
        writeln!(out, "Circle of {} files: {}.\n", circle.len(), circle.join(", ")).expect("text");
    }
    (out, circles.into_iter().collect())
}

#[test]
fn files_import_in_one_direction() {
    let mut drawing = String::from(
        "# The modules of each crate\n\nA file imports from files on lower floors only. Files of a circle share a floor. This page is drawn\nby the test `modules`, which fails when it is out of date.\n\n",
    );
    let mut found = BTreeSet::new();
    for name in CRATES {
        let (text, circles) = draw(name);
        drawing.push_str(&text);
        found.extend(circles.into_iter().map(|circle| (name, circle[0].clone(), circle.len())));
    }
    let path = root().join("docs/modules.md");
    let drawing = format!("{}\n", drawing.trim_end());
    if std::env::var_os("UPDATE_MODULES").is_some() {
        std::fs::write(&path, &drawing).expect("written");
    }
    let known = KNOWN.iter().map(|(name, first, len)| (*name, first.to_string(), *len)).collect();
    assert_eq!(found, known, "circles of files");
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    let command = "UPDATE_MODULES=1 cargo test -p sapwood-tests --test it modules";
    assert!(there == drawing, "docs/modules.md is out of date; draw it with: {command}");
}

#[test]
fn trees_of_imports_are_expanded() {
    let mut out = Vec::new();
    expand("crate::a::{self, b::{C, D as E}, f}", "", &mut out);
    let paths: Vec<&str> = out.iter().map(|(path, _)| path.as_str()).collect();
    let names: Vec<&str> = out.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(paths, ["crate::a", "crate::a::b::C", "crate::a::b::D", "crate::a::f"]);
    assert_eq!(names, ["a", "C", "E", "f"]);
}
