//! Reading files: each once, within bounds, as text.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::base::diagnostic::Diagnostic;
use crate::base::env::Env;
use crate::base::span::{FileId, SourceMap, Span};
use crate::syntax::env::substitute;
use crate::syntax::lexer::{self, Word};

/// The largest file read, and the largest text after substitution. A thousand sites are about half a megabyte.
const MAX_BYTES: usize = 8 << 20;

/// A flood of messages helps nobody, and each costs memory.
const MAX_DIAGNOSTICS: usize = 100;

pub(super) struct Sources<'a> {
    env: &'a Env,
    pub map: SourceMap,
    pub watched: Vec<PathBuf>,
    pub diagnostics: Vec<Diagnostic>,
    /// An open quote or heredoc hid the rest of some file: missing braces are then no news.
    pub cut_short: bool,
    read: HashMap<PathBuf, Rc<[Word]>>,
}

/// Why a file is not used.
pub(super) enum ReadError {
    /// There is no such file.
    NotFound,
    /// Anything else, as a phrase that follows "cannot read `x`: ".
    Other(String),
}

impl<'a> Sources<'a> {
    pub fn new(env: &'a Env) -> Self {
        Self {
            env,
            map: SourceMap::new(),
            watched: Vec::new(),
            diagnostics: Vec::new(),
            cut_short: false,
            read: HashMap::new(),
        }
    }

    pub fn report(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() < MAX_DIAGNOSTICS {
            self.diagnostics.push(diagnostic);
        }
    }

    pub fn watch(&mut self, path: &Path) {
        if !self.watched.iter().any(|p| p == path) {
            self.watched.push(path.to_path_buf());
        }
    }

    /// The file given on the command line.
    pub fn read_main(&mut self, path: &Path) -> Rc<[Word]> {
        let full = absolute(path);
        self.watch(&full);
        let name = path.display().to_string();
        match read_bytes(&full) {
            Ok(bytes) => self.add_main(&name, Some(&full), &bytes),
            Err(error) => {
                let reason = match error {
                    ReadError::NotFound => "there is no such file".to_owned(),
                    ReadError::Other(reason) => reason,
                };
                self.report(Diagnostic::error("cannot-read-file", format!("cannot read `{name}`: {reason}")));
                Rc::from([])
            }
        }
    }

    pub fn add_main(&mut self, name: &str, path: Option<&Path>, bytes: &[u8]) -> Rc<[Word]> {
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => self.add_text(name, path, text),
            _ => {
                self.report(Diagnostic::error("not-text", format!("`{name}` {}", not_text(bytes))));
                Rc::from([])
            }
        }
    }

    /// An imported file. The same file imported again gives the same words; `None` for a file of blanks.
    pub fn read_import(&mut self, path: &Path, span: Span) -> Result<Option<Rc<[Word]>>, ReadError> {
        let full = absolute(path);
        if let Some(words) = self.read.get(&full) {
            return Ok((!words.is_empty()).then(|| Rc::clone(words)));
        }
        self.watch(&full);
        let bytes = read_bytes(&full)?;
        let name = display_name(&full);
        let Some(text) = std::str::from_utf8(&bytes).ok().filter(|t| !t.contains('\0')) else {
            return Err(ReadError::Other(not_text(&bytes)));
        };
        if text.trim().is_empty() {
            self.report(
                Diagnostic::warning("import-empty", format!("the imported file `{name}` is empty")).at(span, ""),
            );
            self.read.insert(full, Rc::from([]));
            return Ok(None);
        }
        let words = self.add_text(&name, Some(&full), text);
        self.read.insert(full, Rc::clone(&words));
        Ok(Some(words))
    }

    fn add_text(&mut self, name: &str, path: Option<&Path>, text: &str) -> Rc<[Word]> {
        let too_large = |what: &str| {
            Diagnostic::error("file-too-large", format!("`{name}` {what}"))
                .help(format!("a configuration file may hold at most {} MiB", MAX_BYTES >> 20))
        };
        if text.len() > MAX_BYTES {
            self.report(too_large("is too large"));
            return Rc::from([]);
        }
        let file = self.map.add(name, path, text);
        let Some(substituted) = substitute(file, text, self.env, MAX_BYTES) else {
            self.report(too_large("is too large with its environment variables filled in"));
            return Rc::from([]);
        };
        let lexed = lexer::lex(&substituted);
        self.cut_short |= lexed.cut_short;
        for diagnostic in lexed.diagnostics {
            self.report(diagnostic);
        }
        lexed.words.into()
    }

    /// The directory that an import in this file is relative to.
    pub fn directory(&self, file: FileId) -> PathBuf {
        let source = self.map.get(file);
        let path = source.and_then(|s| s.path.clone()).or_else(|| source.map(|s| PathBuf::from(&s.name)));
        let full = absolute(&path.unwrap_or_default());
        full.parent().map(Path::to_path_buf).unwrap_or(full)
    }

    /// The blanks at the beginning of the line that holds a place.
    pub fn indent(&self, span: Span) -> &str {
        let Some(file) = self.map.get(span.file) else { return "" };
        let before = file.text.get(..span.start as usize).unwrap_or_default();
        let line = &file.text[before.rfind('\n').map_or(0, |n| n + 1)..];
        &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
    }

    /// The place after the last word of a file, for "the file ends here".
    pub fn end_of(&self, file: FileId) -> Span {
        let end = self.map.get(file).map_or(0, |f| f.text.trim_end().len());
        Span::new(file, end, end)
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// Relative to the working directory where that is shorter.
fn display_name(full: &Path) -> String {
    let cwd = std::env::current_dir().ok();
    cwd.and_then(|cwd| full.strip_prefix(cwd).ok()).unwrap_or(full).display().to_string()
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ReadError> {
    let reason = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => ReadError::NotFound,
        std::io::ErrorKind::PermissionDenied => ReadError::Other("permission denied".to_owned()),
        _ => ReadError::Other(error.to_string()),
    };
    let file = std::fs::File::open(path).map_err(|e| reason(&e))?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(ReadError::Other("it is a directory".to_owned()));
    }
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX) + 1;
    file.take(limit).read_to_end(&mut bytes).map_err(|e| reason(&e))?;
    if bytes.len() > MAX_BYTES {
        return Err(ReadError::Other(format!("it is larger than {} MiB", MAX_BYTES >> 20)));
    }
    Ok(bytes)
}

fn not_text(bytes: &[u8]) -> String {
    let valid = std::str::from_utf8(bytes).map_or_else(|e| e.valid_up_to(), str::len);
    let at = memchr::memchr(0, bytes).map_or(valid, |nul| nul.min(valid));
    let line = memchr::memchr_iter(b'\n', &bytes[..at]).count() + 1;
    format!("is not a text file: line {line} holds bytes that are not UTF-8 text")
}
