//! Every file in `examples/` is valid, adapts as Caddy adapts it where Caddy knows all its words, and starts with a
//! comment that says what it is for.

use crate::golden_adapt::{adapt, first_difference};
use crate::harness::process::{self, Which, command, run_within};
use crate::harness::{repository, standin::Authority};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

/// Words that only llmproxy has: such a file is none for Caddy.
const OURS: &[&str] = &["auth_token", "dns exec", "rate_limit"];

#[test]
fn every_example_is_valid() {
    let authority = Authority::new();
    let (certificate, key) = authority.certificate(&["llm.example.com"]);
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(directory.path().join("clients-ca.pem"), authority.pem()).unwrap();
    let program = directory.path().join("dns-record");
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(directory.path().join("tokens"), "ide the-token-of-the-example\n").unwrap();
    let mut problems = Vec::new();
    for file in examples() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).unwrap();
        // Certificate files of a real machine stand in for themselves.
        let here = directory.path().display().to_string();
        let copy = directory.path().join(&name);
        std::fs::write(&copy, text.replace("/etc/llmproxy", &here)).unwrap();
        let mut validate = command(Which::Llmproxy, directory.path());
        validate.args(["validate", "--config"]).arg(&copy).envs(environment());
        let output = run_within(&mut validate, Duration::from_secs(20));
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            problems.push(format!("{name}: {said}"));
        }
        if !name.ends_with(".json") && !text.starts_with("# ") {
            problems.push(format!("{name} does not say what it is for"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn examples_adapt_as_in_caddy() {
    if !process::caddy_or_skip() {
        return;
    }
    let examples = examples();
    assert!(examples.len() >= 5);
    for file in examples.iter().filter(|file| file.extension().is_none_or(|extension| extension != "json")) {
        let text = std::fs::read_to_string(file).unwrap();
        if OURS.iter().any(|word| text.contains(word)) {
            continue;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("Proxyfile"), text).unwrap();
        let caddys = adapt(Which::Caddy, directory.path(), "Proxyfile", &environment()).unwrap();
        let ours = adapt(Which::Llmproxy, directory.path(), "Proxyfile", &environment()).unwrap();
        assert_eq!(first_difference(&ours, &caddys, ""), None, "{}", file.display());
    }
}

fn environment() -> Vec<(String, String)> {
    let value = |name: &str| (name.to_owned(), format!("value-of-{name}"));
    let names =
        ["OPENAI_API_KEY", "OPENAI_API_KEY_2", "ANTHROPIC_API_KEY", "TEAM_TOKEN", "OLLAMA_SECRET", "CURSOR_TOKEN"];
    names.map(value).to_vec()
}

fn examples() -> Vec<PathBuf> {
    let folder = repository().join("examples");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.is_file() && file.extension().is_none_or(|extension| extension != "md"));
    files.sort();
    files
}
