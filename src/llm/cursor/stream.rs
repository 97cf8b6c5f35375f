//! The event stream of a chat completion as Cursor wants it: one finish reason for each choice, behind it at most a usage
//! chunk and `[DONE]`, no null `finish_reason` and `usage`, and an error event where the upstream broke off.

use bytes::Bytes;
use smallvec::SmallVec;

use super::Plan;
use super::answer::{Choice, is_unfinished};
use crate::llm::dialect::Dialect;
use crate::llm::error_body::{self, Fault};
use crate::llm::json_view::{Edit, Rewriter, Value};
use crate::llm::peek::Flaw;
use crate::llm::sse::{self, Event};

const DONE: &[u8] = b"data: [DONE]\n\n";

/// Choices that are followed; `n` is 128 at most at OpenAI.
const MAX_CHOICES: usize = 128;

/// Edits the events of one stream.
#[derive(Debug)]
pub struct Stream {
    plan: Plan,
    choices: SmallVec<[Choice; 1]>,
    /// Members of the first chunk that a chunk of ours needs: id, created, model.
    head: Option<Vec<u8>>,
    /// The upstream reported an error itself.
    failed: bool,
    /// A usage chunk has followed the finish reason.
    usage_sent: bool,
    done: bool,
}

/// What becomes of an event's data.
enum Data {
    Keep,
    Drop,
    Replace(Vec<u8>),
}

impl Stream {
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        Self { plan, choices: SmallVec::new(), head: None, failed: false, usage_sent: false, done: false }
    }

    /// Passes an event on, as it is, edited, or not at all.
    pub fn event(&mut self, event: Event, mut out: impl FnMut(Bytes)) {
        if self.done {
            return;
        }
        let data = event.data();
        if !event.is_terminated() && !data.as_deref().is_some_and(is_whole) {
            // Cut off: half an event is of no use to anybody.
            return;
        }
        let Some(data) = data else {
            out(event.into_raw());
            return;
        };
        if data.trim_ascii() == b"[DONE]" {
            if let Some(chunk) = self.missing_finish() {
                out(chunk);
            }
            self.done = true;
            out(terminated(event));
            return;
        }
        match self.data(&data) {
            Data::Drop => {}
            Data::Keep => out(terminated(event)),
            Data::Replace(with) => out(match event.data_span() {
                Some(span) if event.is_terminated() => {
                    let raw = event.raw();
                    [&raw[..span.start], &with, &raw[span.end..]].concat().into()
                }
                _ => sse::encode(&String::from_utf8_lossy(event.name()), &with),
            }),
        }
    }

    /// The stream ended: `Ok` where the upstream closed it properly, else the code of what went wrong.
    pub fn end(&mut self, how: Result<(), &str>, mut out: impl FnMut(Bytes)) {
        if self.done || self.failed {
            return;
        }
        if self.is_complete() {
            out(Bytes::from_static(DONE));
        } else if how.is_err() || !self.choices.is_empty() {
            out(error(
                "The upstream broke off before the answer was complete.",
                how.err().unwrap_or("upstream_body_error"),
            ));
        }
        self.done = true;
    }

    /// Ends the stream with an error of the proxy.
    pub fn fail(&mut self, message: &str, code: &str, mut out: impl FnMut(Bytes)) {
        if !std::mem::replace(&mut self.done, true) {
            out(error(message, code));
        }
    }

    /// All choices that began have their finish reason.
    fn is_complete(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|c| c.finished)
    }

    fn data(&mut self, data: &[u8]) -> Data {
        // What cannot be read as a chunk passes, but nothing unknown behind the finish reason.
        let unknown = |this: &Self| if this.is_complete() { Data::Drop } else { Data::Keep };
        let Ok(root) = Value::parse(data) else { return unknown(self) };
        match self.chunk(root) {
            Ok(Some(data)) => data,
            Ok(None) | Err(_) => unknown(self),
        }
    }

    /// `None`: no chunk.
    fn chunk(&mut self, root: Value<'_>) -> Result<Option<Data>, Flaw> {
        if root.known("error")?.is_some_and(|e| e.raw() != b"false") {
            self.failed = true;
            return Ok(Some(Data::Keep));
        }
        let Some(choices) = root.known("choices")?.filter(|c| c.is_array()) else { return Ok(None) };
        let has_usage = root.known("usage")?.is_some();
        let was_complete = self.is_complete();
        let mut kept = 0_usize;
        let mut rewriter = Rewriter::new(root);
        rewriter.members(root, |rewriter, member| {
            if member.is("usage") && member.value.is_null() {
                return Ok(Edit::Remove);
            }
            if member.is("choices") && member.value.span() == choices.span() {
                rewriter.items(member.value, |rewriter, choice| {
                    let edit = self.choice(rewriter, choice)?;
                    kept += usize::from(!matches!(edit, Edit::Remove));
                    Ok(edit)
                })?;
            }
            Ok(Edit::Keep)
        })?;
        if self.head.is_none() {
            self.head = Some(head(root)?);
        }
        if kept == 0 && (was_complete || !choices.is_empty()) && (!has_usage || self.usage_sent) {
            return Ok(Some(Data::Drop));
        }
        self.usage_sent |= was_complete && has_usage;
        Ok(Some(rewriter.finish().map_or(Data::Keep, Data::Replace)))
    }

    fn choice<'a>(&mut self, rewriter: &mut Rewriter<'a>, choice: Value<'a>) -> Result<Edit, Flaw> {
        let index = choice.known("index")?.and_then(Value::number).unwrap_or(0);
        let last = choice.get("finish_reason")?.is_some_and(|reason| !is_unfinished(reason));
        let place = match self.choices.iter().position(|c| c.index == index) {
            Some(place) => place,
            None if self.choices.len() == MAX_CHOICES => return Ok(Edit::Keep),
            None => {
                self.choices.push(Choice::new(index));
                self.choices.len() - 1
            }
        };
        let state = &mut self.choices[place];
        if state.finished {
            return Ok(Edit::Remove);
        }
        state.finished = last;
        let plan = &self.plan;
        rewriter.members(choice, |rewriter, member| {
            if member.is("finish_reason") && is_unfinished(member.value) {
                return Ok(Edit::Remove);
            }
            if member.is("delta")
                && let Some(delta) = state.edit(member.value, last, plan)?
            {
                rewriter.replace(member.value.span(), &delta);
            }
            Ok(Edit::Keep)
        })?;
        Ok(Edit::Keep)
    }

    /// A chunk that finishes what the upstream left open before `[DONE]`.
    fn missing_finish(&mut self) -> Option<Bytes> {
        if self.failed || self.choices.is_empty() || self.is_complete() {
            return None;
        }
        let mut data = b"{".to_vec();
        data.extend_from_slice(self.head.as_deref().unwrap_or_default());
        data.extend_from_slice(b"\"object\":\"chat.completion.chunk\",\"choices\":[");
        let mut first = true;
        for choice in self.choices.iter_mut().filter(|c| !c.finished) {
            if !std::mem::take(&mut first) {
                data.push(b',');
            }
            choice.finished = true;
            let close = choice.close();
            let delta = if close.is_empty() { "{}".to_owned() } else { format!("{{\"content\":\"{close}\"}}") };
            let reason = if choice.calls { "tool_calls" } else { "stop" };
            let index = choice.index;
            data.extend_from_slice(
                format!("{{\"index\":{index},\"delta\":{delta},\"finish_reason\":\"{reason}\"}}").as_bytes(),
            );
        }
        data.extend_from_slice(b"]}");
        Some(sse::encode("", &data))
    }
}

