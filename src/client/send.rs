//! Sending one request: take or make a connection, exchange, and try again where nothing can have happened twice.

use std::net::SocketAddr;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{Request, Response, Uri, Version, header};
use tokio::time::Instant;

use super::dial::{self, Dialed, Wanted};
use super::h1::{Answer, Failure, H1};
use super::h2::H2;
use super::pool::{self, Idle};
use super::proxy_protocol::Ends;
use super::target::Target;
use super::total;
use super::upgraded::Upgraded;
use crate::base::body::Body;
use crate::base::error::{Kind, ProxyError, Retry};

#[derive(Copy, Clone, Debug, Default)]
pub struct SendOptions {
    /// Whom the request is from, for a target that is told by the PROXY protocol. Such a connection belongs to one client:
    /// it is never pooled.
    pub ends: Option<Ends>,
}

/// A response and how it came.
#[derive(Debug)]
pub struct Sent {
    /// Dropping its body cancels the rest.
    pub response: Response<Body>,
    /// With status 101 (or a CONNECT that was granted), the raw connection.
    pub upgraded: Option<Upgraded>,
    /// The connection had served before.
    pub reused: bool,
    pub timings: Timings,
    /// The address connected to; `None` for unix sockets.
    pub remote_addr: Option<SocketAddr>,
}

#[derive(Copy, Clone, Debug, Default)]
pub struct Timings {
    /// Name resolution, connecting and handshakes; `None` on a reused connection.
    pub connect: Option<Duration>,
    /// From the call to the response head.
    pub first_byte: Duration,
}

/// Why there is no response.
#[derive(Debug)]
pub struct SendError {
    pub error: ProxyError,
    /// The request as it was given, when none of it was sent: it may go to another upstream, whatever its method.
    pub request: Option<Box<Request<Body>>>,
}

/// Sends `request` to `target`. The URI is in origin form and `host` is set; hop-by-hop headers and `expect` are gone.
///
/// A connection that turns out closed before the request was written costs nothing: another one is used. If it closes
/// after that without a byte of an answer, and it had served before, the request is sent once more on a new connection,
/// provided its method is idempotent (or it has an `idempotency-key`) and its body is at hand. Dropping the future
/// cancels the upstream at once.
pub async fn send(
    target: &Target,
    request: impl Into<Box<Request<Body>>>,
    options: SendOptions,
) -> Result<Sent, SendError> {
    let exchange = exchange(target, request.into(), options);
    match target.options.timeouts.total {
        None => exchange.await,
        Some(limit) => total::bounded(target, limit, Box::pin(exchange)).await,
    }
}

/// Boxed, as a request is moved from one future to the next.
async fn exchange(target: &Target, request: Box<Request<Body>>, options: SendOptions) -> Result<Sent, SendError> {
    let started = Instant::now();
    let mut request = prepare(target, request)?;
    let header = target.options.proxy_protocol.map(|version| version.header(options.ends));
    let wanted = Wanted {
        first_bytes: header.as_deref(),
        h1_only: target.chooses_by_alpn() && request.headers().contains_key(header::UPGRADE),
    };
    let mut use_pool = wanted.first_bytes.is_none();
    let mut second = false;
    loop {
        let at_hand = if use_pool { pool::take(&target.pool, wanted.h1_only) } else { None };
        let (connection, connect) = match at_hand {
            Some(idle) => (idle, None),
            // Boxed: a request that finds a connection needs no room for how one is made.
            None => match Box::pin(acquire(target, wanted, use_pool)).await {
                Ok(acquired) => acquired,
                Err(error) => return Err(SendError { error, request: Some(give_back(target, request)) }),
            },
        };
        let reused = connect.is_none();
        let shared = matches!(connection, Idle::H2(_));
        let result = match connection {
            Idle::H1(h1) => h1.exchange(target, request).await,
            Idle::H2(h2) => h2.exchange(target, *request, !second).await,
        };
        match result {
            Ok(Answer { response, upgraded, remote }) => {
                let timings = Timings { connect, first_byte: started.elapsed() };
                return Ok(Sent { response, upgraded, reused, timings, remote_addr: remote });
            }
            Err(failure) => {
                // An HTTP/1 connection that was closed before the request is gone now, and the next one may serve. All
                // else gets one more try, on a connection that cannot be stale.
                let stale_h1 = failure.unsent && !shared;
                request = next_try(target, failure, reused, !second)?;
                use_pool = use_pool && stale_h1;
                second = second || !stale_h1;
            }
        }
    }
}

