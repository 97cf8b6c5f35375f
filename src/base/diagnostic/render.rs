//! Diagnostics as text with carets, and as JSON for editors.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Patch, Renderer, Snippet};
use serde_json::{Value, json};

use super::{Diagnostic, Label, Severity};
use crate::base::span::{FileId, SourceMap, Span};

/// Narrow enough for a terminal; the lines themselves are cut around the carets.
const WIDTH: usize = 120;

/// A line longer than this many bytes is shown in part.
const LONG_LINE: usize = 1000;

/// How much of it, in bytes, labels may span.
const NEAR: usize = 80;

/// All diagnostics as a person reads them, a blank line between two.
#[must_use]
pub fn render(diagnostics: &[Diagnostic], sources: &SourceMap, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() }.term_width(WIDTH);
    let mut out = String::new();
    for diagnostic in diagnostics {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&render_one(diagnostic, sources, &renderer));
        out.push('\n');
    }
    out
}

/// The errors in one line for a log, without the lines of files: `message [code] at FILE:LINE:COLUMN; …`.
#[must_use]
pub fn brief(diagnostics: &[Diagnostic], sources: &SourceMap) -> String {
    const MOST: usize = 5;
    let errors: Vec<&Diagnostic> = diagnostics.iter().filter(|d| d.severity == Severity::Error).collect();
    let one = |d: &&Diagnostic| {
        let place = d.primary.as_ref().map_or(Value::Null, |label| place(label.span, sources));
        match (place["file"].as_str(), &place["line"], &place["column"]) {
            (Some(file), line, column) => format!("{} [{}] at {file}:{line}:{column}", d.message, d.code),
            (None, ..) => format!("{} [{}]", d.message, d.code),
        }
    };
    let mut told: Vec<String> = errors.iter().take(MOST).map(one).collect();
    if errors.len() > MOST {
        told.push(format!("and {} more", errors.len() - MOST));
    }
    told.join("; ")
}

/// An array for editors: severity, code, message, place (one-based lines and columns, the end exclusive), further
/// labels, help and replacement.
#[must_use]
pub fn to_json(diagnostics: &[Diagnostic], sources: &SourceMap) -> Value {
    let one = |d: &Diagnostic| {
        let mut value = json!({
            "severity": match d.severity { Severity::Error => "error", Severity::Warning => "warning" },
            "code": d.code,
            "message": d.message,
        });
        if let (Some(primary), Some(object)) = (&d.primary, value.as_object_mut()) {
            if let Some(place) = place(primary.span, sources).as_object() {
                object.extend(place.clone());
            }
            object.insert("label".to_owned(), json!(primary.text));
        }
        if !d.labels.is_empty() {
            let labels = d.labels.iter().map(|label| {
                let mut place = place(label.span, sources);
                place["label"] = json!(label.text);
                place
            });
            value["labels"] = labels.collect();
        }
        if let Some(help) = &d.help {
            value["help"] = json!(help);
        }
        if let Some(replacement) = &d.replacement {
            let mut place = place(replacement.span, sources);
            place["text"] = json!(replacement.text);
            value["replacement"] = place;
        }
        value
    };
    diagnostics.iter().map(one).collect()
}

fn place(span: Span, sources: &SourceMap) -> Value {
    let (line, column) = sources.line_col(span);
    let (end_line, end_column) = sources.line_col(Span { start: span.end, ..span });
    json!({
        "file": sources.get(span.file).map(|f| f.name.as_str()),
        "line": line,
        "column": column,
        "end_line": end_line,
        "end_column": end_column,
    })
}

