//! Messages of a chat body: what Cursor leaves in them, and blocks of Anthropic's API, as chat completions have it.

use super::tools::{self, Arguments};
use super::{Plan, Reasoning};
use crate::llm::json_view::{Edit, Rewriter, Value, string};
use crate::llm::peek::Flaw;

/// Blocks that chat completions do not know.
const FOREIGN: [&str; 6] = ["tool_use", "tool_result", "thinking", "redacted_thinking", "image", "document"];

/// Edits one message in place, or puts others in its place.
pub(super) fn edit<'a>(rewriter: &mut Rewriter<'a>, message: Value<'a>, plan: &Plan) -> Result<Edit, Flaw> {
    let role = message.known("role")?.and_then(Value::text).unwrap_or_default();
    let mut cached = false;
    for block in message.known("content")?.into_iter().flat_map(Value::items) {
        let block = block?.value;
        let kind = block.known("type")?;
        if kind.is_some_and(|k| FOREIGN.iter().any(|f| k.is(f))) {
            return Ok(Edit::Replace(rebuild(message, &role)?));
        }
        cached |= block.get("cache_control")?.is_some();
    }
    let calls = message.known("tool_calls")?.is_some_and(|c| !c.is_empty());
    rewriter.members(message, |rewriter, member| {
        let value = member.value;
        match () {
            () if member.is("cache_control") => return Ok(Edit::Remove),
            () if member.is("content") && role == "assistant" && !cached => {
                if value.is_array() && value.is_empty() {
                    // Cursor's answer-less turns; refused by OpenAI.
                    rewriter.replace(value.span(), if calls { b"null" } else { b"\"\"" });
                } else if plan.reasoning == Reasoning::Think
                    && let Some(rest) = without_thoughts(value)
                {
                    rewriter.replace(value.span(), &rest);
                }
            }
            () if member.is("content") && cached && matches!(role.as_ref(), "system" | "developer") => {
                // One text is what every server takes from the system.
                match joined_text(value, b"\\n\\n")? {
                    Some(joined) => rewriter.replace(value.span(), &joined),
                    None => drop_cache_control(rewriter, value)?,
                }
            }
            () if member.is("content") && cached => drop_cache_control(rewriter, value)?,
            () if member.is("tool_calls") => {
                rewriter.items(value, |rewriter, call| {
                    tools::edit_call(rewriter, call, |name| plan.custom_tools.iter().any(|t| t == name))
                })?;
                return Ok(Edit::Keep);
            }
            () => {}
        }
        Ok(Edit::Keep)
    })?;
    Ok(Edit::Keep)
}

fn drop_cache_control<'a>(rewriter: &mut Rewriter<'a>, blocks: Value<'a>) -> Result<(), Flaw> {
    rewriter.items(blocks, |rewriter, block| {
        rewriter.members(block, |_, m| Ok(if m.is("cache_control") { Edit::Remove } else { Edit::Keep }))?;
        Ok(Edit::Keep)
    })
}

/// The content without the think block in front, as it was put there by an earlier answer.
pub(super) fn without_thoughts(content: Value<'_>) -> Option<Vec<u8>> {
    let text = content.text()?;
    let rest = text.trim_start().strip_prefix("<think>")?;
    let (_, said) = rest.split_once("</think>")?;
    let mut out = Vec::with_capacity(said.len() + 8);
    string(&mut out, said.trim_start().as_bytes());
    Some(out)
}

/// The texts of blocks that are all text, as one string; `None` when one is not.
fn joined_text(content: Value<'_>, between: &[u8]) -> Result<Option<Vec<u8>>, Flaw> {
    let mut out = vec![b'"'];
    for block in content.items() {
        let Some(text) = block?.value.known("text")?.and_then(Value::inner) else { return Ok(None) };
        if out.len() > 1 {
            out.extend_from_slice(between);
        }
        out.extend_from_slice(text);
    }
    out.push(b'"');
    Ok(Some(out))
}

/// The text of Anthropic's `system` field, or of a `tool_result`: a string, or blocks.
pub(super) fn text_of(value: Value<'_>, between: &[u8]) -> Result<Vec<u8>, Flaw> {
    if value.inner().is_some() {
        return Ok(value.raw().to_vec());
    }
    let mut out = vec![b'"'];
    for block in value.items() {
        let block = block?.value;
        if let Some(text) = block.known("text")?.and_then(Value::inner).or(block.inner()) {
            if out.len() > 1 {
                out.extend_from_slice(between);
            }
            out.extend_from_slice(text);
        }
    }
    out.push(b'"');
    Ok(out)
}

