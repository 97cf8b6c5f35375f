//! A stream of an LLM API on its way to the client: a sign of life while the upstream is silent, and an error in the
//! stream's own words when it breaks off. Nothing else of it changes, and nothing is held back.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Source};
use crate::client::Deadline;
use crate::http::body_filter::is_encoded;
use crate::http::exchange::Response;
use crate::llm::error_body::Fault;
use crate::llm::in_band::{Place, Protocol};

const BOM: &[u8] = b"\xEF\xBB\xBF";

/// What is said within streams.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StreamRules {
    /// How long an upstream may be silent, after its head, before the client is told that the stream lives; `None` =
    /// never. At least a tick of the coarse clock.
    pub keepalive: Option<Duration>,
    /// Tell of a stream that broke off in its own words, and end it cleanly behind them.
    pub errors: bool,
}

impl Default for StreamRules {
    fn default() -> Self {
        Self { keepalive: None, errors: true }
    }
}

impl StreamRules {
    /// Follows the body of a response, where it is a stream with words for what is to be said. `path` is that of the
    /// request as the upstream got it.
    pub(super) fn follow(self, response: &mut Response, path: &str) {
        if !matches!(response.body(), Body::Stream(_)) {
            return;
        }
        let Some(protocol) = protocol(response.headers(), path) else { return };
        let sign = protocol.sign_of_life().filter(|_| response.status().is_success());
        let keepalive = self.keepalive.and_then(|after| sign.map(|sign| (after, sign)));
        let errors = self.errors && protocol.tells_errors();
        if keepalive.is_none() && !errors {
            return;
        }
        let inner = response.body_mut().take();
        *response.body_mut() = Body::stream(EventStream {
            inner,
            protocol,
            errors,
            keepalive,
            silence: Deadline::default(),
            place: Place::default(),
            began: false,
        });
    }
}

/// What the response streams, if words may be put into it: not where its length is told or its bytes are encoded.
fn protocol(headers: &HeaderMap, path: &str) -> Option<Protocol> {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes)?;
    Protocol::of(kind, path).filter(|_| !headers.contains_key(header::CONTENT_LENGTH) && !is_encoded(headers))
}

struct EventStream {
    inner: Body,
    protocol: Protocol,
    errors: bool,
    /// How long a silence may last, and what ends it.
    keepalive: Option<(Duration, &'static [u8])>,
    /// Set while the upstream is silent.
    silence: Deadline,
    place: Place,
    /// The upstream's first byte has passed.
    began: bool,
}

impl EventStream {
    fn passes(&mut self, mut frame: Frame<Bytes>) -> Frame<Bytes> {
        let Some(data) = frame.data_mut() else { return frame };
        // A byte-order mark is one only at the very beginning, where we have spoken.
        if !self.began && !self.place.is_at_start() && data.starts_with(BOM) {
            data.advance(BOM.len());
        }
        self.began |= !data.is_empty();
        self.place.passed(data);
        self.silence.clear();
        frame
    }

    fn says(&mut self, words: Bytes) -> Frame<Bytes> {
        self.place.passed(&words);
        Frame::data(words)
    }

    /// The upstream is silent: ready when it is time to speak, and a place to.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Bytes> {
        let Some((after, sign)) = self.keepalive else { return Poll::Pending };
        if !self.place.is_between_events() {
            return Poll::Pending;
        }
        if !self.silence.is_set() {
            self.silence.set_after(tokio::time::Instant::now(), after);
        }
        std::task::ready!(self.silence.poll(cx));
        self.silence.clear();
        Poll::Ready(Bytes::from_static(sign))
    }

    /// What the client reads in place of the rest; `None` when the connection must tell it.
    fn last_words(&self, error: &ProxyError) -> Option<Bytes> {
        let upstreams = error.kind.facts().source == Source::Upstream;
        if !self.errors || !upstreams || self.place.is_complete(self.protocol) {
            return None;
        }
        let message = match error.kind {
            Kind::ReadTimeout => "The upstream stopped sending before the answer was complete.",
            _ => "The upstream broke off before the answer was complete.",
        };
        let fault = Fault { status: error.status(), message, code: Some(error.kind.facts().code), ..Fault::default() };
        let gap = self.place.gap(self.protocol);
        Some([gap, &self.protocol.error(&fault)].concat().into())
    }
}

