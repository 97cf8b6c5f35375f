//! `migrate`: each file of `tests/golden/migrate` is another proxy's settings, a line of ten dashes, the Proxyfile made of
//! them, another such line, and what its owner is told. `UPDATE_GOLDEN=1` writes the latter two anew.

use crate::harness::process::{Which, command, run_within};
use crate::harness::repository;
use std::path::PathBuf;
use std::time::Duration;

const DASHES: &str = "\n----------\n";

fn cases() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository().join("tests/golden/migrate")).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 5);
    paths
}

struct Made {
    file: String,
    told: String,
    succeeded: bool,
}

fn migrate(env: &str) -> Made {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("env"), env).unwrap();
    let mut command = command(Which::Llmproxy, directory.path());
    command.args(["migrate", "gpt-reverse-proxy", "--env-file", "env"]);
    let output = run_within(&mut command, Duration::from_secs(30));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (file, told) = (text(output.stdout), text(output.stderr));
    assert!(!file.contains("planted") && !told.contains("planted"), "a value shows:\n{file}\n{told}");
    Made { file, told, succeeded: output.status.success() }
}

#[test]
fn settings_become_the_agreed_file_and_notes() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for path in cases() {
        let text = std::fs::read_to_string(&path).unwrap();
        let (env, expected) = text.split_once(DASHES).unwrap_or((text.trim_end(), ""));
        let made = migrate(env);
        // Diagnostics of the check that follows are cases of their own.
        let notes = made.told.lines().filter(|line| line.starts_with("! ") || line.starts_with("llmproxy: env"));
        let notes: String = notes.flat_map(|line| [line, "\n"]).collect();
        let actual = format!("{}{}{notes}", made.file.trim_end(), DASHES);
        if update {
            std::fs::write(&path, format!("{env}{DASHES}{actual}")).unwrap();
        } else if actual.trim_end() != expected.trim_end() {
            wrong.push(format!("{}\nexpected\n{expected}\nactual\n{actual}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What is made runs, and is formatted as `fmt` would.
#[test]
fn what_is_made_is_valid() {
    for path in cases() {
        let text = std::fs::read_to_string(&path).unwrap();
        let (env, _) = text.split_once(DASHES).unwrap();
        let made = migrate(env);
        if made.file.is_empty() {
            assert!(!made.succeeded);
            continue;
        }
        // An env file that `--envfile` does not take has to be changed first, and that is said.
        let readable = !made.told.contains("cannot read env");
        assert_eq!(made.succeeded, readable, "{}: {}", path.display(), made.told);
        let formatted = llmproxy::syntax::format(&made.file);
        assert_eq!(formatted, made.file, "{}", path.display());
    }
}

#[test]
fn nothing_is_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("env"), "UPSTREAM_URL=https://a.test\n").unwrap();
    let target = directory.path().join("Proxyfile");
    std::fs::write(&target, "somebody's work").unwrap();
    let mut command = command(Which::Llmproxy, directory.path());
    command.args(["migrate", "gpt-reverse-proxy", "--env-file", "env", "--output", "Proxyfile"]);
    let output = run_within(&mut command, Duration::from_secs(30));
    assert!(!output.status.success());
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "somebody's work");
}
