//! Text to words. The grammar (`grammar/proxyfile.pest`) says where each word begins and ends; this file says what it
//! is worth: quotes, escapes and heredoc indent undone, and the line it counts as, exactly as Caddy's lexer does.

use pest::Parser;
use pest::iterators::Pair;

use super::env::Substituted;
use super::token::{Quote, Token};
use crate::base::diagnostic::Diagnostic;
use crate::base::span::Span;

#[derive(pest_derive::Parser)]
#[grammar = "../grammar/proxyfile.pest"]
struct Grammar;

/// A word and the line it counts as.
#[derive(Clone, Debug)]
pub struct Word {
    pub token: Token,
    /// Counted in the substituted text; a word after `\`+newline still counts as the line before.
    pub line: u32,
}

impl Word {
    /// The line on which the word ends, which is what the next word is compared with. Caddy derives it from the
    /// value, and so do we, for a value changed by import arguments too.
    #[must_use]
    pub fn last_line(&self) -> u32 {
        let breaks = memchr::memchr_iter(b'\n', self.token.text.as_bytes()).count();
        // A heredoc's opening and closing lines are no part of its value.
        let fences = if self.token.quote == Quote::Heredoc { 2 } else { 0 };
        self.line.saturating_add(u32::try_from(breaks + fences).unwrap_or(u32::MAX))
    }

    /// Is this an unquoted token with exactly this text? Quoted braces are plain words.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        self.token.is(text)
    }
}

/// All words of one file, and what is wrong with them. The words are there even when something is wrong.
#[derive(Debug, Default)]
pub struct Lexed {
    pub words: Vec<Word>,
    pub diagnostics: Vec<Diagnostic>,
    /// A quote or heredoc that is never closed has swallowed the rest of the file.
    pub cut_short: bool,
}

#[must_use]
pub fn lex(source: &Substituted<'_>) -> Lexed {
    let mut lexer = Lexer { source, line: 1, skipped: 0, comment_joins: None, out: Lexed::default() };
    // The grammar matches every input, so an error here could only come from a limit inside the parser library.
    match Grammar::parse(Rule::file, &source.text) {
        Ok(mut pairs) => pairs.next().into_iter().flat_map(Pair::into_inner).for_each(|pair| lexer.take(&pair)),
        Err(_) => lexer.out.diagnostics.push(
            Diagnostic::error("unreadable-text", "the text cannot be split into words").at(lexer.origin(0, 0), ""),
        ),
    }
    lexer.out
}

struct Lexer<'a> {
    source: &'a Substituted<'a>,
    line: u32,
    /// Lines joined by a backslash; they count when the joined line ends.
    skipped: u32,
    /// A comment that holds a backslash swallows its line end.
    comment_joins: Option<(Span, u32)>,
    out: Lexed,
}

