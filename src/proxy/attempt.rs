//! One attempt: an upstream is chosen, the request for it made and sent.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Method, Request, Uri, header};
use http_body::Body as _;

use super::again::Past;
use super::engine::Engine;
use super::outgoing;
use super::state::{HostState, InFlight};
use super::upstream::{Reachable, Upstream};
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};
use crate::client::{self, Ends, SendOptions, Sent};
use crate::http::error::HandlerError;
use crate::http::exchange::{Exchange, Peer, UpstreamFacts};

/// What an attempt needs, settled once per request.
pub(super) struct Plan {
    pub method: Method,
    pub uri: Uri,
    /// The model asked for, where upstreams are chosen by it.
    pub model: Option<Rc<str>>,
    /// A rewrite to GET or HEAD sends no body and leaves the client's for later handlers.
    pub keeps_body: bool,
}

/// Why an attempt gave no response.
pub(super) struct Failed {
    pub error: ProxyError,
    /// The request body, when none of it was sent.
    pub unsent: Option<Body>,
    /// Who failed; `None` when nobody was asked.
    pub upstream: Option<Arc<HostState>>,
}

/// A response and where it came from.
pub(super) struct Answered {
    pub sent: Sent,
    /// Knows the upstream too.
    pub in_flight: InFlight,
    /// Its gzip is ours to undo.
    pub gunzip: bool,
    /// That was done, and the record made has it.
    pub unpacked: bool,
    pub set_cookie: Option<HeaderValue>,
}

impl Engine {
    pub(super) fn plan(&self, ex: &Exchange) -> Result<Plan, HandlerError> {
        let mut plan = Plan { method: ex.method.clone(), uri: ex.uri.clone(), model: None, keeps_body: false };
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

    pub(super) async fn attempt(
        &self,
        upstreams: &[Upstream],
        ex: &mut Exchange,
        plan: &Plan,
        past: &Past,
        mut body: Body,
    ) -> Result<Answered, Failed> {
        let now = Instant::now();
        let choice = self.choose(upstreams, ex, plan, past, now);
        let Some((choice, upstream)) = choice.and_then(|c| upstreams.get(c.index).map(|u| (c, u))) else {
            let error = ProxyError::new(Kind::NoUpstream, Retry::Safe, "no upstream is available");
            return Err(Failed { error, unsent: Some(body), upstream: None });
        };
        let reachable = match upstream.reach(ex) {
            Ok(reachable) => reachable,
            Err(why) => {
                let error = ProxyError::new(Kind::ConnectFailed, Retry::No, why);
                return Err(Failed { error, unsent: None, upstream: None });
            }
        };
        Self::note_facts(ex, upstream, &reachable, now);
        if let Some(meter) = &mut ex.meter {
            meter.sends(Arc::clone(&reachable.hostport), past.retried);
            if !upstream.own.tells_no_usage
                && let Some(asking) = meter.ask_for_usage(&body)
            {
                body = asking;
            }
        }
        let in_flight = upstream.state.begin();
        upstream.state.counters.sent(past.retried > 0);
        let pass = upstream.breaker.as_ref().map(|breaker| breaker.begin(now));
        let (mut request, gunzip) = self.request(ex, plan, upstream, &reachable, body);
        if let Some(transcript) = &ex.transcript {
            transcript.goes_up(ex, &reachable.address, &mut request);
        }
        let told = reachable.target.options().proxy_protocol.is_some();
        let options = SendOptions { ends: if told { ends(ex) } else { None } };
        match client::send(&reachable.target, request, options).await {
            Ok(sent) => {
                upstream.answered(sent.response.status(), pass);
                Ok(Answered { sent, in_flight, gunzip, unpacked: false, set_cookie: choice.set_cookie })
            }
            Err(failure) => {
                upstream.failed(&failure.error, pass);
                if let Some(passive) = &self.passive {
                    passive.failed(&upstream.state, &failure.error);
                }
                if self.policy.watches_latency() {
                    upstream.state.ewma.failed(Instant::now(), now.elapsed());
                }
                if let Some(meter) = &mut ex.meter {
                    meter.failed(&failure.error);
                }
                if let Some(transcript) = &ex.transcript {
                    transcript.failed(&failure.error);
                }
                let unsent = failure.request.map(|unsent| unsent.into_body());
                Err(Failed { error: failure.error, unsent, upstream: Some(Arc::clone(&upstream.state)) })
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
            max_requests: upstream.own.max_requests.unwrap_or(0),
            fails: u32::try_from(upstream.state.fails(now)).unwrap_or(u32::MAX),
            ..UpstreamFacts::default()
        };
    }

    /// The request for this upstream, and whether its gzip is ours to undo.
    fn request(
        &self,
        ex: &Exchange,
        plan: &Plan,
        upstream: &Upstream,
        to: &Reachable,
        body: Body,
    ) -> (Box<Request<Body>>, bool) {
        let room = ex.headers.len() + outgoing::ADDED;
        let mut request = client::spare_request(plan.method.clone(), plan.uri.clone(), room, body);
        let mut headers = std::mem::take(request.headers_mut());
        outgoing::request(ex, &self.trusted_proxies, &mut headers);
        if upstream.own.names_host {
            headers.insert(header::HOST, to.host_value.clone());
        }
        for ops in [&self.header_up, &upstream.own.header_up].into_iter().flatten() {
            ops.apply(&mut headers, ex);
            // Framing is the connection's business, whatever an operation wrote.
            headers.remove(header::TRANSFER_ENCODING);
        }
        // A request of HTTP/1.0 may have come without one.
        if headers.get(header::HOST).is_none_or(HeaderValue::is_empty) {
            headers.insert(header::HOST, to.host_value.clone());
        }
        if ex.meter.as_ref().is_some_and(|meter| meter.counts()) {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        fix_length(ex, &plan.method, &mut headers, request.body());
        let gunzip = self.compression && outgoing::wants_gzip(&plan.method, &headers);
        if gunzip {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        *request.headers_mut() = headers;
        (request, gunzip)
    }
}

/// Whom the request is from, for upstreams that are told: who a trusted proxy says it is, whose port is not known then.
fn ends(ex: &Exchange) -> Option<Ends> {
    let client = match ex.conn.peer {
        Peer::Ip(peer) if ex.client_ip() == Some(peer.ip().to_canonical()) => peer,
        _ => SocketAddr::new(ex.client_ip()?, 0),
    };
    Some(Ends { client, listener: ex.conn.local })
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
