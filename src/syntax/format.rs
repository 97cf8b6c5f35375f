//! The formatter: tabs for indent, one blank between words, braces where they belong, at most one empty line in a row.
//! Words, quotes, heredocs and comments are written as they stand. Equal to `caddy fmt`, which goes character by
//! character, except where that would change a word or never settle: then the text is left alone.

use super::env::Substituted;
use super::lexer::lex;
use crate::base::span::FileId;

/// Formats a Proxyfile. Formatting the result again changes nothing, and no word is ever changed.
#[must_use]
pub fn format(text: &str) -> String {
    let original = words(text);
    let mut current = Formatter::run(text);
    // Well-formed files settle at once. A few odd ones need a second pass.
    for _ in 0..3 {
        if words(&current) != original {
            break;
        }
        let next = Formatter::run(&current);
        if next == current {
            return current;
        }
        current = next;
    }
    text.to_owned()
}

/// The words of a text without their layout. A brace glued to the end of a word counts as a word: it is the one thing
/// that formatting may split off.
fn words(text: &str) -> Vec<(String, bool)> {
    let mut words = Vec::new();
    for word in lex(&Substituted::verbatim(FileId(0), text)).words {
        let quoted = word.token.quoted();
        match word.token.text.strip_suffix('{').filter(|rest| !quoted && !rest.is_empty()) {
            Some(rest) => words.extend([(rest.to_owned(), false), ("{".to_owned(), false)]),
            None => words.push((word.token.text.to_string(), quoted)),
        }
    }
    words
}

/// Deeper blocks are not indented further.
const MAX_INDENT: usize = 10;

/// Which quotes are open. Caddy tracks one kind inside the other.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Quotes {
    None,
    Double,
    Backtick,
    BacktickInDouble,
}

#[derive(PartialEq, Eq)]
enum Heredoc {
    Closed,
    /// `<<` was read, the marker follows.
    Opening(String),
    /// In the body; the text since the line began, as far as it may be the marker.
    Body {
        marker: String,
        tail: String,
    },
}

struct Formatter {
    out: String,
    /// The character written last.
    last: char,
    /// The character read before was a blank (or the text begins).
    space: bool,
    beginning_of_line: bool,
    /// The current word is, or began with, `{`.
    open_brace: bool,
    open_brace_written: bool,
    open_brace_space: bool,
    /// Line ends read since the last word.
    new_lines: usize,
    comment: bool,
    quotes: Quotes,
    escaped: bool,
    heredoc: Heredoc,
    heredoc_escaped: bool,
    nesting: usize,
}

impl Formatter {
    fn run(text: &str) -> String {
        let mut formatter = Self {
            out: String::with_capacity(text.len()),
            last: '\0',
            space: true,
            beginning_of_line: true,
            open_brace: false,
            open_brace_written: false,
            open_brace_space: false,
            new_lines: 0,
            comment: false,
            quotes: Quotes::None,
            escaped: false,
            heredoc: Heredoc::Closed,
            heredoc_escaped: false,
            nesting: 0,
        };
        for c in text.trim().chars() {
            formatter.take(c);
        }
        if formatter.open_brace && !formatter.open_brace_written {
            formatter.write_block_brace();
        }
        format!("{}\n", formatter.out.trim())
    }

    fn write(&mut self, c: char) {
        self.out.push(c);
        self.last = c;
    }

    fn next_line(&mut self) {
        self.write('\n');
        self.beginning_of_line = true;
    }

    fn indent(&mut self) {
        for _ in 0..self.nesting {
            self.write('\t');
        }
    }

    fn take(&mut self, c: char) {
        if self.take_heredoc(c) || self.take_literal(c) {
            return;
        }
        if c.is_whitespace() {
            self.space = true;
            self.heredoc_escaped = false;
            self.new_lines += usize::from(c == '\n');
            return;
        }
        let space_prior = std::mem::replace(&mut self.space, false);
        self.take_plain(c, space_prior);
    }

    /// Heredocs: from `<<` after a blank to the marker that is followed by a blank.
    fn take_heredoc(&mut self, c: char) -> bool {
        match std::mem::replace(&mut self.heredoc, Heredoc::Closed) {
            Heredoc::Closed => {
                let opens =
                    self.quotes == Quotes::None && !self.heredoc_escaped && self.space && self.last == '<' && c == '<';
                if opens {
                    self.write(c);
                    self.heredoc = Heredoc::Opening(String::new());
                    self.space = false;
                    return true;
                }
            }
            Heredoc::Opening(mut marker) => {
                let valid =
                    |m: &str| !m.is_empty() && m.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                if c == '\n' {
                    if valid(&marker) {
                        self.heredoc = Heredoc::Body { marker, tail: String::new() };
                        self.write(c);
                    } else {
                        self.next_line();
                    }
                    return true;
                }
                // A blank means that it was an ordinary word.
                if !c.is_whitespace() {
                    marker.push(c);
                    self.heredoc = Heredoc::Opening(marker);
                    self.write(c);
                    return true;
                }
            }
            Heredoc::Body { marker, mut tail } => {
                if !(c.is_whitespace() && tail == marker) {
                    self.write(c);
                    tail.push(c);
                    if c == '\n' {
                        tail.clear();
                    } else if tail.len() > marker.len() {
                        let first = tail.chars().next().map_or(0, char::len_utf8);
                        tail.drain(..first);
                    }
                    self.heredoc = Heredoc::Body { marker, tail };
                    return true;
                }
            }
        }
        false
    }

