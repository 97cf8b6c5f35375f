//! Real Caddyfiles found in public repositories, read where they lie beside the repository (none is ours to commit):
//! what Caddy 2.11.7 adapts, llmproxy adapts to the same JSON; what Caddy refuses, llmproxy refuses.

use crate::golden_adapt::{adapt, environment, first_difference};
use crate::harness::process::{self, Which};
use crate::harness::{beside, in_parallel};
use std::path::{Path, PathBuf};

/// Files that llmproxy accepts although this Caddy build refuses them, each with the reason.
const SUPERSET: &[(&str, &str)] = &[
    ("057", "`dns cloudflare` is built in here; Caddy has it as a plugin"),
    ("079", "`rate_limit` is built in here; Caddy has it as a plugin"),
];

#[test]
fn adapt_equals_caddys_on_real_files() {
    let Some(corpus) = beside("LLMPROXY_CORPUS", "shared/corpus/caddyfiles") else { return };
    if !process::caddy_or_skip() {
        return;
    }
    let mut folders: Vec<PathBuf> = std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|folder| folder.join("Caddyfile").is_file());
    folders.sort();
    let problems: Vec<String> = in_parallel(&folders, |folder| problem(folder)).into_iter().flatten().collect();
    assert!(problems.is_empty(), "{} of {} files differ:\n{}", problems.len(), folders.len(), problems.join("\n"));
}

fn problem(folder: &Path) -> Option<String> {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("Caddyfile"), directory.path().join("Caddyfile")).unwrap();
    let environment = environment(&folder.join("env.json"));
    let caddys = adapt(Which::Caddy, directory.path(), "Caddyfile", &environment);
    let ours = adapt(Which::Llmproxy, directory.path(), "Caddyfile", &environment);
    let superset = SUPERSET.iter().any(|(file, _)| *file == name);
    match (ours, caddys) {
        (Ok(ours), Ok(caddys)) => {
            first_difference(&ours, &caddys, "").map(|difference| format!("{name}: {difference}"))
        }
        (Err(said), Ok(_)) => Some(format!("{name}: refused: {}", said.lines().next().unwrap_or_default())),
        (Ok(_), Err(said)) if !superset => Some(format!("{name}: accepted, but Caddy refuses: {said}")),
        (Err(_), Err(_)) if superset => Some(format!("{name}: listed as accepted, but refused")),
        _ => None,
    }
}
