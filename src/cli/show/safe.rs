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

fn escape(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let dangerous = c.is_control()
            // Directional marks, line separators, the byte-order mark.
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        match c {
            _ if !dangerous || stays(c) => out.push(c),
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
    }
}
