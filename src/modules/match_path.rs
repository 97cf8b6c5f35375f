//! `path PATTERN…`: the request's path is one of the patterns.
//!
//! Matching ignores case and works on the decoded, cleaned path (`//` and `..` resolved; a pattern with `//` keeps
//! double slashes). `*` at the end matches a prefix, at the start a suffix, at both a part; elsewhere it matches within
//! one segment. Percent sequences in a pattern are compared with the path as it was sent. Several lines are one list.

use std::borrow::Cow;

use serde_json::Value;

use crate::config::compile_cx::{CompileCx, CompileError, read_value};
use crate::config::directive_cx::{DirectiveCx, Parsed};
use crate::config::registry::MatcherModule;
use crate::http::exchange::Exchange;
use crate::http::matcher::{Matcher, Verdict};
use crate::http::placeholder::{Template, Unknown};
use crate::http::{glob, path};
use crate::syntax::tree::Node;

pub const MATCHER: MatcherModule = MatcherModule { id: "path", parse, compile };

fn parse(lines: &[&Node], cx: &mut DirectiveCx<'_, '_>) -> Parsed<Value> {
    cx.word_list(lines)
}

fn compile(value: &Value, _: &mut CompileCx<'_>) -> Result<Box<dyn Matcher>, CompileError> {
    let patterns: Option<Vec<String>> = read_value(value)?;
    let patterns = patterns.unwrap_or_default();
    let compiled = patterns.iter().map(|p| {
        let template = Template::parse(&p.to_lowercase());
        match template.as_static() {
            Some(fixed) => Pattern::Fixed(PathPattern::new(fixed)),
            None => Pattern::Rendered(template),
        }
    });
    Ok(Box::new(MatchPath { patterns: compiled.collect() }))
}

struct MatchPath {
    patterns: Box<[Pattern]>,
}

enum Pattern {
    Fixed(PathPattern),
    Rendered(Template),
}

impl Matcher for MatchPath {
    fn matches(&self, ex: &mut Exchange) -> Verdict {
        let ex = &*ex;
        let raw = ex.uri.path();
        let lowered = lowercase(path::decode_path(raw));
        // Nearly all patterns want merged slashes: cleaned once for all of them.
        let merged = path::clean_path(&lowered, true);
        let one = |pattern: &PathPattern| pattern.matches(raw, &lowered, &merged);
        let found = self.patterns.iter().any(|pattern| match pattern {
            Pattern::Fixed(pattern) => one(pattern),
            Pattern::Rendered(template) => one(&PathPattern::new(&template.render(ex, Unknown::Empty))),
        });
        found.into()
    }
}

struct PathPattern {
    kind: Kind,
    /// The pattern holds `//`: double slashes of the path stay.
    keeps_slashes: bool,
}

enum Kind {
    Any,
    Exact(Box<str>),
    Prefix(Box<str>),
    Suffix(Box<str>),
    Contains(Box<str>),
    Glob(Box<str>),
    /// Holds percent sequences.
    Escaped(Box<str>),
}

impl PathPattern {
    fn new(text: &str) -> Self {
        let stars = text.bytes().filter(|b| *b == b'*').count();
        let kind = if text == "*" {
            Kind::Any
        } else if text.contains('%') {
            Kind::Escaped(text.into())
        } else if stars == 2 && text.starts_with('*') && text.ends_with('*') {
            Kind::Contains(text[1..text.len() - 1].into())
        } else if let (1, Some(suffix)) = (stars, text.strip_prefix('*')) {
            Kind::Suffix(suffix.into())
        } else if let (1, Some(prefix)) = (stars, text.strip_suffix('*')) {
            Kind::Prefix(prefix.into())
        } else if glob::has_wildcard(text) {
            Kind::Glob(text.into())
        } else {
            Kind::Exact(text.into())
        };
        Self { kind, keeps_slashes: text.contains("//") }
    }

    fn matches(&self, raw: &str, lowered: &str, merged: &str) -> bool {
        let unmerged;
        let cleaned = if self.keeps_slashes {
            unmerged = path::clean_path(lowered, false);
            &*unmerged
        } else {
            merged
        };
        match &self.kind {
            Kind::Any => true,
            Kind::Exact(text) => cleaned == &**text,
            Kind::Prefix(text) => cleaned.starts_with(&**text),
            Kind::Suffix(text) => cleaned.ends_with(&**text),
            Kind::Contains(text) => cleaned.contains(&**text),
            Kind::Glob(text) => glob::matches(text, cleaned),
            Kind::Escaped(text) => {
                let escaped = lowercase(path::escaped_path(raw));
                matches_escaped(&path::clean_path(&escaped, !self.keeps_slashes), text)
            }
        }
    }
}

fn lowercase(path: Cow<'_, str>) -> Cow<'_, str> {
    if path.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) { path } else { Cow::Owned(path.to_lowercase()) }
}

