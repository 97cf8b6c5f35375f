//! What holds for every input: no panic, bounded work, and each answer is JSON on its own line.

use std::time::{Duration, Instant, UNIX_EPOCH};

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::request::{BadRequest, Translated, chat, embed, embeddings, generate};
use super::response::{immediate, whole};
use super::stream::{End, Stream};
use super::{Kind, Moment, Plan, discovery, errors};
use crate::llm::model_table::ModelTable;

const NOW: Moment = Moment { wall: UNIX_EPOCH, elapsed: Duration::from_secs(1) };

type Translate = fn(&[u8], &ModelTable) -> Result<Translated, BadRequest>;
const ROUTES: [Translate; 4] = [chat, generate, embed, embeddings];
const KINDS: [Kind; 5] = [Kind::Chat, Kind::Generate, Kind::Complete, Kind::Embed, Kind::Embeddings];

fn plan(kind: Kind) -> Plan {
    Plan { model: "m\n\"".into(), kind, stream: true, thinking: true, logprobs: true }
}

fn is_one_json_line(bytes: &[u8]) {
    assert!(!bytes.contains(&b'\n'), "{}", String::from_utf8_lossy(bytes));
    is_json(bytes);
}

fn is_json(bytes: &[u8]) {
    // Read without following its depth, which is passed on as it came.
    serde_json::from_slice::<&RawValue>(bytes).unwrap();
}

/// Whatever a client or an upstream says.
fn any_input(bytes: &[u8]) {
    let table = ModelTable::default();
    for translate in ROUTES {
        match translate(bytes, &table) {
            Ok(Translated::Ask(ask)) => {
                is_json(&ask.body);
                assert!(!ask.plan.model.is_empty());
            }
            Ok(Translated::Immediate(what)) => is_one_json_line(&immediate(&what, &NOW)),
            Err(refused) => is_one_json_line(&errors::body(&refused.text)),
        }
    }
    let _ = discovery::asked(bytes);
    if let Some(models) = discovery::models(bytes) {
        is_one_json_line(&discovery::tags(&models, &table));
        for model in models {
            is_one_json_line(&discovery::show(&model, &table, true));
        }
    }
    is_one_json_line(&errors::translate(404, bytes, Some("m")));
    for kind in KINDS {
        is_one_json_line(&whole(&plan(kind), 200, bytes, &NOW).body);
        let mut stream = Stream::new(plan(kind));
        let mut out = Vec::new();
        stream.event(bytes, &NOW, &mut out);
        stream.event(bytes, &NOW, &mut out);
        stream.end(End::Clean, &NOW, &mut out);
        assert!(stream.is_over() && out.ends_with(b"\n"));
        out[..out.len() - 1].split(|c| *c == b'\n').for_each(is_one_json_line);
    }
}

