//! Patterns of paths, as the `path` matcher and the rights of tokens use them.
//!
//! Matching ignores case and works on the decoded, cleaned path; percent sequences in a pattern are compared with the
//! path as it was sent.

use std::borrow::Cow;

use super::glob;
use super::path::{clean_path, decode_path, escaped_path};

/// A request's path in the forms that patterns are compared with, worked out once for all of them.
pub struct RequestPath<'a> {
    raw: &'a str,
    /// Decoded, in lower case.
    lowered: Cow<'a, str>,
    /// The same with dots resolved and slashes merged, which nearly all patterns want; `None` when that changes nothing.
    merged: Option<Box<str>>,
}

impl<'a> RequestPath<'a> {
    /// `raw` is the path as it was sent.
    #[must_use]
    pub fn new(raw: &'a str) -> Self {
        let lowered = lowercase(decode_path(raw));
        let cleaned = clean_path(&lowered, true);
        let merged = (cleaned != lowered).then(|| cleaned.into());
        Self { raw, lowered, merged }
    }

    fn merged(&self) -> &str {
        self.merged.as_deref().unwrap_or(&self.lowered)
    }
}

/// One pattern, in lower case.
pub struct PathPattern {
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
    /// `text` is in lower case.
    #[must_use]
    pub fn new(text: &str) -> Self {
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

    #[must_use]
    pub fn matches(&self, path: &RequestPath<'_>) -> bool {
        let unmerged;
        let cleaned = if self.keeps_slashes {
            unmerged = clean_path(&path.lowered, false);
            &*unmerged
        } else {
            path.merged()
        };
        match &self.kind {
            Kind::Any => true,
            Kind::Exact(text) => cleaned == &**text,
            Kind::Prefix(text) => cleaned.starts_with(&**text),
            Kind::Suffix(text) => cleaned.ends_with(&**text),
            Kind::Contains(text) => cleaned.contains(&**text),
            Kind::Glob(text) => glob::matches(text, cleaned),
            Kind::Escaped(text) => {
                let escaped = lowercase(escaped_path(path.raw));
                matches_escaped(&clean_path(&escaped, !self.keeps_slashes), text)
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
