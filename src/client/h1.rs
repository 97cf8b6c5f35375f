//! One HTTP/1 connection. No task drives it: whoever waits for its response polls it, so a response takes no task hop,
//! and dropping the response closes the connection there and then. Only when a response begins before the request's
//! body has ended is the connection handed to a task, since both directions must then move on their own ([`relay`]).
//!
//! ```text
//! request ─head─▶ Transmit ─▶ socket ─▶ HeadReader ─head─▶ Receiving ─▶ BodyReader ─▶ response body ─▶ pool
//! ```

pub mod chunked;
pub mod head;
pub mod names;
pub mod receive;
mod relay;
pub mod transmit;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::clock::{BodyClock, HeadClock};
use super::pool::{self, Home};
use super::spare_request;
use super::stream::Stream;
use super::target::{KeepAlive, Target};
use super::ticker::Deadline;
use super::upgraded::Upgraded;
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};
use head::{Head, Receiving};
use receive::{BodyReader, Fault, HeadReader};
use transmit::Transmit;

/// Longest response head where none is configured.
const MAX_HEAD: usize = 400 << 10;
/// A buffer larger than this is not kept while the connection is idle.
const LARGEST_KEPT: usize = 4 << 10;
/// How long an answer is waited for when the request cannot be written to its end.
const LAST_WORD: Duration = Duration::from_millis(100);

pub(super) struct H1 {
    stream: Stream,
    /// Kept for the next request's head.
    buffer: Vec<u8>,
    max_head: usize,
    pub remote: Option<SocketAddr>,
    pub home: Home,
    pub keepalive: KeepAlive,
    pub idle_since: Instant,
    permit: Option<OwnedSemaphorePermit>,
    /// The latest response lets another request follow.
    may_serve_again: bool,
}

/// A response head, with the rest of the response behind it.
pub(super) struct Answer {
    pub response: Response<Body>,
    pub upgraded: Option<Upgraded>,
    pub remote: Option<SocketAddr>,
}

pub(super) struct Failure {
    pub error: ProxyError,
    /// The request, where all of it is still at hand.
    pub request: Option<Box<Request<Body>>>,
    /// None of it was written.
    pub unsent: bool,
    /// The connection closed without a byte of an answer.
    pub silent: bool,
    /// The upstream says that it did not process the request (HTTP/2 only).
    pub again: bool,
}