/// Bodies with everything in them, to be damaged.
const BODIES: [&str; 5] = [
    r#"{"model":"gpt-5:latest","stream":true,"think":"high","format":{"type":"object"},"keep_alive":-1,"options":{"num_predict":5,"stop":["a"],"temperature":1e400},
      "tools":[{"type":"function"}],"messages":[{"role":"Tool","content":"é\u0000","images":["iVBORw0KGgo="],"tool_calls":[{"id":"a","function":{"name":"f","arguments":{"a":
      [1]}}}],"tool_name":"f"}],"prompt":"p","suffix":"s","input":["a","b"],"dimensions":2}"#,
    r#"{"choices":[{"index":0,"delta":{"content":"a","reasoning":"t","tool_calls":[{"index":0,"id":"x","function":{"name":"f","arguments":"{\"a\":
      1}"}}]},"logprobs":{"content":[{"token":"a"}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":18446744073709551615}}"#,
    r#"{"choices":[{"message":{"content":[{"type":"text","text":"a"}],"tool_calls":[{"function":{"name":"f","arguments":{"a":{}}}}]},"finish_reason":"length"}],"error":null}"#,
    r#"{"data":[{"id":"m","index":0,"embedding":[1,2],"created":-5,"created_at":"2025-01-01T00:00:00Z","context_length":18446744073709551615},{"index":1,"embedding":"AACAPw=="}]}"#,
    r#"{"error":{"message":"m","code":"model_not_found"},"detail":[{"msg":"x"}]}"#,
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        any_input(&bytes);
    }

    #[test]
    fn any_damage_is_read_or_refused(body in 0..BODIES.len(), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = BODIES[body].as_bytes().to_vec();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = with }
        any_input(&bytes);
    }

    /// A value of any type in the place of any other.
    #[test]
    fn any_type_in_any_place(body in 0..BODIES.len(), at in any::<prop::sample::Index>(), with in 0..8_usize) {
        let values = ["null", "true", "0", "-1.5e9", "\"\"", "[]", "{}", "[[{}]]"];
        let text = BODIES[body];
        let places: Vec<usize> = text.match_indices(':').map(|(at, _)| at + 1).collect();
        let at = places[at.index(places.len())];
        let end = text[at..].find([',', '}']).map_or(text.len(), |end| at + end);
        any_input(format!("{}{}{}", &text[..at], values[with], &text[end..]).as_bytes());
    }
}

#[test]
fn whole_bodies_are_read() {
    for body in BODIES {
        any_input(body.as_bytes());
    }
}

#[test]
fn deep_nesting_is_refused_or_passed_on_but_never_followed() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        any_input(deep.as_bytes());
        for field in ["tools", "format", "messages", "options", "choices", "error", "data", "keep_alive", "context"] {
            any_input(format!("{{\"model\":\"m\",\"prompt\":\"x\",\"{field}\":{deep}}}").as_bytes());
        }
        let call = format!(
            r#"{{"model":"m","messages":[{{"role":"assistant","tool_calls":[{{"function":{{"name":"f","arguments":{deep}}}}}]}}]}}"#
        );
        any_input(call.as_bytes());
        let delta = format!(
            r#"{{"choices":[{{"delta":{{"tool_calls":[{{"function":{{"name":"f","arguments":{deep}}}}}]}},"finish_reason":"stop"}}]}}"#
        );
        let mut stream = Stream::new(plan(Kind::Chat));
        stream.event(delta.as_bytes(), &NOW, &mut Vec::new());
        stream.end(End::Clean, &NOW, &mut Vec::new());
    }
}

#[test]
fn a_prompt_of_fifty_megabytes_is_read_in_one_go() {
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{}"}}]}}"#, "a".repeat(50 << 20));
    let began = Instant::now();
    let Ok(Translated::Ask(ask)) = chat(body.as_bytes(), &ModelTable::default()) else { panic!("not asked") };
    assert!(ask.body.len() > 50 << 20);
    // Far above what it takes, also without optimisation, and far below what anything quadratic would.
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn endless_tool_calls_end_the_stream() {
    let mut stream = Stream::new(plan(Kind::Chat));
    let mut out = Vec::new();
    let piece = format!(
        r#"{{"choices":[{{"delta":{{"tool_calls":[{{"index":0,"id":"x","function":{{"name":"f","arguments":"{}"}}}}]}}}}]}}"#,
        "a".repeat(1 << 20)
    );
    for _ in 0..17 {
        stream.event(piece.as_bytes(), &NOW, &mut out);
    }
    assert!(stream.is_over());
    assert_eq!(out, b"{\"error\":\"the upstream's tool calls are too large\"}\n");
    let mut stream = Stream::new(plan(Kind::Chat));
    for n in 0..600 {
        let call =
            format!(r#"{{"choices":[{{"delta":{{"tool_calls":[{{"index":{n},"function":{{"name":"f"}}}}]}}}}]}}"#);
        stream.event(call.as_bytes(), &NOW, &mut out);
    }
    assert!(stream.is_over());
}
