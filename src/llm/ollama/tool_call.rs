//! Tool calls: OpenAI's come as a string in pieces, Ollama's as an object at once.

use serde::Serialize;
use serde_json::value::RawValue;

use super::openai::{CallPiece, string, whole_number};

/// As Ollama has it.
#[derive(Debug, Serialize)]
pub(super) struct ToolCall {
    id: String,
    function: Function,
}

#[derive(Debug, Serialize)]
struct Function {
    index: usize,
    name: String,
    /// A JSON object, as the model wrote it.
    arguments: Box<RawValue>,
}

/// Calls that are still coming in.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    calls: Vec<Call>,
    /// Bytes held.
    size: usize,
}

#[derive(Debug, Default)]
struct Call {
    /// The upstream's number for it; `None` where it gives none.
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
}

/// A model that calls more than this, or with more than this, has lost its way.
const MOST_CALLS: usize = 512;
const MOST_BYTES: usize = 16 << 20;

/// Why the calls of an answer cannot be told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    TooMuch,
    NotAnObject,
}

impl Fault {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::TooMuch => "the upstream's tool calls are too large",
            Self::NotAnObject => "the upstream sent tool call arguments that are not a JSON object",
        }
    }
}

impl Gathered {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Takes in what a chunk says of a call.
    pub(super) fn add(&mut self, piece: &CallPiece<'_>) -> Result<(), Fault> {
        let function = piece.function.as_ref();
        let index = whole_number(piece.index);
        let id = string(piece.id);
        let name = string(function.and_then(|function| function.name));
        let arguments = function.and_then(|function| function.arguments);
        let at = match self.place(index, &id, &name) {
            Some(at) => at,
            None if self.calls.len() >= MOST_CALLS => return Err(Fault::TooMuch),
            None => {
                self.calls.push(Call { index, ..Call::default() });
                self.calls.len() - 1
            }
        };
        let Some(call) = self.calls.get_mut(at) else { return Ok(()) };
        let before = call.id.len() + call.name.len() + call.arguments.len();
        if call.id.is_empty() {
            call.id = id.into_owned();
        }
        if call.name.is_empty() {
            call.name = name.into_owned();
        }
        match arguments.map(RawValue::get) {
            Some(text) if text.starts_with('"') => call.arguments.push_str(&string(arguments)),
            Some(text) if text.starts_with('{') => text.clone_into(&mut call.arguments),
            _ => {}
        }
        self.size = (self.size + call.id.len() + call.name.len() + call.arguments.len()).saturating_sub(before);
        if self.size > MOST_BYTES { Err(Fault::TooMuch) } else { Ok(()) }
    }

    /// Which call a piece belongs to; `None` for a new one.
    ///
    /// The index says it, but some servers number every call 0 or none at all: then another id is another call, and a name
    /// begins one.
    fn place(&self, index: Option<u64>, id: &str, name: &str) -> Option<usize> {
        let at = match index {
            Some(_) => self.calls.iter().rposition(|call| call.index == index)?,
            None => self.calls.len().checked_sub(1)?,
        };
        let call = self.calls.get(at)?;
        let other_id = !id.is_empty() && !call.id.is_empty() && id != call.id;
        let begins = index.is_none() && id.is_empty() && !name.is_empty();
        (!(other_id && !name.is_empty() || begins)).then_some(at)
    }

    /// All calls, whole.
    ///
    /// `cut_off`: the answer ended at its longest. Then a call that is not whole is left out; else it is a fault.
    pub(super) fn finish(&mut self, cut_off: bool) -> Result<Vec<ToolCall>, Fault> {
        self.size = 0;
        let mut whole = Vec::with_capacity(self.calls.len());
        for (n, call) in std::mem::take(&mut self.calls).into_iter().enumerate() {
            let arguments = if call.arguments.trim().is_empty() { "{}".to_owned() } else { call.arguments };
            let is_object = arguments.trim_start().starts_with('{');
            match RawValue::from_string(arguments) {
                Ok(arguments) if is_object => {
                    let id = if call.id.is_empty() { format!("call{n:05}") } else { call.id };
                    let function = Function { index: whole.len(), name: call.name, arguments: single_line(&arguments) };
                    whole.push(ToolCall { id, function });
                }
                _ if cut_off => {}
                _ => return Err(Fault::NotAnObject),
            }
        }
        Ok(whole)
    }
}

/// A line of the answer must stay one line, so what was written over several is joined.
pub(super) fn single_line(raw: &RawValue) -> Box<RawValue> {
    let text = raw.get();
    if !text.contains(['\n', '\r']) {
        return raw.to_owned();
    }
    // Line ends stand between the tokens of valid JSON only, never inside a string.
    RawValue::from_string(text.replace(['\n', '\r'], " ")).unwrap_or_else(|_| raw.to_owned())
}
