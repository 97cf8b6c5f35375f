//! One request on a connection of its own, on any tokio runtime: for health checks and commands, off the request path.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::dial::{self, Dialed, Wanted};
use super::target::{Scheme, Target};
use crate::base::error::{Kind, ProxyError, Retry};

/// Sends a request (origin-form URI, `host` set) and reads the whole answer: at most `limit` bytes, within `timeout`
/// from the start.
pub async fn request(
    target: &Target,
    request: Request<Bytes>,
    limit: usize,
    timeout: Duration,
) -> Result<Response<Bytes>, ProxyError> {
    within(target, timeout, exchange(target, request, Wish { limit, cut: false })).await
}

/// The same, of an answer whose body may go on: what is beyond `limit` is not waited for. With 0, the head is enough.
pub async fn begin(
    target: &Target,
    request: Request<Bytes>,
    limit: usize,
    timeout: Duration,
) -> Result<Response<Bytes>, ProxyError> {
    within(target, timeout, exchange(target, request, Wish { limit, cut: true })).await
}

async fn within(
    target: &Target,
    timeout: Duration,
    exchange: impl Future<Output = Result<Response<Bytes>, ProxyError>>,
) -> Result<Response<Bytes>, ProxyError> {
    tokio::time::timeout(timeout, exchange).await.unwrap_or_else(|_| {
        Err(ProxyError::new(
            Kind::ResponseTimeout,
            Retry::IfIdempotent,
            format!("{}: no response in time", target.label()),
        ))
    })
}

/// How much of a body is wanted.
#[derive(Copy, Clone)]
struct Wish {
    limit: usize,
    /// More than that is left where it is; else it is an error.
    cut: bool,
}

async fn exchange(target: &Target, request: Request<Bytes>, wish: Wish) -> Result<Response<Bytes>, ProxyError> {
    let failed = |error: hyper::Error| {
        ProxyError::new(Kind::UpstreamClosed, Retry::IfIdempotent, format!("{}: {error}", target.label()))
    };
    let header = target.options().proxy_protocol.map(|version| version.header(None));
    let wanted = Wanted { first_bytes: header.as_deref(), ..Wanted::default() };
    let Dialed { stream, h2, .. } = dial::dial(target, wanted).await?;
    let request = request.map(Full::new);
    let io = TokioIo::new(stream);
    if h2 {
        let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
        let mut request = absolute(target, request)?;
        request.headers_mut().remove(header::HOST);
        let answer = sender.send_request(request);
        beside(read(target, answer, wish), connection).await
    } else {
        let mut request = request;
        if let Some(proxy) = target.proxy.as_ref().filter(|_| dial::speaks_to_proxy(target)) {
            request = absolute(target, request)?;
            if let Some(login) = &proxy.authorization {
                request.headers_mut().insert(header::PROXY_AUTHORIZATION, login.clone());
            }
        }
        let (mut sender, connection) = http1::handshake(io).await.map_err(failed)?;
        let answer = sender.send_request(request);
        beside(read(target, answer, wish), connection).await
    }
}

async fn read(
    target: &Target,
    answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    wish: Wish,
) -> Result<Response<Bytes>, ProxyError> {
    let failed = |kind: Kind, error: &dyn std::fmt::Display| {
        ProxyError::new(kind, Retry::IfIdempotent, format!("{}: {error}", target.label()))
    };
    let (head, mut body) = answer.await.map_err(|e| failed(Kind::UpstreamClosed, &e))?.into_parts();
    if !wish.cut {
        let body = Limited::new(body, wish.limit).collect().await.map_err(|e| failed(Kind::UpstreamBody, &e))?;
        return Ok(Response::from_parts(head, body.to_bytes()));
    }
    let mut kept = BytesMut::new();
    while kept.len() < wish.limit
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame.map_err(|e| failed(Kind::UpstreamBody, &e))?.into_data() {
            kept.extend_from_slice(&data[..data.len().min(wish.limit - kept.len())]);
        }
    }
    Ok(Response::from_parts(head, kept.freeze()))
}

/// Runs `wanted` while the connection is driven.
async fn beside<T>(wanted: impl Future<Output = T>, connection: impl Future) -> T {
    let (mut wanted, mut connection) = (pin!(wanted), pin!(connection));
    let mut open = true;
    poll_fn(|cx| {
        if open && connection.as_mut().poll(cx).is_ready() {
            open = false;
        }
        match wanted.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(value),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn absolute(target: &Target, mut request: Request<Full<Bytes>>) -> Result<Request<Full<Bytes>>, ProxyError> {
    let scheme = if target.options().scheme == Scheme::Https { "https" } else { "http" };
    let host = request.headers().get(header::HOST);
    let authority = host.map_or(target.label().as_bytes(), HeaderValue::as_bytes).to_vec();
    let path = request.uri().path_and_query().map_or("/", |p| p.as_str()).to_owned();
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    *request.uri_mut() =
        uri.map_err(|e| ProxyError::new(Kind::Internal, Retry::No, format!("{}: {e}", target.label())))?;
    Ok(request)
}
