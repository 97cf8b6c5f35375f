//! Counts tokens of texts.
//!
//! [`exact`] goes by OpenAI's vocabulary `o200k_base`, which its models since GPT-4o use. Other makers' vocabularies differ:
//! English and code come within a tenth or so, other languages further. [`quick`] looks at bytes alone, for where a count
//! must cost next to nothing: a forecast, a stream on its way.

use std::sync::OnceLock;

use tiktoken::CoreBpe;

static VOCABULARY: OnceLock<CoreBpe> = OnceLock::new();

/// Makes [`exact`] answer. Takes some tenths of a second the first time, and 24 MB.
pub fn load() {
    VOCABULARY.get_or_init(tiktoken::encoding::o200k_base);
}

/// Tokens of a text; `None` before [`load`]. Texts of any content are counted in time linear in their length: one run of
/// characters longer than [`LONGEST_RUN`] is taken apart, which real words are not.
#[must_use]
pub fn exact(text: &str) -> Option<u64> {
    let vocabulary = VOCABULARY.get()?;
    let mut tokens = 0;
    let mut rest = text;
    // The cost of one unbroken run grows faster than its length.
    while let Some(end) = end_of_long_run(rest) {
        let (run, after) = rest.split_at(end);
        tokens += vocabulary.count(run);
        rest = after;
    }
    tokens += vocabulary.count(rest);
    Some(tokens as u64)
}

/// Bytes without white space, at most, that are counted as one.
const LONGEST_RUN: usize = 1024;

/// Where a text must be taken apart first: behind [`LONGEST_RUN`] bytes without white space.
fn end_of_long_run(text: &str) -> Option<usize> {
    if text.len() <= LONGEST_RUN {
        return None;
    }
    let mut start = 0;
    for (at, byte) in text.bytes().enumerate() {
        if matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
            start = at;
        } else if at - start >= LONGEST_RUN {
            return (start..=at).rev().find(|at| *at > 0 && text.is_char_boundary(*at));
        }
    }
    None
}

/// About how many tokens, by the kinds of bytes: a tenth off for English and code, a third for other languages.
#[must_use]
pub fn quick(text: &[u8]) -> u64 {
    let mut count = Quick::default();
    count.add(text);
    count.tokens()
}

/// [`quick`] for a text that comes in pieces.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quick {
    /// In twelfths of a token.
    twelfths: u64,
    kind: Kind,
    /// Bytes of the run so far, at most 255.
    run: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    None,
    Lower,
    Upper,
    Digit,
    Space,
    Line,
    Mark,
    /// The second and later bytes of a character beyond ASCII.
    More,
}

impl Quick {
    pub fn add(&mut self, text: &[u8]) {
        for byte in text {
            self.byte(*byte);
        }
    }

    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.twelfths.div_ceil(12)
    }

    fn byte(&mut self, byte: u8) {
        let kind = match byte {
            b'a'..=b'z' => Kind::Lower,
            b'A'..=b'Z' => Kind::Upper,
            b'0'..=b'9' => Kind::Digit,
            b' ' | b'\t' => Kind::Space,
            b'\n' | b'\r' => Kind::Line,
            0..=0x7f => Kind::Mark,
            _ => Kind::More,
        };
        let same = kind == self.kind;
        let run = if same { self.run.saturating_add(1) } else { 0 };
        self.twelfths += match (kind, run) {
            // A word is one token as far as it is common: the longer, the less.
            (Kind::Lower, 0) if self.kind == Kind::Upper => 0,
            (Kind::Lower | Kind::Upper, 0) => 12,
            (Kind::Upper, _) => 5,
            (Kind::Lower, n) if n < 6 => 0,
            (Kind::Lower, _) => 1,
            (Kind::Digit, n) if n % 3 == 0 => 12,
            // One blank belongs to the word behind it.
            (Kind::Space, 1) => 9,
            (Kind::Line, 0) => 8,
            (Kind::Mark, 0) => 10,
            (Kind::Mark, _) => 4,
            (Kind::More, _) => match byte {
                // Continuations are counted with what begins the character.
                0x80..=0xbf => 0,
                0xc0..=0xdf => 4,
                0xe0..=0xef => 9,
                _ => 24,
            },
            _ => 0,
        };
        self.kind = kind;
        self.run = run;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGLISH: &str = "The quick brown fox jumps over the lazy dog. It was the best of times, it was the worst of \
        times, it was the age of wisdom, it was the age of foolishness; we had everything before us, we had nothing \
        before us. Please summarise the following meeting notes in three short sentences, and list the open questions.";

    /// Counted with another implementation (`tiktoken-rs`).
    #[test]
    fn counts_are_those_of_the_vocabulary() {
        load();
        for (text, tokens) in [
            ("", 0),
            ("hello world", 2),
            ("Hello, how are you today?", 7),
            ("{\"location\": \"Paris\"}", 6),
            ("antidisestablishmentarianism", 6),
            ("Мама мыла раму, а папа читал газету.", 15),
            ("日本語のテキストです。", 8),
            ("    if found {\n        return \"yes\";\n    }\n", 11),
        ] {
            assert_eq!(exact(text), Some(tokens), "{text}");
        }
    }

    #[test]
    fn the_quick_count_is_near() {
        load();
        let code = include_str!("tokenizer.rs");
        for (text, share) in [(ENGLISH, 12), (code, 15), ("Мама мыла раму, а папа читал газету.", 40)]
        {
            let (exact, quick) = (exact(text).unwrap(), quick(text.as_bytes()));
            assert!(exact.abs_diff(quick) * 100 <= exact * share, "{exact} {quick}: {text:.20}");
        }
    }

    #[test]
    fn pieces_count_as_the_whole() {
        for at in 0..ENGLISH.len() {
            let mut count = Quick::default();
            count.add(&ENGLISH.as_bytes()[..at]);
            count.add(&ENGLISH.as_bytes()[at..]);
            assert_eq!(count.tokens(), quick(ENGLISH.as_bytes()));
        }
    }

    #[test]
    fn long_runs_take_no_longer_than_their_length_asks() {
        load();
        for run in ["a", "é", "=", "日"] {
            let text = run.repeat(64 << 10);
            let began = std::time::Instant::now();
            assert!(exact(&text).unwrap() > 1000);
            assert!(began.elapsed() < std::time::Duration::from_secs(2), "{run}: {:?}", began.elapsed());
        }
    }
}
