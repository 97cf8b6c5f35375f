//! Takes the counts out of a stream whose client did not ask for them: the chunk that has nothing else, and the empty
//! fields of the others. Every other byte stays as it came.

use std::ops::Range;

use bytes::Bytes;

use crate::llm::peek;
use crate::llm::sse::{Decoder, Event, MAX_EVENT};

/// Filters one stream of OpenAI's chat or completions.
#[derive(Debug)]
pub struct Hider {
    /// `None` once an event was too long to be held: the rest passes as it is.
    events: Option<Decoder>,
}

impl Default for Hider {
    fn default() -> Self {
        Self { events: Some(Decoder::new(MAX_EVENT)) }
    }
}

impl Hider {
    /// The next chunk; what goes on is handed to `on`.
    pub fn feed(&mut self, chunk: Bytes, mut on: impl FnMut(Bytes)) {
        let Some(events) = &mut self.events else { return on(chunk) };
        events.feed(chunk);
        while let Some(event) = events.next() {
            match event {
                Ok(event) => without_counts(event, &mut on),
                Err(_) => {
                    events.rest().into_iter().for_each(&mut on);
                    self.events = None;
                    return;
                }
            }
        }
    }

    /// The stream has ended.
    pub fn end(&mut self, mut on: impl FnMut(Bytes)) {
        if let Some(last) = self.events.as_mut().and_then(Decoder::finish) {
            without_counts(last, &mut on);
        }
    }
}

fn without_counts(event: Event, on: &mut impl FnMut(Bytes)) {
    let raw = event.raw();
    // As OpenAI writes it, the last field of the object: a single brace closes what it stands in.
    if let Some(before) = raw.strip_suffix(b",\"usage\":null}\n\n") {
        return on([before, b"}\n\n"].concat().into());
    }
    if memchr::memmem::find(raw, b"\"usage\"").is_none() {
        return on(event.into_raw());
    }
    match event.data_span().and_then(|span| counts(event.raw(), span)) {
        None => on(event.into_raw()),
        Some(Counts::All) => {}
        Some(Counts::Field(field)) => {
            // In one piece: two would be two writes.
            let raw = event.raw();
            on([raw.get(..field.start).unwrap_or_default(), raw.get(field.end..).unwrap_or_default()].concat().into());
        }
    }
}

enum Counts {
    /// Nothing but counts is in it.
    All,
    /// They are empty: where the field stands, with a comma.
    Field(Range<usize>),
}

fn counts(raw: &[u8], span: Range<usize>) -> Option<Counts> {
    let data = raw.get(span.clone())?;
    let [usage, choices] = peek::top_level(data, ["usage", "choices"]).ok()?;
    let (usage, choices) = (usage?, choices?);
    if data.get(usage.clone())? == b"null" {
        let field = field_with_comma(data, usage)?;
        return Some(Counts::Field(span.start + field.start..span.start + field.end));
    }
    let choices = data.get(choices)?;
    let no_choice = choices.strip_prefix(b"[")?.strip_suffix(b"]")?.trim_ascii().is_empty();
    no_choice.then_some(Counts::All)
}

/// The member of this value: with the comma before it, or the one behind it when it is the first.
fn field_with_comma(data: &[u8], value: Range<usize>) -> Option<Range<usize>> {
    let before = data.get(..value.start)?.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end();
    let key = before.strip_suffix(b"\"usage\"")?;
    if let Some(others) = key.trim_ascii_end().strip_suffix(b",") {
        return Some(others.len()..value.end);
    }
    let behind = data.get(value.end..)?;
    let blanks = behind.len() - behind.trim_ascii_start().len();
    let comma = usize::from(behind.get(blanks) == Some(&b','));
    Some(key.len()..value.end + if comma == 1 { blanks + 1 } else { 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filtered(stream: &str, chunk: usize) -> String {
        let (mut hider, mut out) = (Hider::default(), Vec::new());
        for piece in stream.as_bytes().chunks(chunk.max(1)) {
            hider.feed(Bytes::copy_from_slice(piece), |b| out.extend_from_slice(&b));
        }
        hider.end(|b| out.extend_from_slice(&b));
        String::from_utf8(out).unwrap()
    }

    const ASKED: &str = "data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"say \\\"usage\\\":null\"}}],\"usage\":null}\r\n\r\n: ping\n\ndata: {\"usage\" : null , \"choices\":[{}],\"x\":1.50}\n\ndata: {\"choices\":[ ],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n";
    const UNASKED: &str = "data: {\"id\":\"1\",\"choices\":[{\"delta\":{\"content\":\"say \\\"usage\\\":null\"}}]}\r\n\r\n: ping\n\ndata: { \"choices\":[{}],\"x\":1.50}\n\ndata: [DONE]\n\n";

    #[test]
    fn counts_go_and_every_other_byte_stays() {
        for chunk in 1..ASKED.len() {
            assert_eq!(filtered(ASKED, chunk), UNASKED, "{chunk}");
        }
        assert_eq!(filtered("data: {\"choices\":[],\"usage\":{}}", 9), "", "also without a last blank line");
        assert_eq!(filtered("data: {\"usage\":null}\n\n", 9), "data: {\"usage\":null}\n\n", "not a chunk");
    }

    #[test]
    fn counts_beside_a_choice_stay() {
        let both = "data: {\"choices\":[{\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}\n\n";
        assert_eq!(filtered(both, 7), both);
    }

    #[test]
    fn an_event_too_long_to_hold_passes() {
        let long = format!("data: {}\n\n{ASKED}", "x".repeat(MAX_EVENT));
        assert!(filtered(&long, 1 << 20) == long);
    }

    proptest! {
        #[test]
        fn what_has_no_counts_is_untouched(stream in "[a-z:{}\" \r\n]{0,60}", chunk in 1_usize..20) {
            prop_assert_eq!(filtered(&stream, chunk), stream);
        }
    }
}
