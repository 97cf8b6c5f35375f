//! Tools and the choice among them, in the spellings of the Responses API and of Anthropic's, as chat completions have them.

use super::custom_input;
use crate::llm::json_view::{Edit, Rewriter, Value, escape};
use crate::llm::peek::Flaw;

/// What a tool becomes.
pub(super) enum Tool {
    /// It is one of chat completions already.
    AsIs,
    Function(Vec<u8>),
    /// A custom tool as a function, with its name.
    Custom(String, Vec<u8>),
    /// Runs at a provider that is not asked: web search and the like.
    BuiltIn,
}

pub(super) fn tool(value: Value<'_>) -> Result<Tool, Flaw> {
    let kind = value.known("type")?;
    if kind.is_some_and(|k| k.is("custom")) {
        // Chat completions nest it, the Responses API does not.
        return custom(value.known("custom")?.unwrap_or(value));
    }
    let function = kind.is_none_or(|k| k.is("function"));
    if !function {
        return Ok(Tool::BuiltIn);
    }
    if let Some(inner) = value.known("function")? {
        let mut rewriter = Rewriter::new(value);
        rewriter.members(value, |_, m| Ok(if m.is("cache_control") { Edit::Remove } else { Edit::Keep }))?;
        return Ok(match rewriter.finish() {
            Some(edited) if inner.is_object() => Tool::Function(edited),
            _ => Tool::AsIs,
        });
    }
    if value.known("name")?.is_none() {
        return Ok(Tool::AsIs);
    }
    let mut out = br#"{"type":"function","function":{"#.to_vec();
    let mut first = true;
    for member in value.members() {
        let member = member?;
        let name = match () {
            () if member.is_one_of(&["name", "description", "parameters", "strict"]) => None,
            () if member.is("input_schema") => Some(&b"\"parameters\""[..]),
            () => continue,
        };
        // `strict: null` is refused where a boolean is expected.
        if member.value.is_null() {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        match name {
            None => out.extend_from_slice(member.raw()),
            Some(name) => out.extend_from_slice(&[name, b":", member.value.raw()].concat()),
        }
    }
    out.extend_from_slice(b"}}");
    Ok(Tool::Function(out))
}

/// A tool that takes a text: a function with one string. The grammar of the text goes into the description.
fn custom(value: Value<'_>) -> Result<Tool, Flaw> {
    let Some(name) = value.known("name")?.filter(|n| n.text().is_some()) else { return Ok(Tool::AsIs) };
    let description = value.known("description")?.and_then(Value::inner).unwrap_or_default();
    let mut out =
        [&b"{\"type\":\"function\",\"function\":{\"name\":"[..], name.raw(), b",\"description\":\"", description]
            .concat();
    if let Some(format) = value.known("format")? {
        // Flat, or nested as in chat completions.
        let grammar = format.known("grammar")?.filter(|g| g.is_object()).unwrap_or(format);
        if let Some(definition) = grammar.known("definition")?.and_then(Value::inner) {
            let syntax = grammar.known("syntax")?.and_then(Value::inner).unwrap_or(b"lark");
            out.extend_from_slice(b"\\n\\nThe input must follow this grammar (");
            out.extend_from_slice(syntax);
            out.extend_from_slice(b"):\\n");
            out.extend_from_slice(definition);
        }
    }
    out.extend_from_slice(
        br#"","parameters":{"type":"object","properties":{"input":{"type":"string","description":"The whole text that the tool takes."}},"required":["input"],"additionalProperties":false}}}"#,
    );
    Ok(Tool::Custom(name.text().unwrap_or_default().into_owned(), out))
}

/// What a choice of tool becomes.
pub(super) enum Choice {
    AsIs,
    Replace(Vec<u8>),
    /// Names a tool that chat completions do not have.
    Drop,
}

/// Also says whether parallel calls are switched off, which Anthropic's API has in the choice.
pub(super) fn choice(value: Value<'_>) -> Result<(Choice, bool), Flaw> {
    if !value.is_object() {
        return Ok((Choice::AsIs, false));
    }
    let serial = value.known("disable_parallel_tool_use")?.is_some_and(Value::is_true);
    let kind = value.known("type")?.and_then(Value::text).unwrap_or_default();
    let choice = match kind.as_ref() {
        "auto" => Choice::Replace(b"\"auto\"".to_vec()),
        "any" | "required" => Choice::Replace(b"\"required\"".to_vec()),
        "none" => Choice::Replace(b"\"none\"".to_vec()),
        "tool" | "function" | "custom" => {
            let nested = value.known(&kind)?.map(|inner| inner.known("name")).transpose()?.flatten();
            match (value.known("name")?.or(nested), kind.as_ref()) {
                // As chat completions have it.
                (_, "function") if nested.is_some() => Choice::AsIs,
                (Some(name), _) => {
                    let parts = [&b"{\"type\":\"function\",\"function\":{\"name\":"[..], name.raw(), b"}}"];
                    Choice::Replace(parts.concat())
                }
                (None, _) => Choice::AsIs,
            }
        }
        "allowed_tools" => Choice::AsIs,
        _ => Choice::Drop,
    };
    Ok((choice, serial))
}

/// A call in the history, as chat completions have it: `id`, `name` and `input` or `arguments` as they stand.
pub(super) fn call(out: &mut Vec<u8>, id: Option<Value<'_>>, name: Option<Value<'_>>, arguments: Arguments<'_>) {
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(id.map_or(b"\"\"", Value::raw));
    out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
    out.extend_from_slice(name.map_or(b"\"\"", Value::raw));
    out.extend_from_slice(b",\"arguments\":");
    match arguments {
        Arguments::Text(Some(text)) if text.inner().is_some() => out.extend_from_slice(text.raw()),
        Arguments::Custom(Some(text)) => custom_input::wrapped(out, text.inner().unwrap_or_default()),
        Arguments::Object(Some(object)) | Arguments::Text(Some(object)) => {
            out.push(b'"');
            escape(out, object.raw());
            out.push(b'"');
        }
        Arguments::Custom(None) => custom_input::wrapped(out, b""),
        Arguments::Text(None) | Arguments::Object(None) => out.extend_from_slice(b"\"{}\""),
    }
    out.extend_from_slice(b"}}");
}

pub(super) enum Arguments<'a> {
    /// A JSON text in a string.
    Text(Option<Value<'a>>),
    /// A JSON value.
    Object(Option<Value<'a>>),
    /// The text of a custom tool.
    Custom(Option<Value<'a>>),
}

/// A call as Cursor sends it back in `tool_calls`: without `index`, and the text of a custom tool as a function's arguments.
pub(super) fn edit_call<'a>(
    rewriter: &mut Rewriter<'a>,
    value: Value<'a>,
    is_custom: impl Fn(&str) -> bool,
) -> Result<Edit, Flaw> {
    if let Some(custom) = value.known("custom")?.filter(|c| c.is_object()) {
        let mut out = Vec::new();
        call(&mut out, value.known("id")?, custom.known("name")?, Arguments::Custom(custom.known("input")?));
        return Ok(Edit::Replace(out));
    }
    let function = value.known("function")?;
    let name = function.map(|f| f.known("name")).transpose()?.flatten().and_then(Value::text);
    let custom = name.is_some_and(|name| is_custom(&name));
    rewriter.members(value, |rewriter, member| {
        if member.is("index") {
            return Ok(Edit::Remove);
        }
        if custom && member.is("function") {
            rewriter.members(member.value, |_, m| {
                let text = m.value.inner().filter(|_| m.is("arguments") && !is_object_text(m.value));
                let Some(text) = text else { return Ok(Edit::Keep) };
                let mut with = b"\"arguments\":".to_vec();
                custom_input::wrapped(&mut with, text);
                Ok(Edit::Replace(with))
            })?;
        }
        Ok(Edit::Keep)
    })?;
    Ok(Edit::Keep)
}

/// Whether a string holds a JSON object: then the arguments are those of a function already.
fn is_object_text(value: Value<'_>) -> bool {
    value.text().is_some_and(|t| Value::parse(t.as_bytes()).is_ok_and(Value::is_object))
}
