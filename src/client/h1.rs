//! One HTTP/1 connection. No task drives it: whoever waits for its response polls it, so a response takes no task hop,
//! and dropping the response closes the connection there and then. Only when a response begins before the request's
//! body has ended is the connection handed to a task, since both directions must then move on their own.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use super::fault::{self, Reached};
use super::out_body::{OutBody, Upload};
use super::pool::{self, Home};
use super::stream::{Meter, Metered, Stream};
use super::target::{KeepAlive, Target, Timeouts};
use super::ticker::Deadline;
use super::upgraded::Upgraded;
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};

/// hyper's own limit for its buffers, and so for a head.
const DEFAULT_BUFFER: usize = 8192 + 4096 * 100;
const SMALLEST_BUFFER: usize = 8192;

pub(super) struct H1 {
    sender: SendRequest<OutBody>,
    connection: Connection<TokioIo<Metered>, OutBody>,
    meter: Rc<Meter>,
    pub remote: Option<SocketAddr>,
    pub home: Home,
    pub keepalive: KeepAlive,
    pub idle_since: Instant,
    permit: Option<OwnedSemaphorePermit>,
    ended: bool,
}

/// A response head, with the rest of the response behind it.
pub(super) struct Answer {
    pub response: Response<Body>,
    pub upgraded: Option<Upgraded>,
    pub remote: Option<SocketAddr>,
}

pub(super) struct Failure {
    pub error: ProxyError,
    /// The request, when the connection closed before any of it was written.
    pub unsent: Option<Box<Request<OutBody>>>,
    /// The connection closed without a byte of an answer.
    pub silent: bool,
    /// The upstream says that it did not process the request (HTTP/2 only).
    pub again: bool,
}

