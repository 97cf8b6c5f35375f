//! Golden diagnostics: each file of `tests/golden/diagnostics` is a Proxyfile, a line of ten dashes, and what the admin
//! reads about it. `UPDATE_GOLDEN=1` writes the second part anew; read the change before committing it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use llmproxy::base::diagnostic::{self, Diagnostic, codes};
use llmproxy::base::env::Env;
use llmproxy::config::{expand, resolve::resolve};
use llmproxy::modules::REGISTRY;

const DASHES: &str = "\n----------\n";

/// What the environment holds in these cases: none of it may show.
const SECRET: &str = "s3cret-value";

#[test]
fn messages_are_as_agreed() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for path in cases() {
        let text = std::fs::read_to_string(&path).unwrap();
        let (input, expected) = text.split_once(DASHES).unwrap_or((text.trim_end(), ""));
        let (actual, _) = diagnose(input);
        assert!(!actual.contains(SECRET), "{} shows a value of the environment", path.display());
        if update {
            std::fs::write(&path, format!("{input}{DASHES}{actual}")).unwrap();
        } else if actual.trim_end() != expected.trim_end() {
            wrong.push(format!("{}\nexpected\n{expected}\nactual\n{actual}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn each_case_is_named_after_the_code_it_shows() {
    for path in cases() {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let (_, diagnostics) = diagnose(text.split_once(DASHES).map_or(&*text, |(input, _)| input));
        // `code.txt` or `code.what-differs.txt`
        let code = stem.split('.').next().unwrap();
        assert!(diagnostics.iter().any(|d| d.code == code), "{stem}: {:?}", codes_of(&diagnostics));
    }
}

/// Codes of the language itself: each has its case here. Those of directives and options are cases of their modules.
#[test]
fn every_code_of_the_language_has_a_case() {
    const OTHERWISE: &[&str] =
        &["cannot-read-file", "file-too-large", "not-text", "import-empty", "import-unreadable", "unreadable-text"];
    let shown: BTreeSet<String> = cases()
        .iter()
        .map(|path| path.file_stem().unwrap().to_string_lossy().split('.').next().unwrap().to_owned())
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = std::fs::read_to_string(root.join("src/syntax/lexer.rs")).unwrap();
    for entry in std::fs::read_dir(root.join("src/config/expand")).unwrap() {
        sources += &std::fs::read_to_string(entry.unwrap().path()).unwrap();
    }
    let missing: Vec<_> = codes::all()
        .map(|(code, _, _)| *code)
        .filter(|code| sources.contains(&format!("\"{code}\"")))
        .filter(|code| !OTHERWISE.contains(code) && !shown.contains(*code))
        .collect();
    assert!(missing.is_empty(), "no case in tests/golden/diagnostics for {missing:?}");
}

/// What the admin reads, and the diagnostics behind it.
fn diagnose(input: &str) -> (String, Vec<Diagnostic>) {
    let mut env = Env::empty();
    env.set("TOKEN", SECRET);
    let loaded = expand::load_text("Proxyfile", input, &env, &|name| REGISTRY.directive(name).is_some());
    let mut diagnostics = loaded.diagnostics.clone();
    if !loaded.has_errors() {
        diagnostics.extend(resolve(&loaded.file, &loaded.sources, &REGISTRY).diagnostics);
    }
    (diagnostic::render(&diagnostics, &loaded.sources, false), diagnostics)
}

fn codes_of(diagnostics: &[Diagnostic]) -> Vec<&'static str> {
    diagnostics.iter().map(|d| d.code).collect()
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/diagnostics");
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    cases.sort();
    assert!(cases.len() >= 30, "only {} golden diagnostics were found", cases.len());
    cases
}
