//! What a proxy may say within a stream that has begun: that it is still there, and that the rest will not come.
//!
//! Pure. [`Protocol`] knows the words of each kind of stream, [`Place`] where in it a word of one's own may stand.

use bytes::Bytes;

use super::dialect::Dialect;
use super::error_body::{self, Fault};
use super::sse;

/// A kind of stream, by what its readers take for an error and for a sign of life.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Server-sent events of whatever meaning: comments are safe, an error has no shape.
    Events,
    /// Chunks of OpenAI's chat and completions, and of the many compatible servers.
    OpenAi,
    /// OpenAI's Responses API: every event is named.
    Responses,
    Anthropic,
    /// Ollama's own API: a JSON object a line.
    Lines,
}

impl Protocol {
    /// What a response of this type to a request for this path streams; `None` for what is no stream we know.
    #[must_use]
    pub fn of(content_type: &[u8], path: &str) -> Option<Self> {
        if sse::is_event_stream(content_type) {
            return Some(match Dialect::of_path(path) {
                Some(Dialect::OpenAi) if path.split('/').any(|segment| segment == "responses") => Self::Responses,
                Some(Dialect::OpenAi) => Self::OpenAi,
                Some(Dialect::Anthropic) => Self::Anthropic,
                // Ollama's own routes answer in lines.
                Some(Dialect::Ollama) | None => Self::Events,
            });
        }
        let kind = content_type.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
        let lines = kind.eq_ignore_ascii_case(b"application/x-ndjson");
        (lines && Dialect::of_path(path) == Some(Dialect::Ollama)).then_some(Self::Lines)
    }

    /// What tells a client that its stream lives; `None` where nothing may: readers of JSON lines take an empty one for
    /// broken JSON.
    #[must_use]
    pub fn sign_of_life(self) -> Option<&'static [u8]> {
        match self {
            Self::Events | Self::OpenAi | Self::Responses => Some(b": keepalive\n\n"),
            Self::Anthropic => Some(b"event: ping\ndata: {\"type\":\"ping\"}\n\n"),
            Self::Lines => None,
        }
    }

    /// Whether [`error`](Self::error) has words.
    #[must_use]
    pub fn tells_errors(self) -> bool {
        self != Self::Events
    }

    /// The event that official clients raise as an error; empty where there is none.
    #[must_use]
    pub fn error(self, fault: &Fault<'_>) -> Bytes {
        match self {
            Self::Events => Bytes::new(),
            Self::OpenAi => sse::encode("", &error_body::render(Dialect::OpenAi, fault)),
            Self::Responses => sse::encode("error", &responses_error(fault)),
            Self::Anthropic => sse::encode("error", &error_body::render(Dialect::Anthropic, fault)),
            Self::Lines => [&error_body::render(Dialect::Ollama, fault)[..], b"\n"].concat().into(),
        }
    }

    /// True when `tail`, the end of what was sent, says that the answer is whole.
    fn is_last_word(self, tail: &[u8]) -> bool {
        let word: &[u8] = match self {
            Self::OpenAi => b"[DONE]",
            Self::Anthropic => b"message_stop",
            Self::Events | Self::Responses | Self::Lines => return false,
        };
        memchr::memmem::find(tail, word).is_some()
    }
}