/// A connection, and how long it took to make; `None` if it was at hand.
async fn acquire(
    target: &Target,
    wanted: Wanted<'_>,
    mut use_pool: bool,
) -> Result<(Idle, Option<Duration>), ProxyError> {
    let share = wanted.first_bytes.is_none();
    let mut turn = loop {
        if use_pool && let Some(idle) = pool::take(&target.pool, wanted.h1_only) {
            return Ok((idle, None));
        }
        match pool::may_dial(target, share && !wanted.h1_only).await {
            Some(turn) => break turn,
            None => use_pool = share,
        }
    };
    let Dialed { stream, remote, h2, took } = dial::dial(target, wanted).await?;
    let share = share && target.options.keepalive.enabled;
    if !wanted.h1_only {
        turn.connected(h2);
    }
    let permit = turn.permit.take();
    let connection = if h2 {
        let h2 = H2::new(target, stream, remote, permit).await?;
        if share {
            pool::put_h2(&target.pool, h2.clone());
        }
        Idle::H2(h2)
    } else {
        let mut h1 = H1::new(target, stream, remote, permit);
        h1.keepalive.enabled &= share;
        Idle::H1(h1)
    };
    Ok((connection, Some(took)))
}

/// What to send after a failure, or the failure. `first`: this was the first that an upstream may have seen.
fn next_try(target: &Target, failure: Failure, reused: bool, first: bool) -> Result<Box<Request<Body>>, SendError> {
    let Failure { error, request, unsent, silent, again } = failure;
    let Some(request) = request else { return Err(SendError { error, request: None }) };
    if unsent {
        return if reused { Ok(request) } else { Err(SendError { error, request: Some(give_back(target, request)) }) };
    }
    let stale = reused && silent && error.kind == Kind::UpstreamClosed && is_idempotent(&request);
    if first && (again || stale) { Ok(request) } else { Err(SendError { error, request: None }) }
}

/// May be sent twice: by its method (RFC 9110 section 9.2.2), or as the caller says so.
fn is_idempotent(request: &Request<Body>) -> bool {
    request.method().is_idempotent()
        || request.headers().contains_key("idempotency-key")
        || request.headers().contains_key("x-idempotency-key")
}

/// To an HTTP proxy a plain request goes in absolute form, with the login for the proxy.
fn prepare(target: &Target, mut request: Box<Request<Body>>) -> Result<Box<Request<Body>>, SendError> {
    *request.version_mut() = Version::HTTP_11;
    if let Some(proxy) = target.proxy.as_ref().filter(|_| dial::speaks_to_proxy(target)) {
        let path = request.uri().path_and_query().cloned();
        let absolute = Uri::builder().scheme("http").authority(&*target.label);
        let absolute = absolute.path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/"))).build();
        let Ok(uri) = absolute else {
            let error = ProxyError::new(Kind::Internal, Retry::No, "the upstream's address is not valid in a URI");
            return Err(SendError { error, request: Some(request) });
        };
        *request.uri_mut() = uri;
        if let Some(login) = &proxy.authorization {
            request.headers_mut().insert(header::PROXY_AUTHORIZATION, login.clone());
        }
    }
    Ok(request)
}

/// Undoes [`prepare`].
fn give_back(target: &Target, mut request: Box<Request<Body>>) -> Box<Request<Body>> {
    if dial::speaks_to_proxy(target) {
        request.headers_mut().remove(header::PROXY_AUTHORIZATION);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    }
    request
}
