//! What an answer of an LLM API says, for a person: the text of a stream joined, reasoning and tool calls apart.
//!
//! Reads OpenAI chat and completions, OpenAI responses, Anthropic messages and Ollama, streamed or whole. What it does
//! not know it counts and leaves out; nothing is ever refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::sse;

/// What all pieces of an answer say together.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Readable {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// By index; all dialects but OpenAI's have one alone.
    pub choices: BTreeMap<u64, Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Value>,
    /// Errors told inside the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
    /// Events of a stream, lines, or 1.
    pub events: usize,
    /// Of these, such as are no JSON.
    #[serde(skip_serializing_if = "is_zero")]
    pub unreadable: usize,
    /// The protocol's own end was seen: `[DONE]`, a terminal event, `done: true`.
    pub finished: bool,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Choice {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub text: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tool_calls: BTreeMap<u64, ToolCall>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub finish_reasons: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
pub struct ToolCall {
    pub name: String,
    /// As the model wrote them: JSON, if it kept to the rules.
    pub arguments: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Reads a body; `None` when its type is none of those that say something here.
#[must_use]
pub fn read(content_type: &str, body: &[u8]) -> Option<Readable> {
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let mut out = Readable::default();
    match media.as_str() {
        sse::MEDIA_TYPE => {
            let mut decoder = sse::Decoder::new(usize::MAX);
            decoder.feed(Bytes::copy_from_slice(body));
            while let Some(Ok(event)) = decoder.next() {
                out.event(event.data().as_deref());
            }
            if let Some(event) = decoder.finish() {
                out.event(event.data().as_deref());
            }
        }
        "application/x-ndjson" | "application/jsonl" => {
            for line in body.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|l| !l.is_empty()) {
                out.event(Some(line));
            }
        }
        "application/json" => {
            out.event(Some(body));
            out.finished = true;
        }
        _ => return None,
    }
    Some(out)
}

impl Readable {
    /// Whether anything was understood.
    #[must_use]
    pub fn is_worth_it(&self) -> bool {
        !self.choices.is_empty() || !self.errors.is_empty() || self.events > 1
    }

    fn event(&mut self, data: Option<&[u8]>) {
        let Some(data) = data else { return };
        self.events += 1;
        if data.trim_ascii() == b"[DONE]" {
            self.finished = true;
            return;
        }
        match serde_json::from_slice(data) {
            Ok(value) => self.object(&value),
            Err(_) => self.unreadable += 1,
        }
    }

    fn object(&mut self, value: &Value) {
        if let Some(model) = text(&value["model"]) {
            self.model.get_or_insert_with(|| model.to_owned());
        }
        let usage = &value["usage"];
        if usage.is_object() {
            self.usage = Some(usage.clone());
        }
        self.error(&value["error"]);
        if let Some(choices) = value["choices"].as_array() {
            for choice in choices {
                self.openai_choice(choice);
            }
            return;
        }
        match text(&value["type"]) {
            Some("message") => self.anthropic_message(value),
            Some(kind) if kind.starts_with("response.") => self.responses_event(kind, value),
            Some(kind) => self.anthropic_event(kind, value),
            None if value["object"] == "response" => self.whole_response(value),
            None => self.ollama(value),
        }
    }

    fn error(&mut self, error: &Value) {
        let message = match error {
            Value::String(message) if !message.is_empty() => message.clone(),
            Value::Object(fields) if !fields.is_empty() => {
                text(&error["message"]).map_or_else(|| error.to_string(), str::to_owned)
            }
            _ => return,
        };
        self.errors.push(message);
    }

    fn first(&mut self) -> &mut Choice {
        self.choices.entry(0).or_default()
    }

    fn openai_choice(&mut self, value: &Value) {
        let choice = self.choices.entry(value["index"].as_u64().unwrap_or(0)).or_default();
        add(&mut choice.text, &value["text"]);
        for said in [&value["delta"], &value["message"]] {
            add(&mut choice.text, &said["content"]);
            add(&mut choice.text, &said["refusal"]);
            add(&mut choice.reasoning, &said["reasoning_content"]);
            add(&mut choice.reasoning, &said["reasoning"]);
            for (at, call) in items(&said["tool_calls"]) {
                choice.call(call["index"].as_u64().unwrap_or(at), &call["function"]);
            }
        }
        choice.finish(&value["finish_reason"]);
    }

    fn responses_event(&mut self, kind: &str, value: &Value) {
        let at = value["output_index"].as_u64().unwrap_or(0);
        let delta = &value["delta"];
        match kind.strip_prefix("response.").unwrap_or(kind) {
            "output_text.delta" | "refusal.delta" => add(&mut self.first().text, delta),
            "reasoning_text.delta" | "reasoning_summary_text.delta" => add(&mut self.first().reasoning, delta),
            "function_call_arguments.delta" | "custom_tool_call_input.delta" => {
                add(&mut self.first().tool_calls.entry(at).or_default().arguments, delta);
            }
            "output_item.added" => {
                let item = &value["item"];
                if text(&item["type"]).is_some_and(|t| t.ends_with("_call")) {
                    add(&mut self.first().tool_calls.entry(at).or_default().name, &item["name"]);
                }
            }
            "completed" | "incomplete" | "failed" => {
                self.finished = true;
                let response = &value["response"];
                self.error(&response["error"]);
                if response["usage"].is_object() {
                    self.usage = Some(response["usage"].clone());
                }
                if let Some(model) = text(&response["model"]) {
                    self.model = Some(model.to_owned());
                }
                self.first().finish(&response["status"]);
            }
            _ => {}
        }
    }

    fn whole_response(&mut self, value: &Value) {
        let choice = self.first();
        for (at, item) in items(&value["output"]) {
            match text(&item["type"]) {
                Some("message") => items(&item["content"]).for_each(|(_, part)| add(&mut choice.text, &part["text"])),
                Some("reasoning") => {
                    for list in [&item["summary"], &item["content"]] {
                        items(list).for_each(|(_, part)| add(&mut choice.reasoning, &part["text"]));
                    }
                }
                Some(kind) if kind.ends_with("_call") => {
                    choice.call(at, item);
                    add(&mut choice.tool_calls.entry(at).or_default().arguments, &item["input"]);
                }
                _ => {}
            }
        }
        choice.finish(&value["status"]);
    }

    fn anthropic_event(&mut self, kind: &str, value: &Value) {
        let at = value["index"].as_u64().unwrap_or(0);
        match kind {
            "message_start" => {
                let message = &value["message"];
                self.model = text(&message["model"]).map(str::to_owned);
                self.usage = message["usage"].is_object().then(|| message["usage"].clone());
            }
            "content_block_start" => self.anthropic_block(at, &value["content_block"], true),
            "content_block_delta" => {
                let (choice, delta) = (self.first(), &value["delta"]);
                add(&mut choice.text, &delta["text"]);
                add(&mut choice.reasoning, &delta["thinking"]);
                if delta["partial_json"].is_string() {
                    add(&mut choice.tool_calls.entry(at).or_default().arguments, &delta["partial_json"]);
                }
            }
            "message_delta" => self.first().finish(&value["delta"]["stop_reason"]),
            "message_stop" => self.finished = true,
            // Of the responses API; Anthropic's holds an `error` object.
            "error" => self.error(&value["message"]),
            _ => {}
        }
    }

    fn anthropic_message(&mut self, value: &Value) {
        for (at, block) in items(&value["content"]) {
            self.anthropic_block(at, block, false);
        }
        self.first().finish(&value["stop_reason"]);
    }

    /// `begins`: its input comes in pieces, and what stands here is an empty object.
    fn anthropic_block(&mut self, at: u64, block: &Value, begins: bool) {
        let choice = self.first();
        add(&mut choice.text, &block["text"]);
        add(&mut choice.reasoning, &block["thinking"]);
        if text(&block["type"]).is_some_and(|t| t.ends_with("tool_use")) {
            let call = choice.tool_calls.entry(at).or_default();
            add(&mut call.name, &block["name"]);
            if !begins {
                add(&mut call.arguments, &block["input"]);
            }
        }
    }

    fn ollama(&mut self, value: &Value) {
        let (message, whole) = (&value["message"], &value["response"]);
        if !message.is_object() && !whole.is_string() {
            return;
        }
        if value["done"] == true {
            self.finished = true;
            let counts = ["prompt_eval_count", "eval_count"].map(|name| (name.to_owned(), value[name].clone()));
            self.usage = Some(Value::Object(counts.into_iter().filter(|(_, v)| v.is_number()).collect()));
        }
        let choice = self.first();
        add(&mut choice.text, whole);
        add(&mut choice.text, &message["content"]);
        for thinking in [&message["thinking"], &value["thinking"]] {
            add(&mut choice.reasoning, thinking);
        }
        for (_, call) in items(&message["tool_calls"]) {
            let next = choice.tool_calls.len() as u64;
            choice.call(next, &call["function"]);
        }
        choice.finish(&value["done_reason"]);
    }
}

impl Choice {
    fn call(&mut self, at: u64, function: &Value) {
        let call = self.tool_calls.entry(at).or_default();
        add(&mut call.name, &function["name"]);
        add(&mut call.arguments, &function["arguments"]);
    }

    fn finish(&mut self, reason: &Value) {
        if let Some(reason) = text(reason) {
            self.finish_reasons.push(reason.to_owned());
        }
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

/// A text as it is, an object or list as JSON; anything else says nothing.
fn add(to: &mut String, value: &Value) {
    match value {
        Value::String(text) => to.push_str(text),
        Value::Object(_) | Value::Array(_) => to.push_str(&value.to_string()),
        _ => {}
    }
}

fn items(list: &Value) -> impl Iterator<Item = (u64, &Value)> {
    (0..).zip(list.as_array().into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(events: &[&str]) -> Readable {
        let body: String = events.iter().map(|e| format!("data: {e}\n\n")).collect();
        read("text/event-stream; charset=utf-8", body.as_bytes()).unwrap()
    }

    fn call(choice: &Choice, at: u64) -> (&str, &str) {
        let call = &choice.tool_calls[&at];
        (&call.name, &call.arguments)
    }

    #[test]
    fn openai_chat_is_joined() {
        let said = stream(&[
            r#"{"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#,
            r#"{"choices":[{"index":0,"delta":{"reasoning_content":"hm "}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"Hé"}},{"index":1,"delta":{"content":"other"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":"llo","tool_calls":[{"index":0,"function":{"name":"f","arguments":"{\"a\""}}]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]},"finish_reason":"tool_calls"}]}"#,
            r#"{"choices":[],"usage":{"total_tokens":3}}"#,
            "[DONE]",
        ]);
        let choice = &said.choices[&0];
        assert_eq!((choice.text.as_str(), choice.reasoning.as_str()), ("Héllo", "hm "));
        assert_eq!(call(choice, 0), ("f", r#"{"a":1}"#));
        assert_eq!(
            (said.choices[&1].text.as_str(), &choice.finish_reasons[..]),
            ("other", &["tool_calls".to_owned()][..])
        );
        assert_eq!(
            (said.model.as_deref(), said.usage.unwrap()["total_tokens"].as_u64(), said.events),
            (Some("m"), Some(3), 7)
        );
        assert!(said.finished);
        let whole =
            read("application/json", br#"{"choices":[{"message":{"content":"all"},"finish_reason":"stop"}]}"#).unwrap();
        assert_eq!(whole.choices[&0].text, "all");
    }

    #[test]
    fn openai_responses_are_joined() {
        let said = stream(&[
            r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","name":"f","arguments":""}}"#,
            r#"{"type":"response.function_call_arguments.delta","output_index":1,"delta":"{}"}"#,
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"a"}"#,
            r#"{"type":"response.reasoning_summary_text.delta","delta":"r"}"#,
            r#"{"type":"response.completed","response":{"model":"m","status":"completed","usage":{"output_tokens":1}}}"#,
        ]);
        let choice = &said.choices[&0];
        assert_eq!((choice.text.as_str(), choice.reasoning.as_str(), call(choice, 1)), ("a", "r", ("f", "{}")));
        assert!(said.finished && said.usage.is_some());
        let whole = br#"{"object":"response","status":"completed","error":null,"output":[{"type":"message","content":[{"text":"x"}]},{"type":"function_call","name":"f","arguments":"{}"}]}"#;
        let whole = read("application/json", whole).unwrap();
        assert_eq!((whole.choices[&0].text.as_str(), call(&whole.choices[&0], 1)), ("x", ("f", "{}")));
    }

    #[test]
    fn anthropic_messages_are_joined() {
        let said = stream(&[
            r#"{"type":"message_start","message":{"model":"c","usage":{"input_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"t"}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"x"}}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","name":"f","input":{}}}"#,
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}"#,
            r#"{"type":"message_stop"}"#,
        ]);
        let choice = &said.choices[&0];
        assert_eq!((choice.text.as_str(), choice.reasoning.as_str()), ("x", "t"));
        assert_eq!(call(choice, 2), ("f", r#"{"a":1}"#));
        assert_eq!(said.usage.unwrap()["output_tokens"], 9);
        let whole = br#"{"type":"message","content":[{"type":"text","text":"x"},{"type":"tool_use","name":"f","input":{"a":1}}],"stop_reason":"end_turn"}"#;
        let whole = read("application/json", whole).unwrap();
        assert_eq!((whole.choices[&0].text.as_str(), call(&whole.choices[&0], 1)), ("x", ("f", r#"{"a":1}"#)));
    }

    #[test]
    fn ollama_lines_are_joined() {
        let body = "{\"model\":\"m\",\"message\":{\"content\":\"a\",\"thinking\":\"t\"},\"done\":false}\n{\"message\":{\"content\":\"b\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":1}}}]},\"done\":true,\"done_reason\":\"stop\",\"eval_count\":2}\n";
        let said = read("application/x-ndjson", body.as_bytes()).unwrap();
        let choice = &said.choices[&0];
        assert_eq!(
            (choice.text.as_str(), choice.reasoning.as_str(), call(choice, 0)),
            ("ab", "t", ("f", r#"{"x":1}"#))
        );
        assert_eq!((said.finished, said.usage.unwrap()["eval_count"].as_u64()), (true, Some(2)));
    }

    #[test]
    fn errors_and_nonsense_are_told_and_nothing_panics() {
        let said =
            stream(&[r#"{"error":{"message":"overloaded"}}"#, "{", "[1,2]", "null", r#"{"choices":7,"type":9}"#]);
        assert_eq!(
            (said.errors, said.unreadable, said.events, said.finished),
            (vec!["overloaded".to_owned()], 1, 5, false)
        );
        assert_eq!(read("image/png", b"x"), None);
        assert_eq!(read("application/x-ndjson", br#"{"error":"gone"}"#).unwrap().errors, ["gone"]);
    }

    #[test]
    fn a_body_may_be_cut_anywhere() {
        let body = "event: x\r\ndata: {\"choices\":[{\"delta\":{\"content\":\"h\u{e9}\"}}]}\r\n\r\ndata: [DONE]\n\n";
        let text = |n: usize| {
            let said = read("text/event-stream", &body.as_bytes()[..n]).unwrap();
            said.choices.get(&0).map(|c| c.text.clone()).unwrap_or_default()
        };
        for n in 0..=body.len() {
            assert!(matches!(text(n).as_str(), "" | "h\u{e9}"), "{n}");
        }
        assert_eq!(text(body.len()), "h\u{e9}");
    }
}
