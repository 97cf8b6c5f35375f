//! Choices of an answer, chunk or whole: without fields that Cursor stumbles over, with reasoning where it was asked for and
//! the text of a custom tool's call.

use smallvec::SmallVec;

use super::custom_input::{Unwrap, unwrapped};
use super::{Plan, Reasoning};
use crate::llm::json_view::{Edit, Rewriter, Value, string};
use crate::llm::peek::Flaw;

/// An answer that is no stream; `None` when it stays as it is, or is no chat completion.
#[must_use]
pub fn whole(body: &[u8], plan: &Plan) -> Option<Vec<u8>> {
    edit_whole(Value::parse(body).ok()?, plan).ok().flatten()
}

fn edit_whole(root: Value<'_>, plan: &Plan) -> Result<Option<Vec<u8>>, Flaw> {
    if root.known("choices")?.is_none() {
        return Ok(None);
    }
    let mut rewriter = Rewriter::new(root);
    rewriter.members(root, |rewriter, member| {
        if member.is("usage") && member.value.is_null() {
            return Ok(Edit::Remove);
        }
        if !member.is("choices") {
            return Ok(Edit::Keep);
        }
        rewriter.items(member.value, |rewriter, choice| {
            rewriter.members(choice, |rewriter, member| {
                if member.is("finish_reason") && is_unfinished(member.value) {
                    return Ok(Edit::Remove);
                }
                if member.is("message") {
                    let mut state = Choice { whole: true, ..Choice::new(0) };
                    if let Some(message) = state.edit(member.value, true, plan)? {
                        rewriter.replace(member.value.span(), &message);
                    }
                }
                Ok(Edit::Keep)
            })?;
            Ok(Edit::Keep)
        })?;
        Ok(Edit::Keep)
    })?;
    Ok(rewriter.finish())
}

/// Some servers send an empty text where others send null.
pub(super) fn is_unfinished(reason: Value<'_>) -> bool {
    reason.is_null() || reason.inner().is_some_and(<[u8]>::is_empty)
}

/// Fields that hold reasoning text, best first, and one that holds the same in pieces.
const REASONING_TEXT: [&str; 2] = ["reasoning_content", "reasoning"];
const REASONING: [&str; 3] = ["reasoning_content", "reasoning", "reasoning_details"];

/// Calls of custom tools of one choice, at most.
const MAX_CALLS: usize = 256;

/// One choice of an answer, from chunk to chunk.
#[derive(Debug, Default)]
pub(super) struct Choice {
    pub index: u64,
    pub finished: bool,
    /// A call of a tool was seen.
    pub calls: bool,
    /// A `<think>` is open.
    thinking: bool,
    /// Calls of custom tools, by their index.
    custom: SmallVec<[(u64, Unwrap); 1]>,
    /// A whole answer: no piece follows.
    whole: bool,
}

impl Choice {
    pub(super) fn new(index: u64) -> Self {
        Self { index, ..Self::default() }
    }

    /// What closes an open think block.
    pub(super) fn close(&mut self) -> &'static str {
        if std::mem::take(&mut self.thinking) { "</think>" } else { "" }
    }

    /// A `delta` or a `message`; `None` when it stays as it is. `last`: the choice finishes with it.
    pub(super) fn edit(&mut self, delta: Value<'_>, last: bool, plan: &Plan) -> Result<Option<Vec<u8>>, Flaw> {
        let calls = delta.known("tool_calls")?.filter(|calls| calls.is_array() && !calls.is_empty());
        let calling = calls.is_some();
        self.calls |= calling;
        let calls = match calls {
            Some(calls) if !plan.custom_tools.is_empty() => self.edit_calls(calls, plan)?,
            _ => None,
        };
        if plan.reasoning == Reasoning::Keep {
            let Some(calls) = calls else { return Ok(None) };
            let mut rewriter = Rewriter::new(delta);
            rewriter.members(delta, |_, m| {
                Ok(if m.is("tool_calls") { Edit::Replace(tool_calls(&calls)) } else { Edit::Keep })
            })?;
            return Ok(rewriter.finish());
        }
        let mut thought = None;
        if plan.reasoning == Reasoning::Think {
            for name in REASONING_TEXT {
                let text = delta.known(name)?.and_then(Value::inner).filter(|text| !text.is_empty());
                thought = thought.or(text);
            }
        }
        let content = delta.known("content")?.and_then(Value::inner).filter(|text| !text.is_empty());
        let mut text = Vec::new();
        if let Some(thought) = thought {
            if !std::mem::replace(&mut self.thinking, true) {
                text.extend_from_slice(b"<think>");
            }
            text.extend_from_slice(thought);
        }
        if last || content.is_some() || calling {
            text.extend_from_slice(self.close().as_bytes());
        }
        if !text.is_empty() {
            text.extend_from_slice(content.unwrap_or_default());
        }
        put(delta, text, calls)
    }

    /// The list of calls, with the text of custom tools in place of their arguments.
    fn edit_calls(&mut self, list: Value<'_>, plan: &Plan) -> Result<Option<Vec<u8>>, Flaw> {
        let mut rewriter = Rewriter::new(list);
        let mut place = 0;
        rewriter.items(list, |rewriter, call| {
            let index = call.known("index")?.and_then(Value::number).unwrap_or(place);
            place += 1;
            let Some(function) = call.known("function")? else { return Ok(Edit::Keep) };
            if let Some(name) = function.known("name")?.and_then(Value::text)
                && plan.custom_tools.iter().any(|tool| *tool == name)
                && self.custom.len() < MAX_CALLS
                && !self.custom.iter().any(|(known, _)| *known == index)
            {
                self.custom.push((index, Unwrap::default()));
            }
            let Some((_, unwrap)) = self.custom.iter_mut().find(|(known, _)| *known == index) else {
                return Ok(Edit::Keep);
            };
            if let Some(arguments) = function.known("arguments")?
                && let Some(text) = arguments.text()
            {
                let mut with = Vec::new();
                if self.whole {
                    with = unwrapped(&text);
                } else {
                    string(&mut with, unwrap.push(&text).as_bytes());
                }
                rewriter.replace(arguments.span(), &with);
            }
            Ok(Edit::Keep)
        })?;
        Ok(rewriter.finish())
    }
}

