//! A body of the Responses API as one of chat completions.

use super::messages::{assistant, comma, text_of, tool_result};
use super::model::is_strict;
use super::request::{Refused, note};
use super::tools::{self, Arguments, Choice, Tool};
use super::{Options, Plan, model};
use crate::llm::json_view::{Value, string};
use crate::llm::peek::Flaw;

/// Fields that are handled apart, or have no meaning in chat completions. All others keep their name and bytes.
const NOT_COPIED: [&str; 25] = [
    "background",
    "context_management",
    "conversation",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "messages",
    "metadata",
    "model",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "reasoning",
    "reasoning_effort",
    "stream_options",
    "system",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "truncation",
    "verbosity",
];

/// The chat body. Tools that went up as functions are noted in the plan.
pub(super) fn convert(root: Value<'_>, options: &Options, plan: &mut Plan) -> Result<Vec<u8>, Refused> {
    for field in ["previous_response_id", "conversation", "prompt"] {
        if root.known(field)?.is_some() {
            return Err(Refused::Stateful(field));
        }
    }
    let name = root.known("model")?.and_then(Value::text).unwrap_or_default();
    let (bare, effort) = model::split(&name, options).map_or((&*name, None), |(bare, effort)| (bare, Some(effort)));
    let strict = is_strict(bare);
    let mut out = Object::new();
    if let Some(model) = root.known("model")? {
        if effort.is_some() {
            let mut quoted = Vec::new();
            string(&mut quoted, bare.as_bytes());
            out.field("model", &quoted);
        } else {
            out.field("model", model.raw());
        }
    }
    // The tools come first: calls in the history go by what they are.
    let (tools, any) = tools_of(root, plan)?;
    out.field("messages", &messages(root, plan)?);
    if any {
        out.field("tools", &tools);
        if let Some(choice) = root.known("tool_choice")? {
            match tools::choice(choice)?.0 {
                Choice::AsIs => out.field("tool_choice", choice.raw()),
                Choice::Replace(with) => out.field("tool_choice", &with),
                Choice::Drop => {}
            }
        }
        if let Some(parallel) = root.known("parallel_tool_calls")? {
            out.field("parallel_tool_calls", parallel.raw());
        }
    }
    if let Some(tokens) = root.known("max_output_tokens")? {
        out.field(if strict { "max_completion_tokens" } else { "max_tokens" }, tokens.raw());
    }
    let asked = root.known("reasoning")?.map(|r| r.known("effort")).transpose()?.flatten();
    match (effort, asked.or(root.known("reasoning_effort")?)) {
        (Some(effort), _) => out.field("reasoning_effort", format!("\"{effort}\"").as_bytes()),
        (None, Some(effort)) => out.field("reasoning_effort", effort.raw()),
        (None, None) => {}
    }
    if let Some(temperature) = root.known("temperature")?.filter(|t| !strict || is_one(*t)) {
        out.field("temperature", temperature.raw());
    }
    if let Some(text) = root.known("text")? {
        if let Some(format) = text.known("format")? {
            response_format(&mut out, format)?;
        }
        if let Some(verbosity) = text.known("verbosity")?.filter(|_| strict) {
            out.field("verbosity", verbosity.raw());
        }
    }
    let streams = root.known("stream")?.is_some_and(Value::is_true);
    if let Some(stream_options) = root.known("stream_options")?.filter(|_| streams) {
        out.field("stream_options", stream_options.raw());
    }
    // OpenAI takes metadata only with what it stores.
    if root.known("store")?.is_some_and(Value::is_true)
        && let Some(metadata) = root.known("metadata")?
    {
        out.field("metadata", metadata.raw());
    }
    for member in root.members() {
        let member = member?;
        if !member.is_one_of(&NOT_COPIED) && !member.value.is_null() {
            out.raw(member.raw());
        }
    }
    Ok(out.end())
}

/// 1, however it is written: the one temperature that reasoning models take.
pub(super) fn is_one(value: Value<'_>) -> bool {
    let number = std::str::from_utf8(value.raw()).ok().and_then(|t| t.parse::<f64>().ok());
    number.is_some_and(|n| (n - 1.0).abs() < f64::EPSILON)
}

