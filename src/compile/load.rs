//! The whole way from a file to a runtime, with every message on the way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Runtime;
use crate::base::diagnostic::{Diagnostic, Severity, without_repeats};
use crate::base::env::{self, Env};
use crate::base::span::{SourceMap, Span};
use crate::config::compile_cx::CompileError;
use crate::config::expand;
use crate::config::registry::Registry;
use crate::config::resolve;
use crate::config::types::Config;

/// Where a configuration comes from.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    pub format: Format,
    /// The configuration itself, instead of what `path` holds (a command that needs no file).
    pub text: Option<String>,
    /// Files of `KEY=value` lines, read anew at each load.
    pub env_files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Proxyfile,
    /// Caddy's JSON.
    Json,
}

impl Format {
    /// JSON by the file's ending, else the Proxyfile language.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) { Self::Json } else { Self::Proxyfile }
    }
}

/// A configuration as read, with its messages.
#[derive(Default)]
pub struct Loaded {
    /// `None` when there are errors.
    pub config: Option<Config>,
    pub sources: SourceMap,
    pub diagnostics: Vec<Diagnostic>,
    /// Every file read or looked for: a change of any of them is a reason to load again.
    pub watched: Vec<PathBuf>,
    /// Places of secrets in the files.
    secrets: Vec<Span>,
    /// JSON pointer → place in the file.
    spans: BTreeMap<String, Span>,
}

impl Loaded {
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(Diagnostic::is_error)
    }
}

/// Reads and adapts. What Caddy's adapter accepts is accepted; whether it can run is `load_runtime`'s question.
#[must_use]
pub fn load_config(source: &Source, registry: &'static Registry) -> Loaded {
    let (env, env_diagnostics) = environment(&source.env_files);
    env::set_current(Arc::clone(&env));
    let mut loaded = match source.format {
        Format::Proxyfile => adapt_tree(read_tree(source, &env, registry), registry),
        Format::Json => load_json(&source.path, source.text.as_deref()),
    };
    loaded.diagnostics.splice(0..0, env_diagnostics);
    loaded.watched.extend(source.env_files.iter().cloned());
    if loaded.has_errors() {
        loaded.config = None;
    }
    loaded
}

/// The lines of a Proxyfile and of all that it imports.
#[must_use]
pub fn load_tree(source: &Source, registry: &'static Registry) -> expand::Loaded {
    let (env, env_diagnostics) = environment(&source.env_files);
    env::set_current(Arc::clone(&env));
    let mut read = read_tree(source, &env, registry);
    read.diagnostics.splice(0..0, env_diagnostics);
    read
}

/// Adapts a tree that was read before.
#[must_use]
pub fn adapt_tree(read: expand::Loaded, registry: &'static Registry) -> Loaded {
    let resolved = resolve::resolve(&read.file, &read.sources, registry);
    let mut diagnostics = read.diagnostics;
    diagnostics.extend(resolved.diagnostics);
    let refused = diagnostics.iter().any(Diagnostic::is_error);
    Loaded {
        config: (!refused).then_some(resolved.config),
        sources: read.sources,
        diagnostics,
        watched: read.watched,
        secrets: resolved.secrets,
        spans: resolved.spans,
    }
}

/// Reads, adapts and compiles. The runtime is `None` when there are errors.
#[must_use]
pub fn load_runtime(source: &Source, registry: &'static Registry) -> (Option<Runtime>, Loaded) {
    let (runtime, mut loaded) = compile(load_config(source, registry), registry);
    loaded.diagnostics.iter_mut().for_each(|d| d.secret.extend(&loaded.secrets));
    (runtime, loaded)
}

