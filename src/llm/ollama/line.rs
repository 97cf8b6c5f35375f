//! What Ollama answers: the objects of `/api/chat` and `/api/generate`.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;

use super::openai::Usage;
use super::text::Stamp;
use super::tool_call::ToolCall;
use super::{Kind, Moment, Plan};

/// One object, with the fields of a chat or of a generation.
#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: Stamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    done: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    done_reason: Option<&'static str>,
    /// No upstream gives tokens to go on from, so it is always empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<[u8; 0]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a RawValue>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    totals: Option<Totals>,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    thinking: &'a str,
    #[serde(skip_serializing_if = "<[ToolCall]>::is_empty")]
    tool_calls: &'a [ToolCall],
}

/// Durations in nanoseconds. Counts that the upstream did not tell are left out.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Totals {
    total_duration: u64,
    load_duration: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_eval_count: Option<u64>,
    prompt_eval_duration: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    eval_count: Option<u64>,
    eval_duration: u64,
}

impl Totals {
    /// `first`: when the first piece of the answer came; `None` when it came as a whole.
    ///
    /// The time to the first piece stands for reading the prompt, the rest for the answer. None is zero: clients divide by
    /// them.
    pub(super) fn new(usage: Usage, first: Option<Duration>, total: Duration) -> Self {
        let reading = first.unwrap_or_default().min(total);
        Self {
            total_duration: nanoseconds(total).max(1),
            load_duration: 0,
            prompt_eval_count: usage.prompt,
            prompt_eval_duration: nanoseconds(reading).max(1),
            eval_count: usage.completion,
            eval_duration: nanoseconds(total.saturating_sub(reading)).max(1),
        }
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A piece of an answer.
#[derive(Default)]
pub(super) struct Piece<'a> {
    pub(super) content: &'a str,
    pub(super) thinking: &'a str,
    pub(super) tool_calls: &'a [ToolCall],
    pub(super) logprobs: Option<&'a RawValue>,
}

/// The end of an answer.
pub(super) struct Done {
    pub(super) reason: &'static str,
    /// `None` when no upstream was asked.
    pub(super) totals: Option<Totals>,
}

/// Writes one object, without a line end.
pub(super) fn write(plan: &Plan, now: &Moment, piece: &Piece<'_>, done: Option<Done>, out: &mut Vec<u8>) {
    let chat = plan.kind == Kind::Chat;
    let thinking = if plan.thinking { piece.thinking } else { "" };
    let (content, tool_calls) = (piece.content, piece.tool_calls);
    let over = done.is_some();
    let (reason, totals) = done.map_or((None, None), |done| (Some(done.reason), done.totals));
    let line = Line {
        model: &plan.model,
        created_at: Stamp(now.wall),
        message: chat.then_some(Message { role: "assistant", content, thinking, tool_calls }),
        response: if chat { None } else { Some(content) },
        thinking: if chat { "" } else { thinking },
        done: over,
        done_reason: reason,
        context: (over && !chat && totals.is_some()).then_some([]),
        logprobs: piece.logprobs,
        totals,
    };
    // Writing texts and numbers to memory cannot fail.
    let _ = serde_json::to_writer(out, &line);
}
