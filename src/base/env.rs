//! The environment as configuration sees it: a snapshot taken once, so that one load of a file never sees two values
//! of a variable. Values may be secrets: they are never printed by this program.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};

/// A snapshot of environment variables.
#[derive(Clone, Default)]
pub struct Env {
    vars: HashMap<String, String>,
}

/// The snapshot that the load now in progress uses, for `{env.NAME}`.
static CURRENT: RwLock<Option<Arc<Env>>> = RwLock::new(None);

/// The snapshot of the latest load; the process's own environment before the first.
pub fn current() -> Arc<Env> {
    if let Ok(guard) = CURRENT.read()
        && let Some(env) = &*guard
    {
        return Arc::clone(env);
    }
    Arc::new(Env::from_process())
}

/// Takes effect for templates compiled from now on.
pub fn set_current(env: Arc<Env>) {
    if let Ok(mut guard) = CURRENT.write() {
        *guard = Some(env);
    }
}

/// Why an `--envfile` cannot be read. Names the line, never the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvFileError {
    pub line: usize,
    pub problem: &'static str,
}

impl fmt::Display for EnvFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for EnvFileError {}

impl Env {
    /// No variables at all.
    #[must_use]
    pub fn empty() -> Self {
        Self::default()
    }

    /// The variables of this process. Bytes that are not UTF-8 become U+FFFD, as in Caddy.
    #[must_use]
    pub fn from_process() -> Self {
        std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect()
    }

    /// The value of a variable; `None` when it is unset, `Some("")` when it is set and empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str)
    }

    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.vars.insert(name.into(), value.into());
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.vars.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Adds the variables of an `--envfile`. As in Caddy, a variable that the process already has keeps its value,
    /// and of a variable given twice in the file the last one counts.
    pub fn add_file(&mut self, text: &str) -> Result<(), EnvFileError> {
        let parsed = parse_file(text)?;
        for (name, value) in parsed {
            self.vars.entry(name).or_insert(value);
        }
        Ok(())
    }
}

impl FromIterator<(String, String)> for Env {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(iter: I) -> Self {
        Self { vars: iter.into_iter().collect() }
    }
}

/// Values may be secrets, so only the number of variables is shown.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Env({} variables)", self.vars.len())
    }
}

/// `KEY=VALUE` lines, `#` comments, an optional `export `, values in single or double quotes that may span lines.
/// Nothing is expanded inside values.
fn parse_file(text: &str) -> Result<HashMap<String, String>, EnvFileError> {
    let mut vars = HashMap::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, raw)) = lines.next() {
        let fail = |problem| EnvFileError { line: index + 1, problem };
        let line = raw.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| fail("expected KEY=VALUE"))?;
        let name = name.strip_prefix("export ").unwrap_or(name);
        if name.is_empty() {
            return Err(fail("the name before `=` is missing"));
        }
        if name.contains(' ') {
            return Err(fail("the name before `=` contains a space"));
        }
        if value.starts_with([' ', '\t']) {
            return Err(fail("there is a blank between `=` and the value"));
        }
        // Caddy cuts a trailing comment before it looks at quotes, so `#` ends even a quoted value.
        let mut value = match value.split_once('#') {
            Some((before, _)) => before.trim_end_matches([' ', '\t']).to_owned(),
            None => value.to_owned(),
        };
        if let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            let escaped = format!("\\{quote}");
            let plain = quote.to_string();
            let mut line = line.to_owned();
            while !line.ends_with(quote) || line.ends_with(&escaped) {
                value = value.replace(&escaped, &plain);
                let Some((_, next)) = lines.next() else { break };
                line = next.replace(&escaped, &plain);
                value.push('\n');
                value.push_str(&line);
            }
            let inner = value.strip_prefix(quote).unwrap_or(&value);
            value = inner.strip_suffix(quote).unwrap_or(inner).to_owned();
        }
        vars.insert(name.to_owned(), value);
    }
    Ok(vars)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(String, String)> {
        let mut vars: Vec<_> = parse_file(text).unwrap().into_iter().collect();
        vars.sort();
        vars
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    #[test]
    fn plain_quoted_exported_and_commented() {
        let text = "# a comment\n\nA=1\nexport B=two words\nC=\"quoted\"\nD='single'\nE=x # note\nF=\n";
        let expected =
            pairs(&[("A", "1"), ("B", "two words"), ("C", "quoted"), ("D", "single"), ("E", "x"), ("F", "")]);
        assert_eq!(parsed(text), expected);
    }

    #[test]
    fn a_quoted_value_may_span_lines() {
        assert_eq!(parsed("A=\"one\ntwo\"\nB=3\n"), pairs(&[("A", "one\ntwo"), ("B", "3")]));
    }

    #[test]
    fn bad_lines_are_named_without_their_value() {
        let error = parse_file("A=1\nhunter2\n").unwrap_err();
        assert_eq!((error.line, error.to_string().contains("hunter2")), (2, false));
        assert!(parse_file("=x").is_err());
        assert!(parse_file("A B=x").is_err());
        assert!(parse_file("A= x").is_err());
    }

    #[test]
    fn the_process_wins_over_the_file() {
        let mut env = Env::empty();
        env.set("A", "process");
        env.add_file("A=file\nB=file\n").unwrap();
        assert_eq!((env.get("A"), env.get("B"), env.get("C")), (Some("process"), Some("file"), None));
    }
}