impl Lexer<'_> {
    fn take(&mut self, pair: &Pair<'_, Rule>) {
        let raw = pair.as_str();
        let start = pair.as_span().start();
        match pair.as_rule() {
            Rule::newline => self.end_line(),
            Rule::continuation => self.skipped += 1,
            Rule::comment if raw.contains('\\') => {
                self.comment_joins = Some((self.origin(start, start + raw.len()), self.line));
            }
            Rule::word => self.push(raw, start, Quote::None, plain_text(raw)),
            Rule::double_angle => self.push(raw, start, Quote::None, raw.replace('\r', "")),
            Rule::quoted => self.quoted(raw, start, true),
            Rule::quoted_open => self.quoted(raw, start, false),
            Rule::backtick => self.backtick(raw, start, true),
            Rule::backtick_open => self.backtick(raw, start, false),
            Rule::heredoc => self.heredoc(pair),
            Rule::heredoc_open => self.heredoc_open(pair),
            Rule::heredoc_bad => self.heredoc_bad(raw, start),
            _ => {}
        }
    }

    fn end_line(&mut self) {
        if self.comment_joins.is_some() {
            self.skipped += 1;
        } else {
            self.line += 1 + self.skipped;
            self.skipped = 0;
        }
        if let Some((span, line)) = self.comment_joins.take() {
            let trails = self.out.words.last().is_some_and(|w| w.last_line() >= line);
            if trails {
                self.out.diagnostics.push(
                    Diagnostic::warning(
                        "comment-joins-lines",
                        "a backslash in this comment joins the next line to this one",
                    )
                    .at(span, "the line goes on after this comment")
                    .help("move the comment to a line of its own, or remove the backslash"),
                );
            }
        }
    }

    fn push(&mut self, raw: &str, start: usize, quote: Quote, text: String) {
        let line = self.line;
        self.push_at(raw, start, quote, text, line);
    }

    fn push_at(&mut self, raw: &str, start: usize, quote: Quote, text: String, line: u32) {
        // A backslash with blanks before the word is no part of what the admin would point at.
        let lead = if quote == Quote::None { blank_lead(raw) } else { 0 };
        let (span, from_env) = self.source.origin(start + lead..start + raw.len());
        let token = Token { text: text.into(), span, quote, from_env };
        self.out.words.push(Word { token, line });
    }

    fn quoted(&mut self, raw: &str, start: usize, closed: bool) {
        let open = raw.find('"').unwrap_or(0);
        let inner = &raw[open + 1..raw.len() - usize::from(closed)];
        let text = quoted_text(inner, open > 0);
        let line = self.line;
        self.count_lines(raw);
        if !closed {
            self.unterminated("unterminated-quote", "quoted text is never closed", start + open, 1, "`\"`");
        }
        self.push_at(raw, start, Quote::Double, text, line);
    }

    fn backtick(&mut self, raw: &str, start: usize, closed: bool) {
        let open = raw.find('`').unwrap_or(0);
        let inner = raw[open + 1..raw.len() - usize::from(closed)].to_owned();
        let line = self.line;
        self.count_lines(raw);
        if !closed {
            self.unterminated("unterminated-quote", "backtick text is never closed", start + open, 1, "a backtick");
        }
        self.push_at(raw, start, Quote::Backtick, inner, line);
    }

    fn count_lines(&mut self, raw: &str) {
        for _ in memchr::memchr_iter(b'\n', raw.as_bytes()) {
            self.line += 1 + self.skipped;
            self.skipped = 0;
        }
    }

    fn heredoc(&mut self, pair: &Pair<'_, Rule>) {
        let (raw, start) = (pair.as_str(), pair.as_span().start());
        let mut inner = pair.clone().into_inner();
        let (Some(marker), Some(body)) = (inner.next(), inner.next()) else { return };
        let line = self.line;
        self.line += self.skipped + lines_in(raw);
        self.skipped = 0;
        let text = match dedent(body.as_str()) {
            Ok(text) => text,
            Err(mismatch) => {
                let at = body.as_span().start() + mismatch.start;
                let (place, from_env) = self.source.origin(at..at + mismatch.len.max(1));
                let marker_at = start + raw.len() - marker.as_str().len();
                let (closing, _) = self.source.origin(marker_at..start + raw.len());
                let mut d = Diagnostic::error(
                    "heredoc-indent",
                    format!("this heredoc line does not begin with the indent of the closing `{}`", marker.as_str()),
                )
                .at(place, "this line")
                .also(closing, "its indent is what every line must begin with");
                if from_env {
                    d.labels.truncate(0);
                }
                self.out.diagnostics.push(d);
                body.as_str().to_owned()
            }
        };
        self.push_at(raw, start, Quote::Heredoc, text, line);
    }

    fn heredoc_open(&mut self, pair: &Pair<'_, Rule>) {
        let (raw, start) = (pair.as_str(), pair.as_span().start());
        let marker = pair.clone().into_inner().next().map_or("", |m| m.as_str()).to_owned();
        let line = self.line;
        self.line += self.skipped + lines_in(raw);
        self.skipped = 0;
        let shown = if self.source.origin(start..start + 2 + marker.len()).1 { "" } else { &marker };
        self.unterminated(
            "unterminated-heredoc",
            "heredoc is never closed",
            start,
            2 + marker.len(),
            &format!("`{shown}`"),
        );
        self.push_at(raw, start, Quote::Heredoc, String::new(), line);
    }

    fn heredoc_bad(&mut self, raw: &str, start: usize) {
        let trimmed = raw.trim_end_matches('\r');
        let (span, _) = self.source.origin(start..start + trimmed.len());
        let (message, help) = match trimmed.strip_prefix("<<").unwrap_or_default() {
            "" => ("this heredoc has no marker", "name the marker: `<<END`, and close with `END`"),
            rest if rest.starts_with('<') => ("a heredoc begins with two `<`, not more", "write `<<END`"),
            _ => ("a heredoc marker may hold letters, digits, `-` and `_` only", "use a marker such as `<<END`"),
        };
        self.out.diagnostics.push(Diagnostic::error("heredoc-marker", message).at(span, "").help(help));
        self.push(raw, start, Quote::None, trimmed.to_owned());
    }

    /// Both ends of the problem: where it was opened, and that the file ends without a close.
    fn unterminated(&mut self, code: &'static str, message: &str, start: usize, len: usize, closer: &str) {
        let (open, _) = self.source.origin(start..start + len);
        let end = self.source.text.trim_end().len().max(start + len);
        let (eof, _) = self.source.origin(end..end);
        self.out.diagnostics.push(
            Diagnostic::error(code, message)
                .at(open, "opened here")
                .also(eof, format!("the file ends here without {closer}")),
        );
        self.out.cut_short = true;
    }

    fn origin(&self, start: usize, end: usize) -> Span {
        self.source.origin(start..end).0
    }
}

