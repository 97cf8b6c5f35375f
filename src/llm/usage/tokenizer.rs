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
    /// Of [`STEPS`].
    state: u8,
}

impl Quick {
    pub fn add(&mut self, text: &[u8]) {
        let (mut state, mut twelfths) = (usize::from(self.state), 0);
        for byte in text {
            let step = STEPS[state][usize::from(CLASSES[usize::from(*byte)])];
            state = usize::from(step.0);
            twelfths += u64::from(step.1);
        }
        // There are fewer than 256 states.
        self.state = u8::try_from(state).unwrap_or(0);
        self.twelfths += twelfths;
    }

    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.twelfths.div_ceil(12)
    }
}

/// Kinds of bytes. A text is read as runs of one kind.
#[derive(Clone, Copy)]
enum Kind {
    Lower = 1,
    Upper,
    Digit,
    Space,
    Line,
    Mark,
    /// Bytes of characters beyond ASCII.
    More,
}

/// A kind, and for bytes beyond ASCII what they cost.
const CLASS_KINDS: [(Kind, u8); 10] = [
    (Kind::Lower, 0),
    (Kind::Upper, 0),
    (Kind::Digit, 0),
    (Kind::Space, 0),
    (Kind::Line, 0),
    (Kind::Mark, 0),
    // Continuations are counted with what begins the character.
    (Kind::More, 0),
    (Kind::More, 4),
    (Kind::More, 9),
    (Kind::More, 24),
];

/// Each byte's place in [`CLASS_KINDS`].
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut byte: usize = 0;
    while byte < 256 {
        #[allow(clippy::cast_possible_truncation)] // below 256
        let class = match byte as u8 {
            b'a'..=b'z' => 0,
            b'A'..=b'Z' => 1,
            b'0'..=b'9' => 2,
            b' ' | b'\t' => 3,
            b'\n' | b'\r' => 4,
            0..=0x7f => 5,
            0x80..=0xbf => 6,
            0xc0..=0xdf => 7,
            0xe0..=0xef => 8,
            0xf0..=0xff => 9,
        };
        classes[byte] = class;
        byte += 1;
    }
    classes
};

/// How far into a run it is told where one is: no rule looks further.
const LONGEST: usize = 8;

/// States are the kind of the run and how far it is: 0 is the beginning of the text.
const STATES: usize = 8 * LONGEST;

/// For each state and class of byte the next state, and what it adds in twelfths of a token.
static STEPS: [[(u8, u8); CLASS_KINDS.len()]; STATES] = {
    let mut steps = [[(0, 0); CLASS_KINDS.len()]; STATES];
    let mut state = 0;
    while state < STATES {
        let mut class = 0;
        while class < CLASS_KINDS.len() {
            steps[state][class] = step(state / LONGEST, state % LONGEST, CLASS_KINDS[class]);
            class += 1;
        }
        state += 1;
    }
    steps
};

/// `run`: of the kind before, at most `LONGEST - 1`.
const fn step(before: usize, run: usize, (kind, beyond_ascii): (Kind, u8)) -> (u8, u8) {
    let same = before == kind as usize;
    let run = match kind {
        _ if !same => 0,
        // Three digits are one token.
        Kind::Digit => (run + 1) % 3,
        _ if run + 1 < LONGEST => run + 1,
        _ => LONGEST - 1,
    };
    let cost = match (kind, run) {
        // A word is one token as far as it is common: the longer, the less.
        (Kind::Lower, 0) if before == Kind::Upper as usize => 0,
        (Kind::Lower | Kind::Upper | Kind::Digit, 0) => 12,
        (Kind::Upper, _) => 5,
        (Kind::Lower, 6..) => 1,
        // One blank belongs to the word behind it.
        (Kind::Space, 1) => 9,
        (Kind::Line, 0) => 8,
        (Kind::Mark, 0) => 10,
        (Kind::Mark, _) => 4,
        (Kind::More, _) => beyond_ascii,
        _ => 0,
    };
    #[allow(clippy::cast_possible_truncation)] // below STATES
    let state = (kind as usize * LONGEST + run) as u8;
    (state, cost)
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