/// The list of tools, and whether there is one in it.
fn tools_of(root: Value<'_>, plan: &mut Plan) -> Result<(Vec<u8>, bool), Refused> {
    let mut list = Vec::new();
    for tool in root.known("tools")?.into_iter().flat_map(Value::items) {
        let tool = tool?.value;
        let made = match tools::tool(tool)? {
            Tool::AsIs => tool.raw().to_vec(),
            Tool::Function(made) => made,
            Tool::Custom(name, made) => {
                note(plan, name)?;
                made
            }
            Tool::BuiltIn => continue,
        };
        comma(&mut list);
        list.extend_from_slice(&made);
    }
    let any = !list.is_empty();
    Ok(([b"[", &list[..], b"]"].concat(), any))
}

fn response_format(out: &mut Object, format: Value<'_>) -> Result<(), Flaw> {
    let kind = format.known("type")?.and_then(Value::text).unwrap_or_default();
    match kind.as_ref() {
        "json_object" => out.field("response_format", b"{\"type\":\"json_object\"}"),
        "json_schema" => {
            let mut schema = Object::new();
            for member in format.members() {
                let member = member?;
                if !member.is("type") && !member.value.is_null() {
                    schema.raw(member.raw());
                }
            }
            let schema = schema.end();
            out.field("response_format", &[&b"{\"type\":\"json_schema\",\"json_schema\":"[..], &schema, b"}"].concat());
        }
        _ => {}
    }
    Ok(())
}

/// The messages: instructions, then the items of the input.
fn messages(root: Value<'_>, plan: &Plan) -> Result<Vec<u8>, Refused> {
    let mut turns = Turns { think: plan.reasoning == super::Reasoning::Think, ..Turns::default() };
    for field in ["instructions", "system"] {
        if let Some(text) = root.known(field)? {
            turns.message(b"\"system\"", &text_of(text, b"\\n\\n")?);
        }
    }
    if let Some(input) = root.known("input")? {
        if input.inner().is_some() {
            turns.message(b"\"user\"", input.raw());
        }
        for item in input.items() {
            turns.item(item?.value, plan)?;
        }
    }
    turns.flush();
    Ok([b"[", &turns.out[..], b"]"].concat())
}

/// Messages in the making. Calls follow the assistant's text in one message, and answers of tools follow their calls.
#[derive(Default)]
struct Turns {
    out: Vec<u8>,
    /// An assistant's turn that is not written yet: the inside of its text, its calls.
    said: Option<Vec<u8>>,
    calls: Vec<u8>,
    /// Images that tools gave: a tool's message holds text alone.
    images: Vec<u8>,
    /// Take the think block off the assistant's text.
    think: bool,
}

impl Turns {
    fn item(&mut self, item: Value<'_>, plan: &Plan) -> Result<(), Refused> {
        let kind = item.known("type")?.and_then(Value::text).unwrap_or_default();
        match kind.as_ref() {
            "" | "message" => self.said_by(item)?,
            "function_call" => {
                let arguments = item.known("arguments")?;
                let name = item.known("name")?;
                let custom = name.and_then(Value::text).is_some_and(|n| plan.custom_tools.iter().any(|t| *t == n));
                self.call(item, if custom { Arguments::Custom(arguments) } else { Arguments::Text(arguments) })?;
            }
            "custom_tool_call" => self.call(item, Arguments::Custom(item.known("input")?))?,
            "function_call_output" | "custom_tool_call_output" => {
                self.end_turn();
                let output = item.known("output")?;
                let text = match output {
                    Some(output) if output.is_array() || output.inner().is_some() => text_of(output, b"\\n")?,
                    Some(other) => {
                        let mut text = Vec::new();
                        string(&mut text, other.raw());
                        text
                    }
                    None => b"\"\"".to_vec(),
                };
                comma(&mut self.out);
                tool_result(&mut self.out, item.known("call_id")?, &text);
                for part in output.into_iter().flat_map(Value::items) {
                    let part = part?.value;
                    if part.known("type")?.is_some_and(|k| k.is("input_image")) {
                        push_part(&mut self.images, part)?;
                    }
                }
            }
            "item_reference" => return Err(Refused::Stateful("item_reference")),
            // Reasoning, and calls that ran at the provider: chat completions have no place for them.
            _ => {}
        }
        Ok(())
    }

