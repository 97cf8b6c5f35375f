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
    /// Bytes of the run so far.
    run: u64,
}

/// A kind of byte. Runs of one kind are counted together.
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
    /// Of characters beyond ASCII.
    More,
}

const KINDS: [Kind; 256] = {
    let mut kinds = [Kind::More; 256];
    let mut byte = 0_u8;
    while byte < 0x80 {
        kinds[byte as usize] = match byte {
            b'a'..=b'z' => Kind::Lower,
            b'A'..=b'Z' => Kind::Upper,
            b'0'..=b'9' => Kind::Digit,
            b' ' | b'\t' => Kind::Space,
            b'\n' | b'\r' => Kind::Line,
            _ => Kind::Mark,
        };
        byte += 1;
    }
    kinds
};

impl Quick {
    pub fn add(&mut self, mut text: &[u8]) {
        while let Some(first) = text.first() {
            let kind = KINDS[usize::from(*first)];
            let length = text.iter().position(|b| KINDS[usize::from(*b)] != kind).unwrap_or(text.len());
            let (run, rest) = text.split_at(length);
            self.run(kind, run);
            text = rest;
        }
    }

    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.twelfths.div_ceil(12)
    }

    /// A run of one kind, or a further piece of the one before.
    fn run(&mut self, kind: Kind, run: &[u8]) {
        let from = if kind == self.kind { self.run } else { 0 };
        let to = from.saturating_add(run.len() as u64);
        let first = u64::from(from == 0);
        // How many of the run's bytes stand at `at` or behind.
        let behind = |at: u64| to.saturating_sub(at.max(from));
        self.twelfths += match kind {
            // A word is one token as far as it is common: the longer, the less.
            Kind::Lower => behind(6) + if self.kind == Kind::Upper { 0 } else { 12 * first },
            Kind::Upper => 12 * first + 5 * behind(1),
            Kind::Digit => 12 * (to.div_ceil(3) - from.div_ceil(3)),
            // One blank belongs to the word behind it.
            Kind::Space => 9 * u64::from(from <= 1 && to > 1),
            Kind::Line => 8 * first,
            Kind::Mark => 10 * first + 4 * behind(1),
            Kind::More => run.iter().map(|byte| beyond_ascii(*byte)).sum(),
            Kind::None => 0,
        };
        self.kind = kind;
        self.run = to;
    }
}

/// Counted with the byte that begins a character.
fn beyond_ascii(byte: u8) -> u64 {
    match byte {
        0xc0..=0xdf => 4,
        0xe0..=0xef => 9,
        0xf0.. => 24,
        _ => 0,
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
        for (text, share) in [(ENGLISH, 12), (code, 17), ("Мама мыла раму, а папа читал газету.", 40)]
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
