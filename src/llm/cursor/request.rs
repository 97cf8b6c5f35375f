//! A request to the chat path, in one of three shapes: what goes up is chat completions.

use super::responses::{self, is_one};
use super::tools::{self, Choice, Tool};
use super::{Options, Plan, messages, model};
use crate::llm::json_view::{Edit, Rewriter, Value, string};
use crate::llm::peek::{self, Flaw};

/// Why a body cannot go up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A field that decides what goes up comes twice.
    Duplicate,
    /// It refers to what an earlier answer left at the provider; chat completions keep nothing.
    Stateful(&'static str),
    /// More custom tools than anybody has.
    TooManyTools,
    /// Broken inside.
    Malformed,
}

impl Refused {
    /// What the client is told.
    #[must_use]
    pub fn message(self) -> String {
        match self {
            Self::Duplicate => "The request body has a field twice.".to_owned(),
            Self::Stateful(field) => {
                format!("`{field}` cannot be used here: send the whole conversation, nothing is stored.")
            }
            Self::TooManyTools => format!("The request has more than {MAX_CUSTOM_TOOLS} custom tools."),
            Self::Malformed => "The request body is not valid JSON.".to_owned(),
        }
    }

    /// The field at fault.
    #[must_use]
    pub fn param(self) -> Option<&'static str> {
        match self {
            Self::Stateful(field) => Some(field),
            Self::TooManyTools => Some("tools"),
            Self::Duplicate | Self::Malformed => None,
        }
    }
}

/// Custom tools of one request, at most: each is looked for by name.
const MAX_CUSTOM_TOOLS: usize = 256;

/// Notes a custom tool that goes up as a function.
pub(super) fn note(plan: &mut Plan, name: String) -> Result<(), Refused> {
    if plan.custom_tools.len() == MAX_CUSTOM_TOOLS {
        return Err(Refused::TooManyTools);
    }
    plan.custom_tools.push(name);
    Ok(())
}

impl From<Flaw> for Refused {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Duplicate => Self::Duplicate,
            Flaw::Malformed(_) | Flaw::NotAnObject | Flaw::TooDeep => Self::Malformed,
        }
    }
}

/// The body as it goes up, `None` when it stays as it is, and what its answer needs.
///
/// What is no JSON object, or neither has messages nor an input, is for the upstream to judge.
pub fn convert(body: &[u8], options: &Options) -> Result<(Option<Vec<u8>>, Plan), Refused> {
    let mut plan = Plan { reasoning: options.reasoning, custom_tools: Vec::new() };
    let facts = match Facts::read(body) {
        Ok(facts) => facts,
        Err(Flaw::Duplicate) => return Err(Refused::Duplicate),
        Err(_) => return Ok((None, plan)),
    };
    let chat = facts.messages.is_some_and(|m| m.is_array() && !m.is_empty());
    if !chat && facts.input {
        let body = responses::convert(Value::parse(body)?, options, &mut plan)?;
        return Ok((Some(body), plan));
    }
    if !chat {
        return Ok((None, plan));
    }
    let edited = edit(Value::parse(body)?, &facts, options, &mut plan)?;
    Ok((edited, plan))
}

/// Top-level fields that decide on others.
struct Facts<'a> {
    messages: Option<Value<'a>>,
    input: bool,
    model: Option<Value<'a>>,
    reasoning: Option<Value<'a>>,
    effort: Option<Value<'a>>,
    completion_tokens: Option<Value<'a>>,
    has_stop: bool,
    has_parallel: bool,
    system: Option<Value<'a>>,
    tools: Option<Value<'a>>,
}

impl<'a> Facts<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Flaw> {
        let names = [
            "messages",
            "input",
            "model",
            "reasoning",
            "reasoning_effort",
            "max_completion_tokens",
            "stop",
            "parallel_tool_calls",
            "system",
            "tools",
        ];
        let found = peek::top_level(body, names)?;
        let [messages, input, model, reasoning, effort, completion_tokens, stop, parallel, system, tools] =
            found.map(|place| place.map(|span| Value::at(body, span)));
        Ok(Self {
            messages,
            input: input.is_some_and(|v| !v.is_null()),
            model,
            reasoning,
            effort,
            completion_tokens,
            has_stop: stop.is_some(),
            has_parallel: parallel.is_some(),
            system: system.filter(|v| !v.is_null()),
            tools,
        })
    }
}

