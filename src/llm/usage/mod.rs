//! How many tokens a call took: what an answer says of it, in every provider's words, and an estimate where it says
//! nothing.
//!
//! Pure. Parts are always contained in the whole here, whatever the provider's habit: Anthropic's `input_tokens`, which
//! leaves the cached ones out, becomes the sum of all three.

mod answer;
mod endpoint;
pub mod hidden;
pub mod last_words;
mod prompt;
pub mod request;
pub mod sample;
mod scan;
pub mod tokenizer;

pub use answer::{Answer, Framing, Told};
pub use endpoint::Endpoint;
pub use prompt::Prompt;

/// Tokens of one call. Parts are contained in the whole: cached, cache_write* and audio_input are part of input,
/// reasoning and audio_output of output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    pub input: u64,
    /// Read from the provider's prompt cache.
    pub cached: u64,
    /// Written to the prompt cache, for five minutes or as long as the provider keeps it.
    pub cache_write: u64,
    /// Written to the prompt cache for an hour.
    pub cache_write_1h: u64,
    pub output: u64,
    /// Thought and not shown.
    pub reasoning: u64,
    pub audio_input: u64,
    pub audio_output: u64,
}

impl Tokens {
    /// What limits on tokens count.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

/// How sure a count is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// As the upstream says.
    Exact,
    /// The answer came whole and told no counts: they are ours.
    Estimated,
    /// The answer broke off, or the client left: counted up to there, by the upstream's words as far as they came.
    Aborted,
}

impl Certainty {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Estimated => "estimated",
            Self::Aborted => "aborted",
        }
    }
}
