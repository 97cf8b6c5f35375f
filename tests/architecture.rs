//! The shape of the house, checked: rooms use only rooms below them, features never import one another, only the rooms
//! that own a socket see hyper, no file outgrows its idea, and the registry, its documentation and the examples agree.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a broken assumption is a failed test

use llmproxy::modules::REGISTRY;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Rooms, bottom up. Rooms of one line never use each other.
const ROOMS: &[&[&str]] = &[
    &["base"],
    &["llm", "telemetry"],
    &["client", "storage", "syntax"],
    &["http", "state"],
    &["config"],
    &["proxy", "tls"],
    &["modules"],
    &["compile"],
    &["server"],
    &["cli"],
];

/// Rooms that may name hyper's types: the codec is fenced, so that another can take its place.
const SEE_HYPER: &[&str] = &["client", "proxy", "server"];

/// Lines of a file before its unit tests, at most.
const LONGEST: usize = 700;

/// What feature files share inside their room.
const SHARED_BY_FEATURES: &[&str] = &["testing"];

/// Directives whose use needs more than the body of one site, so no example there.
const WITHOUT_EXAMPLES: &[&str] = &["invoke"];

struct Source {
    /// Relative to `src`, such as `http/walker.rs`.
    path: String,
    /// Without comments and unit tests.
    code: String,
    lines: usize,
    text: String,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap_or_default()
    }
}

#[test]
fn rooms_use_only_rooms_below() {
    let mut faults = Vec::new();
    for source in sources() {
        if matches!(source.room(), "lib" | "main") {
            continue;
        }
        let level = level(source.room()).unwrap_or_else(|| panic!("{} is in no known room", source.path));
        for used in rooms_used(&source.code) {
            match self::level(&used) {
                Some(below) if below < level || used == source.room() => {}
                Some(_) => faults.push(format!("{} uses `{used}`, which is not below it", source.path)),
                None => faults.push(format!("{} uses `crate::{used}`, which is no room", source.path)),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn features_never_import_one_another() {
    let features = features();
    let mut faults = Vec::new();
    for source in
        sources().iter().filter(|source| source.path.starts_with("modules/") && source.path != "modules/mod.rs")
    {
        let own = source.path["modules/".len()..].split(['/', '.']).next().unwrap_or_default();
        let in_folder = source.path.matches('/').count() > 1;
        for other in features.iter().filter(|other| *other != own && !SHARED_BY_FEATURES.contains(&other.as_str())) {
            let sibling = if in_folder { format!("super::super::{other}::") } else { format!("super::{other}::") };
            if source.code.contains(&sibling) || source.code.contains(&format!("crate::modules::{other}::")) {
                faults.push(format!("{} imports `{other}`: what two features share moves down a room", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_codec_is_fenced() {
    let faults: Vec<String> = sources()
        .iter()
        .filter(|source| !SEE_HYPER.contains(&source.room()) && source.code.contains("hyper::"))
        .map(|source| format!("{} names hyper's types", source.path))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_file_is_one_idea_and_says_which() {
    let mut faults = Vec::new();
    for source in sources() {
        if source.lines > LONGEST {
            faults.push(format!("{} has {} lines before its tests, more than {LONGEST}", source.path, source.lines));
        }
        if !source.text.starts_with("//!") && !source.path.ends_with("main.rs") && !source.path.contains("/tests/") {
            faults.push(format!("{} does not open with what it owns (`//!`)", source.path));
        }
        for name in ["utils", "helpers", "common", "misc", "core", "manager"] {
            if source.path.split(['/', '.']).any(|part| part == name) {
                faults.push(format!("{} has a name that says nothing", source.path));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_feature_file_is_registered() {
    let table = std::fs::read_to_string(folder("src").join("modules/mod.rs")).unwrap();
    let unused: Vec<String> = features()
        .into_iter()
        .filter(|feature| !SHARED_BY_FEATURES.contains(&feature.as_str()) && !table.contains(&format!("{feature}::")))
        .collect();
    assert!(unused.is_empty(), "declared in modules/mod.rs and in none of its tables: {unused:?}");
}

#[test]
fn every_directive_is_documented_and_has_examples() {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for directive in REGISTRY.directives {
        let name = directive.name;
        if !seen.insert(name) {
            faults.push(format!("`{name}` is registered twice"));
        }
        let doc = directive.doc;
        if doc.summary.trim().is_empty() || !doc.syntax.contains(name) && directive.renamed_to.is_none() {
            faults.push(format!("`{name}` lacks a summary, or its syntax does not show it"));
        }
        let shown = |name: &str| doc.examples.iter().any(|example| words(example).any(|word| word == name));
        if !WITHOUT_EXAMPLES.contains(&name) && !shown(name) && !directive.renamed_to.is_some_and(shown) {
            faults.push(format!("no example of `{name}` uses it"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The reference names every directive, and every directive that an example file uses exists.
#[test]
fn reference_and_examples_agree_with_the_registry() {
    let mut faults = Vec::new();
    if let Ok(page) = std::fs::read_to_string(folder("docs/reference/directives.md")) {
        for directive in REGISTRY.directives.iter().filter(|directive| directive.renamed_to.is_none()) {
            if !page.contains(directive.name) {
                faults.push(format!("docs/reference/directives.md does not name `{}`", directive.name));
            }
        }
    }
    let proxyfiles = files(&folder("examples"), "Proxyfile");
    assert!(!proxyfiles.is_empty());
    for file in proxyfiles {
        let text = std::fs::read_to_string(&file).unwrap();
        // One tab deep in a site block: a directive, a matcher or the end of a block. The block without an address holds
        // global options.
        let mut global = false;
        for line in text.lines() {
            global = match line {
                "{" => true,
                "}" => false,
                _ => global,
            };
            if global || !line.starts_with('\t') || line.starts_with("\t\t") {
                continue;
            }
            let word = words(line).next().unwrap_or_default();
            let elsewhere = word.is_empty() || word.starts_with(['@', '#', '}']) || word == "import";
            if !elsewhere && REGISTRY.directive(word).is_none() {
                faults.push(format!("{} uses `{word}`, which is not registered", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split_whitespace()
}

fn level(room: &str) -> Option<usize> {
    ROOMS.iter().position(|line| line.contains(&room))
}

/// The rooms that a file names: `crate::room::…` and `use crate::{room::…, other::…}`.
fn rooms_used(code: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` of a macro names the crate as well; `some_crate::` does not.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0_usize, true);
            for (n, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    _ if start && depth == 0 && !c.is_whitespace() => {
                        used.insert(identifier(&group[n..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            used.insert(identifier(rest));
        }
    }
    used.remove("");
    used
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn features() -> BTreeSet<String> {
    let table = std::fs::read_to_string(folder("src").join("modules/mod.rs")).unwrap();
    let declared = table.lines().filter_map(|line| line.strip_prefix("pub ").unwrap_or(line).strip_prefix("mod "));
    declared.filter_map(|rest| rest.strip_suffix(';')).map(str::to_owned).collect()
}

fn sources() -> Vec<Source> {
    let root = folder("src");
    files(&root, "rs")
        .into_iter()
        .map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            let product = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
            let code =
                product.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
            let path = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
            Source { path, code, lines: product.lines().count(), text }
        })
        .collect()
}

fn folder(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}