    fn call(&mut self, item: Value<'_>, arguments: Arguments<'_>) -> Result<(), Flaw> {
        self.flush_images();
        comma(&mut self.calls);
        let id = item.known("call_id")?.or(item.known("id")?);
        tools::call(&mut self.calls, id, item.known("name")?, arguments);
        Ok(())
    }

    fn said_by(&mut self, item: Value<'_>) -> Result<(), Flaw> {
        let role = item.known("role")?;
        let content = item.known("content")?;
        if role.is_some_and(|r| r.is("assistant")) {
            self.flush_images();
            // A text behind calls is another turn.
            if !self.calls.is_empty() {
                self.end_turn();
            }
            let text = match content {
                Some(content) => text_of(content, b"")?,
                None => b"\"\"".to_vec(),
            };
            let rest =
                if self.think { super::messages::without_thoughts(Value::at(&text, 0..text.len())) } else { None };
            let text = rest.unwrap_or(text);
            let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
            self.said.get_or_insert_default().extend_from_slice(inner);
            return Ok(());
        }
        self.flush();
        let system = role.is_some_and(|r| r.is("system") || r.is("developer"));
        let role = role.map_or(&b"\"user\""[..], Value::raw);
        match content {
            // Not every server takes parts from the system, nor a developer.
            Some(content) if system => self.message(b"\"system\"", &text_of(content, b"\\n\\n")?),
            Some(content) if content.is_array() => {
                let mut parts = Vec::new();
                for part in content.items() {
                    push_part(&mut parts, part?.value)?;
                }
                self.message(role, &[b"[", &parts[..], b"]"].concat());
            }
            Some(content) => self.message(role, content.raw()),
            None => {}
        }
        Ok(())
    }

    fn message(&mut self, role: &[u8], content: &[u8]) {
        comma(&mut self.out);
        self.out.extend_from_slice(&[b"{\"role\":", role, b",\"content\":", content, b"}"].concat());
    }

    /// Writes the assistant's turn.
    fn end_turn(&mut self) {
        if self.said.is_some() || !self.calls.is_empty() {
            comma(&mut self.out);
            let said = self.said.take().unwrap_or_default();
            assistant(&mut self.out, &said, &std::mem::take(&mut self.calls));
        }
    }

    fn flush_images(&mut self) {
        let images = std::mem::take(&mut self.images);
        if !images.is_empty() {
            self.message(b"\"user\"", &[b"[", &images[..], b"]"].concat());
        }
    }

    fn flush(&mut self) {
        self.end_turn();
        self.flush_images();
    }
}

/// A part of a message in the spelling of chat completions.
fn push_part(out: &mut Vec<u8>, part: Value<'_>) -> Result<(), Flaw> {
    let kind = part.known("type")?.and_then(Value::text).unwrap_or_default();
    let mut made = Vec::new();
    match kind.as_ref() {
        "input_text" | "output_text" | "text" => {
            if let Some(text) = part.known("text")? {
                made = [&b"{\"type\":\"text\",\"text\":"[..], text.raw(), b"}"].concat();
            }
        }
        "input_image" => {
            if let Some(url) = part.known("image_url")? {
                let mut image = Object::new();
                image.field("url", url.raw());
                if let Some(detail) = part.known("detail")? {
                    image.field("detail", detail.raw());
                }
                made = [&b"{\"type\":\"image_url\",\"image_url\":"[..], &image.end(), b"}"].concat();
            }
        }
        "input_file" => {
            let mut file = Object::new();
            for member in part.members() {
                let member = member?;
                if member.is_one_of(&["filename", "file_data", "file_id"]) && !member.value.is_null() {
                    file.raw(member.raw());
                }
            }
            made = [&b"{\"type\":\"file\",\"file\":"[..], &file.end(), b"}"].concat();
        }
        // As chat completions have it.
        _ => made.extend_from_slice(part.raw()),
    }
    if !made.is_empty() {
        comma(out);
        out.extend_from_slice(&made);
    }
    Ok(())
}

/// A JSON object in the making.
struct Object(Vec<u8>);

impl Object {
    fn new() -> Self {
        Self(vec![b'{'])
    }

    /// `"name":value`, as it stands.
    fn raw(&mut self, member: &[u8]) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.extend_from_slice(member);
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        self.raw(&[b"\"", name.as_bytes(), b"\":", value].concat());
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}
