//! A custom tool takes a text, a function takes JSON. Going up, the tool becomes a function with one field, `input`; coming
//! down, the text is taken out of `{"input":"…"}` again, piece by piece as a stream brings it.

use crate::llm::json_view::{escape, string};

/// The `arguments` string of a function call with this text, which is the inside of a JSON string.
pub(super) fn wrapped(out: &mut Vec<u8>, inner: &[u8]) {
    out.extend_from_slice(b"\"{\\\"input\\\":\\\"");
    escape(out, inner);
    out.extend_from_slice(b"\\\"}\"");
}

/// Blanks and the opening of the object, at most: more than this is something else.
const LONGEST_OPENING: usize = 64;

/// Takes the text out of arguments that come in pieces. What does not begin as expected is passed as it is.
#[derive(Debug, Default)]
pub(super) struct Unwrap {
    state: State,
    /// Held until the beginning is known.
    opening: String,
    /// First half of a pair of `\u` escapes.
    high: Option<u16>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Opening,
    Text,
    /// Behind a backslash; the hexadecimal digits of a `\u` so far.
    Escape(Option<(u8, u16)>),
    /// Behind the text: the end of the object.
    Ended,
    /// Not what was expected.
    AsIs,
}

impl Unwrap {
    /// The text in a further piece.
    pub(super) fn push(&mut self, piece: &str) -> String {
        let mut out = String::with_capacity(piece.len());
        for c in piece.chars() {
            match &mut self.state {
                State::Opening => {
                    self.opening.push(c);
                    match begins(&self.opening) {
                        Some(true) => {
                            self.state = State::Text;
                            self.opening = String::new();
                        }
                        Some(false) => {}
                        None => {
                            self.state = State::AsIs;
                            out.push_str(&std::mem::take(&mut self.opening));
                        }
                    }
                }
                State::Text => match c {
                    '"' => {
                        self.lone_half(&mut out);
                        self.state = State::Ended;
                    }
                    '\\' => self.state = State::Escape(None),
                    c => {
                        self.lone_half(&mut out);
                        out.push(c);
                    }
                },
                State::Escape(None) if c == 'u' => self.state = State::Escape(Some((0, 0))),
                State::Escape(None) => {
                    self.lone_half(&mut out);
                    out.push(match c {
                        'n' => '\n',
                        'r' => '\r',
                        't' => '\t',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        c => c,
                    });
                    self.state = State::Text;
                }
                State::Escape(Some((digits, code))) => {
                    *code = (*code << 4) | c.to_digit(16).and_then(|d| u16::try_from(d).ok()).unwrap_or(0);
                    *digits += 1;
                    if *digits == 4 {
                        let code = *code;
                        self.state = State::Text;
                        self.unit(code, &mut out);
                    }
                }
                State::Ended => {}
                State::AsIs => out.push(c),
            }
        }
        out
    }

    /// What is still held when no more comes: an opening that never became one.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.opening)
    }

    /// A UTF-16 unit that was written as an escape.
    fn unit(&mut self, unit: u16, out: &mut String) {
        match (self.high.take(), unit) {
            (Some(high), 0xdc00..=0xdfff) => {
                out.extend(char::decode_utf16([high, unit]).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
            }
            (before, unit) => {
                if before.is_some() {
                    out.push(char::REPLACEMENT_CHARACTER);
                }
                match unit {
                    0xd800..=0xdbff => self.high = Some(unit),
                    unit => out.push(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)),
                }
            }
        }
    }

    fn lone_half(&mut self, out: &mut String) {
        if self.high.take().is_some() {
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Whether this is `{"input":"`, with blanks: yes, not yet, or no.
fn begins(text: &str) -> Option<bool> {
    let mut rest = text;
    for part in ["{", "\"input\"", ":", "\""] {
        rest = rest.trim_start_matches([' ', '\n', '\r', '\t']);
        match rest.strip_prefix(part) {
            Some(after) => rest = after,
            None => return (part.starts_with(rest) && text.len() < LONGEST_OPENING).then_some(false),
        }
    }
    Some(true)
}

/// The text of whole arguments, as a JSON string.
pub(super) fn unwrapped(arguments: &str) -> Vec<u8> {
    let mut unwrap = Unwrap::default();
    let mut text = unwrap.push(arguments);
    text.push_str(&unwrap.finish());
    let mut out = Vec::with_capacity(text.len() + 8);
    string(&mut out, text.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(arguments: &str, size: usize) -> String {
        let mut unwrap = Unwrap::default();
        let chars: Vec<char> = arguments.chars().collect();
        let mut out: String = chars.chunks(size).map(|c| unwrap.push(&c.iter().collect::<String>())).collect();
        out.push_str(&unwrap.finish());
        out
    }

    #[test]
    fn the_text_is_taken_out_however_it_is_cut() {
        for (arguments, text) in [
            (r#"{"input":"*** Begin Patch\n+a \"b\" \\ \u00e9\n"}"#, "*** Begin Patch\n+a \"b\" \\ é\n"),
            (" { \"input\" : \"x\" } ", "x"),
            (r#"{"input":"\ud83d\ude00!"}"#, "😀!"),
            (r#"{"input":"\ud83dx\ude00"}"#, "\u{fffd}x\u{fffd}"),
            (r#"{"input":""}"#, ""),
            (r#"{"input":"cut"#, "cut"),
            // Models that know the tool better than its schema.
            ("*** Begin Patch\n", "*** Begin Patch\n"),
            (r#"{"patch":"x"}"#, r#"{"patch":"x"}"#),
            ("{\"inp", "{\"inp"),
            ("", ""),
        ] {
            for size in 1..=arguments.len().max(1) {
                assert_eq!(pieces(arguments, size), text, "{arguments} in pieces of {size}");
            }
        }
        let blank = " ".repeat(1000);
        assert_eq!(pieces(&blank, 7), blank);
    }

    proptest! {
        #[test]
        fn wrapping_is_undone(text in ".*", size in 1_usize..9) {
            let inner = serde_json::to_string(&text).unwrap();
            let mut arguments = Vec::new();
            wrapped(&mut arguments, &inner.as_bytes()[1..inner.len() - 1]);
            let arguments: String = serde_json::from_slice(&arguments).unwrap();
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&arguments).unwrap()["input"], &text);
            prop_assert_eq!(pieces(&arguments, size), text);
        }
    }
}
