//! One HTTP/2 connection, shared by many requests of a worker. Its own task drives it; a request holds a [`Stream`
//! guard](InFlight) that counts it. Dropping a response resets its stream at once.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Request, Uri, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::clock::{BodyClock, HeadClock};
use super::fault;
use super::h1::{Answer, Failure};
use super::out_body::{OutBody, Upload};
use super::stream::{Meter, Metered, Stream};
use super::target::{Address, Scheme, Target};
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};

/// What may arrive unread on one stream, and on the whole connection.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
const DEFAULT_HEAD: u32 = 400 * 1024;

type Conn = Connection<TokioIo<Metered>, OutBody, LocalExecutor>;

pub(super) struct H2 {
    sender: RefCell<SendRequest<OutBody>>,
    /// Shared with the task that drives it, to ask the peer's limit; `None` once it has ended, which hands back the
    /// requests it had not taken.
    connection: Rc<RefCell<Option<Conn>>>,
    in_flight: Cell<usize>,
    meter: Rc<Meter>,
    /// It takes no new request: a request timed out without a sign of life from the peer.
    silent: Cell<bool>,
    pub remote: Option<SocketAddr>,
    pub idle: Duration,
    pub idle_since: Cell<Instant>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl H2 {
    pub async fn new(
        target: &Target,
        stream: Stream,
        remote: Option<SocketAddr>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Rc<Self>, ProxyError> {
        let head = target.options.max_response_header.map_or(DEFAULT_HEAD, |n| u32::try_from(n).unwrap_or(u32::MAX));
        let meter = Rc::new(Meter::default());
        let (sender, connection) = Builder::new(LocalExecutor)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(head)
            .handshake(TokioIo::new(Metered { stream, meter: Rc::clone(&meter) }))
            .await
            .map_err(|e| ProxyError::new(Kind::ConnectFailed, Retry::Safe, format!("{}: {e}", target.label())))?;
        let connection = Rc::new(RefCell::new(Some(connection)));
        tokio::task::spawn_local(drive(Rc::clone(&connection)));
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            connection,
            in_flight: Cell::new(0),
            meter,
            silent: Cell::new(false),
            remote,
            idle: target.options.keepalive.idle,
            idle_since: Cell::new(Instant::now()),
            _permit: permit,
        }))
    }

    /// True if it takes no new requests.
    pub fn is_closed(&self) -> bool {
        self.silent.get() || self.sender.borrow().is_closed()
    }

    /// True if one more request would not have to wait for another one's end.
    pub fn has_room(&self) -> bool {
        match self.connection.try_borrow() {
            Ok(connection) => connection.as_ref().is_some_and(|c| self.in_flight.get() < c.current_max_send_streams()),
            Err(_) => true,
        }
    }

    pub fn is_unused(&self) -> bool {
        self.in_flight.get() == 0
    }

    /// Sends the request and waits for the response head. Dropping the future resets the stream. `may_repeat`: a request
    /// whose body is at hand comes back with a failure.
    pub async fn exchange(
        self: Rc<Self>,
        target: &Target,
        request: Request<Body>,
        may_repeat: bool,
    ) -> Result<Answer, Failure> {
        let spare = if may_repeat { copy(&request) } else { None };
        let request = request.map(OutBody::new);
        let upload = request.body().upload();
        let in_flight = InFlight::new(&self, upload.clone());
        let request = to_h2(request, target).map_err(Failure::of)?;
        let read_before = self.meter.read.get();
        let mut answer = pin!(self.sender.borrow_mut().try_send_request(request));
        let mut clock = HeadClock::new(&target.options.timeouts);
        let result = poll_fn(|cx| {
            if let Poll::Ready(result) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(result));
            }
            let sent = upload.as_ref().is_none_or(|upload| upload.is_done());
            clock.poll(cx, sent, None).map(Err)
        })
        .await;
        match result {
            Err(what) => {
                self.silent.set(self.silent.get() || self.meter.read.get() == read_before);
                let why = format!("{}: {what}", target.label());
                Err(Failure::of(ProxyError::new(Kind::ResponseTimeout, Retry::IfIdempotent, why)))
            }
            Ok(Ok(response)) => {
                let response = response.map(|incoming| {
                    if incoming.is_end_stream() {
                        return Body::Empty;
                    }
                    Body::stream(H2Body { incoming, in_flight: Some(in_flight), clock: BodyClock::new(target) })
                });
                Ok(Answer { response, upgraded: None, remote: self.remote })
            }
            Ok(Err(mut failed)) => {
                let returned = failed.take_message().map(|request| Box::new(from_h2(request)));
                let unsent = returned.is_some();
                let again = fault::is_unprocessed(failed.error());
                let error = fault::before_head(target, failed.error(), unsent);
                Err(Failure { error, request: returned.or(spare), unsent, silent: true, again })
            }
        }
    }
}

