//! The proxy itself: attempts until an upstream answers, then the answer on its way to the client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body::Body as _;
use ipnet::IpNet;

use super::body::{Counted, read_ahead};
use super::policy::{Candidates, Policy};
use super::retry::{Again, RetryRules};
use super::state::InFlight;
use super::upstream::{Reachable, Upstream};
use super::{outgoing, upgrade};
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};
use crate::client::{self, SendOptions, Sent};
use crate::http::error::HandlerError;
use crate::http::exchange::{Exchange, Response, UpstreamFacts};
use crate::http::gunzip;
use crate::http::handler::{AsyncHandler, Flow, LocalFuture};
use crate::http::headers::CompiledHeaderOps;
use crate::http::matcher::Verdict;
use crate::http::response_handler::{self, Reaction, ResponseHandler};
use crate::http::response_matcher::{CompiledResponseMatcher, status_matches};
use crate::http::rewrite::Rewrite;

const ORIGIN: &str = "reverse_proxy";

/// One `reverse_proxy`, compiled. Immutable; what changes lives in the upstreams' states.
pub struct Engine {
    pub upstreams: Box<[Upstream]>,
    pub policy: Policy,
    pub retry: RetryRules,
    pub passive: Option<Passive>,
    /// Method and URI for the upstream alone.
    pub rewrite: Option<Rewrite>,
    /// Operations on a copy of the request's headers, anew for every attempt.
    pub header_up: Option<CompiledHeaderOps>,
    /// Operations on the response, for all or for those that match.
    pub header_down: Option<(CompiledHeaderOps, Option<CompiledResponseMatcher>)>,
    /// `Host` names the upstream, not what the client asked for.
    pub host_of_upstream: bool,
    /// Peers whose forwarding headers are believed, beside the server's own list.
    pub trusted_proxies: Box<[IpNet]>,
    /// Ask for gzip where the client says nothing, and undo it.
    pub compression: bool,
    pub request_buffer: Option<Buffer>,
    pub response_buffer: Option<Buffer>,
    pub handle_response: Box<[ResponseHandler]>,
    /// Longest life of an upgraded connection.
    pub stream_timeout: Option<Duration>,
}

/// How much of a body is read before it is passed on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Buffer {
    All,
    Bytes(u64),
}

impl Buffer {
    fn limit(self) -> Option<u64> {
        match self {
            Self::All => None,
            Self::Bytes(n) => Some(n),
        }
    }
}

/// When an upstream that answers, or fails to, is left alone for a while.
pub struct Passive {
    /// How long a failure counts; zero = failures are not counted.
    pub fail_duration: Duration,
    /// This many failures that count make it unavailable.
    pub max_fails: usize,
    /// Statuses that count as failures; a single digit stands for its class.
    pub statuses: Box<[u16]>,
    /// Answers that take this long count as failures.
    pub latency: Option<Duration>,
}

impl AsyncHandler for Engine {
    fn call<'a>(&'a self, ex: &'a mut Exchange) -> LocalFuture<'a, Flow> {
        Box::pin(async move {
            match self.proxy(ex).await {
                Ok(flow) => flow,
                Err(error) => Flow::Fail(error),
            }
        })
    }
}

/// What an attempt needs, settled once per request.
struct Plan {
    method: Method,
    uri: Uri,
    /// A rewrite to GET or HEAD sends no body and leaves the client's for later handlers.
    keeps_body: bool,
}

/// Why an attempt gave no response, and the request body if it can be sent again.
struct Failed {
    error: ProxyError,
    body: Option<Body>,
}

/// A response and where it came from.
struct Answered {
    sent: Sent,
    host: usize,
    in_flight: InFlight,
    gunzip: bool,
    set_cookie: Option<HeaderValue>,
}