/// The members of a chunk that the next one has too, each with its comma.
fn head(chunk: Value<'_>) -> Result<Vec<u8>, Flaw> {
    const LONGEST: usize = 256;
    let mut out = Vec::new();
    for member in chunk.members() {
        let member = member?;
        let line_ends = memchr::memchr2(b'\n', b'\r', member.raw()).is_some();
        if member.is_one_of(&["id", "created", "model"]) && member.raw().len() <= LONGEST && !line_ends {
            out.extend_from_slice(member.raw());
            out.push(b',');
        }
    }
    Ok(out)
}

/// Whether data that lacks its line end may be all of it.
fn is_whole(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]" || serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok()
}

/// The event as it came, with the blank line that its sender forgot.
fn terminated(event: Event) -> Bytes {
    if event.is_terminated() {
        return event.into_raw();
    }
    let end: &[u8] = if event.raw().ends_with(b"\n") || event.raw().ends_with(b"\r") { b"\n" } else { b"\n\n" };
    [event.raw(), end].concat().into()
}

fn error(message: &str, code: &str) -> Bytes {
    let fault = Fault { status: 502, message, code: Some(code), ..Fault::default() };
    sse::encode("", &error_body::render(Dialect::OpenAi, &fault))
}

#[cfg(test)]
mod tests {
    use super::super::Reasoning;
    use super::*;
    use crate::llm::sse::Decoder;
    use proptest::prelude::*;

