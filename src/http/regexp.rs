//! Regular expressions in Go's syntax (RE2), run by the `regex` crate: both are linear in the length of the text.
//!
//! The two differ in details: what `\d`, `\w`, `\s` and `\b` mean (ASCII in Go), what an escaped sign means, set
//! operations inside brackets, `\Q…\E`, octal numbers, and a brace that begins no repetition. A pattern is rewritten to
//! mean in `regex` what it means in Go, or refused.

use std::fmt::Write;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::exchange::{Captures, Exchange};

/// Compiled size that a pattern from the configuration may reach, in bytes.
const SIZE_LIMIT: usize = 10 << 20;
/// The same for patterns that placeholders complete at run time: a stranger may have a hand in them.
const RUNTIME_SIZE_LIMIT: usize = 256 << 10;

/// Why a pattern is refused, without the pattern itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError(pub String);

impl std::fmt::Display for PatternError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Compiles a pattern written for Go.
pub fn compile(pattern: &str) -> Result<Regex, PatternError> {
    compile_within(pattern, SIZE_LIMIT)
}

/// The same for a pattern made at run time, with a small limit.
pub fn compile_at_runtime(pattern: &str) -> Result<Regex, PatternError> {
    compile_within(pattern, RUNTIME_SIZE_LIMIT)
}

/// Caddy's `MatchRegexp`: a pattern with the name under which its groups are kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamedPattern {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    pub pattern: String,
}

impl NamedPattern {
    pub fn compile(&self) -> Result<CapturingRegexp, PatternError> {
        CapturingRegexp::compile(&self.name, &self.pattern)
    }
}

/// A pattern whose groups become placeholders: `{http.regexp.NAME.N}` and `{http.regexp.N}`.
#[derive(Debug, Clone)]
pub struct CapturingRegexp {
    name: Arc<str>,
    regex: Regex,
}

impl CapturingRegexp {
    /// `name` may be empty.
    pub fn compile(name: &str, pattern: &str) -> Result<Self, PatternError> {
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(PatternError("the name may hold only letters, digits and underscores".into()));
        }
        Ok(Self { name: name.into(), regex: compile(pattern)? })
    }

    /// The captures when the text matches.
    #[must_use]
    pub fn capture(&self, text: &str) -> Option<Captures> {
        let found = self.regex.captures(text)?;
        let group = |m: Option<regex::Match<'_>>| m.map_or_else(String::new, |m| m.as_str().to_owned());
        let groups = found.iter().map(group).collect();
        let names = self.regex.capture_names().flatten();
        let named = names.map(|name| (name.to_owned(), group(found.name(name)))).collect();
        Some(Captures { name: Arc::clone(&self.name), groups, named })
    }
}

/// Makes captures the latest; earlier ones of the same name are forgotten.
pub fn keep(captures: Captures, ex: &mut Exchange) {
    ex.captures.retain(|c| c.name != captures.name);
    ex.captures.push(captures);
}

fn compile_within(pattern: &str, size: usize) -> Result<Regex, PatternError> {
    let translated = translate(pattern)?;
    RegexBuilder::new(&translated).size_limit(size).dfa_size_limit(size).build().map_err(|e| match e {
        regex::Error::CompiledTooBig(limit) => PatternError(format!("compiles to more than {limit} bytes")),
        // The crate's message quotes the translated pattern over several lines; its last line says what is wrong.
        other => {
            let text = other.to_string();
            let last = text.lines().last().unwrap_or_default();
            PatternError(last.strip_prefix("error: ").unwrap_or(last).to_owned())
        }
    })
}

