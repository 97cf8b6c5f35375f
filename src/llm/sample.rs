//! Answers in the OpenAI format made without any model: for trying a configuration offline, and for tests.
//!
//! Pure: a request body in, response texts out. Every answer says plainly that no model made it.

use serde::Deserialize;
use serde_json::{Value, json};

/// Models that the sample upstream lists.
pub const MODELS: [&str; 2] = ["sample-chat", "sample-embedding"];

/// The fields of a chat request that the answer depends on; all others are accepted and ignored.
#[derive(Debug, Deserialize)]
pub struct ChatRequest {
    pub model: String,
    pub messages: Vec<Message>,
    #[serde(default)]
    pub stream: bool,
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
pub struct Message {
    #[serde(default)]
    pub role: String,
    #[serde(default)]
    pub content: Value,
}

#[derive(Debug, Default, Deserialize)]
pub struct StreamOptions {
    #[serde(default)]
    pub include_usage: bool,
}

#[derive(Debug, Deserialize)]
pub struct EmbeddingsRequest {
    pub model: String,
    pub input: Value,
    #[serde(default)]
    pub dimensions: Option<usize>,
    #[serde(default)]
    pub encoding_format: Option<String>,
}

/// Longest vector made on request.
const MAX_DIMENSIONS: usize = 4096;

impl ChatRequest {
    /// The text of the answer.
    fn text(&self) -> String {
        let last = self.messages.iter().rev().find(|m| m.role == "user").map(|m| plain(&m.content)).unwrap_or_default();
        let shown: String = last.chars().take(200).collect();
        format!("This is the sample upstream of llmproxy, not a language model. You said: {shown}")
    }

    /// The text in the pieces that a stream sends.
    #[must_use]
    pub fn pieces(&self) -> Vec<String> {
        self.text().split_inclusive(' ').map(str::to_owned).collect()
    }

    fn usage(&self) -> Value {
        let prompt: usize = self.messages.iter().map(|m| words(&plain(&m.content))).sum();
        let completion = words(&self.text());
        json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion})
    }

    /// The whole answer of a request that does not stream.
    #[must_use]
    pub fn completion(&self, id: &str, created: u64) -> Value {
        json!({
            "id": id, "object": "chat.completion", "created": created, "model": self.model,
            "choices": [{
                "index": 0,
                "message": {"role": "assistant", "content": self.text(), "refusal": null, "annotations": []},
                "logprobs": null,
                "finish_reason": "stop",
            }],
            "usage": self.usage(),
        })
    }

    /// The events of a stream, in order, each a whole `data: …` block.
    #[must_use]
    pub fn events(&self, id: &str, created: u64) -> Vec<String> {
        let usage_wanted = self.stream_options.as_ref().is_some_and(|o| o.include_usage);
        let chunk = |choices: Value, usage: Option<Value>| {
            let mut chunk = json!({
                "id": id, "object": "chat.completion.chunk", "created": created, "model": self.model, "choices": choices,
            });
            // With include_usage every chunk has the field, null but in the last.
            if usage_wanted {
                chunk["usage"] = usage.unwrap_or(Value::Null);
            }
            format!("data: {chunk}\n\n")
        };
        let delta = |delta: Value, finish: Value| json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
        let mut events = vec![chunk(delta(json!({"role": "assistant", "content": ""}), Value::Null), None)];
        events.extend(self.pieces().into_iter().map(|p| chunk(delta(json!({"content": p}), Value::Null), None)));
        events.push(chunk(delta(json!({}), json!("stop")), None));
        if usage_wanted {
            events.push(chunk(json!([]), Some(self.usage())));
        }
        events.push("data: [DONE]\n\n".to_owned());
        events
    }
}

