//! The record of one exchange (`record`): gathers what happens on both legs and hands it to the folder's writer.
//!
//! Nothing is written before [`Transcript::settle`], which comes once authentication is over: only then is it known
//! whose request this is, and whether its path holds a secret. Until then events wait here, within the bound of the
//! record. Bodies pass through a [`Tap`], unchanged and unheld.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};

use super::body_filter::{self, Tap, TapEnd};
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
    Waiting {
        method: Method,
        version: Version,
        events: Vec<Event>,
    },
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
            // What is no longer there was taken off by who checks it: it may be a credential under any name.
            headers: self.head(&self.came, Some(&ex.headers)),
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
            // What did not come from the client was put there by the configuration, as upstreams' keys are.
            headers: self.head(request.headers(), Some(&self.came)),
            peer: Arc::clone(to),
        };
        self.happened(Leg::Upstream, what);
        let body = request.body_mut();
        if !matches!(body, Body::Stream(_)) || !self.body_up.replace(true) {
            *body = self.tap(body.take(), Leg::Upstream, Direction::Request);
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
        let headers = self.head(response.headers(), None);
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
                let headers = self.head(response.headers(), None);
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

    fn tap(self: &Rc<Self>, body: Body, leg: Leg, direction: Direction) -> Body {
        let mut watch = Watch { transcript: Rc::clone(self), leg, direction, bytes: 0 };
        match body {
            Body::Empty => Body::Empty,
            // A whole request stays one: it goes out with the head, can be looked at and sent again.
            Body::Full(bytes) if direction == Direction::Request => {
                watch.chunk(&bytes);
                watch.end(TapEnd::Complete);
                Body::Full(bytes)
            }
            body => body_filter::tap(body, watch),
        }
    }

    /// The fields without credentials. Beside those known by name, values that `also_in` does not have are left out.
    fn head(&self, headers: &HeaderMap, also_in: Option<&HeaderMap>) -> Head {
        let shown = |name: &HeaderName, value: &HeaderValue| {
            let found = also_in.is_none_or(|other| other.get_all(name).iter().any(|v| v == value));
            if self.rules.secret_headers.contains(name) || sounds_secret(name) || !found && !is_routine(name) {
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

/// Notes what passes.
struct Watch {
    transcript: Rc<Transcript>,
    leg: Leg,
    direction: Direction,
    bytes: u64,
}

impl Tap for Watch {
    fn chunk(&mut self, chunk: &Bytes) {
        self.bytes += chunk.len() as u64;
        self.transcript.data(self.leg, self.direction, chunk);
    }

    fn end(&mut self, how: TapEnd<'_>) {
        if self.transcript.is_off() {
            return;
        }
        let how = match how {
            TapEnd::Complete => End::Complete,
            TapEnd::Failed(error) => End::Failed(error.to_string()),
            TapEnd::Dropped => End::Gone,
        };
        self.transcript.happened(self.leg, What::End { direction: self.direction, how, bytes: self.bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::{Kind, Retry};
    use crate::http::body_filter::testing::{broken, byte_chunks, next};
    use crate::http::exchange::User;
    use crate::http::exchange::testing::exchange;
    use crate::telemetry::transcript::Line;
    use std::time::Duration;

    struct Records {
        root: tempfile::TempDir,
        rules: Arc<Rules>,
    }

    impl Records {
        fn new(max_size: u64, users: &[&str]) -> Self {
            let root = tempfile::tempdir().unwrap();
            let rules = Rules {
                folder: Folder::open(root.path(), 1 << 30).unwrap(),
                max_size,
                users: users.iter().map(|u| (*u).to_owned()).collect(),
                secret_headers: Box::new([HeaderName::from_static("x-mine")]),
            };
            Self { root, rules: Arc::new(rules) }
        }

        /// The lines of the only record; `None` when there is none.
        fn lines(&self) -> Option<Vec<Line>> {
            self.rules.folder.flush(Instant::now() + Duration::from_secs(20));
            let mut files = std::fs::read_dir(self.root.path()).unwrap();
            let text = std::fs::read_to_string(files.next()?.unwrap().path()).unwrap();
            assert!(files.next().is_none());
            Some(text.lines().map(|l| serde_json::from_str(l).unwrap()).collect())
        }
    }

    fn drain(mut body: Body) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        loop {
            match next(&mut body) {
                None => return (bytes, true),
                Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().unwrap()),
                Some(Err(_)) => return (bytes, false),
            }
        }
    }

    fn pieces(parts: &[&'static str]) -> Vec<Bytes> {
        parts.iter().map(|p| Bytes::from_static(p.as_bytes())).collect()
    }

    fn events(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|l| format!("{} {}", l.leg, l.event).trim().to_owned()).collect()
    }

    fn headers(line: &Line) -> Vec<(&str, &str)> {
        line.headers.iter().flatten().map(|(n, v)| (n.as_str(), v.as_str())).collect()
    }

    #[test]
    fn both_legs_are_recorded_and_nothing_is_changed() {
        let records = Records::new(1 << 20, &[]);
        let mut ex = exchange(
            "POST",
            "/v1/x?key=S3CRET&a=1",
            &[
                ("host", "a.test"),
                ("authorization", "Bearer S3CRET"),
                ("x-mine", "S3CRET"),
                ("my-api-token", "S3CRET"),
                ("x-taken-off", "S3CRET"),
                ("x-plain", "shown"),
            ],
        );
        ex.body = byte_chunks(pieces(&["as", "k"]));
        let transcript = Transcript::begin(&mut ex, &records.rules);
        ex.headers.remove("authorization");
        ex.headers.remove("x-taken-off");
        let mut up = http::Request::new(ex.body.take());
        *up.headers_mut() = ex.headers.clone();
        for (name, value) in [("x-upstream", "S3CRET"), ("host", "up.test"), ("authorization", "S3CRET")] {
            up.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        transcript.goes_up(&ex, &"up.test:443".into(), &mut up);
        assert_eq!(drain(up.into_body()), (b"ask".to_vec(), true));
        let mut response = Response::new(byte_chunks(pieces(&["data: 1\n\n", "data: 2\n\n"])));
        response.headers_mut().insert("set-cookie", HeaderValue::from_static("S3CRET"));
        transcript.came_down(&mut response, false);
        let mut outcome = Outcome::Response(response);
        transcript.answered(&ex, &mut outcome);
        drop(transcript);
        let Outcome::Response(response) = outcome else { panic!() };
        assert_eq!(drain(response.into_body()), (b"data: 1\n\ndata: 2\n\n".to_vec(), true));

        let lines = records.lines().unwrap();
        assert_eq!(
            events(&lines),
            [
                "record",
                "client request",
                "upstream request",
                "client request_body",
                "upstream request_body",
                "client request_body",
                "upstream request_body",
                "client request_end",
                "upstream request_end",
                "upstream response",
                "client response",
                "upstream response_body",
                "client response_body",
                "upstream response_body",
                "client response_body",
                "upstream response_end",
                "client response_end",
                "end",
            ]
        );
        assert!(!serde_json::to_string(&lines).unwrap().contains("S3CRET"));
        assert_eq!(lines[1].target.as_deref(), Some("/v1/x?key=REDACTED&a=1"));
        assert!(headers(&lines[1]).contains(&("x-plain", "shown")));
        assert!(headers(&lines[1]).contains(&("my-api-token", "REDACTED")));
        for shown in
            [("x-plain", "shown"), ("host", "up.test"), ("x-upstream", "REDACTED"), ("authorization", "REDACTED")]
        {
            assert!(headers(&lines[2]).contains(&shown), "{shown:?} in {:?}", lines[2].headers);
        }
        assert_eq!((lines[16].how.as_deref(), lines[16].bytes), (Some("complete"), Some(18)));
    }

    #[test]
    fn ends_tell_how_a_body_ended() {
        let how = |body: Body, read: usize| {
            let records = Records::new(1 << 20, &[]);
            let mut ex = exchange("GET", "/", &[("host", "a.test")]);
            let transcript = Transcript::begin(&mut ex, &records.rules);
            let mut outcome = Outcome::Response(Response::new(body));
            transcript.answered(&ex, &mut outcome);
            drop(transcript);
            let Outcome::Response(response) = outcome else { panic!() };
            let mut body = response.into_body();
            for _ in 0..read {
                let _ = next(&mut body);
            }
            drop(body);
            let lines = records.lines().unwrap();
            let end = lines.iter().find(|l| l.event == "response_end").unwrap();
            (end.how.clone().unwrap(), end.bytes.unwrap())
        };
        assert_eq!(how(byte_chunks(pieces(&["ab", "cd"])), 3), ("complete".into(), 4));
        assert_eq!(how(byte_chunks(pieces(&["ab", "cd"])), 1), ("gone".into(), 2));
        assert_eq!(how(broken(pieces(&["ab"])), 2), ("failed".into(), 2));
        assert_eq!(how(Body::from("whole"), 1), ("complete".into(), 5));
    }

    #[test]
    fn only_the_callers_asked_for_are_recorded() {
        for (user, recorded) in [(None, false), (Some("bob"), false), (Some("alice"), true)] {
            let records = Records::new(1 << 20, &["alice"]);
            let mut ex = exchange("POST", "/", &[("host", "a.test")]);
            ex.body = byte_chunks(pieces(&["early"]));
            let transcript = Transcript::begin(&mut ex, &records.rules);
            // Read before anybody knows whose it is.
            drain(ex.body.take());
            ex.user = user.map(|id: &str| User { id: id.to_owned(), ..User::default() });
            transcript.answered(&ex, &mut Outcome::Abort);
            drop(transcript);
            let lines = records.lines();
            assert_eq!(lines.is_some(), recorded, "{user:?}");
            if let Some(lines) = &lines {
                assert_eq!(lines[2].text.as_deref(), Some("early"));
                assert!(lines.iter().any(|l| l.user.as_deref() == Some("alice")));
            }
        }
    }

    #[test]
    fn a_record_is_bounded_also_in_small_pieces_and_says_so() {
        for piece in ["x".repeat(10_000), "x".to_owned()] {
            let records = Records::new(5_000, &[]);
            let mut ex = exchange("GET", "/", &[("host", "a.test")]);
            let transcript = Transcript::begin(&mut ex, &records.rules);
            let chunks = vec![Bytes::from(piece.clone()); 1_000];
            let mut outcome = Outcome::Response(Response::new(byte_chunks(chunks)));
            transcript.answered(&ex, &mut outcome);
            drop(transcript);
            let Outcome::Response(response) = outcome else { panic!() };
            assert_eq!(drain(response.into_body()).0.len(), piece.len() * 1_000);
            let lines = records.lines().unwrap();
            let held: usize = lines.iter().map(|l| l.data().len()).sum();
            assert!(held > 0 && held <= 5_000 && lines.len() < 100, "{held} in {}", lines.len());
            assert!(lines.last().unwrap().truncated);
        }
    }

    #[test]
    fn a_failed_attempt_and_a_client_that_left_are_told() {
        let records = Records::new(1 << 20, &[]);
        let mut ex = exchange("GET", "/", &[("host", "a.test")]);
        let transcript = Transcript::begin(&mut ex, &records.rules);
        transcript.goes_up(&ex, &"up:80".into(), &mut http::Request::new(Body::Empty));
        transcript.failed(&ProxyError::new(Kind::ConnectFailed, Retry::Safe, "refused"));
        transcript.abandoned(&ex);
        drop(transcript);
        let errors: Vec<_> = records.lines().unwrap().into_iter().filter_map(|l| l.error.map(|e| (l.leg, e))).collect();
        assert_eq!(errors[0], ("upstream".to_owned(), "upstream_connect_failed: refused".to_owned()));
        assert!(errors[1].1.contains("left"));
    }
}
