//! Golden translations: each file of `tests/golden/ollama` is a conversation in parts, with a line of ten dashes between:
//! what a client of Ollama sends, what the upstream is asked, what it answers, what the client gets. A case may stop after the
//! second part. `UPDATE_GOLDEN=1` writes the second and the fourth anew; read the change before committing it.
//!
//! The last part of a stream is the same however its bytes are cut.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use llmproxy::llm::model_table::ModelTable;
use llmproxy::llm::ollama::request::{self, Translated};
use llmproxy::llm::ollama::response::{immediate, whole};
use llmproxy::llm::ollama::stream::{End, Stream};
use llmproxy::llm::ollama::{Moment, Plan, errors};
use llmproxy::llm::sse::{Decoder, MAX_EVENT};

const DASHES: &str = "\n----------\n";

/// 2026-11-21 14:44:00 UTC.
const MORNING: u64 = 1_795_272_240;

#[test]
fn translations_are_as_agreed() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for path in cases() {
        let text = std::fs::read_to_string(&path).unwrap();
        let parts: Vec<&str> = text.split(DASHES).collect();
        let (asked, plan) = ask(parts[0]);
        let mut actual = format!("{}{DASHES}{asked}", parts[0].trim_end());
        if let Some(answer) = parts.get(2) {
            let plan = plan.unwrap_or_else(|| panic!("{}: an answer to nothing", path.display()));
            actual += &format!("{DASHES}{}{DASHES}{}", answer.trim_end(), answered(&plan, answer.trim_end()));
        }
        actual.push('\n');
        if update {
            std::fs::write(&path, actual).unwrap();
        } else if actual.trim_end() != text.trim_end() {
            wrong.push(format!("{}\nexpected\n{text}\nactual\n{actual}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// `POST /api/chat`, then the body.
fn ask(text: &str) -> (String, Option<Plan>) {
    let (head, body) = text.split_once('\n').unwrap_or((text, ""));
    let table = ModelTable::default();
    let translated = match head {
        "POST /api/chat" => request::chat(body.as_bytes(), &table),
        "POST /api/generate" => request::generate(body.as_bytes(), &table),
        "POST /api/embed" => request::embed(body.as_bytes(), &table),
        "POST /api/embeddings" => request::embeddings(body.as_bytes(), &table),
        other => panic!("no such route: {other}"),
    };
    match translated {
        Ok(Translated::Ask(ask)) => {
            let body: serde_json::Value = serde_json::from_slice(&ask.body).unwrap();
            (format!("POST {}\n{}", ask.path, serde_json::to_string_pretty(&body).unwrap()), Some(ask.plan))
        }
        Ok(Translated::Immediate(what)) => (format!("200\n{}", string(immediate(&what, &moment(0)))), None),
        Err(refused) => (format!("{}\n{}", refused.status, string(errors::body(&refused.text))), None),
    }
}

/// `200 stream`, `200 stream, cut off` or a status, then the body.
fn answered(plan: &Plan, text: &str) -> String {
    let (head, body) = text.split_once('\n').unwrap_or((text, ""));
    let Some(end) = head.strip_prefix("200 stream") else {
        let answer = whole(plan, head.parse().unwrap(), body.as_bytes(), &moment(20));
        return format!("{}\n{}", answer.status, string(answer.body));
    };
    let end = if end.is_empty() { End::Clean } else { End::Broken };
    // The blank line after the last event is lost to the parts of the file.
    let body = format!("{body}\n\n");
    let lines = streamed(plan, body.as_bytes(), body.len(), end);
    for size in [1, 2, 3, 7, 64] {
        assert_eq!(streamed(plan, body.as_bytes(), size, end), lines, "in pieces of {size}");
    }
    lines.lines().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
    format!("200\n{}", lines.trim_end())
}

fn streamed(plan: &Plan, body: &[u8], size: usize, end: End) -> String {
    let mut decoder = Decoder::new(MAX_EVENT);
    let mut stream = Stream::new(plan.clone());
    let (mut out, mut events) = (Vec::new(), 0);
    for piece in body.chunks(size) {
        decoder.feed(Bytes::copy_from_slice(piece));
        while let Some(event) = decoder.next() {
            events += 1;
            if let Some(data) = event.unwrap().data() {
                stream.event(&data, &moment(events), &mut out);
            }
        }
    }
    stream.end(end, &moment(events), &mut out);
    assert!(stream.is_over());
    string(out)
}

/// A tenth of a second passes with every event.
fn moment(events: u32) -> Moment {
    let elapsed = Duration::from_millis(100) * events;
    Moment { wall: UNIX_EPOCH + Duration::from_secs(MORNING) + elapsed, elapsed }
}

fn string(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn cases() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/ollama");
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(found.len() > 20);
    found
}