impl HttpBody for EventStream {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(this.passes(frame)))),
            Poll::Ready(Some(Err(error))) => {
                this.inner = Body::Empty;
                let Some(words) = this.last_words(&error) else { return Poll::Ready(Some(Err(error))) };
                Poll::Ready(Some(Ok(this.says(words))))
            }
            Poll::Ready(None) => {
                this.inner = Body::Empty;
                Poll::Ready(None)
            }
            Poll::Pending => this.poll_silence(cx).map(|sign| Some(Ok(this.says(sign)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.inner.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Retry;
    use crate::http::body_filter::testing::{broken, byte_chunks, frames, read};
    use crate::proxy::testing::block_on;
    use http_body_util::BodyExt;
    use std::collections::VecDeque;

    fn parts(all: &[&'static str]) -> Vec<Bytes> {
        all.iter().map(|p| Bytes::from_static(p.as_bytes())).collect()
    }

    fn response(body: Body, kind: &'static str) -> Response {
        let mut response = Response::new(body);
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }

    fn followed(rules: StreamRules, body: Body, path: &str) -> Body {
        let mut response = response(body, "text/event-stream");
        rules.follow(&mut response, path);
        response.into_body()
    }

    fn text(read: (Vec<u8>, bool)) -> (String, bool) {
        (String::from_utf8(read.0).unwrap(), read.1)
    }

    #[test]
    fn a_stream_that_breaks_off_ends_in_an_error_event_and_without_done() {
        for (sent, gap) in [("data: {}\n\n", ""), ("data: {}\n", "\n"), ("data: {\"a", "\n\n")] {
            let body = followed(StreamRules::default(), broken(parts(&[sent])), "/v1/chat/completions");
            let (text, clean) = text(read(body));
            let event = text.strip_prefix(sent).and_then(|rest| rest.strip_prefix(gap)).unwrap();
            assert!(event.starts_with("data: {\"error\":{\"message\":\"The upstream broke off"), "{event}");
            assert!(clean && event.ends_with("\n\n") && !text.contains("[DONE]"), "{text}");
        }
        let body = followed(StreamRules::default(), broken(parts(&["data: {}\n\n"])), "/v1/messages");
        assert!(
            text(read(body)).0.contains("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\"")
        );
        let mut lines = response(broken(parts(&["{}\n"])), "application/x-ndjson");
        StreamRules::default().follow(&mut lines, "/api/chat");
        let told = "{}\n{\"error\":\"The upstream broke off before the answer was complete.\"}\n";
        assert_eq!(text(read(lines.into_body())), (told.to_owned(), true));
    }

    #[test]
    fn a_cut_stays_a_cut_where_words_would_not_be_read_or_are_not_wanted() {
        let off = StreamRules { errors: false, ..StreamRules::default() };
        for (rules, path, sent) in [
            (StreamRules::default(), "/events", "data: 1\n\n"),
            (off, "/v1/chat/completions", "data: 1\n\n"),
            (StreamRules::default(), "/v1/chat/completions", "data: [DONE]\n\n"),
            (StreamRules::default(), "/v1/messages", "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
        ] {
            let body = followed(rules, broken(parts(&[sent])), path);
            assert_eq!(text(read(body)), (sent.to_owned(), false), "{path}");
        }
        for (name, value) in [("content-length", "100"), ("content-encoding", "gzip")] {
            let mut response = response(broken(parts(&["data: 1\n\n"])), "text/event-stream");
            response.headers_mut().insert(name, HeaderValue::from_static(value));
            StreamRules::default().follow(&mut response, "/v1/chat/completions");
            assert_eq!(text(read(response.into_body())), ("data: 1\n\n".to_owned(), false), "{name}");
        }
        let gone = ProxyError::new(Kind::ClientGone, Retry::No, "the client went away");
        let body = followed(StreamRules::default(), frames(vec![Err(gone)]), "/v1/chat/completions");
        assert_eq!(text(read(body)), (String::new(), false));
    }

    #[test]
    fn a_whole_stream_is_not_touched() {
        let sent = ["data: 1\n\n", "data: [DO", "NE]\n\n"];
        let body = followed(StreamRules::default(), byte_chunks(parts(&sent)), "/v1/chat/completions");
        assert_eq!(text(read(body)), (sent.concat(), true));
    }

    /// Pieces with silences between them, so many milliseconds long.
    struct Slow {
        pieces: VecDeque<(u64, &'static str)>,
        wait: Option<Pin<Box<tokio::time::Sleep>>>,
    }

    impl HttpBody for Slow {
        type Data = Bytes;
        type Error = ProxyError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
            let Some((silence, piece)) = self.pieces.front().copied() else { return Poll::Ready(None) };
            let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(silence))));
            std::task::ready!(wait.as_mut().poll(cx));
            self.pieces.pop_front();
            self.wait = None;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(piece.as_bytes())))))
        }
    }

    fn heard(path: &str, pieces: &[(u64, &'static str)]) -> String {
        let rules = StreamRules { keepalive: Some(Duration::from_millis(100)), errors: true };
        let pieces = pieces.iter().copied().collect();
        let body = followed(rules, Body::stream(Slow { pieces, wait: None }), path);
        let all = block_on(async { body.collect().await.unwrap().to_bytes() });
        String::from_utf8(all.to_vec()).unwrap()
    }

    #[test]
    fn silence_between_events_is_filled_and_an_event_is_never_torn() {
        const SIGN: &str = ": keepalive\n\n";
        let said =
            heard("/v1/chat/completions", &[(650, "data: 1\n\n"), (0, "data:"), (350, " 2\n\n"), (350, "data: 3\n\n")]);
        let (first, rest) = said.split_once("data: 1\n\n").unwrap();
        assert!(first.len() >= 2 * SIGN.len() && first.replace(SIGN, "").is_empty(), "{said}");
        let (second, third) = rest.split_once("data: 2\n\n").unwrap();
        assert_eq!(second, "", "{said}");
        let before = third.strip_suffix("data: 3\n\n").unwrap();
        assert!(before.starts_with(SIGN) && before.replace(SIGN, "").is_empty(), "{said}");
    }

    #[test]
    fn each_protocol_has_its_own_sign() {
        let ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
        assert!(heard("/v1/messages", &[(450, "event: message_stop\n\n")]).starts_with(ping));
        assert!(heard("/events", &[(450, "\u{feff}data: 1\n\n")]).ends_with("\n\ndata: 1\n\n"));
        assert_eq!(heard("/events", &[(0, "\u{feff}data: 1\n\n")]), "\u{feff}data: 1\n\n");
    }
}