fn lines_in(raw: &str) -> u32 {
    u32::try_from(memchr::memchr_iter(b'\n', raw.as_bytes()).count()).unwrap_or(u32::MAX)
}

/// The length of a leading backslash and the blanks after it, when there are blanks.
fn blank_lead(raw: &str) -> usize {
    let Some(rest) = raw.strip_prefix('\\') else { return 0 };
    let blanks = rest.len() - rest.trim_start().len();
    if blanks == 0 { 0 } else { 1 + blanks }
}

/// The value of an unquoted word: carriage returns dropped, `\<` is `<`, any other backslash stays unless it ends the
/// word.
fn plain_text(raw: &str) -> String {
    if memchr::memchr2(b'\\', b'\r', raw.as_bytes()).is_none() {
        return raw.to_owned();
    }
    let mut text = String::with_capacity(raw.len());
    let mut escaped = false;
    for c in raw.chars() {
        if c == '\\' && !escaped {
            escaped = true;
            continue;
        }
        if c.is_whitespace() {
            continue;
        }
        if escaped && c != '<' {
            text.push('\\');
        }
        escaped = false;
        text.push(c);
    }
    text
}

/// The value of double-quoted text: `\"` is `"`, any other backslash stays. `escaped`: a backslash stood before the
/// opening quote, and Caddy lets it act on the first character inside.
fn quoted_text(inner: &str, mut escaped: bool) -> String {
    if !escaped && memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return inner.to_owned();
    }
    let mut text = String::with_capacity(inner.len());
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
            continue;
        }
        if escaped && c != '"' {
            text.push('\\');
        }
        escaped = false;
        text.push(c);
    }
    text
}

/// A heredoc line that lacks the indent, as a place in the body.
struct Mismatch {
    start: usize,
    len: usize,
}