/// The documented event is flat (`ResponseErrorEvent`); the API itself, and what the SDKs raise, has the fields under
/// `error`. Both are there, so that every reader finds them.
fn responses_error(fault: &Fault<'_>) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Event<'a> {
        r#type: &'a str,
        sequence_number: u32,
        #[serde(flatten)]
        flat: Fields<'a>,
        error: Typed<'a>,
    }
    #[derive(serde::Serialize, Clone, Copy)]
    struct Fields<'a> {
        code: Option<&'a str>,
        message: &'a str,
        param: Option<&'a str>,
    }
    #[derive(serde::Serialize)]
    struct Typed<'a> {
        r#type: &'a str,
        #[serde(flatten)]
        fields: Fields<'a>,
    }
    let fields = Fields { code: fault.code, message: fault.message, param: fault.param };
    let kind = fault.kind.unwrap_or_else(|| error_body::openai_kind(fault.status));
    let error = Typed { r#type: kind, fields };
    serde_json::to_vec(&Event { r#type: "error", sequence_number: 0, flat: fields, error }).unwrap_or_default()
}

/// How much of the end of a stream is remembered: the last event of Anthropic's fits.
const TAIL: usize = 32;

/// The end of what was sent, from which follows what may come next.
#[derive(Debug, Default)]
pub struct Place {
    tail: [u8; TAIL],
    held: usize,
}

impl Place {
    /// These bytes were sent.
    pub fn passed(&mut self, chunk: &[u8]) {
        if let Some(end) = chunk.len().checked_sub(TAIL).and_then(|at| chunk.get(at..)) {
            self.tail.copy_from_slice(end);
            self.held = TAIL;
            return;
        }
        let kept = self.held.min(TAIL - chunk.len());
        self.tail.copy_within(self.held - kept..self.held, 0);
        if let Some(room) = self.tail.get_mut(kept..kept + chunk.len()) {
            room.copy_from_slice(chunk);
        }
        self.held = kept + chunk.len();
    }

    #[must_use]
    pub fn is_at_start(&self) -> bool {
        self.held == 0
    }

    fn tail(&self) -> &[u8] {
        self.tail.get(..self.held).unwrap_or_default()
    }

    /// True at the beginning and behind a blank line: nothing is torn apart by another event.
    #[must_use]
    pub fn is_between_events(&self) -> bool {
        self.tail().is_empty() || before_line_end(self.tail()).is_some_and(|line| ends_line(line) || line.is_empty())
    }

    /// What must be written before an event of one's own, so that it is read as one.
    #[must_use]
    pub fn gap(&self, protocol: Protocol) -> &'static [u8] {
        let tail = self.tail();
        match protocol {
            Protocol::Lines if tail.is_empty() || ends_line(tail) => b"",
            Protocol::Lines => b"\n",
            _ if self.is_between_events() => b"",
            _ if tail.ends_with(b"\n") => b"\n",
            // Also behind a CR, of which one LF would be the second half.
            _ => b"\n\n",
        }
    }

    /// True when the stream said that it is whole; what happens to the connection after that harms nobody.
    #[must_use]
    pub fn is_complete(&self, protocol: Protocol) -> bool {
        protocol.is_last_word(self.tail())
    }
}

fn ends_line(bytes: &[u8]) -> bool {
    matches!(bytes.last(), Some(b'\n' | b'\r'))
}

/// The bytes without the line end they have; `None` when they end within a line.
fn before_line_end(bytes: &[u8]) -> Option<&[u8]> {
    match bytes {
        [rest @ .., b'\r', b'\n'] | [rest @ .., b'\n' | b'\r'] => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const SSE: &[u8] = b"text/event-stream; charset=utf-8";

    fn at(text: &str) -> Place {
        let mut place = Place::default();
        place.passed(text.as_bytes());
        place
    }

    #[test]
    fn the_path_and_the_type_tell_the_protocol() {
        for (kind, path, protocol) in [
            (SSE, "/v1/chat/completions", Some(Protocol::OpenAi)),
            (SSE, "/openai/deployments/d/chat/completions", Some(Protocol::OpenAi)),
            (SSE, "/v1/responses", Some(Protocol::Responses)),
            (SSE, "/team/v1/messages", Some(Protocol::Anthropic)),
            (SSE, "/events", Some(Protocol::Events)),
            (b"application/x-ndjson", "/api/chat", Some(Protocol::Lines)),
            (b"application/x-ndjson", "/export", None),
            (b"application/json", "/v1/chat/completions", None),
        ] {
            assert_eq!(Protocol::of(kind, path), protocol, "{path}");
        }
    }

    #[test]
    fn errors_have_the_shape_that_clients_read() {
        let fault = Fault { status: 502, message: "gone", code: Some("upstream_body_error"), ..Fault::default() };
        let read = |protocol: Protocol, prefix: &str| -> Value {
            let text = String::from_utf8(protocol.error(&fault).to_vec()).unwrap();
            let data =
                text.strip_prefix(prefix).and_then(|t| t.strip_suffix("\n")).unwrap_or_else(|| panic!("{text:?}"));
            serde_json::from_str(data).unwrap()
        };
        let openai = json!({"type": "server_error", "message": "gone", "param": null, "code": "upstream_body_error"});
        assert_eq!(read(Protocol::OpenAi, "data: "), json!({"error": openai}));
        let event = read(Protocol::Responses, "event: error\ndata: ");
        assert_eq!((&event["type"], &event["error"]), (&json!("error"), &openai));
        assert_eq!((&event["message"], &event["code"]), (&json!("gone"), &json!("upstream_body_error")));
        let anthropic = json!({"type": "error", "error": {"type": "api_error", "message": "gone"}});
        assert_eq!(read(Protocol::Anthropic, "event: error\ndata: "), anthropic);
        assert_eq!(read(Protocol::Lines, ""), json!({"error": "gone"}));
        assert!(Protocol::Events.error(&fault).is_empty() && !Protocol::Events.tells_errors());
    }

    #[test]
    fn a_word_of_ones_own_stands_only_between_events() {
        for between in
            ["", "\n", "data: x\n\n", "data: x\r\n\r\n", "data: x\r\r", "data: x\n\r\n", "x\r\n\r", ": c\n\n"]
        {
            assert!(at(between).is_between_events(), "{between:?}");
            assert_eq!(at(between).gap(Protocol::OpenAi), b"", "{between:?}");
        }
        for (within, gap) in [("data: x", "\n\n"), ("data: x\n", "\n"), ("data: x\r\n", "\n"), ("data: x\r", "\n\n")] {
            assert!(!at(within).is_between_events(), "{within:?}");
            assert_eq!(at(within).gap(Protocol::Anthropic), gap.as_bytes(), "{within:?}");
        }
        assert_eq!(at("{\"a\":1}\n").gap(Protocol::Lines), b"");
        assert_eq!(at("{\"a\":").gap(Protocol::Lines), b"\n");
    }

    #[test]
    fn a_stream_that_said_its_last_word_is_complete() {
        assert!(at("data: [DONE]\n\n").is_complete(Protocol::OpenAi));
        assert!(
            at("event: message_stop\ndata: {\"type\": \"message_stop\" }\r\n\r\n").is_complete(Protocol::Anthropic)
        );
        assert!(!at("data: [DONE]\n\n").is_complete(Protocol::Anthropic));
        assert!(!at("data: {}\n\n").is_complete(Protocol::OpenAi));
    }

    proptest! {
        /// Behind the gap an event is read as itself, wherever the stream stopped and however it was cut.
        #[test]
        fn an_event_behind_the_gap_is_read_whole(
            pieces in prop::collection::vec(prop::sample::select(vec![
                "\n", "\r", "\r\n", "\n\n", "data: x", "data", ":", "event: y", "a longer piece than the place remembers of it",
            ]), 0..12),
        ) {
            let mut place = Place::default();
            for piece in &pieces {
                place.passed(piece.as_bytes());
            }
            let before = pieces.concat();
            let whole = [before.as_bytes(), place.gap(Protocol::OpenAi), b"event: own\ndata: {}\n\n"].concat();
            let mut decoder = sse::Decoder::new(sse::MAX_EVENT);
            decoder.feed(whole.into());
            let mut last = None;
            while let Some(event) = decoder.next() {
                last = Some(event.unwrap());
            }
            let last = last.unwrap();
            let data = last.data();
            prop_assert_eq!((last.name(), data.as_deref()), (&b"own"[..], Some(&b"{}"[..])));
            prop_assert_eq!(&last.raw()[last.raw().len() - 21..], &b"event: own\ndata: {}\n\n"[..]);
        }
    }
}
