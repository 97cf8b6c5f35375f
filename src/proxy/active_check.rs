//! Active checks: asks one upstream over and over whether it is well, away from requests.
//!
//! ```text
//! ActiveCheck::run ─▶ ask (client::simple, a connection of its own) ─▶ judge ─▶ ActiveHealth::note ─▶ wait ─┐
//!        ▲──────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri};
use regex::Regex;

use super::health::{ActiveHealth, Rules};
use super::upstream::{Reachable, TransportTemplate};
use crate::base::body::Body;
use crate::client::{self, Scheme};
use crate::config::background::Background;
use crate::http::exchange::{Conn, Exchange, Peer, ServerFacts};
use crate::http::headers::CompiledHeaderOps;
use crate::http::placeholder::Template;
use crate::http::response_matcher::status_matches;

/// Redirects followed within one check, as in Go.
const MAX_REDIRECTS: usize = 10;
/// Each pause is up to this part longer or shorter, so that checks of many proxies do not come together.
const JITTER: f64 = 0.1;

/// What is asked, and which answer is a good one; the same for all upstreams of a handler.
#[derive(Debug)]
pub struct Question {
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// What the upstream itself changes of requests: the key of its account.
    pub own: Option<CompiledHeaderOps>,
    /// `Host` among them goes in place of the upstream's own.
    pub headers: Vec<(HeaderName, Template)>,
    pub body: Template,
    /// A status, or a class by its single digit; `None` = any 2xx.
    pub status: Option<u16>,
    /// What must be found in the body.
    pub pattern: Option<Regex>,
    /// How much of the body is looked at, in bytes.
    pub max_body: usize,
    pub follow_redirects: bool,
    pub timeout: Duration,
}

/// One upstream that is asked again and again.
pub struct ActiveCheck {
    /// The upstream's address as configured, for the log.
    pub upstream: Box<str>,
    /// Where the check goes: not always where requests go.
    pub place: Reachable,
    pub transport: Arc<TransportTemplate>,
    pub question: Arc<Question>,
    pub interval: Duration,
    pub rules: Rules,
    pub state: Arc<ActiveHealth>,
    pub identity: Box<str>,
}

impl Background for ActiveCheck {
    fn identity(&self) -> &str {
        &self.identity
    }

    fn run(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(async move {
            let mut rng = fastrand::Rng::new();
            loop {
                // The pause counts from the start of a check, as a ticker's: a slow check is not also a rare one.
                let began = tokio::time::Instant::now();
                self.check().await;
                let factor = 1.0 + JITTER * (2.0 * rng.f64() - 1.0);
                tokio::time::sleep_until(began + self.interval.mul_f64(factor)).await;
                // A check that takes longer than its interval must not take the thread for itself.
                tokio::task::yield_now().await;
            }
        })
    }
}

impl ActiveCheck {
    async fn check(&self) {
        let verdict = match self.ask().await {
            Ok(answer) => self.question.judge(&answer),
            Err(why) => Err(why),
        };
        let (host, upstream) = (&*self.place.hostport, &*self.upstream);
        let changed = self.state.note(verdict.is_ok(), self.rules);
        match (verdict, changed) {
            (Ok(()), true) => tracing::info!(host, upstream, "host is up"),
            (Err(why), true) => tracing::warn!(host, upstream, "host is down: {why}"),
            (Err(why), false) => tracing::debug!(host, upstream, "health check failed: {why}"),
            (Ok(()), false) => {}
        }
    }

    /// The answer at the end of all redirects, or why there is none.
    async fn ask(&self) -> Result<Response<Bytes>, String> {
        let question = &self.question;
        let until = tokio::time::Instant::now() + question.timeout;
        let mut request = question.request(&self.place)?;
        let mut elsewhere: Option<Reachable> = None;
        for _ in 0..=MAX_REDIRECTS {
            let place = elsewhere.as_ref().unwrap_or(&self.place);
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            let limit = if question.pattern.is_some() { question.max_body } else { 0 };
            let answer =
                client::simple::begin(&place.target, request.clone(), limit, left).await.map_err(|e| e.to_string())?;
            match question.redirect(&answer, place, &mut request)? {
                Next::None => return Ok(answer),
                Next::Here => {}
                Next::At(other) => elsewhere = Some(self.reach(&other)?),
            }
        }
        Err(format!("more than {MAX_REDIRECTS} redirects"))
    }

    /// Another host that a redirect names, reached with the transport's own options.
    fn reach(&self, other: &Elsewhere) -> Result<Reachable, String> {
        let scheme = if other.tls { Scheme::Https } else { Scheme::Http };
        let transport = TransportTemplate {
            scheme,
            except_ports: Vec::new(),
            server_name: None,
            options: self.transport.options.clone(),
        };
        transport.reach(&other.hostport).map_err(|why| format!("redirected to a place that cannot be: {why}"))
    }
}