impl H1 {
    pub async fn new(
        target: &Target,
        stream: Stream,
        remote: Option<SocketAddr>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Box<Self>, ProxyError> {
        let meter = Rc::new(Meter::default());
        let io = TokioIo::new(Metered { stream, meter: Rc::clone(&meter) });
        let mut builder = Builder::new();
        // Not sized by Caddy's `read_buffer`: in hyper that would limit the head as well.
        builder.max_buf_size(target.options.max_response_header.map_or(DEFAULT_BUFFER, |max| max.max(SMALLEST_BUFFER)));
        if let Some(max) = target.options.max_response_header {
            builder.max_header_size(max);
        }
        let (sender, connection) = builder
            .handshake(io)
            .await
            .map_err(|e| ProxyError::new(Kind::ConnectFailed, Retry::Safe, format!("{}: {e}", target.label())))?;
        Ok(Box::new(Self {
            sender,
            connection,
            meter,
            remote,
            home: Home::of(&target.pool),
            keepalive: target.options.keepalive,
            idle_since: Instant::now(),
            permit,
            ended: false,
        }))
    }

    /// Sends the request and waits for the response head. Dropping the future closes the connection.
    pub async fn exchange(self: Box<Self>, target: &Target, request: Request<OutBody>) -> Result<Answer, Failure> {
        let mut h1 = self;
        let upload = request.body().upload();
        let is_connect = request.method() == http::Method::CONNECT;
        let (read_before, written_before) = (h1.meter.read.get(), h1.meter.written.get());
        let meter = Rc::clone(&h1.meter);
        let mut clock = HeadClock::new(&target.options.timeouts);
        let mut answer = pin!(unconstrained(h1.sender.try_send_request(request)));
        let mut live = Some(h1);
        let result = poll_fn(|cx| {
            let finished = live.as_mut().is_none_or(|h1| h1.drive(cx));
            // Nothing but polling the connection makes the answer come, and that was done with the real waker.
            let mut no_waker = Context::from_waker(Waker::noop());
            let mut polled = answer.as_mut().poll(&mut no_waker);
            if polled.is_pending() && finished {
                live = None; // hands back a request that was still queued
                polled = answer.as_mut().poll(&mut no_waker);
            }
            match polled {
                Poll::Ready(result) => Poll::Ready(Ok(result)),
                Poll::Pending if finished => Poll::Ready(Err("the connection ended")),
                Poll::Pending => {
                    let sent = upload.as_ref().is_none_or(|upload| upload.is_done());
                    clock.poll(cx, sent, &meter).map(Err)
                }
            }
        })
        .await;
        let reached = match (meter.written.get() > written_before, meter.read.get() > read_before) {
            (_, true) => Reached::Answered,
            (true, false) => Reached::Written,
            (false, false) => Reached::Nothing,
        };
        let silent = reached != Reached::Answered;
        match (result, live) {
            (Ok(Ok(response)), Some(h1)) => h1.answered(response, upload, is_connect, target).await,
            (Ok(Ok(_)), None) => Err(Failure::of(Kind::UpstreamClosed, target, "the connection ended")),
            (Ok(Err(mut failed)), _) => {
                let unsent = failed.take_message().map(Box::new);
                let reached = if unsent.is_some() { Reached::Nothing } else { reached };
                Err(Failure {
                    error: fault::before_head(target, failed.error(), reached),
                    unsent,
                    silent,
                    again: false,
                })
            }
            (Err(what), live) => {
                let kind = if live.is_some() { Kind::ResponseTimeout } else { Kind::UpstreamClosed };
                Err(Failure::of(kind, target, what))
            }
        }
    }

    async fn answered(
        mut self: Box<Self>,
        mut response: Response<Incoming>,
        upload: Option<Rc<Upload>>,
        is_connect: bool,
        target: &Target,
    ) -> Result<Answer, Failure> {
        let remote = self.remote;
        let status = response.status();
        if status == http::StatusCode::SWITCHING_PROTOCOLS || (is_connect && status.is_success()) {
            response.extensions_mut().remove::<hyper::upgrade::OnUpgrade>();
            poll_fn(|cx| if self.drive(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
            let parts = self.connection.into_parts();
            let upgraded = Upgraded::new(parts.io.into_inner().stream, parts.read_buf, self.permit);
            return Ok(Answer { response: response.map(|_| Body::Empty), upgraded: Some(upgraded), remote });
        }
        let uploaded = upload.as_ref().is_none_or(|upload| upload.is_done());
        if response.body().is_end_stream() {
            if uploaded {
                self.give_back();
            }
            return Ok(Answer { response: response.map(|_| Body::Empty), upgraded: None, remote });
        }
        let read_timeout = target.options.timeouts.read;
        let driver = if uploaded { Driver::Here(self) } else { Driver::Task { _ends_with_the_body: spawn(self) } };
        let label = Arc::clone(&target.label);
        let response = response.map(|incoming| {
            Body::stream(H1Body { incoming, driver, label, read_timeout, deadline: Deadline::default() })
        });
        Ok(Answer { response, upgraded: None, remote })
    }

    /// Moves bytes both ways. True once the connection has ended.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        self.ended = self.ended || self.connection.poll_without_shutdown(cx).is_ready();
        self.ended
    }

    /// Puts the connection into the pool if it can serve again, else closes it.
    fn give_back(mut self: Box<Self>) {
        if self.is_idle() {
            self.idle_since = Instant::now();
            pool::put_h1(self);
        }
    }

    /// True if the connection is open and waits for a request.
    pub fn is_idle(&mut self) -> bool {
        !self.drive(&mut Context::from_waker(Waker::noop())) && self.sender.is_ready()
    }
}

impl Failure {
    pub fn of(kind: Kind, target: &Target, what: &'static str) -> Self {
        let error = ProxyError::new(kind, Retry::IfIdempotent, format!("{}: {what}", target.label()));
        Self { error, unsent: None, silent: false, again: false }
    }
}

/// The timeouts that run until the response head is there.
struct HeadClock {
    limits: Option<Limits>,
    deadline: Deadline,
    sent_at: Option<Instant>,
    blocked_at: Option<(Instant, u64)>,
}

#[derive(Copy, Clone)]
struct Limits {
    answer: Option<Duration>,
    write: Option<Duration>,
}

impl HeadClock {
    fn new(timeouts: &Timeouts) -> Self {
        let answer = match (timeouts.response_header, timeouts.read) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let limits = Limits { answer, write: timeouts.write };
        Self {
            limits: (answer.is_some() || limits.write.is_some()).then_some(limits),
            deadline: Deadline::default(),
            sent_at: None,
            blocked_at: None,
        }
    }

    /// Ready with what took too long. `sent` says whether the whole request body was taken.
    fn poll(&mut self, cx: &mut Context<'_>, sent: bool, meter: &Meter) -> Poll<&'static str> {
        let Some(limits) = self.limits else { return Poll::Pending };
        let (limit, since, what) = if meter.blocked.get() {
            let written = meter.written.get();
            let since = match self.blocked_at {
                Some((since, then)) if then == written => since,
                _ => Instant::now(),
            };
            self.blocked_at = Some((since, written));
            (limits.write, since, "writing the request stalled")
        } else if sent {
            (limits.answer, *self.sent_at.get_or_insert_with(Instant::now), "no response in time")
        } else {
            (None, Instant::now(), "")
        };
        match limit {
            Some(limit) => self.deadline.set_after(since, limit),
            None => self.deadline.clear(),
        }
        self.deadline.poll(cx).map(|()| what)
    }
}

/// Who polls the connection while the response body is read.
enum Driver {
    Here(Box<H1>),
    Task { _ends_with_the_body: Task },
    Done,
}

/// Ends the task, and so closes the connection, when dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn spawn(mut h1: Box<H1>) -> Task {
    let task = poll_fn(move |cx| if h1.drive(cx) { Poll::Ready(()) } else { Poll::Pending });
    Task(tokio::task::spawn_local(task).abort_handle())
}

struct H1Body {
    incoming: Incoming,
    driver: Driver,
    label: Arc<str>,
    read_timeout: Option<Duration>,
    deadline: Deadline,
}

impl H1Body {
    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Driver::Here(h1) = &mut self.driver else { return Pin::new(&mut self.incoming).poll_frame(cx) };
        let mut no_waker = Context::from_waker(Waker::noop());
        let ready = Pin::new(&mut self.incoming).poll_frame(&mut no_waker);
        if ready.is_ready() {
            return ready;
        }
        let ended = h1.drive(cx);
        if ended {
            self.driver = Driver::Done;
        }
        Pin::new(&mut self.incoming).poll_frame(&mut no_waker)
    }

    fn finish(&mut self) {
        if let Driver::Here(h1) = std::mem::replace(&mut self.driver, Driver::Done) {
            h1.give_back();
        }
    }
}

impl HttpBody for H1Body {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        match this.poll_incoming(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.deadline.clear();
                if this.incoming.is_end_stream() {
                    this.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.driver = Driver::Done;
                Poll::Ready(Some(Err(fault::in_body(&this.label, &error))))
            }
            Poll::Ready(None) => {
                this.finish();
                Poll::Ready(None)
            }
            Poll::Pending => {
                let Some(limit) = this.read_timeout else { return Poll::Pending };
                if !this.deadline.is_set() {
                    this.deadline.set_after(Instant::now(), limit);
                }
                this.deadline.poll(cx).map(|()| {
                    this.driver = Driver::Done;
                    this.deadline.clear();
                    Some(Err(fault::read_timeout(&this.label)))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