/// A chat body, edited in place.
fn edit<'a>(
    root: Value<'a>,
    facts: &Facts<'a>,
    options: &Options,
    plan: &mut Plan,
) -> Result<Option<Vec<u8>>, Refused> {
    let name = facts.model.and_then(Value::text).unwrap_or_default();
    let split = model::split(&name, options);
    let strict = model::is_strict(split.map_or(&*name, |(bare, _)| bare));
    // The name's ending was chosen for this model; the field may be a client's default.
    let effort = match (split, facts.reasoning) {
        (Some((_, effort)), _) => Some(format!("\"{effort}\"").into_bytes()),
        (None, Some(reasoning)) if facts.effort.is_none_or(Value::is_null) => {
            reasoning.known("effort")?.map(|e| e.raw().to_vec())
        }
        (None, _) => None,
    };
    let mut effort = effort.map(|e| [b"\"reasoning_effort\":", &e[..]].concat());
    let tools = edited_tools(facts.tools, plan)?;

    let mut rewriter = Rewriter::new(root);
    rewriter.members(root, |rewriter, member| {
        let value = member.value;
        Ok(match () {
            () if member.is("model") => match split {
                // The effort goes with it unless another place is waiting for it.
                Some((bare, _)) => {
                    let mut with = b"\"model\":".to_vec();
                    string(&mut with, bare.as_bytes());
                    if facts.reasoning.is_none()
                        && facts.effort.is_none()
                        && let Some(effort) = effort.take()
                    {
                        with.push(b',');
                        with.extend_from_slice(&effort);
                    }
                    Edit::Replace(with)
                }
                None => Edit::Keep,
            },
            () if member.is("reasoning") => match effort.take_if(|_| facts.effort.is_none()) {
                Some(effort) => Edit::Replace(effort),
                None => Edit::Remove,
            },
            () if member.is("reasoning_effort") => effort.take().map_or(Edit::Keep, Edit::Replace),
            // A null one would stand beside the renamed one.
            () if member.is("max_completion_tokens") && strict && value.is_null() => Edit::Remove,
            () if member.is("max_tokens") && strict && facts.completion_tokens.is_some_and(|v| !v.is_null()) => {
                Edit::Remove
            }
            () if member.is("max_tokens") && strict => {
                Edit::Replace([b"\"max_completion_tokens\":", value.raw()].concat())
            }
            () if member.is("temperature") && strict && !is_one(value) => Edit::Remove,
            () if member.is("stop_sequences") && facts.has_stop => Edit::Remove,
            () if member.is("stop_sequences") => Edit::Replace([b"\"stop\":", value.raw()].concat()),
            () if member.is("system") => Edit::Remove,
            () if member.is("tools") => match &tools {
                Some(list) => Edit::Replace([b"\"tools\":", &list[..]].concat()),
                None => Edit::Keep,
            },
            () if member.is("tool_choice") => match tools::choice(value)? {
                (Choice::Replace(mut with), serial) => {
                    if serial && !facts.has_parallel {
                        with.extend_from_slice(b",\"parallel_tool_calls\":false");
                    }
                    Edit::Replace([b"\"tool_choice\":", &with[..]].concat())
                }
                (Choice::AsIs | Choice::Drop, _) => Edit::Keep,
            },
            () if member.is("messages") => {
                if let Some(system) = facts.system {
                    let mut with = b"[{\"role\":\"system\",\"content\":".to_vec();
                    with.extend_from_slice(&messages::text_of(system, b"\\n\\n")?);
                    with.extend_from_slice(b"},");
                    rewriter.replace(value.span().start..value.span().start + 1, &with);
                }
                rewriter.items(value, |rewriter, message| messages::edit(rewriter, message, plan))?;
                Edit::Keep
            }
            () => Edit::Keep,
        })
    })?;
    Ok(rewriter.finish())
}

/// The tools in the spelling of chat completions; `None` when they are. Custom ones are noted in the plan.
fn edited_tools(list: Option<Value<'_>>, plan: &mut Plan) -> Result<Option<Vec<u8>>, Refused> {
    let Some(list) = list else { return Ok(None) };
    let mut rewriter = Rewriter::new(list);
    let mut noted = Ok(());
    rewriter.items(list, |_, item| {
        Ok(match tools::tool(item)? {
            Tool::Function(made) => Edit::Replace(made),
            Tool::Custom(name, made) if noted.is_ok() => {
                noted = note(plan, name);
                Edit::Replace(made)
            }
            // Some servers take tools of their own in chat completions.
            Tool::Custom(..) | Tool::AsIs | Tool::BuiltIn => Edit::Keep,
        })
    })?;
    noted.map(|()| rewriter.finish())
}

