//! A request body that can be sent again: what has been read of it is kept, within a bound, for as long as another
//! attempt is possible.
//!
//! ```text
//! client ─▶ Reading ─▶ Sending (attempt 1) ─▶ upstream
//!              │ kept
//!              └─────▶ Sending (attempt 2): first what was kept, then the rest
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};
use crate::http::hold::Share;

/// Bytes of a streaming body that are kept for another attempt, unless `request_buffers` says more.
pub const DEFAULT_KEEP: usize = 1 << 20;

/// Pieces below this size are copied together: a small piece may hold a large read buffer alive.
const SMALL: usize = 16 << 10;

/// The body of one request over all its attempts.
pub(super) struct RequestBody(State);

enum State {
    /// At hand, to be sent as often as it takes.
    Whole(Body),
    /// A stream that is sent once; `None` while an attempt has it.
    Once(Option<Body>),
    Kept(Rc<RefCell<Reading>>),
}

impl RequestBody {
    /// `keep`: bytes of a stream that are kept; 0 = it is sent once. A body that says it is longer is not kept at all.
    pub fn new(body: Body, keep: usize) -> Self {
        let Body::Stream(_) = &body else { return Self(State::Whole(body)) };
        let too_long = body.size_hint().lower() > keep as u64;
        Self(if too_long { State::Once(Some(body)) } else { State::Kept(Reading::start(body, keep)) })
    }

    /// The body for the next attempt; `None` when it cannot be sent again. What an earlier attempt still holds of it
    /// ends there with an error.
    pub fn next(&mut self) -> Option<Body> {
        match &mut self.0 {
            State::Whole(body) => body.spare(),
            State::Once(body) => body.take(),
            State::Kept(reading) => {
                let mut inner = reading.borrow_mut();
                let (first, last) = inner.again()?;
                let attempt = inner.attempt;
                drop(inner);
                Some(Body::stream(Sending { reading: Rc::clone(reading), first, last, attempt }))
            }
        }
    }

    /// The body once more, when it is at hand whole.
    pub fn spare(&self) -> Option<Body> {
        if let State::Whole(body) = &self.0 { body.spare() } else { None }
    }

    /// Takes back what an attempt did not send.
    pub fn give_back(&mut self, unsent: Body) {
        if let State::Once(body) = &mut self.0 {
            *body = Some(unsent);
        }
    }

    /// Whether [`Self::next`] would give a body.
    pub fn can_repeat(&self) -> bool {
        match &self.0 {
            State::Whole(_) => true,
            State::Once(body) => body.is_some(),
            State::Kept(reading) => reading.borrow().can_repeat(),
        }
    }

    /// Whether no attempt is still reading it from the client.
    pub fn is_read(&self) -> bool {
        match &self.0 {
            State::Whole(_) => true,
            State::Once(_) => false,
            State::Kept(reading) => reading.borrow().ended,
        }
    }

    /// No attempt follows: what was kept is forgotten.
    pub fn settle(&mut self) {
        if let State::Kept(reading) = &self.0 {
            reading.borrow_mut().forget();
        }
    }

    /// Reads until `bytes` are kept or the body ends, and returns what is kept. The body is sent as if nothing had
    /// been read.
    pub async fn read_ahead(&mut self, bytes: usize) -> Result<Bytes, ProxyError> {
        if let State::Once(body) = &mut self.0 {
            let Some(body) = body.take() else { return Ok(Bytes::new()) };
            let reading = Reading::start(body, bytes);
            reading.borrow_mut().once = true;
            self.0 = State::Kept(reading);
        }
        match &self.0 {
            State::Whole(Body::Full(whole)) => Ok(whole.clone()),
            State::Whole(_) | State::Once(_) => Ok(Bytes::new()),
            State::Kept(reading) => {
                poll_fn(|cx| {
                    let mut reading = reading.borrow_mut();
                    while reading.size < bytes && !reading.crowded {
                        match ready!(reading.poll(cx, true)) {
                            Some(Err(error)) => return Poll::Ready(Err(error)),
                            Some(Ok(_)) => {}
                            None => break,
                        }
                    }
                    Poll::Ready(Ok(()))
                })
                .await?;
                Ok(reading.borrow_mut().text())
            }
        }
    }
}

