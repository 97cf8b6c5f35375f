//! `file [FILES…]` with `root`, `try_files`, `try_policy`, `split_path`: one of the files exists below the root.
//!
//! A name that ends in `/` must be a directory, any other must not be one; `=404` at its turn raises that error. The
//! file found is `{file_match.relative}`, `{file_match.absolute}`, `{file_match.type}`, `{file_match.remainder}`.
//! Names with wildcards (`*.txt`) are not supported yet.

use std::fs::Metadata;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::error::HandlerError;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::http::path;
use crate::http::placeholder::{Template, Unknown};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "file", parse, compile };

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    #[serde(skip_serializing_if = "String::is_empty")]
    fs: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    root: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    try_files: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    try_policy: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    split_path: Vec<String>,
}

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    let mut config = Config::default();
    for line in lines {
        config.try_files.extend(line.args.iter().map(|a| a.text().to_owned()));
        for option in line.lines() {
            cx.no_block(option)?;
            let words = || option.args.iter().map(|a| a.text().to_owned());
            match option.name() {
                "root" => cx.one(option)?.text().clone_into(&mut config.root),
                "try_policy" => cx.one(option)?.text().clone_into(&mut config.try_policy),
                "try_files" | "split_path" if option.args.is_empty() => return Err(cx.arg_err(option)),
                "try_files" => config.try_files.extend(words()),
                "split_path" => config.split_path = words().collect(),
                _ => return Err(cx.unknown(option, &["root", "try_files", "try_policy", "split_path"])),
            }
        }
    }
    Ok(serde_json::to_value(config).unwrap_or_default())
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let config: Config = read_value(value)?;
    if !config.fs.is_empty() {
        return Err(
            CompileError::not_supported("a file system other than the default in the matcher `file`").within("fs")
        );
    }
    let policy = match config.try_policy.as_str() {
        "" | "first_exist" => Policy::First { fallback: false },
        "first_exist_fallback" => Policy::First { fallback: true },
        "largest_size" => Policy::Largest,
        "smallest_size" => Policy::Smallest,
        "most_recently_modified" => Policy::Newest,
        other => {
            let message = format!("there is no try policy `{other}`");
            let help = "one of `first_exist`, `first_exist_fallback`, `largest_size`, `smallest_size`, \
                        `most_recently_modified`";
            return Err(CompileError::new("unknown-try-policy", message).help(help).within("try_policy"));
        }
    };
    let root = if config.root.is_empty() { "{http.vars.root}" } else { &config.root };
    let default = ["{http.request.uri.path}".to_owned()];
    let files = if config.try_files.is_empty() { &default[..] } else { &config.try_files };
    let mut candidates = Vec::with_capacity(files.len());
    for (i, file) in files.iter().enumerate() {
        candidates.push(Candidate::compile(file).map_err(|e| e.within(i).within("try_files"))?);
    }
    Ok(Box::new(MatchFile {
        root: Template::parse(root),
        candidates: candidates.into(),
        policy,
        split_path: config.split_path.iter().map(|s| s.to_ascii_lowercase().into()).collect(),
    }))
}

struct MatchFile {
    root: Template,
    candidates: Box<[Candidate]>,
    policy: Policy,
    /// In lower case.
    split_path: Box<[Box<str>]>,
}

#[derive(Clone, Copy)]
enum Policy {
    /// With `fallback`, the last file's kind does not matter.
    First {
        fallback: bool,
    },
    Largest,
    Smallest,
    Newest,
}

enum Candidate {
    File(Template),
    /// `=404`.
    Status(u16),
}

impl Candidate {
    fn compile(text: &str) -> Result<Self, CompileError> {
        if let Some(status) = text.strip_prefix('=').and_then(|s| s.parse().ok())
            && (100..=999).contains(&status)
        {
            return Ok(Self::Status(status));
        }
        if outside_placeholders(text).contains(['*', '?', '[']) {
            return Err(CompileError::not_supported("a wildcard in the names of the matcher `file`"));
        }
        Ok(Self::File(Template::parse(text)))
    }
}

/// The text without what stands in braces.
fn outside_placeholders(text: &str) -> String {
    let mut depth = 0_usize;
    text.chars()
        .filter(|c| {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0
        })
        .collect()
}

/// A file that a candidate names.
struct Found {
    absolute: String,
    relative: String,
    remainder: String,
    facts: Metadata,
}

impl Matcher for MatchFile {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        let root = self.root.render(ex, Unknown::Empty);
        let root = path::clean(if root.is_empty() { "." } else { &root }).into_owned();
        let found = match self.policy {
            Policy::First { fallback } => match self.first(ex, &root, fallback) {
                Ok(found) => found,
                Err(error) => return Verdict::Error(error),
            },
            Policy::Largest => self.best(ex, &root, |new, old| new.len() > old.map_or(0, Metadata::len)),
            Policy::Smallest => {
                self.best(ex, &root, |new, old| old.is_none_or(|old| old.len() == 0 || new.len() < old.len()))
            }
            Policy::Newest => self.best(ex, &root, |new, old| old.is_none_or(|old| modified(new) > modified(old))),
        };
        let Some(found) = found else { return Verdict::No };
        let directory = found.facts.is_dir() && !found_by_fallback(self.policy, &found);
        ex.set_extra("http.matchers.file.relative", found.relative);
        ex.set_extra("http.matchers.file.absolute", found.absolute);
        ex.set_extra("http.matchers.file.remainder", found.remainder);
        ex.set_extra("http.matchers.file.type", if directory { "directory" } else { "file" }.to_owned());
        Verdict::Yes
    }
}