/// Rewrites a Go pattern for the `regex` crate.
fn translate(pattern: &str) -> Result<String, PatternError> {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    // True behind a repetition, where Go refuses a further one (`a**`).
    let mut repeated = false;
    while let Some(c) = rest.chars().next() {
        let was_repeated = std::mem::take(&mut repeated);
        rest = match c {
            '\\' => escape(rest, false, &mut out)?,
            '[' => class(rest, &mut out)?,
            '(' => group(rest, &mut out)?,
            '*' | '+' | '?' | '{' => {
                let length = if c == '{' { repetition(rest) } else { 1 };
                if length == 0 {
                    out.push_str("\\{");
                    &rest[1..]
                } else {
                    if was_repeated {
                        return Err(PatternError("invalid nested repetition operator".into()));
                    }
                    repeated = true;
                    let lazy = usize::from(rest[length..].starts_with('?'));
                    out.push_str(&rest[..length + lazy]);
                    &rest[length + lazy..]
                }
            }
            c => {
                out.push(c);
                &rest[c.len_utf8()..]
            }
        };
    }
    Ok(out)
}

/// Length of the repetition at the start (`{2}`, `{2,}`, `{2,5}`), 0 when the brace is a plain sign.
fn repetition(text: &str) -> usize {
    let Some(end) = text.find('}') else { return 0 };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let valid = match text[1..end].split_once(',') {
        None => digits(&text[1..end]),
        Some((low, high)) => digits(low) && (high.is_empty() || digits(high)),
    };
    if valid { end + 1 } else { 0 }
}

/// `(`, with the flags that Go knows.
fn group<'p>(text: &'p str, out: &mut String) -> Result<&'p str, PatternError> {
    let Some(rest) = text.strip_prefix("(?") else {
        out.push('(');
        return Ok(&text[1..]);
    };
    if rest.starts_with("P<") || rest.starts_with('<') && !rest.starts_with("<=") && !rest.starts_with("<!") {
        out.push_str("(?");
        return Ok(rest);
    }
    let flags = rest.find([':', ')']).map_or(rest, |end| &rest[..end]);
    if let Some(bad) = flags.chars().find(|c| !"imsU-".contains(*c)) {
        return Err(PatternError(format!("invalid or unsupported group syntax: `(?{bad}`")));
    }
    out.push_str("(?");
    Ok(rest)
}

/// An escape sequence outside or inside brackets; returns what follows it.
fn escape<'p>(text: &'p str, in_class: bool, out: &mut String) -> Result<&'p str, PatternError> {
    let mut chars = text[1..].chars();
    let Some(c) = chars.next() else { return Err(PatternError("trailing backslash at the end".into())) };
    let rest = chars.as_str();
    match c {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str("[\\t\\n\\f\\r ]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'b' if !in_class => out.push_str("(?-u:\\b)"),
        'B' if !in_class => out.push_str("(?-u:\\B)"),
        'Q' if !in_class => {
            let (literal, after) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(literal));
            return Ok(after);
        }
        '0' => {
            let digits = rest.bytes().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
            let value = rest[..digits].bytes().fold(0_u32, |n, b| n * 8 + u32::from(b - b'0'));
            let _ = write!(out, "\\x{{{value:x}}}");
            return Ok(&rest[digits..]);
        }
        'A' | 'z' if !in_class => {
            out.push('\\');
            out.push(c);
        }
        'a' | 'f' | 'n' | 'r' | 't' | 'v' | 'x' | 'p' | 'P' => {
            out.push('\\');
            out.push(c);
        }
        // An escaped sign is itself in Go; in `regex` some have a meaning of their own (`\<`).
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => push_literal(c, out),
        c => return Err(PatternError(format!("invalid escape sequence: `\\{c}`"))),
    }
    Ok(rest)
}

fn push_literal(c: char, out: &mut String) {
    if regex_syntax_meta(c) {
        out.push('\\');
    }
    out.push(c);
}

fn regex_syntax_meta(c: char) -> bool {
    "\\.+*?()|[]{}^$#&-~".contains(c)
}