/// The same request again, when its body is at hand.
fn copy(request: &Request<Body>) -> Option<Box<Request<Body>>> {
    let mut copy = Request::new(request.body().spare()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(Box::new(copy))
}

async fn drive(connection: Rc<RefCell<Option<Conn>>>) {
    let ended = poll_fn(|cx| match &mut *connection.borrow_mut() {
        Some(connection) => Pin::new(connection).poll(cx).map(drop),
        None => Poll::Ready(()),
    });
    ended.await;
    let ended = connection.borrow_mut().take();
    drop(ended); // not under the borrow: it wakes and drops requests
}

/// `host` becomes `:authority`; hyper takes it, and the scheme, from the URI.
fn to_h2(mut request: Request<OutBody>, target: &Target) -> Result<Request<OutBody>, ProxyError> {
    let scheme = if target.options.scheme == Scheme::Https { "https" } else { "http" };
    let authority = match request.headers().get(header::HOST) {
        Some(host) => Authority::try_from(host.as_bytes()).ok(),
        None if matches!(target.options.address, Address::Unix(_)) => Some(Authority::from_static("localhost")),
        None => Authority::try_from(&*target.label).ok(),
    };
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = authority
        .and_then(|authority| Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok());
    let Some(uri) = uri else {
        return Err(ProxyError::new(Kind::ClientBody, Retry::No, "the Host header is not a valid authority"));
    };
    request.headers_mut().remove(header::HOST);
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    Ok(request)
}

/// The way back, for a request that was not sent.
fn from_h2(request: Request<OutBody>) -> Request<Body> {
    let mut request = request.map(OutBody::into_inner);
    if let Some(host) = request.uri().authority().and_then(|a| HeaderValue::try_from(a.as_str()).ok()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = http::Version::HTTP_11;
    request
}

/// Counts a request of a connection; ends its upload when the response is over or dropped.
struct InFlight {
    h2: Rc<H2>,
    upload: Option<Rc<Upload>>,
}

impl InFlight {
    fn new(h2: &Rc<H2>, upload: Option<Rc<Upload>>) -> Self {
        h2.in_flight.set(h2.in_flight.get() + 1);
        Self { h2: Rc::clone(h2), upload }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.h2.in_flight.set(self.h2.in_flight.get() - 1);
        if self.h2.is_unused() {
            self.h2.idle_since.set(Instant::now());
        }
        if let Some(upload) = &self.upload {
            upload.cancel();
        }
    }
}

struct H2Body {
    incoming: Incoming,
    in_flight: Option<InFlight>,
    clock: BodyClock,
}

impl HttpBody for H2Body {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.clock.heard();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.in_flight = None;
                Poll::Ready(Some(Err(fault::in_body(this.clock.label(), &error))))
            }
            Poll::Ready(None) => {
                this.in_flight = None;
                Poll::Ready(None)
            }
            Poll::Pending => this.clock.poll(cx).map(|error| {
                this.in_flight = None;
                Some(Err(error))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// hyper's helper tasks stay on this worker.
#[derive(Clone)]
struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
