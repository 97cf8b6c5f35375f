//! Whole answers: what is not streamed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::line::{Done, Piece, Totals, nanoseconds, write};
use super::logprob::logprobs;
use super::openai::{Answer, Choice, Embedding, Usage, failure, whole_number};
use super::request::{Immediate, Nothing};
use super::tool_call::Gathered;
use super::{Kind, Moment, Plan, errors};

/// An answer for the client.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    pub status: u16,
    /// JSON, without a line end.
    pub body: Vec<u8>,
}

/// The upstream's answer in Ollama's words. What failed upstream keeps its status; an answer that cannot be read is a 502.
///
/// Also for an upstream that was asked for a stream and answered as a whole: with a line end behind it, it is a stream of
/// one line.
pub fn whole(plan: &Plan, status: u16, body: &[u8], now: &Moment) -> Whole {
    if !(200..300).contains(&status) {
        return Whole { status, body: errors::translate(status, body, Some(&plan.model)) };
    }
    let answer = std::str::from_utf8(body).ok().and_then(super::openai::object::<Answer<'_>>);
    let Some(answer) = answer else { return unreadable("the upstream's answer is not in the OpenAI format") };
    if let Some(failure) = failure(&answer) {
        return Whole { status: 502, body: errors::body(&errors::of_value(failure.get())) };
    }
    let usage = Usage::read(answer.usage);
    match plan.kind {
        Kind::Embed | Kind::Embeddings => vectors(plan, answer.data, usage, now),
        Kind::Chat | Kind::Generate | Kind::Complete => spoken(plan, answer.choices, usage, now),
    }
}

/// The answer to a request that nobody needs to be asked for.
pub fn immediate(immediate: &Immediate, now: &Moment) -> Vec<u8> {
    let (kind, reason) = match immediate.what {
        Nothing::LoadChat => (Kind::Chat, "load"),
        Nothing::UnloadChat => (Kind::Chat, "unload"),
        Nothing::LoadGenerate => (Kind::Generate, "load"),
        Nothing::UnloadGenerate => (Kind::Generate, "unload"),
        Nothing::NoInput => {
            return json(&Embed { model: &immediate.model, embeddings: &[], totals: None });
        }
        Nothing::NoPrompt => return json(&Embeddings { embedding: &Numbers::Read(Vec::new()) }),
    };
    let plan = Plan { model: immediate.model.clone(), kind, stream: false, thinking: false, logprobs: false };
    let mut out = Vec::new();
    write(&plan, now, &Piece::default(), Some(Done { reason, totals: None }), &mut out);
    out
}

fn unreadable(text: &str) -> Whole {
    Whole { status: 502, body: errors::body(text) }
}

fn spoken(plan: &Plan, choices: Option<Vec<Choice<'_>>>, usage: Usage, now: &Moment) -> Whole {
    let first = choices.unwrap_or_default().into_iter().find(Choice::is_first);
    let Some(choice) = first else { return unreadable("the upstream's answer has no choices") };
    let reason = done_reason(&choice.finish_reason());
    let logprobs = choice.logprobs.filter(|_| plan.logprobs).and_then(logprobs);
    let spoken = choice.spoken();
    let mut gathered = Gathered::default();
    let calls = spoken.tool_calls.iter().try_for_each(|piece| gathered.add(piece));
    let calls = match calls.and_then(|()| gathered.finish(reason == "length")) {
        Ok(calls) => calls,
        Err(fault) => return unreadable(fault.text()),
    };
    let piece = Piece {
        content: &spoken.content,
        thinking: &spoken.thinking,
        tool_calls: &calls,
        logprobs: logprobs.as_deref(),
    };
    let mut body = Vec::with_capacity(spoken.content.len() + spoken.thinking.len() + 512);
    let totals = Totals::new(usage, None, now.elapsed);
    write(plan, now, &piece, Some(Done { reason, totals: Some(totals) }), &mut body);
    Whole { status: 200, body }
}

/// Ollama knows two ends; a call of a tool is a `stop` too.
pub(super) fn done_reason(finish: &str) -> &'static str {
    if finish == "length" { "length" } else { "stop" }
}

#[derive(Serialize)]
struct Embed<'a> {
    model: &'a str,
    embeddings: &'a [Numbers<'a>],
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    totals: Option<EmbedTotals>,
}

#[derive(Serialize)]
struct EmbedTotals {
    total_duration: u64,
    load_duration: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<u64>,
}

#[derive(Serialize)]
struct Embeddings<'a> {
    embedding: &'a Numbers<'a>,
}

/// A vector, as the upstream wrote it where it wrote numbers.
#[derive(Serialize)]
#[serde(untagged)]
enum Numbers<'a> {
    Written(&'a RawValue),
    Read(Vec<f32>),
}

fn vectors(plan: &Plan, data: Option<Vec<Embedding<'_>>>, usage: Usage, now: &Moment) -> Whole {
    let mut data = data.unwrap_or_default();
    data.sort_by_key(|one| whole_number(one.index).unwrap_or(0));
    let read: Option<Vec<Numbers<'_>>> = data.iter().map(|one| one.embedding.and_then(numbers)).collect();
    let Some(vectors) = read.filter(|all| !all.is_empty()) else {
        return unreadable("the upstream's answer has no embeddings");
    };
    let body = match (plan.kind, vectors.first()) {
        (Kind::Embeddings, Some(embedding)) => json(&Embeddings { embedding }),
        _ => {
            let totals = EmbedTotals {
                total_duration: nanoseconds(now.elapsed).max(1),
                load_duration: 0,
                prompt_eval_count: usage.prompt,
            };
            json(&Embed { model: &plan.model, embeddings: &vectors, totals: Some(totals) })
        }
    };
    Whole { status: 200, body }
}

fn numbers(raw: &RawValue) -> Option<Numbers<'_>> {
    let text = raw.get();
    if text.starts_with('[') {
        return Some(Numbers::Written(raw));
    }
    let text: super::text::Text<'_> = serde_json::from_str(text).ok()?;
    let bytes = STANDARD.decode(text.as_str()).ok()?;
    if bytes.is_empty() || bytes.len() % 4 != 0 {
        return None;
    }
    Some(Numbers::Read(
        bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect(),
    ))
}

/// Texts, numbers and JSON that was read before cannot fail to be written.
fn json(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}
