//! Text from a network for a terminal: what could move the cursor, colour, or turn the reading direction is written out.

use std::fmt::Write;

/// Line ends and tabs stay.
pub fn lines(text: &str) -> String {
    escape(text, |c| matches!(c, '\n' | '\t'))
}

/// One line: line ends are written out too.
pub fn line(text: &str) -> String {
    escape(text, |_| false)
}

/// JSON text, which stays JSON with the same meaning.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Line ends part the lines of indented JSON; within strings they are escaped already.
            c if c != '\n' && is_dangerous(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

fn is_dangerous(c: char) -> bool {
    c.is_control()
        // Directional marks, line separators, the byte-order mark: all within four hexadecimal digits.
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn escape(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if !is_dangerous(c) || stays(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_that_it_would_obey() {
        assert_eq!(
            lines("a\x1b[31mred\x07\r\n\tb\u{9b}2J\u{202e}c"),
            "a\\u{1b}[31mred\\u{7}\\r\n\tb\\u{9b}2J\\u{202e}c"
        );
        assert_eq!(line("a\nb\té"), "a\\nb\\té");
        let value = serde_json::json!({"a": "\u{9b}2J\u{7f}\u{202e}\n\u{1b}é"});
        let text = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.chars().any(|c| c != '\n' && is_dangerous(c)), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