fn render_one(d: &Diagnostic, sources: &SourceMap, renderer: &Renderer) -> String {
    let level = match d.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    // Each file is shown once, the one with the main place first.
    let labels: Vec<(&Label, AnnotationKind)> = (d.primary.iter().map(|l| (l, AnnotationKind::Primary)))
        .chain(d.labels.iter().map(|l| (l, AnnotationKind::Context)))
        .collect();
    let mut files: Vec<FileId> = Vec::new();
    for (label, _) in &labels {
        if !files.contains(&label.span.file) {
            files.push(label.span.file);
        }
    }
    let mut group = Group::with_title(level.primary_title(d.message.as_str()).id(d.code));
    for file in files {
        let in_file: Vec<_> = labels.iter().filter(|(l, _)| l.span.file == file).collect();
        let Some(window) = Window::new(file, in_file.iter().map(|(l, _)| l.span), &d.secret, sources) else { continue };
        let mut snippet = window.snippet();
        let mut shown: Vec<usize> = Vec::new();
        for (label, kind) in in_file {
            let Some(range) = window.visible(window.range(label.span), &mut shown) else { continue };
            let mut annotation = kind.span(range);
            if !label.text.is_empty() {
                annotation = annotation.label(label.text.as_str());
            }
            snippet = snippet.annotation(annotation);
        }
        group = group.element(snippet);
    }
    let mut report = Vec::new();
    let window = d.replacement.as_ref().and_then(|r| Window::new(r.span.file, [r.span], &d.secret, sources));
    match (&d.replacement, window) {
        (Some(replacement), Some(window)) if !window.has_long_line(window.range(replacement.span).start) => {
            let patch = Patch::new(window.range(replacement.span), replacement.text.as_str());
            let snippet: Element<'_> = window.snippet().patch(patch).into();
            let title = Level::HELP.secondary_title(d.help.as_deref().unwrap_or("write it like this"));
            report.push(group);
            report.push(Group::with_title(title).element(snippet));
        }
        _ => {
            if let Some(help) = &d.help {
                group = group.element(Level::HELP.message(help.as_str()));
            }
            report.push(group);
        }
    }
    // The last line of a snippet may be padded.
    renderer.render(&report).lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The lines of a file that a message shows, secrets masked. The renderer reads all it is given, so a large file is
/// cut down to what matters first.
struct Window<'a> {
    name: &'a str,
    text: String,
    /// Where the window begins in the file.
    start: usize,
    first_line: usize,
}

impl<'a> Window<'a> {
    fn new(
        file: FileId,
        spans: impl IntoIterator<Item = Span>,
        secrets: &[Span],
        sources: &'a SourceMap,
    ) -> Option<Self> {
        let source = sources.get(file)?;
        let full: &str = &source.text;
        let (mut low, mut high) = (full.len(), 0);
        for span in spans {
            low = low.min(boundary(full, span.start as usize));
            high = high.max(boundary(full, span.end as usize));
        }
        let start = full[..low].rfind('\n').map_or(0, |n| n + 1);
        let end = full[high..].find('\n').map_or(full.len(), |n| high + n);
        let mut text = full[start..end.max(start)].to_owned();
        for secret in secrets.iter().filter(|s| s.file == file) {
            mask(&mut text, boundary(full, secret.start as usize), boundary(full, secret.end as usize), start);
        }
        let first_line = memchr::memchr_iter(b'\n', &full.as_bytes()[..start]).count() + 1;
        Some(Self { name: &source.name, text, start, first_line })
    }

    fn snippet<T: Clone>(&self) -> Snippet<'a, T> {
        Snippet::source(self.text.clone()).line_start(self.first_line).path(self.name)
    }

    /// On an endless line only what is near its first label can be shown: the renderer keeps all labels in view.
    fn visible(&self, range: Range<usize>, shown: &mut Vec<usize>) -> Option<Range<usize>> {
        if !self.has_long_line(range.start) {
            return Some(range);
        }
        let line = self.line(range.start);
        let anchor = *shown.iter().find(|at| line.contains(at)).unwrap_or(&range.start);
        shown.push(range.start);
        let near = range.start.abs_diff(anchor) < NEAR;
        near.then(|| range.start..range.end.min(boundary(&self.text, range.start + NEAR)))
    }

    fn has_long_line(&self, at: usize) -> bool {
        self.line(at).len() > LONG_LINE
    }

    /// The line that holds a place, with its end.
    fn line(&self, at: usize) -> Range<usize> {
        let start = self.text[..at].rfind('\n').map_or(0, |n| n + 1);
        start..self.text[at..].find('\n').map_or(self.text.len() + 1, |n| at + n + 1)
    }

    fn range(&self, span: Span) -> Range<usize> {
        let inside = |at: u32| boundary(&self.text, (at as usize).saturating_sub(self.start));
        let start = inside(span.start);
        start..inside(span.end).max(start)
    }
}

/// Replaces the bytes of a secret by stars; line ends stay, so that line numbers stay right.
fn mask(text: &mut String, from: usize, to: usize, window_start: usize) {
    let from = from.saturating_sub(window_start).min(text.len());
    let to = to.saturating_sub(window_start).min(text.len());
    let Some(secret) = text.get(from..to) else { return };
    let stars: String = secret.bytes().map(|b| if b == b'\n' { '\n' } else { '*' }).collect();
    text.replace_range(from..to, &stars);
}