/// The delta with this content (as it was when empty), without reasoning and with these calls.
fn put(delta: Value<'_>, text: Vec<u8>, calls: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, Flaw> {
    let has_content = delta.get("content")?.is_some();
    let mut text = (!text.is_empty()).then(|| [b"\"content\":\"", &text[..], b"\""].concat());
    let mut rewriter = Rewriter::new(delta);
    rewriter.members(delta, |_, member| {
        Ok(match () {
            () if member.is_one_of(&REASONING) => match text.take_if(|_| !has_content) {
                Some(text) => Edit::Replace(text),
                None => Edit::Remove,
            },
            () if member.is("content") => text.take().map_or(Edit::Keep, Edit::Replace),
            () if member.is("tool_calls") => {
                calls.as_ref().map_or(Edit::Keep, |calls| Edit::Replace(tool_calls(calls)))
            }
            () => Edit::Keep,
        })
    })?;
    // No field of it was there to be replaced: an end that only closes the think block.
    if let Some(text) = text {
        let start = delta.span().start;
        let comma: &[u8] = if delta.is_empty() { b"" } else { b"," };
        let with = [b"{", &text[..], comma].concat();
        let mut front = Rewriter::new(delta);
        front.replace(start..start + 1, &with);
        // Reasoning and content are absent here, so that at most the calls were edited.
        if let Some(calls) = calls {
            front.members(delta, |_, m| {
                Ok(if m.is("tool_calls") { Edit::Replace(tool_calls(&calls)) } else { Edit::Keep })
            })?;
        }
        return Ok(front.finish());
    }
    Ok(rewriter.finish())
}

fn tool_calls(list: &[u8]) -> Vec<u8> {
    [b"\"tool_calls\":", list].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(reasoning: Reasoning) -> Plan {
        Plan { reasoning, custom_tools: vec!["ApplyPatch".to_owned()] }
    }

    fn edited(body: &str, reasoning: Reasoning) -> String {
        whole(body.as_bytes(), &plan(reasoning)).map_or_else(|| body.to_owned(), |out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn null_fields_are_dropped_and_all_else_stays() {
        let body = r#"{ "id":"1","choices":[{"index":0,"message":{"content":"say \"finish_reason\":null"},"finish_reason":null}],"usage":null,"x":1.0}"#;
        let expected =
            r#"{ "id":"1","choices":[{"index":0,"message":{"content":"say \"finish_reason\":null"}}],"x":1.0}"#;
        assert_eq!(edited(body, Reasoning::Keep), expected);
        let good = r#"{"choices":[{"message":{"content":"a","reasoning_content":"b"},"finish_reason":"stop"}],"usage":{"total_tokens":1}}"#;
        assert_eq!(edited(good, Reasoning::Keep), good);
        for other in [r#"{"error":{"message":"no"},"usage":null}"#, "not json", "[]", ""] {
            assert_eq!(edited(other, Reasoning::Think), other);
        }
    }

    #[test]
    fn reasoning_goes_into_the_content_or_away() {
        let body = |message: &str| format!(r#"{{"choices":[{{"message":{message},"finish_reason":"stop"}}]}}"#);
        for (message, think, hide) in [
            (
                r#"{"role":"assistant","content":"b","reasoning_content":"a\n"}"#,
                r#"{"role":"assistant","content":"<think>a\n</think>b"}"#,
                r#"{"role":"assistant","content":"b"}"#,
            ),
            (
                r#"{"reasoning":"a","reasoning_details":[{"text":"a"}],"content":null}"#,
                r#"{"content":"<think>a</think>"}"#,
                r#"{"content":null}"#,
            ),
            (r#"{"reasoning":"a"}"#, r#"{"content":"<think>a</think>"}"#, "{}"),
            (r#"{"content":"b","reasoning":null}"#, r#"{"content":"b"}"#, r#"{"content":"b"}"#),
        ] {
            assert_eq!(edited(&body(message), Reasoning::Think), body(think));
            assert_eq!(edited(&body(message), Reasoning::Hide), body(hide));
        }
    }

    #[test]
    fn a_custom_tool_gets_its_text_back() {
        let body = r#"{"choices":[{"message":{"tool_calls":[{"id":"1","type":"function","function":{"name":"ApplyPatch","arguments":"{\"input\":\"*** Begin\\n+a\"}"}},{"id":"2","function":{"name":"other","arguments":"{\"input\":\"x\"}"}}]}}]}"#;
        let expected = r#"{"choices":[{"message":{"tool_calls":[{"id":"1","type":"function","function":{"name":"ApplyPatch","arguments":"*** Begin\n+a"}},{"id":"2","function":{"name":"other","arguments":"{\"input\":\"x\"}"}}]}}]}"#;
        assert_eq!(edited(body, Reasoning::Keep), expected);
        assert_eq!(edited(body, Reasoning::Think), expected);
    }
}
