//! What an upstream in the OpenAI format answers: the fields that a translation reads, and the shapes of them that are in
//! use beside the documented one.
//!
//! Every field may be missing or `null`, and a text or number of another type, as some server may have it, says nothing.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::Text;

/// An answer or a chunk of one.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer<'a> {
    #[serde(borrow)]
    pub(super) choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow)]
    pub(super) usage: Option<&'a RawValue>,
    /// An object or a text; the SDKs take anything truthy for a failure.
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
    /// Of embeddings.
    #[serde(borrow)]
    pub(super) data: Option<Vec<Embedding<'a>>>,
    /// `error`: so older vLLM tells a failure, with the message beside it.
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Choice<'a> {
    #[serde(borrow)]
    index: Option<&'a RawValue>,
    /// Of a stream.
    #[serde(borrow)]
    delta: Option<Said<'a>>,
    /// Of a whole answer.
    #[serde(borrow)]
    message: Option<Said<'a>>,
    /// Of a plain completion.
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) logprobs: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

/// A message, or a piece of one.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Said<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<Vec<CallPiece<'a>>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct CallPiece<'a> {
    #[serde(borrow)]
    pub(super) index: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) function: Option<FunctionPiece<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct FunctionPiece<'a> {
    #[serde(borrow)]
    pub(super) name: Option<&'a RawValue>,
    /// A string or, from some servers, the object itself.
    #[serde(borrow)]
    pub(super) arguments: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Embedding<'a> {
    #[serde(borrow)]
    pub(super) index: Option<&'a RawValue>,
    /// An array of numbers, or base64 of little-endian 32 bit ones.
    #[serde(borrow)]
    pub(super) embedding: Option<&'a RawValue>,
}

/// What an answer or a chunk says, without saying how.
#[derive(Default)]
pub(super) struct Spoken<'a> {
    pub(super) content: Cow<'a, str>,
    pub(super) thinking: Cow<'a, str>,
    pub(super) tool_calls: Vec<CallPiece<'a>>,
}

impl<'a> Choice<'a> {
    /// The one choice that was asked for; others are not shown.
    pub(super) fn is_first(&self) -> bool {
        whole_number(self.index).unwrap_or(0) == 0
    }

    /// Empty as long as the answer goes on.
    pub(super) fn finish_reason(&self) -> Cow<'a, str> {
        string(self.finish_reason)
    }

    pub(super) fn spoken(self) -> Spoken<'a> {
        let Some(said) = self.delta.or(self.message) else {
            return Spoken { content: string(self.text), ..Spoken::default() };
        };
        let mut spoken = Spoken::default();
        if let Some(content) = said.content {
            read_content(content, &mut spoken);
        }
        if spoken.content.is_empty() {
            // What a refusing model says in place of an answer.
            spoken.content = string(said.refusal);
        }
        if spoken.thinking.is_empty() {
            spoken.thinking = string(said.reasoning_content);
        }
        if spoken.thinking.is_empty() {
            spoken.thinking = string(said.reasoning);
        }
        spoken.tool_calls = said.tool_calls.unwrap_or_default();
        spoken
    }
}

/// Tokens counted by the upstream; `None` where it did not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt: Option<u64>,
    pub(super) completion: Option<u64>,
}

impl Usage {
    pub(super) fn read(raw: Option<&RawValue>) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Counts {
            prompt_tokens: Option<u64>,
            completion_tokens: Option<u64>,
        }
        let counts: Counts = raw.and_then(|raw| object(raw.get())).unwrap_or_default();
        Self { prompt: counts.prompt_tokens, completion: counts.completion_tokens }
    }

    /// A later count replaces an earlier one.
    pub(super) fn update(&mut self, later: Self) {
        self.prompt = later.prompt.or(self.prompt);
        self.completion = later.completion.or(self.completion);
    }
}

/// A JSON object of a known shape; `None` for everything else. (Derived readers would take an array as well.)
pub(super) fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    if text.trim_start().starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

/// The text of a failure; `None` for `null`, `false`, `0` and `""`, which say that nothing failed.
pub(super) fn failure<'a>(answer: &Answer<'a>) -> Option<&'a RawValue> {
    let told = answer.error.filter(|raw| !matches!(raw.get(), "null" | "false" | "0" | "\"\"" | "{}"));
    told.or(answer.message.filter(|_| answer.object.is_some_and(|object| object.get() == "\"error\"")))
}

/// A number that counts something; nothing else is one.
pub(super) fn whole_number(raw: Option<&RawValue>) -> Option<u64> {
    raw.and_then(|raw| raw.get().parse().ok())
}

/// A string; nothing else is one.
pub(super) fn string(raw: Option<&RawValue>) -> Cow<'_, str> {
    raw.filter(|raw| raw.get().starts_with('"'))
        .and_then(|raw| serde_json::from_str::<Text<'_>>(raw.get()).ok())
        .unwrap_or_default()
        .0
}

/// A string, or parts: Mistral's reasoning models put their thoughts into parts of the content.
fn read_content<'a>(raw: &'a RawValue, spoken: &mut Spoken<'a>) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Part<'a> {
        #[serde(borrow)]
        text: Option<&'a RawValue>,
        #[serde(borrow)]
        thinking: Option<&'a RawValue>,
    }
    if !raw.get().starts_with('[') {
        spoken.content = string(Some(raw));
        return;
    }
    let parts: Vec<&RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
    for part in parts {
        if part.get().starts_with('"') {
            spoken.content.to_mut().push_str(&string(Some(part)));
            continue;
        }
        let Some(part) = object::<Part<'_>>(part.get()) else { continue };
        spoken.content.to_mut().push_str(&string(part.text));
        let Some(thinking) = part.thinking else { continue };
        if thinking.get().starts_with('[') {
            let inner: Vec<Part<'_>> = serde_json::from_str(thinking.get()).unwrap_or_default();
            for part in inner {
                spoken.thinking.to_mut().push_str(&string(part.text));
            }
        } else {
            spoken.thinking.to_mut().push_str(&string(Some(thinking)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(delta: &str) -> (String, String) {
        let text = format!("{{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}");
        let answer: Answer<'_> = object(&text).unwrap();
        let spoken = answer.choices.unwrap().remove(0).spoken();
        (spoken.content.into_owned(), spoken.thinking.into_owned())
    }

    #[test]
    fn thoughts_come_under_several_names() {
        for (delta, content, thinking) in [
            (r#"{"content":"a"}"#, "a", ""),
            (r#"{"content":null,"reasoning_content":"t"}"#, "", "t"),
            (r#"{"content":"","reasoning":"t","reasoning_content":null}"#, "", "t"),
            (r#"{"content":"a","reasoning":"t","reasoning_content":"t"}"#, "a", "t"),
            (
                r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"t"}]},{"type":"text","text":"a"}]}"#,
                "a",
                "t",
            ),
            (r#"{"refusal":"I cannot."}"#, "I cannot.", ""),
            // Of another type: it says nothing.
            (r#"{"content":7,"reasoning":{"a":1}}"#, "", ""),
            ("{}", "", ""),
        ] {
            assert_eq!(spoken(delta), (content.to_owned(), thinking.to_owned()), "{delta}");
        }
    }

    #[test]
    fn an_array_is_no_answer() {
        assert!(object::<Answer<'_>>("[[],null,null,null]").is_none());
    }
}