/// A body on its way from the client, and what was read of it.
struct Reading {
    source: Body,
    kept: VecDeque<Bytes>,
    /// Small pieces that come after `kept`.
    small: BytesMut,
    trailers: Option<HeaderMap>,
    /// Bytes in `kept` and `small`.
    size: usize,
    limit: usize,
    share: Share,
    /// The source has ended.
    ended: bool,
    /// Whether all that was read is kept. Once it is not, the body cannot be sent again.
    keeping: bool,
    /// Kept only to be looked at, or read beyond the limit for that: the first attempt takes it.
    once: bool,
    /// All requests together hold as much as they may.
    crowded: bool,
    /// The attempt that may read.
    attempt: u32,
}

impl Reading {
    fn start(source: Body, limit: usize) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            source,
            kept: VecDeque::new(),
            small: BytesMut::new(),
            trailers: None,
            size: 0,
            limit,
            share: Share::default(),
            ended: false,
            keeping: true,
            once: false,
            crowded: false,
            attempt: 0,
        }))
    }

    fn can_repeat(&self) -> bool {
        self.keeping || self.attempt == 0
    }

    /// What was read so far, for a new attempt.
    fn again(&mut self) -> Option<(VecDeque<Bytes>, Option<HeaderMap>)> {
        if !self.can_repeat() {
            return None;
        }
        self.attempt += 1;
        self.join_small();
        let read = (self.kept.clone(), self.trailers.clone());
        if self.once {
            self.forget();
        }
        Some(read)
    }

    fn forget(&mut self) {
        self.keeping = false;
        self.kept = VecDeque::new();
        self.small = BytesMut::new();
        self.share = Share::default();
    }

    /// `ahead`: no attempt has it yet, so that it must not be lost.
    fn keep(&mut self, data: &Bytes, ahead: bool) {
        self.size += data.len();
        self.crowded = self.crowded || !self.share.grow_to(self.size);
        if self.size > self.limit || self.crowded {
            if !ahead {
                return self.forget();
            }
            self.once = true;
        }
        if data.len() < SMALL {
            self.small.extend_from_slice(data);
        } else {
            self.join_small();
            self.kept.push_back(data.clone());
        }
    }

    fn join_small(&mut self) {
        if !self.small.is_empty() {
            self.kept.push_back(self.small.split().freeze());
        }
    }

    /// All that is kept, in one piece.
    fn text(&mut self) -> Bytes {
        self.join_small();
        if let [only] = self.kept.make_contiguous() {
            return only.clone();
        }
        let mut text = BytesMut::with_capacity(self.size);
        for piece in &self.kept {
            text.extend_from_slice(piece);
        }
        text.freeze()
    }

    fn poll(&mut self, cx: &mut Context<'_>, ahead: bool) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = match ready!(Pin::new(&mut self.source).poll_frame(cx)) {
            None => {
                self.ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => {
                // The client's fault stays with the next attempt.
                self.forget();
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => frame,
        };
        if self.keeping {
            match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => self.keep(data, ahead),
                (None, Some(trailers)) => self.trailers = Some(trailers.clone()),
                (None, None) => {}
            }
        }
        self.ended = frame.is_trailers() || self.source.is_end_stream();
        Poll::Ready(Some(Ok(frame)))
    }
}

/// The body as one attempt sends it.
struct Sending {
    reading: Rc<RefCell<Reading>>,
    /// What was read before this attempt.
    first: VecDeque<Bytes>,
    last: Option<HeaderMap>,
    attempt: u32,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = self.get_mut();
        let mut reading = this.reading.borrow_mut();
        if reading.attempt != this.attempt {
            let error = ProxyError::new(Kind::Internal, Retry::No, "this attempt was given up");
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(data) = this.first.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = this.last.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        reading.poll(cx, false)
    }

    fn is_end_stream(&self) -> bool {
        let reading = self.reading.borrow();
        self.first.is_empty() && self.last.is_none() && reading.ended
    }

