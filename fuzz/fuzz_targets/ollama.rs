//! Whatever a client or an upstream sends, the translation is JSON, one object a line, and never a panic.
#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use libfuzzer_sys::fuzz_target;
use llmproxy::llm::model_table::ModelTable;
use llmproxy::llm::ollama::request::{Translated, chat, embed, embeddings, generate};
use llmproxy::llm::ollama::response::{immediate, whole};
use llmproxy::llm::ollama::stream::{End, Stream};
use llmproxy::llm::ollama::{Kind, Moment, Plan, discovery, errors};
use serde_json::value::RawValue;

const NOW: Moment = Moment { wall: UNIX_EPOCH, elapsed: Duration::from_secs(1) };

fn is_one_json_line(bytes: &[u8]) {
    assert!(!bytes.contains(&b'\n'));
    is_json(bytes);
}

fn is_json(bytes: &[u8]) {
    // Read without following its depth, which is passed on as it came.
    serde_json::from_slice::<&RawValue>(bytes).expect("JSON");
}

fuzz_target!(|bytes: &[u8]| {
    let table = ModelTable::default();
    for translate in [chat, generate, embed, embeddings] {
        match translate(bytes, &table) {
            Ok(Translated::Ask(ask)) => is_json(&ask.body),
            Ok(Translated::Immediate(what)) => is_one_json_line(&immediate(&what, &NOW)),
            Err(refused) => is_one_json_line(&errors::body(&refused.text)),
        }
    }
    if let Some(models) = discovery::models(bytes) {
        is_one_json_line(&discovery::tags(&models, &table));
        models.iter().for_each(|model| is_one_json_line(&discovery::show(model, &table, true)));
    }
    is_one_json_line(&errors::translate(404, bytes, Some("m")));
    for kind in [Kind::Chat, Kind::Generate, Kind::Complete, Kind::Embed, Kind::Embeddings] {
        let plan = Plan { model: "m".into(), kind, stream: true, thinking: true, logprobs: true };
        is_one_json_line(&whole(&plan, 200, bytes, &NOW).body);
        let mut stream = Stream::new(plan);
        let mut out = Vec::new();
        // The events of a stream, one a line.
        bytes.split(|c| *c == b'\n').for_each(|data| stream.event(data, &NOW, &mut out));
        stream.end(End::Clean, &NOW, &mut out);
        assert!(stream.is_over() && out.ends_with(b"\n"));
        out[..out.len() - 1].split(|c| *c == b'\n').for_each(is_one_json_line);
    }
});
