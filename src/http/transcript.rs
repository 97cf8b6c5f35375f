//! The record of one exchange (`record`): gathers what happens on both legs and hands it to the folder's writer.
//!
//! Nothing is written before [`Transcript::settle`], which comes once authentication is over: only then is it known
//! whose request this is, and whether its path holds a secret. Until then events wait here, within the bound of the
//! record. Bodies pass through [`Tapped`] unchanged and unheld; only the start of each chunk's life is shared.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::exchange::{Exchange, Response};
use super::walker::Outcome;
use crate::base::body::Body;
use crate::base::error::ProxyError;
use crate::telemetry::credentials::without_credentials;
use crate::telemetry::encoder::now;
use crate::telemetry::query::{self, REDACTED};
use crate::telemetry::transcript::{Direction, End, Event, Folder, Head, Leg, Start, Ticket, What};

/// Smaller pieces are copied, so that a record does not keep a connection's read buffer alive.
const COPIED: usize = 16 << 10;
/// What an event takes beside its bytes, so that many small ones are bounded too.
const PER_EVENT: u64 = 64;

/// What the records of one `record` have in common.
pub struct Rules {
    pub folder: Arc<Folder>,
    /// Bytes of heads and bodies in one record.
    pub max_size: u64,
    /// Callers that are recorded; empty = everybody.
    pub users: Box<[String]>,
    /// Header fields that are credentials, beside the usual ones.
    pub secret_headers: Box<[HeaderName]>,
}

pub struct Transcript {
    rules: Arc<Rules>,
    started: Instant,
    unix_nanos: i64,
    state: RefCell<State>,
    /// Bytes that may still be recorded.
    left: Cell<u64>,
    truncated: Cell<bool>,
    /// Events that the writer's queue did not take.
    gaps: Cell<u64>,
    /// The client's fields as they came: what goes up and is not among them was put there by the configuration.
    came: HeaderMap,
    /// The request's body is tapped on its way up already; another attempt must not tap it twice.
    body_up: Cell<bool>,
}

enum State {
    /// Not settled. The first request line is made when it is.
    Waiting { method: Method, version: Version, events: Vec<Event> },
    Writing(Ticket),
    /// Not to be recorded.
    Off,
}

impl Transcript {
    /// Begins with the request as it is now.
    #[must_use]
    pub fn begin(ex: &mut Exchange, rules: &Arc<Rules>) -> Rc<Self> {
        let elapsed = ex.started.elapsed();
        let this = Rc::new(Self {
            rules: Arc::clone(rules),
            started: ex.started,
            unix_nanos: now().saturating_sub(i64::try_from(elapsed.as_nanos()).unwrap_or(0)),
            state: RefCell::new(State::Waiting { method: ex.method.clone(), version: ex.version, events: Vec::new() }),
            left: Cell::new(rules.max_size),
            truncated: Cell::new(false),
            gaps: Cell::new(0),
            came: ex.headers.clone(),
            body_up: Cell::new(false),
        });
        ex.body = this.tap(ex.body.take(), Leg::Client, Direction::Request);
        this
    }

    /// Decides whether this request is recorded, at the latest moment that serves: after authentication.
    pub fn settle(&self, ex: &Exchange) {
        let waiting = std::mem::replace(&mut *self.state.borrow_mut(), State::Off);
        let State::Waiting { method, version, events } = waiting else {
            *self.state.borrow_mut() = waiting;
            return;
        };
        let user = ex.user.as_ref().map(|u| u.id.as_str());
        if !self.rules.users.is_empty() && !user.is_some_and(|id| self.rules.users.iter().any(|u| u == id)) {
            return;
        }
        let start = Start { id: ex.request_id().to_owned(), unix_nanos: self.unix_nanos };
        let Some(ticket) = self.rules.folder.begin(start) else { return };
        *self.state.borrow_mut() = State::Writing(ticket);
        let what = What::Request {
            method,
            target: shown_target(ex),
            version,
            headers: self.head(&self.came, false),
            peer: ex.client_ip().map_or_else(|| "@".into(), |ip| ip.to_string().into()),
        };
        self.note(Event { at: std::time::Duration::ZERO, leg: Leg::Client, what });
        for event in events {
            self.note(event);
        }
        if let Some(id) = user {
            self.happened(Leg::Client, What::User(id.to_owned()));
        }
    }