#[cfg(test)]
mod tests {
    use super::super::Reasoning;
    use super::*;
    use crate::llm::model_glob::ModelGlobs;
    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    fn options(reasoning: Reasoning) -> Options {
        Options { reasoning, suffixes: true, literal: ModelGlobs::default() }
    }

    fn up(body: &str) -> String {
        let (edited, _) = convert(body.as_bytes(), &options(Reasoning::Think)).unwrap();
        edited.map_or_else(|| body.to_owned(), |b| String::from_utf8(b).unwrap())
    }

    fn up_json(body: Json) -> Json {
        serde_json::from_str(&up(&body.to_string())).unwrap()
    }

    fn messages(body: Json) -> Json {
        up_json(body)["messages"].take()
    }

    #[test]
    fn what_needs_no_change_keeps_its_bytes() {
        for body in [
            r#"{ "model":"gpt-4o", "messages" : [ {"role":"user","content":"hi \u00e9"} ], "temperature":0.70, "max_tokens":5, "x":1e3 }"#,
            r#"{"model":"m","messages":[{"role":"assistant","content":"<think>no end"},{"role":"user","content":"<think>a</think>b"}]}"#,
            r#"{"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}]}],"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f"}}}"#,
            r#"{"model":"gpt-5","messages":[{"role":"user","content":"a"}],"temperature":1,"max_completion_tokens":5,"reasoning_effort":"low"}"#,
            r#"{"model":"m","messages":[]}"#,
            r#"{"model":"m"}"#,
            "[1]",
            "not json",
            "{\"messages\":[{]}",
            "",
        ] {
            assert_eq!(up(body), body);
        }
        let broken = format!("{{\"messages\":[{}", "[".repeat(100_000));
        assert_eq!(up(&broken), broken);
    }