    fn size_hint(&self) -> SizeHint {
        let reading = self.reading.borrow();
        let held: u64 = self.first.iter().map(|piece| piece.len() as u64).sum();
        let rest = if reading.ended { SizeHint::with_exact(0) } else { reading.source.size_hint() };
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + held);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + held);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::proxy::testing::{block_on, chunks};

    fn read(body: Body) -> String {
        String::from_utf8(block_on(body.collect()).unwrap().to_bytes().to_vec()).unwrap()
    }

    fn frame(body: &mut Body) -> Option<Result<Frame<Bytes>, ProxyError>> {
        block_on(body.frame())
    }

    #[test]
    fn a_body_within_the_bound_is_sent_again_from_its_beginning() {
        let mut body = RequestBody::new(chunks(&["ab", "cd", "ef"]), 6);
        let mut first = body.next().unwrap();
        assert_eq!(frame(&mut first).unwrap().unwrap().into_data().unwrap(), "ab");
        assert!(!body.is_read() && body.can_repeat());
        let second = body.next().unwrap();
        // The first attempt was given up, and cannot take anything from the second.
        assert!(frame(&mut first).unwrap().is_err());
        assert_eq!(read(second), "abcdef");
        assert!(body.is_read());
        assert_eq!(read(body.next().unwrap()), "abcdef");
        body.settle();
        assert!(!body.can_repeat() && body.next().is_none());
    }

    #[test]
    fn a_longer_body_is_sent_once_and_not_kept() {
        let mut body = RequestBody::new(chunks(&["ab", "cd", "ef"]), 5);
        assert!(body.can_repeat());
        assert_eq!(read(body.next().unwrap()), "abcdef");
        assert!(!body.can_repeat() && body.next().is_none());
        let State::Kept(reading) = &body.0 else { panic!() };
        assert!(reading.borrow().kept.is_empty() && reading.borrow().small.is_empty());
    }

    #[test]
    fn a_body_that_says_it_is_too_long_is_not_kept_at_all() {
        let full = http_body_util::Full::new(Bytes::from_static(b"abcdef")).map_err(|never| match never {});
        let mut body = RequestBody::new(Body::stream(full), 5);
        assert!(matches!(body.0, State::Once(_)));
        let unsent = body.next().unwrap();
        assert!(!body.can_repeat());
        body.give_back(unsent);
        assert_eq!(read(body.next().unwrap()), "abcdef");
    }

    #[test]
    fn what_is_at_hand_is_sent_as_often_as_it_takes() {
        let mut body = RequestBody::new(Body::from("abc"), 0);
        for _ in 0..3 {
            assert!(body.can_repeat() && body.is_read());
            assert_eq!(read(body.next().unwrap()), "abc");
        }
    }

    #[test]
    fn a_body_is_looked_at_before_it_is_sent() {
        for keep in [0, 3, 100] {
            let mut body = RequestBody::new(chunks(&["ab", "cd", "ef"]), keep);
            assert_eq!(block_on(body.read_ahead(3)).unwrap(), "abcd");
            assert_eq!(read(body.next().unwrap()), "abcdef", "{keep}");
            assert_eq!(body.can_repeat(), keep == 100, "{keep}");
        }
    }

    #[test]
    fn any_bound_and_any_pieces_give_the_same_bytes() {
        let mut rng = fastrand::Rng::with_seed(5);
        for _ in 0..300 {
            let pieces: Vec<&'static str> =
                (0..rng.usize(..6)).map(|_| &"abcdefghijklmnopqrstuvwxyz"[..rng.usize(1..26)]).collect();
            let whole = pieces.concat();
            let mut body = RequestBody::new(chunks(&pieces), rng.usize(..80));
            if rng.bool() {
                let ahead = block_on(body.read_ahead(rng.usize(..60))).unwrap();
                assert!(whole.as_bytes().starts_with(&ahead));
            }
            for _ in 0..4 {
                let can = body.can_repeat();
                let Some(mut sending) = body.next() else {
                    assert!(!can);
                    break;
                };
                assert!(can);
                let frames = if rng.bool() { usize::MAX } else { rng.usize(..4) };
                let mut got = Vec::new();
                for _ in 0..frames {
                    let Some(next) = frame(&mut sending) else {
                        assert_eq!(got, whole.as_bytes());
                        break;
                    };
                    got.extend_from_slice(&next.unwrap().into_data().unwrap());
                }
                assert!(whole.as_bytes().starts_with(&got));
            }
        }
    }
}