/// A message with Anthropic's blocks, as one or more messages.
fn rebuild(message: Value<'_>, role: &str) -> Result<Vec<u8>, Flaw> {
    let mut out = Vec::new();
    let content = message.known("content")?;
    if role == "assistant" {
        let (mut text, mut calls) = (Vec::new(), Vec::new());
        for block in content.into_iter().flat_map(Value::items) {
            let block = block?.value;
            let kind = block.known("type")?.and_then(Value::text).unwrap_or_default();
            match kind.as_ref() {
                "text" => text.extend_from_slice(block.known("text")?.and_then(Value::inner).unwrap_or_default()),
                "tool_use" => {
                    comma(&mut calls);
                    let input = Arguments::Object(block.known("input")?);
                    tools::call(&mut calls, block.known("id")?, block.known("name")?, input);
                }
                _ => {}
            }
        }
        assistant(&mut out, &text, &calls);
        return Ok(out);
    }
    let mut parts = Vec::new();
    let (blocks, role) = if role == "tool" {
        answer_of_tool(&mut out, &mut parts, message.known("tool_call_id")?, content)?;
        (None, "user")
    } else {
        (content, role)
    };
    for block in blocks.into_iter().flat_map(Value::items) {
        let block = block?.value;
        let kind = block.known("type")?.and_then(Value::text).unwrap_or_default();
        if kind == "tool_result" {
            answer_of_tool(&mut out, &mut parts, block.known("tool_use_id")?, block.known("content")?)?;
        } else {
            part(&mut parts, block)?;
        }
    }
    if !parts.is_empty() || out.is_empty() {
        comma(&mut out);
        out.extend_from_slice(b"{\"role\":");
        string(&mut out, role.as_bytes());
        out.extend_from_slice(b",\"content\":[");
        out.extend_from_slice(&parts);
        out.extend_from_slice(b"]}");
    }
    Ok(out)
}

/// A tool's answer. Its message holds text alone: its images go with the user's words behind it.
fn answer_of_tool(
    out: &mut Vec<u8>,
    parts: &mut Vec<u8>,
    id: Option<Value<'_>>,
    content: Option<Value<'_>>,
) -> Result<(), Flaw> {
    comma(out);
    let text = content.map(|c| text_of(c, b"\\n")).transpose()?.unwrap_or_else(|| b"\"\"".to_vec());
    tool_result(out, id, &text);
    for block in content.into_iter().flat_map(Value::items) {
        let block = block?.value;
        if block.known("type")?.is_some_and(|k| !k.is("text")) {
            part(parts, block)?;
        }
    }
    Ok(())
}

/// An assistant's turn: the inside of its text, and its calls with commas between.
pub(super) fn assistant(out: &mut Vec<u8>, text: &[u8], calls: &[u8]) {
    out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":");
    if text.is_empty() && !calls.is_empty() {
        out.extend_from_slice(b"null");
    } else {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    }
    if !calls.is_empty() {
        out.extend_from_slice(b",\"tool_calls\":[");
        out.extend_from_slice(calls);
        out.push(b']');
    }
    out.push(b'}');
}

/// A tool's answer; `text` with its quotes.
pub(super) fn tool_result(out: &mut Vec<u8>, id: Option<Value<'_>>, text: &[u8]) {
    out.extend_from_slice(b"{\"role\":\"tool\",\"tool_call_id\":");
    out.extend_from_slice(id.map_or(b"\"\"", Value::raw));
    out.extend_from_slice(b",\"content\":");
    out.extend_from_slice(text);
    out.push(b'}');
}

/// One part of a user's message: Anthropic's text, image or document.
fn part(out: &mut Vec<u8>, block: Value<'_>) -> Result<(), Flaw> {
    let kind = block.known("type")?.and_then(Value::text).unwrap_or_default();
    let source = block.known("source")?;
    let mut made = Vec::new();
    match (kind.as_ref(), source) {
        ("text", _) => {
            if let Some(text) = block.known("text")? {
                made = [&b"{\"type\":\"text\",\"text\":"[..], text.raw(), b"}"].concat();
            }
        }
        ("image", Some(source)) => {
            if let Some(url) = url_of(source)? {
                made = [&b"{\"type\":\"image_url\",\"image_url\":{\"url\":\""[..], &url, b"\"}}"].concat();
            }
        }
        ("document", Some(source)) => {
            if source.known("type")?.is_some_and(|t| t.is("text")) {
                if let Some(text) = source.known("data")? {
                    made = [&b"{\"type\":\"text\",\"text\":"[..], text.raw(), b"}"].concat();
                }
            } else if let Some(url) = url_of(source)? {
                made = [
                    &b"{\"type\":\"file\",\"file\":{\"filename\":\"document.pdf\",\"file_data\":\""[..],
                    &url,
                    b"\"}}",
                ]
                .concat();
            }
        }
        ("thinking" | "redacted_thinking" | "image" | "document", _) => {}
        // One of chat completions among them.
        _ => {
            let mut rewriter = Rewriter::new(block);
            rewriter.members(block, |_, m| Ok(if m.is("cache_control") { Edit::Remove } else { Edit::Keep }))?;
            made = rewriter.finish().unwrap_or_else(|| block.raw().to_vec());
        }
    }
    if !made.is_empty() {
        comma(out);
        out.extend_from_slice(&made);
    }
    Ok(())
}

/// The inside of a URL string: data in base64 becomes a data URL.
fn url_of(source: Value<'_>) -> Result<Option<Vec<u8>>, Flaw> {
    if let Some(url) = source.known("url")?.and_then(Value::inner) {
        return Ok(Some(url.to_vec()));
    }
    let media = source.known("media_type")?.and_then(Value::inner);
    let data = source.known("data")?.and_then(Value::inner);
    Ok(media.zip(data).map(|(media, data)| [b"data:", media, b";base64,", data].concat()))
}

pub(super) fn comma(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b',');
    }
}