/// Where the next request of a check goes, after an answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nowhere: the answer is the one.
    None,
    Here,
    At(Elsewhere),
}

/// Another origin than the one asked.
#[derive(Debug, PartialEq, Eq)]
struct Elsewhere {
    hostport: String,
    tls: bool,
}

impl Question {
    fn request(&self, place: &Reachable) -> Result<Request<Bytes>, String> {
        let mut request = Request::new(Bytes::from(self.body.render_alone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, place.host_value.clone());
        headers.insert(header::USER_AGENT, agent());
        if let Some(own) = &self.own {
            own.apply(headers, &nobody(&self.method, &self.uri));
        }
        let mut set: Vec<&HeaderName> = Vec::new();
        for (name, template) in &self.headers {
            let value = HeaderValue::from_str(&template.render_alone())
                .map_err(|_| format!("the value of header `{name}` cannot be sent"))?;
            let first = !set.contains(&name);
            if first {
                set.push(name);
                headers.insert(name, value);
            } else {
                headers.append(name, value);
            }
        }
        Ok(request)
    }

    /// Whether the answer is that of a healthy upstream; else why not, without a word of what it said.
    fn judge(&self, answer: &Response<Bytes>) -> Result<(), String> {
        let status = answer.status().as_u16();
        let expected = match self.status {
            Some(wanted) => status_matches(status, wanted),
            None => answer.status().is_success(),
        };
        if !expected {
            return Err(format!("status {status}"));
        }
        match &self.pattern {
            Some(pattern) if !pattern.is_match(&String::from_utf8_lossy(answer.body())) => {
                Err("the body does not match".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Makes `request` the next one where the answer is a redirect that is followed. The rules are those of Go's client;
    /// credentials do not go to another host.
    fn redirect(
        &self,
        answer: &Response<Bytes>,
        place: &Reachable,
        request: &mut Request<Bytes>,
    ) -> Result<Next, String> {
        let status = answer.status().as_u16();
        if !self.follow_redirects || !matches!(status, 301 | 302 | 303 | 307 | 308) {
            return Ok(Next::None);
        }
        let Some(location) = answer.headers().get(header::LOCATION) else { return Ok(Next::None) };
        let uri = location.to_str().ok().and_then(|text| resolve(text, request.uri(), place));
        let uri = uri.ok_or("redirected to a place that cannot be")?;
        if matches!(status, 301..=303) {
            if *request.method() != Method::HEAD {
                *request.method_mut() = Method::GET;
            }
            *request.body_mut() = Bytes::new();
            request.headers_mut().remove(header::CONTENT_TYPE);
        }
        let other = elsewhere(&uri, place)?;
        if let Some(other) = &other {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, agent());
            let host = HeaderValue::from_str(&other.hostport).map_err(|_| "redirected to a host that cannot be")?;
            headers.insert(header::HOST, host);
            *request.headers_mut() = headers;
        }
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        *request.uri_mut() = path.parse().map_err(|_| "redirected to a place that cannot be")?;
        Ok(other.map_or(Next::Here, Next::At))
    }
}

/// A request that no client sent: what a placeholder of the request shows is empty.
fn nobody(method: &Method, uri: &Uri) -> Exchange {
    let (mut head, ()) = Request::new(()).into_parts();
    (head.method, head.uri) = (method.clone(), uri.clone());
    let conn = Conn { peer: Peer::Unix, local: None, peer_ip_value: HeaderValue::from_static(""), tls: None };
    Exchange::new(head, Body::Empty, Rc::new(conn), Rc::new(ServerFacts::default()), Instant::now())
}

fn agent() -> HeaderValue {
    HeaderValue::from_static(concat!("llmproxy/", env!("CARGO_PKG_VERSION"), " (health check)"))
}

/// A `Location` against the URI it came from: absolute, with a path of its own, or beside that one.
fn resolve(location: &str, base: &Uri, asked: &Reachable) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default();
    if location.contains("://") || (location.starts_with('/') && !location.starts_with("//")) {
        return location.parse().ok();
    }
    if location.starts_with("//") {
        let scheme = if asked.target.options().scheme == Scheme::Https { "https" } else { "http" };
        return format!("{scheme}:{location}").parse().ok();
    }
    let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    let text = if location.starts_with('?') { base.path().to_owned() } else { format!("{folder}/") };
    format!("{text}{location}").parse().ok()
}

/// The host of an absolute URI, unless it is the one that was asked.
fn elsewhere(uri: &Uri, asked: &Reachable) -> Result<Option<Elsewhere>, String> {
    let Some(host) = uri.host() else { return Ok(None) };
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Err("redirected to another protocol".to_owned()),
    };
    let port = uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let hostport = format!("{host}:{port}");
    let same = hostport == *asked.hostport && tls == (asked.target.options().scheme == Scheme::Https);
    Ok((!same).then_some(Elsewhere { hostport, tls }))
}

#[cfg(test)]
#[path = "active_check_tests.rs"]
mod tests;
