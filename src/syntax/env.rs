//! `{$NAME}` and `{$NAME:default}`: textual substitution before any word is read, with a map back to the file.
//!
//! As in Caddy the whole text is scanned, comments and quotes included; the default runs to the first `}`; it is used
//! only when the variable is unset; `{$}` stays; a value is not scanned again.

use std::borrow::Cow;
use std::ops::Range;

use crate::base::env::Env;
use crate::base::span::{FileId, Span};

/// A file's text after substitution. Every byte knows the place in the file it came from.
#[derive(Debug)]
pub struct Substituted<'a> {
    pub file: FileId,
    pub text: Cow<'a, str>,
    /// In text order, without gaps. Empty when nothing was substituted: then text and file are the same.
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    /// Where it begins in the substituted text.
    start: usize,
    /// The bytes of the file it stands for: itself when literal, the whole placeholder otherwise.
    origin: Range<usize>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Literal,
    /// The value of a variable: maybe a secret.
    Value,
    /// The default, which stands in the file for all to read.
    Default,
}

/// Replaces the placeholders of `text`. `None` when the result would be longer than `limit` bytes.
pub fn substitute<'a>(file: FileId, text: &'a str, env: &Env, limit: usize) -> Option<Substituted<'a>> {
    let mut out = String::new();
    let mut segments = Vec::new();
    let mut copied = 0;
    let mut scan = 0;
    while let Some((begin, end)) = next_placeholder(text, scan) {
        scan = end;
        let inner = &text[begin + 2..end - 1];
        if inner.is_empty() {
            continue;
        }
        let (name, default) = match inner.split_once(':') {
            Some((name, default)) => (name, Some(default)),
            None => (inner, None),
        };
        let (value, kind) = match (env.get(name), default) {
            (Some(value), _) => (value, Kind::Value),
            (None, Some(default)) => (default, Kind::Default),
            (None, None) => ("", Kind::Default),
        };
        if out.len() + (begin - copied) + value.len() > limit {
            return None;
        }
        if begin > copied {
            segments.push(Segment { start: out.len(), origin: copied..begin, kind: Kind::Literal });
            out.push_str(&text[copied..begin]);
        }
        segments.push(Segment { start: out.len(), origin: begin..end, kind });
        out.push_str(value);
        copied = end;
    }
    if segments.is_empty() {
        return (text.len() <= limit).then_some(Substituted { file, text: Cow::Borrowed(text), segments });
    }
    if out.len() + (text.len() - copied) > limit {
        return None;
    }
    if copied < text.len() {
        segments.push(Segment { start: out.len(), origin: copied..text.len(), kind: Kind::Literal });
        out.push_str(&text[copied..]);
    }
    Some(Substituted { file, text: Cow::Owned(out), segments })
}

impl<'a> Substituted<'a> {
    /// The text as it stands, placeholders and all.
    #[must_use]
    pub fn verbatim(file: FileId, text: &'a str) -> Self {
        Self { file, text: Cow::Borrowed(text), segments: Vec::new() }
    }

    /// The place in the file of a range of the substituted text, and whether part of it came from the environment.
    #[must_use]
    pub fn origin(&self, range: Range<usize>) -> (Span, bool) {
        if self.segments.is_empty() {
            return (Span::new(self.file, range.start, range.end), false);
        }
        let first = self.segment_at(range.start);
        let last = if range.is_empty() { first } else { self.segment_at(range.end - 1) };
        let from_env =
            self.segments.get(first..=last).is_some_and(|covered| covered.iter().any(|s| s.kind == Kind::Value));
        let start = self.original(first, range.start, |origin| origin.start);
        let end = if range.is_empty() { start } else { self.original(last, range.end, |origin| origin.end) };
        (Span::new(self.file, start, end.max(start)), from_env)
    }

    /// The last segment that begins at or before a place; empty values before it are passed over.
    fn segment_at(&self, place: usize) -> usize {
        self.segments.partition_point(|s| s.start <= place).saturating_sub(1)
    }

    fn original(&self, index: usize, place: usize, whole: impl Fn(&Range<usize>) -> usize) -> usize {
        match self.segments.get(index) {
            Some(s) if s.kind == Kind::Literal => s.origin.start + (place - s.start),
            Some(s) => whole(&s.origin),
            None => place,
        }
    }
}

/// The next `{$…}` at or after `from`, as the range of the whole placeholder.
fn next_placeholder(text: &str, from: usize) -> Option<(usize, usize)> {
    let begin = from + text.get(from..)?.find("{$")?;
    let end = begin + 2 + text[begin + 2..].find('}')? + 1;
    Some((begin, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    }

    fn text(input: &str, vars: &[(&str, &str)]) -> String {
        substitute(FileId(0), input, &env(vars), 1000).unwrap().text.into_owned()
    }

    #[test]
    fn values_defaults_and_what_is_left_alone() {
        let vars = [("A", "1"), ("E", ""), ("N", "{$A}")];
        assert_eq!(text("a {$A} b", &vars), "a 1 b");
        assert_eq!(text("{$X:d:e f} {$E:d} {$X}.", &vars), "d:e f  .");
        assert_eq!(text("{$} {$A", &vars), "{$} {$A");
        assert_eq!(text("{$N}{$A}", &vars), "{$A}1");
    }

    #[test]
    fn every_byte_maps_back() {
        let vars = env(&[("A", "long value"), ("E", "")]);
        let input = "x {$A} y {$E}{$D:def} z";
        let sub = substitute(FileId(0), input, &vars, 1000).unwrap();
        assert_eq!(sub.text, "x long value y def z");
        let at = |word: &str| {
            let start = sub.text.find(word).unwrap();
            let (span, from_env) = sub.origin(start..start + word.len());
            (&input[span.start as usize..span.end as usize], from_env)
        };
        assert_eq!(at("long"), ("{$A}", true));
        assert_eq!(at("value"), ("{$A}", true));
        assert_eq!(at("y"), ("y", false));
        assert_eq!(at("def"), ("{$D:def}", false));
        assert_eq!(at("x long"), ("x {$A}", true));
        assert_eq!(at("z"), ("z", false));
    }

    #[test]
    fn growth_is_bounded() {
        let vars = env(&[("A", "0123456789")]);
        assert!(substitute(FileId(0), "{$A}{$A}", &vars, 20).is_some());
        assert!(substitute(FileId(0), "{$A}{$A}", &vars, 19).is_none());
    }
}