impl MatchFile {
    fn first(&self, ex: &Exchange, root: &str, fallback: bool) -> Result<Option<Found>, HandlerError> {
        let last = self.candidates.len() - 1;
        for (i, candidate) in self.candidates.iter().enumerate() {
            match candidate {
                Candidate::Status(status) => {
                    return Err(HandlerError::new(*status, "file", status.to_string()));
                }
                Candidate::File(template) => {
                    if let Some(found) = self.look_up(ex, root, template)
                        && (fallback && i == last || found.absolute.ends_with('/') == found.facts.is_dir())
                    {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }

    fn best(&self, ex: &Exchange, root: &str, better: fn(&Metadata, Option<&Metadata>) -> bool) -> Option<Found> {
        let mut best: Option<Found> = None;
        for candidate in &self.candidates {
            if let Candidate::File(template) = candidate
                && let Some(found) = self.look_up(ex, root, template)
                && better(&found.facts, best.as_ref().map(|b| &b.facts))
            {
                best = Some(found);
            }
        }
        best
    }

    /// The file of a candidate below the root; `None` when there is none, or it cannot be told.
    fn look_up(&self, ex: &Exchange, root: &str, template: &Template) -> Option<Found> {
        let name = template.render(ex, Unknown::Empty);
        let cleaned = path::clean(&name);
        let (before, remainder) = self.split(&cleaned);
        // Cleaning took the slash that says "a directory"; it counts where the configuration wrote it, and where it
        // stands in the name itself.
        let slash = if template.source().ends_with('/') { "/" } else { "" };
        let absolute = path::join_below(root, &format!("{before}{slash}"));
        let facts = std::fs::metadata(&absolute).ok()?;
        let relative = absolute.strip_prefix(root).unwrap_or(&absolute).to_owned();
        Some(Found { relative, remainder: remainder.to_owned(), absolute, facts })
    }

    /// Splits behind the first of the split texts that ends a segment.
    fn split<'p>(&self, name: &'p str) -> (&'p str, &'p str) {
        let lower = name.to_ascii_lowercase();
        for split in &self.split_path {
            if let Some(at) = lower.find(&**split) {
                let end = at + split.len();
                if end < name.len() && name[end..].starts_with('/') {
                    return name.split_at(end);
                }
            }
        }
        (name, "")
    }
}

/// Caddy does not look at the last file of the fallback policy and calls it a file.
fn found_by_fallback(policy: Policy, found: &Found) -> bool {
    matches!(policy, Policy::First { fallback: true }) && found.facts.is_dir() && !found.absolute.ends_with('/')
}

fn modified(facts: &Metadata) -> Option<SystemTime> {
    facts.modified().ok()
}

#[cfg(test)]
mod tests {
    use crate::http::matcher::Verdict;
    use crate::modules::testing::{compile_matcher, exchange, matches};
    use serde_json::{Value, json};

    fn site() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("a.txt"), "1").unwrap();
        std::fs::write(dir.path().join("b.txt"), "22").unwrap();
        std::fs::write(dir.path().join("a.php"), "").unwrap();
        dir
    }

    fn relative(dir: &tempfile::TempDir, target: &str, mut config: Value) -> Option<String> {
        let mut ex = exchange("GET", target);
        config["root"] = json!(dir.path().to_str().unwrap());
        matches("file", config, &mut ex).then(|| {
            ["relative", "type", "remainder"]
                .map(|n| format!("{{http.matchers.file.{n}}}"))
                .map(|t| crate::http::placeholder::Template::parse(&t))
                .map(|t| t.render(&ex, crate::http::placeholder::Unknown::Empty).into_owned())
                .join(" ")
        })
    }

    #[test]
    fn the_first_that_exists_and_is_of_its_kind() {
        let dir = site();
        let find = |target: &str, files: Value| relative(&dir, target, json!({"try_files": files}));
        assert_eq!(find("/x", json!(["/none", "/a.txt"])).unwrap(), "/a.txt file ");
        assert_eq!(find("/x", json!(["/sub", "/sub/"])).unwrap(), "/sub/ directory ");
        assert_eq!(relative(&dir, "/b.txt", json!({})).unwrap(), "/b.txt file ");
        assert_eq!(find("/x", json!(["/none"])), None);
        assert_eq!(find("/../../etc/passwd", json!(["{http.request.uri.path}"])), None);
    }

    #[test]
    fn policies_and_splitting() {
        let dir = site();
        let files = json!(["/a.txt", "/b.txt"]);
        let by = |policy: &str| relative(&dir, "/", json!({"try_files": files, "try_policy": policy})).unwrap();
        assert_eq!((by("largest_size").as_str(), by("smallest_size").as_str()), ("/b.txt file ", "/a.txt file "));
        let split = json!({"split_path": [".php"]});
        assert_eq!(relative(&dir, "/A.PHP/rest", split.clone()), None, "names keep their case");
        assert_eq!(relative(&dir, "/a.php/rest", split).unwrap(), "/a.php file /rest");
        let fallback = json!({"try_files": ["/none", "/none2"], "try_policy": "first_exist_fallback"});
        assert_eq!(relative(&dir, "/", fallback), None);
    }

    #[test]
    fn a_status_is_an_error_and_what_cannot_run_is_refused() {
        let matcher = compile_matcher("file", json!({"try_files": ["=418"]})).unwrap();
        assert!(matches!(matcher.matches(&mut exchange("GET", "/")), Verdict::Error(e) if e.status == 418));
        for (config, code) in [
            (json!({"try_files": ["/*.txt"]}), "not-supported-yet"),
            (json!({"fs": "x"}), "not-supported-yet"),
            (json!({"try_policy": "foo"}), "unknown-try-policy"),
        ] {
            assert_eq!(compile_matcher("file", config).err().unwrap().code, code);
        }
    }
}