    /// A request goes to an upstream.
    pub fn goes_up(self: &Rc<Self>, ex: &Exchange, to: &Arc<str>, request: &mut http::Request<Body>) {
        self.settle(ex);
        if self.is_off() {
            return;
        }
        let target = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let what = What::Request {
            method: request.method().clone(),
            target: query::redact(target).into_owned(),
            version: request.version(),
            headers: self.head(request.headers(), true),
            peer: Arc::clone(to),
        };
        self.happened(Leg::Upstream, what);
        let body = request.body_mut();
        match body {
            // Left as it is: a whole body goes out with the head, and can be sent again.
            Body::Empty => {}
            Body::Full(bytes) => self.data(Leg::Upstream, Direction::Request, bytes),
            Body::Stream(_) if self.body_up.replace(true) => {}
            Body::Stream(_) => *body = self.tap(body.take(), Leg::Upstream, Direction::Request),
        }
    }

    /// No answer came from there.
    pub fn failed(&self, error: &ProxyError) {
        if !self.is_off() {
            self.happened(Leg::Upstream, What::Error(error.to_string()));
        }
    }

    /// The upstream's answer, as it came but for `unpacked` compression.
    pub fn came_down(self: &Rc<Self>, response: &mut Response, unpacked: bool) {
        if self.is_off() {
            return;
        }
        let headers = self.head(response.headers(), false);
        self.happened(Leg::Upstream, What::Response { status: response.status(), headers, unpacked });
        let body = response.body_mut();
        *body = self.tap(body.take(), Leg::Upstream, Direction::Response);
    }

    /// What the client gets.
    pub fn answered(self: &Rc<Self>, ex: &Exchange, outcome: &mut Outcome) {
        self.settle(ex);
        if self.is_off() {
            return;
        }
        if let Some(error) = &ex.error {
            let why = format!("{}: {} {}", error.origin, error.status, error.message);
            self.happened(Leg::Client, What::Error(why));
        }
        match outcome {
            Outcome::Abort => self.happened(Leg::Client, What::Error("the connection is closed unanswered".to_owned())),
            Outcome::Response(response) => {
                let headers = self.head(response.headers(), false);
                self.happened(Leg::Client, What::Response { status: response.status(), headers, unpacked: false });
                let body = response.body_mut();
                *body = self.tap(body.take(), Leg::Client, Direction::Response);
            }
        }
    }

    /// The client left before there was an answer.
    pub fn abandoned(&self, ex: &Exchange) {
        self.settle(ex);
        if !self.is_off() {
            self.happened(Leg::Client, What::Error("the client left before there was an answer".to_owned()));
        }
    }

    fn is_off(&self) -> bool {
        matches!(*self.state.borrow(), State::Off)
    }

    fn happened(&self, leg: Leg, what: What) {
        self.note(Event { at: self.started.elapsed(), leg, what });
    }

    fn note(&self, event: Event) {
        let ticket = match &mut *self.state.borrow_mut() {
            State::Off => return,
            State::Waiting { events, .. } => {
                events.push(event);
                return;
            }
            State::Writing(ticket) => *ticket,
        };
        if !self.rules.folder.push(ticket, event) {
            self.gaps.set(self.gaps.get() + 1);
        }
    }

    fn data(&self, leg: Leg, direction: Direction, bytes: &Bytes) {
        if bytes.is_empty() || self.is_off() {
            return;
        }
        let left = self.left.get().saturating_sub(PER_EVENT);
        let fits = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        if fits < bytes.len() {
            self.truncated.set(true);
        }
        if fits == 0 {
            return;
        }
        self.left.set(left - fits as u64);
        let kept = bytes.slice(..fits);
        let kept = if fits <= COPIED { Bytes::copy_from_slice(&kept) } else { kept };
        self.happened(leg, What::Data(direction, kept));
    }