    fn plan(reasoning: Reasoning) -> Plan {
        Plan { reasoning, custom_tools: vec!["ApplyPatch".to_owned()] }
    }

    /// What comes out when these chunks come in and the upstream ends so.
    fn through(chunks: &[&[u8]], how: Result<(), &str>, reasoning: Reasoning) -> String {
        let (mut decoder, mut stream) = (Decoder::new(1 << 16), Stream::new(plan(reasoning)));
        let mut out = Vec::new();
        for chunk in chunks {
            decoder.feed(Bytes::copy_from_slice(chunk));
            while let Some(event) = decoder.next() {
                stream.event(event.unwrap(), |b| out.extend_from_slice(&b));
            }
        }
        if let Some(event) = decoder.finish() {
            stream.event(event, |b| out.extend_from_slice(&b));
        }
        stream.end(how, |b| out.extend_from_slice(&b));
        String::from_utf8_lossy(&out).into_owned()
    }

    fn whole(stream: &str, reasoning: Reasoning) -> String {
        through(&[stream.as_bytes()], Ok(()), reasoning)
    }

    fn keep(stream: &str) -> String {
        whole(stream, Reasoning::Keep)
    }

    fn events(data: &[&str]) -> String {
        data.iter().map(|d| format!("data: {d}\n\n")).collect()
    }

    const OPENAI: &str = "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n\
data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"gr\u{fc}n ,\\\"finish_reason\\\":null\"},\"finish_reason\":null}],\"usage\":null}\n\n\
data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n\
data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"total_tokens\":3}}\n\n\
data: [DONE]\n\n";