impl Engine {
    async fn proxy(&self, ex: &mut Exchange) -> Result<Flow, HandlerError> {
        let started = Instant::now();
        let plan = self.plan(ex)?;
        let mut body = if plan.keeps_body { Body::Empty } else { ex.body.take() };
        if let Some(buffer) = self.request_buffer {
            body = read_ahead(body, buffer.limit()).await.map_err(|e| HandlerError::from_proxy(ORIGIN, e))?;
        }
        let mut retried = 0;
        loop {
            let failed = match self.attempt(ex, &plan, body).await {
                Ok(answered) => {
                    if let Some(facts) = &mut ex.upstream {
                        facts.retries = retried;
                        facts.duration = Some(started.elapsed());
                    }
                    return self.answer(ex, answered).await;
                }
                Err(failed) => failed,
            };
            let again = match self.retry.decide(&failed.error, retried, started.elapsed()) {
                Again::No => false,
                Again::Yes => true,
                Again::IfAllowed => self.may_repeat(ex, &plan)?,
            };
            let (Some(again_body), true) = (failed.body, again) else {
                if let Some(facts) = &mut ex.upstream {
                    facts.retries = retried;
                    facts.transport_error = true;
                    facts.duration = Some(started.elapsed());
                }
                return Err(HandlerError::from_proxy(ORIGIN, failed.error));
            };
            body = again_body;
            retried += 1;
            if !self.retry.try_interval.is_zero() {
                tokio::time::sleep(self.retry.try_interval).await;
            }
        }
    }

    fn plan(&self, ex: &Exchange) -> Result<Plan, HandlerError> {
        let mut plan = Plan { method: ex.method.clone(), uri: ex.uri.clone(), keeps_body: false };
        if let Some(rewrite) = &self.rewrite {
            if let Some(method) = rewrite.method(ex)? {
                plan.keeps_body = method == Method::GET || method == Method::HEAD;
                plan.method = method;
            }
            if let Some(uri) = rewrite.uri(ex)? {
                plan.uri = uri;
            }
        }
        Ok(plan)
    }

    /// Whether a request that an upstream may have seen is sent again.
    fn may_repeat(&self, ex: &mut Exchange, plan: &Plan) -> Result<bool, HandlerError> {
        match &self.retry.matchers {
            None => Ok(plan.method == Method::GET),
            Some(matchers) => match matchers.matches(ex) {
                Verdict::Yes => Ok(true),
                // A body that was not held for a matcher is on its way already.
                Verdict::No | Verdict::NeedBody(_) => Ok(false),
                Verdict::Error(error) => Err(error),
            },
        }
    }

    async fn attempt(&self, ex: &mut Exchange, plan: &Plan, body: Body) -> Result<Answered, Failed> {
        let now = Instant::now();
        let candidates = Available { engine: self, now };
        let choice = if self.upstreams.len() == 1 && !matches!(self.policy, Policy::Cookie(_)) {
            candidates.available(0).then(Default::default)
        } else {
            RNG.with_borrow_mut(|rng| self.policy.select(&candidates, ex, rng))
        };
        let Some(choice) = choice else {
            let error = ProxyError::new(Kind::NoUpstream, Retry::Safe, "no upstream is available");
            return Err(Failed { error, body: Some(body) });
        };
        let upstream = &self.upstreams[choice.index];
        let reachable = match upstream.reach(ex) {
            Ok(reachable) => reachable,
            Err(why) => {
                let error = ProxyError::new(Kind::ConnectFailed, Retry::No, why);
                return Err(Failed { error, body: None });
            }
        };
        Self::note_facts(ex, upstream, &reachable, now);
        let in_flight = upstream.state.begin();
        // Kept for another attempt only where the body is at hand; one that never left comes back with the error.
        let spare = match &body {
            Body::Empty => Some(Body::Empty),
            Body::Full(bytes) if self.retry.enabled() => Some(Body::Full(bytes.clone())),
            _ => None,
        };
        let (mut request, gunzip) = self.request(ex, plan, &reachable, body);
        if let Some(transcript) = &ex.transcript {
            transcript.goes_up(ex, &reachable.address, &mut request);
        }
        match client::send(&reachable.target, request, SendOptions::default()).await {
            Ok(sent) => Ok(Answered { sent, host: choice.index, in_flight, gunzip, set_cookie: choice.set_cookie }),
            Err(failure) => {
                self.count_failure(upstream, &failure.error);
                if let Some(transcript) = &ex.transcript {
                    transcript.failed(&failure.error);
                }
                let body = failure.request.map(|unsent| unsent.into_body()).or(spare);
                Err(Failed { error: failure.error, body })
            }
        }
    }