impl H1 {
    pub fn new(
        target: &Target,
        stream: Stream,
        remote: Option<SocketAddr>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Box<Self> {
        Box::new(Self {
            stream,
            buffer: Vec::new(),
            max_head: target.options.max_response_header.unwrap_or(MAX_HEAD),
            remote,
            home: Home::of(&target.pool),
            keepalive: target.options.keepalive,
            idle_since: Instant::now(),
            permit,
            may_serve_again: true,
        })
    }

    /// Sends the request and waits for the response head. Dropping the future closes the connection.
    pub async fn exchange(
        mut self: Box<Self>,
        target: &Target,
        mut request: Box<Request<Body>>,
    ) -> Result<Answer, Failure> {
        if !self.is_idle() {
            let error = upstream_error(Kind::UpstreamClosed, Retry::Safe, target, "the connection was closed");
            return Err(Failure { error, request: Some(request), unsent: true, silent: true, again: false });
        }
        let spare = request.body().spare();
        let body = request.body_mut().take();
        let transmit = Transmit::new(&request, body, std::mem::take(&mut self.buffer));
        let mut exchange = Exchanging {
            head: HeadReader::new(self.max_head),
            h1: self,
            transmit,
            sent: false,
            broken: None,
            last_word: Deadline::default(),
            clock: HeadClock::new(&target.options.timeouts),
        };
        match poll_fn(|cx| exchange.poll(cx)).await {
            Ok((head, ahead)) => {
                let Exchanging { mut h1, mut transmit, sent, .. } = exchange;
                let unsent = if sent {
                    h1.keep(transmit.take_buffer());
                    None
                } else {
                    Some(transmit)
                };
                let answered = h1.answered(head, ahead, &request, unsent, target);
                spare_request::keep(request);
                answered
            }
            Err(ended) => {
                let silent = !exchange.head.began;
                let unsent = silent && exchange.transmit.written == 0;
                let request = spare.map(|body| {
                    *request.body_mut() = body;
                    request
                });
                Err(Failure {
                    error: ended.error(target, unsent),
                    unsent: unsent && request.is_some(),
                    request,
                    silent,
                    again: false,
                })
            }
        }
    }

    fn answered(
        mut self: Box<Self>,
        mut head: Head,
        ahead: Bytes,
        request: &Request<Body>,
        unsent: Option<Transmit>,
        target: &Target,
    ) -> Result<Answer, Failure> {
        let (remote, method) = (self.remote, request.method());
        let wrong = |why: &str| Failure::of(upstream_error(Kind::UpstreamProtocol, Retry::IfIdempotent, target, why));
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if switches || (*method == Method::CONNECT && head.status.is_success()) {
            if switches && !request.headers().contains_key(header::UPGRADE) {
                return Err(wrong("switched protocols without being asked"));
            }
            // The other protocol begins behind the request: half a request cannot be followed by it.
            if unsent.is_some() {
                return Err(wrong("switched protocols within the request"));
            }
            let upgraded = Upgraded::new(self.stream, ahead, self.permit);
            return Ok(Answer { response: respond(head, Body::Empty), upgraded: Some(upgraded), remote });
        }
        let (receiving, again) = Receiving::of(&mut head, method).map_err(wrong)?;
        self.may_serve_again = again;
        let mut reader = BodyReader::new(receiving, ahead);
        let whole = if reader.is_ended() { Some(Bytes::new()) } else { reader.whole() };
        let body = match (whole, unsent) {
            // What of the request is unsent when its answer is complete was not wanted: the connection ends.
            (Some(bytes), unsent) => {
                if unsent.is_none() {
                    self.give_back(&reader);
                }
                Body::from(bytes)
            }
            (None, None) => Body::stream(H1Body { h1: Some(self), reader, clock: BodyClock::new(target) }),
            (None, Some(transmit)) => relay::start(self, transmit, reader, target),
        };
        Ok(Answer { response: respond(head, body), upgraded: None, remote })
    }

    fn keep(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() <= LARGEST_KEPT {
            self.buffer = buffer;
        }
    }

    /// Puts the connection into the pool if it can serve again, else closes it.
    fn give_back(mut self: Box<Self>, reader: &BodyReader) {
        if self.may_serve_again && !reader.has_surplus() && self.is_idle() {
            self.idle_since = Instant::now();
            pool::put_h1(self);
        }
    }

    /// True if the connection is open and waits for a request.
    pub fn is_idle(&mut self) -> bool {
        receive::is_quiet(&mut self.stream, &mut Context::from_waker(Waker::noop()))
    }
}

fn respond(head: Head, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.version_mut() = head.version;
    *response.headers_mut() = head.headers;
    if let Some(reason) = head.reason {
        response.extensions_mut().insert(reason);
    }
    response
}

/// The time until the response head: both directions move.
struct Exchanging {
    h1: Box<H1>,
    transmit: Transmit,
    /// All of the request is written.
    sent: bool,
    /// Why no more of it can be written. An answer that came before says more: it is waited for until `last_word`.
    broken: Option<std::io::Error>,
    last_word: Deadline,
    head: HeadReader,
    clock: HeadClock,
}

enum Ended {
    Body(ProxyError),
    Write(std::io::Error),
    Read(Fault),
    Slow(&'static str),
}

impl Exchanging {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Head, Bytes), Ended>> {
        if !self.sent && self.broken.is_none() {
            match self.transmit.poll(&mut self.h1.stream, cx) {
                Poll::Ready(Ok(())) => self.sent = true,
                Poll::Ready(Err(transmit::Fault::Body(error))) => return Poll::Ready(Err(Ended::Body(error))),
                Poll::Ready(Err(transmit::Fault::Io(error))) => self.broken = Some(error),
                Poll::Pending => {}
            }
        }
        match self.head.poll(&mut self.h1.stream, cx) {
            Poll::Ready(Ok(found)) => Poll::Ready(Ok(found)),
            Poll::Ready(Err(fault)) => Poll::Ready(Err(Ended::Read(fault))),
            Poll::Pending => {
                if self.broken.is_some() {
                    // The write may learn of the end before the read side is told of what there is to read.
                    if !self.last_word.is_set() {
                        self.last_word.set_after(Instant::now(), LAST_WORD);
                    }
                    ready!(self.last_word.poll(cx));
                    return self.broken.take().map_or(Poll::Pending, |error| Poll::Ready(Err(Ended::Write(error))));
                }
                let stalled = self.transmit.blocked.then_some(self.transmit.written);
                self.clock.poll(cx, self.sent, stalled).map(|what| Err(Ended::Slow(what)))
            }
        }
    }
}

impl Ended {
    fn error(self, target: &Target, unsent: bool) -> ProxyError {
        let retry = if unsent { Retry::Safe } else { Retry::IfIdempotent };
        match self {
            Self::Body(error) => error,
            Self::Slow(what) => upstream_error(Kind::ResponseTimeout, Retry::IfIdempotent, target, what),
            Self::Write(error) | Self::Read(Fault::Io(error)) => {
                upstream_error(Kind::UpstreamClosed, retry, target, error)
            }
            Self::Read(Fault::Closed) => {
                upstream_error(Kind::UpstreamClosed, retry, target, "the connection was closed before an answer")
            }
            Self::Read(Fault::Protocol(why)) => {
                upstream_error(Kind::UpstreamProtocol, Retry::IfIdempotent, target, why)
            }
        }
    }
}

fn upstream_error(kind: Kind, retry: Retry, target: &Target, what: impl std::fmt::Display) -> ProxyError {
    ProxyError::new(kind, retry, format!("{}: {what}", target.label()))
}

impl Failure {
    pub fn of(error: ProxyError) -> Self {
        Self { error, request: None, unsent: false, silent: false, again: false }
    }
}

/// What broke off a response body.
fn body_error(label: &str, fault: Fault) -> ProxyError {
    let why = match fault {
        Fault::Closed => "the connection was closed within the response body".to_owned(),
        Fault::Io(error) => error.to_string(),
        Fault::Protocol(why) => why.to_owned(),
    };
    super::fault::broke_off(label, &why)
}

/// The response body. Once it is whole the connection goes back into the pool; dropped before, it is closed.
struct H1Body {
    h1: Option<Box<H1>>,
    reader: BodyReader,
    clock: BodyClock,
}

impl H1Body {
    fn finish(&mut self) {
        if let Some(h1) = self.h1.take() {
            h1.give_back(&self.reader);
        }
    }
}

impl HttpBody for H1Body {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        let Some(h1) = &mut this.h1 else { return Poll::Ready(None) };
        match this.reader.poll(&mut h1.stream, cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.clock.heard();
                if this.reader.is_ended() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(why))) => {
                this.h1 = None;
                Poll::Ready(Some(Err(body_error(this.clock.label(), why))))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending => this.clock.poll(cx).map(|error| {
                this.h1 = None;
                Some(Err(error))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.h1.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.reader.size_hint()
    }
}
