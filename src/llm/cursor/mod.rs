//! What Cursor sends and expects behind "Override OpenAI Base URL", and chat completions: bodies of three shapes become
//! one, answers lose what Cursor stumbles over.
//!
//! Pure. [`request::convert`] edits a request's body and says what its answer needs; [`stream::Stream`] edits an event
//! stream, [`answer::whole`] an answer that is no stream. What needs no change keeps its bytes.
//!
//! Cursor is not documented; what is known comes from recordings. One path gets a chat body, a Responses body, or a chat
//! body with habits of Anthropic's API. Tools may be custom ones (a text instead of JSON arguments) in the Responses
//! spelling. It wants chat chunks back, one finish reason and then at most usage and `[DONE]`; the text of a custom tool's
//! call as the `arguments` of a function call.

pub mod answer;
mod custom_input;
mod messages;
mod model;
pub mod request;
mod responses;
pub mod stream;
mod tools;

use super::model_glob::ModelGlobs;

/// What becomes of reasoning text in answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reasoning {
    /// `<think>…</think>` in front of the content; taken off again when it comes back in the history.
    Think,
    /// Dropped.
    Hide,
    /// As the upstream sends it.
    #[default]
    Keep,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub reasoning: Reasoning,
    /// Endings of model names (`-thinking-high`, `-fast`) become a reasoning effort.
    pub suffixes: bool,
    /// Models whose name ends so by itself.
    pub literal: ModelGlobs,
}

/// What must be remembered of a request until its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub reasoning: Reasoning,
    /// Names of custom tools that went up as functions.
    pub custom_tools: Vec<String>,
}