/// The rest of the way for what was adapted. The runtime is `None` when there are errors.
#[must_use]
pub fn compile(mut loaded: Loaded, registry: &'static Registry) -> (Option<Runtime>, Loaded) {
    let Some(config) = &loaded.config else { return (None, loaded) };
    match super::compile(config, registry) {
        Ok(mut runtime) => {
            loaded.watched.extend(runtime.watched.iter().cloned());
            let advice = std::mem::take(&mut runtime.advice);
            let found =
                advice.into_iter().map(|a| Diagnostic { severity: Severity::Warning, ..diagnose(a, &loaded.spans) });
            let found: Vec<_> = found.collect();
            loaded.diagnostics.extend(found);
            let advice = super::lints::check(config, &loaded.sources, &|pointer| place(&loaded.spans, pointer));
            loaded.diagnostics.extend(advice);
            (Some(runtime), loaded)
        }
        Err(refused) => {
            loaded.watched.extend(refused.watched);
            let diagnostics: Vec<_> = refused.errors.into_iter().map(|e| diagnose(e, &loaded.spans)).collect();
            loaded.diagnostics.extend(diagnostics);
            loaded.diagnostics = without_repeats(loaded.diagnostics);
            loaded.config = None;
            (None, loaded)
        }
    }
}

fn environment(files: &[PathBuf]) -> (Arc<Env>, Vec<Diagnostic>) {
    let mut env = Env::from_process();
    let mut diagnostics = Vec::new();
    for path in files {
        let result = match std::fs::read_to_string(path) {
            Ok(text) => env.add_file(&text).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = result {
            let message = format!("cannot read environment file {}: {error}", path.display());
            diagnostics.push(Diagnostic::error("unreadable-file", message));
        }
    }
    (Arc::new(env), diagnostics)
}

fn read_tree(source: &Source, env: &Env, registry: &'static Registry) -> expand::Loaded {
    let known = |name: &str| registry.directive(name).is_some();
    match &source.text {
        Some(text) => expand::load_text(&source.path.display().to_string(), text, env, &known),
        None => expand::load(&source.path, env, &known),
    }
}

fn load_json(path: &Path, text: Option<&str>) -> Loaded {
    let mut loaded = Loaded::default();
    if text.is_none() {
        loaded.watched.push(path.to_path_buf());
    }
    let text = match text.map_or_else(|| std::fs::read_to_string(path), |t| Ok(t.to_owned())) {
        Ok(text) => text,
        Err(error) => {
            let message = format!("cannot read {}: {error}", path.display());
            loaded.diagnostics.push(Diagnostic::error("unreadable-file", message));
            return loaded;
        }
    };
    let file = loaded.sources.add(path.display().to_string(), Some(path), text.as_str());
    match serde_json::from_str(&text) {
        Ok(config) => loaded.config = Some(config),
        Err(error) => {
            let at = offset(&text, error.line(), error.column());
            let message = format!("not a valid configuration: {error}");
            let span = Span::new(file, at, (at + 1).min(text.len()));
            loaded.diagnostics.push(Diagnostic::error("invalid-json-config", message).at(span, ""));
        }
    }
    loaded
}

/// Byte offset of serde_json's one-based line and column.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut at = (start + column.saturating_sub(1)).min(text.len().saturating_sub(1));
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn diagnose(error: CompileError, spans: &BTreeMap<String, Span>) -> Diagnostic {
    let mut diagnostic = match place(spans, &error.pointer) {
        Some(span) => Diagnostic::error(error.code, error.message).at(span, ""),
        None if error.pointer.is_empty() => Diagnostic::error(error.code, error.message),
        // A JSON configuration: the pointer is the place.
        None => Diagnostic::error(error.code, format!("{} (at {})", error.message, error.pointer)),
    };
    if let Some(help) = error.help {
        diagnostic = diagnostic.help(help);
    }
    diagnostic
}

/// The place of the nearest enclosing object that has one.
fn place(spans: &BTreeMap<String, Span>, pointer: &str) -> Option<Span> {
    let mut pointer = pointer;
    loop {
        if let Some(span) = spans.get(pointer) {
            return Some(*span);
        }
        pointer = &pointer[..pointer.rfind('/')?];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_that_of_the_nearest_enclosing_object() {
        let mut sources = SourceMap::new();
        let file = sources.add("x", None, "abc");
        let spans = BTreeMap::from([("/a/b".to_owned(), Span::new(file, 0, 1))]);
        assert_eq!(place(&spans, "/a/b/c/0"), Some(Span::new(file, 0, 1)));
        assert_eq!(place(&spans, "/a"), None);
    }

    #[test]
    fn json_positions_become_byte_offsets() {
        assert_eq!(offset("{\n  x", 2, 3), 4);
        assert_eq!(offset("", 1, 1), 0);
    }
}