/// Walks pattern and escaped path in step: where the pattern has a percent sequence (or `%*`) the path is taken as it
/// was sent, elsewhere decoded; then the whole is compared as a glob. Both are in lower case.
fn matches_escaped(escaped: &str, pattern: &str) -> bool {
    let path = escaped.as_bytes();
    let wanted = pattern.as_bytes();
    let mut built: Vec<u8> = Vec::with_capacity(path.len());
    let (mut p, mut w) = (0, 0);
    while w < wanted.len() && p < path.len() {
        let mut sequence: Option<[u8; 3]> = None;
        let mut decoded = path[p];
        if path[p] == b'%' && path.len() >= p + 3 {
            let Some(byte) = hex_byte(path[p + 1], path[p + 2]) else { return false };
            sequence = Some([b'%', path[p + 1], path[p + 2]]);
            decoded = byte.to_ascii_lowercase();
            p += 2;
        }
        match wanted[w] {
            b'%' if wanted.len() >= w + 3 && wanted[w + 1] != b'*' => {
                built.extend(sequence.iter().flatten());
                p += 1;
                w += 2;
            }
            star @ (b'%' | b'*') => {
                let raw_span = star == b'%';
                w += usize::from(raw_span);
                // A sequence at the start of the span was stepped into above: the span begins at its last byte, as in
                // Caddy.
                let rest = &path[p..];
                let until = match wanted.get(w + 1) {
                    None => rest.len(),
                    Some(next) => match memchr::memchr(*next, rest) {
                        Some(until) => until,
                        None => return false,
                    },
                };
                let span = &rest[..until];
                if raw_span {
                    built.extend_from_slice(span);
                } else {
                    built.extend(decoded_lower(span));
                }
                p += until;
            }
            _ => {
                built.push(decoded);
                p += 1;
            }
        }
        w += 1;
    }
    // What the pattern does not speak of must not be passed over.
    built.extend(decoded_lower(&path[p.min(path.len())..]));
    glob::matches(&pattern.replace("%*", "*"), &String::from_utf8_lossy(&built))
}

fn decoded_lower(span: &[u8]) -> impl Iterator<Item = u8> {
    percent_encoding::percent_decode(span).map(|b| b.to_ascii_lowercase())
}

fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use crate::modules::testing::{exchange, matches};
    use serde_json::json;

    fn path(patterns: &[&str], target: &str) -> bool {
        matches("path", json!(patterns), &mut exchange("GET", target))
    }

    #[test]
    fn exact_prefix_suffix_and_part() {
        for target in ["/foo", "/FOO", "//foo", "/%66oo", "/x/../foo", "/foo?q"] {
            assert!(path(&["/foo"], target), "{target}");
        }
        assert!(!path(&["/foo"], "/foo/") && !path(&["/foo"], "/foobar"));
        assert!(path(&["/bar*"], "/barbaz") && path(&["/Mix"], "/mix"));
        assert!(path(&["*.php"], "/a/b.PHP") && path(&["*/mid/*"], "/a/mid/c"));
        assert!(path(&["/u/*/info"], "/u/1/info") && !path(&["/u/*/info"], "/u/1/2/info"));
        assert!(path(&["/a", "/b"], "/b") && path(&["*"], "/x") && !path(&[], "/x") && !path(&["a", ""], "/a"));
        assert!(path(&["/api/*"], "/api/") && !path(&["/api/*"], "/api"));
    }

    #[test]
    fn a_pattern_with_two_slashes_keeps_them() {
        assert!(path(&["/a//b"], "/a//b") && !path(&["/a//b"], "/a/b"));
        assert!(path(&["/a/b"], "/a//b"));
        assert!(path(&["/a//*"], "/b/../a//c"), "dots are still resolved");
    }

    #[test]
    fn percent_sequences_are_compared_as_sent() {
        assert!(path(&["/x%2Fy"], "/x%2fy") && !path(&["/x%2Fy"], "/x/y") && !path(&["/x%2Fy"], "/x%2Fy/"));
        assert!(path(&["/Esc%2Fx"], "/%45SC%2fX") && !path(&["/%41b"], "/Ab"));
        assert!(path(&["/z%*"], "/z%41") && path(&["/a/%*/c"], "/a/b%2fb/c") && !path(&["/a/%*/c"], "/a/b/b/c"));
        assert!(path(&["/bands/%*/%*"], "/bands/AC%2FDC/T.N.T") && !path(&["/bands/*/x"], "/bands/AC%2FDC/x"));
    }

    #[test]
    fn placeholders_in_patterns_are_rendered() {
        let mut ex = exchange("GET", "/ph");
        ex.headers.insert("p", "/p*".parse().unwrap());
        assert!(matches("path", json!(["{http.request.header.P}"]), &mut ex));
        ex.headers.insert("p", "/PH".parse().unwrap());
        assert!(!matches("path", json!(["{http.request.header.P}"]), &mut ex), "a value keeps its case, as in Caddy");
    }
}