/// The nearest character boundary at or before a place.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> (SourceMap, FileId) {
        let mut sources = SourceMap::new();
        let id = sources.add("Proxyfile", None, text);
        (sources, id)
    }

    fn span_of(text: &str, word: &str, id: FileId) -> Span {
        let start = text.find(word).unwrap();
        Span::new(id, start, start + word.len())
    }

    #[test]
    fn a_log_has_errors_and_places_in_one_line() {
        let text = ":80 {\n\trepsond \"hi\"\n}\n";
        let (sources, id) = one(text);
        let error = Diagnostic::error("unknown-directive", "no such thing").at(span_of(text, "repsond", id), "here");
        let told = brief(&[Diagnostic::warning("ignored-words", "unseen"), error.clone()], &sources);
        assert_eq!(told, "no such thing [unknown-directive] at Proxyfile:2:2");
        let told = brief(&vec![error; 8], &sources);
        assert!(told.ends_with("; and 3 more") && !told.contains('\n'), "{told}");
    }

    #[test]
    fn carets_labels_help_and_replacement() {
        let text = ":80 {\n\trepsond \"hi\"\n}\n";
        let (sources, id) = one(text);
        let d = Diagnostic::error("unknown-directive", "there is no directive `repsond`")
            .at(span_of(text, "repsond", id), "not known")
            .also(span_of(text, "{", id), "in this block")
            .help("did you mean `respond`?")
            .replace(span_of(text, "repsond", id), "respond");
        let out = render(std::slice::from_ref(&d), &sources, false);
        assert!(out.starts_with("error[unknown-directive]: there is no directive `repsond`\n"), "{out}");
        assert!(out.contains("Proxyfile:2:2"), "{out}");
        assert!(out.contains("^^^^^^^ not known") && out.contains("- in this block"), "{out}");
        assert!(out.contains("help: did you mean `respond`?") && out.contains("respond \"hi\""), "{out}");
        let json = to_json(&[d], &sources);
        assert_eq!(json[0]["line"], 2);
        assert_eq!((&json[0]["column"], &json[0]["end_column"]), (&json!(2), &json!(9)));
        assert_eq!(json[0]["replacement"]["text"], "respond");
        assert_eq!(json[0]["labels"][0]["label"], "in this block");
    }

    #[test]
    fn a_secret_is_masked_wherever_its_line_is_shown() {
        let text = ":80 {\n\tauth_token sk-héllo \"x\n";
        let (sources, id) = one(text);
        let d = Diagnostic::warning("key-in-clear", "a key stands in clear in the file")
            .at(span_of(text, "auth_token", id), "")
            .replace(span_of(text, "\"x", id), "\"x\"")
            .secret(span_of(text, "sk-héllo", id));
        let out = render(&[d], &sources, false);
        assert!(!out.contains("sk-") && !out.contains("llo") && out.contains("*********"), "{out}");
    }

    #[test]
    fn places_at_the_end_and_outside_the_file_do_no_harm() {
        let text = ":80 {";
        let (sources, id) = one(text);
        for (start, end) in [(5, 5), (5, 99), (99, 99), (3, 1)] {
            let span = Span { file: id, start, end };
            let d = Diagnostic::error("unclosed-block", "a block is never closed").at(span, "the file ends here");
            assert!(render(&[d], &sources, false).contains("the file ends here"));
        }
        let nowhere = Span { file: FileId(9), start: 1, end: 2 };
        let d = Diagnostic::error("unclosed-block", "x").at(nowhere, "y");
        assert!(render(std::slice::from_ref(&d), &sources, false).contains("error[unclosed-block]: x"));
        assert_eq!(to_json(&[d], &sources)[0]["file"], Value::Null);
    }

    #[test]
    fn a_very_long_line_is_cut() {
        let text = format!("{} bad {}", "x".repeat(100_000), "y".repeat(100_000));
        let (sources, id) = one(&text);
        let d = Diagnostic::error("unknown-directive", "no").at(span_of(&text, "bad", id), "here");
        let out = render(&[d], &sources, false);
        assert!(out.len() < 2000 && out.contains("bad") && out.contains("^^^ here"), "{out}");
        let far = Diagnostic::error("unterminated-quote", "no")
            .at(Span::new(id, 0, 150_000), "opened here")
            .also(Span::new(id, text.len(), text.len()), "the end")
            .replace(Span::new(id, 0, 1), "y");
        let out = render(&[far], &sources, false);
        assert!(out.len() < 2000 && out.contains("opened here"), "{}", out.len());
    }
}