    /// Comments, escaped characters and quoted text are written as they stand.
    fn take_literal(&mut self, c: char) -> bool {
        if self.last == '<' && self.space {
            self.space = false;
        }
        if self.comment {
            if c == '\n' {
                self.comment = false;
                self.space = true;
                self.next_line();
            } else {
                self.write(c);
            }
            return true;
        }
        if !self.escaped && c == '\\' {
            if std::mem::replace(&mut self.space, false) {
                self.write(' ');
            }
            self.write(c);
            self.escaped = true;
            return true;
        }
        if self.escaped {
            self.heredoc_escaped |= c == '<';
            self.write(c);
            self.escaped = false;
            return true;
        }
        if c == '`' {
            self.quotes = match self.quotes {
                Quotes::BacktickInDouble => Quotes::Double,
                Quotes::Backtick => Quotes::None,
                Quotes::Double => Quotes::BacktickInDouble,
                Quotes::None => Quotes::Backtick,
            };
        }
        if self.quotes == Quotes::Double {
            if c == '"' {
                self.quotes = Quotes::None;
            }
            self.write(c);
            return true;
        }
        if c == '"' {
            self.quotes = match self.quotes {
                Quotes::None if self.space => Quotes::Double,
                Quotes::BacktickInDouble => Quotes::None,
                same => same,
            };
        }
        if matches!(self.quotes, Quotes::Backtick | Quotes::BacktickInDouble) {
            if c == '`' && self.space && !self.beginning_of_line {
                self.write(' ');
            }
            self.write(c);
            self.space = false;
            return true;
        }
        false
    }

    fn take_plain(&mut self, c: char, space_prior: bool) {
        if c == '#' {
            self.comment = true;
        }
        if self.open_brace && space_prior && !self.open_brace_written {
            self.write_block_brace();
        }
        if c == '{' {
            // A brace right below a top-level import belongs to global options, not to the import.
            if self.nesting == 0 && self.new_lines == 1 && self.on_import_line() {
                self.next_line();
                self.new_lines = 0;
            }
            self.open_brace = true;
            self.open_brace_space = space_prior && !self.beginning_of_line;
            if self.open_brace_space && self.new_lines == 0 {
                self.write(' ');
            }
            self.open_brace_written = false;
            return;
        }
        if c == '}' && (space_prior || !self.open_brace) {
            if self.last != '\n' {
                self.next_line();
            }
            self.nesting = self.nesting.saturating_sub(1);
            self.indent();
            self.write('}');
            self.new_lines = 0;
            return;
        }
        for _ in 0..self.new_lines.min(2) {
            self.next_line();
        }
        self.new_lines = 0;
        if self.beginning_of_line {
            self.indent();
        }
        if self.nesting == 0 && self.last == '}' && self.beginning_of_line {
            self.next_line();
            self.next_line();
        }
        if !self.beginning_of_line && space_prior {
            self.write(' ');
        }
        if self.open_brace && !self.open_brace_written {
            self.write('{');
            self.open_brace_written = true;
        }
        if space_prior && c == '<' {
            self.space = true;
        }
        self.write(c);
        self.beginning_of_line = false;
    }

    fn on_import_line(&self) -> bool {
        let line = self.out.rsplit('\n').next().unwrap_or_default();
        line.strip_prefix("import").is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    }

    /// Writes the `{` that was held back until it was clear that it opens a block.
    fn write_block_brace(&mut self) {
        if self.nesting == 0 && self.last == '}' {
            self.next_line();
            self.next_line();
        }
        self.open_brace = false;
        if self.beginning_of_line {
            self.indent();
        } else if !self.open_brace_space || !self.last.is_whitespace() {
            self.write(' ');
        }
        self.write('{');
        self.open_brace_written = true;
        self.next_line();
        self.new_lines = 0;
        if self.nesting < MAX_INDENT {
            self.nesting += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn layout_is_mended() {
        let messy = "{\ndebug\n}\n\n\n\n:80   {\n  respond   \"a  b\"  # note\n\n  handle{\n  }\n reverse_proxy  a:1   {\n header_up X {host}\n}\n}\n";
        let tidy = "{\n\tdebug\n}\n\n:80 {\n\trespond \"a  b\" # note\n\n\thandle {\n\t}\n\treverse_proxy a:1 {\n\t\theader_up X {host}\n\t}\n}\n";
        assert_eq!(format(messy), tidy);
        assert_eq!(format(tidy), tidy);
    }

    #[test]
    fn what_would_change_a_word_is_left_alone() {
        // Caddy's formatter splits `x}` in two here.
        let odd = ":80 {\n  respond  x}\n}\n";
        assert_eq!(format(odd), odd);
    }

    #[test]
    fn a_brace_below_a_top_level_import_stays_there() {
        assert_eq!(format("import  a\n{\ndebug\n}\n"), "import a\n{\n\tdebug\n}\n");
        assert_eq!(format(":80\n{\nx\n}\n"), ":80 {\n\tx\n}\n");
    }

    proptest! {
        #[test]
        fn formatting_twice_is_formatting_once(words in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "{}", "\n", "\n\n", " ", "\t", "a", "{host}", "\"q r\"", "`b t`", "<<E\n x\n E", "# c\n", "\\\n", "\"", "`", "\\", "<<", "{a", "b}",
        ]), 0..60)) {
            let once = format(&words.concat());
            prop_assert_eq!(super::words(&once), super::words(&words.concat()));
            prop_assert_eq!(format(&once), once);
        }
    }
}