    #[test]
    fn efforts_come_from_the_object_or_the_name() {
        for (fields, expected) in [
            (
                r#""model":"gpt-5","reasoning":{"effort":"high","summary":"auto"}"#,
                r#""model":"gpt-5","reasoning_effort":"high""#,
            ),
            (r#""reasoning":{"effort":null},"model":"gpt-5""#, r#""model":"gpt-5""#),
            (r#""model":"gpt-5-thinking-low""#, r#""model":"gpt-5","reasoning_effort":"low""#),
            (r#""model":"gpt-5-fast","reasoning":{"effort":"high"}"#, r#""model":"gpt-5","reasoning_effort":"low""#),
            (r#""reasoning_effort":"high","model":"gpt-5-fast""#, r#""reasoning_effort":"low","model":"gpt-5""#),
            (r#""model":"gpt-5-fast","reasoning_effort":null"#, r#""model":"gpt-5","reasoning_effort":"low""#),
            (
                r#""reasoning_effort":"high","reasoning":{"effort":"low"},"model":"m""#,
                r#""reasoning_effort":"high","model":"m""#,
            ),
            (
                r#""reasoning":{"effort":"low"},"reasoning_effort":null,"model":"m""#,
                r#""reasoning_effort":"low","model":"m""#,
            ),
        ] {
            let rest = r#","messages":[{"role":"user","content":"a"}]}"#;
            assert_eq!(up(&format!("{{{fields}{rest}")), format!("{{{expected}{rest}"));
        }
    }

    #[test]
    fn strict_models_get_the_fields_they_take() {
        let rest = r#""messages":[{"role":"user","content":"a"}]}"#;
        for (fields, expected) in [
            (r#""model":"gpt-5","temperature":0,"max_tokens":9,"#, r#""model":"gpt-5","max_completion_tokens":9,"#),
            (r#""temperature":1.0,"model":"openai/o3-mini","#, r#""temperature":1.0,"model":"openai/o3-mini","#),
            (r#""max_tokens":9,"max_completion_tokens":8,"model":"o1","#, r#""max_completion_tokens":8,"model":"o1","#),
            (
                r#""max_tokens":9,"max_completion_tokens":null,"model":"o1","#,
                r#""max_completion_tokens":9,"model":"o1","#,
            ),
            (
                r#""temperature":0,"max_tokens":9,"model":"gpt-4o","#,
                r#""temperature":0,"max_tokens":9,"model":"gpt-4o","#,
            ),
        ] {
            assert_eq!(up(&format!("{{{fields}{rest}")), format!("{{{expected}{rest}"));
        }
    }

    #[test]
    fn cursors_history_is_put_right() {
        let body = json!({"model": "m", "messages": [
            {"role": "assistant", "content": [], "tool_calls": [
                {"index": 0, "id": "c", "type": "function", "function": {"name": "ApplyPatch", "arguments": "*** Begin\n+\"a\""}},
                {"index": 1, "id": "d", "type": "function", "function": {"name": "Shell", "arguments": "{}"}},
                {"id": "e", "type": "custom", "custom": {"name": "ApplyPatch", "input": "x"}}]},
            {"role": "tool", "tool_call_id": "c", "content": "ok"},
            {"role": "assistant", "content": " <think>\nhm</think>\n\nthe <think>answer</think>"},
            {"role": "assistant", "content": []}],
            "tools": [{"type": "custom", "name": "ApplyPatch", "description": "Patch.", "format":
                {"type": "grammar", "syntax": "lark", "definition": "start: \"a\""}},
                {"type": "function", "name": "flat", "parameters": {"type": "object"}, "strict": null},
                {"name": "anthropic", "input_schema": {"z": 1, "a": 2}},
                {"type": "custom", "custom": {"name": "Nested", "format": {"type": "text"}}}],
            "tool_choice": {"type": "custom", "name": "ApplyPatch"}});
        let body = body.to_string();
        let (edited, plan) = convert(body.as_bytes(), &options(Reasoning::Think)).unwrap();
        let text = String::from_utf8(edited.unwrap()).unwrap();
        let read: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(plan.custom_tools, ["ApplyPatch", "Nested"]);
        let call = |id: &str, name: &str, arguments: Json| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments.to_string()}});
        assert_eq!(
            read["messages"],
            json!([
            {"role": "assistant", "content": null, "tool_calls": [
                call("c", "ApplyPatch", json!({"input": "*** Begin\n+\"a\""})),
                call("d", "Shell", json!({})),
                call("e", "ApplyPatch", json!({"input": "x"}))]},
            {"role": "tool", "tool_call_id": "c", "content": "ok"},
            {"role": "assistant", "content": "the <think>answer</think>"},
            {"role": "assistant", "content": ""}])
        );
        let parameters = json!({"type": "object", "properties": {"input": {"type": "string",
            "description": "The whole text that the tool takes."}}, "required": ["input"], "additionalProperties": false});
        assert_eq!(
            read["tools"],
            json!([
            {"type": "function", "function": {"name": "ApplyPatch", "parameters": parameters,
                "description": "Patch.\n\nThe input must follow this grammar (lark):\nstart: \"a\""}},
            {"type": "function", "function": {"name": "flat", "parameters": {"type": "object"}}},
            {"type": "function", "function": {"name": "anthropic", "parameters": {"z": 1, "a": 2}}},
            {"type": "function", "function": {"name": "Nested", "description": "", "parameters": parameters}}])
        );
        assert!(text.contains(r#""parameters":{"a":2,"z":1}"#), "fields of a schema keep their order: {text}");
        assert_eq!(read["tool_choice"], json!({"type": "function", "function": {"name": "ApplyPatch"}}));
        // What has been up once stays as it is.
        assert_eq!(up(&text), text);
    }

    #[test]
    fn habits_of_anthropics_api_become_chat() {
        let body = json!({"model": "m", "system": [{"type": "text", "text": "Be", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "brief"}],
            "stop_sequences": ["x"], "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "a", "cache_control": {}}, {"type": "text", "text": "b"}]},
                {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "s"}, {"type": "text", "text": "ok"},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": "\"q\""}}]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "r1"}, {"type": "text", "text": "r2"},
                        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}}]},
                    {"type": "tool_result", "tool_use_id": "t2", "content": "plain"},
                    {"type": "tool_result", "tool_use_id": "t3"},
                    {"type": "text", "text": "go on", "cache_control": {}},
                    {"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}]}]});
        assert_eq!(
            up_json(body),
            json!({"model": "m", "stop": ["x"], "tool_choice": "required", "parallel_tool_calls": false,
            "messages": [
                {"role": "system", "content": "Be\n\nbrief"},
                {"role": "system", "content": "a\n\nb"},
                {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                {"role": "assistant", "content": "ok", "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":\"\\\"q\\\"\"}"}}]},
                {"role": "tool", "tool_call_id": "t1", "content": "r1\nr2"},
                {"role": "tool", "tool_call_id": "t2", "content": "plain"},
                {"role": "tool", "tool_call_id": "t3", "content": ""},
                {"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}},
                    {"type": "text", "text": "go on"},
                    {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]}]})
        );
        let tool = json!({"role": "tool", "tool_call_id": "t", "content": [{"type": "text", "text": "r"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QQ=="}}]});
        let mixed = json!({"role": "system", "content": [{"type": "text", "text": "a", "cache_control": {}}, {"type": "file"}]});
        assert_eq!(
            messages(json!({"messages": [tool, mixed]})),
            json!([{"role": "tool", "tool_call_id": "t", "content": "r"},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}]},
                {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "file"}]}])
        );
        let choice = |choice: Json| {
            up_json(json!({"messages": [{"role": "user", "content": "a"}], "tool_choice": choice}))["tool_choice"]
                .take()
        };
        assert_eq!(choice(json!({"type": "auto"})), "auto");
        assert_eq!(
            choice(json!({"type": "tool", "name": "f"})),
            json!({"type": "function", "function": {"name": "f"}})
        );
    }

    #[test]
    fn a_responses_body_becomes_chat() {
        let body = json!({"model": "gpt-5-thinking-high", "messages": null, "instructions": "Be brief", "stream": true,
            "stream_options": {"include_usage": true}, "max_output_tokens": 10, "temperature": 0, "user": "u", "include": ["x"],
            "metadata": {"cursorConversationId": "1"}, "store": false, "reasoning": {"effort": "low", "summary": "auto"},
            "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": {"z": 1}, "strict": true}},
            "parallel_tool_calls": true, "tool_choice": "auto", "truncation": "auto",
            "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {}, "strict": false},
                {"type": "custom", "name": "ApplyPatch"}, {"type": "web_search"}],
            "input": [
                {"role": "developer", "content": [{"type": "input_text", "text": "rules"}]},
                {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"},
                    {"type": "input_image", "image_url": "data:x", "detail": "low"}]},
                {"type": "reasoning", "summary": [], "encrypted_content": "e"},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "<think>t</think>I"}, {"type": "output_text", "text": " patch"}]},
                {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
                {"type": "custom_tool_call", "call_id": "c2", "name": "ApplyPatch", "input": "*** Begin\n"},
                {"type": "function_call", "call_id": "c3", "name": "ApplyPatch", "arguments": "*** raw"},
                {"type": "function_call_output", "call_id": "c1", "output": "done"},
                {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "ok"}, {"type": "input_image", "image_url": "u"}]},
                {"type": "function_call_output", "call_id": "c3", "output": {"json": true}},
                {"role": "assistant", "content": "next"},
                {"role": "user", "content": "bye"}]});
        let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
        let read = up_json(body);
        assert_eq!(
            read["messages"],
            json!([
            {"role": "system", "content": "Be brief"},
            {"role": "system", "content": "rules"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}]},
            {"role": "assistant", "content": "I patch", "tool_calls": [
                call("c1", "f", "{\"a\":1}"), call("c2", "ApplyPatch", "{\"input\":\"*** Begin\\n\"}"),
                call("c3", "ApplyPatch", "{\"input\":\"*** raw\"}")]},
            {"role": "tool", "tool_call_id": "c1", "content": "done"},
            {"role": "tool", "tool_call_id": "c2", "content": "ok"},
            {"role": "tool", "tool_call_id": "c3", "content": "{\"json\":true}"},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]},
            {"role": "assistant", "content": "next"},
            {"role": "user", "content": "bye"}])
        );
        assert_eq!(read["tools"].as_array().unwrap().len(), 2);
        let mut rest = read;
        for field in ["messages", "tools"] {
            rest.as_object_mut().unwrap().remove(field);
        }
        assert_eq!(
            rest,
            json!({"model": "gpt-5", "tool_choice": "auto", "parallel_tool_calls": true, "max_completion_tokens": 10,
            "reasoning_effort": "high", "verbosity": "low", "stream": true, "stream_options": {"include_usage": true}, "store": false, "user": "u",
            "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"z": 1}, "strict": true}}})
        );
    }

    #[test]
    fn small_responses_bodies() {
        assert_eq!(messages(json!({"input": "hi"})), json!([{"role": "user", "content": "hi"}]));
        assert_eq!(messages(json!({"input": [], "messages": []})), json!([]));
        let read = up_json(
            json!({"model": "m", "input": "a", "max_output_tokens": 5, "temperature": 0, "tools": [{"type": "web_search"}],
            "tool_choice": "auto", "parallel_tool_calls": true, "store": true, "metadata": {"a": "b"}, "text": {"verbosity": "low"}}),
        );
        assert_eq!(
            read,
            json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "max_tokens": 5, "temperature": 0,
            "store": true, "metadata": {"a": "b"}})
        );
        // Messages win over an input.
        let both = r#"{"messages":[{"role":"user","content":"a"}],"input":"b"}"#;
        assert_eq!(up(both), both);
    }

    #[test]
    fn what_cannot_go_up_is_refused() {
        let refused = |body: &str| convert(body.as_bytes(), &options(Reasoning::Keep)).unwrap_err();
        assert_eq!(refused(r#"{"messages":[{}],"messages":[{}]}"#), Refused::Duplicate);
        assert_eq!(refused(r#"{"input":"a","previous_response_id":"r"}"#), Refused::Stateful("previous_response_id"));
        assert_eq!(refused(r#"{"input":[{"type":"item_reference","id":"i"}]}"#), Refused::Stateful("item_reference"));
        assert_eq!(refused(r#"{"input":[{"type" 1}]}"#), Refused::Malformed);
        let tools = vec![json!({"type": "custom", "name": "a"}); MAX_CUSTOM_TOOLS + 1];
        assert_eq!(refused(&json!({"input": "a", "tools": tools}).to_string()), Refused::TooManyTools);
        assert_eq!(refused(&json!({"messages": [{}], "tools": tools}).to_string()), Refused::TooManyTools);
    }

    fn value() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::from),
            any::<u8>().prop_map(Json::from),
            prop::sample::select(vec![
                "user",
                "assistant",
                "text",
                "tool_use",
                "tool_result",
                "image",
                "custom",
                "function",
                "a\"\\é"
            ])
            .prop_map(Json::from),
        ];
        let names = prop::sample::select(vec![
            "role",
            "content",
            "type",
            "text",
            "tool_calls",
            "function",
            "name",
            "arguments",
            "index",
            "input",
            "id",
            "source",
            "data",
            "custom",
            "cache_control",
            "output",
            "call_id",
        ]);
        leaf.prop_recursive(5, 32, 5, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
                prop::collection::btree_map(names.clone(), inner, 0..5).prop_map(|m| json!(m)),
            ]
        })
    }

    proptest! {
        /// Whatever stands in the fields, JSON goes up as JSON.
        #[test]
        fn json_stays_json(
            fields in prop::collection::btree_map(prop::sample::select(vec![
                "model", "messages", "input", "tools", "tool_choice", "reasoning", "reasoning_effort", "system", "text",
                "max_tokens", "temperature", "instructions", "stop_sequences",
            ]), value(), 0..8),
            list in prop::collection::vec(value(), 1..4),
            chat: bool,
        ) {
            let mut body = json!(fields);
            body[if chat { "messages" } else { "input" }] = Json::from(list);
            if !chat { body["messages"] = Json::Null; }
            body["model"] = Json::from("gpt-5-fast");
            let text = body.to_string();
            if let Ok((Some(edited), _)) = convert(text.as_bytes(), &options(Reasoning::Think)) {
                let read = serde_json::from_slice::<Json>(&edited);
                prop_assert!(read.is_ok(), "{} from {}", String::from_utf8_lossy(&edited), text);
                prop_assert_eq!(&read.unwrap()["model"], "gpt-5");
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            for front in ["{\"messages\":[{\"role\":\"assistant\",\"content\":", "{\"input\":[", ""] {
                let _ = convert(&[front.as_bytes(), &bytes].concat(), &options(Reasoning::Think));
            }
        }
    }
}