    fn note_facts(ex: &mut Exchange, upstream: &Upstream, reachable: &Reachable, now: Instant) {
        let facts = ex.upstream.get_or_insert_with(Box::default);
        **facts = UpstreamFacts {
            address: Arc::clone(&reachable.address),
            hostport: Arc::clone(&reachable.hostport),
            host: Arc::clone(&reachable.host),
            port: Arc::clone(&reachable.port),
            requests: upstream.state.requests(),
            max_requests: upstream.max_requests.unwrap_or(0),
            fails: u32::try_from(upstream.state.fails(now)).unwrap_or(u32::MAX),
            ..UpstreamFacts::default()
        };
    }

    /// The request for this upstream, and whether its gzip is ours to undo.
    fn request(&self, ex: &Exchange, plan: &Plan, to: &Reachable, body: Body) -> (Request<Body>, bool) {
        let mut headers = outgoing::request(ex, &self.trusted_proxies);
        if self.host_of_upstream {
            headers.insert(header::HOST, to.host_value.clone());
        }
        if let Some(ops) = &self.header_up {
            ops.apply(&mut headers, ex);
            // Framing is the connection's business, whatever an operation wrote.
            headers.remove(header::TRANSFER_ENCODING);
        }
        // A request of HTTP/1.0 may have come without one.
        if headers.get(header::HOST).is_none_or(HeaderValue::is_empty) {
            headers.insert(header::HOST, to.host_value.clone());
        }
        fix_length(ex, &plan.method, &mut headers, &body);
        let gunzip = self.compression && outgoing::wants_gzip(&plan.method, &headers);
        if gunzip {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        let mut request = Request::new(body);
        *request.method_mut() = plan.method.clone();
        *request.uri_mut() = plan.uri.clone();
        *request.headers_mut() = headers;
        (request, gunzip)
    }

    fn count_failure(&self, upstream: &Upstream, error: &ProxyError) {
        // What the client broke is not the upstream's failure.
        let clients = matches!(error.kind, Kind::ClientGone | Kind::ClientBody | Kind::BodyTooLarge);
        if let Some(passive) = &self.passive
            && !clients
        {
            passive.fail(upstream);
        }
    }

    async fn answer(&self, ex: &mut Exchange, answered: Answered) -> Result<Flow, HandlerError> {
        let Answered { sent, host, in_flight, gunzip, set_cookie } = answered;
        let Sent { mut response, upgraded, timings, .. } = sent;
        let status = response.status();
        if let Some(passive) = &self.passive {
            passive.judge(&self.upstreams[host], status, timings.first_byte);
        }
        if let Some(facts) = &mut ex.upstream {
            facts.latency = Some(timings.first_byte);
            facts.status = Some(status.as_u16());
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            if let Some(transcript) = &ex.transcript {
                transcript.came_down(&mut response, false);
            }
            upgrade::join(ex, response.headers(), upgraded, self.stream_timeout)
                .map_err(|e| HandlerError::from_proxy(ORIGIN, e))?;
            return Ok(Flow::Respond(response));
        }
        if gunzip {
            gunzip::apply(&mut response);
        }
        if let Some(transcript) = &ex.transcript {
            transcript.came_down(&mut response, gunzip);
        }
        if self.counts_bodies() {
            let inner = response.body_mut().take();
            *response.body_mut() = Body::stream(Counted::new(inner, in_flight));
        }
        if let Some(buffer) = self.response_buffer {
            let body = response.body_mut().take();
            *response.body_mut() =
                read_ahead(body, buffer.limit()).await.map_err(|e| HandlerError::from_proxy(ORIGIN, e))?;
        }
        match response_handler::react(&self.handle_response, ex, &mut response)? {
            Reaction::None => {}
            Reaction::Routes(routes) => {
                if let Some(facts) = &mut ex.upstream {
                    facts.headers = Some(response.headers().clone());
                }
                self.finish(ex, &mut response, set_cookie);
                return Ok(response_handler::run(routes, ex, response).await);
            }
        }
        self.finish(ex, &mut response, set_cookie);
        ex.server_header = false;
        Ok(Flow::Respond(response))
    }

    /// The head for the client.
    fn finish(&self, ex: &Exchange, response: &mut Response, set_cookie: Option<HeaderValue>) {
        let version = response.version();
        outgoing::strip_response(response.headers_mut());
        if let Some((ops, require)) = &self.header_down {
            let applies = require.as_ref().is_none_or(|r| r.matches(response.status().as_u16(), response.headers()));
            if applies {
                ops.apply_response(response.headers_mut(), ex);
            }
        }
        // After the operations: they edit what the upstream said, not what we add (as in Caddy).
        response.headers_mut().append(header::VIA, outgoing::via(version));
        if let Some(cookie) = set_cookie {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        // The client speaks its own version.
        *response.version_mut() = http::Version::default();
    }

    /// Whether a response that is still being sent counts: only where somebody looks at the count.
    fn counts_bodies(&self) -> bool {
        self.policy.counts_requests() || self.upstreams.iter().any(|u| u.max_requests.is_some())
    }
}

impl Passive {
    fn fail(&self, upstream: &Upstream) {
        if !self.fail_duration.is_zero() {
            upstream.state.fail(Instant::now(), self.fail_duration);
        }
    }

    fn judge(&self, upstream: &Upstream, status: StatusCode, latency: Duration) {
        for _ in self.statuses.iter().filter(|s| status_matches(status.as_u16(), **s)) {
            self.fail(upstream);
        }
        if self.latency.is_some_and(|limit| latency >= limit) {
            self.fail(upstream);
        }
    }
}

struct Available<'e> {
    engine: &'e Engine,
    now: Instant,
}

impl Candidates for Available<'_> {
    fn count(&self) -> usize {
        self.engine.upstreams.len()
    }