/// Takes the closing marker's indent off every line. `body` is what lies between the opening line and the marker.
fn dedent(body: &str) -> Result<String, Mismatch> {
    let Some(last_newline) = body.rfind('\n') else { return Ok(String::new()) };
    let indent = &body[last_newline + 1..];
    let mut text = String::with_capacity(body.len());
    let mut start = 0;
    for line in body[..last_newline].split('\n') {
        if !(line.is_empty() || line == "\r") {
            let Some(rest) = line.strip_prefix(indent) else { return Err(Mismatch { start, len: line.len() }) };
            text.extend(rest.chars().filter(|c| *c != '\r'));
        }
        text.push('\n');
        start += line.len() + 1;
    }
    text.pop();
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::env::Env;
    use crate::base::span::FileId;
    use crate::syntax::env::substitute;
    use proptest::prelude::*;

    fn lexed(text: &str) -> Lexed {
        lex(&substitute(FileId(0), text, &Env::empty(), 1 << 20).unwrap())
    }

    /// Each word as `line:text`, quoted ones in `"`.
    fn words(text: &str) -> Vec<String> {
        let show = |w: &Word| match w.token.quote {
            Quote::None => format!("{}:{}", w.line, w.token.text),
            _ => format!("{}:\"{}\"", w.line, w.token.text),
        };
        lexed(text).words.iter().map(show).collect()
    }

    #[test]
    fn words_quotes_and_comments() {
        assert_eq!(words("a b#c # d\n\"e f\" `g\\\"h`x"), ["1:a", "1:b#c", "2:\"e f\"", "2:\"g\\\"h\"", "2:x"]);
        assert_eq!(words("\u{feff}a \"\" {} \"{\""), ["1:a", "1:\"\"", "1:{}", "1:\"{\""]);
        assert_eq!(words(r#"a"b "c\"d\n\\" "e"f"#), ["1:a\"b", r#"1:"c"d\n\\""#, "1:\"e\"", "1:f"]);
    }

    #[test]
    fn backslashes_outside_quotes() {
        assert_eq!(words("a \\\n b \\ \n c\nd"), ["1:a", "1:b", "1:c", "4:d"]);
        assert_eq!(words("a\\\nb\nc"), ["1:a", "1:b", "3:c"]);
        assert_eq!(words(r"\a b\c \\d e\ f g\"), ["1:\\a", "1:b\\c", "1:\\\\d", "1:e", "1:f", "1:g"]);
        assert_eq!(words("\\<<END\nx"), ["1:<<END", "2:x"]);
        assert_eq!(words("a # c:\\dir\nb\nc"), ["1:a", "1:b", "3:c"]);
    }

    #[test]
    fn carriage_returns_are_ignored_outside_quotes() {
        assert_eq!(words("a\r\nb\rc \"d\r\"\r\n"), ["1:a", "2:bc", "2:\"d\r\""]);
        assert_eq!(words("a \\\r\nb"), ["1:a", "1:b"]);
    }

    #[test]
    fn heredocs() {
        assert_eq!(words("a <<E\n  x\n\n    y\n  E 200\nb"), ["1:a", "1:\"x\n\n  y\"", "5:200", "6:b"]);
        assert_eq!(words("<<E\r\n x\r\n E"), ["1:\"x\""]);
        assert_eq!(words("<<E\nE"), ["1:\"\""]);
        assert_eq!(words("<<E x\n<<"), ["1:<<E", "1:x", "2:<<"]);
        let codes = |text: &str| lexed(text).diagnostics.iter().map(|d| d.code).collect::<Vec<_>>();
        assert_eq!(codes("<<<E\nx"), ["heredoc-marker"]);
        assert_eq!(codes("<<\nx"), ["heredoc-marker"]);
        assert_eq!(codes("<<E!\nx"), ["heredoc-marker"]);
        assert_eq!(codes("<<E\nx"), ["unterminated-heredoc"]);
        assert_eq!(codes("<<E\nx\n  E"), ["heredoc-indent"]);
        assert_eq!(codes("a \"x"), ["unterminated-quote"]);
        assert_eq!(codes("a `x"), ["unterminated-quote"]);
    }

    #[test]
    fn many_lines_in_one_word_end_on_the_last() {
        let out = lexed("a \"x\ny\" b\nc");
        let lines: Vec<_> = out.words.iter().map(|w| (w.line, w.last_line())).collect();
        assert_eq!(lines, [(1, 1), (1, 2), (2, 2), (3, 3)]);
    }

    proptest! {
        #[test]
        fn every_text_is_read_and_spans_lie_inside_it(text in r#"[ -~\n\t\r\u{85}\u{a0}é"`\\<{}#]{0,120}"#) {
            let out = lexed(&text);
            let mut end = 0;
            for word in &out.words {
                let span = word.token.span;
                // Words that one placeholder became share its place.
                let shared = text.contains("{$");
                prop_assert!((shared || span.start >= end) && span.end >= span.start && span.end as usize <= text.len());
                prop_assert!(text.is_char_boundary(span.start as usize) && text.is_char_boundary(span.end as usize));
                end = span.end;
            }
            // Nothing that could be a word is lost: a letter outside comments always lands in some word.
            if !text.contains('#') && text.contains('q') {
                prop_assert!(!out.words.is_empty());
            }
        }
    }
}
