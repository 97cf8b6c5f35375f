//! Messages of a conversation, Ollama's to OpenAI's: images become content parts, the arguments of a tool call a string,
//! and every tool's answer names its call.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::image::{DataUrl, data_url};
use super::request::BadRequest;
use super::text::Text;

/// As a client of Ollama writes it. What the model thought (`thinking`) is not sent back: no field of OpenAI's takes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) role: Text<'a>,
    #[serde(borrow)]
    pub(super) content: Text<'a>,
    #[serde(borrow)]
    pub(super) images: Option<Vec<Text<'a>>>,
    #[serde(borrow)]
    tool_calls: Option<Vec<ToolCall<'a>>>,
    #[serde(borrow)]
    tool_call_id: Text<'a>,
    #[serde(borrow)]
    tool_name: Text<'a>,
    /// The older name of `tool_name`.
    #[serde(borrow)]
    name: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ToolCall<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    function: Option<Function<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Function<'a> {
    #[serde(borrow)]
    name: Text<'a>,
    /// An object; a string, as OpenAI has it, is taken too.
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

/// As OpenAI has it.
#[derive(Serialize)]
pub(super) struct Sent<'m> {
    role: Cow<'m, str>,
    content: Content<'m>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<SentCall<'m>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<Cow<'m, str>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'m> {
    Text(&'m str),
    Parts(Vec<Part<'m>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Part<'m> {
    Text { text: &'m str },
    ImageUrl { image_url: ImageUrl<'m> },
}

#[derive(Serialize)]
struct ImageUrl<'m> {
    url: DataUrl<'m>,
}

#[derive(Serialize)]
struct SentCall<'m> {
    id: Cow<'m, str>,
    r#type: &'static str,
    function: SentFunction<'m>,
}

#[derive(Serialize)]
struct SentFunction<'m> {
    name: &'m str,
    arguments: Cow<'m, str>,
}

/// A message without history: that of `/api/generate`.
pub(super) fn plain<'m>(role: &'static str, text: &'m str, images: &'m [Text<'m>]) -> Result<Sent<'m>, BadRequest> {
    let content = content(text, images)?;
    Ok(Sent { role: Cow::Borrowed(role), content, tool_calls: Vec::new(), tool_call_id: None })
}

/// Fails on an image or arguments that cannot be sent on.
pub(super) fn translate<'m>(messages: &'m [Message<'m>]) -> Result<Vec<Sent<'m>>, BadRequest> {
    let mut calls = Calls::default();
    messages.iter().map(|message| one(message, &mut calls)).collect()
}

fn one<'m>(message: &'m Message<'m>, calls: &mut Calls<'m>) -> Result<Sent<'m>, BadRequest> {
    let role = message.role.as_str();
    let role = if role.bytes().any(|c| c.is_ascii_uppercase()) {
        Cow::Owned(role.to_ascii_lowercase())
    } else {
        Cow::Borrowed(role)
    };
    let asked = message.tool_calls.as_deref().unwrap_or_default();
    if !asked.is_empty() {
        calls.open.clear();
    }
    let tool_calls = asked.iter().map(|call| sent_call(call, calls)).collect::<Result<_, _>>()?;
    let tool_call_id = if role == "tool" {
        let name = message.tool_name.said().unwrap_or(message.name.as_str());
        Some(calls.answered(message.tool_call_id.said(), name))
    } else {
        None
    };
    let content = content(message.content.as_str(), message.images.as_deref().unwrap_or_default())?;
    Ok(Sent { role, content, tool_calls, tool_call_id })
}

fn content<'m>(text: &'m str, images: &'m [Text<'m>]) -> Result<Content<'m>, BadRequest> {
    if images.is_empty() {
        return Ok(Content::Text(text));
    }
    let mut parts = Vec::with_capacity(1 + images.len());
    if !text.is_empty() {
        parts.push(Part::Text { text });
    }
    for image in images {
        parts.push(Part::ImageUrl { image_url: ImageUrl { url: data_url(image.as_str())? } });
    }
    Ok(Content::Parts(parts))
}

fn sent_call<'m>(call: &'m ToolCall<'m>, calls: &mut Calls<'m>) -> Result<SentCall<'m>, BadRequest> {
    let Some(function) = &call.function else {
        return Err(BadRequest::new("a tool call has no function"));
    };
    let name = function.name.as_str();
    let id = calls.asked(call.id.said(), name);
    let arguments = arguments(function.arguments)?;
    Ok(SentCall { id, r#type: "function", function: SentFunction { name, arguments } })
}

fn arguments(raw: Option<&RawValue>) -> Result<Cow<'_, str>, BadRequest> {
    let Some(raw) = raw else { return Ok(Cow::Borrowed("{}")) };
    let text = raw.get();
    match text.as_bytes().first() {
        Some(b'{') => Ok(Cow::Borrowed(text)),
        Some(b'"') => serde_json::from_str(text).map(Cow::Owned).map_err(|e| BadRequest::json(&e)),
        _ => Err(BadRequest::new("the arguments of a tool call must be an object")),
    }
}

/// Which calls still wait for their answer, by id and name. Where ids are missing they are made, in order.
#[derive(Default)]
struct Calls<'m> {
    open: VecDeque<(Cow<'m, str>, &'m str)>,
    made: u32,
}

impl<'m> Calls<'m> {
    fn asked(&mut self, id: Option<&'m str>, name: &'m str) -> Cow<'m, str> {
        let id = id.map_or_else(|| self.make(), Cow::Borrowed);
        self.open.push_back((id.clone(), name));
        id
    }

    /// The call that an answer belongs to: by its id, else the first open one of that name, else the first open one.
    fn answered(&mut self, id: Option<&'m str>, name: &str) -> Cow<'m, str> {
        let of_id = id.and_then(|id| self.open.iter().position(|(open, _)| open == id));
        if let Some(id) = id {
            if let Some(at) = of_id {
                self.open.remove(at);
            }
            return Cow::Borrowed(id);
        }
        let at = self.open.iter().position(|(_, open)| *open == name).unwrap_or(0);
        match self.open.remove(at) {
            Some((id, _)) => id,
            None => self.make(),
        }
    }

    /// Nine letters and digits, which is what Mistral asks of an id.
    fn make(&mut self) -> Cow<'m, str> {
        let id = format!("call{:05}", self.made);
        self.made += 1;
        Cow::Owned(id)
    }
}
