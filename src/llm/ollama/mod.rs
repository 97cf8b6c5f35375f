//! Ollama's API in terms of OpenAI's: requests one way, answers the other, and what a model list has to say to be believed.
//!
//! ```text
//! body of /api/chat --request::chat--> Ask { path, body, plan } --> an OpenAI-compatible upstream
//!                                   \-> Immediate (load, unload: nothing to ask)
//! its answer  --response::whole (not streamed)--> one JSON object
//!             --stream::Stream  (SSE events)  --> JSON objects, one a line
//!             --errors::translate (not 2xx)   --> {"error":"…"}
//! its model list --discovery--> /api/tags, /api/ps, /api/show
//! ```
//!
//! Pure: a moment is an argument, never asked of a clock. What Ollama's server does is said after its source of August
//! 2026; where an upstream cannot do it, the page of `request` says what is left out.

pub mod discovery;
pub mod errors;
mod image;
mod line;
mod logprob;
mod message;
mod openai;
mod option;
pub mod request;
pub mod response;
pub mod stream;
#[cfg(test)]
mod tests;
mod text;
mod tool_call;

use std::time::{Duration, SystemTime};

/// `content-type` of a streamed answer: one JSON object a line.
pub const NDJSON: &str = "application/x-ndjson";

/// `content-type` of every other answer.
pub const JSON: &str = "application/json; charset=utf-8";

/// What `/` answers, as text.
pub const RUNNING: &str = "Ollama is running";

/// When something happened: Ollama's lines carry the time of day and how long it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub wall: SystemTime,
    /// Since the client's request came in.
    pub elapsed: Duration,
}

/// What a request asked for, as far as the translation of its answer depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// As the client named it, which its answer repeats.
    pub model: String,
    pub kind: Kind,
    /// Lines as they come, or one object at the end.
    pub stream: bool,
    /// What the model thought is shown; dropped when the client said `"think":false`.
    pub thinking: bool,
    pub logprobs: bool,
}

/// Which of the four a request is, and so what its answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Chat,
    /// Asked as a chat.
    Generate,
    /// `raw` or with a `suffix`: asked as a plain completion.
    Complete,
    Embed,
    /// The old `/api/embeddings`: one vector.
    Embeddings,
}

/// How Ollama lists a model: with a tag. Open WebUI looks for `NAME:latest` in the list when it asks for `NAME`.
pub fn listed_name(id: &str) -> String {
    let tagged = id.rsplit('/').next().is_some_and(|last| last.contains(':'));
    if tagged { id.to_owned() } else { format!("{id}:latest") }
}

/// The model that a client of Ollama means, as an upstream in the OpenAI format names it: without the tag that
/// [`listed_name`] adds. Holds for the `/v1` routes of an Ollama mount too.
pub fn upstream_name(name: &str) -> &str {
    name.strip_suffix(":latest").unwrap_or(name)
}