/// A bracket expression; returns what follows it.
fn class<'p>(text: &'p str, out: &mut String) -> Result<&'p str, PatternError> {
    let unclosed = || PatternError("missing closing `]`".into());
    out.push('[');
    let mut rest = &text[1..];
    if let Some(after) = rest.strip_prefix('^') {
        out.push('^');
        rest = after;
    }
    let mut first = true;
    loop {
        let c = rest.chars().next().ok_or_else(unclosed)?;
        rest = match c {
            ']' if !first => {
                out.push(']');
                return Ok(&rest[1..]);
            }
            '\\' => escape(rest, true, out)?,
            '[' if rest.starts_with("[:") && rest.contains(":]") => {
                let end = rest.find(":]").ok_or_else(unclosed)? + 2;
                out.push_str(&rest[..end]);
                &rest[end..]
            }
            // Signs that begin a nested class or a set operation in `regex` and are plain in Go.
            '[' | ']' | '&' | '~' => {
                out.push('\\');
                out.push(c);
                &rest[1..]
            }
            '-' if rest.starts_with("--") || first => {
                out.push_str("\\-");
                &rest[1..]
            }
            c => {
                out.push(c);
                &rest[c.len_utf8()..]
            }
        };
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}")).is_match(text)
    }

    #[test]
    fn classes_are_ascii_as_in_go() {
        assert!(matches(r"^\d+$", "42") && !matches(r"^\d+$", "٤٢"));
        assert!(!matches(r"^\w+$", "é") && matches(r"^\W$", "é"));
        assert!(matches(r"é\b", "éa"), "é is no word character in Go, so a boundary stands before a");
        assert!(matches(r"^[\d\-x]+$", "1-x") && matches(r"^[^\s]+$", "é"));
        assert!(matches(r"a\Bb", "ab") && !matches(r"a\bb", "ab"));
    }

    #[test]
    fn signs_mean_what_they_mean_in_go() {
        assert!(matches(r"^\<a\>$", "<a>"));
        assert!(matches(r"^a{$", "a{") && matches(r"^{,2}$", "{,2}") && matches(r"^a{2}$", "aa"));
        assert!(matches(r"^[a[b&&c~~d]+$", "[&~abcd"));
        assert!(matches(r"^[]a]+$", "]a") && matches(r"^[a--]+$", "a-"));
        assert!(matches(r"^\Qa.b*\E+$", "a.b**") && !matches(r"^\Qa.b\E$", "axb"));
        assert!(matches(r"^\012$", "\n") && matches(r"^[[:alpha:]]+$", "ab"));
        assert!(matches(r"^\/v1\/(\w+)\-$", "/v1/x-"));
        assert!(matches(r"(?i)^BEARER\s+(sk-.*)$", "bearer sk-1"));
    }

    #[test]
    fn what_go_refuses_is_refused() {
        for bad in [r"(?=a)", r"(?<!a)", r"(?x)a b", r"a**", r"\1", r"\u0041", r"(", r"[a", "a\\", r"(?<=a)b", r"\Z"] {
            assert!(compile(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_compiled_or_refused(text in r"[\\\[\](){}?*+^$|.<:P\-&~aQEdwé0-9,]{0,12}") {
            let _ = compile(&text);
        }

        #[test]
        fn a_quoted_text_matches_itself(text in r"[^\\]{0,12}") {
            let quoted = format!(r"^\Q{text}\E$");
            proptest::prop_assert!(matches(&quoted, &text));
        }
    }

    #[test]
    fn groups_are_kept_by_number_and_name() {
        let pattern = CapturingRegexp::compile("tok", r"^Bearer (?P<key>sk-(.*))$").unwrap();
        let found = pattern.capture("Bearer sk-1").unwrap();
        assert_eq!(found.groups, ["Bearer sk-1", "sk-1", "1"]);
        assert_eq!(found.named, [("key".to_owned(), "sk-1".to_owned())]);
        assert!(pattern.capture("Basic x").is_none());
        assert!(CapturingRegexp::compile("a.b", "x").is_err());
    }
}
