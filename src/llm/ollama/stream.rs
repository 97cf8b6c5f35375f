//! Streamed answers: SSE events in, JSON lines out.

use std::time::Duration;

use super::line::{Done, Piece, Totals, write};
use super::logprob::logprobs;
use super::openai::{Answer, Choice, Usage, failure, object};
use super::response::done_reason;
use super::tool_call::Gathered;
use super::{Moment, Plan, errors};

/// How an upstream's stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its body was whole, as HTTP counts.
    Clean,
    /// The connection broke, or a time limit struck.
    Broken,
}

/// The translation of one stream.
///
/// Text goes on at once, one line a chunk. Tool calls are held until they are whole and come in one line before the last;
/// the last line waits for the counts that follow the finish reason. An error ends the stream with a line `{"error":…}`; so
/// does an end of which the upstream never said that it was one, and then no line says `"done":true`.
#[derive(Debug)]
pub struct Stream {
    plan: Plan,
    calls: Gathered,
    usage: Usage,
    /// Set when the upstream said why it stops.
    finish: Option<&'static str>,
    /// When the first piece came.
    first: Option<Duration>,
    over: bool,
}

impl Stream {
    pub fn new(plan: Plan) -> Self {
        Self { plan, calls: Gathered::default(), usage: Usage::default(), finish: None, first: None, over: false }
    }

    /// The last line was written: what follows is of no interest.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The data of one event; appends no line, one or more to `out`. What is no chunk of an answer is passed over.
    pub fn event(&mut self, data: &[u8], now: &Moment, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        let data = data.trim_ascii();
        if data == b"[DONE]" {
            self.finish.get_or_insert("stop");
            return self.done(now, out);
        }
        let Some(answer) = std::str::from_utf8(data).ok().and_then(object::<Answer<'_>>) else { return };
        if let Some(failure) = failure(&answer) {
            return self.fail(&errors::of_value(failure.get()), out);
        }
        self.usage.update(Usage::read(answer.usage));
        let mut choices = answer.choices.unwrap_or_default();
        if let Some(at) = choices.iter().position(Choice::is_first) {
            self.choice(choices.swap_remove(at), now, out);
        }
    }

    /// The upstream's body is at its end. Nothing is written when the last line was written before.
    pub fn end(&mut self, end: End, now: &Moment, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        match (end, self.finish) {
            // A server that forgets its `[DONE]`.
            (End::Clean, Some(_)) => self.done(now, out),
            _ => self.fail("the upstream ended the stream before the answer was complete", out),
        }
    }

    /// Ends the stream with an error line. Nothing is written when the last line was written before.
    pub fn fail(&mut self, text: &str, out: &mut Vec<u8>) {
        if self.over {
            return;
        }
        self.over = true;
        out.extend_from_slice(&errors::body(text));
        out.push(b'\n');
    }

    fn choice(&mut self, choice: Choice<'_>, now: &Moment, out: &mut Vec<u8>) {
        let finish = choice.finish_reason();
        if !finish.is_empty() {
            self.finish = Some(done_reason(&finish));
        }
        let logprobs = choice.logprobs.filter(|_| self.plan.logprobs).and_then(logprobs);
        let spoken = choice.spoken();
        for piece in &spoken.tool_calls {
            self.first.get_or_insert(now.elapsed);
            if let Err(fault) = self.calls.add(piece) {
                return self.fail(fault.text(), out);
            }
        }
        let shown_thought = self.plan.thinking && !spoken.thinking.is_empty();
        if !spoken.content.is_empty() || !spoken.thinking.is_empty() {
            self.first.get_or_insert(now.elapsed);
        }
        if !spoken.content.is_empty() || shown_thought || logprobs.is_some() {
            let (content, thinking) = (&*spoken.content, &*spoken.thinking);
            let piece = Piece { content, thinking, tool_calls: &[], logprobs: logprobs.as_deref() };
            write(&self.plan, now, &piece, None, out);
            out.push(b'\n');
        }
    }

    fn done(&mut self, now: &Moment, out: &mut Vec<u8>) {
        let reason = self.finish.unwrap_or("stop");
        if !self.calls.is_empty() {
            let calls = match self.calls.finish(reason == "length") {
                Ok(calls) => calls,
                Err(fault) => return self.fail(fault.text(), out),
            };
            if !calls.is_empty() {
                write(&self.plan, now, &Piece { tool_calls: &calls, ..Piece::default() }, None, out);
                out.push(b'\n');
            }
        }
        let totals = Totals::new(self.usage, self.first, now.elapsed);
        write(&self.plan, now, &Piece::default(), Some(Done { reason, totals: Some(totals) }), out);
        out.push(b'\n');
        self.over = true;
    }
}