    #[test]
    fn openais_stream_loses_its_null_fields_and_nothing_else() {
        let out = keep(OPENAI);
        let expected = OPENAI.replace(",\"finish_reason\":null", "").replace(",\"usage\":null", "");
        assert!(out.contains(r#"grün ,\"finish_reason\":null"#), "{out}");
        assert_eq!(out, expected);
    }

    #[test]
    fn a_stream_without_faults_keeps_its_bytes() {
        let stream = concat!(
            ": hello\r\n\r\n",
            "id: 7\r\ndata:{ \"choices\" : [ {\"delta\":{\"content\":\"a\"}} ] }\r\n\r\n",
            "event: strange\ndata: {\"x\":1}\n\n",
            "data: not json\n\n",
            "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"total_tokens\":1}}\n\n",
            ": ping\n\n",
            "data: [DONE]\n\n",
        );
        assert_eq!(keep(stream), stream);
    }

    #[test]
    fn behind_the_finish_comes_one_usage_and_done() {
        let start = r#"{"id":"i","choices":[{"index":0,"delta":{"content":"a"}}]}"#;
        let finish = r#"{"id":"i","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
        let usage = r#"{"id":"i","choices":[],"usage":{"total_tokens":1}}"#;
        let again = r#"{"id":"i","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],"usage":{"total_tokens":1}}"#;
        let empty = r#"{"id":"i","choices":[],"usage":null}"#;
        for (sent, expected) in [
            (&[start, finish, usage, "[DONE]"][..], &[start, finish, usage, "[DONE]"][..]),
            (&[start, finish, usage, usage, "[DONE]"], &[start, finish, usage, "[DONE]"]),
            (&[start, finish, again, "[DONE]"], &[start, finish, usage, "[DONE]"]),
            (&[start, finish, finish, start, "[DONE]", "[DONE]"], &[start, finish, "[DONE]"]),
            (&[start, finish, empty, r#"{"type":"x"}"#, "x", "[DONE]"], &[start, finish, "[DONE]"]),
            (&[start, finish], &[start, finish, "[DONE]"]),
            (&[start, finish, usage], &[start, finish, usage, "[DONE]"]),
            // Azure's filter results come first, with no choice at all.
            (
                &[r#"{"choices":[],"prompt_filter_results":[]}"#, start],
                &[
                    r#"{"choices":[],"prompt_filter_results":[]}"#,
                    start,
                    r#"{"error":{"message":"The upstream broke off before the answer was complete.","type":"server_error","param":null,"code":"upstream_body_error"}}"#,
                ],
            ),
        ] {
            assert_eq!(keep(&events(sent)), events(expected), "{sent:?}");
        }
    }

    #[test]
    fn a_missing_finish_is_made() {
        let start = r#"{"id":"i","model":"m","choices":[{"index":0,"delta":{"reasoning":"r"}}]}"#;
        let out = whole(&events(&[start, "[DONE]"]), Reasoning::Think);
        assert!(out.contains(r#""delta":{"content":"<think>r"}"#), "{out}");
        let made = r#"{"id":"i","model":"m","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"</think>"},"finish_reason":"stop"}]}"#;
        assert!(out.ends_with(&events(&[made, "[DONE]"])), "{out}");
        let calls = r#"{"choices":[{"index":1,"delta":{"tool_calls":[{"index":0}]}}]}"#;
        let out = keep(&events(&[calls, "[DONE]"]));
        assert!(out.contains(r#""choices":[{"index":1,"delta":{},"finish_reason":"tool_calls"}]"#), "{out}");
        assert_eq!(keep("data: [DONE]\n\n"), "data: [DONE]\n\n");
    }

    #[test]
    fn several_choices_finish_each_for_itself() {
        let part = |index: u8, finish: &str| format!(r#"{{"choices":[{{"index":{index},"delta":{{}}{finish}}}]}}"#);
        let stop = r#","finish_reason":"stop""#;
        let (a, a_stop, b, b_stop) = (part(0, ""), part(0, stop), part(1, ""), part(1, stop));
        let sent = [&*a, &a_stop, &b, &a, &b_stop, "[DONE]"];
        assert_eq!(keep(&events(&sent)), events(&[&a, &a_stop, &b, &b_stop, "[DONE]"]));
        let both = r#"{"choices":[{"index":0,"delta":{"content":"late"}},{"index":1,"delta":{"content":"x"}}]}"#;
        let one = r#"{"choices":[{"index":1,"delta":{"content":"x"}}]}"#;
        assert_eq!(
            keep(&events(&[&a_stop, &b, both, &b_stop, "[DONE]"])),
            events(&[&a_stop, &b, one, &b_stop, "[DONE]"])
        );
    }

    #[test]
    fn an_error_of_the_upstream_passes_and_is_the_last_word() {
        let start = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
        let error = r#"{"error":{"message":"overloaded"}}"#;
        assert_eq!(keep(&events(&[start, error])), events(&[start, error]));
        assert_eq!(keep(&events(&[start, error, "[DONE]"])), events(&[start, error, "[DONE]"]));
        assert!(keep(&events(&[start, r#"{"error":null,"choices":[]}"#])).contains("broke off"));
    }

    #[test]
    fn reasoning_is_shown_as_thought() {
        let delta = |d: &str| format!(r#"{{"choices":[{{"index":0,"delta":{d}}}]}}"#);
        let sent = [
            delta(r#"{"role":"assistant","content":null,"reasoning_content":"a"}"#),
            delta(r#"{"reasoning_content":"b\n","content":null}"#),
            delta(r#"{"content":"c","reasoning_content":null}"#),
            delta(r#"{"content":"d"}"#),
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#.to_owned(),
        ];
        let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
        let out = whole(&events(&sent), Reasoning::Think);
        let text: String = out
            .lines()
            .filter_map(|l| l.strip_prefix("data: {"))
            .filter_map(|l| serde_json::from_str::<serde_json::Value>(&format!("{{{l}")).ok())
            .filter_map(|v| v.pointer("/choices/0/delta/content").and_then(|c| c.as_str().map(str::to_owned)))
            .collect();
        assert_eq!(text, "<think>ab\n</think>cd");
        assert!(!out.contains("reasoning"));
        assert!(!whole(&events(&sent), Reasoning::Hide).contains("reasoning"));
        assert_eq!(keep(&events(&sent[3..])), events(&[sent[3], sent[4], "[DONE]"]));
    }

    #[test]
    fn thought_ends_before_a_call_and_before_the_finish() {
        let sent = [
            r#"{"choices":[{"delta":{"reasoning":"r"}}]}"#,
            r#"{"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
        ];
        let expected = [
            r#"{"choices":[{"delta":{"content":"<think>r"}}]}"#,
            r#"{"choices":[{"delta":{"content":"</think>","tool_calls":[{"index":0}]}}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}"#,
            "[DONE]",
        ];
        assert_eq!(whole(&events(&sent), Reasoning::Think), events(&expected));
        let expected = [
            r#"{"choices":[{"delta":{"content":"<think>r"}}]}"#,
            r#"{"choices":[{"delta":{"content":"</think>"},"finish_reason":"tool_calls"}]}"#,
            "[DONE]",
        ];
        assert_eq!(whole(&events(&[sent[0], sent[2]]), Reasoning::Think), events(&expected));
    }

    #[test]
    fn the_text_of_a_custom_tool_comes_as_arguments() {
        let call =
            |rest: &str| format!(r#"{{"choices":[{{"index":0,"delta":{{"tool_calls":[{{"index":0,{rest}}}]}}}}]}}"#);
        let sent = [
            call(r#""id":"c","type":"function","function":{"name":"ApplyPatch","arguments":""}"#),
            call(r#""function":{"arguments":"{\"in"}"#),
            call(r#""function":{"arguments":"put\":\"*** Beg"}"#),
            call(r#""function":{"arguments":"in\\n+\\\"a\\"}"#),
            call(r#""function":{"arguments":"\"\"}"}"#),
        ];
        let sent: Vec<&str> = sent.iter().map(String::as_str).collect();
        let out = keep(&events(&sent));
        let text: String = out
            .lines()
            .filter_map(|l| l.strip_prefix("data: "))
            .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok())
            .filter_map(|v| {
                let arguments = v.pointer("/choices/0/delta/tool_calls/0/function/arguments")?;
                Some(arguments.as_str()?.to_owned())
            })
            .collect();
        assert_eq!(text, "*** Begin\n+\"a\"");
    }

    /// Cut anywhere, what arrives is whole events with at most one finish, and an end that tells the truth.
    #[test]
    fn cut_at_every_byte() {
        let finish = OPENAI.find("\"stop\"").unwrap();
        let complete = finish + OPENAI[finish..].find('\n').unwrap();
        for at in 0..OPENAI.len() {
            let out = through(&[&OPENAI.as_bytes()[..at]], Err("upstream_body_error"), Reasoning::Keep);
            for data in out.split("\n\n").filter_map(|e| e.strip_prefix("data: ")).filter(|d| *d != "[DONE]") {
                assert!(serde_json::from_str::<serde_json::Value>(data).is_ok(), "cut at {at}: {data}");
            }
            assert!(out.ends_with("\n\n"), "cut at {at}");
            let good = at >= complete;
            assert_eq!(out.ends_with("data: [DONE]\n\n"), good, "cut at {at}: {out}");
            assert_eq!(out.contains("upstream_body_error"), !good, "cut at {at}: {out}");
            assert_eq!(out.matches("\"finish_reason\":\"").count(), usize::from(good), "cut at {at}");
        }
    }

    #[test]
    fn split_at_every_byte() {
        for reasoning in [Reasoning::Keep, Reasoning::Think, Reasoning::Hide] {
            let expected = whole(OPENAI, reasoning);
            for at in 0..=OPENAI.len() {
                let (a, b) = OPENAI.as_bytes().split_at(at);
                assert_eq!(through(&[a, b], Ok(()), reasoning), expected, "split at {at}");
            }
        }
    }

    proptest! {
        /// Whatever comes, at most one finish reason a choice, and nothing behind it but usage and `[DONE]`.
        #[test]
        fn the_rule_holds_for_any_order(
            parts in prop::collection::vec(prop::sample::select(vec![
                r#"{"choices":[{"index":0,"delta":{"content":"a","reasoning":"r"},"finish_reason":null}],"usage":null}"#,
                r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
                r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"ApplyPatch","arguments":"{"}}]}}]}"#,
                r#"{"choices":[],"usage":{"total_tokens":1}}"#,
                r#"{"choices":[{"index":0,"delta":{"content":null},"finish_reason":"length"}],"usage":{"total_tokens":1}}"#,
                r#"{"choices":[{"index":0,"delta":[]}]}"#, r#"{"choices":[5]}"#, r#"{"choices":{}}"#, "{", "[DONE]", "5",
            ]), 0..12),
            reasoning in prop::sample::select(vec![Reasoning::Keep, Reasoning::Think, Reasoning::Hide]),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let stream = events(&parts);
            let end = cut.map_or(stream.len(), |c| c.index(stream.len() + 1));
            let out = through(&[&stream.as_bytes()[..end]], if cut.is_some() { Err("cut") } else { Ok(()) }, reasoning);
            prop_assert!(out.matches("\"finish_reason\":\"").count() <= 1, "{}", out);
            prop_assert!(out.matches("[DONE]").count() <= 1, "{}", out);
            prop_assert!(!out.contains("\"finish_reason\":null") && !out.contains("\"usage\":null"), "{}", out);
            if let Some((_, after)) = out.split_once("\"finish_reason\":\"") {
                let later: Vec<&str> = after.split("\n\n").skip(1).filter(|e| !e.is_empty()).collect();
                prop_assert!(later.len() <= 2, "{}", out);
                prop_assert!(later.iter().all(|e| e.contains("\"usage\":{") || *e == "data: [DONE]"), "{}", out);
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = through(&[&bytes], Ok(()), Reasoning::Think);
        }
    }
}