    fn tap(self: &Rc<Self>, inner: Body, leg: Leg, direction: Direction) -> Body {
        if matches!(inner, Body::Empty) {
            return inner;
        }
        Body::stream(Tapped { inner, transcript: Rc::clone(self), leg, direction, bytes: 0, ended: false })
    }

    /// The fields without credentials. Of those that go up, also without what the configuration put there, since that
    /// is where upstreams' keys come from.
    fn head(&self, headers: &HeaderMap, up: bool) -> Head {
        let from_client = |name: &HeaderName, value: &HeaderValue| self.came.get_all(name).iter().any(|v| v == value);
        let shown = |name: &HeaderName, value: &HeaderValue| {
            if self.rules.secret_headers.contains(name)
                || sounds_secret(name)
                || up && !is_routine(name) && !from_client(name, value)
            {
                return HeaderValue::from_static(REDACTED);
            }
            match without_credentials(name, value) {
                std::borrow::Cow::Borrowed(same) if same == value.as_bytes() => value.clone(),
                other => HeaderValue::from_bytes(&other).unwrap_or(HeaderValue::from_static(REDACTED)),
            }
        };
        headers.iter().map(|(name, value)| (name.clone(), shown(name, value))).collect()
    }
}

impl Drop for Transcript {
    fn drop(&mut self) {
        if let State::Writing(ticket) = *self.state.borrow() {
            self.rules.folder.end(ticket, self.started.elapsed(), self.gaps.get(), self.truncated.get());
        }
    }
}

/// The client's path and query as they may be shown.
fn shown_target(ex: &Exchange) -> String {
    let target = ex.original.uri.path_and_query().map_or("/", |p| p.as_str());
    query::redact(target).into_owned()
}

/// Names that say of themselves that a key is in them.
fn sounds_secret(name: &HeaderName) -> bool {
    let name = name.as_str();
    if matches!(name, "idempotency-key" | "sec-websocket-key") {
        return false;
    }
    name.split(['-', '_']).any(|word| {
        matches!(
            word,
            "key" | "apikey" | "token" | "secret" | "password" | "passwd" | "auth" | "credential" | "credentials"
        )
    })
}

/// Fields that are the proxy's own work, or hold nothing secret even when the configuration wrote them.
fn is_routine(name: &HeaderName) -> bool {
    *name == header::HOST
        || *name == header::VIA
        || *name == header::TE
        || *name == header::CONNECTION
        || *name == header::UPGRADE
        || *name == header::CONTENT_LENGTH
        || *name == header::CONTENT_TYPE
        || *name == header::ACCEPT
        || *name == header::ACCEPT_ENCODING
        || *name == header::USER_AGENT
        || matches!(name.as_str(), "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" | "x-real-ip")
}

/// A body that is seen on its way.
struct Tapped {
    inner: Body,
    transcript: Rc<Transcript>,
    leg: Leg,
    direction: Direction,
    bytes: u64,
    ended: bool,
}

impl Tapped {
    fn end(&mut self, how: End) {
        if !std::mem::replace(&mut self.ended, true) && !self.transcript.is_off() {
            self.transcript.happened(self.leg, What::End { direction: self.direction, how, bytes: self.bytes });
        }
    }
}

impl HttpBody for Tapped {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let polled = std::task::ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &polled {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                    self.transcript.data(self.leg, self.direction, data);
                }
            }
            Some(Err(error)) => self.end(End::Failed(error.to_string())),
            None => self.end(End::Complete),
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        // Whoever reads does not ask again once it knows that a body is at its end.
        let how = if self.inner.is_end_stream() { End::Complete } else { End::Gone };
        self.end(how);
    }
}
