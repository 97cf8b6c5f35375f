//! The reference pages that are made from the program: directives, matchers, diagnostics. The checked-in pages must be
//! what the program says now; `WRITE_REFERENCE=1 cargo test --test it reference` (or `just docs`) writes them anew.
//!
//! The prose of a directive or matcher is the module doc of its file in `src/modules`, its shape and examples come from
//! the registry, where a test runs them.

use crate::harness::repository;
use llmproxy::base::diagnostic::codes;
use llmproxy::config::registry::Directive;
use llmproxy::modules::REGISTRY;
use std::fmt::Write as _;
use std::path::Path;

/// Path below `docs/reference`, and what makes the page.
const PAGES: &[(&str, fn() -> String)] =
    &[("directives.md", directives), ("matchers.md", matchers), ("diagnostics.md", diagnostics)];

#[test]
fn the_reference_is_what_the_program_says() {
    let folder = repository().join("docs/reference");
    let write = std::env::var_os("WRITE_REFERENCE").is_some();
    let mut stale = Vec::new();
    for (name, make) in PAGES {
        let (file, page) = (folder.join(name), make());
        if write {
            std::fs::write(&file, page).unwrap();
        } else if std::fs::read_to_string(&file).ok().as_deref() != Some(page.as_str()) {
            stale.push(*name);
        }
    }
    assert!(stale.is_empty(), "out of date in docs/reference: {stale:?}; write them anew with `just docs`");
}

/// Pages written by hand do not lead to files that are not there.
#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if target.contains("://") || file.is_empty() {
                continue;
            }
            if !page.parent().unwrap().join(file).exists() {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn directives() -> String {
    let mut page = opening("Directives");
    page.push_str(
        "The words that may begin a line of a site, in alphabetical order. `[matcher]` is `*`, a path or `@name`; see\n\
         [matchers](matchers.md). **Not run yet** means: read, checked and adapted as Caddy does, and refused by `run` and\n\
         `validate`.\n\n## Running order\n\n\
         Whatever their order in the file, the routes of a site run in this order (`route` keeps the file's; the global\n\
         option `order` changes it):\n\n",
    );
    let ordered: Vec<String> = REGISTRY
        .directives
        .iter()
        .filter(|d| d.ordered && d.renamed_to.is_none())
        .map(|d| format!("[`{0}`](#{0})", d.name))
        .collect();
    writeln!(page, "{}", ordered.join(" → ")).unwrap();
    let mut all: Vec<&Directive> = REGISTRY.directives.iter().copied().filter(|d| d.renamed_to.is_none()).collect();
    all.sort_by_key(|d| d.name);
    for directive in all {
        let doc = directive.doc;
        write!(page, "\n## `{}`\n\n{}\n", directive.name, doc.summary).unwrap();
        if doc.adapt_only {
            page.push_str("\n**Not run yet**, in whole or in part.\n");
        }
        write!(page, "\n```text\n{}\n```\n", doc.syntax.trim()).unwrap();
        let old: Vec<String> = REGISTRY
            .directives
            .iter()
            .filter(|other| other.renamed_to == Some(directive.name))
            .map(|other| format!("`{}`", other.name))
            .collect();
        if !old.is_empty() {
            write!(page, "\nOld spelling, accepted with a warning: {}.\n", old.join(", ")).unwrap();
        }
        write!(page, "\n{}", prose(&format!("name: \"{}\",", directive.name))).unwrap();
        if !doc.examples.is_empty() {
            let examples: Vec<&str> = doc.examples.iter().map(|example| example.trim()).collect();
            write!(page, "\n```caddyfile\n{}\n```\n", examples.join("\n\n")).unwrap();
        }
        if !doc.rejected.is_empty() {
            page.push_str("\nRefused:\n\n");
            for (example, code) in doc.rejected {
                let line = example.split_whitespace().collect::<Vec<_>>().join(" ");
                writeln!(page, "- `` {line} `` ([{code}](diagnostics.md#{code}))").unwrap();
            }
        }
    }
    page
}

fn matchers() -> String {
    let mut page = opening("Request matchers");
    page.push_str(
        "A matcher before a directive's arguments bounds it to some requests: `*` means all, `/path` is short for `path`,\n\
         and `@name` stands for a set defined in the same site, in which all lines must match:\n\n\
         ```caddyfile\n@chat {\n\tmethod POST\n\tpath /v1/chat/completions\n}\nreverse_proxy @chat 127.0.0.1:9001\n```\n",
    );
    let mut all: Vec<&str> = REGISTRY.matchers.iter().map(|m| m.id).collect();
    all.sort_unstable();
    for id in all {
        write!(page, "\n## `{id}`\n\n{}", prose(&format!("id: \"{id}\", parse"))).unwrap();
    }
    page
}

fn diagnostics() -> String {
    let mut page = opening("Diagnostics");
    page.push_str("Every code that a message about a file may have. `llmproxy explain CODE` prints the same.\n");
    for (code, title, long) in codes::all() {
        let text = long.replace("```", "\n```");
        write!(page, "\n## {code}\n\n**{title}**\n\n{}\n", text.trim()).unwrap();
    }
    page
}

fn opening(title: &str) -> String {
    format!("# {title}\n\n<!-- Made from the program by `just docs`; edit the source, not this page. -->\n\n")
}

/// The module doc of the feature file that holds `declaration`.
fn prose(declaration: &str) -> String {
    let mut files = Vec::new();
    collect(&repository().join("src/modules"), "rs", &mut files);
    let text = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).find(|text| text.contains(declaration));
    let text = text.unwrap_or_else(|| panic!("no file of src/modules holds {declaration:?}"));
    let doc = text.lines().map_while(|line| line.strip_prefix("//!"));
    doc.map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line))).collect()
}

fn pages() -> Vec<std::path::PathBuf> {
    let root = repository();
    let mut found: Vec<_> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].iter().map(|page| root.join(page)).collect();
    collect(&root.join("docs"), "md", &mut found);
    found
}

fn collect(folder: &Path, extension: &str, into: &mut Vec<std::path::PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, extension, into);
        } else if path.extension().is_some_and(|e| e == extension) {
            into.push(path);
        }
    }
}
