//! Golden adapt cases: `llmproxy adapt` prints, as parsed JSON, what the real Caddy prints, for each file of
//! `tests/golden/adapt` (see `tests/golden/regen.py` for their form). The goldens themselves are held against Caddy.

use crate::harness::process::{self, Which};
use crate::harness::{in_parallel, repository};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Cases where we do not answer as Caddy does, on purpose.
const DIFFERENCES: &[(&str, &str)] = &[
    ("brace-missing", "a site that is never closed is a broken file, perhaps half written: refused"),
    ("quote-unterminated", "a quote that is never closed swallows the rest of the file: refused"),
];

struct Case {
    name: String,
    input: String,
    /// `Err` holds Caddy's reason to refuse.
    expected: Result<Value, String>,
}

#[test]
fn adapt_prints_what_caddy_prints() {
    let cases = cases();
    assert!(cases.len() >= 150, "only {} golden cases were found", cases.len());
    check(Which::Llmproxy, &cases, DIFFERENCES);
}

#[test]
fn the_goldens_are_what_caddy_prints() {
    if process::caddy_or_skip() {
        check(Which::Caddy, &cases(), &[]);
    }
}

fn check(which: Which, cases: &[Case], exceptions: &[(&str, &str)]) {
    let problems: Vec<String> = in_parallel(cases, |case| {
        let excepted = exceptions.iter().any(|(name, _)| *name == case.name);
        match (problem(which, case), excepted) {
            (Some(_), true) | (None, false) => None,
            (Some(problem), false) => Some(format!("{}: {problem}", case.name)),
            (None, true) => Some(format!("{}: listed as a difference, but equal", case.name)),
        }
    })
    .into_iter()
    .flatten()
    .collect();
    let (failed, all) = (problems.len(), cases.len());
    assert!(problems.is_empty(), "{failed} of {all} cases differ for {which:?}:\n{}", problems.join("\n"));
}

fn problem(which: Which, case: &Case) -> Option<String> {
    let directory = tempfile::tempdir().unwrap();
    copy(&folder().join("files"), directory.path());
    std::fs::write(directory.path().join("Proxyfile"), &case.input).unwrap();
    let actual = adapt(which, directory.path(), "Proxyfile", &environment(&folder().join("env.json")));
    match (actual, &case.expected) {
        (Ok(actual), Ok(expected)) => first_difference(&actual, expected, ""),
        (Err(_), Err(_)) => None,
        (Ok(_), Err(reason)) => Some(format!("accepted, but Caddy refuses: {reason}")),
        (Err(said), Ok(_)) => Some(format!("refused, but Caddy accepts: {}", said.lines().next().unwrap_or_default())),
    }
}

/// Runs `adapt`; `Err` holds what it said when it refused.
pub fn adapt(which: Which, directory: &Path, file: &str, environment: &[(String, String)]) -> Result<Value, String> {
    let mut command = process::command(which, directory);
    command.args(["adapt", "--config", file]).envs(environment.iter().cloned());
    if which == Which::Caddy {
        command.args(["--adapter", "caddyfile"]);
    }
    let output = process::run_within(&mut command, Duration::from_secs(60));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("panicked at"), "a panic: {said}");
    match output.status.code() {
        Some(0) => Ok(serde_json::from_slice(&output.stdout).expect("adapt prints JSON")),
        Some(_) => Err(said),
        None => panic!("ended by a signal: {said}"),
    }
}

/// The first place where two values differ, as a JSON pointer with both sides; `None` when equal.
pub fn first_difference(ours: &Value, caddys: &Value, at: &str) -> Option<String> {
    match (ours, caddys) {
        (Value::Object(a), Value::Object(b)) => {
            let missing = b.keys().find(|key| !a.contains_key(*key)).map(|key| format!("{at}/{key} is missing"));
            let extra = a.keys().find(|key| !b.contains_key(*key)).map(|key| format!("{at}/{key} is not in Caddy's"));
            missing
                .or(extra)
                .or_else(|| a.iter().find_map(|(key, value)| first_difference(value, &b[key], &format!("{at}/{key}"))))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().find_map(|(n, (a, b))| first_difference(a, b, &format!("{at}/{n}")))
        }
        _ => (ours != caddys).then(|| format!("{at}: {ours}, Caddy has {caddys}")),
    }
}

/// The variables of an `env.json`.
pub fn environment(file: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap();
    serde_json::from_str::<std::collections::BTreeMap<String, String>>(&text).unwrap().into_iter().collect()
}

fn folder() -> PathBuf {
    repository().join("tests/golden/adapt")
}

fn cases() -> Vec<Case> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    files.iter().map(|file| case(file)).collect()
}

fn case(file: &Path) -> Case {
    let name = file.file_stem().unwrap().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(file).unwrap();
    let (input, expected) = text.rsplit_once("\n----------\n").unwrap_or_else(|| panic!("{name} has no dashes"));
    let expected = match expected.strip_prefix("refused: ") {
        Some(reason) => Err(reason.trim_end().to_owned()),
        None => Ok(serde_json::from_str(expected).unwrap_or_else(|error| panic!("{name}: {error}"))),
    };
    Case { name, input: format!("{input}\n"), expected }
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The inputs of all cases: a supply of files of every kind.
pub fn inputs() -> Vec<String> {
    cases().into_iter().map(|case| case.input).collect()
}
