//! How a stream ends that is cut short on purpose: in its own words, as if the longest answer allowed were reached, so that
//! every client takes it for whole.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Answer, Endpoint};
use crate::llm::sse;

/// The events behind the last that passed; `None` for what has no such words. `input` and `output` are told where the format
/// tells counts at its end.
#[must_use]
pub fn of(endpoint: Endpoint, answer: &Answer, input: u64, output: u64) -> Option<Bytes> {
    let model = answer.model().unwrap_or_default();
    let id = answer.id().unwrap_or_default();
    let event = |name: &str, value: &Value| sse::encode(name, value.to_string().as_bytes());
    let line = |value: Value| Bytes::from(format!("{value}\n"));
    let stamp = "1970-01-01T00:00:00Z";
    Some(match endpoint {
        Endpoint::Chat | Endpoint::Completions => {
            let chat = endpoint == Endpoint::Chat;
            // Only as many choices as a request may ask for.
            let choices: Vec<Value> = (0..=answer.last_choice().min(127))
                .map(|index| {
                    if chat {
                        json!({"index": index, "delta": {}, "finish_reason": "length"})
                    } else {
                        json!({"index": index, "text": "", "finish_reason": "length"})
                    }
                })
                .collect();
            let object = if chat { "chat.completion.chunk" } else { "text_completion" };
            let last = json!({
                "id": id, "object": object, "created": answer.created(), "model": model, "choices": choices,
            });
            [&event("", &last)[..], b"data: [DONE]\n\n"].concat().into()
        }
        Endpoint::Responses => event(
            "response.incomplete",
            &json!({
                "type": "response.incomplete",
                "sequence_number": answer.sequence_number().saturating_add(1),
                "response": {
                    "id": id, "object": "response", "created_at": answer.created(), "status": "incomplete",
                    "error": null, "incomplete_details": {"reason": "max_output_tokens"}, "model": model,
                    "output": [], "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
                    "usage": {
                        "input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
                        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0},
                        "total_tokens": input.saturating_add(output),
                    },
                },
            }),
        ),
        Endpoint::Messages => {
            let delta = json!({
                "type": "message_delta",
                "delta": {"stop_reason": "max_tokens", "stop_sequence": null},
                "usage": {"output_tokens": output},
            });
            let stop = event("message_stop", &json!({"type": "message_stop"}));
            // A block that is open is closed first.
            let block = answer
                .open_block()
                .map(|index| event("content_block_stop", &json!({"type": "content_block_stop", "index": index})));
            [&block.unwrap_or_default()[..], &event("message_delta", &delta), &stop].concat().into()
        }
        Endpoint::Gemini => event(
            "",
            &json!({
                "candidates": [{"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": "MAX_TOKENS", "index": 0}],
                "usageMetadata": {
                    "promptTokenCount": input, "candidatesTokenCount": output,
                    "totalTokenCount": input.saturating_add(output),
                },
                "modelVersion": model,
            }),
        ),
        Endpoint::OllamaChat => line(json!({
            "model": model, "created_at": stamp, "message": {"role": "assistant", "content": ""},
            "done": true, "done_reason": "length", "prompt_eval_count": input, "eval_count": output,
        })),
        Endpoint::OllamaGenerate => line(json!({
            "model": model, "created_at": stamp, "response": "",
            "done": true, "done_reason": "length", "prompt_eval_count": input, "eval_count": output,
        })),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::Framing;
    use super::*;

    fn ended(endpoint: Endpoint, framing: Framing, begun: &str) -> String {
        let mut answer = Answer::new(framing);
        answer.feed(begun.as_bytes());
        let words = of(endpoint, &answer, 5, 3).unwrap();
        answer.feed(&words);
        answer.end();
        assert!(answer.is_finished(), "{endpoint:?}");
        String::from_utf8(words.to_vec()).unwrap()
    }

    #[test]
    fn every_format_ends_in_its_own_words() {
        let chunk = "data: {\"id\":\"c\",\"model\":\"m\",\"created\":9,\"choices\":[{\"index\":1,\"delta\":{\"content\":\"x\"}}]}\n\n";
        let chat = ended(Endpoint::Chat, Framing::Events, chunk);
        assert!(chat.ends_with("\n\ndata: [DONE]\n\n") && chat.matches("\"length\"").count() == 2, "{chat}");
        assert!(chat.contains("\"id\":\"c\"") && chat.contains("\"created\":9"), "{chat}");
        ended(Endpoint::Completions, Framing::Events, chunk);
        let begun = "data: {\"type\":\"content_block_start\",\"index\":2,\"content_block\":{}}\n\n";
        let messages = ended(Endpoint::Messages, Framing::Events, begun);
        assert!(messages.starts_with("event: content_block_stop\ndata: {\"index\":2"), "{messages}");
        let closed = format!("{begun}data: {{\"type\":\"content_block_stop\",\"index\":2}}\n\n");
        assert!(ended(Endpoint::Messages, Framing::Events, &closed).starts_with("event: message_delta\n"));
        let begun = "data: {\"type\":\"response.created\",\"sequence_number\":4,\"response\":{\"id\":\"r\"}}\n\n";
        let responses = ended(Endpoint::Responses, Framing::Events, begun);
        assert!(responses.contains("\"sequence_number\":5") && responses.contains("\"id\":\"r\""), "{responses}");
        ended(Endpoint::Gemini, Framing::Events, "");
        ended(Endpoint::OllamaChat, Framing::Lines, "{\"model\":\"m\",\"message\":{\"content\":\"a\"}}\n");
        ended(Endpoint::OllamaGenerate, Framing::Lines, "");
    }
}