    fn available(&self, index: usize) -> bool {
        let max_fails = self.engine.passive.as_ref().map(|p| p.max_fails);
        self.engine.upstreams.get(index).is_some_and(|u| u.available(self.now, max_fails))
    }

    fn requests(&self, index: usize) -> usize {
        self.engine.upstreams.get(index).map_or(0, |u| u.state.requests())
    }

    fn name(&self, index: usize) -> &str {
        self.engine.upstreams.get(index).map_or("", |u| &u.name)
    }
}

thread_local! {
    /// Chance for balancing: one generator per worker.
    static RNG: std::cell::RefCell<fastrand::Rng> = std::cell::RefCell::new(fastrand::Rng::new());
}

/// Makes `content-length` say what the body is: an operation may have touched it, the body may have been dropped.
fn fix_length(ex: &Exchange, method: &Method, headers: &mut http::HeaderMap, body: &Body) {
    let expects_body = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    let Some(stated) = headers.get(header::CONTENT_LENGTH) else {
        if expects_body && body.size_hint().exact() == Some(0) {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        return;
    };
    let right = match body.size_hint().exact() {
        Some(0) => stated == "0" && expects_body,
        Some(exact) => stated.to_str().ok().and_then(|v| v.parse().ok()) == Some(exact),
        // A stream that does not know: the client's word stands, and the connection enforces it.
        None => ex.headers.get(header::CONTENT_LENGTH) == Some(stated),
    };
    if !right {
        headers.remove(header::CONTENT_LENGTH);
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
