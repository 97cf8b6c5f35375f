//! What `harness::llm_upstream` answers: bodies and events in the shapes of the real APIs, made from the request.

use base64::Engine as _;
use serde_json::{Value, json};

/// The models it knows; the module doc of `llm_upstream` tells what each does.
pub const MODELS: [&str; 8] = [
    "mock-chat",
    "mock-reason",
    "mock-embed",
    "mock-slow",
    "mock-cut",
    "mock-inband",
    "mock-429-once",
    "vendor/mock:latest",
];

/// Their names as Ollama lists them: with a tag.
pub fn tags() -> Vec<String> {
    MODELS.iter().map(|id| if id.contains(':') { (*id).to_owned() } else { format!("{id}:latest") }).collect()
}

/// The words of an answer. What a careless filter of chunks would change: characters of several bytes, and text that
/// looks like the fields it removes.
pub const WORDS: [&str; 5] = ["Hello", " from", " the café,\"finish_reason\":null", " ✓ 👋", " end"];

pub const THOUGHT: &str = "thinking it over";

pub fn text() -> String {
    WORDS.concat()
}

pub fn models() -> Value {
    let data: Vec<Value> = MODELS.iter().map(|id| model(id)).collect();
    json!({"object": "list", "data": data})
}

pub fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "mock"})
}

/// What the last message asks for.
enum Plan {
    Say(String),
    /// Name and arguments of each call.
    Call(Vec<(String, String)>),
}

fn plan(asked: &Value) -> Plan {
    let messages = asked["messages"].as_array().cloned().unwrap_or_default();
    let last = messages.last().cloned().unwrap_or_default();
    if last["role"] == "tool" {
        return Plan::Say(format!("The tool said {}", last["content"].as_str().unwrap_or_default()));
    }
    if let Some(url) = last["content"].as_array().into_iter().flatten().find_map(|p| p["image_url"]["url"].as_str()) {
        let (kind, data) = url.strip_prefix("data:").and_then(|d| d.split_once(";base64,")).unwrap_or(("unknown", ""));
        let size = base64::engine::general_purpose::STANDARD.decode(data).map_or(0, |bytes| bytes.len());
        return Plan::Say(format!("An image of type {kind}, {size} bytes"));
    }
    let tools = asked["tools"].as_array().cloned().unwrap_or_default();
    let calls: Vec<(String, String)> = tools
        .iter()
        .filter_map(|tool| tool["function"]["name"].as_str())
        .map(|name| (name.to_owned(), json!({"city": "Paris", "of": name}).to_string()))
        .collect();
    if calls.is_empty() || asked["tool_choice"] == "none" { Plan::Say(text()) } else { Plan::Call(calls) }
}

fn usage() -> Value {
    json!({
        "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18,
        "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2},
    })
}

fn reasons(asked: &Value) -> bool {
    asked["model"] == "mock-reason"
}

pub fn chat(asked: &Value) -> Value {
    let mut message = json!({"role": "assistant", "content": null, "refusal": null, "annotations": []});
    let finish = match plan(asked) {
        Plan::Say(text) => {
            message["content"] = json!(text);
            "stop"
        }
        Plan::Call(calls) => {
            let calls = calls.iter().enumerate().map(|(i, (name, arguments))| {
                json!({"id": format!("call_{i}"), "type": "function", "function": {"name": name, "arguments": arguments}})
            });
            message["tool_calls"] = calls.collect();
            "tool_calls"
        }
    };
    if reasons(asked) {
        message["reasoning_content"] = json!(THOUGHT);
    }
    json!({
        "id": "chatcmpl-mock", "object": "chat.completion", "created": 1_700_000_000, "model": asked["model"],
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}],
        "usage": usage(), "service_tier": "default", "system_fingerprint": "fp_mock",
    })
}