impl EmbeddingsRequest {
    /// Vectors that depend on the input alone; they mean nothing.
    #[must_use]
    pub fn answer(&self) -> Value {
        let inputs: Vec<String> = match &self.input {
            Value::String(s) => vec![s.clone()],
            Value::Array(items) if items.iter().all(Value::is_string) => items.iter().map(plain).collect(),
            // Token arrays: one, or several.
            Value::Array(items) if items.iter().any(Value::is_array) => items.iter().map(Value::to_string).collect(),
            other => vec![other.to_string()],
        };
        let dimensions = self.dimensions.unwrap_or(8).clamp(1, MAX_DIMENSIONS);
        let base64 = self.encoding_format.as_deref() == Some("base64");
        let data: Vec<Value> = inputs
            .iter()
            .enumerate()
            .map(|(index, text)| {
                let vector = vector(text, dimensions);
                let embedding = if base64 { encode(&vector) } else { json!(vector) };
                json!({"object": "embedding", "index": index, "embedding": embedding})
            })
            .collect();
        let tokens: usize = inputs.iter().map(|t| words(t)).sum();
        json!({
            "object": "list", "data": data, "model": self.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        })
    }
}

#[must_use]
pub fn model_list(created: u64) -> Value {
    let data: Vec<Value> = MODELS.iter().map(|id| model(id, created)).collect();
    json!({"object": "list", "data": data})
}

#[must_use]
pub fn model(id: &str, created: u64) -> Value {
    json!({"id": id, "object": "model", "created": created, "owned_by": "llmproxy-sample"})
}

/// The text of a message's content: a string, or the text parts of a list.
fn plain(content: &Value) -> String {
    match content {
        Value::String(s) => s.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|p| p.get("text").and_then(Value::as_str)).collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

/// A stand-in for tokens.
fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// A unit vector from a hash of the text (FNV-1a, then a linear congruential generator).
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut state =
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let raw: Vec<f32> = (0..dimensions)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let top = u16::try_from(state >> 48).unwrap_or(0);
            f32::from(top) / 32768.0 - 1.0
        })
        .collect();
    let norm = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    raw.into_iter().map(|x| x / norm).collect()
}

/// Little-endian f32 in base64, the form SDKs ask for by default.
fn encode(vector: &[f32]) -> Value {
    use base64::Engine;
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    Value::String(base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(extra: &str) -> ChatRequest {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi there"}}]{extra}}}"#);
        serde_json::from_str(&body).unwrap()
    }

    #[test]
    fn a_stream_says_what_the_whole_answer_says() {
        let request = chat(r#","stream":true,"stream_options":{"include_usage":true}"#);
        let events = request.events("id", 1);
        assert_eq!(events.last().unwrap(), "data: [DONE]\n\n");
        let chunks: Vec<Value> = events[..events.len() - 1]
            .iter()
            .map(|e| serde_json::from_str(e.strip_prefix("data: ").unwrap().trim_end()).unwrap())
            .collect();
        let text: String =
            chunks.iter().filter_map(|c| c.pointer("/choices/0/delta/content").and_then(Value::as_str)).collect();
        let whole = request.completion("id", 1);
        assert_eq!(whole.pointer("/choices/0/message/content").unwrap(), &Value::from(text));
        assert_eq!(chunks.last().unwrap()["usage"], whole["usage"]);
        let finished = chunks.iter().filter(|c| c.pointer("/choices/0/finish_reason") == Some(&json!("stop"))).count();
        assert_eq!(finished, 1);
    }

    #[test]
    fn usage_comes_only_when_asked_for() {
        assert!(chat("").events("id", 1).iter().all(|e| !e.contains("usage")));
    }

    #[test]
    fn embeddings_are_unit_vectors_in_either_encoding() {
        let request: EmbeddingsRequest =
            serde_json::from_str(r#"{"model":"m","input":["a","b"],"dimensions":3}"#).unwrap();
        let answer = request.answer();
        let vector: Vec<f64> = serde_json::from_value(answer["data"][1]["embedding"].clone()).unwrap();
        assert_eq!(vector.len(), 3);
        assert!((vector.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5);
        let encoded: EmbeddingsRequest =
            serde_json::from_str(r#"{"model":"m","input":"a","encoding_format":"base64"}"#).unwrap();
        assert!(encoded.answer()["data"][0]["embedding"].is_string());
    }
}