pub fn chat_events(asked: &Value) -> Vec<String> {
    let with_usage = asked["stream_options"]["include_usage"] == true;
    let event = |choices: Value, usage: Value| {
        let mut chunk = json!({
            "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1_700_000_000,
            "model": asked["model"], "system_fingerprint": "fp_mock", "choices": choices, "obfuscation": "x7",
        });
        if with_usage {
            chunk["usage"] = usage;
        }
        format!("data: {chunk}\n\n")
    };
    let delta = |delta: Value, finish: Value| {
        event(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]), Value::Null)
    };
    let mut events = vec![delta(json!({"role": "assistant", "content": "", "refusal": null}), Value::Null)];
    if reasons(asked) {
        for piece in THOUGHT.split_inclusive(' ') {
            events.push(delta(json!({"reasoning_content": piece}), Value::Null));
        }
    }
    let finish = match plan(asked) {
        Plan::Say(said) => {
            let pieces: Vec<String> = if said == text() {
                WORDS.iter().map(|word| (*word).to_owned()).collect()
            } else {
                said.split_inclusive(' ').map(str::to_owned).collect()
            };
            events.extend(pieces.iter().map(|piece| delta(json!({"content": piece}), Value::Null)));
            "stop"
        }
        Plan::Call(calls) => {
            for (i, (name, arguments)) in calls.iter().enumerate() {
                let function = json!({"name": name, "arguments": ""});
                let begin = json!([{"index": i, "id": format!("call_{i}"), "type": "function", "function": function}]);
                events.push(delta(json!({"tool_calls": begin}), Value::Null));
                let (first, second) = arguments.split_at(arguments.len() / 2);
                for piece in [first, second] {
                    let more = json!([{"index": i, "function": {"arguments": piece}}]);
                    events.push(delta(json!({"tool_calls": more}), Value::Null));
                }
            }
            "tool_calls"
        }
    };
    events.push(delta(json!({}), json!(finish)));
    if with_usage {
        events.push(event(json!([]), usage()));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

pub fn completion(asked: &Value) -> Value {
    json!({
        "id": "cmpl-mock", "object": "text_completion", "created": 1_700_000_000, "model": asked["model"],
        "choices": [{"text": text(), "index": 0, "logprobs": null, "finish_reason": "stop"}], "usage": usage(),
    })
}

pub fn response(asked: &Value) -> Value {
    let content = json!([{"type": "output_text", "text": text(), "annotations": []}]);
    response_of(asked, "completed", &json!([item("completed", &content)]))
}

fn item(status: &str, content: &Value) -> Value {
    json!({"id": "msg_mock", "type": "message", "role": "assistant", "status": status, "content": content})
}

fn response_of(asked: &Value, status: &str, output: &Value) -> Value {
    let usage = json!({
        "input_tokens": 11, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 7,
        "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 18,
    });
    json!({
        "id": "resp_mock", "object": "response", "created_at": 1_700_000_000, "status": status, "error": null,
        "incomplete_details": null, "instructions": null, "model": asked["model"], "output": output,
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [], "temperature": 1.0, "top_p": 1.0,
        "metadata": {}, "usage": if status == "completed" { usage } else { Value::Null },
    })
}

pub fn response_events(asked: &Value) -> Vec<String> {
    let empty = item("in_progress", &json!([]));
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
    let place = json!({"item_id": "msg_mock", "output_index": 0, "content_index": 0});
    let mut events = vec![
        json!({"type": "response.created", "response": response_of(asked, "in_progress", &json!([]))}),
        json!({"type": "response.in_progress", "response": response_of(asked, "in_progress", &json!([]))}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": empty}),
        joined(&place, json!({"type": "response.content_part.added", "part": part("")})),
    ];
    for word in WORDS {
        events.push(joined(&place, json!({"type": "response.output_text.delta", "delta": word, "logprobs": []})));
    }
    events.extend([
        joined(&place, json!({"type": "response.output_text.done", "text": text(), "logprobs": []})),
        joined(&place, json!({"type": "response.content_part.done", "part": part(&text())})),
        json!({"type": "response.output_item.done", "output_index": 0, "item": item("completed", &json!([part(&text())]))}),
        json!({"type": "response.completed", "response": response(asked)}),
    ]);
    let numbered = events.into_iter().enumerate().map(|(number, mut event)| {
        event["sequence_number"] = json!(number);
        format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
    });
    numbered.collect()
}

fn joined(first: &Value, second: Value) -> Value {
    let (mut all, second) = (first.as_object().cloned().unwrap_or_default(), second);
    all.extend(second.as_object().cloned().unwrap_or_default());
    Value::Object(all)
}

pub fn embeddings(asked: &Value) -> Value {
    let count = asked["input"].as_array().map_or(1, Vec::len);
    let data: Vec<Value> = (0..count)
        .map(|index| {
            let vector = [0.25_f32, -0.5, index as f32 + 0.5];
            let embedding = if asked["encoding_format"] == "base64" {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                json!(base64::engine::general_purpose::STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let usage = json!({"prompt_tokens": 2 * count, "total_tokens": 2 * count});
    json!({"object": "list", "data": data, "model": asked["model"], "usage": usage})
}

pub fn message(asked: &Value) -> Value {
    json!({
        "id": "msg_mock", "type": "message", "role": "assistant", "model": asked["model"],
        "content": [{"type": "text", "text": text()}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 4, "output_tokens": 7},
    })
}

pub fn message_events(asked: &Value) -> Vec<String> {
    let mut start = message(asked);
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["usage"]["output_tokens"] = json!(1);
    let mut events = vec![
        json!({"type": "message_start", "message": start}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    for word in WORDS {
        let delta = json!({"type": "text_delta", "text": word});
        events.push(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
    }
    events.push(json!({"type": "content_block_stop", "index": 0}));
    let end = json!({"stop_reason": "end_turn", "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": end, "usage": {"output_tokens": 7}}));
    events.push(json!({"type": "message_stop"}));
    events.iter().map(|e| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap_or_default())).collect()
}
